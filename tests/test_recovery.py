"""One process of several that runs out of memory, wherever in a step, leaves nobody waiting."""

import itertools

import pytest

from tests.together import together

SIZES = (2, pytest.param(4, marks=pytest.mark.slow))
EACH = 6
"""Examples of each process: at first three micro-batches of 2, then six of 1."""

PROGRAM = """
import itertools
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from batchlab.accumulation import Accumulator

EACH = 6

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()

draw = torch.Generator().manual_seed(1)
X = torch.randn(EACH * SIZE, 3, generator=draw, dtype=torch.float64)
Y = torch.randn(EACH * SIZE, generator=draw, dtype=torch.float64)

class Fails(torch.autograd.Function):
    # The identity, whose backward pass runs out of memory.
    @staticmethod
    def forward(context, x):
        return x.clone()
    @staticmethod
    def backward(context, gradient):
        raise MemoryError("injected")

class Loss:
    # Fails once, in one process, at one micro-step, on the way there or back.
    def __init__(self, rank, step, where):
        self.rank, self.step, self.where, self.calls = rank, step, where, 0
    def __call__(self, model, batch):
        self.calls += 1
        now = RANK == self.rank and self.calls == self.step
        if now and self.where == "forward":
            raise MemoryError("injected")
        found = (model(batch[0])[:, 0] - batch[1]).square()
        return Fails.apply(found) if now and self.where == "backward" else found

alone = network()
(alone(X)[:, 0] - Y).square().mean().backward()
wanted = [p.grad for p in alone.parameters()]
own = slice(EACH * RANK, EACH * (RANK + 1))
for rank, step, where in itertools.product((0, SIZE - 1), (1, 3), ("forward", "backward")):
    inner = network()
    model, loss = DistributedDataParallel(inner), Loss(rank, step, where)
    accumulate = Accumulator(
        model, loss, micro_batch_size=2, recover=True, said=lambda sentence: None)
    accumulate((X[own], Y[own]))
    pairs = zip(inner.parameters(), wanted, strict=True)
    FACTS[f"{rank == 0} {step} {where}"] = [
        [[h.before, h.after] for h in accumulate.halvings],
        max(float((p.grad - g).abs().max()) for p, g in pairs),
        loss.calls,
    ]
"""


@pytest.fixture(scope="module", params=SIZES)
def facts(request, tmp_path_factory):
    return together(PROGRAM, tmp_path_factory.mktemp("recovery"), request.param)


@pytest.mark.parametrize(
    ("first", "step", "where"),
    list(itertools.product((True, False), (1, 3), ("forward", "backward"))),
)
def test_a_lack_of_memory_anywhere_in_one_process_is_repeated_by_all(facts, first, step, where):
    failing = 0 if first else len(facts) - 1
    for rank, fact in enumerate(facts):
        halvings, difference, calls = fact[f"{first} {step} {where}"]
        assert halvings == [[2, 1]]
        assert difference < 1e-12
        # The one that failed stopped there; the others came through, and all began anew.
        assert calls == (step if rank == failing else EACH // 2) + EACH
