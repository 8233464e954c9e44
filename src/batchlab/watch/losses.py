"""Losses told during a training, read from the device together."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from batchlab.errors import InvalidValueError, must


class Mean(NamedTuple):
    """Losses of some updates.

    Attributes:
        value: Mean over examples; None where none was told.
        diverged: First update whose loss was not finite, or None.
    """

    value: float | None
    diverged: int | None


class Losses:
    """Collects losses of micro-batches: numbers are added up, tensors on a GPU are kept."""

    def __init__(self) -> None:
        self._sum, self._weight = 0.0, 0
        self._bad: int | None = None
        self._elsewhere: list[tuple[int, int, Tensor]] = []

    def tell(self, update: int, examples: int, value: Tensor | float) -> None:
        """Keep a loss; of a tensor on a GPU a copy, which is not waited for.

        Args:
            update: To which it belongs, counted from 1.
            examples: Of which it is the mean.
            value: One number.

        Raises:
            InvalidValueError: If it is more than one.
        """
        if isinstance(value, Tensor):
            if value.numel() != 1:
                raise InvalidValueError(must("loss", "one number", tuple(value.shape)))
            if not value.is_cpu:
                copy = value.detach().clone().reshape(())
                self._elsewhere.append((update, examples, copy))
                return
            value = value.item()
        self._add(update, examples, float(value))

    def _add(self, update: int, examples: int, value: float) -> None:
        weight = max(examples, 1)
        self._sum += weight * value
        self._weight += weight
        if not math.isfinite(value):
            self._bad = update if self._bad is None else min(self._bad, update)

    @property
    def pending(self) -> bool:
        """Whether there are any."""
        return bool(self._weight or self._elsewhere)

    def take(self) -> Mean:
        """The mean of what was told since the last time.

        Example:
            >>> losses = Losses()
            >>> losses.tell(update=1, examples=3, value=1.0)
            >>> losses.tell(update=2, examples=1, value=5.0)
            >>> losses.take()
            Mean(value=2.0, diverged=None)
        """
        told, self._elsewhere = self._elsewhere, []
        read = torch.stack([value.float() for *_, value in told]).tolist() if told else []
        for (update, examples, _), value in zip(told, read, strict=True):
            self._add(update, examples, value)
        found = Mean(self._sum / self._weight, self._bad) if self._weight else Mean(None, None)
        self._sum, self._weight, self._bad = 0.0, 0, None
        return found
