"""Before stage C: whether a feature-learning strength γ is worth a confirmation, where asked for.

Every γ is trained beside the best batch size of the search, at learning rates around what the law
makes of its own, from the start of training and all in one stack where the model allows it, on
tuning seeds that nothing else uses. The best joins the finalists. Where the budget does not pay
for whole trainings the pilot is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchlab.advisor import strength
from batchlab.advisor.judge import Projected, Yardstick
from batchlab.advisor.pilot import BESIDE, BUDGET, FAILED, TOO_SHORT, Race, lengths, trained
from batchlab.advisor.reusing import winner
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Choice, Pace, Strengths, pace_of, strengthened
from batchlab.engine import evaluation_grid

RATES = (0.25, 1.0, 4.0)
"""Learning rates that are tried, times what the law makes of that of the model as it is."""
TUNING, SEEDS = 70, 3
"""Tuning seeds are seed + 70, …; those of batches that are used again are seed + 60, …"""
MODEL = "model"


@dataclass(frozen=True)
class StrengthPlan:
    """The plan of the pilot.

    Attributes:
        batch_size: Examples.
        learning_rate: Tuned for the model as it is.
        factors: γ (as text) → what the law multiplies the rate by.
        samples: Length of a run.
        seeds: Tuning seeds.
    """

    batch_size: int
    learning_rate: float
    factors: dict[str, float]
    samples: int
    seeds: tuple[int, ...]

    def tried(self) -> list[Choice]:
        """Every γ at its learning rates."""
        return [
            strengthened(self.batch_size, self.learning_rate * factor * times, float(gamma))
            for gamma, factor in self.factors.items()
            for times in RATES
        ]


def plan(session: Session, rows: Sequence[Projected], seconds: float) -> StrengthPlan | Strengths:
    """The longest pilot that fits.

    Args:
        session: The advice in the making, with γ to try; today's model has none.
        rows: What the search says of every batch size.
        seconds: What the pilot may take.

    Returns:
        The plan, or a record that says why there is none.
    """
    if session.no_gamma:
        return Strengths(MODEL)
    size, rate = winner(session, rows)
    if not session.stopwatch.wrapped:
        session.visit([size], wrapped=True)
    layers, rule = strength.depth(session.prepared), session.baseline.rule or ""
    factors = {repr(g): strength.factor(g, layers, rule) for g in session.options.gammas}
    seeds = tuple(session.options.seed + TUNING + i for i in range(SEEDS))
    plans = [
        StrengthPlan(size, rate, factors, samples, seeds) for samples in lengths(session, size)
    ]
    if not plans:
        return Strengths(TOO_SHORT)
    found = next((one for one in plans if seconds_of(session, one) <= seconds), None)
    return found or Strengths(BUDGET, seconds_of(session, plans[-1]))


def price(session: Session) -> float:
    """What a pilot of a whole training's length takes, before any search."""
    factors = dict.fromkeys(map(repr, session.options.gammas), 1.0)
    seeds, size = tuple(range(SEEDS)), session.batch_size
    if not session.stopwatch.wrapped and not session.no_gamma:
        session.visit([size], wrapped=True)
    usual = StrengthPlan(size, session.learning_rate, factors, session.samples, seeds)
    return seconds_of(session, usual)


def seconds_of(session: Session, plan: StrengthPlan) -> float:
    """What a pilot takes: today's settings on every seed, all on one, the best on the others."""
    count = len(evaluation_grid(session.prepared.examples, plan.samples))
    tried = [pace_of(one) for one in plan.tried()]
    again = len(plan.seeds) - 1
    paces: list[Pace] = [session.batch_size] * len(plan.seeds)
    paces += tried + tried[:1] * again
    return session.wall_seconds([(pace, plan.samples, count) for pace in paces])


def run(session: Session, plan: StrengthPlan, yardstick: Callable[[], Yardstick]) -> Strengths:
    """Run the pilot.

    Args:
        session: The advice in the making.
        plan: Its plan.
        yardstick: Makes what turns samples into the objective, from all blocks timed so far.

    Returns:
        The record.
    """
    today, tried = (session.batch_size, session.learning_rate), plan.tried()
    session.visit_all([today, *tried])
    references = trained(session, plan.samples, BESIDE, [today], plan.seeds)
    race = Race(session, yardstick(), plan.samples, plan.seeds, references)
    found = race.run([tried], 1, "γ and its learning rate", "the best γ, again")
    best = tuple(map(tuple, found))
    return Strengths("" if best else FAILED, None, plan.samples, race.everything, best)
