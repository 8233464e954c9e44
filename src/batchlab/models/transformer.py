"""A small causal transformer: each token predicts the next."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from batchlab.errors import InvalidValueError, must


class Attention(nn.Module):
    """softmax(QKᵀ/√d + causal mask) V per head, then a linear layer.

    Args:
        width: Features of a token, a multiple of ``heads``.
        heads: Attention heads.

    Source:
        vaswani2017, section 3.2.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise InvalidValueError(must("width", f"a multiple of the {heads} heads", width))
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B steps width"]) -> Float[Tensor, "B steps width"]:
        """Mix each token with those before it."""
        query, key, value = self.project_in(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        mixed = scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=True
        )
        return self.project_out(mixed.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """x ← x + drop(attention(norm(x))),  x ← x + drop(mlp(norm(x))).

    Args:
        width: Features of a token.
        heads: Attention heads.
        dropout: Share of the residual branches' outputs set to zero in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = nn.Sequential(
            nn.LayerNorm(width), Attention(width, heads), nn.Dropout(dropout)
        )
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Float[Tensor, "B steps width"]) -> Float[Tensor, "B steps width"]:
        """One layer."""
        x = x + self.attend(x)
        return x + self.think(x)


class CausalTransformer(nn.Module):
    """Token and position embeddings, layers, norm, linear.

    A token sees itself and those before it, so padding at the end of a row changes nothing
    before it.

    Args:
        vocabulary: Different tokens V.
        length: Longest sequence.
        width: Features of a token, a multiple of ``heads``.
        heads: Attention heads.
        layers: Transformer layers.
        dropout: Share of embeddings and residual branches set to zero in training.

    Example:
        >>> model = CausalTransformer(vocabulary=50, length=16)
        >>> model(torch.zeros(5, 12, dtype=torch.long)).shape
        torch.Size([5, 12, 50])
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int = 32,
        heads: int = 2,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(*(Layer(width, heads, dropout) for _ in range(layers)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))
        # Embeddings of size 1 would drown what the layers add; 0.02 is the custom since GPT-2.
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Int[Tensor, "B steps"]) -> Float[Tensor, "B steps V"]:
        """Logits of each next token."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(positions))
        return self.head(self.layers(x))
