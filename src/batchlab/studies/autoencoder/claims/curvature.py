"""How sharp the minima are."""

from __future__ import annotations

import functools
import math

import polars as pl

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers
from batchlab.studies.autoencoder.cells import whole
from batchlab.studies.autoencoder.claims.shared import ABSTRACT, DERIVED
from batchlab.studies.autoencoder.pictures import (
    BATCH,
    Drawing,
    drawn,
    line,
)
from batchlab.studies.claim import Axis, Claim, Parameters, Row, Tables

TRACE = Text("n × trace of the Hessian", "n×ヘッセ行列のトレース")


def claims(p: Parameters) -> tuple[Claim, ...]:
    """Curvature, claim by claim.

    Args:
        p: Parameters.
    """
    return (
        _full_batch_flatter(p),
        _trace_law(p),
        _equal_top_eigenvalue(p),
        _equal_traces_linear(p),
    )


def _full_batch_flatter(p: Parameters) -> Claim:
    n, size = int(p["few_seeds"]), whole(p["sizes"])[0]
    flatter = Text(
        "With ReLU the full-batch minimum is the flatter one.",
        "ReLUでは全データの解のほうが平坦。",
    )
    return Claim(
        id="full-batch-flatter",
        sentence=Text(
            "With ReLU, measured by the trace of the Hessian, the full-batch minimum is "
            "flatter than that of small batches.",
            "ReLUでは、ヘッセ行列のトレースで測ると、全データの解は小さいバッチの解より平坦です。",
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
        picture=_curvature_picture(flatter, "trace", TRACE),
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
    )


def _trace_law(p: Parameters) -> Claim:
    n = int(p["few_seeds"])
    return Claim(
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
            TRACE,
        ),
        meaning=Text(
            "The trace counts coordinates that are not active: here it measures sparsity.",
            "ここでのトレースは活性でない座標の数を数えています。つまり疎さを測っているのです。",
        ),
        twin={"fault": "counts-decayed"},
    )


def _equal_top_eigenvalue(p: Parameters) -> Claim:
    n = int(p["few_seeds"])
    return Claim(
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
    )


def _equal_traces_linear(p: Parameters) -> Claim:
    n = int(p["few_seeds"])
    return Claim(
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
            TRACE,
        ),
        meaning=Text(
            "Sharpness cannot be what selects sparse solutions here: it is equal for all.",
            "ここで疎な解が選ばれる理由は鋭さではありません。鋭さはすべて等しいからです。",
        ),
        twin={"fault": "relu-for-linear"},
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
