"""How the best and the largest learning rate move with γ, and where no rate is left."""

from __future__ import annotations

import functools
import math

import numpy as np
import polars as pl

from batchlab._text import Text
from batchlab.stats import slopes
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
from batchlab.studies.drawing import points
from batchlab.studies.feature_strength import sweep
from batchlab.studies.feature_strength.nets import Setting
from batchlab.studies.feature_strength.sweep import Run, State, Sweep
from batchlab.studies.feature_strength.words import (
    GAMMA,
    RATE,
    captioned,
    finding,
    sample,
    seed,
)
from batchlab.theory.feature_strength import exponents

TABLE, CLOSING, ENTROPY = "rates", "closing", "cross-entropy"
DEPTHS = (2, 3, 4, 5)
DECADES = (-5, -3, -2, -1, 0, 1, 2, 3, 4)
REFERENCE = {
    2: (-5.5, -3.5, -1.5, -0.25, 1.0, 2.0, 3.0, 4.0),
    3: (-5.5, -3.5, -1.75, -0.5, 0.17, 0.83, 1.75, 2.67),
}
"""L → log₁₀ of the best rate at γ = 10⁻³ … 10⁴, by the source of the numbers."""
FIRST = -3
LAZY, RICH = (-5, -3), (0, 2)
"""Decades of γ between which the exponents are fitted."""
ENTROPY_DECADES = (-4, -3, -2)
BOUND = (2, 4)
"""Where the short budget decides at depth 3."""
SHORT_BUDGET = 100
CLOSING_DECADES = tuple(k / 2 for k in range(2, 15))
CALM = 2.0
"""Curvature is stable as long as no batch loses more than this many times the start."""
CALM_REACH = 5.0


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """A repetition of a depth each."""
    fault, updates = parameters["fault"], int(parameters["updates"])
    shared = {"fault": fault, "width": parameters["width"]}
    count = range(int(parameters["seeds"]))
    work = updates / 300
    return (
        *(
            Cell(TABLE, {"depth": L, "repetition": i, "updates": updates, **shared}, L**1.8 * work)
            for L in DEPTHS
            for i in count
        ),
        *(
            Cell(CLOSING, {"depth": L, "repetition": i, **shared}, L**1.8 / 3)
            for L in (2, 3, 4)
            for i in count
        ),
        *(Cell(ENTROPY, {"repetition": i, **shared}, 2.0) for i in count),
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ."""
    given = cell.settings
    asked = Sweep(
        Setting(
            depth=int(given["depth"]),
            updates=int(given.get("updates", SHORT_BUDGET)),
            width=int(given["width"]),
        ),
        tuple(10.0**k for k in (DECADES if cell.table == TABLE else CLOSING_DECADES)),
        span=2.25,
        rounds=2 if cell.table == TABLE else 0,
        fault=str(given["fault"]),
    )
    return rows(sweep.run(asked, seed(int(given["repetition"]), bench)), asked)


def rows(runs: list[Run], asked: Sweep) -> list[Row]:
    """What a plane says of each γ."""
    found = []
    for gamma in asked.gammas:
        here = [one for one in runs if one.gamma == gamma]
        learned = [one.loss for one in here if one.state is State.LEARNED]
        low, high = sweep.edge(here, gamma)
        found.append(
            {
                "gamma": round(math.log10(gamma), 3),
                "best": sweep.best(here, gamma),
                "largest": (low + high) / 2,
                "smallest": sweep.lower_edge(here, gamma)[0],
                "loss": min(learned, default=math.nan),
                "dead": sum(one.state is State.DEAD and one.rate > low for one in here),
            }
        )
    return found


def entropy(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ: up to which rate the loss never grows, and up to which it stays finite."""
    given = cell.settings
    asked = Sweep(
        Setting(depth=3, updates=200, width=int(given["width"]), loss="cross-entropy"),
        tuple(10.0**k for k in ENTROPY_DECADES),
        per_decade=3,
        span=CALM_REACH,
        fault=str(given["fault"]),
    )
    runs = sweep.run(asked, seed(int(given["repetition"]), bench))
    return [
        {
            "gamma": round(math.log10(gamma), 3),
            "calm": sweep.highest(runs, gamma, CALM),
            "bounded": sweep.highest(runs, gamma, sweep.BOUNDED),
            "best": sweep.best(runs, gamma),
        }
        for gamma in asked.gammas
    ]
