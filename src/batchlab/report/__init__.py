"""Finished records in, words and pictures out: one HTML file, ten lines of Markdown, a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchlab import _platform
from batchlab.advisor.record import Advice
from batchlab.errors import InvalidValueError, must
from batchlab.report.brief import summary, terminal
from batchlab.report.page import render, render_comparison

__all__ = ["compare_page", "render", "summary", "terminal", "write"]


def write(advice: Advice, path: Path) -> None:
    """Write the report, whole or not at all.

    Args:
        advice: The finished record.
        path: The file, usually ``report.html``.
    """
    _platform.write_whole(path, render(advice))


def compare_page(advices: Sequence[Advice]) -> str:
    """Results side by side on one self-contained HTML page.

    Args:
        advices: Two to six finished records.

    Returns:
        HTML.

    Raises:
        InvalidValueError: If there are fewer than two records, or more than six.
    """
    if not 2 <= len(advices) <= 6:
        raise InvalidValueError(must("results", "two to six", len(advices)))
    return render_comparison(advices)
