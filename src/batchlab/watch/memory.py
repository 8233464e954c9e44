"""How much memory a training uses, and how much it may use."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from batchlab import _platform


@dataclass(frozen=True)
class Limit:
    """How much the training may use in all.

    Attributes:
        bytes: None where unknown.
        source: What says so, or why it is unknown.
    """

    bytes: int | None
    source: str


def limit(device: torch.device) -> Limit:
    """What a training on this device may use: the GPU's memory, or what this process holds already
    and what is free beside it.

    Args:
        device: Where the training runs.
    """
    if device.type == "cuda":
        return Limit(torch.cuda.mem_get_info(device)[1], "memory of the GPU")
    if device.type != "cpu":
        return Limit(None, f"the memory of {device.type} is not told")
    if reason := _platform.memory_unavailable():
        return Limit(None, reason)
    free = _platform.memory_limit()
    return Limit(_platform.current_rss() + free.bytes if free.bytes else None, free.source)


def peak(device: torch.device) -> int | None:
    """The most this process has used so far, bytes; None where unknown. Nothing is reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if device.type != "cpu" or _platform.memory_unavailable():
        return None
    return _platform.peak_rss()
