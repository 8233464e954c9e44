"""From a tidy table to the points of a picture."""

from __future__ import annotations

import polars as pl

from batchlab.studies.claim import Row, Statistic
from batchlab.studies.verdict import estimate


def points(
    table: pl.DataFrame,
    *,
    x: str,
    y: str,
    series: str = "measured",
    statistic: Statistic = Statistic.MEAN,
) -> tuple[Row, ...]:
    """One point with its 99 % interval for every value of a column.

    Args:
        table: One row a repetition.
        x: Column of the horizontal axis.
        y: Column of what was measured; rows that are not finite are left out, and n says so.
        series: Column that tells the series apart, or the name of the only one.
        statistic: How repetitions become one number.

    Returns:
        Rows of ``x``, ``y``, ``low``, ``high``, ``n`` and ``series``.

    Example:
        >>> table = pl.DataFrame({"b": [1, 1, 2, 2], "loss": [1.0, 3.0, 5.0, 5.0]})
        >>> made = points(table, x="b", y="loss")
        >>> [(row["x"], row["y"], row["n"]) for row in made]
        [(1, 2.0, 2), (2, 5.0, 2)]
    """
    column = pl.col(series) if series in table.columns else pl.lit(series)
    told = table.select(pl.col(x).alias("x"), pl.col(y).alias("y"), column.alias("series"))
    kept = told.filter(pl.col("y").is_finite())
    rows = []
    for (name, at), part in kept.group_by("series", "x", maintain_order=True):
        found = estimate(statistic, part["y"].to_numpy())
        rows.append(
            {
                "x": at,
                "y": found.value,
                "low": found.low,
                "high": found.high,
                "n": found.n,
                "series": str(name),
            }
        )
    return tuple(rows)
