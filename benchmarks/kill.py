"""Kill a sweep at random moments and go on: is the result the same, and is nothing done twice?

Each trial starts a sweep in a process of its own, with or without worker processes, and ends it in
one of three ways: SIGKILL at a random moment of the training, SIGKILL in the middle of writing one
of its files, or SIGKILL of one of its workers, after which it has to end by itself in a sentence.
Then a second process resumes it to the end, and

* every number and every end state of the result is bit for bit that of an undisturbed sweep,
* the second sweep trained exactly the updates that neither a finished cell nor a checkpoint held,
* no checkpoint was half-written, and no unfinished file, damaged cell, checkpoint, scratch folder
  or process is left.

One kind of sweep is a whole `batchlab advise TASK --resume`, with a worker process per core. What
it times decides what it trains, so that two of them need not train the same cells: those that both
have are bit for bit the same, and a cell that was finished when the first was killed stays as it
is.

A sweep that was over before it was killed does not count: another one is started.

    python benchmarks/kill.py --trials 50
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab import _platform
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunState, Trace
from batchlab.engine.checkpoint import NAME, Checkpoint
from batchlab.engine.job import to_arrays
from batchlab.engine.loop import Alone
from batchlab.engine.stacked import EMPTY, Stack
from batchlab.engine.workers import SCRATCH
from batchlab.errors import UserError
from batchlab.tasks import Task, prepare

SIZE = 8
CHECKPOINT_SECONDS = 0.05
GONE_SECONDS = 30.0
"""After which a process that was to end has outlived its parent."""
POLL_SECONDS = 0.01
ATTEMPTS = 4
"""Sweeps started, at most, for each that is killed."""
ADVICE, ADVICE_FILE = "advise", "advice.json"
"""In the place of an executor: the command; and what it writes."""
ASKED = (
    "--objective",
    "samples",
    "--batch-sizes",
    "8",
    "16",
    "--seeds",
    "2",
    "--confirm-seeds",
    "3",
    "--no-growing",
    "--budget",
    "5m",
    "--device",
    "cpu",
)
"""What an advice is asked for: all stages, little of each, and more time than they take, so that
timing decides as little as can be."""


class Kind(NamedTuple):
    """How a sweep is trained and killed; an advice has its own number of workers."""

    executor: str
    how: str
    workers: int


KINDS = (
    Kind("stacked", "while writing", 0),
    Kind("loop", "at any moment", 2),
    Kind("stacked", "at any moment", 2),
    Kind("loop", "while writing", 0),
    Kind("stacked", "a worker", 2),
    Kind("stacked", "at any moment", 0),
    Kind("loop", "a worker", 2),
    Kind("loop", "at any moment", 0),
    Kind(ADVICE, "at any moment", 2),
)


# ------------------------------------------------------------------ the sweep that is killed


def task(counts: Path) -> Task:
    """A small classifier with dropout; where its model is made, updates are counted."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(512, 10, generator=draw)
    y = (x.sum(1) > 0).long()

    def make() -> nn.Module:
        count_updates(counts)
        return nn.Sequential(
            nn.Linear(10, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 2)
        )

    def loss(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        return cross_entropy(outputs, batch[1], reduction="none")

    return Task(make, (x, y), loss=loss)


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


TASK = """
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab import RunConfig, Task


def task():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(512, 10, generator=draw)
    y = (x.sum(1) > 0).long()
    return Task(
        lambda: nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 2)),
        (x, y),
        loss=lambda outputs, batch: cross_entropy(outputs, batch[1], reduction="none"),
        metric="accuracy",
        baseline=RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="4ep"),
    )
"""
"""The file whose task an advice is about."""


def train(
    out: Path, counts: Path, executor: str, workers: int, updates: int, die_at_write: int
) -> None:
    """The child: train, and say what came of it."""
    written = watch_writes(die_at_write)
    prepared = prepare(task(counts), device="cpu")
    runs = [config.resolved(prepared.examples) for config in configs(updates)]
    runs = runs if executor == "stacked" else runs[:4]
    length = SIZE * updates
    job = Job(tuple(range(0, length + 1, length // 8)), keep_end=True)
    with (
        _platform.DirectoryLock(out),
        Engine(prepared, out, workers, executor, CHECKPOINT_SECONDS) as engine,
    ):
        trace, states = engine.train(runs, job)
    found = {"facts": facts(trace), "states": digests(states), "written": written[0]}
    (out / "result.json").write_text(json.dumps(found))


def count_updates(counts: Path) -> None:
    """From now on a file named by this process says how many updates of single runs it trained."""
    stacked, alone = Stack.leg, Alone.update
    if stacked.__name__ == "counted_leg":
        return
    total, file = [0], counts / str(os.getpid())

    def add(updates: int) -> None:
        total[0] += updates
        file.write_text(str(total[0]))

    def counted_leg(self: Stack) -> None:
        before = reached(self)
        stacked(self)
        add(reached(self) - before)

    def counted_update(self: Alone, first: int, size: int) -> None:
        alone(self, first, size)
        add(1)

    counts.mkdir(exist_ok=True)
    Stack.leg, Alone.update = counted_leg, counted_update


def reached(stack: Stack) -> int:
    """Updates that all runs of a stack have behind them: those in it, waiting and ended."""
    training = sum(stack.done[row] for row in stack.active)
    waiting = sum(parked.done for parked in stack.parked.values())
    return training + waiting + sum(result.updates for result, _ in stack.ends.values())


def watch_writes(fatal: int) -> list[int]:
    """Counts files that get their names; dies before the ``fatal``-th does, and every second time
    leaves half of it.
    """
    written, replace = [0], os.replace

    def watched(source: Any, target: Any) -> None:
        written[0] += 1
        if written[0] == fatal:
            if fatal % 2:
                os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = watched
    return written


def facts(trace: Trace) -> list[Any]:
    """All of a trace that is not a time."""
    return [
        [
            run.status,
            run.sentence,
            run.updates,
            run.samples,
            {name: [s.samples.tolist(), s.values.tolist()] for name, s in run.series.items()},
        ]
        for run in trace.runs
    ]


def digests(states: list[RunState | None]) -> list[str | None]:
    """Hash of every parameter, buffer and number of the rule at the end of each run."""
    return [None if state is None else digest(state) for state in states]


def digest(state: RunState) -> str:
    """Hash of a state."""
    found = hashlib.sha256(repr((state.samples, state.updates)).encode())
    for name, array in to_arrays("leaf", state.progress).items():
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


# ------------------------------------------------------------------ what it leaves


@dataclass(frozen=True)
class Whole:
    """A sweep that nobody disturbed.

    Attributes:
        same: What must be the same, as text.
        cells: Updates that each of its cells trained.
        digests: Hash of what each of its cells holds.
        written: Files that got a name.
        seconds: From the first update to the end.
    """

    same: str
    cells: dict[str, int]
    digests: dict[str, str]
    written: int
    seconds: float


def result(out: Path) -> tuple[str, int]:
    """(what must be the same, files written)."""
    found = json.loads((out / "result.json").read_text())
    return json.dumps([found["facts"], found["states"]]), found["written"]


def finished(out: Path) -> dict[str, int]:
    """Updates of the runs of every finished cell."""
    return {
        seal.parent.name: int(pl.read_parquet(seal.parent / "runs.parquet")["updates"].sum())
        for seal in out.glob("cells/*/done.json")
    }


def contents(out: Path) -> dict[str, str]:
    """Hash of every number in every finished cell that is not a time."""
    found = {}
    for seal in out.glob("cells/*/done.json"):
        runs = pl.read_parquet(seal.parent / "runs.parquet").drop("seconds")
        metrics = pl.read_parquet(seal.parent / "metrics.parquet")
        ends = [file.read_bytes() for file in sorted(seal.parent.glob("end*.npz"))]
        whole = [runs.write_json().encode(), metrics.write_json().encode(), *ends]
        found[seal.parent.name] = hashlib.sha256(b"".join(whole)).hexdigest()
    return found


def written_at(out: Path) -> dict[str, int]:
    """When each finished cell was."""
    return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("cells/*/done.json")}


def held(path: Path) -> int | None:
    """Updates that a checkpoint holds; None if it is damaged. Reads a copy: who reads a damaged
    one sets it aside.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        whole = Checkpoint(Path(folder)).load()
    if whole is None:
        return None
    found, _ = whole
    if isinstance(found["done"], int):
        return found["done"]
    pairs = zip(found["done"], found["slots"], strict=True)
    training = sum(done for done, run in pairs if run != EMPTY)
    waiting = sum(parked[0] for parked in found["parked"].values())
    return training + waiting + sum(end[1] for end in found["ends"].values())


def strays(out: Path) -> list[str]:
    """Files that no finished sweep has."""
    found = [path for path in out.rglob("*") if path.name.startswith(_platform.UNFINISHED)]
    found += [*out.rglob(NAME), *out.rglob("*.damaged*")]
    return [f"stray {path.relative_to(out)}" for path in found]


def counted(counts: Path) -> int:
    """Updates that all processes have trained."""
    return sum(int(path.read_text() or 0) for path in counts.glob("*"))


# ------------------------------------------------------------------ processes


def family(process: int) -> list[int]:
    """All descendants of a process, where the system tells."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it ended meanwhile
    found = [process]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def is_worker(process: int) -> bool:
    """Whether it is one of loky's."""
    try:
        return b"LokyProcess" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def runs_still(process: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(happened: Callable[[], bool], seconds: float) -> bool:
    """Wait for something; whether it happened."""
    end = time.monotonic() + seconds
    while not (found := happened()) and time.monotonic() < end:
        time.sleep(POLL_SECONDS)
    return found


class Child:
    """A sweep in a process of its own, with its own folder for temporary files."""

    def __init__(self, home: Path, name: str, kind: Kind, updates: int, fatal: int = 0) -> None:
        self.out, self.counts, self.scratch = home / "out", home / f"counts-{name}", home / "tmp"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.begun, self.result = (self.counts, "*"), self.out / "result.json"
        words = [sys.executable, __file__, "--child", str(self.out), "--counts", str(self.counts)]
        words += ["--executor", kind.executor, "--workers", str(kind.workers)]
        words += ["--updates", str(updates), "--die-at-write", str(fatal)]
        if kind.executor == ADVICE:
            self.begun, self.result = (self.out, "plan.json"), self.out / ADVICE_FILE
            script = home.parent / "tiny_task.py"  # of all: cells are named after it, too
            script.write_text(TASK)
            words = [sys.executable, "-m", "batchlab", "advise", f"{script}:task", "--resume"]
            words += ["--out", str(self.out), *ASKED]
        places = {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.scratch)}
        self.said = home / f"said-{name}"
        with self.said.open("w") as file:
            self.process = subprocess.Popen(
                words, env=os.environ | places, stdout=subprocess.DEVNULL, stderr=file
            )

    def trains(self) -> bool:
        """Whether it has begun to train, or is over."""
        folder, name = self.begun
        return self.process.poll() is not None or any(folder.glob(name))


# ------------------------------------------------------------------ trials


def undisturbed(home: Path, kind: Kind, updates: int) -> Whole:
    """What the killed sweeps are compared with."""
    child = Child(home, "whole", kind._replace(workers=0), updates)
    until(child.trains, 600.0)
    began = time.monotonic()
    if child.process.wait():
        raise SystemExit(f"the undisturbed sweep failed: {child.said.read_text()}")
    seconds = time.monotonic() - began
    cells, digests = finished(child.out), contents(child.out)
    if kind.executor == ADVICE:
        return Whole("", cells, digests, 0, seconds)
    same, written = result(child.out)
    if counted(child.counts) != sum(cells.values()):
        raise SystemExit("updates are counted wrongly: the undisturbed sweep trained others")
    return Whole(same, cells, digests, written, seconds)


def kill(child: Child, kind: Kind, after: float, draw: random.Random) -> list[str] | None:
    """End a sweep; what was wrong with its end, or None if it was over before."""
    processes: list[int] = []
    if kind.how != "while writing":
        until(child.trains, 600.0)
        time.sleep(after)
        processes = family(child.process.pid)
        workers = [process for process in processes if is_worker(process)]
        if kind.how == "a worker" and workers:
            os.kill(draw.choice(workers), signal.SIGKILL)
        elif kind.how == "at any moment":
            child.process.kill()
    code = child.process.wait()
    if child.result.exists():
        return None
    wrong = []
    if kind.how == "a worker":
        said = child.said.read_text().strip()
        sentence = said.rpartition("\n")[2].startswith("A worker process died")
        if code != 2 or not sentence or "Traceback" in said:
            wrong.append(f"ended with {code} and said {said!r}")
    elif code != -signal.SIGKILL:
        wrong.append(f"ended with {code}: {child.said.read_text()}")
    if not until(lambda: not any(map(runs_still, processes)), GONE_SECONDS):
        wrong.append(f"processes outlived it: {[p for p in processes if runs_still(p)]}")
    return wrong


def trial(
    home: Path, whole: Whole, kind: Kind, updates: int, draw: random.Random
) -> list[str] | None:
    """Kill, resume, compare; what was wrong, or None if the sweep was over before."""
    fatal = draw.randint(1, whole.written) if kind.how == "while writing" else 0
    first = Child(home, "first", kind, updates, fatal)
    faster = 1 if kind.executor == ADVICE else max(1, kind.workers)  # than the undisturbed one
    wrong = kill(first, kind, draw.uniform(0, whole.seconds / faster), draw)
    if wrong is None:
        return None
    done, when = finished(first.out), written_at(first.out)
    unfinished = (p for p in first.out.glob(f"cells/*/{NAME}") if p.parent.name not in done)
    kept = [held(path) for path in unfinished]
    wrong += ["a half-written checkpoint"] * kept.count(None)
    second = Child(home, "second", kind, updates)
    if second.process.wait():
        return [*wrong, f"the resumed sweep failed: {second.said.read_text()}"]
    if kind.executor == ADVICE:
        wrong += changed(second.out, whole, when)
    else:
        if result(second.out)[0] != whole.same:
            wrong.append("another result")
        left = sum(whole.cells.values()) - sum(done.values()) - sum(filter(None, kept))
        if counted(second.counts) != left:
            wrong.append(f"trained {counted(second.counts)} updates, {left} were left")
    wrong += [f"stray {path.name}" for path in second.scratch.glob(f"{SCRATCH}*")]
    return wrong + strays(second.out)


def changed(out: Path, whole: Whole, when: dict[str, int]) -> list[str]:
    """What a resumed advice has made otherwise than the undisturbed one, or anew; ``when``: of the
    cells that were finished before.
    """
    wrong, found = [], contents(out)
    common = found.keys() & whole.digests.keys()
    if not (out / ADVICE_FILE).exists():
        wrong.append("no advice")
    if not common or any(found[name] != whole.digests[name] for name in common):
        wrong.append(f"another result in one of {len(common)} cells")
    if not when.items() <= written_at(out).items():
        wrong.append("trained finished cells again")
    return wrong


def main() -> int:
    """Run the trials; 1 if any was wrong, or too few sweeps could be killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=50, help="sweeps that are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=1500, help="of each run")
    parser.add_argument("--executor", default="stacked", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--counts", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-at-write", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        known = given.executor, given.workers, given.updates, given.die_at_write
        try:
            train(given.child, given.counts, *known)
        except UserError as error:
            print(error, file=sys.stderr)
            return 2
        return 0
    draw, failures, kills = random.Random(given.seed), 0, collections.Counter[str]()
    wholes: dict[str, Whole] = {}
    trials: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for attempt in range(ATTEMPTS * given.trials):
            if kills.total() == given.trials:
                break
            kind = KINDS[kills.total() % len(KINDS)]
            if kind.executor not in wholes:
                home = Path(scratch) / f"whole-{kind.executor}"
                wholes[kind.executor] = undisturbed(home, kind, given.updates)
            home = Path(scratch) / str(attempt)
            wrong = trial(home, wholes[kind.executor], kind, given.updates, draw)
            if wrong is None:
                continue
            kills[kind.how] += 1
            failures += bool(wrong)
            name = f"{kind.executor}, {kind.workers} workers, {kind.how}"
            trials.append({"kind": name, "wrong": wrong})
            print(f"{name}: {'; '.join(wrong) or 'the same'}", flush=True)
    hows = ", ".join(f"{count} {how}" for how, count in kills.items())
    print(f"{kills.total()} kills ({hows}), {failures} failures")
    if given.json:
        given.json.write_text(json.dumps(trials, indent=1))
    return int(failures > 0 or kills.total() < given.trials)


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
