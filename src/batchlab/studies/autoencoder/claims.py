"""The source's claims and those derived from its model, fixed before the first run.

Margins are those of the first draft, from before anything was run. What is expected and how much
repetitions differ is derived where a formula is named; the rest comes from a pilot of 24
repetitions under another seed. Where it expects a value near the end of a margin, the margin stays
and the claim may come out open.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import polars as pl

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers, pictures
from batchlab.studies.autoencoder.cells import listed, whole
from batchlab.studies.autoencoder.pictures import (
    ACTIVATIONS,
    BATCH,
    BREADTH,
    EXAMPLES,
    MEASURED,
    THEORY,
    UPDATES,
    Drawing,
    Level,
    drawn,
    line,
    over_grid,
    phase_map,
    through,
)
from batchlab.studies.claim import Axis, Claim, Parameters, Row, Statistic, Tables
from batchlab.theory import autoencoder as theory

ABSTRACT = "ghosh2023, abstract"
DERIVED = "derived from the update of ghosh2023, autoencoder.step"
COSINE = Axis(Text("|cos(w, w(0))|", "|cos(w, w(0))|"))
LARGEST = Text("Lines at b = n are of the largest n.", "b = nの線は最大のnのものです。")
LARGEST_COSINE, COSINE_SCATTER = 2.4, 0.3
"""√n × |cos(w, w(0))|: the largest over batch sizes and activations, below the 2.75 of the largest
of 100 coordinates, and how much repetitions differ."""


def claims(p: Parameters) -> tuple[Claim, ...]:
    """Every claim of the study but its findings.

    Args:
        p: Parameters.
    """
    parts = (_minima, _features, _dichotomy, _curvature, _order, _winners, _steps, _laws)
    return tuple(claim for part in parts for claim in part(p))


def share(n: int, **given: Any) -> Claim:
    """A claim on every run: all successes put the lower end above 0.9 from 52 repetitions on."""
    return Claim(low=0.9, high=1.0, expected=1.0, n=n, statistic=Statistic.SHARE, unit="", **given)


def _minima(p: Parameters) -> tuple[Claim, ...]:
    left = Axis(Text("what is left to learn", "学習し残した割合"))
    return (
        share(
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
        ),
    )


def _features(p: Parameters) -> tuple[Claim, ...]:
    return (
        _sparse(p),
        _turned(p),
        _turned_slope(p),
        _aligned(p),
        _limit_relu(p),
        _aligned_relu(p),
        _dense(p),
    )


def _sparse(p: Parameters) -> Claim:
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


def _turned(p: Parameters) -> Claim:
    n = max(whole(p["sizes"]))
    return Claim(
        id="nearly-orthogonal",
        sentence=Text(
            "With b < n, the solution is nearly orthogonal to the initial weights (n of 100 and "
            "more: cosine below 0.3).",
            "b < nの解は初期値とほぼ直交します（nが100以上で余弦は0.3未満）。",
        ),
        source=ABSTRACT + "; 0.3 is the bound √(2 log n/n) at n = 100",
        measured=Text(
            "largest |cos(w, w(0))| over b < n and activations, at the largest n if it is 100 or "
            "more",
            "最大のn（100以上の場合）での|cos(w, w(0))|のb < nと活性化関数についての最大値",
        ),
        low=0.0,
        high=0.3,
        expected=min(LARGEST_COSINE / math.sqrt(n), 0.3),
        spread=COSINE_SCATTER / math.sqrt(n),
        n=int(p["seeds"]),
        values=numbers.turned,
        picture=over_grid(
            Text(
                "Only the full batch stays aligned with its start.",
                "全データの場合だけ初期値の方向が保たれる。",
            ),
            ("overlap", COSINE),
            [Level(Text("0.3, the bound for b < n", "b < nの上限0.3"), lambda n: 0.3)],
        ),
        meaning=Text(
            "Small batches move far from the initialisation: features are learned, not kept.",
            "小さいバッチでは初期値から大きく離れます。特徴が「残る」のでは"
            "なく「学習される」ということです。",
        ),
        twin={"fault": "ignores-batch"},
    )


def _turned_slope(p: Parameters) -> Claim:
    return Claim(
        id="orthogonal-with-n",
        sentence=Text(
            "The cosine with the start falls with n, with an exponent between that of a random "
            "winner, −0.5, and of the largest, −0.37, within 0.1.",
            "初期値との余弦はnとともに小さくなり、その指数は、無作為な座標が残る場合の−0.5と、"
            "最大の座標が残る場合の−0.37の間（±0.1）です。",
        ),
        source=DERIVED + ": |w_i(0)|/|w(0)| of the winner i",
        measured=Text(
            "slope of log |cos(w, w(0))| on log n, linear, all b < n",
            "log nに対するlog |cos(w, w(0))|の傾き（線形、b < nのすべて）",
        ),
        low=-0.6,
        high=-0.27,
        expected=-0.45,
        spread=numbers.slope_spread(whole(p["sizes"]), 0.23),
        n=int(p["seeds"]),
        values=numbers.turned_slope,
        picture=drawn(
            Text("The more examples, the more orthogonal.", "データが多いほど直交に近い。"),
            lambda tables: numbers.linear(tables["grid"]).filter(numbers.PART),
            ("examples", EXAMPLES),
            ("overlap", COSINE._replace(log=True)),
            {"measured": MEASURED, "theory": Text("exponent −1/2", "指数−1/2")},
            theory=lambda tables: through(
                numbers.linear(tables["grid"]).filter(numbers.PART), "examples", "overlap", -0.5
            ),
        ),
        meaning=Text(
            "With realistic amounts of data, nothing of the initial direction is left.",
            "現実的なデータ量では、初期値の方向は実質的に残りません。",
        ),
        twin={"fault": "inverted-cosine"},
    )


def _aligned(p: Parameters) -> Claim:
    return Claim(
        id="full-batch-aligned",
        sentence=Text(
            "With the full batch, a linear neuron keeps the direction of its start.",
            "全データを使う場合、線形ニューロンは初期値の方向を完全に保ちます。",
        ),
        source=ABSTRACT + "; the limit w(0)/|w(0)| is derived, autoencoder.full_batch_limit",
        measured=Text(
            "smallest cos(w, w(0)) over all n, b = n, by automatic differentiation of the module",
            "cos(w, w(0))の最小値（b = n、全てのn、モジュールの自動微分による）",
        ),
        low=1 - 1e-6,
        high=1 + 1e-6,
        expected=1.0,
        spread=0.0,
        n=int(p["seeds"]),
        values=numbers.aligned,
        picture=over_grid(
            Text(
                "Alignment with the start jumps at b = n.", "初期値との一致はb = nで跳ね上がる。"
            ),
            ("overlap", COSINE),
            [
                Level(Text("1, linear, b = n", "1（線形、b = n）"), lambda n: 1.0),
                Level(Text("1/√2, ReLU, b = n", "1/√2（ReLU、b = n）"), lambda n: math.sqrt(0.5)),
            ],
        ),
        meaning=Text(
            "Full-batch training of this model learns the size of w and no feature at all.",
            "このモデルを全データで学習すると、wの大きさだけが学習され、特徴は"
            "何も学習されません。",
        ),
        twin={"fault": "leaves-one-out"},
    )


def _limit_relu(p: Parameters) -> Claim:
    return Claim(
        id="full-batch-limit-relu",
        sentence=Text(
            "With ReLU and the full batch, the positive part of the start is left, in its "
            "proportions.",
            "ReLUで全データを使う場合、初期値の正の成分が、比率を保ったまま残ります。",
        ),
        source=DERIVED + " and autoencoder.full_batch_limit",
        measured=Text(
            "smallest cos(w, w₊(0)) over all n, b = n, by automatic differentiation of the module",
            "cos(w, w₊(0))の最小値（b = n、全てのn、モジュールの自動微分による）",
        ),
        low=1 - 1e-6,
        high=1 + 1e-6,
        expected=1.0,
        spread=0.0,
        n=int(p["seeds"]),
        values=numbers.limit_relu,
        picture=drawn(
            Text("The limit is the positive part.", "行き先は正の成分。"),
            lambda tables: numbers.relu(tables["grid"]),
            ("batch_size", BATCH),
            ("limit", Axis(Text("cos(w, w₊(0))", "cos(w, w₊(0))"))),
            {"measured": Text("ReLU", "ReLU"), "theory": Text("1, for b = n", "1（b = n）")},
            theory=lambda tables: _level(tables, 1.0),
        ),
        meaning=Text(
            "The full batch neither adds a feature nor changes the share of one.",
            "全データの学習は、特徴を加えることも、その比率を変えることもありません。",
        ),
        twin={"fault": "leaves-one-out"},
    )


def _aligned_relu(p: Parameters) -> Claim:
    n = max(whole(p["sizes"]))
    expected, spread = theory.kept_by_relu(n)
    low, high = math.sqrt(0.5) - 0.02, math.sqrt(0.5) + 0.02
    return Claim(
        id="full-batch-aligned-relu",
        sentence=Text(
            "With ReLU and the full batch, the cosine with the start tends to 1/√2.",
            "ReLUで全データを使う場合、初期値との余弦は1/√2に近づきます。",
        ),
        source=DERIVED + ", by autoencoder.full_batch_limit and kept_by_relu",
        measured=Text("cos(w, w(0)) at b = n, the largest n", "cos(w, w(0))（b = n、最大のn）"),
        low=low,
        high=high,
        expected=max(expected, low),
        spread=spread,
        n=int(p["seeds"]),
        values=numbers.aligned_relu,
        picture=drawn(
            Text("Half of the start's energy survives.", "初期値のエネルギーの半分が残る。"),
            lambda tables: numbers.relu(tables["grid"]).filter(numbers.WHOLE),
            ("examples", EXAMPLES),
            ("cosine", COSINE),
            {"measured": Text("ReLU, b = n", "ReLU、b = n"), "theory": Text("1/√2", "1/√2")},
            theory=lambda tables: _level(tables, math.sqrt(0.5)),
        ),
        meaning=Text(
            "ReLU takes away the negative half of the start; full-batch training changes no more.",
            "ReLUは初期値の負の成分を取り除くだけで、全データでの学習はそれ以上変えません。",
        ),
        twin={"fault": "leaves-one-out"},
    )


def _level(tables: Tables, value: float) -> list[Any]:
    sizes = tables["grid"]["examples"].unique().sort().to_list()
    return line(sizes, [value] * len(sizes))


def _dense(p: Parameters) -> Claim:
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


def _thirds(tables: Tables) -> list[Any]:
    sizes = tables["grid"]["examples"].unique().sort().to_list()
    return [
        *line(sizes, [n / 3 for n in sizes], "third"),
        *line(sizes, [n / 6 for n in sizes], "sixth"),
    ]


def _dichotomy(p: Parameters) -> tuple[Claim, ...]:
    return (
        Claim(
            id="dichotomy-at-n",
            sentence=Text(
                "The change from sparse to dense is at b = n and not gradual, at every step size.",
                "疎から密への変化は徐々にではなく、b = nで一度に起きます。ステップ幅に"
                "よりません。",
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
        ),
    )


def _curvature_picture(title: Text, column: str, name: Text) -> Drawing:
    return drawn(
        title,
        lambda tables: tables["curvature"].with_columns(_shape()),
        ("batch_size", BATCH),
        (column, Axis(name)),
        {
            "linear1": Text("linear, d = n", "線形、d = n"),
            "relu1": Text("ReLU, d = n", "ReLU、d = n"),
            "relu4": Text("ReLU, d = 4n", "ReLU、d = 4n"),
        },
        by="shape",
        caption=Text(
            "By automatic differentiation, coordinates below 10⁻⁴ of |w| set to 0. Dashed: "
            "theory, with n/2 active coordinates at b = n.",
            "自動微分による値。|w|の10⁻⁴未満の座標は0としました。破線は理論値（b = nでの活性な"
            "座標はn/2）です。",
        ),
        theory=functools.partial(_predicted, column=column),
    )


def _shape() -> pl.Expr:
    """Activation and d/n as the name of a series."""
    times = (pl.col("dimensions") // pl.col("examples")).cast(pl.String)
    return (pl.col("activation") + times).alias("shape")


def _predicted(tables: Tables, column: str) -> list[Row]:
    """4 for n λ_max, 4 + d − |A| for n × trace."""
    keys = ["activation", "dimensions", "examples", "batch_size"]
    table = tables["curvature"].with_columns(_shape()).select("shape", *keys).unique()
    rows = []
    for shape, activation, d, n, b in table.sort("shape", "batch_size").iter_rows():
        some = n if activation == "linear" else 1 if b < n else n / 2
        rows += line([b], [4 if column == "top" else 4 + d - some], shape)
    return rows


def _curvature(p: Parameters) -> tuple[Claim, ...]:
    n, size = int(p["seeds"]), int(str(p["sizes"]).split(",")[0])
    trace = Text("n × trace of the Hessian", "n×ヘッセ行列のトレース")
    flatter = Text(
        "With ReLU the full-batch minimum is the flatter one.",
        "ReLUでは全データの解のほうが平坦。",
    )
    return (
        Claim(
            id="full-batch-flatter",
            sentence=Text(
                "With ReLU, measured by the trace of the Hessian, the full-batch minimum is "
                "flatter than that of small batches.",
                "ReLUでは、ヘッセ行列のトレースで測ると、全データの解は"
                "小さいバッチの解より平坦です。",
            ),
            source=ABSTRACT + "; autoencoder.trace",
            measured=Text(
                "n × (trace at b = 1 − trace at b = n), d = n",
                "n×（b = 1のトレース−b = nのトレース）、d = n",
            ),
            low=0.0,
            high=math.inf,
            expected=size / 2 - 1,
            spread=math.sqrt(size) / 2,
            n=n,
            values=numbers.flatter,
            picture=_curvature_picture(flatter, "trace", trace),
            meaning=Text(
                "Do not expect a small batch to find flat minima because it is small.",
                "バッチが小さいというだけで平坦な解が見つかるとは期待しないでください。",
            ),
            popular=Text(
                "\u201cLarge batches find sharp minima\u201d is false in this model: it is the "
                "other way "
                "round.",
                "「大きいバッチは鋭い最小値に行き着く」という通説は、このモデルでは逆です。",
            ),
            twin={"fault": "exchanged-batches"},
        ),
        Claim(
            id="trace-law",
            sentence=Text(
                "With ReLU the trace is (4 + d − |A|)/n, A being the active coordinates.",
                "ReLUのトレースは(4 + d − |A|)/nです（Aは活性な座標の集合）。",
            ),
            source=DERIVED + " and autoencoder.trace",
            measured=Text(
                "largest |n × trace − (4 + d − |A|)| over the batch sizes and d = n and 4n, |A| "
                "being 1 for b < n",
                "|n×トレース − (4 + d − |A|)|のバッチサイズとd = n, 4nについての最大値（b < nで"
                "は|A| = 1）",
            ),
            low=-math.inf,
            high=1e-3,
            expected=1e-6,
            spread=1e-6,
            n=n,
            values=numbers.trace_law,
            picture=_curvature_picture(
                Text(
                    "Fewer active coordinates, larger trace.",
                    "活性な座標が少ないほどトレースは大きい。",
                ),
                "trace",
                trace,
            ),
            meaning=Text(
                "The trace counts coordinates that are not active: here it measures sparsity.",
                "ここでのトレースは活性でない座標の数を数えています。つまり疎さを測っているので"
                "す。",
            ),
            twin={"fault": "counts-decayed"},
        ),
        Claim(
            id="equal-top-eigenvalue",
            sentence=Text(
                "The largest eigenvalue of the Hessian is 4/n at every minimum, whatever b.",
                "ヘッセ行列の最大固有値は、bによらず、どの最小値でも4/nです。",
            ),
            source="ghosh2023, workshop version; 4/n is derived, autoencoder.top_eigenvalue",
            measured=Text(
                "the n × λ_max that is farthest from 4, over batch sizes, activations and d",
                "4から最も離れたn×λ_max（バッチサイズ、活性化関数、dについて）",
            ),
            low=3.99,
            high=4.01,
            expected=4.0,
            spread=1e-5,
            n=n,
            values=numbers.top,
            picture=_curvature_picture(
                Text("One top eigenvalue for all.", "最大固有値はすべて同じ。"),
                "top",
                Text("n × λ_max", "n×λ_max"),
            ),
            meaning=Text(
                "Two usual measures of sharpness, trace and top eigenvalue, need not agree.",
                "鋭さの代表的な指標であるトレースと最大固有値は、一致するとは限りません。",
            ),
            twin={"fault": "sum-for-mean"},
        ),
        Claim(
            id="equal-traces-linear",
            sentence=Text(
                "A linear neuron's minima are all equally sharp: sparse and dense have one trace.",
                "線形ニューロンでは、疎な解も密な解もトレースは等しくなります。",
            ),
            source=DERIVED + " and autoencoder.trace",
            measured=Text(
                "largest − smallest n × trace over the batch sizes",
                "n×トレースの最大と最小の差（バッチサイズについて）",
            ),
            low=-math.inf,
            high=0.01,
            expected=2e-5,
            spread=1e-5,
            n=n,
            values=numbers.equal_traces,
            picture=_curvature_picture(
                Text("Linear: no difference in sharpness.", "線形では鋭さに差がない。"),
                "trace",
                trace,
            ),
            meaning=Text(
                "Sharpness cannot be what selects sparse solutions here: it is equal for all.",
                "ここで疎な解が選ばれる理由は鋭さではありません。鋭さはすべて等しいからです。",
            ),
            twin={"fault": "relu-for-linear"},
        ),
    )


def _order(p: Parameters) -> tuple[Claim, ...]:
    n = int(p["seeds"])
    return (
        share(
            n,
            id="cyclic-sparse",
            sentence=Text(
                "A fixed cyclic order of batches ends sparse, too (b = 1, n − 1, and windows of "
                "half the data that shift).",
                "バッチの順序を固定して巡回させても疎になります（b = 1、n − 1、"
                "およびずれていく半分の窓）。",
            ),
            source="ghosh2023, second-hand",
            measured=Text(
                "whether the participation ratio is below 1.001 in all cyclic runs of a "
                "repetition",
                "1回の繰り返しの巡回順のすべての学習で、参加率が1.001未満かどうか",
            ),
            values=numbers.cyclic,
            picture=drawn(
                Text("A fixed order ends sparse.", "順序を固定しても疎になる。"),
                lambda tables: tables["cyclic"],
                ("batch_size", BATCH),
                ("updates", UPDATES),
                dict(ACTIVATIONS),
                by="activation",
            ),
            meaning=Text(
                "It is not chance that selects but that batches differ from each other.",
                "選択を起こすのは偶然性ではなく、バッチどうしが異なることです。",
            ),
            depends=Text(
                "On batches that tell any two examples apart; see the fixed partition.",
                "どの二つのデータも区別するようなバッチであることが必要です（固定した分割の項を"
                "参照）。",
            ),
            twin={"fault": "ignores-batch"},
        ),
        Claim(
            id="fixed-partition",
            sentence=Text(
                "A fixed partition into batches ends on one batch, with the start's proportions "
                "in it: examples that are always together are never told apart.",
                "データを固定の組に分けて巡回させると、一組だけが残り、その中の比率は初期値のまま"
                "です。いつも一緒に使われるデータは区別されません。",
            ),
            source=DERIVED + ": members of a batch share every factor",
            measured=Text(
                "participation ratio / that of w(0) in the batch that won; n = 20, b = 5",
                "参加率÷残った組での初期値の参加率（n = 20、b = 5）",
            ),
            low=1 - 1e-6,
            high=1 + 1e-6,
            expected=1.0,
            spread=0.0,
            n=n,
            values=numbers.partition,
            picture=drawn(
                Text("Nothing is selected inside a batch.", "組の中では選択が起きない。"),
                lambda tables: tables["partition"].with_columns(pl.col("first").round(0)),
                (
                    "first",
                    Axis(Text("participation ratio of w(0) there", "その組での初期値の参加率")),
                ),
                ("breadth", BREADTH),
                {"measured": MEASURED, "theory": THEORY},
                theory=lambda tables: line([1, 5], [1, 5]),
            ),
            meaning=Text(
                "Shuffle between passes: with a fixed split, a batch acts like one large example.",
                "エポックごとにシャッフルしてください。分割を固定すると、一つのバッチが"
                "一つの大きな"
                "データのように働きます。",
            ),
            twin={"fault": "shuffled-cycle"},
        ),
    )


def _winners(p: Parameters) -> tuple[Claim, ...]:
    return (
        Claim(
            id="winner-by-start",
            sentence=Text(
                "The larger w_i(0)², the likelier coordinate i is the one that is left.",
                "w_i(0)²が大きい座標ほど、最後に残る確率が高くなります。",
            ),
            source="ghosh2023; direction derived from the drift of log w_i² in autoencoder.step",
            measured=Text(
                "rank of the winner's w_i(0)², from −½ to ½; mean over b < n, the largest n",
                "残った座標のw_i(0)²の順位（−½〜½）。b < nについての平均、最大のn",
            ),
            low=0.0,
            high=math.inf,
            expected=0.25,
            spread=0.1,
            n=int(p["seeds"]),
            values=numbers.rank,
            picture=pictures.winners,
            meaning=Text(
                "Which feature is learned is decided by the initialisation and by chance: other "
                "seeds, other features.",
                "どの特徴が学習されるかは初期値と偶然で決まります。乱数の種が"
                "変われば特徴も変わります。",
            ),
            twin={"fault": "inverted-start"},
        ),
        Claim(
            id="chance-is-an-angle",
            sentence=Text(
                "Of two coordinates, the chance that the first wins rises in proportion to the "
                "angle, as (2/π) arctan|w₁(0)/w₂(0)|.",
                "座標が二つのとき、1番目が残る確率は角度に比例し、(2/π)arctan|w₁(0)/w₂(0)|の傾きで"
                "増えます。",
            ),
            source=DERIVED + " in the limit of small steps, autoencoder.chance_of_two",
            measured=Text(
                "slope of winning on that probability (n = 2, b = 1, step 0.1)",
                "その確率に対する「残ったかどうか」の傾き（n = 2、b = 1、ステップ幅0.1）",
            ),
            low=0.88,
            high=1.12,
            expected=1.0,
            spread=1.42,
            n=int(p["pairs"]),
            values=numbers.two,
            picture=pictures.angles,
            meaning=Text(
                "A head start counts, but less than in proportion to its square (slope 1.22).",
                "初期値の差は効きますが、その二乗に比例するほど（傾き1.22）ではありません。",
            ),
            twin={"fault": "inverted-start"},
        ),
        Claim(
            id="chance-is-straight",
            sentence=Text(
                "Against that angle the chance is a straight line, not an S.",
                "その角度に対する確率は直線で、S字にはなりません。",
            ),
            source=DERIVED + " in the limit of small steps, autoencoder.chance_of_two",
            measured=Text(
                "third Legendre coefficient of winning against the predicted chance; 0 of a line, "
                "−0.22 if chances were as w_i(0)² (n = 2, b = 1, step 0.1)",
                "予測確率に対する「残ったかどうか」の3次のルジャンドル係数。直線なら0、確率がw_i(0)²"
                "に比例するなら−0.22（n = 2、b = 1、ステップ幅0.1）",
            ),
            low=-0.12,
            high=0.12,
            expected=0.0,
            spread=math.sqrt(7),
            n=int(p["pairs"]),
            values=numbers.straight,
            picture=pictures.angles,
            meaning=Text(
                "A small head start counts as much as the same step further ahead.",
                "わずかな差も、差が大きいときの同じだけの差と、同じように効きます。",
            ),
            twin={"fault": "squares-for-angle"},
        ),
    )


def _steps(p: Parameters) -> tuple[Claim, ...]:
    told = {
        "whole": (
            Text(
                "With the full batch, training is stable up to the step size n/2.",
                "全データの場合、ステップ幅n/2まで安定です。",
            ),
            Text("b = n", "b = n"),
        ),
        "one": (
            Text(
                "With one example per batch, training is stable up to the step size 1/2.",
                "バッチサイズ1の場合、ステップ幅1/2まで安定です。",
            ),
            Text("b = 1", "b = 1"),
        ),
        "between": (
            Text(
                "Between them the limit is b/2: it grows in proportion to the batch size.",
                "その間の上限はb/2で、バッチサイズに比例します。",
            ),
            Text(
                "of b = n/2 and n − 1 the one farthest from 1",
                "b = n/2とn − 1のうち1から遠いほう",
            ),
        ),
    }
    return tuple(
        Claim(
            id=f"stability-{which}",
            sentence=sentence,
            source=DERIVED + ": N − 1 is multiplied by 1 − 4η/b, autoencoder.largest_step",
            measured=Text(
                f"largest step size that arrives at a minimum / (b/2), by bisection, {size.en}",
                f"最小値に到達する最大のステップ幅÷(b/2)（二分法、{size.ja}）",
            ),
            low=0.98,
            high=1.02,
            expected=1.0,
            spread=0.002,
            n=int(p["seeds"]),
            values=functools.partial(numbers.limits, which=which),
            picture=pictures.limits,
            meaning=Text(
                "A larger batch allows a larger step here, in proportion and without an end.",
                "ここではバッチを大きくすると、それに比例してステップ幅も上限なく大きくできます。",
            ),
            twin={"fault": "double-step"},
        )
        for which, (sentence, size) in told.items()
    )


def _law(
    p: Parameters,
    name: str,
    power: float,
    margin: float,
    spread: tuple[float, float],
    words: tuple[Text, Text],
    drawing: Drawing,
    values: Any,
    fault: str,
    meaning: Text,
) -> Claim:
    """An exponent of the time to sparsity; ``words`` are sentence and what is measured."""
    return Claim(
        id=f"time-exponent-{name}",
        sentence=words[0],
        source=DERIVED + " and autoencoder.time_to_sparsity",
        measured=words[1],
        low=power - margin,
        high=power + margin,
        expected=spread[0],
        spread=spread[1],
        n=int(p["seeds"]),
        values=values,
        picture=drawing,
        meaning=meaning,
        twin={"fault": fault},
    )


def _law_picture(title: Text, table: str, x: tuple[str, Axis], power: float, fit: Any) -> Drawing:
    return drawn(
        title,
        lambda tables: fit(tables[table]),
        x,
        ("updates", UPDATES),
        {"measured": MEASURED, "theory": Text("predicted exponent", "予測された指数")},
        theory=lambda tables: through(fit(tables[table]), x[0], "updates", power),
    )


def _laws(p: Parameters) -> tuple[Claim, ...]:
    odds = [b / (int(p["law_examples"]) - b) for b in whole(p["law_batches"])]
    size, b = pl.col("examples"), pl.col("batch_size")
    with_odds = (b / (size - b)).alias("odds")
    with_rate = (b * pl.col("ratio")).alias("rate")
    odds_axis = Axis(Text("b / (n − b)", "b ÷ (n − b)"), log=True)
    rate = Axis(Text("step size η", "ステップ幅η"), log=True)
    return (
        _law(
            p,
            "n",
            1.0,
            0.15,
            (1.07, numbers.slope_spread(whole(p["law_sizes"]), 0.44)),
            (
                Text(
                    "At b = 1, the updates to sparsity grow in proportion to n (exponent "
                    "1 ± 0.15; a logarithm is not resolved).",
                    "b = 1では、疎になるまでの更新回数はnに比例します（指数1 ± 0.15。対数の補正は"
                    "区別しません）。",
                ),
                Text(
                    "slope of log updates on log n, b = 1",
                    "log nに対するlog更新回数の傾き（b = 1）",
                ),
            ),
            _law_picture(
                Text("Time grows in proportion to n.", "時間はnに比例する。"),
                "law_n",
                ("examples", EXAMPLES),
                1.0,
                lambda table: table,
            ),
            numbers.exponent_n,
            "passes-for-updates",
            Text(
                "In passes over the data, the time to a sparse solution hardly depends on n.",
                "エポック数で数えれば、疎になるまでの時間はnにほとんどよりません。",
            ),
        ),
        _law(
            p,
            "step-size",
            -2.0,
            0.15,
            (-2.02, numbers.slope_spread(listed(p["law_ratios"]), 0.31)),
            (
                Text(
                    "They fall with the square of the step size (exponent −2 ± 0.15).",
                    "ステップ幅の二乗に反比例して減ります（指数−2 ± 0.15）。",
                ),
                Text(
                    "slope of log updates on log η, b = n/8",
                    "log ηに対するlog更新回数の傾き（b = n/8）",
                ),
            ),
            _law_picture(
                Text(
                    "Time falls with the square of the step.",
                    "時間はステップ幅の二乗に反比例する。",
                ),
                "law_step",
                ("rate", rate),
                -2.0,
                lambda table: table.with_columns(with_rate),
            ),
            numbers.exponent_step,
            "fixed-step",
            Text(
                "Feature selection is second order in the step: halving it takes four times as "
                "long, although the loss is down long before.",
                "特徴の選択はステップ幅の二次の効果です。半分にすると4倍の時間がかかりますが、"
                "損失は"
                "はるか前に下がっています。",
            ),
        ),
        _law(
            p,
            "batch-size",
            1.0,
            0.15,
            (1.04, numbers.slope_spread(odds, 0.33)),
            (
                Text(
                    "At a fixed step size, they grow as b/(n − b) (exponent 1 ± 0.15).",
                    "ステップ幅を固定すると、b/(n − b)に比例して増えます（指数1 ± 0.15）。",
                ),
                Text(
                    "slope of log updates on log b/(n − b), fixed n and η",
                    "log b/(n − b)に対するlog更新回数の傾き（nとηは固定）",
                ),
            ),
            _law_picture(
                Text("Time grows as b/(n − b).", "時間はb/(n − b)に比例する。"),
                "law_batch",
                ("odds", odds_axis),
                1.0,
                lambda table: table.with_columns(with_odds),
            ),
            numbers.exponent_batch,
            "fixed-step",
            Text(
                "Without a larger step, a larger batch needs more updates, not fewer.",
                "ステップ幅を上げなければ、バッチを大きくすると更新回数は減らず、増えます。",
            ),
        ),
        Claim(
            id="time-constant",
            sentence=Text(
                "The updates to sparsity are about 13 n b(n − 1)/((n − b) η²), the factor "
                "being 13 ± 3.",
                "疎になるまでの更新回数は約13 n b(n − 1)/((n − b) η²)です（係数は13 ± 3）。",
            ),
            source=DERIVED
            + " and autoencoder.time_to_sparsity; 13 was measured before, n of 20 to 100",
            measured=Text(
                "updates × (n − b)η²/(n b(n − 1)), median over b < n, linear, the largest n up to "
                "100",
                "更新回数×(n − b)η²/(n b(n − 1))（b < nについての中央値、線形、100以下で最大のn）",
            ),
            low=theory.SPARSITY_CONSTANT - 3,
            high=theory.SPARSITY_CONSTANT + 3,
            expected=15.0,
            spread=2.4,
            n=int(p["seeds"]),
            values=numbers.clock,
            picture=over_grid(
                Text("One constant for all batch sizes.", "定数はバッチサイズによらない。"),
                (
                    "clock",
                    Axis(
                        Text("updates × (n − b)η²/(n b(n − 1))", "更新回数×(n − b)η²/(n b(n − 1))")
                    ),
                ),
                [Level(Text("13", "13"), lambda n: theory.SPARSITY_CONSTANT)],
                Text("0 at b = n, which never becomes sparse.", "b = nは疎にならないため0です。"),
            ),
            meaning=Text(
                "Noise does the work: whatever raises it, a larger step or a smaller batch, "
                "selects sooner.",
                "選択を進めるのはノイズです。ステップ幅を上げる、バッチを小さくするなど、"
                "ノイズを増やす"
                "ものはすべて選択を早めます。",
            ),
            twin={"fault": "fixed-step"},
        ),
        Claim(
            id="engine-agrees",
            sentence=Text(
                "The module trained by the engine and the fast simulation have the same weights, "
                "to round-off, with both executors.",
                "エンジンで学習したモジュールと高速なシミュレーションは、両方の実行方式で、"
                "丸め誤差の範囲で同じ重みになります。",
            ),
            source="this package",
            measured=Text(
                "largest difference of a weight, over b = 1, 7, 20 of 20 examples and "
                "activations; stacked at b = 1, after 1.5 predicted times to sparsity",
                "重みの差の最大値（20件のうちb = 1, 7, 20、両方の活性化関数について。"
                "stackedのb = 1では疎になる予測時間の1.5倍の更新後）",
            ),
            low=-math.inf,
            high=1e-10,
            expected=1e-15,
            spread=1e-15,
            n=int(p["engine_seeds"]),
            values=numbers.engine,
            picture=drawn(
                Text(
                    "Fast simulation and engine agree.",
                    "高速なシミュレーションとエンジンの結果は一致する。",
                ),
                lambda tables: tables["engine"],
                ("batch_size", BATCH),
                ("difference", Axis(Text("largest difference", "差の最大値"))),
                {"loop": Text("loop", "loop"), "stacked": Text("stacked", "stacked")},
                by="executor",
            ),
            meaning=Text(
                "The fast simulation on this page is the training of a real PyTorch module, given "
                "the batches; here both take those of the engine's stream.",
                "同じバッチを与えれば、このページの高速なシミュレーションは実際のPyTorchモジュールの"
                "学習と同じものです。ここでは両方ともエンジンのストリームのバッチを使います。",
            ),
            twin={"fault": "double-step"},
        ),
    )
