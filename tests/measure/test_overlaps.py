"""Overlaps during training are those of the weights at the end, by either executor."""

import pytest
import torch

from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidValueError, UserError
from batchlab.measure.overlaps import overlap_probe
from batchlab.tasks import prepare
from batchlab.tasks.teacher import directions, teacher

D, N = 20, 60


@pytest.mark.parametrize("executor", ["stacked", "loop"])
def test_overlaps_start_at_0_and_end_as_the_weights_say(executor):
    prepared = prepare(teacher("z1 + z1*z2", features=D, examples=N), device="cpu")
    rows = directions(2, D, seed=0)
    runs = [
        RunConfig(
            rule="sgd", batch_size=N, learning_rate=0.2 * N, samples="3ep", seed=seed,
            precision="float64",
        ).resolved(N)
        for seed in (0, 1)
    ]  # fmt: skip
    asked = Job(evaluate_at=(0,), keep_end=True, probe=overlap_probe(rows), probe_at=(0, 3 * N))
    with Engine(prepared, None, 0, executor) as engine:
        trace, states = engine.train(runs, asked)
    for result, state in zip(trace.runs, states, strict=True):
        W = state.progress.params["module.weight"]
        M = (W @ rows.T / D).tolist()
        for j in range(2):
            for r in range(2):
                seen = result.series[f"overlap.{j}.{r}"].values
                assert abs(seen[0]) < 1e-6
                assert seen[-1] == pytest.approx(M[j][r], abs=1e-6)
            found = result.series[f"overlap.{j}.self"].values[-1]
            assert found == pytest.approx(float(W[j].square().sum()) / D, abs=1e-6)
        assert abs(M[0][0]) > 0.1


@pytest.mark.parametrize("executor", ["stacked", "loop"])
def test_a_parameter_that_is_not_there_is_one_sentence(executor):
    prepared = prepare(teacher("z1", features=D, examples=N), device="cpu")
    run = RunConfig(rule="sgd", batch_size=N, learning_rate=0.1, samples="1ep").resolved(N)
    probe = overlap_probe(directions(1, D, seed=0), weight="typo")
    with (
        Engine(prepared, None, 0, executor) as engine,
        pytest.raises(UserError, match=r"`weight` must be one of .*module.weight.*; got 'typo'"),
    ):
        engine.train([run], Job(evaluate_at=(0,), probe=probe, probe_at=(0,)))


def test_the_length_of_a_direction_does_not_matter():
    rows = torch.randn(2, 5)
    one, other = (overlap_probe(scale * rows).directions for scale in (1, 3))
    assert torch.allclose(one, other)
    assert one.norm(dim=1).tolist() == pytest.approx([1, 1])


def test_a_direction_without_length_is_refused():
    with pytest.raises(InvalidValueError, match="`directions` must be longer than 0"):
        overlap_probe(torch.zeros(1, 3))
