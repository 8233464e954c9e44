"""The installed version."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The installed version; a bare source tree has none.

    Example:
        >>> bool(version())
        True
    """
    try:
        return metadata.version("batchlab")
    except metadata.PackageNotFoundError:
        return "0+source"
