"""On how many internal features the decisions rest, in words, and the sheets of single units."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup, escape

from batchlab._text import EMPTY, Text, same, say, verbatim
from batchlab.advisor.record import Advice, FeatureSide, FeatureUse
from batchlab.measure.features import SHARE
from batchlab.measure.insight import CURVED_EXAMPLES
from batchlab.measure.units import Unit
from batchlab.report import facts, formats, names
from batchlab.types import Estimate

WHY_NOT = {
    "no hidden layer": Text(
        "the model has no internal layer whose features could be counted",
        "特徴を数えられる内部の層がモデルにない",
    ),
    "too large": Text(
        "the trained models are too large to be kept until then",
        "学習済みモデルが大きく、測定まで保存しておけない",
    ),
    "diverged": Text(
        "every training of one of the settings broke off", "一方の設定の学習がすべて発散した"
    ),
    "failed": Text("the model cannot be taken apart", "モデルを分解して調べることができない"),
    "budget": Text("the budget does not pay for it", "予算の時間に収まらない"),
}
KEPT = f"{100 * SHARE:g}"
WIDTH, HEIGHT = 180, 44
"""Of the picture of a signal."""


@dataclass(frozen=True)
class Card:
    """One unit on the page.

    Attributes:
        title: Its number, and what it is worth.
        pictures: Addresses of pictures, each with what it shows.
        drawing: A signal as SVG, or nothing.
        lines: What else is said of it.
    """

    title: Text
    pictures: tuple[tuple[str, Text], ...] = ()
    drawing: str = ""
    lines: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """The units of one setting.

    Attributes:
        title: Whose they are.
        cards: One a unit.
    """

    title: Text
    cards: tuple[Card, ...]


def other_settings(advice: Advice) -> Text:
    """What the settings set against today's are called.

    Args:
        advice: The record.
    """
    if facts.case(advice) is facts.Case.CHANGE:
        return Text("the recommended settings", "提案の設定")
    return Text("the best alternative", "最も良い候補")


def of_all(needed: Estimate, units: int) -> Text:
    """So many of all units, whole numbers.

    Example:
        >>> of_all(Estimate(9.4, 8.0, 11.0, n=8), 64)
        Text(en='9 of 64', ja='64個中9個')
    """
    return say("{k} of {n}", "{n}個中{k}個", k=f"{needed.value:.0f}", n=units)


def trend(found: FeatureUse) -> int:
    """The sign of the difference that its range leaves no doubt about: −1 fewer, 1 more, else 0.

    Args:
        found: The record.
    """
    gap = found.difference
    return 0 if gap is None else facts.decided(gap.low, gap.high)


def title(advice: Advice) -> Text:
    """How many features carry the metric in both settings, or that it was not measured.

    Args:
        advice: The record.
    """
    found = advice.features
    assert found is not None
    if found.today is None or found.recommended is None:
        why = WHY_NOT.get(found.why_not, same(verbatim(found.why_not)))
        return say(
            "On how many internal features the decision rests was not measured: {w}.",
            "判断の根拠になっている特徴の数は測定していません（{w}）。",
            w=why,
        )
    sides = [_count(side.needed, found.units) for side in (found.today, found.recommended)]
    return say(
        "{k} % of what the internal features add to {m} is carried by {a} with today's settings "
        "and by {b} with {o}{e}.",
        "{m}への内部の特徴の貢献の{k}%を担うのは、現在の設定では{a}、{o}では{b}です{e}。",
        k=KEPT,
        m=names.metric(advice.metric),
        a=sides[0],
        b=sides[1],
        o=other_settings(advice),
        e=EMPTY if trend(found) else Text(": no clear difference", "（はっきりした差はない）"),
    )


def _count(needed: Estimate | None, units: int) -> Text:
    return Text("no number of them", "該当なし") if needed is None else of_all(needed, units)


def notes(advice: Advice) -> tuple[Text, ...]:
    """What is counted and how, what chance needs, and that fewer is not better.

    Args:
        advice: The record.
    """
    found = advice.features
    assert found is not None
    if found.today is None or found.recommended is None:
        told = (_price(advice, found),)
    else:
        told = (
            _numbers(advice, found, found.today, found.recommended),
            _not_better(),
            _meaning(advice, found),
            _share_of_units(advice, found.today, found.recommended),
            _sharpness(advice, found.today, found.recommended),
            _pictures(found),
        )
    return tuple(text for text in told if text.en)


def _price(advice: Advice, found: FeatureUse) -> Text:
    if found.seconds is None:
        return EMPTY
    rate = None if advice.price is None else advice.price.per_hour / 3600 * found.seconds
    return say(
        "It would take {c}. Add `--resume` and a larger `--budget`.",
        "測定には{c}かかります。`--resume`とより長い`--budget`を指定すると測定できます。",
        c=formats.priced(found.seconds, rate, advice.price),
    )


def span(estimate: Estimate | None, digits: int = 0) -> Text:
    """A mean with its range, whole numbers.

    Example:
        >>> span(Estimate(9.4, 8.1, 10.6, n=8)).en, span(None).en
        ('9 (8 to 11)', '–')
    """
    if estimate is None:
        return same("–")
    value, low, high = (f"{x:.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    if math.isnan(estimate.low):
        return same(value)
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _numbers(advice: Advice, found: FeatureUse, today: FeatureSide, other: FeatureSide) -> Text:
    """The numbers with their ranges, beside what features taken at random need."""
    gap = found.difference
    difference = EMPTY
    if gap is not None:
        difference = say(
            " Pair by pair, the difference is {d}: {f} of {n} pairs need fewer, {m} need more.",
            "同じ乱数どうしの差は{d}個です（{n}組中、減ったのが{f}組、増えたのが{m}組）。",
            d=signed(gap),
            f=found.fewer,
            m=found.more,
            n=found.pairs,
        )
    return say(
        "Features needed, mean over {n} trainings each: {a} with today's settings, {b} with {o}, "
        "of {u}. Taken at random, it would need {c} and {d}.{e}",
        "必要な特徴の数（各{n}回の学習の平均）：{u}個のうち、現在の設定で{a}個、{o}で{b}個。無作為に選ぶ"
        "と、それぞれ{c}個、{d}個が必要です。{e}",
        n=len_of(today, other),
        a=span(today.needed),
        b=span(other.needed),
        c=span(today.needed_random),
        d=span(other.needed_random),
        o=other_settings(advice),
        u=found.units,
        e=difference,
    )


def len_of(*sides: FeatureSide) -> int:
    """Trainings behind both settings.

    Args:
        sides: The settings.
    """
    return min((side.needed.n for side in sides if side.needed is not None), default=0)


def signed(gap: Estimate) -> Text:
    """A difference of counts with its range.

    Example:
        >>> signed(Estimate(-5.0, -7.2, -2.8, n=8)).en
        '−5.0 (−7.2 to −2.8)'
    """
    values = (gap.value, gap.low, gap.high)
    shown = [f"{abs(v):.1f}" if abs(v) < 0.05 else f"{v:+.1f}" for v in values]
    v, a, b = (text.replace("-", formats.MINUS) for text in shown)
    if math.isnan(gap.low):
        return same(v)
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=v, a=a, b=b)


def _not_better() -> Text:
    return Text(
        "**Fewer is not better.** It is fewer to look at before the model is trusted.",
        "**少ないほど良いという意味ではありません。**モデルを信頼する前に目で確認する数が減るというだけ"
        "です。",
    )


def _meaning(advice: Advice, found: FeatureUse) -> Text:
    """How it is measured."""
    how = Text(
        "by how much the loss rises when it alone is set to its mean",
        "その特徴だけを平均値に固定したときに損失がどれだけ増えるか",
    )
    if found.order == "gradient":
        how = Text(
            "by how much the loss would rise, to first order, if it alone were set to its mean",
            "その特徴だけを平均値に固定したときの損失の増加の1次近似",
        )
    return say(
        "An internal feature is one of the {u} units of `{l}`, the layer that feeds the output. "
        "Its importance is measured on {t} training examples: {h}. Then, on {v} "
        "validation examples, the most important ones stay as they are and all others are held at "
        "their mean. From {m} with all of them held there to that of the whole model, {k} % of "
        "the way counts as kept. The curve at random is the mean over {r} random orders.",
        "内部の特徴とは、出力の直前の層`{l}`にある{u}個のユニットのことです。重要さは学習データ{t}件で"
        "調べます（{h}）。次に検証データ{v}件で、重要なものから順に残し、ほかはすべて平均値に固定します。"
        "すべて固定したときの{m}を出発点とし、元のモデルまでの{k}%に達したら「保たれた」とします。"
        "「無作為」の線は{r}通りの並びの平均です。",
        u=found.units,
        l=verbatim(found.layer),
        h=how,
        t=formats.count(found.order_examples),
        v=formats.count(found.examples),
        m=names.metric(advice.metric),
        k=KEPT,
        r=found.draws,
    )


def _share_of_units(advice: Advice, today: FeatureSide, other: FeatureSide) -> Text:
    """How many units, and weights, take part."""
    if today.active is None or other.active is None:
        return EMPTY
    weights = EMPTY
    if today.weights is not None and other.weights is not None:
        weights = say(
            "; of all weights, {a} and {b}",
            "、重み全体ではそれぞれ{a}、{b}",
            a=share(today.weights),
            b=share(other.weights),
        )
    return say(
        "On one example, {a} of these units take part with today's settings and {b} with {o}{w} "
        "(participation ratio: 100 % if all were equally strong).",
        "1件のデータに対して働いているユニットの割合は、現在の設定で{a}、{o}で{b}{w}です（参加率：すべて"
        "同じ強さなら100%）。",
        a=share(today.active),
        b=share(other.active),
        o=other_settings(advice),
        w=weights,
    )


def share(estimate: Estimate) -> Text:
    """A share in percent, with its range if there is one.

    Example:
        >>> share(Estimate(0.25, 0.2, 0.3, n=8)).ja
        '25%（20～30%）'
    """
    v, a, b = (
        formats.number(100 * x) if math.isfinite(x) else "–"
        for x in (estimate.value, estimate.low, estimate.high)
    )
    if math.isnan(estimate.low):
        return say("{v} %", "{v}%", v=v)
    return say("{v} % ({a} to {b})", "{v}%（{a}～{b}%）", v=v, a=a, b=b)


def _sharpness(advice: Advice, today: FeatureSide, other: FeatureSide) -> Text:
    if today.sharpness is None or other.sharpness is None:
        return EMPTY
    return say(
        "Sharpness of the loss around the trained model (largest eigenvalue of its Hessian on "
        "{k} training examples): {a} with today's settings, {b} with {o}. It changes when weights "
        "are rescaled although the model stays the same, so a smaller number is not better by "
        "itself.",
        "学習後の損失の鋭さ（学習データ{k}件でのヘッセ行列の最大固有値）：現在の設定で{a}、{o}で{b}。"
        "モデルが同じでも重みの尺度が変わると変わる値なので、小さいほど良いとは限りません。",
        k=min(CURVED_EXAMPLES, advice.train_examples),
        a=ranged(today.sharpness),
        b=ranged(other.sharpness),
        o=other_settings(advice),
    )


def ranged(estimate: Estimate) -> Text:
    """A number with its range.

    Args:
        estimate: Any.

    Example:
        >>> ranged(Estimate(0.25, 0.2, 0.3, n=8)).en
        '0.25 (0.2 to 0.3)'
    """
    v, a, b = (
        formats.number(x) if math.isfinite(x) else "–"
        for x in (estimate.value, estimate.low, estimate.high)
    )
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=v, a=a, b=b)


def _pictures(found: FeatureUse) -> Text:
    """What the sheets show."""
    looks = {
        "image": Text(
            "Each card: the three validation pictures that excite the unit most, and what in "
            "them moves it (orange raises, blue lowers it; the mean gradient). **The page holds "
            "these pictures: mind whom you send it to.**",
            "各カード：そのユニットが最も強く反応する検証画像3枚と、画像のどこが効いているか（橙は反応を強め、"
            "青は弱める。勾配の平均）。**このページには検証画像が含まれます。共有先にご注意ください。**",
        ),
        "signal": Text(
            "Each card: the validation signal that excites the unit most; shaded is the tenth of "
            "it that the unit reads most (gradient × deviation from the mean). **The page holds "
            "these signals: mind whom you send it to.**",
            "各カード：そのユニットが最も強く反応する検証信号。網かけは、最も効いている区間（全体の10分の1。"
            "勾配×平均からの差）です。**このページには検証データの信号が含まれます。共有先にご注意くだ"
            "さい。**",
        ),
        "table": Text(
            "Each card: the columns that the unit follows most, with its mean change for one "
            "standard deviation more of the column.",
            "各カード：そのユニットが最も強く反応する列と、列の値が標準偏差1つ分増えたときの反応の変化"
            "（平均）。",
        ),
        "none": Text(
            "Each card: the validation examples that excite the unit most, by number.",
            "各カード：そのユニットが最も強く反応する検証データの番号。",
        ),
    }
    return looks.get(found.kind, EMPTY)


def sheets(advice: Advice) -> tuple[Sheet, ...]:
    """The units of both settings, the most important first.

    Args:
        advice: The record.
    """
    found = advice.features
    if found is None or found.today is None or found.recommended is None:
        return ()
    other = other_settings(advice)
    titles = (
        Text("Today's settings, first training", "現在の設定（1回目の学習）"),
        say(
            "{o}, first training",
            "{o}（1回目の学習）",
            o=Text(other.en[0].upper() + other.en[1:], other.ja),
        ),
    )
    return tuple(
        Sheet(title, tuple(card(unit) for unit in side.sheet))
        for title, side in zip(titles, (found.today, found.recommended), strict=True)
        if side.sheet
    )


def card(unit: Unit) -> Card:
    """One unit.

    Args:
        unit: The record.
    """
    seen = say(
        "most excited by examples {e}",
        "最も反応したデータ：{e}",
        e=", ".join(f"#{i}" for i in unit.examples),
    )
    title = say(
        "Unit {u}: without it, loss {s}",
        "ユニット{u}：固定すると損失{s}",
        u=unit.unit,
        s=_loss(unit.importance),
    )
    if unit.pictures:
        shown = [
            (address, say("validation example {i}", "検証データ{i}", i=i))
            for address, i in zip(unit.pictures, unit.examples, strict=False)
        ]
        heat = (unit.saliency, Text("what moves this unit", "効いている場所"))
        return Card(title, (*shown, *([heat] if unit.saliency else [])), lines=(seen,))
    if unit.signal:
        return Card(title, drawing=sparkline(unit), lines=(_segment(unit), seen))
    rows = tuple(
        say("{c}: {w}", "{c}：{w}", c=verbatim(c.name), w=_change(c.weight)) for c in unit.columns
    )
    return Card(title, lines=(*rows, seen))


def _loss(value: float) -> str:
    return f"{value:+.2g}".replace("-", formats.MINUS)


def _change(value: float) -> str:
    return f"{value:+.2g}".replace("-", formats.MINUS)


def _segment(unit: Unit) -> Text:
    first, last = unit.segment
    return say("steps {a} to {b} of {n}", "{n}点中{a}～{b}点目", a=first + 1, b=last, n=unit.steps)


def sparkline(unit: Unit) -> str:
    """A signal with the segment that the unit reads most, as SVG.

    Args:
        unit: The record.
    """
    low, high = min(unit.signal), max(unit.signal)
    scale = (HEIGHT - 6) / ((high - low) or 1.0)
    step = WIDTH / max(1, len(unit.signal) - 1)
    points = " ".join(
        f"{i * step:.1f},{HEIGHT - 3 - (v - low) * scale:.1f}" for i, v in enumerate(unit.signal)
    )
    begin, end = (WIDTH * at / unit.steps for at in unit.segment)
    return str(
        Markup(
            '<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" aria-hidden="true">'
            '<rect x="{b:.1f}" y="0" width="{l:.1f}" height="{h}" fill="#fdd9b5"/>'
            '<polyline points="{p}" fill="none" stroke="#0072b2" stroke-width="1.2"/></svg>'
        ).format(w=WIDTH, h=HEIGHT, b=begin, l=max(2.0, end - begin), p=escape(points))
    )
