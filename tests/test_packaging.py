"""The wheel: what is in it, and that it works away from the checkout."""

import email
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT))
    run(sys.executable, *build)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel alone, in a folder with a space and Japanese characters."""
    folder = tmp_path_factory.mktemp("別の 場所")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder))
    run(sys.executable, *pip, str(wheel))
    return folder


@pytest.fixture
def away(installed, tmp_path):
    """Run a command outside the checkout with only the installed wheel on the path."""
    env = os.environ | {"PYTHONPATH": str(installed)}
    return lambda *command: run(*command, cwd=tmp_path, env=env)


def test_every_file_of_the_package_is_in_the_wheel(wheel):
    package = ROOT / "src" / "batchlab"
    files = {
        path.relative_to(ROOT / "src").as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert "batchlab/py.typed" in files
    assert files - inside == set()


def test_the_wheel_holds_the_package_and_its_licence_only(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    info = f"batchlab-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {"batchlab", info}
    assert f"{info}/licenses/LICENSE" in names


def test_the_core_install_is_five_packages(wheel):
    name = f"batchlab-{PROJECT['version']}.dist-info/METADATA"
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(name))
    core = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    names = {line.split(">")[0] for line in core}
    assert names == {"torch", "numpy", "jaxtyping", "tyro", "rich"}


def test_the_installed_package_is_the_one_that_runs(away, installed):
    where = away(sys.executable, "-c", "import batchlab; print(batchlab.__file__)").strip()
    assert Path(where).is_relative_to(installed)


def test_the_command_knows_its_version(away, installed):
    assert PROJECT["version"] in away(
        sys.executable, str(installed / "bin" / "batchlab"), "--version"
    )


def test_python_m_is_the_same_command(away):
    assert PROJECT["version"] in away(sys.executable, "-m", "batchlab", "--version")


def test_every_requirement_is_pinned():
    lines = (ROOT / "constraints.txt").read_text("utf-8").lower().replace("_", "-").splitlines()
    pinned = {line.split("==")[0] for line in lines}
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    assert {re.split(r"[\[>]", w)[0].lower().replace("_", "-") for w in wanted} - pinned == set()
