"""From tables to the one number per repetition that a claim is judged by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from batchlab.studies.autoencoder.measuring import ARRIVED
from batchlab.studies.claim import Sample, Tables

SPARSE_BREADTH = 1.001
"""A run with at most this participation ratio has one coordinate left."""

MANY = 100
"""Examples from which the solution is said to be nearly orthogonal, and to which 13 is known."""

NO_DIFFERENCE = 1e-18
"""What stands for a difference of 0, of which there is no logarithm."""

JUDGED = {"correlated": 0.01, "unequal": 0.1, "momentum": 0.9, "digits": 1.0}
"""Kind of other data → the amount that its finding is on."""

PART = pl.col("batch_size") < pl.col("examples")
WHOLE = pl.col("batch_size") == pl.col("examples")


def of(table: pl.DataFrame, value: pl.Expr) -> Sample:
    """One number per repetition.

    Args:
        table: Rows of several cells.
        value: What is taken of all rows of a repetition.
    """
    found = table.group_by("repetition").agg(value.alias("value")).sort("repetition")
    return found["value"].cast(pl.Float64).to_numpy()


def farthest(value: pl.Expr, middle: float) -> pl.Expr:
    """The value that is farthest from the middle; NaN if one is missing.

    Args:
        value: Of all rows of a repetition.
        middle: What is predicted.
    """
    found = value.sort_by((value - middle).abs()).last()
    return pl.when(value.is_nan().any()).then(math.nan).otherwise(found)


def largest(table: pl.DataFrame) -> pl.DataFrame:
    """The rows with the most examples."""
    return table.filter(pl.col("examples") == pl.col("examples").max())


def linear(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of linear neurons."""
    return table.filter(pl.col("activation") == "linear")


def relu(table: pl.DataFrame) -> pl.DataFrame:
    """The rows of neurons with ReLU."""
    return table.filter(pl.col("activation") == "relu")


def slopes(table: pl.DataFrame, x: pl.Expr, y: str) -> Sample:
    """Each repetition's slope of log y on log x."""
    told = table.select("repetition", x.log().alias("x"), pl.col(y).log().alias("y"))
    return of(told, pl.cov("x", "y") / pl.col("x").var())


def slope_spread(xs: Sequence[float], scatter: float) -> float:
    """Standard deviation of a slope on log x: σ/√Σ(log x − mean)²; NaN with one x.

    Args:
        xs: Where it was measured.
        scatter: σ of a repetition's logarithm at one x, from the pilot.

    Example:
        >>> round(slope_spread([1, 10, 100], 0.46), 3)
        0.141
    """
    logs = [math.log(x) for x in xs]
    square = sum((x - sum(logs) / len(logs)) ** 2 for x in logs)
    return scatter / math.sqrt(square) if square else math.nan


def global_minimum(tables: Tables) -> Sample:
    """Whether every run of a repetition ended at a global minimum."""
    return of(tables["grid"], (pl.col("missing").abs() < ARRIVED).all())


def sparse(tables: Tables) -> Sample:
    """Whether every run with b < n kept one coordinate only."""
    return of(tables["grid"].filter(PART), (pl.col("breadth") < SPARSE_BREADTH).all())


def turned(tables: Tables) -> Sample:
    """Largest |cos(w, w(0))| over b < n and activations at the largest n, from 100 on."""
    overlap = pl.when(pl.col("examples") >= MANY).then(pl.col("overlap")).otherwise(math.nan)
    return of(largest(tables["grid"]).filter(PART), overlap.nan_max())


def turned_slope(tables: Tables) -> Sample:
    """Exponent of |cos(w, w(0))| in n, over all b < n of linear runs."""
    return slopes(linear(tables["grid"]).filter(PART), pl.col("examples"), "overlap")


def aligned(tables: Tables) -> Sample:
    """Smallest cos(w, w(0)) of linear full-batch runs."""
    return of(linear(tables["grid"]).filter(WHOLE), pl.col("cosine").nan_min())


def limit_relu(tables: Tables) -> Sample:
    """Smallest cosine of full-batch runs with ReLU and the positive part of w(0)."""
    return of(relu(tables["grid"]).filter(WHOLE), pl.col("limit").nan_min())


def aligned_relu(tables: Tables) -> Sample:
    """cos(w, w(0)) of full-batch runs with ReLU at the largest n."""
    return of(largest(relu(tables["grid"])).filter(WHOLE), pl.col("cosine").mean())


def dense(tables: Tables) -> Sample:
    """Participation ratio over n of linear full-batch runs at the largest n."""
    table = largest(linear(tables["grid"])).filter(WHOLE)
    return of(table, (pl.col("breadth") / pl.col("examples")).mean())


def jumps(table: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """What share of the way from one coordinate to all of w(0)'s lies between b < n and b = n.

    (log PR(n) − max over b < n of log PR(b)) / log PR(w(0)): 1 if every b < n is sparse and b = n
    keeps w(0)'s participation ratio, 0 if b = n is as any other.

    Args:
        table: Runs of several batch sizes.
        by: Columns that tell settings apart.

    Returns:
        Rows of ``repetition``, ``by`` and ``jump``.
    """
    size = pl.col("breadth").log()
    jump = (size.filter(WHOLE).mean() - size.filter(PART).max()) / (
        pl.col("start_breadth").log().mean()
    )
    return table.group_by("repetition", *by, maintain_order=True).agg(jump.alias("jump"))


def jump(tables: Tables) -> Sample:
    """The smallest jump over all step sizes."""
    return of(jumps(tables["phase"], ("ratio",)), pl.col("jump").min())


def at(table: pl.DataFrame, amount: float) -> pl.DataFrame:
    """The rows of one setting of other data."""
    return table.filter((pl.col("amount") - amount).abs() < 1e-9)


def judged(tables: Tables) -> pl.DataFrame:
    """The rows of the settings of other data that a finding is on."""
    parts = [at(tables[kind], amount) for kind, amount in JUDGED.items()]
    return pl.concat(parts, how="diagonal_relaxed")


def jump_on(tables: Tables, kind: str) -> Sample:
    """The jump on other data."""
    return of(jumps(at(tables[kind], JUDGED[kind])), pl.col("jump").min())


def flatter(tables: Tables) -> Sample:
    """N × (trace at b = 1 − trace at b = n), ReLU."""
    table = relu(tables["curvature"]).filter(pl.col("dimensions") == pl.col("examples"))
    trace = pl.col("trace")
    one = pl.col("batch_size") == 1
    return of(table, trace.filter(one).mean() - trace.filter(WHOLE).mean())


def trace_law(tables: Tables) -> Sample:
    """Largest |n · trace − (4 + d − |A|)| with ReLU over b and d; |A| = 1 for b < n."""
    active = pl.when(PART).then(1).otherwise(pl.col("active"))
    predicted = 4 + pl.col("dimensions") - active
    return of(relu(tables["curvature"]), (pl.col("trace") - predicted).abs().nan_max())


def top(tables: Tables) -> Sample:
    """The n · λ_max that is farthest from 4, over batch sizes and activations."""
    return of(tables["curvature"], farthest(pl.col("top"), 4.0))


def equal_traces(tables: Tables) -> Sample:
    """Largest minus smallest n · trace of linear neurons over the batch sizes, b < n and n."""
    spread = pl.col("trace").nan_max() - pl.col("trace").nan_min()
    return of(linear(tables["curvature"]), spread)


def cyclic(tables: Tables) -> Sample:
    """Whether every run with a fixed order kept one coordinate only."""
    return of(tables["cyclic"], (pl.col("breadth") < SPARSE_BREADTH).all())


def partition(tables: Tables) -> Sample:
    """Participation ratio over that of w(0) in the batch that won."""
    return of(tables["partition"], pl.col("kept").mean())


def rank(tables: Tables) -> Sample:
    """Rank of the winner's w_i(0)², from −½ to ½, mean over b < n at the largest n."""
    table = largest(linear(tables["grid"])).filter(PART)
    return of(table, pl.col("win_rank").mean() - 0.5)


def gain(tables: Tables) -> Sample:
    """log(n · w_i(0)²/|w(0)|²) of the winner, mean over b < n at the largest n."""
    table = largest(linear(tables["grid"])).filter(PART)
    return of(table, (pl.col("win_share") * pl.col("examples")).log().mean())


def two(tables: Tables) -> Sample:
    """12 (won − ½)(chance − ½): its mean is the slope of winning on a chance uniform in [0, 1]."""
    table = tables["two"]
    return of(table, (12 * (pl.col("won") - 0.5) * (pl.col("chance") - 0.5)).mean())


def straight(tables: Tables) -> Sample:
    """7 y P₃(x), y = 2 won − 1, x = 2 chance − 1: its mean is the third Legendre coefficient of y.

    For x uniform in [−1, 1], as the angle of w(0) makes it; 0 for any straight line.
    """
    y, x = 2 * pl.col("won") - 1, 2 * pl.col("chance") - 1
    return of(tables["two"], (7 * y * (5 * x**3 - 3 * x) / 2).mean())


def limits(tables: Tables, which: str) -> Sample:
    """The largest step size over b/2 that is farthest from 1.

    Args:
        tables: What was measured.
        which: Of ``one`` example, the ``whole`` data, or ``between``.
    """
    chosen = {
        "one": pl.col("batch_size") == 1,
        "whole": WHOLE,
        "between": (pl.col("batch_size") > 1) & PART,
    }
    return of(tables["stability"].filter(chosen[which]), farthest(pl.col("limit"), 1.0))


def clock(tables: Tables) -> Sample:
    """Updates × (n − b)η²/(n b (n − 1)), median over b < n of linear runs.

    At the largest n of at most 100; NaN if there is none. A run that was given up has no number,
    which counts as more than any, as it is: the median of times that are cut off.
    """
    table = linear(tables["grid"]).filter(PART)
    most = pl.col("examples").filter(pl.col("examples") <= MANY).max()
    return of(table, pl.col("clock").filter(pl.col("examples") == most).median())


def exponent_n(tables: Tables) -> Sample:
    """Exponent of the updates to sparsity in n, at b = 1."""
    return slopes(tables["law_n"], pl.col("examples"), "updates")


def exponent_step(tables: Tables) -> Sample:
    """Exponent in the step size, n and b fixed."""
    return slopes(tables["law_step"], pl.col("ratio") * pl.col("batch_size"), "updates")


def exponent_batch(tables: Tables) -> Sample:
    """Exponent in b/(n − b), n and the step size fixed."""
    share = pl.col("batch_size") / (pl.col("examples") - pl.col("batch_size"))
    return slopes(tables["law_batch"], share, "updates")


def engine(tables: Tables) -> Sample:
    """log₁₀ of the largest difference of a weight between engine and fast simulation.

    Of logarithms, since one repetition with another winner outweighs all others in a mean.
    """
    return of(tables["engine"], pl.col("difference").nan_max().clip(NO_DIFFERENCE).log10())


def movement(table: pl.DataFrame) -> pl.DataFrame:
    """The table with ``moved``: log(participation ratio at the end/after half of the updates)."""
    moved = (pl.col("breadth") / pl.col("half_breadth")).log().alias("moved")
    return table.with_columns(moved)


def moved(tables: Tables) -> Sample:
    """The ``moved`` that is farthest from 0, over the settings that a finding is on."""
    return of(movement(judged(tables)), farthest(pl.col("moved"), 0.0))


def ratio(table: pl.DataFrame, above: str, below: str) -> Sample:
    """log(above/below), mean over the rows of a repetition."""
    return of(table, (pl.col(above) / pl.col(below)).log().mean())
