"""Rules for growing as fixed plans: enumeration, properties, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.advisor.growing import (
    Point,
    Rise,
    at_fixed_progress,
    at_plateaus,
    by_gradient_norm,
    by_noise_scale,
    first_size,
    ladder,
    lemma_prefers,
    rules_for,
    steadied,
    written,
)
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError
from batchlab.schedules import batch_schedule
from batchlab.theory.growing import Problem
from batchlab.types import Estimate

SIZES = (8, 16, 32, 64)
SHARES = st.lists(st.floats(0.0, 1.0), max_size=12, unique=True).map(sorted)


@st.composite
def points(draw, low=0.0, high=1e4):
    return [Point(share, draw(st.floats(low, high))) for share in draw(SHARES)]


@given(
    first=st.integers(1, 40),
    room=st.integers(0, 2000),
    scales=points(),
    losses=points(high=10.0),
    patience=st.floats(0.01, 0.5),
    samples=st.integers(50, 10**6),
    examples=st.integers(10, 10**5),
)
def test_every_plan_starts_small_rises_and_never_passes_the_cap(
    first, room, scales, losses, patience, samples, examples
):
    cap = first + room
    for steps in rules_for(first, cap, scales, losses, patience).values():
        sizes = [step.size for step in steps]
        assert sizes[0] == first
        assert sizes == sorted(set(sizes))
        assert max(sizes) <= cap
        shares = [step.share for step in steps]
        assert shares == sorted(shares)
        schedule = batch_schedule(written(steps, samples, examples))
        assert schedule.sizes[0] == first
        assert schedule.sizes[-1] <= cap
        assert list(schedule.sizes) == sorted(schedule.sizes)
        # Read, it begins where it was planned, to three digits and the next whole sample.
        resolved = schedule.resolve(examples)
        for step, (start, size) in zip(steps[1:], resolved.starts[1:], strict=False):
            if len(resolved.starts) == len(steps):
                planned = step.share * samples
                assert abs(start - planned) <= 0.005 * planned + 2
                assert size == step.size


@given(first=st.integers(1, 100), cap=st.integers(1, 10**5), factor=st.integers(2, 5))
def test_a_ladder_ends_with_the_last_rung_below_the_cap(first, cap, factor):
    found = ladder(first, cap, factor)
    by_hand = [first]
    while by_hand[-1] * factor <= cap:
        by_hand.append(by_hand[-1] * factor)
    assert found == tuple(by_hand)


@pytest.mark.parametrize(("first", "factor"), [(0, 2), (8, 1)])
def test_an_impossible_ladder_is_refused(first, factor):
    with pytest.raises(InvalidValueError, match="must be at least 1 and 2"):
        ladder(first, 64, factor)


def test_fixed_progress_gives_every_size_an_equal_share():
    assert at_fixed_progress(SIZES) == tuple(Rise(i / 4, size) for i, size in enumerate(SIZES))


@given(scales=points())
def test_the_noise_scale_rule_is_the_largest_size_reached_so_far(scales):
    """Enumerated: at each moment every size at or below any scale seen until then."""
    steps = by_noise_scale(SIZES, scales)
    for at, _ in scales:
        seen = [scale for share, scale in scales if 0 < share <= at]
        reached = max([8, *(b for b in SIZES for scale in seen if b <= scale)])
        assert [step.size for step in steps if step.share <= at][-1] == reached


@given(scales=points(), theta=st.floats(0.3, 1.5))
def test_after_the_norm_test_has_been_read_the_batch_passes_it_or_is_the_largest(scales, theta):
    steps = by_gradient_norm(SIZES, scales, theta)
    for at, scale in scales:
        size = [step.size for step in steps if step.share <= at][-1]
        assert size == SIZES[-1] or at == 0 or size >= scale / theta**2


def test_the_norm_test_grows_no_further_than_it_must():
    """10/0.81 = 12.3 is passed by 16; the twin with θ for θ² would need only 11.1."""
    assert by_gradient_norm(SIZES, [Point(0.5, 10.0)], 0.9)[1:] == (Rise(0.5, 16),)
    assert by_gradient_norm(SIZES, [Point(0.5, 13.5)], 0.9)[1:] == (Rise(0.5, 32),)


def test_a_plateau_counts_anew_after_each_step_and_after_each_fall():
    falls = [3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.5, 1.0, 1.0]
    losses = [Point(i / 10, loss) for i, loss in enumerate(falls)]
    assert at_plateaus(SIZES, losses, 0.2)[1:] == (Rise(0.3, 16), Rise(0.6, 32), Rise(0.8, 64))
    assert at_plateaus((8,), losses, 0.2) == (Rise(0.0, 8),)


def test_a_loss_that_is_no_number_is_no_fall():
    losses = [Point(0.0, 1.0), Point(0.2, math.nan), Point(0.4, math.nan)]
    assert at_plateaus(SIZES, losses, 0.4)[1:] == (Rise(0.4, 16),)


def test_a_rule_that_would_never_grow_is_left_out():
    assert set(rules_for(8, 64)) == {"fixed ×2", "fixed ×4"}
    assert rules_for(8, 15) == {}
    assert "noise scale" in rules_for(8, 64, [Point(0.4, 20.0), Point(0.5, 20.0)])
    assert "noise scale" not in rules_for(8, 64, [Point(0.9, 20.0), Point(1.0, 20.0)])


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("rule", ["noise scale", "gradient norm"])
def test_one_outlier_lets_no_batch_grow_and_a_rise_that_lasts_does(rule, place):
    """Twelve measurements of 5, one planted of 500; then a scale that has risen to 20."""
    quiet = [Point((i + 1) / 13, 5.0) for i in range(12)]
    planted = [*quiet[:place], Point(quiet[place].share, 500.0), *quiet[place + 1 :]]
    assert rule not in rules_for(8, 64, planted)
    risen = [point if point.share < 0.6 else point._replace(value=20.0) for point in quiet]
    steps = rules_for(8, 64, risen)[rule]
    assert steps[-1].size == {"noise scale": 16, "gradient norm": 32}[rule]
    assert steps[-1].share == risen[8].share


def test_the_raw_measurements_would_have_grown_for_good():
    """The failing twin: without the median the planted outlier decides."""
    scales = [Point((i + 1) / 13, 500.0 if i == 4 else 5.0) for i in range(12)]
    assert by_noise_scale(SIZES, scales)[-1].size == SIZES[-1]


@given(scales=points())
def test_a_steadied_scale_is_the_median_of_the_last_three(scales):
    found = steadied(scales)
    assert [point.share for point in found] == [point.share for point in scales[1:]]
    for i, point in enumerate(found[1:], start=2):
        assert point.value == np.median([scales[k].value for k in (i - 2, i - 1, i)])


def test_steps_on_one_position_are_one():
    steps = (Rise(0.0, 8), Rise(0.5001, 16), Rise(0.5002, 32))
    assert written(steps, 1000, 100) == "0:8 5ep:32"


def test_small_and_large_positions_are_written_without_an_exponent():
    steps = (Rise(0.0, 8), Rise(1e-4, 16), Rise(0.5, 32))
    assert written(steps, 100, 1000) == "0:8 0.001ep:16 0.05ep:32"
    assert written(steps, 10**5, 10**8) == "0:8 0.0000001ep:16 0.0005ep:32"
    assert written(steps, 10**7, 10) == "0:8 100ep:16 500000ep:32"


# The small useful batch.


def _fall(value, half):
    return Estimate(value, value - half, value + half, n=3)


def test_the_small_useful_batch_is_the_smallest_within_the_range_of_the_best():
    falls = {4: _fall(200, 20), 8: _fall(120, 15), 32: _fall(100, 10), 128: _fall(110, 10)}
    assert first_size(falls) == 8
    assert first_size(falls | {8: _fall(120, 5)}) == 32


def test_a_size_that_never_learns_is_no_useful_batch():
    assert first_size({8: _fall(math.inf, 0), 32: _fall(100, 1)}) == 32
    assert first_size({8: _fall(math.inf, 0)}) is None


# What the lemma prefers.


def _run(rate, **given):
    recipe = {"rule": "sgd", "batch_size": "0:8 500:64", "learning_rate": rate, "samples": 2000}
    return RunConfig(**recipe | given).resolved(examples=1000)


@pytest.mark.parametrize(
    ("noise", "sizes", "power"),
    [(0.0, "0:8 500:64", 1.0), (1e6, "0:8 500:64", 0.5), (1e6, "0:8 1000:16", 0.0)],
)
def test_the_bound_prefers_long_steps_without_noise_and_shorter_ones_with_it(noise, sizes, power):
    """Without noise it is 2Δ/Ση, least for the largest rates; with noise alone Lσ²Σ(η²/B)/Ση:
    0.096, 0.084 and 0.125 for the first schedule, 0.104, 0.110 and 0.125 for the other.
    """
    assert lemma_prefers(Problem(1.0, noise, 1.0), _run(0.01, batch_size=sizes), 1000) == power


def test_the_bound_that_is_preferred_is_the_smallest_by_enumeration():
    """η_t and B_t written out: 62 updates of 8 run over 500, the rest are of 64."""
    problem, run = Problem(2.0, 3.0, 0.7), _run(0.02)
    sizes = [8] * 63 + [64] * 23
    values = {}
    for power in (0.0, 0.5, 1.0):
        rates = [0.02 * (size / 8) ** power for size in sizes]
        noise = sum(r**2 / b for r, b in zip(rates, sizes, strict=True))
        values[power] = (2 * 0.7 + 2 * 2.0 * 3.0 * noise) / sum(rates)
    assert lemma_prefers(problem, run, 1000) == min(values, key=values.get)


def test_a_power_outside_the_proof_is_not_preferred():
    """At 0.5 = 1/2L the linear rate would end at 4/L, where SGD diverges."""
    problem, run = Problem(1.0, 0.0, 1.0), _run(0.5, batch_size="0:8 500:64")
    assert lemma_prefers(problem, run, 1000) == 0.0
    assert lemma_prefers(problem, run.replace(learning_rate=3.0), 1000) is None


@pytest.mark.parametrize("given", [{"rule": "adam"}, {"reuse": 2}, {"clip_norm": 1.0}])
def test_where_nothing_is_proved_the_lemma_prefers_nothing(given):
    assert lemma_prefers(Problem(1.0, 1.0, 1.0), _run(0.01, **given), 1000) is None
