"""What the processes of one training under DistributedDataParallel tell each other."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from batchlab.errors import InvalidTypeError, must

SHARDED = ("FullyShardedDataParallel", "FSDPModule", "ZeroRedundancyOptimizer")
"""Classes whose forward passes or steps are collectives: a process that fails leaves the others
waiting, and gradients are in pieces."""


class Processes:
    """The processes that train one model; one alone tells nobody.

    ``sum``, ``largest``, ``least``, ``add_up``, ``add_gradients`` and ``copy_buffers`` are
    collectives: every process calls them, in the same order.

    Args:
        model: As in the training loop: perhaps in DistributedDataParallel, perhaps compiled.

    Raises:
        InvalidTypeError: If parameters are spread over the processes.

    Example:
        >>> alone = Processes(nn.Linear(1, 1))
        >>> alone.size, alone.sum(2.0, 3.0)
        (1, [2.0, 3.0])
    """

    def __init__(self, model: nn.Module) -> None:
        refuse_sharded(model.modules(), "model")
        # torch.compile wraps too.
        whole = getattr(model, "_orig_mod", model)
        self._ddp = whole if isinstance(whole, DistributedDataParallel) else None
        self.model = model
        self.group: Any = None if self._ddp is None else self._ddp.process_group
        self.size = 1 if self._ddp is None else dist.get_world_size(self.group)
        self.rank = 0 if self._ddp is None else dist.get_rank(self.group)

    @property
    def inner(self) -> nn.Module:
        """The model without the wrapper that talks: forward and backward passes are silent."""
        return self.model if self._ddp is None else self._ddp.module

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def silent(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, a backward pass of the wrapped model tells the others nothing."""
        return contextlib.nullcontext() if self._ddp is None else self._ddp.no_sync()

    def sum(self, *values: float) -> list[float]:
        """Σ of each value over the processes."""
        return self._reduced(values, "SUM")

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over the processes."""
        return self._reduced(values, "MAX")

    def least(self, *values: float) -> list[float]:
        """The least of each value over the processes."""
        return self._reduced(values, "MIN")

    def add_up(self, value: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Σ of a scalar tensor over the processes, in its own format."""
        if self.size == 1:
            return value
        # In one format everywhere: a process without examples has no loss to take it from.
        total = value.to(self.device, torch.float64)
        dist.all_reduce(total, group=self.group)
        return total.to(value.dtype)

    def add_gradients(self) -> None:
        """Every gradient becomes its sum over the processes; one that none has stays None."""
        if self.size == 1:
            return
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        anywhere = self.largest(*(float(p.grad is not None) for p in parameters))
        shared = [p for p, exists in zip(parameters, anywhere, strict=True) if exists]
        for p in shared:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        # In place, tensor by tensor: no memory is asked for that might not be there.
        works = [dist.all_reduce(p.grad, group=self.group, async_op=True) for p in shared]
        for work in works:
            if work is not None:
                work.wait()

    def copy_buffers(self) -> None:
        """The first process's buffers for all, where DistributedDataParallel would do so."""
        if self._ddp is None or not self._ddp.broadcast_buffers:
            return
        first = dist.get_global_rank(self.group, 0)
        for buffer in self.inner.buffers():
            dist.broadcast(buffer, first, group=self.group)

    def on_this_machine(self) -> int:
        """Processes that share this machine's memory, this one included."""
        if self.size == 1:
            return 1
        names: list[Any] = [None] * self.size
        dist.all_gather_object(names, platform.node(), group=self.group)
        return names.count(platform.node())

    def refuse_talking_layers(self) -> None:
        """A layer that talks in its forward pass would wait for a process that failed.

        Raises:
            InvalidTypeError: If there is one.
        """
        talks = any(isinstance(module, nn.SyncBatchNorm) for module in self.model.modules())
        if talks and self.size > 1:
            hint = "Its forward pass waits for every process, also for one that has failed."
            constraint = "without SyncBatchNorm for this"
            raise InvalidTypeError(must("model", constraint, "a model with it", hint))

    def _reduced(self, values: Sequence[float], how: str) -> list[float]:
        if self.size == 1:
            return list(values)
        ballot = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(ballot, getattr(dist.ReduceOp, how), group=self.group)
        return ballot.tolist()


def refuse_sharded(parts: Any, name: str) -> None:
    """Refuse what is spread over several processes.

    Args:
        parts: Modules, or optimizers.
        name: The argument they came in.

    Raises:
        InvalidTypeError: If one is.
    """
    kinds = {kind.__name__ for part in parts for kind in type(part).__mro__}
    if found := kinds & set(SHARDED):
        hint = "Only DistributedDataParallel is supported."
        constraint = "whole in every process"
        raise InvalidTypeError(must(name, constraint, ", ".join(sorted(found)), hint))
