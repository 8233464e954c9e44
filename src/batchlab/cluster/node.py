"""What runs on the nodes of a cluster: one cell, told about as it goes on."""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch

from batchlab import _platform
from batchlab.engine.cell import Results, Work, run_cell
from batchlab.engine.checkpoint import NAME
from batchlab.engine.workers import SCRATCH, unpacked
from batchlab.errors import UserError
from batchlab.tasks import Prepared


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
    on_gpu = device.startswith("cuda") and torch.cuda.is_available()
    return Facts(
        _platform.processor_name(),
        torch.cuda.get_device_name() if on_gpu else "",
        1 if device == "cpu" else torch.get_num_threads(),
        str(torch.__version__),
        _platform.version(),
    )


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
        self._file: Path | None = None
        self._shared, self._seen = True, 0

    def begin(self, node: str) -> None:
        """The cell begins here."""
        self._hub.begin.remote(self.name, self._attempt, node)

    def follow(self, folder: Path, shared: bool) -> None:
        """Tell of checkpoints in a folder; send them too if nobody else sees it."""
        self._file, self._shared = folder / NAME, shared
        self._seen = _written(self._file)

    def tick(self, share: float) -> None:
        """The cell has come this far."""
        if time.monotonic() - self._last < self._seconds:
            return
        self._last = time.monotonic()
        self._hub.share.remote(self.name, self._attempt, share)
        if self._file is not None and (written := _written(self._file)) != self._seen:
            self._seen = written
            state = None if self._shared else self._file.read_bytes()
            self._hub.keep.remote(self.name, share, state)


def _written(path: Path) -> int:
    """When a file was written last, in nanoseconds; 0: never."""
    return path.stat().st_mtime_ns if path.is_file() else 0


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
    torch.set_num_threads(1)
    _platform.keep_freed_memory()
    began = time.monotonic()
    result, error = None, None
    try:
        result = function(shared, given, state, post)
    except UserError as mistake:
        error = mistake
    return Answer(result, error, time.monotonic() - began, node, facts(device))


@dataclass(frozen=True)
class Beacon:
    """A file by which a node sees whether it shares a folder with whoever asked.

    Attributes:
        path: In that folder.
        token: What it says.
    """

    path: Path
    token: str

    def seen(self) -> bool:
        """Whether it can be read here."""
        try:
            return self.path.read_text(encoding="utf-8") == self.token
        except OSError:
            return False


@contextmanager
def workplace(
    folder: Path | None, beacon: Beacon | None, state: bytes | None, post: Post
) -> Iterator[Path]:
    """Where a cell keeps its state: the result directory if it is shared, else a scratch folder
    whose checkpoints are sent back.
    """
    if folder is not None and beacon is not None and beacon.seen():
        post.follow(folder, shared=True)
        yield folder
        return
    scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}ray-"))
    try:
        if state is not None:
            (scratch / NAME).write_bytes(state)
        post.follow(scratch, shared=False)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def train_cell(
    shared: np.ndarray, given: tuple[str, bytes], state: bytes | None, post: Post
) -> Results:
    """Train one cell, from its last checkpoint if there is one.

    Args:
        shared: The packed task.
        given: Its hash; the work, and by what a shared result directory is known, packed: they
            may hold classes of the task's own modules.
        state: The checkpoint.
        post: Hears of it.
    """
    prepared = _task(given[0], _Bytes(shared))
    work, beacon = cloudpickle.loads(given[1])
    assert isinstance(work, Work)
    with workplace(work.folder, beacon, state, post) as folder:
        return run_cell(prepared, replace(work, folder=folder), post.tick)


def call(
    shared: np.ndarray,
    given: tuple[str, bytes],
    state: bytes | None,
    post: Post,
) -> Any:
    """Call a function of the task.

    Args:
        shared: The packed task.
        given: Its hash; ``(prepared, *arguments) → result`` and the arguments, packed.
        state: Not used.
        post: Not used.
    """
    prepared = _task(given[0], _Bytes(shared))
    function, arguments = cloudpickle.loads(given[1])
    return function(prepared, *arguments)


class _Bytes:
    """Bytes that all stand for the same: the hash beside them names them."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bytes)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=1)
def _task(digest: str, packed: _Bytes) -> Prepared:
    """The task, read once in each process."""
    return unpacked(packed.array.data)
