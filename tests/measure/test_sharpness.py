"""Sharpness of models: against dense Hessians and closed forms, together, without trace."""

import math
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler

import batchlab
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, UserError
from batchlab.measure import _spectra
from batchlab.measure._curvature import Curvature, hessian
from batchlab.measure._lanczos import lanczos
from batchlab.measure._own import Examples
from batchlab.measure.sharpness import Settings, measure, sharpness, sharpness_probe
from batchlab.models.mlp import MLP
from batchlab.tasks import Objective, Task, prepare
from batchlab.tasks.source import Stacked
from tests.benchmarks import load
from tests.engine import tiny

CE = nn.CrossEntropyLoss(reduction="none")
CLASSES = 3


def data(count=40, shape=(4,), seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=draw, dtype=dtype)
    return inputs, torch.arange(count) % CLASSES


def squares(outputs, batch):
    return (outputs - batch[1]).square().flatten(1).mean(1)


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, CLASSES))


def cnn():
    """Batch norm has statistics that are not those of the data."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.SiLU(), nn.Flatten(), nn.Linear(27, CLASSES)
    )
    model[1].running_mean.uniform_(-1, 1)
    model[1].running_var.uniform_(0.5, 2)
    return model


class Tied(nn.Module):
    """One weight, used twice."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(4, 5, bias=False), nn.Linear(5, 4, bias=False)
        self.out.weight = nn.Parameter(torch.randn(4, 5))
        self.again = nn.Linear(4, 5, bias=False)
        self.again.weight = self.into.weight
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.out(torch.tanh(self.into(x)))
        return self.head(self.out(torch.tanh(self.again(x))))


def attention():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True, activation="gelu")
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, CLASSES))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.layer, self.head = kind(4, 3, batch_first=True), nn.Linear(3, CLASSES)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


MODELS = {
    "mlp": (mlp, (4,)),
    "cnn with batch norm": (cnn, (1, 5, 5)),
    "tied": (Tied, (4,)),
    "attention": (attention, (3, 4)),
    "lstm": (Recurrent, (3, 4)),
    "gru": (partial(Recurrent, nn.GRU), (3, 4)),
}


def made(name, dtype=torch.float64):
    build, shape = MODELS[name]
    torch.manual_seed(3)
    return build().to(dtype), data(shape=shape, dtype=dtype)


def dense(model, loss):
    """The Hessian of ``loss()`` over all parameters that are trained, row by row."""
    params = [p for p in model.parameters() if p.requires_grad]
    math_kernel = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with math_kernel:
        gradients = torch.autograd.grad(loss(), params, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradients])
    rows = []
    for entry in flat:
        found = torch.autograd.grad(entry, params, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


def mean_loss(model, batch, weights=None):
    losses = cross_entropy(model(batch[0]), batch[1], reduction="none")
    weights = torch.ones_like(losses) if weights is None else weights
    return (weights * losses).sum() / weights.sum()


def largest(matrix, count):
    return torch.linalg.eigvalsh(matrix)[-count:].flip(0).tolist()


def values(found):
    return [one.value for one in found.eigenvalues]


# ------------------------------------------------------------------ against the dense Hessian


@pytest.mark.parametrize("name", MODELS)
def test_eigenvalues_are_those_of_the_dense_hessian(name):
    model, batch = made(name)
    truth = dense(model.eval(), lambda: mean_loss(model, batch))
    found = sharpness(model.train(), CE, batch, eigenvalues=3, tolerance=1e-4, smallest=True)
    assert found.converged
    assert found.parameters == len(truth)
    assert values(found) == pytest.approx(largest(truth, 3), rel=1e-4)
    assert all(
        one.low <= true <= one.high
        for one, true in zip(found.eigenvalues, largest(truth, 3), strict=True)
    )
    smallest = float(torch.linalg.eigvalsh(truth)[0])
    assert found.smallest.low <= smallest <= found.smallest.high
    assert abs(found.trace.value - float(truth.trace())) <= 4 * (
        found.trace.high - found.trace.low
    )


def test_the_hessian_of_torch_func_is_the_same():
    """The outside reference; it cannot map an LSTM."""
    model, batch = made("cnn with batch norm")
    model.eval()
    params = {n: p.detach() for n, p in model.named_parameters()}
    sizes = [p.numel() for p in params.values()]

    def loss(flat):
        pieces = zip(params.items(), flat.split(sizes), strict=True)
        own = {name: piece.view(p.shape) for (name, p), piece in pieces}
        return cross_entropy(functional_call(model, own, (batch[0],)), batch[1])

    whole = torch.func.hessian(loss)(torch.cat([p.flatten() for p in params.values()]))
    assert torch.allclose(whole, dense(model, lambda: mean_loss(model, batch)), atol=1e-10)
    found = sharpness(model, CE, batch, eigenvalues=3, tolerance=1e-4)
    assert values(found) == pytest.approx(largest(whole, 3), rel=1e-4)


@pytest.mark.parametrize("name", ["mlp", "cnn with batch norm"])
def test_float32_agrees_with_the_dense_hessian_to_four_digits(name):
    model, batch = made(name)
    truth = dense(model.eval(), lambda: mean_loss(model, batch))
    narrow = (batch[0].float(), batch[1])
    found = sharpness(model.float(), CE, narrow, eigenvalues=2, tolerance=1e-4)
    assert values(found) == pytest.approx(largest(truth, 2), rel=1e-4)
    for one, true in zip(found.eigenvalues, largest(truth, 2), strict=True):
        assert one.low <= true <= one.high


def test_in_training_mode_batch_norm_would_give_another_matrix():
    """The planted bug that evaluation mode is there for."""
    model, batch = made("cnn with batch norm")
    found = sharpness(model, CE, batch, probes=0)
    truth = dense(model.train(), lambda: mean_loss(model, batch))
    assert found.largest.value != pytest.approx(largest(truth, 1)[0], rel=0.05)


def weighted(batch):
    return 1.0 + torch.arange(len(batch[1])).double() % 5


def test_unequal_weights_weigh():
    model, batch = made("mlp")
    batch = (*batch, weighted(batch))
    truth = dense(model, lambda: mean_loss(model, batch, batch[2]))
    found = sharpness(
        model,
        lambda out, batch: CE(out, batch[1]),
        batch,
        weight=lambda batch: batch[2],
        eigenvalues=2,
        tolerance=1e-4,
    )
    assert values(found) == pytest.approx(largest(truth, 2), rel=1e-4)
    equal = dense(model, lambda: mean_loss(model, batch))
    assert values(found) != pytest.approx(largest(equal, 2), rel=1e-3)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("size", [1, 4, 8, 9, 1000])
def test_any_micro_batches_give_the_same(kind, size):
    model, _ = made("mlp")
    batch = data(9)
    batch = (*batch, weighted(batch))
    given = {"weight": lambda batch: batch[2], "eigenvalues": 2, "kind": kind, "probes": 8}
    whole, cut = (
        sharpness(model, lambda o, b: CE(o, b[1]), batch, micro_batch_size=m, **given)
        for m in (None, size)
    )
    assert values(cut) == pytest.approx(values(whole), rel=1e-9)
    assert cut.trace.value == pytest.approx(whole.trace.value, rel=1e-9)


def test_a_mean_of_the_micro_batches_means_would_not_be_the_same():
    """The planted bug: 13 + 13 + 13 + 1 examples, each micro-batch counted alike."""
    model, batch = made("mlp")
    whole = dense(model, lambda: mean_loss(model, batch))
    parts = [[leaf[i : i + 13] for leaf in batch] for i in range(0, 40, 13)]
    wrong = dense(model, lambda: sum(mean_loss(model, part) for part in parts) / 4)
    assert largest(wrong, 1)[0] != pytest.approx(largest(whole, 1)[0], rel=1e-3)


def test_a_subset_too_large_for_memory_is_cut(monkeypatch):
    model, batch = made("mlp")
    sizes = []
    whole = Examples.batches

    def noted(self, part, size, like):
        sizes.append(size)
        return whole(self, part, size, like)

    monkeypatch.setattr(Examples, "batches", noted)
    before = sharpness(model, CE, batch)
    monkeypatch.setattr(_spectra, "GRAPH_BYTES", 4_000)
    after = sharpness(model, CE, batch)
    assert 1 <= sizes[-1] < 40
    assert after.largest.value == pytest.approx(before.largest.value, rel=1e-9)


# ------------------------------------------------------------------ Gauss–Newton


def gauss_newton(model, batch):
    """Jᵀ H_out J with J and H_out written out, example by example."""
    params = {n: p.detach() for n, p in model.named_parameters()}
    whole = 0.0
    for x in batch[0]:
        found = torch.func.jacrev(lambda p, x=x: functional_call(model, p, (x[None],))[0])(params)
        jacobian = torch.cat([j.reshape(CLASSES, -1) for j in found.values()], 1)
        shares = functional_call(model, params, (x[None],))[0].softmax(0)
        whole = whole + jacobian.T @ (torch.diag(shares) - torch.outer(shares, shares)) @ jacobian
    return whole / len(batch[1])


@pytest.mark.parametrize("name", ["mlp", "cnn with batch norm", "tied"])
def test_gauss_newton_is_the_jacobian_around_the_losss_own_hessian(name):
    model, batch = made(name)
    truth = gauss_newton(model.eval(), batch)
    found = sharpness(model, CE, batch, kind="gauss-newton", eigenvalues=3, tolerance=1e-4)
    assert values(found) == pytest.approx(largest(truth, 3), rel=1e-4)
    assert abs(found.trace.value - float(truth.trace())) <= 4 * (
        found.trace.high - found.trace.low
    )
    assert values(found) != pytest.approx(values(sharpness(model, CE, batch, eigenvalues=3)), 1e-3)


def test_of_a_linear_model_both_matrices_are_the_same():
    model, batch = nn.Linear(4, CLASSES).double(), data()
    one, other = (sharpness(model, CE, batch, kind=k) for k in ("hessian", "gauss-newton"))
    assert one.largest.value == pytest.approx(other.largest.value, rel=1e-9)


def test_an_output_that_is_computed_from_another_counts_once():
    """Outputs (h, 2h) with a loss of the second: through both it would count twice."""
    inputs = torch.linspace(1, 2, 10).double()[:, None]

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False).double()

        def forward(self, x):
            return self.layer(x), 2 * self.layer(x)

    def loss(outputs, batch):
        return outputs[1].square().sum(1)

    found = sharpness(Two(), loss, inputs, kind="gauss-newton")
    assert found.largest.value == pytest.approx(8 * float(inputs.square().mean()))


# ------------------------------------------------------------------ closed forms


def quadratic(matrices):
    """L = ½ θᵀAθ for every run, as a pure function of stacked parameters."""
    return Curvature(
        [hessian(lambda t: 0.5 * torch.einsum("rp,rpq,rq->r", t["w"], t["a"], t["w"]))],
        {"w": torch.ones(len(matrices), matrices.shape[1], dtype=matrices.dtype)},
        {"a": matrices},
    )


def test_a_quadratics_hessian_is_its_matrix():
    matrices = torch.stack([torch.diag(torch.tensor(d)) for d in ([1.0, -2, 5], [3.0, 3, 0])])
    products = quadratic(matrices.double())
    found = lanczos(products, 2, tolerance=1e-10)
    assert [one.values.tolist() for one in found] == [
        pytest.approx([5, 1]),
        pytest.approx([3, 3]),
    ]


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature():
    found = sharpness(nn.Linear(4, 1).double(), lambda out, batch: out[:, 0], data())
    assert (found.largest.value, found.trace.value, found.converged) == (0.0, 0.0, True)
    assert found.stable_learning_rate == math.inf


class Neuron(nn.Module):
    """x → w φ(⟨w, x⟩): an autoencoder of one neuron with tied weights."""

    def __init__(self, weights, activation):
        super().__init__()
        self.w, self.activation = nn.Parameter(weights), activation

    def forward(self, x):
        return self.activation(x @ self.w)[:, None] * self.w


def reconstruction(outputs, batch):
    """½|x − f(x)|², of which the mean is taken."""
    return 0.5 * (batch[0] - outputs).square().sum(1)


def on_the_sphere(size, active, least=0.0):
    """A global minimum: unit length, ``active`` coordinates, the others at ``least``."""
    weights = torch.full((size,), least, dtype=torch.float64)
    weights[:active] = torch.arange(1.0, active + 1).double().sqrt()
    return weights / weights.norm()


@pytest.mark.parametrize("active", [1, 5, 20])
@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU()])
def test_the_minima_of_the_tied_autoencoder_have_the_known_curvature(activation, active):
    n = d = 20
    model = Neuron(on_the_sphere(d, active), activation)
    found = sharpness(model, reconstruction, torch.eye(n).double(), tolerance=1e-6)
    counted = n if isinstance(activation, nn.Identity) else active
    assert found.largest.value == pytest.approx(4 / n, rel=1e-6)
    assert found.trace.low - 1e-9 <= (4 + d - counted) / n <= found.trace.high + 1e-9
    assert found.trace.value == pytest.approx((4 + d - counted) / n, rel=0.15)


def test_a_coordinate_that_has_nearly_decayed_counts_as_active_until_it_is_zero():
    """The trap: at 1e-12 the neuron still looks at all inputs, and the trace is that of a dense
    minimum; the caller has to set to 0 what has decayed.
    """
    traces = []
    for least in (1e-12, 0.0):
        model = Neuron(on_the_sphere(20, 5, least), nn.ReLU())
        exact = dense(
            model,
            lambda m=model: reconstruction(m(torch.eye(20).double()), [torch.eye(20)]).mean(),
        )
        found = sharpness(model, reconstruction, torch.eye(20).double(), probes=64)
        assert found.trace.value == pytest.approx(float(exact.trace()), rel=0.05)
        traces.append(20 * float(exact.trace()))
    assert traces == [pytest.approx(4 + 20 - 20), pytest.approx(4 + 20 - 5)]


# ------------------------------------------------------------------ runs together


def stacked(models, batch, settings, task=None):
    task = task or Task(lambda: models[0], batch, loss=lambda o, b: CE(o, b[1]))
    both = [_spectra.tensors_of(Objective(task, model)) for model in models]
    params, fixed = (
        {name: torch.cat([one[i][name] for one in both]) for name in both[0][i]} for i in (0, 1)
    )
    size = len(batch[1])
    examples = Examples(Stacked(batch), torch.arange(size), size, 0)
    return measure(Objective(task, models[0]), params, fixed, examples, settings)


def models_of(name, count):
    build, shape = MODELS[name]
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        found.append(build().double())
    return found, data(shape=shape)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("name", ["mlp", "cnn with batch norm", "tied", "lstm"])
def test_runs_together_give_what_they_give_alone(name, kind):
    models, batch = models_of(name, 4)
    settings = Settings(eigenvalues=2, kind=kind, probes=8)
    together = stacked(models, batch, settings)
    for model, found in zip(models, together, strict=True):
        alone = stacked([model], batch, settings)[0]
        assert values(found) == pytest.approx(values(alone), rel=1e-9)
        assert found.trace.value == pytest.approx(alone.trace.value, rel=1e-9)
        assert (found.products, found.converged) == (alone.products, alone.converged)


def test_permuted_runs_give_permuted_results():
    models, batch = models_of("mlp", 3)
    forth, back = (stacked(m, batch, Settings()) for m in (models, models[::-1]))
    assert [f.largest.value for f in forth] == pytest.approx(
        [f.largest.value for f in back[::-1]], rel=1e-9
    )


def test_runs_that_do_not_fit_into_memory_together_are_taken_in_groups(monkeypatch):
    models, batch = models_of("mlp", 5)
    whole = stacked(models, batch, Settings())
    rows = []
    before = _spectra._Work.of

    def noted(self, params, fixed):
        rows.append(len(next(iter(params.values()))))
        return before(self, params, fixed)

    monkeypatch.setattr(_spectra._Work, "of", noted)
    monkeypatch.setattr(_spectra, "GRAPH_BYTES", 60_000)
    parted = stacked(models, batch, Settings())
    assert sum(rows) == 5
    assert len(rows) > 1
    assert [p.largest.value for p in parted] == pytest.approx([w.largest.value for w in whole])


# ------------------------------------------------------------------ what a subset says


def test_a_subset_is_the_same_every_time_and_another_for_another_seed():
    model, batch = made("mlp")
    first, again, other = (sharpness(model, CE, batch, examples=20, seed=s) for s in (0, 0, 1))
    assert (first.examples, first.population) == (20, 40)
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert first.largest.value != other.largest.value


def test_all_of_the_data_leaves_nothing_to_sample():
    model, batch = made("mlp")
    assert sharpness(model, CE, batch).sampled == ()
    assert len(sharpness(model, CE, batch, examples=20).sampled) == 1


REPETITIONS, POPULATION, SUBSET = 400, 4000, 400


def coverage(of=_spectra.sampled, share=SUBSET / POPULATION):
    """How often the 90 % range of a subset's largest eigenvalue holds that of all the data."""
    draw = torch.Generator().manual_seed(1)
    scales = torch.tensor([2.0, 1.0, 0.7, 0.5, 0.3]).double()
    x = torch.randn(POPULATION, 5, generator=draw, dtype=torch.float64) * scales
    truth = largest(x.T @ x / POPULATION, 1)[0]
    held = 0
    for _ in range(REPETITIONS):
        own = x[torch.randperm(POPULATION, generator=draw)[:SUBSET]]
        values, vectors = torch.linalg.eigh(own.T @ own / SUBSET)
        parts = [((p @ vectors[:, -1:]).square().mean(0), 1.0) for p in own.chunk(8)]
        found = of(values[-1:], parts, share)[0]
        held += found.low <= truth <= found.high
    return held / REPETITIONS


def test_the_sampled_range_covers_the_eigenvalue_of_all_the_data():
    """400 draws fixed beforehand: within 4 standard errors of 90 % is 84 to 96 %."""
    assert 0.84 <= coverage() <= 0.96


def test_a_range_that_forgets_the_root_of_the_number_of_parts_is_found():
    def wide(values, parts, share):
        made = _spectra.sampled(values, parts, share)[0]
        half = math.sqrt(8) * (made.high - made.value)
        return (replace(made, low=made.value - half, high=made.value + half),)

    assert coverage(wide) > 0.96


def test_parts_of_unequal_weight_count_by_it():
    """A part of twice the weight is two parts of one."""
    q = torch.tensor([[1.0], [3.0], [2.0]]).double()
    found = _spectra.sampled(torch.tensor([2.0]).double(), [(p, 1.0) for p in q], 0.0)[0]
    double = _spectra.sampled(torch.tensor([2.0]).double(), [(p, 2.0) for p in q], 0.0)[0]
    assert found == double
    part = [(q[0], 1.0), (q[1], 3.0)]
    apart = _spectra.sampled(torch.tensor([2.5]).double(), part, 0.0)[0]
    assert apart.high - 2.5 == pytest.approx(2.5 - apart.low)


def covered(spread=1.0):
    """How often the trace's range holds the trace of a matrix that is written down."""
    draw = torch.Generator().manual_seed(0)
    square = torch.randn(30, 30, generator=draw, dtype=torch.float64)
    matrix = square + square.T
    held = 0
    for _ in range(REPETITIONS):
        z = 2.0 * torch.randint(2, (16, 30), generator=draw).double() - 1
        found = _spectra._trace(((z @ matrix) * z).sum(1))
        half = spread * (found.high - found.value)
        held += abs(found.value - float(matrix.trace())) <= half
    return held / REPETITIONS


def test_the_range_of_the_trace_covers_it():
    assert 0.84 <= covered() <= 0.96


def test_half_of_that_range_would_not():
    assert covered(0.5) < 0.84


# ------------------------------------------------------------------ no trace


class Everything(nn.Module):
    """Batch norm, dropout, a frozen layer, a counter, hooks, and a mode for each."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5)
        self.frozen, self.head = nn.Linear(6, 6), nn.Linear(6, CLASSES)
        self.frozen.requires_grad_(False)
        self.calls, self.last = 0, None
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        self.last = self.drop(self.norm(self.first(x)))
        self.seen += len(x)
        return self.head(torch.tanh(self.frozen(self.last)))


def everything():
    torch.manual_seed(0)
    model = Everything()
    model.norm.eval()
    cross_entropy(model(data(dtype=torch.float32)[0]), data()[1]).backward()
    model.last = None
    return model


def state(model):
    """All that could have been changed, with tensors as bytes."""

    def plain(value):
        return value.detach().numpy().tobytes() if isinstance(value, torch.Tensor) else value

    modules = {
        name: {
            key: plain(value)
            for key, value in vars(module).items()
            if not key.startswith("_") or isinstance(value, bool)
        }
        for name, module in model.named_modules()
    }
    hooks = {name: len(m._forward_hooks) for name, m in model.named_modules()}
    tensors = {
        name: (id(t), plain(t), t.requires_grad, None if t.grad is None else plain(t.grad))
        for name, t in [*model.named_parameters(), *model.named_buffers()]
    }
    numbers = random.getstate(), np.random.get_state()[1].tobytes(), plain(torch.get_rng_state())
    return modules, hooks, tensors, numbers, torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
@pytest.mark.parametrize("micro", [None, 7])
def test_a_measurement_leaves_no_trace(kind, micro):
    model, batch = everything(), data(dtype=torch.float32)
    before = state(model)
    found = sharpness(model, CE, batch, kind=kind, micro_batch_size=micro, examples=30)
    assert found.parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert state(model) == before


def test_the_comparison_of_states_sees_a_changed_mode_a_gradient_and_a_draw():
    """The planted traces."""
    for change in (
        lambda m: m.drop.eval(),
        lambda m: m.head.bias.grad.zero_(),
        lambda m: torch.rand(1),
        lambda m: m.seen.add_(1),
        lambda m: setattr(m, "calls", 9),
    ):
        model = everything()
        before = state(model)
        change(model)
        assert state(model) != before


def test_a_measurement_that_fails_leaves_no_trace():
    model = everything()
    before = state(model)
    with pytest.raises(TaskError):
        sharpness(model, nn.CrossEntropyLoss(), data(dtype=torch.float32))
    with pytest.raises(TaskError):
        sharpness(model, lambda o, b: Straight.apply(o).sum(1), data(dtype=torch.float32))
    assert state(model) == before


def test_a_loader_is_not_drawn_from():
    model, batch = made("mlp")
    draw = torch.Generator().manual_seed(5)
    pairs = torch.utils.data.TensorDataset(*batch)
    loader = DataLoader(pairs, batch_size=4, shuffle=True, generator=draw)
    before = draw.get_state()
    found = sharpness(model, CE, loader)
    assert torch.equal(draw.get_state(), before)
    assert found.largest.value == pytest.approx(sharpness(model, CE, batch).largest.value)


def test_dropout_and_frozen_parameters_are_out_of_it():
    model, batch = everything(), data(dtype=torch.float32)
    truth = dense(model.eval(), lambda: mean_loss(model, batch))
    found = sharpness(model.train(), CE, batch, tolerance=1e-4)
    assert found.largest.value == pytest.approx(largest(truth, 1)[0], rel=1e-3)


def test_a_model_in_half_precision_is_measured_in_float32():
    model, batch = made("mlp", torch.float32)
    half = mlp().to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    wide = mlp()
    wide.load_state_dict(half.state_dict())
    found = sharpness(half, CE, batch)
    assert found.largest.value == pytest.approx(sharpness(wide, CE, batch).largest.value, rel=1e-5)
    assert half[0].weight.dtype == torch.bfloat16


# ------------------------------------------------------------------ what the user may give


class Pairs(Dataset):
    """Notes what is read."""

    def __init__(self, count=1000):
        self.count, self.read = count, set()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.add(index)
        return torch.randn(4, generator=torch.Generator().manual_seed(index)), index % CLASSES


def test_of_a_data_set_the_subset_alone_is_read():
    pairs = Pairs()
    found = sharpness(mlp(), CE, pairs, examples=32)
    assert (found.examples, found.population, len(pairs.read)) == (32, 1000, 32)


def test_a_sampler_of_a_part_keeps_to_the_part():
    pairs = Pairs()
    loader = DataLoader(pairs, batch_size=4, sampler=SubsetRandomSampler(range(100, 140)))
    found = sharpness(mlp(), CE, loader)
    assert found.population == 40
    assert pairs.read == set(range(100, 140))


@pytest.mark.parametrize(
    "loss",
    [
        CE,
        lambda outputs, target: cross_entropy(outputs, target, reduction="none"),
        lambda outputs, batch: cross_entropy(outputs, batch[1], reduction="none"),
    ],
)
def test_a_loss_takes_the_batch_or_its_target(loss):
    model, batch = made("mlp")
    wanted = sharpness(model, CE, batch).largest.value
    assert sharpness(model, loss, batch).largest.value == wanted


def test_a_batch_may_be_a_dictionary_and_the_model_called_otherwise():
    model, (inputs, labels) = made("mlp")
    found = sharpness(
        model,
        CE,
        {"x": inputs, "labels": labels},
        forward=lambda model, batch: model(batch["x"]),
    )
    assert found.largest.value == sharpness(model, CE, (inputs, labels)).largest.value


class Straight(torch.autograd.Function):
    """A backward pass that must not be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Fused(nn.Module):
    """Insists on an attention kernel that has no second derivative."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.layer(x).reshape(1, 1, -1, CLASSES)
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return nn.functional.scaled_dot_product_attention(x, x, x)[0, 0]


class Recomputing(nn.Module):
    """Its backward pass looks at the module, whose weights are not those that are varied."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 5), nn.Linear(5, CLASSES)

    def forward(self, x):
        inner = checkpoint(lambda x: torch.tanh(self.layer(x)), x, use_reentrant=False)
        return self.head(inner)


class Vague(IterableDataset):
    def __iter__(self):
        yield from zip(*data(), strict=True)


WRONG = {
    "reduction": (
        {"loss": nn.CrossEntropyLoss()},
        TaskError,
        r"`loss` must be one number per example, .* Use `reduction=\"none\"`",
    ),
    "a loss that raises": (
        {"loss": lambda out, batch: out @ batch[1]},
        TaskError,
        r"`loss` raised .* when given \(outputs, batch\), and .* when given \(outputs, target\)",
    ),
    "a loss per output": (
        {"loss": nn.MSELoss(reduction="none"), "data": (data()[0], data()[0][:, :3])},
        TaskError,
        "Average over every axis but the first",
    ),
    "no target": ({"data": data()[0]}, InvalidValueError, r"`data` must be \(inputs, target\)"),
    "all frozen": (
        {"model": mlp().double().requires_grad_(False)},
        TaskError,
        "parameters that require gradients; got 'none'",
    ),
    "too many": ({"eigenvalues": 52}, InvalidValueError, "at most the 51 parameters; got 52"),
    "none": ({"eigenvalues": 0}, InvalidValueError, "`eigenvalues` must be at least 1"),
    "probes": ({"probes": 3}, InvalidValueError, "`probes` must be at least 8, or 0; got 3"),
    "kind": ({"kind": "fisher"}, InvalidValueError, "`kind` must be hessian or gauss-newton"),
    "tolerance": ({"tolerance": 1e-15}, InvalidValueError, "the round-off of float64"),
    "tolerance 0": ({"tolerance": 0.0}, InvalidValueError, "between 0 and 1"),
    "iterable": ({"data": Vague()}, InvalidTypeError, "asked for by number"),
    "whole batches": (
        {"data": DataLoader(Pairs(), batch_size=None)},
        InvalidTypeError,
        "examples, not whole batches",
    ),
    "device": ({"device": "cuda:99"}, InvalidValueError, "`device` must be one this machine has"),
    "once differentiable": (
        {"loss": lambda out, batch: Straight.apply(out).sum(1)},
        TaskError,
        "second derivatives .* are not those of its gradient: .* a backward pass of its own",
    ),
    "no double backward": (
        {"model": Fused().double()},
        TaskError,
        "cannot be differentiated twice: .*flash_attention.* exchange the operation that has none",
    ),
    "recomputation": ({"model": Recomputing().double()}, TaskError, "gradient checkpointing"),
    "wrong inputs": (
        {"model": nn.Linear(9, 3).double()},
        TaskError,
        r"`model\(batch\[0\]\)` raised RuntimeError: .* Give `forward=`",
    ),
    "not finite": (
        {"loss": lambda out, batch: out.sum(1) / 0},
        TaskError,
        "not finite on the first batch",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_answered_in_one_sentence(case):
    changes, kind, said = WRONG[case]
    given = {"model": mlp().double(), "loss": CE, "data": data()} | changes
    with pytest.raises(kind, match=said) as caught:
        sharpness(**given)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


@pytest.mark.wrong_type
def test_what_is_no_module_is_refused():
    with pytest.raises(InvalidTypeError, match="`model` must be a torch"):
        sharpness(lambda x: x, CE, data())


class Fellow(nn.Module):
    """Subtracts the batch's mean also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, CLASSES).double()

    def forward(self, x):
        return self.layer(x - x.mean(0))


def test_examples_that_affect_each_other_are_not_cut():
    model, batch = Fellow(), data()
    truth = dense(model, lambda: mean_loss(model, batch))
    assert sharpness(model, CE, batch).largest.value == pytest.approx(largest(truth, 1)[0], 1e-3)
    assert sharpness(model, CE, batch, examples=30).sampled == ()
    with pytest.raises(InvalidValueError, match="Examples of this model affect each other"):
        sharpness(model, CE, batch, micro_batch_size=7)


# ------------------------------------------------------------------ the record


def test_the_record_reads_as_a_table_and_says_what_its_ranges_cover():
    model, batch = made("mlp")
    found = sharpness(model, CE, batch, examples=20, eigenvalues=2)
    text = str(found)
    assert "Hessian of the loss on 20 of 40 examples, evaluation mode, 51 parameters" in text
    assert "for all 40 examples, from 8 parts" in text
    assert "from 16 probe vectors" in text
    assert "eigenvalue 2" in text
    assert found._repr_html_().count("<tr>") == 1 + len(found._rows())
    assert found.stable_learning_rate == 2 / found.largest.value


def test_a_search_cut_short_says_so(monkeypatch):
    monkeypatch.setattr(_spectra, "lanczos", partial(lanczos, most=2))
    model, batch = made("mlp")
    found = sharpness(model, CE, batch, tolerance=1e-6)
    truth = largest(dense(model, lambda: mean_loss(model, batch)), 1)[0]
    assert not found.converged
    assert "NOT as accurate as 1e-06" in str(found)
    assert found.largest.low <= truth


def test_the_public_call_is_this_one():
    assert batchlab.sharpness is sharpness


# ------------------------------------------------------------------ during training


def run_probe(executor, settings, seeds=(0, 1, 2), **changes):
    prepared = tiny.ready(tiny.batch_norm)
    probe = sharpness_probe(prepared, settings)
    job = tiny.job(400, probe=probe, probe_at=(0, 200))
    trace, _ = tiny.trained(prepared, [tiny.run(seed=s) for s in seeds], executor, job)
    return trace


NAMES = ("eigenvalue_1", "eigenvalue_1_high", "trace", "trace_low", "smallest", "products")


def test_both_executors_probe_the_same():
    settings = Settings(examples=40, parts=0)
    traces = [run_probe(executor, settings) for executor in ("loop", "stacked")]
    for one, other in zip(*(t.runs for t in traces), strict=True):
        for name in (f"sharpness.{name}" for name in NAMES):
            a, b = one.series[name].values, other.series[name].values
            assert len(a) == 2
            assert np.allclose(a, b, rtol=1e-7)


def test_a_run_is_probed_alone_as_among_others():
    settings = Settings(examples=40, parts=0)
    together, alone = (run_probe("stacked", settings, seeds) for seeds in ((0, 1, 2), (1,)))
    for name in (f"sharpness.{name}" for name in NAMES):
        a, b = together.runs[1].series[name].values, alone.runs[0].series[name].values
        assert np.allclose(a, b, rtol=1e-7)


def test_a_probe_measures_the_weights_of_its_moment():
    prepared, settings = tiny.ready(), Settings(parts=0)
    job = Job((0,), sharpness_probe(prepared, settings), (200,), keep_end=True, until=200)
    with Engine(prepared, None, 0, "loop") as engine:
        trace, states = engine.train([tiny.run()], job)
    model = tiny.mlp().double()
    params = states[0].progress.params
    model.load_state_dict({n.removeprefix("module."): p for n, p in params.items()})
    found = sharpness(model, CE, prepared.train.tree)
    seen = trace.runs[0].series["sharpness.eigenvalue_1"].values[-1]
    assert seen == pytest.approx(found.largest.value, rel=1e-9)


def test_a_training_step_has_a_hessian_and_no_gauss_newton_matrix():
    def step(model, batch):
        return cross_entropy(model(batch[0]), batch[1])

    batch = tiny.points()
    prepared = prepare(Task(tiny.mlp, batch, training_step=step), device="cpu")
    probe = sharpness_probe(prepared, Settings(parts=0, examples=20, micro_batch_size=7))
    objective = prepared.objective(0, torch.float64)
    found = probe(objective, 0)["sharpness.eigenvalue_1"]
    examples = Examples.drawn(prepared.train, 20, 0)
    inputs, labels = examples.batches(slice(0, 20), 20, torch.zeros((), dtype=torch.float64))[0]
    own = sharpness(objective.module, CE, (inputs, labels))
    assert found == pytest.approx(own.largest.value, rel=1e-9)
    with pytest.raises(InvalidValueError, match="A training_step does not show the outputs"):
        sharpness_probe(prepared, Settings(kind="gauss-newton"))


def test_weights_that_are_not_finite_are_recorded_as_no_number():
    models, batch = models_of("mlp", 2)
    with torch.no_grad():
        models[0][2].weight[0, 0] = math.inf
    found = stacked(models, batch, Settings())
    assert math.isnan(found[0].largest.value)
    assert not found[0].converged
    assert found[1].converged


def test_a_mlp_of_this_package_is_measured_at_its_minimum_of_a_linear_problem():
    """Least squares: H = 2 XᵀX/n for every output, so the largest eigenvalue comes C times."""
    x = data(dtype=torch.float64)[0]
    model = MLP(4, (), 2, bias=False).double()
    found = sharpness(model, lambda o, b: (o - b[1]).square().sum(1), (x, x[:, :2]), eigenvalues=2)
    top = 2 * largest(x.T @ x / len(x), 1)[0]
    assert values(found) == pytest.approx([top, top], rel=1e-6)


# ------------------------------------------------------------------ the benchmark

benchmark = load("sharpness")


def test_the_plain_loop_of_the_benchmark_finds_the_same_eigenvalue():
    row = benchmark.paired("mlp", 1, pairs=1, examples=32)
    assert row.apart < 1e-4


def test_no_examples_and_diverged_weights_are_one_sentence():
    def squares(outputs, target):
        return (outputs - target).square().mean(1)

    model, x = nn.Linear(2, 1), torch.ones(4, 2)
    with pytest.raises(InvalidValueError, match="`data` must be at least one example"):
        sharpness(model, squares, (x[:0], x[:0, :1]))
    nn.init.constant_(model.weight, math.nan)
    with pytest.raises(InvalidValueError, match=r"NaN or infinity in `weight`.*diverged"):
        sharpness(model, squares, (x, x[:, :1]))
