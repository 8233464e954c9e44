"""A recurrent classifier."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class GRUClassifier(nn.Module):
    """A GRU over the sequence; a linear layer reads its last state.

    h_t = GRU(x_t, h_{t−1}),  logits = W h_T + b.

    Args:
        inputs: Features D of each step.
        hidden: Hidden units H.
        classes: Outputs C.
        layers: GRU layers on top of each other.

    Source:
        cho2014.

    Example:
        >>> import torch
        >>> GRUClassifier(inputs=3, hidden=8, classes=4)(torch.zeros(5, 20, 3)).shape
        torch.Size([5, 4])
    """

    def __init__(self, inputs: int, hidden: int = 32, classes: int = 2, layers: int = 1) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, signals: Float[Tensor, "B steps D"]) -> Float[Tensor, "B C"]:
        """Logits of a batch of sequences of one length."""
        states, _ = self.gru(signals)
        return self.head(states[:, -1])
