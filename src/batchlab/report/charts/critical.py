"""The critical batch size along training against the noise scale, and the losses behind it."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.measure.critical import Branch, CriticalPoint
from batchlab.report import formats
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.report.critical import SHOWN, CriticalReport, shown

STATES = {
    "resolved": Text("critical batch size, with range", "臨界バッチサイズ（範囲つき）"),
    "at least": Text("at least this", "少なくともこの値"),
}
OPEN = "not resolved"
LOOKS = {
    "within": (shared.BLUE, "circle"),
    "above": (shared.VERMILLION, "diamond"),
    "open": (shared.GREY, "square"),
}
SCALE = Text("noise scale", "ノイズスケール")
TODAY = Text("today's batch size", "現在のバッチサイズ")
BATCH = Text("batch size (examples)", "バッチサイズ（件）")
ABOVE = Text("loss above today's (%)", "損失の増加（検証、%）")
TRAINING_ABOVE = Text("training loss above today's (%)", "損失の増加（学習、%）")
HEIGHT = 320


def critical(found: CriticalReport) -> Chart:
    """The critical batch size at every place, with the noise scale as a dashed line.

    Args:
        found: The record.
    """
    rows = shared.plain_rows(_row(found, one) for one in found.points)
    description = say(
        "The critical batch size at {n} moments of a training, each with its 90 % range, and the "
        "noise scale at the same moments.",
        "学習中の{n}時点での臨界バッチサイズ（90%の範囲つき）と、同じ時点のノイズスケール。",
        n=len(rows),
    )
    caption = say(
        "Points: critical batch size in examples; lines: 90 % range over n = {n} seeds. An upward "
        "triangle is a lower bound: no size that was tried cost too much. A cross: not resolved. "
        "Dashed, with its 90 % range: the noise scale. Grey: today's batch size.",
        "点：臨界バッチサイズ（件）。縦線：90%の範囲（n＝{n}シード）。上向き三角：下限のみ（試した中に"
        "損失が増えすぎる大きさはない）。×：定まらず。破線と帯：ノイズスケールと90%の範囲。灰色："
        "現在のバッチサイズ。",
        n=len(found.seeds),
    )
    columns = (
        ("samples", Text("examples seen", "学習したデータ数")),
        ("share", Text("training done (%)", "学習の進み（%）")),
        ("state", Text("state", "状態")),
        *shared.range_columns(
            "critical", Text("critical batch size, examples", "臨界バッチサイズ（件）")
        ),
        *shared.range_columns("noise", say("{t}, examples", "{t}（件）", t=SCALE)),
        *shared.range_columns("ratio", Text("critical / noise scale", "臨界／ノイズスケール")),
    )
    specs = {"": {lang: _spec(found, rows, description, lang) for lang in LANGUAGES}}
    return Chart("critical", rows, columns, caption, description, specs, height=HEIGHT)


def _row(found: CriticalReport, one: CriticalPoint) -> Row:
    known = one.critical
    state = "resolved" if math.isfinite(known.high) else "at least"
    row = {
        "samples": one.samples,
        "share": 100 * one.samples / found.samples,
        "state": state if one.resolved else OPEN,
        **shared.ends(known, "critical"),
        **shared.ends(one.noise.scale if one.noise else None, "noise"),
        **shared.ends(one.ratio, "ratio"),
    }
    return row | {"shown": known.value if state == "resolved" else known.low}


def _spec(found: CriticalReport, rows: tuple[Row, ...], text: Text, language: Language) -> Spec:
    x, y, (low, high) = _axes(found, rows, language)
    base = alt.Chart(shared.data("critical"))
    noise = base.transform_filter("isValid(datum.noise)").transform_calculate(
        noise_from=f"max(datum.noise_low, {low})", noise_to=f"min(datum.noise_high, {high})"
    )
    named = alt.Chart(alt.InlineData(values=_names(found, rows, language)))
    seen = Text("examples seen", "学習したデータ数")
    tips = shared.tooltips(
        language, (("samples", seen), ("critical", STATES["resolved"]), ("noise", SCALE))
    )
    layers: list[Any] = [
        _level(found.batch_size)
        .mark_rule(color=shared.GREY, strokeWidth=1.5)
        .encode(y=alt.Y("y:Q")),
        noise.mark_area(color=shared.PURPLE, opacity=0.18).encode(
            x=x, y=alt.Y("noise_from:Q"), y2="noise_to:Q"
        ),
        noise.mark_rule(color=shared.PURPLE).encode(x=x, y=alt.Y("noise_from:Q"), y2="noise_to:Q"),
        noise.mark_line(
            color=shared.PURPLE, strokeWidth=2, strokeDash=[6, 4], point={"color": shared.PURPLE}
        ).encode(x=x, y=alt.Y("noise:Q")),
        base.transform_filter("isValid(datum.critical_high)")
        .mark_rule(color=shared.BLUE, strokeWidth=2)
        .encode(x=x, y=alt.Y("critical_low:Q"), y2="critical_high:Q"),
        base.transform_filter(f"datum.state !== '{OPEN}'")
        .mark_point(filled=True, size=90, opacity=1, color=shared.BLUE)
        .encode(x=x, y=y, shape=_shape(rows, language), tooltip=tips),
        base.transform_filter(f"datum.state === '{OPEN}'")
        .mark_point(shape=shared.CROSS, size=110, strokeWidth=2.5, color=shared.BLUE)
        .encode(x=x, y=y, tooltip=tips),
        *shared.haloed(
            named,
            {"x": alt.X("x:Q"), "y": alt.Y("y:Q"), "text": alt.Text("words:N")},
            align="right",
            baseline="bottom",
            dx=-7,  # clear of the last range
            dy=-5,
            fontSize=12,
        ),
    ]
    return shared.layered(layers, text, language, HEIGHT)


def _axes(
    found: CriticalReport, rows: tuple[Row, ...], language: Language
) -> tuple[alt.X, alt.Y, list[float]]:
    """Both logarithmic; and from where to where the batch sizes go."""
    keys = ["shown", "critical_low", "critical_high", "noise"]
    ends = shared.reach(rows, keys, found.batch_size)
    x = alt.X(
        "samples:Q",
        title=Text("examples seen in training", "学習したデータ数（件）").of(language),
        axis=shared.log_axis((r["samples"] for r in rows), grid=False),
        scale=alt.Scale(
            type="log", padding=24, nice=False, domain=shared.reach(rows, ["samples"])
        ),
    )
    y = alt.Y(
        "shown:Q",
        title=Text("examples in a batch", "バッチのデータ数（件）").of(language),
        scale=alt.Scale(type="log", base=2, padding=18, nice=False, domain=ends),
        axis=alt.Axis(format=",~r", tickCount=8),
    )
    return x, y, ends


def _shape(rows: tuple[Row, ...], language: Language) -> alt.Shape:
    """Values and lower bounds, as far as there are any."""
    forms = {"resolved": "circle", "at least": "triangle-up"}
    seen = [state for state in forms if any(row["state"] == state for row in rows)] or list(forms)
    return alt.Shape(
        "state:N",
        title=None,
        scale=alt.Scale(domain=seen, range=[forms[state] for state in seen]),
        legend=alt.Legend(labelExpr=shared.labels(STATES, language)),
    )


def _names(found: CriticalReport, rows: tuple[Row, ...], language: Language) -> list[Row]:
    """What the two lines are called, at their right ends."""
    last = rows[-1]["samples"]
    names = [{"x": last, "y": found.batch_size, "words": TODAY.of(language)}]
    known = [r for r in rows if r["noise"] is not None]
    if known:
        end = known[-1]
        names.append({"x": end["samples"], "y": end["noise"], "words": SCALE.of(language)})
    return names


def excesses(found: CriticalReport) -> Chart:
    """By what share the loss of every batch size exceeds that of today's, place by place.

    Args:
        found: The record.
    """
    rows = shared.plain_rows(
        _branch_row(found, one, branch) for one in found.points for branch in one.branches
    )
    description = say(
        "The validation loss of larger batches against today's after as many examples, at {n} "
        "moments of a training.",
        "学習の{n}時点から同じデータ量だけ学習したときの、大きいバッチの検証損失（現在のバッチとの差）。",
        n=len(found.points),
    )
    caption = say(
        "Points: mean over n = {n} seeds of the share by which the validation loss exceeds that "
        "of batch size {b}; lines: 90 % range. Dashed: the margin of {m} %. A cross: half of "
        "the runs diverged or more, so that there is no value.",
        "点：検証損失がバッチサイズ{b}を上回る割合（n＝{n}シードの平均）。縦線：90%の範囲。破線：許容幅"
        "{m}%。×：半数以上が発散し、値がない。",
        n=len(found.seeds),
        b=found.batch_size,
        m=formats.number(100 * found.margin),
    )
    columns = (
        ("share", Text("training done (%)", "学習の進み（%）")),
        ("batch", BATCH),
        *shared.range_columns("excess", ABOVE),
        *shared.range_columns("trained", TRAINING_ABOVE),
        ("state", Text("shown", "判定")),
        ("failed", Text("diverged", "発散")),
    )
    places = tuple((str(one.samples), found.share(one.samples)) for one in found.points)
    specs = {
        key: {lang: _excess_spec(found, rows, key, description, lang) for lang in LANGUAGES}
        for key, _ in places
    }
    choices = ((Text("training done", "学習の進み"), places),)
    return Chart("excesses", rows, columns, caption, description, specs, choices, height=HEIGHT)


def _branch_row(found: CriticalReport, one: CriticalPoint, branch: Branch) -> Row:
    return {
        "place": str(one.samples),
        "share": 100 * one.samples / found.samples,
        "batch": branch.batch_size,
        **shared.ends(branch.excess, "excess", 100.0),
        **shared.ends(branch.train_excess, "trained", 100.0),
        "state": shown(branch, found.margin),
        "failed": branch.failed,
    }


def _excess_spec(
    found: CriticalReport, rows: tuple[Row, ...], place: str, text: Text, language: Language
) -> Spec:
    here = [r for r in rows if r["place"] == place]
    x, y = _excess_axes(here, 100 * found.margin, language)
    base = alt.Chart(shared.data("excesses")).transform_filter(f"datum.place === '{place}'")
    domain, legend = list(LOOKS), alt.Legend(labelExpr=shared.labels(SHOWN, language))
    colours, shapes = (list(values) for values in zip(*LOOKS.values(), strict=True))
    colour = alt.Color(
        "state:N", title=None, scale=alt.Scale(domain=domain, range=colours), legend=legend
    )
    shape = alt.Shape(
        "state:N", title=None, scale=alt.Scale(domain=domain, range=shapes), legend=legend
    )
    tips = shared.tooltips(
        language, (("batch", BATCH), ("excess", ABOVE), ("trained", TRAINING_ABOVE))
    )
    layers: list[Any] = [
        _level(0.0).mark_rule(color=shared.GREY).encode(y=alt.Y("y:Q")),
        _level(100 * found.margin)
        .mark_rule(color=shared.BLACK, strokeDash=[5, 4])
        .encode(y=alt.Y("y:Q")),
        base.transform_filter("isValid(datum.excess_low) && isValid(datum.excess_high)")
        .mark_rule(strokeWidth=2)
        .encode(x=x, y=alt.Y("excess_low:Q"), y2="excess_high:Q", color=colour),
        base.transform_filter("isValid(datum.excess)")
        .mark_point(filled=True, size=90, opacity=1)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        base.transform_filter("!isValid(datum.excess)")
        .mark_point(shape=shared.CROSS, size=110, strokeWidth=2.5, color=shared.VERMILLION)
        .encode(x=x, y=alt.value(14), tooltip=tips),
    ]
    return shared.layered(layers, text, language, HEIGHT)


def _excess_axes(here: list[Row], margin: float, language: Language) -> tuple[alt.X, alt.Y]:
    """Batch sizes as they were tried; the excess with 0 and the margin in sight."""
    keys = ["excess", "excess_low", "excess_high"]
    sizes, ends = shared.reach(here, ["batch"]), shared.reach(here, keys, 0.0, margin, log=False)
    x = alt.X(
        "batch:Q",
        title=BATCH.of(language),
        scale=alt.Scale(type="log", nice=False, padding=24, domain=sizes),
        axis=alt.Axis(values=[r["batch"] for r in here], format=",d", grid=False),
    )
    y = alt.Y(
        "excess:Q",
        title=ABOVE.of(language),
        scale=alt.Scale(nice=False, padding=18, domain=ends),
        axis=alt.Axis(tickCount=6),
    )
    return x, y


def _level(value: float) -> alt.Chart:
    """A horizontal line's one number."""
    return alt.Chart(alt.InlineData(values=[{"y": value}]))
