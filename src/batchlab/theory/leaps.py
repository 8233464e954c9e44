"""In which order the directions of a target are learned, and how hard each of them is.

What is learned so far is a subspace U. The next directions are those of the smallest degree j in
what is not in U for which E[ψ(y) q(z_U) He_j(z_⊥)] ≠ 0 for some polynomial q: with the labels
themselves, ψ(y) = y, the order of one pass over the data; with any ψ, that of re-used data. In the
axes (U, U⊥) these means are the block of T_n with n − j indices in U and j in U⊥, so all of them
follow from the tensors by turning the axes. Unfolded along one index in U⊥ they are a matrix whose
right singular vectors are the new directions.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab.theory.hermite import CAUTION, ROUND_OFF, tensor

Vector: TypeAlias = tuple[float, ...]
TIE = 1e-6


@dataclass(frozen=True)
class Step:
    """Directions that are learned together, once those of earlier steps are known.

    Attributes:
        degree: j, the leap.
        directions: Orthonormal, the strongest first. Shape ``[new, k]``.
        strengths: Singular value of each, in standard deviations of ψ(y).
        bound: How far a strength may be off.
        resolution: In lower degrees there is nothing stronger than this; 0 where there is none.
        through: Least degree of q, the polynomial in earlier directions; 0 for the first step.
    """

    degree: int
    directions: tuple[Vector, ...]
    strengths: tuple[float, ...]
    bound: float
    resolution: float
    through: int


@dataclass(frozen=True)
class Order:
    """The steps by which directions are learned.

    Attributes:
        steps: One after another.
        left: Orthonormal basis of what is not reached. Shape ``[left, k]``.
        degree: Up to this total degree means were calculated.
        resolution: What is left has no mean stronger than this, up to that degree.
    """

    steps: tuple[Step, ...]
    left: tuple[Vector, ...]
    degree: int
    resolution: float

    @property
    def first(self) -> int | None:
        """Degree of the first step; None: above ``degree``."""
        return self.steps[0].degree if self.steps else None

    @property
    def largest(self) -> int | None:
        """The largest degree among the steps; None: there are none."""
        return max((step.degree for step in self.steps), default=None)

    @property
    def directions(self) -> tuple[Vector, ...]:
        """Those of all steps, in their order."""
        return tuple(v for step in self.steps for v in step.directions)


def order(
    rows: Float[Tensor, "rules labels A"], dimensions: int, degree: int, least: float
) -> Order:
    """The order of the directions.

    Args:
        rows: c_α of every ψ(y) as each rule sees them, in standard deviations of ψ(y).
        dimensions: k.
        degree: Of the largest |α|.
        least: Weaker means are not told from 0.

    Returns:
        The steps, until nothing more is found.

    Example:
        >>> from batchlab.theory.hermite import measured, of_labels
        >>> from batchlab.theory.targets import target
        >>> found = of_labels(measured(target("z1 + z1*z2"), 0), 3)
        >>> [(s.degree, s.directions) for s in order(found, 2, 3, 1e-3).steps]
        [(1, ((1.0, 0.0),)), (1, ((0.0, 1.0),))]
    """
    tensors = [tensor(rows, dimensions, n) for n in range(degree + 1)]
    axes, known, steps = torch.eye(dimensions, dtype=rows.dtype), 0, []
    while known < dimensions:
        step, vectors, resolution = _next(tensors, axes, known, least)
        if step is None:
            break
        steps.append(step)
        rest = axes[:, known:] @ vectors
        axes = torch.cat([axes[:, :known], rest], dim=1)
        known += len(step.directions)
    else:
        resolution = 0.0
    return Order(tuple(steps), _vectors(axes[:, known:]), degree, resolution)


def _next(
    tensors: list[Tensor], axes: Float[Tensor, "k k"], known: int, least: float
) -> tuple[Step | None, Float[Tensor, "m m"], float]:
    """The next step, the axes of U⊥ it turns to, and what lower degrees may hide."""
    hidden, count = 0.0, axes.shape[1] - known
    for j in range(1, len(tensors)):
        blocks = _blocks(tensors, axes, known, j)
        each = torch.cat(blocks, dim=1)
        mean, bound = _settled(each)
        _, strengths, vectors = torch.linalg.svd(mean, full_matrices=True)
        new = int((strengths > max(CAUTION * bound, least)).sum())
        if new:
            turned = axes[:, known:] @ _settled_axes(vectors.mT, strengths[:new], bound)
            turned = _signed(turned)
            found = _vectors(turned[:, :new])
            through = _through(blocks, least)
            step = Step(j, found, tuple(strengths[:new].tolist()), bound, hidden, through)
            return step, axes[:, known:].mT @ turned, hidden
        hidden = max(hidden, float(strengths[0]) + bound, least)
    return None, torch.eye(count, dtype=axes.dtype), hidden


def _settled(each: Float[Tensor, "rules means m"]) -> tuple[Float[Tensor, "means m"], float]:
    """The mean over rules, and how far any of its singular values may be off."""
    mean = each.mean(0)
    return mean, CAUTION * float((each - mean).flatten(1).norm(dim=1).max()) + ROUND_OFF


def _through(blocks: list[Float[Tensor, "rules _ m"]], least: float) -> int:
    """The first block that is not 0; where only all of them together are not, the strongest."""
    sizes = []
    for degree, block in enumerate(blocks):
        mean, bound = _settled(block)
        sizes.append(float(mean.norm()))
        if sizes[-1] > max(CAUTION * bound, least):
            return degree
    return sizes.index(max(sizes))


def _blocks(
    tensors: list[Tensor], axes: Float[Tensor, "k k"], known: int, j: int
) -> list[Float[Tensor, "rules _ m"]]:
    """All means of degree j in U⊥, one index of it apart, by the degree of q."""
    orders = range(j, len(tensors)) if known else (j,)
    blocks = (_block(tensors[n], axes[:, :known], axes[:, known:], j) for n in orders)
    return [block.flatten(1, -2) for block in blocks]


def _block(t: Tensor, learned: Tensor, rest: Tensor, j: int) -> Tensor:
    """T_n with n − j indices in U and j in U⊥, such that its squares are those of the c_α."""
    n = t.ndim - 2
    for index in range(n):
        side = learned if index < n - j else rest
        t = t.movedim(2, -1) @ side  # the next index takes its place
    return t * math.sqrt(math.comb(n, j))


def _settled_axes(
    vectors: Float[Tensor, "m m"], strengths: Float[Tensor, " new"], bound: float
) -> Float[Tensor, "m m"]:
    """Equally strong directions, and those that are left, have no axes of their own: they get
    those nearest to the old.
    """
    equal = -strengths.diff() <= CAUTION * bound + TIE
    starts = [0, *(1 + (~equal).nonzero()[:, 0]).tolist(), len(strengths), len(vectors)]
    groups = [vectors[:, a:b] for a, b in itertools.pairwise(starts) if a < b]
    return torch.cat([_nearest_axes(group) for group in groups], dim=1)


def _nearest_axes(basis: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """An orthonormal basis of the same space, by the longest shadows of the old axes."""
    shadows, found = basis @ basis.mT, []
    for _ in range(basis.shape[1]):
        lengths = shadows.diagonal()
        longest = int((lengths > lengths.max() - TIE).to(torch.int8).argmax())
        found.append(shadows[:, longest] / lengths[longest].sqrt())
        shadows = shadows - torch.outer(found[-1], found[-1])
    return torch.stack(found, dim=1)


def _signed(vectors: Float[Tensor, "k m"]) -> Float[Tensor, "k m"]:
    """Each with its largest component positive, the first of those that are equal."""
    size = vectors.abs()
    largest = (size > size.amax(0) - TIE).to(torch.int8).argmax(0)
    return vectors * vectors.gather(0, largest[None]).sign()


def _vectors(columns: Float[Tensor, "k m"]) -> tuple[Vector, ...]:
    return tuple(tuple(0.0 + round(x, 12) for x in column) for column in columns.mT.tolist())
