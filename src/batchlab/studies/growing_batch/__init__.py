"""Does growing the batch during training help? Bounds, problems with known constants, and nets.

Sums of finitely many losses show what the theorems say, with exact constants. Nets show what the
source measured, without what stood in its way: a gradient measured at the current batch size in
training mode, one learning rate for all arms, more updates for the growing arm.
"""

from __future__ import annotations

from collections.abc import Callable

from batchlab._text import Text
from batchlab.errors import InvalidValueError, must
from batchlab.studies.claim import Bench, Cell, Claim, Mode, Parameters, Row, Study, Value
from batchlab.studies.growing_batch import arms, plateau, table, vanish
from batchlab.studies.growing_batch.faults import FAULTS
from batchlab.studies.guide import data

MEASURES: dict[str, Callable[[Cell, Bench], list[Row]]] = {
    plateau.TABLE: plateau.measure,
    plateau.IDENTITY: plateau.same,
    vanish.TABLE: vanish.measure,
    table.TABLE: table.measure,
    arms.TABLE: arms.measure,
    arms.SECONDS: arms.seconds,
}
"""Table → what fills it."""
TOPICS = (plateau, vanish, table, arms)

QUICK: dict[str, Value] = {
    "problems": 16,
    "runs": 16,
    "plateau_runs": 8,
    "schedules": "claimed",
    "updates": 6000,
    "pictures": "digits",
    "nets": "plain,normed",
    "arm_nets": "plain",
    "rules": "shb",
    "arms": "equal,double,shrink,step equal,cosine equal",
    "examples": 1024,
    "passes": 10.0,
    "table_seeds": 6,
    "seeds": 8,
    "rates": 3,
    "rounds": 8,
    "fault": "none",
}
FULL: dict[str, Value] = {
    "problems": 48,
    "runs": 32,
    "plateau_runs": 32,
    "schedules": "all",
    "arm_nets": "plain,normed",
    "rules": "sgd,shb,nshb,qhm,adam,adamw,rmsprop",
    "arms": "all",
    "passes": 20.0,
    "table_seeds": 64,
    "rates": 4,
    "rounds": 30,
}
PAPER: dict[str, Value] = {
    "pictures": "cifar10",
    "nets": "resnet18",
    "arm_nets": "resnet18",
    "examples": 50_000,
    "passes": 200.0,
    "table_seeds": 3,
    "seeds": 3,
}
"""ResNet-18 on CIFAR-10, which batchlab reads, in place of CIFAR-100."""
PARAMETERS: dict[Mode, Parameters] = {
    "quick": QUICK,
    "full": QUICK | FULL,
    "paper": QUICK | FULL | PAPER,
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


def lacks(parameters: Parameters, bench: Bench) -> str:
    """What is missing: pictures that have to be fetched."""
    return data.lacking(str(parameters["pictures"]), bench.data)


STUDY = Study(
    name="growing-batch",
    title=Text(
        "growing the batch size during training", "学習中にバッチサイズを大きくしていくこと"
    ),
    citations=("kamo2025", "umeda2024", "imaizumi2025"),
    parameters=PARAMETERS,
    cells=cells,
    measure=measure,
    claims=claims,
    minutes={"quick": 4, "full": 60},
    lacks=lacks,
)
