"""What cells do on the nodes of a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch

from batchlab.cluster.attempt import Post
from batchlab.cluster.parcel import Parcel
from batchlab.engine.cell import Results, Work, run_cell
from batchlab.engine.checkpoint import NAME
from batchlab.engine.workers import SCRATCH, unpacked
from batchlab.tasks import Prepared


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
    folder: Path | None,
    beacon: Beacon | None,
    state: bytes | None,
    post: Post,
    whole: bool = False,
) -> Iterator[Path]:
    """Where a cell keeps its state: the result directory if it is shared, else a scratch folder
    whose checkpoints are sent back.

    Args:
        folder: The cell's part of the result directory, or None.
        beacon: By which the node sees whether that is shared.
        state: What the last attempt left, where it is not.
        post: Hears of what is written.
        whole: Whether all that is written goes on, not only the checkpoint of a cell's run.
    """
    if folder is not None and beacon is not None and beacon.seen():
        post.follow(_left_in(folder, whole), shared=True)
        yield folder
        return
    scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}ray-"))
    try:
        parcel = _left_in(scratch, whole)
        parcel.unpack(state)
        post.follow(parcel, shared=False)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _left_in(folder: Path, whole: bool) -> Parcel:
    return Parcel(folder, whole=True) if whole else Parcel(folder / NAME)


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
    torch.set_num_threads(1)
    return unpacked(packed.array.data)
