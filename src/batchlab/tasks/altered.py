"""Training data made worse on purpose: wrong labels, or a part of the examples only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from batchlab import _random
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.samplers import Blocks
from batchlab.tasks.source import Source, Stacked, part_of
from batchlab.tasks.split import subset_indices
from batchlab.tasks.task import target_of, with_target
from batchlab.types import Tree

READ_AT_ONCE = 256


@dataclass(frozen=True)
class Relabelled:
    """Another source with other targets.

    Attributes:
        source: Where the examples come from.
        targets: Target of each, shape ``[N, …]``.
    """

    source: Source
    targets: Tensor

    @property
    def in_memory(self) -> bool:
        """As the source."""
        return self.source.in_memory

    @property
    def blocks(self) -> Blocks | None:
        """As the source."""
        return self.source.blocks

    @property
    def examples(self) -> int:
        """N."""
        return self.source.examples

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`batchlab.tasks.source.Source`."""
        return with_target(self.source.batch(index, passes, seed), self.targets[index])

    def elements(self) -> Int[Tensor, " N"]:
        """See :class:`batchlab.tasks.source.Source`."""
        return self.source.elements()


def targets_of(source: Source) -> Tensor | None:
    """The targets of all examples, or None where they are not found or differ in shape.

    Args:
        source: The examples; what is not in memory is read once.

    Example:
        >>> targets_of(Stacked((torch.zeros(3, 2), torch.arange(3))))
        tensor([0, 1, 2])
    """
    starts = range(0, source.examples, READ_AT_ONCE)
    try:
        if isinstance(source, Stacked):
            return target_of(source.tree)
        ends = (min(start + READ_AT_ONCE, source.examples) for start in starts)
        parts = (
            target_of(source.batch(torch.arange(start, end)))
            for start, end in zip(starts, ends, strict=True)
        )
        return torch.cat([part.clone() for part in parts])
    except (InvalidTypeError, RuntimeError, TypeError):
        return None


def has_classes(targets: Tensor) -> bool | None:
    """Whether targets are classes, one an example: whole numbers, or numbers of two values.

    Args:
        targets: Shape ``[N, …]``.

    Returns:
        True for classes, False for numbers to be estimated, None for anything else, such as the
        tokens of a text or one class only.

    Example:
        >>> texts, numbers = torch.ones(4, 5, dtype=torch.long), torch.arange(4) / 4
        >>> [has_classes(t) for t in (torch.arange(4), numbers.round(), numbers, texts)]
        [True, True, False, None]
    """
    one_each = targets.numel() == len(targets)
    values = len(targets.unique()) if one_each else 0
    if targets.is_floating_point():
        return values == 2
    return True if values >= 2 else None


def wrong_targets(targets: Tensor, share: float, seed: int) -> Tensor:
    """Targets of which a share is wrong, the same ones for the same seed.

    A class is replaced by another one that occurs, all equally likely; numbers are exchanged
    among the examples chosen, so that none keeps its own. The examples of a smaller share are
    among those of a larger one.

    Args:
        targets: Shape ``[N, …]``.
        share: Of the examples, in [0, 1]; of numbers at least two are exchanged.
        seed: Names the draw.

    Returns:
        A copy of the same shape.

    Raises:
        InvalidValueError: If the share is none, or the targets are neither classes nor numbers.

    Example:
        >>> labels = torch.arange(100) % 3
        >>> int((wrong_targets(labels, 0.05, seed=0) != labels).sum())
        5
    """
    if not 0 <= share <= 1:
        raise InvalidValueError(must("share", "in [0, 1]", share))
    classes = has_classes(targets)
    if classes is None:
        raise InvalidValueError(must("targets", "one class or number an example", targets.shape))
    count = round(share * len(targets))
    if not count:
        return targets.clone()
    order = torch.randperm(len(targets), generator=_random.generator(seed, "wrong labels"))
    chosen, wrong = order[: count if classes else max(2, count)], targets.clone()
    if classes:
        wrong[chosen] = _others(targets, seed)[chosen]
    else:
        wrong[chosen] = targets[chosen.roll(1)]
    return wrong


def _others(targets: Tensor, seed: int) -> Tensor:
    """For every example a class that is not its own."""
    classes, place = targets.unique(return_inverse=True)
    draw = _random.generator(seed, "other class")
    steps = torch.randint(1, len(classes), targets.shape, generator=draw)
    return classes[(place + steps) % len(classes)]


def with_wrong_labels(source: Source, share: float, seed: int) -> Source:
    """The same examples, a share of them with a wrong target; see :func:`wrong_targets`.

    Args:
        source: Training data.
        share: Of the examples.
        seed: Names the draw.

    Raises:
        InvalidValueError: If the targets are not found, or neither classes nor numbers.
    """
    targets = targets_of(source)
    if targets is None:
        raise InvalidValueError(must("train", "examples with one target each", "other data"))
    wrong = wrong_targets(targets, share, seed)
    if isinstance(source, Stacked):
        return Stacked(with_target(source.tree, wrong))
    return Relabelled(source, wrong)


def with_fewer(source: Source, count: int, seed: int) -> Source:
    """So many of the examples, the same share of every class where the classes lie in memory.

    Args:
        source: Training data.
        count: How many.
        seed: Names the draw.

    Example:
        >>> with_fewer(Stacked((torch.zeros(50, 2), torch.arange(50) % 2)), 5, seed=0).examples
        5
    """
    targets = targets_of(source) if source.in_memory else None
    known = targets is not None and targets.ndim == 1 and not targets.is_floating_point()
    labels = targets if known else None
    return part_of(source, subset_indices(labels, source.examples, count, seed))
