"""What fits is found on the live model, has run, and leaves no trace."""

import copy
import gc
import itertools
import os
import random
import subprocess
import sys
import weakref
from collections import UserDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from batchlab import _meter, _platform, _random, finding
from batchlab.accumulation import Accumulator
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, UserError
from batchlab.finding import even_size, find_batch_size
from tests.together import together

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
SRC = Path(__file__).parents[1] / "src"
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def few_objects():
    """Looking for garbage in all of PyTorch would take most of the time."""
    find(Net())
    gc.freeze()
    yield
    gc.unfreeze()


class Net(nn.Module):
    """Batch norm, dropout, a counter and a cache; ``fail(x)`` raises where a test wants it."""

    def __init__(self, fail=lambda x: None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("replaced", torch.zeros(2))
        self.calls, self.cache = 0, {}
        self.fail = fail

    def forward(self, x):
        self.calls += 1
        self.cache[len(x)] = x
        self.replaced = self.replaced + 1
        random.random()
        np.random.random()
        hidden = self.dropout(self.norm(self.first(x)))
        self.fail(x)
        return self.last(hidden)[:, 0]


def data(count=40):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, generator=generator), torch.randn(count, generator=generator)


def loss(model, batch):
    return (model(batch[0]) - batch[1]).square()


def out_of_memory(limit):
    """Raises as PyTorch does above a number of examples."""

    def fail(x):
        if len(x) > limit:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    return fail


def find(model, optimizer=None, **options):
    optimizer = optimizer or torch.optim.Adam(model.parameters())
    options = {"global_batch_size": 64, "said": None, "data": data()} | options
    return find_batch_size(model, optimizer, options.pop("loss", loss), **options)


# No trace


def trained(optimizer_of=torch.optim.Adam):
    """A model in the middle of training: optimizer state, a schedule, gradients."""
    model = Net()
    optimizer = optimizer_of(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(2):
        loss(model, data()).mean().backward()
        optimizer.step()
    schedule.step()
    model.norm.eval()
    return model, optimizer


def fresh(optimizer_of=torch.optim.Adam):
    model = Net()
    return model, optimizer_of(model.parameters(), lr=torch.tensor(0.1))


def state_of(model, optimizer):
    """All of it, as values that can be compared."""
    return copy.deepcopy(
        {
            "model": model.state_dict(),
            "gradients": {n: p.grad for n, p in model.named_parameters()},
            "modes": {n: m.training for n, m in model.named_modules()},
            "plain": (model.calls, model.cache),
            "optimizer": optimizer.state_dict(),
            "names": sorted(vars(optimizer)),
            "flag": vars(optimizer).get("_opt_called"),
            "random": _random.global_state(),
        }
    )


def data_limit():
    """The limit on this process's memory, where there is such a thing."""
    resource = _platform.resource
    return resource and resource.getrlimit(resource.RLIMIT_DATA)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


class Mine(Exception):
    """An error of the user's own."""


def raise_mine(x):
    if len(x) > 5:
        raise Mine


def interrupt(x):
    if len(x) > 5:
        raise KeyboardInterrupt


# Off in it, because checking a container's type draws from Python's generator.
@pytest.mark.wrong_type
@pytest.mark.parametrize("start", [fresh, trained])
@pytest.mark.parametrize(
    ("fail", "raised"),
    [
        (lambda x: None, None),
        (out_of_memory(5), None),
        (out_of_memory(0), TaskError),
        (raise_mine, Mine),
        (interrupt, KeyboardInterrupt),
    ],
)
def test_everything_is_left_bit_for_bit(start, fail, raised):
    model, optimizer = start()
    model.fail = fail
    held = [*model.parameters(), *model.buffers()]
    before = state_of(model, optimizer)
    limits = data_limit()
    if raised is None:
        find(model, optimizer)
    else:
        with pytest.raises(raised):
            find(model, optimizer)
    after = state_of(model, optimizer)
    assert {k: (after[k], before[k]) for k in before if not same(after[k], before[k])} == {}
    assert all(a is b for a, b in zip([*model.parameters(), *model.buffers()], held, strict=True))
    assert data_limit() == limits


@pytest.mark.parametrize("planted", ["first.weight", "norm.running_mean", "calls", "lr", "random"])
def test_a_trace_would_be_seen(planted):
    model, optimizer = trained()
    before = state_of(model, optimizer)
    if planted == "calls":
        model.calls += 1
    elif planted == "lr":
        optimizer.param_groups[0]["lr"] *= 2
    elif planted == "random":
        torch.rand(1)
    else:
        model.state_dict()[planted].add_(1e-6)
    assert not same(state_of(model, optimizer), before)


@pytest.mark.parametrize(
    "optimizer_of",
    [
        torch.optim.SGD,
        torch.optim.Adam,
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
        lambda p, lr: torch.optim.Adam(p, lr, amsgrad=True),
    ],
)
def test_training_goes_on_as_if_nothing_had_been_tried(optimizer_of):
    ends = []
    for finds in (False, True):
        with _random.seeded(0, "test"):
            model, optimizer = trained(optimizer_of)
            if finds:
                model.fail = out_of_memory(5)
                find(model, optimizer)
                model.fail = lambda x: None
            for _ in range(3):
                loss(model, data()).mean().backward()
                optimizer.step()
            ends.append(model.state_dict())
    assert same(*ends)


def test_a_scaler_is_left_as_it_was():
    scaler = torch.amp.GradScaler("cpu")
    find(Net(), scaler=scaler)
    assert scaler._scale is None


def test_a_loader_is_not_iterated_over():
    class Guarded(DataLoader):
        def __iter__(self):
            raise Mine

    generator = torch.Generator().manual_seed(0)
    loader = Guarded(TensorDataset(*data()), batch_size=4, shuffle=True, generator=generator)
    before = generator.get_state()
    assert find(Net(), data=loader).micro_batch_size == 64
    assert torch.equal(generator.get_state(), before)


def test_a_model_in_evaluation_mode_is_tried_in_training_mode():
    modes = []
    model = Net()
    model.fail = lambda x: modes.append(model.training)
    model.eval()
    find(model)
    assert set(modes) == {True}
    assert not model.training


# What is found


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20, 33, 63])
def test_the_batch_is_kept_whatever_fits(limit):
    found = find(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0), Fails(limit)))
    assert 0.95 * limit <= found.largest <= limit
    assert found.bound_by == "memory"
    assert found.micro_batch_size * found.accum_steps == 64
    assert found.trials[found.micro_batch_size].fits


class Fails(nn.Module):
    def __init__(self, limit):
        super().__init__()
        self.fail = out_of_memory(limit)

    def forward(self, x):
        self.fail(x)
        return x


def test_what_is_returned_has_run_to_its_end():
    ran = []

    def noted(model, batch):
        found = loss(model, batch)
        ran.append(len(batch[0]))
        return found

    found = find(Net(out_of_memory(23)), loss=noted, global_batch_size=251)
    assert ran.count(found.micro_batch_size) >= 2
    assert ran.count(found.largest) >= 2


def test_everything_that_fits_is_said_so():
    found = find(Net())
    assert (found.micro_batch_size, found.accum_steps, found.bound_by) == (
        64,
        1,
        "global_batch_size",
    )


def test_a_size_of_interest_binds():
    found = find(Net(), max_micro_batch_size=10)
    assert (found.largest, found.micro_batch_size, found.accum_steps) == (10, 8, 8)
    assert found.bound_by == "max_micro_batch_size"
    assert max(found.trials) == 10


@pytest.mark.parametrize("what", ["gradients", "optimizer state"])
def test_what_is_there_only_in_the_second_micro_step_counts(what):
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())

    def fail(x):
        there = model.first.weight.grad if what == "gradients" else optimizer.state
        if there is not None and len(there) and len(x) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.fail = fail
    assert find(model, optimizer).largest == 9


def test_a_trial_that_looks_at_one_micro_step_would_not_pass(monkeypatch):
    model = Net()
    optimizer = torch.optim.Adam(model.parameters())
    monkeypatch.setattr(finding, "UPDATES", 1)

    def fail(x):
        if model.first.weight.grad is not None and len(x) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.fail = fail
    assert find(model, optimizer).largest == 64


@pytest.mark.parametrize("seed", range(5))
def test_with_a_limit_that_moves_what_is_returned_has_run(seed):
    noise, ran = random.Random(seed), []

    def fail(x):
        if len(x) > 30 + noise.randint(-6, 6):
            raise MemoryError
        ran.append(len(x))

    found = find(Net(fail), global_batch_size=200)
    assert found.trials[found.micro_batch_size].fits
    assert ran.count(found.micro_batch_size) >= 2
    assert found.micro_batch_size <= 36


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: invalid configuration argument",
        "Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true",
    ],
)
def test_a_limit_other_than_memory_is_found_and_named(said):
    def fail(x):
        if len(x) > 20:
            raise RuntimeError(said)

    found = find(Net(fail))
    assert (found.largest, found.bound_by) == (20, "crash")
    assert f"A micro-batch of 21 fails for another reason: RuntimeError: {said}." in found.sentence


@pytest.mark.parametrize("error", [ValueError("mine"), RuntimeError("mat1 and mat2 shapes")])
def test_an_error_that_is_no_lack_of_memory_is_the_users_to_see(error):
    def fail(x):
        raise error

    with pytest.raises(type(error)) as caught:
        find(Net(fail))
    assert caught.value is error


def test_nothing_fits_is_said_with_its_reason():
    with pytest.raises(TaskError, match=r"Nothing fits\. .* a micro-batch of 1: RuntimeError: "):
        find(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0), Fails(0)))


def test_nothing_of_a_failed_trial_stays_alive():
    alive, seen = [], []

    def fail(x):
        seen.append([ref() is not None for ref in alive])
        big = torch.zeros(10)
        alive[:] = [weakref.ref(big)]
        out_of_memory(5)(x)

    find(Net(fail))
    assert len(seen) > 4
    assert not any(any(refs) for refs in seen)


@pytest.fixture
def measured(monkeypatch):
    """A meter that says one MiB for each example of the last micro-batch."""
    last = []
    monkeypatch.setattr(_meter.Meter, "peak", lambda self: last[-1] * MIB)
    return lambda x: last.append(len(x))


def test_the_margin_is_kept_in_bytes(measured):
    found = find(Net(measured), global_batch_size=1000, memory_limit="100MiB", margin=20 * MIB)
    assert 78 <= found.largest <= 80
    assert found.margin_bytes == 20 * MIB
    assert "Limit: 100.0 MiB (memory_limit), of which 20.0 MiB are kept free." in found.sentence


def test_without_a_margin_a_twentieth_is_kept_free(measured):
    found = find(Net(measured), global_batch_size=1000, memory_limit="100MiB")
    assert 93 <= found.largest <= 95


def test_the_result_is_said_as_an_identity():
    said = []
    found = find(Net(out_of_memory(23)), global_batch_size=96, said=said.append)
    assert said == [found.sentence]
    assert said[0].startswith("96 = 16 × 6 × 1 (micro-batch × accumulation × processes): a mi")
    assert "A micro-batch of 24 does not fit: RuntimeError:" in said[0]


def test_every_part_is_done_with_few_even_micro_batches():
    for part, largest in itertools.product(range(1, 61), range(1, 64)):
        size, fewest = even_size(part, largest), -(-part // largest)
        steps = -(-part // size)
        evenly = any(part % n == 0 for n in range(fewest, 2 * fewest + 1))
        assert 1 <= size <= largest
        assert fewest <= steps <= 2 * fewest
        assert part == size * steps if evenly else size * steps - part < steps


# Data


class Lengths(torch.utils.data.Dataset):
    """Sequences of which the longest comes late."""

    def __init__(self, count=1000, longest=997):
        self.count, self.longest = count, longest

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.ones(40 if index == self.longest else 1 + index % 7, 3)


def pad(items):
    return nn.utils.rnn.pad_sequence(items, batch_first=True)


def lengths_seen(source, **options):
    seen = []

    def of_sequences(model, batch):
        seen.append(batch.shape[1])
        return model(batch).mean((1, 2))

    found = find(nn.Linear(3, 1), loss=of_sequences, data=source, **options)
    return set(seen), found


def test_the_longest_example_of_a_data_set_is_tried():
    loader = DataLoader(Lengths(count=256, longest=255), batch_size=4, collate_fn=pad)
    assert lengths_seen(loader)[0] == {40}


def test_where_only_some_examples_were_looked_at_it_is_said():
    loader = DataLoader(Lengths(), batch_size=4, collate_fn=pad)
    seen, found = lengths_seen(loader)
    assert seen == {7}
    assert "the longest of 256 examples looked at, of 1,000." in found.sentence


def test_a_function_may_make_the_batches():
    assert lengths_seen(lambda size: torch.ones(size, 11, 3))[0] == {11}


def test_what_a_tokenizer_gives_may_be_the_example():
    class Encoding(UserDict):
        pass

    kinds = set()

    def of_encodings(model, batch):
        kinds.add(type(batch))
        return model(batch["x"])[:, 0]

    found = find(nn.Linear(3, 1), loss=of_encodings, data=Encoding({"x": torch.ones(2, 3)}))
    assert (found.micro_batch_size, kinds) == (64, {Encoding})


# Refusals


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.ones(3)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"global_batch_size": 0}, InvalidValueError, "`global_batch_size` must be at least 1"),
        ({"max_micro_batch_size": 0}, InvalidValueError, "`max_micro_batch_size` must be 'auto'"),
        ({"memory_limit": "lots"}, InvalidValueError, "`memory_limit` must be an amount"),
        (
            {"memory_limit": "1MiB", "margin": "1MiB"},
            InvalidValueError,
            "`margin` must be below the limit",
        ),
        ({"data": Endless()}, InvalidTypeError, "`data` must be one batch"),
        ({"data": DataLoader(Endless())}, InvalidTypeError, "`data` must be one batch"),
        (
            {"data": DataLoader(Lengths(), batch_size=None)},
            InvalidTypeError,
            "`data` must be one batch",
        ),
        ({"data": data(0)}, InvalidValueError, "a batch of at least one example"),
        ({"data": Lengths(0)}, InvalidValueError, "`data` must be at least one example"),
        ({"data": {"x": "text"}}, InvalidTypeError, "`batch` must be made of tensors"),
    ],
)
def test_impossible_input_is_refused(options, error, sentence):
    with pytest.raises(error, match=sentence):
        find(Net(), **options)


def test_a_lazy_model_is_refused():
    model = nn.LazyLinear(1)
    with pytest.raises(InvalidValueError, match=r"`model` must be complete.*Run one batch"):
        find(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_an_optimizer_in_pieces_is_refused():
    class ZeroRedundancyOptimizer(torch.optim.SGD):
        pass

    model = Net()
    with pytest.raises(InvalidTypeError, match="`optimizer` must be whole in every process"):
        find(model, ZeroRedundancyOptimizer(model.parameters(), lr=0.1))


def test_a_system_that_cannot_measure_is_named(monkeypatch):
    monkeypatch.setattr("batchlab._platform.memory_unavailable", lambda: "memory is a secret here")
    with pytest.raises(UserError, match="No batch size can be found: memory is a secret here"):
        find(Net())


# Real memory

GREEDY = """
import torch
from torch import nn
from batchlab.finding import find_batch_size

class Wide(nn.Module):
    # Three MiB an example in the backward pass.
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)
    def forward(self, x):
        wide = torch.zeros(len(x), 2**18) + self.linear(x)
        return wide.exp().mean(1)

torch.set_num_threads(2)
model = Wide()
optimizer = torch.optim.Adam(model.parameters())
found = find_batch_size(
    model, optimizer, lambda model, batch: model(batch), torch.zeros(1, 4),
    global_batch_size=10_000, memory_limit="256MiB", margin="16MiB", said=None)
print(found.largest, found.bound_by, found.trials[found.largest].bytes)
x = torch.zeros(2**28)  # no limit is left behind
"""


@linux
def test_on_a_processor_the_live_process_survives_what_does_not_fit():
    """It would take 30 GiB to run the batch at once; at three MiB an example about 75 fit."""
    done = subprocess.run(
        [sys.executable, "-c", GREEDY],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    largest, bound, taken = done.stdout.split()
    assert bound == "memory"
    assert 20 <= int(largest) <= 90
    assert int(taken) <= 240 * MIB


@pytest.mark.gpu
def test_on_a_gpu_what_is_found_trains_and_no_more_memory_is_held_than_before():
    model = nn.Sequential(nn.Linear(1024, 8192), nn.ReLU(), nn.Linear(8192, 1)).cuda()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 1024).cuda()).sum().backward()  # libraries take what they keep
    optimizer.zero_grad()
    torch.cuda.empty_cache()
    base, before = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    state = torch.cuda.get_rng_state()

    def squared(model, batch):
        return model(batch)[:, 0].square()

    found = find_batch_size(
        model,
        optimizer,
        squared,
        torch.ones(1, 1024),
        global_batch_size=2**20,
        memory_limit="2GiB",
        margin="200MiB",
    )
    assert found.bound_by == "memory"
    assert torch.cuda.memory_allocated() == before
    assert torch.equal(torch.cuda.get_rng_state(), state)
    torch.cuda.reset_peak_memory_stats()
    accumulate = Accumulator(model, squared, micro_batch_size=found.micro_batch_size)
    accumulate(torch.ones(2 * found.micro_batch_size, 1024))
    optimizer.step()
    assert torch.cuda.max_memory_reserved() - base <= 2 * 2**30 - 200 * MIB


@pytest.mark.gpu
def test_a_real_lack_of_memory_on_a_gpu_is_recovered_from():
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**30 / total))
    try:
        model = nn.Sequential(nn.Linear(256, 4096), nn.Tanh(), nn.Linear(4096, 1)).cuda()
        accumulate = Accumulator(model, lambda m, b: m(b)[:, 0].square(), recover=True, said=print)
        accumulate(torch.ones(2**17, 256))
        assert accumulate.halvings
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# Two processes

PROGRAM = """
import gc
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from batchlab import _random
from batchlab.accumulation import Accumulator
from batchlab.finding import find_batch_size

class Tight(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(3, 1), nn.BatchNorm1d(1)
    def forward(self, x):
        return self.norm(self.linear(x))[:, 0]

def loss_of(limits, error=None, before=False):
    def loss(model, batch):
        fails = len(batch) > limits[RANK]
        if fails and before:
            raise error or MemoryError("no")
        found = model(batch).square()
        if fails:
            raise error or MemoryError("no")
        return found
    return loss

def find(loss, batch=64, **options):
    inner = Tight()
    model = DistributedDataParallel(inner)
    optimizer = torch.optim.Adam(model.parameters())
    said = []
    try:
        found = find_batch_size(model, optimizer, loss, torch.randn(5, 3),
                                global_batch_size=batch, said=said.append, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    start = Tight().state_dict()
    same = all(torch.equal(v, start[k]) for k, v in inner.state_dict().items())
    return [found.micro_batch_size, found.accum_steps, found.world_size, list(found.trials),
            found.bound_by, len(said), found.sentence, same and not optimizer.state]

torch.manual_seed(RANK)
find(loss_of((99, 99)))
gc.freeze()  # looking for garbage in all of PyTorch would take most of the time
for before in (False, True):
    for limits in ((5, 99), (99, 11), (99, 99)):
        FACTS[f"{limits} {before}"] = find(loss_of(limits, before=before))
FACTS["own error"] = find(loss_of((99, 3), ValueError("mine")))
FACTS["nothing"] = find(loss_of((0, 99)))
FACTS["odd"] = find(loss_of((99, 99)), batch=63)
FACTS["first"] = find(loss_of((99, 99)), memory_limit="1GiB" if RANK else "100MiB", margin=0)

# From finding to training, with a lack of memory on the way that finding could not see.
inner = Tight()
model = DistributedDataParallel(inner)
optimizer = torch.optim.Adam(model.parameters())
found = find_batch_size(model, optimizer, loss_of((9, 99)), torch.randn(5, 3),
                        global_batch_size=64, said=None)
inner.norm.eval()
accumulate = Accumulator(model, loss_of((5, 99)), micro_batch_size=found.micro_batch_size,
                         recover=True, said=lambda sentence: None)
for step in range(2):
    optimizer.zero_grad()
    accumulate(torch.randn(32, 3))
    optimizer.step()
FACTS["trained"] = [found.micro_batch_size, accumulate.micro_batch_size,
                    [float(p.sum()) for p in inner.parameters()]]
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """What two processes found out; one that waits for ever is a failure."""
    return together(PROGRAM, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(
    ("limits", "sizes"),
    [((5, 99), (4, 8)), ((99, 11), (8, 4)), ((99, 99), (32, 1))],
)
def test_processes_agree_on_what_fits_in_all(facts, limits, sizes, before):
    here, there = (fact[f"{limits} {before}"] for fact in facts)
    assert here[:5] == there[:5]
    assert tuple(here[:3]) == (*sizes, 2)
    assert here[6].startswith(f"64 = {sizes[0]} × {sizes[1]} × 2 (micro-batch")


def test_only_the_first_process_says_it(facts):
    assert [fact["(5, 99) False"][5] for fact in facts] == [1, 0]


def test_all_processes_are_left_as_they_were(facts):
    assert all(fact["(5, 99) False"][7] for fact in facts)


def test_an_error_in_one_process_stops_all(facts):
    here, there = (fact["own error"] for fact in facts)
    assert here == "TaskError: Another process of this training failed; it says why."
    assert there == "ValueError: mine"


def test_where_nothing_fits_in_one_process_all_stop(facts):
    here, there = (fact["nothing"] for fact in facts)
    assert here.startswith(
        "TaskError: Nothing fits. What was tried: a micro-batch of 1: ValueError"
    )
    assert here.endswith("; a micro-batch of 2: MemoryError: no.")
    assert there.endswith("a micro-batch of 2: it failed in another process.")


def test_a_batch_that_does_not_divide_by_the_processes_is_refused(facts):
    for fact in facts:
        assert "`global_batch_size` must be a positive multiple of the 2 processes" in fact["odd"]


def test_processes_with_different_limits_agree(facts):
    here, there = (fact["first"] for fact in facts)
    assert here[:5] == there[:5]


def test_from_finding_to_training_the_processes_stay_together(facts):
    here, there = (fact["trained"] for fact in facts)
    assert here == there
    assert here[:2] == [8, 4]
