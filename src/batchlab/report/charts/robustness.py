"""How much each disturbance changes the metric, today's settings beside the others."""

from __future__ import annotations

from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, plain, say
from batchlab.advisor.record import Advice, RobustRow
from batchlab.report import facts, names, sturdiness
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.types import Estimate

STEP = 40
"""Pixels of one disturbance."""


def robustness(advice: Advice) -> Chart | None:
    """The change of the metric under each disturbance, with 90 % ranges.

    Args:
        advice: The record.
    """
    found = advice.robustness
    if found is None or not found.rows:
        return None
    other = facts.alternative(advice)
    role = facts.role(advice, other.id) if other is not None else "alternative"
    rows = shared.plain_rows(
        made
        for row in found.rows
        for made in (
            _row(advice, row, "today", row.today, row.today_change),
            _row(advice, row, role, row.recommended, row.recommended_change),
        )
    )
    description = say(
        "Change of {m} under {n} disturbances, today's settings and the others, each with its "
        "90 % range.",
        "{n}通りの試験での{m}の変化。現在の設定ともう一方の設定、90%の範囲つき。",
        m=names.metric(advice.metric),
        n=len(found.rows),
    )
    seeds = sorted({row.difference.n for row in found.rows})
    caption = say(
        "Points: mean change of {m} against the same runs without the disturbance; lines: 90 % "
        "range, n = {n} trainings each. Zero: no change.",
        "点：同じ学習結果で、試験の条件を加えないときからの{m}の変化（平均）。横線：90%の範囲（各n＝"
        "{n}回の学習）。0：変化なし。",
        m=names.metric(advice.metric),
        n="–".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))),
    )
    columns = (
        ("en", Text("test", "試験（英語）")),
        ("ja", Text("test (Japanese)", "試験")),
        ("role", Text("settings", "設定")),
        *shared.range_columns("change", _axis(advice)),
        *shared.range_columns("metric", shared.axis_title(advice, "metric")),
        ("draws", Text("draws", "ノイズの回数")),
        ("n", Text("n", "n")),
    )
    height = STEP * len(found.rows) + 20
    specs = {
        "": {lang: _spec(advice, rows, role, description, lang, height) for lang in LANGUAGES}
    }
    return Chart("robustness", rows, columns, caption, description, specs, height=height)


def _axis(advice: Advice) -> Text:
    unit = Text(" (points)", "（ポイント）") if advice.metric.unit == "%" else Text("", "")
    return say("change of {m}{u}", "{m}の変化{u}", m=names.metric(advice.metric), u=unit)


def _row(advice: Advice, row: RobustRow, role: str, value: Estimate, change: Estimate) -> Row:
    times = 100.0 if advice.metric.unit == "%" else 1.0
    words = sturdiness.disturbance(row.kind, row.size, row.unit)
    return {
        "en": plain(words.en),
        "ja": plain(words.ja),
        "role": role,
        **shared.ends(change, "change", times),
        **shared.ends(value, "metric", times),
        "draws": row.draws,
        "n": change.n,
    }


def _spec(
    advice: Advice,
    rows: tuple[Row, ...],
    role: str,
    text: Text,
    language: Language,
    height: int,
) -> Spec:
    order = list(dict.fromkeys(row[language] for row in rows))
    y = alt.Y(
        f"{language}:N",
        title=None,
        sort=order,
        axis=alt.Axis(labelLimit=190, labelFontSize=11, domain=False, ticks=False, grid=True),
    )
    inner = alt.YOffset("role:N", sort=["today", role], scale=alt.Scale(paddingOuter=0.6))
    ends = shared.reach(rows, ["change", "change_low", "change_high"], 0.0, log=False)
    x = alt.X(
        "change:Q",
        title=_axis(advice).of(language),
        scale=alt.Scale(domain=ends, nice=True, padding=8),
        axis=alt.Axis(tickCount=5, format="~f"),
    )
    colour, shape = shared.role_looks(["today", role], language)
    base = alt.Chart(shared.data("robustness"))
    tips = shared.tooltips(
        language,
        (
            (language, Text("test", "試験")),
            ("change", _axis(advice)),
            ("metric", shared.axis_title(advice, "metric")),
        ),
    )
    layers: list[Any] = [
        alt.Chart(alt.InlineData(values=[{"change": 0}]))
        .mark_rule(color="#777", strokeDash=[4, 3])
        .encode(x=x),
        base.transform_filter("isValid(datum.change_low) && isValid(datum.change_high)")
        .mark_rule(strokeWidth=2)
        .encode(x=alt.X("change_low:Q"), x2="change_high:Q", y=y, yOffset=inner, color=colour),
        base.transform_filter("isValid(datum.change)")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, y=y, yOffset=inner, color=colour, shape=shape, tooltip=tips),
    ]
    return shared.finish(layers, advice, text, language, height)
