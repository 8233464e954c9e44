"""The lines below the table: the next step, what was not tested, and the line for the engineer."""

from __future__ import annotations

import math

from batchlab._text import EMPTY, Text, join, same, say, verbatim
from batchlab.advisor.record import Advice, Reason
from batchlab.report import facts, formats, names
from batchlab.report.facts import Case
from batchlab.report.wording import part
from batchlab.rules import RULES


def next_step(advice: Advice) -> Text:
    """The next stage, its price, and when to stop.

    Args:
        advice: The record.
    """
    following = advice.next_stage
    if following is None:
        return _no_next_step(advice)
    cost = formats.priced(following.seconds, following.cost, advice.price)
    on_all = _ALL_DATA if facts.case(advice) is Case.CHANGE else _ALL_DATA_TO_KEEP
    what = {
        "A": _STAGE_A,
        "B": _STAGE_B,
        "C": _STAGE_C,
        "own-task": _OWN_TASK,
        "more-repeats": _MORE_TRAININGS if advice.watched else _MORE_REPEATS,
        "all-data": on_all,
    }[following.stage]
    sentence = say(what.en, what.ja, cost=cost, n=following.repeats, w=formats.ratio(advice.worth))
    return say("{s} `{c}`", "{s} `{c}`", s=sentence, c=verbatim(following.command))


_STAGE_A = Text(
    "Stage 1, a first look at speed, memory and noise: {cost}. Nothing has to be decided before "
    "it.",
    "段階1：速さ・メモリ・ノイズの下調べ。{cost}。その前に決めることはありません。",
)
_STAGE_B = Text(
    "Stage 2, each candidate trains for a short stretch: {cost}, on this computer. Go on if the "
    "gain "
    "looks like at least {w}×; otherwise stop and keep today's settings; the measurement is all "
    "it cost.",
    "段階2：各候補を短く学習させて比べる。この計算機で{cost}。{w}倍以上の効果が見込めれば次の段階"
    "へ"
    "進み、見込めなければそこで中止し、今の設定を続けます（かかるのは測定費用だけです）。",
)
_STAGE_C = Text(
    "Stage 3, full trainings from fresh random starts, today's settings against the best "
    "candidate: "
    "{cost}, on this computer. Change only if a gain of at least {w}× is confirmed; otherwise "
    "keep "
    "today's settings; the measurement is all it cost.",
    "段階3：今の設定と最も良い候補を、新しい乱数で最後まで学習させて比べる。この計算機で{cost}。"
    "{w}倍以上の効果が確認できたら変更し、できなければ今の設定を続けます（かかるのは測定費用だけで"
    "す）。",
)
_OWN_TASK = Text(
    "Stage 1 on a part of your own data: {cost}, on this computer. Go on if the gain looks like "
    "at "
    "least {w}×; otherwise stop and keep today's settings; the measurement is all it cost.",
    "段階1：自社データの一部で試す。この計算機で{cost}。{w}倍以上の短縮が見込めれば次の段階へ進"
    "み、"
    "見込めなければそこで中止し、今の設定を続けます（かかるのは測定費用だけです）。",
)
_MORE_REPEATS = Text(
    "{n} more repeats: {cost}, on this computer. Change if they confirm a gain of at least {w}×; "
    "otherwise keep today's settings; the measurement is all it cost.",
    "あと{n}回繰り返して測る。この計算機で{cost}。{w}倍以上の効果が確認できたら変更し、できなけれ"
    "ば"
    "今の設定を続けます（かかるのは測定費用だけです）。",
)


_ALL_DATA = Text(
    "One pair of trainings on all your training data: {cost}, on this computer. Change only if "
    "the new settings are better there, too; otherwise keep today's settings; the measurement is "
    "all it cost.",
    "学習データ全体で1組を学習させて比べる。この計算機で{cost}。そこでも新しい設定の方が良ければ"
    "変更し、そうでなければ今の設定を続けます（かかるのは測定費用だけです）。",
)


_ALL_DATA_TO_KEEP = Text(
    "One pair of trainings on all your training data: {cost}, on this computer. Keep today's "
    "settings unless the best alternative is at least {w}× as good there; the measurement is all "
    "it cost.",
    "学習データ全体で1組を学習させて比べる。この計算機で{cost}。最も良い候補の効果がそこで{w}倍以上"
    "でなければ、今の設定を続けます（かかるのは測定費用だけです）。",
)
_SOMETHING_ELSE = Text(
    "Watch trainings with another batch size and a learning rate of its own, over the same seeds, "
    "and compare again; `batchlab advise` finds which are worth trying.",
    "バッチサイズと、それに合わせた学習率を変えた学習を同じ乱数シードで記録し、もう一度比べてください"
    "（どの設定を試すべきかは`batchlab advise`で調べられます）。",
)
_MORE_TRAININGS = Text(
    "{n} more trainings of each setting, each pair with a seed of its own: {cost}. Change if they "
    "confirm a gain of at least {w}×; otherwise keep today's settings. Then, with the "
    "new folders added:",
    "それぞれの設定で、乱数シードを変えてあと{n}回ずつ学習させる。{cost}。{w}倍以上の効果が確認できたら"
    "変更し、できなければ今の設定を続けます。その後、新しいフォルダも加えて：",
)


def _no_next_step(advice: Advice) -> Text:
    if facts.taken_back(advice):
        return Text(
            "A part of the data is too little to decide here. If a change could still pay, "
            "measure on all of it: the same command without `--subset`, with another `--out`.",
            "データの一部だけでは判断できません。変更の見込みを確かめるには、`--subset`を外し、"
            "別の`--out`を指定して、全データで測定してください。",
        )
    if facts.case(advice) is not Case.CHANGE:
        if advice.watched and facts.case(advice) in (Case.OPEN, Case.SCREENED):
            return _SOMETHING_ELSE
        if facts.case(advice) is Case.OPEN:
            return _what_would_decide(advice)
        return Text(
            "Nothing to do. Measure again when the model, the data or the computer changes.",
            "対応は不要です。モデル・データ・計算機が変わったときに、改めて測定してください。",
        )
    compared = facts.metric_comparison(advice)
    use = Text(
        "Use the new settings in the next training.", "次の学習から新しい設定をお使いください。"
    )
    if advice.part is not None or compared is None or math.isnan(compared.recommended.low):
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


def _what_would_decide(advice: Advice) -> Text:
    """What is left to do where the evidence is not enough and more of the same is no help."""
    if facts.neither_arrived(advice):
        return _ANOTHER_GOAL
    if facts.unmet(advice):
        return _LESS_DEMANDED
    if facts.better_but_not_chosen(advice):
        return _OTHER_SEEDS
    if not facts.confirmed(advice):
        return _MORE_BUDGET
    if facts.more_failures(advice):
        return _LOWER_RATE
    return _TOO_CLOSE


_ANOTHER_GOAL = Text(
    "Set a goal that trainings reach (`--target`), or train longer, and measure again with "
    "another `--out`.",
    "学習で達する目標を`--target`で指定するか、学習を長くし、別の`--out`を指定してもう一度測定して"
    "ください。",
)
_LESS_DEMANDED = Text(
    "More repeats would not help. Keep today's settings, or ask for less (`--at-least`) and "
    "measure again.",
    "繰り返しを増やしても判断できません。今の設定を続けるか、`--at-least`の条件をゆるめてもう一度測定"
    "してください。",
)
_OTHER_SEEDS = Text(
    "Measure once more from other random starts: the same command with another `--seed` and "
    "another `--out`.",
    "別の`--seed`と別の`--out`を指定して、同じ測定をもう一度行ってください。",
)
_MORE_BUDGET = Text(
    "Go on from here: the same command with a longer `--budget` and `--resume`.",
    "`--budget`を延ばし、`--resume`を付けて同じコマンドを実行すると、続きを測定します。",
)
_LOWER_RATE = Text(
    "Nothing to do: a setting whose trainings fail is no gain. Measure again when the model, the "
    "data or the computer changes.",
    "対応は不要です。失敗する学習が多い設定には変更する価値がありません。モデル・データ・計算機が"
    "変わったときに、改めて測定してください。",
)
_TOO_CLOSE = Text(
    "Keep today's settings: the difference is so close to what is worth a change that more than "
    "64 further repeats would be needed.",
    "今の設定を続けてください。差が変更に値する境目に近く、判断にはさらに64回を超える繰り返しが必要"
    "です。",
)


def not_tested(advice: Advice) -> Text:
    """What was not tested, and the mistake to avoid.

    Args:
        advice: The record.
    """
    known = [part.untested(advice)] if advice.part is not None else []
    known += [names.UNTESTED[c] for c in advice.not_tested if c in names.UNTESTED]
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
    found, compared = advice.batch_only.value, facts.comparison(advice, "time")
    if compared is not None and found >= compared.difference.value:
        return say(
            "The batch size alone, with the old learning rate, gave about {r}×.",
            "学習率を元のままにしてバッチサイズだけを変えた場合は約{r}倍でした。",
            r=formats.ratio(found),
        )
    warning = Text(
        "**Do not change the batch size alone:**", "**バッチサイズだけを変えないでください：**"
    )
    if not found > 0:
        what = Text(
            "with the old learning rate it did not reach the goal.",
            "学習率を元のままにすると目標に達しませんでした。",
        )
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
    return join((warning, what, _rate_alone(advice)))


def _rate_alone(advice: Advice) -> Text:
    """What the learning rate does by itself, on the seeds that chose."""
    rows = {c.setting.id: c for c in advice.candidates}
    today = rows.get(advice.today.id)
    others = [
        c
        for c in advice.candidates
        if c.setting.batch_size == advice.today.batch_size
        and c.setting.id != advice.today.id
        and today is not None
        and c.evidence is today.evidence
        and c.reason is not Reason.TUNED
    ]
    if today is None or not others or today.seconds_to_target is None:
        return EMPTY
    time = others[0].seconds_to_target
    if time is None or not (0 < time.value < math.inf and today.seconds_to_target.value > 0):
        return EMPTY
    return say(
        "The learning rate alone ({r}) gave about {g}×.",
        "学習率だけを{r}に変えた場合は約{g}倍でした。",
        r=formats.rate(others[0].setting.learning_rate),
        g=formats.ratio(today.seconds_to_target.value / time.value),
    )


def engineer(advice: Advice) -> tuple[Text, ...]:
    """The line for the engineer, part by part.

    Args:
        advice: The record.
    """
    parts = (
        same("`" + settings_line(advice) + "`"),
        _identity(advice),
        _stopping(advice),
        _working_rates(advice),
        _useful_range(advice),
        _largest(advice),
        Text("[patch for your script](#apply)", "[変更点（パッチ）](#apply)")
        if advice.changes
        else Text("[as code](#apply)", "[コードでの書き方](#apply)"),
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
    if one.rule in ("adam", "adamw"):
        listed.append(f"betas=({formats.rate(one.momentum)}, {formats.rate(one.beta2)})")
    elif one.rule in RULES and one.rule not in ("sgd", "rmsprop"):
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
    largest = one.micro_batch_size * one.accum_steps * one.world_size
    return say(
        "batch size {b} = micro-batch {m} × accumulation {a} × processes {w}",
        "バッチサイズ{b}＝マイクロバッチ{m}×勾配累積{a}×プロセス{w}",
        b=names.value("batch_size", largest),
        m=one.micro_batch_size,
        a=one.accum_steps,
        w=one.world_size,
    )


def _stopping(advice: Advice) -> Text:
    """After how many epochs the goal was reached, since only stopping there saves the time."""
    rows = [facts.candidate(advice, s) for s in (advice.today, advice.recommended)]
    samples = [row.samples_to_target.value for row in rows if row and row.samples_to_target]
    decided = facts.case(advice) is Case.CHANGE and facts.confirmed(advice)
    if (
        advice.part is not None
        or not decided
        or advice.objective == "accuracy"
        or len(samples) < 2
    ):
        return EMPTY
    if not all(map(math.isfinite, samples)) or not advice.train_examples:
        return EMPTY
    today, new = (formats.number(s / advice.train_examples, 2) for s in samples)
    return say(
        "to save the time, stop once the goal is reached: after about {new} epochs (today {today}"
        ") of {all}{whole}",
        "時間を節約するには、目標に達した時点で止めること：約{new}エポック（現在は{today}）、全{all}"
        "エポック中{whole}",
        whole=_whole_length(advice),
        new=new,
        today=today,
        all=formats.number(advice.today.samples / advice.train_examples, 3),
    )


def _whole_length(advice: Advice) -> Text:
    """How much faster a training of the whole length is."""
    rows = [facts.candidate(advice, s) for s in (advice.today, advice.recommended)]
    each = [
        row.seconds_per_update.value / row.setting.batch_size
        for row in rows
        if row and row.seconds_per_update and isinstance(row.setting.batch_size, int)
    ]
    if len(each) < 2 or not each[1] > 0:
        return EMPTY
    alike = [(one.batch_size, one.gamma) for one in (advice.today, advice.recommended)]
    if alike[0] == alike[1]:
        return Text(
            "; trained to the end it takes as long as today",
            "（最後まで学習させた場合の時間は現在と同じ）",
        )
    return say(
        "; trained to the end it is {r}× as fast",
        "（最後まで学習させた場合の速さは{r}倍）",
        r=formats.ratio(each[0] / each[1]),
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
    low, high = advice.useful_low, advice.useful_high
    if low is None or high is None:
        return EMPTY
    if low > high:
        return say(
            "every batch size wastes something here: below {t} time, above {d} data",
            "どのバッチサイズでも何かが無駄になる（{t}未満では時間、{d}超ではデータ）",
            t=formats.count(low),
            d=formats.count(high),
        )
    return say(
        "useful batch range {s} (below: time wasted, above: data wasted)",
        "有効なバッチサイズの範囲 {s}（小さすぎると時間が、大きすぎるとデータが無駄になる）",
        s=formats.span(formats.count(low), formats.count(high)),
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
        why=names.bound(advice),
    )
