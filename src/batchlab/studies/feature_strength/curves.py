"""What training looks like at small and at large γ: curves, sharpness, kernels, catapults."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from batchlab.measure.alignment import kernel_alignment
from batchlab.studies.claim import Bench, Cell, Parameters, Row
from batchlab.studies.feature_strength import faults, nets
from batchlab.studies.feature_strength.inspect import Inspector
from batchlab.studies.feature_strength.nets import Moment, Net, Setting
from batchlab.studies.feature_strength.words import seed

CURVES, ENDS, FULL_BATCH = "curves", "ends", "full batch"
FLOW = {-2: -3.75, 1: -0.5, 2: 0.5, 3: 1.5}
"""Decade of γ → log₁₀ η of the curves; the rich ones share η/γ."""
FLOW_UPDATES = 600
TIMES = 32
"""Moments of a curve, evenly spaced in t."""
TUNED = {-4: -7.5, -3: -5.5, -2: -3.5, -1: -1.75, 0: -0.5, 1: 0.17, 2: 0.83}
"""Decade of γ → log₁₀ of the best rate at depth 3 and T = 300, by the source of the numbers."""
PROBE = 256
CATAPULTS = (1.5, 3.0)
"""Rates times the largest curvature at the start: below 2 and above."""
SMALL, LARGE = 1e-3, 100.0
SHARPENING = 1.5
"""log₁₀ η of full batches at γ = 100."""
SHARPENING_UPDATES = 1000


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """A repetition each."""
    shared = {"fault": parameters["fault"], "width": parameters["width"]}
    work = {CURVES: 3.0, ENDS: 3.0, FULL_BATCH: 6.0}
    return tuple(
        Cell(table, {"repetition": i, **shared}, seconds)
        for table, seconds in work.items()
        for i in range(int(parameters["seeds"]))
    )


def setting(cell: Cell, updates: int, **changes: int) -> Setting:
    """Depth 3, with a cell's width and fault."""
    made = Setting(depth=3, updates=updates, width=int(cell.settings["width"]), **changes)
    return faults.altered(made, str(cell.settings["fault"]))


def divisors(cell: Cell, decades: list[int]) -> list[float]:
    """γ of the runs, unless a fault says otherwise."""
    return [faults.divisor(10.0**k, str(cell.settings["fault"])) for k in decades]


# ------------------------------------------------------------------ curves


def curves(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ and moment: loss on fixed inputs, sharpness, and the kernel's alignment."""
    asked, name = setting(cell, FLOW_UPDATES), seed(int(cell.settings["repetition"]), bench)
    decades = list(FLOW)
    gammas = torch.tensor(divisors(cell, decades), dtype=torch.float64)
    inspector = Inspector(asked, nets.start(asked, name), nets.probe(asked, PROBE))
    at = np.linspace(0, FLOW_UPDATES, TIMES + 1).round().astype(int).tolist()
    found: list[Row] = []

    def watch(moment: Moment) -> None:
        some = gammas[moment.runs]
        seen = (
            inspector.losses(moment.net, some),
            inspector.sharpness(moment.net, some),
            inspector.alignment(moment.net),
        )
        for run, *numbers in zip(moment.runs.tolist(), *(s.tolist() for s in seen), strict=True):
            named = zip(("loss", "sharpness", "alignment"), numbers, strict=True)
            found.append({"gamma": decades[run], "t": moment.update, **dict(named)})

    rates = [10.0**rate for rate in FLOW.values()]
    nets.train(asked, name, gammas.tolist(), rates, watch=watch, at=at)
    return found


# ------------------------------------------------------------------ ends


def ends(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ: sharpness before and after, and how alike nets of two seeds are in the end."""
    first = 2 * int(cell.settings["repetition"])
    asked = setting(cell, 300)
    decades = list(TUNED)
    gammas = torch.tensor(divisors(cell, decades), dtype=torch.float64)
    seen = [_trained(asked, seed(first + k, bench), gammas) for k in (0, 1)]
    return [
        {
            "gamma": decade,
            "loss": float(seen[0].losses[r]),
            "before": float(seen[0].before[r]),
            "sharpness": float(seen[0].after[r]),
            "functions": agreement(seen[0].outputs[r], seen[1].outputs[r]),
            "representations": kernel_alignment(seen[0].hidden[r], seen[1].hidden[r]),
        }
        for r, decade in enumerate(decades)
    ]


def agreement(one: Float[Tensor, "B 1"], other: Float[Tensor, "B 1"]) -> float:
    """1 − E(F − G)²/(EF² + EG²): 1 where two functions are the same, 0 where unrelated.

    Example:
        >>> agreement(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]]))
        1.0
    """
    apart = (one - other).square().mean()
    return float(1 - apart / (one.square().mean() + other.square().mean()))


class _Ends:
    """What is left of training."""

    def __init__(self, inspector: Inspector, begin: Net, net: Net, gammas: Tensor) -> None:
        self.losses = inspector.losses(net, gammas)
        self.after = inspector.sharpness(net, gammas)
        same = nets.taken(begin, torch.zeros(len(gammas), dtype=torch.int64))
        self.before = inspector.sharpness(same, gammas)
        self.outputs, self.hidden = inspector.outputs(net, gammas), inspector.hidden(net)


def _trained(asked: Setting, name: int, gammas: Float[Tensor, " R"]) -> _Ends:
    begin = nets.start(asked, name)
    last: dict[int, tuple[Tensor, ...]] = {}

    def watch(moment: Moment) -> None:
        wide = [[part.double() for part in layer] for layer in moment.net]
        for place, run in enumerate(moment.runs.tolist()):
            last[run] = tuple(part[place] for layer in wide for part in layer)

    rates = [10.0**rate for rate in TUNED.values()]
    nets.train(asked, name, gammas.tolist(), rates, watch=watch, at=(asked.updates,))
    nothing = tuple(torch.full_like(part[0], math.nan) for layer in begin for part in layer)
    parts = [last.get(run, nothing) for run in range(len(gammas))]
    stacked = [torch.stack(part) for part in zip(*parts, strict=True)]
    net = tuple(map(nets.Layer, stacked[::2], stacked[1::2]))
    return _Ends(Inspector(asked, begin, nets.probe(asked, PROBE)), begin, net, gammas)


# ------------------------------------------------------------------ full batches


def full_batch(cell: Cell, bench: Bench) -> list[Row]:
    """A row a run on one batch that never changes: catapults at small γ, 2/η at large."""
    name = seed(int(cell.settings["repetition"]), bench)
    asked = setting(cell, SHARPENING_UPDATES, batch_size=PROBE, examples=PROBE)
    begin, data = nets.start(asked, name), nets.stream(asked, name)
    inspector = Inspector(asked, begin, (data.inputs[0], data.labels[0]))
    fault = str(cell.settings["fault"])
    small, large = (torch.tensor([faults.divisor(g, fault)]) for g in (SMALL, LARGE))
    first = float(inspector.sharpness(begin, small))
    gammas = [float(small)] * len(CATAPULTS) + [float(large)]
    rates = [share / first for share in CATAPULTS] + [10.0**SHARPENING]
    found: dict[int, list[float]] = {run: [] for run in range(len(gammas))}

    def watch(moment: Moment) -> None:
        some = torch.tensor(gammas, dtype=torch.float64)[moment.runs]
        for run, value in zip(
            moment.runs.tolist(), inspector.sharpness(moment.net, some).tolist(), strict=True
        ):
            found[run].append(value)

    at = np.linspace(0, SHARPENING_UPDATES, 11).round().astype(int).tolist()
    losses = nets.train(asked, name, gammas, rates, watch=watch, at=at)
    return [
        {
            "run": f"catapult {CATAPULTS[r]:g}" if r < len(CATAPULTS) else "sharpening",
            "peak": float(losses[r].nan_to_num(math.inf).max() / losses[r, 0]),
            "end": float(losses[r, -1] / losses[r, 0]),
            "first": found[r][0] * rates[r],
            "last": found[r][-1] * rates[r] if len(found[r]) == len(at) else math.nan,
            "sharpest": max(found[r]) * rates[r],
        }
        for r in range(len(gammas))
    ]
