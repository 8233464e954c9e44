"""The critical batch size: the plan of its branches, and what is concluded from them."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab.config import RunConfig
from batchlab.engine import RunResult, Series
from batchlab.engine.job import updates_of
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError
from batchlab.measure import _branching, critical
from batchlab.measure.critical import (
    Branching,
    CriticalPoint,
    critical_batch,
    excess,
    growing,
    plan_branching,
    point,
    ratio,
    scaling_of,
)
from batchlab.measure.noise import Moments, result
from batchlab.rules import RULES, is_sgd_family
from batchlab.schedules import batch_schedule
from batchlab.types import Estimate, Status

FACTORS = (2, 4, 8, 16)
MARGIN = 0.01


def baseline(batch_size=8, samples=4000, **changes):
    given = {"rule": "sgd", "learning_rate": 0.1, "batch_size": batch_size, "samples": samples}
    return RunConfig(**(given | changes)).resolved(1000)


# ------------------------------------------------------------------ what is concluded

KINDS = {"within": (-0.004, 0.0, 0.004), "open": (0.0, 0.012, 0.03), "above": (0.02, 0.04, 0.06)}
"""Low end, value and high end of an excess beside a margin of 0.01."""


def estimates(kinds):
    return [Estimate(v, low, high, 5) for low, v, high in (KINDS[kind] for kind in kinds)]


def by_definition(kinds):
    """Largest size up to which all are within, smallest from which on all are above."""
    low, high = 1, math.inf
    for factor in FACTORS:
        if all(k == "within" for f, k in zip(FACTORS, kinds, strict=True) if f <= factor):
            low = factor
        if all(k == "above" for f, k in zip(FACTORS, kinds, strict=True) if f >= factor):
            high = min(high, factor)
    return 32 * low, 32 * high


def wrong(kinds):
    """A twin that takes the largest size within, whatever happens below it."""
    sizes = [f for f, kind in zip(FACTORS, kinds, strict=True) if kind == "within"]
    return 32 * max(sizes, default=1), by_definition(kinds)[1]


EVERY = list(itertools.product(KINDS, repeat=len(FACTORS)))


def test_the_ends_are_those_of_the_definition_in_all_81_cases():
    for kinds in EVERY:
        found = critical_batch(32, FACTORS, estimates(kinds), MARGIN)
        assert (found.low, found.high) == by_definition(kinds)
        assert found.low <= found.value <= found.high
    assert any(wrong(kinds) != by_definition(kinds) for kinds in EVERY)


def test_the_value_lies_where_the_excess_meets_the_margin_over_log_k():
    excesses = [Estimate(0.01 * math.log2(k) ** 2, 0.0, 1.0, 5) for k in FACTORS]
    at = critical_batch(32, FACTORS, excesses, margin=0.025)
    # Between k = 2 (1 %) and k = 4 (4 %), half of the way.
    assert at.value == pytest.approx(32 * 2 * 2**0.5)


def test_before_the_first_size_the_excess_rises_from_nothing():
    excesses = [Estimate(0.02, 0.0, 1.0, 5), *[Estimate(1.0, 0.0, 2.0, 5)] * 3]
    assert critical_batch(32, FACTORS, excesses, MARGIN).value == pytest.approx(32 * 2**0.5)


def test_a_size_whose_branches_diverged_ends_it_at_the_size_before():
    excesses = [*estimates(["within"] * 3), Estimate(math.inf, math.inf, math.inf, 5)]
    found = critical_batch(32, FACTORS, excesses, MARGIN)
    assert (found.value, found.low, found.high) == (256.0, 256.0, 512.0)


def test_where_nothing_costs_too_much_there_is_no_upper_end():
    found = critical_batch(32, FACTORS, estimates(["within"] * 4), MARGIN)
    assert (found.value, found.low, found.high) == (math.inf, 512.0, math.inf)


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(InvalidValueError, match="`margin` must be a share above 0"):
        critical_batch(32, FACTORS, estimates(["open"] * 4), margin)


def coverage(judge, repetitions=600, sd=0.01):
    """Share of repetitions whose range holds the true critical batch, 5 seeds each; e rises as
    0.005·log₂ k, so 1 % is met at k = 4, the hardest place for a range that ends at sizes.
    """
    draw = np.random.default_rng(0)
    true = 0.005 * np.log2(FACTORS)
    hits = 0
    for _ in range(repetitions):
        logs = np.log1p(true) + sd * draw.standard_normal((5, len(FACTORS)))
        found = judge([excess(np.ones(5), np.exp(logs[:, i])) for i in range(len(FACTORS))])
        hits += found.low <= 32 * 4 <= found.high
    return hits / repetitions


def test_the_range_holds_the_critical_batch_in_nine_of_ten_cases():
    """n = 600: a coverage of 0.90 gives at least 0.85 with z = 4."""
    assert coverage(lambda found: critical_batch(32, FACTORS, found, MARGIN)) >= 0.85


def smallest_above(found):
    """A twin that tries every size and takes the smallest shown above for the upper end."""
    shown = [k for k, e in zip(FACTORS, found, strict=True) if e.low > MARGIN]
    return 32 * min(shown, default=math.inf)


def test_where_no_size_costs_too_much_one_is_shown_to_in_one_of_twenty_cases():
    """All sizes on the margin, n = 600: 5 % for the range, z = 4 allows 8.6 %; the twin has four
    chances.
    """
    draw, wrong, twin = np.random.default_rng(1), 0, 0
    for _ in range(600):
        logs = math.log1p(MARGIN) + 0.01 * draw.standard_normal((5, len(FACTORS)))
        found = [excess(np.ones(5), np.exp(logs[:, i])) for i in range(len(FACTORS))]
        wrong += math.isfinite(critical_batch(32, FACTORS, found, MARGIN).high)
        twin += math.isfinite(smallest_above(found))
    assert wrong / 600 <= 0.086
    assert twin / 600 > 0.12


def test_a_range_from_values_alone_and_any_size_does_not():
    def twin(found):
        low = max((k for k, e in zip(FACTORS, found, strict=True) if e.value <= MARGIN), default=1)
        first = [k for k, e in zip(FACTORS, found, strict=True) if e.value > MARGIN]
        return Estimate(math.nan, 32.0 * low, 32.0 * min(first, default=math.inf), 5)

    assert coverage(twin) < 0.85


# ------------------------------------------------------------------ excess, ratio, schedule


def test_the_excess_is_paired_by_seed():
    base = np.array([1.0, 10.0, 100.0])
    found = excess(base, 1.02 * base)
    assert (found.low, found.high) == pytest.approx((0.02, 0.02))
    # The twin takes another seed's partner.
    assert excess(base, np.roll(1.02 * base, 1)).high > 1


def test_a_seed_in_which_todays_settings_diverged_is_left_out():
    found = excess(np.array([1.0, np.nan, 1.0]), np.array([1.1, 1.0, 1.1]))
    assert (found.n, found.value) == (2, pytest.approx(0.1))


def test_five_diverged_branches_are_shown_above_and_four_are_not():
    assert excess(np.ones(5), np.full(5, np.nan)).low == math.inf
    assert excess(np.ones(4), np.full(4, np.nan)).low == -1.0


def noise(signal=1.0, factor=0.0, floor=0.0):
    found = Moments(signal, 64.0, factor, floor, 0.0, 0.0, 0.0, 31.0)
    return result(found, samples=0, examples=64, method="per example")


def test_a_known_noise_scale_divides_value_and_ends():
    found, wide = Estimate(128.0, 64.0, 256.0, 5), Estimate(128.0, 32.0, 512.0, 5)
    one = ratio(found, wide, noise())
    assert (one.value, one.low, one.high, one.n) == (2.0, 0.5, 8.0, 5)


def test_a_noise_scale_with_a_lower_bound_alone_bounds_the_ratio_from_above():
    bounded = noise(signal=0.1, factor=1 / 256, floor=0.02)
    assert bounded.scale is None
    one = ratio(Estimate(128.0, 64.0, 256.0, 5), Estimate(128.0, 64.0, 256.0, 5), bounded)
    assert math.isnan(one.value)
    assert one.low == 0.0
    assert 0 < one.high < math.inf


def at(samples, low, high):
    known = Estimate(math.nan, float(low), float(high), 5)
    return CriticalPoint(samples, known, known, float(low), (), None, None)


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ([], "8"),
        ([at(100, 8, math.inf)], "8"),
        ([at(100, 16, 64), at(200, 32, 64)], "0:8 100:16 200:32"),
        # What was once shown is kept where nothing speaks against it, and left where it does.
        ([at(100, 32, math.inf), at(200, 8, math.inf)], "0:8 100:32"),
        ([at(100, 32, math.inf), at(200, 8, 32)], "0:8 100:32 200:8"),
        ([at(100, 32, math.inf), at(200, 16, 64)], "0:8 100:32"),
    ],
)
def test_the_schedule_grows_to_what_is_shown(points, text):
    assert growing(points, 8) == text
    assert str(batch_schedule(text)) == text


# ------------------------------------------------------------------ the plan


@pytest.mark.parametrize("rule", RULES)
def test_the_rate_follows_linearly_in_the_sgd_family_and_by_the_root_elsewhere(rule):
    assert scaling_of(rule) == ("linear" if is_sgd_family(rule) else "sqrt")


@pytest.mark.parametrize(
    ("scaling", "rate"), [("linear", 0.4), ("sqrt", 0.2), ("none", 0.1), (None, 0.4)]
)
def test_a_branch_has_k_times_the_batch_and_the_scaled_rate(scaling, rate):
    config = plan_branching(baseline(), 1000, scaling=scaling).config(4, seed=3)
    assert (config.batch_size, config.seed) == (32, 3)
    assert config.learning_rate == pytest.approx(rate)


@settings(max_examples=40)
@given(
    batch=st.integers(4, 40),
    factors=st.one_of(st.none(), st.lists(st.integers(2, 8), min_size=1, max_size=3)),
    samples=st.integers(2000, 8000),
)
def test_branches_of_every_size_end_and_are_evaluated_at_equal_samples(batch, factors, samples):
    run = baseline(batch, samples)
    try:
        plan = plan_branching(run, 1000, factors=factors)
    except InvalidValueError:
        return  # too short for these sizes
    assert len(plan.places) >= 1
    for place in plan.places:
        moments = plan.moments(place)
        assert place % batch == 0
        assert moments[0] == place
        assert moments[-1] == place + plan.window <= samples
        for factor in (1, *plan.factors):
            updates = updates_of(plan.config(factor, 0), 1000, place, place + plan.window)
            passed = {place, *(first + size for first, size in updates)}
            assert set(moments) <= passed
    assert plan.window >= 8 * batch * plan.factors[-1]


def test_places_are_denser_early():
    steps = np.diff(plan_branching(baseline(), 1000).places)
    assert (steps[1:] > 2 * steps[:-1]).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": 1}, "`seeds` must be a whole number, 2 or more"),
        ({"seed": -1}, "`seed` must be a whole number, 0 or more"),
        ({"scaling": "cubic"}, "`scaling` must be one of linear, sqrt, none"),
        ({"factors": []}, "`factors` must be whole numbers from 2 to 125"),
        ({"factors": [1]}, "`factors` must be"),
        ({"factors": [126]}, "1008 of 1000 training examples"),
        ({"factors": [100], "window": "99%"}, "`window` must be at least 6400 samples"),
        ({"window": "0%"}, "`window` must be a share of the training such as 10%"),
        ({"window": "many%"}, "`window` must be a share"),
        ({"window": "5upd"}, "`window` must be a number of samples"),
        ({"window": 8}, "`window` must be at least 128 samples"),
        ({"window": "100%"}, "`window` must be at most the 3992 samples"),
        ({"at": ["99%"]}, "`at` must be places up to"),
        ({"at": []}, "`at` must be places up to"),
        ({"at": ["soon"]}, "`at` must be"),
        ({"at": "10%"}, r"`at` must be a list; got '10%'. Write at=\['10%'\]."),
    ],
)
def test_an_impossible_plan_is_refused_by_name(given, said):
    with pytest.raises((InvalidTypeError, InvalidValueError), match=said):
        plan_branching(baseline(), 1000, **given)


@pytest.mark.wrong_type
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"at": 800}, "`at` must be a list; got 800"),
        ({"factors": 4}, r"`factors` must be a list; got 4. Write factors=\[4\]."),
        ({"factors": [2.5]}, "`factors` must be whole numbers from 2 to 125; got 2.5"),
        ({"seeds": 2.5}, "`seeds` must be a whole number, 2 or more; got 2.5"),
    ],
)
def test_a_plan_of_the_wrong_type_is_refused_by_name(given, said):
    with pytest.raises((InvalidTypeError, InvalidValueError), match=said):
        plan_branching(baseline(), 1000, **given)


def test_a_batch_of_more_than_half_of_the_examples_is_refused():
    with pytest.raises(InvalidValueError, match="at most half of the 10 training examples"):
        plan_branching(baseline(8, 4000), 10)


# ------------------------------------------------------------------ from runs to a point

PLAN = Branching(baseline(), (400,), (2, 4), 160, 1.0, (0, 1, 2))


def run(losses, seed=0, status=Status.OK, factor=1):
    """A branch from 400 whose losses stand at 400, 432 … 560."""
    samples = np.array([400, 432, 464, 496, 528, 560])
    series = {"loss": Series(samples, samples, np.array(losses, dtype=float))}
    config = PLAN.config(factor, seed)
    return RunResult(config, status, "", 1, 560, 560, 1.0, "loop", 1, series)


def runs(**losses):
    """Factor → three runs: the losses of the second half are given, those before are huge."""
    return {
        factor: [run([9, 9, 9, *late], seed, factor=factor) for seed, late in enumerate(of)]
        for factor, of in ((1, losses["one"]), (2, losses["two"]), (4, losses["four"]))
    }


def test_a_branch_is_judged_by_the_mean_over_its_second_half():
    done = run([1, 2, 3, 5, 7, 9])
    assert PLAN.judged(done, 400, "loss") == 7.0
    assert math.isnan(PLAN.judged(run([1] * 6, status=Status.DIVERGED), 400, "loss"))


def test_a_point_joins_excess_and_decision():
    flat = [(1.0, 1.0, 1.0)] * 3
    more = [(1.2, 1.2, 1.2), (1.21, 1.2, 1.2), (1.2, 1.2, 1.21)]
    found = point(PLAN, 400, runs(one=flat, two=flat, four=more), noise())
    assert [b.batch_size for b in found.branches] == [16, 32]
    assert found.branches[1].excess.value == pytest.approx(0.2, abs=0.01)
    assert (found.critical.low, found.critical.high) == (16.0, 32.0)
    assert found.resolved
    assert found.ratio.value == pytest.approx(found.critical.value / 64)


def test_what_no_seed_tells_is_not_resolved():
    spread = [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5)]
    flat = [(1.0, 1.0, 1.0)] * 3
    found = point(PLAN, 400, runs(one=flat, two=spread, four=spread), noise())
    assert not found.resolved
    assert found.ratio is None


@pytest.mark.parametrize(("places", "size"), [(1, 16.0), (5, 8.0)])
def test_with_more_places_a_size_needs_more_to_be_shown_for_all_together(places, size):
    """Excesses of −1 % ± 1.58 % s.d. (n = 5): up to 0.5 % at 95 %, to 1.6 % at 99 % one-sided."""
    logs = -0.01 + 0.01 * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    places = tuple(range(400, 400 + 100 * places, 100))
    plan = replace(PLAN, places=places, seeds=tuple(range(5)))
    same, larger = [run([1.0] * 6)] * 5, [run([loss] * 6) for loss in np.exp(logs)]
    found = point(plan, 400, {1: same, 2: larger, 4: [run([9.0] * 6)] * 5}, None)
    assert found.critical.low == 16.0
    assert found.together == size
    assert growing([found], 8) == ("0:8 400:16" if size == 16 else "8")


def test_losses_that_are_not_above_zero_are_refused():
    flat = [(1.0, 1.0, 1.0)] * 3
    below = [(-1.0, -1.0, -1.0)] * 3
    with pytest.raises(TaskError, match="must be above 0; one after sample 400 is -1"):
        point(PLAN, 400, runs(one=flat, two=below, four=flat), None)


def test_todays_settings_that_diverge_are_refused():
    flat = [(1.0, 1.0, 1.0)] * 3
    every = runs(one=flat, two=flat, four=flat)
    every[1] = [run([1] * 6, seed, Status.DIVERGED) for seed in (0, 1)] + every[1][2:]
    with pytest.raises(TaskError, match="in all trainings but 1"):
        point(PLAN, 400, every, None)


def test_the_constants_are_those_that_the_pages_name():
    assert (critical.MARGIN, _branching.LAST, _branching.LEAST_UPDATES) == (0.01, 0.5, 8)
