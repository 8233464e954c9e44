"""What is said where the stages ran on a part of the training data."""

from __future__ import annotations

import math

from batchlab._text import EMPTY, Text, join, say
from batchlab.advisor.record import Advice, Comparison, Part, Repeat
from batchlab.report import facts, formats, names
from batchlab.report.facts import Case
from batchlab.report.wording import phrases


def share(part: Part) -> Text:
    """The part in words.

    Args:
        part: The record.

    Example:
        >>> share(Part(0.1, 600, 6000, 60000)).en
        '10 % of the training data'
    """
    return say("{p} % of the training data", "学習データの{p}%", p=_percent(part))


def used(advice: Advice) -> Text:
    """Which part was used, for the line above the answer; nothing where all data were.

    Args:
        advice: The record.
    """
    part = advice.part
    if part is None:
        return EMPTY
    return say(
        "on **{s}** ({n} of {m} examples)",
        "**{s}**（{m}件中{n}件）で測定",
        s=share(part),
        n=formats.count(part.examples),
        m=formats.count(part.whole),
    )


def on_all(advice: Advice) -> Text:
    """What the pair on all data says of the order, a sentence; nothing without such a pair.

    Args:
        advice: The record.
    """
    if advice.part is None or advice.part.repeat is None:
        return EMPTY
    repeat = advice.part.repeat
    compared = _row(repeat, advice.objective) if repeat.by != "validation" else None
    told = _by_metric(advice, repeat) if compared is None else _by_ratio(advice, repeat, compared)
    return say("{t}{e}", "{t}{e}", t=told, e=_caveat(repeat))


def _row(repeat: Repeat, quantity: str) -> Comparison | None:
    return next((c for c in repeat.comparisons if c.quantity == quantity), None)


def _who(advice: Advice) -> Text:
    if facts.case(advice) is Case.CHANGE:
        return Text("the recommended settings", "提案の設定")
    return Text("the best alternative", "最も良い候補")


def _by_ratio(advice: Advice, repeat: Repeat, compared: Comparison) -> Text:
    ratio, (fast, faster, name) = compared.difference.value, phrases.better(compared.quantity)
    parts = {
        "w": _who(advice),
        "was": "were" if facts.case(advice) is Case.CHANGE else "was",
        "r": formats.ratio(ratio),
        "fast": fast,
        "faster": faster,
        "name": name,
        "g": phrases.goal(advice),
    }
    if math.isinf(ratio) or ratio == 0:
        only = parts["w"] if ratio else Text("today's settings", "現在の設定")
        if repeat.held:
            return say(
                "On all data only {o} reached {g}",
                "全データでは、{o}だけが{g}に到達",
                o=only,
                **parts,
            )
        return say(
            "The order did not hold: on all data only {o} reached {g}",
            "順位は保たれず、全データでは{o}だけが{g}に到達",
            o=only,
            **parts,
        )
    if repeat.held and ratio > 1:
        return say(
            "On all data {w} {was} again {faster}: {r}×",
            "全データでも{w}の方が良く、{name}は{r}倍",
            **parts,
        )
    if repeat.held:
        return say(
            "On all data, too, {w} {was} no better: {r}× as {fast}",
            "全データでも{w}は上回らず、{name}は{r}倍",
            **parts,
        )
    return say(
        "The order did not hold: on all data {w} {was} {r}× as {fast}",
        "順位は保たれず、全データでは{w}の{name}は{r}倍",
        **parts,
    )


def _by_metric(advice: Advice, repeat: Repeat) -> Text:
    """The metric at the end, where it decided."""
    compared = _row(repeat, "validation")
    order = (
        Text("The order held", "順位は保たれ")
        if repeat.held
        else Text("The order did not hold", "順位は保たれず")
    )
    if compared is None:
        return say("{o}: a training on all data failed", "{o}、全データでの学習が失敗", o=order)
    change = compared.difference.value
    return say(
        "{o}: on all data {w} ended with {m} {size} {way}",
        "{o}、全データでは{w}の学習終了時の{m}が{size}{way_ja}値",
        o=order,
        w=_who(advice),
        m=names.metric(advice.metric),
        size=formats.metric_size(change, advice.metric),
        way="higher" if change > 0 else "lower",
        way_ja="高い" if change > 0 else "低い",
    )


def _caveat(repeat: Repeat) -> Text:
    """How little so few pairs show."""
    count = _pairs(repeat)
    if count > 1:
        return say(" ({n} pairs).", "でした（{n}組）。", n=count)
    return Text(
        " (one pair; a single pair cannot show how sure).",
        "でした（1組だけなので、確からしさは分かりません）。",
    )


def taken_back(advice: Advice) -> Text:
    """Why there is no verdict although the part gave one.

    Args:
        advice: The record.
    """
    part, compared = advice.part, facts.gain(advice)
    assert part is not None
    if compared is None or not math.isfinite(compared.difference.value):
        first = say("{s} gave another answer.", "{s}では別の結論でした。", s=_capital(share(part)))
    else:
        words = phrases.better(compared.quantity)
        first = say(
            "On {s} the best alternative was {r}× as {fast}.",
            "{s}では、最も良い候補の{name}は{r}倍でした。",
            s=share(part),
            r=formats.ratio(compared.difference.value),
            fast=words[0],
            name=words[2],
        )
    return join((first, on_all(advice), _worth_it(advice)))


def _worth_it(advice: Advice) -> Text:
    """Why an order that held takes a *keep* back."""
    if advice.part is None or advice.part.repeat is None or not advice.part.repeat.held:
        return EMPTY
    return say(
        "From {w}× on a change would be worth it.",
        "{w}倍以上なら、変更に値します。",
        w=formats.ratio(advice.worth),
    )


def _capital(text: Text) -> Text:
    return Text(phrases.capital(text.en), text.ja)


def untested(advice: Advice) -> Text:
    """What of the data was not used.

    Args:
        advice: The record.
    """
    part = advice.part
    if part is None:
        return EMPTY
    if part.repeat is None:
        return say(
            "all your training data (only {p} % of it was used)",
            "学習データ全体（使ったのはその{p}%だけです）",
            p=_percent(part),
        )
    return say(
        "more than {n} pair{e} of trainings on all your training data (the rest used {p} % of it)",
        "学習データ全体での{n}組を超える比較（ほかはその{p}%での測定です）",
        n=_pairs(part.repeat),
        e="" if _pairs(part.repeat) == 1 else "s",
        p=_percent(part),
    )


def _pairs(repeat: Repeat) -> int:
    return max((c.pairs for c in repeat.comparisons), default=1)


def _percent(part: Part) -> str:
    return formats.number(100 * part.share, 3)


def title(advice: Advice) -> Text:
    """The conclusion of the section: whether the order held, or what finding out would take.

    Args:
        advice: The record.
    """
    part = advice.part
    assert part is not None
    if part.repeat is not None:
        return on_all(advice)
    if part.seconds is None:
        return Text(
            "Measured on a part of the data, not on all of it.",
            "データの一部での測定で、全データではまだ確かめていません。",
        )
    return say(
        "Not repeated on all data: one pair takes {t} more.",
        "全データではまだ確かめていません（1組の比較にあと{t}）。",
        t=formats.spoken(part.seconds),
    )


def notes(advice: Advice) -> tuple[Text, ...]:
    """How the part was drawn, what was kept, and how the pair is compared.

    Args:
        advice: The record.
    """
    part = advice.part
    if part is None:
        return ()
    kept = say(
        "All other sections show trainings on {s}: {n} of {m} examples, with as many passes over "
        "them as a training on all data makes.",
        "ほかの節の学習は、すべて{s}（{m}件中{n}件）を使い、データを回す回数は全データでの学習と同"
        "じにしました。",
        s=share(part),
        n=formats.count(part.examples),
        m=formats.count(part.whole),
    )
    how = Text(
        "The pair trains on all data to the end, from fresh random starts. The goal is the one "
        "chosen on the part; where neither reaches it, the metric at the end decides, as it does "
        "where the faster one ends far worse.",
        "この組は、新しい乱数で全データを使って最後まで学習させました。目標は一部のデータで決めた値"
        "です。どちらも届かない場合や、速い方の終了時の成績が大きく劣る場合は、終了時の成績で判断し"
        "ます。",
    )
    return (kept,) if part.repeat is None else (kept, how)
