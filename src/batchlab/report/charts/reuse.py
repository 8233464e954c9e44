"""Where re-use of batches pays, in the plane of costs; and the metric over labelled examples."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.report import formats, names
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.report.reuse import Line, ReuseReport, rival, way

HEIGHT = 340
COLOURS = (shared.BLUE, shared.VERMILLION, shared.GREEN, shared.ORANGE, shared.PURPLE)
SHAPES = ("circle", "diamond", "square", "triangle-up", "cross")
SPAN = 30.0
"""The plane reaches from a thirtieth to thirty times this computer's seconds per example."""
COMPUTING = Text("time to compute one example (seconds)", "データ1件の計算時間（秒）")
FRESH = Text("cost of a fresh sample, as time (seconds)", "新しいデータ1件の費用（時間換算、秒）")
LABELS = Text("labelled examples", "ラベル付きデータ数（件）")


def plane(found: ReuseReport) -> Chart | None:
    """Boundaries as lines with their ranges, and where this computer and the price lie.

    Args:
        found: The record.
    """
    rows = shared.plain_rows(row for line in found.lines for row in _line_rows(found, line))
    if not any(row["seconds"] is not None for row in rows):
        return None
    description = say(
        "The plane of the cost of a fresh sample and the cost of computing an example, with {n} "
        "boundaries above which re-use pays.",
        "新しいデータの費用と計算の費用の平面。{n}本の境界より上で再利用の採算が合います。",
        n=len({row["id"] for row in rows}),
    )
    caption = say(
        "Above a line re-use is cheaper than its rival, below it dearer; band: 90 % range over "
        "n = {n} seeds, in which the two cannot be told apart. A boundary at no price or at any "
        "price has no line. Cross: this computer at the price given ({p}); a price of 0, which a "
        "logarithmic axis has no place for, at the lower edge.",
        "線より上では再利用のほうが安く、下では高くつきます。帯：90%の範囲（n＝{n}シード）で、どちらとも"
        "言えない領域。どの価格でも同じ側にある境界には線がありません。×：このパソコンと指定の価格"
        "（{p}）。対数軸に載らない価格0は下端に示します。",
        n=len(found.seeds),
        p=found.told_price(),
    )
    columns = (
        ("id", Text("boundary", "境界")),
        ("computing", COMPUTING),
        *shared.range_columns("seconds", FRESH),
    )
    specs = {"": {lang: _plane_spec(found, rows, description, lang) for lang in LANGUAGES}}
    return Chart("reuse-plane", rows, columns, caption, description, specs, height=HEIGHT)


def _line_rows(found: ReuseReport, line: Line) -> list[Row]:
    """Both ends of a boundary, s = b·c."""
    name = f"{way(line.reuse, 1, 1).en} / {rival(line).en}"
    known = line.boundary
    ends = found.seconds_per_example / SPAN, found.seconds_per_example * SPAN
    return [
        {
            "id": name,
            "computing": each,
            **{
                key: price * each if 0 < price < math.inf else None
                for key, price in (
                    ("seconds", known.value),
                    ("seconds_low", known.low),
                    ("seconds_high", known.high),
                )
            },
        }
        for each in ends
    ]


def _plane_spec(found: ReuseReport, rows: tuple[Row, ...], text: Text, language: Language) -> Spec:
    here = found.price * found.seconds_per_example
    known = [here] if 0 < here < math.inf else []
    drawn = [row for row in rows if row["seconds"] is not None]
    low, high = shared.reach(drawn, ["seconds"], *known)
    at = alt.Chart(alt.InlineData(values=[{"x": found.seconds_per_example, "y": max(here, low)}]))
    ids = list(dict.fromkeys(row["id"] for row in drawn))
    words = {id_: _words(found, id_) for id_ in ids}
    x = alt.X(
        "computing:Q",
        title=COMPUTING.of(language),
        scale=alt.Scale(type="log", nice=False, domain=shared.reach(drawn, ["computing"])),
        axis=shared.log_axis((row["computing"] for row in drawn), grid=False),
    )
    y = alt.Y(
        "seconds:Q",
        title=FRESH.of(language),
        scale=alt.Scale(type="log", nice=False, padding=14, domain=[low, high], clamp=True),
        axis=shared.log_axis([low, high]),
    )
    legend = alt.Legend(
        labelExpr=shared.labels(words, language), orient="bottom", columns=1, labelLimit=320
    )
    colour = alt.Color(
        "id:N", title=None, scale=alt.Scale(domain=ids, range=_cycled(COLOURS, ids)), legend=legend
    )
    dash = alt.StrokeDash(
        "id:N",
        title=None,
        scale=alt.Scale(domain=ids, range=[[1, 0] if "today" in i else [6, 4] for i in ids]),
        legend=legend,
    )
    base = alt.Chart(shared.data("reuse-plane")).transform_filter("isValid(datum.seconds)")
    band = base.transform_calculate(
        from_=f"isValid(datum.seconds_low) ? datum.seconds_low : {low}",
        to_=f"isValid(datum.seconds_high) ? datum.seconds_high : {high}",
    )
    layers: list[Any] = [
        band.mark_area(opacity=0.13, clip=True).encode(
            x=x, y=alt.Y("from_:Q"), y2="to_:Q", color=colour
        ),
        base.mark_line(strokeWidth=2.5, clip=True).encode(x=x, y=y, color=colour, strokeDash=dash),
    ]
    if not math.isinf(here):
        layers.append(
            at.mark_point(shape=shared.CROSS, size=130, strokeWidth=3, color=shared.BLACK).encode(
                x=alt.X("x:Q"), y=alt.Y("y:Q")
            )
        )
    return shared.layered(layers, text, language, HEIGHT)


def _words(found: ReuseReport, id_: str) -> Text:
    """What a line is called."""
    line = next(
        one for one in found.lines if f"{way(one.reuse, 1, 1).en} / {rival(one).en}" == id_
    )
    return say("{k} against {a}", "{k}と{a}", k=way(line.reuse, 1, 1), a=rival(line))


def labels(found: ReuseReport) -> Chart | None:
    """The metric against the number of labelled examples.

    Args:
        found: The record.
    """
    if found.labels is None:
        return None
    times = 100.0 if found.metric.unit == "%" else 1.0
    rows = shared.plain_rows(
        {
            "id": way(row.reuse, 1, row.epochs).en,
            "labels": row.labels,
            **shared.ends(row.metric, "metric", times),
            **shared.ends(row.gap, "gap", times),
        }
        for row in found.labels.rows
    )
    metric = names.metric(found.metric)
    description = say(
        "{m} on validation data for {n} numbers of labelled examples.",
        "ラベル付きデータ数{n}通りでの検証データの{m}。",
        m=metric,
        n=len(found.labels.counts),
    )
    caption = say(
        "Points: mean over n = {n} seeds, each with labelled examples of its own; lines: 90 % "
        "range. Dashed: the level at which labels are compared, {l}.",
        "点：平均（n＝{n}シード、シードごとに異なるデータ）。縦線：90%の範囲。破線：ラベル数を比べる"
        "水準（{l}）。",
        n=len(found.seeds),
        l=formats.metric_value(found.labels.level, found.metric),
    )
    columns = (
        ("labels", LABELS),
        ("id", Text("setting", "設定")),
        *shared.range_columns("metric", metric),
        *shared.range_columns("gap", Text("training − validation", "学習−検証の差")),
    )
    specs = {"": {lang: _label_spec(found, rows, description, lang) for lang in LANGUAGES}}
    return Chart("labels", rows, columns, caption, description, specs, height=HEIGHT)


def _label_spec(found: ReuseReport, rows: tuple[Row, ...], text: Text, language: Language) -> Spec:
    assert found.labels is not None
    times = 100.0 if found.metric.unit == "%" else 1.0
    level = times * found.labels.level
    ids = list(dict.fromkeys(row["id"] for row in rows))
    words = {
        way(row.reuse, 1, row.epochs).en: way(row.reuse, 1, row.epochs)
        for row in found.labels.rows
    }
    unit = say("{m} (%)", "{m}（%）", m=names.metric(found.metric))
    title = unit if found.metric.unit == "%" else names.metric(found.metric)
    keys = ["metric", "metric_low", "metric_high"]
    x = alt.X(
        "labels:Q",
        title=LABELS.of(language),
        scale=alt.Scale(type="log", nice=False, padding=24, domain=shared.reach(rows, ["labels"])),
        axis=alt.Axis(values=list(found.labels.counts), format=",d", grid=False),
    )
    ends = shared.reach(rows, keys, level, log=False)
    scale = alt.Scale(zero=False, nice=False, padding=18, domain=ends)
    y = alt.Y(
        "metric:Q",
        title=title.of(language),
        scale=scale,
        axis=alt.Axis(tickCount=6),
    )
    legend = alt.Legend(labelExpr=shared.labels(words, language), orient="bottom", columns=2)
    colour = alt.Color(
        "id:N",
        title=None,
        scale=alt.Scale(domain=ids, range=_cycled((shared.BLACK, *COLOURS), ids)),
        legend=legend,
    )
    shape = alt.Shape(
        "id:N", title=None, scale=alt.Scale(domain=ids, range=_cycled(SHAPES, ids)), legend=legend
    )
    base = alt.Chart(shared.data("labels"))
    layers: list[Any] = [
        alt.Chart(alt.InlineData(values=[{"y": level}]))
        .mark_rule(color=shared.GREY, strokeDash=[5, 4])
        .encode(y=alt.Y("y:Q", scale=scale)),
        base.mark_line(opacity=0.45).encode(x=x, y=y, color=colour),
        base.transform_filter("isValid(datum.metric_low) && isValid(datum.metric_high)")
        .mark_rule(strokeWidth=2)
        .encode(x=x, y=alt.Y("metric_low:Q", scale=scale), y2="metric_high:Q", color=colour),
        base.transform_filter("isValid(datum.metric)")
        .mark_point(filled=True, size=80, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=shape,
            tooltip=shared.tooltips(language, (("labels", LABELS), ("metric", title))),
        ),
    ]
    return shared.layered(layers, text, language, HEIGHT)


def _cycled(values: tuple[str, ...], ids: list[str]) -> list[str]:
    """As many as there are names."""
    return [values[i % len(values)] for i in range(len(ids))]
