"""No range that a measurement can give makes the report fail or shows a number that is none."""

import dataclasses
import itertools
import math
import re

import pytest

from batchlab import report
from batchlab.advisor.decision import decide
from batchlab.advisor.record import Verdict
from batchlab.report import wording, worth
from batchlab.types import Evidence
from tests.report import sample

ENDS = (0.0, 0.5, 1.0, 1.3, 4.0, math.inf)
RANGES = [
    (value, low, high)
    for low, value, high in itertools.product(ENDS, ENDS, ENDS)
    if low <= value <= high
] + [*((value, math.nan, math.nan) for value in ENDS), (math.nan, 0.0, math.inf)]
WORST = re.compile(r"(?<![a-z])(nan|inf)(?![a-z])", re.IGNORECASE)


def with_ratio(advice, value, low, high):
    """Every ratio of an advice set to one estimate."""
    changed = tuple(
        dataclasses.replace(
            c, difference=dataclasses.replace(c.difference, value=value, low=low, high=high)
        )
        if c.quantity in ("time", "cost", "samples")
        else c
        for c in advice.comparisons
    )
    return dataclasses.replace(advice, comparisons=changed)


def possible(advice):
    """The advice as its verdict can stand beside such a ratio; None where it never can."""
    ratio = next(c.difference for c in advice.comparisons if c.quantity == "time")
    by_rule = decide(ratio, advice.worth, at_least_met=True)
    if advice.verdict is not Verdict.NOT_ENOUGH_EVIDENCE:
        return advice if by_rule is advice.verdict else None
    if advice.evidence is not Evidence.CONFIRMED:
        return advice
    if by_rule is Verdict.KEEP:
        return None
    return dataclasses.replace(advice, today_chosen=by_rule is Verdict.CHANGE)


@pytest.mark.parametrize("price", [None, sample.USD, sample.YEN])
@pytest.mark.parametrize(
    "make", [sample.change, sample.keep, sample.open_, sample.projected, sample.minimised]
)
def test_every_ratio_can_be_written(make, price):
    advice = make(price)
    for value, low, high in RANGES:
        odd = possible(with_ratio(advice, value, low, high))
        if odd is None:
            continue
        text = report.summary(odd) + report.summary(odd, "ja") + str(wording.headline(odd))
        found = worth.of(odd)
        if found is not None:
            text += str(worth.line(found, worth.condition(odd)))
        assert not WORST.search(text), (value, low, high, WORST.search(text), text)
