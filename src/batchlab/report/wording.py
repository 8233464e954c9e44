"""The sentences of the first screen, each a pure function of the record, in English and Japanese."""

from __future__ import annotations

import math
from datetime import datetime
from typing import NamedTuple

from batchlab.advisor.record import Advice, Comparison, MemoryPoint
from batchlab.report import facts, formats, names
from batchlab.report.facts import Case
from batchlab.report.text import EMPTY, Text, join, same, say, verbatim
from batchlab.types import Estimate, Evidence

_STAGES = {"A": 1, "B": 2, "C": 3}
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TESTED = {
    Evidence.SCREENED: Text("screened: nothing compared yet", "下調べのみ・比較はこれから"),
    Evidence.PROJECTED: Text("projected from a short trial", "短い試行からの予測"),
    Evidence.CONFIRMED: Text("confirmed", "実測で確認済み"),
}
_NOUNS = {"time": "time", "cost": "money", "samples": "data"}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Row(NamedTuple):
    """A row of the first table."""

    label: Text
    today: Text
    recommended: Text
    difference: Text
    sure: Text


# ------------------------------------------------------------------ the line above


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
    measured = say(
        "measured on {device}, {day}, in {time}",
        "測定：{device}、{day}、所要{time}",
        device=names.device(advice),
        day=date(advice.created),
        time=formats.duration(advice.wall_seconds),
    )
    private = Text("no data left this computer", "データは一切外部に送信していません")
    return tuple(t for t in (measured, private, stage(advice), interrupted(advice)) if t.en)


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


# ------------------------------------------------------------------ the headline


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
    if which is Case.KEEP and facts.confirmed(advice):
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
    return by_case[facts.case(advice)](advice)


def _change(advice: Advice) -> Text:
    listed = changes(advice)
    number = len(advice.changes)
    if not facts.confirmed(advice):
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
    return say("{first}.", "{first}。", first=Text(_capital(parts.en), parts.ja))


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
        return _effect_on_metric(advice, metric, follows)
    ratio = compared.difference.value
    if math.isinf(ratio):
        return say(
            "training reaches {target}, which today's settings did not reach",
            "今の設定では届かなかった{target}に達{end}",
            target=goal(advice),
            end="し" if follows else "しました",
        )
    templates = {
        "time": ("training reaches the same {m} in {f}", "同じ{m}に達するまでの時間が{f}に{e}"),
        "cost": ("training to the same {m} takes {f}", "同じ{m}に達するまでの費用が{f}に{e}"),
        "samples": ("the same {m} takes {f}", "同じ{m}に達するまでに使うデータが{f}に{e}"),
    }
    en, ja = templates[compared.quantity]
    part = formats.fraction(1 / ratio, _NOUNS[compared.quantity])
    return say(en, ja, m=metric, f=part, e="なり" if follows else _end(advice))


def _end(advice: Advice) -> str:
    return "なりました" if facts.confirmed(advice) else "なる見込みです"


def _effect_on_metric(advice: Advice, metric: Text, follows: bool) -> Text:
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
        way_ja=("上がり" if up else "下がり") if follows else ("上がりました" if up else "下がりました"),
    )


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
    if sign:
        return say(
            "{metric} {way} by {size}",
            "{metric}は{size}{way_ja}",
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
    words = _better(compared.quantity)
    if math.isnan(high) or not facts.confirmed(advice):
        return say(
            "In a short trial the best alternative looked {r}× as {fast}, less than the {w}× that "
            "would be worth a change.",
            "短い試行では、最も良い候補でも{adj}は{r}倍の見込みで、変更に値する{w}倍に届きません。",
            r=formats.ratio(compared.difference.value),
            fast=words[0],
            adj=words[2],
            w=worth,
        )
    return say(
        "Today's settings are as good as anything we tried: the best alternative is {most}, "
        "{less} the {w}× that would be worth a change.",
        "試した中で最も良い設定でも、{adj}は{span}（90%の範囲）で、変更に値する{w}倍に届きません。",
        most=_at_most(compared.difference, words[1]),
        less="less than",
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


def _at_most(difference: Estimate, word: str) -> str:
    """How much better at most, with the range."""
    low, high = formats.ratio(difference.low), formats.ratio(difference.high)
    return f"at most {high}× {word} (90 % range {low}–{high})"


def _better(quantity: str) -> tuple[str, str, str]:
    """As <fast>, <faster>, and the quality's name in Japanese."""
    words = {
        "time": ("fast", "faster", "速さ"),
        "cost": ("cheap", "cheaper", "費用の小ささ"),
        "samples": ("sparing with data", "more sparing with data", "データ効率"),
    }
    return words[quantity]


def _reason_to_wait(advice: Advice) -> Text:
    if facts.unmet(advice):
        return _demand_unmet(advice)
    compared = facts.gain(advice)
    if compared is None or math.isnan(compared.difference.low):
        return join((_unclear(advice, compared), _to_decide(advice)))
    words = _better(compared.quantity)
    trial = say(
        "The best alternative is somewhere between {low}× and {high} as {fast}; {n} cannot tell.",
        "最も良い候補の{adj}は{span}と幅があり、{n_ja}では判断できません。",
        low=formats.ratio(compared.difference.low),
        high=_no_limit(compared.difference.high),
        fast=words[0],
        adj=words[2],
        span=formats.ratio_range(compared.difference).ja,
        n=f"{compared.pairs} repeats" if compared.pairs else "a short trial",
        n_ja=f"{compared.pairs}回の測定" if compared.pairs else "短い試行",
    )
    return join((trial, _to_decide(advice)))


def _no_limit(high: float) -> str:
    return "any number of times" if math.isinf(high) else f"{formats.ratio(high)}×"


def _unclear(advice: Advice, compared: Comparison | None) -> Text:
    if compared is None or not math.isfinite(compared.difference.value):
        return Text(
            "What was measured does not show whether another setting is better.",
            "ほかの設定の方が良いかどうかは、これまでの測定では判断できません。",
        )
    return say(
        "A short trial puts the best alternative at {r}× as {fast}; that is too little to decide on.",
        "短い試行では、最も良い候補の{adj}は{r}倍でしたが、これだけでは判断できません。",
        r=formats.ratio(compared.difference.value),
        fast=_better(compared.quantity)[0],
        adj=_better(compared.quantity)[2],
    )


def _to_decide(advice: Advice) -> Text:
    following = advice.next_stage
    if following is None or following.stage == "own-task":
        return EMPTY
    more = "more " if following.stage == "more-repeats" else ""
    return say(
        "{cost} of {more}measuring would {decide}.",
        "あと{cost}測れば{decide_ja}。",
        cost=_in_brackets(advice),
        more=more,
        decide_ja="判断できます" if more else "より詳しく分かります",
        decide="decide" if more else "tell more",
    )


def _in_brackets(advice: Advice) -> Text:
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
    nothing = Text("Nothing has been compared yet.", "設定どうしの比較はまだ行っていません。")
    if not sizes:
        return nothing
    found = say(
        "The first look at speed, memory and noise leaves {n} other batch size{s} worth trying, "
        "{span} (today: {today}).",
        "速さ・メモリ・ノイズの下調べから、試す価値のあるバッチサイズは{span_ja}の{n}通りです（現在は{today}）。",
        n=len(sizes),
        s="" if len(sizes) == 1 else "s",
        span=f"{formats.count(sizes[0])} to {formats.count(sizes[-1])}",
        span_ja=f"{formats.count(sizes[0])}～{formats.count(sizes[-1])}",
        today=names.value("batch_size", advice.today.batch_size),
    )
    if len(sizes) == 1:
        found = say(
            "The first look at speed, memory and noise leaves one other batch size worth trying, {b} "
            "(today: {today}).",
            "速さ・メモリ・ノイズの下調べから、試す価値のあるバッチサイズは{b}です（現在は{today}）。",
            b=formats.count(sizes[0]),
            today=names.value("batch_size", advice.today.batch_size),
        )
    return join((nothing, found))


# ------------------------------------------------------------------ the table


def head(advice: Advice) -> Row:
    """The table's column titles.

    Args:
        advice: The record.
    """
    which = facts.case(advice)
    if which is Case.SCREENED:
        return Row(
            EMPTY,
            Text("today", "現在"),
            Text("best measured", "測定での最良"),
            Text("difference", "差"),
            Text("what it means", "意味"),
        )
    second = Text("recommended", "提案")
    if which is not Case.CHANGE:
        second = Text("best alternative", "最も良い候補")
    elif not facts.confirmed(advice):
        second = Text("candidate", "候補")
    return Row(
        EMPTY,
        Text("today", "現在"),
        second,
        Text("difference (90 % range)", "差（90%の範囲）"),
        Text("how sure", "確からしさ"),
    )


def table(advice: Advice) -> tuple[Row, ...]:
    """The rows of the first table, those without numbers left out.

    Args:
        advice: The record.
    """
    if facts.case(advice) is Case.SCREENED:
        return _screening_rows(advice)
    rows = [_setting_row(advice), _ratio_row(advice, "time")]
    if advice.objective == "samples":
        rows.append(_ratio_row(advice, "samples"))
    if advice.price is not None:
        rows.append(_cost_row(advice))
    rows += [_metric_row(advice), _failure_row(advice)]
    return tuple(row for row in rows if row is not None)


def _setting_row(advice: Advice) -> Row | None:
    """Which setting the second column is, where the headline does not say so."""
    rival = facts.alternative(advice)
    if facts.case(advice) is Case.CHANGE or rival is None:
        return None
    return Row(
        Text("settings", "設定"),
        names.setting(advice.today),
        names.setting(rival),
        EMPTY,
        EMPTY,
    )


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


def _ratio_row(advice: Advice, quantity: str) -> Row | None:
    compared = facts.comparison(advice, quantity)
    if compared is None:
        return None
    labels = {
        "time": ("time to reach {g}", "{g}に達するまでの時間"),
        "samples": ("examples needed to reach {g}", "{g}に達するまでに使うデータ数"),
    }
    write = formats.duration if quantity == "time" else _many
    return Row(
        say(*labels[quantity], g=goal(advice)),
        write(compared.today.value),
        write(compared.recommended.value),
        _ratio_difference(compared),
        sure_of_ratio(compared),
    )


def _many(value: float) -> Text:
    return same(formats.count(value)) if math.isfinite(value) else Text("not reached", "未到達")


def _ratio_difference(compared: Comparison) -> Text:
    ratio = compared.difference
    words = {"time": ("faster", "速い"), "samples": ("less data", "少ない")}[compared.quantity]
    if math.isnan(ratio.value):
        return Text("neither reached it", "どちらも未到達")
    if math.isinf(ratio.value):
        return Text("**only the second reached it**", "**一方だけが到達**")
    if ratio.value >= 1:
        main = say("**{r}×** {w}", "**{r}倍**{wj}", r=formats.ratio(ratio.value), w=words[0], wj=words[1])
    else:
        as_ = {"time": "as fast", "samples": "as sparing"}[compared.quantity]
        name = {"time": "速さは", "samples": "効率は"}[compared.quantity]
        main = say("**{r}×** {a}", "{n}**{r}倍**", r=formats.ratio(ratio.value), a=as_, n=name)
    return say("{m} ({s})", "{m}（{s}）", m=main, s=formats.ratio_range(ratio))


def sure_of_ratio(compared: Comparison) -> Text:
    """How sure a ratio is, in counted repeats.

    Args:
        compared: The comparison.
    """
    if compared.method == "projected" or not compared.pairs:
        return Text(
            "projected from a short trial, not yet confirmed", "短い試行からの予測で、未確認です"
        )
    words = {"time": ("faster", "速かった"), "samples": ("less data", "少なかった")}
    word = words.get(compared.quantity, ("cheaper", "安かった"))
    return say(
        "{w} in {k} of {n} new repeats",
        "新たに行った{n}回中{k}回で{wj}",
        w=word[0],
        wj=word[1],
        k=compared.wins,
        n=compared.pairs,
    )


def _cost_row(advice: Advice) -> Row | None:
    compared, time = facts.comparison(advice, "cost"), facts.comparison(advice, "time")
    if compared is None or advice.price is None:
        return None
    code = advice.price.currency
    alike = time is not None and (time.wins, time.pairs) == (compared.wins, compared.pairs)
    return Row(
        Text("computing cost of one training", "学習1回の計算費用"),
        _paid(compared.today.value, code),
        _paid(compared.recommended.value, code),
        percent_saved(compared.difference),
        Text("as above", "同上") if alike else sure_of_ratio(compared),
    )


def _paid(value: float, code: str) -> Text:
    return formats.money(value, code) if math.isfinite(value) else Text("not reached", "未到達")


def percent_saved(ratio: Estimate) -> Text:
    """A ratio today / recommended as a change in percent.

    Example:
        >>> percent_saved(Estimate(1.9, 1.5, 2.3, n=8)).en
        '−47 % (−33 to −57)'
    """
    if not math.isfinite(ratio.value):
        return EMPTY
    main = _percent(ratio.value)
    if math.isnan(ratio.low):
        return say("{p} %", "{p}%", p=main)
    ends = {"p": main, "a": _percent(ratio.low), "b": _percent(ratio.high)}
    return say("{p} % ({a} to {b})", "{p}%（{a}～{b}%）", **ends)


def _percent(ratio: float) -> str:
    change = round(100 * (1 / ratio - 1)) if ratio > 0 else math.inf
    if change == 0:
        return "0"
    return formats.MINUS + str(-change) if change < 0 else f"+{change}"


def _metric_row(advice: Advice) -> Row | None:
    compared = facts.metric_comparison(advice)
    if compared is None:
        return None
    fresh = compared.quantity == "metric"
    many = compared.examples or (advice.test_examples if fresh else advice.validation_examples)
    label = say(
        "{m} on {n} never used for choosing" if fresh else "{m} on {n} also used for choosing",
        "設定選びに使っていない{n}での{m}" if fresh else "設定選びにも使った{n}での{m}",
        m=names.metric_in_full(advice.metric),
        n=names.examples(advice, many),
    )
    return Row(
        label,
        formats.metric_value(compared.today.value, advice.metric),
        formats.metric_value(compared.recommended.value, advice.metric),
        _metric_difference(advice, compared.difference),
        sure_of_metric(advice, compared),
    )


def _metric_difference(advice: Advice, change: Estimate) -> Text:
    main = formats.metric_signed(change.value, advice.metric)
    points = advice.metric.unit == "%"
    unit = Text(" points", "ポイント") if points else EMPTY
    if math.isnan(change.low):
        return say("{m}{u}", "{m}{u}", m=main, u=unit)
    ends = [formats.metric_signed(v, advice.metric) for v in (change.low, change.high)]
    return say(
        "{m}{u} ({a} to {b})", "{m}{u}（{a}～{b}）", m=main, u=unit, a=ends[0], b=ends[1]
    )


def sure_of_metric(advice: Advice, compared: Comparison) -> Text:
    """What the metric's range allows to say, in words.

    Args:
        advice: The record.
        compared: The metric's comparison.
    """
    if compared.method == "projected" or math.isnan(compared.difference.low):
        return Text(
            "at the end of a short trial, not yet confirmed", "短い試行の終了時の値で、未確認です"
        )
    middle, worst = facts.harm(advice, compared)
    sign = facts.decided(compared.difference.low, compared.difference.high)
    if sign and middle < 0:
        return Text("better: the whole range lies on the good side", "改善（範囲全体が良い側にあります）")
    if sign:
        return Text("worse: the whole range lies on the bad side", "悪化（範囲全体が悪い側にあります）")
    worse = "低下" if advice.metric.maximise else "上昇"
    return say(
        "no difference visible; a {way} of more than {size} is unlikely",
        "差は認められません。{size}を超える{way_ja}は考えにくいです",
        way="loss" if advice.metric.maximise else "rise",
        way_ja=worse,
        size=formats.metric_size(worst, advice.metric),
    )


def _failure_row(advice: Advice) -> Row | None:
    failed = advice.failures
    if failed is None:
        return None
    some = failed.today or failed.recommended
    return Row(
        Text("trainings that failed", "学習が失敗した回数"),
        _of(failed.today, failed.today_runs),
        _of(failed.recommended, failed.recommended_runs),
        EMPTY,
        Text("failed = broke off, or never reached the goal", "失敗＝途中で発散、または目標に未到達")
        if some
        else EMPTY,
    )


def _of(part: int, whole: int) -> Text:
    return say("{k} of {n}", "{n}回中{k}回", k=part, n=whole)


# ------------------------------------------------------------------ the table after screening


def _screening_rows(advice: Advice) -> tuple[Row, ...]:
    rows = (_speed_row(advice), _largest_row(advice), _noise_row(advice))
    return tuple(row for row in rows if row is not None)


def speeds(advice: Advice) -> tuple[MemoryPoint, ...]:
    """The batch sizes whose speed was measured.

    Args:
        advice: The record.
    """
    points = advice.memory.points if advice.memory else ()
    return tuple(p for p in points if p.samples_per_second is not None)


def _speed_row(advice: Advice) -> Row | None:
    points = speeds(advice)
    now = next((p for p in points if p.batch_size == advice.today.micro_batch_size), None)
    if now is None or now.samples_per_second is None:
        return None
    best = max(points, key=lambda p: p.samples_per_second.value if p.samples_per_second else 0)
    if best.samples_per_second is None:
        return None
    gain = best.samples_per_second.value / now.samples_per_second.value
    return Row(
        Text("examples processed per second", "1秒間に処理できるデータ数"),
        same(formats.count(now.samples_per_second.value)),
        say(
            "{v} (batch size {b})",
            "{v}（バッチサイズ{b}）",
            v=formats.count(best.samples_per_second.value),
            b=formats.count(best.batch_size),
        ),
        say("{r}×", "{r}倍", r=formats.ratio(gain)),
        Text(
            "the most a larger batch could gain here; part of it may be lost, since larger batches "
            "can need more data",
            "バッチを大きくして得られる上限です。大きいほど必要なデータが増え、一部は相殺されます",
        ),
    )


def _largest_row(advice: Advice) -> Row | None:
    if advice.memory is None or not advice.memory.largest:
        return None
    return Row(
        Text("batch size", "バッチサイズ"),
        same(names.value("batch_size", advice.today.batch_size)),
        say("{b} ran", "{b}まで動作", b=formats.count(advice.memory.largest)),
        EMPTY,
        bound(advice),
    )


def bound(advice: Advice) -> Text:
    """What the largest batch size was limited by.

    Args:
        advice: The record.
    """
    words = {
        "memory": Text("the next larger one did not fit in memory", "これより大きいとメモリ不足"),
        "data set": Text("the whole training set", "学習データ全件"),
        "max_val": Text("the largest one tried", "試した中の最大"),
        "crash": Text("the next larger one crashed", "これより大きいと異常終了"),
        "time": Text("the time allowed ran out there", "制限時間内に試せた最大"),
        "nothing fits": Text("not even one example fits", "1件でもメモリ不足"),
    }
    by = advice.memory.bound_by if advice.memory else ""
    return words.get(by, same(verbatim(by)))


def _noise_row(advice: Advice) -> Row | None:
    resolved = [p.scale for p in advice.noise if p.scale is not None]
    if not resolved:
        return None
    last = resolved[-1]
    return Row(
        Text("noise scale (batch size beyond which extra examples add little)",
             "ノイズスケール（これ以上バッチを増やしても効果が薄くなる目安）"),
        EMPTY,
        say("{v} ({s})", "{v}（{s}）", v=formats.number(last.value), s=count_range(last)),
        EMPTY,
        Text("candidates are chosen around it", "候補はこの値の前後から選びます"),
    )


def count_range(estimate: Estimate) -> Text:
    """The range of a number of examples.

    Example:
        >>> count_range(Estimate(120.0, 80.0, 210.0, n=8)).en
        '80–210'
    """
    if math.isnan(estimate.low):
        return Text("no range yet", "範囲は未定")
    high = "∞" if math.isinf(estimate.high) else formats.number(estimate.high)
    return formats.span(formats.number(max(estimate.low, 0.0)), high)


# ------------------------------------------------------------------ below the table


def next_step(advice: Advice) -> Text:
    """The next stage, its price, and when to stop.

    Args:
        advice: The record.
    """
    following = advice.next_stage
    if following is None:
        return _no_next_step(advice)
    cost = formats.priced(following.seconds, following.cost, advice.price)
    what = {
        "A": _STAGE_A,
        "B": _STAGE_B,
        "C": _STAGE_C,
        "own-task": _OWN_TASK,
        "more-repeats": _MORE_REPEATS,
    }[following.stage]
    sentence = say(what.en, what.ja, cost=cost, n=following.repeats, w=formats.ratio(advice.worth))
    return say("{s} `{c}`", "{s} `{c}`", s=sentence, c=verbatim(following.command))


_STAGE_A = Text(
    "Stage 1, a first look at speed, memory and noise: {cost}. Nothing has to be decided before it.",
    "段階1：速さ・メモリ・ノイズの下調べ。{cost}。その前に決めることはありません。",
)
_STAGE_B = Text(
    "Stage 2, each candidate trains for a short stretch: {cost}, on this computer. Go on if the gain "
    "looks like at least {w}×; otherwise stop and keep today's settings; the measurement is all it cost.",
    "段階2：各候補を短く学習させて比べる。この計算機で{cost}。{w}倍以上の効果が見込めれば次の段階へ"
    "進み、見込めなければそこで中止し、今の設定を続けます（かかるのは測定費用だけです）。",
)
_STAGE_C = Text(
    "Stage 3, full trainings from fresh random starts, today's settings against the best candidate: "
    "{cost}, on this computer. Change only if a gain of at least {w}× is confirmed; otherwise keep "
    "today's settings; the measurement is all it cost.",
    "段階3：今の設定と最も良い候補を、新しい乱数で最後まで学習させて比べる。この計算機で{cost}。"
    "{w}倍以上の効果が確認できたら変更し、できなければ今の設定を続けます（かかるのは測定費用だけです）。",
)
_OWN_TASK = Text(
    "Stage 1 on a part of your own data: {cost}, on this computer. Go on if the gain looks like at "
    "least {w}×; otherwise stop and keep today's settings; the measurement is all it cost.",
    "段階1：自社データの一部で試す。この計算機で{cost}。{w}倍以上の短縮が見込めれば次の段階へ進み、"
    "見込めなければそこで中止し、今の設定を続けます（かかるのは測定費用だけです）。",
)
_MORE_REPEATS = Text(
    "{n} more repeats: {cost}, on this computer. Change if they confirm a gain of at least {w}×; "
    "otherwise keep today's settings; the measurement is all it cost.",
    "あと{n}回繰り返して測る。この計算機で{cost}。{w}倍以上の効果が確認できたら変更し、できなければ"
    "今の設定を続けます（かかるのは測定費用だけです）。",
)


def _no_next_step(advice: Advice) -> Text:
    if facts.case(advice) is not Case.CHANGE:
        return Text(
            "Nothing to do. Measure again when the model, the data or the computer changes.",
            "対応は不要です。モデル・データ・計算機が変わったときに、改めて測定してください。",
        )
    compared = facts.metric_comparison(advice)
    use = Text("Use the new settings in the next training.", "次の学習から新しい設定をお使いください。")
    if compared is None or math.isnan(compared.recommended.low):
        return use
    end = compared.recommended.low if advice.metric.maximise else compared.recommended.high
    stop = say(
        "If its {m} ends {side} {v}, go back to today's settings.",
        "学習終了時の{m}が{v}を{side_ja}場合は、今の設定に戻してください。",
        m=names.metric(advice.metric),
        v=formats.metric_value(end, advice.metric),
        side="below" if advice.metric.maximise else "above",
        side_ja="下回った" if advice.metric.maximise else "上回った",
    )
    return join((use, stop))


def not_tested(advice: Advice) -> Text:
    """What was not tested, and the mistake to avoid.

    Args:
        advice: The record.
    """
    known = [names.UNTESTED[c] for c in advice.not_tested if c in names.UNTESTED]
    listed = join(known, ", ", "、")
    return join((say("{l}.", "{l}。", l=listed) if known else EMPTY, alone(advice)))


def alone(advice: Advice) -> Text:
    """What happens when the batch size is changed and the learning rate is not.

    Args:
        advice: The record.
    """
    both = {"batch_size", "learning_rate"} <= {c.name for c in advice.changes}
    if advice.batch_only is None or not both:
        return EMPTY
    found = advice.batch_only.value
    warning = Text("**Do not change the batch size alone:**", "**バッチサイズだけを変えないでください：**")
    if not found > 0:
        what = Text("with the old learning rate it did not reach the goal.", "学習率を元のままにすると目標に達しませんでした。")
    elif found < 1:
        what = say(
            "with the old learning rate it was only {r}× as fast as today.",
            "学習率を元のままにすると、現在の{r}倍の速さに落ちました。",
            r=formats.ratio(found),
        )
    else:
        what = say(
            "with the old learning rate it was only {r}× faster.",
            "学習率を元のままにすると{r}倍にとどまりました。",
            r=formats.ratio(found),
        )
    return join((warning, what))


def engineer(advice: Advice) -> tuple[Text, ...]:
    """The line for the engineer, part by part.

    Args:
        advice: The record.
    """
    parts = (
        same("`" + settings_line(advice) + "`"),
        _identity(advice),
        _working_rates(advice),
        _useful_range(advice),
        _largest(advice),
        Text("[patch for your script](#apply)", "[変更点（パッチ）](#apply)"),
        Text("[evidence](#evidence)", "[根拠](#evidence)"),
    )
    return tuple(part for part in parts if part.en)


def settings_line(advice: Advice) -> str:
    """The settings to use, as one would type them.

    Args:
        advice: The record.
    """
    one = advice.recommended
    batch = one.batch_size if isinstance(one.batch_size, int) else f'"{one.batch_size}"'
    listed = [f"batch_size={batch}", f"lr={formats.rate(one.learning_rate)}"]
    if one.rule not in ("sgd", "rmsprop"):
        listed.append(f"momentum={formats.rate(one.momentum)}")
    known = {"batch_size", "learning_rate", "momentum", "micro_batch_size", "accum_steps"}
    listed += [
        f"{c.name}={verbatim(str(c.recommended))}" for c in advice.changes if c.name not in known
    ]
    return ", ".join(listed)


def _identity(advice: Advice) -> Text:
    one = advice.recommended
    if one.accum_steps * one.world_size == 1:
        return EMPTY
    return say(
        "batch size {b} = micro-batch {m} × accumulation {a} × processes {w}",
        "バッチサイズ{b}＝マイクロバッチ{m}×勾配累積{a}×プロセス{w}",
        b=names.value("batch_size", one.batch_size),
        m=one.micro_batch_size,
        a=one.accum_steps,
        w=one.world_size,
    )


def _working_rates(advice: Advice) -> Text:
    row = facts.candidate(advice, advice.recommended)
    if row is None or row.rate_low is None or row.rate_high is None:
        return EMPTY
    return say(
        "learning rates that work at {b}: {s}",
        "バッチサイズ{b}で使える学習率 {s}",
        b=names.value("batch_size", advice.recommended.batch_size),
        s=formats.span(formats.rate(row.rate_low), formats.rate(row.rate_high)),
    )


def _useful_range(advice: Advice) -> Text:
    if advice.useful_low is None or advice.useful_high is None:
        return EMPTY
    return say(
        "useful batch range {s} (below: time wasted, above: data wasted)",
        "有効なバッチサイズの範囲 {s}（小さすぎると時間が、大きすぎるとデータが無駄になる）",
        s=formats.span(formats.count(advice.useful_low), formats.count(advice.useful_high)),
    )


def _largest(advice: Advice) -> Text:
    if advice.memory is None:
        return EMPTY
    if not advice.memory.largest:
        return Text("no batch size fitted in memory", "メモリに収まるバッチサイズなし")
    return say(
        "largest that ran: {b}, {why}",
        "実際に動いた最大 {b}（{why}）",
        b=formats.count(advice.memory.largest),
        why=bound(advice),
    )


# ------------------------------------------------------------------ the meeting


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
    if advice.builtin:
        return Text("On the test job", "試験用の学習では、")
    return say("On {t}", "{t}の学習では、", t=verbatim(advice.task))


def _meeting_change(advice: Advice) -> Text:
    compared = facts.gain(advice)
    job = _job(advice)
    if not facts.confirmed(advice):
        return say(
            "{job} a short trial suggests that {effect}. I propose to spend {cost} on confirming it "
            "before we decide.",
            "{job}短い試行から、設定変更で{effect}。判断の前に、{cost}かけて確認したいと思います。",
            job=job,
            effect=_meeting_effect(advice, "との見込みが得られました"),
            cost=_in_brackets(advice) if advice.next_stage else Text("some time", "時間を"),
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
        "{job} {effect}{wins}. {proposal}",
        "{job}設定を{n}か所変えるだけで、{effect}{wins}。{proposal}",
        job=job,
        n=len(advice.changes),
        effect=_meeting_effect(advice, "し" if wins.en else "しました"),
        wins=wins,
        proposal=_proposal(advice),
    )


def _meeting_effect(advice: Advice, end: str) -> Text:
    """The effect once more, in the headline's words; ``end`` closes the Japanese clause."""
    compared, metric = facts.gain(advice), names.metric(advice.metric)
    outlook = end.startswith("と")
    if compared is None:
        told = _effect_on_metric(advice, metric, follows=False)
        ja = told.ja.removesuffix("ました")
        return Text(told.en, told.ja.replace("りました", "る") + end if outlook else ja + ("" if end == "し" else "ました"))
    if math.isinf(compared.difference.value):
        return say(
            "training reaches {g}, which today's settings did not",
            "今の設定では届かなかった{g}に到達{e}",
            g=goal(advice),
            e="する" + end if outlook else end,
        )
    part = formats.fraction(1 / compared.difference.value, _NOUNS[compared.quantity])
    templates = {
        "time": ("the new settings reach the same {m} in {f}", "同じ{m}に{f}の時間で到達{e}"),
        "cost": ("the new settings reach the same {m} for {f}", "同じ{m}に{f}の費用で到達{e}"),
        "samples": ("the new settings reach the same {m} with {f}", "同じ{m}に{f}のデータで到達{e}"),
    }
    en, ja = templates[compared.quantity]
    return say(en, ja, m=metric, f=part, e="する" + end if outlook else end)


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
            "{job}{comma} nothing we tried looked better than today's settings. I propose to keep them.",
            "{job}試した中に今の設定より良さそうなものはありませんでした。このまま続けたいと思います。",
            job=_job(advice),
            comma=Text(",", ""),
        )
    return say(
        "{job}, the best alternative is at most {r}× {better}, too little to be worth a change. "
        "I propose to keep today's settings.",
        "{job}最も良い候補でも{adj}は最大{r}倍にとどまり、変更するほどの効果はありません。"
        "今の設定を続けたいと思います。",
        job=_job(advice),
        r=formats.ratio(compared.difference.high),
        better=_better(compared.quantity)[1],
        adj=_better(compared.quantity)[2],
    )


def _meeting_open(advice: Advice) -> Text:
    following = advice.next_stage
    if following is None:
        return say(
            "{job}, what we measured does not show whether a change would pay. I propose to keep "
            "today's settings for now.",
            "{job}変更の効果があるかどうか、まだ判断できません。当面は今の設定を続けたいと思います。",
            job=_job(advice),
        )
    return say(
        "{job}, we cannot say yet whether other settings are better. I propose to keep today's "
        "settings and to spend {cost} on measuring{goal}.",
        "{job}ほかの設定の方が良いかどうか、まだ判断できません。当面は今の設定を続け、"
        "{cost}かけて{goal}測定したいと思います。",
        job=_job(advice),
        cost=_in_brackets(advice),
        goal=Text(" our own data", "自社データで") if following.stage == "own-task" else Text(" further", "さらに"),
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def is_projected(advice: Advice) -> bool:
    """Whether the numbers are projections from a short trial.

    Args:
        advice: The record.
    """
    return advice.evidence is Evidence.PROJECTED
