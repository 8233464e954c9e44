"""What a step of SHB, NSHB and QHM costs: its time over that of `torch.optim.SGD` with momentum.

Both in their form over all parameters at once (foreach), on parameters of 60 tensors. Steps of the
two run in turn, in short blocks whose order changes from pair to pair, so that both see the same
machine. Before that, the two are held equal to their definitions by the tests.

    python benchmarks/optimizers.py --pairs 200 --json results.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from batchlab._platform import processor_name
from batchlab.optim import NSHB, QHM, SHB
from batchlab.stats import median_estimate

AIM = 1.1
TENSORS = 60
SIZES = {2_000: 50, 200_000: 2}
"""Numbers of a tensor → steps of a block, some 20 ms."""
KINDS = {"SHB": SHB, "NSHB": NSHB, "QHM": QHM}


def parameters(size: int) -> list[torch.nn.Parameter]:
    """With gradients that stay the same."""
    made = [torch.nn.Parameter(torch.randn(size)) for _ in range(TENSORS)]
    for parameter in made:
        parameter.grad = torch.randn(size)
    return made


def stepper(make: Callable[..., torch.optim.Optimizer], size: int) -> Callable[[], Any]:
    """Its step, after two that make its memory."""
    torch.manual_seed(0)
    step = make(parameters(size), lr=1e-6, momentum=0.9, foreach=True).step
    for _ in range(2):
        step()
    return step


def block(step: Callable[[], Any], steps: int) -> tuple[float, float]:
    """Wall and CPU seconds of so many steps."""
    began, spent = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return time.perf_counter() - began, time.process_time() - spent


def paired(kind: str, size: int, pairs: int) -> dict[str, Any]:
    """Ratios to SGD, pair by pair: median with its 90 % range, of wall and of CPU time."""
    ours, theirs = stepper(KINDS[kind], size), stepper(torch.optim.SGD, size)
    wall, cpu, each = [], [], []
    for pair in range(pairs):
        order = (ours, theirs) if pair % 2 else (theirs, ours)
        times = {step is ours: block(step, SIZES[size]) for step in order}
        wall.append(times[True][0] / times[False][0])
        cpu.append(times[True][1] / times[False][1])
        each.append(times[True][0] / SIZES[size])
    found = {name: median_estimate(np.array(v)) for name, v in (("wall", wall), ("cpu", cpu))}
    return {name: vars(value) for name, value in found.items()} | {
        "microseconds": 1e6 * float(np.median(each))
    }


def main() -> int:
    """Print median ratios with 90 % ranges; 1 if one is above 1.1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        for kind in KINDS:
            row = rows[f"{kind}, {TENSORS} × {size:,}"] = paired(kind, size, options.pairs)
            wall = row["wall"]
            print(
                f"{kind}, {TENSORS} × {size:,}: {wall['value']:.3f} ({wall['low']:.3f} to "
                f"{wall['high']:.3f}) of SGD, CPU {row['cpu']['value']:.3f}, n = {options.pairs} "
                f"pairs, {row['microseconds']:.0f} µs a step",
                flush=True,
            )
    if options.json:
        where = {"torch": str(torch.__version__), "machine": processor_name()}
        options.json.write_text(json.dumps(rows | {"where": where}, indent=1))
    return int(any(row["wall"]["value"] > AIM for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
