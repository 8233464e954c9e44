"""The source's claims and those derived from its model, fixed before the first run.

Margins are those of the first draft, from before anything was run. What is expected and how much
repetitions differ is derived where a formula is named; the rest comes from a pilot of 24
repetitions under another seed. Where it expects a value near the end of a margin, the margin stays
and the claim may come out open.
"""

from __future__ import annotations

from batchlab.studies.autoencoder.claims import (
    agreement,
    curvature,
    direction,
    minima,
    order,
    steps,
    times,
    winners,
)
from batchlab.studies.claim import Claim, Parameters

PARTS = (minima, direction, curvature, order, winners, steps, times, agreement)


def claims(p: Parameters) -> tuple[Claim, ...]:
    """Every claim of the study but its findings.

    Args:
        p: Parameters.
    """
    return tuple(claim for part in PARTS for claim in part.claims(p))
