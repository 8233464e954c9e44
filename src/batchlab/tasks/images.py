"""Pictures on disk: Parquet and Arrow as Hugging Face keeps them, and torchvision's own folders.

Pixels stay uint8 in memory, a quarter of the bytes to gather for a batch; the model's first layer,
:class:`Normalise`, turns them into floats.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchlab.errors import TaskError
from batchlab.types import Tree

Arrays: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Pixels uint8 ``[N, channels, S, S]`` and labels int64 ``[N]``."""

IMAGE_COLUMNS = ("image", "img")
RAW_SPLIT = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class PictureSet:
    """A public picture set and where its parts lie.

    Attributes:
        name: The task's name.
        shape: (channels, height, width).
        folders: Below ``--data``, where to look, in this order.
        raw: Reads torchvision's folder: ``(folder, "train" or "test") → arrays``, or None if
            they are not there.
        fetch: The line that fetches it.
    """

    name: str
    shape: tuple[int, int, int]
    folders: tuple[str, ...]
    raw: Callable[[Path, str], Arrays | None]
    fetch: str


class Normalise(nn.Module):
    """x ← (x/255 − mean)/std per channel, in the precision of the model.

    Args:
        mean: Of each channel over the training pictures, in [0, 1].
        std: Standard deviation of each channel.

    Example:
        >>> Normalise((0.5,), (0.5,))(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item()
        1.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: UInt8[Tensor, "B c S S"]) -> Float[Tensor, "B c S S"]:
        """Pixels 0 … 255 as floats of about unit size."""
        return (pixels.to(self.mean.dtype) / 255 - self.mean) / self.std


def picture_loss(outputs: Tensor, batch: Tree) -> Tensor:
    """Cross-entropy, one number per picture."""
    return cross_entropy(outputs, batch[1], reduction="none")


def read(kind: PictureSet, data: Path | None, split: str) -> tuple[Tensor, Tensor]:
    """One part of a picture set.

    Args:
        kind: Which set.
        data: The user's folder, or None if none was given.
        split: ``train`` or ``test``.

    Returns:
        Pixels uint8 ``[N, channels, S, S]`` and labels int64 ``[N]``.

    Raises:
        TaskError: If it is not there, with the line that fetches it, or cannot be read.
    """
    if data is None:
        raise TaskError(f"The task `{kind.name}` needs its pictures. {_how(kind)}")
    if not data.is_dir():
        raise TaskError(f"There is no folder `{data}`. {_how(kind)}")
    for folder in [data / name for name in kind.folders]:
        for reader in (_read_parquet, _read_arrow, kind.raw):
            arrays = _attempt(reader, folder, split)
            if arrays is not None:
                return _checked(kind, arrays, folder)
    looked = f"Looked for {split}-*.parquet, {split}/*.arrow and torchvision's files"
    raise TaskError(f"`{data}` holds no {split} pictures of {kind.name}. {looked}. {_how(kind)}")


def _how(kind: PictureSet) -> str:
    return (
        f"Fetch them with `{kind.fetch}` (`pip install huggingface_hub` brings `hf`), "
        f"then add `--data {kind.name}`."
    )


def _attempt(
    reader: Callable[[Path, str], Arrays | None], folder: Path, split: str
) -> Arrays | None:
    """What a reader finds; whatever a damaged file makes it raise becomes one sentence."""
    damaged = (OSError, EOFError, ValueError, KeyError, pl.exceptions.PolarsError)
    try:
        return reader(folder, split) if folder.is_dir() else None
    except (*damaged, pickle.UnpicklingError, UnidentifiedImageError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TaskError(f"The {split} pictures in `{folder}` cannot be read: {reason}.") from error


def _checked(kind: PictureSet, arrays: Arrays, folder: Path) -> tuple[Tensor, Tensor]:
    pixels, labels = arrays
    if pixels.shape[1:] != kind.shape or len(pixels) != len(labels):
        found = "×".join(map(str, pixels.shape[1:]))
        wanted = "×".join(map(str, kind.shape))
        raise TaskError(
            f"The pictures in `{folder}` are {found} (channels, height, width), with "
            f"{len(labels)} labels for {len(pixels)}; those of {kind.name} are {wanted}."
        )
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


def _read_parquet(folder: Path, split: str) -> Arrays | None:
    """``train-00000-of-00001.parquet`` …, as the Hub serves them."""
    files = sorted(folder.glob(f"{split}-*.parquet"))
    return _decode(pl.concat([pl.read_parquet(file) for file in files])) if files else None


def _read_arrow(folder: Path, split: str) -> Arrays | None:
    """``train/data-00000-of-00001.arrow`` …, as ``Dataset.save_to_disk`` writes them."""
    files = sorted((folder / split).glob("*.arrow"))
    return _decode(pl.concat([pl.read_ipc_stream(file) for file in files])) if files else None


def _decode(table: pl.DataFrame) -> Arrays:
    """PNG or JPEG bytes → pixels."""
    column = next((name for name in IMAGE_COLUMNS if name in table.columns), None)
    if column is None or "label" not in table.columns:
        raise ValueError(f"columns `image` and `label` are expected, found {table.columns}")
    pictures = [_pixels(blob) for blob in table[column].struct.field("bytes").to_list()]
    return np.stack(pictures), table["label"].to_numpy()


def _pixels(blob: bytes) -> np.ndarray:
    """One picture, uint8 ``[channels, S, S]``; grey stays grey."""
    picture = Image.open(io.BytesIO(blob))
    if picture.mode == "L":
        return np.asarray(picture)[None]
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def read_idx_pair(folder: Path, split: str) -> Arrays | None:
    """``train-images-idx3-ubyte`` and its labels, plain or ``.gz``: the files MNIST came in."""
    files = [
        _plain_or_gz(folder, f"{RAW_SPLIT[split]}-{part}-ubyte")
        for part in ("images-idx3", "labels-idx1")
    ]
    if None in files:
        return None
    pixels, labels = (read_idx(file) for file in files if file)
    return pixels[:, None], labels


def _plain_or_gz(folder: Path, name: str) -> Path | None:
    return next((f for f in (folder / name, folder / f"{name}.gz") if f.is_file()), None)


def read_idx(file: Path) -> np.ndarray:
    """An idx file of unsigned bytes.

    0, 0, 8, the number of axes, their lengths as big-endian int32, the data.

    Args:
        file: The file, plain or ``.gz``.

    Returns:
        A uint8 array.

    Raises:
        ValueError: If it is not such a file or is cut short.
    """
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{file.name} is not an idx file of bytes")
    axes = content[3]
    shape = np.frombuffer(content, ">i4", count=axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


def read_cifar_batches(folder: Path, split: str) -> Arrays | None:
    """``data_batch_1`` … ``data_batch_5`` or ``test_batch``: pickles, read with care."""
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    files = [folder / name for name in names]
    if not all(file.is_file() for file in files):
        return None
    batches = [_ArrayUnpickler(io.BytesIO(file.read_bytes())).load() for file in files]
    pixels = np.concatenate([np.asarray(batch[b"data"], np.uint8) for batch in batches])
    labels = np.concatenate([np.asarray(batch[b"labels"], np.int64) for batch in batches])
    return pixels.reshape(-1, 3, 32, 32), labels


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain values; a pickle that names any other function is refused unrun."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module_name: str, global_name: str) -> Any:
        """The four names an array is made of."""
        rebuild = np.zeros(0).__reduce__()[0]
        allowed = {"ndarray": np.ndarray, "dtype": np.dtype, "_reconstruct": rebuild}
        if module_name.split(".")[0] == "numpy" and global_name in allowed:
            return allowed[global_name]
        raise pickle.UnpicklingError(f"it wants to run {module_name}.{global_name}")
