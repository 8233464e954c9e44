"""A user's own model, loss and data, read for a measurement that trains nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import loss as torch_losses
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from batchlab import _random, _tree
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, must, reason
from batchlab.tasks import Objective, Task
from batchlab.tasks.prepare import check_loss, resolve_device
from batchlab.tasks.source import Source, make_source
from batchlab.tasks.task import outputs_of, target_of
from batchlab.types import Tree

Loss = Callable[..., Tensor]


class Examples(NamedTuple):
    """A fixed subset of some data, in random order.

    Attributes:
        source: Where the examples are read.
        index: Which they are there. Shape ``[n]``.
        population: Examples of which they are a part.
        seed: Names what reading them draws.
    """

    source: Source
    index: Tensor
    population: int
    seed: int

    @staticmethod
    def drawn(source: Source, count: int, seed: int) -> Examples:
        """Draw without replacement, the same for the same seed; all where there are fewer."""
        if source.examples < 1:
            raise InvalidValueError(must("data", "at least one example", "none"))
        index = order(source.examples, seed)[:count]
        return Examples(source, index, source.examples, seed)

    def batches(self, part: slice, size: int, like: Tensor) -> list[Tree]:
        """Some of them in micro-batches, on the device and in the precision of a tensor."""
        pieces = self.index[part].split(size)
        return [
            _tree.to(self.source.batch(piece, None, self.seed), like.device, like.dtype)
            for piece in pieces
        ]


def order(examples: int, seed: int) -> Tensor:
    """The order in which a subset is taken from N examples."""
    return torch.randperm(examples, generator=_random.generator(seed, "curvature subset"))


def examples_of(
    data: Any, collate: Callable[[list[Any]], Tree] | None, count: int, seed: int
) -> Examples:
    """A subset of what the user gave as data; of a data set, no other example is read.

    Args:
        data: Tensors that start with the examples, a map-style Dataset, or a DataLoader, which is
            not iterated: its order stays where it is.
        collate: The user's collate, or None.
        count: Examples wanted.
        seed: Names the draw.

    Raises:
        UserError: With one sentence about what is wrong.

    Example:
        >>> drawn = examples_of((torch.arange(5), torch.arange(5)), None, 3, seed=0)
        >>> len(drawn.index), drawn.population
        (3, 5)
    """
    if isinstance(data, DataLoader):
        if data.batch_size is None and data.batch_sampler is None:
            hint = "Give the data set of examples instead."
            raise InvalidTypeError(must("data", "examples, not whole batches", "such", hint))
        own = None if data.collate_fn is default_collate else data.collate_fn
        listed = getattr(data.sampler, "indices", None)  # of a sampler that draws from a part
        collate = collate or own
        data = data.dataset if listed is None else Subset(data.dataset, list(listed))
    if isinstance(data, IterableDataset):
        hint = "Give a few batches of it as tensors."
        raise InvalidTypeError(
            must("data", "examples that can be asked for by number", "an IterableDataset", hint)
        )
    if isinstance(data, Tensor):
        data = (data,)
    indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__") and len(data)
    if isinstance(data, tuple | list | dict | np.ndarray) or not indexed:
        return Examples.drawn(make_source(data, collate, "data"), count, seed)
    chosen = order(len(data), seed)[:count]
    source = make_source(Subset(data, chosen.tolist()), collate, "data")
    return Examples(source, torch.arange(len(chosen)), len(data), seed)


def placed(model: nn.Module, device: str | torch.device | None) -> nn.Module:
    """The model itself, or a copy where it is to be elsewhere or in float32.

    Args:
        model: The user's. One that torch.compile made is unwrapped: it has no second derivatives.
        device: Where to measure, or None for where it is.

    Raises:
        UserError: If that is no device, or there is nothing to differentiate.
    """
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(must("model", "a torch.nn.Module", type(model).__name__))
    plain = getattr(model, "_orig_mod", model)
    trained = [p for p in plain.parameters() if p.requires_grad]
    if not trained:
        raise TaskError(must("model", "a module with parameters that require gradients", "none"))
    here = trained[0].device
    there = here if device is None else torch.device(resolve_device(str(device)))
    kinds = {p.dtype for p in trained}
    if there.type == here.type and there.index in (None, here.index) and len(kinds) == 1:
        if kinds <= {torch.float32, torch.float64}:
            return plain
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    return copy.deepcopy(plain).to(there, wide)


def objective_of(
    model: nn.Module,
    loss: Loss,
    batch: Tree,
    forward: Callable[[nn.Module, Tree], Tree] | None,
    weight: Callable[[Tree], Tensor] | None,
) -> Objective:
    """Model and loss as the engine knows them, tried on a few examples.

    Args:
        model: In evaluation mode.
        loss: ``(outputs, batch) → [B]``, or ``(outputs, target) → [B]``, which is tried where the
            first raises.
        batch: A few examples, where the model is.
        forward: ``(model, batch) → outputs`` or None.
        weight: ``batch → [B]`` or None.

    Raises:
        UserError: With one sentence about what is wrong.
    """
    if not callable(loss):
        raise InvalidTypeError(must("loss", "a function", type(loss).__name__))
    task = Task(lambda: model, batch, loss=loss, forward=forward, weight=weight)
    outputs = _outputs(task, model, batch)
    contract, losses = _tried(loss, outputs, batch)
    if isinstance(losses, Tensor) and losses.ndim == 0:
        wanted = f"one number per example, shape [{_tree.size(batch)}]"
        raise TaskError(must("loss", wanted, "a single number", 'Use `reduction="none"`.'))
    objective = Objective(
        Task(lambda: model, batch, loss=contract, forward=forward, weight=weight), model
    )
    check_loss(objective, batch)
    return objective


def _outputs(task: Task, model: nn.Module, batch: Tree) -> Tree:
    try:
        return outputs_of(task, model, batch)
    except Exception as error:  # the user's own code may raise anything
        given = "`forward`" if task.forward is not None else "`model(batch[0])`"
        hint = "" if task.forward else " Give `forward=`, a function (model, batch) → outputs."
        raise TaskError(f"{given} raised {reason(error)}.{hint}") from error


def _tried(loss: Loss, outputs: Tree, batch: Tree) -> tuple[Loss, Any]:
    """The loss as a function of (outputs, batch), and what it says of these."""

    def of_target(outputs: Tree, batch: Tree) -> Tensor:
        return loss(outputs, target_of(batch))

    first = None
    if not isinstance(loss, torch_losses._Loss):
        try:
            return loss, loss(outputs, batch)
        except Exception as error:  # the user's own code may raise anything
            first = reason(error)
    try:
        target = target_of(batch)
    except InvalidTypeError:
        if first is not None:
            raise TaskError(f"`loss` raised {first}.") from None
        wanted = "(inputs, target) where the loss takes a target"
        raise InvalidValueError(must("data", wanted, type(batch).__name__)) from None
    try:
        return of_target, loss(outputs, target)
    except Exception as error:  # the user's own code may raise anything
        second = f"{reason(error)} when given (outputs, target)"
        said = second if first is None else f"{first} when given (outputs, batch), and {second}"
        raise TaskError(f"`loss` raised {said}.") from error
