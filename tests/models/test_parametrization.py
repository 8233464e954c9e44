import math

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, gelu, layer_norm, max_pool2d

from batchlab.errors import InvalidValueError
from batchlab.models.cnn import FourLayerCNN, mean_field_cnn
from batchlab.models.feature_strength import depth_of
from batchlab.models.mlp import MLP, mean_field_mlp
from batchlab.models.parametrization import (
    LAYERS,
    ScaledConv2d,
    ScaledLinear,
    parameter_groups,
    rate_multiples,
)
from batchlab.models.resnet import ResNet
from batchlab.models.transformer import VisionTransformer

PICTURES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def mlp(width, parametrization):
    return MLP(192, (width, width), 3, parametrization=parametrization)


def cnn(width, parametrization):
    return FourLayerCNN(3, 8, width, 3, parametrization)


def resnet(width, parametrization):
    return ResNet((1, 1), width, 3, norm="layer", parametrization=parametrization)


def resnet_with_batch_norm(width, parametrization):
    return ResNet((1, 1), width, 3, parametrization=parametrization)


def vit(width, parametrization):
    return VisionTransformer(3, 8, 4, width, classes=3, parametrization=parametrization)


NETWORKS = [mlp, cnn, resnet, resnet_with_batch_norm, vit]


def made(make, parametrization, width=8):
    torch.manual_seed(0)
    return make(width, parametrization)


def with_random_biases(model):
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return model


# -- equations ------------------------------------------------------------------------------------


def test_mean_field_mlp_is_its_equation():
    model = with_random_biases(made(mlp, "mean-field"))
    first, second, last = (model.body[i] for i in (1, 3, 5))
    h = ((PICTURES.flatten(1) @ first.weight.T + first.bias) / math.sqrt(192)).relu()
    h = ((h @ second.weight.T + second.bias) / math.sqrt(8)).relu()
    torch.testing.assert_close(model(PICTURES), (h @ last.weight.T + last.bias) / 8)


def test_mean_field_cnn_is_its_equation():
    model = with_random_biases(made(cnn, "mean-field"))
    first, second, third, last = (model.body[i] for i in (0, 3, 7, 9))
    h = conv2d(PICTURES, first.weight, first.bias, padding=1) / math.sqrt(3)
    h = conv2d(max_pool2d(h.relu(), 2), second.weight, second.bias, padding=1) / math.sqrt(8)
    h = max_pool2d(h.relu(), 2).flatten(1)
    h = ((h @ third.weight.T + third.bias) / math.sqrt(64)).relu()
    torch.testing.assert_close(model(PICTURES), (h @ last.weight.T + last.bias) / 64)


@pytest.mark.parametrize(
    ("parametrization", "attention"), [("standard", 2.0), ("mean-field", 4.0)]
)
def test_vision_transformer_is_its_equation(parametrization, attention):
    model = with_random_biases(made(vit, parametrization))  # 2 heads of 4 features

    def linear(layer, x):
        mean_field = parametrization == "mean-field"
        power = 0 if not mean_field else 1 if layer is model.head else 0.5
        return (x @ layer.weight.T + layer.bias) / layer.in_features**power

    def norm(layer, x):
        return layer_norm(x, (8,), layer.weight, layer.bias)

    cut = PICTURES.unfold(2, 4, 4).unfold(3, 4, 4)  # [B, channels, 2, 2, 4, 4]
    x = linear(model.tokens, cut.permute(0, 2, 3, 1, 4, 5).reshape(4, 4, 48)) + model.positions
    for layer in model.layers:
        before, attend, _ = layer.attend
        mixed = []
        for part in linear(attend.project_in, norm(before, x)).unflatten(-1, (3, 2, 4)).unbind(-2):
            query, key, value = part.unbind(-2)
            mixed.append((query @ key.mT / attention).softmax(-1) @ value)
        x = x + linear(attend.project_out, torch.cat(mixed, -1))
        x = x + linear(layer.think[3], gelu(linear(layer.think[1], norm(layer.think[0], x))))
    expected = linear(model.head, norm(model.norm, x).mean(1))
    torch.testing.assert_close(model(PICTURES), expected)


def test_a_later_patch_changes_what_an_earlier_token_says():
    model = made(vit, "standard")
    said = []
    model.layers.register_forward_hook(lambda module, given, out: said.append(out[:, 0]))
    other = PICTURES.clone()
    other[..., 4:, 4:] += 1
    model(PICTURES), model(other)
    assert not torch.allclose(*said, atol=1e-4)


def test_with_layer_norm_no_example_sees_another():
    for parametrization in LAYERS:
        model = made(resnet, parametrization)
        torch.testing.assert_close(model(PICTURES)[:2], model(PICTURES[:2]))


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_depth_of_the_sources_mlp_counts_the_readout(depth):
    assert depth_of(mean_field_mlp(5, 4, depth)(torch.randn(2, 5))) == depth


@pytest.mark.parametrize(
    "network",
    [
        lambda gamma: mean_field_mlp(192, 8, 3, 2, gamma),
        lambda gamma: mean_field_cnn(3, 8, 2, 2, gamma),
    ],
)
def test_the_sources_networks_are_centred_and_divided_by_gamma(network):
    torch.manual_seed(0)
    model = network(4.0)
    given = PICTURES if hasattr(model.model.body[0], "kernel_size") else PICTURES.flatten(1)
    before = model.model(given)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter += 1
    torch.testing.assert_close(model(given), (model.model(given) - before) / 4)


def test_a_network_without_layers_is_refused():
    with pytest.raises(InvalidValueError, match="`depth` must be 1 or more; got 0"):
        mean_field_mlp(3, depth=0)


# -- starts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", NETWORKS)
def test_the_standard_parametrization_is_made_of_torchs_own_layers(make):
    model = made(make, "standard")
    with_weights = [m for m in model.modules() if getattr(m, "weight", None) is not None]
    assert {type(m).__module__.partition(".")[0] for m in with_weights} == {"torch"}


def test_the_standard_mlp_starts_as_torchs_layers_in_turn():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(192, 8), nn.Linear(8, 8), nn.Linear(8, 3))
    ours = made(mlp, "standard")
    for a, b in zip(plain.parameters(), ours.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("make", NETWORKS)
def test_mean_field_weights_start_from_the_unit_normal(make):
    layers = [m for m in made(make, "mean-field", 32).modules() if hasattr(m, "multiplier")]
    assert len(layers) >= 3
    for layer in layers:
        n = layer.weight.numel()
        # A mean of n squares scatters by √(2/n).
        assert abs(layer.weight.square().mean() - 1) < 5 * math.sqrt(2 / n)
        assert layer.bias is None or not layer.bias.any()


def test_an_unknown_parametrization_is_refused():
    with pytest.raises(InvalidValueError, match="must be 'standard' or 'mean-field'; got 'ntk'"):
        MLP(3, parametrization="ntk")


def test_an_unknown_norm_is_refused():
    with pytest.raises(InvalidValueError, match="must be 'batch' or 'layer'; got 'group'"):
        ResNet(norm="group")


def test_patches_that_do_not_tile_are_refused():
    with pytest.raises(InvalidValueError, match="`size` must be a multiple of the patch, 5"):
        VisionTransformer(size=28, patch=5)


# -- learning rates -------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "readout"), [(mlp, 8), (cnn, 64), (resnet, 16), (vit, 8)])
def test_sgd_multiplies_every_rate_by_the_inputs_of_the_readout(make, readout):
    model = made(make, "mean-field")
    names = [name for name, _ in model.named_parameters()]
    assert rate_multiples(model) == dict.fromkeys(names, float(readout))


@pytest.mark.parametrize("layer", [ScaledLinear(6, 2), ScaledLinear(6, 2, power=1.0)])
def test_adams_multiple_moves_an_output_by_one_for_weights_and_bias_alike(layer):
    model = nn.Sequential(ScaledLinear(6, 6), nn.ReLU(), layer, ScaledLinear(2, 1, power=1.0))
    multiples = rate_multiples(model, "adam")
    before = layer(torch.ones(1, 6))
    with torch.no_grad():
        layer.weight += multiples["2.weight"]
        middle = layer(torch.ones(1, 6))
        layer.bias += multiples["2.bias"]
    torch.testing.assert_close(middle, before + 1)
    torch.testing.assert_close(layer(torch.ones(1, 6)), before + 2)


def test_adams_multiple_counts_the_places_of_a_kernel():
    model = nn.Sequential(ScaledConv2d(4, 4, 3, bias=False), ScaledLinear(4, 1, power=1.0))
    assert rate_multiples(model, "adamw")["0.weight"] == pytest.approx(1 / (9 * math.sqrt(4)))


def test_groups_hold_every_trainable_parameter_once_at_its_rate():
    model = made(vit, "mean-field")
    model.positions.requires_grad_(False)
    groups = parameter_groups(model, 0.5, "adam")
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    multiples = rate_multiples(model, "adam")
    assert "positions" not in multiples
    assert rates == {id(model.get_parameter(name)): 0.5 * m for name, m in multiples.items()}
    assert sum(len(group["params"]) for group in groups) == len(rates)


def test_rates_of_a_standard_network_are_refused():
    with pytest.raises(InvalidValueError, match="`model` must be one that divides its readout"):
        rate_multiples(made(mlp, "standard"))


def first_change(width, rate, parametrization):
    """Mean over 20 starts of an output's change in one SGD step of a linear network of depth 2."""
    changes = []
    for seed in range(20):
        torch.manual_seed(seed)
        model = MLP(1, (width,), 1, nn.Identity, bias=False, parametrization=parametrization)
        x = torch.ones(1, 1)
        before = model(x).sum()
        before.backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                p -= rate(model).get(name, 0.1) * p.grad
            changes.append((before - model(x)).item())
    return sum(changes) / 20


@pytest.mark.parametrize(
    ("parametrization", "rate", "ratio"),
    [
        ("mean-field", lambda model: {k: 0.1 * v for k, v in rate_multiples(model).items()}, 1),
        ("mean-field", lambda model: {}, 1 / 16),
        ("standard", lambda model: {}, 16),
    ],
    ids=["n times eta", "a constant rate freezes", "PyTorch's grows"],
)
def test_the_first_step_changes_the_output_alike_at_every_width(parametrization, rate, ratio):
    """f = Σ aᵢwᵢ/N, dt = η: Δf = −η Σ (aᵢ² + wᵢ²)/N, of mean 2η; 20 starts of width 64 scatter
    by less than 6 %."""
    small, large = (first_change(width, rate, parametrization) for width in (64, 1024))
    assert large / small == pytest.approx(ratio, rel=0.25)
