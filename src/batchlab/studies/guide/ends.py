"""The nets that small and large batches end in: how many units work, and how far two agree."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl

from batchlab._text import Text, say
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult, RunState
from batchlab.engine.step import DTYPES, rule_of, start_of
from batchlab.measure.repeatability import disagreements, predictions, reading_of
from batchlab.measure.sparsity import sparsity
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
from batchlab.studies.guide.asked import Asked
from batchlab.studies.guide.data import prepared, seconds
from batchlab.studies.guide.training import (
    SPOILT,
    TUNING,
    Trainer,
    at_end,
    end,
    first_rates,
    samples,
    sizes,
    study_seed,
    tried,
)
from batchlab.studies.guide.words import BATCH, TUNED, averaged
from batchlab.tasks import Objective, Prepared
from batchlab.types import Status

TABLE = "ends"
RULE = "shb"
SCHEDULE = "cosine"
"""A training that ends calm, or its last few batches would decide."""
LISTENED = 512
"""Validation examples on which units are heard."""


class Setting(NamedTuple):
    """How the trainings of a comparison are made.

    Attributes:
        length: Equal ``samples``, or equal ``updates``, for which a larger batch sees more.
        rate: ``tuned`` for each batch size, or ``same``: the small batch's for all. Each pair
            chooses its own.
        start: ``own`` weights for every seed, or ``shared`` by the two runs of a pair, which then
            differ in the order of the examples only.
    """

    length: str
    rate: str
    start: str


PLAIN = Setting("samples", "tuned", "own")
SAME_RATE = Setting("samples", "same", "own")
UPDATES = Setting("updates", "tuned", "own")
ORDER = Setting("updates", "tuned", "shared")
SETTINGS = (PLAIN, SAME_RATE, UPDATES, ORDER)
LENGTHS = ("samples", "updates")
NEEDS = "pictures net examples held small large steps rates passes pairs fault"


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One cell a length: the small batch's rates are needed for all sizes."""
    whole = Asked.of(parameters)
    return tuple(
        Cell(TABLE, {"length": length, **asked.some(NEEDS)}, _seconds(asked, length))
        for length in LENGTHS
        for asked in (replace(whole, pairs=_pairs_of(whole, length)),)
    )


def _pairs_of(asked: Asked, length: str) -> int:
    return asked.pairs if length == "samples" else asked.longer


def _seconds(asked: Asked, length: str) -> float:
    runs = (TUNING * tried(asked) + 4) * asked.pairs
    budgets = {size: _budget(asked, size, length) for size in sizes(asked, asked.steps)}
    each = [seconds(asked.net, asked.pictures, n / size, n) for size, n in budgets.items()]
    return 2 + runs * sum(each)


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """Two runs a pair, batch size and setting; a row each, with the disagreement of the pair."""
    asked, length = Asked.of(cell.settings), str(cell.settings["length"])
    ready = prepared(asked.net, asked.pictures, asked.examples, bench, held=asked.held)
    each, pairs = sizes(asked, asked.steps), asked.pairs
    first: list[float] = []
    rows: list[Row] = []
    with Trainer(ready, bench, 5 * len(each), cell.seconds) as trainer:
        for size in each:
            budget = _budget(asked, size, length)
            run = RunConfig(rule=RULE, batch_size=size, samples=budget, lr_schedule=SCHEDULE)
            grid = first_rates(RULE, size, asked.rates)
            rates = trainer.tuned(run, grid, pairs, trainer.endings)
            first = first or rates
            # The small batch's tuned rates are those that are the same for all.
            pairs_of = functools.cache(functools.partial(_pairs, trainer, run))
            for setting in (one for one in SETTINGS if one.length == length):
                used = spoilt(asked, size, first if setting.rate == "same" else rates)
                found = pairs_of(tuple(used), setting.start)
                told = {"batch_size": named(asked, size), **setting._asdict()}
                rows += [{**told, **row} for row in found]
    return rows


def _budget(asked: Asked, size: int, length: str) -> int:
    """Examples of a run.

    Example:
        >>> asked = Asked(examples=1024, small=16, large=256, passes=2)
        >>> [_budget(asked, 64, length) for length in LENGTHS]
        [2048, 8192]
    """
    budget = samples(asked, asked.passes)
    return budget if length == "samples" else budget * size // asked.small


def named(asked: Asked, size: int) -> int:
    """The batch size by which rows are named; by a planted fault, smallest and largest exchanged.

    Example:
        >>> [named(Asked(fault="sizes exchanged"), size) for size in (32, 64, 256)]
        [256, 64, 32]
    """
    exchanged = {asked.small: asked.large, asked.large: asked.small}
    return exchanged.get(size, size) if asked.fault == "sizes exchanged" else size


def spoilt(asked: Asked, size: int, rates: list[float]) -> list[float]:
    """The rates of a batch size, which by a planted fault does not learn.

    Example:
        >>> spoilt(Asked(fault="large not trained"), 256, [1.0])
        [0.001]
    """
    faulty = {"small not trained": asked.small, "large not trained": asked.large}
    return [SPOILT * rate for rate in rates] if faulty.get(asked.fault) == size else rates


def _pairs(trainer: Trainer, run: RunConfig, rates: Sequence[float], start: str) -> list[Row]:
    """Train two runs a pair and look at what they have become."""
    ready, last = trainer.prepared, (int(run.samples or 0),)
    configs = [
        run.replace(learning_rate=rate, seed=study_seed(trainer.bench, 2 * i + side))
        for i, rate in enumerate(rates)
        for side in range(2)
    ]
    configs = [config.resolved(ready.examples) for config in configs]
    job = Job(at_end(*last).evaluate_at, Units(ready), last, keep_end=True)
    starts = None
    if start == "shared":
        starts = [begin(ready, configs[i - i % 2]) for i in range(len(configs))]
    runs, states = trainer.train(configs, job, starts)
    twos = range(0, len(configs), 2)
    apart = [disagreement(ready, configs[i], states[i : i + 2]) for i in twos]
    return [
        {
            "pair": i // 2,
            "side": i % 2,
            "learning_rate": rates[i // 2],
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
    objective = ready.objective(config.seed, DTYPES[config.precision], config.gamma)
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


@dataclass(frozen=True)
class Units:
    """A probe: the shares of units and of weights that carry a net.

    Attributes:
        ready: The task, whose validation data the units hear.
    """

    ready: Prepared
    name: ClassVar[str] = "units"

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """``units.0`` … of the hidden layers, and ``weights`` of the first one."""
        found = sparsity(objective.module, self.ready.validation, examples=LISTENED).layers
        heard = {f"units.{i}": float(layer.active or 0.0) for i, layer in enumerate(found[:-1])}
        return heard | {"weights": found[0].weights.participation}


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
    named = {
        PLAIN: Text("equal examples", "データ数が同じ"),
        UPDATES: Text("equal updates", "更新回数が同じ"),
        ORDER: Text("equal updates, same initial weights", "更新回数も初期値も同じ"),
    }
    which = pl.concat_str("length", "rate", "start", separator=" ")
    table = tables[TABLE].with_columns(which=which, percent=100 * pl.col("disagreement"))
    series = {" ".join(setting): text for setting, text in named.items()}
    table = table.filter(pl.col("which").is_in(list(series)) & (pl.col("side") == 0))
    shown = points(table, x="batch_size", y="percent", series="which")
    return Picture(
        title=Text(
            "On how many examples two trainings disagree.", "2回の学習で判断が食い違う割合。"
        ),
        x=BATCH,
        y=Axis(Text("disagreement (%)", "食い違う割合（%）")),
        points=shown,
        series=series,
        caption=say(
            "Validation examples that two runs put into different classes; {t}; {m}.",
            "2回の学習で別のクラスと判断された検証データの割合。{t}。{m}。",
            t=TUNED,
            m=averaged(shown),
        ),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Sparser units and weights, at tuned rates and at one rate; repeatability in three senses."""
    asked = Asked.of(parameters)
    pairs = asked.pairs
    return (
        _sparser_claim(pairs, "units", PLAIN),
        _sparser_claim(pairs, "weights", PLAIN),
        _sparser_claim(pairs, "units", SAME_RATE),
        *(
            _repeatable_claim(_pairs_of(asked, setting.length), setting)
            for setting in (PLAIN, UPDATES, ORDER)
        ),
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
            f"log₂ of the participation ratio of {what.en} after equal examples, large batch over "
            "small",
            f"同じデータ数での{what.ja}の参加比の比（大÷小）のlog₂",
        ),
        low=0.0,
        high=math.inf,
        n=pairs,
        values=functools.partial(sparser, setting=setting, quantity=quantity),
        picture=functools.partial(sparsity_picture, setting=setting),
        meaning=Text(
            "Where sparse features matter, measure them on your own model with "
            "`batchlab.sparsity`: the batch size alone does not promise them.",
            "疎な特徴が大事なら、自分のモデルを`batchlab.sparsity`で測ってください。バッチサイズだけでは"
            "決まりません。",
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
        twin={"fault": "small not trained" if quantity == "weights" else "sizes exchanged"},
    )


def _repeatable_claim(pairs: int, setting: Setting) -> Claim:
    key, who = {
        PLAIN: (
            "repeatable-samples",
            Text("Trained on equal examples", "同じデータ数だけ学習すると"),
        ),
        UPDATES: (
            "repeatable-updates",
            Text("Trained for equal updates", "同じ回数だけ更新すると"),
        ),
        ORDER: (
            "repeatable-order",
            Text(
                "Trained for equal updates from the same initial weights",
                "同じ初期値から同じ回数だけ更新すると",
            ),
        ),
    }[setting]
    # Two that start apart and do not learn disagree; two that start together do not.
    spoilt_side = "small" if setting is ORDER else "large"
    return Claim(
        id=key,
        sentence=say(
            "{w}, two trainings agree more with a large batch.",
            "{w}、2回の学習の結果は大きいバッチのほうがそろいます。",
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
            "On what is held equal. On equal examples the large batch takes few updates, and two "
            "trainings that are not finished disagree; for equal updates it sees many more "
            "examples. And on whether the initial weights differ too: a large batch averages the "
            "noise of the order, not that of the start.",
            "何を同じにして比べるかによります。データ数を同じにすると、大きいバッチは更新回数が少なく、"
            "学習しきっていない2つの結果は食い違います。更新回数を同じにすると、大きいバッチは何倍もの"
            "データを使います。初期値の違いにもよります。大きいバッチで平均されるのは順序のノイズだけ"
            "です。",
        ),
        expected=PILOT[key][0],
        spread=PILOT[key][1],
        unit="points",
        twin={"fault": f"{spoilt_side} not trained"},
    )


PILOT = {
    "sparser-units": (0.9, 0.4),
    "sparser-weights": (0.29, 0.08),
    "sparser-units-same-rate": (1.0, 0.3),
    "repeatable-samples": (1.0, 2.0),
    "repeatable-updates": (0.6, 1.2),
    "repeatable-order": (0.6, 0.8),
}
"""Claim → mean and standard deviation of a pair in a pilot on seeds of its own; where that saw no
difference or the opposite, what would matter.
"""
