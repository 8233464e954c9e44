"""Whether the order found on a part of the data held on all of it.

Two settings are compared by the time (or money, or samples) to the target that was chosen on the
part. On all data the same target serves where either setting reaches it: the same number of passes
over more examples is more updates, so that a training that would reach the target on the part
usually reaches it earlier in its run. Taking a new target from the pair itself would flatter the
side it came from. But a target of the part can lie far below what all data give, and then speaks
of the beginning of the training only: hence a setting that is faster to it and ends worse, far
beyond the scatter of the pairs on the part, counts as not better. Where neither setting reaches
the target, the metric at the end decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchlab.advisor.judge import Yardstick, final_metric, to_target
from batchlab.advisor.record import Verdict
from batchlab.advisor.stages import Curve
from batchlab.advisor.view import View
from batchlab.stats import paired_difference

SCATTER = 4.0
"""Standard deviations of a pair's difference that a worse end may lie beyond the pairs' mean."""


@dataclass(frozen=True)
class Outcome:
    """Which of two settings did better over some pairs.

    Attributes:
        better: Whether the alternative did better than today's settings.
        by: ``time``, ``cost``, ``samples``, or ``validation``: the metric at the end.
        ratio: Today / alternative in that quantity; NaN for the metric.
    """

    better: bool
    by: str
    ratio: float


@dataclass(frozen=True)
class Order:
    """What the pairs on all data say of the order on the part.

    Attributes:
        held: Whether the one that did better on the part did better again.
        on_part: The fresh pairs on the part.
        on_all: The pairs on all data.
    """

    held: bool
    on_part: Outcome
    on_all: Outcome


def order(view: View) -> Order | None:
    """The order on the part beside the order on all data.

    Args:
        view: The case.

    Returns:
        Both, or None where there is no pair on all data.
    """
    part, whole = view.confirmation, view.records.on_all
    if part is None or whole is None:
        return None
    before = _outcome(view, view.fresh_yardstick, part.today, part.recommended)
    after = _outcome(view, view.yardstick_on_all, whole.today, whole.recommended)
    if after.better and _ends_worse(view):
        after = Outcome(False, "validation", math.nan)
    return Order(before.better == after.better, before, after)


def tempered(view: View, found: Verdict) -> Verdict:
    """The verdict of the part, or *not enough evidence* where all data contradict it.

    *Change* is contradicted where the recommendation was not better on all data, *keep* where the
    alternative was better there, by what is worth a change where that is a ratio.

    Args:
        view: The case.
        found: What the part says.
    """
    told = order(view)
    if told is None:
        return found
    # Where the metric decides there is no ratio, and better is better.
    worth_it = told.on_all.better and not told.on_all.ratio < view.options.worth
    denied = {Verdict.CHANGE: not told.on_all.better, Verdict.KEEP: worth_it}
    return Verdict.NOT_ENOUGH_EVIDENCE if denied.get(found, False) else found


def _outcome(
    view: View, yardstick: Yardstick, today: Sequence[Curve], recommended: Sequence[Curve]
) -> Outcome:
    """By the objective where a run reaches the target, else by the metric at the end."""
    assert view.confirmation is not None
    objective, target = view.options.objective, view.confirmation.target
    before, after = (to_target(side, target, view.maximise) for side in (today, recommended))
    if objective == "accuracy" or not np.isfinite([before, after]).any():
        return Outcome(_gain(view, today, recommended) > 0, "validation", math.nan)
    sides = (before, view.today[0]), (after, view.pace)
    ratio = yardstick.compare(objective, *sides).estimate.value
    return Outcome(ratio > 1, objective, ratio)


def _gain(view: View, today: Sequence[Curve], recommended: Sequence[Curve]) -> float:
    """The metric at the end, recommended − today, turned so that more is better."""
    found = paired_difference(
        final_metric(today), final_metric(recommended), maximise=view.maximise
    ).estimate.value
    return found if view.maximise else -found


def _ends_worse(view: View) -> bool:
    """Whether the alternative ends worse on all data than the scatter of the pairs on the part
    allows for.
    """
    part, whole = view.confirmation, view.records.on_all
    assert part is not None
    assert whole is not None
    sides = final_metric(part.today), final_metric(part.recommended)
    pairs = paired_difference(*sides, maximise=view.maximise)
    usual = _gain(view, part.today, part.recommended)
    allowed = min(0.0, usual - SCATTER * pairs.sd) if math.isfinite(pairs.sd) else -math.inf
    return not _gain(view, whole.today, whole.recommended) >= allowed
