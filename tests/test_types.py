"""Records become plain data and come back."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from batchlab.types import Estimate, Evidence, Status, from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    status: Status
    share: float


@dataclass(frozen=True)
class Outer:
    name: str
    inner: tuple[Inner, ...]
    by_name: dict[str, Inner]
    perhaps: Inner | None
    number: int | float | None = None
    words: str | None = None


FULL = Outer(
    "日本語",
    (Inner(Status.DIVERGED, math.inf), Inner(Status.OK, -0.0)),
    {"a": Inner(Status.DID_NOT_LEARN, -math.inf)},
    Inner(Status.OK, 1.5),
    number=3.5,
    words="inf",
)


def through_json(record):
    return json.loads(json.dumps(to_plain(record), allow_nan=False))


@pytest.mark.parametrize("record", [FULL, dataclasses.replace(FULL, perhaps=None, words=None)])
def test_a_record_survives_json(record):
    assert from_plain(Outer, through_json(record)) == record


def test_nan_survives_json():
    back = from_plain(Estimate, through_json(Estimate(math.nan, 0.0, math.inf, n=1)))
    assert math.isnan(back.value)
    assert back.high == math.inf


def test_unknown_keys_are_ignored_and_missing_ones_raise():
    plain = through_json(FULL.inner[0])
    assert from_plain(Inner, plain | {"later": 1}) == FULL.inner[0]
    with pytest.raises(TypeError, match="share"):
        from_plain(Inner, {"status": "ok"})


def test_a_field_that_was_none_stays_none():
    assert from_plain(Outer, through_json(dataclasses.replace(FULL, number=None))).number is None


def test_an_estimate_says_its_interval_n_and_unit():
    assert str(Estimate(1.234, 1.0, 2.0, n=5, unit="s")) == "1.23 s (1 to 2, n = 5)"


def test_an_estimate_without_an_interval_says_why():
    assert str(Estimate(2.0, math.nan, math.nan, n=1)) == "2 (n = 1, too few for a range)"


def test_words_are_their_own_text():
    assert f"{Status.DID_NOT_LEARN} {Evidence.PROJECTED}" == "did not learn projected"


class Place(NamedTuple):
    x: float
    words: str = ""


@dataclass(frozen=True)
class Marked:
    place: Place
    other: Place | None = None


@pytest.mark.parametrize(
    "record", [Marked(Place(1.0, "a")), Marked(Place(math.inf), Place(2.0, "b"))]
)
def test_named_tuples_come_back_as_they_were(record):
    again = from_plain(Marked, json.loads(json.dumps(to_plain(record))))
    assert again == record
    assert isinstance(again.place, Place)
