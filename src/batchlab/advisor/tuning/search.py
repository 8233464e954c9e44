"""The search over all settings: generations of proposals, each trained by successive halving."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from batchlab.advisor import strength
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.pilot import burden
from batchlab.advisor.project import LEAST_UPDATES, worth_searching
from batchlab.advisor.session import Session
from batchlab.advisor.stages import (
    Choice,
    Curve,
    Pace,
    Screening,
    Trial,
    Tuned,
    Tuning,
    others_of,
    pace_of,
)
from batchlab.advisor.tuning import space
from batchlab.advisor.tuning.halving import effort, moments, promoted, rungs_of
from batchlab.advisor.tuning.propose import Told, importance, propose
from batchlab.advisor.tuning.space import Axis, Given
from batchlab.config import RunConfig
from batchlab.engine import Job, RunState
from batchlab.measure.throughput import Block
from batchlab.types import Status

STACKED, ALONE = (3, 4), (6, 1)
"""Leads and siblings of a generation where runs train in stacks, and where they train alone."""
MOST_GENERATIONS = 40
USUAL_GENERATIONS = 4
"""For pricing."""
BEST = 4
"""Settings that a search hands on."""
TODAY = 0
"""Number of today's settings in the first generation."""


@dataclass(frozen=True)
class TuningPlan:
    """The plan of the search.

    Attributes:
        names: What is tuned.
        axes: The space.
        sizes: Batch sizes that may be proposed.
        rungs: Samples at which each rung ends.
        first: Settings of the first generation, today's at the beginning.
        leads: Settings of a later generation that are proposed freely.
        siblings: Settings with each of them that share what a stack has to share.
        seed: Of every training and, with the generation, of every proposal.
        rates: Batch size (as text) → seconds per update by which settings are compared.
        wrapped_rates: The same with a γ; empty where none is tuned, or today's model has one.
        depth: L of the law of γ; 1 where none is tuned.
    """

    names: tuple[str, ...]
    axes: tuple[Axis, ...]
    sizes: tuple[int, ...]
    rungs: tuple[int, ...]
    first: tuple[dict[str, Any], ...]
    leads: int
    siblings: int
    seed: int
    rates: dict[str, float]
    wrapped_rates: dict[str, float] = field(default_factory=dict)
    depth: int = 1

    def given(self, session: Session) -> Given:
        """What the ranges depend on."""
        return Given(session.baseline, self.sizes, self.depth)

    def proposed(self, number: int, told: Sequence[Told]) -> list[dict[str, Any]]:
        """The settings of a generation: a function of the plan and of what was found."""
        if number == 0:
            return list(self.first)
        seed = 1000 * self.seed + number
        return propose(self.axes, told, leads=self.leads, siblings=self.siblings, seed=seed)


def plan_tuning(session: Session, screening: Screening) -> TuningPlan:
    """What the search does, before anything is trained.

    Args:
        session: The advice in the making.
        screening: Stage A.
    """
    names, no_gamma = _names(session)
    if no_gamma:
        session.listener.say(f"γ is not tuned: the model cannot be trained with one: {no_gamma}")
    depth = strength.depth(session.prepared) if "gamma" in names else 1
    given = Given(session.baseline, _sizes(session, screening, names), depth)
    axes = space.space(names, given)
    session.visit(given.sizes)
    wrapped = "gamma" in names and session.baseline.gamma is None
    if wrapped:
        session.visit(given.sizes, wrapped=True)
    stacks = session.engine.capability(session.baseline).executor(session.batch_size)[0]
    leads, siblings = STACKED if stacks == "stacked" else ALONE
    return TuningPlan(
        names,
        axes,
        given.sizes,
        _rungs(session, max(given.sizes)),
        space.first(axes, given),
        leads,
        siblings,
        session.options.seed,
        {str(size): session.stopwatch.rate(size) for size in given.sizes},
        {str(size): session.stopwatch.rate(size, True) for size in given.sizes if wrapped},
        depth,
    )


def _sizes(session: Session, screening: Screening, names: Sequence[str]) -> tuple[int, ...]:
    """Today's batch size and, where it is tuned, what was asked for, else the powers of two in the
    range that the ordinary advice searches.
    """
    found = worth_searching(session, screening) if "batch_size" in names else []
    if session.options.batch_sizes is None and found:
        ends = math.ceil(math.log2(min(found))), math.floor(math.log2(max(found)))
        found = [2**k for k in range(ends[0], ends[1] + 1)]
    return tuple(sorted({*found, session.batch_size}))


def price(session: Session) -> float:
    """What a search usually takes, before anything but today's batch size is timed; with γ, which
    nearly every setting then has, that is timed too.
    """
    rungs, (leads, siblings) = _rungs(session, session.batch_size), STACKED
    evaluations = len(moments(rungs))
    run = _usual_pace(session), round(effort(rungs)), evaluations // len(rungs)
    runs = [run] * (USUAL_GENERATIONS * leads * siblings)
    return session.wall_seconds([*runs, (session.batch_size, session.samples, evaluations)])


def _names(session: Session) -> tuple[tuple[str, ...], str]:
    """What is tuned, and why γ is left out of ``all``, if it is."""
    asked, rule = session.options.tune, session.baseline.rule
    return space.names_in(asked, rule, lambda: session.no_gamma)


def _usual_pace(session: Session) -> Pace:
    """Today's batch size, with a γ where that is tuned."""
    names, _ = _names(session)
    size = session.batch_size
    if "gamma" not in names or session.baseline.gamma is not None:
        return size
    if not session.stopwatch.wrapped:
        session.visit([size], wrapped=True)
    return Tuned(size, session.learning_rate, (("gamma", 1.0),))


def _rungs(session: Session, largest: int) -> tuple[int, ...]:
    """Rungs of which the first has enough updates of today's batch, and half as many of the
    largest.
    """
    least = max(LEAST_UPDATES * session.batch_size, LEAST_UPDATES // 2 * largest)
    return rungs_of(session.samples, least)


def seconds_of(session: Session, plan: TuningPlan, asked: Sequence[Mapping[str, Any]]) -> float:
    """What a generation takes on the average.

    Args:
        session: The advice in the making.
        plan: The plan.
        asked: Its settings.
    """
    given = plan.given(session)
    count, samples = len(moments(plan.rungs)), round(effort(plan.rungs))
    paces = [pace_of(space.choice(plan.axes, values, given)) for values in asked]
    runs = [(pace, samples, count // len(plan.rungs)) for pace in paces]
    if asked and asked[0] == plan.first[0]:
        runs.append((session.batch_size, session.samples, count))
    return session.wall_seconds(runs)


def seconds_of_first(session: Session, plan: TuningPlan) -> float:
    """What the first generation takes."""
    return seconds_of(session, plan, plan.first)


def tune(
    session: Session,
    journal: Journal,
    plan: TuningPlan,
    known: Tuning | None,
    left: Callable[[], float],
) -> Iterator[Tuning]:
    """Run the search, generation by generation.

    Args:
        session: The advice in the making.
        journal: Keeps what each generation asks, before it is trained.
        plan: The plan.
        known: What an earlier process has found.
        left: Seconds that are left for it.

    Yields:
        What was found so far, after every generation; the last one has ended. Nothing where
        today's settings diverge.
    """
    race = _Race(session, plan, known)
    for number in range(race.generations, MOST_GENERATIONS):
        asked = _asked(session, journal, plan, race, number, left())
        if not asked:
            break
        race.run(number, asked)
        if race.today is None or race.today.status is Status.DIVERGED:
            return
        yield race.found()
    if race.today is not None:
        yield race.found(ended=True)


def _asked(
    session: Session,
    journal: Journal,
    plan: TuningPlan,
    race: _Race,
    number: int,
    seconds: float,
) -> Sequence[Mapping[str, Any]]:
    """The settings of a generation, written down before they train; none where they are not paid
    for, of which the first was assured before.
    """
    name = f"T{number}"
    written = journal.plan(name)
    if written is not None:
        return written["asked"]
    asked = plan.proposed(number, race.told)
    if number and seconds_of(session, plan, asked) > seconds:
        return ()
    journal.plan(name, {"asked": asked})
    return asked


class _Race:
    """The trials so far, today's settings among them."""

    def __init__(self, session: Session, plan: TuningPlan, known: Tuning | None) -> None:
        self.session, self.plan = session, plan
        self.given = plan.given(session)
        self.trials: list[Trial] = [] if known is None else list(known.trials)
        self.today: Curve | None = None if known is None else known.today
        self.yardstick = _yardstick(session, plan)

    @property
    def generations(self) -> int:
        """Generations that have ended."""
        return 1 + max((trial.generation for trial in self.trials), default=-1)

    @property
    def told(self) -> list[Told]:
        """What the next proposal may know."""
        return [Told(t.values, t.value, t.status) for t in self.trials]

    def run(self, number: int, asked: Sequence[Mapping[str, Any]]) -> None:
        """Train a generation, rung by rung: what is promoted goes on from where it was."""
        curves: dict[int, Curve] = {}
        states: dict[int, RunState | None] = {}
        scores: dict[int, list[float]] = {i: [] for i in range(len(asked))}
        going = list(range(len(asked)))
        for rung in range(len(self.plan.rungs)):
            self._rung(number, rung, {i: asked[i] for i in going}, curves, states)
            if number == 0:
                self.today = curves[TODAY]
            here = {i: self._value(curves[i], rung) for i in going}
            for i, value in here.items():
                scores[i].append(value)
            earlier = [t.scores[rung] for t in self.trials if t.rung >= rung]
            going = promoted(here, earlier)
            if number == 0 and curves[TODAY].status is not Status.DIVERGED:
                going = sorted({TODAY, *going})
            if not going:
                break
        self.trials += [
            Trial(dict(values), number, tuple(scores[i]), curves[i].status)
            for i, values in enumerate(asked)
        ]

    def _rung(
        self,
        number: int,
        rung: int,
        asked: Mapping[int, Mapping[str, Any]],
        curves: dict[int, Curve],
        states: dict[int, RunState | None],
    ) -> None:
        """Train some settings from the end of the last rung to the end of this one."""
        rungs, last = self.plan.rungs, rung + 1 == len(self.plan.rungs)
        choices = {
            i: space.choice(self.plan.axes, values, self.given) for i, values in asked.items()
        }
        configs = [self._config(choice) for choice in choices.values()]
        until = None if last else rungs[rung]
        job = Job(_upto(moments(rungs), rungs[rung]), keep_end=not last, until=until)
        starts = [states.get(i) for i in asked] if rung else None
        what = f"search, generation {number + 1}, part {rung + 1} of {len(rungs)}"
        trace, ends = self.session.train(what, configs, job, starts)
        for i, run, end in zip(asked, trace.runs, ends, strict=True):
            later = Curve.of(run, choices[i][0], rung, others=others_of(choices[i]))
            curves[i] = curves[i].joined(later) if i in curves else later
            states[i] = end

    def _config(self, choice: Choice) -> RunConfig:
        return self.session.of(choice, self.plan.seed)

    def _value(self, curve: Curve, rung: int) -> float:
        """What a setting takes against today's, both up to the end of this rung."""
        assert self.today is not None
        today = until(self.today, self.plan.rungs[rung])
        maximise = self.session.prepared.metric.maximise
        return burden(curve, today, self.yardstick, self.session.options.objective, maximise)

    def found(self, ended: bool = False) -> Tuning:
        """The record so far; what matters is asked at the end only."""
        assert self.today is not None
        plan, last = self.plan, len(self.plan.rungs) - 1
        whole = [t for t in self.trials[1:] if t.rung == last and math.isfinite(t.value)]
        best = sorted(whole, key=lambda t: t.value)[:BEST]
        choices = (space.choice(plan.axes, t.values, self.given) for t in best)
        matters = importance(plan.axes, self.told, plan.seed) if ended else {}
        return Tuning(
            plan.names,
            plan.rungs,
            tuple(self.trials),
            self.today,
            tuple(map(tuple, choices)),
            matters,
            ended,
        )


def _upto(grid: Sequence[int], end: int) -> tuple[int, ...]:
    return tuple(moment for moment in grid if moment <= end)


def until(curve: Curve, samples: int) -> Curve:
    """A curve up to so many samples and the evaluation right after them.

    Args:
        curve: The curve.
        samples: Where it is cut.
    """
    count = 1 + int(np.searchsorted(curve.samples, samples))
    return replace(
        curve,
        samples=curve.samples[:count],
        updates=curve.updates[:count],
        loss=curve.loss[:count],
        metric=curve.metric[:count],
    )


def _yardstick(session: Session, plan: TuningPlan) -> Yardstick:
    """Turns samples into the objective by the speeds of the plan: the same in every process."""
    blocks, wrapped = (
        {size: (Block(int(size), 1, rate, 0.0, 0),) for size, rate in rates.items()}
        for rates in (plan.rates, plan.wrapped_rates)
    )
    options, reuse = session.options, session.baseline.reuse
    examples, reading = session.prepared.examples, options.seconds_per_sample
    machine = replace(session.machine(), fit=None, blocks=blocks, wrapped=wrapped)
    return Yardstick(machine, options.price, reuse, examples, reading)
