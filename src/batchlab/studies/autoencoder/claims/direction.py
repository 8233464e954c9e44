"""How much of the direction of w(0) is left."""

from __future__ import annotations

import math
from typing import Any

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers
from batchlab.studies.autoencoder.cells import whole
from batchlab.studies.autoencoder.claims.shared import ABSTRACT, COSINE, DERIVED
from batchlab.studies.autoencoder.pictures import (
    BATCH,
    EXAMPLES,
    MEASURED,
    Level,
    drawn,
    line,
    over_grid,
    through,
)
from batchlab.studies.claim import Axis, Claim, Parameters, Tables
from batchlab.theory import autoencoder as theory

LARGEST_COSINE, COSINE_SCATTER = 2.4, 0.3
"""√n × |cos(w, w(0))|: the largest over batch sizes and activations, below the 2.75 of the largest
of 100 coordinates, and how much repetitions differ."""


def claims(p: Parameters) -> tuple[Claim, ...]:
    """The direction of w(0), claim by claim.

    Args:
        p: Parameters.
    """
    return (
        _nearly_orthogonal(p),
        _orthogonal_with_n(p),
        _full_batch_aligned(p),
        _full_batch_limit_relu(p),
        _full_batch_aligned_relu(p),
    )


def _nearly_orthogonal(p: Parameters) -> Claim:
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


def _orthogonal_with_n(p: Parameters) -> Claim:
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


def _full_batch_aligned(p: Parameters) -> Claim:
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


def _full_batch_limit_relu(p: Parameters) -> Claim:
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


def _full_batch_aligned_relu(p: Parameters) -> Claim:
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
