"""The teacher task: its labels, its inputs, and the engine against the simulation on its data."""

import math

import pytest
import torch

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidValueError
from batchlab.studies.batch_reuse.simulate import Setting, Whole, descend
from batchlab.tasks import inputs, load, prepare
from batchlab.tasks.teacher import directions, teacher

D, N, ETA = 20, 60, 0.2
TARGET = "z1 + z1*z2"


def small(**changes):
    given = {"features": D, "examples": N, "activation": "tanh"} | changes
    return teacher(TARGET, **given)


def test_labels_are_the_targets_of_the_projections():
    x, y = small().train
    z = x @ directions(2, D, seed=0).T / math.sqrt(D)
    assert torch.allclose(y, z[:, 0] + z[:, 0] * z[:, 1], atol=1e-12)


def test_the_three_parts_share_no_example():
    made = small()
    rows = torch.cat((made.train[0], made.validation[0], made.test[0]))
    assert len(torch.unique(rows, dim=0)) == 3 * N


def test_the_loss_is_half_the_square():
    made = small()
    found = made.loss(torch.tensor([1.0, 2.0]), (None, torch.tensor([0.0, 4.0])))
    assert found.tolist() == [0.5, 2.0]


def test_the_built_in_teacher_loads_and_takes_no_folder():
    assert load("teacher").name == "teacher"
    with pytest.raises(InvalidValueError, match="`data` must be left out for teacher"):
        load("teacher", "/tmp")


def test_the_target_of_the_teacher_is_part_of_its_name():
    made, expected = load("teacher@He3(z)"), teacher("He3(z)")
    assert made.name == made.origin == "teacher@He3(z)"
    for one, other in zip(
        (*made.train, *made.test), (*expected.train, *expected.test), strict=True
    ):
        assert torch.equal(one, other)
    assert not torch.equal(made.train[1], load("teacher").train[1])
    with pytest.raises(InvalidValueError, match="`target` must be in the variables z or z1"):
        load("teacher@He3(x)")
    with pytest.raises(InvalidValueError, match="`data` must be left out for teacher"):
        load("teacher@He3(z)", "/tmp")


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "uniform", "correlated"])
def test_inputs_have_the_covariance_they_state(kind):
    n = 20_000
    x = inputs.draw(kind, n, 6, torch.Generator().manual_seed(3))
    expected = torch.eye(6, dtype=torch.float64)
    if kind == "correlated":
        expected += 0.5 * (expected.roll(1, 0) + expected.roll(-1, 0))
    # Var of a mean of x_i x_j is at most 3/n for these; 21 entries and 6 means.
    assert (x.mean(0).abs() < 4 / math.sqrt(n)).all()
    assert ((x.T @ x / n - expected).abs() < 4 * math.sqrt(3 / n)).all()


def test_pictures_are_standardised_and_drawn_once():
    assert inputs.most("images", inputs.PIXELS) == inputs.PICTURES
    x = inputs.draw("images", 1797, inputs.PIXELS, torch.Generator())
    assert torch.allclose(x.mean(0), torch.zeros(61).double(), atol=1e-12)
    assert torch.allclose(x.square().mean(0), torch.ones(61).double(), atol=1e-12)
    assert small(inputs="images", features=61, examples=500).train[0].shape == (500, 61)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": "cauchy"}, "`inputs` must be one of gaussian, rademacher"),
        ({"inputs": "images"}, "`features` must be 61, the pixels that vary"),
        (
            {"inputs": "images", "features": 61, "examples": 600},
            "`examples` must be from 1 to 599; got 600.* share",
        ),
        ({"examples": 0}, "`examples` must be 1 or more"),
        ({"features": 1}, "`features` must be at least"),
    ],
)
def test_what_is_not_possible_is_refused(changes, words):
    with pytest.raises(InvalidValueError, match=words):
        small(**changes)


# ------------------------------------------------------------------ the engine


def engine_end(made, config, executor):
    """W at the end of a run, and its start."""
    prepared = prepare(made, device="cpu")
    resolved = config.resolved(len(made.train[1]))
    with Engine(prepared, None, 0, executor) as engine:
        _, (end, *_) = engine.train([resolved], Job(evaluate_at=(0,), keep_end=True))
    objective = prepared.objective(resolved.seed, torch.float64)
    return end.progress.params["module.weight"], objective.module.weight.detach()


@pytest.mark.parametrize("executor", ["stacked", "loop"])
@pytest.mark.parametrize(
    ("examples", "passes", "reuse"), [(N, 4, 1), (4 * N, 1, 1), (2 * N, 1, 2)]
)
def test_the_engine_trains_as_the_simulation_does(executor, examples, passes, reuse):
    """One batch again and again; fresh batches; each batch twice."""
    made = small(examples=examples)
    config = RunConfig(
        rule="sgd",
        batch_size=N,
        learning_rate=ETA * N,
        samples=f"{passes}ep",
        reuse=reuse,
        precision="float64",
        seed=5,
    )
    end, start = engine_end(made, config, executor)
    rows = directions(2, D, seed=0)[None]
    passed = [_random.permutation(examples, config.seed, i) for i in range(passes)]
    batches = iter(Whole(made.train[0][part][None]) for part in torch.cat(passed).split(N))
    setting = Setting(
        target=TARGET,
        inputs=D,
        batch_size=N,
        learning_rate=ETA,
        updates=4,
        reuse=reuse,
        width=2,
        activation="tanh",
    )
    expected = list(descend(start[None], rows, batches, setting))[-1][0]
    assert (start - end).norm() > 1
    assert torch.allclose(end, expected[0], atol=1e-9)
