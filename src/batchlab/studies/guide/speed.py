"""Examples a second against the batch size: it rises, and then it does not."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from batchlab import _platform
from batchlab._text import Text, say
from batchlab.config import RunConfig
from batchlab.measure.throughput import Block, knee, seconds_per_update, time_block
from batchlab.studies.claim import (
    Axis,
    Bench,
    Cell,
    Claim,
    Parameters,
    Picture,
    Row,
    Sample,
    Statistic,
    Tables,
)
from batchlab.studies.drawing import points
from batchlab.studies.guide.asked import Asked
from batchlab.studies.guide.data import MOST_TOGETHER, prepared, seconds
from batchlab.studies.guide.words import BATCH, middle

TABLE = "speed"
SOURCE = "practitioner's guide, memory and computing efficiency"
MIDDLE = 32
BLOCK_SECONDS = 0.05
LITTLE = math.log2(1.2)
"""A doubled batch that brings less than a fifth more examples a second is past the knee."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One cell, alone on the machine: rounds over all batch sizes."""
    asked = Asked.of(parameters)
    # Two updates before the clock starts, and one at least.
    least = [3 * seconds("cnn", asked.pictures, 1, size) for size in _sizes(asked)]
    whole = (asked.rounds + 1) * sum(BLOCK_SECONDS + each for each in least)
    return (Cell(TABLE, asked.some("pictures examples held rounds fault"), 2 + whole, alone=True),)


def _sizes(asked: Asked) -> list[int]:
    return doublings(min(asked.examples, MOST_TOGETHER))


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """Seconds per update of the plain training loop, a row a round and batch size."""
    asked = Asked.of(cell.settings)
    ready = prepared("cnn", asked.pictures, asked.examples, bench, held=asked.held)
    sizes = _sizes(asked)
    run = RunConfig(rule="sgd", learning_rate=0.01, samples="1ep").resolved(ready.examples)
    threads = _platform.available_cores() if bench.device == "cpu" else None
    rows: list[Row] = []
    for round_ in range(asked.rounds + 1):
        for size in sizes:
            block = time_block(
                ready, run, BLOCK_SECONDS, batch_size=size, threads=threads, start=round_ * size
            )
            # The first round finds caches empty and kernels unchosen.
            if round_:
                rows.append({"round": round_ - 1, "batch_size": size, **_told(block)})
        bench.hears.progress("", round_ / asked.rounds)
    return faulty(rows, asked.fault)


def _told(block: Block) -> dict[str, float]:
    seconds = block.seconds / block.updates
    return {"seconds": seconds, "speed": block.batch_size / seconds}


def faulty(rows: list[Row], fault: str) -> list[Row]:
    """The same rows, spoilt if a fault is planted.

    Args:
        rows: As measured.
        fault: ``reciprocal`` takes seconds per example for examples a second, ``another time``
            charges every batch with the seconds of batch size 1.
    """
    if fault == "reciprocal":
        return [{**row, "speed": 1 / float(row["speed"])} for row in rows]
    if fault == "another time":
        first = {row["round"]: float(row["seconds"]) for row in rows if row["batch_size"] == 1}
        return [{**row, "speed": float(row["batch_size"]) / first[row["round"]]} for row in rows]
    return rows


def doublings(largest: int) -> list[int]:
    """1, 2, 4 … up to a number.

    Example:
        >>> doublings(9)
        [1, 2, 4, 8]
    """
    return [2**i for i in range(int(math.log2(largest)) + 1)]


def rise(tables: Tables) -> Sample:
    """log₂ of how many times more examples a second batch size 32 takes than 1; one a round."""
    speed = _by_round(tables)
    return np.log2((speed[str(MIDDLE)] / speed["1"]).to_numpy())


def last_gain(tables: Tables) -> Sample:
    """log₂ of what the last doubling of the batch brings; one a round."""
    speed = _by_round(tables)
    half, largest = speed.columns[-2:]
    return np.log2((speed[largest] / speed[half]).to_numpy())


def knees(tables: Tables) -> Sample:
    """Smallest batch size with 1/1.2 of the best speed; one a round."""
    found = []
    for _, part in tables[TABLE].group_by("round", maintain_order=True):
        blocks = [
            Block(size, 1, size / speed, 0.0, 0)
            for size, speed in part.select("batch_size", "speed").iter_rows()
        ]
        found.append(float(knee(seconds_per_update([block]) for block in blocks) or math.nan))
    return np.array(found)


def _by_round(tables: Tables) -> pl.DataFrame:
    """A column a batch size, ascending; a row a round."""
    wide = tables[TABLE].sort("batch_size").pivot("batch_size", index="round", values="speed")
    return wide.sort("round").drop("round")


def picture(tables: Tables) -> Picture:
    """Examples a second against the batch size."""
    shown = points(tables[TABLE], x="batch_size", y="speed", statistic=Statistic.MEDIAN)
    return Picture(
        title=Text(
            "Examples a second rise with the batch size until the machine is busy.",
            "処理速度はバッチサイズとともに上がり、計算機が使い切られると頭打ちになります。",
        ),
        x=BATCH,
        y=Axis(Text("examples a second", "1秒あたりの処理件数"), log=True),
        points=shown,
        series={"measured": Text("measured", "測定値")},
        caption=say(
            "A convolutional net in training, data loading included, on all cores; {m}.",
            "畳み込みネットの学習（データの読み込みを含む）、全コア使用。{m}。",
            m=middle(shown),
        ),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """It rises; it flattens; and where, which nobody can predict."""
    asked = Asked.of(parameters)
    rounds, sizes = asked.rounds, _sizes(asked)
    depends = Text(
        "On the machine (cores, caches, GPU), on the model and on the data loading: where the "
        "knee lies has to be measured for each; `batchlab fit` does.",
        "計算機（コア数・キャッシュ・GPU）、モデル、データの読み込みによって変わります。頭打ちになる"
        "位置は条件ごとに測る必要があります（`batchlab fit`で測れます）。",
    )
    return (
        Claim(
            id="throughput-rises",
            sentence=Text(
                "A larger batch takes more examples a second.",
                "バッチを大きくすると、1秒あたりに処理できるデータが増えます。",
            ),
            source=SOURCE,
            measured=Text(
                f"log₂ of the speed at batch size {MIDDLE} over that at 1",
                f"バッチサイズ{MIDDLE}と1の処理速度の比のlog₂",
            ),
            low=0.0,
            high=math.inf,
            n=rounds,
            values=rise,
            picture=picture,
            meaning=Text(
                "Below the knee, time is lost in every update: batch size 1 is rarely worth it.",
                "頭打ちになる手前では更新のたびに時間を無駄にします。バッチサイズ1が得になることは"
                "まれです。",
            ),
            expected=RISE[0],
            spread=RISE[1],
            statistic=Statistic.MEDIAN,
            depends=depends,
            twin={"fault": "reciprocal"},
        ),
        Claim(
            id="throughput-knee",
            sentence=Text(
                "Past a knee, a larger batch is hardly faster.",
                "ある大きさを超えると、バッチを大きくしてもほとんど速くなりません。",
            ),
            source=SOURCE,
            measured=Text(
                f"log₂ of the speed at batch size {sizes[-1]} over that at {sizes[-2]}; less than "
                "a fifth more is predicted",
                f"バッチサイズ{sizes[-1]}と{sizes[-2]}の処理速度の比のlog₂（予測は2割増し未満）",
            ),
            low=-math.inf,
            high=LITTLE,
            n=rounds,
            values=last_gain,
            picture=picture,
            meaning=Text(
                "Past the knee a larger batch costs memory and updates and gives no speed.",
                "頭打ちの先では、バッチを大きくしてもメモリを使い更新回数が減るだけで、速くは"
                "なりません。",
            ),
            popular=Text(
                "“The largest batch that fits is the fastest” is at best as fast as the knee, and "
                "where the caches overflow it is slower.",
                "「メモリに載る最大のバッチが最速」とは限りません。せいぜい頭打ちの位置と同じ速さで、"
                "キャッシュからあふれるとかえって遅くなります。",
            ),
            expected=LAST[0],
            spread=LAST[1],
            statistic=Statistic.MEDIAN,
            depends=depends,
            twin={"fault": "another time"},
        ),
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """Where the knee lies on this machine."""
    return (
        Claim(
            id="knee",
            sentence=Text(
                "Where the knee lies on this computer.", "このパソコンで頭打ちになる位置。"
            ),
            source="measured here",
            measured=Text(
                "smallest batch size with 1/1.2 of the best speed",
                "最高速度の1/1.2に達する最小のバッチサイズ",
            ),
            n=Asked.of(parameters).rounds,
            values=knees,
            picture=picture,
            meaning=Text(
                "Start the search for a batch size here; below it, smaller is not cheaper.",
                "バッチサイズを探すならここから始めます。これより小さくしても安くはなりません。",
            ),
            unit="examples",
            statistic=Statistic.MEDIAN,
            finding=True,
        ),
    )


RISE, LAST = (3.0, 0.3), (0.1, 0.15)
"""Middle and standard deviation of a round in a pilot; a machine that is busy has more."""
