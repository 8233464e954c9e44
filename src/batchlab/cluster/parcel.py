"""What an unfinished cell has written, on its way between machines: a file, or a whole folder."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from batchlab import _platform


@dataclass(frozen=True)
class Parcel:
    """Something that a cell writes while it goes on.

    Attributes:
        path: The file or the folder; it need not be there yet.
        whole: Whether it is a folder, with all that is in it.

    Example:
        >>> import tempfile
        >>> here, there = (Parcel(Path(tempfile.mkdtemp()), whole=True) for _ in range(2))
        >>> here.packed() is None
        True
        >>> _platform.write_whole(here.path / "cells" / "a.txt", "half")
        >>> there.unpack(here.packed())
        >>> (there.path / "cells" / "a.txt").read_text(encoding="utf-8")
        'half'
    """

    path: Path
    whole: bool = False

    def written(self) -> int:
        """When something in it was written last, in nanoseconds; 0: never."""
        return max((file.stat().st_mtime_ns for file in self._files()), default=0)

    def packed(self) -> bytes | None:
        """All of it as bytes; None if there is nothing."""
        files = self._files()
        if not files:
            return None
        if not self.whole:
            return self.path.read_bytes()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as packing:
            for file in files:
                packing.write(file, file.relative_to(self.path))
        return buffer.getvalue()

    def unpack(self, data: bytes | None) -> None:
        """Lay it down here, each file whole or not at all.

        Args:
            data: What :meth:`packed` gave.
        """
        if data is None:
            return
        if not self.whole:
            _platform.write_whole(self.path, data)
            return
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for name in packed.namelist():
                _platform.write_whole(self.path / name, packed.read(name))

    def _files(self) -> list[Path]:
        found = self.path.rglob("*") if self.whole else [self.path]
        return sorted(path for path in found if path.is_file())
