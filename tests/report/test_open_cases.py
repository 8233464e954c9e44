"""What the first screen says where the numbers call for another sentence than the usual one."""

import dataclasses
import math

import pytest

from batchlab import report
from batchlab.advisor.assemble import assemble
from batchlab.advisor.record import Failures, MetricInfo, Price, Verdict
from batchlab.report import facts, wording, worth
from batchlab.report.formats import ratio
from batchlab.types import Estimate
from tests.advisor import made
from tests.report import sample

NEVER = (math.inf,) * 8


def with_difference(advice, quantity, *numbers):
    rows = tuple(
        dataclasses.replace(row, difference=Estimate(*numbers, n=8))
        if row.quantity == quantity
        else row
        for row in advice.comparisons
    )
    return dataclasses.replace(advice, comparisons=rows)


def of_runs(today, recommended, **given):
    view = made.view(confirmation=made.confirmation(today, recommended, **given))
    return assemble(view.records, view.options, view.facts)


def test_a_goal_that_no_run_reaches_has_no_ratio():
    advice = of_runs(NEVER, NEVER)
    assert advice.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert math.isnan(facts.gain(advice).difference.value)
    text = report.summary(advice)
    assert "most reached it with neither" in text
    assert "of 8 repeats, most did not arrive" in text
    assert "1×" not in text
    assert "neither with today's settings nor with the best" in wording.headline(advice).en
    assert worth.of(advice) is None
    assert "--target" in wording.next_step(advice).en


def test_a_goal_that_most_runs_miss_has_no_ratio_on_the_first_screen():
    """5 of 8 of today's and all of the alternative's never arrive: the middle pair is a tie."""
    advice = of_runs((*NEVER[:5], 4000, 4250, 4500), NEVER)
    assert facts.gain(advice).difference.value == 1.0
    text = report.summary(advice) + report.summary(advice, "ja")
    assert "1×" not in text
    assert "1倍" not in text
    assert worth.of(advice) is None


@pytest.mark.parametrize(("low", "high"), [(math.nan, 1.5), (0.5, math.nan), (math.nan, math.nan)])
def test_no_saving_is_no_amount(low, high):
    found = worth.Worth(1.0, low, high, False, 500, 0.0001, 1.0, worth.HOURS, 0.0)
    assert worth.line(found).en == "**a change would save nothing**."


def test_one_run_that_arrives_is_enough_for_a_ratio():
    advice = of_runs(NEVER, (1500, *NEVER[1:]))
    assert not math.isnan(facts.gain(advice).difference.value)


def chosen_today(**others):
    advice = sample.open_(today_chosen=True, next_stage=None, decide_repeats=0, **others)
    return with_difference(advice, "time", 1.6, 1.3, 2.1)


def test_a_gain_that_the_choosing_repeats_had_not_seen_is_said_to_be_one_of_two_chances():
    advice = chosen_today()
    told = str(wording.headline(advice))
    assert "cannot tell" not in told
    assert "one of the two is chance" in told
    assert "`--seed`" in wording.next_step(advice).en
    assert "one of the two is chance" not in str(
        wording.headline(dataclasses.replace(advice, today_chosen=False))
    )


def test_the_record_says_whether_todays_settings_were_chosen():
    late, soon = (4000, 4250, 4500, 4000), (1500, 1750, 1500, 1750)
    assert of_runs(late, soon, today_chosen=True).today_chosen
    assert not of_runs(late, soon).today_chosen


OPEN = {"next_stage": None, "decide_repeats": 0, "builtin": False}


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "64 further repeats"),
        ({"at_least": {"accuracy=0.99": False}}, "`--at-least`"),
        ({"failures": Failures(0, 8, 5, 8)}, "trainings fail"),
    ],
)
def test_where_more_of_the_same_decides_nothing_it_says_what_would(given, what):
    told = wording.next_step(sample.open_(**OPEN, **given))
    assert what in told.en
    assert "Nothing to do. Measure" not in told.en
    assert told.ja != told.en


def test_a_search_without_a_next_stage_goes_on_with_more_budget():
    advice = sample.projected(
        verdict=Verdict.NOT_ENOUGH_EVIDENCE, recommended=sample.TODAY, changes=(), next_stage=None
    )
    assert "longer `--budget`" in wording.next_step(advice).en


def test_to_keep_leaves_nothing_to_do():
    assert "Nothing to do" in wording.next_step(sample.keep(next_stage=None)).en


@pytest.mark.parametrize(
    ("alone", "warns"), [(1.1, True), (0.7, True), (1.9, False), (2.4, False)]
)
def test_the_batch_size_alone_is_warned_of_only_where_it_did_worse(alone, warns):
    advice = sample.change(batch_only=Estimate(alone, alone, alone, 5))
    assert facts.gain(advice).difference.value == 1.9
    told = wording.not_tested(advice)
    assert ("Do not change the batch size alone" in told.en) is warns
    assert ("変えないでください" in told.ja) is warns
    assert f"{ratio(alone)}×" in told.en


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((-0.002, -0.009, 0.005), "we saw no loss"),
        ((0.001, -0.03, 0.03), "we saw no loss"),
        ((-0.03, -0.075, 0.015), "may be worse by up to 7.5 points"),
        ((-0.03, -0.05, -0.01), "fell by"),
    ],
)
def test_no_loss_is_said_only_where_a_loss_that_matters_is_unlikely(numbers, words):
    told = wording.headline(with_difference(sample.change(), "metric", *numbers))
    assert words in told.en


def test_a_metric_that_is_no_share_is_judged_by_its_own_size():
    rms = sample.change(metric=MetricInfo("wear", False, "mm"), curves=())
    row = facts.metric_comparison(rms)
    today = row.today.value
    assert not facts.loss_not_ruled_out(
        with_difference(rms, "metric", 0.001 * today, -0.002 * today, 0.004 * today)
    )
    assert facts.loss_not_ruled_out(
        with_difference(rms, "metric", 0.02 * today, -0.01 * today, 0.05 * today)
    )


def test_data_with_a_price_is_in_the_money_line():
    """Free computing, 0.01 a sample: what is saved is the data."""
    price = Price(0.0, "USD", 0.01)
    advice = sample.change(price)
    cost = dataclasses.replace(
        facts.comparison(advice, "time"),
        quantity="cost",
        today=Estimate(100.0, 90.0, 110.0, 8),
        recommended=Estimate(50.0, 45.0, 55.0, 8),
        difference=Estimate(2.0, 1.6, 2.4, 8),
    )
    rows = (*(row for row in advice.comparisons if row.quantity != "cost"), cost)
    advice = dataclasses.replace(advice, comparisons=rows, builtin=False, run_seconds=7200.0)
    found = worth.of(advice)
    assert found.ratio == 2.0
    seconds = facts.comparison(advice, "time").today.value
    assert found.per_hour == pytest.approx(3600 * 100.0 / seconds, rel=1e-3)
    assert "save nothing" not in worth.line(found).en
    assert "data included" in report.render(advice)
    assert "data included" not in report.render(sample.change())


def test_times_of_another_computer_are_not_called_this_computers():
    advice = sample.change(
        elsewhere=True, measurement_cost=None, provenance={"processor": "NVIDIA H200"}
    )
    top = " ".join(part.en for part in wording.circumstances(advice))
    assert "this computer (" not in top
    assert "another computer (NVIDIA H200)" in top
    assert "Finding this out took" in worth.spent(advice).en


def test_a_cluster_is_not_called_this_computer():
    there = sample.change(provenance={"cluster": "Ray; 4 cells on cpu"})
    for advice, said in ((there, False), (sample.change(), True)):
        top = wording.circumstances(advice)
        assert any("no data left this computer" in part.en for part in top) is said
        assert any("一切外部に送信していません" in part.ja for part in top) is said
