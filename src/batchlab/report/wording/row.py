"""A row of the first table."""

from __future__ import annotations

from typing import NamedTuple

from batchlab._text import Text


class Row(NamedTuple):
    """A row of the first table.

    Attributes:
        label: What the row is about.
        today: With today's settings.
        recommended: With the others.
        difference: The difference with its range.
        sure: How sure that is.
    """

    label: Text
    today: Text
    recommended: Text
    difference: Text
    sure: Text
