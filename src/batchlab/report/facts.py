"""What the sentences rest on: plain look-ups in the record, no words."""

from __future__ import annotations

import math
from enum import StrEnum

from batchlab.advisor.record import (
    Advice,
    Candidate,
    Comparison,
    MemoryPoint,
    Setting,
    Verdict,
)
from batchlab.types import Evidence

TOO_SMALL_HOURS = 20.0
"""A saving below so many hours of computing a year is called too small to matter."""

LOSS_THAT_MATTERS = 0.01
"""A range that reaches a loss above one point in a hundred, or above 1 % of a metric that is no
share, is not called "no loss".
"""

TRAININGS_A_YEAR = 500
DEMO_HOURS = 3.0
_QUANTITY = {"time": "time", "cost": "cost", "samples": "samples"}


class Case(StrEnum):
    """Which first screen it is."""

    CHANGE = "change"
    KEEP = "keep"
    OPEN = "open"
    SCREENED = "screened"


def case(advice: Advice) -> Case:
    """Which first screen the record calls for.

    Args:
        advice: The record.

    Returns:
        ``screened`` where nothing was compared yet, else the verdict's.
    """
    if advice.stage == "A":
        return Case.SCREENED
    if advice.verdict is Verdict.CHANGE:
        return Case.CHANGE
    return Case.KEEP if advice.verdict is Verdict.KEEP else Case.OPEN


def comparison(advice: Advice, quantity: str) -> Comparison | None:
    """The comparison of one quantity, if there is one.

    Args:
        advice: The record.
        quantity: Such as ``time``.
    """
    return next((c for c in advice.comparisons if c.quantity == quantity), None)


def metric_comparison(advice: Advice) -> Comparison | None:
    """The comparison of the metric: on test data, else on validation data.

    Args:
        advice: The record.
    """
    return comparison(advice, "metric") or comparison(advice, "validation")


def gain(advice: Advice) -> Comparison | None:
    """The ratio that the verdict rests on; None before stage B or where the objective is accuracy.

    Args:
        advice: The record.
    """
    return comparison(advice, _QUANTITY.get(advice.objective, ""))


def alternative(advice: Advice) -> Setting | None:
    """The setting that the comparisons set against today's, or None.

    Args:
        advice: The record.

    Returns:
        The recommendation; where that is today's, what the record names as compared, or the only
        other candidate that was tested as far as the comparisons were.
    """
    if advice.recommended.id != advice.today.id:
        return advice.recommended
    if advice.compared is not None or not advice.comparisons:
        return advice.compared
    others = [c.setting for c in advice.candidates if c.setting.id != advice.today.id]
    tested = [c.setting for c in advice.candidates if c.evidence is advice.evidence]
    rivals = [setting for setting in others if setting in tested]
    return rivals[0] if len(rivals) == 1 else None


def candidate(advice: Advice, setting: Setting | None) -> Candidate | None:
    """The row of the candidate table for a setting.

    Args:
        advice: The record.
        setting: The setting, or None.
    """
    if setting is None:
        return None
    return next((c for c in advice.candidates if c.setting.id == setting.id), None)


def role(advice: Advice, identity: str) -> str:
    """What a setting is in this advice: ``today``, ``recommended``, ``alternative`` or ``other``.

    Args:
        advice: The record.
        identity: The setting's id.
    """
    if identity == advice.today.id:
        return "today"
    if identity == advice.recommended.id:
        return "recommended"
    rival = alternative(advice)
    return "alternative" if rival is not None and identity == rival.id else "other"


def confirmed(advice: Advice) -> bool:
    """Whether full trainings on fresh seeds stand behind the numbers.

    Args:
        advice: The record.
    """
    return advice.evidence is Evidence.CONFIRMED


def proved(advice: Advice) -> bool:
    """Whether full trainings stand behind the numbers, and all the data behind their order.

    Args:
        advice: The record.
    """
    return confirmed(advice) and (advice.part is None or advice.part.repeat is not None)


def neither_arrived(advice: Advice) -> bool:
    """Whether most confirming trainings, with today's settings and with the alternative, did not
    reach the goal, so that a ratio of their times says nothing.

    Args:
        advice: The record.
    """
    compared = gain(advice)
    return confirmed(advice) and compared is not None and unreached(compared)


def unreached(compared: Comparison) -> bool:
    """Whether the middle training reached the goal on neither side.

    Args:
        compared: A comparison of time, cost or samples.
    """
    return math.isinf(compared.today.value) and math.isinf(compared.recommended.value)


def better_but_not_chosen(advice: Advice) -> bool:
    """Whether fresh trainings favour the alternative, but the choosing ones favoured today's
    settings: a choice is not exchanged on the numbers that prove it.

    Args:
        advice: The record.
    """
    compared = gain(advice) or metric_comparison(advice)
    if not advice.today_chosen or compared is None:
        return False
    if compared is gain(advice):
        return compared.difference.low > 1 and compared.difference.value >= advice.worth
    return harm(advice, compared)[1] < 0


def taken_back(advice: Advice) -> bool:
    """Whether all data took back what a part of them said.

    Args:
        advice: The record.
    """
    repeat = advice.part.repeat if advice.part is not None else None
    return repeat is not None and repeat.taken_back


def unmet(advice: Advice) -> tuple[str, ...]:
    """The demands that are not met, as the user wrote them.

    Args:
        advice: The record.
    """
    return tuple(demand for demand, met in advice.at_least.items() if not met)


def harm(advice: Advice, compared: Comparison) -> tuple[float, float]:
    """The metric's change for the worse: middle and worst end of its range, positive means worse.

    Args:
        advice: The record.
        compared: The metric's comparison.
    """
    change = compared.difference
    if advice.metric.maximise:
        return -change.value, -change.low
    return change.value, change.high


def more_failures(advice: Advice) -> bool:
    """Whether more trainings failed with the recommendation, or the alternative, than today.

    Args:
        advice: The record.
    """
    found = advice.failures
    if found is None or not (found.today_runs and found.recommended_runs):
        return False
    return found.recommended / found.recommended_runs > found.today / found.today_runs


def worsened(advice: Advice) -> bool:
    """Whether the metric at the end is worse beyond doubt, on fresh trainings.

    Args:
        advice: The record.
    """
    compared = metric_comparison(advice)
    if compared is None or not confirmed(advice):
        return False
    sign = decided(compared.difference.low, compared.difference.high)
    return sign == (-1 if advice.metric.maximise else 1)


def loss_not_ruled_out(advice: Advice) -> bool:
    """Whether the metric at the end is not worse beyond doubt, but may be by more than a reader
    would let pass: on average it is worse, and its range goes beyond :data:`LOSS_THAT_MATTERS`.

    Args:
        advice: The record.
    """
    compared = metric_comparison(advice)
    if compared is None or worsened(advice) or not confirmed(advice):
        return False
    middle, worst = harm(advice, compared)
    scale = 1.0 if advice.metric.unit == "%" else abs(compared.today.value)
    return middle > 0 and worst > LOSS_THAT_MATTERS * scale


def decided(low: float, high: float) -> int:
    """The sign that a range leaves no doubt about: −1, 0 or 1.

    Example:
        >>> decided(0.1, 0.3), decided(-0.1, 0.3), decided(float("nan"), 1.0)
        (1, 0, 0)
    """
    return 1 if low > 0 else -1 if high < 0 else 0


def pays_for_data(advice: Advice) -> bool:
    """Whether every example has a price, so that time alone does not tell the cost.

    Args:
        advice: The record.
    """
    return advice.price is not None and advice.price.per_sample > 0


def saving(share: float, trainings: float, hours: float) -> float:
    """Hours of computing a year that a ratio of times saves: trainings · hours · (1 − 1/ρ).

    Args:
        share: ρ, the time today / recommended.
        trainings: A year.
        hours: Of one training today.

    Example:
        >>> saving(2.0, 500, 3.0)
        750.0
    """
    return trainings * hours * (1 - 1 / share) if share > 0 else math.nan


def hours_of_one(advice: Advice) -> float:
    """The hours of one training that the money line starts from.

    Args:
        advice: The record.

    Returns:
        Those of a usual job where the task is a demonstration, else the measured ones.
    """
    if advice.builtin or not (math.isfinite(advice.run_seconds) and advice.run_seconds > 0):
        return DEMO_HOURS
    return float(f"{advice.run_seconds / 3600:.2g}")


def speeds(advice: Advice) -> tuple[MemoryPoint, ...]:
    """The batch sizes whose speed was measured.

    Args:
        advice: The record.
    """
    points = advice.memory.points if advice.memory else ()
    return tuple(p for p in points if p.samples_per_second is not None)
