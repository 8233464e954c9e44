"""`advise --tune` against random search and plain Optuna at equal spend.

For each task and repeat, on one machine, one after the other:

1. `advise --tune` with a budget: screening, search and confirmation, all overhead included. Its
   wall time is what the others may spend, on as many cores.
2. Random search of the same space: one process per core, one trial per process at a time, every
   trial a whole training, stopped at a ninth or a third of it where the target is reached.
3. Optuna's TPE (multivariate, constant liar) with its own pruner, one process per core likewise.

All begin with today's settings, train with the same seed, and read the same times: updates ×
seconds per update, timed beforehand. Processes stay alive between trials, which is kinder to 2 and
3 than a process started for each. The score is the truth of the setting that each chooses: the
median time to target on fresh seeds that no search has used. Reported is the ratio rival / tuned,
paired by repeat, with a 90 % interval.

    python benchmarks/tune.py --tasks digits --repeats 10 --budget 150s --json tune.json

A repeat takes about three times the budget and the truth of three settings: for each task about
1.5 hours with 150 s and 10 repeats on two cores, 7.5 hours for all five tasks.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import optuna
import polars as pl

from batchlab.advisor.judge import Yardstick, to_target
from batchlab.advisor.project import end_loss
from batchlab.advisor.session import Stopwatch
from batchlab.advisor.stages import (
    Choice,
    Confirmation,
    Curve,
    Machine,
    Tuning,
    choice_of,
    others_of,
    pace_of,
)
from batchlab.advisor.tuning import propose, space
from batchlab.advisor.tuning.halving import moments, rungs_of
from batchlab.advisor.tuning.search import TuningPlan
from batchlab.advisor.tuning.space import Given
from batchlab.app.advise import advise
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunState, evaluation_grid
from batchlab.progress import Quiet
from batchlab.stats import default_target, mean_estimate
from batchlab.tasks import Prepared, Task, load, prepare
from batchlab.types import Estimate, Status, from_plain, to_plain

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TRUTH, TARGET, SEARCH = 1_000_000, 3_000_000, 10_000
"""First seeds of each purpose; repeat i uses those from 10,000·(i + 1) on."""
TASKS: dict[str, tuple[str, int | None]] = {
    "digits": ("digits", None),
    "defects": (f"{EXAMPLES / 'defects.py'}:task", None),
    "mnist": ("mnist", 10_000),
    "tabular": (f"{EXAMPLES / 'tabular_regression.py'}:task", None),
    "anomaly": (f"{EXAMPLES / 'anomaly_autoencoder.py'}:task", None),
}
RIVALS = ("random", "optuna")
LEAST_RUNG = 8
"""Updates of today's batch in the first rung of the pruner, at least."""


@dataclass(frozen=True)
class Where:
    """What names a task to another process.

    Attributes:
        path: As :func:`batchlab.tasks.load` reads it.
        limit: Training examples that are used, or None for all.
        data: Folder with the data of a built-in task, or None.
    """

    path: str
    limit: int | None
    data: str | None

    def task(self) -> Task:
        """The task, its training data cut where that is asked."""
        task = load(self.path, self.data if self.path == "mnist" else None)
        if self.limit is None:
            return task
        return replace(task, train=tuple(leaf[: self.limit] for leaf in task.train))


@functools.lru_cache(maxsize=1)
def opened(where: Where) -> tuple[Prepared, Engine]:
    """A task and its engine, made once in each process."""
    prepared = prepare(where.task(), device="cpu")
    return prepared, Engine(prepared, None, workers=0, executor="loop")


def segment(where: Where, config: RunConfig, job: Job, start: bytes) -> tuple[Curve, bytes]:
    """One part of one training, alone in this process; states travel as bytes, none where the
    training begins or is over.
    """
    begin: RunState | None = pickle.loads(start) if start else None
    trace, ends = opened(where)[1].train([config], job, starts=[begin])
    assert isinstance(config.batch_size, int)
    end = b"" if ends[0] is None else pickle.dumps(ends[0])
    return Curve.of(trace.runs[0], config.batch_size), end


class Here(Executor):
    """Does what it is given at once, in this process."""

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        """The result, already there."""
        done: Future[Any] = Future()
        done.set_result(function(*given, **named))
        return done


@dataclass
class Asked:
    """A trial on its way.

    Attributes:
        number: In the order of asking.
        trial: Optuna's, or None.
        values: Name → value.
        config: The run.
        rung: The part that is trained now.
        curve: What is known of it.
    """

    number: int
    trial: Any
    values: dict[str, Any]
    config: RunConfig
    rung: int = 0
    curve: Curve | None = None


class Rival:
    """A search with one process per trial.

    Args:
        bench: The task and its times.
        axes: The space.
        sizes: Its batch sizes.
        kind: ``random`` or ``optuna``.
        seed: Of every training and of the proposals.
        workers: Processes.
    """

    def __init__(
        self,
        bench: Bench,
        axes: Sequence[space.Axis],
        sizes: tuple[int, ...],
        kind: str,
        seed: int,
        workers: int,
    ) -> None:
        self.bench, self.axes, self.kind, self.seed = bench, axes, kind, seed
        self.given, self.workers = Given(bench.prepared.baseline, sizes), workers
        self.rungs = rungs_of(bench.samples, LEAST_RUNG * self.given.size)
        self.found: list[tuple[float, Choice]] = []
        self.study = _study(kind, seed)
        self.study.enqueue_trial(
            {a.name: a.coordinate(v) for a, v in zip(axes, self._today(), strict=True)}
        )

    def _today(self) -> list[Any]:
        now = space.today(self.axes, self.given)
        return [now[axis.name] for axis in self.axes]

    def search(self, seconds: float) -> Choice:
        """The best setting found until so much time has passed; trainings that are then on their
        way are lost.
        """
        began, going = time.perf_counter(), {}
        with _pool(self.workers) as pool:
            while time.perf_counter() - began < seconds:
                while len(going) < max(1, self.workers):
                    self._go_on(pool, going, self._ask())
                left = max(0.0, seconds - (time.perf_counter() - began))
                done, _ = wait(going, timeout=left, return_when=FIRST_COMPLETED)
                for future in done:
                    self._hear(pool, going, going.pop(future), future.result())
        if not self.found:
            return (self.given.size, self.given.rate)
        return min(self.found, key=lambda pair: pair[0])[1]

    def _ask(self) -> Asked:
        trial = self.study.ask(propose.distributions(optuna, self.axes))
        values = {a.name: a.value(trial.params[a.name]) for a in self.axes}
        choice = space.choice(self.axes, values, self.given)
        return Asked(trial.number, trial, values, self.bench.config(choice, self.seed))

    def _go_on(self, pool: Any, going: dict[Any, Asked], one: Asked, start: bytes = b"") -> None:
        """Train the next part of a trial."""
        last, end = one.rung + 1 == len(self.rungs), self.rungs[one.rung]
        whole = evaluation_grid(self.bench.examples, self.bench.samples)
        grid = sorted({*whole, *moments(self.rungs)})
        job = Job(
            tuple(m for m in grid if m <= end), keep_end=not last, until=None if last else end
        )
        future = pool.submit(segment, self.bench.where, one.config, job, start)
        going[future] = one

    def _hear(
        self, pool: Any, going: dict[Any, Asked], one: Asked, got: tuple[Curve, bytes]
    ) -> None:
        """A part has ended: go on, prune, or tell."""
        curve, state = got
        choice = space.choice(self.axes, one.values, self.given)
        curve = replace(curve, others=others_of(choice))
        one.curve = curve if one.curve is None else one.curve.joined(curve)
        value, arrived = self.bench.value(one.curve)
        ended = one.rung + 1 == len(self.rungs)
        lost = one.curve.status is Status.DIVERGED
        if not ended and not lost and not arrived:
            one.trial.report(end_loss(one.curve), self.rungs[one.rung])
            if self.kind == "optuna" and one.trial.should_prune():
                self.study.tell(one.trial, state=optuna.trial.TrialState.PRUNED)
                return
            one.rung += 1
            self._go_on(pool, going, one, state)
            return
        self.study.tell(one.trial, value)
        self.found.append((value, choice))


def _study(kind: str, seed: int) -> Any:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if kind == "random":
        sampler: Any = optuna.samplers.RandomSampler(seed=seed)
    else:
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)


def _pool(workers: int) -> Any:
    """Processes; none where everything runs in this one."""
    if workers < 2:
        return Here()
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


class Bench:
    """A task, its times, and the truth of settings."""

    def __init__(self, where: Where, engine: Engine, sizes: Sequence[int], visits: int) -> None:
        self.where, self.engine, self.prepared = where, engine, engine.prepared
        stopwatch = Stopwatch(self.prepared, 1)
        for _ in range(visits):
            stopwatch.visit(sizes)
        machine = Machine(None, stopwatch.blocks, 1, "cpu", "", 1)
        self.yardstick = Yardstick(machine, None, self.prepared.baseline.reuse)
        self.target = math.nan
        self.known: dict[Choice, float] = {}

    @property
    def examples(self) -> int:
        """Training examples."""
        return self.prepared.examples

    @property
    def samples(self) -> int:
        """Length of a training."""
        assert isinstance(self.prepared.baseline.samples, int)
        return self.prepared.baseline.samples

    @property
    def today(self) -> Choice:
        """Today's settings."""
        baseline = self.prepared.baseline
        assert isinstance(baseline.batch_size, int)
        assert baseline.learning_rate is not None
        return baseline.batch_size, baseline.learning_rate

    def config(self, choice: Choice, seed: int) -> RunConfig:
        """A run of a setting."""
        return self.prepared.baseline.replace(
            batch_size=choice[0], learning_rate=choice[1], seed=seed, **dict(others_of(choice))
        )

    def runs(self, choice: Choice, seeds: range) -> list[Curve]:
        """Whole trainings of one setting."""
        configs = [self.config(choice, seed) for seed in seeds]
        trace, _ = self.engine.train(configs, Job(evaluation_grid(self.examples, self.samples)))
        size = choice[0]
        assert isinstance(size, int)
        return [Curve.of(run, size, others=others_of(choice)) for run in trace.runs]

    def aim(self, count: int) -> None:
        """Set the target: what four in five trainings of today's settings reach."""
        ends = [
            np.mean(c.metric[-3:]) for c in self.runs(self.today, range(TARGET, TARGET + count))
        ]
        self.target = float(default_target(np.array(ends), self.prepared.metric.maximise))

    def times(self, curves: Sequence[Curve]) -> np.ndarray:
        """Seconds to the target of trainings of one setting, infinite if never."""
        reached = to_target(curves, self.target, self.prepared.metric.maximise)
        return self.yardstick.measure("time", reached, curves[0].pace)

    def value(self, curve: Curve) -> tuple[float, bool]:
        """What a rival is told of a training, and whether it has reached the target: its seconds
        to the target; never below those of a whole one where it has not.
        """
        seconds = float(self.times([curve])[0])
        if math.isfinite(seconds):
            return seconds, True
        whole = self.yardstick.measure("time", np.array([float(self.samples)]), curve.pace)[0]
        loss = end_loss(curve)
        worse = min(max(loss, 0.0), 1e3) if math.isfinite(loss) else 1e3
        return float(whole) * (2 + worse), False

    def truth(self, choice: Choice, count: int) -> float:
        """Median seconds to the target on seeds that no search uses."""
        if choice not in self.known:
            curves = self.runs(choice, range(TRUTH, TRUTH + count))
            self.known[choice] = float(np.median(self.times(curves)))
        return self.known[choice]


def tuned(bench: Bench, options: argparse.Namespace, seed: int) -> tuple[Choice, dict[str, Any]]:
    """What `advise --tune` chooses, and its plan, wall time and verdict."""
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder) / "tune", time.perf_counter()
        advice = advise(
            bench.where.task(),
            tune=options.tune,
            budget=options.budget,
            target=bench.target,
            seed=seed,
            out=out,
            device="cpu",
            listener=Quiet(),
        )
        wall = time.perf_counter() - began
        plan = json.loads((out / "plan.json").read_text())["stages"].get("T")
        found = _kept(out / "tuning.json", Tuning)
        record = _kept(out / "confirmation.json", Confirmation)
    chosen = bench.today
    if record is not None:
        chosen = bench.today if record.today_chosen else record.choice
    elif found is not None and found.best:
        chosen = choice_of(found.best[0])
    told = {"verdict": str(advice.verdict), "stage": advice.stage, "plan": plan, "wall": wall}
    return chosen, told | {"tried": len(found.trials) if found else 0}


def _kept(path: Path, kind: Any) -> Any:
    return from_plain(kind, json.loads(path.read_text())) if path.is_file() else None


def repeat(bench: Bench, options: argparse.Namespace, number: int) -> dict[str, Any]:
    """One repeat: what each search chooses, and the truth of it."""
    seed = SEARCH * (number + 1)
    chosen, told = tuned(bench, options, seed)
    row: dict[str, Any] = {"seed": seed, "tune": _judged(bench, options, chosen)}
    row |= {k: told[k] for k in ("verdict", "stage", "wall", "tried")}
    if told["plan"] is None:
        raise SystemExit("the budget pays for no search: give more --budget")
    plan = from_plain(TuningPlan, told["plan"])
    for kind in RIVALS:
        rival = Rival(bench, plan.axes, plan.sizes, kind, seed, options.workers)
        choice = rival.search(told["wall"])
        row[kind] = _judged(bench, options, choice) | {"tried": len(rival.study.trials)}
    print(f"  repeat {number + 1}: {row}", file=sys.stderr, flush=True)
    return row


def _judged(bench: Bench, options: argparse.Namespace, choice: Choice) -> dict[str, Any]:
    return {"setting": str(pace_of(choice)), "rate": choice[1], "all": to_plain(choice)} | {
        "seconds": bench.truth(choice, options.truth_seeds)
    }


def ratio(rows: Sequence[dict[str, Any]], rival: str) -> dict[str, Any]:
    """The rival's time / that of the tuned setting, geometric mean over repeats with its 90 %
    interval; repeats in which a choice usually never arrives are counted, not averaged.

    Example:
        >>> rows = [{"tune": {"seconds": 1.0}, "random": {"seconds": s}} for s in (2.0, 2.0)]
        >>> ratio(rows, "random")["ratio"]["value"]
        2.0
    """
    pairs = [(row[rival]["seconds"], row["tune"]["seconds"]) for row in rows]
    wins = sum(theirs > mine for theirs, mine in pairs)
    logs = [math.log(a / b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    found: Estimate | None = mean_estimate(np.array(logs)) if logs else None
    told = None
    if found is not None:
        ends = (round(math.exp(x), 6) for x in (found.value, found.low, found.high))
        told = dict(zip(("value", "low", "high"), ends, strict=True)) | {"n": found.n}
    return {"ratio": told, "wins": wins, "repeats": len(pairs)}


def picture(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Ratio of every repeat and the mean with its interval, by task and rival."""
    dots = [
        {"task": r["task"], "rival": k, "ratio": row[k]["seconds"] / row["tune"]["seconds"]}
        for r in results
        for row in r["rows"]
        for k in RIVALS
        if math.isfinite(row[k]["seconds"]) and math.isfinite(row["tune"]["seconds"])
    ]
    means = [
        {"task": r["task"], "rival": k} | r[k]["ratio"]
        for r in results
        for k in RIVALS
        if r[k]["ratio"]
    ]
    axis = alt.Scale(type="log")
    title = "time to target, rival / tuned (above 1: tuned is faster)"
    rival = alt.Y("rival:N", title=None)
    points = alt.Chart(pl.DataFrame(dots)).mark_point(opacity=0.5)
    points = points.encode(x=alt.X("ratio:Q", scale=axis, title=title), y=rival)
    bars = alt.Chart(pl.DataFrame(means)).mark_rule(strokeWidth=3, color="#D55E00")
    bars = bars.encode(x=alt.X("low:Q", scale=axis), x2="high:Q", y=rival)
    both = points + bars
    tasks = dict.fromkeys(one["task"] for one in results)
    rows = [
        both.transform_filter(f"datum.task == '{task}'").properties(title=task, width=420)
        for task in tasks
    ]
    alt.vconcat(*rows).save(str(path))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All repeats of one task."""
    path, limit = TASKS[name]
    where = Where(path, limit, options.data)
    prepared = prepare(where.task(), device="cpu")
    largest = max(1, prepared.examples // 4)
    sizes = sorted({2**k for k in range(largest.bit_length())} | {prepared.baseline.largest_batch})
    with Engine(prepared, None, workers=options.workers if options.workers > 1 else 0) as engine:
        bench = Bench(where, engine, sizes, options.visits)
        bench.aim(options.target_runs)
        print(f"{name}: target {bench.target:.4g}", file=sys.stderr, flush=True)
        rows = [repeat(bench, options, number) for number in range(options.repeats)]
        today = bench.truth(bench.today, options.truth_seeds)
    found = {"task": name, "target": bench.target, "today_seconds": today, "rows": rows}
    return found | {kind: ratio(rows, kind) for kind in RIVALS}


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--budget", default="150s")
    parser.add_argument("--tune", default="all")
    parser.add_argument("--truth-seeds", type=int, default=40)
    parser.add_argument("--target-runs", type=int, default=20)
    parser.add_argument("--visits", type=int, default=5, help="timed blocks of each batch size")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--data", help="folder with MNIST")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help=".svg or .png")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Print one block per task; write JSON and picture."""
    options, results = parsed(words), []
    for name in options.tasks:
        results.append(measure(name, options))
        shown = {k: v for k, v in results[-1].items() if k != "rows"}
        print(json.dumps(shown, indent=1, default=str), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1, default=str))
        if options.picture:
            picture(results, options.picture)
    return results


if __name__ == "__main__":
    main()
