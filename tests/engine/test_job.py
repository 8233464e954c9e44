"""Grids, clocks, and states as bytes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree

from batchlab.engine.job import (
    EVALUATIONS,
    LEAST_EVALUATIONS,
    RunState,
    evaluation_grid,
    state_from_bytes,
    state_to_bytes,
    stops,
    updates_of,
)
from batchlab.engine.step import start_of
from batchlab.rules import RULES
from tests.engine import tiny


@given(st.integers(1, 10_000), st.integers(1, 10**7), st.integers(0, 10**6))
def test_a_grid_runs_from_start_to_end_and_is_never_too_fine(examples, length, start):
    grid = evaluation_grid(examples, start + length, start)
    assert (grid[0], grid[-1]) == (start, start + length)
    assert list(grid) == sorted(grid)
    assert len(grid) - 1 <= EVALUATIONS
    short = len(grid) - 1 == min(LEAST_EVALUATIONS, length)
    assert short or length / (len(grid) - 1) >= examples / 4 - 1e-9


def test_a_long_run_is_evaluated_forty_times():
    assert len(evaluation_grid(100, 100_000)) == 41


def test_a_stop_comes_once_for_all_moments_that_were_passed():
    plan = [(0, 5), (5, 5), (10, 15), (25, 4), (29, 71), (100, 1)]
    assert sorted(stops(plan, 0, (30, 0, 10, 20))) == [0, 2, 3, 5]
    assert sorted(stops(plan[2:], 10, (0, 10, 11, 101, 102))) == [0, 1, 4]


def test_updates_stop_where_they_are_told():
    config = tiny.run(batch_size="0:8 32:16", samples=100)
    whole = [(0, 8), (8, 8), (16, 8), (24, 8), (32, 16), (48, 16), (64, 16), (80, 16)]
    assert updates_of(config, 64, 0) == whole
    assert updates_of(config, 64, 24, 50) == [(24, 8), (32, 16)]


@pytest.mark.parametrize("rule", list(RULES))
def test_a_state_survives_as_bytes(rule):
    objective = tiny.ready(tiny.batch_norm).objective(3, torch.float64)
    progress = start_of(objective, RULES[rule])
    state = RunState(progress, samples=2**40, updates=7)
    back = state_from_bytes(state_to_bytes(state), start_of(objective, RULES[rule]))
    assert (back.samples, back.updates) == (2**40, 7)
    (one, how), (other, same) = map(_pytree.tree_flatten, (state.progress, back.progress))
    assert how == same
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_equal_states_have_equal_bytes():
    made = [
        RunState(start_of(tiny.ready().objective(seed), RULES["adam"]), 1, 1) for seed in (0, 0, 1)
    ]
    one, same, other = map(state_to_bytes, made)
    assert one == same
    assert one != other
