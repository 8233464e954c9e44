"""On how many numbers a model rests: participation ratio, near-zero share, dead units, rank.

For weights and for what the units say, unit by unit, layer by layer and as a whole. Nothing of the
model is changed, and no direction is called better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from batchlab import _tree
from batchlab.errors import InvalidValueError, must
from batchlab.measure._layers import (
    Forward,
    Layer,
    check_module,
    guarded,
    layers,
    listen,
    owners,
    plain_forward,
    read,
    untouched,
)
from batchlab.models.feature_strength import bare
from batchlab.tasks import Objective, Prepared
from batchlab.types import Tree

EXAMPLES, LEAST_EXAMPLES = 512, 2
NEAR_ZERO = 0.01
"""Numbers of at most so much of the root mean square count as near zero."""
MOST_UNITS = 2048
"""Layers with more units get no rank of what they say: it needs a matrix of units × units."""


def participation_ratio(values: Float[Tensor, "*A n"]) -> Float[Tensor, " *A"]:
    """How many of n numbers carry the weight: (Σw²)²/Σw⁴, over the last axis.

    1 where one number is all there is, n where all are equally large; 0 where all are 0, since
    none takes part.

    Args:
        values: Any numbers.

    Source:
        bell1970.

    Example:
        >>> participation_ratio(torch.tensor([[0.0, 5.0, 0.0], [2.0, -2.0, 2.0]])).tolist()
        [1.0, 3.0]
    """
    # Scaled by the largest: a fourth power leaves the range of float32 soon.
    largest = values.abs().amax(-1, keepdim=True)
    squares = (values / largest.where(largest > 0, torch.ones_like(largest))).square()
    fourth = squares.square().sum(-1)
    return squares.sum(-1).square() / fourth.where(fourth > 0, torch.ones_like(fourth))


def near_zero_share(
    values: Float[Tensor, "*A n"], share: float = NEAR_ZERO
) -> Float[Tensor, " *A"]:
    """Share of numbers with |w| ≤ ``share`` × √(mean of w²), over the last axis.

    Args:
        values: Any numbers.
        share: The threshold, a share of their root mean square.

    Example:
        >>> near_zero_share(torch.tensor([0.0, 1.0, -1.0, 0.001])).item()
        0.5
    """
    threshold = share * values.square().mean(-1, keepdim=True).sqrt()
    return (values.abs() <= threshold).to(values.dtype).mean(-1)


def effective_rank(matrix: Float[Tensor, "H I"]) -> float:
    """exp(−Σ p ln p), p = σ/Σσ: the number of directions a matrix uses, from its singular values.

    Args:
        matrix: Any matrix.

    Returns:
        1 … min(H, I), or 0 where all entries are 0.

    Source:
        roy2007.

    Example:
        >>> round(effective_rank(torch.eye(4)), 3)
        4.0
    """
    return _rank_of(torch.linalg.svdvals(matrix.detach().double()))


def _rank_of(singular: Float[Tensor, " k"]) -> float:
    total = float(singular.sum())
    if total == 0:
        return 0.0
    shares = singular / total
    return float(torch.special.entr(shares).sum().exp())


@dataclass(frozen=True)
class Numbers:
    """How evenly numbers share the load.

    Attributes:
        participation: Mean over units of (Σw²)²/Σw⁴ as a share of the numbers of a unit.
        units: The same, unit by unit.
        near_zero: Share of the layer's numbers near zero.
        rank: Effective rank; of what units say, after their means are taken off. None where it was
            not computed.
    """

    participation: float
    units: tuple[float, ...]
    near_zero: float
    rank: float | None


@dataclass(frozen=True)
class LayerSparsity:
    """One layer.

    Attributes:
        name: In the model.
        count: Units H.
        weights: The weights that lead into each unit.
        activations: What each unit says, over examples and places; None where the model does not
            call the layer as a module.
        active: Mean over examples and places of the participation ratio over units, as a share of
            H; None as above.
        dead: Units that say the same on every example and place.
    """

    name: str
    count: int
    weights: Numbers
    activations: Numbers | None
    active: float | None
    dead: tuple[int, ...]


@dataclass(frozen=True)
class Sparsity:
    """A model.

    Attributes:
        layers: In the order of the model.
        weights: Participation ratio of all these weights together, as a share of them.
        near_zero: Share of them near zero, each judged within its layer.
        activations: Participation ratio of all that all units said, as a share of it; NaN where
            nothing could be heard.
        dead: Units that say the same on every example.
        count: Units that could be heard.
        examples: Examples behind it.
        threshold: Near zero is at most so much of a layer's root mean square.
    """

    layers: tuple[LayerSparsity, ...]
    weights: float
    near_zero: float
    activations: float
    dead: int
    count: int
    examples: int
    threshold: float

    def values(self) -> dict[str, float]:
        """As named floats, for a Trace."""
        found = {
            "weights": self.weights,
            "near_zero": self.near_zero,
            "activations": self.activations,
            "dead": self.dead / self.count if self.count else math.nan,
        }
        return {f"sparsity.{name}": value for name, value in found.items()}

    def __str__(self) -> str:
        rows = [
            f"{self.examples} examples; weights: {100 * self.weights:.3g} % take part, "
            f"{100 * self.near_zero:.3g} % near zero; {self.dead} of {self.count} units dead",
            f"{'layer':<24}{'units':>7}{'weights':>9}{'rank':>8}{'active':>9}{'dead':>6}",
        ]
        rows += [_line(one) for one in self.layers]
        return "\n".join(rows)


def _line(one: LayerSparsity) -> str:
    rank = "–" if one.weights.rank is None else f"{one.weights.rank:.3g}"
    active = "–" if one.active is None else f"{100 * one.active:.3g} %"
    weights = f"{100 * one.weights.participation:.3g} %"
    return f"{one.name:<24}{one.count:>7}{weights:>9}{rank:>8}{active:>9}{len(one.dead):>6}"


def sparsity(
    model: nn.Module,
    data: Any,
    *,
    forward: Forward | None = None,
    examples: int = EXAMPLES,
    share: float = NEAR_ZERO,
    collate: Callable[[list[Any]], Tree] | None = None,
) -> Sparsity:
    """How many of a model's weights and units carry the load, leaving no trace in it.

    Evaluation mode, on a copy; units are heard after the nonlinearity that follows their layer.

    Args:
        model: Any module.
        data: A tree of tensors whose leaves start with the examples, or a map-style Dataset.
        forward: ``(model, batch) → outputs``; by default the first entry of a batch goes into the
            model.
        examples: At most so many are read, evenly spaced.
        share: Near zero is at most so much of a layer's root mean square.
        collate: Joins examples of different shapes.

    Returns:
        A record whose ``str`` is a table.

    Raises:
        UserError: With one sentence about what is wrong.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> _ = nn.init.constant_(model[0].bias, -9.0)  # no input gets past this ReLU
        >>> sparsity(model, torch.ones(4, 2)).layers[0].dead
        (0, 1, 2)
    """
    check_module(model)
    model = bare(model)
    if not 0 <= share < math.inf:
        raise InvalidValueError(must("share", "0 or more", share))
    with untouched(model) as own, torch.no_grad():
        batches = read(data, examples, own, collate)
        if sum(map(_tree.size, batches)) < LEAST_EXAMPLES:
            hint = "A unit counts as dead if it says the same on all of them."
            raise InvalidValueError(must("data", f"{LEAST_EXAMPLES} or more examples", 1, hint))
        guarded(forward, own, batches[0])
        return _measured(own, batches, forward or plain_forward, share)


def _measured(
    model: nn.Module, batches: Sequence[Tree], forward: Forward, share: float
) -> Sparsity:
    found = layers(model)
    said = _heard(model, batches, forward, found, share)
    made = tuple(_layer(one, said.get(one.name), share) for one in found)
    count = sum(one.rows.numel() for one in found) or 1
    near = sum(
        one.weights.near_zero * layer.rows.numel() for one, layer in zip(made, found, strict=True)
    )
    sums = [s.totals() for s in said.values()]
    whole = math.nan
    if sums:
        squares, fourth, numbers = (sum(column) for column in zip(*sums, strict=True))
        whole = squares**2 / fourth / numbers if fourth else 0.0
    return Sparsity(
        made,
        weights_share(model),
        near / count,
        whole,
        sum(len(one.dead) for one in made),
        sum(one.count for one in made if one.activations is not None),
        sum(map(_tree.size, batches)),
        share,
    )


def weights_share(model: nn.Module) -> float:
    """Participation ratio of all weights of a model's layers together, as a share of them.

    Args:
        model: Any module.

    Example:
        >>> weights_share(nn.Embedding.from_pretrained(torch.eye(4)))
        0.25
    """
    rows = [one.rows.flatten().double() for one in layers(bare(model))]
    weights = torch.cat(rows or [torch.zeros(1, dtype=torch.float64)])
    return float(participation_ratio(weights)) / weights.numel()


class _Sums(NamedTuple):
    """What is added up over examples and places, unit by unit.

    Attributes:
        count: Examples × places.
        low: Smallest. Shape ``[H]``, as the next ones.
        high: Largest.
        total: Σa.
        squares: Σa².
        fourth: Σa⁴.
        products: Σ a aᵀ, shape ``[H, H]``; None where there are too many units.
        active: Σ over examples and places of the participation ratio over units.
        near: How many are near zero; of the second reading.
    """

    count: int
    low: Float[Tensor, " H"]
    high: Float[Tensor, " H"]
    total: Float[Tensor, " H"]
    squares: Float[Tensor, " H"]
    fourth: Float[Tensor, " H"]
    products: Float[Tensor, "H H"] | None
    active: float
    near: int = 0

    def plus(self, other: _Sums) -> _Sums:
        mine, theirs = self.products, other.products
        products = None if mine is None or theirs is None else mine + theirs
        return _Sums(
            self.count + other.count,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.total + other.total,
            self.squares + other.squares,
            self.fourth + other.fourth,
            products,
            self.active + other.active,
        )

    def totals(self) -> tuple[float, float, int]:
        """Σa², Σa⁴ and how many, over all units."""
        numbers = self.count * len(self.low)
        return float(self.squares.sum()), float(self.fourth.sum()), numbers


def _sums(said: Float[Tensor, "N H"]) -> _Sums:
    a = said.double()
    squares = a.square()
    return _Sums(
        len(a),
        a.amin(0),
        a.amax(0),
        a.sum(0),
        squares.sum(0),
        squares.square().sum(0),
        a.T @ a if a.shape[1] <= MOST_UNITS else None,
        float(participation_ratio(a).sum()),
    )


def _heard(
    model: nn.Module,
    batches: Sequence[Tree],
    forward: Forward,
    found: Sequence[Layer],
    share: float,
) -> dict[str, _Sums]:
    """Layer's name → its sums; read twice, since near zero is a share of what is read first."""
    sums: dict[str, _Sums] = {}
    for name, a in _each(model, batches, forward, found):
        sums[name] = sums[name].plus(_sums(a)) if name in sums else _sums(a)
    near = dict.fromkeys(sums, 0)
    for name, a in _each(model, batches, forward, found):
        squares, _, numbers = sums[name].totals()
        near[name] += int((a.double().abs() <= share * math.sqrt(squares / numbers)).sum())
    return {name: one._replace(near=near[name]) for name, one in sums.items()}


def _each(
    model: nn.Module, batches: Sequence[Tree], forward: Forward, found: Sequence[Layer]
) -> Any:
    """(layer's name, ``[examples × places, H]``) of every batch."""
    for batch in batches:
        said = listen(model, forward, batch, owners(found))
        for one in found:
            if one.part is not None and one.owner in said:
                yield one.name, said[one.owner][..., one.part].flatten(0, 1)


def _layer(one: Layer, said: _Sums | None, share: float) -> LayerSparsity:
    rows = one.rows.double()
    ratios = participation_ratio(rows) / rows.shape[1]
    near = float(near_zero_share(rows.flatten(), share))
    weights = Numbers(float(ratios.mean()), tuple(ratios.tolist()), near, effective_rank(rows))
    if said is None:
        return LayerSparsity(one.name, len(rows), weights, None, None, ())
    dead = tuple(dead_units(said.low, said.high).nonzero().flatten().tolist())
    active = said.active / said.count / len(said.low)
    return LayerSparsity(one.name, len(rows), weights, _numbers(said), active, dead)


def dead_units(low: Float[Tensor, " H"], high: Float[Tensor, " H"]) -> Bool[Tensor, " H"]:
    """Units that say the same on every example: the largest of what they say is the smallest.

    Args:
        low: Smallest of each unit.
        high: Largest.

    Example:
        >>> dead_units(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0])).tolist()
        [True, False]
    """
    return low == high


def _numbers(said: _Sums) -> Numbers:
    some = said.fourth > 0
    ratios = torch.where(some, said.squares.square() / said.fourth.where(some, said.fourth + 1), 0)
    shares = ratios / said.count
    near = said.near / (said.count * len(said.low))
    rank = None if said.products is None else _rank_of(_spread(said))
    return Numbers(float(shares.mean()), tuple(shares.tolist()), near, rank)


def _spread(said: _Sums) -> Float[Tensor, " H"]:
    """Singular values of what units say, their means taken off: roots of the scatter's own."""
    assert said.products is not None
    scatter = said.products - torch.outer(said.total, said.total) / said.count
    values = torch.linalg.eigvalsh((scatter + scatter.T) / 2)
    # What is left of zero by round-off is not a direction.
    floor = float(said.products.diagonal().sum()) * 1e-12
    return values.where(values > floor, torch.zeros_like(values)).sqrt()


@dataclass(frozen=True)
class SparsityProbe:
    """A probe for the engine; see :func:`sparsity_probe`."""

    prepared: Prepared
    examples: int

    @property
    def name(self) -> str:
        """What this probe measures, in the plan."""
        return f"sparsity on {self.examples} examples"

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """Shares as named floats."""
        task = self.prepared.task
        forward = task.forward or (lambda model, batch: model(batch[0]))
        data = self.prepared.validation
        return sparsity(objective.module, data, forward=forward, examples=self.examples).values()


def sparsity_probe(prepared: Prepared, *, examples: int = EXAMPLES) -> SparsityProbe:
    """Sparsity as a probe that the engine takes during training, on validation data.

    It records ``sparsity.weights``, ``sparsity.near_zero``, ``sparsity.activations`` and
    ``sparsity.dead``, all shares.

    Args:
        prepared: The task.
        examples: Examples a moment.

    Returns:
        ``(objective, samples) → values``.
    """
    if examples < 1:
        raise InvalidValueError(must("examples", "a whole number, 1 or more", examples))
    return SparsityProbe(prepared, examples)
