"""Whether it pays to let the batch grow, in words."""

from __future__ import annotations

from batchlab._text import Text, join, same, say, verbatim
from batchlab.accumulation import identity
from batchlab.advisor.record import Growing, MetricInfo
from batchlab.report import findings, formats, names
from batchlab.types import Estimate

QUANTITIES = {
    "time": Text("the time", "時間"),
    "cost": Text("the cost", "費用"),
    "samples": Text("the examples", "データ量"),
}
RULES = {
    "fixed ×2": Text("doubled at equal shares of the training", "学習を等分して2倍ずつ"),
    "fixed ×4": Text("quadrupled at equal shares", "等分して4倍ずつ"),
    "noise scale": Text(
        "doubled when the noise scale, the median of three measurements, passes the next size",
        "ノイズスケール（3回の中央値）が次のサイズを超えた時点で2倍",
    ),
    "gradient norm": Text(
        "doubled by the gradient-norm test (noise scale over θ² = 0.81)",
        "勾配ノルム検定（ノイズスケール÷θ²、θ²＝0.81）で2倍",
    ),
    "plateau": Text(
        "doubled when the validation loss has not fallen for a tenth of the training",
        "検証損失が学習全体の1割のあいだ下がらないとき2倍",
    ),
}
POWERS = {
    0.0: Text("kept", "据え置き"),
    0.5: Text("raised by the root of the batch", "バッチの平方根に比例"),
    1.0: Text("raised with the batch", "バッチに比例"),
}
WHY_NOT = {
    "off": Text(
        "Batches that grow were not tried: that was switched off.",
        "途中で増やすバッチは試していません（指定により対象外）。",
    ),
    "no room": Text(
        "Batches that grow were not tried: the smallest useful batch cannot be doubled within a "
        "quarter of the training data.",
        "途中で増やすバッチは試していません。役に立つ最小のバッチを2倍にすると、学習データの4分の1を"
        "超えます。",
    ),
    "too short": Text(
        "Batches that grow were not tried: a training has too few updates for steps in it.",
        "途中で増やすバッチは試していません。学習の更新回数が少なすぎます。",
    ),
    "failed": Text(
        "Batches that grow were tried in short trainings; none learnt as today's settings do.",
        "途中で増やすバッチを短い学習で試しましたが、現在の設定ほど学習が進んだものはありませんでした。",
    ),
    "unconfirmed": Text(
        "Batches that grow were tried in a pilot only: the budget did not pay for whole trainings "
        "beside the others.",
        "途中で増やすバッチは予備の学習で試しただけです（予算内では本番の長さで比べられませんでした）。",
    ),
}


def sentence(found: Growing, metric: MetricInfo) -> Text:
    """Whether growing pays, or why that is not known.

    Args:
        found: What is known of it.
        metric: Of the task.
    """
    if found.why_not == "budget":
        return say(
            "Batches that grow were not tried: the budget did not pay for it (from about {t}).",
            "途中で増やすバッチは試していません（予算不足：必要な時間は約{t}から）。",
            t=formats.duration(found.seconds or 0.0),
        )
    if found.why_not or found.setting is None or found.difference is None or found.rival is None:
        return WHY_NOT.get(found.why_not, WHY_NOT["failed"])
    en = "Growing the batch pays here" if found.pays else "Growing the batch does not pay here"
    ja = (
        "バッチを途中で増やす効果があります"
        if found.pays
        else "バッチを途中で増やしても得にはなりません"
    )
    seeds_en, seeds_ja = (
        ("on {n} fresh seeds", "選択に使っていない新しいシード{n}個での比較")
        if found.fresh
        else (
            "on the {n} seeds that chose both, so it may flatter either: the budget did not pay "
            "for fresh ones",
            "両者の選択に使ったシード{n}個での比較のため、どちらかに有利な可能性があります。"
            "新しいシードでの比較は予算内では行えませんでした",
        )
    )
    return say(
        f"{en}: with {{s}} {{r}} {{c}} under your own learning-rate schedule ({seeds_en}).",
        f"{ja}：{{s}}では、今の学習率スケジュールの{{c}}に比べて{{r}}（{seeds_ja}）。",
        s=names.setting(found.setting),
        c=names.setting(found.rival),
        r=compared(found.difference, found.quantity, metric),
        n=found.difference.n,
    )


def compared(gap: Estimate, quantity: str, metric: MetricInfo) -> Text:
    """What a setting takes of what its rival takes.

    Args:
        gap: The ratio, for ``validation`` the difference.
        quantity: ``time``, ``cost``, ``samples`` or ``validation``.
        metric: Of the task.
    """
    if quantity == "validation":
        return say(
            "{m} differs by {d} from", "{m}の差は{d}", m=names.metric(metric),
            d=findings.difference(gap, metric),
        )  # fmt: skip
    return say(
        "it takes {v}× ({r}) {q} of",
        "{q}が{v}倍（{r}）",
        v=formats.ratio(gap.value),
        r=formats.ratio_range(gap),
        q=QUANTITIES[quantity],
    )


def notes(found: Growing) -> tuple[Text, ...]:
    """How it was tried: the rules, that they became fixed plans, and how the largest batch comes
    about.

    Args:
        found: What is known of it.
    """
    if not found.tried:
        return ()
    rules = join([RULES.get(rule, same(verbatim(rule))) for rule in found.rules], "; ", "、")
    told = say(
        "{n} settings were tried on tuning seeds of their own: {r}; the learning rate kept, by "
        "the root and linear, under your own schedule and constant. A rule that reacts was read "
        "off one run of today's settings and is a fixed plan since then, so that a training can "
        "be resumed and repeated.",
        "専用のシードで{n}通りを試しました：{r}。学習率は据え置き・平方根・比例の3通りを、今の"
        "スケジュールと一定の学習率の両方で試しています。状況に応じて増やす規則は、現在の設定の"
        "学習1回から読み取って固定の計画にしました（中断後の再開や再現のため）。",
        n=found.tried,
        r=rules,
    )
    if found.lemma is not None:
        told = join((told, _lemma(found.lemma)))
    if found.setting is None:
        return (told,)
    one = found.setting
    size = one.micro_batch_size * one.accum_steps * one.world_size
    largest = say(
        "Its largest batch: {i}.",
        "最大のバッチ：{b}＝マイクロバッチ{m}×勾配累積{a}×プロセス{w}。",
        i=identity(size, one.micro_batch_size, one.world_size),
        b=size,
        m=one.micro_batch_size,
        a=one.accum_steps,
        w=one.world_size,
    )
    return (told, largest)


def _lemma(power: float) -> Text:
    """What the bound prefers; all of it was trained anyway."""
    how = POWERS.get(power, same(f"B^{power:g}"))
    return say(
        "By the proved bound of the gradient (kamo2025, with L and σ² measured here) the learning "
        "rate is best {h} for the best schedule: a guarantee, not a prediction.",
        "証明された勾配の上界（kamo2025、Lとσ²は実測）によれば、最も良い計画での学習率は{h}が最善です"
        "（保証の比較であり、予測ではありません）。",
        h=how,
    )
