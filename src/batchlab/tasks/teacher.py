"""A teacher of few directions: a two-layer student starts at right angles to all of them."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.models.student import TwoLayerStudent, orthogonal
from batchlab.tasks import inputs as drawing
from batchlab.tasks.task import Task
from batchlab.theory import activations, targets
from batchlab.theory.activations import Activation
from batchlab.theory.targets import Target
from batchlab.types import Tree

PARTS = 3
"""Training, validation and test."""
RATE = 0.2
"""η of the sum of the losses of a batch, the source's."""


def squared(outputs: Float[Tensor, " B"], batch: Tree) -> Float[Tensor, " B"]:
    """½(f − y)², one number per example."""
    return (outputs - batch[1]).square() / 2


def directions(count: int, features: int, seed: int) -> Float[Tensor, "k d"]:
    """The teacher's rows W*: at random, orthogonal, |w*|² = d; float64.

    Args:
        count: k.
        features: d.
        seed: Names them.

    Example:
        >>> rows = directions(2, 50, seed=0)
        >>> (rows @ rows.T).round().tolist()
        [[50.0, 0.0], [0.0, 50.0]]
    """
    rng = _random.generator(seed, "teacher")
    return orthogonal(torch.randn(count, features, generator=rng, dtype=torch.float64))


def teacher(
    target: str | Target = "tanh(He1(z1) + He3(z2))",
    *,
    features: int = 200,
    examples: int = 800,
    width: int = 2,
    activation: str | Activation = "relu",
    inputs: str = "gaussian",
    train_second: bool = False,
    batch_size: int | None = None,
    passes: int = 6,
    seed: int = 0,
) -> Task:
    """A task with labels y = f*(z), z = W*x/√d, for a student f = Σ_j a_j s(w_j·x/√d).

    Several passes over one batch of all examples is multi-pass gradient descent; one pass over T·n
    examples with batches of n, single-pass; the recipe's ``reuse`` trains on each batch again.

    Args:
        target: f*, as :func:`batchlab.theory.targets.target` reads it.
        features: d.
        examples: n of the training data; as many more for validation, and for test.
        width: p, neurons.
        activation: s, as :func:`batchlab.theory.activations.activation` reads it.
        inputs: ``gaussian``, ``rademacher``, ``uniform``, ``correlated`` (neighbours by ½) or
            ``images`` (61 pixels of 1,797 digits, for the three parts together).
        train_second: Whether a is trained too; it stays ±1/√p if not.
        batch_size: Of the baseline; all examples if left out.
        passes: Of the baseline over the data.
        seed: Names teacher and data; a run's own seed, its start.

    Returns:
        A task in float64 whose loss is ½(f − y)²; a run has its own precision. Its baseline is
        plain SGD with 0.2 times the *sum* of a batch's gradients: a learning rate of 0.2 b.

    Raises:
        InvalidValueError: If a name or number is not possible.

    Source:
        dandi2024.

    Example:
        >>> task = teacher("He3(z)", features=50, examples=100, width=1)
        >>> task.train[0].shape, task.baseline.learning_rate
        (torch.Size([100, 50]), 20.0)
    """
    known, shape = targets.target(target), activations.activation(activation)
    most = drawing.most(inputs, features)
    if not 1 <= examples <= most / PARTS:
        words = "1 or more" if math.isinf(most) else f"from 1 to {most // PARTS:.0f}"
        hint = "" if math.isinf(most) else "Training, validation and test share the pictures."
        raise InvalidValueError(must("examples", words, examples, hint))
    if features < known.dimensions + width:
        words = f"at least {known.dimensions + width}, the target's directions and the width"
        raise InvalidValueError(must("features", words, features))
    rows = directions(known.dimensions, features, seed)
    x = drawing.draw(
        inputs, PARTS * examples, features, _random.generator(seed, "teacher's inputs")
    )
    data = x, known(x @ rows.T / math.sqrt(features))
    train, validation, test = zip(*(part.split(examples) for part in data), strict=True)
    size = examples if batch_size is None else batch_size
    return Task(
        functools.partial(
            TwoLayerStudent, features, width, shape.value, avoid=rows, train_second=train_second
        ),
        train=train,
        validation=validation,
        test=test,
        loss=squared,
        baseline=RunConfig(
            rule="sgd", batch_size=size, learning_rate=RATE * size, samples=f"{passes}ep"
        ),
        name="teacher",
    )


def task(target: str | None = None) -> Task:
    """A target of two directions, one of which a single pass cannot find, or any other; 200
    features.

    Args:
        target: As :func:`teacher` reads it.

    Example:
        >>> task("He3(z)").name
        'teacher@He3(z)'
    """
    return teacher() if target is None else replace(teacher(target), name=f"teacher@{target}")
