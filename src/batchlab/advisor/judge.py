"""From curves and timed blocks to comparable numbers: seconds, money, samples, metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from batchlab.advisor.decision import choose, choose_accuracy
from batchlab.advisor.project import end_loss, equal_fall
from batchlab.advisor.record import Price
from batchlab.advisor.stages import (
    Choice,
    Curve,
    Grown,
    Machine,
    Pace,
    Projection,
    gamma_of,
    others_of,
    parts_of,
    size_and_reuse,
)
from batchlab.engine import evaluation_grid
from batchlab.measure.throughput import SOURCE
from batchlab.stats import (
    LogMean,
    Paired,
    Part,
    grid_log_var,
    half_width,
    paired_difference,
    paired_log_ratio,
    sum_of_parts,
    times_to_target,
)
from batchlab.types import Estimate, Status

UNKNOWN_LOG_SD = 0.1
"""Log-sd of seconds per update from a single block, whose spread is not known."""
LATE = 1.2
"""Times the samples of today's settings beyond which a setting would not arrive within the user's
training length. Less than that a short search does not tell."""
ONE_SAMPLE = np.ones(1)


class Timed(NamedTuple):
    """What blocks are timed of.

    Attributes:
        batch_size: Examples.
        wrapped: Whether the model had a γ that today's has not.
    """

    batch_size: int
    wrapped: bool


@dataclass(frozen=True)
class Yardstick:
    """Turns samples to the target into what is asked for, on one machine.

    A batch size may be a schedule: every sample then counts at the speed of the size it was drawn
    at, t(s) = Σᵢ sᵢ/Bᵢ · reuse · (seconds per update)ᵢ + s · reading, with sᵢ of the s samples
    drawn at size Bᵢ. Reading and computing wait for one another: times add up. Where a batch is
    used k times where today's is used ``reuse`` times, its loading λ counts as often as today:
    k · tᵢ − (k − reuse) · λᵢ for reuse · tᵢ. A setting with γ has seconds per update of its own,
    timed apart.

    Attributes:
        machine: Seconds per update.
        price: Or None.
        reuse: Updates per batch today.
        examples: Training examples, to which positions in epochs refer; None where there are none.
        reading: Seconds to read one fresh sample, beside what is timed.
    """

    machine: Machine
    price: Price | None
    reuse: int = 1
    examples: int | None = None
    reading: float = 0.0

    @property
    def computing(self) -> Yardstick:
        """The same where reading takes no time, as where batchlab trains."""
        return replace(self, reading=0.0)

    def measure(
        self, quantity: str, samples: Float[np.ndarray, " n"], pace: Pace
    ) -> Float[np.ndarray, " n"]:
        """Samples to target → seconds, cost or samples.

        Args:
            quantity: ``time``, ``cost`` or ``samples``.
            samples: Examples to the target per seed, infinite if never.
            pace: Examples per update, a schedule, or a setting with re-use of its own.

        Returns:
            The quantity per seed.
        """
        if quantity == "samples":
            return samples
        parts = self._parts(samples, pace)
        each = [part * self._of_sample(quantity, size, pace) for size, part in parts]
        return np.sum(each, axis=0)

    def updates(self, samples: Float[np.ndarray, " n"], pace: Pace) -> Float[np.ndarray, " n"]:
        """Updates that so many samples take."""
        parts, (_, reuse) = self._parts(samples, pace), size_and_reuse(pace, self.reuse)
        return np.sum([part / size * reuse for size, part in parts], axis=0)

    def _parts(
        self, samples: Float[np.ndarray, " n"], pace: Pace
    ) -> list[tuple[int, Float[np.ndarray, " n"]]]:
        return parts_of(size_and_reuse(pace, self.reuse)[0], samples, self.examples)

    def _of_sample(self, quantity: str, size: int, pace: Pace) -> float:
        """Seconds, or cost, of a sample that is drawn at this size."""
        seconds = self._computing(size, pace) + self.reading
        if quantity == "time":
            return seconds
        assert self.price is not None
        return seconds * self.price.per_hour / 3600 + self.price.per_sample

    def _computing(self, size: int, pace: Pace) -> float:
        """Seconds of computing a sample that is drawn at this size, its loading included."""
        wrapped = gamma_of(pace) is not None
        update, reuse = self.rate(size, wrapped).value, size_and_reuse(pace, self.reuse)[1]
        again = reuse - self.reuse
        spared = again * update * self.machine.loading(size, wrapped) if again else 0.0
        return (update * reuse - spared) / size

    def rate(self, batch_size: int, wrapped: bool = False) -> LogMean:
        """Seconds per update, of a model with γ or without."""
        found = self.machine.seconds(batch_size, wrapped)
        assert found is not None
        return found

    def slower(self, batch_size: int) -> Estimate | None:
        """Seconds of an update with a γ / without one; the interval is that of timing. None where
        not both were timed.
        """
        if not self.machine.wrapped:
            return None
        plain, wrapped = (self._known(Timed(batch_size, with_one)) for with_one in (False, True))
        half = half_width([Part(one.log_var, one.dof) for one in (plain, wrapped)], 0.9)
        value, n = wrapped.value / plain.value, 1 + int(min(plain.dof, wrapped.dof))
        return Estimate(value, value * math.exp(-half), value * math.exp(half), n, "", SOURCE)

    def seconds(self, samples: int, pace: Pace) -> Estimate:
        """Seconds of a training of so many samples alone; the interval is that of timing.

        Args:
            samples: Examples.
            pace: Examples per update, a schedule, or a setting with re-use of its own.

        Returns:
            n is the fewest timed blocks of a size; without a range where that is one.
        """
        known = np.array([float(samples)])
        value = float(self.measure("time", known, pace)[0])
        weights = self._weights("time", pace, known)
        blocks = [self.rate(*timed).dof + 1 for timed, weight in weights.items() if weight]
        n = int(min(blocks))
        half = half_width(self._parts_of_variance(weights), 0.9) if n > 1 else math.nan
        return Estimate(value, value * math.exp(-half), value * math.exp(half), n, "s", SOURCE)

    def spread(
        self, quantity: str, pace: Pace, samples: Float[np.ndarray, " n"] = ONE_SAMPLE
    ) -> tuple[float, float]:
        """Variance of the log quantity that comes from timing, and its degrees of freedom.

        Args:
            quantity: ``time``, ``cost`` or ``samples``.
            pace: Examples per update, a schedule, or a setting with re-use of its own.
            samples: Examples per seed, by which the steps of a schedule weigh.
        """
        return self._variance(self._weights(quantity, pace, samples))

    def _weights(
        self, quantity: str, pace: Pace, samples: Float[np.ndarray, " n"]
    ) -> dict[Timed, float]:
        """What is timed → d log quantity / d log seconds per update, at the median of the
        samples: the share of the quantity that is computing so.
        """
        if quantity == "samples":
            return {}
        reached = samples[np.isfinite(samples)]
        middle = np.array([np.median(reached)]) if reached.size else ONE_SAMPLE
        total = float(self.measure(quantity, middle, pace)[0])
        hourly = 1.0 if quantity == "time" or self.price is None else self.price.per_hour / 3600
        weights: dict[Timed, float] = {}
        for size, part in self._parts(middle, pace):
            timed = Timed(size, bool(self.machine.wrapped) and gamma_of(pace) is not None)
            taken = float(part[0]) * self._computing(size, pace) * hourly
            weights[timed] = weights.get(timed, 0.0) + (taken / total if total > 0 else 0.0)
        return weights

    def _variance(self, weights: Mapping[Timed, float]) -> tuple[float, float]:
        """Σ wᵢ² Var log(seconds per update)ᵢ, and its degrees of freedom."""
        return sum_of_parts(self._parts_of_variance(weights))

    def _parts_of_variance(self, weights: Mapping[Timed, float]) -> list[Part]:
        known = {timed: self._known(timed) for timed, weight in weights.items() if weight}
        return [Part(weights[timed] ** 2 * one.log_var, one.dof) for timed, one in known.items()]

    def _known(self, timed: Timed) -> LogMean:
        """Seconds per update; a single block is not taken for certain."""
        found = self.rate(*timed)
        return found if found.dof > 0 else found._replace(log_var=UNKNOWN_LOG_SD**2, dof=1.0)

    def compare(
        self,
        quantity: str,
        today: tuple[Float[np.ndarray, " n"], Pace],
        recommended: tuple[Float[np.ndarray, " n"], Pace],
        spacing: float = 0.0,
        other: Yardstick | None = None,
        level: float = 0.9,
    ) -> Paired:
        """Ratio today / recommended with its interval.

        Args:
            quantity: ``time``, ``cost`` or ``samples``.
            today: Samples to target per seed, and what decides how long they take.
            recommended: The same for the recommendation.
            spacing: Samples between two evaluations; 0 where the moments are interpolated.
            other: For the recommendation, where it was timed otherwise.
            level: Coverage of the range.

        Returns:
            The paired comparison.
        """
        (before, size), (after, new), other = today, recommended, other or self
        mine = self._weights(quantity, size, before)
        theirs = other._weights(quantity, new, after)
        # What both are timed by cancels in the ratio, all of it where both are one batch size and
        # one model.
        shared = {b: w - theirs.get(b, 0.0) for b, w in mine.items()}
        var, dof = self._variance(shared)
        other_var, other_dof = self._variance({b: w for b, w in theirs.items() if b not in mine})
        grid = (
            0.0 if spacing == 0 else sum(grid_log_var(side, spacing) for side in (before, after))
        )
        return paired_log_ratio(
            self.measure(quantity, before, size),
            other.measure(quantity, after, new),
            today_seconds_log_var=var,
            today_seconds_dof=dof,
            recommended_seconds_log_var=other_var,
            recommended_seconds_dof=other_dof,
            grid_log_var=grid if math.isfinite(grid) else 0.0,
            source="paired by seed",
            level=level,
        )


def against(
    curves: Sequence[Curve],
    rival: Sequence[Curve],
    yardstick: Yardstick,
    objective: str,
    target: float,
    maximise: bool,
    spacing: float = 0.0,
) -> Paired:
    """Runs of one setting against those of another on the same seeds.

    Args:
        curves: Of the setting.
        rival: Of the other, seed by seed in the same order.
        yardstick: The machine.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        target: Metric value that counts as trained.
        maximise: Direction of the metric.
        spacing: Samples between two evaluations.

    Returns:
        What the rival takes / what this takes, above 1 where this is better; for ``accuracy``
        this − the rival.
    """
    if objective == "accuracy":
        return paired_difference(final_metric(rival), final_metric(curves), maximise=maximise)
    theirs, mine = ((to_target(side, target, maximise), side[0].pace) for side in (rival, curves))
    return yardstick.compare(objective, theirs, mine, spacing)


def front(
    groups: Mapping[str, Sequence[Curve]],
    yardstick: Yardstick,
    objective: str,
    target: float,
    maximise: bool,
    changes: Mapping[str, int] | None = None,
) -> str:
    """The best of several settings on the seeds that choose.

    Args:
        groups: Name → its runs, the same seeds in the same order.
        yardstick: The machine.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        target: Metric value that counts as trained.
        maximise: Direction of the metric.
        changes: Name → settings in which it differs from today's.
    """
    if objective == "accuracy":
        return choose_accuracy({n: final_metric(runs) for n, runs in groups.items()}, maximise)
    times = {
        n: yardstick.measure(objective, to_target(runs, target, maximise), runs[0].pace)
        for n, runs in groups.items()
    }
    return choose(times, changes=changes)


def inverted(ratio: Estimate) -> Estimate:
    """A ratio the other way round.

    Example:
        >>> inverted(Estimate(2.0, 1.0, 4.0, 5)).high
        1.0
    """
    value, low, high = (
        math.inf if x == 0 else 1 / x for x in (ratio.value, ratio.high, ratio.low)
    )
    return replace(ratio, value=value, low=low, high=high)


def changed(choice: Choice, today: Choice) -> int:
    """Settings that differ from today's: 1 for the rate alone, 2 with the batch, 4 where it grows,
    and one for each other field.

    Example:
        >>> changed((64, 0.2), (32, 0.1)), changed((32, 0.2), (32, 0.1))
        (2, 1)
    """
    if isinstance(choice, Grown) and choice != today:
        return len(choice)
    return 1 + (choice[0] != today[0]) + len(others_of(choice))


def better(found: Estimate, objective: str, maximise: bool) -> bool:
    """Whether the whole range of a comparison by :func:`against` is on the better side."""
    if objective != "accuracy":
        return found.low > 1
    return found.low > 0 if maximise else found.high < 0


def to_target(curves: Sequence[Curve], target: float, maximise: bool) -> Float[np.ndarray, " n"]:
    """Samples to the target of each run, infinite if never."""
    return np.array(
        [
            times_to_target(
                np.array(c.samples, float), np.array(c.metric)[None], target, maximise
            )[0]
            for c in curves
        ]
    )


def final_metric(curves: Sequence[Curve]) -> Float[np.ndarray, " n"]:
    """Mean of the last three validation metrics of each run; NaN if it diverged."""
    return np.array([float(np.mean(c.metric[-3:])) for c in curves])


def meets(
    curves: Sequence[Curve], metric: str, maximise: bool, demands: Mapping[str, float]
) -> dict[str, bool]:
    """Every demand ``METRIC=VALUE``, and whether runs meet it in the mean, at their end.

    Args:
        curves: Runs of one setting; one that diverged meets nothing.
        metric: Name of the task's metric; besides it there is ``loss``.
        maximise: Direction of the metric.
        demands: Metric → least acceptable value, largest where less is better.

    Returns:
        Demand as text → whether it is met.
    """
    losses = np.array([end_loss(c) for c in curves])
    ends = {"loss": (float(losses.mean()), False)}
    ends[metric] = (float(final_metric(curves).mean()), maximise)
    return {
        f"{name}={least:g}": ends[name][0] >= least if ends[name][1] else ends[name][0] <= least
        for name, least in demands.items()
    }


def nearest(projection: Projection, today: Choice) -> tuple[Choice, ...]:
    """Where no candidate fell as far as today's settings in the search, the one that ended lowest.

    A search is short: beside today's on whole trainings it says whether the order holds.

    Args:
        projection: Stage B.
        today: Batch size and learning rate of today.

    Returns:
        That setting; nothing where every other one diverged.
    """
    ends: dict[Choice, list[float]] = {}
    last = max((curve.rung for curve in projection.curves), default=0)
    for curve in projection.curves:
        if curve.rung == last and curve.choice != today:
            ends.setdefault(curve.choice, []).append(end_loss(curve))
    known = {choice: float(np.mean(found)) for choice, found in ends.items()}
    learnt = {choice: loss for choice, loss in known.items() if math.isfinite(loss)}
    return (min(learnt, key=lambda choice: learnt[choice]),) if learnt else ()


def grid_spacing(examples: int, samples: int) -> float:
    """Samples between two evaluations of a whole run."""
    grid = evaluation_grid(examples, samples)
    return float(grid[1] - grid[0])


@dataclass(frozen=True)
class Projected:
    """One batch size after the search, against today's settings.

    Attributes:
        batch_size: Examples.
        learning_rate: Tuned.
        fall: Samples for an equal fall of the loss, per seed, infinite if never.
        today_fall: The same for today's settings: the length of the search.
        ratio: Today / this, or this − today in the metric for the objective ``accuracy``.
        loss: Where the search ended, validation, mean over the seeds; NaN if a run diverged.
    """

    batch_size: int
    learning_rate: float
    fall: Float[np.ndarray, " n"]
    today_fall: Float[np.ndarray, " n"]
    ratio: Paired
    loss: float

    @property
    def setting(self) -> tuple[int, float]:
        """Batch size and tuned learning rate."""
        return self.batch_size, self.learning_rate

    @property
    def late(self) -> bool:
        """Whether it needs so many more samples than today's settings that it would not reach,
        within the user's training length, what they reach at its end.
        """
        return bool(np.median(self.fall) > LATE * np.median(self.today_fall))

    def burden(self, objective: str, maximise: bool) -> Estimate:
        """The comparison turned so that less is better, for every objective alike."""
        r = self.ratio.estimate
        if objective == "accuracy":
            return Estimate(-r.value, -r.high, -r.low, n=r.n) if maximise else r
        turned = inverted(r)
        return Estimate(turned.value, turned.low, turned.high, n=r.n)


def projected(
    projection: Projection,
    yardstick: Yardstick,
    *,
    objective: str,
    today: tuple[int, float],
    maximise: bool,
    rates: dict[int, float] | None = None,
) -> list[Projected]:
    """What the search says of every batch size at its tuned learning rate.

    Args:
        projection: Stage B.
        yardstick: The machine.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        today: Batch size and learning rate of today.
        maximise: Direction of the metric.
        rates: Other learning rates to judge, batch size → rate.

    Returns:
        One row per batch size that shares a seed with today's settings, ascending.
    """
    chosen = rates or {int(size): rate for size, rate in projection.best.items()}
    seeds = set(of_setting(projection.curves, *today))
    return [
        _projected(projection, yardstick, objective, today, maximise, size, rate)
        for size, rate in sorted(chosen.items())
        if seeds & set(of_setting(projection.curves, size, rate))
    ]


def _projected(
    projection: Projection,
    yardstick: Yardstick,
    objective: str,
    today: tuple[int, float],
    maximise: bool,
    size: int,
    rate: float,
) -> Projected:
    mine, theirs = of_setting(projection.curves, size, rate), of_setting(projection.curves, *today)
    seeds = sorted(set(mine) & set(theirs))
    fall = np.array([equal_fall(mine[s], theirs[s]) for s in seeds])
    today_fall = np.array([equal_fall(theirs[s], theirs[s]) for s in seeds])
    if objective == "accuracy":
        before, after = (final_metric([curves[s] for s in seeds]) for curves in (theirs, mine))
        ratio = paired_difference(before, after, maximise=maximise)
    else:
        ratio = yardstick.compare(objective, (today_fall, today[0]), (fall, size))
    loss = float(np.mean([end_loss(mine[s]) for s in seeds]))
    return Projected(size, rate, fall, today_fall, ratio, loss)


def ranked(rows: Iterable[Projected], objective: str, maximise: bool) -> list[Projected]:
    """Rows of which anything can be said, the most promising first.

    Where time, cost or samples count, a batch size that would not arrive within the user's
    training length stands behind all that would, however fast it is: the target is met within
    that length or not at all.

    Args:
        rows: Of the search.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        maximise: Direction of the metric.
    """
    known = [r for r in rows if math.isfinite(r.burden(objective, maximise).value)]
    by_length = objective != "accuracy"
    return sorted(known, key=lambda r: (by_length and r.late, r.burden(objective, maximise).value))


def of_setting(curves: Sequence[Curve], *choice: Any) -> dict[int, Curve]:
    """Seed → the run of one setting, given field by field, that went furthest."""
    found: dict[int, Curve] = {}
    for curve in curves:
        if curve.choice == choice:
            best = found.get(curve.seed)
            if best is None or curve.samples[-1] >= best.samples[-1]:
                found[curve.seed] = curve
    return found


def failed(curve: Curve, reached: float) -> bool:
    """Whether a run diverged, did not learn or never reached the target."""
    return curve.status is not Status.OK or not math.isfinite(reached)
