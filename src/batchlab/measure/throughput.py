"""Seconds per update of one run alone, on the plain loop of :mod:`batchlab.measure.plain`.

Data loading is included, evaluation is not. Time is taken in blocks, so that whoever plans a
measurement can spread them over it and interleave candidates; their spread gives the interval.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from batchlab import _random, schedules, stats
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.measure import plain
from batchlab.tasks import Prepared
from batchlab.tasks.task import total_weight
from batchlab.types import Estimate

KNEE = 1.2
"""The knee is the smallest batch size with at least 1/1.2 of the best throughput."""
SLOW_SECONDS = 2.0
"""After updates of this length together the clock starts: what the first ones cost extra is little
beside it, and a run that takes longer than a budget must be known of within ten seconds."""
SOURCE = "plain loop, one run alone"
TOGETHER = "processes together"


@dataclass(frozen=True)
class Block:
    """Updates timed in one go.

    Attributes:
        batch_size: Examples per update.
        updates: Updates timed, warm-up left out.
        seconds: Wall time of these updates.
        loader_seconds: Part of it in which the next batch was read.
        end: Place in the stream of samples where the next block of this kind may start.
        world_size: Processes that trained together.
    """

    batch_size: int
    updates: int
    seconds: float
    loader_seconds: float
    end: int
    world_size: int = 1


@dataclass(frozen=True)
class Timing:
    """Seconds per update at one batch size.

    Attributes:
        batch_size: Examples per update.
        seconds_per_update: Geometric mean over blocks with its interval.
        log_var: Variance of the mean of the log seconds per update; NaN for one block.
        dof: Degrees of freedom behind it.
        loader_share: Share of the time in which data was read.
        updates: Updates timed in all.
    """

    batch_size: int
    seconds_per_update: Estimate
    log_var: float
    dof: float
    loader_share: float
    updates: int

    @property
    def samples_per_second(self) -> Estimate:
        """Examples per second, with the interval of the seconds per update turned around."""
        s = self.seconds_per_update
        value, low, high = (self.batch_size / x for x in (s.value, s.high, s.low))
        return Estimate(value, low, high, s.n, "examples/s", s.source, s.level)


def time_block(
    prepared: Prepared,
    config: RunConfig,
    seconds: float,
    *,
    batch_size: int | None = None,
    micro_batch_size: int | None = None,
    threads: int | None = None,
    start: int = 0,
    warmup_updates: int = 2,
    apart: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Block:
    """Train a fresh model for about ``seconds`` and time its updates. Leaves no trace.

    Args:
        prepared: The task.
        config: A resolved run.
        seconds: When to stop, above 0; at least one update is timed however long it takes.
        batch_size: Examples per update; the run's own if left out.
        micro_batch_size: Examples per forward pass; the whole batch if left out.
        threads: Threads of torch during the block; as they are if left out.
        start: Place in the stream of samples to read from, so that blocks read different data.
        warmup_updates: Updates before the clock starts, 0 or more; fewer where they are so slow
            that one is enough, and none where one takes several seconds.
        apart: Whether an accelerator finishes what is queued before and after each reading, so
            that neither's time counts for the other; else they overlap as in any loop.
        clock: Seconds that only rise.

    Returns:
        The block.

    Raises:
        InvalidValueError: If the batch size is not one number between 1 and the number of training
            examples, or another argument is impossible.
    """
    size = _batch_size(prepared, config, batch_size)
    micro = _check(seconds, start, warmup_updates, micro_batch_size, size)
    with _random.seeded(config.seed, "throughput", start), with_threads(threads):
        loop = _Loop(prepared, config, size, micro, start, apart)
        begin = now = clock()
        for _ in range(warmup_updates):
            if now - begin > SLOW_SECONDS:
                break
            loop.update(clock)
            loop.synchronize()
            now = clock()
        if not (loop.updates == config.reuse and now - begin > 2 * SLOW_SECONDS):
            loop.loader_seconds, loop.updates = 0.0, 0
            begin = now = clock()
        while loop.updates == 0 or now - begin < seconds:
            loop.update(clock)
            now = clock()
        loop.synchronize()
        return Block(size, loop.updates, clock() - begin, loop.loader_seconds, loop.seen)


def seconds_per_update(blocks: Iterable[Block]) -> Timing:
    """Join the blocks of one batch size.

    The geometric mean over blocks, with a Student t interval on logarithms: blocks far apart
    differ by what the machine did meanwhile, which is what the interval must cover.

    Args:
        blocks: At least one, all of one batch size and number of processes.

    Returns:
        The timing; its interval is NaN for a single block.

    Raises:
        InvalidValueError: If there is no block or they differ in batch size or processes.

    Assumes:
        Independent blocks: spread over the measurement, not one after the other.

    Example:
        >>> timing = seconds_per_update([Block(8, 10, 1.0, 0.2, 80), Block(8, 10, 4.0, 0.8, 160)])
        >>> timing.seconds_per_update.value, timing.loader_share, timing.dof
        (0.2, 0.2, 1)
    """
    blocks = list(blocks)
    sizes = {block.batch_size for block in blocks}
    if len(sizes) != 1:
        raise InvalidValueError(must("blocks", "blocks of one batch size", sorted(sizes)))
    worlds = {block.world_size for block in blocks}
    if len(worlds) != 1:
        constraint = "blocks of one number of processes"
        raise InvalidValueError(must("blocks", constraint, sorted(worlds)))
    source = SOURCE if worlds == {1} else TOGETHER
    each = np.array([block.seconds / block.updates for block in blocks])
    mean, logs = stats.log_mean(each), stats.mean_estimate(np.log(each))
    low, high = float(np.exp(logs.low)), float(np.exp(logs.high))
    estimate = Estimate(mean.value, low, high, len(blocks), "s/update", source, logs.level)
    share = sum(b.loader_seconds for b in blocks) / sum(b.seconds for b in blocks)
    updates = sum(b.updates for b in blocks)
    return Timing(sizes.pop(), estimate, mean.log_var, mean.dof, share, updates)


def curve(
    prepared: Prepared,
    config: RunConfig,
    sizes: Sequence[int],
    seconds: float,
    *,
    blocks: int = 3,
    largest_micro_batch: int | None = None,
    threads: int | None = None,
) -> tuple[Timing, ...]:
    """Seconds per update at several batch sizes, their blocks interleaved.

    Args:
        prepared: The task.
        config: A resolved run.
        sizes: Batch sizes, examples.
        seconds: Length of one block; the whole takes about ``blocks × len(sizes)`` times that.
        blocks: Blocks for each size, at least 1.
        largest_micro_batch: What fits in memory; larger batches are accumulated.
        threads: Threads of torch; as they are if left out.

    Returns:
        One timing for each size, in the order of ``sizes``.

    Raises:
        InvalidValueError: As :func:`time_block`.
    """
    timed: dict[int, list[Block]] = {size: [] for size in sizes}
    for _ in range(blocks):
        for size, found in timed.items():
            block = time_block(
                prepared,
                config,
                seconds,
                batch_size=size,
                micro_batch_size=largest_micro_batch,
                threads=threads,
                start=found[-1].end if found else 0,
            )
            found.append(block)
    return tuple(seconds_per_update(found) for found in timed.values())


def knee(timings: Iterable[Timing]) -> int | None:
    """The smallest batch size with at least 1/1.2 of the best throughput, None without timings.

    Example:
        >>> def at(size: int, seconds: float) -> Timing:
        ...     return seconds_per_update([Block(size, 1, seconds, 0.0, size)])
        >>> knee([at(8, 1.0), at(16, 1.0), at(32, 1.7), at(64, 3.3)])
        32
    """
    speeds = {t.batch_size: t.samples_per_second.value for t in timings}
    best = max(speeds.values(), default=0.0)
    return min((size for size, speed in speeds.items() if speed * KNEE >= best), default=None)


class _Loop:
    """A fresh model in training, with a clock around the reading of data."""

    def __init__(
        self,
        prepared: Prepared,
        config: RunConfig,
        size: int,
        micro: int,
        start: int,
        apart: bool = False,
    ) -> None:
        self.apart = apart
        self.source, self.config, self.size, self.micro = prepared.train, config, size, micro
        self.device = torch.device(prepared.device)
        dtype = plain.DTYPES[config.precision]
        self.model = prepared.objective(config.seed, dtype, config.gamma).train()
        self.optimizer = plain.make_optimizer(self.model, config)
        self.stream = prepared.stream(config.seed)
        self.weight_of = functools.partial(total_weight, prepared.task)
        self.rate = schedules.rate_schedule(config.lr_schedule, warmup=config.warmup)
        self.seen, self.updates, self.loader_seconds = start, 0, 0.0

    def update(self, clock: Callable[[], float]) -> None:
        """One batch, used as often as the run says."""
        if self.apart:
            self.synchronize()
        begin = clock()
        batch = plain.read(self.source, self.stream, self.seen, self.size, self.micro)
        if self.apart:
            self.synchronize()
        self.loader_seconds += clock() - begin
        assert isinstance(self.config.samples, int)
        multiplier = self.rate(self.seen % self.config.samples / self.config.samples)
        for _ in range(self.config.reuse):
            plain.update(
                self.model,
                self.optimizer,
                batch,
                self.weight_of,
                multiplier,
                self.config.clip_norm,
                self.config.precision,
            )
        self.updates += self.config.reuse
        self.seen += self.size

    def synchronize(self) -> None:
        """Wait for work that was only queued."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


@contextlib.contextmanager
def with_threads(count: int | None) -> Iterator[None]:
    """So many threads of torch for a while; None: as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batch_size(prepared: Prepared, config: RunConfig, batch_size: int | None) -> int:
    """The one batch size to time."""
    if batch_size is None:
        sizes = schedules.batch_schedule(config.batch_size or 0).sizes
        if len(set(sizes)) > 1:
            hint = "Time each size of a schedule."
            raise InvalidValueError(must("batch_size", "one number", config.batch_size, hint))
        batch_size = sizes[0]
    if not 1 <= batch_size <= prepared.examples:
        raise InvalidValueError(must("batch_size", f"from 1 to {prepared.examples}", batch_size))
    return batch_size


def _check(seconds: float, start: int, warmup: int, micro: int | None, size: int) -> int:
    if not seconds > 0:
        raise InvalidValueError(must("seconds", "above 0", seconds))
    for name, value in (("start", start), ("warmup_updates", warmup)):
        if value < 0:
            raise InvalidValueError(must(name, "0 or more", value))
    if micro is not None and micro < 1:
        raise InvalidValueError(must("micro_batch_size", "at least 1", micro))
    return min(micro or size, size)
