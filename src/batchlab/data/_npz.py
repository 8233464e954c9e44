"""Shards as ``.npz`` archives, read from any row on without the whole in memory."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from batchlab.data._disk import Leaf, chosen, same_length, torch_reads
from batchlab.errors import TaskError, reason

CHUNK_BYTES = 2**20
DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Shard(NamedTuple):
    """Rows of a shard, and of each leaf what all shards must have in common."""

    rows: int
    kinds: dict[str, Any]


def describe(path: Path, leaves: Sequence[str] | None) -> Shard:
    """What a shard holds, from its headers.

    Raises:
        TaskError: If it is damaged, has no such leaf, or its leaves differ in length.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name.removesuffix(".npy"): name for name in archive.namelist()}
            names = chosen(found, leaves, path)
            headers = {name: _header_in(archive, found[name]) for name in names}
    except DAMAGE as error:
        raise TaskError(f"`{path}` cannot be read: {reason(error)}.") from error
    for name, (_, dtype) in headers.items():
        torch_reads(dtype, name, path)
    rows = same_length([(n, shape[0] if shape else 0) for n, (shape, _) in headers.items()], path)
    return Shard(rows, {n: Leaf(dtype, shape[1:]) for n, (shape, dtype) in headers.items()})


def leaf(path: Path, name: str, kind: Leaf) -> Leaf:
    """Dtype and shape of a leaf, which an archive says in its header."""
    return kind


def read(path: Path, start: int, rows: int, leaves: Mapping[str, Leaf]) -> dict[str, Tensor]:
    """Some rows of every leaf.

    Raises:
        TaskError: If the shard is damaged; an archive read from beginning to end is held against
            its checksum.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                name: torch.from_numpy(_rows(archive, f"{name}.npy", start, rows, leaf))
                for name, leaf in leaves.items()
            }
    except DAMAGE as error:
        raise TaskError(f"`{path}` cannot be read: {reason(error)}.") from error


def _rows(archive: zipfile.ZipFile, member: str, start: int, rows: int, leaf: Leaf) -> np.ndarray:
    array = np.empty((rows, *leaf.shape), leaf.dtype)
    flat, place = array.reshape(-1).view(np.uint8), 0
    with archive.open(member) as file:
        _header(file)
        file.seek(start * leaf.bytes, 1)
        while place < len(flat):
            chunk = np.frombuffer(file.read(min(CHUNK_BYTES, len(flat) - place)), np.uint8)
            if not len(chunk):
                raise EOFError(f"{member} ends too early")
            flat[place : place + len(chunk)] = chunk
            place += len(chunk)
    return array


def _header_in(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(member) as file:
        return _header(file)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype) of an array; the file then stands before its first number."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"arrays of version {version} are not known")
    shape, columns_first, dtype = HEADERS[version](file)
    if columns_first and len(shape) > 1:
        raise ValueError("its arrays lie column by column; save them with np.ascontiguousarray")
    return shape, dtype
