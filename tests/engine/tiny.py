"""Tasks that train in milliseconds, and what the engine's tests read off a trace."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.tasks import Task, prepare

EXAMPLES, INPUTS = 64, 5


def points(examples=EXAMPLES, seed=0):
    """Two classes of points in float64, not quite separable."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, INPUTS, generator=draw, dtype=torch.float64)
    noise = torch.randn(examples, generator=draw, dtype=torch.float64)
    return inputs, (inputs.sum(1) + noise > 0).long()


def cross(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def mlp():
    return nn.Sequential(nn.Linear(INPUTS, 6), nn.Tanh(), nn.Linear(6, 2))


def batch_norm():
    return nn.Sequential(nn.Linear(INPUTS, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))


def with_dropout():
    return nn.Sequential(nn.Linear(INPUTS, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 2))


def task(model=mlp, **changes):
    given = {"train": points(), "validation": points(32, seed=1), "loss": cross} | changes
    return Task(model, **given)


def ready(model=mlp, **changes):
    return prepare(task(model, **changes), device="cpu")


def run(**changes):
    """A resolved float64 run of 50 updates."""
    given = {"precision": "float64", "batch_size": 8, "samples": 400, "learning_rate": 0.05}
    return RunConfig(**(given | {"rule": "shb"} | changes)).resolved(EXAMPLES)


def job(samples=400, **changes):
    """Five evaluations and the states at the end."""
    return Job(evaluate_at=tuple(range(0, samples + 1, samples // 4)), keep_end=True, **changes)


def trained(prepared, configs, executor="loop", asked=None, **given):
    """(trace, states) in this process."""
    with Engine(prepared, None, 0, executor) as engine:
        asked = asked or job(configs[0].samples)
        trace, states = engine.train(configs, asked, **given)
    assert all(result.executor == executor for result in trace.runs)
    return trace, states


def numbers(result):
    """All that a run recorded, as one array."""
    return np.concatenate([result.series[name].values for name in sorted(result.series)])


def apart(one, other):
    """Largest difference between two traces, over everything that was recorded."""
    assert len(one.runs) == len(other.runs)
    pairs = zip(one.runs, other.runs, strict=True)
    return max(float(np.abs(numbers(a) - numbers(b)).max()) for a, b in pairs)


def facts(trace):
    """All of a trace that is not a time or a name of an executor; equal means bit for bit."""
    return [
        (r.config, r.status, r.sentence, r.updates, r.samples, r.processed, series_facts(r))
        for r in trace.runs
    ]


def series_facts(result):
    return [
        (name, s.updates.tolist(), s.samples.tolist(), s.values.tobytes())
        for name, s in sorted(result.series.items())
    ]


def leaves(state):
    """The tensors of a state, by name."""
    return {**state.progress.params, **state.progress.buffers}
