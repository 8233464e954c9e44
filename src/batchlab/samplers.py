"""From a seed and a place in the stream to the examples drawn there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from batchlab import _random
from batchlab.errors import InvalidValueError, must

PASSES_KEPT = 2
"""Permutations a stream remembers: a batch that runs across the end of a pass needs two."""


@dataclass(frozen=True)
class Blocks:
    """Examples that are cheap to read together, and how many such blocks are mixed at a time.

    In pass p the M blocks stand in an order drawn for (seed, p); every ``window`` of them in a row
    are one window, whose examples are permuted by a draw for (seed, p, window). An order that
    needs ``window`` blocks in memory, and is a full shuffle where ``window`` is M.

    Attributes:
        ends: The number of examples up to the end of each block; the last is N. Never falling: a
            block may be empty.
        window: Blocks mixed at a time, at least 1.

    Example:
        >>> Blocks(ends=(4, 8, 10), window=2).lengths
        (4, 4, 2)
    """

    ends: tuple[int, ...]
    window: int

    def __post_init__(self) -> None:
        if not self.ends or min(self.lengths) < 0:
            raise InvalidValueError(must("ends", "numbers that never fall", self.ends))
        if isinstance(self.window, bool) or not isinstance(self.window, int) or self.window < 1:
            raise InvalidValueError(must("window", "a whole number, 1 or more", self.window))

    @functools.cached_property
    def lengths(self) -> tuple[int, ...]:
        """Examples of each block."""
        return tuple(end - start for start, end in zip((0, *self.ends), self.ends, strict=False))

    def order(self, seed: int, pass_: int) -> list[int]:
        """The order of the blocks in one pass; it does not depend on their lengths."""
        drawn = _random.generator(seed, "blocks", pass_)
        return torch.randperm(len(self.ends), generator=drawn).tolist()

    def of(self, index: Int64[Tensor, " n"]) -> Blocks:
        """The same blocks where only some examples are left.

        Args:
            index: Which, ascending.

        Example:
            >>> Blocks((4, 8, 10), 2).of(torch.tensor([0, 3, 9])).ends
            (2, 2, 3)
        """
        return Blocks(
            tuple(torch.searchsorted(index, torch.tensor(self.ends)).tolist()), self.window
        )


class Drawn(list[int]):
    """Indices of examples that know how they were drawn, for data that are read ahead.

    Attributes:
        passes: In which pass each was drawn.
        seed: Of their stream.
    """

    def __init__(self, index: list[int], passes: list[int], seed: int) -> None:
        super().__init__(index)
        self.passes, self.seed = passes, seed

    def __reduce__(self) -> tuple[type[Drawn], tuple[list[int], list[int], int]]:
        return Drawn, (list(self), self.passes, self.seed)


class _Pass(NamedTuple):
    """One pass over blocks: their order, and the place in the pass at which each window ends."""

    order: list[int]
    ends: Int64[Tensor, " W"]


@dataclass(frozen=True)
class Stream:
    """All examples in one infinite order: pass 0's permutation, pass 1's, and so on.

    A pure function of (examples, seed, blocks, place): every batch size and schedule, any number
    of workers and a resumed run see the same order. A stream remembers its two latest permutations
    (16 bytes an example; with blocks, of two windows), so keep one for a run and take from it in
    order.

    Attributes:
        examples: Examples in the data set N, at least 1.
        seed: Names the order, 0 or more.
        blocks: Blocks that are shuffled as such; each pass is one permutation of all if left out.

    Example:
        >>> stream = Stream(examples=3, seed=0)
        >>> indices, passes = stream.take(start=0, count=6)
        >>> sorted(indices[:3].tolist()), sorted(indices[3:].tolist()), passes.tolist()
        ([0, 1, 2], [0, 1, 2], [0, 0, 0, 1, 1, 1])
    """

    examples: int
    seed: int = 0
    blocks: Blocks | None = None

    def __post_init__(self) -> None:
        for name, least in (("examples", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidValueError(must(name, f"a whole number, {least} or more", value))
        if self.blocks is not None and self.blocks.ends[-1] != self.examples:
            words = f"blocks of {self.examples} examples"
            raise InvalidValueError(must("blocks", words, self.blocks.ends[-1]))

    def take(self, start: int, count: int) -> tuple[Int64[Tensor, " B"], Int64[Tensor, " B"]]:
        """The examples at places ``start`` to ``start + count`` of the stream.

        Args:
            start: Samples drawn before, 0 or more.
            count: Samples to draw, 0 or more; may run across the ends of passes.

        Returns:
            ``(indices, passes)``: which example, in [0, N), and how often the data set had been
            seen whole. Both shape ``[count]``.

        Raises:
            InvalidValueError: If ``start`` or ``count`` is negative.

        Example:
            >>> stream = Stream(examples=5, seed=1)
            >>> whole, _ = stream.take(0, 8)
            >>> torch.equal(stream.take(4, 4)[0], whole[4:])
            True
        """
        if start < 0 or count < 0:
            name, value = ("start", start) if start < 0 else ("count", count)
            raise InvalidValueError(must(name, "0 or more", value))
        first, offset = divmod(start, self.examples)
        if self.blocks is not None:
            return self._windowed(start, start + count)
        if offset + count <= self.examples:
            # A copy: the caller may change what it got, the remembered permutation must not.
            indices = self._permutation(first)[offset : offset + count].clone()
            return indices, torch.full((count,), first, dtype=torch.int64)
        passes = torch.arange(start, start + count) // self.examples
        last = (start + count - 1) // self.examples
        whole = torch.cat([self._permutation(p) for p in range(first, last + 1)])
        return whole[offset : offset + count].clone(), passes

    def neighbours(self, batch_size: int, pass_: int = 0) -> float:
        r"""The expected share of neighbours in the file that come in one batch.

        How well blocks are mixed, to be held against the same number without blocks, (B−1)/(N−1)
        for B ≪ N. Two examples of one window of m stand at a distance d ≥ 1 with probability
        2(m−d)/(m(m−1)), and a batch of B that may start anywhere holds both with probability
        max(0, 1 − d/B). The sum over d is

            P(m, B) = (B−1)(m − (B+1)/3)/(m(m−1))  for B ≤ m,   1 − (m+1)/(3B)  above.

        The mean over all pairs of neighbours of one block, each with the m of its window. Without
        blocks m = N.

        Args:
            batch_size: B, examples, at least 1.
            pass_: Which pass; windows of blocks of different lengths differ from pass to pass.

        Returns:
            A share in [0, 1]; NaN where no block has two examples.

        Example:
            >>> blocks = Blocks(ends=tuple(range(100, 1001, 100)), window=2)
            >>> whole, mixed = Stream(1000), Stream(1000, blocks=blocks)
            >>> round(mixed.neighbours(10) / whole.neighbours(10), 1)
            4.9
        """
        if batch_size < 1:
            raise InvalidValueError(must("batch_size", "at least 1", batch_size))
        pairs = [(n - 1, m) for n, m in self._companies(pass_) if n > 1]
        together = sum(count * _in_one_batch(m, batch_size) for count, m in pairs)
        return together / sum(count for count, _ in pairs) if pairs else float("nan")

    def _companies(self, pass_: int) -> list[tuple[int, int]]:
        """(examples of a block, examples of its window)."""
        if self.blocks is None:
            return [(self.examples, self.examples)]
        lengths, window = self.blocks.lengths, self.blocks.window
        each = [lengths[b] for b in self._pass(pass_).order]
        parts = [each[i : i + window] for i in range(0, len(each), window)]
        return [(length, sum(part)) for part in parts for length in part]

    def _windowed(self, start: int, end: int) -> tuple[Int64[Tensor, " B"], Int64[Tensor, " B"]]:
        """The examples at places ``start`` to ``end``, window by window."""
        parts, place = [torch.empty(0, dtype=torch.int64)], start
        while place < end:
            pass_, offset = divmod(place, self.examples)
            ends = self._pass(pass_).ends
            number = int(torch.searchsorted(ends, offset, right=True))
            window = self._window(pass_, number)
            begin = int(ends[number]) - len(window)
            parts.append(window[offset - begin :][: end - place])
            place += len(parts[-1])
        return torch.cat(parts), torch.arange(start, end) // self.examples

    @functools.cached_property
    def _pass(self) -> Callable[[int], _Pass]:
        return functools.lru_cache(maxsize=PASSES_KEPT)(self._draw_pass)

    def _draw_pass(self, pass_: int) -> _Pass:
        assert self.blocks is not None
        order, window = self.blocks.order(self.seed, pass_), self.blocks.window
        sums = list(accumulate(self.blocks.lengths[b] for b in order))
        return _Pass(order, torch.tensor([*sums[window - 1 : -1 : window], sums[-1]]))

    @functools.cached_property
    def _window(self) -> Callable[[int, int], Tensor]:
        return functools.lru_cache(maxsize=PASSES_KEPT)(self._draw_window)

    def _draw_window(self, pass_: int, number: int) -> Tensor:
        """The examples of one window, in the order in which they are seen."""
        assert self.blocks is not None
        window, ends, lengths = self.blocks.window, self.blocks.ends, self.blocks.lengths
        own = self._pass(pass_).order[number * window : (number + 1) * window]
        examples = torch.cat([torch.arange(ends[b] - lengths[b], ends[b]) for b in own])
        drawn = _random.generator(self.seed, "window", pass_, number)
        return examples[torch.randperm(len(examples), generator=drawn)]

    @functools.cached_property
    def _permutation(self) -> Callable[[int], Tensor]:
        draw = functools.partial(_random.permutation, self.examples, self.seed)
        return functools.lru_cache(maxsize=PASSES_KEPT)(draw)

    def __getstate__(self) -> dict[str, int | Blocks | None]:
        # What is remembered can be drawn again and does not travel to other processes.
        return {"examples": self.examples, "seed": self.seed, "blocks": self.blocks}


def _in_one_batch(window: int, batch_size: int) -> float:
    """P(m, B): that a batch of B holds two given examples of a window of m."""
    m, size = window, batch_size
    if size >= m:
        return 1 - (m + 1) / (3 * size)
    return (size - 1) * (m - (size + 1) / 3) / (m * (m - 1))
