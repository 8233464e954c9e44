"""The first table: today, recommended, the difference with its range, and how sure."""

from __future__ import annotations

import math
from dataclasses import replace

from batchlab._text import EMPTY, Text, same, say
from batchlab.advisor.record import (
    Advice,
    Comparison,
    FeatureUse,
    MetricInfo,
    Robustness,
    RobustRow,
)
from batchlab.report import facts, features, formats, names, sturdiness
from batchlab.report.facts import Case
from batchlab.report.wording import part, phrases, screening
from batchlab.report.wording.row import Row
from batchlab.types import Estimate


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
        return screening.table(advice)
    rows = [_setting_row(advice), _ratio_row(advice, "time")]
    if advice.objective == "samples":
        rows.append(_ratio_row(advice, "samples"))
    if advice.price is not None:
        rows.append(_cost_row(advice))
    rows += [
        _metric_row(advice),
        *_robust_rows(advice),
        _failure_row(advice),
        _feature_row(advice),
        *on_all(advice, ("time", advice.objective)),
    ]
    return tuple(row for row in rows if row is not None)


def on_all(advice: Advice, wanted: tuple[str, ...] = ("time", "samples")) -> tuple[Row, ...]:
    """The pair on all data, where the stages ran on a part of them.

    Args:
        advice: The record.
        wanted: Quantities to show besides the metric at the end.
    """
    if advice.part is None or advice.part.repeat is None:
        return ()
    told = advice.part.repeat.comparisons
    shown = [c for c in told if c.quantity in _LABELS and c.quantity in wanted]
    ends = [c for c in told if c.quantity == "validation"]
    return (
        *(_ratio_on_all(advice, compared) for compared in shown),
        *(_metric_on_all(advice, compared) for compared in ends),
    )


def _ratio_on_all(advice: Advice, compared: Comparison) -> Row:
    write = formats.duration if compared.quantity == "time" else _many
    return Row(
        say(
            "on all data: {label}",
            "全データ：{label}",
            label=say(*_LABELS[compared.quantity], g=phrases.goal(advice)),
        ),
        write(compared.today.value),
        write(compared.recommended.value),
        _ratio_difference(compared),
        _few_pairs(compared),
    )


def _metric_on_all(advice: Advice, compared: Comparison) -> Row:
    return Row(
        say(
            "on all data: {m} at the end, on {n} also used for choosing",
            "全データ：学習終了時の{m}（設定選びにも使った{n}）",
            m=names.metric_in_full(advice.metric),
            n=names.examples(advice, compared.examples),
        ),
        formats.metric_value(compared.today.value, advice.metric),
        formats.metric_value(compared.recommended.value, advice.metric),
        _metric_difference(advice, _closed(compared.difference)),
        _few_pairs(compared),
    )


def _closed(difference: Estimate) -> Estimate:
    """A range of a single pair is none."""
    if math.isfinite(difference.low) and math.isfinite(difference.high):
        return difference
    return replace(difference, low=math.nan, high=math.nan)


def _few_pairs(compared: Comparison) -> Text:
    if compared.pairs == 1:
        return Text(
            "one pair: a single pair cannot show how sure", "1組だけで、確からしさは分かりません"
        )
    return say("{n} pairs", "{n}組の比較", n=compared.pairs)


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


_LABELS = {
    "time": ("time to reach {g}", "{g}に達するまでの時間"),
    "samples": ("examples needed to reach {g}", "{g}に達するまでに使うデータ数"),
}


def _on_part(advice: Advice, label: Text) -> Text:
    """A label with the part of the data it is about."""
    if advice.part is None:
        return label
    return say("{l}, on {s}", "{l}（{s}）", l=label, s=part.share(advice.part))


def _ratio_row(advice: Advice, quantity: str) -> Row | None:
    compared = facts.comparison(advice, quantity)
    if compared is None:
        return None
    write = formats.duration if quantity == "time" else _many
    return Row(
        _on_part(advice, say(*_LABELS[quantity], g=phrases.goal(advice))),
        write(compared.today.value),
        write(compared.recommended.value),
        _ratio_difference(compared),
        sure_of_ratio(compared, watched=bool(advice.watched)),
    )


def _many(value: float) -> Text:
    return same(formats.count(value)) if math.isfinite(value) else Text("not reached", "未到達")


_NEITHER = Text("most reached it with neither", "どちらも多くが未到達")


def _ratio_difference(compared: Comparison) -> Text:
    ratio = compared.difference
    words = {"time": ("faster", "速い"), "samples": ("less data", "少ない")}[compared.quantity]
    if facts.unreached(compared):
        return _NEITHER
    if math.isinf(ratio.value):
        return Text("**only the second reached it**", "**一方だけが到達**")
    if ratio.value >= 1:
        main = say(
            "**{r}×** {w}", "**{r}倍**{wj}", r=formats.ratio(ratio.value), w=words[0], wj=words[1]
        )
    else:
        as_ = {"time": "as fast", "samples": "as sparing"}[compared.quantity]
        name = {"time": "速さは", "samples": "効率は"}[compared.quantity]
        main = say("**{r}×** {a}", "{n}**{r}倍**", r=formats.ratio(ratio.value), a=as_, n=name)
    if ratio.low <= 0 and math.isinf(ratio.high):
        return say("{m} (range open)", "{m}（範囲は定まらず）", m=main)
    return say("{m} ({s})", "{m}（{s}）", m=main, s=formats.ratio_range(ratio))


def sure_of_ratio(compared: Comparison, watched: bool = False) -> Text:
    """How sure a ratio is, in counted repeats.

    Args:
        compared: The comparison.
        watched: Whether its pairs are trainings that the user ran.
    """
    if compared.method == "projected" or not compared.pairs:
        return Text(
            "projected from a short trial, not yet confirmed", "短い試行からの予測で、未確認です"
        )
    if facts.unreached(compared):
        return say(
            "not comparable: of {n} repeats, most did not arrive",
            "{n}回の測定の多くが未到達のため、比べられない",
            n=compared.pairs,
        )
    words = {"time": ("faster", "速かった"), "samples": ("less data", "少なかった")}
    word = words.get(compared.quantity, ("cheaper", "安かった"))
    unclear = compared.difference.low < 1 < compared.difference.high
    new = ("{w} in {k} of {n} new repeats{end}", "新たに行った{n}回中{k}回で{wj}{end}")
    own = ("{w} in {k} of {n} pairs of trainings{end}", "学習{n}組中{k}組で{wj}{end}")
    return say(
        *(own if watched else new),
        w=word[0],
        wj=word[1],
        k=compared.wins,
        n=compared.pairs,
        end=Text(": no clear difference", "（はっきりした差はない）") if unclear else EMPTY,
    )


def _cost_row(advice: Advice) -> Row | None:
    compared, time = facts.comparison(advice, "cost"), facts.comparison(advice, "time")
    if compared is None or advice.price is None:
        return None
    code = advice.price.currency
    alike = time is not None and (time.wins, time.pairs) == (compared.wins, compared.pairs)
    return Row(
        _on_part(advice, Text("computing cost of one training", "学習1回の計算費用")),
        formats.money(compared.today.value, code),
        formats.money(compared.recommended.value, code),
        _NEITHER if facts.unreached(compared) else percent_saved(compared.difference),
        Text("as above", "同上") if alike else sure_of_ratio(compared, bool(advice.watched)),
    )


def percent_saved(ratio: Estimate) -> Text:
    """A ratio today / recommended as a change in percent.

    Example:
        >>> percent_saved(Estimate(1.9, 1.5, 2.3, n=8)).en
        '−47 % (−33 to −57)'
    """
    if not 0 < ratio.value < math.inf:
        return EMPTY
    main = _percent(ratio.value)
    if not (ratio.low > 0 and math.isfinite(ratio.high)):
        return say("{p} %", "{p}%", p=main)
    ends = {"p": main, "a": _percent(ratio.low), "b": _percent(ratio.high)}
    return say("{p} % ({a} to {b})", "{p}%（{a}～{b}%）", **ends)


def _percent(ratio: float) -> str:
    if ratio <= 0:
        return "+∞"
    change = round(100 * (1 / ratio - 1))
    if change == 0:
        return "0"
    return formats.MINUS + str(-change) if change < 0 else f"+{change}"


def _metric_row(advice: Advice) -> Row | None:
    compared = facts.metric_comparison(advice)
    if compared is None:
        return None
    fresh = compared.quantity == "metric"
    many = compared.examples or (advice.test_examples if fresh else advice.validation_examples)
    metric = names.metric_in_full(advice.metric)
    ended = say("{m} at the end of training", "学習終了時の{m}", m=metric)
    label = say(
        "{m} on {n} never used for choosing" if fresh else "{m} on {n} also used for choosing",
        "設定選びに使っていない{n}での{m}" if fresh else "設定選びにも使った{n}での{m}",
        m=metric,
        n=names.examples(advice, many),
    )
    if advice.part is not None:
        label = say("{l}, trained on {s}", "{l}（{s}で学習）", l=label, s=part.share(advice.part))
    return Row(
        label if many else ended,
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
    return say("{m}{u} ({a} to {b})", "{m}{u}（{a}～{b}）", m=main, u=unit, a=ends[0], b=ends[1])


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
        return Text(
            "better: the whole range lies on the good side", "改善（範囲全体が良い側にあります）"
        )
    if sign:
        return Text(
            "worse: the whole range lies on the bad side", "悪化（範囲全体が悪い側にあります）"
        )
    worse = "低下" if advice.metric.maximise else "上昇"
    return say(
        "no difference visible; a {way} of more than {size} is unlikely",
        "差は認められません。{size}を超える{way_ja}は考えにくいです",
        way="loss" if advice.metric.maximise else "rise",
        way_ja=worse,
        size=formats.metric_size(worst, advice.metric),
    )


def _robust_rows(advice: Advice) -> tuple[Row, ...]:
    """The two that matter most of what ``--robustness`` measured: noisy inputs, and how far two
    trainings agree.
    """
    found = advice.robustness
    if found is None:
        return ()
    noisy = sturdiness.noisy_inputs(found)
    rows = [None if noisy is None else _noisy_row(advice, noisy), _repeat_row(found)]
    return tuple(row for row in rows if row is not None)


def _noisy_row(advice: Advice, row: RobustRow) -> Row:
    compared = Comparison(
        "validation", row.today, row.recommended, row.difference, 0, row.difference.n, math.nan
    )
    return Row(
        say(
            "{m} with noisy inputs (noise: {s} × their spread)",
            "入力にノイズがあるときの{m}（ばらつきの{s}倍のノイズ）",
            m=names.metric_in_full(advice.metric),
            s=formats.number(row.size),
        ),
        formats.metric_value(row.today.value, advice.metric),
        formats.metric_value(row.recommended.value, advice.metric),
        _metric_difference(advice, row.difference),
        sure_of_metric(advice, compared),
    )


def _repeat_row(found: Robustness) -> Row | None:
    row = found.repeats
    if row is None:
        return None
    gap = row.difference
    shares = MetricInfo("disagreement", False, "%")
    value, low, high = (formats.metric_signed(x, shares) for x in (gap.value, gap.low, gap.high))
    difference = say("{v} points", "{v}ポイント", v=value)
    if math.isfinite(gap.low):
        difference = say(
            "{v} points ({a} to {b})", "{v}ポイント（{a}～{b}）", v=value, a=low, b=high
        )
    sign = facts.decided(gap.low, gap.high)
    sure = {
        0: Text("no difference visible", "差は認められません"),
        -1: Text("better: two trainings agree more often", "改善（2回の学習の判断がよりそろう）"),
        1: Text("worse: two trainings agree less often", "悪化（2回の学習の判断がよりばらつく）"),
    }[sign]
    return Row(
        Text(
            "examples on which two trainings disagree",
            "2回の学習で判断が食い違うデータの割合",
        ),
        sturdiness.share(row.today.value),
        sturdiness.share(row.recommended.value),
        difference,
        sure,
    )


def _feature_row(advice: Advice) -> Row | None:
    """On how many internal features the decision rests, where that was measured."""
    found = advice.features
    if found is None or found.today is None or found.recommended is None:
        return None
    before, after = found.today.needed, found.recommended.needed
    if before is None or after is None or found.difference is None:
        return None
    words = {
        -1: Text("fewer to check by eye", "目で確認する数が減る"),
        1: Text("more to check by eye", "目で確認する数が増える"),
        0: Text("no clear difference", "はっきりした差はない"),
    }
    return Row(
        Text("internal features the decision rests on", "判断の根拠になっている特徴の数"),
        features.of_all(before, found.units),
        features.of_all(after, found.units),
        say(
            "{w}, [see them](#features)",
            "{w}（[特徴を見る](#features)）",
            w=words[features.trend(found)],
        ),
        _sure_of_features(found),
    )


def _sure_of_features(found: FeatureUse) -> Text:
    """In how many pairs the same was seen."""
    sign = features.trend(found)
    if sign:
        return say(
            "same in {k} of {n}",
            "{n}回中{k}回で同じ傾向",
            k=found.fewer if sign < 0 else found.more,
            n=found.pairs,
        )
    return say(
        "fewer in {f}, more in {m} of {n}",
        "{n}回中、減ったのが{f}回、増えたのが{m}回",
        f=found.fewer,
        m=found.more,
        n=found.pairs,
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
        Text(
            "failed = broke off, or never reached the goal", "失敗＝途中で発散、または目標に未到達"
        )
        if some
        else EMPTY,
    )


def _of(part: int, whole: int) -> Text:
    return say("{k} of {n}", "{n}回中{k}回", k=part, n=whole)
