"""Several results side by side: the rows of the table and the picture that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import altair as alt

from batchlab._text import EMPTY, LANGUAGES, Language, Text, join, same, say, verbatim
from batchlab.advisor.record import Advice
from batchlab.report import facts, formats, names, wording
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec

_COLOURS = (
    shared.BLUE,
    shared.VERMILLION,
    shared.GREEN,
    shared.PURPLE,
    shared.ORANGE,
    shared.BLACK,
)
_SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")


def title(advices: Sequence[Advice]) -> Text:
    """What the page is.

    Args:
        advices: The records.
    """
    tasks = ", ".join(dict.fromkeys(verbatim(a.task) for a in advices))
    return say("{t}: {n} results side by side", "{t}：{n}件の結果の比較", t=tasks, n=len(advices))


def caution(advices: Sequence[Advice]) -> Text:
    """What must not be read out of the table, or nothing.

    Args:
        advices: The records.
    """
    if len({advice.task for advice in advices}) > 1:
        return Text(
            "These are results of different tasks: compare their ratios, not their times, costs "
            "or metrics.",
            "異なる学習の結果です。時間・費用・評価指標の値そのものではなく、倍率を比べてください"
            "。",
        )
    if len({advice.target.value for advice in advices if advice.target}) > 1:
        return Text(
            "The goals differ, so the times to reach them cannot be compared directly.",
            "目標値が異なるため、達するまでの時間をそのまま比べることはできません。",
        )
    return EMPTY


def label(advices: Sequence[Advice], order: int) -> str:
    """A short name for one result: a letter and the task.

    Args:
        advices: The records.
        order: Which one, from 0.
    """
    return f"{chr(ord('A') + order)}: {advices[order].task}"


def columns(advices: Sequence[Advice]) -> tuple[Text, ...]:
    """The column titles.

    Args:
        advices: The records.
    """
    return tuple(same(verbatim(label(advices, order))) for order in range(len(advices)))


def rows(advices: Sequence[Advice]) -> tuple[tuple[Text, tuple[Text, ...]], ...]:
    """Name and cells of each row; rows empty everywhere are left out.

    Args:
        advices: The records.
    """
    told = [(name, tuple(write(advice) for advice in advices)) for name, write in _ROWS]
    return tuple((name, cells) for name, cells in told if any(cell.en for cell in cells))


def _ratio(quantity: str) -> Callable[[Advice], Text]:
    def write(advice: Advice) -> Text:
        compared = facts.comparison(advice, quantity)
        if compared is None:
            return EMPTY
        return say(
            "{r}× ({s})",
            "{r}倍（{s}）",
            r=formats.ratio(compared.difference.value),
            s=formats.ratio_range(compared.difference),
        )

    return write


def _times(advice: Advice) -> Text:
    compared = facts.comparison(advice, "time")
    if compared is None:
        return EMPTY
    a, b = (formats.duration(e.value) for e in (compared.today, compared.recommended))
    return say("{a} → {b}", "{a} → {b}", a=a, b=b)


def _costs(advice: Advice) -> Text:
    compared = facts.comparison(advice, "cost")
    if compared is None or advice.price is None:
        return EMPTY
    ends = (compared.today.value, compared.recommended.value)
    a, b = (formats.money(v, advice.price.currency) for v in ends)
    return say("{a} → {b}", "{a} → {b}", a=a, b=b)


def _metric(advice: Advice) -> Text:
    compared = facts.metric_comparison(advice)
    if compared is None:
        return EMPTY
    ends = (
        formats.metric_value(e.value, advice.metric)
        for e in (compared.today, compared.recommended)
    )
    a, b = ends
    return say("{m} {a} → {b}", "{m} {a} → {b}", m=names.metric(advice.metric), a=a, b=b)


def _where(advice: Advice) -> Text:
    return join((names.device(advice), wording.date(advice.created)), ", ", "、")


def _largest(advice: Advice) -> Text:
    if advice.memory is None:
        return EMPTY
    return say(
        "{b} ({w})", "{b}（{w}）", b=formats.count(advice.memory.largest), w=names.bound(advice)
    )


def _noise(advice: Advice) -> Text:
    known = [p.scale for p in advice.noise if p.scale is not None]
    if not known:
        return EMPTY
    return say(
        "{v} ({s})",
        "{v}（{s}）",
        v=formats.number(known[-1].value),
        s=formats.count_range(known[-1]),
    )


def _rates(advice: Advice) -> Text:
    row = facts.candidate(advice, advice.recommended)
    if row is None or row.rate_low is None or row.rate_high is None:
        return EMPTY
    return formats.span(formats.rate(row.rate_low), formats.rate(row.rate_high))


def _useful(advice: Advice) -> Text:
    if advice.useful_low is None or advice.useful_high is None:
        return EMPTY
    if advice.useful_low > advice.useful_high:
        return Text("none", "なし")
    return formats.span(formats.count(advice.useful_low), formats.count(advice.useful_high))


def _spent(advice: Advice) -> Text:
    return formats.priced(advice.wall_seconds, advice.measurement_cost, advice.price)


_ROWS: tuple[tuple[Text, Callable[[Advice], Text]], ...] = (
    (Text("answer", "結論"), wording.headline),
    (Text("how far tested", "確認の程度"), wording.stage),
    (Text("measured on", "測定"), _where),
    (Text("settings today", "現在の設定"), lambda a: names.setting(a.today)),
    (
        Text("settings advised", "勧める設定"),
        lambda a: names.setting(a.recommended),
    ),
    (Text("goal", "目標"), lambda a: wording.goal(a) if a.target else EMPTY),
    (Text("time to the goal", "目標までの時間"), _times),
    (Text("how many times faster (90 % range)", "速さの比（90%の範囲）"), _ratio("time")),
    (Text("computing cost of one training", "学習1回の計算費用"), _costs),
    (Text("at the end of training", "学習終了時"), _metric),
    (Text("learning rates that work", "使える学習率"), _rates),
    (Text("useful batch range", "有効なバッチサイズの範囲"), _useful),
    (Text("noise scale, last", "ノイズスケール（最後）"), _noise),
    (Text("largest batch that ran", "動いた最大のバッチ"), _largest),
    (Text("measuring took", "測定にかかったもの"), _spent),
)


def charts_of(advices: Sequence[Advice]) -> tuple[Chart, ...]:
    """The pictures the results share: speed, and time to the goal, per batch size.

    Args:
        advices: The records.
    """
    drawn = (
        _picture(advices, "speed", _speed_rows(advices)),
        _picture(advices, "seconds", _time_rows(advices)),
    )
    return tuple(one for one in drawn if one is not None)


def _speed_rows(advices: Sequence[Advice]) -> tuple[Row, ...]:
    return shared.plain_rows(
        {
            "result": label(advices, order),
            "batch": point.batch_size,
            "value": point.samples_per_second.value,
            "low": point.samples_per_second.low,
            "high": point.samples_per_second.high,
        }
        for order, advice in enumerate(advices)
        for point in facts.speeds(advice)
        if point.samples_per_second is not None
    )


def _time_rows(advices: Sequence[Advice]) -> tuple[Row, ...]:
    return shared.plain_rows(
        {
            "result": label(advices, order),
            "batch": row.setting.batch_size,
            "value": row.seconds_to_target.value,
            "low": row.seconds_to_target.low,
            "high": row.seconds_to_target.high,
        }
        for order, advice in enumerate(advices)
        for row in advice.candidates
        if row.seconds_to_target is not None
        and math.isfinite(row.seconds_to_target.value)
        and isinstance(row.setting.batch_size, int)
    )


_QUANTITIES = {
    "speed": Text("examples per second", "1秒あたりのデータ数"),
    "seconds": Text("time to reach the goal (seconds)", "目標に達するまでの時間（秒）"),
}


def _picture(advices: Sequence[Advice], name: str, found: tuple[Row, ...]) -> Chart | None:
    if not found:
        return None
    quantity = _QUANTITIES[name]
    caption = say(
        "{q} per batch size, with 90 % ranges; each result has its colour and shape.",
        "バッチサイズごとに比べた{q}。縦線は90%の範囲。結果ごとに色と形を変えています。",
        q=quantity,
    )
    caption = Text(caption.en[:1].upper() + caption.en[1:], caption.ja)
    labels = [label(advices, order) for order in range(len(advices))]
    specs = {"": {lang: _spec(name, found, labels, caption, lang) for lang in LANGUAGES}}
    titles = (
        ("result", Text("result", "結果")),
        ("batch", Text("batch size", "バッチサイズ")),
        ("value", quantity),
        ("low", Text("low", "下限")),
        ("high", Text("high", "上限")),
    )
    return Chart(name, found, titles, caption, caption, specs, height=280)


def _spec(
    name: str, found: tuple[Row, ...], labels: list[str], text: Text, language: Language
) -> Spec:
    x = shared.batch_axis(language, shared.reach(found, ["batch"]))
    values = shared.reach(found, ["value", "low", "high"])
    y = alt.Y(
        "value:Q",
        title=_QUANTITIES[name].of(language),
        scale=alt.Scale(type="log", nice=False, padding=12, domain=values),
        axis=shared.log_axis(values),
    )

    def look(channel: Any, values: Sequence[str]) -> Any:
        used = list(values[: len(labels)])
        return channel("result:N", title=None, scale=alt.Scale(domain=labels, range=used))

    base = alt.Chart(alt.NamedData(name=name))
    colour = look(alt.Color, _COLOURS)
    layers = (
        base.mark_line(strokeWidth=1).encode(x=x, y=y, color=colour),
        base.mark_rule(strokeWidth=2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(
            x=x, y=y, color=colour, shape=look(alt.Shape, _SHAPES)
        ),
    )
    return shared.layered(layers, text, language, 280)
