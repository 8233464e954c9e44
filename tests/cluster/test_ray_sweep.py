"""The parts of `benchmarks/ray_sweep.py` that need no cluster."""

import json

import pytest

from tests.benchmarks import load


@pytest.fixture(scope="module")
def bench():
    return load("ray_sweep")


def test_slots_that_never_wait_are_busy_all_the_time(bench):
    found = bench.shares(cells=128, count=64, seconds=5.0, took=10.0)
    assert found == {
        "efficiency": 1.0,
        "efficiency_of_whole_rounds": 1.0,
        "overhead_per_cell_seconds": 0.0,
    }


def test_overhead_is_what_a_slot_loses_with_each_cell(bench):
    """Each slot does two cells of 5 s and loses 0.5 s with each."""
    found = bench.shares(cells=128, count=64, seconds=5.0, took=11.0)
    assert found["overhead_per_cell_seconds"] == pytest.approx(0.5)
    assert found["efficiency"] == pytest.approx(10 / 11)


def test_a_last_round_that_is_not_full_is_no_overhead(bench):
    found = bench.shares(cells=65, count=64, seconds=5.0, took=10.0)
    assert found["overhead_per_cell_seconds"] == 0.0
    assert found["efficiency_of_whole_rounds"] == 1.0
    assert found["efficiency"] == pytest.approx(65 / 128)


def test_what_was_measured_is_not_measured_again(bench, tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"seconds": float(len(calls))}

    path = tmp_path / "ray.json"
    first = [bench.Kept(path).once({"part": "slots", "repeat": i}, work) for i in (0, 1, 0)]
    assert first == [{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 1.0}]
    known = json.loads(path.read_text("utf-8"))
    known[0]["provenance"]["ray"] = "another"
    path.write_text(json.dumps(known), "utf-8")
    assert not bench.Kept(path).has({"part": "slots", "repeat": 0})
    assert bench.Kept(path).has({"part": "slots", "repeat": 1})


def test_a_measurement_is_printed_with_its_range(bench):
    told = bench.mean([{"x": 1.0}, {"x": 2.0}, {"x": 3.0}], "x")
    assert told.startswith("2 (")
    assert told.endswith("90 %, n = 3)")
