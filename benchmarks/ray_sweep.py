"""Sweeps on Ray: nodes killed at random change nothing; and how busy many slots are kept.

``killed``: a cluster of several nodes on this machine trains a sweep; while it does, a node chosen
at random is killed at a random time; another one joins for the next. The result must be that of
the undisturbed sweep on this machine, bit for bit. ``slots``: cells that only wait, of known
length, on logical slots of one machine. Efficiency = cells · length / (slots · time). Whole
rounds are the ideal that can be reached: ⌈cells/slots⌉ · length;
overhead per cell = (time − that) · slots/cells.

What limits 10,000 slots, on paper: with cells of five seconds one process would have to send 2,000
cells a second and to read as many results, which is about what Ray takes from one driver; and
every report of a cell is a message to one actor, for which reason reports become rarer as slots
become more (at most 4,000 a second). Cells of a minute need 170 cells a second.

    python benchmarks/ray_sweep.py killed --sweeps 20
    python benchmarks/ray_sweep.py slots --cells 1000 --slots 64 --seconds 5

Prints a line of JSON.
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
from pathlib import Path

import ray
from ray.cluster_utils import Cluster as Machines
from torch import nn
from torch.nn.functional import mse_loss

from batchlab import Task, _platform
from batchlab.cluster.dispatch import Call
from batchlab.cluster.fleet import Fleet
from batchlab.cluster.place import Cluster
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.tasks import Prepared, load, prepare

NODES, RUNS, UPDATES = 3, 6, 400
LATEST_SECONDS = 20.0
"""A node is killed between the start of a sweep and so much later."""


def main() -> int:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=("killed", "slots"), default="killed")
    parser.add_argument("--sweeps", type=int, default=20)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what == "killed":
        return killed(given.sweeps, given.seed)
    return slots(given.cells, given.slots, given.seconds)


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


def killed(sweeps: int, seed: int) -> int:
    """Compare disturbed sweeps with the undisturbed one."""
    prepared, draw = task(), random.Random(seed)
    config = RunConfig(rule="shb", batch_size=8, learning_rate=0.01, samples=8 * UPDATES)
    runs = [config.replace(seed=i).resolved(prepared.examples) for i in range(RUNS)]
    job = Job((0, 4 * UPDATES, 8 * UPDATES))
    with Engine(prepared, None, 0, "loop") as engine:
        expected = facts(engine.train(runs, job)[0])
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 0})
    found = []
    try:
        for _ in range(NODES):
            machines.add_node(num_cpus=1)
        ray.init(machines.address, log_to_driver=False, logging_level="ERROR")
        for sweep in range(sweeps):
            found.append(disturbed(machines, prepared, runs, job, draw, sweep % 2 == 0))
            same = found[-1].pop("facts") == expected
            found[-1]["equal"] = same
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    finally:
        ray.shutdown()
        machines.shutdown()
    equal, retried = (sum(one[k] for one in found) for k in ("equal", "retried"))
    print(json.dumps({"what": "killed", "sweeps": found, "provenance": provenance()}))
    print(f"{equal} of {sweeps} sweeps equal; {retried} cells went on elsewhere.")
    return int(equal != sweeps)


def disturbed(machines, prepared, runs, job, draw, keeps: bool) -> dict:
    """One sweep, during which a node is lost."""
    lost = threading.Event()

    def kill(node, after: float) -> None:
        lost.wait(after)
        machines.remove_node(node, allow_graceful=False)

    node = draw.choice(sorted(machines.worker_nodes, key=lambda one: one.node_id))
    after = draw.uniform(0.5, LATEST_SECONDS)
    killer = threading.Thread(target=kill, args=(node, after))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Cluster(Fleet("ray")) as cluster:
        out = Path(folder) if keeps else None
        killer.start()
        with Engine(prepared, out, 0, "loop", checkpoint_seconds=0.2, on=cluster) as engine:
            trace, _ = engine.train(runs, job)
            said = engine.hear()
        seconds = time.monotonic() - began
        killer.join()
    machines.add_node(num_cpus=1)  # Ray starts nodes in the main thread only
    return {
        "facts": facts(trace),
        "killed_after": round(after, 2),
        "seconds": round(seconds, 1),
        "retried": len(said),
        "said": said,
        "folder": keeps,
    }


def facts(trace) -> list:
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


def slots(cells: int, count: int, seconds: float) -> int:
    """Time many cells of known length on logical slots."""
    ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with Cluster(Fleet("ray")) as cluster:
            # The first round starts the processes, once in the life of a cluster.
            first = timed(cluster, count, seconds)
            took = timed(cluster, cells, seconds)
    finally:
        ray.shutdown()
    rounds = math.ceil(cells / count)
    ideal = cells * seconds / count
    told = {
        "what": "slots",
        "cells": cells,
        "slots": count,
        "cell_seconds": seconds,
        "first_round_seconds": round(first, 2),
        "seconds": round(took, 2),
        "efficiency": round(ideal / took, 4),
        "efficiency_of_whole_rounds": round(rounds * seconds / took, 4),
        "overhead_per_cell_seconds": round((took - rounds * seconds) * count / cells, 4),
        "provenance": provenance(),
    }
    print(json.dumps(told))
    return 0


def timed(cluster: Cluster, cells: int, seconds: float) -> float:
    """Seconds that so many cells take."""
    began = time.monotonic()
    calls = {str(i): Call(wait, seconds) for i in range(cells)}
    assert sum(1 for _ in cluster.run(b"nothing", calls, lambda name, share: None)) == cells
    return time.monotonic() - began


def provenance() -> dict:
    """Machine and versions."""
    return {
        "processor": _platform.processor_name(),
        "cores": _platform.available_cores(),
        "ray": ray.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
