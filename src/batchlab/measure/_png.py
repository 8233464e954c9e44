"""Small pictures as text that a page can hold."""

from __future__ import annotations

import base64
import io

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 32
"""Pixels of the longer side, at most."""
MORE, LESS = (213, 94, 0), (0, 114, 178)
"""Colours of what raises and of what lowers; white is 0."""


def png(pixels: UInt8[Tensor, "h w 3"]) -> str:
    """A picture as a ``data:`` address.

    Args:
        pixels: Red, green and blue.

    Example:
        >>> png(torch.zeros(1, 1, 3, dtype=torch.uint8))[:30]
        'data:image/png;base64,iVBORw0K'
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels.cpu().numpy()).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def photograph(image: Tensor) -> str:
    """An example as it is: three channels in colour, else their mean in grey.

    Whole numbers are pixels 0 … 255 and floats within 0 … 1 are shares; others are stretched from
    their smallest to their largest.

    Args:
        image: Shape ``[channels, h, w]``.
    """
    wide = image.detach().cpu().float()
    if not image.is_floating_point():
        wide = wide / 255
    if wide.min() < 0 or wide.max() > 1:
        span = float(wide.max() - wide.min())
        wide = (wide - wide.min()) / (span or 1.0)
    shown = smaller(wide if len(wide) == 3 else wide.mean(0, keepdim=True).expand(3, -1, -1))
    return png((255 * shown).round().to(torch.uint8).permute(1, 2, 0))


def heat(values: Float[Tensor, "h w"]) -> str:
    """Signed numbers as colours: orange above 0, blue below, white at 0, the largest in full.

    Args:
        values: Any numbers.
    """
    small = smaller(values.detach().cpu().float()[None])[0]
    size = float(small.abs().max()) or 1.0
    strength = (small.abs() / size)[..., None]
    colour = torch.where(small[..., None] > 0, torch.tensor(MORE), torch.tensor(LESS))
    return png((255 + strength * (colour - 255)).round().to(torch.uint8))


def smaller(image: Float[Tensor, "c h w"]) -> Float[Tensor, "c _ _"]:
    """A picture of at most 32 pixels a side, by the mean over areas.

    Args:
        image: Any picture.

    Example:
        >>> smaller(torch.zeros(3, 64, 48)).shape
        torch.Size([3, 32, 24])
    """
    _, height, width = image.shape
    share = SIDE / max(height, width)
    if share >= 1:
        return image
    return adaptive_avg_pool2d(
        image, (max(1, round(height * share)), max(1, round(width * share)))
    )
