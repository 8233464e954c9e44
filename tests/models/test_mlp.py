import itertools

import pytest
import torch
from torch import nn

from batchlab.models.mlp import MLP


def test_mlp_is_its_equation():
    model = MLP(3, (4,), 2, activation=nn.Tanh)
    x = torch.randn(5, 3)
    first, second = model.body[1], model.body[3]
    hidden = torch.tanh(x @ first.weight.T + first.bias)
    assert torch.allclose(model(x), hidden @ second.weight.T + second.bias, atol=1e-6)


def test_without_hidden_layers_it_is_linear():
    model = MLP(3, (), 2, bias=False)
    x, y = torch.randn(2, 5, 3)
    assert torch.allclose(model(x) + 2 * model(y), model(x + 2 * y), atol=1e-6)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 7), (8, 7, 6)])
def test_depth_and_parameters(hidden):
    model = MLP(5, hidden, 3)
    widths = (5, *hidden, 3)
    expected = sum((a + 1) * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model(torch.zeros(2, 5)).shape == (2, 3)
