"""Hermite coefficients of a target and of its labels, each with a bound on its error.

He_j are the probabilists' Hermite polynomials, h_j = He_j/√(j!) is normalised, E[h_i h_j] = δ_ij
under z ~ N(0, 1). A target f* of k directions has c_α = E[f*(z) Π_i h_{α_i}(z_i)], so that
E[f*²] = Σ_α c_α². The coefficients of degree n = |α| make a symmetric tensor
T_n = E[f* He_n(z)]/√(n!), which turns with the axes: of f*(Qz) it is T_n with Qᵀ applied to every
index. ‖T_n‖² = Σ_{|α|=n} c_α².
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from batchlab.errors import InvalidValueError, must
from batchlab.theory import targets
from batchlab.theory._label import scale_of
from batchlab.theory._quadrature import GRID_DIMENSIONS, REACH, Rule, rules
from batchlab.theory.targets import Target

Index: TypeAlias = tuple[int, ...]
MAX_DEGREE = 12
MAX_INDICES = 1000
USUAL_DEGREE = {1: 8, 2: 6, 3: 5}
OTHER_DEGREE = 4
CAUTION = 2.0
"""The bound is so many times the largest deviation of a rule from the mean of all."""
ROUND_OFF = 1e-12
LEAST_DEVIATION = 1e-11
"""Of E[y²]^½; below it nothing but round-off varies."""
MOST_IN_TAIL, MOST_SPREAD = 1e-6, 0.5
"""Share of E[f*²] from the outer sixth of the reach, and between rules, of what is integrable."""
GRID_FOR_TRANSFORMS = 1
"""In more directions functions of y vary fast in thin layers."""
LEAST_LENGTH = 1e-2
"""Eigenvalue of the Gram matrix of ψ(y) below which functions are the same."""
PIECE = 8192
"""Points whose products stay in the processor's cache."""


@dataclass(frozen=True)
class Coefficient:
    """c_α with a bound on the error of its calculation.

    Attributes:
        index: α, the degree in each direction.
        value: c_α = E[f*(z) Π h_{α_i}(z_i)], normalised; unit of the label.
        bound: The true value should not be farther away: twice the largest deviation of eight
            independent rules from their mean, and round-off.
    """

    index: Index
    value: float
    bound: float


class Measured(NamedTuple):
    """A target at the points of every rule.

    Attributes:
        target: The target.
        seed: Of the rules.
        rules: Points and weights.
        labels: y at the points of each rule.
        mean: E[y].
        deviation: Standard deviation of y, above 0.
    """

    target: Target
    seed: int
    rules: list[Rule]
    labels: list[Float[Tensor, " _"]]
    mean: float
    deviation: float


def coefficients(
    target: str | Callable[[Tensor], Tensor] | Target,
    degree: int | None = None,
    *,
    dimensions: int | None = None,
    seed: int = 0,
) -> tuple[Coefficient, ...]:
    """All Hermite coefficients up to a degree, by quadrature.

    Args:
        target: As :func:`batchlab.theory.targets.target` reads it.
        degree: Largest |α|, 1 to 12; left out, 8, 6 and 5 for one to three directions, else 4.
        dimensions: k, as for ``target``.
        seed: Of the rules' random shifts.

    Returns:
        By degree, then by direction.

    Raises:
        InvalidValueError: If the target is not finite, not square integrable, constant, or there
            are too many coefficients.

    Assumes:
        Nothing but jumps across an axis matters on lengths below about 0.001, 0.01 and 0.03 in one
        to three directions.

    Example:
        >>> [round(c.value, 6) for c in coefficients("z**2", 3) if abs(c.value) > c.bound]
        [1.0, 1.414214]
    """
    known = targets.target(target, dimensions)
    up_to = checked_degree(degree, known.dimensions)
    return listed(of_labels(measured(known, seed), up_to), known.dimensions, up_to)


def measured(target: Target, seed: int) -> Measured:
    """The labels at the points of every rule.

    Args:
        target: The target.
        seed: Of the rules.

    Raises:
        InvalidValueError: As for :func:`coefficients`.
    """
    found = _measured(target, seed, GRID_DIMENSIONS)
    pairs = list(zip(found.rules, found.labels, strict=True))
    squares = torch.stack([y.square() @ rule.weights for rule, y in pairs])
    far, spread = sum(_tail(*pair) for pair in pairs), squares.max() - squares.min()
    if far > MOST_IN_TAIL * squares.sum() or spread > MOST_SPREAD * squares.mean():
        hint = "E[f*(z)²] does not converge."
        raise InvalidValueError(must("target", "square integrable", target.text, hint))
    if found.deviation <= LEAST_DEVIATION * float(squares.mean().sqrt()):
        raise InvalidValueError(must("target", "dependent on z", target.text))
    return found


def _measured(target: Target, seed: int, most: int) -> Measured:
    """By a product of axes in no more than so many directions."""
    found = rules(target, seed, most=most)
    labels = [target(rule.points).contiguous() for rule in found]
    if not all(bool(y.isfinite().all()) for y in labels):
        raise InvalidValueError(must("target", "finite for every z", target.text))
    pairs = list(zip(found, labels, strict=True))
    mean = float(sum(rule.weights @ y for rule, y in pairs)) / len(pairs)
    variance = float(sum(rule.weights @ (y - mean).square() for rule, y in pairs)) / len(pairs)
    return Measured(target, seed, found, labels, mean, math.sqrt(variance))


def _tail(rule: Rule, labels: Float[Tensor, " N"]) -> Tensor:
    """What points far out contribute to E[f*²]."""
    edge = 5 / 6 * (REACH + REACH**3 / 60)
    far = rule.points.abs().amax(1) > edge
    return labels[far].square() @ rule.weights[far]


def checked_degree(degree: int | None, dimensions: int) -> int:
    """The degree asked for, or the usual one.

    Raises:
        InvalidValueError: If it is out of range, or there are more than 1,000 coefficients.

    Example:
        >>> checked_degree(None, 2)
        6
    """
    if degree is None:
        return USUAL_DEGREE.get(dimensions, OTHER_DEGREE)
    most = max(n for n in range(1, MAX_DEGREE + 1) if math.comb(n + dimensions, n) <= MAX_INDICES)
    if not isinstance(degree, int) or isinstance(degree, bool) or not 1 <= degree <= most:
        words = f"a whole number from 1 to {most} for {dimensions} directions"
        raise InvalidValueError(must("degree", words, degree))
    return degree


@functools.cache
def indices(dimensions: int, degree: int) -> tuple[Index, ...]:
    """Every α of k directions with |α| ≤ degree, by |α|, the first direction first.

    Example:
        >>> indices(2, 1)
        ((0, 0), (1, 0), (0, 1))
    """
    axes = range(dimensions)
    return tuple(
        tuple(Counter(chosen)[i] for i in axes)
        for n in range(degree + 1)
        for chosen in itertools.combinations_with_replacement(axes, n)
    )


def listed(
    each: Float[Tensor, "rules 1 A"], dimensions: int, degree: int
) -> tuple[Coefficient, ...]:
    """The coefficients of the labels, with bounds, from those of every rule."""
    value = each[:, 0].mean(0)
    size = float(value.norm())
    bound = CAUTION * (each[:, 0] - value).abs().amax(0) + ROUND_OFF * size
    return tuple(
        Coefficient(index, float(c), float(e))
        for index, c, e in zip(indices(dimensions, degree), value, bound, strict=True)
    )


# ------------------------------------------------------------------ one row for each rule


def of_labels(found: Measured, degree: int) -> Float[Tensor, "rules 1 A"]:
    """c_α of y as each rule sees them, in the order of :func:`indices`."""
    return torch.stack([sums for sums, _ in _sums(found, lambda y: y[None], degree)])


def of_transforms(found: Measured, degree: int) -> Float[Tensor, "rules psi A"]:
    """c_α of orthonormal functions ψ(y), rule by rule.

    Σ over them of the squares is the part of E[E[h_α | y]²] that they see, all of it where y has
    few values.
    """
    if GRID_FOR_TRANSFORMS < found.target.dimensions <= GRID_DIMENSIONS:
        found = _measured(found.target, found.seed, GRID_FOR_TRANSFORMS)
    scale = scale_of(found.labels[0], found.rules[0].weights, found.deviation)
    pairs = _sums(found, scale.transforms, degree)
    sums, grams = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    values, vectors = torch.linalg.eigh(grams.mean(0))
    kept = values > LEAST_LENGTH
    return (vectors[:, kept] / values[kept].sqrt()).mT @ sums


def _sums(
    found: Measured, psi: Callable[[Tensor], Tensor], degree: int
) -> list[tuple[Float[Tensor, "psi A"], Float[Tensor, "psi psi"]]]:
    """Σ w ψ(y) Πh and the Gram matrix Σ w ψψᵀ, by every rule, piece by piece."""
    every = []
    for rule, labels in zip(found.rules, found.labels, strict=True):
        sums = gram = torch.zeros(())
        pieces = (each.split(PIECE) for each in (rule.points, rule.weights, labels))
        for z, w, y in zip(*pieces, strict=True):
            values = psi(y)
            sums = sums + values @ _products(z.mT.contiguous(), w, degree).mT
            gram = gram + (values * w) @ values.mT
        every.append((sums, gram))
    return every


def _products(
    z: Float[Tensor, "k N"], weights: Float[Tensor, " N"], degree: int
) -> Float[Tensor, "A N"]:
    """Weighted Π h_{α_i}(z_i), each α from one with fewer factors."""
    tables = [_table(axis, degree) for axis in z]
    found = z.new_empty(len(indices(len(z), degree)), len(weights))
    found[0] = weights
    for i, (parent, axis, j) in enumerate(_steps(len(z), degree), 1):
        torch.mul(found[parent], tables[axis][j], out=found[i])
    return found


@functools.cache
def _steps(dimensions: int, degree: int) -> tuple[tuple[int, int, int], ...]:
    """For every α but 0: where the α without its last factor h_j stands, that factor's axis, j."""
    every = indices(dimensions, degree)
    known = {index: i for i, index in enumerate(every)}
    found = []
    for index in every[1:]:
        axis = max(i for i, j in enumerate(index) if j)
        found.append((known[*index[:axis], *(0,) * (dimensions - axis)], axis, index[axis]))
    return tuple(found)


def _table(z: Float[Tensor, " N"], degree: int) -> list[Float[Tensor, " N"]]:
    """h_0 … h_D: √(j+1) h_{j+1} = z h_j − √j h_{j−1}."""
    before, now, table = torch.zeros_like(z), torch.ones_like(z), []
    for j in range(degree + 1):
        table.append(now)
        before, now = now, (z * now - math.sqrt(j) * before) / math.sqrt(j + 1)
    return table


# ------------------------------------------------------------------ tensors


def tensor(rows: Float[Tensor, "*rows A"], dimensions: int, order: int) -> Tensor:
    """T_n from the c_α of all degrees: entry i_1 … i_n is c_α √(Πα_i!/n!).

    Args:
        rows: c_α, in the order of :func:`indices`.
        dimensions: k.
        order: n.

    Returns:
        Shape ``[rows … k … k]``.

    Example:
        >>> tensor(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0]), 2, 2)
        tensor([[0.0000, 0.7071],
                [0.7071, 0.0000]])
    """
    at, scale = _places(dimensions, order)
    shape = (*rows.shape[:-1], *[dimensions] * order)
    return (rows[..., at] * scale.to(rows.dtype)).reshape(shape)


@functools.cache
def _places(dimensions: int, order: int) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Which α stands at each place of the tensor, and √(Πα_i!/n!)."""
    known = {index: i for i, index in enumerate(indices(dimensions, order))}
    axes: Sequence[int] = range(dimensions)
    every = [
        tuple(Counter(place)[i] for i in axes) for place in itertools.product(axes, repeat=order)
    ]
    scale = [math.prod(map(math.factorial, index)) / math.factorial(order) for index in every]
    at = torch.tensor([known[index] for index in every])
    return at, torch.tensor(scale, dtype=torch.float64).sqrt()
