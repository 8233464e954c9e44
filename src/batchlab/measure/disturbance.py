"""What a trained model may meet: noise, brightness, shift, drift; each of a stated size and unit.

Pure functions on one tensor or one batch. Only floating-point inputs are disturbed, never targets;
the same seed gives the same draws to every model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree

from batchlab import _random
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.tasks import Task
from batchlab.tasks.source import Source
from batchlab.tasks.task import target_of
from batchlab.types import Params, Tree

READ_AT_ONCE = 256


class Kind(StrEnum):
    """What is disturbed."""

    INPUT_NOISE = "input noise"
    BRIGHTNESS = "brightness"
    SHIFT = "shift"
    DRIFT = "sensor drift"
    WEIGHT_NOISE = "weight noise"
    WRONG_LABELS = "wrong labels"
    LESS_DATA = "less data"


IN_TRAINING = (Kind.WRONG_LABELS, Kind.LESS_DATA)
"""These need trainings of their own."""


@dataclass(frozen=True)
class Disturbance:
    """One row of the table.

    Attributes:
        kind: What is disturbed.
        size: How much, in ``unit``; 0 changes nothing.
        unit: ``sd`` (standard deviations of each input feature), ``pixels``, ``rms`` (of each
            weight tensor) or ``share`` (of the training examples).
        draws: Draws, or directions, whose mean is reported; the same for every model.

    Example:
        >>> Disturbance(Kind.SHIFT, 1, "pixels", draws=4).id
        'shift 1'
    """

    kind: Kind
    size: float
    unit: str
    draws: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.size < math.inf:
            raise InvalidValueError(must("size", "finite, 0 or more", self.size))
        if self.kind is Kind.SHIFT and self.size != int(self.size):
            raise InvalidValueError(must("size", "whole pixels", self.size))
        if self.draws < 1:
            raise InvalidValueError(must("draws", "1 or more", self.draws))

    @property
    def id(self) -> str:
        """Short name."""
        return f"{self.kind} {self.size:g}"

    @property
    def in_training(self) -> bool:
        """Whether it needs trainings of its own."""
        return self.kind in IN_TRAINING


TABLE = (
    Disturbance(Kind.INPUT_NOISE, 0.1, "sd", draws=3),
    Disturbance(Kind.INPUT_NOISE, 0.3, "sd", draws=3),
    Disturbance(Kind.BRIGHTNESS, 0.1, "sd", draws=2),
    Disturbance(Kind.BRIGHTNESS, 0.3, "sd", draws=2),
    Disturbance(Kind.SHIFT, 1, "pixels", draws=4),
    Disturbance(Kind.SHIFT, 2, "pixels", draws=4),
    Disturbance(Kind.DRIFT, 0.3, "sd", draws=2),
    Disturbance(Kind.DRIFT, 1.0, "sd", draws=2),
    Disturbance(Kind.WEIGHT_NOISE, 0.01, "rms", draws=5),
    Disturbance(Kind.WEIGHT_NOISE, 0.05, "rms", draws=5),
    Disturbance(Kind.WRONG_LABELS, 0.05, "share"),
    Disturbance(Kind.WRONG_LABELS, 0.1, "share"),
    Disturbance(Kind.WRONG_LABELS, 0.2, "share"),
    Disturbance(Kind.LESS_DATA, 0.1, "share"),
)
"""What is measured unless something else is asked for."""


class Axes(NamedTuple):
    """What the axes of an input stand for; the first is always the examples.

    Attributes:
        features: Axis along which each place has its own standard deviation, or None.
        time: Axis along which a sensor drifts, or None.
        space: Height and width, or empty.
    """

    features: int | None
    time: int | None
    space: tuple[int, ...]


def axes_of(shape: Sequence[int]) -> Axes:
    """Axes by the shape of a batch of inputs.

    Two axes: features, in the order in which a sensor may drift. Three: the longer of the last two
    is time (the first of them if they are equal), the other the features. Four or more: channels
    first, height and width last.

    Args:
        shape: Of the leaf, examples first.

    Example:
        >>> axes_of((32, 100, 3)), axes_of((32, 3, 28, 28)).space
        (Axes(features=2, time=1, space=()), (-2, -1))
    """
    if len(shape) == 1:
        return Axes(None, None, ())
    if len(shape) == 2:
        return Axes(1, 1, ())
    if len(shape) == 3:
        return Axes(2, 1, ()) if shape[1] >= shape[2] else Axes(1, 2, ())
    return Axes(1, None, (-2, -1))


class Input(NamedTuple):
    """One floating-point input of the model.

    Attributes:
        leaf: Its place among the tensors of a batch.
        axes: What its axes stand for.
        sd: Standard deviation of each feature, in a shape that broadcasts.
    """

    leaf: int
    axes: Axes
    sd: Tensor


def input_leaves(
    task: Task, batch: Tree, names: Sequence[str | int] | None = None
) -> tuple[int, ...]:
    """Which tensors of a batch are disturbed: places among its leaves.

    With the default forward, ``batch[0]``: it is all that the model reads. With a forward or a
    training step of the user's own, every leaf but the target, and but masks, which hold 0 and 1
    only. Of either, the floating-point ones.

    Args:
        task: The task.
        batch: One batch of it.
        names: Keys (or places, of a tuple) of the inputs, where the rule above would err.

    Raises:
        InvalidValueError: If the batch has no such entry.

    Example:
        >>> batch = torch.zeros(4, 2), torch.arange(4)
        >>> task = Task(lambda: torch.nn.Linear(2, 2), batch, loss=lambda o, b: o.mean(1))
        >>> input_leaves(task, batch)
        (0,)
    """
    if names is not None:
        wanted = [leaf for name in names for leaf in _leaves(_entry(batch, name))]
    elif task.forward is None and task.training_step is None:
        wanted = _leaves(batch[0])
    else:
        target = _target(batch)
        wanted = [x for x in _leaves(batch) if x is not target and not _is_mask(x)]
    known = {id(leaf) for leaf in wanted if leaf.is_floating_point()}
    return tuple(i for i, leaf in enumerate(_leaves(batch)) if id(leaf) in known)


def _entry(batch: Tree, name: str | int) -> Tree:
    try:
        return batch[name]
    except (KeyError, IndexError, TypeError):
        there = list(batch) if isinstance(batch, dict) else f"0 to {len(batch) - 1}"
        raise InvalidValueError(must("inputs", f"entries of a batch: {there}", name)) from None


def _leaves(tree: Tree) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def _target(batch: Tree) -> Tensor | None:
    try:
        return target_of(batch)
    except InvalidTypeError:
        return None


def _is_mask(leaf: Tensor) -> bool:
    return bool(((leaf == 0) | (leaf == 1)).all())


def shapes_of(task: Task, source: Source) -> tuple[Input, ...]:
    """The inputs of a task by its first examples, their standard deviations left at 1.

    Args:
        task: The task; its ``inputs`` name them where it has any.
        source: The examples.
    """
    batch = _batch(source, 0)
    leaves = _leaves(batch)
    return tuple(
        Input(place, axes_of(leaves[place].shape), torch.ones(()))
        for place in input_leaves(task, batch, task.inputs)
    )


def inputs_of(task: Task, source: Source) -> tuple[Input, ...]:
    """The inputs with the standard deviation of each of their features over all examples.

    Args:
        task: The task.
        source: The examples; read once.

    Example:
        >>> from batchlab.tasks.source import Stacked
        >>> data = torch.tensor([[1.0, 10.0], [3.0, 50.0]]), torch.arange(2)
        >>> task = Task(lambda: torch.nn.Linear(2, 2), data, loss=lambda o, b: o.mean(1))
        >>> inputs_of(task, Stacked(data))[0].sd
        tensor([[ 1., 20.]])
    """
    inputs = shapes_of(task, source)
    sums: list[list[Tensor]] = [[] for _ in inputs]
    for start in range(0, source.examples, READ_AT_ONCE) if inputs else ():
        leaves = _leaves(_batch(source, start))
        for each, one in zip(sums, inputs, strict=True):
            each.append(_moments(leaves[one.leaf], one.axes))
    return tuple(
        one._replace(sd=_sd(torch.stack(each).sum(0)))
        for one, each in zip(inputs, sums, strict=True)
    )


def _batch(source: Source, start: int) -> Tree:
    """A batch as evaluation reads it."""
    index = torch.arange(start, min(start + READ_AT_ONCE, source.examples))
    with _random.seeded(0, "evaluation", start):
        return source.batch(index)


def _moments(x: Tensor, axes: Axes) -> Float[Tensor, "3 ..."]:
    """Count, Σx and Σx² of each feature, in a shape that broadcasts."""
    over = [axis for axis in range(x.ndim) if axis != axes.features]
    wide = x.double()
    total = wide.sum(over, keepdim=True)
    count = torch.full_like(total, x.numel() / total.numel())
    return torch.stack([count, total, wide.square().sum(over, keepdim=True)])


def _sd(moments: Float[Tensor, "3 ..."]) -> Tensor:
    """√(mean of x² − (mean of x)²)."""
    count, total, squares = moments
    return (squares / count - (total / count).square()).clamp(min=0).sqrt().float()


def offered(inputs: Sequence[Input], table: Sequence[Disturbance] = TABLE) -> list[Disturbance]:
    """The disturbances that these inputs can meet.

    Args:
        inputs: Of the model.
        table: What is wanted.

    Example:
        >>> tokens_only = ()
        >>> sorted({one.kind.value for one in offered(tokens_only)})
        ['less data', 'weight noise', 'wrong labels']
    """
    return [what for what in table if not why_not(inputs, what.kind)]


def why_not(inputs: Sequence[Input], kind: Kind) -> str:
    """Why inputs cannot meet a disturbance, as a code; empty if they can.

    Args:
        inputs: Of the model.
        kind: What is disturbed.

    Returns:
        ``no numbers``, ``no pictures``, ``no time`` or nothing.
    """
    if kind in (Kind.WEIGHT_NOISE, *IN_TRAINING):
        return ""
    if not inputs:
        return "no numbers"
    if kind in (Kind.BRIGHTNESS, Kind.SHIFT):
        return "" if any(one.axes.space for one in inputs) else "no pictures"
    if kind is Kind.DRIFT:
        return "" if any(one.axes.time is not None for one in inputs) else "no time"
    return ""


def disturbed(
    batch: Tree,
    inputs: Sequence[Input],
    what: Disturbance,
    draw: int = 0,
    first: int = 0,
    seed: int = 0,
) -> Tree:
    """A batch with its inputs disturbed; everything else is the same tensor.

    Args:
        batch: A batch.
        inputs: Which of its leaves are disturbed.
        what: How.
        draw: Which draw, or direction.
        first: Number of its first example: names the noise.
        seed: Names the noise.

    Returns:
        A new tree.
    """
    leaves, structure = _pytree.tree_flatten(batch)
    for one in inputs:
        noise = _random.generator(seed, what.kind, draw, one.leaf, first)
        leaves[one.leaf] = disturb(leaves[one.leaf], one, what, draw, noise)
    return _pytree.tree_unflatten(leaves, structure)


def disturb(
    x: Tensor, about: Input, what: Disturbance, draw: int, noise: torch.Generator
) -> Tensor:
    """One input. With s the size, σ the standard deviation of each feature and ± by the draw:

    input noise x + sσz, z normal; brightness x ± sσ; sensor drift x ± sσt, t from 0 to 1 along
    time; shift x moved by s pixels right, down, left or up, its edge repeated. What does not apply
    to this input leaves it as it is.

    Args:
        x: Shape ``[B, …]``.
        about: Its axes and standard deviations.
        what: Kind and size.
        draw: Which draw, or direction.
        noise: Where normal numbers come from.

    Example:
        >>> about = Input(0, axes_of((1, 3)), torch.ones(1, 3))
        >>> drift = Disturbance(Kind.DRIFT, 1.0, "sd", draws=2)
        >>> disturb(torch.zeros(1, 3), about, drift, 0, torch.Generator())
        tensor([[0.0000, 0.5000, 1.0000]])
    """
    scale = what.size * about.sd.to(x.dtype)
    sign = 1 if draw % 2 == 0 else -1
    if what.kind is Kind.INPUT_NOISE:
        return x + scale * torch.randn(x.shape, generator=noise, dtype=x.dtype)
    if what.kind is Kind.BRIGHTNESS and about.axes.space:
        return x + sign * scale
    if what.kind is Kind.DRIFT and about.axes.time is not None:
        return x + sign * scale * _ramp(x, about.axes.time)
    if what.kind is Kind.SHIFT and about.axes.space:
        return _shifted(x, int(what.size), draw)
    return x


def _ramp(x: Tensor, axis: int) -> Tensor:
    """0 to 1 along an axis, in a shape that broadcasts."""
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    return torch.linspace(0, 1, x.shape[axis], dtype=x.dtype).view(shape)


def _shifted(x: Tensor, pixels: int, direction: int) -> Tensor:
    """Right, down, left, up; places that become empty repeat the edge."""
    axis = -1 if direction % 2 == 0 else -2
    step = pixels if direction % 4 < 2 else -pixels
    place = (torch.arange(x.shape[axis]) - step).clamp(0, x.shape[axis] - 1)
    return x.index_select(axis, place)


def noisy_weights(params: Params, size: float, draw: int, seed: int = 0) -> Params:
    """θ + s·rms(θ)·z for every trained tensor, z normal.

    Args:
        params: Parameters of one run.
        size: s, in root mean squares of each tensor.
        draw: Which draw.
        seed: Names the noise; the same for every model with these names and shapes.

    Example:
        >>> same = noisy_weights({"w": torch.ones(3)}, 0.0, draw=0)
        >>> same["w"].tolist()
        [1.0, 1.0, 1.0]
    """

    def moved(name: str, value: Tensor) -> Tensor:
        noise = _random.generator(seed, f"{Kind.WEIGHT_NOISE} {name}", draw)
        drawn = torch.randn(value.shape, generator=noise, dtype=value.dtype).to(value.device)
        return value + size * value.square().mean().sqrt() * drawn

    return {name: moved(name, value) for name, value in params.items()}
