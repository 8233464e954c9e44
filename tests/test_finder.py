"""The pure search: what it returns has run, fits, and is close to the largest."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab._finder import Failure, Found, Outcome, find_largest
from batchlab.errors import InvalidValueError
from tests.benchmarks import load

benchmark = load("finder")

MEMORIES = benchmark.memories()


def memory(name):
    return next(m for m in MEMORIES if m.name == name)


@pytest.mark.parametrize("simulated", MEMORIES, ids=lambda m: m.name)
def test_the_criteria_hold_on_a_simulated_memory(simulated):
    assert benchmark.score(simulated).missed == ""


def test_there_are_at_least_thirty_memories():
    assert len(MEMORIES) >= 30


# Planted bugs: each must be caught by the same score.


def stops_before_the_cap(simulated) -> Found:
    found = benchmark.search(simulated)
    trials = {size: o for size, o in found.trials.items() if size != simulated.cap}
    return Found(found.largest, found.bound_by, trials)


def trusts_the_line(simulated) -> Found:
    small, large = (simulated.run(size).bytes for size in (1, 2))
    size = 1 + int((simulated.limit - small) / (large - small))
    return Found(size, "memory", {1: Outcome(True), 2: Outcome(True), size: Outcome(True)})


def doubles(simulated) -> Found:
    size, trials = 1, {}
    while simulated.fits(size) and size <= simulated.cap:
        trials[size] = Outcome(True)
        size *= 2
    return Found(size // 2, "memory", trials)


def margin_in_per_cent_of_the_batch(simulated) -> Found:
    found = find_largest(simulated.run, max_size=simulated.cap, limit=simulated.limit)
    size = int(found.largest * 0.98)
    return Found(size, found.bound_by, {**found.trials, size: Outcome(True)})


def looks_at_the_first_micro_step(simulated) -> Found:
    def trial(size):
        return Outcome(True, int(benchmark.two_steps(size, steps=1)))

    return find_largest(trial, max_size=simulated.cap, limit=simulated.limit)


@pytest.mark.parametrize(
    ("search", "name", "missed"),
    [
        (stops_before_the_cap, "whole data set fits", "returned without running"),
        (trusts_the_line, "quadratic (similarity matrix), measured", "over-estimate"),
        (doubles, "limit at 5000, nothing known", "under"),
        (margin_in_per_cent_of_the_batch, "margin of 1 GB", "over-estimate"),
        (looks_at_the_first_micro_step, "second micro-step, measured", "over-estimate"),
    ],
)
def test_a_planted_bug_is_caught(search, name, missed):
    assert missed in benchmark.score(memory(name), search).missed


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=6),
    limit=st.integers(1, 10**9),
    margin_share=st.floats(0, 0.5),
    cap=st.integers(1, 10**5),
    start_share=st.floats(0, 1),
    dies_at=st.integers(1, 10**6),
)
def test_any_rising_memory_ends_close_below_its_limit(
    steps, limit, margin_share, cap, start_share, dies_at
):
    def trial(size):
        if size >= dies_at:
            return Outcome(False, None, "killed", Failure.CRASH)
        return Outcome(True, size + sum(rise for place, rise in steps if size >= place))

    margin = min(int(limit * margin_share), limit - 1)
    start = max(1, int(cap * start_share))
    found = find_largest(trial, max_size=cap, start=start, limit=limit, margin=margin)
    simulated = benchmark.Simulated("any", trial, "cliff", limit, cap, start, margin)
    truth = simulated.truth()
    assert 0.97 * truth <= found.largest <= truth
    assert found.largest == 0 or found.trials[found.largest].fits


def test_the_margin_is_kept_in_bytes():
    def trial(size):
        return Outcome(True, 100 * size)

    found = find_largest(trial, max_size=1000, limit=10_000, margin=2_000)
    assert found.largest == 80
    assert found.trials[80].bytes == 10_000 - 2_000


def test_a_size_that_ran_over_the_limit_says_by_how_much():
    found = find_largest(lambda size: Outcome(True, 700 * size), max_size=9, limit=1000)
    assert found.trials[2].reason == "it took 1.4 KiB, 400 B more than allowed"


def test_a_trial_out_of_time_ends_the_search():
    def trial(size):
        if size > 10:
            return Outcome(False, None, "no time", Failure.TIME)
        return Outcome(True, size)

    found = find_largest(trial, max_size=1000, limit=10**6)
    assert (found.largest, found.bound_by, list(found.trials)) == (2, "time", [1, 2, 16])


@pytest.mark.parametrize("first", [Failure.TIME, Failure.MEMORY])
def test_a_search_that_ends_for_time_before_anything_ran_is_not_bound_by_memory(first):
    def trial(size):
        return Outcome(False, None, "no", first if size == 32 else Failure.TIME)

    found = find_largest(trial, max_size=1000, start=32, limit=10**6)
    assert (found.largest, found.bound_by) == (0, "time")


def test_going_up_is_ascending_until_something_fails():
    tried: list[int] = []

    def trial(size):
        tried.append(size)
        return Outcome(size <= 5000, None, "", Failure.CRASH)

    find_largest(trial, max_size=10**6, start=32)
    first_failure = next(i for i, size in enumerate(tried) if size > 5000)
    assert tried[:first_failure] == sorted(tried[:first_failure])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_size": 0}, "`max_size` must be at least 1"),
        ({"max_size": 5, "start": 6}, "`start` must be from 1 to 5"),
        ({"max_size": 5, "margin": -1}, "`margin` must be 0 bytes or more"),
        ({"max_size": 5, "limit": 10, "margin": 10}, "`margin` must be below the limit"),
    ],
)
def test_impossible_input_is_refused(arguments, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        find_largest(lambda size: Outcome(True, size), **arguments)


def test_an_unknown_number_of_bytes_is_no_obstacle():
    found = find_largest(lambda size: Outcome(size <= 37, None), max_size=100, limit=10)
    assert math.isclose(found.largest, 37, rel_tol=0.03)
