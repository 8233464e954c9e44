"""Robustness after stage C: what is paid for, what is named with its price, and the rows."""

import math

import numpy as np
import pytest

from batchlab.advisor import sturdy
from batchlab.advisor.confirm import ConfirmationPlan
from batchlab.advisor.journal import Journal
from batchlab.advisor.options import Options
from batchlab.advisor.surveyed import robustness
from batchlab.measure.disturbance import Disturbance, Kind
from batchlab.measure.sturdiness import Repeats, Scores, Survey, trained
from batchlab.stats import paired_difference
from batchlab.types import from_plain, to_plain
from tests.advisor import made

PLAN = ConfirmationPlan((made.OTHER,), (100, 101), (1000, 1001, 1002), True)
RECORD = made.confirmation((4000, 4000, 4000), (3000, 3000, 3000))
NOISE = Disturbance(Kind.INPUT_NOISE, 0.1, "sd", 3)
LABELS = Disturbance(Kind.WRONG_LABELS, 0.1, "share")


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """What was measured, in order; nothing trains."""
    session = made.session(options=Options(robustness=True, seeds=2, confirm_seeds=3))
    done = []

    def noise(session, plan, chosen):
        done.append("noise")
        return Survey((Scores(NOISE, "today", (1000,), (0.9,), (0.8,)),))

    def training(session, out, plan, record, what):
        done.append(what.id)
        names = (sturdy.TODAY, sturdy.CHOSEN)
        return [Scores(what, name, (100,), (0.9,), (0.7,)) for name in names]

    monkeypatch.setattr(sturdy, "_noise", noise)
    monkeypatch.setattr(sturdy, "_trained", training)
    monkeypatch.setattr(sturdy, "seconds_again", lambda *_: 0.0)
    monkeypatch.setattr(sturdy, "seconds_of_noise", lambda *_: 10.0)
    monkeypatch.setattr(sturdy, "seconds_of_training", lambda *_: 100.0)
    return session, Journal(tmp_path, {}, resume=False), done


CHANGES = ["wrong labels 0.05", "wrong labels 0.1", "wrong labels 0.2"]


def _measure(staged, seconds, known=None):
    """With so many seconds, of which what is done is taken away."""
    session, journal, done = staged
    costs = {"noise": 10.0}
    kept = []
    found = sturdy.measure(
        session,
        journal,
        PLAN,
        RECORD,
        known,
        spendable=lambda: seconds - sum(costs.get(name, 100.0) for name in done),
        save=kept.append,
    )
    assert found == (kept[-1] if kept else known)
    return found


def test_noise_comes_first_and_trainings_last_as_far_as_the_budget_pays(staged):
    found = _measure(staged, 250.0)
    assert staged[2] == ["noise", *CHANGES[:2]]
    assert found.unpaid == {CHANGES[2]: 100.0}


def test_what_the_budget_does_not_pay_for_is_named_with_its_price(staged):
    found = _measure(staged, 5.0)
    assert staged[2] == []
    assert found.unpaid == {"noise": 10.0} | dict.fromkeys(CHANGES, 100.0)


def test_a_resumed_advice_goes_on_where_the_budget_ended(staged):
    first = _measure(staged, 110.0)
    staged[2].clear()
    second = _measure(staged, math.inf, from_plain(Survey, to_plain(first)))
    assert staged[2] == CHANGES[1:]
    assert second.unpaid == {}
    assert len(second.scores) == 1 + 2 * len(CHANGES)


def test_what_was_begun_is_finished_whatever_it_takes(staged):
    _measure(staged, 110.0)
    staged[2].clear()
    _measure(staged, 0.0)
    assert staged[2] == ["noise", CHANGES[0]]


def test_noise_that_was_not_paid_for_is_measured_when_it_is(staged):
    first = _measure(staged, 5.0)
    assert _measure(staged, math.inf, first).unpaid == {}
    assert staged[2] == ["noise", *CHANGES]


def test_a_price_covers_noise_and_every_training(staged):
    changes = len(trained(staged[0].prepared, 128))
    assert sturdy.price(staged[0], made.OTHER) == 10.0 + changes * 100.0


def test_trainings_on_changed_data_use_no_seed_that_chose():
    assert sturdy.seeds_of(PLAN) == (1000, 1001)


def test_runs_on_changed_data_stand_beside_the_clean_runs_of_their_seed():
    clean = {s: made.run_to(0, seed=s, end=e) for s, e in ((100, 1.0), (101, 0.9), (102, 0.8))}
    changed = [made.run_to(0, seed=s, end=0.5) for s in (101, 100)]
    lost = made.diverged(seed=102)
    found = sturdy.scores_of(LABELS, "today", clean, [*changed, lost])
    assert found.seeds == (101, 100)
    assert found.clean == pytest.approx((0.9, 1.0))
    assert found.values == pytest.approx((0.5, 0.5))


# Rows with intervals.


def _survey(today, other, seeds=(1, 2, 3), other_seeds=(3, 1, 2)):
    return Survey(
        (
            Scores(NOISE, "today", seeds, (0.9, 0.91, 0.92), today),
            Scores(NOISE, "recommended", other_seeds, (0.95, 0.93, 0.94), other),
        )
    )


def _rows(found, maximise=True):
    return robustness(found, "today", "recommended", maximise=maximise, unit="%")


def test_rows_are_paired_by_seed_whatever_the_order():
    row = _rows(_survey((0.8, 0.82, 0.84), (0.9, 0.86, 0.87))).rows[0]
    wanted = paired_difference(
        np.array([0.8, 0.82, 0.84]), np.array([0.86, 0.87, 0.9]), maximise=True, unit="%"
    )
    assert row.difference == wanted.estimate
    change = paired_difference(
        np.array([0.93, 0.94, 0.95]), np.array([0.86, 0.87, 0.9]), maximise=True, unit="%"
    )
    assert row.recommended_change == change.estimate
    assert row.today.value == pytest.approx(0.82)
    assert (row.kind, row.size, row.unit, row.draws) == ("input noise", 0.1, "sd", 3)


def test_seeds_that_only_one_setting_has_are_left_out():
    row = _rows(_survey((0.8, 0.82, 0.84), (0.9, 0.86, 0.87), other_seeds=(1, 2, 9))).rows[0]
    assert row.difference.n == 2
    assert _rows(_survey((0.8, 0.82, 0.84), (0.9, 0.86, 0.87), other_seeds=(1, 8, 9))).rows == ()


def test_predictions_that_are_no_numbers_count_as_worst():
    row = _rows(_survey((0.8, 0.82, 0.84), (math.nan, math.nan, 0.87))).rows[0]
    assert row.recommended.value == -math.inf
    assert row.difference.low == -math.inf


def test_disagreements_are_those_of_common_seeds():
    shares = ((0.0, 0.1, 0.2, 0.9), (0.1, 0.0, 0.3, 0.9), (0.2, 0.3, 0.0, 0.9), (0.9, 0.9, 0.9, 0))
    found = Survey(
        repeats=(
            Repeats("today", (1, 2, 3, 4), shares),
            Repeats("recommended", (3, 2, 1), ((0, 0.3, 0.2), (0.3, 0, 0.1), (0.2, 0.1, 0))),
        ),
        classes=True,
    )
    row = _rows(found).repeats
    assert row.today == row.recommended
    assert row.today.value == pytest.approx(0.2)
    assert (row.difference.value, row.difference.n) == (0, 3)


def test_a_record_comes_back_from_json():
    found = _rows(_survey((0.8, 0.82, 0.84), (0.9, 0.86, 0.87)))
    assert from_plain(type(found), to_plain(found)) == found
