"""Inputs of mean 0 and variance 1 in every feature, Gaussian or not."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from sklearn.datasets import load_digits
from torch import Generator, Tensor

from batchlab.errors import InvalidValueError, must

Draw = Callable[[int, int, Generator], Tensor]


def gaussian(examples: int, features: int, rng: Generator) -> Float[Tensor, "N d"]:
    """Independent standard normals."""
    return torch.randn(examples, features, generator=rng, dtype=torch.float64)


def rademacher(examples: int, features: int, rng: Generator) -> Float[Tensor, "N d"]:
    """±1, independent and equally likely."""
    return 2.0 * torch.randint(2, (examples, features), generator=rng).double() - 1.0


def uniform(examples: int, features: int, rng: Generator) -> Float[Tensor, "N d"]:
    """Independent and uniform on [−√3, √3]."""
    shares = torch.rand(examples, features, generator=rng, dtype=torch.float64)
    return math.sqrt(3) * (2 * shares - 1)


def correlated(examples: int, features: int, rng: Generator) -> Float[Tensor, "N d"]:
    """x_i = (g_i + g_{i+1})/√2 on a circle, g ~ N(0, I): neighbours are correlated by ½."""
    drawn = gaussian(examples, features, rng)
    return (drawn + drawn.roll(1, -1)) / math.sqrt(2)


def images(examples: int, features: int, rng: Generator) -> Float[Tensor, "N d"]:
    """Pixels of handwritten digits that are not always blank, standardised; without replacement.

    Raises:
        InvalidValueError: If there are fewer pictures or other pixels.
    """
    pixels = torch.from_numpy(load_digits(return_X_y=True)[0])
    pixels = pixels[:, pixels.std(0) > 0]
    if features != pixels.shape[1]:
        words = f"{pixels.shape[1]}, the pixels that vary"
        raise InvalidValueError(must("features", words, features))
    if examples > len(pixels):
        words = f"at most {len(pixels)}, the pictures there are"
        raise InvalidValueError(must("examples", words, examples))
    kept = torch.randperm(len(pixels), generator=rng)[:examples]
    return ((pixels - pixels.mean(0)) / pixels.std(0, correction=0))[kept]


INPUTS: dict[str, Draw] = {
    made.__name__: made for made in (gaussian, rademacher, uniform, correlated, images)
}
"""Name → (examples, features, generator) → inputs, float64, shape ``[N d]``."""
PIXELS, PICTURES = 61, 1797
"""Features of ``images``, and how many there are."""


def most(kind: str, features: int) -> float:
    """So many examples of a kind there are at most; ∞ where they are drawn.

    Args:
        kind: As :func:`draw` has it.
        features: d.

    Raises:
        InvalidValueError: If there is no such kind, or not with so many features.
    """
    if kind not in INPUTS:
        raise InvalidValueError(must("inputs", f"one of {', '.join(INPUTS)}", kind))
    if kind != images.__name__:
        return math.inf
    if features != PIXELS:
        raise InvalidValueError(must("features", f"{PIXELS}, the pixels that vary", features))
    return PICTURES


def draw(kind: str, examples: int, features: int, rng: Generator) -> Float[Tensor, "N d"]:
    """Inputs of a kind.

    Args:
        kind: ``gaussian``, ``rademacher``, ``uniform``, ``correlated`` (neighbours by ½) or
            ``images`` (the 61 pixels of digits that vary, standardised).
        examples: N.
        features: d.
        rng: Moved on.

    Returns:
        Mean 0 and variance 1 in every feature; float64.

    Raises:
        InvalidValueError: If there is no such kind, or too few pictures.

    Example:
        >>> draw("rademacher", 2, 3, torch.Generator().manual_seed(0)).abs()
        tensor([[1., 1., 1.],
                [1., 1., 1.]], dtype=torch.float64)
    """
    if kind not in INPUTS:
        raise InvalidValueError(must("inputs", f"one of {', '.join(INPUTS)}", kind))
    return INPUTS[kind](examples, features, rng)
