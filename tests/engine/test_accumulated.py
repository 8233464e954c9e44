"""Batches that are accumulated over micro-batches train as whole ones do."""

import pytest
import torch
from torch import nn

from batchlab.config import RunConfig
from batchlab.engine import Engine
from batchlab.engine.memory import predict
from batchlab.errors import InvalidValueError
from tests.engine import tiny


def ends(configs, model=tiny.mlp, executor="loop", **task):
    _, states = tiny.trained(tiny.ready(model, **task), configs, executor)
    return [tiny.leaves(state) for state in states]


def far(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("rule", ["sgd", "shb", "qhm", "adam"])
@pytest.mark.parametrize("micro", [1, 3, 8])
def test_micro_batches_give_the_gradient_of_the_whole(rule, micro):
    asked = {"rule": rule, "batch_size": "0:4 200:16", "clip_norm": 0.5}
    whole, parts = ends([tiny.run(**asked), tiny.run(**asked, micro_batch_size=micro)])
    assert far(whole, parts) < 1e-12


def weight(batch):
    """Of many examples 0, so that whole micro-batches count for nothing."""
    return (batch[0][:, 0] > 0).double() * (1 + batch[1])


def test_weights_decide_what_a_micro_batch_counts_for():
    asked = {"batch_size": 16}
    whole, parts = ends([tiny.run(**asked), tiny.run(**asked, micro_batch_size=1)], weight=weight)
    assert far(whole, parts) < 1e-12


def rare(batch):
    """Of most batches of 4 nothing counts."""
    return (batch[0][:, 0] < -1.2).double()


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_batch_in_which_nothing_counts_has_no_gradient_whole_or_accumulated(executor):
    configs = [tiny.run(batch_size=4, seed=seed) for seed in range(2)]
    parts = [config.replace(micro_batch_size=2) for config in configs]
    whole, cut = ends(configs, executor=executor, weight=rare), ends(parts, weight=rare)
    for one, other in zip(whole, cut, strict=True):
        assert all(value.isfinite().all() for value in one.values())
        assert far(one, other) < 1e-12


def test_a_mean_of_means_would_be_another_training(monkeypatch):
    plain = torch.tensor(1.0, dtype=torch.float64)
    monkeypatch.setattr("batchlab.engine.step.total_weight", lambda task, batch: plain)
    asked = {"batch_size": 16}
    whole, parts = ends([tiny.run(**asked), tiny.run(**asked, micro_batch_size=3)])
    assert far(whole, parts) > 1e-4


def test_a_limit_above_the_batch_changes_nothing():
    whole, parts = ends([tiny.run(), tiny.run(micro_batch_size=8)])
    assert far(whole, parts) == 0.0


def test_batch_norm_sees_micro_batches():
    asked = {"batch_size": 16}
    model = tiny.batch_norm
    whole, parts = ends([tiny.run(**asked), tiny.run(**asked, micro_batch_size=4)], model)
    assert far(whole, parts) > 1e-4


class Masks(nn.Module):
    """Tells which of its units dropout has left in each batch of 4 that it trains on."""

    def __init__(self, seen):
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(5, 64), nn.Dropout(0.5), nn.Linear(64, 2)
        self.tell = seen.append

    def forward(self, inputs):
        kept = self.drop(torch.ones(len(inputs), 64, dtype=inputs.dtype))
        if self.training and len(inputs) == 4:
            self.tell(kept.detach() != 0)
        return self.last(self.first(inputs) * kept)


def test_every_micro_batch_draws_its_own_dropout():
    seen = []
    ends([tiny.run(batch_size=8, samples=8, micro_batch_size=4)], lambda: Masks(seen))
    first, second = seen[-2:]
    assert 0.3 < float((first != second).double().mean()) < 0.7


def test_accumulating_runs_go_one_by_one_and_say_why():
    configs = [tiny.run(batch_size=16, micro_batch_size=4, seed=seed) for seed in range(4)]
    with Engine(tiny.ready(), workers=0, executor="stacked") as engine:
        cells = engine.plan(configs, tiny.job())
    assert [cell.choice.executor for cell in cells] == ["loop"] * 4
    assert "accumulated over micro-batches" in cells[0].choice.reason


def test_a_smaller_micro_batch_holds_less_memory():
    prepared = tiny.ready(lambda: nn.Sequential(nn.Linear(5, 4000), nn.Linear(4000, 2)))
    configs = [tiny.run(batch_size=64, micro_batch_size=micro) for micro in (None, 4)]
    with Engine(prepared, workers=0) as engine:
        whole, parts = (
            predict(prepared, [config], engine.capability(config), "loop").each
            for config in configs
        )
    assert parts < 0.6 * whole


@pytest.mark.parametrize("wrong", [0, -1, True])
def test_an_impossible_micro_batch_is_refused(wrong):
    with pytest.raises(InvalidValueError, match="`micro_batch_size` must be a whole number, 1"):
        RunConfig(micro_batch_size=wrong)
