import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch.func import functional_call, hessian

from batchlab.errors import InvalidValueError
from batchlab.models.neuron import TiedAutoencoder
from batchlab.theory import autoencoder as theory

KINDS = [(kind, n, d) for kind in theory.ACTIVATIONS for n, d in ((5, 5), (4, 7), (1, 3))]
kinds = pytest.mark.parametrize(("activation", "n", "d"), KINDS)


def weights(d, seed=0, scale=0.7):
    return scale * np.random.default_rng(seed).standard_normal(d)


def batch_loss(w, examples, module):
    """½|x − f(x)|² averaged over rows, by the module."""
    outputs = functional_call(module, {"weight": w[None]}, (examples,))
    return (outputs - examples).square().sum(-1).mean() / 2


def dense_hessian(w, n, activation):
    examples = torch.eye(len(w), dtype=torch.float64)[:n]
    module = TiedAutoencoder(len(w), activation=activation)
    found = hessian(batch_loss)(torch.from_numpy(w), examples, module)
    return found.numpy()


@kinds
@pytest.mark.parametrize("seed", range(4))
def test_step_is_an_sgd_step_by_autograd_with_repeated_examples(activation, n, d, seed):
    counts = np.random.default_rng(seed).integers(0, 3, n)
    counts[0] += 1
    w = torch.from_numpy(weights(d, seed)).requires_grad_()
    rows = torch.from_numpy(np.repeat(np.eye(d)[:n], counts, axis=0))
    batch_loss(w, rows, TiedAutoencoder(d, activation=activation)).backward()
    expected = (w - 0.3 * w.grad).detach().numpy()
    found = theory.step(w.detach().numpy(), counts, 0.3, activation)
    assert np.allclose(found, expected, rtol=0, atol=1e-14)


def test_step_of_many_runs_is_the_step_of_each():
    w = np.stack([weights(4, seed) for seed in range(3)])
    counts = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [2, 0, 0, 0]])
    rates = np.array([0.1, 0.2, 0.3])
    each = [theory.step(*one, "relu") for one in zip(w, counts, rates, strict=True)]
    assert np.array_equal(theory.step(w, counts, rates, "relu"), np.stack(each))


@kinds
def test_loss_is_that_of_the_module(activation, n, d):
    w = weights(d)
    examples = torch.eye(d, dtype=torch.float64)[:n]
    module = TiedAutoencoder(d, activation=activation)
    expected = float(batch_loss(torch.from_numpy(w), examples, module))
    assert float(theory.loss(w, n, activation)) == pytest.approx(expected, abs=1e-14)


@kinds
@pytest.mark.parametrize("seed", range(6))
def test_curvature_is_that_of_the_dense_hessian_anywhere(activation, n, d, seed):
    w = weights(d, seed, scale=0.2 + 0.3 * seed)
    dense = dense_hessian(w, n, activation)
    trace = theory.trace(w, n, activation, 0.0)
    top = theory.top_eigenvalue(w, n, activation, 0.0)
    assert float(trace) == pytest.approx(np.trace(dense), abs=1e-12)
    assert float(top) == pytest.approx(np.linalg.eigvalsh(dense)[-1], abs=1e-12)


@pytest.mark.parametrize("support", [1, 2, 6])
@pytest.mark.parametrize("activation", theory.ACTIVATIONS)
def test_at_a_minimum_trace_counts_the_active_and_the_top_eigenvalue_is_four(activation, support):
    n, d = 6, 8
    w = np.zeros(d)
    w[:support] = 1 / math.sqrt(support)
    silent = n if activation == "linear" else support
    assert n * float(theory.trace(w, n, activation)) == pytest.approx(4 + d - silent)
    assert n * float(theory.top_eigenvalue(w, n, activation)) == pytest.approx(4)
    assert float(theory.missing(w, n, activation)) == pytest.approx(0, abs=1e-15)


def test_a_coordinate_on_its_way_to_zero_would_report_the_wrong_trace():
    w = np.array([1.0, 1e-6, 1e-6, 1e-6])
    limit = np.where(w > 1e-4, w, 0.0)
    assert 4 * np.trace(dense_hessian(w, 4, "relu")) == pytest.approx(4, abs=1e-4)
    assert 4 * np.trace(dense_hessian(limit, 4, "relu")) == pytest.approx(7)
    assert 4 * float(theory.trace(w, 4, "relu")) == pytest.approx(7)


@given(some.integers(0, 2**32 - 1), some.integers(1, 6), some.floats(0.01, 3.0))
def test_no_weights_do_better_than_the_least_loss(seed, n, scale):
    w = weights(6, seed, scale)
    for activation in theory.ACTIVATIONS:
        assert float(theory.loss(w, n, activation)) >= theory.least_loss(n) - 1e-15
        left = float(theory.missing(w, n, activation))
        loss = theory.least_loss(n) + left / (2 * n)
        assert float(theory.loss(w, n, activation)) == pytest.approx(loss)


def full_batch(w, n, activation, rate, updates):
    for _ in range(updates):
        w = theory.step(w, np.ones(n), rate, activation)
    return w


def test_a_linear_neuron_stays_on_its_ray_with_the_full_batch():
    w = weights(8, scale=0.4)
    after = full_batch(w, 8, "linear", 2.0, 50)
    ratios = after / w
    assert np.allclose(ratios, ratios[0], rtol=1e-13)
    assert np.ptp(theory.step(w, np.array([1, *[0] * 7]), 0.2, "linear") / w) > 0.05


@pytest.mark.parametrize("activation", theory.ACTIVATIONS)
def test_full_batch_descent_ends_at_its_limit(activation):
    w = weights(9, seed=3, scale=0.3)
    after = full_batch(w, 7, activation, 7 / 4, 400)
    assert np.allclose(after, theory.full_batch_limit(w, 7, activation), atol=1e-12)


@pytest.mark.parametrize(("share", "arrives"), [(0.98, True), (1.02, False)])
@pytest.mark.parametrize("n", [1, 4])
def test_the_largest_stable_step_is_half_the_batch(n, share, arrives):
    w = full_batch(weights(n, seed=1), n, "linear", share * theory.largest_step(n), 2000)
    assert (abs(float(theory.missing(w, n, "linear"))) < 1e-9) == arrives


@pytest.mark.parametrize(("n", "b"), [(4, 1), (5, 2), (5, 4), (6, 3), (4, 4)])
def test_disagreement_is_that_of_all_batches(n, b):
    masks = np.array([np.isin(range(n), batch) for batch in itertools.combinations(range(n), b)])
    first_only = (masks[:, 0] & ~masks[:, 1]).mean()
    covariance = np.cov(masks.T, bias=True)
    expected = theory.disagreement(n, b) * (np.eye(n) - 1 / n)
    assert first_only == pytest.approx(theory.disagreement(n, b))
    assert np.allclose(covariance, expected)


def drift(quantity, step):
    """Mean change of a quantity over both batches of one of two examples, over step²."""
    w = np.array([0.8, 0.6])
    after = [theory.step(w, np.array(batch), step, "linear") for batch in ((1, 0), (0, 1))]
    return (np.mean([quantity(v) for v in after]) - quantity(w)) / step**2


def test_the_chance_of_two_is_a_martingale_and_the_share_is_not():
    def chance(w):
        return float(theory.chance_of_two(w[:1], w[1:])[0])

    def share(w):
        return w[0] ** 2 / (w @ w)

    assert abs(drift(chance, 1e-3)) < 1e-3
    assert abs(drift(share, 1e-3)) > 0.05


def test_time_to_sparsity_is_its_formula():
    n, b, rate = 50, 8, 1.5
    expected = 13 * n * b * (n - 1) / ((n - b) * rate**2)
    assert theory.time_to_sparsity(n, b, rate) == pytest.approx(expected)
    assert theory.time_to_sparsity(n, n, rate) == math.inf


def kept(w):
    return np.sqrt(np.square(np.maximum(w, 0)).sum(-1) / np.square(w).sum(-1))


def breadth(w):
    return np.square(np.square(w).sum(-1)) / (w**4).sum(-1) / w.shape[-1]


@pytest.mark.parametrize(
    ("of", "formula", "n"),
    [(kept, theory.kept_by_relu, 50), (breadth, theory.breadth_of_start, 200)],
)
def test_numbers_of_the_start_are_those_of_normal_draws(of, formula, n):
    draws = 20_000
    found = of(np.random.default_rng(0).standard_normal((draws, n)))
    mean, spread = formula(n)
    # Four standard errors, and what the second order leaves out.
    assert abs(found.mean() - mean) < 4 * spread / math.sqrt(draws) + 0.01 * spread
    assert found.std() == pytest.approx(spread, rel=4 / math.sqrt(2 * draws) + 0.05)
    # The failing twin: the first order of the mean, and the spread of half as many.
    limit = formula(10**9)[0]
    assert abs(found.mean() - limit) > 4 * spread / math.sqrt(draws) + 0.01 * spread
    assert found.std() != pytest.approx(formula(n // 2)[1], rel=0.1)


@pytest.mark.parametrize(
    ("examples", "activation", "match"), [(0, "relu", "examples"), (4, "relu", "examples")]
)
def test_more_examples_than_dimensions_are_refused(examples, activation, match):
    with pytest.raises(InvalidValueError, match=match):
        theory.active(np.ones(3), examples, activation)


@pytest.mark.wrong_type
def test_an_unknown_activation_is_refused():
    with pytest.raises(InvalidValueError, match="activation"):
        theory.loss(np.ones(3), 3, "tanh")
