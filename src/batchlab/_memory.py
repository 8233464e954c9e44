"""By what errors libraries say that memory ran out, and how it is given back."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from batchlab import _platform

T = TypeVar("T")

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "unable to allocate",
    "bad_alloc",
    "alloc_failed",
    "could not create a memory object",
    "defaultcpuallocator",
)
"""Parts of messages, in lower case, by which libraries say that memory ran out."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: by its type, or by its text.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("CUDA error: invalid configuration argument"))
        False
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError | OSError) and any(
        part in text for part in OUT_OF_MEMORY
    )


def if_it_fits(work: Callable[[], T], last: bool) -> T | None:
    """What work gives; None where memory ran out. When this returns, the error is gone, and with
    it the frames that keep tensors alive.

    Args:
        work: May run out of memory.
        last: Whether there is nothing smaller to try: then the error is raised.

    Example:
        >>> if_it_fits(lambda: [].pop(), last=False)
        Traceback (most recent call last):
            ...
        IndexError: pop from empty list
    """
    try:
        return work()
    except Exception as error:  # by type or by text, depending on what allocates
        if last or not is_out_of_memory(error):
            raise
    return None


def give_back(device: torch.device | str) -> None:
    """Return what nothing refers to any more to the device, so that it is free for what comes.

    Args:
        device: Where it lies.
    """
    gc.collect()
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.empty_cache()
    elif kind == "cpu":
        _platform.return_free_memory()
