"""Which examples are in each batch, as arrays for many updates at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int

from batchlab import _random
from batchlab.errors import InvalidValueError, must
from batchlab.samplers import Stream

Sampling: TypeAlias = Literal["uniform", "cyclic", "stream"]

NUMBERS, FEWEST, MOST = 2**15, 16, 1024
"""Indices of a chunk, and least and most updates in it; a function of n and b only, so that a
run's batches do not depend on the runs beside it."""

CROWDED = 4.0
"""m²/n from which distinct indices are drawn by sorting; below, by drawing again (e^{−m²/2n})."""


@dataclass(frozen=True)
class Batches:
    """The batches of a run: a function of the seed and the number of the update.

    Attributes:
        examples: n.
        batch_size: b, 1 to n.
        sampling: ``uniform``, b distinct examples, independent of all other batches; ``cyclic``,
            windows of the fixed order 0, 1, … n − 1, 0, …; ``stream``, windows of the package's
            stream, as the engine trains: a new order each pass, and a window that runs across the
            end of a pass may hold an example twice.

    Example:
        >>> Batches(4, 3, "cyclic").draw(seed=0, chunk=0)[:2].tolist()
        [[3], [2]]
    """

    examples: int
    batch_size: int
    sampling: Sampling = "uniform"

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.examples:
            words = f"from 1 to the {self.examples} examples"
            raise InvalidValueError(must("batch_size", words, self.batch_size))

    @property
    def left_out(self) -> bool:
        """Whether the examples outside the batch are listed, because they are fewer."""
        return 2 * self.batch_size > self.examples and self.distinct

    @property
    def distinct(self) -> bool:
        """Whether no batch holds an example twice."""
        return self.sampling != "stream" or self.examples % self.batch_size == 0

    @property
    def listed(self) -> int:
        """Indices an update."""
        return self.examples - self.batch_size if self.left_out else self.batch_size

    @property
    def updates(self) -> int:
        """Updates in a chunk."""
        return min(MOST, max(FEWEST, NUMBERS // max(1, self.listed)))

    def draw(self, seed: int, chunk: int) -> Int[np.ndarray, "T listed"]:
        """The indices of one chunk of updates.

        Args:
            seed: Names the run.
            chunk: Number of the chunk, from 0.

        Returns:
            Examples in the batch, or outside it where :attr:`left_out`. Shape ``[T, listed]``.
        """
        if self.sampling == "uniform":
            generator = np.random.default_rng(_random.key(seed, "batches", chunk))
            return distinct(generator, self.updates, self.examples, self.listed)
        start = chunk * self.updates * self.batch_size
        if self.sampling == "cyclic":
            first = start + self.batch_size * np.arange(self.updates)
            shift = self.batch_size if self.left_out else 0
            return (first[:, None] + shift + np.arange(self.listed)) % self.examples
        if self.left_out:  # the whole data: nothing is left out
            return np.empty((self.updates, 0), dtype=np.int64)
        indices, _ = Stream(self.examples, seed).take(start, self.updates * self.batch_size)
        return indices.numpy().reshape(self.updates, self.batch_size)


def distinct(
    generator: np.random.Generator, rows: int, examples: int, count: int
) -> Int[np.ndarray, "rows count"]:
    """In each row so many distinct examples, every set equally likely.

    Args:
        generator: Where the randomness comes from.
        rows: Rows.
        examples: n.
        count: Distinct numbers in a row, at most n.

    Example:
        >>> sorted(distinct(np.random.default_rng(0), 1, 3, 3)[0].tolist())
        [0, 1, 2]
    """
    if count * count > CROWDED * examples:
        keys = generator.random((rows, examples), dtype=np.float32)
        return np.argpartition(keys, count - 1, axis=1)[:, :count]
    found = generator.integers(examples, size=(rows, count))
    while True:
        order = np.sort(found, axis=1)
        again = (order[:, 1:] == order[:, :-1]).any(axis=1)
        if not again.any():
            return found
        found[again] = generator.integers(examples, size=(int(again.sum()), count))


def counts(indices: Int[np.ndarray, "R b"], examples: int) -> Int[np.ndarray, "R n"]:
    """How often each example is in a batch.

    Args:
        indices: Shape ``[R, b]``.
        examples: n.

    Returns:
        Shape ``[R, n]``.

    Example:
        >>> counts(np.array([[0, 2, 2]]), 3).tolist()
        [[1, 0, 2]]
    """
    places = indices + examples * np.arange(len(indices))[:, None]
    found = np.bincount(places.reshape(-1), minlength=examples * len(indices))
    return found.reshape(len(indices), examples)


def whole_passes(updates: int, batch_size: int, examples: int, name: str) -> int:
    """The number of updates, half of which must be whole passes over the data.

    Args:
        updates: In all.
        batch_size: b.
        examples: n.
        name: What the number is called.

    Raises:
        InvalidValueError: If half of them end within a pass.

    Example:
        >>> whole_passes(64, 8, 256, "updates")
        64
    """
    least = 2 * examples // math.gcd(examples, batch_size)
    if updates < 1 or updates % least:
        words = f"a multiple of {least}, so that half of them are whole passes"
        raise InvalidValueError(must(name, words, updates))
    return updates
