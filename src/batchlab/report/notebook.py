"""The first screen of an advice, as a notebook shows it below a cell."""

from __future__ import annotations

from html import escape

from batchlab import _html
from batchlab.advisor.record import Advice
from batchlab.report import wording
from batchlab.report.text import Language, Text, plain


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

    lines = [_html.paragraph(said(wording.headline(advice)), strong=True)]
    rows = wording.table(advice)
    if rows:
        head = [said(cell) for cell in wording.head(advice)]
        lines.append(_html.table(head, [[said(cell) for cell in row] for row in rows]))
    engineer = " ".join(filter(None, (said(text) for text in wording.engineer(advice)[:-2])))
    for text in (said(wording.next_step(advice)), said(wording.not_tested(advice)), engineer):
        lines.append(_html.paragraph(text))
    return f'<div lang="{escape(language)}">{"".join(lines)}</div>'
