"""The one sentence: what to change, or to change nothing, and why."""

from __future__ import annotations

import math

from batchlab._text import EMPTY, Text, join, say, verbatim
from batchlab.advisor.record import Advice, Comparison
from batchlab.report import facts, formats, names
from batchlab.report.facts import Case
from batchlab.report.wording import part, phrases
from batchlab.types import Estimate

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def headline(advice: Advice) -> Text:
    """The one sentence: what to change, or to change nothing.

    Args:
        advice: The record.

    Returns:
        The answer and its reason, as two parts of one heading.
    """
    return join((answer(advice), reason(advice)))


def answer(advice: Advice) -> Text:
    """What to do.

    Args:
        advice: The record.
    """
    which = facts.case(advice)
    if which is Case.CHANGE:
        return _change(advice)
    if which is Case.KEEP and facts.proved(advice):
        return Text("Change nothing.", "今の設定のままで問題ありません。")
    return Text("Keep today's settings for now.", "当面は今の設定のままにしてください。")


def reason(advice: Advice) -> Text:
    """Why, in a sentence or two.

    Args:
        advice: The record.
    """
    by_case = {
        Case.CHANGE: _reason_to_change,
        Case.KEEP: _reason_to_keep,
        Case.OPEN: _reason_to_wait,
        Case.SCREENED: _reason_screened,
    }
    told = by_case[facts.case(advice)](advice)
    if facts.taken_back(advice):
        return told
    return join((told, part.on_all(advice), _on_part_alone(advice)))


def _on_part_alone(advice: Advice) -> Text:
    """That a change rests on a part of the data."""
    alone = advice.part is not None and not facts.proved(advice)
    if advice.part is None or not alone or facts.case(advice) is not Case.CHANGE:
        return EMPTY
    return say(
        "Measured on {s}, not yet on all of it.",
        "{s}での測定で、全データではまだ確かめていません。",
        s=part.share(advice.part),
    )


def _change(advice: Advice) -> Text:
    listed = changes(advice)
    number = len(advice.changes)
    if not facts.proved(advice):
        return say(
            "Probably worth changing: {listed}.",
            "変更の候補が見つかりました。{listed}。",
            listed=listed,
        )
    return say(
        "Change {count} setting{s}: {listed}.",
        "変えるのは{n}か所{only}です。{listed}。",
        count=_COUNTS[number] if number < len(_COUNTS) else str(number),
        s="" if number == 1 else "s",
        n=number,
        only="だけ" if number < 3 else "",
        listed=listed,
    )


def changes(advice: Advice) -> Text:
    """The settings that change, from what to what.

    Args:
        advice: The record.
    """
    return join((names.change(c) for c in advice.changes), ", ", "、", last=" and ")


def _reason_to_change(advice: Advice) -> Text:
    if not facts.confirmed(advice):
        return say(
            "A short trial suggests: {effect}. Not yet confirmed by full trainings.",
            "短い試行からの予測では、{effect}。最後まで学習させての確認はまだです。",
            effect=join((effect(advice), _loss_clause(advice)), "; ", "、"),
        )
    parts = join((effect(advice), _loss_clause(advice)), "; ", "、")
    failed = phrases.failures(advice)
    return say(
        "{first}{sep}{failed}.",
        "{first}。{failed}{end}",
        first=Text(phrases.capital(parts.en), parts.ja),
        sep="; but " if failed.en else "",
        failed=failed,
        end="。" if failed.ja else "",
    )


def effect(advice: Advice) -> Text:
    """What the recommendation does for the objective, in words.

    Args:
        advice: The record.

    Returns:
        A clause; the Japanese one is open at its end unless nothing follows.
    """
    metric = names.metric(advice.metric)
    compared = facts.gain(advice)
    follows = bool(_loss_clause(advice).en)
    if compared is None:
        return phrases.effect_on_metric(advice, metric, follows)
    ratio = compared.difference.value
    if math.isinf(ratio):
        return say(
            "training reaches {target}, which today's settings did not reach",
            "今の設定では届かなかった{target}に達{end}",
            target=phrases.goal(advice),
            end="し" if follows else "しました",
        )
    templates = {
        "time": ("training reaches {m} in {f}", "{m}に達するまでの時間が{f}に{e}"),
        "cost": ("training to {m} takes {f}", "{m}に達するまでの費用が{f}に{e}"),
        "samples": ("{m} takes {f}", "{m}に達するまでに使うデータが{f}に{e}"),
    }
    en, ja = templates[compared.quantity]
    less = formats.fraction(1 / ratio, phrases.NOUNS[compared.quantity])
    what = phrases.arrived(advice)
    return say(en, ja, m=what, f=less, e="なり" if follows else _end(advice))


def _end(advice: Advice) -> str:
    return "なりました" if facts.confirmed(advice) else "なる見込みです"


def _loss_clause(advice: Advice) -> Text:
    """What happened to the metric, after the semicolon of the headline."""
    compared = facts.metric_comparison(advice)
    if compared is None or advice.objective == "accuracy":
        return EMPTY
    metric = names.metric(advice.metric)
    if math.isnan(compared.difference.low) or not facts.confirmed(advice):
        return EMPTY
    sign = facts.decided(compared.difference.low, compared.difference.high)
    size = formats.metric_size(compared.difference.value, advice.metric)
    if facts.loss_not_ruled_out(advice):
        return say(
            "{metric} at the end of training may be worse by up to {size}",
            "学習終了時の{metric}は最大{size}悪くなる可能性があります",
            metric=metric,
            size=formats.metric_size(facts.harm(advice, compared)[1], advice.metric),
        )
    if sign:
        return say(
            "{metric} at the end of training {way} by {size}",
            "学習終了時の{metric}は{size}{way_ja}",
            metric=metric,
            size=size,
            way="rose" if sign > 0 else "fell",
            way_ja="上がりました" if sign > 0 else "下がりました",
        )
    if advice.metric.maximise:
        return say("we saw no loss of {m}", "{m}の低下は見られませんでした", m=metric)
    return say("we saw no rise of the {m}", "{m}の上昇は見られませんでした", m=metric)


def _reason_to_keep(advice: Advice) -> Text:
    compared = facts.gain(advice)
    if compared is None:
        return _keep_without_ratio(advice)
    high, worth = compared.difference.high, formats.ratio(advice.worth)
    ends = (formats.ratio(compared.difference.low), formats.ratio(high))
    words = phrases.better(compared.quantity)
    if math.isnan(high) or not facts.confirmed(advice):
        return say(
            "In a short trial the best alternative looked {r}× as {fast}, less than the {w}× that "
            "would be worth a change.",
            "短い試行では、最も良い候補でも{adj}は{r}倍の見込みで、変更に値する{w}倍に届きませ"
            "ん。",
            r=formats.ratio(compared.difference.value),
            fast=words[0],
            adj=words[2],
            w=worth,
        )
    return say(
        "Today's settings are as good as anything we tried: the best alternative is {most} "
        "(90 % range {span_en}), less than the {w}× that would be worth a change.",
        "試した中で最も良い設定でも、{adj}は{span}（90%の範囲）で、変更に値する{w}倍に届きませ"
        "ん。",
        most=phrases.at_most(compared),
        span_en=formats.span(*ends),
        adj=words[2],
        span=formats.ratio_range(compared.difference).ja,
        w=worth,
    )


def _keep_without_ratio(advice: Advice) -> Text:
    if advice.objective == "accuracy" and advice.comparisons:
        return say(
            "Nothing we tried gave a better {m}.",
            "試した中に、{m}が今より良くなる設定はありませんでした。",
            m=names.metric(advice.metric),
        )
    return Text(
        "None of the candidates we tried looked better than today's settings.",
        "試した候補の中に、今の設定より良さそうなものはありませんでした。",
    )


def _reason_to_wait(advice: Advice) -> Text:
    if facts.taken_back(advice):
        return part.taken_back(advice)
    if facts.unmet(advice):
        return _demand_unmet(advice)
    if facts.neither_arrived(advice):
        return _neither_arrived(advice)
    if facts.better_but_not_chosen(advice):
        return _NOT_CHOSEN
    compared = facts.gain(advice)
    if phrases.failures(advice).en and compared is not None and compared.difference.low > 1:
        return say(
            "The best alternative is faster, but {f}: too many to change.",
            "最も良い候補は速いものの、{f}。変更は勧められません。",
            f=phrases.failures(advice),
        )
    if compared is None or not compared.difference.low > 0:
        return join((_unclear(advice, compared), _to_decide(advice)))
    words = phrases.better(compared.quantity)
    trial = say(
        "The best alternative is {span} as {fast}; {n} cannot tell{whether}.",
        "最も良い候補の{adj}は{span}、{whether}{n}では判断できません。",
        span=_wide(compared.difference),
        fast=words[0],
        adj=words[2],
        n=_trials(compared),
        whether=_whether(advice, compared),
    )
    return join((trial, _to_decide(advice)))


_NOT_CHOSEN = Text(
    "The best alternative beat today's settings in the last repeats, but not in the earlier ones "
    "that had to choose: one of the two is chance.",
    "最も良い候補は、最後の測定では今の設定を上回りましたが、選ぶための測定では下回りました。どちらか"
    "は偶然です。",
)


def _neither_arrived(advice: Advice) -> Text:
    compared = facts.gain(advice)
    assert compared is not None
    return say(
        "In {n}, most trainings reached {goal} neither with today's settings nor with the best "
        "alternative.",
        "{n}では、今の設定でも最も良い候補でも、多くの学習が{goal}に達しませんでした。",
        goal=phrases.goal(advice),
        n=_trials(compared),
    )


def _wide(difference: Estimate) -> Text:
    """A range too wide to decide on."""
    low, high = formats.ratio(difference.low), formats.ratio(difference.high)
    if math.isinf(difference.high):
        return say("at least {a}× (no upper limit found)", "{a}倍以上で上限が定まらず", a=low)
    return say("somewhere between {a}× and {b}×", "{a}～{b}倍と幅があり", a=low, b=high)


def _trials(compared: Comparison) -> Text:
    if not compared.pairs:
        return Text("a short trial", "短い試行")
    if compared.pairs == 1:
        return Text("a single repeat", "1回の測定")
    return say("{n} repeats", "{n}回の測定", n=compared.pairs)


def _whether(advice: Advice, compared: Comparison) -> Text:
    """What cannot be told, where it is not simply whether it is better."""
    if compared.difference.low < 1:
        return EMPTY
    return say(
        " whether it reaches the {w}× worth a change",
        "変更に値する{w}倍に届くかどうか",
        w=formats.ratio(advice.worth),
    )


def _unclear(advice: Advice, compared: Comparison | None) -> Text:
    if compared is None or not 0 < compared.difference.value < math.inf:
        return Text(
            "What was measured does not show whether another setting is better.",
            "ほかの設定の方が良いかどうかは、これまでの測定では判断できません。",
        )
    return say(
        "In {n} the best alternative came out {r}× as {fast}; that is too little to decide on.",
        "{n}では、最も良い候補の{adj}は{r}倍でしたが、これだけでは判断できません。",
        n=_trials(compared),
        r=formats.ratio(compared.difference.value),
        fast=phrases.better(compared.quantity)[0],
        adj=phrases.better(compared.quantity)[2],
    )


def _to_decide(advice: Advice) -> Text:
    following = advice.next_stage
    if following is None or following.stage == "own-task":
        return EMPTY
    decides = following.stage == "more-repeats"
    return say(
        "Another {cost} of measuring would {decide}.",
        "あと{cost}測れば{decide_ja}。",
        cost=phrases.in_brackets(advice),
        decide="decide" if decides else "tell more",
        decide_ja="判断できます" if decides else "より詳しく分かります",
    )


def _demand_unmet(advice: Advice) -> Text:
    return say(
        "The best alternative does not clearly meet what you asked for ({d}).",
        "最も良い候補は、ご指定の条件（{d}）を確実に満たすとは言えません。",
        d=verbatim(", ".join(facts.unmet(advice))),
    )


def _reason_screened(advice: Advice) -> Text:
    sizes = sorted(
        c.setting.batch_size
        for c in advice.candidates
        if isinstance(c.setting.batch_size, int) and c.setting.id != advice.today.id
    )
    if advice.watched:
        return say(
            "All {n} trainings have the same settings: there is nothing to compare them with.",
            "{n}回の学習はすべて同じ設定のため、比べるものがありません。",
            n=advice.watched,
        )
    nothing = Text("Nothing has been compared yet.", "設定どうしの比較はまだ行っていません。")
    if advice.memory is not None and not advice.memory.largest:
        return Text(
            "Nothing could be measured: not even one example fits in this computer's memory.",
            "1件のデータもメモリに収まらず、測定できませんでした。",
        )
    if not sizes:
        return nothing
    found = say(
        "The first look at speed, memory and noise leaves {n} other batch size{s} worth trying, "
        "{span} (today: {today}).",
        "速さ・メモリ・ノイズの下調べから、試す価値のあるバッチサイズは{span_ja}の{n}通りです（現"
        "在は{today}）。",
        n=len(sizes),
        s="" if len(sizes) == 1 else "s",
        span=f"{formats.count(sizes[0])} to {formats.count(sizes[-1])}",
        span_ja=f"{formats.count(sizes[0])}～{formats.count(sizes[-1])}",
        today=names.value("batch_size", advice.today.batch_size),
    )
    if len(sizes) == 1:
        found = say(
            "The first look at speed, memory and noise leaves one other batch size worth trying, "
            "{b} "
            "(today: {today}).",
            "速さ・メモリ・ノイズの下調べから、試す価値のあるバッチサイズは{b}です（現在は"
            "{today}）。",
            b=formats.count(sizes[0]),
            today=names.value("batch_size", advice.today.batch_size),
        )
    return join((nothing, found, _price_of_comparing(advice)))


def _price_of_comparing(advice: Advice) -> Text:
    if advice.next_stage is None:
        return EMPTY
    return say(
        "Comparing them would take {c}.",
        "比較には{c}かかります。",
        c=phrases.in_brackets(advice),
    )
