"""The gradient noise scale tr Σ/‖G‖²: the batch size at which noise and signal are equally large.

Squared norms of gradients at two batch sizes give signal and noise; how much the gradients of blocks of examples
differ from each other gives the interval. Weights stay frozen, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from statistics import NormalDist, mean
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from batchlab import _random, _tree, schedules
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.measure import _per_example
from batchlab.tasks import Objective, Prepared
from batchlab.types import Estimate, Tree

BLOCKS = 32
LEAST_BLOCKS = 8
EXAMPLES = 256
BLOCK_BYTES = 512 * 2**20
VMAP_PARAMETERS = 2**18
LEVEL = 0.9
METHODS = ("per example", "micro-batches", "training micro-batches")

# -- the formulas ------------------------------------------------------------------------------------------


def noise_scale(
    small_sq: float, big_sq: float, small: int, big: int, population: int | None = None
) -> tuple[float, float]:
    r"""Split squared gradient norms at two batch sizes into signal and noise.

    E‖g_B‖² = ‖G‖² + v(B)·tr(Σ), so two batch sizes give two equations. v(B) is 1/B with replacement and
    :func:`variance_factor` without. tr(Σ)/‖G‖² is the batch size at which noise and signal are equally large.

    Args:
        small_sq: Mean of ‖g‖² over batches of size ``small``. Shape ``[]``; (loss/parameter)².
        big_sq: The same at size ``big``.
        small: Smaller batch size, examples, at least 1.
        big: Larger batch size, examples, greater than ``small``.
        population: N if each batch was drawn without replacement from N examples, else None.

    Returns:
        ``(signal, noise)``: ‖G‖² and tr(Σ), of all N examples if ``population`` is given. A negative signal
        means "not resolved"; it is not clipped.

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
        raise InvalidValueError(must("big", f"greater than small, {small}, which is at least 1", big))
    v_small, v_big = variance_factor(small, population), variance_factor(big, population)
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

    Without replacement from N examples it inflates the noise by N/(N−1) and puts the signal low by tr Σ/(N−1).

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


# -- estimate and interval ---------------------------------------------------------------------------------


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
    """Every block drawn without replacement, as a training batch is, and independently of the others."""
    factor = variance_factor(block, population)
    return Design(factor, factor / blocks, factor)


@dataclass(frozen=True)
class Moments:
    """Signal and noise with all that is needed to bound their ratio or to pool it.

    The mean gradient has E‖ḡ‖² = S + uN and, to a good approximation, the distribution of a scaled χ² with
    Var‖ḡ‖² = floor + slope·S.

    Attributes:
        signal: S, estimate of ‖G‖², unbiased, (loss/parameter)²; may be negative.
        noise: N, estimate of tr Σ, unbiased, (loss/parameter)².
        mean_factor: u, 1/examples.
        floor: Variance of ``signal`` where there is no signal: 2u² tr Σ².
        slope: Growth of that variance with the signal: 4u GᵀΣG/‖G‖².
        noise_var: Variance of ``noise``.
        correlation: Between errors of ``signal`` and of ``noise`` where the signal is large.
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

    The Gram matrix is split like a table of pairs, ⟨g_i, g_j⟩ = S + α_i + α_j + e_ij: the α measure GᵀΣG, the e
    tr Σ².

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
    noise = float(spread.mean()) / (design.small - design.mean)
    along, residual = _pairs(gram)
    trace_sq = float(residual.square().sum()) / (count * (count - 3)) / design.between**2
    straight = float(along.square().sum()) / (count - 1) / design.between
    straight -= trace_sq * design.between / (count - 2)
    signal = mean_sq - design.mean * noise
    floor = 2 * trace_sq * design.mean**2
    noise_var = float(spread.var()) / count * (1 - design.drawn) / (design.small - design.mean) ** 2
    return Moments(
        signal=signal,
        noise=noise,
        mean_factor=design.mean,
        floor=floor,
        slope=4 * design.mean * _per_signal(max(straight, 0.0), signal, noise, trace_sq, floor),
        noise_var=noise_var,
        correlation=_correlation(along, spread) * _resolved_share(signal, floor),
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
    """GᵀΣG/‖G‖²; where the signal is not resolved, its mean over directions drawn like the noise, tr Σ²/tr Σ."""
    share = _resolved_share(signal, floor)
    typical = trace_sq / noise if noise > 0 else 0.0
    return (share * straight / signal if share else 0.0) + (1 - share) * typical


def _correlation(x: Float[Tensor, " K"], y: Float[Tensor, " K"]) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size > 0 else 0.0


def ratio_range(found: Moments, level: float = LEVEL) -> tuple[float, float]:
    """Interval of ‖G‖²/tr Σ, the inverse of the noise scale.

    ‖ḡ‖²/(uN̂) is compared with the F distribution it would have at each value of the ratio; what is not rejected
    is the interval (as in Fieller's theorem, but right where ‖ḡ‖² has few degrees of freedom). F quantiles by
    Paulson's cube root.

    Args:
        found: Signal, noise and their uncertainty.
        level: Coverage, between 0 and 1.

    Returns:
        ``(low, high)`` in 1/examples. ``low`` 0: not resolved. ``high`` 0: the mean gradient is smaller than
        chance explains even without any signal.

    Assumes:
        Gradients of blocks roughly normal. Where single examples dominate (kurtosis of ‖g‖ above 10), coverage
        falls to about 82 %.

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
    t = _t_quantile((1 + level) / 2, found.dof)
    step = found.mean_factor or abs(found.signal) / found.noise or 1.0
    low = _crossing(found, t, step)
    return low, max(low, _crossing(found, -t, step))


def _z(found: Moments, ratio: float) -> float:
    """How far ‖ḡ‖² lies above what is expected at this ratio, in standard deviations."""
    expected = found.noise * (ratio + found.mean_factor)
    own = (found.floor + found.slope * ratio * found.noise) / expected**2
    other = (ratio / expected) ** 2 * found.noise_var
    total = own + other - 2 * found.correlation * math.sqrt(own * other)
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


def _t_quantile(share: float, dof: float) -> float:
    """Student's t by its expansion at the normal quantile, to 0.1 % from 7 degrees of freedom.

    Written out because the core, which measures noise in users' own loops, comes without scipy.
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / dof ** (i + 1) for i, term in enumerate(terms))


# -- results -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoiseResult:
    """The gradient noise scale at one moment.

    Attributes:
        samples: Examples seen before it.
        signal: ‖G‖², (loss/parameter)²; negative where not resolved.
        noise: tr Σ, (loss/parameter)².
        scale: tr Σ/‖G‖² in examples with its 90 % interval, or None where the signal is not resolved.
        at_least: Low end of that interval where its high end is infinite; None where the scale is resolved or
            not even that can be said.
        method: One of :data:`METHODS`.
        examples: Examples whose gradients went into it.
        moments: What pooling needs, or None where a gradient was not finite or there was no noise to measure.
    """

    samples: int
    signal: float
    noise: float
    scale: Estimate | None
    at_least: float | None
    method: str
    examples: int
    moments: Moments | None = None

    def values(self) -> dict[str, float]:
        """As named floats, for a Trace; NaN where not resolved. :func:`from_trace_values` undoes it."""
        scale = self.scale
        low = scale.low if scale is not None else self.at_least
        values = {
            "signal": self.signal,
            "noise": self.noise,
            "scale": math.nan if scale is None else scale.value,
            "low": math.nan if low is None else low,
            "high": math.nan if scale is None else scale.high,
            "examples": float(self.examples),
            "method": float(METHODS.index(self.method)),
        }
        for name in (f.name for f in fields(Moments)[2:]):
            values[name] = math.nan if self.moments is None else getattr(self.moments, name)
        return {f"noise.{name}": value for name, value in values.items()}


def result(
    found: Moments, *, samples: int, examples: int, method: str, level: float = LEVEL
) -> NoiseResult:
    """The noise scale from its moments, resolved or bounded below.

    Args:
        found: Signal, noise and their uncertainty.
        samples: Examples seen.
        examples: Examples measured.
        method: One of :data:`METHODS`.
        level: Coverage of the interval.

    Returns:
        The result. Ratio of averages; a signal that is not clearly positive gives a bound and no value.

    Example:
        >>> found = Moments(2.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 31.0)
        >>> print(result(found, samples=0, examples=64, method="per example").scale)
        4 examples (4 to 4, n = 64)
    """
    numbers = found.signal, found.noise
    if not all(map(math.isfinite, numbers)) or not found.noise > 0:
        return NoiseResult(samples, *numbers, None, None, method, examples)
    low, high = ratio_range(found, level)
    if low <= 0:
        at_least = 1 / high if high > 0 else None
        return NoiseResult(samples, *numbers, None, at_least, method, examples, found)
    value = found.noise / found.signal
    scale = Estimate(value, 1 / high, 1 / low, examples, "examples", f"gradients, {method}", level)
    return NoiseResult(samples, *numbers, scale, None, method, examples, found)


def from_trace_values(values: dict[str, float], samples: int) -> NoiseResult:
    """The result behind the named floats of a Trace.

    Args:
        values: What a noise probe recorded at one moment; other names are ignored.
        samples: Examples seen at that moment.

    Returns:
        The result, as :func:`measure_noise` gave it.

    Raises:
        InvalidValueError: If the noise was not recorded there.
    """
    own = {name.removeprefix("noise."): value for name, value in values.items() if name.startswith("noise.")}
    absent = {"examples", "method", *(f.name for f in fields(Moments))} - set(own)
    if absent:
        raise InvalidValueError(must("values", "those of a noise probe", sorted(values)))
    found = Moments(**{f.name: own[f.name] for f in fields(Moments)})
    method = METHODS[int(own["method"])]
    return result(found, samples=samples, examples=int(own["examples"]), method=method)


def pool(results: Sequence[NoiseResult]) -> NoiseResult:
    """One noise scale over neighbouring moments: mean noise over mean signal, never a mean of ratios.

    Args:
        results: Results of one method; those without moments are left out.

    Returns:
        The result at their mean sample count, with the narrower interval of all their examples.

    Raises:
        InvalidValueError: If no result has moments, or the methods differ.

    Assumes:
        Errors independent from moment to moment, and one noise scale for all of them.
    """
    usable = [r for r in results if r.moments is not None]
    if not usable or len({r.method for r in usable}) > 1:
        raise InvalidValueError(must("results", "measured, by one method", [r.method for r in results]))
    parts = [r.moments for r in usable if r.moments is not None]
    return result(
        _mean_moments(parts),
        samples=round(mean(r.samples for r in usable)),
        examples=sum(r.examples for r in usable),
        method=usable[0].method,
    )


def _mean_moments(parts: list[Moments]) -> Moments:
    """Moments of the mean of independent measurements."""
    count, noise = len(parts), mean(p.noise for p in parts)
    return Moments(
        signal=mean(p.signal for p in parts),
        noise=noise,
        mean_factor=mean(p.mean_factor * p.noise for p in parts) / noise,
        floor=mean(p.floor for p in parts) / count,
        slope=mean(p.slope for p in parts) / count,
        noise_var=mean(p.noise_var for p in parts) / count,
        correlation=mean(p.correlation for p in parts),
        dof=sum(p.dof for p in parts),
    )


# -- measuring ---------------------------------------------------------------------------------------------


def measure_noise(
    objective: Objective,
    prepared: Prepared,
    config: RunConfig,
    *,
    samples: int,
    seed: int,
    examples: int = EXAMPLES,
) -> NoiseResult:
    """Measure the gradient noise scale at the objective's current weights, leaving no trace.

    Training examples are drawn at random, without replacement where their losses are a function of the weights
    alone, else (dropout, random transforms) with. Gradients are those of training mode, before clipping and weight
    decay, in the recipe's precision; norms are formed in at least float32 and added in float64.

    An *example* is one item of the training data. With weights the loss is Σwℓ/Σw; an example's share of the noise
    is then that of w(∇ℓ − G)/w̄, right to first order in 1/examples.

    Args:
        objective: Model and loss. Nothing of it is changed.
        prepared: The task it belongs to.
        config: The resolved run; its precision, and its batch size where examples affect each other.
        samples: Fresh examples seen so far; names the draw.
        seed: Names the draw.
        examples: Examples to measure, at least 32; more are used where batch norm needs 8 training batches.

    Returns:
        Signal, noise and their ratio with a 90 % interval, or a lower bound where the signal is not resolved.

    Raises:
        InvalidValueError: If ``examples`` is below 32.

    Assumes:
        Weights, and buffers in front of every forward pass, as they are now.

    Source:
        mccandlish2018, appendix A.
    """
    if examples < 32:
        raise InvalidValueError(must("examples", "at least 32", examples))
    own = Objective(objective.task, copy.deepcopy(objective.module))
    if not objective.training:
        own.train()
    with _random.seeded(seed, "noise", samples):
        probe = _Probe(own, prepared, config, samples, seed)
        return probe.measure(examples)


@dataclass(frozen=True)
class _Probe:
    """One measurement on a private copy of the objective."""

    objective: Objective
    prepared: Prepared
    config: RunConfig
    samples: int
    seed: int
    like: Tensor = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "like", next(iter(_per_example.trainable(self.objective).values())))

    def measure(self, examples: int) -> NoiseResult:
        """Draw, take gradients, and bound the ratio."""
        few = self.batch(self.draw(8, distinct=True))
        if coupled(self.objective, few):
            return self.separate(examples)
        random = not self.prepared.train.in_memory or _is_random(self.objective, few)
        blocks, block = self.sizes(examples if random else min(examples, self.prepared.examples))
        index = self.draw(blocks * block, distinct=not random)
        form = _form(self.objective, few)
        parts = [self.gradients(part, block, form) for part in self.chunks(index, block)]
        rows, squares, weights = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return self.conclude(rows, squares, weights, None if random else self.prepared.examples, form)

    def separate(self, examples: int) -> NoiseResult:
        """Batches as training takes them, each on its own, where examples affect each other."""
        ...
