"""Arrays on disk, looked at through the memory map of the operating system."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree

from batchlab.data._disk import Leaf, OnDisk, Stamp, as_tree, chosen, same_length, torch_reads
from batchlab.errors import TaskError, must, reason
from batchlab.samplers import Blocks
from batchlab.types import Tree


@final
class MappedArrays(OnDisk):
    """A data set of ``.npy`` files, one for each leaf, of which only what is asked for is read.

    Every example is equally near, so that the order is a full shuffle, the same as that of data in
    memory. The system keeps pages in memory that is free, and gives it up when it is needed; fast
    on solid-state disks, slow where a seek costs milliseconds: take :class:`Shards` there.

    Args:
        files: A folder of ``.npy`` files, or their paths as a tuple or a dictionary, which is then
            what an example is.
        leaves: Names in the folder, without ``.npy``: an example is the tuple of them. Left out,
            it is the dictionary of all.

    Raises:
        TaskError: If a file is not there, is damaged, or differs in length from the others.

    Assumes:
        16 bytes of memory an example for the order, two passes of it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "x.npy", np.arange(6.0).reshape(3, 2))
        >>> np.save(folder / "y.npy", np.arange(3))
        >>> data = MappedArrays(folder, ("x", "y"))
        >>> len(data), data[2]
        (3, (tensor([4., 5.], dtype=torch.float64), tensor(2)))
    """

    def __init__(
        self,
        files: str | Path | tuple[str | Path, ...] | dict[str, str | Path],
        leaves: Sequence[str] | None = None,
    ) -> None:
        self._files = _in_folder(Path(files), leaves) if isinstance(files, str | Path) else files
        self._paths = [Path(path).absolute() for path in _pytree.tree_leaves(self._files)]
        self._stamps = tuple(map(Stamp.of, self._paths))
        arrays = [_mapped(path) for path in self._paths]
        names = [path.name for path in self._paths]
        where = ", ".join(map(str, self._paths))
        lengths = [len(array) for array in arrays]
        self._examples = same_length(zip(names, lengths, strict=True), where)
        if self._examples == 0:
            raise TaskError(must("files", "files with at least one example", where))
        self._layout = tuple(Leaf(array.dtype, array.shape[1:]) for array in arrays)

    @property
    def examples(self) -> int:
        """N."""
        return self._examples

    @property
    def blocks(self) -> Blocks | None:
        """None: every example is equally near."""
        return None

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """See :class:`OnDisk`."""
        return self._stamps

    @property
    def layout(self) -> tuple[Leaf, ...]:
        """See :class:`OnDisk`."""
        return self._layout

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`OnDisk`."""
        rows = index.numpy()
        read = (torch.from_numpy(np.asarray(array[rows])) for array in self._arrays)
        return cast(Any, _pytree.tree_map(lambda _: next(read), self._files))

    @functools.cached_property
    def _arrays(self) -> list[np.ndarray]:
        for stamp in self._stamps:
            stamp.check()
        return [_mapped(path) for path in self._paths]

    def __getstate__(self) -> dict[str, Any]:
        # A mapped array would travel to another process as a copy of all its numbers.
        return {name: value for name, value in self.__dict__.items() if name != "_arrays"}


def _in_folder(folder: Path, leaves: Sequence[str] | None) -> Any:
    """The files of a folder, as a tuple or by name."""
    found = {path.stem: path for path in sorted(folder.glob("*.npy"))}
    if not found:
        raise TaskError(must("files", "a folder of .npy files, or their paths", str(folder)))
    return as_tree({name: found[name] for name in chosen(found, leaves, folder)}, leaves)


def _mapped(path: Path) -> np.ndarray:
    """One file, opened for reading."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise TaskError(f"`{path}` cannot be read: {reason(error)}.") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise TaskError(must("files", "arrays that start with the axis of examples", str(path)))
    torch_reads(array.dtype, path.stem, path)
    return array
