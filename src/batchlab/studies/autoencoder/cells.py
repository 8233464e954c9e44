"""What is measured, as a function of the study's parameters, and how large each mode is."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from batchlab.errors import InvalidValueError, must
from batchlab.studies.autoencoder.batches import whole_passes
from batchlab.studies.claim import Cell, Mode, Parameters, Value
from batchlab.theory import autoencoder as theory

QUICK: dict[str, Value] = {
    "fault": "",
    "seeds": 64,
    "few_seeds": 16,
    "sizes": "20,100",
    "ratio": 0.3,
    "phase_examples": 32,
    "phase_ratios": "0.2,0.3,0.45",
    "phase_seeds": 32,
    "law_sizes": "16,64,256",
    "law_ratios": "0.05,0.13,0.32",
    "law_batches": "1,2,4,8",
    "law_examples": 32,
    "pairs": 10000,
    "cyclic_examples": 21,
    "stability_examples": 8,
    "engine_updates": 100,
    "engine_seeds": 4,
    "amounts": "few",
    "data_updates": 6000,
    "data_seeds": 16,
    "neurons_updates": 1200,
    "digit_updates": 1024,
    "net_seeds": 8,
}
"""Parameter → its value with ``--quick``; lists of numbers are written with commas. Few seeds are
those of what hardly differs from seed to seed: curvature at a minimum, stability, and the switch.
"""

FULL: dict[str, Value] = {
    **QUICK,
    "seeds": 128,
    "few_seeds": 128,
    "sizes": "20,100,1000",
    "phase_ratios": "0.05,0.1,0.2,0.3,0.4,0.45",
    "phase_seeds": 100,
    "law_sizes": "16,32,64,128,256,512,1000",
    "law_ratios": "0.04,0.08,0.16,0.32",
    "law_batches": "1,2,4,8,12",
    "engine_updates": 300,
    "engine_seeds": 16,
    "amounts": "all",
    "data_updates": 12000,
    "data_seeds": 100,
    "neurons_updates": 2000,
    "digit_updates": 3072,
    "net_seeds": 16,
}
PAPER: dict[str, Value] = {
    **FULL,
    "seeds": 1000,
    "few_seeds": 1000,
    "phase_seeds": 1000,
    "pairs": 20000,
}

PARAMETERS: Mapping[Mode, Parameters] = {"quick": QUICK, "full": FULL, "paper": PAPER}

PAIR_RATIO = 0.1
"""η/b of two coordinates: small, since the law is one of small steps."""

AMOUNTS: dict[str, dict[str, tuple[float, ...]]] = {
    "few": {
        "correlated": (0.0, 0.01, 0.1),
        "unequal": (0.0, 0.1),
        "momentum": (0.0, 0.9),
        "digits": (0.0, 1.0),
    },
    "all": {
        "correlated": (0.0, 0.003, 0.01, 0.03, 0.1, 0.3),
        "unequal": (0.0, 0.01, 0.03, 0.1, 0.3),
        "momentum": (0.0, 0.5, 0.9),
        "digits": (0.0, 1.0),
    },
}
"""Kind of other data → how far from orthonormal; the findings are on those that are in both."""
NEURONS = (2, 4, 8, 16)
DATA_EXAMPLES = 32
DIGITS, DIGIT_BATCH = 256, 8
ENGINE_EXAMPLES = 20
FULL_BATCH_UPDATES = 50
"""About what a full-batch run takes."""

BASE: dict[str, Value] = {
    "what": "ends",
    "sampling": "uniform",
    "activation": "linear",
    "longest": 0,
}


def listed(text: Value) -> tuple[float, ...]:
    """A parameter that is a list.

    Example:
        >>> listed("0.1,2")
        (0.1, 2.0)
    """
    return tuple(float(part) for part in str(text).split(","))


def whole(text: Value) -> tuple[int, ...]:
    """A parameter that is a list of whole numbers.

    Example:
        >>> whole("20,100")
        (20, 100)
    """
    return tuple(int(part) for part in str(text).split(","))


def batch_sizes(examples: int) -> tuple[int, ...]:
    """1, 2, a quarter, a half, three quarters, all but one, all.

    Example:
        >>> batch_sizes(20)
        (1, 2, 5, 10, 15, 19, 20)
    """
    n = examples
    return tuple(sorted({1, 2, n // 4, n // 2, 3 * n // 4, n - 1, n}))


def few_sizes(examples: int) -> tuple[int, ...]:
    """1, a half, all but one, all.

    Example:
        >>> few_sizes(3)
        (1, 2, 3)
    """
    return tuple(sorted({1, examples // 2, examples - 1, examples}))


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """Every cell of the study.

    Args:
        parameters: Of a mode, or overridden.
    """
    p = parameters
    parts = (_grid, _phase, _cyclic, _laws, _curvature, _stability, _engine, _data, _nets)
    return tuple(cell for part in parts for cell in part(p))


def _runs(
    p: Parameters, table: str, n: int, b: int, ratio: float, seeds: int, **more: Value
) -> Cell:
    """Runs of one neuron on orthonormal data."""
    own = {"examples": n, "dimensions": n, "batch_size": b, "ratio": ratio, "seeds": seeds}
    settings = {**BASE, **own, "fault": p["fault"], **more}
    return Cell(table, settings, _seconds(n, b, ratio, seeds))


def _seconds(n: int, b: int, ratio: float, seeds: int) -> float:
    """40 µs an update, and 40 ns for each number drawn or touched in it; b = n by the module."""
    noise = theory.disagreement(n, b) * ratio**2
    if not noise:
        return 0.05 + FULL_BATCH_UPDATES * (1e-3 + 1e-8 * seeds * n * n)
    updates = 1.3 * theory.SPARSITY_CONSTANT / noise
    few = min(b, n - b)
    drawn = n if few**2 > 4 * n else few
    return 0.05 + updates * (4e-5 + 4e-8 * seeds * drawn)


def _grid(p: Parameters) -> Iterator[Cell]:
    ratio, seeds = float(p["ratio"]), int(p["seeds"])
    for n in whole(p["sizes"]):
        for activation in theory.ACTIVATIONS:
            for b in batch_sizes(n):
                yield _runs(p, "grid", n, b, ratio, seeds, activation=activation)
    n = whole(p["sizes"])[0]
    for b in few_sizes(n):
        yield _runs(p, "wide", n, b, ratio, seeds, dimensions=4 * n)


def _phase(p: Parameters) -> Iterator[Cell]:
    n, seeds = int(p["phase_examples"]), int(p["phase_seeds"])
    for ratio in listed(p["phase_ratios"]):
        for b in batch_sizes(n):
            yield _runs(p, "phase", n, b, ratio, seeds)


def _cyclic(p: Parameters) -> Iterator[Cell]:
    n, ratio, seeds = int(p["cyclic_examples"]), float(p["ratio"]), int(p["seeds"])
    longest = 10 * math.ceil(theory.time_to_sparsity(n, 1, ratio))
    for activation in theory.ACTIVATIONS:
        for b in (1, n // 2, n - 1):
            more: dict[str, Value] = {"sampling": "cyclic", "longest": longest}
            yield _runs(p, "cyclic", n, b, ratio, seeds, activation=activation, **more)
    fixed: dict[str, Value] = {"what": "partition", "sampling": "cyclic", "longest": longest}
    yield _runs(p, "partition", 20, 5, ratio, seeds, **fixed)


def _laws(p: Parameters) -> Iterator[Cell]:
    seeds, n = int(p["seeds"]), int(p["law_examples"])
    for size in whole(p["law_sizes"]):
        yield _runs(p, "law_n", size, 1, 0.25, seeds)
    for ratio in listed(p["law_ratios"]):
        yield _runs(p, "law_step", n, n // 8, ratio, seeds)
    for b in whole(p["law_batches"]):
        yield _runs(p, "law_batch", n, b, 0.4 / b, seeds)
    yield _runs(p, "two", 2, 1, PAIR_RATIO, int(p["pairs"]), what="two")
    # The relation between steps and batches: sparse first, then the whole data.
    more: dict[str, Value] = {"what": "switch", "updates": 2000, "activation": "relu"}
    few = int(p["few_seeds"])
    sparse = _runs(p, "switch", n, n // 2, float(p["ratio"]), few, **more)
    yield dataclasses.replace(sparse, seconds=sparse.seconds + 4.0)


def _curvature(p: Parameters) -> Iterator[Cell]:
    n, ratio, seeds = whole(p["sizes"])[0], float(p["ratio"]), int(p["few_seeds"])
    for activation, dimensions in (("linear", n), ("relu", n), ("relu", 4 * n)):
        for b in few_sizes(n):
            more: dict[str, Value] = {"what": "curvature", "activation": activation}
            yield _runs(p, "curvature", n, b, ratio, seeds, dimensions=dimensions, **more)


def _stability(p: Parameters) -> Iterator[Cell]:
    n, seeds = int(p["stability_examples"]), int(p["few_seeds"])
    for b in few_sizes(n):
        settings = {**BASE, "what": "stability", "examples": n, "batch_size": b}
        seconds = 3.0 if b < n else 0.5
        yield Cell("stability", {**settings, "seeds": seeds, "fault": p["fault"]}, seconds)


def _engine(p: Parameters) -> Iterator[Cell]:
    n, ratio, seeds = ENGINE_EXAMPLES, float(p["ratio"]), int(p["engine_seeds"])
    for activation in theory.ACTIVATIONS:
        for b, executor in itertools.product((1, 7, n), ("loop", "stacked")):
            updates = int(p["engine_updates"])
            if executor == "stacked" and b == 1:  # until most runs are sparse
                updates = max(updates, math.ceil(1.5 * theory.time_to_sparsity(n, b, ratio * b)))
            settings: dict[str, Value] = {
                "what": "engine",
                "examples": n,
                "batch_size": b,
                "activation": activation,
                "executor": executor,
                "ratio": ratio,
                "updates": updates,
                "seeds": seeds,
                "fault": p["fault"],
            }
            seconds = 0.3 + updates * (3e-4 * seeds if executor == "loop" else 2e-3)
            yield Cell("engine", settings, seconds)


def _data(p: Parameters) -> Iterator[Cell]:
    n, updates, seeds = DATA_EXAMPLES, int(p["data_updates"]), int(p["data_seeds"])
    if p["amounts"] not in AMOUNTS:
        raise InvalidValueError(must("amounts", f"one of {', '.join(AMOUNTS)}", p["amounts"]))
    for kind, amounts in AMOUNTS[str(p["amounts"])].items():
        for amount in amounts:
            for b in few_sizes(n):
                settings: dict[str, Value] = {
                    "what": "data",
                    "kind": kind,
                    "amount": amount,
                    "examples": n,
                    "batch_size": b,
                    "activation": "linear",
                    "ratio": float(p["ratio"]),
                    "updates": updates,
                    "seeds": seeds,
                    "fault": p["fault"],
                }
                yield Cell(kind, settings, updates * (5e-5 + 1e-8 * seeds * n * 10))


def _nets(p: Parameters) -> Iterator[Cell]:
    n, seeds = DATA_EXAMPLES, int(p["net_seeds"])
    shared: dict[str, Value] = {"seeds": seeds, "fault": p["fault"]}
    for neurons in NEURONS:
        updates = whole_passes(int(p["neurons_updates"]), n // 2, n, "neurons_updates")
        own: dict[str, Any] = {"what": "neurons", "examples": n, "batch_size": n // 2}
        own |= {"neurons": neurons, "ratio": float(p["ratio"]), "updates": updates}
        yield Cell("neurons", {**own, **shared}, 1.0 + 1e-4 * seeds * updates)
    for net, rate in (("tied", 0.5), ("three-layer", 0.5)):
        updates = whole_passes(int(p["digit_updates"]), DIGIT_BATCH, DIGITS, "digit_updates")
        own = {"what": "digit_nets", "net": net, "examples": DIGITS, "batch_size": DIGIT_BATCH}
        own |= {"learning_rate": rate, "updates": updates}
        yield Cell("digit_nets", {**own, **shared}, 2.0 + 5e-4 * seeds * updates)
