"""Finished cells on disk: written whole, checked by hash when read, never computed twice."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from batchlab import _platform
from batchlab.engine.checkpoint import NAME, by_newer, is_newer
from batchlab.engine.job import RunState, state_from_bytes, state_to_bytes
from batchlab.engine.step import Progress
from batchlab.engine.trace import RunResult, Trace, to_parquet

FORMAT = 2
SEAL, SHA256 = "done.json", "sha256"


def stamped(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values with their SHA-256 among them, by which JSON that has changed is known.

    Args:
        plain: What JSON can hold.

    Example:
        >>> stamped({"a": 1})["sha256"][:8], opened(json.dumps(stamped({"a": 1})))
        ('f9d86028', {'a': 1})
    """
    return {SHA256: digest(plain), **plain}


def opened(text: str | bytes) -> dict[str, Any]:
    """What :func:`stamped` has made, from JSON. What has no hash is from before there were any.

    Args:
        text: The JSON.

    Raises:
        ValueError: If it is no object, or has changed.
    """
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    if SHA256 in found and found.pop(SHA256) != digest(found):
        raise ValueError("it has changed")
    return found


def digest(plain: Mapping[str, Any]) -> str:
    """SHA-256 of plain values, as JSON writes them."""
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def save_cell(folder: Path, results: Sequence[tuple[RunResult, RunState | None]]) -> None:
    """Write a cell; ``done.json``, with sizes and hashes, comes last.

    Args:
        folder: ``cells/<hash>``.
        results: What the executor returned.
    """
    runs, metrics = Trace(tuple(result for result, _ in results)).tables()
    files = {"runs.parquet": to_parquet(runs), "metrics.parquet": to_parquet(metrics)}
    states = {f"end{i}.npz": state for i, (_, state) in enumerate(results) if state is not None}
    files |= {name: state_to_bytes(state) for name, state in states.items()}
    seal(folder, files)
    (folder / NAME).unlink(missing_ok=True)


def seal(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and, last, ``done.json`` with their sizes and hashes.

    Args:
        folder: Theirs; made if it is missing.
        files: Name → content.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        _platform.write_whole(folder / name, data)
    facts = {"format": FORMAT, "files": {name: _facts(data) for name, data in files.items()}}
    _platform.write_whole(folder / SEAL, json.dumps(stamped(facts), indent=1))


def sealed(folder: Path) -> dict[str, bytes] | None:
    """What :func:`seal` wrote; None if it is not finished.

    Args:
        folder: Theirs. One whose files have changed is set aside and counts as not finished.

    Raises:
        ResultError: If the system cannot read them, or a newer batchlab has written them.
    """
    try:
        text = _platform.read_whole(folder / SEAL)
    except FileNotFoundError:
        return None
    try:
        return _checked(folder, opened(text))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        _platform.set_aside(folder)
        return None


def load_cell(
    folder: Path, like: Progress | None
) -> list[tuple[RunResult, RunState | None]] | None:
    """Read a finished cell back.

    Args:
        folder: ``cells/<hash>``.
        like: Structure of the states, or None if they are not wanted.

    Returns:
        What was saved; None if the cell is not finished. A damaged cell is set aside and counts as
        not finished.
    """
    files = sealed(folder)
    if files is None:
        return None
    (folder / NAME).unlink(missing_ok=True)  # of a process that ended before it could
    names = ("runs.parquet", "metrics.parquet")
    tables = (pl.read_parquet(io.BytesIO(files[name])) for name in names)
    results = Trace.from_tables(*tables).runs
    states = [files.get(f"end{i}.npz") for i in range(len(results))]
    return [
        (result, None if data is None or like is None else state_from_bytes(data, like))
        for result, data in zip(results, states, strict=True)
    ]


def _checked(folder: Path, seal: Mapping[str, Any]) -> dict[str, bytes]:
    """Every file of a cell, if sizes and hashes are right."""
    if is_newer(seal["format"], FORMAT):
        raise by_newer(folder / SEAL, seal["format"], FORMAT)
    if seal["format"] != FORMAT:
        raise ValueError(f"format {seal['format']}")
    files = {}
    for name, facts in seal["files"].items():
        data = _platform.read_whole(folder / name)
        if _facts(data) != facts:
            raise ValueError(f"{name} has changed")
        files[name] = data
    return files


def _facts(data: bytes) -> dict[str, int | str]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def collect(out: Path) -> None:
    """Join the finished cells of a result directory into ``runs.parquet`` and ``metrics.parquet``.

    Args:
        out: Result directory. A run is named by its cell and its number in it. Damaged cells are
            left out.
    """
    tables: dict[str, list[pl.DataFrame]] = {"runs": [], "metrics": []}
    for folder in sorted(seal.parent for seal in (out / "cells").glob(f"*/{SEAL}")):
        if _platform.DAMAGED in folder.name or (files := sealed(folder)) is None:
            continue
        for name, found in tables.items():
            table = pl.read_parquet(io.BytesIO(files[f"{name}.parquet"]))
            found.append(table.select(pl.lit(folder.name).alias("cell"), pl.all()))
    for name, found in tables.items():
        if found:
            joined = pl.concat(found, how="diagonal_relaxed")
            _platform.write_whole(out / f"{name}.parquet", to_parquet(joined))
