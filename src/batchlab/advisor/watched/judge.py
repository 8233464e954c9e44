"""An alternative beside today's settings: pairs, the ratio, the verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchlab.advisor.answer import comparison, counted_as_gain, further_pairs, metric_row
from batchlab.advisor.decision import choose, decide, fails_more
from batchlab.advisor.record import (
    Change,
    Comparison,
    Failures,
    MetricInfo,
    NextStage,
    NoisePoint,
    Price,
    Setting,
    Verdict,
)
from batchlab.advisor.watched.groups import (
    Group,
    Pair,
    changes,
    decided_times,
    end_value,
    paired,
    spacing,
)
from batchlab.stats import (
    TYPICAL_LOG_SD,
    Paired,
    grid_log_var,
    median_estimate,
    paired_log_ratio,
    repeats_to_decide,
    sign_repeats_to_decide,
    smallest_detectable_ratio,
)
from batchlab.types import Status


@dataclass(frozen=True)
class Asked:
    """What is asked of watched trainings.

    Attributes:
        task: What they are called together.
        command: What was typed.
        version: batchlab's.
        created: When the last of them began, ISO time.
        price: What an hour costs, or None.
        worth: Smallest ratio worth a change.
        metric: By which to judge, or None to choose.
        target: Value that counts as trained, or None for what today's trainings reach.
        noise: Noise scale along the first of today's trainings.
        sgd: Whether its optimizer is of the SGD family.
        provenance: Versions and machine of the first.
        said: Sentences about what was assumed.
    """

    task: str
    command: str = ""
    version: str = ""
    created: str = ""
    price: Price | None = None
    worth: float = 1.2
    metric: str | None = None
    target: float | None = None
    noise: tuple[NoisePoint, ...] = ()
    sgd: bool = True
    provenance: dict[str, str] = dataclasses.field(default_factory=dict)
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """One alternative beside today's settings.

    Attributes:
        group: The alternative.
        pairs: Pairs of which both runs have reached the goal, or can no longer do so.
        times: [today, other] × [seconds, examples] × pairs, infinite for never.
        open: Pairs left out, because a run may yet reach it.
        changed: Settings in which it differs.
    """

    group: Group
    pairs: tuple[Pair, ...]
    times: np.ndarray
    open: int
    changed: tuple[Change, ...]

    def part(self, kept: slice) -> Judged:
        """Some of the pairs."""
        return dataclasses.replace(self, pairs=self.pairs[kept], times=self.times[:, :, kept])


def judge(today: Group, other: Group, metric: MetricInfo, target: float) -> Judged:
    """Pair an alternative's trainings with today's, and see when each reached the goal.

    Args:
        today: With today's settings.
        other: With others.
        metric: What the goal is a value of.
        target: The goal.
    """
    pairs = paired(today.runs, other.runs)
    kept, times = decided_times(pairs, metric, target)
    differ = changes(today.setting, other.setting)
    return Judged(other, kept, times, len(pairs) - len(kept), differ)


def chosen(judged: Sequence[Judged]) -> tuple[Judged, bool]:
    """The best alternative, on part of the pairs, and the others of its pairs, which judge it.

    Args:
        judged: Every alternative.

    Returns:
        The best with the pairs that judge it, and whether these had no part in choosing it.
    """
    if len(judged) == 1:
        return judged[0], True
    known = [one for one in judged if one.pairs]
    if not known:
        return judged[0], False
    halves = [max(1, len(one.pairs) // 2) for one in known]
    count = min(halves)
    times = {one.group.setting.id: one.times[1, 0, :count] for one in known}
    number = {one.group.setting.id: len(one.changed) for one in known}
    name = choose(times, baseline="", changes=number)
    best = next(one for one in known if one.group.setting.id == name)
    fresh = best.part(slice(count, None))
    return (fresh, True) if fresh.pairs else (best, False)


def _ratio(judged: Judged, metric: MetricInfo, before: np.ndarray, after: np.ndarray) -> Paired:
    """Today / other, pair by pair, with the rounding of looking only now and then."""
    sides = [[p.today for p in judged.pairs], [p.other for p in judged.pairs]]
    grid = sum(
        grid_log_var(seconds, spacing(side, metric.name))
        for side, seconds in zip(sides, judged.times[:, 0], strict=True)
    )
    finite = float(grid) if math.isfinite(grid) else 0.0
    return paired_log_ratio(before, after, grid_log_var=finite, source="paired by seed")


def _quantity(judged: Judged, quantity: str, price: Price | None) -> tuple[np.ndarray, np.ndarray]:
    seconds, samples = judged.times[:, 0], judged.times[:, 1]
    if quantity == "cost":
        assert price is not None
        found = cost_of(seconds, samples, price)
    else:
        found = seconds if quantity == "time" else samples
    return found[0], found[1]


def _comparisons(judged: Judged, metric: MetricInfo, asked: Asked) -> tuple[Comparison, ...]:
    """Time first, then cost, examples, and the metric where both ended."""
    rows = []
    units = {
        "time": "s",
        "cost": asked.price.currency if asked.price else "",
        "samples": "examples",
    }
    for quantity in ("time", "cost", "samples") if asked.price else ("time", "samples"):
        before, after = _quantity(judged, quantity, asked.price)
        today, other = (median_estimate(side, units[quantity]) for side in (before, after))
        rows.append(comparison(quantity, today, other, _ratio(judged, metric, before, after)))
    ended = [(p.today, p.other) for p in judged.pairs if p.today.ended and p.other.ended]
    today_ends, ends = (
        np.array([end_value(pair[i], metric.name) for pair in ended]) for i in (0, 1)
    )
    row = metric_row(metric, "validation", today_ends, ends)
    return (*rows, row) if row is not None else tuple(rows)


def _verdict(judged: Judged, metric: MetricInfo, failed: Failures, worth: float) -> Verdict:
    before, after = _quantity(judged, "time", None)
    counts = (failed.today, failed.today_runs), (failed.recommended, failed.recommended_runs)
    ratio = _ratio(judged, metric, before, after).estimate
    found = decide(ratio, worth, at_least_met=not fails_more(*counts))
    # A pair of runs of which neither arrived says nothing: it counts against *keep*.
    most = _ratio(judged, metric, before, counted_as_gain(before, after)).estimate.high
    return found if found is not Verdict.KEEP or most < worth else Verdict.NOT_ENOUGH_EVIDENCE


def _failures(judged: Judged) -> Failures:
    """Runs of the pairs that diverged, did not learn or never reached the goal."""
    counts = [
        sum(
            math.isinf(time) or (p.today, p.other)[i].status is not Status.OK
            for p, time in zip(judged.pairs, times, strict=True)
        )
        for i, times in enumerate(judged.times[:, 0])
    ]
    n = len(judged.pairs)
    return Failures(counts[0], n, counts[1], n)


def _repeats(judged: Judged, metric: MetricInfo, worth: float) -> int:
    """Further pairs that would decide, 0 if none would. The spread of one pair is not known: it is
    taken to be the usual one.
    """
    before, after = _quantity(judged, "time", None)
    paired_ = _ratio(judged, metric, before, after)
    ratio = paired_.estimate.value
    if len(judged.pairs) == 1 and 0 < ratio < math.inf:
        return repeats_to_decide(ratio, TYPICAL_LOG_SD, 1, worth, rest=paired_.rest) or 0
    if len(judged.pairs) == 1 and np.isinf(before).any() != np.isinf(after).any():
        return sign_repeats_to_decide(before, after, worth) or 0
    return further_pairs(paired_, before, after, worth)


def _next(judged: Judged, repeats: int, asked: Asked) -> NextStage | None:
    if not repeats:
        return None
    each = np.mean([p.today.wall + p.other.wall for p in judged.pairs])
    seconds = repeats * float(each)
    return NextStage(
        "more-repeats", seconds, price_of(seconds, asked.price), asked.command, repeats
    )


def cost_of(seconds: np.ndarray, samples: np.ndarray, price: Price) -> np.ndarray:
    """What so much time and data cost, infinite where they are.

    Example:
        >>> cost_of(np.array([1800.0, math.inf]), np.array([1.0, math.inf]), Price(2.0, "USD"))
        array([ 1., inf])
    """
    parts = ((seconds, price.per_hour / 3600), (samples, price.per_sample))
    # 0 times infinity is no number.
    return sum((amount * rate for amount, rate in parts if rate), np.zeros_like(seconds))


def price_of(seconds: float, price: Price | None) -> float | None:
    """What so much time costs; None without a price.

    Example:
        >>> price_of(1800.0, Price(2.0, "USD"))
        1.0
    """
    return None if price is None else seconds * price.per_hour / 3600


@dataclass(frozen=True)
class Answer:
    """What a comparison comes to.

    Attributes:
        other: The alternative compared.
        verdict: Change, keep, or not enough evidence.
        rows: By quantity; empty where no pair is complete.
        failures: Of the pairs compared, or None.
        detectable: Smallest ratio that so many pairs would have shown, or None.
        next_stage: More pairs that would decide, or None.
    """

    other: Setting
    verdict: Verdict
    rows: tuple[Comparison, ...] = ()
    failures: Failures | None = None
    detectable: float | None = None
    next_stage: NextStage | None = None


def answer_of(judged: Judged, fresh: bool, metric: MetricInfo, asked: Asked) -> Answer:
    """The verdict on an alternative, by the rules of an advice.

    Args:
        judged: The alternative with the pairs that judge it.
        fresh: Whether these pairs had no part in choosing it; if they had, nothing is decided.
        metric: What the goal is a value of.
        asked: What is asked.
    """
    other, verdict = judged.group.setting, Verdict.NOT_ENOUGH_EVIDENCE
    if not judged.pairs:
        return Answer(other, verdict)
    failed = _failures(judged)
    if fresh:
        verdict = _verdict(judged, metric, failed, asked.worth)
    undecided = verdict is Verdict.NOT_ENOUGH_EVIDENCE
    repeats = _repeats(judged, metric, asked.worth) if undecided else 0
    return Answer(
        other,
        verdict,
        _comparisons(judged, metric, asked),
        failed,
        _detectable(judged, metric),
        _next(judged, repeats, asked),
    )


def _detectable(judged: Judged, metric: MetricInfo) -> float | None:
    """The smallest ratio that so many pairs would have shown; None below two."""
    n = len(judged.pairs)
    if n < 2:
        return None
    found = _ratio(judged, metric, *_quantity(judged, "time", None))
    if not math.isfinite(found.sd):
        return smallest_detectable_ratio(TYPICAL_LOG_SD, n)
    return smallest_detectable_ratio(found.sd, n, rest=found.rest)
