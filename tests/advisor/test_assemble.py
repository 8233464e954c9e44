"""One advice from made-up records, at every stage and for every objective."""

import json
import math

import numpy as np
import pytest

from batchlab.advisor.assemble import assemble
from batchlab.advisor.options import Options
from batchlab.advisor.record import Advice, Price, Verdict
from batchlab.types import Evidence, Status, to_plain
from tests.advisor import made

LATE = (4000, 4250, 4500, 4000, 4750, 4250, 4000, 4500)
SOON = (1500, 1750, 1500, 1750, 1500, 1750, 2000, 1500)
PRICE = Price(1.2, "USD", 1e-6)


def _projection():
    curves = [
        made.curve(np.linspace(1.0, end, 21), size=s, rate=r, seed=seed)
        for (s, r), end in ((made.TODAY, 0.4), (made.OTHER, 0.2))
        for seed in range(3)
    ]
    return made.projection(curves, {32: 0.1, 128: 0.4})


STAGES = {
    "A": {},
    "B": {"projection": _projection()},
    "C": {"projection": _projection(), "confirmation": made.confirmation(LATE, SOON)},
}


def _advice(stage, maximise=True, known=None, options=None, **given):
    records = STAGES[stage]
    if stage == "C" and not maximise:
        records = records | {"confirmation": made.confirmation(LATE, SOON, maximise=False)}
    view = made.view(**records | given, maximise=maximise, options=options, known=known)
    return assemble(view.records, view.options, view.facts)


@pytest.mark.parametrize("maximise", [True, False])
@pytest.mark.parametrize("objective", ["time", "cost", "samples", "accuracy"])
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_and_objective_makes_an_advice_that_survives_its_file(
    stage, objective, maximise, tmp_path
):
    options = Options(objective=objective, price=PRICE)
    found = _advice(stage, maximise, options=options)
    assert found.stage == stage
    assert found.verdict is not Verdict.CHANGE or stage in "BC"
    found.save(tmp_path / "advice.json")
    assert to_plain(Advice.load(tmp_path / "advice.json")) == to_plain(found)
    assert "NaN" not in json.dumps(to_plain(found))


def test_evidence_follows_the_stage():
    assert [_advice(s).evidence for s in "ABC"] == [
        Evidence.SCREENED,
        Evidence.PROJECTED,
        Evidence.CONFIRMED,
    ]


def test_a_change_names_what_changes_and_its_flat_numbers():
    found = _advice("C")
    assert found.verdict is Verdict.CHANGE
    assert {(c.name, c.today, c.recommended) for c in found.changes} == {
        ("batch_size", 32, 128),
        ("learning_rate", 0.1, 0.4),
    }
    assert (found.params["batch_size"], found.params["learning_rate"]) == (128, 0.4)
    assert found.recommended.id != "today"


def test_without_a_change_today_is_recommended_and_the_rival_is_named():
    found = _advice("B", options=Options(at_least={"accuracy": 0.5}))
    assert found.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert found.recommended == found.today
    assert found.changes == ()
    assert found.compared.batch_size == 128


def test_nothing_measured_at_all_is_still_an_advice():
    found = _advice("A", machine=None, screening=None, partial=True)
    assert found.partial
    assert found.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert found.candidates == ()
    assert math.isnan(found.run_seconds)


def test_runs_that_all_diverge_are_told_and_break_nothing():
    lost = tuple(made.diverged(size=128, rate=0.4, seed=1000 + i) for i in range(8))
    record = made.confirmation(LATE, SOON, recommended=lost)
    found = _advice("C", confirmation=record)
    assert found.failures.recommended == 8
    assert found.verdict is Verdict.KEEP
    time = next(c for c in found.comparisons if c.quantity == "time")
    assert time.difference.value == 0.0
    assert not any(p.id != "today" for p in found.curves if p.n == 8)


def test_test_data_has_a_row_of_its_own_and_decides_nothing():
    sides = [
        tuple(
            made.run_to(at, pair=pair, seed=1000 + i, test=0.5 if pair == made.OTHER else 0.9)
            for i, at in enumerate(arrivals)
        )
        for pair, arrivals in ((made.TODAY, LATE), (made.OTHER, SOON))
    ]
    record = made.confirmation(LATE, SOON, today=sides[0], recommended=sides[1])
    found = _advice("C", confirmation=record, known=made.facts(test_examples=100))
    row = next(c for c in found.comparisons if c.quantity == "metric")
    assert row.difference.value == pytest.approx(-0.4)
    assert row.examples == 100
    assert found.verdict is Verdict.CHANGE


def test_without_test_data_there_is_no_such_row():
    assert "metric" not in {c.quantity for c in _advice("C").comparisons}


def test_a_rule_outside_the_sgd_family_says_that_noise_only_orders():
    adam = made.facts(baseline=made.BASELINE.replace(rule="adam"))
    assert _advice("A", known=adam).noise_orders_only
    assert not _advice("A").noise_orders_only


def test_what_was_said_and_assumed_stands_in_the_advice():
    found = _advice("A", known=made.facts(assumptions=("a",)), said=("b",))
    assert found.assumptions == ("a", "b")


def test_a_reading_time_is_told_and_decides_as_samples_do():
    """Where reading rules, the ratio of times is that of samples; without it nothing is told."""
    found = _advice("C", options=Options(seconds_per_sample=1e3))
    time, samples = (
        next(c.difference for c in found.comparisons if c.quantity == name)
        for name in ("time", "samples")
    )
    assert (time.value, time.low) == pytest.approx((samples.value, samples.low), rel=1e-4)
    assert "every fresh sample takes 1000 s to read" in found.assumptions[-1]
    assert _advice("C").assumptions == ()


def test_the_target_says_who_chose_it_and_how_many_reach_it():
    found = _advice("C").target
    assert (found.value, found.chosen_by, found.runs, found.share) == (0.9, "baseline", 2, 1.0)
    assert _advice("A").target is None
    assert _advice("A", options=Options(target=0.8)).target.chosen_by == "user"


def test_a_diverged_run_in_the_search_is_in_the_plane():
    lost = made.diverged(size=128, rate=0.8)
    record = made.projection((*_projection().curves, lost), {32: 0.1, 128: 0.4})
    plane = _advice("B", projection=record).plane
    assert [p.status for p in plane if p.learning_rate == 0.8] == [Status.DIVERGED]
