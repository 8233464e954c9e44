"""Does the batch size decide which minimum is found? A single-neuron autoencoder (ghosh2023)."""

from __future__ import annotations

from batchlab._text import Text
from batchlab.studies.autoencoder.cells import PARAMETERS, cells
from batchlab.studies.autoencoder.claims import claims
from batchlab.studies.autoencoder.findings import findings
from batchlab.studies.autoencoder.measuring import measure
from batchlab.studies.claim import Claim, Parameters, Study


def everything(parameters: Parameters) -> tuple[Claim, ...]:
    """Claims, then findings.

    Args:
        parameters: Of a mode, or overridden.
    """
    return (*claims(parameters), *findings(parameters))


STUDY = Study(
    name="autoencoder",
    title=Text(
        "which minimum a batch size finds, in an autoencoder of one neuron",
        "一つのニューロンのオートエンコーダーで、バッチサイズはどの最小値を選ぶか",
    ),
    citations=("ghosh2023",),
    parameters=PARAMETERS,
    cells=cells,
    measure=measure,
    claims=everything,
    minutes={"quick": 3, "full": 15},
)
