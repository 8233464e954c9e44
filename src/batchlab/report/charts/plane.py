"""The map of learning rate and batch size, with the two popular rules."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.advisor.record import Advice
from batchlab.report import names
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.types import Status


def plane(advice: Advice) -> Chart | None:
    """Every batch size and learning rate of the search, with the two scaling rules from today's.

    Args:
        advice: The record.
    """
    if not advice.plane:
        return None
    times = 100.0 if advice.metric.unit == "%" else 1.0
    rows = shared.plain_rows(
        {
            "batch": p.batch_size,
            "rate": p.learning_rate,
            "id": shared.identity_at(advice, p.batch_size, p.learning_rate),
            "status": str(p.status),
            "metric": p.metric * times,
            "loss": p.loss,
            "works": p.works,
            "rung": p.rung,
            "samples": p.samples,
        }
        for p in advice.plane
        if p.learning_rate > 0
    )[: shared.ROWS_A_CHART]
    description = say(
        "Map of {n} pairs of batch size and learning rate; darker is better, {k} pairs failed. "
        "Two lines "
        "show the linear and the square-root rule starting at today's settings.",
        "バッチサイズと学習率の組み合わせ{n}通りの地図。色が濃いほど良く、{k}通りは失敗。"
        "2本の線は、現在の設定からの比例則と平方根則。",
        n=len(rows),
        k=sum(r["status"] != Status.OK for r in rows),
    )
    caption = say(
        "Each square: one trial (n = 1), continued from a common starting point; poor trials were "
        "stopped "
        "early. Black frame: a learning rate that works. Shaded column and circle: the candidate "
        "picked.",
        "四角：共通の途中状態から続けた試行（各n＝1）。見込みの薄い試行は早めに打ち切っています。"
        "黒枠：使える学習率。縦の帯と丸：選択中の候補。",
    )
    columns = (
        ("batch", Text("batch size", "バッチサイズ")),
        ("rate", Text("learning rate", "学習率")),
        ("status", Text("status", "結果")),
        ("metric", shared.axis_title(advice, "metric")),
        ("loss", Text("loss", "損失")),
        ("works", Text("works", "使えるか")),
        ("samples", Text("examples trained on", "学習したデータ数")),
        ("rung", Text("round of the trial", "試行の段")),
    )
    shown = _plane_values(advice)
    specs = {
        name if len(shown) > 1 else "": {
            lang: _plane_spec(advice, rows, name, description, lang) for lang in LANGUAGES
        }
        for name in shown
    }
    options = tuple((name, shared.axis_title(advice, name)) for name in shown)
    choices = ((Text("colour shows", "色の意味"), options),) if len(shown) > 1 else ()
    return Chart("plane", rows, columns, caption, description, specs, choices, height=360)


def _plane_values(advice: Advice) -> tuple[str, ...]:
    has = any(math.isfinite(p.metric) for p in advice.plane)
    return ("metric", "loss") if has and advice.metric.name != "loss" else ("loss",)


_STATUS_SHAPES = {
    "ok": (names.STATUSES[Status.OK], "square"),
    "diverged": (names.STATUSES[Status.DIVERGED], shared.CROSS),
    "did not learn": (names.STATUSES[Status.DID_NOT_LEARN], "stroke"),
}


def _shade_domain(rows: tuple[Row, ...], name: str, maximise: bool) -> list[float]:
    """From the best value to the middle of the rest: what is worse is all one colour."""
    values = sorted(
        (r[name] for r in rows if r["status"] == "ok" and r[name] is not None),
        reverse=maximise,
    )
    if not values:
        return [0.0, 1.0]
    worst = values[min(len(values) - 1, (4 * len(values)) // 5)]
    return [worst, values[0]] if worst != values[0] else [values[0] - 1.0, values[0] + 1.0]


def _shown(advice: Advice, rows: tuple[Row, ...]) -> tuple[list[float], list[float]]:
    """Batch sizes and learning rates from the smallest to the largest in the picture."""
    settings = [c.setting for c in advice.candidates]
    return (
        shared.reach(rows, ["batch"], *(s.batch_size for s in settings)),
        shared.reach(rows, ["rate"], *(s.learning_rate for s in settings)),
    )


def _plane_spec(
    advice: Advice, rows: tuple[Row, ...], name: str, text: Text, language: Language
) -> Spec:
    maximise = name == "metric" and advice.metric.maximise
    sizes, rates = _shown(advice, rows)
    x = shared.batch_axis(language, sizes)
    y = alt.Y(
        "rate:Q",
        title=Text("learning rate", "学習率").of(language),
        scale=alt.Scale(type="log", nice=False, padding=18, domain=rates),
        axis=shared.log_axis(rates, grid=False),
    )
    shape = alt.Shape(
        "status:N",
        title=None,
        scale=alt.Scale(
            domain=list(_STATUS_SHAPES), range=[s for _w, s in _STATUS_SHAPES.values()]
        ),
        legend=alt.Legend(
            labelExpr=shared.labels({k: w for k, (w, _s) in _STATUS_SHAPES.items()}, language),
            columns=1,
            symbolFillColor="#888",
            symbolStrokeColor="#444",
        ),
    )
    colour = alt.Color(
        f"{name}:Q",
        title=shared.axis_title(advice, name).of(language),
        scale=alt.Scale(
            scheme="viridis",
            reverse=True,
            domain=_shade_domain(rows, name, maximise),
            clamp=True,
        ),
        legend=alt.Legend(gradientLength=180, tickCount=4),
    )
    base = alt.Chart(shared.data("plane"))
    tips = shared.tooltips(
        language,
        (
            ("batch", Text("batch size", "バッチサイズ")),
            ("rate", Text("learning rate", "学習率")),
            (name, shared.axis_title(advice, name)),
            ("status", Text("status", "結果")),
        ),
    )
    layers: list[Any] = [
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(batch="picked_batch")
        .transform_filter("isValid(datum.batch)")
        .mark_rule(color=shared.VERMILLION, strokeWidth=26, opacity=0.22)
        .encode(x=x),
        *_scaling_lines(advice, rows, language),
        base.transform_filter("datum.status === 'ok'")
        .mark_point(filled=True, size=190, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=shape,
            stroke=alt.condition("datum.works", alt.value("#000"), alt.value("transparent")),
            strokeWidth=alt.value(2),
            tooltip=tips,
        ),
        base.transform_filter("datum.status !== 'ok'")
        .mark_point(size=110, opacity=1, color="#444", strokeWidth=2.5, filled=False)
        .encode(x=x, y=y, shape=shape, tooltip=tips),
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(batch="picked_batch", rate="picked_rate")
        .transform_filter("isValid(datum.batch) && isValid(datum.rate)")
        .mark_point(size=520, filled=False, stroke=shared.VERMILLION, strokeWidth=3, opacity=1)
        .encode(x=x, y=y),
    ]
    return shared.finish(layers, advice, text, language, 360)


_SCALING = {
    "linear": (Text("linear rule from today", "現在からの比例則"), [1, 0]),
    "square root": (Text("square-root rule from today", "現在からの平方根則"), [6, 4]),
}


def _scaling_lines(advice: Advice, rows: tuple[Row, ...], language: Language) -> list[Any]:
    """What the two popular rules would have set, clipped to the learning rates tried."""
    start = advice.today.batch_size
    if not isinstance(start, int) or not rows:
        return []
    tried = [r["rate"] for r in rows]
    sizes = sorted({r["batch"] for r in rows})
    values = [
        {"batch": b, "rate": advice.today.learning_rate * (b / start) ** power, "rule": rule}
        for rule, power in (("linear", 1.0), ("square root", 0.5))
        for b in sizes
    ]
    kept = [v for v in values if min(tried) / 2 <= v["rate"] <= 2 * max(tried)]
    dash = alt.StrokeDash(
        "rule:N",
        title=None,
        scale=alt.Scale(domain=list(_SCALING), range=[d for _w, d in _SCALING.values()]),
        legend=alt.Legend(
            labelExpr=shared.labels({k: w for k, (w, _d) in _SCALING.items()}, language),
            columns=1,
            symbolType="stroke",
            symbolSize=500,
        ),
    )
    lines = alt.Chart(alt.InlineData(values=kept))
    return [
        lines.mark_line(color=shared.BLACK, strokeWidth=1.5).encode(
            x=alt.X("batch:Q"), y=alt.Y("rate:Q"), strokeDash=dash
        )
    ]
