"""The comparison with plain PyTorch: what it calls the same, and what it calls missed."""

import math

import numpy as np
import pytest

from batchlab.engine import choice, sweep
from tests.benchmarks import load

BENCHMARK = load("engine")
NEURON = BENCHMARK.ROWS[0]
REACHED = {
    "chosen": "loop",
    "best": "loop",
    "against_a": {"median": 2.0},
    "against_b": {"median": 1.5},
    "of_gemm_peak": 0.5,
    "slower_than_best": {"median": 1.1},
    "largest_difference_of_losses": 1e-4,
    "aims": {"against_a": 2.0, "against_b": 1.5, "of_gemm_peak": 0.5},
}
TOLD = REACHED | {
    "sweep": "few",
    "microseconds": {"c": 1.0},
    "against_a": {"median": 2.0, "low": 1.0, "high": 3.0},
    "against_b": {"median": 2.0, "low": 1.0, "high": 3.0},
    "planning_seconds": 1.0,
    "start_seconds": 1.0,
}


def test_what_reaches_its_aims_misses_nothing():
    assert BENCHMARK.missed(REACHED) == []


@pytest.mark.parametrize("bad", [math.nan, None])
@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("against_a", {"median": 1.9}),
        ("against_b", {"median": 1.4}),
        ("of_gemm_peak", 0.49),
        ("slower_than_best", {"median": 1.11}),
        ("largest_difference_of_losses", 1.1e-4),
    ],
)
def test_every_aim_can_be_missed_and_nan_reaches_none(name, short, bad):
    if bad is not None:
        short = {"median": bad} if isinstance(short, dict) else bad
    assert len(BENCHMARK.missed(REACHED | {name: short})) == 1


def test_a_loss_that_is_not_a_number_is_no_small_difference():
    losses = np.array([1.0, 2.0])
    assert BENCHMARK.max_apart(losses, [losses]) == 0.0
    assert math.isnan(BENCHMARK.max_apart(losses, [losses, np.array([1.0, math.nan])]))
    assert math.isnan(BENCHMARK.max_apart(np.array([math.nan, 2.0]), [losses]))


def test_plain_loops_and_both_executors_lose_the_same():
    assert BENCHMARK.same_losses(NEURON, "cpu", 2, 0) <= BENCHMARK.TOLERANCE


@pytest.mark.parametrize("last", [False, True])
def test_a_plain_loop_that_trains_otherwise_is_found(monkeypatch, last):
    """Either of the two, (a) or (b), takes steps that are 1 % too long."""
    whole = BENCHMARK.Plain.__init__

    def longer(self, row, prepared, config, given):
        rate = config.learning_rate * (1.01 if given is last else 1.0)
        whole(self, row, prepared, config.replace(learning_rate=rate), given)

    monkeypatch.setattr(BENCHMARK.Plain, "__init__", longer)
    assert BENCHMARK.same_losses(NEURON, "cpu", 2, 0) > BENCHMARK.TOLERANCE


@pytest.mark.parametrize(
    ("row", "parameters", "kept", "example"),
    [
        # sgd keeps nothing, shb a velocity of each parameter; a target is a float or an int64
        (BENCHMARK.ROWS[0], 100, 0, 4 * 101),
        (BENCHMARK.ROWS[1], 784 * 128 + 128 + 128 * 10 + 10, 1, 4 * 784 + 8),
    ],
)
def test_an_update_moves_parameters_gradients_state_and_its_batch(row, parameters, kept, example):
    each = 4 * parameters * (1 + 1 + kept)
    assert BENCHMARK.moved_by(row) == 2 * each + row.batch_size * example


@pytest.mark.parametrize("seconds", [0.0, 1e-3])
def test_a_copy_reads_and_writes_every_byte(seconds):
    moved, taken = BENCHMARK.bandwidth(seconds, "cpu", size=1000)
    assert moved == 2 * 1000 * BENCHMARK.COPIES
    assert taken > 0


def test_where_copies_are_timed_the_share_of_the_bandwidth_is_told():
    each = 1e-6
    best = BENCHMARK.moved_by(NEURON) / each
    middle = {"c": each, "gemm": 1e12, "copy": 4 * best}
    found = BENCHMARK.of_the_machine(NEURON, middle)
    assert found["of_memory_bandwidth"] == pytest.approx(0.25)
    assert found["copied_gigabytes_per_second"] == pytest.approx(4 * best / 1e9)
    said = BENCHMARK.told(TOLD | found)
    assert f"25 % of the memory's bandwidth ({4 * best / 1e9:.0f} GB/s)" in said
    del middle["copy"]
    left = BENCHMARK.of_the_machine(NEURON, middle)
    assert left == {name: found[name] for name in ("gemm_gflops", "of_gemm_peak")}
    assert "bandwidth" not in BENCHMARK.told(TOLD | left)


@pytest.mark.slow
def test_ours_is_the_engine_from_call_to_result(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "effort_of", sweep.effort_of)  # the benchmark replaces it
    monkeypatch.setattr(choice, "why_not_compiled", lambda device: "left out")
    monkeypatch.setattr(choice, "_race", lambda ways, clock: dict.fromkeys(ways, 1e-5))
    row = BENCHMARK.Row("few", "neuron", 4, 3, 1, 1, rule="sgd")
    ours = BENCHMARK.Ours(row, BENCHMARK.prepared_of(row), 0, tmp_path)
    ours.warm_up(seconds=1e-3)
    each, start = ours.measure()
    assert math.isfinite(each)
    assert math.isfinite(start)
    assert ours.way == "loop"
    assert ours.longest > ours.shortest
    assert ours.engine.reused == 0
    assert len(list(tmp_path.glob("cells/*/done.json"))) == 4 * 3
