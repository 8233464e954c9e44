"""Stage A stays within the budget, and says what it could not measure."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from batchlab import _platform
from batchlab.advisor import screen as module
from batchlab.advisor.options import Options
from batchlab.advisor.screen import measure_fit, proposed, resolved_scale, time_evaluation
from batchlab.advisor.session import Session
from batchlab.engine.trace import Trace
from batchlab.errors import TaskError
from batchlab.measure.fit import FitResult, Trial, sentence_of
from batchlab.measure.noise import METHODS, Moments, from_trace_values, result
from batchlab.measure.throughput import Block
from batchlab.tasks import Metric
from tests.advisor import made

TODAY = FitResult(32, "max_val", 0, "a secret", 0, (Trial(32, True, 0),))


class Clock:
    """Stands still but for what is counted."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made_ = Clock()
    monkeypatch.setattr(module, "time", made_)
    return made_


# --- what fits ---


def fitted(monkeypatch, found, budget=30.0):
    given = {}

    def fit(*_, **named):
        given.update(named)
        return found

    monkeypatch.setattr(module, "fit", fit)
    measure_fit(made.session(options=Options(budget=budget)))
    return given


def test_a_first_batch_out_of_time_is_not_reported_as_memory(monkeypatch):
    trial = Trial(32, False, 0, reason="it takes longer than 30 seconds")
    late = FitResult(0, "time", 2**30, "free", 0, (trial,))
    late = replace(late, sentence=sentence_of(late))
    with pytest.raises(
        TaskError, match=r"longer than 30 seconds.* Give a larger budget"
    ) as caught:
        fitted(monkeypatch, late)
    assert "othing fits" not in str(caught.value)


def test_a_batch_that_does_not_fit_asks_for_no_budget(monkeypatch):
    full = FitResult(0, "nothing fits", 2**30, "free", 0, (), sentence="Nothing fits, not even 1.")
    with pytest.raises(TaskError, match=r"Nothing fits, not even 1\.$"):
        fitted(monkeypatch, full)


@pytest.mark.parametrize(
    ("budget", "patience"), [(2.0, 10.0), (30.0, 30.0), (3600.0, 60.0), (None, 60.0)]
)
def test_the_first_size_may_take_no_longer_than_the_budget(monkeypatch, budget, patience):
    assert fitted(monkeypatch, TODAY, budget)["patience"] == patience


# --- one evaluation ---


def timed(monkeypatch, clock, seconds, budget):
    """How often which part is read where all of the validation data take so long."""
    session = made.session(options=Options(budget=budget))
    examples, read = session.prepared.validation.examples, []

    def evaluated(_, size):
        def once():
            read.append(size)
            clock.now += seconds * size / examples
            return seconds * size / examples

        return once

    monkeypatch.setattr(module, "EVALUATION_BATCH", 4)
    monkeypatch.setattr(module, "_evaluated", evaluated)
    time_evaluation(session)
    assert session.evaluation_seconds == pytest.approx(seconds)
    return session, read


@pytest.mark.parametrize("budget", [30.0, 300.0, None])
@pytest.mark.parametrize("seconds", [0.001, 0.1, 2.0, 15.0, 100.0])
def test_timing_an_evaluation_takes_a_small_part_of_the_budget(
    monkeypatch, clock, seconds, budget
):
    session, read = timed(monkeypatch, clock, seconds, budget)
    limit = module._evaluation_limit(session)
    assert clock.now <= max(limit, seconds * read[0] / session.prepared.validation.examples)
    assert limit <= 0.05 * (budget or 200.0)


def test_an_evaluation_is_timed_on_a_part_only_where_it_is_long(monkeypatch, clock):
    session, read = timed(monkeypatch, clock, 15.0, 30.0)
    examples = session.prepared.validation.examples
    assert max(read) < examples
    assert f"timed on {read[-1]} of {examples} examples" in session.listener.sentences[-1]
    session, read = timed(monkeypatch, clock, 0.01, 30.0)
    assert read[-3:] == [examples] * 3
    assert not session.listener.sentences


def test_a_part_of_an_evaluation_reads_that_part_and_asks_no_metric():
    session, asked = made.session(), []

    def score(outputs, batch):
        asked.append(len(outputs))
        return 1.0

    mine = replace(session.prepared, metric=Metric("mine", score, maximise=True))
    session = replace(session, prepared=mine)
    examples = mine.validation.examples
    assert module._evaluated(session, 10)() >= 0
    assert asked == []
    module._evaluated(session, examples)()
    assert asked == [examples]


@pytest.mark.wrong_type  # a run of which only the series are there
@pytest.mark.parametrize(("seconds", "at"), [(15.0, ()), (0.01, (0, 64))])
def test_the_short_run_is_evaluated_where_the_budget_pays_for_it(monkeypatch, seconds, at):
    session, jobs = made.session(options=Options(budget=30.0)), []
    session.evaluation_seconds = seconds

    def train(self, what, configs, job):
        jobs.append(job)
        return Trace((SimpleNamespace(series={}),)), [None]

    monkeypatch.setattr(Session, "train", train)
    evaluate = module._can_evaluate(session)
    run, _ = module.short_run(session, 64, evaluate=evaluate)
    assert jobs[0].evaluate_at == at
    assert bool(session.listener.sentences) == (at == ())
    module._check_metric(session, run)


# --- the noise scale ---


class Probe:
    """Takes two seconds."""

    name = "noise"

    def __init__(self, clock):
        self.clock = clock

    def __call__(self, objective, samples):
        self.clock.now += 2.0
        moments = Moments(2.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 31.0)
        return result(moments, samples=samples, examples=64, method=METHODS[1]).values()


@pytest.mark.wrong_type  # a probe that only takes time
@pytest.mark.parametrize(
    ("most", "expected", "measured"),
    [(5.0, 1.0, 2), (5.0, 6.0, 0), (-1.0, 0.0, 0), (8.0, 2.0, 4), (float("inf"), 9.0, 4)],
)
def test_the_noise_scale_is_measured_as_often_as_the_budget_pays(clock, most, expected, measured):
    probe = module._Timed(Probe(clock), most, expected)
    values = [probe(torch.nn.Identity(), samples) for samples in (1, 2, 3, 4)]
    found = [from_trace_values(v, i) for i, v in enumerate(values)]
    assert [module._left_out(one) for one in found] == [False] * measured + [True] * (4 - measured)
    assert (probe.seconds, clock.now) == (2.0 * measured, 2.0 * measured)
    assert len({tuple(v) for v in values}) == 1
    assert (resolved_scale(tuple(found)) is None) == (measured == 0)


# --- candidates where memory cannot be measured ---


def candidates(monkeypatch, asked=None, most=10**9, error="out of memory", scale=None):
    """The sizes of a machine that cannot measure memory and holds so many examples."""

    def visit(self, sizes, wrapped=False):
        for size in sizes:
            assert self.micro(size) is None  # the whole batch at once
            if size > most:
                raise RuntimeError(error)
            self.stopwatch.blocks[str(size)] = (Block(size, 1, 1.0, 0.0, size),)

    monkeypatch.setattr(_platform, "memory_unavailable", lambda: "memory is a secret here")
    monkeypatch.setattr(Session, "visit", visit)
    session = made.session(options=Options(batch_sizes=asked))
    session.stopwatch.blocks.clear()
    session.fit = TODAY
    return session, [p.batch_size for p in proposed(session, scale)]


@pytest.mark.parametrize("scale", [None, 20.0])
def test_where_memory_cannot_be_measured_sizes_go_up_to_a_quarter_of_the_data(monkeypatch, scale):
    session, sizes = candidates(monkeypatch, scale=scale)
    quarter = session.prepared.examples // 4
    assert (sizes[-1], session.fit.largest) == (quarter, quarter)
    assert (
        f"memory is a secret here: that batch sizes up to {quarter} fit is an assumption"
        in (session.listener.sentences[0])
    )


def test_sizes_that_were_asked_for_are_tried_where_memory_cannot_be_measured(monkeypatch):
    session, sizes = candidates(monkeypatch, asked=(64, 200))
    assert (sizes, session.fit.largest) == ([32, 64, 200], 200)


def test_a_size_that_runs_out_of_memory_is_left_out_with_all_above_it(monkeypatch):
    session, sizes = candidates(monkeypatch, asked=(64, 128, 200), most=100)
    assert (sizes, session.fit.largest, session.fit.bound_by) == ([32, 64], 64, "memory")
    assert "A batch of 64 runs in one piece" in session.fit.sentence
    assert session.listener.sentences[-1] == "batch sizes from 128 are left out: memory ran out"


def test_another_error_of_a_size_is_not_taken_for_memory(monkeypatch):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        candidates(monkeypatch, asked=(64,), most=32, error="mat1 and mat2 differ")


def test_where_memory_was_measured_sizes_above_what_fits_are_left_out(monkeypatch):
    monkeypatch.setattr(Session, "visit", lambda *_, **__: None)
    monkeypatch.setattr(module, "unavailable", lambda device: "")
    session = made.session(options=Options(batch_sizes=(64, 16)))
    session.fit = TODAY
    assert [p.batch_size for p in proposed(session, None)] == [16, 32]
