"""SHB, NSHB and QHM as ``torch.optim`` optimizers, and schedulers counted in samples.

Plumbing only: the equations are those of :mod:`batchlab.rules`. Each optimizer also has one
in-place form over all parameters at once (``foreach=True``), which a test holds equal to the pure
one.
"""

# The _foreach functions are what torch.optim itself is made of; they have no public name.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.optimizer import ParamsT

from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError, must
from batchlab.rules import RULES, Numbers, Rule, Velocity
from batchlab.schedules import BatchSchedule, batch_schedule

Group = dict[str, Any]
"""One of ``param_groups``."""

_NUMBERS = frozenset({"lr", "momentum", "weight_decay", "nu"})


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
        _keep_on_device(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            _keep_on_device(group)

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
        # All groups are looked at before the first is changed.
        found = [self._found(group["params"]) for group in self.param_groups]
        for group, tensors in zip(self.param_groups, found, strict=True):
            if tensors[0]:
                step = self._step_in_place if group["foreach"] else self._step_pure
                step(*tensors, _numbers_of(group))
        return loss

    def _step_pure(
        self, params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        state = Velocity(_named(velocity))
        delta, after = self.rule.update(_named(grads), state, _named(params), _numbers(group))
        for i, (param, v) in enumerate(zip(params, velocity, strict=True)):
            param.add_(delta[str(i)])
            v.copy_(after.velocity[str(i)])

    def _found(self, parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The parameters that have a gradient, their gradients, and their velocities."""
        params, grads, velocity, states = [], [], [], self.state
        for param in parameters:
            grad = param.grad
            if grad is None:
                continue
            if grad.layout is not torch.strided:
                hint = "Make the embedding with `sparse=False`."
                name = f"{type(self).__name__}'s gradients"
                raise InvalidTypeError(must(name, "dense", "a sparse gradient", hint))
            state = states[param]
            if not state:
                state["velocity"] = torch.zeros_like(param)
            params.append(param)
            grads.append(grad)
            velocity.append(state["velocity"])
        return params, grads, velocity


class SHB(_VelocityOptimizer):
    """Stochastic heavy ball: g ← g + λθ,  v ← βv + g,  θ ← θ − αv. PyTorch's SGD with momentum.

    Args:
        params: Parameters, or groups of them.
        lr: α ≥ 0. NSHB takes the same steps at α/(1−β).
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0, added to the gradient as λθ.
        foreach: Update all parameters of a group at once, in place; else leaf by leaf by the pure
            definition. Equal up to round-off.
        capturable: Keep the numbers as tensors on the device of the parameters and never read them
            in a step, so that a step can be captured in a CUDA graph, and a graph that is replayed
            follows a learning-rate scheduler. As in torch.optim, update once before the capture.

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
        lr: float | Tensor,
        momentum: float | Tensor = 0.9,
        weight_decay: float | Tensor = 0.0,
        *,
        foreach: bool = True,
        capturable: bool = False,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, numbers | {"foreach": foreach, "capturable": capturable})

    @staticmethod
    def _step_in_place(
        params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        _heavy_ball(params, _decayed(grads, params, group), velocity, group["lr"], group, 0.0)


class NSHB(_VelocityOptimizer):
    """Normalised heavy ball: g ← g + λθ,  v ← βv + (1−β)g,  θ ← θ − ηv.

    Args:
        params: Parameters, or groups of them.
        lr: η ≥ 0. SHB takes the same steps at (1−β)η.
        momentum: β in [0, 1).
        weight_decay: λ ≥ 0, added to the gradient as λθ.
        foreach: As in :class:`SHB`.
        capturable: As in :class:`SHB`.

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
        lr: float | Tensor,
        momentum: float | Tensor = 0.9,
        weight_decay: float | Tensor = 0.0,
        *,
        foreach: bool = True,
        capturable: bool = False,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, numbers | {"foreach": foreach, "capturable": capturable})

    @staticmethod
    def _step_in_place(
        params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        g = _decayed(grads, params, group)
        _heavy_ball(params, g, velocity, group["lr"], group, group["momentum"])


class QHM(_VelocityOptimizer):
    """Quasi-hyperbolic momentum: g ← g + λθ,  v ← βv + (1−β)g,  θ ← θ − α((1−ν)g + νv).

    Args:
        params: Parameters, or groups of them.
        lr: α ≥ 0.
        momentum: β in [0, 1).
        nu: ν in [0, 1]: 1 is NSHB, 0 is SGD.
        weight_decay: λ ≥ 0, added to the gradient as λθ.
        foreach: As in :class:`SHB`.
        capturable: As in :class:`SHB`.

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
        lr: float | Tensor,
        momentum: float | Tensor = 0.9,
        nu: float | Tensor = 0.7,
        weight_decay: float | Tensor = 0.0,
        *,
        foreach: bool = True,
        capturable: bool = False,
    ) -> None:
        numbers = {"lr": lr, "momentum": momentum, "nu": nu, "weight_decay": weight_decay}
        super().__init__(params, numbers | {"foreach": foreach, "capturable": capturable})

    @staticmethod
    def _step_in_place(
        params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
    ) -> None:
        g, rate, nu = _decayed(grads, params, group), group["lr"], group["nu"]
        _add_in_place(params, g, -rate * (1.0 - nu))
        _heavy_ball(params, g, velocity, rate * nu, group, group["momentum"])


def _descend_in_place(
    params: list[Tensor], grads: list[Tensor], velocity: list[Tensor], group: Group
) -> None:
    """θ ← θ − α(g + λθ)."""
    _add_in_place(params, _decayed(grads, params, group), -group["lr"])


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
    decay = group["weight_decay"]
    if isinstance(decay, Tensor):
        return list(torch._foreach_add(grads, torch._foreach_mul(params, decay)))
    return list(torch._foreach_add(grads, params, alpha=decay)) if decay else grads


def _heavy_ball(
    params: list[Tensor],
    g: list[Tensor],
    velocity: list[Tensor],
    rate: float | Tensor,
    group: Group,
    dampening: float | Tensor,
) -> None:
    """One step with damping d: v ← βv + (1−d)g,  θ ← θ − rate·v."""
    momentum = group["momentum"]
    if not isinstance(rate, Tensor) and momentum and _is_flat(params, g, velocity):
        # One pass over memory in place of three. It takes no velocity without momentum.
        torch._fused_sgd_(
            params,
            g,
            velocity,
            weight_decay=0.0,
            momentum=cast(float, momentum),
            lr=rate,
            dampening=cast(float, dampening),
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        return
    torch._foreach_mul_(velocity, momentum)
    _add_in_place(velocity, g, 1.0 - dampening)
    _add_in_place(params, velocity, -rate)


def _is_flat(*lists: list[Tensor]) -> bool:
    """Whether the kernel of ``torch.optim.SGD(fused=True)``, which goes through memory number by
    number whatever the strides, may be used on the processor.
    """
    return all(
        t.is_cpu and t.is_contiguous() and t.is_floating_point() for own in lists for t in own
    )


def _add_in_place(tensors: list[Tensor], others: list[Tensor], factor: float | Tensor) -> None:
    """Adds factor·y to x; a factor that is a tensor is not read, so that nothing waits for it."""
    if isinstance(factor, Tensor):
        torch._foreach_add_(tensors, torch._foreach_mul(others, factor))
    else:
        torch._foreach_add_(tensors, others, alpha=factor)


def _named(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {str(i): tensor.detach() for i, tensor in enumerate(tensors)}


def _keep_on_device(group: Group) -> None:
    """What a captured step reads: the numbers as tensors beside the parameters."""
    if not group.get("capturable") or not group["params"]:
        return
    formats, device = (p.dtype for p in group["params"]), group["params"][0].device
    wide = functools.reduce(torch.promote_types, formats, torch.float32)
    for name in _NUMBERS & group.keys():
        # Of its own: a scheduler writes into it.
        group[name] = torch.as_tensor(group[name], dtype=wide, device=device).clone()


def _numbers_of(group: Group) -> Group:
    """The numbers of a step: as they are where they must not be read, else as floats."""
    if group["capturable"]:
        return group
    return {name: float(group[name]) for name in _NUMBERS & group.keys()}


def _numbers(group: Group) -> Numbers:
    # float64 scalars of no dimension leave the parameters' own precision as it is.
    def scalar(name: str) -> Tensor:
        return torch.as_tensor(group.get(name, 0.0), dtype=torch.float64)

    zero = torch.zeros((), dtype=torch.float64)
    names = ("lr", "momentum", "weight_decay", "nu")
    return Numbers(*map(scalar, names), beta2=zero, eps=zero)


def _check(group: Group) -> None:
    """Refuse numbers with which the rule means nothing."""
    for name in _NUMBERS & group.keys():
        if isinstance(group[name], Tensor) and group[name].ndim:
            shape = f"a tensor {list(group[name].shape)}"
            raise InvalidValueError(must(name, "a number, or a tensor of shape []", shape))
    for name in ("lr", "weight_decay"):
        if not 0.0 <= group[name] < math.inf:
            raise InvalidValueError(must(name, "a finite number, 0 or more", group[name]))
    if not 0.0 <= group["momentum"] < 1.0:
        raise InvalidValueError(must("momentum", "in [0, 1)", group["momentum"]))
    if not 0.0 <= group.get("nu", 0.0) <= 1.0:
        raise InvalidValueError(must("nu", "in [0, 1]", group["nu"]))


class InSamples(LRScheduler):
    """Any learning-rate scheduler of torch, counted in samples instead of updates.

    A scheduler that is made for updates of b₀ examples stands, after s samples, where ⌊s/b₀⌋
    updates would have put it: whatever the batch size, and however it grows. It is stepped as
    often as that takes, so that it works for any scheduler, chained ones and those without a
    closed form too. With batches of b₀ it is that scheduler, bit for bit. A batch that runs across
    the last step of a ``OneCycleLR`` stops there; the next one is refused, as by torch.

    ``step(samples)`` after ``optimizer.step()`` says how many examples the update had, all
    processes together. With a schedule, ``step()`` is enough, as Lightning and other loops call
    it.

    Args:
        scheduler: Freshly made; it counts updates of ``samples_per_step`` examples, so that the
            length of a training is its samples / ``samples_per_step`` there.
        samples_per_step: b₀, examples, at least 1.
        schedule: Batch sizes of the updates, with positions in samples, such as ``"0:8 4096:16"``
            or a sampler's ``schedule`` where passes run on.
        reuse: Updates on each batch: ``step()`` counts a batch once, after its last use.

    Attributes:
        samples: Fresh examples so far.

    Raises:
        InvalidTypeError: If the scheduler follows a metric.
        InvalidValueError: If ``samples_per_step`` or ``reuse`` is below 1.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(()))
        >>> optimizer = SHB([weight], lr=1.0)
        >>> halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
        >>> scheduler = InSamples(halving, samples_per_step=8)
        >>> for _ in range(5):
        ...     optimizer.step()
        ...     scheduler.step(samples=16)
        >>> scheduler.get_last_lr()
        [0.5]
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        samples_per_step: int,
        schedule: int | str | BatchSchedule | None = None,
        reuse: int = 1,
    ) -> None:
        if isinstance(scheduler, ReduceLROnPlateau) or not isinstance(scheduler, LRScheduler):
            words = "a scheduler of torch.optim that follows the updates, not a metric"
            raise InvalidTypeError(must("scheduler", words, type(scheduler).__name__))
        for name, count in (("samples_per_step", samples_per_step), ("reuse", reuse)):
            if count < 1:
                raise InvalidValueError(must(name, "at least 1", count))
        # The base class would step the optimizer's rates once more.
        self.optimizer, self.scheduler = scheduler.optimizer, scheduler
        self.samples_per_step, self.samples = samples_per_step, 0
        self.schedule = batch_schedule(schedule) if isinstance(schedule, int | str) else schedule
        self.reuse, self._used = reuse, 0

    def step(self, samples: int | None = None) -> None:
        """Go on by the examples of one update.

        Args:
            samples: Their number, all processes together; by the schedule if left out.

        Raises:
            InvalidValueError: If it is negative, or left out without a schedule.
        """
        if samples is None and self.schedule is not None:
            self._used = (self._used + 1) % self.reuse
            samples = 0 if self._used else self.schedule.at(self.samples)
        if samples is None or samples < 0:
            hint = "It may be left out where `schedule` is given." if samples is None else ""
            raise InvalidValueError(must("samples", "the examples of an update", samples, hint))
        before = self.samples // self.samples_per_step
        self.samples += samples
        steps = self.samples // self.samples_per_step - before
        for _ in range(self._as_far_as_it_goes(steps)):
            self.scheduler.step()

    def _as_far_as_it_goes(self, steps: int) -> int:
        """Of torch's schedulers one has an end, which the last batch may run across."""
        if not isinstance(self.scheduler, OneCycleLR):
            return steps
        left = self.scheduler.total_steps - self.scheduler.last_epoch
        return left if 0 < left < steps else steps

    def get_last_lr(self) -> list[float | Tensor]:
        """The learning rate of each group."""
        return self.scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        counts = {"samples": self.samples, "samples_per_step": self.samples_per_step}
        return counts | {"used": self._used, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        Args:
            state_dict: What :meth:`state_dict` returned.

        Raises:
            ResultError: If it counted steps of another number of samples.
        """
        if state_dict["samples_per_step"] != self.samples_per_step:
            words = f"of a scheduler with samples_per_step = {self.samples_per_step}"
            raise ResultError(must("state_dict", words, state_dict["samples_per_step"]))
        self.samples, self._used = state_dict["samples"], state_dict["used"]
        self.scheduler.load_state_dict(state_dict["scheduler"])
