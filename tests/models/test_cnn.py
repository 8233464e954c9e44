import pytest
import torch
from torch.nn.functional import conv2d, max_pool2d

from batchlab.models.cnn import SmallCNN, ThreeConvCNN


def test_small_cnn_is_its_equation():
    model = SmallCNN(channels=(2, 3), classes=4)
    images = torch.randn(5, 1, 8, 8)
    first, second, last = (model.body[i] for i in (0, 2, 6))
    x = conv2d(images, first.weight, first.bias, padding=1).relu()
    x = conv2d(x, second.weight, second.bias, padding=1).relu()
    expected = max_pool2d(x, 2).flatten(1) @ last.weight.T + last.bias
    assert torch.allclose(model(images), expected, atol=1e-6)


def test_small_cnn_has_the_sizes_of_the_demo():
    layers = (9 * 16 + 16) + (9 * 16 * 32 + 32) + (512 * 10 + 10)
    assert sum(p.numel() for p in SmallCNN().parameters()) == layers


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 8)])
def test_three_conv_cnn_takes_the_size_it_was_made_for(channels, size):
    model = ThreeConvCNN(channels, size, channels=(2, 3, 4), classes=6)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, 6)


@pytest.mark.parametrize(("make", "size"), [(SmallCNN, 8), (ThreeConvCNN, 28)])
def test_no_example_sees_another(make, size):
    model, images = make(), torch.randn(4, 1, size, size)
    alone = torch.cat([model(image[None]) for image in images])
    assert torch.allclose(model(images), alone, atol=1e-5)
