"""``--prefer``: decides among the finalists that the choosing seeds cannot tell apart.

A preference is a number a run, of which less is better, and the words for it; adding one is an
entry in both tables below and in :data:`batchlab.advisor.options.PREFERENCES`. Where these numbers
cannot be told apart either, the best by the objective is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from batchlab.advisor.decision import not_told_apart, surely_less
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
from batchlab.measure.features import Reader
from batchlab.measure.insight import curvature_of, reader_of
from batchlab.measure.repeatability import (
    disagreements,
    predictions,
    pseudo_values,
    reading_of,
)
from batchlab.stats import mean_estimate, paired_difference
from batchlab.types import Estimate

Groups = Mapping[str, Sequence[Curve]]
"""Finalist's name → its runs on the choosing seeds."""
Ends = Mapping[str, Sequence[RunState | None]]
"""Finalist's name → where its runs ended, None for one that diverged; seed by seed."""
Numbers: TypeAlias = Mapping[str, Sequence[float]]
"""Finalist's name → what is preferred to be small, seed by seed; NaN where it is not known."""
Gammas: TypeAlias = Mapping[str, float | None]
NONE: Gammas = {}
"""Finalist's name → γ, of those whose model has another than today's."""


def disagreement(session: Session, ends: Ends, gammas: Gammas = NONE) -> dict[str, list[float]]:
    """Share of the validation examples on which two choosing runs disagree, by pseudo-values.

    Args:
        session: The advice in the making.
        ends: Finalist's name → where its runs ended.
        gammas: Finalist's name → γ, where it has one of its own.

    Returns:
        Finalist's name → shares, whose mean is that over all pairs of runs; NaN where fewer than
        three runs ended.
    """
    reading = reading_of(session.prepared)
    assert reading is not None  # refused before anything was trained
    found = {}
    for name, states in ends.items():
        config, ended = _config(session, name, gammas), [s for s in states if s is not None]
        known = len(ended) >= 3
        said = predictions(session.prepared, config, ended, reading) if known else []
        shares = iter(pseudo_values(disagreements(said)).tolist() if known else ())
        found[name] = [math.nan if s is None else next(shares, math.nan) for s in states]
    return found


def features_needed(session: Session, ends: Ends, gammas: Gammas = NONE) -> dict[str, list[float]]:
    """Internal features that keep 99 % of the metric's gain.

    Args:
        session: The advice in the making.
        ends: Finalist's name → where its runs ended.
        gammas: Finalist's name → γ, where it has one of its own.

    Returns:
        Finalist's name → units, NaN for a run that needs none.
    """
    found = {}
    for name, states in ends.items():
        reader = reader_of(session.prepared, _config(session, name, gammas))

        def needed(state: RunState, reader: Reader = reader) -> float:
            units = reader.measure(reader.of_state(state.progress), 0)[0].kept.needed
            return math.nan if units is None else float(units)

        found[name] = [math.nan if s is None else needed(s) for s in states]
    return found


def flatness(session: Session, ends: Ends, gammas: Gammas = NONE) -> dict[str, list[float]]:
    """Largest eigenvalue of the Hessian at the end.

    Args:
        session: The advice in the making.
        ends: Finalist's name → where its runs ended.
        gammas: Finalist's name → γ, where it has one of its own.

    Returns:
        Finalist's name → loss/parameter², NaN where it is not known.
    """
    curvature = curvature_of(session.prepared)
    assert curvature is not None  # checked with the options
    found = {}
    for name, states in ends.items():
        fresh = session.prepared.objective(0, gamma=_config(session, name, gammas).gamma)
        found[name] = [
            math.nan if s is None else float(curvature(loaded(fresh, s.progress))) for s in states
        ]
    return found


def _config(session: Session, name: str, gammas: Gammas) -> RunConfig:
    """Today's recipe with the γ of a finalist."""
    return session.baseline.replace(gamma=gammas.get(name, session.baseline.gamma))


def judged(prefer: str) -> Callable[[Session, Ends, Gammas], dict[str, list[float]]]:
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
        more: What a finalist would have to be for that.
        whole: What the number says of a finalist, ``{n}`` in its place.
        number: The number, or a difference of two, as text.
    """

    quantity: str
    name: str
    taken: str
    more: str
    whole: str
    number: Callable[[float], str]

    def of(self, values: Sequence[float]) -> str:
        """What is said of a finalist."""
        return self.whole.format(n=self.mean(values))

    def mean(self, values: Sequence[float]) -> str:
        """The mean of the runs whose number is known, with its interval."""
        known = np.array(values)[np.isfinite(values)]
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        return self.ranged(mean_estimate(known) if known.size else nothing)

    def ranged(self, found: Estimate) -> str:
        """A number with its interval."""
        value, low, high = map(self.number, (found.value, found.low, found.high))
        return f"{value} ({low} to {high})"


WORDS = {
    "repeatable": Words(
        "disagreement",
        "repeatability",
        "the most repeatable",
        "more repeatable",
        "two of its trainings disagree on {n} of the validation examples",
        lambda v: f"{100 * v:.1f} %",
    ),
    "sparse": Words(
        "features needed",
        "the number of features",
        "the one with the fewest features",
        "content with fewer features",
        "its decisions rest on {n} internal features",
        lambda v: f"{v:.1f}",
    ),
    "flat": Words(
        "sharpness",
        "the sharpness",
        "the flattest",
        "flatter",
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
    numbers: Numbers,
) -> str:
    """Of the finalists that the choosing seeds cannot separate from the best, the one with the
    least of what is preferred, if they separate that from the best's.

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
    less = {n: _apart(numbers[best], numbers[n]) for n in alike if n != best}
    chosen = surely_less(best, less)
    words, repeats = WORDS[session.options.prefer or "repeatable"], len(groups[best])
    session.listener.say(_sentence(words, len(groups), repeats, numbers[chosen], less, chosen))
    if chosen != best and words.quantity != "disagreement":
        session.listener.say(_cost(session, words, gaps[chosen]))
    return chosen


def _apart(best: Sequence[float], other: Sequence[float]) -> Estimate:
    """By how much more another finalist has than the best, paired by seed."""
    return paired_difference(np.array(best), np.array(other), maximise=False).estimate


def _sentence(
    words: Words,
    finalists: int,
    repeats: int,
    mine: Sequence[float],
    less: Mapping[str, Estimate],
    chosen: str,
) -> str:
    """Why this finalist was chosen."""
    if finalists == 1:
        return f"there is one finalist only: {words.name} decides nothing"
    if not less:
        return (
            f"{repeats} repeats tell the best finalist from every other: {words.name} decides "
            f"nothing ({words.of(mine)})"
        )
    among = f"of {len(less) + 1} finalists that {repeats} repeats cannot tell apart, "
    if chosen in less:
        return (
            f"{among}{words.taken} is taken: {words.of(mine)}; the difference from the best by "
            f"the objective is {words.ranged(less[chosen])}"
        )
    least = min(less.values(), key=lambda e: e.value)
    return (
        f"{among}none is surely {words.more} than the best by the objective, which is kept: "
        f"{words.of(mine)}; the least difference from it is {words.ranged(least)}"
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
