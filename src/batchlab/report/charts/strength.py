"""The map of feature-learning strength and learning rate: the best ridge, and the law's line."""

from __future__ import annotations

from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.report import names
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.report.strength import StrengthReport

HEIGHT = 360
GAMMA = Text("feature-learning strength γ", "特徴学習の強さγ")
RATE = Text("learning rate", "学習率")
LINES = {
    "best": (Text("best learning rate", "最良の学習率"), shared.VERMILLION, [1, 0]),
    "law": (Text("by the law", "法則による学習率"), shared.BLACK, [6, 4]),
}


def strength(found: StrengthReport) -> Chart | None:
    """Every γ and learning rate that was tried.

    Args:
        found: The record.
    """
    times = 100.0 if found.metric.unit == "%" else 1.0
    rows = shared.plain_rows(
        {
            "gamma": p.gamma,
            "rate": p.learning_rate,
            "metric": p.metric * times,
            "failed": p.failed,
            "runs": p.runs,
        }
        for p in found.points
        if p.gamma is not None
    )[: shared.ROWS_A_CHART]
    if not rows:
        return None
    metric = names.metric(found.metric)
    title = say("{m} (%)", "{m}（%）", m=metric) if found.metric.unit == "%" else metric
    description = say(
        "Map of {n} pairs of γ and learning rate with the best rate of each γ and the line of "
        "the law.",
        "γと学習率の組み合わせ{n}通りの地図。γごとの最良の学習率と、法則の線。",
        n=len(rows),
    )
    caption = say(
        "Squares: {m} at the end of training, mean of n = {n} runs on the seeds that choose; "
        "crosses: a run diverged. Solid: the best rate of each γ; dashed: the best rate of the "
        "model as it is times γ² (γ ≤ 1) or γ^(2/{l}).",
        "四角：学習終了時の{m}（選定用のシードn＝{n}回の平均）。×：発散した学習あり。実線：γごとの"
        "最良の学習率。破線：元のモデルの最良の学習率×γ²（γ≤1）またはγ^(2/{l})。",
        m=metric,
        n=len(found.choosing),
        l=found.depth,
    )
    columns = (
        ("gamma", GAMMA),
        ("rate", RATE),
        ("metric", title),
        ("failed", Text("diverged", "発散")),
        ("runs", Text("runs", "回数")),
    )
    specs = {"": {lang: _spec(found, rows, title, description, lang) for lang in LANGUAGES}}
    return Chart("strength", rows, columns, caption, description, specs, height=HEIGHT)


def _spec(
    found: StrengthReport, rows: tuple[Row, ...], title: Text, text: Text, language: Language
) -> Spec:
    lines = [
        {"gamma": row.gamma, "rate": rate, "line": line}
        for row in found.strengths
        for line, rate in (("best", row.learning_rate), ("law", row.law))
    ]
    gammas = shared.reach(rows, ["gamma"])
    rates = shared.reach(rows, ["rate"], *(line["rate"] for line in lines))
    x = alt.X(
        "gamma:Q",
        title=GAMMA.of(language),
        scale=alt.Scale(type="log", nice=False, padding=18, domain=gammas),
        axis=shared.log_axis(gammas, grid=False),
    )
    y = alt.Y(
        "rate:Q",
        title=RATE.of(language),
        scale=alt.Scale(type="log", nice=False, padding=18, domain=rates),
        axis=shared.log_axis(rates, grid=False),
    )
    colour = alt.Color(
        "metric:Q",
        title=title.of(language),
        scale=alt.Scale(scheme="viridis", reverse=found.metric.maximise),
        legend=alt.Legend(gradientLength=180, tickCount=4),
    )
    keys = list(LINES)
    words = {key: words for key, (words, _, _) in LINES.items()}
    dash = alt.StrokeDash(
        "line:N",
        title=None,
        scale=alt.Scale(domain=keys, range=[dash for _, _, dash in LINES.values()]),
        legend=alt.Legend(labelExpr=shared.labels(words, language), columns=1),
    )
    stroke = alt.Stroke(
        "line:N",
        title=None,
        scale=alt.Scale(domain=keys, range=[colour for _, colour, _ in LINES.values()]),
        legend=alt.Legend(labelExpr=shared.labels(words, language), columns=1),
    )
    base = alt.Chart(shared.data("strength"))
    shown = (("gamma", GAMMA), ("rate", RATE), ("metric", title))
    layers: list[Any] = [
        base.transform_filter("isValid(datum.metric)")
        .mark_square(size=260, opacity=1)
        .encode(x=x, y=y, color=colour, tooltip=shared.tooltips(language, shown)),
        base.transform_filter("datum.failed > 0")
        .mark_point(shape=shared.CROSS, size=90, strokeWidth=2, color=shared.BLACK)
        .encode(x=x, y=y),
        alt.Chart(alt.InlineData(values=lines))
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, stroke=stroke, strokeDash=dash),
    ]
    return shared.layered(layers, text, language, HEIGHT)
