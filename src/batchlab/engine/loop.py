"""The loop executor: run by run, in plain eager PyTorch."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils import _pytree

from batchlab import _random, _tree, schedules
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.job import Clock, Job, RunState, to_device, updates_of
from batchlab.engine.step import (
    DTYPES,
    Program,
    Progress,
    make_step,
    numbers_of,
    rule_of,
    start_of,
)
from batchlab.engine.trace import Recorder, RunResult, Series
from batchlab.samplers import Stream
from batchlab.tasks import Objective, Prepared
from batchlab.tasks.source import Stacked
from batchlab.types import Status, Tree

Tick = Callable[[float], None]
"""Told the share of a cell that is done."""

TICK_UPDATES = 64


def train_alone(
    prepared: Prepared,
    config: RunConfig,
    job: Job,
    capability: Capability,
    start: RunState | None = None,
    tick: Tick | None = None,
) -> tuple[RunResult, RunState | None]:
    """Train one run to its end, or until it diverges.

    Args:
        prepared: The task.
        config: A resolved run.
        job: When to evaluate and probe.
        capability: What the model needs.
        start: Where to go on from, or None.
        tick: Told the share that is done.

    Returns:
        The result, and the state at the end if it was asked for and the run has not diverged.
    """
    run = _Run(prepared, config, job, capability, start)
    plan = updates_of(config, prepared.examples, run.samples, job.until)
    run.record()
    for done, (first, size) in enumerate(plan):
        run.update(first, size)
        if run.diverged:
            return run.result(), None
        run.record(last=done + 1 == len(plan))
        if tick is not None and done % TICK_UPDATES == 0:
            tick(done / len(plan))
    return run.result(), run.state() if job.keep_end else None


class _Run:
    """One run in progress."""

    def __init__(
        self,
        prepared: Prepared,
        config: RunConfig,
        job: Job,
        capability: Capability,
        start: RunState | None,
    ) -> None:
        self.prepared, self.config, self.job, self.capability = prepared, config, job, capability
        self.began = time.perf_counter()
        dtype = DTYPES[config.precision]
        self.objective = prepared.objective(config.seed, dtype).train()
        self.program = program_of(config, self.objective, capability)
        self.step = make_step(self.program)
        fresh = start_of(self.objective, self.program.rule)
        self.progress = fresh if start is None else to_device(start.progress, prepared.device)
        if capability.convolutions:
            self.progress = _channels_last(self.progress)
        self.samples, self.updates = (0, 0) if start is None else (start.samples, start.updates)
        self.diverged = False
        self.evaluator = Evaluator(prepared.validation, prepared.metric, prepared.device, dtype)
        self.numbers = numbers_of(config, next(iter(self.progress.params.values())))
        self.rate = schedules.rate_schedule(config.lr_schedule, warmup=config.warmup)
        self.stream = Stream(prepared.examples, config.seed)
        self.key = torch.tensor(dropout_key(config.seed), device=prepared.device)
        self.evaluations, self.probes = Clock(job.evaluate_at), Clock(job.probe_at)
        self.recorder = Recorder()
        self.losses: list[float] = []

    def update(self, first: int, size: int) -> None:
        """One batch, used ``reuse`` times, or until the run diverges."""
        assert isinstance(self.config.samples, int)
        batch = self._batch(first, size)
        rate = self.numbers.learning_rate * self.rate(first / self.config.samples)
        numbers = self.numbers._replace(learning_rate=rate)
        for _ in range(self.config.reuse):
            with self._named("forward", self.updates, self.capability.moves_generator):
                progress, loss, finite = self.step(
                    self.progress, numbers, batch, self.key + self.updates
                )
            self.updates += 1
            self.diverged = not finite
            if self.diverged:
                return
            self.progress = progress
            self.losses.append(float(loss))
        self.samples = first + size

    def _batch(self, first: int, size: int) -> Tree:
        """The next batch; what the user's collate draws is named by its first sample."""
        index, passes = self.stream.take(first, size)
        with self._named("batch", first, not isinstance(self.prepared.train, Stacked)):
            batch = self.prepared.train.batch(index, passes, self.config.seed)
        return _tree.to(batch, self.prepared.device, DTYPES[self.config.precision])

    def _named(
        self, purpose: str, counter: int, draws: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Name what the user's code draws from the global generators, if it may draw."""
        if not draws:
            return contextlib.nullcontext()
        return _random.seeded(self.config.seed, purpose, counter)

    def record(self, last: bool = False) -> None:
        """Evaluate and probe if their moment has come."""
        if self.evaluations.due(self.samples) or last:
            values = self._evaluate()
            if self.losses:
                values["train_loss"] = sum(self.losses) / len(self.losses)
                self.losses.clear()
            self.recorder.add(self.updates, self.samples, values)
        if self.job.probe is not None and self.probes.due(self.samples):
            with _random.seeded(self.config.seed, "probe", self.updates):
                found = self.job.probe(loaded(self.objective, self.progress), self.samples)
            self.recorder.add(self.updates, self.samples, found)

    def _evaluate(self) -> dict[str, float]:
        self.objective.eval()
        with torch.no_grad():
            params, buffers, _ = self.progress
            values = self.evaluator(lambda batch: self.program.evaluate(params, buffers, batch))[0]
        self.objective.train()
        return values

    def result(self) -> RunResult:
        """What the run left behind."""
        return result_of(
            self.config,
            diverged=self.diverged,
            updates=self.updates,
            samples=self.samples,
            seconds=time.perf_counter() - self.began,
            executor="loop",
            series=self.recorder.series(),
        )

    def state(self) -> RunState:
        """Where the run stands."""
        progress = _pytree.tree_map(
            lambda leaf: leaf.detach().to("cpu", copy=True).contiguous(), self.progress
        )
        return RunState(progress, self.samples, self.updates)


def result_of(
    config: RunConfig,
    *,
    diverged: bool,
    updates: int,
    samples: int,
    seconds: float,
    executor: str,
    series: dict[str, Series],
) -> RunResult:
    """A finished run with its status.

    Args:
        config: What was trained.
        diverged: Whether the last update gave a loss or a parameter that is not finite.
        updates: Updates tried.
        samples: Fresh examples of the batches that were used.
        seconds: Wall time in its executor.
        executor: ``stacked`` or ``loop``.
        series: What was recorded.

    Returns:
        The record.
    """
    status = Status.DIVERGED if diverged else status_of(series)
    sentences = {
        Status.OK: "",
        Status.DIVERGED: f"diverged at update {updates}: the loss or a parameter is not finite",
        Status.DID_NOT_LEARN: "did not learn: the validation loss was never below its start",
    }
    processed = samples * config.reuse
    return RunResult(
        config, status, sentences[status], updates, samples, processed, seconds, executor, series
    )


def status_of(series: dict[str, Series]) -> Status:
    """``did not learn`` if no validation loss lies below the first.

    Example:
        >>> import numpy as np
        >>> losses = Series(np.arange(3), np.arange(3), np.array([2.0, 2.5, 2.1]))
        >>> str(status_of({"loss": losses}))
        'did not learn'
    """
    losses = series["loss"].values if "loss" in series else []
    learned = len(losses) < 2 or any(loss < losses[0] for loss in losses[1:])
    return Status.OK if learned else Status.DID_NOT_LEARN


def program_of(config: RunConfig, objective: Objective, capability: Capability) -> Program:
    """The program of a resolved run."""
    autocast = config.precision == "bfloat16"
    return Program(objective, rule_of(config), config.clip_norm, autocast, capability.dropout)


def dropout_key(seed: int) -> int:
    """Names a run's dropout masks; the update is added to it, so there is room above."""
    return _random.key(seed, "dropout") >> 2


def loaded(objective: Objective, progress: Progress) -> Objective:
    """A private copy of the model with the current parameters and buffers in it."""
    # The task stays shared: it holds the user's data.
    own = copy.deepcopy(objective, {id(objective.task): objective.task})
    values = progress.params | progress.buffers
    with torch.no_grad():
        for name, tensor in [*own.named_parameters(), *own.named_buffers()]:
            tensor.copy_(values[name])
    return own


def _channels_last(progress: Progress) -> Progress:
    """Convolution kernels in channels_last; through them the activations follow that layout."""

    def convert(leaf: Tensor) -> Tensor:
        return leaf.contiguous(memory_format=torch.channels_last) if leaf.ndim == 4 else leaf

    return _pytree.tree_map(convert, progress)
