"""Which minimum is found: a global one always, sparse below n, dense at n."""

from __future__ import annotations

from typing import Any

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers
from batchlab.studies.autoencoder.cells import whole
from batchlab.studies.autoencoder.claims.shared import ABSTRACT, LARGEST, share
from batchlab.studies.autoencoder.pictures import (
    ACTIVATIONS,
    BREADTH,
    EXAMPLES,
    Level,
    drawn,
    line,
    over_grid,
    phase_map,
)
from batchlab.studies.claim import Axis, Claim, Parameters, Tables
from batchlab.theory import autoencoder as theory


def claims(p: Parameters) -> tuple[Claim, ...]:
    """Minima and their sparsity, claim by claim.

    Args:
        p: Parameters.
    """
    return (
        _global_minimum(p),
        _sparse_below_n(p),
        _full_batch_dense(p),
        _dichotomy_at_n(p),
    )


def _global_minimum(p: Parameters) -> Claim:
    left = Axis(Text("what is left to learn", "学習し残した割合"))
    return share(
        int(p["seeds"]),
        id="global-minimum",
        sentence=Text(
            "SGD with a constant step size ends at a global minimum for every batch size.",
            "ステップ幅を固定したSGDは、どのバッチサイズでも大域的最小値に到達します。",
        ),
        source=ABSTRACT + "; its loss is autoencoder.least_loss",
        measured=Text(
            "whether in all runs of a repetition (every n, b and activation) less than a "
            "millionth of the learnable loss is left",
            "1回の繰り返しのすべての学習（n・b・活性化関数の全組み合わせ）で、"
            "減らせる損失の残りが百万分の1未満かどうか",
        ),
        values=numbers.global_minimum,
        picture=over_grid(
            Text(
                "Every batch size reaches a global minimum.",
                "どのバッチサイズでも大域的最小値に到達する。",
            ),
            ("missing", left),
            [Level(Text("a global minimum", "大域的最小値"), lambda n: 0.0)],
        ),
        meaning=Text(
            "Equal training loss says nothing about which solution was found: here all batch "
            "sizes end at the same loss, and at different weights.",
            "訓練損失が同じでも、同じ解とは限りません。ここではどのバッチサイズも損失は"
            "同じです"
            "が、重みは異なります。",
        ),
        twin={"fault": "double-step"},
    )


def _sparse_below_n(p: Parameters) -> Claim:
    return share(
        int(p["seeds"]),
        id="sparse-below-n",
        sentence=Text(
            "With any batch smaller than the data, the solution is sparse: one coordinate is "
            "left.",
            "バッチがデータ全体より小さければ、解は疎になり、残る座標は一つだけです。",
        ),
        source=ABSTRACT,
        measured=Text(
            "whether the participation ratio is below 1.001 in all runs of a repetition with b "
            "< n "
            "(a run ends when sparse, or unfinished after ten times the predicted updates)",
            "1回の繰り返しのb < nのすべての学習で、参加率が1.001未満かどうか（学習は疎になった"
            "時点で終了。予測の10倍の更新でも疎にならなければ打ち切り）",
        ),
        values=numbers.sparse,
        picture=over_grid(
            Text("Sparse for every b < n, dense at b = n.", "b < nではすべて疎、b = nでは密。"),
            ("breadth", BREADTH),
            [
                Level(Text("1, for b < n", "1（b < n）"), lambda n: 1.0),
                Level(Text("n/3, linear, b = n", "n/3（線形、b = n）"), lambda n: n / 3),
                Level(Text("n/6, ReLU, b = n", "n/6（ReLU、b = n）"), lambda n: n / 6),
            ],
            LARGEST,
        ),
        meaning=Text(
            "Leaving out even one example per update is enough for the noise to select a feature.",
            "更新ごとにデータを1件除くだけでも、ノイズが特徴を一つに絞り込みます。",
        ),
        twin={"fault": "ignores-batch"},
    )


def _full_batch_dense(p: Parameters) -> Claim:
    expected, spread = theory.breadth_of_start(max(whole(p["sizes"])))
    high = 1 / 3 + 0.05
    return Claim(
        id="full-batch-dense",
        sentence=Text(
            "With the full batch, the solution is dense: its participation ratio is about n/3.",
            "全データを使うと解は密で、参加率は約n/3です。",
        ),
        source=ABSTRACT + "; n/3 is derived, autoencoder.breadth_of_start",
        measured=Text(
            "participation ratio / n of linear runs, b = n, the largest n",
            "参加率÷n（線形、b = n、最大のn）",
        ),
        low=1 / 3 - 0.05,
        high=high,
        expected=min(expected, high),
        spread=spread,
        n=int(p["seeds"]),
        values=numbers.dense,
        picture=drawn(
            Text(
                "Full-batch solutions use a third of all coordinates.",
                "全データの解は座標の約3分の1を使う。",
            ),
            lambda tables: tables["grid"].filter(numbers.WHOLE),
            ("examples", EXAMPLES),
            ("breadth", BREADTH),
            {**ACTIVATIONS, "third": Text("n/3", "n/3"), "sixth": Text("n/6", "n/6")},
            by="activation",
            theory=_thirds,
        ),
        meaning=Text(
            "A dense solution spreads over many examples instead of standing for one of them.",
            "密な解は一つのデータを表すのではなく、多くのデータに広がっています。",
        ),
        twin={"fault": "leaves-one-out"},
    )


def _dichotomy_at_n(p: Parameters) -> Claim:
    return Claim(
        id="dichotomy-at-n",
        sentence=Text(
            "The change from sparse to dense is at b = n and not gradual, at every step size.",
            "疎から密への変化は徐々にではなく、b = nで一度に起きます。ステップ幅によりません。",
        ),
        source=ABSTRACT + "; autoencoder.disagreement is 0 at b = n only",
        measured=Text(
            "share of the way from one coordinate to w(0)'s participation ratio, on a "
            "logarithmic scale, that lies between the densest b < n and b = n; smallest over "
            "step sizes",
            "座標一つから初期値の参加率までの（対数での）変化のうち、b < nで最も密な場合とb "
            "= n"
            "の間で起きる割合（ステップ幅についての最小値）",
        ),
        low=0.95,
        high=1.05,
        expected=1.0,
        spread=1e-6,
        n=int(p["phase_seeds"]),
        values=numbers.jump,
        picture=phase_map(
            Text("Sparse everywhere but at b = n.", "b = n以外はすべて疎。"),
            "breadth",
            BREADTH,
            Text(
                "Colour: mean participation ratio at the end. Linear.",
                "色は学習終了時の参加率の平均。線形。",
            ),
        ),
        meaning=Text(
            "\u201cAlmost the full batch\u201d behaves like a small batch that takes "
            "longer, not like "
            "the full batch.",
            "「ほぼ全データ」のバッチは、全データではなく、時間のかかる小さいバッチのように"
            "振る舞います。",
        ),
        popular=Text(
            "\u201cThe larger the batch, the denser the features\u201d is wrong here: size "
            "changes how "
            "long it takes, and only b = n changes where it ends.",
            "「バッチが大きいほど特徴は密になる」という説明はここでは誤りです。"
            "バッチサイズで変わる"
            "のは所要時間で、行き先が変わるのはb = nのときだけです。",
        ),
        depends=Text(
            "On exactly orthogonal data of equal length; see the findings below.",
            "データが互いに直交し、長さが等しい場合に限ります（下の測定を参照）。",
        ),
        twin={"fault": "exchanged-batches"},
    )


def _thirds(tables: Tables) -> list[Any]:
    sizes = tables["grid"]["examples"].unique().sort().to_list()
    return [
        *line(sizes, [n / 3 for n in sizes], "third"),
        *line(sizes, [n / 6 for n in sizes], "sixth"),
    ]
