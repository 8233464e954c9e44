"""Before stage C: whether using each fetched batch for several updates is worth a confirmation.

It can be where fresh samples cost: reading them takes time, or each has a price. Once more over
the same batch is worth one over a fresh batch at best, so the price tells what re-use could save
at most; where that is not worth a change nothing is trained. Else k updates on each batch are
trained beside the best batch size of the search, each k with learning rates of its own, on tuning
seeds that nothing else uses; the best of every k joins the finalists. Where the budget does not
pay for whole trainings the pilot is shorter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from batchlab.advisor.confirm import finalists
from batchlab.advisor.judge import Projected, Yardstick
from batchlab.advisor.pilot import BESIDE, BUDGET, FAILED, TOO_SHORT, Race, lengths, trained
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Choice, Echoes, Pace, reuse_of, reused
from batchlab.engine import evaluation_grid
from batchlab.measure.reuse import most_saved, price_of

FACTORS = (2, 4)
"""k: updates on each batch."""
RATES = (0.5, 1.0, 2.0)
"""Learning rates that are tried, times that of the setting whose batches are used again."""
TUNING, SEEDS = 60, 3
"""Tuning seeds are seed + 60, …; those of batches that grow are seed + 50, …"""
CHEAP = "cheap"


@dataclass(frozen=True)
class EchoPlan:
    """The plan of the pilot.

    Attributes:
        batch_size: Examples.
        learning_rate: Tuned for one update on each batch.
        factors: k, ascending.
        samples: Length of a run.
        seeds: Tuning seeds.
        price: Of a fresh sample, in units of computing one example.
    """

    batch_size: int
    learning_rate: float
    factors: tuple[int, ...]
    samples: int
    seeds: tuple[int, ...]
    price: float

    def tried(self, reuse: int) -> list[Choice]:
        """The settings with so many updates on each batch."""
        return [reused(self.batch_size, times * self.learning_rate, reuse) for times in RATES]


def extra(choices: Iterable[Choice]) -> int:
    """Finalists like today's that these take as long as."""
    return sum(map(reuse_of, choices))


def sample_price(yardstick: Yardstick, objective: str, batch_size: int) -> float:
    """The price of a fresh sample in units of computing one example, by what is optimised.

    Args:
        yardstick: The machine and the prices.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        batch_size: At which both are measured, examples.

    Returns:
        0 to ∞; ∞ where only samples count. ``accuracy`` goes by money where there is a price.
    """
    if objective == "samples":
        return math.inf
    each, share = yardstick.rate(batch_size).value, yardstick.machine.loading(batch_size)
    computing, loading = each * (1 - share) / batch_size, each * share / batch_size
    paid = yardstick.price if objective != "time" else None
    per_hour, per_sample = (None, 0.0) if paid is None else (paid.per_hour, paid.per_sample)
    return price_of(computing, loading + yardstick.reading, per_hour, per_sample)


def plan(
    session: Session, yardstick: Yardstick, rows: Sequence[Projected], seconds: float
) -> EchoPlan | Echoes:
    """The longest pilot that fits, of the uses that could be worth a change.

    Args:
        session: The advice in the making; today's recipe uses each batch once.
        yardstick: The machine and the prices.
        rows: What the search says of every batch size.
        seconds: What the pilot may take.

    Returns:
        The plan, or a record that says why there is none.
    """
    size, rate = winner(session, rows)
    price = sample_price(yardstick, session.options.objective, size)
    factors = tuple(k for k in FACTORS if most_saved(price, k) >= session.options.worth)
    if not factors:
        return Echoes(CHEAP, price=price)
    seeds = tuple(session.options.seed + TUNING + i for i in range(SEEDS))
    plans = [
        EchoPlan(size, rate, factors, samples, seeds, price) for samples in lengths(session, size)
    ]
    if not plans:
        return Echoes(TOO_SHORT, price=price)
    fitting = (one for one in plans if seconds_of(session, one) <= seconds)
    found = next(fitting, None)
    return found or Echoes(BUDGET, seconds_of(session, plans[-1]), price)


def winner(session: Session, rows: Sequence[Projected]) -> tuple[int, float]:
    """The winner of the search: the best finalist if it is better than today's settings.

    Args:
        session: The advice in the making.
        rows: What the search says of every batch size.
    """
    today = (session.batch_size, session.learning_rate)
    objective, maximise = session.options.objective, session.prepared.metric.maximise
    level = 0.0 if objective == "accuracy" else 1.0
    ahead = {row.setting for row in rows if row.burden(objective, maximise).value < level}
    first = finalists(session, rows)[:1]
    return next(((int(b), r) for b, r, *_ in first if (b, r) in ahead), today)


def seconds_of(session: Session, plan: EchoPlan) -> float:
    """What a pilot takes."""
    count = len(evaluation_grid(session.prepared.examples, plan.samples))
    again = len(plan.seeds) - 1
    runs: list[tuple[Pace, int, int]] = [(session.batch_size, plan.samples, count)]
    runs *= len(plan.seeds)
    for k in plan.factors:
        pace = reused(plan.batch_size, plan.learning_rate, k)
        runs += [(pace, plan.samples, count)] * (len(RATES) + again)
    return session.wall_seconds(runs)


def run(session: Session, plan: EchoPlan, yardstick: Callable[[], Yardstick]) -> Echoes:
    """Run the pilot.

    Args:
        session: The advice in the making.
        plan: Its plan.
        yardstick: Makes what turns samples into the objective, from all blocks timed so far.

    Returns:
        The record.
    """
    today = (session.batch_size, session.learning_rate)
    session.visit(sorted({today[0], plan.batch_size}))
    references = trained(session, plan.samples, BESIDE, [today], plan.seeds)
    race = Race(session, yardstick(), plan.samples, plan.seeds, references)
    tried = [plan.tried(k) for k in plan.factors]
    found = race.run(tried, 1, "batches that are used again", "the best of them, again")
    best = tuple(map(tuple, found))
    why = "" if best else FAILED
    return Echoes(why, None, plan.price, plan.samples, race.everything, best)
