"""The watch as a callback of the Hugging Face Trainer; ``batchlab.huggingface.Watch`` is its
public name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import torch
from torch.utils.hooks import RemovableHandle
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from batchlab.watch import loop
from batchlab.watch.journal import NAME, read
from batchlab.watch.record import About, Ending

NO_METRICS = ("_runtime", "_per_second", "epoch", "_time")
"""Ends of names of what the Trainer reports beside metrics."""


class Watch(TrainerCallback):
    """Measures a training by the Hugging Face Trainer while it runs, without changing it.

    It does what :class:`batchlab.watch.Watch` does. The Trainer tells its callbacks neither
    batches nor losses: examples are counted where the model is called in training, and the loss is
    the one that the Trainer logs. Waiting for data is the time between two updates without
    logging, evaluation and saving. Where a training goes on from a checkpoint of the Trainer, the
    counts go on too. The Trainer does not tell that a training raised: :meth:`close` then gives
    the directory free.

    Args:
        directory: Result directory.
        metrics: Which evaluated metrics to record, such as ``eval_accuracy``, each with whether
            more is better. Left out, all of them.
        options: As in :class:`batchlab.watch.Watch`; a function for ``batch_size`` is given the
            model's keyword arguments, and the seed is the Trainer's if left out.

    Attributes:
        watching: The watch, once training has begun.

    Example:
        >>> callback = Watch("runs/today", metrics={"eval_accuracy": True})
        >>> callback.watching is None
        True
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        metrics: Mapping[str, bool] | None = None,
        **options: Unpack[loop.Options],
    ) -> None:
        self._directory, self._metrics, self._options = Path(directory), metrics, options
        self._call: RemovableHandle | None = None
        self._told = False
        self.watching: loop.Watch | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin, or go on from a checkpoint; begin anew where the Trainer does."""
        anew = self.watching is not None and self.watching.is_open
        self.close(Ending.STOPPED)
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        scaler = getattr(optimizer, "scaler", None)
        # The Trainer itself seeds with it.
        options = loop.Options(seed=args.seed) | self._options
        watching = loop.Watch(self._directory, model, optimizer, scaler=scaler, **options)
        guessed = False
        if anew or state.global_step:
            counts, guessed = self._counts(args, state)
            watching.load_state_dict(counts)
        self.watching = watching.open()
        watching.draws_from(kwargs.get("train_dataloader"))
        if guessed:
            watching.note(About.COUNTS, "examples before the checkpoint as whole batches of today")
        # A compiled or copied model is not called where a hook would see its batch.
        if not args.torch_compile and args.n_gpu < 2:
            self._call = model.register_forward_pre_hook(self._called, with_kwargs=True)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first batch of an epoch is waited for."""
        self._waits()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """All micro-batches of an update are there."""
        self._begin()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A micro-batch is done, and the next one is there already."""
        self._count(args)
        self._begin()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An update is done."""
        self._count(args)
        self._waits()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the logged loss. The Trainer hides a loss that is NaN, but not the gradient."""
        if self.watching is None or not self.watching.is_open or "loss" not in (logs or {}):
            return
        assert logs is not None
        sound = math.isfinite(float(logs.get("grad_norm", 0.0)))
        self.watching.loss(float(logs["loss"]) if sound else math.nan)
        self.watching.record()
        self._waits()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the metrics; evaluation was no waiting."""
        if self.watching is None or not self.watching.is_open:
            return
        for name, value in (metrics or {}).items():
            known = (
                not name.endswith(NO_METRICS) if self._metrics is None else name in self._metrics
            )
            if known and isinstance(value, int | float):
                self.watching.metric(name, value, maximise=(self._metrics or {}).get(name))
        self._waits()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record where a later training may go on; saving was no waiting."""
        if self.watching is not None and self.watching.is_open:
            self.watching.checkpoint(state.global_step)
            self._waits()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Conclude."""
        self.close(Ending.FINISHED)

    def close(self, ending: Ending = Ending.STOPPED) -> None:
        """Conclude and take every hook away.

        Args:
            ending: Whether the training ended by itself.
        """
        if self._call is not None:
            self._call.remove()
            self._call = None
        if self.watching is not None:
            self.watching.close(ending)

    def _called(self, model: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """The model is called: what with, if this is training."""
        if model.training and torch.is_grad_enabled() and not self._told and self.watching:
            batch_size = self._options.get("batch_size")
            batch = kwargs if callable(batch_size) else (args, kwargs)
            self.watching.tell(loop.examples_in(batch, batch_size))
            self._told = True

    def _begin(self) -> None:
        self._told = False
        if self.watching is not None:
            self.watching.begin()

    def _count(self, args: TrainingArguments) -> None:
        """A micro-batch that nobody has seen counts as a whole one."""
        if self.watching is not None and not self._told:
            self.watching.tell(args.train_batch_size)

    def _waits(self) -> None:
        if self.watching is not None and self.watching.is_open:
            self.watching.waits()

    def _counts(
        self, args: TrainingArguments, state: TrainerState
    ) -> tuple[dict[str, float], bool]:
        """Samples, updates and seconds at the checkpoint, and whether they had to be guessed."""
        step = state.global_step
        before = read(self._directory) if (self._directory / NAME).is_file() else None
        for line in reversed(before.checkpoints if before else ()):
            if line.step == step:
                seconds = line.seconds
                counts = {"samples": line.samples, "updates": line.updates, "seconds": seconds}
                return counts, False
        whole = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        return {"samples": step * whole, "updates": step, "seconds": 0.0}, step > 0
