"""The plane of γ and η: what diverges, what does not learn, and what learns."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import polars as pl
import torch

from batchlab._text import Text
from batchlab.studies.claim import (
    Axis,
    Bench,
    Cell,
    Claim,
    Parameters,
    Picture,
    Row,
    Sample,
    Tables,
)
from batchlab.studies.feature_strength import faults, nets, sweep
from batchlab.studies.feature_strength.inspect import Inspector
from batchlab.studies.feature_strength.nets import Moment, Setting
from batchlab.studies.feature_strength.sweep import State, Sweep
from batchlab.studies.feature_strength.words import GAMMA, RATE, finding, sample, seed
from batchlab.theory.feature_strength import DeepLinear

TABLE, RUNS = "plane", "runs of the plane"
DEPTHS = (2, 3)
GAMMAS = tuple(-5 + k / 2 for k in range(21))
PER_DECADE = 2
LOOKS = 5
"""Moments at which runs that can be picked are looked at."""
FURTHEST = 1e4
"""Times the start, beyond which a curve is not drawn."""
EXAMPLES = 64
"""Fixed inputs for that."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One a depth and repetition."""
    T, span = int(parameters["plane_updates"]), int(parameters["plane_span"])
    shared = {
        "updates": T,
        "span": span,
        "width": parameters["width"],
        "fault": parameters["fault"],
    }
    count = range(int(parameters["plane_seeds"]))
    return (
        *(
            Cell(TABLE, {"depth": L, "repetition": i, **shared}, L**1.6 * T * span / 900)
            for L in DEPTHS
            for i in count
        ),
        *(
            Cell(RUNS, {"depth": DEPTHS[-1], "repetition": i, **shared}, 8 + T * span / 900)
            for i in count
        ),
    )


def asked(cell: Cell) -> Sweep:
    """The plane of a cell."""
    given = cell.settings
    return Sweep(
        Setting(
            depth=int(given["depth"]), updates=int(given["updates"]), width=int(given["width"])
        ),
        tuple(10.0**k for k in GAMMAS),
        per_decade=PER_DECADE,
        span=float(given["span"]),
        rounds=2,
        fault=str(given["fault"]),
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a run."""
    runs = sweep.run(asked(cell), seed(int(cell.settings["repetition"]), bench))
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


def looked_at(cell: Cell, bench: Bench) -> list[Row]:
    """A row a moment of every run whose γ and η are full decades of the plane."""
    plane, name = asked(cell), seed(int(cell.settings["repetition"]), bench)
    setting, fault = faults.altered(plane.setting, plane.fault), plane.fault
    decades = replace(plane, setting=setting, gammas=plane.gammas[::PER_DECADE])
    pairs = [pair for pair in sweep.grid(decades, name) if pair[1] == round(pair[1])]
    gammas = torch.tensor([faults.divisor(g, fault) for g, _ in pairs], dtype=torch.float64)
    inspector = Inspector(setting, nets.start(setting, name), nets.probe(setting, EXAMPLES))
    found: list[Row] = []

    def watch(moment: Moment) -> None:
        seen = inspector.seen(moment.net, gammas[moment.runs])
        for run, *numbers in zip(moment.runs.tolist(), *(s.tolist() for s in seen), strict=True):
            gamma, rate = round(math.log10(pairs[run][0])), round(pairs[run][1])
            named = dict(zip(("loss", "sharpness", "alignment"), numbers, strict=True))
            found.append({"gamma": gamma, "rate": rate, "t": moment.update, **named})

    at = np.linspace(0, setting.updates, LOOKS + 1).round().astype(int).tolist()
    rates = [10.0**rate for _, rate in pairs]
    nets.train(setting, name, gammas.tolist(), rates, watch=watch, at=at)
    return found


# ------------------------------------------------------------------ numbers


def sharpens(tables: Tables) -> Sample:
    """Of the runs at γ ≥ 1 that lasted all updates and learned, the share that ended sharper."""
    ends = (
        tables[RUNS]
        .filter(pl.col("gamma") >= 0)
        .sort("t")
        .group_by("repetition", "gamma", "rate")
        .agg(
            pl.col("sharpness").first().alias("first"),
            pl.col("sharpness").last().alias("last"),
            ((pl.col("t") == pl.col("updates")) & pl.col("sharpness").is_finite())
            .any()
            .alias("whole"),
            (pl.col("loss").last() < sweep.FELL * pl.col("loss").first()).alias("learned"),
        )
    )
    told = (
        ends.filter("whole", "learned")
        .group_by("repetition")
        .agg((pl.col("last") > pl.col("first")).mean().alias("share"))
    )
    return sample(told, "share")


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
            "id": _id(row["gamma"], row["rate"]) if depth == DEPTHS[-1] else None,
        }
        for row in sorted(part.iter_rows(named=True), key=_from_first)
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
        picks="offers" if depth == DEPTHS[-1] else "",
    )


def _from_first(row: Row) -> float:
    """Distance from γ = 10 and η = 1, which is picked when the page opens: a rich run."""
    return abs(float(row["gamma"]) - 1) + abs(float(row["rate"]))


def _id(gamma: float, rate: float) -> str | None:
    """Name of a run that was looked at: both decades are full."""
    whole = gamma == round(gamma) and rate == round(rate)
    return f"γ = 10^{round(gamma)}, η = 10^{round(rate)}" if whole else None


LOOKED = {
    "loss": Text("loss", "損失"),
    "sharpness": Text("sharpness", "シャープネス"),
    "alignment": Text("alignment of the kernel with the labels", "カーネルと正解の一致度"),
}


def runs_picture(tables: Tables) -> Picture:
    """Loss, sharpness and alignment of the run that is picked, over those at the start."""
    part = tables[RUNS].filter(pl.col("repetition") == 0).sort("t")
    begin = part.filter(pl.col("t") == 0).select("gamma", "rate", *LOOKED)
    told = part.join(begin, on=["gamma", "rate"], suffix=" first")
    rows = tuple(
        {
            "x": row["t"],
            "y": row[name] / row[f"{name} first"],
            "low": math.nan,
            "high": math.nan,
            "n": 1,
            "series": name,
            "id": _id(row["gamma"], row["rate"]),
        }
        for row in sorted(told.iter_rows(named=True), key=_from_first)
        for name in LOOKED
        if 1 / FURTHEST < row[name] / row[f"{name} first"] < FURTHEST
    )
    return Picture(
        title=Text(
            "The run that is picked in the plane above: click one with a ring.",
            "上の平面で選んだ学習（輪のある点をクリック）。",
        ),
        x=Axis(Text("updates t", "更新回数t")),
        y=Axis(Text("as a multiple of its start", "開始時に対する倍率"), log=True),
        points=rows,
        series=LOOKED,
        caption=Text(
            f"One seed (n = 1), on {EXAMPLES} fixed inputs. A run that diverges ends early; what "
            "is below 0 or 10⁴ times as large or small as at the start is left out.",
            f"種は一つ（n＝1）、固定した{EXAMPLES}件の入力で測定。発散した学習は途中で終わり、"
            "0未満の値と、開始時の10⁴倍を超えて変わった値は省いています。",
        ),
        picks="follows",
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
    planes = tuple(
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
    runs = finding(
        n,
        id="plane-runs",
        sentence=Text(
            "Runs of the plane at depth 3, one at a time.", "深さ3の平面の学習を一つずつ。"
        ),
        measured=Text(
            "of the runs at γ ≥ 1 that learned, the share that ended sharper than they began",
            "γ≥1で学習できたもののうち、開始時より鋭くなった割合",
        ),
        values=sharpens,
        picture=runs_picture,
        meaning=Text(
            "Look at a run on each side of an edge.", "境界の両側の学習を見比べてください。"
        ),
    )
    return (*planes, runs)
