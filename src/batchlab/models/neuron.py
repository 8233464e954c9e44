"""Autoencoders whose decoder is the transposed encoder, down to a single neuron."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu


def identity(inputs: Tensor) -> Tensor:
    """φ(x) = x."""
    return inputs


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"linear": identity, "relu": relu}


class TiedAutoencoder(nn.Module):
    """x → Wᵀ φ(W x), without biases. With one neuron, w φ(⟨w, x⟩).

    W starts from N(0, 1/D), so that a row's length is about 1.

    Args:
        features: Input features D.
        neurons: Hidden units H.
        activation: ``linear`` or ``relu``.

    Source:
        ghosh2023.

    Example:
        >>> TiedAutoencoder(20)(torch.eye(20)).shape
        torch.Size([20, 20])
    """

    def __init__(self, features: int, neurons: int = 1, activation: str = "linear") -> None:
        super().__init__()
        # One vector for one neuron: torch.randn fills shapes of one size alike.
        start = torch.randn(neurons * features).view(neurons, features)
        self.weight = nn.Parameter(start / math.sqrt(features))
        self.activation = ACTIVATIONS[activation]

    def features(self, inputs: Float[Tensor, "B D"]) -> Float[Tensor, "B H"]:
        """φ(W x)."""
        return self.activation(inputs @ self.weight.T)

    def forward(self, inputs: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The reconstruction."""
        return self.features(inputs) @ self.weight


class ThreeLayerAutoencoder(nn.Module):
    """x → W₃ ReLU(W₂ ReLU(W₁ x + b₁) + b₂) + b₃: two hidden layers, nothing tied.

    Args:
        features: Input features D.
        hidden: Hidden units of both hidden layers H.

    Example:
        >>> ThreeLayerAutoencoder(64)(torch.zeros(5, 64)).shape
        torch.Size([5, 64])
    """

    def __init__(self, features: int, hidden: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, features)

    def features(self, inputs: Float[Tensor, "B D"]) -> Float[Tensor, "B H"]:
        """What the second hidden layer says."""
        return relu(self.second(relu(self.first(inputs))))

    def forward(self, inputs: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The reconstruction."""
        return self.third(self.features(inputs))
