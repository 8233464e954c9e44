"""The picture to a claim: points with intervals, theory as a dashed line; or a map."""

from __future__ import annotations

from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.studies.claim import Axis, Picture

HEIGHT = 300
LOOKS = (
    (shared.BLUE, "circle"),
    (shared.VERMILLION, "diamond"),
    (shared.GREEN, "square"),
    (shared.PURPLE, "triangle-up"),
    (shared.ORANGE, "cross"),
    (shared.BLACK, "triangle-down"),
    (shared.SKY, "triangle-right"),
)
"""Colour and shape of the series, in order."""


def drawn(name: str, picture: Picture) -> Chart:
    """A claim's picture as a chart of the page.

    Args:
        name: The chart's id.
        picture: What is drawn.
    """
    parts = (("measured", picture.points), ("theory", picture.theory))
    rows = shared.plain_rows({"kind": kind, **row} for kind, part in parts for row in part)
    keys = ("value", "n") if picture.kind == "map" else ("y_low", "y_high", "n", "series", "kind")
    rows = tuple(_named(row) for row in rows)
    description = say("{t} {n} values.", "{t}値は{n}個。", t=picture.title, n=len(picture.points))
    titles = {
        "y_low": Text("low", "下限"),
        "y_high": Text("high", "上限"),
        "n": Text("n", "n"),
        "series": Text("series", "系列"),
        "kind": Text("measured or theory", "測定値か理論値か"),
        "value": picture.value.title if picture.value else Text("value", "値"),
    }
    columns = (
        ("x", picture.x.title),
        ("y", picture.y.title),
        *((key, titles[key]) for key in keys if any(row.get(key) is not None for row in rows)),
    )
    make = _map if picture.kind == "map" else _points
    specs = {"": {lang: make(name, picture, rows, description, lang) for lang in LANGUAGES}}
    caption = say("{t} {c}", "{t}{c}", t=picture.title, c=picture.caption)
    return Chart(name, rows, columns, caption, description, specs, height=_height(picture, rows))


def _named(row: Row) -> Row:
    """The ends of the interval under names that say of what."""
    renamed = {"low": "y_low", "high": "y_high"}
    return {renamed.get(key, key): value for key, value in row.items()}


def _height(picture: Picture, rows: tuple[Row, ...]) -> int:
    if picture.kind != "map":
        return HEIGHT
    return max(HEIGHT, 18 * len({row["y"] for row in rows}) + 40)


def _is_words(rows: tuple[Row, ...], key: str) -> bool:
    return any(isinstance(row[key], str) for row in rows)


def _place(axis: Axis, key: str, rows: tuple[Row, ...], language: Language, made: Any) -> Any:
    """One axis: words in the order of the rows, numbers over exactly what is shown."""
    title = axis.title.of(language)
    if _is_words(rows, key):
        order = list(dict.fromkeys(row[key] for row in rows))
        return made(
            f"{key}:N", title=title, sort=order, axis=alt.Axis(labelAngle=0, labelLimit=150)
        )
    ends = [key] if key == "x" else [key, "y_low", "y_high"]
    whole = [{k: row.get(k) for k in ends} for row in rows]
    reach = shared.reach(whole, ends, log=axis.log)
    values = [v for row in whole for v in row.values()]
    if axis.log:
        scale = alt.Scale(type="log", base=axis.base, nice=False, padding=14, domain=reach)
        ticks = shared.log_axis(values) if axis.base == 10 else alt.Axis(format="~g", tickCount=10)
        return made(f"{key}:Q", title=title, scale=scale, axis=ticks)
    scale = alt.Scale(zero=False, nice=False, padding=14, domain=reach)
    return made(f"{key}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6))


def _points(
    name: str, picture: Picture, rows: tuple[Row, ...], text: Text, language: Language
) -> Spec:
    x = _place(picture.x, "x", rows, language, alt.X)
    y = _place(picture.y, "y", rows, language, alt.Y)
    looks = [LOOKS[i % len(LOOKS)] for i in range(len(picture.series))]
    legend = None
    if len(picture.series) > 1:
        words = shared.labels(dict(picture.series), language)
        legend = alt.Legend(labelExpr=words, symbolOpacity=1, symbolStrokeWidth=2)
    names = list(picture.series)
    colour = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=names, range=[look[0] for look in looks]),
        legend=legend,
    )
    shape = alt.Shape(
        "series:N",
        title=None,
        scale=alt.Scale(domain=names, range=[look[1] for look in looks]),
        legend=legend,
    )
    base = alt.Chart(shared.data(name))
    measured = base.transform_filter("datum.kind === 'measured' && isValid(datum.y)")
    if picture.picks == "follows":
        measured = measured.transform_filter(shared.IS_PICKED)
    inside = [] if not _is_words(rows, "x") else [alt.XOffset("series:N", sort=names)]
    tips = shared.tooltips(
        language,
        (
            ("x", picture.x.title),
            ("y", picture.y.title),
            ("y_low", Text("low (99 %)", "下限（99%）")),
            ("y_high", Text("high (99 %)", "上限（99%）")),
            ("n", Text("n", "n")),
        ),
    )
    layers: list[Any] = []
    if picture.theory:
        theory = base.transform_filter("datum.kind === 'theory' && isValid(datum.y)")
        line = theory.mark_line(strokeDash=[6, 4], strokeWidth=1.5, opacity=0.9)
        layers.append(line.encode(x, y, colour))
    layers += [
        measured.transform_filter("isValid(datum.y_low) && isValid(datum.y_high)")
        .mark_rule(strokeWidth=2)
        .encode(x, alt.Y("y_low:Q"), alt.Y2("y_high:Q"), colour, *inside),
        measured.mark_point(filled=True, size=60, opacity=1).encode(
            x, y, colour, shape, *inside, tooltip=tips
        ),
    ]
    if picture.picks == "offers":
        ring = measured.transform_filter("isValid(datum.id)")
        size = shared.emphasis(220, 90)
        layers.append(ring.mark_point(color=shared.GREY).encode(x, y, size=size, tooltip=tips))
    if picture.picks == "follows":
        layers.append(measured.mark_line(strokeWidth=1.5).encode(x, y, colour))
    params = [alt.param(name="picked", value=first_pick(rows))] if picture.picks else []
    return shared.layered(layers, text, language, HEIGHT, params)


def first_pick(rows: tuple[Row, ...]) -> str:
    """What is picked when the page opens: what the first point with an ``id`` belongs to.

    Args:
        rows: Of a chart.
    """
    return next((str(row["id"]) for row in rows if row.get("id")), "")


def _map(
    name: str, picture: Picture, rows: tuple[Row, ...], text: Text, language: Language
) -> Spec:
    value = picture.value or Axis(Text("value", "値"))
    axes = (("x", picture.x, alt.X), ("y", picture.y, alt.Y))
    places = [_ordinal(key, axis, rows, language, made) for key, axis, made in axes]
    numbers = shared.reach(rows, ["value"], log=value.log)
    colour = alt.Color(
        "value:Q",
        title=value.title.of(language),
        scale=alt.Scale(
            scheme="viridis", type="log" if value.log else "linear", domain=numbers, nice=False
        ),
        legend=alt.Legend(gradientLength=200, titleLimit=320, format="~g"),
    )
    tips = shared.tooltips(
        language,
        (
            ("x", picture.x.title),
            ("y", picture.y.title),
            ("value", value.title),
            ("n", Text("n", "n")),
        ),
    )
    chart = alt.Chart(shared.data(name)).mark_rect().encode(*places, colour, tooltip=tips)
    empty = (
        alt.Chart(shared.data(name))
        .transform_filter("!isValid(datum.value)")
        .mark_point(shape=shared.CROSS, size=50, color=shared.VERMILLION)
        .encode(*places)
    )
    return shared.layered((chart, empty), text, language, _height(picture, rows))


def _ordinal(key: str, axis: Axis, rows: tuple[Row, ...], language: Language, made: Any) -> Any:
    """Cells side by side; the vertical axis grows upwards."""
    found = {row[key] for row in rows}
    order = (
        list(dict.fromkeys(row[key] for row in rows)) if _is_words(rows, key) else sorted(found)
    )
    if key == "y" and not _is_words(rows, key):
        order = order[::-1]
    label = alt.Axis(labelExpr="format(datum.value, '~g')", labelAngle=0)
    label = alt.Axis(labelAngle=0) if _is_words(rows, key) else label
    return made(f"{key}:O", title=axis.title.of(language), sort=order, axis=label)
