"""The recipe in a user's optimizer and learning-rate scheduler, as fields of a RunConfig."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from batchlab import optim, schedules
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.rules import Scales
from batchlab.schedules import Point, RateSchedule

Group = dict[str, Any]
"""One of an optimizer's ``param_groups``."""

RATE_TOLERANCE = 1e-6
"""Of the peak: how near a schedule comes to every rate of the scheduler it stands for."""

LINE_TOLERANCE = 1e-4
"""The same where straight lines between points stand for a curve that has no name here."""

MOST_POINTS = 500
LEAST_DECIMALS, DECIMALS = 4, 16


# Optimizers


def _sgd(group: Group) -> dict[str, Any]:
    momentum = float(group["momentum"])
    rule = "nesterov" if group["nesterov"] else "shb" if momentum else "sgd"
    return {"rule": rule, "momentum": momentum}


def _adam(group: Group) -> dict[str, Any]:
    first, second = group["betas"]
    rule = "adamw" if group.get("decoupled_weight_decay") else "adam"
    moments = {"momentum": float(first), "beta2": float(second)}
    return {"rule": rule, **moments, "eps": float(group["eps"])}


def _adamw(group: Group) -> dict[str, Any]:
    return {**_adam(group), "rule": "adamw"}


def _rmsprop(group: Group) -> dict[str, Any]:
    moments = {"momentum": float(group["momentum"]), "beta2": float(group["alpha"])}
    return {"rule": "rmsprop", **moments, "eps": float(group["eps"])}


def _heavy_ball(rule: str) -> Callable[[Group], dict[str, Any]]:
    return lambda group: {"rule": rule, "momentum": float(group["momentum"])}


def _qhm(group: Group) -> dict[str, Any]:
    return {"rule": "qhm", "momentum": float(group["momentum"]), "nu": float(group["nu"])}


READERS: dict[type, Callable[[Group], dict[str, Any]]] = {
    torch.optim.SGD: _sgd,
    torch.optim.Adam: _adam,
    torch.optim.AdamW: _adamw,
    torch.optim.RMSprop: _rmsprop,
    optim.SHB: _heavy_ball("shb"),
    optim.NSHB: _heavy_ball("nshb"),
    optim.QHM: _qhm,
}
"""Optimizer → what its numbers are called here. By exact type: a subclass may step differently."""

CHANGE_STEPS = ("dampening", "amsgrad", "centered", "maximize")
"""Options whose steps no rule of batchlab takes."""

SAME_STEPS = frozenset({"foreach", "fused", "capturable", "differentiable"})
"""Options that change how a step is computed, not what it is."""


def optimizer_fields(
    optimizer: torch.optim.Optimizer, may_differ: Collection[str] = ()
) -> dict[str, Any]:
    """Rule and numbers of an optimizer, as fields of a :class:`~batchlab.config.RunConfig`.

    Args:
        optimizer: SGD, Adam, AdamW or RMSprop of ``torch.optim``, or one of
            :mod:`batchlab.optim`.
        may_differ: Which of ``lr`` and ``weight_decay`` may differ between parameter groups; the
            largest of each is then what the fields say.

    Returns:
        ``rule``, ``learning_rate``, ``momentum``, ``weight_decay``, and ``beta2``, ``eps`` or
        ``nu`` where the rule has them. The learning rate is the one that the schedule multiplies:
        a group's ``initial_lr`` if a scheduler has left one.

    Raises:
        InvalidTypeError: If it is another optimizer.
        InvalidValueError: If an option changes its steps, or groups differ in anything else.

    Example:
        >>> weights = [torch.nn.Parameter(torch.ones(1))]
        >>> optimizer_fields(torch.optim.SGD(weights, lr=0.1, momentum=0.9))
        {'rule': 'shb', 'momentum': 0.9, 'learning_rate': 0.1, 'weight_decay': 0.0}
    """
    read, name = READERS.get(type(optimizer)), type(optimizer).__name__
    if read is None:
        known = ", ".join(kind.__name__ for kind in READERS)
        raise InvalidTypeError(must("optimizer", f"one of {known}", name))
    _must_step_as_its_rule(optimizer, name)
    _must_agree(optimizer, name, may_differ)
    groups = optimizer.param_groups
    return {
        **read(groups[0]),
        "learning_rate": max(_initial_rate(group) for group in groups),
        "weight_decay": max(float(group["weight_decay"]) for group in groups),
    }


def _must_step_as_its_rule(optimizer: torch.optim.Optimizer, name: str) -> None:
    """No option and no hook that makes its steps others than the rule's."""
    for group in optimizer.param_groups:
        for option in CHANGE_STEPS:
            # Without momentum there is nothing to dampen.
            if group.get(option) and (option != "dampening" or group["momentum"]):
                hint = "No rule of batchlab takes such steps."
                got = f"{name}({option}={group[option]!r})"
                raise InvalidValueError(must("optimizer", f"without {option}", got, hint))
    for kind in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        if getattr(optimizer, kind, None):
            got = f"{name} with a step hook"
            raise InvalidValueError(must("optimizer", "without step hooks", got))


def _must_agree(optimizer: torch.optim.Optimizer, name: str, may_differ: Collection[str]) -> None:
    """All groups have the same numbers, but for those that may differ."""
    for number in sorted(set(optimizer.defaults) - SAME_STEPS - set(may_differ)):
        values = [
            _initial_rate(g) if number == "lr" else g[number] for g in optimizer.param_groups
        ]
        if any(value != values[0] for value in values[1:]):
            words = "one with the same numbers in every parameter group"
            hint = "batchlab trains all parameters with one setting."
            got = f"{name} with groups that differ in {number}"
            raise InvalidValueError(must("optimizer", words, got, hint))


def _initial_rate(group: Group) -> float:
    return float(group.get("initial_lr", group["lr"]))


MAY_DIFFER = frozenset({"lr", "weight_decay"})
"""The numbers of a parameter group that :func:`group_scales` keeps."""


def group_scales(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Scales]:
    """Each parameter's own multiples of the largest learning rate and weight decay.

    Args:
        module: Whose parameters the optimizer holds.
        optimizer: Its groups may differ in :data:`MAY_DIFFER`.

    Returns:
        ``Task.groups``: name → scales, without those that are 1.

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> groups = [{"params": [net.weight]}, {"params": [net.bias], "weight_decay": 0.0}]
        >>> group_scales(net, torch.optim.AdamW(groups))
        {'bias': Scales(learning_rate=1.0, weight_decay=0.0)}
    """
    names = {id(p): name for name, p in module.named_parameters()}
    rate = max(_initial_rate(group) for group in optimizer.param_groups)
    decay = max(float(group["weight_decay"]) for group in optimizer.param_groups)
    found = {
        names[id(p)]: Scales(
            _initial_rate(group) / rate if rate else 1.0,
            float(group["weight_decay"]) / decay if decay else 1.0,
        )
        for group in optimizer.param_groups
        for p in group["params"]
        if id(p) in names
    }
    return {name: scales for name, scales in found.items() if scales != Scales()}


def left_out(module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """Names of the parameters that require gradients but that the optimizer does not hold.

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> left_out(net, torch.optim.SGD([net.weight], lr=0.1))
        ('bias',)
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = module.named_parameters()
    return tuple(name for name, p in named if p.requires_grad and id(p) not in held)


# Learning rates


def learning_rates(
    optimizer: torch.optim.Optimizer,
    advance: Callable[[int], None],
    updates: int,
    *,
    scheduler: str,
) -> tuple[float, ...]:
    """The learning rate of each update, found by running a scheduler without training.

    Args:
        optimizer: A throw-away copy: its learning rates are changed.
        advance: Called after update 0, 1, …; steps the scheduler as the user's loop would.
        updates: Updates of the whole training, at least 1.
        scheduler: What it is called, for the error.

    Returns:
        One rate per update, of the group with the largest one.

    Raises:
        InvalidValueError: If the scheduler changes another number, or the groups' rates not alike.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> halve = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        >>> learning_rates(optimizer, lambda update: halve.step(), 3, scheduler="ExponentialLR")
        (1.0, 0.5, 0.25)
    """
    leader = max(optimizer.param_groups, key=_initial_rate)
    fixed, rates = _all_but_rates(optimizer), []
    with warnings.catch_warnings():
        # Nothing is trained here, so the optimizer takes no steps.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)`")
        for update in range(updates):
            rates.append(float(leader["lr"]))
            _must_move_together(optimizer, leader, scheduler)
            advance(update)
            if _all_but_rates(optimizer) != fixed:
                words = "one that changes the learning rate alone"
                hint = "Switch off its changes of momentum (such as cycle_momentum=False)."
                raise InvalidValueError(must("scheduler", words, scheduler, hint))
    return tuple(rates)


def _all_but_rates(optimizer: torch.optim.Optimizer) -> list[Group]:
    kept = set(optimizer.defaults) - {"lr"}
    return [{n: v for n, v in g.items() if n in kept} for g in optimizer.param_groups]


def _must_move_together(optimizer: torch.optim.Optimizer, leader: Group, scheduler: str) -> None:
    """Every group's rate is the same multiple of its own initial one."""
    rate, initial = float(leader["lr"]), _initial_rate(leader)
    for group in optimizer.param_groups:
        own = _initial_rate(group)
        if abs(float(group["lr"]) * initial - rate * own) > RATE_TOLERANCE * own * initial:
            words = "one that multiplies the rates of all parameter groups alike"
            raise InvalidValueError(must("scheduler", words, scheduler))


def rate_fields(rates: Sequence[float], *, scheduler: str) -> dict[str, Any]:
    """A schedule that gives every update its rate, as fields of a RunConfig.

    A named curve, or stairs and straight lines, where they give every rate to within a millionth
    of the peak; else straight lines to within a ten-thousandth (then ``~`` is in the text).

    Args:
        rates: The learning rate of each update of the whole training.
        scheduler: What made them, for the error.

    Returns:
        ``learning_rate`` (the peak), ``lr_schedule`` and ``warmup``; update k of n reads the
        schedule at the share k/n.

    Raises:
        InvalidValueError: If a rate is negative or not finite, all are 0, or no schedule fits.

    Example:
        >>> rate_fields([0.1, 0.1, 0.01, 0.01], scheduler="StepLR")
        {'learning_rate': 0.1, 'lr_schedule': '0:1.0 50%:0.1', 'warmup': 0.0}
        >>> rate_fields([0.0, 0.5, 1.0, 0.5], scheduler="LambdaLR")
        {'learning_rate': 1.0, 'lr_schedule': 'linear', 'warmup': 0.5}
    """
    peak = max(rates)
    if not (all(math.isfinite(rate) and rate >= 0 for rate in rates) and peak > 0):
        words = "one whose rates are finite, 0 or more, and not all 0"
        raise InvalidValueError(must("scheduler", words, scheduler))
    # Twelve digits: 0.01 of 0.1 is a tenth, not 0.09999999999999999.
    multipliers = [float(f"{rate / peak:.12g}") for rate in rates]
    for schedule, tolerance in _candidates(multipliers):
        if _reproduces(schedule, multipliers, tolerance):
            text = {"lr_schedule": str(schedule.body), "warmup": schedule.warmup}
            return {"learning_rate": peak, **text}
    words = f"a known curve, or at most {MOST_POINTS} levels or straight lines"
    hint = f"Known curves, each with or without warm-up: {', '.join(schedules.SHAPES)}."
    raise InvalidValueError(must("scheduler", words, scheduler, hint))


def _reproduces(schedule: RateSchedule, multipliers: Sequence[float], tolerance: float) -> bool:
    count = len(multipliers)
    return all(
        abs(schedule(update / count) - multiplier) <= tolerance
        for update, multiplier in enumerate(multipliers)
    )


def _candidates(multipliers: Sequence[float]) -> Iterator[tuple[RateSchedule, float]]:
    """Schedules that may fit, the plainest first, and how near each has to come."""
    count, risen = len(multipliers), list(multipliers).index(1.0)
    warmup = risen / count
    yield RateSchedule(schedules.Curve("constant"), warmup), RATE_TOLERANCE
    elapsed = (count - 1) / count - warmup
    if elapsed > 0:
        for name, argument in _arguments(multipliers[-1], elapsed, warmup):
            own = None if argument == schedules.SHAPES[name].default else argument
            yield RateSchedule(schedules.Curve(name, own), warmup), RATE_TOLERANCE
    for tolerance in (RATE_TOLERANCE, LINE_TOLERANCE):
        # Half for the fit, half for the round-off of shares.
        points = _points(multipliers, tolerance / 2)
        if len(points) <= MOST_POINTS:
            yield RateSchedule(schedules.Stairs(points)), tolerance


def _arguments(last: float, elapsed: float, warmup: float) -> Iterator[tuple[str, float]]:
    """The argument with which each curve takes the last multiplier, where it has one."""
    progress = elapsed / (1.0 - warmup)
    wave = (1.0 + math.cos(math.pi * progress)) / 2.0
    found = {
        "linear": 1.0 - (1.0 - last) / progress,
        "cosine": (last - wave) / (1.0 - wave),
        "geometric": last ** (1.0 / progress),
        "inverse_sqrt": last**2 * elapsed / (1.0 - last**2) if last < 1.0 else 0.0,
    }
    for name, value in found.items():
        argument = float(f"{value:.9g}")
        floor = name in ("linear", "cosine")
        if floor and abs(argument) < RATE_TOLERANCE**2:
            argument = 0.0
        if 0.0 < argument <= 1.0 or (floor and argument == 0.0):
            yield name, argument


def _points(multipliers: Sequence[float], tolerance: float) -> tuple[Point, ...]:
    """Levels and straight lines through some of the multipliers, near all of them."""
    count, here, last = len(multipliers), 0, 0
    points = [Point(Fraction(0), multipliers[0])]
    while here < count - 1:
        there = _reach(multipliers, here, tolerance)
        if multipliers[there] != multipliers[here]:
            line = there > here + 1
            if line and last < here:  # the level before it ends here
                points.append(Point(_share(here, count), multipliers[here]))
            share = _floor(Fraction(there, count)) if line else _share(there, count)
            points.append(Point(share, multipliers[there], line))
            last = there
        here = there
    return tuple(points)


def _reach(multipliers: Sequence[float], here: int, tolerance: float) -> int:
    """The last multiplier to which a straight line from here passes near all between them."""
    low, high, reached = -math.inf, math.inf, here + 1
    for there in range(here + 1, len(multipliers)):
        rise, run = multipliers[there] - multipliers[here], there - here
        if low <= rise / run <= high:
            reached = there
        low, high = max(low, (rise - tolerance) / run), min(high, (rise + tolerance) / run)
        if low > high:
            break
    return reached


def _share(update: int, updates: int) -> Fraction:
    """A share of the budget in decimal text, after the update before and not after this one.

    A schedule is read at update/updates, so a step at this share comes at this update exactly, and
    at other batch sizes within a ten-thousandth of a per cent of the budget.
    """
    exact = Fraction(update, updates)
    for decimals in range(DECIMALS):
        share = _floor(exact, decimals)
        after = float(share) > (update - 1) / updates
        if share == exact or (decimals >= LEAST_DECIMALS and after):
            return share
    return _floor(exact)


def _floor(share: Fraction, decimals: int = DECIMALS) -> Fraction:
    """The share in per cent with so many decimals, rounded down."""
    unit = 100 * 10**decimals
    return Fraction(math.floor(share * unit), unit)
