"""How a network's layers are scaled with its width: as PyTorch does, or so that features move."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from batchlab.errors import InvalidValueError, must

ADAPTIVE = ("adam", "adamw", "rmsprop")
"""Rules whose steps have about the size of the learning rate, whatever the gradient's."""


class ScaledLinear(nn.Linear):
    """y = (Wx + b)/nᵖ for n inputs; W ~ N(0, 1) and b = 0 at the start.

    Args:
        in_features: n.
        out_features: Outputs.
        bias: Whether there is b.
        power: p: ½ for a hidden layer, 1 for a readout.

    Source:
        atanasov2025.

    Example:
        >>> import torch
        >>> layer = ScaledLinear(4, 1, power=1.0)
        >>> bool(4 * layer(torch.eye(4))[2, 0] == layer.weight[0, 2])
        True
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, power: float = 0.5
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.power, self.multiplier = power, in_features**-power

    def reset_parameters(self) -> None:
        """W ~ N(0, 1), b = 0."""
        _unit_normal(self)

    def forward(self, input: Float[Tensor, "*B n"]) -> Float[Tensor, "*B out"]:
        """(Wx + b)/nᵖ."""
        return self.multiplier * super().forward(input)


class ScaledConv2d(nn.Conv2d):
    """y = (W ∗ x + b)/√n for n input channels; W ~ N(0, 1) and b = 0 at the start.

    Args:
        in_channels: n.
        out_channels: Channels of the result.
        kernel_size: Height and width of the kernel.
        options: Those of ``nn.Conv2d``.

    Source:
        atanasov2025.

    Example:
        >>> import torch
        >>> layer = ScaledConv2d(4, 1, 1)
        >>> bool(2 * layer(torch.eye(4)[..., None, None])[3].item() == layer.weight[0, 3].item())
        True
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *options: Any, **more: Any
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *options, **more)
        self.multiplier = in_channels**-0.5

    def reset_parameters(self) -> None:
        """W ~ N(0, 1), b = 0."""
        _unit_normal(self)

    def forward(self, input: Float[Tensor, "B n S S2"]) -> Float[Tensor, "B out S3 S4"]:
        """(W ∗ x + b)/√n."""
        return self.multiplier * super().forward(input)


def _unit_normal(layer: nn.Linear | nn.Conv2d) -> None:
    nn.init.normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class Layers(NamedTuple):
    """What a network makes its layers with; the arguments are PyTorch's.

    Attributes:
        linear: A hidden linear layer.
        convolution: A convolution over pictures.
        readout: The last layer.
    """

    linear: Callable[..., nn.Linear]
    convolution: Callable[..., nn.Conv2d]
    readout: Callable[..., nn.Linear]


LAYERS = {
    "standard": Layers(nn.Linear, nn.Conv2d, nn.Linear),
    "mean-field": Layers(ScaledLinear, ScaledConv2d, functools.partial(ScaledLinear, power=1.0)),
}


def layers_of(parametrization: str) -> Layers:
    """The layers of a parametrisation.

    Args:
        parametrization: ``standard``, what PyTorch users write; or ``mean-field``, μP: hidden
            layers divide by √n and the readout by n, so that at a learning rate n·η for SGD
            (:func:`rate_multiples`) features move as much in a network of any width.

    Raises:
        InvalidValueError: If there is no such parametrisation.

    Source:
        atanasov2025; yang2022.

    Example:
        >>> layers_of("mean-field").readout(100, 10).multiplier
        0.01
    """
    if parametrization not in LAYERS:
        names = " or ".join(map(repr, LAYERS))
        raise InvalidValueError(must("parametrization", names, parametrization))
    return LAYERS[parametrization]


def rate_multiples(model: nn.Module, rule: str = "sgd") -> dict[str, float]:
    """What each parameter's learning rate is of η, so that η does not depend on the width.

    SGD: N for all, N the inputs of the readout, whose division by N makes every gradient small.
    Adam: a step has the size of the rate whatever the gradient's, so 1/(m·n) for the weights and
    1/m for the biases of a layer that multiplies by m and sums n products: all weights of a layer
    moving by that much in one direction move its output by η. 1 for norms and positions.

    Args:
        model: In the mean-field parametrisation.
        rule: ``adam``, ``adamw``, ``rmsprop``; any other is as SGD.

    Returns:
        Name of each trainable parameter → its multiple of η.

    Raises:
        InvalidValueError: If the model has no readout of that parametrisation.

    Source:
        atanasov2025 for SGD; yang2022, table 8, for Adam.

    Example:
        >>> model = nn.Sequential(ScaledLinear(4, 16), ScaledLinear(16, 1, power=1.0))
        >>> set(rate_multiples(model).values())
        {16.0}
        >>> list(rate_multiples(model, "adam").values())
        [0.5, 2.0, 1.0, 16.0]
    """
    widths = [
        layer.in_features
        for layer in model.modules()
        if isinstance(layer, ScaledLinear) and layer.power == 1
    ]
    if not widths:
        hint = 'Make it with parametrization="mean-field".'
        raise InvalidValueError(must("model", "one that divides its readout by n", "other", hint))
    if rule not in ADAPTIVE:
        return {name: float(widths[-1]) for name, p in model.named_parameters() if p.requires_grad}
    return dict(_adaptive(model))


def _adaptive(model: nn.Module) -> Iterator[tuple[str, float]]:
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        layer = model.get_submodule(owner)
        multiplier = getattr(layer, "multiplier", 1.0)
        scaled = isinstance(layer, ScaledLinear | ScaledConv2d) and leaf == "weight"
        summed = parameter[0].numel() if scaled else 1
        if parameter.requires_grad:
            yield name, 1 / (multiplier * summed)


def parameter_groups(
    model: nn.Module, learning_rate: float, rule: str = "sgd"
) -> list[dict[str, Any]]:
    """The groups of parameters to give to a ``torch.optim`` optimizer.

    Args:
        model: In the mean-field parametrisation.
        learning_rate: η, the same for every width.
        rule: As in :func:`rate_multiples`.

    Returns:
        ``[{"params": …, "lr": …}, …]``, one group for each rate.

    Raises:
        InvalidValueError: As :func:`rate_multiples`.

    Example:
        >>> import torch
        >>> model = nn.Sequential(ScaledLinear(4, 16), ScaledLinear(16, 1, power=1.0))
        >>> torch.optim.SGD(parameter_groups(model, 0.5)).param_groups[0]["lr"]
        8.0
    """
    multiples = rate_multiples(model, rule)
    parts: dict[float, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if name in multiples:
            parts.setdefault(multiples[name], []).append(parameter)
    return [{"params": part, "lr": learning_rate * multiple} for multiple, part in parts.items()]
