"""Seconds per update of one run whose batches are split over several processes.

Each takes an equal part of every batch, in the order of the stream, and gradients are averaged by
DistributedDataParallel: the update is that of one process on the whole batch, to round-off.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from batchlab import _random, schedules
from batchlab._team import Team
from batchlab.accumulation import identity
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.measure import plain
from batchlab.measure.throughput import (
    TOGETHER,
    Block,
    Timing,
    seconds_per_update,
    with_threads,
)
from batchlab.stats import Part, half_width
from batchlab.tasks import Prepared
from batchlab.tasks.task import total_weight
from batchlab.types import Estimate

LEVEL = 0.9
WARMUP = 2
"""Updates before the clock starts; the first says how many fill a block."""


class Division(NamedTuple):
    """How a batch comes about.

    Attributes:
        batch_size: Examples of an update, all processes together.
        world_size: Processes, each with an equal part.
        micro_batch_size: Examples of one forward pass, at most.
    """

    batch_size: int
    world_size: int
    micro_batch_size: int

    @property
    def share(self) -> int:
        """Examples of one process.

        Raises:
            InvalidValueError: If they cannot be equal.
        """
        if self.batch_size % self.world_size:
            hint = "Each process takes an equal part of every batch."
            constraint = f"a multiple of the {self.world_size} processes"
            raise InvalidValueError(must("batch_size", constraint, self.batch_size, hint))
        return self.batch_size // self.world_size

    def __str__(self) -> str:
        return identity(self.batch_size, self.micro_batch_size, self.world_size)


@dataclass(frozen=True)
class Gain:
    """Speed of one batch size on some processes.

    Attributes:
        batch_size: Examples of an update, all processes together.
        world_size: Processes.
        micro_batch_size: Examples of one forward pass, at most.
        timing: Seconds per update, with interval.
    """

    batch_size: int
    world_size: int
    micro_batch_size: int
    timing: Timing

    @property
    def per_second(self) -> float:
        """Examples per second, all processes together."""
        return self.timing.samples_per_second.value

    def __str__(self) -> str:
        return identity(self.batch_size, self.micro_batch_size, self.world_size)


def speedup(alone: Gain, more: Gain) -> Estimate:
    """How many times as many examples a second more processes go through.

    Args:
        alone: Of few processes.
        more: Of more.

    Returns:
        The ratio, with the interval of both timings together; blocks are independent.
    """
    ratio = more.per_second / alone.per_second
    parts = [Part(one.timing.log_var, one.timing.dof) for one in (alone, more)]
    wide = half_width(parts, LEVEL)
    blocks = min(one.timing.seconds_per_update.n for one in (alone, more))
    return Estimate(
        ratio, ratio * math.exp(-wide), ratio * math.exp(wide), blocks, "×", TOGETHER, LEVEL
    )


def worlds(size: int) -> tuple[int, ...]:
    """Numbers of processes worth a block: powers of two, and all of them.

    Example:
        >>> worlds(1), worlds(6)
        ((1,), (1, 2, 4, 6))
    """
    return tuple(sorted({2**k for k in range(size.bit_length())} | {size}))


def divisions(sizes: Sequence[int], size: int, largest: int) -> tuple[Division, ...]:
    """Batch sizes and numbers of processes that go together: those that divide each other.

    Args:
        sizes: Batch sizes, all processes together.
        size: Processes there are.
        largest: Largest micro-batch that fits.

    Example:
        >>> [str(one).split(" (")[0] for one in divisions([6], 2, largest=2)]
        ['6 = 2 × 3 × 1', '6 = 2 × 2 × 2 − 2']
    """
    return tuple(
        Division(batch, count, min(largest, batch // count))
        for batch in sizes
        for count in worlds(size)
        if batch % count == 0
    )


def widest(batch_size: int, size: int, largest: int) -> Division:
    """A batch on as many processes as can all have an equal part of it.

    Args:
        batch_size: Examples of an update, all processes together.
        size: Processes there are.
        largest: Largest micro-batch that fits.

    Example:
        >>> [widest(batch, 4, largest=8).world_size for batch in (32, 6, 9)]
        [4, 2, 1]
    """
    count = math.gcd(batch_size, size)
    return Division(batch_size, count, min(largest, batch_size // count))


class Share:
    """One process's part of a run that several train together.

    Args:
        prepared: The task.
        config: A resolved run of one batch size.
        division: How its batches are split.
        start: Place in the stream of samples to begin at.

    Attributes:
        objective: Model and loss.
        seen: Examples of the stream that all processes together have drawn.
        loader_seconds: Time in which data was read.
    """

    def __init__(
        self, prepared: Prepared, config: RunConfig, division: Division, start: int = 0
    ) -> None:
        self.prepared, self.config, self.division = prepared, config, division
        self.share, self.seen, self.loader_seconds = division.share, start, 0.0
        dtype = plain.DTYPES[config.precision]
        self.objective = prepared.objective(config.seed, dtype, config.gamma).train()
        self.optimizer = plain.make_optimizer(self.objective, config)
        self.stream = prepared.stream(config.seed)
        self.weight_of = functools.partial(total_weight, prepared.task)
        self.rate = schedules.rate_schedule(config.lr_schedule, warmup=config.warmup)
        self.wrapped: DistributedDataParallel | None = None

    def join(self, group: Any, rank: int) -> None:
        """Meet the other processes; all of them call this.

        Args:
            group: Of torch.distributed.
            rank: Which part is this one's.
        """
        self.rank, self.group = rank, group
        self.wrapped = DistributedDataParallel(self.objective, process_group=group)

    def rehearse(self) -> None:
        """One update without the others and without effect, so that what does not fit or does not
        run fails while nobody waits for it.
        """
        micro_batches = self._read()
        total = sum(self.weight_of(batch) for batch in micro_batches)
        # Past the wrapper, which would exchange buffers before the first forward pass.
        with self._silent():
            for batch in micro_batches:
                plain.accumulate(self.objective, batch, total, self.config.precision)
        self.objective.zero_grad()

    def update(self) -> None:
        """One update of all processes together."""
        began = time.perf_counter()
        micro_batches = self._read()
        self.loader_seconds += time.perf_counter() - began
        assert isinstance(self.config.samples, int)
        multiplier = self.rate(self.seen % self.config.samples / self.config.samples)
        for _ in range(self.config.reuse):
            self._step(micro_batches, multiplier)
        self.seen += self.division.batch_size

    def synchronize(self) -> None:
        """Wait for work that was only queued."""
        if self.prepared.device.startswith("cuda"):
            torch.cuda.synchronize(self.prepared.device)

    def _step(self, micro_batches: list[Any], multiplier: float) -> None:
        self.optimizer.zero_grad()
        # DistributedDataParallel gives the mean over processes, where the sum of shares is due.
        total = self._total(micro_batches) / self.division.world_size
        for batch in micro_batches:
            with contextlib.nullcontext() if batch is micro_batches[-1] else self._silent():
                plain.accumulate(self._model, batch, total, self.config.precision)
        plain.step(self.objective, self.optimizer, multiplier, self.config.clip_norm)

    def _total(self, micro_batches: list[Any]) -> Any:
        """Σw of the whole batch; without weights it is known without asking the others."""
        if self.prepared.task.weight is None:
            return float(self.division.batch_size)
        total = torch.as_tensor(sum(self.weight_of(batch) for batch in micro_batches))
        total = total.to(self.prepared.device, torch.float64)
        dist.all_reduce(total, group=self.group)
        return total.item()

    def _read(self) -> list[Any]:
        first = self.seen + self.rank * self.share
        micro = min(self.division.micro_batch_size, self.share)
        return plain.read(self.prepared.train, self.stream, first, self.share, micro)

    def _silent(self) -> contextlib.AbstractContextManager[Any]:
        assert self.wrapped is not None
        return self.wrapped.no_sync()

    @property
    def _model(self) -> Any:
        assert self.wrapped is not None
        return self.wrapped


def time_together(
    team: Team,
    config: RunConfig,
    division: Division,
    seconds: float,
    start: int = 0,
    threads: int | None = None,
    whole: bool = False,
) -> Block:
    """Train a fresh model on the first processes for about ``seconds`` and time its updates.

    All processes of the team call this; those that are not needed wait.

    Args:
        team: Holds each process's task.
        config: A resolved run.
        division: Batch size and number of processes.
        seconds: Length of the block, above 0.
        start: Place in the stream of samples to read from.
        threads: Threads of torch in each process; as they are if left out.
        whole: Whether the data are all of which the task holds a part.

    Returns:
        The block, the same in all: the time of the slowest.

    Raises:
        InvalidValueError: If the batch size is not a multiple of the processes.
        UserError: In all processes, if it failed in one.
    """
    prepared: Prepared = team.context
    if whole:
        assert prepared.drawn is not None
        prepared = prepared.drawn.whole
    takes_part = team.rank < division.world_size
    # Every process makes the group, also one that is not in it.
    group = team.group_of(division.world_size)
    with _random.seeded(config.seed, "throughput", start), with_threads(threads):
        part = team.own(lambda: Share(prepared, config, division, start) if takes_part else None)
        if part is not None:
            part.join(group, team.rank)
        team.own(lambda: part and part.rehearse())
        return _timed(team, part, seconds)


def _timed(team: Team, part: Share | None, seconds: float) -> Block:
    """As many updates as the first process says, between two meetings of all."""
    warm = team.each(lambda: _run(part, WARMUP))[0]
    count = max(1, round(seconds * WARMUP / max(warm[0], 1e-9)))
    found = team.each(lambda: _run(part, count))
    slowest = max(one[0] for one in found)
    size, world, updates, seen = team.each(lambda: _facts(part, count))[0]
    return Block(size, updates, slowest, max(one[1] for one in found), seen, world)


def _facts(part: Share | None, count: int) -> tuple[int, int, int, int]:
    """What the first process, which always takes part, knows of the block."""
    if part is None:
        return 0, 0, 0, 0
    division = part.division
    return division.batch_size, division.world_size, count * part.config.reuse, part.seen


def _run(part: Share | None, updates: int) -> tuple[float, float]:
    """Seconds of some updates, and those of them in which data was read."""
    if part is None:
        return 0.0, 0.0
    part.synchronize()
    part.loader_seconds, began = 0.0, time.perf_counter()
    for _ in range(updates):
        part.update()
    part.synchronize()
    return time.perf_counter() - began, part.loader_seconds


def gains(
    team: Team, config: RunConfig, wanted: Sequence[Division], seconds: float, blocks: int
) -> tuple[Gain, ...]:
    """Seconds per update of some divisions, their blocks interleaved; the first process asks.

    Args:
        team: Inside :meth:`Team.lead`.
        config: A resolved run.
        wanted: What to time.
        seconds: Length of one block.
        blocks: Blocks for each, at least 1.

    Returns:
        One for each, in their order.
    """
    timed: dict[Division, list[Block]] = {one: [] for one in wanted}
    for _ in range(blocks):
        for one, found in timed.items():
            start = found[-1].end if found else 0
            found.append(team.ask(time_together, config, one, seconds, start)[0])
    return tuple(Gain(*one, seconds_per_update(found)) for one, found in timed.items())
