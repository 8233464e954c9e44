"""From the features of single runs to two settings side by side, paired by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from batchlab.advisor.record import FeatureSide, FeatureUse, KeptPoint
from batchlab.measure.features import Features, Kept
from batchlab.measure.insight import Insight
from batchlab.stats import mean_estimate, paired_difference
from batchlab.types import Estimate


def feature_use(found: Insight, today: str, other: str, unit: str = "") -> FeatureUse:
    """Two settings of an insight side by side.

    Args:
        found: What was measured.
        today: Name of today's settings in it.
        other: Name of the settings set against them.
        unit: Of the metric.
    """
    if found.why_not:
        return FeatureUse(found.why_not, found.seconds)
    one, two = found.settings[today], found.settings[other]
    before, after = _paired(one.runs, two.runs)
    gap = None
    if len(before):
        gap = paired_difference(before, after, maximise=False, unit="units").estimate
    return FeatureUse(
        layer=one.layer,
        units=one.units,
        kind=one.kind,
        order=one.order,
        examples=one.examples,
        order_examples=one.order_examples,
        draws=one.draws,
        today=side(one, unit),
        recommended=side(two, unit),
        difference=gap,
        fewer=int((after < before).sum()),
        more=int((after > before).sum()),
        pairs=len(before),
    )


def _paired(one: Sequence[Kept], two: Sequence[Kept]) -> tuple[np.ndarray, np.ndarray]:
    """Units needed of the seeds that both settings have, where both need some."""
    known = {run.seed: run.needed for run in two}
    pairs = [(run.needed, known.get(run.seed)) for run in one]
    kept = [pair for pair in pairs if None not in pair]
    return np.array([a for a, _ in kept], float), np.array([b for _, b in kept], float)


def side(found: Features, unit: str = "") -> FeatureSide:
    """One setting, over its trainings.

    Args:
        found: Its features.
        unit: Of the metric.
    """
    runs = found.runs
    return FeatureSide(
        found.needed,
        found.needed_random,
        _mean([run.active for run in runs], "%"),
        _mean([run.weights for run in runs], "%"),
        tuple(
            KeptPoint(count, _point([r.metric[i] for r in runs], unit), random)
            for i, count in enumerate(runs[0].counts)
            for random in [_point([r.random[i] for r in runs], unit)]
        ),
        found.sheet,
        _mean([run.sharpness for run in runs], ""),
    )


def _mean(values: Sequence[float | None], unit: str) -> Estimate | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return mean_estimate(np.array(known), unit, "trained models") if known else None


def _point(values: Sequence[float], unit: str) -> Estimate:
    """Mean over trainings; NaN where predictions of one are no numbers."""
    made = _mean(values, unit)
    if made is None or made.n < len(values):
        return Estimate(math.nan, math.nan, math.nan, len(values), unit, "validation data")
    return replace(made, source="validation data")
