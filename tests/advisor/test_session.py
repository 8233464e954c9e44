"""Prices of work, the stopwatch, and what a sweep teaches about the pace."""

import itertools
import math
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchlab._team import Started, Team
from batchlab.advisor import session as module
from batchlab.advisor.options import Options
from batchlab.advisor.session import (
    PARALLEL_SHARE,
    WORKER_START_SECONDS,
    Stopwatch,
    checkpoint_state,
    over_workers,
)
from batchlab.advisor.stages import seconds_at
from batchlab.engine import Job, RunState, Trace
from batchlab.engine.step import rule_of, start_of
from batchlab.errors import ResultError, TaskError
from batchlab.measure.throughput import Block
from tests.advisor import made


def test_one_run_is_its_updates_times_their_seconds():
    session = made.session(rates={32: 0.5})
    assert session.run_seconds(32, 320) == pytest.approx(5.0)


def test_reuse_makes_a_run_longer():
    session = made.session(rates={32: 0.5})
    session.prepared = module.Prepared(
        **vars(session.prepared) | {"baseline": session.baseline.replace(reuse=3)}
    )
    assert session.run_seconds(32, 320) == pytest.approx(15.0)


def test_a_sweep_costs_training_by_the_engine_and_evaluations():
    session = made.session(rates={32: 0.5})
    session.engine_factor, session.evaluation_seconds = 2.0, 0.25
    assert session.wall_seconds([(32, 320, 4)]) == pytest.approx(2 * 5.0 + 1.0)


def test_workers_share_the_work_and_start_once():
    session = made.session(rates={32: 0.5}, workers=2)
    runs = [(32, 320, 0)] * 4
    shared = 20.0 / (2 * PARALLEL_SHARE)
    assert session.wall_seconds(runs) == pytest.approx(shared + WORKER_START_SECONDS)
    session.started = True
    assert session.wall_seconds(runs) == pytest.approx(shared)


def test_the_pace_scales_every_price():
    session = made.session(rates={32: 0.5})
    session.pace = 1.5
    assert session.wall_seconds([(32, 320, 0)]) == pytest.approx(7.5)


work = st.lists(st.floats(0.01, 10), min_size=1, max_size=20)


@given(work, st.integers(0, 64))
def test_no_number_of_workers_beats_the_longest_piece(each, workers):
    found = over_workers(each, workers)
    assert max(each) <= found <= sum(each) + 1e-9
    assert over_workers(each, workers + 1) <= found


def test_nothing_costs_nothing():
    assert made.session().wall_seconds([]) == 0.0


@pytest.mark.parametrize(
    ("took", "pace"), [(2.0, 1.0), (8.0, 2.0), (0.5, 0.5), (2000.0, 5.0), (1e-4, 0.3)]
)
def test_a_sweep_that_took_longer_slows_the_pace_by_the_root(monkeypatch, took, pace):
    """Expected are 2 s: 64 updates of 1/32 s each."""
    session = made.session(rates={32: 1 / 32}, samples=2048)
    clock = itertools.count(0.0, took)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(type(session.engine), "train", lambda *_, **__: (Trace(()), []))
    config = session.config(32, 0.1, 0)
    session.train("x", [config], Job(()))
    assert session.pace == pytest.approx(pace)


def test_a_short_sweep_or_one_read_from_disk_teaches_nothing(monkeypatch):
    session = made.session(rates={32: 1e-6})
    clock = itertools.count(0.0, 100.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(type(session.engine), "train", lambda *_, **__: (Trace(()), []))
    session.train("x", [session.config(32, 0.1, 0)], Job(()))
    assert session.pace == 1.0

    slow = made.session(rates={32: 1.0})

    def read(engine, *_, **__):
        engine.reused += 1
        return Trace(()), []

    monkeypatch.setattr(type(slow.engine), "train", read)
    slow.train("x", [slow.config(32, 0.1, 0)], Job(()))
    assert slow.pace == 1.0


def test_a_run_that_goes_on_costs_only_the_rest():
    session = made.session(rates={32: 0.5}, samples=320)
    config, job = session.config(32, 0.1, 0), Job((0, 160, 320))
    progress = start_of(session.prepared.objective(0), rule_of(config, session.prepared.task))
    begun = RunState(progress, 160, 5)
    assert session._expected([config], job, None) == pytest.approx(5.0)
    assert session._expected([config], job, [begun]) == pytest.approx(2.5)
    assert session._expected([config], Job((), until=160), None) == pytest.approx(2.5)


def test_what_is_left_counts_earlier_processes(monkeypatch):
    session = made.session(options=Options(budget=100.0), spent=30.0)
    assert session.left == 70.0
    session.began = time.perf_counter() - 20.0
    assert 49.0 < session.left <= 50.0
    assert made.session().left == math.inf


# Seconds per update between the sizes that were timed.

TIMED = {"16": made.blocks(0.1, 16), "64": made.blocks(0.4, 64)}


@pytest.mark.parametrize(
    ("size", "seconds"),
    [(16, 0.1), (64, 0.4), (32, 0.2), (40, 0.25), (128, 0.8), (8, 0.1), (1, 0.1)],
)
def test_a_size_that_was_not_timed_lies_on_the_line_or_in_proportion(size, seconds):
    assert seconds_at(TIMED, size).value == pytest.approx(seconds)


def test_between_two_the_less_certain_neighbour_tells_the_spread():
    vague = (*made.blocks([0.2, 0.8], 64),)
    found = seconds_at({"16": made.blocks([0.1, 0.101], 16), "64": vague}, 32)
    assert found.log_var == seconds_at({"64": vague}, 64).log_var


def test_nothing_timed_is_nothing_known():
    assert seconds_at({}, 8) is None


def _visited(session, monkeypatch, sizes):
    seen = []

    def block(prepared, config, seconds, *, batch_size, **_):
        seen.append((batch_size, seconds))
        return Block(batch_size, 1, 0.1, 0.0, 0)

    monkeypatch.setattr(module, "time_block", block)
    session.visit(sizes)
    return seen


def test_a_visit_times_every_size_for_a_small_part_of_the_budget(monkeypatch):
    session = made.session(options=Options(budget=10.0))
    seen = _visited(session, monkeypatch, [32, 128])
    assert seen == [(32, pytest.approx(0.075)), (128, pytest.approx(0.075))]
    assert len(session.stopwatch.blocks["32"]) == 5


def test_a_visit_leaves_out_sizes_whose_updates_are_too_slow_for_the_budget(monkeypatch):
    """128 would take 3 × 2 s of the 10 s that are left, 512, not timed yet, still more."""
    session = made.session(options=Options(budget=10.0), rates={32: 0.1, 128: 2.0})
    assert [size for size, _ in _visited(session, monkeypatch, [32, 128, 512])] == [32]


class _Team(Team):
    """Says that there are others, and gives them blocks of its own."""

    def __init__(self, context):
        super().__init__(Started(0, 4))
        self.context, self.asked = context, []

    def ask(self, work, config, division, seconds, start, threads, whole):
        assert work is module.time_together
        self.asked.append((division, start, config.gamma, whole))
        return [Block(division.batch_size, 1, 0.5, 0.0, start + 7, division.world_size)]


def _of_four(session, monkeypatch, context=None):
    team = _Team(context or session.prepared)
    session.stopwatch = Stopwatch(session.prepared, 1, team=team)
    _visited(session, monkeypatch, [32, 6])
    return team


def test_a_team_is_timed_together_at_as_many_processes_as_divide_a_batch(monkeypatch):
    session = made.session()
    team = _of_four(session, monkeypatch)
    assert [(d.world_size, d.micro_batch_size) for d, *_ in team.asked] == [(4, 8), (2, 3)]
    session.visit([32])
    assert team.asked[-1][1] == 7


def test_a_decision_takes_the_seconds_of_a_team_and_a_plan_those_of_the_process_that_trains(
    monkeypatch,
):
    session = made.session()
    _of_four(session, monkeypatch)
    assert session.machine().seconds(32).value == session.stopwatch.rate(32) == 0.5
    assert session.stopwatch.own_rate(32) == pytest.approx(0.1)
    assert session.run_seconds(32, 320) == pytest.approx(10 * 0.1)


def test_a_team_that_holds_a_part_of_the_data_is_told_that_all_is_timed(monkeypatch):
    session = made.session()
    assert not any(whole for *_, whole in _of_four(session, monkeypatch).asked)
    part = replace(session.prepared)
    assert all(whole for *_, whole in _of_four(session, monkeypatch, part).asked)


def test_one_process_expects_of_itself_what_the_user_gets(monkeypatch):
    session = made.session(rates={32: 0.25})
    assert session.stopwatch.own_rate(32) == session.stopwatch.rate(32) == 0.25


# A checkpoint of the user's own.


def test_a_checkpoint_is_the_models_state_at_the_beginning_of_the_stream(tmp_path):
    session = made.session()
    module_ = session.prepared.task.model()
    torch.save(module_.state_dict(), tmp_path / "weights.pt")
    state = checkpoint_state(session.prepared, str(tmp_path / "weights.pt"), session.baseline)
    assert (state.samples, state.updates) == (0, 0)
    for name, value in module_.state_dict().items():
        found = next(v for k, v in state.progress.params.items() if k.endswith(name))
        assert torch.equal(found, value)


def test_a_checkpoint_of_another_model_or_no_checkpoint_is_one_sentence(tmp_path):
    session = made.session()
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "other.pt")
    with pytest.raises(TaskError, match="does not hold the state_dict of this model"):
        checkpoint_state(session.prepared, str(tmp_path / "other.pt"), session.baseline)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ResultError, match="cannot be read"):
        checkpoint_state(session.prepared, str(tmp_path / "text.pt"), session.baseline)
