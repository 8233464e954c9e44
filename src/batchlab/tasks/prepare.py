"""Check a task before any training, split off validation data, and fill in the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from batchlab import _random, _tree
from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, UserError, must
from batchlab.tasks.source import Source, Stacked, Subset, make_source
from batchlab.tasks.task import METRICS, Metric, Objective, Task, target_of
from batchlab.types import Tree

VALIDATION_SHARE = 0.15
LEAST_EXAMPLES = 20
CHECKED_EXAMPLES = 64


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
    """

    task: Task
    train: Source
    validation: Source
    test: Source | None
    baseline: RunConfig
    metric: Metric
    assumptions: tuple[str, ...]
    device: str

    @property
    def examples(self) -> int:
        """Training examples N."""
        return self.train.examples

    def objective(self, seed: int, dtype: torch.dtype = torch.float32) -> Objective:
        """A freshly initialised model with its loss, on the device; the same for the same seed."""
        with _random.seeded(seed, "init"):
            module = self.task.model()
        return Objective(self.task, module).to(self.device, dtype)


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
    said += task.baseline.assumptions()
    if task.metric is None:
        said += ("the task names no metric: the validation loss is used",)
    prepared = Prepared(
        task, train, validation, test, baseline, task.resolved_metric(), said, resolve_device(device)
    )
    check(prepared)
    return prepared


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
        raise InvalidValueError(must("device", "one this machine has", device, f"torch says: {reason}.")) from None
    return device


def _sources(task: Task) -> tuple[Source, Source, tuple[str, ...]]:
    train = make_source(task.train, task.collate, "train")
    if train.examples < LEAST_EXAMPLES:
        hint = "Batch sizes cannot be compared on fewer."
        raise TaskError(must("train", f"at least {LEAST_EXAMPLES} examples", train.examples, hint))
    if task.validation is not None:
        validation = make_source(task.validation, task.collate, "validation")
        if validation.examples == 0:
            raise TaskError(must("validation", "at least one example", 0, "Leave it out to split train."))
        return train, validation, ()
    kept, held = split(_labels(train), train.examples)
    said = f"no validation data: {len(held):,} of {train.examples:,} training examples are kept for it"
    return _subset(train, kept), _subset(train, held), (said,)


def _subset(source: Source, index: Tensor) -> Source:
    """Some examples; copied once if they can be indexed as one block."""
    return Stacked(_tree.take(source.tree, index)) if isinstance(source, Stacked) else Subset(source, index)


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
        (85, 7)
    """
    order = _random.permutation(examples, 0, -1)
    if labels is not None:
        order = order[torch.argsort(labels[order], stable=True)]
    # Every (1/share)-th of the class-sorted order: each class gives its share, to within one example.
    count = max(1, round(VALIDATION_SHARE * examples))
    place = ((torch.arange(count, dtype=torch.float64) + 0.5) * examples / count).long()
    held = torch.zeros(examples, dtype=torch.bool).index_fill(0, order[place], True)
    return (~held).nonzero().flatten(), held.nonzero().flatten()


def _labels(source: Source) -> Tensor | None:
    """The class of each example, if the target is whole numbers in memory."""
    if not isinstance(source, Stacked):
        return None
    try:
        target = target_of(source.tree)
    except InvalidTypeError:
        return None
    return target if target.ndim == 1 and not target.is_floating_point() else None


def check(prepared: Prepared) -> None:
    """One small batch through everything, in evaluation mode, before any training.

    Raises:
        TaskError: With one sentence about what is wrong.
    """
    batch_size = prepared.baseline.batch_size
    if isinstance(batch_size, int) and batch_size > prepared.examples:
        raise TaskError(must("batch_size", f"at most the {prepared.examples} training examples", batch_size))
    for source, name in ((prepared.train, "train"), (prepared.validation, "validation"), (prepared.test, "test")):
        if source is not None:
            _check_finite(source, name)
    _check_labels(prepared)
    batch = first_batch(prepared)
    objective = _build(prepared)
    with _random.seeded(0, "check"), torch.no_grad():
        losses, weights = _run(objective, batch)
        _check_loss(prepared.task, losses, weights, _tree.size(batch))
        if prepared.task.training_step is not None:
            _check_halves(objective, batch, losses)


def first_batch(prepared: Prepared, count: int = 8) -> Tree:
    """The first training examples, on the device."""
    index = torch.arange(min(count, prepared.examples))
    return _tree.to(prepared.train.batch(index), prepared.device, torch.float32)


def _build(prepared: Prepared) -> Objective:
    module = None
    try:
        with _random.seeded(0, "init"):
            module = prepared.task.model()
    except Exception as error:  # the user's own code may raise anything
        raise TaskError(f"`model()` raised {type(error).__name__}: {error}") from error
    if not isinstance(module, torch.nn.Module):
        raise TaskError(must("model", "a function that returns a torch.nn.Module", type(module).__name__))
    if not any(p.requires_grad for p in module.parameters()):
        raise TaskError(must("model", "a module with parameters that require gradients", "none"))
    return Objective(prepared.task, module).to(prepared.device).eval()


def _run(objective: Objective, batch: Tree) -> tuple[Tensor, Tensor]:
    try:
        return objective(batch)
    except IndexError as error:
        hint = "Are labels outside 0 … classes − 1?"
        raise TaskError(f"The loss raised IndexError: {error}. {hint}") from error
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        text = str(error).splitlines()[0] if str(error) else "no message"
        raise TaskError(f"Model or loss raised {type(error).__name__} on a batch: {text}") from error


def _check_loss(task: Task, losses: Tensor, weights: Tensor, size: int) -> None:
    """The loss has the promised shape and is a number."""
    if not isinstance(losses, Tensor):
        raise TaskError(must("loss", "a function that returns a tensor", type(losses).__name__))
    shape = list(losses.shape)
    if task.loss is not None and shape != [size]:
        if losses.ndim == 0:
            hint = 'Use `reduction="none"`, or give the scalar as `training_step=`.'
        else:
            hint = "Average over every axis but the first."
        raise TaskError(must("loss", f"one number per example, shape [{size}]", f"shape {shape}", hint))
    if task.loss is not None and list(weights.shape) != [size]:
        raise TaskError(must("weight", f"one number per example, shape [{size}]", list(weights.shape)))
    if task.training_step is not None and losses.ndim != 0:
        raise TaskError(must("training_step", "a scalar mean over the batch", f"shape {shape}"))
    if not bool(torch.isfinite(losses).all()):
        raise TaskError("The loss of the untrained model is not finite on the first batch: look at data and loss.")
    if not bool((weights >= 0).all()) or not float(weights.sum()) > 0:
        raise TaskError(must("weight", "0 or more, and not all 0", "other values"))


def _check_halves(objective: Objective, batch: Tree, whole: Tensor) -> None:
    """A batch equals the weighted mean of its halves, or accumulation would change the training."""
    middle = _tree.size(batch) // 2
    if middle == 0:
        return
    halves = [_tree.narrow(batch, 0, middle), _tree.narrow(batch, middle, _tree.size(batch))]
    parts = [_run(objective, half) for half in halves]
    mean = sum(loss * weight for loss, weight in parts) / sum(weight for _, weight in parts)
    if not math.isclose(float(mean), float(whole), rel_tol=1e-4, abs_tol=1e-6):
        hint = "Give `weight=`, the denominator of that mean (such as the number of tokens)."
        raise TaskError(must("training_step", "the weighted mean of its halves", f"{float(mean):.6g} against {float(whole):.6g}", hint))


def _check_finite(source: Source, name: str) -> None:
    """No NaN or infinity in the inputs."""
    if source.examples == 0:
        raise TaskError(must(name, "at least one example", 0))
    if isinstance(source, Stacked):
        tree = source.tree
    else:
        tree = source.batch(torch.arange(min(CHECKED_EXAMPLES, source.examples)))
    for leaf in _tree.leaves(tree):
        if leaf.is_floating_point() and not bool(torch.isfinite(leaf).all()):
            wrong = int((~torch.isfinite(leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None])).any(1).sum())
            raise TaskError(must(name, "free of NaN and infinity", f"{wrong} examples with one", "Clean or drop them."))


def _check_labels(prepared: Prepared) -> None:
    """Labels lie in the range of the model's outputs, where the metric is accuracy."""
    if prepared.metric is not METRICS["accuracy"] or not isinstance(prepared.train, Stacked):
        return
    labels = target_of(prepared.train.tree)
    if labels.ndim != 1 or labels.is_floating_point():
        return
    objective = _build(prepared)
    with torch.no_grad():
        try:
            outputs = objective.outputs(first_batch(prepared))
        except Exception:  # noqa: BLE001 - the check of the first batch says it better
            return
    classes = outputs.shape[-1] if outputs.ndim > 1 else 2
    low, high = int(labels.min()), int(labels.max())
    if classes > 1 and (low < 0 or high >= classes):
        hint = "Let the model return one output per class."
        raise TaskError(must("labels", f"0 to {classes - 1}, as the model has {classes} outputs", f"{low} to {high}", hint))


def with_device(prepared: Prepared, device: str) -> Prepared:
    """The same task on another device."""
    return replace(prepared, device=resolve_device(device))
