r"""Which learning rates train at a feature strength γ: a deep linear model of one parameter.

    f(w) = (w^L − 1)/γ,  w(0) = 1,  w ← w − η dℓ/dw,

ℓ = (f − 1)²/2, or cross-entropy with a share q of positive labels,
ℓ = −q ln σ(f) − (1−q) ln σ(−f). The output is centred and divided by γ: small γ is lazy, since
w hardly moves, large γ is rich. With f* the best output, 1 or ln q/(1−q), and p = w^L = 1 + γf,

    w* = (1 + γf*)^{1/L},   d²ℓ/dw² = ℓ''(f) L²w^{2L−2}/γ² + ℓ'(f) L(L−1)w^{L−2}/γ,

    time to an output f, η t = (γ²/L²) ∫₀^f df / [−ℓ'(f) (1 + γf)^{2−2/L}].

So learning takes γ²/η when lazy and γ/η when rich, the curvature at the minimum is γ^{−2} and
γ^{−2/L}, and a budget of T updates leaves the band γ/T < η < γ^{2/L}, which for L > 2 closes.

Two parameters, f = (uv − u₀v₀)/γ, are the fewest with minima of different curvature, between
which a catapult moves.

Source: atanasov2025 for the regimes and lewkowycz2020 for catapults; bounds and constants are
derived here.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from scipy import integrate, optimize

from batchlab.errors import InvalidValueError, ValidityWarning, must

Loss: TypeAlias = Literal["squared", "cross-entropy"]
LOSSES: tuple[Loss, ...] = ("squared", "cross-entropy")
Regime: TypeAlias = Literal["lazy", "rich", "budget"]
LAZY, RICH = 0.1, 10.0
"""γ up to which, and from which on, a leading order is used without a warning."""


class Exponents(NamedTuple):
    """Powers of γ with which the best learning rate moves.

    Attributes:
        lazy: γ ≪ 1.
        rich: γ ≫ 1, while the budget allows it.
        budget: γ ≫ 1, where learning takes the whole budget.
    """

    lazy: float
    rich: float
    budget: float


class Band(NamedTuple):
    """Learning rates between which a budget suffices and the minimum is stable.

    Attributes:
        low: Smallest.
        high: Largest; below ``low``, nothing trains.
    """

    low: float
    high: float

    @property
    def open(self) -> bool:
        """Whether any rate trains.

        Example:
            >>> Band(1.0, 2.0).open
            True
        """
        return self.low < self.high


def exponents(depth: int) -> Exponents:
    """η* ∝ γ², γ^{2/L} and γ.

    Args:
        depth: L, linear layers, at least 1.

    Source:
        atanasov2025.

    Example:
        >>> exponents(4)
        Exponents(lazy=2.0, rich=0.5, budget=1.0)
    """
    return Exponents(2.0, 2.0 / _depth(depth), 1.0)


def closing(depth: int, updates: float) -> float:
    """γ beyond which no rate trains within a budget: [2(L−2)T/L]^{L/(L−2)}.

    There γ/(L(L−2)T), the smallest rate at γ ≫ 1, meets 2γ^{2/L}/L², the largest.

    Args:
        depth: L.
        updates: T, at least 1.

    Returns:
        Infinite for L ≤ 2.

    Warns:
        ValidityWarning: If the answer is below 10, where γ ≫ 1 does not hold.

    Source:
        derived here, for squared error.

    Example:
        >>> closing(4, updates=100), closing(2, updates=100)
        (10000.0, inf)
    """
    if _depth(depth) <= 2:
        return math.inf
    found = (2 * (depth - 2) * _updates(updates) / depth) ** (depth / (depth - 2))
    if found < RICH:
        _outside(f"the band closes at γ = {found:.3g}, and the formula needs γ ≥ {RICH:g}")
    return found


def regime(gamma: float, depth: int, updates: float, loss: Loss = "squared") -> Regime:
    """Which of the three exponents holds at γ.

    The budget binds where training at the largest stable rate takes a third of it or more.

    Args:
        gamma: γ, above 0.
        depth: L.
        updates: T.
        loss: Which loss.

    Example:
        >>> [regime(gamma, 3, updates=300) for gamma in (0.01, 10, 1e7)]
        ['lazy', 'rich', 'budget']
    """
    model = DeepLinear(depth, loss)
    if 3 * model.time_to(gamma) > updates * model.stable_rate(gamma):
        return "budget"
    return "lazy" if gamma < 1 else "rich"


@dataclass(frozen=True)
class DeepLinear:
    """f = (w^L − 1)/γ under a loss.

    Attributes:
        depth: L, at least 1.
        loss: ``squared``, (f − 1)²/2, or ``cross-entropy``.
        share: q, positive labels as a share of all, in (½, 1); of cross-entropy alone.

    Example:
        >>> DeepLinear(2).minimum(gamma=3.0)
        2.0
    """

    depth: int
    loss: Loss = "squared"
    share: float = 0.9

    def __post_init__(self) -> None:
        _depth(self.depth)
        if self.loss not in LOSSES:
            raise InvalidValueError(must("loss", f"one of {', '.join(LOSSES)}", self.loss))
        if not 0.5 < self.share < 1:
            raise InvalidValueError(must("share", "in (½, 1)", self.share))

    @property
    def best_output(self) -> float:
        """f*: 1, or ln q/(1−q)."""
        return 1.0 if self.loss == "squared" else math.log(self.share / (1 - self.share))

    def output(self, w: float, gamma: float) -> float:
        """F = (w^L − 1)/γ."""
        return (w**self.depth - 1) / _gamma(gamma)

    def force(self, output: float) -> float:
        """ℓ'(f): f − 1, or σ(f) − q."""
        return output - 1 if self.loss == "squared" else _sigmoid(output) - self.share

    def stiffness(self, output: float) -> float:
        """ℓ''(f): 1, or σ(1−σ)."""
        if self.loss == "squared":
            return 1.0
        return _sigmoid(output) * _sigmoid(-output)

    def gradient(self, w: float, gamma: float) -> float:
        """dℓ/dw = ℓ'(f) L w^{L−1}/γ."""
        L = self.depth
        return self.force(self.output(w, gamma)) * L * w ** (L - 1) / gamma

    def minimum(self, gamma: float) -> float:
        """w* = (1 + γf*)^{1/L}."""
        return (1 + _gamma(gamma) * self.best_output) ** (1 / self.depth)

    def curvature(self, w: float, gamma: float) -> float:
        """d²ℓ/dw² = ℓ'' L²w^{2L−2}/γ² + ℓ' L(L−1)w^{L−2}/γ.

        Example:
            >>> DeepLinear(3).curvature(1.0, gamma=2.0)
            -0.75
        """
        L, f = self.depth, self.output(w, gamma)
        fast = self.stiffness(f) * (L * w ** (L - 1) / gamma) ** 2
        return fast + self.force(f) * L * (L - 1) * w ** max(L - 2, 0) / gamma

    def start_curvature(self, gamma: float) -> float:
        """ℓ''(0) L²/γ² + ℓ'(0) L(L−1)/γ; for squared error negative from γ = L/(L−1) on.

        Where it is below that of the minimum, sharpness must grow during training.

        Example:
            >>> DeepLinear(2).start_curvature(2.0)
            0.0
        """
        return self.curvature(1.0, gamma)

    def end_curvature(self, gamma: float) -> float:
        """ℓ''(f*) L²(1 + γf*)^{2−2/L}/γ²: ∝ γ^{−2} for γ ≪ 1, γ^{−2/L} for γ ≫ 1.

        Example:
            >>> DeepLinear(2).end_curvature(3.0) * 9
            16.0
        """
        L, best = self.depth, self.best_output
        grown = (1 + _gamma(gamma) * best) ** (2 - 2 / L)
        return self.stiffness(best) * L**2 * grown / gamma**2

    def stable_rate(self, gamma: float) -> float:
        """η_max = 2/curvature at the minimum: above it, the minimum repels.

        Args:
            gamma: γ, above 0.

        Returns:
            η, per update. ∝ γ² for γ ≪ 1 and γ^{2/L} for γ ≫ 1 with either loss.

        Example:
            >>> round(DeepLinear(2).stable_rate(3.0), 3)
            1.125
        """
        return 2 / self.end_curvature(gamma)

    def start_rate(self, gamma: float) -> float:
        """η_crit = 2/curvature at the start: above it, the first updates move away; catapults.

        Returns:
            η; infinite where the curvature at the start is not positive.

        Example:
            >>> DeepLinear(2).start_rate(5.0)
            inf
        """
        found = self.start_curvature(gamma)
        return 2 / found if found > 0 else math.inf

    def bounded_rate(self, gamma: float) -> float:
        """η below which cross-entropy can not diverge, stable or not.

        ∝ γ if lazy and γ^{2/L} if rich: |ℓ'| ≤ q, so that with c = ηL/γ no update from |w| ≤ w*
        ends beyond W = w* + cq w*^{L−1}, and none from |w| ≤ W does as long as cq W^{L−2} ≤ 2.

        Args:
            gamma: γ, above 0.

        Returns:
            The largest η with cq W^{L−2} ≤ 2. Sufficient; for L = 2 divergence starts at γ/(1−q).

        Raises:
            InvalidValueError: Under squared error, where ℓ' has no bound.

        Source:
            derived here; its scale in the lazy regime is atanasov2025's.

        Example:
            >>> round(DeepLinear(2, "cross-entropy", share=0.8).bounded_rate(0.01), 6)
            0.0125
        """
        if self.loss == "squared":
            raise InvalidValueError(
                must("loss", "cross-entropy, whose slope is bounded", self.loss)
            )
        L, q, w = self.depth, self.share, self.minimum(gamma)
        if L == 1:
            return math.inf

        def excess(c: float) -> float:
            return c * q * (w + c * q * w ** (L - 1)) ** (L - 2) - 2

        most = 2 / (q * w ** (L - 2))
        c = most if L == 2 else optimize.root_scalar(excess, bracket=(0.0, most)).root
        return float(c) * gamma / L

    def time_to(self, gamma: float, learned: float = 0.5) -> float:
        """η t at which gradient flow has reached a share of the best output.

        Args:
            gamma: γ, above 0.
            learned: f/f*, in (0, 1).

        Returns:
            (γ²/L²) ∫ df/[−ℓ'(f)(1 + γf)^{2−2/L}]. For squared error (γ²/L²) ln 1/(1−f) if lazy,
            γ/(L(L−2)) if rich and L > 2, and (γ/4) ln γf/(1−f) for L = 2.

        Example:
            >>> round(DeepLinear(3).time_to(1e-6) / 1e-12, 4), round(math.log(2) / 9, 4)
            (0.077, 0.077)
        """
        if not 0 < learned < 1:
            raise InvalidValueError(must("learned", "in (0, 1)", learned))
        power, end = 2 - 2 / self.depth, learned * self.best_output
        # ln(1 + γf) as the variable: the integrand is smooth over all scales of γ.
        scale = (_gamma(gamma) / self.depth) ** 2 / gamma

        def slowness(s: float) -> float:
            return math.exp((1 - power) * s) / -self.force(math.expm1(s) / gamma)

        found, _ = integrate.quad(slowness, 0.0, math.log1p(gamma * end), limit=200)
        return scale * found

    def smallest_rate(self, gamma: float, updates: float, learned: float = 0.5) -> float:
        """η_min: at it, gradient flow reaches a share of the best output within T updates.

        Args:
            gamma: γ, above 0.
            updates: T, at least 1.
            learned: f/f*, in (0, 1).

        Returns:
            ``time_to``/T: ∝ γ²/T if lazy, γ/T if rich.

        Warns:
            ValidityWarning: If it exceeds η_max, where updates do not follow gradient flow.

        Example:
            >>> round(DeepLinear(3).smallest_rate(100.0, updates=300), 3)
            0.09
        """
        found = self.time_to(gamma, learned) / _updates(updates)
        if found > self.stable_rate(gamma):
            _outside(f"γ = {gamma:g} leaves no stable rate that learns in {updates:g} updates")
        return found

    def band(self, gamma: float, updates: float, learned: float = 0.5) -> Band:
        """From η_min to η_max.

        Args:
            gamma: γ, above 0.
            updates: T, at least 1.
            learned: f/f*, in (0, 1).

        Example:
            >>> DeepLinear(3).band(1.0, updates=300).open, DeepLinear(3).band(1e9, 300).open
            (True, False)
        """
        return Band(self.time_to(gamma, learned) / _updates(updates), self.stable_rate(gamma))


class Pair(NamedTuple):
    """The two parameters of f = (uv − u₀v₀)/γ.

    Attributes:
        u: First layer.
        v: Second layer.
    """

    u: float
    v: float

    def kernel(self, gamma: float) -> float:
        """λ = (u² + v²)/γ², the neural tangent kernel; at a minimum, the curvature.

        Example:
            >>> Pair(1.0, 1.0).kernel(0.5)
            8.0
        """
        return (self.u**2 + self.v**2) / _gamma(gamma) ** 2

    def update(self, output: float, gamma: float, rate: float) -> Pair:
        """A step down (f − 1)²/2: u ← u − η(f−1)v/γ, v ← v − η(f−1)u/γ, both at once.

        Example:
            >>> Pair(1.0, 2.0).update(output=0.0, gamma=2.0, rate=1.0)
            Pair(u=2.0, v=2.5)
        """
        step = rate * (output - 1) / gamma
        return Pair(self.u - step * self.v, self.v - step * self.u)


def catapult_rates(start: Pair, gamma: float) -> Band:
    """Rates at which the loss first grows and then falls into a flatter minimum: 2/λ₀ to 4/λ₀.

    At γ ≪ 1, f grows to 1/γ before anything moves, and then λ changes by η(f−1)²(ηλ − 4)/γ² an
    update: downwards if ηλ < 4. Starting at u = v there is no flatter minimum to go to.

    Args:
        start: u₀ and v₀, one of which is 0 for the statement to be exact.
        gamma: γ, above 0.

    Warns:
        ValidityWarning: If γ exceeds 0.1.

    Source:
        lewkowycz2020.

    Example:
        >>> catapult_rates(Pair(2.0, 0.0), gamma=0.1).high
        0.010000000000000002
    """
    if gamma > LAZY:
        _outside(f"γ = {gamma:g}, and catapults are derived for γ ≤ {LAZY:g}")
    found = start.kernel(gamma)
    return Band(2 / found, 4 / found)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _depth(depth: int) -> int:
    if depth < 1:
        raise InvalidValueError(must("depth", "a whole number, 1 or more", depth))
    return depth


def _gamma(gamma: float) -> float:
    if not 0 < gamma < math.inf:
        raise InvalidValueError(must("gamma", "finite and above 0", gamma))
    return gamma


def _updates(updates: float) -> float:
    if updates < 1:
        raise InvalidValueError(must("updates", "1 or more", updates))
    return updates


def _outside(sentence: str) -> None:
    warnings.warn(f"Outside the proved range: {sentence}.", ValidityWarning, stacklevel=3)
