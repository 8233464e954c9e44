"""Where the lines of a watched training go: its result directory and, if wanted, TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from batchlab.watch.board import Board
from batchlab.watch.journal import Journal, write_provenance
from batchlab.watch.record import Line, Watched


class Recorder:
    """Writes lines with the time and the money spent so far.

    Args:
        directory: Result directory.
        price_per_hour: Of the machine, or None.
        tensorboard: As in :class:`batchlab.watch.Watch`.
    """

    def __init__(self, directory: Path, price_per_hour: float | None, tensorboard: Any) -> None:
        self.directory, self._price = directory, price_per_hour
        self._tensorboard = directory / "tensorboard" if tensorboard is True else tensorboard
        self._journal: Journal | None = None
        self._board: Board | None = None
        self._before, self._began = 0.0, time.perf_counter()

    def open(self, resume: bool, device: str) -> Watched | None:
        """Lock the directory.

        Args:
            resume: Go on with what it holds.
            device: For ``provenance.json``.

        Returns:
            What it held.

        Raises:
            ResultError: If it cannot be used.
            MissingDependencyError: If TensorBoard is asked for and not installed.
        """
        board = Board(self._tensorboard) if self._tensorboard is not None else None
        self._journal, self._board = Journal(self.directory, resume), board
        write_provenance(self.directory, device)
        self._began = time.perf_counter()
        return self._journal.before

    @property
    def is_open(self) -> bool:
        """Whether lines are written."""
        return self._journal is not None

    def spent_before(self, seconds: float) -> None:
        """Time of the same training in processes before this one; the longest told holds."""
        self._before = max(self._before, seconds)

    def seconds(self) -> float:
        """Wall time of the training so far."""
        return self._before + time.perf_counter() - self._began

    def axes(self, samples: int, updates: int) -> dict[str, Any]:
        """The four axes of a line written now."""
        seconds = self.seconds()
        money = None if self._price is None else self._price * seconds / 3600
        return {"samples": samples, "updates": updates, "seconds": seconds, "money": money}

    def write(self, line: Line) -> None:
        """Write a line."""
        if self._journal is not None:
            self._journal.append(line)
        if self._board is not None:
            self._board.add(line)

    def close(self) -> None:
        """Give the directory free."""
        if self._journal is not None:
            self._journal.close()
        if self._board is not None:
            self._board.close()
        self._journal = self._board = None
