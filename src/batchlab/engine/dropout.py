"""Dropout masks that depend on (seed, update, place) only, the same in every executor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from batchlab import _random

_ELEMENTWISE = {functional.dropout, torch.dropout, torch.dropout_}
_BY_CHANNEL = {functional.dropout1d: 1, functional.dropout2d: 2, functional.dropout3d: 3}


class NamedDropout(TorchFunctionMode):
    """Serves ``dropout`` from a counter hash instead of torch's global generator.

    Attributes:
        key: Names the run and the update, an int64 tensor of shape ``[]`` (``[R]`` outside vmap).
        calls: Dropouts served so far in this forward pass.
    """

    def __init__(self, key: Int[Tensor, ""]) -> None:
        super().__init__()
        self.key = key
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Replace the dropouts; everything else runs as it is."""
        if func in _ELEMENTWISE:
            return self._drop(*args, **(kwargs or {}))
        if func in _BY_CHANNEL:
            return self._drop(*args, **(kwargs or {}), spatial=_BY_CHANNEL[func])
        return func(*args, **(kwargs or {}))

    def _drop(
        self,
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
        spatial: int = 0,
        train: bool | None = None,
    ) -> Tensor:
        """x·1{u ≥ p}/(1−p), one u per element, or per channel for the spatial kinds."""
        if not (training if train is None else train) or p == 0:
            return input
        shape = input.shape[: input.ndim - spatial] + (1,) * spatial
        u = _random.uniform(self.key, self.calls, int(torch.Size(shape).numel())).reshape(shape)
        self.calls += 1
        if p >= 1:
            return input * 0
        return input * ((u >= p).to(input.dtype) / (1 - p))
