"""The table of the settings that were tried."""

from __future__ import annotations

import math
from collections.abc import Callable

from batchlab._text import EMPTY, Text, join, same, say
from batchlab.advisor.record import Advice, Candidate, Reason
from batchlab.report import facts, formats, names
from batchlab.report.facts import Case
from batchlab.types import Estimate

HEAD = (
    Text("setting", "設定"),
    Text("why it was tried", "試した理由"),
    Text("learning rates that work", "使える学習率"),
    Text("time per update", "1回の更新時間"),
    Text("updates to the goal", "目標までの更新回数"),
    Text("time to the goal (90 % range)", "目標までの時間（90%の範囲）"),
    Text("cost to the goal", "目標までの費用"),
    Text("at the end", "学習終了時"),
    Text("repeats (failed)", "繰り返し（失敗）"),
    Text("how far tested", "確認の程度"),
)


def title(advice: Advice) -> Text:
    """How many settings there were.

    Args:
        advice: The record.
    """
    number = len(advice.candidates)
    if facts.case(advice) is Case.SCREENED:
        return say(
            "{n} settings are worth comparing next.",
            "次に比べる価値のある設定は{n}通りです。",
            n=number,
        )
    return say("{n} settings were compared.", "{n}通りの設定を比べました。", n=number)


def cells(advice: Advice, row: Candidate) -> tuple[Text, ...]:
    """One line of the candidate table.

    Args:
        advice: The record.
        row: The candidate.
    """
    return (
        _which(advice, row),
        _reason(advice, row),
        _rates(row),
        _or_dash(row.seconds_per_update, lambda v: formats.duration(v)),
        _or_dash(row.updates_to_target, lambda v: same(formats.count(v))),
        _time_with_range(row.seconds_to_target),
        _cost(advice, row),
        _or_dash(row.metric, lambda v: formats.metric_value(v, advice.metric)),
        say("{n} ({f})", "{n}（{f}）", n=row.runs, f=row.failed) if row.runs else same("–"),
        names.EVIDENCE[row.evidence],
    )


def _reason(advice: Advice, row: Candidate) -> Text:
    if row.reason is Reason.BASELINE and row.setting.learning_rate != advice.today.learning_rate:
        return Text("today's batch size", "現在のバッチサイズ")
    return names.REASONS[row.reason]


def _which(advice: Advice, row: Candidate) -> Text:
    tags = {
        "today": Text(" **(today)**", "**（現在）**"),
        "recommended": Text(" **(recommended)**", "**（提案）**"),
        "alternative": Text(" **(best alternative)**", "**（最も良い候補）**"),
    }
    tag = tags.get(facts.role(advice, row.setting.id), EMPTY)
    own = join((names.setting(row.setting), *_others(advice, row)), ", ", "、")
    return say("{s}{t}", "{s}{t}", s=own, t=tag)


def _others(advice: Advice, row: Candidate) -> list[Text]:
    """What else differs from today's settings, of one that a search over all of them has found."""
    if row.reason is not Reason.TUNED:
        return []
    one, today = row.setting, advice.today
    return [
        say("{n} {v}", "{n} {v}", n=names.field(name), v=names.value(name, getattr(one, name)))
        for name in ("lr_schedule", "reuse", "momentum", "weight_decay")
        if getattr(one, name) != getattr(today, name)
    ]


def _rates(row: Candidate) -> Text:
    if row.rate_low is None or row.rate_high is None:
        return same("–")
    return formats.span(formats.rate(row.rate_low), formats.rate(row.rate_high))


def _or_dash(estimate: Estimate | None, write: Callable[[float], Text]) -> Text:
    if estimate is None or math.isnan(estimate.value):
        return same("–")
    if math.isinf(estimate.value):
        return Text("not reached", "未到達")
    return write(estimate.value)


def _time_with_range(estimate: Estimate | None) -> Text:
    main = _or_dash(estimate, formats.duration)
    if estimate is None or not math.isfinite(estimate.value) or math.isnan(estimate.low):
        return main
    low, high = formats.duration(estimate.low), formats.duration(estimate.high)
    return say("{m} ({a} – {b})", "{m}（{a}～{b}）", m=main, a=low, b=high)


def _cost(advice: Advice, row: Candidate) -> Text:
    price = advice.price
    if price is None:
        return same("–")
    return _or_dash(row.cost_to_target, lambda v: formats.money(v, price.currency))
