"""How much memory something takes in this process, and how much it may take."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from batchlab import _platform
from batchlab._finder import Failure, Outcome
from batchlab._memory import give_back, is_out_of_memory
from batchlab._platform import MemoryLimit
from batchlab.errors import InvalidValueError, must, reason

MARGIN_SHARE = 20
"""Without a margin of the user's own, one part in this many of the limit is kept free."""


class Meter:
    """Peak memory of what runs between ``reset`` and ``peak``, above what was in use at first."""

    def __init__(self, device: str) -> None:
        self.cuda = torch.device(device).type == "cuda"
        self.device = device
        give_back(device)
        self.base = torch.cuda.memory_reserved(device) if self.cuda else _platform.current_rss()

    def limit(self, given: int | str | None) -> MemoryLimit:
        """Bytes that may be used on top of what was in use at first."""
        if not self.cuda:
            return _platform.memory_limit(given)
        free = MemoryLimit(torch.cuda.mem_get_info(self.device)[0], "memory free on the GPU")
        if given is None:
            return free
        asked = MemoryLimit(_platform.parse_bytes(given), "--memory-limit")
        return min(asked, free, key=lambda limit: limit.bytes)

    def reset(self) -> bool:
        """Forget the peak so far; False where the system cannot: then it is never too small."""
        give_back(self.device)
        if not self.cuda:
            return _platform.reset_peak_rss()
        torch.cuda.reset_peak_memory_stats(self.device)
        return True

    def peak(self) -> int:
        """Largest bytes since the reset, above the base."""
        if self.cuda:
            torch.cuda.synchronize(self.device)
            return max(0, torch.cuda.max_memory_reserved(self.device) - self.base)
        return max(0, _platform.peak_rss() - self.base)


def unmeasured(device: str) -> str:
    """Why the memory of this process cannot be measured on a device, or an empty text.

    It can on NVIDIA's GPUs and, on Linux, on the processor.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        return _platform.memory_unavailable()
    return "" if kind == "cuda" else f"memory cannot be measured on {device}"


def tried(
    run: Callable[[], None],
    meter: Meter | None,
    failure_of: Callable[[Exception], Failure | None],
) -> Outcome:
    """Run something once and say what it took, or what ended it.

    Args:
        run: What is tried.
        meter: Measures it, or None.
        failure_of: Which kind of failure an error is; one that is none is raised.

    Returns:
        Whether it ran, its peak bytes if measured, and the reason in words if it did not.

    Example:
        >>> def run():
        ...     raise MemoryError("no more")
        >>> tried(run, None, memory_or_crash).reason
        'MemoryError: no more'
    """
    if meter is not None:
        meter.reset()
    failed = _failed(run, failure_of)
    # Outside the except clause: an exception keeps the frames, and their tensors, alive.
    if failed is not None:
        gc.collect()
        return failed
    return Outcome(True, None if meter is None else meter.peak())


def memory_or_crash(error: Exception) -> Failure:
    """Every error is a failure to fit: for lack of memory, or for another reason."""
    return Failure.MEMORY if is_out_of_memory(error) else Failure.CRASH


def margin_bytes(margin: int | str | None, limit: MemoryLimit) -> int:
    """Bytes to keep free below a limit.

    Args:
        margin: Bytes or text such as ``"200MiB"``; a twentieth of the limit if left out.
        limit: What may be used.

    Raises:
        InvalidValueError: If nothing would be left.

    Example:
        >>> limit = MemoryLimit(2000, "given")
        >>> margin_bytes(None, limit), margin_bytes("1KiB", limit)
        (100, 1024)
    """
    if margin is None:
        return limit.bytes // MARGIN_SHARE
    keep = 0 if margin in (0, "0") else _platform.parse_bytes(margin, "margin")
    if limit.bytes and keep >= limit.bytes:
        raise InvalidValueError(must("margin", f"below the limit of {limit}", margin))
    return keep


def _failed(
    run: Callable[[], None], failure_of: Callable[[Exception], Failure | None]
) -> Outcome | None:
    try:
        run()
    except Exception as error:
        kind = failure_of(error)
        if kind is None:
            raise
        return Outcome(False, None, reason(error), kind)
    return None
