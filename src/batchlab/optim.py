"""SHB, NSHB and QHM as ``torch.optim`` optimizers, for the user's own loop.

Plumbing only: the equations are those of :mod:`batchlab.rules`. Each optimizer also has one
in-place form over all parameters at once (``foreach=True``), which a test holds equal to the pure
one.
"""

# The _foreach functions are what torch.optim itself is made of; they have no public name.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.rules import RULES, Numbers, Rule, Velocity

Group = dict[str, Any]
"""One of ``param_groups``."""


class _VelocityOptimizer(torch.optim.Optimizer, abc.ABC):
    """What the three share: groups, closures, one velocity for each parameter."""

    rule: ClassVar[Rule]

    @staticmethod
    @abc.abstractmethod
    def _step_in_place(
        params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        """Update all parameters of a group by the rule; overwrites ``params`` and ``velocity``."""

    def add_param_group(self, param_group: Group) -> None:
        """Add parameters with numbers of their own.

        Args:
            param_group: ``params`` and any of the keyword arguments of the optimizer.

        Raises:
            InvalidValueError: If a number is outside its range.
        """
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: Computes the loss and its gradients anew; called once, with gradients enabled.

        Returns:
            What the closure returned, or None.

        Raises:
            InvalidTypeError: If a gradient is sparse. No parameter has then been changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_sparse()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                grads = [cast(Tensor, p.grad) for p in params]
                velocity = [self._velocity(p) for p in params]
                step = self._step_in_place if group["foreach"] else self._step_pure
                step(params, grads, velocity, group)
        return loss

    def _step_pure(
        self, params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        state = Velocity(_named(velocity))
        delta, after = self.rule.update(_named(grads), state, _named(params), _numbers(group))
        for i, (param, v) in enumerate(zip(params, velocity, strict=True)):
            param.add_(delta[str(i)])
            v.copy_(after.velocity[str(i)])

    def _velocity(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(param)
        return state["velocity"]

    def _refuse_sparse(self) -> None:
        grads = (p.grad for group in self.param_groups for p in group["params"])
        if any(g is not None and g.layout != torch.strided for g in grads):
            hint = "Make the embedding with `sparse=False`."
            name = f"{type(self).__name__}'s gradients"
            raise InvalidTypeError(must(name, "dense", "a sparse gradient", hint))


class SHB(_VelocityOptimizer):
    """Stochastic heavy ball: g ← g + λθ,  v ← βv + g,  θ ← θ − αv. PyTorch's SGD with momentum.

    Args:
        params: Parameters, or groups of them.
        lr: α ≥ 0. NSHB takes the same steps at α/(1−β).
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0, added to the gradient as λθ.
        foreach: Update all parameters of a group at once, in place; else leaf by leaf by the pure
            definition. Equal up to round-off.

    Raises:
        InvalidValueError: If a number is outside its range.

    Source:
        polyak1964.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(()))
        >>> optimizer = SHB([weight], lr=0.5, momentum=0.5)
        >>> for _ in range(2):
        ...     weight.grad = torch.ones(())
        ...     optimizer.step()
        >>> weight.item()
        -0.25
    """

    rule = RULES["shb"]

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        foreach: bool = True,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**numbers, "foreach": foreach})

    @staticmethod
    def _step_in_place(
        params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        g = _decayed(grads, params, group)
        torch._foreach_mul_(velocity, float(group["momentum"]))
        torch._foreach_add_(velocity, g)
        torch._foreach_add_(params, velocity, alpha=-float(group["lr"]))


class NSHB(_VelocityOptimizer):
    """Normalised heavy ball: g ← g + λθ,  v ← βv + (1−β)g,  θ ← θ − ηv.

    Args:
        params: Parameters, or groups of them.
        lr: η ≥ 0. SHB takes the same steps at (1−β)η.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0, added to the gradient as λθ.
        foreach: As in :class:`SHB`.

    Raises:
        InvalidValueError: If a number is outside its range.

    Source:
        kamo2025.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(()))
        >>> weight.grad = torch.ones(())
        >>> NSHB([weight], lr=1.0, momentum=0.5).step()
        >>> weight.item()
        0.5
    """

    rule = RULES["nshb"]

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        *,
        foreach: bool = True,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**numbers, "foreach": foreach})

    @staticmethod
    def _step_in_place(
        params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        _average_in_place(velocity, _decayed(grads, params, group), group)
        torch._foreach_add_(params, velocity, alpha=-float(group["lr"]))


class QHM(_VelocityOptimizer):
    """Quasi-hyperbolic momentum: g ← g + λθ,  v ← βv + (1−β)g,  θ ← θ − α((1−ν)g + νv).

    Args:
        params: Parameters, or groups of them.
        lr: α ≥ 0.
        momentum: β in [0, 1).
        nu: ν in [0, 1]: 1 is NSHB, 0 is SGD.
        weight_decay: λ ≥ 0, added to the gradient as λθ.
        foreach: As in :class:`SHB`.

    Raises:
        InvalidValueError: If a number is outside its range.

    Source:
        ma2019.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(()))
        >>> weight.grad = torch.ones(())
        >>> QHM([weight], lr=1.0, momentum=0.5, nu=0.5).step()
        >>> weight.item()
        0.25
    """

    rule = RULES["qhm"]

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        momentum: float = 0.9,
        nu: float = 0.7,
        weight_decay: float = 0.0,
        *,
        foreach: bool = True,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "nu": nu, "weight_decay": weight_decay}
        super().__init__(params, {**numbers, "foreach": foreach})

    @staticmethod
    def _step_in_place(
        params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        g, rate, nu = _decayed(grads, params, group), float(group["lr"]), float(group["nu"])
        _average_in_place(velocity, g, group)
        torch._foreach_add_(params, g, alpha=-rate * (1.0 - nu))
        torch._foreach_add_(params, velocity, alpha=-rate * nu)


def _descend_in_place(
    params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
) -> None:
    """θ ← θ − α(g + λθ)."""
    torch._foreach_add_(params, _decayed(grads, params, group), alpha=-float(group["lr"]))


IN_PLACE: dict[str, Callable[[list[Tensor], list[Tensor], list[Tensor], Group], None]] = {
    "sgd": _descend_in_place,
    "shb": SHB._step_in_place,
    "nshb": NSHB._step_in_place,
    "qhm": QHM._step_in_place,
}
"""Rule → ``(params, grads, velocity, group)``: its update of all parameters at once, overwriting
``params`` and ``velocity`` (none for sgd); ``group`` holds lr, momentum, weight_decay and nu."""


def _decayed(grads: list[Tensor], params: list[Tensor], group: Group) -> list[Tensor]:
    """The gradients g + λθ; those given stay as they are."""
    decay = float(group["weight_decay"])
    return list(torch._foreach_add(grads, params, alpha=decay)) if decay else grads


def _average_in_place(velocity: list[Tensor], g: list[Tensor], group: Group) -> None:
    """The running mean v ← βv + (1−β)g."""
    momentum = float(group["momentum"])
    torch._foreach_mul_(velocity, momentum)
    torch._foreach_add_(velocity, g, alpha=1.0 - momentum)


def _named(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {str(i): tensor.detach() for i, tensor in enumerate(tensors)}


def _numbers(group: Group) -> Numbers:
    # float64 scalars of no dimension leave the parameters' own precision as it is.
    return Numbers.of(
        learning_rate=float(group["lr"]),
        momentum=float(group["momentum"]),
        weight_decay=float(group["weight_decay"]),
        nu=float(group.get("nu", 0.0)),
        dtype=torch.float64,
    )


def _check(group: Group) -> None:
    """Refuse numbers with which the rule means nothing."""
    for name in ("lr", "weight_decay"):
        if not 0.0 <= group[name] < math.inf:
            raise InvalidValueError(must(name, "a finite number, 0 or more", group[name]))
    if not 0.0 <= group["momentum"] < 1.0:
        raise InvalidValueError(must("momentum", "in [0, 1)", group["momentum"]))
    if not 0.0 <= group.get("nu", 0.0) <= 1.0:
        raise InvalidValueError(must("nu", "in [0, 1]", group["nu"]))
