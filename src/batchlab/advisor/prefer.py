"""``--prefer repeatable``: the most repeatable of the finalists that cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from batchlab.advisor.decision import most_repeatable, not_told_apart
from batchlab.advisor.judge import Yardstick, final_metric, grid_spacing, to_target
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Curve
from batchlab.engine import RunState
from batchlab.measure.repeatability import (
    disagreements,
    predictions,
    reading_of,
    repeatability,
)
from batchlab.stats import paired_difference

Groups = Mapping[str, Sequence[Curve]]
"""Finalist's name → its runs on the choosing seeds."""


def disagreement(session: Session, ends: Mapping[str, Sequence[RunState]]) -> dict[str, float]:
    """Share of the validation examples on which two choosing runs disagree.

    Args:
        session: The advice in the making.
        ends: Finalist's name → where its runs ended.

    Returns:
        Finalist's name → share, NaN where fewer than two runs ended.
    """
    reading = reading_of(session.prepared)
    assert reading is not None  # refused before anything was trained
    return {
        name: repeatability(
            disagreements(predictions(session.prepared, session.baseline, states, reading))
        ).value
        for name, states in ends.items()
    }


def preferred(
    session: Session,
    groups: Groups,
    best: str,
    target: float,
    yardstick: Yardstick,
    shares: Mapping[str, float],
) -> str:
    """The most repeatable of the finalists that the choosing seeds cannot separate from the best.

    Args:
        session: The advice in the making; is told why.
        groups: The finalists that may be chosen.
        best: The best of them by the objective.
        target: Metric value that counts as trained.
        yardstick: Turns samples into the objective.
        shares: From :func:`disagreement`.

    Returns:
        A finalist's name.
    """
    alike = _alike(session, groups, best, target, yardstick)
    chosen = most_repeatable(best, alike, shares)
    repeats = len(groups[best])
    session.listener.say(_sentence(len(groups), len(alike), repeats, shares[chosen], shares[best]))
    return chosen


def _sentence(finalists: int, alike: int, repeats: int, mine: float, best: float) -> str:
    """Why this finalist was chosen."""
    if finalists == 1:
        return "there is one finalist only: repeatability decides nothing"
    if alike == 1:
        return (
            f"{repeats} repeats tell the best finalist from every other: repeatability decides "
            f"nothing (two of its trainings disagree on {100 * best:.1f} % of the validation "
            "examples)"
        )
    return (
        f"of {alike} finalists that {repeats} repeats cannot tell apart, the most repeatable is "
        f"taken: two of its trainings disagree on {100 * mine:.1f} % of the validation examples "
        f"(the best by the objective: {100 * best:.1f} %)"
    )


def _alike(
    session: Session, groups: Groups, best: str, target: float, yardstick: Yardstick
) -> list[str]:
    """The interval of the paired comparison with the best holds "no difference", and no more of
    their runs fail.
    """
    maximise, objective = session.prepared.metric.maximise, session.options.objective
    if objective == "accuracy":
        ends = {n: final_metric(runs) for n, runs in groups.items()}
        gaps = {
            n: paired_difference(ends[best], row, maximise=maximise).estimate
            for n, row in ends.items()
        }
        return not_told_apart(best, gaps, {n: _lost(row) for n, row in ends.items()}, null=0.0)
    spacing = grid_spacing(session.prepared.examples, session.samples)
    sides = {n: (to_target(r, target, maximise), r[0].batch_size) for n, r in groups.items()}
    ratios = {
        n: yardstick.compare(objective, sides[best], side, spacing).estimate
        for n, side in sides.items()
    }
    return not_told_apart(best, ratios, {n: _lost(row) for n, (row, _) in sides.items()})


def _lost(row: np.ndarray) -> int:
    """Runs that diverged or never arrived."""
    return int((~np.isfinite(row)).sum())
