"""After stage C, if asked for: robustness and repeatability of today's settings and the choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from batchlab.advisor.confirm import ConfirmationPlan, end_states
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import final_metric
from batchlab.advisor.session import WORKER_START_SECONDS, Session
from batchlab.advisor.stages import Choice, Confirmation, Curve, all_sizes, gamma_of, pace_of
from batchlab.config import RunConfig
from batchlab.engine import Job, RunState, evaluation_grid
from batchlab.measure.disturbance import TABLE, Disturbance
from batchlab.measure.robustness import train_altered
from batchlab.measure.sturdiness import Scores, Survey, evaluations, survey, trained
from batchlab.types import Status

FOLDER = "robustness"
"""Trainings on changed data lie in this folder of a result directory."""
NOISE = "noise"
"""By what name all that needs no trainings stands among what the budget does not pay for."""
TODAY, CHOSEN = "today", "recommended"


def seconds_of_noise(session: Session, runs: int) -> float:
    """What disturbing so many trained runs takes; it happens in this process.

    Args:
        session: The advice in the making.
        runs: Runs.
    """
    return runs * evaluations(session.prepared) * session.evaluation_seconds


def _largest(session: Session, chosen: Choice) -> int:
    """The largest batch that either setting trains with."""
    return all_sizes([session.today, chosen])[-1]


def seconds_of_training(session: Session, chosen: Choice, seeds: int) -> float:
    """What trainings on one change of the data take, of today's settings and the choice.

    Args:
        session: The advice in the making.
        chosen: The choice.
        seeds: Repeats.
    """
    count = len(evaluation_grid(session.prepared.examples, session.samples))
    sizes = [session.today[0], pace_of(chosen)] * seeds
    start = WORKER_START_SECONDS if session.engine.workers >= 2 else 0.0
    return session.wall_seconds([(size, session.samples, count) for size in sizes]) + start


def price(session: Session, chosen: Choice) -> float:
    """What all of it takes.

    Args:
        session: The advice in the making.
        chosen: The choice, or a guess of it.
    """
    options, largest = session.options, _largest(session, chosen)
    changes = sum(what.in_training for what in TABLE)
    if session.prepared.train.in_memory:  # others would have to be read whole to tell
        changes = len(trained(session.prepared, largest))
    noise = seconds_of_noise(session, 2 * options.confirm_seeds)
    seeds = min(options.seeds, options.confirm_seeds)
    return noise + changes * seconds_of_training(session, chosen, seeds)


def seeds_of(plan: ConfirmationPlan) -> tuple[int, ...]:
    """Seeds of the trainings on changed data: fresh ones, since those that chose would flatter the
    choice on clean data; as many as chose.

    Args:
        plan: Of stage C.
    """
    return tuple(plan.fresh[: len(plan.seeds)])


def measure(
    session: Session,
    journal: Journal,
    plan: ConfirmationPlan,
    record: Confirmation,
    known: Survey | None,
    spendable: Callable[[], float],
    save: Callable[[Survey], None],
) -> Survey:
    """Noise first, on the runs with fresh seeds; then trainings on changed data, as far as paid.

    Args:
        session: The advice in the making.
        journal: Keeps what was begun: a resumed advice goes on with it whatever it takes.
        plan: Of stage C: its seeds.
        record: Of stage C: the choice, and the fresh runs that were trained on clean data.
        known: What an earlier process has measured, or None.
        spendable: Seconds that are left.
        save: Writes the record down.

    Returns:
        The record; what the budget does not pay for stands in it with its price.
    """
    chosen = record.choice
    changes = trained(session.prepared, _largest(session, chosen))
    each = seconds_of_training(session, chosen, len(seeds_of(plan)))
    found = known
    if found is None or NOISE in found.unpaid:
        cost = seconds_of_noise(session, 2 * len(plan.fresh)) + seconds_again(
            session, plan, chosen
        )
        if not _begins(journal, NOISE, cost, spendable):
            found = Survey(unpaid={NOISE: cost} | {what.id: each for what in changes})
            save(found)
            return found
        found = _noise(session, plan, chosen)
        found = replace(found, unpaid={what.id: each for what in changes})
        save(found)
    for what in changes:
        if what.id in found.unpaid and _begins(journal, what.id, each, spendable):
            scores = _trained(session, journal.out / FOLDER, plan, record, what)
            found = found.with_scores(scores)
            save(found)
    return found


def _begins(journal: Journal, name: str, cost: float, spendable: Callable[[], float]) -> bool:
    """Whether a part runs: it was begun before, or is paid for; then that is written down."""
    made = {"expected_seconds": cost} if cost <= spendable() else None
    return journal.plan(f"robustness {name}", made) is not None


def seconds_again(session: Session, plan: ConfirmationPlan, chosen: Choice) -> float:
    """Seconds for the fresh runs once more, where their ends were not kept.

    Args:
        session: The advice in the making.
        plan: Of stage C: its seeds.
        chosen: The choice.
    """
    states = end_states(session, chosen, plan.fresh, train=False)
    if states is not None:
        return 0.0
    count = len(evaluation_grid(session.prepared.examples, session.samples))
    sizes = [session.today[0], pace_of(chosen)] * len(plan.fresh)
    return session.wall_seconds([(size, session.samples, count) for size in sizes])


def _noise(session: Session, plan: ConfirmationPlan, chosen: Choice) -> Survey:
    """All that needs no trainings of its own."""
    before, after = end_states(session, chosen, plan.fresh) or ({}, {})
    ends = {TODAY: before, CHOSEN: after}
    if gamma_of(chosen) is None:
        return _survey(session, session.baseline, ends, chosen)
    # Models with a γ and without are not evaluated together.
    today = _survey(session, session.baseline, {TODAY: before}, chosen)
    config = session.of(chosen, session.options.seed)
    other = _survey(session, config, {CHOSEN: after}, chosen)
    scores, repeats = today.scores + other.scores, today.repeats + other.repeats
    return replace(today, scores=scores, repeats=repeats)


def _survey(
    session: Session,
    config: RunConfig,
    ends: Mapping[str, Mapping[int, RunState]],
    chosen: Choice,
) -> Survey:
    return survey(
        session.prepared,
        config,
        ends,
        _largest(session, chosen),
        seed=session.options.seed,
        tick=lambda share: session.listener.progress("noisy inputs and weights", share),
    )


def _trained(
    session: Session, out: Path, plan: ConfirmationPlan, record: Confirmation, what: Disturbance
) -> list[Scores]:
    """Both settings on changed data, beside their runs on clean data with the same fresh seeds."""
    chosen, seeds = record.choice, seeds_of(plan)
    pairs = [session.today, chosen]
    configs = [session.of(pair, seed) for pair in pairs for seed in seeds]
    session.engine.close()  # its workers would share the memory with those of the changed data
    trace, told = train_altered(
        session.prepared,
        what,
        configs,
        Job(evaluation_grid(session.prepared.examples, session.samples)),
        out=out,
        workers=session.engine.workers,
        on=session.engine.on,
        seed=session.options.seed,
        progress=lambda share: session.listener.progress(what.id, share),
    )
    for sentence in told:
        session.listener.say(sentence)
    n = len(seeds)
    sides = [
        [Curve.of(run, pair[0]) for run in trace.runs[i * n : (i + 1) * n]]
        for i, pair in enumerate(pairs)
    ]
    return [
        scores_of(what, name, {run.seed: run for run in clean}, curves)
        for name, clean, curves in zip(
            (TODAY, CHOSEN), (record.today, record.recommended), sides, strict=True
        )
    ]


def scores_of(
    what: Disturbance, setting: str, clean: dict[int, Curve], curves: Sequence[Curve]
) -> Scores:
    """The runs of one setting on changed data beside those on clean data, where neither diverged.

    Args:
        what: The change.
        setting: Its name.
        clean: Seed → run on clean data.
        curves: Runs on changed data.
    """
    kept = [
        c
        for c in curves
        if c.seed in clean and Status.DIVERGED not in (c.status, clean[c.seed].status)
    ]
    seeds = tuple(c.seed for c in kept)
    before, after = (final_metric(side).tolist() for side in ([clean[s] for s in seeds], kept))
    return Scores(what, setting, seeds, tuple(before), tuple(after))
