"""What is taken of each problem with known constants: powers, and whether a bound holds."""

from __future__ import annotations

import numpy as np
import polars as pl

from batchlab.stats import slopes
from batchlab.studies.claim import Sample

LEAST_SHARE = 0.7
"""Of problems in which a bound that is proved has to hold: what 16 of 16 show at 99 %."""


def slope(table: pl.DataFrame, of: str, column: str) -> Sample:
    """Slope of the log of a column on the log of another, by least squares; one a problem.

    Args:
        table: Each problem, ``repetition``, at the same values of ``of``.
        of: The other column.
        column: What depends on it.

    Example:
        >>> seen = {"repetition": [0, 0, 1, 1], "b": [2, 4, 2, 4], "loss": [4.0, 2.0, 1.0, 1.0]}
        >>> slope(pl.DataFrame(seen), "b", "loss").round(9).tolist()
        [-1.0, 0.0]
    """
    part = table.sort("repetition", of)
    x = np.log(part[of].unique().sort().to_numpy())
    y = np.log(part[column].to_numpy().reshape(-1, len(x)))
    return slopes(x, y)


def below(table: pl.DataFrame, form: str) -> Sample:
    """Power of ten of the measured mean over its bound, the largest of all; one a problem.

    Args:
        table: ``repetition``, ``mean`` and the bound; rows without one are left out.
        form: Column of the bound.
    """
    kept = table.filter(pl.col(form).is_finite())
    ratio = (pl.col("mean") / pl.col(form)).max().alias("ratio")
    found = kept.group_by("repetition").agg(ratio).sort("repetition")
    return np.log10(found["ratio"].to_numpy())


def holds(table: pl.DataFrame, form: str) -> Sample:
    """1 where the mean is nowhere above its bound, else 0; one a problem.

    Args:
        table: As :func:`below` takes it.
        form: Column of the bound.

    Example:
        >>> seen = {"repetition": [0, 0, 1], "mean": [1.0, 3.0, 1.0], "lemma": [2.0, 2.0, 2.0]}
        >>> holds(pl.DataFrame(seen), "lemma").tolist()
        [0.0, 1.0]
    """
    return (below(table, form) <= 0).astype(float)
