"""Whether it pays to use each fetched batch for several updates, in words: the section of an
advice.
"""

from __future__ import annotations

import math

from batchlab._text import Text, say
from batchlab.advisor.record import MetricInfo, Reusing
from batchlab.measure.reuse import most_saved
from batchlab.report import formats, names
from batchlab.report.growing import compared

MOST = 4
"""Updates on each batch of which an advice says what they could save at most."""
WHY_NOT = {
    "too short": Text(
        "Using each batch several times was not tried: a training has too few updates for a "
        "pilot.",
        "同じバッチの繰り返し利用は試していません。学習の更新回数が少なすぎます。",
    ),
    "failed": Text(
        "Using each batch several times was tried in short trainings; none learnt as today's "
        "settings do.",
        "同じバッチの繰り返し利用を短い学習で試しましたが、現在の設定ほど学習が進んだものは"
        "ありませんでした。",
    ),
    "unconfirmed": Text(
        "Using each batch several times was tried in a pilot only: the budget did not pay for "
        "whole trainings beside the others.",
        "同じバッチの繰り返し利用は予備の学習で試しただけです"
        "（予算内では本番の長さで比べられませんでした）。",
    ),
}


def sentence(found: Reusing, metric: MetricInfo) -> Text:
    """Whether re-use pays, or why that is not known.

    Args:
        found: What is known of it.
        metric: Of the task.
    """
    if found.why_not == "cheap":
        return say(
            "Using each batch several times was not tried: a fresh example costs {p} times "
            "computing one, so that {k} updates on each batch would save at most {m}×, even if "
            "each were worth one on a fresh batch.",
            "同じバッチの繰り返し利用は試していません：新しいデータ1件の費用は計算1件分の{p}倍で、"
            "バッチ1個につき{k}回の更新がどれも新しいバッチでの更新と同じ効果だとしても、"
            "節約は最大{m}倍です。",
            p=formats.ratio(found.price),
            k=MOST,
            m=formats.ratio(most_saved(found.price, MOST)),
        )
    if found.why_not == "budget":
        return say(
            "Using each batch several times was not tried: the budget did not pay for it (from "
            "about {t}).",
            "同じバッチの繰り返し利用は試していません（予算不足：必要な時間は約{t}から）。",
            t=formats.duration(found.seconds or 0.0),
        )
    if found.why_not or found.setting is None or found.difference is None or found.rival is None:
        return WHY_NOT.get(found.why_not, WHY_NOT["failed"])
    en = "Using each batch several times pays here" if found.pays else _NO.en
    ja = "同じバッチを繰り返し使う効果があります" if found.pays else _NO.ja
    return say(
        f"{en}: with {{s}} {{r}} {{c}} (on the {{n}} seeds that chose both, so it may flatter "
        "either).",
        f"{ja}：{{s}}では、{{c}}に比べて{{r}}"
        "（両者の選択に使ったシード{n}個での比較のため、どちらかに有利な可能性があります）。",
        s=names.setting(found.setting),
        c=names.setting(found.rival),
        r=compared(found.difference, found.quantity, metric),
        n=found.difference.n,
    )


_NO = Text(
    "Using each batch several times was not shown to pay here",
    "同じバッチを繰り返し使う効果は確認できませんでした",
)


def notes(found: Reusing) -> tuple[Text, ...]:
    """How it was tried, and what a fresh example costs.

    Args:
        found: What is known of it.
    """
    if not found.tried:
        return ()
    tried = say(
        "{n} settings were tried on tuning seeds of their own: 2 or 4 updates on each batch, each "
        "with three learning rates. A re-used batch is read once and computed as often as it is "
        "used; both times are measured.",
        "専用のシードで{n}通りを試しました：バッチ1個につき2回または4回の更新、学習率は3通りずつ。"
        "再利用するバッチの読み込みは1回、計算は使う回数分とし、どちらの時間も実測です。",
        n=found.tried,
    )
    if math.isinf(found.price):
        return (tried,)
    price = say(
        "The price of a fresh example in units of computing one: {p}.",
        "新しいデータ1件の費用は、計算1件分の{p}倍です。",
        p=formats.ratio(found.price),
    )
    return tried, price
