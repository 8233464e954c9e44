"""What watching costs a training: seconds of a loop under `batchlab.watch.Watch` over those alone.

The same loop, with the same weights and data, runs watched and unwatched in turn, the order within
a pair changing from pair to pair, so that both see the same machine. Everything is at its default:
the noise scale is measured, lines are written. CPU time is reported beside wall time, since other
programs on the machine do not enter it.

    python benchmarks/watch.py --pairs 20 --json results.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchlab._platform import processor_name
from batchlab.models.cnn import SmallCNN
from batchlab.models.mlp import MLP
from batchlab.stats import median_estimate
from batchlab.types import Estimate
from batchlab.watch import Watch, read

AIM = 1.05
LOOPS = ("mlp", "cnn")
BATCH, EXAMPLES = 64, 4096


def loop_of(name: str) -> tuple[Callable[[], nn.Module], tuple[int, ...]]:
    """What makes the model, and the shape of an example."""
    if name == "mlp":
        return (lambda: MLP(64, (128, 128), 10)), (64,)
    return (lambda: SmallCNN()), (1, 8, 8)


def train(name: str, updates: int, folder: Path | None) -> tuple[float, float]:
    """Wall and CPU seconds of one training, watched where there is a folder."""
    make, shape = loop_of(name)
    torch.manual_seed(0)
    model, count = make(), EXAMPLES
    data = torch.utils.data.TensorDataset(torch.randn(count, *shape), torch.arange(count) % 10)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    began, spent = time.perf_counter(), time.process_time()
    if folder is None:
        steps(model, optimizer, updates, lambda: loader, lambda loss: None)
    else:
        with Watch(folder, model, optimizer, quiet=True, seed=0) as watching:
            steps(model, optimizer, updates, lambda: watching.data(loader), watching.loss)
    return time.perf_counter() - began, time.process_time() - spent


def steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    updates: int,
    batches: Callable[[], Iterable[Any]],
    told: Callable[[Tensor], None],
) -> None:
    """A plain loop of so many updates."""
    done = 0
    while done < updates:
        for inputs, labels in batches():
            loss = cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            told(loss)
            done += 1
            if done == updates:
                break


def paired(name: str, pairs: int, updates: int) -> dict[str, Any]:
    """Ratios watched / unwatched, pair by pair, and what the last watched training recorded."""
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    seconds: list[float] = []
    blocks = 0
    for number in range(-1, pairs):
        with tempfile.TemporaryDirectory() as folder:
            order: list[Path | None] = [None, Path(folder) / "run"]
            if number % 2:
                order.reverse()
            times = {place is not None: train(name, updates, place) for place in order}
            blocks = len(read(Path(folder) / "run").noise)
        if number < 0:
            continue  # the first pair warms up caches and kernels
        seconds.append(times[False][0])
        for clock, kind in enumerate(ratios):
            ratios[kind].append(times[True][clock] / times[False][clock])
    found = {kind: median_estimate(np.array(values)) for kind, values in ratios.items()}
    return found | {"seconds": statistics.median(seconds), "noise blocks": blocks}


def told(name: str, row: dict[str, Any]) -> str:
    """A line of the result."""

    def ratio(found: Estimate) -> str:
        return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"

    return (
        f"{name}: wall {ratio(row['wall'])}, CPU {ratio(row['cpu'])}, n = {row['wall'].n} pairs "
        f"of {row['seconds']:.1f} s, {row['noise blocks']} noise blocks in the last"
    )


def main() -> int:
    """Print median ratios with 90 % ranges; 1 if a CPU ratio is above 1.05 or one is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    with contextlib.suppress(KeyboardInterrupt):
        for name in LOOPS:
            found[name] = paired(name, options.pairs, options.updates)
            print(told(name, found[name]), flush=True)
    if options.json:
        plain = {
            name: {k: vars(v) if isinstance(v, Estimate) else v for k, v in row.items()}
            for name, row in found.items()
        }
        where = {"torch": str(torch.__version__), "machine": processor_name()}
        options.json.write_text(json.dumps(plain | {"where": where}, indent=1))
    slow = any(row["cpu"].value > AIM for row in found.values())
    return int(slow or len(found) < len(LOOPS))


if __name__ == "__main__":
    sys.exit(main())
