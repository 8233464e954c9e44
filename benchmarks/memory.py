"""Predicted memory of a stack against what a process of its own really takes at its worst.

Each sweep is trained in a fresh process that keeps freed memory as the engine's workers do; its
peak (VmHWM above what was there before the stack) is set against the prediction, which was made
from stacks of 2 and 4 runs. Of a compiled stack the program is made before, and the memory that
the compiler has freed is given back: what compiling takes is not the training's.

    python benchmarks/memory.py --repeats 3
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from engine import Row, configs_of, prepared_of

from batchlab import _platform
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability, probe_capability
from batchlab.engine.choice import unit_of
from batchlab.engine.compiled import Run
from batchlab.engine.job import Job
from batchlab.engine.loop import Alone
from batchlab.engine.memory import predict
from batchlab.engine.stacked import Stack
from batchlab.tasks import Prepared

MEBI = 2**20
COMPILED = ", compiled"
"""How the names of sweeps end whose stacks are compiled."""
SWEEPS = (
    Row("MLP, B=64, R=64", "mlp", 64, 64),
    Row("MLP, B=256, R=32", "mlp", 256, 32),
    Row("MLP, B=512, R=64", "mlp", 512, 64),
    Row("MLP, B=1024, R=16", "mlp", 1024, 16),
    Row("MLP, B=2048, R=64", "mlp", 2048, 64),
    Row("neuron, B=1024, R=256", "neuron", 1024, 256),
    Row("CNN 8×8, B=256, R=32", "cnn8", 256, 32),
    Row("CNN 8×8, B=512, R=64", "cnn8", 512, 64),
    Row("CNN 28×28, B=64, R=16", "cnn28", 64, 16),
    Row("CNN 28×28, B=512, alone", "cnn28", 512, 1),
    Row("MLP, B=4096, alone", "mlp", 4096, 1),
    Row(f"MLP, B=256, R=32{COMPILED}", "mlp", 256, 32),
    Row(f"MLP, B=1024, R=16{COMPILED}", "mlp", 1024, 16),
    Row(f"neuron, B=1024, R=256{COMPILED}", "neuron", 1024, 256),
    Row(f"CNN 8×8, B=256, R=32{COMPILED}", "cnn8", 256, 32),
)


def stack_of(
    row: Row,
    prepared: Prepared,
    configs: Sequence[RunConfig],
    capability: Capability,
    unit: int,
    programs: Mapping[tuple[int, ...], Run] = MappingProxyType({}),
) -> Stack:
    """A stack that has evaluated and trained a few batches, by programs that are there already."""
    none = [None] * row.runs
    stack = Stack(prepared, configs, Job((0,)), capability, none, row.runs, unit)
    stack.compiled.update(programs)
    stack.fill()
    stack.some(max(4, unit))
    return stack


def one(row: Row) -> tuple[int, int]:
    """(predicted, measured) bytes, in this process."""
    torch.set_num_threads(1)
    _platform.keep_freed_memory()
    prepared = prepared_of(row)
    configs = configs_of(row, prepared, row.runs)
    capability = probe_capability(prepared, configs[0])
    executor = "stacked" if row.runs > 1 else "loop"
    unit = unit_of(capability, row.batch_size) if row.name.endswith(COMPILED) else 0
    programs = stack_of(row, prepared, configs, capability, unit).compiled if unit else {}
    gc.collect()
    if unit:
        _platform.return_free_memory()
    base = _platform.current_rss()
    _platform.reset_peak_rss()
    if executor == "loop":
        run = Alone(prepared, configs[0], Job((0,)), capability, None)
        run.record()
        for first, size in run.plan[:4]:
            run.update(first, size)
    else:
        stack_of(row, prepared, configs, capability, unit, programs)
    measured = _platform.peak_rss() - base
    # Afterwards, or the training would find the memory that predicting has freed.
    need = predict(prepared, configs, capability, executor, compiled=unit > 0)
    return need.of(row.runs), measured


def main() -> int:
    """Print the table; 1 if a prediction is more than 20 % off."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="processes per sweep")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(one(SWEEPS[options.one])))
        return 0
    found = []
    for i, row in enumerate(SWEEPS):
        answers = []
        for _ in range(options.repeats):
            said = subprocess.run(
                [sys.executable, __file__, "--one", str(i)], capture_output=True, check=True
            )
            answers.append(json.loads(said.stdout.splitlines()[-1]))
        predicted = answers[0][0]
        measured = statistics.median(answer[1] for answer in answers)
        found.append({"sweep": row.name, "predicted": predicted, "measured": measured})
        print(
            f"{row.name}: predicted {predicted / MEBI:.0f} MiB, took {measured / MEBI:.0f} MiB "
            f"(median of {options.repeats}): {100 * (predicted / measured - 1):+.0f} %",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    return int(any(abs(f["predicted"] / f["measured"] - 1) > 0.2 for f in found))


if __name__ == "__main__":
    sys.exit(main())
