"""A baseline whose batch grows already: what the search compares with, what whole trainings do."""

import json
import math
import runpy
from dataclasses import replace

import numpy as np
import pytest

from batchlab import _platform
from batchlab.advisor import answer, confirm, evidence
from batchlab.advisor.judge import changed
from batchlab.advisor.record import Verdict
from batchlab.advisor.stages import Grown, Pilot
from batchlab.app.advice import Advice
from batchlab.app.advise import advise
from batchlab.config import RunConfig
from batchlab.schedules import batch_schedule
from batchlab.tasks.loading import found_at
from tests.advisor import made, tiny

GROWS = "0:32 4ep:64"
RECIPE = made.BASELINE.replace(batch_size=GROWS, rate_growth=0.5, lr_schedule="cosine")
TODAY = Grown(GROWS, 0.1, 0.5, "cosine")
RATES = {32: 0.001, 64: 0.0012, 128: 0.003}
ARRIVALS = (8000, 7750, 8000, 8250, 8000)


def ours(runs):
    """The same runs as those of today's recipe."""
    return tuple(
        replace(run, batch_size=GROWS, rate_growth=0.5, lr_schedule="cosine") for run in runs
    )


def record(today=ARRIVALS, other=(4000,) * 5, **given):
    """Whole runs of today's recipe, and of a constant batch."""
    found = made.confirmation(today, other, **given)
    count = len(found.choosing) // 2
    choosing = ours(found.choosing[:count]) + found.choosing[count:]
    return replace(found, today=ours(found.today), choosing=choosing)


def view(baseline=RECIPE, **records):
    return made.view(rates=RATES, known=made.facts(baseline=baseline), **records)


def session():
    found = made.session(rates=RATES)
    # Of the tiny task; the schedule is in passes over it.
    found.prepared = replace(found.prepared, baseline=RECIPE)
    return found


def by_hand(samples, examples=made.EXAMPLES):
    """Seconds of today's recipe: 4 epochs with 32, the rest with 64."""
    first = min(samples, 4 * examples)
    return first / 32 * RATES[32] + (samples - first) / 64 * RATES[64]


# ------------------------------------------------------------------ what is trained


def test_todays_runs_are_the_recipe_and_the_search_compares_with_its_first_size():
    found = session()
    assert found.today == TODAY
    assert found.of(found.today, 7) == RECIPE.replace(seed=7)
    searched = found.of((found.batch_size, found.learning_rate), 7)
    assert searched == RECIPE.replace(seed=7, batch_size=32)
    # A multiplier that follows the batch follows nothing where it is constant.
    growing, constant = (
        batch_schedule(c.batch_size).resolve(510).at(3000) for c in (RECIPE, searched)
    )
    assert (growing, constant) == (64, 32)
    rate = searched.multiplier(510)
    assert rate(5000) == RECIPE.replace(batch_size=32, rate_growth=0.0).multiplier(510)(5000)


def test_a_run_of_today_is_priced_by_every_size_of_its_schedule():
    found = session()
    examples = found.prepared.examples
    price = found.run_seconds(found.today[0], 10_000)
    assert price == pytest.approx(by_hand(10_000, examples))
    # The planted bug: all of it with the first size.
    assert found.run_seconds(found.batch_size, 10_000) > 1.3 * price
    plan = confirm._plan(found, [(128, 0.4)])
    assert [pace for pace, *_ in confirm._runs(found, plan)].count(GROWS) == len(
        plan.seeds + plan.fresh
    )


def test_the_first_size_throughout_is_a_candidate_like_the_others():
    found = session()
    rows = made.view(projection=searched(0.4), rates={32: 0.001, 128: 0.004}).rows
    assert (32, 0.1) in confirm.finalists(found, rows)
    # Beside a constant baseline it is today's own.
    found.prepared = replace(found.prepared, baseline=made.BASELINE)
    assert (32, 0.1) not in confirm.finalists(found, rows)


def searched(end):
    """A search in which 128 ends at this loss, 32 at 0.4."""
    curves = [
        made.curve(np.linspace(1.0, loss, 21), size=size, rate=rate, seed=seed)
        for seed in range(3)
        for loss, size, rate in ((0.4, 32, 0.1), (end - 0.01 * (seed - 1), 128, 0.4))
    ]
    return made.projection(curves, {32: 0.1, 128: 0.4})


# ------------------------------------------------------------------ what is told


def test_whole_trainings_are_compared_with_the_schedule_itself():
    found = view(confirmation=record())
    rows = {row.quantity: row for row in answer.comparisons(found)}
    reached = np.array(ARRIVALS) + 500  # the mean of three meets the target two evaluations later
    before = np.array([by_hand(at) for at in reached])
    after = 4500 / 128 * RATES[128]
    assert rows["time"].today.value == pytest.approx(np.median(before))
    assert rows["time"].difference.value == pytest.approx(math.exp(np.log(before / after).mean()))
    # The planted bug: by the first size.
    wrong = reached / 32 * RATES[32] / after
    assert math.exp(np.log(wrong).mean()) > 1.2 * rows["time"].difference.value


def test_a_constant_batch_may_be_advised_instead_of_the_schedule():
    found = view(confirmation=record())
    assert answer.verdict(found) is Verdict.CHANGE
    told = {change.name: (change.today, change.recommended) for change in answer.changes(found)}
    assert told["batch_size"] == (GROWS, 128)
    assert answer.failures(found).today_runs == 5
    kept = view(confirmation=record((4000,) * 5, (8000,) * 5, today_chosen=True))
    assert answer.verdict(kept) is Verdict.KEEP
    assert answer.changes(kept) == ()


def test_the_search_alone_says_nothing_of_a_schedule_that_it_has_not_trained():
    projection = searched(0.1)
    found = view(projection=projection)
    assert answer.verdict(found) is Verdict.NOT_ENOUGH_EVIDENCE
    assert (answer.recommended(found), answer.comparisons(found)) == (TODAY, ())
    # Beside its first size throughout, the same search does.
    constant = view(RECIPE.replace(batch_size=32), projection=projection)
    assert answer.verdict(constant) is Verdict.CHANGE


def test_today_is_the_first_candidate_and_its_update_takes_the_mean_over_its_sizes():
    found = view(confirmation=record())
    first, *others = evidence.candidates(found)
    assert (first.setting.id, first.setting.batch_size) == ("today", GROWS)
    updates = 4000 / 32 + 6000 / 64
    assert first.seconds_per_update.value == pytest.approx(by_hand(10_000) / updates)
    assert first.runs == len(ARRIVALS)
    assert "today" not in {one.setting.id for one in others}
    assert found.run_seconds() == pytest.approx(by_hand(10_000))


def test_todays_own_schedule_is_one_of_those_that_may_show_that_growing_pays():
    slow = record((4000,) * 5, (8000, 7750, 8000, 8250, 8000))
    found = view(confirmation=slow, pilot=Pilot(best=()))
    told = answer.growing(found)
    assert (told.setting.id, told.pays) == ("today", True)
    assert told.rival.batch_size == 128
    constant = view(made.BASELINE, confirmation=made.confirmation((4000,) * 5, (8000,) * 5),
                    pilot=Pilot(best=()))  # fmt: skip
    assert answer.growing(constant).why_not == "unconfirmed"


def test_todays_schedule_differs_from_itself_in_nothing():
    assert changed(TODAY, TODAY) == changed((32, 0.1), (32, 0.1)) == 1
    assert changed(TODAY, (32, 0.1)) == 4


# ------------------------------------------------------------------ from end to end


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An advice for the tiny task whose batch grows from 16 to 64."""
    out = tmp_path_factory.mktemp("scheduled")
    baseline = RunConfig(
        rule="sgd", batch_size="0:16 1ep:64", learning_rate=0.05, samples="3ep", rate_growth=0.5
    )
    task = found_at(replace(tiny.task(), baseline=baseline), "digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_platform, "available_cores", lambda: 1)
        given = {"budget": 3000.0, "seeds": 2, "confirm_seeds": 3, "batch_sizes": (16, 128)}
        yield out, advise(task, **given, out=out, device="cpu")


@pytest.mark.slow
def test_a_whole_advice_compares_with_the_schedule_on_fresh_seeds(whole):
    out, found = whole
    assert found.today.batch_size == "0:16 1ep:64"
    assert found.stage == "C"
    record = json.loads((out / "confirmation.json").read_text())
    assert {curve["batch_size"] for curve in record["today"]} == {"0:16 1ep:64"}
    assert {curve["rate_growth"] for curve in record["today"]} == {0.5}
    search = json.loads((out / "projection.json").read_text())
    assert {curve["batch_size"] for curve in search["curves"]} == {16, 128}
    assert {row.quantity for row in found.comparisons} >= {"time", "samples"}
    again = Advice.load(out / "advice.json")
    assert (again.today, again.verdict) == (found.today, found.verdict)


@pytest.mark.slow
def test_the_report_of_a_schedule_says_in_both_languages_what_was_compared_with(whole):
    out, found = whole
    said = next(s for s in found.assumptions if s.startswith("today's batch size is a schedule"))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "with 16 throughout" in said
    assert "the short run, the search over batch sizes and the pilots compare with" in page
    assert "現在のバッチサイズは途中で変わる（0:16 1ep:64）" in page


@pytest.mark.slow
def test_the_script_of_an_advice_beside_a_schedule_trains_as_advised(whole):
    out, found = whole
    script = runpy.run_path(str(out / "apply.py"))
    starts = batch_schedule(found.recommended.batch_size).resolve(510).starts
    assert list(script["BATCH_SIZES"]) == list(starts)
    assert script["RATE_GROWTH"] == found.recommended.rate_growth
