"""What is drawn to the claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from batchlab._text import EMPTY, Text, join
from batchlab.studies.autoencoder import numbers
from batchlab.studies.claim import Axis, Picture, Row, Statistic, Tables
from batchlab.studies.drawing import points

Drawing = Callable[[Tables], Picture]

MEAN = Text("Mean over the repetitions with its 99 % interval.", "繰り返しの平均と99%の範囲です。")
FRACTION = Axis(Text("batch size / examples", "バッチサイズ÷データ数"))
BATCH = Axis(Text("batch size (examples)", "バッチサイズ（件）"), log=True, base=2)
EXAMPLES = Axis(Text("examples n", "データ数 n（件）"), log=True)
RATIO = Axis(Text("step size / batch size", "ステップ幅÷バッチサイズ"))
BREADTH = Axis(Text("participation ratio (coordinates)", "参加率（実質的な座標の数）"), log=True)
UPDATES = Axis(Text("updates until sparse", "疎になるまでの更新回数"), log=True)

ACTIVATIONS = {"linear": Text("linear", "線形"), "relu": Text("ReLU", "ReLU")}
THEORY = Text("theory", "理論")
MEASURED = Text("measured", "測定値")


def drawn(
    title: Text,
    table: Callable[[Tables], pl.DataFrame],
    x: tuple[str, Axis],
    y: tuple[str, Axis],
    series: dict[str, Text],
    *,
    by: str = "measured",
    caption: Text = EMPTY,
    theory: Callable[[Tables], Sequence[Row]] | None = None,
    statistic: Statistic = Statistic.MEAN,
) -> Drawing:
    """Points with intervals.

    Args:
        title: What it shows.
        table: The rows it shows.
        x: Column and axis.
        y: Column and axis.
        series: Value of ``by`` → name.
        by: Column that tells the series apart, or the name of the only one.
        caption: What is added to the words about intervals.
        theory: Lines.
        statistic: How repetitions become one number.
    """

    def make(tables: Tables) -> Picture:
        found = points(table(tables), x=x[0], y=y[0], series=by, statistic=statistic)
        lines = tuple(theory(tables)) if theory else ()
        told = join((MEAN, caption)) if statistic is Statistic.MEAN else caption
        return Picture(title, x[1], y[1], found, series, told, theory=lines)

    return make


def with_fraction(table: pl.DataFrame) -> pl.DataFrame:
    """The table with ``fraction`` = b/n."""
    share = (pl.col("batch_size") / pl.col("examples")).round(4)
    return table.with_columns(share.alias("fraction"), name_of_size())


def name_of_size() -> pl.Expr:
    """Number of examples and activation as the name of a series."""
    return (pl.col("activation") + pl.col("examples").cast(pl.String)).alias("kind")


def grid_series(tables: Tables) -> dict[str, Text]:
    """Names of the series of the grid, n by n."""
    found = tables["grid"].select("activation", "examples").unique(maintain_order=True)
    return {
        f"{activation}{n}": Text(
            f"{ACTIVATIONS[activation].en}, n = {n}", f"{ACTIVATIONS[activation].ja}、n = {n}"
        )
        for activation, n in found.iter_rows()
    }


class Level(NamedTuple):
    """A horizontal line that theory predicts.

    Attributes:
        words: Where it holds.
        value: Its height, of n examples.
    """

    words: Text
    value: Callable[[int], float]


def over_grid(
    title: Text, y: tuple[str, Axis], levels: Sequence[Level], caption: Text = EMPTY
) -> Drawing:
    """A column of the grid against the batch fraction.

    Args:
        title: What it shows.
        y: Column and axis.
        levels: What theory predicts at the largest n.
        caption: What is added to the words about intervals.
    """

    def make(tables: Tables) -> Picture:
        table = with_fraction(tables["grid"])
        found = points(table, x="fraction", y=y[0], series="kind")
        ends, most = _ends(table["fraction"]), int(table["examples"].to_numpy().max())
        series, lines = grid_series(tables), []
        for i, level in enumerate(levels):
            series[f"level{i}"] = level.words
            lines += line(ends, [level.value(most)] * 2, f"level{i}")
        told = join((MEAN, caption))
        return Picture(title, FRACTION, y[1], found, series, told, theory=tuple(lines))

    return make


def _ends(column: pl.Series) -> tuple[float, float]:
    numbers = column.to_numpy()
    return float(numbers.min()), float(numbers.max())


def phase_map(title: Text, column: str, value: Axis, caption: Text) -> Drawing:
    """Batch fraction × step size, one colour a cell."""

    def make(tables: Tables) -> Picture:
        found = (
            with_fraction(tables["phase"])
            .group_by("fraction", "ratio", maintain_order=True)
            .agg(pl.col(column).mean().alias("value"), pl.len().alias("n"))
        )
        rows = tuple(
            {"x": row["fraction"], "y": row["ratio"], "value": row["value"], "n": row["n"]}
            for row in found.iter_rows(named=True)
        )
        runs = sum(int(row["n"]) for row in rows)
        told = Text(f"{runs:,} runs, n = {_n(tables)}.", f"{runs:,}回の学習、n = {_n(tables)}。")
        return Picture(
            title, FRACTION, RATIO, rows, {}, join((told, caption)), kind="map", value=value
        )

    return make


def _n(tables: Tables) -> int:
    return int(tables["phase"]["examples"][0])


def line(xs: Sequence[float], ys: Sequence[float], series: str = "theory") -> list[Row]:
    """A theoretical line."""
    return [{"x": float(x), "y": float(y), "series": series} for x, y in zip(xs, ys, strict=True)]


def through(table: pl.DataFrame, x: str, y: str, power: float) -> list[Row]:
    """A line of the predicted exponent through the geometric middle of the measurements."""
    logs = table.select(pl.col(x).log().alias("x"), pl.col(y).log().alias("y"))
    middle_x, middle_y = logs.select(pl.all().mean()).row(0)
    at = np.unique(table[x].to_numpy())
    return line(at.tolist(), np.exp(middle_y + power * (np.log(at) - middle_x)).tolist())


def winners(tables: Tables) -> Picture:
    """How often a coordinate wins, by the fifth of ranks of w_i(0)² it is in."""
    table = numbers.largest(numbers.linear(tables["grid"])).filter(numbers.PART)
    fifth = (pl.col("win_rank") * 5).floor().clip(0, 4).cast(pl.Int64)
    told = table.select("repetition", "batch_size", (fifth + 1).alias("fifth"))
    parts = [
        told.with_columns(
            pl.lit(k).alias("which"), (pl.col("fifth") == k).cast(pl.Float64).alias("won")
        )
        for k in range(1, 6)
    ]
    each = pl.concat(parts).group_by("repetition", "which").agg(pl.col("won").mean())
    found = points(each.sort("which"), x="which", y="won")
    chance = line(range(1, 6), [0.2] * 5)
    return Picture(
        Text("The larger the start, the likelier the win.", "初期値が大きい座標ほど残りやすい。"),
        Axis(Text("fifth of the ranks of w_i(0)²", "w_i(0)²の順位（5等分、5が最大）")),
        Axis(Text("share of wins", "残った割合")),
        found,
        {"measured": MEASURED, "theory": Text("if all were equal", "すべて等しい場合")},
        join((MEAN, Text("Linear, all b < n.", "線形、b < nのすべて。"))),
        theory=tuple(chance),
    )


def angles(tables: Tables) -> Picture:
    """How often the first of two coordinates wins, against its predicted chance."""
    tenth = ((pl.col("chance") * 10).floor().clip(0, 9) + 0.5) / 10
    table = tables["two"].with_columns(tenth.alias("tenth")).sort("tenth")
    found = points(table, x="tenth", y="won", statistic=Statistic.SHARE)
    return Picture(
        Text(
            "Of two coordinates, the chance of winning is the angle.",
            "座標が二つのとき、残る確率は初期の角度で決まる。",
        ),
        Axis(Text("angle of w(0), in right angles", "w(0)の角度（直角を1とする）")),
        Axis(Text("share of wins of the first", "1番目の座標が残った割合")),
        found,
        {"measured": MEASURED, "theory": THEORY},
        Text(
            "Share with its 99 % interval, by tenths of the angle. Dashed: (2/π) arctan|w₁/w₂|.",
            "角度を10等分したときの割合と99%の範囲。破線は(2/π)arctan|w₁/w₂|です。",
        ),
        theory=tuple(line([0.0, 1.0], [0.0, 1.0])),
    )


def limits(tables: Tables) -> Picture:
    """The largest stable step size against the batch size."""
    largest = (pl.col("limit") * pl.col("batch_size") / 2).alias("rate")
    table = tables["stability"].with_columns(largest)
    sizes = sorted(table["batch_size"].unique().to_list())
    n = int(table["examples"][0])
    return Picture(
        Text("The largest stable step size is b/2.", "安定なステップ幅の上限はb/2。"),
        BATCH,
        Axis(Text("largest stable step size", "安定なステップ幅の上限"), log=True),
        points(table, x="batch_size", y="rate"),
        {"measured": MEASURED, "theory": THEORY},
        join((MEAN, Text(f"n = {n}. Dashed: b/2.", f"n = {n}。破線はb/2です。"))),
        theory=tuple(line(sizes, [b / 2 for b in sizes])),
    )


MOVING = 0.05
"""A setting still moves if its runs' log participation ratios changed by more, on average, in the
second half of the updates."""

STILL_MOVING = " moving"
STILL = Text(
    "“Still moving”: changed by more than 5 % in the second half of the updates.",
    "「まだ動いている」は、更新の後半で5%を超えて変化したものです。",
)


def by_amount(table: str, title: Text, amount: Axis, caption: Text) -> Drawing:
    """Participation ratio against what makes data or training different, a series a size.

    What still moves, and so says nothing about where it ends, is a series of its own.
    """

    def make(tables: Tables) -> Picture:
        rows = numbers.movement(tables[table])
        moves = pl.col("moved").abs().mean().over("amount", "batch_size") > MOVING
        rows = rows.sort(moves, maintain_order=True).with_columns(_size(moves).alias("size"))
        n = int(rows["examples"][0])
        names = {
            size: _name_of_size(b, n, size.endswith(STILL_MOVING))
            for size, b in rows.select("size", "batch_size")
            .unique(maintain_order=True)
            .iter_rows()
        }
        found = points(rows, x="amount", y="breadth", series="size")
        return Picture(title, amount, BREADTH, found, names, join((MEAN, caption, STILL)))

    return make


def _size(moves: pl.Expr) -> pl.Expr:
    """Batch size, and whether runs still move, as the name of a series."""
    mark = pl.when(moves).then(pl.lit(STILL_MOVING)).otherwise(pl.lit(""))
    return pl.col("batch_size").cast(pl.String) + mark


def _name_of_size(batch_size: int, examples: int, moves: bool) -> Text:
    words = f"b = {batch_size}" + (" = n" if batch_size == examples else "")
    return (
        Text(f"{words}, still moving", f"{words}、まだ動いている") if moves else Text(words, words)
    )


def switching(
    table: Callable[[Tables], pl.DataFrame],
    title: Text,
    x: tuple[str, Axis],
    phases: dict[str, Text],
    caption: Text,
    y: Axis = BREADTH,
) -> Drawing:
    """Participation ratio of nets by how they were trained."""

    def make(tables: Tables) -> Picture:
        rows = table(tables)
        long = rows.unpivot(
            list(phases), index=["repetition", x[0]], variable_name="phase", value_name="breadth"
        )
        found = points(long, x=x[0], y="breadth", series="phase")
        return Picture(title, x[1], y, found, phases, join((MEAN, caption)))

    return make
