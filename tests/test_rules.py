import math

import pytest
import pytorch_optimizer
import torch

from batchlab import _tree as tree
from batchlab.errors import InvalidValueError
from batchlab.rules import RULES, Numbers, Scales, is_sgd_family
from tests import reference

VALUES = {
    "learning_rate": 0.03,
    "momentum": 0.8,
    "weight_decay": 0.05,
    "nu": 0.6,
    "beta2": 0.95,
    "eps": 1e-3,
}
F64 = torch.float64
STEPS = 100


def start():
    """Two parameters and an ill-conditioned objective with a nonlinear gradient."""
    generator = torch.Generator().manual_seed(0)
    return {
        "w": torch.randn(4, 3, dtype=F64, generator=generator),
        "b": torch.randn(3, dtype=F64, generator=generator),
    }


def gradient(params, step):
    """Differs with the parameter, the step and the entry; never zero for long."""
    return {
        name: torch.tanh(value * (1 + torch.arange(value.numel()).view_as(value)))
        + math.cos(step) * value.detach().sin()
        for name, value in params.items()
    }


def run(rule, steps=STEPS, **changes):
    """Parameters after every update."""
    params, numbers = start(), Numbers.of(**{**VALUES, **changes}, dtype=F64)
    state, path = RULES[rule].init(params), []
    for step in range(steps):
        delta, state = RULES[rule].update(gradient(params, step), state, params, numbers)
        params = tree.add(params, delta)
        path.append(params)
    return path


def run_outside(make, steps=STEPS):
    """The same with an optimizer from elsewhere."""
    params = {name: torch.nn.Parameter(value) for name, value in start().items()}
    optimizer, path = make(list(params.values())), []
    for step in range(steps):
        for name, g in gradient({n: p.detach() for n, p in params.items()}, step).items():
            params[name].grad = g
        optimizer.step()
        path.append({name: p.detach().clone() for name, p in params.items()})
    return path


def distance(a, b):
    return max(
        float((x[name] - y[name]).abs().max()) for x, y in zip(a, b, strict=True) for name in x
    )


# Outside references

lr, momentum, decay = (VALUES[name] for name in ("learning_rate", "momentum", "weight_decay"))
nu, beta2, eps = (VALUES[name] for name in ("nu", "beta2", "eps"))
OUTSIDE = {
    "sgd": lambda p: torch.optim.SGD(p, lr, weight_decay=decay),
    "shb": lambda p: torch.optim.SGD(p, lr, momentum=momentum, weight_decay=decay),
    "nshb": lambda p: torch.optim.SGD(
        p, lr * (1 - momentum), momentum=momentum, weight_decay=decay
    ),
    "qhm": lambda p: pytorch_optimizer.QHM(p, lr, momentum=momentum, nu=nu, weight_decay=decay),
    "nesterov": lambda p: torch.optim.SGD(
        p, lr, momentum=momentum, weight_decay=decay, nesterov=True
    ),
    "adam": lambda p: torch.optim.Adam(
        p, lr, betas=(momentum, beta2), eps=eps, weight_decay=decay
    ),
    "adamw": lambda p: torch.optim.AdamW(
        p, lr, betas=(momentum, beta2), eps=eps, weight_decay=decay
    ),
    "rmsprop": lambda p: torch.optim.RMSprop(
        p, lr, alpha=beta2, momentum=momentum, eps=eps, weight_decay=decay
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule_equals_the_outside_optimizer_over_100_steps(rule):
    assert distance(run(rule), run_outside(OUTSIDE[rule])) < 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_outside_optimizer_tells_a_weight_decay_two_per_cent_off(rule):
    assert distance(run(rule, weight_decay=1.02 * decay), run_outside(OUTSIDE[rule])) > 1e-5


@pytest.mark.parametrize(("rule", "field"), [(r, f) for r in RULES for f in sorted(RULES[r].uses)])
def test_outside_optimizer_tells_every_number_off(rule, field):
    changed = run(rule, **{field: 1.02 * VALUES[field]})
    assert distance(changed, run_outside(OUTSIDE[rule])) > 1e-6


# Naive twins, one number at a time


@pytest.mark.parametrize("rule", RULES)
def test_rule_equals_its_naive_twin(rule):
    gradients = [math.sin(3.0 * t) + 0.2 for t in range(40)]
    used = {name: VALUES[name] for name in RULES[rule].uses}
    expected = reference.follow(getattr(reference, rule), 0.7, gradients, **used)
    params, numbers = {"x": torch.tensor(0.7, dtype=F64)}, Numbers.of(**VALUES, dtype=F64)
    state, found = RULES[rule].init(params), []
    for g in gradients:
        delta, state = RULES[rule].update(
            {"x": torch.tensor(g, dtype=F64)}, state, params, numbers
        )
        params = tree.add(params, delta)
        found.append(float(params["x"]))
    assert found == pytest.approx(expected, abs=1e-13)


# Identities


def test_sgd_on_a_quadratic_shrinks_by_one_minus_rate_times_curvature():
    params, curvature = {"x": torch.tensor([1.0, 1.0], dtype=F64)}, torch.tensor([0.5, 3.0])
    numbers = Numbers.of(learning_rate=0.2, dtype=F64)
    state = RULES["sgd"].init(params)
    for _ in range(10):
        delta, state = RULES["sgd"].update(tree.scale(curvature, params), state, params, numbers)
        params = tree.add(params, delta)
    assert params["x"].tolist() == pytest.approx([0.9**10, 0.4**10], rel=1e-7)


def test_nshb_is_shb_with_rate_times_one_minus_momentum():
    assert distance(run("nshb"), run("shb", learning_rate=(1 - momentum) * lr)) < 1e-14


def test_nshb_is_not_shb_at_the_same_rate():
    assert distance(run("nshb"), run("shb")) > 1e-2


@pytest.mark.parametrize("rule", ["shb", "nshb", "nesterov", "qhm"])
def test_without_momentum_it_is_sgd(rule):
    assert distance(run(rule, momentum=0.0), run("sgd")) < 1e-15


def test_qhm_with_nu_one_is_nshb():
    assert distance(run("qhm", nu=1.0), run("nshb")) < 1e-15


def test_qhm_with_nu_zero_is_sgd():
    assert distance(run("qhm", nu=0.0), run("sgd")) < 1e-15


def test_adam_without_decay_is_adamw_without_decay():
    assert distance(run("adam", weight_decay=0.0), run("adamw", weight_decay=0.0)) == 0.0


def test_first_step_of_adam_is_the_rate_whatever_the_gradient():
    params, numbers = {"x": torch.zeros(3)}, Numbers.of(learning_rate=0.01, momentum=0.9)
    g = {"x": torch.tensor([1e-3, -1.0, 1e3])}
    delta, _ = RULES["adam"].update(g, RULES["adam"].init(params), params, numbers)
    assert delta["x"].tolist() == pytest.approx([-0.01, 0.01, -0.01], rel=1e-4)


# The run axis


@pytest.mark.parametrize("rule", RULES)
def test_runs_together_equal_runs_alone(rule):
    scales = (0.5, 1.0, 1.9)
    alone = [run(rule, steps=5, **{k: v * s * 0.5 for k, v in VALUES.items()}) for s in scales]
    together = run_mapped(rule, scales, steps=5)
    for r, path in enumerate(alone):
        assert distance(path, [tree.pick(params, r) for params in together]) < 1e-14


def run_mapped(rule, scales, steps):
    params = tree.stack([start() for _ in scales])
    numbers = Numbers(
        *(torch.tensor([VALUES[f] * s * 0.5 for s in scales], dtype=F64) for f in Numbers._fields)
    )
    state, path = torch.func.vmap(RULES[rule].init)(params), []
    for step in range(steps):
        grads = torch.func.vmap(gradient, in_dims=(0, None))(params, step)
        delta, state = torch.func.vmap(RULES[rule].update)(grads, state, params, numbers)
        params = tree.add(params, delta)
        path.append(params)
    return path


@pytest.mark.parametrize("precise", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_numbers_of_either_precision_leave_float32_as_it_is(rule, precise):
    params = {"x": torch.ones(2, 3)}
    numbers = Numbers(*(torch.full((2,), 0.5, dtype=precise) for _ in Numbers._fields))
    state = torch.func.vmap(RULES[rule].init)(params)
    delta, _ = torch.func.vmap(RULES[rule].update)(params, state, params, numbers)
    assert delta["x"].dtype == torch.float32


# The table


def test_rules_are_listed_under_their_names():
    assert list(RULES) == ["sgd", "shb", "nshb", "qhm", "nesterov", "adam", "adamw", "rmsprop"]
    assert all(name == rule.name for name, rule in RULES.items())


def test_sgd_family_is_what_is_linear_in_the_gradient():
    family = [name for name in RULES if is_sgd_family(name)]
    assert family == ["sgd", "shb", "nshb", "qhm", "nesterov"]


def test_unknown_rule_is_refused():
    with pytest.raises(InvalidValueError, match=r"`rule` must be one of sgd, shb, .*; got 'sdg'"):
        is_sgd_family("sdg")


@pytest.mark.parametrize("field", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_an_impossible_scale_is_refused(field, value):
    with pytest.raises(InvalidValueError, match=f"`Scales.{field}` must be finite, 0 or more"):
        Scales(**{field: value})
