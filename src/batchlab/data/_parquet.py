"""Shards as Parquet files: columns of numbers, and of lists of one length or arrays."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batchlab.data._disk import Leaf, chosen, torch_reads
from batchlab.data._npz import Shard
from batchlab.errors import TaskError, missing, must, reason


def polars() -> Any:
    """The library that reads Parquet; loaded where a Parquet file is met.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module("polars")
    except ModuleNotFoundError:
        raise missing("advise", "polars") from None


def describe(path: Path, leaves: Sequence[str] | None) -> Shard:
    """What a shard holds, from its footer.

    Raises:
        TaskError: If it is damaged or has no such column.
        MissingDependencyError: Without polars.
    """
    pl = polars()
    try:
        schema = pl.read_parquet_schema(path)
        rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TaskError(f"`{path}` cannot be read: {reason(error)}.") from error
    return Shard(rows, {name: schema[name] for name in chosen(schema, leaves, path)})


def leaf(path: Path, name: str, kind: Any) -> Leaf:
    """Dtype and shape of a column: of a list, those of the first row.

    Raises:
        TaskError: If the column does not hold numbers.
    """
    pl = polars()
    number = kind
    while isinstance(number, pl.List | pl.Array):
        number = number.inner
    if not (number.is_numeric() or number == pl.Boolean) or number.is_decimal():
        hint = "Name the others in `leaves=`, or decode it once and keep it with write_shards."
        raise TaskError(must(name, f"a column of numbers in {path}", str(kind), hint))
    first = _frame(path, 0, 1, [name])[name]
    array = _array(first, path)
    torch_reads(array.dtype, name, path)
    return Leaf(array.dtype, array.shape[1:])


def read(path: Path, start: int, rows: int, leaves: Mapping[str, Leaf]) -> dict[str, Tensor]:
    """Some rows of every column.

    Raises:
        TaskError: If the shard is damaged, has nulls, or its lists differ in length.
    """
    frame = _frame(path, start, rows, list(leaves))
    found = {}
    for name, leaf in leaves.items():
        array = _array(frame[name], path)
        if array.shape != (rows, *leaf.shape) or array.dtype != leaf.dtype:
            words = f"{leaf.dtype} of shape {list(leaf.shape)} in every row of {path}"
            raise TaskError(must(name, words, f"{array.dtype}, {list(array.shape[1:])}"))
        found[name] = torch.from_numpy(np.require(array, requirements=("C", "W")))
    return found


def _frame(path: Path, start: int, rows: int, names: list[str]) -> Any:
    pl = polars()
    try:
        return pl.scan_parquet(path).select(names).slice(start, rows).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise TaskError(f"`{path}` cannot be read: {reason(error)}.") from error


def _array(series: Any, path: Path) -> np.ndarray:
    """A column as one array; lists in it, of whatever depth, have one length each."""
    pl, shape = polars(), [len(series)]
    name = series.name
    while isinstance(series.dtype, pl.List | pl.Array):
        lengths = (series.list if isinstance(series.dtype, pl.List) else series.arr).len()
        length = _no_null(lengths, name, path).unique()
        if len(length) != 1 or length.item() == 0:
            said = f"lengths {sorted(length.to_list())[:4]}"
            raise TaskError(must(name, f"lists of one length, not empty, in {path}", said))
        shape.append(length.item())
        series = series.explode()
    return _no_null(series, name, path).to_numpy().reshape(shape)


def _no_null(series: Any, name: str, path: Path) -> Any:
    """The column itself; refuses missing numbers."""
    if series.null_count():
        raise TaskError(must(name, f"without nulls in {path}", f"{series.null_count()} nulls"))
    return series
