r"""How gradient descent on a two-layer network moves in high dimensions: small closed equations.

A student f = Σ_j a_j s(h_j), h = Wx/√d, a fixed, learns y = f*(z), z = W*x/√d, from n = αd
Gaussian examples: W ← (1−ηλ)W − η Σ_μ l'_μ x_μᵀ/√d with l'_j = a_j s'(h_j)(f − y) and rows of
norm √d at the start. For d → ∞ the overlaps m = WW*ᵀ/d and Q = WWᵀ/d follow, the batch re-used
(``multi``), from what one of its examples sees, h(t) = m(t)z + r(t), z ~ N(0, I),
r(0) ~ N(0, Q⊥(0)):

    m(t+1) = (1−ηλ)m(t) − ηα E[l'(t)zᵀ]
    r(t+1) = r(t) + η[−l'(t) − (λ + Λ(t))r(t) + Σ_{s<t} R(t,s)r(s) + ω(t)]

with ω Gaussian, E[ω(t)ω(s)ᵀ] = C(t,s) = αE[l'(t)l'(s)ᵀ], and Λ(t)δ_ts − R(t,s) = αE[∂l'(t)/∂r(s)],
the response to a push of r(s) from outside. The source follows that response example by example,
through l'' and its δ-functions at kinks. Here it is eliminated, exactly:

Without −l'(t) the equation is that of a weight orthogonal to the teacher: a Gaussian process g.
Write g(t) = Σ_{s≤t} G(t,s)ξ(s) and ω(t) = Σ_{s≤t} L(t,s)ξ(s+1) in standard normals: ξ(0) is the
start, ξ(s+1) what is new in ω(s). Integration by parts (Stein) turns the response into

    Λ(t)g(t) − Σ R(t,s)g(s) = Σ_{s≤t} D(t,s)ξ(s),   D(t,s) = αE[l'(t)ξ(s)ᵀ],
    G(t+1,s) = (1−ηλ)G(t,s) − ηD(t,s) + ηL(t,s−1),

where kinks need no care: l' is never differentiated. The equation is linear, and −l'(t) enters
where ω(t) does; with l'(t) = Σ_{s≤t} L(t,s)β(s) therefore

    r(t) = Σ_{s≤t} G(t,s)(ξ(s) − β(s−1)).

Since E[ββᵀ] = I/α, L and β come by Gram–Schmidt from the l' of all examples. Q⊥(t) = GGᵀ.

A fresh batch at every step (``single``) forgets ξ and β: Q⊥⁺ = MMᵀ + η²αE[l'l'ᵀ] with
M = (1−ηλ)Q⊥^{1/2} − ηαE[l'ξᵀ], the closed recursion of (m, Q). As η → 0 at fixed τ = ηαt,

    dm/dτ = −E[l'zᵀ] − (λ/α)m,   dQ⊥/dτ = −E[l'rᵀ + r l'ᵀ] − 2(λ/α)Q⊥ + ηE[l'l'ᵀ],

without its last term the population's gradient flow (``flow``); with it (``online``) SGD on single
fresh examples, α → 0. Means are over randomised quasi-Monte Carlo samples, the same at all steps.

Source: dandi2024 for the equations of ``multi`` and ``single``; the elimination is derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab.theory.activations import Activation
from batchlab.theory.targets import Target

Passes: TypeAlias = Literal["multi", "single", "online", "flow"]
PASSES: tuple[Passes, ...] = get_args(Passes)

FLOW_STEP = 0.1
"""Largest step in τ of the fourth-order integration."""
COLLINEAR = 1e-10
"""Share of E|l'|² below which what is new in l' counts as nothing."""


class Problem(NamedTuple):
    """What is to be solved; tensors are float64."""

    target: Target
    activation: Activation
    second_layer: Float[Tensor, " p"]
    alpha: float
    learning_rate: float
    ridge: float
    steps: int
    overlaps: Float[Tensor, "p k"]
    residual: Float[Tensor, "p p"]


class Sample(NamedTuple):
    """Draws of one group; ξ(t) are the rows tp … (t+1)p."""

    z: Float[Tensor, "k N"]
    y: Float[Tensor, " N"]
    xi: Float[Tensor, "D N"]


class State(NamedTuple):
    """m and Q⊥."""

    overlaps: Float[Tensor, "p k"]
    residual: Float[Tensor, "p p"]


class Moment(NamedTuple):
    """One t: (m, Q⊥), test and training error."""

    state: State
    test: Tensor
    training: Tensor


# ------------------------------------------------------------------ one example, one mean


def force(
    problem: Problem, h: Float[Tensor, "p N"], y: Float[Tensor, " N"]
) -> tuple[Float[Tensor, "p N"], Float[Tensor, ""]]:
    """l'_j = a_j s'(h_j)(f − y) of every sample, and the mean of ½(y − f)²."""
    error = problem.second_layer @ problem.activation.value(h) - y
    slopes = problem.activation.slope(h)
    return problem.second_layer[:, None] * slopes * error, error.square().mean() / 2


def mean(a: Float[Tensor, "p N"], b: Float[Tensor, "q N"]) -> Float[Tensor, "p q"]:
    """E[abᵀ]."""
    return a @ b.mT / a.shape[-1]


def roots(
    square: Float[Tensor, "p p"], least: float | Tensor = 0.0
) -> tuple[Float[Tensor, "p p"], Float[Tensor, "p p"]]:
    """S^{1/2} and its pseudo-inverse, of the part of S with eigenvalues above ``least``.

    Example:
        >>> root, inverse = roots(torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
        >>> root.tolist(), inverse.tolist()
        ([[2.0, 0.0], [0.0, 0.0]], [[0.5, 0.0], [0.0, 0.0]])
    """
    values, axes = torch.linalg.eigh(square)
    kept = values > least
    scales = values.where(kept, 0).sqrt()
    inverse = scales.where(kept, 1).reciprocal().where(kept, 0)
    return axes * scales @ axes.mT, axes * inverse @ axes.mT


# ------------------------------------------------------------------ the four dynamics


def multi(problem: Problem, sample: Sample) -> list[Moment]:
    """One batch at every step: the equations of the module, until something is not finite."""
    p, alpha, eta = len(problem.overlaps), problem.alpha, problem.learning_rate
    decay = 1 - eta * problem.ridge
    m, G = problem.overlaps, roots(problem.residual)[0]
    beta = torch.zeros_like(sample.xi[p:])
    found: list[Moment] = []
    for t in range(problem.steps + 1):
        now, past = (t + 1) * p, t * p
        h = m @ sample.z + G @ sample.xi[:now] - G[:, p:] @ beta[:past]
        pull, training = force(problem, h, sample.y)
        state = State(m, G @ G.mT)
        if not _finite(*state, pull):
            break
        found.append(Moment(state, population(problem, sample, state)[2], training))
        if t == problem.steps:
            break
        known = alpha * mean(pull, beta[:past])
        new = pull - known @ beta[:past]
        root, inverse = roots(alpha * mean(new, new), COLLINEAR * alpha * mean(pull, pull).trace())
        beta[past:now] = inverse @ new
        D, L = alpha * mean(pull, sample.xi[:now]), torch.cat([known, root], dim=1)
        m = decay * m - eta * alpha * mean(pull, sample.z)
        none = torch.zeros_like(root)
        G = torch.cat([decay * G - eta * D, none], dim=1) + eta * torch.cat([none, L], dim=1)
    return found


def population(
    problem: Problem, sample: Sample, state: State
) -> tuple[Float[Tensor, "p N"], Float[Tensor, "p N"], Tensor]:
    """Of fresh examples: l', r and the mean of ½(y − f)²."""
    r = roots(state.residual)[0] @ sample.xi[: len(state.residual)]
    pull, error = force(problem, state.overlaps @ sample.z + r, sample.y)
    return pull, r, error


def single(problem: Problem, sample: Sample) -> list[Moment]:
    """A fresh batch at every step."""
    p, alpha, eta = len(problem.overlaps), problem.alpha, problem.learning_rate
    decay = 1 - eta * problem.ridge

    def step(state: State, pull: Tensor, r: Tensor) -> State:
        xi = sample.xi[:p]
        M = decay * roots(state.residual)[0] - eta * alpha * mean(pull, xi)
        m = decay * state.overlaps - eta * alpha * mean(pull, sample.z)
        return State(m, M @ M.mT + eta**2 * alpha * mean(pull, pull))

    return _memoryless(problem, sample, step)


def flow(problem: Problem, sample: Sample, noise: bool) -> list[Moment]:
    """The population's gradient flow at τ = ηαt, or with ``noise`` SGD on single examples."""
    shrink, span = problem.ridge / problem.alpha, problem.learning_rate * problem.alpha
    eta, parts = problem.learning_rate * noise, math.ceil(span / FLOW_STEP)

    def slope(state: State, pull: Tensor, r: Tensor) -> State:
        along = mean(pull, r)
        fall = along + along.mT + 2 * shrink * state.residual - eta * mean(pull, pull)
        return State(-mean(pull, sample.z) - shrink * state.overlaps, -fall)

    def step(state: State, pull: Tensor, r: Tensor) -> State:
        # What the moment was made of gives the first slope too.
        first: State | None = slope(state, pull, r)
        for _ in range(parts):
            state, first = _runge_kutta(anywhere, state, span / parts, first), None
        return state

    def anywhere(state: State) -> State:
        return slope(state, *population(problem, sample, state)[:2])

    return _memoryless(problem, sample, step)


def _memoryless(
    problem: Problem, sample: Sample, step: Callable[[State, Tensor, Tensor], State]
) -> list[Moment]:
    """From (m, Q⊥), l' and r to the next (m, Q⊥), until something is not finite."""
    state, found = State(problem.overlaps, problem.residual), []
    for t in range(problem.steps + 1):
        if not _finite(*state):
            break
        pull, r, error = population(problem, sample, state)
        if not _finite(pull):
            break
        found.append(Moment(state, error, error))
        if t < problem.steps:
            state = step(state, pull, r)
    return found


def _runge_kutta(
    slope: Callable[[State], State], start: State, h: float, first: State | None = None
) -> State:
    """One classical fourth-order step, the slope at its start given where it is known; past what
    is not finite there is no slope.
    """

    def ahead(by: float, along: State) -> State:
        return State(*(x + by * k for x, k in zip(start, along, strict=True)))

    if not _finite(*start):
        return start
    slopes = [slope(start) if first is None else first]
    for part in (h / 2, h / 2, h):
        at = ahead(part, slopes[-1])
        if not _finite(*at):
            return at
        slopes.append(slope(at))
    a, b, c, d = slopes
    blend = ((w + 2 * x + 2 * y + z) / 6 for w, x, y, z in zip(a, b, c, d, strict=True))
    return ahead(h, State(*blend))


def _finite(*tensors: Tensor) -> bool:
    return all(bool(x.isfinite().all()) for x in tensors)


def solved(problem: Problem, sample: Sample, passes: Passes) -> list[Moment]:
    """One group's way, t = 0 … T, shorter where something is not finite.

    Args:
        problem: What is to be solved.
        sample: Draws; they are the same at all t.
        passes: Which dynamics.
    """
    if passes == "multi":
        return multi(problem, sample)
    if passes == "single":
        return single(problem, sample)
    return flow(problem, sample, noise=passes == "online")
