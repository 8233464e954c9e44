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

from batchlab import schedules
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult
from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.measure.noise import NoiseResult, result
from batchlab.rules import is_sgd_family
from batchlab.stats import Sample, mean_estimate, paired_log_ratio
from batchlab.types import Estimate, Status

SCALINGS = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
"""Power p of the learning rate η·kᵖ."""
PLACES, EARLIEST = 5, 0.01
"""Checkpoints, and the share of the training at which the first lies."""
WINDOW, LAST = 0.2, 0.5
"""Length of a branch as a share of the training, and the share of it by which it is judged."""
EVALUATIONS = 16
LEAST_UPDATES = 8
"""Updates of the largest batch in a branch: fewer would tell of the change, not of the size."""
LARGEST_FACTOR = 64
MARGIN = 0.01


@dataclass(frozen=True)
class Branching:
    """What is trained.

    Attributes:
        baseline: The recipe; its batch size is one number.
        places: Samples of the trunk at which branches leave it, whole batches, ascending.
        factors: Batch sizes of the branches beside k = 1, in multiples of the recipe's, ascending.
        window: Samples of every branch, a whole number of batches of each size.
        power: p of the learning rate η·kᵖ.
        seeds: One trunk each.

    Example:
        >>> run = RunConfig(rule="sgd", batch_size=4, learning_rate=0.1, samples=400)
        >>> plan = Branching(run.resolved(100), (40, 80), (2, 4), 128, 1.0, (0, 1))
        >>> plan.config(4, seed=1).learning_rate, plan.moments(40)[:3]
        (0.4, (40, 56, 72))
    """

    baseline: RunConfig
    places: tuple[int, ...]
    factors: tuple[int, ...]
    window: int
    power: float
    seeds: tuple[int, ...]

    @property
    def batch_size(self) -> int:
        """Today's batch size, examples."""
        assert isinstance(self.baseline.batch_size, int)
        return self.baseline.batch_size

    def config(self, factor: int, seed: int) -> RunConfig:
        """A branch, or with factor 1 the trunk: k times the batch, kᵖ times the learning rate."""
        assert self.baseline.learning_rate is not None
        return self.baseline.replace(
            batch_size=factor * self.batch_size,
            learning_rate=self.baseline.learning_rate * factor**self.power,
            seed=seed,
        )

    def moments(self, place: int) -> tuple[int, ...]:
        """Sample counts of evaluations: those that branches of every size pass exactly."""
        unit = _unit(self.batch_size, self.factors)
        units = self.window // unit
        steps = min(EVALUATIONS, units)
        return tuple(place + unit * round(i * units / steps) for i in range(steps + 1))

    def job(self, place: int) -> Job:
        """What every branch from a place does."""
        return Job(self.moments(place), until=place + self.window)

    def judged(self, run: RunResult, place: int, name: str) -> float:
        """Mean of a loss over the second half of a branch; NaN if it diverged."""
        series = run.series.get(name)
        if run.status is Status.DIVERGED or series is None:
            return math.nan
        late = series.samples > place + (1 - LAST) * self.window
        return float(series.values[late].mean())


def plan_branching(
    baseline: RunConfig,
    examples: int,
    *,
    at: Sequence[str | int] | None = None,
    factors: Sequence[int] | None = None,
    window: str | int | None = None,
    scaling: str | None = None,
    seeds: int = 5,
    seed: int = 0,
) -> Branching:
    """Where branches leave the trunk, how large their batches are, and how long they are.

    Args:
        baseline: A resolved run whose batch size is one number.
        examples: Training examples N.
        at: Places, such as ``"10%"`` of the training, ``"2ep"`` or samples; five on a logarithmic
            scale from 1 % on if left out. Each is moved to the next whole batch.
        factors: Multiples of the batch size, 2 or more; powers of two up to 64 if left out, as far
            as a batch has at most N examples and a branch 8 updates.
        window: Length of a branch; a fifth of the training if left out, at least 8 updates of the
            largest batch. Made longer until every size divides it.
        scaling: A name in :data:`SCALINGS`; by the rule if left out, see :func:`scaling_of`.
        seeds: Trunks, at least 2.
        seed: The first seed.

    Returns:
        The plan; no branch goes beyond the end of the training.

    Raises:
        InvalidValueError: If something is impossible; the message names it.

    Example:
        >>> run = RunConfig(rule="sgd", batch_size=32, learning_rate=0.1, samples="20ep")
        >>> plan = plan_branching(run.resolved(1000), 1000)
        >>> plan.places, plan.factors, plan.window
        ((192, 608, 1792, 5312, 15904), (2, 4, 8), 4096)
    """
    for name, value, least in (("seeds", seeds, 2), ("seed", seed, 0)):
        if value < least:
            raise InvalidValueError(must(name, f"a whole number, {least} or more", value))
    power = SCALINGS[scaling_of(baseline.rule or "", scaling)]
    assert isinstance(baseline.samples, int)
    assert isinstance(baseline.batch_size, int)
    batch, length = baseline.batch_size, _Length(baseline.samples, examples)
    wanted = length.of(window, "window") if window is not None else round(WINDOW * length.samples)
    sizes = _factors(factors, batch, examples, wanted)
    if window is None:
        wanted = max(wanted, LEAST_UPDATES * sizes[-1] * batch)
    whole = _whole_window(wanted, batch, sizes, length.samples)
    places = _places(at, length, batch, length.samples - whole)
    return Branching(baseline, places, sizes, whole, power, tuple(range(seed, seed + seeds)))


def scaling_of(rule: str, scaling: str | None = None) -> str:
    """How the learning rate follows the batch size: as asked for, else by the rule.

    *linear* for the SGD family: k times the batch at k times the rate moves the weights as far an
    example, and with as much noise an example. *sqrt* for rules that divide by the root of a
    second moment, such as Adam: their step hardly changes with the size of the gradient, so its
    noise grows with η²/B. Momentum, β₂ and ε stay as they are.

    Args:
        rule: A name in :data:`batchlab.rules.RULES`.
        scaling: A name in :data:`SCALINGS`, or None.

    Raises:
        InvalidValueError: If there is no such scaling.

    Source:
        goyal2017 (linear), malladi2022 (square root), merrill2025 (branches use both so).

    Example:
        >>> scaling_of("shb"), scaling_of("adamw"), scaling_of("adamw", "none")
        ('linear', 'sqrt', 'none')
    """
    chosen = scaling or ("linear" if is_sgd_family(rule) else "sqrt")
    if chosen not in SCALINGS:
        raise InvalidValueError(must("scaling", f"one of {', '.join(SCALINGS)}", chosen))
    return chosen


@dataclass(frozen=True)
class _Length:
    """Reads lengths as shares of a training or as samples."""

    samples: int
    examples: int

    def of(self, text: str | int, name: str) -> int:
        """Samples."""
        words = str(text).strip()
        if words.endswith("%"):
            try:
                share = float(words[:-1]) / 100
            except ValueError:
                share = math.nan
            if not 0 < share <= 1:
                raise InvalidValueError(must(name, "a share of the training such as 10%", text))
            return max(1, round(share * self.samples))
        count = int(words) if words.isdecimal() else words
        return schedules.amount(count, examples=self.examples, name=name)


def _factors(
    asked: Sequence[int] | None, batch: int, examples: int, window: int
) -> tuple[int, ...]:
    """The multiples of the batch size, checked."""
    if asked is None:
        most = min(examples, max(window // LEAST_UPDATES, 2 * batch)) // batch
        powers = [2**i for i in range(1, LARGEST_FACTOR.bit_length()) if 2**i <= most]
        if not powers:
            raise InvalidValueError(
                must("batch_size", f"at most half of the {examples} training examples", batch)
            )
        return tuple(powers)
    for factor in asked or [0]:
        most = examples // batch
        if not 2 <= factor <= most:
            hint = f"A batch has {factor * batch} of {examples} training examples then."
            raise InvalidValueError(
                must("factors", f"whole numbers from 2 to {most}", factor, hint if factor else "")
            )
    return tuple(sorted(set(asked)))


def _unit(batch: int, factors: Sequence[int]) -> int:
    """Samples that are whole batches of every size."""
    return batch * math.lcm(*factors)


def _whole_window(wanted: int, batch: int, factors: Sequence[int], samples: int) -> int:
    """The next length that is whole batches of every size, inside the training."""
    unit, least = _unit(batch, factors), LEAST_UPDATES * factors[-1] * batch
    whole = unit * math.ceil(wanted / unit)
    if wanted < least:
        hint = f"These are {LEAST_UPDATES} updates of the largest batch, {factors[-1] * batch}."
        raise InvalidValueError(must("window", f"at least {least} samples", wanted, hint))
    if whole > samples - batch:
        hint = f"Batches of up to {factors[-1] * batch} need {whole}."
        raise InvalidValueError(
            must(
                "window",
                f"at most the {samples - batch} samples after the first batch",
                wanted,
                hint,
            )
        )
    return whole


def _places(
    asked: Sequence[str | int] | None, length: _Length, batch: int, last: int
) -> tuple[int, ...]:
    """Whole batches, ascending; from the last on a branch would outlast the training."""
    if asked is None:
        first = max(batch, EARLIEST * length.samples)
        ratio = max(1.0, last / first) ** (1 / (PLACES - 1))
        whole = {max(1, round(first * ratio**i / batch)) for i in range(PLACES)}
        return tuple(sorted(batch * min(batches, last // batch) for batches in whole))
    found = sorted({math.ceil(length.of(text, "at") / batch) * batch for text in asked})
    if not found or found[-1] > last:
        words = f"places up to {last // batch * batch} samples"
        hint = "The window after it must end with the training."
        raise InvalidValueError(must("at", words, list(asked), hint))
    return tuple(found)


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
        branches: The sizes that were tried, ascending.
        noise: The noise scale at the same weights, over all seeds; None where not measured.
        ratio: Critical batch size / noise scale; None where either is not known.
    """

    samples: int
    loss: Estimate
    critical: Estimate
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
        TaskError: If a loss is not above 0, or fewer than two seeds of k = 1 did not diverge.
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
    wide = [excess(losses[1], losses[factor], level=_BOTH) for factor in plan.factors]
    found, both = (
        critical_batch(plan.batch_size, plan.factors, excesses, margin)
        for excesses in ([one.excess for one in branches], wide)
    )
    ended = losses[1][np.isfinite(losses[1])]
    loss = mean_estimate(ended, source="validation loss of today's batch size")
    made = CriticalPoint(place, loss, found, branches, noise, None)
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
        raise TaskError(
            f"Today's settings diverged after sample {place} in all trainings but {ended}: "
            "there is nothing to compare with."
        )


_BOTH = 0.95
"""Coverage of two intervals that hold together in 90 % of cases at least."""


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
    first is not; the upper end the smallest that is shown above, infinite if none is. Between, the
    excess is interpolated over log k, from 0 at k = 1, to where it first meets the margin.

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
        most.

    Source:
        merrill2025, section 3, where single runs are compared.

    Example:
        >>> seen = [Estimate(e, e - 0.004, e + 0.004, 5) for e in (0.001, 0.005, 0.015)]
        >>> found = critical_batch(32, (2, 4, 8), seen, margin=0.01)
        >>> round(found.value, 3), found.low, found.high
        (181.019, 128.0, 256.0)
    """
    check_margin(margin)
    within = itertools.takewhile(
        lambda pair: pair[1].high <= margin, zip(factors, excesses, strict=True)
    )
    low = max((k for k, _ in within), default=1)
    above = (k for k, e in zip(factors, excesses, strict=True) if e.low > margin)
    high = next(above, math.inf)
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
    """The batch schedule that follows: at each place the largest size shown within the margin.

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
        size, low = steps[-1][1], int(one.critical.low)
        new = max(size, low) if size < one.critical.high else low
        if new != size:
            steps.append((one.samples, new))
    return " ".join(f"{start}:{size}" for start, size in steps) if steps[1:] else str(batch_size)
