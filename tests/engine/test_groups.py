"""Groups of parameters: the same training as torch.optim's own ``param_groups``."""

import pytest
import torch
from torch import nn

from batchlab import _random
from batchlab.engine import Engine, Job, loop, stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.step import (
    Program,
    bind,
    make_bound_step,
    make_step,
    numbers_of,
    rule_of,
    start_of,
)
from batchlab.optim import IN_PLACE, QHM
from batchlab.rules import RULES, Scales
from tests import reference
from tests.engine import tiny

GROUPS = {
    "0.weight": Scales(learning_rate=0.5, weight_decay=3.0),
    "0.bias": Scales(weight_decay=0.0),
    "2.bias": Scales(weight_decay=0.0),
}
RATE, MOMENTUM, DECAY, NU, BETA2, EPS = 0.02, 0.8, 0.05, 0.6, 0.9, 1e-4
ADAM = {"betas": (MOMENTUM, BETA2), "eps": EPS}
OUTSIDE = {
    "sgd": lambda groups, lr: torch.optim.SGD(groups, lr),
    "shb": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=MOMENTUM),
    "nshb": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=MOMENTUM),
    "qhm": lambda groups, lr: QHM(groups, lr, momentum=MOMENTUM, nu=NU),
    "nesterov": lambda groups, lr: torch.optim.SGD(groups, lr, momentum=MOMENTUM, nesterov=True),
    "adam": lambda groups, lr: torch.optim.Adam(groups, lr, **ADAM),
    "adamw": lambda groups, lr: torch.optim.AdamW(groups, lr, **ADAM),
    "rmsprop": lambda groups, lr: torch.optim.RMSprop(
        groups, lr, alpha=BETA2, momentum=MOMENTUM, eps=EPS
    ),
}


def run(rule, **changes):
    given = {
        "rule": rule,
        "learning_rate": RATE,
        "momentum": 0.0 if rule == "sgd" else MOMENTUM,
        "weight_decay": DECAY,
        "nu": NU,
        "beta2": BETA2,
        "eps": EPS,
    }
    return tiny.run(**(given | changes))


def outside(config):
    """50 updates by an optimizer with groups written out one by one."""
    task = tiny.task()
    with _random.seeded(config.seed, "init"):
        model = task.model().double()
    lr = config.learning_rate * (1 - MOMENTUM if config.rule == "nshb" else 1.0)
    groups = [
        {"params": [model[0].weight], "lr": 0.5 * lr, "weight_decay": 3 * DECAY},
        {"params": [model[0].bias, model[2].bias], "lr": lr, "weight_decay": 0.0},
        {"params": [model[2].weight], "lr": lr, "weight_decay": DECAY},
    ]
    optimizer = OUTSIDE[config.rule](groups, lr)
    order = [i for i, _ in reference.stream(tiny.EXAMPLES, config.seed, config.samples)]
    for first in range(0, config.samples, 8):
        batch = [leaf[order[first : first + 8]] for leaf in task.train]
        optimizer.zero_grad()
        task.loss(model(batch[0]), batch).mean().backward()
        if config.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
    return model


def apart(model, state):
    found = state.progress.params
    return max(
        float((p.detach() - found[f"module.{name}"]).abs().max())
        for name, p in model.named_parameters()
    )


@pytest.mark.parametrize("executor", ["loop", "stacked"])
@pytest.mark.parametrize("clip_norm", [None, 0.3])
@pytest.mark.parametrize("rule", list(RULES))
def test_fifty_updates_equal_those_of_torch_with_parameter_groups(rule, clip_norm, executor):
    configs = [
        run(rule, seed=seed, learning_rate=RATE * (1 + seed), clip_norm=clip_norm)
        for seed in ((0, 1) if executor == "stacked" else (0,))
    ]
    _, states = tiny.trained(tiny.ready(groups=GROUPS), configs, executor)
    for config, state in zip(configs, states, strict=True):
        assert apart(outside(config), state) < 1e-12


@pytest.mark.parametrize("name", list(GROUPS))
def test_a_group_left_out_is_told_apart(name):
    config = run("adamw")
    fewer = {own: scales for own, scales in GROUPS.items() if own != name}
    _, (state,) = tiny.trained(tiny.ready(groups=fewer), [config])
    assert apart(outside(config), state) > 1e-5


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("rule", list(IN_PLACE))
def test_the_update_in_place_is_the_pure_one(rule, clip_norm):
    prepared, config = tiny.ready(groups=GROUPS), run(rule)
    objective = prepared.objective(0, torch.float64)
    own = rule_of(config, prepared.task)
    program = Program(objective, own, clip_norm, False, False)
    numbers = numbers_of(config, torch.zeros((), dtype=torch.float64))
    batch = prepared.train.batch(torch.arange(8))
    pure, fast = (start_of(objective, own) for _ in range(2))
    bind(objective, fast)
    steps = make_step(program), make_bound_step(program)
    for t in range(50):
        pure, *_ = steps[0](pure, numbers, batch, torch.tensor(t))
        fast, *_ = steps[1](fast, numbers, batch, torch.tensor(t))
    for name, value in pure.params.items():
        torch.testing.assert_close(fast.params[name], value, rtol=1e-12, atol=1e-12)


def test_a_rate_of_zero_leaves_a_parameter_as_it_is():
    still = {"0.weight": Scales(learning_rate=0.0)}
    prepared, config = tiny.ready(groups=still), run("adamw")
    _, (state,) = tiny.trained(prepared, [config])
    fresh = prepared.objective(0, torch.float64).module
    assert torch.equal(tiny.leaves(state)["module.0.weight"], fresh[0].weight)
    assert not torch.equal(tiny.leaves(state)["module.0.bias"], fresh[0].bias)


@pytest.mark.parametrize("groups", [{}, {"0.weight": Scales()}])
def test_without_scales_the_rule_is_the_plain_one(groups):
    assert rule_of(run("adamw"), tiny.task(groups=groups)) is RULES["adamw"]


@pytest.mark.parametrize("executor", ["loop", "stacked"])
@pytest.mark.parametrize("rule", ["shb", "adamw"])
def test_going_on_from_a_state_equals_never_having_stopped(rule, executor):
    prepared, config = tiny.ready(groups=GROUPS), run(rule)
    _, (whole,) = tiny.trained(prepared, [config], executor)
    stop = Job(evaluate_at=(), keep_end=True, until=160)
    _, (middle,) = tiny.trained(prepared, [config], executor, stop)
    _, (end,) = tiny.trained(prepared, [config], executor, starts=[middle])
    for name, leaf in tiny.leaves(whole).items():
        torch.testing.assert_close(tiny.leaves(end)[name], leaf, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("executor", ["loop", "stacked"])
@pytest.mark.parametrize("rule", ["shb", "adamw"])
def test_a_killed_cell_goes_on_from_its_checkpoint(tmp_path, monkeypatch, rule, executor):
    class Killed(Exception):
        pass

    monkeypatch.setattr(stacked, "LONGEST_LEG", 3)
    monkeypatch.setattr(loop, "TICK_UPDATES", 3)
    prepared, config = tiny.ready(groups=GROUPS), run(rule)
    capability, job = probe_capability(prepared, config), tiny.job(400)

    def train(folder, tick=None):
        keeper = Checkpoint(folder, seconds=0.0)
        if executor == "loop":
            return loop.train_alone(prepared, config, job, capability, None, tick, keeper)
        found = stacked.train_stacked(
            prepared, [config], job, capability, None, tick, checkpoint=keeper
        )
        return found[0]

    def kill(share):
        if share > 0.3:
            raise Killed

    expected, whole = train(None)
    with pytest.raises(Killed):
        train(tmp_path, kill)
    assert (tmp_path / "checkpoint.npz").exists()
    found, resumed = train(tmp_path)
    assert tiny.series_facts(found) == tiny.series_facts(expected)
    same = zip(tiny.leaves(whole).values(), tiny.leaves(resumed).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)


def test_a_finished_cell_is_read_back_with_its_state(tmp_path):
    prepared, config = tiny.ready(groups=GROUPS), run("adamw")
    found = []
    for _ in range(2):
        with Engine(prepared, tmp_path, 0) as engine:
            _, (state,) = engine.train([config], tiny.job(400))
            found.append((engine.reused, state))
    assert [reused for reused, _ in found] == [0, 1]
    for a, b in zip(*(state.progress.rule_state.states for _, state in found), strict=True):
        assert all(torch.equal(a.first[name], b.first[name]) for name in a.first)


def test_a_cell_of_other_groups_is_not_taken_for_it(tmp_path):
    for groups in ({}, GROUPS, {**GROUPS, "2.bias": Scales()}):
        with Engine(tiny.ready(groups=groups), tmp_path, 0) as engine:
            engine.train([run("shb")], tiny.job(400))
            assert engine.reused == 0


def test_a_task_is_the_same_with_its_groups_in_any_order():
    turned = dict(reversed(GROUPS.items()))
    names = {Engine(tiny.ready(groups=g), None, 0).task_hash for g in (GROUPS, turned)}
    assert len(names) == 1
