"""Which learning rates train at each feature-learning strength γ, and what training looks like.

Nets that differ in γ and η train together, without autograd; theory is
:mod:`batchlab.theory.feature_strength`.
"""

from __future__ import annotations

from collections.abc import Callable

from batchlab._text import Text
from batchlab.errors import InvalidValueError, must
from batchlab.studies.claim import Bench, Cell, Claim, Mode, Parameters, Row, Study, Value
from batchlab.studies.feature_strength import beyond, curves, exponents, plane
from batchlab.studies.feature_strength.faults import FAULTS

MEASURES: dict[str, Callable[[Cell, Bench], list[Row]]] = {
    exponents.TABLE: exponents.measure,
    exponents.CLOSING: exponents.measure,
    exponents.ENTROPY: exponents.measure,
    curves.CURVES: curves.curves,
    curves.ENDS: curves.ends,
    curves.FULL_BATCH: curves.full_batch,
    plane.TABLE: plane.measure,
    plane.RUNS: plane.looked_at,
    beyond.EDGES: beyond.edges,
    beyond.PASSES: beyond.passes,
    beyond.SCALE: beyond.scale,
}
"""Table → what fills it."""
TOPICS = (exponents, curves, plane, beyond)

QUICK: dict[str, Value] = {
    "seeds": 6,
    "triangle_seeds": 3,
    "updates": 300,
    "width": 64,
    "plane_seeds": 2,
    "plane_updates": 150,
    "plane_span": 4,
    "beyond_seeds": 2,
    "fault": "none",
}
FULL: dict[str, Value] = {
    "seeds": 20,
    "triangle_seeds": 20,
    "updates": 1000,
    "plane_seeds": 2,
    "plane_updates": 3000,
    "plane_span": 8,
    "beyond_seeds": 10,
}
PARAMETERS: dict[Mode, Parameters] = {
    "quick": QUICK,
    "full": QUICK | FULL,
    "paper": QUICK | FULL,
}


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """What is measured for all parts."""
    if parameters["fault"] not in FAULTS:
        raise InvalidValueError(must("fault", f"one of {', '.join(FAULTS)}", parameters["fault"]))
    return tuple(cell for topic in TOPICS for cell in topic.cells(parameters))


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """The rows of a cell, by the part that it belongs to."""
    return MEASURES[cell.table](cell, bench)


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """The claims of all parts, then the findings."""
    found = [claim for topic in TOPICS for claim in topic.claims(parameters)]
    return (*found, *(claim for topic in TOPICS for claim in topic.findings(parameters)))


STUDY = Study(
    name="feature-strength",
    title=Text(
        "feature-learning strength γ and the learning rates that it allows",
        "特徴学習の強さγと、使える学習率",
    ),
    citations=("atanasov2025", "lewkowycz2020"),
    parameters=PARAMETERS,
    cells=cells,
    measure=measure,
    claims=claims,
    minutes={"quick": 3, "full": 30},
)
