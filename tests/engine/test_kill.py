"""Killed at any moment, a sweep goes on to the same result."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils import _pytree

from batchlab.engine import Engine
from tests.benchmarks import load
from tests.engine import tiny

ROOT = Path(__file__).resolve().parents[2]
KILL = load("kill")


def killed(trials, updates):
    """What `benchmarks/kill.py` prints and how it ends."""
    words = ["--trials", str(trials), "--updates", str(updates)]
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill.py"), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def test_a_sweep_killed_while_it_writes_resumes_to_the_same_result():
    done = killed(trials=1, updates=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kills (1 while writing), 0 failures" in done.stdout


@pytest.mark.slow
def test_killed_in_every_way_sweeps_resume_to_the_same_result():
    """Parent or worker, with and without workers; without arguments the script kills fifty."""
    done = killed(trials=len(KILL.KINDS), updates=1000)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 while writing, 5 at any moment, 2 a worker), 0 failures" in done.stdout
    assert "advise, 2 workers, at any moment: the same" in done.stdout


def test_what_a_checkpoint_holds_is_counted_with_runs_that_have_ended(tmp_path):
    facts = {
        "done": [5, 7],
        "slots": [2, KILL.EMPTY],
        "parked": {"4": [3, 0.0, 0]},
        "ends": {"0": [True, 4, 24, 1.0, 2], "1": [False, 9, 72, 1.0, 2]},
    }
    KILL.Checkpoint(tmp_path).save(facts, {"now0": np.arange(99.0)})
    path = tmp_path / KILL.NAME
    assert KILL.held(path) == 5 + 3 + 4 + 9
    path.write_bytes(path.read_bytes()[:-99])
    assert KILL.held(path) is None
    assert [found.name for found in tmp_path.iterdir()] == [KILL.NAME]


def test_every_tensor_of_an_end_state_is_in_its_digest():
    _, (state,) = tiny.trained(tiny.ready(tiny.batch_norm), [tiny.run(samples=16)])
    whole = KILL.digest(state)
    leaves = _pytree.tree_leaves(state.progress)
    assert len(leaves) > 8
    for leaf in leaves:
        before = leaf.clone()
        leaf += 1
        assert KILL.digest(state) != whole
        leaf.copy_(before)
    assert KILL.digest(state) == whole


def test_what_a_resumed_advice_has_made_otherwise_or_anew_is_found(tmp_path):
    """Cells of two trainings, one of which the undisturbed advice has, too."""
    out = tmp_path / "out"
    for seed, name in enumerate(("both", "own")):
        with Engine(tiny.ready(), tmp_path / name, 0) as engine:
            engine.train([tiny.run(seed=seed, samples=16)], tiny.job(16))
        (cell,) = (tmp_path / name / "cells").iterdir()
        shutil.copytree(cell, out / "cells" / name)
    same = KILL.contents(out)
    assert same["both"] != same["own"]
    whole = KILL.Whole("", {}, {"both": same["both"], "other": "x"}, 0, 1.0)
    when = KILL.written_at(out)
    assert KILL.changed(out, whole, when) == ["no advice"]
    (out / KILL.ADVICE_FILE).touch()
    assert KILL.changed(out, whole, {"own": when["own"]}) == []
    for digests in ({"both": same["own"]}, {"other": "x"}):
        (wrong,) = KILL.changed(out, dataclasses.replace(whole, digests=digests), when)
        assert wrong == f"another result in one of {len(digests.keys() & same.keys())} cells"
    for anew in ({"own": 1}, {"gone": 1}):
        assert KILL.changed(out, whole, anew) == ["trained finished cells again"]


def test_strays_are_found(tmp_path):
    (tmp_path / "cells" / "a.damaged1").mkdir(parents=True)
    (tmp_path / "cells" / "b").mkdir()
    for name in ("runs.parquet", KILL.NAME, f"{KILL._platform.UNFINISHED}x.tmp"):
        (tmp_path / "cells" / "b" / name).touch()
    assert len(KILL.strays(tmp_path)) == 3
