"""Losses along training as one small drawing (SVG), for notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, without yellow."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 560, 260, 56, 40, 24
MOST_POINTS = 200
"""Of one curve."""


class Curve(NamedTuple):
    """One run.

    Attributes:
        label: Curves of the same label have the same colour.
        samples: Examples seen, shape ``[T]``.
        values: The loss there, shape ``[T]``.
        broken: Whether the run diverged: such a curve is dashed.
    """

    label: str
    samples: np.ndarray
    values: np.ndarray
    broken: bool = False


class Scale(NamedTuple):
    """From numbers to pixels.

    Attributes:
        low: The number at the beginning.
        high: The number at the end.
        start: Pixels at the beginning.
        end: Pixels at the end.
        logarithmic: Whether equal ratios are equal lengths.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Pixels of a number."""
        low, high, here = (
            math.log(x) if self.logarithmic else x for x in (self.low, self.high, value)
        )
        return self.start + (self.end - self.start) * (here - low) / ((high - low) or 1.0)

    def ticks(self) -> list[float]:
        """Three numbers: both ends, and what lies in the middle."""
        ends = self.low, self.high
        middle = math.sqrt(math.prod(ends)) if self.logarithmic else sum(ends) / 2
        return [self.low, middle, self.high]


def losses(curves: Sequence[Curve]) -> str:
    """The validation loss against the examples seen.

    Args:
        curves: One a run.

    Returns:
        An SVG element and its legend; empty where there is nothing to draw.

    Example:
        >>> losses([])
        ''
    """
    shown = [_finite(curve) for curve in curves]
    shown = [curve for curve in shown if len(curve.values)]
    if not shown:
        return ""
    across, up = _scales(shown)
    labels = list(dict.fromkeys(curve.label for curve in shown))
    colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    lines = "".join(_line(curve, across, up, colours[curve.label]) for curve in shown)
    best = min(float(curve.values.min()) for curve in shown)
    said = f"Validation loss of {len(shown)} runs; the smallest is {best:.4g}."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{said}" style="max-width:{WIDTH}px;width:100%;display:block" '
        f'font-family="system-ui,sans-serif" font-size="12">'
        f"{_axes(across, up)}{lines}</svg>{_legend(colours, shown)}"
    )


def _finite(curve: Curve) -> Curve:
    """Without what is not finite, and not longer than needed."""
    kept = np.flatnonzero(np.isfinite(curve.values))
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(len(kept), MOST_POINTS)).astype(int))]
    return curve._replace(samples=curve.samples[kept], values=curve.values[kept])


def _scales(curves: Sequence[Curve]) -> tuple[Scale, Scale]:
    last = max(float(curve.samples.max()) for curve in curves)
    low = min(float(curve.values.min()) for curve in curves)
    high = max(float(curve.values.max()) for curve in curves)
    logarithmic = low > 0 and high > 3 * low
    across = Scale(0.0, last, LEFT, WIDTH - 24)
    return across, Scale(low, high, HEIGHT - BOTTOM, TOP, logarithmic)


def _line(curve: Curve, across: Scale, up: Scale, colour: str) -> str:
    points = " ".join(
        f"{across(float(x)):.1f},{up(float(y)):.1f}"
        for x, y in zip(curve.samples, curve.values, strict=True)
    )
    dashed = ' stroke-dasharray="4 3"' if curve.broken else ""
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"{dashed}/>'
    )


def _axes(across: Scale, up: Scale) -> str:
    """Ticks with their numbers, and what the axes are."""
    parts = [
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 24}" fill="none" stroke="#888"/>',
        f'<text x="{LEFT}" y="14" fill="currentColor">validation loss</text>',
        f'<text x="{WIDTH - 24}" y="{HEIGHT - 6}" text-anchor="end" fill="currentColor">'
        "examples seen</text>",
    ]
    for value in up.ticks():
        parts.append(
            f'<text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end" '
            f'fill="currentColor">{value:.2g}</text>'
        )
    for value in across.ticks():
        parts.append(
            f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" '
            f'fill="currentColor">{value:,.0f}</text>'
        )
    return "".join(parts)


def _legend(colours: dict[str, str], curves: Sequence[Curve]) -> str:
    entries = [
        f'<span style="color:{colour}">■</span> {html.escape(label)}'
        for label, colour in colours.items()
    ]
    if any(curve.broken for curve in curves):
        entries.append("┄ diverged")
    return f"<p>{' &nbsp; '.join(entries)}</p>"
