"""The noise scale along training, with the useful batch sizes."""

from __future__ import annotations

import json
from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.advisor.record import Advice
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec


def noise(advice: Advice) -> Chart | None:
    """The noise scale along the baseline run, with the useful range.

    Args:
        advice: The record.
    """
    rows = []
    for point in advice.noise:
        known = point.scale
        rows.append(
            {
                "samples": point.samples,
                "epochs": point.samples / advice.train_examples if advice.train_examples else None,
                "state": "resolved" if known else "at least",
                "scale": known.value if known else point.at_least,
                "low": max(known.low, 0.1) if known else point.at_least,
                "high": known.high if known else None,
                "n": known.n if known else None,
            }
        )
    kept = tuple(r for r in shared.plain_rows(rows) if r["scale"] is not None and r["scale"] > 0)
    if not kept:
        return None
    description = say(
        "The noise scale at {n} moments of a training with today's settings, each with its 90 % "
        "range.",
        "現在の設定での学習中、{n}時点で測ったノイズスケール（90%の範囲つき）。",
        n=len(kept),
    )
    most = max((p.scale.n for p in advice.noise if p.scale), default=0)
    caption = say(
        "Points: noise scale in examples; lines: 90 % range, n = {n} batches each. An upward "
        "triangle is "
        "a lower bound: the signal was too weak for a value. Thick line: batch size of the "
        "candidate "
        "picked.",
        "点：ノイズスケール（件）。縦線：90%の範囲（各n＝{n}バッチ）。上向き三角：下限のみ（信号が"
        "弱く値が"
        "定まらない）。太い線：選択中の候補のバッチサイズ。",
        n=most,
    )
    columns = (
        ("samples", Text("examples seen", "学習したデータ数")),
        ("epochs", Text("epochs", "エポック")),
        ("state", Text("state", "状態")),
        ("scale", Text("noise scale, examples", "ノイズスケール（件）")),
        ("low", Text("low", "下限")),
        ("high", Text("high", "上限")),
        ("n", Text("n", "n")),
    )
    specs = {"": {lang: _noise_spec(advice, kept, description, lang) for lang in LANGUAGES}}
    return Chart("noise", kept, columns, caption, description, specs)


_NOISE_WORDS = {
    "resolved": Text("noise scale, with range", "ノイズスケール（範囲つき）"),
    "at least": Text("at least this", "少なくともこの値"),
}


def _shown(advice: Advice, rows: tuple[Row, ...]) -> list[float]:
    """Batch sizes from the smallest to the largest that the picture speaks of."""
    ends = (advice.useful_low, advice.useful_high)
    sizes = (c.setting.batch_size for c in advice.candidates)
    return shared.reach(rows, ["scale", "low", "high"], *ends, *sizes)


def _noise_spec(advice: Advice, rows: tuple[Row, ...], text: Text, language: Language) -> Spec:
    y = alt.Y(
        "scale:Q",
        title=Text("examples in a batch", "バッチのデータ数（件）").of(language),
        scale=alt.Scale(type="log", base=2, padding=14, nice=False, domain=_shown(advice, rows)),
        axis=alt.Axis(format=",~r", tickCount=8),
    )
    x = alt.X(
        "samples:Q",
        title=Text("examples seen in training", "学習したデータ数（件）").of(language),
        axis=alt.Axis(
            tickCount=6,
            grid=False,
            labelExpr="datum.value === 0 ? '0' : format(datum.value, '~s')",
        ),
        scale=alt.Scale(padding=16, nice=False, domain=shared.reach(rows, ["samples"], log=False)),
    )
    domain = ["resolved", "at least"]
    legend = alt.Legend(labelExpr=shared.labels(_NOISE_WORDS, language))
    base = alt.Chart(shared.data("noise"))
    picked = Text("batch size picked: ", "選択中のバッチサイズ：").of(language)
    layers: list[Any] = []
    if advice.useful_low and advice.useful_high and advice.useful_low <= advice.useful_high:
        words = Text("useful batch sizes", "有効なバッチサイズ").of(language)
        ends = {
            "low": advice.useful_low,
            "high": advice.useful_high,
            "words": f"{words}: {advice.useful_low:,}–{advice.useful_high:,}",
        }
        band = alt.Chart(alt.InlineData(values=[ends]))
        layers += [
            band.mark_rect(color=shared.GREEN, opacity=0.14).encode(
                y="low:Q", y2="high:Q", x=alt.value(0), x2=alt.value("width")
            ),
            band.mark_text(align="left", baseline="top", dx=5, dy=4, fontSize=12).encode(
                y="high:Q", x=alt.value(0), text="words:N"
            ),
        ]
    layers += [
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(scale="picked_batch")
        .transform_filter("isValid(datum.scale)")
        .mark_rule(color=shared.VERMILLION, strokeWidth=3, opacity=0.8)
        .encode(y=y),
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(
            scale="picked_batch", words=f"{json.dumps(picked, ensure_ascii=False)} + picked_batch"
        )
        .transform_filter("isValid(datum.scale)")
        .mark_text(align="right", baseline="bottom", dx=-4, dy=-4, fontSize=12)
        .encode(y=y, x=alt.value("width"), text="words:N"),
        base.transform_filter("isValid(datum.high)")
        .mark_rule(color=shared.PURPLE, strokeWidth=2)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1, color=shared.PURPLE).encode(
            x=x,
            y=y,
            shape=alt.Shape(
                "state:N",
                title=None,
                scale=alt.Scale(domain=domain, range=["circle", "triangle-up"]),
                legend=legend,
            ),
            tooltip=shared.tooltips(
                language,
                (
                    ("samples", Text("examples seen", "学習したデータ数")),
                    ("scale", Text("noise scale", "ノイズスケール")),
                ),
            ),
        ),
    ]
    return shared.finish(layers, advice, text, language, 300)
