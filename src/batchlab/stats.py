"""Estimates with intervals, time to target, paired comparisons, slopes: pure functions.

Everything here is in closed form: Student t, order statistics, binomial tails. No bootstrap: at n
= 5 its nominal 90 % interval covers about 79 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Num
from scipy import special

from batchlab.errors import InvalidValueError, must
from batchlab.types import Estimate

Sample: TypeAlias = Num[np.ndarray, " _"]
"""One number per run. Shape [n]."""

TYPICAL_LOG_SD = 0.28
"""Log-sd of a paired time ratio before anything is measured: the middle of 0.23 to 0.33."""


class LogMean(NamedTuple):
    """A geometric mean and how well it is known.

    Attributes:
        value: exp(mean of logs), in the unit of the measurements.
        log_var: Variance of the *mean* of the logs; NaN for a single measurement.
        dof: Degrees of freedom behind ``log_var``.
    """

    value: float
    log_var: float
    dof: float


def clamped(found: Estimate, low: float, high: float) -> Estimate:
    """An estimate whose interval ends where its quantity does.

    Example:
        >>> print(clamped(Estimate(0.5, -1.5, 2.5, 3), -1.0, 1.0))
        0.5 (-1 to 1, n = 3)
    """
    ends = (min(max(end, low), high) for end in (found.low, found.high))
    return replace(found, **dict(zip(("low", "high"), ends, strict=True)))


@dataclass(frozen=True)
class Paired:
    """Today against the recommendation over pairs of runs that share a seed.

    Attributes:
        estimate: Ratio today / recommended, or difference recommended − today, with its interval.
        wins: Pairs in which the recommendation was better.
        pairs: Pairs.
        chance: Probability that the recommendation is better, at most 1 − 2⁻ⁿ with n pairs.
        method: ``paired-t``, or ``sign`` where a run is infinite or there is one pair only.
        sd: Standard deviation of one pair's log ratio (or difference), NaN for ``sign``.
        rest: Variance of the log ratio that more pairs do not lower: timing and rounding.
    """

    estimate: Estimate
    wins: int
    pairs: int
    chance: float
    method: str
    sd: float
    rest: float = 0.0


class Part(NamedTuple):
    """One independent part of a variance. ``dof`` may be infinite: known exactly."""

    variance: float
    dof: float


class _Gain(NamedTuple):
    """A comparison on an additive scale on which 0 is "no difference" and more is better."""

    value: float
    low: float
    high: float
    chance: float
    method: str
    sd: float


def mean_estimate(
    values: Sample, unit: str = "", source: str = "", level: float = 0.9
) -> Estimate:
    """Mean with Student's t interval.

    x̄ ± t_{n−1} s/√n; of shares within [0, 1].

    Args:
        values: One finite number per repetition. Shape ``[n]``, n ≥ 1.
        unit: Unit of the values; ``%`` for shares.
        source: What measured them.
        level: Coverage, between 0 and 1.

    Returns:
        The mean; the interval is NaN at n = 1.

    Raises:
        InvalidValueError: If a value is not finite or ``level`` is not a share.

    Assumes:
        Independent repetitions, roughly normal.

    Example:
        >>> print(mean_estimate(np.array([1.0, 2.0, 3.0]), unit="s"))
        2 s (0.314 to 3.69, n = 3)
    """
    sample = _sample("values", values)
    if not np.isfinite(sample).all():
        hint = "With a run that never arrives, take the median."
        raise InvalidValueError(must("values", "finite", sample.tolist(), hint))
    part = _mean_part(sample)
    half = half_width((part,), level) if sample.size > 1 else math.nan
    mean = float(sample.mean())
    low, high = mean - half, mean + half
    if unit == "%" and ((sample >= 0) & (sample <= 1)).all():
        low, high = np.clip([low, high], 0.0, 1.0).tolist()
    return Estimate(mean, low, high, sample.size, unit, source, level)


def median_estimate(
    values: Sample, unit: str = "", source: str = "", level: float = 0.9
) -> Estimate:
    """Median with an interval of order statistics, free of any distribution.

    [x₍ₖ₎, x₍ₙ₊₁₋ₖ₎] with the largest k whose coverage 1 − 2 P(Binomial(n, ½) < k) is at least
    ``level``.

    Args:
        values: One number per repetition; infinite is "never". Shape ``[n]``, n ≥ 1.
        unit: Unit of the values.
        source: What measured them.
        level: Coverage, between 0 and 1; the interval covers at least this.

    Returns:
        The median (infinite if the upper middle value is); the interval is NaN where n is too
        small for ``level``, below 5 at 90 %.

    Raises:
        InvalidValueError: If a value is NaN or ``level`` is not a share.

    Assumes:
        Independent repetitions.

    Source:
        Exact confidence limits from the binomial distribution, as in any text on non-parametric
        statistics.

    Example:
        >>> print(median_estimate(np.array([3.0, 1.0, 2.0, np.inf, 4.0]), unit="s"))
        3 s (1 to inf, n = 5)
    """
    order = np.sort(_sample("values", values))
    n, k = order.size, _interval_rank(order.size, level)
    low, high = (float(order[k - 1]), float(order[n - k])) if k else (math.nan, math.nan)
    lower, upper = float(order[(n - 1) // 2]), float(order[n // 2])
    median = lower if lower == upper else (lower + upper) / 2
    return Estimate(median, low, high, n, unit, source, level)


def share_estimate(count: int, n: int, source: str = "", level: float = 0.9) -> Estimate:
    """A share count / n with the Clopper–Pearson interval.

    The interval inverts two exact binomial tests, so it covers at least ``level`` for every true
    share.

    Args:
        count: Repetitions in which it happened.
        n: Repetitions, at least 1.
        source: What counted.
        level: Coverage, between 0 and 1.

    Returns:
        The share, without unit.

    Raises:
        InvalidValueError: If ``count`` is not between 0 and ``n``.

    Assumes:
        Independent repetitions.

    Source:
        Clopper and Pearson, Biometrika 26 (1934).

    Example:
        >>> print(share_estimate(0, 8))
        0 (0 to 0.312, n = 8)
    """
    if n < 1 or not 0 <= count <= n:
        raise InvalidValueError(must("count", f"between 0 and n = {n}, with n at least 1", count))
    tail = (1 - _level(level)) / 2
    low = float(special.betaincinv(count, n - count + 1, tail)) if count > 0 else 0.0
    high = float(special.betaincinv(count + 1, n - count, 1 - tail)) if count < n else 1.0
    return Estimate(count / n, low, high, n, "", source, level)


def quantile(values: Sample, share: float) -> float:
    """Smallest value that at least ``share`` of the values do not exceed.

    An order statistic, x₍⌈share·n⌉₎: always one of the values, so infinite values stay harmless.

    Args:
        values: One number per run, infinite allowed. Shape ``[n]``, n ≥ 1.
        share: In (0, 1].

    Returns:
        One of ``values``.

    Raises:
        InvalidValueError: If a value is NaN or ``share`` is outside (0, 1].

    Example:
        >>> quantile(np.array([1.0, 2.0, 3.0, 4.0, np.inf]), 0.8)
        4.0
    """
    order = np.sort(_sample("values", values))
    if not 0 < share <= 1:
        raise InvalidValueError(must("share", "above 0 and at most 1", share))
    # Without rounding, 0.7 · 10 = 7.000000000000001 would be rank 8.
    rank = math.ceil(round(share * order.size, 9))
    return float(order[max(rank, 1) - 1])


def log_mean(values: Sample) -> LogMean:
    """Geometric mean of blocks of measurements and the variance of its logarithm.

    Seconds per update over blocks: time = updates × value, and ``log_var``, ``dof`` go to
    :func:`paired_log_ratio`.

    Args:
        values: One positive finite number per block. Shape ``[n]``, n ≥ 1.

    Returns:
        The geometric mean, var(log)/n and n − 1. One block: variance NaN, 0 degrees of freedom.

    Raises:
        InvalidValueError: If a value is not positive and finite.

    Assumes:
        Independent blocks. Neighbouring blocks share the machine's mood: spread them over the
        measurement.

    Example:
        >>> log_mean(np.array([1.0, 4.0])).value
        2.0
    """
    sample = _sample("values", values)
    if not (np.isfinite(sample) & (sample > 0)).all():
        raise InvalidValueError(must("values", "positive and finite", sample.tolist()))
    logs = np.log(sample)
    return LogMean(float(np.exp(logs.mean())), *_mean_part(logs))


def means_of_three(values: Num[np.ndarray, "*R T"]) -> Float[np.ndarray, "*R U"]:
    """Means of three consecutive evaluations: what a target is compared with.

    Args:
        values: Metric at each evaluation. Shape ``[..., T]``.

    Returns:
        Mean of evaluations i, i+1, i+2. Shape ``[..., T − 2]``, empty if T < 3. NaN where one is
        NaN.

    Example:
        >>> means_of_three(np.array([0.0, 3.0, 6.0, 9.0]))
        array([3., 6.])
    """
    array = np.asarray(values, dtype=float)
    if array.shape[-1] < 3:
        return array[..., :0]
    return (array[..., :-2] + array[..., 1:-1] + array[..., 2:]) / 3


def times_to_target(
    samples: Num[np.ndarray, "*S U"],
    values: Num[np.ndarray, "R T"],
    target: float,
    maximise: bool,
) -> Float[np.ndarray, " R"]:
    """Samples at which each run has reached the target; infinite if it never does.

    A run reaches it at the last of the first three consecutive evaluations whose mean meets it. A
    mean that is not finite (a diverged run) never meets it.

    Args:
        samples: Examples seen at each evaluation, ascending. Shape ``[T]`` or ``[R, T]``.
        values: Metric. Shape ``[R, T]``.
        target: Value to reach.
        maximise: Whether more is better.

    Returns:
        Examples, or whatever unit ``samples`` has. Shape ``[R]``.

    Raises:
        InvalidValueError: If shapes do not fit or the target is not finite.

    Example:
        >>> times_to_target(np.arange(4), np.array([[0.0, 3, 6, 9], [0, 0, 0, 0]]), 6.0, True)
        array([ 3., inf])
    """
    at, array = np.asarray(samples, dtype=float), np.asarray(values, dtype=float)
    if array.ndim != 2 or at.shape[-1:] != array.shape[-1:]:
        raise InvalidValueError(must("samples", f"as long as a run ({array.shape})", at.shape))
    if not math.isfinite(target):
        raise InvalidValueError(must("target", "finite", target))
    means = means_of_three(array)
    met = np.isfinite(means) & ((means >= target) if maximise else (means <= target))
    ends = np.broadcast_to(at, array.shape)[:, 2:]
    return np.where(met, ends, np.inf).min(axis=1, initial=np.inf)


def time_to_target(samples: Sample, values: Sample, target: float, maximise: bool) -> float:
    """Samples at which one run has reached the target; infinite if it never does.

    The one-run form of :func:`times_to_target`.

    Args:
        samples: Examples seen at each evaluation, ascending. Shape ``[T]``.
        values: Metric. Shape ``[T]``.
        target: Value to reach.
        maximise: Whether more is better.

    Returns:
        Examples, or whatever unit ``samples`` has.

    Example:
        >>> time_to_target(np.array([10, 20, 30, 40]), np.array([5.0, 4.0, 3.0, 2.0]), 3.0, False)
        40.0
    """
    return float(times_to_target(samples, np.asarray(values)[None], target, maximise)[0])


def end_values(values: Num[np.ndarray, "R T"]) -> Float[np.ndarray, " R"]:
    """Metric at the end of each run: the mean of its last three evaluations.

    The same mean that decides whether a target is reached, so a target made from these is reached.

    Args:
        values: Metric at each evaluation. Shape ``[R, T]``, T ≥ 3.

    Returns:
        Shape ``[R]``; NaN for a run that diverged.

    Raises:
        InvalidValueError: If there are fewer than three evaluations.

    Example:
        >>> end_values(np.array([[0.0, 3.0, 6.0, 9.0]]))
        array([6.])
    """
    means = means_of_three(values)
    if means.shape[-1] == 0:
        raise InvalidValueError(
            must("values", "at least three evaluations a run", np.asarray(values).shape[-1])
        )
    return means[..., -1]


def default_target(final: Sample, maximise: bool) -> float:
    """The best value that at least four in five baseline runs reach at their end.

    An order statistic, no interpolation: maximised, the ⌊n/5⌋+1-th smallest end value (2nd of 5,
    2nd of 8), the 20 % quantile; minimised, the ⌊n/5⌋+1-th largest. At n < 5 all of them reach it.

    Args:
        final: End value of each baseline run as :func:`end_values` gives it (mean of the last
            three evaluations, because that is what a target is compared with); NaN for a diverged
            run counts as worst. Shape ``[n]``.
        maximise: Whether more is better.

    Returns:
        The target, one of ``final``.

    Raises:
        InvalidValueError: If fewer than four in five runs ended with a finite value.

    Example:
        >>> default_target(np.array([0.97, 0.95, 0.96, 0.98, 0.99]), maximise=True)
        0.96
    """
    score = _score(_sample("final", final, nan=True), maximise)
    target = float(np.sort(score)[score.size // 5])
    if not math.isfinite(target):
        hint = "Too many baseline runs diverged; repair the baseline or give a target."
        raise InvalidValueError(
            must("final", "finite for four runs in five", final.tolist(), hint)
        )
    return target if maximise else -target


def grid_log_var(times: Sample, spacing: float) -> float:
    """Variance of a log time to target that comes from looking only on a grid.

    A time rounded up to a multiple of ``spacing`` is uniform over it: variance spacing²/12,
    relative to the median time. It matters where the target is reached within few evaluations: all
    pairs may then agree to the last digit and the seeds show no spread at all.

    Args:
        times: Times to target, infinite allowed. Shape ``[n]``.
        spacing: Distance of two evaluations, in the same unit.

    Returns:
        (spacing/median)²/12; 0 if the median is infinite.

    Example:
        >>> round(grid_log_var(np.array([4.0, 4.0, 4.0]), 1.0), 5)
        0.00521
    """
    median = quantile(times, 0.5)
    return (spacing / median) ** 2 / 12


def paired_log_ratio(
    today: Sample,
    recommended: Sample,
    *,
    today_seconds_log_var: float = 0.0,
    today_seconds_dof: float = math.inf,
    recommended_seconds_log_var: float = 0.0,
    recommended_seconds_dof: float = math.inf,
    grid_log_var: float = 0.0,
    source: str = "",
    level: float = 0.9,
) -> Paired:
    """Ratio today / recommended over pairs that share a seed; above 1 favours the recommendation.

    All runs reached the target: d = log today − log recommended, ratio exp(d̄), and
    d̄ ± t √(s²_d/n + Var log seconds, today + Var log seconds, recommended), degrees of freedom by
    Welch–Satterthwaite, chance = P(t < d̄/se).

    A run did not (infinite): the *median* ratio with order statistics, widened by the t interval
    of the seconds, and chance 1 − P(Binomial(m, ½) ≥ wins) over the m pairs that are not tied.
    infinite/finite = ∞, finite/infinite = 0, infinite/infinite is a tie, ratio 1. Between two
    middle ratios of which one is 0 or ∞ the value is the point nearest to 1. Where n pairs cannot
    give the coverage (below 5 at 90 %), the ends are open: 0 and ∞.

    Args:
        today: Updates, seconds, samples or cost to target per seed, infinite if never. Shape
            ``[n]``.
        recommended: The same for the recommendation, same seeds in the same order. Shape ``[n]``.
        today_seconds_log_var: Variance of the log seconds per update behind ``today``
            (:func:`log_mean`), times the squared share of the cost that is time where ``today`` is
            a cost. 0 if it is no time.
        today_seconds_dof: Its degrees of freedom.
        recommended_seconds_log_var: The same for ``recommended``.
        recommended_seconds_dof: Its degrees of freedom.
        grid_log_var: Sum of :func:`grid_log_var` of both sides; not divided by n, since all seeds
            may be rounded alike.
        source: What measured it.
        level: Coverage, between 0 and 1.

    Returns:
        Ratio with interval, wins, pairs, chance, method.

    Raises:
        InvalidValueError: If the two differ in length, a value is NaN or not positive, or a
            variance is negative or not finite.

    Assumes:
        Independent pairs; log ratios roughly normal (t) or nothing (sign); blocks of seconds
        independent of the seeds and of each other.

    Example:
        >>> print(paired_log_ratio(np.array([4.0, 6.0, 5.0]), np.array([2.0, 3.1, 2.4])).estimate)
        2.01 (1.88 to 2.13, n = 3)
    """
    before, after = _pair(today, recommended)
    if not ((before > 0).all() and (after > 0).all()):
        raise InvalidValueError(must("today and recommended", "positive", [*before, *after]))
    parts = (
        _known_part("today_seconds_log_var", today_seconds_log_var, today_seconds_dof),
        _known_part(
            "recommended_seconds_log_var", recommended_seconds_log_var, recommended_seconds_dof
        ),
        _known_part("grid_log_var", grid_log_var, math.inf),
    )
    gains = _minus(np.log(before), np.log(after))
    gain = _compare(gains, parts, level, bool(np.isfinite([before, after]).all()))
    ratio, low, high = (float(np.exp(x)) for x in (gain.value, gain.low, gain.high))
    found = _paired(Estimate(ratio, low, high, gains.size, "", source, level), gains, gain)
    return replace(found, rest=sum(part.variance for part in parts))


def paired_difference(
    today: Sample,
    recommended: Sample,
    *,
    maximise: bool,
    unit: str = "",
    source: str = "",
    level: float = 0.9,
) -> Paired:
    """Difference recommended − today of a metric over pairs that share a seed.

    d̄ ± t_{n−1} s_d/√n. Where a run diverged (NaN counts as worst), the median difference and the
    sign test, as in :func:`paired_log_ratio`; two diverged runs are a tie, and the ends −∞ and ∞
    mean open.

    Args:
        today: Metric per seed, NaN if the run diverged. Shape ``[n]``.
        recommended: The same for the recommendation, same seeds in the same order. Shape ``[n]``.
        maximise: Whether more is better; turns wins and chance round, not the difference.
        unit: Unit of the metric.
        source: What measured it.
        level: Coverage, between 0 and 1.

    Returns:
        Difference with interval, wins, pairs, chance, method.

    Raises:
        InvalidValueError: If the two differ in length.

    Assumes:
        Independent pairs; differences roughly normal (t) or nothing (sign).

    Example:
        >>> result = paired_difference(np.array([1.0, 2.0]), np.array([0.9, 1.9]), maximise=False)
        >>> round(result.estimate.value, 3), result.wins
        (-0.1, 2)
    """
    before, after = _pair(today, recommended, nan=True)
    gains = _minus(_score(after, maximise), _score(before, maximise))
    gain = _compare(gains, (), level, bool(np.isfinite([before, after]).all()))
    low, high = (gain.low, gain.high) if maximise else (-gain.high, -gain.low)
    value = gain.value if maximise else -gain.value
    return _paired(Estimate(value, low, high, gains.size, unit, source, level), gains, gain)


def slope(x: Sample, y: Sample, unit: str = "", source: str = "", level: float = 0.9) -> Estimate:
    """Slope of the least-squares line, with Student's t interval.

    b = Σ(x−x̄)(y−ȳ)/Σ(x−x̄)², b ± t_{n−2} √(RSS/(n−2)/Σ(x−x̄)²).

    Args:
        x: Positions. Shape ``[n]``, n ≥ 2, not all equal.
        y: Values. Shape ``[n]``.
        unit: Unit of y per unit of x.
        source: What measured it.
        level: Coverage, between 0 and 1.

    Returns:
        The slope; the interval is NaN at n = 2.

    Raises:
        InvalidValueError: If there are fewer than two different finite positions, or lengths
            differ.

    Assumes:
        Independent errors of equal size around a line.

    Example:
        >>> slope(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])).value
        2.0
    """
    at, values = _pair(x, y, names=("x", "y"))
    centred = at - at.mean()
    spread = float(centred @ centred)
    if not (np.isfinite(values).all() and spread > 0 and math.isfinite(spread)):
        raise InvalidValueError(
            must("x and y", "finite, with at least two different x", [*at, *values])
        )
    value = float(centred @ values) / spread
    residuals = values - values.mean() - value * centred
    dof = at.size - 2
    part = Part(float(residuals @ residuals) / dof / spread if dof else math.nan, dof)
    half = half_width((part,), level) if dof else math.nan
    return Estimate(value, value - half, value + half, at.size, unit, source, level)


def slopes(x: Sample, y: Float[np.ndarray, "rows n"]) -> Sample:
    """Slope of the least-squares line of each row.

    Args:
        x: Positions, the same for every row, not all equal. Shape ``[n]``.
        y: Values.

    Returns:
        One slope a row.

    Example:
        >>> rows = np.array([[1.0, 3.0, 5.0], [2.0, 2.0, 2.0]])
        >>> slopes(np.array([0.0, 1.0, 2.0]), rows).tolist()
        [2.0, 0.0]
    """
    centred = x - x.mean()
    return y @ centred / (centred @ centred)


def smallest_detectable_ratio(
    log_sd: float, n: int, *, rest: float = 0.0, level: float = 0.9, power: float = 0.8
) -> float:
    """The smallest true ratio that n pairs would show, with ``power``, to be above 1.

    The smallest r for which P(lower end of the interval > 1) = ``power``: noncentral t with
    n − 1 degrees of freedom and noncentrality log r / √(sd²/n + rest). The half-width of the
    interval alone would be found half of the time.

    Args:
        log_sd: Standard deviation of one pair's log ratio; :data:`TYPICAL_LOG_SD` before anything
            is measured.
        n: Pairs.
        rest: Variance of the log ratio that is not scatter between seeds (:attr:`Paired.rest`).
        level: Coverage of the two-sided interval.
        power: Share of repetitions in which it would be shown.

    Returns:
        A ratio above 1; infinite below two pairs.

    Raises:
        InvalidValueError: If ``log_sd`` is negative or NaN, or a share is none.

    Assumes:
        Log ratios roughly normal.

    Example:
        >>> round(smallest_detectable_ratio(0.28, 8), 2)
        1.32
    """
    _spread(log_sd)
    if n < 2:
        return math.inf
    limit = _t_quantile(n - 1, _level(level))
    noncentrality = float(special.nctdtrinc(n - 1, 1 - _level(power, "power"), limit))
    return math.exp(noncentrality * math.sqrt(log_sd**2 / n + rest))


def repeats_to_decide(
    ratio: float,
    log_sd: float,
    n: int,
    worth: float = 1.2,
    *,
    rest: float = 0.0,
    level: float = 0.9,
    power: float = 0.8,
    cap: int = 64,
) -> int | None:
    """How many more pairs would decide between *change* and *keep*.

    With m pairs in all, of which n are known and the others scatter around the same ratio, the new
    estimate lies within z·sd·√(m−n)/m of log ratio on the unfavourable side with probability
    ``power``. Deciding takes, with that much taken off: *change* (ratio ≥ worth) a lower end above
    1 and a ratio still ≥ worth; *keep* (ratio < worth) an upper end below worth.

    Args:
        ratio: The ratio as it looks now.
        log_sd: Standard deviation of one pair's log ratio.
        n: Pairs so far.
        worth: Smallest ratio worth a change.
        rest: Variance of the log ratio that more pairs do not lower (:attr:`Paired.rest`).
        level: Coverage of the interval.
        power: Chance that this many will decide, if ratio and spread are what they look like.
        cap: Most further pairs worth naming.

    Returns:
        Further pairs, 0 if already decided, None if more than ``cap`` would be needed.

    Raises:
        InvalidValueError: If ``ratio`` is not positive and finite or ``log_sd`` is negative or
            NaN.

    Assumes:
        Log ratios roughly normal.

    Example:
        >>> repeats_to_decide(1.3, 0.4, 8), repeats_to_decide(1.19, 0.3, 8)
        (5, None)
    """
    _spread(log_sd)
    if not (0 < ratio < math.inf):
        raise InvalidValueError(must("ratio", "positive and finite", ratio))
    m = np.arange(max(n, 2), n + cap + 1)
    half = _t_quantile(m - 1, _level(level)) * np.sqrt(log_sd**2 / m + rest)
    luck = special.ndtri(_level(power, "power")) * log_sd * np.sqrt(m - n) / m
    gain, enough = math.log(ratio), math.log(worth)
    change = (gain - luck > half) & (gain - luck >= enough)
    keep = gain + luck + half < enough
    return _first(m - n, change if gain >= enough else keep)


def sign_repeats_to_decide(
    today: Sample,
    recommended: Sample,
    worth: float = 1.2,
    *,
    level: float = 0.9,
    cap: int = 64,
) -> int | None:
    """How many more pairs would decide where a run never reached the target.

    The order-statistic interval of m pairs decides if at most k(m) − 1 of them stand against it
    (ratio ≤ 1 for *change*, ratio ≥ worth for *keep*); that many are expected if the share so far
    continues.

    Args:
        today: Time to target per seed, infinite if never. Shape ``[n]``.
        recommended: The same for the recommendation. Shape ``[n]``.
        worth: Smallest ratio worth a change.
        level: Coverage of the interval.
        cap: Most further pairs worth naming.

    Returns:
        Further pairs, 0 if already decided, None if more than ``cap`` would be needed.

    Raises:
        InvalidValueError: If the two differ in length or hold NaN.

    Assumes:
        Independent pairs.

    Example:
        >>> sign_repeats_to_decide(np.array([np.inf, 3.0, 3.0]), np.array([1.0, 1.0, 1.0]))
        2
    """
    before, after = _pair(today, recommended)
    gains, enough = _minus(np.log(before), np.log(after)), math.log(worth)
    against = gains <= 0 if _middle(np.sort(gains)) >= enough else gains >= enough
    more = np.arange(cap + 1)
    expected = [math.ceil(against.mean() * (gains.size + extra) - 1e-9) for extra in more]
    allowed = [_interval_rank(gains.size + int(extra), level) - 1 for extra in more]
    return _first(more, np.array(expected) <= np.array(allowed))


def _compare(gains: np.ndarray, parts: tuple[Part, ...], level: float, all_finite: bool) -> _Gain:
    """Student t where every run is finite and there are two pairs; else the sign test."""
    if all_finite and gains.size > 1:
        return _compare_t(gains, parts, level)
    return _compare_sign(gains, parts, level)


def _compare_t(gains: np.ndarray, parts: tuple[Part, ...], level: float) -> _Gain:
    value, every = float(gains.mean()), (_mean_part(gains), *parts)
    half, (variance, dof) = half_width(every, level), sum_of_parts(every)
    se = math.sqrt(variance)
    z = value / se if se > 0 else math.copysign(math.inf, value) if value else 0.0
    least = 0.5**gains.size
    chance = float(np.clip(special.stdtr(dof, z), least, 1 - least))
    sd = float(gains.std(ddof=1))
    return _Gain(value, value - half, value + half, chance, "paired-t", sd)


def _compare_sign(gains: np.ndarray, parts: tuple[Part, ...], level: float) -> _Gain:
    order, n, k = np.sort(gains), gains.size, _interval_rank(gains.size, level)
    margin = half_width(parts, level)
    low, high = (order[k - 1] - margin, order[n - k] + margin) if k else (-math.inf, math.inf)
    decided, wins = int((gains != 0).sum()), int((gains > margin).sum())
    fewer = sum(math.comb(decided, i) for i in range(wins))
    chance = fewer / 2**decided if decided else 0.5
    return _Gain(_middle(order), float(low), float(high), chance, "sign", math.nan)


def _paired(estimate: Estimate, gains: np.ndarray, gain: _Gain) -> Paired:
    return Paired(estimate, int((gains > 0).sum()), gains.size, gain.chance, gain.method, gain.sd)


def _middle(order: np.ndarray) -> float:
    """Median; if one of the two middle values is infinite, the point between nearest to 0."""
    lower, upper = float(order[(order.size - 1) // 2]), float(order[order.size // 2])
    middle = lower if lower == upper else (lower + upper) / 2
    return middle if math.isfinite(lower) and math.isfinite(upper) else min(max(0.0, lower), upper)


def sum_of_parts(parts: Sequence[Part]) -> Part:
    """Welch–Satterthwaite: V = Σ vᵢ, ν = V²/Σ(vᵢ²/νᵢ).

    Args:
        parts: Independent parts of a variance.

    Source:
        Welch, Biometrika 34 (1947).

    Example:
        >>> sum_of_parts((Part(1.0, 4.0), Part(1.0, 4.0)))
        Part(variance=2.0, dof=8.0)
    """
    total = sum(part.variance for part in parts)
    weighted = sum(part.variance**2 / part.dof for part in parts if part.variance > 0)
    return Part(total, total**2 / weighted if weighted > 0 else math.inf)


def half_width(parts: Sequence[Part], level: float) -> float:
    """t·√V of the sum of some parts: half of a two-sided interval.

    Args:
        parts: Independent parts of a variance.
        level: Coverage, between 0 and 1.

    Example:
        >>> round(half_width((Part(1.0, math.inf),), level=0.9), 3)
        1.645
    """
    variance, dof = sum_of_parts(parts)
    return float(_t_quantile(dof, _level(level))) * math.sqrt(variance)


def _t_quantile(dof: float | np.ndarray, level: float) -> float | np.ndarray:
    """The t that a two-sided interval of coverage ``level`` needs."""
    return special.stdtrit(dof, (1 + level) / 2)


def _known_part(name: str, variance: float, dof: float) -> Part:
    if not (0 <= variance < math.inf and dof > 0):
        hint = "One block alone has no variance: measure two or more."
        raise InvalidValueError(must(name, "finite, at least 0", (variance, dof), hint))
    return Part(variance, dof)


def _mean_part(sample: np.ndarray) -> Part:
    """Variance of the mean of a sample, and its degrees of freedom."""
    n = sample.size
    return Part(float(sample.var(ddof=1)) / n if n > 1 else math.nan, n - 1)


def _interval_rank(n: int, level: float) -> int:
    """Largest k with P(Binomial(n, ½) < k) ≤ (1 − level)/2; 0 if there is none."""
    tail = np.cumsum([math.comb(n, i) for i in range(n // 2 + 1)]) / 2.0**n
    return int((tail <= (1 - _level(level)) / 2 + 1e-12).sum())


def _first(candidates: np.ndarray, decided: np.ndarray) -> int | None:
    return int(candidates[decided.argmax()]) if decided.any() else None


def _minus(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The difference a − b, where two equal infinities are a tie."""
    tie = np.isinf(a) & (a == b)
    return np.where(tie, 0.0, np.where(tie, 0.0, a) - np.where(tie, 0.0, b))


def _score(metric: np.ndarray, maximise: bool) -> np.ndarray:
    """The metric turned so that more is better; NaN is worst."""
    turned = metric if maximise else -metric
    return np.where(np.isnan(turned), -np.inf, turned)


def _pair(
    a: Sample, b: Sample, *, nan: bool = False, names: tuple[str, str] = ("today", "recommended")
) -> tuple[np.ndarray, np.ndarray]:
    first, second = _sample(names[0], a, nan=nan), _sample(names[1], b, nan=nan)
    if first.size != second.size:
        raise InvalidValueError(
            must(names[1], f"as long as `{names[0]}` ({first.size})", second.size)
        )
    return first, second


def _sample(name: str, values: Sample, *, nan: bool = False) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or array.size == 0:
        raise InvalidValueError(must(name, "a list of at least one number", array.tolist()))
    if not nan and np.isnan(array).any():
        raise InvalidValueError(must(name, "free of NaN", array.tolist()))
    return array


def _level(level: float, name: str = "level") -> float:
    if not 0 < level < 1:
        raise InvalidValueError(must(name, "between 0 and 1", level))
    return level


def _spread(log_sd: float) -> None:
    if not 0 <= log_sd < math.inf:
        raise InvalidValueError(must("log_sd", "at least 0 and finite", log_sd))
