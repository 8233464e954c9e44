"""For a Lightning training you already have.

:func:`task` reads the whole recipe of a LightningModule, its data and its trainer, of
``lightning`` or ``pytorch_lightning``; ``Watch`` is a callback that measures while it trains, as
:class:`batchlab.watch.Watch` does; ``GrowingBatch`` is one that lets the batch size follow a
schedule. Neither package is imported before it is needed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from batchlab import _random
from batchlab.errors import InvalidValueError, TaskError, UserError, missing, must
from batchlab.lightning.kinds import overrides
from batchlab.lightning.module import Forward
from batchlab.lightning.reading import Reading, read
from batchlab.tasks import Metric, Objective, Task
from batchlab.types import Tree

__all__ = ["task"]

COMPARED_EXAMPLES = 8


CALLBACKS = {"Watch": "batchlab.watch._lightning", "GrowingBatch": "batchlab.lightning.growing"}
"""Their home, which imports Lightning."""


def __getattr__(name: str) -> Any:
    if name not in CALLBACKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(CALLBACKS[name]), name)
    except ModuleNotFoundError as error:
        raise missing("lightning", error.name or "lightning") from error


def task(
    module: Any,
    datamodule: Any = None,
    trainer: Any = None,
    *,
    max_epochs: int | None = None,
    loss: Callable[[Tree, Tree], Tensor] | None = None,
    forward: Callable[[Any, Tree], Tree] | None = None,
    metric: str | Metric | None = None,
    weight: Callable[[Tree], Tensor] | None = None,
    unit: str = "examples",
    ignore: Collection[str] = (),
) -> Task:
    """A task with the whole recipe of a Lightning training.

    Model, data, collate, loss, optimizer, parameter groups, learning rate of every update,
    clipping, precision, accumulation, batch size and epochs are read. What cannot be kept is
    refused by its name; what is kept in another way is said among the task's ``notes``. The data
    module is set up as ``fit`` would; module and trainer stay as they are. Test data is not read:
    ``dataclasses.replace(task, test=…)`` adds it. ``examples/lightning_task.py`` is a whole one.

    Args:
        module: A LightningModule, whose present weights are where every seed starts; or a function
            that returns a new one, so that every seed starts from its own weights.
        datamodule: A LightningDataModule, a DataLoader, a pair (training, validation) of them;
            left out, the module's own loaders.
        trainer: The Trainer; nothing is run on it. Left out, Lightning's defaults.
        max_epochs: Where there is no trainer.
        loss: ``(outputs, batch) → losses`` of shape ``[B]``, in place of ``training_step``: from
            the losses of single examples the noise scale is measured more sharply. Their mean must
            be what ``training_step`` gives.
        forward: ``(module, batch) → outputs``, for ``loss`` and ``metric``; by default
            ``module(batch[0])``.
        metric: As in a :class:`~batchlab.tasks.Task`. Left out: the validation loss, which is
            ``training_step``'s value in evaluation mode.
        weight: As in a Task: the denominator of ``training_step``'s mean; the number of examples
            if left out.
        unit: What an example is called.
        ignore: Names of overridden hooks and of callbacks that you know to change nothing in
            training; and ``current_epoch`` or ``global_step`` where the loss does not depend on
            it.

    Returns:
        The task.

    Raises:
        InvalidTypeError: If an object is of another kind than expected.
        InvalidValueError: If a part of the recipe cannot be kept; the sentence names it.
        TaskError: If the user's own code raises.
    """
    found = read(module, datamodule, trainer, max_epochs, ignore)
    if loss is not None and found.step.hooks:
        hint = "Leave `loss` out: training_step calls them."
        words = "left out where the module overrides batch hooks"
        raise InvalidValueError(must("loss", words, found.step.hooks[0], hint))
    needed = loss is not None or metric not in (None, "loss") or forward is not None
    made = Task(
        model=found.models,
        train=found.data.train,
        validation=found.data.validation,
        collate=found.data.collate,
        loss=loss,
        training_step=found.step if loss is None else None,
        forward=Forward(forward, found.step) if needed else None,
        metric=metric,
        weight=weight,
        unit=unit,
        groups=found.optimisation.groups,
        baseline=found.baseline(),
        name=type(found.sample).__name__,
        framework="lightning",
        notes=(*found.said(), *_loss_notes(found, loss, metric, weight)),
    )
    if loss is not None:
        _must_be_the_same(made, found)
    return made


def _loss_notes(
    found: Reading,
    loss: Callable[[Tree, Tree], Tensor] | None,
    metric: str | Metric | None,
    weight: Callable[[Tree], Tensor] | None,
) -> Iterator[str]:
    """What is not available, and what is not read."""
    if loss is None:
        yield (
            "training_step gives one loss for a whole batch: the noise scale is measured from "
            "micro-batches, with a wider range than from single examples; loss= gives theirs"
        )
    if metric is None and overrides(found.sample, "validation_step"):
        yield "validation_step is not read: the validation loss is training's, in evaluation mode"
    if weight is not None and found.budget.batch_size != found.data.batch_size:
        yield (
            "Lightning averages the means of the batches it accumulates; here each counts by its "
            "weight"
        )


def _must_be_the_same(made: Task, found: Reading) -> None:
    """The mean of the user's losses is what ``training_step`` gives, on some examples."""
    count = min(COMPARED_EXAMPLES, found.data.examples)
    with _random.seeded(0, "compare"), torch.no_grad():
        items = [found.data.train[i] for i in range(count)]
        batch = (found.data.collate or default_collate)(items)
        module = made.model().eval()
        try:
            whole = float(found.step(module, batch))
        except UserError:
            return  # it needs a trainer, which may be why `loss` is given
        losses, weights = Objective(made, module)(batch)
    mean = float((losses * weights).sum() / weights.sum())
    if losses.ndim == 1 and not math.isclose(mean, whole, rel_tol=1e-4, abs_tol=1e-6):
        got = f"{mean:.6g} where training_step gives {whole:.6g}"
        raise TaskError(must("loss", "what training_step averages", got))
