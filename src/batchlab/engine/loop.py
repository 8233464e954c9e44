"""The loop executor: run by run, in plain eager PyTorch."""

from __future__ import annotations

import contextlib
import copy
import math
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
from batchlab.engine.trace import Recorder, RunResult
from batchlab.samplers import Stream
from batchlab.tasks import Objective, Prepared
from batchlab.types import Status

Tick = Callable[[float], None]
"""Told the share of a cell that is done."""


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
        The result, and the state at the end if it was asked for.
    """
    began = time.perf_counter()
    run = _Run(prepared, config, job, capability, start)
    plan = updates_of(config, prepared.examples, run.samples, job.until)
    run.record()
    for done, (first, size) in enumerate(plan):
        if not run.update(first, size):
            break
        run.record(last=done + 1 == len(plan))
        if tick is not None and done % 64 == 0:
            tick(done / len(plan))
    return run.result(time.perf_counter() - began), run.state() if job.keep_end else None


class _Run:
    """One run in progress."""

    def __init__(
        self, prepared: Prepared, config: RunConfig, job: Job, capability: Capability, start: RunState | None
    ) -> None:
        self.prepared, self.config, self.job, self.capability = prepared, config, job, capability
        dtype = DTYPES[config.precision]
        self.objective = prepared.objective(config.seed, dtype).train()
        self.program = program_of(config, self.objective, capability)
        self.step = make_step(self.program)
        fresh = start_of(self.objective, self.program.rule)
        self.progress = fresh if start is None else to_device(start.progress, prepared.device)
        if capability.convolutions:
            self.progress = _channels_last(self.progress)
        self.samples, self.updates = (0, 0) if start is None else (start.samples, start.updates)
        self.evaluator = Evaluator(
            prepared.validation, prepared.metric, prepared.device, dtype
        )
        self.numbers = numbers_of(config, next(iter(self.progress.params.values())))
        self.rate = schedules.rate_schedule(config.lr_schedule, warmup=config.warmup)
        self.stream = Stream(prepared.examples, config.seed)
        self.key = torch.tensor(_random.key(config.seed, "dropout") >> 2, device=prepared.device)
        self.evaluations, self.probes = Clock(job.evaluate_at), Clock(job.probe_at)
        self.recorder = Recorder()
        self.losses: list[float] = []
        self.sentence = ""

    def update(self, first: int, size: int) -> bool:
        """One batch, used ``reuse`` times; False if the run has diverged."""
        index, passes = self.stream.take(first, size)
        batch = self.prepared.train.batch(index, passes, self.config.seed)
        batch = _tree.to(batch, self.prepared.device, DTYPES[self.config.precision])
        assert self.config.learning_rate is not None
        assert isinstance(self.config.samples, int)
        rate = self.config.learning_rate * self.rate(first / self.config.samples)
        numbers = self.numbers._replace(learning_rate=torch.full_like(self.numbers.learning_rate, rate))
        for _ in range(self.config.reuse):
            with self._named_forward():
                progress, loss = self.step(self.progress, numbers, batch, self.key + self.updates)
            if not self._is_finite(loss):
                return False
            self.progress, self.updates = progress, self.updates + 1
        self.samples = first + size
        return True

    def _named_forward(self) -> contextlib.AbstractContextManager[None]:
        """Name what the forward pass draws from torch's global generator, if it draws from it."""
        if not self.capability.moves_generator:
            return contextlib.nullcontext()
        return _random.seeded(self.config.seed, "forward", self.updates)

    def _is_finite(self, loss: Tensor) -> bool:
        value = float(loss)
        self.losses.append(value)
        if math.isfinite(value) and (self.updates % 64 or _all_finite(self.progress)):
            return True
        # A loss that is not finite may come from a parameter that the update before made so.
        self.updates += 1 if _all_finite(self.progress) else 0
        self.sentence = diverged_at(self.updates)
        return False

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

    def result(self, seconds: float) -> RunResult:
        """What the run left behind."""
        if not self.sentence and not _all_finite(self.progress):
            self.sentence = diverged_at(self.updates)
        series = self.recorder.series()
        status = Status.DIVERGED if self.sentence else status_of(series["loss"].values.tolist())
        sentence = self.sentence or ("" if status is Status.OK else NOT_LEARNED)
        processed = self.samples * self.config.reuse
        return RunResult(
            self.config, status, sentence, self.updates, self.samples, processed, seconds, "loop", series
        )

    def state(self) -> RunState:
        """Where the run stands."""
        progress = _pytree.tree_map(
            lambda leaf: leaf.detach().to("cpu", copy=True).contiguous(), self.progress
        )
        return RunState(progress, self.samples, self.updates)


NOT_LEARNED = "did not learn: the validation loss was never below its start"


def status_of(losses: list[float]) -> Status:
    """``did not learn`` if no validation loss lies below the first.

    Example:
        >>> str(status_of([2.0, 2.5, 2.1]))
        'did not learn'
    """
    return Status.OK if len(losses) < 2 or min(losses[1:]) < losses[0] else Status.DID_NOT_LEARN


def diverged_at(update: int) -> str:
    """The sentence of a diverged run; updates count from 1."""
    return f"diverged at update {update}: the loss or a parameter is not finite"


def program_of(config: RunConfig, objective: Objective, capability: Capability) -> Program:
    """The program of a resolved run."""
    return Program(
        objective, rule_of(config), config.clip_norm, config.precision == "bfloat16", capability.dropout
    )


def loaded(objective: Objective, progress: Progress) -> Objective:
    """A private copy of the model with the current parameters and buffers in it."""
    own = copy.deepcopy(objective)
    values = progress.params | progress.buffers
    with torch.no_grad():
        for name, tensor in [*own.named_parameters(), *own.named_buffers()]:
            tensor.copy_(values[name])
    return own


def _channels_last(progress: Progress) -> Progress:
    """Convolution kernels in channels_last: the kernels, and through them the activations, follow that layout."""

    def convert(leaf: Tensor) -> Tensor:
        return leaf.contiguous(memory_format=torch.channels_last) if leaf.ndim == 4 else leaf

    return _pytree.tree_map(convert, progress)


def _all_finite(progress: Progress) -> bool:
    return all(bool(torch.isfinite(leaf).all()) for leaf in progress.params.values())


