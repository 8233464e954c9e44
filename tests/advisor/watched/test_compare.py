"""Watched trainings compared: groups, pairs, goals, verdicts, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest

from batchlab.advisor.record import Advice, Price, Verdict
from batchlab.advisor.watched import Asked, compare
from batchlab.advisor.watched.groups import changes, grouped, paired
from batchlab.advisor.watched.judge import chosen, judge
from batchlab.errors import ResultError
from batchlab.report import facts
from batchlab.stats import paired_log_ratio
from batchlab.types import from_plain, to_plain
from batchlab.watch.record import Ending
from tests.advisor.watched.made import STEPS, run

PACES = (1.0, 1.1, 0.9, 1.05, 0.95)
FASTER = (0.5, 0.56, 0.44, 0.53, 0.47)


def today(count=5, **what):
    return [run(f"t{i}", seed=i, pace=PACES[i], **what) for i in range(count)]


def other(count=5, **what):
    given = {"batch": 64, "rate": 0.2} | what
    return [run(f"o{i}", seed=i, pace=FASTER[i], **given) for i in range(count)]


def compared(*runs, **asked):
    return compare([one for group in runs for one in group], Asked("task", **asked))


def time_of(advice):
    return next(c for c in advice.comparisons if c.quantity == "time")


# -- groups and pairs -----------------------------------------------------------------------------


def test_runs_are_grouped_by_their_settings_and_the_first_are_todays():
    groups = grouped([*today(2), *other(2), run("x", batch=64, rate=0.2, settings={"d": 1})])
    assert [g.setting.id for g in groups] == ["today", "B64-lr0.2", "B64-lr0.2'"]
    assert [len(g.runs) for g in groups] == [2, 2, 1]


def test_a_change_names_what_differs_and_nothing_else():
    before, after = (g.setting for g in grouped([run(), run(batch=64, settings={"dropout": 0.1})]))
    found = [(c.name, c.today, c.recommended) for c in changes(before, after)]
    assert found == [("batch_size", 32, 64), ("dropout", None, 0.1)]


def test_pairs_share_their_seed_whatever_the_order():
    pairs = paired(today(3), other(3)[::-1])
    assert [(p.today.seed, p.other.seed, p.shared) for p in pairs] == [
        (i, i, True) for i in range(3)
    ]


def test_runs_without_a_common_seed_are_paired_in_order_and_that_is_said():
    rest = [dataclasses.replace(one, seed=None) for one in other(3)]
    pairs = paired(today(3), rest)
    assert [(p.today.name, p.other.name, p.shared) for p in pairs] == [
        (f"t{i}", f"o{i}", False) for i in range(3)
    ]
    assert any("share no seed" in said for said in compared(today(3), rest).assumptions)


# -- the comparison -------------------------------------------------------------------------------


def test_the_ratio_is_that_of_the_runs_own_clocks():
    """Every run reaches the goal at the same step, so that times are paces."""
    advice = compared(today(), other())
    found, plain = time_of(advice), paired_log_ratio(np.array(PACES), np.array(FASTER))
    assert found.difference.value == pytest.approx(plain.estimate.value)
    assert (found.wins, found.pairs) == (5, 5)
    # Looking only at every step widens the range.
    assert found.difference.low < plain.estimate.low
    assert advice.verdict is Verdict.CHANGE


def test_exchanging_the_sides_turns_the_ratio_round():
    there, back = time_of(compared(today(), other())), time_of(compared(other(), today()))
    assert back.difference.value == pytest.approx(1 / there.difference.value)
    assert back.difference.low == pytest.approx(1 / there.difference.high)
    assert back.wins == 0


def test_the_order_of_directories_within_a_setting_changes_nothing():
    a, b = compared(today(), other()), compared(today(), other()[::-1])
    assert a.comparisons == b.comparisons


def test_a_comparison_that_ignored_seeds_would_see_less():
    """The failing twin of pairing: with seeds mixed up the range is wider."""
    mixed = [dataclasses.replace(one, seed=(one.seed + 1) % 5) for one in other()]
    apart, together = time_of(compared(today(), mixed)), time_of(compared(today(), other()))
    width = [math.log(c.difference.high / c.difference.low) for c in (apart, together)]
    assert width[0] > width[1]


def test_equal_settings_are_kept():
    same = [run(f"o{i}", seed=i, pace=PACES[i], batch=64) for i in range(5)]
    assert compared(today(), same).verdict is Verdict.KEEP


def test_one_run_a_setting_decides_nothing_and_says_how_many_more_would():
    advice = compared(today(1), other(1))
    assert advice.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert (time_of(advice).difference.low, time_of(advice).difference.high) == (0.0, math.inf)
    assert 1 <= advice.decide_repeats <= 10
    assert advice.next_stage.repeats == advice.decide_repeats
    assert advice.next_stage.seconds == pytest.approx(advice.decide_repeats * 2 * STEPS * 1.5)


def test_money_is_time_and_data_at_their_prices():
    advice = compared(today(), other(), price=Price(3600.0, "USD", 0.01))
    cost = next(c for c in advice.comparisons if c.quantity == "cost")
    assert cost.today.value == pytest.approx(12 * 1.0 + 1200 * 0.01)


def test_a_run_that_diverged_never_reaches_the_goal():
    lost = [run(f"o{i}", seed=i, batch=64, pace=0.5, diverged=True) for i in range(5)]
    advice = compared(today(), lost)
    assert time_of(advice).difference.value == 0.0
    assert (advice.failures.today, advice.failures.recommended) == (0, 5)
    assert advice.verdict is Verdict.KEEP


@pytest.mark.parametrize("wanted", [None, "accuracy"])
def test_a_run_that_diverged_before_its_first_evaluation_never_reaches_the_goal(wanted):
    """It counts as one that diverged after it: leaving it out would hide a failure."""
    early, late = (
        [*other(4), run("o4", seed=4, batch=64, rate=0.2, diverged=True, metric=told)]
        for told in (None, "accuracy")
    )
    there, back = compared(today(), early, metric=wanted), compared(early, today(), metric=wanted)
    assert (there.metric.name, back.metric.name) == ("accuracy", "accuracy")
    assert (there.failures.recommended, back.failures.today) == (1, 1)
    assert (time_of(there).wins, time_of(there).pairs) == (4, 5)
    assert there.verdict is compared(today(), late, metric=wanted).verdict


def test_where_every_run_diverged_early_the_loss_is_compared():
    lost = {"diverged": True, "metric": None}
    assert compared(today(2, **lost), other(2, **lost), target=1.0).metric.name == "loss"


def test_a_run_that_trained_on_without_a_metric_is_still_refused():
    """The failing twin: only a run that diverged has an excuse."""
    with pytest.raises(ResultError, match="`o0` has no metric"):
        compared(today(2), other(2, metric=None))


@pytest.mark.parametrize("ending", [None, Ending.STOPPED])
def test_a_run_that_may_yet_reach_the_goal_is_left_out_not_counted_as_never(ending):
    going = run("o4", seed=4, pace=0.47, batch=64, rate=0.2, ending=ending, steps=STEPS // 2)
    advice = compared(today(), [*other(4), going])
    assert time_of(advice).pairs == 4
    assert advice.failures.recommended == 0
    assert any("may yet reach the goal" in said for said in advice.assumptions)


def test_a_goal_that_is_given_holds():
    advice = compared(today(), other(), target=0.5)
    assert (advice.target.value, advice.target.chosen_by) == (0.5, "user")
    assert time_of(advice).today.value < 12.0


def test_without_an_ended_run_the_goal_is_what_was_reached_so_far():
    going = today(3, ending=None)
    assert any("has ended" in said for said in compared(going, other(3)).assumptions)


# -- several alternatives -------------------------------------------------------------------------


def test_pairs_that_chose_do_not_judge():
    groups = grouped([*today(), *other(), *other(batch=128, rate=0.4)])
    judged = [judge(groups[0], one, metric(), 0.8) for one in groups[1:]]
    best, fresh = chosen(judged)
    whole = next(one for one in judged if one.group is best.group)
    choosing = {p.today.name for p in whole.pairs[:2]}
    assert fresh
    assert not choosing & {p.today.name for p in best.pairs}
    assert len(best.pairs) == 3


def test_one_alternative_needs_no_choice():
    groups = grouped([*today(), *other()])
    best, fresh = chosen([judge(groups[0], groups[1], metric(), 0.8)])
    assert (len(best.pairs), fresh) == (5, True)


def test_with_one_pair_each_several_alternatives_decide_nothing():
    advice = compared(today(1), other(1), other(1, batch=128))
    assert advice.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    chose = "those shown (1) also chose the best of them, so nothing is decided"
    assert f"2 alternatives and too few pairs: {chose}" in advice.assumptions


def test_pairs_to_spare_are_said_to_have_judged():
    told = compared(today(), other(), other(batch=128, rate=0.4)).assumptions
    assert "2 alternatives: part of the pairs chose the best of them, 3 others judged it" in told


def test_without_a_complete_pair_nothing_is_said_to_have_chosen():
    going = {"ending": None, "steps": 5}
    told = compared(today(1), other(1, **going), other(1, batch=128, **going)).assumptions
    assert not any("alternatives" in sentence for sentence in told)


def metric():
    return compared(today(1), other(1)).metric


# -- what they are judged by ----------------------------------------------------------------------


def test_without_a_metric_the_training_loss_is_compared():
    advice = compared(today(metric=None), other(metric=None))
    assert (advice.metric.name, advice.metric.maximise) == ("loss", False)
    assert "no metric is recorded: the training loss is compared" in advice.assumptions
    assert time_of(advice).difference.value == pytest.approx(2.0, rel=0.1)


def test_different_metrics_are_refused_in_one_sentence():
    with pytest.raises(ResultError, match=r"`t0` is judged by accuracy, `o0` has f1"):
        compared(today(2), other(2, metric="f1"))


def test_different_data_are_refused():
    with pytest.raises(ResultError, match="drew from 400 examples, `o0` from 800"):
        compared(today(2), other(2, population=800))


def test_a_metric_whose_direction_nobody_knows_is_refused():
    runs = [today(2, metric="zeal", maximise=None), other(2, metric="zeal", maximise=None)]
    with pytest.raises(ResultError, match="whether more of zeal is better was not told"):
        compared(*runs)
    assert compared(*runs, metric="loss").metric.name == "loss"


def test_a_metric_nobody_recorded_is_refused():
    with pytest.raises(ResultError, match="no metric `f1`"):
        compared(today(2), other(2), metric="f1")


def test_too_few_values_of_a_metric_are_refused():
    with pytest.raises(ResultError, match="tells accuracy 2 times"):
        compared(today(2, steps=2), other(2))


def test_today_that_always_diverges_needs_a_goal():
    lost = today(3, diverged=True)
    with pytest.raises(ResultError, match="--target"):
        compared(lost, other(3))
    assert math.isinf(time_of(compared(lost, other(3), target=0.8)).difference.value)


# -- the record -----------------------------------------------------------------------------------


def test_the_record_is_an_advice_that_can_be_stored():
    advice = compared(today(), other())
    assert to_plain(from_plain(Advice, to_plain(advice))) == to_plain(advice)


def test_every_run_is_a_curve_of_its_own_beside_the_median():
    points = compared(today(3), other(2)).curves
    assert {p.run for p in points if p.run} == {"t0", "t1", "t2", "o0", "o1"}
    assert {(p.id, p.n) for p in points if not p.run} == {("today", 3), ("B64-lr0.2", 2)}


def test_how_a_run_ended_stands_at_its_last_point():
    going = run("g", batch=64, rate=0.2, ending=None)
    lost = run("x", batch=64, rate=0.2, seed=1, diverged=True)
    points = compared(today(3), [going, lost]).curves
    assert {(p.run, p.end) for p in points if p.end} == {("g", "unfinished"), ("x", "diverged")}


def test_runs_of_one_setting_have_nothing_to_be_compared_with():
    advice = compared(today())
    assert (advice.comparisons, advice.watched) == ((), 5)
    assert facts.case(advice) is facts.Case.SCREENED
