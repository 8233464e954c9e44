"""Random distortions of pictures as a pure function of one key a picture, in tensor operations.

They run where the pictures lie, stacked or alone, and are the same for every batch size, because
nothing is drawn from a generator: each number is a hash of the picture's key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from batchlab import _random
from batchlab.errors import InvalidValueError, must

KNOTS = 4
"""Points a side of the elastic field, between which it is linear."""


@dataclass(frozen=True)
class Augmentation:
    """How strongly pictures are distorted; 0 leaves a distortion out.

    Attributes:
        rotation: Largest angle, degrees.
        zoom: Largest log of the magnification.
        shear: Largest shift of a row over its height.
        shift: Largest shift, a share of the side.
        elastic: Largest local displacement, a share of the side.
        crop: Largest shift in whole pixels, as cutting out of a picture with a black margin.
        flip: Chance that left and right change places.
        noise: Standard deviation of what is added to each pixel.
    """

    rotation: float = 15.0
    zoom: float = 0.15
    shear: float = 0.15
    shift: float = 0.05
    elastic: float = 0.04
    crop: int = 1
    flip: float = 0.0
    noise: float = 0.05

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not 0 <= value < math.inf:
                raise InvalidValueError(must(one.name, "finite, 0 or more", value))
        if self.flip > 1:
            raise InvalidValueError(must("flip", "a chance, from 0 to 1", self.flip))


class Warp(NamedTuple):
    """Where each pixel of the result is read.

    Attributes:
        angle: Counter-clockwise, radians.
        zoom: Magnification.
        shear: Shift of a row over its height.
        shift: Right and down, in half sides.
        mirror: −1 where left and right change places, else 1.
        field: Displacement of each pixel, right and down, in half sides.
    """

    angle: Float[Tensor, " B"]
    zoom: Float[Tensor, " B"]
    shear: Float[Tensor, " B"]
    shift: Float[Tensor, "B 2"]
    mirror: Float[Tensor, " B"]
    field: Float[Tensor, "B S S 2"]


def augment(
    images: Float[Tensor, "B channels S S"], keys: Int[Tensor, " B"], how: Augmentation
) -> Float[Tensor, "B channels S S"]:
    """Distorted pictures, one for each key.

    Args:
        images: Square pictures.
        keys: Name what is drawn, one a picture.
        how: Strengths.

    Returns:
        Pictures of the same size, black where nothing was; the input itself at strength 0.

    Example:
        >>> from dataclasses import replace
        >>> images, keys = torch.rand(2, 1, 8, 8), torch.arange(2)
        >>> one = augment(images[:1], keys[:1], Augmentation())
        >>> torch.allclose(augment(images, keys, Augmentation())[:1], one, atol=1e-6)
        True
    """
    strengths = (how.rotation, how.zoom, how.shear, how.shift, how.elastic, how.crop, how.flip)
    if any(strengths):
        images = warped(images, drawn(keys, images.shape[-1], how))
    if how.noise:
        images = images + how.noise * normal(keys, 2, images[0].numel()).reshape(images.shape)
    return images


def drawn(keys: Int[Tensor, " B"], side: int, how: Augmentation) -> Warp:
    """The warp of each key.

    Args:
        keys: One a picture.
        side: S, pixels.
        how: Strengths.
    """
    numbers = _random.uniform(keys, 0, 8)
    signed = 2 * numbers - 1
    pixels = ((2 * how.crop + 1) * numbers[:, 5:7]).floor() - how.crop
    knots = 2 * _random.uniform(keys, 1, 2 * KNOTS**2) - 1
    return Warp(
        math.radians(how.rotation) * signed[:, 0],
        (how.zoom * signed[:, 1]).exp(),
        how.shear * signed[:, 2],
        2 * how.shift * signed[:, 3:5] + 2 * pixels / side,
        1 - 2 * (numbers[:, 7] < how.flip).to(numbers.dtype),
        2 * how.elastic * smooth(knots.reshape(-1, 2, KNOTS, KNOTS), side),
    )


def smooth(knots: Float[Tensor, "B 2 k k2"], side: int) -> Float[Tensor, "B S S 2"]:
    """A field that is bilinear between knots at the corners of a grid over the picture."""
    corners = torch.eye(knots.shape[-1], dtype=knots.dtype, device=knots.device)
    between = interpolate(corners[None], side, mode="linear", align_corners=True)[0].T
    return (between @ knots @ between.T).permute(0, 2, 3, 1)


def warped(images: Float[Tensor, "B channels S S"], warp: Warp) -> Float[Tensor, "B channels S S"]:
    """Pictures read at A⁻¹(p − shift) + field, bilinearly; black outside.

    A mirrors, shears, turns and magnifies, in this order, about the middle.

    Example:
        >>> one, zero = torch.ones(1), torch.zeros(1)
        >>> quarter = Warp(one * torch.pi / 2, one, zero, torch.zeros(1, 2), one,
        ...                torch.zeros(1, 2, 2, 2))
        >>> warped(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), quarter).round().tolist()
        [[[[2.0, 4.0], [1.0, 3.0]]]]
    """
    side = images.shape[-1]
    line = (2 * torch.arange(side, device=images.device, dtype=warp.angle.dtype) + 1) / side - 1
    right, down = line.expand(side, side), line[:, None].expand(side, side)
    x = right - warp.shift[:, 0, None, None]
    y = down - warp.shift[:, 1, None, None]
    cos, sin, zoom, shear, mirror = (
        one[:, None, None]
        for one in (warp.angle.cos(), warp.angle.sin(), warp.zoom, warp.shear, warp.mirror)
    )
    turned_x, turned_y = (cos * x - sin * y) / zoom, (sin * x + cos * y) / zoom
    read = torch.stack((mirror * (turned_x - shear * turned_y), turned_y), -1) + warp.field
    return grid_sample(images, read.to(images.dtype), align_corners=False)


def normal(keys: Int[Tensor, " B"], site: int, count: int) -> Float[Tensor, "B count"]:
    """Standard normal numbers as a hash of a key, by Box and Muller.

    √(−2 ln u)·cos 2πv, u in (0, 1].

    Example:
        >>> round(float(normal(torch.arange(10), 0, 10_000).std()), 1)
        1.0
    """
    u, v = _random.uniform(keys, site, 2 * count).chunk(2, -1)
    return (-2 * (1 - u).log()).sqrt() * (2 * math.pi * v).cos()
