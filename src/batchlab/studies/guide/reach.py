"""Updates and examples until a target, for nets that read rows and nets that see the whole."""

from __future__ import annotations

import functools
import math

import numpy as np
import polars as pl

from batchlab import stats
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
    Trainer,
    first_rates,
    samples,
    sizes,
    study_seeds,
    tuning_seeds,
)
from batchlab.studies.guide.words import BATCH, TUNED, averaged

TABLE = "reach"
RULE = "adam"
NETS = ("cnn", "gru")


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """A net, a kind of data and a batch size each."""
    names = (
        *("examples", "small", "large", "rates", "seeds", "tuning", "target"),
        *("held", "reach_small", "reach_large", "fault"),
    )
    shared = {name: parameters[name] for name in names}
    runs = int(parameters["seeds"]) + int(parameters["rates"]) * int(parameters["tuning"])
    return tuple(
        Cell(
            TABLE,
            {"net": net, "data": data, "batch_size": size, **shared},
            2 + _seconds(net, size, samples(parameters, passes(parameters, size))) * runs,
        )
        for data in (str(parameters["pictures"]), "signals")
        for net in NETS
        for size in sizes(parameters)
    )


def _seconds(net: str, size: int, budget: int) -> float:
    """Of one run, roughly: so much an update and an example."""
    update, example = (1e-3, 2e-5) if net == "cnn" else (1.5e-3, 5e-6)
    return budget * (update / size + example)


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A batch size at its own best rate; a row a seed."""
    asked = cell.settings
    net, fault, size = str(asked["net"]), str(asked["fault"]), int(asked["batch_size"])
    ready = prepared(
        "cnn" if fault == "nets ignored" else net,
        str(asked["data"]),
        int(asked["examples"]),
        data=bench.data,
        device=bench.device,
        held=int(asked["held"]),
    )
    budget = samples(asked, passes(asked, size))
    run = RunConfig(rule=RULE, batch_size=size, samples=budget)
    job = Job(tuple(range(0, budget + 1, int(asked["large"]))))
    arrival = functools.partial(arrived, target=float(asked["target"]))
    seeds = study_seeds(bench, int(asked["seeds"]))
    with Trainer(ready, bench, 2) as trainer:
        grid = first_rates(RULE, size, int(asked["rates"]))
        tuning = tuning_seeds(bench, int(asked["tuning"]))
        rate = trainer.tuned(run, grid, tuning, job, arrival)
        trained, _ = trainer.train(
            [run.replace(learning_rate=rate, seed=seed) for seed in seeds], job
        )
    return [
        {"repetition": i, "learning_rate": rate, **counted(arrival(one), size, fault)}
        for i, one in enumerate(trained)
    ]


def counted(arrival: float, size: int, fault: str) -> Row:
    """Examples and updates until the target; NaN if it was not reached, which leaves it open.

    Args:
        arrival: Examples, or infinite.
        size: Examples of an update.
        fault: ``counts exchanged`` takes each for the other.

    Example:
        >>> counted(640.0, 16, "none")
        {'samples': 640.0, 'updates': 40.0}
    """
    seen = arrival if math.isfinite(arrival) else math.nan
    if fault == "counts exchanged":
        return {"samples": seen / size, "updates": seen}
    return {"samples": seen, "updates": seen / size}


def passes(asked: Parameters, size: int) -> float:
    """How long a batch size is trained: longer for a larger one, which needs more examples.

    Example:
        >>> passes({"small": 16, "large": 256, "reach_small": 4, "reach_large": 16}, 64)
        8.0
    """
    small, large = int(asked["small"]), int(asked["large"])
    least, most = float(asked["reach_small"]), float(asked["reach_large"])
    share = math.log(size / small) / math.log(large / small)
    return least * (most / least) ** share


def arrived(run: RunResult, target: float) -> float:
    """Examples until the validation loss has reached the target; infinite if it never does."""
    series = run.series["loss"]
    return stats.time_to_target(series.samples, series.values, target, maximise=False)


def _ends(tables: Tables, net: str, data: str, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """log₂ of a quantity at the smallest and at the largest batch, one each a repetition."""
    table = tables[TABLE].filter((pl.col("net") == net) & (pl.col("data") == data))
    wide = table.sort("batch_size").pivot("batch_size", index="repetition", values=quantity)
    wide = wide.sort("repetition").drop("repetition")
    small, large = (np.log2(wide[name].to_numpy()) for name in (wide.columns[0], wide.columns[-1]))
    return small, large


def more_updates(tables: Tables, data: str) -> Sample:
    """log₂ of updates small over large, of the convolutional net."""
    small, large = _ends(tables, "cnn", data, "updates")
    return small - large


def fewer_samples(tables: Tables, data: str, net: str = "cnn") -> Sample:
    """log₂ of examples large over small."""
    small, large = _ends(tables, net, data, "samples")
    return large - small


def recurrent_loses_more(tables: Tables, data: str) -> Sample:
    """By how much more the recurrent net loses by the large batch than the convolutional one."""
    return fewer_samples(tables, data, "gru") - fewer_samples(tables, data, "cnn")


def picture(tables: Tables, data: str, quantity: str, nets: tuple[str, ...] = NETS) -> Picture:
    """Updates or examples until the target, against the batch size."""
    table = tables[TABLE].filter((pl.col("data") == data) & pl.col("net").is_in(nets))
    what = Text("examples", "データ数") if quantity == "samples" else Text("updates", "更新回数")
    shown = points(table, x="batch_size", y=quantity, series="net")
    words = {"cnn": Text("convolutional net", "畳み込み"), "gru": Text("recurrent net", "再帰型")}
    return Picture(
        title=Text(
            f"{what.en.capitalize()} until the target, against the batch size.",
            f"目標に達するまでの{what.ja}とバッチサイズ。",
        ),
        x=BATCH,
        y=Axis(Text(f"{what.en} until the target", f"目標までの{what.ja}"), log=True),
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
    pictures = str(parameters["pictures"])
    return (
        _updates_claim(parameters, pictures),
        _samples_claim(parameters, pictures),
        _recurrent_claim(parameters, pictures),
        _recurrent_claim(parameters, "signals"),
    )


def _updates_claim(parameters: Parameters, data: str) -> Claim:
    small, large = parameters["small"], parameters["large"]
    return Claim(
        id="small-needs-more-updates",
        sentence=Text(
            "A small batch needs more updates to a target.",
            "小さいバッチは、目標に達するまでの更新回数が多くなります。",
        ),
        source="practitioner's guide, frequent updates; mccandlish2018, equation 2.11",
        measured=Text(
            f"log₂ of updates to the target, batch size {small} over {large}",
            f"目標までの更新回数の比（バッチサイズ{small}÷{large}）のlog₂",
        ),
        low=0.0,
        high=math.inf,
        n=int(parameters["seeds"]),
        values=functools.partial(more_updates, data=data),
        picture=functools.partial(picture, data=data, quantity="updates", nets=("cnn",)),
        meaning=Text(
            "A large batch saves time only as long as its updates are not slower by more than it "
            "saves in number.",
            "大きいバッチで時間が縮むのは、更新回数の減り方が1回あたりの遅さを上回る間だけです。",
        ),
        expected=UPDATES[0],
        spread=UPDATES[1],
        twin={"fault": "counts exchanged"},
    )


def _samples_claim(parameters: Parameters, data: str) -> Claim:
    small, large = parameters["small"], parameters["large"]
    return Claim(
        id="small-needs-fewer-samples",
        sentence=Text(
            "A small batch needs fewer examples to a target.",
            "小さいバッチは、目標に達するまでに使うデータが少なくて済みます。",
        ),
        source="practitioner's guide, frequent updates; mccandlish2018, equation 2.11",
        measured=Text(
            f"log₂ of examples to the target, batch size {large} over {small}",
            f"目標までのデータ数の比（バッチサイズ{large}÷{small}）のlog₂",
        ),
        low=0.0,
        high=math.inf,
        n=int(parameters["seeds"]),
        values=functools.partial(fewer_samples, data=data),
        picture=functools.partial(picture, data=data, quantity="samples", nets=("cnn",)),
        meaning=Text(
            "Where computing is paid by the example, the small batch is cheaper; where a machine "
            "is rented by the hour, speed decides as well.",
            "処理したデータの量で費用が決まるなら小さいバッチが有利です。計算機を時間で借りるなら、"
            "速さも合わせて決まります。",
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
        expected=SAMPLES[0],
        spread=SAMPLES[1],
        twin={"fault": "counts exchanged"},
    )


def _recurrent_claim(parameters: Parameters, data: str) -> Claim:
    small, large = parameters["small"], parameters["large"]
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
            f"log₂ of examples to the target, batch size {large} over {small}: recurrent − "
            "convolutional, on the same data",
            f"目標までのデータ数の比（バッチサイズ{large}÷{small}）のlog₂の差（再帰型−畳み込み、同じ"
            "データ）",
        ),
        low=0.0,
        high=math.inf,
        n=int(parameters["seeds"]),
        values=functools.partial(recurrent_loses_more, data=data),
        picture=functools.partial(picture, data=data, quantity="samples"),
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
        twin={"fault": "nets ignored"},
    )


UPDATES, SAMPLES = (1.2, 0.2), (1.7, 0.2)
"""Mean and standard deviation of a repetition in a pilot on seeds of its own."""
RECURRENT = {"pictures": (0.5, 0.65), "signals": (0.5, 0.5)}
"""The spread of the pilot, which saw no such difference: a factor of 1.4 would matter."""
