"""The watch as a Lightning callback; ``batchlab.lightning.Watch`` is its public name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from lightning.pytorch import Callback, LightningModule, Trainer

from batchlab.watch import loop
from batchlab.watch.record import Ending


class Watch(Callback):
    """Measures a Lightning training while it runs, without changing it.

    It does what :class:`batchlab.watch.Watch` does. Training batches count, those of the sanity
    check and of validation do not. Waiting for data is the time between two training batches
    without validation, moving the batch to its device included. The counts travel in Lightning's
    checkpoints: a ``fit`` with ``ckpt_path`` goes on counting, in the same directory or another.

    Args:
        directory: Result directory.
        metrics: Which logged metrics to record after validation, each with whether more is better.
            Left out, those whose name begins with ``val``.
        options: As in :class:`batchlab.watch.Watch`; the seed is that of ``seed_everything`` if
            left out.

    Attributes:
        watching: The watch, once training has begun.

    Example:
        >>> callback = Watch("runs/today", price_per_hour=2.5)
        >>> callback.state_dict()
        {}
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        metrics: Mapping[str, bool] | None = None,
        **options: Unpack[loop.Options],
    ) -> None:
        self._directory, self._metrics, self._options = directory, metrics, options
        self._state: dict[str, float] = {}
        self.watching: loop.Watch | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        options = loop.Options(seed=_seed()) | self._options
        watching = loop.Watch(
            self._directory, pl_module, trainer.optimizers[0], scaler=scaler, **options
        )
        if self._state:
            watching.load_state_dict(self._state)
        self.watching = watching.open()
        watching.draws_from(trainer.train_dataloader)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The first batch of an epoch is waited for."""
        if self.watching is not None:
            self.watching.waits()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A batch is there."""
        if self.watching is not None:
            self.watching.begin(loop.examples_in(batch, self._options.get("batch_size")))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """It is done; the next one is waited for."""
        if self.watching is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            # Lightning hands out what it divided by the accumulation.
            parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
            self.watching.loss(loss.detach() * parts)
        self.watching.waits()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the metrics; validation was no waiting."""
        if self.watching is None or trainer.sanity_checking:
            return
        for name, value in trainer.callback_metrics.items():
            wanted = name.startswith("val") if self._metrics is None else name in self._metrics
            if wanted:
                self.watching.metric(name, value, maximise=(self._metrics or {}).get(name))
        self.watching.waits()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Conclude."""
        self._close(Ending.FINISHED)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Conclude from what there is."""
        self._close(Ending.STOPPED)

    def state_dict(self) -> dict[str, Any]:
        """Where the counts stand, for Lightning's checkpoint."""
        return self.watching.state_dict() if self.watching is not None else dict(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint of Lightning's."""
        self._state = dict(state_dict)

    def _close(self, ending: Ending) -> None:
        if self.watching is not None:
            self.watching.close(ending)


def _seed() -> int | None:
    """What ``seed_everything`` was called with."""
    found = os.environ.get("PL_GLOBAL_SEED", "")
    return int(found) if found.isdigit() else None
