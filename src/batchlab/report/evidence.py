"""What stands below the first screen: each section's title is its conclusion."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from batchlab._text import EMPTY, Text, join, say, verbatim
from batchlab.advisor.record import Advice
from batchlab.report import (
    echoing,
    facts,
    features,
    formats,
    growing,
    names,
    said,
    searching,
    strengthening,
    sturdiness,
    wording,
)
from batchlab.report.facts import Case
from batchlab.types import Estimate, Status

LOADER_LIMIT = 0.3
"""Share of an update spent waiting for data from which the loader is called the limit."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: Its place in the page.
        title: Its conclusion, a sentence.
        paragraphs: What stands under it.
        charts: Ids of its pictures.
        rows: Rows of its table, with the columns of the first one.
        sheets: Units of trained models.
    """

    id: str
    title: Text
    paragraphs: tuple[Text, ...] = ()
    charts: tuple[str, ...] = ()
    rows: tuple[wording.Row, ...] = ()
    sheets: tuple[features.Sheet, ...] = ()


def sections(advice: Advice, drawn: set[str]) -> tuple[Section, ...]:
    """The sections with pictures, in the order of the argument.

    Args:
        advice: The record.
        drawn: Ids of the pictures there are numbers for.
    """
    wanted = (
        Section("memory-and-speed", speed_title(advice), speed_notes(advice), ("speed", "memory")),
        Section("noise-scale", noise_title(advice), noise_notes(advice), ("noise",)),
        Section("learning-rate", plane_title(advice), plane_notes(advice), ("plane",)),
        Section("learning-curves", curves_title(advice), curves_notes(advice), ("curves",)),
        Section("trade-off", pareto_title(advice), pareto_notes(advice), ("pareto",)),
    )
    if advice.part is not None:
        wanted = (_on_all(advice), *wanted)
    kept = []
    for section in wanted:
        charts = tuple(chart for chart in section.charts if chart in drawn)
        in_words = section.id == "all-data" or (section.id == "noise-scale" and advice.noise)
        if charts or in_words:
            kept.append(replace(section, charts=charts))
    if advice.reusing is not None:
        told = echoing.sentence(advice.reusing, advice.metric), echoing.notes(advice.reusing)
        kept.append(Section("reusing", *told, ()))
    if advice.searched is not None:
        kept.append(Section("search", searching.title(advice), searching.notes(advice), ()))
    if advice.strengthening is not None:
        told = strengthening.title(advice.strengthening, advice.metric)
        kept.append(Section("strength", told, strengthening.notes(advice), ()))
    if advice.growing is not None:
        told = growing.sentence(advice.growing, advice.metric), growing.notes(advice.growing)
        kept.append(Section("growing", *told, ()))
    if advice.robustness is not None:
        charts = ("robustness",) if "robustness" in drawn else ()
        told = sturdiness.title(advice), sturdiness.notes(advice)
        kept.append(Section("robustness", *told, charts))
    if advice.features is not None:
        charts = ("features",) if "features" in drawn else ()
        told = features.title(advice), features.notes(advice)
        kept.append(Section("features", *told, charts, sheets=features.sheets(advice)))
    return tuple(kept)


def _on_all(advice: Advice) -> Section:
    """What all data say of the order that was found on a part of them."""
    title, notes = wording.part.title(advice), wording.part.notes(advice)
    return Section("all-data", title, notes, ("all-data",), wording.on_all(advice))


def _kept(*texts: Text) -> tuple[Text, ...]:
    return tuple(text for text in texts if text.en)


def speed_title(advice: Advice) -> Text:
    """Where the computer reaches its speed, and where its memory ends.

    Args:
        advice: The record.
    """
    found = advice.memory
    if found is None or not found.largest:
        return Text(
            "No batch size fitted in memory.", "メモリに収まるバッチサイズはありませんでした。"
        )
    if found.knee is None:
        speed = EMPTY
    elif found.knee >= found.largest:
        speed = say(
            "The larger the batch, the faster this computer works, up to the largest that ran.",
            "この計算機では、動いた最大のサイズまで、バッチが大きいほど速く処理できます。",
        )
    else:
        speed = say(
            "From batch size {k} on, this computer works at nearly full speed.",
            "この計算機は、バッチサイズ{k}からほぼ最高の速さで処理できます。",
            k=formats.count(found.knee),
        )
    largest = say(
        "The largest that ran is {b}: {why}.",
        "実際に動いた最大は{b}です（{why}）。",
        b=formats.count(found.largest),
        why=names.bound(advice),
    )
    return join((speed, largest))


def speed_notes(advice: Advice) -> tuple[Text, ...]:
    """What nearly full speed means, whether loading is the limit, where the limit comes from.

    Args:
        advice: The record.
    """
    found = advice.memory
    if found is None:
        return ()
    knee = Text(
        "Nearly full speed: at least 1/1.2 of the most examples per second measured. Faster "
        "processing "
        "is not yet faster training: larger batches may need more data.",
        "「ほぼ最高の速さ」とは、測定した最高速の1/1.2以上のことです。処理が速くても、必要なデータ"
        "が増えれば"
        "学習が早く終わるとは限りません。",
    )
    return _kept(knee if found.knee else EMPTY, _loader(found.loader_share), _limit(advice))


def _loader(share: float | None) -> Text:
    if share is None or not math.isfinite(share):
        return EMPTY
    percent = formats.number(100 * share)
    if share >= LOADER_LIMIT:
        return say(
            "**Loading the data is a bottleneck:** an update waits {p} % of its time for data. "
            "Faster "
            "loading would help more than another batch size.",
            "**データの読み込みが足かせになっています：**更新にかかる時間の{p}%がデータ待ちです。"
            "バッチサイズを変えるより、読み込みを速くする方が効果的です。",
            p=percent,
        )
    return say(
        "Loading the data is not the bottleneck: an update waits {p} % of its time for data.",
        "データの読み込みは足かせになっていません（更新にかかる時間の{p}%がデータ待ち）。",
        p=percent,
    )


def _limit(advice: Advice) -> Text:
    found = advice.memory
    if found is None or not found.limit_bytes:
        return EMPTY
    return say(
        "Memory limit {l}, of which {m} is kept free (from: {s}).",
        "メモリの上限は{l}、うち{m}を余裕として残しています（出典：{s}）。",
        l=formats.size(found.limit_bytes),
        m=formats.size(found.margin_bytes),
        s=said.both(found.limit_source),
    )


def noise_title(advice: Advice) -> Text:
    """How the noise scale runs along training.

    Args:
        advice: The record.
    """
    known = [p.scale for p in advice.noise if p.scale is not None]
    if not known:
        return Text(
            "The noise scale could not be measured: the signal was too weak.",
            "ノイズスケールは測定できませんでした（信号が弱すぎました）。",
        )
    first, last = known[0], known[-1]
    if len(known) == 1 or _overlap(first, last):
        return say(
            "The noise scale, the batch size beyond which extra examples add little, is around "
            "{b} "
            "({s}).",
            "ノイズスケール（これ以上バッチを増やしても効果が薄くなる目安）は約{b}件です（{s}）。",
            b=formats.number(last.value),
            s=formats.count_range(last),
        )
    return say(
        "The noise scale, the batch size beyond which extra examples add little, {way} from about "
        "{a} to "
        "{b} ({s}) during training.",
        "ノイズスケール（これ以上バッチを増やしても効果が薄くなる目安）は、学習が進むにつれて約"
        "{a}件から"
        "約{b}件（{s}）へ{way_ja}ます。",
        way="grows" if last.value > first.value else "falls",
        way_ja="増え" if last.value > first.value else "減り",
        a=formats.number(first.value),
        b=formats.number(last.value),
        s=formats.count_range(last),
    )


def _overlap(a: Estimate, b: Estimate) -> bool:
    ends = (a.low, a.high, b.low, b.high)
    return any(math.isnan(end) for end in ends) or not (a.high < b.low or b.high < a.low)


def noise_notes(advice: Advice) -> tuple[Text, ...]:
    """What the noise scale is, what follows from it, and how far to trust it.

    Args:
        advice: The record.
    """
    meaning = Text(
        "Noise scale: the batch size at which chance differences between examples and the common "
        "direction of learning are equally strong (tr Σ/|G|²). Well below it, doubling the batch "
        "nearly "
        "halves the updates needed; well above it, most of the extra data are wasted.",
        "ノイズスケールとは、データごとのばらつきと、学習の共通の方向とが同じ強さになるバッチサイ"
        "ズのことです"
        "（tr Σ/|G|²）。これよりずっと小さければ、バッチを2倍にすると必要な更新回数がほぼ半分にな"
        "り、"
        "ずっと大きければ、増やした分のデータはほとんど無駄になります。",
    )
    return _kept(meaning, _useful(advice), _orders_only(advice))


def _useful(advice: Advice) -> Text:
    if advice.useful_low is None or advice.useful_high is None:
        return EMPTY
    if advice.useful_low > advice.useful_high:
        return say(
            "No batch size here wastes neither: below {a} the computer idles (under 1/1.2 of its "
            "best speed); above {b} the same progress takes over 1.2 times the least data.",
            "時間もデータも無駄にしないバッチサイズはありません。{a}未満では計算機の速さを生かせず"
            "（最高速の1/1.2未満）、{b}を超えると同じ進みに最少の1.2倍を超えるデータが必要になります。",
            a=formats.count(advice.useful_low),
            b=formats.count(advice.useful_high),
        )
    return say(
        "Useful batch sizes here: {a} to {b}. Below, the computer idles (under 1/1.2 of its best "
        "speed); "
        "above, the same progress takes over 1.2 times the least data.",
        "この学習で有効なバッチサイズは{a}～{b}です。これより小さいと計算機の速さを生かせず（最高"
        "速の1/1.2未満）、"
        "大きいと同じ進みに最少の1.2倍を超えるデータが必要になります。",
        a=formats.count(advice.useful_low),
        b=formats.count(advice.useful_high),
    )


def _orders_only(advice: Advice) -> Text:
    if not advice.noise_orders_only:
        return EMPTY
    return say(
        "With the optimiser {r} the noise scale was used only to order the candidates: its theory "
        "holds "
        "for the SGD family.",
        "最適化手法{r}では、ノイズスケールは候補の順番を決めるためだけに使いました（理論がSGD系の"
        "手法に"
        "ついてのものであるため）。",
        r=verbatim(advice.today.rule),
    )


def plane_title(advice: Advice) -> Text:
    """Which learning rates work, beside what the popular rules would have said.

    Args:
        advice: The record.
    """
    row = facts.candidate(advice, facts.alternative(advice) or advice.today)
    if row is None or row.rate_low is None or row.rate_high is None:
        return Text(
            "Each batch size needs its own learning rate.",
            "学習率はバッチサイズごとに選び直す必要があります。",
        )
    return say(
        "At batch size {b}, learning rates from {a} to {c} work; {d} is used.",
        "バッチサイズ{b}では学習率{a}～{c}が使え、{d}を採用しています。",
        b=names.value("batch_size", row.setting.batch_size),
        a=formats.rate(row.rate_low),
        c=formats.rate(row.rate_high),
        d=formats.rate(row.setting.learning_rate),
    )


def plane_notes(advice: Advice) -> tuple[Text, ...]:
    """What works means, what the scaling rules say, what failed, whether the order is stable.

    Args:
        advice: The record.
    """
    meaning = Text(
        "Works: the metric ends within one standard deviation between repeats of the best at that "
        "batch "
        "size.",
        "「使える」とは、成績が同じバッチサイズでの最良値から、繰り返しの標準偏差1つ分以内であるこ"
        "とです。",
    )
    return _kept(_rules(advice), _failed(advice), _order(advice), meaning)


def _rules(advice: Advice) -> Text:
    row = facts.candidate(advice, facts.alternative(advice))
    if row is None or row.rate_linear is None or row.rate_sqrt is None:
        return EMPTY
    if row.rate_linear == row.rate_sqrt:
        return say(
            "Popular rules scale the learning rate with the batch size only: at today's size they "
            "would leave it at {l}.",
            "よく使われる換算則は、バッチサイズが変わるときだけ学習率を変えます。現在のバッチサイズ"
            "なら{l}のままです。",
            l=formats.rate(row.rate_linear),
        )
    return say(
        "Popular rules, starting at today's learning rate, would set {l} (linear: as the batch "
        "size) or "
        "{q} (square root of it).",
        "よく使われる換算則を現在の学習率に当てはめると、比例則では{l}、平方根則では{q}になりま"
        "す。",
        l=formats.rate(row.rate_linear),
        q=formats.rate(row.rate_sqrt),
    )


def _failed(advice: Advice) -> Text:
    failed = [p for p in advice.plane if p.status is not Status.OK]
    if not failed:
        return EMPTY
    return say(
        "{k} of {n} trials failed (diverged, or did not learn); they are kept in the picture.",
        "{n}通りの試行のうち{k}通りは失敗しました（発散、または学習が進まなかった）。図にも残して"
        "います。",
        k=len(failed),
        n=len(advice.plane),
    )


def _order(advice: Advice) -> Text:
    if advice.order_changed is None:
        return EMPTY
    if advice.order_changed:
        return Text(
            "**Repeated from half-way through the training, the trial ordered the candidates "
            "differently:** trust the order less.",
            "**学習の中間地点から試行をやり直すと、候補の順位が変わりました：**順位は参考程度にし"
            "てください。",
        )
    return Text(
        "Repeated from half-way through the training, the trial gave the same order.",
        "学習の中間地点から試行をやり直しても、候補の順位は同じでした。",
    )


def curves_title(advice: Advice) -> Text:
    """How long each side took to the goal.

    Args:
        advice: The record.
    """
    compared = facts.comparison(advice, "time")
    if compared is None or facts.alternative(advice) is None:
        return Text(
            "How the settings learned, along training.", "学習が進む様子を設定ごとに示します。"
        )
    which = facts.case(advice)
    other = Text("the recommended settings", "提案の設定")
    if which is not Case.CHANGE or not facts.confirmed(advice):
        other = Text("the best alternative", "最も良い候補")
    return say(
        "To {g}: today's settings {a}, {other} {b}.",
        "{g}に達するまで、現在の設定では{a}、{other}では{b}です。",
        g=wording.goal(advice),
        a=_took(compared.today.value),
        b=_took(compared.recommended.value),
        other=other,
    )


def _took(seconds: float) -> Text:
    if math.isfinite(seconds):
        return formats.duration(seconds)
    return Text("never (within the training length)", "未到達（学習の長さの範囲で）")


def curves_notes(advice: Advice) -> tuple[Text, ...]:
    """Where the goal comes from, and when training stops paying.

    Args:
        advice: The record.
    """
    return _kept(target_source(advice), _plateau(advice))


def target_source(advice: Advice) -> Text:
    """Where the goal comes from.

    Args:
        advice: The record.
    """
    target = advice.target
    if target is None:
        return EMPTY
    if target.chosen_by == "user":
        return say(
            "The goal, {g}, was given by you.",
            "目標の{g}は、ご指定の値です。",
            g=wording.goal(advice),
        )
    return say(
        "The goal, {g}, is what four in five trainings with today's settings reach at the end "
        "(from {n} "
        "trainings). It counts as reached at the last of the first three evaluations in a row "
        "that "
        "meet it on average.",
        "目標の{g}は、現在の設定での学習5回のうち4回が最後に到達する値です（{n}回の学習から算"
        "出）。"
        "連続3回の評価の平均が初めて目標を満たしたとき、その3回目を到達時点とします。",
        g=wording.goal(advice),
        n=target.runs,
    )


def _plateau(advice: Advice) -> Text:
    found = advice.epochs_to_plateau
    if found is None or not math.isfinite(found.value):
        return EMPTY
    return say(
        "Validation stops improving after about {e} epochs (passes over the data; range {s}).",
        "検証データでの改善は、およそ{e}エポック（データ{e}周、範囲{s}）で止まります。",
        e=formats.number(found.value),
        s=formats.count_range(found),
    )


def pareto_title(advice: Advice) -> Text:
    """Whether anything beats the advised setting in both time and metric.

    Args:
        advice: The record.
    """
    row = facts.candidate(advice, advice.recommended)
    metric = names.metric(advice.metric)
    if row is not None and row.pareto:
        mine = Text("today's settings", "現在の設定")
        if advice.recommended.id != advice.today.id:
            mine = Text("the recommended settings", "提案の設定")
        return say(
            "Nothing we tried is better than {mine} in both time and {m}.",
            "時間と{m}の両方で{mine}を上回るものはありませんでした。",
            mine=mine,
            m=metric,
        )
    best = sum(c.pareto for c in advice.candidates)
    return say(
        "{k} of {n} settings {are} not beaten in both time and {m}.",
        "{n}通りのうち{k}通りは、時間と{m}の両方で上回られることのない設定です。",
        k=best,
        are=Text("is" if best == 1 else "are", ""),
        n=len(advice.candidates),
        m=metric,
    )


def pareto_notes(advice: Advice) -> tuple[Text, ...]:
    """Which numbers are projections, and why another setting that looks better is not advised.

    Args:
        advice: The record.
    """
    projected = sum(c.evidence.value == "projected" for c in advice.candidates)
    told = say(
        "{k} of these are projected from a short trial, not confirmed by full trainings.",
        "このうち{k}通りは短い試行からの予測で、最後まで学習させた確認はしていません。",
        k=projected,
    )
    row = facts.candidate(advice, advice.recommended)
    changed = facts.case(advice) is Case.CHANGE and facts.confirmed(advice)
    beaten = changed and row is not None and not row.pareto
    fixed = Text(
        "The choice was made before the new repeats, by what was known then, and is not exchanged "
        "for a setting that looks better afterwards: that one has not been proved on repeats of "
        "its own. `batchlab advise` with its batch size (`--batch-sizes`) would.",
        "設定は新しい繰り返しの前に、その時点の測定で選び、後から良く見える設定には取り替えません。"
        "そちらは新しい繰り返しで確かめていないためです。そのバッチサイズを`--batch-sizes`に指定して"
        "`batchlab advise`を実行すると確かめられます。",
    )
    return _kept(told if projected else EMPTY, fixed if beaten else EMPTY)
