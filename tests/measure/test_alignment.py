"""Angle and distance from the start, and kernel alignment, of any two states of a model."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from batchlab import _random
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.measure.alignment import (
    alignment,
    alignment_probe,
    cosine,
    distance,
    hsic,
    kernel_alignment,
    said_by_example,
)
from batchlab.tasks import Task, prepare


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = normal(12, 3, seed=1), normal(12, 5, seed=2)


def net(seed=0):
    with _random.seeded(seed, "test"):
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_an_unchanged_model_has_cosine_1_distance_0_and_alignment_1():
    found = alignment(net(), net(), X.float())
    assert (found.cosine, found.distance, found.relative) == pytest.approx((1, 0, 0))
    assert [one.kernel for one in found.layers] == pytest.approx([1, 1])


@pytest.mark.parametrize("factor", [-2.0, 0.5, 3.0])
def test_a_scaled_model_keeps_its_direction_up_to_sign(factor):
    end = net()
    with torch.no_grad():
        for p in end.parameters():
            p.mul_(factor)
    found = alignment(net(), end)
    assert found.cosine == pytest.approx(math.copysign(1, factor))
    assert found.relative == pytest.approx(abs(factor - 1))
    assert [one.relative for one in found.layers] == pytest.approx([abs(factor - 1)] * 2)


def test_cosine_and_distance_equal_those_of_the_flat_vectors():
    a, b = net(1), net(2)
    u, v = (torch.cat([p.detach().flatten().double() for p in m.parameters()]) for m in (a, b))
    found = alignment(a, b)
    assert found.cosine == pytest.approx(functional.cosine_similarity(u, v, dim=0).item())
    assert found.distance == pytest.approx((u - v).norm().item())
    assert found.relative == pytest.approx(((u - v).norm() / u.norm()).item())


def test_squared_distances_of_the_layers_add_up_to_that_of_the_whole():
    found = alignment(net(1), net(2))
    assert sum(one.distance**2 for one in found.layers) == pytest.approx(found.distance**2)


def test_a_start_of_zero_has_no_direction():
    zero, one = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    assert math.isnan(cosine(zero, one))
    assert distance(zero, one) == pytest.approx(2**0.5)
    assert math.isnan(cosine(zero, zero))


def rotation(n, seed=5):
    return torch.linalg.qr(normal(n, n, seed=seed))[0]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x @ rotation(3),
        lambda x: -7.0 * x,
        lambda x: x + 100.0,
        lambda x: x[:, [2, 0, 1]],
    ],
)
def test_the_alignment_ignores_rotation_scale_shift_and_order_of_units(change, unbiased):
    assert kernel_alignment(change(X), Y, unbiased) == pytest.approx(
        kernel_alignment(X, Y, unbiased)
    )
    assert kernel_alignment(change(X), X, unbiased) == pytest.approx(1.0)


def test_the_alignment_sees_a_stretch_of_one_unit():
    """It would not, if it were invariant to every linear map; then it could tell nothing."""
    stretched = X * torch.tensor([1.0, 5.0, 1.0])
    assert kernel_alignment(stretched, X) < 0.99


def test_the_alignment_is_symmetric():
    assert kernel_alignment(X, Y) == pytest.approx(kernel_alignment(Y, X))


def from_features(x, y):
    """Outside form of the plain one: ‖YᵀX‖²/(‖XᵀX‖ ‖YᵀY‖) of centred features."""
    x, y = x - x.mean(0), y - y.mean(0)
    return ((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def test_the_plain_alignment_equals_its_form_in_features():
    assert kernel_alignment(X, Y, False) == pytest.approx(from_features(X, Y))


def enumerated(k, m):
    """HSIC as the mean over all four different examples of its kernel, word by word from the
    U-statistic: E[KL] + E[K]E[L] − 2E[K·L].
    """
    n, sums, count = len(k), 0.0, 0
    for i, j, q, r in itertools.permutations(range(n), 4):
        sums += k[i, j] * m[i, j] + k[i, j] * m[q, r] - 2 * k[i, j] * m[i, q]
        count += 1
    return float(sums / count)


def test_the_unbiased_criterion_is_the_mean_over_all_quadruples():
    a, b = X[:7], Y[:7]
    k, m = a @ a.T, b @ b.T
    assert hsic(k, m).item() == pytest.approx(enumerated(k, m))


def test_the_plain_criterion_is_not_that_mean():
    a, b = X[:7], Y[:7]
    k, m = a @ a.T, b @ b.T
    assert hsic(k, m, unbiased=False).item() != pytest.approx(enumerated(k, m), rel=0.05)


def of_unrelated(unbiased):
    """z of the mean alignment of 60 unrelated pairs, 20 examples, 30 units; 0.01 is seen."""
    found = [
        kernel_alignment(normal(20, 30, seed=2 * i), normal(20, 30, seed=2 * i + 1), unbiased)
        for i in range(60)
    ]
    return np.mean(found) / (np.std(found, ddof=1) / 60**0.5)


def test_unrelated_units_align_by_nothing_on_average():
    assert abs(of_unrelated(unbiased=True)) <= 4


def test_the_plain_alignment_of_unrelated_units_is_far_above_nothing():
    assert of_unrelated(unbiased=False) > 40


def test_units_that_never_change_have_no_alignment():
    assert math.isnan(kernel_alignment(torch.ones(6, 2, dtype=torch.float64), X[:6]))


def test_a_model_with_its_units_in_another_order_represents_the_same():
    start, end = net(), net()
    order = [2, 0, 3, 1]
    with torch.no_grad():
        end[0].weight.copy_(start[0].weight[order])
        end[0].bias.copy_(start[0].bias[order])
        end[2].weight.copy_(start[2].weight[:, order])
    found = alignment(start, end, X.float())
    assert [one.kernel for one in found.layers] == pytest.approx([1, 1])
    assert found.cosine < 0.99


def test_what_is_compared_is_what_the_units_say():
    a, b = net(1), net(2)
    found = alignment(a, b, X.float())
    sides = [functional.relu(m[0](X.float())).detach().double() for m in (a, b)]
    assert found.layers[0].kernel == pytest.approx(kernel_alignment(*sides), rel=1e-5)
    assert found.examples == 12
    assert found.kernel == pytest.approx(np.mean([one.kernel for one in found.layers]))


def test_places_are_averaged():
    model = nn.Sequential(nn.Conv1d(3, 4, 2), nn.Tanh())
    data = normal(6, 3, 8).float()
    said = said_by_example(model, [data], lambda m, b: m(b))["0"]
    assert torch.allclose(said, model(data).mean(-1).detach().double())


def test_a_state_stands_for_the_model_it_is_of():
    assert alignment(net(1).state_dict(), net(2), X.float()) == alignment(
        net(1), net(2), X.float()
    )


def test_it_leaves_no_trace():
    start = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    end = copy.deepcopy(start)
    states = [{k: v.clone() for k, v in m.state_dict().items()} for m in (start, end)]
    generators = _random.global_state()
    alignment(start, end, X.float())
    assert _random.global_state() == generators
    assert start.training
    assert end.training
    for model, state in zip((start, end), states, strict=True):
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in state.items())
        assert not model[0]._forward_hooks


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_the_probe_compares_each_run_with_its_own_start(executor):
    x = normal(60, 3).float()
    task = Task(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
        (x, (x[:, 0] > 0).long()),
        loss=lambda out, batch: functional.cross_entropy(out, batch[1], reduction="none"),
    )
    prepared = prepare(task, device="cpu")
    config = prepared.baseline.replace(samples=100, batch_size=10, learning_rate=0.1)
    job = Job((0, 100), alignment_probe(prepared), (0, 50, 100))
    with Engine(prepared, None, workers=0, executor=executor) as engine:
        trace, _ = engine.train([config.replace(seed=seed) for seed in (3, 4)], job)
    for run in trace.runs:
        moved = run.series["alignment.distance"].values.tolist()
        assert moved[0] == 0
        assert moved[1] > 0
        assert run.series["alignment.cosine"].values.tolist()[0] == pytest.approx(1)
        assert 0 < run.series["alignment.kernel"].values.tolist()[2] <= 1


def test_the_record_is_a_table():
    assert str(alignment(net(1), net(2))).count("\n") == 3


@pytest.mark.wrong_type
def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InvalidTypeError, match=r"torch\.nn\.Module"):
        alignment(net(), "model")
    with pytest.raises(InvalidValueError, match="a state of the same model"):
        alignment(nn.Linear(2, 2), net())
    with pytest.raises(InvalidValueError, match="a state of the same model; got 'other shapes'"):
        alignment(nn.Linear(2, 2), nn.Linear(3, 2))
    with pytest.raises(InvalidValueError, match="4 or more examples"):
        alignment(net(), net(), torch.ones(3, 3))
    with pytest.raises(InvalidValueError, match="`examples` must be at least 4"):
        alignment_probe(None, examples=3)
