"""``compare --gammas``: what the feature-learning strength γ changes, at equal samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from batchlab import _platform
from batchlab.advisor import strength
from batchlab.advisor.decision import choose_accuracy
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.record import MetricInfo
from batchlab.advisor.session import Listener, Stopwatch, machine_of, one_batch_size
from batchlab.advisor.stages import Machine
from batchlab.advisor.surveyed import centre
from batchlab.app.advise import _refuse_torchrun, default_out, found
from batchlab.app.measure import length, origin, write
from batchlab.app.reuse import CHOOSING, FRESH, arrivals, final
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, RunState, evaluation_grid
from batchlab.engine.loop import loaded
from batchlab.engine.step import DTYPES
from batchlab.engine.store import collect
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.measure.alignment import distance
from batchlab.measure.insight import curvature_of
from batchlab.measure.sparsity import weights_share
from batchlab.models.feature_strength import bare, checked_gamma, rate_factor
from batchlab.progress import listening
from batchlab.report import measured
from batchlab.report.findings import setting_of
from batchlab.report.strength import Point, StrengthReport, StrengthRow
from batchlab.stats import (
    default_target,
    grid_log_var,
    mean_estimate,
    median_estimate,
    paired_difference,
    paired_log_ratio,
)
from batchlab.tasks import Objective, Prepared, Task, prepare
from batchlab.tasks.subset import subset_of
from batchlab.types import Estimate

RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Learning rates that are tried first, times the law's."""
WIDER, STEP = 3, 2.0
"""So often a rate beyond the smallest or the largest is tried where that was the best."""
BLOCKS, BLOCK_SECONDS = 5, 0.1
ONE_SIZE = "compare --gammas times one batch size."

Strength = float | None
"""γ, or None for the model as it is."""


def compare_gammas(
    task: Task | str,
    *,
    gammas: Sequence[float],
    depth: int | None = None,
    seeds: int = 5,
    samples: int | str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    subset: str | float | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> StrengthReport:
    """Find out what the feature-learning strength γ changes: F = (f_θ − f_θ₀)/γ in place of f.

    Every γ and the model as it is train with a learning rate of their own: the best, on seeds of
    their own, of some around today's and, for γ, around what the law makes of the best one of the
    model as it is: times ¼ to 4, and on beyond where an end was the best. The law is η·γ² up to
    γ = 1 and η·γ^(2/L) above; η·γ and η·γ^(1/L) for rules whose steps do not grow with the
    gradient, such as Adam. Judged on fresh seeds, at equal samples, by metric, samples and time to
    today's metric, sharpness and sparsity of the weights and how far they moved; the ranges of
    differences and speeds hold together, for all γ, with 90 %.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        gammas: γ to try, above 0.
        depth: L of the law; counted from the model if left out.
        seeds: Fresh repeats, at least 3.
        samples: Length of a training, such as ``"10ep"``; the recipe's if left out.
        out: Result directory; by default ``batchlab-results/gammas-<task>``.
        seed: Names every random draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: Folder with the data of a built-in task.
        subset: Part of the training data, such as ``"10%"``; all of it if left out.
        resume: Go on with an unfinished directory; what has been trained is not trained again.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table; ``gammas.json``, ``gammas.html``, ``runs.parquet`` and
        ``metrics.parquet`` are written.

    Raises:
        UserError: With one sentence about what is wrong.

    Source:
        atanasov2025.
    """
    _refuse_torchrun()
    began = time.perf_counter()
    loaded_, _ = found(task, data)
    prepared = subset_of(prepare(loaded_, device=device), subset, seed)
    asked = _asked(prepared, gammas, depth, seeds, seed, samples)
    folder = Path(out) if out is not None else default_out("gammas", loaded_)
    with listening(listener) as hears, _platform.DirectoryLock(folder):
        journal = Journal(folder, asked.identity(), resume, hears.say)
        journal.plan("gammas", {"strengths": asked.strengths, "rates": RATES})
        with Engine(prepared, folder) as engine:
            trained = _trained(asked, engine, hears)
            for sentence in engine.hear():
                hears.say(sentence)
        report = _report(asked, trained, _timed(asked, journal, hears), hears)
        spent = time.perf_counter() - began
        report = replace(report, origin=origin(prepared, "compare", folder, spent, seed))
        write(folder / "gammas.json", report)
        _platform.write_whole(folder / "gammas.html", measured.strength_page(report))
        collect(folder)
        journal.finish()
    return report


class Key(NamedTuple):
    """A setting: γ, or None for the model as it is, and a learning rate."""

    gamma: Strength
    rate: float


Runs = dict[Key, tuple[RunResult, ...]]
"""Setting → one run a seed."""


@dataclass(frozen=True)
class Asked:
    """What is compared.

    Attributes:
        prepared: The task.
        baseline: Today's recipe.
        gammas: γ, ascending.
        depth: L.
        seeds: Fresh repeats.
        seed: The first.
    """

    prepared: Prepared
    baseline: RunConfig
    gammas: tuple[float, ...]
    depth: int
    seeds: int
    seed: int

    @property
    def strengths(self) -> tuple[Strength, ...]:
        """The model as it is, then every γ."""
        return (None, *self.gammas)

    @property
    def samples(self) -> int:
        """Of a training."""
        assert isinstance(self.baseline.samples, int)
        return self.baseline.samples

    @property
    def size(self) -> int:
        """Today's batch size."""
        assert isinstance(self.baseline.batch_size, int)
        return self.baseline.batch_size

    @property
    def grid(self) -> tuple[int, ...]:
        """Samples at which runs are evaluated."""
        return evaluation_grid(self.prepared.examples, self.samples)

    @property
    def choosing(self) -> tuple[int, ...]:
        """Seeds that choose."""
        return tuple(self.seed + CHOOSING + i for i in range(max(2, (self.seeds + 1) // 2)))

    @property
    def fresh(self) -> tuple[int, ...]:
        """Seeds that judge."""
        return tuple(self.seed + FRESH + i for i in range(self.seeds))

    def law(self, gamma: Strength, rate: float) -> float:
        """What follows from the rate of the model as it is: η·γ² or η·γ^(2/L)."""
        return rate * strength.factor(gamma, self.depth, self.baseline.rule or "")

    def config(self, key: Key, seed: int) -> RunConfig:
        """One run."""
        return self.baseline.replace(gamma=key.gamma, learning_rate=key.rate, seed=seed)

    def identity(self) -> dict[str, object]:
        """What must be the same for a result to be continued."""
        task = self.prepared.task
        return {
            "command": "compare --gammas",
            "task": task.origin or task.name,
            "examples": self.prepared.examples,
            "validation": self.prepared.validation.examples,
            "metric": self.prepared.metric.name,
            "device": self.prepared.device,
            "baseline": asdict(self.baseline),
            "gammas": self.gammas,
            "depth": self.depth,
            "seeds": self.seeds,
            "seed": self.seed,
        }


def _asked(
    prepared: Prepared,
    gammas: Sequence[float],
    depth: int | None,
    seeds: int,
    seed: int,
    samples: int | str | None,
) -> Asked:
    """What is compared, checked."""
    size = one_batch_size(prepared.baseline, ONE_SIZE)
    baseline = prepared.baseline.replace(batch_size=size, samples=length(prepared, samples))
    if baseline.gamma is not None:
        raise InvalidValueError(must("gamma", "left out of today's recipe", baseline.gamma))
    if isinstance(gammas, int | float):
        raise InvalidTypeError(must("gammas", "a list", gammas, f"Write gammas=[{gammas}]."))
    if not gammas:
        raise InvalidValueError(must("gammas", "one number above 0 or more", list(gammas)))
    for name, value, fewest in (("seeds", seeds, 3), ("seed", seed, 0)):
        if value < fewest:
            raise InvalidValueError(must(name, f"a whole number, {fewest} or more", value))
    ordered = tuple(sorted({checked_gamma(gamma) for gamma in gammas}))
    layers = strength.depth(prepared) if depth is None else depth
    rate_factor(1.0, layers)  # refuses an impossible depth
    return Asked(prepared, baseline, ordered, layers, seeds, seed)


# What is trained


@dataclass(frozen=True)
class Trained:
    """Runs on the seeds that chose and on the fresh ones.

    Attributes:
        chose: Every γ at every rate.
        fresh: What was chosen.
        best: γ → setting that was best at its end.
        ends: Setting → where its fresh runs ended.
        target: Metric that counts as trained.
    """

    chose: Runs
    fresh: Runs
    best: dict[Strength, Key]
    ends: dict[Key, Sequence[RunState | None]]
    target: float


def _trained(asked: Asked, engine: Engine, hears: Listener) -> Trained:
    """Choose on some seeds, train the chosen on fresh ones."""
    chose, best = _tuned(asked, engine, (None,), asked.baseline.learning_rate or 0.0, hears)
    others = _tuned(asked, engine, asked.gammas, best[None].rate, hears)
    chose, best = chose | others[0], best | others[1]
    maximise = asked.prepared.metric.maximise
    target = default_target(final(chose[best[None]]), maximise)
    kept = list(best.values())
    fresh, ends = _train(asked, engine, kept, asked.fresh, hears, "fresh repeats")
    return Trained(chose, fresh, best, ends, target)


def _tuned(
    asked: Asked, engine: Engine, strengths: Sequence[Strength], rate: float, hears: Listener
) -> tuple[Runs, dict[Strength, Key]]:
    """The best learning rate of each strength around what the law makes of a rate, and all runs
    that it was chosen from; where it was the smallest or the largest, those beyond it are tried.
    """
    chose: Runs = {}
    law = [Key(gamma, asked.law(gamma, rate)) for gamma in strengths]
    wanted = [key._replace(rate=key.rate * times) for key in law for times in RATES]
    best, what = law, "choosing learning rates"
    for _ in range(1 + WIDER):
        if wanted:
            chose |= _train(asked, engine, wanted, asked.choosing, hears, what)[0]
            best = [_best(asked, chose, key) for key in law]
            wanted = [key for one in best for key in _beyond(chose, one)]
    return chose, {key.gamma: key for key in best}


def _train(
    asked: Asked,
    engine: Engine,
    keys: Sequence[Key],
    seeds: Sequence[int],
    hears: Listener,
    what: str,
) -> tuple[Runs, dict[Key, Sequence[RunState | None]]]:
    """One run a setting and seed, all of them together, so that what can be is stacked."""
    configs = [asked.config(key, seed) for key in keys for seed in seeds]
    job = Job(asked.grid, keep_end=seeds == asked.fresh)
    trace, states = engine.train(configs, job, progress=lambda share: hears.progress(what, share))
    n = len(seeds)
    parts = {key: slice(i * n, (i + 1) * n) for i, key in enumerate(keys)}
    runs = {key: trace.runs[part] for key, part in parts.items()}
    return runs, {key: states[part] for key, part in parts.items()}


def _best(asked: Asked, chose: Runs, usual: Key) -> Key:
    """By the metric at the end, on the seeds that choose; the law's rate wins ties."""
    ends = {repr(key.rate): final(runs) for key, runs in chose.items() if key.gamma == usual.gamma}
    best = choose_accuracy(ends, asked.prepared.metric.maximise, repr(usual.rate))
    return usual._replace(rate=float(best))


def _beyond(chose: Runs, best: Key) -> list[Key]:
    """The next setting beyond the smallest or the largest rate tried, if that was the best."""
    tried = [key.rate for key in chose if key.gamma == best.gamma]
    low, high = best.rate == min(tried), best.rate == max(tried)
    rates = [best.rate / STEP] * low + [best.rate * STEP] * high
    return [Key(best.gamma, rate) for rate in rates]


# What is timed and measured


def _timed(asked: Asked, journal: Journal, hears: Listener) -> dict[bool, Machine]:
    """One run alone, of the model as it is (False) and of a wrapped one (True), in turns."""
    wrapped = asked.baseline.replace(gamma=1.0)
    sides = {
        False: replace(asked.prepared, baseline=asked.baseline),
        True: replace(asked.prepared, baseline=wrapped),
    }
    known = {side: journal.load(_machine_name(side), Machine) for side in sides}
    if None in known.values():
        clocks = {side: Stopwatch(prepared, 1) for side, prepared in sides.items()}
        for i in range(BLOCKS):
            hears.progress("timing one run alone", i / BLOCKS)
            for clock in clocks.values():
                clock.visit([asked.size], BLOCK_SECONDS)
        for side, clock in clocks.items():
            known[side] = machine_of(sides[side], clock, None)
            journal.save(_machine_name(side), known[side])
    return {side: machine for side, machine in known.items() if machine is not None}


def _machine_name(side: bool) -> str:
    return "machine-wrapped" if side else "machine"


class Looked(NamedTuple):
    """What a trained model looks like.

    Attributes:
        sharpness: Largest eigenvalue of the Hessian, loss/parameter²; NaN where unknown.
        sparsity: Participation ratio of the weights, as a share of them.
        moved: ‖θ − θ₀‖/‖θ₀‖.
    """

    sharpness: float
    sparsity: float
    moved: float


def _looked(
    asked: Asked, key: Key, seed: int, state: RunState, curvature: Callable[[Objective], float]
) -> Looked:
    """One trained model, beside the start of its own seed."""
    config = asked.config(key, seed)
    start = asked.prepared.objective(seed, DTYPES[config.precision], key.gamma)
    end = loaded(start, state.progress).eval()
    first, last = (dict(bare(one.module).named_parameters()) for one in (start, end))
    zero = {name: 0 * value for name, value in first.items()}
    moved = distance(first, last) / distance(zero, first)
    return Looked(curvature(end), weights_share(end.module), moved)


# What follows


def _report(
    asked: Asked, trained: Trained, machines: Mapping[bool, Machine], hears: Listener
) -> StrengthReport:
    """Join what was found."""
    prepared = asked.prepared
    metric = prepared.metric
    curvature = curvature_of(prepared) or (lambda objective: math.nan)
    rows = []
    for i, gamma in enumerate(asked.strengths):
        hears.progress("sharpness and sparsity", i / len(asked.strengths))
        key = trained.best[gamma]
        seeds = zip(asked.fresh, trained.ends[key], strict=True)
        looked = [_looked(asked, key, s, end, curvature) for s, end in seeds if end is not None]
        rows.append(_row(asked, trained, machines, key, looked))
    return StrengthReport(
        task=prepared.task.name,
        unit=prepared.task.unit,
        metric=MetricInfo(metric.name, metric.maximise, metric.unit),
        today=setting_of(asked.baseline, "today", asked.size, trained.best[None].rate),
        train_examples=prepared.examples,
        validation_examples=prepared.validation.examples,
        seeds=asked.fresh,
        choosing=asked.choosing,
        depth=asked.depth,
        samples=asked.samples,
        target=trained.target,
        rows=tuple(rows),
        points=tuple(_points(asked, trained.chose)),
        slower=_ratio(machines),
        origin=origin(prepared, "compare", Path(), 0.0, asked.seed),
    )


def _row(
    asked: Asked,
    trained: Trained,
    machines: Mapping[bool, Machine],
    key: Key,
    looked: Sequence[Looked],
) -> StrengthRow:
    """One γ, against the model as it is."""
    metric, today = asked.prepared.metric, trained.best[None]
    values, before = final(trained.fresh[key]), final(trained.fresh[today])
    sides = [_seconds(asked, trained, machines, one) for one in (today, key)]
    gap = ratio = None
    if key != today:
        # Ranges of differences and of speeds: all together they hold in nine of ten.
        level = 1 - 0.1 / (2 * len(asked.gammas))
        gap = paired_difference(
            before, values, maximise=metric.maximise, unit=metric.unit, level=level
        ).estimate
        ratio = _faster(asked, sides, machines, level)
    seconds = sides[1]
    return StrengthRow(
        gamma=key.gamma,
        learning_rate=key.rate,
        law=asked.law(key.gamma, today.rate),
        edge=bool(_beyond(trained.chose, key)),
        metric=centre(values, metric.maximise, metric.unit),
        difference=gap,
        seconds=median_estimate(seconds, "s"),
        faster=ratio,
        sharpness=_mean((one.sharpness for one in looked), "loss/parameter²"),
        sparsity=_mean((one.sparsity for one in looked), ""),
        moved=_mean((one.moved for one in looked), ""),
        arrived=int(np.isfinite(seconds).sum()),
        runs=len(values),
        failed=int(np.isnan(values).sum()),
    )


def _seconds(
    asked: Asked, trained: Trained, machines: Mapping[bool, Machine], key: Key
) -> np.ndarray:
    """Seconds of each fresh run alone to the target, infinite if never."""
    samples = arrivals(trained.fresh[key], trained.target, asked.prepared.metric.maximise)
    yard = _yardstick(asked, machines[key.gamma is not None])
    return yard.measure("time", np.maximum(samples, asked.size), asked.size)


def _yardstick(asked: Asked, machine: Machine) -> Yardstick:
    return Yardstick(machine, None, asked.baseline.reuse, asked.prepared.examples)


def _faster(
    asked: Asked, sides: Sequence[np.ndarray], machines: Mapping[bool, Machine], level: float
) -> Estimate:
    """Time to the target of the model as it is / of γ; above 1 where γ is faster."""
    step = asked.grid[1] - asked.grid[0]
    yards = [_yardstick(asked, machines[side]) for side in (False, True)]
    speeds = [yard.rate(asked.size) for yard in yards]
    seconds = [float(y.measure("time", np.array([float(step)]), asked.size)[0]) for y in yards]
    return paired_log_ratio(
        *sides,
        today_seconds_log_var=speeds[0].log_var,
        today_seconds_dof=speeds[0].dof,
        recommended_seconds_log_var=speeds[1].log_var,
        recommended_seconds_dof=speeds[1].dof,
        grid_log_var=sum(grid_log_var(a, s) for a, s in zip(sides, seconds, strict=True)),
        level=level,
    ).estimate


def _ratio(machines: Mapping[bool, Machine]) -> float:
    """Seconds of an update of a wrapped model / of the model as it is."""
    (size,) = machines[False].blocks
    plain, wrapped = (machines[side].seconds(int(size)) for side in (False, True))
    assert plain is not None
    assert wrapped is not None
    return wrapped.value / plain.value


def _mean(values: Iterable[float], unit: str) -> Estimate | None:
    """Over the runs where it is known."""
    known = np.array([value for value in values if math.isfinite(value)])
    return mean_estimate(known, unit, "end of training") if known.size else None


def _points(asked: Asked, chose: Runs) -> Iterable[Point]:
    """The map of γ and learning rate, on the seeds that choose."""
    for key, runs in sorted(chose.items(), key=lambda item: (item[0].gamma or 0.0, item[0].rate)):
        values = final(runs)
        known = values[np.isfinite(values)]
        yield Point(
            key.gamma,
            key.rate,
            float(known.mean()) if known.size else math.nan,
            int(np.isnan(values).sum()),
            len(runs),
        )
