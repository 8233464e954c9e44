"""The noise scale from the gradients of processes that train together."""

import json

import numpy as np
import pytest

from batchlab.watch.journal import read
from batchlab.watch.noise import Squares, block_of, estimate, pair
from batchlab.watch.record import NoiseBlock
from tests.together import together

SIZES = (2, pytest.param(4, marks=pytest.mark.slow))

PROGRAM = """
import warnings
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from batchlab.watch import Watch, gradients

FOLDER = Path(__file__).parent
EXAMPLES = 4
draw = torch.Generator().manual_seed(0)
X = torch.randn(60, SIZE * EXAMPLES, 3, generator=draw, dtype=torch.float64)
Y = torch.randn(60, SIZE * EXAMPLES, generator=draw, dtype=torch.float64)

def network(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), *middle, nn.Tanh(), nn.Linear(5, 1)).double()

def loss_of(model, x, y):
    return (model(x)[:, 0] - y).square().mean()

own = slice(EXAMPLES * RANK, EXAMPLES * (RANK + 1))
for options in ({}, {"gradient_as_bucket_view": True}, {"static_graph": True}):
    model = DistributedDataParallel(network(), **options)
    found = gradients.processes(model, list(model.parameters()))
    found.start(check=True)
    loss_of(model, X[0, own], Y[0, own]).backward()
    norms = found.stop([EXAMPLES])
    FACTS[f"norms {options}"] = [
        float(norms.small_sq), float(norms.big_sq), norms.small, norms.big,
        max(float(x) for x in norms.missed.values())]

    # Two micro-batches in each, exchanged once.
    model.zero_grad()
    found.start(check=True)
    halves = [slice(own.start, own.start + 2), slice(own.start + 2, own.stop)]
    with model.no_sync():
        (loss_of(model, X[0, halves[0]], Y[0, halves[0]]) / 2).backward()
    (loss_of(model, X[0, halves[1]], Y[0, halves[1]]) / 2).backward()
    norms = found.stop([2, 2])
    FACTS[f"accumulated {options}"] = [
        float(norms.small_sq), float(norms.big_sq), norms.small, norms.big]

alone = network()
single = gradients.MicroBatches(list(alone.parameters()))
single.start(check=True)
for batch in range(SIZE):
    part = slice(EXAMPLES * batch, EXAMPLES * (batch + 1))
    (loss_of(alone, X[0, part], Y[0, part]) / SIZE).backward()
norms = single.stop([EXAMPLES] * SIZE)
FACTS["one process"] = [float(norms.small_sq), float(norms.big_sq), norms.small, norms.big]

def trained(watched):
    model = DistributedDataParallel(network(nn.BatchNorm1d(5)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watching = Watch(FOLDER / "watched", model, optimizer, quiet=True, share=1e9)
    batches = list(zip(X[:, own], Y[:, own], strict=True))
    if watched:
        watching.open()
    for x, y in watching.data(batches) if watched else batches:
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        if watched:
            watching.loss(loss)
    if watched:
        watching.close()
        FACTS["counts"] = [watching.samples, watching.updates]
        FACTS["verdict"] = watching.verdict is not None
    return [p.detach().clone() for p in model.parameters()]

pairs = zip(trained(True), trained(False), strict=True)
FACTS["untouched"] = all(torch.equal(a, b) for a, b in pairs)
"""


@pytest.fixture(scope="module", params=SIZES)
def facts(request, tmp_path_factory):
    """(what so many processes found, their folder)."""
    folder = tmp_path_factory.mktemp("processes")
    return together(PROGRAM, folder, request.param), folder


WRAPPERS = ["{}", "{'gradient_as_bucket_view': True}", "{'static_graph': True}"]


@pytest.mark.parametrize("options", WRAPPERS)
@pytest.mark.parametrize("kind", ["norms", "accumulated"])
def test_processes_equal_as_many_micro_batches_in_one(facts, options, kind):
    found = [fact[f"{kind} {options}"] for fact in facts[0]]
    small_sq, big_sq, small, big = facts[0][0]["one process"]
    assert np.mean([one[0] for one in found]) == pytest.approx(small_sq, rel=1e-10)
    assert [one[1] for one in found] == pytest.approx([big_sq] * len(found), rel=1e-10)
    assert [one[2:4] for one in found] == [[small, big]] * len(found)


@pytest.mark.parametrize("options", WRAPPERS)
def test_a_gradient_set_to_zero_before_misses_nothing(facts, options):
    assert max(fact[f"norms {options}"][4] for fact in facts[0]) < 1


def test_watching_every_process_changes_no_weight_and_the_first_one_writes(facts):
    found, folder = facts
    assert all(fact["untouched"] for fact in found)
    assert [fact["counts"] for fact in found] == [[60 * 4 * len(found), 60]] * len(found)
    assert [fact["verdict"] for fact in found] == [True] + [False] * (len(found) - 1)
    assert [path.name for path in folder.glob("watch*")] == ["watched"]


def test_where_examples_cannot_be_told_apart_processes_give_the_noise_before_clipping(facts):
    found, folder = facts
    lines = [
        json.loads(line)
        for path in (folder / "watched").rglob("*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    ]
    blocks = [line for line in lines if "signal_var" in line]
    # The first ten updates are not measured, and one pair alone at the end is no block.
    assert sum(block["pairs"] for block in blocks) in (49, 50)
    assert {block["method"] for block in blocks} == {"processes"}
    assert {block["batch_size"] for block in blocks} == {4 * len(found)}
    # Clipped, ‖G‖² + tr Σ/B would be 1e-6.
    assert all(b["signal"] + b["noise"] / b["batch_size"] > 1e-3 for b in blocks)


# -- a process that dies --------------------------------------------------------------------------

DIES = """
import signal
from pathlib import Path
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from batchlab.watch import Watch

torch.manual_seed(0)
model = DistributedDataParallel(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
watching = Watch(Path(__file__).parent / "watched", model, optimizer, noise="processes",
                 quiet=True, share=1e9)
try:
    with watching:
        for update, x in enumerate(watching.data(torch.randn(60, 4, 3).unbind())):
            if RANK == VICTIM and update == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            watching.loss(loss)
except RuntimeError as error:
    FACTS["said"] = str(error)
FACTS["open"], FACTS["updates"] = watching.is_open, watching.updates
FACTS["verdict"] = watching.verdict is not None
print(json.dumps(FACTS), flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("victim", ["first", "last"])
def test_a_process_that_dies_ends_the_watched_training_of_the_others(tmp_path, size, victim):
    """Torch raises in the user's loop; what was watched until then stays readable."""
    number = {"first": 0, "last": size - 1}[victim]
    found = together(f"VICTIM = {number}\n" + DIES, tmp_path, size, killed=(number,))
    others = [fact for fact in found if fact is not None]
    assert len(others) == size - 1
    assert all("said" in fact and "imed out" not in fact["said"] for fact in others)
    assert [fact["open"] for fact in others] == [False] * (size - 1)
    assert {fact["updates"] for fact in others} == {30}
    assert [fact["verdict"] for fact in others] == [
        victim == "last" and rank == 0 for rank in range(size - 1)
    ]
    watched = read(tmp_path / "watched")
    assert watched.starts[-1].world_size == size
    assert (watched.end is None) == (victim == "first")


# -- coverage -------------------------------------------------------------------------------------

WORLD, EACH, PARAMETERS, PAIRS, TRIALS = 4, 8, 40, 48, 400
SIGNAL, NOISE = 1.0, 60.0
"""‖G‖² and tr Σ: the noise scale is 60 examples."""


def covers(draw, small, big):
    """Whether one training's interval holds the truth, for norms said to be of these sizes."""
    gradient = np.full(PARAMETERS, np.sqrt(SIGNAL / PARAMETERS))
    spread = np.sqrt(NOISE / PARAMETERS / EACH)
    own = gradient + spread * draw.standard_normal((PAIRS, WORLD, PARAMETERS))
    firsts, whole = (own[:, 0] ** 2).sum(-1), (own.mean(1) ** 2).sum(-1)
    pairs = [pair(Squares(a, b, small, big)) for a, b in zip(firsts, whole, strict=True)]
    about = {"method": "processes", "covered": 1.0, "population": None, "batch_size": big}
    axes = {"samples": 0, "updates": 0, "seconds": 0.0, "money": None}
    found = estimate([NoiseBlock(**axes, **about, **block_of(pairs))])
    assert found is not None
    if found.scale is None:
        return (found.at_least or 0.0) <= NOISE / SIGNAL
    return found.scale.low <= NOISE / SIGNAL <= found.scale.high


def z_of_coverage(small, big):
    """Standard errors between 90 % and what was covered; 6 % more or less would be seen."""
    draw = np.random.default_rng(0)
    covered = np.mean([covers(draw, small, big) for _ in range(TRIALS)])
    return (covered - 0.9) / np.sqrt(0.9 * 0.1 / TRIALS)


def test_ninety_per_cent_intervals_hold_the_truth_in_ninety_per_cent():
    assert abs(z_of_coverage(EACH, WORLD * EACH)) <= 4


def test_forgetting_that_each_process_holds_its_own_examples_is_found():
    assert z_of_coverage(EACH // WORLD, EACH) < -4
