"""Blocks in memory: as many as fit, the next ones read while the present ones are used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

Block = dict[str, Tensor]


class Ahead:
    """Blocks that were read or are being read, never more bytes than said.

    One thread reads, so that one block at a time is being decoded. What it decodes when it is no
    longer wanted, and what decoding needs beside the block, come on top.

    Args:
        read: The block of a number.
        sizes: Bytes of each block in memory.
        memory: Bytes of all blocks held or asked for together; at least the largest.
    """

    def __init__(self, read: Callable[[int], Block], sizes: Sequence[int], memory: int) -> None:
        self._read, self._sizes, self._memory = read, sizes, memory
        self._held: dict[int, Future[Block]] = {}  # the one used last stands last
        self._expected: object = None
        self._thread = ThreadPoolExecutor(1, "batchlab shards")
        self.lock = threading.Lock()

    def get(self, block: int) -> Block:
        """One block; waits until it is read."""
        future = self._held.pop(block, None) or self._ask(block)
        try:
            found = future.result()
        except BaseException:
            future.cancel()
            raise
        self._held[block] = future
        return found

    def expect(self, name: object, blocks: Iterable[int]) -> None:
        """Begin to read these, in order, as far as they fit; nothing else is kept.

        ``name`` stands for them: what is expected already is left alone.
        """
        if name == self._expected:
            return
        self._expected = name
        wanted, free = [], self._memory
        for block in blocks:
            free -= self._sizes[block]
            if free < 0:
                break
            wanted.append(block)
        for block in self._held.keys() - set(wanted):
            self._drop(block)
        for block in wanted:
            if block not in self._held:
                self._held[block] = self._ask(block)

    def _ask(self, block: int) -> Future[Block]:
        while self._held and self._bytes + self._sizes[block] > self._memory:
            self._drop(next(iter(self._held)))
        return self._thread.submit(self._read, block)

    @property
    def _bytes(self) -> int:
        return sum(self._sizes[block] for block in self._held)

    def _drop(self, block: int) -> None:
        self._held.pop(block).cancel()
