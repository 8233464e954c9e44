"""Updates and examples until a target, for nets that read rows and nets that see the whole."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from batchlab import stats
from batchlab._text import Text, say
from batchlab.config import RunConfig
from batchlab.engine import Job, RunState, Series
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
from batchlab.studies.guide.training import Trainer, first_rates, samples, sizes, tried
from batchlab.studies.guide.words import BATCH, TUNED, averaged

TABLE = "reach"
RULE = "adam"
NETS = ("thin", "gru")
LEGS = 8
NEEDS = "examples small large rates arrivals target held reach_small reach_large fault"


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """A net, a kind of data and a batch size each."""
    whole = Asked.of(parameters)
    fewer = replace(whole, arrivals=_compared(whole))
    return tuple(
        Cell(
            TABLE,
            {"net": net, "data": data, "batch_size": size, **asked.some(NEEDS)},
            _seconds(asked, net, data, size),
        )
        for data in (whole.pictures, "signals")
        for net in NETS
        for asked in (whole if (net, data) == (NETS[0], whole.pictures) else fewer,)
        for size in sizes(asked, asked.steps)
    )


def _compared(asked: Asked) -> int:
    return min(asked.compared, asked.arrivals)


def _seconds(asked: Asked, net: str, data: str, size: int) -> float:
    budget = samples(asked, passes(asked, size))
    one = seconds(net, data, budget / size, budget)
    return 2 + asked.arrivals * (1 + tried(asked)) * one


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A batch size at its own best rates; a row a seed."""
    asked = Asked.of(cell.settings)
    data, size = str(cell.settings["data"]), int(cell.settings["batch_size"])
    ready = prepared(asked.net, data, asked.examples, bench, held=asked.held // 4)
    budget = samples(asked, passes(asked, size))
    run = RunConfig(rule=RULE, batch_size=size, samples=budget)
    with Trainer(ready, bench, 4 * LEGS, cell.seconds) as trainer:
        score = functools.partial(raced, trainer, asked, {})
        rates = trainer.tuned(run, first_rates(RULE, size, asked.rates), asked.arrivals, score)
        found = raced(trainer, asked, {}, trainer.named(run, rates), range(asked.arrivals))
    return [
        {"repetition": i, "learning_rate": rates[i], **counted(arrival, size, asked)}
        for i, arrival in enumerate(found)
    ]


def raced(
    trainer: Trainer,
    asked: Asked,
    records: dict[int, float],
    configs: Sequence[RunConfig],
    heats: Sequence[int],
) -> list[float]:
    """Examples until the validation loss has reached the target; a :data:`Score`.

    Runs go in legs. A heat ends with the leg in which its first run arrives, or in
    which the record of an earlier race lies: who arrives later is not the best.

    Args:
        trainer: Trains them.
        asked: Target, and how often it is looked for.
        records: Heat → the earliest arrival so far, which this race may lower.
        configs: Runs of one length.
        heats: To which each belongs; runs of one heat compete.

    Returns:
        Infinite for a run that does not arrive, or not in the leg of its heat's first.
    """
    looks = int(configs[0].samples or 0) // asked.large
    ends = [asked.large * round(leg * looks / LEGS) for leg in range(LEGS + 1)]
    running, found = list(range(len(configs))), [math.inf] * len(configs)
    seen: list[list[Series]] = [[] for _ in configs]
    states: list[RunState | None] = [None] * len(configs)
    for begin, until in itertools.pairwise(ends):
        moments = range(begin + asked.large * (begin > 0), until + 1, asked.large)
        job = Job(tuple(moments), keep_end=True, until=until)
        starts = [states[i] for i in running]
        runs, reached = trainer.train([configs[i] for i in running], job, starts)
        for i, one, state in zip(running, runs, reached, strict=True):
            seen[i] += [one.series["loss"]] if "loss" in one.series else []
            found[i], states[i] = arrived(seen[i], asked.target), state
            records[heats[i]] = min(found[i], records.get(heats[i], math.inf))
        running = [i for i in running if states[i] is not None and records[heats[i]] > until]
        if not running:
            break
    return found


def arrived(legs: Sequence[Series], target: float) -> float:
    """Examples until a loss has reached the target; infinite if it never does.

    Args:
        legs: The loss along a run.
        target: To reach.
    """
    seen, losses = (
        np.concatenate([getattr(leg, name) for leg in legs]) for name in ("samples", "values")
    )
    return stats.time_to_target(seen, losses, target, maximise=False)


def counted(arrival: float, size: int, asked: Asked) -> Row:
    """Examples and updates until the target; NaN if it was not reached, which leaves it open.

    Args:
        arrival: Examples, or infinite.
        size: Examples of an update.
        asked: By a fault, each is taken for the other, everywhere or with the recurrent net only.

    Example:
        >>> counted(640.0, 16, Asked())
        {'samples': 640.0, 'updates': 40.0}
    """
    seen = arrival if math.isfinite(arrival) else math.nan
    spoilt = ["counts exchanged"] + ["recurrent counts exchanged"] * (asked.net == "gru")
    if asked.fault in spoilt:
        return {"samples": seen / size, "updates": seen}
    return {"samples": seen, "updates": seen / size}


def passes(asked: Asked, size: int) -> float:
    """How long a batch size is trained: longer for a larger one, which needs more examples.

    Example:
        >>> passes(Asked(small=16, large=256, reach_small=4, reach_large=16), 64)
        8.0
    """
    share = math.log(size / asked.small) / math.log(asked.large / asked.small)
    return asked.reach_small * (asked.reach_large / asked.reach_small) ** share


def more_examples(tables: Tables, data: str, net: str = "thin") -> Sample:
    """log₂ of examples until the target, largest batch over smallest; one a repetition."""
    table = tables[TABLE].filter((pl.col("net") == net) & (pl.col("data") == data))
    wide = table.sort("batch_size").pivot("batch_size", index="repetition", values="samples")
    wide = wide.sort("repetition").drop("repetition")
    return np.log2((wide[wide.columns[-1]] / wide[wide.columns[0]]).to_numpy())


def recurrent_loses_more(tables: Tables, data: str) -> Sample:
    """By how much more the recurrent net loses by the large batch than the convolutional one, in
    the repetitions of both.
    """
    recurrent = more_examples(tables, data, "gru")
    return recurrent - more_examples(tables, data, "thin")[: len(recurrent)]


def picture(tables: Tables, data: str, nets: tuple[str, ...] = NETS) -> Picture:
    """Examples until the target, against the batch size."""
    table = tables[TABLE].filter((pl.col("data") == data) & pl.col("net").is_in(nets))
    shown = points(table, x="batch_size", y="samples", series="net")
    words = {"thin": Text("convolutional net", "畳み込み"), "gru": Text("recurrent net", "再帰型")}
    return Picture(
        title=Text(
            "Examples until the target, against the batch size.",
            "目標に達するまでのデータ数とバッチサイズ。",
        ),
        x=BATCH,
        y=Axis(Text("examples until the target", "目標までのデータ数"), log=True),
        points=shown,
        series={net: words[net] for net in nets},
        caption=say(
            "Adam at a constant rate; {t}; {m}.",
            "Adam、一定の学習率。{t}。{m}。",
            t=TUNED,
            m=averaged(shown),
        ),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """More updates, fewer examples; and recurrent against convolutional on two kinds of data."""
    asked = Asked.of(parameters)
    return (
        _counts_claim(asked),
        _recurrent_claim(asked, asked.pictures),
        _recurrent_claim(asked, "signals"),
    )


def _counts_claim(asked: Asked) -> Claim:
    """Both counts are one number: log₂ of the updates' ratio is that of the sizes less this."""
    most = math.log2(asked.large / asked.small)
    return Claim(
        id="small-more-updates-fewer-samples",
        sentence=Text(
            "To a target, a small batch needs more updates and fewer examples.",
            "目標に達するまでに、小さいバッチは更新回数は多く、データは少なくて済みます。",
        ),
        source="practitioner's guide, frequent updates; mccandlish2018, equation 2.11",
        measured=Text(
            f"log₂ of examples to the target, batch size {asked.large} over {asked.small}: the "
            f"small batch needs fewer examples above 0, and more updates below {most:g}",
            f"目標までのデータ数の比（バッチサイズ{asked.large}÷{asked.small}）のlog₂（0より大きければ"
            f"小さいバッチのほうがデータ数が少なく、{most:g}より小さければ更新回数が多い）",
        ),
        low=0.0,
        high=most,
        n=asked.arrivals,
        values=functools.partial(more_examples, data=asked.pictures),
        picture=functools.partial(picture, data=asked.pictures, nets=("thin",)),
        meaning=Text(
            "Where computing is paid by the example, the small batch is cheaper. A large batch "
            "saves time only as long as its updates are not slower by more than it saves in "
            "number.",
            "処理したデータの量で費用が決まるなら小さいバッチが有利です。大きいバッチで時間が縮むのは、"
            "更新回数の減り方が1回あたりの遅さを上回る間だけです。",
        ),
        popular=Text(
            "“Large batches train faster” is about time on a machine that is not busy; in "
            "examples they never gain.",
            "「大きいバッチのほうが学習が速い」のは、計算機に余裕がある場合の時間の話です。必要な"
            "データ数で得をすることはありません。",
        ),
        depends=Text(
            "On the target: the better the model has to be, the noisier its gradient, and the "
            "larger the batch that loses nothing; and on the learning rate, which was chosen for "
            "each batch size here.",
            "目標によります。目標が高いほど勾配のノイズが大きくなり、損をしないバッチも大きくなります。"
            "学習率にもよります（ここではバッチサイズごとに選びました）。",
        ),
        expected=EXAMPLES[0],
        spread=EXAMPLES[1],
        twin={"fault": "counts exchanged"},
    )


def _recurrent_claim(asked: Asked, data: str) -> Claim:
    signals = data == "signals"
    on = Text("vibration signals", "振動信号") if signals else Text("pictures", "画像")
    expected, spread = RECURRENT["signals" if signals else "pictures"]
    return Claim(
        id=f"recurrent-prefers-small-{'signals' if signals else 'pictures'}",
        sentence=Text(
            f"On {on.en}, a recurrent net loses more by a large batch than a convolutional one.",
            f"{on.ja}では、大きいバッチで損をする度合いは、再帰型のほうが畳み込みより大きくなります。",
        ),
        source="practitioner's guide, recurrent and convolutional nets",
        measured=Text(
            f"log₂ of examples to the target, batch size {asked.large} over {asked.small}: "
            "recurrent − convolutional, on the same data",
            f"目標までのデータ数の比（バッチサイズ{asked.large}÷{asked.small}）のlog₂の差（再帰型−畳み"
            "込み、同じデータ）",
        ),
        low=0.0,
        high=math.inf,
        n=_compared(asked),
        values=functools.partial(recurrent_loses_more, data=data),
        picture=functools.partial(picture, data=data),
        meaning=Text(
            "The kind of net is no rule for the batch size: measure the noise scale of yours with "
            "`batchlab noise`.",
            "ネットの種類だけではバッチサイズは決まりません。自分のモデルのノイズスケールを"
            "`batchlab noise`で測ってください。",
        ),
        popular=Text(
            "“Small batches for recurrent nets, large ones for convolutional nets” compares "
            "nets that were trained on different data.",
            "「再帰型は小さいバッチ、畳み込みは大きいバッチ」という話は、別々のデータで学習した"
            "ネットどうしの比較です。",
        ),
        depends=Text(
            "On the data and on the target, which are the same for both nets here, and on the "
            "optimizer (Adam): the same two nets are compared on pictures and on signals.",
            "データと目標（ここでは両者で同じ）と最適化手法（Adam）によります。同じ2つのネットを画像と"
            "信号の両方で比べています。",
        ),
        expected=expected,
        spread=spread,
        twin={"fault": "recurrent counts exchanged"},
    )


EXAMPLES = (1.3, 0.45)
"""Mean and standard deviation of a repetition in a pilot on seeds of its own."""
RECURRENT = {"pictures": (0.5, 0.35), "signals": (0.5, 0.9)}
"""The spread of the pilot, which saw no such difference: a factor of 1.4 would matter."""
