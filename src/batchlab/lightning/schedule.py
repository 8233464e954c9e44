"""What ``configure_optimizers`` says of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from batchlab import _random
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.lightning.module import StandIn, guarded, some
from batchlab.lightning.trainer import Budget
from batchlab.rules import Scales
from batchlab.tasks import recipe


@dataclass(frozen=True)
class Scheduler:
    """A learning-rate scheduler and when Lightning steps it.

    Attributes:
        scheduler: Of torch.
        interval: ``step`` or ``epoch``.
        frequency: Every so many of them.
    """

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1


@dataclass(frozen=True)
class Optimisation:
    """What ``configure_optimizers`` says.

    Attributes:
        fields: Of a RunConfig.
        groups: Of a Task.
        frozen: Parameters that the optimizer does not hold.
        notes: What is said about it.
    """

    fields: Mapping[str, Any]
    groups: Mapping[str, Scales]
    frozen: frozenset[str]
    notes: tuple[str, ...]


def read_optimisation(
    module: Any, stand_in: StandIn, found: Budget, accumulate: int
) -> Optimisation:
    """Optimizer, its parameter groups and the learning rate of every update.

    Args:
        module: A throw-away copy.
        stand_in: For the trainer.
        found: Updates of the training.
        accumulate: Batches of the loader in one update.

    Returns:
        What they say.

    Raises:
        InvalidValueError: If they cannot be kept; the sentence names what.
    """
    if not module.automatic_optimization:
        hint = "What a training_step does with several optimizers, no learning rate stands for."
        words = "True: manual optimization cannot be kept"
        raise InvalidValueError(must("automatic_optimization", words, False, hint))
    module.trainer = stand_in
    with _random.seeded(0, "setup"):
        made = guarded(module.configure_optimizers, what="configure_optimizers")
    module.trainer = None
    optimizer, schedulers = _read(made)
    fields = recipe.optimizer_fields(optimizer, recipe.MAY_DIFFER)
    name = ", ".join(type(s.scheduler).__name__ for s in schedulers)
    advance = _stepper(schedulers, found, accumulate)
    rates = recipe.learning_rates(optimizer, advance, found.updates, scheduler=name or "none")
    fields |= recipe.rate_fields(rates, scheduler=name or "none")
    frozen = recipe.left_out(module, optimizer)
    groups = recipe.group_scales(module, optimizer)
    return Optimisation(fields, groups, frozenset(frozen), _notes(name, fields, frozen))


def _notes(name: str, fields: Mapping[str, Any], frozen: tuple[str, ...]) -> tuple[str, ...]:
    notes = ()
    if "~" in fields["lr_schedule"]:
        share = f"{100 * recipe.LINE_TOLERANCE:g} % of the peak"
        notes += (f"{name} is kept as straight lines, every update's rate to within {share}",)
    if frozen:
        notes += (f"not trained, as the optimizer does not hold them: {some(frozen)}",)
    return notes


def _read(made: Any) -> tuple[torch.optim.Optimizer, list[Scheduler]]:
    """One optimizer and its schedulers, from any form that Lightning takes."""
    optimizers, schedulers = _parts(made)
    if len(optimizers) != 1:
        kinds = [type(optimizer).__name__ for optimizer in optimizers]
        got = ", ".join(kinds) or "None"
        hint = "Several cannot be kept." if optimizers else ""
        raise InvalidValueError(must("configure_optimizers", "one optimizer", got, hint))
    return optimizers[0], [_scheduler(scheduler) for scheduler in schedulers]


def _parts(made: Any) -> tuple[list[Any], list[Any]]:
    if made is None:
        return [], []
    if isinstance(made, torch.optim.Optimizer):
        return [made], []
    if isinstance(made, Mapping):
        given = made.get("lr_scheduler")
        return [made["optimizer"]], [] if given is None else [given]
    if isinstance(made, tuple | list):
        if len(made) == 2 and isinstance(made[0], tuple | list):
            several = made[1] if isinstance(made[1], tuple | list) else [made[1]]
            return list(made[0]), list(several)
        pairs = [_parts(part) for part in made]
        return [o for own, _ in pairs for o in own], [s for _, own in pairs for s in own]
    words = "an optimizer, a dictionary, or lists of optimizers and schedulers"
    raise InvalidTypeError(must("configure_optimizers", words, type(made).__name__))


def _scheduler(given: Any) -> Scheduler:
    """A scheduler with Lightning's defaults; one that follows the run is refused."""
    settings = given if isinstance(given, Mapping) else {"scheduler": given}
    scheduler = settings["scheduler"]
    interval, frequency = settings.get("interval", "epoch"), settings.get("frequency", 1)
    if interval not in ("step", "epoch"):
        raise InvalidValueError(must("interval", "step or epoch", interval))
    if settings.get("reduce_on_plateau") or isinstance(
        scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
    ):
        hint = "What it does depends on the run; another batch size would see another schedule."
        words = "one that is known before the training"
        raise InvalidValueError(must("scheduler", words, type(scheduler).__name__, hint))
    return Scheduler(scheduler, interval, frequency)


def _stepper(
    schedulers: Sequence[Scheduler], found: Budget, accumulate: int
) -> Callable[[int], None]:
    """Steps the schedulers after an update as Lightning does."""

    def advance(update: int) -> None:
        epoch, place = divmod(update, found.per_epoch)
        last = place + 1 == found.per_epoch
        batches = found.batches if last else (place + 1) * accumulate
        for interval, count in (("step", batches), ("epoch", epoch + 1)):
            if interval == "epoch" and not last:
                continue
            for own in schedulers:
                # Lightning counts batches of the loader where it says steps.
                if own.interval == interval and count % own.frequency == 0:
                    own.scheduler.step()

    return advance
