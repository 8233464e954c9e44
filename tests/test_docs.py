"""What the documents promise is run, and what must not be in the repository is not."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "README.ja.md")

# Written as patterns that do not match themselves.
PRIVATE = re.compile(
    r"[/]work/|[/]root/|[/]home/\w|[/]Users/\w|[/]tmp/[a-z]|[/]opt/(pypi|wheels)|C:[\\]Users"
    r"|pypi[.]org|pythonhosted[.]org|npmjs[.](org|com)|deb[.]debian[.]org|crates[.]io"
    r"|download[.]pytorch[.]org"
)


def text(name):
    return (ROOT / name).read_text("utf-8")


def blocks(name, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), re.DOTALL | re.MULTILINE)


def commands(name):
    """Every command line in a document, without its comment."""
    lines = "".join(blocks(name, "sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if shlex.split(line, comments=True)]


def tracked():
    """Files that are, or would be, committed."""
    git = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [
        path
        for path in map(ROOT.joinpath, filter(None, done.stdout.split("\0")))
        if path.is_file()
    ]


def private(content):
    """Lines that name a machine's folders or a registry's host."""
    return [line for line in content.splitlines() if PRIVATE.search(line)]


def test_no_file_names_a_machine_path_or_a_registry_host():
    found = {
        p.relative_to(ROOT).as_posix(): private(p.read_text("utf-8", "ignore")) for p in tracked()
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "see " + "/wor" + "k/main/x",
        "--index-url https://" + "pypi" + ".org/simple",
        "/ho" + "me/ann/data",
        "/tm" + "p/abc.json",
    ],
)
def test_a_planted_machine_path_is_found(line):
    assert private(line) == [line]


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    assert f"\nversion: {version}\n" in text("CITATION.cff")


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md"])
def test_every_make_target_named_exists(name):
    targets = set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))
    named = {command[1] for command in commands(name) if command[0] == "make"}
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", [*READMES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_linked_file_exists(name):
    links = re.findall(r"\]\(([^)#]+)\)", text(name))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_both_readmes_show_the_same_commands_and_code():
    english, japanese = READMES
    assert commands(english) == commands(japanese)
    without_comments = [
        [re.sub(r"\s*#.*|\"\"\".*?\"\"\"", "", block) for block in blocks(name, "python")]
        for name in READMES
    ]
    assert without_comments[0] == without_comments[1]


def run(arguments, folder):
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path):
    """In the order of the page, in one folder; advice is only planned (`make demo` gives it)."""
    mine = [command for command in commands("README.md") if command[0] == "batchlab"]
    assert mine
    for _, name, *rest in mine:
        planned = ["--dry-run"] if name in ("advise", "demo") else []
        run([sys.executable, "-m", "batchlab", name, *rest, *planned], tmp_path)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path):
    programs = blocks("README.md", "python")
    assert programs
    for number, program in enumerate(programs):
        script = tmp_path / f"example_{number}.py"
        script.write_text(program, "utf-8")
        run([sys.executable, str(script)], tmp_path)
