"""What a finished study leaves behind: every claim with what became of it, and its picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from batchlab import _html
from batchlab._text import Text, plain
from batchlab.studies.claim import Claim, Picture, Value
from batchlab.studies.verdict import Judged, Outcome

HEAD = ("claim", "verdict", "measured (99 %)", "predicted", "n")


@dataclass(frozen=True)
class Concluded:
    """One claim at the end.

    Attributes:
        sentence: The claim in words.
        measured: What number was taken of each repetition.
        meaning: What it means for someone who trains models.
        popular: Where popular summaries are wrong, or empty.
        depends: On what it depends, or empty.
        statistic: How repetitions became one number.
        judged: The verdict with its number.
        picture: What is drawn.
    """

    sentence: Text
    measured: Text
    meaning: Text
    popular: Text
    depends: Text
    statistic: str
    judged: Judged
    picture: Picture

    @staticmethod
    def of(claim: Claim, judged: Judged, picture: Picture) -> Concluded:
        """A claim with its verdict and picture."""
        return Concluded(
            claim.sentence,
            claim.measured,
            claim.meaning,
            claim.popular,
            claim.depends,
            str(claim.statistic),
            judged,
            picture,
        )


@dataclass(frozen=True)
class StudyReport:
    """A finished study.

    Attributes:
        study: Its name.
        title: What it is about.
        mode: ``quick``, ``full`` or ``paper``.
        parameters: Every parameter with its value.
        variant: Those that were set by hand, as ``key=value``.
        seed: The seed of all randomness.
        concluded: Claims and findings in order.
        citations: Keys of the sources.
        command: What was typed.
        created: ISO time, UTC.
        seconds: What it took.
        provenance: Versions, processor, device.
        folder: Result directory.
    """

    study: str
    title: Text
    mode: str
    parameters: dict[str, Value]
    variant: tuple[str, ...]
    seed: int
    concluded: tuple[Concluded, ...]
    citations: tuple[str, ...]
    command: str
    created: str
    seconds: float
    provenance: dict[str, str]
    folder: str

    @property
    def verdicts(self) -> tuple[Judged, ...]:
        """Every claim's verdict, in order."""
        return tuple(one.judged for one in self.concluded)

    def count(self, outcome: Outcome) -> int:
        """How many claims came out so."""
        return Counter(one.verdict for one in self.verdicts)[outcome]

    def _repr_html_(self) -> str:
        """For notebooks: every claim with its verdict."""
        return _html.table(HEAD, [_cells(one, self.mode) for one in self.concluded])

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython, which would write every number beside the table."""
        return _html.bundle(self._repr_html_(), str(self))

    def __str__(self) -> str:
        console = Console(width=120, markup=False, highlight=False, color_system=None)
        with console.capture() as captured:
            console.print(table(self))
        return captured.get().rstrip()


def table(report: StudyReport) -> Table:
    """The verdicts for a terminal.

    Args:
        report: The finished study.
    """
    shown = Table(title=f"{report.study} ({report.mode}): {plain(report.title.en)}")
    claim, verdict, measured, *rest = HEAD
    # Numbers stay whole; on a narrow terminal words are wrapped.
    shown.add_column(claim, min_width=20, ratio=2)
    shown.add_column(verdict, min_width=14, ratio=1)
    shown.add_column(measured, min_width=14)
    for head in rest:
        shown.add_column(head, no_wrap=True)
    for one in report.concluded:
        shown.add_row(*_cells(one, report.mode))
    return shown


def _cells(one: Concluded, mode: str) -> tuple[str, ...]:
    found = one.judged
    numbers = verdict_words(found, mode), ranged(found), predicted(found), f"{found.n:,}"
    return (plain(one.sentence.en), *numbers)


def verdict_words(found: Judged, mode: str) -> str:
    """The verdict, and what qualifies it.

    Args:
        found: A claim's verdict.
        mode: In which it was measured.
    """
    notes = []
    if found.variant:
        notes.append("variant")
    if found.verdict is Outcome.INCONCLUSIVE and found.decides:
        notes.append(f"n = {found.decides} would decide")
    if found.needed != 0:
        notes.append(_needs(found, mode))
    if found.missing:
        notes.append(f"{found.missing} of {found.n} gave no number")
    return f"{found.verdict} ({', '.join(notes)})" if notes else str(found.verdict)


def _needs(found: Judged, mode: str) -> str:
    if found.needs_full and mode == "quick":
        return "needs --full"
    return "few repetitions" if found.needed is None else f"needs n = {found.needed}"


def ranged(found: Judged) -> str:
    """The number with its interval.

    Args:
        found: A claim's verdict.
    """
    unit = f" {found.unit}" if found.unit else ""
    return f"{grouped(found.value)}{unit} ({grouped(found.low)} to {grouped(found.high)})"


def grouped(value: float) -> str:
    """Four digits, thousands separated.

    Example:
        >>> grouped(0.25), grouped(12345.6), grouped(-1000), grouped(3e9)
        ('0.25', '12,350', '-1,000', '3e+09')
    """
    short = f"{value:.4g}"
    return f"{float(short):,.0f}" if 1e3 <= abs(value) < 1e7 else short


def predicted(found: Judged) -> str:
    """The predicted range.

    Example:
        >>> from math import inf, nan
        >>> predicted(Judged("a", Outcome.REPRODUCED, 1, 1, 1, 2, "", 0.99, 0.0, inf, ""))
        '> 0'
    """
    if found.verdict is Outcome.MEASURED:
        return "–"
    low, high = found.predicted_low, found.predicted_high
    unit = f" {found.unit}" if found.unit else ""
    if high == float("inf"):
        return f"> {grouped(low)}{unit}"
    if low == float("-inf"):
        return f"< {grouped(high)}{unit}"
    return f"{grouped(low)} to {grouped(high)}{unit}"
