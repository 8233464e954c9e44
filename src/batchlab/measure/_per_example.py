"""Squared gradient norms of single examples, materialised only where that is the cheaper way.

The gradient of a linear layer for one example is Σₜ bₜaₜᵀ: inputs a, gradients b of its outputs.
Its squared norm follows from products of a with a and of b with b, and sums over examples from one
matrix product. A convolution is a linear layer over its patches. Source: goodfellow2015,
rochette2019.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from batchlab import _tree
from batchlab.models.parametrization import ScaledConv2d, ScaledLinear
from batchlab.tasks import Objective
from batchlab.types import Params, Tree


class Unsupported(Exception):
    """The model has a part whose per-example gradients this file cannot form."""


class Gradients(NamedTuple):
    """Gradients of Σwℓ over a batch.

    Attributes:
        squares: ‖∇wℓ‖² of every example. Shape ``[B]``.
        blocks: Σ over each of K consecutive, equally long parts of the batch. Shape ``[K, P]``.
        weights: w of every example. Shape ``[B]``.
    """

    squares: Float[Tensor, " B"]
    blocks: Float[Tensor, "K P"]
    weights: Float[Tensor, " B"]


class Factors(NamedTuple):
    """Per-example gradients Σₜ bₜaₜᵀ of one weight, in G groups of channels."""

    a: Float[Tensor, "B G T I"]
    b: Float[Tensor, "B G T O"]


class Rows(NamedTuple):
    """Per-example gradients of a table of V rows: b is added to the rows that were looked up."""

    index: Int[Tensor, "B T"]
    b: Float[Tensor, "B T I"]
    count: int


def trainable(objective: nn.Module) -> Params:
    """Parameters that training changes, by name."""
    return {name: p for name, p in objective.named_parameters() if p.requires_grad}


def by_layers(objective: Objective, batch: Tree, blocks: int) -> Gradients:
    """Per-example norms and block sums from one forward and one backward pass.

    Args:
        objective: In the mode to be measured; none of its tensors is changed.
        batch: B examples, no one of which affects another's loss.
        blocks: K, a divisor of B.

    Returns:
        Squared norms and block sums, over the trainable parameters in their order.

    Raises:
        Unsupported: If a trainable parameter belongs to a layer other than Linear, Conv1d, Conv2d,
            Embedding, LayerNorm and GroupNorm, is shared, or its layer is used other than once.

    Assumes:
        One loss per example.

    Example:
        >>> from batchlab.tasks import Task
        >>> task = Task(lambda: nn.Linear(1, 1, bias=False), torch.ones(2, 1),
        ...             loss=lambda out, batch: out[:, 0] * torch.tensor([3.0, 4.0]))
        >>> found = by_layers(Objective(task, task.model()), (torch.ones(2, 1),), blocks=1)
        >>> found.squares.tolist(), found.blocks.tolist()
        ([9.0, 16.0], [[7.0]])
    """
    layers = _layers(objective)
    inputs, outputs, losses, weights = _record(objective, batch, layers)
    found = torch.autograd.grad((losses * weights).sum(), outputs, allow_unused=True)
    squares = torch.zeros(_tree.size(batch), device=losses.device)
    sums: Params = {}
    with torch.no_grad():
        for (name, layer), a, output, b in zip(
            layers.items(), inputs, outputs, found, strict=True
        ):
            b = torch.zeros_like(output) if b is None else b
            for leaf, piece in pieces(layer, a, b.float() if b.dtype == torch.bfloat16 else b):
                square, total = _reduce(piece, blocks)
                squares = squares + square
                sums[f"{name}.{leaf}" if name else leaf] = total
    rows = torch.cat([sums[name] for name in trainable(objective)], dim=1)
    return Gradients(squares, rows, weights.to(squares.dtype))


def _layers(objective: nn.Module) -> dict[str, nn.Module]:
    """The layers that own trainable parameters, by name."""
    owners = {}
    names = [n for n, p in objective.named_parameters(remove_duplicate=False) if p.requires_grad]
    if len(names) != len(trainable(objective)):
        raise Unsupported("a parameter is shared")
    for name in names:
        owner = name.rpartition(".")[0]
        layer = objective.get_submodule(owner)
        if reason := unsupported(layer):
            raise Unsupported(f"{reason} at {owner}")
        owners[owner] = layer
    return owners


def unsupported(layer: nn.Module) -> str:
    """Why this file has no formula for a layer's parameters; empty where it has one.

    Example:
        >>> unsupported(nn.Linear(1, 1)), unsupported(nn.LSTM(1, 1))
        ('', 'LSTM')
    """
    name = type(layer).__name__
    if type(layer) not in PIECES or getattr(layer, "padding_mode", "zeros") != "zeros":
        return name
    options = ("max_norm", "scale_grad_by_freq", "sparse")
    if any(getattr(layer, option, None) for option in options):
        return f"an option of {name}"
    return f"an option of {name}" if isinstance(getattr(layer, "padding", 0), str) else ""


def _record(
    objective: Objective, batch: Tree, layers: dict[str, nn.Module]
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """Run the objective and keep what went into and came out of every layer."""
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {id(layer): [] for layer in layers.values()}

    def keep(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen[id(layer)].append((inputs[0].detach(), output))
        # What follows may write into its input; the kept tensor must stay the layer's output.
        return output.clone()

    handles = [layer.register_forward_hook(keep) for layer in layers.values()]
    try:
        losses, weights = objective(batch)
    finally:
        for handle in handles:
            handle.remove()
    if any(len(calls) != 1 for calls in seen.values()):
        raise Unsupported("a layer is used other than once")
    calls = [seen[id(layer)][0] for layer in layers.values()]
    if any(len(tensor) != _tree.size(batch) for call in calls for tensor in call):
        raise Unsupported("a layer whose first axis is not the batch")
    return [a for a, _ in calls], [b for _, b in calls], losses, weights


Piece = Factors | Rows | Float[Tensor, "B _"]
"""Per-example gradients of one parameter: factors, rows of a table, or the gradients themselves,
flattened."""


def _linear(layer: nn.Linear, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    a, b = (x.reshape(len(x), 1, -1, x.shape[-1]) for x in (a, b))
    yield "weight", Factors(a.to(b.dtype), b)
    yield "bias", b.sum((1, 2))


def _conv(layer: nn.Conv1d | nn.Conv2d, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    if isinstance(layer, nn.Conv1d):
        a, b = a.unsqueeze(2), b.unsqueeze(2)
    patches = _patches(a.to(b.dtype), layer, b.shape[2:]).unflatten(1, (layer.groups, -1))
    b_BGOT = b.flatten(2).unflatten(1, (layer.groups, -1))
    yield "weight", Factors(patches.transpose(2, 3), b_BGOT.transpose(2, 3))
    yield "bias", b.flatten(2).sum(2)


def _patches(
    a: Float[Tensor, "B D S S2"], layer: nn.Conv1d | nn.Conv2d, places: torch.Size
) -> Float[Tensor, "B I T"]:
    """What the kernel sees at each place; twice as fast as torch's ``unfold`` on the CPU."""
    # A Conv1d is a Conv2d on pictures one pixel high.
    padding = () if isinstance(layer.padding, str) else layer.padding
    pad = (0, *padding)[-2:]
    stride, kernel, dilation = (
        (1, *option)[-2:] for option in (layer.stride, layer.kernel_size, layer.dilation)
    )
    a = functional.pad(a, (pad[1], pad[1], pad[0], pad[0]))
    over_B, over_D, down, right = a.stride()
    shape = (*a.shape[:2], *kernel, *places)
    steps = (dilation[0] * down, dilation[1] * right, stride[0] * down, stride[1] * right)
    seen = a.as_strided(shape, (over_B, over_D, *steps))
    return seen.reshape(len(a), -1, places.numel())


def _embedding(layer: nn.Embedding, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    index, b = a.reshape(len(a), -1), b.reshape(len(b), -1, b.shape[-1])
    if layer.padding_idx is not None:
        b = b.masked_fill((index == layer.padding_idx).unsqueeze(-1), 0)
    yield "weight", Rows(index, b, layer.num_embeddings)


def _layer_norm(layer: nn.LayerNorm, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    shape = layer.normalized_shape
    normal = functional.layer_norm(a.to(b.dtype), shape, eps=layer.eps)
    size = math.prod(shape)
    yield "weight", (normal * b).reshape(len(b), -1, size).sum(1)
    yield "bias", b.reshape(len(b), -1, size).sum(1)


def _group_norm(layer: nn.GroupNorm, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    normal = functional.group_norm(a.to(b.dtype), layer.num_groups, eps=layer.eps)
    yield "weight", (normal * b).reshape(*b.shape[:2], -1).sum(2)
    yield "bias", b.reshape(*b.shape[:2], -1).sum(2)


def _scaled(layer: ScaledLinear, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    return _linear(layer, a, layer.multiplier * b)


def _scaled_conv(layer: ScaledConv2d, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    return _conv(layer, a, layer.multiplier * b)


PIECES: dict[type[nn.Module], Callable[..., Iterator[tuple[str, Piece]]]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv,
    nn.Conv2d: _conv,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    ScaledLinear: _scaled,
    ScaledConv2d: _scaled_conv,
}
"""Exact types: a subclass may compute something else."""


def pieces(layer: nn.Module, a: Tensor, b: Tensor) -> Iterator[tuple[str, Piece]]:
    """Per-example gradients of the layer's trainable parameters.

    Args:
        layer: One that is not :func:`unsupported`.
        a: What went into it, shape ``[B, ...]``.
        b: The gradient of what came out, shape ``[B, ...]``.
    """
    for name, piece in PIECES[type(layer)](layer, a, b):
        parameter = getattr(layer, name)
        if parameter is not None and parameter.requires_grad:
            yield name, piece


def squares(parts: Sequence[Piece]) -> Float[Tensor, " B"]:
    """Squared norms of one parameter's gradients, summed over all its uses in a forward pass.

    ‖Σₚ gₚ‖² for each example. Uses of one kind stand behind one another like the steps of a
    sequence; a table whose weight is also a linear layer's, as in language models, has the inner
    product of both kinds beside their squares.

    Args:
        parts: What :func:`pieces` gave for every use, for the same B examples.

    Returns:
        Shape ``[B]``.

    Example:
        >>> squares([torch.ones(1, 2), torch.ones(1, 2)])
        tensor([8.])
    """
    plain = [part for part in parts if isinstance(part, Tensor)]
    if plain:
        return (plain[0] if len(plain) == 1 else torch.stack(plain).sum(0)).square().sum(1)
    factors, rows = _joined_factors(parts), _joined_rows(parts)
    if factors is not None and rows is not None:
        return _factor_squares(factors) + _row_squares(rows) + 2 * _across(factors, rows)
    if factors is not None:
        return _factor_squares(factors)
    assert rows is not None
    return _row_squares(rows)


def _joined_factors(parts: Sequence[Piece]) -> Factors | None:
    found = [part for part in parts if isinstance(part, Factors)]
    if len(found) < 2:
        return found[0] if found else None
    return Factors(torch.cat([f.a for f in found], 2), torch.cat([f.b for f in found], 2))


def _joined_rows(parts: Sequence[Piece]) -> Rows | None:
    found = [part for part in parts if isinstance(part, Rows)]
    if len(found) < 2:
        return found[0] if found else None
    index, b = torch.cat([r.index for r in found], 1), torch.cat([r.b for r in found], 1)
    return Rows(index, b, found[0].count)


def _across(factors: Factors, rows: Rows) -> Float[Tensor, " B"]:
    """⟨Σₛ bₛaₛᵀ, Σₜ eᵢ₍ₜ₎rₜᵀ⟩ = Σₛₜ bₛ[i(t)]·⟨aₛ, rₜ⟩ of every example."""
    a, b = factors.a.flatten(1, 2), factors.b.flatten(1, 2)
    looked_up = b.gather(2, rows.index.unsqueeze(1).expand(-1, b.shape[1], -1))
    return (looked_up * (a @ rows.b.transpose(1, 2))).sum((1, 2))


def _row_squares(rows: Rows) -> Float[Tensor, " B"]:
    same = rows.index.unsqueeze(1) == rows.index.unsqueeze(2)
    return (rows.b @ rows.b.transpose(1, 2)).masked_fill(~same, 0).sum((1, 2))


def _factor_squares(factors: Factors) -> Float[Tensor, " B"]:
    if _materialises(factors):
        return _each(factors).square().sum(1)
    a, b = factors
    return ((a @ a.transpose(2, 3)) * (b @ b.transpose(2, 3))).sum((1, 2, 3))


def _materialises(factors: Factors) -> bool:
    steps, inputs = factors.a.shape[2:]
    return cheaper_materialised(steps, inputs, factors.b.shape[-1])


def cheaper_materialised(steps: int, inputs: int, outputs: int) -> bool:
    """Whether forming a gradient takes fewer operations than inner products of its factors.

    Example:
        >>> cheaper_materialised(1, 8, 8), cheaper_materialised(16, 8, 8)
        (False, True)
    """
    return steps > 1 and steps * (inputs + outputs) >= inputs * outputs


def _each(factors: Factors) -> Float[Tensor, "B _"]:
    return (factors.b.transpose(2, 3) @ factors.a).reshape(len(factors.a), -1)


def total(piece: Piece, blocks: int = 1) -> Float[Tensor, "K _"]:
    """Sums of one parameter's gradients over K consecutive, equally long parts of the batch.

    Args:
        piece: Of B examples.
        blocks: K, a divisor of B.

    Returns:
        Shape ``[K, P]``, P the parameter flattened.

    Example:
        >>> total(Rows(torch.tensor([[0], [0]]), torch.ones(2, 1, 1), count=2))
        tensor([[2., 0.]])
    """
    if isinstance(piece, Tensor):
        return piece.unflatten(0, (blocks, -1)).sum(1)
    if isinstance(piece, Rows):
        return _row_total(piece, blocks)
    if _materialises(piece):
        return _each(piece).unflatten(0, (blocks, -1)).sum(1)
    a_KGSI, b_KGSO = (x.unflatten(0, (blocks, -1)).transpose(1, 2).flatten(2, 3) for x in piece)
    return (b_KGSO.transpose(2, 3) @ a_KGSI).flatten(1)


def _row_total(rows: Rows, blocks: int) -> Float[Tensor, "K _"]:
    size = len(rows.index)
    block = torch.arange(size, device=rows.index.device) // (size // blocks)
    index = (rows.index + rows.count * block.unsqueeze(1)).flatten()
    table = rows.b.new_zeros(blocks * rows.count, rows.b.shape[-1])
    return table.index_add_(0, index, rows.b.flatten(0, 1)).reshape(blocks, -1)


def _reduce(piece: Piece, blocks: int) -> tuple[Float[Tensor, " B"], Float[Tensor, "K _"]]:
    """Squared norms and block sums of one parameter's gradients."""
    if isinstance(piece, Factors) and _materialises(piece):
        piece = _each(piece)
    return squares([piece]), total(piece, blocks)


def by_vmap(objective: Objective, batch: Tree, blocks: int) -> Gradients:
    """The same with every gradient materialised, ``[B, P]``, for small models of any layers.

    Args:
        objective: As in :func:`by_layers`.
        batch: As in :func:`by_layers`.
        blocks: As in :func:`by_layers`.

    Returns:
        As :func:`by_layers`.

    Raises:
        RuntimeError: By torch, where the model cannot be mapped over examples.
    """
    params, buffers = trainable(objective), dict(objective.named_buffers())

    def loss(own: Params, example: Tree) -> tuple[Tensor, Tensor]:
        one = _tree.map_leaves(lambda leaf: leaf.unsqueeze(0), example)
        losses, weights = functional_call(
            objective, (own, _tree.map(torch.clone, buffers)), (one,)
        )
        return (losses * weights).sum(), weights.sum()

    own = _tree.map(torch.detach, params)
    mapped = vmap(grad(loss, has_aux=True), (None, 0), randomness="different")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        each, weights = mapped(own, batch)
    rows = torch.cat([value.flatten(1) for value in each.values()], dim=1).detach()
    return Gradients(
        rows.square().sum(1), rows.unflatten(0, (blocks, -1)).sum(1), weights.to(rows.dtype)
    )


def by_batch(objective: Objective, batch: Tree) -> tuple[Float[Tensor, "1 P"], Tensor]:
    """∇Σwℓ of the whole batch by plain autograd, and Σw; right for every model."""
    params = trainable(objective)
    losses, weights = objective(batch)
    found = torch.autograd.grad((losses * weights).sum(), list(params.values()), allow_unused=True)
    filled = [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(params.values(), found, strict=True)
    ]
    return torch.cat([g.flatten() for g in filled]).unsqueeze(0), weights.detach().sum()
