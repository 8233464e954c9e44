"""The plane of γ and η: what diverges, what does not learn, and what learns."""

from __future__ import annotations

import functools
import math

import polars as pl

from batchlab._text import Text
from batchlab.studies.claim import Bench, Cell, Claim, Parameters, Picture, Row, Sample, Tables
from batchlab.studies.feature_strength import sweep
from batchlab.studies.feature_strength.nets import Setting
from batchlab.studies.feature_strength.sweep import State, Sweep
from batchlab.studies.feature_strength.words import GAMMA, RATE, finding, sample, seed
from batchlab.theory.feature_strength import DeepLinear

TABLE = "plane"
DEPTHS = (2, 3)
GAMMAS = tuple(-5 + k / 2 for k in range(21))
PER_DECADE = 2


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One a depth and repetition."""
    T, span = int(parameters["plane_updates"]), int(parameters["plane_span"])
    shared = {
        "updates": T,
        "span": span,
        "width": parameters["width"],
        "fault": parameters["fault"],
    }
    return tuple(
        Cell(TABLE, {"depth": L, "repetition": i, **shared}, L**1.6 * T * span / 900)
        for L in DEPTHS
        for i in range(int(parameters["plane_seeds"]))
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a run."""
    given = cell.settings
    asked = Sweep(
        Setting(
            depth=int(given["depth"]), updates=int(given["updates"]), width=int(given["width"])
        ),
        tuple(10.0**k for k in GAMMAS),
        per_decade=PER_DECADE,
        span=float(given["span"]),
        rounds=2,
        fault=str(given["fault"]),
    )
    runs = sweep.run(asked, seed(int(given["repetition"]), bench))
    return [
        {
            "gamma": round(math.log10(run.gamma), 3),
            "rate": run.rate,
            "state": str(run.state),
            "loss": run.loss,
            "peak": run.peak,
        }
        for run in runs
    ]


# ------------------------------------------------------------------ numbers


def learned_share(tables: Tables, depth: int) -> Sample:
    """Decades of rates that learned, mean over γ from 1 to 10⁵; one a repetition."""
    part = tables[TABLE].filter(
        (pl.col("depth") == depth)
        & (pl.col("gamma") >= 0)
        & (pl.col("state") == str(State.LEARNED))
    )
    wide = part.group_by("repetition", "gamma").agg(
        (pl.col("rate").max() - pl.col("rate").min()).alias("width")
    )
    count = sum(gamma >= 0 for gamma in GAMMAS)
    told = wide.group_by("repetition").agg(pl.col("width").sum() / count)
    return sample(told, "width")


# ------------------------------------------------------------------ picture

SERIES = {
    str(State.LEARNED): Text("learned", "学習した"),
    str(State.DIVERGED): Text("diverged", "発散した"),
    str(State.DEAD): Text("finite, did not learn", "有限だが学習せず"),
    "highest": Text("theory: η_max, curvature at the minimum", "理論：η_max（極小での曲率）"),
    "lowest": Text("theory: η_min, the budget", "理論：η_min（更新回数）"),
    "start": Text("theory: η_crit, curvature at the start", "理論：η_crit（開始時の曲率）"),
}


def picture(tables: Tables, depth: int) -> Picture:
    """The first repetition's runs, and the edges of the model of one parameter."""
    part = tables[TABLE].filter((pl.col("depth") == depth) & (pl.col("repetition") == 0))
    updates = int(part["updates"][0])
    runs = tuple(
        {
            "x": row["gamma"],
            "y": row["rate"],
            "low": math.nan,
            "high": math.nan,
            "n": 1,
            "series": row["state"],
        }
        for row in part.iter_rows(named=True)
    )
    return Picture(
        title=Text(
            f"Depth {depth}: lazy on the left, rich on the right, and below both what the budget "
            "is too short for.",
            f"深さ{depth}：左がlazy、右がrich、その下は更新回数が足りない領域。",
        ),
        x=GAMMA,
        y=RATE,
        points=runs,
        series=SERIES,
        caption=Text(
            f"One seed, T = {updates}, batch size 64; every run is a point, edges are bisected. "
            "Lines: the deep linear model of one parameter; its constants are not the net's.",
            f"種は一つ、T＝{updates}、バッチサイズ64。点は一つの学習で、境界は二分法で求めました。"
            "線は1パラメータの深い線形モデルで、定数はネットと異なります。",
        ),
        theory=_edges(depth, updates),
    )


def _edges(depth: int, updates: int) -> tuple[Row, ...]:
    model, found = DeepLinear(depth), []
    for k in GAMMAS:
        band = model.band(10.0**k, updates)
        ends = {"highest": band.high, "lowest": band.low, "start": model.start_rate(10.0**k)}
        found += [
            {"x": k, "y": math.log10(y), "series": name}
            for name, y in ends.items()
            if math.isfinite(y)
        ]
    return tuple(found)


# ------------------------------------------------------------------ findings


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """None; the exponents are fitted where there are more repetitions."""
    return ()


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """The plane at both depths."""
    n = int(parameters["plane_seeds"])
    return tuple(
        finding(
            n,
            id=f"plane-{depth}",
            sentence=Text(
                f"The plane of γ and η at depth {depth}.", f"深さ{depth}でのγとηの平面。"
            ),
            measured=Text(
                "decades of rates that learn, mean over γ from 1 to 10⁵",
                "学習できる学習率の幅（桁、γが1から10⁵の平均）",
            ),
            unit="decades",
            values=functools.partial(learned_share, depth=depth),
            picture=functools.partial(picture, depth=depth),
            meaning=Text(
                "Choose γ first; then the learning rate has to lie in the band of that γ.",
                "まずγを選び、学習率はそのγの帯の中から選んでください。",
            ),
        )
        for depth in DEPTHS
    )
