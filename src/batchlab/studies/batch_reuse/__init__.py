"""What re-using batches lets a two-layer network learn, and what one pass cannot.

The source's mean-field set-up is simulated with data of its own for every repetition; Gaussian
data are drawn only as far as training asks for them, so that thousands of features take no longer
than their number. Theory is :func:`batchlab.theory.dmft`.
"""

from __future__ import annotations

from collections.abc import Callable

from batchlab._text import Text
from batchlab.errors import InvalidValueError, must
from batchlab.studies.batch_reuse import axes, complexity, early, figure, one_example
from batchlab.studies.batch_reuse.faults import FAULTS
from batchlab.studies.claim import Bench, Cell, Claim, Mode, Parameters, Row, Study, Value

MEASURES: dict[str, Callable[[Cell, Bench], list[Row]]] = {
    early.TABLE: early.measure,
    early.THEORY: early.predicted,
    figure.TABLE: figure.measure,
    figure.THEORY: figure.predicted,
    one_example.TABLE: one_example.measure,
    complexity.TABLE: complexity.measure,
    axes.USES: axes.uses,
    axes.SIZES: axes.sizes,
    axes.KINDS: axes.kinds,
}
"""Table → what fills it."""
TOPICS = (early, figure, one_example, complexity, axes)

QUICK: dict[str, Value] = {
    "seeds": 256,
    "dimensions": "250,500,1000,2000,4000",
    "figure_seeds": 144,
    "hidden_seeds": 640,
    "figure_dimension": 4000,
    "single_seeds": 128,
    "single_dimensions": "256,512",
    "dimensions_1": "64,128,256,512",
    "dimensions_2": "64,128,256,512",
    "dimensions_3": "32,64,128",
    "axis_seeds": 40,
    "theory_samples": 2**17,
    "fault": "none",
}
FULL: dict[str, Value] = {
    "seeds": 1024,
    "dimensions": "250,500,1000,2000,4000,8000",
    "figure_seeds": 1024,
    "hidden_seeds": 4096,
    "figure_dimension": 5000,
    "single_seeds": 512,
    "single_dimensions": "256,512,1024,2048",
    "dimensions_1": "64,128,256,512,1024,2048",
    "dimensions_2": "64,128,256,512,1024,2048",
    "dimensions_3": "32,64,128,256",
    "axis_seeds": 512,
    "theory_samples": 2**20,
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
    name="batch-reuse",
    title=Text(
        "re-using batches to learn what one pass cannot",
        "バッチの再利用で、一度しか見ない学習では学べないことを学ぶ",
    ),
    citations=("dandi2024", "arnaboldi2024", "benarous2021"),
    parameters=PARAMETERS,
    cells=cells,
    measure=measure,
    claims=claims,
    minutes={"quick": 3, "full": 60},
)
