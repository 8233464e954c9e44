"""The evidence from made-up records: rates that work, useful sizes, curves, the Pareto set."""

import math

import numpy as np
import pytest

from batchlab.advisor import evidence
from batchlab.advisor.answer import comparisons
from batchlab.advisor.options import Options
from batchlab.advisor.record import Price, Reason
from batchlab.measure.noise import NoiseResult
from batchlab.types import Estimate, Evidence, Status
from tests.advisor import made

INF, NAN = math.inf, math.nan


def _fall(end, **given):
    return made.curve(np.linspace(1.0, end, 21), **given)


def _metric(value, rate, seed=0, rung=2, points=21, **given):
    """A search run at 128 whose metric is this."""
    return made.curve(
        np.linspace(1.0, 0.1, points),
        size=128,
        rate=rate,
        seed=seed,
        rung=rung,
        metric=[value] * points,
        **given,
    )


TODAY = tuple(_fall(0.4, seed=s) for s in range(3))


def _view(curves, best, **given):
    return made.view(projection=made.projection((*TODAY, *curves), best), **given)


# Rates that work.


def test_the_seed_spread_is_pooled_over_repeated_settings():
    """Variances 0.01²·2/1·… by hand: {0.5, 0.52} has 0.0002, {0.6, 0.64} has 0.0008."""
    curves = [
        _metric(0.50, 0.4),
        _metric(0.52, 0.4, seed=1),
        _metric(0.60, 0.2),
        _metric(0.64, 0.2, seed=1),
        _metric(0.10, 0.8, rung=0),
        _metric(NAN, 0.4, seed=2, status=Status.DIVERGED),
    ]
    found = evidence.seed_sd(made.projection(curves, {}))
    assert found == pytest.approx(math.sqrt((0.0002 + 0.0008) / 2))


def test_without_repeats_the_spread_and_the_range_are_not_known():
    lone = [_metric(0.5, 0.4), _metric(0.6, 0.2)]
    assert evidence.seed_sd(made.projection(lone, {})) is None
    view = made.view(projection=made.projection((TODAY[0], *lone), {32: 0.1, 128: 0.2}))
    assert all(c.rate_low is None for c in evidence.candidates(view))


def _rated():
    """Seed sd 0.02; 0.4 is the best, 0.2 within, 0.1 not, 0.8 stopped early beside 0.4."""
    return [
        _metric(0.90, 0.4),
        _metric(0.92, 0.4, seed=1),
        _metric(0.94, 0.4, seed=2),
        _metric(0.89, 0.2),
        _metric(0.80, 0.1, rung=1, points=11),
        _metric(0.895, 0.8, rung=0, points=6),
        _metric(0.2, 1.6, rung=0, points=6),
        made.diverged(size=128, rate=3.2),
    ]


def test_rates_work_within_one_seed_spread_where_their_own_search_ended():
    points = {p.learning_rate: p for p in evidence.plane(_view(_rated(), {32: 0.1, 128: 0.4}))}
    works = {rate for rate, p in points.items() if p.works and p.batch_size == 128}
    assert works == {0.2, 0.4, 0.8}
    assert points[3.2].status is Status.DIVERGED
    assert points[0.8].samples == 500


def test_the_range_around_the_tuned_rate_is_unbroken():
    view = _view(_rated(), {32: 0.1, 128: 0.4})
    other = next(c for c in evidence.candidates(view) if c.setting.batch_size == 128)
    assert (other.rate_low, other.rate_high) == (0.2, 0.8)
    assert (other.rate_linear, other.rate_sqrt) == pytest.approx((0.4, 0.2))


# Useful sizes.


def test_useful_sizes_waste_neither_speed_nor_data():
    """Per sample 32: 31, 128: 16, 512: 15 µs; samples 1, 1, 1.5 times today's."""
    view = made.view(
        rates={32: 0.001, 128: 0.002, 512: 0.0077},
        projection=made.projection(
            [_fall(0.4), _fall(0.4, size=128, rate=0.4), _fall(0.6, size=512, rate=0.8)],
            {32: 0.1, 128: 0.4, 512: 0.8},
        ),
    )
    assert evidence.useful(view) == (128, 128)


def test_samples_are_compared_at_a_loss_that_both_reach():
    """A size that ends a little higher needs a little more data, not infinitely much."""
    view = _view([_fall(0.45, size=128, rate=0.4)], {32: 0.1, 128: 0.4})
    assert evidence.useful(view)[1] == 128


def test_the_useful_range_can_be_empty():
    view = made.view(
        rates={32: 0.001, 128: 0.002},
        projection=made.projection(
            [_fall(0.1), _fall(0.4, size=128, rate=0.4)], {32: 0.1, 128: 0.4}
        ),
    )
    assert evidence.useful(view) == (128, 32)


# Candidates.


def test_after_screening_every_proposal_is_a_candidate_with_its_reason():
    found = evidence.candidates(made.view())
    assert [(c.setting.batch_size, c.reason) for c in found] == [
        (32, Reason.BASELINE),
        (128, Reason.NOISE_SCALE),
    ]
    assert all(c.evidence is Evidence.SCREENED for c in found)
    assert found[1].setting.learning_rate == pytest.approx(0.4)


def test_projected_samples_are_scaled_to_a_whole_run():
    view = _view([_fall(0.1, size=128, rate=0.4, seed=s) for s in range(3)], {32: 0.1, 128: 0.4})
    today, other = evidence.candidates(view)
    assert today.samples_to_target.value == pytest.approx(made.SAMPLES)
    assert other.samples_to_target.value == pytest.approx(made.SAMPLES * 2 / 3)
    assert other.updates_to_target.value == pytest.approx(made.SAMPLES * 2 / 3 / 128)
    assert other.evidence is Evidence.PROJECTED


def test_a_search_in_which_today_diverged_still_makes_a_table():
    lost = [made.diverged(seed=s) for s in range(3)]
    other = [_fall(0.1, size=128, rate=0.4, seed=s) for s in range(3)]
    view = made.view(projection=made.projection(lost + other, {32: 0.1, 128: 0.4}))
    assert len(evidence.candidates(view)) == 2
    assert view.chosen == (128, 0.4)
    assert comparisons(view) == ()


def _confirmed(today=(4000,) * 8, other=(2000,) * 8, **given):
    record = made.confirmation(today, other)
    searched = [_fall(0.1, size=s, rate=r) for s, r in ((128, 0.4), (512, 0.8))]
    rates = {32: 0.001, 128: 0.002, 512: 0.008}
    projection = made.projection((*TODAY, *searched), {32: 0.1, 128: 0.4, 512: 0.8})
    held = {"confirmation": record, "projection": projection, "rates": rates}
    return made.view(**held | given)


def test_confirmed_candidates_are_told_by_their_fresh_runs():
    today, other, third = evidence.candidates(_confirmed())
    assert (today.runs, other.runs) == (8, 8)
    assert other.samples_to_target.value == 2500
    assert other.seconds_to_target.value == pytest.approx(2500 / 128 * 0.002)
    assert other.evidence is Evidence.CONFIRMED
    assert third.evidence is Evidence.PROJECTED


def test_whole_runs_and_short_searches_are_never_set_against_each_other():
    third = evidence.candidates(_confirmed())[2]
    assert third.metric is None
    assert not third.pareto


def test_the_pareto_set_is_fastest_or_best():
    today, other, _ = evidence.candidates(_confirmed())
    assert (today.pareto, other.pareto) == (False, True)


def test_infinite_times_stay_infinite():
    other = evidence.candidates(_confirmed(other=(INF,) * 8))[1]
    assert other.seconds_to_target.value == INF
    assert other.failed == 8
    assert not other.pareto


def test_cost_is_there_with_a_price():
    options = Options(price=Price(3600.0, "USD"))
    other = evidence.candidates(_confirmed(options=options))[1]
    assert other.cost_to_target.value == pytest.approx(other.seconds_to_target.value)


# Curves.


def test_curves_are_medians_over_seeds_in_every_unit():
    view = _view([], {32: 0.1})
    points = [p for p in evidence.curves(view) if p.name == "loss" and p.id == "today"]
    last = points[-1]
    assert (last.samples, last.epochs, last.n) == (2000, 2.0, 3)
    assert last.value == pytest.approx(0.4)
    assert last.seconds == pytest.approx(62 * 0.001)


def test_a_metric_that_is_not_a_number_is_left_out_of_the_curves():
    bad = made.curve(np.linspace(1.0, 0.4, 21), size=128, rate=0.4, metric=[NAN, *[0.5] * 20])
    points = evidence.curves(_view([bad], {32: 0.1, 128: 0.4}))
    mine = [p for p in points if p.id != "today"]
    assert len([p for p in mine if p.name == "metric"]) == 20
    assert len([p for p in mine if p.name == "loss"]) == 21


def test_plateau_is_where_a_hundredth_of_the_fall_is_left():
    losses = [1.0, 0.5, 0.105, 0.1, 0.1, 0.1]
    runs = tuple(made.curve(losses, samples=range(0, 6000, 1000), seed=1000 + i) for i in range(5))
    record = made.confirmation((4000,) * 5, (2000,) * 5, today=runs)
    assert evidence.epochs_to_plateau(made.view(confirmation=record)).value == 2.0


# The search from half of the run.


def _late(size, end):
    early = [_fall(0.1, size=128, rate=0.4), _fall(0.3, size=64, rate=0.2)]
    ends = {32: 0.4, 64: 0.4, 128: 0.4} | {size: end}
    rates = {32: 0.1, 64: 0.2, 128: 0.4}
    late = [_fall(ends[s], size=s, rate=rates[s]) for s in ends]
    record = made.projection((*TODAY, *early), {32: 0.1, 64: 0.2, 128: 0.4}, late=tuple(late))
    return made.view(projection=record, rates={32: 0.001, 64: 0.0015, 128: 0.002})


def test_the_order_has_changed_if_another_size_is_best():
    assert evidence.order_changed(_late(128, 0.1)) is False
    assert evidence.order_changed(_late(64, 0.05)) is True


def test_without_a_late_search_the_order_is_not_known():
    assert evidence.order_changed(_view([], {32: 0.1})) is None


# Noise and memory.


def test_the_noise_scale_is_told_along_the_run():
    scale = Estimate(64.0, 40.0, 90.0, n=8)
    known = NoiseResult(100, 1.0, 64.0, scale, None, "per example", 100)
    unknown = NoiseResult(200, -1.0, 64.0, None, 30.0, "per example", 100)
    points = evidence.noise(made.view(screening=made.screening(noise=(known, unknown))))
    assert [(p.samples, p.scale, p.at_least) for p in points] == [
        (100, scale, None),
        (200, None, 30.0),
    ]


def test_without_a_finder_there_is_no_memory_section():
    assert evidence.memory(made.view()) is None
