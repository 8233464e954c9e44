"""Stage C: choose on some seeds, prove on fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchlab.advisor.decision import choose, choose_accuracy, not_separated
from batchlab.advisor.judge import Projected, Yardstick, final_metric, to_target
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Confirmation, Curve
from batchlab.engine import Job, evaluation_grid
from batchlab.stats import default_target

CHOOSING = 100
"""Choosing seeds are seed + 100, seed + 101 …; the search used seed, seed + 1 …"""
FRESH = 1000
"""Confirmation seeds are seed + 1000, … and are used by nothing else."""
MOST_FINALISTS = 4
PARTS = 4
"""Parts of the fresh repeats; one run alone is timed before each and after the last."""

Pair = tuple[int, float]


@dataclass(frozen=True)
class ConfirmationPlan:
    """The plan of stage C.

    Attributes:
        finalists: (batch size, learning rate), best first.
        seeds: Choosing seeds.
        fresh: Confirmation seeds.
        batch_only: Whether the batch changed alone is run too.
    """

    finalists: tuple[tuple[float, ...], ...]
    seeds: tuple[int, ...]
    fresh: tuple[int, ...]
    batch_only: bool

    def pairs(self) -> tuple[Pair, ...]:
        """The finalists with whole-number batch sizes."""
        return tuple((int(size), rate) for size, rate in self.finalists)


def plan_confirmation(
    session: Session, rows: Sequence[Projected], seconds: float
) -> ConfirmationPlan | None:
    """The fullest confirmation that fits: fewer finalists first, never fewer fresh seeds.

    Args:
        session: The advice in the making.
        rows: What the search says of every batch size.
        seconds: What it may take.

    Returns:
        The plan, or None if not even one finalist can be confirmed.
    """
    today = (session.batch_size, session.learning_rate)
    others = {
        (row.batch_size, row.learning_rate): row.cost
        for row in rows
        if (row.batch_size, row.learning_rate) != today and np.isfinite(row.cost.value)
    }
    if session.options.objective == "accuracy":
        sign = -1 if session.prepared.metric.maximise else 1
        others = {
            (r.batch_size, r.learning_rate): _signed(r, sign)
            for r in rows
            if (r.batch_size, r.learning_rate) != today and np.isfinite(r.ratio.estimate.value)
        }
    if not others:
        return None
    names = {f"{size}@{rate}": (size, rate) for size, rate in others}
    order = not_separated({name: others[pair] for name, pair in names.items()}, MOST_FINALISTS)
    for count in range(len(order), 0, -1):
        plan = _plan(session, [names[name] for name in order[:count]])
        if session.wall_seconds(_runs(session, plan)) <= seconds:
            return plan
    return None


def _signed(row: Projected, sign: int):  # noqa: ANN202
    """The gain of the metric as a cost: less is better."""
    e = row.ratio.estimate
    low, high = sorted((sign * e.low, sign * e.high))
    return replace(e, value=sign * e.value, low=low, high=high)


def _plan(session: Session, finalists: Sequence[Pair]) -> ConfirmationPlan:
    first, options = session.options.seed, session.options
    return ConfirmationPlan(
        tuple(finalists),
        tuple(range(first + CHOOSING, first + CHOOSING + options.seeds)),
        tuple(range(first + FRESH, first + FRESH + options.confirm_seeds)),
        any(size != session.batch_size for size, _ in finalists),
    )


def _runs(session: Session, plan: ConfirmationPlan) -> list[tuple[int, int, int]]:
    """(batch size, samples, evaluations) of everything, for pricing."""
    count = len(evaluation_grid(session.prepared.examples, session.samples))
    chosen = max(plan.pairs(), key=lambda pair: session.run_seconds(pair[0], session.samples))
    sizes = [session.batch_size] * (len(plan.seeds) + len(plan.fresh)) + [chosen[0]] * len(
        plan.fresh
    )
    sizes += [size for size, _ in plan.pairs()] * len(plan.seeds)
    if plan.batch_only:
        sizes += [chosen[0]] * len(plan.seeds)
    return [(size, session.samples, count) for size in sizes]


def price_of_confirmation(session: Session, finalists: int, size: int) -> float:
    """Seconds of stage C with so many finalists of this batch size, before any search."""
    plan = _plan(session, [(size, session.learning_rate)] * finalists)
    return session.wall_seconds(_runs(session, plan))


def confirm(
    session: Session, plan: ConfirmationPlan, yardstick: Callable[[], Yardstick]
) -> Confirmation:
    """Run stage C.

    Args:
        session: The advice in the making.
        plan: Its plan.
        yardstick: Makes what turns samples into the objective, from all blocks timed so far.

    Returns:
        The record. The recommendation in it was fixed before the fresh seeds ran.
    """
    today = (session.batch_size, session.learning_rate)
    sizes = sorted({size for size, _ in plan.pairs()} | {session.batch_size})
    session.visit(sizes)
    choosing = _curves(
        session, "today's settings and the finalists", [today, *plan.pairs()], plan.seeds
    )
    target, chosen_by = _target(session, choosing[: len(plan.seeds)])
    session.visit(sizes)
    chosen, today_chosen = _choose(session, plan, choosing, target, yardstick())
    fixed = {"batch_size": chosen[0], "learning_rate": chosen[1], "target": target}
    session.journal.plan("C chosen", fixed)
    # Blocks that helped to choose would flatter the choice; the comparison uses those timed from
    # here on.
    timed = {size: len(blocks) for size, blocks in session.stopwatch.blocks.items()}
    before, after = _fresh(session, chosen, plan.fresh)
    alone: tuple[Curve, ...] = ()
    if plan.batch_only and chosen[0] != session.batch_size:
        unchanged = (chosen[0], session.learning_rate)
        alone = _curves(session, "the batch size changed alone", [unchanged], plan.seeds)
    return Confirmation(
        target,
        chosen_by,
        choosing,
        plan.finalists,
        chosen,
        today_chosen,
        timed,
        before,
        after,
        alone,
    )


def confirm_more(session: Session, record: Confirmation, seeds: Sequence[int]) -> Confirmation:
    """The same comparison on further fresh seeds, joined to the earlier ones."""
    size, rate = int(record.chosen[0]), record.chosen[1]
    before, after = _fresh(session, (size, rate), seeds)
    return replace(record, today=record.today + before, recommended=record.recommended + after)


def _fresh(
    session: Session, chosen: Pair, seeds: Sequence[int]
) -> tuple[tuple[Curve, ...], tuple[Curve, ...]]:
    """Today's settings and the recommendation on fresh seeds, in parts with timing between
    them.
    """
    today = (session.batch_size, session.learning_rate)
    before: tuple[Curve, ...] = ()
    after: tuple[Curve, ...] = ()
    each = -(-len(seeds) // PARTS)
    for part in (seeds[i : i + each] for i in range(0, len(seeds), each)):
        session.visit(sorted({session.batch_size, chosen[0]}))
        runs = _curves(session, "fresh repeats", [today, chosen], part, test=True)
        before, after = before + runs[: len(part)], after + runs[len(part) :]
    session.visit(sorted({session.batch_size, chosen[0]}))
    return before, after


def _target(session: Session, baseline: Sequence[Curve]) -> tuple[float, str]:
    """The user's target, or what four in five baseline runs reach."""
    if session.options.target is not None:
        return session.options.target, "user"
    maximise = session.prepared.metric.maximise
    worst = -np.inf if maximise else np.inf
    ends = np.nan_to_num(final_metric(baseline), nan=worst)
    return float(default_target(ends, maximise)), "baseline"


def _choose(
    session: Session,
    plan: ConfirmationPlan,
    runs: Sequence[Curve],
    target: float,
    yardstick: Yardstick,
) -> tuple[Pair, bool]:
    """The best finalist on the choosing seeds, and whether today's settings were better still."""
    count, maximise = len(plan.seeds), session.prepared.metric.maximise
    names = ["today", *(str(i) for i in range(len(plan.finalists)))]
    groups = {name: runs[i * count : (i + 1) * count] for i, name in enumerate(names)}

    def best(among: Sequence[str]) -> str:
        if session.options.objective == "accuracy":
            return choose_accuracy({n: final_metric(groups[n]) for n in among}, maximise)
        reached = {n: to_target(groups[n], target, maximise) for n in among}
        objective = session.options.objective
        sizes = {n: groups[n][0].batch_size for n in among}
        return choose({n: yardstick.measure(objective, reached[n], sizes[n]) for n in among})

    return plan.pairs()[int(best(names[1:]))], best(names) == "today"


def _curves(
    session: Session, what: str, pairs: Sequence[Pair], seeds: Sequence[int], test: bool = False
) -> tuple[Curve, ...]:
    """Whole runs of several settings, setting by setting, each on every seed."""
    configs = [session.config(size, rate, seed) for size, rate in pairs for seed in seeds]
    sizes = [size for size, _ in pairs for _ in seeds]
    wants_test = test and session.prepared.test is not None
    job = Job(evaluation_grid(session.prepared.examples, session.samples), keep_end=wants_test)
    trace, states = session.train(what, configs, job)
    scores = [
        session.score(config, state, session.prepared.test)
        if state is not None and session.prepared.test is not None and wants_test
        else None
        for config, state in zip(configs, states, strict=True)
    ]
    return tuple(
        Curve.of(run, size, test=score)
        for run, size, score in zip(trace.runs, sizes, scores, strict=True)
    )
