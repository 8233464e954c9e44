"""How long the training waits for data, and what measuring adds on a GPU that works on its own.

A GPU takes work from a queue. While the program waits for a batch, the GPU may still be busy with
the one before; waiting counts only from when its queue is empty. Events in the queue tell when
that was, without stopping for it: they are read when a line is written.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch


@runtime_checkable
class Event(Protocol):
    """A mark in a GPU's queue, such as ``torch.cuda.Event``."""

    def record(self) -> None:
        """Put it into the queue."""

    def synchronize(self) -> None:
        """Wait until the queue has come to it."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from here to a later mark."""
        ...


def marks(device: torch.device) -> Callable[[], Event] | None:
    """What makes marks in the device's queue; None where there is no queue to be read."""
    if device.type != "cuda":
        return None

    def mark() -> Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    return mark


def idle(entered: float, left: float, drained: float) -> float:
    """Seconds between ``entered`` and ``left`` in which a queue that ran empty at ``drained`` was
    empty.

    Example:
        >>> idle(1.0, 3.0, drained=2.5), idle(1.0, 3.0, drained=0.5), idle(1.0, 3.0, drained=4.0)
        (0.5, 2.0, 0.0)
    """
    return max(0.0, left - max(entered, drained))


class Waiting:
    """Seconds of waiting for data.

    Args:
        device: Where the training runs.
        mark: Makes a mark in the device's queue; found by the device if left out.
        clock: Seconds; the machine's if left out.

    Attributes:
        asked: Seconds between asking and getting, whatever the device does meanwhile.
    """

    def __init__(
        self,
        device: torch.device,
        mark: Callable[[], Event] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._clock, self._mark = clock or time.perf_counter, mark or marks(device)
        self._seconds = self.asked = 0.0
        self._entered: tuple[float, Event | None] | None = None
        self._visits: list[tuple[float, float, Event]] = []
        self._anchor: tuple[float, Event] | None = None

    def enter(self) -> None:
        """The program asks for a batch."""
        if self._mark is not None and self._anchor is None:
            self._anchor = self._anchored(self._mark())
        self._entered = self._clock(), self._mark() if self._mark else None

    def leave(self) -> None:
        """It has got one."""
        if self._entered is None:
            return
        (entered, event), left = self._entered, self._clock()
        self._entered = None
        self.asked += left - entered
        if event is None:
            self._seconds += left - entered
        else:
            self._visits.append((entered, left, event))

    def seconds(self) -> float:
        """All so far. On a GPU it waits for the queue."""
        if self._mark is not None and self._anchor is not None:
            began, first = self._anchor
            # Clocks of host and device drift apart: what follows is read from a new mark.
            self._anchor = self._anchored(self._mark())
            for entered, left, event in self._visits:
                drained = began + first.elapsed_time(event) / 1000
                self._seconds += idle(entered, left, drained)
            self._visits = []
        return self._seconds

    def _anchored(self, event: Event) -> tuple[float, Event]:
        """A mark and the host's time when the queue came to it."""
        event.synchronize()
        return self._clock(), event


class HostMark:
    """A mark in time where there is no queue."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def record(self) -> None:
        """Move it to now."""
        self._at = time.perf_counter()

    def synchronize(self) -> None:
        """There is nothing to wait for."""

    def elapsed_time(self, end_event: HostMark) -> float:
        """Milliseconds from here to a later mark."""
        return 1000 * (end_event._at - self._at)


class Laps:
    """What measured updates take longer than others. The time of their hooks says less: a GPU does
    their work later, and a processor's caches are left colder.

    Args:
        device: Where the training runs.
        mark: As in :class:`Waiting`.
    """

    def __init__(self, device: torch.device, mark: Callable[[], Event] | None = None) -> None:
        self._mark = mark or marks(device) or HostMark
        self._begun: Event | None = None
        self._unread: list[tuple[bool, Event, Event]] = []
        self._plain = 0
        self._times: dict[bool, list[float]] = {True: [], False: []}

    def begin(self, due: bool) -> None:
        """An update begins.

        Args:
            due: Whether it may be measured; of the others no more are timed than are compared.
        """
        self._begun = self._mark() if due or self._plain < KEPT else None

    def end(self, measured: bool) -> None:
        """It is done."""
        if self._begun is not None:
            self._unread.append((measured, self._begun, self._mark()))
            self._plain += not measured

    def longer(self) -> float:
        """Seconds by which a measured update is longer, from the medians of the latest of both
        kinds; 0 until enough were measured.
        """
        for measured, begun, ended in self._unread:
            ended.synchronize()
            self._times[measured].append(begun.elapsed_time(ended) / 1000)
        self._unread, self._plain = [], 0
        self._times = {kind: times[-KEPT:] for kind, times in self._times.items()}
        if min(map(len, self._times.values())) < LEAST:
            return 0.0
        measured, plain = (statistics.median(self._times[kind]) for kind in (True, False))
        return max(0.0, measured - plain)


LEAST, KEPT = 5, 64
"""Updates of each kind whose times are compared."""
