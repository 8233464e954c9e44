"""``critical``: the critical batch size by branching, over training, against the noise scale."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from batchlab import _platform
from batchlab.advisor.journal import Journal, parse_seconds
from batchlab.advisor.options import Options
from batchlab.advisor.screen import time_evaluation
from batchlab.advisor.session import (
    WORKER_START_SECONDS,
    Listener,
    Session,
    Stopwatch,
    one_batch_size,
    over_workers,
)
from batchlab.advisor.stages import Machine
from batchlab.app.advise import _refuse_torchrun, default_out, found
from batchlab.app.measure import origin, together, write
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, RunState
from batchlab.engine.cell import one_thread
from batchlab.engine.choice import Effort, effort_of, slots_of, timings
from batchlab.engine.job import to_device
from batchlab.engine.loop import loaded
from batchlab.engine.step import DTYPES
from batchlab.engine.store import collect
from batchlab.errors import InvalidValueError, must
from batchlab.measure.critical import (
    MARGIN,
    Branching,
    CriticalPoint,
    DivergedError,
    check_margin,
    plan_branching,
    point,
)
from batchlab.measure.noise import COST, EXAMPLES, NoiseResult, measure_noise
from batchlab.progress import listening
from batchlab.report import measured
from batchlab.report.critical import DIVERGED, CriticalPrice, CriticalReport
from batchlab.report.findings import setting_of
from batchlab.tasks import Prepared, Task, prepare
from batchlab.tasks.subset import subset_of

States = Mapping[int, RunState | None]
"""Seed → where its trunk stands, None at its beginning."""
ONE_SIZE = "critical tries multiples of one batch size."


def critical(
    task: Task | str,
    *,
    at: Sequence[str | int] | None = None,
    factors: Sequence[int] | None = None,
    window: str | int | None = None,
    margin: float = MARGIN,
    scaling: str | None = None,
    seeds: int = 5,
    budget: str | float | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    subset: str | float | None = None,
    resume: bool = False,
    listener: Listener | None = None,
) -> CriticalReport:
    """Find the critical batch size by branching: up to which size as many examples teach as much.

    One trunk a seed trains with today's settings. At each place branches leave it: with k times
    the batch and the learning rate scaled to it they go on over the same examples, as many for
    every k, from the same weights and the same state of the optimiser. They are judged by the
    validation loss in evaluation mode, its mean over the second half of the branch, against k = 1
    of the same seed. The critical batch size is the largest whose loss is not above that of k = 1
    by more than the margin, see :func:`batchlab.measure.critical.critical_batch`. The noise scale
    is measured at the same weights.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        at: Places, such as ``"10%"`` of the training, ``"2ep"`` or samples; five on a logarithmic
            scale from 1 % on if left out.
        factors: k beside 1; powers of two up to 64, as far as a branch has 8 updates, if left out.
        window: Length of a branch, such as ``"2ep"``; ``"20%"`` of the training if left out.
        margin: Share by which a loss may be higher and still counts as equal; another one judges
            anew what was trained.
        scaling: ``linear``, ``sqrt`` or ``none``: the learning rate of k times the batch. Left
            out: linear for the SGD family, the root for others.
        seeds: Trunks, at least 2; with fewer than 5, a size at which a run diverges cannot be
            shown to be too large.
        budget: ``90s``, ``2m``, ``1h`` or seconds; places that it does not pay for are left out.
        out: Result directory; by default ``batchlab-results/critical-<task>``.
        seed: The first seed.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        data: Folder with the data of a built-in task.
        subset: Part of the training data, such as ``"10%"``; all of it if left out.
        resume: Go on with an unfinished directory; what has been trained is not trained again.
        listener: Hears progress.

    Returns:
        A record whose ``str`` is a table; ``critical.json``, ``critical.html``, ``runs.parquet``
        and ``metrics.parquet`` are written.

    Raises:
        UserError: With one sentence about what is wrong.

    Source:
        merrill2025.
    """
    began = time.perf_counter()
    limit = None if budget is None else parse_seconds(budget)
    given = {"at": at, "factors": factors, "window": window, "scaling": scaling}
    asked = _asked(task, given, margin, seeds, seed, device, data, subset)
    folder = Path(out) if out is not None else default_out("critical", asked.task)
    with listening(listener, limit) as hears, _platform.DirectoryLock(folder):
        journal = Journal(folder, asked.identity() | {"budget": limit}, resume, hears.say)
        journal.plan("critical", asdict(asked.plan))
        points, ended = _measured(asked, journal, hears, limit, began)
        made = origin(asked.prepared, "critical", folder, journal.spent, seed)
        report = CriticalReport.of(
            asked.prepared.task.name,
            asked.prepared.task.unit,
            setting_of(asked.plan.baseline, "today", asked.plan.batch_size, asked.rate),
            asked.prepared.examples,
            asked.prepared.validation.examples,
            asked.plan,
            margin,
            points,
            replace(made, created=journal.measured),
            ended,
        )
        write(folder / "critical.json", report)
        _platform.write_whole(folder / "critical.html", measured.critical_page(report))
        collect(folder)
        if not report.missing or ended:
            journal.finish()
    return report


def price(
    task: Task | str,
    *,
    at: Sequence[str | int] | None = None,
    factors: Sequence[int] | None = None,
    window: str | int | None = None,
    margin: float = MARGIN,
    scaling: str | None = None,
    seeds: int = 5,
    budget: str | float | None = None,
    seed: int = 0,
    device: str = "auto",
    data: str | Path | None = None,
    subset: str | float | None = None,
) -> CriticalPrice:
    """What :func:`critical` would train and how long that takes, from short timings; nothing is
    kept.

    Args:
        task: As for :func:`critical`, like the rest.
        at: Places.
        factors: k beside 1.
        window: Length of a branch.
        margin: Only checked.
        scaling: Of the learning rate.
        seeds: Trunks.
        budget: For how many places it pays.
        seed: The first seed.
        device: Where it would run.
        data: Folder with the data of a built-in task.
        subset: Part of the training data.
    """
    limit = None if budget is None else parse_seconds(budget)
    given = {"at": at, "factors": factors, "window": window, "scaling": scaling}
    asked = _asked(task, given, margin, seeds, seed, device, data, subset)
    with listening(None) as hears, Engine(asked.prepared, None) as engine:
        session = _session(asked, engine, hears, limit)
        return _price(Prices.timed(session, asked.plan))


@dataclass(frozen=True)
class Asked:
    """A measurement as it will be made.

    Attributes:
        task: The task.
        prepared: The same, with its data.
        plan: What is trained.
        margin: By which it is judged.
    """

    task: Task
    prepared: Prepared
    plan: Branching
    margin: float

    @property
    def rate(self) -> float:
        """Today's learning rate."""
        return self.plan.baseline.learning_rate or 0.0

    def identity(self) -> dict[str, object]:
        """What must be the same for a result to be continued; the margin judges anew."""
        task = self.prepared.task
        return {
            "command": "critical",
            "task": task.origin or task.name,
            "examples": self.prepared.examples,
            "validation": self.prepared.validation.examples,
            "device": self.prepared.device,
            **asdict(self.plan),
        }


def _asked(
    task: Task | str,
    given: Mapping[str, Any],
    margin: float,
    seeds: int,
    seed: int,
    device: str,
    data: str | Path | None,
    subset: str | float | None,
) -> Asked:
    """The task and the plan, checked."""
    check_margin(margin)
    _refuse_torchrun()
    loaded_task, _ = found(task, data)
    prepared = subset_of(prepare(loaded_task, device=device), subset, seed)
    baseline = prepared.baseline.replace(batch_size=one_batch_size(prepared.baseline, ONE_SIZE))
    plan = plan_branching(baseline, prepared.examples, seeds=seeds, seed=seed, **given)
    return Asked(loaded_task, prepared, plan, margin)


def _measured(
    asked: Asked, journal: Journal, hears: Listener, limit: float | None, began: float
) -> tuple[tuple[CriticalPoint, ...], str]:
    """Every place that the budget pays for and today's settings reach, and the code of what ended
    it otherwise; what it took is written down however it ends.
    """
    points, ended = list[CriticalPoint](), ""
    machine = journal.load("machine", Machine)
    with Engine(asked.prepared, journal.out) as engine:
        session = _session(asked, engine, hears, limit, machine)
        session.began, session.earlier_seconds = began, journal.spent
        pace = journal.load("pace", Pace)
        if machine is None or pace is None:
            prices = Prices.timed(session, asked.plan)
            journal.save("machine", session.machine())
            journal.save("pace", prices.pace)
        else:
            prices = Prices(session, asked.plan, pace)
        if not journal.finished:
            hears.say(str(_price(prices)))
        try:
            points.extend(_points(prices, asked, journal))
        except DivergedError as error:
            if not points:
                raise
            hears.say(str(error))
            ended = DIVERGED
        finally:
            if not journal.finished:
                journal.note(session.elapsed, {}, ())
    if not points:
        least = f"at least about {session.elapsed + prices.of(0):.0f}s"
        hint = "So long take the branches from the first place. Add --resume."
        raise InvalidValueError(must("budget", least, f"{limit:g}s", hint))
    return tuple(points), ended


def _session(
    asked: Asked,
    engine: Engine,
    hears: Listener,
    limit: float | None,
    machine: Machine | None = None,
) -> Session:
    """Prices and trains."""
    stopwatch = Stopwatch(asked.prepared, 1, machine.blocks if machine else None)
    options = Options(budget=limit, seed=asked.plan.seeds[0])
    return Session(asked.prepared, options, engine, hears, stopwatch, began=time.perf_counter())


@dataclass(frozen=True)
class Pace:
    """How fast the engine trains the seeds of one size.

    Attributes:
        evaluation: Seconds of one evaluation of one run.
        updates: Factor (as text, for JSON) → seconds of one update of one run.
        stacked: Factors whose seeds train as one stack, on one worker; others one by one.
    """

    evaluation: float
    updates: dict[str, float]
    stacked: tuple[str, ...]


@dataclass(frozen=True)
class Prices:
    """What trunks and branches take.

    Attributes:
        session: Trains.
        plan: What is trained.
        pace: How fast.
    """

    session: Session
    plan: Branching
    pace: Pace

    @classmethod
    def timed(cls, session: Session, plan: Branching) -> Prices:
        """From short timings: the ways in which the engine would train, on the real shapes."""
        time_evaluation(session)
        session.visit([plan.batch_size])
        updates, stacked = {}, []
        for factor in (1, *plan.factors):
            session.listener.progress("timing", factor / plan.factors[-1])
            way, updates[str(factor)] = _timed(session, plan, factor)
            stacked += [str(factor)] if way != "loop" else []
        return cls(session, plan, Pace(session.evaluation_seconds, updates, tuple(stacked)))

    def of(self, i: int) -> float:
        """Seconds of the trunk up to a place and of its branches."""
        begin, end = (0, *self.plan.places)[i : i + 2]
        cold = self.session.engine.workers >= 2 and not i
        start = WORKER_START_SECONDS if cold else 0.0
        return start + self._wall([1], end - begin, 1) + self.branches(end)

    def branches(self, place: int) -> float:
        """Seconds of the branches from a place, and of the noise scale there."""
        plan, session = self.plan, self.session
        noise = COST * session.run_seconds(plan.batch_size, len(plan.seeds) * EXAMPLES)
        factors = (1, *plan.factors)
        return noise + self._wall(factors, plan.window, len(plan.moments(place)))

    def _wall(self, factors: Sequence[int], samples: int, evaluations: int) -> float:
        cells = [one for factor in factors for one in self._cells(factor, samples, evaluations)]
        return over_workers(cells, self.session.engine.workers)

    def _cells(self, factor: int, samples: int, evaluations: int) -> list[float]:
        """Seconds of each piece of work of one size."""
        plan, name = self.plan, str(factor)
        updates = plan.baseline.reuse * samples / (factor * plan.batch_size)
        each = updates * self.pace.updates[name] + evaluations * self.pace.evaluation
        seeds = len(plan.seeds)
        return [seeds * each] if name in self.pace.stacked else [each] * seeds


def _timed(session: Session, plan: Branching, factor: int) -> tuple[str, float]:
    """The way in which the seeds of one size are trained, and seconds of an update of one run.

    As the engine does, a training that is not worth timing goes by rule.
    """
    configs = [plan.config(factor, seed) for seed in plan.seeds]
    prepared, capability = session.prepared, session.engine.capability(configs[0])
    together = capability.stackable and not configs[0].accumulates
    slots = slots_of(prepared, len(configs)) if together else []
    with one_thread(prepared.device):
        found, _ = timings(prepared, configs, capability, slots, Effort.TIMED)
    size = factor * plan.batch_size
    updates = len(configs) * plan.baseline.reuse * (plan.window // size)
    by_rule, _ = capability.executor(size)
    ways = list(found)
    if effort_of(capability, size, updates, slots) is Effort.NONE:
        ways = [way for way in ways if way.partition(" ")[0] == by_rule] or ["loop"]
    best = min(ways, key=lambda way: found[way])
    return best, found[best]


def _price(prices: Prices) -> CriticalPrice:
    session, plan = prices.session, prices.plan
    return CriticalPrice(
        session.prepared.task.name,
        session.prepared.task.unit,
        plan,
        session.samples,
        tuple(prices.of(i) for i in range(len(plan.places))),
        session.options.budget,
    )


def _points(prices: Prices, asked: Asked, journal: Journal) -> Iterator[CriticalPoint]:
    """Place by place: the trunk goes on to it, then its branches."""
    session, plan = prices.session, asked.plan
    states: States = dict.fromkeys(plan.seeds)
    for i, place in enumerate(plan.places):
        what = f"place {i + 1} of {len(plan.places)}"
        trunk = _configs(plan, (1,), states), Job((), keep_end=True, until=place)
        if not _pays(session, *trunk, list(states.values()), prices.of(i)):
            break
        states = _went_on(session, f"{what}: trunk", *trunk, states)
        branches = _configs(plan, (1, *plan.factors), states), plan.job(place)
        starts = list(states.values()) * (1 + len(plan.factors))
        if not _pays(session, *branches, starts, prices.branches(place)):
            break
        noise = _noise(session, f"{what}: noise scale", asked, place, states, journal)
        trace, _ = session.train(f"{what}: branches", *branches, starts)
        yield point(plan, place, _by_factor(plan, trace.runs), noise, asked.margin)


def _configs(plan: Branching, factors: Sequence[int], states: States) -> list[RunConfig]:
    return [plan.config(factor, seed) for factor in factors for seed in states]


def _by_factor(plan: Branching, runs: Sequence[RunResult]) -> dict[int, Sequence[RunResult]]:
    every = (1, *plan.factors)
    seeds = len(runs) // len(every)
    return {factor: runs[i * seeds : (i + 1) * seeds] for i, factor in enumerate(every)}


def _pays(
    session: Session,
    configs: Sequence[RunConfig],
    job: Job,
    starts: Sequence[RunState | None],
    seconds: float,
) -> bool:
    """Whether the budget pays for what comes next, or it has been trained before."""
    return session.left >= seconds or session.engine.keeps(configs, job, starts)


def _went_on(
    session: Session, what: str, configs: Sequence[RunConfig], job: Job, states: States
) -> States:
    """The trunks at the next place; one that diverges leads nowhere."""
    _, ends = session.train(what, configs, job, list(states.values()))
    found = {seed: end for seed, end in zip(states, ends, strict=True) if end is not None}
    for seed in states:
        if seed not in found:
            session.listener.say(f"today's settings diverged with seed {seed}: it is left out")
    if len(found) < 2:
        raise DivergedError(
            f"Today's settings diverged before sample {job.until} in all trainings but "
            f"{len(found)}: nothing can be compared."
        )
    return found


def _noise(
    session: Session, what: str, asked: Asked, place: int, states: States, journal: Journal
) -> NoiseResult | None:
    """The noise scale over all trunks at a place, measured once."""
    name = f"noise-{place}"
    known = journal.load(name, NoiseResult)
    if known is not None:
        return known
    found = []
    for i, (seed, state) in enumerate(states.items()):
        session.listener.progress(what, i / len(states))
        assert state is not None
        found.append(_noise_of(asked.prepared, asked.plan.config(1, seed), state))
    pooled = together(found)
    if pooled is not None:
        journal.save(name, pooled)
    return pooled


def _noise_of(prepared: Prepared, config: RunConfig, state: RunState) -> NoiseResult:
    """The noise scale of one trunk; its seed names the examples drawn."""
    dtype = DTYPES[config.precision]
    objective = prepared.objective(config.seed, dtype, config.gamma).train()
    here = loaded(objective, to_device(state.progress, prepared.device))
    with one_thread(prepared.device):
        return measure_noise(here, prepared, config, samples=state.samples, seed=config.seed)
