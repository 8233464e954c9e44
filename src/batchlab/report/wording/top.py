"""The line above the answer: what, where, when, and how far it went."""

from __future__ import annotations

from datetime import datetime

from batchlab._text import EMPTY, Text, same, say, verbatim
from batchlab.advisor.record import Advice
from batchlab.report import formats, names
from batchlab.report.wording import part
from batchlab.types import Evidence

_STAGES = {"A": 1, "B": 2, "C": 3}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TESTED = {
    Evidence.SCREENED: Text("screened: nothing compared yet", "下調べのみ・比較はこれから"),
    Evidence.PROJECTED: Text("projected from a short trial", "短い試行からの予測"),
    Evidence.CONFIRMED: Text("confirmed", "実測で確認済み"),
}


_COMPARED = Text("**compared training by training**", "【**学習どうしを1対1で比較**】")
_NOT_COMPARED = Text("**nothing to compare yet**", "【**比較はこれから**】")


def title(advice: Advice) -> Text:
    """What the page is.

    Args:
        advice: The record.
    """
    return say(
        "{task}: which training settings to use",
        "{task}：学習設定の見直し提案",
        task=verbatim(advice.task),
    )


def circumstances(advice: Advice) -> tuple[Text, ...]:
    """Where, when and how long was measured, and how far it went.

    Args:
        advice: The record.
    """
    if advice.watched:
        measured = say(
            "{n} of yours, watched, the last from {day}; {time} in all",
            "記録した学習{n}回、最後の開始は{day}、合計{time}",
            n=Text(
                "a training" if advice.watched == 1 else f"{advice.watched} trainings",
                str(advice.watched),
            ),
            day=date(advice.created),
            time=formats.duration(advice.wall_seconds),
        )
        return (measured, _where_data_went(advice), stage(advice))
    where = _ELSEWHERE if advice.elsewhere else _HERE
    told = (
        say(
            where.en,
            where.ja,
            device=names.device(advice),
            day=date(advice.created),
            time=formats.duration(advice.wall_seconds),
        ),
        _where_data_went(advice),
        stage(advice),
        part.used(advice),
        interrupted(advice),
    )
    return tuple(t for t in told if t.en)


_HERE = Text("measured on {device}, {day}, in {time}", "測定：{device}、{day}、所要{time}")
_ELSEWHERE = Text(
    "times of {device}, trainings of {day} on the computer that measured, in {time}",
    "時間：{device}の値、学習：測定した計算機、{day}、所要{time}",
)


def _where_data_went(advice: Advice) -> Text:
    if "cluster" in advice.provenance:
        return Text(
            "the data went to the cluster that trained, nowhere else",
            "データの送信先は学習に使ったクラスターのみです",
        )
    return Text("no data left this computer", "データは一切外部に送信していません")


def date(created: str) -> Text:
    """A day.

    Example:
        >>> date("2026-11-21T09:30:00+00:00")
        Text(en='21 Nov 2026', ja='2026年11月21日')
    """
    try:
        day = datetime.fromisoformat(created.replace("Z", "+00:00"))
    except ValueError:
        return same(verbatim(created))
    month = _MONTHS[day.month - 1]
    return Text(f"{day.day} {month} {day.year}", f"{day.year}年{day.month}月{day.day}日")


def stage(advice: Advice) -> Text:
    """How far it went, in a plain word.

    Args:
        advice: The record.
    """
    if advice.watched:
        return _COMPARED if advice.comparisons else _NOT_COMPARED
    return say(
        "stage {n} of 3, **{word}**",
        "段階{n}/3【**{word}**】",
        n=_STAGES[advice.stage],
        word=_TESTED[advice.evidence],
    )


def interrupted(advice: Advice) -> Text:
    """That it was cut short, if it was.

    Args:
        advice: The record.
    """
    if not advice.partial:
        return EMPTY
    return Text(
        "**interrupted**: shows what had been measured by then",
        "**途中で中断**（それまでの測定結果です）",
    )
