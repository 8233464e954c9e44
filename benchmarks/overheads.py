"""Where the time of a sweep goes besides training: shares of one cell's wall time.

Every sweep is trained in the way that the engine chooses for it, compiled where it compiles: the
faster an update is, the more of the time the rest takes. A stack is trained to its end by one
worker's program, evaluated as `advise` does and checkpointed, with half of the runs diverging on
the way, so that slots are refilled; then it is written as a finished cell. A cell of the loop
executor is one run. It trains long enough that several checkpoints are written. Compiling, which
does not grow with the training, is left out of the whole. Every part is timed where it is called:

* recording is all that evaluating does beside predicting, collecting the series, and writing them;
* checkpoints are the copies of the state and the writing;
* gathering batches is not told of a compiled program, which does it inside, and holds the drawing
  of the order in a loop.

More than 2 % for either, or no checkpoint at all, ends the script with 1. The time from the
command to the first update is that of a process of its own.

    python benchmarks/overheads.py --repeats 3
"""

from __future__ import annotations

import argparse
import json
import math
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
from engine import ROWS, Row, chosen, configs_of, named, prepared_of

from batchlab._random import seeded
from batchlab.engine import Engine, compiled, evaluation_grid, stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.choice import Choice
from batchlab.engine.compiled import Run, compile_block
from batchlab.engine.job import Job
from batchlab.engine.loop import Alone, train_alone
from batchlab.engine.stacked import Stack, train_stacked
from batchlab.engine.store import save_cell
from batchlab.engine.trace import Recorder

UPDATES = 2_000
MOST = 0.02
"""Of the time that recording, and checkpoints, may take."""
PARTS: dict[str, dict[str, tuple[Any, str]]] = {
    "stacked": {
        "orders": (Stack, "_orders"),
        "train": (Stack, "_train"),
        "take": (compiled._tree, "take"),
        "evaluate": (Stack, "_evaluate"),
        "predict": (Stack, "_evaluated"),
        "series": (Recorder, "series"),
        "seat": (Stack, "_seat"),
        "saved": (Stack, "saved"),
        "save": (Checkpoint, "save"),
    },
    "loop": {
        "train": (Alone, "update"),
        "take": (Alone, "_batch"),
        "evaluate": (Alone, "record"),
        "predict": (Alone, "_evaluate"),
        "series": (Recorder, "series"),
        "saved": (Alone, "saved"),
        "save": (Checkpoint, "save"),
    },
}
"""Executor → part → where it is called."""
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


def warmed(*given: Any) -> Run:
    """A block that is compiled at its first call has had it."""
    block = compile_block(*given)
    block(*given[1:5])
    return block


def long_enough(row: Row, choice: Choice, seconds: float) -> int:
    """Updates of each run with which a cell takes so many seconds."""
    updates = UPDATES
    while (found := trained(row, choice, updates)["seconds"]) < seconds:
        updates = math.ceil(updates * max(1.5, 1.2 * seconds / found))
    return updates


def trained(row: Row, choice: Choice, updates: int) -> dict[str, float]:
    """Part → its share, for runs of so many updates."""
    prepared = prepared_of(row)
    capability = probe_capability(prepared, configs_of(row, prepared, 1)[0])
    job = Job(evaluation_grid(prepared.examples, updates * row.batch_size))
    runs = 1 if choice.executor == "loop" else 2 * choice.slots
    # Every second run diverges.
    configs = [
        replace(config, learning_rate=1e30 if i % 2 else config.learning_rate)
        for i, config in enumerate(configs_of(row, prepared, runs, updates))
    ]
    places = PARTS[choice.executor] | {"compile": (stacked, "compile_block")}
    spent: dict[str, list[float]] = {name: [] for name in places}
    kept, stacked.compile_block = stacked.compile_block, warmed
    undo = [timed(*place, spent[name]) for name, place in places.items()]
    with tempfile.TemporaryDirectory() as folder, seeded(0, "overheads"):
        began = time.perf_counter()
        keeper = Checkpoint(Path(folder), seconds=1.0)
        if choice.executor == "loop":
            ends = [train_alone(prepared, configs[0], job, capability, checkpoint=keeper)]
        else:
            how: dict[str, Any] = {"slots": choice.slots, "unit": choice.unit}
            ends = train_stacked(prepared, configs, job, capability, checkpoint=keeper, **how)
        written = time.perf_counter()
        save_cell(Path(folder), ends)
        ended = time.perf_counter()
    for restore in undo:
        restore()
    stacked.compile_block = kept
    took = {name: sum(each) for name, each in spent.items()} | {"write": ended - written}
    compiling = took.pop("compile")
    took["train"] -= compiling
    if choice.unit:
        del took["take"]
    whole = ended - began - compiling
    found = by_purpose({name: seconds / whole for name, seconds in took.items()})
    return found | {"seconds": whole, "checkpoints written": len(spent["save"])}


def by_purpose(parts: dict[str, float]) -> dict[str, float]:
    """What the parts are for, as far as there are any; refilling evaluates, and so does the rest.

    The sum of drawing, training, evaluating, recording, checkpoints and the rest is 1.
    """
    found = {
        "training": parts["train"],
        "evaluating": parts["predict"],
        "recording": parts["evaluate"] - parts["predict"] + parts["series"] + parts["write"],
        "checkpoints": parts["saved"] + parts["save"],
    }
    if "orders" in parts:
        found["drawing the order"] = parts["orders"]
    found["the rest"] = 1 - sum(found.values())
    within = {
        "of which gathering batches": "take",
        "refilling slots, evaluations included": "seat",
    }
    return found | {told: parts[name] for told, name in within.items() if name in parts}


def missed(name: str, row: dict[str, float]) -> list[str]:
    """What takes too much, in words. A NaN is too much."""
    said = [
        f"{name}: {part} take {100 * row[part]:.2g} %, at most {100 * MOST:g} %"
        for part in ("recording", "checkpoints")
        if not row[part] <= MOST
    ]
    return said + [f"{name}: no checkpoint was written"] * (row["checkpoints written"] < 1)


def to_first_update() -> float:
    """Seconds from starting Python to the end of the first training leg of 8 runs."""
    began = time.time()
    said = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
    return float(said.stdout.splitlines()[0]) - began


def main() -> int:
    """Print the shares; 1 if recording or checkpoints take more than 2 %."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each training, about")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    too_much: list[str] = []
    for row in (ROWS[0], ROWS[1], ROWS[4], ROWS[6]):
        with Engine(prepared_of(row)) as engine:
            choice = chosen(row, engine)
        updates = long_enough(row, choice, options.seconds)
        each = [trained(row, choice, updates) for _ in range(options.repeats)]
        middle = {name: statistics.median(one[name] for one in each) for name in each[0]}
        found[row.name] = middle | {"way": named(choice)}
        told = ", ".join(
            f"{name} {100 * share:.2g} %"
            for name, share in middle.items()
            if name not in ("seconds", "checkpoints written")
        )
        print(
            f"{row.name} ({named(choice)}, of {middle['seconds']:.1f} s, "
            f"{middle['checkpoints written']:.0f} checkpoints): {told}",
            flush=True,
        )
        too_much += missed(row.name, middle)
    first = [to_first_update() for _ in range(options.repeats)]
    found["seconds to the first update"] = statistics.median(first)
    print(f"from the command to the first updates: {statistics.median(first):.1f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    for sentence in too_much:
        print(f"MISSED: {sentence}")
    return int(bool(too_much))


if __name__ == "__main__":
    sys.exit(main())
