"""Signal and noise of gradients, and the interval of their ratio: formulas alone, no training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab.errors import InvalidValueError, must

LEVEL = 0.9


def noise_scale(
    small_sq: float, big_sq: float, small: int, big: int, population: int | None = None
) -> tuple[float, float]:
    r"""Split squared gradient norms at two batch sizes into signal and noise.

    E‖g_B‖² = ‖G‖² + v(B)·tr(Σ), so two batch sizes give two equations. v(B) is 1/B with
    replacement and :func:`variance_factor` without. tr(Σ)/‖G‖² is the batch size at which noise
    and signal are equally large.

    Args:
        small_sq: Mean of ‖g‖² over batches of size ``small``. Shape ``[]``; (loss/parameter)².
        big_sq: The same at size ``big``.
        small: Smaller batch size, examples, at least 1.
        big: Larger batch size, examples, greater than ``small``.
        population: N if each batch was drawn without replacement from N examples, else None.

    Returns:
        ``(signal, noise)``: ‖G‖² and tr(Σ), of all N examples if ``population`` is given. A
        negative signal means "not resolved"; it is not clipped.

    Raises:
        InvalidValueError: If ``big`` is not greater than ``small``, or exceeds ``population``.

    Assumes:
        Examples drawn independently, or without replacement from ``population``.

    Source:
        mccandlish2018, appendix A; cochran1977, section 2.5, for the factor without replacement.

    Example:
        >>> noise_scale(small_sq=5.0, big_sq=2.0, small=2, big=8)
        (1.0, 8.0)
    """
    if not 1 <= small < big:
        raise InvalidValueError(
            must("big", f"greater than small, {small}, which is at least 1", big)
        )
    v_small, v_big = variance_factor(small, population), variance_factor(big, population)
    return _split(small_sq, big_sq, v_small, v_big)


def _split(small_sq: float, big_sq: float, v_small: float, v_big: float) -> tuple[float, float]:
    """Solve small_sq = S + v_small N and big_sq = S + v_big N for S and N."""
    noise = (small_sq - big_sq) / (v_small - v_big)
    return big_sq - v_big * noise, noise


def variance_factor(batch_size: int, population: int | None = None) -> float:
    """E‖g_B − G‖²/tr Σ: 1/B with replacement, (N−B)/(B(N−1)) without.

    Args:
        batch_size: B, examples, at least 1.
        population: N, at least B and 2, or None for independent draws.

    Returns:
        The factor, 1/examples.

    Raises:
        InvalidValueError: If B is not in [1, N].

    Source:
        cochran1977, section 2.5.

    Example:
        >>> variance_factor(4), variance_factor(4, population=4)
        (0.25, 0.0)
    """
    if batch_size < 1 or (population is not None and not max(batch_size, 2) <= population):
        top = "" if population is None else f" and at most the {population} examples"
        raise InvalidValueError(must("batch_size", f"at least 1{top}", batch_size))
    if population is None:
        return 1 / batch_size
    return (population - batch_size) / (batch_size * (population - 1))


def finite_population(signal: float, noise: float, population: int) -> tuple[float, float]:
    """Correct what the formula with replacement made of batches drawn without.

    Without replacement from N examples it inflates the noise by N/(N−1) and puts the signal low by
    tr Σ/(N−1).

    Args:
        signal: First result of :func:`noise_scale` without ``population``, (loss/parameter)².
        noise: Second result.
        population: N, at least 2.

    Returns:
        ``(signal, noise)`` of the N examples: what :func:`noise_scale` gives with ``population``.

    Raises:
        InvalidValueError: If N is below 2.

    Example:
        >>> finite_population(signal=0.5, noise=2.0, population=4)
        (1.0, 1.5)
    """
    if population < 2:
        raise InvalidValueError(must("population", "at least 2", population))
    return signal + noise / population, noise * (population - 1) / population


class Design(NamedTuple):
    """How the examples were drawn, as factors of Σ. Unit 1/examples.

    Attributes:
        small: Covariance of the small gradients whose squared norms are averaged.
        mean: Covariance of the mean of all gradients.
        between: Covariance of block gradients around each other.
        drawn: Share of the population that was drawn, 0 for independent draws.
    """

    small: float
    mean: float
    between: float
    drawn: float = 0.0


def independent(small: int, block: int, blocks: int) -> Design:
    """Examples drawn independently: K blocks of m, squared norms at size ``small``."""
    return Design(1 / small, 1 / (block * blocks), 1 / block)


def without_replacement(small: int, block: int, blocks: int, population: int) -> Design:
    """All blocks together drawn without replacement from N examples."""
    total = block * blocks
    small_factor, mean_factor = (variance_factor(b, population) for b in (small, total))
    between = population / (block * (population - 1))
    return Design(small_factor, mean_factor, between, total / population)


def separate_batches(block: int, blocks: int, population: int) -> Design:
    """Each block drawn without replacement, like a training batch, and on its own."""
    factor = variance_factor(block, population)
    return Design(factor, factor / blocks, factor)


@dataclass(frozen=True)
class Moments:
    """Signal and noise with all that is needed to bound their ratio or to pool it.

    The mean gradient has E‖ḡ‖² = S + uN and, to a good approximation, the distribution of a scaled
    χ² with Var‖ḡ‖² = floor + slope·S.

    Attributes:
        signal: S, estimate of ‖G‖², unbiased, (loss/parameter)²; may be negative.
        noise: N, estimate of tr Σ, unbiased, (loss/parameter)².
        mean_factor: u, 1/examples.
        floor: Variance of ``signal`` where there is no signal: 2u² tr Σ².
        slope: Growth of that variance with the signal: 4u GᵀΣG/‖G‖².
        noise_var: Variance of ``noise``.
        correlation: Of errors of ``noise`` with that part of the errors of ``signal`` which grows
            with it.
        dof: Degrees of freedom behind the variances.
    """

    signal: float
    noise: float
    mean_factor: float
    floor: float
    slope: float
    noise_var: float
    correlation: float
    dof: float


def moments(gram: Float[Tensor, "K K"], small_sq: Float[Tensor, " K"], design: Design) -> Moments:
    """Signal, noise and their uncertainty from gradients of K blocks of examples.

    The Gram matrix is split like a table of pairs, ⟨g_i, g_j⟩ = S + α_i + α_j + e_ij: the α
    measure GᵀΣG, the e tr Σ².

    Args:
        gram: Inner products of the K block gradients, (loss/parameter)².
        small_sq: Mean squared norm of the small gradients in each block.
        design: How the examples were drawn.

    Returns:
        The moments.

    Raises:
        InvalidValueError: If there are fewer than 4 blocks.

    Assumes:
        Blocks of equal size.

    Source:
        hoeffding1948 for the variance of a mean over pairs.
    """
    count = len(gram)
    if count < 4:
        raise InvalidValueError(must("blocks", "at least 4", count))
    mean_sq, row = float(gram.mean()), gram.mean(1)
    spread = small_sq - 2 * row + mean_sq
    signal, noise = _split(float(small_sq.mean()), mean_sq, design.small, design.mean)
    along, residual = _pairs(gram)
    trace_sq = float(residual.square().sum()) / (count * (count - 3)) / design.between**2
    straight = float(along.square().sum()) / (count - 1) / design.between
    # α holds the mean of K − 1 of the e; drawn without replacement, these tend to cancel.
    straight -= trace_sq * design.between / (count - 2) * (1 - design.drawn)
    floor = 2 * trace_sq * design.mean**2
    noise_var = (
        float(spread.var()) / count * (1 - design.drawn) / (design.small - design.mean) ** 2
    )
    return Moments(
        signal=signal,
        noise=noise,
        mean_factor=design.mean,
        floor=floor,
        slope=4 * design.mean * _per_signal(max(straight, 0.0), signal, noise, trace_sq, floor),
        noise_var=noise_var,
        correlation=_resolved_share(signal, floor) * _correlation(along, spread),
        dof=count - 1.0,
    )


def _pairs(gram: Float[Tensor, "K K"]) -> tuple[Float[Tensor, " K"], Float[Tensor, "K K"]]:
    """Fit ⟨g_i, g_j⟩ = μ + α_i + α_j + e_ij over i ≠ j: α and e, by least squares."""
    count = len(gram)
    off = gram - torch.diag(gram.diagonal())
    mu = off.sum() / (count * (count - 1))
    along = (off.sum(1) / (count - 1) - mu) * (count - 1) / (count - 2)
    residual = gram - mu - along[:, None] - along
    return along, residual - torch.diag(residual.diagonal())


def _resolved_share(signal: float, floor: float) -> float:
    """0 where the signal drowns in its own spread, towards 1 where it is far above."""
    above = max(signal, 0.0)
    return above / (above + math.sqrt(floor)) if above else 0.0


def _per_signal(
    straight: float, signal: float, noise: float, trace_sq: float, floor: float
) -> float:
    """GᵀΣG/‖G‖²; tr Σ²/tr Σ, its mean over directions drawn like the noise, if not resolved."""
    share = _resolved_share(signal, floor)
    typical = trace_sq / noise if noise > 0 else 0.0
    return (share * straight / signal if share else 0.0) + (1 - share) * typical


def _correlation(x: Float[Tensor, " K"], y: Float[Tensor, " K"]) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size > 0 else 0.0


def ratio_range(found: Moments, level: float = LEVEL) -> tuple[float, float]:
    """Interval of ‖G‖²/tr Σ, the inverse of the noise scale.

    ‖ḡ‖²/(uN̂) is compared with the F distribution it would have at each value of the ratio; what
    is not rejected is the interval (as in Fieller's theorem, but right where ‖ḡ‖² has few degrees
    of freedom). F quantiles by Paulson's cube root.

    Args:
        found: Signal, noise and their uncertainty.
        level: Coverage, between 0 and 1.

    Returns:
        ``(low, high)`` in 1/examples. ``low`` 0: not resolved. ``high`` 0: the mean gradient is
        smaller than chance explains even without any signal.

    Assumes:
        Gradients of blocks roughly normal. Where a few examples dominate (kurtosis of ‖g‖ 13), a
        nominal 90 % covers about 82 %.

    Source:
        fieller1954; paulson1942; patnaik1949.

    Example:
        >>> exact = Moments(2.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 31.0)
        >>> ratio_range(exact)
        (0.25, 0.25)
    """
    if found.mean_factor == 0 and found.noise_var == 0:
        ratio = max(found.signal, 0.0) / found.noise
        return ratio, ratio
    t = t_quantile((1 + level) / 2, found.dof)
    step = found.mean_factor or abs(found.signal) / found.noise or 1.0
    low = _crossing(found, t, step)
    return low, max(low, _crossing(found, -t, step))


def _z(found: Moments, ratio: float) -> float:
    """How far ‖ḡ‖² lies above what is expected at this ratio, in standard deviations."""
    expected = found.noise * (ratio + found.mean_factor)
    straight = found.slope * ratio * found.noise / expected**2
    own = found.floor / expected**2 + straight
    other = (ratio / expected) ** 2 * found.noise_var
    total = own + other - 2 * found.correlation * math.sqrt(straight * other)
    # Both parts shrink together, so that their sum has the variance of the difference.
    share = max(total, 0.01 * (own + other)) / (own + other) if own + other else 0.0
    own, other = own * share / 9, other * share / 9
    root = max((found.signal + found.mean_factor * found.noise) / expected, 0.0) ** (1 / 3)
    return (root * (1 - other) - (1 - own)) / math.sqrt(own + root**2 * other or 1e-300)


def _crossing(found: Moments, target: float, step: float) -> float:
    """The ratio at which z falls to ``target``; 0 if it is below it from the start."""
    low, high = step * 1e-9, step
    if _z(found, low) <= target:
        return 0.0
    while _z(found, high) > target and high < step * 1e12:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _z(found, middle) > target else (low, middle)
    return (low + high) / 2


def t_quantile(share: float, dof: float) -> float:
    """Student's t by its expansion at the normal quantile, to 0.1 % from 7 degrees of freedom.

    Written out because the core, which measures noise in users' own loops, comes without scipy.

    Args:
        share: Between 0 and 1.
        dof: Degrees of freedom, at least 1; at 2 it is 1 % low.

    Example:
        >>> round(t_quantile(0.95, 15), 3)
        1.753
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / dof ** (i + 1) for i, term in enumerate(terms))
