"""The loop executor: run by run, in plain eager PyTorch."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

from batchlab import _random, _tree
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.job import (
    Job,
    RunState,
    from_arrays,
    probe_of,
    stops,
    to_arrays,
    to_device,
    updates_of,
)
from batchlab.engine.step import (
    DTYPES,
    Program,
    Progress,
    Step,
    bind,
    make_bound_step,
    make_step,
    numbers_of,
    rule_of,
    start_of,
)
from batchlab.engine.trace import Recorder, RunResult, Series
from batchlab.optim import IN_PLACE
from batchlab.tasks import Objective, Prepared
from batchlab.tasks.source import Stacked
from batchlab.types import Params, Status, Tree

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
    checkpoint: Checkpoint | None = None,
) -> tuple[RunResult, RunState | None]:
    """Train one run to its end, or until it diverges.

    Args:
        prepared: The task.
        config: A resolved run.
        job: When to evaluate and probe.
        capability: What the model needs.
        start: Where to go on from, or None.
        tick: Told the share that is done.
        checkpoint: Where the state is kept meanwhile.

    Returns:
        The result, and the state at the end if it was asked for and the run has not diverged.
    """
    run, keeper = Alone(prepared, config, job, capability, start), checkpoint or Checkpoint(None)
    found = keeper.load()
    if found is None:
        run.record()
    else:
        run.restore(*found)
    for first, size in run.plan[run.done :]:
        run.update(first, size)
        if run.diverged:
            return run.result(), None
        run.record()
        if tick is not None and (run.done - 1) % TICK_UPDATES == 0:
            tick((run.done - 1) / len(run.plan))
        if keeper.due():
            keeper.save(*run.saved())
    return run.result(), run.state() if job.keep_end else None


class Alone:
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
        self.objective = prepared.objective(config.seed, dtype, config.gamma).train()
        self.program = program_of(config, self.objective, capability)
        self.bound = prepared.device == "cpu" and self.program.rule.name in IN_PLACE
        fresh = start_of(self.objective, self.program.rule)
        # A copy: the state that was handed in may start other runs too.
        self.progress = (
            fresh
            if start is None
            else _pytree.tree_map(torch.clone, to_device(start.progress, prepared.device))
        )
        if capability.convolutions:
            self.progress = _channels_last(self.progress)
        kernels = {n: p for n, p in self.progress.params.items() if p.ndim == 4}
        self.layout = {n: _stride_of(p) for n, p in kernels.items() if capability.convolutions}
        self.progress = self.progress._replace(params=self._laid_out(self.progress.params))
        self.step = self._bound_step() if self.bound else make_step(self.program)
        self.samples, self.updates = (0, 0) if start is None else (start.samples, start.updates)
        self.diverged = False
        self.evaluator = Evaluator(prepared.validation, prepared.metric, prepared.device, dtype)
        self.numbers = numbers_of(config, next(iter(self.progress.params.values())))
        self.multiplier = config.multiplier(prepared.examples)
        self.stream = prepared.stream(config.seed)
        self.key = torch.tensor(dropout_key(config.seed), device=prepared.device)
        self.plan = updates_of(config, prepared.examples, self.samples, job.until)
        self.done = 0
        self.evaluations = stops(self.plan, self.samples, job.evaluate_at)
        if self.plan:
            self.evaluations |= {len(self.plan)}
        self.probes = stops(self.plan, self.samples, job.probe_at)
        self.recorder = Recorder()
        self.losses: list[float] = []

    def update(self, first: int, size: int) -> None:
        """One batch, used ``reuse`` times, or until the run diverges."""
        batch = self._batch(first, size)
        rate = self.numbers.learning_rate * self.multiplier(first)
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
            if not self.bound:
                self.progress = progress._replace(params=self._laid_out(progress.params))
            self.losses.append(float(loss))
        self.samples, self.done = first + size, self.done + 1

    def _bound_step(self) -> Step:
        bind(self.objective, self.progress)
        return make_bound_step(self.program)

    def _laid_out(self, params: Params) -> Params:
        """Kernels in channels_last once more: where there is one channel, an update loses track of
        the order, and activations would change theirs with it.
        """
        if not self.layout:
            return params
        return {
            name: value
            if value.stride() == self.layout.get(name, value.stride())
            else torch.empty_strided(
                value.shape, self.layout[name], dtype=value.dtype, device=value.device
            ).copy_(value)
            for name, value in params.items()
        }

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

    def record(self) -> None:
        """Evaluate and probe if their moment has come."""
        if self.done in self.evaluations:
            values = self._evaluate()
            if self.losses:
                values["train_loss"] = sum(self.losses) / len(self.losses)
                self.losses.clear()
            self.recorder.add(self.updates, self.samples, values)
        if self.job.probe is not None and self.done in self.probes:
            with _random.seeded(self.config.seed, "probe", self.updates):
                probe = probe_of(self.job.probe, self.config)
                found = probe(loaded(self.objective, self.progress), self.samples)
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
            together=1,
            series=self.recorder.series(),
        )

    def state(self) -> RunState:
        """Where the run stands."""
        progress = _pytree.tree_map(
            lambda leaf: leaf.detach().to("cpu", copy=True).contiguous(), self.progress
        )
        return RunState(progress, self.samples, self.updates)

    def saved(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All that :meth:`restore` needs."""
        facts = {
            "done": self.done,
            "samples": self.samples,
            "updates": self.updates,
            "rows": self.recorder.rows,
            "losses": self.losses,
            "seconds": time.perf_counter() - self.began,
        }
        return facts, to_arrays("now", self.progress)

    def restore(self, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Go on from what :meth:`saved` gave."""
        self.done, self.samples, self.updates = (facts[n] for n in ("done", "samples", "updates"))
        self.recorder, self.losses = Recorder(facts["rows"]), facts["losses"]
        self.began -= facts["seconds"]
        found = from_arrays("now", arrays, self.progress)
        self.progress = to_device(found, self.prepared.device)
        if self.capability.convolutions:
            self.progress = _channels_last(self.progress)
        self.progress = self.progress._replace(params=self._laid_out(self.progress.params))
        if self.bound:
            self.step = self._bound_step()


def result_of(
    config: RunConfig,
    *,
    diverged: bool,
    updates: int,
    samples: int,
    seconds: float,
    executor: str,
    together: int,
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
        together: Runs that trained at a time.
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
    return RunResult(
        config,
        status,
        sentences[status],
        updates,
        samples,
        processed=samples * config.reuse,
        seconds=seconds,
        executor=executor,
        together=together,
        series=series,
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
    rule = rule_of(config, objective.task)
    dropout, micro = capability.dropout, config.micro_batch_size
    return Program(objective, rule, config.clip_norm, autocast, dropout, micro)


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


def _stride_of(kernel: Tensor) -> tuple[int, ...]:
    """Strides of channels_last, which torch leaves open where there is one channel."""
    _, inputs, height, width = kernel.shape
    return inputs * height * width, 1, inputs * width, inputs


def _channels_last(progress: Progress) -> Progress:
    """Convolution kernels in channels_last; through them the activations follow that layout."""

    def convert(leaf: Tensor) -> Tensor:
        return leaf.contiguous(memory_format=torch.channels_last) if leaf.ndim == 4 else leaf

    return _pytree.tree_map(convert, progress)
