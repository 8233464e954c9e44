"""Cells on their way through a cluster: sent, heard of, sent again, paid for."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchlab.cluster.attempt import Answer, Function, carry_out
from batchlab.cluster.fleet import Fleet
from batchlab.cluster.parcel import Parcel
from batchlab.errors import ClusterError, SpendError, TaskError, reason

POLL_SECONDS = 0.25
FAILURES = 3
"""A cell that fails so often in a row without getting further is reported."""
STOP_SECONDS = 2.0
"""What it takes to stop all cells when money runs out."""
CANCEL_SECONDS = 10.0
QUEUED = 2
"""Cells that are sent for each slot, so that none waits for the next."""
WHY = {
    "NodeDiedError": "its node was lost",
    "OutOfMemoryError": "its node ran out of memory",
    "WorkerCrashedError": "its process was killed",
    "ObjectLostError": "its result was lost with its node",
    "LocalRayletDiedError": "its node was lost",
    "TaskCancelledError": "it was cancelled by the cluster",
}


@dataclass(frozen=True)
class Call:
    """What is done for one cell.

    Attributes:
        function: What is called.
        given: The cell's own argument.
        memory: Bytes that are kept free for it.
        kept: Where what it has written for the next attempt is kept here, or None.
        node: Where it has to run, or None for anywhere.
    """

    function: Function
    given: Any
    memory: int = 0
    kept: Parcel | None = None
    node: str | None = None


@dataclass
class Trial:
    """A cell, and how its attempts went.

    Attributes:
        name: The cell's.
        call: What is done.
        attempt: Attempts so far.
        failures: In a row without getting further.
        share: Done, as was heard last.
        kept: Share at the last checkpoint.
        before: The same when this attempt began.
        node: Where it runs; empty before it begins.
        began: When, by the clock here.
        tried: Nodes on which it failed.
        why: What went wrong, attempt by attempt.
        state: What it has written, where nothing here keeps it.
    """

    name: str
    call: Call
    attempt: int = 0
    failures: int = 0
    share: float = 0.0
    kept: float = 0.0
    before: float = 0.0
    node: str = ""
    began: float = math.nan
    tried: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    state: bytes | None = None

    def checkpoint(self) -> bytes | None:
        """What the next attempt goes on from."""
        return self.state if self.call.kept is None else self.call.kept.packed()

    def keep(self, share: float, state: bytes | None) -> None:
        """Something was written; what lies on no shared path came along."""
        self.kept = max(self.kept, share)
        if self.call.kept is None:
            self.state = state or self.state
        else:
            self.call.kept.unpack(state)

    def seconds_left(self, now: float, usual: float) -> float:
        """Of this attempt: by its pace, else by what cells took so far.

        Example:
            >>> Trial("a", Call(print, None), share=0.25, began=0.0).seconds_left(10.0, usual=5.0)
            30.0
        """
        elapsed = 0.0 if math.isnan(self.began) else now - self.began
        done = self.share - self.before
        if done > 0:
            return elapsed * (1 - self.share) / done
        return max(usual - elapsed, 0.0) if usual else elapsed


class Dispatch:
    """Sends cells to the nodes of a cluster and hands back what they gave.

    Args:
        fleet: The cluster.
        shared: Reference to what all cells share.
        calls: Cell → what is done.
        partly: Told a cell's name and the share of it that is done.
        at_once: Cells at a time; 0: as many as there are slots.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self,
        fleet: Fleet,
        shared: Any,
        calls: Mapping[str, Call],
        partly: Callable[[str, float], None],
        at_once: int,
        device: str,
    ) -> None:
        self._fleet, self._shared, self._partly = fleet, shared, partly
        self._at_once, self._device = at_once, device
        self._left = deque(Trial(name, call) for name, call in calls.items())
        self._running: dict[Any, Trial] = {}
        self._failed: list[Trial] = []
        self._total, self._done, self._seconds = len(calls), 0, 0.0

    def results(self) -> Iterator[tuple[str, Any]]:
        """(cell, result) as they end.

        Raises:
            TaskError: If the user's code raises; other nodes would not mend that.
            SpendError: If more money would be spent than is allowed.
            ClusterError: After all others have ended, if a cell failed too often.
        """
        try:
            while self._left or self._running:
                self._send()
                if not self._running or not self._affords(STOP_SECONDS):
                    break
                yield from self._ended()
                self._hear()
                self._tell()
        finally:
            self._cancel()
            self._fleet.purse.rest(time.monotonic())
        self._conclude()

    def _send(self) -> None:
        slots = self._fleet.slots(self._device)
        ahead = QUEUED if self._fleet.purse.limit is None else 1
        most = self._at_once or max(1, ahead * slots)
        while self._left and len(self._running) < most and self._affords_more():
            self._submit(self._left.popleft())

    def _submit(self, trial: Trial) -> None:
        trial.attempt += 1
        trial.node, trial.began, trial.before = "", math.nan, trial.kept
        fleet, call = self._fleet, trial.call
        node = call.node or fleet.elsewhere(trial.tried, self._device, self._busy())
        remote = fleet.remote(carry_out, self._device, call.memory, node)
        told = fleet.hub, trial.name, trial.attempt, fleet.report_seconds(self._device)
        given = call.function, self._shared, call.given, trial.checkpoint(), told, self._device
        self._running[remote.remote(*given)] = trial

    def _busy(self) -> list[str]:
        return [trial.node for trial in self._running.values()]

    def _affords(self, seconds: float, more: float = 0.0) -> bool:
        """Whether the nodes can be held so long."""
        purse = self._fleet.purse
        return purse.pays(purse.after(time.monotonic(), seconds, more))

    def _affords_more(self) -> bool:
        """Whether what runs, and one more cell, would end within the money."""
        if self._fleet.purse.limit is None:
            return True
        now, usual = time.monotonic(), self._seconds / max(1, self._done)
        left = [trial.seconds_left(now, usual) for trial in self._running.values()]
        return self._affords(max([usual + STOP_SECONDS, *left]), self._fleet.next_price())

    def _ended(self) -> Iterator[tuple[str, Any]]:
        """Cells that have ended; those that failed are put back."""
        ray = self._fleet.ray
        refs = list(self._running)
        ready, _ = ray.wait(refs, num_returns=1, timeout=POLL_SECONDS)
        if ready and len(refs) > 1:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            trial = self._running[ref]
            try:
                answer = ray.get(ref)
            except ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None) or error
                raise TaskError(f"Cell {trial.name} raised {reason(cause)}.") from error
            except ray.exceptions.RayError as error:
                self._hear()
                self._again(self._running.pop(ref), error)
                continue
            del self._running[ref]
            yield trial.name, self._taken(trial, answer)

    def _taken(self, trial: Trial, answer: Answer) -> Any:
        """The result of a cell, or the mistake that it found."""
        now = time.monotonic()
        self._fleet.used(answer.node, now - answer.seconds)
        if answer.error is not None:
            raise answer.error
        self._done, self._seconds = self._done + 1, self._seconds + answer.seconds
        self._fleet.note(answer, trial.attempt)
        return answer.result

    def _again(self, trial: Trial, error: BaseException) -> None:
        """Put a cell back whose attempt was lost, or give it up."""
        lost = self._fleet.is_lost(trial.node)
        trial.why.append("its node was lost" if lost else _why(error))
        trial.failures = 1 if trial.kept > trial.before else trial.failures + 1
        trial.share = trial.kept
        self._partly(trial.name, trial.kept)
        if trial.node:
            trial.tried.append(trial.node)
        if trial.failures >= FAILURES:
            self._failed.append(trial)
            return
        self._fleet.say(
            f"cell {trial.name}: {trial.why[-1]}, went on elsewhere from {trial.kept:.0%}"
        )
        self._left.appendleft(trial)

    def _hear(self) -> None:
        """What the nodes have told since."""
        news, now = self._fleet.news(), time.monotonic()
        for trial in [*self._running.values(), *self._left]:
            this = trial.name, trial.attempt
            if this in news.began:
                trial.node, trial.began = news.began[this], now
                self._fleet.used(trial.node, now)
            if this in news.shares:
                trial.share = news.shares[this]
                self._partly(trial.name, trial.share)
            if trial.name in news.kept:
                trial.keep(*news.kept[trial.name])

    def _tell(self) -> None:
        running = sum(bool(trial.node) for trial in self._running.values())
        self._fleet.tell(f"{running} running, {self._done} of {self._total} cells done")

    def _cancel(self) -> None:
        """End what still runs; checkpoints stay."""
        ray, refs = self._fleet.ray, list(self._running)
        if not refs or not ray.is_initialized():
            return
        for ref in refs:
            ray.cancel(ref, force=True)
        ray.wait(refs, num_returns=len(refs), timeout=CANCEL_SECONDS)
        with contextlib.suppress(ray.exceptions.RayError):  # the cluster itself may be gone
            self._hear()

    def _conclude(self) -> None:
        """Say what is missing."""
        kept = f"{self._done} of {self._total} cells are finished"
        purse = self._fleet.purse
        if self._left or self._running:
            spent = f"{purse.spent(time.monotonic()):.3g} {purse.currency}"
            raise SpendError(
                f"The sweep stopped after {spent}, before it would cost more than {purse}; "
                f"{kept}. Add --resume and a larger --max-spend to go on."
            )
        if self._failed:
            lost = "; ".join(f"{t.name} ({', '.join(t.why[-FAILURES:])})" for t in self._failed)
            cells = "A cell" if len(self._failed) == 1 else f"{len(self._failed)} cells"
            raise ClusterError(
                f"{cells} failed on {FAILURES} nodes or attempts: {lost}; {kept}. "
                "--resume tries again."
            )


def _why(error: BaseException) -> str:
    """What happened to an attempt, in words."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return next((WHY[name] for name in names if name in WHY), reason(error))
