"""Batches that grow, as fixed schedules: each rule for growing, resolved from measurements.

A batch begins small and is multiplied by δ at certain points of a training. Rules that react, to
the noise, to the gradient, to a plateau, would make a training depend on what it meets; a plan has
to be known before it runs, so that it can be resumed and repeated. Each rule is therefore read off
one finished run of today's settings and becomes a schedule like any other. What the batch itself
changes on the way (a growing batch lowers the noise in the weights, not the noise scale's
estimator) is not read again.

Positions are shares of a training; :func:`written` turns them into epochs, in which a schedule
also fits a longer training on more data.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from statistics import median_low
from typing import NamedTuple, TypeAlias

from batchlab.advisor.decision import not_separated
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, ValidityWarning, must
from batchlab.measure.smoothness import plan_of
from batchlab.theory.growing import RULES, Bound, Problem, evaluated, sums
from batchlab.types import Estimate

FACTOR, FAST_FACTOR = 2, 4
"""δ: the batch is multiplied by it at each step."""
THETA = 0.9
"""θ of the gradient-norm test."""
PATIENCE = 0.1
"""Share of a training within which the validation loss must fall, or the batch grows."""
POWERS = (0.0, 0.5, 1.0)
"""The learning rate of a step: kept, by the root, linear."""
DIGITS = 3
"""Significant digits of a position in epochs."""

Sizes: TypeAlias = tuple[int, ...]
"""Batch sizes, ascending."""


class Point(NamedTuple):
    """A measurement along a run.

    Attributes:
        share: Of the training that is behind, in [0, 1].
        value: What was measured.
    """

    share: float
    value: float


class Rise(NamedTuple):
    """From this share of a training on, this batch size."""

    share: float
    size: int


Steps: TypeAlias = tuple[Rise, ...]
"""A plan for growing: shares rising from 0, sizes rising."""


def first_size(falls: Mapping[int, Estimate]) -> int | None:
    """The small useful batch: the smallest that the search cannot tell from the best in samples.

    Its samples for an equal fall of the loss are not above the best's by more than their ranges.

    Args:
        falls: Batch size → samples for an equal fall of the loss, of any unit, less is better.

    Returns:
        Examples, or None where no size learnt.

    Example:
        >>> first_size({8: Estimate(90, 80, 105, 3), 32: Estimate(100, 95, 110, 3)})
        8
    """
    known = {str(size): fall for size, fall in falls.items() if math.isfinite(fall.value)}
    if not known:
        return None
    return min(int(size) for size in not_separated(known, len(known)))


def ladder(first: int, cap: int, factor: int = FACTOR) -> Sizes:
    """b₀, δb₀, δ²b₀, … as far as the cap.

    Args:
        first: b₀, examples, at least 1.
        cap: Largest batch size, examples.
        factor: δ, at least 2.

    Raises:
        InvalidValueError: If there is no rising ladder to speak of.

    Example:
        >>> ladder(8, cap=100)
        (8, 16, 32, 64)
    """
    if first < 1 or factor < 2:
        raise InvalidValueError(must("first and factor", "at least 1 and 2", (first, factor)))
    rungs = max(0, math.floor(math.log(max(cap, first) / first, factor) + 1e-9))
    return tuple(first * factor**k for k in range(rungs + 1))


def at_fixed_progress(sizes: Sizes) -> Steps:
    """Every size for an equal share of the training.

    Source:
        kamo2025: 8 doubled every 20 of 200 epochs.

    Example:
        >>> at_fixed_progress((8, 16))
        (Rise(share=0.0, size=8), Rise(share=0.5, size=16))
    """
    return tuple(Rise(i / len(sizes), size) for i, size in enumerate(sizes))


def steadied(scales: Sequence[Point], last: int = 3) -> tuple[Point, ...]:
    """The median of the last three measurements, of two the lower: a batch never shrinks again, so
    no single measurement may let it grow.

    Args:
        scales: Measurements along a run.
        last: How many of them the median is taken of.

    Returns:
        From the second measurement on; none of a single one.

    Example:
        >>> [point.value for point in steadied([Point(0.1 * i, v) for i, v in
        ...     enumerate((9.0, 900.0, 8.0, 11.0))])]
        [9.0, 9.0, 11.0]
    """
    seen = [(at, scales[max(0, i + 1 - last) : i + 1]) for i, (at, _) in enumerate(scales)]
    return tuple(Point(at, median_low(one.value for one in few)) for at, few in seen[1:])


def by_noise_scale(sizes: Sizes, scales: Sequence[Point]) -> Steps:
    """Grow to a size where the noise scale first reaches it: b ≤ tr Σ/‖G‖² throughout.

    Args:
        sizes: The ladder.
        scales: tr Σ/‖G‖² along the training, examples.

    Source:
        mccandlish2018.

    Example:
        >>> by_noise_scale((8, 16, 32), [Point(0.2, 9.0), Point(0.5, 40.0)])[1:]
        (Rise(share=0.5, size=32),)
    """
    reached = [
        Rise(at, max((size for size in sizes if size <= scale), default=sizes[0]))
        for at, scale in scales
    ]
    return _rising(sizes[0], reached)


def by_gradient_norm(sizes: Sizes, scales: Sequence[Point], theta: float = THETA) -> Steps:
    """Grow as soon as a batch fails the test E‖g_B − G‖² ≤ θ²‖G‖².

    The variance of a batch's gradient is tr Σ/B, so the test is B ≥ (tr Σ/‖G‖²)/θ²: the noise
    scale again, over θ². The smallest size that passes is taken.

    Args:
        sizes: The ladder.
        scales: tr Σ/‖G‖² along the training, examples.
        theta: θ, above 0.

    Source:
        byrd2012, equation 3.3 with the exact norm for the sample's; bollapragada2018.

    Example:
        >>> by_gradient_norm((8, 16, 32), [Point(0.2, 9.0)], theta=1.0)[1:]
        (Rise(share=0.2, size=16),)
    """
    passing = [
        Rise(at, min((size for size in sizes if size >= scale / theta**2), default=sizes[-1]))
        for at, scale in scales
    ]
    return _rising(sizes[0], passing)


def _rising(first: int, wanted: Sequence[Rise]) -> Steps:
    """The largest size wanted so far: a batch never shrinks."""
    steps = [Rise(0.0, first)]
    for rise in wanted:
        if rise.size > steps[-1].size and rise.share > 0:
            steps.append(rise)
    return tuple(steps)


def at_plateaus(sizes: Sizes, losses: Sequence[Point], patience: float = PATIENCE) -> Steps:
    """Grow by one step whenever the validation loss has not fallen below its best for so long.

    Args:
        sizes: The ladder.
        losses: Validation loss along the training.
        patience: Share of the training; after a step it is counted anew.

    Source:
        devarakonda2017, smith2018: grow where one would have lowered the rate.

    Example:
        >>> flat = [Point(0.1 * i, 1.0) for i in range(6)]
        >>> [rise.size for rise in at_plateaus((8, 16, 32), flat, patience=0.2)]
        [8, 16, 32]
    """
    steps, best, since = [Rise(0.0, sizes[0])], math.inf, 0.0
    for share, loss in losses:
        if loss < best:
            best, since = loss, share
        elif share - since >= patience - 1e-9 and len(steps) < len(sizes):
            steps.append(Rise(share, sizes[len(steps)]))
            since = share
    return tuple(steps)


def rules_for(
    first: int,
    cap: int,
    scales: Sequence[Point] = (),
    losses: Sequence[Point] = (),
    patience: float = PATIENCE,
) -> dict[str, Steps]:
    """Every rule as a fixed plan.

    Args:
        first: b₀, examples.
        cap: Largest batch size, examples.
        scales: Noise scale along a run of today's settings; read as :func:`steadied`.
        losses: Validation loss along it.
        patience: Share of a training.

    Returns:
        Rule → its steps; a rule that would not grow within the training is left out.
    """
    sizes, steady = ladder(first, cap), steadied(scales)
    found = {
        "fixed ×2": at_fixed_progress(sizes),
        "fixed ×4": at_fixed_progress(ladder(first, cap, FAST_FACTOR)),
        "noise scale": by_noise_scale(sizes, steady),
        "gradient norm": by_gradient_norm(sizes, steady),
        "plateau": at_plateaus(sizes, losses, patience),
    }
    return {rule: steps for rule, steps in found.items() if any(0 < s.share < 1 for s in steps)}


def lemma_prefers(problem: Problem, config: RunConfig, examples: int) -> float | None:
    """The growth of the learning rate with the smallest bound of min E‖∇f‖².

    Args:
        problem: L, σ² and Δ.
        config: A resolved run whose batch grows; its own growth of the rate does not matter.
        examples: Training examples N.

    Returns:
        A power of :data:`POWERS`, of those whose rates are within the proof; None where none is,
        or for a rule or a loop for which nothing is proved.

    Assumes:
        A bound ranks guarantees, not trainings.

    Source:
        kamo2025, lemma; umeda2024 for a rate that grows.

    Example:
        >>> config = RunConfig(rule="sgd", batch_size="0:8 2ep:64", learning_rate=0.01)
        >>> config = config.replace(samples=4000).resolved(examples=1000)
        >>> lemma_prefers(Problem(smoothness=1.0, noise=1.0, gap=1.0), config, examples=1000)
        1.0
    """
    if config.rule not in RULES or config.reuse != 1 or config.clip_norm is not None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ValidityWarning)  # what is not proved is left out
        bounds = {p: _bound(problem, config.replace(rate_growth=p), examples) for p in POWERS}
    proved = {power: bound.value for power, bound in bounds.items() if bound.proved}
    return min(proved, key=lambda power: proved[power], default=None)


def _bound(problem: Problem, config: RunConfig, examples: int) -> Bound:
    """The lemma's right-hand side."""
    assert isinstance(config.samples, int)
    return evaluated(problem, sums(plan_of(config, examples), config.samples))


def written(steps: Steps, samples: int, examples: int) -> str:
    """A plan as the text of a schedule, for a training of so many samples.

    Args:
        steps: From :func:`rules_for`.
        samples: Budget.
        examples: Training examples N: positions are in epochs, to three digits.

    Returns:
        Text that :func:`batchlab.schedules.batch_schedule` reads; of steps that fall on one sample
        the last is left.

    Example:
        >>> written(at_fixed_progress((8, 16, 32)), samples=2000, examples=100)
        '0:8 6.67ep:16 13.3ep:32'
    """
    found = {0: f"0:{steps[0].size}"}
    for share, size in steps[1:]:
        position = _epochs(max(1.0, share * samples) / examples)
        found[math.ceil(Fraction(position) * examples)] = f"{position}ep:{size}"
    return " ".join(found.values())


def _epochs(value: float) -> str:
    """A number of epochs as text, without an exponent."""
    return format(Decimal(f"{value:.{DIGITS}g}").normalize(), "f")
