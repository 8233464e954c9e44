"""The critical batch size by branching: up to which size as many examples still teach as much.

From a checkpoint of one run, branches go on over the same examples with k times the batch and a
learning rate scaled to it. The critical batch size there is the largest whose loss afterwards is
that of k = 1 within a margin.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchlab.engine import RunResult
from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.measure._branching import SCALINGS, Branching, plan_branching, scaling_of
from batchlab.measure.noise import NoiseResult, result
from batchlab.stats import Sample, mean_estimate, paired_log_ratio
from batchlab.types import Estimate

__all__ = [
    "MARGIN",
    "SCALINGS",
    "Branch",
    "Branching",
    "CriticalPoint",
    "DivergedError",
    "check_margin",
    "critical_batch",
    "excess",
    "growing",
    "plan_branching",
    "point",
    "ratio",
    "scaling_of",
]

MARGIN = 0.01
_BOTH = 0.95
"""Coverage of two intervals that hold together in 90 % of cases at least."""


class DivergedError(TaskError):
    """From some place on today's settings diverge, so that there is nothing to compare with."""


@dataclass(frozen=True)
class Branch:
    """One batch size at one place.

    Attributes:
        factor: k.
        batch_size: Examples.
        learning_rate: Peak step size.
        excess: Lₖ/L₁ − 1 of the validation loss, paired by seed; a ratio.
        train_excess: The same of the training loss, as the batches met it. A larger batch meets
            its examples with older weights, so this judges nothing while the loss falls.
        failed: Seeds in which it diverged.
    """

    factor: int
    batch_size: int
    learning_rate: float
    excess: Estimate
    train_excess: Estimate
    failed: int


@dataclass(frozen=True)
class CriticalPoint:
    """The critical batch size at one place.

    Attributes:
        samples: Examples seen before it.
        loss: Validation loss of k = 1 after the window.
        critical: In examples, see :func:`critical_batch`.
        together: The lower end of ``critical`` when every place of the plan is asked: that of
            ranges with coverage 1 − 0.1/places, so that the largest of them, and a schedule made
            of them, is too large in 5 % of cases at most.
        branches: The sizes that were tried, ascending.
        noise: The noise scale at the same weights, over all seeds; None where not measured.
        ratio: Critical batch size / noise scale; None where either is not known.
    """

    samples: int
    loss: Estimate
    critical: Estimate
    together: float
    branches: tuple[Branch, ...]
    noise: NoiseResult | None
    ratio: Estimate | None

    @property
    def resolved(self) -> bool:
        """Whether an end of the interval was measured: a size within the margin, or one above."""
        first = self.branches[0]
        known = first.batch_size // first.factor, math.inf
        return (self.critical.low, self.critical.high) != known


def point(
    plan: Branching,
    place: int,
    runs: Mapping[int, Sequence[RunResult]],
    noise: NoiseResult | None,
    margin: float = MARGIN,
) -> CriticalPoint:
    """Judge the branches from one place.

    Args:
        plan: What was trained.
        place: Samples.
        runs: Factor → runs of the same seeds in the same order; 1 is among them.
        noise: The noise scale there, or None.
        margin: Largest excess of the loss that counts as equal.

    Raises:
        TaskError: If a loss is not above 0.
        DivergedError: If fewer than two seeds of k = 1 did not diverge.
    """
    losses = _losses(plan, place, runs, "loss")
    trained = _losses(plan, place, runs, "train_loss")
    _check(losses, place)
    branches = tuple(
        Branch(
            factor,
            factor * plan.batch_size,
            plan.config(factor, 0).learning_rate or 0.0,
            excess(losses[1], losses[factor]),
            _train_excess(trained[1], trained[factor]),
            int(np.isnan(losses[factor]).sum()),
        )
        for factor in plan.factors
    )
    wider = (
        [excess(losses[1], losses[factor], level) for factor in plan.factors]
        for level in (_BOTH, 1 - 0.1 / len(plan.places))
    )
    found, both, every = (
        critical_batch(plan.batch_size, plan.factors, excesses, margin)
        for excesses in ([one.excess for one in branches], *wider)
    )
    ended = losses[1][np.isfinite(losses[1])]
    loss = mean_estimate(ended, source="validation loss of today's batch size")
    made = CriticalPoint(place, loss, found, every.low, branches, noise, None)
    return replace(made, ratio=ratio(found, both, noise)) if made.resolved else made


def _check(losses: Mapping[int, np.ndarray], place: int) -> None:
    """Losses that can be compared as ratios, in two pairs at least."""
    lowest = min(np.nanmin(some, initial=math.inf) for some in losses.values())
    if not lowest > 0:
        raise TaskError(
            f"Losses are compared as ratios and must be above 0; one after sample {place} is "
            f"{lowest:.3g}."
        )
    ended = int(np.isfinite(losses[1]).sum())
    if ended < 2:
        raise DivergedError(
            f"Today's settings diverged after sample {place} in all trainings but {ended}: "
            "there is nothing to compare with."
        )


def _losses(
    plan: Branching, place: int, runs: Mapping[int, Sequence[RunResult]], name: str
) -> dict[int, np.ndarray]:
    """Factor → one loss a seed."""
    return {
        factor: np.array([plan.judged(run, place, name) for run in some])
        for factor, some in runs.items()
    }


def excess(base: Sample, other: Sample, level: float = 0.9) -> Estimate:
    """By what share a loss exceeds another, over pairs that share a seed.

    Lₖ/L₁ − 1 from the mean of log Lₖ/L₁ over seeds ± t·s/√n; where a branch diverged, from the
    median with its interval of order statistics.

    Args:
        base: L₁ of each seed, above 0; a seed in which it diverged (NaN) is left out. Shape
            ``[n]``.
        other: Lₖ, NaN where the branch diverged. Shape ``[n]``.
        level: Coverage.

    Returns:
        The ratio less 1; infinite where half of the branches diverged. With fewer than five seeds
        of which one diverged, the interval is open.

    Example:
        >>> print(excess(np.array([1.0, 2.0, 1.0]), np.array([1.1, 2.2, 1.1])))
        0.1 (0.1 to 0.1, n = 3)
    """
    kept = np.isfinite(base)
    diverged = np.where(np.isnan(other), np.inf, other)
    found = paired_log_ratio(diverged[kept], base[kept], level=level).estimate
    value, low, high = (end - 1 for end in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.n, "", "branches, paired by seed", level)


def _train_excess(base: Sample, other: Sample) -> Estimate:
    """The same of training losses, NaN where one is 0, as of a net that fits every example."""
    if (base <= 0).any() or (other <= 0).any() or not np.isfinite(base).any():
        return Estimate(math.nan, math.nan, math.nan, len(base))
    return excess(base, other)


def critical_batch(
    batch_size: int, factors: Sequence[int], excesses: Sequence[Estimate], margin: float = MARGIN
) -> Estimate:
    """The largest batch whose loss exceeds that of k = 1 by no more than a margin.

    *Shown within*: the whole interval of the excess lies at or below the margin; *shown above*: it
    lies above. The lower end is the largest size up to which all are shown within, today's if the
    first is not; the upper end the smallest from which on all are shown above, infinite if the
    largest is not. Between, the excess is interpolated over log k, from 0 at k = 1, to where it
    first meets the margin.

    The margin is relative, 1 % unless told otherwise, because the loss has no scale of its own: of
    a loss of 2.6 it is 0.026, about the differences that are acted upon.

    Args:
        batch_size: Examples of k = 1.
        factors: k, ascending, all above 1.
        excesses: Of each, as :func:`excess` gives it.
        margin: Largest excess that counts as equal, above 0.

    Returns:
        In examples. An infinite value: no size met the margin. The range from ``batch_size`` to
        infinity: not resolved.

    Raises:
        InvalidValueError: If the margin is not above 0.

    Assumes:
        An excess that rises with k: then each end is wrong in about (1 − level)/2 of cases at
        most, because sizes are asked in a fixed order, from the smallest for the lower end, from
        the largest for the upper, until one is not shown. The smallest of all that are shown
        above would be wrong more often the more sizes are tried.

    Source:
        merrill2025, section 3, where single runs are compared.

    Example:
        >>> seen = [Estimate(e, e - 0.004, e + 0.004, 5) for e in (0.001, 0.005, 0.015)]
        >>> found = critical_batch(32, (2, 4, 8), seen, margin=0.01)
        >>> round(found.value, 3), found.low, found.high
        (181.019, 128.0, 256.0)
    """
    check_margin(margin)
    sizes = list(zip(factors, excesses, strict=True))
    within = itertools.takewhile(lambda pair: pair[1].high <= margin, sizes)
    above = itertools.takewhile(lambda pair: pair[1].low > margin, reversed(sizes))
    low = max((k for k, _ in within), default=1)
    high = min((k for k, _ in above), default=math.inf)
    value = _crossing((1, *factors), (0.0, *(e.value for e in excesses)), margin)
    n, level = min(e.n for e in excesses), excesses[0].level
    value, low, high = (batch_size * float(k) for k in (value, low, high))
    return Estimate(value, low, high, n, "examples", "branches, paired by seed", level)


def check_margin(margin: float) -> None:
    """Refuse a margin that is none."""
    if not 0 < margin < math.inf:
        raise InvalidValueError(must("margin", "a share above 0, such as 0.01", margin))


def _crossing(factors: Sequence[int], values: Sequence[float], margin: float) -> float:
    """Where the excess first meets the margin, in a straight line over log k."""
    points = list(zip(factors, values, strict=True))
    for (k, below), (larger, beyond) in itertools.pairwise(points):
        if not beyond <= margin:
            share = (margin - below) / (beyond - below) if math.isfinite(beyond) else 0.0
            return k * (larger / k) ** share
    return math.inf


def ratio(critical: Estimate, wide: Estimate, noise: NoiseResult | None) -> Estimate | None:
    """A critical batch size over the noise scale at the same place.

    The ends are those of two 95 % intervals, which hold together in at least 90 % of cases.

    Args:
        critical: As :func:`critical_batch` gives it.
        wide: The same at 95 %.
        noise: The noise scale, or None.

    Returns:
        The ratio, NaN where the noise scale has a lower bound only; None where nothing is known.

    Example:
        >>> found = Estimate(64.0, 32.0, 128.0, 5)
        >>> ratio(found, found, None) is None
        True
    """
    if noise is None or noise.moments is None:
        return None
    about = {"samples": noise.samples, "examples": noise.examples, "method": noise.method}
    scale = result(noise.moments, **about, level=_BOTH)
    least, most = scale.at_least or 0.0, math.inf
    if scale.scale is not None:
        least, most = scale.scale.low, scale.scale.high
    value = math.nan if noise.scale is None else critical.value / noise.scale.value
    high = wide.high / least if least else math.inf
    return Estimate(value, wide.low / most, high, critical.n, "", "branches and gradients")


def growing(points: Sequence[CriticalPoint], batch_size: int) -> str:
    """The batch schedule that follows: at each place the largest size shown within the margin,
    all places taken together.

    A size once reached is kept until it is shown to be too large.

    Args:
        points: Places, ascending.
        batch_size: Today's, with which the training begins.

    Returns:
        Text that :func:`batchlab.schedules.batch_schedule` reads; to be trained with
        ``rate_growth`` = p, so that the learning rate follows.
    """
    steps = [(0, batch_size)]
    for one in points:
        size, low = steps[-1][1], int(one.together)
        new = max(size, low) if size < one.critical.high else low
        if new != size:
            steps.append((one.samples, new))
    return " ".join(f"{start}:{size}" for start, size in steps) if steps[1:] else str(batch_size)
