"""Small transformers: a causal one whose tokens predict the next, and one for pictures."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from batchlab.errors import InvalidValueError, must
from batchlab.models.parametrization import layers_of


class Attention(nn.Module):
    """softmax(QKᵀ/√d + causal mask) V per head, then a linear layer.

    Args:
        width: Features of a token, a multiple of ``heads``.
        heads: Attention heads.
        causal: Whether a token sees only itself and those before it.
        parametrization: ``standard``, or ``mean-field``, where QKᵀ is divided by d: queries and
            keys become aligned in training, and their product then grows like d.

    Source:
        vaswani2017, section 3.2; yang2022 for 1/d.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        causal: bool = True,
        parametrization: str = "standard",
    ) -> None:
        super().__init__()
        make = layers_of(parametrization)
        if width % heads:
            raise InvalidValueError(must("width", f"a multiple of the {heads} heads", width))
        self.heads, self.causal = heads, causal
        self.scale = None if parametrization == "standard" else heads / width
        self.project_in = make.linear(width, 3 * width)
        self.project_out = make.linear(width, width)

    def forward(self, x: Float[Tensor, "B steps width"]) -> Float[Tensor, "B steps width"]:
        """Mix each token with those it sees."""
        query, key, value = self.project_in(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        mixed = scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            is_causal=self.causal,
            scale=self.scale,
        )
        return self.project_out(mixed.transpose(1, 2).flatten(-2))


class Layer(nn.Module):
    """x ← x + drop(attention(norm(x))),  x ← x + drop(mlp(norm(x))).

    Args:
        width: Features of a token.
        heads: Attention heads.
        dropout: Share of the residual branches' outputs set to zero in training.
        causal: Whether a token sees only itself and those before it.
        parametrization: ``standard`` or ``mean-field``.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        causal: bool = True,
        parametrization: str = "standard",
    ) -> None:
        super().__init__()
        linear = layers_of(parametrization).linear
        self.attend = nn.Sequential(
            nn.LayerNorm(width),
            Attention(width, heads, causal, parametrization),
            nn.Dropout(dropout),
        )
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            linear(width, 4 * width),
            nn.GELU(),
            linear(4 * width, width),
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


class VisionTransformer(nn.Module):
    """Patches as tokens, positions, layers in which a token sees all, mean over tokens, linear.

    Args:
        in_channels: 1 for grey, 3 for colour.
        size: Height and width of the pictures, a multiple of ``patch``.
        patch: Height and width of a patch.
        width: Features of a token, a multiple of ``heads``.
        heads: Attention heads.
        layers: Transformer layers.
        classes: Outputs C.
        dropout: Share of the residual branches' outputs set to zero in training.
        parametrization: ``standard`` or ``mean-field``, where weights start from N(0, 1), a layer
            of n inputs is divided by √n, the last one by n, and attention's products by the
            features d of a head.

    Raises:
        InvalidValueError: If sizes do not divide or there is no such parametrisation.

    Source:
        dosovitskiy2021, with the mean in place of a class token.

    Example:
        >>> VisionTransformer(size=28, patch=7)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 28,
        patch: int = 7,
        width: int = 32,
        heads: int = 2,
        layers: int = 2,
        classes: int = 10,
        dropout: float = 0.0,
        parametrization: str = "standard",
    ) -> None:
        super().__init__()
        make = layers_of(parametrization)
        if size % patch:
            raise InvalidValueError(must("size", f"a multiple of the patch, {patch}", size))
        self.patches = nn.PixelUnshuffle(patch)
        self.tokens = make.linear(in_channels * patch**2, width)
        spread = 0.02 if parametrization == "standard" else 1.0
        self.positions = nn.Parameter(spread * torch.randn((size // patch) ** 2, width))
        self.layers = nn.Sequential(
            *(Layer(width, heads, dropout, False, parametrization) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width)
        self.head = make.readout(width, classes)

    def forward(self, images: Float[Tensor, "B channels S S"]) -> Float[Tensor, "B C"]:
        """Logits of a batch of pictures."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        x = self.layers(self.tokens(patches) + self.positions)
        return self.head(self.norm(x).mean(1))
