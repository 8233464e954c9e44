"""How hard a target is: which of its directions one pass over the data learns, and which re-use.

Gradient descent in high dimensions starts without knowledge of the directions. One pass sees the
labels as they are. A second step on the same batch sees functions of them as well: after the first
step the pre-activations of the training examples contain their labels. So two passes learn a
direction v within a number of steps that does not grow with the dimension iff E[z_v | y] is not
identically 0; one pass needs E[y z_v] ≠ 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random
from batchlab.theory import targets
from batchlab.theory.hermite import (
    Coefficient,
    checked_degree,
    listed,
    measured,
    of_labels,
    of_transforms,
)
from batchlab.theory.leaps import Order, Vector, order
from batchlab.theory.targets import Target

LEAST = 1e-3
"""Means below this many standard deviations, 10⁻⁶ of the variance, are not told from 0."""
POINTS = 2**15
SAME = 1e-9
"""Share of the variance up to which a change of the labels is none."""
MOST_TILT = 0.01
"""The same where directions are known with an error, at most."""


@dataclass(frozen=True)
class Exponents:
    """What is hard about a target, and the calculation behind it.

    A mean counts as not 0 where it is above 10⁻³ standard deviations of the label and above twice
    the bound of its own error.

    Attributes:
        target: As text.
        dimensions: k.
        degree: Largest total degree looked at.
        mean: E[y], unit of the label.
        deviation: Standard deviation of y.
        coefficients: c_α of all |α| ≤ degree, each with its bound.
        one_pass: Order in which one pass learns directions, from the labels themselves.
        reuse: The same from all functions of the label.
        one_pass_misses: Whether the label depends on what ``one_pass`` leaves.
        reuse_misses: Whether it depends on what ``reuse`` leaves.
        even: Whether f*(−z) = f*(z).
        mirrors: Directions that matter, of the axes and of those learned, whose reflection
            leaves the label as it is.
    """

    target: str
    dimensions: int
    degree: int
    mean: float
    deviation: float
    coefficients: tuple[Coefficient, ...]
    one_pass: Order
    reuse: Order
    one_pass_misses: bool
    reuse_misses: bool
    even: bool
    mirrors: tuple[Vector, ...]

    @property
    def information(self) -> int | None:
        """Information exponent: least |α| ≥ 1 with c_α ≠ 0. None: above ``degree``."""
        return self.one_pass.first

    @property
    def leap(self) -> int | None:
        """Leap exponent: the largest degree among the steps. None: some are not reached."""
        return None if self.one_pass_misses else self.one_pass.largest

    @property
    def generative(self) -> int | None:
        """Generative exponent: least |α| ≥ 1 with E[E[h_α|y]²] ≠ 0. None: above ``degree``."""
        return self.reuse.first

    @property
    def generative_leap(self) -> int | None:
        """Leap exponent over all functions of the label. None: some steps are not reached."""
        return None if self.reuse_misses else self.reuse.largest

    @property
    def at_once(self) -> tuple[Vector, ...]:
        """What one pass learns in O(1) steps without a staircase: the direction of E[y z]."""
        return _first(self.one_pass)

    @property
    def at_once_by_reuse(self) -> tuple[Vector, ...]:
        """What two passes learn in O(1) steps: the span of E[z | y]."""
        return _first(self.reuse)

    @property
    def only_by_reuse(self) -> tuple[Vector, ...]:
        """The part of ``at_once_by_reuse`` orthogonal to ``at_once``."""
        if not self.at_once_by_reuse:
            return ()
        span = _matrix(self.at_once_by_reuse)
        seen = _matrix(self.at_once, self.dimensions)
        rest = span - span @ seen.mT @ seen
        _, sizes, found = torch.linalg.svd(rest, full_matrices=False)
        return tuple(_rounded(v) for v, size in zip(found, sizes, strict=True) if size > 0.5)


def exponents(
    target: str | Callable[[Tensor], Tensor] | Target,
    degree: int | None = None,
    *,
    dimensions: int | None = None,
    seed: int = 0,
) -> Exponents:
    """Information, leap and generative exponent of a target, and the directions behind them.

    Args:
        target: As :func:`batchlab.theory.targets.target` reads it; k directions.
        degree: Largest total degree looked at, 1 to 12; left out, 8, 6 and 5 for one to three
            directions, else 4.
        dimensions: k, as for ``target``.
        seed: Of the rules' random shifts and scrambles.

    Returns:
        The exponents, the order of the directions, coefficients and symmetries.

    Raises:
        InvalidValueError: If the target is not finite, not square integrable, constant, or there
            are too many coefficients.

    Assumes:
        Gaussian inputs. Functions of the label are looked at through 12 waves of a squashed label
        and its values of mass above 1/128: strengths of ``reuse`` are "at least".

    Source:
        benarous2021 for the information exponent, abbe2023 for the leap, damian2024 for the
        generative exponent, dandi2024 for two passes.

    Example:
        >>> found = exponents("z**2 * exp(-z**2)")
        >>> found.information, found.leap, found.generative, found.even
        (4, 4, 4, True)
        >>> exponents("He3(z)").generative
        1
    """
    known = targets.target(target, dimensions)
    up_to = checked_degree(degree, known.dimensions)
    found = measured(known, seed)
    each = of_labels(found, up_to)
    one_pass = order(each / found.deviation, known.dimensions, up_to, LEAST)
    reuse = order(of_transforms(found, up_to), known.dimensions, up_to, LEAST)
    probe = _Probe(known, found.deviation, _random.generator(seed, "symmetry"))
    return Exponents(
        known.text,
        known.dimensions,
        up_to,
        found.mean,
        found.deviation,
        listed(each, known.dimensions, up_to),
        one_pass,
        reuse,
        probe.depends_on(one_pass.left, _tilt(one_pass)),
        probe.depends_on(reuse.left, _tilt(reuse)),
        probe.same(-probe.points),
        tuple(v for v in _candidates(one_pass, reuse, known.dimensions) if probe.mirrored(v)),
    )


class _Probe:
    """Labels of the same points before and after a change of z."""

    def __init__(self, target: Target, deviation: float, draws: torch.Generator) -> None:
        shape = POINTS, target.dimensions
        self.target, self.deviation = target, deviation
        self.points = torch.randn(shape, dtype=torch.float64, generator=draws)
        self.others = torch.randn(shape, dtype=torch.float64, generator=draws)
        self.labels = target(self.points)

    def same(self, points: Float[Tensor, "N k"], tilt: float = 0.0) -> bool:
        """Whether the labels stay as they are, but for round-off and for directions that tilt.

        Where labels jump, they change at a share of the points in proportion to the tilt.
        """
        change = (self.target(points) - self.labels).square().mean()
        return float(change) <= max(SAME, min(tilt, MOST_TILT)) * self.deviation**2

    def depends_on(self, directions: tuple[Vector, ...], tilt: float = 0.0) -> bool:
        """Whether other values along these directions change the labels."""
        if not directions:
            return False
        basis = _matrix(directions)
        return not self.same(self.points + (self.others - self.points) @ basis.mT @ basis, tilt)

    def mirrored(self, direction: Vector) -> bool:
        """Whether the direction matters, and z ↦ z − 2(v·z)v leaves the labels as they are."""
        v = _matrix((direction,))
        return self.depends_on((direction,)) and self.same(
            self.points - 2 * self.points @ v.mT @ v
        )


def _candidates(one_pass: Order, reuse: Order, dimensions: int) -> list[Vector]:
    """The axes and the directions of both orders, each once."""
    axes = tuple(_rounded(row) for row in torch.eye(dimensions, dtype=torch.float64))
    orders = one_pass.directions + one_pass.left + reuse.directions + reuse.left
    kept: list[Vector] = []
    for v in axes + orders:
        alike = (abs(float(_matrix((v,)) @ _matrix((other,)).mT)) for other in kept)
        if all(cosine < 1 - 1e-6 for cosine in alike):
            kept.append(v)
    return kept


def _tilt(found: Order) -> float:
    """How far the directions may be off, and so what is orthogonal to them; generously."""
    ways = (step.bound / min(step.strengths) for step in found.steps)
    return 4 * max(ways, default=0.0)


def _first(found: Order) -> tuple[Vector, ...]:
    return found.steps[0].directions if found.first == 1 else ()


def _matrix(vectors: tuple[Vector, ...], dimensions: int = 0) -> Float[Tensor, "n k"]:
    if not vectors:
        return torch.zeros(0, dimensions, dtype=torch.float64)
    return torch.tensor(vectors, dtype=torch.float64)


def _rounded(vector: Float[Tensor, " k"]) -> Vector:
    """With its largest component positive."""
    turned = vector * vector[int(vector.abs().argmax())].sign()
    return tuple(0.0 + round(x, 12) for x in turned.tolist())
