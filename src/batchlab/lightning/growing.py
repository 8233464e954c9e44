"""A batch size that grows in a Lightning training; ``batchlab.lightning.GrowingBatch`` is its
public name.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from batchlab.data import GrowingBatchSampler, ReusingBatchSampler, ReusingLoader
from batchlab.errors import InvalidValueError, ResultError, must

NOT_RESUMABLE = "You're resuming from a checkpoint that ended before the epoch ended"


class GrowingBatch(Callback):
    """Lets a Lightning training follow the schedule of a sampler, checkpoints included.

    The batch changes at any point; the accumulation factor, from the sampler's ``max_micro``, at
    the start of an epoch only, since Lightning counts windows by a fixed factor. Ranks, lengths of
    epochs and the places of validations follow the sampler. ``fit`` with ``ckpt_path`` goes on at
    the batch after the last one trained, on another number of devices too where that keeps the
    accumulation of the epoch in hand. A batch of which only some pieces were trained begins anew:
    their gradients are in no checkpoint.

    Under several devices pass ``use_distributed_sampler=False`` to the Trainer: the sampler gives
    each its share. Lightning averages their means, so sizes should be multiples of their number.

    Args:
        sampler: The ``batch_sampler`` of the training loader; with re-use of batches a
            :class:`batchlab.data.ReusingBatchSampler`, or the
            :class:`batchlab.data.ReusingLoader` that is the training loader itself.

    Raises:
        InvalidValueError: At the start of ``fit``, if the loader has another sampler, or the
            Trainer is told itself how many batches make an update or an epoch.
        ResultError: There too, if inside an epoch the accumulation is not the checkpoint's.

    Example:
        >>> sampler = GrowingBatchSampler(60_000, "0:64 10ep:512", max_micro=128)
        >>> callback = GrowingBatch(sampler)  # Trainer(callbacks=[callback])
        >>> callback.state_dict()["samples"]
        0
    """

    def __init__(self, sampler: GrowingBatchSampler | ReusingBatchSampler | ReusingLoader) -> None:
        self.sampler, self._trained, self._finished = sampler, 0, 0
        self._loaded, self._quiet = 0, contextlib.ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take this process's share."""
        if stage != "fit":
            return
        for name, only in (("accumulate_grad_batches", 1), ("limit_train_batches", 1.0)):
            if getattr(trainer, name) != only:
                hint = "The sampler's schedule and `max_micro` say it."
                raise InvalidValueError(must(name, "left out", getattr(trainer, name), hint))
        self.sampler.divide(trainer.global_rank, trainer.world_size)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Also where an epoch is gone on with, which begins no epoch for Lightning."""
        loader = trainer.train_dataloader
        found = getattr(loader, "batch_sampler", None)
        if self.sampler is not found and self.sampler is not loader:
            words = "the `batch_sampler` of the training loader"
            raise InvalidValueError(must("sampler", words, type(found).__name__))
        if self._trained and self._loaded != self.sampler.accumulation:
            words = f"{self._loaded}, as in the checkpoint, until the epoch ends"
            hint = "Resume with that `max_micro` and as many devices, or from the end of an epoch."
            got = self.sampler.accumulation
            raise ResultError(must("accumulate_grad_batches", words, got, hint))
        self._tell(trainer)
        if self._loaded:
            self._go_back(trainer)
        if self._finished:
            # By this Lightning sees that the epoch of its checkpoint was at its end.
            trainer.fit_loop.max_batches = self._finished

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go to the epoch, unless its batches are being fetched already."""
        if self.sampler.epoch != trainer.current_epoch:
            self.sampler.set_epoch(trainer.current_epoch)
            self._trained = 0
        self._tell(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """After that, the length is that of the new epoch."""
        self._quiet.close()
        if self._finished:
            self._finished = 0
            self._tell(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count: a loader with workers has fetched more than that."""
        self._trained = batch_idx + 1

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the trainer as it was, so that it may fit once more."""
        self._quiet.close()
        if stage == "fit":
            trainer.accumulate_grad_batches = 1

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """After an error nothing is torn down."""
        self._quiet.close()

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands, for Lightning's checkpoint."""
        stands = self.sampler.state_dict(trained=self._trained)
        return stands | {"accumulation": self.sampler.accumulation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint of Lightning's."""
        self.sampler.load_state_dict(state_dict)
        self._loaded = state_dict["accumulation"]
        self._trained, self._finished = state_dict["drawn"] * self.sampler.accumulation, 0
        if self._trained == len(self.sampler):
            self._trained, self._finished = 0, state_dict["drawn"] * self._loaded
            self.sampler.set_epoch(state_dict["epoch"] + 1)

    def _go_back(self, trainer: Trainer) -> None:
        """Let Lightning count from where the sampler stands: the start of a whole batch."""
        # The loader has no state; its batch sampler has just been put where it stood.
        self._quiet.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=NOT_RESUMABLE)
        loop, done = trainer.fit_loop.epoch_loop, self._trained
        pieces = loop.batch_progress.current.ready - done
        if self._finished or not 0 < pieces <= self._loaded:
            return
        now, total = loop.batch_progress.current, loop.batch_progress.total
        for tracker, whole in ((now, done), (total, total.ready - pieces)):
            tracker.completed = whole
            tracker.reset_on_restart()
        # Lightning's restart counts the update before this place, which has been counted.
        loop.reset_restart_stage()
        loop._batches_that_stepped -= 1

    def _tell(self, trainer: Trainer) -> None:
        """Lightning holds what it reads of the first epoch for that of all."""
        batches = len(self.sampler)
        trainer.accumulate_grad_batches = self.sampler.accumulation
        trainer.fit_loop.max_batches = batches
        if trainer.fit_loop._combined_loader is not None:
            trainer.fit_loop._combined_loader.limits = None
        if isinstance(trainer.val_check_interval, float):
            trainer.val_check_batch = max(1, int(batches * trainer.val_check_interval))
