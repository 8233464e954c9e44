"""A two-layer network that has to find the directions of a teacher it starts orthogonal to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchlab.errors import InvalidValueError, must


class TwoLayerStudent(nn.Module):
    """f(x) = Σ_j a_j s(w_j·x/√d).

    The rows start orthogonal with |w_j|² = d, so that the pre-activations of inputs of variance 1
    are of order 1, and orthogonal to what they are to avoid.

    Args:
        inputs: Input features d.
        width: Hidden units p.
        activation: s, elementwise.
        avoid: Directions that the start is orthogonal to, such as the teacher's; shape ``[k d]``,
            none if left out.
        train_second: Whether a is trained too; it stays ±1/√p, alternating, if not.

    Raises:
        InvalidValueError: If p + k directions cannot be orthogonal among d.

    Source:
        dandi2024.

    Example:
        >>> student = TwoLayerStudent(50, 2, torch.tanh)
        >>> student(torch.zeros(3, 50)).tolist(), student.second.tolist()
        ([0.0, 0.0, 0.0], [0.7071067690849304, -0.7071067690849304])
    """

    second: Tensor

    def __init__(
        self,
        inputs: int,
        width: int = 2,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        avoid: Float[Tensor, "k d"] | None = None,
        train_second: bool = False,
    ) -> None:
        super().__init__()
        start = torch.randn(width, inputs, dtype=torch.float64)
        self.weight = nn.Parameter(orthogonal(start, avoid).to(torch.get_default_dtype()))
        signs = alternating(width).to(self.weight.dtype)
        if train_second:
            self.second = nn.Parameter(signs)
        else:
            self.register_buffer("second", signs)
        self.activation = activation

    def features(self, inputs: Float[Tensor, "B d"]) -> Float[Tensor, "B p"]:
        """s(h), h = W x/√d."""
        return self.activation(inputs @ self.weight.T / math.sqrt(inputs.shape[-1]))

    def forward(self, inputs: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
        """The prediction; inputs of other shapes are flattened."""
        return self.features(inputs.flatten(1)) @ self.second


def orthogonal(
    rows: Float[Tensor, "*S p d"], avoid: Float[Tensor, "*S k d"] | None = None
) -> Float[Tensor, "*S p d"]:
    """Rows made orthogonal to each other and to ``avoid``, each with |w|² = d.

    Args:
        rows: In general position; float64, or digits are lost.
        avoid: Orthogonal rows, of any lengths.

    Returns:
        In the span of both, of the same shape and precision as ``rows``.

    Raises:
        InvalidValueError: If there are more rows than d.

    Example:
        >>> row, other = torch.tensor([[3.0, 4.0, 5.0]]).double(), torch.tensor([[0.0, 0.0, 2.0]])
        >>> (orthogonal(row, other) / math.sqrt(3))[0, :2]
        tensor([0.6000, 0.8000], dtype=torch.float64)
    """
    known = rows[..., :0, :] if avoid is None else avoid.to(rows.dtype)
    inputs, count = rows.shape[-1], rows.shape[-2] + known.shape[-2]
    if count > inputs:
        words = f"at least {count}, the directions of student and teacher together"
        raise InvalidValueError(must("inputs", words, inputs))
    basis, triangle = torch.linalg.qr(torch.cat((known, rows), -2).mT)
    # QR leaves signs open: each row is to lie on the side it came from.
    signs = triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)
    return math.sqrt(inputs) * (basis.mT * signs)[..., known.shape[-2] :, :]


def alternating(width: int) -> Float[Tensor, " p"]:
    """The second layer +1/√p, −1/√p, +1/√p …; float64.

    Example:
        >>> alternating(4).tolist()
        [0.5, -0.5, 0.5, -0.5]
    """
    signs = 1.0 - 2.0 * (torch.arange(width) % 2)
    return signs.double() / math.sqrt(width)
