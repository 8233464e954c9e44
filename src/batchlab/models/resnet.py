"""Residual networks with batch or layer norm for small pictures, after He and others (2016)."""

from __future__ import annotations

import functools

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from batchlab.errors import InvalidValueError, must
from batchlab.models.parametrization import layers_of

NORMS = {"batch": nn.BatchNorm2d, "layer": functools.partial(nn.GroupNorm, 1)}
"""Over the batch; over all channels and places of one example."""


class Block(nn.Module):
    """relu(x′ + norm(conv(relu(norm(conv(x)))))).

    x′ is x, or norm(conv₁ₓ₁(x)) where shapes differ.

    Args:
        before: Channels of x.
        after: Channels of the result.
        stride: Of the first convolution; 2 halves the picture.
        norm: ``batch`` or ``layer``.
        parametrization: ``standard`` or ``mean-field``.

    Example:
        >>> import torch
        >>> Block(4, 8, stride=2)(torch.zeros(5, 4, 6, 6)).shape
        torch.Size([5, 8, 3, 3])
    """

    def __init__(
        self,
        before: int,
        after: int,
        stride: int = 1,
        norm: str = "batch",
        parametrization: str = "standard",
    ) -> None:
        super().__init__()
        convolution, normal = layers_of(parametrization).convolution, NORMS[norm]
        self.branch = nn.Sequential(
            convolution(before, after, 3, stride, padding=1, bias=False),
            normal(after),
            nn.ReLU(),
            convolution(after, after, 3, padding=1, bias=False),
            normal(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            projection = convolution(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, normal(after))

    def forward(self, x: Float[Tensor, "B before S S"]) -> Float[Tensor, "B after S2 S2"]:
        """One residual step."""
        return relu(self.shortcut(x) + self.branch(x))


class ResNet(nn.Module):
    """Convolution, stages of blocks, mean over the picture, linear.

    The first stage keeps the size of the picture; each later one halves it and doubles the
    channels.

    Args:
        blocks: Blocks in each stage.
        width: Channels of the first stage.
        classes: Outputs C.
        in_channels: 1 for grey, 3 for colour.
        norm: ``batch``, or ``layer``, with which no example sees another.
        parametrization: ``standard`` or ``mean-field``, where weights start from N(0, 1), a
            convolution of n channels is divided by √n and the last layer by its inputs.

    Raises:
        InvalidValueError: If there is no such norm or parametrisation.

    Source:
        he2016, section 4.2.

    Example:
        >>> import torch
        >>> ResNet(blocks=(1, 1), width=4).eval()(torch.zeros(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        blocks: tuple[int, ...] = (1, 1, 1),
        width: int = 16,
        classes: int = 10,
        in_channels: int = 3,
        norm: str = "batch",
        parametrization: str = "standard",
    ) -> None:
        super().__init__()
        make = layers_of(parametrization)
        if norm not in NORMS:
            raise InvalidValueError(must("norm", " or ".join(map(repr, NORMS)), norm))
        self.stem = nn.Sequential(
            make.convolution(in_channels, width, 3, padding=1, bias=False),
            NORMS[norm](width),
            nn.ReLU(),
        )
        self.stages = nn.Sequential()
        before = width
        for stage, count in enumerate(blocks):
            after = width * 2**stage
            for i in range(count):
                stride = 2 if stage and not i else 1
                self.stages.append(Block(before, after, stride, norm, parametrization))
                before = after
        self.head = make.readout(before, classes)

    def forward(self, images: Float[Tensor, "B channels S S"]) -> Float[Tensor, "B C"]:
        """Logits of a batch of pictures."""
        return self.head(self.stages(self.stem(images)).mean((2, 3)))


def cifar_resnet(depth: int = 20, classes: int = 10, in_channels: int = 3) -> ResNet:
    """The thin three-stage network for pictures of 32×32.

    Args:
        depth: Layers with weights, 6n + 2: 8, 14, 20, 32, …
        classes: Outputs C.
        in_channels: 1 for grey, 3 for colour.

    Returns:
        A network of 16, 32 and 64 channels with n blocks a stage.

    Raises:
        InvalidValueError: If ``depth`` is not 6n + 2.

    Source:
        he2016, section 4.2, with projections where shapes differ.

    Example:
        >>> sum(p.numel() for p in cifar_resnet(20).parameters())
        272474
    """
    count, rest = divmod(depth - 2, 6)
    if rest or count < 1:
        raise InvalidValueError(must("depth", "6n + 2, such as 8, 14 or 20", depth))
    return ResNet((count, count, count), width=16, classes=classes, in_channels=in_channels)


def resnet18(classes: int = 10, in_channels: int = 3) -> ResNet:
    """ResNet-18 with a 3×3 stem and no first pooling, as is usual for pictures of 32×32.

    Args:
        classes: Outputs C.
        in_channels: 1 for grey, 3 for colour.

    Returns:
        A network of 64, 128, 256 and 512 channels with two blocks a stage.

    Example:
        >>> sum(p.numel() for p in resnet18().parameters())
        11173962
    """
    return ResNet((2, 2, 2, 2), width=64, classes=classes, in_channels=in_channels)
