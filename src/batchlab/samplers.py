"""From a seed and a place in the stream to the examples drawn there."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from batchlab import _random
from batchlab.errors import InvalidValueError, must

PASSES_KEPT = 2
"""Permutations a stream remembers: a batch that runs across the end of a pass needs two."""


@dataclass(frozen=True)
class Stream:
    """All examples in one infinite order: pass 0's permutation, pass 1's, and so on.

    A pure function of (examples, seed, place): every batch size and schedule, any number of
    workers and a resumed run see the same order. A stream remembers its two latest permutations
    (16 bytes an example), so keep one for a run and take from it in order.

    Attributes:
        examples: Examples in the data set N, at least 1.
        seed: Names the order, 0 or more.

    Example:
        >>> stream = Stream(examples=3, seed=0)
        >>> indices, passes = stream.take(start=0, count=6)
        >>> sorted(indices[:3].tolist()), sorted(indices[3:].tolist()), passes.tolist()
        ([0, 1, 2], [0, 1, 2], [0, 0, 0, 1, 1, 1])
    """

    examples: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("examples", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidValueError(must(name, f"a whole number, {least} or more", value))

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
        if offset + count <= self.examples:
            # A copy: the caller may change what it got, the remembered permutation must not.
            indices = self._permutation(first)[offset : offset + count].clone()
            return indices, torch.full((count,), first, dtype=torch.int64)
        passes = torch.arange(start, start + count) // self.examples
        last = (start + count - 1) // self.examples
        whole = torch.cat([self._permutation(p) for p in range(first, last + 1)])
        return whole[offset : offset + count].clone(), passes

    @functools.cached_property
    def _permutation(self) -> Callable[[int], Tensor]:
        draw = functools.partial(_random.permutation, self.examples, self.seed)
        return functools.lru_cache(maxsize=PASSES_KEPT)(draw)

    def __getstate__(self) -> dict[str, int]:
        # What is remembered can be drawn again and does not travel to other processes.
        return {"examples": self.examples, "seed": self.seed}
