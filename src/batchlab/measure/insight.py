"""The internal features of the trained runs of several settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from batchlab.config import RunConfig
from batchlab.engine import RunState
from batchlab.engine.step import DTYPES
from batchlab.measure.features import Features, Reader, measure_features
from batchlab.tasks import Objective, Prepared

NO_LAYER, TOO_LARGE, BUDGET = "no hidden layer", "too large", "budget"
DIVERGED, FAILED = "diverged", "failed"
"""Why nothing was measured."""
KEPT_BYTES = 2**30
"""The ends of all runs together may take so much of the disk."""


@dataclass(frozen=True)
class Insight:
    """What was measured, or why not.

    Attributes:
        settings: Setting → its features.
        why_not: Why nothing was measured; empty where something was.
        seconds: What it would take, where the budget does not pay for it.
    """

    settings: dict[str, Features] = field(default_factory=dict)
    why_not: str = ""
    seconds: float | None = None


def reader_of(prepared: Prepared, config: RunConfig) -> Reader:
    """Reads the trained runs of a recipe.

    Args:
        prepared: The task.
        config: The runs' recipe; its precision is that of the evaluation.
    """
    return Reader(prepared, precision=config.precision or "float32")


def why_not(prepared: Prepared, config: RunConfig, reader: Reader, runs: int) -> str:
    """Why the features of trained runs cannot be measured, as a code; empty if they can.

    Args:
        prepared: The task.
        config: The runs' recipe.
        reader: Of the task.
        runs: Runs whose ends are kept.
    """
    if reader.site is None:
        return NO_LAYER
    # Parameters, and as much again for what the rule keeps of each.
    numbers = 2 * sum(p.numel() for p in reader.objective.parameters())
    return TOO_LARGE if runs * numbers * DTYPES[config.precision].itemsize > KEPT_BYTES else ""


def insight(
    reader: Reader,
    ends: Mapping[str, Mapping[int, RunState]],
    *,
    sharpness: Callable[[Objective], float] | None = None,
    tick: Callable[[float], None] | None = None,
) -> Insight:
    """Measure the features of every setting's trained runs.

    Args:
        reader: Of the task.
        ends: Setting → seed → where that run ended; without the runs that diverged.
        sharpness: Measures how sharp the loss is around a trained model; not measured if left out.
        tick: Told the share that is done.

    Returns:
        The record.
    """
    if not all(ends.values()):
        return Insight(why_not=DIVERGED)
    told, found = tick or (lambda share: None), {}
    for done, (name, runs) in enumerate(ends.items()):
        found[name] = measure_features(
            reader,
            [
                (seed, lambda state=state: reader.of_state(state.progress))
                for seed, state in runs.items()
            ],
            sharpness=sharpness,
            tick=lambda share, done=done: told((done + share) / len(ends)),
        )
    return Insight(found)
