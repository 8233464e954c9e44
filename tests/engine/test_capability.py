"""Models that cannot be stacked are found while planning, with one line that says why."""

import random
import re

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from batchlab import _random
from batchlab.engine import Engine
from batchlab.engine.capability import Capability, probe_capability
from batchlab.errors import TaskError
from batchlab.rules import RULES
from tests.engine import tiny


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.out = nn.GRU(1, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.out(self.gru(inputs[..., None])[0][:, -1])


class WithItem(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = tiny.mlp()

    def forward(self, inputs):
        outputs = self.layer(inputs)
        return outputs / outputs.abs().max().item()


class Branching(WithItem):
    def forward(self, inputs):
        outputs = self.layer(inputs)
        return outputs if outputs.sum() > 0 else -outputs


def spectral():
    model = tiny.mlp()
    return nn.Sequential(nn.utils.spectral_norm(model[0]), *model[1:])


class Attention(nn.Module):
    """Its dropout lies inside scaled_dot_product_attention, out of reach."""

    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(1, 4), nn.Linear(4, 2)

    def forward(self, inputs):
        v = self.value(inputs[..., None])
        p = 0.5 if self.training else 0.0
        return self.out(functional.scaled_dot_product_attention(v, v, v, dropout_p=p).mean(1))


class Noisy(WithItem):
    def forward(self, inputs):
        return self.layer(inputs + 0.1 * torch.randn_like(inputs))


class SkipsLayers(WithItem):
    """Stochastic depth drawn from Python's own generator."""

    def forward(self, inputs):
        return self.layer(inputs) * (1.0 if random.random() < 0.5 else 0.5)


class Rounding(WithItem):
    """Looks at where it is called from: stacked, it gives something else."""

    def forward(self, inputs):
        stacked = torch._C._functorch.is_batchedtensor(self.layer[0].weight)
        return self.layer(inputs) * (1.01 if stacked else 1.0)


MODELS = {
    Gru: "cannot be stacked",
    WithItem: r"cannot be stacked \(RuntimeError: vmap: It looks like you're calling .item\(\)",
    Branching: "cannot be stacked .*data-dependent control flow",
    spectral: "cannot be stacked",
    Attention: "draws from a global random generator",
    Noisy: "draws from a global random generator",
    SkipsLayers: "draws from a global random generator",
    Rounding: "differ when they are stacked",
}


@pytest.mark.parametrize(("model", "words"), MODELS.items(), ids=[m.__name__ for m in MODELS])
def test_what_cannot_be_stacked_says_why_in_one_line(model, words):
    found = probe_capability(tiny.ready(model), tiny.run())
    assert not found.stackable
    assert found.executor(8) == ("loop", found.reason)
    assert re.search(words, found.reason)
    assert "\n" not in found.reason
    assert len(found.reason) < 240


@pytest.mark.parametrize("model", list(MODELS), ids=lambda model: model.__name__)
def test_what_cannot_be_stacked_trains_reproducibly_and_leaves_no_trace(model):
    prepared, configs = tiny.ready(model), [tiny.run(samples=80, seed=s) for s in (0, 1)]
    with Engine(prepared, None, 0, "stacked") as engine:  # asking does not help
        before = _random.global_state()[1:]
        one, _ = engine.train(configs, tiny.job(80))
        assert _random.global_state()[1:] == before
        torch.rand(3)
        again, _ = engine.train(configs[::-1], tiny.job(80))
    assert {r.executor for r in one.runs} == {"loop"}
    assert tiny.facts(one) == tiny.facts(again)[::-1]


@pytest.mark.parametrize("rule", list(RULES))
def test_every_rule_can_be_stacked(rule):
    assert probe_capability(tiny.ready(), tiny.run(rule=rule, clip_norm=1.0)).reason == ""


@pytest.mark.parametrize("model", [tiny.mlp, tiny.batch_norm, tiny.with_dropout])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_plain_models_can_be_stacked_in_every_precision(model, precision):
    found = probe_capability(tiny.ready(model), tiny.run(rule="adam", precision=precision))
    assert found.reason == ""
    assert found.dropout is (model is tiny.with_dropout)
    assert not found.moves_generator


def test_a_training_step_task_is_stacked():
    def step(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1])

    prepared = tiny.ready(loss=None, training_step=step)
    assert probe_capability(prepared, tiny.run()).reason == ""


def test_a_task_with_a_collate_is_not_stacked():
    x, y = tiny.points()
    prepared = tiny.ready(
        train=list(zip(x, y, strict=True)), collate=torch.utils.data.default_collate
    )
    assert "collate" in probe_capability(prepared, tiny.run()).reason


class Functional(nn.Module):
    """A convolution without a convolution module."""

    def __init__(self):
        super().__init__()
        self.kernel, self.out = nn.Parameter(torch.ones(2, 1, 3)), nn.Linear(2, 2)

    def forward(self, inputs):
        return self.out(functional.conv1d(inputs[:, None], self.kernel).mean(-1))


def test_convolutions_are_found_where_they_happen():
    found = probe_capability(tiny.ready(Functional), tiny.run())
    assert found.convolutions
    assert found.executor(8) == ("loop", "convolutions run faster one by one")
    assert not probe_capability(tiny.ready(), tiny.run()).convolutions


def test_operations_are_three_forward_passes():
    found = probe_capability(tiny.ready(), tiny.run())
    assert found.flop_per_example == 3 * 2 * (tiny.INPUTS * 6 + 6 * 2)


def test_large_steps_go_to_the_loop():
    found = Capability(True, "", False, False, False, 1e6)
    assert found.executor(24)[0] == "stacked"
    assert found.executor(25) == ("loop", "25 MFLOP a step are enough to fill a core")


def test_it_is_tried_once_for_one_kind_of_run(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "batchlab.engine.sweep.probe_capability",
        lambda prepared, config: calls.append(1) or probe_capability(prepared, config),
    )
    engine = Engine(tiny.ready(), None, 0)
    engine.plan([tiny.run(seed=s) for s in range(3)], tiny.job())
    assert len(calls) == 1
    engine.plan([tiny.run(precision="float32")], tiny.job())
    assert len(calls) == 2


class Recomputing(nn.Module):
    """Recomputes its first layer in the backward pass."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(tiny.INPUTS, 6), nn.Linear(6, 2)

    def forward(self, x):
        hidden = checkpoint(lambda v: self.first(v).tanh().square(), x, use_reentrant=False)
        return self.last(hidden)


def test_recomputation_that_would_give_wrong_gradients_is_refused():
    with pytest.raises(TaskError, match=r"other gradients .* gradient checkpointing"):
        probe_capability(tiny.ready(Recomputing), tiny.run())


@pytest.mark.parametrize("model", [tiny.mlp, tiny.batch_norm, tiny.with_dropout, lambda: Rough()])
def test_gradients_of_weights_that_are_passed_in_are_the_modules_own(model):
    probe_capability(tiny.ready(model), tiny.run(precision="float32"))


class Rough(nn.Module):
    """Draws from the global generator, holds a frozen parameter and one that is not used."""

    def __init__(self):
        super().__init__()
        self.layer, self.idle = nn.Linear(tiny.INPUTS, 2), nn.Linear(2, 2)
        self.layer.bias.requires_grad_(False)

    def forward(self, x):
        return self.layer(x) + 0.1 * torch.randn(len(x), 2, dtype=x.dtype)
