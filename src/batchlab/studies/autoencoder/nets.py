"""Autoencoders as modules, trained by the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, vmap

from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunState
from batchlab.measure.sparsity import participation_ratio
from batchlab.models.neuron import ThreeLayerAutoencoder, TiedAutoencoder
from batchlab.studies.autoencoder.simulate import Ends
from batchlab.tasks import Prepared, Task, prepare
from batchlab.theory import autoencoder as theory
from batchlab.theory.autoencoder import Activation
from batchlab.types import Tree

QUIET = 1e-3
"""A neuron whose largest response is below this share of the largest of all is left out."""

MISSING = 1e-12
"""A full-batch run has ended when what is left to learn is below this."""

LOOK, FULL_BATCH_UPDATES = 5, 2000
"""Updates after which a full-batch run is looked at, and after which it is given up."""

NUMBERS = 2**22
"""Most numbers of the reconstructions that are held at once."""


def reconstruction_loss(outputs: Tensor, batch: Tree) -> Float[Tensor, " B"]:
    """½|x − f(x)|² of each example."""
    return (outputs - batch[0]).square().sum(-1) / 2


def task(model: Callable[[], nn.Module], data: Float[np.ndarray, "n D"], name: str) -> Prepared:
    """An autoencoder on all of the data; what it is judged on is what it is trained on.

    Args:
        model: Makes the autoencoder.
        data: Examples. Shape ``[n, D]``.
        name: What it is called.
    """
    examples = (torch.from_numpy(np.ascontiguousarray(data)),)
    recipe = RunConfig(batch_size=len(data), samples=len(data))
    return prepare(
        Task(
            model,
            examples,
            validation=examples,
            loss=reconstruction_loss,
            baseline=recipe,
            name=name,
        ),
        device="cpu",
    )


def train(
    prepared: Prepared,
    configs: Sequence[RunConfig],
    executor: str | None = None,
    starts: Sequence[RunState] | None = None,
) -> list[RunState | None]:
    """Train in this process.

    Args:
        prepared: The task.
        configs: Runs that differ in numbers only.
        executor: ``stacked`` or ``loop`` to force one.
        starts: Where each goes on from.

    Returns:
        The state at the end of each; None for a run that has diverged.
    """
    runs = [config.resolved(prepared.examples) for config in configs]
    first, last = (starts[0].samples if starts else 0), runs[0].samples
    assert isinstance(last, int)
    job = Job(evaluate_at=(first, last), keep_end=True)
    with Engine(prepared, None, 0, executor) as engine:
        return engine.train(runs, job, starts=starts)[1]


def configs(
    seeds: Sequence[int],
    batch_size: int,
    learning_rate: float,
    updates: int,
    precision: str = "float64",
) -> list[RunConfig]:
    """Runs of plain SGD that differ in their seed.

    Example:
        >>> configs([1], 4, 0.5, updates=10)[0].samples
        40
    """
    return [
        RunConfig(
            rule="sgd",
            batch_size=batch_size,
            learning_rate=learning_rate,
            samples=batch_size * updates,
            precision=precision,
            seed=seed,
        )
        for seed in seeds
    ]


def responses(
    prepared: Prepared, states: Sequence[RunState | None], data: Float[np.ndarray, "n D"]
) -> Float[np.ndarray, "R H n"]:
    """What each neuron of the hidden layer says to each example.

    Args:
        prepared: The task.
        states: Trained runs, none of them diverged.
        data: Examples. Shape ``[n, D]``.

    Returns:
        Shape ``[R, H, n]``.
    """
    objective = prepared.objective(0, torch.float64)
    module = objective.module
    assert isinstance(module, TiedAutoencoder | ThreeLayerAutoencoder)
    found = []
    for state in states:
        assert state is not None
        objective.load_state_dict({n: p.double() for n, p in state.progress.params.items()})
        with torch.no_grad():
            found.append(module.features(torch.from_numpy(data)).T.numpy())
    return np.stack(found)


def breadth(responses: Float[np.ndarray, "R H n"]) -> Float[np.ndarray, " R"]:
    """Effective share of the examples that a neuron responds to: (Σa²)²/(n Σa⁴).

    Of each run, the mean over its neurons but those that are silent.

    Args:
        responses: a. Shape ``[R, H, n]``.

    Returns:
        From 1/n, each neuron has one example of its own, to 1. Shape ``[R]``.

    Example:
        >>> breadth(np.array([[[1.0, 0.0], [1.0, 1.0]]])).tolist()
        [0.75]
    """
    loudest = np.abs(responses).max(-1)
    speaks = loudest > QUIET * loudest.max(-1, keepdims=True)
    shares = effective(responses) / responses.shape[-1]
    return (shares * speaks).sum(-1) / speaks.sum(-1)


def effective(numbers: Float[np.ndarray, "*R n"]) -> Float[np.ndarray, " *R"]:
    """Participation ratio over the last axis: how many of n numbers carry the weight.

    Example:
        >>> effective(np.array([[1.0, 0.0], [1.0, -1.0]])).tolist()
        [1.0, 2.0]
    """
    return participation_ratio(torch.from_numpy(np.ascontiguousarray(numbers))).numpy()


def neuron_hessians(
    weights: Float[np.ndarray, "R D"], examples: int, activation: str
) -> Float[np.ndarray, "R D D"]:
    """Hessians of the mean loss of one neuron on e_1 … e_n, by automatic differentiation.

    Args:
        weights: w. Shape ``[R, D]``; a coordinate that is on its way to 0 has to be set to 0
            before, or its curvature is that of an active one.
        examples: n.
        activation: φ.

    Returns:
        Shape ``[R, D, D]``.
    """
    mean_loss = _mean_loss(weights.shape[1], examples, activation)
    return vmap(hessian(mean_loss))(torch.from_numpy(weights)).numpy()


def descend(
    weights: Float[np.ndarray, "R D"],
    examples: int,
    activation: str,
    learning_rate: float,
    updates: int,
) -> Float[np.ndarray, "R D"]:
    """Gradient descent of one neuron on all of e_1 … e_n, by automatic differentiation.

    Args:
        weights: w. Shape ``[R, D]``.
        examples: n.
        activation: φ.
        learning_rate: η of the mean loss.
        updates: Updates.

    Returns:
        w after them. Shape ``[R, D]``.
    """
    dimensions = weights.shape[1]
    chunk = max(1, NUMBERS // (examples * dimensions))
    slope = vmap(grad(_mean_loss(dimensions, examples, activation)), chunk_size=chunk)
    w = torch.from_numpy(weights)
    for _ in range(updates):
        w = w - learning_rate * slope(w)
    return w.numpy()


def arrive(
    start: Float[np.ndarray, "R D"], examples: int, activation: Activation, ratio: float
) -> Ends:
    """:func:`descend` until nothing is left to learn.

    Args:
        start: w(0). Shape ``[R, D]``.
        examples: n.
        activation: φ.
        ratio: η/n.

    Returns:
        Where the runs ended.
    """
    weights, left = start.copy(), np.arange(len(start))
    updates, settled = np.zeros(len(start), dtype=np.int64), np.zeros(len(start), dtype=bool)
    while len(left) and updates.max() < FULL_BATCH_UPDATES:
        weights[left] = descend(weights[left], examples, activation, ratio * examples, LOOK)
        updates[left] += LOOK
        missing = np.abs(theory.missing(weights[left], examples, activation))
        settled[left] = missing < MISSING
        left = left[~settled[left]]
    return Ends(weights, updates, settled)


def _mean_loss(
    dimensions: int, examples: int, activation: str
) -> Callable[[Float[Tensor, " D"]], Float[Tensor, ""]]:
    """Of one neuron's module on e_1 … e_n, as a function of its weights."""
    data = torch.eye(dimensions, dtype=torch.float64)[:examples]
    module = TiedAutoencoder(dimensions, activation=activation)

    def mean_loss(w: Tensor) -> Tensor:
        outputs = functional_call(module, {"weight": w[None]}, (data,))
        return reconstruction_loss(outputs, (data,)).mean()

    return mean_loss
