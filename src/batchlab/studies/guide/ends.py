"""The nets that small and large batches end in: how many units work, and how far two agree."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchlab import _tree
from batchlab._text import Text, say
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult, RunState
from batchlab.engine.step import DTYPES, rule_of, start_of
from batchlab.measure.repeatability import disagreements, predictions, reading_of
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
from batchlab.studies.guide.data import prepared
from batchlab.studies.guide.training import (
    Trainer,
    end,
    first_rates,
    samples,
    sizes,
    study_seeds,
    tuning_seeds,
)
from batchlab.studies.guide.words import BATCH, TUNED, averaged
from batchlab.tasks import Objective, Prepared
from batchlab.types import Status

TABLE = "ends"
RULE = "shb"
MOMENTS = 20
LISTENED = 512
"""Validation examples on which units are heard."""


class Setting(NamedTuple):
    """How the trainings of a comparison are made.

    Attributes:
        rate: ``tuned`` for each batch size, or ``same``: the small batch's for all.
        start: ``own`` weights for every seed, or ``shared`` by the two runs of a pair, which then
            differ in the order of the examples only.
    """

    rate: str
    start: str


SETTINGS = (Setting("tuned", "own"), Setting("same", "own"), Setting("tuned", "shared"))


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One cell: the rates are tuned once for all comparisons."""
    names = (
        *("pictures", "net", "examples", "small", "large", "steps", "rates", "pairs", "tuning"),
        *("passes", "fault"),
    )
    shared = {name: parameters[name] for name in names}
    runs = 6 * int(parameters["pairs"]) + int(parameters["rates"]) * int(parameters["tuning"])
    return (Cell(TABLE, shared, 2 + 0.1 * runs * int(parameters["steps"]), alone=True),)


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """Two runs a pair, batch size and setting; a row each, with the disagreement of the pair."""
    asked, rows = cell.settings, []
    ready = prepared(
        str(asked["net"]),
        str(asked["pictures"]),
        int(asked["examples"]),
        data=bench.data,
        device=bench.device,
    )
    budget = samples(asked, float(asked["passes"]))
    moments = tuple(round(i * budget / MOMENTS) for i in range(MOMENTS + 1))
    with Trainer(ready, bench, (1 + len(SETTINGS)) * len(sizes(asked))) as trainer:
        first: float | None = None
        for size in sizes(asked):
            used = int(asked["large"]) if asked["fault"] == "batch ignored" else size
            run = RunConfig(rule=RULE, batch_size=used, samples=budget)
            grid = first_rates(RULE, used, int(asked["rates"]))
            tuning = tuning_seeds(bench, int(asked["tuning"]))
            tuned = trainer.tuned(run, grid, tuning, Job(moments), end)
            first = tuned if first is None else first
            for setting in SETTINGS:
                one = run.replace(learning_rate=tuned if setting.rate == "tuned" else first)
                found = _pairs(trainer, one, moments, setting, int(asked["pairs"]))
                rows += [{"batch_size": size, **setting._asdict(), **row} for row in found]
    return rows


def _pairs(
    trainer: Trainer, run: RunConfig, moments: tuple[int, ...], setting: Setting, pairs: int
) -> list[Row]:
    """Train two runs a pair and look at what they have become."""
    ready, seeds = trainer.prepared, study_seeds(trainer.bench, 2 * pairs)
    configs = [run.replace(seed=seed).resolved(ready.examples) for seed in seeds]
    job = Job(moments, Units(ready), moments[-1:], keep_end=True)
    starts = None
    if setting.start == "shared":
        starts = [begin(ready, configs[i - i % 2]) for i in range(len(configs))]
    runs, states = trainer.train(configs, job, starts)
    apart = [disagreement(ready, configs[2 * i], states[2 * i : 2 * i + 2]) for i in range(pairs)]
    return [
        {
            "pair": i // 2,
            "side": i % 2,
            "learning_rate": float(one.config.learning_rate or 0.0),
            "disagreement": apart[i // 2],
            "loss": end(one),
            **units(one),
        }
        for i, one in enumerate(runs)
    ]


def begin(ready: Prepared, config: RunConfig) -> RunState:
    """An untrained model as the state in which a run begins, whatever its own seed.

    Args:
        ready: The task.
        config: The resolved run whose seed names the weights.
    """
    objective = ready.objective(config.seed, DTYPES[config.precision])
    return RunState(start_of(objective, rule_of(config, ready.task)), 0, 0)


def disagreement(ready: Prepared, config: RunConfig, states: Sequence[RunState | None]) -> float:
    """Share of the validation examples that two runs put into different classes.

    Args:
        ready: The task.
        config: Their recipe.
        states: Where the two ended.

    Returns:
        NaN if one of them diverged.
    """
    reading, kept = reading_of(ready), [state for state in states if state is not None]
    if reading is None or len(kept) < len(states):
        return math.nan
    return float(disagreements(predictions(ready, config, kept, reading))[0, 1])


def participation(values: Float[Tensor, "*A n"]) -> Float[Tensor, " *A"]:
    """(Σv²)²/(n Σv⁴) over the last axis: the share of n numbers that carries the weight.

    1/n where one number is all there is, 1 where all are equally large, 0 where all are 0.

    Source:
        bell1970.

    Example:
        >>> participation(torch.tensor([[0.0, 5.0], [2.0, -2.0]])).tolist()
        [0.5, 1.0]
    """
    squares = values.double().square()
    fourth = squares.square().sum(-1)
    return squares.sum(-1).square() / fourth.clamp(min=1e-300) / values.shape[-1]


class Units:
    """A probe: the share of each hidden layer's units that carry an example, and of weights.

    Args:
        ready: The task.
    """

    name = "units"

    def __init__(self, ready: Prepared) -> None:
        held = torch.arange(min(LISTENED, ready.validation.examples))
        self._batch = ready.validation.batch(held)

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """``units.0`` … of what every ReLU says, and ``weights`` of the first layer."""
        heard = hear(objective, self._batch[0])
        found = {f"units.{i}": float(participation(a).mean()) for i, a in enumerate(heard)}
        first = next(p for p in objective.module.parameters() if p.ndim > 1)
        return found | {"weights": float(participation(first.detach().flatten(1)).mean())}


def hear(objective: Objective, x: Tensor) -> list[Float[Tensor, "M H"]]:
    """What each ReLU of a model says: a row an example and place, a column a unit.

    Args:
        objective: The model.
        x: Inputs.
    """
    said: list[Tensor] = []
    modules = [module for module in objective.modules() if isinstance(module, nn.ReLU)]

    def heard(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        said.append(output)

    hooks = [module.register_forward_hook(heard) for module in modules]
    try:
        like = next(objective.parameters())
        with torch.no_grad():
            objective.eval().module(_tree.to(x, like.device, like.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return [one.movedim(1, -1).flatten(0, -2) for one in said]


def units(run: RunResult) -> dict[str, float]:
    """What the probe found at a run's end, and the mean over the hidden layers."""
    failed = run.status is Status.DIVERGED
    names = sorted(name for name in run.series if name == "weights" or name[:6] == "units.")
    found = {name: math.nan if failed else run.final(name) for name in names}
    layers = [value for name, value in found.items() if name != "weights"]
    return {**found, "units": float(np.mean(layers)) if layers else math.nan}


def _by_pair(tables: Tables, setting: Setting, quantity: str) -> pl.DataFrame:
    """A row a pair, a column a batch size, ascending."""
    chosen = [pl.col(name) == value for name, value in setting._asdict().items()]
    table = (
        tables[TABLE].filter(*chosen).group_by("batch_size", "pair").agg(pl.col(quantity).mean())
    )
    wide = table.sort("batch_size").pivot("batch_size", index="pair", values=quantity)
    return wide.sort("pair").drop("pair")


def sparser(tables: Tables, setting: Setting, quantity: str) -> Sample:
    """log₂ of the share that takes part, large batch over small; one a pair of seeds."""
    wide = _by_pair(tables, setting, quantity)
    return np.log2((wide[wide.columns[-1]] / wide[wide.columns[0]]).to_numpy())


def less_alike(tables: Tables, setting: Setting) -> Sample:
    """By how many percentage points two runs disagree more with the small batch; one a pair."""
    wide = _by_pair(tables, setting, "disagreement")
    return (100 * (wide[wide.columns[0]] - wide[wide.columns[-1]])).to_numpy()


def sparsity_picture(tables: Tables, setting: Setting) -> Picture:
    """Shares that take part, layer by layer."""
    names = [n for n in tables[TABLE].columns if n == "weights" or n[:6] == "units."]
    chosen = [pl.col(name) == value for name, value in setting._asdict().items()]
    table = tables[TABLE].filter(*chosen)
    long = table.unpivot(names, index=["batch_size"], variable_name="of")
    shown = points(long, x="batch_size", y="value", series="of")
    words = {
        name: Text(f"units of hidden layer {i + 1}", f"隠れ層{i + 1}のユニット")
        for i, name in enumerate(sorted(set(names) - {"weights"}))
    }
    return Picture(
        title=Text(
            "The share of units and weights that carry a trained net.",
            "学習後のネットを支えるユニットと重みの割合。",
        ),
        x=BATCH,
        y=Axis(Text("share that takes part", "働いている割合")),
        points=shown,
        series={**words, "weights": Text("weights of the first layer", "第1層の重み")},
        caption=say(
            "Participation ratio (Σv²)²/(n Σv⁴): of units, over each validation example; of "
            "weights, over those that lead into a unit. Equal examples; {m}.",
            "参加比(Σv²)²/(n Σv⁴)。ユニットは検証データ1件ごと、重みは各ユニットに入る重みについて"
            "計算。データ数は同じ。{m}。",
            m=averaged(shown),
        ),
    )


def agreement_picture(tables: Tables) -> Picture:
    """Disagreement of two runs against the batch size."""
    table = tables[TABLE].filter((pl.col("rate") == "tuned") & (pl.col("side") == 0))
    table = table.with_columns(percent=100 * pl.col("disagreement"))
    shown = points(table, x="batch_size", y="percent", series="start")
    return Picture(
        title=Text(
            "On how many examples two trainings disagree.", "2回の学習で判断が食い違う割合。"
        ),
        x=BATCH,
        y=Axis(Text("disagreement (%)", "食い違う割合（%）")),
        points=shown,
        series={
            "own": Text("other weights, other order", "初期値も順序も別"),
            "shared": Text("same weights, other order", "初期値は同じ、順序だけ別"),
        },
        caption=say(
            "Validation examples that two runs put into different classes; equal examples, {t}; "
            "{m}.",
            "2回の学習で別のクラスと判断された検証データの割合。データ数は同じ。{t}。{m}。",
            t=TUNED,
            m=averaged(shown),
        ),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Sparser units and weights, at tuned rates and at one rate; repeatability in two senses."""
    pairs = int(parameters["pairs"])
    return (
        _sparser_claim(pairs, "units", SETTINGS[0]),
        _sparser_claim(pairs, "weights", SETTINGS[0]),
        _sparser_claim(pairs, "units", SETTINGS[1]),
        _repeatable_claim(pairs, SETTINGS[0]),
        _repeatable_claim(pairs, SETTINGS[2]),
    )


def _sparser_claim(pairs: int, quantity: str, setting: Setting) -> Claim:
    same = setting.rate == "same"
    what = {
        "units": Text("units", "ユニット"),
        "weights": Text("weights of the first layer", "第1層の重み"),
    }[quantity]
    at = Text("At one learning rate, a", "学習率が同じなら、") if same else Text("A", "")
    key = f"sparser-{quantity}{'-same-rate' if same else ''}"
    return Claim(
        id=key,
        sentence=say(
            "{at} small batch ends with fewer {w} at work.",
            "{at}小さいバッチで学習したほうが、働いている{w}が少なくなります。",
            at=at,
            w=what,
        ),
        source="practitioner's guide, sparse solutions; ghosh2023, on a single-neuron autoencoder",
        measured=Text(
            f"log₂ of the participation ratio of {what.en}, large batch over small",
            f"{what.ja}の参加比の比（大÷小）のlog₂",
        ),
        low=0.0,
        high=math.inf,
        n=pairs,
        values=functools.partial(sparser, setting=setting, quantity=quantity),
        picture=functools.partial(sparsity_picture, setting=setting),
        meaning=Text(
            "Where sparse features matter, measure them on your own model: the batch size alone "
            "does not promise them.",
            "疎な特徴が大事なら、自分のモデルで測ってください。バッチサイズだけでは決まりません。",
        ),
        popular=Text(
            "“Small batches give sparse features” comes from an autoencoder of one neuron, where "
            "every batch below the whole data set does the same.",
            "「小さいバッチは疎な特徴を生む」という話の出どころは1ニューロンの自己符号化器で、そこでは"
            "全データより小さければどのバッチでも同じ結果になります。",
        ),
        depends=Text(
            "On the layer and on the learning rate: at one rate the small batch takes many more "
            "steps of the same length, so that it has also learned longer.",
            "層と学習率によります。同じ学習率では、小さいバッチのほうが同じ大きさの更新を何倍も多く"
            "行うため、学習そのものが先に進んでいます。",
        ),
        expected=PILOT[key][0],
        spread=PILOT[key][1],
        twin={"fault": "batch ignored"},
    )


def _repeatable_claim(pairs: int, setting: Setting) -> Claim:
    shared = setting.start == "shared"
    key = "repeatable-order" if shared else "repeatable-seed"
    who = (
        Text("the same initial weights", "初期値が同じで順序だけ違う")
        if shared
        else Text("initial weights of their own", "初期値も順序も違う")
    )
    return Claim(
        id=key,
        sentence=say(
            "Two trainings from {w} agree more with a large batch.",
            "{w}2回の学習の結果は、大きいバッチのほうがそろいます。",
            w=who,
        ),
        source="practitioner's guide, stable with large batches",
        measured=Text(
            "validation examples on which the two disagree, small batch − large",
            "2回の学習で判断が食い違う検証データの割合の差（小−大）",
        ),
        low=0.0,
        high=math.inf,
        n=pairs,
        values=functools.partial(less_alike, setting=setting),
        picture=agreement_picture,
        meaning=Text(
            "How far two trainings agree has to be measured: `batchlab compare --robustness` says "
            "on how many examples they differ.",
            "結果がどれだけそろうかは測ってみる必要があります。`batchlab compare --robustness`で、"
            "判断が食い違う割合が分かります。",
        ),
        depends=Text(
            "On what differs between the two trainings: the order of the examples only, whose "
            "noise a large batch averages, or the initial weights too, which it cannot.",
            "2回の学習で何が違うかによります。データの順序だけなら、そのノイズは大きいバッチで平均され"
            "ます。初期値の違いは、平均されません。",
        ),
        expected=PILOT[key][0],
        spread=PILOT[key][1],
        unit="points",
        twin={"fault": "batch ignored"},
    )


PILOT = {
    "sparser-units": (0.1, 0.1),
    "sparser-weights": (0.1, 0.1),
    "sparser-units-same-rate": (0.1, 0.1),
    "repeatable-seed": (1.0, 1.0),
    "repeatable-order": (1.0, 1.0),
}
"""Claim → mean and standard deviation of a pair."""
