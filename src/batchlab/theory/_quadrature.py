"""Means over normal vectors, in several independent ways whose disagreement bounds the error.

Up to three directions a rule is a product of Gauss–Legendre panels on every axis. Jumps that stand
across an axis, as in sign(z1*z2), are found first and become edges of panels. The other edges are
shifted at random from rule to rule: what lies between the nodes of one rule, such as a jump that
bends through the plane, is seen differently by the next. In more directions, and for what varies
fast in thin layers, the rules are independent scrambles of Sobol points.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random
from batchlab.theory.targets import Target

RULES = 8
GRID_DIMENSIONS = 3
REACH = 8.5
"""Panels are equal in t, |t| ≤ 8.5, with z = t + t³/60: |z| ≤ 18.7."""
PANELS = {1: (1500, 8), 2: (50, 10), 3: (8, 8)}
"""Directions → panels on an axis, nodes of a panel."""
SOBOL_POINTS = 2**18
LINES, LINE_POINTS, LINE_REACH = 24, 2**14 + 1, 9.0
MOST_BREAKS = 32
LEAST_JUMP = 1e-3
"""Jumps below this share of the standard deviation are left to the rules."""


class Rule(NamedTuple):
    """Points and their weights: Σ w f(z) ≈ E[f(z)], z ~ N(0, I)."""

    points: Float[Tensor, "N k"]
    weights: Float[Tensor, " N"]


def rules(target: Target, seed: int = 0, *, most: int = GRID_DIMENSIONS) -> list[Rule]:
    """Independent rules for means of what depends on a target.

    Args:
        target: Its jumps across an axis are looked for.
        seed: Random seed of the shifts and scrambles.
        most: In more directions than this the points are scrambled.

    Returns:
        Eight rules.

    Example:
        >>> from batchlab.theory.targets import target
        >>> points, weights = rules(target("z1*z2"))[0]
        >>> round(float(weights @ points[:, 1] ** 4), 9)
        3.0
    """
    if target.dimensions > most:
        return [_sobol(target.dimensions, seed, i) for i in range(RULES)]
    draws = _random.generator(seed, "quadrature")
    edges = [breaks(target, axis, draws) for axis in range(target.dimensions)]
    shifts = [_shifts(draws) for _ in edges]
    size = PANELS[target.dimensions]
    return [
        _product([_axis(size, shift[i], e) for shift, e in zip(shifts, edges, strict=True)])
        for i in range(RULES)
    ]


def breaks(target: Target, axis: int, draws: torch.Generator) -> list[float]:
    """Where the target jumps across an axis, on more than one line along it.

    Args:
        target: Any.
        axis: Along which the lines run.
        draws: Where the lines pass.

    Returns:
        The places, ascending; none where there are too many.
    """
    lines = LINES if target.dimensions > 1 else 1
    base = torch.randn(lines, target.dimensions, dtype=torch.float64, generator=draws)
    along = torch.linspace(-LINE_REACH, LINE_REACH, LINE_POINTS, dtype=torch.float64) + 1e-4

    def values(places: Tensor, line: Tensor) -> Tensor:
        points = base[line].clone()
        points[:, axis] = places
        return target(points)

    every = torch.arange(lines).repeat_interleave(LINE_POINTS)
    rise = values(along.repeat(lines), every).reshape(lines, -1).diff().abs()
    line, start = _sudden(rise).nonzero(as_tuple=True)
    low, high = along[start], along[start + 1]
    for _ in range(50):
        middle = (low + high) / 2
        left, centre, right = (values(x, line) for x in (low, middle, high))
        first = (centre - left).abs() > (right - centre).abs()
        low, high = low.where(first, middle), middle.where(first, high)
    kept = (values(high, line) - values(low, line)).abs() > 0.4 * rise[line, start]
    places = ((low + high)[kept] / 2).sort().values
    _, seen = places.mul(1e9).round().unique(return_counts=True)
    first = seen.cumsum(0) - seen
    found = places[first[seen >= min(2, lines)]]
    return found.tolist() if len(found) <= MOST_BREAKS else []


def _sudden(rise: Float[Tensor, "lines n"]) -> Tensor:
    """Steps that are much higher than their neighbours, and not small."""
    around = torch.nn.functional.pad(rise, (1, 1))
    beside = torch.maximum(around[:, :-2], around[:, 2:])
    typical = rise.square().sum(1, keepdim=True).sqrt()
    return (rise > 4 * beside) & (rise > LEAST_JUMP * typical)


def _shifts(draws: torch.Generator) -> list[float]:
    """One for each rule, spread evenly over a panel, in random order."""
    order = torch.randperm(RULES, generator=draws)
    return ((order + torch.rand(RULES, generator=draws)) / RULES).tolist()


def _axis(size: tuple[int, int], shift: float, breaks: list[float]) -> Rule:
    """Panels between shifted edges and breaks; edges too close to a break are left out."""
    panels, nodes = size
    t = np.linspace(-REACH, REACH, panels + 1)[:-1] + shift * 2 * REACH / panels
    edges, ends = t + t**3 / 60, REACH + REACH**3 / 60
    fixed = np.array([-ends, *breaks, ends])
    apart = np.abs(edges[:, None] - fixed).min(1) > REACH / panels / 2
    edges = np.sort(np.concatenate([edges[apart], fixed]))
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    at, weight = _legendre(nodes)
    z = (middle[:, None] + half[:, None] * at).ravel()
    w = (half[:, None] * weight).ravel() * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return Rule(torch.from_numpy(z)[:, None], torch.from_numpy(w))


@functools.cache
def _legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(nodes)


def _product(axes: list[Rule]) -> Rule:
    if len(axes) == 1:
        return axes[0]
    points = torch.cartesian_prod(*(axis.points[:, 0] for axis in axes))
    weights = functools.reduce(lambda a, b: (a[:, None] * b).ravel(), [w for _, w in axes])
    return Rule(points, weights)


def _sobol(dimensions: int, seed: int, rule: int) -> Rule:
    key = _random.key(seed, "quadrature", rule)
    engine = torch.quasirandom.SobolEngine(dimensions, scramble=True, seed=key)
    uniform = engine.draw(SOBOL_POINTS, dtype=torch.float64)
    normal = torch.special.ndtri(uniform + 2.0**-31)  # of multiples of 2⁻³⁰ in [0, 1)
    return Rule(normal, torch.full((SOBOL_POINTS,), 1 / SOBOL_POINTS, dtype=torch.float64))
