"""Pictures as files: SVG and PDF in both languages, the numbers as CSV."""

from __future__ import annotations

import copy
import csv
import functools
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import vl_convert

from batchlab import _platform
from batchlab._text import LANGUAGES, Language, Text, plain
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Spec

WIDTH = 560
NO_FONT = Text(
    "The Japanese pictures were left out: no Japanese font is installed, and they would show "
    "empty boxes. Install one, such as fonts-ipafont-gothic, and run the same command again.",
    "日本語フォントがないため、日本語の図は作成していません（文字が四角になるため）。"
    "fonts-ipafont-gothicなどを入れて、同じコマンドをもう一度実行してください。",
)


def write(charts: Iterable[Chart], folder: Path, *, brief: bool = False) -> tuple[Text, ...]:
    """Every picture, and every variant of it, into a folder.

    Args:
        charts: The page's pictures.
        folder: Receives ``<name>.<language>.svg`` and ``.pdf``, and ``<name>.csv``.
        brief: Only what the page shows when it opens, and no PDF.

    Returns:
        What could not be written, as sentences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    languages: tuple[Language, ...] = LANGUAGES if has_japanese_font() else ("en",)
    for chart in charts:
        _platform.write_whole(folder / f"{chart.id}.csv", table(chart))
        for variant, specs in list(chart.specs.items())[: 1 if brief else None]:
            name = f"{chart.id}-{variant}" if variant and not brief else chart.id
            for language in languages:
                whole = standalone(specs[language], chart, language)
                svg = vl_convert.vegalite_to_svg(whole)
                _platform.write_whole(folder / f"{name}.{language}.svg", svg)
                if not brief:
                    pdf = vl_convert.svg_to_pdf(svg)
                    _platform.write_whole(folder / f"{name}.{language}.pdf", pdf)
    return () if len(languages) == len(LANGUAGES) else (NO_FONT,)


def standalone(spec: Spec, chart: Chart, language: Language) -> Spec:
    """A spec with its data, at a fixed width and with the page's look.

    Args:
        spec: As the page embeds it.
        chart: Whose it is.
        language: Of the words above the picture.
    """
    whole = copy.deepcopy(spec)
    whole["$schema"] = "https://vega.github.io/schema/vega-lite/v5.json"
    whole["width"], whole["autosize"] = WIDTH, {"type": "pad"}
    whole["background"] = "white"
    whole["config"] = shared.CONFIG
    whole["datasets"] = {**whole.get("datasets", {}), chart.id: list(chart.rows)}
    return whole


def table(chart: Chart) -> str:
    """The numbers behind a picture as CSV.

    Args:
        chart: The picture.
    """
    made = io.StringIO()
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow([plain(title.en) for _, title in chart.columns])
    writer.writerows([row.get(key) for key, _ in chart.columns] for row in chart.rows)
    return made.getvalue()


@functools.lru_cache(maxsize=1)
def has_japanese_font() -> bool:
    """Whether Japanese letters are drawn, and not the same empty box for each."""
    return _drawn("あ") != _drawn("験")


def _drawn(letter: str) -> bytes:
    spec: dict[str, Any] = {
        "data": {"values": [{}]},
        "mark": {"type": "text", "fontSize": 40},
        "encoding": {"text": {"value": letter}},
        "config": {"font": shared.FONT},
    }
    return vl_convert.vegalite_to_png(spec)
