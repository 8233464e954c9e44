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
        middle: Unit of the label.
        width: Unit of the label; 0 where every label is an atom.
        spread: Standard deviation of all labels, in widths.
    """

    atoms: Float[Tensor, " atoms"]
    middle: float
    width: float
    spread: float

    def transforms(self, y: Float[Tensor, " N"]) -> Float[Tensor, "psi N"]:
        """1{y = atom}; for all other labels y and cos(iθ), i = 0 … 11, θ from 0 to π, smooth."""
        atoms = (y == self.atoms[:, None]).to(y.dtype)
        if not self.width:
            return atoms
        x = (y - self.middle) / self.width
        theta = torch.atan(x) + math.pi / 2
        waves = torch.cos(torch.arange(WAVES, dtype=y.dtype)[:, None] * theta)
        others = torch.cat([x[None] / self.spread, waves])
        return torch.cat([atoms, others * (1 - atoms.sum(0))])


def scale_of(labels: Float[Tensor, " N"], weights: Float[Tensor, " N"], deviation: float) -> Scale:
    """From one rule's labels; any function of y would do, so that nothing is biased by them.

    Args:
        labels: y, unit of the label.
        weights: Of the points.
        deviation: Standard deviation of y.

    Example:
        >>> y = torch.tensor([-1.0, 1.0, 1.0, -1.0], dtype=torch.float64)
        >>> scale_of(y, torch.full_like(y, 0.25), 1.0).transforms(y).tolist()
        [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]
    """
    y, order = labels.sort()
    values, which = y.unique_consecutive(return_inverse=True)
    mass = torch.bincount(which, weights[order])
    single = mass > LEAST_ATOM
    atoms, values, mass = values[single], values[~single], mass[~single]
    if float(mass.sum()) < LEAST_ATOM:
        return Scale(atoms, 0.0, 0.0, 1.0)
    share = mass.cumsum(0) / mass.sum()
    quarters = torch.searchsorted(share, share.new_tensor([0.25, 0.5, 0.75]))
    low, middle, high = values[quarters.clamp(max=len(values) - 1)].tolist()
    width = (high - low) / 2
    return Scale(atoms, middle, width, deviation / width)
