r"""How small the gradient gets under a schedule of batch sizes: upper bounds, without training.

One analysis serves every rule of the SGD family. With d ← βd + (1−β)g and θ ← θ − η((1−ν)g + νd),
SGD is ν = 0, NSHB ν = 1, SHB with rate α is NSHB with η = α/(1−β), QHM is any ν. Let η_t be the
rate and b_t the batch size of update t, and

    c_t = ν Σ_{j≥0} β^{j+1} η_{t+j},   h_t = (1−ν)η_t + (1−β)c_t/β,   z_t = θ_t − c_t d_{t−1}.

Then z_{t+1} = z_t − h_t g_t, as if there were no momentum. For f with L-Lipschitz gradient, and
gradients of b independent examples with variance at most σ²/b, the descent of f(z_t), Young's
inequality with κ > 0 on ⟨∇f(z) − ∇f(θ), ∇f(θ)⟩ and E‖d‖² ≤ 2 E‖its signal‖² + 2 E‖its noise‖²
give, with G_t = E‖∇f(θ_t)‖² and Δ = f(θ_0) − f*,

    Σ_t G_t h_t (1 − 1/2κ − Lh_t/2 − κL²r_t) ≤ Δ + Lσ²N₁/2 + κL²σ²N₂,

    N₁ = Σ_t h_t²/b_t,  N₂ = Σ_t h_t N₃(t),  N₃(t) = (1−β)² c_t² Σ_{i<t} β^{2(t−1−i)}/b_i,
    r_t = (1−β) Σ_{s>t} β^{s−1−t} h_s c_s²/h_t.

At a constant rate h = η and r = (νβη/(1−β))². The best κ gives the *sharp* bound; the *lemma*,

    min_t G_t ≤ [2Δ + 2Lσ²(N₁ + N₃)]/Σh_t,

which for NSHB is kamo2025's lemma word for word, lies above it and holds for

    η ≤ 1/(L(1 + 2√2 νβ/(1−β))),

fourteen times as far at β = 0.9 as the source's own condition.

Source: kamo2025 for NSHB and SHB, umeda2024 for SGD with a rate that grows, imaizumi2025 for the
question of QHM. The bounds for QHM and for momentum with a rate that changes, and all step-size
conditions but those named ``printed``, are derived here.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

from batchlab.errors import InvalidValueError, ValidityWarning, must
from batchlab.schedules import UNITS, BatchSchedule, RateSchedule

Rule: TypeAlias = Literal["sgd", "shb", "nshb", "qhm"]
RULES: tuple[Rule, ...] = ("sgd", "shb", "nshb", "qhm")
Form: TypeAlias = Literal["lemma", "sharp"]
Condition: TypeAlias = Literal["lemma", "sharp", "printed constant", "printed growing"]


@dataclass(frozen=True)
class Problem:
    """What a bound has to know about a loss.

    Attributes:
        smoothness: L, Lipschitz constant of ∇f; loss/parameter², above 0.
        noise: σ², largest variance of one example's gradient, E‖∇ℓ − ∇f‖²; (loss/parameter)², 0
            or more.
        gap: Δ = f(θ_0) − f*; loss, 0 or more.

    Example:
        >>> Problem(smoothness=1.0, noise=4.0, gap=2.0).noise
        4.0
    """

    smoothness: float
    noise: float
    gap: float

    def __post_init__(self) -> None:
        if not 0 < self.smoothness < math.inf:
            raise InvalidValueError(must("smoothness", "finite and above 0", self.smoothness))
        for name in ("noise", "gap"):
            if not 0 <= getattr(self, name) < math.inf:
                words = "finite, 0 or more"
                raise InvalidValueError(must(name, words, getattr(self, name)))


@dataclass(frozen=True)
class Step:
    """A rule of the SGD family in the one form that stands for all. Made by :meth:`of`.

    Attributes:
        learning_rate: η, of the mean of past gradients; the peak where it changes.
        momentum: β in [0, 1).
        nu: ν in [0, 1].
    """

    learning_rate: float
    momentum: float
    nu: float

    @classmethod
    def of(cls, rule: Rule, learning_rate: float, momentum: float = 0.9, nu: float = 0.7) -> Step:
        """A rule with its own numbers.

        Args:
            rule: One of :data:`RULES`; their equations stand in :mod:`batchlab.rules`.
            learning_rate: Above 0; its meaning is the rule's.
            momentum: β in [0, 1); SGD has none.
            nu: ν in [0, 1], of QHM alone.

        Returns:
            η = α/(1−β) for SHB, else the rate itself.

        Raises:
            InvalidValueError: If the rule is not of the family or a number is out of range.

        Example:
            >>> Step.of("shb", 0.25, momentum=0.5) == Step.of("nshb", 0.5, momentum=0.5)
            True
        """
        if rule not in RULES:
            raise InvalidValueError(must("rule", f"one of {', '.join(RULES)}", rule))
        if not 0 < learning_rate < math.inf:
            words = "finite and above 0"
            raise InvalidValueError(must("learning_rate", words, learning_rate))
        if not 0 <= momentum < 1:
            raise InvalidValueError(must("momentum", "in [0, 1)", momentum))
        if not 0 <= nu <= 1:
            raise InvalidValueError(must("nu", "in [0, 1]", nu))
        if rule == "sgd":
            return cls(learning_rate, 0.0, 0.0)
        rate = learning_rate / (1 - momentum) if rule == "shb" else learning_rate
        return cls(rate, momentum, nu if rule == "qhm" else 1.0)

    @property
    def reach(self) -> float:
        """ρ = νβ/(1−β), so that c = ρη at a constant rate."""
        return self.nu * self.momentum / (1 - self.momentum)


class Phase(NamedTuple):
    """So many updates with one batch size."""

    updates: int
    size: int


class Plan(NamedTuple):
    """A training as far as a bound can see it.

    Attributes:
        step: The rule with its numbers.
        batches: Batch sizes; positions in samples.
        rates: Multiplier of the rate over the share of the budget, or None for a constant one.
    """

    step: Step
    batches: BatchSchedule
    rates: RateSchedule | None = None


@dataclass(frozen=True)
class Sums:
    """All that a bound needs of a plan; the symbols are those of the module.

    Attributes:
        updates: T.
        path: Σh_t, unit of a rate.
        squares: Σh_t².
        signal: Σh_t r_t.
        fresh: N₁, noise that a step brings.
        kept: Σ_t N₃(t), noise that momentum remembers.
        kept_path: N₂.
        largest: max h_t.
        reach: max √r_t.
    """

    updates: int
    path: float
    squares: float
    signal: float
    fresh: float
    kept: float
    kept_path: float
    largest: float
    reach: float


@dataclass(frozen=True)
class Bound:
    """An upper bound of min_t E‖∇f(θ_t)‖², and of the mean over t weighted by h_t.

    Attributes:
        value: (loss/parameter)²; infinite where the sharp form ends.
        start: The part that the way from θ_0 takes; it falls with the updates.
        noise: The part that σ² leaves.
        updates: T.
        proved: Whether the step is within the range of the proof.
    """

    value: float
    start: float
    noise: float
    updates: int
    proved: bool


class Ranked(NamedTuple):
    """One plan's place before training."""

    name: str
    bound: Bound


# ------------------------------------------------------------------ schedules as sums


def phases(batches: BatchSchedule, samples: int) -> tuple[Phase, ...]:
    """The batch sizes of a training and how many updates each gets.

    Args:
        batches: Positions in samples.
        samples: Budget.

    Returns:
        Phases with at least one update, in order.

    Raises:
        InvalidValueError: If a position is in epochs or updates, or no batch fits the budget.

    Example:
        >>> from batchlab.schedules import batch_schedule
        >>> phases(batch_schedule("0:2 4:3"), 12)
        (Phase(updates=2, size=2), Phase(updates=2, size=3))
    """
    total = batches.count(0, samples)  # also refuses positions that are not in samples
    if not total:
        raise InvalidValueError(must("samples", f"enough for a batch of {batches}", samples))
    starts = [int(step.start.value * UNITS[step.start.unit]) for step in batches.steps]
    before = [batches.progress(0, min(start, samples)).updates for start in starts]
    ends = [*before[1:], total]
    found = zip(before, ends, batches.sizes, strict=True)
    return tuple(Phase(min(e, total) - b, size) for b, e, size in found if min(e, total) > b)


def sums(plan: Plan, samples: int) -> Sums:
    """What a bound needs of a plan: O(phases) at a constant rate, else O(updates).

    Args:
        plan: The training.
        samples: Budget.

    Raises:
        InvalidValueError: As :func:`phases`.
    """
    found = phases(plan.batches, samples)
    if plan.rates is None:
        return sums_of(plan.step, found)
    return _changing(plan.step, *_each(plan, samples))


def _each(plan: Plan, samples: int) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """1/b_t and η_t of every update."""
    rates = plan.rates
    assert rates is not None
    pairs = list(plan.batches.updates(0, samples))
    eta = plan.step.learning_rate * np.array([rates(first / samples) for first, _ in pairs])
    return 1.0 / np.array([size for _, size in pairs]), eta


def sums_of(step: Step, found: Sequence[Phase]) -> Sums:
    """At a constant rate all sums are geometric series, phase by phase.

    Args:
        step: The rule.
        found: Phases, at least one.

    Example:
        >>> sums_of(Step.of("sgd", 0.5), [Phase(3, 2), Phase(4, 8)]).fresh
        0.5
    """
    eta, q, T = step.learning_rate, step.momentum**2, sum(p.updates for p in found)
    fresh = sum(updates / size for updates, size in found)
    kept = step.nu**2 * (remembered(step.momentum, found) - fresh)
    c = step.reach * eta
    return Sums(
        updates=T,
        path=T * eta,
        squares=T * eta**2,
        signal=T * eta * c**2,
        fresh=eta**2 * fresh,
        kept=eta**2 * kept if q else 0.0,
        kept_path=eta**3 * kept if q else 0.0,
        largest=eta,
        reach=c,
    )


def remembered(momentum: float, found: Sequence[Phase]) -> float:
    """Σ_t Σ_{i≤t} β^{2(t−i)}/b_i, exactly, in as many steps as there are phases.

    Within a phase a_t = β²a_{t−1} + 1/b runs to its fixed point 1/((1−β²)b) geometrically.

    Args:
        momentum: β in [0, 1).
        found: The phases.

    Returns:
        Updates per example.

    Source:
        kamo2025, the lemma before the theorems.

    Example:
        >>> remembered(0.0, [Phase(3, 2), Phase(4, 8)])
        2.0
    """
    q, a, total = momentum**2, 0.0, 0.0
    for updates, size in found:
        fixed = 1.0 / ((1.0 - q) * size)
        total += updates * fixed + (a - fixed) * q * (1.0 - q**updates) / (1.0 - q)
        a = fixed + (a - fixed) * q**updates
    return total


def _changing(step: Step, inverse: Float[np.ndarray, " T"], eta: Float[np.ndarray, " T"]) -> Sums:
    """The definitions, update by update; after the end the rate counts as staying constant."""
    beta, nu, T = step.momentum, step.nu, len(eta)
    c = _backward(beta * nu * eta, beta, step.reach * eta[-1])
    h = (1 - nu) * eta + (1 - beta) * c / beta if beta else eta
    weighted = h * c**2
    later = _backward(np.append(weighted[1:], weighted[-1]), beta, weighted[-1] / (1 - beta))
    r = np.divide((1 - beta) * later, h, out=np.zeros(T), where=h > 0)
    noise = (1 - beta) ** 2 * c**2 * _before(inverse, beta**2)
    return Sums(
        updates=T,
        path=float(h.sum()),
        squares=float((h**2).sum()),
        signal=float((h * r).sum()),
        fresh=float((h**2 * inverse).sum()),
        kept=float(noise.sum()),
        kept_path=float((h * noise).sum()),
        largest=float(h.max()),
        reach=float(np.sqrt(r.max())),
    )


def _backward(x: np.ndarray, factor: float, last: float) -> np.ndarray:
    """y_t = x_t + factor·y_{t+1} with y_T = last."""
    found = itertools.accumulate(x[::-1], lambda y, now: now + factor * y, initial=last)
    return np.array(list(found)[1:])[::-1]


def _before(x: np.ndarray, factor: float) -> np.ndarray:
    """y_t = Σ_{i<t} factor^{t−1−i} x_i."""
    found = itertools.accumulate(x[:-1], lambda y, now: factor * y + now, initial=0.0)
    return np.array(list(found))


# ------------------------------------------------------------------ bounds


def bound(problem: Problem, plan: Plan, samples: int, form: Form = "lemma") -> Bound:
    """The upper bound of min_t E‖∇f(θ_t)‖² for any schedule of batch size and rate.

    Args:
        problem: L, σ² and Δ.
        plan: The training.
        samples: Budget.
        form: ``lemma``, the source's, which is a number outside its range, too; or ``sharp``, the
            smallest that the proof gives, infinite where the proof ends.

    Returns:
        The bound with its two parts.

    Raises:
        InvalidValueError: As :func:`phases`.

    Warns:
        ValidityWarning: If the step is larger than the proof allows, or the rate grows too fast
            for the batch, see :func:`rate_may_grow`.

    Assumes:
        Examples drawn independently; without replacement a pass has less noise.

    Source:
        kamo2025, lemma; umeda2024, lemma, for SGD; QHM and changing rates derived here.

    Example:
        >>> from batchlab.schedules import batch_schedule
        >>> problem = Problem(smoothness=1.0, noise=4.0, gap=2.0)
        >>> plan = Plan(Step.of("sgd", 0.5), batch_schedule(8))
        >>> bound(problem, plan, samples=800), bound(problem, plan, 800, "sharp").value
        (Bound(value=0.58, start=0.08, noise=0.5, updates=100, proved=True), 0.22)
    """
    _warn_of_rates(plan, samples)
    found = evaluated(problem, sums(plan, samples), form)
    if not found.proved:
        most = largest_step("nshb", problem.smoothness, plan.step.momentum, plan.step.nu, form)
        _warn(f"the {form} is proved for rates up to {most:.3g} (of the mean gradient)")
    return found


def evaluated(problem: Problem, found: Sums, form: Form = "lemma") -> Bound:
    """The bound from its sums; silent, for many draws of L, σ² and Δ.

    Args:
        problem: L, σ² and Δ.
        found: Of :func:`sums`.
        form: See :func:`bound`.
    """
    if form == "sharp":
        return _sharp(problem, found)
    start = 2 * problem.gap / found.path
    noise = 2 * problem.smoothness * problem.noise * (found.fresh + found.kept) / found.path
    return Bound(start + noise, start, noise, found.updates, _lemma_is_proved(problem, found))


def _lemma_is_proved(problem: Problem, found: Sums) -> bool:
    """Whether κ = 1/(√2 L max√r) leaves half of the descent and no more noise than the lemma has.

    The second holds by itself at a constant rate.
    """
    L, h, reach = problem.smoothness, found.largest, found.reach
    half = L * h / 2 + math.sqrt(2) * L * reach <= 0.5 * (1 + 1e-12)
    noise = not reach or math.sqrt(2) * found.kept_path / reach <= found.fresh + 2 * found.kept
    return half and noise


def _sharp(problem: Problem, found: Sums) -> Bound:
    """[Δ + Lσ²N₁/2 + κL²σ²N₂]/[Σh(1 − 1/2κ) − LΣh²/2 − κL²Σhr] at the best κ allowed.

    The ratio is quasi-convex in κ, so that the best κ is the root of a quadratic, or the end of
    the range in which no update's weight is negative.
    """
    L, r = problem.smoothness, found.reach**2
    room = 1 - L * found.largest / 2
    if room <= 0 or room**2 <= 2 * L**2 * r:
        return Bound(math.inf, math.inf, math.inf, found.updates, False)
    own = problem.noise * L * found.fresh / 2
    kept = problem.noise * L**2 * found.kept_path
    left = found.path - L * found.squares / 2
    if not r:
        return _of(problem.gap, own, left, found.updates)
    lost, N0, e = L**2 * found.signal, problem.gap + own, found.path
    slope = kept * left + lost * N0
    kappa = (e * kept + math.sqrt((e * kept) ** 2 + 2 * e * N0 * slope)) / (2 * slope or 1.0)
    root = math.sqrt(room**2 - 2 * L**2 * r)
    low, high = (room - root) / (2 * L**2 * r), (room + root) / (2 * L**2 * r)
    kappa = min(max(kappa, low), high)
    weight = left - e / (2 * kappa) - kappa * lost
    return _of(problem.gap, own + kappa * kept, weight, found.updates)


def _of(gap: float, noise: float, weight: float, updates: int) -> Bound:
    if weight <= 0:
        return Bound(math.inf, math.inf, math.inf, updates, False)
    return Bound((gap + noise) / weight, gap / weight, noise / weight, updates, True)


def constant_bound(problem: Problem, step: Step, batch_size: int, updates: int) -> Bound:
    """2Δ/(ηT) + (Lησ²/b)((3β²+β)/(2(1+β)) + 1): one batch size, NSHB or SHB.

    Its second part stays however long the training is. It lies below the lemma, whose factor is
    2/(1−β²) here, and within its range above the sharp form.

    Args:
        problem: L, σ² and Δ.
        step: With ν = 1, or without momentum.
        batch_size: b.
        updates: T.

    Raises:
        InvalidValueError: For QHM, for which the source has no such form.

    Warns:
        ValidityWarning: If η exceeds ``printed growing`` of :func:`largest_step`.

    Source:
        kamo2025, theorem for a constant batch size; for SGD its limit β → 0.

    Example:
        >>> problem = Problem(smoothness=1.0, noise=4.0, gap=2.0)
        >>> constant_bound(problem, Step.of("sgd", 0.125), 8, updates=1000).noise
        0.0625
    """
    _must_be_plain(step)
    beta, eta = step.momentum, step.learning_rate
    factor = (3 * beta**2 + beta) / (2 * (1 + beta)) + 1
    start = 2 * problem.gap / (eta * updates)
    noise = problem.smoothness * eta * problem.noise / batch_size * factor
    return _printed(problem, step, start, noise, updates)


def growing_bound(
    problem: Problem, step: Step, first: int, factor: float, updates: tuple[int, int]
) -> Bound:
    """2Δ/(ηT) + 2Lησ²K δ/((1−β²)(δ−1) b₀T): the batch is multiplied again and again.

    The source writes δ/(β²δ−1)·(β²/(1−β²) − 1/(δ−1)), which is the same and undefined at β²δ = 1.
    It lies above the lemma, which it meets for endless phases of K updates each.

    Args:
        problem: L, σ² and Δ.
        step: With ν = 1, or without momentum.
        first: b₀.
        factor: δ above 1.
        updates: (K, T): most updates of a phase (K_max E_max of the source), and of all phases.

    Raises:
        InvalidValueError: For QHM, or if the batch does not grow.

    Warns:
        ValidityWarning: If η exceeds ``printed growing`` of :func:`largest_step`.

    Source:
        kamo2025, theorem for a growing batch size; the bracket simplified here.

    Example:
        >>> problem = Problem(smoothness=1.0, noise=4.0, gap=2.0)
        >>> growing_bound(problem, Step.of("sgd", 0.125), 8, 2.0, updates=(100, 1000)).noise
        0.025
    """
    _must_be_plain(step)
    if not factor > 1:
        raise InvalidValueError(must("factor", "above 1", factor))
    most, total = updates
    start = 2 * problem.gap / (step.learning_rate * total)
    series = factor / ((1 - step.momentum**2) * (factor - 1))
    scale = 2 * problem.smoothness * step.learning_rate * problem.noise
    return _printed(problem, step, start, scale * most * series / (first * total), total)


def _printed(problem: Problem, step: Step, start: float, noise: float, updates: int) -> Bound:
    most = largest_step("nshb", problem.smoothness, step.momentum, form="printed growing")
    proved = step.learning_rate <= most * (1 + 1e-12)
    if not proved:
        _warn(f"the theorem is proved for rates up to {most:.3g} (of the mean gradient)")
    return Bound(start + noise, start, noise, updates, proved)


def _must_be_plain(step: Step) -> None:
    if step.momentum and step.nu != 1:
        hint = "Use bound, which holds for QHM."
        raise InvalidValueError(must("nu", "1 for this theorem", step.nu, hint))


def largest_step(
    rule: Rule,
    smoothness: float,
    momentum: float = 0.9,
    nu: float = 0.7,
    form: Condition = "lemma",
) -> float:
    """Largest learning rate, in the rule's own unit, for which a bound is proved.

    ``lemma``: 1/(L(1 + 2ρ√2)) with ρ = νβ/(1−β). ``sharp``: twice that, itself excluded.
    ``printed constant``: (1−β)/(2√2 √(β+β²) L), which alone does not suffice: at β → 0 it allows
    any rate. ``printed growing``: the smaller of that and (1−β)²/((5β²−6β+5)L); the source prints
    max where its proof needs min, and it proves both theorems.

    Args:
        rule: Whose unit; for SHB it is (1−β) times that of NSHB.
        smoothness: L.
        momentum: β; SGD has none.
        nu: ν, of QHM alone.
        form: Which condition.

    Raises:
        InvalidValueError: As :meth:`Step.of`.

    Source:
        ``printed``: kamo2025; the others derived here. For SGD ``sharp`` is umeda2024's 2/L.

    Example:
        >>> largest_step("sgd", 2.0, form="sharp"), round(largest_step("nshb", 1.0), 4)
        (1.0, 0.0378)
        >>> round(largest_step("nshb", 1.0, form="printed growing"), 5)
        0.00274
    """
    step = Step.of(rule, 1.0, momentum, nu)
    beta, unit = step.momentum, step.learning_rate * smoothness
    if form in ("lemma", "sharp"):
        most = 1 / (1 + 2 * math.sqrt(2) * step.reach)
        return (2 * most if form == "sharp" else most) / unit
    first = (1 - beta) / (2 * math.sqrt(2 * (beta + beta**2))) if beta else math.inf
    if form == "printed constant":
        return first / unit
    return min(first, (1 - beta) ** 2 / (5 * beta**2 - 6 * beta + 5)) / unit


# ------------------------------------------------------------------ growing the rate, too


def rate_may_grow(batch_factor: float, rate_factor: float) -> bool:
    """γ < √δ: whether the rate, multiplied by γ when the batch is by δ, stays within the theorem.

    It keeps Ση²/b finite over phases of equally many updates. What is left of the gradient follows
    η/b, so that γ < δ may do in practice, as long as the rate stays below ``largest_step``.

    Args:
        batch_factor: δ, above 0.
        rate_factor: γ, 0 or more.

    Source:
        umeda2024.

    Example:
        >>> rate_may_grow(4.0, 1.9), rate_may_grow(4.0, 2.0)
        (True, False)
    """
    return rate_factor < math.sqrt(batch_factor)


def _warn_of_rates(plan: Plan, samples: int) -> None:
    """Compare what rate and batch are multiplied by, from the start of a phase to the next."""
    if plan.rates is None:
        return
    starts = [int(step.start.value * UNITS[step.start.unit]) for step in plan.batches.steps]
    seen = [
        (size, plan.rates(min(1.0, s / samples)))
        for s, size in zip(starts, plan.batches.sizes, strict=True)
    ]
    for (size, rate), (larger, next_rate) in itertools.pairwise(seen):
        rises = rate > 0 and next_rate > rate
        if rises and not rate_may_grow(larger / size, next_rate / rate):
            _warn(
                f"the rate grows by {next_rate / rate:.3g} where the batch grows by "
                f"{larger / size:.3g}; proved is less than its square root"
            )


def _warn(sentence: str) -> None:
    warnings.warn(f"Outside the proved range: {sentence}.", ValidityWarning, stacklevel=3)


# ------------------------------------------------------------------ ranking


def ranked(
    problem: Problem, plans: Mapping[str, Plan], samples: int, form: Form = "lemma"
) -> tuple[Ranked, ...]:
    """Schedules in the order of their bounds at equal samples, the best first.

    A bound ranks guarantees, not trainings: where two lie close, or far above what is measured,
    their order says little.

    Args:
        problem: L, σ² and Δ.
        plans: Name → training; at least one.
        samples: Budget of each.
        form: See :func:`bound`.

    Returns:
        Records with the number of updates of each.

    Raises:
        InvalidValueError: If there is no plan, and as :func:`phases`.

    Warns:
        ValidityWarning: As :func:`bound`.

    Example:
        >>> from batchlab.schedules import batch_schedule
        >>> problem, step = Problem(1.0, 100.0, 1.0), Step.of("nshb", 0.03)
        >>> plans = {s: Plan(step, batch_schedule(s)) for s in ("8", "0:8 4k:64")}
        >>> [(one.name, one.bound.updates) for one in ranked(problem, plans, 8000)]
        [('0:8 4k:64', 562), ('8', 1000)]
    """
    if not plans:
        raise InvalidValueError(must("plans", "at least one schedule", plans))
    found = [Ranked(name, bound(problem, plan, samples, form)) for name, plan in plans.items()]
    return tuple(sorted(found, key=lambda one: one.bound.value))
