"""How long it takes to become sparse."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchlab._text import Text
from batchlab.studies.autoencoder import numbers
from batchlab.studies.autoencoder.cells import listed, whole
from batchlab.studies.autoencoder.claims.shared import DERIVED
from batchlab.studies.autoencoder.pictures import (
    EXAMPLES,
    MEASURED,
    UPDATES,
    Drawing,
    Level,
    drawn,
    over_grid,
    through,
)
from batchlab.studies.claim import Axis, Claim, Parameters
from batchlab.theory import autoencoder as theory

MARGIN = 0.15
"""Of an exponent."""


def claims(p: Parameters) -> tuple[Claim, ...]:
    """The time to sparsity, claim by claim.

    Args:
        p: Parameters.
    """
    return (
        _exponent_of_n(p),
        _exponent_of_step_size(p),
        _exponent_of_batch_size(p),
        _time_constant(p),
    )


def _exponent_of_n(p: Parameters) -> Claim:
    return _exponent(
        p,
        "n",
        1.0,
        "passes-for-updates",
        expected=1.07,
        spread=numbers.slope_spread(whole(p["law_sizes"]), 0.44),
        sentence=Text(
            "At b = 1, the updates to sparsity grow in proportion to n (exponent "
            "1 ± 0.15; a logarithm is not resolved).",
            "b = 1では、疎になるまでの更新回数はnに比例します（指数1 ± 0.15。対数の補正は"
            "区別しません）。",
        ),
        measured=Text(
            "slope of log updates on log n, b = 1",
            "log nに対するlog更新回数の傾き（b = 1）",
        ),
        values=numbers.exponent_n,
        picture=_law_picture(
            Text("Time grows in proportion to n.", "時間はnに比例する。"),
            "law_n",
            ("examples", EXAMPLES),
            1.0,
            lambda table: table,
        ),
        meaning=Text(
            "In passes over the data, the time to a sparse solution hardly depends on n.",
            "エポック数で数えれば、疎になるまでの時間はnにほとんどよりません。",
        ),
    )


def _exponent_of_step_size(p: Parameters) -> Claim:
    rate = Axis(Text("step size η", "ステップ幅η"), log=True)
    with_rate = (pl.col("batch_size") * pl.col("ratio")).alias("rate")
    return _exponent(
        p,
        "step-size",
        -2.0,
        "fixed-step",
        expected=-2.02,
        spread=numbers.slope_spread(listed(p["law_ratios"]), 0.31),
        sentence=Text(
            "They fall with the square of the step size (exponent −2 ± 0.15).",
            "ステップ幅の二乗に反比例して減ります（指数−2 ± 0.15）。",
        ),
        measured=Text(
            "slope of log updates on log η, b = n/8",
            "log ηに対するlog更新回数の傾き（b = n/8）",
        ),
        values=numbers.exponent_step,
        picture=_law_picture(
            Text(
                "Time falls with the square of the step.",
                "時間はステップ幅の二乗に反比例する。",
            ),
            "law_step",
            ("rate", rate),
            -2.0,
            lambda table: table.with_columns(with_rate),
        ),
        meaning=Text(
            "Feature selection is second order in the step: halving it takes four times as "
            "long, although the loss is down long before.",
            "特徴の選択はステップ幅の二次の効果です。半分にすると4倍の時間がかかりますが、"
            "損失は"
            "はるか前に下がっています。",
        ),
    )


def _exponent_of_batch_size(p: Parameters) -> Claim:
    odds = [b / (int(p["law_examples"]) - b) for b in whole(p["law_batches"])]
    size, b = pl.col("examples"), pl.col("batch_size")
    odds_axis = Axis(Text("b / (n − b)", "b ÷ (n − b)"), log=True)
    with_odds = (b / (size - b)).alias("odds")
    return _exponent(
        p,
        "batch-size",
        1.0,
        "fixed-step",
        expected=1.04,
        spread=numbers.slope_spread(odds, 0.33),
        sentence=Text(
            "At a fixed step size, they grow as b/(n − b) (exponent 1 ± 0.15).",
            "ステップ幅を固定すると、b/(n − b)に比例して増えます（指数1 ± 0.15）。",
        ),
        measured=Text(
            "slope of log updates on log b/(n − b), fixed n and η",
            "log b/(n − b)に対するlog更新回数の傾き（nとηは固定）",
        ),
        values=numbers.exponent_batch,
        picture=_law_picture(
            Text("Time grows as b/(n − b).", "時間はb/(n − b)に比例する。"),
            "law_batch",
            ("odds", odds_axis),
            1.0,
            lambda table: table.with_columns(with_odds),
        ),
        meaning=Text(
            "Without a larger step, a larger batch needs more updates, not fewer.",
            "ステップ幅を上げなければ、バッチを大きくすると更新回数は減らず、増えます。",
        ),
    )


def _time_constant(p: Parameters) -> Claim:
    return Claim(
        id="time-constant",
        sentence=Text(
            "The updates to sparsity are about 13 n b(n − 1)/((n − b) η²), the factor "
            "being 13 ± 3.",
            "疎になるまでの更新回数は約13 n b(n − 1)/((n − b) η²)です（係数は13 ± 3）。",
        ),
        source=DERIVED
        + " and autoencoder.time_to_sparsity; 13 was measured before, n of 20 to 100",
        measured=Text(
            "updates × (n − b)η²/(n b(n − 1)), median over b < n, linear, the largest n up to 100",
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
                Axis(Text("updates × (n − b)η²/(n b(n − 1))", "更新回数×(n − b)η²/(n b(n − 1))")),
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
    )


def _exponent(p: Parameters, name: str, power: float, fault: str, **given: Any) -> Claim:
    """An exponent of the time to sparsity.

    Args:
        p: Parameters.
        name: Of what.
        power: As predicted.
        fault: The twin's.
        given: What else a claim has.
    """
    return Claim(
        id=f"time-exponent-{name}",
        source=DERIVED + " and autoencoder.time_to_sparsity",
        low=power - MARGIN,
        high=power + MARGIN,
        n=int(p["seeds"]),
        twin={"fault": fault},
        **given,
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
