"""``compare --reuse``: when k updates on each fetched batch pay, against their rivals."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from batchlab import _platform
from batchlab._text import plain
from batchlab.advisor.candidates import scaled_rate
from batchlab.advisor.decision import choose, choose_accuracy
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.record import MetricInfo, Price
from batchlab.advisor.session import (
    Listener,
    Stopwatch,
    machine_of,
    one_batch_size,
    over_workers,
)
from batchlab.advisor.stages import Machine
from batchlab.advisor.surveyed import centre
from batchlab.app.advise import _price, _refuse_torchrun, default_out, found
from batchlab.app.asking import check_reuse
from batchlab.app.measure import length, origin, write
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, RunState, evaluation_grid
from batchlab.engine.store import collect
from batchlab.errors import InvalidValueError, must
from batchlab.measure.reuse import Spent, boundary, labels_to, price_of, ratio_at
from batchlab.measure.robustness import scores
from batchlab.measure.throughput import Block
from batchlab.progress import listening
from batchlab.report import formats, measured
from batchlab.report.findings import setting_of
from batchlab.report.reuse import (
    Labelled,
    Labels,
    Line,
    Reached,
    ReuseReport,
    ReuseRow,
    Saved,
)
from batchlab.rules import is_sgd_family
from batchlab.stats import (
    Paired,
    default_target,
    mean_estimate,
    median_estimate,
    paired_difference,
    paired_log_ratio,
    times_to_target,
)
from batchlab.tasks import Prepared, Task, prepare
from batchlab.tasks.prepare import LEAST_EXAMPLES
from batchlab.tasks.subset import subset_of
from batchlab.types import Estimate, Status

RATES = (0.5, 1.0, 2.0)
"""Learning rates that are tried first, times today's scaled to the batch size."""
WIDER = 2
"""So often a rate beyond the smallest or the largest is tried where that was the best."""
CHOOSING, FRESH = 100, 1000
"""Added to the first seed: of the runs that choose, and of the fresh ones that are judged."""
LONGEST = 10
"""Times today's samples: a training for an equal time or equal updates that needs more is left
out."""
LEAST_UPDATES = 3
"""Batches of a training: as many evaluations make its end."""
BLOCKS, BLOCK_SECONDS = 5, 0.1
ENGINE = 1.5
"""Seconds of an update in the engine, evaluations included, / seconds of one in the plain loop."""
ONE_SIZE = "compare --reuse tries multiples of one batch size."


def compare_reuse(
    task: Task | str,
    *,
    reuse: Sequence[int],
    labels: Sequence[int] | None = None,
    price_per_hour: float | None = None,
    currency: str = "USD",
    price_per_sample: float = 0.0,
    seconds_per_sample: float = 0.0,
    seeds: int = 5,
    samples: int | str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    subset: str | float | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> ReuseReport:
    """Find out whether k updates on each fetched batch pay, and from which price of a sample on.

    The rivals of k updates on a batch are k times as many passes with one update (k epochs) and a
    batch k times as large. Every one trains with its own learning rate, the best of those tried on
    seeds of their own, and is judged on fresh seeds: after as many fresh samples, as many updates
    and as much time as today's training, each a training of that length, with its learning-rate
    schedule over it. What a training takes to today's accuracy gives the boundary: the price of a
    fresh sample, in units of computing one example, from which on re-use is cheaper.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        reuse: Updates on each batch, 2 or more.
        labels: Numbers of labelled examples for a curve of the metric over them; none if left out.
        price_per_hour: What an hour of computing costs.
        currency: Its currency.
        price_per_sample: What a fresh sample costs each time it is drawn.
        seconds_per_sample: Seconds that reading a fresh sample takes in your own training, beside
            what is timed here; added to computing, as where the two wait for one another.
        seeds: Fresh repeats, at least 3.
        samples: Length of today's training, such as ``"10ep"``; the recipe's if left out.
        out: Result directory; by default ``batchlab-results/reuse-<task>``.
        seed: Names every random draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: Folder with the data of a built-in task.
        subset: Part of the training data, such as ``"10%"``; all of it if left out.
        resume: Go on with an unfinished directory; what has been trained is not trained again.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table; ``reuse.json``, ``reuse.html``, ``runs.parquet`` and
        ``metrics.parquet`` are written.

    Raises:
        UserError: With one sentence about what is wrong.

    Source:
        Data echoing: choi2019.
    """
    check_reuse(reuse, labels or (), seconds_per_sample, seeds, seed)
    _refuse_torchrun()
    began = time.perf_counter()
    loaded, _ = found(task, data)
    prepared = subset_of(prepare(loaded, device=device), subset, seed)
    paid = _price(price_per_hour, currency, price_per_sample)
    asked = _asked(prepared, reuse, labels or (), paid, seconds_per_sample, seeds, seed, samples)
    folder = Path(out) if out is not None else default_out("reuse", loaded)
    with listening(listener) as hears, _platform.DirectoryLock(folder):
        journal = Journal(folder, asked.identity(), resume, hears.say)
        machine = _timed(asked, journal, hears)
        plan = _plan(asked, clock_of(machine, asked.size, asked.reading))
        journal.plan("reuse", {"lengths": [[*way] for way in plan]})
        runs, gaps = _trained(asked, plan, folder, hears)
        curve = _labels(asked, runs.rate, folder, hears)
        timed = _timed_again(asked, journal, machine, hears)
        report = _report(asked, plan, timed, runs, gaps, curve)
        report = replace(
            report, origin=origin(prepared, "compare", folder, time.perf_counter() - began, seed)
        )
        write(folder / "reuse.json", report)
        _platform.write_whole(folder / "reuse.html", measured.reuse_page(report))
        collect(folder)
        journal.finish()
    return report


def price(
    task: Task | str,
    *,
    reuse: Sequence[int],
    labels: Sequence[int] | None = None,
    seconds_per_sample: float = 0.0,
    seeds: int = 5,
    samples: int | str | None = None,
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    subset: str | float | None = None,
) -> str:
    """What :func:`compare_reuse` would train and about how long that takes; nothing is kept.

    Args:
        task: As for :func:`compare_reuse`, like the rest.
        reuse: Updates on each batch.
        labels: Numbers of labelled examples.
        seconds_per_sample: Decides how long trainings of an equal time are.
        seeds: Fresh repeats.
        samples: Length of today's training.
        seed: Names every random draw.
        device: Where it would run.
        data: Folder with the data of a built-in task.
        subset: Part of the training data.

    Returns:
        A sentence.
    """
    check_reuse(reuse, labels or (), seconds_per_sample, seeds, seed)
    loaded, _ = found(task, data)
    prepared = subset_of(prepare(loaded, device=device), subset, seed)
    given = labels or (), None, seconds_per_sample, seeds, seed, samples
    asked = _asked(prepared, reuse, *given)
    with listening(None) as hears:
        clock = clock_of(_visited(asked, hears, {}), asked.size, asked.reading)
    runs = _runs(asked, _plan(asked, clock))
    each = [clock.each(way.batch_size) * way.samples * way.reuse for way in runs]
    cores = _platform.available_cores() if prepared.device == "cpu" else 0
    told = formats.duration(ENGINE * over_workers(each, cores))
    return (
        f"{prepared.task.name}: {len(runs)} trainings, about {plain(told.en)} on this machine, "
        "further learning rates beyond the best not counted."
    )


def _runs(asked: Asked, plan: Plan) -> list[Way]:
    """Every training that is sure: each rate on the seeds that choose, the best on fresh ones."""
    each = len(RATES) * len(asked.choosing) + len(asked.fresh)
    few = [
        Way(asked.size, reuse, epochs * -(-asked.samples * count // asked.prepared.examples))
        for count in asked.labels
        for reuse, epochs in _label_ways(asked)
    ]
    return [way for way in (*plan, *few) for _ in range(each)]


def _label_ways(asked: Asked) -> list[tuple[int, int]]:
    """(re-use, epochs / today's) of the curve over labelled examples."""
    return [(1, 1), *(way for k in asked.factors for way in ((k, 1), (1, k)))]


class Way(NamedTuple):
    """How a training spends its samples: batch size, updates on each batch, and their number."""

    batch_size: int
    reuse: int
    samples: int


@dataclass(frozen=True)
class Asked:
    """What is compared.

    Attributes:
        prepared: The task.
        baseline: Today's recipe.
        factors: k.
        labels: Numbers of labelled examples, ascending.
        price: Or None.
        reading: Seconds to read a fresh sample, as given.
        seeds: Fresh repeats.
        seed: The first.
    """

    prepared: Prepared
    baseline: RunConfig
    factors: tuple[int, ...]
    labels: tuple[int, ...]
    price: Price | None
    reading: float
    seeds: int
    seed: int

    @property
    def size(self) -> int:
        """Today's batch size."""
        assert isinstance(self.baseline.batch_size, int)
        return self.baseline.batch_size

    @property
    def samples(self) -> int:
        """Of today's training."""
        assert isinstance(self.baseline.samples, int)
        return self.baseline.samples

    @property
    def choosing(self) -> tuple[int, ...]:
        """Seeds that choose."""
        return tuple(self.seed + CHOOSING + i for i in range(max(2, (self.seeds + 1) // 2)))

    @property
    def fresh(self) -> tuple[int, ...]:
        """Seeds that judge."""
        return tuple(self.seed + FRESH + i for i in range(self.seeds))

    @property
    def today(self) -> Way:
        """Today's training."""
        return Way(self.size, 1, self.samples)

    def rates(self, batch_size: int) -> tuple[float, ...]:
        """That are tried at a batch size, ascending."""
        power = 1.0 if is_sgd_family(self.baseline.rule or "") else 0.5
        here = scaled_rate(self.baseline.learning_rate or 0.0, self.size, batch_size, power)
        return tuple(here * times for times in RATES)

    def config(self, way: Way, rate: float, seed: int) -> RunConfig:
        """One run."""
        size, reuse, samples = way
        return self.baseline.replace(
            batch_size=size, reuse=reuse, samples=samples, learning_rate=rate, seed=seed
        )

    def identity(self) -> dict[str, object]:
        """What must be the same for a result to be continued; prices judge anew."""
        task = self.prepared.task
        return {
            "command": "compare --reuse",
            "task": task.origin or task.name,
            "examples": self.prepared.examples,
            "validation": self.prepared.validation.examples,
            "metric": self.prepared.metric.name,
            "device": self.prepared.device,
            "baseline": asdict(self.baseline),
            "reuse": self.factors,
            "labels": self.labels,
            "price": self.price,
            # It decides how long trainings of an equal time are.
            "reading": self.reading,
            "seeds": self.seeds,
            "seed": self.seed,
        }


def _asked(
    prepared: Prepared,
    reuse: Sequence[int],
    labels: Sequence[int],
    paid: Price | None,
    reading: float,
    seeds: int,
    seed: int,
    samples: int | str | None,
) -> Asked:
    """What is compared, checked."""
    size = one_batch_size(prepared.baseline, ONE_SIZE)
    baseline = prepared.baseline.replace(batch_size=size, samples=length(prepared, samples))
    if baseline.reuse != 1:
        raise InvalidValueError(must("reuse", "1 in today's recipe", baseline.reuse))
    assert isinstance(baseline.samples, int)
    most = min(prepared.examples, baseline.samples // LEAST_UPDATES) // size
    if max(reuse) > most:
        hint = (
            f"Batches of k × {size} are a rival: a training of {baseline.samples:,} samples has "
            f"{LEAST_UPDATES} of them, and {prepared.examples:,} examples one, up to k = {most}."
        )
        raise InvalidValueError(
            must("reuse", f"whole numbers from 2 to {most}", list(reuse), hint)
        )
    least = max(size, LEAST_EXAMPLES)
    for count in labels:
        if not least <= count <= prepared.examples:
            words = f"numbers of examples from {least} to {prepared.examples}"
            raise InvalidValueError(must("labels", words, count))
    ordered = tuple(sorted(set(reuse))), tuple(sorted(set(labels)))
    return Asked(prepared, baseline, *ordered, paid, reading, seeds, seed)


# What is timed and planned


@dataclass(frozen=True)
class Clock:
    """Seconds of computing and of reading, apart: a re-used batch is read once.

    Attributes:
        machine: Computing alone.
        loading: Seconds that reading a fresh sample took here.
        given: Seconds that it takes beside, as the user says.
    """

    machine: Machine
    loading: float
    given: float

    @property
    def reading(self) -> float:
        """Seconds to read a fresh sample."""
        return self.loading + self.given

    def yardstick(self, way: Way, price: Price | None, examples: int) -> Yardstick:
        """Turns samples into seconds and money."""
        return Yardstick(self.machine, price, way.reuse, examples, self.reading)

    def each(self, batch_size: int) -> float:
        """Seconds of computing one example."""
        found = self.machine.seconds(batch_size)
        assert found is not None
        return found.value / batch_size

    def range_of(self, batch_size: int) -> Estimate:
        """The same with the range of timing it."""
        yardstick = Yardstick(self.machine, None)
        return yardstick.seconds(batch_size, batch_size).times(1 / batch_size, "s")

    def busy(self, batch_size: int) -> float:
        """The slowest block / the fastest."""
        each = [b.seconds / b.updates for b in self.machine.blocks[str(batch_size)]]
        return max(each) / min(each)


def clock_of(machine: Machine, batch_size: int, given: float) -> Clock:
    """Split what was timed into computing and reading.

    Args:
        machine: Blocks of one run alone, data loading included.
        batch_size: At which reading a sample is judged.
        given: Seconds a sample, beside what was timed.
    """
    blocks = machine.blocks[str(batch_size)]
    drawn = sum(block.updates * block.batch_size for block in blocks)
    loading = sum(block.loader_seconds for block in blocks) / drawn
    alone = {
        size: tuple(
            replace(b, seconds=b.seconds - b.loader_seconds, loader_seconds=0.0) for b in s
        )
        for size, s in machine.blocks.items()
    }
    return Clock(replace(machine, blocks=alone), loading, given)


def _timed(asked: Asked, journal: Journal, hears: Listener) -> Machine:
    """One run alone at each batch size, before anything is planned."""
    known = journal.load("machine", Machine)
    if known is None:
        known = _visited(asked, hears, {})
        journal.plan("reuse timing", {"sizes": [int(size) for size in known.blocks]})
        journal.save("machine", known)
    return known


def _timed_again(asked: Asked, journal: Journal, first: Machine, hears: Listener) -> Machine:
    """The same with blocks from after the training, in every process that went on with it: what
    else the computer did meanwhile then shows as a range. The plan rests on the first alone.
    """
    known = journal.load("timed", Machine)
    if known is None or not journal.finished:
        known = _visited(asked, hears, (known or first).blocks)
        journal.save("timed", known)
    return known


def _visited(asked: Asked, hears: Listener, blocks: dict[str, tuple[Block, ...]]) -> Machine:
    """Further blocks of each batch size, reading apart from computing."""
    stopwatch = Stopwatch(asked.prepared, 1, blocks, apart=True)
    sizes = [k * asked.size for k in (1, *asked.factors)]
    for i in range(BLOCKS):
        hears.progress("timing one run alone", i / BLOCKS)
        stopwatch.visit(sizes, BLOCK_SECONDS)
    return machine_of(asked.prepared, stopwatch, None)


Plan = dict[Way, tuple[str, ...]]
"""What is trained → in which readings it is judged: ``fresh``, ``updates``, ``time``."""


def _plan(asked: Asked, clock: Clock) -> Plan:
    """Today, k updates a batch, k epochs and a batch k times as large, each at its lengths."""
    wanted: dict[Way, list[str]] = {asked.today: ["fresh", "updates", "time"]}
    whole = asked.samples >= asked.prepared.examples
    for k in asked.factors:
        lengths = [("fresh", 1, k, asked.samples), ("fresh", k, 1, asked.samples)]
        # k epochs are today's training k times as long, over the same labelled examples.
        lengths += [("fresh", 1, 1, k * asked.samples)] if whole else []
        lengths += [("updates", 1, k, asked.samples // k), ("updates", k, 1, k * asked.samples)]
        lengths += [("time", 1, k, _equal_time(asked, clock, Way(asked.size, k, 1)))]
        lengths += [("time", k, 1, _equal_time(asked, clock, Way(k * asked.size, 1, 1)))]
        for kind, times, again, samples in lengths:
            way = Way(times * asked.size, again, samples)
            if LEAST_UPDATES * way.batch_size <= samples <= LONGEST * asked.samples:
                wanted.setdefault(way, []).append(kind)
    return {way: tuple(dict.fromkeys(kinds)) for way, kinds in wanted.items()}


def _equal_time(asked: Asked, clock: Clock, one: Way) -> int:
    """Samples that take as long as today's training."""
    sides = [(asked.today, asked.samples), (one, one.samples)]
    whole, each = (
        float(
            clock.yardstick(way, None, asked.prepared.examples).measure(
                "time", np.array([float(samples)]), way.batch_size
            )[0]
        )
        for way, samples in sides
    )
    return round(whole / each)


# What is trained


Key = tuple[Way, float]
Runs = dict[Key, tuple[RunResult, ...]]
"""(way, learning rate) → one run a seed."""


@dataclass(frozen=True)
class Trained:
    """Runs on the seeds that chose and on the fresh ones.

    Attributes:
        chose: Every way at every rate.
        fresh: What was chosen.
        rate: Way → rate that was best at its end.
        quickest: (batch size, re-use) → way and rate that came to the target soonest.
        target: Metric that counts as trained.
    """

    chose: Runs
    fresh: Runs
    rate: dict[Way, float]
    quickest: dict[tuple[int, int], Key]
    target: float


def _trained(
    asked: Asked, plan: Plan, folder: Path, hears: Listener
) -> tuple[Trained, dict[Key, list[float]]]:
    """Choose on some seeds, train the chosen on fresh ones; and their gaps to training data."""
    with Engine(asked.prepared, folder) as engine:
        chose, rate = _chosen(asked, engine, plan, hears)
        target = _target(asked, chose, rate[asked.today])
        quickest = _quickest(asked, chose, target)
        kept = list(dict.fromkeys([*rate.items(), *quickest.values()]))
        fresh, ends = _train(asked, engine, kept, asked.fresh, hears, "fresh repeats")
        for sentence in engine.hear():
            hears.say(sentence)
    gaps = {key: _gaps(asked, key, states) for key, states in ends.items() if key in rate.items()}
    return Trained(chose, fresh, rate, quickest, target), gaps


def _chosen(
    asked: Asked, engine: Engine, plan: Plan, hears: Listener
) -> tuple[Runs, dict[Way, float]]:
    """The best learning rate of every way on the seeds that choose; where it was the smallest or
    the largest, the next one beyond it is tried too.
    """
    chose: Runs = {}
    rate: dict[Way, float] = {}
    wanted = [(way, rate) for way in plan for rate in asked.rates(way.batch_size)]
    for _ in range(1 + WIDER):
        what = "choosing learning rates"
        chose |= _train(asked, engine, wanted, asked.choosing, hears, what)[0]
        rate = {way: _best_rate(asked, chose, way) for way in plan}
        wanted = [(way, beyond) for way in plan for beyond in _beyond(chose, way, rate[way])]
    return chose, rate


def _beyond(chose: Runs, way: Way, best: float) -> list[float]:
    """The next rate beyond the smallest or the largest tried, if that was the best."""
    tried = [rate for one, rate in chose if one == way]
    low, high = best == min(tried), best == max(tried)
    return [best / 2] * low + [best * 2] * high


def _train(
    asked: Asked,
    engine: Engine,
    keys: Sequence[Key],
    seeds: Sequence[int],
    hears: Listener,
    what: str,
) -> tuple[Runs, dict[Key, Sequence[RunState | None]]]:
    """Runs of one length at a time, since they are evaluated at the same samples."""
    runs: Runs = {}
    ends: dict[Key, Sequence[RunState | None]] = {}
    lengths = sorted({way.samples for way, _ in keys})
    for done, samples in enumerate(lengths):
        here = [key for key in keys if key[0].samples == samples]
        configs = [asked.config(way, rate, seed) for way, rate in here for seed in seeds]
        grid = evaluation_grid(asked.prepared.examples, samples)
        trace, states = engine.train(
            configs,
            Job(grid, keep_end=True),
            progress=lambda share, i=done: hears.progress(what, (i + share) / len(lengths)),
        )
        n = len(seeds)
        for i, key in enumerate(here):
            runs[key] = trace.runs[i * n : (i + 1) * n]
            ends[key] = states[i * n : (i + 1) * n]
    return runs, ends


def final(runs: Iterable[RunResult]) -> np.ndarray:
    """The metric at the end of each run, mean of its last three evaluations; NaN if it diverged.

    Args:
        runs: Of one setting.
    """
    return np.array(
        [
            math.nan
            if run.status is Status.DIVERGED
            else float(np.mean(run.series["metric"].values[-3:]))
            for run in runs
        ]
    )


def _best_rate(asked: Asked, chose: Runs, way: Way) -> float:
    """By the metric at the end, on the seeds that choose."""
    ends = {f"{rate!r}": final(runs) for (one, rate), runs in chose.items() if one == way}
    middle = repr(asked.rates(way.batch_size)[1])
    return float(choose_accuracy(ends, asked.prepared.metric.maximise, middle))


def _target(asked: Asked, chose: Runs, rate: float) -> float:
    """What four in five of today's runs reach, on the seeds that choose."""
    return default_target(final(chose[asked.today, rate]), asked.prepared.metric.maximise)


def arrivals(runs: Iterable[RunResult], target: float, maximise: bool) -> np.ndarray:
    """Samples to the target of each run, infinite if never.

    Args:
        runs: Of one setting.
        target: Metric that counts as trained.
        maximise: Direction of the metric.
    """
    found = []
    for run in runs:
        series = run.series["metric"]
        samples, values = np.asarray(series.samples, float), np.asarray(series.values)[None]
        found.append(float(times_to_target(samples, values, target, maximise)[0]))
    return np.array(found)


def _quickest(asked: Asked, chose: Runs, target: float) -> dict[tuple[int, int], Key]:
    """Of each batch size and re-use the rate that draws fewest samples to the target, in trainings
    of today's length: at another one the learning-rate schedule would be shorter too, and the
    evaluations lie elsewhere.

    For one batch size and re-use everything else is in proportion to the samples, so the choice
    is the same at every price.
    """
    groups: dict[tuple[int, int], dict[str, Key]] = {}
    for i, key in enumerate(chose):
        if key[0].samples == asked.samples:
            groups.setdefault(key[0][:2], {})[str(i)] = key
    maximise = asked.prepared.metric.maximise
    best = {}
    for pair, keys in groups.items():
        times = {name: arrivals(chose[key], target, maximise) for name, key in keys.items()}
        best[pair] = keys[choose(times)]
    return best


def _gaps(asked: Asked, key: Key, states: Sequence[RunState | None]) -> list[float]:
    """Metric on training data − metric on validation data, of the runs that did not diverge."""
    return _gap(asked.prepared, asked.config(*key, asked.seed), states)


def _gap(prepared: Prepared, config: RunConfig, states: Sequence[RunState | None]) -> list[float]:
    ended = [state for state in states if state is not None]
    both = (replace(prepared, validation=prepared.train), prepared)
    training, validation = (scores(side, config, ended) for side in both)
    return [a - b for a, b in zip(training, validation, strict=True)]


# What follows


def _report(
    asked: Asked,
    plan: Plan,
    machine: Machine,
    trained: Trained,
    gaps: Mapping[Key, list[float]],
    labels: Labels | None,
) -> ReuseReport:
    """Join what was found."""
    prepared, today = asked.prepared, asked.today
    clock = clock_of(machine, asked.size, asked.reading)
    reached, spent = _reached(asked, clock, trained)
    paid = asked.price
    money = price_of(
        clock.each(asked.size),
        clock.reading,
        None if paid is None else paid.per_hour,
        0.0 if paid is None else paid.per_sample,
    )
    return ReuseReport(
        task=prepared.task.name,
        unit=prepared.task.unit,
        metric=_metric(prepared),
        today=setting_of(asked.baseline, "today", asked.size, trained.rate[today]),
        train_examples=prepared.examples,
        validation_examples=prepared.validation.examples,
        seeds=asked.fresh,
        choosing=asked.choosing,
        factors=asked.factors,
        rows=tuple(_row(asked, clock, trained, gaps, way, kinds) for way, kinds in plan.items()),
        epochs=tuple(_against_epochs(asked, trained, k) for k in asked.factors),
        target=trained.target,
        reached=reached,
        lines=_lines(asked, clock, spent),
        seconds_per_example=clock.each(asked.size),
        computing=clock.range_of(asked.size),
        busy=clock.busy(asked.size),
        untrained=_untrained(asked, trained),
        left_out=tuple(k for k in asked.factors if k > LONGEST),
        loading=clock.loading,
        given=clock.given,
        currency=paid.currency if paid else None,
        per_hour=paid.per_hour if paid else 0.0,
        per_sample=paid.per_sample if paid else 0.0,
        price=money,
        labels=labels,
        origin=origin(prepared, "compare", Path(), 0.0, asked.seed),
    )


def _metric(prepared: Prepared) -> MetricInfo:
    metric = prepared.metric
    return MetricInfo(metric.name, metric.maximise, metric.unit)


def _row(
    asked: Asked,
    clock: Clock,
    trained: Trained,
    gaps: Mapping[Key, list[float]],
    way: Way,
    kinds: tuple[str, ...],
) -> ReuseRow:
    """One training, against today's."""
    rate, metric = trained.rate[way], asked.prepared.metric
    runs = trained.fresh[way, rate]
    values = final(runs)
    before = final(trained.fresh[asked.today, trained.rate[asked.today]])
    other = None
    if way != asked.today:
        other = paired_difference(before, values, maximise=metric.maximise, unit=metric.unit)
    yardstick = clock.yardstick(way, asked.price, asked.prepared.examples)
    gap = gaps[way, rate]
    return ReuseRow(
        kinds=kinds,
        batch_size=way.batch_size,
        reuse=way.reuse,
        times=way.batch_size // asked.size,
        epochs=way.samples // asked.samples if way[:2] == asked.today[:2] else 1,
        learning_rate=rate,
        edge=bool(_beyond(trained.chose, way, rate)),
        samples=max(run.samples for run in runs),
        processed=max(run.processed for run in runs),
        updates=max(run.updates for run in runs),
        seconds=yardstick.seconds(way.samples, way.batch_size),
        metric=centre(values, metric.maximise, metric.unit),
        difference=None if other is None else other.estimate,
        gap=mean_estimate(np.array(gap), metric.unit, "end of training") if gap else None,
        runs=len(runs),
        failed=int(np.isnan(values).sum()),
    )


def _against_epochs(asked: Asked, trained: Trained, k: int) -> Estimate | None:
    """Re-use − k epochs, at equal updates over the same labelled examples."""
    sides = Way(asked.size, 1, k * asked.samples), Way(asked.size, k, asked.samples)
    if any(way not in trained.rate for way in sides):
        return None
    epochs, again = (final(trained.fresh[way, trained.rate[way]]) for way in sides)
    metric = asked.prepared.metric
    found = paired_difference(epochs, again, maximise=metric.maximise, unit=metric.unit)
    return found.estimate


def _reached(
    asked: Asked, clock: Clock, trained: Trained
) -> tuple[tuple[Reached, ...], dict[tuple[int, int], Spent]]:
    """What each takes to the target, on the fresh seeds."""
    rows, spent = [], {}
    for (size, again), (way, rate) in trained.quickest.items():
        fresh = arrivals(trained.fresh[way, rate], trained.target, asked.prepared.metric.maximise)
        grid = evaluation_grid(asked.prepared.examples, way.samples)
        spent[size, again] = _spent(asked, clock, size, fresh * again, fresh, grid[1] - grid[0])
        yard = clock.yardstick(way, asked.price, asked.prepared.examples)
        currency = "" if asked.price is None else asked.price.currency
        paid = None if asked.price is None else yard.measure("cost", fresh, size)
        rows.append(
            Reached(
                batch_size=size,
                reuse=again,
                times=size // asked.size,
                learning_rate=rate,
                length=way.samples,
                samples=median_estimate(fresh, "examples"),
                processed=median_estimate(fresh * again, "examples"),
                updates=median_estimate(yard.updates(fresh, size), "updates"),
                seconds=median_estimate(yard.measure("time", fresh, size), "s"),
                cost=None if paid is None else median_estimate(paid, currency),
                edge=bool(_beyond(trained.chose, way, rate)),
                arrived=int(np.isfinite(fresh).sum()),
                runs=len(fresh),
            )
        )
    return tuple(rows), spent


def _spent(
    asked: Asked,
    clock: Clock,
    size: int,
    processed: np.ndarray,
    fresh: np.ndarray,
    spacing: int,
) -> Spent:
    """In units of computing one example at today's batch size; the unit's own error only counts
    for another batch size.
    """
    weight = clock.each(size) / clock.each(asked.size)
    log_var, dof = 0.0, math.inf
    if size != asked.size:
        yard = Yardstick(clock.machine, None)
        sides = [yard.spread("time", one) for one in (size, asked.size)]
        log_var = sum(var for var, _ in sides)
        dof = min(dof for _, dof in sides)
    return Spent(
        tuple(fresh.tolist()), tuple((weight * processed).tolist()), log_var, dof, float(spacing)
    )


def _untrained(asked: Asked, trained: Trained) -> bool:
    """Whether models are at the target before they are trained: then it is no more than chance."""
    rate, maximise = trained.rate[asked.today], asked.prepared.metric.maximise
    first = [run.series["metric"].values[0] for run in trained.chose[asked.today, rate]]
    return any(x >= trained.target if maximise else x <= trained.target for x in first)


def _lines(asked: Asked, clock: Clock, spent: Mapping[tuple[int, int], Spent]) -> tuple[Line, ...]:
    """Every re-use against today and against the batch k times as large; the ranges hold for all k
    together, since the best of them is what is told.

    What it costs here is in seconds or money, so that the error of timing both sides is in it, as
    far as they do not share it.
    """
    quantity = "time" if asked.price is None else "cost"

    def yard(way: tuple[int, int]) -> Yardstick:
        return clock.yardstick(Way(*way, asked.samples), asked.price, asked.prepared.examples)

    found, level = [], 1 - 0.1 / len(asked.factors)
    for k in asked.factors:
        mine = spent[asked.size, k]
        for rival in ((asked.size, 1), (k * asked.size, 1)):
            theirs = spent.get(rival)
            if theirs is None:
                continue

            def at(price: float, theirs: Spent = theirs, mine: Spent = mine) -> Paired:
                return ratio_at(theirs, mine, price, level)

            sides = (np.array(theirs.fresh), rival[0]), (np.array(mine.fresh), asked.size)
            here = yard(rival).compare(
                quantity, *sides, mine.spacing, yard((asked.size, k)), level=level
            )
            found.append(
                Line(
                    reuse=k,
                    rival=rival[0] // asked.size,
                    boundary=boundary(theirs, mine, level),
                    fresh=at(math.inf).estimate,
                    computing=at(0.0).estimate,
                    here=here.estimate,
                )
            )
    return tuple(found)


# Labels


def _labels(
    asked: Asked, best: Mapping[Way, float], folder: Path, hears: Listener
) -> Labels | None:
    """The metric over the number of labelled examples; every seed draws its own.

    The learning rates that are tried lie around the best of the same re-use on all data.
    """
    if not asked.labels:
        return None
    ways = _label_ways(asked)
    centres = {k: best[asked.today._replace(reuse=k)] for k in (1, *asked.factors)}
    tried = [(way, times * centres[way[0]]) for way in ways for times in RATES]
    chosen: dict[int, list[Passes]] = {}
    ends: Ends = {}
    today: list[float] = []
    for i, count in enumerate(asked.labels):
        hears.progress("labelled examples", i / len(asked.labels))
        chose = _over(asked, count, asked.choosing, tried, folder)
        chosen[count] = [_best_of(asked, chose, way, centres[way[0]]) for way in ways]
        fresh = _over(asked, count, asked.fresh, chosen[count], folder)
        ends |= {(count, way): fresh[way, rate] for way, rate in chosen[count]}
        today = [value for value, _ in chose[chosen[count][0]]]
    level = default_target(np.array(today), asked.prepared.metric.maximise)
    return _labels_found(asked, chosen, ends, level, centres)


Passes = tuple[tuple[int, int], float]
"""((re-use, epochs / today's), learning rate)."""
Ends = dict[tuple[int, tuple[int, int]], list[tuple[float, float]]]
"""(labels, (re-use, epochs)) → metric and gap of each seed."""


def _over(
    asked: Asked, count: int, seeds: Sequence[int], keys: Sequence[Passes], folder: Path
) -> dict[Passes, list[tuple[float, float]]]:
    """Metric and gap of every seed."""
    each = [_on_labels(asked, count, seed, keys, folder) for seed in seeds]
    return {key: [one[key] for one in each] for key in keys}


def _best_of(
    asked: Asked,
    chose: Mapping[Passes, list[tuple[float, float]]],
    way: tuple[int, int],
    usual: float,
) -> Passes:
    """The best learning rate on the seeds that choose."""
    tried = {
        repr(rate): np.array([value for value, _ in found])
        for (one, rate), found in chose.items()
        if one == way
    }
    return way, float(choose_accuracy(tried, asked.prepared.metric.maximise, repr(usual)))


def _on_labels(
    asked: Asked,
    count: int,
    seed: int,
    keys: Sequence[Passes],
    folder: Path,
) -> dict[Passes, tuple[float, float]]:
    """Metric and gap at the end of trainings on one draw of labelled examples."""
    part = subset_of(asked.prepared, count, seed)
    samples = -(-asked.samples * count // asked.prepared.examples)
    found: dict[Passes, tuple[float, float]] = {}
    with Engine(part, folder / "labels", workers=0) as engine:
        for epochs in sorted({e for (_, e), _ in keys}):
            here = [key for key in keys if key[0][1] == epochs]
            configs = [
                asked.config(Way(asked.size, k, epochs * samples), rate, seed)
                for (k, _), rate in here
            ]
            job = Job(evaluation_grid(part.examples, epochs * samples), keep_end=True)
            trace, states = engine.train(configs, job)
            for key, config, run, state in zip(here, configs, trace.runs, states, strict=True):
                gap = _gap(part, config, [state])
                found[key] = float(final([run])[0]), gap[0] if gap else math.nan
    return found


def _labels_found(
    asked: Asked,
    chosen: Mapping[int, Sequence[Passes]],
    ends: Ends,
    level: float,
    centres: Mapping[int, float],
) -> Labels:
    """The curves, and how many labels each re-use saves at today's level."""
    metric = asked.prepared.metric
    rows = [
        _labelled(asked, count, key, ends[count, key[0]], _at_edge(centres, key))
        for count, keys in chosen.items()
        for key in keys
    ]
    needed = {
        way: labels_to(
            asked.labels,
            np.array([[value for value, _ in ends[count, way]] for count in asked.labels]),
            level,
            metric.maximise,
        )
        for way, _ in chosen[asked.labels[0]]
    }
    saved = [
        Saved(
            k,
            epochs,
            median_estimate(needed[1, epochs], "examples"),
            median_estimate(needed[k, 1], "examples"),
            paired_log_ratio(needed[1, epochs], needed[k, 1]).estimate,
        )
        for k in asked.factors
        for epochs in (1, k)
    ]
    return Labels(level, asked.labels, tuple(rows), tuple(saved))


def _at_edge(centres: Mapping[int, float], key: Passes) -> bool:
    """Whether the rate is the smallest or the largest tried."""
    (reuse, _), rate = key
    return rate in (min(RATES) * centres[reuse], max(RATES) * centres[reuse])


def _labelled(
    asked: Asked, count: int, key: Passes, found: Sequence[tuple[float, float]], edge: bool
) -> Labelled:
    """One point of a curve."""
    metric = asked.prepared.metric
    values, gaps = (np.array(side) for side in zip(*found, strict=True))
    known = gaps[np.isfinite(gaps)]
    gap = mean_estimate(known, metric.unit) if known.size else None
    middle = centre(values, metric.maximise, metric.unit)
    return Labelled(count, *key[0], key[1], middle, gap, edge)
