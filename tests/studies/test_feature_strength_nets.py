"""The hand-written training of many nets against autograd on one."""

import math

import pytest
import torch
from torch import nn

from batchlab.errors import InvalidValueError
from batchlab.studies.feature_strength import nets
from batchlab.studies.feature_strength.nets import Setting


class Plain(nn.Module):
    """The centred model of one run, written from the parametrisation."""

    def __init__(self, setting, seed, gamma):
        super().__init__()
        self.setting, self.gamma = setting, gamma
        begin = nets.start(setting, seed)
        self.weights = nn.ParameterList([nn.Parameter(one.weight[0].clone()) for one in begin])
        self.biases = nn.ParameterList([nn.Parameter(one.bias[0].clone()) for one in begin])
        self.frozen = [p.detach().clone() for p in (*self.weights, *self.biases)]

    def raw(self, x, parameters):
        depth = self.setting.depth
        for i, (w, b) in enumerate(zip(parameters[:depth], parameters[depth:], strict=True)):
            last = i + 1 == depth
            x = (x @ w + b) / (self.setting.width if last else math.sqrt(len(w)))
            x = x if last else x.relu()
        return x

    def forward(self, x):
        zero = self.raw(x, self.frozen)
        return (self.raw(x, [*self.weights, *self.biases]) - zero) / self.gamma


def trained(setting, seed, gamma, rate):
    """Losses and model by autograd and torch's SGD."""
    model, data = Plain(setting, seed, gamma), nets.stream(setting, seed)
    descent = torch.optim.SGD(
        model.parameters(), lr=rate * setting.width, momentum=setting.momentum
    )
    losses = []
    for x, y in zip(data.inputs, data.labels, strict=True):
        if setting.loss == "squared":
            loss = (model(x) - y).square().mean()
        else:
            loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        descent.zero_grad()
        loss.backward()
        descent.step()
        losses.append(float(loss.detach()))
    return losses, model


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("depth", [2, 4])
def test_training_is_that_of_autograd(loss, momentum, depth):
    setting = Setting(
        depth=depth, updates=20, width=8, inputs=5, batch_size=6, loss=loss, momentum=momentum
    )
    ends = {}
    gammas, rates = [1e-3, 5e-3], [1e-7, 1e-6]
    found = nets.train(
        setting, 3, gammas, rates, watch=lambda m: ends.update({m.update: m.net}), at=(20,)
    )
    for r, (gamma, rate) in enumerate(zip(gammas, rates, strict=True)):
        losses, model = trained(setting, 3, gamma, rate)
        assert found[r].tolist() == pytest.approx(losses, rel=1e-10)
        for layer, w, b in zip(ends[20], model.weights, model.biases, strict=True):
            assert torch.allclose(layer.weight[r], w, rtol=0, atol=1e-10)
            assert torch.allclose(layer.bias[r], b, rtol=0, atol=1e-10)


def test_a_wrong_scale_of_the_readout_is_found():
    setting = Setting(depth=3, updates=5, width=8)
    other = Setting(depth=3, updates=5, width=8, readout=0.5)
    right, wrong = (nets.train(s, 0, [1e-3], [1e-6])[0] for s in (setting, other))
    assert right[0] == wrong[0]
    assert not torch.allclose(right, wrong, rtol=1e-3)


def test_runs_together_are_runs_alone_whatever_diverges_beside_them():
    setting = Setting(depth=3, updates=40, width=8)
    gammas, rates = [1.0, 1.0, 10.0, 1e-4], [0.1, 1e9, 1.0, 1e-9]
    together = nets.train(setting, 1, gammas, rates, chunk=3)
    assert together[1, -1].isnan()
    for r, (gamma, rate) in enumerate(zip(gammas, rates, strict=True)):
        alone = nets.train(setting, 1, [gamma], [rate])[0]
        assert torch.allclose(alone, together[r], rtol=1e-4, equal_nan=True)


def test_the_centred_model_starts_at_zero_and_another_does_not():
    setting = Setting(depth=2, updates=1)
    data = nets.stream(setting, 0)
    assert nets.train(setting, 0, [0.1], [1e-9])[0, 0] == pytest.approx(
        float(data.labels.square().mean()), rel=1e-5
    )
    off = Setting(depth=2, updates=1, centred=False)
    assert nets.train(off, 0, [1e-3], [1e-9])[0, 0] > 100


def test_the_target_has_variance_1():
    _, y = nets.probe(Setting(depth=2, updates=1), 200_000)
    assert float(y.square().mean()) == pytest.approx(1, abs=0.03)
    assert float(y.mean()) == pytest.approx(0, abs=0.01)


def test_a_small_set_is_seen_once_a_pass():
    setting = Setting(depth=2, updates=6, batch_size=4, examples=8)
    seen = nets.stream(setting, 0).inputs.reshape(3, 8, -1)
    for one in seen:
        assert torch.equal(one.sort(0).values, seen[0].sort(0).values)
    assert not torch.equal(seen[0], seen[1])


def test_noise_flips_its_share_of_labels():
    clean, noisy = (
        nets.stream(Setting(depth=2, updates=100, loss="cross-entropy", noise=n), 0).labels
        for n in (0.0, 0.2)
    )
    assert float((clean != noisy).double().mean()) == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"depth": 1}, "`depth` must be 2 or more"), ({"examples": 3}, "`examples` must be 0, or")],
)
def test_impossible_settings_are_refused(change, words):
    with pytest.raises(InvalidValueError, match=words):
        Setting(**{"depth": 2, "updates": 1, **change})


def test_an_impossible_rate_is_refused():
    with pytest.raises(InvalidValueError, match="`rates` must be finite and above 0"):
        nets.train(Setting(depth=2, updates=1), 0, [1.0], [0.0])
