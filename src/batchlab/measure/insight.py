"""The internal features of the trained runs of several settings."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine import RunState
from batchlab.engine.cell import one_thread
from batchlab.engine.step import DTYPES
from batchlab.errors import TaskError
from batchlab.measure._curvature import kernels_with_second_derivatives
from batchlab.measure._own import Examples
from batchlab.measure.features import Features, Reader, measure_features
from batchlab.measure.sharpness import Settings, sharpness_probe
from batchlab.tasks import Objective, Prepared

NO_LAYER, TOO_LARGE, BUDGET = "no hidden layer", "too large", "budget"
DIVERGED, FAILED = "diverged", "failed"
"""Why nothing was measured."""
KEPT_BYTES = 2**30
"""The ends of all runs together may take so much of the disk."""
CURVED_EXAMPLES = 256
CURVATURE = Settings(examples=CURVED_EXAMPLES, probes=0, parts=0, tolerance=1e-2)
"""The largest eigenvalue alone, to be compared between settings."""
TRIED_EXAMPLES, TRIED_SECONDS = 8, 1.0
PRODUCTS, GRADIENTS = 40, 3
"""Products that a trained model is expected to take, and gradients that one of them costs."""


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
    return Reader(prepared, precision=config.precision or "float32", gamma=config.gamma)


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


def curvature_of(prepared: Prepared) -> Callable[[Objective], float] | None:
    """Measures the largest eigenvalue of the Hessian at a trained model's weights.

    Args:
        prepared: The task.

    Returns:
        Model → loss/parameter², NaN where the search did not converge: what it has found then is
        a lower bound; None where the model cannot be differentiated twice.
    """
    try:
        probe = sharpness_probe(prepared, CURVATURE)
    except TaskError:
        return None

    def curvature(objective: Objective) -> float:
        found = probe(objective, 0)
        return found["sharpness.eigenvalue_1"] if found["sharpness.converged"] else math.nan

    return curvature


def curvature_seconds(prepared: Prepared) -> float:
    """About what :func:`curvature_of` takes for one model, from a gradient on few examples.

    Args:
        prepared: The task.
    """
    count = min(CURVED_EXAMPLES, prepared.examples)
    few = min(TRIED_EXAMPLES, count)
    each = _gradient_seconds(prepared, few) * count / few
    if each < TRIED_SECONDS:  # what a small model's calls cost does not grow with the examples
        each = min(each, _gradient_seconds(prepared, count))
    return PRODUCTS * GRADIENTS * each


def _gradient_seconds(prepared: Prepared, count: int) -> float:
    """One gradient of an untrained model on so many examples."""
    objective = prepared.objective(0).eval()
    like = next(objective.parameters())
    drawn = Examples.drawn(prepared.train, count, 0)
    batch = drawn.batches(slice(0, count), count, like)[0]
    with (
        _random.seeded(0, "curvature"),
        one_thread(prepared.device),
        kernels_with_second_derivatives(objective),
    ):
        objective(batch)[0].sum().backward()  # the first pass also prepares what the others use
        began = time.perf_counter()
        objective(batch)[0].sum().backward()
        return time.perf_counter() - began


def insight(
    reader: Reader,
    ends: Mapping[str, Mapping[int, RunState]],
    *,
    others: Mapping[str, Reader] | None = None,
    sharpness: Callable[[Objective], float] | None = None,
    tick: Callable[[float], None] | None = None,
) -> Insight:
    """Measure the features of every setting's trained runs.

    Args:
        reader: Of the task.
        ends: Setting → seed → where that run ended; without the runs that diverged.
        others: Setting → its own reader, of settings whose model has another γ.
        sharpness: Measures how sharp the loss is around a trained model; not measured if left out.
        tick: Told the share that is done.

    Returns:
        The record.
    """
    if not all(ends.values()):
        return Insight(why_not=DIVERGED)
    told, found = tick or (lambda share: None), {}
    for done, (name, runs) in enumerate(ends.items()):
        own = (others or {}).get(name, reader)
        found[name] = measure_features(
            own,
            [
                (seed, lambda own=own, state=state: own.of_state(state.progress))
                for seed, state in runs.items()
            ],
            sharpness=sharpness,
            tick=lambda share, done=done: told((done + share) / len(ends)),
        )
    return Insight(found)
