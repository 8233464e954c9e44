"""Multi-index targets y = f*(z): what a student has to learn of k directions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab.errors import InvalidValueError, must
from batchlab.theory._expressions import parse

MAX_DIMENSIONS = 8


@dataclass(frozen=True)
class Target:
    """y = f*(z), z = W* x/√d the inputs along k orthogonal directions. Made by :func:`target`.

    Attributes:
        text: The expression, or the function's name.
        dimensions: k, at least 1.
        function: From z, shape ``[... k]``, to y, shape ``[...]``.
    """

    text: str
    dimensions: int
    function: Callable[[Float[Tensor, "*batch k"]], Float[Tensor, "*batch"]]

    def __call__(self, z: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch"]:
        """The labels.

        Args:
            z: Shape ``[... k]``.

        Raises:
            InvalidValueError: If the last axis is not k, or the function returns another shape.

        Example:
            >>> target("z1*z2")(torch.tensor([[2.0, 3.0], [1.0, -1.0]]))
            tensor([ 6., -1.])
        """
        if z.shape[-1] != self.dimensions:
            words = f"of shape [… {self.dimensions}]"
            raise InvalidValueError(must("z", words, tuple(z.shape)))
        labels = torch.as_tensor(self.function(z), dtype=z.dtype, device=z.device)
        if labels.ndim and labels.shape != z.shape[:-1]:
            words = "a function from shape [… k] to shape [...]"
            raise InvalidValueError(must("target", words, tuple(labels.shape)))
        return labels.expand(z.shape[:-1])


def target(
    what: str | Callable[[Tensor], Tensor] | Target, dimensions: int | None = None
) -> Target:
    """A target from an expression or a Python function.

    Args:
        what: An expression in ``z`` (one direction) or ``z1`` … ``z8``, such as
            ``"tanh(He1(z1) + He3(z2))"``, with He_j the probabilists' Hermite polynomials; or a
            function from a tensor ``[... k]`` to a tensor ``[...]``.
        dimensions: k. Left out: the largest number of a variable; 1 for a function.

    Returns:
        The target.

    Raises:
        InvalidValueError: If the expression is not understood or names other variables, or k is
            not from 1 to 8.

    Example:
        >>> target("He3(z)").dimensions, target("z1 + z1*z2").dimensions
        (1, 2)
        >>> target("sign(x)")
        Traceback (most recent call last):
        batchlab.errors.InvalidValueError: `target` must be in the variables z or z1 … z8; got 'x'.
    """
    if isinstance(what, Target):
        return what
    if not isinstance(what, str):
        return Target(getattr(what, "__name__", "a function"), _checked(dimensions or 1), what)
    function, variables = parse(what, "target")
    strange = sorted(word for word in variables if not re.fullmatch("z[1-8]?", word))
    if strange:
        raise InvalidValueError(must("target", "in the variables z or z1 … z8", strange[0]))
    if "z" in variables and len(variables) > 1:
        raise InvalidValueError(must("target", "in z alone, or in z1 … z8", what))
    named = max((int(word[1:] or 1) for word in variables), default=1)
    k = _checked(named if dimensions is None else dimensions)
    if k < named:
        raise InvalidValueError(must("dimensions", f"at least {named} for {what}", k))

    def labels(z: Tensor) -> Tensor:
        values = {word: z[..., int(word[1:] or 1) - 1] for word in variables}
        return torch.as_tensor(function(values), dtype=z.dtype, device=z.device)

    return Target(what, k, labels)


def _checked(dimensions: int) -> int:
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        words = f"from 1 to {MAX_DIMENSIONS}"
        raise InvalidValueError(must("dimensions", words, dimensions))
    return dimensions
