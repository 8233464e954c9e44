"""What single units look at: the examples that excite them most, and what in these they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree

from batchlab import _tree
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.measure._cut import Cut, by_unit, changed
from batchlab.measure._png import heat, photograph
from batchlab.measure.disturbance import axes_of, input_leaves
from batchlab.measure.units import Column, Unit
from batchlab.tasks import Task
from batchlab.tasks.task import target_of
from batchlab.types import Tree

EXCITING = 3
"""Examples shown of each unit."""
COLUMNS = 6
"""Columns shown of each unit."""
STEPS = 120
"""Points of a signal, at most."""
WINDOW = 10
"""A segment is so many-th a part of a signal."""


def described(
    cut: Cut,
    task: Task,
    units: Sequence[int],
    importance: Sequence[float],
    columns: Sequence[str] | None = None,
) -> tuple[str, tuple[Unit, ...]]:
    """Some units of a trained model, each with what it looks at.

    Args:
        cut: The trained model on validation examples.
        task: Its task.
        units: Which units, in order.
        importance: Of every unit.
        columns: Names of the input's columns, for tables; left out, those of the task.

    Returns:
        ``image``, ``signal``, ``table`` or ``none``, and a record a unit.

    Raises:
        InvalidValueError: If there are not as many names as columns.
    """
    leaf = read_leaf(task, cut.data.batches[0])
    kind, names = column_names(task, cut.data.batches[0], columns)
    found = []
    for unit in units:
        top = torch.topk(cut.said[:, unit], min(EXCITING, len(cut.said)))
        one = Unit(
            unit,
            float(importance[unit]),
            tuple(cut.data.index[top.indices.cpu()].tolist()),
            tuple(top.values.tolist()),
        )
        if leaf is not None and kind != "none":
            one = _LOOKS[kind](cut, leaf, one, top.indices.tolist(), names)
        found.append(one)
    return kind, tuple(found)


def kind_of(shape: Sequence[int]) -> str:
    """What inputs of this shape are, examples first.

    Example:
        >>> [kind_of(shape) for shape in [(5, 1, 8, 8), (5, 100, 2), (5, 7), (5,)]]
        ['image', 'signal', 'table', 'none']
    """
    return {4: "image", 3: "signal", 2: "table"}.get(len(shape), "none")


def read_leaf(task: Task, batch: Tree) -> int | None:
    """Which tensor of a batch the model reads: the first floating-point input, else pictures of
    whole numbers; None where there is neither.

    Args:
        task: The task.
        batch: One batch of it.
    """
    floats = input_leaves(task, batch, task.inputs)
    if floats:
        return floats[0]
    try:
        target = target_of(batch)
    except InvalidTypeError:
        target = None
    for place, leaf in enumerate(_pytree.tree_leaves(batch)):
        if leaf is not target and leaf.dtype == torch.uint8 and leaf.ndim == 4:
            return place
    return None


def column_names(
    task: Task, batch: Tree, columns: Sequence[str] | None = None
) -> tuple[str, tuple[str, ...]]:
    """What the inputs are, and the names of their columns where they are a table.

    Args:
        task: The task.
        batch: One batch of it.
        columns: The names; left out, those of the task, or numbers.

    Raises:
        InvalidValueError: If there are not as many names as columns, or no table.
    """
    leaf = read_leaf(task, batch)
    shape = [] if leaf is None else list(_pytree.tree_leaves(batch)[leaf].shape)
    kind, given = kind_of(shape), columns if columns is not None else task.columns
    if kind != "table":
        if given is not None:
            hint = "The inputs are no table: one row of numbers an example."
            raise InvalidValueError(must("columns", "left out for this task", list(given), hint))
        return kind, ()
    if given is None:
        return kind, tuple(f"column {i}" for i in range(shape[1]))
    if len(given) != shape[1]:
        raise InvalidValueError(must("columns", f"{shape[1]} names, one a column", len(given)))
    return kind, tuple(given)


def gradient(
    cut: Cut, leaf: int, batch: Tree, unit: int
) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
    """∂a/∂x of what a unit says (mean over its places), example by example.

    Args:
        cut: The trained model.
        leaf: Which tensor of the batch is x.
        batch: Some examples, none of which affects another.
        unit: Which unit.

    Returns:
        x and the gradient, in its shape.
    """
    leaves, structure = _pytree.tree_flatten(batch)
    like = next(cut.objective.parameters())
    x = leaves[leaf].detach().to(like.dtype).requires_grad_()
    leaves[leaf] = x.clone()  # a model may write into its input
    said: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        said.append(by_unit(t, cut.site, cut.module).mean(1)[:, unit].sum())
        return t

    # cuDNN has no backward pass through a recurrent layer in evaluation mode.
    with changed(cut.objective.module, cut.site, keep), torch.backends.cudnn.flags(enabled=False):
        cut.objective(_pytree.tree_unflatten(leaves, structure))
    (found,) = torch.autograd.grad(torch.stack(said).sum(), [x], allow_unused=True)
    return x.detach(), torch.zeros_like(x) if found is None else found


def _some(cut: Cut, places: Sequence[int]) -> Tree:
    """Some of the examples as one batch; the first alone where they differ in shape."""
    size = _tree.size(cut.data.batches[0])
    each = [_tree.take(cut.data.batches[p // size], torch.tensor([p % size])) for p in places]
    shapes = {tuple(leaf.shape for leaf in _tree.leaves(one)) for one in each}
    return _tree.concatenate(each) if len(shapes) == 1 else each[0]


def _image(cut: Cut, leaf: int, one: Unit, places: list[int], names: tuple[str, ...]) -> Unit:
    batch = _some(cut, places)
    _, grad = gradient(cut, leaf, batch, one.unit)
    seen = _pytree.tree_leaves(batch)[leaf]
    pictures = tuple(photograph(image) for image in seen)
    return replace(one, pictures=pictures, saliency=heat(grad.mean(0).sum(0)))


def _signal(cut: Cut, leaf: int, one: Unit, places: list[int], names: tuple[str, ...]) -> Unit:
    batch = _some(cut, places[:1])
    x, grad = gradient(cut, leaf, batch, one.unit)
    time = axes_of(x.shape).time
    assert time is not None
    series, slopes = (t[0] if time == 1 else t[0].T for t in (x, grad))
    begin, end, channel = segment(series, slopes)
    step = -(-len(series) // STEPS)
    drawn = tuple(series[::step, channel].tolist())
    return replace(one, signal=drawn, steps=len(series), segment=(begin, end))


def segment(series: Float[Tensor, "T c"], slopes: Float[Tensor, "T c"]) -> tuple[int, int, int]:
    """The tenth of a signal that a unit reads most: the largest Σ|∂a/∂x·(x − x̄)| over channels.

    Args:
        series: x; x̄ is the mean of a channel over time.
        slopes: ∂a/∂x.

    Returns:
        First step, the step after the last, and the channel with the largest part of it.

    Example:
        >>> x = torch.zeros(20, 2)
        >>> x[7, 1] = 5.0
        >>> segment(x, torch.ones(20, 2))
        (6, 8, 1)
    """
    strength = (slopes * (series - series.mean(0))).abs()
    width = max(1, len(series) // WINDOW)
    sums = strength.sum(1).unfold(0, width, 1).sum(1)
    begin = int(sums.argmax())
    return begin, begin + width, int(strength[begin : begin + width].sum(0).argmax())


def _table(cut: Cut, leaf: int, one: Unit, places: list[int], names: tuple[str, ...]) -> Unit:
    pairs = [gradient(cut, leaf, batch, one.unit) for batch in cut.data.batches]
    x, grad = (torch.cat(column).double() for column in zip(*pairs, strict=True))
    weights = (grad.mean(0) * x.std(0, correction=0)).tolist()
    order = sorted(range(len(names)), key=lambda i: -abs(weights[i]))[:COLUMNS]
    return replace(one, columns=tuple(Column(names[i], weights[i]) for i in order))


_LOOKS = {"image": _image, "signal": _signal, "table": _table}
