"""What is trained: the user's own model, data, loss, metric and recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from batchlab import _tree
from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.rules import Scales
from batchlab.types import Tree


@dataclass(frozen=True)
class Metric:
    """A number computed from *all* predictions at once, with its direction.

    Attributes:
        name: What it is called in the report.
        function: ``(outputs, batch) → float`` over the whole evaluation set, on the CPU. None
            stands for the mean loss per unit of weight.
        maximise: Whether more is better.
        unit: ``"%"`` if the value is a share in [0, 1] to be shown × 100; else a unit or empty.

    Example:
        >>> Metric("accuracy", accuracy, maximise=True, unit="%").name
        'accuracy'
    """

    name: str
    function: Callable[[Tree, Tree], float] | None
    maximise: bool
    unit: str = ""


def target_of(batch: Tree) -> Tensor:
    """The target in a batch by convention.

    The last of a tuple, or the entry ``target``, ``label``, ``labels`` or ``y``.

    Example:
        >>> target_of((torch.zeros(2, 3), torch.tensor([0, 1])))
        tensor([0, 1])
    """
    if isinstance(batch, tuple | list) and len(batch) > 1:
        return batch[-1]
    if isinstance(batch, dict):
        for name in ("target", "label", "labels", "y"):
            if name in batch:
                return batch[name]
    hint = "Give `metric=Metric(name, function, maximise=…)` that finds it itself."
    raise InvalidTypeError(
        must("batch", "(inputs, target) for a built-in metric", type(batch).__name__, hint)
    )


def with_target(batch: Tree, target: Tensor) -> Tree:
    """The same batch with another target, where :func:`target_of` finds it.

    Example:
        >>> with_target({"x": torch.zeros(2), "y": torch.zeros(2)}, torch.ones(2))["y"]
        tensor([1., 1.])
    """
    old = target_of(batch)
    if isinstance(batch, dict):
        return {name: target if value is old else value for name, value in batch.items()}
    whole = (*batch[:-1], target)
    return type(batch)(*whole) if hasattr(batch, "_fields") else type(batch)(whole)


OWN_METRIC = "Or give `metric=Metric(name, function, maximise=…)`."


def accuracy(outputs: Tensor, batch: Tree) -> float:
    """Share of examples whose largest output is the label (or whose sign is, for one output)."""
    target = target_of(batch)
    if outputs.ndim == 1 or outputs.shape[-1] == 1:
        if bool((target.double().abs() > 1).any()):
            wanted = "0 or 1 (or ±1) where the model has one output"
            found = f"values from {float(target.min()):g} to {float(target.max()):g}"
            raise InvalidValueError(must("target", wanted, found, OWN_METRIC))
        return float(((_as(target, outputs) > 0) == (target > 0.5)).double().mean())
    chosen = outputs.argmax(-1)
    labels = target.squeeze(-1) if target.ndim > chosen.ndim else target
    if labels.shape != chosen.shape:
        wanted = f"one label for each of the predictions, shape {list(chosen.shape)}"
        raise InvalidValueError(must("target", wanted, f"shape {list(target.shape)}", OWN_METRIC))
    return float((chosen == labels).double().mean())


def _as(target: Tensor, outputs: Tensor) -> Tensor:
    """Outputs in the shape of the target, so that nothing is broadcast."""
    if outputs.numel() != target.numel():
        wanted = f"one number for each output, shape {list(outputs.shape)}"
        raise InvalidValueError(must("target", wanted, f"shape {list(target.shape)}", OWN_METRIC))
    return outputs.reshape(target.shape)


def mse(outputs: Tensor, batch: Tree) -> float:
    """Mean squared error over all examples and outputs."""
    target = target_of(batch)
    return float((_as(target, outputs) - target).double().square().mean())


def r2(outputs: Tensor, batch: Tree) -> float:
    """1 − Σ(y − ŷ)²/Σ(y − ȳ)²: the share of the target's variance that is explained."""
    target = target_of(batch).double()
    residual = (_as(target, outputs.double()) - target).square().sum()
    return float(1 - residual / (target - target.mean(0)).square().sum())


METRICS = {
    "accuracy": Metric("accuracy", accuracy, maximise=True, unit="%"),
    "loss": Metric("loss", None, maximise=False),
    "mse": Metric("mse", mse, maximise=False),
    "r2": Metric("r2", r2, maximise=True),
}


@dataclass(frozen=True)
class Task:
    """A model, its data, its loss, its metric, and the recipe it is trained with today.

    Attributes:
        model: Factory without arguments that returns a freshly initialised module.
        train: Training data: a tree of tensors whose leaves start with the examples, or a
            map-style Dataset.
        validation: The same; every decision reads it. Left out, 15 % of ``train`` are split off
            once.
        test: The same; looked at once, for the finalists.
        loss: ``(outputs, batch) → losses`` of shape ``[B]``: one loss per example.
        training_step: Instead of ``loss``: ``(model, batch) → `` scalar mean over the batch.
        metric: ``accuracy``, ``loss``, ``mse``, ``r2`` or a :class:`Metric`. Left out: the
            validation loss.
        forward: ``(model, batch) → outputs``; by default ``model(batch[0])``.
        collate: List of examples → batch, for data sets whose examples differ in shape.
        weight: ``batch → weights`` of shape ``[B]`` (ones by default, token counts for text); the
            loss is Σwℓ/Σw, 0 for a batch in which nothing counts. With ``training_step``, its
            denominator.
        unit: What an example is called.
        baseline: The recipe used today.
        groups: Parameter → multiples of the learning rate and of the weight decay that are its
            own, such as ``{"0.bias": Scales(weight_decay=0)}``; the others have the recipe's.
        notes: What was assumed where a recipe was read from elsewhere, a sentence each; they stand
            before what :func:`batchlab.tasks.prepare` assumes.
        inputs: Keys, or places, of the entries of a batch that the model reads as numbers, where
            robustness is measured and ``forward`` is the user's own; left out, all floating-point
            ones but the target and masks.
        columns: Names of the input's columns, where it is a table.
        name: Name in reports.
        framework: What the user's own script trains with: ``pytorch``, ``lightning`` or
            ``huggingface``.
        origin: How another process finds this very task again; set by
            :func:`batchlab.tasks.load`, and None in what ``dataclasses.replace`` makes of one: no
            file returns that.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> data = torch.randn(40, 2), torch.arange(40) % 2
        >>> task = Task(lambda: nn.Linear(2, 2), data, metric="accuracy",
        ...             loss=lambda out, batch: cross_entropy(out, batch[1], reduction="none"))
        >>> task.unit
        'examples'
    """

    model: Callable[[], nn.Module]
    train: Any
    validation: Any = None
    test: Any = None
    loss: Callable[[Tree, Tree], Tensor] | None = None
    training_step: Callable[[nn.Module, Tree], Tensor] | None = None
    metric: str | Metric | None = None
    forward: Callable[[nn.Module, Tree], Tree] | None = None
    collate: Callable[[list[Any]], Tree] | None = None
    weight: Callable[[Tree], Tensor] | None = None
    unit: str = "examples"
    baseline: RunConfig = field(default_factory=RunConfig)
    groups: Mapping[str, Scales] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inputs: tuple[str | int, ...] | None = None
    columns: tuple[str, ...] | None = None
    name: str = "task"
    framework: str = "pytorch"
    origin: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        _check_callables(self)
        if isinstance(self.metric, str) and self.metric not in METRICS:
            hint = "Or give a batchlab.Metric."
            raise InvalidValueError(
                must("metric", f"one of {', '.join(METRICS)}", self.metric, hint)
            )
        if not isinstance(self.metric, str | Metric | None):
            hint = "Write Metric(name, function, maximise=True)."
            raise InvalidTypeError(must("metric", "a name or a Metric", self.metric, hint))
        if not isinstance(self.baseline, RunConfig):
            raise InvalidTypeError(must("baseline", "a RunConfig", self.baseline))
        _check_groups(self.groups)

    def resolved_metric(self) -> Metric:
        """The metric as a record; the loss if none was given."""
        if self.metric is None:
            return METRICS["loss"]
        return METRICS[self.metric] if isinstance(self.metric, str) else self.metric


def _check_callables(task: Task) -> None:
    """The factory and exactly one of loss and training_step."""
    if isinstance(task.model, nn.Module):
        hint = "Write `model=lambda: MyModel()`, so that every seed starts from its own weights."
        raise InvalidTypeError(must("model", "a function that returns a module", "a module", hint))
    for name in ("model", "loss", "training_step", "forward", "collate", "weight"):
        value = getattr(task, name)
        if value is not None and not callable(value):
            raise InvalidTypeError(must(name, "a function", value))
    if (task.loss is None) == (task.training_step is None):
        given = "neither" if task.loss is None else "both"
        hint = "`loss` gives one loss per example; `training_step` a scalar mean over the batch."
        raise InvalidValueError(must("loss", "given, or training_step, and not both", given, hint))
    if (
        task.training_step is not None
        and task.forward is None
        and task.metric not in (None, "loss")
    ):
        hint = "Give `forward=`, or use metric='loss'."
        raise InvalidValueError(
            must("metric", "'loss' where only a training_step is given", task.metric, hint)
        )


def _check_groups(groups: Mapping[str, Scales]) -> None:
    known = isinstance(groups, Mapping) and all(
        isinstance(name, str) and isinstance(scales, Scales) for name, scales in groups.items()
    )
    if not known:
        hint = "Write {'name of a parameter': Scales(learning_rate=…, weight_decay=…)}."
        raise InvalidTypeError(must("groups", "a Scales for each name", groups, hint))


class Objective(nn.Module):
    """The model with its loss, as one module, so that functional calls reach all the user wrote.

    ``forward(batch)`` returns ``(losses [B] or the step's scalar [], weights [B] or their sum
    [])``.
    """

    def __init__(self, task: Task, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.task = task

    def forward(self, batch: Tree, *, predict: bool = False) -> tuple[Any, ...]:
        """Losses and weights of a batch.

        With ``predict``, the predictions before them: None if the metric needs none.
        """
        task = self.task
        if task.training_step is not None:
            step = task.training_step(self.module, batch), total_weight(task, batch)
            needed = predict and task.resolved_metric().function is not None
            return (self.outputs(batch) if needed else None, *step) if predict else step
        outputs = self.outputs(batch)
        found = self.losses(outputs, batch)
        return (outputs, *found) if predict else found

    def losses(self, outputs: Tree, batch: Tree) -> tuple[Tensor, Tensor]:
        """Losses and weights of predictions, where the task has a ``loss``."""
        task = self.task
        assert task.loss is not None
        losses = task.loss(outputs, batch)
        weights = torch.ones_like(losses) if task.weight is None else task.weight(batch)
        return losses, weights

    def outputs(self, batch: Tree) -> Tree:
        """The model's predictions on a batch."""
        return outputs_of(self.task, self.module, batch)


def outputs_of(task: Task, module: nn.Module, batch: Tree) -> Tree:
    """A model's predictions on a batch, by the task's forward."""
    return module(batch[0]) if task.forward is None else task.forward(module, batch)


def total_weight(task: Task, batch: Tree) -> Tensor:
    """Σw of a batch, shape ``[]``: the denominator of its mean loss. Needs no forward pass."""
    if task.weight is not None:
        return task.weight(batch).sum()
    leaf = _tree.leaves(batch)[0]
    return torch.tensor(float(len(leaf)), device=leaf.device)


def weighted_sum(losses: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Σwℓ and Σw, in float32 at least: bfloat16 counts to 256 only.

    Example:
        >>> weighted_sum(torch.ones(301, dtype=torch.bfloat16), torch.ones(301))[0]
        tensor(301.)
    """
    wide = torch.promote_types(losses.dtype, torch.float32)
    weights = weights.to(wide)
    return (losses.to(wide) * weights).sum(), weights.sum()
