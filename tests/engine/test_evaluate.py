"""Loss and metric over the whole of the validation data."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from batchlab.engine import Job
from batchlab.engine.evaluate import Evaluator
from batchlab.errors import TaskError
from batchlab.tasks import METRICS, Metric
from batchlab.tasks.source import Stacked, Streamed, make_source
from tests.engine import tiny


def largest_gap(outputs, batch):
    """No mean of batches gives it: the largest minus the smallest prediction of all."""
    return float(outputs.max() - outputs.min() + 100 * (len(outputs) != len(batch[1])))


GAP = Metric("gap", largest_gap, maximise=True)


def linear_predict(batch):
    outputs = batch[0].sum(1)
    weights = batch[0][:, 0].abs()
    return outputs, (weights * outputs).sum(), weights.sum()


@pytest.mark.parametrize("size", [1, 7, 32, 100])
def test_the_size_of_evaluation_batches_does_not_matter(size):
    source = Stacked(tiny.points(32))
    evaluator = Evaluator(source, GAP, "cpu", torch.float64, batch_size=size)
    (found,) = evaluator(linear_predict)
    outputs, loss, weight = linear_predict(source.tree)
    assert found["metric"] == pytest.approx(float(outputs.max() - outputs.min()), rel=1e-6)
    assert found["loss"] == pytest.approx(float(loss / weight), rel=1e-12)


@pytest.mark.parametrize("fitting", [1, 5, 31])
@pytest.mark.parametrize("read", [False, True])
def test_where_memory_runs_out_smaller_batches_give_the_same(fitting, read):
    """The first call meets the limit and the second starts below it."""
    points, seen = tiny.points(32), []
    examples = list(zip(*points, strict=True))
    source = Streamed(examples, default_collate) if read else Stacked(points)

    def predict(batch):
        seen.append(len(batch[1]))
        if len(batch[1]) > fitting:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return linear_predict(batch)

    evaluator = Evaluator(source, GAP, "cpu", torch.float64)
    expected = Evaluator(source, GAP, "cpu", torch.float64)(linear_predict)
    (found,) = evaluator(predict)
    assert found["metric"] == pytest.approx(expected[0]["metric"], rel=1e-6)
    assert found["loss"] == pytest.approx(expected[0]["loss"], rel=1e-12)
    assert max(seen) == 32
    seen.clear()
    assert evaluator(predict) == [found]
    assert max(seen) <= fitting


def test_memory_that_one_example_does_not_fit_in_is_an_error():
    def predict(batch):
        raise torch.OutOfMemoryError("not even one")

    with pytest.raises(torch.OutOfMemoryError, match="not even one"):
        Evaluator(Stacked(tiny.points(32)), GAP, "cpu", torch.float64)(predict)


def test_a_mean_of_batches_would_be_seen():
    source = Stacked(tiny.points(32))
    outputs = source.tree[0].sum(1)
    whole, parts = outputs.max() - outputs.min(), outputs.reshape(8, 4)
    assert not torch.isclose(whole, (parts.amax(1) - parts.amin(1)).mean())


def test_r_runs_get_a_value_each():
    def predict(batch):
        outputs = torch.stack([batch[0].sum(1), 3 * batch[0].sum(1)])
        return outputs, outputs.sum(1), torch.full((2,), float(len(batch[1])))

    evaluator = Evaluator(Stacked(tiny.points(32)), GAP, "cpu", torch.float64, batch_size=10)
    one, other = evaluator(predict)
    assert other["metric"] == pytest.approx(3 * one["metric"])
    assert other["loss"] == pytest.approx(3 * one["loss"])


def test_without_a_function_the_metric_is_the_loss():
    evaluator = Evaluator(Stacked(tiny.points(32)), METRICS["loss"], "cpu", torch.float64)
    (found,) = evaluator(linear_predict)
    assert found["metric"] == found["loss"]


def predicting(value):
    return lambda batch: (torch.full((32,), value), torch.tensor(1.0), torch.tensor(1.0))


def picky(outputs, batch):
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("Input contains infinity.\nSee the manual.")
    return 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_predictions_a_metric_cannot_take_give_nan(value):
    metric = Metric("picky", picky, maximise=True)
    evaluator = Evaluator(Stacked(tiny.points(32)), metric, "cpu", torch.float64)
    assert math.isnan(evaluator(predicting(value))[0]["metric"])


def test_infinite_scores_are_the_metrics_business():
    """Masked classes score minus infinity in sound models."""

    def predict(batch):
        outputs = torch.tensor([0.0, -math.inf]).expand(32, 2)
        return outputs, torch.tensor(1.0), torch.tensor(1.0)

    evaluator = Evaluator(Stacked(tiny.points(32)), METRICS["accuracy"], "cpu", torch.float64)
    share = float((tiny.points(32)[1] == 0).double().mean())
    assert evaluator(predict)[0]["metric"] == share


def test_a_metric_that_raises_is_named_in_one_sentence():
    def broken(outputs, batch):
        return batch["label"]

    evaluator = Evaluator(
        Stacked(tiny.points(32)), Metric("broken", broken, True), "cpu", torch.float64
    )
    with pytest.raises(TaskError, match=r"^The metric `broken` raised TypeError: .*$"):
        evaluator(predicting(1.0))


# Sequences of different lengths


class Tagger(nn.Module):
    """One output per place of a padded sequence."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs):
        return self.layer(inputs[..., None])[..., 0]


def pad(items):
    lengths = torch.tensor([len(item) for item in items])
    return pad_sequence(items, batch_first=True), lengths


def place_loss(outputs, batch):
    inside = torch.arange(outputs.shape[1]) < batch[1][:, None]
    return ((outputs - 2 * batch[0]).square() * inside).sum(1) / batch[1]


def sequences(metric, train_size=64):
    def items(examples):
        return [torch.arange(3 + i % (2 + i // 20)).double() / 9 for i in range(examples)]

    return tiny.ready(
        Tagger,
        train=items(train_size),
        validation=items(300),
        collate=pad,
        loss=place_loss,
        weight=lambda batch: batch[1],
        metric=metric,
    )


def test_padded_batches_are_evaluated_by_the_loss():
    trace, _ = tiny.trained(sequences("loss"), [tiny.run(samples=400)])
    losses = trace.runs[0].series["loss"].values
    assert losses[-1] < losses[0] / 2


def test_padded_batches_are_weighted_by_their_tokens():
    prepared = sequences("loss")
    trace, _ = tiny.trained(prepared, [tiny.run(samples=80)])
    model = prepared.objective(0, torch.float64)
    total = weight = 0.0
    for i in range(300):
        with torch.no_grad():
            losses, weights = model(prepared.validation.batch(torch.tensor([i])))
        total, weight = total + float(losses * weights), weight + float(weights)
    assert trace.runs[0].series["loss"].values[0] == pytest.approx(total / weight, rel=1e-12)


def test_a_metric_over_batches_that_cannot_be_joined_is_refused_in_one_sentence():
    with pytest.raises(TaskError, match=r"cannot be joined: .* or use metric='loss'\.$"):
        tiny.trained(sequences(GAP), [tiny.run(samples=80)])


def test_outputs_that_cannot_be_joined_are_refused_in_one_sentence():
    def predict(batch):
        return torch.ones(len(batch[1]), len(batch[1])), torch.tensor(1.0), torch.tensor(1.0)

    evaluator = Evaluator(Stacked(tiny.points(32)), GAP, "cpu", torch.float64, batch_size=20)
    with pytest.raises(TaskError, match="validation outputs cannot be joined"):
        evaluator(predict)


def test_what_is_no_tensor_among_the_outputs_is_left_alone():
    def predict(batch):
        return {"logits": batch[0], "cache": None}, torch.tensor(1.0), torch.tensor(1.0)

    metric = Metric("sum", lambda outputs, batch: float(outputs["logits"].sum()), True)
    evaluator = Evaluator(Stacked(tiny.points(32)), metric, "cpu", torch.float64, batch_size=20)
    assert evaluator(predict)[0]["metric"] == pytest.approx(float(tiny.points(32)[0].sum()))


class Reading(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        return torch.full((2,), float(i)) + torch.rand(()), i


def test_a_streamed_source_is_read_anew_and_gives_the_same():
    source = make_source(Reading(), None, "validation")
    assert isinstance(source, Streamed)
    evaluator = Evaluator(source, METRICS["loss"], "cpu", torch.float64, batch_size=5)

    def predict(batch):
        return (), batch[0].sum(), torch.tensor(1.0)

    first = evaluator(predict)
    torch.rand(1)
    assert evaluator(predict) == first


# The grid of samples


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_every_batch_size_is_evaluated_on_one_grid(executor):
    grid = (0, 60, 64, 130, 250)
    for size in (1, 8, 13, 50):
        config = tiny.run(batch_size=size, samples=260)
        trace, _ = tiny.trained(tiny.ready(), [config], executor, Job(evaluate_at=grid))
        passed = sorted({-(-moment // size) * size for moment in grid} | {260 // size * size})
        expected = [samples for samples in passed if samples <= 260]
        assert trace.runs[0].series["loss"].samples.tolist() == expected
        assert trace.runs[0].series["metric"].samples.tolist() == expected


def test_the_training_loss_is_the_mean_since_the_last_evaluation():
    asked = Job(evaluate_at=tuple(range(0, 81, 8)))
    each = tiny.trained(tiny.ready(), [tiny.run(samples=80)], asked=asked)[0].runs[0]
    some = tiny.trained(tiny.ready(), [tiny.run(samples=80)], asked=Job((0, 40, 80)))[0].runs[0]
    losses = each.series["train_loss"].values.reshape(2, 5)
    assert some.series["train_loss"].values == pytest.approx(losses.mean(1), rel=1e-12)
