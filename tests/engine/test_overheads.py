"""What counts as recording and checkpoints, and when that is too much."""

import math
import sys

import pytest

from tests.benchmarks import load

FINE = {"recording": 0.02, "checkpoints": 0.02, "checkpoints written": 1}


@pytest.fixture
def overheads(monkeypatch):
    monkeypatch.setitem(sys.modules, "engine", load("engine"))  # its neighbour, as a script
    return load("overheads")


def test_two_percent_are_not_too_much(overheads):
    assert overheads.missed("a sweep", FINE) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"recording": 0.021},
        {"recording": math.nan},
        {"checkpoints": 0.021},
        {"checkpoints": math.nan},
        {"checkpoints written": 0},
    ],
)
def test_each_overhead_can_be_too_much(overheads, bad):
    assert len(overheads.missed("a sweep", FINE | bad)) == 1


def test_every_part_of_recording_and_of_checkpoints_counts(overheads):
    none = dict.fromkeys([*overheads.PARTS, "write"], 0.0)
    for name in ("evaluate", "series", "write"):
        assert overheads.by_purpose(none | {name: 0.5})["recording"] == 0.5
    for name in ("saved", "save"):
        assert overheads.by_purpose(none | {name: 0.5})["checkpoints"] == 0.5
    predicted = overheads.by_purpose(none | {"evaluate": 0.5, "predict": 0.5})
    assert (predicted["recording"], predicted["evaluating"]) == (0.0, 0.5)


def test_a_stack_is_timed_part_by_part_and_left_as_it_was(overheads):
    whole = {name: getattr(owner, method) for name, (owner, method) in overheads.PARTS.items()}
    found = overheads.trained(overheads.ROWS[0], updates=16)
    for name, (owner, method) in overheads.PARTS.items():
        assert getattr(owner, method) is whole[name]
    assert all(found[name] > 0 for name in ("training", "evaluating", "recording"))
    assert found["refilling slots, evaluations included"] > 0  # runs that diverged made room
    assert found["of which gathering batches"] <= found["training"] < 1
