"""Conclusions from records made by hand."""

import math
from dataclasses import replace

import pytest

from batchlab.measure.noise import NoiseResult
from batchlab.types import Estimate, Evidence
from batchlab.watch import About, BatchSize, Kind, Note, judge
from batchlab.watch.record import gathered
from batchlab.watch.verdict import (
    LOADER_LIMIT,
    change_of,
    samples_needed,
    updates_needed,
    waiting_share,
)
from tests.watch.test_journal import axes, moment, start
from tests.watch.test_noise import Pair, block

GIB = 2**30


def scale(value, low, high):
    estimate = Estimate(value, low, high, n=16, unit="examples")
    return NoiseResult(0, 1.0, value, estimate, None, "per example", 64)


def bound(at_least):
    return NoiseResult(0, 0.1, 1.0, None, at_least, "per example", 64)


def training(value=None, *, waiting=0.0, begin=None, noise=(), **changes):
    """Ten even stretches at batch 4, with a noise scale."""
    moments = [
        moment(i, waiting=waiting * i, working=(1 - waiting) * i, **changes) for i in range(1, 11)
    ]
    if value is not None:
        pairs = [Pair(1.0 + 0.01 * (-1) ** i, value) for i in range(16)]
        noise = (replace(block(pairs), **axes(9)),)
    return gathered([begin or start(), *moments, *noise])


# -- formulas -------------------------------------------------------------------------------------


def test_updates_and_samples_trade_off_along_the_hyperbola():
    """(S/S_min − 1)(E/E_min − 1) = 1 at every batch size."""
    for size in (1, 10, 77, 1000):
        product = (updates_needed(size, 77.0) - 1) * (samples_needed(size, 77.0) - 1)
        assert product == pytest.approx(1.0)


def test_samples_are_updates_times_batch():
    small, large = 8, 64
    updates = updates_needed(large, 100.0) / updates_needed(small, 100.0)
    samples = samples_needed(large, 100.0) / samples_needed(small, 100.0)
    assert samples == pytest.approx(updates * large / small)


# -- the batch size -------------------------------------------------------------------------------


def test_a_batch_at_a_quarter_of_the_low_end_is_doubled():
    change = change_of(64, scale(400.0, 256.0, 800.0))
    assert change.batch_size == 128
    assert change.updates.value == pytest.approx((1 + 400 / 128) / (1 + 400 / 64))
    assert change.updates.high == pytest.approx((1 + 256 / 128) / (1 + 256 / 64))
    assert change.samples.high == pytest.approx(1.2)
    assert change.updates.low < change.updates.value < change.updates.high


def test_a_batch_just_inside_is_left_alone():
    assert change_of(65, scale(400.0, 256.0, 800.0)) is None


def test_far_below_the_batch_grows_until_it_costs_a_fifth_more_examples():
    change = change_of(1, scale(2000.0, 1000.0, 4000.0))
    assert change.batch_size == 128
    assert change.samples.high <= 1.2
    assert samples_needed(256, 1000.0) / samples_needed(1, 1000.0) > 1.2


def test_far_above_the_batch_shrinks_until_it_costs_a_fifth_more_updates():
    change = change_of(1024, scale(10.0, 5.0, 20.0))
    assert change.batch_size == 128
    assert change.updates.high <= 1.2
    assert change.samples.value == pytest.approx((1 + 128 / 10) / (1 + 1024 / 10))


def test_a_lower_bound_is_enough_to_be_far_below():
    change = change_of(16, bound(100.0))
    assert change.batch_size == 32
    assert change.updates.low == pytest.approx(0.5)
    assert change.samples.low == pytest.approx(1.0)


def test_a_lower_bound_says_nothing_about_being_above():
    assert change_of(1000, bound(10.0)) is None


def test_no_batch_beyond_what_is_worth_proposing_is_proposed():
    noise = scale(20_000.0, 10_000.0, 40_000.0)
    assert change_of(64, noise).batch_size == 2048
    assert change_of(64, noise, most=300).batch_size == 256
    assert change_of(64, noise, most=100) is None


# -- time waiting ---------------------------------------------------------------------------------


def moments_of(pairs):
    waiting = working = 0.0
    for i, (x, y) in enumerate(pairs, 1):
        waiting, working = waiting + x, working + y
        yield moment(i, waiting=waiting, working=working)


def test_the_share_is_a_ratio_of_sums():
    share = waiting_share(list(moments_of([(1.0, 1.0), (0.0, 8.0)])))
    assert share.value == pytest.approx(0.1)
    assert math.isnan(share.low)


def test_the_interval_of_the_share_is_that_of_a_ratio_estimator():
    """By hand: w = 4/16, residuals ±1, n = 4, t(3) = 2.353."""
    share = waiting_share(list(moments_of([(2.0, 2.0), (0.0, 4.0)] * 2)))
    assert share.value == pytest.approx(0.25)
    assert share.high - share.value == pytest.approx(2.353 * math.sqrt(4 / 3 * 4) / 16, rel=0.01)
    assert share.low == 0.0


def test_a_training_without_time_has_no_share():
    assert waiting_share([moment(1, waiting=0.0, working=0.0)]) is None


# -- conclusions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("watched", "kind"),
    [
        (training(4.0), Kind.FINE),
        (training(), Kind.FINE),
        (training(100.0), Kind.BELOW),
        (training(0.5), Kind.ABOVE),
        (training(4.0, waiting=LOADER_LIMIT), Kind.LOADER),
        (training(4.0, waiting=LOADER_LIMIT - 0.01), Kind.FINE),
        (training(100.0, waiting=0.5), Kind.LOADER),
        (training(100.0, waiting=0.5, diverged=3), Kind.DIVERGED),
        (gathered([start()]), Kind.NOTHING),
        (training(4.0, micro_batch_size=0), Kind.NOTHING),
    ],
)
def test_the_first_of_these_that_holds_is_the_conclusion(watched, kind):
    assert judge(watched).kind is kind


def gpu(**changes):
    return start(device="cuda:0", memory_limit=80 * GIB, **changes)


@pytest.mark.parametrize(
    ("begin", "changes", "micro"),
    [
        (gpu(), {"memory": 10 * GIB}, 4 * 4),
        (gpu(), {"memory": 37 * GIB}, None),
        (start(memory_limit=80 * GIB), {"memory": 10 * GIB}, None),
        (start(memory_limit=80 * GIB), {"memory": 10 * GIB, "accumulation": 3}, 12),
        (start(memory_limit=80 * GIB), {"memory": 30 * GIB, "accumulation": 4}, 8),
        (start(memory_limit=None), {"memory": 10 * GIB, "accumulation": 3}, None),
    ],
)
def test_memory_is_idle_where_a_larger_micro_batch_fits_and_serves(begin, changes, micro):
    verdict = judge(training(begin=begin, **changes))
    assert verdict.kind is (Kind.MEMORY if micro else Kind.FINE)
    if micro:
        assert verdict.micro_batch == micro


def test_everything_is_screened():
    assert judge(training(100.0)).evidence is Evidence.SCREENED


def test_only_the_second_half_counts_for_the_noise():
    early = replace(block([Pair(1.0, 500.0), Pair(1.1, 500.0)] * 8), **axes(2))
    assert judge(training(noise=(early,))).noise is None


def test_the_reason_for_no_noise_is_handed_on():
    watched = training()
    note = Note(**axes(3), about=About.NO_NOISE, text="no formula for GRU")
    part = Note(**axes(4), about=About.PART_OF_NOISE, text="no formula for Embedding")
    assert judge(replace(watched, notes=(note, part))).why_no_noise == "no formula for GRU"


def test_what_waiting_cost_is_priced():
    begin = start(price_per_hour=720.0)
    assert judge(training(waiting=0.5, begin=begin)).saved == pytest.approx(1.0)


def test_no_batch_beyond_a_quarter_of_the_data_is_proposed():
    pairs = [Pair(1.0 + 0.01 * (-1) ** i, 10_000.0) for i in range(16)]
    noise = (replace(block(pairs), **axes(9), population=64),)
    assert judge(training(noise=noise)).change.batch_size == 16


def test_the_batch_is_that_of_all_devices():
    verdict = judge(training(4.0, begin=start(world_size=8)))
    assert verdict.batch == BatchSize(4, 1, 8)
