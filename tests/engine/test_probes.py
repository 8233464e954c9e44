"""Probes of stacked runs: asked about all of them at once where they can be."""

import numpy as np
import pytest
import torch

from batchlab.engine import BatchedProbe
from batchlab.errors import TaskError
from tests.engine import tiny

MOMENTS = (0, 100, 250)


class Norms:
    """‖θ‖ of every run, by either form; notes how it was asked and damages what it was given."""

    def __init__(self, most=99):
        self.asked, self.most = [], most

    def __call__(self, objective, samples):
        self.asked.append(1)
        squares = sum(p.detach().square().sum() for p in objective.parameters())
        return {"norm": float(squares.sqrt()), "samples": float(samples)}

    def together(self, objective, params, buffers, samples):
        self.asked.append(len(samples))
        if len(samples) > self.most:
            raise MemoryError("out of memory")
        squares = sum(p.square().flatten(1).sum(1) for p in params.values())
        found = [
            {"norm": float(s.sqrt()), "samples": float(at)}
            for s, at in zip(squares, samples, strict=True)
        ]
        torch.rand(3)
        with torch.no_grad():
            for tensor in [*params.values(), *buffers.values(), *objective.parameters()]:
                tensor.zero_()
        return found


def probed(probe, executor="stacked", runs=3, model=tiny.batch_norm):
    prepared, configs = tiny.ready(model), [tiny.run(seed=s) for s in range(runs)]
    asked = tiny.job(400, probe=probe, probe_at=() if probe is None else MOMENTS)
    return tiny.trained(prepared, configs, executor, asked)


def seen(trace):
    return np.stack([run.series["norm"].values for run in trace.runs])


def test_a_probe_that_takes_several_runs_is_asked_once_per_moment():
    probe = Norms()
    trace, _ = probed(probe)
    assert probe.asked == [3, 3, 3]
    assert trace.runs[2].series["norm"].samples.tolist() == [0, 104, 256]
    assert trace.runs[2].series["samples"].values.tolist() == [0, 104, 256]


def test_a_plain_probe_is_asked_run_by_run():
    probe, calls = Norms(), []
    trace, _ = probed(
        lambda objective, samples: calls.append(samples) or probe(objective, samples)
    )
    assert len(calls) == 9
    assert np.allclose(seen(trace), seen(probed(Norms())[0]), rtol=1e-12)


def test_both_forms_are_of_the_same_run():
    assert np.allclose(seen(probed(Norms(), "loop")[0]), seen(probed(Norms())[0]), rtol=1e-9)


def test_what_a_probe_does_to_its_copies_does_not_reach_the_runs():
    plain, states = probed(None)
    trace, others = probed(Norms())
    for a, b in zip(plain.runs, trace.runs, strict=True):
        assert np.array_equal(a.series["loss"].values, b.series["loss"].values)
    for a, b in zip(states, others, strict=True):
        assert all(torch.equal(x, tiny.leaves(b)[name]) for name, x in tiny.leaves(a).items())


def test_where_memory_runs_out_half_of_the_runs_are_asked_about():
    probe = Norms(most=1)
    trace, _ = probed(probe)
    assert probe.asked == [3, 1, 2, 1, 1] * 3
    assert np.allclose(seen(trace), seen(probed(Norms())[0]), rtol=1e-12)


def test_a_single_run_that_does_not_fit_is_an_error():
    with pytest.raises(TaskError, match="ran out of memory with one run at a time"):
        probed(Norms(most=0))


def test_a_function_is_no_batched_probe():
    assert isinstance(Norms(), BatchedProbe)
    assert not isinstance(lambda objective, samples: {}, BatchedProbe)
