"""How it was measured, in the reader's words."""

from __future__ import annotations

import math

from batchlab._text import EMPTY, Text, join, say, verbatim
from batchlab.advisor.record import Advice
from batchlab.report import facts, formats, wording
from batchlab.report.facts import Case


def paragraphs(advice: Advice) -> tuple[Text, ...]:
    """How it was measured, in the reader's words.

    Args:
        advice: The record.
    """
    notes = wording.part.notes(advice)
    own = (_stages(advice), _data_use(advice), *notes, _fresh(advice), _timing())
    told = (
        *(_watched() if advice.watched else own),
        _ranges(advice),
        _chance(advice),
        _detectable(advice),
        _demands(advice),
    )
    return tuple(text for text in told if text.en)


def _stages(advice: Advice) -> Text:
    if advice.searched is not None:
        return Text(
            "Three stages, each priced before it starts. 1, screened: speed, memory and noise "
            "choose the batch sizes. 2, searched: proposals over all settings at once train side "
            "by side from the start, and few of them to the end. 3, confirmed: the best candidate "
            "and today's settings train to the end.",
            "3つの段階からなり、それぞれ始める前に時間と費用を示します。段階1（下調べ）：速さ・メモリ・"
            "ノイズからバッチサイズの範囲を決めます。段階2（探索）：全項目を同時に変えた設定を最初から"
            "並べて学習させ、見込みのあるものだけ最後まで続けます。段階3（確認）：最も良い候補と現在の"
            "設定を最後まで学習させます。",
        )
    return Text(
        "Three stages, each priced before it starts. 1, screened: speed, memory and noise choose "
        "the "
        "candidates. 2, projected: each candidate trains for a short stretch from a common "
        "starting "
        "point, at several learning rates. 3, confirmed: the best candidate and today's settings "
        "train to "
        "the end.",
        "3つの段階からなり、それぞれ始める前に時間と費用を示します。段階1（下調べ）：速さ・メモリ"
        "・ノイズから"
        "候補を選びます。段階2（短い試行）：共通の途中状態から、各候補を複数の学習率で短く学習させ"
        "ます。"
        "段階3（確認）：最も良い候補と現在の設定を最後まで学習させます。",
    )


def _watched() -> tuple[Text, ...]:
    return (
        Text(
            "These are your own trainings, watched while they ran; nothing was trained for this "
            "page. They are grouped by their settings: batch size as measured, numbers of the "
            "optimizer as read, and what was told. The settings of the first directory are "
            "today's.",
            "これらは実際に行われた学習の記録で、このページのために新たに学習させたものはありません。"
            "設定（測定したバッチサイズ、最適化手法から読み取った値、指定された値）ごとにまとめ、最初の"
            "フォルダーの設定を「現在」としています。",
        ),
        Text(
            "Times are those of each training's own clock, without evaluation and saving where "
            "the record tells them apart.",
            "時間は各学習の実測値で、記録から区別できる場合は評価や保存の時間を除いています。",
        ),
    )


def _data_use(advice: Advice) -> Text:
    return say(
        "Training data: {n} examples. Every decision reads {v} validation examples; {t}.",
        "学習データは{n}件です。判断にはすべて検証データ{v}件を使い、{t}。",
        n=formats.count(advice.train_examples),
        v=formats.count(advice.validation_examples),
        t=_test_use(advice),
    )


def _test_use(advice: Advice) -> Text:
    if not advice.test_examples:
        return Text("there are no test data", "テストデータはありません")
    if advice.stage != "C":
        return say(
            "the {k} test examples have not been looked at yet",
            "テストデータ{k}件はまだ見ていません",
            k=formats.count(advice.test_examples),
        )
    return say(
        "the {k} test examples were looked at once, at the end",
        "テストデータ{k}件は最後に一度だけ見ました",
        k=formats.count(advice.test_examples),
    )


def _fresh(advice: Advice) -> Text:
    if not facts.confirmed(advice):
        return EMPTY
    return Text(
        "The recommendation was fixed before the confirming trainings began, and these used "
        "random "
        "starts that no choice had seen; only their numbers are reported.",
        "提案する設定は確認の学習を始める前に確定し、確認には設定選びに使っていない乱数を用いまし"
        "た。"
        "報告しているのはその結果だけです。",
    )


def _timing() -> Text:
    return Text(
        "Times are updates × seconds per update, measured for one training running alone, data "
        "loading "
        "included, evaluation excluded.",
        "時間は「更新回数×1回の更新時間」で、1つの学習だけを動かして測定しました（データ読み込みを"
        "含み、"
        "評価の時間は除く）。",
    )


def _ranges(advice: Advice) -> Text:
    exact = any(c.method == "sign" for c in advice.comparisons)
    how = say(
        "paired Student t on logarithms of ratios{s}",
        "比の対数に対する対応のあるt検定の考え方{s}",
        s=Text(
            ", and an exact sign test where a training never reached the goal",
            "、目標に届かない学習がある場合は符号検定",
        )
        if exact
        else EMPTY,
    )
    return say(
        "A 90 % range would miss the true value in one case out of ten. Pairs share the random "
        "start; "
        "ranges: {h}.",
        "90%の範囲とは、真の値を外すのが10回に1回程度の範囲です。同じ乱数どうしを対にして比べてい"
        "ます"
        "（範囲の計算：{h}）。",
        h=how,
    )


def _chance(advice: Advice) -> Text:
    compared = facts.gain(advice)
    if compared is None or not compared.pairs or math.isnan(compared.chance):
        return EMPTY
    return say(
        "Chance that the {which} is the better one: {p} % (with {n} pairs it is never stated "
        "above {m} %).",
        "{which}の方が良い確率：{p}%（{n}組の比較では、{m}%を超える値は示しません）。",
        which=Text("recommendation", "提案")
        if facts.case(advice) is Case.CHANGE
        else Text("best alternative", "最も良い候補"),
        p=_percent_down(compared.chance),
        n=compared.pairs,
        m=_percent_down(1 - 0.5**compared.pairs),
    )


def _percent_down(share: float) -> str:
    """In percent, rounded down, so that it never says more than was found."""
    return f"{math.floor(1000 * share + 1e-9) / 10:g}"


def _detectable(advice: Advice) -> Text:
    if advice.smallest_detectable is None:
        return EMPTY
    if advice.objective == "accuracy":
        return say(
            "The smallest gain that these repeats could have shown is {d}.",
            "今回の繰り返し回数で見分けられる最小の差は{d}です。",
            d=formats.metric_size(advice.smallest_detectable, advice.metric),
        )
    return say(
        "The smallest gain that these repeats could have shown is {r}×; a change is advised from "
        "{w}× on.",
        "今回の繰り返し回数で見分けられる最小の差は{r}倍です。変更を勧めるのは{w}倍以上の場合で"
        "す。",
        r=formats.ratio(advice.smallest_detectable),
        w=formats.ratio(advice.worth),
    )


def _demands(advice: Advice) -> Text:
    if not advice.at_least:
        return EMPTY
    met = [
        say(
            "{d}: {m}",
            "{d}：{m}",
            d=verbatim(demand),
            m=Text("met", "満たす")
            if good
            else Text("not clearly met", "確実に満たすとは言えない"),
        )
        for demand, good in advice.at_least.items()
    ]
    return say("What you asked for: {l}.", "ご指定の条件：{l}。", l=join(met, "; ", "、"))
