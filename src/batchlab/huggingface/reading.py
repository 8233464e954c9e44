"""A Task from a Trainer."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from batchlab import _random
from batchlab.huggingface.data import Data, Rows, data_of, ends, like
from batchlab.huggingface.loss import Batch, Loss, forward, has_labels, ignored, labels, loss_of
from batchlab.huggingface.metric import decisive, predict
from batchlab.huggingface.own import fresh, own_model, ready, slim
from batchlab.huggingface.recipe import batch_size, recipe_of
from batchlab.huggingface.refusals import changed, check
from batchlab.tasks import Metric, Task

TRIED, CHOSEN = 256, 8
"""Examples among which those are chosen on which the loss is tried."""


def task(
    trainer: Any,
    *,
    metric: str | Metric | None = None,
    maximise: bool | None = None,
    validation: str | None = None,
    test: Any = None,
    unit: str = "examples",
    ignore: Collection[str] = (),
) -> Task:
    """Read the whole recipe of a ``transformers.Trainer``: nothing has to be written twice.

    Model, data, collator, loss, optimizer with its groups of parameters, learning-rate schedule,
    clipping, precision, accumulation, batch size and length are taken from the Trainer, which is
    left bit for bit as it is. What cannot be kept is refused by its name; what is kept in another
    way is said in ``Task.notes``, which stand in every report.

    Args:
        trainer: Ready to train. With ``model_init``, every seed has weights of its own; without,
            every seed starts from the present ones.
        metric: ``"loss"``, a name in what ``compute_metrics`` returns, or a
            :class:`~batchlab.tasks.Metric` of the model's predictions. Left out, it is
            ``metric_for_best_model``, or else the evaluation loss.
        maximise: Whether more of it is better; left out, ``greater_is_better`` says it.
        validation: Which of several ``eval_dataset``; every decision reads it.
        test: A data set like ``eval_dataset``, looked at once, for the finalists.
        unit: What an example is called.
        ignore: Names of callbacks that you know to change nothing in training.

    Returns:
        The task. Where the Trainer's loss is the cross-entropy of the model's logits and labels,
        it gives one loss for each example; otherwise its scalar, and a note says what is then not
        available.

    Raises:
        MissingDependencyError: If transformers is not installed.
        InvalidTypeError: If it is no Trainer, or a part of it is of a kind that cannot be kept.
        InvalidValueError: If a setting cannot be kept.
        TaskError: If model, collator or loss raise.
    """
    check(trainer, ignore)
    with _random.seeded(0, "huggingface"):
        rows, own = data_of(trainer, validation), slim(trainer)
        model = ready(own_model(trainer.model), own)
        make = _factory(trainer, model, own)
        scored = decisive(trainer, metric, maximise)
        preprocess = None if isinstance(metric, Metric) else _preprocess(trainer, scored)
        accumulation = trainer.args.gradient_accumulation_steps
        found = loss_of(own, make, _few(rows), accumulation, per_example=preprocess is None)
        recipe = recipe_of(trainer, copy.deepcopy(model), len(rows.train), summed=found.summed)
        last = ends(trainer, batch_size(trainer), len(rows.train))
        return Task(
            make,
            rows.train,
            validation=_held(rows, rows.validation, scored),
            test=None if test is None else _held(rows, like(trainer, test), scored),
            metric="loss" if scored.function is None else scored,
            collate=rows.collate,
            weight=found.weight,
            unit=unit,
            baseline=recipe.baseline,
            groups=recipe.groups,
            notes=(*changed(trainer), *recipe.notes, *last, *found.notes),
            name=type(trainer.model).__name__,
            framework="huggingface",
            **_loss(found, own, ignored(model), scored, preprocess),
        )


def _factory(trainer: Any, model: nn.Module, own: Any) -> Callable[[], nn.Module]:
    """Makes a model: a new one, or one with the present weights."""
    if trainer.model_init is not None:
        return functools.partial(fresh, trainer.model_init, own)
    return functools.partial(copy.deepcopy, model)


def _preprocess(trainer: Any, scored: Metric) -> Callable[[Any, Any], Any] | None:
    """What is done to logits before they are collected, where they are."""
    return None if scored.function is None else trainer.preprocess_logits_for_metrics


def _few(rows: Data) -> Batch:
    """A few examples, from the one with the fewest labels to the one with the most."""
    tried = [rows.train[i] for i in range(min(TRIED, len(rows.train)))]
    batch = rows.collate(tried)
    order = labels(batch).argsort(stable=True) if has_labels(batch) else torch.arange(len(tried))
    places = torch.linspace(0, len(tried) - 1, min(CHOSEN, len(tried))).long()
    return rows.collate([tried[i] for i in order[places].tolist()])


def _held(rows: Data, held: Rows | None, scored: Metric) -> Rows | Batch | None:
    """Data to evaluate on; padded to one length where a metric sees all predictions at once."""
    if held is None or scored.function is None:
        return held
    return rows.collate([held[i] for i in range(len(held))])


def _loss(
    found: Loss,
    own: Any,
    ignored: tuple[str, ...],
    scored: Metric,
    preprocess: Callable[[Any, Any], Any] | None,
) -> dict[str, Any]:
    """The arguments of a Task that are its loss."""
    if found.each is not None:
        return {"loss": found.each, "forward": functools.partial(forward, ignored)}
    if scored.function is None:
        return {"training_step": found.step}
    predicted = functools.partial(predict, own, found.weight, ignored, preprocess)
    return {"training_step": found.step, "forward": predicted}
