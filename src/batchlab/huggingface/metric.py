"""A number of ``compute_metrics`` as a Metric over all predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree

from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.huggingface.loss import Batch, Weight, items_of, predictions, scalar
from batchlab.huggingface.refusals import overridden
from batchlab.tasks import METRICS, Metric

NOT_KEPT = ("batch_eval_metrics", "include_for_metrics", "predict_with_generate")
"""Arguments with which ``compute_metrics`` gets something else than all logits and labels."""


def decisive(trainer: Any, metric: str | Metric | None, maximise: bool | None) -> Metric:
    """The metric that decides.

    Args:
        trainer: The user's.
        metric: What is asked for; None for what the Trainer calls best.
        maximise: Whether more is better; None where ``greater_is_better`` says it.

    Returns:
        The metric.

    Raises:
        InvalidValueError: If the Trainer does not compute it, or its direction is not known.
    """
    if isinstance(metric, Metric):
        return metric
    best = (trainer.args.metric_for_best_model or "loss").removeprefix("eval_")
    name = best if metric is None else metric.removeprefix("eval_")
    if name == "loss":
        return METRICS["loss"]
    _check(trainer, name)
    if maximise is None and name == best:
        maximise = trainer.args.greater_is_better
    if maximise is None:
        hint = f"Say whether more {name} is better: task(trainer, maximise=True)."
        raise InvalidValueError(must("maximise", "True or False", None, hint))
    score = functools.partial(_score, trainer.compute_metrics, tuple(trainer.label_names), name)
    return Metric(name, score, maximise)


def _check(trainer: Any, name: str) -> None:
    """All logits and labels of one data set go to a function that there is."""
    if trainer.compute_metrics is None:
        hint = "Give the Trainer `compute_metrics`, or use metric='loss'."
        raise InvalidValueError(must("metric", "'loss' without compute_metrics", name, hint))
    if trainer.eval_dataset is None:
        hint = f"The metric {name} is computed from its predictions."
        raise InvalidValueError(must("trainer.eval_dataset", "given", None, hint))
    for option in NOT_KEPT:
        value = getattr(trainer.args, option, False)
        if value:
            hint = "compute_metrics gets the logits and labels of all examples here."
            raise InvalidValueError(must(option, "off", value, hint))
    if not trainer.args.eval_do_concat_batches:
        hint = "compute_metrics gets the logits and labels of all examples here."
        raise InvalidValueError(must("eval_do_concat_batches", "on", False, hint))
    if overridden(trainer, "prediction_step") and not _of_transformers(trainer):
        got = f"{type(trainer).__name__}.prediction_step"
        words = "one with the Trainer's own prediction_step"
        raise InvalidValueError(must("trainer", words, got, "Use metric='loss'."))


def _of_transformers(trainer: Any) -> bool:
    return type(trainer).__module__.partition(".")[0] == "transformers"


def predict(
    trainer: Any,
    weight: Weight,
    ignored: tuple[str, ...],
    preprocess: Callable[[Any, Any], Any] | None,
    model: nn.Module,
    batch: Batch,
) -> Any:
    """The predictions of a batch as the Trainer would collect them.

    Args:
        trainer: Slim.
        weight: What the loss is a mean over.
        ignored: Outputs that are no predictions.
        preprocess: ``preprocess_logits_for_metrics``.
        model: The model.
        batch: Plain dictionary.
    """
    items = items_of(trainer, weight, batch)
    _, outputs = scalar(trainer, model, batch, items, return_outputs=True)
    found = predictions(outputs if isinstance(outputs, dict) else outputs[1:], ignored)
    names = tuple(trainer.label_names)
    return found if preprocess is None else preprocess(found, _labels(batch, names))


def _score(
    compute: Callable[[Any], dict[str, Any]],
    label_names: tuple[str, ...],
    name: str,
    found: Any,
    batch: Batch,
) -> float:
    """``compute_metrics`` on all predictions."""
    from transformers import EvalPrediction

    given = _numpy(found), _numpy(_labels(batch, label_names))
    values = compute(EvalPrediction(*given))
    value = values.get(name, values.get(f"eval_{name}"))
    if value is None:
        raise TaskError(must("metric", f"one of {', '.join(values)}", name))
    return float(value)


def _labels(batch: Batch, names: tuple[str, ...]) -> Any:
    found = tuple(batch[name] for name in names)
    return found[0] if len(found) == 1 else found


def _numpy(tree: Any) -> Any:
    return _pytree.tree_map(lambda x: x.cpu().numpy() if isinstance(x, Tensor) else x, tree)
