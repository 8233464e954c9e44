"""A sweep: split into cells, run here or on workers, kept on disk, put back in order."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from batchlab import _platform, _random, _tree
from batchlab._memory import is_out_of_memory
from batchlab.config import RunConfig
from batchlab.engine.capability import TRIED_EXAMPLES, Capability, gradient, probe_capability
from batchlab.engine.cell import Results, Work, one_thread, run_cell, told
from batchlab.engine.checkpoint import NAME as CHECKPOINT
from batchlab.engine.checkpoint import SECONDS
from batchlab.engine.choice import (
    EXECUTORS,
    SLOTS,
    Choice,
    Choices,
    Effort,
    by_rule,
    choose,
    divided,
    effort_of,
    slots_of,
    slots_that_fit,
    timings,
    within_memory,
)
from batchlab.engine.job import Job, RunState, evaluation_grid, state_to_bytes, updates_of
from batchlab.engine.memory import Need, predict, small
from batchlab.engine.naming import hash_of, name_of
from batchlab.engine.step import DTYPES, Progress, rule_of, start_of
from batchlab.engine.store import load_cell, save_cell
from batchlab.engine.trace import Trace
from batchlab.engine.workers import Crew, MemoryKill, Place, Workers, remove_orphans
from batchlab.errors import TaskError
from batchlab.tasks import Objective, Prepared, Task, load, prepare
from batchlab.tasks.source import Source, Stacked, files_of

LEAST_CHUNK, CHUNKS_WANTED, COMPILED_CELLS = 8, 16, 4
NAMED_EXAMPLES = 64
HASHED_BYTES = 2**28
NAMING = 2
"""How cells are named. Apart from the format of their files: a cell in a newer one is found."""
WORKER_BYTES = 400 * 2**20
"""Of a worker that has loaded torch and not yet trained."""
LOADED_BYTES = 128 * 2**20
"""Of these, what it loads when it first trains; generous."""

FEWER = (
    "Fewer runs at a time are planned from now on: give the command again, with --resume if it "
    "has one."
)


@dataclass(frozen=True)
class Cell:
    """Runs that share every static shape: the unit of execution and of resume.

    Attributes:
        name: Hash of everything its results depend on.
        choice: How it is trained, and why.
        runs: Which runs of the sweep.
        updates: Updates of all of them together, for progress.
        group: By what name the choice is kept.
    """

    name: str
    choice: Choice
    runs: tuple[int, ...]
    updates: int
    group: str


ACCUMULATES = "its batches are accumulated over micro-batches"


class Engine:
    """Trains sweeps of one task; owns the worker processes and the folder of finished cells.

    Args:
        prepared: The task.
        out: Result directory, or None to keep nothing.
        workers: Worker processes; one per core if left out, 0 for none (always on a GPU).
        executor: ``stacked`` or ``loop`` to force one.
        checkpoint_seconds: Between two checkpoints inside a cell.
        memory_limit: Bytes, or text such as ``"4GiB"``, for all workers together; what the machine
            has left if left out.
        on: Machines that train, instead of worker processes here.

    Raises:
        ResultError: If another process holds the result directory.

    Attributes:
        prepared: The task.
        on: Machines that train, or None.
        workers: Worker processes, or cells that train at a time elsewhere; 0 where everything runs
            in this one.
        reused: Cells that were read from disk instead of trained.
    """

    def __init__(
        self,
        prepared: Prepared,
        out: Path | None = None,
        workers: int | None = None,
        executor: str | None = None,
        checkpoint_seconds: float = SECONDS,
        memory_limit: int | str | None = None,
        on: Place | None = None,
    ) -> None:
        count = _platform.available_cores() if workers is None else workers
        here = count if prepared.device == "cpu" else 0
        self.prepared, self.on = prepared, on
        self.workers = here if on is None else on.slots(prepared.device)
        self.reused = 0
        self._said: list[str] = []
        self._folder = None if out is None else out / "cells"
        self._forced, self._checkpoint_seconds = executor, checkpoint_seconds
        self._out = out
        self._lock: _platform.DirectoryLock | None = None
        self._hold()
        self._crew: Crew = (
            Workers(prepared, max(1, self.workers)) if on is None else on.crew(prepared)
        )
        self._capabilities: dict[tuple[Any, ...], Capability] = {}
        self._choices = Choices(None if out is None else out / EXECUTORS)
        if out is not None and self._choices.damaged:
            self._tell_damaged(out / EXECUTORS, "how runs are trained is chosen anew")
        self._fitted: set[tuple[str, bool]] = set()
        self._memory_limit = memory_limit

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, and let others have the directory; the next :meth:`train` begins both
        anew.
        """
        self._crew.close()
        self._lock = None

    def _hold(self) -> None:
        """Nobody else writes to the directory until this is closed."""
        if self._out is not None and self._lock is None:
            self._lock = _platform.hold(self._out)
            remove_orphans()  # a killed sweep left its task in one

    def capability(self, config: RunConfig) -> Capability:
        """What the model can do under this rule and precision; tried once."""
        key = (config.rule, config.precision, config.clip_norm is None, config.gamma is None)
        if key not in self._capabilities:
            with one_thread(self.prepared.device), told(self.prepared.task.name):
                self._capabilities[key] = probe_capability(self.prepared, config)
        return self._capabilities[key]

    def plan(
        self,
        configs: Sequence[RunConfig],
        job: Job,
        starts: Sequence[RunState | None] | None = None,
    ) -> list[Cell]:
        """Split runs into cells: one run for the loop executor, like ones for the stacked one.

        The split depends on the runs and the model only, not on the number of workers, so that a
        sweep finds its finished cells on any machine.

        Args:
            configs: Resolved runs.
            job: What they do besides training.
            starts: Where each goes on from.

        Returns:
            The cells, longest first.
        """
        begins = _begins(configs, starts)
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, (config, start) in enumerate(zip(configs, begins, strict=True)):
            place = (0, 0) if start is None else (start.samples, start.updates)
            groups.setdefault((place, *_static(config)), []).append(i)
        unnamed = job.probe is None or self._folder is None
        probe = "" if unnamed else name_of(job.probe)
        cells = []
        for runs in groups.values():
            group, choice = self._choice([configs[i] for i in runs], begins[runs[0]], job)
            cells += [
                self._cell(group, choice, chunk, configs, job, begins, probe)
                for chunk in self._chunks(runs, choice)
            ]
        return sorted(cells, key=lambda cell: -cell.updates)

    def _choice(
        self, configs: Sequence[RunConfig], start: RunState | None, job: Job
    ) -> tuple[str, Choice]:
        """How like runs are trained, and by what name that is kept: as a sweep before has written
        down, else timed now.
        """
        first = configs[0]
        capability, largest = self.capability(first), first.largest_pass
        if first.accumulates:
            capability = replace(capability, stackable=False, reason=ACCUMULATES)
        rule = by_rule(capability, largest)
        if self._forced not in (None, rule.executor) and capability.stackable:
            rule = replace(rule, executor=self._forced, reason="asked for")
        begin = 0 if start is None else start.samples
        updates = len(configs) * first.reuse
        updates *= len(updates_of(first, self.prepared.examples, begin, job.until))
        forced = self._forced is not None
        slots = slots_of(self.prepared, len(configs), max(1, self.workers))
        many = max((s for s in SLOTS if s <= len(configs)), default=len(configs))
        effort = Effort.NONE if forced else effort_of(capability, largest, updates, slots)
        unclipped, alone = first.clip_norm is None, first.accumulates
        shape = first.rule, largest, first.precision, unclipped, first.reuse, alone
        wrapped = () if first.gamma is None else ("gamma",)
        asked = self.task_hash, *shape, many, str(effort), self._forced, *wrapped
        key = hashlib.sha256(repr(asked).encode()).hexdigest()[:16]
        known = self._choices.get(key)
        if known is not None and (key, job.keep_end) in self._fitted:
            return key, known
        made = known or rule
        if known is None and effort is not Effort.NONE:
            made = self._timed(configs, capability, slots, effort)
        fits = self._within_memory(made, configs, capability, job)
        self._fitted.add((key, job.keep_end))
        if fits != known:
            self._choices.keep(key, fits)
            if known is not None:
                self._said.append(
                    f"less memory is free than was planned with: {fits.reason.split('; ')[-1]}; "
                    "results are equal to the plan's within round-off"
                )
        return key, fits

    def _within_memory(
        self,
        choice: Choice,
        configs: Sequence[RunConfig],
        capability: Capability,
        job: Job,
    ) -> Choice:
        """The choice with as many runs and workers at a time as memory holds."""
        workers = max(1, self.workers)
        share = self._memory // (choice.workers or workers)
        if self._small(configs, choice.together(SLOTS[-1]), share):
            return choice
        cell = self._chunks(list(range(len(configs))), choice)[0]
        ends = len(cell) if job.keep_end else 0
        need = self._need(configs, capability, choice.executor, ends, choice.unit > 0)
        return choice if need is None else within_memory(choice, need, self._memory, workers)

    def _small(self, configs: Sequence[RunConfig], runs: int, limit: int) -> bool:
        """Whether so many runs at a time are far from a limit in bytes."""
        with one_thread(self.prepared.device), told(self.prepared.task.name):
            return small(self.prepared, runs, configs[0].largest_pass, limit)

    def _need(
        self,
        configs: Sequence[RunConfig],
        capability: Capability,
        executor: str,
        ends: int = 0,
        compiled: bool = False,
    ) -> Need | None:
        """What the runs hold; where even trying runs out of memory, each fills all of it."""
        try:
            with one_thread(self.prepared.device):
                return predict(self.prepared, configs, capability, executor, ends, compiled)
        except Exception as error:  # the user's own code; training says it with its run
            return Need(0, self._memory) if is_out_of_memory(error) else None

    def _bytes_of(self, configs: Sequence[RunConfig], choice: Choice) -> int:
        """What a cluster keeps free for a cell: a process with the task's data, and what its runs
        hold where that is much; 0 here, where no one asks.
        """
        if self.on is None:
            return 0
        runs = choice.together(len(configs))
        own = WORKER_BYTES + sum(leaf.nbytes for s in _sources(self.prepared) for leaf in _kept(s))
        if self._small(configs, runs, WORKER_BYTES):
            return own
        capability = self.capability(configs[0])
        need = self._need(configs, capability, choice.executor, compiled=choice.unit > 0)
        return own if need is None else own + need.of(runs)

    def _share(self, cells: int, at_once: int) -> int:
        """Bytes that each of so many cells may take here, where there could be fewer runs at a
        time; 0 where no limit is known, or it is not for this machine to set.
        """
        if self.on is not None or self.prepared.device != "cpu" or self._memory == sys.maxsize:
            return 0
        together = min(cells, at_once or cells, self.workers)
        return self._memory // max(1, together) + LOADED_BYTES

    @cached_property
    def _memory(self) -> int:
        """Bytes for the training of all workers together; without a limit where none is known."""
        given = self._memory_limit
        if self.on is not None and given is None:
            return self.on.memory(self.prepared.device) * self.workers or sys.maxsize
        if self.prepared.device.startswith("cuda"):
            free = torch.cuda.mem_get_info(self.prepared.device)[0]
            return free if given is None else min(free, _platform.parse_bytes(given))
        found = _platform.memory_limit(given).bytes
        data = sum(leaf.nbytes for s in _sources(self.prepared) for leaf in _kept(s))
        own = self.workers * (WORKER_BYTES + data)
        return max(1, found - own) if found else sys.maxsize

    def _timed(
        self,
        configs: Sequence[RunConfig],
        capability: Capability,
        slots: Sequence[int],
        effort: Effort,
    ) -> Choice:
        """The fastest way: timed by all workers at once, as they will train."""
        if not capability.stackable or len(configs) < 2:
            return Choice("loop", 0, 0, capability.reason or "a single run", {})
        room = self._room(configs, capability, slots)
        if not room:
            return Choice("loop", 0, 0, "memory holds no stack", {})
        asked = list(configs), capability, room, effort
        with told(self.prepared.task.name), one_thread(self.prepared.device):
            elsewhere = self.on is not None or self.workers >= 2
            found = (
                self._crew.everywhere(timings, *asked)
                if elsewhere
                else [timings(self.prepared, *asked)]
            )
        return replace(choose(found, capability, configs[0]), shared_by=max(1, self.workers))

    def _room(
        self, configs: Sequence[RunConfig], capability: Capability, slots: Sequence[int]
    ) -> list[int]:
        """Of these stack sizes those that a worker's memory holds while all of them, and as much
        again for the other ways, are timed; else the largest that it does, if any.
        """
        share = self._memory // max(1, self.workers)
        if self._small(configs, 2 * sum(slots), share):
            return list(slots)
        need = self._need(configs, capability, "stacked")
        if need is None:
            return list(slots)
        most = need.most(share) // 2
        held = zip(slots, itertools.accumulate(slots), strict=True)
        return [s for s, together in held if together <= most] or [most] * (most > 1)

    def _chunks(self, runs: list[int], choice: Choice) -> list[list[int]]:
        """One run for the loop executor. A stack: enough cells for many workers, of at least 8
        runs, each small enough for the cache; one that was timed, as many for each of those that
        timed it, fewer and longer ones where a program has to be compiled for each.
        """
        if choice.executor == "loop":
            return [[run] for run in runs]
        cells = COMPILED_CELLS if choice.unit else CHUNKS_WANTED
        size = min(self._chunk_size, max(LEAST_CHUNK, math.ceil(len(runs) / cells)))
        sizes = [size] * math.ceil(len(runs) / size)
        if choice.slots:
            _, sizes = divided(len(runs), choice.slots, max(1, choice.shared_by), cells)
        ends = itertools.accumulate(sizes)
        return [runs[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    @cached_property
    def _chunk_size(self) -> int:
        """Largest of 16, 64, 256 runs whose parameters, gradients and state fit half the cache."""
        return max(slots_that_fit(self.prepared), default=SLOTS[0])

    def _cell(
        self,
        group: str,
        choice: Choice,
        runs: list[int],
        configs: Sequence[RunConfig],
        job: Job,
        starts: Sequence[RunState | None],
        probe: str,
    ) -> Cell:
        digest = hashlib.sha256(json.dumps([NAMING, choice.executor, self._task_name]).encode())
        asked = job.evaluate_at, job.probe_at, job.keep_end, job.until, probe
        digest.update(repr(asked).encode())
        updates = 0
        for i in runs:
            start = starts[i]
            digest.update(configs[i].fingerprint().encode())
            state = b"" if start is None else state_to_bytes(start)
            digest.update(hashlib.sha256(state).digest())
            begin = 0 if start is None else start.samples
            updates += len(updates_of(configs[i], self.prepared.examples, begin, job.until))
        return Cell(digest.hexdigest()[:20], choice, tuple(runs), updates, group)

    @property
    def task_hash(self) -> str:
        """Short hash of what the task is: data, untrained model, loss and metric."""
        return hashlib.sha256(json.dumps(self._task_name).encode()).hexdigest()[:16]

    @cached_property
    def _task_name(self) -> list[Any]:
        """What tells one task from another: data, model, loss and metric by what they give, not by
        their names, and its groups of parameters. Of data over 256 MiB, 64 examples stand for the
        rest.
        """
        prepared = self.prepared
        objective = prepared.objective(0).eval()
        start = hash_of(objective.state_dict().values())
        batch, few = (
            _tree.to(_some(prepared.train, count), prepared.device, torch.float32)
            for count in (NAMED_EXAMPLES, TRIED_EXAMPLES)
        )
        with torch.no_grad(), _random.seeded(0, "name"):
            losses, weights = objective(batch)
        loss = f"{float((losses * weights).sum() / weights.sum()):.4g}"
        sources = [(s.examples, hash_of(_whole(s))) for s in _sources(prepared)]
        origin = prepared.task.origin or prepared.task.name
        metric = [prepared.metric.name, _scored(prepared, objective, batch)]
        trained = _trained(objective, few)
        groups = sorted((n, astuple(s)) for n, s in prepared.task.groups.items())
        return [origin, sources, start, loss, metric, trained, prepared.device, *groups]

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
            The trace in the order of ``configs``, and the state at each run's end (None unless
            asked for, and for a run that has diverged).

        Raises:
            TaskError: If the user's code raises or ends a worker.
        """
        self._hold()
        begins = _begins(configs, starts)
        cells = self.plan(configs, job, starts)
        known = {cell.name: self._load(cell, configs, job) for cell in cells}
        left = [cell for cell in cells if known[cell.name] is None]
        self.reused += len(cells) - len(left)
        first = {cell.group: cell for cell in reversed(left)}.values()  # of each group the longest
        memory = {c.group: self._bytes_of([configs[i] for i in c.runs], c.choice) for c in first}
        meter = _Meter(cells, left, progress)
        named = {cell.name: cell for cell in left}
        at_once = min((cell.choice.workers for cell in left if cell.choice.workers), default=0)
        share = self._share(len(named), at_once)

        def work_of(cell: Cell) -> Work:
            choice = self._choice_now(cell)
            return Work(
                choice.executor,
                tuple(configs[i] for i in cell.runs),
                job,
                self.capability(configs[cell.runs[0]]),
                tuple(begins[i] for i in cell.runs),
                choice.together(len(cell.runs)),
                choice.unit,
                None if self._folder is None else self._folder / cell.name,
                self._checkpoint_seconds,
                memory[cell.group],
                share,
            )

        for name, results in self._run(_Works(named, work_of), meter.partly, at_once):
            if self._folder is not None:
                save_cell(self._folder / name, results)
                if any(self._folder.glob(f"{name}/*{_platform.DAMAGED}*")):
                    self._tell_damaged(self._folder / name / CHECKPOINT, "its runs began anew")
            self._note_memory(named[name], results)
            known[name] = results
            meter.finish(name)
        found = {
            i: r for cell in cells for i, r in zip(cell.runs, known[cell.name] or (), strict=True)
        }
        ordered = [found[i] for i in range(len(configs))]
        return Trace(tuple(result for result, _ in ordered)), [state for _, state in ordered]

    def _tell_damaged(self, path: Path, so: str) -> None:
        kept = _platform.kept_as(path).name
        self._said.append(f"`{path}` was damaged: it is kept as `{kept}`, and {so}")

    def _choice_now(self, cell: Cell) -> Choice:
        """How a cell is trained, by what the cells before it have met."""
        return self._choices.get(cell.group) or cell.choice

    def _note_memory(self, cell: Cell, results: Results) -> None:
        """Write down that memory ran out, so that no cell that begins later meets it."""
        choice = self._choice_now(cell)
        planned = choice.together(len(cell.runs))
        went_on = min(result.together for result, _ in results)
        if went_on < planned:
            self._choices.keep(cell.group, choice.halved(went_on))
            self._said.append(
                f"memory ran out with {planned} runs at a time: {went_on} at a time went on, and "
                "their results are equal to the plan's within round-off"
            )

    def _note_kill(self, cells: Iterable[Cell]) -> bool:
        """Write down half as many runs at a time for those that were stacked when the system ended
        their process for lack of memory; whether there were any.
        """
        together: dict[str, int] = {}
        for cell in cells:
            runs = self._choice_now(cell).together(len(cell.runs))
            together[cell.group] = max(runs, together.get(cell.group, 0))
        halved = {group: runs // 2 for group, runs in together.items() if runs > 1}
        for group, most in halved.items():
            choice = self._choices.get(group)
            assert choice is not None
            self._choices.keep(group, choice.halved(most))
        return bool(halved)

    def keeps(
        self,
        configs: Sequence[RunConfig],
        job: Job,
        starts: Sequence[RunState | None] | None = None,
    ) -> bool:
        """Whether every run lies finished on disk, so that training it would only read it.

        Args:
            configs: Resolved runs.
            job: What they do besides training.
            starts: Where each goes on from.
        """
        names = [cell.name for cell in self.plan(configs, job, starts)]
        folder = self._folder
        return folder is not None and all((folder / n / "done.json").is_file() for n in names)

    def hear(self) -> list[str]:
        """What had to be done otherwise than planned since this was asked last."""
        said, self._said = [*self._said, *self._crew.hear()], []
        return said

    def _load(self, cell: Cell, configs: Sequence[RunConfig], job: Job) -> Results | None:
        """What an earlier sweep has left of this cell."""
        if self._folder is None:
            return None
        like: Progress | None = None
        if job.keep_end:
            first = configs[cell.runs[0]]
            objective = self.prepared.objective(first.seed, DTYPES[first.precision], first.gamma)
            like = start_of(objective, rule_of(first, self.prepared.task))
        folder = self._folder / cell.name
        there, found = folder.exists(), load_cell(folder, like)
        if there and not folder.exists():
            self._tell_damaged(folder, "its runs are trained again")
        return found

    def _run(
        self, works: _Works, partly: Callable[[str, float], None], at_once: int
    ) -> Iterator[tuple[str, Results]]:
        """Run cells here or on workers, and hand them back as they finish."""
        if self.on is not None or (self.workers >= 2 and len(works) >= 2):
            try:
                yield from self._crew.run(works, partly, at_once)
            except MemoryKill as error:
                if self._note_kill(works.cells[name] for name in error.cells):
                    raise TaskError(f"{error} {FEWER}") from error
                raise
            return
        for name in works:
            yield name, run_cell(self.prepared, works[name], lambda s, n=name: partly(n, s))


class _Works(Mapping[str, Work]):
    """Works by the names of their cells, each made when it is asked for."""

    def __init__(self, cells: Mapping[str, Cell], make: Callable[[Cell], Work]) -> None:
        self.cells, self._make = cells, make

    def __getitem__(self, name: str) -> Work:
        return self._make(self.cells[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


def train(
    task: Prepared | Task | str,
    configs: RunConfig | Sequence[RunConfig],
    job: Job | None = None,
    *,
    out: Path | None = None,
    workers: int | None = None,
    executor: str | None = None,
    progress: Callable[[float], None] | None = None,
) -> Trace:
    """Train a sweep and end the workers.

    Args:
        task: A task, its name, or one that is prepared.
        configs: Runs, or one; what they leave open is filled in.
        job: When to evaluate and probe; left out, so often that a curve can be drawn, up to the
            end of the longest.
        out: Result directory, or None.
        workers: Worker processes.
        executor: ``stacked`` or ``loop`` to force one.
        progress: Told the share that is done.

    Returns:
        The trace.
    """
    loaded = load(task) if isinstance(task, str) else task
    prepared = prepare(loaded) if isinstance(loaded, Task) else loaded
    given = [configs] if isinstance(configs, RunConfig) else configs
    runs = [config.resolved(prepared.examples) for config in given]
    if job is None:
        longest = max((run.samples for run in runs if isinstance(run.samples, int)), default=1)
        job = Job(evaluation_grid(prepared.examples, longest))
    with Engine(prepared, out, workers, executor) as engine:
        return engine.train(runs, job, progress=progress)[0]


def _begins(
    configs: Sequence[RunConfig], starts: Sequence[RunState | None] | None
) -> Sequence[RunState | None]:
    return [None] * len(configs) if starts is None else starts


def _static(config: RunConfig) -> tuple[Any, ...]:
    """What the runs of a cell have in common."""
    return (
        config.rule,
        str(config.batch_size),
        config.samples,
        config.lr_schedule,
        config.rate_growth,
        config.warmup,
        config.clip_norm,
        config.precision,
        config.reuse,
        config.micro_batch_size,
        config.gamma is None,
    )


def _sources(prepared: Prepared) -> tuple[Source, Source]:
    return prepared.train, prepared.validation


def _kept(source: Source) -> list[torch.Tensor]:
    """The tensors in which a source is kept, as far as it is."""
    return _tree.leaves(source.tree) if isinstance(source, Stacked) else []


def _some(source: Source, most: int = NAMED_EXAMPLES) -> Any:
    """Some examples from the whole of a source; of files, which have a name, the first."""
    count = min(most, source.examples)
    last = source.examples if files_of(source) is None else count
    index = torch.linspace(0, last - 1, count).long()
    with _random.seeded(0, "name"):
        return source.batch(index)


def _whole(source: Source) -> list[torch.Tensor]:
    """All examples where they lie in memory and are few enough to be hashed, else some; of files
    their names, sizes and times.
    """
    if isinstance(source, Stacked):
        leaves = _tree.leaves(source.tree)
        if sum(leaf.numel() * leaf.element_size() for leaf in leaves) <= HASHED_BYTES:
            return leaves
    if (name := files_of(source)) is not None:
        return [torch.tensor(list(name.encode()))]
    return _tree.leaves(_some(source))


def _trained(objective: Objective, batch: Any) -> list[str]:
    """What training on some examples gives: the gradient and the buffers after it, as norms to
    four digits. It tells a rate of dropout, a momentum of batch norm, a frozen layer.
    """
    with _random.seeded(0, "name"):
        found = gradient(lambda: objective.train()(batch), dict(objective.named_parameters()))
    after = [found, *objective.eval().buffers()]
    return [f"{float(t.detach().cpu().to(torch.complex128).norm()):.4g}" for t in after]


def _scored(prepared: Prepared, objective: Objective, batch: Any) -> str:
    """The metric of the untrained model on some examples, to four digits."""
    if prepared.metric.function is None:
        return ""
    try:
        with torch.no_grad(), _random.seeded(0, "name"):
            return f"{float(prepared.metric.function(objective.outputs(batch), batch)):.4g}"
    except Exception as error:  # a user's metric may need more than a few examples
        return type(error).__name__


class _Meter:
    """Share of a sweep that is done, in updates."""

    def __init__(
        self, cells: list[Cell], left: list[Cell], progress: Callable[[float], None] | None
    ) -> None:
        self._total = max(1, sum({cell.name: cell.updates for cell in cells}.values()))
        self._left = {cell.name: float(cell.updates) for cell in left}
        self._weights = dict(self._left)
        self._progress = progress

    def partly(self, name: str, share: float) -> None:
        """A cell has come this far."""
        self._left[name] = (1.0 - share) * self._weights[name]
        if self._progress is not None:
            self._progress(1.0 - sum(self._left.values()) / self._total)

    def finish(self, name: str) -> None:
        """A cell is done."""
        self.partly(name, 1.0)
