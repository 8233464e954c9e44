"""What counts as recording and checkpoints, and when that is too much."""

import functools
import math
import sys

import pytest

from batchlab.engine import Engine, choice, stacked, sweep
from batchlab.engine.choice import Choice
from tests.benchmarks import load

FINE = {"recording": 0.02, "checkpoints": 0.02, "checkpoints written": 1}
STACKED, COMPILED = (Choice("stacked", 4, unit, "", {}) for unit in (0, 2))
LOOP = Choice("loop", 0, 0, "", {})
CHOICES = [LOOP, STACKED, COMPILED]


@pytest.fixture
def overheads(monkeypatch):
    monkeypatch.setitem(sys.modules, "engine", load("engine"))  # its neighbour, as a script
    loaded = load("overheads")
    quick = functools.partial(loaded.compile_block, backend="aot_eager")
    monkeypatch.setattr(loaded, "compile_block", quick)
    return loaded


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


@pytest.mark.parametrize("executor", ["stacked", "loop"])
def test_every_part_of_recording_and_of_checkpoints_counts(overheads, executor):
    none = dict.fromkeys([*overheads.PARTS[executor], "write"], 0.0)
    for name in ("evaluate", "series", "write"):
        assert overheads.by_purpose(none | {name: 0.5})["recording"] == 0.5
    for name in ("saved", "save"):
        assert overheads.by_purpose(none | {name: 0.5})["checkpoints"] == 0.5
    predicted = overheads.by_purpose(none | {"evaluate": 0.5, "predict": 0.5})
    assert (predicted["recording"], predicted["evaluating"]) == (0.0, 0.5)
    assert predicted["the rest"] == 0.5


@pytest.mark.parametrize("way", CHOICES)
def test_a_cell_is_timed_part_by_part_and_all_is_left_as_it_was(overheads, way):
    places = [place for parts in overheads.PARTS.values() for place in parts.values()]
    places.append((stacked, "compile_block"))
    whole = [getattr(*place) for place in places]
    found = overheads.trained(overheads.ROWS[0], way, updates=16)
    assert [getattr(*place) for place in places] == whole
    assert all(found[name] > 0 for name in ("training", "evaluating", "recording"))
    assert found["training"] < 1


def test_a_stack_refills_slots_and_a_loop_has_none(overheads):
    refilling = "refilling slots, evaluations included"
    found = [overheads.trained(overheads.ROWS[0], way, 16) for way in CHOICES]
    assert refilling not in found[0]
    assert all(each[refilling] > 0 for each in found[1:])  # runs that diverged made room
    gathered = [each.get("of which gathering batches") for each in found]
    assert gathered[0] is not None
    assert gathered[1] <= found[1]["training"]
    assert gathered[2] is None  # the compiled program does it inside


def test_what_compiling_takes_is_no_part_of_a_cell(overheads, monkeypatch):
    """Planted: a clock on which nothing but compiling takes long."""
    now, quick = [0.0], overheads.compile_block

    def clock():
        now[0] += 1e-6
        return now[0]

    def slow(*given):
        now[0] += 1e3
        return quick(*given)

    monkeypatch.setattr(overheads.time, "perf_counter", clock)
    monkeypatch.setattr(overheads, "compile_block", slow)
    found = overheads.trained(overheads.ROWS[0], COMPILED, 16)
    assert now[0] > 1e3
    assert found["seconds"] < 1.0
    assert 0 < found["training"] < 1


@pytest.mark.parametrize("fastest", ["loop", "stacked", "compiled"])
def test_the_way_is_the_fastest_of_all_that_the_engine_has(overheads, monkeypatch, fastest):
    monkeypatch.setattr(sweep, "effort_of", sweep.effort_of)  # it is replaced
    monkeypatch.setattr(choice, "why_not_compiled", lambda device: "")
    monkeypatch.setattr(choice, "_warmed", lambda ways: ways)  # or it would compile
    monkeypatch.setattr(
        choice, "_race", lambda ways, clock: {name: 2.0 - (fastest in name) for name in ways}
    )
    row = overheads.ROWS[1]
    with Engine(overheads.prepared_of(row), None, 0) as engine:
        found = overheads.chosen(row, engine)
    assert overheads.named(found).split()[0] == fastest
    assert bool(found.unit) == (fastest == "compiled")
