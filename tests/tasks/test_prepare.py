import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, nll_loss
from torch.utils.data import Dataset

from batchlab.config import RunConfig
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError
from batchlab.rules import Scales
from batchlab.tasks import Metric, Task, load, prepare
from batchlab.tasks.prepare import check, split
from batchlab.tasks.source import Stacked, Streamed, Subset, make_source

X = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(100) % 3


def model():
    return nn.Linear(4, 3)


def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def step(module, batch):
    return cross_entropy(module(batch[0]), batch[1])


def task(**changes):
    return Task(**{"model": model, "train": (X, Y), "loss": loss, "metric": "accuracy", **changes})


def refused(said, **changes):
    with pytest.raises(TaskError, match=said) as caught:
        prepare(task(**changes), device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


# --- what prepare gives ---


def test_labels_in_a_column_are_checked_and_split_like_others():
    def column(outputs, batch):
        return cross_entropy(outputs, batch[1][:, 0], reduction="none")

    prepared = prepare(task(train=(X, Y[:, None]), loss=column), device="cpu")
    assert torch.equal(
        prepared.validation.tree[0], prepare(task(), device="cpu").validation.tree[0]
    )
    labels = Y[:, None].clone()
    labels[77] = 3
    refused("In `train`, `labels` must be 0 to 2", train=(X, labels), loss=column)


def test_targets_that_the_built_in_metric_cannot_read_are_refused_before_training():
    def soft(outputs, batch):
        return cross_entropy(outputs, batch[1], reduction="none")

    one_hot = torch.nn.functional.one_hot(Y).float()
    said = r"The metric `accuracy`: `target` must be one label .* \[8\]; got 'shape \[8, 3\]'"
    refused(said, train=(X, one_hot), loss=soft)
    refused(
        "The metric `accuracy` raised AttributeError: .* on the first examples",
        forward=lambda module, batch: {"logits": module(batch[0])},
        loss=lambda outputs, batch: loss(outputs["logits"], batch),
    )


def test_the_demo_prepares():
    prepared = prepare(load("digits"), device="cpu")
    assert prepared.examples + prepared.validation.examples == 1437
    assert prepared.test.examples == 360
    assert prepared.baseline.samples == 20 * prepared.examples


def test_without_validation_data_a_share_is_split_off_and_said():
    prepared = prepare(task(baseline=RunConfig(samples="2ep")), device="cpu")
    kept, held = prepared.train.tree[0], prepared.validation.tree[0]
    assert (len(kept), len(held)) == (85, 15)
    whole = torch.cat([kept, held])
    assert sorted(map(tuple, whole.tolist())) == sorted(map(tuple, X.tolist()))
    assert (
        "no validation data: 15 of 100 training examples are kept for it" in prepared.assumptions
    )
    assert prepared.baseline.samples == 2 * 85


def test_given_validation_data_is_kept_and_nothing_is_said_of_it():
    prepared = prepare(task(validation=(X[:7], Y[:7])), device="cpu")
    assert prepared.examples == 100
    assert torch.equal(prepared.validation.tree[0], X[:7])
    assert not [said for said in prepared.assumptions if "validation" in said]


def test_what_the_recipe_leaves_out_is_said():
    said = prepare(task(metric=None), device="cpu").assumptions
    assert "the baseline names no batch_size: 32 is assumed" in said
    assert "the task names no metric: the validation loss is used" in said


@pytest.mark.parametrize("counts", [(50, 30, 20), (97, 2, 1), (7, 7, 7), (400, 40, 4)])
def test_the_split_gives_each_class_its_share_to_within_one(counts):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    kept, held = split(labels, len(labels))
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert len(held) == round(0.15 * len(labels))
    for label, count in enumerate(counts):
        assert abs(int((labels[held] == label).sum()) - 0.15 * count) < 1


def test_the_split_of_few_examples_holds_out_at_least_one():
    kept, held = split(None, 3)
    assert (len(kept), len(held)) == (2, 1)


def test_the_split_does_not_follow_the_order_of_the_data():
    _, held = split(None, 1000)
    ranks = held.double() / 1000
    assert abs(float(ranks.mean()) - 0.5) < 4 / math.sqrt(12 * 150)
    assert len(held.diff().unique()) > 5


def test_preparing_twice_gives_the_same():
    first, second = (prepare(task(), device="cpu") for _ in range(2))
    assert torch.equal(first.validation.tree[0], second.validation.tree[0])
    one, other = first.objective(3), second.objective(3)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.module.weight, first.objective(4).module.weight)


def test_an_objective_has_the_precision_asked_for():
    assert (
        prepare(task(), device="cpu").objective(0, torch.float64).module.weight.dtype
        == torch.float64
    )


class Careless(nn.Linear):
    """Draws from every global generator while it is built and used."""

    def __init__(self):
        super().__init__(4, 3)
        random.random()
        np.random.rand()

    def forward(self, x):
        return super().forward(x + 0 * torch.randn(4) + 0 * random.random() + 0 * np.random.rand())


# The checker draws from Python's generator itself, to pick the item of a list to look at.
@pytest.mark.wrong_type
@pytest.mark.parametrize("changes", [{}, {"metric": "accuracy"}, {"test": (X, Y)}])
def test_preparing_leaves_global_random_state_untouched(changes):
    before = states()
    prepare(task(model=Careless, **changes), device="cpu").objective(0)
    assert states() == before


class Rows(Dataset):
    def __init__(self, noise):
        self.noise = noise

    def __len__(self):
        return 60

    def __getitem__(self, index):
        return X[index] + self.noise * torch.randn(4), Y[index]


@pytest.mark.parametrize(("noise", "kind"), [(0.0, Stacked), (0.1, Subset)])
def test_datasets_prepare_in_memory_or_streamed(noise, kind):
    prepared = prepare(task(train=Rows(noise), baseline=RunConfig(batch_size=8)), device="cpu")
    assert isinstance(prepared.train, kind)
    assert prepared.examples == 51
    if noise:
        assert isinstance(prepared.train.source, Streamed)


# --- what prepare refuses, before any training ---


@pytest.mark.wrong_type
def test_something_else_than_a_task_is_refused():
    with pytest.raises(InvalidTypeError, match=r"`task` must be a batchlab.Task; got 'dict'"):
        prepare({}, device="cpu")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InvalidValueError, match="`device` must be one this machine has"):
        prepare(task(), device="teapot")


@pytest.mark.parametrize("count", [0, 3, 19])
def test_too_few_examples_are_refused(count):
    refused(f"`train` must be at least 20 examples; got {count}", train=(X[:count], Y[:count]))


def test_an_empty_list_is_refused():
    refused("`train` must be at least one example", train=[])


@pytest.mark.parametrize("name", ["validation", "test"])
def test_empty_held_out_data_is_refused(name):
    refused(f"`{name}` must be at least one example", **{name: (X[:0], Y[:0])})


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(name, value):
    bad = X.clone()
    bad[60, 2] = bad[60, 3] = bad[99, 0] = value
    # A tenth of the examples could be held out; all are looked at wherever they end up.
    other = {} if name != "train" else {"validation": (X, Y)}
    said = f"`{name}` must be free of NaN and infinity; got '2 examples with one'"
    refused(said, **{name: (bad, Y)}, **other)


def test_nan_in_targets_is_refused():
    target = torch.randn(100, 3)
    target[5, 1] = math.nan
    refused(
        "`train` must be free of NaN and infinity; got 'an example with one'",
        train=(X, target),
        validation=(X, X[:, :3]),
        metric="mse",
        loss=lambda out, batch: mse_loss(out, batch[1], reduction="none").mean(1),
    )


class LateNaN(Dataset):
    def __len__(self):
        return 700

    def __getitem__(self, index):
        return torch.full((4,), math.nan if index >= 690 else 1.0), torch.tensor(index % 3)


def test_nan_at_the_end_of_listed_data_is_refused():
    def collate(items):
        return tuple(map(torch.stack, zip(*items, strict=True)))

    refused(r"`\w+` must be free of NaN and infinity", train=LateNaN(), collate=collate)


@pytest.mark.parametrize("value", [-1, 3, 100])
@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_a_label_out_of_range_is_refused(name, value):
    labels = Y.clone()
    labels[77] = value
    other = {} if name != "train" else {"validation": (X, Y)}
    said = f"In `{name}`, `labels` must be 0 to 2, as the model has 3 outputs"
    refused(said, **{name: (X, labels)}, **other)


@pytest.mark.parametrize("metric", ["loss", Metric("mine", lambda out, batch: 0.0, maximise=True)])
def test_a_label_out_of_range_is_refused_whatever_the_metric(metric):
    labels = Y.clone()
    labels[77] = 3
    refused(
        "The loss raised IndexError: .* on the labels of `train`, 0 to 3",
        train=(X, labels),
        validation=(X, Y),
        metric=metric,
    )


def test_labels_for_a_gpu_are_checked_before_anything_runs_on_it():
    """On a GPU an index out of range is no IndexError, and ends every later call."""
    good = prepare(task(validation=(X, Y), metric="loss"), device="cpu")
    labels = Y.clone()
    labels[77] = 3
    bad = replace(good, train=make_source((X, labels), None, "train"), device="cuda")
    with pytest.raises(TaskError, match=r"raised IndexError: .* on the labels of `train`, 0 to 3"):
        check(bad)


def test_a_label_that_the_loss_ignores_is_welcome():
    labels = Y.clone()
    labels[77] = -100
    assert prepare(task(train=(X, labels), metric="loss"), device="cpu").examples == 85


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda out, batch: cross_entropy(out, batch[1]), r"got 'shape \[\]'.*reduction=\"none\""),
        (lambda out, batch: mse_loss(out, out * 0, reduction="none"), r"got 'shape \[8, 3\]'.*Av"),
        (lambda out, batch: loss(out, batch)[1:], r"got 'shape \[7\]'"),
        (lambda out, batch: 0.5, "`loss` must be a function that returns a tensor; got 'float'"),
        (lambda out, batch: loss(out.detach(), batch), "`loss` must be differentiable"),
        (lambda out, batch: loss(out, batch) / 0, "untrained model is not finite"),
        (lambda out, batch: loss(out, batch, 3), "raised TypeError: loss.* takes 2 positional"),
        (lambda out, batch: out["logits"], "Model or loss raised IndexError: too many indices"),
        (lambda out: out, r"raised TypeError: .*takes 1 positional argument"),
        (lambda out, batch: nll_loss(out, batch[2], reduction="none"), "IndexError: tuple index"),
    ],
)
def test_a_loss_of_the_wrong_kind_is_refused(bad, said):
    refused(said, loss=bad, metric="loss")


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (lambda batch: torch.ones(3), r"`weight` must be one number per example, shape \[8\]"),
        (lambda batch: -torch.ones(len(batch[1])), "`weight` must be 0 or more, and not all 0"),
        (lambda batch: torch.zeros(len(batch[1])), "`weight` must be 0 or more, and not all 0"),
        (lambda batch: batch["tokens"], "Model or loss raised TypeError"),
    ],
)
def test_a_weight_of_the_wrong_kind_is_refused(weight, said):
    refused(said, weight=weight, metric="loss")


def fails():
    raise FileNotFoundError("no weights.pt\nanywhere")


SHARED = nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (fails, r"`model\(\)` raised FileNotFoundError: no weights.pt \(.*, in fails\)\.$"),
        (lambda: torch.sin, "`model` must be a function that returns a torch.nn.Module"),
        (lambda size: nn.Linear(size, 3), r"`model\(\)` raised TypeError"),
        (nn.Flatten, "`model` must be a module with parameters that require gradients"),
        (
            lambda: SHARED,
            "`model` must be a function that builds a new module; got 'the same one'",
        ),
        (lambda: nn.Linear(5, 3), "Model or loss raised RuntimeError: mat1 and mat2"),
    ],
)
def test_a_model_of_the_wrong_kind_is_refused(bad, said):
    refused(said, model=bad)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_held_out_data_of_another_shape_is_refused(name):
    refused(f"raised RuntimeError: .* on {name} data, but not on train", **{name: (X[:, :2], Y)})


def test_a_collate_that_raises_or_loses_examples_is_refused():
    rows = [(row, label) for row, label in zip(X, Y, strict=True)]
    refused(
        "Making a batch of `train` raised ZeroDivisionError", train=rows, collate=lambda _: 1 / 0
    )
    refused(
        r"In `train`, `batch` must be tensors that start with its \d+ examples; got \[4\]",
        train=rows,
        collate=lambda items: (items[0][0], torch.stack([label for _, label in items])),
    )


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        (
            RunConfig(batch_size=86),
            "`batch_size` must be at most the 85 training examples; got 86",
        ),
        (RunConfig(batch_size="0:8 2ep:99"), "at most the 85 training examples; got 99"),
        (RunConfig(samples=31), "`samples` must be at least one batch of 32; got 31"),
    ],
)
def test_a_recipe_that_cannot_be_run_is_refused(baseline, said):
    refused(said, baseline=baseline)


def test_a_training_step_is_checked_by_halves():
    good = task(loss=None, training_step=step, metric="loss")
    assert prepare(good, device="cpu").objective(0)((X, Y))[1] == 100

    def total(module, batch):
        return cross_entropy(module(batch[0]), batch[1], reduction="sum")

    with pytest.raises(TaskError, match=r"`training_step` must be the weighted mean of its hal"):
        prepare(replace(good, training_step=total), device="cpu")


def test_a_training_step_with_its_own_denominator_needs_that_weight():
    def per_token(module, batch):
        losses = cross_entropy(module(batch[0]), batch[1], reduction="none")
        return (losses * batch[2]).sum() / batch[2].sum()

    data = (X, Y, 1.0 + torch.arange(100) % 7)
    weighted = task(
        train=data,
        loss=None,
        training_step=per_token,
        metric="loss",
        weight=lambda batch: batch[2],
    )
    prepare(weighted, device="cpu")
    with pytest.raises(TaskError, match="Give `weight=`"):
        prepare(replace(weighted, weight=None), device="cpu")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (lambda module, batch: loss(module(batch[0]), batch), r"a scalar mean .* 'shape \[8\]'"),
        (lambda module, batch: step(module, batch).item(), "returns a tensor; got 'float'"),
        (lambda module, batch: step(module, batch).detach(), "`training_step` must be differ"),
    ],
)
def test_a_training_step_of_the_wrong_kind_is_refused(bad, said):
    refused(said, loss=None, training_step=bad, metric="loss")


def test_a_group_of_a_parameter_that_is_not_there_is_refused():
    said = "`groups` must be names of the model's parameters; got 'gain'. The model's parameters"
    refused(said, groups={"gain": Scales(weight_decay=0.0)})


def test_what_the_learning_rate_means_for_groups_is_said():
    def said(groups):
        return [
            a for a in prepare(task(groups=groups), device="cpu").assumptions if "rate is m" in a
        ]

    assert said({"bias": Scales(weight_decay=0.0)}) == []
    assert said({"bias": Scales(0.1)}) == [
        "the learning rate is multiplied by 0.1 for 1 parameter"
    ]
    both = said({"bias": Scales(0.1), "weight": Scales(0.1)})
    assert both == ["the learning rate is multiplied by 0.1 for 2 parameters"]


def test_the_notes_of_a_task_stand_before_what_is_assumed():
    said = prepare(task(metric=None, notes=("first", "second")), device="cpu").assumptions
    assert said[:2] == ("first", "second")
    assert said[2:] == prepare(task(metric=None), device="cpu").assumptions


@pytest.mark.parametrize("reduce", [lambda losses: losses.mean(1), lambda losses: losses])
def test_outputs_in_a_column_beside_labels_in_a_row_are_refused(reduce):
    """[B, 1] − [B] is [B, B]: averaged, each loss is of one output and every label."""
    x, y = torch.randn(100, 3), torch.randn(100)
    task = Task(
        lambda: torch.nn.Linear(3, 1),
        (x, y),
        loss=lambda outputs, batch: reduce((outputs - batch[1]).square()),
        baseline=RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="2ep"),
    )
    with pytest.raises(TaskError, match=r"labels of shape \[B\]: give both the same shape"):
        prepare(task, device="cpu")
    right = replace(task, loss=lambda outputs, batch: (outputs[:, 0] - batch[1]).square())
    assert prepare(right, device="cpu").train.examples == 85
