"""How a group of runs is trained: timed once, written down, read ever after."""

import dataclasses
import json
import math
import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batchlab.engine import choice, compiled, sweep
from batchlab.engine.capability import Capability, probe_capability
from batchlab.engine.choice import (
    Choice,
    Choices,
    Effort,
    choose,
    divided,
    effort_of,
    slots_of,
    timings,
)
from batchlab.engine.sweep import Engine
from batchlab.engine.workers import Workers
from tests.engine import tiny

SEVERAL = [tiny.run(seed=s) for s in range(4)]
SMALL = Capability(True, "", False, False, False, 1e5)


@pytest.fixture
def timed(monkeypatch):
    """Candidates take what this dictionary says; who was timed is in its list."""
    seconds, asked = {"loop": 3.0, "stacked": 2.0, "compiled": 1.0}, []

    def race(ways, clock):
        asked.extend(ways)
        return {name: seconds[name.split()[0]] for name in ways}

    monkeypatch.setattr(choice, "_race", race)
    monkeypatch.setattr(choice, "_warmed", lambda ways: ways)  # or it would compile
    return seconds, asked


def chosen(effort=Effort.TIMED, configs=SEVERAL):
    prepared = tiny.ready()
    capability = probe_capability(prepared, configs[0])
    return choose([timings(prepared, configs, capability, [4], effort)], capability, configs[0])


def test_the_fastest_candidate_is_chosen_and_named_with_its_timings(timed):
    seconds, _ = timed
    assert (chosen().executor, chosen().slots, chosen().unit) == ("stacked", 4, 0)
    assert chosen().timings == pytest.approx({"loop": 3.0, "stacked 4": 2.0})
    assert "fastest of loop 3e+06 µs, stacked 4 2e+06 µs" in chosen().reason
    seconds["loop"] = 0.5
    assert (chosen().executor, chosen().slots) == ("loop", 0)


def test_compiling_is_tried_only_where_it_can_pay_back(timed, monkeypatch):
    _, asked = timed
    monkeypatch.setattr(choice, "why_not_compiled", lambda device: "")
    assert "would not pay back" in chosen().reason
    assert not any("compiled" in name for name in asked)
    found = chosen(Effort.COMPILED)
    assert (found.executor, found.slots, found.unit) == ("stacked", 1, choice.UNROLLED)
    monkeypatch.setattr(choice, "why_not_compiled", lambda device: "there is no C++ compiler")
    assert "not compiled: there is no C++ compiler" in chosen(Effort.COMPILED).reason


def test_a_compiler_that_fails_leaves_the_other_ways(timed, monkeypatch):
    monkeypatch.setattr(choice, "why_not_compiled", lambda device: "")

    def warmed(ways):
        if any("compiled" in name for name in ways):
            raise RuntimeError("internal error")
        return ways

    monkeypatch.setattr(choice, "_warmed", warmed)
    found = chosen(Effort.COMPILED)
    assert found.executor == "stacked"
    assert "compiling failed (RuntimeError)" in found.reason


def test_a_model_that_cannot_be_stacked_is_not_timed(timed, monkeypatch):
    _, asked = timed
    monkeypatch.setattr(sweep, "effort_of", lambda *given: Effort.COMPILED)
    with Engine(tiny.ready(), None, 0) as engine:
        alone = Capability(False, "it draws", False, False, True, 1e5)
        monkeypatch.setattr(engine, "capability", lambda config: alone)
        cells = engine.plan(SEVERAL, tiny.job())
    assert {(c.choice.executor, c.choice.reason) for c in cells} == {("loop", "it draws")}
    assert asked == []


def test_what_several_processes_have_found_is_averaged_by_ratios():
    found = [({"loop": 2.0, "stacked 4": 1.0}, ""), ({"loop": 2.0, "stacked 4": 9.0}, "")]
    made = choose(found, SMALL, SEVERAL[0])
    assert made.executor == "loop"
    assert made.timings == pytest.approx({"loop": 2.0, "stacked 4": 3.0})
    found[1][0].pop("loop")  # a way that failed in one process is not a way
    assert choose(found, SMALL, SEVERAL[0]).timings == pytest.approx({"stacked 4": 3.0})


class Machine:
    """Ways and a clock that neighbours disturb: for a while, and now and then for one call."""

    def __init__(self, seconds, seed):
        self.now, self.seconds, self.draw = 0.0, seconds, np.random.default_rng(seed)
        self.calls = 0

    def way(self, name):
        def go():
            # A neighbour comes and goes every 30 calls or so, and is there half of the time.
            busy = 3.0 if (self.calls // 30) % 2 else 1.0
            hiccup = 4.0 if self.draw.random() < 0.05 else 1.0
            self.calls += 1
            self.now += self.seconds[name] * busy * hiccup
            return 1

        return go

    def race(self, race=choice._race):
        return race({name: self.way(name) for name in self.seconds}, lambda: self.now)


def unpaired(ways, clock):
    """The twin: each way by itself, one after the other, by its mean."""
    turns = {
        n: [choice._turn({n: g}, clock)[n] for _ in range(choice.TURNS)] for n, g in ways.items()
    }
    return {name: sum(seconds) / len(seconds) for name, seconds in turns.items()}


def wrong(race):
    """How often of 100 the slower of two ways that are 20 % apart is taken for the faster."""
    seconds = {"first": 0.012, "second": 0.010}
    races = [Machine(seconds, seed).race(race) for seed in range(100)]
    return sum(found["first"] <= found["second"] for found in races)


def test_neighbours_that_come_and_go_do_not_decide():
    assert wrong(choice._race) <= 10


def test_timing_one_way_after_the_other_would_let_them_decide():
    assert wrong(unpaired) >= 20


def test_a_race_tells_seconds_of_one_update():
    now = 0.0

    def several():
        nonlocal now
        now += 0.06
        return 3

    assert choice._race({"stacked 3": several}, lambda: now) == pytest.approx({"stacked 3": 0.02})


def test_workers_time_at_the_same_time():
    processes = Workers(tiny.ready(), 2)
    try:
        found = processes.everywhere(os_of)
    finally:
        processes.close()
    assert len(set(found)) == 2


def os_of(prepared):
    """Slow enough that no process can answer twice."""
    time.sleep(1.0)
    return os.getpid()


@pytest.mark.parametrize(
    ("updates", "effort"), [(100, Effort.NONE), (10**5, Effort.TIMED), (10**7, Effort.COMPILED)]
)
def test_effort_follows_the_work(updates, effort):
    assert effort_of(SMALL, 32, updates) is effort


def test_trying_takes_a_small_share_of_the_sweep():
    large = Capability(True, "", False, False, False, 1e9)
    seconds = 32 * 1e9 / choice.FLOP_PER_SECOND
    trying = 21 * (1 + 2 * 16) * seconds
    assert effort_of(large, 32, int(5 * trying / seconds), [16]) is Effort.NONE
    assert effort_of(large, 32, int(11 * trying / seconds), [16]) is Effort.COMPILED


def test_real_candidates_are_timed_on_the_real_shapes():
    found = chosen()
    assert set(found.timings) == {"loop", "stacked 4"}
    assert all(0 < seconds < 1 for seconds in found.timings.values())


def test_a_choice_is_made_once_and_read_by_whoever_resumes(tmp_path, timed, monkeypatch):
    monkeypatch.setattr(sweep, "effort_of", lambda *given: Effort.TIMED)
    _, asked = timed
    first, _ = tiny_trained(tmp_path)
    assert asked == ["loop", "stacked 4"]
    assert json.loads((tmp_path / choice.EXECUTORS).read_text())
    again, reused = tiny_trained(tmp_path)
    assert len(asked) == 2
    assert reused > 0
    assert tiny.facts(first) == tiny.facts(again)


def tiny_trained(out):
    with Engine(tiny.ready(), out, 0) as engine:
        trace, _ = engine.train(SEVERAL, tiny.job())
    return trace, engine.reused


@pytest.mark.parametrize("old", ["{", '"loop"', "2.0"])
def test_a_damaged_list_of_choices_is_set_aside(tmp_path, old):
    path = tmp_path / "executors.json"
    Choices(path).keep("key", Choice("loop", 0, 0, "fastest", {"loop": 2.0}))
    assert Choices(path).get("key") is not None
    path.write_text(path.read_text().replace(old, {"{": "", "2.0": "3.0"}.get(old, '"lOop"')))
    assert Choices(path).get("key") is None
    assert [found.name for found in tmp_path.iterdir()] == ["executors.damaged1"]


class WithItem(nn.Module):
    """Cannot be stacked."""

    def __init__(self):
        super().__init__()
        self.layer = tiny.mlp()

    def forward(self, inputs):
        return self.layer(inputs) * (1.0 if inputs.mean().item() > 0 else 0.5)


def test_a_choice_is_that_of_one_task(tmp_path, timed, monkeypatch):
    monkeypatch.setattr(sweep, "effort_of", lambda *given: Effort.TIMED)
    executors = []
    for model in (tiny.mlp, WithItem):
        with Engine(tiny.ready(model), tmp_path, 0) as engine:
            trace, _ = engine.train(SEVERAL, tiny.job())
        executors.append({run.executor for run in trace.runs})
    assert executors == [{"stacked"}, {"loop"}]


def test_choices_survive_as_a_file(tmp_path):
    made = Choice("stacked", 16, 1, "fastest", {"loop": 1.0})
    Choices(tmp_path / "c.json").keep("key", made)
    assert Choices(tmp_path / "c.json").get("key") == made
    assert Choices(tmp_path / "c.json").all() == [made]


def test_stacks_are_as_large_as_the_cache_and_the_runs_allow(monkeypatch):
    prepared = tiny.ready()
    assert slots_of(prepared, 256) == [16, 64, 256]
    assert slots_of(prepared, 300) == [16, 60, 150]
    assert slots_of(prepared, 5) == [5]
    monkeypatch.setattr(choice, "CACHE_BYTES", 1)
    assert slots_of(prepared, 300) == [16]


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [16]), ("cuda:0", [16, 64, 256])])
def test_the_cache_of_a_cpu_limits_no_stack_on_a_gpu(monkeypatch, device, sizes):
    monkeypatch.setattr(choice, "CACHE_BYTES", 1)
    assert slots_of(dataclasses.replace(tiny.ready(), device=device), 256) == sizes


def test_no_stack_that_is_tried_would_leave_a_worker_without_runs():
    prepared = tiny.ready()
    assert slots_of(prepared, 16, workers=2) == [8]
    assert slots_of(prepared, 256, workers=2) == [16, 64, 128]


@settings(max_examples=200)
@given(st.integers(1, 2000), st.integers(1, 256), st.integers(1, 64), st.sampled_from([1, 4, 16]))
def test_workers_train_as_many_stacks_each_and_none_is_larger_than_timed(
    runs, slots, workers, cells
):
    stack, sizes = divided(runs, slots, workers, cells)
    assert sum(sizes) == runs
    assert sizes == sorted(sizes, reverse=True)
    assert 1 <= stack <= slots
    busy = [0] * workers
    for size in sizes:  # the longest first, each to whoever is free
        busy[busy.index(min(busy))] += math.ceil(size / stack)
    assert max(busy) == math.ceil(runs / (workers * slots))  # as few as full stacks would take
    assert divided(runs, stack, workers, cells) == (stack, sizes)  # what was timed is trained


@pytest.mark.parametrize(("executor", "sizes"), [("stacked", [8] * 2), ("compiled", [4] * 4)])
def test_a_timed_sweep_is_cut_for_the_workers_that_timed_it(
    executor, sizes, tmp_path, timed, monkeypatch
):
    seconds, asked = timed
    seconds[executor] = 0.5
    monkeypatch.setattr(choice, "why_not_compiled", lambda device: "")
    monkeypatch.setattr(sweep, "effort_of", lambda *given: Effort.COMPILED)
    monkeypatch.setattr(
        Workers, "everywhere", lambda self, call, *given: [call(tiny.ready(), *given)]
    )
    configs = [tiny.run(seed=s) for s in range(16)]
    plans = [Engine(tiny.ready(), tmp_path, n).plan(configs, tiny.job()) for n in (2, 7)]
    assert asked == ["loop", "stacked 8", "compiled 1", "compiled 8"]
    assert sorted(len(cell.runs) for cell in plans[0]) == sizes
    assert plans[0] == plans[1]  # on another machine the finished cells are found


def test_the_compiler_is_looked_for_by_name(monkeypatch):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: "/usr/bin/g++")
    assert compiled.why_not_compiled("cpu") == ""
