"""The loop executor: randomness, probes, going on from a state, and readers that augment."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

from batchlab import _random
from batchlab.engine import Job
from batchlab.engine.loop import loaded
from batchlab.engine.step import start_of
from batchlab.rules import RULES
from tests import reference
from tests.engine import tiny

# Probes


class Prying:
    """Draws at random, changes its model, and turns its mode."""

    def __init__(self):
        self.moments = []

    def __call__(self, objective, samples):
        self.moments.append(samples)
        assert objective.training
        random.random(), np.random.random(), torch.rand(3)
        batch = tuple(leaf[:8] for leaf in tiny.points())
        objective(batch)[0].sum().backward()
        objective.eval()
        with torch.no_grad():
            for tensor in [*objective.parameters(), *objective.buffers()]:
                tensor.zero_()
        return {"seen": float(samples)}


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_probe_leaves_no_trace(executor):
    prepared, configs = tiny.ready(tiny.batch_norm), [tiny.run(seed=s) for s in (0, 1)]
    probe = Prying()
    plain, states = tiny.trained(prepared, configs, executor)
    asked = tiny.job(400, probe=probe, probe_at=(0, 100, 101, 250, 999))
    probed, others = tiny.trained(prepared, configs, executor, asked)
    for a, b in zip(plain.runs, probed.runs, strict=True):
        rest = {name: s for name, s in b.series.items() if name != "seen"}
        assert tiny.series_facts(a) == tiny.series_facts(dataclasses.replace(b, series=rest))
    for a, b in zip(states, others, strict=True):
        assert all(torch.equal(x, tiny.leaves(b)[name]) for name, x in tiny.leaves(a).items())


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_probes_come_at_the_first_update_past_their_moment(executor):
    probe = Prying()
    asked = tiny.job(400, probe=probe, probe_at=(0, 100, 101, 250, 999))
    trace, _ = tiny.trained(tiny.ready(tiny.batch_norm), [tiny.run()], executor, asked)
    seen = trace.runs[0].series["seen"]
    assert seen.samples.tolist() == seen.values.tolist() == probe.moments == [0, 104, 256]
    assert seen.updates.tolist() == [0, 13, 32]


def test_a_probe_sees_the_weights_of_its_moment_and_shares_the_data():
    prepared = tiny.ready(tiny.batch_norm)
    objective = prepared.objective(0)
    progress = start_of(prepared.objective(5), RULES["sgd"])
    own = loaded(objective, progress)
    assert own.task is objective.task
    assert torch.equal(own.module[0].weight, progress.params["module.0.weight"])
    assert not torch.equal(own.module[0].weight, objective.module[0].weight)


# Going on from a state


@pytest.mark.parametrize("model", [tiny.batch_norm, tiny.with_dropout])
@pytest.mark.parametrize("rule", ["shb", "adam"])
def test_going_on_from_a_state_equals_never_having_stopped(model, rule):
    prepared, config = tiny.ready(model), tiny.run(rule=rule, learning_rate=0.01)
    _, (whole,) = tiny.trained(prepared, [config])
    stop = Job(evaluate_at=(), keep_end=True, until=160)
    _, (middle,) = tiny.trained(prepared, [config], asked=stop)
    assert (middle.samples, middle.updates) == (160, 20)
    _, (end,) = tiny.trained(prepared, [config], starts=[middle])
    assert (end.samples, end.updates) == (400, 50)
    for name, leaf in tiny.leaves(whole).items():
        assert torch.equal(leaf, tiny.leaves(end)[name])


def test_stacked_runs_go_on_from_states_too():
    prepared, configs = tiny.ready(tiny.with_dropout), [tiny.run(seed=s) for s in (0, 1)]
    whole, _ = tiny.trained(prepared, configs, "stacked")
    stop = Job(evaluate_at=(), keep_end=True, until=160)
    _, middle = tiny.trained(prepared, configs, "stacked", stop)
    rest, _ = tiny.trained(prepared, configs, "stacked", starts=middle)
    for a, b in zip(whole.runs, rest.runs, strict=True):
        assert b.series["loss"].samples[0] == 160
        assert abs(a.final("loss") - b.final("loss")) < 1e-10


# Random state and threads


@pytest.mark.wrong_type
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_global_random_state_and_threads_are_as_before(executor):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = _random.global_state()
        tiny.trained(tiny.ready(tiny.with_dropout), [tiny.run(samples=80)], executor)
        assert _random.global_state() == before
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


class Sampling(nn.Module):
    """Draws while it is evaluated and not while it is trained."""

    def __init__(self):
        super().__init__()
        self.layer = tiny.mlp()

    def forward(self, inputs):
        noise = 0.0 if self.training else torch.randn_like(inputs)
        return self.layer(inputs + noise)


def test_what_a_model_draws_in_evaluation_is_the_same_every_time():
    prepared = tiny.ready(Sampling)
    still, _ = tiny.trained(prepared, [tiny.run(samples=80, learning_rate=0.0)])
    assert len(set(still.runs[0].series["loss"].values.tolist())) == 1
    before = _random.global_state()[1:]
    one, _ = tiny.trained(prepared, [tiny.run(samples=80)])
    assert _random.global_state()[1:] == before
    torch.rand(1)
    assert tiny.facts(one) == tiny.facts(tiny.trained(prepared, [tiny.run(samples=80)])[0])
    plain, _ = tiny.trained(tiny.ready(), [tiny.run(samples=80)])
    assert one.runs[0].series["train_loss"].values == pytest.approx(
        plain.runs[0].series["train_loss"].values
    )


# Readers that augment


class Augmented(torch.utils.data.Dataset):
    """Noise from all three generators; ``log`` keeps what was read."""

    def __init__(self):
        self.inputs, self.labels = tiny.points()
        self.log = []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        noise = random.random() + np.random.random() + torch.rand(()).item()
        self.log.append((i, noise))
        return self.inputs[i] + noise, self.labels[i]


def what_was_read(size, collate=None):
    data = Augmented()
    prepared = tiny.ready(train=data, collate=collate)
    data.log.clear()
    # Every update, so that what else is drawn in between would show.
    asked = Job(evaluate_at=tuple(range(0, 200, size)), keep_end=True)
    tiny.trained(prepared, [tiny.run(batch_size=size, samples=160)], asked=asked)
    return data.log[-160:]


def test_augmentation_is_the_same_for_every_batch_size():
    small, large = what_was_read(8), what_was_read(32)
    assert small == large
    assert [i for i, _ in small] == [i for i, _ in reference.stream(tiny.EXAMPLES, 0, 160)]
    first, second = dict(small[:64]), dict(small[64:128])
    assert all(first[i] != second[i] for i in first)


def test_what_a_collate_draws_belongs_to_its_batch():
    drawn = []

    def jitter(items):
        inputs, labels = torch.utils.data.default_collate(items)
        drawn.append(float(torch.rand(())))
        return inputs + drawn[-1], labels

    prepared, config = tiny.ready(train=Augmented(), collate=jitter), tiny.run(samples=160)
    drawn.clear()
    _, (end,) = tiny.trained(prepared, [config], asked=Job(evaluate_at=(0,), keep_end=True))
    whole = drawn[-20:]
    assert len(set(whole)) == 20
    stop = Job(evaluate_at=(), keep_end=True, until=80)
    _, (middle,) = tiny.trained(prepared, [config], asked=stop)
    _, (again,) = tiny.trained(prepared, [config], starts=[middle])
    assert drawn[-10:] == whole[-10:]
    assert all(torch.equal(x, tiny.leaves(again)[n]) for n, x in tiny.leaves(end).items())


def test_a_run_without_a_whole_batch_trains_nothing():
    trace, _ = tiny.trained(tiny.ready(), [tiny.run(samples=5)], asked=Job(evaluate_at=()))
    assert (trace.runs[0].updates, trace.runs[0].samples, trace.runs[0].series) == (0, 0, {})


def test_what_is_left_at_the_end_is_not_trained():
    trace, _ = tiny.trained(tiny.ready(), [tiny.run(samples=45)])
    assert (trace.runs[0].updates, trace.runs[0].samples) == (5, 40)
    assert trace.runs[0].series["loss"].samples[-1] == 40
