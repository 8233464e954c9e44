"""Learning curves over samples, epochs, updates, time or money."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, Literal, cast

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.advisor.record import Advice, CurvePoint
from batchlab.report import facts, formats, names
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec

_AXES: dict[str, tuple[Text, Literal["linear", "log"]]] = {
    "samples": (Text("examples seen", "学習したデータ数（件）"), "linear"),
    "epochs": (Text("epochs (passes over the data)", "エポック（データを何周したか）"), "linear"),
    "updates": (Text("updates of the weights", "重みの更新回数"), "log"),
    "seconds": (Text("time (seconds)", "時間（秒）"), "log"),
    "money": (Text("money", "費用"), "log"),
}


def curves(advice: Advice) -> Chart | None:
    """Loss and metric along training, against samples, epochs, updates, time or money.

    Args:
        advice: The record.
    """
    return _drawn(advice, "curves")


def on_all(advice: Advice) -> Chart | None:
    """The same of the pair on all data, where the stages ran on a part of them.

    Args:
        advice: The record.
    """
    repeat = advice.part.repeat if advice.part is not None else None
    return _drawn(replace(advice, curves=repeat.curves), "all-data") if repeat else None


def _drawn(advice: Advice, name: str) -> Chart | None:
    rows = _curve_rows(advice)
    if not rows:
        return None
    axes = [a for a in _AXES if any(r[a] is not None and r[a] > 0 for r in rows)]
    values = [
        v
        for v in ("metric", "loss")
        if any(r["name"] == v and r["value"] is not None for r in rows)
    ]
    seeds = max(p.n for p in advice.curves)
    each = any(r["run"] for r in rows)
    description = say(
        "Learning curves of {k} settings on validation data: {m} and loss along training.",
        "{k}通りの設定の学習曲線（検証データ）。学習に伴う{m}と損失の変化。",
        k=len({r["id"] for r in rows}),
        m=names.metric(advice.metric),
    )
    caption = (_caption_of_runs if each else _caption)(seeds)
    columns = (
        ("id", Text("setting", "設定")),
        ("name", Text("quantity", "量")),
        *((axis, _curve_axis_title(advice, axis)) for axis in axes),
        ("value", Text("value", "値")),
        ("low", Text("low", "下限")),
        ("high", Text("high", "上限")),
        ("n", Text("n", "n")),
        *((("run", Text("training", "学習")), ("end", Text("end", "終わり方"))) if each else ()),
    )
    bases = {
        (value, lang): _curve_spec(advice, rows, value, description, lang, name)
        for value in values
        for lang in LANGUAGES
    }
    specs = {
        f"{value}-{axis}": {
            lang: _against(bases[value, lang], _x(advice, rows, axis, lang), axis)
            for lang in LANGUAGES
        }
        for value in values
        for axis in axes
    }
    choices = (
        (Text("show", "表示"), tuple((v, shared.axis_title(advice, v)) for v in values)),
        (Text("against", "横軸"), tuple((a, _curve_axis_title(advice, a)) for a in axes)),
    )
    return Chart(name, rows, columns, caption, description, specs, choices, height=340)


def _caption(seeds: int) -> Text:
    return say(
        "Lines: median over repeats on validation data; bands: the range that holds 90 % of the "
        "repeats "
        "(up to n = {n}; n is in the table). Strong: today's and the candidate picked. The worst "
        "values are "
        "cut off; all are in the table.",
        "線：繰り返しの中央値（検証データ）。帯：繰り返しの90%が入る範囲（最大n＝{n}、nは表に記"
        "載）。"
        "濃い線：現在の設定と選択中の候補。特に悪い値は図の外です（表には全て記載）。",
        n=seeds,
    )


def _caption_of_runs(seeds: int) -> Text:
    return say(
        "Thin lines: every training by itself. Thick lines and bands, where a setting has more: "
        "their median and the range that holds 90 % of them (up to n = {n}). Strong: today's and "
        "the candidate picked. The worst values are cut off; all are in the table.",
        "細い線：1回ごとの学習。太い線と帯：同じ設定の学習が複数ある場合の中央値と、その90%が入る"
        "範囲（最大n＝{n}）。濃い線：現在の設定と選択中の候補。特に悪い値は図の外です（表には全て"
        "記載）。",
        n=seeds,
    )


def _curve_axis_title(advice: Advice, axis: str) -> Text:
    if axis == "money" and advice.price is not None:
        unit = formats.currency(advice.price.currency)
        return say("money ({u})", "費用（{uj}）", u=unit.en.strip(), uj=unit.ja)
    return _AXES[axis][0]


def _curve_rows(advice: Advice) -> tuple[Row, ...]:
    by_line: dict[tuple[str, str, str], list[CurvePoint]] = {}
    for point in advice.curves:
        by_line.setdefault((point.id, point.name, point.run), []).append(point)
    kept = [_curve_row(advice, p) for line in by_line.values() for p in thinned(line)]
    return shared.plain_rows(kept[: shared.ROWS_A_CHART])


def thinned(points: list[CurvePoint]) -> list[CurvePoint]:
    """At most 200 points of a curve, evenly spread, the last one kept.

    Args:
        points: In order.
    """
    stride = math.ceil(len(points) / shared.POINTS_A_CURVE)
    return points[::-1][::stride][::-1]


def _curve_row(advice: Advice, point: CurvePoint) -> Row:
    shown = 100.0 if point.name == "metric" and advice.metric.unit == "%" else 1.0
    price = advice.price
    return {
        "id": point.id,
        "role": facts.role(advice, point.id),
        "name": point.name,
        "samples": point.samples,
        "epochs": point.epochs,
        "updates": point.updates,
        "seconds": point.seconds,
        "money": point.seconds * price.per_hour / 3600 + point.samples * price.per_sample
        if price
        else math.nan,
        "value": point.value * shown,
        "low": point.low * shown,
        "high": point.high * shown,
        "n": point.n,
        "run": point.run,
        "end": point.end,
    }


def _curve_axis(rows: tuple[Row, ...], axis: str) -> alt.Axis:
    if _AXES[axis][1] == "log":
        return shared.log_axis((r[axis] for r in rows), grid=False)
    return alt.Axis(
        tickCount=6, grid=False, labelExpr="datum.value === 0 ? '0' : format(datum.value, '~s')"
    )


def _curve_domain(advice: Advice, value: str, found: list[float]) -> list[float]:
    """What the picture shows: all but the worst seventh of the values, and the goal."""
    ordered = sorted(found)
    cut = len(ordered) // 7
    low, high = ordered[0], ordered[-1]
    if value == "metric" and advice.metric.maximise:
        low = ordered[cut]
    else:
        high = ordered[-1 - cut]
    if value == "metric" and advice.target is not None:
        goal = advice.target.value * (100.0 if advice.metric.unit == "%" else 1.0)
        low, high = min(low, goal), max(high, goal)
    return [low, high] if high > low else [low - 0.5, low + 0.5]


def _scale(kind: Literal["linear", "log"], **options: Any) -> alt.Scale:
    """A scale that need not begin at zero; a logarithmic one must not be told so."""
    if kind == "linear":
        options["zero"] = False
    return alt.Scale(type=kind, nice=False, **options)


def _x(advice: Advice, rows: tuple[Row, ...], axis: str, language: Language) -> Spec:
    """The horizontal axis; the column ``along`` is whatever the reader chose."""
    kind = _AXES[axis][1]
    x = alt.X(
        field="along",
        type="quantitative",
        title=_curve_axis_title(advice, axis).of(language),
        scale=_scale(kind, domain=shared.reach(rows, [axis], log=kind == "log")),
        axis=_curve_axis(rows, axis),
    )
    return cast(Spec, x.to_dict(validate=False))


def _against(base: Spec, x: Spec, axis: str) -> Spec:
    """The same picture over another axis; Altair takes a second a spec, this takes none."""
    spec = copy.deepcopy(base)
    least = "> 0" if _AXES[axis][1] == "log" else ">= 0"
    for layer in spec["layer"]:
        for step in layer.get("transform", ()):
            if step.get("as") == "along":
                step["calculate"] = f"isValid(datum.{axis}) ? datum.{axis} : -1"
            if step.get("filter") == _ALONG:
                step["filter"] = f"datum.along {least}"
        encoding = layer["encoding"]
        if encoding.get("x", {}).get("field") == "along":
            encoding["x"] = x
        for shown in encoding.get("tooltip", ()):
            if shown["field"] == "along":
                shown["title"] = x["title"]
    return spec


_ALONG = "datum.along >= 0"


def _curve_spec(
    advice: Advice, rows: tuple[Row, ...], value: str, text: Text, language: Language, name: str
) -> Spec:
    ordinary = [r["value"] for r in rows if r["name"] == value and r["value"] is not None]
    shown = _curve_domain(advice, value, ordinary)
    wide = value == "loss" and min(ordinary) > 0 and max(ordinary) > 10 * min(ordinary)
    y = alt.Y(
        "value:Q",
        title=shared.axis_title(advice, value).of(language),
        scale=_scale("log" if wide else "linear", domain=shown, padding=6),
        axis=shared.log_axis(ordinary) if wide else alt.Axis(tickCount=6, format="~f"),
    )
    x = alt.X(field="along", type="quantitative")
    base = (
        alt.Chart(shared.data(name))
        .transform_filter(f"datum.name === '{value}'")
        .transform_calculate(along="0")
        .transform_filter(_ALONG)
        .transform_calculate(look=shared.LOOK_EXPRESSION)
    )
    strong = f"{shared.IS_PICKED} || datum.role === 'today'"
    strokes = {"symbolType": "stroke", "symbolSize": 400, "symbolStrokeWidth": 3}
    colour = shared.look(advice, language, alt.Color, 1, **strokes)
    layers: list[Any] = [
        base.transform_filter(
            f"({strong}) && isValid(datum.low)" + (" && datum.low > 0" if wide else "")
        )
        .mark_area(opacity=0.18, clip=True)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour, detail="id:N"),
        *_runs(base, x, y, colour, strong, language, rows),
        base.transform_filter("datum.run === ''")
        .mark_line(clip=True)
        .encode(
            x=x,
            y=y,
            color=colour,
            strokeDash=shared.look(advice, language, alt.StrokeDash, 3, **strokes),
            detail="id:N",
            strokeWidth=alt.condition(strong, alt.value(2.8), alt.value(1.2)),
            opacity=alt.condition(strong, alt.value(1.0), alt.value(0.6)),
        ),
        base.mark_point(size=120, opacity=0.01, filled=True, clip=True).encode(
            x=x,
            y=y,
            tooltip=shared.tooltips(
                language,
                (
                    ("id", Text("setting", "設定")),
                    *((("run", Text("training", "学習")),) if any(r["run"] for r in rows) else ()),
                    ("along", _AXES["samples"][0]),
                    ("value", shared.axis_title(advice, value)),
                ),
            ),
        ),
    ]
    if value == "metric" and advice.target is not None:
        layers += _target_line(advice, language)
    return shared.finish(layers, advice, text, language, 340)


_ENDS = {
    "diverged": Text("diverged", "発散"),
    "unfinished": Text("not ended", "終わっていない学習"),
}


def _runs(
    base: alt.Chart,
    x: alt.X,
    y: alt.Y,
    colour: Any,
    strong: str,
    language: Language,
    rows: tuple[Row, ...],
) -> list[Any]:
    """Every run as a thin line of its own, and how it ended, where there are any."""
    if not any(r["run"] for r in rows):
        return []
    lines = (
        base.transform_filter("datum.run !== ''")
        .mark_line(clip=True, strokeWidth=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            detail=["id:N", "run:N"],
            opacity=alt.condition(strong, alt.value(0.75), alt.value(0.4)),
        )
    )
    ended = [end for end in _ENDS if any(r["end"] == end for r in rows)]
    if not ended:
        return [lines]
    shapes = {"diverged": shared.CROSS, "unfinished": "circle"}
    ends = (
        base.transform_filter("datum.end !== ''")
        .mark_point(size=90, strokeWidth=2, opacity=1, filled=False, color=shared.VERMILLION)
        .encode(
            x=x,
            y=y,
            shape=alt.Shape(
                "end:N",
                title=None,
                scale=alt.Scale(domain=ended, range=[shapes[end] for end in ended]),
                legend=alt.Legend(labelExpr=shared.labels(_ENDS, language)),
            ),
        )
    )
    return [lines, ends]


def _target_line(advice: Advice, language: Language) -> list[Any]:
    target = advice.target
    if target is None:
        return []
    shown = target.value * (100.0 if advice.metric.unit == "%" else 1.0)
    words = Text("goal", "目標").of(language)
    written = formats.metric_value(target.value, advice.metric).of(language)
    at = alt.Chart(alt.InlineData(values=[{"value": shown, "words": f"{words} {written}"}]))
    return [
        at.mark_rule(color=shared.GREEN, strokeDash=[5, 3], strokeWidth=2).encode(y="value:Q"),
        at.mark_text(align="left", baseline="bottom", dx=4, dy=-3, fontSize=12).encode(
            y="value:Q", x=alt.value(0), text="words:N"
        ),
    ]
