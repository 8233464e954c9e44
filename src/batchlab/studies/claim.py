"""A paper as a list of claims: what is measured, what is predicted, and what becomes of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Num

from batchlab._text import EMPTY, Text
from batchlab.errors import InvalidValueError, must
from batchlab.progress import Quiet

Mode: TypeAlias = Literal["quick", "full", "paper"]
MODES: tuple[Mode, Mode, Mode] = ("quick", "full", "paper")

Value: TypeAlias = int | float | str | bool
Parameters: TypeAlias = Mapping[str, Value]
"""Name → what ``--set`` may override."""

Row: TypeAlias = dict[str, int | float | str]
"""One line of a tidy table, as long as every other line of it."""

Tables: TypeAlias = Mapping[str, pl.DataFrame]
"""Table → the rows of all its cells, the cell's own settings as further columns."""

Sample: TypeAlias = Num[np.ndarray, " _"]
"""One number per independent repetition. Shape [n]."""


@dataclass(frozen=True)
class Cell:
    """The unit of measurement, of resume and of distribution.

    Attributes:
        table: The table that its rows belong to.
        settings: What is measured, plain JSON; a function of the study's parameters only.
        seconds: What it takes on two cores, for progress and ``--paper``'s price.
        alone: Whether it uses all cores itself or times something; other cells run beside each
            other, one process and one torch thread each.
    """

    table: str
    settings: Mapping[str, Value]
    seconds: float = 1.0
    alone: bool = False


@dataclass(frozen=True)
class Bench:
    """Where a cell is measured.

    Attributes:
        seed: All randomness of the study is a function of it, the cell's settings and a
            repetition's number; ``batchlab._random`` makes streams from it.
        out: A folder of the cell's own that survives an interruption, such as for an
            :class:`~batchlab.engine.Engine`, or None.
        device: Such as ``cpu``.
        data: Folder with data of the tasks that are not built in, or None.
        hears: Told the share that is done.
    """

    seed: int = 0
    out: Path | None = None
    device: str = "cpu"
    data: Path | None = None
    hears: Quiet = field(default_factory=Quiet)


class Axis(NamedTuple):
    """One axis of a picture.

    Attributes:
        title: Quantity and unit.
        log: Whether it is logarithmic.
        base: Of the logarithm; 2 for batch sizes, as on every other page.
    """

    title: Text
    log: bool = False
    base: int = 10


@dataclass(frozen=True)
class Picture:
    """What is drawn to a claim: points with intervals, theory as a line of another kind.

    Attributes:
        title: What it shows, a sentence.
        x: Horizontal axis; with ``bars`` or ``map``, its values may be words.
        y: Vertical axis.
        points: Rows of ``x``, ``y``, ``low``, ``high``, ``n`` and ``series``; ``low`` and ``high``
            may be NaN. In a ``map``, ``x``, ``y``, ``value`` and ``n``.
        theory: Rows of ``x``, ``y`` and ``series``, a line each series, or nothing.
        series: Name in the rows → what the reader sees, in order.
        caption: What is shown, with n and where the theory comes from.
        kind: ``points``, or ``map`` for one colour a cell.
        value: In a map, what the colour means.
        picks: Of points that carry an ``id``: whether a click on one picks it on the whole page
            (``offers``), or only those of the one that is picked are drawn (``follows``).
    """

    title: Text
    x: Axis
    y: Axis
    points: tuple[Row, ...]
    series: dict[str, Text]
    caption: Text
    theory: tuple[Row, ...] = ()
    kind: Literal["points", "map"] = "points"
    value: Axis | None = None
    picks: Literal["", "offers", "follows"] = ""


class Statistic(StrEnum):
    """How repetitions become one number with an interval."""

    MEAN = "mean"
    """Student t."""
    SHARE = "share"
    """Of repetitions that are 1 rather than 0; Clopper and Pearson."""
    MEDIAN = "median"
    """Order statistics; at 99 %, from 8 repetitions on."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement, fixed before the first run.

    Attributes:
        id: Short name of small letters, digits and hyphens, unique in its study; it names files.
        sentence: The claim in words.
        source: Citation key, with equation, theorem or figure.
        measured: What number is taken of each repetition, and its unit.
        low: Lower end of the predicted range; −inf where there is none. A predicted number becomes
            number ± stated margin; "A > B" is (0, ∞) on the paired difference. A finding has none.
        high: Upper end.
        n: Repetitions that are planned.
        values: Tables → one number per repetition, shape ``[n]``.
        picture: Tables → what is drawn.
        meaning: What it means for someone who trains models.
        expected: What a repetition gives on average if the claim is right; every claim but a
            finding has to say so.
        spread: Standard deviation of one repetition, from a pilot; with ``expected`` it says
            whether n suffices. 0 if a repetition is exact; NaN, not known, counts as too few.
            Shares need none.
        unit: Of the number.
        bounds: Between what a number can lie at all; its interval ends there.
        statistic: How repetitions become one number.
        popular: Where popular summaries are wrong, or nothing.
        depends: Of a claim that holds here and not there: on what it depends. Or nothing.
        twin: Parameters under which a planted fault must make it *not reproduced*.
        finding: Whether there is no prediction: the number is reported with its interval.
    """

    id: str
    sentence: Text
    source: str
    measured: Text
    n: int
    values: Callable[[Tables], Sample]
    picture: Callable[[Tables], Picture]
    meaning: Text
    low: float = -math.inf
    high: float = math.inf
    expected: float = math.nan
    spread: float = math.nan
    unit: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    statistic: Statistic = Statistic.MEAN
    popular: Text = EMPTY
    depends: Text = EMPTY
    twin: Parameters = field(default_factory=dict)
    finding: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (math.isinf(self.low) and self.low == self.high):
            raise InvalidValueError(must("low", "at most high", (self.low, self.high)))
        if not self.finding and not self.low <= self.expected <= self.high:
            words = f"within [{self.low}, {self.high}]"
            raise InvalidValueError(must("expected", words, self.expected))
        share = self.statistic is Statistic.SHARE
        everything = (0.0, 1.0) if share else (-math.inf, math.inf)
        if not self.finding and self.low <= everything[0] and self.high >= everything[1]:
            hint = "Or say `finding=True`."
            words = "a range that leaves out some number"
            raise InvalidValueError(must("low, high", words, (self.low, self.high), hint))
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            raise InvalidValueError(must("id", "small letters, digits and hyphens", self.id))
        if self.n < 1:
            raise InvalidValueError(must("n", "a whole number, 1 or more", self.n))


@dataclass(frozen=True)
class Study:
    """A source as claims, the cells they rest on, and how a cell is measured.

    Attributes:
        name: As on the command line.
        title: What it is about.
        citations: Keys of the sources that it rests on.
        parameters: Mode → every parameter with its value there; the names are the same in all.
        cells: Parameters → what is measured.
        measure: (cell, bench) → the rows of the cell's table; a function of both only, importable
            by its name, so that another process can call it.
        claims: Parameters → the claims, findings last.
        minutes: Mode → what it takes at most on two cores; nothing for ``paper``.
        lacks: (parameters, bench) → a sentence about what is missing here, such as data or a GPU;
            empty if nothing is.
    """

    name: str
    title: Text
    citations: tuple[str, ...]
    parameters: Mapping[Mode, Parameters]
    cells: Callable[[Parameters], tuple[Cell, ...]]
    measure: Callable[[Cell, Bench], list[Row]]
    claims: Callable[[Parameters], tuple[Claim, ...]]
    minutes: Mapping[Mode, float]
    lacks: Callable[[Parameters, Bench], str] = lambda parameters, bench: ""
