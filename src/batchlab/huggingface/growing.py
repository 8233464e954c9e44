"""A batch size that grows in the Trainer; ``batchlab.huggingface.GrowingTrainer`` is its public
name.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple, cast

import torch
import transformers
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import BatchSampler, DataLoader
from transformers import Trainer

from batchlab.data import GrowingBatchSampler
from batchlab.data.reusing import must_be_reuse, versions
from batchlab.errors import InvalidValueError, ResultError, must
from batchlab.optim import InSamples
from batchlab.schedules import BatchSchedule

KEPT = (
    *("collate_fn", "num_workers", "pin_memory", "timeout", "worker_init_fn"),
    *("multiprocessing_context", "prefetch_factor", "persistent_workers"),
)
"""What the Trainer says of its loader beside the batches."""

LEFT_ALONE: dict[str, tuple[Any, str]] = {
    "gradient_accumulation_steps": (1, "The schedule and per_device_train_batch_size say it."),
    "max_steps": (-1, "The schedule and num_train_epochs say it."),
    "dataloader_drop_last": (False, "Batches run on across the end of a pass."),
    "train_sampling_strategy": ("random", "The order is that of batchlab's stream."),
}
"""Arguments that would say again what the schedule says → what they are then, and why."""


class Epoch(NamedTuple):
    """Updates of an epoch, and the micro-batches of each."""

    updates: int
    accumulation: int


class GrowingTrainer(Trainer):
    """The Trainer with a batch size that follows a schedule, checkpoints included.

    It supplies the training loader and derives ``max_steps`` from the schedule and
    ``num_train_epochs``. ``per_device_train_batch_size`` is what fits into memory: batches above
    that are accumulated, which may change at the start of an epoch only, since the Trainer counts
    by a fixed factor within one. The learning-rate schedule, warm-up included, counts steps of the
    first batch size and goes on by samples; a scheduler of your own counts updates, unless it is
    made with :class:`batchlab.optim.InSamples`.

    With ``reuse`` each batch is fetched once and trained on so often in a row, all its
    micro-batches each time; ``max_steps`` and checkpoints count these updates, the learning-rate
    schedule fresh samples. A checkpoint in the middle of the uses of a batch goes on with those
    that are left.

    Args:
        args: As of the Trainer.
        schedule: The batch size of all processes together, such as ``"0:8 2ep:16"``; see
            :class:`batchlab.data.GrowingBatchSampler`. One number keeps it as it is.
        reuse: Updates on each fetched batch k, at least 1.
        kwargs: As of the Trainer.

    Raises:
        InvalidValueError: If an argument says otherwise what the schedule says, the schedule
            cannot be kept in this memory, or a batch is written to before its last use.
        ResultError: If a checkpoint was trained by another schedule or ``reuse``.

    Source:
        choi2019 for re-use.
    """

    def __init__(
        self, *args: Any, schedule: int | str | BatchSchedule, reuse: int = 1, **kwargs: Any
    ) -> None:
        must_be_reuse(reuse)
        super().__init__(*args, **kwargs)
        self.schedule, self.reuse = schedule, reuse
        self._window: tuple[list[Any], Any] | None = None
        self._used, self._versions = 0, list[int]()
        if not hasattr(Trainer, "_run_epoch"):
            words = "one whose Trainer goes epoch by epoch, 5.0 or newer"
            raise InvalidValueError(must("transformers", words, transformers.__version__))
        for name, (only, hint) in LEFT_ALONE.items():
            if getattr(self.args, name, only) != only:
                raise InvalidValueError(
                    must(name, f"left at {only!r}", getattr(self.args, name), hint)
                )
        if self.args.n_gpu > 1:
            hint = "Start one process for each with torchrun."
            raise InvalidValueError(must("n_gpu", "1 in a process", self.args.n_gpu, hint))

    def sampler(self) -> GrowingBatchSampler:
        """This process's micro-batches of the whole training, from its start."""
        args = self.args
        return GrowingBatchSampler(
            cast(Sized, self.train_dataset),
            self.schedule,
            args.seed if args.data_seed is None else args.data_seed,
            rank=args.process_index,
            world_size=args.world_size,
            max_micro=self._train_batch_size,
        )

    def get_train_dataloader(self) -> DataLoader:
        """The Trainer's own loader with the batches of the schedule."""
        own = super().get_train_dataloader()
        kept = {name: getattr(own, name) for name in KEPT}
        return DataLoader(own.dataset, batch_sampler=self.sampler(), **kept)

    def set_initial_training_values(self, args: Any, dataloader: DataLoader) -> tuple[Any, ...]:
        """Epochs and updates by the schedule."""
        given = super().set_initial_training_values(args, dataloader)
        _, _, examples, samples, *_ = given
        sampler, self._epochs = self.sampler(), []
        for epoch in range(math.ceil(args.num_train_epochs)):
            sampler.set_epoch(epoch)
            accumulation = sampler.accumulation
            updates = len(sampler) // accumulation * self.reuse
            self._epochs.append(Epoch(updates, accumulation))
        begun = 1.0 - (len(self._epochs) - args.num_train_epochs)
        updates = sum(e.updates for e in self._epochs[:-1])
        updates += math.ceil(begun * self._epochs[-1].updates)
        first = self._epochs[0]
        return (
            *(len(self._epochs), first.updates, examples, samples, sampler.schedule.at(0)),
            *(first.updates * first.accumulation, updates),
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:
        """The Trainer's scheduler over the samples of the training."""
        if self.lr_scheduler is None:
            schedule = self.sampler().schedule
            size, examples = schedule.at(0), len(cast(Sized, self.train_dataset))
            steps = math.ceil(self.args.num_train_epochs * examples / size)
            made = super().create_scheduler(steps, optimizer)
            if isinstance(made, LRScheduler) and not isinstance(made, ReduceLROnPlateau):
                self.lr_scheduler = InSamples(made, size, schedule, self.reuse)
        return self.lr_scheduler

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        super()._init_training_state(*args, **kwargs)
        epoch, done = 0, self.state.global_step
        while epoch < len(self._epochs) and done >= self._epochs[epoch].updates:
            epoch, done = epoch + 1, done - self._epochs[epoch].updates
        if epoch == len(self._epochs) or self.args.ignore_data_skip:
            return epoch, 0
        return epoch, done * self._epochs[epoch].accumulation

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._prepare_for_training(*args, **kwargs)
        if isinstance(self.lr_scheduler, InSamples):
            # A checkpoint counts updates; only the rate's scheduler knows of how many examples.
            schedule, done = self.sampler().schedule, self.state.global_step // self.reuse
            stands = reached(self.lr_scheduler.samples, done, schedule, skips=self.args.fp16)
            if not stands:
                words = f"as in the checkpoint up to sample {self.lr_scheduler.samples:,}"
                hint = "From there on it may be another; `reuse` may not."
                raise ResultError(must("schedule", words, str(schedule), hint))
        return made

    def _run_epoch(self, **known: Any) -> None:
        updates, accumulation = self._epochs[known["epoch"]]
        loader = known["train_dataloader"]
        loader.batch_sampler.set_epoch(known["epoch"])
        skipped = self._skipped(known) if self.reuse > 1 else 0
        fresh, self._used = divmod(skipped // accumulation, self.reuse)
        self._window = None
        if skipped:
            rest = Rest(loader.batch_sampler, skipped, fresh * accumulation)
            kept = {name: getattr(loader, name) for name in KEPT}
            known["train_dataloader"] = DataLoader(loader.dataset, batch_sampler=rest, **kept)
        known["num_update_steps_per_epoch"] = updates
        known["steps_in_epoch"] = updates * accumulation
        self.args.gradient_accumulation_steps = accumulation
        try:
            super()._run_epoch(**known)
        finally:
            self.args.gradient_accumulation_steps = 1

    def _skipped(self, known: Mapping[str, Any]) -> int:
        """Micro-batches that the Trainer passes over, where an epoch is gone on with: one for each
        use.
        """
        resumed = known["resume_from_checkpoint"] is not None
        again = resumed and known["epoch"] == known["epochs_trained"]
        skips = again and not self.args.ignore_data_skip
        return known["steps_trained_in_current_epoch"] if skips else 0

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of an update: those fetched last, until they have served k times."""
        if self._window is not None and self._used == self.reuse:
            self._window, self._used = None, 0
        if self._window is None:
            self._window = super().get_batch_samples(epoch_iterator, num_batches, device)
            self._versions = versions(self._window[0])
        elif versions(self._window[0]) != self._versions:
            words = "left as it is until its last use"
            raise InvalidValueError(must("batch", words, "a tensor written to in place"))
        self._used += 1
        return self._window


class Rest(BatchSampler):
    """What is left of an epoch, behind as many empty elements as the Trainer passes over: it
    counts uses, of which each batch was drawn for several.

    Args:
        sampler: Of the epoch, at its beginning.
        skipped: Elements that are passed over.
        drawn: Elements of the sampler that are not needed again.

    Example:
        >>> list(Rest([[0], [1], [2]], skipped=3, drawn=1))
        [[], [], [], [1], [2]]
    """

    def __init__(self, sampler: Iterable[list[int]], skipped: int, drawn: int) -> None:
        self._batches, self._skipped, self._drawn = sampler, skipped, drawn

    def __len__(self) -> int:
        return len(cast(Sized, self._batches)) - self._drawn + self._skipped

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([] for _ in range(self._skipped))
        yield from itertools.islice(self._batches, self._drawn, None)


def reached(samples: int, updates: int, schedule: BatchSchedule, skips: bool = False) -> bool:
    """Whether a learning-rate scheduler stands where a schedule puts it after so many updates.

    Args:
        samples: Where it stands.
        updates: That the training counts.
        schedule: Batch sizes.
        skips: Whether updates that overflowed are counted and do not move the rate, as with fp16;
            then it may stand after fewer.

    Example:
        >>> from batchlab.schedules import batch_schedule
        >>> grows = batch_schedule("0:2 4:3")
        >>> reached(7, 3, grows), reached(4, 3, grows), reached(4, 3, grows, skips=True)
        (True, False, True)
    """
    return any(
        schedule.drawn(done) == samples for done in range(0 if skips else updates, updates + 1)
    )
