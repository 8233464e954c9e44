"""Time to the goal against the metric at the end."""

from __future__ import annotations

import json
import math
from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.advisor.record import Advice, Candidate
from batchlab.report import facts, names
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec

_NAMED = f"{shared.IS_PICKED} || datum.role !== 'other'"
"""Settings that keep their label where there is little room."""


def pareto(advice: Advice) -> Chart | None:
    """Time to the target against the metric at the end: nothing is better in both than the front.

    Args:
        advice: The record.
    """
    rows = _pareto_rows(advice)
    if not rows:
        return None
    description = say(
        "{n} settings: time to reach the goal against {m} at the end of training. Up to the "
        "{side} is "
        "better.",
        "{n}通りの設定について、目標に達するまでの時間と学習終了時の{m}。{side_ja}ほど良い。",
        n=len(rows),
        m=names.metric(advice.metric),
        side="left" if advice.metric.maximise else "left, and down",
        side_ja="左上" if advice.metric.maximise else "左下",
    )
    caption = say(
        "Points: settings, labelled with their batch size, and their 90 % ranges (n in the "
        "table). A green line joins those that no other setting beats in both, where there are "
        "several. A cross at the right edge never reached the goal.",
        "点：設定（数字はバッチサイズ）と90%の範囲（nは表に記載）。緑の線：時間と成績の両方で"
        "上回られることのない設定。右端の×：目標に達しなかった設定。",
    )
    specs = {"": {lang: _pareto_spec(advice, rows, description, lang) for lang in LANGUAGES}}
    columns = (
        ("id", Text("setting", "設定")),
        *shared.range_columns("seconds", Text("seconds to the goal", "目標までの秒数")),
        *shared.range_columns("metric", shared.axis_title(advice, "metric")),
        ("best", Text("not beaten in both", "両方で負けない")),
        ("n", Text("n", "n")),
    )
    return Chart("pareto", rows, columns, caption, description, specs, height=320)


def _pareto_rows(advice: Advice) -> tuple[Row, ...]:
    known = [c for c in advice.candidates if c.metric is not None and c.seconds_to_target]
    finite = [
        c.seconds_to_target.value
        for c in known
        if c.seconds_to_target and math.isfinite(c.seconds_to_target.value)
    ]
    if not finite:
        return ()
    edge = 1.6 * max(finite)
    times = 100.0 if advice.metric.unit == "%" else 1.0
    return shared.plain_rows(_pareto_row(advice, c, edge, times) for c in known)


def _pareto_row(advice: Advice, one: Candidate, edge: float, times: float) -> Row:
    seconds = one.seconds_to_target
    reached = seconds is not None and math.isfinite(seconds.value)
    ends = shared.ends(seconds, "seconds")
    return {
        "id": one.setting.id,
        "words": names.size(one.setting.batch_size),
        "role": facts.role(advice, one.setting.id),
        "reached": "reached" if reached else "not reached",
        **ends,
        "x": ends["seconds"] if reached else edge,
        **shared.ends(one.metric, "metric", times),
        "best": one.pareto,
        "n": one.runs,
    }


def _pareto_spec(advice: Advice, rows: tuple[Row, ...], text: Text, language: Language) -> Spec:
    times = shared.reach(rows, ["x", "seconds_low", "seconds_high"])
    x = alt.X(
        "x:Q",
        title=Text("time to reach the goal (seconds)", "目標に達するまでの時間（秒）").of(
            language
        ),
        scale=alt.Scale(type="log", nice=False, padding=24, domain=times),
        axis=shared.log_axis(times, grid=False),
    )
    y = alt.Y(
        "metric:Q",
        title=say("{m} at the end", "学習終了時の{m}", m=shared.axis_title(advice, "metric")).of(
            language
        ),
        scale=alt.Scale(
            zero=False,
            nice=False,
            padding=18,
            domain=shared.reach(rows, ["metric", "metric_low", "metric_high"], log=False),
        ),
        axis=alt.Axis(tickCount=6, format="~f"),
    )
    base = alt.Chart(shared.data("pareto")).transform_calculate(look=shared.LOOK_EXPRESSION)
    reached = base.transform_filter("datum.reached === 'reached'")
    colour = shared.look(advice, language, alt.Color, 1)
    size = shared.emphasis(260, 90)
    never = Text(": goal not reached", "：目標に未到達").of(language)
    tips = shared.tooltips(
        language,
        (
            ("id", Text("setting", "設定")),
            ("seconds", Text("seconds", "秒")),
            ("metric", shared.axis_title(advice, "metric")),
        ),
    )
    layers: list[Any] = [
        reached.transform_filter("datum.best")
        .mark_line(color=shared.GREEN, strokeWidth=2, interpolate="linear")
        .encode(x=x, y=y, order="x:Q"),
        reached.transform_filter("isValid(datum.seconds_low)")
        .mark_rule()
        .encode(
            x=alt.X("seconds_low:Q"),
            x2="seconds_high:Q",
            y=y,
            color=colour,
            opacity=shared.emphasis(1.0, 0.45),
        ),
        base.transform_filter("isValid(datum.metric_low)")
        .mark_rule()
        .encode(
            x=x,
            y=alt.Y("metric_low:Q"),
            y2="metric_high:Q",
            color=colour,
            opacity=shared.emphasis(1.0, 0.45),
        ),
        reached.mark_point(filled=True, opacity=1).encode(
            x=x,
            y=y,
            color=colour,
            shape=shared.look(advice, language, alt.Shape, 2),
            size=size,
            tooltip=tips,
        ),
        base.transform_filter("datum.reached !== 'reached'")
        .mark_point(
            shape=shared.CROSS, size=110, strokeWidth=2.5, color=shared.VERMILLION, opacity=1
        )
        .encode(x=x, y=y, tooltip=tips),
        *shared.haloed(
            reached.transform_filter(f"width > 480 || {_NAMED}"),
            {"x": x, "y": y, "text": alt.Text("words:N")},
            align="left",
            dx=9,
            dy=-9,
            fontSize=11,
        ),
        base.transform_filter("datum.reached !== 'reached'")
        .transform_calculate(told=f"datum.words + {json.dumps(never, ensure_ascii=False)}")
        .mark_text(align="right", dx=-11, fontSize=11)
        .encode(x=x, y=y, text="told:N"),
    ]
    return shared.finish(layers, advice, text, language, 320)
