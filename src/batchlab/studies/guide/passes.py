"""More passes over the data: where the validation loss rises again."""

from __future__ import annotations

import functools
import math

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
    study_seeds,
    tuning_seeds,
)
from batchlab.studies.guide.words import averaged
from batchlab.types import Status

TABLE = "passes"
RULE = "shb"
LABELS = ("right", "wrong")
MOMENTS = 20
"""A multiple of ten, so that a tenth of the training ends at a moment."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """The labels as they are, and with a share that is wrong."""
    names = (
        *("pictures", "net", "few", "small", "rates", "seeds", "tuning"),
        *("short", "long", "wrong", "fault"),
    )
    shared = {name: parameters[name] for name in names}
    tried = int(parameters["rates"]) * int(parameters["tuning"])
    long, short = (batches(parameters, float(parameters[name])) for name in ("long", "short"))
    updates = (long * int(parameters["seeds"]) + short * tried) / int(parameters["small"])
    return tuple(
        Cell(TABLE, {"labels": labels, **shared}, 2 + 1e-3 * updates) for labels in LABELS
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """Long trainings at the rate that is best for short ones; a row a seed and moment."""
    asked = cell.settings
    ready = prepared(
        str(asked["net"]),
        str(asked["pictures"]),
        int(asked["few"]),
        data=bench.data,
        device=bench.device,
        wrong=float(asked["wrong"]) if asked["labels"] == "wrong" else 0.0,
    )
    size = int(asked["small"])
    short, long = (batches(asked, float(asked[name])) for name in ("short", "long"))
    with Trainer(ready, bench, 2) as trainer:
        tried = RunConfig(rule=RULE, batch_size=size, samples=short)
        grid = first_rates(RULE, size, int(asked["rates"]))
        tuning = tuning_seeds(bench, int(asked["tuning"]))
        rate = trainer.tuned(tried, grid, tuning, _job(short), end)
        run = tried.replace(samples=long, learning_rate=rate)
        seeds = study_seeds(bench, int(asked["seeds"]))
        trained, _ = trainer.train([run.replace(seed=seed) for seed in seeds], _job(long, short))
    rows = []
    for repetition, one in enumerate(trained):
        told = {"repetition": repetition, "learning_rate": rate}
        rows += [{**told, **moment} for moment in moments(one, short, long)]
    return stale(rows) if asked["fault"] == "stale evaluation" else rows


def batches(asked: Parameters, passes: float) -> int:
    """Whole batches that make so many passes over the few examples.

    Example:
        >>> batches({"few": 100, "small": 16}, passes=2)
        192
    """
    size = int(asked["small"])
    return size * max(1, round(passes * int(asked["few"]) / size))


def _job(*ends: int) -> Job:
    """Evaluations along every length, in its last tenth too."""
    return Job(tuple(sorted({round(e * i / MOMENTS) for e in ends for i in range(MOMENTS + 1)})))


def moments(run: RunResult, short: int, long: int) -> list[Row]:
    """Losses and accuracy along a run; in which window a moment lies.

    Args:
        run: The run.
        short: Examples of a short training.
        long: Of the long one.
    """
    failed = run.status is Status.DIVERGED
    loss, metric, train = (run.series[name] for name in ("loss", "metric", "train_loss"))
    learned = dict(zip(train.samples.tolist(), train.values.tolist(), strict=True))
    rows: list[Row] = []
    for at, value, score in zip(loss.samples.tolist(), loss.values, metric.values, strict=True):
        window = next(
            (n for n, e in (("short", short), ("long", long)) if (1 - WINDOW) * e <= at <= e), ""
        )
        rows.append(
            {
                "samples": at,
                "window": window,
                "validation": math.nan if failed else float(value),
                "accuracy": math.nan if failed else float(score),
                "training": learned.get(at, math.nan),
            }
        )
    return rows


def stale(rows: list[Row]) -> list[Row]:
    """A planted fault: what is read at the end is what was read at the end of the short training.

    Args:
        rows: As measured.
    """
    kept = {row["repetition"]: row for row in rows if row["window"] == "short"}
    return [
        {**row, **{k: kept[row["repetition"]][k] for k in ("validation", "accuracy")}}
        if row["window"]
        else row
        for row in rows
    ]


def change(tables: Tables, labels: str, quantity: str = "validation") -> Sample:
    """By how much a quantity is higher after the long training; one a repetition."""
    table = tables[TABLE].filter((pl.col("labels") == labels) & (pl.col("window") != ""))
    ends = table.group_by("window", "repetition").agg(pl.col(quantity).mean())
    wide = ends.pivot("window", index="repetition", values=quantity).sort("repetition")
    return (wide["long"] - wide["short"]).to_numpy()


def picture(tables: Tables, labels: str) -> Picture:
    """Losses along the training."""
    table = tables[TABLE].filter(pl.col("labels") == labels)
    table = table.unpivot(["validation", "training"], index=["samples", "few"], variable_name="of")
    table = table.with_columns(passes=pl.col("samples") / pl.col("few"))
    shown = points(table, x="passes", y="value", series="of")
    return Picture(
        title=Text(
            "Losses against the number of passes over the data.", "データを回す回数と損失。"
        ),
        x=Axis(Text("passes over the data", "データを回す回数")),
        y=Axis(Text("loss", "損失")),
        points=shown,
        series={
            "validation": Text("validation", "検証データ"),
            "training": Text("training, while it learns", "学習データ（学習中）"),
        },
        caption=say(
            "Constant learning rate, chosen for the short training on other seeds; {m}.",
            "学習率は一定（短い学習に合わせて別の乱数シードで選択）。{m}。",
            m=averaged(shown),
        ),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """On the labels as they are, and on labels of which a share is wrong."""
    return tuple(_claim(parameters, labels) for labels in LABELS)


def _claim(parameters: Parameters, labels: str) -> Claim:
    short, long = parameters["short"], parameters["long"]
    wrong = f"{100 * float(parameters['wrong']):g}"
    on = {
        "right": Text("On clean labels", "正しいラベルでは"),
        "wrong": Text(f"With {wrong} % of the labels wrong", f"ラベルの{wrong}%が誤りなら"),
    }[labels]
    return Claim(
        id=f"passes-overfit-{labels}",
        sentence=Text(
            f"{on.en}, more passes over the data over-fit.",
            f"{on.ja}、データを回す回数を増やすと過学習します。",
        ),
        source="practitioner's guide, number of epochs",
        measured=Text(
            f"validation loss after {long} passes − after {short}",
            f"検証データでの損失の差（{long}回−{short}回）",
        ),
        low=0.0,
        high=math.inf,
        n=int(parameters["seeds"]),
        values=functools.partial(change, labels=labels),
        picture=functools.partial(picture, labels=labels),
        meaning=Text(
            "Watch the validation loss rather than the number of passes, and keep the model of "
            "its lowest point.",
            "データを回す回数ではなく検証データでの損失を見て、最も低かった時点のモデルを残します。",
        ),
        popular=Text(
            "“More epochs over-fit” is no law: a model can go on improving long after it knows "
            "every training example.",
            "「エポックを増やすと過学習する」とは限りません。学習データをすべて覚えたあとも、良くなり"
            "続けることがあります。",
        ),
        depends=Text(
            "On wrong labels: there is nothing false to learn by heart in clean data. Also on the "
            "size of the data, on weight decay, and on whether the loss or the accuracy is read.",
            "誤ったラベルの有無によります。正しいデータには、覚えて害になるものがありません。データの"
            "量、重み減衰、損失と正解率のどちらで見るかにもよります。",
        ),
        expected=PILOT[labels][0],
        spread=PILOT[labels][1],
        twin={"fault": "stale evaluation"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """What becomes of the accuracy where the loss rises."""
    short, long = parameters["short"], parameters["long"]
    return (
        Claim(
            id="passes-accuracy-wrong",
            sentence=Text(
                "What more passes over wrong labels do to the accuracy.",
                "誤ったラベルでデータを回す回数を増やしたときの正解率の変化。",
            ),
            source="measured here",
            measured=Text(
                f"validation accuracy after {long} passes − after {short} (1 is all)",
                f"検証データでの正解率の差（{long}回−{short}回、1が全件）",
            ),
            low=-math.inf,
            high=math.inf,
            n=int(parameters["seeds"]),
            values=functools.partial(change, labels="wrong", quantity="accuracy"),
            picture=functools.partial(picture, labels="wrong"),
            meaning=Text(
                "Stop by the quantity that you will be judged by: loss and accuracy need not "
                "turn at the same moment.",
                "最終的に評価される量を見て止めます。損失と正解率が同じ時点で悪化し始めるとは限り"
                "ません。",
            ),
            expected=0.0,
            finding=True,
        ),
    )


PILOT = {"right": (0.2, 0.27), "wrong": (0.58, 0.14)}
"""Labels → mean and standard deviation of a repetition in a pilot on seeds of its own; where that
saw no rise, 0.2 would matter.
"""
