"""Products of vectors with the Hessian, or the Gauss–Newton matrix, of R runs at once.

Run r's loss depends on run r's parameters only, so one backward pass through the gradient of the
*summed* losses gives every run its own product. The graph of the gradient is kept from product to
product: none but the first pays for the forward and the first backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree

from batchlab import _tree
from batchlab._memory import is_out_of_memory
from batchlab.errors import TaskError, UserError, reason
from batchlab.types import Params, Tree

Losses: TypeAlias = Callable[[Params], Tensor]
"""Tensors with a leading R → one loss per run, shape ``[R]``."""

Outputs: TypeAlias = Callable[[Params], Tree]
"""Tensors with a leading R → the model's outputs, leaves that start with R."""

OutputLosses: TypeAlias = Callable[[Tree], Tensor]
"""Outputs that start with R → one loss per run, shape ``[R]``."""

Product: TypeAlias = Callable[[list[Tensor]], list[Tensor]]
"""Vectors in the parameters' shapes → products in the same shapes."""

Form: TypeAlias = Callable[[Params, list[Tensor]], Product]
"""Builds the graph at (all tensors by name, those among them that vary) and returns what
multiplies with it."""


def hessian(losses: Losses) -> Form:
    """H v = ∇(∇L·v), with ∇L as a graph.

    Args:
        losses: L of every run.

    Returns:
        What builds the graph.

    Example:
        >>> form = hessian(lambda tensors: (tensors["w"] ** 3).sum(1))
        >>> w = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> form({"w": w}, [w])([torch.ones(1, 2)])
        [tensor([[ 6., 12.]])]
    """

    def build(tensors: Params, inputs: list[Tensor]) -> Product:
        slopes = gradients(losses(tensors).sum(), inputs, create_graph=True)
        return lambda vectors: gradients(slopes, inputs, vectors)

    return build


def gauss_newton(outputs: Outputs, losses: OutputLosses) -> Form:
    """G v = Jᵀ H_out J v: the Hessian with the model replaced by its tangent.

    J v by two backward passes: Jᵀu is linear in u, and its derivative along v is J v. Without
    negative eigenvalues where the loss is convex in the outputs.

    Args:
        outputs: f(θ) of every run.
        losses: L(f) of every run.

    Returns:
        What builds the graph.

    Source:
        schraudolph2002.

    Example:
        >>> form = gauss_newton(lambda t: t["w"] ** 2, lambda f: f.square().sum(1) / 2)
        >>> w = torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> form({"w": w}, [w])([torch.ones(1, 2)])
        [tensor([[ 4., 16.]])]
    """

    def build(tensors: Params, inputs: list[Tensor]) -> Product:
        made, structure = _pytree.tree_flatten(outputs(tensors))
        varying = [i for i, leaf in enumerate(made) if _varies(leaf)]
        leaves = [made[i] for i in varying]
        # Of their own: where one output is computed from another, both stay apart.
        own = [leaf.detach().requires_grad_() for leaf in leaves]
        whole = list(made)
        for i, leaf in zip(varying, own, strict=True):
            whole[i] = leaf
        loss = losses(_pytree.tree_unflatten(whole, structure)).sum()
        slopes = gradients(loss, own, create_graph=True)
        dummies = [torch.zeros_like(leaf).requires_grad_() for leaf in leaves]
        backward = gradients(leaves, inputs, dummies, create_graph=True)

        def product(vectors: list[Tensor]) -> list[Tensor]:
            moved = gradients(backward, dummies, vectors)
            bent = gradients(slopes, own, moved)
            return gradients(leaves, inputs, bent)

        return product

    return build


def _varies(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.requires_grad


def gradients(
    of: Tensor | list[Tensor],
    inputs: list[Tensor],
    along: list[Tensor] | None = None,
    create_graph: bool = False,
) -> list[Tensor]:
    """Gradients that are zero where nothing depends on an input; the graph stays.

    Args:
        of: What is differentiated.
        inputs: By what.
        along: A weight for each number of ``of``; ones if left out.
        create_graph: Whether the result can be differentiated again.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> gradients(x.square().sum(), [x, torch.zeros(1, requires_grad=True)])
        [tensor([2., 2.]), tensor([0.])]
    """
    all_of = [of] if isinstance(of, Tensor) else of
    pairs = [
        (part, None if along is None else along[i])
        for i, part in enumerate(all_of)
        if part.requires_grad
    ]
    if not pairs:
        return [torch.zeros_like(leaf) for leaf in inputs]
    found = torch.autograd.grad(
        [part for part, _ in pairs],
        inputs,
        None if along is None else [vector for _, vector in pairs],  # pyright: ignore
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
    )
    filled = zip(inputs, found, strict=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in filled]


class Curvature:
    """The products of R runs, on parameters flattened to ``[R, P]``.

    With one part, its graph is kept. With several, each graph is built anew for every product, so
    that no more than one part is in memory.

    Args:
        parts: Whose sum is the matrix, such as those of micro-batches.
        params: The parameters, with a leading R.
        fixed: Tensors that do not vary, with a leading R.
    """

    def __init__(self, parts: Sequence[Form], params: Params, fixed: Params | None = None) -> None:
        self.parts, self.params, self.fixed = parts, params, fixed or {}
        self._kept: Product | None = None
        first = next(iter(params.values()))
        size = sum(value[0].numel() for value in params.values())
        self.like = first.detach().new_empty(()).expand(len(first), size)

    def __call__(self, vectors: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        """The products; see :class:`batchlab.measure._lanczos.Products`."""
        shaped = self.shaped(vectors)
        if len(self.parts) == 1:
            self.prepare()
            assert self._kept is not None
            return flat(_twice(self._kept, shaped))
        whole = torch.zeros_like(vectors)
        for part in self.parts:
            whole += flat(_twice(self._build(part), shaped))
        return whole

    def prepare(self) -> None:
        """Build the graph that is kept, if one is."""
        if len(self.parts) == 1 and self._kept is None:
            self._kept = self._build(self.parts[0])

    def only(self, rows: list[int]) -> Curvature:
        """Some of the runs; the graph of all is let go."""
        self._kept = None
        index = torch.tensor(rows, device=self.like.device)
        return Curvature(self.parts, _tree.pick(self.params, index), _tree.pick(self.fixed, index))

    def _build(self, part: Form) -> Product:
        params = {name: value.detach().requires_grad_() for name, value in self.params.items()}
        return _twice(part, params | self.fixed, list(params.values()))

    def shaped(self, vectors: Float[Tensor, "R P"]) -> list[Tensor]:
        """Pieces of the vectors in the parameters' shapes."""
        leaves = list(self.params.values())
        pieces = vectors.split([leaf[0].numel() for leaf in leaves], dim=1)
        return [piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]


def flat(leaves: list[Tensor]) -> Float[Tensor, "R P"]:
    """Tensors with a leading R, side by side.

    Example:
        >>> flat([torch.zeros(2, 3, 4), torch.zeros(2)]).shape
        torch.Size([2, 13])
    """
    return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


@contextlib.contextmanager
def kernels_with_second_derivatives(module: nn.Module) -> Iterator[None]:
    """Attention written out, and recurrent layers outside cuDNN: the fused kernels have none.

    On a GPU convolutions are in full precision meanwhile; TF32 has three digits.

    Args:
        module: What is about to run.

    Example:
        >>> q = torch.ones(1, 2, 2, requires_grad=True)
        >>> with kernels_with_second_derivatives(nn.Identity()):
        ...     out = nn.functional.scaled_dot_product_attention(q, q, q)
        >>> slope, = torch.autograd.grad(out.sum(), q, create_graph=True)
        >>> slope.requires_grad
        True
    """
    cudnn = torch.backends.cudnn
    recurrent = any(isinstance(layer, nn.RNNBase) for layer in module.modules())
    with contextlib.ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if torch.cuda.is_available():
            flags = cudnn.flags(
                enabled=cudnn.enabled and not recurrent,
                benchmark=cudnn.benchmark,
                deterministic=cudnn.deterministic,
                allow_tf32=False,
            )
            stack.enter_context(flags)
        yield


def _twice(function: Callable[..., Any], *inputs: Any) -> Any:
    """Differentiate; where torch cannot, say so in one sentence."""
    try:
        return function(*inputs)
    except Exception as error:  # by text alone, from whatever the model is made of
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        hint = "Sharpness needs second derivatives: exchange the operation that has none."
        raise TaskError(
            f"The model or its loss cannot be differentiated twice: {reason(error)}. {hint}"
        ) from error
