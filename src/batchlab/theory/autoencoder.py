"""A single neuron that reconstructs orthonormal examples: SGD, minima, curvature in closed form.

f(x; w) = w φ(⟨w, x⟩) with tied weights, φ the identity or ReLU, examples x_i = e_i for i < n in
d ≥ n dimensions, ℓ_i = ½|e_i − w φ(w_i)|². With N = |w|², the active set A = {i < n : φ′(w_i) = 1}
and S = Σ_{i∈A} w_i², all below follows from ℓ_i = ½(1 − (2 − N) w_i²) for i ∈ A, else ½.

Source: ghosh2023 for model and claims; the equations are derived here and tested against autograd.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Num

from batchlab.errors import InvalidValueError, must

Activation: TypeAlias = Literal["linear", "relu"]
ACTIVATIONS: tuple[Activation, Activation] = ("linear", "relu")

DECAYED = 1e-8
"""Share of |w|² below which a coordinate on its way to 0 counts as inactive."""

SPARSITY_CONSTANT = 13.0
"""Of :func:`time_to_sparsity`, for n from 20 to 100; it grows with log n."""

Weights: TypeAlias = Float[np.ndarray, "*R D"]


def active(
    weights: Weights, examples: int, activation: Activation, decayed: float = 0.0
) -> Bool[np.ndarray, "*R D"]:
    """Which coordinates pass an example's gradient on: i < n, and with ReLU w_i > 0.

    Args:
        weights: w. Shape ``[..., D]``.
        examples: n, at most D.
        activation: ``linear`` or ``relu``.
        decayed: With ReLU, a coordinate with w_i² at most this share of |w|² counts as inactive.
            SGD with b < n lets losers fall to 0⁺ without ever reaching it, and a derivative taken
            there reports the curvature of a point that SGD is leaving.

    Returns:
        Shape ``[..., D]``.

    Raises:
        InvalidValueError: If there are more examples than dimensions, or φ is unknown.

    Example:
        >>> active(np.array([0.9, 1e-6, -0.1, 0.2]), 3, "relu", DECAYED).tolist()
        [True, False, False, False]
    """
    if activation not in ACTIVATIONS:
        raise InvalidValueError(must("activation", f"one of {', '.join(ACTIVATIONS)}", activation))
    if not 1 <= examples <= weights.shape[-1]:
        raise InvalidValueError(must("examples", f"from 1 to D = {weights.shape[-1]}", examples))
    covered = np.broadcast_to(np.arange(weights.shape[-1]) < examples, weights.shape)
    if activation == "linear":
        return covered
    least = decayed * np.square(weights).sum(-1, keepdims=True)
    return covered & (weights > 0) & (np.square(weights) > least)


def energies(
    weights: Weights, examples: int, activation: Activation, decayed: float = 0.0
) -> tuple[Float[np.ndarray, "*R"], Float[np.ndarray, "*R"]]:
    """N = |w|² and S = Σ_A w_i².

    Args:
        weights: w. Shape ``[..., D]``.
        examples: n.
        activation: φ.
        decayed: See :func:`active`.

    Returns:
        ``(N, S)``, both of shape ``[...]``.

    Example:
        >>> [float(x) for x in energies(np.array([3.0, -4.0]), 2, "relu")]
        [25.0, 9.0]
    """
    squares = np.square(weights)
    on = active(weights, examples, activation, decayed)
    return np.asarray(squares.sum(-1)), np.asarray((squares * on).sum(-1))


def step(
    weights: Weights,
    counts: Num[np.ndarray, "*R n"],
    learning_rate: float | Float[np.ndarray, "*R"],
    activation: Activation,
) -> Weights:
    """One SGD step on the mean loss of a batch, exactly.

    w_k ← w_k [1 + (η/b)((2 − N) m_k 1{k ∈ A} − S_B)],  S_B = Σ_{i∈A} m_i w_i²,  b = Σ m_i.

    Args:
        weights: w. Shape ``[..., D]``.
        counts: m_i, how often example i is in the batch; 0 or 1 unless the batch runs across the
            end of a pass. Shape ``[..., n]``, n ≤ D.
        learning_rate: η, of the mean loss.
        activation: φ.

    Returns:
        w after the step. Shape ``[..., D]``.

    Source:
        ghosh2023, the gradient of their loss; here with ½ and the batch's mean.

    Example:
        >>> step(np.array([0.5, 0.5]), np.array([1, 0]), 0.2, "linear").tolist()
        [0.625, 0.475]
    """
    examples = counts.shape[-1]
    m = np.zeros(weights.shape)
    m[..., :examples] = counts
    m *= active(weights, examples, activation)
    N = np.square(weights).sum(-1, keepdims=True)
    S_B = (m * np.square(weights)).sum(-1, keepdims=True)
    ratio = np.asarray(learning_rate)[..., None] / counts.sum(-1, keepdims=True)
    return weights * (1.0 + ratio * ((2.0 - N) * m - S_B))


def loss(weights: Weights, examples: int, activation: Activation) -> Float[np.ndarray, "*R"]:
    """L = (n − (2 − N) S) / 2n, the mean over all examples.

    Args:
        weights: w. Shape ``[..., D]``.
        examples: n.
        activation: φ.

    Returns:
        Shape ``[...]``.

    Example:
        >>> float(loss(np.array([1.0, 0.0]), 2, "linear")) == least_loss(2)
        True
    """
    N, S = energies(weights, examples, activation)
    return np.asarray((examples - (2.0 - N) * S) / (2 * examples))


def least_loss(examples: int) -> float:
    """(n − 1)/2n: the global minimum, taken where N = S = 1.

    For a given N, L is least where S = N, and (2 − N)N ≤ 1. Linear: the unit sphere in the span of
    the examples; ReLU: its non-negative part.

    Example:
        >>> least_loss(20)
        0.475
    """
    return (examples - 1) / (2 * examples)


def missing(weights: Weights, examples: int, activation: Activation) -> Float[np.ndarray, "*R"]:
    """(L − (n − 1)/2n) · 2n = 1 − (2 − N)S: what is left of all that can be learned.

    Args:
        weights: w. Shape ``[..., D]``.
        examples: n.
        activation: φ.

    Returns:
        0 at a global minimum, 1 at w = 0; no unit. Shape ``[...]``.

    Example:
        >>> float(missing(np.array([0.0, 0.0]), 2, "linear"))
        1.0
    """
    N, S = energies(weights, examples, activation)
    return np.asarray(1.0 - (2.0 - N) * S)


def trace(
    weights: Weights, examples: int, activation: Activation, decayed: float = DECAYED
) -> Float[np.ndarray, "*R"]:
    """Trace of the Hessian of the mean loss: [(d + 4) S + (N − 2)|A|]/n.

    At a minimum (4 + d − |A|)/n. Linear: |A| = n, so all minima are equally sharp; ReLU: the fewer
    coordinates are active, the sharper.

    Args:
        weights: w. Shape ``[..., D]``.
        examples: n.
        activation: φ.
        decayed: See :func:`active`.

    Returns:
        Loss per squared weight. Shape ``[...]``.

    Example:
        >>> vertex, dense = np.eye(4)[0], np.full(4, 0.5)
        >>> [4 * float(trace(w, 4, "relu")) for w in (vertex, dense)]
        [7.0, 4.0]
    """
    N, S = energies(weights, examples, activation, decayed)
    count = active(weights, examples, activation, decayed).sum(-1)
    return np.asarray(((weights.shape[-1] + 4) * S + (N - 2.0) * count) / examples)


def top_eigenvalue(
    weights: Weights, examples: int, activation: Activation, decayed: float = DECAYED
) -> Float[np.ndarray, "*R"]:
    """Largest eigenvalue of the Hessian of the mean loss.

    n H = S I + 2(w vᵀ + v wᵀ) + (N − 2) diag(1_A), v being w on A and u the rest. It is S + N − 2
    on A ⊥ v, S off A ⊥ u, and on span{v, u} the matrix [[5S + N − 2, 2|v||u|], [2|v||u|, S]]. At
    every minimum the largest is 4/n.

    Args:
        weights: w. Shape ``[..., D]``.
        examples: n.
        activation: φ.
        decayed: See :func:`active`.

    Returns:
        Loss per squared weight. Shape ``[...]``.

    Example:
        >>> 4 * float(top_eigenvalue(np.full(4, 0.5), 4, "relu"))
        4.0
    """
    N, S = energies(weights, examples, activation, decayed)
    on = active(weights, examples, activation, decayed).sum(-1)
    off = weights.shape[-1] - on
    inside, across = 5.0 * S + N - 2.0, 2.0 * np.sqrt(S * np.maximum(N - S, 0.0))
    pair = (inside + S) / 2 + np.sqrt(np.square((inside - S) / 2) + np.square(across))
    both = np.where(off > 0, pair, inside)
    found = np.where(on > 0, both, S)
    found = np.where(on > 1, np.maximum(found, S + N - 2.0), found)
    return np.asarray(np.where(off > 1, np.maximum(found, S), found) / examples)


def full_batch_limit(weights: Weights, examples: int, activation: Activation) -> Weights:
    """Where full-batch gradient descent ends: the active part of w(0), normalised.

    All active coordinates share one factor, all others another that stays below 1.

    Args:
        weights: w(0), at least one coordinate active. Shape ``[..., D]``.
        examples: n.
        activation: φ.

    Returns:
        A global minimum. Shape ``[..., D]``.

    Assumes:
        A step size below :func:`largest_step`, and no coordinate that changes its sign.

    Example:
        >>> full_batch_limit(np.array([3.0, 4.0, -1.0]), 3, "relu").tolist()
        [0.6, 0.8, 0.0]
    """
    kept = np.where(active(weights, examples, activation), weights, 0.0)
    return kept / np.sqrt(np.square(kept).sum(-1, keepdims=True))


def kept_by_relu(examples: int) -> tuple[float, float]:
    """Mean and standard deviation of cos(w₊(0), w(0)) = √F, F = Σ_{w_i > 0} w_i²/Σ w_i².

    For w(0) ~ N(0, σ²I) signs do not depend on sizes, so that F has mean 1/2 and variance
    ¼ E Σ p_i² = 3/(4(n + 2)), p_i = w_i²/Σw². To second order the root has mean
    1/√2 − Var F/√8 and standard deviation √(Var F/2).

    Args:
        examples: n, all dimensions.

    Returns:
        ``(mean, standard deviation)``.

    Example:
        >>> [round(x, 4) for x in kept_by_relu(100)]
        [0.7045, 0.0606]
    """
    variance = 3 / (4 * (examples + 2))
    return math.sqrt(0.5) - variance / math.sqrt(8), math.sqrt(variance / 2)


def breadth_of_start(examples: int) -> tuple[float, float]:
    """Mean and standard deviation of the participation ratio over n of n normal numbers.

    It is A²/B with A and B the means of w² and w⁴. With var w² = 2, var w⁴ = 96 and
    cov(w², w⁴) = 12, the mean is 1/3 + 14/(9n) and the variance 8/(27n), to second order.

    Args:
        examples: n.

    Returns:
        ``(mean, standard deviation)``; no unit.

    Example:
        >>> [round(x, 3) for x in breadth_of_start(100)]
        [0.349, 0.054]
    """
    return 1 / 3 + 14 / (9 * examples), math.sqrt(8 / (27 * examples))


def largest_step(batch_size: int) -> float:
    """b/2: the step size from which no run settles at a minimum any more.

    With the winner in the batch, N − 1 is multiplied by 1 − 4η/b; at b = n this is 2/λ_max with
    λ_max = 4/n.

    Args:
        batch_size: b, 1 to n.

    Returns:
        η of the mean loss.

    Example:
        >>> largest_step(1), largest_step(100)
        (0.5, 50.0)
    """
    return batch_size / 2


def disagreement(examples: int, batch_size: int) -> float:
    """Chance that of two examples the first only is in the batch, q = b(n − b)/(n(n − 1)).

    It is also the size of the noise that tells coordinates apart: the indicators of b distinct
    examples have variance and covariance as q(δ_kj − 1/n). At b = n there is none.

    Example:
        >>> disagreement(20, 10), disagreement(20, 20)
        (0.2631578947368421, 0.0)
    """
    return batch_size * (examples - batch_size) / (examples * (examples - 1))


def time_to_sparsity(examples: int, batch_size: int, learning_rate: float) -> float:
    """Updates until 1 − max w_i²/|w|² < 10⁻⁸: about 13 n b(n − 1)/((n − b) η²).

    log|w_k| are random walks with variance q(η/b)² an update, and the leader gains drift as its
    share grows; so time is 1/(q(η/b)²) times a number. The number is not derived: 13 was measured
    for n of 20 to 100 and rises slowly, as the leader must outrun the largest of n − 1 walks.

    Args:
        examples: n, at least 2.
        batch_size: b, 1 to n.
        learning_rate: η.

    Returns:
        Updates; infinite at b = n.

    Example:
        >>> round(time_to_sparsity(100, 1, 0.45)), time_to_sparsity(100, 100, 25.0)
        (6420, inf)
    """
    noise = disagreement(examples, batch_size) * (learning_rate / batch_size) ** 2
    return SPARSITY_CONSTANT / noise if noise else math.inf


def chance_of_two(
    first: Float[np.ndarray, "*R"], second: Float[np.ndarray, "*R"]
) -> Float[np.ndarray, "*R"]:
    """Of two coordinates, the chance that the first wins: (2/π) arctan(|w_1|/|w_2|).

    In the small-step limit x = log(w_1²/w_2²) has drift 2σ² tanh(x/2) and variance 8σ² an update,
    σ² = q(η/b)²; the chance is linear in x's scale function ∫ dx/cosh(x/2) = 4 arctan e^{x/2} + c,
    and so in the angle of w.

    Args:
        first: w_1(0). Shape ``[...]``.
        second: w_2(0). Shape ``[...]``.

    Returns:
        Shape ``[...]``.

    Assumes:
        n = 2, b = 1, small η.

    Example:
        >>> chance_of_two(np.array([1.0, 0.0]), np.array([1.0, 1.0])).tolist()
        [0.5, 0.0]
    """
    return np.arctan2(np.abs(first), np.abs(second)) * (2 / math.pi)


def cosine(first: Weights, second: Weights) -> Float[np.ndarray, "*R"]:
    """⟨a, b⟩/(|a||b|).

    Args:
        first: a. Shape ``[..., D]``.
        second: b. Shape ``[..., D]``.

    Returns:
        Between −1 and 1. Shape ``[...]``.

    Example:
        >>> float(cosine(np.array([3.0, 4.0]), np.array([1.0, 0.0])))
        0.6
    """
    sizes = np.sqrt(np.square(first).sum(-1) * np.square(second).sum(-1))
    return np.asarray((first * second).sum(-1) / sizes)
