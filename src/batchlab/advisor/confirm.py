"""Stage C: choose on some seeds, prove on fresh ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import (
    Projected,
    Yardstick,
    against,
    better,
    changed,
    final_metric,
    front,
    grid_spacing,
    meets,
    ranked,
)
from batchlab.advisor.prefer import WORDS, Numbers, judged, preferred
from batchlab.advisor.session import Session
from batchlab.advisor.stages import (
    Choice,
    Confirmation,
    Curve,
    Grown,
    Pace,
    Tuned,
    choice_of,
    gamma_of,
    goes_by_size,
    others_of,
    pace_of,
)
from batchlab.engine import Job, RunState, evaluation_grid
from batchlab.stats import default_target

CHOOSING = 100
"""Choosing seeds are seed + 100, seed + 101 …; the search used seed, seed + 1 …"""
FRESH = 1000
"""Confirmation seeds are seed + 1000, … and are used by nothing else."""
MOST_FINALISTS = 4
MOST_REPEATS = 64
"""Fresh pairs that one continuation adds at most."""
PARTS = 4
"""Parts of the fresh repeats; one run alone is timed before each and after the last."""

FIELDS = tuple(dict.fromkeys((*Grown._fields, *Tuned._fields)))
"""What a choice is written down by, in the order in which :func:`choice_of` reads it."""
CHOOSING_RUNS = "today's settings and the finalists"
"""What these runs are called while they train."""


@dataclass(frozen=True)
class ConfirmationPlan:
    """The plan of stage C.

    Attributes:
        finalists: Settings, each a :data:`Choice`, best first.
        seeds: Choosing seeds.
        fresh: Confirmation seeds.
        batch_only: Whether the batch changed alone is run too.
    """

    finalists: tuple[tuple[Any, ...], ...]
    seeds: tuple[int, ...]
    fresh: tuple[int, ...]
    batch_only: bool

    def pairs(self) -> tuple[Choice, ...]:
        """The finalists."""
        return tuple(map(choice_of, self.finalists))


def plan_confirmation(
    session: Session,
    rows: Sequence[Projected],
    seconds: float,
    growing: Sequence[Choice] = (),
    again: Sequence[Choice] = (),
    stronger: Sequence[Choice] = (),
) -> ConfirmationPlan | None:
    """The fullest confirmation that fits: fewer finalists first, never fewer fresh seeds.

    Args:
        session: The advice in the making.
        rows: What the search says of every batch size.
        seconds: What it may take.
        growing: Batches that grow, best first: the best comes second, the others last.
        again: Batches that are used several times, best first, likewise and before these.
        stronger: The best γ, which comes second where there is one.

    Returns:
        The plan, or None if not even one finalist can be confirmed.
    """
    constant = finalists(session, rows)
    order = [*constant[:1], *stronger, *again[:1], *growing[:1]]
    order += [*constant[1:], *again[1:], *growing[1:]]
    plans = (_plan(session, order[:count]) for count in range(len(order), 0, -1))
    return next((plan for plan in plans if seconds_of(session, plan) <= seconds), None)


def finalists(session: Session, rows: Sequence[Projected]) -> list[Choice]:
    """The settings besides today's that the search could not separate, best first; second the one
    whose loss fell furthest, since a short search knows best what the same samples give.
    """
    maximise, objective = session.prepared.metric.maximise, session.options.objective
    order = ranked((row for row in rows if row.setting != session.today), objective, maximise)
    if not order:
        return []
    least = order[0].burden(objective, maximise).high
    near = [row for row in order[1:] if not row.burden(objective, maximise).low > least]
    furthest = min(order, key=lambda row: row.loss if math.isfinite(row.loss) else math.inf)
    kept: dict[Choice, None] = dict.fromkeys(row.setting for row in (order[0], furthest, *near))
    return list(kept)[:MOST_FINALISTS]


def seconds_of(session: Session, plan: ConfirmationPlan) -> float:
    """What a confirmation takes."""
    return session.wall_seconds(_runs(session, plan))


def _plan(session: Session, finalists: Sequence[Choice]) -> ConfirmationPlan:
    first, options = session.options.seed, session.options
    return ConfirmationPlan(
        tuple(finalists),
        tuple(range(first + CHOOSING, first + CHOOSING + options.seeds)),
        tuple(range(first + FRESH, first + FRESH + options.confirm_seeds)),
        any(c[0] != session.today[0] for c in finalists if goes_by_size(c)),
    )


def _runs(session: Session, plan: ConfirmationPlan) -> list[tuple[Pace, int, int]]:
    """(pace, samples, evaluations) of everything, for pricing."""
    count = len(evaluation_grid(session.prepared.examples, session.samples))
    finalists = [pace_of(choice) for choice in plan.pairs()]
    chosen = max(finalists, key=lambda pace: session.run_seconds(pace, session.samples))
    paces: list[Pace] = [session.today[0]] * (len(plan.seeds) + len(plan.fresh))
    paces += [chosen] * len(plan.fresh) + finalists * len(plan.seeds)
    if plan.batch_only:
        paces += [chosen] * len(plan.seeds)
    return [(pace, session.samples, count) for pace in paces]


def price_of_confirmation(session: Session, finalists: int, size: int) -> float:
    """Seconds of stage C with so many finalists of this batch size, before any search."""
    return seconds_of(session, _plan(session, [(size, session.learning_rate)] * finalists))


def confirm(
    session: Session, journal: Journal, plan: ConfirmationPlan, yardstick: Callable[[], Yardstick]
) -> Confirmation | None:
    """Run stage C.

    Args:
        session: The advice in the making.
        journal: Keeps the choice: a resumed advice never makes it again.
        plan: The plan of the stage.
        yardstick: Makes what turns samples into the objective, from all blocks timed so far.

    Returns:
        The record, or None where too many baseline runs diverge to define a target. The
        recommendation in it was fixed before the fresh seeds ran.
    """
    today = session.today
    tried = [today, *plan.pairs()]
    session.visit_all(tried)
    choosing = _curves(session, CHOOSING_RUNS, tried, plan.seeds)
    found = _target(session, choosing[: len(plan.seeds)])
    if found is None:
        session.listener.say(
            "more than one in five runs of today's settings diverged, so that there is no target: "
            "name one with --target"
        )
        return None
    target, chosen_by = found
    session.visit_all(tried)
    choice = _fixed(session, journal, plan, choosing, target, yardstick)
    chosen = choice_of([choice[name] for name in FIELDS if name in choice])
    # Blocks that helped to choose would flatter the choice; the comparison uses those timed from
    # here on.
    timed, timed_wrapped = (
        {size: len(known) for size, known in session.stopwatch.timed(wrapped).items()}
        for wrapped in (False, True)
    )
    before, after = _fresh(session, chosen, plan.fresh)
    return Confirmation(
        target,
        chosen_by,
        choosing,
        plan.finalists,
        chosen,
        bool(choice["today_chosen"]),
        timed,
        before,
        after,
        _alone(session, plan, chosen),
        timed_wrapped=timed_wrapped,
    )


def _fixed(
    session: Session,
    journal: Journal,
    plan: ConfirmationPlan,
    choosing: Sequence[Curve],
    target: float,
    yardstick: Callable[[], Yardstick],
) -> dict[str, Any]:
    """The choice, written down before any fresh seed runs; read where it was made before."""
    known = journal.plan("C chosen")
    if known is not None:
        return known
    numbers, prefer = None, session.options.prefer
    if prefer is not None:
        own = {str(i): gamma_of(choice) for i, choice in enumerate(plan.pairs())}
        gammas = {name: gamma for name, gamma in own.items() if gamma is not None}
        numbers = judged(prefer)(session, _ends_of_finalists(session, plan), gammas)
    chosen, today_chosen = _choose(session, plan, choosing, target, yardstick(), numbers)
    names = Tuned._fields if isinstance(chosen, Tuned) else Grown._fields
    made: dict[str, Any] = dict(zip(names, chosen, strict=False)) | {"target": target}
    made |= {} if numbers is None else {"prefer": prefer, WORDS[str(prefer)].quantity: numbers}
    journal.plan("C chosen", made | {"today_chosen": today_chosen})
    return made | {"today_chosen": today_chosen}


def _alone(session: Session, plan: ConfirmationPlan, chosen: Choice) -> tuple[Curve, ...]:
    """The chosen batch size with today's learning rate; nothing where either is today's, or the
    batch grows or is used again, or there is a γ.
    """
    if not goes_by_size(chosen):
        return ()
    if chosen[0] == session.today[0] or chosen[1] == session.learning_rate:
        return ()
    unchanged = (chosen[0], session.learning_rate)
    return _curves(session, "the batch size changed alone", [unchanged], plan.seeds)


def affordable_repeats(session: Session, pace: Pace, seconds: float) -> int:
    """How many more pairs of fresh runs fit, at most 64.

    Args:
        session: The advice in the making.
        pace: Of the recommendation.
        seconds: What they may take.

    Returns:
        Pairs; 0 if not even one fits.
    """
    evaluations = len(evaluation_grid(session.prepared.examples, session.samples))
    pair = [(b, session.samples, evaluations) for b in (session.today[0], pace)]
    fitting = (n for n in range(MOST_REPEATS, 0, -1) if session.wall_seconds(pair * n) <= seconds)
    return next(fitting, 0)


def confirm_more(session: Session, record: Confirmation, seeds: Sequence[int]) -> Confirmation:
    """The same comparison on further fresh seeds, joined to the earlier ones."""
    before, after = _fresh(session, record.choice, seeds)
    return replace(record, today=record.today + before, recommended=record.recommended + after)


def _fresh(
    session: Session, chosen: Choice, seeds: Sequence[int]
) -> tuple[tuple[Curve, ...], tuple[Curve, ...]]:
    """Today's settings and the recommendation on fresh seeds, in parts with timing between
    them.
    """
    today = session.today
    before: tuple[Curve, ...] = ()
    after: tuple[Curve, ...] = ()
    for part in _parts(seeds):
        session.visit_all([today, chosen])
        runs = _curves(session, "fresh repeats", [today, chosen], part, test=True)
        before, after = before + runs[: len(part)], after + runs[len(part) :]
    session.visit_all([today, chosen])
    return before, after


def seconds_of_fresh(session: Session, choices: Sequence[Choice], seeds: int) -> float:
    """What whole runs of some settings on so many fresh seeds take."""
    count = len(evaluation_grid(session.prepared.examples, session.samples))
    return session.wall_seconds([(pace_of(c), session.samples, count) for c in choices] * seeds)


def grown_afresh(
    session: Session, record: Confirmation, choices: Sequence[Choice], seeds: Sequence[int]
) -> Confirmation:
    """The same record with runs of further settings on fresh seeds, so that whether growing pays
    is not judged on the seeds that chose.

    Args:
        session: The advice in the making.
        record: The confirmation.
        choices: A batch that grows, or its rival of constant size.
        seeds: Those of ``record.today``.
    """
    session.visit_all(choices)
    runs = _curves(session, "growing against constant, on fresh seeds", choices, seeds)
    session.visit_all(choices)
    return replace(record, growers=runs)


def _parts(seeds: Sequence[int]) -> list[Sequence[int]]:
    """The fresh seeds as they are trained: in four parts, with timing between them."""
    each = -(-len(seeds) // PARTS)
    return [seeds[i : i + each] for i in range(0, len(seeds), each)]


def end_states(
    session: Session, chosen: Choice, seeds: Sequence[int], train: bool = True
) -> tuple[dict[int, RunState], dict[int, RunState]] | None:
    """Where the runs on fresh seeds ended, read from disk if they were kept.

    Args:
        session: The advice in the making.
        chosen: The recommendation.
        seeds: Those of the plan of stage C.
        train: Whether runs that were not kept are trained again.

    Returns:
        Seed → state, of today's settings and of the recommendation, without runs that diverged;
        None if they were not kept and are not trained.
    """
    today = session.today
    before: dict[int, RunState] = {}
    after: dict[int, RunState] = {}
    job = _job(session, keep_end=True)
    for part in _parts(seeds):
        configs = [session.of(pair, seed) for pair in (today, chosen) for seed in part]
        if not train and not session.engine.keeps(configs, job):
            return None
        _, states = session.train("ends of the fresh repeats", configs, job)
        for side, found in ((before, states[: len(part)]), (after, states[len(part) :])):
            side |= {s: one for s, one in zip(part, found, strict=True) if one is not None}
    return before, after


def _job(session: Session, keep_end: bool) -> Job:
    """Whole runs, evaluated on the usual grid."""
    grid = evaluation_grid(session.prepared.examples, session.samples)
    return Job(grid, keep_end=keep_end)


def _target(session: Session, baseline: Sequence[Curve]) -> tuple[float, str] | None:
    """The user's target, or what four in five baseline runs reach, if so many ended."""
    if session.options.target is not None:
        return session.options.target, "user"
    ends = final_metric(baseline)
    if np.isfinite(ends).sum() < 0.8 * len(ends):
        return None
    return default_target(ends, session.prepared.metric.maximise), "baseline"


def _choose(
    session: Session,
    plan: ConfirmationPlan,
    runs: Sequence[Curve],
    target: float,
    yardstick: Yardstick,
    numbers: Numbers | None = None,
) -> tuple[Choice, bool]:
    """The best finalist on the choosing seeds, among those that meet every demand if any does, and
    whether today's settings were better still. With numbers that are preferred small, another of
    those that cannot be told from the best, if its are surely smaller.
    """
    count, maximise = len(plan.seeds), session.prepared.metric.maximise
    names = ["today", *(str(i) for i in range(len(plan.finalists)))]
    groups = {name: runs[i * count : (i + 1) * count] for i, name in enumerate(names)}
    name, demands = session.prepared.metric.name, session.options.at_least
    able = [n for n in names[1:] if all(meets(groups[n], name, maximise, demands).values())]

    fewest = {n: changed(runs_[0].choice, session.today) for n, runs_ in groups.items()}

    def best(among: Sequence[str]) -> str:
        kept = {n: groups[n] for n in among}
        return front(kept, yardstick, session.options.objective, target, maximise, fewest)

    rivals = _without_idle_growth(session, groups, able or names[1:], target, yardstick, best)
    chosen = best(rivals)
    if numbers is not None:
        chosen = preferred(
            session, {n: groups[n] for n in rivals}, chosen, target, yardstick, numbers
        )
    return plan.pairs()[int(chosen)], best(["today", chosen]) == "today"


def _without_idle_growth(
    session: Session,
    groups: Mapping[str, Sequence[Curve]],
    names: Sequence[str],
    target: float,
    yardstick: Yardstick,
    best: Callable[[Sequence[str]], str],
) -> list[str]:
    """The finalists without batches that grow or are used again and without γ, unless the best of
    these beats the best constant one, today's among them, beyond its range on the choosing seeds.
    Such a setting changes more, and was found among more: a draw is not enough.
    """
    beyond = [] if session.options.tune else names
    grown = [n for n in beyond if not goes_by_size(groups[n][0].choice)]
    constant = [n for n in names if n not in grown]
    if not grown:
        return constant
    leader, rival = best(grown), best([*constant, "today"])
    maximise, objective = session.prepared.metric.maximise, session.options.objective
    sides = (groups[leader], groups[rival])
    spacing = grid_spacing(session.prepared.examples, session.samples)
    gain = against(*sides, yardstick, objective, target, maximise, spacing).estimate
    wins = better(gain, objective, maximise)
    return [leader] if wins or not constant else constant


def _ends_of_finalists(
    session: Session, plan: ConfirmationPlan
) -> dict[str, list[RunState | None]]:
    """Finalist's number → where its choosing runs ended, None for one that diverged."""
    pairs = [session.today, *plan.pairs()]
    configs = [session.of(pair, seed) for pair in pairs for seed in plan.seeds]
    _, states = session.train(CHOOSING_RUNS, configs, _job(session, keep_end=True))
    n = len(plan.seeds)
    return {str(i): list(states[(i + 1) * n : (i + 2) * n]) for i in range(len(plan.finalists))}


def _curves(
    session: Session, what: str, pairs: Sequence[Choice], seeds: Sequence[int], test: bool = False
) -> tuple[Curve, ...]:
    """Whole runs of several settings, setting by setting, each on every seed."""
    configs = [session.of(choice, seed) for choice in pairs for seed in seeds]
    each = [choice for choice in pairs for _ in seeds]
    wants_test = test and session.prepared.test is not None
    prefers = what == CHOOSING_RUNS and session.options.prefer is not None
    later = session.options.robustness or session.keeps_ends
    keep_end = wants_test or prefers or (test and later)
    trace, states = session.train(what, configs, _job(session, keep_end))
    scores = [
        session.score(config, state, session.prepared.test)
        if state is not None and session.prepared.test is not None and wants_test
        else None
        for config, state in zip(configs, states, strict=True)
    ]
    return tuple(
        Curve.of(run, choice[0], test=score, others=others_of(choice))
        for run, choice, score in zip(trace.runs, each, scores, strict=True)
    )
