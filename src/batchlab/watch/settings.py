"""What tells one training from another: the optimizer's numbers, and what the user says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.tasks.recipe import MAY_DIFFER, optimizer_fields

NUMBERS = {
    "learning_rate": "a number",
    "momentum": "a number",
    "weight_decay": "a number",
    "warmup": "a number",
    "rate_growth": "a number",
    "clip_norm": "a number or None",
    "nu": "a number",
    "beta2": "a number",
    "eps": "a number",
    "batch_size": "a whole number, or the text of a schedule",
    "micro_batch_size": "a whole number",
    "accum_steps": "a whole number",
    "world_size": "a whole number",
}
"""Settings that batchlab counts with, and what each of them has to be."""


def told(given: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The settings of a training: what its optimizer holds, and what the user says.

    Args:
        given: Name → number, text, truth value or None; a name that is read too takes this value.
        optimizer: Whose rule and numbers are read; of one that batchlab does not know only the
            name of its class and its learning rate.

    Returns:
        Name → value.

    Raises:
        InvalidTypeError: If a name is no text.
        InvalidValueError: If a value is none of these or not finite, or one that batchlab counts
            with is no number.

    Example:
        >>> weights = [torch.nn.Parameter(torch.ones(1))]
        >>> told({"dropout": 0.1}, torch.optim.SGD(weights, lr=0.1))["rule"]
        'sgd'
    """
    for name, value in given.items():
        if not isinstance(name, str):
            raise InvalidTypeError(must("settings", "named by texts", name))
        plain = value is None or isinstance(value, bool | int | float | str)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            words = "a finite number, a text, True, False or None"
            raise InvalidValueError(must(f"settings[{name!r}]", words, value))
        if not counts(name, value):
            raise InvalidValueError(must(f"settings[{name!r}]", NUMBERS[name], value))
    return read_from(optimizer) | dict(given)


def counts(name: str, value: object) -> bool:
    """Whether batchlab can count with the value of a setting, or need not.

    Args:
        name: Of the setting.
        value: As it was told.

    Example:
        >>> counts("momentum", 0.9), counts("momentum", "high"), counts("augmentation", "high")
        (True, False, True)
    """
    if name not in NUMBERS or (name == "clip_norm" and value is None):
        return True
    if isinstance(value, bool):
        return False
    whole = int if "whole" in NUMBERS[name] else int | float
    return isinstance(value, whole) or (name == "batch_size" and isinstance(value, str))


def read_from(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Rule and numbers of an optimizer, as far as batchlab knows them.

    Example:
        >>> weights = [torch.nn.Parameter(torch.ones(1))]
        >>> read_from(torch.optim.Adagrad(weights, lr=0.1))
        {'rule': 'Adagrad', 'learning_rate': 0.1}
    """
    try:
        return optimizer_fields(optimizer, MAY_DIFFER)
    except (InvalidTypeError, InvalidValueError):
        rate = largest_rate(optimizer, 0.0)
        name = type(optimizer).__name__
        return {"rule": name} if rate is None else {"rule": name, "learning_rate": rate}


def largest_rate(optimizer: torch.optim.Optimizer, before: float | None) -> float | None:
    """The largest learning rate of any parameter group so far.

    A rate that lies on another device is not read: that would wait for it.

    Args:
        optimizer: The optimizer.
        before: The largest before; None where it is not read.

    Returns:
        A number; None where it is not read.
    """
    if before is None:
        return None
    for group in optimizer.param_groups:
        rate = group.get("lr")
        if type(rate) is float:  # the usual kind, at every step of the training
            before = rate if rate > before else before
            continue
        elsewhere = isinstance(rate, torch.Tensor) and rate.device.type != "cpu"
        if rate is None or elsewhere:
            return None
        before = max(before, float(rate))
    return before
