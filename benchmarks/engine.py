"""The engine against plain PyTorch: the same sweep by three ways, in one run.

(a) A plain eager loop, ``nn.Module`` and ``torch.optim.SGD``, as many threads as torch takes.
(b) The strongest plain alternative: the same loop in one single-thread process per core,
    channels_last where the model convolves.
(c) batchlab: the engine trains the sweep from the call to the last result, with its workers,
    cells, evaluations and files. It is timed twice in each turn, for few updates and for many; the
    difference is what an update takes, the rest (compiling, seating runs) stands beside it, and so
    does planning.

Every way that planning tries is timed, too, so that the table shows how far the choice is from the
best. Ways take turns; a figure is the median over the turns of wall seconds per update of one run,
all processes working at once. GEMM peak: square float32 products, one process per core. On a GPU
the share of the memory's bandwidth stands beside it: of the bytes that an update has to move, by
those that a copy moves in the same time. Aims that are missed are named, and the script ends
with 1.

    python benchmarks/engine.py --json engine.json --picture engine.svg
    python benchmarks/engine.py --rows 1 --turns 3 --seconds 0.7
    python benchmarks/engine.py --device cuda --runs 64 --rows 1 3 4 5
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree
from torch.utils.flop_counter import FlopCounterMode

from batchlab import _platform
from batchlab.config import RunConfig
from batchlab.engine import Engine, choice, sweep
from batchlab.engine.capability import Capability, probe_capability
from batchlab.engine.choice import Choice, Effort
from batchlab.engine.job import EVALUATIONS, Job
from batchlab.engine.loop import train_alone
from batchlab.engine.stacked import Stack, train_stacked
from batchlab.engine.step import rule_of, start_of
from batchlab.engine.workers import begin
from batchlab.samplers import Stream
from batchlab.tasks import Prepared, Task, prepare
from batchlab.tasks.source import Stacked

CHECKED_UPDATES, TOLERANCE = 16, 1e-4
SLOWER = 1.1
"""Times the best candidate that the chosen one may take."""
LONGER = 2.0
"""Times what a sweep takes beside its updates that the updates are to take."""
ON_A_GPU = {"neuron": 0.0, "mlp": 20.0, "cnn8": 5.0, "cnn28": 5.0}
"""Times (a) that the rows are to reach there; (b) is no alternative, and the peak another."""
COPIED, COPIES = 2**28, 8
"""Bytes of a copy, more than any cache holds; copies timed at a time."""
SLOW = 1e-3
"""Seconds of an update that nobody has timed."""
MOMENTUM, RATE = 0.9, 0.01


@dataclass(frozen=True)
class Row:
    """One sweep of the table, and what it is to reach: times (a), times (b), share of the GEMM
    peak.
    """

    name: str
    model: str
    batch_size: int
    runs: int
    over_a: float = 0.0
    over_b: float = 0.0
    of_peak: float = 0.0
    rule: str = "shb"


ROWS = (
    Row("one neuron, d=100, B=4, R=256", "neuron", 4, 256, 800, 400, rule="sgd"),
    Row("MLP 784-128-10, B=64, R=16", "mlp", 64, 16, 2.4, 1.5, 0.55),
    Row("MLP 784-128-10, B=64, R=256", "mlp", 64, 256, 2.4, 1.4, 0.53),
    Row("CNN 8×8, B=8, R=32", "cnn8", 8, 32, 5, 2.5),
    Row("CNN 8×8, B=32, R=32", "cnn8", 32, 32, 1.6, 1),
    Row("CNN 8×8, B=128, R=32", "cnn8", 128, 32, 1.5, 1),
    Row("3-conv CNN 28×28, B=32, R=8", "cnn28", 32, 8, 1.7, 1, 0.5),
)


def neuron() -> nn.Module:
    """One linear neuron without bias."""
    return nn.Linear(100, 1, bias=False)


def mlp() -> nn.Module:
    """784-128-10."""
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn8() -> nn.Module:
    """Two convolutions on 8×8 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def cnn28() -> nn.Module:
    """Three convolutions on 28×28 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 49, 10),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "neuron": (neuron, (100,)),
    "mlp": (mlp, (784,)),
    "cnn8": (cnn8, (1, 8, 8)),
    "cnn28": (cnn28, (1, 28, 28)),
}


def square(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
    """Squared error of each example."""
    return functional.mse_loss(outputs, batch[1], reduction="none").flatten(1).mean(1)


def cross(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
    """Cross-entropy of each example."""
    return functional.cross_entropy(outputs, batch[1], reduction="none")


def prepared_of(row: Row, device: str = "cpu") -> Prepared:
    """The task of a row: made-up data in the real shapes."""
    make, shape = MODELS[row.model]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4096, *shape, generator=draw)
    if row.model == "neuron":
        target, loss = x[:, :1] + 0.1 * torch.randn(4096, 1, generator=draw), square
    else:
        target, loss = (x.flatten(1)[:, :10]).argmax(1), cross
    task = Task(make, (x, target), validation=(x[:64], target[:64]), loss=loss, name=row.model)
    return prepare(task, device=device)


def configs_of(
    row: Row, prepared: Prepared, count: int, updates: int = 10_000, turn: int = 0
) -> list[RunConfig]:
    """Runs that differ in seed and rate."""
    return [
        RunConfig(
            rule=row.rule,
            batch_size=row.batch_size,
            learning_rate=RATE * (1 + i % 4),
            momentum=MOMENTUM if row.rule == "shb" else 0.0,
            samples=row.batch_size * updates,
            seed=1000 * turn + i,
        ).resolved(prepared.examples)
        for i in range(count)
    ]


class Plain:
    """A run as anyone would write it."""

    def __init__(self, row: Row, prepared: Prepared, config: RunConfig, last: bool) -> None:
        layout = torch.channels_last if last else torch.contiguous_format
        convolves = row.model.startswith("cnn")
        self.module = prepared.objective(config.seed).module
        if convolves:
            self.module = self.module.to(memory_format=layout)
        self.loss = prepared.task.loss
        assert isinstance(prepared.train, Stacked)
        self.x, self.y = (leaf.to(prepared.device) for leaf in prepared.train.tree)
        if convolves:
            self.x = self.x.contiguous(memory_format=layout)
        self.stream, self.size, self.seen = Stream(prepared.examples, config.seed), 0, 0
        self.size = row.batch_size
        assert config.learning_rate is not None
        self.optimizer = torch.optim.SGD(
            self.module.parameters(), lr=config.learning_rate, momentum=config.momentum or 0.0
        )

    def update(self) -> torch.Tensor:
        """One batch."""
        index, _ = self.stream.take(self.seen, self.size)
        batch = self.x[index], self.y[index]
        self.optimizer.zero_grad()
        assert self.loss is not None
        loss = self.loss(self.module(batch[0]), batch).mean()
        loss.backward()
        self.optimizer.step()
        self.seen += self.size
        return loss.detach()


def way_of(name: str, row: Row, prepared: Prepared, capability: Capability) -> Callable[[], int]:
    """A function that trains a little and says how many updates of single runs that were."""
    kind, _, many = name.partition(" ")
    if kind == "plain":
        plain = Plain(row, prepared, configs_of(row, prepared, 1)[0], last=many == "last")

        def go() -> int:
            for _ in range(20):
                loss = plain.update()
            loss.item()  # a GPU is done only now
            return 20

        return go
    if kind == "loop":
        return choice._loop(prepared, configs_of(row, prepared, 1)[0], capability)
    slots = int(many)
    unit = choice.unit_of(capability, row.batch_size) if kind == "compiled" else 0
    configs = configs_of(row, prepared, slots)
    stack = Stack(prepared, configs, Job(()), capability, [None] * slots, slots, unit)
    stack.fill()
    batches = 32 * unit if unit > 1 else 4  # a leg of the engine is longer than a turn of planning
    return lambda: slots * stack.some(batches)


def worker(row: Row, device: str, threads: int, ours: bool, parent: int, pipe: Any) -> None:
    """Serve ``(way, seconds)`` → (updates, seconds) until None comes."""
    if ours:
        begin(parent)
    torch.set_num_threads(threads)
    prepared = prepared_of(row, device)
    config = configs_of(row, prepared, 1)[0]
    capability = probe_capability(prepared, config)
    ways: dict[str, Callable[[], int]] = {}
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        name, seconds = asked
        if name in PEAKS:
            pipe.send(PEAKS[name](seconds, device))
            continue
        if name not in ways:
            ways[name] = way_of(name, row, prepared, capability)
            ways[name]()  # warms up, and compiles
            ways[name]()
            pipe.send(None)
            continue
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            done += ways[name]()
        pipe.send((done, time.perf_counter() - began))


def gemm(seconds: float, device: str) -> tuple[float, float]:
    """(floating-point operations, seconds) of square products."""
    a, b = torch.randn(2, 1024, 1024, device=device)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        (a @ b)[0, 0].item()  # a GPU is done only now
        done += 1
    return done * 2 * 1024.0**3, time.perf_counter() - began


def bandwidth(seconds: float, device: str, size: int = COPIED) -> tuple[float, float]:
    """(bytes read and written, seconds) of a large copy, the median of repeats."""
    source, target = torch.zeros(2, size, dtype=torch.uint8, device=device)
    began, each = time.perf_counter(), []
    while not each or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        for _ in range(COPIES):
            target.copy_(source)
        target[0].item()  # a GPU is done only now
        each.append(time.perf_counter() - start)
    return 2.0 * COPIES * size, statistics.median(each)


PEAKS = {"gemm": gemm, "copy": bandwidth}
"""What the machine can do at best, measured in the same run."""


class Team:
    """Processes that work at the same time; ``ours``: set up as the engine's workers are."""

    def __init__(self, row: Row, device: str, count: int, threads: int, ours: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(count):
            here, there = context.Pipe()
            given = row, device, threads, ours, os.getpid(), there
            process = context.Process(target=worker, args=given, daemon=True)
            process.start()
            self.pipes.append(here)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()

    def ask(self, name: str, seconds: float) -> list[Any]:
        """The answers of all."""
        for pipe in self.pipes:
            pipe.send((name, seconds))
        return [pipe.recv() for pipe in self.pipes]

    def rate(self, name: str, seconds: float) -> float:
        """Units a second of all together."""
        return sum(done / taken for done, taken in self.ask(name, seconds))

    def close(self) -> None:
        """End them."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(10)
            process.kill()


def same_losses(row: Row, device: str, slots: int, unit: int) -> float:
    """Largest relative difference of the training losses of two runs by the plain loop from those
    by (b), by the loop executor and by the stack; NaN if any is NaN.
    """
    window = max(1, unit)
    prepared = prepared_of(row, device)
    configs = configs_of(row, prepared, 2, CHECKED_UPDATES)
    capability = probe_capability(prepared, configs[0])
    samples = CHECKED_UPDATES * row.batch_size
    job = Job(tuple(range(0, samples + 1, window * row.batch_size)))
    found = [[train_alone(prepared, config, job, capability)[0] for config in configs]]
    if capability.stackable:
        ends = train_stacked(prepared, configs, job, capability, slots=slots or None, unit=unit)
        found.append([result for result, _ in ends])
    worst = 0.0
    for r, config in enumerate(configs):
        one, other = (plain_losses(row, prepared, config, last, window) for last in (False, True))
        ours = [results[r].series["train_loss"].values for results in found]
        worst = float(np.maximum(worst, max_apart(one, [other, *ours])))
    return worst


def plain_losses(
    row: Row, prepared: Prepared, config: RunConfig, last: bool, window: int
) -> np.ndarray:
    """Mean training loss of every ``window`` updates."""
    plain = Plain(row, prepared, config, last)
    losses = [float(plain.update()) for _ in range(CHECKED_UPDATES)]
    return np.reshape(losses, (-1, window)).mean(1)


def max_apart(expected: np.ndarray, found: Sequence[np.ndarray]) -> float:
    """Largest relative difference; NaN if a loss is NaN."""
    scale = np.maximum(np.abs(expected), 1e-3)
    return float(np.max([np.abs(one - expected) / scale for one in found]))


def flop_of(row: Row) -> float:
    """Operations of the forward and backward pass of one update of one run."""
    prepared = prepared_of(row)
    objective, index = prepared.objective(0), torch.arange(row.batch_size)
    counter = FlopCounterMode(display=False)
    with counter:
        objective(prepared.train.batch(index))[0].mean().backward()
    return float(counter.get_total_flops())


def moved_by(row: Row) -> int:
    """Bytes that one update of one run has to move at least: parameters, gradients and the rule's
    state are read and written once, the batch is read. What the layers hand on is left out.
    """
    prepared = prepared_of(row)
    (config,) = configs_of(row, prepared, 1)
    progress = start_of(prepared.objective(0), rule_of(config, prepared.task))
    kept = [*_pytree.tree_leaves(progress.params), *_pytree.tree_leaves(progress.rule_state)]
    gradients = sum(leaf.nbytes for leaf in progress.params.values())
    batch = _pytree.tree_leaves(prepared.train.batch(torch.arange(row.batch_size)))
    return 2 * (sum(leaf.nbytes for leaf in kept) + gradients) + sum(x.nbytes for x in batch)


def of_the_machine(row: Row, middle: dict[str, float]) -> dict[str, float]:
    """What the engine's updates take of the machine's best, as far as that was measured."""
    found = {
        "gemm_gflops": middle["gemm"] / 1e9,
        "of_gemm_peak": flop_of(row) / middle["c"] / middle["gemm"],
    }
    if "copy" in middle:
        found["copied_gigabytes_per_second"] = middle["copy"] / 1e9
        found["of_memory_bandwidth"] = moved_by(row) / middle["c"] / middle["copy"]
    return found


def chosen(row: Row, engine: Engine) -> Choice:
    """How the engine trains the runs of a row where finding out, and compiling, pay back."""
    sweep.effort_of = lambda *given: Effort.COMPILED
    return engine.plan(configs_of(row, engine.prepared, row.runs), Job(()))[0].choice


def named(choice: Choice) -> str:
    """The choice as planning names it."""
    if choice.executor == "loop":
        return "loop"
    return f"{'compiled' if choice.unit else 'stacked'} {choice.slots}"


class Ours:
    """The sweep by the engine itself, from the call to the last result; planned once, as a sweep
    of minutes is, and trained with other seeds in every turn, so that nothing is read from disk.
    """

    def __init__(self, row: Row, prepared: Prepared, workers: int, out: Path) -> None:
        self.row, self.prepared, self.turn = row, prepared, 0
        self.engine = Engine(prepared, out, workers)
        self.at_once = max(1, self.engine.workers)
        began = time.perf_counter()
        self.choice = chosen(row, self.engine)
        self.planning = time.perf_counter() - began
        self.shortest = 2 * max(1, self.choice.unit)

    @property
    def way(self) -> str:
        """The choice as planning names it."""
        return named(self.choice)

    def train(self, updates: int) -> float:
        """Seconds of a whole sweep, evaluated as often as a long one: every quarter pass, at most
        40 times, and between compiled blocks, so that no sweep compiles a program of its own.
        """
        self.turn += 1
        configs = configs_of(self.row, self.prepared, self.row.runs, updates, self.turn)
        samples = updates * self.row.batch_size
        apart = max(self.prepared.examples // 4, math.ceil(samples / EVALUATIONS))
        block = max(1, self.choice.unit) * self.row.batch_size
        job = Job(tuple(range(0, samples + 1, block * math.ceil(apart / block))))
        began = time.perf_counter()
        self.engine.train(configs, job)
        return time.perf_counter() - began

    def warm_up(self, seconds: float) -> None:
        """Start the workers, compile, and find how many updates are long beside the rest."""
        self.train(self.shortest)
        wanted = max(seconds, LONGER * self.train(self.shortest))
        each = self.row.runs * self.choice.timings.get(self.way, SLOW) / self.at_once
        self.longest = self.shortest * (1 + math.ceil(wanted / each / self.shortest))

    def measure(self) -> tuple[float, float]:
        """(seconds of one update of one run, seconds that a sweep takes beside its updates)."""
        short, whole = self.train(self.shortest), self.train(self.longest)
        each = (whole - short) / (self.longest - self.shortest)
        return each / self.row.runs, short - self.shortest * each


def measure(row: Row, device: str, cores: int, turns: int, seconds: float) -> dict[str, Any]:
    """All ways of one row, in turns."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        workers = cores if device == "cpu" else 0
        ours = Ours(row, prepared_of(row, device), workers, Path(folder))
        stack.callback(ours.engine.close)
        ways = list(ours.choice.timings) or ["loop"]
        one, many, same = (
            Team(row, device, *given)
            for given in ((1, cores, False), (cores, 1, False), (cores, 1, True))
        )
        for team in (one, many, same):
            stack.callback(team.close)
        one.ask("plain", 0)
        many.ask("plain last", 0)
        for way in ways:
            same.ask(way, 0)
        ours.warm_up(seconds)
        # On a CPU the caches hold what an update moves, and the memory's bandwidth says nothing.
        peaks = ["gemm"] if device == "cpu" else list(PEAKS)
        found: dict[str, list[float]] = {n: [] for n in ("a", "b", "c", "start", *peaks, *ways)}
        for _ in range(turns):
            found["a"].append(1 / one.rate("plain", seconds))
            found["b"].append(1 / many.rate("plain last", seconds))
            each, start = ours.measure()
            found["c"].append(each)
            found["start"].append(start)
            for way in ways:
                found[way].append(1 / same.rate(way, seconds))
            for peak in peaks:
                found[peak].append(same.rate(peak, seconds))
        return summary(row, device, found, ours)


def summary(row: Row, device: str, found: dict[str, list[float]], ours: Ours) -> dict[str, Any]:
    """Medians, and ratios of each turn."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    ways = {n: 1e6 * v for n, v in middle.items() if n not in ("start", *PEAKS)}
    candidates = [name for name in ways if name not in ("a", "b", "c")]
    best = min(candidates, key=lambda way: ways[way])
    choice = ours.choice

    def ratio(other: str, own: str = "c") -> dict[str, float]:
        each = sorted(b / c for b, c in zip(found[other], found[own], strict=True))
        return {"median": statistics.median(each), "low": each[0], "high": each[-1]}

    return {
        "sweep": row.name,
        "chosen": ours.way,
        "best": best,
        "slower_than_best": ratio(ours.way, best),
        "microseconds": ways,
        "against_a": ratio("a"),
        "against_b": ratio("b"),
        "against_its_way": ratio(ours.way),
        **of_the_machine(row, middle),
        "largest_difference_of_losses": same_losses(row, device, choice.slots, choice.unit),
        "planning_seconds": ours.planning,
        "start_seconds": middle["start"],
        "updates_of_each_run": ours.longest,
        "reason": choice.reason,
        "turns": len(found["a"]),
        "aims": {"against_a": row.over_a, "against_b": row.over_b, "of_gemm_peak": row.of_peak},
    }


def missed(result: dict[str, Any]) -> list[str]:
    """What a row should have reached and has not, in words. A NaN reaches nothing."""
    aims, said = result["aims"], []
    for name, told in (("against_a", "(a)"), ("against_b", "(b)")):
        if not (reached := result[name]["median"]) >= aims[name]:
            said.append(f"{reached:.3g}× {told}, aim {aims[name]:g}×")
    if not (share := result["of_gemm_peak"]) >= aims["of_gemm_peak"]:
        said.append(f"{100 * share:.0f} % of GEMM peak, aim {100 * aims['of_gemm_peak']:.0f} %")
    if not (slower := result["slower_than_best"]["median"]) <= SLOWER:
        said.append(f"{result['chosen']} takes {slower:.2f}× as long as {result['best']}")
    if not (apart := result["largest_difference_of_losses"]) <= TOLERANCE:
        said.append(f"losses differ by {apart:.1e}")
    return said


def picture(results: list[dict[str, Any]], path: Path) -> None:
    """Seconds per update of one run by each way, on a logarithmic axis."""
    import altair as alt

    rows = [
        {"sweep": r["sweep"], "way": way, "µs": r["microseconds"][name]}
        for r in results
        for way, name in (
            ("(a) plain loop", "a"),
            ("(b) a process per core", "b"),
            ("(c) batchlab", "c"),
        )
    ]
    chart = (
        alt.Chart(alt.Data(values=rows), width=520, title="Time of one update of one run")
        .mark_point(size=90, filled=True)
        .encode(
            x=alt.X("µs:Q", scale=alt.Scale(type="log"), title="microseconds, logarithmic"),
            y=alt.Y("sweep:N", sort=[r["sweep"] for r in results], title=None),
            color=alt.Color(
                "way:N",
                scale=alt.Scale(range=["#0072b2", "#e69f00", "#d55e00"]),
                legend=alt.Legend(orient="bottom", title=None),
            ),
            shape=alt.Shape("way:N"),
        )
    )
    chart.save(str(path))


def told(r: dict[str, Any]) -> str:
    """A row of the table."""
    a, b = r["against_a"], r["against_b"]
    memory = ""
    if "of_memory_bandwidth" in r:
        memory = (
            f"{100 * r['of_memory_bandwidth']:.0f} % of the memory's bandwidth "
            f"({r['copied_gigabytes_per_second']:.0f} GB/s); "
        )
    return (
        f"{r['sweep']}: {r['microseconds']['c']:.3g} µs by {r['chosen']}, "
        f"{a['median']:.3g}× (a) [{a['low']:.3g}–{a['high']:.3g}], "
        f"{b['median']:.3g}× (b) [{b['low']:.3g}–{b['high']:.3g}], "
        f"{100 * r['of_gemm_peak']:.0f} % of GEMM peak ({r['gemm_gflops']:.0f} GF/s); "
        f"{memory}"
        f"the way takes {r['slower_than_best']['median']:.2f}× the best one ({r['best']}); "
        f"losses within {r['largest_difference_of_losses']:.1e}; "
        f"planned in {r['planning_seconds']:.0f} s, "
        f"{r['start_seconds']:.1f} s a sweep beside its updates"
    )


def main() -> int:
    """Print the table; 1 if an aim is missed or losses differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", nargs="+", type=int, default=list(range(len(ROWS))))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way in each turn")
    parser.add_argument("--device", default="cpu", help="on a GPU one process does it all")
    parser.add_argument("--runs", type=int, help="instead of those of the rows")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    cores = _platform.available_cores() if options.device == "cpu" else 1
    results, failures = [], 0
    for row in (ROWS[i] for i in options.rows):
        row = replace(row, runs=options.runs or row.runs)
        if options.device != "cpu":
            row = replace(row, over_a=ON_A_GPU[row.model], over_b=0.0, of_peak=0.0)
        results.append(measure(row, options.device, cores, options.turns, options.seconds))
        print(told(results[-1]), flush=True)
        print(f"    {results[-1]['microseconds']}", flush=True)
        for sentence in missed(results[-1]):
            failures += 1
            print(f"    MISSED: {sentence}", flush=True)
    if options.json:
        versions = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": _platform.processor_name(),
            "device": options.device,
            "cores": cores,
        }
        options.json.write_text(json.dumps({"rows": results, "machine": versions}, indent=1))
    if options.picture:
        picture(results, options.picture)
    print(f"{failures} missed")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
