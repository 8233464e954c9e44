"""The noise scale from updates of a training that goes on: pairs, blocks, and an interval.

One update gives squared norms of its gradient at two batch sizes, and from them one unbiased pair
(S, N) of signal and noise. Weights do not move within an update; how the pairs of neighbouring
updates differ gives the interval, and the slow change from block to block does not widen it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from batchlab.errors import InvalidValueError, must
from batchlab.measure._moments import LEVEL, noise_scale, t_quantile
from batchlab.measure.noise import NoiseResult
from batchlab.types import Estimate
from batchlab.watch.record import NoiseBlock

LEAST_DOF = 7
"""Fewer pairs than this and one for each block give no interval."""


class Squares(NamedTuple):
    """Squared norms of one update's gradient.

    Attributes:
        small_sq: Mean ‖g‖² over the small batches in it, (loss/parameter)².
        big_sq: ‖g‖² of the whole.
        small: Examples of a small batch.
        big: Examples of the whole.
    """

    small_sq: float
    big_sq: float
    small: int
    big: int


class Pair(NamedTuple):
    """One update's signal ‖G‖² and noise tr Σ, each unbiased, (loss/parameter)²."""

    signal: float
    noise: float


def pair(squares: Squares, population: int | None = None) -> Pair:
    """Split one update's squared norms into signal and noise.

    Args:
        squares: At two batch sizes.
        population: N, where the batch was drawn without replacement from so many examples; without
            it the noise would come out N/(N−1) times too large and the signal tr Σ/(N−1) too low.

    Returns:
        The pair.

    Example:
        >>> pair(Squares(small_sq=5.0, big_sq=2.0, small=2, big=8))
        Pair(signal=1.0, noise=8.0)
    """
    drawn_without = population is not None and squares.big <= population
    return Pair(*noise_scale(*squares, population if drawn_without else None))


def block_of(pairs: Sequence[Pair]) -> dict[str, float | int]:
    """Means, variances and covariance of some neighbouring pairs, as a :class:`NoiseBlock` has
    them.

    Args:
        pairs: At least 2.

    Raises:
        InvalidValueError: If there are fewer.

    Example:
        >>> found = block_of([Pair(1.0, 2.0), Pair(3.0, 4.0)])
        >>> found["signal"], found["covariance"]
        (2.0, 2.0)
    """
    if len(pairs) < 2:
        raise InvalidValueError(must("pairs", "at least 2", len(pairs)))
    values = np.array(pairs, dtype=float)
    spread = np.cov(values, rowvar=False)
    return {
        "pairs": len(pairs),
        "signal": float(values[:, 0].mean()),
        "noise": float(values[:, 1].mean()),
        "signal_var": float(spread[0, 0]),
        "noise_var": float(spread[1, 1]),
        "covariance": float(spread[0, 1]),
    }


def estimate(blocks: Sequence[NoiseBlock], level: float = LEVEL) -> NoiseResult | None:
    """The noise scale over some blocks: mean noise over mean signal, with its interval.

    S̄ − ρN̄ is compared with its own standard error at each ratio ρ = ‖G‖²/tr Σ; what is not
    rejected is the interval (Fieller's theorem). Standard errors come from within the blocks,
    with Σ(n − 1) degrees of freedom.

    Args:
        blocks: Of one training; the method of the last holds, others are left out.
        level: Coverage, between 0 and 1.

    Returns:
        The result; its ``n`` counts updates. Where the signal is not clearly positive, a lower
        bound and no value. None where there are too few pairs.

    Assumes:
        Examples drawn at random; one ratio for all the blocks, else it is that of the averages.

    Source:
        mccandlish2018, appendix A; fieller1954.

    Example:
        >>> axes = dict(samples=64, updates=8, seconds=1.0, money=None)
        >>> what = dict(method="per example", pairs=16, signal=2.0, noise=8.0, batch_size=8)
        >>> spread = dict(signal_var=0.16, noise_var=0.64, covariance=0.0)
        >>> block = NoiseBlock(**axes, **what, **spread, covered=1.0, population=None)
        >>> print(estimate([block]).scale)
        4 examples (3.64 to 4.43, n = 16)
    """
    used = [block for block in blocks if block.method == blocks[-1].method]
    total, dof = sum(b.pairs for b in used), sum(b.pairs - 1 for b in used)
    if dof < LEAST_DOF:
        return None
    share = [b.pairs / total for b in used]
    signal = sum(w * b.signal for w, b in zip(share, used, strict=True))
    noise = sum(w * b.noise for w, b in zip(share, used, strict=True))
    of_mean = [w * w / b.pairs for w, b in zip(share, used, strict=True)]
    spread = [[b.signal_var, b.covariance, b.noise_var] for b in used]
    variances = tuple((np.array(of_mean) @ np.array(spread)).tolist())
    examples = sum(b.pairs * b.batch_size for b in used)
    found = NoiseResult(used[-1].samples, signal, noise, None, None, used[-1].method, examples)
    if not (math.isfinite(signal) and noise > 0):
        return found
    low, high = ratio_range((signal, noise), variances, dof, level)
    if low <= 0:
        return replace(found, at_least=1 / high if 0 < high < math.inf else None)
    source = f"gradients, {used[-1].method}"
    scale = Estimate(noise / signal, 1 / high, 1 / low, total, "examples", source, level)
    return replace(found, scale=scale)


def along(blocks: Sequence[NoiseBlock], parts: int = 12) -> tuple[NoiseResult, ...]:
    """The noise scale along a training: one result for each of some stretches of equal length.

    Args:
        blocks: In order.
        parts: At most so many stretches, so that each has the pairs for an interval.

    Returns:
        Results in order, those left out that have too few pairs.
    """
    size = math.ceil(len(blocks) / parts) if blocks else 1
    stretches = [blocks[i : i + size] for i in range(0, len(blocks), size)]
    return tuple(found for part in stretches if (found := estimate(part)) is not None)


def ratio_range(
    means: tuple[float, float], variances: tuple[float, float, float], dof: float, level: float
) -> tuple[float, float]:
    """Fieller's interval of x/y from two correlated means.

    All ρ with (x̄ − ρȳ)² ≤ t²(Var x̄ − 2ρ Cov + ρ² Var ȳ).

    Args:
        means: x̄ and ȳ > 0.
        variances: Var x̄, Cov(x̄, ȳ), Var ȳ, of the means.
        dof: Degrees of freedom behind them.
        level: Coverage.

    Returns:
        ``(low, high)``; unbounded where ȳ is not clearly above 0.

    Source:
        fieller1954.

    Example:
        >>> ratio_range((2.0, 8.0), (0.0, 0.0, 0.0), dof=9, level=0.9)
        (0.25, 0.25)
    """
    (x, y), (var_x, cov, var_y) = means, variances
    t_sq = t_quantile((1 + level) / 2, dof) ** 2
    a, b, c = y * y - t_sq * var_y, x * y - t_sq * cov, x * x - t_sq * var_x
    if a <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a, (b + root) / a
