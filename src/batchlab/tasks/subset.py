"""A part of the training data, the same share of every class, with the recipe kept."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from batchlab import _random, schedules
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.tasks.prepare import (
    LEAST_EXAMPLES,
    Drawn,
    Prepared,
    check_sizes,
    labels_of,
)
from batchlab.tasks.source import part_of
from batchlab.tasks.split import by_class

DRAW = -2
"""Names the draw among the orders of a seed: passes count from 0, the validation split is −1."""
GOLDEN = (math.sqrt(5) - 1) / 2
_WANTED = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)", re.ASCII)


def parse_subset(subset: str | float) -> Fraction | int:
    """A share of the training data, or a number of examples.

    Args:
        subset: ``10%``, ``0.1`` or ``5000``; what has a decimal point is a share.

    Returns:
        A share in (0, 1] as a fraction, or examples, at least 1, as an int.

    Raises:
        InvalidValueError: If it is neither.

    Example:
        >>> parse_subset("12.5%"), parse_subset(0.1), parse_subset("5000")
        (Fraction(1, 8), Fraction(1, 10), 5000)
    """
    found = _WANTED.fullmatch(str(subset).strip())
    number, percent = (Fraction(found[1]), found[2]) if found else (Fraction(0), "")
    if found and not percent and "." not in found[1] and number:
        return int(number)
    share = number / 100 if percent else number
    if not 0 < share <= 1:
        words = "a share such as 10% or 0.1, up to 100%, or a number of examples such as 5000"
        raise InvalidValueError(must("subset", words, subset))
    return share


def named(subset: str | float | None) -> str | None:
    """One spelling for every way to ask for the same; None for all data.

    Args:
        subset: As in :func:`parse_subset`, or None.

    Example:
        >>> named(0.1), named("10 %"), named(5000), named("100%")
        ('10%', '10%', '5000', None)
    """
    found = None if subset is None else parse_subset(subset)
    if found is None or (found == 1 and not isinstance(found, int)):
        return None
    return str(found) if isinstance(found, int) else f"{float(100 * found):.12g}%"


def subset_of(prepared: Prepared, subset: str | float | None, seed: int = 0) -> Prepared:
    """The same task on a part of its training data; validation and test data stay whole.

    The recipe is kept: the length of a training is scaled by the share, so that it makes as many
    passes over the part as it made over all data, whether it was written in passes or in samples.
    Learning-rate schedules and warm-up are shares of that length and keep their shape: a tenth of
    the data has a tenth of the updates, and a tenth of the updates of warm-up.

    Args:
        prepared: The task with all its training data.
        subset: As in :func:`parse_subset`; None for all of it.
        seed: Names the draw.

    Returns:
        The task on the part, which knows what it was drawn from; ``prepared`` itself where the
        part is everything.

    Raises:
        InvalidValueError: If the part is no share, too small or larger than the data.
        TaskError: If the recipe has batches larger than the part.
    """
    examples = prepared.examples
    count = examples if subset is None else _count(subset, examples)
    if count == examples:
        return prepared
    assert subset is not None
    labels = labels_of(prepared.train)
    index = nested_order(labels, examples, seed)[:count].sort().values
    baseline = scaled(prepared.baseline, count, examples)
    part = replace(
        prepared,
        train=part_of(prepared.train, index),
        baseline=baseline,
        assumptions=prepared.assumptions + _said(prepared, labels is not None, count, baseline),
        drawn=Drawn(named(subset) or "", seed, prepared),
    )
    check_sizes(part)
    return part


def _count(subset: str | float, examples: int) -> int:
    """Examples of the part."""
    wanted = parse_subset(subset)
    count = wanted if isinstance(wanted, int) else round(wanted * examples)
    if count > examples:
        raise InvalidValueError(must("subset", f"at most the {examples} training examples", count))
    if count < LEAST_EXAMPLES:
        hint = f"{subset} of {examples} is {count}: batch sizes cannot be compared on so few."
        raise InvalidValueError(
            must("subset", f"at least {LEAST_EXAMPLES} training examples", subset, hint)
        )
    return count


def nested_order(labels: Tensor | None, examples: int, seed: int) -> Tensor:
    r"""An order of which every beginning holds the same share of every class.

    In random order inside a class, example j of a class of n comes at the moment (j + u)/n; the
    offsets u, frac(c·φ + ½) for class c with the golden ratio φ, spread the classes evenly over
    time. A beginning's share of a class is then right to within two examples, and a part lies
    inside every larger part of the same seed.

    Args:
        labels: Class of each example, shape ``[N]``, or None.
        examples: N.
        seed: Names the order.

    Returns:
        A permutation of 0 … N−1.

    Example:
        >>> order = nested_order(torch.arange(100) % 2, 100, seed=0)
        >>> [int((order[:n] % 2).sum()) for n in (10, 20, 50)]
        [5, 10, 25]
    """
    order = by_class(labels, _random.permutation(examples, seed, DRAW))
    if labels is None:
        return order
    sizes = torch.unique_consecutive(labels[order], return_counts=True)[1]
    place = torch.arange(examples) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    offset = (torch.arange(len(sizes), dtype=torch.float64) * GOLDEN + 0.5) % 1
    moment = (place + offset.repeat_interleave(sizes)) / sizes.repeat_interleave(sizes)
    return order[torch.argsort(moment, stable=True)]


def scaled(config: RunConfig, count: int, examples: int) -> RunConfig:
    """A resolved recipe with its length scaled from all examples to a part of them.

    Args:
        config: The recipe.
        count: Examples of the part.
        examples: All of them, N.

    Raises:
        InvalidValueError: If a batch schedule has steps that are not at whole passes.

    Example:
        >>> config = RunConfig(samples="10ep").resolved(examples=1000)
        >>> scaled(config, 100, 1000).samples
        1000
    """
    assert isinstance(config.samples, int)
    steps = schedules.batch_schedule(config.batch_size or 1).steps
    if any(step.start.value and step.start.unit != "ep" for step in steps):
        hint = "Write `20ep:16`, so that a part of the data has the same schedule."
        words = "a schedule in epochs where a subset is trained"
        raise InvalidValueError(must("batch_size", words, config.batch_size, hint))
    return config.replace(samples=-(-config.samples * count // examples))


def _said(prepared: Prepared, by_labels: bool, count: int, baseline: RunConfig) -> tuple[str, ...]:
    """What was decided about data and recipe, a sentence each."""
    examples, before = prepared.examples, prepared.baseline.samples
    how = "the same share of every class" if by_labels else "drawn at random"
    assert isinstance(before, int)
    assert isinstance(baseline.samples, int)
    return (
        f"trained on {count:,} of {examples:,} training examples, {how}; validation and test "
        "data are whole",
        f"a training has the same number of passes over the part: {baseline.samples:,} samples "
        f"instead of {before:,}; schedule and warm-up are shares of it and keep their shape",
    )
