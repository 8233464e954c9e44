"""One attempt at a cell on a node: told about as it goes on. Nothing here needs torch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from batchlab import _platform
from batchlab.cluster.parcel import Parcel
from batchlab.errors import UserError

FOLDER_SECONDS = 60.0
"""Between two times that a whole folder is sent."""


@dataclass(frozen=True)
class Facts:
    """What the last bits of a result depend on, beside the task.

    Attributes:
        processor: Its model.
        accelerator: The GPU's model, or nothing.
        threads: Of torch.
        torch: Its version.
        batchlab: Its version.
    """

    processor: str
    accelerator: str
    threads: int
    torch: str
    batchlab: str


def facts(device: str) -> Facts:
    """Those of this process.

    Args:
        device: Where it trains.
    """
    accelerator = ""
    if device.startswith("cuda"):
        accelerator = importlib.import_module("torch").cuda.get_device_name()
    # On CPUs and GPUs alike, cells train on one thread.
    versions = metadata.version("torch"), _platform.version()
    return Facts(_platform.processor_name(), accelerator, 1, *versions)


@dataclass(frozen=True)
class Answer:
    """What a cell gave.

    Attributes:
        result: Of its function; None if that raised.
        error: A user's mistake, which no other node would mend.
        seconds: It took.
        node: Where.
        facts: Of the node.
    """

    result: Any
    error: UserError | None
    seconds: float
    node: str
    facts: Facts


class Post:
    """Tells the hub what a cell does.

    Args:
        hub: The actor.
        name: The cell's.
        attempt: Its number.
        seconds: Between two reports.
    """

    def __init__(self, hub: Any, name: str, attempt: int, seconds: float) -> None:
        self._hub, self._seconds = hub, seconds
        self.name, self._attempt = name, attempt
        self._last = time.monotonic()
        self._parcel: Parcel | None = None
        self._shared, self._seen, self._sent = True, 0, self._last

    def begin(self, node: str) -> None:
        """The cell begins here."""
        self._hub.begin.remote(self.name, self._attempt, node)

    def follow(self, parcel: Parcel, shared: bool) -> None:
        """Tell of what is written for the next attempt; send it too if nobody else sees it."""
        self._parcel, self._shared = parcel, shared
        self._seen = parcel.written()

    def tick(self, share: float) -> None:
        """The cell has come this far."""
        if time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        self._hub.share.remote(self.name, self._attempt, share)
        if self._parcel is not None:
            self._keep(self._parcel, share)

    def _keep(self, parcel: Parcel, share: float) -> None:
        written = parcel.written()
        travels = parcel.whole and not self._shared
        if written == self._seen or (travels and self._last - self._sent < FOLDER_SECONDS):
            return
        self._seen, self._sent = written, self._last
        self._hub.keep.remote(self.name, share, None if self._shared else parcel.packed())


Function = Callable[[Any, Any, bytes | None, Post], Any]
"""``(what all cells share, the cell's own, its last checkpoint, post) → result``."""


def carry_out(
    function: Function,
    shared: np.ndarray,
    given: Any,
    state: bytes | None,
    told: tuple[Any, str, int, float],
    device: str,
) -> Answer:
    """Do one cell.

    Args:
        function: What to do.
        shared: What all cells share, as bytes; read in place from the node's object store.
        given: The cell's own.
        state: Its last checkpoint, where it goes on from another node.
        told: The hub, the cell's name, the number of the attempt, seconds between reports.
        device: ``cpu`` or ``cuda``.
    """
    ray = importlib.import_module("ray")
    node, post = ray.get_runtime_context().get_node_id(), Post(*told)
    post.begin(node)
    _platform.keep_freed_memory()
    began = time.monotonic()
    result, error = None, None
    try:
        result = function(shared, given, state, post)
    except UserError as mistake:
        error = mistake
    return Answer(result, error, time.monotonic() - began, node, facts(device))
