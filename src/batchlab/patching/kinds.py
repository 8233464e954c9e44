"""The three kinds of training script, and where each of them writes a setting."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch

from batchlab.errors import InvalidValueError, must

Kind: TypeAlias = Literal["pytorch", "lightning", "huggingface"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LOADER, OPTIMIZER, TRAINER, ARGUMENTS = "loader", "optimizer", "trainer", "arguments"
SCHEDULE = "schedule"
CALLS = {
    LOADER: re.compile(r"torch\.utils\.data\.(dataloader\.)?DataLoader"),
    OPTIMIZER: re.compile(r"(torch|batchlab)\.optim\.(?!lr_scheduler|swa_utils)(\w+\.)?[A-Z]\w*"),
    TRAINER: re.compile(r"(lightning|pytorch_lightning)(\.\w+)*\.Trainer"),
    ARGUMENTS: re.compile(
        r"transformers(\.\w+)*\.\w*TrainingArguments|trl(\.\w+)*\.[A-Z]\w*Config"
    ),
    SCHEDULE: re.compile(r"torch\.optim\.(lr_scheduler\.(OneCycleLR|CyclicLR)|swa_utils\.SWALR)"),
}
"""Calls that are known, by the full name of what is called; a schedule sets the rate itself."""


@dataclass(frozen=True)
class Slot:
    """Where a setting stands.

    Attributes:
        call: One of :data:`CALLS`.
        keyword: Its name there.
        position: Its place among the arguments without a name, or None.
        default: What the call takes where it is left out, or None where that is not known.
    """

    call: str
    keyword: str
    position: int | None = None
    default: float | None = None


_LOADER = Slot(LOADER, "batch_size", 1)
_RATE = Slot(OPTIMIZER, "lr", 1)
_IN_OPTIMIZER = {
    "momentum": Slot(OPTIMIZER, "momentum"),
    "weight_decay": Slot(OPTIMIZER, "weight_decay"),
}
SLOTS: dict[Kind, dict[str, Slot]] = {
    "pytorch": {"micro_batch_size": _LOADER, "learning_rate": _RATE, **_IN_OPTIMIZER},
    "lightning": {
        "micro_batch_size": _LOADER,
        "accum_steps": Slot(TRAINER, "accumulate_grad_batches", default=1),
        "learning_rate": _RATE,
        "clip_norm": Slot(TRAINER, "gradient_clip_val"),
        **_IN_OPTIMIZER,
    },
    "huggingface": {
        "micro_batch_size": Slot(ARGUMENTS, "per_device_train_batch_size", default=8),
        "accum_steps": Slot(ARGUMENTS, "gradient_accumulation_steps", default=1),
        "learning_rate": Slot(ARGUMENTS, "learning_rate", default=5e-5),
        "weight_decay": Slot(ARGUMENTS, "weight_decay", default=0.0),
        "clip_norm": Slot(ARGUMENTS, "max_grad_norm", default=1.0),
    },
}
"""Setting → where a script of that kind writes it."""

COUNTS_UPDATES = (
    *("max_steps", "warmup_steps", "num_warmup_steps", "num_training_steps", "total_steps"),
    *("steps_per_epoch", "eval_steps", "save_steps", "logging_steps", "val_check_interval"),
)
"""Keywords whose whole numbers count updates, of which another batch size makes more or fewer."""


def default_of(slot: Slot, called: str) -> float | None:
    """What a call takes where a setting is left out.

    Args:
        slot: The setting's place.
        called: Full name of what is called.

    Example:
        >>> default_of(_RATE, "torch.optim.Adam")
        0.001
    """
    if slot.default is not None:
        # The configurations of trl have defaults of their own.
        return slot.default if not called.startswith("trl.") else None
    owner = {OPTIMIZER: torch.optim, LOADER: torch.utils.data}.get(slot.call)
    maker = getattr(owner, called.rpartition(".")[2], None)
    if maker is None or not called.startswith("torch."):
        return None
    found = inspect.signature(maker).parameters.get(slot.keyword)
    value = None if found is None else found.default
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def known_kind(kind: str) -> Kind:
    """The kind of that name.

    Raises:
        InvalidValueError: If there is none.

    Example:
        >>> known_kind("lightning")
        'lightning'
    """
    for one in KINDS:
        if kind == one:
            return one
    raise InvalidValueError(must("kind", f"auto, {', '.join(KINDS)}", kind))
