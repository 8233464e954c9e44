"""From measured candidates to one sentence: who goes on, who is chosen, change or keep.

Pure functions. The order matters for honesty: :func:`choose` reads the choosing seeds only, and
:func:`decide` the fresh confirmation seeds only. The best of 12 equal candidates, judged on the
five seeds that chose it, looks "95 % sure" in 20 % of cases (a test measures it); honest is 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from batchlab.advisor.record import Verdict
from batchlab.errors import InvalidValueError, must
from batchlab.stats import Sample, quantile
from batchlab.types import Estimate

WASTE = 1.2
"""A batch size is useful while it wastes at most this factor of throughput or of samples."""


NEAR = 1.05
"""Of finalists so close to the fastest, the one that changes fewest settings is chosen."""
SEARCH_LOG_SD = 0.35
"""Log-sd of one pair's ratio in the search: the upper end of what was measured (0.23 to 0.33)."""


class WorkingRates(NamedTuple):
    """The learning rates that work at one batch size.

    Attributes:
        best: Learning rate with the best metric.
        low: Smallest rate of the unbroken run around the best that works.
        high: Largest.
        works: Every rate that works, ascending, also beyond a gap.
    """

    best: float
    low: float
    high: float
    works: tuple[float, ...]


def decide(
    ratio: Estimate, worth: float, at_least_met: bool, today_chosen: bool = False
) -> Verdict:
    """The verdict for time, cost and samples.

    ρ = today / recommended in [lo, hi]. lo > 1, ρ ≥ worth and every demand met: *change*.
    hi < worth: *keep*. Else *not enough evidence*.

    Args:
        ratio: ρ with its interval, from fresh seeds. Open ends are 0 and ∞.
        worth: Smallest ratio worth a change, at least 1.
        at_least_met: Whether the recommendation meets every ``--at-least``.
        today_chosen: Whether the choosing seeds preferred today's settings. The best alternative
            is then compared to say *keep* with its range; a change would exchange the choice on
            the confirming numbers, so it is never advised.

    Returns:
        The verdict. An interval that is NaN decides nothing.

    Raises:
        InvalidValueError: If ``worth`` is below 1 or not finite.

    Assumes:
        The recommendation was fixed before these seeds were looked at.

    Example:
        >>> str(decide(Estimate(1.9, 1.5, 2.3, n=8), worth=1.2, at_least_met=True))
        'change'
    """
    if not 1 <= worth < math.inf:
        raise InvalidValueError(must("worth", "at least 1 and finite", worth))
    allowed = at_least_met and not today_chosen
    if allowed and ratio.low > 1 and ratio.value >= worth:
        return Verdict.CHANGE
    return Verdict.KEEP if ratio.high < worth else Verdict.NOT_ENOUGH_EVIDENCE


def fails_more(today: tuple[int, int], recommended: tuple[int, int]) -> bool:
    """Whether trainings with the recommendation fail more often: Fisher's exact test, one-sided,
    at 10 %.

    Args:
        today: (failed, all) trainings of today's settings.
        recommended: The same for the recommendation.

    Source:
        Fisher, Statistical Methods for Research Workers (1934), 21.02.

    Example:
        >>> fails_more((0, 8), (4, 8)), fails_more((0, 8), (1, 8))
        (True, False)
    """
    (lost, runs), (before, total) = recommended, today
    # P(at least so many of all failures fall on the recommendation), were both alike.
    chance = stats.hypergeom.sf(lost - 1, runs + total, lost + before, runs)
    return bool(chance <= 0.1 + 1e-9)


def stands_out(ratios: Sample, rivals: int, worth: float, timing_log_var: float = 0.0) -> bool:
    """Whether a front runner of the search is better beyond doubt, before any confirmation.

    It is the best of several, so its lower end is that of the best of ``rivals`` equal ones:
    mean log ρ − z(1 − 0.05/rivals)·√(s²/n + Var log seconds), where s is never taken below
    :data:`SEARCH_LOG_SD`, since a search has too few seeds to know it. That end must be above 0
    and the mean at least log worth.

    Args:
        ratios: ρ = today / this on the seeds that did *not* choose its learning rate; 0 if it
            never got there. Shape ``[n]``.
        rivals: Candidates it was the best of, 1 or more.
        worth: Smallest ratio worth a change.
        timing_log_var: Variance of the log ratio that comes from timing.

    Returns:
        False without any such seed.

    Assumes:
        Log ratios roughly normal with a standard deviation of at most 0.35.

    Example:
        >>> [stands_out(np.array([r, r]), rivals=5, worth=1.2) for r in (2.2, 1.5)]
        [True, False]
    """
    found = np.asarray(ratios, dtype=float)
    if not found.size or not (found > 0).all():
        return False
    gains = np.log(found)
    spread = max(SEARCH_LOG_SD, float(gains.std(ddof=1)) if gains.size > 1 else 0.0)
    error = math.sqrt(spread**2 / gains.size + timing_log_var)
    low = gains.mean() - special.ndtri(1 - 0.05 / rivals) * error
    return bool(low > 0 and gains.mean() >= math.log(worth))


def decide_accuracy(
    difference: Estimate, maximise: bool, at_least_met: bool, today_chosen: bool = False
) -> Verdict:
    """The verdict for the objective ``accuracy``, where ``--worth``, a ratio, means nothing.

    The gain is recommended − today, turned so that more is better. Its whole interval above 0 and
    every demand met: *change*. Its whole interval at or below 0: *keep*. Else *not enough
    evidence*.

    Args:
        difference: recommended − today with its interval, from fresh seeds.
        maximise: Whether more is better.
        at_least_met: Whether the recommendation meets every ``--at-least``.
        today_chosen: As for :func:`decide`.

    Returns:
        The verdict. An interval that is NaN decides nothing.

    Assumes:
        The recommendation was fixed before these seeds were looked at. Where nothing differs the
        two-sided 90 % interval alone guards against a change: in 5 % of cases it is advised.

    Example:
        >>> str(decide_accuracy(Estimate(0.01, -0.01, 0.03, n=8), True, at_least_met=True))
        'not enough evidence'
    """
    low, high = difference.low, difference.high
    worst, best = (low, high) if maximise else (-high, -low)
    if worst > 0 and at_least_met and not today_chosen:
        return Verdict.CHANGE
    return Verdict.KEEP if best <= 0 else Verdict.NOT_ENOUGH_EVIDENCE


def choose(
    times: Mapping[str, Sample],
    baseline: str = "today",
    changes: Mapping[str, int] | None = None,
) -> str:
    """The one finalist that is fastest on the choosing seeds.

    Smallest geometric mean if every run of every finalist reached the target; else smallest upper
    median, then fewest runs that never reached it. Of finalists that are at most 5 % slower and
    fail no more often, the one that changes fewest settings. Ties go to the baseline if it is
    among them, then to the first.

    Args:
        times: Finalist's id → time (cost, samples) per choosing seed, infinite if never. Shape
            ``[n]``, the same n for all. The baseline need not be among them: without it the answer
            is the best alternative, which is what a confirmation compares with the baseline.
        baseline: Id that wins ties.
        changes: Id → settings in which it differs from today's; equal for all if left out.

    Returns:
        An id.

    Raises:
        InvalidValueError: If there is no finalist, or n differs, or a time is NaN or not positive.

    Example:
        >>> choose({"today": np.array([4.0, 5.0]), "B64": np.array([2.0, 3.0])})
        'B64'
    """
    table = _table(times)
    finite = all(np.isfinite(row).all() for row in table.values())

    def rank(name: str) -> tuple[float, int, bool]:
        row = table[name]
        middle = math.exp(np.log(row).mean()) if finite else _upper_median(row)
        return middle, int(np.isinf(row).sum()), name != baseline

    best = min(table, key=rank)
    middle, lost, _ = rank(best)
    near = [n for n in table if rank(n)[0] <= NEAR * middle and rank(n)[1] <= lost]
    return min(near or [best], key=lambda name: ((changes or {}).get(name, 0), rank(name)))


def choose_accuracy(metrics: Mapping[str, Sample], maximise: bool, baseline: str = "today") -> str:
    """The one finalist with the best mean metric on the choosing seeds.

    A diverged run (NaN) counts as worst; finalists with such runs come after those with fewer.

    Args:
        metrics: Finalist's id → validation metric at the end of training per choosing seed. Shape
            ``[n]``.
        maximise: Whether more is better.
        baseline: Id that wins ties.

    Returns:
        An id.

    Raises:
        InvalidValueError: If there is no finalist.

    Example:
        >>> choose_accuracy({"a": np.array([0.9, 0.8]), "b": np.array([0.99, np.nan])}, True)
        'a'
    """
    if not metrics:
        raise InvalidValueError(must("metrics", "at least one finalist", dict(metrics)))

    def rank(name: str) -> tuple[int, float, bool]:
        row = np.asarray(metrics[name], dtype=float)
        known = row[~np.isnan(row)]
        mean = float(known.mean()) if known.size else 0.0
        return row.size - known.size, -mean if maximise else mean, name != baseline

    return min(metrics, key=rank)


def not_told_apart(
    best: str, against: Mapping[str, Estimate], lost: Mapping[str, int], null: float = 1.0
) -> list[str]:
    """The finalists that the choosing seeds cannot separate from the best one, it first.

    Args:
        best: What :func:`choose` or :func:`choose_accuracy` has chosen.
        against: Finalist's id → its comparison with the best, paired by seed.
        lost: Finalist's id → runs that failed; one with more of them than the best is worse.
        null: The value that stands for no difference: 1 for a ratio, 0 for a difference.

    Returns:
        Ids whose interval holds ``null``. An interval that is NaN separates nothing.

    Example:
        >>> ratios = {"b": Estimate(0.9, 0.7, 1.1, 5), "c": Estimate(0.5, 0.4, 0.6, 5)}
        >>> not_told_apart("a", ratios, {"a": 0, "b": 0, "c": 0})
        ['a', 'b']
    """
    others = [n for n, e in against.items() if not (e.low > null or e.high < null)]
    return [best, *(n for n in others if n != best and lost[n] <= lost[best])]


def surely_less(best: str, more: Mapping[str, Estimate]) -> str:
    """Of finalists that cannot be told apart, the one with the least of what is preferred, if that
    is surely less than the best one's.

    Args:
        best: What :func:`choose` or :func:`choose_accuracy` has chosen.
        more: Each other finalist's id → by how much more it has than the best, paired by seed.

    Returns:
        The best itself where no interval lies below 0: one that is NaN separates nothing.

    Example:
        >>> more = {"b": Estimate(-2.0, -3.0, -1.0, 5), "c": Estimate(-4.0, -9.0, 1.0, 5)}
        >>> surely_less("a", more)
        'b'
    """
    surely = [name for name, found in more.items() if found.high < 0]
    return min(surely, key=lambda name: more[name].value, default=best)


def not_separated(projected: Mapping[str, Estimate], most: int = 4) -> tuple[str, ...]:
    """The candidates whose projected range reaches down to the best one's: the finalists.

    The best is the smallest value; another stays if its low end is at most the best's high end. A
    missing interval (NaN) separates nothing.

    Args:
        projected: Candidate's id → projected time (cost, samples), less is better.
        most: Most finalists, at least 1.

    Returns:
        Ids, best first, at most ``most``.

    Raises:
        InvalidValueError: If there is no candidate or a value is NaN.

    Assumes:
        Intervals at one level. Two 90 % intervals that overlap may still differ; keeping both in
        is the safe side.

    Example:
        >>> not_separated({"a": Estimate(2.0, 1.5, 2.5, 5), "b": Estimate(4.0, 3.0, 5.0, 5)})
        ('a',)
    """
    if not projected or any(math.isnan(e.value) for e in projected.values()) or most < 1:
        raise InvalidValueError(must("projected", "known for at least one candidate", projected))
    order = sorted(projected, key=lambda name: projected[name].value)
    best = projected[order[0]]
    return tuple(n for n in order if n == order[0] or not projected[n].low > best.high)[:most]


def pareto(
    times: Mapping[str, float], metrics: Mapping[str, float], maximise: bool
) -> tuple[str, ...]:
    """The candidates no other beats: none is at least as good in both and better in one.

    Args:
        times: Id → time to target, infinite if never.
        metrics: Id → metric, NaN if unknown; such a candidate is left out.
        maximise: Whether more is better in the metric.

    Returns:
        Ids in the order of ``times``.

    Raises:
        InvalidValueError: If the two do not name the same candidates.

    Example:
        >>> pareto({"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 0.8, "b": 0.9, "c": 0.9}, maximise=True)
        ('a', 'b')
    """
    if set(times) != set(metrics):
        raise InvalidValueError(must("metrics", f"known for {sorted(times)}", sorted(metrics)))
    sign = -1.0 if maximise else 1.0
    points = {n: (times[n], sign * metrics[n]) for n in times if not math.isnan(metrics[n])}
    return tuple(n for n, p in points.items() if not any(_beats(q, p) for q in points.values()))


def useful_range(
    throughput: Mapping[int, float], samples: Mapping[int, float], waste: float = WASTE
) -> tuple[int | None, int | None]:
    """Batch sizes that waste neither the machine nor the data.

    From the smallest with at least 1/1.2 of the best throughput to the largest that needs at most
    1.2 × the fewest samples for an equal fall of the loss.

    Args:
        throughput: Batch size → samples per second.
        samples: Batch size → samples for an equal fall of the loss, infinite or NaN if never.
        waste: The factor, at least 1.

    Returns:
        ``(low, high)`` in examples, None where nothing is known. ``low > high`` means that every
        batch size wastes one or the other.

    Example:
        >>> useful_range({8: 100.0, 32: 330.0, 128: 390.0}, {8: 900.0, 32: 1000.0, 128: 4000.0})
        (32, 32)
    """
    speeds = {b: v for b, v in throughput.items() if math.isfinite(v)}
    needs = {b: v for b, v in samples.items() if math.isfinite(v)}
    fast = [b for b, v in speeds.items() if v * waste >= max(speeds.values())]
    lean = [b for b, v in needs.items() if v <= waste * min(needs.values())]
    return min(fast, default=None), max(lean, default=None)


def working_rates(
    metric: Mapping[float, float], seed_sd: float, maximise: bool
) -> WorkingRates | None:
    """Learning rates whose metric is within one seed standard deviation of the best.

    Args:
        metric: Learning rate → metric at the last rung, NaN if it diverged.
        seed_sd: Standard deviation of the metric between seeds.
        maximise: Whether more is better.

    Returns:
        The best rate and the unbroken range around it, or None if every rate diverged.

    Raises:
        InvalidValueError: If ``seed_sd`` is negative or NaN.

    Assumes:
        A diverged or worse rate between two that work breaks the range: nobody should be told that
        everything in between works.

    Example:
        >>> rates = working_rates({0.1: 0.90, 0.2: 0.95, 0.4: 0.94, 0.8: float("nan")}, 0.02, True)
        >>> rates.low, rates.high
        (0.2, 0.4)
    """
    if not seed_sd >= 0:
        raise InvalidValueError(must("seed_sd", "at least 0", seed_sd))
    score = {rate: metric[rate] if maximise else -metric[rate] for rate in sorted(metric)}
    known = {rate: value for rate, value in score.items() if math.isfinite(value)}
    if not known:
        return None
    best = max(known, key=lambda rate: known[rate])
    works = [math.isfinite(v) and v >= score[best] - seed_sd for v in score.values()]
    rates, at = list(score), list(score).index(best)
    low, high = unbroken(works, at)
    within = tuple(rate for rate, ok in zip(rates, works, strict=True) if ok)
    return WorkingRates(best, rates[low], rates[high], within)


def unbroken(works: list[bool], at: int) -> tuple[int, int]:
    """First and last index of the run of True that holds ``at``.

    Example:
        >>> unbroken([True, False, True, True], at=2)
        (2, 3)
    """
    low = high = at
    while low > 0 and works[low - 1]:
        low -= 1
    while high + 1 < len(works) and works[high + 1]:
        high += 1
    return low, high


def _beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a != b and a[0] <= b[0] and a[1] <= b[1]


def _upper_median(row: np.ndarray) -> float:
    """The larger middle value: infinite when half of the runs never arrive."""
    return -quantile(-row, 0.5)


def _table(times: Mapping[str, Sample]) -> dict[str, np.ndarray]:
    table = {name: np.asarray(row, dtype=float) for name, row in times.items()}
    if len({row.shape for row in table.values()}) != 1:
        shapes = {name: row.shape for name, row in table.items()}
        raise InvalidValueError(
            must("times", "at least one finalist, all with as many runs", shapes)
        )
    if not all((row > 0).all() for row in table.values()):
        raise InvalidValueError(
            must("times", "positive", {n: r.tolist() for n, r in table.items()})
        )
    return table
