import copy
import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler
from torch.utils._python_dispatch import TorchDispatchMode

from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError
from batchlab.optim import NSHB, QHM, SHB, InSamples
from batchlab.schedules import batch_schedule

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


def strided():
    """Transposed, channels last, every second number, and gradients of other strides."""
    draw = torch.Generator().manual_seed(2)
    tensors = [
        torch.randn(3, 4, dtype=F64, generator=draw).t(),
        torch.randn(2, 3, 4, 4, dtype=F64, generator=draw).to(memory_format=torch.channels_last),
        torch.randn(10, dtype=F64, generator=draw)[::2],
        torch.randn(6, dtype=F64, generator=draw),
    ]
    params = [torch.nn.Parameter(t) for t in tensors]
    grads = [torch.randn(p.shape, dtype=F64, generator=draw) for p in params]
    return params, grads


@pytest.mark.parametrize("which", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_forms_are_equal_whatever_the_strides(kind, which):
    ends = []
    for foreach in (True, False):
        params, grads = strided()
        optimizer = kind([params[which]], **NUMBERS, foreach=foreach)
        for _ in range(5):
            params[which].grad = grads[which]
            optimizer.step()
        ends.append([[params[which]]])
    assert distance(*ends) < 1e-14


def test_complex_parameters_are_updated():
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    weight.grad = torch.full((2,), 1j, dtype=torch.complex64)
    NSHB([weight], lr=1.0, momentum=0.5).step()
    assert torch.equal(weight.detach(), torch.full((2,), 1 - 0.5j, dtype=torch.complex64))


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


def test_a_number_of_some_dimension_is_refused():
    with pytest.raises(
        InvalidValueError, match=r"`lr` must be a number, or a tensor of shape \[\]"
    ):
        SHB(parameters(), lr=torch.ones(1))


# Capturable


class Unread(TorchDispatchMode):
    """Fails where a tensor is read by the host, which a captured step must not do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in function.name(), "a step waited for the device"
        return function(*args, **(kwargs or {}))


def one_step(optimizer, params):
    optimizer.zero_grad()
    loss_of(params).backward()
    with Unread():
        optimizer.step()


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_capturable_step_reads_no_number_on_the_host(kind, foreach):
    params = parameters()
    one_step(kind(params, **NUMBERS, foreach=foreach, capturable=True), params)


def test_a_step_that_reads_a_number_is_told():
    params = parameters()
    with pytest.raises(AssertionError, match="waited for the device"):
        one_step(SHB(params, lr=torch.tensor(0.1)), params)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_capturable_form_equals_the_other_over_100_steps(kind, foreach):
    assert distance(run(kind, foreach=foreach, capturable=True), run(kind)) < 1e-12


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_scheduler_writes_into_the_tensors_of_a_capturable_optimizer(kind):
    params = parameters()
    groups = [{"params": params[:2]}, {"params": params[2:]}]
    optimizer = kind(groups, lr=torch.tensor(0.1), capturable=True)
    rates = [group["lr"] for group in optimizer.param_groups]
    lambdas = [lambda step: 0.5**step, lambda step: 1.0]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambdas)
    train(optimizer, params, 1)
    scheduler.step()
    assert all(g["lr"] is r for g, r in zip(optimizer.param_groups, rates, strict=True))
    assert [round(float(rate), 6) for rate in rates] == [0.05, 0.1]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_capturable_optimizer_goes_on_bit_for_bit_after_a_load(kind):
    params = parameters()
    optimizer = kind(params, **NUMBERS, capturable=True)
    train(optimizer, params, 5)
    others = copy.deepcopy(params)
    resumed = kind(others, lr=1.0, capturable=True)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert isinstance(resumed.param_groups[0]["lr"], torch.Tensor)
    assert distance(train(optimizer, params, 5), train(resumed, others, 5)) == 0.0


@pytest.mark.gpu
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_captured_graph_follows_the_learning_rate(kind):
    params = [torch.nn.Parameter(p.detach().cuda()) for p in parameters()]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = kind(params, **NUMBERS, capturable=True)
    optimizer.step()
    eager = [torch.nn.Parameter(p.detach().clone()) for p in params]
    other = kind(eager, **NUMBERS)
    other.load_state_dict(
        {**optimizer.state_dict(), "param_groups": other.state_dict()["param_groups"]}
    )
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()
    for rate in (0.05, 0.5, 0.01):
        optimizer.param_groups[0]["lr"].fill_(rate)
        other.param_groups[0]["lr"] = rate
        graph.replay()
        for p in eager:
            p.grad = torch.ones_like(p)
        other.step()
    assert distance([params], [eager]) < 1e-12


# Schedulers in samples


def chained(optimizer):
    warm = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
    return lr_scheduler.ChainedScheduler([warm, lr_scheduler.ExponentialLR(optimizer, 0.97)])


def sequential(optimizer):
    parts = [
        lr_scheduler.ConstantLR(optimizer, 0.1),
        lr_scheduler.CosineAnnealingLR(optimizer, 30),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, milestones=[7])


SCHEDULERS = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=40),
    "steps": lambda o: lr_scheduler.StepLR(o, 7, 0.5),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.4, total_steps=40),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "function": lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 9),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 40),
    "chained": chained,
    "sequential": sequential,
}
REFERENCE, GROWING = 8, "0:4 60:8 100:16 200:24"


def scheduled(name):
    optimizer = SHB(parameters()[:1], lr=0.2)
    return optimizer, SCHEDULERS[name](optimizer)


def rates(name, updates=40):
    """Learning rate and momentum after k plain steps, k = 0, 1, …"""
    optimizer, scheduler = scheduled(name)
    found = [numbers(optimizer)]
    for _ in range(updates):
        optimizer.step()
        scheduler.step()
        found.append(numbers(optimizer))
    return found


def numbers(optimizer):
    (group,) = optimizer.param_groups
    return group["lr"], group["momentum"]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_at_the_reference_batch_it_is_the_plain_scheduler_bit_for_bit(name):
    optimizer, scheduler = scheduled(name)
    wrapped, found = InSamples(scheduler, REFERENCE), [numbers(optimizer)]
    for _ in range(40):
        optimizer.step()
        wrapped.step(REFERENCE)
        found.append(numbers(optimizer))
        assert wrapped.get_last_lr() == [found[-1][0]]
    assert found == rates(name)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_under_growth_it_is_the_same_function_of_the_samples(name):
    optimizer, scheduler = scheduled(name)
    schedule = batch_schedule(GROWING)
    wrapped, plain = InSamples(scheduler, REFERENCE, schedule), rates(name)
    for place, size in schedule.updates(0, 40 * REFERENCE):
        assert wrapped.samples == place
        assert numbers(optimizer) == plain[place // REFERENCE]
        optimizer.step()
        wrapped.step()
        assert wrapped.samples == place + size
    assert wrapped.samples > 35 * REFERENCE


@pytest.mark.parametrize("name", ["cosine", "steps", "one cycle"])
def test_a_scheduler_counted_in_updates_would_be_another_function(name):
    optimizer, scheduler = scheduled(name)
    updates = list(batch_schedule(GROWING).updates(0, 40 * REFERENCE))
    for _ in updates[:-1]:
        optimizer.step()
        scheduler.step()
    there = rates(name)[updates[-1][0] // REFERENCE][0]
    assert abs(numbers(optimizer)[0] - there) > 1e-3


def test_a_batch_across_the_end_of_one_cycle_stops_there_and_the_next_is_refused():
    optimizer, scheduler = scheduled("one cycle")
    wrapped = InSamples(scheduler, REFERENCE)
    for _ in range(11):
        optimizer.step()
        wrapped.step(30)
    assert wrapped.samples == 330 > 40 * REFERENCE
    assert numbers(optimizer) == rates("one cycle")[-1]
    with pytest.raises(ValueError, match="Tried to step 41 times"):
        wrapped.step(30)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 30))
def test_steps_are_the_whole_ones_in_the_samples(sizes, reference):
    optimizer = SHB(parameters()[:1], lr=1.0)
    counting = lr_scheduler.LambdaLR(optimizer, lambda k: k)
    wrapped = InSamples(counting, reference)
    for k, size in enumerate(sizes):
        optimizer.step()
        wrapped.step(size)
        assert counting.last_epoch == sum(sizes[: k + 1]) // reference


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_saved_scheduler_goes_on_in_another_batch_size(name, tmp_path):
    optimizer, scheduler = scheduled(name)
    wrapped = InSamples(scheduler, REFERENCE)
    for _ in range(11):
        optimizer.step()
        wrapped.step(12)
    state = {"scheduler": wrapped.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "s.pt")
    other, fresh = scheduled(name)
    resumed = InSamples(fresh, REFERENCE)
    state = torch.load(tmp_path / "s.pt", weights_only=False)
    resumed.load_state_dict(state["scheduler"])
    other.load_state_dict(state["optimizer"])
    for _ in range(3):
        other.step()
        resumed.step(20)
    assert resumed.samples == 192
    assert numbers(other) == rates(name)[192 // REFERENCE]


def test_a_scheduler_that_follows_a_metric_is_refused():
    plateau = lr_scheduler.ReduceLROnPlateau(SHB(parameters(), lr=0.1))
    with pytest.raises(
        InvalidTypeError, match="follows the updates, not a metric; got 'ReduceLROn"
    ):
        InSamples(plateau, 8)


def test_samples_are_needed_without_a_schedule():
    _, scheduler = scheduled("cosine")
    with pytest.raises(InvalidValueError, match="It may be left out where `schedule` is given"):
        InSamples(scheduler, 8).step()
    with pytest.raises(
        InvalidValueError, match="`samples` must be the examples of an update; got -1"
    ):
        InSamples(scheduler, 8).step(-1)
    with pytest.raises(InvalidValueError, match="`samples_per_step` must be at least 1; got 0"):
        InSamples(scheduler, 0)


def test_a_state_counted_in_other_steps_is_refused():
    state = InSamples(scheduled("cosine")[1], 8).state_dict()
    with pytest.raises(ResultError, match="a scheduler with samples_per_step = 16; got 8"):
        InSamples(scheduled("cosine")[1], 16).load_state_dict(state)


@pytest.mark.parametrize("module", ["batchlab.optim", "batchlab.data"])
def test_import_loads_nothing_of_the_advise_extra(module):
    heavy = ["polars", "altair", "sklearn", "jinja2", "scipy", "vl_convert", "loky"]
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_capturable_optimizer_may_have_a_group_without_parameters():
    weight = torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [weight]}, {"params": []}]
    optimizer = SHB(groups, lr=0.5, momentum=0.0, capturable=True)
    weight.grad = torch.ones(2)
    optimizer.step()
    assert weight.tolist() == [0.5, 0.5]


def test_a_scheduler_in_samples_reads_its_schedule_from_text():
    optimizer = SHB([torch.nn.Parameter(torch.ones(()))], lr=1.0)
    halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    scheduler = InSamples(halving, samples_per_step=8, schedule="0:8 8:16")
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert (scheduler.samples, scheduler.get_last_lr()) == (24, [0.125])


def test_a_scheduler_in_samples_counts_a_batch_after_its_last_use():
    def made():
        optimizer = SHB([torch.nn.Parameter(torch.ones(()))], lr=1.0)
        halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return InSamples(halving, samples_per_step=8, schedule="0:8 8:16", reuse=3)

    scheduler, found = made(), []
    scheduler.optimizer.step()
    for update in range(7):
        if update == 4:  # between two uses
            state = scheduler.state_dict()
            scheduler = made()
            scheduler.optimizer.step()
            scheduler.load_state_dict(state)
        scheduler.step()
        found.append(scheduler.samples)
    assert found == [0, 0, 8, 8, 8, 24, 24]
    with pytest.raises(InvalidValueError, match="`reuse` must be at least 1; got 0"):
        InSamples(scheduler.scheduler, 8, reuse=0)
