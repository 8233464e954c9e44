"""Pairs by enumeration, the interval by known truth, each with a planted fault."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from batchlab.errors import InvalidValueError
from batchlab.watch.noise import Pair, Squares, block_of, estimate, pair, ratio_range
from batchlab.watch.record import NoiseBlock

GRADIENTS = np.array([[1.0, 0.5], [-0.5, 2.0], [0.25, -1.0], [3.0, 0.0], [0.5, 0.75]])
N = len(GRADIENTS)
SIGNAL = float((GRADIENTS.mean(0) ** 2).sum())
NOISE = float(((GRADIENTS - GRADIENTS.mean(0)) ** 2).sum(1).mean())

REPETITIONS, UPDATES, BATCH, SMALL = 400, 32, 32, 8
COVERS = (0.85, 0.95)


def squares(gradients, small=1):
    """Of one update whose examples have these gradients."""
    parts = gradients.reshape(-1, small, gradients.shape[1]).mean(1)
    return Squares(
        float((parts**2).sum(1).mean()),
        float((gradients.mean(0) ** 2).sum()),
        small,
        len(gradients),
    )


def block(pairs, **changes):
    axes = {"samples": 1, "updates": 1, "seconds": 1.0, "money": None}
    what = {"method": "per example", "batch_size": BATCH, "covered": 1.0, "population": None}
    return NoiseBlock(**axes, **(what | block_of(pairs) | changes))


# -- pairs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
def test_pairs_are_unbiased_over_all_batches_with_replacement(size):
    pairs = [pair(squares(GRADIENTS[list(b)])) for b in itertools.product(range(N), repeat=size)]
    assert np.mean(pairs, axis=0) == pytest.approx((SIGNAL, NOISE))


@pytest.mark.parametrize("size", [2, 4, 5])
def test_pairs_are_unbiased_over_all_batches_without_replacement(size):
    batches = itertools.permutations(range(N), size)
    pairs = [pair(squares(GRADIENTS[list(b)]), population=N) for b in batches]
    assert np.mean(pairs, axis=0) == pytest.approx((SIGNAL, NOISE))


def test_pairs_of_micro_batches_are_unbiased():
    batches = itertools.permutations(range(N), 4)
    pairs = [pair(squares(GRADIENTS[list(b)], small=2), population=N) for b in batches]
    assert np.mean(pairs, axis=0) == pytest.approx((SIGNAL, NOISE))


def test_forgetting_the_population_biases_both():
    batches = itertools.permutations(range(N), 4)
    signal, noise = np.mean([pair(squares(GRADIENTS[list(b)])) for b in batches], axis=0)
    assert noise == pytest.approx(NOISE * N / (N - 1))
    assert signal == pytest.approx(SIGNAL - NOISE / (N - 1))


def test_a_batch_larger_than_the_population_was_not_drawn_without_replacement():
    assert pair(squares(GRADIENTS), population=3) == pair(squares(GRADIENTS))


# -- blocks ---------------------------------------------------------------------------------------


def test_a_block_holds_means_and_covariances():
    pairs = [Pair(1.0, 5.0), Pair(2.0, 3.0), Pair(6.0, 4.0)]
    found, spread = block_of(pairs), np.cov(np.array(pairs), rowvar=False)
    assert (found["signal"], found["noise"], found["pairs"]) == (3.0, 4.0, 3)
    assert found["signal_var"] == pytest.approx(spread[0, 0])
    assert found["covariance"] == pytest.approx(spread[0, 1])
    assert found["noise_var"] == pytest.approx(spread[1, 1])


def test_one_pair_is_no_block():
    with pytest.raises(InvalidValueError, match="`pairs` must be at least 2; got 1"):
        block_of([Pair(1.0, 1.0)])


def test_the_scale_is_the_ratio_of_averages():
    early, late = ([Pair(s, n)] * 8 for s, n in ((8.0, 8.0), (1.0, 10.0)))
    assert estimate([block(early), block(late)]).scale.value == pytest.approx(18 / 9)


def test_what_changes_from_block_to_block_does_not_widen_the_interval():
    rng = np.random.default_rng(0)
    early = [Pair(2 + x, 8.0) for x in 0.1 * rng.standard_normal(16)]
    late = [Pair(p.signal - 1, 8.0) for p in early]

    def width(blocks):
        found = estimate(blocks).scale
        return found.high / found.low

    assert width([block(early), block(late)]) < 1.1 < width([block(early + late)])


def test_a_factor_that_drifts_within_a_block_does_not_widen_the_interval():
    pairs = [Pair(2.0 * 0.9**i, 8.0 * 0.9**i) for i in range(16)]
    found = estimate([block(pairs)]).scale
    assert (found.low, found.high) == pytest.approx((4.0, 4.0))


def test_blocks_of_another_method_are_left_out():
    here = [Pair(2.0, 8.0), Pair(2.2, 8.0)] * 4
    mixed = estimate([block([Pair(9.0, 1.0)] * 8, method="micro-batches"), block(here)])
    assert mixed.scale == estimate([block(here)]).scale


def test_too_few_pairs_give_nothing():
    assert estimate([block([Pair(2.0, 8.0), Pair(2.2, 8.0)] * 3)]) is None


def test_a_signal_that_is_not_clearly_positive_gives_a_bound():
    rng = np.random.default_rng(0)
    found = estimate([block([Pair(x, 8.0) for x in rng.standard_normal(16)])])
    assert found.scale is None
    assert 8 < found.at_least < 80


def test_a_signal_clearly_below_zero_gives_not_even_a_bound():
    found = estimate([block([Pair(-1.0, 8.0), Pair(-1.1, 8.0)] * 8)])
    assert found.scale is None
    assert found.at_least is None
    assert found.signal < 0


def test_the_interval_is_fieller_s():
    """Its ends are where the t statistic of S̄ − ρN̄ is the quantile."""
    means, variances, dof = (2.0, 8.0), (0.05, 0.02, 0.3), 15
    quantile = scipy_stats.t.ppf(0.95, dof)
    for end, sign in zip(ratio_range(means, variances, dof, 0.9), (1, -1), strict=True):
        spread = variances[0] - 2 * end * variances[1] + end**2 * variances[2]
        assert (means[0] - end * means[1]) / math.sqrt(spread) == pytest.approx(
            sign * quantile, rel=1e-3
        )


def test_noise_that_is_not_clearly_positive_bounds_nothing():
    assert ratio_range((1.0, 0.1), (0.1, 0.0, 1.0), 15, 0.9) == (-math.inf, math.inf)


# -- coverage -------------------------------------------------------------------------------------


def covered(eigenvalues, ratio, *, drift=0.0, split=pair, whole=estimate):
    """Share of repetitions whose answer holds, for a noise scale of ``ratio`` batches."""
    root = np.sqrt(np.array(eigenvalues) / np.sum(eigenvalues))
    return np.mean(
        [holds(i, root, ratio * BATCH, drift, split, whole) for i in range(REPETITIONS)]
    )


def holds(repetition, root, truth, drift, split, whole):
    rng = np.random.default_rng(repetition)
    direction = rng.standard_normal(len(root)) * root
    mean = direction / np.linalg.norm(direction) / math.sqrt(truth)
    pairs = []
    for i in range(UPDATES):
        each = (rng.standard_normal((BATCH, len(root))) * root + mean) * math.exp(-drift * i)
        small_sq = float((each[:SMALL] ** 2).sum(1).mean())
        pairs.append(split(Squares(small_sq, float((each.mean(0) ** 2).sum()), 1, BATCH)))
    found = whole([block(pairs[: UPDATES // 2]), block(pairs[UPDATES // 2 :])])
    if found.scale is None:
        return not (found.at_least or 0) > truth
    return found.scale.low <= truth <= found.scale.high


CASES = [("falling", 1.0), ("equal", 10.0)]
OTHERS = [("falling", 0.1), ("falling", 10.0), ("equal", 0.1), ("equal", 1.0)]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS]


@pytest.mark.parametrize(("spectrum", "ratio"), CASES + SLOW)
def test_the_interval_covers_its_share(spectrum, ratio):
    eigenvalues = np.ones(100) if spectrum == "equal" else 1 / np.arange(1.0, 101)
    assert COVERS[0] <= covered(eigenvalues, ratio) <= COVERS[1]


def test_the_interval_covers_its_share_while_gradients_shrink():
    assert COVERS[0] <= covered(1 / np.arange(1.0, 101), 1.0, drift=0.05) <= COVERS[1]


def test_taking_the_small_batch_for_larger_than_it_is_does_not_cover():
    def planted(found):
        return pair(found._replace(small=2))

    assert covered(np.ones(100), 1.0, split=planted) < COVERS[0]


def test_forgetting_that_blocks_are_means_does_not_cover():
    def planted(blocks):
        one = [b.__dict__ | {"signal_var": b.signal_var / 16} for b in blocks]
        return estimate([NoiseBlock(**b) for b in one])

    assert covered(np.ones(100), 1.0, whole=planted) < COVERS[0]
