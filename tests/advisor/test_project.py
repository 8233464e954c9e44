"""The plan of the search: what it holds, how it shrinks, what is not searched at all."""

import itertools
import math

import pytest

from batchlab.advisor.options import Options
from batchlab.advisor.project import (
    EVALUATIONS,
    LEAST_UPDATES,
    SEEDS,
    Search,
    at_rest,
    least_seconds,
    left_out,
    plan_search,
    worth_searching,
)
from batchlab.advisor.record import Price
from batchlab.engine import RunState
from batchlab.engine.step import rule_of, start_of
from batchlab.measure.noise import NoiseResult
from batchlab.types import Estimate
from tests.advisor import made

SLOW_SMALL = {8: 0.001, 32: 0.001, 128: 0.002, 512: 0.016}
"""8 is as slow per update as 32; 512 is slower per sample than 128."""


def _noise(low, value=64.0):
    return NoiseResult(0, 1.0, 1.0, Estimate(value, low, 200.0, n=8), None, "per example", 100)


def _screened(sizes=(8, 32, 128, 512), noise=()):
    return made.screening(sizes, noise)


def _planned(seconds, **given):
    return plan_search(made.session(rates=SLOW_SMALL, **given), _screened(), seconds)


def test_with_time_to_spare_everything_is_searched_repeated_and_tried_late():
    plan = _planned(math.inf)
    assert plan.sizes == (8, 32, 128, 512)
    assert (plan.start, plan.end) == (500, made.SAMPLES)
    assert len(plan.seeds) == SEEDS
    assert plan.late
    assert plan.rungs == (2875, 5250, 10_000)


def test_every_size_has_todays_rate_and_rates_beyond_both_ends():
    plan = _planned(math.inf)
    for size, rates in zip(plan.sizes, plan.rates, strict=True):
        assert 0.1 in rates
        assert min(rates) < min(0.1, 0.1 * size / 32)
        assert max(rates) > max(0.1, 0.1 * size / 32)


@pytest.mark.parametrize("seconds", [100.0, 30.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2])
def test_the_search_fits_and_is_the_longest_of_its_kind_that_does(seconds):
    session = made.session(rates=SLOW_SMALL)
    plan = plan_search(session, _screened(), seconds)
    if plan is None:
        assert seconds < least_seconds(session, _screened())
        return
    assert session.wall_seconds(plan.runs(32)) <= seconds
    assert plan.end - plan.start >= LEAST_UPDATES * max(plan.sizes)
    more = plan_search(session, _screened(), 2 * seconds)
    assert len(more.sizes) >= len(plan.sizes)
    if (more.sizes, len(more.seeds)) == (plan.sizes, len(plan.seeds)) and not more.late:
        assert more.end >= plan.end


def test_the_costliest_size_goes_first_and_todays_never():
    session = made.session(rates=SLOW_SMALL)
    seen = [plan_search(session, _screened(), s) for s in (100, 3, 1, 0.5, 0.3, 0.2)]
    kept = [set(plan.sizes) for plan in seen if plan is not None]
    assert all(32 in sizes for sizes in kept)
    assert all(a >= b for a, b in itertools.pairwise(kept))
    smaller = next(sizes for sizes in kept if len(sizes) < 4)
    assert 512 not in smaller or 8 not in smaller


def test_no_time_is_no_search():
    assert _planned(0.0) is None


def test_today_alone_is_searched_for_its_learning_rate():
    session = made.session(rates=SLOW_SMALL)
    assert plan_search(session, _screened(sizes=(32,)), 100.0).sizes == (32,)


def test_late_repeats_and_checkpoints_are_paid_for():
    """What `runs` leaves out: today's run to the middle and the other seeds' checkpoints."""
    session = made.session(rates=SLOW_SMALL)
    plan = plan_search(session, _screened(), math.inf)
    bare = session.wall_seconds(plan.runs(32))
    assert plan_search(session, _screened(), bare) != plan


def test_a_given_checkpoint_starts_the_search_and_leaves_out_the_late_one():
    plan = _planned(math.inf, options=Options(from_checkpoint="weights.pt"))
    assert plan.start == 0
    assert not plan.late


def test_work_of_a_plan_is_every_rung_of_every_rate():
    plan = Search(0, 1000, (32,), ((0.1, 0.2, 0.4),), (0, 1), False)
    rungs = [(32, 250, 6)] * 4 + [(32, 250, 6)] * 3 + [(32, 500, 12)] * 2
    beside = [(64, 1000, EVALUATIONS)] * 2
    assert plan.runs(64) == [*beside, *rungs, (32, 1000, EVALUATIONS)]


# What the noise scale rules out.


def test_a_small_size_is_ruled_out_where_speed_and_noise_agree():
    """8: (1 + 8/32)/8 against (1 + 32/32)/32 at equal seconds per update: 2.5 times as long."""
    session = made.session(rates=SLOW_SMALL)
    screening = _screened(noise=(_noise(32.0),))
    assert worth_searching(session, screening) == [32, 128, 512]
    plan = plan_search(session, screening, math.inf)
    assert list(left_out(session, screening, plan)) == [
        "batch size 8 is not searched: by speed and noise scale it would take 2.5 times as long"
    ]


def test_the_low_end_of_the_noise_scale_decides():
    """At the low end 8 the small size gains most: (1 + 1)/8 against (1 + 4)/32, 1.6 times."""
    session = made.session(rates=SLOW_SMALL)
    screening = _screened(noise=(_noise(100.0), _noise(8.0)))
    assert 8 in worth_searching(session, screening)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (Options(objective="samples"), "sgd"),
        (Options(objective="accuracy"), "sgd"),
        (Options(objective="cost", price=Price(1.0, "USD", 0.1)), "sgd"),
        (Options(seconds_per_sample=1e-3), "sgd"),
        (Options(batch_sizes=(8, 128)), "sgd"),
        (Options(), "adam"),
    ],
)
def test_nothing_is_ruled_out_where_samples_count_or_the_theory_does_not_hold(options, rule):
    session = made.session(rates=SLOW_SMALL, options=options, rule=rule)
    assert 8 in worth_searching(session, _screened(noise=(_noise(32.0),)))


def test_what_the_budget_does_not_pay_for_is_said():
    session = made.session(rates=SLOW_SMALL)
    plan = next(
        p
        for s in (1.0, 0.7, 0.5, 0.4, 0.3)
        if (p := plan_search(session, _screened(), s)) and len(p.sizes) < 4
    )
    said = list(left_out(session, _screened(), plan))
    assert len(said) == 4 - len(plan.sizes)
    assert all("the budget does not pay for it" in sentence for sentence in said)


def test_a_checkpoint_at_rest_keeps_the_weights_and_loses_the_velocity():
    session = made.session(rule="shb")
    rule = rule_of(session.baseline, session.prepared.task)
    progress = start_of(session.prepared.objective(0), rule)
    moving = progress.rule_state._replace(
        **{
            name: {k: v + 1 for k, v in value.items()}
            for name, value in progress.rule_state._asdict().items()
            if isinstance(value, dict)
        }
    )
    state = at_rest(RunState(progress._replace(rule_state=moving), 100, 3), session)
    assert state.progress.params is progress.params
    assert (state.samples, state.updates) == (100, 3)
    for value in state.progress.rule_state._asdict().values():
        if isinstance(value, dict):
            assert all(not leaf.any() for leaf in value.values())
