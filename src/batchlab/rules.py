"""Update rules as pure functions that read like their equations.

Each is written for one run; the engine maps it over runs with ``torch.func.vmap``. In every
equation g is the gradient, θ the parameter, α the learning rate, β the momentum, λ the weight
decay, and Δ what is added to θ. State starts at zero.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from batchlab import _tree as tree
from batchlab.errors import InvalidValueError, must
from batchlab.types import Params


class Numbers(NamedTuple):
    """What may differ between the runs of a cell.

    Scalar tensors of shape ``[]`` inside a rule, one entry of ``[R]`` each. In the precision of
    the parameters: a parameter of shape ``[]`` would otherwise take on theirs.

    Attributes:
        learning_rate: α ≥ 0; its unit is the rule's.
        momentum: β in [0, 1); Adam's β₁.
        weight_decay: λ ≥ 0, 1/update.
        nu: QHM's ν in [0, 1].
        beta2: Decay of the second moment, in [0, 1).
        eps: Added to the root of the second moment; unit of a gradient.

    Example:
        >>> Numbers.of(learning_rate=0.1).momentum
        tensor(0.)
    """

    learning_rate: Float[Tensor, ""]
    momentum: Float[Tensor, ""]
    weight_decay: Float[Tensor, ""]
    nu: Float[Tensor, ""]
    beta2: Float[Tensor, ""]
    eps: Float[Tensor, ""]

    @classmethod
    def of(
        cls,
        *,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nu: float = 0.7,
        beta2: float = 0.999,
        eps: float = 1e-8,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Numbers:
        """The same from Python numbers."""
        values = (learning_rate, momentum, weight_decay, nu, beta2, eps)
        return cls(*(torch.tensor(value, dtype=dtype, device=device) for value in values))


@dataclass(frozen=True)
class Scales:
    """A parameter's own numbers, as multiples of the run's.

    Attributes:
        learning_rate: Of the learning rate, 0 or more; 0 leaves the parameter as it is.
        weight_decay: Of the weight decay, 0 or more; 0 for what is not decayed.

    Example:
        >>> scaled = Scales(weight_decay=0.0).of(Numbers.of(learning_rate=0.5, weight_decay=0.1))
        >>> scaled.learning_rate.item(), scaled.weight_decay.item()
        (0.5, 0.0)
    """

    learning_rate: float = 1.0
    weight_decay: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InvalidValueError(must(f"Scales.{name}", "finite, 0 or more", value))

    def of(self, numbers: Numbers) -> Numbers:
        """The numbers of this parameter."""
        return numbers._replace(
            learning_rate=self.learning_rate * numbers.learning_rate,
            weight_decay=self.weight_decay * numbers.weight_decay,
        )


class NoState(NamedTuple):
    """A rule that remembers nothing."""


class Velocity(NamedTuple):
    """Sum or mean of past gradients; unit of a gradient."""

    velocity: Params


class Moments(NamedTuple):
    """Adam's memory: running means of the gradient and of its square, updates so far."""

    first: Params
    second: Params
    updates: Int64[Tensor, ""]


class ScaledVelocity(NamedTuple):
    """RMSprop's memory: running mean of the squared gradient, sum of past scaled gradients."""

    second: Params
    velocity: Params


class Grouped(NamedTuple):
    """What a rule remembers of each group of parameters."""

    states: tuple[Any, ...]


@dataclass(frozen=True)
class Rule:
    """An update rule.

    Attributes:
        name: What it is called in a RunConfig.
        init: ``params → state``.
        update: ``(grads, state, params, numbers) → (delta, state)`` for one run: pure, without
            Python numbers made of tensors, so that it can be mapped; ``delta`` is added to the
            parameters.
        uses: The fields of :class:`Numbers` it reads; the others have no effect.
        sgd_family: Whether, without weight decay, the step is linear in the gradients.
        groups: Parameters with numbers of their own; made by :func:`grouped`.
    """

    name: str
    init: Callable[[Params], Any]
    update: Callable[[Params, Any, Params, Numbers], tuple[Params, Any]]
    uses: frozenset[str]
    sgd_family: bool
    groups: Mapping[str, Scales] = field(default_factory=dict)


def sgd() -> Rule:
    """Stochastic gradient descent: g ← g + λθ,  Δ = −αg.

    Source: robbins1951.
    """

    def init(params: Params) -> NoState:
        return NoState()

    def update(
        grads: Params, state: NoState, params: Params, numbers: Numbers
    ) -> tuple[Params, NoState]:
        g = tree.axpy(numbers.weight_decay, params, grads)
        return tree.scale(-numbers.learning_rate, g), state

    return Rule("sgd", init, update, frozenset({"learning_rate", "weight_decay"}), True)


def shb() -> Rule:
    """Stochastic heavy ball, PyTorch's momentum: g ← g + λθ,  v ← βv + g,  Δ = −αv.

    Source: polyak1964.
    """

    def update(
        grads: Params, state: Velocity, params: Params, numbers: Numbers
    ) -> tuple[Params, Velocity]:
        g = tree.axpy(numbers.weight_decay, params, grads)
        v = tree.axpy(numbers.momentum, state.velocity, g)
        return tree.scale(-numbers.learning_rate, v), Velocity(v)

    return Rule("shb", _zero_velocity, update, _WITH_MOMENTUM, True)


def nshb() -> Rule:
    """Normalised heavy ball: g ← g + λθ,  v ← βv + (1−β)g,  Δ = −ηv.

    NSHB with rate η is SHB with rate (1−β)η.

    Source: kamo2025.
    """

    def update(
        grads: Params, state: Velocity, params: Params, numbers: Numbers
    ) -> tuple[Params, Velocity]:
        g = tree.axpy(numbers.weight_decay, params, grads)
        v = _mean(numbers.momentum, state.velocity, g)
        return tree.scale(-numbers.learning_rate, v), Velocity(v)

    return Rule("nshb", _zero_velocity, update, _WITH_MOMENTUM, True)


def qhm() -> Rule:
    """Quasi-hyperbolic momentum: g ← g + λθ,  v ← βv + (1−β)g,  Δ = −α((1−ν)g + νv).

    ν = 1 is NSHB, ν = 0 is SGD.

    Source: ma2019.
    """

    def update(
        grads: Params, state: Velocity, params: Params, numbers: Numbers
    ) -> tuple[Params, Velocity]:
        g = tree.axpy(numbers.weight_decay, params, grads)
        v = _mean(numbers.momentum, state.velocity, g)
        return tree.scale(-numbers.learning_rate, _mean(numbers.nu, v, g)), Velocity(v)

    return Rule("qhm", _zero_velocity, update, _WITH_MOMENTUM | {"nu"}, True)


def nesterov() -> Rule:
    """Nesterov's momentum as in PyTorch: g ← g + λθ,  v ← βv + g,  Δ = −α(g + βv).

    Source: sutskever2013.
    """

    def update(
        grads: Params, state: Velocity, params: Params, numbers: Numbers
    ) -> tuple[Params, Velocity]:
        g = tree.axpy(numbers.weight_decay, params, grads)
        v = tree.axpy(numbers.momentum, state.velocity, g)
        ahead = tree.axpy(numbers.momentum, v, g)
        return tree.scale(-numbers.learning_rate, ahead), Velocity(v)

    return Rule("nesterov", _zero_velocity, update, _WITH_MOMENTUM, True)


def adam() -> Rule:
    """Adam: g ← g + λθ, then m ← β₁m + (1−β₁)g,  s ← β₂s + (1−β₂)g²,  Δ = −α m̂/(√ŝ + ε).

    m̂ = m/(1−β₁ᵗ) and ŝ = s/(1−β₂ᵗ) at update t = 1, 2, …

    Source: kingma2015.
    """

    def update(
        grads: Params, state: Moments, params: Params, numbers: Numbers
    ) -> tuple[Params, Moments]:
        g = tree.axpy(numbers.weight_decay, params, grads)
        return _adam_step(g, state, numbers)

    return Rule("adam", _zero_moments, update, _WITH_SECOND_MOMENT, False)


def adamw() -> Rule:
    """Adam with decoupled weight decay: Δ = −αλθ − α m̂/(√ŝ + ε).

    Source: loshchilov2019.
    """

    def update(
        grads: Params, state: Moments, params: Params, numbers: Numbers
    ) -> tuple[Params, Moments]:
        step, state = _adam_step(grads, state, numbers)
        return tree.axpy(-numbers.learning_rate * numbers.weight_decay, params, step), state

    return Rule("adamw", _zero_moments, update, _WITH_SECOND_MOMENT, False)


def rmsprop() -> Rule:
    """RMSprop with momentum: g ← g + λθ,  s ← β₂s + (1−β₂)g²,  v ← βv + g/(√s + ε),  Δ = −αv.

    Source: tieleman2012.
    """

    def init(params: Params) -> ScaledVelocity:
        return ScaledVelocity(tree.zeros_like(params), tree.zeros_like(params))

    def update(
        grads: Params, state: ScaledVelocity, params: Params, numbers: Numbers
    ) -> tuple[Params, ScaledVelocity]:
        g = tree.axpy(numbers.weight_decay, params, grads)
        s = _mean(numbers.beta2, state.second, _square(g))
        scaled = tree.map(lambda g, s: g / (s.sqrt() + numbers.eps), g, s)
        v = tree.axpy(numbers.momentum, state.velocity, scaled)
        return tree.scale(-numbers.learning_rate, v), ScaledVelocity(s, v)

    return Rule("rmsprop", init, update, _WITH_SECOND_MOMENT, False)


def grouped(rule: Rule, groups: Mapping[str, Scales]) -> Rule:
    """The same rule with numbers of their own for some parameters, as in ``param_groups``.

    Every group of parameters is updated by the rule's one equation, and remembered for itself.

    Args:
        rule: A rule without groups.
        groups: Parameter → its scales; the others have the run's numbers.

    Returns:
        The rule; ``rule`` itself where every scale is 1.

    Example:
        >>> rule = grouped(sgd(), {"b": Scales(learning_rate=0.5)})
        >>> params = {"a": torch.ones(()), "b": torch.ones(())}
        >>> numbers = Numbers.of(learning_rate=1.0)
        >>> rule.update(params, rule.init(params), params, numbers)[0]
        {'a': tensor(-1.), 'b': tensor(-0.5000)}
    """
    own = {name: scales for name, scales in groups.items() if scales != Scales()}
    if not own:
        return rule

    def init(params: Params) -> Grouped:
        return Grouped(
            tuple(rule.init(_some(params, names)) for names in parts(params, own).values())
        )

    def update(
        grads: Params, state: Grouped, params: Params, numbers: Numbers
    ) -> tuple[Params, Grouped]:
        delta, after = {}, []
        for (scales, names), before in zip(parts(params, own).items(), state.states, strict=True):
            g, theta = _some(grads, names), _some(params, names)
            step, remembered = rule.update(g, before, theta, scales.of(numbers))
            delta |= step
            after.append(remembered)
        return delta, Grouped(tuple(after))

    return dataclasses.replace(rule, init=init, update=update, groups=own)


def parts(names: Iterable[str], groups: Mapping[str, Scales]) -> dict[Scales, list[str]]:
    """The groups that parameters fall into, in the order of their first members.

    Example:
        >>> parts("abc", {"b": Scales(weight_decay=0.0)})[Scales()]
        ['a', 'c']
    """
    if not groups:
        return {Scales(): list(names)}
    found: dict[Scales, list[str]] = {}
    for name in names:
        found.setdefault(groups.get(name, Scales()), []).append(name)
    return found


def _some(params: Params, names: list[str]) -> Params:
    return {name: params[name] for name in names}


_WITH_MOMENTUM = frozenset({"learning_rate", "momentum", "weight_decay"})
_WITH_SECOND_MOMENT = _WITH_MOMENTUM | {"beta2", "eps"}


def _zero_velocity(params: Params) -> Velocity:
    return Velocity(tree.zeros_like(params))


def _zero_moments(params: Params) -> Moments:
    updates = next(iter(params.values())).new_zeros((), dtype=torch.int64)
    return Moments(tree.zeros_like(params), tree.zeros_like(params), updates)


def _adam_step(g: Params, state: Moments, numbers: Numbers) -> tuple[Params, Moments]:
    """−α m̂/(√ŝ + ε), the part that Adam and AdamW share."""
    t = state.updates + 1
    m = _mean(numbers.momentum, state.first, g)
    s = _mean(numbers.beta2, state.second, _square(g))
    m_share, s_share = 1 - numbers.momentum**t, 1 - numbers.beta2**t
    rate = numbers.learning_rate / m_share
    step = tree.map(lambda m, s: -rate * m / ((s / s_share).sqrt() + numbers.eps), m, s)
    return step, Moments(m, s, t)


def _mean(share: Tensor, old: Params, new: Params) -> Params:
    """share·old + (1−share)·new, leaf by leaf."""
    return tree.axpy(share, old, tree.scale(1 - share, new))


def _square(g: Params) -> Params:
    return tree.map(lambda leaf: leaf * leaf, g)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (sgd(), shb(), nshb(), qhm(), nesterov(), adam(), adamw(), rmsprop())
}
"""Every rule by name."""


def is_sgd_family(name: str) -> bool:
    """Whether a rule's step is linear in the gradients, as the noise-scale theory assumes.

    Args:
        name: A name in :data:`RULES`.

    Returns:
        True for sgd, shb, nshb, qhm and nesterov.

    Raises:
        InvalidValueError: If there is no such rule.

    Example:
        >>> is_sgd_family("nshb"), is_sgd_family("adam")
        (True, False)
    """
    if name not in RULES:
        raise InvalidValueError(must("rule", f"one of {', '.join(RULES)}", name))
    return RULES[name].sgd_family
