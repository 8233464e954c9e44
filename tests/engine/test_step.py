"""One update against formulas, against plain PyTorch, and where models are awkward."""

import math

import pytest
import torch
from torch import nn

from batchlab import _random
from batchlab.engine.step import (
    Program,
    bind,
    make_bound_step,
    make_step,
    numbers_of,
    start_of,
    weighted_sum,
)
from batchlab.optim import IN_PLACE
from batchlab.rules import RULES, Numbers
from tests import reference
from tests.engine import tiny


class Quadratic(nn.Module):
    """Loss ½ h θ² for every example."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))

    def forward(self, inputs):
        curvature = torch.tensor([0.5, 1.0, 2.0], dtype=self.theta.dtype)
        return (0.5 * curvature * self.theta.square()).sum().expand(len(inputs))


def quadratic():
    return tiny.ready(Quadratic, loss=lambda outputs, batch: outputs, metric="loss")


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_quadratic_under_sgd_follows_its_formula(executor):
    configs = [tiny.run(rule="sgd", learning_rate=rate) for rate in (0.1, 0.3)]
    _, states = tiny.trained(quadratic(), configs, executor)
    h, start = torch.tensor([0.5, 1.0, 2.0]).double(), torch.tensor([1.0, -2.0, 3.0]).double()
    for config, state in zip(configs, states, strict=True):
        expected = (1 - config.learning_rate * h) ** 50 * start
        found = state.progress.params["module.theta"]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_shb_without_momentum_is_sgd():
    shb = tiny.trained(tiny.ready(), [tiny.run(rule="shb", momentum=0.0)])[0].runs[0]
    sgd = tiny.trained(tiny.ready(), [tiny.run(rule="sgd")])[0].runs[0]
    assert tiny.numbers(shb).tobytes() == tiny.numbers(sgd).tobytes()


def weights_of(batch):
    return batch[0][:, 0].abs() + 0.5


def plain_training(task, config):
    """The recipe of the next test as anybody would write it; 20 batches of 8, 5 of 16, twice each.

    Warm-up over a fifth of the budget of 240, then a cosine; the rate follows the square root of
    the batch.
    """
    with _random.seeded(config.seed, "init"):
        model = task.model().double()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.8, weight_decay=0.01)
    order = [i for i, _ in reference.stream(tiny.EXAMPLES, config.seed, 240)]
    first = 0
    for size in [8] * 20 + [16] * 5:
        batch = [leaf[order[first : first + size]] for leaf in task.train]
        share = first / 240
        rise = min(1.0, share / 0.2)
        fall = (1 + math.cos(math.pi * max(0.0, share - 0.2) / 0.8)) / 2
        optimizer.param_groups[0]["lr"] = 0.1 * rise * fall * math.sqrt(size / 8)
        for _ in range(2):
            losses, weights = task.loss(model(batch[0]), batch), task.weight(batch)
            optimizer.zero_grad()
            ((weights * losses).sum() / weights.sum()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.3)
            optimizer.step()
        first += size
    return model


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_the_whole_recipe_equals_a_plain_loop(executor):
    task = tiny.task(tiny.batch_norm, weight=weights_of)
    config = tiny.run(
        learning_rate=0.1,
        momentum=0.8,
        weight_decay=0.01,
        clip_norm=0.3,
        lr_schedule="cosine",
        warmup=0.2,
        rate_growth=0.5,
        reuse=2,
        batch_size="0:8 160:16",
        samples=240,
        seed=3,
    )
    trace, (state,) = tiny.trained(
        tiny.ready(tiny.batch_norm, weight=weights_of), [config], executor
    )
    assert trace.runs[0].updates == 50
    expected = plain_training(task, config)
    for name, tensor in expected.state_dict().items():
        found = tiny.leaves(state)[f"module.{name}"]
        torch.testing.assert_close(found, tensor, rtol=1e-10, atol=1e-10)


def test_the_clip_in_the_recipe_bites():
    loose, tight = (
        tiny.trained(tiny.ready(), [tiny.run(clip_norm=clip)])[0] for clip in (1e9, 0.3)
    )
    assert tiny.apart(loose, tight) > 1e-3


class Remembering(nn.Module):
    """Replaces a buffer instead of writing to it, and writes to another."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(tiny.INPUTS, 2)
        self.register_buffer("mean", torch.zeros(tiny.INPUTS))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * inputs.mean(0)
            self.calls += 1
        return self.layer(inputs - self.mean)


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_replaced_buffers_are_kept(executor):
    config = tiny.run(samples=80)
    _, (state,) = tiny.trained(tiny.ready(Remembering), [config], executor)
    inputs, mean = tiny.points()[0], torch.zeros(tiny.INPUTS).double()
    order = [i for i, _ in reference.stream(tiny.EXAMPLES, 0, 80)]
    for first in range(0, 80, 8):
        mean = 0.9 * mean + 0.1 * inputs[order[first : first + 8]].mean(0)
    torch.testing.assert_close(state.progress.buffers["module.mean"], mean)
    assert state.progress.buffers["module.calls"] == 10


def half_frozen():
    model = tiny.mlp()
    model[0].requires_grad_(False)
    return model


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_frozen_parameters_keep_the_values_of_their_seed(executor):
    prepared = tiny.ready(half_frozen)
    configs = [tiny.run(samples=80, seed=seed) for seed in (1, 2)]
    _, states = tiny.trained(prepared, configs, executor)
    for config, state in zip(configs, states, strict=True):
        fresh = prepared.objective(config.seed, torch.float64).module
        assert torch.equal(tiny.leaves(state)["module.0.weight"], fresh[0].weight)
        assert not torch.equal(tiny.leaves(state)["module.2.weight"], fresh[2].weight)


class Tied(nn.Module):
    """The same matrix forward and back, and a parameter without any use."""

    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)
        self.back.weight = self.there.weight
        self.idle = nn.Parameter(torch.ones(2))

    def forward(self, inputs):
        return self.back(torch.tanh(self.there(inputs)))


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_tied_and_idle_parameters_train_as_in_plain_pytorch(executor):
    def loss(outputs, batch):
        return (outputs - batch[0]).square().mean(1)

    config = tiny.run(samples=80, momentum=0.0)
    prepared = tiny.ready(Tied, loss=loss)
    _, (state,) = tiny.trained(prepared, [config], executor)
    model = prepared.objective(0, torch.float64).module
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    order = [i for i, _ in reference.stream(tiny.EXAMPLES, 0, 80)]
    for first in range(0, 80, 8):
        batch = [leaf[order[first : first + 8]] for leaf in tiny.points()]
        optimizer.zero_grad()
        loss(model(batch[0]), batch).mean().backward()
        optimizer.step()
    torch.testing.assert_close(
        tiny.leaves(state)["module.there.weight"], model.there.weight.detach()
    )
    assert torch.equal(tiny.leaves(state)["module.idle"], torch.ones(2).double())


def test_a_step_says_when_a_parameter_is_not_finite_though_the_loss_is():
    prepared = quadratic()
    program = Program(prepared.objective(0), RULES["sgd"], None, False, False)
    start = start_of(program.objective, program.rule)
    batch = tuple(leaf[:4] for leaf in prepared.train.tree)
    for rate, finite in ((0.1, True), (math.inf, False)):
        number = numbers_of(tiny.run(rule="sgd"), start.params["module.theta"])
        number = number._replace(learning_rate=torch.tensor(rate))
        stepped = make_step(program)(start, number, batch, torch.tensor(0))
        assert bool(stepped.loss.isfinite())
        assert bool(stepped.finite) is finite


def test_a_step_changes_nothing_it_was_given():
    prepared = tiny.ready(tiny.batch_norm)
    program = Program(prepared.objective(0).train(), RULES["shb"], None, False, False)
    start = start_of(program.objective, program.rule)
    kept = [leaf.clone() for leaf in (*start.params.values(), *start.buffers.values())]
    batch = tuple(leaf[:4].float() if i == 0 else leaf[:4] for i, leaf in enumerate(tiny.points()))
    number = numbers_of(tiny.run(), start.params["module.0.weight"])
    make_step(program)(start, number, batch, torch.tensor(0))
    after = [*start.params.values(), *start.buffers.values()]
    assert all(map(torch.equal, kept, after))


@pytest.mark.parametrize("count", [256, 301, 4096])
def test_weights_are_summed_exactly_in_bfloat16(count):
    ones = torch.ones(count, dtype=torch.bfloat16)
    total, weight = weighted_sum(ones, ones)
    assert float(total) == float(weight) == count


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_bfloat16_trains_near_float32_with_a_loss_that_stays_in_bfloat16(executor):
    def loss(outputs, batch):
        return (outputs[:, 0] - batch[0].sum(1)).square()

    prepared = tiny.ready(loss=loss)
    both = [
        tiny.trained(prepared, [tiny.run(precision=p, samples=160)], executor)[0].runs[0]
        for p in ("float32", "bfloat16")
    ]
    exact, rough = (r.series["loss"].values for r in both)
    assert exact[-1] < exact[0] / 2
    assert not (exact == rough).all()
    assert abs(rough / exact - 1).max() < 0.05


@pytest.mark.parametrize("rule", list(IN_PLACE))
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_the_update_in_place_is_the_pure_one(rule, clip_norm):
    """100 updates in float64; a sign or factor would part them at once."""
    prepared = tiny.ready()
    objective = prepared.objective(0, torch.float64)
    program = Program(objective, RULES[rule], clip_norm, False, False)
    config = tiny.run(rule=rule, weight_decay=0.01, nu=0.4)
    numbers = numbers_of(config, torch.zeros((), dtype=torch.float64))
    batch = prepared.train.batch(torch.arange(8))
    pure, fast = (start_of(objective, program.rule) for _ in range(2))
    bind(objective, fast)
    steps = make_step(program), make_bound_step(program)
    for t in range(100):
        pure, _, good = steps[0](pure, numbers, batch, torch.tensor(t))
        fast, _, fine = steps[1](fast, numbers, batch, torch.tensor(t))
        assert bool(good)
        assert bool(fine)
    for name, value in pure.params.items():
        torch.testing.assert_close(fast.params[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_update_in_place_notices_what_is_not_finite(bad):
    program = Program(tiny.ready().objective(0), RULES["sgd"], None, False, False)
    numbers = Numbers.of(learning_rate=1.0, dtype=torch.float32)
    params = {"a": torch.ones(3), "b": torch.ones(2)}
    for grad, finite in ((1.0, True), (bad, False)):
        own = {name: value.clone() for name, value in params.items()}
        grads = {"a": torch.ones(3), "b": torch.tensor([0.0, grad])}
        assert bool(program.overwrite(own, grads, (), numbers)[2]) is finite


class Hoarding(nn.Module):
    """Batch norm, a buffer that is replaced by one with a past, a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.inner = tiny.batch_norm()
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        y = self.inner(x) * self.scale
        self.last = 0.9 * self.last.detach() + 0.1 * y.mean()
        return y + 0.01 * self.last.detach()


def test_a_run_bound_to_its_module_is_the_functional_one():
    """Parameters, buffers, a replaced buffer and a frozen parameter after 30 updates."""
    prepared = tiny.ready(model=Hoarding)
    objective = prepared.objective(0, torch.float64).train()
    program = Program(objective, RULES["shb"], None, False, False)
    numbers = numbers_of(tiny.run(rule="shb"), torch.zeros((), dtype=torch.float64))
    batch = prepared.train.batch(torch.arange(8))
    pure, fast = (start_of(objective, program.rule) for _ in range(2))
    step = make_step(program)
    for t in range(30):
        pure, *_ = step(pure, numbers, batch, torch.tensor(t))
    bind(objective, fast)
    step = make_bound_step(program)
    for t in range(30):
        fast, *_ = step(fast, numbers, batch, torch.tensor(t))
    assert set(fast.buffers) == set(pure.buffers)
    for ours, theirs in ((fast.params, pure.params), (fast.buffers, pure.buffers)):
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-12)
    assert not fast.buffers["module.last"].requires_grad
    start = start_of(prepared.objective(0, torch.float64), program.rule)
    assert not torch.equal(start.buffers["module.last"], fast.buffers["module.last"])
