"""Fully connected networks of any depth."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from batchlab.errors import InvalidValueError, must
from batchlab.models.feature_strength import FeatureStrength
from batchlab.models.parametrization import layers_of


class MLP(nn.Module):
    """Linear layers with a nonlinearity between them.

    x → φ(W₁x + b₁) → … → φ(Wₗx + bₗ) → Wx + b. Inputs of any shape are flattened first.

    Args:
        inputs: Input features D.
        hidden: Hidden units of each layer; none makes a linear model.
        outputs: Outputs C.
        activation: Makes φ.
        bias: Whether the layers have b.
        parametrization: ``standard`` or ``mean-field``, where (Wx + b) is divided by √n, in the
            last layer by n, for n inputs of the layer, and W starts from N(0, 1).

    Raises:
        InvalidValueError: If there is no such parametrisation.

    Example:
        >>> import torch
        >>> MLP(784, (128, 64), 10)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        inputs: int,
        hidden: tuple[int, ...] = (128,),
        outputs: int = 10,
        activation: Callable[[], nn.Module] = nn.ReLU,
        bias: bool = True,
        parametrization: str = "standard",
    ) -> None:
        super().__init__()
        make = layers_of(parametrization)
        widths = (inputs, *hidden)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(widths, hidden, strict=False):
            layers += [make.linear(before, after, bias=bias), activation()]
        self.body = nn.Sequential(*layers, make.readout(widths[-1], outputs, bias=bias))

    def forward(self, inputs: Float[Tensor, "B ..."]) -> Float[Tensor, "B C"]:
        """Outputs of the last linear layer."""
        return self.body(inputs)


def mean_field_mlp(
    inputs: int, width: int = 64, depth: int = 3, outputs: int = 1, gamma: float = 1.0
) -> FeatureStrength:
    """The source's network: L linear layers with ReLU, mean-field, centred and divided by γ.

    F(x) = (f_θ(x) − f_θ₀(x))/γ. Its learning rate for SGD is N·η, see
    :func:`batchlab.models.parametrization.rate_multiples`.

    Args:
        inputs: Input features D.
        width: Hidden units N of each layer.
        depth: L, linear layers, the readout included.
        outputs: Outputs C.
        gamma: γ, above 0; use float64 below 0.01.

    Returns:
        A network whose output is 0 at its start.

    Raises:
        InvalidValueError: If γ is not above 0 or ``depth`` is below 1.

    Source:
        atanasov2025.

    Example:
        >>> import torch
        >>> mean_field_mlp(16, width=64, depth=2, gamma=10.0)(torch.randn(3, 16)).tolist()
        [[0.0], [0.0], [0.0]]
    """
    if depth < 1:
        raise InvalidValueError(must("depth", "1 or more", depth))
    hidden = (width,) * (depth - 1)
    return FeatureStrength(MLP(inputs, hidden, outputs, parametrization="mean-field"), gamma)
