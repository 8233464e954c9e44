"""The stacked executor: R runs of one shape as one program."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils import _pytree

from batchlab import _random, _tree, schedules
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability, stack
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.job import Clock, Job, RunState, updates_of
from batchlab.engine.loop import NOT_LEARNED, Tick, diverged_at, loaded, program_of, status_of
from batchlab.engine.step import DTYPES, Progress, make_step, numbers_of, rule_of, start_of
from batchlab.engine.trace import Recorder, RunResult
from batchlab.rules import Numbers
from batchlab.samplers import Stream
from batchlab.tasks import Prepared
from batchlab.types import Status, Tree


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
        starts: Where each goes on from, all at the same samples.
        tick: Told the share that is done.

    Returns:
        Per run the result, and the state at the end if it was asked for.
    """
    began = time.perf_counter()
    stack_ = _Stack(prepared, configs, job, capability, starts or [None] * len(configs))
    plan = updates_of(configs[0], prepared.examples, stack_.samples, job.until)
    stack_.record()
    for done, (first, size) in enumerate(plan):
        stack_.update(first, size)
        stack_.record(last=done + 1 == len(plan))
        if not len(stack_.alive):
            break
        if tick is not None and done % 64 == 0:
            tick(done / len(plan))
    return stack_.results(time.perf_counter() - began)


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
        first, dtype = configs[0], DTYPES[configs[0].precision]
        self.objective = prepared.objective(first.seed, dtype).train()
        self.program = program_of(first, self.objective, capability)
        self.step = make_step(self.program, torch.vmap)
        self.predict = torch.vmap(self.program.evaluate, in_dims=(0, 0, None))
        self.progress = stack([self._start(c, s) for c, s in zip(configs, starts, strict=True)])
        self.samples, self.updates = (0, 0) if starts[0] is None else (starts[0].samples, starts[0].updates)
        self.evaluator = Evaluator(prepared.validation, prepared.metric, prepared.device, dtype)
        like = next(iter(self.progress.params.values()))
        self.numbers = Numbers(*map(torch.stack, zip(*(numbers_of(c, like) for c in configs), strict=True)))
        self.rate = schedules.rate_schedule(first.lr_schedule, warmup=first.warmup)
        self.streams = [Stream(prepared.examples, c.seed) for c in configs]
        keys = [_random.key(c.seed, "dropout") >> 2 for c in configs]
        self.keys = torch.tensor(keys, device=prepared.device)
        self.alive = list(range(len(configs)))
        self.finite = torch.ones(len(configs), dtype=torch.bool, device=prepared.device)
        self.bad_update = torch.zeros(len(configs), dtype=torch.int64, device=prepared.device)
        self.loss_sum, self.loss_count = torch.zeros(len(configs), device=prepared.device, dtype=dtype), 0
        self.evaluations, self.probes = Clock(job.evaluate_at), Clock(job.probe_at)
        self.recorders = [Recorder() for _ in configs]
        self.firsts: dict[int, int] = {}
        self.ends: dict[int, tuple[Status, str, int, int, RunState | None]] = {}

    def _start(self, config: RunConfig, state: RunState | None) -> Progress:
        if state is not None:
            return _pytree.tree_map(lambda leaf: leaf.to(self.prepared.device), state.progress)
        objective = self.prepared.objective(config.seed, DTYPES[config.precision])
        return start_of(objective, rule_of(config))

    def update(self, first: int, size: int) -> None:
        """One batch of every run, used ``reuse`` times."""
        config = self.configs[0]
        assert isinstance(config.samples, int)
        batch = self._batches(first, size)
        rate = self.rate(first / config.samples)
        numbers = self.numbers._replace(learning_rate=self.numbers.learning_rate * rate)
        for _ in range(config.reuse):
            progress, loss = self.step(self.progress, numbers, batch, self.keys + self.updates)
            self.updates += 1
            self.firsts[self.updates] = first
            self._keep_finite(progress, loss)
        self.samples = first + size

    def _batches(self, first: int, size: int) -> Tree:
        """The next batch of each run, leaves ``[R, B, …]``; read once where the runs share a seed."""
        index = torch.stack([self.streams[r].take(first, size)[0] for r in self.alive])
        batch = self.prepared.train.batch(index)
        return _tree.to(batch, self.prepared.device, DTYPES[self.configs[0].precision])

    def _keep_finite(self, progress: Progress, loss: Tensor) -> None:
        """Take the step where the loss is finite; freeze the other runs before it."""
        finite = self.finite & torch.isfinite(loss)
        self.bad_update = torch.where(self.finite & ~finite, self.updates, self.bad_update)
        self.finite = finite

        def choose(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(finite.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        self.progress = _pytree.tree_map(choose, progress, self.progress)
        self.loss_sum, self.loss_count = self.loss_sum + loss, self.loss_count + 1

    def record(self, last: bool = False) -> None:
        """Evaluate and probe if their moment has come; runs that have diverged leave the stack."""
        evaluate, probe = self.evaluations.due(self.samples) or last, self.probes.due(self.samples)
        if not (evaluate or probe):
            return
        self._drop_diverged()
        if evaluate and self.alive:
            self._evaluate()
        if probe and self.job.probe is not None:
            for row, run in enumerate(self.alive):
                own = loaded(self.objective, _row(self.progress, row))
                with _random.seeded(self.configs[run].seed, "probe", self.updates):
                    self.recorders[run].add(self.updates, self.samples, self.job.probe(own, self.samples))

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

    def _drop_diverged(self) -> None:
        """Write down which runs have diverged and take their rows out."""
        whole = torch.ones_like(self.finite)
        for leaf in self.progress.params.values():
            whole &= torch.isfinite(leaf).reshape(len(self.alive), -1).all(1)
        keep = self.finite & whole
        if bool(keep.all()):
            return
        for row in (~keep).nonzero().flatten().tolist():
            self._end_diverged(row, bool(self.finite[row]), bool(whole[row]))
        rows = keep.nonzero().flatten()
        self.progress = _pytree.tree_map(lambda leaf: leaf[rows], self.progress)
        self.numbers = Numbers(*(n[rows] for n in self.numbers))
        self.alive = [self.alive[row] for row in rows.tolist()]
        self.keys, self.finite, self.bad_update, self.loss_sum = (
            x[rows] for x in (self.keys, self.finite, self.bad_update, self.loss_sum)
        )

    def _end_diverged(self, row: int, finite_loss: bool, finite_params: bool) -> None:
        if finite_loss:
            late = self.updates
        else:
            late = int(self.bad_update[row]) - (0 if finite_params else 1)
        samples = self.samples if finite_loss else self.firsts[int(self.bad_update[row])]
        self.ends[self.alive[row]] = Status.DIVERGED, diverged_at(late), late, samples, None

    def results(self, seconds: float) -> list[tuple[RunResult, RunState | None]]:
        """What every run left behind."""
        self._drop_diverged()
        for row, run in enumerate(self.alive):
            losses = self.recorders[run].series()["loss"].values.tolist()
            status = status_of(losses)
            sentence = "" if status is Status.OK else NOT_LEARNED
            state = self._state(row) if self.job.keep_end else None
            self.ends[run] = status, sentence, self.updates, self.samples, state
        return [self._result(run, seconds) for run in range(len(self.configs))]

    def _state(self, row: int) -> RunState:
        progress = _pytree.tree_map(lambda leaf: leaf.detach().cpu().clone(), _row(self.progress, row))
        return RunState(progress, self.samples, self.updates)

    def _result(self, run: int, seconds: float) -> tuple[RunResult, RunState | None]:
        status, sentence, updates, samples, state = self.ends[run]
        config = self.configs[run]
        result = RunResult(
            config, status, sentence, updates, samples, samples * config.reuse, seconds, "stacked",
            self.recorders[run].series(),
        )
        return result, state


def _row(progress: Progress, row: int) -> Progress:
    return _pytree.tree_map(lambda leaf: leaf[row], progress)
