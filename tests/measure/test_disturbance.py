"""What is disturbed, by how much, and what is left alone."""

import pytest
import torch
from torch import nn

from batchlab import _random
from batchlab.errors import InvalidValueError
from batchlab.measure.disturbance import (
    TABLE,
    Disturbance,
    Input,
    Kind,
    axes_of,
    disturb,
    disturbed,
    input_leaves,
    inputs_of,
    noisy_weights,
    offered,
    shapes_of,
    why_not,
)
from batchlab.tasks import Task
from batchlab.tasks.source import Stacked


def _task(data, **given):
    return Task(lambda: nn.Linear(2, 2), data, loss=lambda o, b: o.mean(1), **given)


def _inputs(x):
    data = x, torch.arange(len(x)) % 2
    return inputs_of(_task(data), Stacked(data))


def _pictures():
    return torch.rand(6, 2, 5, 4, generator=torch.Generator().manual_seed(0))


def _none(what):
    return Disturbance(what.kind, 0, what.unit, what.draws)


WITHOUT_TRAINING = [what for what in TABLE if not what.in_training]


@pytest.mark.parametrize("what", WITHOUT_TRAINING, ids=lambda what: what.id)
def test_a_disturbance_of_size_0_changes_no_bit(what):
    batch = _pictures(), torch.arange(6) % 2
    for draw in range(what.draws):
        seen = disturbed(batch, _inputs(batch[0]), _none(what), draw)
        assert torch.equal(seen[0], batch[0])
    weights = {"w": torch.randn(3, 2)}
    assert torch.equal(noisy_weights(weights, 0.0, 0)["w"], weights["w"])


@pytest.mark.parametrize("what", WITHOUT_TRAINING, ids=lambda what: what.id)
def test_targets_are_the_same_tensor_and_the_batch_is_not_written_to(what):
    batch = _pictures(), torch.arange(6) % 2
    before = batch[0].clone()
    seen = disturbed(batch, _inputs(batch[0]), what)
    assert seen[1] is batch[1]
    assert torch.equal(batch[0], before)


def test_brightness_adds_the_stated_share_of_each_channels_sd_both_ways():
    x, bright = _pictures(), Disturbance(Kind.BRIGHTNESS, 0.3, "sd", draws=2)
    sd = x.double().transpose(0, 1).flatten(1).std(1, correction=0)
    batch = x, torch.zeros(6)
    up, down = (disturbed(batch, _inputs(x), bright, draw)[0] - x for draw in (0, 1))
    wanted = (0.3 * sd).float().view(1, 2, 1, 1).expand_as(x)
    assert torch.allclose(up, wanted, atol=1e-6)
    assert torch.allclose(down, -wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("direction", "wanted"),
    [
        (0, [[0, 0, 1], [3, 3, 4], [6, 6, 7]]),
        (1, [[0, 1, 2], [0, 1, 2], [3, 4, 5]]),
        (2, [[1, 2, 2], [4, 5, 5], [7, 8, 8]]),
        (3, [[3, 4, 5], [6, 7, 8], [6, 7, 8]]),
    ],
    ids=["right", "down", "left", "up"],
)
def test_a_shift_moves_whole_pixels_and_repeats_the_edge(direction, wanted):
    x = torch.arange(9.0).view(1, 1, 3, 3)
    about = Input(0, axes_of(x.shape), torch.ones(()))
    shift = Disturbance(Kind.SHIFT, 1, "pixels", draws=4)
    moved = disturb(x, about, shift, direction, torch.Generator())
    assert moved[0, 0].tolist() == wanted


def test_a_shift_beyond_the_picture_shows_its_edge():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    about = Input(0, axes_of(x.shape), torch.ones(()))
    far = Disturbance(Kind.SHIFT, 7, "pixels", draws=4)
    assert disturb(x, about, far, 0, torch.Generator())[0, 0, 1].tolist() == [3, 3, 3]


@pytest.mark.parametrize(("shape", "axis"), [((4, 9, 3), 1), ((4, 3, 9), 2), ((4, 9), 1)])
def test_drift_is_a_line_along_time_from_0_to_the_stated_size(shape, axis):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    inputs = _inputs(x)
    drift = Disturbance(Kind.DRIFT, 0.5, "sd", draws=2)
    added = disturbed((x, torch.zeros(4)), inputs, drift, 0)[0] - x
    sd = inputs[0].sd.expand(x.shape)
    share = (added / sd).movedim(axis, -1)
    assert torch.allclose(share, torch.linspace(0, 0.5, 9).expand_as(share), atol=1e-5)


def test_noise_has_the_stated_size_in_each_features_own_sd():
    """n = 40,000 numbers a feature; the standard error of an sd is 0.35 % of it, |z| ≤ 4."""
    x = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(2)) * torch.tensor([1, 50])
    noise = Disturbance(Kind.INPUT_NOISE, 0.3, "sd")
    inputs = _inputs(x)
    added = disturbed((x, torch.zeros(40_000)), inputs, noise)[0] - x
    sizes = added.std(0) / x.std(0)
    assert (sizes / 0.3 - 1).abs().max() < 4 * 0.0036
    # The twin takes one sd for all features: the small one drowns.
    flat = [inputs[0]._replace(sd=x.std())]
    added = disturbed((x, torch.zeros(40_000)), flat, noise)[0] - x
    assert (added.std(0) / x.std(0) / 0.3 - 1).abs().max() > 1


def test_weight_noise_has_the_stated_size_in_each_tensors_own_rms():
    """n = 40,000 weights a tensor; |z| ≤ 4."""
    draw = torch.Generator().manual_seed(3)
    params = {
        "a": torch.randn(40_000, generator=draw),
        "b": 9 + torch.rand(40_000, generator=draw),
    }
    moved = noisy_weights(params, 0.05, draw=0)
    for name, value in params.items():
        size = (moved[name] - value).square().mean().sqrt() / value.square().mean().sqrt()
        assert abs(float(size) / 0.05 - 1) < 4 * 0.0036


def test_draws_differ_and_the_same_draw_is_the_same_noise():
    x = torch.zeros(4, 3)
    inputs = [Input(0, axes_of(x.shape), torch.ones(1, 3))]
    noise = Disturbance(Kind.INPUT_NOISE, 1.0, "sd", draws=2)
    first, again, second = (disturbed((x, x), inputs, noise, draw)[0] for draw in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    later = disturbed((x, x), inputs, noise, 0, first=256)[0]
    assert not torch.equal(first, later)


def test_no_noise_comes_from_the_global_generators():
    x = torch.zeros(4, 3)
    before = _random.global_state()
    disturbed((x, x), [Input(0, axes_of(x.shape), torch.ones(1, 3))], TABLE[0])
    noisy_weights({"w": x}, 0.1, draw=0)
    # Python's own is moved by the type checks of the tests, which look at a random item.
    after = _random.global_state()
    assert (after.torch, after.numpy) == (before.torch, before.numpy)


def test_the_sd_of_features_is_that_of_all_examples_whatever_the_batches():
    x = torch.randn(700, 3, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(_inputs(x)[0].sd, x.std(0, correction=0), atol=1e-6)


# Which tensors are inputs.


def test_with_the_default_forward_the_inputs_are_the_first_entry():
    batch = {"x": torch.zeros(4, 2), "tokens": torch.arange(4)}, torch.zeros(4)
    assert input_leaves(_task(batch), batch) == (0,)


def test_with_a_forward_of_its_own_every_number_but_target_and_masks():
    x, mask, target = torch.rand(4, 2), torch.ones(4, 2), torch.rand(4)
    batch = {"x": x, "mask": mask, "tokens": torch.arange(4), "target": target}
    task = _task(batch, forward=lambda model, batch: model(batch["x"]))
    assert input_leaves(task, batch) == (0,)


def test_with_a_training_step_too_whatever_the_form_of_the_batch():
    batch = {"x": torch.rand(4, 2), "y": torch.rand(4)}
    task = Task(
        lambda: nn.Linear(2, 2), batch, training_step=lambda model, batch: batch["x"].sum()
    )
    assert input_leaves(task, batch) == (0,)


def test_the_task_may_name_its_inputs():
    batch = {"x": torch.rand(4, 2), "mask": torch.ones(4, 2), "target": torch.rand(4)}
    task = _task(batch, forward=lambda model, batch: model(batch["x"]), inputs=("mask",))
    assert [one.leaf for one in shapes_of(task, Stacked(batch))] == [1]


@pytest.mark.parametrize("name", ["nothing", 7])
def test_an_input_that_is_not_there_is_refused(name):
    batch = {"x": torch.rand(4, 2), "target": torch.rand(4)}
    with pytest.raises(InvalidValueError, match=r"`inputs` must be entries of a batch"):
        input_leaves(_task(batch), batch, (name,))


@pytest.mark.parametrize(
    ("x", "left"),
    [
        (torch.arange(12).view(4, 3), {Kind.INPUT_NOISE, Kind.BRIGHTNESS, Kind.SHIFT, Kind.DRIFT}),
        (torch.rand(4, 3), {Kind.BRIGHTNESS, Kind.SHIFT}),
        (torch.rand(4, 9, 3), {Kind.BRIGHTNESS, Kind.SHIFT}),
        (torch.rand(4, 1, 8, 8), {Kind.DRIFT}),
    ],
    ids=["tokens", "features", "series", "pictures"],
)
def test_what_does_not_apply_is_not_offered_and_has_a_reason(x, left):
    inputs = _inputs(x)
    assert {w.kind for w in TABLE} - {w.kind for w in offered(inputs)} == left
    assert {kind for kind in Kind if why_not(inputs, kind)} == left


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": -0.1}, "`size` must be finite, 0 or more"),
        ({"kind": Kind.SHIFT, "size": 0.5}, "`size` must be whole pixels"),
        ({"draws": 0}, "`draws` must be 1 or more"),
    ],
)
def test_an_impossible_disturbance_is_refused(given, said):
    with pytest.raises(InvalidValueError, match=said):
        Disturbance(**{"kind": Kind.INPUT_NOISE, "size": 0.1, "unit": "sd"} | given)
