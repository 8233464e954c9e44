"""From arrays or a data set to files that are read block by block, or through a memory map."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils.data import default_collate

from batchlab import _random
from batchlab._platform import UNFINISHED
from batchlab.data import _parquet
from batchlab.data._disk import OnDisk, same_length
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, must

Kind = Literal["npz", "parquet", "npy"]
"""Shards as ``.npz`` or Parquet, or one ``.npy`` a leaf for :class:`MappedArrays`."""

READ_AT_ONCE = 4096


def write_shards(
    data: Any,
    folder: str | Path,
    rows: int | None = None,
    *,
    kind: Kind = "npz",
    leaves: Sequence[str] | None = None,
    shuffle: int | None = None,
) -> tuple[Path, ...]:
    """Write a data set once, so that trainings read it from disk.

    The folder appears when all is written, or not at all.

    Args:
        data: A tree of tensors or arrays that start with the examples, or a map-style Dataset
            whose examples are tuples or dictionaries of numbers; it is read once, ``rows``
            examples at a time.
        folder: Where to; must not exist, or be empty.
        rows: Examples a shard: what is read at a time later. All examples for ``npy``.
        kind: ``npz``, ``parquet`` or ``npy``. Parquet compresses and needs polars.
        leaves: Names, one for each leaf; those of a dictionary, else "0", "1", … if left out.
        shuffle: A seed: write the examples in the order of this permutation, so that files which
            were sorted are mixed once and for all. Reads ``data`` at random places.

    Returns:
        The files.

    Raises:
        InvalidValueError: If ``rows``, ``kind`` or the names are impossible.
        TaskError: If there are no examples, or the folder is in use.
        MissingDependencyError: For Parquet without polars.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = torch.arange(10.0), torch.arange(10)
        ...     files = write_shards(data, Path(folder) / "shards", 4, leaves=("x", "y"))
        >>> [path.name for path in files]
        ['00000.npz', '00001.npz', '00002.npz']
    """
    if kind not in get_args(Kind):
        raise InvalidValueError(must("kind", f"one of {', '.join(get_args(Kind))}", kind))
    if (rows is None) != (kind == "npy") or (rows is not None and rows < 1):
        words = "at least 1 example a shard, and left out for npy"
        raise InvalidValueError(must("rows", words, rows))
    folder, count = Path(folder), _length(data)
    if folder.exists() and any(folder.iterdir()):
        raise TaskError(must("folder", "a new or an empty folder", str(folder)))
    order = torch.arange(count) if shuffle is None else _random.permutation(count, shuffle, -1)
    parts = (_named(_some(data, index), leaves) for index in order.split(rows or READ_AT_ONCE))
    unfinished = folder.parent / f"{UNFINISHED}{folder.name}"
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed process had begun
    unfinished.mkdir(parents=True)
    try:
        names = (
            _write_arrays(parts, unfinished, count)
            if kind == "npy"
            else [
                _write_shard(part, unfinished / f"{number:05}.{kind}")
                for number, part in enumerate(parts)
            ]
        )
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return tuple(folder / name for name in names)


def _write_shard(part: dict[str, np.ndarray], path: Path) -> str:
    if path.suffix == ".npz":
        np.savez(path, **part)  # pyright: ignore[reportArgumentType]
    else:
        pl = _parquet.polars()
        frame = pl.DataFrame([pl.Series(name, values) for name, values in part.items()])
        frame.write_parquet(path, row_group_size=len(frame))
    return path.name


def _write_arrays(parts: Iterable[dict[str, np.ndarray]], folder: Path, count: int) -> list[str]:
    """One file for each leaf, part after part."""
    arrays: dict[str, np.memmap] = {}
    place = 0
    for part in parts:
        for name, values in part.items():
            if name not in arrays:
                arrays[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", values.dtype, (count, *values.shape[1:])
                )
            arrays[name][place : place + len(values)] = values
        place += len(next(iter(part.values())))
    for array in arrays.values():
        array.flush()
    return [f"{name}.npy" for name in arrays]


def _length(data: Any) -> int:
    """N of a tree or a data set."""
    if _is_tree(data):
        leaves = _pytree.tree_leaves(data)
        count = same_length(((str(i), len(leaf)) for i, leaf in enumerate(leaves)), "data")
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        count = len(data)
    else:
        words = "arrays, or a data set with a length"
        raise InvalidTypeError(must("data", words, type(data).__name__))
    if count == 0:
        raise TaskError(must("data", "at least one example", 0))
    return count


def _is_tree(data: Any) -> bool:
    """Whether it is arrays, alone or in a tuple or a dictionary, rather than examples."""
    if isinstance(data, tuple | dict):
        return all(map(_is_tree, data.values() if isinstance(data, dict) else data))
    return isinstance(data, Tensor | np.ndarray)


def _some(data: Any, index: Tensor) -> Any:
    """Some examples as a batch."""
    if _is_tree(data):
        return _pytree.tree_map(lambda leaf: leaf[index.numpy()], data)
    if isinstance(data, OnDisk):
        return data.batch(index)
    return default_collate([data[i] for i in index.tolist()])


def _named(batch: Any, leaves: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The leaves of a batch by name."""
    if isinstance(batch, dict):
        return {name: np.asarray(batch[name]) for name in leaves or batch}
    values = _pytree.tree_leaves(batch)
    names = tuple(map(str, range(len(values)))) if leaves is None else leaves
    if len(names) != len(values):
        raise InvalidValueError(must("leaves", f"{len(values)} names", leaves))
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
