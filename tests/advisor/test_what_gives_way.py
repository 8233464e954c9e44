"""What comes after stage C never costs it, and is not spent on repeats when it was paid for."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from batchlab.advisor import advise
from batchlab.advisor.advise import _Stages
from batchlab.advisor.confirm import ConfirmationPlan
from batchlab.advisor.options import Options
from batchlab.advisor.record import Verdict
from batchlab.advisor.stages import Records
from batchlab.measure.insight import Insight
from batchlab.measure.sturdiness import Survey
from batchlab.tasks.prepare import Drawn
from tests.advisor import made

PLAN = ConfirmationPlan((made.OTHER,), (100,), (1000,), True)
FINALIST = 60.0
NOISE, PAIR = 15.0, 40.0
"""Seconds of stage C with one finalist, of the noise, of a pair on all data."""


class Stages(_Stages):
    """After stage B, without a directory; nothing trains."""

    def __init__(self, spendable):
        self.session = made.session(options=Options(budget=1000.0, robustness=True))
        self.journal = SimpleNamespace(plan=lambda name, made=None: made, out=None)
        self.projection, self.confirmation, self.on_all = made.projection([], {}), None, None
        self.pilot = self.echoes = self.tuning = self.strengths = None
        self.survey, self.prices, self._had_confirmation = None, {}, True
        self.insight = Insight(why_not="no hidden layer")
        self.spendable, self.asked = spendable, []


@pytest.fixture
def stages(monkeypatch):
    """``(seconds left) → stages``."""
    found = []

    def planned(session, rows, seconds, growing=(), again=(), stronger=()):
        return PLAN if seconds >= FINALIST else None

    def repeats(session, size, seconds):
        found[-1].asked.append(seconds)
        return 0

    monkeypatch.setattr(advise, "projected", lambda *given, **named: [])
    monkeypatch.setattr(advise, "plan_confirmation", planned)
    monkeypatch.setattr(advise, "seconds_of", lambda *given: FINALIST)
    monkeypatch.setattr(advise, "price_on_all", lambda *given: PAIR)
    monkeypatch.setattr(advise, "_kept_for_noise", lambda session: NOISE)
    monkeypatch.setattr(advise, "affordable_repeats", repeats)
    monkeypatch.setattr(advise, "_spendable", lambda session: found[-1].spendable)
    monkeypatch.setattr(advise.answer, "verdict", lambda view: Verdict.NOT_ENOUGH_EVIDENCE)
    monkeypatch.setattr(advise.answer, "contradicted", lambda view: False)
    monkeypatch.setattr(_Stages, "yardstick", lambda self: None)
    monkeypatch.setattr(_Stages, "_records", lambda self: Records())

    def make(spendable):
        found.append(Stages(spendable))
        return found[-1]

    return make


@pytest.mark.parametrize("left", [FINALIST, FINALIST + NOISE, FINALIST + PAIR, 200.0])
def test_whoever_can_pay_for_stage_c_gets_it(stages, left):
    assert stages(left)._plan_confirmation() == PLAN


def test_whoever_cannot_pay_for_stage_c_does_not_get_it(stages):
    assert stages(FINALIST - 1)._plan_confirmation() is None


@pytest.mark.parametrize(
    ("on_all", "survey", "kept"),
    [
        (None, None, PAIR + NOISE),
        ("measured", None, NOISE),
        (None, Survey(unpaid={"wrong labels 0.1": 70.0}), PAIR + 70.0),
        ("measured", Survey(), 0.0),
    ],
)
def test_more_repeats_leave_what_is_still_to_be_measured(stages, on_all, survey, kept):
    after = stages(500.0)
    after.confirmation = made.confirmation([8000] * 3, [4000] * 3)
    after.on_all, after.survey = on_all, survey
    after._repeat_more()
    assert after.asked == [500.0 - kept]


def test_the_pair_leaves_the_noise_its_time_where_it_can(stages, monkeypatch):
    asked = []

    def planned(session, record, seconds):
        asked.append(seconds)

    monkeypatch.setattr(advise, "plan_on_all", planned)
    after = stages(50.0)
    after.confirmation = made.confirmation([8000] * 3, [4000] * 3)
    whole = after.session.prepared
    after.session.prepared = replace(whole, drawn=Drawn("10%", 0, whole))
    after._repeat_on_all()
    assert asked == [50.0 - NOISE, 50.0]
