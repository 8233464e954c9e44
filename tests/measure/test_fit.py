"""What fits: the children, their limits and deaths, and the sentence about it."""

import contextlib
import dataclasses
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import cloudpickle
import pytest
import torch
from torch import nn

from batchlab import _platform
from batchlab._finder import Failure
from batchlab.config import RunConfig
from batchlab.engine.memory import LiveBytes
from batchlab.errors import InvalidValueError, TaskError
from batchlab.measure import _trial, plain
from batchlab.measure import fit as module
from batchlab.measure.fit import FitResult, Trial, fit, obituary, sentence_of, with_timings
from batchlab.measure.throughput import Block, seconds_per_update
from batchlab.tasks import Task, load, prepare
from batchlab.types import from_plain, to_plain

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MIB = 2**20

TASK_FILE = '''
import dataclasses
import os
import signal
import torch
from torch import nn
from batchlab.config import RunConfig
from batchlab.tasks import Task

print("a task may print")
EXAMPLES = 60

class Net(nn.Module):
    """One MiB of activations an example, and what a test asks for at a size."""

    def __init__(self, at=10**9, fail=None):
        super().__init__()
        self.at, self.fail = at, fail
        self.linear = nn.Linear(4, 1)

    def forward(self, x):
        if self.training and len(x) >= self.at:
            self.fail()
        wide = torch.zeros(len(x), 2**18) + x[:, :1]
        return self.linear(x) + wide.tanh().mean(1, keepdim=True)

def task(**options):
    x = torch.randn(EXAMPLES, 4, generator=torch.Generator().manual_seed(0))
    return Task(lambda: Net(**options), (x, x[:, 0]), validation=(x[:20], x[:20, 0]),
                loss=lambda outputs, batch: (outputs[:, 0] - batch[1]).square(),
                baseline=RunConfig(rule="adam", batch_size=4, learning_rate=0.01, samples="1ep"))

def plain():
    return task()

class Wide(Net):
    """Sixteen MiB of weights besides."""

    def __init__(self):
        super().__init__()
        self.more = nn.Linear(2**11, 2**11)

    def forward(self, x):
        return super().forward(x) + self.more(x[:, :1].expand(-1, 2**11)).mean(1, keepdim=True)

def strong():
    made = task()
    baseline = RunConfig(rule="sgd", batch_size=4, learning_rate=0.01, samples="1ep", gamma=2.0)
    return dataclasses.replace(made, model=Wide, baseline=baseline)

def raises():
    def fail():
        raise ValueError("not this size")
    return task(at=8, fail=fail)

def killed():
    return task(at=8, fail=lambda: os.kill(os.getpid(), signal.SIGKILL))

def crashes():
    return task(at=8, fail=lambda: os.kill(os.getpid(), signal.SIGSEGV))

def always_raises():
    def fail():
        raise ValueError("never")
    return task(at=1, fail=fail)

def greedy():
    return task(at=8, fail=lambda: torch.zeros(2**34))

def sleeps():
    import time
    return task(at=8, fail=lambda: time.sleep(600))
'''


@pytest.fixture
def prepared_from(tmp_path):
    path = tmp_path / "memory_task.py"
    path.write_text(TASK_FILE, encoding="utf-8")

    def make(name):
        return prepare(load(f"{path}:{name}"), device="cpu")

    yield make
    sys.modules.pop("memory_task", None)


@pytest.fixture
def started(monkeypatch):
    """Every process started during a test."""
    processes, popen = [], subprocess.Popen

    def keep(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", keep)
    return processes


@pytest.fixture
def child_of(prepared_from):
    with contextlib.ExitStack() as stack:

        def make(name, seconds=None):
            prepared = prepared_from(name)
            carried = module._Carried(prepared, prepared.baseline, "1GiB", 1)
            return stack.enter_context(contextlib.closing(module._Child(carried, seconds)))

        yield make


def sizes(result):
    return [point.batch_size for point in result.points]


@linux
@pytest.mark.slow
def test_the_whole_training_set_is_tried_before_it_is_said_to_fit(prepared_from):
    result = fit(prepared_from("plain"))
    assert (result.largest, result.bound_by) == (60, "data set")
    assert result.points[-1].fits
    assert result.points[-1].bytes > 60 * MIB
    assert "the whole training set, 60 examples" in result.sentence


@linux
def test_bytes_bind_below_the_limit_less_the_margin(prepared_from):
    limit, margin = 160 * MIB, 16 * MIB
    result = fit(prepared_from("plain"), memory_limit=limit, margin=margin, start=16)
    assert result.bound_by == "memory"
    points = {point.batch_size: point for point in result.points}
    assert points[result.largest].fits
    assert 0 < points[result.largest].bytes <= limit - margin
    beyond = min(size for size in points if size > result.largest)
    assert not points[beyond].fits
    assert points[beyond].reason
    assert result.largest >= 0.95 * (beyond - 1)
    assert (result.limit_bytes, result.limit_source) == (limit, "--memory-limit")
    assert "16.0 MiB are kept free" in result.sentence


@linux
@pytest.mark.slow
def test_a_size_that_fits_holds_the_frozen_copy_of_a_gamma(prepared_from):
    prepared = prepared_from("strong")
    bare_recipe = prepared.baseline.replace(gamma=None)
    strong, bare = (
        fit(prepared, config, memory_limit="160MiB", margin="8MiB", threads=1)
        for config in (prepared.baseline, bare_recipe)
    )
    taken = {point.batch_size: point.bytes for point in strong.points if point.fits}
    with LiveBytes() as live:
        model = prepared.objective(0, gamma=2.0).train()
        optimizer = plain.make_optimizer(model, prepared.baseline)
        rows = prepared.train.batch(torch.arange(strong.largest))
        plain.update(model, optimizer, [rows], lambda batch: len(batch[0]))
    assert strong.bound_by == bare.bound_by == "memory"
    assert (
        32 * MIB < live.peak <= taken[strong.largest] <= strong.limit_bytes - strong.margin_bytes
    )
    assert strong.largest < bare.largest  # the twin: without the copy more would fit


@linux
@pytest.mark.parametrize(
    ("name", "reason", "failure"),
    [
        ("raises", "ValueError: not this size", Failure.CRASH),
        pytest.param("crashes", "ended by SIGSEGV", Failure.CRASH, marks=pytest.mark.slow),
        ("killed", "ended by SIGKILL", Failure.MEMORY),
        ("greedy", "can't allocate memory", Failure.MEMORY),
    ],
)
def test_a_failure_of_any_kind_has_its_reason(child_of, name, reason, failure):
    outcome = child_of(name).trial(8)
    assert (outcome.fits, outcome.failure) == (False, failure)
    assert reason in outcome.reason


@linux
@pytest.mark.slow
def test_a_size_at_which_the_system_kills_does_not_fit(prepared_from, started):
    result = fit(prepared_from("killed"))
    assert (result.largest, result.bound_by) == (7, "memory")
    failed = next(point for point in result.points if point.batch_size == 8)
    assert "ended by SIGKILL" in failed.reason
    # A fresh child after each failure but the last, and none is left.
    failures = sum(not point.fits for point in result.points)
    assert len(started) in (failures, failures + 1)
    assert all(process.returncode is not None for process in started)


def test_another_model_than_that_of_the_file_travels_itself(prepared_from):
    prepared = prepared_from("plain")
    carried = module._Carried(prepared, prepared.baseline, None, 1)
    assert cloudpickle.loads(carried.content).task == prepared.task.origin
    other = dataclasses.replace(prepared.task, model=lambda: nn.Linear(4, 1, bias=False))
    carried = module._Carried(prepare(other, device="cpu"), prepared.baseline, None, 1)
    assert "bias" not in dict(cloudpickle.loads(carried.content).task.model().named_parameters())


@linux
def test_nothing_fits_says_why(prepared_from):
    result = fit(prepared_from("always_raises"), start=1)
    assert (result.largest, result.bound_by) == (0, "nothing fits")
    assert "Nothing fits, not even 1: ValueError: never." in result.sentence


@linux
def test_a_trial_that_takes_too_long_is_ended(child_of, started, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 6.0)  # 600 s are too long for any machine
    child = child_of("sleeps")
    child.deadline = time.monotonic() + 0.2
    late = child.trial(8)
    assert (late.failure, late.reason) == (Failure.TIME, "it takes longer than 6 seconds")
    assert started[0].returncode is not None
    assert child.trial(4).failure is Failure.TIME
    assert len(started) == 1


@linux
def test_time_to_load_a_task_is_not_time_of_the_search(child_of, monkeypatch):
    loaded = []

    class Noting(module._Child):
        def _start(self):
            super()._start()
            loaded.append(time.monotonic())

    monkeypatch.setattr(module, "_Child", Noting)
    assert child_of("plain", seconds=5.0).deadline >= loaded[0] + 5.0


@linux
def test_sizes_that_ascend_share_a_child_and_leave_no_trace(prepared_from, started):
    prepared = prepared_from("plain")
    state, data = torch.get_rng_state(), prepared.train.tree[0].clone()
    result = fit(prepared, max_size=9)
    assert (result.largest, result.bound_by, sizes(result)) == (9, "max_val", [4, 8, 9])
    assert [process.returncode is not None for process in started] == [True]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(prepared.train.tree[0], data)


@linux
def test_a_task_without_a_name_travels_by_value():
    x = torch.randn(40, 3)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        result = fit(prepare(closure_task(x, 5), device="cpu"), max_size=10)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert result.largest == 10


def closure_task(x, width):
    return Task(
        lambda: nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1)),
        (x, x[:, 0]),
        loss=lambda outputs, batch: (outputs[:, 0] - batch[1]).square(),
        baseline=RunConfig(rule="sgd", batch_size=5, learning_rate=0.01, samples="1ep"),
    )


@linux
def test_a_task_that_cannot_travel_is_named():
    lock = threading.Lock()
    task = closure_task(torch.randn(40, 3), 5)
    held = dataclasses.replace(task, weight=lambda batch: lock and torch.ones(len(batch[0])))
    prepared = prepare(held, device="cpu")
    with pytest.raises(TaskError, match="`task` must be able to travel to a process"):
        fit(prepared)


@linux
def test_a_task_that_cannot_be_loaded_again_is_named(prepared_from, tmp_path):
    prepared = prepared_from("plain")
    (tmp_path / "memory_task.py").write_text("raise RuntimeError('gone')")
    with pytest.raises(TaskError, match=r"cannot be loaded in a process of its own.*gone"):
        fit(prepared)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"max_size": 0}, "`max_size` must be at least 1"),
        ({"memory_limit": "lots"}, "`memory_limit` must be an amount of memory"),
    ],
)
def test_impossible_input_is_refused(arguments, sentence):
    prepared = prepare(closure_task(torch.randn(40, 3), 5), device="cpu")
    with pytest.raises(InvalidValueError, match=sentence):
        fit(prepared, **arguments)


# What a trial runs


class Pass(NamedTuple):
    """A forward pass: which examples, mode, whether gradients of an earlier one are there."""

    examples: list
    training: bool
    held: bool
    recording: bool
    dtype: torch.dtype


class Recorder(nn.Module):
    """Notes every forward pass."""

    def __init__(self, log):
        super().__init__()
        self.linear, self.log = nn.Linear(1, 1), log

    def forward(self, x):
        held = self.linear.weight.grad is not None
        y, names = self.linear(x), sorted(x[:, 0].tolist())
        self.log.append(Pass(names, self.training, held, torch.is_grad_enabled(), y.dtype))
        return y


class Rows(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def recorded_task(log):
    # Lengths 1 … 40: example i has i + 1 numbers, padded by collate.
    items = [torch.full((i + 1,), float(i)) for i in range(40)]

    def collate(rows):
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    return Task(
        lambda: Recorder(log),
        Rows(items),
        validation=Rows(items[:10]),
        collate=collate,
        forward=lambda model, batch: model(batch[:, :1]),
        loss=lambda outputs, batch: outputs[:, 0].square(),
        baseline=RunConfig(rule="adam", batch_size=4, learning_rate=0.01, samples="1ep"),
    )


@pytest.fixture
def passes():
    log = []
    prepared = prepare(recorded_task(log), device="cpu")
    log.clear()
    trials = _trial.Trials(prepared, prepared.baseline)
    assert trials(3).fits
    return log


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_a_trial_runs_in_the_runs_precision(precision):
    log = []
    prepared = prepare(recorded_task(log), device="cpu")
    log.clear()
    assert _trial.Trials(prepared, prepared.baseline.replace(precision=precision))(3).fits
    assert {entry.dtype for entry in log} == {getattr(torch, precision)}


def test_a_trial_is_two_micro_steps_and_an_evaluation(passes):
    assert [(entry.training, entry.recording) for entry in passes] == [
        (True, True),
        (True, True),
        (False, False),
    ]


@pytest.mark.parametrize(("gamma", "copies"), [(None, 0), (2.0, 1)])
def test_a_trial_runs_the_model_that_the_recipe_trains(monkeypatch, gamma, copies):
    log, made = [], []
    prepared = prepare(recorded_task(log), device="cpu")
    log.clear()
    make = plain.make_optimizer
    monkeypatch.setattr(plain, "make_optimizer", lambda m, c: made.append(m) or make(m, c))
    assert _trial.Trials(prepared, prepared.baseline.replace(gamma=gamma))(3).fits
    logs = [part.log for part in made[0].modules() if isinstance(part, Recorder)]
    assert [len(log) for log in logs] == [3] * (1 + copies)


def test_the_second_micro_step_runs_while_gradients_are_held(passes):
    assert [entry.held for entry in passes][:2] == [False, True]


def test_the_longest_examples_are_tried(passes):
    assert passes[0].examples == [37.0, 38.0, 39.0]
    assert passes[-1].examples == [7.0, 8.0, 9.0]


def test_the_optimizer_has_its_state_in_the_second_micro_step():
    states = []

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 1)

        def forward(self, x):
            states.append(self.linear.weight.detach().clone())
            return self.linear(x)

    task = dataclasses.replace(closure_task(torch.randn(40, 3), 5), model=Probe)
    prepared = prepare(task, device="cpu")
    states.clear()
    _trial.Trials(prepared, prepared.baseline)(4)
    assert not torch.equal(states[0], states[1])


def test_an_error_keeps_no_frames_alive():
    alive = []

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 1)
            self.broken = False

        def forward(self, x):
            if self.training:
                big = torch.zeros(1000)
                alive.append(torch.utils.weak.WeakTensorKeyDictionary({big: 1}))
                raise RuntimeError("out of memory")
            return self.linear(x)

    task = dataclasses.replace(closure_task(torch.randn(40, 3), 5), model=Broken)
    outcome = _trial.Trials(prepare(task, device="cpu"), RunConfig().resolved(40))(2)
    assert outcome.failure is Failure.MEMORY
    assert len(alive[0]) == 0


# Deaths


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (-9, "", Failure.MEMORY),
        (-6, "terminate called: std::bad_alloc", Failure.MEMORY),
        (-6, "double free", Failure.CRASH),
        (-11, "", Failure.CRASH),
        (1, "MemoryError: Unable to allocate 5 GiB", Failure.MEMORY),
        (1, "ImportError: no", Failure.CRASH),
    ],
)
def test_a_death_is_read_from_signal_and_last_words(code, words, kind):
    outcome = obituary(code, words)
    assert outcome.failure is kind
    assert words in outcome.reason
    assert not outcome.fits


# What is said


def result_of(bound, largest=8):
    points = (Trial(8, largest >= 8, 2 * MIB), Trial(9, largest >= 9, 0, reason="it broke"))
    return FitResult(largest, bound, 2**30, "--memory-limit", MIB, points)


@pytest.mark.parametrize(
    ("bound", "largest", "words"),
    [
        ("memory", 8, "A micro-batch of 8 rows fits (2.0 MiB). 9 does not: it broke. Limit: 1.0"),
        ("crash", 8, "9 fails for another reason: it broke."),
        ("time", 8, "The time was over"),
        ("max_val", 9, "Larger ones were not asked for."),
        ("data set", 9, "the whole training set, 9 rows"),
        ("nothing fits", 0, "Nothing fits, not even 8"),
    ],
)
def test_what_bound_it_is_said(bound, largest, words):
    assert words in sentence_of(result_of(bound, largest), "rows")


def test_a_system_that_cannot_measure_tries_the_baseline_and_says_so(monkeypatch):
    monkeypatch.setattr(_platform, "memory_unavailable", lambda: "memory is a secret here")
    prepared = prepare(closure_task(torch.randn(40, 3), 5), device="cpu")
    result = fit(prepared)
    assert (result.largest, result.limit_bytes, sizes(result)) == (5, 0, [5])
    assert "memory is a secret here" in result.sentence


def test_throughput_joins_memory_and_marks_the_knee():
    timings = [seconds_per_update([Block(s, 1, t, 0.0, s)]) for s, t in ((4, 1.0), (8, 1.1))]
    joined = with_timings(result_of("memory"), timings, loader_share=0.1)
    assert [point.batch_size for point in joined.points] == [4, 8, 9]
    assert (joined.knee, joined.loader_share) == (8, 0.1)
    assert joined.points[1].bytes == 2 * MIB
    assert joined.points[1].samples_per_second is not None
    assert joined.points[2].samples_per_second is None


def test_the_answer_can_be_stored():
    result = result_of("memory")
    assert from_plain(FitResult, to_plain(result)) == result


def test_a_first_size_out_of_time_is_not_said_to_be_memory():
    points = (Trial(32, False, 0, reason="it takes longer than 30 seconds"),)
    said = sentence_of(FitResult(0, "time", 2**30, "--memory-limit", MIB, points), "rows")
    assert "not even one of 32 rows" in said
    assert "it takes longer than 30 seconds" in said
    assert "fit" not in said


def test_the_first_size_may_take_what_the_caller_says():
    child = module._Child.__new__(module._Child)
    child.deadline, child._tried, child.patience = time.monotonic() - 1.0, False, 1000.0
    assert child._until() >= time.monotonic() + 900.0


def test_the_first_size_is_waited_for_however_little_time_there_is():
    child = module._Child.__new__(module._Child)
    child.deadline, child._tried = time.monotonic() - 1.0, False
    assert child._until() >= time.monotonic() + module.PATIENCE - 10.0
    assert child._until() == child.deadline
