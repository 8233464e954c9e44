"""What a practitioner's guide says about batch sizes, as claims on a few small nets.

Each sentence of the guide is one claim or two; where it leaves open what decides, there are two,
which differ in just that. Learning rates are chosen for each batch size on seeds of their own,
unless one rate is the claim.
"""

from __future__ import annotations

from batchlab._text import Text
from batchlab.studies.claim import Bench, Cell, Claim, Mode, Parameters, Row, Study, Value
from batchlab.studies.guide import data, ends, growth, memory, passes, reach, speed

TOPICS = {topic.TABLE: topic for topic in (speed, memory, reach, growth, passes, ends)}
"""Table → the part of the guide that fills it."""

QUICK: dict[str, Value] = {
    "pictures": "digits",
    "net": "mlp",
    "examples": 1024,
    "small": 32,
    "large": 256,
    "steps": 2,
    "stages": 4,
    "passes": 12.0,
    "few": 256,
    "short": 10.0,
    "long": 60.0,
    "wrong": 0.2,
    "target": 0.3,
    "held": 256,
    "reach_small": 5.0,
    "reach_large": 12.0,
    "rates": 4,
    "tuning": 2,
    "seeds": 8,
    "pairs": 6,
    "rounds": 12,
    "trials": 5,
    "fault": "none",
}
FULL: dict[str, Value] = {
    "steps": 4,
    "rates": 7,
    "tuning": 4,
    "seeds": 32,
    "pairs": 48,
    "rounds": 40,
    "trials": 30,
}
PAPER: dict[str, Value] = {
    "pictures": "mnist",
    "net": "cnn",
    "examples": 50_000,
    "few": 5_000,
    "small": 32,
    "large": 2048,
    "steps": 4,
    "stages": 7,
    "target": 0.1,
    "held": 2_000,
    "rates": 7,
    "tuning": 4,
    "seeds": 10,
    "pairs": 10,
    "rounds": 40,
    "trials": 30,
}
"""A guide has no scale of its own: this is larger pictures, a convolutional net for all."""
PARAMETERS: dict[Mode, Parameters] = {
    "quick": QUICK,
    "full": QUICK | FULL,
    "paper": QUICK | PAPER,
}


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
    minutes={"quick": 2, "full": 20},
    lacks=lacks,
)
