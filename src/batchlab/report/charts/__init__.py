"""The report's pictures: tidy rows out of the record, and specs that read them by name."""

from __future__ import annotations

from altair.utils.schemapi import debug_mode

from batchlab.advisor.record import Advice
from batchlab.report.charts.curves import curves, on_all
from batchlab.report.charts.features import features
from batchlab.report.charts.machine import memory, speed
from batchlab.report.charts.noise import noise
from batchlab.report.charts.pareto import pareto
from batchlab.report.charts.plane import plane
from batchlab.report.charts.robustness import robustness
from batchlab.report.charts.shared import Chart

__all__ = [
    "Chart",
    "charts",
    "curves",
    "features",
    "memory",
    "noise",
    "on_all",
    "pareto",
    "plane",
    "robustness",
    "speed",
]


# Else altair checks every part against its schema as it is made: a quarter of a page's time.
@debug_mode(False)
def charts(advice: Advice) -> dict[str, Chart]:
    """Every picture the record has numbers for, by id.

    Args:
        advice: The record.
    """
    drawn = (
        speed(advice),
        memory(advice),
        noise(advice),
        plane(advice),
        curves(advice),
        pareto(advice),
        on_all(advice),
        robustness(advice),
        features(advice),
    )
    return {one.id: one for one in drawn if one is not None}
