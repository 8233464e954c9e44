"""Which examples make up a part of a data set: the same share of every class."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from batchlab import _random
from batchlab.errors import InvalidValueError, must


def subset_indices(
    labels: Tensor | None, examples: int, count: int, seed: int = 0
) -> Int[Tensor, " count"]:
    """So many examples, the same share of every class to within one, the same for the same seed.

    Args:
        labels: Class of each example, shape ``[N]``, or None where there are none.
        examples: N.
        count: How many, 1 to N.
        seed: Names the draw.

    Returns:
        Their indices, ascending.

    Raises:
        InvalidValueError: If so many are not there.

    Example:
        >>> part = subset_indices(torch.arange(100) % 2, 100, 10)
        >>> len(part), (part % 2).sum().item()
        (10, 5)
    """
    if not 1 <= count <= examples:
        raise InvalidValueError(must("count", f"from 1 to {examples} examples", count))
    order = by_class(labels, _random.permutation(examples, seed, -1))
    # Evenly spaced in the class-sorted order: each class gives its share, to within one.
    place = ((torch.arange(count, dtype=torch.float64) + 0.5) * examples / count).long()
    return order[place].sort().values


def by_class(labels: Tensor | None, order: Tensor) -> Tensor:
    """An order of the examples with those of each class together.

    Args:
        labels: Class of each example, shape ``[N]``, or None.
        order: A permutation of 0 … N−1, which stays as it is inside a class.

    Example:
        >>> by_class(torch.tensor([1, 0, 1]), torch.tensor([2, 0, 1])).tolist()
        [1, 2, 0]
    """
    return order if labels is None else order[torch.argsort(labels[order], stable=True)]
