"""After stage C: on how many internal features the decisions of both settings' models rest.

It needs no trainings, only the ends of the runs on fresh seeds, and is measured wherever it takes
at most a tenth of the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from batchlab.advisor.confirm import ConfirmationPlan, end_states
from batchlab.advisor.journal import Journal
from batchlab.advisor.options import Options
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Choice, Confirmation, gamma_of
from batchlab.errors import reason
from batchlab.measure import insight as inside
from batchlab.measure.features import Reader
from batchlab.measure.insight import BUDGET, FAILED, Insight
from batchlab.tasks import Objective, Prepared

BUDGET_SHARE = 0.1
"""Of the budget, it may take so much without being asked for."""
TODAY, CHOSEN = "today", "recommended"


class Inside(NamedTuple):
    """Whether the features of trained models can be measured.

    Attributes:
        reader: Reads them, or None.
        why_not: Why they cannot be, as a code; empty if they can.
        seconds: What one trained model takes.
        curvature: Measures its sharpness, or None where that cannot be or would cost too much.
        said: What the model raised where it cannot be taken apart.
    """

    reader: Reader | None
    why_not: str
    seconds: float = 0.0
    curvature: Callable[[Objective], float] | None = None
    said: str = ""


def look(prepared: Prepared, options: Options) -> Inside:
    """Whether, and at what price; nothing is trained.

    Args:
        prepared: The task.
        options: How many runs are confirmed.
    """
    try:
        reader = inside.reader_of(prepared, prepared.baseline)
        runs = 2 * options.confirm_seeds
        why = inside.why_not(prepared, prepared.baseline, reader, runs)
        if why:
            return Inside(None, why)
        seconds, bent = reader.seconds(), inside.curvature_seconds(prepared)
        affordable = runs * (seconds + bent) <= allowed(options)
        curvature = inside.curvature_of(prepared) if affordable else None
        return Inside(reader, "", seconds + (bent if curvature else 0.0), curvature)
    except Exception as error:  # the user's own model may refuse to be taken apart
        return Inside(None, FAILED, said=reason(error))


def allowed(options: Options) -> float:
    """Seconds that it may take: a tenth of the budget, all of it where the choice asks for it.

    Args:
        options: What is asked.
    """
    if options.budget is None or options.prefer in ("sparse", "flat"):
        return float("inf")
    return BUDGET_SHARE * options.budget


def reserved(found: Inside, options: Options) -> float:
    """Seconds that stage C leaves for it; none where it would take too many.

    Args:
        found: From :func:`look`.
        options: What is asked.
    """
    needed = 2 * options.confirm_seeds * found.seconds
    return needed if not found.why_not and needed <= allowed(options) else 0.0


def price(found: Inside, options: Options, finalists: int) -> float:
    """Seconds for the models of both settings, and of the finalists if these are chosen by it.

    Args:
        found: From :func:`look`.
        options: What is asked.
        finalists: How many there are.
    """
    preferred = finalists * options.seeds * (options.prefer in ("sparse", "flat"))
    return (2 * options.confirm_seeds + preferred) * found.seconds


def measure(
    session: Session,
    journal: Journal,
    plan: ConfirmationPlan,
    record: Confirmation,
    found: Inside,
    spendable: float,
    again: Callable[[Choice], float],
) -> Insight:
    """The features of both settings' models, on the runs with fresh seeds.

    Args:
        session: The advice in the making.
        journal: Keeps that it was begun: a resumed advice goes on with it whatever it takes.
        plan: Of stage C: its seeds.
        record: Of stage C: the choice.
        found: From :func:`look`.
        spendable: Seconds that are left.
        again: Seconds for the fresh runs once more, where their ends were not kept.

    Returns:
        The record, or why there is none.
    """
    if found.reader is None:
        if found.said:
            session.listener.say(f"the model cannot be taken apart into features: {found.said}")
        return Insight(why_not=found.why_not)
    chosen = record.choice
    cost = 2 * len(plan.fresh) * found.seconds + again(chosen)
    paid = cost <= min(spendable, allowed(session.options))
    if journal.plan("features", {"expected_seconds": cost} if paid else None) is None:
        return Insight(why_not=BUDGET, seconds=cost)
    before, after = end_states(session, chosen, plan.fresh) or ({}, {})
    config = session.of(chosen, session.options.seed)
    own = gamma_of(chosen) is not None
    try:
        return inside.insight(
            found.reader,
            {TODAY: before, CHOSEN: after},
            others={CHOSEN: inside.reader_of(session.prepared, config)} if own else None,
            sharpness=found.curvature,
            tick=lambda share: session.listener.progress("internal features", share),
        )
    except Exception as error:  # what was confirmed before stands whatever this runs into
        said = reason(error)
        session.listener.say(f"the model cannot be taken apart into features: {said}")
        return Insight(why_not=FAILED)
