"""From curves and blocks to comparable numbers, by hand-made runs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.advisor import judge
from batchlab.advisor.confirm import plan_confirmation
from batchlab.advisor.judge import (
    Yardstick,
    final_metric,
    meets,
    nearest,
    of_setting,
    projected,
)
from batchlab.advisor.project import end_loss, equal_fall, samples_to, score
from batchlab.advisor.record import Price
from batchlab.errors import InvalidValueError
from batchlab.types import Status
from tests.advisor import made

INF = math.inf
FALLING = (1.0, 0.8, 0.6, 0.4, 0.2)


# Samples for an equal fall of the loss. Means of three of FALLING: 0.8 at 100, 0.6 at 200, 0.4 at
# 300, each at its middle evaluation.


@pytest.mark.parametrize(
    ("level", "samples"),
    [(0.8, 100.0), (0.7, 150.0), (0.6, 200.0), (0.5, 250.0), (0.4, 300.0), (0.39, INF)],
)
def test_a_level_is_reached_where_the_line_through_the_means_crosses_it(level, samples):
    assert samples_to(made.curve(FALLING), level) == pytest.approx(samples)


def test_samples_are_counted_from_the_checkpoint():
    later = made.curve(FALLING, samples=(700, 800, 900, 1000, 1100))
    assert samples_to(later, 0.5) == pytest.approx(250.0)


def test_a_coarser_grid_does_not_look_later():
    fine = made.curve(np.linspace(1.0, 0.0, 21), samples=range(0, 2001, 100))
    coarse = made.curve(np.linspace(1.0, 0.0, 6), samples=range(0, 2001, 400))
    assert samples_to(fine, 0.5) == pytest.approx(samples_to(coarse, 0.5))


def test_placing_means_at_their_last_evaluation_would_look_later():
    """The planted twin: what the test above would find if the mean stood at the last of three."""

    def at_last(curve, level):
        means = [sum(curve.loss[i : i + 3]) / 3 for i in range(len(curve.loss) - 2)]
        return float(np.interp(-level, -np.array(means), curve.samples[2:]))

    fine = made.curve(np.linspace(1.0, 0.0, 21), samples=range(0, 2001, 100))
    coarse = made.curve(np.linspace(1.0, 0.0, 6), samples=range(0, 2001, 400))
    assert at_last(coarse, 0.5) - at_last(fine, 0.5) == pytest.approx(300.0)


def test_today_needs_its_own_length():
    today = made.curve(FALLING)
    assert equal_fall(today, today) == 400.0


def test_twice_as_steep_needs_half():
    today = made.curve(np.linspace(1.0, 0.4, 21))
    steep = made.curve(np.linspace(1.0, 0.1, 21), rate=0.2)
    assert equal_fall(steep, today) == pytest.approx(2000.0 * 2 / 3)
    assert equal_fall(today, steep) == pytest.approx(2000.0 * 3 / 2)


def test_a_setting_that_falls_a_little_less_is_not_never_there():
    today, slower = made.curve(np.linspace(1.0, 0.0, 21)), made.curve(np.linspace(1.0, 0.1, 21))
    assert equal_fall(slower, today) == pytest.approx(2000.0 / 0.9)


@pytest.mark.parametrize("end", [0.51, 0.9, 1.5])
def test_less_than_half_of_the_fall_is_never(end):
    today = made.curve(np.linspace(1.0, 0.0, 201))
    assert equal_fall(made.curve(np.linspace(1.0, end, 201)), today) == INF


def test_a_diverged_run_is_never_there_and_beats_nobody():
    today = made.curve(FALLING)
    assert equal_fall(made.diverged(), today) == INF
    assert equal_fall(made.diverged(), made.diverged()) == INF
    assert math.isfinite(equal_fall(today, made.diverged()))


def _noisy(generator):
    losses = np.exp(-np.linspace(0, 2, 25)) + generator.normal(0, 0.01, 25)
    return made.curve(losses)


def _at_todays_end(curve, today):
    """The planted twin: both read at the loss that today's settings end with."""
    return samples_to(curve, end_loss(today))


@pytest.mark.parametrize(("measure", "fair"), [(equal_fall, True), (_at_todays_end, False)])
def test_two_equal_settings_look_equal(measure, fair):
    """400 pairs; the mean log ratio of equals is 0 and none of them is never there."""
    generator = np.random.default_rng(0)
    pairs = [(_noisy(generator), _noisy(generator)) for _ in range(400)]
    falls = np.array([measure(a, b) for a, b in pairs])
    todays = np.array([measure(b, b) for _, b in pairs])
    never = np.isinf(falls).mean()
    logs = np.log(falls / todays)[np.isfinite(falls)]
    z = logs.mean() / (logs.std(ddof=1) / math.sqrt(len(logs)))
    assert bool(never < 0.01 and abs(z) < 4) is fair


# Scores of the learning rates of one batch size.


@pytest.mark.parametrize("objective", ["time", "cost", "samples"])
def test_scores_rank_reached_then_loss_then_diverged(objective):
    today = made.curve(np.linspace(1.0, 0.5, 21))
    steep, steeper = (made.curve(np.linspace(1.0, e, 21)) for e in (0.2, 0.0))
    flat, flatter = (made.curve(np.linspace(1.0, e, 21)) for e in (0.7, 0.9))
    lost = made.curve([1.0, 0.9, math.nan, 0.1], status=Status.OK)
    order = [steeper, steep, flat, flatter, made.diverged()]
    scores = [score(c, today, objective, True) for c in order]
    assert scores == sorted(scores)
    assert len(set(scores)) == 5
    assert score(lost, today, objective, True) == INF


def test_scores_for_accuracy_follow_the_metric_in_its_direction():
    curves = [made.curve(FALLING, metric=[m] * 5) for m in (0.9, 0.8)]
    best = [score(c, curves[0], "accuracy", True) for c in curves]
    assert best[0] < best[1]
    least = [score(c, curves[0], "accuracy", False) for c in curves]
    assert least[0] > least[1]


def test_scores_are_numbers_even_where_today_diverged():
    scores = [score(made.curve(FALLING[:k]), made.diverged(), "time", True) for k in (3, 5)]
    assert scores[1] < scores[0] < INF


# Curves.


def test_a_joined_curve_counts_the_moment_between_once():
    first = made.curve((1.0, 0.9, 0.8), rung=0)
    later = made.curve((0.8, 0.7), samples=(200, 300), rung=1, status=Status.OK)
    joined = first.joined(later)
    assert joined.samples == (0, 100, 200, 300)
    assert joined.loss == (1.0, 0.9, 0.8, 0.7)
    assert joined.rung == 1


def test_of_a_setting_the_run_that_went_furthest_counts():
    short, long = made.curve(FALLING[:3]), made.curve(FALLING)
    other = made.curve(FALLING, rate=0.2)
    assert of_setting([long, short, other], 32, 0.1) == {0: long}


def test_a_diverged_run_has_no_final_metric():
    values = final_metric([made.curve(FALLING), made.diverged()])
    assert values[0] == pytest.approx(0.6)
    assert math.isnan(values[1])


# The yardstick.


def test_time_is_updates_times_seconds_and_reuse():
    yard = Yardstick(made.machine({32: 0.5}), None, reuse=3)
    assert yard.measure("time", np.array([64.0, INF]), 32).tolist() == [3.0, INF]


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        (Price(3600.0, "USD"), 1.0),
        (Price(3600.0, "USD", 0.25), 17.0),
        (Price(0.0, "USD", 0.25), 16.0),
    ],
)
def test_cost_is_hours_and_samples_and_never_free_where_never_reached(price, cost):
    yard = Yardstick(made.machine({32: 0.5}), price)
    assert yard.measure("cost", np.array([64.0, INF]), 32).tolist() == [pytest.approx(cost), INF]


def test_the_share_of_the_cost_that_is_time_carries_the_spread_of_time():
    rates = [0.4, 0.5, 0.6, 0.5]
    hourly = Yardstick(made.machine({32: rates}), Price(3600.0, "USD"))
    mixed = Yardstick(made.machine({32: rates}), Price(3600.0, "USD", hourly.rate(32).value / 32))
    time = hourly.spread("time", 32)
    assert hourly.spread("cost", 32) == time
    assert mixed.spread("cost", 32)[0] == pytest.approx(time[0] / 4)
    assert hourly.spread("samples", 32) == (0.0, INF)


@pytest.mark.parametrize(
    ("reading", "time", "cost"), [(0.0, 3.0, 19.0), (0.25, 19.0, 35.0), (2.0, 131.0, 147.0)]
)
def test_reading_is_added_once_a_fresh_sample_whatever_the_reuse(reading, time, cost):
    yard = Yardstick(made.machine({32: 0.5}), Price(3600.0, "USD", 0.25), 3, reading=reading)
    samples = np.array([64.0, INF])
    assert yard.measure("time", samples, 32).tolist() == [pytest.approx(time), INF]
    assert yard.measure("cost", samples, 32).tolist() == [pytest.approx(cost), INF]
    assert yard.computing.measure("time", samples, 32).tolist() == [3.0, INF]
    assert yard.updates(samples, 32).tolist() == [6.0, INF]


def test_reading_is_known_and_only_computing_carries_the_spread_of_timing():
    bare = Yardstick(made.machine({32: [0.4, 0.5, 0.6, 0.5]}), None)
    half = replace(bare, reading=bare.rate(32).value / 32)
    assert half.spread("time", 32)[0] == pytest.approx(bare.spread("time", 32)[0] / 4)


def test_a_slow_reader_narrows_the_gain_of_fewer_updates_to_that_of_fewer_samples():
    # As many samples at twice the batch: half the updates, and no gain once reading rules.
    fast = Yardstick(made.machine({32: 0.5, 64: 0.5}), None)
    slow = replace(fast, reading=1e6)
    sides = (np.array([640.0] * 3), 32), (np.array([640.0] * 3), 64)
    assert fast.compare("time", *sides).estimate.value == pytest.approx(2.0)
    assert slow.compare("time", *sides).estimate.value == pytest.approx(1.0, abs=1e-6)


def test_a_single_block_is_not_taken_for_certain():
    yard = Yardstick(made.machine({32: [0.5]}), None)
    assert yard.spread("time", 32) == (judge.UNKNOWN_LOG_SD**2, 1.0)


def test_one_batch_size_has_one_timing_that_cancels():
    yard = Yardstick(made.machine({32: [0.1, 1.0], 64: [0.1, 1.0]}), None)
    before, after = np.array([4.0, 6.0, 5.0]), np.array([2.0, 3.1, 2.4])
    same = yard.compare("time", (before, 32), (after, 32)).estimate
    samples = yard.compare("samples", (before, 32), (after, 32)).estimate
    assert (same.low, same.high) == pytest.approx((samples.low, samples.high))
    other = yard.compare("time", (before, 32), (after, 64)).estimate
    assert other.high / other.low > 2 * same.high / same.low


def test_a_grid_of_evaluations_widens_the_range():
    yard = Yardstick(made.machine(made.RATES), None)
    before, after = np.array([1000.0] * 4), np.array([500.0] * 4)
    exact = yard.compare("samples", (before, 32), (after, 32)).estimate
    rounded = yard.compare("samples", (before, 32), (after, 32), spacing=250.0).estimate
    assert exact.low == exact.high == 2.0
    assert rounded.low < 2.0 < rounded.high


# Schedules of batch sizes.


SCHEDULE = "0:32 4ep:64"


def timed(**rates):
    found = {int(name[1:]): seconds for name, seconds in rates.items()}
    return Yardstick(made.machine(found), Price(3600.0, "USD", 0.25), 2, examples=100)


def test_the_time_of_a_schedule_is_the_sum_over_its_phases():
    """400 samples are drawn by 32, whatever comes after by 64."""
    yard = timed(b32=0.5, b64=0.8)
    samples = np.array([64.0, 400.0, 528.0, INF])
    by_hand = [2 * 0.5 * 2, 12.5 * 0.5 * 2, 12.5 * 0.5 * 2 + 2 * 0.8 * 2, INF]
    assert yard.measure("time", samples, SCHEDULE) == pytest.approx(by_hand)
    cost = np.array(by_hand) + 0.25 * samples
    assert yard.measure("cost", samples, SCHEDULE) == pytest.approx(cost)
    assert yard.measure("samples", samples, SCHEDULE) is samples


@pytest.mark.parametrize("quantity", ["time", "cost"])
def test_a_schedule_of_one_size_is_that_size(quantity):
    yard = timed(b32=[0.4, 0.5, 0.6], b64=[0.7, 0.8, 0.9])
    samples = np.array([100.0, 900.0])
    assert yard.measure(quantity, samples, "0:32 4ep:32") == pytest.approx(
        yard.measure(quantity, samples, 32)
    )
    assert yard.spread(quantity, "0:32 4ep:32", samples) == pytest.approx(
        yard.spread(quantity, 32)
    )


@given(
    samples=st.lists(st.floats(1, 1e5), min_size=2, max_size=5),
    change=st.integers(1, 50_000),
)
def test_time_rises_with_samples_and_lies_between_that_of_the_sizes(samples, change):
    yard = timed(b32=0.5, b64=0.8)
    ordered = np.sort(np.array(samples))
    slow, fast = (yard.measure("time", ordered, size) for size in (32, 64))
    mixed = yard.measure("time", ordered, f"0:32 {change}:64")
    assert (np.diff(mixed) >= 0).all()
    assert (mixed <= slow * (1 + 1e-9)).all()
    assert (mixed >= fast * (1 - 1e-9)).all()


def test_the_spread_of_a_schedule_weighs_each_size_by_its_share_of_the_time():
    yard = timed(b32=[0.4, 0.5, 0.6], b64=[0.7, 0.8, 1.0])
    reached = np.array([800.0, INF, 800.0])
    parts = [12.5 * yard.rate(32).value, 6.25 * yard.rate(64).value]
    shares = np.array(parts) / sum(parts)
    pieces = shares**2 * [yard.rate(size).log_var for size in (32, 64)]
    var, dof = yard.spread("time", SCHEDULE, reached)
    assert var == pytest.approx(pieces.sum())
    assert dof == pytest.approx(pieces.sum() ** 2 / (pieces**2 / 2).sum())


def test_what_both_are_timed_by_cancels_in_the_ratio():
    """Of a schedule against its second size only the share of the first one stays uncertain."""
    yard = timed(b32=[0.5, 0.5], b64=[0.1, 1.0])
    before, after = np.array([800.0, 900.0, 700.0]), np.array([800.0, 700.0, 900.0])
    late = yard.compare("time", (before, "0:32 1:64"), (after, 64)).estimate
    same = yard.compare("time", (before, 64), (after, 64)).estimate
    assert (late.low, late.high) == pytest.approx((same.low, same.high), rel=0.02)
    other = yard.compare("time", (before, 32), (after, 64)).estimate
    assert other.high / other.low > 2 * late.high / late.low


def test_positions_in_epochs_need_the_number_of_examples():
    yard = Yardstick(made.machine({32: 0.5, 64: 0.5}), None)
    with pytest.raises(InvalidValueError, match="in samples before it is read"):
        yard.measure("time", np.array([10.0]), SCHEDULE)


# The search, seen as a comparison.


def _search(maximise=True, objective="samples"):
    curves = [
        made.curve(np.linspace(1.0, 0.5, 21), size=32, rate=0.1, seed=s) for s in range(3)
    ] + [made.curve(np.linspace(1.0, 0.0, 21), size=128, rate=0.4, seed=s) for s in range(3)]
    record = made.projection(curves, {32: 0.1, 128: 0.4})
    yard = Yardstick(made.machine(made.RATES), None)
    return projected(record, yard, objective=objective, today=made.TODAY, maximise=maximise)


def test_a_projection_compares_every_size_with_today():
    today, other = _search()
    assert today.ratio.estimate.value == pytest.approx(1.0)
    assert other.ratio.estimate.value == pytest.approx(2.0)
    assert other.fall == pytest.approx([1000.0] * 3)


def test_projected_time_adds_the_speed():
    assert _search(objective="time")[1].ratio.estimate.value == pytest.approx(4.0)


def test_a_size_without_a_common_seed_is_left_out():
    record = made.projection([made.curve(FALLING)], {32: 0.1, 128: 0.4})
    yard = Yardstick(made.machine(made.RATES), None)
    rows = projected(record, yard, objective="time", today=made.TODAY, maximise=True)
    assert [r.batch_size for r in rows] == [32]


@pytest.mark.parametrize("maximise", [True, False])
def test_less_burden_is_better_whatever_is_asked(maximise):
    """The other setting has the lower loss, and a metric that grows as the loss falls."""
    today, other = _search(maximise=maximise, objective="accuracy")
    better = other.burden("accuracy", maximise).value < today.burden("accuracy", maximise).value
    assert better is maximise
    today, other = _search(objective="time")
    assert other.burden("time", maximise).value == pytest.approx(1 / 4)
    burden = other.burden("time", maximise)
    assert burden.low <= burden.value <= burden.high


# Demands.


def test_demands_follow_the_direction_of_the_metric():
    runs = [made.curve(FALLING), made.curve(FALLING)]  # metric 0.6 and loss 0.4 at the end
    assert meets(runs, "accuracy", True, {"accuracy": 0.5, "loss": 0.5}) == {
        "accuracy=0.5": True,
        "loss=0.5": True,
    }
    assert not any(meets(runs, "accuracy", True, {"accuracy": 0.7, "loss": 0.3}).values())
    assert meets(runs, "error", False, {"error": 0.7}) == {"error=0.7": True}


def test_a_diverged_run_meets_no_demand():
    runs = [made.curve(FALLING), made.diverged()]
    assert not any(meets(runs, "accuracy", True, {"accuracy": -9.0, "loss": 9.0}).values())


# ------------------------------------------------------------------ where nothing falls as far


def test_the_nearest_ended_lowest_on_average_and_is_neither_todays_nor_diverged():
    curves = [
        made.curve((1.0, 0.1), size=32, rate=0.1),  # today's
        made.curve((1.0, 0.3), size=64, rate=0.2),
        made.curve((1.0, 0.5), size=64, rate=0.2, seed=1),
        made.curve((1.0, 0.35), size=128, rate=0.2),
        made.curve((1.0, 0.2), size=128, rate=0.4, rung=1),  # did not go on
        made.diverged(size=16, rate=0.1),
    ]
    projection = made.projection(curves, {})
    assert nearest(projection, (32, 0.1)) == ((128, 0.2),)
    assert nearest(projection, (128, 0.2)) == ((32, 0.1),)


def test_where_all_others_diverged_there_is_no_nearest():
    curves = [made.curve((1.0, 0.1)), made.diverged(size=16, rate=0.1)]
    assert nearest(made.projection(curves, {}), (32, 0.1)) == ()


def test_where_no_candidate_falls_as_far_the_nearest_is_confirmed():
    session = made.session()
    near = nearest(made.projection([made.curve((1.0, 0.3), size=64, rate=0.2)], {}), made.TODAY)
    assert plan_confirmation(session, [], math.inf) is None
    assert plan_confirmation(session, [], math.inf, near).pairs() == ((64, 0.2),)
