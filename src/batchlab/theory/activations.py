"""Activations s(h) with the derivatives that predictions need, kinks included."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from batchlab.errors import InvalidValueError, must
from batchlab.theory._expressions import MAX_DEGREE, hermite, parse

Elementwise = Callable[[Tensor], Tensor]


class Kink(NamedTuple):
    """Where s′ jumps: s″ holds ``jump`` · δ(h − ``at``)."""

    at: float
    jump: float


@dataclass(frozen=True)
class Activation:
    """s, s′ and s″, the last as a smooth part and kinks. Made by :func:`activation`.

    Attributes:
        name: As it was asked for.
        value: s, elementwise.
        slope: s′ wherever it exists; at a kink any value between its sides.
        curvature: s″ away from the kinks.
        kinks: Where s′ jumps. A jump of s itself has no place here.
    """

    name: str
    value: Elementwise
    slope: Elementwise
    curvature: Elementwise
    kinks: tuple[Kink, ...] = ()


def _bell(h: Tensor) -> Tensor:
    return 2 / math.sqrt(math.pi) * torch.exp(-h.square())


RELU = Activation(
    "relu", torch.relu, lambda h: (h > 0).to(h.dtype), torch.zeros_like, (Kink(0.0, 1.0),)
)
TANH = Activation(
    "tanh",
    torch.tanh,
    lambda h: 1 - torch.tanh(h).square(),
    lambda h: -2 * torch.tanh(h) * (1 - torch.tanh(h).square()),
)
ERF = Activation("erf", torch.erf, _bell, lambda h: -2 * h * _bell(h))
LINEAR = Activation("linear", lambda h: h, torch.ones_like, torch.zeros_like)
NAMED = {known.name: known for known in (RELU, TANH, ERF, LINEAR)}
BENT = re.compile(r"relu|abs|sign")


def activation(
    what: str | Elementwise | Activation, kinks: tuple[tuple[float, float], ...] | None = None
) -> Activation:
    """An activation by name, as an expression in ``h``, or as a Python function.

    Args:
        what: ``relu``, ``tanh``, ``erf`` (of h itself, not of h/√2), ``linear``, ``He0`` …
            ``He30``; an expression in ``h`` such as ``"tanh(2*h)"``; or a function of a tensor,
            elementwise and differentiable twice by autograd away from its kinks.
        kinks: (place, jump of s′) of every kink. Needed where the expression bends.

    Returns:
        The activation; derivatives of expressions and functions are autograd's.

    Raises:
        InvalidValueError: If it is not understood, or bends and no kinks are given.

    Example:
        >>> activation("He2").slope(torch.tensor([1.5]))
        tensor([3.])
        >>> activation("tanh(2*h)").slope(torch.zeros(1))
        tensor([2.])
    """
    if isinstance(what, Activation):
        return what
    if not isinstance(what, str):
        return _differentiated(getattr(what, "__name__", "a function"), what, kinks or ())
    if what in NAMED:
        return NAMED[what]
    degree = re.fullmatch(r"He(\d{1,2})", what)
    if degree and int(degree[1]) <= MAX_DEGREE:
        return _polynomial(int(degree[1]))
    function, variables = parse(what, "activation")
    if not variables <= {"h"}:
        words = f"one of {', '.join(NAMED)}, He0 … He{MAX_DEGREE} or an expression in h"
        raise InvalidValueError(must("activation", words, what))
    if kinks is None and BENT.search(what):
        words = "the places where the slope jumps, and by how much"
        raise InvalidValueError(must("kinks", words, kinks, "Use ((0, 1),) for relu(h)."))
    return _differentiated(
        what, lambda h: torch.as_tensor(function({"h": h}), dtype=h.dtype) + 0 * h, kinks or ()
    )


def _polynomial(degree: int) -> Activation:
    """He_j, with He_j′ = j He_{j−1}."""

    def derivative(order: int) -> Elementwise:
        if order > degree:
            return torch.zeros_like
        return lambda h: math.perm(degree, order) * hermite(degree - order, h)

    return Activation(f"He{degree}", derivative(0), derivative(1), derivative(2))


def _differentiated(
    name: str, function: Elementwise, kinks: tuple[tuple[float, float], ...]
) -> Activation:
    slope = _derivative(function)
    return Activation(name, function, slope, _derivative(slope), tuple(Kink(*k) for k in kinks))


def _derivative(function: Elementwise) -> Elementwise:
    """Elementwise, by autograd of the sum."""
    return torch.func.grad(lambda h: function(h).sum())
