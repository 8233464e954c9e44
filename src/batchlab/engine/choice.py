"""How the runs of a cell are trained: timed while planning, then written down."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from batchlab import _platform, _random, schedules
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability
from batchlab.engine.compiled import why_not_compiled
from batchlab.engine.job import Job
from batchlab.engine.loop import Alone
from batchlab.engine.memory import Need
from batchlab.engine.stacked import Stack
from batchlab.errors import cannot_read
from batchlab.tasks import Prepared
from batchlab.types import from_plain, to_plain

TIMED_SECONDS, COMPILED_SECONDS = 20.0, 120.0
"""Runs expected to take less processor time are not worth timing, resp. compiling."""
EXECUTORS = "executors.json"
"""Where a result directory keeps its choices."""
TURNS, TURN_SECONDS = 5, 0.03
CALL_SECONDS, FLOP_PER_SECOND = 3e-4, 2e10
SLOTS = (16, 64, 256)
CACHE_BYTES = 32 * 2**20  # last-level cache, of which a stack may fill half
UNROLLED_FLOP = 1e6
UNROLLED = 16
"""Batches in one compiled program where a single one is over before it has begun."""


@dataclass(frozen=True)
class Choice:
    """How the runs of a group are trained.

    Attributes:
        executor: ``stacked`` or ``loop``.
        slots: Runs that train at a time in a stack; 0: all of a cell.
        unit: Batches in one compiled program; 0: nothing is compiled.
        reason: Why, in words.
        timings: Way → seconds of one update of one run, on one thread; empty if not timed.
        most: Runs that the memory of one worker holds at a time; 0: it did not matter.
        workers: Workers that the memory holds at a time; 0: all.
    """

    executor: str
    slots: int
    unit: int
    reason: str
    timings: dict[str, float]
    most: int = 0
    workers: int = 0

    def together(self, runs: int) -> int:
        """Of the runs of a cell, how many train at a time.

        Example:
            >>> Choice("stacked", 16, 0, "", {}, most=10).together(40)
            10
        """
        if self.executor == "loop":
            return 1
        return min([runs, *(limit for limit in (self.slots, self.most) if limit)])

    def halved(self, most: int) -> Choice:
        """The choice after memory ran out and fewer runs went on."""
        said = f"{self.reason}; memory ran out: {most} at a time"
        return replace(self, most=most, reason=said)


def within_memory(choice: Choice, need: Need, limit: int, workers: int) -> Choice:
    """A choice that stays within the memory: fewer runs at a time, else fewer workers.

    Args:
        choice: The fastest way.
        need: Bytes it is going to hold.
        limit: Bytes for all workers together.
        workers: Worker processes, at least 1.

    Example:
        >>> choice = Choice("stacked", 16, 0, "fast", {})
        >>> kept = within_memory(choice, Need(0, 2**20), 2**24, workers=2)
        >>> kept.most, kept.workers, kept.reason
        (8, 0, 'fast; 8 at a time: a run holds 1.0 MiB, a worker may use 8.0 MiB')
    """
    share = limit // workers
    runs = 1 if choice.executor == "loop" else choice.slots or SLOTS[-1]
    if need.of(runs) <= share:
        return choice
    holds = f"a run holds {_platform.format_bytes(need.of(1))}"
    most = need.most(share)
    if most >= 1:
        said = f"{most} at a time: {holds}, a worker may use {_platform.format_bytes(share)}"
        return replace(choice, most=most, reason=f"{choice.reason}; {said}")
    beside = max(1, limit // need.of(1))
    said = f"{beside} of {workers} workers: {holds} of {_platform.format_bytes(limit)}"
    return replace(choice, most=1, workers=beside, reason=f"{choice.reason}; {said}")


class Choices:
    """What was chosen before, in a file of the result directory; resume times nothing again.

    Args:
        path: The file, or None to remember it in this process only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Choice] = {}
        if path is not None and path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
                self._known = {key: from_plain(Choice, value) for key, value in found.items()}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise cannot_read(path, str(error).splitlines()[0]) from error

    def get(self, key: str) -> Choice | None:
        """The choice for a group of runs, if it was made."""
        return self._known.get(key)

    def all(self) -> list[Choice]:
        """Every choice that was made, in its order."""
        return list(self._known.values())

    def keep(self, key: str, choice: Choice) -> None:
        """Write a choice down before it is used."""
        self._known[key] = choice
        if self._path is not None:
            text = json.dumps({k: to_plain(v) for k, v in self._known.items()}, indent=1)
            _platform.write_whole(self._path, text)


def by_rule(capability: Capability, batch_size: int) -> Choice:
    """Without timing: no convolution and few operations are stacked.

    Args:
        capability: What the model needs.
        batch_size: The largest.
    """
    executor, reason = capability.executor(batch_size)
    return Choice(executor, 0, 0, reason, {})


class Effort(StrEnum):
    """How much may be spent on finding the fastest way."""

    NONE = "none"
    TIMED = "timed"
    COMPILED = "compiled"


def effort_of(capability: Capability, batch_size: int, updates: int) -> Effort:
    """What so many updates of single runs are worth, by a rough guess of the processor time they
    take.

    Args:
        capability: What the model needs.
        batch_size: The largest.
        updates: Of all runs together.

    Example:
        >>> small = Capability(True, "", False, False, False, 1e5)
        >>> [str(effort_of(small, 32, n)) for n in (1_000, 100_000, 1_000_000)]
        ['none', 'timed', 'compiled']
    """
    flop = capability.flop_per_example * batch_size
    seconds = updates * (CALL_SECONDS + flop / FLOP_PER_SECOND)
    if seconds < TIMED_SECONDS:
        return Effort.NONE
    return Effort.TIMED if seconds < COMPILED_SECONDS else Effort.COMPILED


def timings(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    capability: Capability,
    slots: Sequence[int],
    effort: Effort,
) -> tuple[dict[str, float], str]:
    """Seconds of one update of one run by every way to train runs that share every static shape.

    Every candidate trains on the real shapes, on one thread, in turns. Nothing is kept of it.

    Args:
        prepared: The task.
        configs: The runs.
        capability: What the model needs.
        slots: Stack sizes to try, ascending.
        effort: Whether compiling is tried.

    Returns:
        (way → median seconds, why nothing was compiled; empty if it was).
    """
    ways = {"loop": _loop(prepared, configs[0], capability)}
    ways |= {f"stacked {s}": _stack(prepared, configs, capability, s, 0) for s in slots}
    found = _race(ways)
    missing = "it would not pay back"
    if effort is Effort.COMPILED:
        missing = why_not_compiled(prepared.device)
    if not missing:
        unit = unit_of(capability, _largest(configs[0]))
        try:
            # One run at a time stays in the nearest cache, many spread the cost of a call.
            stacks = {s: _stack(prepared, configs, capability, s, unit) for s in (1, slots[-1])}
            found |= _race({f"compiled {s}": stack for s, stack in stacks.items()})
        except Exception as error:  # a compiler may fail on any model; the other ways remain
            missing = f"compiling failed ({type(error).__name__})"
    return found, missing


def choose(
    found: Sequence[tuple[dict[str, float], str]], capability: Capability, config: RunConfig
) -> Choice:
    """The fastest way, by what processes that timed at the same time have found.

    Args:
        found: What :func:`timings` gave in each process: alone, a way that needs much memory would
            look faster than it is beside its like.
        capability: What the model needs.
        config: One of the runs.

    Returns:
        The choice with its reason and the means of the timings.
    """
    names = [name for name in found[0][0] if all(name in timed for timed, _ in found)]
    timed = {name: statistics.fmean(one[name] for one, _ in found) for name in names}
    missing = next((why for _, why in found if why), "")
    best = min(timed, key=lambda name: timed[name])
    kind, _, many = best.partition(" ")
    told = ", ".join(f"{name} {1e6 * seconds:.3g} µs" for name, seconds in timed.items())
    reason = f"fastest of {told}" + (f"; not compiled: {missing}" if missing else "")
    unit = unit_of(capability, _largest(config)) if kind == "compiled" else 0
    executor = "loop" if kind == "loop" else "stacked"
    return Choice(executor, int(many or 0), unit, reason, timed)


def _largest(config: RunConfig) -> int:
    return max(schedules.batch_schedule(config.batch_size or 1).sizes)


def slots_of(prepared: Prepared, runs: int) -> list[int]:
    """Stack sizes worth trying: 16, 64, 256, as far as there are runs and parameters, gradients
    and state fill at most half the last-level cache; always one.
    """
    enough = [s for s in slots_that_fit(prepared) if s <= runs]
    return enough or [min(runs, SLOTS[0])]


def slots_that_fit(prepared: Prepared) -> list[int]:
    """Of 16, 64, 256 those with which parameters, gradients and state fill at most half the
    last-level cache.
    """
    module = prepared.objective(0)
    need = 4 * sum(p.numel() * p.element_size() for p in module.parameters())
    return [s for s in SLOTS if s * need <= CACHE_BYTES / 2]


def unit_of(capability: Capability, batch_size: int) -> int:
    """Batches that one compiled program trains."""
    return UNROLLED if capability.flop_per_example * batch_size < UNROLLED_FLOP else 1


def _loop(
    prepared: Prepared, config: RunConfig, capability: Capability
) -> Callable[[], tuple[float, int]]:
    """Trains one more batch: seconds, updates of single runs."""
    run = Alone(prepared, config, Job(()), capability, None)

    def go() -> tuple[float, int]:
        if run.done >= len(run.plan):
            run.done = 0
        began = time.perf_counter()
        run.update(*run.plan[run.done])
        return time.perf_counter() - began, config.reuse

    return go


def _stack(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    capability: Capability,
    slots: int,
    unit: int,
) -> Callable[[], tuple[float, int]]:
    """Trains a few more batches of a stack: seconds, updates of single runs."""
    runs = [configs[i % len(configs)] for i in range(slots)]
    stack = Stack(prepared, runs, Job(()), capability, [None] * slots, slots, unit)
    stack.fill()
    batches = max(1, unit) * (1 if unit > 1 else 2)

    def go() -> tuple[float, int]:
        began = time.perf_counter()
        trained = stack.some(batches)
        return time.perf_counter() - began, trained * slots * runs[0].reuse

    return go


def _race(ways: dict[str, Callable[[], tuple[float, int]]]) -> dict[str, float]:
    """Median seconds of one update of one run, the candidates in turns long enough that each has
    the cache to itself. Before, every one warms up, and compiles.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    with _random.seeded(0, "choice"):
        for go in ways.values():
            go()
        for _ in range(TURNS):
            for name, go in ways.items():
                go()
                spent, done = 0.0, 0
                while spent < TURN_SECONDS:
                    seconds, updates = go()
                    spent, done = spent + seconds, done + updates
                times[name].append(spent / done)
    return {name: statistics.median(found) for name, found in times.items()}
