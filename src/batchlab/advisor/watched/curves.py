"""Learning curves of watched trainings: every run by itself, and median and range over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from batchlab.advisor.record import CurvePoint
from batchlab.advisor.watched.groups import Group
from batchlab.advisor.watched.runs import LOSS, Run, Series
from batchlab.stats import quantile
from batchlab.types import Status

MOST_POINTS = 4000
"""Of all runs together, so that the page stays small."""
GRID = 40
"""Moments at which the median over runs is formed."""


def curve_points(groups: Sequence[Group], metric: str) -> tuple[CurvePoint, ...]:
    """Loss and metric along every run, and their median and range where a setting has several.

    Args:
        groups: By setting.
        metric: Name of the metric; where it is the loss there is one curve a run.

    Returns:
        Points named ``loss`` and ``metric``.
    """
    names = {"metric": metric} if metric == LOSS else {"loss": LOSS, "metric": metric}
    runs = sum(len(group.runs) for group in groups)
    most = max(20, MOST_POINTS // (runs * len(names)))
    points: list[CurvePoint] = []
    for group in groups:
        for name, key in names.items():
            points += _median(group, name, key)
            for run in group.runs:
                points += _of_run(group.setting.id, run, name, key, most)
    return tuple(points)


def _of_run(id_: str, run: Run, name: str, key: str, most: int) -> list[CurvePoint]:
    series = run.series.get(key)
    if series is None:
        return []
    known = np.flatnonzero(np.isfinite(series.values))
    stride = math.ceil(len(known) / most) if len(known) else 1
    kept = known[::-1][::stride][::-1].tolist()
    points = [_point(id_, name, series, t, run) for t in kept]
    end = "diverged" if run.status is Status.DIVERGED else "" if run.ended else "unfinished"
    if points and end:
        points[-1] = CurvePoint(**{**points[-1].__dict__, "end": end})
    return points


def _point(id_: str, name: str, series: Series, t: int, run: Run) -> CurvePoint:
    return CurvePoint(
        id=id_,
        name=name,
        samples=int(series.samples[t]),
        epochs=float(series.samples[t]) / run.population if run.population else math.nan,
        updates=int(series.updates[t]),
        seconds=float(series.seconds[t]),
        value=float(series.values[t]),
        low=math.nan,
        high=math.nan,
        n=1,
        run=run.name,
    )


def _median(group: Group, name: str, key: str) -> list[CurvePoint]:
    """Over the runs that have not diverged, at equal samples."""
    sound = [
        r for r in group.runs if r.status is not Status.DIVERGED and len(r.series.get(key, ()))
    ]
    if len(sound) < 2:
        return []
    curves = [run.series[key] for run in sound]
    first, last = max(s.samples[0] for s in curves), min(s.samples[-1] for s in curves)
    if not first < last:
        return []
    grid = np.linspace(first, last, GRID)
    table = {
        field: np.array([np.interp(grid, s.samples, getattr(s, field)) for s in curves])
        for field in ("values", "updates", "seconds")
    }
    population = sound[0].population
    return [
        CurvePoint(
            group.setting.id,
            name,
            int(samples),
            samples / population if population else math.nan,
            int(np.median(table["updates"][:, t])),
            float(np.median(table["seconds"][:, t])),
            float(np.median(table["values"][:, t])),
            float(quantile(table["values"][:, t], 0.05)),
            float(quantile(table["values"][:, t], 0.95)),
            len(sound),
        )
        for t, samples in enumerate(grid)
    ]
