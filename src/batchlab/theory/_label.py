"""Functions ψ(y) of a label, through which E[· | y] is seen."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

WAVES, LEAST_ATOM = 12, 1 / 128
"""Waves; mass from which a value of y counts by itself."""


class Scale(NamedTuple):
    """Values of y with a mass of their own; median and half the middle half of all others.

    Attributes:
        atoms: Ascending.
        mass: Of each.
        middle: Unit of the label.
        width: Unit of the label; 0 where all others are one value, or too few.
        deviation: Of all labels, unit of the label.
    """

    atoms: Float[Tensor, " atoms"]
    mass: Float[Tensor, " atoms"]
    middle: float
    width: float
    deviation: float

    def transforms(self, y: Float[Tensor, " N"]) -> Float[Tensor, "psi N"]:
        """y, so that no function sees less than one pass does; 1{y = atom}/√mass; for all other
        labels cos(iθ), i = 0 … 11, θ from 0 to π, smooth.
        """
        atoms = (y == self.atoms[:, None]).to(y.dtype)
        whole = (y - self.middle)[None] / self.deviation
        known = torch.cat([whole, atoms / self.mass.sqrt()[:, None]])
        if not self.width:
            return known
        theta = torch.atan((y - self.middle) / self.width) + math.pi / 2
        waves = torch.cos(torch.arange(WAVES, dtype=y.dtype)[:, None] * theta)
        return torch.cat([known, waves * (1 - atoms.sum(0))])


def scale_of(labels: Float[Tensor, " N"], weights: Float[Tensor, " N"], deviation: float) -> Scale:
    """From one rule's labels; any function of y would do, so that nothing is biased by them.

    Args:
        labels: y, unit of the label.
        weights: Of the points.
        deviation: Standard deviation of y.

    Example:
        >>> y = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
        >>> scale_of(y, torch.full_like(y, 0.25), 1.0).transforms(y).round(decimals=2).tolist()
        [[-1.0, 1.0, 1.0, -1.0], [1.41, 0.0, 0.0, 1.41], [0.0, 1.41, 1.41, 0.0]]
    """
    y, order = labels.sort()
    values, which = y.unique_consecutive(return_inverse=True)
    mass = torch.bincount(which, weights[order])
    single = mass > LEAST_ATOM
    atoms, own = values[single], mass[single]
    values, mass = values[~single], mass[~single]
    if float(mass.sum()) < LEAST_ATOM:
        return Scale(atoms, own, 0.0, 0.0, deviation)
    share = mass.cumsum(0) / mass.sum()
    quarters = torch.searchsorted(share, share.new_tensor([0.25, 0.5, 0.75]))
    low, middle, high = values[quarters.clamp(max=len(values) - 1)].tolist()
    return Scale(atoms, own, middle, (high - low) / 2, deviation)
