"""The scripts that say how honest the advice is do what they say, and `make bench` asks each of
them only for what it knows.
"""

import importlib.util
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from batchlab.advisor.record import Verdict

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(path.name for path in BENCHMARKS.glob("[!_]*.py"))
ADVICES = 400


def script(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def calibration():
    return script("calibration")


def changes(calibration, family, reuse):
    found = calibration.run(family, ADVICES, seed=7, reuse=reuse, looks=1)
    return [one for one in found if one.verdict is Verdict.CHANGE]


def test_where_nothing_differs_a_change_is_seldom_advised(calibration):
    most = binom.ppf(0.999, ADVICES, 0.05)
    assert len(changes(calibration, "all equal", reuse=False)) <= most


def test_a_choice_judged_by_the_seeds_that_chose_it_is_caught(calibration):
    most = binom.ppf(0.999, ADVICES, 0.05)
    assert len(changes(calibration, "all equal", reuse=True)) > most


def test_where_settings_differ_changes_are_advised_and_right(calibration):
    found = changes(calibration, "different", reuse=False)
    assert len(found) > ADVICES / 5
    assert sum(one.better for one in found) > 0.9 * len(found)


REGRET = {"value": 0.04, "low": 0.01, "high": 0.07}


@pytest.mark.parametrize(
    ("changed", "aim"),
    [
        ({}, None),
        ({"regret_C": {"mean": None}}, "no mean regret"),
        ({"regret_C": {"mean": REGRET | {"value": 0.11}}}, "above 10 %"),
        ({"regret_C": {"mean": REGRET | {"low": 0.08}}}, "above the grid's"),
        ({"spent_of_grid": 0.3}, "30 % of the grid's run-seconds"),
    ],
)
def test_every_aim_of_the_regret_can_be_missed(changed, aim):
    met = {"regret_C": {"mean": REGRET}, "regret_grid": {"mean": REGRET}, "spent_of_grid": 0.1}
    found = script("advice").missed(met | changed)
    assert len(found) == (aim is not None)
    assert all(aim in one for one in found)


@pytest.mark.slow
def test_the_regret_of_an_advice_is_measured_against_a_grid(tmp_path):
    few = "--advices 1 --picks 1 --pick-seeds 1 --near 1 --truth-seeds 2 --target-runs 3"
    arguments = ["--tasks", "tabular", *few.split(), "--budget", "20s", "--json"]
    where = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / "advice.py"), *arguments, str(where)]
    done = subprocess.run(command, check=False, timeout=600)
    (found,) = json.loads(where.read_text())
    assert done.returncode == 1  # one advice shows no mean
    assert found["regret_B"]["n"] == 1
    assert 0 < found["spent_of_grid"] < 1
    assert found["best_seconds"] <= found["today_seconds"]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Script → what `make bench` writes behind its name."""
    folder = tmp_path_factory.mktemp("bench")
    shutil.copy(BENCHMARKS.parent / "Makefile", folder)
    (folder / "benchmarks").symlink_to(BENCHMARKS)
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "called $@"\n')
    python.chmod(0o755)
    command = ["make", "bench", "WORK=", "BIN=bin"]  # nothing is installed, nothing measured
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert (folder / "build" / "bench").is_dir()
    called = re.findall(r"^called benchmarks/(\S+)(.*)$", done.stdout, re.MULTILINE)
    return {name: words.split() for name, words in called}


def helped(name, monkeypatch, capsys):
    """What a script prints with --help."""
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setitem(sys.modules, "engine", script("engine"))  # two scripts import it
    with np.errstate(), pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="make needs a shell")
@pytest.mark.parametrize("name", SCRIPTS)
def test_make_bench_asks_a_script_only_for_what_it_knows(name, asked, monkeypatch, capsys):
    if name == "ray_sweep.py":
        pytest.importorskip("ray")
    said, words = helped(name, monkeypatch, capsys), asked[name]
    kept = f"build/bench/{name.removesuffix('.py')}"
    assert words[:2] == ["--json", f"{kept}.json"]
    assert words[2:] == (["--picture", f"{kept}.svg"] if "--picture" in said else [])
    for option in words[::2]:
        assert re.search(rf"{option} [^\s\[]", said), f"{option} takes no file"


def test_cifar10_without_its_data_says_so_and_fails_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["cifar10.py"])
    assert script("cifar10").main() == 0
    assert capsys.readouterr().out == "left out: it needs --data DIR, the folder with CIFAR-10\n"
