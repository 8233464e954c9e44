"""When k updates on each fetched batch pay: the boundary between the cost of a fresh sample and
the cost of computing.

A training to a target draws F fresh samples and computes C = F · reuse examples. With s for a
fresh sample and c for computing one example it costs F·s + C·c, so two trainings A and B cost the
same on the line s/c = (C_B − C_A)/(F_A − F_B) of the plane (s, c).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from batchlab.errors import InvalidValueError, must
from batchlab.stats import Paired, paired_log_ratio
from batchlab.types import Estimate

PRICES = (0.0, *np.logspace(-3, 6, 91).tolist(), math.inf)
"""Where a boundary is looked for, s/c; between two of them by halving."""
HALVINGS = 30


@dataclass(frozen=True)
class Spent:
    """What the runs of one setting take to the target.

    Attributes:
        fresh: Samples drawn, per seed; infinite if the target was never reached.
        computed: Examples computed, in units of one example at today's batch size, per seed.
        log_var: Variance of the log of that unit, from timing; 0 at today's batch size.
        dof: Its degrees of freedom.
        spacing: Samples between two evaluations; 0 where that does not matter.
    """

    fresh: tuple[float, ...]
    computed: tuple[float, ...]
    log_var: float = 0.0
    dof: float = math.inf
    spacing: float = 0.0

    def cost(self, price: float) -> Float[np.ndarray, " n"]:
        """F·s/c + C for price s/c, F alone where the price is infinite.

        Args:
            price: Cost of a fresh sample / cost of computing an example, 0 to ∞.
        """
        fresh, computed = np.array(self.fresh), np.array(self.computed)
        if math.isinf(price):
            return fresh
        return fresh * price + computed if price else computed

    def timing(self, price: float) -> float:
        """Variance of the log cost that comes from timing: that of the share that is computing."""
        reached = np.isfinite(self.fresh)
        if not reached.any() or math.isinf(price):
            return 0.0
        shares = np.array(self.computed)[reached] / self.cost(price)[reached]
        return float(np.median(shares)) ** 2 * self.log_var

    def grid(self) -> float:
        """Variance of the log that comes from looking only at evaluations."""
        middle = float(np.median(self.fresh))
        return (self.spacing / middle) ** 2 / 12 if math.isfinite(middle) else 0.0


def ratio_at(rival: Spent, mine: Spent, price: float, level: float = 0.9) -> Paired:
    """What the rival costs / what this costs at one price, paired by seed.

    Args:
        rival: The other setting.
        mine: The setting in question, the same seeds in the same order.
        price: Cost of a fresh sample / cost of computing an example, 0 to ∞.
        level: Coverage.

    Returns:
        Above 1 where this is cheaper.

    Raises:
        InvalidValueError: If the price is negative or no number.

    Example:
        >>> today, reuse = Spent((90.0, 110.0), (90.0, 110.0)), Spent((60.0, 60.0), (120.0, 120.0))
        >>> [round(ratio_at(today, reuse, price).estimate.value, 2) for price in (0, 0.5, np.inf)]
        [0.83, 0.99, 1.66]
    """
    if math.isnan(price) or price < 0:
        raise InvalidValueError(must("price", "0 or more", price))
    return paired_log_ratio(
        rival.cost(price),
        mine.cost(price),
        today_seconds_log_var=rival.timing(price),
        today_seconds_dof=rival.dof,
        recommended_seconds_log_var=mine.timing(price),
        recommended_seconds_dof=mine.dof,
        grid_log_var=rival.grid() + mine.grid(),
        source="paired by seed",
        level=level,
    )


def boundary(rival: Spent, mine: Spent, level: float = 0.9) -> Estimate:
    """From which price of a fresh sample on a setting is cheaper than its rival.

    The price s/c at which both cost the same, in units of computing one example. The interval
    holds every price at which the paired ratio of costs does not tell the two apart (test
    inversion), so it stays right where one of both is cheaper at any price.

    Args:
        rival: The other setting.
        mine: The setting in question, the same seeds in the same order.
        level: Coverage.

    Returns:
        0 where this is cheaper at any price; ∞ where it never is from some price on, for the ends
        alike: an infinite upper end means that it was not shown to pay at any price.

    Example:
        >>> today, reuse = Spent((100.0,) * 5, (100.0,) * 5), Spent((60.0,) * 5, (120.0,) * 5)
        >>> round(boundary(today, reuse).value, 6)
        0.5
    """

    @functools.cache
    def ratio(price: float) -> Estimate:
        return ratio_at(rival, mine, price, level).estimate

    # Two sides that never arrive cost the same, which is not cheaper.
    value = first_from(lambda price: ratio(price).value > 1)
    low = first_from(lambda price: ratio(price).high >= 1)
    high = first_from(lambda price: ratio(price).low > 1)
    n = len(mine.fresh)
    return Estimate(value, low, high, n, "computed examples", "paired by seed", level)


def first_from(holds: Callable[[float], bool]) -> float:
    """The smallest price from which on something holds at every price up to ∞.

    Args:
        holds: Asked at :data:`PRICES`, and between the last two that differ.

    Example:
        >>> round(first_from(lambda price: price >= 3), 6), first_from(lambda price: price < 3)
        (3.0, inf)
    """
    last = max((i for i, price in enumerate(PRICES) if not holds(price)), default=-1)
    if last + 1 in (0, len(PRICES)):
        return 0.0 if last < 0 else math.inf
    low, high = PRICES[last : last + 2]
    if math.isinf(high):
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def price_of(
    seconds_per_example: float,
    reading: float,
    per_hour: float | None = None,
    per_sample: float = 0.0,
) -> float:
    """The price of a fresh sample in units of computing one example.

    s/c with s = reading and c = seconds_per_example where time counts; with money
    s = per_sample + per_hour/3600·reading and c = per_hour/3600·seconds_per_example.

    Args:
        seconds_per_example: Of computing, above 0.
        reading: Seconds to read one fresh sample.
        per_hour: What an hour costs, 0 or more, or None where time counts.
        per_sample: What a fresh sample costs.

    Returns:
        0 to ∞; ∞ where only samples cost.

    Example:
        >>> price_of(0.001, 0.003), price_of(0.001, 0.0, per_hour=3.6, per_sample=1e-6)
        (3.0, 1.0)
    """
    if per_hour is None:
        return reading / seconds_per_example
    second = per_hour / 3600
    fresh, computing = per_sample + second * reading, second * seconds_per_example
    return fresh / computing if computing > 0 else math.inf if fresh > 0 else 0.0


def most_saved(price: float, reuse: int) -> float:
    """How many times less a training can cost at most if each batch serves for several updates.

    Once more over the same batch is worth one over a fresh batch at best. Then k updates on each
    take F/k fresh samples and compute as many examples, and (s + c)/(s/k + c) is saved.

    Args:
        price: Cost of a fresh sample / cost of computing an example, 0 to ∞.
        reuse: k, at least 1.

    Returns:
        From 1 where samples cost nothing to k where only they do.

    Example:
        >>> [round(most_saved(price, 4), 2) for price in (0.0, 1.0, math.inf)]
        [1.0, 1.6, 4.0]
    """
    return float(reuse) if math.isinf(price) else (price + 1) / (price / reuse + 1)


def labels_to(
    labels: Sequence[int], metric: Float[np.ndarray, "L n"], level: float, maximise: bool
) -> Float[np.ndarray, " n"]:
    """How many labelled examples each seed needs for a level of the metric.

    Between the first two numbers of labels whose metric encloses the level, linear in their
    logarithm; infinite where no number reaches it, the smallest where that does.

    Args:
        labels: Numbers of labelled examples, ascending.
        metric: At each, per seed; NaN where a run failed.
        level: To reach.
        maximise: Direction of the metric.

    Returns:
        Examples, per seed.

    Example:
        >>> labels_to([100, 400], np.array([[0.6], [0.8]]), 0.7, True).round().tolist()
        [200.0]
    """
    sign = 1.0 if maximise else -1.0
    score = np.nan_to_num(sign * np.asarray(metric, float), nan=-math.inf)
    return np.array([_needed(labels, column, sign * level) for column in score.T])


def _needed(labels: Sequence[int], score: Float[np.ndarray, " L"], level: float) -> float:
    """Of one seed, where more is better."""
    met = np.flatnonzero(score >= level)
    if not met.size:
        return math.inf
    i = int(met[0])
    if i == 0 or not math.isfinite(score[i - 1]):
        return float(labels[i])
    share = (level - score[i - 1]) / (score[i] - score[i - 1])
    return float(labels[i - 1] * (labels[i] / labels[i - 1]) ** share)
