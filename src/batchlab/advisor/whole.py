"""One pair on all data, after the stages on a part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchlab.advisor.confirm import _curves
from batchlab.advisor.session import Session, Stopwatch
from batchlab.advisor.stages import (
    Choice,
    Confirmation,
    OnAll,
    Pace,
    choice_of,
    pace_of,
)
from batchlab.engine import Engine, evaluation_grid

ON_ALL = 2_000_000
"""Seeds of the pairs on all data are seed + 2,000,000, … and are used by nothing else."""
MOST_PAIRS = 3
"""Pairs on all data at most: each takes two whole trainings."""
KEY = "all-data"
"""The name of this step in plan, prices and next step."""


@dataclass(frozen=True)
class WholePlan:
    """The plan of the pairs on all data.

    Attributes:
        batch_size: Of the best alternative.
        learning_rate: Of the best alternative.
        seeds: One a pair.
        growth: What a batch that grows has besides, ``rate_growth`` and ``lr_schedule``; of a
            setting of which more was searched, what else differs from today's.
    """

    batch_size: int | str
    learning_rate: float
    seeds: tuple[int, ...]
    growth: tuple[Any, ...] = ()

    @property
    def choice(self) -> Choice:
        """The best alternative."""
        return choice_of([self.batch_size, self.learning_rate, *self.growth])


def price_on_all(session: Session, pace: Pace | None = None, pairs: int = 1) -> float:
    """Seconds of so many pairs on all data; 0 where the stages run on all data anyway.

    Args:
        session: The advice in the making.
        pace: Of the best alternative; as today where it is not known yet.
        pairs: Pairs.
    """
    if session.prepared.drawn is None:
        return 0.0
    whole = _on_all(session)
    count = len(evaluation_grid(whole.prepared.examples, whole.samples))
    today = whole.today[0]
    pair = [(size, whole.samples, count) for size in (today, pace or today)]
    return whole.wall_seconds(pair * pairs)


def plan_on_all(session: Session, record: Confirmation, seconds: float) -> WholePlan | None:
    """As many pairs as fit, at most three.

    Args:
        session: The advice in the making.
        record: Stage C, which fixed the alternative.
        seconds: What they may take.

    Returns:
        The plan, or None if not even one pair fits.
    """
    size, rate, *growth = record.choice
    pace, counts = pace_of(record.choice), range(MOST_PAIRS, 0, -1)
    fitting = (n for n in counts if price_on_all(session, pace, n) <= seconds)
    count = next(fitting, 0)
    first = session.options.seed + ON_ALL
    seeds = tuple(range(first, first + count))
    return WholePlan(size, rate, seeds, tuple(growth)) if count else None


def repeat_on_all(session: Session, plan: WholePlan, out: Path) -> OnAll:
    """Train today's settings and the best alternative on all data, to the whole length.

    Args:
        session: The advice in the making, on a part of the data.
        plan: The plan.
        out: Result directory: finished runs lie beside those on the part.

    Returns:
        The record.
    """
    whole = _on_all(session)
    pairs = [whole.today, plan.choice]
    stopwatch = Stopwatch(whole.prepared, session.stopwatch.threads, team=session.stopwatch.team)
    session.engine.close()  # its workers hold the part of the data
    with Engine(whole.prepared, out, session.engine.workers, on=session.engine.on) as engine:
        whole = replace(whole, engine=engine, stopwatch=stopwatch)
        whole.visit_all(pairs)
        runs = _curves(whole, "the pair on all data", pairs, plan.seeds)
        whole.visit_all(pairs)
    count = len(plan.seeds)
    return OnAll(
        whole.prepared.examples,
        whole.samples,
        stopwatch.blocks,
        runs[:count],
        runs[count:],
        stopwatch.wrapped,
    )


def _on_all(session: Session) -> Session:
    """The same advice on all data; what was timed on the part stands for it until it is timed."""
    drawn = session.prepared.drawn
    assert drawn is not None
    return replace(session, prepared=drawn.whole, started=False)
