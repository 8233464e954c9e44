"""Plain convolutional networks: no normalisation and no dropout, so no example sees another."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from batchlab.models.feature_strength import FeatureStrength
from batchlab.models.parametrization import layers_of


class SmallCNN(nn.Module):
    """Two 3×3 convolutions, one pooling, one linear layer, for grey pictures of 8×8.

    x → relu(conv) → relu(conv) → max over 2×2 → linear.

    Args:
        channels: Channels after the first and the second convolution.
        classes: Outputs C.

    Example:
        >>> import torch
        >>> SmallCNN()(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(self, channels: tuple[int, int] = (16, 32), classes: int = 10) -> None:
        super().__init__()
        first, second = channels
        self.body = nn.Sequential(
            nn.Conv2d(1, first, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * 4 * 4, classes),
        )

    def forward(self, images: Float[Tensor, "B 1 8 8"]) -> Float[Tensor, "B C"]:
        """Logits of a batch of grey pictures with values in [0, 1]."""
        return self.body(images)


class ThreeConvCNN(nn.Module):
    """Three 3×3 convolutions, each halving the picture, then one linear layer; for 28×28 or 32×32.

    x → 3 × [relu(conv) → max over 2×2] → linear.

    Args:
        in_channels: 1 for grey, 3 for colour.
        size: Height and width of the pictures, at least 8.
        channels: Channels after each convolution.
        classes: Outputs C.

    Example:
        >>> import torch
        >>> ThreeConvCNN()(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 28,
        channels: tuple[int, int, int] = (16, 32, 64),
        classes: int = 10,
    ) -> None:
        super().__init__()
        widths = (in_channels, *channels)
        layers: list[nn.Module] = []
        for before, after in zip(widths, channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        side = size // 8
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels[-1] * side**2, classes)
        )

    def forward(self, images: Float[Tensor, "B channels S S"]) -> Float[Tensor, "B C"]:
        """Logits of a batch of pictures."""
        return self.body(images)


class FourLayerCNN(nn.Module):
    """Two convolutions, each followed by a pooling, and two linear layers; the width is free.

    x → 2 × [relu(conv₃ₓ₃) → max over 2×2] → relu(linear) → linear, of w, 2w and 8w units.

    Args:
        in_channels: 1 for grey, 3 for colour.
        size: Height and width of the pictures, at least 4.
        width: Channels w of the first convolution.
        classes: Outputs C.
        parametrization: ``standard`` or ``mean-field``, where weights start from N(0, 1), a
            convolution of n channels is divided by √n, a linear layer of n inputs by √n, the last
            one by n.

    Raises:
        InvalidValueError: If there is no such parametrisation.

    Source:
        atanasov2025.

    Example:
        >>> import torch
        >>> FourLayerCNN(width=4)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 28,
        width: int = 16,
        classes: int = 10,
        parametrization: str = "standard",
    ) -> None:
        super().__init__()
        make = layers_of(parametrization)
        self.body = nn.Sequential(
            make.convolution(in_channels, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            make.convolution(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            make.linear(2 * width * (size // 4) ** 2, 8 * width),
            nn.ReLU(),
            make.readout(8 * width, classes),
        )

    def forward(self, images: Float[Tensor, "B channels S S"]) -> Float[Tensor, "B C"]:
        """Logits of a batch of pictures."""
        return self.body(images)


def mean_field_cnn(
    in_channels: int = 3, size: int = 32, width: int = 16, classes: int = 10, gamma: float = 1.0
) -> FeatureStrength:
    """The source's convolutional network of four layers, mean-field, centred and divided by γ.

    Its learning rate for SGD is N·η with N = 8w inputs of the readout, see
    :func:`batchlab.models.parametrization.rate_multiples`.

    Args:
        in_channels: 1 for grey, 3 for colour.
        size: Height and width of the pictures, at least 4.
        width: Channels w of the first convolution.
        classes: Outputs C.
        gamma: γ, above 0; use float64 below 0.01.

    Returns:
        A network whose output is 0 at its start.

    Raises:
        InvalidValueError: If γ is not above 0.

    Source:
        atanasov2025.

    Example:
        >>> import torch
        >>> mean_field_cnn(1, 8, width=2)(torch.randn(3, 1, 8, 8)).abs().max().item()
        0.0
    """
    model = FourLayerCNN(in_channels, size, width, classes, parametrization="mean-field")
    return FeatureStrength(model, gamma)
