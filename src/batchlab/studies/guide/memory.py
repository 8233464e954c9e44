"""What training holds in memory against the batch size: a constant plus so much an example."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

from batchlab._meter import Meter, memory_or_crash, tried, unmeasured
from batchlab._text import Text, say
from batchlab.config import RunConfig
from batchlab.engine.memory import LiveBytes
from batchlab.measure._trial import run_two_steps
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
from batchlab.studies.guide.data import MOST_TOGETHER, prepared, seconds
from batchlab.studies.guide.training import study_seed
from batchlab.studies.guide.words import averaged
from batchlab.tasks import Prepared

TABLE = "memory"
SOURCE = "practitioner's guide, out of memory"
SHARES = (1 / 16, 1 / 4, 1.0)
"""Batch sizes as shares of the largest; each step adds four times what the one before adds."""
MARGIN = 0.15
TENSORS, RESIDENT = (1.0, 0.0), (1.0, 0.05)
"""Mean and standard deviation of a trial: exact for tensors; else the pilot's spread."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One cell, alone in its process."""
    asked = Asked.of(parameters)
    # Two updates, counted in two ways; one trial more than is kept.
    examples = 4 * sum(share * _largest(asked) for share in SHARES)
    whole = (asked.trials + 1) * seconds("wide", asked.pictures, 0, examples)
    return (Cell(TABLE, asked.some("pictures examples held trials fault"), 2 + whole, alone=True),)


def _largest(asked: Asked) -> int:
    return min(asked.examples, MOST_TOGETHER)


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """Peaks of two updates and an evaluation, counted in two ways; a row a trial and size."""
    asked, rows = Asked.of(cell.settings), []
    ready = prepared("wide", asked.pictures, asked.examples, bench, held=asked.held)
    # The first trial loads libraries and is not kept.
    for trial in range(-1, asked.trials):
        seed = study_seed(bench, max(trial, 0))
        for share in SHARES:
            size = round(share * _largest(asked))
            run = run_size(size, share, asked.fault)
            found = {"tensors": tensors(ready, run, seed), "resident": resident(ready, run, seed)}
            rows.append({"trial": trial, "batch_size": size, **found})
        bench.hears.progress("", (trial + 1) / asked.trials)
    return [row for row in rows if row["trial"] >= 0]


def run_size(size: int, share: float, fault: str) -> int:
    """How many examples are run for a batch size; with a fault, less than the largest asks for.

    Example:
        >>> run_size(1024, 1.0, "part of the batch")
        768
    """
    return round(0.75 * size) if fault == "part of the batch" and share == 1.0 else size


def tensors(ready: Prepared, size: int, seed: int) -> float:
    """Most bytes of tensors that there are at a time while training at a batch size.

    Args:
        ready: The task.
        size: Examples of the batch.
        seed: Of the model.

    Returns:
        NaN if it did not run.
    """
    with LiveBytes() as live:
        outcome = tried(lambda: _train(ready, size, seed), None, memory_or_crash)
    return float(live.peak) if outcome.fits else math.nan


def resident(ready: Prepared, size: int, seed: int) -> float:
    """Most bytes that the process, or on a GPU torch, held above what it held before.

    Args:
        ready: The task.
        size: Examples of the batch.
        seed: Of the model.

    Returns:
        NaN if it did not run, or where the system does not tell.
    """
    if unmeasured(ready.device):
        return math.nan
    meter = Meter(ready.device)
    outcome = tried(lambda: _train(ready, size, seed), meter, memory_or_crash)
    return float(outcome.bytes) if outcome.bytes is not None else math.nan


def _train(ready: Prepared, size: int, seed: int) -> None:
    config = RunConfig(rule="adam", samples="1ep", seed=seed).resolved(ready.examples)
    run_two_steps(ready, config, torch.arange(size), torch.arange(1))


def exponent(tables: Tables, count: str) -> Sample:
    """log₄ of (M(16b) − M(4b))/(M(4b) − M(b)): 1 where memory is a + cB, 2 where it is a + cB².

    Args:
        tables: With the rows of this study.
        count: ``tensors`` or ``resident``.
    """
    table = tables[TABLE].sort("batch_size")
    wide = table.pivot("batch_size", index="trial", values=count).sort("trial").drop("trial")
    small, middle, large = (wide[name].to_numpy() for name in wide.columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log2((large - middle) / (middle - small)) / 2


def picture(tables: Tables) -> Picture:
    """MiB against the batch size, with the line of the tensors."""
    names = ["tensors", "resident"]
    table = tables[TABLE].unpivot(names, index=["batch_size"], variable_name="count")
    table = table.with_columns(mebibytes=table["value"] / 2**20)
    shown = points(table, x="batch_size", y="mebibytes", series="count")
    counted = [one for one in shown if one["series"] == "tensors"]
    ends = (counted[0], counted[-1])
    return Picture(
        title=Text(
            "The bytes of the tensors grow in proportion to the batch; what the process holds "
            "need not.",
            "テンソルの大きさはバッチに比例しますが、プロセスの使用量は比例するとは限りません。",
        ),
        x=Axis(Text("batch size (examples)", "バッチサイズ（件）")),
        y=Axis(Text("memory of training (MiB)", "学習に使うメモリ（MiB）")),
        points=shown,
        series={
            "tensors": Text("tensors", "テンソル"),
            "resident": Text("held by the process", "プロセスの使用量"),
        },
        caption=say(
            "Peak of two updates of a convolutional net above what was in use before; {m}. "
            "Dashed: the straight line through the outer points of the tensors.",
            "畳み込みネットの更新2回の間の最大使用量（開始前からの増加分）。{m}。破線はテンソルの両端の"
            "点を通る直線。",
            m=averaged(shown),
        ),
        theory=tuple({"x": one["x"], "y": one["y"], "series": "tensors"} for one in ends),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """It is linear, as tensors and as what the process holds."""
    trials = Asked.of(parameters).trials
    return (_tensors_claim(trials), _resident_claim(trials))


def _measured(en: str, ja: str) -> Text:
    return Text(
        f"log₄ of (M(16b) − M(4b))/(M(4b) − M(b)), M being {en}: the power of the batch size; "
        f"predicted 1 ± {MARGIN:g}",
        f"M＝{ja}としたときの(M(16b)−M(4b))/(M(4b)−M(b))のlog₄（バッチサイズの何乗か。予測は"
        f"1±{MARGIN:g}）",
    )


def _tensors_claim(trials: int) -> Claim:
    return Claim(
        id="memory-linear",
        sentence=Text(
            "The tensors of a training take memory linear in the batch size.",
            "学習で使うテンソルの大きさは、バッチサイズの一次関数です。",
        ),
        source=SOURCE,
        measured=_measured(
            "the most bytes of tensors at a time", "同時に存在するテンソルの最大量"
        ),
        low=1 - MARGIN,
        high=1 + MARGIN,
        n=trials,
        values=functools.partial(exponent, count="tensors"),
        picture=picture,
        meaning=Text(
            "Two measured sizes say what a third will take; the constant part (weights, gradients "
            "and the state of the optimizer) stays when the batch is halved.",
            "2通りの大きさで測れば3つ目を見積もれます。重み・勾配・最適化の状態の分は、バッチを半分に"
            "しても減りません。",
        ),
        popular=Text(
            "“Half the batch, half the memory” forgets the constant part.",
            "「バッチを半分にすればメモリも半分」ではありません。一定の部分が残ります。",
        ),
        expected=TENSORS[0],
        spread=TENSORS[1],
        twin={"fault": "part of the batch"},
    )


def _resident_claim(trials: int) -> Claim:
    return Claim(
        id="memory-linear-resident",
        sentence=Text(
            "The memory that the process holds is linear in the batch size, too.",
            "プロセスが使うメモリも、バッチサイズの一次関数です。",
        ),
        source=SOURCE,
        measured=_measured("the peak of the process", "プロセスの最大使用量"),
        low=1 - MARGIN,
        high=1 + MARGIN,
        n=trials,
        values=functools.partial(exponent, count="resident"),
        picture=picture,
        meaning=Text(
            "Never trust a size that has not run: `batchlab fit` runs each.",
            "実際に動かしていない大きさを当てにしないでください（`batchlab fit`は毎回動かして"
            "確かめます）。",
        ),
        depends=Text(
            "On who hands out the memory. On the processor, small blocks come from a heap that "
            "keeps gaps, large ones come one by one without: the slope changes where the largest "
            "tensors pass from one to the other. On a GPU, torch keeps blocks and rounds them up.",
            "メモリの割り当て方によります。CPUでは、小さな領域は隙間の残るヒープから、大きな領域は1つ"
            "ずつ隙間なく割り当てられるため、最大のテンソルがその境目を超えると増え方が変わります。GPU"
            "では、torchが領域を取り置き、切り上げて使います。",
        ),
        expected=RESIDENT[0],
        spread=RESIDENT[1],
        twin={"fault": "part of the batch"},
    )
