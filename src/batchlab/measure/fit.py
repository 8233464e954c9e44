"""The largest micro-batch that fits in memory, found by running it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cloudpickle
import torch

from batchlab import _platform, schedules
from batchlab._finder import Failure, Found, Outcome, find_largest
from batchlab._memory import OUT_OF_MEMORY
from batchlab._meter import margin_bytes, unmeasured
from batchlab._platform import MemoryLimit, format_bytes
from batchlab._team import Team
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.measure import plain, throughput
from batchlab.measure._trial import Assignment, Trials
from batchlab.measure.throughput import Timing
from batchlab.tasks import Prepared
from batchlab.types import Estimate


@dataclass(frozen=True)
class Trial:
    """One micro-batch size that was tried on this machine.

    Attributes:
        batch_size: Examples of the micro-batch.
        fits: Whether it ran within limit − margin.
        bytes: Peak bytes, 0 if unknown.
        samples_per_second: Throughput of the plain loop, or None.
        seconds_per_update: Of one run alone, data loading included, or None.
        reason: Why it did not fit.
    """

    batch_size: int
    fits: bool
    bytes: int
    samples_per_second: Estimate | None = None
    seconds_per_update: Estimate | None = None
    reason: str = ""


@dataclass(frozen=True)
class FitResult:
    """The finder's answer.

    Attributes:
        largest: Largest micro-batch that ran, 0 if none did.
        bound_by: ``memory``, ``data set``, ``max_val``, ``crash``, ``time`` (with 0 as the
            largest: not even one size ran to the end) or ``nothing fits``.
        limit_bytes: Bytes allowed, 0 where unavailable.
        limit_source: Where the limit came from.
        margin_bytes: Bytes kept free.
        points: Every trial, ascending.
        knee: Smallest batch size with at least 1/1.2 of the best throughput, or None.
        loader_share: Share of an update spent reading data, or None.
        sentence: All of it in words.
    """

    largest: int
    bound_by: str
    limit_bytes: int
    limit_source: str
    margin_bytes: int
    points: tuple[Trial, ...]
    knee: int | None = None
    loader_share: float | None = None
    sentence: str = ""


def fit(
    prepared: Prepared,
    config: RunConfig | None = None,
    *,
    memory_limit: int | str | None = None,
    margin: int | str | None = None,
    max_size: int | None = None,
    start: int | None = None,
    threads: int | None = None,
    time_limit: float | None = None,
    patience: float | None = None,
    team: Team | None = None,
) -> FitResult:
    """Find the largest micro-batch that fits, for training and for evaluation.

    Every size runs in a child process: two micro-steps with the optimizer, in the run's precision,
    on the longest examples, then an evaluation batch. Sizes ascend in one child; a fresh one
    starts after a failure. Nothing is left behind in this process.

    Args:
        prepared: The task.
        config: A resolved run; the task's baseline if left out.
        memory_limit: Bytes or text such as ``"2GiB"`` on top of what the loaded task takes; the
            machine's, if that is less or none is given.
        margin: Bytes or text to keep free; a twentieth of the limit if left out.
        max_size: Largest size of interest; the training set if left out.
        start: First size tried; the run's batch size if left out.
        threads: Threads of torch in the child; as here if left out.
        time_limit: Seconds for the search once the task is loaded, or None.
        patience: Seconds that the first size may take where the search is given less;
            :data:`PATIENCE` if left out.
        team: Processes that train together, each of which calls this: every size runs in all of
            them at once, and fits if it fits in each. Processes on one machine share its memory.

    Returns:
        The largest size that ran, what bound it, and every trial.

    Raises:
        InvalidValueError: If a limit, margin or size is impossible.
        TaskError: If the task cannot be carried to another process.

    Assumes:
        Nothing else takes or gives back much memory meanwhile.
    """
    config, team = config or prepared.baseline, team or Team()
    cap = prepared.examples if max_size is None else min(max_size, prepared.examples)
    if cap < 1:
        raise InvalidValueError(must("max_size", "at least 1", max_size))
    first = min(start or min(_sizes(config)), cap)
    # The child, too, needs what only Linux has.
    if why := unavailable(prepared.device):
        return _unmeasured(prepared, config, first, why, team)
    task = _Carried(prepared, config, memory_limit, threads)
    extra = bucket_bytes(prepared, config) if team.size > 1 else 0
    with contextlib.closing(team.own(lambda: _Child(task, time_limit, extra, patience))) as child:
        limit = least(team.each(lambda: child.limit), _sharing(prepared, team))
        keep = margin_bytes(margin, limit)
        child.allowed = limit.bytes - keep if limit.bytes else None
        found = find_largest(
            lambda size: worst(team.each(lambda: child.trial(size))),
            max_size=cap,
            start=first,
            limit=limit.bytes or None,
            margin=keep,
        )
    return _result(found, limit, keep, cap, prepared)


def unavailable(device: str) -> str:
    """Why it cannot be measured what fits on a device, or an empty text.

    Args:
        device: Where it would train.
    """
    return _platform.memory_unavailable() or unmeasured(device)


def with_timings(
    result: FitResult, timings: Iterable[Timing], loader_share: float | None = None
) -> FitResult:
    """Join memory and throughput per batch size, and mark the knee.

    Args:
        result: What fits.
        timings: Timed batch sizes; one that was no trial becomes a point of unknown bytes.
        loader_share: Share of an update spent reading data, at the run's own batch size.

    Returns:
        The same answer with the throughput columns filled in.
    """
    timings = tuple(timings)
    points = {point.batch_size: point for point in result.points}
    for t in timings:
        point = points.get(t.batch_size, Trial(t.batch_size, True, 0))
        points[t.batch_size] = replace(
            point,
            samples_per_second=t.samples_per_second,
            seconds_per_update=t.seconds_per_update,
        )
    return replace(
        result,
        points=tuple(points[size] for size in sorted(points)),
        knee=throughput.knee(timings),
        loader_share=loader_share,
    )


class _Carried:
    """A task on its way into children."""

    def __init__(
        self,
        prepared: Prepared,
        config: RunConfig,
        memory_limit: int | str | None,
        threads: int | None,
    ) -> None:
        if memory_limit is not None:
            _platform.parse_bytes(memory_limit)
        assignment = Assignment(
            prepared.task.origin or prepared.task,
            config,
            prepared.device,
            memory_limit,
            threads or torch.get_num_threads(),
            os.getpid(),
        )
        try:
            self.content = cloudpickle.dumps(assignment)
        except Exception as error:  # a user's object may refuse in any way
            hint = "Give it as file.py:function."
            text = f"{type(error).__name__}: {error}"
            raise TaskError(must("task", "able to travel to a process", text, hint)) from error


class _Child:
    """A child process that tries sizes; replaced by a fresh one after a failure."""

    patience: float | None = None

    def __init__(
        self,
        task: _Carried,
        seconds: float | None,
        extra: int = 0,
        patience: float | None = None,
    ) -> None:
        self.task, self.extra, self.patience = task, extra, patience
        self.allowed: int | None = None
        self._start()
        # From here on: what a task imports may take longer than a search.
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self._tried = False

    def trial(self, size: int) -> Outcome:
        """Try a size in the running child, or in a fresh one."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return OVER
        if self._process is None:
            self._start()
        began, until = time.monotonic(), self._until()
        outcome = self._answer_to(size, until)
        assert isinstance(outcome, Outcome)
        if outcome is OVER and until is not None:
            outcome = replace(OVER, reason=f"it takes longer than {until - began:.2g} seconds")
        if outcome.bytes:
            outcome = replace(outcome, bytes=outcome.bytes + self.extra)
        exceeded = self.allowed is not None and (outcome.bytes or 0) > self.allowed
        if not outcome.fits or exceeded:
            self.close()
        return outcome

    def _until(self) -> float | None:
        """When an answer comes too late. The first one is waited for: without it nothing is known,
        and on a busy machine one step can take longer than a short search.
        """
        first, self._tried = not self._tried, True
        if self.deadline is None or not first:
            return self.deadline
        patience = PATIENCE if self.patience is None else self.patience
        return max(self.deadline, time.monotonic() + patience)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
            self._stderr.close()
            self._process = None

    def _start(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._stderr = tempfile.TemporaryFile()
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, "-P", "-m", "batchlab.measure._trial", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=self._stderr,
            env=os.environ | {"PYTHONPATH": paths},
        )
        theirs.close()
        answer = self._answer_to(self.task.content, None)
        if not isinstance(answer, MemoryLimit):
            self.close()
            said = answer if isinstance(answer, str) else f"its process ended: {answer.reason}"
            raise TaskError(f"The task cannot be loaded in a process of its own: {said}")
        self.limit = answer

    def _answer_to(
        self, message: bytes | int, deadline: float | None
    ) -> MemoryLimit | Outcome | str:
        """What the child says; its death and its silence are answers too."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            if isinstance(message, bytes):
                self._connection.send_bytes(message)
            else:
                self._connection.send(message)
            if not self._connection.poll(left):
                return OVER
            return self._connection.recv()
        except (EOFError, OSError):
            return self._death()

    def _death(self) -> Outcome:
        assert self._process is not None
        code = self._process.wait()
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace").strip()
        return obituary(code, text.splitlines()[-1] if text else "")


PATIENCE = 60.0
"""Seconds that the first size of a search may take, however little time there is, where the caller
does not say."""
OVER = Outcome(False, None, "the time was over", Failure.TIME)


def obituary(code: int, last_words: str) -> Outcome:
    """Why a process died, from its exit code and the last line of what it wrote.

    Args:
        code: As :class:`subprocess.Popen` gives it: minus the signal, if a signal ended it.
        last_words: Last line of its standard error.

    Returns:
        An outcome that does not fit: memory if the system killed it or it said so, else a crash.

    Example:
        >>> obituary(-9, "").failure, obituary(-11, "").reason
        (<Failure.MEMORY: 'memory'>, 'ended by SIGSEGV')
    """
    how = f"exit code {code}"
    if code < 0:
        how = f"ended by {signal.Signals(-code).name}"
    said = any(part in last_words.lower() for part in OUT_OF_MEMORY)
    killed = code < 0 and signal.Signals(-code).name == "SIGKILL"
    if killed:
        how += ", as the system does when memory runs out"
    kind = Failure.MEMORY if killed or said else Failure.CRASH
    return Outcome(False, None, f"{how}: {last_words}" if last_words else how, kind)


def bucket_bytes(prepared: Prepared, config: RunConfig) -> int:
    """Bytes that DistributedDataParallel holds to exchange gradients, beside the gradients."""
    model = prepared.objective(config.seed, plain.DTYPES[config.precision], config.gamma)
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _sharing(prepared: Prepared, team: Team) -> int:
    """Processes that share the memory in question."""
    return team.here.local_size if prepared.device == "cpu" else 1


def least(limits: Sequence[MemoryLimit], sharing: int) -> MemoryLimit:
    """The share of the smallest limit among processes that have the same memory; unknown (0) if
    one is.

    Example:
        >>> print(least([MemoryLimit(2**31, "free"), MemoryLimit(2**30, "free")], sharing=2))
        512.0 MiB (free, shared by 2 processes)
    """
    smallest = min(limits, key=lambda limit: limit.bytes)
    if sharing == 1 or not smallest.bytes:
        return smallest
    words = f"{smallest.source}, shared by {sharing} processes"
    return MemoryLimit(smallest.bytes // sharing, words)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """What a size comes to in all processes: it fits if it fits in each, and takes what it takes
    where it takes most.

    Example:
        >>> found = worst([Outcome(True, 8), Outcome(False, None, "no", Failure.MEMORY)])
        >>> found.fits, found.bytes, found.reason
        (False, 8, 'no (in process 1)')
    """
    known = [one.bytes for one in outcomes if one.bytes]
    most = max(known) if known else None
    failed = next(((i, one) for i, one in enumerate(outcomes) if not one.fits), None)
    if failed is None:
        return Outcome(True, most)
    rank, one = failed
    reason = f"{one.reason} (in process {rank})" if len(outcomes) > 1 else one.reason
    return Outcome(False, most, reason, one.failure)


def _unmeasured(
    prepared: Prepared, config: RunConfig, size: int, why: str, team: Team
) -> FitResult:
    """Where memory cannot be measured, one size runs, so that at least it is known to run."""
    outcome = worst(team.each(lambda: Trials(prepared, config)(size)))
    trial = Trial(size, outcome.fits, 0, reason=outcome.reason)
    word = "runs" if outcome.fits else f"does not run ({outcome.reason})"
    sentence = f"A micro-batch of {size:,} {word}; larger ones were not tried: {why}."
    bound = "max_val" if outcome.fits else "nothing fits"
    return FitResult(size if outcome.fits else 0, bound, 0, why, 0, (trial,), sentence=sentence)


def _sizes(config: RunConfig) -> tuple[int, ...]:
    return schedules.batch_schedule(config.batch_size or 1).sizes


def _result(
    found: Found, limit: MemoryLimit, keep: int, cap: int, prepared: Prepared
) -> FitResult:
    bound = found.bound_by
    if bound == "cap":
        bound = "data set" if cap == prepared.examples else "max_val"
    points = tuple(
        Trial(size, outcome.fits, outcome.bytes or 0, reason=outcome.reason)
        for size, outcome in sorted(found.trials.items())
    )
    result = FitResult(found.largest, bound, limit.bytes, limit.source, keep, points)
    return replace(result, sentence=sentence_of(result, prepared.task.unit))


def sentence_of(result: FitResult, unit: str = "examples") -> str:
    """What fits and what bound it, in words.

    Args:
        result: The finder's answer.
        unit: What an example is called, in the plural.

    Returns:
        One or two sentences.

    Example:
        >>> points = (Trial(8, True, 2**20), Trial(9, False, 0, reason="MemoryError: no"))
        >>> sentence_of(FitResult(8, "crash", 2**30, "--memory-limit", 0, points))
        'A micro-batch of 8 examples fits (1.0 MiB). 9 fails for another reason: MemoryError: no.'
    """
    taken = {point.batch_size: format_bytes(point.bytes) for point in result.points if point.bytes}
    fits = f"A micro-batch of {result.largest:,} {unit} fits ({taken.get(result.largest, '?')})."
    allowed = _allowed(result)
    beyond = [p for p in result.points if not p.fits and p.batch_size > result.largest]
    if result.bound_by == "time" and not result.largest:
        least = beyond[0]
        return (
            f"No micro-batch was tried to the end, not even one of {least.batch_size:,} {unit} "
            f"(two updates and an evaluation batch): {least.reason}. That says nothing of memory."
        )
    if result.bound_by == "nothing fits":
        return f"Nothing fits, not even {beyond[0].batch_size:,}: {beyond[0].reason}. {allowed}"
    if result.bound_by == "data set":
        return f"Everything fits: the whole training set, {result.largest:,} {unit} " + (
            f"({taken.get(result.largest, '?')}). {allowed}"
        )
    if result.bound_by == "max_val":
        return f"{fits} Larger ones were not asked for. {allowed}"
    if result.bound_by == "time":
        return f"{fits} The time was over before larger ones were tried. {allowed}"
    if result.bound_by == "crash":
        return f"{fits} {beyond[0].batch_size:,} fails for another reason: {beyond[0].reason}."
    return f"{fits} {beyond[0].batch_size:,} does not: {beyond[0].reason}. {allowed}"


def _allowed(result: FitResult) -> str:
    limit = MemoryLimit(result.limit_bytes, result.limit_source)
    return f"Limit: {limit}, of which {format_bytes(result.margin_bytes)} are kept free."
