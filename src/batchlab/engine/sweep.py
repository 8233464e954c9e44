"""A sweep: split into cells, run on workers, kept on disk, put back in order."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import cloudpickle
import loky
import torch

from batchlab import _platform
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability, probe_capability
from batchlab.engine.job import Job, RunState, state_to_bytes, updates_of
from batchlab.engine.loop import train_alone
from batchlab.engine.stacked import train_stacked
from batchlab.engine.step import DTYPES, Progress, rule_of, start_of
from batchlab.engine.store import FORMAT, load_cell, save_cell
from batchlab.engine.trace import RunResult, Trace
from batchlab.schedules import batch_schedule
from batchlab.tasks import Prepared
from batchlab.tasks.loading import import_origin

CHUNKS = (256, 64, 16)
CACHE_BYTES = 32 * 2**20  # last-level cache, of which a stack may fill half
POLL_SECONDS = 0.25

Results = list[tuple[RunResult, RunState | None]]


@dataclass(frozen=True)
class Cell:
    """Runs that share every static shape: the unit of execution and of resume.

    Attributes:
        name: Hash of everything its results depend on.
        executor: ``stacked`` or ``loop``.
        reason: Why that one.
        runs: Which runs of the sweep.
        updates: Updates of all of them together, for progress.
    """

    name: str
    executor: str
    reason: str
    runs: tuple[int, ...]
    updates: int


class Engine:
    """Trains sweeps of one task; owns the worker processes and the folder of finished cells.

    Args:
        prepared: The task.
        out: Result directory, or None to keep nothing.
        workers: Worker processes; one per core if left out, 0 for none (always on a GPU).
        executor: ``stacked`` or ``loop`` to force one.
    """

    def __init__(
        self,
        prepared: Prepared,
        out: Path | None = None,
        workers: int | None = None,
        executor: str | None = None,
    ) -> None:
        self.prepared = prepared
        self._folder = None if out is None else out / "cells"
        self._workers = _platform.available_cores() if workers is None else workers
        if prepared.device != "cpu":
            self._workers = 0
        self._forced = executor
        self._pool: loky.ProcessPoolExecutor | None = None
        self._scratch: Path | None = None
        self._capabilities: dict[tuple[Any, ...], Capability] = {}
        self.reused = 0

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    @property
    def workers(self) -> int:
        """Worker processes; 0 where everything runs in this one."""
        return self._workers

    def capability(self, config: RunConfig) -> Capability:
        """What the model can do under this rule and precision; tried once."""
        key = (config.rule, config.precision, config.clip_norm is None)
        if key not in self._capabilities:
            with one_thread():
                self._capabilities[key] = probe_capability(self.prepared, config)
        return self._capabilities[key]

    def plan(
        self, configs: Sequence[RunConfig], job: Job, starts: Sequence[RunState | None] | None = None
    ) -> list[Cell]:
        """Split runs into cells: one run for the loop executor, a chunk of like ones for the stacked one.

        Args:
            configs: Resolved runs.
            job: What they do besides training.
            starts: Where each goes on from.

        Returns:
            The cells, longest first.
        """
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, config in enumerate(configs):
            executor, reason = self._executor(config)
            start = 0 if starts is None or starts[i] is None else starts[i].samples  # pyright: ignore
            alone = i if executor == "loop" else -1
            groups.setdefault((executor, reason, alone, start, *_static(config)), []).append(i)
        cells = [
            self._cell(key[0], key[1], chunk, configs, job, starts)
            for key, runs in groups.items()
            for chunk in self._chunks(runs)
        ]
        return sorted(cells, key=lambda cell: -cell.updates)

    def _executor(self, config: RunConfig) -> tuple[str, str]:
        capability = self.capability(config)
        assert config.batch_size is not None
        largest = max(batch_schedule(config.batch_size).sizes)
        chosen, reason = capability.executor(largest)
        if self._forced is None or self._forced == chosen:
            return chosen, reason
        if self._forced == "stacked" and not capability.stackable:
            return chosen, reason
        return self._forced, "asked for"

    def _chunks(self, runs: list[int]) -> list[list[int]]:
        """Shares of at most a chunk, and at least one per worker if there are enough."""
        each = math.ceil(len(runs) / max(1, self._workers))
        size = max(1, min(self._chunk_size(), max(each, 8)))
        return [runs[i : i + size] for i in range(0, len(runs), size)]

    @property
    def _parameter_bytes(self) -> int:
        module = self.prepared.objective(0)
        return sum(p.numel() * p.element_size() for p in module.parameters())

    def _chunk_size(self) -> int:
        """Largest of 16, 64 and 256 runs whose parameters, gradients and state fit half the cache."""
        need = 4 * self._parameter_bytes
        return next((c for c in CHUNKS if c * need <= CACHE_BYTES / 2), CHUNKS[-1])

    def _cell(
        self,
        executor: str,
        reason: str,
        runs: list[int],
        configs: Sequence[RunConfig],
        job: Job,
        starts: Sequence[RunState | None] | None,
    ) -> Cell:
        digest = hashlib.sha256(json.dumps([FORMAT, executor, self._task_name()]).encode())
        digest.update(repr((job.evaluate_at, job.probe_at, job.keep_end, job.until, _probe_name(job))).encode())
        updates = 0
        for i in runs:
            state = None if starts is None else starts[i]
            digest.update(configs[i].fingerprint().encode())
            digest.update(b"" if state is None else hashlib.sha256(state_to_bytes(state)).digest())
            start = state.samples if state else 0
            updates += len(updates_of(configs[i], self.prepared.examples, start, job.until))
        return Cell(digest.hexdigest()[:20], executor, reason, tuple(runs), updates)

    def _task_name(self) -> list[Any]:
        prepared = self.prepared
        origin = prepared.task.origin or prepared.task.name
        return [origin, prepared.examples, prepared.validation.examples, prepared.device]

    def train(
        self,
        configs: Sequence[RunConfig],
        job: Job,
        *,
        starts: Sequence[RunState | None] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> tuple[Trace, list[RunState | None]]:
        """Train every run; a cell that is finished on disk is read, not trained.

        Args:
            configs: Resolved runs.
            job: When to evaluate and probe, and whether the end states are wanted.
            starts: Where each run goes on from.
            progress: Told the share of the sweep that is done.

        Returns:
            The trace in the order of ``configs``, and the state at each run's end (None unless asked for).
        """
        cells = self.plan(configs, job, starts)
        found: dict[int, tuple[RunResult, RunState | None]] = {}
        left = []
        for cell in cells:
            known = None if self._folder is None else load_cell(self._folder / cell.name, self._like(configs, job))
            if known is None:
                left.append(cell)
            else:
                self.reused += 1
                found |= dict(zip(cell.runs, known, strict=True))
        meter = _Meter(cells, left, progress)
        for cell, results in self._run(left, configs, job, starts, meter):
            if self._folder is not None:
                save_cell(self._folder / cell.name, results)
            found |= dict(zip(cell.runs, results, strict=True))
        ordered = [found[i] for i in range(len(configs))]
        return Trace(tuple(result for result, _ in ordered)), [state for _, state in ordered]

    def _like(self, configs: Sequence[RunConfig], job: Job) -> Progress | None:
        if not job.keep_end:
            return None
        first = configs[0]
        return start_of(self.prepared.objective(first.seed, DTYPES[first.precision]), rule_of(first))

    def _run(
        self,
        cells: list[Cell],
        configs: Sequence[RunConfig],
        job: Job,
        starts: Sequence[RunState | None] | None,
        meter: _Meter,
    ) -> Iterator[tuple[Cell, Results]]:
        """Run cells here or on workers, and hand them back as they finish."""

        def work(cell: Cell) -> tuple[Any, ...]:
            mine = [None if starts is None else starts[i] for i in cell.runs]
            own = [configs[i] for i in cell.runs]
            return cell.executor, own, job, self.capability(own[0]), mine

        if self._workers < 2 or len(cells) < 2:
            for cell in cells:
                with one_thread() if self.prepared.device == "cpu" else _nothing():
                    results = run_cell(self.prepared, *work(cell), lambda s, c=cell: meter.partly(c.name, s))
                meter.finish(cell)
                yield cell, results
            return
        yield from self._run_on_workers(cells, work, meter)

    def _run_on_workers(
        self, cells: list[Cell], work: Callable[[Cell], tuple[Any, ...]], meter: _Meter
    ) -> Iterator[tuple[Cell, Results]]:
        pool, packed = self._start()
        files = {cell.name: packed.with_name(f"progress-{cell.name}") for cell in cells}
        waiting: dict[Future[Results], Cell] = {
            pool.submit(_work, str(packed), str(files[cell.name]), *work(cell)): cell for cell in cells
        }
        try:
            while waiting:
                done, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = waiting.pop(future)
                    meter.finish(cell)
                    yield cell, future.result()
                for cell in waiting.values():
                    meter.partly(cell.name, _read_share(files[cell.name]))
        except BaseException:
            self.close()
            raise

    def _start(self) -> tuple[loky.ProcessPoolExecutor, Path]:
        """The workers, and the file they read the task from."""
        if self._pool is None or self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="batchlab-"))
            payload = cloudpickle.dumps(self.prepared)
            (self._scratch / "task").write_bytes(cloudpickle.dumps((sys.path, self.prepared.task.origin, payload)))
            self._pool = loky.ProcessPoolExecutor(
                max_workers=self._workers, initializer=_begin_worker, initargs=(os.getpid(),)
            )
        return self._pool, self._scratch / "task"


def run_cell(
    prepared: Prepared,
    executor: str,
    configs: Sequence[RunConfig],
    job: Job,
    capability: Capability,
    starts: Sequence[RunState | None],
    tick: Callable[[float], None] | None = None,
) -> Results:
    """Train the runs of one cell in this process."""
    if executor == "stacked":
        return train_stacked(prepared, configs, job, capability, starts, tick)
    return [
        train_alone(prepared, config, job, capability, start, tick)
        for config, start in zip(configs, starts, strict=True)
    ]


def train(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    job: Job,
    *,
    out: Path | None = None,
    workers: int | None = None,
    executor: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Trace:
    """Train a sweep and end the workers.

    Args:
        prepared: The task.
        configs: Runs; open fields are filled in.
        job: When to evaluate and probe.
        out: Result directory, or None.
        workers: Worker processes.
        executor: ``stacked`` or ``loop`` to force one.
        progress: Told the share that is done.

    Returns:
        The trace.
    """
    runs = [config.resolved(prepared.examples) for config in configs]
    with Engine(prepared, out, workers, executor) as engine:
        return engine.train(runs, job, progress=progress)[0]


def _static(config: RunConfig) -> tuple[Any, ...]:
    """What the runs of a cell have in common."""
    return (
        config.rule, str(config.batch_size), config.samples, config.lr_schedule, config.warmup,
        config.clip_norm, config.precision, config.reuse,
    )


def _probe_name(job: Job) -> str:
    return "" if job.probe is None else getattr(job.probe, "name", type(job.probe).__name__)


class _Meter:
    """Share of a sweep that is done, in updates."""

    def __init__(
        self, cells: list[Cell], left: list[Cell], progress: Callable[[float], None] | None
    ) -> None:
        self._total = max(1, sum(cell.updates for cell in cells))
        self._weights = {cell.name: cell.updates for cell in left}
        self._done = self._total - sum(self._weights.values())
        self._parts: dict[str, float] = {}
        self._progress = progress

    def partly(self, name: str, share: float) -> None:
        """A cell has come this far."""
        self._parts[name] = share * self._weights.get(name, 0)
        self._tell()

    def finish(self, cell: Cell) -> None:
        """A cell is done."""
        self._parts.pop(cell.name, None)
        self._done += cell.updates
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(min(1.0, (self._done + sum(self._parts.values())) / self._total))


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread for a while: an eager loop of small operations never gains from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _begin_worker(parent: int) -> None:
    """One thread; Ctrl-C is the parent's business; gone when the parent is."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _platform.die_with_parent(parent)


@lru_cache(maxsize=1)
def _prepared(path: str) -> Prepared:
    """The task in a worker. The file was written by the parent, in its own scratch folder."""
    search_path, origin, payload = cloudpickle.loads(Path(path).read_bytes())
    sys.path[:] = search_path + [p for p in sys.path if p not in search_path]
    import_origin(origin)
    return cloudpickle.loads(payload)


def _work(path: str, progress_file: str, *work: Any) -> Results:
    """Run a cell in a worker; the share that is done goes through a small file."""
    last = time.monotonic()

    def tick(share: float) -> None:
        nonlocal last
        if time.monotonic() - last > POLL_SECONDS:
            last = time.monotonic()
            Path(progress_file).write_text(f"{share:.4f}")

    return run_cell(_prepared(path), *work, tick)


def _read_share(path: Path) -> float:
    try:
        return float(path.read_text() or 0)
    except (OSError, ValueError):
        return 0.0
