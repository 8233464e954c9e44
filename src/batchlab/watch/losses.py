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
    """Collects losses of micro-batches."""

    def __init__(self) -> None:
        self._told: list[tuple[int, int, Tensor | float]] = []

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
            on_host = value.device.type == "cpu"
            value = value.item() if on_host else value.detach().clone().reshape(())
        self._told.append((update, examples, value))

    @property
    def pending(self) -> bool:
        """Whether there are any."""
        return bool(self._told)

    def take(self) -> Mean:
        """The mean of what was told since the last time.

        Example:
            >>> losses = Losses()
            >>> losses.tell(update=1, examples=3, value=1.0)
            >>> losses.tell(update=2, examples=1, value=5.0)
            >>> losses.take()
            Mean(value=2.0, diverged=None)
        """
        told, self._told = self._told, []
        if not told:
            return Mean(None, None)
        tensors = [value.float() for _, _, value in told if isinstance(value, Tensor)]
        read = iter(torch.stack(tensors).tolist() if tensors else [])
        values = [next(read) if isinstance(v, Tensor) else float(v) for _, _, v in told]
        weights = [max(examples, 1) for _, examples, _ in told]
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        bad = (u for (u, _, _), v in zip(told, values, strict=True) if not math.isfinite(v))
        return Mean(mean, next(bad, None))
