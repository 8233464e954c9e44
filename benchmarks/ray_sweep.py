"""Sweeps on Ray: nodes killed at random change nothing; how busy many slots are kept; and what
sending a cell costs.

``killed``: a cluster of several nodes on this machine trains a sweep; when a share of it drawn at
random is done, one or two nodes drawn at random are killed; others join for the next. The result
must be that of the undisturbed sweep on this machine, bit for bit. ``slots``: cells that only
wait, of known length, on logical slots of one machine. Efficiency = cells · length / (slots ·
time). Whole rounds are the ideal that can be reached: ⌈cells/slots⌉ · length; overhead per cell =
(time − that) · slots/cells. ``overhead``: cells of no length, as many slots as cores: what one
process sends and reads in a second.

What limits 10,000 slots, on paper: cells of length t ask one process to send, and to read as many
results, 10,000/t times a second. With r of them a second, as ``overhead`` measures it, t must be
10,000/r or more. Every report of a cell is a message to one actor, for which reason reports become
rarer as slots become more (at most 4,000 a second).

    python benchmarks/ray_sweep.py --json ray.json       # all of it; again: what is missing
    python benchmarks/ray_sweep.py killed --sweeps 20
    python benchmarks/ray_sweep.py slots --cells 1000 --slots 64 --seconds 5 --repeats 3
    python benchmarks/ray_sweep.py overhead --cells 1000 --repeats 3
"""

import argparse
import json
import math
import platform
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster as Machines
from torch import nn
from torch.nn.functional import mse_loss

from batchlab import Task, _platform, stats
from batchlab.cluster.dispatch import Call
from batchlab.cluster.fleet import Fleet
from batchlab.cluster.place import Cluster
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.tasks import Prepared, load, prepare

NODES, RUNS, UPDATES = 3, 6, 400
EARLIEST, LATEST = 0.02, 0.9
"""Nodes are killed when a share of the sweep between these two is done."""
BETWEEN_SECONDS = 2.0
"""Most between two nodes that are killed in one sweep."""
PARTS = ("killed", "slots", "overhead")


def main() -> int:
    """Read the arguments, measure what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all")
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a cell that waits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="keeps each measurement; the next start goes on")
    given = parser.parse_args()
    parts = given.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
    kept = Kept(given.json)
    right = True
    if "killed" in parts:
        found = killed(kept, given.sweeps, given.seed)
        right = all(one["equal"] for one in found)
        print(killed_in_words(found))
    if "slots" in parts:
        print(slots_in_words(slots(kept, given.cells, given.slots, given.seconds, given.repeats)))
    if "overhead" in parts:
        print(overhead_in_words(overhead(kept, given.cells, given.repeats)))
    return int(not right)


class Kept:
    """What was measured, by what it was measured of; in a file as well, where one is given.

    Args:
        path: The file, or None.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        found = path is not None and path.is_file()
        self._known: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if found else []

    def has(self, key: dict[str, Any]) -> bool:
        """Whether this was measured, on this machine with these versions."""
        return self._place(key) is not None

    def once(self, key: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What was measured before, or now.

        Args:
            key: What it is measured of.
            work: Measures it.
        """
        if (place := self._place(key)) is not None:
            return self._known[place]["found"]
        found = work()
        print(json.dumps(key | found), file=sys.stderr, flush=True)
        self._known.append({"of": key, "found": found, "provenance": provenance()})
        if self._path is not None:
            _platform.write_whole(self._path, json.dumps(self._known, indent=1))
        return found

    def _place(self, key: dict[str, Any]) -> int | None:
        here = provenance()
        same = (
            i
            for i, one in enumerate(self._known)
            if one["of"] == key and one["provenance"] == here
        )
        return next(same, None)


# Nodes killed at random


def losses(outputs, batch):
    """Squared errors that take their time, so that a node can be lost in the middle."""
    time.sleep(0.005)
    return mse_loss(outputs, batch[1], reduction="none").mean(1)


def task() -> Prepared:
    """A few points and a small network."""
    teacher = load("digits")
    inputs = teacher.train[0][:256].flatten(1)
    return prepare(
        Task(
            lambda: nn.Sequential(nn.Linear(inputs.shape[1], 8), nn.Tanh(), nn.Linear(8, 2)),
            train=(inputs, inputs[:, 20:22]),
            validation=(inputs[:64], inputs[:64, 20:22]),
            loss=losses,
        ),
        device="cpu",
    )


def killed(kept: Kept, sweeps: int, seed: int) -> list[dict[str, Any]]:
    """Compare disturbed sweeps with the undisturbed one."""
    keys = [{"part": "killed", "sweep": i, "seed": seed} for i in range(sweeps)]
    if all(map(kept.has, keys)):
        return [kept.once(key, dict) for key in keys]
    prepared = task()
    config = RunConfig(rule="shb", batch_size=8, learning_rate=0.01, samples=8 * UPDATES)
    runs = [config.replace(seed=i).resolved(prepared.examples) for i in range(RUNS)]
    job = Job((0, 4 * UPDATES, 8 * UPDATES))
    with Engine(prepared, None, 0, "loop") as engine:
        expected = facts(engine.train(runs, job)[0])
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 0})

    def sweep(number: int) -> dict[str, Any]:
        while len(machines.worker_nodes) < NODES:  # Ray starts nodes in the main thread only
            machines.add_node(num_cpus=1)
        if not ray.is_initialized():
            ray.init(machines.address, log_to_driver=False, logging_level="ERROR")
        draw = random.Random(f"{seed} {number}")
        found = disturbed(machines, prepared, runs, job, draw, keeps=number % 2 == 0)
        return found | {"equal": found.pop("facts") == expected}

    try:
        return [kept.once(key, lambda i=i: sweep(i)) for i, key in enumerate(keys)]
    finally:
        ray.shutdown()
        machines.shutdown()


def disturbed(machines, prepared, runs, job, draw, keeps: bool) -> dict[str, Any]:
    """One sweep, during which nodes are lost."""
    reached = threading.Event()
    share, count = draw.uniform(EARLIEST, LATEST), draw.choice((1, 1, 2))
    nodes = draw.sample(sorted(machines.worker_nodes, key=lambda one: one.node_id), count)
    pauses = [draw.uniform(0.0, BETWEEN_SECONDS) for _ in nodes]

    def kill() -> None:
        reached.wait()
        for node, pause in zip(nodes, pauses, strict=True):
            machines.remove_node(node, allow_graceful=False)
            time.sleep(pause)

    def hear(done: float) -> None:
        if done >= share:
            reached.set()

    killer = threading.Thread(target=kill)
    began = time.monotonic()
    killer.start()
    try:
        with tempfile.TemporaryDirectory() as folder, Cluster(Fleet("ray")) as cluster:
            out = Path(folder) if keeps else None
            with Engine(prepared, out, 0, "loop", checkpoint_seconds=0.2, on=cluster) as engine:
                trace, _ = engine.train(runs, job, progress=hear)
                said = engine.hear()
    finally:
        reached.set()
        killer.join()
    return {
        "facts": facts(trace),
        "nodes": count,
        "killed_at": round(share, 3),
        "seconds": round(time.monotonic() - began, 1),
        "retried": len(said),
        "said": said,
        "folder": keeps,
    }


def killed_in_words(found: list[dict[str, Any]]) -> str:
    """How many were equal, and how many were hurt."""
    equal, hurt = (sum(bool(one[k]) for one in found) for k in ("equal", "retried"))
    cells = sum(one["retried"] for one in found)
    nodes = sum(one["nodes"] for one in found)
    return (
        f"{equal} of {len(found)} sweeps equal; {nodes} nodes were killed; in {hurt} sweeps "
        f"{cells} cells went on elsewhere."
    )


def facts(trace) -> list[Any]:
    """All numbers of a trace, bit for bit."""
    return [
        (name, series.values.tobytes())
        for run in trace.runs
        for name, series in sorted(run.series.items())
    ]


# Slots


def wait(shared, given, state, post) -> float:
    """A cell that takes a known time and no processor."""
    time.sleep(given)
    return given


def slots(
    kept: Kept, cells: int, count: int, seconds: float, repeats: int
) -> list[dict[str, Any]]:
    """Time many cells of known length on logical slots."""
    of = {"part": "slots", "cells": cells, "slots": count, "cell_seconds": seconds}
    found = timings(kept, of, count, cells, seconds, repeats)
    return [one | shares(cells, count, seconds, one["seconds"]) for one in found]


def shares(cells: int, count: int, seconds: float, took: float) -> dict[str, float]:
    """What a timing says of how busy slots were.

    Args:
        cells: How many.
        count: Slots.
        seconds: Of a cell.
        took: Seconds for all of them.
    """
    rounds = math.ceil(cells / count) * seconds
    return {
        "efficiency": cells * seconds / (count * took),
        "efficiency_of_whole_rounds": rounds / took,
        "overhead_per_cell_seconds": (took - rounds) * count / cells,
    }


def overhead(kept: Kept, cells: int, repeats: int) -> list[dict[str, Any]]:
    """Time cells of no length, on as many slots as cores."""
    cores = _platform.available_cores()
    found = timings(kept, {"part": "overhead", "cells": cells}, cores, cells, 0.0, repeats)
    return [one | {"cells_a_second": cells / one["seconds"]} for one in found]


def timings(
    kept: Kept, of: dict[str, Any], count: int, cells: int, seconds: float, repeats: int
) -> list[dict[str, Any]]:
    """Seconds that so many cells take, some times."""
    keys = [of | {"repeat": i} for i in range(repeats)]
    if all(map(kept.has, keys)):
        return [kept.once(key, dict) for key in keys]
    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with Cluster(Fleet("ray")) as cluster:
            # Two rounds start the processes, once in the life of a cluster.
            first = timed(cluster, 2 * count, seconds)

            def again() -> dict[str, Any]:
                return {"seconds": timed(cluster, cells, seconds), "first_rounds": first}

            return [kept.once(key, again) for key in keys]
    finally:
        ray.shutdown()


def timed(cluster: Cluster, cells: int, seconds: float) -> float:
    """Seconds that so many cells take."""
    began = time.monotonic()
    calls = {str(i): Call(wait, seconds) for i in range(cells)}
    assert sum(1 for _ in cluster.run(b"nothing", calls, lambda name, share: None)) == cells
    return time.monotonic() - began


def slots_in_words(found: list[dict[str, Any]]) -> str:
    """Means with their ranges."""
    return (
        f"Efficiency {mean(found, 'efficiency')}, of whole rounds "
        f"{mean(found, 'efficiency_of_whole_rounds')}; overhead per cell "
        f"{mean(found, 'overhead_per_cell_seconds')} s."
    )


def overhead_in_words(found: list[dict[str, Any]]) -> str:
    """Cells a second, and what that means for many slots."""
    most = 10_000 / float(np.mean([one["cells_a_second"] for one in found]))
    return (
        f"One process sends and reads {mean(found, 'cells_a_second')} cells a second: 10,000 "
        f"slots are kept busy by cells of {most:.3g} s or longer."
    )


def mean(found: list[dict[str, Any]], name: str) -> str:
    """A mean with its 90 % range."""
    one = stats.mean_estimate(np.array([each[name] for each in found]))
    return f"{one.value:.4g} ({one.low:.4g} to {one.high:.4g}, 90 %, n = {len(found)})"


def provenance() -> dict[str, Any]:
    """Machine and versions."""
    return {
        "processor": _platform.processor_name(),
        "cores": _platform.available_cores(),
        "ray": ray.__version__,
        "python": platform.python_version(),
        "batchlab": _platform.version(),
    }


if __name__ == "__main__":
    sys.exit(main())
