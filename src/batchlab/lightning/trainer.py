"""What a Lightning trainer says of a recipe, and what of it cannot be kept."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, must
from batchlab.lightning.kinds import is_a, overrides

DEFAULT_EPOCHS = 1000
"""Lightning's, where neither epochs nor steps are said."""

PRECISIONS = {"32-true": "float32", "64-true": "float64", "bf16-mixed": "bfloat16"}
STRATEGIES = ("SingleDeviceStrategy", "DDPStrategy")

REFUSED_HOOKS = (
    *("configure_sharded_model", "transfer_batch_to_device"),
    *("on_fit_start", "on_train_start", "on_train_epoch_start"),
    *("on_train_batch_start", "on_train_batch_end"),
    *("on_before_zero_grad", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "configure_gradient_clipping", "lr_scheduler_step"),
    *("backward", "optimizer_step", "optimizer_zero_grad"),
)
"""Methods through which a training can become another one. None of them is called here."""

NOTED_HOOKS = ("on_train_epoch_end",)
"""Not called either; mostly they log."""

HARMLESS_CALLBACKS = (
    *("Checkpoint", "ProgressBar", "ModelSummary", "LearningRateMonitor", "DeviceStatsMonitor"),
    *("ThroughputMonitor", "BasePredictionWriter", "OnExceptionCheckpoint"),
)
STOPPING_CALLBACKS = ("EarlyStopping", "Timer")
REFUSED_CALLBACKS = ("ModelPruning",)
"""Beside those that are found out by the hooks they use."""


@dataclass(frozen=True)
class Recipe:
    """What a trainer says.

    Attributes:
        max_epochs: Epochs, or -1 for as many as ``max_steps`` takes.
        max_steps: Updates at most, or -1.
        accumulate: Batches of the loader in one update.
        clip_norm: Largest gradient norm, or None.
        precision: As in a RunConfig.
        devices: Processes that each draw batches of the loader.
        limit: Batches of an epoch that are used: a number, or a share of them.
        shares_data: Whether the devices share an epoch's examples out among each other.
        notes: What is said about it.
    """

    max_epochs: int = DEFAULT_EPOCHS
    max_steps: int = -1
    accumulate: int = 1
    clip_norm: float | None = None
    precision: str = "float32"
    devices: int = 1
    limit: float = 1.0
    shares_data: bool = True
    notes: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """What a module may ask its trainer."""
        return {
            "max_epochs": self.max_epochs,
            "max_steps": self.max_steps,
            "accumulate_grad_batches": self.accumulate,
            "gradient_clip_val": self.clip_norm,
            "num_devices": self.devices,
            "num_nodes": 1,
            "world_size": self.devices,
            "limit_train_batches": self.limit,
            "global_rank": 0,
            "local_rank": 0,
            "is_global_zero": True,
            "sanity_checking": False,
            "testing": False,
            "predicting": False,
            "fast_dev_run": False,
            "barebones": False,
            "progress_bar_callback": None,
        }


def read_trainer(trainer: Any, max_epochs: int | None) -> Recipe:
    """The recipe of a trainer, or of Lightning's defaults.

    Args:
        trainer: Of ``lightning`` or ``pytorch_lightning``, or None.
        max_epochs: Where there is no trainer.

    Returns:
        What it says.

    Raises:
        InvalidTypeError: If it is something else.
        InvalidValueError: If something it says cannot be kept; the sentence names it.

    Example:
        >>> read_trainer(None, 5).notes
        ("no trainer is given: beside max_epochs, Lightning's defaults are assumed",)
    """
    if trainer is None:
        return _defaults(max_epochs)
    if not is_a(trainer, "Trainer"):
        hint = "Of lightning or pytorch_lightning."
        got = type(trainer).__name__
        raise InvalidTypeError(must("trainer", "a Trainer, or left out", got, hint))
    if max_epochs is not None:
        hint = "The trainer says it."
        raise InvalidValueError(must("max_epochs", "left out with a trainer", max_epochs, hint))
    _must_train_plainly(trainer)
    return Recipe(
        max_epochs=_max_epochs(trainer),
        max_steps=trainer.max_steps,
        accumulate=trainer.accumulate_grad_batches,
        clip_norm=_clip_norm(trainer),
        precision=_precision(trainer),
        devices=trainer.num_devices * trainer.num_nodes,
        limit=trainer.limit_train_batches,
        shares_data=_shares_data(trainer),
        notes=tuple(_limits(trainer)),
    )


def _defaults(max_epochs: int | None) -> Recipe:
    assumed = "no trainer is given: {}Lightning's defaults are assumed{}"
    if max_epochs is None:
        return Recipe(notes=(assumed.format("", f", {DEFAULT_EPOCHS} epochs among them"),))
    if isinstance(max_epochs, bool) or not isinstance(max_epochs, int) or max_epochs < 1:
        raise InvalidValueError(must("max_epochs", "a whole number, 1 or more", max_epochs))
    return Recipe(max_epochs, notes=(assumed.format("beside max_epochs, ", ""),))


def _max_epochs(trainer: Any) -> int:
    """As Lightning fills it in."""
    if trainer.max_epochs is not None:
        return trainer.max_epochs
    return DEFAULT_EPOCHS if trainer.max_steps == -1 else -1


def _must_train_plainly(trainer: Any) -> None:
    """No mode of training that is not the plain one."""
    off = ("fast_dev_run", "overfit_batches", "reload_dataloaders_every_n_epochs")
    for name in off:
        if getattr(trainer, name, 0):
            raise InvalidValueError(must(name, "off", getattr(trainer, name)))
    strategy = type(trainer.strategy).__name__
    if strategy not in STRATEGIES:
        raise InvalidValueError(must("strategy", f"one of {', '.join(STRATEGIES)}", strategy))


def _clip_norm(trainer: Any) -> float | None:
    value, kind = trainer.gradient_clip_val, trainer.gradient_clip_algorithm
    if not value:
        return None
    name = "norm" if kind is None else str(getattr(kind, "value", kind))
    if name != "norm":
        hint = "batchlab clips by the norm."
        raise InvalidValueError(must("gradient_clip_algorithm", "norm", name, hint))
    return float(value)


def _precision(trainer: Any) -> str:
    said = str(trainer.precision)
    if said not in PRECISIONS:
        raise InvalidValueError(must("precision", f"one of {', '.join(PRECISIONS)}", said))
    return PRECISIONS[said]


def _shares_data(trainer: Any) -> bool:
    connector = getattr(trainer, "_accelerator_connector", None)
    return bool(getattr(connector, "use_distributed_sampler", True))


def _limits(trainer: Any) -> Iterator[str]:
    limit = trainer.limit_val_batches
    if limit not in (0, 1.0) or (isinstance(limit, int) and limit == 1):
        yield f"limit_val_batches={limit} is not kept: all validation data is read"


def callback_notes(callback: Any, ignore: Collection[str]) -> Iterator[str]:
    """What is said of a callback, which is not called here.

    Raises:
        InvalidValueError: If it may change the training.
    """
    name = type(callback).__name__
    if name in ignore or any(is_a(callback, kind) for kind in HARMLESS_CALLBACKS):
        return
    if any(is_a(callback, kind) for kind in STOPPING_CALLBACKS):
        yield f"{name} is not kept: the whole budget is trained"
        return
    used = next((hook for hook in REFUSED_HOOKS if _uses(callback, hook)), None)
    if used is not None or any(is_a(callback, kind) for kind in REFUSED_CALLBACKS):
        hint = f"If it changes nothing in training, say ignore=['{name}']."
        got = name if used is None else f"{name}.{used}"
        words = "without one that may change the training"
        raise InvalidValueError(must("callbacks", words, got, hint))
    yield from (_not_called(f"{name}.{hook}") for hook in NOTED_HOOKS if _uses(callback, hook))


def _uses(callback: Any, hook: str) -> bool:
    """Whether a callback does something there, Lightning's own callbacks included."""
    base = next((kind for kind in type(callback).__mro__ if kind.__name__ == "Callback"), object)
    own = getattr(callback, hook, None)
    return own is not None and getattr(own, "__func__", own) is not getattr(base, hook, None)


def hook_notes(module: Any, ignore: Collection[str]) -> Iterator[str]:
    """What is said of the hooks that a module overrides, which are not called here.

    Raises:
        InvalidValueError: If one may change the training.
    """
    for hook in REFUSED_HOOKS:
        if overrides(module, hook) and hook not in ignore:
            hint = f"If it changes nothing in training, say ignore=['{hook}']."
            words = "one whose training no hook may change"
            raise InvalidValueError(must("module", words, hook, hint))
    yield from (
        _not_called(hook) for hook in NOTED_HOOKS if overrides(module, hook) and hook not in ignore
    )


def _not_called(hook: str) -> str:
    return f"{hook} is not called: what it changes in weights or data is not kept"


@dataclass(frozen=True)
class Budget:
    """A training in updates of one global batch size.

    Attributes:
        batch_size: Examples in an update, of all devices and accumulated batches together.
        batches: Batches of the loader in an epoch, on one device.
        per_epoch: Updates in an epoch.
        updates: Of the whole training.
    """

    batch_size: int
    batches: int
    per_epoch: int
    updates: int

    def facts(self) -> dict[str, int]:
        """What a module may ask its trainer."""
        return {
            "num_training_batches": self.batches,
            "estimated_stepping_batches": self.updates,
        }


def budget(recipe: Recipe, examples: int, batch_size: int, drop_last: bool) -> Budget:
    """The updates of a training.

    Args:
        recipe: Of the trainer.
        examples: Training examples N.
        batch_size: Of the loader.
        drop_last: Whether the loader leaves out a short last batch.

    Returns:
        Its budget.

    Raises:
        InvalidValueError: If it has no end.
        TaskError: If an epoch has no batch.

    Example:
        >>> budget(Recipe(max_epochs=3, accumulate=2), 100, 16, drop_last=False)
        Budget(batch_size=32, batches=7, per_epoch=4, updates=12)
    """
    own = math.ceil(examples / recipe.devices) if recipe.shares_data else examples
    batches = own // batch_size if drop_last else math.ceil(own / batch_size)
    share = isinstance(recipe.limit, float)
    batches = int(batches * recipe.limit) if share else min(batches, int(recipe.limit))
    if batches < 1:
        raise TaskError(must("train", "at least one batch", f"{examples} examples"))
    per_epoch = math.ceil(batches / recipe.accumulate)
    ends = [recipe.max_epochs * per_epoch] if recipe.max_epochs >= 0 else []
    ends += [recipe.max_steps] if recipe.max_steps >= 0 else []
    if not ends or min(ends) < 1:
        got = f"max_epochs={recipe.max_epochs}, max_steps={recipe.max_steps}"
        raise InvalidValueError(must("trainer", "one that trains, and has an end", got))
    size = batch_size * recipe.accumulate * recipe.devices
    return Budget(size, batches, per_epoch, min(ends))


def budget_notes(recipe: Recipe, found: Budget, examples: int, batch_size: int) -> Iterator[str]:
    """What is said of batch size and budget."""
    size, epoch = found.batch_size, _updates(found.per_epoch)
    if size != batch_size:
        parts = f"{batch_size} × {recipe.accumulate} × {recipe.devices}"
        yield f"the global batch size is {size} = {parts} (loader × accumulation × devices)"
    if recipe.limit != 1.0 or isinstance(recipe.limit, int):
        yield f"limit_train_batches={recipe.limit}: an epoch is {epoch}"
    if found.per_epoch * size != examples:
        passes = found.updates * size / examples
        yield (
            f"an epoch of yours is {epoch}; here every update takes {size} examples, running on "
            f"into the next pass: {_updates(found.updates)} are {passes:.4g} passes"
        )


def _updates(count: int) -> str:
    return f"{count:,} update{'s' * (count != 1)}"
