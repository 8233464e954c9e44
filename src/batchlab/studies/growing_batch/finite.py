"""Sums of finitely many losses whose L, σ² and gap are known exactly, and their trainings.

*Squares*: f_i(θ) = ½ Σ_j h_j (θ_j − s_ij a_j)², i running over all 2^d sign vectors s: least
squares with noisy targets, in the eigenbasis of its design. L = max h, σ² = Σ h²a² everywhere,
f − f* = ½ Σ hθ². A batch of b independent examples has as many signs +1 in each coordinate as a
binomial draw says, whatever b.

*Logistic*: f_i(θ) = log(1 + e^{−y_i x_i·θ}) + λ Σ_j θ_j²/(1 + θ_j²), which is not convex.
L ≤ λ_max(XᵀX/n)/4 + 2λ, σ² ≤ Σ|x_i|²/n, f* ≥ 0.

Problems P and runs R are axes; every update is that of :mod:`batchlab.rules`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random
from batchlab.rules import RULES, Numbers
from batchlab.theory.growing import Problem

DIMENSIONS = 8
EXAMPLES = 128
"""Of a logistic problem."""
PENALTY = 0.1
DESCENT = 3000

Weights = Float[Tensor, "P R D"]


@runtime_checkable
class Family(Protocol):
    """P problems of a kind, and where their runs start, shape ``[P 1 D]``."""

    problems: list[Problem]
    start: Tensor

    def batch(self, theta: Weights, size: int, rng: np.random.Generator) -> Weights:
        """The mean gradient of so many independent examples, for each run."""
        ...

    def whole(self, theta: Weights) -> Weights:
        """∇f."""
        ...


class Squares:
    """Least squares with noisy targets.

    Args:
        keys: One a problem.
        start: |θ_0| over the noise |a|; the gap of each problem is that of its start.
    """

    def __init__(self, keys: Sequence[int], start: float) -> None:
        draws = [np.random.default_rng(key).uniform(0.5, 1.0, (3, DIMENSIONS)) for key in keys]
        h, a, signs = (
            torch.from_numpy(np.stack(part))[:, None] for part in zip(*draws, strict=True)
        )
        self.h, self.a = h / h.amax(-1, keepdim=True), a
        self.start = start * a * torch.where(signs > 0.75, 1.0, -1.0)
        gap, noise = ((self.h * self.start**2) / 2).sum(-1), ((self.h * a) ** 2).sum(-1)
        self.problems = [Problem(1.0, float(n), float(g)) for n, g in zip(noise, gap, strict=True)]

    def batch(self, theta: Weights, size: int, rng: np.random.Generator) -> Weights:
        """The counts of +1 are binomial."""
        ones = torch.from_numpy(rng.binomial(size, 0.5, theta.shape))
        return self.h * (theta - (2.0 * ones / size - 1.0) * self.a)

    def whole(self, theta: Weights) -> Weights:
        """Hθ."""
        return self.h * theta


class Logistic:
    """Logistic regression with a penalty that is not convex.

    Args:
        keys: One a problem.
        start: 0 starts at a stationary point, found by gradient descent; above it, at θ = 0.
    """

    def __init__(self, keys: Sequence[int], start: float) -> None:
        draws = [np.random.default_rng(key) for key in keys]
        x = np.stack([rng.normal(size=(EXAMPLES, DIMENSIONS)) for rng in draws])
        truth = np.stack([rng.normal(size=DIMENSIONS) for rng in draws])
        noise = np.stack([rng.logistic(size=EXAMPLES) for rng in draws])
        y = np.where(np.einsum("pnd,pd->pn", x, truth) + noise > 0, 1.0, -1.0)
        self.signed = torch.from_numpy(x * y[..., None])
        self._known: tuple[Tensor, Tensor] | None = None
        self.start = torch.zeros(len(keys), 1, DIMENSIONS, dtype=torch.float64)
        top = torch.linalg.eigvalsh(self.signed.mT @ self.signed / EXAMPLES)[:, -1]
        variance = self.signed.square().sum(-1).mean(-1)
        L = top / 4 + 2 * PENALTY
        if not start:
            for _ in range(DESCENT):
                self.start = self.start - self.whole(self.start) / L[:, None, None]
        self.problems = [
            Problem(*map(float, one)) for one in zip(L, variance, self._loss(), strict=True)
        ]

    def _loss(self) -> Float[Tensor, " P"]:
        """The loss at the start, which is at least f − f*."""
        theta = self.start
        fit = torch.nn.functional.softplus(-(theta @ self.signed.mT)).mean(-1)
        return (fit + PENALTY * (theta**2 / (1 + theta**2)).sum(-1))[:, 0]

    def batch(self, theta: Weights, size: int, rng: np.random.Generator) -> Weights:
        """Weights of the examples are counts of draws with replacement."""
        runs = theta.shape[:2]
        index = torch.from_numpy(rng.integers(EXAMPLES, size=(*runs, size)))
        counts = torch.zeros(*runs, EXAMPLES, dtype=theta.dtype)
        counts.scatter_add_(-1, index, torch.ones_like(index, dtype=theta.dtype))
        return self._mean(theta, counts / size)

    def whole(self, theta: Weights) -> Weights:
        """All examples weigh the same."""
        return self._mean(theta, torch.tensor(1.0 / EXAMPLES, dtype=theta.dtype))

    def _pull(self, theta: Weights) -> Float[Tensor, "P R N"]:
        """σ(−y_i x_i·θ); kept, since a batch and all examples are asked about at the same θ."""
        if self._known is None or self._known[0] is not theta:
            self._known = theta, torch.sigmoid(-(theta @ self.signed.mT))
        return self._known[1]

    def _mean(self, theta: Weights, weights: Tensor) -> Weights:
        slope = -self._pull(theta) * weights
        return slope @ self.signed + 2 * PENALTY * theta / (1 + theta**2) ** 2


KINDS = {"squares": Squares, "logistic": Logistic}


class Training(NamedTuple):
    """How the runs of a cell are trained.

    Attributes:
        rule: A name in :data:`batchlab.rules.RULES`.
        momentum: β.
        sizes: Batch size of every update; 0 is all examples, once each.
        rates: Learning rate of every update, over 1/L.
    """

    rule: str
    momentum: float
    sizes: Sequence[int]
    rates: Sequence[float]


def family(kind: str, problems: int, seed: int, start: float = 0.0) -> Family:
    """P problems; the same for the same seed.

    Args:
        kind: ``squares`` or ``logistic``.
        problems: P.
        seed: The bench's.
        start: See :class:`Squares`.
    """
    return KINDS[kind]([_random.key(seed, f"growing {kind}", i) for i in range(problems)], start)


def steps(made: Family, training: Training, runs: int, seed: int) -> Iterator[Weights]:
    """θ before every update and at the end.

    Args:
        made: The problems.
        training: The rule and its schedules.
        runs: R.
        seed: Names the batches.
    """
    rng = np.random.default_rng(seed)
    theta = made.start.repeat(1, runs, 1)
    unit = torch.tensor([1 / p.smoothness for p in made.problems], dtype=torch.float64)
    rule = RULES[training.rule]
    state = rule.init({"theta": theta})
    known = {
        rate: Numbers.of(learning_rate=rate, momentum=training.momentum, dtype=torch.float64)
        for rate in set(training.rates)
    }
    for size, rate in zip(training.sizes, training.rates, strict=True):
        yield theta
        # A rule takes one rate for all; that of each problem is a change of the gradient's unit.
        whole = made.batch(theta, size, rng) if size else made.whole(theta)
        gradient = whole * unit[:, None, None]
        delta, state = rule.update({"theta": gradient}, state, {"theta": theta}, known[rate])
        theta = theta + delta["theta"]
    yield theta


def norms(
    made: Family, training: Training, runs: int, seed: int, every: int = 1
) -> Float[np.ndarray, "P looks"]:
    """Mean over runs of ‖∇f(θ_t)‖² before the updates 0, every, 2 · every, …

    Args:
        made: The problems.
        training: The rule and its schedules.
        runs: R.
        seed: Names the batches.
        every: Updates from one look to the next.
    """
    before = itertools.islice(steps(made, training, runs, seed), len(training.sizes))
    found = [
        made.whole(theta).square().sum(-1).mean(-1).numpy()
        for t, theta in enumerate(before)
        if t % every == 0
    ]
    return np.stack(found, axis=1)
