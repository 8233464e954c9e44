"""The stacked executor: many runs of one shape, S of them at a time as one program."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree

from batchlab import _platform, _random, _tree
from batchlab._memory import if_it_fits
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability, stack
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.compiled import Block, Orders, Run, compile_block, make_block, programs_of
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.job import (
    BatchedProbe,
    Job,
    RunState,
    from_arrays,
    probe_of,
    stops,
    to_arrays,
    to_device,
    updates_of,
)
from batchlab.engine.loop import Tick, dropout_key, loaded, program_of, result_of
from batchlab.engine.step import DTYPES, Progress, numbers_of, rule_of, start_of
from batchlab.engine.trace import Recorder, RunResult
from batchlab.rules import Numbers
from batchlab.samplers import Stream
from batchlab.tasks import Objective, Prepared
from batchlab.tasks.source import Stacked
from batchlab.types import Params, Status

INDEX_BYTES = 16 * 2**20
LONGEST_LEG = 1024
LEG_FLOP = 2e10
"""A leg ends after so many batches, bytes of index or operations: about a second."""
EMPTY = -1

T = TypeVar("T")


class Parked(NamedTuple):
    """A run that gave up its row, as memory ran out or for runs that are behind it, and waits to
    go on.
    """

    done: int
    loss_sum: float
    loss_count: int
    progress: Progress


End = tuple[RunResult, RunState | None]


def train_stacked(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    job: Job,
    capability: Capability,
    starts: Sequence[RunState | None] | None = None,
    tick: Tick | None = None,
    *,
    slots: int | None = None,
    unit: int = 0,
    checkpoint: Checkpoint | None = None,
    ceiling: int | None = None,
) -> list[End]:
    """Train runs that share every static shape, together.

    Args:
        prepared: The task.
        configs: Resolved runs that differ only in numbers and seeds.
        job: When to evaluate and probe.
        capability: What the model needs.
        starts: Where each goes on from, all at the same samples and updates.
        tick: Told the share that is done.
        slots: Runs that train at a time, S; the others wait until a slot is free. All if left out.
            Halved whenever memory runs out.
        unit: Batches that one compiled program trains; 0: nothing is compiled.
        checkpoint: Where the state is kept meanwhile.
        ceiling: Bytes of private memory that the process may map, as long as there could be fewer
            runs at a time: one run may take what the system gives it.

    Returns:
        Per run the result, and the state at the end if it was asked for and the run has not
        diverged.
    """
    begins = list(starts or [None] * len(configs))
    most = slots or len(configs)
    runs = Stack(prepared, configs, job, capability, begins, most, unit, ceiling)
    keeper = checkpoint or Checkpoint(None)
    found = keeper.load()
    if found is None:
        runs.fill()
    else:
        runs.restore(*found)
    while runs.active:
        runs.leg()
        if tick is not None:
            tick(runs.share())
        if runs.active and keeper.due():
            keeper.save(*runs.saved())
    return [runs.ends[run] for run in range(len(configs))]


class Stack:
    """Runs in progress: ``slots[row]`` is the run that a row of every tensor belongs to."""

    def __init__(
        self,
        prepared: Prepared,
        configs: Sequence[RunConfig],
        job: Job,
        capability: Capability,
        starts: Sequence[RunState | None],
        slots: int,
        unit: int,
        ceiling: int | None = None,
    ) -> None:
        self.prepared, self.configs, self.job, self.starts = prepared, configs, job, starts
        self.began, self.unit, self.ceiling = time.perf_counter(), unit, ceiling
        first = configs[0]
        self.dtype = DTYPES[first.precision]
        self.objective = prepared.objective(first.seed, self.dtype, first.gamma).train()
        self.linear = {
            f"{name}.weight"
            for name, module in self.objective.named_modules()
            if isinstance(module, nn.Linear)
        }
        self.program = program_of(first, self.objective, capability)
        self.eager = make_block(self.program, first.reuse, self.dtype)
        self.compiled = programs_of(prepared, _kind(first, capability)) if unit else {}
        self.predict = torch.vmap(self.program.evaluate, in_dims=(0, 0, None))
        self.evaluator = Evaluator(
            prepared.validation, prepared.metric, prepared.device, self.dtype
        )
        assert isinstance(prepared.train, Stacked)
        self.data = _tree.map_leaves(lambda x: x.to(prepared.device), prepared.train.tree)
        begin = starts[0]
        self.samples, self.updates = (0, 0) if begin is None else (begin.samples, begin.updates)
        self.plan = updates_of(first, prepared.examples, self.samples, job.until)
        self.evaluations = stops(self.plan, self.samples, job.evaluate_at)
        if self.plan:
            self.evaluations |= {len(self.plan)}
        self.probes = stops(self.plan, self.samples, job.probe_at)
        sizes = [size for _, size in self.plan]
        self.edges = {i for i in range(1, len(sizes)) if sizes[i] != sizes[i - 1]}
        self.multiplier = self._multipliers(first)
        flop = capability.flop_per_example * max(sizes, default=1) * slots * first.reuse
        fitting = INDEX_BYTES / (8 * slots * max(sizes, default=1)), LEG_FLOP / max(flop, 1.0)
        self.longest = max(1, min(LONGEST_LEG, *map(int, fitting)))
        self.count = min(slots, len(configs)) if not unit else slots
        self.queue = list(range(len(configs)))
        self.slots: list[int] = []
        self.done: list[int] = []
        self.loss_sum, self.loss_count = np.zeros(self.count), np.zeros(self.count, dtype=int)
        self.recorders = [Recorder() for _ in configs]
        self.streams = [Stream(prepared.examples, config.seed) for config in configs]
        self.parked: dict[int, Parked] = {}
        self.ends: dict[int, End] = {}

    def _multipliers(self, config: RunConfig) -> torch.Tensor:
        """Share of the peak learning rate at each batch of the plan."""
        share = config.multiplier(self.prepared.examples)
        shares = [share(first) for first, _ in self.plan]
        return torch.tensor(shares, dtype=self.dtype)

    @property
    def active(self) -> list[int]:
        """Rows that hold a run."""
        return [row for row, run in enumerate(self.slots) if run != EMPTY]

    def share(self) -> float:
        """How much of the cell is done, in batches."""
        whole = max(1, len(self.plan))
        left = [self.done[row] for row in self.active] + [self._reached(r) for r in self.queue]
        return 1.0 - sum(1 - done / whole for done in left) / len(self.configs)

    # ------------------------------------------------------------------ rows come and go

    def fill(self) -> None:
        """The next runs into all slots; of a compiled stack the rest are copies that count for
        nothing. Where memory runs out, half as many.
        """
        runs = self._next(self.count)
        rows = self.count if self.unit else len(runs)
        shown = runs + runs[:1] * (rows - len(runs))
        filled = _tried(
            lambda: self._laid_out(stack([self._start(run) for run in shown])),
            rows == 1,
            self.ceiling,
        )
        if filled is None:
            self.count, self.queue = rows // 2, runs + self.queue
            self.fill()
            return
        self.progress = filled
        self.slots = runs + [EMPTY] * (rows - len(runs))
        self.done = [0] * rows
        self.loss_sum, self.loss_count = np.zeros(rows), np.zeros(rows, dtype=int)
        self._numbers(shown)
        self._seated(self.active)

    def _next(self, most: int) -> list[int]:
        """Runs from the queue; where batches change size, only such as have got equally far, and
        those that are behind first.
        """
        runs = self.queue[:most]
        if self.edges:
            least = min(map(self._reached, self.queue))
            runs = [run for run in self.queue if self._reached(run) == least][:most]
        self.queue = [run for run in self.queue if run not in runs]
        return runs

    def _reached(self, run: int) -> int:
        """Batches that a waiting run has behind it."""
        return self.parked[run].done if run in self.parked else 0

    def _seated(self, rows: Iterable[int]) -> None:
        """Rows that were given a run: a parked one goes on, of a fresh one the start is due."""
        fresh = []
        for row in rows:
            found = self.parked.pop(self.slots[row], None)
            if found is None:
                fresh.append(row)
            else:
                self.done[row], self.loss_sum[row], self.loss_count[row] = found[:3]
        self._arrive(fresh)

    def _start(self, run: int) -> Progress:
        if run in self.parked:
            return to_device(self.parked[run].progress, self.prepared.device)
        config, state = self.configs[run], self.starts[run]
        if state is not None:
            return to_device(state.progress, self.prepared.device)
        objective = self.prepared.objective(config.seed, self.dtype, config.gamma)
        return start_of(objective, rule_of(config, self.prepared.task))

    def _laid_out(self, progress: Progress) -> Progress:
        """Weights of linear layers, and what the rule keeps for them, input by output in memory:
        stacked backward passes give their gradients so, and an update that reads across rows
        takes longer than the products.
        """
        return _pytree.tree_map_with_path(self._lay, progress)

    def _lay(self, path: Any, leaf: torch.Tensor) -> torch.Tensor:
        name = getattr(path[-1], "key", None)
        if leaf.ndim != 3 or name not in self.linear:
            return leaf
        return leaf.transpose(1, 2).contiguous().transpose(1, 2)

    def _change(self, new: Callable[[int, torch.Tensor], torch.Tensor]) -> None:
        """Every tensor of the runs replaced, one by one: all old and new ones together would need
        twice the memory.
        """
        named, structure = _pytree.tree_flatten_with_path(self.progress)
        paths, leaves = [path for path, _ in named], [leaf for _, leaf in named]
        del named, self.progress
        for i, path in enumerate(paths):
            leaves[i] = self._lay(path, new(i, leaves[i]))
        self.progress = _pytree.tree_unflatten(leaves, structure)

    def _numbers(self, runs: Sequence[int]) -> None:
        """Numbers and dropout keys of the rows' runs."""
        like = next(iter(self.progress.params.values()))
        each = [numbers_of(self.configs[run], like) for run in runs]
        self.numbers = Numbers(*map(torch.stack, zip(*each, strict=True)))
        keys = [dropout_key(self.configs[run].seed) for run in runs]
        self.keys = torch.tensor(keys, device=self.prepared.device)

    def _refill(self) -> None:
        """Waiting runs into free slots; where batches change size, only once all are free, or by
        :meth:`_regroup`. What is left free is taken out of an eager stack.
        """
        free = [row for row, run in enumerate(self.slots) if run == EMPTY]
        if self.queue and len(free) == len(self.slots):
            del self.progress
            self.fill()
        elif self.queue and not self.edges:
            self._seat(free[: len(self.queue)])
        elif free and not self.unit:
            self._keep(self.active)

    def _regroup(self) -> None:
        """Where batches change size, the runs of a stack have got equally far: others that have
        join them where there is room, and once half of the slots are free, they wait for those
        that are behind, to go on with them.
        """
        rows = self.active
        if not (rows and self.edges and self.queue):
            return
        here, waiting = self.done[rows[0]], list(map(self._reached, self.queue))
        joined = here in waiting and len(rows) < self.count
        if joined or (min(waiting) < here and 2 * len(rows) <= self.count):
            self._park(rows)
            del self.progress
            self.fill()

    def _park(self, rows: Iterable[int]) -> None:
        """The runs of these rows wait at the head of the queue."""
        leaving = list(rows)
        for row in leaving:
            counts = self.done[row], float(self.loss_sum[row]), int(self.loss_count[row])
            self.parked[self.slots[row]] = Parked(*counts, self._state(row).progress)
        self.queue = [self.slots[row] for row in leaving] + self.queue

    def _seat(self, rows: list[int]) -> None:
        """The next runs into these rows; where memory runs out, the others go on without them."""
        runs = self._next(len(rows))
        fresh = _tried(
            lambda: _pytree.tree_leaves(stack(list(map(self._start, runs)))), False, self.ceiling
        )
        if fresh is None:
            self.count, self.queue = len(self.active), runs + self.queue
            self._keep(self.active)
            return
        for row, run in zip(rows, runs, strict=True):
            self.slots[row], self.done[row] = run, 0
            self.loss_sum[row], self.loss_count[row] = 0.0, 0
        place = torch.tensor(rows, device=self.prepared.device)
        self._change(lambda i, old: old.index_copy(0, place, fresh[i]))
        self._numbers([max(run, 0) for run in self.slots])
        self._seated(rows)

    def _keep(self, rows: list[int]) -> None:
        """These rows only."""
        index = torch.tensor(rows, device=self.prepared.device, dtype=torch.int64)
        self._change(lambda _, leaf: leaf[index])
        self.numbers = Numbers(*(n[index] for n in self.numbers))
        self.keys = self.keys[index]
        self.slots, self.done = ([which[r] for r in rows] for which in (self.slots, self.done))
        self.loss_sum, self.loss_count = self.loss_sum[rows], self.loss_count[rows]

    def _arrive(self, rows: Iterable[int]) -> None:
        """What is due where rows have got to; rows at the end of their plan leave."""
        there = list(rows)
        self._evaluate([row for row in there if self.done[row] in self.evaluations])
        self._probe([row for row in there if self.done[row] in self.probes])
        ended = [row for row in there if self.done[row] == len(self.plan)]
        for row in ended:
            self._end(row, None, self._state(row) if self.job.keep_end else None)
        if ended:
            self._refill()

    # ------------------------------------------------------------------ training

    def leg(self) -> None:
        """Train every run up to the next moment at which something is due."""
        rows = self.active
        wanted = self.evaluations | self.probes | self.edges
        if self.edges:
            wanted |= {found.done for found in self.parked.values()}
        nearest = (min(s for s in wanted if s > self.done[r]) - self.done[r] for r in rows)
        count = min(self.longest, *nearest)
        trained = self._within_memory(count)
        if trained is None:
            return
        losses, finite = trained
        self.loss_sum = np.cumsum(np.vstack([self.loss_sum, losses]), axis=0)[-1]
        self.loss_count += len(losses)
        for row in rows:
            self.done[row] += count
        broken = [row for row in rows if not finite[:, row].all()]
        for row in broken:
            tried = int(np.argmin(finite[:, row])) + 1
            self._end(row, (count, tried), None)
        self._arrive(row for row in rows if row not in broken)
        if broken:
            self._refill()
        self._regroup()

    def _within_memory(self, count: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Train a leg; None if memory ran out: then half of the runs wait, and nothing is lost."""
        # A compiler loads code and starts processes, which may not fail for lack of memory.
        ceiling = None if self.unit else self.ceiling
        last = len(self.slots) == 1
        trained = _tried(lambda: self._train(self._orders(count)), last, ceiling)
        if trained is None:
            self._shrink(len(self.slots) // 2)
        return trained

    def _shrink(self, count: int) -> None:
        """So many rows; the runs of the others go on when there is room."""
        self.count = count
        order = sorted(range(len(self.slots)), key=lambda row: self.slots[row] == EMPTY)
        self._park(row for row in order[self.count :] if self.slots[row] != EMPTY)
        self._keep(order[: self.count])

    def some(self, batches: int) -> int:
        """Train a few batches of every row for timing, from the start again at the plan's end.

        Args:
            batches: At most; fewer where the plan or a change of the batch size is nearer.

        Returns:
            Batches trained.
        """
        if self.done[0] >= len(self.plan):
            self.done = [0] * len(self.done)
        edges = [edge - self.done[0] for edge in self.edges if edge > self.done[0]]
        count = min(batches, len(self.plan) - self.done[0], *edges)
        self._train(self._orders(count))
        self.done = [done + count for done in self.done]
        return count

    def _orders(self, count: int) -> Orders:
        """What the next batches use; rows without a run repeat the first example, at rate 0."""
        size = self.plan[self.done[self.active[0]]][1]
        index = torch.zeros(len(self.slots), count, size, dtype=torch.int64)
        multiplier = torch.zeros(len(self.slots), count, dtype=self.dtype)
        keys = torch.zeros(len(self.slots), count, dtype=torch.int64)
        reuse = self.configs[0].reuse
        for row in self.active:
            done = self.done[row]
            stream = self.streams[self.slots[row]]
            index[row] = stream.take(self.plan[done][0], count * size)[0].reshape(count, size)
            multiplier[row] = self.multiplier[done : done + count]
            keys[row] = self.updates + reuse * torch.arange(done, done + count)
        to = self.prepared.device
        parts = (t.transpose(0, 1).contiguous().to(to) for t in (index, multiplier, keys))
        orders = Orders(*parts)
        return orders._replace(keys=orders.keys + self.keys)

    def _train(self, orders: Orders) -> tuple[np.ndarray, np.ndarray]:
        """Losses and finiteness of every update, shape ``[updates, S]``."""
        losses, finite = [], []
        progress = self.progress
        for piece in self._pieces(orders):
            block: Block = self._block(piece)(progress, self.numbers, piece, self.data)
            progress = block.progress  # nothing else keeps it: a leg has many pieces
            losses.append(block.losses)
            finite.append(block.finite)
        self.progress = progress
        return torch.cat(losses).double().cpu().numpy(), torch.cat(finite).cpu().numpy()

    def _pieces(self, orders: Orders) -> list[Orders]:
        """Calls of the program: of ``unit`` batches as long as there are so many, then of one."""
        count = len(orders.index)
        if not self.unit:
            return [orders]
        whole = count - count % self.unit
        ends = [*range(0, whole, self.unit), *range(whole, count + 1)]
        return [Orders(*(part[a:b] for part in orders)) for a, b in itertools.pairwise(ends)]

    def _block(self, orders: Orders) -> Run:
        if not self.unit:
            return self.eager
        key = tuple(orders.index.shape)
        if key not in self.compiled:
            self.compiled[key] = compile_block(
                self.eager, self.progress, self.numbers, orders, self.data
            )
        return self.compiled[key]

    # ------------------------------------------------------------------ what is left behind

    def _evaluate(self, rows: list[int]) -> None:
        for row, values in zip(rows, self._evaluated(rows), strict=True):
            if self.loss_count[row]:
                mean = float(self.loss_sum[row] / self.loss_count[row])
                values = values | {"train_loss": mean}
            self._record(row, values)
            self.loss_sum[row], self.loss_count[row] = 0.0, 0

    def _evaluated(self, rows: list[int]) -> list[dict[str, float]]:
        """Validation loss and metric of these rows."""
        return _in_parts(self._predicted, rows, self.ceiling)

    def _predicted(self, rows: list[int]) -> list[dict[str, float]]:
        self.objective.eval()
        with torch.no_grad():
            params, buffers, _ = self.progress
            if len(rows) < len(self.slots):
                params, buffers = self._picked(rows)
            found = self.evaluator(lambda batch: self.predict(params, buffers, batch))
        self.objective.train()
        return found

    def _picked(self, rows: list[int]) -> tuple[Params, Params]:
        """Copies of the parameters and buffers of these rows."""
        index = torch.tensor(rows, device=self.prepared.device)
        return _tree.pick(self.progress.params, index), _tree.pick(self.progress.buffers, index)

    def _probe(self, rows: list[int]) -> None:
        """Take the probe of these rows: of all at once if it can be."""
        probe = self.job.probe
        if isinstance(probe, BatchedProbe):
            found = _in_parts(lambda some: self._probed(probe, some), rows, self.ceiling)
            for row, values in zip(rows, found, strict=True):
                self._record(row, values)
        elif probe is not None:
            for row in rows:
                with self._drawing(row):
                    own = probe_of(probe, self.configs[self.slots[row]])
                    self._record(row, own(self._private(row), self._place(row)[0]))

    def _probed(self, probe: BatchedProbe, rows: list[int]) -> list[dict[str, float]]:
        with self._drawing(rows[0]):
            own, picked = self._private(rows[0]), self._picked(rows)
            return list(probe.together(own, *picked, [self._place(row)[0] for row in rows]))

    def _private(self, row: int) -> Objective:
        return loaded(self.objective, _row(self.progress, row))

    def _drawing(self, row: int) -> contextlib.AbstractContextManager[None]:
        """Name what a probe draws from the global generators."""
        return _random.seeded(self.configs[self.slots[row]].seed, "probe", self._place(row)[1])

    def _record(self, row: int, values: dict[str, float]) -> None:
        samples, updates = self._place(row)
        self.recorders[self.slots[row]].add(updates, samples, values)

    def _place(self, row: int) -> tuple[int, int]:
        """Samples and updates of a row's run."""
        done = self.done[row]
        last = self.plan[done - 1] if done else (self.samples, 0)
        return sum(last), self.updates + done * self.configs[0].reuse

    def _end(self, row: int, broken: tuple[int, int] | None, state: RunState | None) -> None:
        """Write down how a run ended and free its slot; ``broken``: (batches of the last leg,
        updates tried in it).
        """
        reuse, run = self.configs[0].reuse, self.slots[row]
        if broken is not None:
            count, tried = broken
            self.done[row] += (tried - 1) // reuse - count
        samples, updates = self._place(row)
        if broken is not None:
            updates += (broken[1] - 1) % reuse + 1
        seconds = time.perf_counter() - self.began
        result = self._result(run, broken is not None, updates, samples, seconds, self.count)
        self.ends[run], self.slots[row] = (result, state), EMPTY

    def _result(
        self, run: int, diverged: bool, updates: int, samples: int, seconds: float, together: int
    ) -> RunResult:
        return result_of(
            self.configs[run],
            diverged=diverged,
            updates=updates,
            samples=samples,
            seconds=seconds,
            executor="stacked",
            together=together,
            series=self.recorders[run].series(),
        )

    def _state(self, row: int) -> RunState:
        progress = _pytree.tree_map(
            lambda leaf: leaf.detach().cpu().clone(), _row(self.progress, row)
        )
        return RunState(progress, *self._place(row))

    # ------------------------------------------------------------------ checkpoints

    def saved(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All that :meth:`restore` needs."""
        arrays = to_arrays("now", self.progress)
        arrays |= {"loss_sum": self.loss_sum, "loss_count": self.loss_count}
        ends = {}
        for run, (result, state) in self.ends.items():
            diverged = result.status is Status.DIVERGED
            counts = result.updates, result.samples, result.seconds, result.together
            ends[run] = [diverged, *counts]
            if state is not None:
                arrays |= to_arrays(f"end{run}.", state.progress)
        for run, found in self.parked.items():
            arrays |= to_arrays(f"parked{run}.", found.progress)
        facts = {
            "count": self.count,
            "parked": {run: found[:3] for run, found in self.parked.items()},
            "slots": self.slots,
            "done": self.done,
            "queue": self.queue,
            "ends": ends,
            "rows": [recorder.rows for recorder in self.recorders],
            "seconds": time.perf_counter() - self.began,
        }
        return facts, arrays

    def restore(self, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on from what :meth:`saved` gave; where fewer runs are to train at a time, with so
        many.
        """
        self.slots, self.done, self.queue = facts["slots"], facts["done"], facts["queue"]
        most, self.count = self.count, facts["count"]
        self.loss_sum, self.loss_count = arrays["loss_sum"], arrays["loss_count"]
        self.recorders = [Recorder(rows) for rows in facts["rows"]]
        self.began -= facts["seconds"]
        like = self._start(0)
        found = from_arrays("now", arrays, like)
        self.progress = self._laid_out(to_device(found, self.prepared.device))
        self._numbers([max(run, 0) for run in self.slots])
        for name, (done, loss_sum, loss_count) in facts["parked"].items():
            progress = from_arrays(f"parked{name}.", arrays, like)
            self.parked[int(name)] = Parked(done, loss_sum, loss_count, progress)
        for name, counts in facts["ends"].items():
            run = int(name)
            result = self._result(run, *counts)
            kept = f"end{run}.0" in arrays
            ended = from_arrays(f"end{run}.", arrays, like) if kept else None
            state = None if ended is None else RunState(ended, result.samples, result.updates)
            self.ends[run] = result, state
        self.count = min(self.count, most)
        if len(self.slots) > most:
            self._shrink(most)


def _kind(config: RunConfig, capability: Capability) -> tuple[Any, ...]:
    """All that a compiled program depends on besides the task and the shapes."""
    step = config.rule, config.clip_norm, config.precision, config.micro_batch_size, config.reuse
    return *step, config.gamma is None, capability.dropout


def _in_parts(
    work: Callable[[list[int]], list[dict[str, float]]], rows: list[int], ceiling: int | None
) -> list[dict[str, float]]:
    """Values of these rows; in two parts where memory runs out."""
    if not rows:
        return []
    found = _tried(lambda: work(rows), len(rows) == 1, ceiling)
    if found is not None:
        return found
    half = len(rows) // 2
    return _in_parts(work, rows[:half], ceiling) + _in_parts(work, rows[half:], ceiling)


def _tried(work: Callable[[], T], last: bool, ceiling: int | None = None) -> T | None:
    """:func:`if_it_fits`. Above the ceiling memory is refused, as a system would end the process
    rather than refuse it, but not to the last resort, for which there is nothing smaller.
    """

    def limited() -> T:
        with _platform.data_limited(None if last else ceiling):
            return work()

    return if_it_fits(limited, last)


def _row(progress: Progress, row: int) -> Progress:
    return _pytree.tree_map(lambda leaf: leaf[row], progress)
