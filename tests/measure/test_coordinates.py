"""Sizes by a naive twin, slopes of known powers, and faults planted in the parametrisation."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError
from batchlab.measure.coordinates import Trend, measure_coordinates, size, slope_of, trend
from batchlab.models.mlp import MLP
from batchlab.models.parametrization import rate_multiples
from batchlab.rules import Scales
from batchlab.tasks import Task
from batchlab.types import Estimate
from tests.engine import tiny

WIDTHS, SEEDS = (64, 256), range(10)


def mlp(width, parametrization="mean-field", readout=None):
    model = MLP(tiny.INPUTS, (width, width), 2, parametrization=parametrization)
    if readout is not None:
        model.body[-1].multiplier = width**-readout
    return model


def task(make, rates=None, **recipe):
    config = RunConfig(
        **{"rule": "sgd", "learning_rate": 0.1, "batch_size": 8, "samples": 64} | recipe
    )
    groups = {} if rates is None else rates(make(), config.rule)
    scales = {name: Scales(learning_rate=value) for name, value in groups.items()}
    return tiny.task(make, baseline=config, groups=scales)


def measured(make, rates=None, *, widths=WIDTHS, updates=2, seeds=SEEDS, **recipe):
    def of_width(width):
        return task(functools.partial(make, width), rates, **recipe)

    return measure_coordinates(of_width, widths, updates=updates, seeds=seeds, device="cpu")


def trends(found):
    return {one.name: found.trend(one) for one in found.layers}


# -- formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_the_slope_of_a_power_law_is_its_power_for_every_seed(power):
    widths = np.array([8.0, 16.0, 128.0])
    found = slope_of([8, 16, 128], widths[:, None] ** power * np.array([0.3, 2.0, 7.0]))
    assert (found.value, found.low, found.high) == pytest.approx((power, power, power), abs=1e-12)
    assert found.n == 3


@pytest.mark.parametrize("bad", [0.0, math.inf, math.nan])
def test_a_size_that_has_no_logarithm_leaves_no_slope(bad):
    assert math.isnan(slope_of([1, 2], np.array([[1.0, 1.0], [1.0, bad]])).value)


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.26, 0.9, Trend.GROWS),
        (0.24, 0.9, Trend.OPEN),
        (-0.25, 0.25, Trend.INDEPENDENT),
        (0.1, 0.2, Trend.INDEPENDENT),
        (-0.26, 0.1, Trend.OPEN),
        (-0.9, -0.26, Trend.SHRINKS),
        (math.nan, math.nan, Trend.OPEN),
    ],
)
def test_a_trend_needs_the_whole_interval(low, high, says):
    assert trend(Estimate((low + high) / 2, low, high, n=5)) is says


def test_sizes_are_those_of_a_training_by_hand():
    found = measured(mlp, widths=(4, 8), updates=2, seeds=range(2))
    for i, width in enumerate((4, 8)):
        for seed in range(2):
            expected = by_hand(width, seed)
            assert list(expected) == [one.name for one in found.layers]
            for one in found.layers:
                got = [step[i][seed] for step in one.sizes]
                assert got == pytest.approx(expected[one.name], rel=1e-4)


def by_hand(width, seed):
    """The naive twin: plain PyTorch on all 64 points."""
    ready = tiny.prepare(task(functools.partial(mlp, width)), device="cpu")
    model = ready.objective(seed).module
    inputs, labels = (leaf.float() if leaf.is_floating_point() else leaf for leaf in tiny.points())

    def layers():
        first = model.body[1](inputs)
        second = model.body[3](first.relu())
        last = model.body[5](second.relu())
        return {"body.1": first, "body.3": second, "output": last}

    start = {name: one.detach() for name, one in layers().items()}
    sizes = {name: [size(one)] for name, one in start.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layers()["output"], labels).backward()
        optimizer.step()
        for name, one in layers().items():
            sizes[name].append(size(one.detach() - start[name]))
    return sizes


# -- parametrisations, and faults planted in them -------------------------------------------------


def test_mean_field_moves_alike_at_every_width():
    found = trends(measured(mlp, rate_multiples, learning_rate=1.0))
    assert set(found.values()) == {Trend.INDEPENDENT}


def test_the_standard_parametrization_at_one_rate_is_found_to_grow():
    standard = functools.partial(mlp, parametrization="standard")
    found = measured(standard, learning_rate=0.1, widths=(256, 1024), seeds=range(5), updates=1)
    assert trends(found)["output"] is Trend.GROWS


@pytest.mark.parametrize(("readout", "says"), [(0.5, Trend.GROWS), (1.5, Trend.SHRINKS)])
def test_a_wrong_multiplier_of_the_readout_is_found(readout, says):
    found = measured(functools.partial(mlp, readout=readout), rate_multiples, updates=1)
    assert trends(found)["output"] is says


def test_a_rate_that_is_not_multiplied_by_the_width_is_found_to_shrink():
    assert trends(measured(mlp))["output"] is Trend.SHRINKS


@pytest.mark.slow
def test_adam_moves_alike_with_its_own_rates_only():
    right = trends(measured(mlp, rate_multiples, rule="adam", learning_rate=0.02))
    assert set(right.values()) == {Trend.INDEPENDENT}
    wrong = trends(measured(mlp, rule="adam", learning_rate=0.002))
    assert wrong["body.3"] is Trend.GROWS


# -- what it leaves alone, and what it refuses ----------------------------------------------------


def test_the_callers_random_state_is_not_moved():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    measured(mlp, widths=(4, 8), seeds=range(2))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_module_of_the_callers_is_refused_untouched():
    shared = {width: nn.Linear(5, width) for width in (4, 8)}
    with pytest.raises(TaskError, match="a function that builds a new module"):
        measured(shared.__getitem__, widths=(4, 8), seeds=range(2))
    assert all(p.grad is None for model in shared.values() for p in model.parameters())


def test_dropout_is_off():
    def dropping(width, share):
        return nn.Sequential(nn.Linear(5, width), nn.Dropout(share), nn.Linear(width, 2))

    found = [
        measured(functools.partial(dropping, share=share), widths=(4, 8), seeds=range(2)).layers
        for share in (0.0, 0.9)
    ]
    assert found[0] == found[1]


def test_a_centred_model_has_the_names_of_its_layers_and_no_output_at_its_start():
    found = measured(mlp, rate_multiples, gamma=2.0, widths=(8, 16), seeds=range(2))
    assert [one.name for one in found.layers] == ["body.1", "body.3", "body.5", "output"]
    output = found.layers[-1]
    assert np.array(output.sizes)[0].max() == 0
    assert math.isnan(output.slopes[0].value)
    assert not math.isnan(output.slopes[1].value)


def test_a_training_that_diverges_is_judged_before_it_does():
    class Bursts(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.inner = nn.Linear(5, width)
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.inner(x)[:, :2] * (1e30 * (self.factor - 1)).exp()

    found = measured(Bursts, widths=(4, 8), updates=3, seeds=range(2), learning_rate=1e30)
    assert found.judged == 0
    assert set(trends(found).values()) == {Trend.OPEN}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"widths": (8,)}, "`widths` must be two or more different"),
        ({"widths": (8, 8)}, "`widths` must be two or more different"),
        ({"widths": (0, 8)}, "`widths` must be two or more different"),
        ({"updates": 0}, "`updates` must be 1 or more"),
        ({"seeds": range(1)}, "`seeds` must be 2 or more"),
    ],
)
def test_an_impossible_question_is_refused(change, said):
    with pytest.raises(InvalidValueError, match=said):
        measured(mlp, **change)


def test_networks_of_different_layers_are_refused():
    def deeper(width):
        return MLP(5, (width,) * (width // 4), 2)

    with pytest.raises(TaskError, match=r"same names at every width; got 'body\.3'"):
        measured(deeper, widths=(4, 8), seeds=range(2))


def test_a_network_of_no_weights_and_no_outputs_is_refused():
    class Scale(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

    def step(model, batch):
        return model.factor * batch[0].mean()

    def of_width(width):
        config = RunConfig(rule="sgd", learning_rate=0.1, samples="1ep")
        return Task(lambda: Scale(width), tiny.points(), training_step=step, baseline=config)

    with pytest.raises(InvalidTypeError, match="a network with weights that train"):
        measure_coordinates(of_width, (1, 2), seeds=range(2), device="cpu")
