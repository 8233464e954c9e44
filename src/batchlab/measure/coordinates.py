"""Coordinate check: how far each layer's features move in a few updates, against the width.

Where every layer's change is independent of the width, a learning rate found on a narrow network
is right for a wide one. A change that grows makes wide networks diverge; one that shrinks leaves
them where they start. Source: yang2022, appendix D.1.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchlab import _random, _tree, stats
from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, must
from batchlab.measure import plain
from batchlab.models.feature_strength import bare
from batchlab.tasks import Objective, Prepared, Task, prepare
from batchlab.tasks.task import total_weight
from batchlab.types import Estimate, Tree

MARGIN = 0.25
"""Slopes of theory are multiples of ½; up to here one is nearer to 0 than to the next."""
OUTPUT = "output"
"""Name of what the whole model says."""
EXAMPLES = 64


Progress = Callable[[float], None]


class Trend(StrEnum):
    """What becomes of a layer's change as the network gets wider."""

    GROWS = "grows"
    SHRINKS = "shrinks"
    INDEPENDENT = "independent of width"
    OPEN = "not resolved"


@dataclass(frozen=True)
class LayerSizes:
    """One layer's root-mean-square sizes at every width.

    Attributes:
        name: In the model; ``output`` for what the model says.
        sizes: At the start, then of the change after 1, 2, … updates; a line a width, a number a
            seed. Shape ``[1 + updates, widths, seeds]``; not finite where a training diverged.
        slopes: Of log size against log width, for each; NaN where a size is 0 or not finite.
    """

    name: str
    sizes: tuple[tuple[tuple[float, ...], ...], ...]
    slopes: tuple[Estimate, ...]

    @staticmethod
    def of(
        name: str, widths: Sequence[int], sizes: Float[np.ndarray, "steps widths seeds"]
    ) -> LayerSizes:
        """Join sizes with their slopes."""
        kept = tuple(tuple(tuple(map(float, one)) for one in step) for step in sizes)
        return LayerSizes(name, kept, tuple(slope_of(widths, step) for step in sizes))


@dataclass(frozen=True)
class Coordinates:
    """What a coordinate check measured.

    Attributes:
        widths: From narrow to wide.
        seeds: One start each.
        updates: After which the change was measured.
        examples: Of the one batch that every update saw.
        learning_rate: The recipe's.
        rule: Its rule.
        layers: In the order of the model, the output last.
    """

    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    updates: int
    examples: int
    learning_rate: float
    rule: str
    layers: tuple[LayerSizes, ...]

    @property
    def judged(self) -> int:
        """The last update at which every layer of every network is finite; 0 if there is none."""
        steps = zip(*(one.sizes for one in self.layers), strict=True)
        finite = [bool(np.isfinite(np.array(step)).all()) for step in steps]
        return max(0, [*finite, False].index(False) - 1)

    def trend(self, layer: LayerSizes) -> Trend:
        """What becomes of a layer's change as the network gets wider."""
        return trend(layer.slopes[self.judged]) if self.judged else Trend.OPEN


def slope_of(widths: Sequence[int], sizes: Float[np.ndarray, "widths seeds"]) -> Estimate:
    """Slope of log size against log width: a line for each seed, their mean ± t·s/√n.

    Args:
        widths: At least two different ones.
        sizes: Of one layer.

    Returns:
        The slope; NaN where a size is 0 or not finite.

    Example:
        >>> round(slope_of([10, 1000], np.array([[3.0, 1.0], [30.0, 10.0]])).value, 6)
        0.5
    """
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        return Estimate(math.nan, math.nan, math.nan, sizes.shape[1])
    found = stats.slopes(np.log(np.array(widths, float)), np.log(sizes).T)
    return stats.mean_estimate(found, source="coordinate check")


def trend(slope: Estimate) -> Trend:
    """What a slope with its interval says: the whole interval lies beyond ¼, or within.

    Example:
        >>> trend(Estimate(0.5, 0.4, 0.6, n=5)).value, trend(Estimate(0.2, -0.1, 0.5, n=5)).value
        ('grows', 'not resolved')
    """
    if slope.low > MARGIN:
        return Trend.GROWS
    if slope.high < -MARGIN:
        return Trend.SHRINKS
    return Trend.INDEPENDENT if max(abs(slope.low), abs(slope.high)) <= MARGIN else Trend.OPEN


def measure_coordinates(
    make: Callable[[int], Task],
    widths: Sequence[int],
    *,
    updates: int = 4,
    seeds: Sequence[int] = range(5),
    examples: int = EXAMPLES,
    device: str = "auto",
    progress: Progress = lambda share: None,
) -> Coordinates:
    """Train networks of several widths for a few updates and measure how far each layer moves.

    Each seed trains one fresh network a width with the task's recipe, always on the same batch.
    Dropout is off; nothing of the caller's, his random state included, is changed.

    Args:
        make: Width → task; its recipe and its groups of parameters may depend on the width.
        widths: Two or more, different.
        updates: 1 or more.
        seeds: Two or more starts.
        examples: Of the batch, at most all training data.
        device: As in :func:`batchlab.tasks.prepare`.
        progress: Hears how much is done, a share.

    Returns:
        Sizes and slopes of each layer.

    Raises:
        UserError: With one sentence about what is wrong.

    Source:
        yang2022, appendix D.1.
    """
    kept = _checked(widths, updates, seeds, examples)
    shape, cells = (len(kept), len(seeds), updates + 1), []
    recipe, available = None, examples
    for width in kept:
        with _random.seeded(0, "coordinates", width):
            prepared = prepare(make(width), device=device)
        recipe, available = recipe or prepared.baseline, min(available, prepared.examples)
        for seed in seeds:
            cells.append(sizes_along(prepared, seed, updates, examples))
            progress(len(cells) / math.prod(shape[:2]))
    assert recipe is not None
    assert recipe.learning_rate is not None
    layers = tuple(
        LayerSizes.of(name, kept, np.moveaxis(np.reshape([c[name] for c in cells], shape), 2, 0))
        for name in _same_layers(cells)
    )
    found = kept, tuple(seeds), updates, available, recipe.learning_rate
    return Coordinates(*found, str(recipe.rule), layers)


def _same_layers(cells: Sequence[dict[str, list[float]]]) -> list[str]:
    """The layers, if every network has the same."""
    names = list(cells[0])
    for cell in cells:
        if list(cell) != names:
            got = ", ".join(sorted(set(cell) ^ set(names))) or "another order"
            words = "one architecture, whose layers have the same names at every width"
            raise TaskError(must("make", words, got))
    return names


def _checked(
    widths: Sequence[int], updates: int, seeds: Sequence[int], examples: int
) -> tuple[int, ...]:
    """The widths from narrow to wide, if the question can be answered."""
    kept = tuple(sorted(set(widths)))
    if len(kept) < 2 or kept[0] < 1:
        raise InvalidValueError(must("widths", "two or more different whole numbers", [*widths]))
    for name, value, least in (
        ("updates", updates, 1),
        ("seeds", len(seeds), 2),
        ("examples", examples, 1),
    ):
        if value < least:
            raise InvalidValueError(must(name, f"{least} or more", value))
    return kept


def sizes_along(
    prepared: Prepared, seed: int, updates: int, examples: int
) -> dict[str, list[float]]:
    """Each layer's size at the start, then that of its change after each update.

    Args:
        prepared: A task of one width.
        seed: Names the start and the batch.
        updates: 1 or more.
        examples: Of the batch.

    Returns:
        Layer → ``[1 + updates]`` root mean squares over examples and units.
    """
    config = prepared.baseline.replace(seed=seed)
    objective = prepared.objective(seed, plain.DTYPES[config.precision], config.gamma)
    _without_dropout(objective.train())
    optimizer = plain.make_optimizer(objective, config)
    index = _random.permutation(prepared.examples, seed, 0)[:examples]
    batch = plain.move(prepared.train.batch(index, None, seed), objective)
    start = said(objective, batch, config)
    found = {name: [size(one)] for name, one in start.items()}
    for _ in range(updates):
        with _random.seeded(seed, "coordinates"):
            weigh = functools.partial(total_weight, prepared.task)
            numbers = {"clip_norm": config.clip_norm, "precision": config.precision}
            plain.update(objective, optimizer, [batch], weigh, **numbers)
        for name, one in said(objective, batch, config).items():
            found[name].append(size(one - start[name]))
    return found


def size(values: Tensor) -> float:
    """Root mean square.

    Example:
        >>> size(torch.tensor([3.0, -3.0]))
        3.0
    """
    return float(values.square().mean().sqrt())


def said(objective: Objective, batch: Tree, config: RunConfig) -> dict[str, Tensor]:
    """What each layer with trained weights says before its nonlinearity, and the model's output.

    Args:
        objective: Not changed but for running means of norms.
        batch: B examples.
        config: Whose precision counts.

    Returns:
        Layer → its output, flattened, in double precision; of a layer that is called several times
        the first, and not of one whose output is the model's.

    Raises:
        InvalidTypeError: If no layer has trained weights and there is no output.
    """
    calls: dict[str, Tensor] = {}  # as they are: the output may be one of them
    named = bare(objective.module).named_modules()
    # What the model itself says is its output.
    names = {name: one for name, one in named if name and _weighs(one)}
    handles = [
        module.register_forward_hook(functools.partial(_keep, calls, name))
        for name, module in names.items()
    ]
    try:
        with (
            torch.no_grad(),
            _random.seeded(config.seed, "coordinates"),
            plain.in_precision(objective, config.precision),
        ):
            outputs, *_ = objective(batch, predict=True)
    finally:
        for handle in handles:
            handle.remove()
    calls = {name: one for name, one in calls.items() if one is not outputs}
    if outputs is not None:
        leaves = [leaf.flatten() for leaf in _tree.leaves(outputs) if leaf.is_floating_point()]
        calls[OUTPUT] = torch.cat(leaves)
    if not calls:
        hint = "A weight is a parameter of two or more axes."
        raise InvalidTypeError(must("make", "a network with weights that train", "none", hint))
    return {name: one.detach().double().flatten() for name, one in calls.items()}


def _keep(
    calls: dict[str, Tensor], name: str, module: nn.Module, inputs: Any, output: Any
) -> None:
    first = output[0] if isinstance(output, tuple) else output
    if isinstance(first, Tensor):
        calls.setdefault(name, first)


def _weighs(module: nn.Module) -> bool:
    """Whether a module owns a weight that is trained."""
    own = module.parameters(recurse=False)
    return any(p.requires_grad and p.ndim >= 2 for p in own)


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
