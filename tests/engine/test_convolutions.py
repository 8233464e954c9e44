"""Convolutions in both executors: kernels keep their layout, and resume finds every bit."""

import pytest
import torch
from torch import nn

from batchlab.engine import Engine, Job, loop, stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.step import rule_of, start_of
from tests.engine import tiny

SMOOTH = 1e-10
ONE_STEP = 1e-5
"""What float32 may differ by after one step."""


def images(count=64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 6, 6, generator=draw, dtype=torch.float64)
    return x, (x.mean((1, 2, 3)) > 0).long()


def conv(channels=3):
    """Several channels, one channel, and a depthwise kernel: strides are ambiguous in two."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, 4, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


def ready(model=conv):
    return tiny.ready(model, train=images(), validation=images(32, seed=1))


def several(**changes):
    return [tiny.run(seed=s, learning_rate=0.02 * (s + 1), **changes) for s in range(3)]


@pytest.fixture
def stops(monkeypatch):
    """Legs of two batches, so that checkpoints lie between."""
    monkeypatch.setattr(loop, "TICK_UPDATES", 2)
    monkeypatch.setattr(stacked, "LONGEST_LEG", 2)


def test_convolutions_give_the_same_in_both_executors():
    configs = several(samples=160)
    one, other = (tiny.trained(ready(), configs, e)[0] for e in ("loop", "stacked"))
    assert tiny.apart(one, other) <= SMOOTH


@pytest.mark.parametrize("rule", ["shb", "adam"])
def test_kernels_of_the_loop_stay_in_channels_last(rule):
    prepared, config = ready(), tiny.run(rule=rule)
    capability = probe_capability(prepared, config)
    assert capability.convolutions
    run = loop.Alone(prepared, config, Job(()), capability, None)
    for first, size in run.plan[:3]:
        run.update(first, size)
    kernels = {n: p for n, p in run.progress.params.items() if p.ndim == 4}
    assert len(kernels) == 3
    for kernel in kernels.values():
        _, inputs, height, width = kernel.shape
        assert kernel.stride() == (inputs * height * width, 1, inputs * width, inputs)


@pytest.mark.usefixtures("stops")
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_interrupted_convolutions_go_on_bit_for_bit(executor, tmp_path):
    configs, job = several(samples=80), tiny.job(80)
    whole, states = tiny.trained(ready(), configs, executor, job)

    def stop(share):
        if share > 0.25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Engine(ready(), tmp_path, 0, executor, 0.0) as engine:
        engine.train(configs, job, progress=stop)
    assert list(tmp_path.glob("cells/*/checkpoint.npz"))
    with Engine(ready(), tmp_path, 0, executor, 0.0) as engine:
        resumed, others = engine.train(configs, job)
    assert tiny.facts(resumed) == tiny.facts(whole)
    for a, b in zip(states, others, strict=True):
        assert all(torch.equal(x, tiny.leaves(b)[name]) for name, x in tiny.leaves(a).items())


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_convolutions_handed_on_half_way_end_where_the_whole_run_does(executor):
    configs = several(samples=160)
    whole, _ = tiny.trained(ready(), configs, executor)
    half = Job(evaluate_at=(), keep_end=True, until=80)
    _, states = tiny.trained(ready(), configs, executor, half)
    rest, _ = tiny.trained(ready(), configs, executor, tiny.job(160), starts=states)
    for a, b in zip(whole.runs, rest.runs, strict=True):
        last = abs(a.final("loss") - b.final("loss"))
        assert last <= (0.0 if executor == "loop" else SMOOTH)


@pytest.mark.parametrize("model", [conv, tiny.mlp, tiny.batch_norm, tiny.with_dropout])
def test_in_float32_both_executors_are_within_1e_5_after_one_step(model):
    prepared = ready() if model is conv else tiny.ready(model)
    configs = several(samples=8, precision="float32")
    ends = [tiny.trained(prepared, configs, e, tiny.job(8))[1] for e in ("loop", "stacked")]
    for config, one, other in zip(configs, *ends, strict=True):
        assert (one.updates, other.updates) == (1, 1)
        start = start_of(prepared.objective(config.seed), rule_of(config, prepared.task)).params
        moved = max(float((one.progress.params[n] - p).abs().max()) for n, p in start.items())
        assert moved > 100 * ONE_STEP  # or nothing would be compared
        for name, leaf in tiny.leaves(one).items():
            torch.testing.assert_close(
                leaf, tiny.leaves(other)[name], rtol=ONE_STEP, atol=ONE_STEP * moved
            )
