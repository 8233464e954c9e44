"""Kill a sweep at random moments and go on: is the result the same, and is nothing done twice?

Each trial starts a sweep in a process of its own and kills it with SIGKILL: after a random time,
or in the middle of writing its n-th file. A second process resumes it to the end. Then

* every number of the result is bit for bit that of an undisturbed sweep,
* the second process trained exactly the updates that no checkpoint and no finished cell held,
* no unfinished file and no process is left.

    python benchmarks/kill.py --trials 50
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab import _platform
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, Trace
from batchlab.engine.checkpoint import NAME, Checkpoint
from batchlab.engine.loop import Alone
from batchlab.engine.stacked import Stack
from batchlab.tasks import Task, prepare

SIZE = 8
CHECKPOINT_SECONDS = 0.05


def task() -> Task:
    """A small classifier with dropout."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(512, 10, generator=draw)
    y = (x.sum(1) > 0).long()
    return Task(
        lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 2)),
        (x, y),
        loss=lambda outputs, batch: cross_entropy(outputs, batch[1], reduction="none"),
    )


def configs(updates: int) -> list[RunConfig]:
    """Runs for two stacks; one of them diverges."""
    return [
        RunConfig(
            rule="shb",
            batch_size=SIZE,
            learning_rate=1e30 if seed == 3 else 0.01,
            samples=SIZE * updates,
            seed=seed,
        )
        for seed in range(16)
    ]


def train(out: Path, executor: str, updates: int, die_at_write: int) -> None:
    """The child: train, count what is trained, and say it."""
    counted = count_updates()
    if die_at_write:
        die_while_writing(die_at_write)
    prepared = prepare(task(), device="cpu")
    runs = [config.resolved(prepared.examples) for config in configs(updates)]
    runs = runs if executor == "stacked" else runs[:4]
    length = runs[0].samples
    assert isinstance(length, int)
    job = Job(tuple(range(0, length + 1, length // 8)), keep_end=True)
    with (
        _platform.DirectoryLock(out),
        Engine(prepared, out, 0, executor, CHECKPOINT_SECONDS) as engine,
    ):
        trace, states = engine.train(runs, job)
    (out / "result.json").write_text(json.dumps([facts(trace), digest(states), counted[0]]))


def count_updates() -> list[int]:
    """Counts updates of single runs from now on."""
    counted = [0]
    stacked, alone = Stack.leg, Alone.update

    def leg(self: Stack) -> None:
        before = sum(self.done[row] for row in self.active)
        slots = list(self.slots)
        stacked(self)
        counted[0] += sum(
            self.done[row] for row in range(len(self.slots)) if self.slots[row] in slots
        )
        counted[0] -= before

    def update(self: Alone, first: int, size: int) -> None:
        alone(self, first, size)
        counted[0] += 1

    Stack.leg, Alone.update = leg, update
    return counted


def die_while_writing(order: int) -> None:
    """SIGKILL itself before the n-th file gets its name."""
    left, replace = [order], os.replace

    def fatal(source: Any, target: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    _platform.os.replace = fatal


def facts(trace: Trace) -> list[Any]:
    """All of a trace that is not a time."""
    return [
        [
            run.status,
            run.updates,
            run.samples,
            {name: [s.samples.tolist(), s.values.tolist()] for name, s in run.series.items()},
        ]
        for run in trace.runs
    ]


def digest(states: list[Any]) -> list[float | None]:
    """One number per end state that any changed bit changes."""
    return [
        None
        if state is None
        else float(
            sum(
                (p.double() * torch.arange(1, p.numel() + 1).reshape(p.shape)).sum()
                for p in state.progress.params.values()
            )
        )
        for state in states
    ]


def child(
    out: Path, executor: str, updates: int, die_at_write: int = 0
) -> subprocess.Popen[bytes]:
    """Start the sweep in a process."""
    words = [sys.executable, __file__, "--child", str(out), "--executor", executor]
    words += ["--updates", str(updates), "--die-at-write", str(die_at_write)]
    return subprocess.Popen(words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def result(out: Path) -> tuple[str, int]:
    """Everything that must be the same, as text; and the updates trained."""
    found, states, counted = json.loads((out / "result.json").read_text())
    return json.dumps([found, states]), counted


def kept(out: Path) -> int:
    """Batches that checkpoints of unfinished cells hold."""
    total = 0
    for path in out.glob(f"cells/*/{NAME}"):
        if (path.parent / "done.json").exists():
            continue
        held = Checkpoint(path.parent).load()
        if held is None:
            continue
        done = held[0]["done"]
        if isinstance(done, int):
            total += done
        else:
            total += sum(n for n, run in zip(done, held[0]["slots"], strict=True) if run != -1)
    return total


def finished(out: Path) -> int:
    """Finished cells."""
    return len(list(out.glob("cells/*/done.json")))


def trial(
    folder: Path,
    whole: tuple[str, int],
    executor: str,
    updates: int,
    after: float,
    at_write: int,
) -> list[str]:
    """Kill, resume, compare; what was wrong."""
    first = child(folder, executor, updates, at_write)
    if not at_write:
        time.sleep(after)
        first.kill()
    first.wait()
    if (folder / "result.json").exists():
        return []  # it was over before
    held, cells = kept(folder), finished(folder)
    second = child(folder, executor, updates)
    if second.wait():
        return [f"the resumed process ended with {second.returncode}"]
    wrong = []
    same, counted = result(folder)
    if same != whole[0]:
        wrong.append("another result")
    if cells == 0 and held and counted > whole[1] - held:
        wrong.append(f"trained {counted} updates, {whole[1] - held} were left")
    stray = [p.name for p in folder.rglob("*") if p.name.startswith(_platform.UNFINISHED)]
    stray += [str(p) for p in folder.rglob(NAME)]
    return wrong + [f"stray {name}" for name in stray]


def main() -> int:
    """Run the trials; 1 if any was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=1500, help="of each run")
    parser.add_argument("--executor", default="stacked", choices=["stacked", "loop"])
    parser.add_argument("--child", type=Path)
    parser.add_argument("--die-at-write", type=int, default=0)
    options = parser.parse_args()
    if options.child:
        train(options.child, options.executor, options.updates, options.die_at_write)
        return 0
    draw, failures, during = random.Random(options.seed), [], 0
    with tempfile.TemporaryDirectory() as scratch:
        for executor in ("stacked", "loop"):
            began = time.perf_counter()
            undisturbed = Path(scratch) / f"whole-{executor}"
            child(undisturbed, executor, options.updates).wait()
            length, whole = time.perf_counter() - began, result(undisturbed)
            for i in range(options.trials // 2):
                folder = Path(scratch) / f"{executor}-{i}"
                at_write = draw.randint(1, 40) if i % 2 else 0
                after = draw.uniform(0.3, 1.0) * length
                wrong = trial(folder, whole, executor, options.updates, after, at_write)
                during += 1
                failures += wrong
                print(f"{executor} {i}: {wrong or 'the same'}", flush=True)
    print(f"{during} kills, {len(failures)} failures")
    return int(bool(failures))


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
