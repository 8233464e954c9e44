"""Participation ratio, near-zero share, dead units and effective rank, of weights and units."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from batchlab import _random
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.measure._layers import layers, listen
from batchlab.measure.sparsity import (
    dead_units,
    effective_rank,
    near_zero_share,
    participation_ratio,
    sparsity,
    sparsity_probe,
)
from batchlab.tasks import Task, prepare

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))


def plain(x):
    """Twin of the participation ratio, number by number, with the given power in the bottom."""
    squares = [float(v) ** 2 for v in x]
    return sum(squares) ** 2 / sum(v**2 for v in squares)


def without_square(x):
    """A planted bug: the sum of squares is not squared."""
    squares = [float(v) ** 2 for v in x]
    return sum(squares) / sum(v**2 for v in squares)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_ratio_of_one_number_alone_is_1_and_of_n_equal_ones_n(n):
    one = torch.zeros(n)
    one[-1] = -3.0
    assert participation_ratio(one).item() == pytest.approx(1.0)
    assert participation_ratio(torch.full((n,), 0.2)).item() == pytest.approx(n)


def agrees(twin):
    x = torch.tensor([0.5, -2.0, 0.0, 1.0])
    return twin(x) == pytest.approx(participation_ratio(x).item(), rel=1e-6)


def test_the_ratio_equals_its_equation():
    assert agrees(plain)


def test_a_ratio_without_its_square_is_noticed():
    assert not agrees(without_square)


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=12).filter(any),
    st.floats(1e-12, 1e12),
)
def test_the_ratio_lies_between_1_and_n_and_ignores_scale_and_order(numbers, scale):
    x = torch.tensor(numbers, dtype=torch.float64)
    found = participation_ratio(x).item()
    assert 1 - 1e-9 <= found <= len(numbers) + 1e-9
    assert participation_ratio(scale * x.flip(0)).item() == pytest.approx(found)


def test_the_ratio_survives_numbers_whose_fourth_power_float32_cannot_hold():
    assert participation_ratio(torch.tensor([1e-30, 1e-30, 0.0])).item() == pytest.approx(2)


def test_nothing_takes_part_among_zeros():
    assert participation_ratio(torch.zeros(4)).item() == 0


def test_near_zero_is_judged_by_the_root_mean_square():
    x = torch.tensor([1.0, 1.0, 0.1, 0.0])  # root mean square 0.709
    assert near_zero_share(x, 0.14).item() == 0.25
    assert near_zero_share(x, 0.15).item() == 0.5
    assert near_zero_share(torch.zeros(3)).item() == 1


def test_the_rank_of_equal_directions_is_their_number_and_of_one_direction_1():
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    assert effective_rank(3 * rotation) == pytest.approx(5)
    assert effective_rank(torch.outer(torch.ones(5), torch.arange(3.0))) == pytest.approx(1)
    assert effective_rank(torch.zeros(2, 3)) == 0


def test_the_rank_of_two_uneven_directions_equals_its_equation():
    p = torch.tensor([0.75, 0.25])
    expected = math.exp(-sum(q * math.log(q) for q in p.tolist()))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(expected)


def test_a_unit_is_dead_only_if_it_never_changes():
    low, high = torch.tensor([0.0, -1.0, 2.0]), torch.tensor([0.0, 1.0, 2.0])
    assert dead_units(low, high).tolist() == [True, False, True]


class Functional(nn.Module):
    """The nonlinearity is a function, not a module."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(functional.relu(self.first(x)))


def as_modules(other):
    return nn.Sequential(other.first, nn.ReLU(), other.last)


def as_overwriting_modules(other):
    return nn.Sequential(other.first, nn.ReLU(inplace=True), other.last)


@pytest.mark.parametrize("made", [as_modules, as_overwriting_modules])
def test_units_are_heard_after_the_nonlinearity_however_it_is_written(made):
    with _random.seeded(0, "test"):
        model = Functional()
    own = listen(model, lambda m, b: m(b[0]), (X,), ["first"])["first"]
    assert torch.equal(own[:, 0], functional.relu(model.first(X)))
    assert torch.equal(own, listen(made(model), lambda m, b: m(b[0]), (X,), ["0"])["0"])


def test_a_residual_sum_is_not_taken_for_what_the_layer_says():
    class Residual(Functional):
        def forward(self, x):
            return self.last(functional.relu(self.first(x) + 100))

    model = Residual()
    found = listen(model, lambda m, b: m(b[0]), (X,), ["first"])["first"]
    assert torch.equal(found[:, 0], model.first(X))


def test_places_of_a_convolution_and_calls_of_a_shared_layer_are_counted():
    conv = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh())
    assert listen(conv, lambda m, b: m(b), torch.ones(2, 1, 4, 5), ["0"])["0"].shape == (2, 12, 3)
    layer = nn.Linear(3, 3)
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    assert listen(twice, lambda m, b: m(b), X, ["0"])["0"].shape == (60, 2, 3)


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (nn.Linear(3, 4), X),
        (nn.Conv1d(2, 4, 3), torch.randn(5, 2, 9)),
        (nn.Conv2d(2, 4, 3, groups=2), torch.randn(5, 2, 9, 9)),
        (nn.ConvTranspose2d(2, 4, 3, groups=2), torch.randn(5, 2, 4, 4)),
        (nn.Embedding(7, 4), torch.arange(6).view(2, 3)),
        (nn.LSTM(3, 4, batch_first=True, bidirectional=True), torch.randn(5, 6, 3)),
        (nn.GRU(3, 4, num_layers=2, batch_first=True), torch.randn(5, 6, 3)),
    ],
)
def test_every_kind_of_layer_has_a_row_of_weights_for_each_unit(model, data):
    found = layers(model)
    weights = sum(p.numel() for name, p in model.named_parameters() if "bias" not in name)
    assert sum(one.rows.numel() for one in found) == weights
    assert all(one.rows.shape[0] == 4 for one in found)
    record = sparsity(model, data)
    assert record.layers[-1].activations is not None
    assert len(record.layers[-1].activations.units) == 4


def test_the_rows_of_a_transposed_convolution_are_the_weights_of_its_outputs():
    model = nn.ConvTranspose1d(2, 4, 1, groups=2, bias=False)
    (layer,) = layers(model)
    for unit in range(4):
        x = torch.zeros(1, 2, 1)
        x[0, unit // 2] = 1.0  # the input of its group
        assert model(x)[0, unit, 0].item() == layer.rows[unit, 0].item()


def test_the_rows_of_a_recurrent_unit_are_all_that_leads_into_it():
    model = nn.LSTM(2, 3)
    (layer,) = layers(model)
    with torch.no_grad():
        for weight in (model.weight_ih_l0, model.weight_hh_l0):
            weight[[1, 4, 7, 10]] = 0.0  # the four gates of unit 1
    (after,) = layers(model)
    assert not after.rows[1].any()
    assert torch.equal(after.rows[[0, 2]], layer.rows[[0, 2]])


def test_a_steps_first_recurrent_layer_is_read_by_example():
    model = nn.RNN(3, 4)
    data = torch.randn(6, 5, 3)  # examples first, as the package's batches are
    found = listen(model, lambda m, b: m(b.transpose(0, 1)), data, [""])[""]
    assert torch.equal(found, model(data.transpose(0, 1))[0].transpose(0, 1))


def test_the_record_equals_the_equations_layer_by_layer():
    with _random.seeded(1, "test"):
        model = Functional()
    found = sparsity(model, X, share=0.3)
    said = functional.relu(model.first(X)).detach().double()
    (first, last), rows = found.layers, model.first.weight.detach().double()
    assert first.weights.units == pytest.approx([plain(row) / 3 for row in rows])
    assert first.weights.near_zero == pytest.approx(near_zero_share(rows.flatten(), 0.3).item())
    assert first.weights.rank == pytest.approx(effective_rank(rows))
    assert first.activations.units == pytest.approx([plain(a) / 60 for a in said.T])
    assert first.activations.near_zero == pytest.approx(
        near_zero_share(said.flatten(), 0.3).item()
    )
    assert first.activations.rank == pytest.approx(effective_rank(said - said.mean(0)), rel=1e-5)
    assert first.active == pytest.approx(participation_ratio(said).mean().item() / 4)
    weights = torch.cat([rows.flatten(), model.last.weight.detach().double().flatten()])
    assert found.weights == pytest.approx(plain(weights) / 20)
    everything = torch.cat([said.flatten(), model.last(said.float()).detach().double().flatten()])
    assert found.activations == pytest.approx(plain(everything) / everything.numel(), rel=1e-5)
    assert (last.name, found.count, found.examples) == ("last", 6, 60)


def test_batches_do_not_change_the_record():
    model = Functional()
    data = torch.randn(300, 3, generator=torch.Generator().manual_seed(3))
    whole, half = sparsity(model, data, examples=300), sparsity(model, data[:256], examples=300)
    said = functional.relu(model.first(data)).detach().double()
    assert whole.layers[0].activations.units == pytest.approx([plain(a) / 300 for a in said.T])
    assert whole.layers[0].activations.units != half.layers[0].activations.units


def test_dead_units_are_named():
    model = as_modules(Functional())
    with torch.no_grad():
        model[0].weight[2] = 0.0
        model[0].weight[3] = -1.0
        model[0].bias[3] = -99.0
    assert sparsity(model, X).layers[0].dead == (2, 3)
    assert sparsity(model, X).dead == 2


class Noisy(nn.Module):
    """Draws at random, counts its calls and normalises: all that a measurement could disturb."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.body(x + torch.rand(()))


@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_no_trace(training):
    model = Noisy().train(training)
    model.body[2].eval()
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    generators = _random.global_state()
    first = sparsity(model, X)
    assert _random.global_state() == generators
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
    assert all(
        p.grad is None and not m._forward_hooks for m in model.modules() for p in m.parameters()
    )
    assert sparsity(model, X) == first


def test_the_probe_records_shares_during_training():
    target = (X[:, 0] > 0).long()
    task = Task(
        Functional,
        (X, target),
        loss=lambda out, batch: functional.cross_entropy(out, batch[1], reduction="none"),
        metric="accuracy",
    )
    prepared = prepare(task, device="cpu")
    config = prepared.baseline.replace(samples=100, batch_size=10, learning_rate=0.1)
    job = Job((0, 100), sparsity_probe(prepared, examples=5), (50, 100))
    with Engine(prepared, None, workers=0) as engine:
        trace, _ = engine.train([config], job)
    series = trace.runs[0].series
    assert {"sparsity.weights", "sparsity.dead", "sparsity.near_zero"} <= set(series)
    assert all(0 <= v <= 1 for v in series["sparsity.weights"].values.tolist())
    assert len(series["sparsity.activations"].values) == 2


def test_the_record_is_a_table():
    assert "units" in str(sparsity(Functional(), X))
    assert str(sparsity(Functional(), X)).count("\n") == 3


@pytest.mark.wrong_type
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((lambda x: x, X), InvalidTypeError, "torch.nn.Module"),
        ((Functional(), torch.zeros(5, 7)), InvalidTypeError, "can read"),
        ((Functional(), 3), InvalidTypeError, "data"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(arguments, error, words):
    with pytest.raises(error, match=words) as told:
        sparsity(*arguments)
    assert "\n" not in str(told.value)


def test_impossible_numbers_are_refused():
    with pytest.raises(InvalidValueError, match="`share` must be 0 or more"):
        sparsity(Functional(), X, share=-1.0)
    with pytest.raises(InvalidValueError, match="`examples` must be"):
        sparsity(Functional(), X, examples=0)
    lost = Functional()
    with torch.no_grad():
        lost.first.weight[0, 0] = math.nan
    with pytest.raises(InvalidValueError, match="finite weights"):
        sparsity(lost, X)


def test_a_single_example_tells_no_dead_unit():
    with pytest.raises(InvalidValueError, match="`data` must be 2 or more examples; got 1"):
        sparsity(nn.Linear(2, 3), torch.ones(1, 2))


def test_no_examples_are_one_sentence():
    with pytest.raises(InvalidValueError, match="`data` must be at least one example; got 'none'"):
        sparsity(nn.Linear(2, 3), torch.ones(0, 2))
