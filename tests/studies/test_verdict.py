"""A verdict is where an interval lies; its power is what simulation says."""

import math

import numpy as np
import pytest
from scipy import stats

from batchlab.errors import InvalidValueError
from batchlab.studies.claim import Statistic
from batchlab.studies.verdict import (
    LEVEL,
    Outcome,
    Question,
    estimate,
    judge,
    needed,
    needs_full,
    power,
    repetitions,
)
from tests.studies.made import claim

SPREAD = np.array([-1.0, 1.0] * 10)


@pytest.mark.parametrize(
    ("low", "high", "centre", "wanted"),
    [
        (0.0, math.inf, 5.0, Outcome.REPRODUCED),
        (0.0, math.inf, -5.0, Outcome.NOT_REPRODUCED),
        (0.0, math.inf, 0.3, Outcome.INCONCLUSIVE),
        (-math.inf, 0.0, -5.0, Outcome.REPRODUCED),
        (-math.inf, 0.0, 5.0, Outcome.NOT_REPRODUCED),
        (4.0, 6.0, 5.0, Outcome.REPRODUCED),
        (4.0, 6.0, 8.0, Outcome.NOT_REPRODUCED),
        (4.0, 6.0, 2.0, Outcome.NOT_REPRODUCED),
        (4.0, 6.0, 6.0, Outcome.INCONCLUSIVE),
    ],
)
def test_the_verdict_says_where_the_interval_lies(low, high, centre, wanted):
    expected = min(max(centre, low), high)
    found = judged(centre + SPREAD, low=low, high=high, expected=expected)
    assert found.verdict is wanted


def judged(values, **changes):
    """The verdict on values, as many as were planned."""
    return judge(claim(n=len(values), **changes), np.array(values))


def test_no_difference_at_all_does_not_reproduce_a_direction():
    assert judged(np.zeros(8)).verdict is Outcome.NOT_REPRODUCED


def test_a_number_at_the_end_of_its_margin_is_reproduced():
    assert judged(np.ones(8), low=1.0, high=2.0).verdict is Outcome.REPRODUCED


def test_a_share_may_reach_the_end_of_its_range():
    found = judged(np.ones(100), statistic=Statistic.SHARE, low=0.9, high=1.0)
    assert found.verdict is Outcome.REPRODUCED


@pytest.mark.parametrize("statistic", list(Statistic))
def test_a_repetition_without_a_number_leaves_the_claim_open(statistic):
    changes = {"low": 0.5, "high": 1.0} if statistic is Statistic.SHARE else {}
    found = judged([1.0] * 8 + [math.nan], statistic=statistic, **changes)
    assert found.verdict is Outcome.INCONCLUSIVE
    assert (found.missing, found.n) == (1, 9)


def test_an_infinite_repetition_is_a_number_to_a_median_and_none_to_a_mean():
    values = [5.0] * 12 + [math.inf]
    assert judged(values, statistic=Statistic.MEDIAN).verdict is Outcome.REPRODUCED
    assert judged(values, statistic=Statistic.MEDIAN).missing == 0
    assert judged(values).verdict is Outcome.INCONCLUSIVE


def test_other_repetitions_than_planned_are_refused():
    with pytest.raises(InvalidValueError, match="8 repetitions, as planned; got 7"):
        judge(claim(n=8), np.ones(7))


def test_a_share_takes_zeros_and_ones_only():
    with pytest.raises(InvalidValueError, match=r"`values` must be 0 or 1 for a share; got 0\.9"):
        judged([1.0, 0.9], statistic=Statistic.SHARE, low=0.5, high=1.0)


def test_a_single_repetition_decides_nothing():
    assert judged([5.0]).verdict is Outcome.INCONCLUSIVE


def test_a_finding_is_measured_whatever_comes_out():
    assert judged([-1.0, 1.0], finding=True).verdict is Outcome.MEASURED


def test_an_open_verdict_names_the_repetitions_that_would_decide():
    rng = np.random.default_rng(0)
    values = rng.normal(size=10)
    values = (values - values.mean()) / values.std(ddof=1) + 0.5
    found = judged(values)
    assert found.verdict is Outcome.INCONCLUSIVE
    assert found.decides is not None
    asked = Question(Statistic.MEAN, 0.0, math.inf, 0.5, 1.0)
    assert power(asked, found.decides) >= 0.9 > power(asked, found.decides - 1)


def test_exactly_on_the_edge_no_number_of_repetitions_decides():
    assert judged(SPREAD).decides is None


def simulated(asked, n, repeats=4000):
    rng = np.random.default_rng(n)
    if asked.statistic is Statistic.SHARE:
        draws = (rng.random((repeats, n)) < asked.expected).astype(float)
    else:
        draws = rng.normal(asked.expected, asked.spread, (repeats, n))
    inside = 0
    for values in draws:
        found = estimate(asked.statistic, values)
        below = found.low > asked.low if math.isinf(asked.high) else found.low >= asked.low
        inside += below and found.high <= asked.high
    return inside / repeats


QUESTIONS = [
    (Question(Statistic.MEAN, 0.0, math.inf, 1.0, 0.8), 8),
    (Question(Statistic.MEAN, 0.5, 1.5, 0.9, 0.3), 9),
    (Question(Statistic.MEDIAN, 0.0, 1.5, 0.9, 0.4), 9),
    (Question(Statistic.SHARE, 0.7, 1.0, 0.9, 0.0), 40),
]


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "n"), QUESTIONS)
def test_power_is_what_simulation_says(asked, n):
    said, seen = power(asked, n), simulated(asked, n)
    assert 0.1 < said < 0.95  # else agreement would say nothing
    assert abs(said - seen) < 4 * math.sqrt(said * (1 - said) / 4000)


@pytest.mark.slow
def test_a_level_of_90_percent_would_be_noticed():
    asked, n = QUESTIONS[0]
    half = stats.t.ppf(0.95, n - 1) / stats.t.ppf((1 + LEVEL) / 2, n - 1)
    narrower = power(asked._replace(spread=asked.spread * half), n)
    assert abs(narrower - simulated(asked, n)) > 4 * math.sqrt(0.25 / 4000)


def test_power_of_a_mean_above_zero_is_the_noncentral_t():
    asked, n = QUESTIONS[0]
    limit = stats.t.ppf((1 + LEVEL) / 2, n - 1)
    exact = stats.nct.sf(limit, n - 1, asked.expected / asked.spread * math.sqrt(n))
    assert power(asked, n) == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("asked", [question for question, _ in QUESTIONS])
def test_repetitions_are_the_fewest_with_enough_power(asked):
    n = repetitions(asked)
    assert n is not None
    assert power(asked, n) >= 0.9
    # Counts are whole, so that the power of the others rises in steps that may fall back a little.
    fewer = 2 if asked.statistic is Statistic.MEAN else n // 2
    assert power(asked, n - fewer) < 0.9


def test_no_number_of_repetitions_helps_a_prediction_that_is_not_met():
    assert repetitions(Question(Statistic.MEAN, 0.0, 1.0, 2.0, 1.0)) is None


def test_too_few_repetitions_are_known_beforehand():
    few, enough = claim(n=4), claim(n=8)
    assert (needed(enough), needs_full(enough, claim(n=100))) == (0, False)
    assert (needed(few), needs_full(few, enough)) == (8, True)
    assert not needs_full(few, claim(n=5))  # all the same too few
    assert not needs_full(few, None)


def test_an_unknown_spread_is_not_known_to_suffice():
    asked = claim(n=1000, spread=math.nan)
    assert needed(asked) is None
    assert needed(claim(n=2, spread=0.0)) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"low": 2.0, "high": 1.0}, "`low` must be at most high"),
        ({"expected": -1.0}, "`expected` must be within"),
        ({"n": 0}, "`n` must be a whole number"),
        ({"low": -math.inf}, "`low, high` must be a range that leaves out some number"),
        ({"statistic": Statistic.SHARE, "high": 1.0}, "a range that leaves out some number"),
        ({"id": "Above zero"}, "`id` must be small letters, digits and hyphens"),
    ],
)
def test_an_impossible_claim_is_refused(changes, words):
    with pytest.raises(InvalidValueError, match=words):
        claim(**changes)


def test_an_interval_ends_where_its_quantity_does():
    """Two differences of shares far apart: at 99 % the interval of Student's t is 64 wide."""
    found = judge(claim(n=2, bounds=(-1.0, 1.0)), np.array([-0.5, 0.5]))
    assert (found.low, found.high) == (-1.0, 1.0)
    assert judge(claim(n=2), np.array([-0.5, 0.5])).high > 30
