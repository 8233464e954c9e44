"""Words every part of batchlab shares: parameters, batches, and a number with its interval."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar, cast

from torch import Tensor

Params: TypeAlias = dict[str, Tensor]
"""Name → tensor: parameters, buffers or anything shaped like them."""

Tree: TypeAlias = Any
"""A tensor, or tuples, lists and dictionaries of trees. The leaves of a batch start with B."""

Record = TypeVar("Record")


class Status(StrEnum):
    """How a run ended."""

    OK = "ok"
    DIVERGED = "diverged"
    DID_NOT_LEARN = "did not learn"


class Evidence(StrEnum):
    """How far a statement has been tested."""

    SCREENED = "screened"
    PROJECTED = "projected"
    CONFIRMED = "confirmed"


@dataclass(frozen=True)
class Estimate:
    """A number that does not travel alone.

    Attributes:
        value: The estimate, in ``unit``. May be infinite ("never reached").
        low: Lower end of the interval; NaN when ``n`` is too small for one.
        high: Upper end.
        n: Independent repetitions behind it.
        unit: Unit, such as ``s`` or ``examples``; empty for a ratio.
        source: What measured it.
        level: Coverage of the interval, a share.

    Example:
        >>> print(Estimate(1.9, 1.5, 2.3, n=8, unit="×"))
        1.9 × (1.5 to 2.3, n = 8)
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = ""
    source: str = ""
    level: float = 0.9

    def times(self, factor: float, unit: str) -> Estimate:
        """So many times as much, exactly.

        Args:
            factor: Above 0.
            unit: Of the product.

        Example:
            >>> print(Estimate(2.0, 1.0, 3.0, n=5).times(0.5, "s"))
            1 s (0.5 to 1.5, n = 5)
        """
        value, low, high = (factor * x for x in (self.value, self.low, self.high))
        return dataclasses.replace(self, value=value, low=low, high=high, unit=unit)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{self.value:.3g}{unit} (n = {self.n}, too few for a range)"
        return f"{self.value:.3g}{unit} ({self.low:.3g} to {self.high:.3g}, n = {self.n})"


def to_plain(record: Any) -> Any:
    """Turn records into what JSON can hold; floats that JSON lacks become strings.

    Args:
        record: Dataclasses, mappings, sequences, enums and scalars, nested.

    Returns:
        Dictionaries, lists, strings, numbers, booleans and None.

    Example:
        >>> to_plain(Estimate(1.0, float("-inf"), 2.0, n=3))["low"]
        '-inf'
    """
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_plain(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {str(key): to_plain(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [to_plain(value) for value in record]
    if isinstance(record, float) and not math.isfinite(record):
        return str(record)
    if isinstance(record, StrEnum):
        return str(record)
    return record


def from_plain(kind: Any, data: Any) -> Any:
    """Rebuild a record from what :func:`to_plain` made of it. Unknown keys are ignored.

    Args:
        kind: A dataclass or an annotation made of dataclasses, tuples, dicts, unions and scalars.
        data: The plain form.

    Returns:
        A value of ``kind``.

    Raises:
        TypeError: If a required field is absent.

    Example:
        >>> from_plain(Estimate, to_plain(Estimate(1.0, 0.5, float("inf"), n=3))).high
        inf
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if data is None or kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        # A union names at most one structured kind; a scalar beside it passes through.
        return from_plain(_structured(args, data), data)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {f.name for f in dataclasses.fields(kind) if f.init} & set(data)
        return cast(Any, kind)(**{name: from_plain(hints[name], data[name]) for name in known})
    if hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind)
        # Fields that came later have a default, which a shorter row leaves as it is.
        return kind(
            *(from_plain(hints[name], v) for name, v in zip(kind._fields, data, strict=False))
        )
    if origin in (tuple, list):
        items = [from_plain(args[0], value) for value in data]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        return {key: from_plain(args[1], value) for key, value in data.items()}
    if kind is float:
        return float(data)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(data)
    return data


def _structured(args: tuple[Any, ...], data: Any) -> Any:
    """The member of a union that fits the plain value."""
    if isinstance(data, dict | list):
        return next(
            a
            for a in args
            if dataclasses.is_dataclass(a) or typing.get_origin(a) or hasattr(a, "_fields")
        )
    if float in args and (isinstance(data, int | float) or data in ("nan", "inf", "-inf")):
        return float
    return Any
