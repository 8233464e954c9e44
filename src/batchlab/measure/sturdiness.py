"""Every disturbance and the disagreement of seeds, for the trained runs of several settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from batchlab.config import RunConfig
from batchlab.engine import RunState
from batchlab.measure.disturbance import (
    TABLE,
    Disturbance,
    Kind,
    inputs_of,
    offered,
    shapes_of,
    why_not,
)
from batchlab.measure.repeatability import disagreements, predictions, reading_of
from batchlab.measure.robustness import not_trainable, scores
from batchlab.tasks import Prepared

REPEATS = "repeats"
"""By what name the disagreement of seeds stands among what is left out."""


@dataclass(frozen=True)
class Scores:
    """The metric of one setting's runs without and with a disturbance.

    Attributes:
        what: The disturbance.
        setting: Which setting.
        seeds: The runs that did not diverge.
        clean: Metric without it, a run.
        values: Metric with it, mean over the draws, a run.
    """

    what: Disturbance
    setting: str
    seeds: tuple[int, ...]
    clean: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Repeats:
    """On which share of the validation examples each two runs of a setting disagree.

    Attributes:
        setting: Which setting.
        seeds: The runs that did not diverge, R of them.
        shares: ``[R, R]``.
    """

    setting: str
    seeds: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Survey:
    """What was measured, and what was not.

    Attributes:
        scores: A disturbance of a setting each.
        repeats: A setting each.
        classes: Whether predictions are classes; None where they are not compared.
        left_out: Kind of disturbance, or ``repeats`` → why it does not apply, as a code.
        unpaid: Disturbance's id → seconds it would take; the budget does not pay for it.
    """

    scores: tuple[Scores, ...] = ()
    repeats: tuple[Repeats, ...] = ()
    classes: bool | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    unpaid: dict[str, float] = field(default_factory=dict)

    def with_scores(self, found: Sequence[Scores]) -> Survey:
        """With trainings added; they are unpaid no longer."""
        done = {one.what.id for one in found}
        unpaid = {name: seconds for name, seconds in self.unpaid.items() if name not in done}
        return replace(self, scores=(*self.scores, *found), unpaid=unpaid)


def untrained(prepared: Prepared, table: Sequence[Disturbance] = TABLE) -> list[Disturbance]:
    """The disturbances that apply to a task and need no trainings of their own.

    Args:
        prepared: The task.
        table: What is wanted.
    """
    inputs = shapes_of(prepared.task, prepared.validation)
    return [what for what in offered(inputs, table) if not what.in_training]


def trained(
    prepared: Prepared, batch_size: int, table: Sequence[Disturbance] = TABLE
) -> list[Disturbance]:
    """The changes of the training data that can be made, in the order in which they are trained.

    Args:
        prepared: The task.
        batch_size: Largest of the settings.
        table: What is wanted.
    """
    why = _why_not_trainable(prepared, batch_size, table)
    return [what for what in table if what.in_training and not why[what.kind]]


def _why_not_trainable(
    prepared: Prepared, batch_size: int, table: Sequence[Disturbance]
) -> dict[Kind, str]:
    """Kind of change → why it cannot be made, by its smallest; empty if it can."""
    smallest = {
        what.kind: what for what in sorted(table, key=lambda w: -w.size) if what.in_training
    }
    return {kind: not_trainable(prepared, what, batch_size) for kind, what in smallest.items()}


def evaluations(prepared: Prepared, table: Sequence[Disturbance] = TABLE) -> int:
    """Evaluations of one run: clean, its predictions, and every draw.

    Args:
        prepared: The task.
        table: What is wanted.
    """
    return 2 + sum(what.draws for what in untrained(prepared, table))


def survey(
    prepared: Prepared,
    config: RunConfig,
    ends: Mapping[str, Mapping[int, RunState]],
    batch_size: int,
    *,
    table: Sequence[Disturbance] = TABLE,
    seed: int = 0,
    tick: Callable[[float], None] | None = None,
) -> Survey:
    """Measure all that needs no trainings.

    Args:
        prepared: The task.
        config: The recipe the runs share but for batch size and learning rate.
        ends: Setting → seed → where that run ended; without the runs that diverged.
        batch_size: Largest of the settings.
        table: What is wanted.
        seed: Names the noise, which is the same for every run.
        tick: Told the share that is done.

    Returns:
        The record; ``unpaid`` is empty.
    """
    inputs, wanted = inputs_of(prepared.task, prepared.validation), untrained(prepared, table)
    told, found = tick or (lambda share: None), []
    each = [(name, list(runs.values()), tuple(runs)) for name, runs in ends.items() if runs]
    states = [state for _, of_setting, _ in each for state in of_setting]
    clean = scores(prepared, config, states)
    for done, what in enumerate(wanted):
        told((1 + done) / (2 + len(wanted)))
        pairs = zip(clean, scores(prepared, config, states, what, inputs, seed), strict=True)
        for name, _, seeds in each:
            before, after = zip(*itertools.islice(pairs, len(seeds)), strict=True)
            found.append(Scores(what, name, seeds, before, after))
    reading, repeats = reading_of(prepared), []
    for name, of_setting, seeds in each if reading is not None else ():
        assert reading is not None
        shares = disagreements(predictions(prepared, config, of_setting, reading))
        repeats.append(Repeats(name, seeds, _rows(shares)))
    return Survey(
        tuple(found),
        tuple(repeats),
        None if reading is None else reading.classes,
        _left_out(prepared, batch_size, table) | ({} if reading else {REPEATS: "no targets"}),
    )


def _rows(shares: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in shares.tolist())


def _left_out(prepared: Prepared, batch_size: int, table: Sequence[Disturbance]) -> dict[str, str]:
    """Kind → why it does not apply."""
    inputs = shapes_of(prepared.task, prepared.validation)
    why = {what.kind: why_not(inputs, what.kind) for what in table}
    why |= _why_not_trainable(prepared, batch_size, table)
    return {str(kind): reason for kind, reason in why.items() if reason}


def shares_of(found: Repeats, seeds: Sequence[int]) -> np.ndarray:
    """The disagreements among some of the seeds.

    Args:
        found: A setting's.
        seeds: Which, in order.

    Example:
        >>> three = Repeats("today", (1, 2, 3), ((0, 0.1, 0.2), (0.1, 0, 0.3), (0.2, 0.3, 0)))
        >>> shares_of(three, (3, 1)).tolist()
        [[0.0, 0.2], [0.2, 0.0]]
    """
    places = [found.seeds.index(seed) for seed in seeds]
    return np.array(found.shares, dtype=float)[np.ix_(places, places)]
