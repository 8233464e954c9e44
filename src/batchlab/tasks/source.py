"""Where examples come from: kept in memory, or read one by one with named randomness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from batchlab import _random, _tree
from batchlab.errors import InvalidTypeError, TaskError, located, must, reason
from batchlab.samplers import Blocks
from batchlab.types import Tree

CHECKED_ITEMS = 16  # a transform that acts on 1 item in 10 is then missed 6 times in 1,000
LOOKED_AT = 256  # of examples that have to be read, for the longest
MEMORY_LIMIT_BYTES = 4 * 2**30  # above this a data set is streamed; a batch then costs a read


@runtime_checkable
class Source(Protocol):
    """Examples that can be asked for by index."""

    @property
    def examples(self) -> int:
        """N."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether a batch costs no read."""
        ...

    @property
    def blocks(self) -> Blocks | None:
        """What is read together and so shuffled together; None where every example is as near."""
        ...

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """The batch made of these examples.

        Args:
            index: Which examples, shape ``[B]``.
            passes: In which pass over the data each is read, shape ``[B]``; 0 if left out. Random
                transforms are a function of (seed, pass, index).
            seed: The run's seed.

        Returns:
            A tree of CPU tensors whose leaves start with B.
        """
        ...

    def elements(self) -> Int[Tensor, " N"]:
        """Elements of each example, to find the longest; 0 for one that was not looked at."""
        ...


@dataclass(frozen=True)
class Stacked:
    """Equal-shaped examples in memory: gathering is one indexing operation."""

    tree: Tree
    in_memory: bool = True
    blocks: Blocks | None = None

    @property
    def examples(self) -> int:
        """N."""
        return _tree.size(self.tree)

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`Source`; an index of shape ``[R, B]`` gathers R batches at once."""
        return _tree.take(self.tree, index)

    def elements(self) -> Int[Tensor, " N"]:
        """See :class:`Source`."""
        each = sum(leaf[0].numel() for leaf in _tree.leaves(self.tree))
        return torch.full((self.examples,), each)


@dataclass(frozen=True)
class Listed:
    """Examples of different shapes in memory, joined by the user's collate."""

    items: Sequence[Any]
    collate: Callable[[list[Any]], Tree]
    in_memory: bool = True
    blocks: Blocks | None = None

    @property
    def examples(self) -> int:
        """N."""
        return len(self.items)

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`Source`."""
        return self.collate([self.items[i] for i in index.tolist()])

    def elements(self) -> Int[Tensor, " N"]:
        """See :class:`Source`."""
        return torch.tensor([_tree.elements(item) for item in self.items])


@dataclass(frozen=True)
class Streamed:
    """Examples read from a Dataset whenever they are needed.

    For random transforms, or data too large for memory. Every item is read with Python, NumPy and
    torch seeded from (seed, pass, index), so that augmentation is the same for every batch size
    and number of workers.
    """

    dataset: Any
    collate: Callable[[list[Any]], Tree]
    in_memory: bool = False

    @property
    def examples(self) -> int:
        """N."""
        return len(self.dataset)

    @property
    def blocks(self) -> Blocks | None:
        """Those of the data set, if it names any."""
        return getattr(self.dataset, "blocks", None)

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`Source`."""
        which = torch.zeros_like(index) if passes is None else passes
        return self.collate(
            [self._read(seed, p, i) for p, i in zip(which.tolist(), index.tolist(), strict=True)]
        )

    def _read(self, seed: int, pass_: int, index: int) -> Any:
        with _random.seeded(seed, "item", pass_, index):
            return _item(self.dataset, index)

    def elements(self) -> Int[Tensor, " N"]:
        """See :class:`Source`.

        At most 256 evenly spaced examples are read.
        """
        index = torch.linspace(0, self.examples - 1, min(self.examples, LOOKED_AT)).long()
        sizes = torch.tensor([_tree.elements(self._read(0, 0, i)) for i in index.tolist()])
        return torch.zeros(self.examples, dtype=torch.long).index_copy(0, index, sizes)


@dataclass(frozen=True)
class Collated:
    """Batches of another source, taken apart and joined again by the user's collate."""

    source: Source
    collate: Callable[[list[Any]], Tree]

    @property
    def in_memory(self) -> bool:
        """As the source."""
        return self.source.in_memory

    @property
    def blocks(self) -> Blocks | None:
        """As the source."""
        return self.source.blocks

    @property
    def examples(self) -> int:
        """N."""
        return self.source.examples

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`Source`."""
        batch = self.source.batch(index, passes, seed)
        return self.collate([_tree.pick_example(batch, place) for place in range(len(index))])

    def elements(self) -> Int[Tensor, " N"]:
        """See :class:`Source`."""
        return self.source.elements()


@dataclass(frozen=True)
class Subset:
    """Some examples of another source, in a given order."""

    source: Source
    index: Tensor

    @property
    def in_memory(self) -> bool:
        """As the source."""
        return self.source.in_memory

    @property
    def blocks(self) -> Blocks | None:
        """What is left of those of the source; None where ``index`` is not ascending."""
        whole = self.source.blocks
        rising = whole is not None and bool((self.index.diff() > 0).all())
        return whole.of(self.index) if whole is not None and rising else None

    @property
    def examples(self) -> int:
        """N."""
        return len(self.index)

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`Source`."""
        return self.source.batch(self.index[index], passes, seed)

    def elements(self) -> Int[Tensor, " N"]:
        """See :class:`Source`."""
        return self.source.elements()[self.index]


def part_of(source: Source, index: Tensor) -> Source:
    """Some examples; copied once if they can be indexed as one block.

    Args:
        source: Where they come from.
        index: Which, in order.

    Example:
        >>> part_of(Stacked(torch.arange(4)), torch.tensor([3, 1])).batch(torch.arange(2))
        tensor([3, 1])
    """
    if isinstance(source, Stacked):
        return Stacked(_tree.take(source.tree, index))
    return Subset(source, index)


def files_of(source: Source) -> str | None:
    """What names the files behind a source, and the part of them it takes; None without files.

    Args:
        source: Where examples come from.
    """
    if isinstance(source, Subset):
        whole = files_of(source.source)
        part = hashlib.sha256(source.index.numpy().tobytes()).hexdigest()[:16]
        return whole and f"{whole}:{part}"
    return files_of(source.source) if isinstance(source, Collated) else _fingerprint(source)


def _fingerprint(source: Source) -> str | None:
    return getattr(getattr(source, "dataset", source), "fingerprint", None)


def make_source(data: Any, collate: Callable[[list[Any]], Tree] | None, name: str) -> Source:
    """Read what the user gave as data.

    Args:
        data: A tree of tensors or arrays, a map-style Dataset, or a data set on disk
            (:mod:`batchlab.data`), which is read batch by batch and never kept whole.
        collate: The user's collate, or None.
        name: ``train``, ``validation`` or ``test``, for error sentences.

    Returns:
        A source; in memory only if three reads of the first items agree bit for bit.

    Raises:
        TaskError: If nothing can be read from it.

    Example:
        >>> make_source((torch.ones(3, 2), torch.zeros(3)), None, "train").examples
        3
    """
    if isinstance(data, DataLoader):
        hint = f"Give its `.dataset` as `{name}=` and its `collate_fn` as `collate=`."
        raise InvalidTypeError(must(name, "a Dataset or tensors", "a DataLoader", hint))
    if isinstance(data, IterableDataset):
        hint = "One order for every batch size needs examples that can be asked for by number."
        raise InvalidTypeError(
            must(name, "a map-style Dataset or tensors", "an IterableDataset", hint)
        )
    if isinstance(data, Source):
        return data if collate is None else Collated(data, collate)
    if _is_tree(data):
        return _from_tree(data, name)
    if isinstance(data, Dataset) or (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        return _from_dataset(data, collate, name)
    raise InvalidTypeError(must(name, "a Dataset or a tree of tensors", type(data).__name__))


def _is_tree(data: Any) -> bool:
    """Whether it is tensors or arrays, possibly nested, rather than a sequence of examples."""
    if isinstance(data, Tensor | np.ndarray):
        return True
    if isinstance(data, list) and all(isinstance(item, tuple | dict) for item in data):
        return False
    values = list(data.values()) if isinstance(data, dict) else data
    return (
        isinstance(values, tuple | list) and 0 < len(values) <= 16 and all(map(_is_tree, values))
    )


def _from_tree(data: Any, name: str) -> Source:
    def tensor(leaf: Any) -> Tensor:
        if isinstance(leaf, Tensor):
            return leaf
        return torch.from_numpy(np.require(leaf, requirements=("C", "W")))

    try:
        tree = _tree.map_leaves(tensor, data)
    except TypeError as error:
        raise TaskError(f"`{name}` cannot be read as tensors: {error}") from None
    hint = "Every tensor starts with the axis of examples."
    if any(leaf.ndim == 0 for leaf in _tree.leaves(tree)):
        raise TaskError(must(name, "tensors that hold several examples", "a single number", hint))
    lengths = {len(leaf) for leaf in _tree.leaves(tree)}
    if len(lengths) > 1:
        raise TaskError(must(name, "tensors of one length", f"lengths {sorted(lengths)}", hint))
    return Stacked(tree)


def _from_dataset(data: Any, collate: Callable[[list[Any]], Tree] | None, name: str) -> Source:
    count = _length(data, name)
    if count == 0:
        raise TaskError(must(name, "at least one example", "an empty data set"))
    join = collate or default_collate
    first = [_item(data, i) for i in range(min(CHECKED_ITEMS, count))]
    size = sum(_tree.elements(item) for item in first) / len(first) * 4 * count
    if size > MEMORY_LIMIT_BYTES or not _reads_agree(data, len(first)):
        return Streamed(data, join)
    items = [_item(data, i) for i in range(count)]
    if collate is not None:
        return Listed(items, collate)
    try:
        return Stacked(default_collate(items))
    except Exception as error:  # examples may be of any kind
        hint = "Give `collate=`, a function from a list of examples to a batch."
        said = f"The examples of `{name}` cannot be stacked: {reason(error)}. {hint}"
        raise TaskError(said) from None


def _length(data: Any, name: str) -> int:
    """How many examples there are; a data set that cannot say becomes one sentence."""
    try:
        return len(data)
    except Exception as error:  # the user's own code may raise anything
        hint = "Write `__len__`, the number of examples."
        raise TaskError(f"`len()` of `{name}` raised {reason(error)}. {hint}") from error


def _item(data: Any, index: int) -> Any:
    """One example; what the user's data set raises becomes one sentence."""
    try:
        return data[index]
    except Exception as error:  # the user's own code may raise anything
        raise TaskError(f"Reading example {index} raised {located(error)}.") from error


def _reads_agree(data: Any, count: int) -> bool:
    """Whether three reads of the first items agree bit for bit."""
    for i in range(count):
        reads = []
        for attempt in range(3):
            with _random.seeded(attempt, "read check", i):
                reads.append(_item(data, i))
        if not all(_same(reads[0], other) for other in reads[1:]):
            return False
    return True


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and torch.equal(
            a.nan_to_num() if a.is_floating_point() else a,
            b.nan_to_num() if b.is_floating_point() else b,
        )
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
