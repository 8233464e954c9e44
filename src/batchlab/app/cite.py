"""``cite``: the sources that a result rests on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchlab import rules
from batchlab.citations import OWN, bibtex, entries
from batchlab.errors import InvalidValueError, ResultError, cannot_read, must

NOISE = ("mccandlish2018", "fieller1954")
"""Behind the noise scale and its interval."""


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
    """The noise scale, and the update rule that was used."""
    paths = [folder / f"{name}.json" for name in ("advice", "compare", "noise")]
    found = [_read(path) for path in paths if path.is_file()]
    if not found and not (folder / "study.json").is_file():
        raise ResultError(f"`{folder}` holds no finished result.")
    rule = next((one["today"]["rule"] for one in found if "today" in one), "")
    made = getattr(rules, rule, None)
    described = (made.__doc__ or "") if made is not None else ""
    return (*(NOISE if found else ()), *(key for key in entries() if key in described))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise cannot_read(path, str(error)) from None
