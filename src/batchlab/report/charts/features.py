"""The metric against the number of internal features kept."""

from __future__ import annotations

from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.advisor.record import Advice, FeatureSide, KeptPoint
from batchlab.report import facts, names
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec

HEIGHT = 300
ORDERS = {
    "important": Text("most important first", "重要な順に残す"),
    "random": Text("at random", "無作為に残す"),
}


def features(advice: Advice) -> Chart | None:
    """The metric with the most important units, and with random ones, both settings.

    Args:
        advice: The record.
    """
    found = advice.features
    if found is None or found.today is None or found.recommended is None:
        return None
    other = facts.alternative(advice)
    role = facts.role(advice, other.id) if other is not None else "alternative"
    rows = shared.plain_rows(
        made
        for name, side in (("today", found.today), (role, found.recommended))
        for made in _rows(advice, side, name)
    )
    description = say(
        "{m} against the number of internal features kept, of {n}, with today's settings and the "
        "others; the most important ones first, and at random.",
        "残した内部の特徴の数（全{n}個）と{m}。現在の設定ともう一方の設定、重要な順と無作為の順。",
        m=names.metric(advice.metric),
        n=found.units,
    )
    trainings = found.today.curve[0].metric.n
    caption = say(
        "Points: mean over n = {n} trainings each; lines through them: 90 % range over trainings. "
        "Filled: the most important features stay; hollow: as many at random. All others are held "
        "at their mean.",
        "点：各n＝{n}回の学習の平均。縦線：学習の違いによる90%の範囲。塗りつぶし：重要なものから残す。白抜き："
        "同じ数を無作為に残す。ほかの特徴は平均値に固定。",
        n=trainings,
    )
    columns = (
        ("role", Text("settings", "設定")),
        ("order", Text("order", "順序")),
        ("kept", Text("features kept", "残した特徴の数")),
        *shared.range_columns("metric", shared.axis_title(advice, "metric")),
        ("n", Text("n", "n")),
    )
    specs = {"": {lang: _spec(advice, rows, role, description, lang) for lang in LANGUAGES}}
    return Chart("features", rows, columns, caption, description, specs, height=HEIGHT)


def _rows(advice: Advice, side: FeatureSide, role: str) -> list[Row]:
    return [_row(advice, point, role, order) for order in ORDERS for point in side.curve]


def _row(advice: Advice, point: KeptPoint, role: str, order: str) -> Row:
    times = 100.0 if advice.metric.unit == "%" else 1.0
    value = point.metric if order == "important" else point.random
    return {
        "role": role,
        "order": order,
        "kept": point.count,
        **shared.ends(value, "metric", times),
        "n": value.n,
    }


def _spec(
    advice: Advice, rows: tuple[Row, ...], role: str, text: Text, language: Language
) -> Spec:
    largest = max(row["kept"] for row in rows)
    x = alt.X(
        "kept:Q",
        title=Text("internal features kept", "残した内部の特徴の数").of(language),
        scale=alt.Scale(type="symlog", constant=2, domain=[0, largest], nice=False),
        axis=alt.Axis(values=_ticks(largest), format="d"),
    )
    ends = shared.reach(rows, ["metric", "metric_low", "metric_high"], log=False)
    y = alt.Y(
        "metric:Q",
        title=shared.axis_title(advice, "metric").of(language),
        scale=alt.Scale(domain=ends, nice=True),
    )
    colour, shape = shared.role_looks(["today", role], language)
    dash = alt.StrokeDash(
        "order:N",
        title=None,
        scale=alt.Scale(domain=list(ORDERS), range=[[1, 0], [4, 3]]),
        legend=alt.Legend(labelExpr=shared.labels(ORDERS, language), symbolType="stroke"),
    )
    base = alt.Chart(shared.data("features")).transform_filter("isValid(datum.metric)")
    tips = shared.tooltips(
        language,
        (
            ("kept", Text("features kept", "残した特徴の数")),
            ("metric", shared.axis_title(advice, "metric")),
        ),
    )
    layers: list[Any] = [
        base.mark_line(strokeWidth=1, opacity=0.55).encode(
            x=x, y=y, color=colour, strokeDash=dash, detail="order:N"
        ),
        base.transform_filter("isValid(datum.metric_low) && isValid(datum.metric_high)")
        .mark_rule(strokeWidth=1.5, opacity=0.7)
        .encode(x=x, y=alt.Y("metric_low:Q"), y2="metric_high:Q", color=colour),
        base.transform_filter("datum.order === 'important'")
        .mark_point(filled=True, size=50, opacity=1)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        base.transform_filter("datum.order === 'random'")
        .mark_point(filled=False, fill="white", size=40, opacity=1, strokeWidth=1.5)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
    ]
    return shared.finish(layers, advice, text, language, HEIGHT)


def _ticks(largest: int) -> list[int]:
    """Round numbers of units up to all of them.

    Example:
        >>> _ticks(64)
        [0, 1, 2, 5, 10, 20, 64]
    """
    round_ones = [step * 10**power for power in range(6) for step in (1, 2, 5)]
    return [0, *(k for k in round_ones if k <= largest / 1.5), largest]
