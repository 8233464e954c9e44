"""What ``--robustness`` found, in words: a section whose title is its conclusion."""

from __future__ import annotations

import math
from collections.abc import Iterable

from batchlab._text import EMPTY, Text, join, same, say, verbatim
from batchlab.advisor.record import Advice, MetricInfo, Robustness, RobustRow
from batchlab.report import facts, formats, names

KINDS = {
    "input noise": Text("noise on the inputs", "入力のノイズ"),
    "brightness": Text("brightness", "明るさの変化"),
    "shift": Text("shifted pictures", "画像のずれ"),
    "sensor drift": Text("sensor drift", "センサーのドリフト"),
    "weight noise": Text("noise on the weights", "重みのノイズ"),
    "wrong labels": Text("wrong labels in training", "学習データの誤ラベル"),
    "less data": Text("less training data", "学習データの削減"),
    "noise": Text("noise on inputs and weights", "入力と重みのノイズ"),
    "repeats": Text("how far trainings agree", "学習結果のそろい方"),
}
UNITS = {
    "sd": Text("{s} sd", "標準偏差の{s}倍"),
    "pixels": Text("{s} px", "{s}画素"),
    "rms": Text("{p} %", "{p}%"),
    "share": Text("{p} %", "{p}%"),
}
WHY_NOT = {
    "no numbers": Text("the inputs are no numbers", "入力が数値ではない"),
    "no pictures": Text("the inputs are no pictures", "入力が画像ではない"),
    "no time": Text("the inputs have no time axis", "入力に時間軸がない"),
    "no targets": Text("there is no one target an example", "1件ごとの正解が1つに定まらない"),
    "less than a batch": Text("a part would be less than one batch", "1バッチ分に満たない"),
}


def disturbance(kind: str, size: float, unit: str) -> Text:
    """A disturbance with its size.

    Args:
        kind: As in the record.
        size: How much.
        unit: As in the record.

    Example:
        >>> disturbance("wrong labels", 0.05, "share").en
        'wrong labels in training, 5 %'
    """
    written = {"s": formats.number(size), "p": formats.number(100 * size)}
    how = say(*UNITS[unit], **written) if unit in UNITS else same(verbatim(f"{size:g} {unit}"))
    return say("{k}, {h}", "{k}（{h}）", k=_kind(kind), h=how)


def _kind(kind: str) -> Text:
    return KINDS.get(kind, same(verbatim(kind)))


def noisy_inputs(found: Robustness) -> RobustRow | None:
    """The row that the first screen shows: the strongest noise on the inputs.

    Args:
        found: The record.
    """
    rows = [row for row in found.rows if row.kind == "input noise"]
    return max(rows, key=lambda row: row.size, default=None)


def title(advice: Advice) -> Text:
    """In how many tests the other settings do clearly better or worse than today's.

    Args:
        advice: The record.
    """
    found = advice.robustness
    assert found is not None
    if not found.rows:
        return Text(
            "Robustness was not measured: the budget does not pay for it.",
            "頑健性は、予算の時間に収まらないため測定していません。",
        )
    better, worse = counts(found.rows, advice.metric)
    other = Text("the recommended settings", "提案の設定")
    if facts.case(advice) is not facts.Case.CHANGE:
        other = Text("the best alternative", "最も良い候補")
    if not better and not worse:
        return say(
            "In none of {n} tests with noise or worse data does {m} with {o} differ clearly from "
            "today's.",
            "ノイズや悪いデータを加えた{n}通りの試験で、{o}の{m}に現在の設定とのはっきりした差は"
            "ありません。",
            n=len(found.rows),
            m=names.metric(advice.metric),
            o=other,
        )
    return say(
        "Of {n} tests with noise or worse data, {o} is clearly better than today's settings in "
        "{a} and clearly worse in {b} ({m}).",
        "ノイズや悪いデータを加えた{n}通りの試験のうち、{o}の{m}は{a}通りで現在の設定よりはっきり"
        "良く、{b}通りではっきり悪くなりました。",
        n=len(found.rows),
        m=names.metric(advice.metric),
        o=_named_one(other),
        a=better or Text("none", "0"),
        b=worse or Text("none", "0"),
    )


def _named_one(other: Text) -> Text:
    """As the subject of a sentence in the singular."""
    if other.en == "the recommended settings":
        return Text("the recommended choice", other.ja)
    return other


def counts(rows: Iterable[RobustRow], metric: MetricInfo) -> tuple[int, int]:
    """Rows whose whole range lies on the better, and on the worse side of today's.

    Args:
        rows: Of the record.
        metric: With its direction.
    """
    signs = [facts.decided(row.difference.low, row.difference.high) for row in rows]
    good = 1 if metric.maximise else -1
    return signs.count(good), signs.count(-good)


def notes(advice: Advice) -> tuple[Text, ...]:
    """How far trainings agree, what the sizes mean, what was left out and what was not paid for.

    Args:
        advice: The record.
    """
    found = advice.robustness
    assert found is not None
    told = (_repeats(found), *meaning(found), _unpaid(advice, found))
    return tuple(text for text in told if text.en)


def _repeats(found: Robustness) -> Text:
    row = found.repeats
    if row is None:
        return EMPTY
    how = Text("the predicted class differs", "予測したクラスが異なる場合を数えています")
    if not found.classes:
        how = Text(
            "the predictions differ by more than half a standard deviation of the targets",
            "予測値の差が正解の標準偏差の半分を超える場合を数えています",
        )
    return say(
        "Two trainings that differ in their random start only disagree on {a} of the validation "
        "examples with today's settings and on {b} with the others ({h}; mean over all pairs of "
        "{n} trainings; the range counts trainings, not pairs).",
        "乱数だけが違う2回の学習の判断が食い違う検証データの割合は、現在の設定で{a}、もう一方で{b}"
        "です（{h}。{n}回の学習のすべての組の平均で、範囲は組ではなく学習の回数から計算）。",
        a=share(row.today.value, row.today.low, row.today.high),
        b=share(row.recommended.value, row.recommended.low, row.recommended.high),
        h=how,
        n=row.today.n,
    )


def share(value: float, low: float = math.nan, high: float = math.nan) -> Text:
    """A share in percent, with its range if there is one.

    Example:
        >>> share(0.021, 0.01, 0.03).en, share(0.5).ja
        ('2.1 % (1.0 to 3.0)', '50.0%')
    """
    v, a, b = (f"{100 * x:.1f}" for x in (value, low, high))
    if math.isnan(low):
        return say("{v} %", "{v}%", v=v)
    return say("{v} % ({a} to {b})", "{v}%（{a}～{b}%）", v=v, a=a, b=b)


def meaning(found: Robustness) -> tuple[Text, ...]:
    """What the sizes mean, how it was trained, what chance does, and what does not apply.

    Args:
        found: The record.
    """
    if not found.rows:
        return ()
    noise = Text(
        "Validation data throughout; one sd is the standard deviation of each input feature, and "
        "noise on the weights is in percent of each weight tensor's root mean square. Both "
        "settings meet the same noise; the mean over several draws or directions is shown. Drift "
        "grows from 0 to its size along time, or along the features where there is no time. Noise "
        "meets the end of each training; elsewhere the metric is the mean of the last three "
        "evaluations.",
        "すべて検証データでの値です。標準偏差は入力の特徴ごとのもの、重みのノイズは重みの各テンソル"
        "の二乗平均平方根に対する割合です。両方の設定に同じノイズを加え、数回（または各方向）の平均を"
        "示します。ドリフトは時間とともに（時間の軸がなければ特徴の順に）0から所定の大きさまで増えます。"
        "ノイズは学習を終えたモデルに加えます。それ以外の箇所の評価指標は最後の3回の平均です。",
    )
    chance = say(
        "Each 90 % range stands for itself: of {n} tests without any difference, about {k} would "
        "show one by chance.",
        "90%の範囲は一つずつのものです。まったく差がなくても、{n}通りのうち約{k}通りでは偶然に差が"
        "見えます。",
        n=len(found.rows),
        k=formats.number(0.1 * len(found.rows)),
    )
    trained = [row for row in found.rows if row.kind in ("wrong labels", "less data")]
    training = EMPTY
    if trained:
        training = say(
            "Wrong labels and less data: {n} trainings of each setting on the changed data, with "
            "the same random starts as on the data as they are; judged on clean validation data; "
            "the recipe and the "
            "number of examples trained on stay the same, so a tenth of the data is seen ten "
            "times as often.",
            "誤ラベルとデータの削減：変えたデータで各設定を{n}回（元のデータと同じ乱数で）学習し、元の"
            "検証データで評価しました。学習手順と学習に使う延べデータ数は同じため、10分の1のデータは"
            "10倍の回数使われます。",
            n=trained[0].today.n,
        )
    return tuple(text for text in (noise, training, chance, _left_out(found)) if text.en)


def _left_out(found: Robustness) -> Text:
    if not found.left_out:
        return EMPTY
    listed = [
        say("{k} ({w})", "{k}（{w}）", k=_kind(kind), w=WHY_NOT.get(why, same(verbatim(why))))
        for kind, why in found.left_out.items()
    ]
    return say("Does not apply here: {l}.", "対象外：{l}。", l=join(listed, ", ", "、"))


def _unpaid(advice: Advice, found: Robustness) -> Text:
    """What was not run, with its price."""
    if not found.unpaid:
        return EMPTY
    price = advice.price
    rate = None if price is None else price.per_hour / 3600
    listed = [
        say(
            "{k} ({c})",
            "{k}（{c}）",
            k=_of_id(name),
            c=formats.priced(seconds, None if rate is None else rate * seconds, price),
        )
        for name, seconds in found.unpaid.items()
    ]
    return say(
        "**Not run, as the budget does not pay for it:** {l}. Add `--resume` and a larger "
        "`--budget`.",
        "**予算の時間に収まらず、行っていないもの：**{l}。`--resume`とより長い`--budget`を指定すると"
        "続けられます。",
        l=join(listed, ", ", "、"),
    )


def _of_id(name: str) -> Text:
    kind, _, size = name.rpartition(" ")
    return disturbance(kind, float(size), "share") if kind in KINDS else _kind(name)
