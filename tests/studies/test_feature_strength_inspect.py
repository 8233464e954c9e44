"""Sharpness and kernels of many nets against autograd on one."""

import pytest
import torch

from batchlab.studies.feature_strength import nets
from batchlab.studies.feature_strength.inspect import Inspector, tangent_kernel
from batchlab.studies.feature_strength.nets import Layer, Setting

SETTING = Setting(depth=3, updates=1, width=5, inputs=4)


def moved(seed):
    """A net some way from the start, and the start."""
    begin = nets.start(SETTING, seed)
    rng = torch.Generator().manual_seed(seed)
    net = tuple(
        Layer(*(p + 0.3 * torch.randn(p.shape, generator=rng, dtype=p.dtype) for p in layer))
        for layer in begin
    )
    return begin, net


def flat(net):
    return torch.cat([p.flatten() for layer in net for p in layer])


def unflat(vector):
    sizes = [(4, 5), (1, 5), (5, 5), (1, 5), (5, 1), (1, 1)]
    parts = vector.split([a * b for a, b in sizes])
    shaped = [part.view(1, *size) for part, size in zip(parts, sizes, strict=True)]
    return tuple(Layer(*shaped[i : i + 2]) for i in (0, 2, 4))


@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_sharpness_is_the_largest_eigenvalue_of_the_dense_hessian(loss):
    setting = Setting(depth=3, updates=1, width=5, inputs=4, loss=loss)
    (begin, net), gammas = moved(1), torch.tensor([0.5, 3.0])
    x, y = nets.probe(setting, 12)
    inspector = Inspector(setting, begin, (x, y))
    both = tuple(Layer(*(p.repeat(2, 1, 1) for p in layer)) for layer in net)
    found = inspector.sharpness(both, gammas)
    for gamma, one in zip(gammas.tolist(), found.tolist(), strict=True):

        def of(vector, gamma=gamma):
            f = nets.forward(unflat(vector), x, setting)[-1]
            F = (f - nets.forward(begin, x, setting)[-1]) / gamma
            return nets.losses_and_slopes(F, y, loss)[0].sum()

        dense = torch.func.hessian(of)(flat(net))
        assert one == pytest.approx(5 * float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-2)


def test_the_tangent_kernel_is_that_of_all_gradients():
    _, net = moved(2)
    x, _ = nets.probe(SETTING, 6)

    def f(vector):
        return nets.forward(unflat(vector), x, SETTING)[-1][0, :, 0]

    slopes = torch.func.jacrev(f)(flat(net))
    assert torch.allclose(tangent_kernel(net, x, SETTING)[0], slopes @ slopes.T, atol=1e-12)


def test_alignment_is_1_for_a_kernel_that_is_the_labels_and_less_for_another():
    begin, net = moved(3)
    x, _ = nets.probe(SETTING, 6)
    kernel = tangent_kernel(net, x, SETTING)[0]
    values, vectors = torch.linalg.eigh(kernel)
    inspector = Inspector(SETTING, begin, (x, vectors[:, -1:]))
    expected = float(values[-1] / values.square().sum().sqrt())
    assert float(inspector.alignment(net)) == pytest.approx(expected)
    other = Inspector(SETTING, begin, (x, vectors[:, :1]))
    assert float(other.alignment(net)) < expected


def test_outputs_are_centred_and_divided():
    begin, net = moved(4)
    x, y = nets.probe(SETTING, 6)
    inspector = Inspector(SETTING, begin, (x, y))
    gammas = torch.tensor([2.0])
    assert inspector.outputs(begin, gammas).abs().max() == 0
    exact = (nets.forward(net, x, SETTING)[-1] - nets.forward(begin, x, SETTING)[-1]) / 2
    assert torch.allclose(inspector.outputs(net, gammas), exact)
    assert inspector.hidden(net).shape == (1, 6, 5)


def test_signal_to_noise_is_that_of_the_gradients_of_single_examples():
    begin, net = moved(5)
    x, y = nets.probe(SETTING, 7)
    gamma = 2.0

    def loss(vector, one, label):
        F = nets.forward(unflat(vector), one[None], SETTING)[-1]
        F = (F - nets.forward(begin, one[None], SETTING)[-1]) / gamma
        return (F - label).square().sum()

    slope = torch.func.grad(loss)
    slopes = torch.stack([slope(flat(net), *one) for one in zip(x, y, strict=True)])
    noise = float(slopes.var(0).sum())
    signal = float(slopes.mean(0).square().sum()) - noise / 7
    found = Inspector(SETTING, begin, (x, y)).signal_to_noise(net, torch.tensor([gamma]))
    assert float(found) == pytest.approx(signal / noise, rel=1e-9)
