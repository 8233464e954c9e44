import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.advisor.candidates import MOST, beyond, propose, rates_for, scaled_rate
from batchlab.advisor.record import Reason


@given(
    baseline=st.integers(1, 4096),
    examples=st.integers(20, 10**6),
    scale=st.none() | st.floats(0.5, 1e6),
    share=st.floats(0.001, 1.0),
)
def test_proposals_hold_baseline_and_largest_and_stay_within_what_fits(
    baseline, examples, scale, share
):
    largest = max(baseline, int(share * examples))
    found = propose(baseline, examples=examples, largest=largest, scale=scale)
    sizes = [p.batch_size for p in found]
    assert sizes == sorted(set(sizes))
    assert len(sizes) <= MOST
    assert baseline in sizes
    top = max(1, min(largest, examples // 4))
    assert top in sizes
    assert all(size <= max(top, baseline) for size in sizes)


def test_powers_of_two_lie_within_sixteen_times_of_the_noise_scale():
    found = propose(32, examples=10**6, largest=10**5, scale=64.0)
    around = [p.batch_size for p in found if p.reason is Reason.NOISE_SCALE]
    assert min(around) == 4
    assert max(around) == 1024
    assert all(math.log2(size).is_integer() for size in around)


def test_unresolved_noise_scale_gives_powers_of_four_over_the_whole_range():
    found = propose(32, examples=4096, largest=4096, scale=None)
    wide = [p.batch_size for p in found if p.reason is Reason.WHOLE_RANGE]
    assert wide
    assert all(math.log(size, 4) == pytest.approx(round(math.log(size, 4))) for size in wide)


def test_requested_sizes_replace_the_others_and_the_baseline_stays():
    found = propose(32, examples=4096, largest=512, scale=64.0, requested=(8, 100))
    assert [p.batch_size for p in found] == [8, 32, 100]


@pytest.mark.parametrize("batch_size", [1, 8, 32, 128, 1000])
@pytest.mark.parametrize("sgd_family", [True, False])
def test_rates_hold_todays_and_reach_beyond_the_scaled_one(batch_size, sgd_family):
    rates = rates_for(0.1, 32, batch_size, sgd_family)
    scaled = scaled_rate(0.1, 32, batch_size, 1.0 if sgd_family else 0.5)
    assert any(rate == pytest.approx(0.1) for rate in rates)
    assert 0.1 in rates, "today's rate itself, bit for bit: its row is looked up by value"
    assert min(rates) < min(0.1, scaled)
    assert max(rates) > max(0.1, scaled)


def test_an_inner_best_needs_no_more_rates_and_an_edge_does():
    assert beyond({0.1: 2.0, 0.2: 1.0, 0.4: 3.0}) == ()
    assert beyond({0.1: 1.0, 0.2: 2.0, 0.4: 3.0}) == (0.05, 0.025)
    assert beyond({0.1: 3.0, 0.2: 2.0, 0.4: 1.0}) == (0.8, 1.6)
