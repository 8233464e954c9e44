"""One sentence to say in the meeting, in the headline's words."""

from __future__ import annotations

import math

from batchlab._text import EMPTY, Text, join, say, verbatim
from batchlab.advisor.record import Advice
from batchlab.report import facts, formats, names
from batchlab.report.facts import Case
from batchlab.report.wording import part, phrases


def meeting(advice: Advice) -> Text:
    """One sentence to say in the meeting, without markup.

    Args:
        advice: The record.
    """
    by_case = {
        Case.CHANGE: _meeting_change,
        Case.KEEP: _meeting_keep,
        Case.OPEN: _meeting_open,
        Case.SCREENED: _meeting_open,
    }
    return by_case[facts.case(advice)](advice)


def _job(advice: Advice) -> Text:
    job = say("On {t}", "{t}の学習では", t=verbatim(advice.task))
    if advice.builtin:
        job = Text("On the test job", "試験用の学習では")
    if advice.part is None:
        return say("{j}", "{j}、", j=job)
    return say("{j}, with {s},", "{j}、{s}を使って、", j=job, s=part.share(advice.part))


def _comma(advice: Advice) -> Text:
    """Between the job and a clause, where the job does not end with one."""
    return Text("," if advice.part is None else "", "")


def _meeting_change(advice: Advice) -> Text:
    compared = facts.gain(advice)
    job = _job(advice)
    if not facts.confirmed(advice):
        return say(
            "{job} a short trial suggests that {effect}. I propose to spend {cost} on confirming "
            "it "
            "before we decide.",
            "{job}短い試行から、設定変更で{effect}。判断の前に、{cost}かけて確認したいと思いま"
            "す。",
            job=job,
            effect=_meeting_effect(advice, "との見込みが得られました"),
            cost=phrases.in_brackets(advice) if advice.next_stage else Text("some time", "時間を"),
        )
    if not facts.proved(advice):
        return say(
            "{job} {effect}. I propose to spend {cost} on confirming it on all data before we "
            "decide.",
            "{job}{effect}。判断の前に、{cost}かけて全データで確認したいと思います。",
            job=job,
            effect=_meeting_effect(advice, "しました"),
            cost=phrases.in_brackets(advice) if advice.next_stage else Text("some time", "時間を"),
        )
    wins = EMPTY
    if compared is not None and compared.pairs:
        wins = say(
            ", confirmed in {k} of {n} repeats",
            "、{n}回中{k}回で確認できました",
            k=compared.wins,
            n=compared.pairs,
        )
    return say(
        "{job} {effect}{wins}{fall}. {proposal}",
        "{job}設定を{n}か所変える{only}で、{effect}{wins}。{fall}{proposal}",
        job=job,
        n=len(advice.changes),
        only="だけ" if len(advice.changes) < 3 else "こと",
        effect=_meeting_effect(advice, "し" if wins.en else "しました"),
        wins=wins,
        fall=join((_fall(advice), _again(advice)), ""),
        proposal=_proposal(advice),
    )


def _again(advice: Advice) -> Text:
    """That the order held on all data."""
    if advice.part is None:
        return EMPTY
    return Text(
        "; on all data they were better again", "全データでも、新しい設定の方が良い結果でした。"
    )


def _fall(advice: Advice) -> Text:
    """The price of the change: a metric that is worse beyond doubt, trainings that failed."""
    failed = phrases.failures(advice)
    if failed.en:
        return say("; but {f}", "ただし、{f}。", f=failed)
    compared = facts.metric_comparison(advice)
    if compared is None or not facts.worsened(advice) or advice.objective == "accuracy":
        return EMPTY
    up = compared.difference.value > 0
    return say(
        "; {m} at the end of training {way} by {size}",
        "ただし、学習終了時の{m}は{size}{way_ja}。",
        m=names.metric(advice.metric),
        way="rose" if up else "fell",
        way_ja="上がりました" if up else "下がりました",
        size=formats.metric_size(compared.difference.value, advice.metric),
    )


def _meeting_effect(advice: Advice, end: str) -> Text:
    """The effect once more, in the headline's words; ``end`` closes the Japanese clause."""
    compared, metric = facts.gain(advice), names.metric(advice.metric)
    outlook = end.startswith("と")
    if compared is None:
        told = phrases.effect_on_metric(advice, metric, follows=False)
        ja = told.ja.removesuffix("ました")
        return Text(
            told.en,
            told.ja.replace("りました", "る") + end
            if outlook
            else ja + ("" if end == "し" else "ました"),
        )
    if math.isinf(compared.difference.value):
        return say(
            "training reaches {g}, which today's settings did not",
            "今の設定では届かなかった{g}に到達{e}",
            g=phrases.goal(advice),
            e="する" + end if outlook else end,
        )
    less = formats.fraction(1 / compared.difference.value, phrases.NOUNS[compared.quantity])
    templates = {
        "time": ("the new settings reach {m} in {f}", "{m}に{f}の時間で到達{e}"),
        "cost": ("the new settings reach {m} for {f}", "{m}に{f}の費用で到達{e}"),
        "samples": ("the new settings reach {m} with {f}", "{m}に{f}のデータで到達{e}"),
    }
    en, ja = templates[compared.quantity]
    return say(en, ja, m=phrases.arrived(advice), f=less, e="する" + end if outlook else end)


def _proposal(advice: Advice) -> Text:
    following = advice.next_stage
    if following is None or following.stage != "own-task":
        return Text(
            "I propose to use the new settings from the next training on.",
            "次の学習から新しい設定に切り替えたいと思います。",
        )
    return say(
        "I propose {t} on our own data before we decide.",
        "判断の前に、まず自社データで{t}だけ試したいと思います。",
        t=formats.spoken(following.seconds),
    )


def _meeting_keep(advice: Advice) -> Text:
    compared = facts.gain(advice)
    if compared is None or math.isnan(compared.difference.high) or not facts.confirmed(advice):
        return say(
            "{job}{comma} nothing we tried looked good enough to be worth a change. I propose to "
            "keep today's settings.",
            "{job}試した中に、変更に値するほど良い設定はありませんでした。今の設定を続けたいと思い"
            "ま"
            "す。",
            job=_job(advice),
            comma=_comma(advice),
        )
    return say(
        "{job}{comma} the best alternative is {most}, too little to be worth a change. "
        "I propose to keep today's settings.",
        "{job}最も良い候補でも{adj}は最大{r}倍にとどまり、変更するほどの効果はありません。"
        "今の設定を続けたいと思います。",
        job=_job(advice),
        comma=_comma(advice),
        r=formats.ratio(compared.difference.high),
        most=phrases.at_most(compared),
        adj=phrases.better(compared.quantity)[2],
    )


def _meeting_open(advice: Advice) -> Text:
    following = advice.next_stage
    if facts.taken_back(advice):
        return say(
            "{job} we got another answer than on all data, so that whether a change would pay is "
            "open. I propose to keep today's settings for now.",
            "{job_ja}得た結論は全データでは成り立たず、変更の効果があるかどうか、まだ判断できません。"
            "当面は今の設定を続けたいと思います。",
            job=_job(advice),
            job_ja=_job(advice).ja.removesuffix("、"),
        )
    if following is None:
        return say(
            "{job}{comma} what we measured does not show whether a change would pay. I propose "
            "to keep today's settings for now.",
            "{job}変更の効果があるかどうか、まだ判断できません。当面は今の設定を続けたいと思いま"
            "す。",
            job=_job(advice),
            comma=_comma(advice),
        )
    return say(
        "{job}{comma} we cannot say yet whether other settings are better. I propose to keep "
        "today's settings and to spend {cost} on measuring{goal}.",
        "{job}ほかの設定の方が良いかどうか、まだ判断できません。当面は今の設定を続け、"
        "{cost}かけて{goal}測定したいと思います。",
        job=_job(advice),
        comma=_comma(advice),
        cost=phrases.in_brackets(advice),
        goal=Text(" our own data", "自社データで")
        if following.stage == "own-task"
        else Text(" further", "さらに"),
    )
