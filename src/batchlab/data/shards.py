"""A folder of shards: data that are read block by block, shuffled in blocks."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from batchlab._platform import format_bytes, parse_bytes
from batchlab.data import _npz, _parquet
from batchlab.data._ahead import Ahead, Block
from batchlab.data._disk import Leaf, OnDisk, Stamp, as_tree
from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.samplers import Blocks, Drawn
from batchlab.types import Tree

FORMATS = {".npz": _npz, ".parquet": _parquet}


class _Part(NamedTuple):
    """A block: some rows of a shard."""

    shard: int
    start: int
    rows: int


@final
class Shards(OnDisk):
    """A data set in a folder of ``.npz`` or Parquet files, read block by block.

    A block is a shard, or ``block`` rows of it. The order is that of *shuffled blocks*: in each
    pass the blocks stand in an order of their own, and ``window`` of them at a time are mixed, so
    that a batch comes from ``window`` blocks (:class:`batchlab.samplers.Blocks`). It is a function
    of (seed, pass) and of ``block`` and ``window``, and the same for every batch size, any number
    of workers and ranks, and after a resume. It is no full shuffle:
    :meth:`batchlab.samplers.Stream.neighbours` says how far from it. Where files are sorted, by
    class say, mix them once when they are written.

    Each process reads every block it takes examples of: with k workers or ranks, whose batches or
    shares come from the same windows, files are read and decoded k times.

    Args:
        folder: With shards of one kind; their order is that of their names.
        leaves: Arrays or columns: an example is the tuple of them. Left out, it is the dictionary
            of all.
        block: Rows read at a time at most; whole shards if left out. In Parquet, a multiple of the
            rows in a row group, or groups are decoded several times.
        window: Blocks mixed at a time.
        memory: Bytes of blocks in memory, a number or text such as ``"2GiB"``. It holds a window;
            what is left of it is for reading ahead. The order does not depend on it.

    Raises:
        TaskError: If there are no shards, one is damaged, or they differ in columns or dtypes.
        InvalidValueError: If a window does not fit in ``memory``, or a number is impossible.
        MissingDependencyError: For Parquet without polars.

    Assumes:
        On top of ``memory``: one block being decoded, with what its decoder needs (a row group of
        Parquet), and the batch.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for part in range(3):
        ...     np.savez(folder / f"{part}.npz", x=np.full((4, 2), part), y=np.arange(4))
        >>> data = Shards(folder, ("x", "y"), window=2)
        >>> len(data), data.blocks.lengths, data[9]
        (12, (4, 4, 4), (tensor([2, 2]), tensor(1)))
    """

    def __init__(
        self,
        folder: str | Path,
        leaves: Sequence[str] | None = None,
        *,
        block: int | None = None,
        window: int = 8,
        memory: int | str = "1GiB",
    ) -> None:
        if block is not None and (isinstance(block, bool) or block < 1):
            raise InvalidValueError(must("block", "at least 1 row", block))
        self.leaves = leaves
        self._memory = parse_bytes(memory, "memory")
        self._format, paths = _files(Path(folder).absolute())
        self._stamps = tuple(map(Stamp.of, paths))
        rows, self._kinds = _described(self._format, paths, leaves)
        self._parts = tuple(_cut(rows, block))
        ends = tuple(accumulate(part.rows for part in self._parts))
        if not ends:
            raise TaskError(must("folder", "shards with at least one example", str(folder)))
        self._blocks, self._ends = Blocks(ends, window), torch.tensor(ends)
        self._process, self._last = os.getpid(), -len(ends)
        self._must_fit()

    @property
    def examples(self) -> int:
        """N."""
        return self._blocks.ends[-1]

    @property
    def blocks(self) -> Blocks:
        """The blocks and how many are mixed."""
        return self._blocks

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """See :class:`OnDisk`."""
        return self._stamps

    @property
    def layout(self) -> tuple[Leaf, ...]:
        """See :class:`OnDisk`."""
        return tuple(self._kinds.values())

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`OnDisk`.

        Where the examples come in the order of a pass (or of the files, without ``passes``), the
        blocks that follow are read ahead.
        """
        block = torch.bucketize(index, self._ends, right=True)
        batch = {
            name: torch.empty((len(index), *leaf.shape), dtype=_torch_dtype(leaf))
            for name, leaf in self._kinds.items()
        }
        with self._ahead.lock:
            for places, coming in self._stretches(block, passes, seed):
                if coming is not None:
                    self._ahead.expect(coming, self._from(*coming))
                self._fill(batch, index, block, places)
        return as_tree(batch, self.leaves)

    def _asked(self, index: Sequence[int]) -> Tree:
        if not isinstance(index, Drawn):
            return super()._asked(index)
        return self.batch(torch.as_tensor(index), torch.as_tensor(index.passes), index.seed)

    def _fill(self, batch: Block, index: Tensor, block: Tensor, places: slice) -> None:
        """Copy the examples at some places of a batch out of their blocks."""
        for number in dict.fromkeys(block[places].tolist()):
            own = (block[places] == number).nonzero().flatten() + places.start
            rows = index[own] - (self._ends[number] - self._parts[number].rows)
            for name, values in self._ahead.get(number).items():
                batch[name][own] = values[rows]

    def _stretches(
        self, block: Int64[Tensor, " B"], passes: Tensor | None, seed: int
    ) -> Iterator[tuple[slice, tuple[int, int, int] | None]]:
        """Places of a batch that lie in one window, with (seed, pass, place) of that window.

        None instead of it where the batch does not follow the order; without ``passes``, where it
        does not go on where the one before it ended.
        """
        count, window = len(self._parts), self._blocks.window
        own = torch.full_like(block, -1) if passes is None else passes
        at = torch.empty_like(block)
        for pass_ in own.unique().tolist():
            at[own == pass_] = self._place(seed, pass_)[block[own == pass_]]
        windows = own * count + at // window
        goes_on = passes is not None or 0 <= int(windows[0]) - self._last <= 1
        if passes is None:
            self._last = int(windows[-1])
        if not goes_on or bool((windows.diff() < 0).any()):
            yield slice(0, len(block)), None
            return
        start = 0
        for size in windows.unique_consecutive(return_counts=True)[1].tolist():
            first = int(at[start]) // window * window
            yield slice(start, start + size), (seed, int(own[start]), first)
            start += size

    def _from(self, seed: int, pass_: int, place: int) -> Iterator[int]:
        """The blocks from a place of a pass on, into the next pass."""
        yield from islice(self._order(seed, pass_), place, None)
        if pass_ >= 0:
            yield from self._order(seed, pass_ + 1)

    def _order(self, seed: int, pass_: int) -> Sequence[int]:
        """The blocks as they come in a pass; −1 for the order of the files."""
        return range(len(self._parts)) if pass_ < 0 else self._orders(seed, pass_)

    @functools.cached_property
    def _orders(self) -> Any:
        return functools.lru_cache(maxsize=4)(self._blocks.order)

    @functools.cached_property
    def _place(self) -> Any:
        """(seed, pass) → the place of each block."""

        def places(seed: int, pass_: int) -> Tensor:
            return torch.argsort(torch.tensor(self._order(seed, pass_)))

        return functools.lru_cache(maxsize=4)(places)

    def _read(self, number: int) -> Block:
        """One block from its shard."""
        shard, start, rows = self._parts[number]
        self._stamps[shard].check()
        return self._format.read(self._stamps[shard].path, start, rows, self._kinds)

    @property
    def _ahead(self) -> Ahead:
        """What is read in this process; a forked one has none of the threads."""
        if self._process != os.getpid() and self._format is _parquet:
            hint = 'Write DataLoader(…, multiprocessing_context="spawn").'
            words = "spawn for Parquet shards, whose reader hangs in a forked process"
            raise InvalidValueError(must("multiprocessing_context", words, "fork", hint))
        if self._reading is None or self._reading[0] != os.getpid():
            sizes = [part.rows * self._row_bytes for part in self._parts]
            self._reading = os.getpid(), Ahead(self._read, sizes, self._memory)
        return self._reading[1]

    _reading: tuple[int, Ahead] | None = None

    @property
    def _row_bytes(self) -> int:
        return sum(leaf.bytes for leaf in self._kinds.values())

    def _must_fit(self) -> None:
        """A window of the largest blocks fits in memory."""
        largest, window = max(self._blocks.lengths), min(self._blocks.window, len(self._parts))
        needed = largest * window * self._row_bytes
        if needed > self._memory:
            rows = self._memory // (window * self._row_bytes)
            hint = f"Or give `block={rows}`." if rows else "Or mix fewer blocks, with `window=`."
            words = f"at least {format_bytes(needed)}, {window} blocks of {largest} examples"
            raise InvalidValueError(must("memory", words, format_bytes(self._memory), hint))

    def __getstate__(self) -> dict[str, Any]:
        # Blocks, threads and what is remembered stay here; the format travels by its name.
        own = {"_reading", "_orders", "_place", "_format"}
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        return state | {"suffix": self._stamps[0].path.suffix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._format = FORMATS[state.pop("suffix")]
        vars(self).update(state, _process=os.getpid())


def _files(folder: Path) -> tuple[ModuleType, list[Path]]:
    """The shards of a folder, all of one kind."""
    found = {kind: sorted(folder.glob(f"*{kind}")) for kind in FORMATS}
    kinds = [kind for kind, paths in found.items() if paths]
    if len(kinds) != 1:
        got = f"both in {folder}" if kinds else f"none in {folder}"
        raise TaskError(must("folder", "a folder of .npz or of .parquet files", got))
    return FORMATS[kinds[0]], found[kinds[0]]


def _described(
    kind: ModuleType, paths: Sequence[Path], leaves: Sequence[str] | None
) -> tuple[list[int], dict[str, Leaf]]:
    """The rows of each shard, and the leaves that all have in common."""
    first, *others = (kind.describe(path, leaves) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        if other.kinds != first.kinds:
            words = f"alike: {paths[0].name} has {_said(first.kinds)}"
            raise TaskError(must("folder", words, f"{_said(other.kinds)} in {path.name}"))
    found = {name: kind.leaf(paths[0], name, own) for name, own in first.kinds.items()}
    return [first.rows, *(other.rows for other in others)], found


def _said(kinds: dict[str, Any]) -> str:
    """Columns in words."""
    return ", ".join(
        f"{name} {kind.dtype}{list(kind.shape)}" if isinstance(kind, Leaf) else f"{name} {kind}"
        for name, kind in sorted(kinds.items())
    )


def _cut(rows: Sequence[int], block: int | None) -> Iterator[_Part]:
    """Blocks of at most so many rows; a shard without rows has none."""
    for shard, count in enumerate(rows):
        step = block or max(count, 1)
        for start in range(0, count, step):
            yield _Part(shard, start, min(step, count - start))


def _torch_dtype(leaf: Leaf) -> torch.dtype:
    return torch.from_numpy(np.empty(0, leaf.dtype)).dtype
