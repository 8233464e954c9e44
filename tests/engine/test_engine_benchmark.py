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
