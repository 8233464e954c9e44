"""Seconds per update: what is counted, the interval, and that nothing is left behind."""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy import stats as reference
from torch import nn

from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError
from batchlab.measure import throughput
from batchlab.measure.throughput import Block, Timing, curve, knee, seconds_per_update, time_block
from batchlab.tasks import Task, prepare
from batchlab.types import Estimate

STEP = 0.125


class Clock:
    """Every reading is so many seconds after the last; an update reads it three times."""

    def __init__(self, step=STEP):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


@pytest.fixture
def prepared():
    x = torch.randn(80, 3, generator=torch.Generator().manual_seed(0))
    task = Task(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1)),
        (x, x[:, 0]),
        loss=lambda outputs, batch: (outputs[:, 0] - batch[1]).square(),
        baseline=RunConfig(rule="adam", batch_size=8, learning_rate=0.01, samples="2ep"),
    )
    return prepare(task, device="cpu")


def test_a_block_counts_every_update_after_the_warm_up(prepared):
    clock = Clock()
    block = time_block(prepared, prepared.baseline, 10 * STEP, warmup_updates=3, clock=clock)
    # Twice inside and once after: 10 steps are over after the fourth update.
    assert (block.updates, block.loader_seconds) == (4, 4 * STEP)
    assert block.end == (3 + 4) * 8


@pytest.mark.parametrize(
    ("update", "warmed", "timed"), [(0.6, 2, 0.6), (1.2, 2, 1.2), (2.1, 1, 2.1), (4.5, 0, 4.5)]
)
def test_slow_updates_are_known_of_soon(prepared, update, warmed, timed):
    """An update of 4.5 s is known of after 4.5 s, not after the third."""
    clock = Clock(update / 3)
    block = time_block(prepared, prepared.baseline, 0.01, clock=clock)
    assert block.updates == 1
    assert block.end == 8 * (warmed + 1)
    assert block.seconds == pytest.approx(timed, rel=0.4)
    assert clock.now < 10


@pytest.mark.parametrize(("apart", "seconds"), [(True, STEP), (False, 0.5 + STEP)])
def test_apart_reading_does_not_wait_for_queued_computing(prepared, monkeypatch, apart, seconds):
    """An accelerator whose updates take 0.5 s once something waits for them, as reading does."""
    clock, queued = Clock(), [0.0]
    read, update = throughput.plain.read, throughput.plain.update

    def drain(*_):
        clock.now, queued[0] = clock.now + queued[0], 0.0

    def reading(*given):
        drain()
        return read(*given)

    def updating(*given):
        queued[0] += 0.5
        return update(*given)

    monkeypatch.setattr(throughput.plain, "read", reading)
    monkeypatch.setattr(throughput.plain, "update", updating)
    monkeypatch.setattr(throughput._Loop, "synchronize", drain)
    block = time_block(prepared, prepared.baseline, 5.0, apart=apart, clock=clock)
    first = STEP - seconds  # nothing is queued before the first update that is timed
    assert block.loader_seconds == pytest.approx(block.updates * seconds + min(0.0, first))


def test_the_warm_up_is_not_in_the_time(prepared):
    blocks = [
        time_block(prepared, prepared.baseline, 1.0, warmup_updates=n, clock=Clock())
        for n in (0, 5)
    ]
    assert blocks[0].seconds == blocks[1].seconds


def test_at_least_one_update_is_timed(prepared):
    assert time_block(prepared, prepared.baseline, 1e-9).updates == 1


def test_reuse_counts_updates_and_reads_once(prepared):
    config = prepared.baseline.replace(reuse=3)
    block = time_block(prepared, config, 1.0, clock=Clock())
    assert block.updates == pytest.approx(3 * block.loader_seconds / STEP)


@pytest.mark.wrong_type  # the type checker of the tests itself draws from Python's generator
def test_a_block_leaves_no_trace(prepared):
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    weights = torch.rand(3)
    torch.set_rng_state(states[0])
    data = prepared.train.tree[0].clone()
    threads = torch.get_num_threads()
    time_block(prepared, prepared.baseline, 0.01, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert torch.equal(prepared.train.tree[0], data)
    assert torch.equal(torch.rand(3), weights)


def test_threads_are_set_during_the_block_and_restored_after_an_error(prepared):
    before, seen = torch.get_num_threads(), []

    def clock():
        seen.append(torch.get_num_threads())
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        time_block(prepared, prepared.baseline, 1, threads=before + 2, clock=clock)
    assert seen == [before + 2]
    assert torch.get_num_threads() == before


def test_blocks_may_start_anywhere_in_the_stream(prepared):
    block = time_block(prepared, prepared.baseline, 0.01, start=1234, warmup_updates=1)
    assert block.end == 1234 + 8 * (block.updates + 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, "`batch_size` must be from 1 to 68"),
        ({"batch_size": 69}, "`batch_size` must be from 1 to 68"),
        ({"seconds": 0.0}, "`seconds` must be above 0"),
        ({"start": -1}, "`start` must be 0 or more"),
        ({"micro_batch_size": 0}, "`micro_batch_size` must be at least 1"),
    ],
)
def test_impossible_input_is_refused(prepared, arguments, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        time_block(prepared, prepared.baseline, **({"seconds": 0.01} | arguments))


def test_a_schedule_is_timed_size_by_size(prepared):
    config = prepared.baseline.replace(batch_size="0:8 1ep:16")
    with pytest.raises(InvalidValueError, match="Time each size of a schedule"):
        time_block(prepared, config, 0.01)
    assert time_block(prepared, config, 0.001, batch_size=16).batch_size == 16


def blocks_of(per_update, batch_size=8, updates=10):
    return [Block(batch_size, updates, updates * s, 0.0, 0) for s in per_update]


def test_the_interval_is_students_on_logarithms():
    values = np.array([0.11, 0.10, 0.13, 0.105])
    timing = seconds_per_update(blocks_of(values))
    logs = np.log(values)
    low, high = reference.t.interval(0.9, 3, logs.mean(), reference.sem(logs))
    found = timing.seconds_per_update
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
    assert timing.log_var == pytest.approx(reference.sem(logs) ** 2)
    assert timing.dof == 3


def test_the_interval_covers_at_its_level():
    """Log-normal blocks, n = 5, 2000 repetitions: 90 % within 4 standard errors (±2.7 points)."""
    generator = np.random.default_rng(0)
    assert abs(coverage(generator, seconds_per_update) - 0.9) < 0.027


def test_the_interval_of_a_normal_quantile_does_not_cover():
    def planted(blocks):
        timing = seconds_per_update(blocks)
        centre, half = math.log(timing.seconds_per_update.value), 1.645 * math.sqrt(timing.log_var)
        bounds = math.exp(centre), math.exp(centre - half), math.exp(centre + half)
        return Timing(8, Estimate(*bounds, n=5), timing.log_var, 4, 0.0, 50)

    assert abs(coverage(np.random.default_rng(0), planted) - 0.9) > 0.027


def coverage(generator, method):
    hits = 0
    for _ in range(2000):
        found = method(blocks_of(np.exp(generator.normal(0.0, 0.2, 5)))).seconds_per_update
        hits += found.low <= 1.0 <= found.high
    return hits / 2000


def test_one_block_has_no_interval():
    timing = seconds_per_update(blocks_of([0.5]))
    assert math.isnan(timing.seconds_per_update.low)
    assert math.isnan(timing.log_var)


def test_samples_per_second_turns_the_interval_around():
    speed = seconds_per_update(blocks_of([0.1, 0.2])).samples_per_second
    seconds = seconds_per_update(blocks_of([0.1, 0.2])).seconds_per_update
    assert speed.low == pytest.approx(8 / seconds.high)
    assert speed.low < speed.value < speed.high


def test_blocks_of_different_sizes_are_not_joined():
    with pytest.raises(InvalidValueError, match="blocks of one batch size"):
        seconds_per_update([Block(8, 1, 1.0, 0.0, 8), Block(16, 1, 1.0, 0.0, 16)])
    with pytest.raises(InvalidValueError, match="blocks of one batch size"):
        seconds_per_update([])


def test_blocks_of_different_numbers_of_processes_are_not_joined():
    blocks = [Block(8, 1, 1.0, 0.0, 8, world_size=n) for n in (1, 2)]
    with pytest.raises(InvalidValueError, match="blocks of one number of processes"):
        seconds_per_update(blocks)
    sources = [seconds_per_update([one]).seconds_per_update.source for one in blocks]
    assert sources == ["plain loop, one run alone", "processes together"]


def timing_at(size, samples_per_second):
    return seconds_per_update([Block(size, 1, size / samples_per_second, 0.0, size)])


@pytest.mark.parametrize(
    ("speeds", "expected"),
    [
        ({8: 100, 16: 100, 32: 100}, 8),
        ({8: 50, 16: 83, 32: 84, 64: 100}, 32),
        ({8: 50, 16: 100, 32: 60}, 16),
        ({8: 7000, 64: 4000}, 8),
    ],
)
def test_the_knee_is_the_smallest_with_most_of_the_best(speeds, expected):
    for order in itertools.permutations(speeds):
        assert knee(timing_at(size, speeds[size]) for size in order) == expected


def test_no_timing_has_no_knee():
    assert knee([]) is None


def test_a_curve_interleaves_its_blocks(prepared):
    timings = curve(prepared, prepared.baseline, [4, 16], 0.002, blocks=3, largest_micro_batch=8)
    assert [t.batch_size for t in timings] == [4, 16]
    assert all(t.seconds_per_update.n == 3 for t in timings)
    assert all(0 < t.loader_share < 1 for t in timings)
