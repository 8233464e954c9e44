"""Every arm at its own best rate: growing the batch against letting the rate decay."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np
import polars as pl

from batchlab._text import Text
from batchlab.errors import InvalidValueError, must
from batchlab.measure.throughput import time_block
from batchlab.schedules import batch_schedule
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
from batchlab.studies.growing_batch.nets import (
    ARMS,
    DECAYS,
    GROWING,
    budget,
    equal_size,
    first_rates,
    planned,
    powers,
    prepared,
)
from batchlab.studies.growing_batch.table import SHARED, ended, job_of
from batchlab.studies.growing_batch.words import GROWING_THEOREM
from batchlab.studies.guide.training import TUNING, Trainer, end

TABLE, SECONDS = "arms", "seconds"
ONE_NET = ("adamw", "rmsprop")
"""Rules that are trained on the first net only."""
BLOCK_SECONDS = 0.05
SLACK = 1.1
"""An arm that takes at most so many times as long counts as taking the same time."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One a net, rule and arm, and the seconds of an update of each net."""
    names = (*SHARED, "seeds", "rates")
    own_nets = str(parameters["arm_nets"]).split(",")
    shared = {name: parameters[name] for name in names}
    runs = int(parameters["seeds"]) * (1 + TUNING * (1 + int(parameters["rates"])))
    found = [
        Cell(
            TABLE,
            {"net": net, "rule": rule, "arm": arm, **shared},
            2 + 3e-4 * runs * _updates(arm, rule, parameters),
        )
        for net in own_nets
        for rule in str(parameters["rules"]).split(",")
        if net == own_nets[0] or rule not in ONE_NET
        for arm in chosen(parameters)
    ]
    timed = {name: parameters[name] for name in (*SHARED, "rounds")}
    price = 0.08 * (1 + len(powers(2))) * int(parameters["rounds"])
    return *found, *(Cell(SECONDS, {"net": net, **timed}, price, alone=True) for net in own_nets)


def chosen(parameters: Parameters) -> tuple[str, ...]:
    """The arms of a mode.

    Raises:
        InvalidValueError: If one is not known.

    Example:
        >>> len(chosen({"arms": "all"})), chosen({"arms": "double,equal"})
        (15, ('double', 'equal'))
    """
    named = ARMS if parameters["arms"] == "all" else tuple(str(parameters["arms"]).split(","))
    for arm in named:
        if arm not in ARMS:
            raise InvalidValueError(must("arms", f"all, or some of {', '.join(ARMS)}", arm))
    return named


def _updates(arm: str, rule: str, parameters: Parameters) -> int:
    run, samples = planned(arm, rule, parameters), budget(parameters)
    assert run.batch_size is not None
    return batch_schedule(run.batch_size).count(0, samples)


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """An arm, each repetition at its own best rate, with that rate's score on other seeds."""
    asked = cell.settings
    rule, fault = str(asked["rule"]), str(asked["fault"])
    ready = prepared(str(asked["net"]), asked, bench.data, bench.device)
    run = planned(str(asked["arm"]), rule, asked)
    job = job_of(ready, run, budget(asked), fault)
    with Trainer(ready, bench, 3) as trainer:
        grid = first_rates(rule, run, int(asked["rates"]))
        found = trainer.searched(run, grid, int(asked["seeds"]), trainer.endings)
        runs, _ = trainer.train(trainer.named(run, [rate for rate, _ in found]), job)
    told = [{"learning_rate": rate, "score": score} for rate, score in found]
    return [
        {"repetition": i, **told[i], **ended(one), "validation": end(one)}
        for i, one in enumerate(runs)
    ]


def seconds(cell: Cell, bench: Bench) -> list[Row]:
    """Seconds of an update of one run alone, size by size, in rounds; with heavy ball, since
    another rule adds the same to an update of every size.
    """
    asked = cell.settings
    ready = prepared(str(asked["net"]), asked, bench.data, bench.device)
    run = planned("first", "shb", asked).replace(learning_rate=0.01).resolved(ready.examples)
    rows: list[Row] = []
    for round_ in range(int(asked["rounds"]) + 1):
        for size in (*powers(2), equal_size(budget(asked))):
            block = time_block(
                ready, run, BLOCK_SECONDS, batch_size=size, threads=1, start=round_ * size
            )
            # The first round finds caches empty and kernels unchosen.
            if round_:
                each = block.seconds / block.updates
                rows.append({"round": round_ - 1, "batch_size": size, "seconds": each})
        bench.hears.progress("", round_ / int(asked["rounds"]))
    return rows


# ------------------------------------------------------------------ numbers


def _settings(tables: Tables) -> Iterator[pl.DataFrame]:
    """The rows of each net and rule."""
    for _, part in tables[TABLE].group_by("net", "rule", maintain_order=True):
        yield part


def best(part: pl.DataFrame, arms: tuple[str, ...]) -> str:
    """Of some arms the one with the best score on the seeds that chose the rates."""
    among = part.filter(pl.col("arm").is_in(arms)).group_by("arm", maintain_order=True)
    among = among.agg(pl.col("score").mean()).sort("score", maintain_order=True)
    return str(among["arm"][0])


def _ends(part: pl.DataFrame, arm: str, column: str) -> np.ndarray:
    return part.filter(pl.col("arm") == arm).sort("repetition")[column].to_numpy()


def gain(part: pl.DataFrame, growing: str, other: str, column: str = "validation") -> np.ndarray:
    """log₂ of a quantity at the end, another arm over a growing one; one a repetition."""
    return np.log2(_ends(part, other, column) / _ends(part, growing, column))


def against_decay(tables: Tables, equal: str) -> Sample:
    """log₂ of validation loss, best decaying arm over growing; a mean of nets and rules a seed.

    Args:
        tables: All tables.
        equal: ``samples``: the best growing arm against the best decaying one; ``updates``:
            doubling against the best with as many updates; ``time``: doubling against the best of
            all that take no more time.
    """
    found = []
    for part in _settings(tables):
        growing = best(part, GROWING) if equal == "samples" else "double"
        decaying = in_time(tables, part) if equal == "time" else rivals(part, equal)
        if not decaying:  # timed so unevenly that nothing can be said
            return np.full(part["repetition"].n_unique(), math.nan)
        found.append(gain(part, growing, best(part, decaying)))
    return np.mean(found, axis=0)


def rivals(part: pl.DataFrame, equal: str) -> tuple[str, ...]:
    """The decaying arms of a net and rule: all, or those with as many updates as doubling.

    Args:
        part: Its rows.
        equal: ``samples`` or ``updates``.
    """
    sizes = ("", " equal") if equal == "samples" else (" equal",)
    names = [f"{name}{size}" for name in DECAYS for size in sizes]
    return tuple(name for name in names if name in set(part["arm"]))


def in_time(tables: Tables, part: pl.DataFrame) -> tuple[str, ...]:
    """The decaying arms of a net and rule that take no longer than doubling, by the median
    seconds of an update.
    """
    all_, net = rivals(part, "samples"), str(part["net"][0])
    took = {arm: float(np.median(time_of(tables, arm, net))) for arm in (*all_, "double")}
    return tuple(arm for arm in all_ if took[arm] <= SLACK * took["double"])


def time_of(tables: Tables, arm: str, net: str) -> np.ndarray:
    """Seconds of a whole training of a net by an arm; one a round."""
    table = tables[SECONDS].filter(pl.col("net") == net).sort("round")
    asked = table.row(0, named=True) | {"fault": "none"}
    run = planned(arm, "shb", asked)
    assert run.batch_size is not None
    sizes = [size for _, size in batch_schedule(run.batch_size).updates(0, budget(asked))]
    each = {size: sizes.count(size) for size in set(sizes)}
    return np.sum(
        [
            count * table.filter(pl.col("batch_size") == size)["seconds"].to_numpy()
            for size, count in each.items()
        ],
        axis=0,
    )


def time_ratio(tables: Tables) -> Sample:
    """log₂ of the time of doubling over that of the constant size with as many updates; a mean of
    nets a round.
    """
    nets = tables[SECONDS]["net"].unique(maintain_order=True)
    ratios = [
        np.log2(time_of(tables, "double", net) / time_of(tables, "equal", net)) for net in nets
    ]
    return np.mean(ratios, axis=0)


def between(tables: Tables, growing: str, other: str, column: str = "validation") -> Sample:
    """log₂ of a quantity at the end, another arm over a growing one; a mean a seed."""
    return np.mean([gain(part, growing, other, column) for part in _settings(tables)], axis=0)


# ------------------------------------------------------------------ pictures

LOSS = Axis(Text("validation loss at the end", "終わりの検証データでの損失"), log=True)


def picture(tables: Tables, column: str = "validation") -> Picture:
    """Every arm, rule by rule."""
    table = tables[TABLE]
    net = str(table["net"][0])
    shown = points(table.filter(pl.col("net") == net), x="arm", y=column, series="rule")
    rules = list(dict.fromkeys(str(row["series"]) for row in shown))
    norm = Axis(Text("‖∇f‖ at the end", "終わりでの‖∇f‖"), log=True)
    return Picture(
        title=Text(
            "Every arm at its own best rate.", "それぞれ最良の学習率で比べたすべての方法。"
        ),
        x=Axis(Text("arm", "方法")),
        y=LOSS if column == "validation" else norm,
        points=shown,
        series={rule: Text(rule, rule) for rule in rules},
        caption=Text(
            f"Net “{net}”, equal examples, rate of each arm chosen on other seeds; mean of "
            f"n = {shown[0]['n']} with its 99 % range. “equal” makes as many updates as doubling.",
            f"ネット「{net}」、データ数は同じ、学習率は方法ごとに別の乱数シードで選択。点は平均"
            f"（n＝{shown[0]['n']}）、線は99%の範囲。「equal」は2倍ずつ拡大した場合と同じ更新回数。",
        ),
    )


def times(tables: Tables) -> Picture:
    """Seconds of an update against the batch size."""
    table = tables[SECONDS]
    shown = points(table, x="batch_size", y="seconds", series="net", statistic=Statistic.MEDIAN)
    return Picture(
        title=Text("Seconds of an update.", "1回の更新にかかる秒数。"),
        x=Axis(Text("batch size (examples)", "バッチサイズ（件）"), log=True, base=2),
        y=Axis(Text("seconds", "秒"), log=True),
        points=shown,
        series={net: Text(net, net) for net in table["net"].unique(maintain_order=True)},
        caption=Text(
            f"One run alone, one thread; median of n = {shown[0]['n']} rounds, 99 % range.",
            f"単独の学習、1スレッド。中央値（n＝{shown[0]['n']}）、線は99%の範囲。",
        ),
    )


# ------------------------------------------------------------------ claims


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """At equal updates growing leaves less gradient; small first is better than large first."""
    n = int(parameters["seeds"])
    return (
        Claim(
            id="growing-norm-equal",
            sentence=Text(
                "At equal examples and equal updates, and each at its best rate, doubling the "
                "batch ends with a smaller full gradient than a constant batch.",
                "データ数も更新回数も同じで、それぞれ最良の学習率でも、2倍ずつ拡大したほうが、一定の"
                "バッチより全データの勾配が小さくなって終わります。",
            ),
            source="kamo2025, theorems on constant and growing batch sizes",
            measured=Text(
                "log₂ of ‖∇f‖ at the end in evaluation mode, constant over doubling; mean of nets "
                "and rules",
                "評価モードでの終わりの‖∇f‖の比（一定÷2倍ずつ）のlog₂（ネットと更新則の平均）",
            ),
            low=0.0,
            high=math.inf,
            expected=1.0,
            spread=0.4,
            n=n,
            values=functools.partial(
                between, growing="double", other="equal", column="norm.evaluation"
            ),
            picture=functools.partial(picture, column="norm.evaluation"),
            meaning=Text(
                "The calm at the end comes from the large last batches, not from more updates.",
                "終わりの落ち着きは、更新回数が多いからではなく、最後の大きいバッチから来ています。",
            ),
            twin={"fault": "batch ignored"},
        ),
        Claim(
            id="small-first",
            sentence=Text(
                "Small batches first and large ones last end with a smaller loss than the same "
                "batches in the opposite order, each at its best rate.",
                "それぞれ最良の学習率で、小さいバッチから大きいバッチへ進むほうが、逆の順より小さい損失で"
                "終わります。",
            ),
            source=GROWING_THEOREM,
            measured=Text(
                "log₂ of the validation loss at the end, large first over small first; mean of "
                "nets and rules",
                "終わりの検証データでの損失の比（大きいほうが先÷小さいほうが先）のlog₂（ネットと更新則の"
                "平均）",
            ),
            low=0.0,
            high=math.inf,
            expected=0.5,
            spread=0.25,
            n=n,
            values=functools.partial(between, growing="double", other="shrink"),
            picture=picture,
            meaning=Text(
                "If the batch is to change at a constant rate, let it grow.",
                "学習率を変えずにバッチを変えるなら、大きくする方向にします。",
            ),
            twin={"fault": "batch ignored"},
        ),
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """The headline in three currencies, the time it rests on, and when to switch; what rests on
    arms that a mode leaves out is left out with them.
    """
    n, rounds = int(parameters["seeds"]), int(parameters["rounds"])
    here = set(chosen(parameters))
    equals = [e for e in HEADLINES if e != "samples" or here >= {*GROWING, *DECAYS}]
    late = (_late(n),) if "late" in here else ()
    return (*(_headline(n, equal) for equal in equals), _time(rounds), *late)


HEADLINES = {
    "samples": Text("equal examples", "同じデータ数"),
    "updates": Text("equal examples and equal updates", "同じデータ数・同じ更新回数"),
    "time": Text("equal examples and equal time", "同じデータ数・同じ時間"),
}


def _headline(n: int, equal: str) -> Claim:
    at = HEADLINES[equal]
    return Claim(
        id=f"growing-against-decay-{equal}",
        sentence=Text(
            f"Growing the batch against the best decaying learning rate, at {at.en}.",
            f"バッチの拡大と、最良の学習率減衰との比較（{at.ja}）。",
        ),
        source="measured here",
        measured=Text(
            "log₂ of the validation loss at the end, decaying over growing; mean of nets and "
            "rules; above 0, growing is better",
            "終わりの検証データでの損失の比（減衰÷拡大）のlog₂（ネットと更新則の平均、正なら拡大が有利）",
        ),
        n=n,
        values=functools.partial(against_decay, equal=equal),
        picture=picture,
        meaning=Text(
            "Both take the noise away at the end. Which is better on your task is a matter of "
            "measurement: `batchlab compare` with both schedules.",
            "どちらも終わりのノイズを取り除きます。どちらが良いかは、ご自身の課題で両方を"
            "`batchlab compare`で測って確かめてください。",
        ),
        popular=Text(
            "“Growing beats a constant batch” is the wrong opponent: nobody trains to the end at "
            "a constant rate.",
            "「拡大は一定のバッチより良い」は相手を間違えています。最後まで学習率一定で学習する人はいません。",
        ),
        finding=True,
    )


def _time(rounds: int) -> Claim:
    return Claim(
        id="time-of-growing",
        sentence=Text(
            "How long doubling takes against a constant batch of as many updates.",
            "2倍ずつ拡大した場合の時間は、更新回数が同じ一定のバッチの何倍か。",
        ),
        source="measured here",
        measured=Text(
            "log₂ of the seconds of a training, doubling over constant",
            "学習の秒数の比（2倍ずつ÷一定）のlog₂",
        ),
        n=rounds,
        values=time_ratio,
        picture=times,
        meaning=Text(
            "Near 0, what is equal in examples and updates is equal in time, too.",
            "0に近ければ、データ数と更新回数が同じなら時間も同じと言えます。",
        ),
        statistic=Statistic.MEDIAN,
        finding=True,
    )


def _late(n: int) -> Claim:
    return Claim(
        id="late-switch",
        sentence=Text(
            "One late switch from 8 to 512 against doubling in equal shares.",
            "終盤に一度だけ8から512へ切り替える場合と、均等に2倍ずつ拡大する場合の比較。",
        ),
        source="measured here; newer work disagrees on when to switch",
        measured=Text(
            "log₂ of the validation loss at the end, doubling over the late switch; mean of nets "
            "and rules; above 0, late is better",
            "終わりの検証データでの損失の比（2倍ずつ÷終盤に切り替え）のlog₂（ネットと更新則の平均、正なら"
            "終盤の切り替えが有利）",
        ),
        n=n,
        values=functools.partial(between, growing="late", other="double"),
        picture=picture,
        meaning=Text(
            "The late switch makes almost three times as many updates of the same examples; where "
            "updates are what costs, that is its price.",
            "終盤の切り替えは、同じデータ数で3倍近い更新を行います。更新の回数が費用になるなら、それが"
            "代償です。",
        ),
        finding=True,
    )
