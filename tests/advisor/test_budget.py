"""An advice on a clock that only counts: what is planned is paid, and the budget is kept."""

import math
from dataclasses import replace

import pytest

from batchlab import _platform
from batchlab.advisor import advise as module
from batchlab.advisor import screen
from batchlab.advisor import session as sessions
from batchlab.advisor.advise import run_stages
from batchlab.advisor.inner import Inside
from batchlab.advisor.options import Options
from batchlab.advisor.session import Session, Silent, Stopwatch
from batchlab.engine import Engine
from batchlab.measure.fit import FitResult
from batchlab.measure.throughput import Block
from batchlab.tasks import prepare
from tests.advisor import tiny

OPTIONS = Options(seeds=2, confirm_seeds=3, batch_sizes=(16, 64, 128), growing=False)
FIT_SECONDS = 2.0
FAST = ((20.0, 1.0), (60.0, 1.2))
KEPT = 1.2
"""An advice ends within so many times its budget."""


class Clock:
    """Stands still but for what is counted.

    Attributes:
        now: Seconds.
        wrong: What a training takes / what it was expected to take.
        slow: Seconds of an update of 32 examples.
        events: What was done, in order.
    """

    def __init__(self):
        self.now, self.wrong, self.slow, self.expected = 0.0, 1.0, 0.1, 0.0
        self.events = []

    def perf_counter(self):
        return self.now

    def update(self, size):
        """Seconds of an update: a part of it does not depend on its size."""
        return self.slow * (0.5 + size / 64)


class Told(Silent):
    """Notes what is said, and when."""

    def __init__(self, clock):
        self.clock = clock

    def say(self, sentence):
        self.clock.events.append(sentence)


@pytest.fixture
def clock(monkeypatch):
    """All that takes time takes it on this clock."""
    made = Clock()

    def visit(self, sizes, seconds=0.0, micro=None, wrapped=False):
        for size in sizes:
            made.events.append("timed")
            made.now += 3 * made.update(size)
            blocks = self.timed(wrapped)
            one = Block(size, 1, made.update(size), 0.0, size)
            blocks[str(size)] = (*blocks.get(str(size), ()), one)

    def fitted(prepared, *_, **__):
        made.events.append("fit")
        made.now += FIT_SECONDS
        return FitResult(prepared.examples, "data set", 2**30, "free", 0, ())

    expected, train = Session._expected, Engine.train

    def priced(self, *given):
        found = expected(self, *given)
        made.expected = found / self.pace
        return found

    def trained(self, *given, **named):
        read = self.reused
        found = train(self, *given, **named)
        if self.reused == read:
            made.events.append("trained")
            made.now += made.wrong * made.expected
        return found

    monkeypatch.setattr(_platform, "available_cores", lambda: 1)
    for place in (module, screen, sessions):
        monkeypatch.setattr(place, "time", made)
    monkeypatch.setattr(screen, "fit", fitted)
    monkeypatch.setattr(screen, "_engine_factor", lambda *_: 1.0)
    monkeypatch.setattr(Stopwatch, "visit", visit)
    monkeypatch.setattr(Session, "_expected", priced)
    monkeypatch.setattr(Engine, "train", trained)
    monkeypatch.setattr(module.inner, "look", lambda *_: Inside(None, "no hidden layer"))
    return made


@pytest.fixture(scope="module")
def prepared():
    return prepare(tiny.task(), device="cpu")


def run(prepared, clock, out, budget, **given):
    options = replace(OPTIONS, budget=budget)
    return run_stages(prepared, options, out, workers=0, listener=Told(clock), **given)


@pytest.mark.parametrize(
    ("budget", "wrong"),
    [
        pytest.param(budget, wrong, marks=[] if (budget, wrong) in FAST else pytest.mark.slow)
        for budget in (20.0, 40.0, 60.0, 200.0)
        for wrong in (0.8, 1.0, 1.2)
    ],
)
def test_an_advice_keeps_its_budget_where_prices_are_a_fifth_wrong(
    prepared, clock, tmp_path, budget, wrong
):
    clock.wrong = wrong
    found = run(prepared, clock, tmp_path, budget)
    assert clock.now <= KEPT * budget
    assert found.records.wall_seconds == pytest.approx(clock.now)
    assert found.records.screening is not None


@pytest.mark.slow
@pytest.mark.parametrize("budget", [60.0, 200.0, 600.0])
@pytest.mark.parametrize("wrong", [0.8, 1.2])
def test_batches_that_grow_keep_the_budget_too(prepared, clock, tmp_path, budget, wrong):
    clock.wrong = wrong
    options = replace(OPTIONS, budget=budget, growing=True)
    found = run_stages(prepared, options, tmp_path, workers=0, listener=Told(clock))
    assert clock.now <= KEPT * budget
    if budget == 600.0:
        assert found.records.pilot.why_not != "budget"


def test_prices_that_are_far_too_low_break_the_budget(prepared, clock, tmp_path):
    """The planted bug: the budget is kept by the prices, not by chance."""
    clock.wrong = 4.0
    run(prepared, clock, tmp_path, 60.0)
    assert clock.now > KEPT * 60.0


def test_a_run_longer_than_the_budget_is_said_before_anything_is_trained(
    prepared, clock, tmp_path
):
    clock.slow = 1.0
    found = run(prepared, clock, tmp_path, 30.0)
    said = next(i for i, event in enumerate(clock.events) if "longer than the budget" in event)
    assert clock.events[:said] == ["timed"]
    assert found.records.confirmation is None
    assert clock.now <= KEPT * 30.0


def test_what_came_before_the_stages_counts(prepared, clock, tmp_path):
    clock.now = 50.0
    found = run(prepared, clock, tmp_path, 60.0, began=0.0)
    assert found.records.wall_seconds == pytest.approx(clock.now)
    assert 50.0 < clock.now <= KEPT * 60.0


def test_a_larger_budget_searches_the_sizes_that_the_smaller_did_not_pay_for(
    prepared, clock, tmp_path
):
    budget = 20.0
    first = run(prepared, clock, tmp_path, budget).records
    assert first.confirmation is None
    assert first.projection.unpaid
    left_out = [one for one in first.said if "does not pay for it" in one]
    assert len(left_out) == len(first.projection.unpaid)
    again = run(prepared, clock, tmp_path, 1000.0, resume=True).records
    assert not again.projection.unpaid
    assert any("the larger budget also pays for batch size" in one for one in again.said)
    assert not any(one in again.said for one in left_out)
    assert again.confirmation is not None
    assert math.isfinite(again.wall_seconds)


def test_the_same_budget_does_not_search_again(prepared, clock, tmp_path):
    first = run(prepared, clock, tmp_path, 20.0).records
    clock.events.clear()
    again = run(prepared, clock, tmp_path, 20.0, resume=True).records
    assert again.projection == first.projection
    assert "trained" not in clock.events
