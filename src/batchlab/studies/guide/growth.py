"""Start small and grow, against start large and shrink: the same batches in two orders."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from batchlab._text import Text, say
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult
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
    WINDOW,
    Trainer,
    along,
    first_rates,
    samples,
    sizes,
    tried,
)
from batchlab.studies.guide.words import LOSS, TUNED, averaged
from batchlab.types import Status

TABLE = "growth"
RULE = "shb"
ORDERS = ("grow", "shrink")
RATES = ("constant", "proportional")
MOMENTS = 20
NEEDS = "pictures net examples held small large stages rates seeds passes fault"


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """Each order under each rate."""
    asked = Asked.of(parameters)
    budget = samples(asked, asked.passes)
    updates = budget / asked.stages * sum(1 / size for size in sizes(asked, asked.stages))
    one = seconds(asked.net, asked.pictures, updates, budget)
    whole = 2 + asked.seeds * (1 + TUNING * tried(asked)) * one
    return tuple(
        Cell(TABLE, {"rate": rate, "order": order, **asked.some(NEEDS)}, whole)
        for rate in RATES
        for order in ORDERS
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """An order at its own best rates; a row a seed and moment."""
    asked = Asked.of(cell.settings)
    rate, order = (str(cell.settings[name]) for name in ("rate", "order"))
    ready = prepared(asked.net, asked.pictures, asked.examples, bench, held=asked.held)
    budget = samples(asked, asked.passes)
    run = planned(asked, rate, order)
    with Trainer(ready, bench, 3, cell.seconds) as trainer:
        grid = _grid(asked, rate)
        rates = trainer.tuned(run, grid, asked.seeds, trainer.endings)
        if (order, asked.fault) == ("grow", "growing not trained"):
            rates = [SPOILT * each for each in rates]
        trained, _ = trainer.train(trainer.named(run, rates), Job(along(budget, MOMENTS)))
    return [
        {"repetition": i, "learning_rate": rates[i], **moment}
        for i, one in enumerate(trained)
        for moment in moments(one, budget)
    ]


def planned(asked: Asked, rate: str, order: str) -> RunConfig:
    """The run of an order: every size gets the same share of the examples.

    Args:
        asked: Sizes and length.
        rate: ``constant``, or ``proportional`` to the batch size.
        order: ``grow`` or ``shrink``.

    Example:
        >>> asked = Asked(small=8, large=32, stages=3, examples=3200, passes=1)
        >>> run = planned(asked, "proportional", "shrink")
        >>> run.batch_size, run.lr_schedule
        ('0:32 1067:16 2133:8', '0:1.0 33.333%:0.5 66.666%:0.25')
    """
    budget, each = samples(asked, asked.passes), sizes(asked, asked.stages)
    if order == "shrink":
        each = each[::-1]
    starts = [round(i * budget / len(each)) for i in range(len(each))]
    schedule = "constant"
    if rate == "proportional":
        schedule = rate_schedule([size / max(each) for size in each])
    batches = " ".join(f"{start}:{size}" for start, size in zip(starts, each, strict=True))
    return RunConfig(rule=RULE, batch_size=batches, samples=budget, lr_schedule=schedule)


def rate_schedule(shares: Sequence[float]) -> str:
    """Stairs of equal length; each begins a hair early, so that no batch is a step late."""
    starts = ["0", *(f"{_down(100 * i / len(shares))}%" for i in range(1, len(shares)))]
    return " ".join(f"{start}:{share}" for start, share in zip(starts, shares, strict=True))


def _down(percent: float) -> str:
    return f"{math.floor(1000 * percent) / 1000:g}"


def _grid(asked: Asked, rate: str) -> list[float]:
    """Around the rate of the middle size, or of the largest if the rate follows the batch."""
    middle = math.sqrt(asked.small * asked.large)
    return first_rates(RULE, asked.large if rate == "proportional" else middle, asked.rates)


def moments(run: RunResult, budget: int) -> list[Row]:
    """Validation loss along a run; a run that diverged has no end.

    Args:
        run: The run.
        budget: Its examples.
    """
    series = run.series["loss"]
    failed = run.status is Status.DIVERGED
    return [
        {"share": float(s / budget), "loss": math.nan if failed else float(v)}
        for s, v in zip(series.samples, series.values, strict=True)
    ]


def shrink_loses(tables: Tables, rate: str) -> Sample:
    """log₂ of the validation loss at the end, shrinking over growing; one a repetition."""
    table = tables[TABLE].filter((pl.col("rate") == rate) & (pl.col("share") >= 1 - WINDOW))
    ends = table.group_by("order", "repetition").agg(pl.col("loss").mean())
    wide = ends.pivot("order", index="repetition", values="loss").sort("repetition")
    return np.log2((wide["shrink"] / wide["grow"]).to_numpy())


def picture(tables: Tables, rate: str) -> Picture:
    """Validation loss along both trainings."""
    table = tables[TABLE].filter(pl.col("rate") == rate).with_columns(pl.col("share").round(3))
    shown = points(table, x="share", y="loss", series="order")
    return Picture(
        title=Text(
            "Validation loss of the same batches in two orders.",
            "同じバッチを逆の順で使ったときの検証データでの損失。",
        ),
        x=Axis(Text("share of the training", "学習の進み（割合）")),
        y=LOSS,
        points=shown,
        series={
            "grow": Text("small, then large", "小さく始めて大きくする"),
            "shrink": Text("large, then small", "大きく始めて小さくする"),
        },
        caption=say(
            "Equal examples and equal updates in both orders; {t}; {m}.",
            "データ数と更新回数はどちらの順も同じ。{t}。{m}。",
            t=TUNED,
            m=averaged(shown),
        ),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Under a constant rate, and under one that follows the batch."""
    return tuple(_claim(parameters, rate) for rate in RATES)


def _claim(parameters: Parameters, rate: str) -> Claim:
    under = {
        "constant": Text("At a constant learning rate", "学習率が一定なら"),
        "proportional": Text(
            "With a learning rate that follows the batch", "学習率をバッチに比例させると"
        ),
    }[rate]
    return Claim(
        id=f"grow-beats-shrink-{rate}",
        sentence=Text(
            f"{under.en}, starting small and growing ends better than starting large and "
            "shrinking.",
            f"{under.ja}、小さく始めて大きくするほうが、大きく始めて小さくするより良い結果で"
            "終わります。",
        ),
        source="practitioner's guide, start small; kamo2025, theorem on growing batches"
        + ("" if rate == "constant" else "; umeda2024, growing rate"),
        measured=Text(
            "log₂ of the validation loss at the end, shrinking over growing",
            "終わりの検証データでの損失の比（縮小÷拡大）のlog₂",
        ),
        low=0.0,
        high=math.inf,
        n=Asked.of(parameters).seeds,
        values=functools.partial(shrink_loses, rate=rate),
        picture=functools.partial(picture, rate=rate),
        meaning=Text(
            "Growing the batch calms the end of a training as lowering the learning rate does: "
            "choose both together, and do not let the rate grow with the batch untested.",
            "バッチを大きくしていくと、学習率を下げるのと同じように学習の終わりが落ち着きます。両方を"
            "合わせて決め、確かめないままバッチと一緒に学習率を上げることは避けてください。",
        ),
        popular=Text(
            "“Start small and grow” is told without the learning rate, which decides.",
            "「小さく始めて大きくする」は、決め手になる学習率に触れずに語られがちです。",
        ),
        depends=Text(
            "On the schedule of the learning rate: what counts is the rate over the batch size, "
            "the noise of an update. At a constant rate growing lowers it; in proportion to the "
            "batch it stays, and shrinking lowers the rate itself.",
            "学習率のスケジュールによります。効くのは更新のノイズ、つまり学習率÷バッチサイズです。"
            "学習率が一定なら拡大でノイズが減り、比例させるとノイズは変わらず、縮小では学習率そのものが"
            "下がります。",
        ),
        expected=PILOT[rate][0],
        spread=PILOT[rate][1],
        twin={"fault": "growing not trained"},
    )


PILOT = {"constant": (1.5, 0.43), "proportional": (0.5, 0.64)}
"""Rate → mean and standard deviation of a repetition in a pilot on seeds of its own; where that
saw the opposite, a factor of 1.4 would matter.
"""
