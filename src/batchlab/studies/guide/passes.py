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
from batchlab.studies.guide.asked import Asked
from batchlab.studies.guide.data import prepared, seconds
from batchlab.studies.guide.training import (
    TUNING,
    WINDOW,
    Trainer,
    along,
    at_end,
    first_rates,
    tried,
)
from batchlab.studies.guide.words import averaged
from batchlab.types import Status

TABLE = "passes"
RULE = "shb"
LABELS = ("right", "wrong")
HORIZONS = ("short", "long")
"""The training for whose end a rate was chosen; both are trained to the long one's end."""
MOMENTS = 20
"""A multiple of ten, so that a tenth of the training ends at a moment."""
NEEDS = "pictures net few held small rates seeds short long wrong fault"


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """The labels as they are, and with a share that is wrong; the rate for each length."""
    asked = Asked.of(parameters)
    return tuple(
        Cell(TABLE, {"labels": labels, "rate": rate, **asked.some(NEEDS)}, _seconds(asked, rate))
        for labels in LABELS
        for rate in HORIZONS
    )


def _seconds(asked: Asked, rate: str) -> float:
    lengths = _budget(asked, rate) * TUNING * tried(asked) + _budget(asked, "long")
    one = seconds(asked.net, asked.pictures, lengths / asked.small, lengths)
    return 2 + asked.seeds * one


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """Long trainings, at the rates best for one of the lengths; a row a seed and moment."""
    asked, rate = Asked.of(cell.settings), str(cell.settings["rate"])
    wrong = asked.wrong if cell.settings["labels"] == "wrong" else 0.0
    ready = prepared(asked.net, asked.pictures, asked.few, bench, held=asked.held, wrong=wrong)
    budget, short, long = (_budget(asked, name) for name in (rate, *HORIZONS))
    run = RunConfig(rule=RULE, batch_size=asked.small, samples=budget)
    # A training that is so many times longer wants about so many times smaller a rate.
    grid = [short / budget * r for r in first_rates(RULE, asked.small, asked.rates)]
    job = Job(tuple(sorted({*at_end(short).evaluate_at, *along(long, MOMENTS)})))
    with Trainer(ready, bench, 3, cell.seconds) as trainer:
        rates = trainer.tuned(run, grid, asked.seeds, trainer.endings)
        trained, _ = trainer.train(trainer.named(run.replace(samples=long), rates), job)
    rows = [
        {"repetition": i, "learning_rate": rates[i], **moment}
        for i, one in enumerate(trained)
        for moment in moments(one, short, long)
    ]
    return early(rows) if asked.fault == "short evaluated at the start" else rows


def _budget(asked: Asked, horizon: str) -> int:
    return batches(asked, asked.short if horizon == "short" else asked.long)


def batches(asked: Asked, passes: float) -> int:
    """Whole batches that make so many passes over the few examples.

    Example:
        >>> batches(Asked(few=100, small=16), passes=2)
        192
    """
    return asked.small * max(1, round(passes * asked.few / asked.small))


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


def early(rows: list[Row]) -> list[Row]:
    """A planted fault: what is read at the end of the short training is what was read before it.

    Args:
        rows: As measured.
    """
    start = {row["repetition"]: row for row in rows if row["samples"] == 0}
    return [
        {**row, **{k: start[row["repetition"]][k] for k in ("validation", "accuracy")}}
        if row["window"] == "short"
        else row
        for row in rows
    ]


def change(tables: Tables, labels: str, rate: str, quantity: str = "validation") -> Sample:
    """By how much a quantity is higher after the long training; one a repetition.

    Args:
        tables: With the rows of this study.
        labels: ``right`` or ``wrong``.
        rate: Of the long training: chosen for the ``short`` one, or for the ``long`` one.
        quantity: A column.
    """
    table = tables[TABLE].filter(pl.col("labels") == labels)
    return _ending(table, rate, "long", quantity) - _ending(table, "short", "short", quantity)


def _ending(table: pl.DataFrame, rate: str, window: str, quantity: str) -> Sample:
    chosen = table.filter((pl.col("rate") == rate) & (pl.col("window") == window))
    means = chosen.group_by("repetition").agg(pl.col(quantity).mean()).sort("repetition")
    return means[quantity].to_numpy()


def picture(tables: Tables, labels: str) -> Picture:
    """Losses along the trainings at both rates."""
    table = tables[TABLE].filter(pl.col("labels") == labels)
    names = ["validation", "training"]
    table = table.unpivot(names, index=["samples", "few", "rate"], variable_name="of")
    table = table.with_columns(
        passes=pl.col("samples") / pl.col("few"), series=pl.col("of") + " " + pl.col("rate")
    )
    shown = points(table, x="passes", y="value", series="series")
    return Picture(
        title=Text(
            "Losses against the number of passes over the data.", "データを回す回数と損失。"
        ),
        x=Axis(Text("passes over the data", "データを回す回数")),
        y=Axis(Text("loss", "損失")),
        points=shown,
        series={
            f"{of} {rate}": Text(f"{what.en}, {at.en}", f"{what.ja}（{at.ja}）")
            for of, what in OF.items()
            for rate, at in AT.items()
        },
        caption=say(
            "Constant learning rates, which every repetition chose on other seeds, for the short "
            "training or for the long one; {m}.",
            "学習率は一定。繰り返しのたびに、短い学習または長い学習に合わせて別の乱数シードで選択。{m}。",
            m=averaged(shown),
        ),
    )


OF = {
    "validation": Text("validation", "検証データ"),
    "training": Text("training, while it learns", "学習データ（学習中）"),
}
AT = {
    "short": Text("rate for the short training", "短い学習向けの学習率"),
    "long": Text("rate for the long one", "長い学習向けの学習率"),
}


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """On right and on partly wrong labels: with one rate, and with one for each length."""
    asked = Asked.of(parameters)
    return tuple(_claim(asked, labels, rate) for labels in LABELS for rate in HORIZONS)


def _claim(asked: Asked, labels: str, rate: str) -> Claim:
    wrong = f"{100 * asked.wrong:g}"
    on = {
        "right": Text("On clean labels", "正しいラベルでは"),
        "wrong": Text(f"With {wrong} % of the labels wrong", f"ラベルの{wrong}%が誤りなら"),
    }[labels]
    at = {
        "short": Text("at the rate that suits few passes", "少ない回数に合う学習率のままで"),
        "long": Text(
            "even at a rate that suits many passes", "多い回数に合わせた学習率を使っても"
        ),
    }[rate]
    return Claim(
        id=f"passes-overfit-{labels}" + ("" if rate == "short" else "-tuned"),
        sentence=Text(
            f"{on.en}, more passes over the data over-fit {at.en}.",
            f"{on.ja}、{at.ja}データを回す回数を増やすと過学習します。",
        ),
        source="practitioner's guide, number of epochs",
        measured=Text(
            f"validation loss after {asked.long:g} passes − after {asked.short:g}, "
            + ("one rate, best for the latter" if rate == "short" else "each at its own rate"),
            f"検証データでの損失の差（{asked.long:g}回−{asked.short:g}回。学習率は"
            + ("どちらも後者に最適なもの）" if rate == "short" else "それぞれに最適なもの）"),
        ),
        low=0.0,
        high=math.inf,
        n=asked.seeds,
        values=functools.partial(change, labels=labels, rate=rate),
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
            "On wrong labels: there is nothing false to learn by heart in clean data. On the "
            "learning rate: what is best for few passes need not suit many. Also on the size of "
            "the data, on weight decay, and on whether the loss or the accuracy is read.",
            "誤ったラベルの有無によります。正しいデータには、覚えて害になるものがありません。学習率にも"
            "よります（少ない回数に最適な値が、多い回数にも合うとは限りません）。データの量、重み減衰、"
            "損失と正解率のどちらで見るかにもよります。",
        ),
        expected=PILOT[labels, rate][0],
        spread=PILOT[labels, rate][1],
        twin={"fault": "short evaluated at the start"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """What becomes of the accuracy where the loss rises."""
    asked = Asked.of(parameters)
    return (
        Claim(
            id="passes-accuracy-wrong",
            sentence=Text(
                "What more passes over wrong labels do to the accuracy.",
                "誤ったラベルでデータを回す回数を増やしたときの正解率の変化。",
            ),
            source="measured here",
            measured=Text(
                f"validation accuracy after {asked.long:g} passes − after {asked.short:g}, one "
                "rate, best for the latter (1 is all)",
                f"検証データでの正解率の差（{asked.long:g}回−{asked.short:g}回、学習率はどちらも後者に"
                "最適なもの、1が全件）",
            ),
            n=asked.seeds,
            values=functools.partial(change, labels="wrong", rate="short", quantity="accuracy"),
            picture=functools.partial(picture, labels="wrong"),
            meaning=Text(
                "Stop by the quantity that you will be judged by: loss and accuracy need not "
                "turn at the same moment.",
                "最終的に評価される量を見て止めます。損失と正解率が同じ時点で悪化し始めるとは限り"
                "ません。",
            ),
            finding=True,
        ),
    )


PILOT = {
    ("right", "short"): (0.2, 0.05),
    ("right", "long"): (0.2, 0.08),
    ("wrong", "short"): (0.3, 0.2),
    ("wrong", "long"): (0.2, 0.08),
}
"""Labels and rate → mean and standard deviation of a repetition in a pilot on seeds of its own;
where that saw no rise, 0.2 would matter.
"""
