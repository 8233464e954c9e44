"""The Trainer's loss, as one number per example where that gives the same, else as its scalar.

The scalar of ``trainer.compute_loss`` is the reference: it has label smoothing, a user's own
``compute_loss`` and the Trainer's count of tokens in it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchlab import _random, _tree
from batchlab.errors import InvalidValueError, TaskError, must, reason

Batch = dict[str, Any]
Weight = Callable[[Batch], Float[Tensor, " B"]]

IGNORED = -100
TOLERANCE = 1e-5
"""Relative, between a loss and what it should equal, in float32."""


@dataclass(frozen=True)
class Loss:
    """How a Task computes what the Trainer computes.

    Attributes:
        step: ``(model, batch) →`` the scalar of the Trainer.
        weight: What the scalar is a mean over: items of each example.
        each: ``(predictions, batch) →`` one loss per example, or None where the Trainer's scalar
            is not made of the model's logits and labels alone.
        summed: Whether the Trainer adds the gradients of micro-batches instead of averaging them.
        notes: What is not available, and what the Trainer does otherwise.
    """

    step: Callable[[nn.Module, Batch], Tensor]
    weight: Weight
    each: Callable[[Any, Batch], Float[Tensor, " B"]] | None
    summed: bool
    notes: tuple[str, ...]


# The Trainer's scalar


def scalar(
    trainer: Any, model: nn.Module, batch: Batch, items: Tensor | None, **asked: bool
) -> Any:
    """What the Trainer's ``compute_loss`` gives on a batch.

    Args:
        trainer: Slim; what its ``compute_loss`` writes to it is forgotten.
        model: The model.
        batch: Plain dictionary.
        items: ``num_items_in_batch``.
        asked: ``return_outputs``.

    Returns:
        The loss, or ``(loss, outputs)``.
    """
    own = copy.copy(trainer)
    own.model = own.model_wrapped = model
    with as_accelerate(model):
        return own.compute_loss(model, dict(batch), num_items_in_batch=items, **asked)


def step(trainer: Any, weight: Weight, model: nn.Module, batch: Batch) -> Tensor:
    """The Trainer's loss on a batch that is a whole update."""
    return scalar(trainer, model, batch, items_of(trainer, weight, batch))


def items_of(trainer: Any, weight: Weight, batch: Batch) -> Tensor | None:
    """``num_items_in_batch``, where the Trainer passes it."""
    return weight(batch).sum() if passes_items(trainer, batch) else None


def passes_items(trainer: Any, batch: Batch) -> bool:
    """Whether the Trainer counts items and hands their number to model or loss."""
    asked = trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None
    return asked and has_labels(batch)


def has_labels(batch: Batch) -> bool:
    """Whether there are labels that can be counted."""
    return isinstance(batch.get("labels"), Tensor)


@contextlib.contextmanager
def as_accelerate(model: nn.Module) -> Iterator[None]:
    """Under autocast, the model alone runs in it and gives float32, as Accelerate has it; what is
    computed of its outputs is computed in their own precision.
    """
    device = next(model.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        yield
        return
    inside, before = model.forward, vars(model).get("forward")
    outside = torch.autocast(device, enabled=False)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            return in_float32(inside(*args, **kwargs))

    model.forward = forward
    try:
        with outside:
            yield
    finally:
        del model.forward
        if before is not None:
            model.forward = before


def in_float32(outputs: Any) -> Any:
    """Outputs with bfloat16 as float32, in the structure they have."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.dtype == torch.bfloat16 else outputs
    if isinstance(outputs, Mapping):
        kind: Any = type(outputs)
        return kind({name: in_float32(value) for name, value in outputs.items()})
    if isinstance(outputs, list | tuple) and not hasattr(outputs, "_fields"):
        return type(outputs)(in_float32(value) for value in outputs)
    return outputs


# What it is a mean over


def examples(batch: Batch) -> Float[Tensor, " B"]:
    """1 for every example."""
    return torch.ones(_tree.size(batch), device=_tree.leaves(batch)[0].device)


def labels(batch: Batch) -> Float[Tensor, " B"]:
    """Labels of each example that are not −100, as the Trainer counts them.

    Example:
        >>> labels({"labels": torch.tensor([[1, 2], [3, -100]])})
        tensor([2., 1.])
    """
    return _count(batch.get("shift_labels", batch["labels"]))


def targets(batch: Batch) -> Float[Tensor, " B"]:
    """The same without the first of each example, which a loss that looks ahead does not predict.

    Example:
        >>> targets({"labels": torch.tensor([[1, 2], [3, -100]])})
        tensor([1., 0.])
    """
    shifted = batch.get("shift_labels")
    return _count(batch["labels"][..., 1:] if shifted is None else shifted)


def _count(of: Tensor) -> Float[Tensor, " B"]:
    return of.ne(IGNORED).reshape(len(of), -1).sum(1).float()


# One loss per example


def aligned(weight: Weight, predictions: Any, batch: Batch) -> Float[Tensor, " B"]:
    """Cross-entropy of logits and labels at the same place, Σ over an example / its items."""
    return _entropy(predictions, batch["labels"], weight(batch))


def following(weight: Weight, predictions: Any, batch: Batch) -> Float[Tensor, " B"]:
    """Cross-entropy of logits and the label after them, Σ over an example / its items."""
    shifted = batch.get("shift_labels")
    if shifted is None:
        shifted = nn.functional.pad(batch["labels"], (0, 1), value=IGNORED)[..., 1:]
    return _entropy(predictions, shifted, weight(batch))


def _entropy(predictions: Any, labels: Tensor, items: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    logits = predictions[0] if isinstance(predictions, tuple) else predictions
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    each = cross_entropy(
        wide.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return each.view(len(labels), -1).sum(1) / items.clamp(min=1)


def forward(ignored: tuple[str, ...], model: nn.Module, batch: Batch) -> Any:
    """The model's predictions without the loss."""
    given = {name: value for name, value in batch.items() if name != "labels"}
    return predictions(model(**given), ignored)


def predictions(outputs: Any, ignored: tuple[str, ...]) -> Any:
    """What a Trainer calls predictions: all outputs but the loss, alone or as a tuple."""
    if isinstance(outputs, Mapping):
        kept = tuple(v for name, v in outputs.items() if name not in ("loss", *ignored))
    else:
        kept = tuple(outputs)
    return kept[0] if len(kept) == 1 else kept


# Which of them


def loss_of(
    trainer: Any,
    make: Callable[[], nn.Module],
    batch: Batch,
    accumulation: int,
    *,
    per_example: bool,
) -> Loss:
    """Find out how the Trainer's loss is made, on a few examples with unequal counts.

    Args:
        trainer: Slim.
        make: Makes a model.
        batch: A few examples.
        accumulation: Micro-batches of an update.
        per_example: Whether one loss per example is wanted.

    Returns:
        The loss.

    Raises:
        InvalidValueError: If the Trainer's gradient depends on how a batch is cut.
        TaskError: If model or loss raise.
    """
    try:
        with _random.seeded(0, "loss"):
            model = make().eval()
        use = _use_of_items(trainer, model, batch)
        weight = _weight(trainer, use, model, batch)
        summed = _is_summed(trainer, use, batch, accumulation)
        own = functools.partial(step, trainer, weight)
        each = _each(own, weight, model, batch) if per_example else None
    except (InvalidValueError, TaskError):
        raise
    except Exception as error:  # the user's own code may raise anything
        raise TaskError(f"Model or loss raised {reason(error)}.") from error
    counted = not torch.equal(weight(batch), examples(batch))
    means = counted and accumulation > 1 and use is not Use.DIVIDES and not summed
    said = {
        BY_BATCH: each is None,
        PER_LABEL: counted,
        OF_MEANS: means,
    }
    return Loss(own, weight, each, summed, tuple(note for note, is_so in said.items() if is_so))


BY_BATCH = (
    "the trainer gives one loss for a batch: gradients of single examples are not available, and "
    "the noise scale comes from micro-batches, with a wider range"
)
PER_LABEL = (
    "the validation loss is the mean over all labels; the trainer's is the mean of its batches' "
    "means"
)
OF_MEANS = (
    "the trainer averages the means of its micro-batches; here every label of a batch counts the "
    "same"
)


class Use(Enum):
    """What a loss does with the number of items it is given."""

    NOT_GIVEN = "it is given none"
    DIVIDES = "it divides by it"
    IGNORES = "nothing"
    OTHER = "something else"


def _use_of_items(trainer: Any, model: nn.Module, batch: Batch) -> Use:
    if not passes_items(trainer, batch):
        return Use.NOT_GIVEN
    items = _items(trainer)(batch).sum()
    one, two = (_value(trainer, model, batch, items * k) for k in (1, 2))
    if math.isclose(one, two, rel_tol=TOLERANCE):
        return Use.IGNORES
    return Use.DIVIDES if math.isclose(one, 2 * two, rel_tol=TOLERANCE) else Use.OTHER


def _items(trainer: Any) -> Weight:
    """How this Trainer counts."""
    return targets if getattr(trainer, "_loss_shifts_labels", False) else labels


def _weight(trainer: Any, use: Use, model: nn.Module, batch: Batch) -> Weight:
    """What the loss is a mean over."""
    if use is Use.DIVIDES:
        return _items(trainer)
    candidates = (examples, labels, targets) if has_labels(batch) else (examples,)
    fits = (w for w in candidates if _is_mean_over(trainer, w, model, batch))
    return next(fits, examples)


def _is_summed(trainer: Any, use: Use, batch: Batch, accumulation: int) -> bool:
    """Whether the Trainer adds the losses of micro-batches, each the mean over its own.

    It leaves the division to a loss that is given the number of items, which this one ignores.
    """
    scaled = getattr(trainer, "loss_is_scaled_for_ga", None)
    if scaled is None:
        by_model = trainer.model_accepts_loss_kwargs and has_labels(batch)
        scaled = by_model or trainer.compute_loss_func is not None
    if accumulation == 1 or not scaled or use is Use.DIVIDES:
        return False
    if use is Use.OTHER:
        hint = "Only a part of this loss is divided by the number of items."
        words = "1 with this loss"
        raise InvalidValueError(must("gradient_accumulation_steps", words, accumulation, hint))
    return True


def _is_mean_over(trainer: Any, weight: Weight, model: nn.Module, batch: Batch) -> bool:
    """Whether the loss of a batch is the mean of those of its halves, by their weights."""
    middle, size = _tree.size(batch) // 2, _tree.size(batch)
    halves = [_tree.narrow(batch, 0, middle), _tree.narrow(batch, middle, size)]
    items = [float(weight(half).sum()) for half in halves]
    if min(items) == 0:
        return False
    parts = [_value(trainer, model, half, weight(half).sum()) for half in halves]
    mean = sum(w * part for w, part in zip(items, parts, strict=True)) / sum(items)
    whole = _value(trainer, model, batch, weight(batch).sum())
    return math.isclose(mean, whole, rel_tol=TOLERANCE)


def _value(trainer: Any, model: nn.Module, batch: Batch, items: Tensor) -> float:
    passed = items if passes_items(trainer, batch) else None
    with torch.no_grad(), _random.seeded(0, "loss"):
        return float(scalar(trainer, model, batch, passed))


def _each(
    own: Callable[[nn.Module, Batch], Tensor],
    weight: Weight,
    model: nn.Module,
    batch: Batch,
) -> Callable[[Any, Batch], Tensor] | None:
    """The loss per example that equals the Trainer's scalar: at the weights there are, and at
    others in training mode.
    """
    if not has_labels(batch) or batch["labels"].is_floating_point():
        return None
    other = _elsewhere(model).train()
    for form in (aligned, following):
        each = functools.partial(form, weight)
        if all(_agrees(each, own, weight, at, batch) for at in (model, other)):
            return each
    return None


def _elsewhere(model: nn.Module) -> nn.Module:
    """The model with weights of about twice the variance."""
    other = copy.deepcopy(model)
    with torch.no_grad(), _random.seeded(0, "elsewhere"):
        for p in other.parameters():
            p.add_(torch.randn_like(p) * p.square().mean().sqrt())
    return other


def _agrees(
    each: Callable[[Any, Batch], Tensor],
    own: Callable[[nn.Module, Batch], Tensor],
    weight: Weight,
    model: nn.Module,
    batch: Batch,
) -> bool:
    """Whether losses per example add up to the Trainer's scalar, with the same dropout."""
    with torch.no_grad():
        with _random.seeded(0, "loss"):
            whole = float(own(model, batch))
        try:
            with _random.seeded(0, "loss"):
                losses = each(forward(ignored(model), model, batch), batch)
        except Exception:  # another model asks for its labels, or has logits of another shape
            return False
    items = weight(batch)
    mean = float((losses * items).sum() / items.sum())
    return math.isclose(mean, whole, rel_tol=TOLERANCE)


def ignored(model: nn.Module) -> tuple[str, ...]:
    """Outputs that are no predictions."""
    config = getattr(model, "config", None)
    return tuple(getattr(config, "keys_to_ignore_at_inference", ["past_key_values"]))
