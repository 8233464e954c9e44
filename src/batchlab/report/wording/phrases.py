"""Phrases that the headline, the table and the sentence for the meeting share."""

from __future__ import annotations

from batchlab._text import EMPTY, Text, say
from batchlab.advisor.record import Advice, Comparison
from batchlab.report import facts, formats, names

NOUNS = {"time": "time", "cost": "money", "samples": "data"}


def goal(advice: Advice) -> Text:
    """The value that counts as trained.

    Args:
        advice: The record.
    """
    if advice.target is None:
        return Text("the same loss", "同じ損失")
    value = formats.metric_value(advice.target.value, advice.metric)
    if advice.metric.unit == "%":
        return say("{v} {m}", "{m}{v}", v=value, m=names.metric(advice.metric))
    return say("{m} {v}", "{m}{v}", v=value, m=names.metric(advice.metric))


def arrived(advice: Advice) -> Text:
    """What both settings reach: "the same accuracy", or the goal itself where the metric at the
    end is not the same.

    Args:
        advice: The record.
    """
    if facts.worsened(advice) and advice.target is not None:
        return goal(advice)
    return say("the same {m}", "同じ{m}", m=names.metric(advice.metric))


def failures(advice: Advice) -> Text:
    """How many trainings failed, where they are more than today's; else nothing.

    Args:
        advice: The record.
    """
    found = advice.failures
    if found is None or not facts.more_failures(advice):
        return EMPTY
    return say(
        "{a} of {b} trainings failed (today {c} of {d})",
        "{b}回中{a}回の学習が失敗しました（現在は{d}回中{c}回）",
        a=found.recommended,
        b=found.recommended_runs,
        c=found.today,
        d=found.today_runs,
    )


def better(quantity: str) -> tuple[str, str, str]:
    """As <fast>, <faster>, and the quality's name in Japanese."""
    words = {
        "time": ("fast", "faster", "速さ"),
        "cost": ("cheap", "cheaper", "費用の小ささ"),
        "samples": ("sparing with data", "more sparing with data", "データ効率"),
    }
    return words[quantity]


def at_most(compared: Comparison) -> str:
    """How much better at most, in English.

    Args:
        compared: The ratio that the verdict rests on.
    """
    high, words = compared.difference.high, better(compared.quantity)
    if high < 1:
        return f"at most {formats.ratio(high)}× as {words[0]}"
    return f"at most {formats.ratio(high)}× {words[1]}"


def in_brackets(advice: Advice) -> Text:
    """The next step's time, its price in brackets."""
    following = advice.next_stage
    if following is None:
        return EMPTY
    if following.cost is None or advice.price is None:
        return formats.spoken(following.seconds)
    return say(
        "{t} ({m})",
        "{t}（約{m}）",
        t=formats.spoken(following.seconds),
        m=formats.money(following.cost, advice.price.currency),
    )


def effect_on_metric(advice: Advice, metric: Text, follows: bool) -> Text:
    """What the recommendation does for the metric at the end.

    Args:
        advice: The record.
        metric: Its name.
        follows: Whether another clause follows.
    """
    compared = facts.comparison(advice, "validation") or facts.comparison(advice, "metric")
    if compared is None:
        return EMPTY
    up = compared.difference.value > 0
    return say(
        "{metric} at the end of training is {size} {way}",
        "学習終了時の{metric}が{size}{way_ja}",
        metric=metric,
        size=formats.metric_size(compared.difference.value, advice.metric),
        way="higher" if up else "lower",
        way_ja=("上がり" if up else "下がり")
        if follows
        else ("上がりました" if up else "下がりました"),
    )


def capital(words: str) -> str:
    """The words as a sentence begins.

    Example:
        >>> capital("as is")
        'As is'
    """
    return words[:1].upper() + words[1:]
