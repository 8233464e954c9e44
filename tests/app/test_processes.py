"""``fit`` and ``noise`` of several processes: all agree, one writes, none waits."""

import os
import subprocess
import sys

import pytest

from batchlab.app.measure import noise
from batchlab.tasks import load
from batchlab.types import to_plain
from tests.together import SECONDS, SRC, together

SIZES = (2, 4)
pytestmark = pytest.mark.slow

TASK = """
import os, signal
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from batchlab.config import RunConfig
from batchlab.tasks import Task

def points(examples, seed):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, 5, generator=draw, dtype=torch.float64)
    noise = torch.randn(examples, generator=draw, dtype=torch.float64)
    return inputs, (inputs.sum(1) + noise > 0).long()

def plain():
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2))

def normed():
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))

def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")

def task(model=plain, **changes):
    recipe = RunConfig(
        rule="shb", batch_size=8, learning_rate=0.1, samples="2ep", precision="float64"
    )
    given = {"train": points(128, 0), "validation": points(32, 1), "loss": loss}
    return Task(model, **(given | {"baseline": recipe, "name": "tiny"} | changes))

def coupled():
    return task(normed)

def weighted():
    return task(weight=lambda batch: 1.0 + batch[1])

CALLS = []

def dying_loss(outputs, batch):
    # In the process that DIES names, or in the child in which `fit` tries a size for it.
    where = "itself" if os.environ.get("MAIN") == str(os.getpid()) else "child"
    if os.environ.get("DIES") == where:
        CALLS.append(where)
        if len(CALLS) == int(os.environ["CALLS"]):
            os.kill(int(os.environ["MAIN"]), signal.SIGKILL)
    return loss(outputs, batch)

def dying():
    return task(loss=dying_loss)
"""

PROGRAM = """
import contextlib, io
from pathlib import Path
from batchlab import schedules
from batchlab._random import seeded
from batchlab._team import Team, gathered
from batchlab.app.measure import fit, noise
from batchlab.app.processes import check_same
from batchlab.config import RunConfig
from batchlab.errors import UserError
from batchlab.measure import plain
from batchlab.measure.together import Division, Share, gains, time_together
from batchlab.progress import Quiet
from batchlab.tasks import Task, load, prepare
from batchlab.tasks.task import total_weight
from batchlab.types import to_plain

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))
import tiny_task

printed = io.StringIO()
quiet = {"device": "cpu", "listener": Quiet()}
with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
    for name in ("task", "coupled", "weighted"):
        where = FOLDER / name
        report = noise(f"{FOLDER}/tiny_task.py:{name}", points=3, out=where, **quiet)
        FACTS[name] = [to_plain(one) for one in report.moments]
    if sys.platform.startswith("linux"):
        found = fit(f"{FOLDER}/tiny_task.py:task", out=FOLDER / "fit", max_val=16, **quiet)
        FACTS["fit"] = [found.fit.largest, found.fit.bound_by, found.fit.limit_source]
        FACTS["bytes"] = [point.bytes for point in found.fit.points]
        FACTS["gains"] = [str(one) for one in found.gains]
        FACTS["text"] = str(found)
FACTS["printed"] = printed.getvalue()

def failed(work):
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

with gathered() as team:
    def raises(rank, error):
        if team.rank == rank:
            raise error
        return team.rank

    FACTS["each"] = team.each(lambda: team.rank)
    FACTS["one fails"] = failed(lambda: team.each(lambda: raises(1, ValueError("mine"))))
    FACTS["one fails outside the inner"] = failed(
        lambda: team.each(lambda: [raises(1, MemoryError("no")), team.each(lambda: 1)]))
    FACTS["one fails inside the inner"] = failed(
        lambda: team.each(lambda: [team.each(lambda: raises(SIZE - 1, UserError("told"))), 1]))
    FACTS["after"] = team.each(lambda: -team.rank)

    # Other data in the last process.
    others = tiny_task.points(128, int(team.rank == SIZE - 1))
    own = prepare(tiny_task.task(train=others), device="cpu")
    FACTS["other data"] = failed(lambda: check_same(team, own))
    own = prepare(tiny_task.task(train=tiny_task.points(128 - 2 * team.rank, 0)), device="cpu")
    FACTS["other number"] = failed(lambda: check_same(team, own))

    # One training split over the processes is that of one.
    for name in ("task", "weighted"):
        ready = prepare(getattr(tiny_task, name)(), device="cpu")
        config = ready.baseline.replace(clip_norm=0.5)
        share = Share(ready, config, Division(16, SIZE, 2))
        share.join(team.group_of(SIZE), team.rank)
        alone = ready.objective(config.seed, torch.float64, config.gamma)
        plain.train(
            alone, plain.make_optimizer(alone, config), ready.train, ready.stream(config.seed),
            sizes=[(0, 16)], samples=config.samples, micro_batch_size=16,
            weight_of=lambda batch, ready=ready: total_weight(ready.task, batch),
            rate=schedules.rate_schedule(config.lr_schedule, warmup=config.warmup),
            clip_norm=config.clip_norm, precision=config.precision)
        for _ in range(config.samples // 16):
            share.update()
        pairs = zip(share.objective.parameters(), alone.parameters(), strict=True)
        FACTS[f"trained {name}"] = max(float((a - b).detach().abs().max()) for a, b in pairs)

    # A process that lacks memory leaves nobody waiting, and the next block runs.
    def tight(model=tiny_task.plain):
        def loss(outputs, batch):
            if TIGHT and team.rank == SIZE - 1 and len(outputs) > 2:
                raise MemoryError("no")
            return tiny_task.loss(outputs, batch)
        return tiny_task.task(model, loss=loss)
    def failing():
        wanted = [Division(4 * SIZE, SIZE, 4)]
        return gains(team, team.context.baseline, wanted, 0.01, 1)
    def fitting():
        wanted = [Division(4 * SIZE, SIZE, 2), Division(4, 1, 4)]
        return gains(team, team.context.baseline, wanted, 0.01, 2)
    TIGHT = []
    ready = prepare(tight(), device="cpu")
    TIGHT.append(True)
    FACTS["lacks memory"] = failed(lambda: team.lead(ready, failing))
    FACTS["then"] = [[str(one), one.timing.seconds_per_update.n]
                     for one in team.lead(ready, fitting)]
    FACTS["uneven"] = failed(lambda: Division(4 * SIZE + 1, SIZE, 2).share)
"""

KILLED = """
import signal
from batchlab._team import gathered

with gathered() as team:
    def dies():
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        team.lead(None, dies)
    except Exception as error:
        FACTS["said"] = f"{type(error).__name__}: {error}"
    # The first process is gone, so there is nothing to leave in order.
    print(json.dumps(FACTS), flush=True)
    os._exit(0)
"""

CANNOT_TRAVEL = """
from batchlab._team import gathered

def gives(team):
    return (lambda: 0) if team.rank == 1 else 0

with gathered() as team:
    try:
        team.lead(None, lambda: team.ask(gives))
    except Exception as error:
        FACTS["said"] = f"{type(error).__name__}: {error}"
    print(json.dumps(FACTS), flush=True)
    os._exit(0)
"""

DIES = """
from pathlib import Path
from batchlab.app.measure import fit, noise
from batchlab.progress import Quiet

FOLDER = Path(__file__).parent
os.environ["MAIN"], os.environ["CALLS"] = str(os.getpid()), CALLS
if RANK == VICTIM:
    os.environ["DIES"] = WHERE
try:
    {"fit": fit, "noise": noise}[COMMAND](
        f"{FOLDER}/tiny_task.py:dying", out=FOLDER / "out", device="cpu", listener=Quiet())
except Exception as error:
    FACTS["said"] = f"{type(error).__name__}: {error}"
print(json.dumps(FACTS), flush=True)
os._exit(0)
"""
"""``COMMAND``, in which the process ``VICTIM`` dies of the loss function's ``CALLS``th call."""


@pytest.fixture(scope="module", params=SIZES)
def facts(request, tmp_path_factory):
    """(what so many processes found out, their folder); one that waits for ever is a failure."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "tiny_task.py").write_text(TASK, "utf-8")
    return together(PROGRAM, folder, request.param), folder


def agreed(facts, name):
    """What all processes say alike."""
    first, *others = [fact[name] for fact in facts[0]]
    assert all(other == first for other in others)
    return first


# -- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["task", "coupled", "weighted"])
def test_noise_of_several_processes_is_that_of_one(facts, name, tmp_path):
    """Per-example, whole batches under batch norm, and with weights, where blocks are uneven."""
    alone = noise(load(f"{facts[1]}/tiny_task.py:{name}"), points=3, out=tmp_path, device="cpu")
    found = agreed(facts, name)
    assert len(found) == len(alone.moments) == 3
    for one, other in zip(found, map(to_plain, alone.moments), strict=True):
        assert one["moments"].keys() == other["moments"].keys()
        assert one["moments"] == pytest.approx(other["moments"], rel=1e-10, abs=1e-12)
        assert (one["method"], one["examples"]) == (other["method"], other["examples"])


def test_the_first_process_writes_and_no_other_prints(facts):
    assert (facts[1] / "task" / "noise.json").exists()
    assert [fact["printed"] for fact in facts[0][1:]] == [""] * (len(facts[0]) - 1)


# -- fit ------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@linux
def test_fit_agrees_and_processes_of_one_machine_share_its_memory(facts):
    largest, bound, source = agreed(facts, "fit")
    assert (largest, bound) == (16, "max_val")
    assert source.endswith(f"shared by {len(facts[0])} processes")


@linux
def test_the_exchange_of_gradients_is_counted_as_memory(facts):
    parameters = 5 * 6 + 6 + 6 * 2 + 2
    assert min(size for size in agreed(facts, "bytes") if size) >= 8 * parameters


@linux
def test_fit_times_one_two_and_all_processes_together(facts):
    told = [one.split(" (")[0] for one in agreed(facts, "gains")]
    size = len(facts[0])
    strong = ["8 = 8 × 1 × 1", "8 = 4 × 1 × 2", "8 = 2 × 1 × 4"]
    weak = {
        2: ["16 = 16 × 1 × 1", "16 = 8 × 1 × 2"],
        4: ["32 = 16 × 2 × 1", "32 = 16 × 1 × 2", "32 = 8 × 1 × 4"],
    }
    assert told == strong[: {2: 2, 4: 3}[size]] + weak[size]
    assert f"With batches of 8, {size} processes go through" in agreed(facts, "text")


# -- one training on several processes ------------------------------------------------------------


@pytest.mark.parametrize("name", ["task", "weighted"])
def test_a_run_does_not_depend_on_the_number_of_processes(facts, name):
    assert agreed(facts, f"trained {name}") < 1e-12


def test_a_batch_that_cannot_be_split_evenly_is_refused(facts):
    size = len(facts[0])
    said = f"`batch_size` must be a multiple of the {size} processes; got {4 * size + 1}"
    assert said in agreed(facts, "uneven")


# -- failures -------------------------------------------------------------------------------------


def test_a_failure_in_one_process_is_heard_in_all(facts):
    size = len(facts[0])
    said = [fact["one fails"] for fact in facts[0]]
    elsewhere = f"TaskError: Process 1 of {size}: ValueError: mine"
    assert said == [elsewhere, "ValueError: mine", *[elsewhere] * (size - 2)]


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_failure_between_two_meetings_leaves_nobody_waiting(facts, where):
    assert all(fact[f"one fails {where} the inner"] for fact in facts[0])
    assert agreed(facts, "after") == [-rank for rank in range(len(facts[0]))]


def test_other_data_in_one_process_is_refused(facts):
    assert "the training data differs" in agreed(facts, "other data")
    size = len(facts[0])
    said = "the number of training examples differs: 128 in process 0, 126 in process 1"
    assert said in agreed(facts, "other number"), size


def test_a_process_that_lacks_memory_leaves_nobody_waiting(facts):
    first, *others = [fact["lacks memory"] for fact in facts[0]]
    size = len(facts[0])
    assert first == f"TaskError: Process {size - 1} of {size}: MemoryError: no"
    assert others == ["TaskError: The first process failed; it says why."] * (size - 1)
    assert [n for _, n in agreed(facts, "then")] == [2, 2]


@pytest.mark.parametrize("size", SIZES)
def test_the_death_of_the_first_process_ends_the_others(tmp_path, size):
    _, *others = together(KILLED, tmp_path, size, killed=(0,))
    said = "LostError: The connection to another process of this start is lost"
    assert all(fact["said"].startswith(said) for fact in others)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("victim", ["first", "last"])
@pytest.mark.parametrize(
    ("command", "where", "calls"),
    [("noise", "itself", 3), pytest.param("fit", "child", 2, marks=linux), ("fit", "itself", 3)],
    ids=["noise", "fit-searching", "fit-timing"],
)
def test_the_death_of_any_process_in_a_command_ends_the_others(
    tmp_path, size, victim, command, where, calls
):
    number = {"first": 0, "last": size - 1}[victim]
    (tmp_path / "tiny_task.py").write_text(TASK, "utf-8")
    given = {"VICTIM": number, "COMMAND": command, "WHERE": where, "CALLS": str(calls)}
    begin = "".join(f"{name} = {value!r}\n" for name, value in given.items())
    found = together(begin + DIES, tmp_path, size, killed=(number,))
    said = [fact["said"] for fact in found if fact is not None]
    lost = "LostError: The connection to another process of this start is lost"
    assert len(said) == size - 1
    assert all(one.startswith(lost) for one in said)


def test_a_result_that_cannot_travel_ends_all_instead_of_leaving_them_waiting(tmp_path):
    first, second = together(CANNOT_TRAVEL, tmp_path)
    assert first["said"].startswith("LostError: The connection to another process")
    assert "pickle" in second["said"]


# -- as the documentation starts it ---------------------------------------------------------------


def torchrun(folder, line, **environment):
    """(exit code, output, what was said) of a line of docs/devices.md, on two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *line.split()[1:]]
    env = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"} | environment
    ended = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr


def documented(command):
    """The line of the page that starts it on 4 processes, on 2."""
    page = (SRC.parent / "docs" / "devices.md").read_text("utf-8")
    (line,) = [
        one for one in page.splitlines() if one.startswith("torchrun") and f" {command} " in one
    ]
    assert "--nproc-per-node 4" in line
    return line.replace("--nproc-per-node 4", "--nproc-per-node 2")


@pytest.mark.parametrize("command", [pytest.param("fit", marks=linux), "noise", "advise"])
def test_the_documented_lines_run_under_torchrun(tmp_path, command):
    (tmp_path / "my_task.py").write_text(TASK, "utf-8")
    line = documented(command).replace("--budget 1h", "--budget 2m")
    code, out, said = torchrun(tmp_path, line)
    assert code == 0, said
    (written,) = (tmp_path / "batchlab-results").iterdir()
    assert written.name.startswith(command)
    assert "Traceback" not in said
    # The first process alone prints.
    first = next(line for line in out.splitlines() if line.strip())
    assert out.splitlines().count(first) == 1


def test_a_process_that_dies_ends_a_start_of_torchrun(tmp_path):
    killed = TASK.replace(
        "def task(model=plain, **changes):",
        "def dies(outputs, batch):\n"
        "    if os.environ['RANK'] == '0':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return loss(outputs, batch)\n\n"
        "def task(model=plain, **changes):",
    ).replace('"loss": loss', '"loss": dies')
    (tmp_path / "my_task.py").write_text(killed, "utf-8")
    code, _, said = torchrun(tmp_path, documented("noise"))
    assert code != 0
    # It hears of it by its connection, or by the signal that torchrun sends then.
    assert "batchlab: The connection to another" in said or "batchlab: interrupted." in said
