"""The confirmation: who goes on, what it takes, the target, and the choice; nothing trains."""

import math

import numpy as np
import pytest

from batchlab.advisor import confirm as stage
from batchlab.advisor.confirm import (
    CHOOSING,
    FRESH,
    ConfirmationPlan,
    affordable_repeats,
    confirm,
    finalists,
    plan_confirmation,
    seconds_of,
)
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Projected, Yardstick
from batchlab.advisor.options import Options
from batchlab.stats import paired_difference, paired_log_ratio
from tests.advisor import made

SEEDS = 3
RATES = {32: 0.001, 64: 0.0015, 128: 0.002, 256: 0.004, 512: 0.008}


def _row(size, rate, ratio, spread=0.2, loss=1.0):
    today = np.full(SEEDS, 1000.0)
    fall = today / ratio * np.exp(spread * np.array([-1.0, 0.0, 1.0]))
    return Projected(size, rate, fall, today, paired_log_ratio(today, fall), loss)


def _rows(**spread):
    return [
        _row(32, 0.1, 1.0, 1e-9),
        _row(64, 0.2, 1.4, **spread),
        _row(128, 0.4, 1.5, **spread),
        _row(256, 0.4, 1.3, **spread),
        _row(512, 0.8, 1.2, **spread),
    ]


def test_finalists_are_the_best_that_cannot_be_separated_without_today():
    assert finalists(made.session(), _rows()) == [(128, 0.4), (64, 0.2), (256, 0.4), (512, 0.8)]
    assert finalists(made.session(), _rows(spread=1e-3)) == [(128, 0.4)]


def test_a_setting_that_never_gets_there_is_no_finalist():
    today = np.full(SEEDS, 1000.0)
    never = np.full(SEEDS, math.inf)
    row = Projected(64, 0.2, never, today, paired_log_ratio(today, never), 1.0)
    assert finalists(made.session(), [_rows()[0], row]) == []
    assert plan_confirmation(made.session(), [_rows()[0], row], math.inf) is None


def test_the_setting_whose_loss_fell_furthest_comes_second_however_slow_it_is():
    slow = _row(16, 0.05, 0.5, 1e-3, loss=0.2)
    assert finalists(made.session(), [*_rows(spread=1e-3), slow]) == [(128, 0.4), (16, 0.05)]
    blown = _row(16, 0.05, 0.5, 1e-3, loss=math.nan)
    assert finalists(made.session(), [*_rows(spread=1e-3), blown]) == [(128, 0.4)]


def _fast_but_late(size, samples, ratio):
    """A large batch, ``ratio`` times faster, that needs so many times the samples of today."""
    today = np.full(SEEDS, 1000.0)
    time = paired_log_ratio(today, today / ratio)
    return Projected(size, 0.4, samples * today, today, time, 1.5)


def test_what_would_not_arrive_within_the_training_length_stands_behind_all_that_would():
    late = _fast_but_late(512, 2.9, ratio=9.0)
    in_time = _fast_but_late(512, 1.1, ratio=9.0)
    narrow = _rows(spread=1e-3)[:4]
    assert finalists(made.session(), [*narrow, in_time])[0] == (512, 0.4)
    found = finalists(made.session(), [*narrow, late])
    assert found[0] == (128, 0.4)
    assert (512, 0.4) in found
    assert finalists(made.session(), [narrow[0], late]) == [(512, 0.4)]


def _accuracy(difference, rate):
    before = np.array([0.8, 0.81, 0.82])
    after = before + difference + np.array([-1e-3, 0, 1e-3])
    ratio = paired_difference(before, after, maximise=True)
    return Projected(32, rate, before, before, ratio, 1.0)


def test_for_accuracy_the_largest_gain_comes_first():
    session = made.session(options=Options(objective="accuracy"))
    rows = [_accuracy(0.01, 0.2), _accuracy(0.0101, 0.4), _accuracy(-0.1, 0.8)]
    assert finalists(session, rows) == [(32, 0.4), (32, 0.2)]


def test_seeds_of_choosing_and_proving_have_nothing_in_common():
    plan = plan_confirmation(made.session(rates=RATES), _rows(), math.inf)
    assert plan.seeds == tuple(range(CHOOSING, CHOOSING + 5))
    assert plan.fresh == tuple(range(FRESH, FRESH + 8))


def test_finalists_go_before_fresh_seeds_do():
    session = made.session(rates=RATES)
    full = plan_confirmation(session, _rows(), math.inf)
    whole, counts = seconds_of(session, full), []
    for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.1):
        plan = plan_confirmation(session, _rows(), share * whole)
        counts.append(0 if plan is None else len(plan.finalists))
        if plan is not None:
            assert seconds_of(session, plan) <= share * whole
            assert len(plan.fresh) == 8
            assert plan.pairs() == full.pairs()[: len(plan.finalists)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 4
    assert counts[-1] == 0
    assert 1 in counts


def test_the_batch_changed_alone_is_paid_for():
    session = made.session(rates=RATES)
    with_it, without = (
        ConfirmationPlan(((128, 0.4),), (100, 101), (1000, 1001, 1002), alone)
        for alone in (True, False)
    )
    assert seconds_of(session, with_it) > seconds_of(session, without)


def test_more_repeats_are_as_many_as_fit():
    session = made.session(rates=RATES)
    pair = session.wall_seconds([(32, made.SAMPLES, 0), (128, made.SAMPLES, 0)])
    assert affordable_repeats(session, made.OTHER[0], 3.5 * pair) == 3
    assert affordable_repeats(session, made.OTHER[0], 0.5 * pair) == 0
    assert affordable_repeats(session, made.OTHER[0], math.inf) == stage.MOST_REPEATS


# The target.


def _ending(values):
    return [made.curve([1.0] * 5, metric=[v] * 5) for v in values]


def test_the_default_target_is_what_four_in_five_reach():
    found = stage._target(made.session(), _ending([0.97, 0.95, 0.96, 0.98, 0.99]))
    assert found == (pytest.approx(0.96), "baseline")


def test_the_users_target_is_kept():
    session = made.session(options=Options(target=0.5))
    assert stage._target(session, [made.diverged()] * 5) == (0.5, "user")


def test_one_diverged_run_in_five_is_the_one_that_misses_the_target():
    runs = [*_ending([0.95, 0.96, 0.98, 0.99]), made.diverged()]
    assert stage._target(made.session(), runs) == (pytest.approx(0.95), "baseline")


def test_two_diverged_runs_in_five_leave_no_target():
    runs = [*_ending([0.95, 0.96, 0.98]), made.diverged(), made.diverged()]
    assert stage._target(made.session(), runs) is None


# The choice.

PLAN = ConfirmationPlan(((128, 0.4), (64, 0.2)), (100, 101), (1000, 1001, 1002), True)


def _chosen(today, first, second, objective="time", end=1.0, **options):
    runs = [
        made.run_to(at, pair=pair, seed=seed, end=e)
        for pair, at, e in (
            (made.TODAY, today, 1.0),
            ((128, 0.4), first, 1.0),
            ((64, 0.2), second, end),
        )
        for seed in PLAN.seeds
    ]
    session = made.session(rates=RATES, options=Options(objective=objective, **options))
    yard = Yardstick(made.machine(RATES), None)
    return stage._choose(session, PLAN, runs, 0.9, yard)


def test_the_fastest_finalist_is_chosen():
    assert _chosen(4000, 4000, 3000) == ((128, 0.4), False)
    assert _chosen(4000, 4000, 1000) == ((64, 0.2), False)


def test_for_samples_the_speed_does_not_count():
    assert _chosen(4000, 4000, 3000, objective="samples") == ((64, 0.2), False)


def test_where_today_is_best_the_best_alternative_is_still_named():
    assert _chosen(500, 4000, 3000) == ((128, 0.4), True)


def test_a_run_that_never_arrives_loses():
    assert _chosen(4000, math.inf, 9000)[0] == (64, 0.2)


def test_a_finalist_that_meets_the_demands_goes_before_a_faster_one_that_does_not():
    demands = {"at_least": {"accuracy": 0.99}}
    assert _chosen(4000, 4000, 1000, end=0.95)[0] == (64, 0.2)
    assert _chosen(4000, 4000, 1000, end=0.95, **demands)[0] == (128, 0.4)


def test_for_accuracy_the_best_end_is_chosen():
    assert _chosen(4000, 4000, 4000, objective="accuracy", end=0.95)[0] == (128, 0.4)
    assert _chosen(4000, 4000, 4000, objective="accuracy", end=0.95)[1]


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """Stage C whose runs are made up: what was trained, in order."""
    session = made.session(rates=RATES)
    monkeypatch.setattr(type(session.stopwatch), "visit", lambda *_: None)
    trained = []

    def runs(session, what, pairs, seeds, test=False):
        trained.append((what, tuple(pairs), tuple(seeds)))
        arrives = {made.TODAY: 4000, (128, 0.4): 4000, (64, 0.2): 3000}
        return tuple(
            made.run_to(arrives.get(p, 5000), pair=p, seed=s) for p in pairs for s in seeds
        )

    monkeypatch.setattr(stage, "_curves", runs)
    journal = Journal(tmp_path, {}, resume=False)
    return session, journal, trained


def _yard():
    return Yardstick(made.machine(RATES), None)


def test_the_choice_is_written_down_before_any_fresh_seed_runs(staged, monkeypatch):
    session, journal, trained = staged

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_fresh", stop)
    with pytest.raises(KeyboardInterrupt):
        confirm(session, journal, PLAN, _yard)
    assert journal.plan("C chosen")["batch_size"] == 128
    assert len(trained) == 1


def test_a_choice_that_was_made_is_never_made_again(staged):
    """Timed anew, the other finalist would look faster."""
    session, journal, _ = staged
    kept = {"batch_size": 64, "learning_rate": 0.2, "target": 0.9, "today_chosen": False}
    journal.plan("C chosen", kept)
    assert confirm(session, journal, PLAN, _yard).chosen == (64, 0.2)


def test_fresh_seeds_run_today_and_the_choice_and_nothing_else(staged):
    session, journal, trained = staged
    record = confirm(session, journal, PLAN, _yard)
    fresh = [(pairs, seeds) for what, pairs, seeds in trained if what == "fresh repeats"]
    assert {pairs for pairs, _ in fresh} == {(made.TODAY, (128, 0.4))}
    assert sum((seeds for _, seeds in fresh), ()) == PLAN.fresh
    assert [c.seed for c in record.today] == [c.seed for c in record.recommended]
    assert [c.learning_rate for c in record.batch_only] == [0.1, 0.1]


def test_no_target_ends_the_stage_with_a_sentence(staged, monkeypatch):
    session, journal, _ = staged
    monkeypatch.setattr(stage, "_target", lambda *_: None)
    assert confirm(session, journal, PLAN, _yard) is None
    assert "name one with --target" in session.listener.sentences[-1]
