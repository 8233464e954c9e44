"""The metric under disturbances: identities, a linear model whose answer is known, no traces."""

import dataclasses

import pytest
import torch
from torch import nn

from batchlab import _random
from batchlab.engine import Job, RunState
from batchlab.engine.step import rule_of, start_of
from batchlab.errors import InvalidValueError
from batchlab.measure.disturbance import TABLE, Disturbance, Kind, inputs_of
from batchlab.measure.robustness import altered, not_trainable, scores, train_altered
from batchlab.measure.sturdiness import evaluations, survey, trained, untrained
from batchlab.tasks import Metric, Task, prepare
from batchlab.tasks.task import mse
from tests.engine import tiny

WITHOUT_TRAINING = [what for what in TABLE if not what.in_training]
NOISE = Disturbance(Kind.INPUT_NOISE, 0.3, "sd", draws=3)
WEIGHTS = Disturbance(Kind.WEIGHT_NOISE, 0.05, "rms", draws=5)


def _state(prepared, config):
    objective = prepared.objective(config.seed, torch.float64)
    return RunState(start_of(objective, rule_of(config, prepared.task)), 0, 0)


def _states(prepared, seeds=(0, 1, 2)):
    """Untrained models: as good as trained ones where only functions of weights are asked for."""
    configs = [tiny.run(seed=seed) for seed in seeds]
    return configs[0], [_state(prepared, config) for config in configs]


def _inputs(prepared):
    return inputs_of(prepared.task, prepared.validation)


class _Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 2)
        )

    def forward(self, x):
        return self.net(x)


def _pictures():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 5, 5, generator=draw, dtype=torch.float64)
    data = x, torch.arange(40) % 2
    return prepare(Task(_Pictures, data, validation=data, loss=tiny.cross), device="cpu")


@pytest.mark.parametrize("what", WITHOUT_TRAINING, ids=lambda what: what.id)
def test_a_disturbance_of_size_0_gives_the_clean_metric_exactly(what):
    prepared = _pictures()
    config, states = _states(prepared)
    none = dataclasses.replace(what, size=0, draws=1)
    clean = scores(prepared, config, states)
    assert scores(prepared, config, states, none, _inputs(prepared)) == clean


@pytest.mark.parametrize("model", [tiny.batch_norm, tiny.with_dropout])
def test_the_clean_metric_is_that_of_the_last_evaluation_in_training(model):
    prepared = tiny.ready(model)
    configs = [tiny.run(seed=seed) for seed in (0, 1)]
    trace, states = tiny.trained(prepared, configs)
    ends = [run.series["metric"].values[-1] for run in trace.runs]
    assert scores(prepared, configs[0], states) == pytest.approx(ends, rel=1e-12)


def test_runs_trained_stacked_and_one_by_one_are_as_robust():
    prepared = tiny.ready()
    configs = [tiny.run(seed=seed) for seed in (0, 1)]
    inputs = _inputs(prepared)
    for what in (NOISE, WEIGHTS):
        stacked, loop = (
            scores(prepared, configs[0], tiny.trained(prepared, configs, kind)[1], what, inputs)
            for kind in ("stacked", "loop")
        )
        assert stacked == pytest.approx(loop, rel=1e-8)


@pytest.mark.parametrize("what", [NOISE, WEIGHTS], ids=lambda what: what.id)
def test_every_run_meets_the_same_noise_together_or_alone(what):
    prepared = tiny.ready()
    config, states = _states(prepared)
    inputs = _inputs(prepared)
    together = scores(prepared, config, states, what, inputs)
    assert together == [scores(prepared, config, [s], what, inputs)[0] for s in states]
    assert together != scores(prepared, config, states, what, inputs, seed=1)


@pytest.mark.parametrize("what", [None, *WITHOUT_TRAINING], ids=lambda w: w.id if w else "clean")
def test_weights_buffers_data_and_random_state_are_as_before(what):
    prepared = _pictures()
    config, states = _states(prepared)
    before = [{n: t.clone() for n, t in tiny.leaves(s).items()} for s in states]
    data, generators = prepared.validation.tree[0].clone(), _random.global_state()
    scores(prepared, config, states, what, _inputs(prepared))
    after = _random.global_state()
    # Python's own is moved by the type checks of the tests, which look at a random item.
    assert (after.torch, after.numpy) == (generators.torch, generators.numpy)
    assert torch.equal(prepared.validation.tree[0], data)
    for state, kept in zip(states, before, strict=True):
        assert all(torch.equal(tensor, kept[n]) for n, tensor in tiny.leaves(state).items())


# A linear model: noise of variance σ² on every input raises the mean squared error by σ²|w|².

EXAMPLES = 4000


def _linear():
    """Features of different sizes; the targets are the model's own outputs."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(EXAMPLES, 3, generator=draw, dtype=torch.float64)
    x = x * torch.tensor([1.0, 3.0, 0.2])
    weight = torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64)

    def model():
        layer = nn.Linear(3, 1, bias=False)
        layer.weight.data = weight.float()
        return layer

    def loss(outputs, batch):
        return (outputs - batch[1]).square().mean(1)

    data = x, x @ weight.float().double().T
    task = Task(model, data, validation=data, loss=loss, metric="mse")
    prepared = prepare(task, device="cpu")
    size = (weight[0] * x.std(0, correction=0)).square().sum()
    return prepared, float(size)


def _z(found, wanted):
    """e² of normal e has twice the square of its mean as variance; n = examples × draws."""
    error = wanted * (2 / (EXAMPLES * NOISE.draws)) ** 0.5
    return (found - wanted) / error


def test_input_noise_raises_the_error_of_a_linear_model_by_sigma_squared_w_squared():
    """|z| ≤ 4 at n = 12,000: an error of 5 % in the formula would show."""
    prepared, size = _linear()
    config, states = _states(prepared, seeds=(0,))
    found = scores(prepared, config, states, NOISE, _inputs(prepared))[0]
    assert abs(_z(found, NOISE.size**2 * size)) <= 4
    # The twin forgets the square of the size.
    assert abs(_z(found, NOISE.size * size)) > 4
    # The twin takes one standard deviation for all features.
    x = prepared.validation.tree[0]
    flat = [_inputs(prepared)[0]._replace(sd=x.std())]
    assert abs(_z(scores(prepared, config, states, NOISE, flat)[0], NOISE.size**2 * size)) > 4


def _reconstruction():
    """A model that returns its input, and is asked to."""
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def model():
        layer = nn.Linear(2, 2, bias=False)
        layer.weight.data = torch.eye(2)
        return layer

    return prepare(
        Task(
            model,
            x,
            validation=x,
            forward=lambda model, batch: model(batch),
            loss=lambda outputs, batch: (outputs - batch).square().mean(1),
        ),
        device="cpu",
    )


def test_loss_and_metric_see_clean_data_also_where_the_input_is_the_target():
    """Were the target as noisy as the input, the error of this model would stay 0."""
    prepared = _reconstruction()
    config, states = _states(prepared, seeds=(0,))
    assert scores(prepared, config, states) == [0.0]
    assert scores(prepared, config, states, NOISE, _inputs(prepared))[0] > 0.05


def test_a_metric_of_the_users_own_sees_clean_data():
    prepared = _linear()[0]
    seen = []

    def metric(outputs, batch):
        seen.append(batch[0].clone())
        return mse(outputs, batch)

    task = dataclasses.replace(prepared.task, metric=Metric("own", metric, maximise=False))
    prepared = dataclasses.replace(prepared, task=task, metric=task.resolved_metric())
    config, states = _states(prepared, seeds=(0,))
    scores(prepared, config, states, NOISE, _inputs(prepared))
    clean = prepared.validation.tree[0]
    assert all(torch.equal(batch.double(), clean.double()) for batch in seen)


def test_a_training_step_is_disturbed_too():
    def step(model, batch):
        return (model(batch[0]) - batch[1]).square().mean()

    base = _linear()[0].task
    task = dataclasses.replace(base, loss=None, training_step=step, metric=None)
    prepared = prepare(task, device="cpu")
    config, states = _states(prepared, seeds=(0,))
    inputs = _inputs(prepared)
    assert scores(prepared, config, states, NOISE, inputs) > scores(prepared, config, states)


def test_a_change_of_the_training_data_is_no_noise():
    prepared = tiny.ready()
    config, states = _states(prepared)
    labels = Disturbance(Kind.WRONG_LABELS, 0.1, "share")
    with pytest.raises(InvalidValueError, match="`what` must be no change of the training data"):
        scores(prepared, config, states, labels)


# Trainings on changed data.


def test_no_wrong_labels_is_the_clean_training_bit_for_bit():
    prepared = tiny.ready()
    configs = [tiny.run(seed=seed) for seed in (0, 1)]
    job = Job(evaluate_at=(0, 200, 400))
    none = Disturbance(Kind.WRONG_LABELS, 0, "share")
    found, said = train_altered(prepared, none, configs, job, workers=0)
    clean, _ = tiny.trained(prepared, configs, found.runs[0].executor, job)
    assert tiny.facts(found) == tiny.facts(clean)
    assert said == []


def test_only_the_training_data_changes_and_the_samples_stay():
    prepared = tiny.ready()
    fewer = altered(prepared, Disturbance(Kind.LESS_DATA, 0.1, "share"))
    wrong = altered(prepared, Disturbance(Kind.WRONG_LABELS, 0.25, "share"))
    assert fewer.examples == round(0.1 * tiny.EXAMPLES)
    assert wrong.examples == tiny.EXAMPLES
    moved = wrong.train.tree[1] != prepared.train.tree[1]
    assert int(moved.sum()) == round(0.25 * tiny.EXAMPLES)
    for one in (fewer, wrong):
        assert one.validation is prepared.validation
        assert one.baseline == prepared.baseline


def test_a_finished_training_on_changed_data_is_read_again(tmp_path):
    prepared, job = tiny.ready(), Job(evaluate_at=(0, 400))
    labels = Disturbance(Kind.WRONG_LABELS, 0.2, "share")
    given = prepared, labels, [tiny.run()], job
    first, _ = train_altered(*given, out=tmp_path, workers=0)
    cells = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("done.json")}
    again, _ = train_altered(*given, out=tmp_path, workers=0)
    assert tiny.facts(first) == tiny.facts(again)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("done.json")} == cells
    assert len(cells) == 1


def test_what_cannot_be_trained_has_a_reason():
    labels, tenth = (
        Disturbance(kind, 0.1, "share") for kind in (Kind.WRONG_LABELS, Kind.LESS_DATA)
    )
    assert not_trainable(tiny.ready(), tenth, batch_size=6) == ""
    assert not_trainable(tiny.ready(), tenth, batch_size=7) == "less than a batch"
    assert not_trainable(tiny.ready(), labels, batch_size=7) == ""
    assert not_trainable(_reconstruction(), labels, batch_size=7) == "no targets"


# All of it together.


def test_a_survey_holds_every_disturbance_of_every_setting():
    prepared = tiny.ready(metric="accuracy")
    config, states = _states(prepared)
    ends = {name: dict(enumerate(states)) for name in ("today", "other")}
    shares: list[float] = []
    found = survey(prepared, config, ends, 8, tick=shares.append)
    wanted = untrained(prepared)
    assert [(s.what, s.setting) for s in found.scores] == [
        (what, name) for what in wanted for name in ends
    ]
    assert found.scores[0].values == found.scores[1].values
    assert [one.setting for one in found.repeats] == list(ends)
    assert found.classes
    assert found.left_out == {
        "brightness": "no pictures",
        "shift": "no pictures",
        "less data": "less than a batch",
    }
    assert shares == sorted(shares)
    assert evaluations(prepared) == 2 + sum(what.draws for what in wanted)
    assert {what.kind for what in trained(prepared, 8)} == {Kind.WRONG_LABELS}
