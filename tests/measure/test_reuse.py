"""When re-use pays: the boundary in the plane of costs, by closed forms and by enumeration."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab.errors import InvalidValueError
from batchlab.measure import reuse
from batchlab.measure.reuse import Spent, boundary, first_from, labels_to, price_of, ratio_at

INF = math.inf


def spent(fresh, times=1):
    fresh = tuple(float(f) for f in fresh)
    return Spent(fresh, tuple(times * f for f in fresh))


@settings(deadline=None, max_examples=8)
@given(fresh=st.floats(0.55, 0.95), times=st.integers(2, 8))
def test_the_boundary_lies_on_the_line_of_equal_cost(fresh, times):
    """s/c = (C_k − C_1)/(F_1 − F_k) where all seeds agree, whatever the number of them."""
    today, mine = spent([1000.0] * 5), spent([1000.0 * fresh] * 5, times)
    expected = max(0.0, (times * fresh - 1) / (1 - fresh))
    found = boundary(today, mine)
    assert (found.value, found.low, found.high) == pytest.approx((expected,) * 3, rel=1e-6)


def test_a_planted_sign_of_the_boundary_is_seen():
    today, mine = spent([1000.0] * 5), spent([600.0] * 5, 2)
    wrong = (2 * 600 - 1000) / (600 - 1000)
    assert boundary(today, mine).value != pytest.approx(wrong)


def test_what_draws_no_fewer_samples_pays_at_no_price():
    found = boundary(spent([1000.0] * 5), spent([1001.0] * 5, 2))
    assert (found.value, found.high) == (INF, INF)


def test_what_draws_so_few_that_it_computes_less_pays_at_any_price():
    found = boundary(spent([1000.0] * 5), spent([400.0] * 5, 2))
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


def test_what_the_seeds_do_not_tell_apart_is_not_shown_to_pay_at_any_price():
    today, mine = spent([900, 1000, 1100, 1000, 950]), spent([1000, 900, 1000, 1100, 900], 2)
    found = boundary(today, mine)
    assert math.isinf(found.high)
    assert math.isfinite(found.low)


def test_the_interval_holds_the_value_and_its_ends_turn_the_verdict():
    generator = np.random.default_rng(0)
    today = spent(1000 * np.exp(0.1 * generator.standard_normal(8)))
    mine = spent(700 * np.exp(0.1 * generator.standard_normal(8)), 2)
    found = boundary(today, mine)
    assert 0 < found.low < found.value < found.high < INF
    below, above = (ratio_at(today, mine, price).estimate for price in (found.low, found.high))
    assert below.high == pytest.approx(1, abs=1e-6)
    assert above.low == pytest.approx(1, abs=1e-6)


def test_the_interval_covers_the_boundary_in_nine_of_ten_worlds(monkeypatch):
    """n = 400 worlds, boundary 1 by construction; |z| ≤ 4 about 0.9, and a half-sized interval is
    turned down.
    """
    generator = np.random.default_rng(1)
    covered, narrow = 0, 0
    for _ in range(400):
        # F_k = 2/3 F_1 and C_k = 4/3 F_1 in the geometric mean: s/c = (4/3 − 1)/(1 − 2/3) = 1.
        log = 0.2 * generator.standard_normal((2, 6))
        today, mine = spent(900 * np.exp(log[0])), spent(600 * np.exp(log[1]), 2)
        found = ratio_at(today, mine, 1.0).estimate
        covered += found.low <= 1 <= found.high
        half = math.sqrt(found.high / found.low) ** 0.5
        narrow += found.value / half <= 1 <= found.value * half
    sd = math.sqrt(400 * 0.9 * 0.1)
    assert abs(covered - 360) <= 4 * sd
    assert abs(narrow - 360) > 4 * sd


@pytest.mark.slow
def test_a_price_lies_in_the_boundary_s_interval_where_its_own_range_holds_1():
    """n = 20 of those worlds, 14 others at other prices; at another level they would disagree."""
    generator = np.random.default_rng(1)
    alike, planted = [], []
    for i in range(20):
        log = 0.2 * generator.standard_normal((2, 6))
        today, mine = spent(900 * np.exp(log[0])), spent(600 * np.exp(log[1]), 2)
        price = (1.0, 0.3, 3.0)[i % 3]
        found = ratio_at(today, mine, price).estimate
        held = found.low <= 1 <= found.high
        for level, seen in ((0.9, alike), (0.3, planted)):
            ends = boundary(today, mine, level)
            seen.append((ends.low <= price <= ends.high) == held)
    assert all(alike)
    assert not all(planted)


def test_runs_that_never_arrive_leave_the_ends_open():
    found = boundary(spent([1000.0] * 4), spent([500, 500, 500, INF], 2))
    assert math.isinf(found.high)


def test_slower_timing_of_another_batch_size_widens_only_the_share_that_is_computing():
    today = spent([1000, 1010, 990, 1000, 1005])
    other = Spent(today.fresh, today.computed, log_var=0.04, dof=5.0)
    width = {
        price: ratio_at(today, other, price).estimate.high
        / ratio_at(today, other, price).estimate.low
        for price in (0.0, 1.0, INF)
    }
    assert width[0.0] > width[1.0] > width[INF]
    assert other.timing(1.0) == pytest.approx(0.01)


def test_a_grid_of_evaluations_keeps_equal_arrivals_from_being_certain():
    coarse = Spent((1000.0,) * 5, (1000.0,) * 5, spacing=250.0)
    found = ratio_at(coarse, spent([600.0] * 5), 0.0).estimate
    assert found.low < found.value < found.high


@pytest.mark.parametrize("price", [-1.0, math.nan])
def test_an_impossible_price_is_refused(price):
    with pytest.raises(InvalidValueError, match="`price` must be 0 or more"):
        ratio_at(spent([1.0, 2.0]), spent([1.0, 2.0]), price)


def test_something_that_fails_in_the_middle_holds_only_from_there_on():
    assert first_from(lambda price: not 1 <= price <= 10) == pytest.approx(10.0, rel=1e-6)
    assert first_from(lambda price: True) == 0.0
    assert first_from(lambda price: False) == INF
    assert first_from(lambda price: price > 1e9) == INF


@pytest.mark.parametrize(
    ("given", "price"),
    [
        ((0.002, 0.0), 0.0),
        ((0.002, 0.01), 5.0),
        ((0.002, 0.01, 3600.0), 5.0),
        ((0.002, 0.01, 3600.0, 0.02), 15.0),
        ((0.002, 0.01, 0.0, 0.02), INF),
        ((0.002, 0.01, 0.0), 0.0),
    ],
)
def test_a_price_counts_reading_in_the_currency_of_computing(given, price):
    assert price_of(*given) == pytest.approx(price)


# ------------------------------------------------------------------ labels


LABELS = [100, 200, 400]


@pytest.mark.parametrize(
    ("metric", "level", "needed"),
    [
        ([0.5, 0.7, 0.9], 0.8, 200 * 2**0.5),
        ([0.5, 0.7, 0.9], 0.7, 200.0),
        ([0.8, 0.9, 0.9], 0.7, 100.0),
        ([0.5, 0.6, 0.7], 0.8, INF),
        ([math.nan, 0.7, 0.9], 0.7, 200.0),
        ([0.5, 0.9, 0.7], 0.9, 200.0),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_labels_needed_by_hand_in_both_directions(metric, level, needed, sign):
    found = labels_to(LABELS, sign * np.array([metric]).T, sign * level, sign > 0)
    assert found.tolist() == [pytest.approx(needed)]


def test_the_boundary_is_where_the_whole_grid_of_prices_says_it_is():
    """By enumeration of every price of the grid."""
    today, mine = spent([1000, 1100, 900]), spent([700, 650, 800], 2)
    dearer = [p for p in reuse.PRICES if ratio_at(today, mine, p).estimate.value < 1]
    value = boundary(today, mine).value
    assert max(dearer) <= value <= reuse.PRICES[reuse.PRICES.index(max(dearer)) + 1]
