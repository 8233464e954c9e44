"""Before stage C: which batches that grow are worth a confirmation.

One run of today's settings, with the noise scale measured on the way, turns every rule for growing
into a schedule (:mod:`batchlab.advisor.growing`). Each schedule is then trained with each growth
of the learning rate, under today's learning-rate schedule and at a constant rate, on tuning seeds
that nothing else uses; the best are repeated, and the best of these join the finalists. Where the
budget does not pay for whole trainings the pilot is shorter, and its schedules with it: they are
shares of a training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from batchlab.advisor.growing import (
    POWERS,
    Point,
    Steps,
    at_fixed_progress,
    first_size,
    ladder,
    lemma_prefers,
    rules_for,
    written,
)
from batchlab.advisor.judge import Projected, Yardstick, final_metric
from batchlab.advisor.project import LEAST_FALL, LEAST_UPDATES, end_loss, samples_to
from batchlab.advisor.screen import noise_along
from batchlab.advisor.session import Session
from batchlab.advisor.stages import (
    Choice,
    Curve,
    Grown,
    Pilot,
    Projection,
    choice_of,
    others_of,
)
from batchlab.engine import Job, evaluation_grid
from batchlab.errors import UserError
from batchlab.measure.insight import curvature_seconds
from batchlab.measure.noise import COST, EXAMPLES, NoiseResult, noise_probe
from batchlab.measure.smoothness import measure_constants
from batchlab.theory.growing import RULES as RULES_PROVED
from batchlab.types import Status

TUNING = 50
"""Tuning seeds are seed + 50, …; the search used seed, …, the choice uses seed + 100, …"""
SEEDS, KEPT = 3, 4
"""Tuning seeds, and how many settings go on to the second and third of them."""
MOST = 2
"""Batches that grow among the finalists, at most."""
SHARES = (1.0, 0.5, 0.25)
"""Lengths of the pilot that are tried, as shares of a whole training."""
PROBES = 12
MOMENTS = 2
"""Moments of a pass at which L, σ² and Δ are measured."""
RULES = 5
"""Rules for growing, for pricing: some may give the same schedule, or none."""
BESIDE = "today's settings beside them"
"""What today's runs of a pilot are called while they train."""
NO_ROOM, TOO_SHORT, FAILED, BUDGET = "no room", "too short", "failed", "budget"


Setting = TypeVar("Setting", bound=Choice)


@dataclass(frozen=True)
class PilotPlan:
    """The plan of the pilot.

    Attributes:
        first: The small useful batch, examples.
        learning_rate: Its tuned rate.
        cap: Largest batch, examples.
        samples: Length of a run.
        seeds: Tuning seeds.
        powers: Growths of the learning rate.
        schedules: Learning-rate schedules.
        lemma: Whether L, σ² and Δ are measured, for the growth of the rate that the lemma prefers.
    """

    first: int
    learning_rate: float
    cap: int
    samples: int
    seeds: tuple[int, ...]
    powers: tuple[float, ...]
    schedules: tuple[str, ...]
    lemma: bool = False

    def typical(self, examples: int) -> str:
        """A schedule of the kind it tries, for pricing."""
        steps = at_fixed_progress(ladder(self.first, self.cap))
        return written(steps, self.samples, examples)


def plan_pilot(
    session: Session, projection: Projection, rows: Sequence[Projected], seconds: float
) -> PilotPlan | Pilot:
    """The longest pilot that fits.

    Args:
        session: The advice in the making.
        projection: Stage B.
        rows: What it says of every batch size, in samples.
        seconds: What the pilot may take.

    Returns:
        The plan, or a record that says why there is none.
    """
    maximise = session.prepared.metric.maximise
    first = first_size({row.batch_size: row.burden("samples", maximise) for row in rows})
    if first is None:
        return Pilot(FAILED)
    cap = largest(session)
    if len(ladder(first, cap)) < 2:
        return Pilot(NO_ROOM)
    rate = projection.best[str(first)]
    plans = [_plan(session, first, rate, cap, samples) for samples in lengths(session, cap)]
    if not plans:
        return Pilot(TOO_SHORT)
    for plan in plans:
        left = seconds - seconds_of(session, plan)
        if left >= 0:
            paid = MOMENTS * curvature_seconds(session.prepared) <= left
            return replace(plan, lemma=paid and session.baseline.rule in RULES_PROVED)
    return Pilot(BUDGET, seconds_of(session, plans[-1]))


def lengths(session: Session, batch_size: int) -> list[int]:
    """How long a pilot may be, longest first: none where its largest batch leaves too few updates.

    Args:
        session: The advice in the making.
        batch_size: The largest that it trains with.
    """
    found = (round(share * session.samples) for share in SHARES)
    return [samples for samples in found if samples >= LEAST_UPDATES * batch_size]


def largest(session: Session) -> int:
    """Where growing ends: a quarter of the training data; above what fits by accumulation."""
    return max(1, session.prepared.examples // 4)


def _plan(session: Session, first: int, rate: float, cap: int, samples: int) -> PilotPlan:
    own, seed = session.baseline.lr_schedule, session.options.seed + TUNING
    schedules = tuple(dict.fromkeys([own, "constant"]))
    return PilotPlan(
        first, rate, cap, samples, tuple(range(seed, seed + SEEDS)), POWERS, schedules
    )


def seconds_of(session: Session, plan: PilotPlan) -> float:
    """What a pilot takes at most."""
    examples, today = session.prepared.examples, session.batch_size
    count, grows = len(evaluation_grid(examples, plan.samples)), plan.typical(examples)
    tried = RULES * len(plan.powers) * len(plan.schedules)
    again = (len(plan.seeds) - 1) * [(today, plan.samples, count)]
    again += (len(plan.seeds) - 1) * KEPT * [(grows, plan.samples, count)]
    probes = session.run_seconds(today, max(today, round(PROBES * EXAMPLES * COST)))
    alone = session.run_seconds(today, plan.samples) * session.engine_factor + probes
    return alone + session.wall_seconds([(grows, plan.samples, count)] * tried + again)


def price(session: Session) -> float:
    """What the shortest pilot takes, before anything but today's batch size is timed."""
    samples = max(1, round(SHARES[-1] * session.samples))
    first = session.batch_size
    return seconds_of(session, _plan(session, first, session.learning_rate, 2 * first, samples))


def run_pilot(session: Session, plan: PilotPlan, yardstick: Callable[[], Yardstick]) -> Pilot:
    """Run the pilot.

    Args:
        session: The advice in the making.
        plan: Its plan.
        yardstick: Makes what turns samples into the objective, from all blocks timed so far.

    Returns:
        The record.
    """
    today, noise = _today_with_noise(session, plan)
    if today.status is Status.DIVERGED:
        return Pilot(FAILED, samples=plan.samples, noise=noise, curves=(today,))
    rules = _rules(session, plan, today, noise)
    tried = _settings(session, plan, rules)
    session.visit(ladder(plan.first, plan.cap))
    race = Race(session, yardstick(), plan.samples, plan.seeds, [today])
    names = "batches that grow", "the best that grow, again"
    best = tuple(tuple(tried[choice]) for choice in race.run([list(tried)], KEPT, *names)[:MOST])
    whole = session.samples, session.prepared.examples
    policies = {written(steps, *whole): names for steps, names in rules.items()}
    power = _lemma(session, plan, choice_of(best[0])) if best and plan.lemma else None
    why = "" if best else FAILED
    return Pilot(why, None, plan.samples, policies, noise, race.everything, best, power)


def _lemma(session: Session, plan: PilotPlan, best: Choice) -> float | None:
    """The growth of the rate that the lemma prefers for the best schedule."""
    session.listener.progress("what the bound prefers", 0.0)
    seed, short = plan.seeds[0], min(session.samples, session.prepared.examples)
    try:
        found = measure_constants(session.prepared, samples=short, points=MOMENTS, seed=seed)
    except UserError as error:
        session.listener.say(f"the bound says nothing of a rate that grows: {error}")
        return None
    return lemma_prefers(found.problem, session.of(best, seed), session.prepared.examples)


def _today_with_noise(session: Session, plan: PilotPlan) -> tuple[Curve, tuple[NoiseResult, ...]]:
    """Today's settings on the first tuning seed, with the noise scale on the way."""
    pair, seed = (session.batch_size, session.learning_rate), plan.seeds[0]
    config = session.of(pair, seed, plan.samples)
    moments = tuple(round(plan.samples * (i + 1) / (PROBES + 1)) for i in range(PROBES))
    job = Job(
        evaluation_grid(session.prepared.examples, plan.samples),
        probe=noise_probe(session.prepared, config),
        probe_at=moments,
    )
    trace, _ = session.train("today's settings, to plan how a batch grows", [config], job)
    run = trace.runs[0]
    return Curve.of(run, pair[0]), noise_along(run.series)


def _rules(
    session: Session, plan: PilotPlan, today: Curve, noise: Sequence[NoiseResult]
) -> dict[Steps, tuple[str, ...]]:
    """Every schedule once, with the rules that gave it."""
    lows = [(r.samples, r.at_least if r.scale is None else r.scale.value) for r in noise]
    scales = [Point(at / plan.samples, low) for at, low in lows if low is not None]
    along = zip(today.samples, today.loss, strict=True)
    losses = [Point(at / plan.samples, loss) for at, loss in along]
    found: dict[str, tuple[Steps, list[str]]] = {}
    for rule, steps in rules_for(plan.first, plan.cap, scales, losses).items():
        text = written(steps, session.samples, session.prepared.examples)
        found.setdefault(text, (steps, []))[1].append(rule)
    return {steps: tuple(rules) for steps, rules in found.values()}


def _settings(session: Session, plan: PilotPlan, rules: Iterable[Steps]) -> dict[Grown, Grown]:
    """Setting in the pilot → the same over a whole training."""
    examples = session.prepared.examples
    rates = [
        (plan.learning_rate, power, schedule)
        for power in plan.powers
        for schedule in plan.schedules
    ]
    return {
        Grown(written(steps, plan.samples, examples), *rate): Grown(
            written(steps, session.samples, examples), *rate
        )
        for steps in rules
        for rate in rates
    }


def trained(
    session: Session, samples: int, what: str, choices: Sequence[Choice], seeds: Sequence[int]
) -> list[Curve]:
    """Runs of a pilot, setting by setting.

    Args:
        session: The advice in the making.
        samples: Length of each.
        what: What they are called while they train.
        choices: Settings.
        seeds: Each of them is trained on.
    """
    configs = [session.of(c, seed, samples) for c in choices for seed in seeds]
    job = Job(evaluation_grid(session.prepared.examples, samples))
    trace, _ = session.train(what, configs, job)
    each = [choice for choice in choices for _ in seeds]
    return [
        Curve.of(run, one[0], others=others_of(one))
        for run, one in zip(trace.runs, each, strict=True)
    ]


class Race:
    """The runs of a pilot, ranked against today's on the same seeds.

    Args:
        session: The advice in the making.
        yardstick: Turns samples into the objective.
        samples: Length of every run.
        seeds: The first is tried with, on the others the best run again.
        references: Today's on the first of the seeds, or on all.
    """

    def __init__(
        self,
        session: Session,
        yardstick: Yardstick,
        samples: int,
        seeds: Sequence[int],
        references: Sequence[Curve],
    ) -> None:
        self.session, self.yardstick = session, yardstick
        self.samples, self.seeds = samples, seeds
        self.references, self.curves = list(references), list[Curve]()

    def run(
        self, groups: Sequence[Sequence[Setting]], kept: int, what: str, again: str
    ) -> list[Setting]:
        """Every setting on the first seed, the best of each group on the others.

        Args:
            groups: Settings of which the best go on beside those of the other groups.
            kept: How many of each.
            what: What the runs are called while they train.
            again: The same of those on the other seeds.

        Returns:
            Those that went on, best first; nothing where today's settings diverged.
        """
        if self.references[0].status is Status.DIVERGED:
            return []
        self.curves += self._trained(what, [c for group in groups for c in group], self.seeds[:1])
        best = [choice for group in groups for choice in self._best(group, kept)]
        if best:
            session, missing = self.session, self.seeds[len(self.references) :]
            today = session.batch_size, session.learning_rate
            self.references += self._trained(BESIDE, [today], missing) if missing else []
            self.curves += self._trained(again, best, self.seeds[1:])
        return self._best(best, len(best))

    @property
    def everything(self) -> tuple[Curve, ...]:
        """Every run, today's first."""
        return (*self.references, *self.curves)

    def _trained(self, what: str, choices: Sequence[Choice], seeds: Sequence[int]) -> list[Curve]:
        return trained(self.session, self.samples, what, choices, seeds)

    def _best(self, choices: Sequence[Setting], count: int) -> list[Setting]:
        """The settings with the smallest burden over their seeds; none that never got there."""
        burdens = {choice: self._burden(choice) for choice in choices}
        known = [c for c in burdens if math.isfinite(burdens[c])]
        return sorted(known, key=lambda c: burdens[c])[:count]

    def _burden(self, choice: Choice) -> float:
        theirs = {curve.seed: curve for curve in self.references}
        options, maximise = self.session.options, self.session.prepared.metric.maximise
        each = [
            burden(curve, theirs[curve.seed], self.yardstick, options.objective, maximise)
            for curve in self.curves
            if curve.choice == choice and curve.seed in theirs
        ]
        return float(np.mean(each))


def burden(
    curve: Curve, today: Curve, yardstick: Yardstick, objective: str, maximise: bool
) -> float:
    """What a run takes against today's on the same seed, less is better.

    log(t/t₀) with t and t₀ the time (cost, samples) to the loss that both reach, the higher of
    their two ends; for ``accuracy`` the loss of metric at the end.

    Args:
        curve: The run.
        today: Today's settings.
        yardstick: Turns samples into the objective.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        maximise: Direction of the metric.

    Returns:
        The burden; infinite if the run diverged or its loss fell less than half as far.
    """
    mine, theirs = end_loss(curve), end_loss(today)
    if not math.isfinite(mine):
        return math.inf
    if objective == "accuracy":
        before, after = final_metric([today])[0], final_metric([curve])[0]
        worse = float(before - after if maximise else after - before)
        return worse if math.isfinite(worse) else math.inf
    if curve.loss[0] - mine < LEAST_FALL * (today.loss[0] - theirs):
        return math.inf
    level = max(mine, theirs)
    taken = [
        float(yardstick.measure(objective, np.array([samples_to(c, level)]), c.pace)[0])
        for c in (curve, today)
    ]
    return math.log(taken[0] / taken[1]) if all(0 < t < math.inf for t in taken) else math.inf
