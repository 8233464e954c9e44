"""``watch.jsonl``: lines are appended and flushed one by one, so that a killed training keeps all
but the last.
"""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path
from typing import IO

import torch

from batchlab import _platform
from batchlab.errors import ResultError, cannot_read
from batchlab.types import to_plain
from batchlab.watch.record import FORMAT, KINDS, Line, Start, Watched, gathered, line_of

NAME = "watch.jsonl"
_KIND = {record: kind for kind, record in KINDS.items()}


class Journal:
    """The open ``watch.jsonl`` of a result directory that this process has locked.

    Args:
        folder: Result directory; made if missing.
        resume: Go on where an earlier training wrote.

    Raises:
        ResultError: If the directory is in use, holds another result, or holds a watched training
            and ``resume`` is not set.

    Attributes:
        before: What the directory held.
    """

    def __init__(self, folder: Path, resume: bool) -> None:
        self._lock = _platform.DirectoryLock(folder, choose="another directory")
        self._lock.__enter__()
        try:
            self.before = _before(folder, resume)
            self._file: IO[str] | None = open(folder / NAME, "a", encoding="utf-8", newline="\n")
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise

    def append(self, line: Line) -> None:
        """Write a line. Where the disk takes no more, say so once; the training goes on."""
        if self._file is None:
            return
        plain = {"kind": _KIND[type(line)]} | to_plain(line)
        try:
            self._file.write(json.dumps(plain, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            self._file = None
            words = f"`{NAME}` cannot be written any more ({error}): the training is not recorded."
            warnings.warn(words, RuntimeWarning, stacklevel=2)

    def close(self) -> None:
        """Close the file and give the directory free."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.__exit__(None, None, None)


def write_provenance(folder: Path, device: str) -> None:
    """``provenance.json``: versions and machine behind the numbers."""
    facts = {
        "command": "batchlab.watch",
        "batchlab": _platform.version(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _platform.processor_name(),
        "device": device,
    }
    _platform.write_whole(folder / "provenance.json", json.dumps(facts, indent=1))


def read(directory: str | Path) -> Watched:
    """Read a watched training, whether it has ended, runs or was killed.

    Args:
        directory: Its result directory.

    Returns:
        The record. A last line that was not written to its end is left out.

    Raises:
        ResultError: If there is none, or a line is damaged.
    """
    path = Path(directory) / NAME
    if not path.is_file():
        raise ResultError(f"`{directory}` holds no watched training ({NAME} is missing).")
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = [_line(path, n, text) for n, text in enumerate(whole.split(b"\n"), 1) if whole]
    if not lines:
        raise cannot_read(path, "no line was written to its end")
    if not isinstance(lines[0], Start):
        raise cannot_read(path, "line 1 is no start")
    return gathered(lines)


def _line(path: Path, number: int, text: bytes) -> Line:
    try:
        plain = json.loads(text)
        newer = plain.get("format", FORMAT) > FORMAT
        line = None if newer else line_of(plain)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise cannot_read(path, f"line {number} is damaged ({error})") from error
    if line is None:
        raise cannot_read(path, f"its format, {plain['format']}, is newer than {FORMAT}")
    return line


def _before(folder: Path, resume: bool) -> Watched | None:
    """What the directory holds, made ready to be appended to."""
    path = folder / NAME
    if (folder / "plan.json").exists():
        raise ResultError(
            f"`{folder}` holds the result of another command: choose another directory."
        )
    if not path.exists():
        return None
    if not resume:
        raise ResultError(
            f"`{folder}` holds a watched training: pass resume=True to go on with it, or choose "
            "another directory."
        )
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if len(kept) < len(whole):
        _platform.write_whole(path, kept)
    return read(folder) if kept else None
