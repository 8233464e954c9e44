"""What stands below the first screen: each section's title is its conclusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchlab.advisor.record import Advice, Candidate
from batchlab.report import facts, formats, names, wording
from batchlab.report.facts import Case
from batchlab.report.text import EMPTY, Text, join, same, say, verbatim
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
    """

    id: str
    title: Text
    paragraphs: tuple[Text, ...] = ()
    charts: tuple[str, ...] = ()


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
    kept = []
    for section in wanted:
        charts = tuple(chart for chart in section.charts if chart in drawn)
        if charts or (section.id == "noise-scale" and advice.noise):
            kept.append(Section(section.id, section.title, section.paragraphs, charts))
    return tuple(kept)


def _kept(*texts: Text) -> tuple[Text, ...]:
    return tuple(text for text in texts if text.en)


# ------------------------------------------------------------------ speed and memory


def speed_title(advice: Advice) -> Text:
    """Where the computer reaches its speed, and where its memory ends.

    Args:
        advice: The record.
    """
    found = advice.memory
    if found is None or not found.largest:
        return Text("No batch size fitted in memory.", "メモリに収まるバッチサイズはありませんでした。")
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
        why=wording.bound(advice),
    )
    return join((speed, largest))


def speed_notes(advice: Advice) -> tuple[Text, ...]:
    """What nearly full speed means, whether the data loader is the limit, where the limit comes from.

    Args:
        advice: The record.
    """
    found = advice.memory
    if found is None:
        return ()
    knee = Text(
        "Nearly full speed: at least 1/1.2 of the most examples per second measured. Faster processing "
        "is not yet faster training: larger batches may need more data.",
        "「ほぼ最高の速さ」とは、測定した最高速の1/1.2以上のことです。処理が速くても、必要なデータが増えれば"
        "学習が早く終わるとは限りません。",
    )
    return _kept(knee if found.knee else EMPTY, _loader(found.loader_share), _limit(advice))


def _loader(share: float | None) -> Text:
    if share is None or not math.isfinite(share):
        return EMPTY
    percent = formats.number(100 * share)
    if share >= LOADER_LIMIT:
        return say(
            "**Loading the data is a bottleneck:** an update waits {p} % of its time for data. Faster "
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
        s=verbatim(found.limit_source),
    )


# ------------------------------------------------------------------ noise scale


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
            "The noise scale, the batch size beyond which extra examples add little, is around {b} "
            "({s}).",
            "ノイズスケール（これ以上バッチを増やしても効果が薄くなる目安）は約{b}件です（{s}）。",
            b=formats.number(last.value),
            s=wording.count_range(last),
        )
    return say(
        "The noise scale, the batch size beyond which extra examples add little, {way} from about {a} to "
        "{b} ({s}) during training.",
        "ノイズスケール（これ以上バッチを増やしても効果が薄くなる目安）は、学習が進むにつれて約{a}件から"
        "約{b}件（{s}）へ{way_ja}ます。",
        way="grows" if last.value > first.value else "falls",
        way_ja="増え" if last.value > first.value else "減り",
        a=formats.number(first.value),
        b=formats.number(last.value),
        s=wording.count_range(last),
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
        "direction of learning are equally strong (tr Σ/‖G‖²). Well below it, doubling the batch nearly "
        "halves the updates needed; well above it, most of the extra data are wasted.",
        "ノイズスケールとは、データごとのばらつきと、学習の共通の方向とが同じ強さになるバッチサイズのことです"
        "（tr Σ/‖G‖²）。これよりずっと小さければ、バッチを2倍にすると必要な更新回数がほぼ半分になり、"
        "ずっと大きければ、増やした分のデータはほとんど無駄になります。",
    )
    return _kept(meaning, _useful(advice), _orders_only(advice))


def _useful(advice: Advice) -> Text:
    if advice.useful_low is None or advice.useful_high is None:
        return EMPTY
    return say(
        "Useful batch sizes here: {a} to {b}. Below, the computer idles (under 1/1.2 of its best speed); "
        "above, the same progress takes over 1.2 times the least data.",
        "この学習で有効なバッチサイズは{a}～{b}です。これより小さいと計算機の速さを生かせず（最高速の1/1.2未満）、"
        "大きいと同じ進みに最少の1.2倍を超えるデータが必要になります。",
        a=formats.count(advice.useful_low),
        b=formats.count(advice.useful_high),
    )


def _orders_only(advice: Advice) -> Text:
    if not advice.noise_orders_only:
        return EMPTY
    return say(
        "With the optimiser {r} the noise scale was used only to order the candidates: its theory holds "
        "for the SGD family.",
        "最適化手法{r}では、ノイズスケールは候補の順番を決めるためだけに使いました（理論がSGD系の手法に"
        "ついてのものであるため）。",
        r=verbatim(advice.today.rule),
    )


# ------------------------------------------------------------------ learning rate × batch size


def plane_title(advice: Advice) -> Text:
    """Which learning rates work, beside what the popular rules would have said.

    Args:
        advice: The record.
    """
    row = facts.candidate(advice, facts.alternative(advice) or advice.today)
    if row is None or row.rate_low is None or row.rate_high is None:
        return Text(
            "Each batch size needs its own learning rate.", "学習率はバッチサイズごとに選び直す必要があります。"
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
    """What works means, what the scaling rules would say, what failed, whether the order is stable.

    Args:
        advice: The record.
    """
    meaning = Text(
        "Works: the metric ends within one standard deviation between repeats of the best at that batch "
        "size.",
        "「使える」とは、成績が同じバッチサイズでの最良値から、繰り返しの標準偏差1つ分以内であることです。",
    )
    return _kept(_rules(advice), _failed(advice), _order(advice), meaning)


def _rules(advice: Advice) -> Text:
    row = facts.candidate(advice, facts.alternative(advice))
    if row is None or row.rate_linear is None or row.rate_sqrt is None:
        return EMPTY
    return say(
        "Popular rules, starting at today's learning rate, would set {l} (linear: as the batch size) or "
        "{q} (square root of it).",
        "よく使われる換算則を現在の学習率に当てはめると、比例則では{l}、平方根則では{q}になります。",
        l=formats.rate(row.rate_linear),
        q=formats.rate(row.rate_sqrt),
    )


def _failed(advice: Advice) -> Text:
    failed = [p for p in advice.plane if p.status is not Status.OK]
    if not failed:
        return EMPTY
    return say(
        "{k} of {n} trials failed (diverged, or did not learn); they are kept in the picture.",
        "{n}通りの試行のうち{k}通りは失敗しました（発散、または学習が進まなかった）。図にも残しています。",
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
            "**学習の中間地点から試行をやり直すと、候補の順位が変わりました：**順位は参考程度にしてください。",
        )
    return Text(
        "Repeated from half-way through the training, the trial gave the same order.",
        "学習の中間地点から試行をやり直しても、候補の順位は同じでした。",
    )


# ------------------------------------------------------------------ curves


def curves_title(advice: Advice) -> Text:
    """How long each side took to the goal.

    Args:
        advice: The record.
    """
    compared = facts.comparison(advice, "time")
    if compared is None or facts.alternative(advice) is None:
        return Text("How the settings learned, along training.", "学習が進む様子を設定ごとに示します。")
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
        return say("The goal, {g}, was given by you.", "目標の{g}は、ご指定の値です。", g=wording.goal(advice))
    return say(
        "The goal, {g}, is what four in five trainings with today's settings reach at the end (from {n} "
        "trainings). It counts as reached at the last of the first three evaluations in a row that "
        "meet it on average.",
        "目標の{g}は、現在の設定での学習5回のうち4回が最後に到達する値です（{n}回の学習から算出）。"
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
        s=wording.count_range(found),
    )


# ------------------------------------------------------------------ trade-off


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
        "{k} of {n} settings are not beaten in both time and {m}.",
        "{n}通りのうち{k}通りは、時間と{m}の両方で上回られることのない設定です。",
        k=best,
        n=len(advice.candidates),
        m=metric,
    )


def pareto_notes(advice: Advice) -> tuple[Text, ...]:
    """Which numbers are projections.

    Args:
        advice: The record.
    """
    projected = sum(c.evidence.value == "projected" for c in advice.candidates)
    if not projected:
        return ()
    return (
        say(
            "{k} of these are projected from a short trial, not confirmed by full trainings.",
            "このうち{k}通りは短い試行からの予測で、最後まで学習させた確認はしていません。",
            k=projected,
        ),
    )


# ------------------------------------------------------------------ the candidates


CANDIDATE_HEAD = (
    Text("setting", "設定"),
    Text("why it was tried", "試した理由"),
    Text("learning rates that work", "使える学習率"),
    Text("time per update", "1回の更新時間"),
    Text("updates to the goal", "目標までの更新回数"),
    Text("time to the goal (90 % range)", "目標までの時間（90%の範囲）"),
    Text("cost to the goal", "目標までの費用"),
    Text("at the end", "学習終了時"),
    Text("repeats (failed)", "繰り返し（失敗）"),
    Text("how far tested", "確認の程度"),
)


def candidates_title(advice: Advice) -> Text:
    """How many settings there were.

    Args:
        advice: The record.
    """
    number = len(advice.candidates)
    if facts.case(advice) is Case.SCREENED:
        return say(
            "{n} settings are worth comparing next.",
            "次に比べる価値のある設定は{n}通りです。",
            n=number,
        )
    return say("{n} settings were compared.", "{n}通りの設定を比べました。", n=number)


def candidate_cells(advice: Advice, row: Candidate) -> tuple[Text, ...]:
    """One line of the candidate table.

    Args:
        advice: The record.
        row: The candidate.
    """
    return (
        _which(advice, row),
        names.REASONS[row.reason],
        _rates(row),
        _or_dash(row.seconds_per_update, lambda v: formats.duration(v)),
        _or_dash(row.updates_to_target, lambda v: same(formats.count(v))),
        _time_with_range(row.seconds_to_target),
        _cost(advice, row),
        _or_dash(row.metric, lambda v: formats.metric_value(v, advice.metric)),
        say("{n} ({f})", "{n}（{f}）", n=row.runs, f=row.failed) if row.runs else same("–"),
        names.EVIDENCE[row.evidence],
    )


def _which(advice: Advice, row: Candidate) -> Text:
    tags = {
        "today": Text(" **(today)**", "**（現在）**"),
        "recommended": Text(" **(recommended)**", "**（提案）**"),
        "alternative": Text(" **(best alternative)**", "**（最も良い候補）**"),
    }
    tag = tags.get(facts.role(advice, row.setting.id), EMPTY)
    return say("{s}{t}", "{s}{t}", s=names.setting(row.setting), t=tag)


def _rates(row: Candidate) -> Text:
    if row.rate_low is None or row.rate_high is None:
        return same("–")
    return formats.span(formats.rate(row.rate_low), formats.rate(row.rate_high))


def _or_dash(estimate: Estimate | None, write: object) -> Text:
    if estimate is None or math.isnan(estimate.value):
        return same("–")
    if math.isinf(estimate.value):
        return Text("not reached", "未到達")
    return write(estimate.value)  # type: ignore[operator]


def _time_with_range(estimate: Estimate | None) -> Text:
    main = _or_dash(estimate, formats.duration)
    if estimate is None or not math.isfinite(estimate.value) or math.isnan(estimate.low):
        return main
    low, high = formats.duration(estimate.low), formats.duration(estimate.high)
    return say("{m} ({a} – {b})", "{m}（{a}～{b}）", m=main, a=low, b=high)


def _cost(advice: Advice, row: Candidate) -> Text:
    price = advice.price
    if price is None:
        return same("–")
    return _or_dash(row.cost_to_target, lambda v: formats.money(v, price.currency))


# ------------------------------------------------------------------ method


def method(advice: Advice) -> tuple[Text, ...]:
    """How it was measured, in the reader's words.

    Args:
        advice: The record.
    """
    return _kept(_stages(advice), _data_use(advice), _fresh(advice), _timing(), _ranges(advice),
                 _chance(advice), _detectable(advice), _demands(advice))


def _stages(advice: Advice) -> Text:
    return Text(
        "Three stages, each priced before it starts. 1, screened: speed, memory and noise choose the "
        "candidates. 2, projected: each candidate trains for a short stretch from a common starting "
        "point, at several learning rates. 3, confirmed: the best candidate and today's settings train to "
        "the end.",
        "3つの段階からなり、それぞれ始める前に時間と費用を示します。段階1（下調べ）：速さ・メモリ・ノイズから"
        "候補を選びます。段階2（短い試行）：共通の途中状態から、各候補を複数の学習率で短く学習させます。"
        "段階3（確認）：最も良い候補と現在の設定を最後まで学習させます。",
    )


def _data_use(advice: Advice) -> Text:
    return say(
        "Training data: {n} examples. Every decision reads {v} validation examples; {t}.",
        "学習データは{n}件です。判断にはすべて検証データ{v}件を使い、{t}。",
        n=formats.count(advice.train_examples),
        v=formats.count(advice.validation_examples),
        t=say(
            "the {k} test examples were looked at once, at the end",
            "テストデータ{k}件は最後に一度だけ見ました",
            k=formats.count(advice.test_examples),
        )
        if advice.test_examples
        else Text("there are no test data", "テストデータはありません"),
    )


def _fresh(advice: Advice) -> Text:
    if not facts.confirmed(advice):
        return EMPTY
    return Text(
        "The recommendation was fixed before the confirming trainings began, and these used random "
        "starts that no choice had seen; only their numbers are reported.",
        "提案する設定は確認の学習を始める前に確定し、確認には設定選びに使っていない乱数を用いました。"
        "報告しているのはその結果だけです。",
    )


def _timing() -> Text:
    return Text(
        "Times are updates × seconds per update, measured for one training running alone, data loading "
        "included, evaluation excluded.",
        "時間は「更新回数×1回の更新時間」で、1つの学習だけを動かして測定しました（データ読み込みを含み、"
        "評価の時間は除く）。",
    )


def _ranges(advice: Advice) -> Text:
    exact = any(c.method == "sign" for c in advice.comparisons)
    how = say(
        "paired Student t on logarithms of ratios{s}",
        "比の対数に対する対応のあるt検定の考え方{s}",
        s=Text(", and an exact sign test where a training never reached the goal", "、目標に届かない学習がある場合は符号検定")
        if exact
        else EMPTY,
    )
    return say(
        "A 90 % range would miss the true value in one case out of ten. Pairs share the random start; "
        "ranges: {h}.",
        "90%の範囲とは、真の値を外すのが10回に1回程度の範囲です。同じ乱数どうしを対にして比べています"
        "（範囲の計算：{h}）。",
        h=how,
    )


def _chance(advice: Advice) -> Text:
    compared = facts.gain(advice)
    if compared is None or not compared.pairs or math.isnan(compared.chance):
        return EMPTY
    return say(
        "Chance that the {which} is the better one: {p} % (with {n} pairs it is never stated above {m} %).",
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
    return say(
        "The smallest gain that these repeats could have shown is {r}×; a change is advised from {w}× on.",
        "今回の繰り返し回数で見分けられる最小の差は{r}倍です。変更を勧めるのは{w}倍以上の場合です。",
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
            m=Text("met", "満たす") if good else Text("not clearly met", "確実に満たすとは言えない"),
        )
        for demand, good in advice.at_least.items()
    ]
    return say("What you asked for: {l}.", "ご指定の条件：{l}。", l=join(met, "; ", "、"))
