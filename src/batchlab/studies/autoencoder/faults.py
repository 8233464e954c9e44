"""What may be planted: each fault makes the claims that rest on it come out *not reproduced*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from batchlab.errors import InvalidValueError, must
from batchlab.theory.autoencoder import DECAYED, Activation

FAULTS = {
    "": "none",
    "ignores-batch": "every batch is the whole data",
    "leaves-one-out": "the full batch lacks one example",
    "double-step": "the gradient of |x − f|² instead of its half",
    "fixed-step": "the step size is ignored",
    "passes-for-updates": "passes over the data are counted instead of updates",
    "counts-decayed": "coordinates on their way to 0 count as active",
    "sum-for-mean": "curvature of the sum of losses, not their mean",
    "relu-for-linear": "ReLU where the identity is meant",
    "shuffled-cycle": "random batches where a fixed order is meant",
    "inverted-start": "the initial weights are ranked the wrong way round",
    "exchanged-batches": "small and large batches are exchanged, b and n + 1 − b",
    "inverted-cosine": "|w(0)|/|w_i(0)| where its inverse is meant",
    "squares-for-angle": "the chance of two is taken for w_1²/(w_1² + w_2²)",
}
"""Parameter ``fault`` → what is wrong."""

WRONG_RATIO = 0.25


class Runs(NamedTuple):
    """What a cell trains, after what is wrong has been planted.

    Attributes:
        batch_size: b.
        ratio: η/b.
        activation: φ.
        sampling: How batches are drawn.
    """

    batch_size: int
    ratio: float
    activation: Activation
    sampling: str


def planted(fault: str, examples: int, runs: Runs) -> Runs:
    """The runs with a fault.

    Args:
        fault: One of :data:`FAULTS`.
        examples: n.
        runs: As they should be.

    Raises:
        InvalidValueError: If the fault is not known.

    Example:
        >>> planted("double-step", 20, Runs(1, 0.25, "relu", "uniform")).ratio
        0.5
    """
    if fault not in FAULTS:
        raise InvalidValueError(must("fault", f"one of {', '.join(FAULTS)}", fault))
    changed: Mapping[str, dict] = {
        "ignores-batch": {"batch_size": examples},
        "leaves-one-out": {"batch_size": min(runs.batch_size, examples - 1)},
        "double-step": {"ratio": 2 * runs.ratio},
        "fixed-step": {"ratio": WRONG_RATIO},
        "relu-for-linear": {"activation": "relu"},
        "shuffled-cycle": {"sampling": "uniform"},
        "exchanged-batches": {"batch_size": examples + 1 - runs.batch_size},
    }
    return runs._replace(**changed.get(fault, {}))


def decayed(fault: str) -> float:
    """The share of |w|² below which a coordinate counts as inactive."""
    return 0.0 if fault == "counts-decayed" else DECAYED
