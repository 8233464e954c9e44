"""What results show of themselves in a notebook: a heading, a table, a few lines. All escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

CELL = "text-align:left"
"""Notebooks align cells to the right."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table.

    Args:
        head: Column titles.
        rows: Cells, as text.

    Example:
        >>> table(["a"], [["<b>"]]).count("&lt;b&gt;")
        1
    """
    top = _row("th", head)
    return (
        f"<table><thead>{top}</thead><tbody>{''.join(_row('td', r) for r in rows)}</tbody></table>"
    )


def paragraph(words: str, *, strong: bool = False) -> str:
    """A paragraph; a strong one is the conclusion.

    Example:
        >>> paragraph("a & b")
        '<p>a &amp; b</p>'
    """
    text = html.escape(words)
    return f"<p><strong>{text}</strong></p>" if strong else f"<p>{text}</p>"


def folded(title: str, content: str) -> str:
    """What is shown after a click.

    Args:
        title: Its title, as text.
        content: HTML.
    """
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>"


def text(words: str) -> str:
    """A text whose columns are aligned, as it is.

    Example:
        >>> text("a<b")
        '<pre>a&lt;b</pre>'
    """
    return f"<pre>{html.escape(words)}</pre>"


def bundle(content: str, words: str) -> dict[str, str]:
    """What IPython asks for: a result for the browser, and for the terminal and files.

    Args:
        content: HTML.
        words: The same in short, as text.
    """
    return {"text/html": content, "text/plain": words}


def _row(tag: str, cells: Sequence[str]) -> str:
    made = "".join(f'<{tag} style="{CELL}">{html.escape(cell)}</{tag}>' for cell in cells)
    return f"<tr>{made}</tr>"
