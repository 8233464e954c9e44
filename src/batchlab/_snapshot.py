"""What a training consists of, kept so that it can be put back bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

Copies = list[tuple[Tensor, Tensor]]
"""Tensors and their values."""


class Snapshot:
    """Model, optimizer and gradients as they are now.

    Values of parameters, buffers and optimizer state; gradients; training flags and every other
    attribute of a module or the optimizer. Tensors are put back in place, so that whoever holds
    them sees the old values. Copies lie in the memory of the processor.

    Args:
        model: Any module.
        optimizer: Its optimizer.
        others: Objects whose attributes are put back too, such as a gradient scaler.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> before = Snapshot(model, optimizer)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> before.put_back()
        >>> len(optimizer.state), model.weight.grad
        (0, None)
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, *others: object
    ) -> None:
        self._attributes = [_Attributes(o) for o in (*model.modules(), optimizer, *others)]
        entries = [*optimizer.state.values(), *optimizer.param_groups]
        self._entries = [(e, _same_leaves(e)) for e in entries if isinstance(e, dict)]
        parameters = [*model.parameters(), *_tensors(optimizer.param_groups)]
        self._gradients = [(p, p.grad) for p in parameters]
        held = _tensors([entry for entry, _ in self._entries])
        self._values = copies([*parameters, *model.buffers(), *held], "cpu")

    def put_back(self) -> None:
        """Make everything as it was."""
        for attributes in self._attributes:
            attributes.put_back()
        for entry, kept in self._entries:
            _refill(entry, _same_leaves(kept))
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        put_values_back(self._values)


def copies(tensors: Iterable[Tensor], device: str | None = None) -> Copies:
    """Tensors with copies of their values, each once.

    Args:
        tensors: Any.
        device: Where the copies lie; beside the tensors if left out.
    """
    own = {id(tensor): tensor for tensor in tensors}.values()
    return [(t, t.detach().to(device or t.device, copy=True)) for t in own]


def put_values_back(kept: Copies) -> None:
    """Write copied values into their tensors."""
    with torch.no_grad():
        for tensor, value in kept:
            tensor.copy_(value)


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put every attribute of every module back afterwards, training flags among them.

    Values of tensors are not looked at.

    Args:
        model: Any module.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> with attributes_kept(model):
        ...     model = model.eval()
        >>> model.training
        True
    """
    kept = [_Attributes(module) for module in model.modules()]
    try:
        yield
    finally:
        for attributes in kept:
            attributes.put_back()


class _Attributes:
    """What an object's names stand for, and what the dictionaries among them hold."""

    def __init__(self, owner: object) -> None:
        self._own = vars(owner)
        self._values = dict(self._own)
        self._contents = [(v, dict(v)) for v in self._values.values() if isinstance(v, dict)]

    def put_back(self) -> None:
        _refill(self._own, self._values)
        for dictionary, contents in self._contents:
            _refill(dictionary, contents)


def _refill(dictionary: dict[Any, Any], contents: dict[Any, Any]) -> None:
    dictionary.clear()
    dictionary.update(contents)


def _same_leaves(tree: Any) -> Any:
    """The same leaves in containers of its own."""
    return _pytree.tree_map(lambda leaf: leaf, tree)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
