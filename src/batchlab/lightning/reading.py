"""All that is read of a Lightning training, in the order in which ``Trainer.fit`` would ask."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.lightning.data import Data, read_data, set_up
from batchlab.lightning.kinds import is_a, overrides
from batchlab.lightning.module import (
    PLACES,
    Copies,
    Made,
    Silent,
    StandIn,
    Step,
    factory,
    guarded,
    has_batch_norm,
    some,
)
from batchlab.lightning.schedule import Optimisation, read_optimisation
from batchlab.lightning.trainer import (
    NOTED_HOOKS,
    REFUSED_HOOKS,
    Budget,
    Recipe,
    budget,
    budget_notes,
    callback_notes,
    hook_notes,
    read_trainer,
)


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        models: Model factory.
        sample: A throw-away module of it.
        recipe: Of the trainer.
        data: Of the loaders.
        budget: Updates of the training.
        optimisation: Of ``configure_optimizers``.
        step: The training step.
        notes: What is said about the callbacks and hooks.
    """

    models: Copies | Made
    sample: Any
    recipe: Recipe
    data: Data
    budget: Budget
    optimisation: Optimisation
    step: Step
    notes: tuple[str, ...]

    def baseline(self) -> RunConfig:
        """The recipe used today."""
        return RunConfig(
            **self.optimisation.fields,
            batch_size=self.budget.batch_size,
            samples=self.budget.updates * self.budget.batch_size,
            clip_norm=self.recipe.clip_norm,
            precision=self.recipe.precision,
        )

    def said(self) -> Iterator[str]:
        """All that is said about what was read."""
        if isinstance(self.models, Copies):
            yield (
                "every seed starts from the module's present weights; give a function that makes "
                "it for fresh ones"
            )
        yield from self.recipe.notes
        yield (
            "times are those of a plain PyTorch loop: what the Trainer adds to each update is not "
            "in them"
        )
        yield from self.notes
        yield from self.data.notes
        examples, size = self.data.examples, self.data.batch_size
        yield from budget_notes(self.recipe, self.budget, examples, size)
        yield from self.optimisation.notes
        if self.step.resting:
            yield f"in evaluation mode throughout, as in your trainer: {some(self.step.resting)}"


def read(
    module: Any, datamodule: Any, trainer: Any, max_epochs: int | None, ignore: Collection[str]
) -> Reading:
    """Read everything, or refuse it by name.

    Args:
        module: A LightningModule, or a function that makes one.
        datamodule: A LightningDataModule, a DataLoader, a pair of them, or None.
        trainer: A Trainer, or None.
        max_epochs: Where there is no trainer.
        ignore: Hooks and callbacks that the user vouches for.

    Returns:
        What was read.
    """
    said = read_trainer(trainer, max_epochs)
    known = {**said.facts(), "logger": Silent(), "loggers": []}
    known |= {name: 0 for name in PLACES if name in ignore}
    own = datamodule if is_a(datamodule, "LightningDataModule") else None
    live = known | dict.fromkeys(PLACES, 0) | {"datamodule": own, "training": True}
    asked = StandIn(live, "setup", trainer)
    set_up(datamodule, asked)
    models = factory(module, known, asked)
    with _random.seeded(0, "setup"):
        sample = models()
    notes = _notes(sample, trainer, ignore)
    data = read_data(datamodule, sample, asked)
    found = budget(said, data.examples, data.batch_size, data.drop_last)
    _must_not_split_batch_norm(sample, found, data.batch_size)
    counted = StandIn(live | found.facts(), "configure_optimizers", trainer)
    optimisation = read_optimisation(sample, counted, found, said.accumulate)
    step = Step.of(sample, known | found.facts())
    models = replace(models, frozen=optimisation.frozen)
    return Reading(models, sample, said, data, found, optimisation, step, notes)


def _notes(sample: Any, trainer: Any, ignore: Collection[str]) -> tuple[str, ...]:
    """What is said of callbacks and hooks, none of which is called."""
    own = guarded(sample.configure_callbacks, what="configure_callbacks")
    callbacks = [*_several(own), *(trainer.callbacks if trainer is not None else ())]
    hooks = [hook for hook in (*REFUSED_HOOKS, *NOTED_HOOKS) if overrides(sample, hook)]
    there = {*hooks, *(type(callback).__name__ for callback in callbacks), *PLACES}
    for name in ignore:
        if name not in there:
            hint = f"There are: {', '.join(sorted(there))}."
            wanted = "names of hooks and callbacks that are there"
            raise InvalidValueError(must("ignore", wanted, name, hint))
    found = [note for callback in callbacks for note in callback_notes(callback, ignore)]
    return (*found, *hook_notes(sample, ignore))


def _several(callbacks: Any) -> Iterable[Any]:
    return callbacks if isinstance(callbacks, tuple | list) else [callbacks]


def _must_not_split_batch_norm(sample: nn.Module, found: Budget, batch_size: int) -> None:
    """Batch norm over every accumulated batch, or device, is not batch norm over all of them."""
    if found.batch_size != batch_size and has_batch_norm(sample):
        got = f"{batch_size} of {found.batch_size} examples at a time"
        hint = "Train without accumulation, on one device."
        words = "one that sees the whole batch"
        raise InvalidValueError(must("batch norm", words, got, hint))
