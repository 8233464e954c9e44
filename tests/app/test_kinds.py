"""Kinds of nodes, compared by time and money."""

import pytest

from batchlab.app.elsewhere import Asked
from batchlab.app.kinds import Kind, verdict
from batchlab.errors import InvalidValueError
from batchlab.types import Estimate


def about(value, unit="s", spread=1.1):
    return Estimate(value, value / spread, value * spread, 5, unit, "made up", 0.9)


def kind(name, seconds, cost):
    took = None if seconds is None else about(seconds)
    money = None if cost is None else about(cost, "USD")
    return Kind(name, "a processor", "B64", 64, 512, about(0.01), took, money, "USD")


def test_the_fastest_and_the_cheapest_kind_are_named():
    told = verdict([kind("cpu", 100.0, 0.01), kind("gpu-a", 10.0, 0.05)])
    assert told[0].startswith("on cpu (a processor): batch size 64, 0.01 s (")
    assert told[2:] == [
        "the target is reached soonest on gpu-a",
        "the target costs least on cpu",
    ]


def test_kinds_that_cannot_be_told_apart_are_both_named():
    told = verdict([kind("cpu", 10.0, None), kind("gpu-a", 10.5, None)])
    assert told[2:] == ["the target is reached soonest on cpu or gpu-a"]


def test_without_a_projection_only_the_pace_is_told():
    told = verdict([kind("cpu", None, None), kind("gpu-a", None, None)])
    assert len(told) == 2
    assert all("an update, at most 512 examples fit" in sentence for sentence in told)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_spend": 1.0}, "`max_spend` must be left out without `on`"),
        ({"price_per_hour": {"cpu": 1.0}}, "`price_per_hour` must be one number without `on`"),
        ({"on": "ray", "max_spend": 1.0}, "`max_spend` must be given with a price"),
    ],
)
def test_money_that_makes_no_sense_is_refused(given, words):
    with pytest.raises(InvalidValueError, match=words):
        Asked(**given)
