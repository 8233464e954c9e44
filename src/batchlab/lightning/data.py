"""What Lightning's data says of a task: data sets, collate, batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
)

from batchlab import _random
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.lightning.kinds import is_a, overrides
from batchlab.lightning.module import BATCH_HOOKS, StandIn, guarded

TRANSFER = "transfer_batch_to_device"


class Examples(Dataset):
    """A list of examples as a data set, which a list of tensors would not be taken for."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


@dataclass(frozen=True)
class Data:
    """What the loaders hold.

    Attributes:
        train: Training data set.
        validation: Validation data set, or None.
        collate: The loaders' ``collate_fn``, or None for torch's own.
        batch_size: Of the training loader.
        drop_last: Whether it leaves out a short last batch.
        notes: What is said about it.
    """

    train: Any
    validation: Any
    collate: Any
    batch_size: int
    drop_last: bool
    notes: tuple[str, ...]

    @property
    def examples(self) -> int:
        """Training examples N."""
        return len(self.train)


def read_data(given: Any, module: Any, stand_in: StandIn) -> Data:
    """The data of a LightningDataModule, of loaders, or of a module that brings its own.

    Args:
        given: A LightningDataModule that is set up, a DataLoader, a pair of them, or None for the
            module's own.
        module: A throw-away copy of the module.
        stand_in: For the trainer.

    Returns:
        Data sets, collate and batch size.

    Raises:
        InvalidTypeError: If something is of a kind that cannot be drawn from by number.
        InvalidValueError: If a loader draws in a way that cannot be kept.
    """
    train_loader, validation_loader = _loaders(given, module, stand_in)
    train = _checked(train_loader, "train")
    validation = None if validation_loader is None else _checked(validation_loader, "validation")
    if validation is not None and _collate(train) != _collate(validation):
        hint = "One collate makes the batches of both."
        words = "the same for training and validation"
        raise InvalidValueError(must("collate_fn", words, "two different ones", hint))
    return Data(
        _dataset(train),
        None if validation is None else _dataset(validation),
        _collate(train),
        _size(train),
        train.drop_last,
        tuple(_notes(train)),
    )


def _loaders(given: Any, module: Any, stand_in: StandIn) -> tuple[Any, Any]:
    """The training loader, and the validation loader or None."""
    if isinstance(given, tuple | list) and len(given) == 2:
        return given[0], given[1]
    if isinstance(given, DataLoader):
        return given, None
    if given is not None and not is_a(given, "LightningDataModule"):
        wanted = "a LightningDataModule, a DataLoader, or a pair (training, validation) of them"
        got = type(given).__name__
        raise InvalidTypeError(must("datamodule", wanted, got))
    source = module if given is None else given
    if not overrides(source, "train_dataloader"):
        hint = "Give a LightningDataModule, a DataLoader, or a pair of them."
        got = f"{type(source).__name__} without a train_dataloader"
        raise InvalidTypeError(must("datamodule", "given", got, hint))
    return _ask(source, stand_in)


def _ask(source: Any, stand_in: StandIn) -> tuple[Any, Any]:
    """The loaders of a LightningDataModule or a module."""
    train = validation = None
    with lent(source, stand_in), _random.seeded(0, "loaders"):
        train = guarded(source.train_dataloader, what="train_dataloader")
        if overrides(source, "val_dataloader"):
            validation = guarded(source.val_dataloader, what="val_dataloader")
    return _one(train, "train_dataloader"), _one(validation, "val_dataloader")


@contextlib.contextmanager
def lent(source: Any, stand_in: StandIn) -> Iterator[None]:
    """A module or LightningDataModule with what stands for its trainer."""
    before = getattr(source, "_trainer" if is_a(source, "LightningModule") else "trainer", None)
    source.trainer = stand_in
    try:
        yield
    finally:
        source.trainer = before


def set_up(given: Any, stand_in: StandIn) -> None:
    """Prepare a LightningDataModule as ``Trainer.fit`` does, its random draws always the same."""
    if not is_a(given, "LightningDataModule"):
        return
    _must_not_move_batches(given)
    with lent(given, stand_in), _random.seeded(0, "setup"):
        guarded(given.prepare_data, what="prepare_data")
        guarded(given.setup, "fit", what="setup")


def _must_not_move_batches(source: Any) -> None:
    hook = next((hook for hook in (*BATCH_HOOKS, TRANSFER) if overrides(source, hook)), None)
    if hook is not None:
        hint = f"Move it to the module, where it is kept, unless it is {TRANSFER}."
        raise InvalidValueError(must("datamodule", "one without batch hooks", hook, hint))


def _one(loaders: Any, name: str) -> Any:
    """The only loader there is, or None."""
    if isinstance(loaders, tuple | list):
        if len(loaders) > 1:
            hint = "Give the pair (training, validation) of loaders that count."
            raise InvalidValueError(must(name, "one loader", f"{len(loaders)} loaders", hint))
        return loaders[0] if loaders else None
    return loaders


def _checked(loader: Any, name: str) -> DataLoader:
    """A loader whose examples can be asked for by number, and which draws them plainly."""
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        got = type(loader).__name__
        raise InvalidTypeError(must(name, "a torch DataLoader", got))
    if isinstance(loader.dataset, IterableDataset):
        hint = "One order for every batch size needs examples that can be asked for by number."
        raise InvalidTypeError(must(name, "a map-style Dataset", "an IterableDataset", hint))
    if type(loader.batch_sampler) is not BatchSampler:
        got = type(loader.batch_sampler).__name__
        hint = "Its batches are not drawn one example at a time."
        raise InvalidValueError(must("batch_sampler", "torch's own", got, hint))
    if not _draws_plainly(loader.sampler, loader.dataset):
        hint = "batchlab draws every example once a pass, in random order."
        wanted = "a RandomSampler, SubsetRandomSampler or SequentialSampler"
        raise InvalidValueError(must("sampler", wanted, _sampler_said(loader.sampler), hint))
    return loader


def _draws_plainly(sampler: Any, dataset: Any) -> bool:
    """Whether every example comes once a pass."""
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(dataset)
    return type(sampler) in (SequentialSampler, SubsetRandomSampler, DistributedSampler)


def _sampler_said(sampler: Any) -> str:
    name = type(sampler).__name__
    if type(sampler) is RandomSampler:
        return f"{name}(replacement={sampler.replacement}, num_samples={sampler.num_samples})"
    return name


def _dataset(loader: DataLoader) -> Any:
    """The examples that a loader draws from."""
    dataset: Any = loader.dataset
    if isinstance(dataset, tuple | list):
        dataset = Examples(dataset)
    if isinstance(loader.sampler, SubsetRandomSampler):
        return Subset(dataset, list(loader.sampler.indices))
    return dataset


def _size(loader: DataLoader) -> int:
    assert loader.batch_size is not None
    return loader.batch_size


def _collate(loader: DataLoader) -> Any:
    return None if loader.collate_fn is default_collate else loader.collate_fn


def _notes(loader: DataLoader) -> Iterator[str]:
    """What is said of a training loader."""
    sampler = loader.sampler
    shuffled = not isinstance(sampler, SequentialSampler) and getattr(sampler, "shuffle", True)
    if not shuffled:
        yield "your training loader does not shuffle: here every pass has a random order"
    if loader.num_workers:
        yield f"the {loader.num_workers} worker processes of your training loader are not used"
