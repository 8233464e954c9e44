"""A fixed order of batches."""

from __future__ import annotations

import polars as pl

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers
from batchlab.studies.autoencoder.claims.shared import DERIVED, share
from batchlab.studies.autoencoder.pictures import (
    ACTIVATIONS,
    BATCH,
    BREADTH,
    MEASURED,
    THEORY,
    UPDATES,
    drawn,
    line,
)
from batchlab.studies.claim import Axis, Claim, Parameters


def claims(p: Parameters) -> tuple[Claim, ...]:
    """Fixed orders of batches, claim by claim.

    Args:
        p: Parameters.
    """
    return (
        _cyclic_sparse(p),
        _fixed_partition(p),
    )


def _cyclic_sparse(p: Parameters) -> Claim:
    n = int(p["seeds"])
    return share(
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
            "whether the participation ratio is below 1.001 in all cyclic runs of a repetition",
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
    )


def _fixed_partition(p: Parameters) -> Claim:
    n = int(p["seeds"])
    return Claim(
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
    )
