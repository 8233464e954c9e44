"""Advice against an exhaustive grid: how much slower than the best is what it recommends?

For each task, in one run on one machine:

1. Time one run alone at every batch size of the grid.
2. Advices with different seeds, each judged on a target fixed beforehand from baseline runs.
3. Exhaustive picking: the best of the whole grid judged on 5 seeds, on independent seeds.
4. Truth of the settings named and of the best of the grid: the median time to target (updates ×
   seconds per update) on seeds that no search uses. Regret = truth / truth of the best − 1.

The grid is one of batch sizes and learning rates, and so are the advices: batches that grow are
left out.

    python benchmarks/advice.py --tasks digits --advices 10 --truth-seeds 40 --json advice.json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from batchlab.advisor.judge import Yardstick, projected, ranked, to_target
from batchlab.advisor.session import Stopwatch
from batchlab.advisor.stages import Confirmation, Curve, Machine, Projection
from batchlab.app.advise import advise
from batchlab.engine import Engine, Job, evaluation_grid
from batchlab.stats import default_target, mean_estimate, share_estimate
from batchlab.tasks import Prepared, Task, load, prepare
from batchlab.types import from_plain

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TRUTH, PICKING, TARGET, ADVICE = 1_000_000, 2_000_000, 3_000_000, 10_000
"""First seeds of each purpose; advice i uses those from 10,000·i on."""
TASKS = {
    "digits": ("digits", None),
    "mnist": ("mnist", 10_000),
    "defects": (f"{EXAMPLES / 'defects.py'}:task", None),
    "tabular": (f"{EXAMPLES / 'tabular_regression.py'}:task", None),
}
Setting = tuple[int, float]


def named(name: str, data: str | None) -> Task:
    """A task of this benchmark; MNIST is cut to its first 10,000 examples."""
    where, limit = TASKS[name]
    task = load(where, data if name == "mnist" else None)
    if limit is None:
        return task
    return replace(task, train=tuple(leaf[:limit] for leaf in task.train))


def grid_of(prepared: Prepared) -> list[Setting]:
    """Batch sizes by powers of two around the baseline, seven rates each, by factors of two."""
    baseline = prepared.baseline
    assert isinstance(baseline.batch_size, int)
    assert baseline.learning_rate is not None
    largest = prepared.examples // 4
    around = [round(baseline.batch_size * 2.0**k) for k in range(-2, 5)]
    sizes = sorted({size for size in around if 1 <= size <= largest})
    return [(size, baseline.learning_rate * 2.0**k) for size in sizes for k in range(-2, 5)]


class Bench:
    """Runs, kept by setting and seed."""

    def __init__(self, engine: Engine, stopwatch: Stopwatch) -> None:
        self.engine, self.stopwatch = engine, stopwatch
        self.prepared = engine.prepared
        self.curves: dict[tuple[Setting, int], Curve] = {}
        self.run_seconds = 0.0

    def run(self, settings: list[Setting], seeds: range) -> None:
        """Train what is missing."""
        baseline = self.prepared.baseline
        wanted = [(s, seed) for s in settings for seed in seeds if (s, seed) not in self.curves]
        configs = [
            baseline.replace(batch_size=size, learning_rate=rate, seed=seed)
            for (size, rate), seed in wanted
        ]
        assert isinstance(baseline.samples, int)
        job = Job(evaluation_grid(self.prepared.examples, baseline.samples))
        trace, _ = self.engine.train(configs, job)
        for key, run in zip(wanted, trace.runs, strict=True):
            self.curves[key] = Curve.of(run, key[0][0])

    def times(self, setting: Setting, seeds: range, target: float) -> np.ndarray:
        """Seconds to target of one setting."""
        machine = Machine(None, self.stopwatch.blocks, 1, "cpu", "", 1)
        curves = [self.curves[setting, seed] for seed in seeds]
        samples = to_target(curves, target, self.prepared.metric.maximise)
        return Yardstick(machine, None).measure("time", samples, setting[0])

    def cost(self, setting: Setting) -> float:
        """Seconds of one whole run alone."""
        assert isinstance(self.prepared.baseline.samples, int)
        return self.prepared.baseline.samples / setting[0] * self.stopwatch.rate(setting[0])


def target_of(bench: Bench, today: Setting, count: int) -> float:
    """What four in five baseline runs reach at the end."""
    seeds = range(TARGET, TARGET + count)
    bench.run([today], seeds)
    ends = np.array([np.mean(bench.curves[today, seed].metric[-3:]) for seed in seeds])
    return float(default_target(ends, bench.prepared.metric.maximise))


def truths(
    bench: Bench, settings: list[Setting], seeds: range, target: float
) -> dict[Setting, float]:
    """Median seconds to target of each setting."""
    bench.run(settings, seeds)
    return {s: float(np.median(bench.times(s, seeds, target))) for s in settings}


def picks(
    bench: Bench, grid: list[Setting], repeats: int, each: int, target: float
) -> list[Setting]:
    """What an exhaustive grid on ``each`` seeds picks, on independent seeds."""
    found = []
    for i in range(repeats):
        seeds = range(PICKING + i * each, PICKING + (i + 1) * each)
        bench.run(grid, seeds)
        found.append(
            min(grid, key=lambda s, seeds=seeds: np.median(bench.times(s, seeds, target)))
        )
    return found


def advices(
    bench: Bench, name: str, data: str | None, count: int, budget: str, target: float, where: Path
) -> list[dict]:
    """Independent advices: what each named in stages B and C, and what it spent in run-seconds."""
    rows = []
    for i in range(count):
        found = where / f"advice-{i + 1}"
        began = time.perf_counter()
        advice = advise(
            named(name, data),
            budget=budget,
            target=target,
            seed=ADVICE * (i + 1),
            out=found,
            resume=found.exists(),
            device="cpu",
            growing=False,
        )
        wall = time.perf_counter() - began
        machine = from_plain(Machine, json.loads((found / "machine.json").read_text()))
        projection = from_plain(Projection, json.loads((found / "projection.json").read_text()))
        confirmation = found / "confirmation.json"
        record = (
            from_plain(Confirmation, json.loads(confirmation.read_text()))
            if confirmation.is_file()
            else None
        )
        assert isinstance(advice.today.batch_size, int)
        today = (advice.today.batch_size, advice.today.learning_rate)
        judged = projected(
            projection,
            Yardstick(machine, None),
            objective="time",
            today=today,
            maximise=advice.metric.maximise,
        )
        best_b = ranked(judged, "time", advice.metric.maximise)[0]
        named_c = (int(record.chosen[0]), record.chosen[1]) if record else None
        kept = today if record and record.today_chosen else named_c
        curves = [*projection.curves, *projection.late] + (
            [*record.choosing, *record.today, *record.recommended, *record.batch_only]
            if record
            else []
        )
        spent = sum(
            (c.samples[-1] - c.samples[0]) / c.batch_size * bench.stopwatch.rate(c.batch_size)
            for c in curves
        )
        # The common checkpoints, and today's way to the middle from which the late part starts.
        seeds = len({c.seed for c in projection.curves})
        shared = projection.start * seeds + projection.late_start
        spent += shared / today[0] * bench.stopwatch.rate(today[0])
        rows.append(
            {
                "seed": ADVICE * (i + 1),
                "verdict": str(advice.verdict),
                "stage": advice.stage,
                "B": best_b.setting,
                "C": kept,
                "run_seconds": spent,
                "wall_seconds": wall,
                "chance": advice.comparisons[0].chance if advice.comparisons else math.nan,
                "ratio": advice.comparisons[0].difference.value
                if advice.comparisons
                else math.nan,
            }
        )
        print(f"  advice {i + 1}: {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def summary(regrets: np.ndarray) -> dict[str, object]:
    """Median, how many settings arrive at all, and the mean with its interval if all do."""
    arrived = int(np.isfinite(regrets).sum())
    return {
        "n": len(regrets),
        "arrived": arrived,
        "median": float(np.median(regrets)) if len(regrets) else None,
        "mean": mean_estimate(regrets).__dict__ if arrived == len(regrets) > 1 else None,
    }


def share(count: int, n: int) -> dict[str, object] | None:
    """A share with its interval; None where nothing was counted."""
    return share_estimate(count, n).__dict__ if n else None


def measure(name: str, options: argparse.Namespace, where: Path) -> dict:
    """All of it for one task; what ``where`` holds of it is not trained again."""
    prepared = prepare(named(name, options.data), device="cpu")
    baseline = prepared.baseline
    assert isinstance(baseline.batch_size, int)
    assert baseline.learning_rate is not None
    today, grid = (baseline.batch_size, baseline.learning_rate), grid_of(prepared)
    with Engine(prepared, where) as engine:
        stopwatch = Stopwatch(prepared, 1)
        sizes = sorted({size for size, _ in grid})
        for _ in range(5):
            stopwatch.visit(sizes)
        bench = Bench(engine, stopwatch)
        target = options.target or target_of(bench, today, options.target_runs)
        print(f"{name}: target {target:.4g}, {len(grid)} settings", file=sys.stderr, flush=True)
        asked = (options.data, options.advices, options.budget)
        found = advices(bench, name, *asked, target, where)
        chosen = [tuple(row[k]) for row in found for k in ("B", "C") if row[k] is not None]
        picked = picks(bench, grid, options.picks, options.pick_seeds, target)
        truth_seeds = range(TRUTH, TRUTH + options.truth_seeds)
        if options.all_truths:
            near = grid
        else:
            seeds = range(PICKING, PICKING + options.pick_seeds * options.picks)
            order = sorted(grid, key=lambda s: np.median(bench.times(s, seeds, target)))
            near = order[: options.near]
        truth = truths(bench, sorted({*near, *picked, *chosen, today}), truth_seeds, target)
    best = min(truth.values())
    print(f"  truth, seconds: {truth}", file=sys.stderr, flush=True)
    regrets = {
        k: np.array([truth[tuple(r[k])] / best - 1 for r in found if r[k]]) for k in ("B", "C")
    }
    grid_regret = np.array([truth[s] / best - 1 for s in picked])
    grid_cost = 5 * sum(bench.cost(s) for s in grid)
    sure = [r for r in found if r["C"] and r["chance"] >= 0.95]
    right = sum(truth[tuple(r["C"])] < truth[today] for r in sure)
    same = sum(truth[tuple(r["B"])] <= 1.1 * truth[tuple(r["C"])] for r in found if r["C"])
    return {
        "task": name,
        "target": target,
        "best": min(truth, key=lambda s: truth[s]),
        "best_seconds": best,
        "today_seconds": truth[today],
        "regret_C": summary(regrets["C"]),
        "regret_B": summary(regrets["B"]),
        "regret_grid": summary(grid_regret),
        "spent_of_grid": float(np.mean([r["run_seconds"] for r in found]) / grid_cost),
        "B_within_10_percent_of_C": share(same, sum(bool(r["C"]) for r in found)),
        "say_95_percent_and_are_right": share(right, len(sure)),
        "advices": found,
        "picked": picked,
        "pick_seeds": options.pick_seeds,
        "truth": {f"{s[0]}@{s[1]:g}": v for s, v in truth.items()},
        "truth_seeds": options.truth_seeds,
    }


def missed(found: dict) -> list[str]:
    """The aims that a task's figures do not meet, and what cannot be judged.

    The mean regret is at most a tenth, and not above that of an exhaustive grid by more than the
    interval, at a quarter of the grid's run-seconds.
    """
    regret, grid = found["regret_C"]["mean"], found["regret_grid"]["mean"]
    spent = found["spent_of_grid"]
    checks = [
        ("no mean regret: too few advices, or some never arrive", regret is None),
        ("mean regret above 10 %", regret is not None and regret["value"] > 0.1),
        ("regret above the grid's", bool(regret and grid and regret["low"] > grid["high"])),
        (f"{100 * spent:.0f} % of the grid's run-seconds", spent > 0.25),
    ]
    return [aim for aim, failed in checks if failed]


def main() -> int:
    """Print one block per task, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), help="default: all")
    parser.add_argument("--advices", type=int, default=10)
    parser.add_argument("--truth-seeds", type=int, default=40)
    parser.add_argument("--picks", type=int, default=4, help="independent exhaustive grids")
    parser.add_argument("--pick-seeds", type=int, default=5, help="seeds of each of these grids")
    parser.add_argument("--target-runs", type=int, default=20)
    parser.add_argument("--target", type=float)
    parser.add_argument(
        "--near", type=int, default=10, help="settings of the grid whose truth is measured"
    )
    parser.add_argument("--all-truths", action="store_true")
    parser.add_argument("--budget", default="150s")
    parser.add_argument("--data", help="folder with MNIST")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--out", type=Path, help="keeps what is trained, so that it can go on")
    options = parser.parse_args()
    tasks = options.tasks or [name for name in TASKS if name != "mnist" or options.data]
    if "mnist" not in tasks and not options.tasks:
        print("mnist is left out: give its folder with --data", file=sys.stderr)
    results = []
    for name in tasks:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(name, options, (options.out or Path(folder)) / name))
        shown = {k: v for k, v in results[-1].items() if k not in ("advices", "truth", "picked")}
        print(json.dumps(shown, indent=1, default=str), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1, default=str))
    aims = [f"{found['task']}: {aim}" for found in results for aim in missed(found)]
    print("missed: " + "; ".join(aims) if aims else "every aim is met")
    return int(bool(aims))


if __name__ == "__main__":
    sys.exit(main())
