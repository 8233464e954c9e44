"""Check a task before any training, split off validation data, and fill in the recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from batchlab import _random, _tree, schedules
from batchlab.config import RunConfig
from batchlab.errors import (
    InvalidTypeError,
    InvalidValueError,
    TaskError,
    UserError,
    located,
    must,
    reason,
)
from batchlab.models.feature_strength import FeatureStrength
from batchlab.samplers import Stream
from batchlab.tasks.source import (
    LOOKED_AT,
    Source,
    Stacked,
    Streamed,
    Subset,
    make_source,
    part_of,
)
from batchlab.tasks.split import subset_indices
from batchlab.tasks.task import METRICS, OWN_METRIC, Metric, Objective, Task, target_of
from batchlab.types import Tree

VALIDATION_SHARE = 0.15
LEAST_EXAMPLES = 20
CHECKED_EXAMPLES = 512  # read at once, and in all from data that is streamed


@dataclass(frozen=True)
class Drawn:
    """What a part of the training data was drawn from; made by
    :func:`batchlab.tasks.subset.subset_of`.

    Attributes:
        subset: What was asked for, such as ``10%`` or ``5000``.
        seed: Names the draw.
        whole: The task with all its training data.
    """

    subset: str
    seed: int
    whole: Prepared


@dataclass(frozen=True)
class Prepared:
    """A task that has passed every check, with its data ready to be drawn.

    Attributes:
        task: As the user gave it.
        train: Training examples.
        validation: What every decision reads.
        test: Looked at once, or None.
        baseline: The recipe with nothing left open.
        metric: The metric.
        assumptions: Sentences about what was filled in.
        device: Where training runs.
        drawn: What ``train`` is a part of, or None where it is everything.
    """

    task: Task
    train: Source
    validation: Source
    test: Source | None
    baseline: RunConfig
    metric: Metric
    assumptions: tuple[str, ...]
    device: str
    drawn: Drawn | None = None

    @property
    def examples(self) -> int:
        """Training examples N."""
        return self.train.examples

    def stream(self, seed: int) -> Stream:
        """The order of the training examples; of blocks where they are read so."""
        return Stream(self.examples, seed, self.train.blocks)

    def objective(
        self, seed: int, dtype: torch.dtype = torch.float32, gamma: float | None = None
    ) -> Objective:
        """A freshly initialised model with its loss, on the device; the same for the same seed.

        With ``gamma`` it is centred at this start and divided by γ.
        """
        with _random.seeded(seed, "init"):
            module = self.task.model()
        return _objective(self.task, module, gamma).to(self.device, dtype)


def _objective(task: Task, module: torch.nn.Module, gamma: float | None) -> Objective:
    """The model, centred and divided where there is a γ, with its loss."""
    return Objective(task, module if gamma is None else FeatureStrength(module, gamma))


def prepare(task: Task, *, device: str = "auto") -> Prepared:
    """Read the data, split, check one batch through model and loss, and resolve the baseline.

    Args:
        task: The user's task.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` or a torch device.

    Returns:
        A task ready to be trained.

    Raises:
        TaskError: With one sentence about what is wrong.

    Example:
        >>> from torch.nn.functional import mse_loss
        >>> x = torch.randn(100, 3)
        >>> task = Task(lambda: torch.nn.Linear(3, 1), (x, x[:, :1]), metric="r2",
        ...             loss=lambda out, batch: mse_loss(out, batch[1], reduction="none").mean(-1))
        >>> prepare(task).validation.examples
        15
    """
    if not isinstance(task, Task):
        raise InvalidTypeError(must("task", "a batchlab.Task", type(task).__name__))
    with _random.seeded(0, "prepare"):
        train, validation, said = _sources(task)
        test = None if task.test is None else make_source(task.test, task.collate, "test")
    try:
        baseline = task.baseline.resolved(train.examples)
    except InvalidValueError as error:
        raise TaskError(f"The baseline: {error}") from None
    said = task.notes + said + task.baseline.assumptions()
    if task.metric is None:
        said += ("the task names no metric: the validation loss is used",)
    said += _rates_of_groups(task)
    read = train.source if isinstance(train, Subset) else train
    if isinstance(read, Streamed) and read.examples > LOOKED_AT:
        said += (f"what fits is tried with the longest of {LOOKED_AT} examples looked at",)
    if baseline.gamma is not None:
        said += (f"the model is trained as (f − its start)/γ with γ = {baseline.gamma:g}",)
    prepared = Prepared(
        task,
        train,
        validation,
        test,
        baseline,
        task.resolved_metric(),
        said,
        resolve_device(device),
    )
    check(prepared)
    return prepared


def _rates_of_groups(task: Task) -> tuple[str, ...]:
    """What a learning rate means for parameters that have a multiple of it."""
    scales = [s.learning_rate for s in task.groups.values() if s.learning_rate != 1]
    counts = {value: scales.count(value) for value in sorted(scales)}
    return tuple(
        f"the learning rate is multiplied by {value:g} for {count} parameter{'s' * (count > 1)}"
        for value, count in counts.items()
    )


def resolve_device(device: str) -> str:
    """``auto`` → the best device there is.

    Example:
        >>> resolve_device("cpu")
        'cpu'
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidValueError(
            must("device", "one this machine has", device, f"torch says: {reason}.")
        ) from None
    return device


def _sources(task: Task) -> tuple[Source, Source, tuple[str, ...]]:
    train = make_source(task.train, task.collate, "train")
    if train.examples < LEAST_EXAMPLES:
        hint = "Batch sizes cannot be compared on fewer."
        raise TaskError(must("train", f"at least {LEAST_EXAMPLES} examples", train.examples, hint))
    if task.validation is not None:
        validation = make_source(task.validation, task.collate, "validation")
        if validation.examples == 0:
            hint = "Leave it out to split train."
            raise TaskError(must("validation", "at least one example", 0, hint))
        return train, validation, ()
    kept, held = split(labels_of(train), train.examples)
    kept_back = f"{len(held):,} of {train.examples:,} training examples"
    said = f"no validation data: {kept_back} are kept for it"
    if train.blocks is not None:
        said += ", which reads every shard for each evaluation: `validation=` would be faster"
    return part_of(train, kept), part_of(train, held), (said,)


def split(labels: Tensor | None, examples: int) -> tuple[Tensor, Tensor]:
    """15 % of the examples, the same share of every class, always the same ones.

    Args:
        labels: Class of each example, shape ``[N]``, or None.
        examples: N.

    Returns:
        Indices that stay in training and indices held out, both ascending.

    Example:
        >>> kept, held = split(torch.arange(100) % 2, 100)
        >>> len(kept), (held % 2).sum().item()
        (85, 8)
    """
    count = max(1, round(VALIDATION_SHARE * examples))
    held = torch.zeros(examples, dtype=torch.bool)
    held[subset_indices(labels, examples, count)] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def labels_of(source: Source) -> Tensor | None:
    """The class of each example, if the target is whole numbers in memory.

    Args:
        source: Training data.
    """
    if not isinstance(source, Stacked):
        return None
    try:
        target = target_of(source.tree)
    except InvalidTypeError:
        return None
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    return target if target.ndim == 1 and not target.is_floating_point() else None


def check(prepared: Prepared) -> None:
    """One small batch through everything, in evaluation mode, before any training.

    Raises:
        TaskError: With one sentence about what is wrong.
    """
    check_sizes(prepared)
    for source, name in _named(prepared):
        _check_finite(source, name)
    if prepared.device.startswith("cuda"):
        # There a label out of range is no IndexError, and the device is lost to the process.
        there = replace(prepared, device="cpu")
        _check_ends(there, _build(there))
    objective = _build(prepared)
    batch = first_batch(prepared)
    with _random.seeded(0, "check"):
        _check_range(prepared, objective)
        losses = check_loss(objective, batch)
        _check_metric(prepared, objective, batch)
        with torch.no_grad():
            if prepared.task.training_step is not None:
                _check_halves(objective, batch, losses)
            else:
                _check_apart(objective, batch, losses)
        _check_ends(prepared, objective)
        _check_others(prepared, objective)


def check_loss(objective: Objective, batch: Tree) -> Tensor:
    """One batch through model and loss: tensors of the promised shapes, finite, differentiable.

    Args:
        objective: Model and loss, in the mode to be checked.
        batch: On the model's device.

    Returns:
        The losses, shape ``[B]``, or the step's scalar.

    Raises:
        TaskError: With one sentence about what is wrong.
    """
    _check_kind(objective, batch)
    losses, weights = _run(objective, batch)
    _check_loss(objective.task, losses, weights, _tree.size(batch))
    return losses


def check_sizes(prepared: Prepared) -> None:
    """Every batch is at most the data, and the budget at least one batch.

    Args:
        prepared: The task.

    Raises:
        TaskError: With one sentence about what is wrong.
    """
    baseline, examples = prepared.baseline, prepared.examples
    schedule = schedules.batch_schedule(baseline.batch_size or 1).resolve(examples)
    if max(schedule.sizes) > examples:
        said = must("batch_size", f"at most the {examples} training examples", max(schedule.sizes))
        raise TaskError(f"The baseline: {said}")
    first = schedule.at(0)
    if isinstance(baseline.samples, int) and baseline.samples < first:
        hint = "A training is at least one update."
        said = must("samples", f"at least one batch of {first}", baseline.samples, hint)
        raise TaskError(f"The baseline: {said}")


def _check_others(prepared: Prepared, objective: Objective) -> None:
    """Validation and test data go through model and loss as training data does."""
    for source, name in _named(prepared)[1:]:
        batch = _read(source, torch.arange(min(8, source.examples)), name)
        try:
            with torch.no_grad():
                objective(_tree.to(batch, prepared.device, torch.float32))
        except Exception as error:  # the user's own code may raise anything
            said = f"Model or loss raised {located(error)} on {name} data, but not on train."
            raise TaskError(said) from error


def first_batch(prepared: Prepared, count: int = 8) -> Tree:
    """The first training examples, on the device."""
    index = torch.arange(min(count, prepared.examples))
    return _tree.to(_read(prepared.train, index, "train"), prepared.device, torch.float32)


def _read(source: Source, index: Tensor, name: str) -> Tree:
    """A batch whose leaves all start with the examples asked for."""
    try:
        batch = source.batch(index)
    except UserError:
        raise
    except Exception as error:  # the user's own collate may raise anything
        raise TaskError(f"Making a batch of `{name}` raised {located(error)}.") from error
    wrong = [list(leaf.shape) for leaf in _tree.leaves(batch) if leaf.shape[:1] != index.shape]
    if wrong:
        said = must("batch", f"tensors that start with its {len(index)} examples", wrong[0])
        raise TaskError(f"In `{name}`, {said}")
    return batch


def _build(prepared: Prepared) -> Objective:
    modules = []
    for _ in range(2):
        try:
            with _random.seeded(0, "init"):
                modules.append(prepared.task.model())
        except Exception as error:  # the user's own code may raise anything
            raise TaskError(f"`model()` raised {located(error)}.") from error
    module = modules[0]
    if not isinstance(module, torch.nn.Module):
        got = type(module).__name__
        raise TaskError(must("model", "a function that returns a torch.nn.Module", got))
    if module is modules[1]:
        hint = "Build it inside the function, so that every seed starts from its own weights."
        raise TaskError(must("model", "a function that builds a new module", "the same one", hint))
    if not any(p.requires_grad for p in module.parameters()):
        raise TaskError(must("model", "a module with parameters that require gradients", "none"))
    _check_groups(prepared.task, module)
    objective = _objective(prepared.task, module, prepared.baseline.gamma)
    return objective.to(prepared.device).eval()


def _check_groups(task: Task, module: torch.nn.Module) -> None:
    """Numbers of its own only for a parameter there is, by the name it is trained under."""
    names = [name for name, _ in module.named_parameters()]
    unknown = next((name for name in task.groups if name not in names), None)
    if unknown is not None:
        shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        hint = f"The model's parameters are: {shown}."
        raise TaskError(must("groups", "names of the model's parameters", unknown, hint))


def _run(objective: Objective, batch: Tree) -> tuple[Tensor, Tensor]:
    return _guarded(objective, batch)


def _check_kind(objective: Objective, batch: Tree) -> None:
    """What the user's loss returns is a tensor."""
    loss, step = objective.task.loss, objective.task.training_step
    if loss is not None:
        name, made = "loss", _guarded(lambda: loss(objective.outputs(batch), batch))
    else:
        assert step is not None
        name, made = "training_step", _guarded(step, objective.module, batch)
    if not isinstance(made, Tensor):
        raise TaskError(must(name, "a function that returns a tensor", type(made).__name__))


def _guarded(function: Callable[..., Any], *inputs: Any) -> Any:
    """Call the user's code; what it raises becomes one sentence."""
    try:
        return function(*inputs)
    except IndexError as error:
        hint = "Are labels outside 0 … classes − 1?"
        raise TaskError(f"Model or loss raised {located(error)}. {hint}") from error
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise TaskError(f"Model or loss raised {located(error)}.") from error


def _check_loss(task: Task, losses: Tensor, weights: Tensor, size: int) -> None:
    """The loss has the promised shape and is a number."""
    name = "loss" if task.loss is not None else "training_step"
    if task.loss is not None:
        _check_shapes(losses, weights, size)
    elif losses.ndim != 0:
        got = f"shape {list(losses.shape)}"
        raise TaskError(must(name, "a scalar mean over the batch", got))
    if not bool(torch.isfinite(losses).all()):
        hint = "Look at data and loss."
        raise TaskError(
            f"The loss of the untrained model is not finite on the first batch. {hint}"
        )
    if not losses.requires_grad:
        hint = "Do not detach it or compute it outside torch."
        raise TaskError(must(name, "differentiable in the parameters", "a constant", hint))
    if not bool((weights >= 0).all()) or not float(weights.sum()) > 0:
        raise TaskError(must("weight", "0 or more, and not all 0", "other values"))


SPREAD = (
    "as where outputs of shape [B, 1] meet labels of shape [B]: give both the same shape, such as "
    "`outputs.squeeze(1)`"
)


def _check_shapes(losses: Tensor, weights: Tensor, size: int) -> None:
    """One loss and one weight per example."""
    wanted = f"one number per example, shape [{size}]"
    if list(losses.shape) != [size]:
        if losses.ndim == 0:
            hint = 'Use `reduction="none"`, or give the scalar as `training_step=`.'
        else:
            hint = "Average over every axis but the first."
            if losses.shape == (size, size):
                hint = f"Do not average over the second axis if this is {SPREAD}."
        raise TaskError(must("loss", wanted, f"shape {list(losses.shape)}", hint))
    if list(weights.shape) != [size]:
        raise TaskError(must("weight", wanted, f"shape {list(weights.shape)}"))


def _check_apart(objective: Objective, batch: Tree, losses: Tensor) -> None:
    """Outputs of shape ``[B, 1]`` beside labels of shape ``[B]`` spread to ``[B, B]``: averaged
    over the second axis, a loss is that of one output and every label.
    """
    first, whole = _tree.narrow(batch, 0, 1), objective.outputs(batch)
    if not isinstance(whole, Tensor) or whole.shape[1:] != (1,) or len(losses) < 2:
        return
    alone, (loss, _) = objective.outputs(first), _run(objective, first)
    mixed = not torch.allclose(loss, losses[:1], rtol=1e-3, atol=1e-6)
    if mixed and torch.allclose(alone, whole[:1], rtol=1e-3, atol=1e-6):
        got = f"one that changes with the other examples of a batch, {SPREAD}"
        raise TaskError(must("loss", "of each example by itself", got))


def _check_halves(objective: Objective, batch: Tree, whole: Tensor) -> None:
    """A batch equals the weighted mean of its halves, or accumulation would change training."""
    middle = _tree.size(batch) // 2
    if middle == 0:
        return
    halves = [_tree.narrow(batch, 0, middle), _tree.narrow(batch, middle, _tree.size(batch))]
    parts = [_run(objective, half) for half in halves]
    mean = sum(loss * weight for loss, weight in parts) / sum(weight for _, weight in parts)
    if not math.isclose(float(mean), float(whole), rel_tol=1e-4, abs_tol=1e-6):
        hint = "Give `weight=`, the denominator of that mean (such as the number of tokens)."
        got = f"{float(whole):.6g} for a batch whose halves give {float(mean):.6g}"
        raise TaskError(must("training_step", "the weighted mean of its halves", got, hint))


def _check_finite(source: Source, name: str) -> None:
    """No NaN or infinity: in all data in memory, in the first examples of what is streamed."""
    if source.examples == 0:
        raise TaskError(must(name, "at least one example", 0))
    last = source.examples if source.in_memory else min(CHECKED_EXAMPLES, source.examples)
    wrong = 0
    for start in range(0, last, CHECKED_EXAMPLES):
        index = torch.arange(start, min(start + CHECKED_EXAMPLES, last))
        wrong += _not_finite(_read(source, index, name))
    if wrong:
        got = f"{wrong:,} examples with one" if wrong > 1 else "an example with one"
        raise TaskError(must(name, "free of NaN and infinity", got, "Clean or drop them."))


def _not_finite(batch: Tree) -> int:
    """Examples that hold a NaN or an infinity."""
    bad = torch.zeros(_tree.size(batch), dtype=torch.bool)
    for leaf in _tree.leaves(batch):
        if leaf.is_floating_point():
            bad |= ~torch.isfinite(leaf).flatten(1).all(1) if leaf.ndim > 1 else ~leaf.isfinite()
    return int(bad.sum())


def _check_range(prepared: Prepared, objective: Objective) -> None:
    """Where the metric is accuracy, each label is the number of an output."""
    if prepared.metric is not METRICS["accuracy"]:
        return
    for name, low, high, ends in _label_ends(prepared):
        try:
            with torch.no_grad():
                outputs = objective.outputs(ends)
            classes = outputs.shape[1] if outputs.ndim == 2 else 1
        except Exception:  # the check of the first batch says it better
            return
        if classes > 1 and not 0 <= low <= high < classes:
            hint = "Let the model return one output per class."
            wanted = f"0 to {classes - 1}, as the model has {classes} outputs"
            raise TaskError(f"In `{name}`, {must('labels', wanted, f'{low} to {high}', hint)}")


def _check_metric(prepared: Prepared, objective: Objective, batch: Tree) -> None:
    """A built-in metric can read what model and data give."""
    metric = prepared.metric
    if metric.function is None or metric not in METRICS.values():
        return
    try:
        with torch.no_grad():
            metric.function(objective.outputs(batch), batch)
    except UserError as error:
        raise TaskError(f"The metric `{metric.name}`: {error}") from None
    except Exception as error:  # outputs of the user's own kind
        said = f"The metric `{metric.name}` raised {located(error)} on the first examples."
        raise TaskError(f"{said} {OWN_METRIC}") from error


def _check_ends(prepared: Prepared, objective: Objective) -> None:
    """The loss takes the smallest and the largest label there is."""
    for name, low, high, ends in _label_ends(prepared):
        try:
            with torch.no_grad():
                objective(ends)
        except IndexError as error:
            said = f"The loss raised {reason(error)} on the labels of `{name}`, {low} to {high}."
            raise TaskError(said) from error
        except Exception:  # the check of validation and test data says it better
            return


def _label_ends(prepared: Prepared) -> Iterator[tuple[str, int, int, Tree]]:
    """(name, smallest label, largest, a batch of these two) for data with labels in memory."""
    for source, name in _named(prepared):
        labels = labels_of(source)
        if labels is not None:
            ends = source.batch(torch.stack([labels.argmin(), labels.argmax()]))
            ends = _tree.to(ends, prepared.device, torch.float32)
            yield name, int(labels.min()), int(labels.max()), ends


def _named(prepared: Prepared) -> list[tuple[Source, str]]:
    """The data there is, with its names."""
    return [
        (source, name)
        for name in ("train", "validation", "test")
        if (source := getattr(prepared, name)) is not None
    ]
