"""Bytes that training holds at its worst, predicted from a few steps of few runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from batchlab import _random, _tree
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability
from batchlab.engine.evaluate import EVALUATION_BATCH
from batchlab.engine.job import Job
from batchlab.engine.loop import Alone
from batchlab.engine.stacked import Stack
from batchlab.engine.step import DTYPES, rule_of, start_of
from batchlab.tasks import Objective, Prepared

TRIED = (2, 4)
"""Sizes of the stacks whose bytes are counted; a straight line through them predicts the rest."""
SCATTERED = 1.4
"""Resident bytes per byte of a tensor that lies in the heap, where the allocator leaves gaps
(`benchmarks/memory.py`)."""
CONVOLVED = 1.45
"""Bytes of a compiled program per byte of an eager one, where it convolves: the compiler copies
what it convolves into another layout and keeps both (`benchmarks/memory.py`: 1.25 to 1.55)."""
MAPPED_BYTES = 2**25
"""Larger blocks are mapped by themselves (:func:`batchlab._platform.keep_freed_memory`)."""
MOST_RUNS = 1024
PARAMETERS_COPIED, EXAMPLES_COPIED = 20, 2
"""Generous: a training with optimizer state holds few copies of its parameters, and a backward
pass at most as much again as the forward pass has left."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made inside it that are still held.

    Attributes:
        now: Bytes held.
        peak: The most there were at a time.
        blocks: Bytes of each tensor that was held then.

    Example:
        >>> with LiveBytes() as live:
        ...     kept = torch.ones(100) + torch.ones(100)
        >>> live.now, live.peak
        (400, 1200)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.blocks: list[int] = []
        self._held: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in _pytree.tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        name = storage._cdata
        if name in self._held:
            return
        self._held[name] = storage.nbytes()
        self.now += storage.nbytes()
        if self.now > self.peak:
            self.peak, self.blocks = self.now, list(self._held.values())
        weakref.finalize(storage, self._release, name)

    def _release(self, name: int) -> None:
        self.now -= self._held.pop(name)


@dataclass(frozen=True)
class Need:
    """Bytes of S runs that train together: fixed + S × each, and the gaps between them.

    Attributes:
        fixed: Bytes of tensors whatever the number of runs.
        each: Of one run.
        blocks: Bytes per run of the tensors there are at the worst moment; those that S makes
            larger than 32 MiB are mapped one by one and leave no gaps.
        scattered: Resident bytes per byte of the others.

    Example:
        >>> Need(fixed=10, each=4, blocks=(2, 2), scattered=1.5).of(5)
        45
        >>> Need(fixed=10, each=4, blocks=(2, 2)).most(37)
        6
    """

    fixed: int
    each: int
    blocks: tuple[int, ...] = ()
    scattered: float = 1.0

    def of(self, runs: int) -> int:
        """Bytes of so many runs."""
        mapped = sum(block for block in self.blocks if block * runs >= MAPPED_BYTES)
        share = mapped / max(1, sum(self.blocks))
        held = self.fixed + runs * self.each
        return round(held * (share + (1 - share) * self.scattered))

    def most(self, limit: int) -> int:
        """Runs that stay within so many bytes; 0 if not even one does."""
        return next((runs for runs in range(MOST_RUNS, 0, -1) if self.of(runs) <= limit), 0)


def small(prepared: Prepared, runs: int, batch_size: int, limit: int) -> bool:
    """Whether so many runs are so far from a limit that nothing needs to be tried.

    Args:
        prepared: The task.
        runs: At a time.
        batch_size: Examples of a batch.
        limit: Bytes.

    Returns:
        By what the forward passes of a few examples hold.
    """
    objective = prepared.objective(0)
    parameters = sum(p.nbytes for p in objective.parameters())
    few, more = (_held(lambda n=n: _forward(prepared, objective, n)).peak for n in TRIED)
    example = (more - few) / (TRIED[1] - TRIED[0])
    passed = max(batch_size, EVALUATION_BATCH)
    each = PARAMETERS_COPIED * parameters + EXAMPLES_COPIED * passed * example
    return 4 * runs * each < limit


def predict(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    capability: Capability,
    executor: str,
    ends: int = 0,
    compiled: bool = False,
) -> Need:
    """What runs of one shape will hold at their worst: two batches and an evaluation are tried.

    Args:
        prepared: The task.
        configs: Resolved runs that differ in numbers and seeds only.
        capability: What the model needs.
        executor: ``stacked`` or ``loop``.
        ends: Runs whose end is kept, in memory and in the cell's checkpoint as it is written.
        compiled: Whether the stack is compiled. What is tried is not, and without convolutions
            the compiled program holds about as much.

    Returns:
        Resident bytes on top of the task's own; leaves no trace.
    """
    scattered = SCATTERED if prepared.device == "cpu" else 1.0
    kept = 2 * ends * _state_bytes(prepared, configs[0]) if prepared.device == "cpu" else 0
    if executor == "loop":
        alone = _held(lambda: _one(prepared, configs[0], capability))
        return Need(kept, alone.peak, tuple(alone.blocks), scattered)
    few, more = (
        _held(lambda s=size: _several(prepared, configs, capability, s)) for size in TRIED
    )
    each = (more.peak - few.peak) // (TRIED[1] - TRIED[0])
    blocks = tuple(block // TRIED[1] for block in more.blocks)
    fixed = kept + max(0, few.peak - TRIED[0] * each)
    copied = CONVOLVED if compiled and capability.convolutions else 1.0
    return Need(fixed, round(copied * each), blocks, scattered)


def _state_bytes(prepared: Prepared, config: RunConfig) -> int:
    """Of one run: parameters, buffers and what its rule keeps."""
    objective = prepared.objective(config.seed, DTYPES[config.precision], config.gamma)
    state = start_of(objective, rule_of(config, prepared.task))
    return sum(leaf.nbytes for leaf in _pytree.tree_leaves(state))


def _forward(prepared: Prepared, objective: Objective, examples: int) -> None:
    index = torch.arange(examples) % prepared.examples
    objective(_tree.to(prepared.train.batch(index), prepared.device, torch.float32))


def _held(work: Callable[[], None]) -> LiveBytes:
    with _random.seeded(0, "memory"), LiveBytes() as live:
        work()
    return live


def _several(
    prepared: Prepared, configs: Sequence[RunConfig], capability: Capability, runs: int
) -> None:
    chosen = [configs[i % len(configs)] for i in range(runs)]
    stack = Stack(prepared, chosen, Job((0,)), capability, [None] * runs, runs, 0)
    stack.fill()
    stack.some(2)


def _one(prepared: Prepared, config: RunConfig, capability: Capability) -> None:
    run = Alone(prepared, config, Job((0,)), capability, None)
    run.record()
    for first, size in run.plan[:2]:
        run.update(first, size)
