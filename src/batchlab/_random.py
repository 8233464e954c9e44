"""All randomness as a pure function of (seed, purpose, counter); no generator state is stored."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def key(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit number that names one draw.

    Args:
        seed: The run's seed.
        purpose: What the draw is for, such as ``"init"``.
        counters: Where in that purpose, such as (pass, index).

    Returns:
        An integer in [0, 2⁶³).

    Example:
        >>> key(0, "init") == key(0, "init"), key(0, "init") == key(0, "order")
        (True, False)
    """
    text = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """A fresh CPU generator for one named draw.

    Example:
        >>> a, b = (torch.rand(1, generator=generator(0, "x", 3)) for _ in range(2))
        >>> bool(a == b)
        True
    """
    return torch.Generator().manual_seed(key(seed, purpose, *counters))


@functools.lru_cache(maxsize=8)
def permutation(examples: int, seed: int, pass_: int) -> Int[Tensor, " N"]:
    """The order of the examples in one pass over the data.

    Args:
        examples: N, at least 1.
        seed: The run's seed.
        pass_: Pass number, from 0.

    Returns:
        A permutation of 0 … N−1. Do not write to it: it is kept.

    Example:
        >>> sorted(permutation(4, seed=0, pass_=1).tolist())
        [0, 1, 2, 3]
    """
    return torch.randperm(examples, generator=generator(seed, "order", pass_))


class Generators(NamedTuple):
    """The states of the global generators, to be put back bit for bit."""

    python: Any
    numpy: Any
    torch: Tensor
    cuda: list[Tensor]

    @staticmethod
    def now() -> Generators:
        """Where they stand.

        Example:
            >>> before = Generators.now()
            >>> a = torch.rand(1)
            >>> before.put_back()
            >>> bool(torch.rand(1) == a)
            True
        """
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
        return Generators(*states, cuda)

    def put_back(self) -> None:
        """Let them stand there again; a GPU that was not in use then stays as it is."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.random.set_rng_state(self.torch)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


@contextmanager
def seeded(seed: int, purpose: str, *counters: int) -> Iterator[None]:
    """Seed Python, NumPy and torch globally for a while, then restore all three bit for bit.

    Example:
        >>> with seeded(0, "init"):
        ...     a = torch.rand(1)
        >>> with seeded(0, "init"):
        ...     b = torch.rand(1)
        >>> bool(a == b)
        True
    """
    before, number = Generators.now(), key(seed, purpose, *counters)
    try:
        random.seed(number)
        np.random.seed(number & 0xFFFFFFFF)
        # Not torch.manual_seed: where CUDA is not in use yet, that seeds its start for good.
        torch.default_generator.manual_seed(number)
        if before.cuda:
            torch.cuda.manual_seed_all(number)
        yield
    finally:
        before.put_back()


class GlobalState(NamedTuple):
    """Where the global generators stand, as hashes."""

    python: bytes
    numpy: bytes
    torch: bytes


def global_state() -> GlobalState:
    """Where the global generators of Python, NumPy and torch stand.

    Example:
        >>> before = global_state()
        >>> with seeded(0, "init"):
        ...     moved = torch.rand(1)
        >>> global_state() == before
        True
    """
    kind, words, *rest = np.random.get_state()
    states = [torch.random.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return GlobalState(
        _hash(repr(random.getstate()).encode()),
        _hash(repr((kind, rest)).encode() + np.asarray(words).tobytes()),
        _hash(b"".join(state.numpy().tobytes() for state in states)),
    )


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def uniform(keys: Int[Tensor, "*R"], site: int, count: int) -> Float[Tensor, "*R count"]:
    """Uniform numbers in [0, 1) as a counter hash in plain tensor operations.

    The same under vmap, under compilation and alone, because it keeps no state. Rounds of the
    32-bit mixer by Chris Wellons ("lowbias32") over key, site and position.

    Args:
        keys: One key per run, any 63-bit integers.
        site: Which call of the forward pass, from 0.
        count: Numbers per key.

    Returns:
        float32 in [0, 1), multiples of 2⁻²⁴.

    Example:
        >>> 0.45 < float(uniform(torch.tensor(7), site=0, count=10_000).mean()) < 0.55
        True
    """
    position = torch.arange(count, dtype=torch.int64, device=keys.device)
    low, high = keys & 0xFFFFFFFF, (keys >> 32) & 0xFFFFFFFF
    start = _mix(low ^ _mix(high ^ (0x9E3779B9 * (site + 1) & 0xFFFFFFFF)))
    bits = _mix(_mix(start.unsqueeze(-1) ^ position) ^ (start.unsqueeze(-1) >> 7))
    return (bits >> 8).to(torch.float32) * 2.0**-24


def _mix(x: Tensor) -> Tensor:
    """lowbias32 on int64 tensors that hold 32-bit values."""
    x = (x ^ (x >> 16)) * 0x7FEB352D & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)
