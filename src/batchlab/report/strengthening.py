"""Whether a feature-learning strength γ pays and what it changes: a section of an advice."""

from __future__ import annotations

from batchlab._text import Text, join, say
from batchlab.advisor.record import Advice, MetricInfo, Strengthening
from batchlab.report import findings, formats, names
from batchlab.report.growing import compared

WHY_NOT = {
    "too short": Text(
        "A feature-learning strength γ was not tried: a training has too few updates for a pilot.",
        "特徴学習の強さγは試していません。学習の更新回数が少なすぎます。",
    ),
    "failed": Text(
        "A feature-learning strength γ was tried in short trainings; none learnt as today's "
        "settings do.",
        "特徴学習の強さγを短い学習で試しましたが、現在の設定ほど学習が進んだものはありませんでした。",
    ),
    "behind": Text(
        "A feature-learning strength γ changes nothing for the better here: no setting with one "
        "was among the best of the search.",
        "特徴学習の強さγを使う利点は見られません。探索の上位に、γを使う設定はありませんでした。",
    ),
    "unconfirmed": Text(
        "A feature-learning strength γ was tried in the search only: the budget did not pay for "
        "whole trainings beside the others.",
        "特徴学習の強さγは探索で試しただけです（予算内では本番の長さで比べられませんでした）。",
    ),
    "model": Text(
        "A feature-learning strength γ was not tried: this model cannot be trained as (f − its "
        "start)/γ.",
        "特徴学習の強さγは試していません。このモデルは（f−初期値）/γの形では学習できません。",
    ),
}
WHAT = Text(
    "With γ the model is trained as (f − its start)/γ: a small γ keeps the weights near their "
    "start, a large one moves them far, so that features are learned. The learning rate follows "
    "the law γ² up to γ = 1 and γ^(2/L) above (L layers with weights), its root for rules such as "
    "Adam (atanasov2025; the root is an assumption), and is searched around it.",
    "γを使うとモデルは（f−初期値）/γとして学習します。γが小さいと重みは初期値の近くにとどまり、"
    "大きいと大きく動いて特徴を学習します。学習率はγ≤1でγ²、それより上でγ^(2/L)の法則"
    "（Lは重みを持つ層の数。Adamなどではその平方根：仮定）に従わせ、その周りを探索しています"
    "（atanasov2025）。",
)


def title(found: Strengthening, metric: MetricInfo) -> Text:
    """Whether a γ pays, changes nothing or harms, or why that is not known.

    Args:
        found: What is known of it.
        metric: Of the task.
    """
    if found.why_not == "budget":
        return say(
            "A feature-learning strength γ was not tried: the budget did not pay for it (from "
            "about {t}).",
            "特徴学習の強さγは試していません（予算不足：必要な時間は約{t}から）。",
            t=formats.duration(found.seconds or 0.0),
        )
    if found.why_not or found.setting is None or found.difference is None or found.rival is None:
        return WHY_NOT.get(found.why_not, WHY_NOT["failed"])
    how = _how(found)
    return say(
        f"{how.en}: with {{s}} {{r}} {{c}} (on the {{n}} seeds that chose both, so it may flatter "
        "either).",
        f"{how.ja}：{{s}}では、{{c}}に比べて{{r}}"
        "（両者の選択に使ったシード{n}個での比較のため、どちらかに有利な可能性があります）。",
        s=names.setting(found.setting),
        c=names.setting(found.rival),
        r=compared(found.difference, found.quantity, metric),
        n=found.difference.n,
    )


def _how(found: Strengthening) -> Text:
    """By where the range lies."""
    assert found.difference is not None
    none = 0.0 if found.quantity == "validation" else 1.0
    if found.pays:
        return Text(
            "A feature-learning strength γ pays here", "特徴学習の強さγを使う効果があります"
        )
    if found.difference.low <= none <= found.difference.high:
        return Text(
            "A feature-learning strength γ changes nothing that these repeats would show",
            "特徴学習の強さγを使っても、この繰り返し数で分かるほどの違いはありません",
        )
    return Text("A feature-learning strength γ harms here", "特徴学習の強さγは逆効果です")


def notes(advice: Advice) -> tuple[Text, ...]:
    """What else γ changes, and how it was tried.

    Args:
        advice: The record.
    """
    found = advice.strengthening
    if found is None or not found.tried:
        return ()
    tried = say(
        "{n} setting{s} with a γ were tried.",
        "γを使う設定を{n}通り試しました。",
        n=formats.count(found.tried),
        s="" if found.tried == 1 else "s",
    )
    told = [*_metric(found, advice.metric), *_slower(found), *_looks(advice)]
    return (*told, join((tried, WHAT)))


def _metric(found: Strengthening, metric: MetricInfo) -> tuple[Text, ...]:
    """At the end of a training, which says something else than the time to a goal."""
    if found.metric is None or found.quantity == "validation":
        return ()
    gap = found.metric
    changes = not gap.low <= 0 <= gap.high
    en = "At the end of a training {m} differs by {d}" if changes else _NOTHING.en
    ja = "学習終了時の{m}の差は{d}です" if changes else _NOTHING.ja
    told = say(
        f"{en}, paired by seed.", f"{ja}（シードごとの対）。", m=names.metric(metric),
        d=findings.difference(gap, metric),
    )  # fmt: skip
    return (told,)


_NOTHING = Text(
    "At the end of a training γ changes nothing in {m} that these repeats would show ({d})",
    "学習終了時の{m}には、この繰り返し数で分かるほどの違いはありません（{d}）",
)


def _slower(found: Strengthening) -> tuple[Text, ...]:
    """What the second forward pass takes."""
    if found.slower is None:
        return ()
    return (
        say(
            "An update with γ takes {v}× as long ({r}), since the frozen start is evaluated too; "
            "the times above count that.",
            "γを使うと1回の更新時間は{v}倍（{r}）になります（固定した初期モデルも計算するため）。"
            "上の時間はこれを含みます。",
            v=formats.ratio(found.slower.value),
            r=formats.ratio_range(found.slower),
        ),
    )


def _looks(advice: Advice) -> tuple[Text, ...]:
    """Where sharpness and sparsity of both stand, if they were measured."""
    compared_, uses = advice.compared, advice.features
    if compared_ is None or compared_.gamma == advice.today.gamma or uses is None or uses.why_not:
        return ()
    return (
        Text(
            "What γ changes in sharpness and in the number of features is said below, where what "
            "the models look at is compared.",
            "γによる鋭さと特徴の数の違いは、モデルが見ているものを比べる下の節にあります。",
        ),
    )
