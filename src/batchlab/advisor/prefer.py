"""``--prefer``: decides among the finalists that the choosing seeds cannot tell apart.

A preference is a number a finalist, of which the least is taken, and the words for it; adding one
is an entry in both tables below and in :data:`batchlab.advisor.options.PREFERENCES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from batchlab.advisor.decision import most_repeatable, not_told_apart
from batchlab.advisor.judge import (
    Yardstick,
    against,
    final_metric,
    grid_spacing,
    inverted,
    to_target,
)
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Curve
from batchlab.config import RunConfig
from batchlab.engine import RunState
from batchlab.engine.loop import loaded
from batchlab.measure.insight import curvature_of, reader_of
from batchlab.measure.repeatability import (
    disagreements,
    predictions,
    reading_of,
    repeatability,
)
from batchlab.types import Estimate

Groups = Mapping[str, Sequence[Curve]]
"""Finalist's name → its runs on the choosing seeds."""
Ends = Mapping[str, Sequence[RunState]]
"""Finalist's name → where its runs ended."""
Gammas: TypeAlias = Mapping[str, float | None]
NONE: Gammas = {}
"""Finalist's name → γ, of those whose model has another than today's."""


def disagreement(session: Session, ends: Ends, gammas: Gammas = NONE) -> dict[str, float]:
    """Share of the validation examples on which two choosing runs disagree.

    Args:
        session: The advice in the making.
        ends: Finalist's name → where its runs ended.
        gammas: Finalist's name → γ, where it has one of its own.

    Returns:
        Finalist's name → share, NaN where fewer than two runs ended.
    """
    reading = reading_of(session.prepared)
    assert reading is not None  # refused before anything was trained
    return {
        name: repeatability(
            disagreements(
                predictions(session.prepared, _config(session, name, gammas), states, reading)
            )
        ).value
        for name, states in ends.items()
    }


def features_needed(session: Session, ends: Ends, gammas: Gammas = NONE) -> dict[str, float]:
    """Internal features that keep 99 % of the metric's gain, mean over the choosing runs.

    Args:
        session: The advice in the making.
        ends: Finalist's name → where its runs ended.
        gammas: Finalist's name → γ, where it has one of its own.

    Returns:
        Finalist's name → units, NaN where no run needs any.
    """
    found = {}
    for name, states in ends.items():
        reader = reader_of(session.prepared, _config(session, name, gammas))
        runs = [reader.measure(reader.of_state(s.progress), 0)[0].kept.needed for s in states]
        known = [needed for needed in runs if needed is not None]
        found[name] = float(np.mean(known)) if known else math.nan
    return found


def flatness(session: Session, ends: Ends, gammas: Gammas = NONE) -> dict[str, float]:
    """Largest eigenvalue of the Hessian at the end, mean over the choosing runs.

    Args:
        session: The advice in the making.
        ends: Finalist's name → where its runs ended.
        gammas: Finalist's name → γ, where it has one of its own.

    Returns:
        Finalist's name → loss/parameter², NaN where no run ended or one has no known eigenvalue.
    """
    curvature = curvature_of(session.prepared)
    assert curvature is not None  # checked with the options
    found = {}
    for name, states in ends.items():
        fresh = session.prepared.objective(0, gamma=_config(session, name, gammas).gamma)
        runs = [curvature(loaded(fresh, state.progress)) for state in states]
        found[name] = float(np.mean(runs)) if runs else math.nan
    return found


def _config(session: Session, name: str, gammas: Gammas) -> RunConfig:
    """Today's recipe with the γ of a finalist."""
    return session.baseline.replace(gamma=gammas.get(name, session.baseline.gamma))


def judged(prefer: str) -> Callable[[Session, Ends, Gammas], dict[str, float]]:
    """What a preference measures.

    Args:
        prefer: One of :data:`batchlab.advisor.options.PREFERENCES`.
    """
    return {"repeatable": disagreement, "sparse": features_needed, "flat": flatness}[prefer]


class Words(NamedTuple):
    """How a preference is told.

    Attributes:
        quantity: What was measured, in the plan.
        name: What decides.
        taken: Which finalist is taken.
        whole: What the number says of a finalist, ``{n}`` in its place.
        number: The number with its unit.
    """

    quantity: str
    name: str
    taken: str
    whole: str
    number: Callable[[float], str]

    def of(self, value: float) -> str:
        """What is said of a finalist."""
        return self.whole.format(n=self.number(value))


WORDS = {
    "repeatable": Words(
        "disagreement",
        "repeatability",
        "the most repeatable",
        "two of its trainings disagree on {n} of the validation examples",
        lambda v: f"{100 * v:.1f} %",
    ),
    "sparse": Words(
        "features needed",
        "the number of features",
        "the one with the fewest features",
        "its decisions rest on {n}",
        lambda v: f"{v:.1f} internal features",
    ),
    "flat": Words(
        "sharpness",
        "the sharpness",
        "the flattest",
        "the largest eigenvalue of its Hessian is {n}",
        lambda v: f"{v:.3g}",
    ),
}


def preferred(
    session: Session,
    groups: Groups,
    best: str,
    target: float,
    yardstick: Yardstick,
    numbers: Mapping[str, float],
) -> str:
    """Of the finalists that the choosing seeds cannot separate from the best, the one with the
    least of what is preferred.

    Args:
        session: The advice in the making; is told why, and what the preference costs.
        groups: The finalists that may be chosen.
        best: The best of them by the objective.
        target: Metric value that counts as trained.
        yardstick: Turns samples into the objective.
        numbers: From what :func:`judged` gives.

    Returns:
        A finalist's name.
    """
    objective, maximise = session.options.objective, session.prepared.metric.maximise
    spacing = grid_spacing(session.prepared.examples, session.samples)
    asked = yardstick, objective, target, maximise, spacing
    gaps = {n: against(runs, groups[best], *asked).estimate for n, runs in groups.items()}
    accuracy = objective == "accuracy"
    alike = not_told_apart(best, gaps, _lost(session, groups, target), 0.0 if accuracy else 1.0)
    chosen = most_repeatable(best, alike, numbers)
    words, repeats = WORDS[session.options.prefer or "repeatable"], len(groups[best])
    told = _sentence(words, len(groups), len(alike), repeats, numbers[chosen], numbers[best])
    session.listener.say(told)
    if chosen != best and words.quantity != "disagreement":
        session.listener.say(_cost(session, words, gaps[chosen]))
    return chosen


def _sentence(
    words: Words, finalists: int, alike: int, repeats: int, mine: float, best: float
) -> str:
    """Why this finalist was chosen."""
    if finalists == 1:
        return f"there is one finalist only: {words.name} decides nothing"
    if alike == 1:
        return (
            f"{repeats} repeats tell the best finalist from every other: {words.name} decides "
            f"nothing ({words.of(best)})"
        )
    return (
        f"of {alike} finalists that {repeats} repeats cannot tell apart, {words.taken} is "
        f"taken: {words.of(mine)} (the best by the objective: {words.number(best)})"
    )


def _cost(session: Session, words: Words, gap: Estimate) -> str:
    """What the preference costs in the objective, on the seeds that chose."""
    objective = session.options.objective
    if objective == "accuracy":
        name = session.prepared.metric.name
        span = f"{gap.low:+.3g} to {gap.high:+.3g}"
        return f"preferring it costs: {name} {gap.value:+.3g} ({span}, {gap.n} repeats)"
    # Ratios are best / preferred: above 1 the preferred one is the better.
    cost = inverted(gap)
    return (
        f"preferring it costs: {cost.value:.2f} times the {_QUANTITY[objective]} of the "
        f"best by the objective ({cost.low:.2f} to {cost.high:.2f}, {gap.n} repeats)"
    )


_QUANTITY = {"time": "time", "cost": "cost", "samples": "examples"}


def _lost(session: Session, groups: Groups, target: float) -> dict[str, int]:
    """Runs of each finalist that diverged or never arrived."""
    maximise = session.prepared.metric.maximise
    accuracy = session.options.objective == "accuracy"
    rows = {
        n: final_metric(runs) if accuracy else to_target(runs, target, maximise)
        for n, runs in groups.items()
    }
    return {n: int((~np.isfinite(row)).sum()) for n, row in rows.items()}
