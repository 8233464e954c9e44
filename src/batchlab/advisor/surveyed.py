"""From the metric of single runs under disturbances to rows with intervals, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from batchlab.advisor.record import RepeatRow, Robustness, RobustRow
from batchlab.measure.repeatability import repeatability, repeatability_difference
from batchlab.measure.sturdiness import Repeats, Scores, Survey, shares_of
from batchlab.stats import mean_estimate, median_estimate, paired_difference
from batchlab.types import Estimate

LEAST_SEEDS = 2
"""Fewer than so many common seeds give no row."""
LEAST_FOR_PAIRS = 3
"""Seeds from which on the disagreement of two settings can be compared."""


def centre(values: np.ndarray, maximise: bool, unit: str) -> Estimate:
    """The mean over runs; where a run failed, the median with failures as the worst.

    Args:
        values: Metric of each run, NaN where it failed.
        maximise: Direction of the metric.
        unit: Of the metric.

    Example:
        >>> centre(np.array([0.9, 0.8, np.nan]), True, "%").value
        0.8
    """
    if np.isfinite(values).all():
        return mean_estimate(values, unit, "validation data")
    worst = -math.inf if maximise else math.inf
    return median_estimate(np.nan_to_num(values, nan=worst), unit, "validation data")


def robustness(found: Survey, today: str, other: str, *, maximise: bool, unit: str) -> Robustness:
    """Two settings of a survey side by side.

    Args:
        found: What was measured.
        today: Name of today's settings in it.
        other: Name of the settings set against them.
        maximise: Direction of the metric.
        unit: Of the metric.
    """
    pairs = [
        (one, next((s for s in found.scores if s.setting == other and s.what == one.what), None))
        for one in found.scores
        if one.setting == today
    ]
    rows = [_row(one, two, maximise, unit) for one, two in pairs if two is not None]
    return Robustness(
        tuple(row for row in rows if row is not None),
        _repeats(found.repeats, today, other),
        bool(found.classes),
        found.left_out,
        found.unpaid,
    )


def _row(one: Scores, two: Scores, maximise: bool, unit: str) -> RobustRow | None:
    """One disturbance; None where too few seeds ended in both settings."""
    seeds = [seed for seed in one.seeds if seed in two.seeds]
    if len(seeds) < LEAST_SEEDS:
        return None
    (clean, value), (other_clean, other) = (_of(side, seeds) for side in (one, two))
    gap = paired_difference(value, other, maximise=maximise, unit=unit).estimate
    what = one.what
    return RobustRow(
        str(what.kind),
        what.size,
        what.unit,
        what.draws,
        centre(value, maximise, unit),
        centre(other, maximise, unit),
        paired_difference(clean, value, maximise=maximise, unit=unit).estimate,
        paired_difference(other_clean, other, maximise=maximise, unit=unit).estimate,
        gap,
    )


def _of(scores: Scores, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Metric without and with the disturbance, of these seeds in order."""
    places = [scores.seeds.index(seed) for seed in seeds]
    return np.array(scores.clean)[places], np.array(scores.values)[places]


def _repeats(found: Sequence[Repeats], today: str, other: str) -> RepeatRow | None:
    """On how many examples two trainings disagree, in both settings."""
    sides = {one.setting: one for one in found}
    if today not in sides or other not in sides:
        return None
    seeds = [seed for seed in sides[today].seeds if seed in sides[other].seeds]
    if len(seeds) < LEAST_SEEDS:
        return None
    before, after = (shares_of(sides[name], seeds) for name in (today, other))
    if len(seeds) < LEAST_FOR_PAIRS:
        value = float(after[0, 1] - before[0, 1])
        gap = Estimate(value, math.nan, math.nan, len(seeds), "%")
    else:
        gap = repeatability_difference(before, after).estimate
        gap = replace(gap, low=max(-1.0, gap.low), high=min(1.0, gap.high))
    return RepeatRow(repeatability(before), repeatability(after), gap)
