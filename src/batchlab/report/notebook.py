"""The first screen of an advice, as a notebook shows it below a cell."""

from __future__ import annotations

from batchlab import _html
from batchlab._text import Language, Text, join, plain
from batchlab.advisor.record import Advice
from batchlab.report import wording
from batchlab.report.page import LABELS


def first_screen(advice: Advice, language: Language) -> str:
    """The conclusion, the table, and the lines below it.

    Args:
        advice: The record.
        language: ``en`` or ``ja``.

    Returns:
        HTML without scripts.
    """

    def said(text: Text) -> str:
        return plain(text.of(language))

    rows = [[said(cell) for cell in row] for row in wording.table(advice)]
    head = [said(cell) for cell in wording.head(advice)]
    # The last two parts of the engineer's line lead to other places of the page.
    engineer = join(wording.engineer(advice)[:-2], " · ", "・")
    told = {
        "next": wording.next_step(advice),
        "untested": wording.not_tested(advice),
        "engineer": engineer,
    }
    lines = "".join(
        _html.paragraph(said(join((LABELS[label], text), " ", "：")))
        for label, text in told.items()
    )
    top = _html.paragraph(said(wording.headline(advice)), strong=True)
    table = _html.table(head, rows) if rows else ""
    return f'<div lang="{language}">{top}{table}{lines}</div>'
