"""Norms from hooks are those of plain autograd, example by example; what cannot be is refused."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from batchlab.watch import gradients
from batchlab.watch.gradients import MicroBatches
from tests.watch.models import (
    MODELS,
    Positions,
    features,
    gru,
    loss_of,
    made,
    moved,
    pictures,
    signals,
    words,
)

CASES = [pytest.param(*case, id=name) for name, case in MODELS.items()]


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def gradient(model, loss, parameters):
    """The naive twin: plain autograd, as one vector."""
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    filled = (
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    )
    return torch.cat([g.flatten() for g in filled])


def one_by_one(model, batch, parameters):
    ones = [(batch[0][i : i + 1], batch[1][i : i + 1]) for i in range(len(batch[0]))]
    return torch.stack([gradient(model, loss_of(model, one), parameters) for one in ones])


def watched(collector, model, batches, *, check=True, loss=loss_of, factor=1.0):
    """What a collector finds in one update of these micro-batches."""
    model.zero_grad()
    collector.start(check=check)
    for batch in batches:
        collector.size = len(batch[1])
        (factor * loss(model, batch) / len(batches)).backward()
    return collector.stop([len(batch[1]) for batch in batches])


def by_example(model, left_out=None):
    return gradients.per_example(model, trained(model), left_out or {})[0]


# -- per example ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "data"), CASES)
def test_norms_of_examples_and_of_their_mean_are_those_of_plain_autograd(make, data):
    model, batch = made(make), moved(data(6))
    alone = one_by_one(model, batch, trained(model))
    found = watched(by_example(model), model, [batch])
    torch.testing.assert_close(found.small_sq, alone.square().sum(1).mean())
    torch.testing.assert_close(found.big_sq, alone.mean(0).square().sum())
    assert (found.small, found.big) == (1, 6)


@pytest.mark.parametrize(("make", "data"), CASES)
def test_contributions_make_up_the_gradient(make, data):
    model = made(make)
    found = watched(by_example(model), model, [moved(data(6))])
    assert set(found.missed) == set(trained(model))
    assert max(map(float, found.missed.values())) < 1e-3


@pytest.mark.parametrize(("make", "data"), CASES)
def test_accumulated_micro_batches_are_one_batch(make, data):
    model, batch = made(make), moved(data(6))
    halves = [tuple(leaf[part] for leaf in batch) for part in (slice(3), slice(3, 6))]
    alone = one_by_one(model, batch, trained(model))
    found = watched(by_example(model), model, halves)
    torch.testing.assert_close(found.small_sq, alone.square().sum(1).mean())
    torch.testing.assert_close(found.big_sq, alone.mean(0).square().sum())
    assert (found.small, found.big) == (1, 6)


def test_examples_measured_are_a_fair_part_of_a_larger_batch():
    model, batch = made(MODELS["mlp"][0]), moved(features(40))
    alone = one_by_one(model, batch, trained(model)).square().sum(1)
    found = watched(by_example(model), model, [batch])
    some = gradients._some(40, gradients.EXAMPLES, torch.device("cpu"))
    assert len(set(some.tolist())) == gradients.EXAMPLES
    torch.testing.assert_close(found.small_sq, alone[some].mean())


def test_a_factor_on_the_loss_multiplies_both_norms_by_its_square():
    model, batch = made(MODELS["mlp"][0]), moved(features(6))
    plain = watched(by_example(model), model, [batch])
    scaled = watched(by_example(model), model, [batch], factor=1024.0)
    torch.testing.assert_close(scaled.small_sq, plain.small_sq * 1024**2)
    torch.testing.assert_close(scaled.big_sq, plain.big_sq * 1024**2)


def test_frozen_parameters_do_not_count():
    model, batch = made(MODELS["mlp"][0]), moved(features(6))
    next(iter(model.parameters())).requires_grad_(False)
    alone = one_by_one(model, batch, trained(model))
    found = watched(by_example(model), model, [batch])
    torch.testing.assert_close(found.small_sq, alone.square().sum(1).mean())


def test_clipping_comes_after():
    model, batch = made(MODELS["mlp"][0]), moved(features(6))
    collector = by_example(model)
    model.zero_grad()
    collector.start(check=False)
    collector.size = 6
    loss_of(model, batch).backward()
    whole = sum(p.grad.square().sum() for p in trained(model))
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    torch.testing.assert_close(collector.stop([6]).big_sq, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_norms_agree_to_its_precision(dtype):
    model, batch = made(MODELS["convolutions"][0], torch.float32), pictures(6)

    def loss(model, batch):
        with torch.autocast("cpu", dtype=dtype):
            return loss_of(model, batch)

    alone = one_by_one(model, batch, trained(model))
    found = watched(by_example(model), model, [batch], loss=loss)
    torch.testing.assert_close(found.small_sq, alone.square().sum(1).mean(), rtol=0.05, atol=0)
    assert max(map(float, found.missed.values())) < 1


def test_measuring_is_not_autocast_where_the_backward_pass_is():
    seen = []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradients._plainly(torch.device("cpu"), lambda x: seen.append(x @ x), torch.ones(2, 2))
    assert seen[0].dtype == torch.float32


# -- micro-batches --------------------------------------------------------------------------------


def test_norms_of_micro_batches_are_those_of_plain_autograd_for_any_layer():
    model, batch = made(gru), moved(signals(12))
    parts = [tuple(leaf[i : i + 4] for leaf in batch) for i in (0, 4, 8)]
    alone = torch.stack([gradient(model, loss_of(model, part), trained(model)) for part in parts])
    found = watched(MicroBatches(trained(model)), model, parts)
    torch.testing.assert_close(found.small_sq, alone.square().sum(1).mean())
    torch.testing.assert_close(found.big_sq, alone.mean(0).square().sum())
    assert (found.small, found.big) == (4, 12)


def test_gradients_that_were_not_set_to_zero_are_noticed():
    model, batch = made(gru), moved(signals(4))
    loss_of(model, batch).backward()
    collector = MicroBatches(trained(model))
    collector.start(check=True)
    for _ in range(2):
        loss_of(model, batch).backward()
    assert max(map(float, collector.stop([4, 4]).missed.values())) > 1


# -- what cannot be measured ----------------------------------------------------------------------


def test_a_table_of_places_is_refused_and_the_rest_is_right():
    model, batch = made(Positions), moved(words(4))
    collector = by_example(model)
    assert watched(collector, model, [batch]) is None
    assert set(collector.refused) == {model.places.weight}
    rest = by_example(model, collector.refused)
    alone = one_by_one(model, batch, rest.parameters)
    torch.testing.assert_close(
        watched(rest, model, [batch]).small_sq, alone.square().sum(1).mean()
    )


def test_a_table_of_places_as_long_as_the_batch_is_refused_too():
    model = made(Positions)
    collector = by_example(model)
    assert watched(collector, model, [moved(words(5))]) is None
    assert collector.refused[model.places.weight] == "Embedding of positions"


def test_a_weight_that_the_loss_sees_beside_its_layer_is_noticed():
    model = made(MODELS["mlp"][0])
    last = model.body[-1].weight

    def penalised(model, batch):
        return loss_of(model, batch) + 0.05 * last.square().sum()

    found = watched(by_example(model), model, [moved(features(6))], loss=penalised)
    missed = [p is last for p, times in found.missed.items() if float(times) > 1]
    assert missed == [True]


def test_a_layer_that_is_not_called_is_noticed():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            return nn.functional.linear(x, self.out.weight, self.out.bias)

    model = made(Functional)
    assert watched(by_example(model), model, [moved(features(6))]) is None


def test_an_input_changed_in_place_is_noticed():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            x = x + 0.0
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = self.out(x)
            x.zero_()
            return out.float()

    model = made(Overwrites, torch.float32)
    collector = by_example(model)
    assert watched(collector, model, [features(6)]) is None
    assert set(collector.refused.values()) == {"Linear whose input was changed in place"}


def test_checkpointed_activations_are_left_alone():
    model, batch = made(MODELS["mlp"][0]), moved(features(6))

    def loss(model, batch):
        out = checkpoint(model, batch[0], use_reentrant=False)
        return cross_entropy(out, batch[1])

    collector = by_example(model)
    assert watched(collector, model, [batch], loss=loss) is None
    assert "checkpointed" in collector.failure


def test_reentrant_checkpoints_are_measured():
    model, (x, y) = made(MODELS["mlp"][0]), moved(features(6))
    batch = x.requires_grad_(), y

    def loss(model, batch):
        return cross_entropy(checkpoint(model, batch[0], use_reentrant=True), batch[1])

    alone = one_by_one(model, batch, trained(model))
    found = watched(by_example(model), model, [batch], loss=loss)
    torch.testing.assert_close(found.small_sq, alone.square().sum(1).mean())


@pytest.mark.parametrize("sizes", [[6, 3], [1]])
def test_an_update_that_cannot_be_split_is_left_out(sizes):
    model = made(MODELS["mlp"][0])
    batches = [moved(features(size)) for size in sizes]
    collector = by_example(model)
    assert watched(collector, model, batches) is None
    assert not collector.failure


def test_two_backward_passes_for_one_batch_are_left_out():
    model, batch = made(MODELS["mlp"][0]), moved(features(6))
    collector = by_example(model)
    collector.start(check=False)
    collector.size = 6
    for _ in range(2):
        loss_of(model, batch).backward()
    assert collector.stop([6]) is None


def test_a_failure_in_a_hook_ends_the_measurement_and_not_the_training(monkeypatch):
    def broken(*args):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(gradients._per_example, "squares", broken)
    model, batch = made(MODELS["mlp"][0]), moved(features(6))
    collector = by_example(model)
    assert watched(collector, model, [batch]) is None
    assert collector.failure == "RuntimeError: no memory left"
    assert all(p.grad is not None for p in trained(model))


def test_no_hook_is_left_behind():
    model, batch = made(MODELS["mlp"][0]), moved(features(6))
    watched(by_example(model), model, [batch])
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_graph_kept_beyond_the_update_is_not_counted():
    model, batch = made(MODELS["mlp"][0]), moved(features(6))
    collector = by_example(model)
    collector.start(check=False)
    collector.size = 6
    loss = loss_of(model, batch)
    loss.backward(retain_graph=True)
    collector.stop([6])
    loss.backward()
    assert not collector._uses


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "batch normalisation"),
        (lambda: torch.compile(nn.Linear(2, 2)), "compiled"),
    ],
)
def test_models_whose_examples_cannot_be_told_apart_are_refused(make, match):
    assert match in gradients.forbidden(make())


def test_a_module_compiled_in_place_is_refused():
    model = nn.Linear(2, 2)
    model.compile()
    assert "compiled" in gradients.forbidden(model)


def test_layers_without_a_formula_are_named_and_not_covered():
    model = made(gru)
    collector, others = gradients.per_example(model, trained(model), {})
    assert others == "GRU"
    share = gradients.covered(collector.parameters, trained(model))
    assert share == pytest.approx(10 / sum(p.numel() for p in model.parameters()))


def test_a_parameter_shared_with_a_layer_without_a_formula_is_not_covered():
    plain, strange = nn.Linear(3, 3, bias=False), nn.RNNCell(3, 3, bias=False)
    strange.weight_ih = plain.weight
    both = nn.ModuleList([plain, strange])
    collector, _ = gradients.per_example(both, trained(both), {})
    assert collector.parameters == []
