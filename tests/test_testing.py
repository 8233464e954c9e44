"""The contract checks hold for everything in the package, and each tells a planted bug."""

import dataclasses

import pytest
import torch

from batchlab import _tree as tree
from batchlab.data import GrowingBatchSampler
from batchlab.rules import RULES, Scales, Velocity, grouped
from batchlab.samplers import Stream
from batchlab.schedules import SHAPES, BatchSchedule, RateSchedule, batch_schedule, rate_schedule
from batchlab.testing import check_batch_sampler, check_rule, check_sampler, check_schedule

# Rules


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_keeps_the_contract(rule):
    check_rule(rule)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_keeps_the_contract_with_groups(rule):
    scales = {"w": Scales(0.5, 2.0), "b": Scales(weight_decay=0.0)}
    check_rule(grouped(rule, scales))


def heavy_ball(step=None, after=None, **fields):
    """SHB with its step, its velocity or its description replaced; untouched, it passes."""
    shb = RULES["shb"]

    def update(grads, state, params, numbers):
        delta, new = shb.update(grads, state, params, numbers)
        delta = step(delta, grads, numbers) if step else delta
        return delta, after(new, grads) if after else new

    return dataclasses.replace(shb, update=update, **fields)


def overwriting():
    def update(grads, state, params, numbers):
        for g in grads.values():
            g.mul_(2)
        return RULES["sgd"].update(grads, state, params, numbers)

    return dataclasses.replace(RULES["sgd"], update=update)


def remembering():
    """Keeps a count outside of the state."""
    calls = []

    def step(delta, grads, numbers):
        calls.append(1)
        return tree.scale(1.0 + len(calls), delta)

    return heavy_ball(step)


def of_a_python_number():
    def step(delta, grads, numbers):
        return tree.scale(1.0 + 0.0 * numbers.nu.item(), delta)

    return heavy_ball(step)


def mixing_runs():
    """Right for one run; wrong where the number has no run axis of its own."""

    def init(params):
        first = next(iter(params.values()))
        seen = Velocity(tree.zeros_like(params))
        return seen if not torch._C._functorch.is_batchedtensor(first) else shifted(seen)

    def shifted(state):
        return Velocity(tree.map(lambda v: v + 0.1, state.velocity))

    return dataclasses.replace(RULES["shb"], init=init)


def without_decay():
    def update(grads, state, params, numbers):
        doubled = tree.axpy(-2.0 * numbers.weight_decay, params, grads)
        return RULES["shb"].update(doubled, state, params, numbers)

    return dataclasses.replace(RULES["shb"], update=update)


WRONG_RULES = {
    "does not lower a quadratic": heavy_ball(lambda d, g, n: tree.scale(-1.0, d)),
    "moves at learning rate 0": heavy_ball(lambda d, g, n: tree.axpy(-1e-3, g, d)),
    "returns a step of another form": heavy_ball(lambda d, g, n: tree.map(torch.Tensor.float, d)),
    "changes the form of its state": heavy_ball(after=lambda s, g: Velocity({})),
    "overwrites what it is given": overwriting(),
    "gives another step for the same input": remembering(),
    "uses momentum and does not name it": heavy_ball(
        uses=frozenset({"learning_rate", "weight_decay"})
    ),
    "names nu and does not use it": heavy_ball(uses=RULES["shb"].uses | {"nu"}),
    "names a number that does not exist": heavy_ball(uses=frozenset({"rate"})),
    "does not shrink the parameters": without_decay(),
    "cannot be mapped over runs": of_a_python_number(),
    "gives other steps for runs together": mixing_runs(),
    "is not linear in the gradients": dataclasses.replace(RULES["adam"], sgd_family=True),
}


def test_the_rule_that_planted_bugs_start_from_is_right():
    check_rule(heavy_ball())


@pytest.mark.parametrize(("breach", "rule"), WRONG_RULES.items(), ids=WRONG_RULES)
def test_planted_rule_is_told(breach, rule):
    with pytest.raises(AssertionError, match=f"Rule {rule.name} .*{breach}"):
        check_rule(rule)


# Schedules


@pytest.mark.parametrize(
    "text",
    ["1", "32", "0:8 20ep:16 40ep:32", "0:8 10upd:16 1.5ep:3", "0:7 1k:5 1.2k:900", "0:4 10:4"],
)
def test_every_kind_of_batch_schedule_keeps_the_contract(text):
    check_schedule(batch_schedule(text))


@pytest.mark.parametrize("warmup", [0.0, 0.1])
@pytest.mark.parametrize("text", [*SHAPES, "cosine(0.1)", "0:1 50%:0.1 75%:0.01"])
def test_every_rate_schedule_keeps_the_contract(text, warmup):
    check_schedule(rate_schedule(text, warmup=warmup))


class Resolved(BatchSchedule):
    """A batch schedule that stays of its own kind, for bugs to be planted in."""

    def resolve(self, examples):
        return type(self)(super().resolve(examples).steps)

    def __eq__(self, other):
        return self.steps == other.steps

    __hash__ = BatchSchedule.__hash__


class Gap(Resolved):
    def updates(self, start, budget):
        return ((first + (first > 0), size) for first, size in super().updates(start, budget))


class Late(Resolved):
    def at(self, samples):
        return super().at(max(0, samples - 1))


class Greedy(Resolved):
    def updates(self, start, budget):
        return super().updates(start, budget + max(self.sizes))


class Restarting(Resolved):
    def updates(self, start, budget):
        return super().updates(0, budget)


class Miscounting(Resolved):
    def count(self, start, budget):
        return self.progress(start, budget).updates


class Mute(Resolved):
    def __str__(self):
        return str(self.steps[0].size)


WRONG_SCHEDULES = {
    "leaves gaps": Gap,
    "uses a size that is not in force": Late,
    "trains .* samples": Greedy,
    "gives other batches when asked from the middle": Restarting,
    "counts its batches wrongly": Miscounting,
    "does not read back": Mute,
}


def test_the_schedule_that_planted_bugs_start_from_is_right():
    check_schedule(Resolved(batch_schedule("0:8 16:3").steps))


@pytest.mark.parametrize(("breach", "kind"), WRONG_SCHEDULES.items(), ids=WRONG_SCHEDULES)
def test_planted_batch_schedule_is_told(breach, kind):
    with pytest.raises(AssertionError, match=breach):
        check_schedule(kind(batch_schedule("0:8 16:3").steps))


class Negative(RateSchedule):
    def __call__(self, fraction):
        return super().__call__(fraction) - 0.5

    def __eq__(self, other):
        return str(self) == str(other)

    __hash__ = RateSchedule.__hash__


class Hot(Negative):
    def __call__(self, fraction):
        return 1.0


@pytest.mark.parametrize(
    ("breach", "kind"), [("gives -0.5 at 0 %", Negative), ("does not begin its warm-up", Hot)]
)
def test_planted_rate_schedule_is_told(breach, kind):
    with pytest.raises(AssertionError, match=breach):
        check_schedule(kind(rate_schedule("cosine").body, warmup=0.1))


# Samplers


@pytest.mark.parametrize("examples", [1, 2, 7, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_stream_keeps_the_contract(examples, seed):
    check_sampler(Stream(examples, seed))


class WithReplacement(Stream):
    def take(self, start, count):
        _, passes = super().take(start, count)
        return (torch.arange(start, start + count) * 3 // 2) % self.examples, passes


class GlobalRandom(Stream):
    def take(self, start, count):
        torch.rand(1)
        return super().take(start, count)


class NewOrder(Stream):
    """Cuts the stream at every call instead of running on."""

    def take(self, start, count):
        return super().take(start - start % 2, count)[0], super().take(start, count)[1]


class PassLate(Stream):
    def take(self, start, count):
        indices, passes = super().take(start, count)
        return indices, passes + 1


class Short(Stream):
    def take(self, start, count):
        return super().take(start, count - 1)


WRONG_STREAMS = {
    "does not show every example once": WithReplacement,
    "moves torch's global generator": GlobalRandom,
    "shows another order in pieces of 1": NewOrder,
    "does not count the passes": PassLate,
    "gives another number than asked for": Short,
}


@pytest.mark.parametrize(("breach", "kind"), WRONG_STREAMS.items(), ids=WRONG_STREAMS)
def test_planted_sampler_is_told(breach, kind):
    with pytest.raises(AssertionError, match=breach):
        check_sampler(kind(7, 0))


@pytest.mark.parametrize("last", ["run-on", "short", "drop"])
@pytest.mark.parametrize("batch_size", [1, 4, 10, "0:2 1ep:3 2ep:5"])
def test_batch_sampler_keeps_the_contract(last, batch_size):
    check_batch_sampler(lambda: GrowingBatchSampler(10, batch_size, 0, last))


class Rewinding(GrowingBatchSampler):
    def set_epoch(self, epoch):
        self._begin(epoch, self._first_of(epoch))


class CountingLeft(GrowingBatchSampler):
    def __len__(self):
        return self.stream.examples // self.batch_size


class Deaf(GrowingBatchSampler):
    def set_epoch(self, epoch):
        return None


WRONG_BATCH_SAMPLERS = {
    "does not go on after batch 1 when resumed": Rewinding,
    "announces 2 batches for 3": CountingLeft,
    "reaches another epoch 1 by set_epoch": Deaf,
}


@pytest.mark.parametrize(
    ("breach", "kind"), WRONG_BATCH_SAMPLERS.items(), ids=WRONG_BATCH_SAMPLERS
)
def test_planted_batch_sampler_is_told(breach, kind):
    with pytest.raises(AssertionError, match=breach):
        check_batch_sampler(lambda: kind(10, 4))
