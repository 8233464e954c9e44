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
from batchlab.studies.guide.data import prepared
from batchlab.studies.guide.training import (
    WINDOW,
    Trainer,
    end,
    first_rates,
    samples,
    study_seeds,
    tuning_seeds,
)
from batchlab.studies.guide.words import LOSS, averaged
from batchlab.types import Status

TABLE = "growth"
RULE = "shb"
ORDERS = ("grow", "shrink")
RATES = ("constant", "proportional")
MOMENTS = 20


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """Each order under each rate."""
    names = (
        *("pictures", "net", "examples", "small", "large", "stages", "rates", "seeds", "tuning"),
        *("passes", "fault"),
    )
    shared = {name: parameters[name] for name in names}
    runs = int(parameters["seeds"]) + int(parameters["rates"]) * int(parameters["tuning"])
    updates = samples(parameters, float(parameters["passes"])) / int(parameters["stages"])
    seconds = 2 + 1e-3 * runs * updates * sum(1 / size for size in stages(parameters))
    return tuple(
        Cell(TABLE, {"rate": rate, "order": order, **shared}, seconds)
        for rate in RATES
        for order in ORDERS
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """An order at its own best rate; a row a seed and moment."""
    asked, rows = cell.settings, []
    ready = prepared(
        str(asked["net"]),
        str(asked["pictures"]),
        int(asked["examples"]),
        data=bench.data,
        device=bench.device,
    )
    budget = samples(asked, float(asked["passes"]))
    job = Job(tuple(round(i * budget / MOMENTS) for i in range(MOMENTS + 1)))
    run = planned(asked, str(asked["order"]), budget)
    seeds = study_seeds(bench, int(asked["seeds"]))
    with Trainer(ready, bench, 2) as trainer:
        tuning = tuning_seeds(bench, int(asked["tuning"]))
        rate = trainer.tuned(run, _grid(asked), tuning, job, end)
        trained, _ = trainer.train(
            [run.replace(learning_rate=rate, seed=seed) for seed in seeds], job
        )
    for repetition, one in enumerate(trained):
        told = {"repetition": repetition, "learning_rate": rate}
        rows += [{**told, **moment} for moment in moments(one, budget)]
    return rows


def planned(asked: Parameters, order: str, budget: int) -> RunConfig:
    """The run of an order: every size gets the same share of the examples.

    Example:
        >>> asked = {"small": 8, "large": 32, "stages": 3, "rate": "proportional", "fault": ""}
        >>> run = planned(asked, "shrink", budget=3000)
        >>> run.batch_size, run.lr_schedule
        ('0:32 1000:16 2000:8', '0:1.0 33.333%:0.5 66.666%:0.25')
    """
    sizes = stages(asked)
    if order == "shrink" and asked["fault"] != "order ignored":
        sizes = sizes[::-1]
    starts = [round(i * budget / len(sizes)) for i in range(len(sizes))]
    schedule = "constant"
    if asked["rate"] == "proportional":
        schedule = rate_schedule([size / max(sizes) for size in sizes])
    batches = " ".join(f"{start}:{size}" for start, size in zip(starts, sizes, strict=True))
    return RunConfig(rule=RULE, batch_size=batches, samples=budget, lr_schedule=schedule)


def stages(asked: Parameters) -> list[int]:
    """Batch sizes from small to large, evenly spaced in their logarithm.

    Example:
        >>> stages({"small": 16, "large": 256, "stages": 5})
        [16, 32, 64, 128, 256]
    """
    small, large = (math.log2(int(asked[name])) for name in ("small", "large"))
    return [round(2**x) for x in np.linspace(small, large, int(asked["stages"])).round()]


def rate_schedule(shares: Sequence[float]) -> str:
    """Stairs of equal length; each begins a hair early, so that no batch is a step late."""
    starts = ["0", *(f"{_down(100 * i / len(shares))}%" for i in range(1, len(shares)))]
    return " ".join(f"{start}:{share}" for start, share in zip(starts, shares, strict=True))


def _down(percent: float) -> str:
    return f"{math.floor(1000 * percent) / 1000:g}"


def _grid(asked: Parameters) -> list[float]:
    """Around the rate of the middle size, or of the largest if the rate follows the batch."""
    small, large = int(asked["small"]), int(asked["large"])
    size = large if asked["rate"] == "proportional" else math.sqrt(small * large)
    return first_rates(RULE, size, int(asked["rates"]))


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
            "Equal examples and equal updates in both orders; the rate was chosen for each on "
            "other seeds; {m}.",
            "データ数と更新回数はどちらの順も同じ。学習率はそれぞれ別の乱数シードで選択。{m}。",
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
        n=int(parameters["seeds"]),
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
        twin={"fault": "order ignored"},
    )


PILOT = {"constant": (1.5, 0.3), "proportional": (0.5, 0.2)}
"""Rate → mean and standard deviation of a repetition in a pilot on seeds of its own; where that
saw the opposite, a factor of 1.4 would matter.
"""
