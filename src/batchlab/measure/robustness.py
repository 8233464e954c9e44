"""How the metric of trained models changes with noisy inputs and weights, brightness, shift and
drift; and with wrong labels or fewer examples in training.

Validation data throughout. Evaluation mode, batch by batch as in training's own evaluations;
weights, buffers and random state are bit for bit what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunState, Trace
from batchlab.engine.cell import one_thread
from batchlab.engine.evaluate import Evaluator
from batchlab.engine.job import to_device
from batchlab.engine.step import DTYPES, Program, rule_of
from batchlab.engine.workers import Place, can_travel
from batchlab.errors import InvalidValueError, must
from batchlab.measure.disturbance import (
    Disturbance,
    Input,
    Kind,
    disturbed,
    noisy_weights,
)
from batchlab.samplers import Blocks
from batchlab.tasks import Metric, Objective, Prepared, Task
from batchlab.tasks.altered import has_classes, targets_of, with_fewer, with_wrong_labels
from batchlab.tasks.source import Source
from batchlab.tasks.task import outputs_of
from batchlab.types import Params, Tree

Change = Callable[[Params], Params]


@dataclass(frozen=True)
class TwoViews:
    """Batches as pairs: as they are, for loss and metric; and disturbed, for the model.

    Attributes:
        source: Where the examples come from.
        inputs: Which leaves are disturbed.
        what: How.
        draw: Which draw, or direction.
        seed: Names the noise.
    """

    source: Source
    inputs: tuple[Input, ...]
    what: Disturbance
    draw: int
    seed: int

    @property
    def in_memory(self) -> bool:
        """As the source."""
        return self.source.in_memory

    @property
    def blocks(self) -> Blocks | None:
        """As the source."""
        return self.source.blocks

    @property
    def examples(self) -> int:
        """N."""
        return self.source.examples

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`batchlab.tasks.source.Source`."""
        clean = self.source.batch(index, passes, seed)
        first = int(index[0])
        return clean, disturbed(clean, self.inputs, self.what, self.draw, first, self.seed)

    def elements(self) -> Int[Tensor, " N"]:
        """See :class:`batchlab.tasks.source.Source`."""
        return 2 * self.source.elements()


def of_two_views(task: Task) -> Task:
    """The task on pairs of batches: the model reads the second, loss, weight and metric the first.

    A ``training_step``, which is model and loss in one, reads the second.

    Args:
        task: The user's task.
    """
    metric, loss, step, weight = task.resolved_metric(), task.loss, task.training_step, task.weight
    score = metric.function
    scored = None if score is None else lambda outputs, pair: score(outputs, pair[0])
    return replace(
        task,
        forward=lambda model, pair: outputs_of(task, model, pair[1]),
        loss=None if loss is None else lambda outputs, pair: loss(outputs, pair[0]),
        training_step=None if step is None else lambda model, pair: step(model, pair[1]),
        weight=None if weight is None else lambda pair: weight(pair[0]),
        metric=replace(metric, function=scored),
    )


def scores(
    prepared: Prepared,
    config: RunConfig,
    states: Sequence[RunState],
    what: Disturbance | None = None,
    inputs: Sequence[Input] = (),
    seed: int = 0,
) -> list[float]:
    """The metric of trained runs on validation data, mean over the draws of a disturbance.

    Args:
        prepared: The task.
        config: The runs' recipe; its precision is that of the evaluation.
        states: Where they ended. R of them.
        what: A disturbance that needs no training, or None for clean data.
        inputs: What is disturbed, from :func:`batchlab.measure.disturbance.inputs_of`.
        seed: Names the noise: the same draws for every state and for every call.

    Returns:
        R values; NaN where predictions are.

    Raises:
        InvalidValueError: If the disturbance needs trainings of its own.
    """
    if what is not None and what.in_training:
        hint = "Train on `altered(prepared, what)` instead."
        raise InvalidValueError(must("what", "no change of the training data", what.id, hint))
    draws = 1 if what is None else what.draws
    with one_thread(prepared.device):
        each = [_once(prepared, config, states, what, inputs, draw, seed) for draw in range(draws)]
    return [sum(values) / draws for values in zip(*each, strict=True)]


def _once(
    prepared: Prepared,
    config: RunConfig,
    states: Sequence[RunState],
    what: Disturbance | None,
    inputs: Sequence[Input],
    draw: int,
    seed: int,
) -> list[float]:
    """The metric of every run under one draw."""
    if what is None or what.kind is Kind.WEIGHT_NOISE:
        size = 0.0 if what is None else what.size
        change = None if what is None else lambda p: noisy_weights(p, size, draw, seed)
        return _evaluated(prepared, prepared.task, prepared.validation, config, states, change)
    source = TwoViews(prepared.validation, tuple(inputs), what, draw, seed)
    return _evaluated(prepared, of_two_views(prepared.task), source, config, states, None)


def _evaluated(
    prepared: Prepared,
    task: Task,
    source: Source,
    config: RunConfig,
    states: Sequence[RunState],
    change: Change | None,
) -> list[float]:
    """The metric of every run on a source, its parameters changed first."""
    program = program_on(prepared, task, config)
    metric: Metric = task.resolved_metric()
    evaluator = Evaluator(source, metric, prepared.device, DTYPES[config.precision])
    found = []
    for state in states:
        params, buffers, _ = to_device(state.progress, prepared.device)
        params = params if change is None else change(params)
        with torch.no_grad():
            values = evaluator(lambda batch, p=params, b=buffers: program.evaluate(p, b, batch))
        found.append(values[0]["metric"])
    return found


def program_on(prepared: Prepared, task: Task, config: RunConfig) -> Program:
    """The model of a recipe in evaluation mode, with the loss and the metric of a task.

    Args:
        prepared: Whose model it is.
        task: Whose loss and metric.
        config: Seed and precision.
    """
    module = prepared.objective(config.seed, DTYPES[config.precision], config.gamma).module
    objective = Objective(task, module).eval()
    autocast = config.precision == "bfloat16"
    return Program(objective, rule_of(config, task), config.clip_norm, autocast, False)


def not_trainable(prepared: Prepared, what: Disturbance, batch_size: int) -> str:
    """Why trainings with such data cannot be made, as a code; empty if they can.

    Args:
        prepared: The task.
        what: Wrong labels or less data.
        batch_size: Largest of the settings.

    Returns:
        ``no targets``: none are found, or there are several an example; ``less than a batch``.
    """
    if what.kind is Kind.LESS_DATA:
        few = _fewer(prepared, what) < batch_size
        return "less than a batch" if few else ""
    targets = targets_of(prepared.train)
    return "no targets" if targets is None or has_classes(targets) is None else ""


def altered(prepared: Prepared, what: Disturbance, seed: int = 0) -> Prepared:
    """The task with its training data changed; validation data stays clean.

    The recipe stays as it is, the number of samples included: a tenth of the data is seen ten
    times as often, in as many updates.

    Args:
        prepared: The task.
        what: Wrong labels or less data.
        seed: Names the draw: the same data for every run.
    """
    if what.kind is Kind.LESS_DATA:
        return replace(prepared, train=with_fewer(prepared.train, _fewer(prepared, what), seed))
    return replace(prepared, train=with_wrong_labels(prepared.train, what.size, seed))


def _fewer(prepared: Prepared, what: Disturbance) -> int:
    return max(1, round(what.size * prepared.examples))


def train_altered(
    prepared: Prepared,
    what: Disturbance,
    configs: Sequence[RunConfig],
    job: Job,
    *,
    out: Path | None = None,
    workers: int | None = None,
    on: Place | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> tuple[Trace, list[str]]:
    """Train runs on changed data.

    Args:
        prepared: The task.
        what: Wrong labels or less data.
        configs: Resolved runs.
        job: When to evaluate.
        out: Folder of these trainings; what is finished there is read.
        workers: Worker processes; none where the data cannot be sent to them.
        on: Machines that train, where the data can be sent to them.
        seed: Names the draw of the data.
        progress: Told the share that is done.

    Returns:
        The trace, and what had to be done otherwise than planned.
    """
    changed = altered(prepared, what, seed)
    travels = can_travel(changed)
    count = workers if workers == 0 or travels else 0
    folder = None if out is None else out / what.id.replace(" ", "-")
    with Engine(changed, folder, count, on=on if travels else None) as engine:
        trace, _ = engine.train(configs, job, progress=progress)
        return trace, engine.hear()
