"""The engine against plain PyTorch: the same sweep by three ways, in one run.

(a) A plain eager loop, ``nn.Module`` and ``torch.optim.SGD``, as many threads as torch takes.
(b) The strongest plain alternative: the same loop in one single-thread process per core,
    channels_last where the model convolves.
(c) batchlab: one single-thread worker per core, each by the way that planning would choose. Every
    way is timed, so that the table shows how far the choice is from the best.

Ways take turns; a figure is the median over the turns of wall seconds per update of one run, all
processes working at once. GEMM peak: the best of square float32 products, one process per core.

    python benchmarks/engine.py --json engine.json --picture engine.svg
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from batchlab import _platform
from batchlab.config import RunConfig
from batchlab.engine import Engine
from batchlab.engine.capability import Capability, probe_capability
from batchlab.engine.choice import Effort, slots_of, unit_of
from batchlab.engine.job import Job
from batchlab.engine.loop import Alone
from batchlab.engine.stacked import Stack
from batchlab.samplers import Stream
from batchlab.tasks import Prepared, Task, prepare
from batchlab.tasks.source import Stacked

CHECKED_UPDATES, TOLERANCE = 20, 1e-4
MOMENTUM, RATE = 0.9, 0.01


@dataclass(frozen=True)
class Row:
    """One sweep of the table."""

    name: str
    model: str
    batch_size: int
    runs: int
    rule: str = "shb"


ROWS = (
    Row("one neuron, d=100, B=4, R=256", "neuron", 4, 256, "sgd"),
    Row("MLP 784-128-10, B=64, R=16", "mlp", 64, 16),
    Row("MLP 784-128-10, B=64, R=256", "mlp", 64, 256),
    Row("CNN 8×8, B=8, R=32", "cnn8", 8, 32),
    Row("CNN 8×8, B=32, R=32", "cnn8", 32, 32),
    Row("CNN 8×8, B=128, R=32", "cnn8", 128, 32),
    Row("3-conv CNN 28×28, B=32, R=8", "cnn28", 32, 8),
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


def prepared_of(row: Row) -> Prepared:
    """The task of a row: made-up data in the real shapes."""
    make, shape = MODELS[row.model]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4096, *shape, generator=draw)
    if row.model == "neuron":
        target, loss = x[:, :1] + 0.1 * torch.randn(4096, 1, generator=draw), square
    else:
        target, loss = (x.flatten(1)[:, :10]).argmax(1), cross
    task = Task(make, (x, target), validation=(x[:64], target[:64]), loss=loss, name=row.model)
    return prepare(task, device="cpu")


def configs_of(row: Row, prepared: Prepared, count: int) -> list[RunConfig]:
    """Runs that differ in seed and rate."""
    return [
        RunConfig(
            rule=row.rule,
            batch_size=row.batch_size,
            learning_rate=RATE * (1 + i % 4),
            momentum=MOMENTUM if row.rule == "shb" else 0.0,
            samples=row.batch_size * 10_000,
            seed=i,
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
        self.x, self.y = prepared.train.tree
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


def way_of(
    name: str, row: Row, prepared: Prepared, capability: Capability, runs: int
) -> Callable[[], int]:
    """A function that trains a little and says how many updates of single runs that were."""
    kind, _, many = name.partition(" ")
    configs = configs_of(row, prepared, max(runs, int(many) if many.isdigit() else 1))
    if kind == "plain":
        plain = Plain(row, prepared, configs[0], last=many == "last")

        def go() -> int:
            for _ in range(20):
                plain.update()
            return 20

        return go
    if kind == "loop":
        alone = Alone(prepared, configs[0], Job(()), capability, None)

        def go() -> int:
            for _ in range(20):
                if alone.done == len(alone.plan):
                    alone.done = 0
                alone.update(*alone.plan[alone.done])
            return 20

        return go
    slots = int(many)
    unit = unit_of(capability, row.batch_size) if kind == "compiled" else 0
    stack = Stack(prepared, configs[:slots], Job(()), capability, [None] * slots, slots, unit)
    stack.fill()
    batches = 32 * unit if unit > 1 else 4
    return lambda: slots * stack.some(batches)


def worker(row: Row, threads: int, pipe: Any) -> None:
    """Serve ``(way, seconds)`` → (updates, seconds) until None comes."""
    torch.set_num_threads(threads)
    prepared = prepared_of(row)
    config = configs_of(row, prepared, 1)[0]
    capability = probe_capability(prepared, config)
    ways: dict[str, Callable[[], int]] = {}
    pipe.send("ready")
    while (asked := pipe.recv()) is not None:
        name, seconds = asked
        if name == "gemm":
            pipe.send(gemm(seconds))
            continue
        if name not in ways:
            plain = name.startswith("plain")
            ways[name] = way_of(name.removeprefix("all "), row, prepared, capability, row.runs)
            ways[name]()  # warms up, and compiles
            if not plain:
                ways[name]()
            pipe.send(None)
            continue
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            done += ways[name]()
        pipe.send((done, time.perf_counter() - began))


def gemm(seconds: float) -> tuple[float, float]:
    """(floating-point operations, seconds) of square products."""
    a, b = torch.randn(2, 1024, 1024)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        a @ b
        done += 1
    return done * 2 * 1024.0**3, time.perf_counter() - began


class Team:
    """Processes that work at the same time."""

    def __init__(self, row: Row, count: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for _ in range(count):
            here, there = context.Pipe()
            process = context.Process(target=worker, args=(row, threads, there), daemon=True)
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


def same_losses(row: Row, slots: int, unit: int) -> float:
    """Largest relative difference of the losses of one run by the plain loop and by the stack."""
    prepared = prepared_of(row)
    configs = configs_of(row, prepared, 2)
    capability = probe_capability(prepared, configs[0])
    stack = Stack(prepared, configs, Job(()), capability, [None] * 2, max(2, slots), unit)
    stack.fill()
    losses, _ = stack._train(stack._orders(CHECKED_UPDATES))
    worst = 0.0
    for r, config in enumerate(configs):
        plain = Plain(row, prepared, config, last=False)
        alone = Alone(prepared, config, Job(()), capability, None)
        for t in range(CHECKED_UPDATES):
            expected = float(plain.update())
            alone.update(*alone.plan[t])
            for found in (float(losses[t, r]), alone.losses[-1]):
                worst = max(worst, abs(found - expected) / max(abs(expected), 1e-3))
    return worst


def flop_of(row: Row) -> float:
    """Operations of the forward and backward pass of one update of one run."""
    prepared = prepared_of(row)
    objective, index = prepared.objective(0), torch.arange(row.batch_size)
    counter = FlopCounterMode(display=False)
    with counter:
        objective(prepared.train.batch(index))[0].mean().backward()
    return float(counter.get_total_flops())


def measure(row: Row, cores: int, turns: int, seconds: float) -> dict[str, Any]:
    """All ways of one row, in turns."""
    prepared = prepared_of(row)
    configs = configs_of(row, prepared, row.runs)
    capability = probe_capability(prepared, configs[0])
    slots = slots_of(prepared, max(1, row.runs // cores))
    with Engine(prepared) as engine:
        began = time.perf_counter()
        choice = engine._timed(configs, capability, slots, Effort.COMPILED)
        planning = time.perf_counter() - began
    chosen = "loop"
    if choice.executor == "stacked":
        chosen = f"{'compiled' if choice.unit else 'stacked'} {choice.slots}"
    ours = ["loop"]
    if capability.stackable:
        ours += [f"stacked {s}" for s in slots] + [f"compiled {s}" for s in sorted({1, slots[-1]})]
    one, many = Team(row, 1, cores), Team(row, cores, 1)
    found: dict[str, list[float]] = {"a": [], "b": [], "gemm": [], **{w: [] for w in ours}}
    try:
        one.ask("plain", 0)
        many.ask("plain last", 0)
        for way in ours:
            many.ask(way, 0)
        for _ in range(turns):
            found["a"].append(1 / one.rate("plain", seconds))
            found["b"].append(1 / many.rate("plain last", seconds))
            for way in ours:
                found[way].append(1 / many.rate(way, seconds))
            found["gemm"].append(many.rate("gemm", seconds))
    finally:
        one.close()
        many.close()
    return summary(row, found, ours, chosen, choice, planning)


def summary(
    row: Row,
    found: dict[str, list[float]],
    ours: list[str],
    chosen: str,
    choice: Any,
    planning: float,
) -> dict[str, Any]:
    """Medians, and ratios of each turn."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    best = min(ours, key=lambda way: middle[way])
    unit = choice.unit if choice.executor == "stacked" else 0
    apart = same_losses(row, choice.slots, unit)
    flop = flop_of(row)

    def ratio(other: str) -> dict[str, float]:
        each = sorted(b / c for b, c in zip(found[other], found[chosen], strict=True))
        return {"median": statistics.median(each), "low": each[0], "high": each[-1]}

    return {
        "sweep": row.name,
        "chosen": chosen,
        "best": best,
        "slower_than_best": middle[chosen] / middle[best] - 1,
        "microseconds": {name: 1e6 * v for name, v in middle.items() if name != "gemm"},
        "against_a": ratio("a"),
        "against_b": ratio("b"),
        "gemm_gflops": middle["gemm"] / 1e9,
        "of_gemm_peak": flop / middle[chosen] / middle["gemm"],
        "largest_difference_of_losses": apart,
        "planning_seconds": planning,
        "reason": choice.reason,
        "turns": len(found["a"]),
    }


def picture(results: list[dict[str, Any]], path: Path) -> None:
    """Seconds per update of one run by each way, on a logarithmic axis."""
    import altair as alt

    rows = [
        {"sweep": r["sweep"], "way": way, "µs": r["microseconds"][name]}
        for r in results
        for way, name in (
            ("(a) plain loop", "a"),
            ("(b) a process per core", "b"),
            ("(c) batchlab", r["chosen"]),
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


def main() -> int:
    """Print the table; 1 if losses differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", nargs="+", type=int, default=list(range(len(ROWS))))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way in each turn")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    cores, results = _platform.available_cores(), []
    for i in options.rows:
        results.append(measure(ROWS[i], cores, options.turns, options.seconds))
        r = results[-1]
        a, b = r["against_a"], r["against_b"]
        print(
            f"{r['sweep']}: {r['chosen']} ({r['microseconds'][r['chosen']]:.3g} µs), "
            f"{a['median']:.3g}× (a) [{a['low']:.3g}–{a['high']:.3g}], "
            f"{b['median']:.3g}× (b) [{b['low']:.3g}–{b['high']:.3g}], "
            f"{100 * r['of_gemm_peak']:.0f} % of GEMM peak ({r['gemm_gflops']:.0f} GF/s), "
            f"{100 * r['slower_than_best']:.0f} % slower than the best way ({r['best']}), "
            f"losses within {r['largest_difference_of_losses']:.1e}; "
            f"planned in {r['planning_seconds']:.0f} s",
            flush=True,
        )
        print(f"    {r['microseconds']}", flush=True)
    if options.json:
        versions = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": _platform.processor_name(),
            "cores": cores,
        }
        options.json.write_text(json.dumps({"rows": results, "machine": versions}, indent=1))
    if options.picture:
        picture(results, options.picture)
    return int(any(r["largest_difference_of_losses"] > TOLERANCE for r in results))


if __name__ == "__main__":
    sys.exit(main())
