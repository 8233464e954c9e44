"""Sweeps: how runs become cells, and the same results from other processes."""

import os
import pickle
import signal
import sys
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import nn

from batchlab import _platform, tasks
from batchlab.engine import Engine, Job, evaluation_grid, sweep, train, workers
from batchlab.engine.cell import Work
from batchlab.engine.choice import Effort
from batchlab.errors import TaskError
from tests.engine import tiny

SEVERAL = [tiny.run(seed=seed, learning_rate=0.02 * (seed + 1), samples=80) for seed in range(5)]

# Cells


def test_the_plan_covers_every_run_once_and_starts_with_the_longest():
    configs = [*SEVERAL, tiny.run(batch_size=16), tiny.run(rule="adam")]
    cells = Engine(tiny.ready(), None, 0).plan(configs, tiny.job())
    assert sorted(i for cell in cells for i in cell.runs) == list(range(7))
    assert [cell.updates for cell in cells] == sorted((c.updates for c in cells), reverse=True)
    assert {cell.choice.executor for cell in cells} == {"stacked"}
    assert all("no convolution" in cell.choice.reason for cell in cells)


def test_a_task_and_one_run_are_enough_to_train():
    run = tiny.run(samples=80)
    short = train(tiny.task(), run, workers=0)
    whole = train(tiny.ready(), [run], Job(evaluation_grid(tiny.EXAMPLES, 80)), workers=0)
    assert len(short.runs) == 1
    found, expected = (trace.runs[0].series["loss"] for trace in (short, whole))
    assert found.values.tolist() == expected.values.tolist()
    assert found.samples[-1] == 80


def test_only_runs_of_one_shape_share_a_cell():
    changes = [
        {"rule": "nshb"},
        {"batch_size": 16},
        {"samples": 160},
        {"lr_schedule": "cosine"},
        {"warmup": 0.1},
        {"rate_growth": 0.5},
        {"clip_norm": 1.0},
        {"precision": "float32"},
        {"reuse": 2},
    ]
    alike = [{"learning_rate": 0.3}, {"momentum": 0.1}, {"weight_decay": 0.1}, {"seed": 9}]
    configs = [tiny.run(**change) for change in [*changes, {}, *alike]]
    cells = Engine(tiny.ready(), None, 0).plan(configs, tiny.job())
    assert sorted(cell.runs for cell in cells) == [*((i,) for i in range(9)), (9, 10, 11, 12, 13)]


@pytest.mark.parametrize(("runs", "sizes"), [(5, [5]), (20, [8, 8, 4]), (160, [10] * 16)])
def test_chunks_do_not_depend_on_the_number_of_workers(runs, sizes):
    configs = [tiny.run(seed=seed) for seed in range(runs)]
    plans = [Engine(tiny.ready(), None, count).plan(configs, tiny.job()) for count in (0, 16)]
    assert plans[0] == plans[1]
    assert sorted((len(cell.runs) for cell in plans[0]), reverse=True) == sizes


def test_the_loop_gets_a_cell_for_each_run():
    cells = Engine(tiny.ready(), None, 0, "loop").plan(SEVERAL, tiny.job())
    assert sorted(cell.runs for cell in cells) == [(i,) for i in range(5)]
    assert {cell.choice.reason for cell in cells} == {"asked for"}
    assert len({cell.name for cell in cells}) == 5


def test_runs_that_start_at_different_updates_do_not_share_a_cell():
    stop = Job(evaluate_at=(), keep_end=True, until=48)
    _, states = tiny.trained(
        tiny.ready(), [tiny.run(samples=80), tiny.run(samples=80, batch_size=16)], asked=stop
    )
    cells = Engine(tiny.ready(), None, 0).plan(SEVERAL[:2], tiny.job(80), states)
    assert len(cells) == 2


def test_progress_rises_to_one():
    shares = []
    tiny.trained(tiny.ready(), SEVERAL, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0


def test_the_same_run_asked_for_twice_is_answered_twice():
    shares = []
    trace, _ = tiny.trained(tiny.ready(), [SEVERAL[0]] * 2, progress=shares.append)
    assert tiny.facts(trace)[0] == tiny.facts(trace)[1]
    assert shares[-1] == 1.0


def test_train_fills_in_open_fields():
    trace = train(tiny.ready(), [tiny.RunConfig(samples=80)], Job(evaluate_at=(0,)), workers=0)
    assert trace.runs[0].config == tiny.RunConfig(samples=80).resolved(tiny.EXAMPLES)


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = tiny.mlp()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += self.training
        if float(self.calls) > 5:
            raise RuntimeError("the sensor is gone\nand more")
        return self.layer(inputs)


def test_a_model_that_raises_while_it_trains_is_told_in_one_sentence():
    words = r"^Training the task `task` raised RuntimeError: the sensor is gone$"
    with pytest.raises(TaskError, match=words):
        tiny.trained(tiny.ready(Failing), SEVERAL)


class Odd(Exception):
    """Cannot be sent to another process."""

    def __init__(self, what, why):
        super().__init__(f"{what}, {why}")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_model_that_raises_while_it_is_timed_is_told_in_one_sentence(
    monkeypatch, tmp_path, workers
):
    monkeypatch.setattr(sweep, "effort_of", lambda *given: Effort.TIMED)
    monkeypatch.setattr(Engine, "_room", lambda self, configs, capability, slots: list(slots))
    broken = tmp_path / "broken"

    class Later(nn.Module):
        """Can be stacked, and raises after that has been tried."""

        def __init__(self):
            super().__init__()
            self.layer = tiny.mlp()

        def forward(self, inputs):
            if broken.exists():
                raise Odd("the sensor", "gone")
            return self.layer(inputs)

    words = r"^Training the task `task` raised Odd: the sensor, gone$"
    with Engine(tiny.ready(Later), None, workers) as engine:
        assert engine.task_hash
        assert engine.capability(SEVERAL[0]).stackable
        broken.touch()
        with pytest.raises(TaskError, match=words):
            engine.plan(SEVERAL, tiny.job(80))


# Worker processes

FILE = '''
import torch
from torch import nn
from neighbour import INPUTS
from batchlab import Task

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(INPUTS, 2)

    def forward(self, inputs):
        return self.layer(inputs)

class Data(torch.utils.data.Dataset):
    """Noise from the global generator, so that it is streamed."""

    def __init__(self, seed):
        draw = torch.Generator().manual_seed(seed)
        self.inputs = torch.randn(64, INPUTS, generator=draw)

    def __len__(self):
        return 64

    def __getitem__(self, i):
        return self.inputs[i] + torch.rand(()), int(self.inputs[i, 0] > 0)

def loss(outputs, batch):
    return nn.functional.cross_entropy(outputs, batch[1], reduction="none")

def task():
    return Task(Model, train=Data(0), validation=Data(1), loss=loss)

class Locked(Data):
    """Cannot be pickled, as an open file cannot."""

    def __init__(self, seed):
        super().__init__(seed)
        self.generator = (i for i in range(3))

def locked():
    return Task(Model, train=Locked(0), validation=Data(1), loss=loss)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A task file beside a module it imports, in a folder with Japanese characters and a space."""
    made = tmp_path_factory.mktemp("作業 場所")
    (made / "課題 一.py").write_text(FILE, encoding="utf-8")
    (made / "neighbour.py").write_text("INPUTS = 5\n", encoding="utf-8")
    before = list(sys.path)
    yield made
    sys.path[:] = before
    for name in ("課題 一", "neighbour"):
        sys.modules.pop(name, None)


def on_two_workers(prepared, configs=SEVERAL[:3], asked=None):
    with Engine(prepared, None, 2, "loop") as engine:
        return engine.train(configs, asked or tiny.job(80))


def closed_over():
    """A task made of lambdas and of a class that no other process can import."""
    width = 4

    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(5, width), nn.Linear(width, 2)

        def forward(self, inputs):
            return self.out(torch.tanh(self.first(inputs)))

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch[1], reduction="none")

    train_set, held = tiny.points(), tiny.points(32, seed=1)
    return tasks.prepare(
        tasks.Task(lambda: Local(), train=train_set, validation=held, loss=loss), device="cpu"
    )


def test_workers_give_what_this_process_gives_from_a_closure_probes_and_states_included():
    prepared = closed_over()
    asked = tiny.job(
        80, probe=lambda objective, samples: {"seen": 1.0 * samples}, probe_at=(0, 40)
    )
    here, states = tiny.trained(prepared, SEVERAL[:3], asked=asked)
    there, others = on_two_workers(prepared, asked=asked)
    assert tiny.facts(here) == tiny.facts(there)
    for a, b in zip(states, others, strict=True):
        assert all(torch.equal(x, tiny.leaves(b)[name]) for name, x in tiny.leaves(a).items())


def test_a_task_in_a_file_with_a_foreign_name_reaches_the_workers(folder):
    """Streamed with augmentation, so the same examples are read there too."""
    prepared = tasks.prepare(tasks.load(f"{folder}/課題 一.py:task"), device="cpu")
    assert not prepared.train.in_memory
    here, _ = tiny.trained(prepared, SEVERAL[:3])
    assert tiny.facts(here) == tiny.facts(on_two_workers(prepared)[0])


def test_a_task_that_cannot_be_pickled_is_rebuilt_from_its_file(folder, tmp_path):
    prepared = tasks.prepare(tasks.load(f"{folder}/課題 一.py:locked"), device="cpu")
    with pytest.raises(TypeError, match="cannot pickle 'generator' object"):
        cloudpickle.dumps(prepared)
    packed = tmp_path / "task"
    packed.write_bytes(workers.packed(prepared))
    rebuilt = workers._read_task(str(packed))
    assert rebuilt is not prepared
    one, other = (tiny.trained(p, SEVERAL[:1])[0] for p in (prepared, rebuilt))
    assert tiny.facts(one) == tiny.facts(other)


def children():
    """Processes started by this one, loky's bookkeeper left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = stat.with_name("cmdline").read_bytes()
        except OSError:
            continue
        mine = int(fields[1]) == os.getpid() and fields[0] != "Z"
        if mine and b"resource_tracker" not in command:
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_ctrl_c_ends_the_workers_and_what_is_finished_stays(tmp_path):
    before = set(children())
    seen = []

    def stop(share):
        seen.append(set(children()) - before)
        if share > 0.1:
            raise KeyboardInterrupt

    prepared = closed_over()
    engine = Engine(prepared, tmp_path, 2, "loop")
    with pytest.raises(KeyboardInterrupt):
        engine.train(SEVERAL, tiny.job(80), progress=stop)
    assert len(seen[-1]) == 2
    assert set(children()) == before
    here, _ = tiny.trained(prepared, SEVERAL)
    with Engine(prepared, tmp_path, 0, "loop") as again:
        resumed, _ = again.train(SEVERAL, tiny.job(80))
    assert 1 <= again.reused < 5
    assert tiny.facts(resumed) == tiny.facts(here)


def ending(how):
    """A model that ends its process, or raises, once it trains in another one."""
    home = os.getpid()

    class Ending(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, inputs):
            if self.training and os.getpid() != home:
                how()
            return self.layer(inputs)

    def loss(outputs, batch):
        return nn.functional.cross_entropy(outputs, batch[1], reduction="none")

    points, held = tiny.points(), tiny.points(32, seed=1)
    task = tasks.Task(Ending, train=points, validation=held, loss=loss, name="ending")
    return tasks.prepare(task, device="cpu")


def test_a_worker_that_dies_is_one_sentence():
    words = "^A worker process died while training the task `ending`"
    with pytest.raises(TaskError, match=words):
        on_two_workers(ending(lambda: os._exit(3)))


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="no /proc")
@pytest.mark.parametrize(("kills", "together"), [(1, 4), (0, 8)])
def test_a_stack_whose_process_ends_for_lack_of_memory_is_planned_with_half_its_runs(
    tmp_path, monkeypatch, kills, together
):
    """The count is the kernel's: a process that somebody else kills is no reason."""
    (tmp_path / "self").symlink_to("/proc/self")
    (tmp_path / "vmstat").write_text("oom_kill 7\n")
    monkeypatch.setattr(_platform, "PROC", tmp_path)

    def kill():
        own = tmp_path / f"{os.getpid()}"
        own.write_text(f"oom_kill {7 + kills}\n")
        own.replace(tmp_path / "vmstat")
        os.kill(os.getpid(), signal.SIGKILL)

    prepared = ending(kill)
    configs = [tiny.run(seed=seed, samples=80) for seed in range(16)]
    words = r"for lack of memory\. Fewer runs at a time are planned" if kills else "workers=0"
    with (
        Engine(prepared, tmp_path / "out", 2, "stacked") as engine,
        pytest.raises(TaskError, match=f"^A worker process died while training .*{words}"),
    ):
        engine.train(configs, tiny.job(80))
    with Engine(prepared, tmp_path / "out", 2, "stacked") as again:
        cells = again.plan(configs, tiny.job(80))
    assert [cell.choice.together(len(cell.runs)) for cell in cells] == [together] * 2


def test_a_full_disk_that_takes_no_share_does_not_end_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", -1.0)
    prepared = tiny.ready()
    (tmp_path / "task").write_bytes(workers.packed(prepared))
    with Engine(prepared, None, 0) as engine:
        capability = engine.capability(SEVERAL[0])
    work = Work("loop", tuple(SEVERAL[:1]), tiny.job(80), capability, (None,))
    missing = tmp_path / "not there" / "share"  # fails as a full disk does
    assert len(workers._work(str(tmp_path / "task"), str(missing), work)) == 1


def test_the_sentence_survives_the_way_home():
    error = pickle.loads(pickle.dumps(TaskError("Training raised.")))
    assert (type(error), str(error)) == (TaskError, "Training raised.")


def test_a_task_that_cannot_be_sent_says_what_to_do():
    data = list(zip(*tiny.points(), strict=True))
    prepared = tiny.ready(train=data, collate=torch.utils.data.default_collate)
    held = (i for i in range(3))
    object.__setattr__(prepared.task, "weight", lambda batch: held and torch.ones(len(batch[1])))
    with pytest.raises(TaskError, match=r"cannot be sent to worker processes .*workers=0"):
        on_two_workers(prepared)
