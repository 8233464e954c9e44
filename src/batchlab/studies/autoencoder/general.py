"""One neuron beyond the closed form: any data, and momentum. Plain SGD, many runs at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.datasets import load_digits

from batchlab import _random
from batchlab.errors import InvalidValueError, must
from batchlab.studies.autoencoder.batches import Batches
from batchlab.theory.autoencoder import Activation


class Recipe(NamedTuple):
    """How runs are trained.

    Attributes:
        batches: n, b and how batches are drawn; all of distinct examples.
        activation: φ.
        learning_rate: η of the mean loss.
        momentum: β of the heavy ball, v ← βv + g, w ← w − ηv.
    """

    batches: Batches
    activation: Activation
    learning_rate: float
    momentum: float = 0.0


def gradient(
    weights: Float[np.ndarray, "R D"],
    data: Float[np.ndarray, "n D"],
    counts: Float[np.ndarray, "R n"],
    activation: Activation,
) -> Float[np.ndarray, "R D"]:
    """Of the mean of ½|x − w φ(a)|² over a batch, a = ⟨w, x⟩: mean of φ(a)² w − (2 − N) φ(a) x.

    Args:
        weights: w. Shape ``[R, D]``.
        data: Examples. Shape ``[n, D]``.
        counts: How often each is in the batch. Shape ``[R, n]``.
        activation: φ.

    Returns:
        Shape ``[R, D]``.

    Example:
        >>> gradient(np.array([[0.6, 0.8]]), np.eye(2), np.ones((1, 2)), "linear").round(9) + 0.0
        array([[0., 0.]])
    """
    a = weights @ data.T
    a = np.maximum(a, 0.0) if activation == "relu" else a
    share = counts * a / counts.sum(-1, keepdims=True)
    N = np.square(weights).sum(-1, keepdims=True)
    return (share * a).sum(-1, keepdims=True) * weights - (2.0 - N) * (share @ data)


def train(
    start: Float[np.ndarray, "R D"],
    data: Float[np.ndarray, "n D"],
    seeds: Sequence[int],
    recipe: Recipe,
    moments: Sequence[int],
) -> Float[np.ndarray, "M R D"]:
    """Each run after so many updates.

    Args:
        start: w(0). Shape ``[R, D]``.
        data: Examples. Shape ``[n, D]``.
        seeds: Name each run's batches. Length R.
        recipe: How they are trained.
        moments: Numbers of updates, increasing. Length M.

    Returns:
        w at each moment. Shape ``[M, R, D]``.
    """
    weights, velocity, batches, found = start, np.zeros_like(start), recipe.batches, []
    rows, outside = np.arange(len(seeds))[:, None], batches.left_out
    for update in range(moments[-1]):
        chunk, place = divmod(update, batches.updates)
        if place == 0:
            indices = np.stack([batches.draw(seed, chunk) for seed in seeds], axis=1)
        counts = np.full((len(seeds), len(data)), float(outside))
        counts[rows, indices[place]] = 1.0 - float(outside)
        slope = gradient(weights, data, counts, recipe.activation)
        velocity = recipe.momentum * velocity + slope
        weights = weights - recipe.learning_rate * velocity
        if update + 1 in moments:
            found.append(weights)
    return np.stack(found)


def correlated(examples: int, cosine: float) -> Float[np.ndarray, "n n"]:
    """Unit vectors of which every two have the same cosine: the root of (1 − ρ) I + ρ 11ᵀ.

    Args:
        examples: n.
        cosine: ρ in [0, 1].

    Example:
        >>> x = correlated(3, 0.2)
        >>> (x @ x.T).round(9)[0].tolist()
        [1.0, 0.2, 0.2]
    """
    if not 0 <= cosine <= 1:
        raise InvalidValueError(must("cosine", "in [0, 1]", cosine))
    mean = np.full((examples, examples), 1.0 / examples)
    others = np.eye(examples) - mean
    return np.sqrt(1 - cosine) * others + np.sqrt(1 + (examples - 1) * cosine) * mean


def unequal(examples: int, spread: float) -> Float[np.ndarray, "n n"]:
    """Orthogonal vectors with lengths evenly spaced from 1 − s/2 to 1 + s/2.

    Example:
        >>> unequal(3, 0.2).diagonal().round(3).tolist()
        [0.9, 1.0, 1.1]
    """
    return np.diag(np.linspace(1 - spread / 2, 1 + spread / 2, examples))


def digits(examples: int, *, centred: bool = False) -> Float[np.ndarray, "n 64"]:
    """Handwritten digits of 8×8 pixels, each picture of length 1; the same ones always.

    Args:
        examples: How many, at most 1,797.
        centred: Whether their mean is taken off first. Pixels are not negative, so that without it
            every two pictures have much in common.
    """
    pixels, _ = load_digits(return_X_y=True)
    order = _random.permutation(len(pixels), 0, 0).numpy()[:examples]
    chosen = pixels[order] - (pixels[order].mean(0) if centred else 0.0)
    return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)
