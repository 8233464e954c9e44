"""Where the time of a sweep goes besides training: shares of one stack's wall time.

A stack of each sweep is trained to its end by one worker's program, evaluated as `advise` does and
checkpointed, with half of the runs diverging on the way, so that slots are refilled. Every part is
timed where it is called. The time from the command to the first update is that of a process of its
own.

    python benchmarks/overheads.py --repeats 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from engine import ROWS, Row, configs_of, prepared_of

from batchlab._random import seeded
from batchlab.engine import compiled, evaluation_grid
from batchlab.engine.capability import probe_capability
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.job import Job
from batchlab.engine.stacked import Stack, train_stacked

UPDATES, SLOTS, RUNS = 2_000, 16, 32
PARTS: tuple[tuple[str, Any, str], ...] = (
    ("drawing the order", Stack, "_orders"),
    ("training", Stack, "_train"),
    ("of which gathering batches", compiled._tree, "take"),
    ("evaluating", Stack, "_evaluated"),
    ("recording", Stack, "_record"),
    ("refilling slots", Stack, "_seat"),
    ("checkpoints", Checkpoint, "save"),
)
FIRST = """
import sys, time
from batchlab.engine import Engine, Job, evaluation_grid
from batchlab.tasks import load, prepare
prepared = prepare(load("digits"), device="cpu")
run = prepared.baseline.replace(samples=10 * prepared.examples)
def tick(share):
    print(time.time(), flush=True)
    sys.exit()
with Engine(prepared, None, workers=0) as engine:
    engine.train([run.replace(seed=s) for s in range(8)], Job((0,)), progress=tick)
"""


def timed(owner: Any, name: str, spent: list[float]) -> Callable[[], None]:
    """Add up the time in a function; returns what undoes that."""
    kept = getattr(owner, name)

    def wrapped(*given: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return kept(*given, **named)
        finally:
            spent.append(time.perf_counter() - began)

    setattr(owner, name, wrapped)
    return lambda: setattr(owner, name, kept)


def shares(row: Row) -> dict[str, float]:
    """Part → its share of the whole."""
    prepared = prepared_of(row)
    capability = probe_capability(prepared, configs_of(row, prepared, 1)[0])
    samples = UPDATES * row.batch_size
    # Every second run diverges.
    configs = [
        replace(config, samples=samples, learning_rate=1e30 if i % 2 else config.learning_rate)
        for i, config in enumerate(configs_of(row, prepared, RUNS))
    ]
    job = Job(evaluation_grid(prepared.examples, samples))
    spent: dict[str, list[float]] = {name: [] for name, _, _ in PARTS}
    undo = [timed(owner, method, spent[name]) for name, owner, method in PARTS]
    with tempfile.TemporaryDirectory() as folder, seeded(0, "overheads"):
        began = time.perf_counter()
        keeper = Checkpoint(Path(folder), seconds=1.0)
        train_stacked(prepared, configs, job, capability, slots=SLOTS, checkpoint=keeper)
        whole = time.perf_counter() - began
    for restore in undo:
        restore()
    return {name: sum(parts) / whole for name, parts in spent.items()} | {"seconds": whole}


def to_first_update() -> float:
    """Seconds from starting Python to the end of the first training leg of 8 runs."""
    began = time.time()
    said = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
    return float(said.stdout.splitlines()[0]) - began


def main() -> int:
    """Print the shares; 1 if recording or checkpoints take more than 2 %."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for row in (ROWS[0], ROWS[1], ROWS[4]):
        each = [shares(row) for _ in range(options.repeats)]
        middle = {name: statistics.median(one[name] for one in each) for name in each[0]}
        found[row.name] = middle
        told = ", ".join(f"{n} {100 * v:.2g} %" for n, v in middle.items() if n != "seconds")
        print(f"{row.name} (of {middle['seconds']:.1f} s): {told}", flush=True)
    first = [to_first_update() for _ in range(options.repeats)]
    found["seconds to the first update"] = statistics.median(first)
    print(f"from the command to the first updates: {statistics.median(first):.1f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    rows = [value for value in found.values() if isinstance(value, dict)]
    return int(any(max(row["recording"], row["checkpoints"]) > 0.02 for row in rows))


if __name__ == "__main__":
    sys.exit(main())
