import copy
import math
import subprocess
import sys

import pytest
import torch

from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.optim import NSHB, QHM, SHB

F64 = torch.float64
OPTIMIZERS = [SHB, NSHB, QHM]
NUMBERS = {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.02}


def parameters(dtype=F64):
    generator = torch.Generator().manual_seed(1)
    shapes = [(4, 3), (3,), (), (2, 2, 2)]
    return [torch.nn.Parameter(torch.randn(s, dtype=dtype, generator=generator)) for s in shapes]


def loss_of(params):
    return sum((p.tanh() * (i + 1)).square().sum() + p.sin().sum() for i, p in enumerate(params))


def train(optimizer, params, steps):
    path = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()
        path.append([p.detach().clone() for p in params])
    return path


def distance(a, b):
    pairs = [pair for x, y in zip(a, b, strict=True) for pair in zip(x, y, strict=True)]
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


def run(kind, steps=100, **numbers):
    params = parameters()
    return train(kind(params, **{**NUMBERS, **numbers}), params, steps)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_in_place_form_equals_the_pure_one_over_100_steps(kind):
    assert distance(run(kind, foreach=True), run(kind, foreach=False)) < 1e-12


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_comparison_of_forms_tells_a_planted_bug(kind):
    class Wrong(kind):
        @staticmethod
        def _step_in_place(params, grads, velocity, group):
            kind._step_in_place(params, grads, velocity, {**group, "weight_decay": 0.0})

    assert distance(run(Wrong, foreach=True), run(kind, foreach=False)) > 1e-6


def test_shb_equals_torch_sgd_with_momentum():
    params = parameters()
    expected = train(torch.optim.SGD(params, **NUMBERS), params, 100)
    assert distance(run(SHB), expected) < 1e-12


def test_nshb_equals_torch_sgd_at_rate_times_one_minus_momentum():
    params = parameters()
    numbers = {**NUMBERS, "lr": NUMBERS["lr"] * (1 - NUMBERS["momentum"])}
    expected = train(torch.optim.SGD(params, **numbers), params, 100)
    assert distance(run(NSHB), expected) < 1e-12


@pytest.mark.parametrize(("nu", "momentum"), [(0.0, 0.8), (1.0, 0.0)])
def test_qhm_without_its_momentum_is_sgd(nu, momentum):
    params = parameters()
    expected = train(torch.optim.SGD(params, 0.05, weight_decay=0.02), params, 50)
    assert distance(run(QHM, 50, nu=nu, momentum=momentum), expected) < 1e-12


def test_qhm_with_nu_one_is_nshb():
    assert distance(run(QHM, nu=1.0), run(NSHB)) < 1e-13


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_saved_and_loaded_optimizer_goes_on_bit_for_bit(kind, foreach, tmp_path):
    params = parameters()
    optimizer = kind(params, **NUMBERS, foreach=foreach)
    train(optimizer, params, 7)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    others = copy.deepcopy(params)
    resumed = kind(others, lr=1.0)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert distance(train(optimizer, params, 5), train(resumed, others, 5)) == 0.0


@pytest.mark.parametrize("foreach", [True, False])
def test_groups_keep_their_own_numbers(foreach):
    params = parameters()
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.01, "momentum": 0.5}]
    found = train(SHB(groups, **NUMBERS, foreach=foreach), params, 20)
    params = parameters()
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.01, "momentum": 0.5}]
    assert distance(found, train(torch.optim.SGD(groups, **NUMBERS), params, 20)) < 1e-13


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_closure_is_called_once_with_gradients(kind):
    params, calls = parameters(), []
    optimizer = kind(params, lr=0.01)

    def closure():
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = loss_of(params)
        loss.backward()
        return loss

    before = float(loss_of(params).detach())
    assert float(optimizer.step(closure).detach()) == before
    assert calls == [True]
    assert float(loss_of(params).detach()) < before


@pytest.mark.parametrize("foreach", [True, False])
def test_parameter_without_gradient_stays_and_gets_no_state(foreach):
    used, unused = parameters()[:2]
    kept = unused.detach().clone()
    optimizer = SHB([used, unused], lr=0.1, weight_decay=0.1, foreach=foreach)
    used.grad = torch.ones_like(used)
    optimizer.step()
    assert torch.equal(unused, kept)
    assert unused not in optimizer.state


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("foreach", [True, False])
def test_step_leaves_the_gradients_as_they_are(kind, foreach):
    params = parameters()
    optimizer = kind(params, **NUMBERS, foreach=foreach)
    loss_of(params).backward()
    before = [p.grad.clone() for p in params]
    optimizer.step()
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("foreach", [True, False])
def test_step_keeps_every_precision(kind, foreach):
    params = parameters(torch.bfloat16)[:2] + parameters(torch.float32)[2:]
    train(kind(params, **NUMBERS, foreach=foreach), params, 3)
    assert [p.dtype for p in params] == 2 * [torch.bfloat16] + 2 * [torch.float32]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_learning_rate_scheduler_works(kind):
    params = parameters()
    optimizer = kind(params, **NUMBERS)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    train(optimizer, params, 1)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] != NUMBERS["lr"]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_sparse_gradients_are_refused_before_anything_changes(kind):
    table = torch.nn.Embedding(5, 2, sparse=True)
    dense = torch.nn.Parameter(torch.ones(2))
    optimizer = kind([dense, *table.parameters()], lr=0.1)
    (table(torch.tensor([1])) * dense).sum().backward()
    name = kind.__name__
    with pytest.raises(InvalidTypeError, match=f"`{name}'s gradients` must be dense; got"):
        optimizer.step()
    assert torch.equal(dense, torch.ones(2))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"lr": -0.1}, "`lr` must be a finite number, 0 or more; got -0.1"),
        ({"lr": math.nan}, "`lr` must be a finite number"),
        ({"lr": math.inf}, "`lr` must be a finite number"),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\); got 1.0"),
        ({"weight_decay": -1.0}, "`weight_decay` must be a finite number, 0 or more"),
    ],
)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_impossible_numbers_are_refused(kind, numbers, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        kind(parameters(), **{**NUMBERS, **numbers})
    with pytest.raises(InvalidValueError, match=sentence):
        kind([{"params": parameters(), **numbers}], **NUMBERS)


@pytest.mark.parametrize("nu", [-0.1, 1.1])
def test_nu_outside_its_range_is_refused(nu):
    with pytest.raises(InvalidValueError, match=r"`nu` must be in \[0, 1\]"):
        QHM(parameters(), lr=0.1, nu=nu)


@pytest.mark.parametrize("module", ["batchlab.optim", "batchlab.data"])
def test_import_loads_nothing_of_the_advise_extra(module):
    heavy = ["polars", "altair", "sklearn", "jinja2", "scipy", "vl_convert", "loky"]
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
