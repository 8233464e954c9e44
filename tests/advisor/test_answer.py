"""The answer from made-up records: verdict, rows, repeats that would decide, the next command."""

import math
import shlex
from dataclasses import replace

import numpy as np
import pytest

from batchlab.advisor import answer
from batchlab.advisor.journal import parse_seconds
from batchlab.advisor.options import Options
from batchlab.advisor.record import MetricInfo, Price, Verdict
from batchlab.stats import smallest_detectable_ratio
from tests.advisor import made

INF = math.inf
CHANGE, KEEP, OPEN = Verdict.CHANGE, Verdict.KEEP, Verdict.NOT_ENOUGH_EVIDENCE
LATE = (4000, 4250, 4500, 4000, 4750, 4250, 4000, 4500)
SOON = (1500, 1750, 1500, 1750, 1500, 1750, 2000, 1500)


def _view(today=LATE, other=SOON, *, options=None, known=None, maximise=True, **given):
    record = made.confirmation(today, other, maximise=maximise, **given)
    return made.view(confirmation=record, options=options, known=known, maximise=maximise)


def _row(view, quantity):
    return next(c for c in answer.comparisons(view) if c.quantity == quantity)


@pytest.mark.parametrize("maximise", [True, False])
def test_a_clear_gain_is_a_change_whatever_the_metrics_direction(maximise):
    assert answer.verdict(_view(maximise=maximise)) is CHANGE


def test_a_clear_loss_is_keep():
    """The other setting arrives later and is no faster per sample."""
    record = made.confirmation(SOON, LATE)
    view = made.view(confirmation=record, rates={32: 0.001, 128: 0.004})
    assert answer.verdict(view) is KEEP


def test_a_change_needs_every_demand_on_fresh_seeds():
    met, unmet = (Options(at_least={"accuracy": least}) for least in (0.9, 1.1))
    assert answer.verdict(_view(options=met)) is CHANGE
    assert answer.at_least(_view(options=met)) == {"accuracy=0.9": True}
    assert answer.verdict(_view(options=unmet)) is OPEN
    assert answer.at_least(_view(options=unmet)) == {"accuracy=1.1": False}


def test_what_the_choosing_seeds_preferred_is_never_exchanged():
    assert answer.verdict(_view(today_chosen=True)) is OPEN


def test_time_is_updates_times_seconds_and_samples_are_samples():
    view = _view((4000,) * 8, (2000,) * 8)
    assert _row(view, "samples").today.value == 4500
    assert _row(view, "samples").difference.value == pytest.approx(4500 / 2500)
    assert _row(view, "time").today.value == pytest.approx(4500 / 32 * 0.001)
    assert _row(view, "time").difference.value == pytest.approx(2 * 4500 / 2500)


def test_money_is_there_only_where_there_is_a_price():
    assert {c.quantity for c in answer.comparisons(_view())} == {"time", "samples", "validation"}
    priced = _view(options=Options(price=Price(3600.0, "USD")))
    assert _row(priced, "cost").today.value == pytest.approx(_row(priced, "time").today.value)


def test_blocks_that_helped_to_choose_are_left_out_of_the_comparison():
    """The first two blocks at 128 flattered it by ten; they had their say in the choice."""
    rates = {32: [0.001] * 5, 128: [0.0002, 0.0002, 0.002, 0.002, 0.002]}
    record = made.confirmation((4000,) * 8, (4000,) * 8, timed={"32": 2, "128": 2})
    honest = made.view(confirmation=record, rates=rates)
    planted = made.view(confirmation=made.confirmation((4000,) * 8, (4000,) * 8), rates=rates)
    assert _row(honest, "time").difference.value == pytest.approx(2.0)
    assert _row(planted, "time").difference.value > 4.0


def test_a_run_that_never_arrives_is_infinite_and_never_dropped():
    view = _view(LATE, (*SOON[:7], INF))
    row = _row(view, "time")
    assert (row.method, row.pairs, row.wins) == ("sign", 8, 7)
    assert answer.failures(view).recommended == 1
    assert answer.verdict(view) is CHANGE
    assert answer.verdict(_view(LATE, (*SOON[:4], INF, INF, INF, INF))) is OPEN


def test_where_neither_ever_arrives_nothing_is_said_for_keeping():
    """Ties of never against never are no evidence of equality: their ratio is not known."""
    view = _view((INF,) * 8, (INF,) * 8)
    ratio = _row(view, "time").difference
    assert math.isnan(ratio.value)
    assert (ratio.low, ratio.high) == (0.0, INF)
    assert answer.verdict(view) is OPEN
    assert answer.decide_repeats(view) == 0


def test_a_few_pairs_of_never_against_never_leave_keep_alone():
    rates = {32: 0.001, 128: 0.008}
    record = made.confirmation((*SOON[:7], INF), (*SOON[:7], INF))
    assert answer.verdict(made.view(confirmation=record, rates=rates)) is KEEP


def test_a_diverged_run_counts_against_the_metric():
    record = made.confirmation(LATE, SOON)
    lost = tuple(made.diverged(size=128, rate=0.4, seed=c.seed) for c in record.recommended[:3])
    record = made.confirmation(LATE, SOON, recommended=lost + record.recommended[3:])
    row = _row(made.view(confirmation=record), "validation")
    assert row.pairs == 8
    assert row.difference.low == -1.0
    assert answer.failures(made.view(confirmation=record)).recommended == 3


# The objective accuracy.


def _accurate(gains, maximise=True, **given):
    sides = [
        tuple(
            made.curve([1.0] * 5, metric=[0.5 + g] * 5, size=s, rate=r, seed=1000 + i)
            for i, g in enumerate(values)
        )
        for (s, r), values in ((made.TODAY, [0.0] * len(gains)), (made.OTHER, gains))
    ]
    record = made.confirmation(
        LATE, SOON, maximise=maximise, today=sides[0], recommended=sides[1], **given
    )
    options = Options(objective="accuracy")
    return made.view(confirmation=record, options=options, maximise=maximise)


GAINS = [0.10, 0.11, 0.12, 0.09, 0.10, 0.11, 0.10, 0.12]


@pytest.mark.parametrize("maximise", [True, False])
def test_accuracy_is_decided_by_the_metric_in_its_direction(maximise):
    up, down = GAINS, [-g for g in GAINS]
    better, worse = (up, down) if maximise else (down, up)
    assert answer.verdict(_accurate(better, maximise)) is CHANGE
    assert answer.verdict(_accurate(worse, maximise)) is KEEP


def test_accuracy_has_a_smallest_difference_that_these_repeats_could_have_shown():
    """Differences three times as large have three times the spread; before any, there is none."""
    least, wide = (
        answer.smallest_detectable(_accurate([k * g for g in GAINS])) for k in (1.0, 3.0)
    )
    assert least == pytest.approx(
        math.log(smallest_detectable_ratio(float(np.std(GAINS, ddof=1)), 8))
    )
    assert wide == pytest.approx(3 * least)
    assert answer.smallest_detectable(made.view(options=Options(objective="accuracy"))) is None


def test_accuracy_says_how_many_more_repeats_would_decide():
    """d̄ = 0.02, s = 0.064 at n = 8: too few, and not by far."""
    unclear = [0.1, -0.06, 0.1, -0.06, 0.05, 0.0, 0.05, -0.02]
    assert answer.verdict(_accurate(unclear)) is OPEN
    assert 1 <= answer.decide_repeats(_accurate(unclear)) <= 64
    assert answer.decide_repeats(_accurate(unclear, today_chosen=True)) == 0


# More repeats.

UNSURE = (2000, 3500, 2500, 4000, 1500, 3000, 5000, 2500)


def test_an_open_question_names_the_repeats_that_would_decide_and_their_price():
    view = made.view(
        confirmation=made.confirmation(LATE, UNSURE),
        rates={32: 0.001, 128: 0.0045},
        options=Options(price=Price(3600.0, "USD")),
    )
    assert answer.verdict(view) is OPEN
    stage = answer.next_stage(view)
    assert stage.stage == "more-repeats"
    assert stage.repeats == answer.decide_repeats(view) > 0
    assert stage.cost == pytest.approx(stage.seconds)


def test_where_a_change_is_ruled_out_no_repeats_are_sold():
    assert answer.decide_repeats(_view(today_chosen=True)) == 0
    unmet = Options(at_least={"accuracy": 1.1})
    assert answer.decide_repeats(_view(options=unmet)) == 0


def test_a_decided_question_needs_no_repeats():
    assert answer.decide_repeats(_view()) == 0


# Before stage C.


def _searched(end, *, options=None, seeds=3, rates=None):
    today = [made.curve(np.linspace(1.0, 0.4, 21), seed=s) for s in range(seeds)]
    other = [
        made.curve(np.linspace(1.0, end - 0.01 * s, 21), size=128, rate=0.4, seed=s)
        for s in range(seeds)
    ]
    record = made.projection(today + other, {32: 0.1, 128: 0.4})
    return made.view(projection=record, options=options, rates=rates or made.RATES)


def test_a_projection_without_rivals_says_nothing():
    """Nothing was compared, so nothing can be called as good as anything."""
    today = [made.curve(np.linspace(1.0, 0.4, 21), seed=s) for s in range(3)]
    view = made.view(projection=made.projection(today, {32: 0.1}))
    assert view.rivals == []
    assert answer.verdict(view) is OPEN


def test_a_projection_never_says_keep_where_candidates_were_not_paid_for():
    view = _searched(0.45, rates={32: 0.001, 128: 0.0041})
    short = replace(view.projection, unpaid=(64,))
    records = replace(view.records, projection=short)
    assert answer.verdict(replace(view, records=records)) is OPEN


def test_the_seed_that_chose_the_rate_does_not_count_for_a_projected_change():
    """Three times as fast on the choosing seed, no better on the others."""
    today = [made.curve(np.linspace(1.0, 0.4, 21), seed=s) for s in range(3)]
    other = [
        made.curve(np.linspace(1.0, e, 21), size=128, rate=0.4, seed=s)
        for s, e in enumerate((-4.0, 0.38, 0.42))
    ]
    record = made.projection(today + other, {32: 0.1, 128: 0.4})
    assert answer.verdict(made.view(projection=record, rates={32: 0.001, 128: 0.004})) is OPEN


def test_a_clear_projection_says_change_and_that_it_is_projected():
    view = _searched(0.1)
    assert _row(view, "time").difference.low > 1.2
    assert _row(view, "time").method == "projected"
    assert answer.verdict(view) is CHANGE
    assert answer.recommended(view) == view.chosen


def test_a_projection_never_says_change_to_what_would_need_a_longer_training():
    """Forty times as many examples a second, and 1.5 times as many examples."""
    fast = {32: 0.001, 128: 0.0001}
    view = _searched(0.6, rates=fast)
    assert _row(view, "time").difference.low > 1.2
    assert view.front_runner.late
    assert answer.verdict(view) is OPEN
    assert answer.verdict(_searched(0.4, rates=fast)) is CHANGE


def test_a_projection_never_says_change_where_demands_are_about_whole_trainings():
    view = _searched(0.1, options=Options(at_least={"accuracy": 0.9}))
    assert answer.verdict(view) is OPEN
    assert answer.recommended(view) == view.today
    assert answer.changes(view) == ()


def test_a_projection_may_say_keep_where_nothing_can_be_worth_it():
    assert answer.verdict(_searched(0.45, rates={32: 0.001, 128: 0.0041})) is KEEP


def test_a_projection_of_one_seed_says_nothing():
    assert answer.verdict(_searched(0.45, seeds=1, rates={32: 0.001, 128: 0.0041})) is OPEN


def test_keep_needs_every_candidate_to_be_hopeless_not_only_the_best():
    """64 is the best with a narrow range below 1.2; 128, behind it, may still be twice as fast."""
    today = [made.curve(np.linspace(1.0, 0.4, 21), seed=s) for s in range(3)]
    sure = [made.curve(np.linspace(1.0, 0.4, 21), size=64, rate=0.2, seed=s) for s in range(3)]
    vague = [
        made.curve(np.linspace(1.0, e, 21), size=128, rate=0.4, seed=s)
        for s, e in enumerate((0.1, 0.5, 0.6))
    ]
    rates = {32: 0.001, 64: 0.0019, 128: 0.005}
    alone = made.projection(today + sure, {32: 0.1, 64: 0.2})
    both = made.projection(today + sure + vague, {32: 0.1, 64: 0.2, 128: 0.4})
    assert answer.verdict(made.view(projection=alone, rates=rates)) is KEEP
    found = made.view(projection=both, rates=rates)
    assert found.chosen == (64, 0.2)
    assert answer.verdict(found) is OPEN


def test_screening_alone_says_nothing():
    assert answer.verdict(made.view()) is OPEN
    assert answer.comparisons(made.view()) == ()


def test_projected_rows_are_scaled_to_a_whole_run_of_today():
    row = _row(_searched(0.4), "samples")
    assert row.method == "projected"
    assert row.today.value == pytest.approx(made.SAMPLES)


# The batch changed alone.


def test_the_batch_changed_alone_is_compared_on_the_choosing_seeds():
    alone = tuple(made.run_to(4000, pair=(128, 0.1), seed=100 + i) for i in range(2))
    found = answer.batch_only(_view((4000,) * 8, (2000,) * 8, batch_only=alone))
    assert found.value == pytest.approx(2.0)
    assert found.n == 2


def test_the_batch_changed_alone_is_nothing_where_batch_or_rate_stay():
    assert answer.batch_only(_view(chosen=(32, 0.4))) is None
    assert answer.batch_only(_view(chosen=(128, 0.1))) is None


# The next command.


def _next(command, **given):
    known = made.facts(command=command, prices={"B": 60.0, "C": 200.0}, **given)
    return answer.next_stage(made.view(known=known)).command


@pytest.mark.parametrize(
    "command",
    [
        "batchlab advise t.py:task --budget 2m",
        "batchlab advise --budget=2m t.py:task",
        "batchlab advise t.py:task --resume --budget 2m",
        "batchlab advise t.py:task",
    ],
)
def test_the_next_command_is_the_same_with_more_time(command):
    """100 s are spent, B takes 60: 174 s, rounded up to minutes."""
    assert _next(command) == "batchlab advise t.py:task --budget 3m --resume"


def test_the_next_command_keeps_what_needs_quotes():
    words = ["batchlab", "advise", "my task.py:t", "--out", "フォルダ 1", "--at-least", "f1=0.5"]
    assert shlex.split(_next(shlex.join(words)))[:-3] == words


def test_the_next_budget_is_never_the_old_one():
    """The same budget again would only write the report again."""
    view = made.view(options=Options(budget=180.0), known=made.facts(prices={"B": 60.0}))
    assert "--budget 4m " in answer.next_stage(view).command


def test_an_interrupted_advice_gets_at_least_its_budget_back():
    view = made.view(
        options=Options(budget=600.0), known=made.facts(prices={"B": 60.0}), partial=True
    )
    assert "--budget 10m " in answer.next_stage(view).command


def test_the_next_budget_pays_for_what_it_promises():
    """What is left of it, without the reserve, covers the stage's price."""
    for spent in (10.0, 100.0, 5000.0):
        for price in (10.0, 100.0, 5000.0):
            view = made.view(known=made.facts(prices={"B": price}), wall_seconds=spent)
            words = answer.next_stage(view).command.split()
            total = parse_seconds(words[words.index("--budget") + 1])
            assert 0.95 * (total - spent) >= price


def test_a_stage_without_a_price_has_no_next_command():
    assert answer.next_stage(made.view()) is None


def test_after_a_demonstration_comes_the_users_own_task():
    view = _view(known=made.facts(builtin=True))
    assert answer.next_stage(view).stage == "own-task"


@pytest.mark.parametrize("unit", ["%", ""])
def test_differences_of_shares_stay_between_minus_1_and_1(unit):
    metric = MetricInfo("accuracy", True, unit)
    row = answer.metric_row(metric, "validation", np.array([0.1, 0.9]), np.array([0.9, 0.2]))
    inside = unit == "%"
    assert (row.difference.low >= -1 and row.difference.high <= 1) is inside
    assert (row.today.low >= 0 and row.today.high <= 1) is inside
