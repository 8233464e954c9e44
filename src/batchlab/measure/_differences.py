"""Whether second derivatives are those of the gradient: a backward pass may hide some of them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random, _tree
from batchlab.errors import TaskError
from batchlab.measure._curvature import Curvature, Losses, flat, gradients, hessian
from batchlab.types import Params

STEPS = (1e-5, 1e-6)
AGREE = 0.01
TRIALS = 3
MOVED = 0.01
"""Share of a parameter's spread by which it is moved first: away from the kinks on which a fresh
model may lie, such as a ReLU of exactly 0."""


def check_second_derivatives(losses: Losses, params: Params, fixed: Params) -> None:
    """Compare a product with differences of gradients, (∇L(θ + hv) − ∇L(θ − hv))/2h.

    In float64, near θ, along the gradient. Torch takes what a backward pass says for a constant
    where that pass was not written to be differentiated, and does so without an error. Only two
    steps h that agree with each other are believed: noise and kinks make them differ.

    Args:
        losses: L of one run on a few examples, which take tensors in float64.
        params: Parameters of one run, with a leading axis of one.
        fixed: Its other tensors, likewise.

    Raises:
        TaskError: If the product is another one.

    Example:
        >>> w = {"w": torch.ones(1, 2)}
        >>> check_second_derivatives(lambda t: (t["w"] ** 3).sum(1), w, {})
        >>> check_second_derivatives(lambda t: (t["w"].detach() * t["w"]).sum(1), w, {})
        Traceback (most recent call last):
        batchlab.errors.TaskError: The second derivatives of this model or loss are not those of its gradient: part of it is cut off from differentiation, as by gradient checkpointing or a backward pass of its own. Switch that off.
    """  # noqa: E501
    wide = _wide(fixed)
    for trial in range(TRIALS):
        try:
            agree = _agree(losses, _moved(_wide(params), trial), wide)
        except Exception:  # a model may insist on its precision; that is no answer
            return
        if agree:
            return
        if agree is False:
            raise TaskError(
                "The second derivatives of this model or loss are not those of its gradient: "
                "part of it is cut off from differentiation, as by gradient checkpointing or a "
                "backward pass of its own. Switch that off."
            )


def _wide(params: Params) -> Params:
    return _tree.map(lambda x: x.double() if x.is_floating_point() else x, params)


def _moved(params: Params, trial: int) -> Params:
    """A little away from where they are."""
    draw = _random.generator(0, "differences", trial)

    def move(leaf: Tensor) -> Tensor:
        noise = torch.randn(leaf.shape, generator=draw, dtype=torch.float64).to(leaf)
        spread = leaf.std() if leaf.numel() > 1 else leaf.abs().sum()
        return leaf + MOVED * torch.where(spread > 0, spread, 1.0) * noise

    return _tree.map(move, params)


def _agree(losses: Losses, params: Params, fixed: Params) -> bool | None:
    """Whether the product agrees with differences; None where these do not say."""
    here = _gradient(losses, params, fixed)
    length = here.norm()
    if not 0 < float(length) < torch.inf:
        return True
    curvature = Curvature([hessian(losses)], params, fixed)
    product = curvature(here / length)
    along = dict(zip(params, curvature.shaped(here / length), strict=True))
    first, second = (
        _gradient(losses, _tree.axpy(h, along, params), fixed)
        - _gradient(losses, _tree.axpy(-h, along, params), fixed)
        for h in STEPS
    )
    first, second = first / (2 * STEPS[0]), second / (2 * STEPS[1])

    def near(a: Tensor, b: Tensor) -> bool:
        allowed = AGREE * torch.maximum(a.norm(), b.norm()) + 1e-7 * length
        return bool((a - b).norm() <= allowed)

    return near(product, second) if near(first, second) else None


def _gradient(losses: Losses, params: Params, fixed: Params) -> Float[Tensor, "1 P"]:
    """∇L, the same random numbers drawn every time."""
    own = {name: value.detach().requires_grad_() for name, value in params.items()}
    with _random.seeded(0, "differences"):
        return flat(gradients(losses(own | fixed).sum(), list(own.values())))
