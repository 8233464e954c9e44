"""The wrapper is the formula, leaves no name behind, and merges where it says so."""

import copy
import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

import batchlab
from batchlab.errors import InvalidTypeError, InvalidValueError
from batchlab.models.cnn import SmallCNN
from batchlab.models.feature_strength import (
    FeatureStrength,
    depth_of,
    rate_factor,
    transferred_rate,
)
from batchlab.models.mlp import MLP
from batchlab.models.parametrization import ScaledLinear
from batchlab.models.transformer import CausalTransformer, VisionTransformer

GAMMAS = st.floats(1e-3, 1e3)


class WithNorm(nn.Module):
    """Batch norm, two kinds of dropout and one that torch alone draws."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(6, 8), nn.BatchNorm1d(8)
        self.drop, self.alpha = nn.Dropout(0.5), nn.AlphaDropout(0.3)
        self.last = nn.Linear(8, 3)

    def forward(self, inputs):
        hidden = self.alpha(self.drop(torch.relu(self.norm(self.first(inputs)))))
        return self.last(nn.functional.dropout(hidden, 0.2, self.training))


def nudged(module, size=0.1):
    """The same module with weights away from its start."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))
    return module


def wrapped_mlp(gamma=1.0, **named):
    torch.manual_seed(0)
    return FeatureStrength(MLP(6, (8, 8), 3).double(), gamma, **named)


@settings(max_examples=20, deadline=None)
@given(gamma=GAMMAS, seed=st.integers(0, 99))
def test_output_is_the_difference_to_the_start_divided_by_gamma(gamma, seed):
    torch.manual_seed(seed)
    model = MLP(6, (8,), 3).double()
    start, inputs = copy.deepcopy(model), torch.randn(5, 6).double()
    wrapped = nudged(FeatureStrength(model, gamma))
    expected = (model(inputs) - start(inputs)) / torch.tensor(gamma, dtype=torch.float64)
    assert torch.equal(wrapped(inputs), expected)


def test_gamma_one_is_f_minus_its_start_exactly():
    wrapped, inputs = nudged(wrapped_mlp()), torch.randn(5, 6).double()
    assert torch.equal(wrapped(inputs), wrapped.model(inputs) - wrapped.start(inputs))


@pytest.mark.parametrize("training", [True, False])
def test_output_is_zero_at_the_start_with_norm_and_dropout(training):
    wrapped = FeatureStrength(WithNorm(), 1e-3).train(training)
    assert torch.equal(wrapped(torch.randn(16, 6)), torch.zeros(16, 3))


def test_a_copy_in_evaluation_mode_would_not_start_at_zero():
    wrapped = FeatureStrength(WithNorm(), 1.0).train()
    wrapped.start.eval()
    assert wrapped(torch.randn(16, 6)).abs().max() > 0.01


def test_dropout_draws_the_same_masks_as_without_the_wrapper():
    model = WithNorm().train()
    wrapped, inputs = FeatureStrength(copy.deepcopy(model), 1.0), torch.randn(16, 6)
    torch.manual_seed(3)
    alone, after = model(inputs), torch.get_rng_state()
    torch.manual_seed(3)
    with torch.no_grad():
        wrapped.model.last.bias.add_(1.0)
    assert torch.allclose(wrapped(inputs), torch.ones(16, 3), atol=1e-5)
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(3)
    wrapped.start.last.weight.zero_()
    wrapped.start.last.bias.zero_()
    assert torch.allclose(wrapped(inputs), alone + 1.0, atol=1e-5)


def test_batch_norm_of_copy_and_model_see_the_same_batches():
    wrapped = FeatureStrength(WithNorm(), 1.0).train()
    for _ in range(3):
        wrapped(torch.randn(16, 6))
    assert torch.equal(wrapped.start.norm.running_mean, wrapped.model.norm.running_mean)
    assert torch.equal(wrapped.eval()(torch.randn(4, 6)), torch.zeros(4, 3))


def test_only_the_model_is_trained():
    wrapped = wrapped_mlp()
    trained = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert trained == [f"model.{name}" for name, _ in wrapped.model.named_parameters()]


def test_state_loads_into_the_bare_model_and_back():
    wrapped, bare = nudged(wrapped_mlp()), MLP(6, (8, 8), 3).double()
    found = bare.load_state_dict(wrapped.state_dict(), strict=False)
    assert not found.missing_keys
    assert {key.split(".")[0] for key in found.unexpected_keys} == {"gamma", "start"}
    inputs = torch.randn(4, 6).double()
    assert torch.equal(bare(inputs), wrapped.model(inputs))
    before = wrapped.start(inputs)
    wrapped.load_state_dict(nudged(bare).state_dict())
    assert torch.equal(wrapped.model(inputs), bare(inputs))
    assert torch.equal(wrapped.start(inputs), before)


def test_state_of_the_wrapper_restores_it():
    wrapped, other = nudged(wrapped_mlp(3.0)), FeatureStrength(MLP(6, (8, 8), 3).double(), 1.0)
    other.load_state_dict(wrapped.state_dict())
    inputs = torch.randn(4, 6).double()
    assert torch.equal(other(inputs), wrapped(inputs))
    assert float(other.gamma) == 3.0


def test_state_survives_inside_another_module_and_a_model_called_model():
    outer = nn.Sequential(FeatureStrength(nn.Sequential(nn.Linear(6, 3)), 2.0))
    assert "0.0.weight" in outer.state_dict()
    twin = nn.Sequential(FeatureStrength(nn.Sequential(nn.Linear(6, 3)), 1.0))
    twin.load_state_dict(outer.state_dict())
    assert float(twin[0].gamma) == 2.0


def test_deepcopy_and_conversion_keep_the_function():
    wrapped, inputs = nudged(wrapped_mlp(2.0)), torch.randn(4, 6).double()
    twin = copy.deepcopy(wrapped)
    assert torch.equal(twin(inputs), wrapped(inputs))
    assert torch.allclose(twin.float()(inputs.float()).double(), wrapped(inputs), atol=1e-5)


def test_stacked_runs_may_differ_in_gamma():
    wrapped, inputs = nudged(wrapped_mlp()), torch.randn(4, 6).double()
    gammas = torch.tensor([0.5, 2.0]).double()
    together = torch.vmap(lambda g: functional_call(wrapped, {"gamma": g}, (inputs,)))(gammas)
    for gamma, found in zip(gammas, together, strict=True):
        wrapped.gamma.fill_(gamma)
        assert torch.allclose(found, wrapped(inputs), rtol=1e-12)


def test_zero_readout_merges_into_the_users_class():
    wrapped, inputs = wrapped_mlp(3.0, readout="body.5"), torch.randn(4, 6).double()
    assert torch.equal(wrapped(inputs), torch.zeros(4, 3).double())
    assert not wrapped.keeps_copy
    merged = nudged(wrapped).merged()
    assert type(merged) is MLP
    assert torch.allclose(merged(inputs), wrapped(inputs), rtol=1e-12)
    assert torch.equal(wrapped.merged()(inputs), merged(inputs))


def test_with_a_copy_merging_keeps_it():
    wrapped, inputs = nudged(wrapped_mlp(3.0)), torch.randn(4, 6).double()
    merged = wrapped.merged()
    assert merged.keeps_copy
    assert torch.equal(merged(inputs), wrapped(inputs))


def body_kernel(output, wrapped, keep):
    """‖∂F/∂θ‖² of the weights that are not the readout's."""
    own = [p for name, p in wrapped.named_parameters() if p.requires_grad and keep(name)]
    found = torch.autograd.grad(output.sum(), own)
    return sum(float(gradient.square().sum()) for gradient in found)


def test_a_copy_keeps_the_kernel_of_the_body_and_a_zero_readout_does_not():
    inputs = torch.randn(4, 6).double()
    bare, copied, zero = wrapped_mlp().model, wrapped_mlp(), wrapped_mlp(readout="body.5")

    def body(name):
        return "body.5" not in name

    whole = body_kernel(bare(inputs), bare, body)
    assert whole > 0
    assert body_kernel(copied(inputs), copied, body) == pytest.approx(whole)
    assert body_kernel(zero(inputs), zero, body) == 0


def test_features_shown_twice_with_opposite_signs_have_no_kernel_of_the_body_either():
    torch.manual_seed(0)
    body, readout = nn.Sequential(nn.Linear(6, 8), nn.Tanh()), torch.randn(3, 8)
    hidden = body(torch.randn(4, 6))
    output = torch.cat([hidden, hidden], 1) @ torch.cat([readout, -readout], 1).T
    found = torch.autograd.grad(output.square().sum() + output.sum(), list(body.parameters()))
    assert all(float(gradient.abs().max()) == 0 for gradient in found)


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.inf, math.nan, True])
def test_an_impossible_gamma_is_refused(gamma):
    with pytest.raises(InvalidValueError, match="`gamma` must be a finite number above 0"):
        FeatureStrength(nn.Linear(2, 1), gamma)


@pytest.mark.parametrize("readout", ["nothing", "body", "body.2"])
def test_a_readout_that_is_no_linear_layer_is_refused(readout):
    with pytest.raises(InvalidValueError, match="`readout` must be the name of a linear layer"):
        FeatureStrength(MLP(6, (8,), 3), 1.0, readout=readout)


@pytest.mark.parametrize("layer", [nn.LayerNorm(3), nn.BatchNorm1d(3), nn.Embedding(3, 3)])
def test_a_readout_that_is_only_named_like_a_linear_layer_is_refused(layer):
    with pytest.raises(InvalidValueError, match="`readout` must be the name of a linear layer"):
        FeatureStrength(nn.Sequential(nn.Linear(6, 3), layer), 1.0, readout="1")


class Before(nn.Module):
    """A linear layer, and what is done with its output."""

    def __init__(self, last, inner=None):
        super().__init__()
        self.inner, self.last = inner or nn.Linear(6, 3), last

    def forward(self, inputs):
        return self.last(self.inner(inputs))


AFTER = {
    "tanh": torch.tanh,
    "written over": torch.relu_,
    "another layer": nn.Linear(3, 3),
    "a sum": lambda outputs: outputs + 1.0,
}


@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6)])
def test_a_readout_that_something_follows_is_refused_in_the_first_call(after, shape):
    wrapped = FeatureStrength(Before(after), 4.0, readout="inner")
    with pytest.raises(InvalidValueError, match="`readout` must be the layer whose output is"):
        wrapped(torch.randn(shape))


def test_a_readout_that_is_called_twice_is_refused():
    layer = nn.Linear(3, 3)
    model = Before(lambda outputs: layer(outputs), layer)
    with pytest.raises(InvalidValueError, match="with nothing after it"):
        FeatureStrength(model, 4.0, readout="inner")(torch.randn(2, 3))


@pytest.mark.parametrize(
    ("last", "inner", "shape"),
    [
        (lambda outputs: outputs.squeeze(-1), nn.Linear(6, 1), (5, 6)),
        (lambda outputs: outputs[:, -1], nn.Linear(6, 3), (2, 5, 6)),
        (lambda outputs: outputs, ScaledLinear(6, 3), (5, 6)),
        (lambda outputs: outputs.flatten(1), nn.Conv1d(2, 3, 1), (4, 2, 6)),
    ],
)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_view_of_the_readout_merges(last, inner, shape, mode):
    wrapped = nudged(FeatureStrength(Before(last, copy.deepcopy(inner)), 4.0, readout="inner"))
    inputs = torch.randn(shape)
    with mode():
        found = wrapped(inputs)
        assert found.abs().max() > 0
        assert torch.allclose(wrapped.merged()(inputs), found, atol=1e-6)


def test_a_readout_that_shares_its_weights_is_refused():
    tied = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    tied["head"].weight = tied["embed"].weight
    with pytest.raises(InvalidValueError, match="no other layer shares"):
        FeatureStrength(tied, 1.0, readout="head")


def test_a_model_whose_names_clash_is_refused():
    with pytest.raises(InvalidValueError, match="without gamma or start at its top"):
        FeatureStrength(nn.ModuleDict({"start": nn.Linear(2, 1)}), 1.0)


def test_an_output_with_nothing_to_centre_is_refused():
    class Pair(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs), inputs

    with pytest.raises(InvalidTypeError, match="returns a tensor or `logits`"):
        FeatureStrength(Pair(2, 1), 1.0)(torch.zeros(3, 2))


def test_logits_of_a_dictionary_are_centred_and_the_rest_is_left():
    class Record(nn.Linear):
        def forward(self, inputs):
            return {"logits": super().forward(inputs), "hidden": inputs}

    wrapped, inputs = FeatureStrength(Record(2, 1), 4.0), torch.ones(3, 2)
    with torch.no_grad():
        wrapped.model.bias.add_(1.0)
    found = wrapped(inputs)
    assert torch.allclose(found["logits"], torch.full((3, 1), 0.25))
    assert torch.equal(found["hidden"], inputs)


@pytest.mark.parametrize(
    ("depth", "gamma", "power"), [(2, 0.01, 2), (3, 0.5, 2), (3, 50.0, 2 / 3)]
)
def test_the_rate_follows_the_law(depth, gamma, power):
    assert transferred_rate(0.3, gamma, depth) == pytest.approx(0.3 * gamma**power)
    assert rate_factor(1.0, depth) == 1.0


@pytest.mark.parametrize("depth", [0, -1, True])
def test_an_impossible_depth_is_refused(depth):
    with pytest.raises(InvalidValueError, match="`depth` must be a whole number, 1 or more"):
        rate_factor(2.0, depth)


class Residual(nn.Module):
    """Two ways from input to output: one layer, or three."""

    def __init__(self):
        super().__init__()
        self.short, self.long = nn.Linear(6, 4), nn.Sequential(MLP(6, (5, 5), 4), nn.LayerNorm(4))

    def forward(self, inputs):
        return self.short(inputs) + self.long(inputs)


class Shifted(nn.Module):
    """Two linear layers, one of a scaled matrix, and parameters that make no layer."""

    def __init__(self):
        super().__init__()
        self.first, self.matrix = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))
        self.positions = nn.Parameter(torch.zeros(1, 9, 4))
        self.token, self.size = nn.Parameter(torch.zeros(1, 1, 4)), nn.Parameter(torch.ones(4, 4))
        self.norm = nn.LayerNorm([4, 4])

    def forward(self, inputs):
        x = self.first(inputs) + self.positions[:, :3]
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) * self.size
        return self.norm(x) @ (self.matrix * 0.5).T


@pytest.mark.parametrize(
    ("model", "inputs", "depth"),
    [
        (Shifted(), torch.zeros(2, 3, 4), 2),
        (VisionTransformer(size=8, patch=4, width=8, layers=1), torch.zeros(2, 1, 8, 8), 6),
        (CausalTransformer(5, 4, 8, layers=1), torch.zeros(2, 3).long(), 6),
        (nn.Linear(6, 2), torch.zeros(2, 6), 1),
        (nn.Linear(6, 2, bias=False), torch.zeros(2, 6), 1),
        (MLP(6, (8, 8, 8), 2), torch.zeros(2, 6), 4),
        (SmallCNN(), torch.zeros(2, 1, 8, 8), 3),
        (Residual(), torch.zeros(2, 6), 3),
        (nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)), torch.zeros(2).long(), 2),
    ],
)
def test_depth_counts_weights_on_the_longest_path(model, inputs, depth):
    assert depth_of(model(inputs)) == depth
    assert depth_of(FeatureStrength(model, 2.0)(inputs)) == depth


def test_the_law_of_the_toy_model_follows_from_its_curvature():
    """f(w) = (w^L − 1)/γ: 2/Hessian at the minimum grows as γ², then as γ^(2/L)."""

    def largest_rate(gamma, depth):
        w = (1 + gamma) ** (1 / depth)
        return 2 * gamma**2 / (depth * w ** (depth - 1)) ** 2

    for depth in (2, 3, 5):
        for low, high in ((1e-6, 1e-5), (1e8, 1e9)):
            measured = math.log(largest_rate(high, depth) / largest_rate(low, depth))
            law = math.log(rate_factor(high, depth) / rate_factor(low, depth))
            assert measured == pytest.approx(law, rel=1e-3)


class Judged(nn.Module):
    """A classifier that computes its own loss, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.body, self.drop = nn.Linear(6, 8), nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)
        self.config = {"name": "judged"}

    def forward(self, inputs, labels=None):
        logits = self.head(self.drop(torch.relu(self.body(inputs))))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def generate(self):
        return "words"


@pytest.mark.parametrize("readout", [None, "head"])
@pytest.mark.parametrize("training", [True, False])
def test_a_loss_of_the_model_is_made_of_centred_logits(readout, training):
    wrapped = nudged(FeatureStrength(Judged(), 0.5, readout=readout)).train(training)
    inputs, labels = torch.randn(16, 6), torch.arange(16) % 3
    torch.manual_seed(1)
    found = wrapped(inputs, labels=labels)
    torch.manual_seed(1)
    logits = wrapped(inputs)["logits"]
    assert torch.allclose(found["logits"], logits, atol=1e-6)
    assert torch.allclose(found["loss"], nn.functional.cross_entropy(logits, labels))
    assert not wrapped.model.head._forward_hooks


class Capped(Judged):
    """Logits are changed after the last part."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def forward(self, inputs, labels=None):
        logits = self.after(self.head(torch.relu(self.body(inputs))))
        found = {"logits": logits}
        if labels is not None:
            found["loss"] = nn.functional.cross_entropy(logits, labels)
        return found


CAPS = {
    "soft cap": lambda logits: torch.tanh(logits),
    "written over": torch.relu_,
    "picked": lambda logits: logits[torch.arange(len(logits)).flip(0)],
}


def before_what_follows(wrapped, inputs):
    """The fault that a hook on the last part would be: the tail of a centred output."""
    now, start = (
        model.head(torch.relu(model.body(inputs))) for model in (wrapped.model, wrapped.start)
    )
    return wrapped.model.after((now - start) / wrapped.gamma)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("after", CAPS.values(), ids=CAPS)
def test_a_loss_is_made_of_centred_logits_where_something_follows_the_last_part(after, training):
    inputs, labels = torch.randn(4, 6), torch.arange(4) % 3
    wrapped = nudged(FeatureStrength(Capped(after), 0.5)).train(training)
    found = wrapped(inputs, labels=labels)
    logits = wrapped(inputs)["logits"]
    assert torch.allclose(found["logits"], logits, atol=1e-6)
    assert torch.allclose(found["loss"], nn.functional.cross_entropy(logits, labels))
    is_linear = torch.allclose(before_what_follows(wrapped, inputs), logits, atol=1e-6)
    assert is_linear == (after is CAPS["picked"])


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_a_loss_of_the_model_are_those_of_centred_logits(training):
    inputs, labels = torch.randn(4, 6), torch.arange(4) % 3
    wrapped = nudged(FeatureStrength(Capped(torch.tanh), 0.5)).train(training)
    weights = list(wrapped.model.parameters())
    found = torch.autograd.grad(wrapped(inputs, labels=labels)["loss"], weights)
    loss = nn.functional.cross_entropy(wrapped(inputs)["logits"], labels)
    for one, other in zip(found, torch.autograd.grad(loss, weights), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_first_look_without_gradients_leaves_no_graph():
    inputs, labels = torch.randn(4, 6), torch.arange(4) % 3
    wrapped = FeatureStrength(Capped(torch.tanh), 0.5)
    with torch.no_grad():
        found = wrapped(inputs, labels=labels)
    assert not any(value.requires_grad for value in found.values())
    assert wrapped(inputs, labels=labels)["loss"].requires_grad


def test_a_readout_that_something_follows_is_refused():
    wrapped = FeatureStrength(Capped(torch.tanh), 0.5, readout="head")
    with pytest.raises(InvalidValueError, match="with nothing after it"):
        wrapped(torch.randn(4, 6), labels=torch.arange(4) % 3)
    assert not wrapped.model.head._forward_hooks


class Beside(Judged):
    """Its loss is made of something else than the logits that it gives."""

    def forward(self, inputs, labels=None):
        raw = self.head(torch.relu(self.body(inputs)))
        found = {"logits": torch.tanh(raw)}
        if labels is not None:
            found["loss"] = nn.functional.cross_entropy(raw, labels)
        return found


class Both(Beside):
    """Partly so."""

    def forward(self, inputs, labels=None):
        found = super().forward(inputs, labels)
        if labels is not None:
            found["loss"] = found["loss"] + nn.functional.cross_entropy(found["logits"], labels)
        return found


class Otherwise(Judged):
    """Logits come by another way where there are labels."""

    def forward(self, inputs, labels=None):
        raw = self.head(torch.relu(self.body(inputs)))
        logits = torch.tanh(raw if labels is None else 2 * raw)
        found = {"logits": logits}
        if labels is not None:
            found["loss"] = nn.functional.cross_entropy(logits, labels)
        return found


class Silent(Judged):
    """Logits are written over, and what that returns is not used."""

    def forward(self, inputs, labels=None):
        logits = self.head(torch.relu(self.body(inputs)))
        torch.relu_(logits)
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return {"logits": logits} | loss


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("model", [Beside, Both, Otherwise, Silent])
def test_labels_are_refused_where_the_loss_is_not_made_of_centred_logits(model, grad):
    inputs, labels = torch.randn(4, 6), torch.arange(4) % 3
    wrapped = FeatureStrength(model(), 0.5)
    assert wrapped(inputs)["logits"].shape == (4, 3)
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(InvalidTypeError, match="compute the loss from the centred logits"),
    ):
        wrapped(inputs, labels=labels)
    assert not wrapped.model.head._forward_hooks
    assert not wrapped.model.head._forward_pre_hooks


def test_labels_are_taken_where_logits_are_a_view_of_the_last_part():
    inputs, labels = torch.randn(4, 6), torch.arange(2)
    wrapped = nudged(FeatureStrength(Capped(lambda logits: logits.view(2, -1)), 0.5))
    found = wrapped(inputs, labels=labels)
    assert torch.allclose(found["logits"], wrapped(inputs)["logits"], atol=1e-6)
    assert found["logits"].shape == (2, 6)


def test_the_loss_of_the_start_is_that_of_equal_logits():
    wrapped = FeatureStrength(Judged(), 1e-3).train()
    loss = wrapped(torch.randn(16, 6), labels=torch.arange(16) % 3)["loss"]
    assert float(loss.detach()) == pytest.approx(math.log(3), abs=1e-6)


def test_the_model_can_be_read_but_its_methods_are_not_centred():
    wrapped = FeatureStrength(Judged(), 1.0)
    assert wrapped.config == {"name": "judged"}
    assert list(inspect.signature(wrapped.forward).parameters) == ["inputs", "labels"]
    assert "labels" in inspect.signature(type(wrapped).forward).parameters
    with pytest.raises(AttributeError, match="`generate` of the wrapped model is not centred"):
        wrapped.generate()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wrapped.nothing


def test_it_is_public():
    assert batchlab.FeatureStrength is FeatureStrength
