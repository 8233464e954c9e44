"""The state of an unfinished cell on disk: one file, written whole, without pickles."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from batchlab import _platform
from batchlab.errors import ResultError, cannot_read

NAME = "checkpoint.npz"
SECONDS = 60.0
SHARE = 0.02
"""Of the time that writing may take."""
FORMAT = 3
DIGEST_BYTES = 32
"""The SHA-256 of all before it ends the file: no reader of damaged bytes fails in every way."""
_FACTS = "facts.json"


class Checkpoint:
    """Writes a cell's state from time to time and reads it back.

    Args:
        folder: ``cells/<hash>``, or None to keep nothing.
        seconds: Between two checkpoints; longer where writing one takes more than 2 % of that.
    """

    def __init__(self, folder: Path | None, seconds: float = SECONDS) -> None:
        self._path = None if folder is None else folder / NAME
        self._seconds = seconds
        self._wait = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return self._path is not None and time.monotonic() - self._last >= self._wait

    def save(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write plain values and arrays; the file before stays until the new one is whole.

        Args:
            facts: For JSON.
            arrays: By name.
        """
        if self._path is None:
            return
        began = time.monotonic()
        text = json.dumps({"format": FORMAT, **facts}).encode()
        buffer = io.BytesIO()
        whole = {_FACTS: np.frombuffer(text, dtype=np.uint8), **arrays}
        np.savez(buffer, **whole)  # pyright: ignore[reportArgumentType]
        digest = hashlib.sha256(buffer.getbuffer()).digest()
        buffer.seek(0, io.SEEK_END)
        buffer.write(digest)
        _platform.write_whole(self._path, buffer.getbuffer())  # no copy: it may be large
        self._last = time.monotonic()
        self._wait = max(self._seconds, (self._last - began) / SHARE)

    def load(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """What was saved last.

        Returns:
            Facts and arrays; None if there is nothing, or nothing that can be trusted: a damaged
            file is set aside, and the cell begins anew.

        Raises:
            ResultError: If the system cannot read it, or a newer batchlab has written it.
        """
        if self._path is None or not self._path.is_file():
            return None
        data = memoryview(_platform.read_whole(self._path))
        whole, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        facts: dict[str, Any] = {}
        arrays: dict[str, np.ndarray] = {}
        if hashlib.sha256(whole).digest() == digest:
            with np.load(io.BytesIO(whole), allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            facts = json.loads(arrays.pop(_FACTS).tobytes())
        made = facts.pop("format", None)
        if is_newer(made, FORMAT):
            raise by_newer(self._path, made, FORMAT)
        if made != FORMAT:
            _platform.set_aside(self._path)
            return None
        return facts, arrays


def is_newer(made: Any, known: int) -> bool:
    """Whether a file's format, as it stands in it, is one that this version does not know.

    Example:
        >>> is_newer(3, 2), is_newer(2, 2), is_newer("?", 2)
        (True, False, False)
    """
    return isinstance(made, int) and made > known


def by_newer(path: Path, made: int, known: int) -> ResultError:
    """The error for a file of a later version, which is left as it is.

    Args:
        path: The file.
        made: Its format.
        known: The latest that this version reads.

    Example:
        >>> str(by_newer(Path("done.json"), 3, 2)).partition(" (")[0]
        '`done.json` cannot be read: it was written by a newer batchlab'
    """
    was = f"it was written by a newer batchlab (format {made}, this one reads {known})"
    return cannot_read(path, f"{was}; use that one, or another --out")
