"""Runs with a feature strength γ: the engine trains (f − its start)/γ, in every way it trains."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine import Engine, compiled, stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.loop import Alone
from batchlab.engine.stacked import train_stacked
from batchlab.engine.step import rule_of
from batchlab.errors import InvalidValueError, UserError
from batchlab.rules import Scales
from batchlab.samplers import Stream
from batchlab.types import Status
from tests.engine import tiny

SMOOTH = 1e-10
GAMMAS = (0.5, 1.0, 4.0)
slow = pytest.mark.slow


def norm_and_dropout():
    return nn.Sequential(
        nn.Linear(tiny.INPUTS, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 2)
    )


def several(**changes):
    return [tiny.run(gamma=gamma, seed=i, **changes) for i, gamma in enumerate(GAMMAS)]


def plain(config, factor=1.0):
    """The loss after training by hand: a frozen copy, a difference, a division, torch's SGD."""
    prepared = tiny.ready()
    with _random.seeded(config.seed, "init"):
        model = tiny.mlp().double()
    start = copy.deepcopy(model)

    def output(inputs):
        return (model(inputs) - start(inputs).detach()) / (factor * config.gamma)

    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=config.momentum
    )
    stream = Stream(prepared.examples, config.seed)
    for first in range(0, config.samples, config.batch_size):
        inputs, target = prepared.train.batch(stream.take(first, config.batch_size)[0])
        optimizer.zero_grad()
        tiny.cross(output(inputs), (inputs, target)).mean().backward()
        optimizer.step()
    inputs, target = prepared.validation.batch(torch.arange(32))
    return float(tiny.cross(output(inputs), (inputs, target)).mean().detach())


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_the_engine_equals_a_loop_written_by_hand(executor):
    trace, _ = tiny.trained(tiny.ready(), several(), executor)
    for run in trace.runs:
        assert run.final("loss") == pytest.approx(plain(run.config), rel=1e-9)
        assert run.final("loss") != pytest.approx(plain(run.config, factor=1.01), rel=1e-4)


@pytest.mark.parametrize("model", [tiny.batch_norm, norm_and_dropout])
def test_runs_of_different_gamma_share_a_stack_and_equal_the_loop(model):
    prepared = tiny.ready(model, metric="accuracy")
    with Engine(prepared, None, 0, "stacked") as engine:
        assert len(engine.plan(several(), tiny.job())) == 1
    one, other = (tiny.trained(prepared, several(), e)[0] for e in ("loop", "stacked"))
    assert tiny.apart(one, other) <= SMOOTH


@pytest.mark.parametrize("model", [tiny.mlp, pytest.param(norm_and_dropout, marks=slow)])
def test_a_compiled_stack_gives_what_the_eager_one_gives(model, monkeypatch):
    whole = compiled.compile_block
    monkeypatch.setattr(
        stacked, "compile_block", lambda *given: whole(*given, backend="aot_eager")
    )
    prepared, configs, asked = tiny.ready(model), several(samples=160), tiny.job(160)
    capability = probe_capability(prepared, configs[0])
    plain = train_stacked(prepared, configs, asked, capability)
    fast = train_stacked(prepared, configs, asked, capability, slots=4, unit=1)
    for (a, _), (b, _) in zip(plain, fast, strict=True):
        assert abs(tiny.numbers(a) - tiny.numbers(b)).max() < SMOOTH


@slow
def test_workers_train_the_same_runs():
    prepared, configs = tiny.ready(), several(samples=160)
    here, _ = tiny.trained(prepared, configs, "loop", tiny.job(160))
    with Engine(prepared, None, 2, "loop") as engine:
        there, _ = engine.train(configs, tiny.job(160))
    assert tiny.facts(here) == tiny.facts(there)


def test_a_run_without_gamma_shares_no_stack_with_one_that_has_it():
    with Engine(tiny.ready(), None, 0, "stacked") as engine:
        assert len(engine.plan([tiny.run(), tiny.run(gamma=1.0)], tiny.job())) == 2


@pytest.mark.parametrize("model", [tiny.mlp, norm_and_dropout])
def test_evaluation_uses_centred_outputs(model):
    trace, _ = tiny.trained(tiny.ready(model), several(), "loop")
    for run in trace.runs:
        assert run.series["loss"].values[0] == pytest.approx(math.log(2), abs=1e-15)
        assert run.status is Status.OK


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_going_on_from_a_state_equals_never_having_stopped(executor):
    prepared = tiny.ready(norm_and_dropout)
    whole, _ = tiny.trained(prepared, several(), executor)
    half = tiny.job(400, until=200)
    _, states = tiny.trained(prepared, several(), executor, half)
    rest, _ = tiny.trained(prepared, several(), executor, starts=states)
    for a, b in zip(whole.runs, rest.runs, strict=True):
        assert a.final("loss") == pytest.approx(b.final("loss"), rel=1e-12)


def test_a_checkpoint_of_a_run_restores_copy_and_gamma(tmp_path):
    prepared, config, asked = tiny.ready(norm_and_dropout), several()[2], tiny.job()
    with Engine(prepared, None, 0) as engine:
        capability = engine.capability(config)
    first = Alone(prepared, config, asked, capability, None)
    for sample, size in first.plan[:20]:
        first.update(sample, size)
    keeper = Checkpoint(tmp_path, 0.0)
    keeper.save(*first.saved())
    again = Alone(prepared, config, asked, capability, None)
    again.restore(*keeper.load())
    for run in (first, again):
        run.update(*run.plan[20])
    for name, leaf in tiny.leaves(first.state()).items():
        assert torch.equal(leaf, tiny.leaves(again.state())[name]), name


def test_a_finished_cell_is_read_back(tmp_path):
    prepared, configs = tiny.ready(), several()
    with Engine(prepared, tmp_path, 0, "stacked") as engine:
        one, states = engine.train(configs, tiny.job())
    with Engine(prepared, tmp_path, 0, "stacked") as engine:
        other, others = engine.train(configs, tiny.job())
        assert engine.reused == 1
    assert tiny.facts(one) == tiny.facts(other)
    assert float(others[2].progress.buffers["module.gamma"]) == GAMMAS[2]
    assert float(states[2].progress.buffers["module.gamma"]) == GAMMAS[2]


def test_groups_reach_the_wrapped_model():
    task = tiny.task(groups={"0.weight": Scales(learning_rate=0.0)})
    prepared = tiny.ready(groups=task.groups)
    _, (state,) = tiny.trained(prepared, [tiny.run(gamma=2.0)], "loop")
    own = tiny.leaves(state)
    assert torch.equal(own["module.model.0.weight"], own["module.start.0.weight"])
    assert not torch.equal(own["module.model.2.weight"], own["module.start.2.weight"])
    assert "module.model.0.weight" in rule_of(tiny.run(gamma=2.0), task).groups


def test_a_recipe_with_gamma_says_so_and_refuses_what_cannot_be_centred():
    prepared = tiny.ready(baseline=RunConfig(gamma=2.0))
    assert "the model is trained as (f − its start)/γ with γ = 2" in prepared.assumptions

    class Pair(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs), inputs

    def loss(outputs, batch):
        return tiny.cross(outputs[0], batch)

    assert tiny.ready(lambda: Pair(tiny.INPUTS, 2), loss=loss).baseline.gamma is None
    with pytest.raises(UserError, match="returns a tensor or `logits`"):
        tiny.ready(lambda: Pair(tiny.INPUTS, 2), loss=loss, baseline=RunConfig(gamma=2.0))


def test_the_name_of_a_run_without_gamma_is_what_it_was():
    assert RunConfig(seed=1).fingerprint() == "d91f2e04d56d"
    names = {RunConfig(gamma=gamma).fingerprint() for gamma in (None, *GAMMAS)}
    assert len(names) == 4


@pytest.mark.parametrize("gamma", [0.0, -1.0, np.inf, np.nan, True])
def test_an_impossible_gamma_is_refused(gamma):
    with pytest.raises(InvalidValueError, match="`gamma` must be a finite number above 0"):
        RunConfig(gamma=gamma)
