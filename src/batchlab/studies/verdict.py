"""How a claim came out: the 99 % interval of what was measured against the predicted range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from batchlab.errors import InvalidValueError, must
from batchlab.stats import clamped, mean_estimate, median_estimate, share_estimate
from batchlab.studies.claim import Claim, Sample, Statistic
from batchlab.types import Estimate

LEVEL = 0.99
POWER = 0.9
"""Least probability of *reproduced* at the planned n, if the source is right."""
MOST = 10**6
"""More repetitions than this are not named."""
NODES = 400


class Outcome(StrEnum):
    """What the interval says about the claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    INCONCLUSIVE = "inconclusive"
    MEASURED = "measured"
    """Of a finding, which predicts nothing."""


@dataclass(frozen=True)
class Judged:
    """One claim and what became of it.

    Attributes:
        id: The claim's short name.
        verdict: The outcome.
        value: Of the statistic; NaN if some repetition gave no number.
        low: Lower end of its interval.
        high: Upper end.
        n: Repetitions measured.
        unit: Of the value.
        level: Coverage of the interval.
        predicted_low: Lower end of the predicted range; −inf where there is none.
        predicted_high: Upper end.
        source: Citation key, with equation or figure.
        needed: Repetitions for a probability of 0.9 of *reproduced*, were the source right, where
            the planned ones were known beforehand to be fewer; 0 where they suffice; None where
            no number of them was known to.
        needs_full: Whether ``--full`` takes so many.
        variant: Parameters that were not the study's own, as ``key=value``.
        decides: Repetitions in all that would probably decide; None if it is decided or cannot be.
        missing: Repetitions that gave no number.
    """

    id: str
    verdict: Outcome
    value: float
    low: float
    high: float
    n: int
    unit: str
    level: float
    predicted_low: float
    predicted_high: float
    source: str
    needed: int | None = 0
    needs_full: bool = False
    variant: tuple[str, ...] = ()
    decides: int | None = None
    missing: int = 0

    @property
    def estimate(self) -> Estimate:
        """The number with its interval."""
        return Estimate(
            self.value, self.low, self.high, self.n, self.unit, self.source, self.level
        )


def judge(
    claim: Claim, values: Sample, variant: tuple[str, ...] = (), *, full: Claim | None = None
) -> Judged:
    """Inside the predicted range *reproduced*, disjoint from it *not reproduced*, else open.

    Args:
        claim: What was predicted.
        values: One number per repetition, NaN where one gave none. Shape ``[n]``.
        variant: Parameters that were not the study's own.
        full: The same claim as ``--full`` plans it, where that is another.

    Returns:
        The outcome with its interval at 99 %. A repetition without a number leaves the claim open:
        leaving it out would choose among the repetitions.

    Raises:
        InvalidValueError: If there are not as many repetitions as were planned.
    """
    sample = np.asarray(values, dtype=float)
    if sample.size != claim.n:
        words = f"{claim.n} repetitions, as planned"
        raise InvalidValueError(must(f"values of {claim.id}", words, sample.size))
    # A median is known although some repetitions are infinite.
    median = claim.statistic is Statistic.MEDIAN
    missing = int((np.isnan(sample) if median else ~np.isfinite(sample)).sum())
    if missing:
        found = Estimate(math.nan, -math.inf, math.inf, sample.size, claim.unit)
    else:
        found = clamped(estimate(claim.statistic, sample, claim.unit), *claim.bounds)
    verdict = outcome(claim, found)
    known = sample.size > 1 and np.isfinite(sample).all()
    spread = float(sample.std(ddof=1)) if known else math.nan
    return Judged(
        id=claim.id,
        verdict=verdict,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        unit=claim.unit,
        level=LEVEL,
        predicted_low=claim.low,
        predicted_high=claim.high,
        source=claim.source,
        needed=needed(claim),
        needs_full=needs_full(claim, full),
        variant=variant,
        decides=_decides(claim, found, spread) if verdict is Outcome.INCONCLUSIVE else None,
        missing=missing,
    )


def estimate(
    statistic: Statistic, values: Sample, unit: str = "", level: float = LEVEL
) -> Estimate:
    """Repetitions as one number with an interval.

    Args:
        statistic: Which number.
        values: One per repetition. Shape ``[n]``.
        unit: Of the values.
        level: Coverage.

    Raises:
        InvalidValueError: If a repetition of a share is neither 0 nor 1.

    Example:
        >>> estimate(Statistic.SHARE, np.ones(100)).low > 0.94
        True
    """
    if statistic is Statistic.SHARE:
        if not np.isin(values, (0, 1)).all():
            other = values[~np.isin(values, (0, 1))][0]
            raise InvalidValueError(must("values", "0 or 1 for a share", float(other)))
        return share_estimate(int(np.sum(values)), len(values), level=level)
    if statistic is Statistic.MEDIAN:
        return median_estimate(values, unit, level=level)
    return mean_estimate(values, unit, level=level)


def outcome(claim: Claim, found: Estimate) -> Outcome:
    """The verdict that an interval gives.

    The only finite end of a range is open: of "A > B", no difference is not a reproduction. Two
    finite ends belong to the range.

    Args:
        claim: What was predicted.
        found: What was measured, with its interval.
    """
    if claim.finding:
        return Outcome.MEASURED
    if math.isnan(found.low) or math.isnan(found.high):
        return Outcome.INCONCLUSIVE
    if _within(found.low, found.high, claim.low, claim.high):
        return Outcome.REPRODUCED
    open_end = math.isinf(claim.low) or math.isinf(claim.high)
    below, above = found.high - claim.low, found.low - claim.high
    apart = below < 0 or above > 0 or (open_end and (below == 0 or above == 0))
    return Outcome.NOT_REPRODUCED if apart else Outcome.INCONCLUSIVE


def _within(low: float, high: float, least: float, most: float) -> bool:
    if math.isinf(least) or math.isinf(most):
        return (math.isinf(least) or low > least) and (math.isinf(most) or high < most)
    return least <= low and high <= most


def suffices(claim: Claim) -> bool:
    """Whether the planned n gives *reproduced* with probability 0.9, were the source right.

    Args:
        claim: With its range, n, expected value and spread; one whose spread is not known is not
            known to have enough.
    """
    return claim.finding or power(question(claim), claim.n) >= POWER


def needed(claim: Claim) -> int | None:
    """Repetitions that would suffice where the planned ones do not.

    Args:
        claim: With its range, n, expected value and spread.

    Returns:
        0 where they suffice; None where no number of them is known to.
    """
    return 0 if suffices(claim) else repetitions(question(claim))


def needs_full(claim: Claim, full: Claim | None) -> bool:
    """Whether the planned n is too few, and ``--full`` takes enough.

    Args:
        claim: As it is planned.
        full: As ``--full`` plans it, or None.
    """
    return full is not None and not suffices(claim) and suffices(full)


class Question(NamedTuple):
    """Whether an interval will lie within a range.

    Attributes:
        statistic: Of which number.
        low: Lower end of the range.
        high: Upper end.
        expected: What a repetition gives on average; of a median, in the middle.
        spread: Standard deviation of one repetition; a share has its own.
    """

    statistic: Statistic
    low: float
    high: float
    expected: float
    spread: float


def question(claim: Claim) -> Question:
    """The question that a claim asks, if its source is right."""
    return Question(claim.statistic, claim.low, claim.high, claim.expected, claim.spread)


def power(asked: Question, n: int) -> float:
    r"""Probability that the interval of n repetitions lies within the range.

    Mean: x̄ ± t s/√n within [L, U], over normal x̄ and χ² distributed s²:

        E_s[ Φ((U − μ − t s/√n)√n/σ) − Φ((L − μ + t s/√n)√n/σ) ]₊

    Share: the binomial probability of the counts whose interval lies within. Median: at most k − 1
    repetitions below L and at most k − 1 above U, trinomial.

    Args:
        asked: Range, statistic, expected value and spread.
        n: Repetitions, at least 1.

    Returns:
        In [0, 1].

    Assumes:
        Independent repetitions; roughly normal for mean and median.

    Example:
        >>> round(power(Question(Statistic.MEAN, 0.0, math.inf, expected=1.0, spread=0.5), n=8), 2)
        0.95
    """
    if asked.statistic is Statistic.SHARE:
        return _share_power(asked, n)
    if n < _fewest(asked.statistic) or math.isnan(asked.spread):
        return 0.0
    if asked.spread == 0:
        return float(_within(asked.expected, asked.expected, asked.low, asked.high))
    return (_median_power if asked.statistic is Statistic.MEDIAN else _mean_power)(asked, n)


def repetitions(asked: Question, power_wanted: float = POWER) -> int | None:
    """Fewest repetitions that put the interval within the range with that probability.

    Args:
        asked: Range, statistic, expected value and spread.
        power_wanted: Probability.

    Returns:
        n, within 1 % above 100; None if more than a million would be needed, or the spread is
        not known.

    Example:
        >>> repetitions(Question(Statistic.MEAN, 0.0, math.inf, expected=1.0, spread=0.5))
        8
    """
    share = asked.statistic is Statistic.SHARE
    if math.isnan(asked.spread) and not share:
        return None
    most = MOST // 100 if share else MOST
    high = 2
    while power(asked, high) < power_wanted:
        if high >= most:
            return None
        high *= 2
    low = high // 2
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if power(asked, middle) >= power_wanted else (middle, high)
    return high


def _fewest(statistic: Statistic) -> int:
    """Repetitions below which there is no interval; of a median, 2 · ½ⁿ ≤ 1 − level."""
    return math.ceil(1 - math.log2(1 - LEVEL)) if statistic is Statistic.MEDIAN else 2


def _mean_power(asked: Question, n: int) -> float:
    levels = (np.arange(NODES) + 0.5) / NODES
    s = asked.spread * np.sqrt(stats.chi2.ppf(levels, n - 1) / (n - 1))
    half = special.stdtrit(n - 1, (1 + LEVEL) / 2) * s / math.sqrt(n)
    scale = math.sqrt(n) / asked.spread
    above = special.ndtr((asked.high - asked.expected - half) * scale)
    below = special.ndtr((asked.low - asked.expected + half) * scale)
    return float(np.maximum(above - below, 0.0).mean())


def _share_power(asked: Question, n: int) -> float:
    counts = np.arange(n + 1)
    tail = (1 - LEVEL) / 2
    with np.errstate(invalid="ignore"):
        lows = np.where(counts > 0, special.betaincinv(counts, n - counts + 1, tail), 0.0)
        highs = np.where(counts < n, special.betaincinv(counts + 1, n - counts, 1 - tail), 1.0)
    pairs = zip(lows.tolist(), highs.tolist(), strict=True)
    inside = np.array([_within(a, b, asked.low, asked.high) for a, b in pairs])
    return float(stats.binom.pmf(counts, n, asked.expected)[inside].sum())


def _median_power(asked: Question, n: int) -> float:
    rank = int((stats.binom.cdf(np.arange(n), n, 0.5) <= (1 - LEVEL) / 2 + 1e-12).sum())
    below = float(special.ndtr((asked.low - asked.expected) / asked.spread))
    above = float(special.ndtr((asked.expected - asked.high) / asked.spread))
    # i below the range and, of the others, at most rank − 1 above it.
    i = np.arange(min(rank, n))
    rest = above / (1 - below) if below < 1 else 0.0
    return float((stats.binom.pmf(i, n, below) * stats.binom.cdf(rank - 1, n - i, rest)).sum())


def _decides(claim: Claim, found: Estimate, spread: float) -> int | None:
    """Repetitions with which what was seen would probably be decided, or None."""
    if not math.isfinite(found.value) or math.isnan(spread):
        return None
    ranges = ((claim.low, claim.high), (-math.inf, claim.low), (claim.high, math.inf))
    low, high = next((a, b) for a, b in ranges if a <= found.value <= b)
    return repetitions(Question(claim.statistic, low, high, found.value, spread))
