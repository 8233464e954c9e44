"""How far each layer moves against the width: one line a layer, on logarithmic axes."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np

from batchlab import stats
from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.measure.coordinates import LayerSizes, Trend
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.report.coordinates import TRENDS, CoordinatesReport

LOOKS = {
    Trend.GROWS: (shared.VERMILLION, "triangle-up"),
    Trend.SHRINKS: (shared.PURPLE, "triangle-down"),
    Trend.INDEPENDENT: (shared.BLUE, "circle"),
    Trend.OPEN: (shared.GREY, "square"),
}
WIDTH = Text("width", "幅")
SIZE = Text("root mean square", "二乗平均平方根")
LAYER = Text("layer", "層")
HEIGHT = 340


def coordinates(report: CoordinatesReport) -> Chart:
    """Sizes of every layer's outputs at the start and of their change after each update.

    Args:
        report: The record.
    """
    found = report.found
    rows = shared.plain_rows(
        _row(report, layer, step, i)
        for step in range(found.updates + 1)
        for layer in found.layers
        for i in range(len(found.widths))
    )
    description = say(
        "Size of each layer's change in a few updates against the width of the network, for {n} "
        "layers and {w} widths.",
        "数回の更新による各層の変化の大きさとネットワークの幅（{n}層、幅{w}通り）。",
        n=len(found.layers),
        w=len(found.widths),
    )
    caption = say(
        "Points: geometric mean over n = {n} seeds; vertical lines: 90 % range. A level line: "
        "the layer moves as far in a network of any width. A network that diverged has no point.",
        "点：n＝{n}シードの幾何平均。縦線：90%の範囲。水平な線：どの幅でも同じだけ動く。発散した"
        "ネットワークの点はない。",
        n=len(found.seeds),
    )
    columns = (
        ("step", Text("updates", "更新回数")),
        ("layer", LAYER),
        ("width", WIDTH),
        *shared.range_columns("size", SIZE),
        ("trend", Text("its change", "変化")),
    )
    # What the layers are judged by is shown first.
    order = sorted(range(found.updates + 1), key=lambda step: step != max(1, found.judged))
    choices = ((Text("shown", "表示"), tuple((str(step), _step(step)) for step in order)),)
    specs = {
        str(step): {lang: _spec(rows, step, description, lang) for lang in LANGUAGES}
        for step in order
    }
    return Chart("coordinates", rows, columns, caption, description, specs, choices, height=HEIGHT)


def _step(step: int) -> Text:
    if not step:
        return Text("outputs at the start", "開始時の出力")
    plural = "update" if step == 1 else "updates"
    return Text(f"change after {step} {plural}", f"{step}回の更新後の変化")


def _row(report: CoordinatesReport, layer: LayerSizes, step: int, i: int) -> Row:
    sizes = np.array(layer.sizes[step][i])
    row: Row = {
        "step": step,
        "layer": layer.name,
        "width": report.found.widths[i],
        "trend": str(report.found.trend(layer)),
    }
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        return row | shared.ends(None, "size")
    mean = stats.mean_estimate(np.log(sizes))
    ends = (mean.value, mean.low, mean.high)
    return row | dict(zip(("size", "size_low", "size_high"), map(math.exp, ends), strict=True))


def _spec(rows: tuple[Row, ...], step: int, text: Text, language: Language) -> Spec:
    here = [r for r in rows if r["step"] == step and r["size"] is not None]
    sizes = shared.reach(here, ["size", "size_low", "size_high"])
    x = alt.X(
        "width:Q",
        title=WIDTH.of(language),
        scale=alt.Scale(
            type="log", base=2, nice=False, padding=24, domain=shared.reach(rows, ["width"])
        ),
        axis=alt.Axis(values=sorted({r["width"] for r in rows}), format=",d", grid=False),
    )
    y = alt.Y(
        "size:Q",
        title=SIZE.of(language),
        scale=alt.Scale(type="log", nice=False, padding=18, domain=sizes),
        axis=shared.log_axis(sizes),
    )
    shown = (
        alt.Chart(shared.data("coordinates"))
        .transform_filter(f"datum.step === {step}")
        .transform_filter("isValid(datum.size)")
    )
    colour, shape = _looks(language)
    tips = shared.tooltips(language, (("layer", LAYER), ("width", WIDTH), ("size", SIZE)))
    last = shown.transform_filter(f"datum.width === {max(r['width'] for r in rows)}")
    layers: list[Any] = [
        shown.mark_rule(strokeWidth=1.5, opacity=0.7).encode(
            x=x, y=alt.Y("size_low:Q"), y2="size_high:Q", color=colour
        ),
        shown.mark_line(strokeWidth=2).encode(x=x, y=y, detail="layer:N", color=colour),
        shown.mark_point(filled=True, size=70, opacity=1).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=tips
        ),
        *shared.haloed(
            last,
            {"x": x, "y": y, "text": alt.Text("layer:N")},
            align="right",
            baseline="bottom",
            dx=-6,
            dy=-5,
            fontSize=12,
        ),
    ]
    return shared.layered(layers, text, language, HEIGHT)


def _looks(language: Language) -> tuple[alt.Color, alt.Shape]:
    domain = [str(one) for one in LOOKS]
    colours, shapes = (list(values) for values in zip(*LOOKS.values(), strict=True))
    words = {str(one): text for one, text in TRENDS.items()}
    legend = alt.Legend(labelExpr=shared.labels(words, language))
    return (
        alt.Color(
            "trend:N", title=None, scale=alt.Scale(domain=domain, range=colours), legend=legend
        ),
        alt.Shape(
            "trend:N", title=None, scale=alt.Scale(domain=domain, range=shapes), legend=legend
        ),
    )
