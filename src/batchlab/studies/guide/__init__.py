"""What a practitioner's guide says about batch sizes, as claims on a few small nets.

Each sentence of the guide is one claim or two; where it leaves open what decides, there are two,
which differ in just that. Learning rates are chosen for each batch size, and anew in every
repetition on seeds of its own, unless one rate is the claim: the interval of the repetitions holds
the doubt about the rate.
"""

from __future__ import annotations

from batchlab._text import Text
from batchlab.studies.claim import Bench, Cell, Claim, Parameters, Row, Study
from batchlab.studies.guide import data, ends, growth, memory, passes, reach, speed
from batchlab.studies.guide.asked import PARAMETERS

TOPICS = {topic.TABLE: topic for topic in (speed, memory, reach, growth, passes, ends)}
"""Table → the part of the guide that fills it."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """What is measured for all parts."""
    return tuple(cell for topic in TOPICS.values() for cell in topic.cells(parameters))


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """The rows of a cell, by the part that it belongs to."""
    return TOPICS[cell.table].measure(cell, bench)


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """The claims of all parts, then the findings."""
    found = [claim for topic in TOPICS.values() for claim in topic.claims(parameters)]
    return (*found, *speed.findings(parameters), *passes.findings(parameters))


def lacks(parameters: Parameters, bench: Bench) -> str:
    """What is missing: pictures that have to be fetched."""
    return data.lacking(str(parameters["pictures"]), bench.data)


STUDY = Study(
    name="guide",
    title=Text(
        "what a practitioner's guide says about batch sizes",
        "バッチサイズについて実務の手引きが言うこと",
    ),
    citations=("mccandlish2018", "ghosh2023", "kamo2025", "umeda2024"),
    parameters=PARAMETERS,
    cells=cells,
    measure=measure,
    claims=claims,
    minutes={"quick": 3, "full": 40},
    lacks=lacks,
)
