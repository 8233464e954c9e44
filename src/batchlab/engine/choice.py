"""How the runs of a cell are trained: timed while planning, then written down."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from statistics import geometric_mean

import numpy as np

from batchlab import _platform, _random
from batchlab._memory import is_out_of_memory
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability
from batchlab.engine.compiled import why_not_compiled
from batchlab.engine.job import Job
from batchlab.engine.loop import Alone
from batchlab.engine.memory import Need
from batchlab.engine.stacked import Stack
from batchlab.engine.store import digest
from batchlab.tasks import Prepared
from batchlab.types import from_plain, to_plain

TIMED_SECONDS, COMPILED_SECONDS = 20.0, 120.0
"""Runs expected to take less processor time are not worth timing, resp. compiling."""
EXECUTORS = "executors.json"
"""Where a result directory keeps its choices."""
TURNS, TURN_SECONDS = 5, 0.03
TRIED_CALLS, TRIED_SHARE = 1 + 4 * TURNS, 0.1
"""Calls of a way near the fastest, at least; share of a sweep's time that they may take."""
BATCHES = 2
"""That a stack trains in a call."""
NEAR = 1.5
"""Ways that took at most so many times what the fastest did are timed once more, by themselves."""
CALL_SECONDS, FLOP_PER_SECOND = 3e-4, 2e10
SLOTS = (16, 64, 256)
CACHE_BYTES = 32 * 2**20
"""Last-level cache of a CPU, of which a stack may fill half; the same on every machine, because
cells are named after their runs, and how runs are cut into cells depends on it."""
UNROLLED_FLOP = 1e6
UNROLLED = 16
"""Batches in one compiled program where a single one is over before it has begun."""


Way = Callable[[], int]
"""Trains a little more, and says how many updates of single runs that were."""


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
        shared_by: Workers that timed it, and that have equal parts of the runs; 0: not timed.
    """

    executor: str
    slots: int
    unit: int
    reason: str
    timings: dict[str, float]
    most: int = 0
    workers: int = 0
    shared_by: int = 0

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
    share = limit // (choice.workers or workers)
    if need.of(choice.together(SLOTS[-1])) <= share:
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
        path: The file, or None to remember it in this process only. A damaged one is set aside.

    Attributes:
        damaged: Whether it was.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Choice] = {}
        self.damaged = False
        if path is not None and path.is_file():
            text = _platform.read_whole(path)
            try:
                found = json.loads(text)
                if found["sha256"] != digest(found["choices"]):
                    raise ValueError("it has changed")
                kept = found["choices"].items()
                self._known = {key: from_plain(Choice, value) for key, value in kept}
            except (ValueError, TypeError, KeyError, AttributeError):
                self.damaged = True
                _platform.set_aside(path)

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
            choices = {k: to_plain(v) for k, v in self._known.items()}
            whole = {"sha256": digest(choices), "choices": choices}
            _platform.write_whole(self._path, json.dumps(whole, indent=1))


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


def effort_of(
    capability: Capability, batch_size: int, updates: int, slots: Sequence[int] = ()
) -> Effort:
    """What so many updates of single runs are worth, by a rough guess of the processor time they
    take, and of what it takes to try.

    Args:
        capability: What the model needs.
        batch_size: The largest.
        updates: Of all runs together.
        slots: Stack sizes that would be tried.

    Example:
        >>> small = Capability(True, "", False, False, False, 1e5)
        >>> [str(effort_of(small, 32, n)) for n in (1_000, 100_000, 1_000_000)]
        ['none', 'timed', 'compiled']
    """
    each = capability.flop_per_example * batch_size / FLOP_PER_SECOND
    seconds = updates * (CALL_SECONDS + each)
    trying = each * TRIED_CALLS * (1 + BATCHES * sum(slots))
    if seconds < max(TIMED_SECONDS, trying / TRIED_SHARE):
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
        (way → seconds, why nothing was compiled; empty if it was).
    """
    stacked = partial(_stack, prepared, configs, capability)
    makers: dict[str, Callable[[], Way]] = {
        "loop": partial(_loop, prepared, configs[0], capability)
    }
    makers |= {f"stacked {s}": partial(stacked, s, 0) for s in slots}
    ways = _warmed(makers)
    missing = "it would not pay back"
    if effort is Effort.COMPILED:
        missing = why_not_compiled(prepared.device)
    if not missing and slots:
        unit = unit_of(capability, configs[0].largest_pass)
        # One run at a time stays in the nearest cache, many spread the cost of a call.
        makers = {f"compiled {s}": partial(stacked, s, unit) for s in (1, slots[-1])}
        try:
            ways |= _warmed(makers)
        except Exception as error:  # a compiler may fail on any model; the other ways remain
            missing = f"compiling failed ({type(error).__name__})"
    clock = time.process_time if prepared.device == "cpu" else time.perf_counter
    return _race(ways, clock), missing


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
        The choice with its reason and the geometric means of the timings, so that a process with a
        busy neighbour counts no more than the others.
    """
    names = [name for name in found[0][0] if all(name in timed for timed, _ in found)]
    timed = {name: geometric_mean(one[name] for one, _ in found) for name in names}
    missing = next((why for _, why in found if why), "")
    best = min(timed, key=lambda name: timed[name])
    kind, _, many = best.partition(" ")
    told = ", ".join(f"{name} {1e6 * seconds:.3g} µs" for name, seconds in timed.items())
    reason = f"fastest of {told}" + (f"; not compiled: {missing}" if missing else "")
    unit = unit_of(capability, config.largest_pass) if kind == "compiled" else 0
    executor = "loop" if kind == "loop" else "stacked"
    return Choice(executor, int(many or 0), unit, reason, timed)


def slots_of(prepared: Prepared, runs: int, workers: int = 1) -> list[int]:
    """Stack sizes worth trying, ascending: 16, 64, 256, on a CPU as far as parameters, gradients
    and state fill at most half the last-level cache, each cut so that every worker has as much to
    do; always one.
    """
    fit = slots_that_fit(prepared) or SLOTS[:1]
    return sorted({divided(runs, slots, workers, 1)[0] for slots in fit})


def divided(runs: int, slots: int, workers: int, cells: int) -> tuple[int, list[int]]:
    """Cut runs so that every worker trains as many stacks, of nearly the same size.

    Args:
        runs: Of the sweep.
        slots: Largest size of a stack.
        workers: That train at the same time, at least 1.
        cells: Wanted, for resume; no stack is made smaller for them.

    Returns:
        (runs of a stack, runs of each cell: one or more stacks, one after the other).

    Example:
        >>> divided(16, 16, workers=2, cells=16), divided(40, 16, workers=2, cells=16)
        ((8, [8, 8]), (10, [10, 10, 10, 10]))
        >>> divided(9, 1, workers=2, cells=4)
        (1, [3, 3, 2, 1])
    """
    rounds = math.ceil(runs / (workers * slots))
    stack = math.ceil(runs / (workers * rounds))
    parts = min(rounds, math.ceil(cells / workers))
    each = (stack * (rounds // parts + (i < rounds % parts)) for i in range(parts))
    ends = itertools.accumulate(size for size in each for _ in range(workers))
    places = [0, *(min(runs, end) for end in ends)]
    return stack, [b - a for a, b in itertools.pairwise(places) if b > a]


def slots_that_fit(prepared: Prepared) -> list[int]:
    """Of 16, 64, 256 those with which parameters, gradients and state fill at most half the
    last-level cache; on CUDA, where no cache holds them anyway, all: memory alone is the limit.
    """
    if prepared.device.startswith("cuda"):
        return list(SLOTS)
    module = prepared.objective(0)
    need = 4 * sum(p.numel() * p.element_size() for p in module.parameters())
    return [s for s in SLOTS if s * need <= CACHE_BYTES / 2]


def unit_of(capability: Capability, batch_size: int) -> int:
    """Batches that one compiled program trains."""
    return UNROLLED if capability.flop_per_example * batch_size < UNROLLED_FLOP else 1


def _loop(prepared: Prepared, config: RunConfig, capability: Capability) -> Way:
    """Trains one more batch."""
    run = Alone(prepared, config, Job(()), capability, None)

    def go() -> int:
        if run.done >= len(run.plan):
            run.done = 0
        run.update(*run.plan[run.done])
        return config.reuse

    return go


def _stack(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    capability: Capability,
    slots: int,
    unit: int,
) -> Way:
    """Trains a few more batches of a stack."""
    runs = [configs[i % len(configs)] for i in range(slots)]
    stack = Stack(prepared, runs, Job(()), capability, [None] * slots, slots, unit)
    stack.fill()
    batches = max(1, unit) * (1 if unit > 1 else BATCHES)

    return lambda: stack.some(batches) * slots * runs[0].reuse


def _warmed(makers: Mapping[str, Callable[[], Way]]) -> dict[str, Way]:
    """The ways after their first calls, in which they compile; a stack for which there is no
    memory is none.
    """
    ways: dict[str, Way] = {}
    with _random.seeded(0, "choice"):
        for name, make in makers.items():
            try:
                ways[name] = make()
                ways[name]()
            except Exception as error:  # by type or by text, depending on what allocates
                if name == "loop" or not is_out_of_memory(error):
                    raise
                ways.pop(name, None)
    return ways


def _race(ways: dict[str, Way], clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of one update of one run by each way; those near the fastest are timed twice as
    often.

    What else the machine does must not decide. Processor time leaves out the turns that others had
    on the core; and what slows a whole turn down, slows all ways of that turn alike, so that ways
    are compared within turns.

    Args:
        ways: Warmed up.
        clock: Seconds of this process.
    """
    with _random.seeded(0, "choice"):
        turns = [_turn(ways, clock) for _ in range(TURNS)]
        found = paired(turns)
        least = min(found.values())
        near = {name: go for name, go in ways.items() if found[name] <= NEAR * least}
        if len(near) > 1:
            turns = [{name: turn[name] for name in near} for turn in turns]
            found |= paired(turns + [_turn(near, clock) for _ in range(TURNS)])
    return found


def _turn(ways: dict[str, Way], clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of one update by each way, one after the other, each long enough that it has the
    cache to itself.
    """
    found = {}
    for name, go in ways.items():
        go()
        began, done = clock(), 0
        while (spent := clock() - began) < TURN_SECONDS or not done:
            done += go()
        found[name] = spent / done
    return found


def paired(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds of each way from turns that had different luck.

    log tᵢ = level of the turn + log of the way; the way's part is the median over turns of what
    stands out from the turn's mean.

    Args:
        turns: Way → seconds, of the same ways, at least one.

    Returns:
        Way → seconds, at the level of the median turn.

    Example:
        >>> quiet, busy = {"loop": 2.0, "stacked": 1.0}, {"loop": 6.0, "stacked": 3.0}
        >>> {name: round(s, 6) for name, s in paired([quiet, busy, quiet]).items()}
        {'loop': 2.0, 'stacked': 1.0}
    """
    names = list(turns[0])
    logs = np.log([[turn[name] for name in names] for turn in turns])
    levels = logs.mean(axis=1, keepdims=True)
    found = np.exp(np.median(logs - levels, axis=0) + np.median(levels))
    return dict(zip(names, found.tolist(), strict=True))
