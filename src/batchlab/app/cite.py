"""``cite``: the sources that a result rests on."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchlab import rules
from batchlab.citations import OWN, bibtex, entries
from batchlab.errors import InvalidValueError, ResultError, cannot_read, must

BEHIND = {
    "noise": ("mccandlish2018", "fieller1954"),
    "sharpness": ("golub1977", "wu2000", "ghorbani2019"),
}
"""File or field of a result → sources of what was measured, and of its interval."""


def cited(what: Sequence[str]) -> str:
    """BibTeX of the sources of results, of keys, or of everything.

    Args:
        what: Result directories or keys; nothing: every source.

    Returns:
        The entries, each once, batchlab's own first where a result is asked for.

    Raises:
        UserError: If one is neither.

    Example:
        >>> cited(["polyak1964"]).splitlines()[0]
        '@article{polyak1964,'
    """
    if not what:
        return bibtex(entries())
    return bibtex(key for one in what for key in _keys(one))


def _keys(one: str) -> tuple[str, ...]:
    if one in entries():
        return (one,)
    folder = Path(one)
    if not folder.is_dir():
        hint = f"The keys: {', '.join(entries())}."
        raise InvalidValueError(must("what", "a result directory or a key", one, hint))
    return (OWN, *_of_study(folder), *_of_measurement(folder))


def _of_study(folder: Path) -> tuple[str, ...]:
    path = folder / "study.json"
    return tuple(_read(path)["citations"]) if path.is_file() else ()


def _of_measurement(folder: Path) -> tuple[str, ...]:
    """What was measured, and the update rule that was used."""
    paths = [folder / f"{name}.json" for name in ("advice", "compare", "noise")]
    found = {path.stem: _read(path) for path in paths if path.is_file()}
    if not found and not (folder / "study.json").is_file():
        raise ResultError(f"`{folder}` holds no finished result.")
    rule = next((one["today"]["rule"] for one in found.values() if "today" in one), "")
    made = getattr(rules, rule, None)
    described = (made.__doc__ or "") if made is not None else ""
    measured = [key for name, keys in BEHIND.items() if _holds(found, name) for key in keys]
    return (*measured, *(key for key in entries() if re.search(rf"\b{key}\b", described)))


def _holds(record: Any, name: str) -> bool:
    """Whether a file or a field of this name, at any depth, says something."""
    if isinstance(record, dict):
        said = record.get(name) not in (None, [], {}, "nan")
        return said or any(_holds(one, name) for one in record.values())
    return isinstance(record, list) and any(_holds(one, name) for one in record)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise cannot_read(path, str(error)) from None
