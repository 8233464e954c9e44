"""The scripts that say how honest the advice is do what they say."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy.stats import binom

from batchlab.advisor.record import Verdict

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
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


@pytest.mark.slow
def test_the_regret_of_an_advice_is_measured_against_a_grid(tmp_path):
    few = "--advices 1 --picks 1 --pick-seeds 1 --near 1 --truth-seeds 2 --target-runs 3"
    arguments = ["--tasks", "tabular", *few.split(), "--budget", "20s", "--json"]
    where = tmp_path / "found.json"
    command = [sys.executable, str(BENCHMARKS / "advice.py"), *arguments, str(where)]
    subprocess.run(command, check=True, timeout=600)
    (found,) = json.loads(where.read_text())
    assert found["regret_B"]["n"] == 1
    assert 0 < found["spent_of_grid"] < 1
    assert found["best_seconds"] <= found["today_seconds"]
