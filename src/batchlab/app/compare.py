"""``compare``: a grid of settings, each against today's, at equal samples and equal updates."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from batchlab import _platform, schedules
from batchlab.advisor.candidates import scaled_rate
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.record import (
    CurvePoint,
    FeatureUse,
    MetricInfo,
    Robustness,
    Setting,
    distinct,
    short_name,
)
from batchlab.advisor.seen import feature_use
from batchlab.advisor.session import Listener, Stopwatch, machine_of
from batchlab.advisor.stages import Machine
from batchlab.advisor.surveyed import centre
from batchlab.advisor.surveyed import robustness as robustness_of
from batchlab.app import elsewhere
from batchlab.app.advise import _refuse_torchrun, default_out, found
from batchlab.app.measure import length, origin, write
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, RunState
from batchlab.engine.store import collect
from batchlab.engine.workers import Place
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.measure.disturbance import Disturbance
from batchlab.measure.features import Reader
from batchlab.measure.insight import curvature_of, insight, reader_of
from batchlab.measure.robustness import train_altered
from batchlab.measure.sturdiness import Scores, survey, trained
from batchlab.progress import listening
from batchlab.report import measured
from batchlab.report.findings import Compared, CompareReport, Reading, setting_of
from batchlab.rules import is_sgd_family
from batchlab.schedules import BatchSchedule, sizes_of
from batchlab.stats import paired_difference, quantile
from batchlab.tasks import Prepared, Task, prepare
from batchlab.tasks.subset import subset_of
from batchlab.types import Status

LONGEST = 10
"""Times today's samples: a setting that needs more for equal updates is left out there."""
EVALUATIONS = 20
WINDOW = 0.1
"""A run is judged by its mean over the last tenth."""
VISITS, BLOCK_SECONDS = 4, 0.1
"""One run alone is timed so many times more than once, spread over the training."""


def compare(
    task: Task | str,
    *,
    batch_sizes: Sequence[int | str],
    learning_rates: Sequence[float] | None = None,
    rate_growth: Sequence[float] | None = None,
    seeds: int = 3,
    samples: int | str | None = None,
    robustness: bool = False,
    features: bool = False,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    subset: str | float | None = None,
    resume: bool = False,
    on: str | None = None,
    price_per_hour: float | Mapping[str, float] | None = None,
    max_spend: float | None = None,
    listener: Listener | None = None,
) -> CompareReport:
    """Train a grid of batch sizes and learning rates, and set each against today's settings.

    *Equal samples*: every setting trains on as many examples as today's. *Equal updates*: on as
    many batches; batch size B then sees B/B₀ times the examples, and is left out beyond 10 times.
    A schedule of batch sizes keeps its positions in both, and its last size holds to the end.
    A learning-rate schedule spans each training of its own, so with one that is not constant the
    two comparisons are two trainings. Today's settings are always among them; differences are
    paired by seed.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        batch_sizes: Batch sizes of the grid, or schedules such as ``"0:8 2ep:16"``.
        learning_rates: Learning rates of the grid, each with every batch size. Left out: today's,
            scaled to the batch size, linearly for the SGD family and by the root for others; of a
            schedule, to its first size.
        rate_growth: Powers with which the learning rate follows a schedule, each with every
            schedule: 0 keeps it, 0.5 follows the root, 1 is linear. Left out: the recipe's.
        seeds: Repeats, at least 2.
        samples: Length of a training, such as ``"10ep"``; the recipe's if left out.
        robustness: Also measure how the metric changes with noise, drift, wrong labels and less
            data, and on how many examples two trainings disagree: the grid is trained about four
            times more, on changed data.
        features: Also count the internal features that the decisions of the trained models rest
            on, and show what they look at. Under a constant learning rate, a batch size that needs
            more samples for equal updates is then trained twice.
        out: Result directory; by default ``batchlab-results/compare-<task>``.
        seed: The first seed.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: Folder with the data of a built-in task.
        subset: Part of the training data, such as ``"10%"``; all of it if left out.
        resume: Go on with an unfinished directory; what has been trained is not trained again.
        on: A Ray cluster that trains: ``ray`` for the one here, which is started if none runs,
            or ``ray://HOST:PORT``; needs ``batchlab[ray]``.
        price_per_hour: Of a node of the cluster, or kind of node → price.
        max_spend: Training stops before the nodes cost more.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table; ``compare.json``, ``compare.html``, ``runs.parquet`` and
        ``metrics.parquet`` are written.

    Raises:
        UserError: With one sentence about what is wrong.
    """
    _refuse_torchrun()
    began = time.perf_counter()
    where = elsewhere.Asked(on, price_per_hour, max_spend)
    loaded, _ = found(task, data)
    prepared = subset_of(prepare(loaded, device=device), subset, seed)
    grid = _grid(prepared, batch_sizes, learning_rates, seeds, seed, samples, rate_growth)
    grid = replace(grid, robustness=robustness, features=features)
    reader = _reader(prepared, grid)
    folder = Path(out) if out is not None else default_out("compare", loaded)
    with listening(listener) as hears, _platform.DirectoryLock(folder):
        journal = Journal(
            folder, {"command": "compare", **_asked(prepared, grid)}, resume, hears.say
        )
        journal.plan("compare", {"trainings": [leg.told() for leg in grid.legs()]})
        with elsewhere.place(where, hears, folder) as cluster:
            runs, machine, ends = _train(prepared, grid, folder, journal, hears, cluster)
            surveyed = _survey(prepared, grid, folder, runs, ends, hears, cluster)
        made = origin(prepared, "compare", folder, time.perf_counter() - began, seed)
        made = replace(made, provenance=made.provenance | elsewhere.told(None, folder))
        looked = {} if reader is None else _looked(prepared, grid, reader, ends, hears)
        report = CompareReport(
            prepared.task.name,
            prepared.task.unit,
            MetricInfo(*_metric(prepared)),
            grid.samples,
            grid.updates,
            grid.seeds,
            prepared.examples,
            prepared.validation.examples,
            _compared(prepared, grid, runs, machine),
            _curves(prepared, grid, runs, machine),
            made,
            surveyed,
            looked,
        )
        write(folder / "compare.json", report)
        _platform.write_whole(folder / "compare.html", measured.compare_page(report))
        collect(folder)
        journal.finish()
    return report


class Pair(NamedTuple):
    """A setting of the grid: batch size or schedule, the rate it begins with, and its growth."""

    batch_size: int | str
    learning_rate: float
    rate_growth: float = 0.0

    def told(self) -> tuple[int | str | float, ...]:
        """For the plan; what is not asked for leaves no word."""
        return self if self.rate_growth else self[:2]


@dataclass(frozen=True)
class Leg:
    """Trainings of one batch size and length, from which a setting is read.

    Attributes:
        batch_size: Examples, or a schedule.
        length: Samples.
        moments: Sample counts at which settings are judged.
        pairs: Settings trained so.
    """

    batch_size: int | str
    length: int
    moments: tuple[int, ...]
    pairs: tuple[Pair, ...]

    def job(self) -> Job:
        """Evaluations at twentieths of every stretch that is judged."""
        every = {round(m * i / EVALUATIONS) for m in self.moments for i in range(EVALUATIONS + 1)}
        return Job(tuple(sorted(every)))

    def told(self) -> dict[str, object]:
        """For the plan."""
        pairs = [pair.told() for pair in self.pairs]
        return {"batch_size": self.batch_size, "samples": self.length, "settings": pairs}


@dataclass(frozen=True)
class Grid:
    """What is trained.

    Attributes:
        baseline: Today's recipe.
        pairs: Settings; today's first.
        seeds: Repeats.
        samples: Samples of the first comparison.
        robustness: Whether the trained runs are disturbed, and trained on changed data.
        features: Whether the features of the trained models are counted.
        examples: Training examples N, to which positions in epochs refer.
    """

    baseline: RunConfig
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]
    samples: int
    robustness: bool = False
    features: bool = False
    examples: int = 1

    @property
    def keeps_ends(self) -> bool:
        """Whether the trained models are looked at as they are after equal samples."""
        return self.robustness or self.features

    @property
    def updates(self) -> int:
        """Batches of today's settings in ``samples``; so many every setting gets."""
        return self.schedule(self.pairs[0].batch_size).count(0, self.samples)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every batch size that is trained with, ascending."""
        return tuple(sorted({size for p in self.pairs for size in sizes_of(p.batch_size)}))

    def schedule(self, batch_size: int | str) -> BatchSchedule:
        """A batch size as a schedule, its positions in samples."""
        return schedules.batch_schedule(batch_size).resolve(self.examples)

    def equal_updates(self, batch_size: int | str) -> int | None:
        """Samples for as many updates as today's, or None where that is too many."""
        if batch_size == self.pairs[0].batch_size:
            return self.samples
        needed = self.schedule(batch_size).drawn(self.updates)
        return needed if needed <= LONGEST * self.samples else None

    def legs(self) -> tuple[Leg, ...]:
        """The trainings: one a batch size under a constant learning rate, else one a length."""
        legs = []
        for size in sorted({pair.batch_size for pair in self.pairs}, key=_place):
            pairs = tuple(pair for pair in self.pairs if pair.batch_size == size)
            wanted = {self.samples, self.equal_updates(size) or self.samples}
            constant = self.baseline.lr_schedule == "constant" and not self.baseline.warmup
            # Models are looked at as they are after equal samples: there a training must end.
            if constant and not self.keeps_ends:
                legs.append(Leg(size, max(wanted), tuple(sorted(wanted)), pairs))
            else:
                legs += [Leg(size, samples, (samples,), pairs) for samples in sorted(wanted)]
        return tuple(legs)

    def leg(self, pair: Pair, moment: int) -> Leg:
        """The training in which a setting is judged at a moment."""
        return next(
            leg
            for leg in self.legs()
            if moment in leg.moments and leg.batch_size == pair.batch_size
        )

    def config(self, pair: Pair, seed: int, samples: int) -> RunConfig:
        """One run."""
        return self.baseline.replace(
            batch_size=pair.batch_size,
            learning_rate=pair.learning_rate,
            rate_growth=pair.rate_growth,
            seed=seed,
            samples=samples,
        )

    def id(self, pair: Pair) -> str:
        """A setting's short name."""
        return "today" if pair == self.pairs[0] else self._names[pair]

    @cached_property
    def _names(self) -> dict[Pair, str]:
        """One name each; schedules of the same ends are numbered."""
        return distinct({pair: short_name(*pair) for pair in self.pairs})


def _place(batch_size: int | str) -> tuple[int, str]:
    """By the largest size, then by the text."""
    return max(sizes_of(batch_size)), str(batch_size)


Runs = dict[tuple[Pair, int], tuple[RunResult, ...]]
"""(setting, length) → one run a seed."""
Ends = dict[Pair, dict[int, RunState]]
"""Setting → seed → where its run of equal samples ended, if that is wanted."""


def _grid(
    prepared: Prepared,
    batch_sizes: Sequence[int | str],
    learning_rates: Sequence[float] | None,
    seeds: int,
    seed: int,
    samples: int | str | None,
    rate_growth: Sequence[float] | None = None,
) -> Grid:
    """The settings, checked; today's first, each once."""
    baseline = prepared.baseline
    first = schedules.batch_schedule(baseline.batch_size or 1)
    today = Pair(_plain(first), baseline.learning_rate or 0.0, baseline.rate_growth)
    whole = length(prepared, samples)
    wanted = [_read(size) for size in batch_sizes]
    _check(prepared, wanted, learning_rates, seeds, seed, whole)
    power = 1.0 if is_sgd_family(baseline.rule or "") else 0.5
    asked = [
        Pair(_plain(schedule), rate, growth)
        for schedule in wanted
        for rate in learning_rates
        or [scaled_rate(today.learning_rate, first.sizes[0], schedule.sizes[0], power)]
        for growth in _growths(schedule, rate_growth, baseline)
    ]
    pairs = tuple(dict.fromkeys([today, *asked]))
    seeds_ = tuple(range(seed, seed + seeds))
    return Grid(baseline, pairs, seeds_, whole, examples=prepared.examples)


def _read(batch_size: int | str) -> BatchSchedule:
    """What was asked for; an impossible one is refused by the name of the option."""
    try:
        return schedules.batch_schedule(batch_size)
    except (InvalidValueError, InvalidTypeError) as error:
        raise type(error)(str(error).replace("`batch_size`", "`batch_sizes`", 1)) from None


def _plain(schedule: BatchSchedule) -> int | str:
    """One size as a number, several as text."""
    return schedule.sizes[0] if len(schedule.steps) == 1 else str(schedule)


def _growths(
    schedule: BatchSchedule, asked: Sequence[float] | None, baseline: RunConfig
) -> Sequence[float]:
    """How the learning rate follows; with one size there is nothing to follow."""
    return asked if asked and not schedule.is_constant else [baseline.rate_growth]


def _check(
    prepared: Prepared,
    batch_sizes: Sequence[BatchSchedule],
    learning_rates: Sequence[float] | None,
    seeds: int,
    seed: int,
    samples: int,
) -> None:
    most = min(prepared.examples, samples)
    if not batch_sizes:
        raise InvalidValueError(must("batch_sizes", "at least one batch size", batch_sizes))
    for schedule in batch_sizes:
        for size in schedule.sizes:
            if not 1 <= size <= most:
                raise InvalidValueError(
                    must("batch_sizes", f"whole numbers from 1 to {most}", size)
                )
        if schedule.resolve(prepared.examples).starts[-1][0] >= samples:
            words = f"schedules whose last size begins within the {samples} samples of a training"
            raise InvalidValueError(must("batch_sizes", words, str(schedule)))
    for rate in learning_rates or ():
        if not 0 < rate < math.inf:
            raise InvalidValueError(must("learning_rates", "above 0", rate))
    for name, value, least in (("seeds", seeds, 2), ("seed", seed, 0)):
        if value < least:
            raise InvalidValueError(must(name, f"a whole number, {least} or more", value))


def _asked(prepared: Prepared, grid: Grid) -> dict[str, object]:
    """What must be the same for a result to be continued."""
    task = prepared.task
    return {
        "task": task.origin or task.name,
        "examples": prepared.examples,
        "validation": prepared.validation.examples,
        "metric": prepared.metric.name,
        "device": prepared.device,
        **{name: value for name, value in asdict(grid).items() if value is not False},
        "pairs": [pair.told() for pair in grid.pairs],
    }


def _train(
    prepared: Prepared,
    grid: Grid,
    folder: Path,
    journal: Journal,
    hears: Listener,
    on: Place | None,
) -> tuple[Runs, Machine, Ends]:
    """Every leg, with one run alone timed before, between and after."""
    known = journal.load("machine", Machine)
    stopwatch = Stopwatch(prepared, 1, known.blocks if known else None)
    legs = grid.legs()
    due = sorted({round(i * len(legs) / VISITS) for i in range(VISITS + 1)})
    runs: Runs = {}
    ends: Ends = {}
    with Engine(prepared, folder, on=on) as engine:
        for done, leg in enumerate([*legs, None]):
            if done in due:
                _visit(stopwatch, grid.sizes, due.index(done) + 1, hears)
                journal.save("machine", machine_of(prepared, stopwatch, None))
            if leg is not None:
                found, states = _train_leg(engine, grid, leg, (done, len(legs)), hears)
                runs, ends = runs | found, ends | states
    return runs, machine_of(prepared, stopwatch, None), ends


def _visit(stopwatch: Stopwatch, sizes: Sequence[int], blocks: int, hears: Listener) -> None:
    """Time each size until it has so many blocks; those of an interrupted process count."""
    for i, size in enumerate(sizes):
        hears.progress("timing one run alone", i / len(sizes))
        if len(stopwatch.blocks.get(str(size), ())) < blocks:
            stopwatch.visit([size], BLOCK_SECONDS)


def _train_leg(
    engine: Engine, grid: Grid, leg: Leg, place: tuple[int, int], hears: Listener
) -> tuple[Runs, Ends]:
    """The runs of one leg, setting by setting, and where they ended if that is wanted."""
    configs = [grid.config(p, seed, leg.length) for p in leg.pairs for seed in grid.seeds]
    done, legs = place
    what = f"training batch size {leg.batch_size}"
    keep_end = grid.keeps_ends and leg.length == grid.samples
    trace, states = engine.train(
        configs,
        replace(leg.job(), keep_end=keep_end),
        progress=lambda share: hears.progress(what, share if legs == 1 else (done + share) / legs),
    )
    for sentence in engine.hear():
        hears.say(sentence)
    n = len(grid.seeds)
    parts = {pair: slice(i * n, (i + 1) * n) for i, pair in enumerate(leg.pairs)}
    runs = {(pair, leg.length): trace.runs[part] for pair, part in parts.items()}
    if not keep_end:
        return runs, {}
    return runs, {pair: _ended(grid, states[part]) for pair, part in parts.items()}


def _ended(grid: Grid, states: Sequence[RunState | None]) -> dict[int, RunState]:
    """Seed → state, without runs that diverged."""
    pairs = zip(grid.seeds, states, strict=True)
    return {seed: state for seed, state in pairs if state is not None}


def _reader(prepared: Prepared, grid: Grid) -> Reader | None:
    """Reads the trained models, if that is wanted; refused where they have no hidden units."""
    if not grid.features:
        return None
    reader = reader_of(prepared, grid.baseline)
    if reader.site is None:
        hint = "It counts the units of the layer that feeds the output."
        got = "one whose model has no such layer"
        raise InvalidValueError(must("features", "left out for this task", got, hint))
    return reader


def _looked(
    prepared: Prepared, grid: Grid, reader: Reader, ends: Ends, hears: Listener
) -> dict[str, FeatureUse]:
    """Setting's id → the features its models need, beside today's settings."""
    found = insight(
        reader,
        {grid.id(pair): states for pair, states in ends.items() if states},
        sharpness=curvature_of(prepared),
        tick=lambda share: hears.progress("internal features and sharpness", share),
    )
    known = found.settings if "today" in found.settings else {}
    unit = _metric(prepared)[2]
    return {name: feature_use(found, "today", name, unit) for name in known if name != "today"}


def _survey(
    prepared: Prepared,
    grid: Grid,
    folder: Path,
    runs: Runs,
    ends: Ends,
    hears: Listener,
    on: Place | None,
) -> dict[str, Robustness]:
    """Setting's id → what noise and changed training data do to it beside today's settings."""
    if not grid.robustness:
        return {}
    largest = max(grid.sizes)
    found = survey(
        prepared,
        grid.baseline,
        {grid.id(pair): states for pair, states in ends.items()},
        largest,
        seed=grid.seeds[0],
        tick=lambda share: hears.progress("noisy inputs and weights", share),
    )
    for what in trained(prepared, largest):
        found = found.with_scores(_trained_on(prepared, grid, what, folder, runs, hears, on))
    return {
        grid.id(pair): robustness_of(found, "today", grid.id(pair), maximise=maximise, unit=unit)
        for _, maximise, unit in [_metric(prepared)]
        for pair in grid.pairs[1:]
    }


def _trained_on(
    prepared: Prepared,
    grid: Grid,
    what: Disturbance,
    folder: Path,
    runs: Runs,
    hears: Listener,
    on: Place | None,
) -> list[Scores]:
    """Every setting trained on changed data, beside its runs on clean data."""
    configs = [grid.config(p, seed, grid.samples) for p in grid.pairs for seed in grid.seeds]
    job = Leg(0, grid.samples, (grid.samples,), ()).job()
    trace, told = train_altered(
        prepared,
        what,
        configs,
        job,
        out=folder / "robustness",
        on=on,
        seed=grid.seeds[0],
        progress=lambda share: hears.progress(what.id, share),
    )
    for sentence in told:
        hears.say(sentence)
    n = len(grid.seeds)
    return [
        _scores(grid, what, pair, runs[pair, grid.samples], trace.runs[i * n : (i + 1) * n])
        for i, pair in enumerate(grid.pairs)
    ]


def _scores(
    grid: Grid,
    what: Disturbance,
    pair: Pair,
    clean: Sequence[RunResult],
    changed: Sequence[RunResult],
) -> Scores:
    """The runs of a setting at the end of equal samples, where neither diverged."""
    sides = [[at(run, grid.samples).value for run in side] for side in (clean, changed)]
    kept = [i for i in range(len(clean)) if all(math.isfinite(side[i]) for side in sides)]
    seeds = tuple(grid.seeds[i] for i in kept)
    before, after = (tuple(side[i] for i in kept) for side in sides)
    return Scores(what, grid.id(pair), seeds, before, after)


class At(NamedTuple):
    """What one run says of one moment."""

    value: float
    samples: int
    updates: int


def at(run: RunResult, moment: int) -> At:
    """The metric of a run at a moment: its mean over the tenth before.

    Args:
        run: The run.
        moment: Samples; a run that ends less than a batch before has reached it.

    Returns:
        The value, NaN if the run diverged before; samples and updates there.
    """
    series = run.series["metric"]
    reached = int(np.searchsorted(series.samples, moment))
    last = min(reached, len(series.samples) - 1)
    if run.status is Status.DIVERGED and reached == len(series.samples):
        return At(math.nan, run.samples, run.updates)
    window = series.samples >= (1 - WINDOW) * moment
    window[last + 1 :] = False
    window[last] = True
    value = float(series.values[window].mean())
    return At(value, int(series.samples[last]), int(series.updates[last]))


def _compared(
    prepared: Prepared, grid: Grid, runs: Runs, machine: Machine
) -> tuple[Compared, ...]:
    """Every setting at both lengths."""
    found, yardstick = [], _yardstick(grid, machine)
    for pair in grid.pairs:
        lengths = grid.samples, grid.equal_updates(pair.batch_size)
        readings = [
            None if moment is None else _reading(prepared, grid, runs, pair, moment, yardstick)
            for moment in lengths
        ]
        whole = readings[0]
        assert whole is not None
        each = whole.seconds.times(1 / max(1, whole.updates), "s/update")
        found.append(Compared(_setting(grid, pair), whole, readings[1], each))
    return tuple(found)


def _yardstick(grid: Grid, machine: Machine) -> Yardstick:
    return Yardstick(machine, None, grid.baseline.reuse, grid.examples)


def _setting(grid: Grid, pair: Pair) -> Setting:
    config = grid.config(pair, grid.seeds[0], grid.samples)
    return setting_of(config, grid.id(pair), pair.batch_size, pair.learning_rate)


def _reading(
    prepared: Prepared, grid: Grid, runs: Runs, pair: Pair, moment: int, yardstick: Yardstick
) -> Reading:
    """One setting at one moment, against today's settings at the end of their training."""
    today = grid.pairs[0]
    own = runs[pair, grid.leg(pair, moment).length]
    here = [at(run, moment) for run in own]
    there = [at(run, grid.samples) for run in runs[today, grid.leg(today, grid.samples).length]]
    values, before = (np.array([one.value for one in side]) for side in (here, there))
    _, maximise, unit = _metric(prepared)
    paired = None
    if pair != today:
        paired = paired_difference(before, values, maximise=maximise, unit=unit)
    failed = [
        math.isnan(one.value) or run.status is Status.DID_NOT_LEARN
        for one, run in zip(here, own, strict=True)
    ]
    samples = max(one.samples for one in here)
    return Reading(
        samples,
        max(one.updates for one in here),
        centre(values, maximise, unit),
        None if paired is None else paired.estimate,
        0 if paired is None else paired.wins,
        0 if paired is None else paired.pairs,
        math.nan if paired is None else paired.chance,
        len(own),
        sum(failed),
        yardstick.seconds(samples, pair.batch_size),
    )


def _curves(
    prepared: Prepared, grid: Grid, runs: Runs, machine: Machine
) -> tuple[CurvePoint, ...]:
    """Loss and metric along the longest training of every setting."""
    points: list[CurvePoint] = []
    yardstick = _yardstick(grid, machine)
    for pair in grid.pairs:
        longest = max(samples for known, samples in runs if known == pair)
        good = [r for r in runs[pair, longest] if r.status is not Status.DIVERGED]
        for name in ("loss", "metric"):
            points += _points(good, grid.id(pair), name, yardstick, pair.batch_size)
    return tuple(points)


def _points(
    runs: Sequence[RunResult], id_: str, name: str, yardstick: Yardstick, batch_size: int | str
) -> list[CurvePoint]:
    """Median and range over seeds at each evaluation."""
    if not runs:
        return []
    first = runs[0].series[name]
    seconds = yardstick.measure("time", first.samples.astype(float), batch_size)
    assert yardstick.examples is not None
    values = np.array([run.series[name].values for run in runs])
    return [
        CurvePoint(
            id_,
            name,
            int(first.samples[t]),
            float(first.samples[t] / yardstick.examples),
            int(first.updates[t]),
            float(seconds[t]),
            float(np.median(values[:, t])),
            quantile(values[:, t], 0.05),
            quantile(values[:, t], 0.95),
            len(runs),
        )
        for t in range(len(first.samples))
    ]


def _metric(prepared: Prepared) -> tuple[str, bool, str]:
    metric = prepared.metric
    return metric.name, metric.maximise, metric.unit
