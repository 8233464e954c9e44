"""The Trainer's data and collator, as they stand in the loaders it would use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
)

from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, must
from batchlab.huggingface.own import alike

Collate = Callable[[list[Any]], dict[str, Tensor]]


class Rows(Dataset[Any]):
    """A map-style data set whose examples are plain dictionaries.

    Args:
        source: The user's.
    """

    def __init__(self, source: Any) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        row = self.source[index]
        return dict(row) if isinstance(row, Mapping) else row


@dataclass(frozen=True)
class Data:
    """What is trained on.

    Attributes:
        train: Examples, as the collator takes them.
        validation: The same, or None.
        collate: Examples → batch, a plain dictionary.
    """

    train: Rows
    validation: Rows | None
    collate: Collate


def data_of(trainer: Any, validation: str | None) -> Data:
    """Read data and collator of a Trainer.

    Args:
        trainer: The user's.
        validation: Which of several ``eval_dataset``.

    Returns:
        The data.

    Raises:
        InvalidTypeError: If examples cannot be asked for by number.
        InvalidValueError: If they are not drawn at random, each once a pass, or it is not clear
            what to evaluate on.
    """
    if trainer.train_dataset is None:
        raise InvalidTypeError(must("trainer.train_dataset", "given", None))
    loader = alike(trainer).get_train_dataloader()
    _check_loader(loader, "trainer.train_dataset")
    _check_order(loader, trainer)
    held = _held(trainer, validation)
    if held is None:
        return Data(Rows(loader.dataset), None, functools.partial(joined, loader.collate_fn))
    others = alike(trainer).get_eval_dataloader(held)
    _check_loader(others, "trainer.eval_dataset")
    if _inner(others.collate_fn) is not _inner(loader.collate_fn):
        words = "one for training and evaluation"
        raise InvalidValueError(must("collate_fn", words, "another for evaluation"))
    return Data(
        Rows(loader.dataset),
        Rows(others.dataset),
        functools.partial(joined, loader.collate_fn),
    )


def like(trainer: Any, held: Any) -> Rows:
    """A data set read as the Trainer reads ``eval_dataset``."""
    loader = alike(trainer).get_eval_dataloader(held)
    _check_loader(loader, "test")
    return Rows(loader.dataset)


def joined(collate: Callable[[list[Any]], Any], examples: list[Any]) -> dict[str, Tensor]:
    """The collator's batch as a plain dictionary of tensors."""
    batch = collate(examples)
    if not isinstance(batch, Mapping):
        got = type(batch).__name__
        raise TaskError(must("data_collator", "a function that returns a dictionary", got))
    return {name: value for name, value in batch.items() if value is not None}


def _check_loader(loader: Any, name: str) -> None:
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        hint = "One order for every batch size needs examples that can be asked for by number."
        got = type(dataset).__name__
        raise InvalidTypeError(must(name, "a map-style data set", got, hint))


def _check_order(loader: DataLoader[Any], trainer: Any) -> None:
    """Every example once a pass, at random, in batches of the size that is set."""
    sampler, size = loader.sampler, loader.batch_size
    random = isinstance(sampler, RandomSampler) and not sampler.replacement
    if not random or sampler.num_samples != len(loader.dataset):  # pyright: ignore
        hint = "Leave train_sampling_strategy at 'random' and _get_train_sampler as it is."
        words = "one that draws every example once a pass, at random"
        raise InvalidValueError(must("trainer's sampler", words, type(sampler).__name__, hint))
    if type(loader.batch_sampler) is not BatchSampler or size != trainer._train_batch_size:
        words = f"of the Trainer's own, with batches of {trainer._train_batch_size}"
        got = f"{type(loader.batch_sampler).__name__} of {size}"
        raise InvalidValueError(must("batches", words, got))


def _held(trainer: Any, validation: str | None) -> Any:
    """The one data set to evaluate on; None if there is none."""
    held = trainer.eval_dataset
    if not isinstance(held, dict):
        if validation is not None:
            raise InvalidValueError(
                must("validation", "left out where there is one eval_dataset", validation)
            )
        return held
    if validation is None and len(held) == 1:
        return next(iter(held.values()))
    if validation not in held:
        words = f"one of {', '.join(held)}"
        raise InvalidValueError(must("validation", words, validation, "Every decision reads it."))
    return held[validation]


def _inner(collate: Any) -> Any:
    """The collator itself, without the Trainer's removal of unused columns."""
    return getattr(collate, "data_collator", collate)


def ends(trainer: Any, batch_size: int, examples: int) -> Iterator[str]:
    """What the Trainer does at the end of a pass and the stream does not.

    Args:
        trainer: The user's.
        batch_size: Examples per update.
        examples: N.
    """
    micro = trainer._train_batch_size
    if trainer.args.dataloader_drop_last and examples % micro:
        yield (
            f"the trainer drops the last {examples % micro} examples of a pass "
            "(dataloader_drop_last); here batches run on across the ends of passes"
        )
    elif examples % batch_size:
        yield (
            f"the trainer's last update of a pass uses {examples % batch_size} examples; here "
            f"batches of {batch_size} run on across the ends of passes"
        )
