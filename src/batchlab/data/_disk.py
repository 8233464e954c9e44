"""What data sets on disk have in common: examples by number, whole batches, and no surprise."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from batchlab import _tree
from batchlab.errors import TaskError, must
from batchlab.samplers import Blocks
from batchlab.types import Tree


class Leaf(NamedTuple):
    """One tensor of an example: its dtype and its shape."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Bytes of it in memory."""
        return self.elements * self.dtype.itemsize


class Stamp(NamedTuple):
    """What tells that a file is still the one it was: its size in bytes and its time."""

    path: Path
    size: int
    written: int

    @staticmethod
    def of(path: Path) -> Stamp:
        """The file as it is now.

        Raises:
            TaskError: If it is not there.
        """
        try:
            now = path.stat()
        except OSError as error:
            raise TaskError(f"`{path}` cannot be read: {error.strerror}.") from None
        return Stamp(path, now.st_size, now.st_mtime_ns)

    def check(self) -> None:
        """Refuse a file that was written to.

        Raises:
            TaskError: If it is another one now.
        """
        if Stamp.of(self.path) != self:
            hint = "Start anew: a training reads one data set from its beginning to its end."
            raise TaskError(f"`{self.path}` has changed since it was opened. {hint}")


class OnDisk(Dataset[Any], ABC):
    """A data set that is read when asked: a map-style Dataset, and what a Task takes as data.

    ``data[3]`` is an example, ``data[[3, 5]]`` a batch, so that both ``DataLoader(data,
    batch_sampler=sampler)`` and the faster ``DataLoader(data, sampler=sampler, batch_size=None)``
    read it.
    """

    in_memory = False
    leaves: Sequence[str] | None = None
    """Which of the tensors in the files make an example, where not all do."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """N."""

    @property
    @abstractmethod
    def blocks(self) -> Blocks | None:
        """The blocks that are shuffled as such; None where every example is equally near."""

    @property
    @abstractmethod
    def stamps(self) -> tuple[Stamp, ...]:
        """The files as they were when the data set was opened."""

    @property
    @abstractmethod
    def layout(self) -> tuple[Leaf, ...]:
        """The tensors of an example."""

    @abstractmethod
    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """The batch made of these examples.

        Args:
            index: Which examples, shape ``[B]``.
            passes: In which pass over the data each is read, shape ``[B]``; with ``seed`` it tells
                what comes next, and changes nothing in what is read.
            seed: Names the order.

        Returns:
            A tree of CPU tensors whose leaves start with B.

        Raises:
            TaskError: If a file is damaged or has changed.
        """

    @functools.cached_property
    def fingerprint(self) -> str:
        """Short hash of the names, sizes and times of the files, of what is read from them, and of
        how they are shuffled.
        """
        files = [(path.name, size, written) for path, size, written in self.stamps]
        read = self.blocks if self.leaves is None else (self.blocks, *self.leaves)
        return hashlib.sha256(repr((files, read)).encode()).hexdigest()[:16]

    def elements(self) -> Int[Tensor, " N"]:
        """Elements of each example."""
        return torch.tensor(sum(leaf.elements for leaf in self.layout)).expand(self.examples)

    def __len__(self) -> int:
        return self.examples

    @overload
    def __getitem__(self, index: int) -> Tree: ...

    @overload
    def __getitem__(self, index: Sequence[int]) -> Tree: ...

    def __getitem__(self, index: int | Sequence[int]) -> Tree:
        """An example, or the batch of several."""
        if not isinstance(index, int):
            return self._asked(index)
        if not -self.examples <= index < self.examples:
            raise IndexError(f"example {index} of {self.examples}")
        return _tree.pick_example(self.batch(torch.tensor([index % self.examples])), 0)

    def __getitems__(self, index: Sequence[int]) -> list[Tree]:
        """Several examples, read together, as a DataLoader asks for them."""
        batch = self._asked(index)
        return [_tree.pick_example(batch, place) for place in range(len(index))]

    def _asked(self, index: Sequence[int]) -> Tree:
        """A batch that a loader asks for."""
        return self.batch(torch.as_tensor(index))


def chosen(found: Mapping[str, Any], leaves: Sequence[str] | None, where: Path) -> tuple[str, ...]:
    """The leaves to read: those asked for, else all.

    Args:
        found: What is there, by name.
        leaves: Names, or None.
        where: Folder or file, for the error.

    Raises:
        TaskError: If one is not there.

    Example:
        >>> chosen({"x": 1, "y": 2}, ("y",), Path("a.npz"))
        ('y',)
    """
    names = tuple(found) if leaves is None else tuple(leaves)
    absent = [name for name in names if name not in found]
    if absent:
        raise TaskError(f"`{where}` has no `{absent[0]}`: it holds {', '.join(found) or 'none'}.")
    return names


def as_tree(values: Mapping[str, Any], leaves: Sequence[str] | None) -> Any:
    """A tuple in the order of ``leaves``; a dictionary where none were named."""
    return dict(values) if leaves is None else tuple(values[name] for name in leaves)


def torch_reads(dtype: np.dtype[Any], name: str, where: Path) -> None:
    """Refuse numbers that torch has no dtype for.

    Raises:
        TaskError: With one sentence.
    """
    try:
        torch.from_numpy(np.empty(0, dtype))
    except (TypeError, ValueError):
        raise TaskError(must(name, "numbers that torch reads", f"{dtype} in {where}")) from None


def same_length(lengths: Iterable[tuple[str, int]], where: object) -> int:
    """The one number of examples.

    Raises:
        TaskError: If the leaves differ.

    Example:
        >>> same_length([("x", 3), ("y", 3)], "a.npz")
        3
    """
    each = dict(lengths)
    if len(set(each.values())) != 1:
        said = ", ".join(f"{name} {length}" for name, length in each.items())
        hint = "Every leaf starts with the axis of examples."
        raise TaskError(f"The leaves of `{where}` differ in length: {said or 'none'}. {hint}")
    return next(iter(each.values()))
