"""The stacked executor: R runs of one shape as one program."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils import _pytree

from batchlab import _random, _tree, schedules
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability, stack
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.job import Clock, Job, RunState, to_device, updates_of
from batchlab.engine.loop import (
    TICK_UPDATES,
    Tick,
    dropout_key,
    loaded,
    program_of,
    result_of,
)
from batchlab.engine.step import DTYPES, Progress, make_step, numbers_of, rule_of, start_of
from batchlab.engine.trace import Recorder, RunResult
from batchlab.rules import Numbers
from batchlab.samplers import Stream
from batchlab.tasks import Prepared
from batchlab.types import Tree


def train_stacked(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    job: Job,
    capability: Capability,
    starts: Sequence[RunState | None] | None = None,
    tick: Tick | None = None,
) -> list[tuple[RunResult, RunState | None]]:
    """Train runs that share every static shape, together.

    Args:
        prepared: The task.
        configs: Resolved runs that differ only in numbers and seeds. R of them.
        job: When to evaluate and probe.
        capability: What the model needs.
        starts: Where each goes on from, all at the same samples and updates.
        tick: Told the share that is done.

    Returns:
        Per run the result, and the state at the end if it was asked for and the run has not
        diverged.
    """
    runs = _Stack(prepared, configs, job, capability, starts or [None] * len(configs))
    plan = updates_of(configs[0], prepared.examples, runs.samples, job.until)
    runs.record()
    for done, (first, size) in enumerate(plan):
        runs.update(first, size)
        if not runs.alive:
            break
        runs.record(last=done + 1 == len(plan))
        if tick is not None and done % TICK_UPDATES == 0:
            tick(done / len(plan))
    return runs.results()


class _Stack:
    """R runs in progress; ``alive`` says which of the cell's runs the rows are."""

    def __init__(
        self,
        prepared: Prepared,
        configs: Sequence[RunConfig],
        job: Job,
        capability: Capability,
        starts: Sequence[RunState | None],
    ) -> None:
        self.prepared, self.configs, self.job = prepared, list(configs), job
        self.began = time.perf_counter()
        self.alive = list(range(len(configs)))
        first, dtype = configs[0], DTYPES[configs[0].precision]
        self.objective = prepared.objective(first.seed, dtype).train()
        self.program = program_of(first, self.objective, capability)
        self.step = make_step(self.program, torch.vmap)
        self.predict = torch.vmap(self.program.evaluate, in_dims=(0, 0, None))
        self.progress = stack([self._start(c, s) for c, s in zip(configs, starts, strict=True)])
        begin = starts[0]
        self.samples, self.updates = (0, 0) if begin is None else (begin.samples, begin.updates)
        self.evaluator = Evaluator(prepared.validation, prepared.metric, prepared.device, dtype)
        like = next(iter(self.progress.params.values()))
        each = [numbers_of(config, like) for config in configs]
        self.numbers = Numbers(*map(torch.stack, zip(*each, strict=True)))
        self.rate = schedules.rate_schedule(first.lr_schedule, warmup=first.warmup)
        self.streams = [Stream(prepared.examples, config.seed) for config in configs]
        keys = [dropout_key(config.seed) for config in configs]
        self.keys = torch.tensor(keys, device=prepared.device)
        self.loss_sum, self.loss_count = torch.zeros_like(self.numbers.learning_rate), 0
        self.evaluations, self.probes = Clock(job.evaluate_at), Clock(job.probe_at)
        self.recorders = [Recorder() for _ in configs]
        self.ends: dict[int, tuple[RunResult, RunState | None]] = {}

    def _start(self, config: RunConfig, state: RunState | None) -> Progress:
        if state is not None:
            return to_device(state.progress, self.prepared.device)
        objective = self.prepared.objective(config.seed, DTYPES[config.precision])
        return start_of(objective, rule_of(config))

    def update(self, first: int, size: int) -> None:
        """One batch of every run, used ``reuse`` times; runs that diverge leave the stack."""
        config = self.configs[0]
        assert isinstance(config.samples, int)
        batch = self._batches(first, size)
        rate = self.rate(first / config.samples)
        for _ in range(config.reuse):
            numbers = self.numbers._replace(learning_rate=self.numbers.learning_rate * rate)
            progress, loss, finite = self.step(
                self.progress, numbers, batch, self.keys + self.updates
            )
            self.progress, self.updates = progress, self.updates + 1
            self.loss_sum, self.loss_count = self.loss_sum + loss, self.loss_count + 1
            if not bool(finite.all()):
                batch = self._drop(finite, batch)
            if not self.alive:
                return
        self.samples = first + size

    def _batches(self, first: int, size: int) -> Tree:
        """The next batch of each run, leaves ``[R, B, …]``."""
        index = torch.stack([self.streams[run].take(first, size)[0] for run in self.alive])
        batch = self.prepared.train.batch(index)
        return _tree.to(batch, self.prepared.device, DTYPES[self.configs[0].precision])

    def _drop(self, finite: Bool[Tensor, " R"], batch: Tree) -> Tree:
        """Take the rows of diverged runs out; what is left of the batch."""
        for row in (~finite).nonzero().flatten().tolist():
            self._end(self.alive[row], diverged=True)
        rows = finite.nonzero().flatten()
        self.alive = [self.alive[row] for row in rows.tolist()]
        self.progress = _pytree.tree_map(lambda leaf: leaf[rows], self.progress)
        self.numbers = Numbers(*(n[rows] for n in self.numbers))
        self.keys, self.loss_sum = self.keys[rows], self.loss_sum[rows]
        return _tree.take(batch, rows)

    def record(self, last: bool = False) -> None:
        """Evaluate and probe if their moment has come."""
        if self.evaluations.due(self.samples) or last:
            self._evaluate()
        if self.job.probe is None or not self.probes.due(self.samples):
            return
        for row, run in enumerate(self.alive):
            with _random.seeded(self.configs[run].seed, "probe", self.updates):
                own = loaded(self.objective, _row(self.progress, row))
                found = self.job.probe(own, self.samples)
            self.recorders[run].add(self.updates, self.samples, found)

    def _evaluate(self) -> None:
        self.objective.eval()
        with torch.no_grad():
            params, buffers, _ = self.progress
            found = self.evaluator(lambda batch: self.predict(params, buffers, batch))
        self.objective.train()
        means = (self.loss_sum / max(1, self.loss_count)).tolist()
        for row, run in enumerate(self.alive):
            trained = {"train_loss": means[row]} if self.loss_count else {}
            self.recorders[run].add(self.updates, self.samples, found[row] | trained)
        self.loss_sum, self.loss_count = torch.zeros_like(self.loss_sum), 0

    def results(self) -> list[tuple[RunResult, RunState | None]]:
        """What every run left behind."""
        for row, run in enumerate(self.alive):
            self._end(run, diverged=False, state=self._state(row) if self.job.keep_end else None)
        return [self.ends[run] for run in range(len(self.configs))]

    def _end(self, run: int, *, diverged: bool, state: RunState | None = None) -> None:
        """Write down how a run ended."""
        result = result_of(
            self.configs[run],
            diverged=diverged,
            updates=self.updates,
            samples=self.samples,
            seconds=time.perf_counter() - self.began,
            executor="stacked",
            series=self.recorders[run].series(),
        )
        self.ends[run] = result, state

    def _state(self, row: int) -> RunState:
        progress = _pytree.tree_map(
            lambda leaf: leaf.detach().cpu().clone(), _row(self.progress, row)
        )
        return RunState(progress, self.samples, self.updates)


def _row(progress: Progress, row: int) -> Progress:
    return _pytree.tree_map(lambda leaf: leaf[row], progress)
