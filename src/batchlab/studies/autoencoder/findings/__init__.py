"""Beyond the source: numbers without a prediction, each with its interval."""

from __future__ import annotations

from batchlab.studies.autoencoder.findings import nets, other_data, start
from batchlab.studies.claim import Claim, Parameters


def findings(p: Parameters) -> tuple[Claim, ...]:
    """Every finding of the study.

    Args:
        p: Parameters.
    """
    return (*other_data.findings(p), *start.findings(p), *nets.findings(p))
