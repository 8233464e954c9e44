"""What training looks like at small and at large γ: curves, sharpness, kernels, catapults."""

from __future__ import annotations

import functools
import math

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Num
from torch import Tensor

from batchlab._text import Text
from batchlab.measure.alignment import kernel_alignment
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
from batchlab.studies.feature_strength import faults, nets
from batchlab.studies.feature_strength.inspect import Inspector
from batchlab.studies.feature_strength.nets import Moment, Net, Setting
from batchlab.studies.feature_strength.words import GAMMA, captioned, sample, seed
from batchlab.theory.feature_strength import DeepLinear

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
LATE = 4
"""Of eleven looks at the sharpness, so many make that of the end."""
FIRST_DROP, HALF = 0.1, 0.5
STEP = 0.03
"""A drop between two records is part of a step if it takes this share of the first loss."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """A repetition each."""
    shared = {"fault": parameters["fault"], "width": parameters["width"]}
    work = {CURVES: 1.0, ENDS: 1.7, FULL_BATCH: 3.0}
    return tuple(
        Cell(table, {"repetition": i, **shared}, seconds)
        for table, seconds in work.items()
        for i in range(int(parameters["seeds"]))
    )


def setting(cell: Cell, updates: int, batch_size: int = 64, examples: int = 0) -> Setting:
    """Depth 3, with a cell's width and fault."""
    made = Setting(
        depth=3,
        updates=updates,
        width=int(cell.settings["width"]),
        batch_size=batch_size,
        examples=examples,
    )
    return faults.altered(made, str(cell.settings["fault"]))


def divisors(cell: Cell, decades: list[int]) -> list[float]:
    """γ of the runs, unless a fault says otherwise."""
    return [faults.divisor(10.0**k, str(cell.settings["fault"])) for k in decades]


# ------------------------------------------------------------------ curves


def curves(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ and moment: loss on fixed inputs, and the kernel's alignment."""
    asked, name = setting(cell, FLOW_UPDATES), seed(int(cell.settings["repetition"]), bench)
    decades = list(FLOW)
    gammas = torch.tensor(divisors(cell, decades), dtype=torch.float64)
    inspector = Inspector(asked, nets.start(asked, name), nets.probe(asked, PROBE))
    at = np.linspace(0, FLOW_UPDATES, TIMES + 1).round().astype(int).tolist()
    found: list[Row] = []

    def watch(moment: Moment) -> None:
        losses = inspector.losses(moment.net, gammas[moment.runs]).tolist()
        aligned = inspector.alignment(moment.net).tolist()
        for run, loss, one in zip(moment.runs.tolist(), losses, aligned, strict=True):
            told = {"gamma": decades[run], "t": moment.update, "loss": loss, "alignment": one}
            found.append(told)

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
    names = (first, first if cell.settings["fault"] == "one seed" else first + 1)
    seen = [_trained(asked, seed(name, bench), gammas) for name in names]
    return [
        {
            "gamma": decade,
            "loss": float(seen[0].losses[r]),
            "before": float(seen[0].before[r]),
            "sharpness": float(seen[0].after[r]),
            "silent": float((seen[0].hidden[r] == 0).double().mean()),
            "signal before": float(seen[0].signal_before[r]),
            "signal": float(seen[0].signal[r]),
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
        self.signal_before = inspector.signal_to_noise(same, gammas)
        self.signal = inspector.signal_to_noise(net, gammas)
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
    examples = data.inputs[0], data.labels[0]
    inspector = Inspector(asked, begin, examples)
    fault = str(cell.settings["fault"])
    small, large = (faults.divisor(gamma, fault) for gamma in (SMALL, LARGE))
    gammas = [small] * len(CATAPULTS) + [large]
    first = intended_sharpness(cell, name, examples)
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
            "last": float(np.mean(found[r][-LATE:])) * rates[r]
            if len(found[r]) == len(at)
            else math.nan,
        }
        for r in range(len(gammas))
    ]


def intended_sharpness(cell: Cell, name: int, examples: tuple[Tensor, Tensor]) -> float:
    """At the start and the small γ, of the net without a fault: else rates would follow faults."""
    intended = Setting(depth=3, updates=1, width=int(cell.settings["width"]))
    begin = nets.start(intended, name)
    return float(Inspector(intended, begin, examples).sharpness(begin, torch.tensor([SMALL])))


# ------------------------------------------------------------------ numbers


def paths(
    tables: Tables, gamma: int, column: str = "loss"
) -> tuple[Num[np.ndarray, " T"], Num[np.ndarray, "n T"]]:
    """Times, and a curve each repetition, NaN from its divergence on."""
    part = tables[CURVES].filter(pl.col("gamma") == gamma)
    wide = part.pivot("t", index="repetition", values=column).sort("repetition")
    times = np.array([int(name) for name in wide.columns[1:]])
    order = np.argsort(times)
    return times[order], wide.drop("repetition").to_numpy()[:, order].astype(float)


def falls_to(times: Num[np.ndarray, " T"], losses: Num[np.ndarray, " T"], share: float) -> float:
    """When a loss first is below a share of its start, between records by a straight line.

    Returns:
        The last time where it never is.

    Example:
        >>> falls_to(np.array([0, 10, 20]), np.array([1.0, 0.8, 0.4]), 0.5)
        17.5
    """
    wanted = share * losses[0]
    below = np.flatnonzero(losses <= wanted)
    if not len(below) or not below[0]:
        return float(times[-1])
    after = int(below[0])
    before = after - 1
    part = (losses[before] - wanted) / (losses[before] - losses[after])
    return float(times[before] + part * (times[after] - times[before]))


def half_times(tables: Tables, gamma: int) -> Sample:
    """Updates until the loss has halved, all of them if it never has; one a repetition."""
    times, losses = paths(tables, gamma)
    found = np.array([falls_to(times, one, HALF) for one in losses])
    return np.where(found < times[-1], found, FLOW_UPDATES)


def collapse(tables: Tables) -> Sample:
    """Ln of the ratio of the half times at γ = 1000 and 10, in τ = ηt/γ.

    Where either never halves, ln T, the largest ratio that there could be: two flat curves lie on
    each other, too, and show nothing.
    """
    late, early = half_times(tables, 3), half_times(tables, 1)
    halved = np.maximum(late, early) < FLOW_UPDATES
    return np.where(halved, np.log(late / early), math.log(FLOW_UPDATES))


def collapse_margin() -> float:
    """Ln of the same ratio in the model of one parameter, which collapses only as γ → ∞.

    At γ = 10 its weight starts less far from its end than at γ = 1000. Without any collapse, with
    the time to learn as γ²/η as when lazy, it were ln 100 = 4.6.

    Example:
        >>> round(collapse_margin(), 2)
        0.75
    """
    model, learned = DeepLinear(3), 1 - math.sqrt(HALF)
    rich, early = (model.time_to(gamma, learned) / gamma for gamma in (1000.0, 10.0))
    return math.log(rich / early)


def plateau(tables: Tables) -> Sample:
    """Time to the first tenth over the time to half of the loss, γ = 100; 0 if never half."""
    times, losses = paths(tables, 2)
    first = np.array([falls_to(times, one, 1 - FIRST_DROP) for one in losses])
    half = half_times(tables, 2)
    return np.where(half < times[-1], first / half, 0.0)


def stair(losses: Num[np.ndarray, " T"]) -> float:
    """1 − slowest/slower of the drops beside it: how far a fall of the loss pauses and resumes.

    Example:
        >>> round(stair(np.array([1.0, 0.6, 0.55, 0.1])), 3), stair(np.array([1.0, 0.5, 0.3]))
        (0.875, 0.0)
    """
    drops = np.nan_to_num(-np.diff(losses)) / losses[0]
    found = 0.0
    for middle in range(1, len(drops) - 1):
        least = min(drops[:middle].max(), drops[middle + 1 :].max())
        if least >= STEP:
            found = max(found, 1 - max(float(drops[middle]), 0.0) / least)
    return float(found)


def stairs(tables: Tables) -> Sample:
    """The stair at γ = 100 less that at γ = 0.01, on the same examples.

    A stair is a maximum over the records of a curve, so noise alone makes some: what counts is
    what it is above that of a lazy net.
    """
    rich, lazy = (np.array([stair(one) for one in paths(tables, k)[1]]) for k in (2, -2))
    return rich - lazy


def silent(tables: Tables) -> Sample:
    """Share of the kernel's alignment that is there before the loss has fallen by a tenth."""
    times, losses = paths(tables, 2)
    _, aligned = paths(tables, 2, "alignment")
    found = []
    for loss, one in zip(losses, aligned, strict=True):
        when = falls_to(times, loss, 1 - FIRST_DROP)
        gained = np.interp(when, times, one) - one[0]
        found.append(gained / (np.nanmax(one) - one[0]) if when < times[-1] else 0.0)
    return np.array(found)


def sharpness_power(tables: Tables, reach: tuple[int, int]) -> Sample:
    """Power of γ with which the sharpness at the end moves."""
    decades = np.arange(reach[0], reach[1] + 1)
    found = [sample(tables[ENDS], "sharpness", gamma=int(k)) for k in decades]
    return slopes(decades, np.log10(np.stack(found, 1)))


def thrown(tables: Tables) -> Sample:
    """Ln of the sharpness after over before, of runs whose loss rose and then fell; else 0."""
    part = tables[FULL_BATCH].filter(pl.col("run") == f"catapult {CATAPULTS[1]:g}")
    part = part.sort("repetition")
    ratio = np.log((part["last"] / part["first"]).to_numpy())
    catapulted = ((part["peak"] > 2) & (part["end"] < 1)).to_numpy()
    return np.where(catapulted, ratio, 0.0)


def sharpened(tables: Tables) -> Sample:
    """η times the sharpness at the end of training on one batch, γ = 100."""
    return sample(tables[FULL_BATCH], "last", run="sharpening")


def closer(tables: Tables, column: str) -> Sample:
    """Agreement of two seeds at γ = 10 less that at γ = 10⁻³."""
    rich, lazy = (sample(tables[ENDS], column, gamma=k) for k in (1, -3))
    return rich - lazy


# ------------------------------------------------------------------ pictures

NAMES = {
    str(k): Text(f"γ = 10^{k}" if k != -2 else "γ = 0.01", f"γ＝10^{k}" if k != -2 else "γ＝0.01")
    for k in FLOW
}
TAU = Axis(Text("updates t, at equal η/γ for γ ≥ 10", "更新回数t（γ≥10ではη/γが等しい）"))


def curve_picture(tables: Tables, column: str, title: Text, y: Axis) -> Picture:
    """A quantity against t, by γ."""
    told = tables[CURVES].with_columns(pl.col("gamma").cast(pl.String).alias("name"))
    shown = points(told, x="t", y=column, series="name")
    return Picture(
        title=title,
        x=TAU,
        y=y,
        points=shown,
        series=NAMES,
        caption=captioned(
            shown, "Depth 3, on 256 fixed inputs.", "深さ3、固定した256件の入力で測定。"
        ),
    )


LOSS_PICTURE = functools.partial(
    curve_picture,
    column="loss",
    title=Text(
        "Rich nets wait, then fall in steps, at the same τ = ηt/γ for every large γ.",
        "richなネットは停滞してから階段状に下がり、τ＝ηt/γでは大きなγの曲線が重なる。",
    ),
    y=Axis(Text("loss", "損失"), log=True),
)
ALIGNMENT_PICTURE = functools.partial(
    curve_picture,
    column="alignment",
    title=Text(
        "The kernel turns to the labels while the loss is still flat.",
        "損失が平らなうちに、カーネルが正解の方向を向く。",
    ),
    y=Axis(Text("alignment of the tangent kernel with the labels", "接核と正解の一致度")),
)


def end_picture(tables: Tables, columns: dict[str, Text], title: Text, y: Axis) -> Picture:
    """Quantities at the end of training against γ."""
    told = tables[ENDS].unpivot(list(columns), index=["repetition", "gamma"], variable_name="name")
    shown = points(told, x="gamma", y="value", series="name")
    return Picture(
        title=title,
        x=GAMMA,
        y=y,
        points=shown,
        series=columns,
        caption=captioned(
            shown, "Depth 3, T = 300, at tuned rates.", "深さ3、T＝300、調整した学習率。"
        ),
    )


SHARPNESS_PICTURE = functools.partial(
    end_picture,
    columns={"before": Text("before training", "学習前"), "sharpness": Text("after", "学習後")},
    title=Text(
        "Sharpness falls with γ⁻² when lazy and with γ^(−2/3) when rich.",
        "シャープネスはlazyではγ⁻²、richではγ^(−2/3)で小さくなる。",
    ),
    y=Axis(Text("N × largest eigenvalue of the Hessian", "N×ヘッセ行列の最大固有値"), log=True),
)
AGREEMENT_PICTURE = functools.partial(
    end_picture,
    columns={
        "functions": Text("functions", "関数"),
        "representations": Text("representations (centred kernel alignment)", "内部表現（CKA）"),
    },
    title=Text(
        "Rich nets of different seeds agree, inside too.",
        "richなネットは、種が違っても内部まで一致する。",
    ),
    y=Axis(Text("agreement of two seeds", "二つの種の一致度")),
)


def full_batch_picture(tables: Tables) -> Picture:
    """η times sharpness before and after, by run."""
    told = tables[FULL_BATCH].unpivot(
        ["first", "last"], index=["repetition", "run"], variable_name="name"
    )
    shown = points(told, x="run", y="value", series="name")
    return Picture(
        title=Text(
            "Above 2 a lazy net is thrown to where it is flat; a rich one sharpens up to 2.",
            "2を超えるとlazyなネットは平らな所へ飛ばされ、richなネットは2まで鋭くなる。",
        ),
        x=Axis(Text("run", "学習")),
        y=Axis(Text("η × sharpness", "η×シャープネス")),
        points=shown,
        series={"first": Text("before training", "学習前"), "last": Text("after", "学習後")},
        caption=captioned(
            shown,
            "One batch of 256, 1,000 updates; catapults at γ = 10⁻³, sharpening at γ = 100.",
            "256件の同じバッチ、1,000回の更新。catapultはγ＝10⁻³、sharpeningはγ＝100。",
        ),
    )


# ------------------------------------------------------------------ claims


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Curves, sharpness, catapults and agreement."""
    n = int(parameters["seeds"])
    return (
        *_of_curves(n),
        *(_sharpness(n, regime) for regime in ("lazy", "rich")),
        *_of_full_batches(n),
        *(_agrees(n, column) for column in ("functions", "representations")),
    )


def _of_curves(n: int) -> tuple[Claim, ...]:
    return (
        Claim(
            id="curves-collapse",
            sentence=Text(
                "In τ = ηt/γ, training takes as long at γ = 1000 as at γ = 10.",
                "τ＝ηt/γで測れば、γ＝1000と10の学習時間は同じです。",
            ),
            source="atanasov2025, collapse (0); margin: the one-parameter model at γ = 10",
            measured=Text(
                "ln of the ratio of the times to half the loss",
                "損失が半分になるまでの時間の比の自然対数",
            ),
            low=-collapse_margin(),
            high=collapse_margin(),
            expected=0.14,
            spread=0.03,
            n=n,
            values=collapse,
            picture=LOSS_PICTURE,
            meaning=Text(
                "A run at a moderately large γ tells what a larger one would do.",
                "ある程度大きなγの結果から、さらに大きなγの結果が分かります。",
            ),
            twin={"fault": "rate not times N"},
        ),
        Claim(
            id="rich-plateau",
            sentence=Text(
                "At γ = 100 most of the time to half the loss passes before it falls by a tenth.",
                "γ＝100では、損失が1割下がるまでに、半分になるまでの時間の大半がかかります。",
            ),
            source="atanasov2025, long plateaus",
            measured=Text("time to a tenth over time to half", "1割下がる時間÷半分になる時間"),
            low=0.5,
            expected=0.8,
            spread=0.05,
            n=n,
            values=plateau,
            picture=LOSS_PICTURE,
            meaning=Text(
                "Do not stop a rich run because its loss is flat.",
                "損失が平らだからといってrichな学習を止めないでください。",
            ),
            twin={"fault": "rate not times N"},
        ),
        Claim(
            id="rich-stairs",
            sentence=Text(
                "At γ = 100 the loss falls in steps, fast, slow, and fast again, more than at "
                "γ = 0.01.",
                "γ＝100では、γ＝0.01より、損失は階段状に、速く、遅く、また速く下がります。",
            ),
            source="atanasov2025, stairs",
            measured=Text(
                "1 − drop in the pause over the smaller of the drops beside it, "
                "less that of γ = 0.01",
                "1−停滞中の下げ幅÷前後の小さいほうの下げ幅（γ＝0.01との差）",
            ),
            low=0.0,
            expected=0.18,
            spread=0.37,
            n=n,
            values=stairs,
            picture=LOSS_PICTURE,
            meaning=Text(
                "x₀ is learned first, x₁x₂ on the next step.",
                "先にx₀、次の段でx₁x₂を学びます。",
            ),
            twin={"fault": "rate not times N"},
        ),
        Claim(
            id="silent-alignment",
            sentence=Text(
                "At γ = 100 the kernel turns to the labels before the loss moves.",
                "γ＝100では、損失が動く前にカーネルが正解の方向を向きます。",
            ),
            source="atanasov2025, silent alignment",
            measured=Text(
                "share of the largest gain in alignment when the loss has fallen by a tenth",
                "損失が1割下がった時点での、一致度の増加の割合",
            ),
            low=0.5,
            expected=0.88,
            spread=0.15,
            n=n,
            values=silent,
            picture=ALIGNMENT_PICTURE,
            meaning=Text(
                "Much happens in a plateau; the loss does not show it.",
                "停滞中にも多くのことが起きていますが、損失には現れません。",
            ),
            twin={"fault": "not divided"},
        ),
    )


def _sharpness(n: int, regime: str) -> Claim:
    lazy = regime == "lazy"
    expected, margin = (-2.0, 0.1) if lazy else (-2 / 3, 0.15)
    reach = (-4, -2) if lazy else (0, 2)
    return Claim(
        id=f"sharpness-{regime}",
        sentence=Text(
            "At γ ≪ 1 the sharpness of what is learned falls with γ⁻².",
            "γ≪1では、学習後のシャープネスはγ⁻²で小さくなります。",
        )
        if lazy
        else Text(
            "At γ ≥ 1 and depth 3 it falls with γ^(−2/3).",
            "γ≥1、深さ3では、γ^(−2/3)で小さくなります。",
        ),
        source="atanasov2025, largest eigenvalue",
        measured=Text(
            f"slope of its log₁₀ on log₁₀ γ, 10^{reach[0]} to 10^{reach[1]}",
            f"10^{reach[0]}から10^{reach[1]}までの傾き",
        ),
        low=expected - margin,
        high=expected + margin,
        expected=expected,
        spread=0.01 if lazy else 0.02,
        n=n,
        values=functools.partial(sharpness_power, reach=reach),
        picture=SHARPNESS_PICTURE,
        meaning=Text(
            "Sharpness of two nets can be compared only at the same γ.",
            "シャープネスは同じγのネットどうしでしか比べられません。",
        ),
        twin={"fault": "not divided" if lazy else "shallow"},
    )


def _of_full_batches(n: int) -> tuple[Claim, ...]:
    return (
        Claim(
            id="catapult",
            sentence=Text(
                "At γ = 10⁻³ and one and a half times the stable rate, the loss first grows, and "
                "the net lands where it is flatter.",
                "γ＝10⁻³で安定な上限の1.5倍の学習率では、損失が一度増え、より平らな所に落ち着きます。",
            ),
            source="atanasov2025, catapults",
            measured=Text(
                "ln of sharpness after over before, 0 without a catapult",
                "学習後÷学習前のシャープネスの自然対数（catapultがなければ0）",
            ),
            high=-0.2,
            expected=-0.9,
            spread=0.2,
            n=n,
            values=thrown,
            picture=full_batch_picture,
            meaning=Text(
                "A loss that grows at first need not be a reason to stop a lazy net.",
                "lazyなネットでは、初めに損失が増えても止める理由とは限りません。",
            ),
            twin={"fault": "rate not times N"},
        ),
        Claim(
            id="progressive-sharpening",
            sentence=Text(
                "At γ = 100 the sharpness grows up to 2/η and stays there.",
                "γ＝100では、シャープネスは2/ηまで増えて留まります。",
            ),
            source="atanasov2025, progressive sharpening",
            measured=Text(
                "η times the mean sharpness of the last third", "η×最後の3分の1の平均シャープネス"
            ),
            low=1.6,
            high=2.6,
            expected=2.15,
            spread=0.1,
            n=n,
            values=sharpened,
            picture=full_batch_picture,
            meaning=Text(
                "In the rich regime the sharpness says what rate was used.",
                "richな領域では、シャープネスは使った学習率を反映します。",
            ),
            twin={"fault": "rate not times N"},
        ),
    )


def _agrees(n: int, column: str) -> Claim:
    functions = column == "functions"
    return Claim(
        id=f"{column}-agree",
        sentence=Text(
            "Two seeds learn more similar functions at γ = 10 than at γ = 10⁻³.",
            "γ＝10では、γ＝10⁻³より、異なる種のネットが似た関数を学びます。",
        )
        if functions
        else Text(
            "Their last hidden layers, too, are more alike.",
            "最後の隠れ層も、より似ています。",
        ),
        source="atanasov2025, agreement of functions and representations",
        measured=Text("agreement at γ = 10 less that at γ = 10⁻³", "一致度の差（γ＝10−γ＝10⁻³）"),
        low=0.0,
        expected=0.11 if functions else 0.55,
        spread=0.02 if functions else 0.08,
        n=n,
        values=functools.partial(closer, column=column),
        picture=AGREEMENT_PICTURE,
        meaning=Text(
            "What a rich net learns is a matter of the data more than of the seed.",
            "richなネットが学ぶことは、種よりデータで決まります。",
        ),
        twin={"fault": "one seed"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """None."""
    return ()
