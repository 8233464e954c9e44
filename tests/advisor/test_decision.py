"""Who goes on, who is chosen, change or keep: every rule by enumeration of its cases."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from batchlab.advisor import decision
from batchlab.advisor.decision import stands_out
from batchlab.advisor.record import Verdict
from batchlab.errors import InvalidValueError
from batchlab.stats import paired_log_ratio
from batchlab.types import Estimate

INF, NAN = math.inf, math.nan
CHANGE, KEEP, OPEN = Verdict.CHANGE, Verdict.KEEP, Verdict.NOT_ENOUGH_EVIDENCE


def test_of_near_equals_the_one_that_changes_less_is_chosen():
    times = {"far": np.array([1.0, 1.0]), "near": np.array([1.04, 1.04])}
    assert decision.choose(times, changes={"far": 2, "near": 1}) == "near"
    assert decision.choose(times) == "far"
    times["near"] = np.array([1.06, 1.06])
    assert decision.choose(times, changes={"far": 2, "near": 1}) == "far"
    times["near"] = np.array([1.0, math.inf])
    assert decision.choose(times, changes={"far": 2, "near": 1}) == "far"


@pytest.mark.parametrize("today", [0, 1, 3])
@pytest.mark.parametrize("lost", range(9))
def test_more_failures_are_told_by_fishers_test(today, lost):
    from_scipy = scipy.stats.fisher_exact([[lost, 8 - lost], [today, 8 - today]], "greater")
    assert decision.fails_more((today, 8), (lost, 8)) == (from_scipy.pvalue <= 0.1 + 1e-9)


EQUAL_LOG_SD = 0.35


def projected_changes(judged, rivals=6, repeats=2000):
    """How often the best of equal candidates stands out; its rate was the best of four on the
    first of three seeds.
    """
    rng, found = np.random.default_rng(0), 0
    for _ in range(repeats):
        logs = rng.normal(0, EQUAL_LOG_SD, (rivals, 4, 3))
        tuned = np.stack([own[np.argmax(own[:, 0])] for own in logs])
        best = tuned[np.argmax(tuned.mean(1))]
        found += stands_out(np.exp(judged(best)), rivals, worth=1.2)
    return found / repeats


def test_a_projected_change_is_rare_where_nothing_differs():
    """2,000 searches: the standard error of a share of 5 % is 0.5 %."""
    assert projected_changes(lambda best: best[1:]) <= 0.05


def test_judging_on_the_seed_that_chose_would_be_noticed():
    assert projected_changes(lambda best: best) > 0.05


def test_a_candidate_twice_as_fast_stands_out_and_one_without_fresh_seeds_does_not():
    assert stands_out(np.array([2.0, 2.1]), rivals=6, worth=1.2)
    assert not stands_out(np.array([2.0, 2.1]), rivals=6, worth=1.2, timing_log_var=0.2)
    assert not stands_out(np.array([2.0, 2.1]), rivals=6, worth=2.5)
    assert not stands_out(np.array([]), rivals=1, worth=1.2)
    assert not stands_out(np.array([9.0, 0.0]), rivals=1, worth=1.2)


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (1.9, 1.5, 2.3, CHANGE),
        (1.2, 1.01, 1.4, CHANGE),
        (1.19, 1.01, 1.4, OPEN),
        (1.1, 1.05, 1.15, KEEP),
        (1.0, 0.9, 1.19, KEEP),
        (1.0, 0.9, 1.2, OPEN),
        (0.8, 0.7, 0.9, KEEP),
        (1.3, 1.0, 1.6, OPEN),
        (1.3, 0.9, 1.6, OPEN),
        (INF, 2.0, INF, CHANGE),
        (2.0, 0.0, INF, OPEN),
        (2.0, NAN, NAN, OPEN),
    ],
)
def test_verdict_follows_the_interval(value, low, high, verdict):
    assert decision.decide(Estimate(value, low, high, n=8), 1.2, True) is verdict


ratios = st.tuples(*[st.floats(0.01, 10)] * 3).map(sorted)


@given(ratios, st.floats(1, 3))
def test_an_unmet_demand_never_changes_and_hides_no_keep(ends, worth):
    low, value, high = ends
    met, unmet = (
        decision.decide(Estimate(value, low, high, n=8), worth, ok) for ok in (True, False)
    )
    assert unmet is not CHANGE
    assert (met is KEEP) == (unmet is KEEP)


@given(ratios, st.floats(1, 3))
def test_change_and_keep_exclude_each_other(ends, worth):
    low, value, high = ends
    change = low > 1 and value >= worth
    assert not (change and high < worth)
    expected = CHANGE if change else KEEP if high < worth else OPEN
    assert decision.decide(Estimate(value, low, high, n=8), worth, True) is expected


@pytest.mark.parametrize(
    ("low", "high", "maximise", "verdict"),
    [
        (0.01, 0.03, True, CHANGE),
        (0.01, 0.03, False, KEEP),
        (-0.03, -0.01, True, KEEP),
        (-0.03, -0.01, False, CHANGE),
        (-0.01, 0.02, True, OPEN),
        (-0.01, 0.02, False, OPEN),
        (0.0, 0.0, True, KEEP),
        (-INF, INF, True, OPEN),
        (NAN, NAN, True, OPEN),
    ],
)
def test_accuracy_verdict_follows_the_difference(low, high, maximise, verdict):
    difference = Estimate((low + high) / 2, low, high, n=8)
    assert decision.decide_accuracy(difference, maximise, True) is verdict
    assert decision.decide_accuracy(difference, maximise, False) is not CHANGE


def test_a_choice_of_today_is_not_exchanged_for_a_change():
    won = Estimate(1.9, 1.5, 2.3, n=8)
    assert decision.decide(won, 1.2, True, today_chosen=True) is OPEN
    assert decision.decide(Estimate(1.0, 0.9, 1.1, n=8), 1.2, True, today_chosen=True) is KEEP
    assert decision.decide_accuracy(won, True, True, today_chosen=True) is OPEN


def test_the_geometric_mean_chooses_where_all_arrive():
    times = {"today": [3.0, 3.0, 3.0], "wide": [1.0, 2.9, 10.0], "even": [2.8, 3.1, 2.9]}
    assert decision.choose({k: np.array(v) for k, v in times.items()}) == "even"


def test_the_median_chooses_where_one_never_arrives():
    times = {"today": [3.0, 3.0, 3.0], "wide": [1.0, 2.0, INF], "even": [2.8, 3.1, 2.9]}
    assert decision.choose({k: np.array(v) for k, v in times.items()}) == "wide"


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"a": [2.0, 2.0], "today": [2.0, 2.0]}, "today"),
        ({"a": [INF, INF], "today": [INF, INF]}, "today"),
        ({"a": [INF, 2.0], "b": [3.0, 3.0]}, "b"),
        ({"a": [2.0, 2.0, INF], "b": [2.0, 2.0, 2.0]}, "b"),
        ({"b": [2.0, 2.0], "a": [2.0, 2.0]}, "b"),
        ({"a": [2.0]}, "a"),
    ],
)
def test_ties_go_to_the_reliable_then_the_baseline_then_the_first(times, chosen):
    assert decision.choose({k: np.array(v) for k, v in times.items()}) == chosen


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(0, 0.5))
def test_the_choice_does_not_depend_on_the_unit_of_time(seed, unit, never):
    rng = np.random.default_rng(seed)
    times = {name: rng.lognormal(size=5) for name in "abcd"}
    for row in times.values():
        row[rng.random(5) < never] = INF
    scaled = {name: row * unit for name, row in times.items()}
    assert decision.choose(times) == decision.choose(scaled)


@pytest.mark.parametrize(("maximise", "chosen"), [(True, "high"), (False, "low")])
def test_accuracy_chooses_by_direction(maximise, chosen):
    metrics = {"today": np.array([2.0, 2.0]), "low": np.array([1.0, 1.0])}
    metrics |= {"high": np.array([3.0, 3.0]), "broken": np.array([9.0, NAN])}
    metrics |= {"dead": np.array([NAN, NAN])}
    assert decision.choose_accuracy(metrics, maximise) == chosen


def confirm(rng, fresh, candidates=12):
    """The best of equal candidates, judged on fresh seeds or on those that chose it."""
    times = {str(i): rng.lognormal(0, 0.3, 5) for i in range(candidates)}
    today = rng.lognormal(0, 0.3, 5)
    chosen = times[decision.choose(times)]
    if fresh:
        today, chosen = rng.lognormal(0, 0.3, (2, 5))
    result = paired_log_ratio(today, chosen)
    return result.chance >= 0.95, decision.decide(result.estimate, 1.2, True) is CHANGE


def claims_and_changes(fresh):
    rng = np.random.default_rng(0)
    return np.mean([confirm(rng, fresh) for _ in range(1000)], axis=0)


def test_fresh_seeds_keep_the_best_of_equals_honest():
    """Nominal 5 %; 4 standard errors of 1000 are 2.8 points."""
    claims, changes = claims_and_changes(fresh=True)
    assert abs(claims - 0.05) <= 0.028
    assert changes <= 0.05 + 0.028


def test_reusing_the_choosing_seeds_is_not_honest():
    claims, changes = claims_and_changes(fresh=False)
    assert claims > 2 * (0.05 + 0.028)
    assert changes > 2 * (0.05 + 0.028)


def estimate(low, value, high):
    return Estimate(value, low, high, n=5)


@pytest.mark.parametrize(
    ("projected", "finalists"),
    [
        ({"a": (1, 2, 3), "b": (3, 4, 5), "c": (3.1, 4, 5)}, ("a", "b")),
        ({"c": (9, 9, 9), "b": (2, 3, 4), "a": (1, 2, 3)}, ("a", "b")),
        ({"a": (NAN, 2, NAN), "b": (5, 6, 7)}, ("a", "b")),
        ({"a": (1, 2, 3), "b": (NAN, 9, NAN)}, ("a", "b")),
        ({"a": (INF, INF, INF), "b": (1, 2, INF)}, ("b", "a")),
        ({name: (1, 2 + i, 9) for i, name in enumerate("abcdef")}, ("a", "b", "c", "d")),
    ],
)
def test_finalists_are_those_whose_range_reaches_the_best(projected, finalists):
    table = {name: estimate(*ends) for name, ends in projected.items()}
    assert decision.not_separated(table) == finalists


def test_pareto_equals_its_definition():
    """Every way to place three candidates on a 2 × 2 grid."""
    for spots in itertools.product(itertools.product([1.0, 2.0], repeat=2), repeat=3):
        times = {str(i): t for i, (t, _) in enumerate(spots)}
        metrics = {str(i): m for i, (_, m) in enumerate(spots)}
        kept = {
            a
            for a in times
            if not any(
                times[b] <= times[a]
                and metrics[b] >= metrics[a]
                and (times[b] < times[a] or metrics[b] > metrics[a])
                for b in times
            )
        }
        assert set(decision.pareto(times, metrics, maximise=True)) == kept


def test_pareto_follows_the_direction_and_leaves_out_the_unknown():
    times = {"a": 1.0, "b": 2.0, "c": INF, "d": 0.5}
    metrics = {"a": 0.3, "b": 0.2, "c": 0.2, "d": NAN}
    assert decision.pareto(times, metrics, maximise=False) == ("a", "b")


@pytest.mark.parametrize(
    ("throughput", "samples", "expected"),
    [
        ({1: 10.0, 4: 84.0, 8: 100.0}, {1: 1.0, 4: 1.1, 8: 1.3}, (4, 4)),
        ({1: 10.0, 4: 84.0, 8: 100.0}, {1: 1.0, 4: 1.3, 8: 1.1}, (4, 8)),
        ({1: 10.0, 8: 100.0}, {1: 1.0, 8: 2.0}, (8, 1)),
        ({}, {1: INF}, (None, None)),
        ({1: NAN, 2: 5.0}, {1: NAN, 2: 5.0}, (2, 2)),
        ({1: 100.0, 2: 120.0}, {1: 100.0, 2: 120.0}, (1, 2)),
    ],
)
def test_useful_range_ends_where_a_sixth_is_wasted(throughput, samples, expected):
    assert decision.useful_range(throughput, samples) == expected


@pytest.mark.parametrize(
    ("metric", "maximise", "expected"),
    [
        ({0.1: 0.8, 0.2: 0.94, 0.4: 0.95, 0.8: NAN}, True, (0.4, 0.2, 0.4, (0.2, 0.4))),
        ({0.4: 0.95, 0.1: 0.8, 0.2: 0.94}, True, (0.4, 0.2, 0.4, (0.2, 0.4))),
        ({0.1: 0.945, 0.2: 0.8, 0.4: 0.95}, True, (0.4, 0.4, 0.4, (0.1, 0.4))),
        ({0.1: 0.945, 0.2: NAN, 0.4: 0.95}, True, (0.4, 0.4, 0.4, (0.1, 0.4))),
        ({0.1: 1.0, 0.2: 1.01, 0.4: 1.1}, False, (0.1, 0.1, 0.2, (0.1, 0.2))),
        ({0.1: NAN, 0.2: INF}, False, None),
    ],
)
def test_working_rates_are_unbroken_around_the_best(metric, maximise, expected):
    assert decision.working_rates(metric, 0.0101, maximise) == expected


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: decision.decide(Estimate(1, 1, 1, n=8), 0.9, True), "`worth` must be at least 1"),
        (lambda: decision.choose({}), "`times` must be at least one finalist"),
        (lambda: decision.choose({"a": np.ones(2), "b": np.ones(3)}), "all with as many runs"),
        (lambda: decision.choose({"a": np.array([NAN, 1.0])}), "`times` must be positive"),
        (lambda: decision.choose_accuracy({}, True), "`metrics` must be at least one finalist"),
        (lambda: decision.not_separated({}), "`projected` must be known"),
        (lambda: decision.pareto({"a": 1.0}, {"b": 1.0}, True), "`metrics` must be known for"),
        (lambda: decision.working_rates({0.1: 1.0}, NAN, True), "`seed_sd` must be at least 0"),
    ],
)
def test_impossible_input_is_refused(call, match):
    with pytest.raises(InvalidValueError, match=match):
        call()
