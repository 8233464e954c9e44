"""Arithmetic on parameters (flat dictionaries) and access to batches (trees of tensors)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

from batchlab.errors import InvalidTypeError, must
from batchlab.types import Params, Tree

# torch.utils._pytree is what torch.func itself walks trees with: a batch accepted here is accepted
# there.


def map(function: Callable[..., Tensor], *params: Mapping[str, Tensor]) -> Params:
    """Apply a function name by name.

    Example:
        >>> map(torch.add, {"w": torch.ones(1)}, {"w": torch.ones(1)})
        {'w': tensor([2.])}
    """
    first, *rest = params
    return {name: function(value, *(p[name] for p in rest)) for name, value in first.items()}


def zeros_like(params: Mapping[str, Tensor]) -> Params:
    """Zeros in the same shapes."""
    return map(torch.zeros_like, params)


def add(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> Params:
    """The sum x + y."""
    return map(torch.add, x, y)


def scale(a: Tensor | float, x: Mapping[str, Tensor]) -> Params:
    """The multiple a·x."""
    return map(lambda value: a * value, x)


def axpy(a: Tensor | float, x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> Params:
    """The line a·x + y.

    Example:
        >>> axpy(2.0, {"w": torch.ones(1)}, {"w": torch.ones(1)})
        {'w': tensor([3.])}
    """
    return map(lambda u, v: a * u + v, x, y)


def squared_norm(params: Mapping[str, Tensor]) -> Tensor:
    """Σ x², shape ``[]``."""
    return torch.stack([value.square().sum() for value in params.values()]).sum()


def norm(params: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm over all names, shape ``[]``.

    Example:
        >>> norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        tensor(5.)
    """
    return squared_norm(params).sqrt()


def is_finite(params: Mapping[str, Tensor]) -> Tensor:
    """Whether every number is finite, shape ``[]``: 0·x is 0 then, and NaN otherwise.

    Example:
        >>> is_finite({"w": torch.tensor([1.0, float("inf")])})
        tensor(False)
    """
    return torch.stack([(0 * value).sum() for value in params.values()]).sum() == 0


def stack(several: list[Params]) -> Params:
    """R dictionaries → one with a leading R axis."""
    return {name: torch.stack([p[name] for p in several]) for name in several[0]}


def pick(params: Mapping[str, Tensor], index: int | Tensor) -> Params:
    """Run ``index`` of stacked parameters; a tensor of indices keeps the R axis."""
    return map(lambda value: value[index], params)


def leaves(tree: Tree) -> list[Tensor]:
    """All tensors of a batch, in a fixed order.

    Example:
        >>> len(leaves((torch.ones(1), {"y": torch.ones(1)})))
        2
    """
    found = _pytree.tree_leaves(tree)
    for leaf in found:
        if not isinstance(leaf, Tensor):
            hint = "A batch is a tree of tensors; give `collate=` to make them."
            raise InvalidTypeError(must("batch", "made of tensors", type(leaf).__name__, hint))
    return found


def map_leaves(function: Callable[[Tensor], Any], tree: Tree) -> Tree:
    """Apply a function to every tensor of a batch."""
    return _pytree.tree_map(function, tree)


def pick_example(batch: Tree, place: int) -> Tree:
    """One example of a batch: its leaves without the leading axis.

    Example:
        >>> pick_example({"x": torch.arange(3)}, 2)
        {'x': tensor(2)}
    """
    return map_leaves(lambda leaf: leaf[place], batch)


def size(batch: Tree) -> int:
    """Examples B in a batch: the leading axis of its first leaf.

    Example:
        >>> size({"x": torch.ones(3, 2), "y": torch.ones(3)})
        3
    """
    return len(leaves(batch)[0])


def elements(item: Any) -> int:
    """Numbers in one example: its tensors and arrays, however nested; anything else counts one.

    Example:
        >>> elements({"x": torch.ones(3, 2), "y": 7})
        7
    """
    if isinstance(item, Tensor):
        return item.numel()
    if isinstance(item, np.ndarray):
        return item.size
    if isinstance(item, dict):
        return sum(elements(value) for value in item.values())
    if isinstance(item, tuple | list):
        return sum(elements(value) for value in item)
    return 1


def take(batch: Tree, index: Tensor) -> Tree:
    """The examples at ``index``; an index ``[R, B]`` gives leaves that start with R, B."""
    return map_leaves(lambda leaf: leaf[index], batch)


def narrow(batch: Tree, start: int, stop: int) -> Tree:
    """Examples ``start`` to ``stop``, without copying."""
    return map_leaves(lambda leaf: leaf[start:stop], batch)


def to(tree: Tree, device: torch.device | str, dtype: torch.dtype | None = None) -> Tree:
    """Move a batch; ``dtype`` changes floating-point leaves only."""

    def move(leaf: Tensor) -> Tensor:
        return leaf.to(device, dtype if leaf.is_floating_point() else None)

    return map_leaves(move, tree)


def concatenate(batches: list[Tree]) -> Tree:
    """Join batches along their leading axis.

    Example:
        >>> concatenate([{"y": torch.zeros(2)}, {"y": torch.ones(1)}])
        {'y': tensor([0., 0., 1.])}
    """
    return _pytree.tree_map(lambda *parts: torch.cat(parts), *batches)
