"""What is recorded of single units of a trained model; imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Column(NamedTuple):
    """How a unit follows one column of a table.

    Attributes:
        name: Of the column.
        weight: Mean change of the unit for one standard deviation more, over the examples.
    """

    name: str
    weight: float


@dataclass(frozen=True)
class Unit:
    """One unit.

    Attributes:
        unit: Its number.
        importance: What the mean loss rises when it is set to its mean.
        examples: The validation examples that excite it most.
        values: What it says of each of them, mean over its places.
        pictures: Of images: these examples, as ``data:`` addresses.
        saliency: Of images: mean gradient of the unit in these examples, channels added.
        signal: Of signals: the first of these examples, the channel in which the segment is.
        steps: Of signals: how long it is.
        segment: Of signals: first step of the segment it reads most, and the step after it.
        columns: Of tables: those it follows most.
    """

    unit: int
    importance: float
    examples: tuple[int, ...]
    values: tuple[float, ...]
    pictures: tuple[str, ...] = ()
    saliency: str = ""
    signal: tuple[float, ...] = ()
    steps: int = 0
    segment: tuple[int, ...] = ()
    columns: tuple[Column, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(f"{one.name} {one.weight:+.3g}" for one in self.columns)
        shown = shown or (f"steps {self.segment[0]} to {self.segment[1]}" if self.segment else "")
        seen = ", ".join(map(str, self.examples))
        return f"  unit {self.unit}: {self.importance:+.3g} loss; examples {seen}; {shown}".rstrip(
            "; "
        )
