"""Speed and memory of the machine against the batch size."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.advisor.record import Advice
from batchlab.report import facts
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec


def _memory_rows(advice: Advice) -> tuple[Row, ...]:
    if advice.memory is None:
        return ()
    limit = advice.memory.limit_bytes - advice.memory.margin_bytes
    rows = []
    for point in advice.memory.points:
        used = point.bytes or (limit if not point.fits else 0)
        rows.append(
            {
                "batch": point.batch_size,
                "id": shared.identity_at(advice, point.batch_size),
                "fits": "fits" if point.fits else "does not fit",
                "mib": used / 2**20 if used > 0 else None,
                **shared.ends(point.samples_per_second, "speed"),
                **shared.ends(point.seconds_per_update, "ms", 1000.0),
                "reason": point.reason,
            }
        )
    return shared.plain_rows(rows)


def speed(advice: Advice) -> Chart | None:
    """Examples per second against the batch size, the knee marked.

    Args:
        advice: The record.
    """
    rows = tuple(row for row in _memory_rows(advice) if row["speed"] is not None)
    if not rows:
        return None
    measured = (p.samples_per_second for p in facts.speeds(advice))
    repeats = max((speed.n for speed in measured if speed), default=0)
    description = say(
        "Examples processed per second against the batch size, {n} sizes, each with its 90 % "
        "range.",
        "バッチサイズごとの、1秒間に処理できるデータ数（{n}通り、90%の範囲つき）。",
        n=len(rows),
    )
    caption = say(
        "Points: measured on {w}, data loading included; lines: 90 % range, n = {n} blocks each. "
        "Larger point: the candidate picked.",
        "点：{w}の実測値（データ読み込みを含む）。縦線：90%の範囲（各n＝{n}）。"
        "大きい点：選択中の候補。",
        w=_trained_on(advice.today.world_size),
        n=repeats,
    )
    columns = (
        ("batch", Text("batch size", "バッチサイズ")),
        *shared.range_columns("speed", Text("examples per second", "データ数/秒")),
        *shared.range_columns("ms", Text("milliseconds per update", "1回の更新（ミリ秒）")),
    )
    specs = {"": {lang: _speed_spec(advice, rows, description, lang) for lang in LANGUAGES}}
    return Chart("speed", rows, columns, caption, description, specs, height=260)


def _trained_on(processes: int) -> Text:
    """What was timed."""
    if processes == 1:
        return Text("one run alone", "1つの学習だけを動かした場合")
    return say(
        "one run of {n} processes together",
        "{n}プロセスで1つの学習を動かした場合",
        n=processes,
    )


def _speed_spec(advice: Advice, rows: tuple[Row, ...], text: Text, language: Language) -> Spec:
    marks = _marked_sizes(advice)
    sizes = shared.reach(rows, ["batch"], *(size for size, _words in marks))
    speeds = shared.reach(rows, ["speed", "speed_low", "speed_high"])
    x = shared.batch_axis(language, sizes)
    y = alt.Y(
        "speed:Q",
        title=Text("examples per second", "1秒あたりのデータ数").of(language),
        scale=alt.Scale(type="log", padding=12, nice=False, domain=speeds),
        axis=shared.log_axis(speeds),
    )
    base = alt.Chart(shared.data("speed"))
    layers: list[Any] = [
        base.mark_line(color=shared.GREY, strokeWidth=1).encode(x=x, y=y),
        base.mark_rule(color=shared.BLUE, strokeWidth=2).encode(
            x=x, y="speed_low:Q", y2="speed_high:Q"
        ),
        base.mark_point(color=shared.BLUE, filled=True, opacity=1).encode(
            x=x,
            y=y,
            size=alt.condition("datum.batch === picked_batch", alt.value(220), alt.value(50)),
            tooltip=shared.tooltips(
                language,
                (
                    ("batch", Text("batch size", "バッチサイズ")),
                    ("speed", Text("per second", "毎秒")),
                ),
            ),
        ),
    ]
    middle = math.sqrt(rows[0]["batch"] * rows[-1]["batch"])
    for order, (size, words) in enumerate(marks):
        layers += _marked(size, words.of(language), size > middle, order)
    return shared.finish(layers, advice, text, language, 260)


def _marked_sizes(advice: Advice) -> list[tuple[int, Text]]:
    """The batch sizes worth a line of their own."""
    marks: list[tuple[int, Text]] = []
    if isinstance(advice.today.batch_size, int):
        marks.append((advice.today.batch_size, Text("today", "現在")))
    if advice.memory and advice.memory.knee:
        marks.append((advice.memory.knee, Text("nearly full speed from here", "ここでほぼ最高速")))
    return marks


def _marked(size: int, words: str, left: bool, order: int) -> list[Any]:
    """A vertical line at a batch size, with its words at the foot."""
    at = alt.Chart(alt.InlineData(values=[{"batch": size, "words": f"{words}: {size:,}"}]))
    words_at = {"x": alt.X("batch:Q"), "y": alt.value(260), "text": alt.Text("words:N")}
    return [
        at.mark_rule(color=shared.BLACK, strokeDash=[5, 3]).encode(x="batch:Q"),
        *shared.haloed(
            at,
            words_at,
            align="right" if left else "left",
            dx=-5 if left else 5,
            dy=-10 - 16 * order,
            baseline="bottom",
            fontSize=12,
        ),
    ]


def memory(advice: Advice) -> Chart | None:
    """Peak memory against the batch size, with the limit.

    Args:
        advice: The record.
    """
    rows = tuple(row for row in _memory_rows(advice) if row["mib"] is not None)
    if advice.memory is None or not any(r["fits"] == "fits" for r in rows):
        return None
    description = say(
        "Peak memory against the batch size, {n} sizes tried, with the limit where there is one.",
        "バッチサイズごとの最大メモリ使用量（{n}通りを試行、上限がある場合は上限つき）。",
        n=len(rows),
    )
    caption = say(
        "Each point one size that was really run, two steps with the optimiser. A size that did "
        "not "
        "fit is a cross at the limit.",
        "点：実際に2回の更新まで動かしたサイズ。収まらなかったサイズは上限の位置に×で示します。",
    )
    columns = (
        ("batch", Text("batch size", "バッチサイズ")),
        ("mib", Text("peak memory, MiB", "最大メモリ（MiB）")),
        ("fits", Text("fits", "収まったか")),
        ("reason", Text("reason", "理由")),
    )
    specs = {"": {lang: _memory_spec(advice, rows, description, lang) for lang in LANGUAGES}}
    return Chart("memory", rows, columns, caption, description, specs, height=240)


_FIT_WORDS = {
    "fits": Text("ran", "動作した"),
    "does not fit": Text("did not fit", "収まらなかった"),
}


def _memory_spec(advice: Advice, rows: tuple[Row, ...], text: Text, language: Language) -> Spec:
    found = advice.memory
    limit = (found.limit_bytes - found.margin_bytes) / 2**20 if found else 0
    used = shared.reach(rows, ["mib"], limit)
    legend = alt.Legend(labelExpr=shared.labels(_FIT_WORDS, language))
    domain = ["fits", "does not fit"]
    points = (
        alt.Chart(shared.data("memory"))
        .mark_point(strokeWidth=2, opacity=1)
        .encode(
            x=shared.batch_axis(language, shared.reach(rows, ["batch"])),
            y=alt.Y(
                "mib:Q",
                title=Text("peak memory (MiB)", "最大メモリ（MiB）").of(language),
                scale=alt.Scale(type="log", padding=12, nice=False, domain=used),
                axis=shared.log_axis(used),
            ),
            color=alt.Color(
                "fits:N",
                title=None,
                scale=alt.Scale(domain=domain, range=[shared.BLUE, shared.VERMILLION]),
                legend=legend,
            ),
            shape=alt.Shape(
                "fits:N",
                title=None,
                scale=alt.Scale(domain=domain, range=["circle", shared.CROSS]),
                legend=legend,
            ),
            size=alt.condition("datum.batch === picked_batch", alt.value(220), alt.value(60)),
            tooltip=shared.tooltips(
                language,
                (("batch", Text("batch size", "バッチサイズ")), ("mib", Text("MiB", "MiB"))),
            ),
        )
    )
    layers: list[Any] = [points]
    if limit > 0:
        words = Text("limit less margin", "上限（余裕分を除く）").of(language)
        at = alt.Chart(
            alt.InlineData(values=[{"mib": limit, "words": f"{words}: {limit:,.0f} MiB"}])
        )
        layers += [
            at.mark_rule(color=shared.VERMILLION, strokeDash=[5, 3]).encode(y="mib:Q"),
            at.mark_text(align="left", baseline="bottom", dx=4, dy=-3, fontSize=12).encode(
                y="mib:Q", x=alt.value(0), text="words:N"
            ),
        ]
    return shared.finish(layers, advice, text, language, 240)
