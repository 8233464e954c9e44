"""How fast data on disk are read, against data in memory and against plain reading of the files.

    python benchmarks/big_data.py --json big_data.json

The same pictures lie in memory, in ``.npy`` files, in ``.npz`` shards and in Parquet. Each reader
goes through one pass in batches; the readers take turns, so that what the machine does meanwhile
meets all of them, and the numbers are medians over the turns. ``plain`` reads the same Parquet
files one after another, in the order in which they lie, with polars and nothing else: what reading
costs without any shuffling. ``waiting`` is the share of a training's time in which it waits for
the next batch, with a small convolutional network on the processor.

The files have just been written and lie in the system's cache: this is the cost of reading and
shuffling in software, not that of a disk.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab.data import GrowingBatchSampler, MappedArrays, Shards, write_shards

SHAPE = (3, 32, 32)
LEAVES = ("x", "y")
Reader = Callable[[], Iterable[Any]]


def pictures(examples: int) -> tuple[Tensor, Tensor]:
    """Random bytes of the size of CIFAR-10 pictures, and labels."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (examples, *SHAPE), generator=draw, dtype=torch.uint8)
    return x, torch.randint(0, 10, (examples,), generator=draw)


def readers(folder: Path, examples: int, rows: int, batch_size: int) -> dict[str, Reader]:
    """Name → what begins one pass."""
    data = pictures(examples)
    for kind in ("npz", "parquet"):
        write_shards(data, folder / kind, rows, kind=kind, leaves=LEAVES)
    write_shards(data, folder / "npy", kind="npy", leaves=LEAVES)

    def whole(opened: Any) -> Reader:
        sampler = GrowingBatchSampler(opened, batch_size, last="drop")
        return lambda: DataLoader(opened, sampler=sampler, batch_size=None)

    def singly(opened: Any) -> Reader:
        sampler = GrowingBatchSampler(opened, batch_size, last="drop")
        return lambda: DataLoader(opened, batch_sampler=sampler)

    memory = TensorDataset(*data)
    return {
        "memory": lambda: DataLoader(memory, batch_size, shuffle=True, drop_last=True),
        "plain": lambda: plain(folder / "parquet", batch_size),
        "mapped": whole(MappedArrays(folder / "npy", LEAVES)),
        "npz": whole(Shards(folder / "npz", LEAVES)),
        "parquet": whole(Shards(folder / "parquet", LEAVES)),
        "npz, example by example": singly(Shards(folder / "npz", LEAVES)),
    }


def plain(folder: Path, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The files one after another, cut in batches; what is left of each file is not handed out."""
    for path in sorted(folder.glob("*.parquet")):
        frame = pl.read_parquet(path)
        x, y = (torch.tensor(frame[name].to_numpy()) for name in LEAVES)
        for start in range(0, len(x) - batch_size + 1, batch_size):
            yield x[start : start + batch_size], y[start : start + batch_size]


def pass_over(reader: Reader) -> dict[str, float]:
    """Examples a second of one pass."""
    began, seen = time.perf_counter(), 0
    for _, y in reader():
        seen += len(y)
    return {"examples": seen, "examples_per_second": seen / (time.perf_counter() - began)}


def training(reader: Reader, updates: int) -> float:
    """The share of a training's time in which it waits for data."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 10))
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=0.01), nn.CrossEntropyLoss()
    waited, batches, began = 0.0, iter(reader()), time.perf_counter()
    for _ in range(updates):
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
        if batch is None:
            break
        optimizer.zero_grad()
        loss(model(batch[0].float() / 255), batch[1]).backward()
        optimizer.step()
    return waited / (time.perf_counter() - began)


def compared(examples: int, rows: int, batch_size: int, repeats: int) -> dict[str, Any]:
    """Medians over turns for every reader."""
    with tempfile.TemporaryDirectory() as folder:
        found = readers(Path(folder), examples, rows, batch_size)
        speeds: dict[str, list[float]] = {name: [] for name in found}
        waits: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(repeats):
            for name, reader in found.items():
                speeds[name].append(pass_over(reader)["examples_per_second"])
                waits[name].append(training(reader, examples // batch_size))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return {
        name: {
            "examples_per_second": round(medians[name]),
            "lowest": round(min(speeds[name])),
            "highest": round(max(speeds[name])),
            "of_memory": _paired(speeds[name], speeds["memory"]),
            "of_plain": _paired(speeds[name], speeds["plain"]),
            "waiting": round(statistics.median(waits[name]), 4),
        }
        for name in found
    }


def _paired(speeds: list[float], others: list[float]) -> float:
    """Median over turns of the ratio of two speeds."""
    return round(statistics.median(a / b for a, b in zip(speeds, others, strict=True)), 3)


def main() -> None:
    """Print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = compared(asked.examples, asked.rows, asked.batch_size, asked.repeats)
    setup = {
        "examples": asked.examples,
        "rows": asked.rows,
        "batch_size": asked.batch_size,
        "repeats": asked.repeats,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "polars": pl.__version__,
        "python": platform.python_version(),
    }
    for name, row in found.items():
        print(
            f"{name:24} {row['examples_per_second']:>9,} examples/s  {row['of_memory']:.2f} of "
            f"memory  {row['of_plain']:.2f} of plain  waits {row['waiting']:.1%}"
        )
    if asked.json:
        asked.json.write_text(json.dumps({"setup": setup, "readers": found}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
