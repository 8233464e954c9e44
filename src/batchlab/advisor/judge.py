"""From curves and timed blocks to comparable numbers: seconds, money, samples, metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from batchlab.advisor.project import end_loss, equal_fall
from batchlab.advisor.record import Price
from batchlab.advisor.stages import Curve, Machine, Projection
from batchlab.engine import evaluation_grid
from batchlab.stats import (
    LogMean,
    Paired,
    grid_log_var,
    paired_difference,
    paired_log_ratio,
    times_to_target,
)
from batchlab.types import Estimate, Status

UNKNOWN_LOG_SD = 0.1
"""Log-sd of seconds per update from a single block, whose spread is not known."""


@dataclass(frozen=True)
class Yardstick:
    """Turns samples to the target into what is asked for, on one machine.

    Attributes:
        machine: Seconds per update.
        price: Or None.
        reuse: Updates per batch.
    """

    machine: Machine
    price: Price | None
    reuse: int = 1

    def measure(
        self, quantity: str, samples: Float[np.ndarray, " n"], batch_size: int
    ) -> Float[np.ndarray, " n"]:
        """Samples to target → seconds, cost or samples.

        Args:
            quantity: ``time``, ``cost`` or ``samples``.
            samples: Examples to the target per seed, infinite if never.
            batch_size: Examples per update.

        Returns:
            The quantity per seed.
        """
        if quantity == "samples":
            return samples
        seconds = self.rate(batch_size).value * self.reuse / batch_size
        if quantity == "time":
            return samples * seconds
        assert self.price is not None
        return samples * (seconds * self.price.per_hour / 3600 + self.price.per_sample)

    def rate(self, batch_size: int) -> LogMean:
        """Seconds per update."""
        found = self.machine.seconds(batch_size)
        assert found is not None
        return found

    def spread(self, quantity: str, batch_size: int) -> tuple[float, float]:
        """Variance of the log quantity that comes from timing, and its degrees of freedom."""
        if quantity == "samples":
            return 0.0, math.inf
        rate = self.rate(batch_size)
        if not rate.dof > 0:
            rate = rate._replace(log_var=UNKNOWN_LOG_SD**2, dof=1.0)
        share = 1.0
        if quantity == "cost" and self.price is not None:
            hourly = rate.value * self.reuse * self.price.per_hour / 3600
            total = hourly + batch_size * self.price.per_sample
            share = hourly / total if total > 0 else 0.0
        return rate.log_var * share**2, rate.dof

    def compare(
        self,
        quantity: str,
        today: tuple[Float[np.ndarray, " n"], int],
        recommended: tuple[Float[np.ndarray, " n"], int],
        spacing: float = 0.0,
    ) -> Paired:
        """Ratio today / recommended with its interval.

        Args:
            quantity: ``time``, ``cost`` or ``samples``.
            today: Samples to target per seed, and batch size.
            recommended: The same for the recommendation.
            spacing: Samples between two evaluations; 0 where the moments are interpolated.

        Returns:
            The paired comparison.
        """
        (before, size), (after, other) = today, recommended
        var, dof = self.spread(quantity, size)
        # One batch size, one timing: seconds per update cancel in the ratio.
        same = size == other and quantity != "samples"
        other_var, other_dof = self.spread(quantity, other)
        grid = (
            0.0 if spacing == 0 else sum(grid_log_var(side, spacing) for side in (before, after))
        )
        return paired_log_ratio(
            self.measure(quantity, before, size),
            self.measure(quantity, after, other),
            today_seconds_log_var=0.0 if same else var,
            today_seconds_dof=dof,
            recommended_seconds_log_var=0.0 if same else other_var,
            recommended_seconds_dof=other_dof,
            grid_log_var=grid if math.isfinite(grid) else 0.0,
            source="paired by seed",
        )


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
    """

    batch_size: int
    learning_rate: float
    fall: Float[np.ndarray, " n"]
    today_fall: Float[np.ndarray, " n"]
    ratio: Paired

    def burden(self, objective: str, maximise: bool) -> Estimate:
        """The comparison turned so that less is better, for every objective alike."""
        r = self.ratio.estimate
        if objective == "accuracy":
            return Estimate(-r.value, -r.high, -r.low, n=r.n) if maximise else r
        value, low, high = (math.inf if x == 0 else 1 / x for x in (r.value, r.high, r.low))
        return Estimate(value, low, high, n=r.n)


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
    return Projected(size, rate, fall, today_fall, ratio)


def of_setting(curves: Sequence[Curve], size: int, rate: float) -> dict[int, Curve]:
    """Seed → the run of one setting that went furthest."""
    found: dict[int, Curve] = {}
    for curve in curves:
        if curve.batch_size == size and curve.learning_rate == rate:
            best = found.get(curve.seed)
            if best is None or curve.samples[-1] >= best.samples[-1]:
                found[curve.seed] = curve
    return found


def failed(curve: Curve, reached: float) -> bool:
    """Whether a run diverged, did not learn or never reached the target."""
    return curve.status is not Status.OK or not math.isfinite(reached)
