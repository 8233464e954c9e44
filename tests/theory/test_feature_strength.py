"""The model of one parameter against its own simulation, over many decades of γ."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.errors import InvalidValueError, ValidityWarning
from batchlab.theory import feature_strength
from batchlab.theory.feature_strength import LOSSES, DeepLinear, Pair

DEPTHS = (2, 3, 4, 5)
DECADES = tuple(10.0**k for k in range(-4, 5, 2))
MODELS = [DeepLinear(depth, loss) for depth in DEPTHS for loss in LOSSES]


def slope(model, gamma, w):
    """dℓ/dw, written from the equation."""
    f = (w**model.depth - 1) / gamma
    if model.loss == "squared":
        force = f - 1
    else:
        force = 1 / (1 + math.exp(-min(max(f, -700), 700))) - model.share
    return force * model.depth * w ** (model.depth - 1) / gamma


def descend(model, gamma, rate, updates, w=1.0):
    """Gradient descent; NaN if it diverges."""
    for _ in range(updates):
        w -= rate * slope(model, gamma, w)
        if not abs(w) < 1e30:
            return math.nan
    return w


def numeric(f, x, h):
    """Second difference of a function."""
    return (f(x + h) - 2 * f(x) + f(x - h)) / h**2


def loss_of(model, gamma):
    def loss(w):
        f = (w**model.depth - 1) / gamma
        if model.loss == "squared":
            return (f - 1) ** 2 / 2
        return model.share * np.logaddexp(0, -f) + (1 - model.share) * np.logaddexp(0, f)

    return loss


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("gamma", [0.1, 1.0, 10.0])
def test_curvatures_are_second_differences(model, gamma):
    for w, found in (
        (1.0, model.start_curvature(gamma)),
        (model.minimum(gamma), model.end_curvature(gamma)),
        (1.3, model.curvature(1.3, gamma)),
    ):
        exact = numeric(loss_of(model, gamma), w, 1e-4)
        assert found == pytest.approx(exact, rel=1e-4, abs=1e-4 * model.end_curvature(gamma))


@given(st.integers(2, 6), st.floats(1e-6, 1e6), st.sampled_from(LOSSES))
def test_the_minimum_has_no_slope_and_the_curvature_said(depth, gamma, loss):
    model = DeepLinear(depth, loss)
    w, scale = model.minimum(gamma), model.end_curvature(gamma)
    assert abs(model.gradient(w, gamma)) <= 1e-8 * scale
    assert model.curvature(w, gamma) == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("gamma", DECADES)
@pytest.mark.parametrize(("share", "stays"), [(0.9, True), (1.1, False)])
def test_the_minimum_holds_a_run_below_the_stable_rate_only(model, gamma, share, stays):
    w, rate = model.minimum(gamma), share * model.stable_rate(gamma)
    # So small a push that descent is linear: γ² L² times it is far below 1.
    push = 1e-6 * w * min(1.0, gamma)
    end = descend(model, gamma, rate, 20, w + push)
    assert (abs(end - w) < push) == stays


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("gamma", DECADES)
def test_runs_from_the_start_converge_up_to_the_stable_rate(depth, gamma):
    """0.6 η_max ends in the minimum, 1.02 η_max does not."""
    model = DeepLinear(depth)
    most, w = model.stable_rate(gamma), model.minimum(gamma)
    updates = int(400 + 8 * model.time_to(gamma) / most)
    ends = {s: descend(model, gamma, s * most, min(updates, 40_000), 1.0) for s in (0.6, 1.02)}
    assert ends[0.6] == pytest.approx(w, rel=1e-6)
    assert not abs(ends[1.02] - w) < 1e-6 * w


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("gamma", DECADES)
def test_gradient_flow_takes_the_time_said(model, gamma):
    time = model.time_to(gamma)
    rate = min(time / 4000, 0.02 * model.stable_rate(gamma))
    w, updates = 1.0, 0
    while (w**model.depth - 1) / gamma < 0.5 * model.best_output:
        w, updates = w - rate * slope(model, gamma, w), updates + 1
    assert updates * rate == pytest.approx(time, rel=0.02)


@pytest.mark.parametrize("depth", DEPTHS)
def test_times_have_the_leading_orders_said(depth):
    model = DeepLinear(depth)
    lazy, rich = 1e-7, 1e9
    assert model.time_to(lazy, 0.3) == pytest.approx(
        -(lazy**2) / depth**2 * math.log(0.7), rel=1e-4
    )
    if depth == 2:
        expected = rich / 4 * math.log(rich * 0.3 / 0.7)
    else:
        expected = rich / (depth * (depth - 2))
    assert model.time_to(rich, 0.3) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_stable_rates_have_the_exponents(depth, loss):
    model, powers = DeepLinear(depth, loss), feature_strength.exponents(depth)
    for low, high, power in ((1e-7, 1e-6, powers.lazy), (1e8, 1e9, powers.rich)):
        ratio = model.stable_rate(high) / model.stable_rate(low)
        assert math.log10(ratio) == pytest.approx(power, abs=0.01)


@pytest.mark.parametrize("depth", DEPTHS)
def test_cross_entropy_stays_bounded_below_the_bounded_rate_and_lazily_that_is_proportional(depth):
    model = DeepLinear(depth, "cross-entropy")
    for gamma in DECADES:
        rate, w = model.bounded_rate(gamma), model.minimum(gamma)
        c = rate * depth / gamma
        most = w + c * model.share * w ** (depth - 1)
        for start in (1.0, w, most):
            assert abs(descend(model, gamma, rate, 2000, start)) <= most * (1 + 1e-9)
    ratio = model.bounded_rate(1e-6) / model.bounded_rate(1e-7)
    assert ratio == pytest.approx(10, rel=1e-3)
    ratio = model.bounded_rate(1e9) / model.bounded_rate(1e8)
    assert math.log10(ratio) == pytest.approx(2 / depth, abs=0.01)


@pytest.mark.parametrize(("factor", "diverges"), [(0.95, False), (1.05, True)])
def test_cross_entropy_of_depth_2_diverges_at_gamma_over_the_share_of_negatives(factor, diverges):
    model, gamma = DeepLinear(2, "cross-entropy", share=0.8), 1e-4
    end = descend(model, gamma, factor * gamma / 0.2, 4000)
    assert math.isnan(end) == diverges


def test_lazy_cross_entropy_may_be_unstable_for_decades_before_it_diverges():
    model = DeepLinear(3, "cross-entropy")
    assert model.bounded_rate(1e-4) > 1e3 * model.stable_rate(1e-4)


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_band_closes_where_said(depth):
    updates, model = 1000, DeepLinear(depth)
    end = feature_strength.closing(depth, updates)
    assert model.band(end / 2, updates).open
    assert not model.band(end * 2, updates).open


@pytest.mark.parametrize("gamma", [1e2, 1e6, 1e12])
def test_the_band_of_depth_2_stays_open_up_to_a_logarithm(gamma):
    assert DeepLinear(2).band(gamma, 1000).open
    assert math.isinf(feature_strength.closing(2, 1000))


@pytest.mark.parametrize(
    ("gamma", "depth", "expected"),
    [(1e-3, 3, "lazy"), (10, 3, "rich"), (1e3, 2, "rich"), (1e7, 3, "budget")],
)
def test_regimes_are_named(gamma, depth, expected):
    assert feature_strength.regime(gamma, depth, updates=300) == expected


def paired(rate, gamma, start, updates=4000):
    """Loss's peak, the kernel at the end and the output, or None."""
    pair, kernel, peak, zero = start, start.kernel(gamma), 0.0, start.u * start.v
    for _ in range(updates):
        f = (pair.u * pair.v - zero) / gamma
        if not abs(f) < 1e12:
            return None
        peak, kernel = max(peak, abs(f - 1)), pair.kernel(gamma)
        pair = pair.update(f, gamma, rate)
    return peak, kernel, f


@pytest.mark.parametrize("gamma", [1e-2, 1e-3])
def test_catapults_lie_between_their_edges(gamma):
    start = Pair(1.0, 0.0)
    low, high = feature_strength.catapult_rates(start, gamma)
    calm, thrown = paired(0.9 * low, gamma, start), paired(0.75 * high, gamma, start)
    assert calm[0] < 1.5
    assert calm[1] == pytest.approx(start.kernel(gamma), rel=0.1)
    assert thrown[0] > 10
    assert thrown[2] == pytest.approx(1.0, abs=1e-3)
    assert thrown[1] < 2 / (0.75 * high)
    assert paired(1.05 * high, gamma, start) is None


def test_from_a_balanced_start_nothing_flatter_is_found():
    start = Pair(1.0, 1.0)
    _, high = feature_strength.catapult_rates(start, 1e-3)
    assert abs(paired(0.75 * high, 1e-3, start)[2] - 1) > 0.1


def test_the_pair_from_a_balanced_start_is_depth_2_at_twice_the_rate():
    model, gamma, rate = DeepLinear(2), 0.7, 0.05
    pair = Pair(1.0, 1.0)
    for _ in range(30):
        pair = pair.update((pair.u * pair.v - 1) / gamma, gamma, 2 * rate)
    assert pair.u == pytest.approx(descend(model, gamma, rate, 30), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DeepLinear(0), "`depth` must be"),
        (lambda: DeepLinear(2, share=0.5), "`share` must be in"),
        (lambda: DeepLinear(2).minimum(0.0), "`gamma` must be finite"),
        (lambda: DeepLinear(2).band(1.0, 0), "`updates` must be"),
        (lambda: DeepLinear(2).time_to(1.0, 1.0), "`learned` must be"),
        (lambda: DeepLinear(2).bounded_rate(1.0), "`loss` must be cross-entropy"),
    ],
)
def test_impossible_input_is_refused(call, words):
    with pytest.raises(InvalidValueError, match=words):
        call()


def test_outside_the_proved_range_it_warns():
    with pytest.warns(ValidityWarning, match="no stable rate"):
        DeepLinear(3).smallest_rate(1e9, updates=100)
    with pytest.warns(ValidityWarning, match="needs γ ≥ 10"):
        feature_strength.closing(4, 1)
    with pytest.warns(ValidityWarning, match="derived for γ ≤ 0.1"):
        feature_strength.catapult_rates(Pair(1.0, 0.0), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DeepLinear(3).smallest_rate(1.0, updates=100)
