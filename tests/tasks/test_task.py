import math

import pytest
import torch
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, reason
from batchlab.rules import Scales
from batchlab.tasks import METRICS, Metric, Objective, Task
from batchlab.tasks.task import accuracy, mse, r2, target_of, total_weight

DATA = (torch.randn(40, 3), torch.arange(40) % 2)


def model():
    return nn.Linear(3, 2)


def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def step(module, batch):
    return cross_entropy(module(batch[0]), batch[1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": model()}, "`model` must be a function that returns a module"),
        ({"model": 3}, "`model` must be a function; got 3"),
        ({"loss": "cross_entropy"}, "`loss` must be a function"),
        ({"weight": 1.0}, "`weight` must be a function"),
        ({"metric": 3}, "`metric` must be a name or a Metric; got 3"),
        ({"metric": accuracy}, "`metric` must be a name or a Metric"),
        ({"baseline": {"batch_size": 32}}, "`baseline` must be a RunConfig"),
        ({"groups": {"bias": 0.0}}, "`groups` must be a Scales for each name; got {'bias': 0.0}"),
        ({"groups": [Scales()]}, "`groups` must be a Scales for each name"),
    ],
)
@pytest.mark.wrong_type
def test_a_part_of_the_wrong_kind_is_refused(changes, said):
    with pytest.raises(InvalidTypeError, match=said):
        Task(**{"model": model, "train": DATA, "loss": loss, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "acuracy"}, "`metric` must be one of accuracy, loss, mse, r2; got 'acuracy'"),
        ({"loss": None}, "`loss` must be given, or training_step, and not both; got 'neither'"),
        ({"training_step": step}, "and not both; got 'both'"),
        ({"loss": None, "training_step": step, "metric": "accuracy"}, "Give `forward=`"),
    ],
)
def test_an_impossible_combination_is_refused(changes, said):
    with pytest.raises(InvalidValueError, match=said):
        Task(**{"model": model, "train": DATA, "loss": loss, **changes})


def test_a_task_without_a_metric_is_judged_by_its_loss():
    assert Task(model, DATA, loss=loss).resolved_metric() is METRICS["loss"]
    mine = Metric("mine", lambda outputs, batch: 1.0, maximise=True)
    assert Task(model, DATA, loss=loss, metric=mine).resolved_metric() is mine
    assert Task(model, DATA, loss=loss).baseline == RunConfig()


def test_built_in_metrics_equal_scikit_learn():
    outputs, target = torch.randn(2, 50, 3, dtype=torch.float64)
    assert math.isclose(mse(outputs, (0, target)), mean_squared_error(target, outputs))
    one, wanted = outputs[:, :1], target[:, :1]
    assert math.isclose(r2(one, (0, wanted)), r2_score(wanted, one))
    labels = torch.arange(50) % 3
    assert accuracy(outputs, (0, labels)) == accuracy_score(labels, outputs.argmax(1))


def test_r2_of_several_outputs_weighs_them_by_their_variance():
    outputs, target = torch.randn(2, 50, 3, dtype=torch.float64)
    expected = r2_score(target, outputs, multioutput="variance_weighted")
    assert math.isclose(r2(outputs, (0, target)), expected)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_accuracy_of_one_output_is_that_of_its_sign(shape):
    outputs = torch.tensor([2.0, -1.0, 0.5, -3.0]).view(shape)
    assert accuracy(outputs, (0, torch.tensor([1, 0, 0, 0]))) == 0.75


def test_accuracy_of_one_output_refuses_what_is_no_class():
    with pytest.raises(InvalidValueError, match=r"0 or 1 .* got 'values from -2 to 3'. Or give"):
        METRICS["accuracy"].function(torch.zeros(3, 1), (None, torch.tensor([[0.5], [-2], [3]])))


@pytest.mark.parametrize("shape", [(50,), (50, 1), (25, 2)])
def test_accuracy_is_the_same_for_labels_with_an_axis_of_one(shape):
    labels = torch.arange(50) % 3
    outputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    expected = accuracy_score(labels, outputs.argmax(1))
    if shape == (25, 2):
        outputs = outputs.view(25, 2, 3)
    assert accuracy(outputs, (0, labels.view(shape))) == expected


@pytest.mark.parametrize(
    ("metric", "outputs", "target"),
    [(accuracy, (3, 3), (3, 3)), (accuracy, (4, 1), (4, 2)), (accuracy, (1, 1), (4,))]
    + [(metric, (4, 1), (4, 2)) for metric in (mse, r2)]
    + [(metric, (1,), (4,)) for metric in (mse, r2)],
)
def test_a_target_of_another_shape_is_refused_by_the_built_in_metrics(metric, outputs, target):
    with pytest.raises(InvalidValueError, match=r"`target` must be one .*Or give `metric=Metric"):
        metric(torch.ones(outputs), (0, torch.ones(target)))


def test_a_column_of_predictions_is_compared_with_a_row_of_targets_one_by_one():
    outputs, target = torch.randn(5, 1), torch.randn(5)
    assert mse(outputs, (0, target)) == pytest.approx(
        float((outputs[:, 0] - target).square().mean())
    )
    assert r2(target[:, None], (0, target)) == 1


@pytest.mark.parametrize("name", ["target", "label", "labels", "y"])
def test_the_target_is_found_by_name_or_place(name):
    target = torch.arange(3)
    assert target_of({"x": torch.zeros(3), name: target}) is target
    assert target_of((torch.zeros(3), torch.ones(3), target)) is target


@pytest.mark.parametrize("batch", [torch.zeros(3), {"x": torch.zeros(3)}, (torch.zeros(3),)])
def test_a_batch_without_a_target_is_refused(batch):
    with pytest.raises(InvalidTypeError, match=r"`batch` must be .*Give `metric=Metric"):
        target_of(batch)


def test_the_objective_gives_losses_and_weights():
    task = Task(model, DATA, loss=loss, weight=lambda batch: batch[1] + 1)
    objective = Objective(task, model())
    losses, weights = objective(DATA)
    assert torch.equal(losses, loss(objective.module(DATA[0]), DATA))
    assert torch.equal(weights, DATA[1] + 1)
    outputs, same, _ = objective(DATA, predict=True)
    assert torch.equal(outputs, objective.outputs(DATA))
    assert torch.equal(losses, same)


def test_the_objective_of_a_training_step_gives_its_scalar_and_the_sum_of_weights():
    task = Task(model, DATA, training_step=step)
    objective = Objective(task, model())
    scalar, weight = objective(DATA)
    assert torch.equal(scalar, step(objective.module, DATA))
    assert weight == 40
    assert objective(DATA, predict=True)[0] is None
    assert total_weight(Task(model, DATA, loss=loss, weight=lambda b: b[1] * 3), DATA) == 60


def test_forward_says_what_the_model_reads():
    task = Task(model, DATA, loss=loss, forward=lambda module, batch: module(batch["x"]))
    objective = Objective(task, model())
    assert torch.equal(objective.outputs({"x": DATA[0]}), objective.module(DATA[0]))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (ValueError("  \n a sentence. \n"), "ValueError: a sentence"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_the_reason_is_one_line_without_a_full_stop(error, said):
    assert reason(error) == said
