"""A part of the training data: the same one for the same seed, exactly as large as asked for."""

import itertools
import sys
import threading
from dataclasses import replace

import cloudpickle
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine import workers
from batchlab.errors import InvalidValueError, TaskError
from batchlab.tasks import Task, load, prepare
from batchlab.tasks.loading import found_at
from batchlab.tasks.subset import named, nested_order, parse_subset, subset_of

N = 200
X = torch.arange(N * 4, dtype=torch.float32).reshape(N, 4) / (N * 4)
Y = torch.arange(N) % 3
HELD = (X[:30], Y[:30])


def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def prepared(**changes):
    given = {
        "model": lambda: nn.Linear(4, 3),
        "train": (X, Y),
        "validation": HELD,
        "test": HELD,
        "loss": loss,
        "metric": "accuracy",
        "baseline": RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="10ep"),
    }
    return prepare(Task(**given | changes), device="cpu")


def rows(part):
    """Which examples a part holds, by their first feature."""
    first = part.train.batch(torch.arange(part.examples))[0][:, 0]
    return {round(float(value) * N) for value in first}


# --- which examples ---


def test_the_same_seed_draws_the_same_part():
    whole = prepared()
    assert rows(subset_of(whole, "20%", 3)) == rows(subset_of(whole, "20%", 3))
    assert rows(subset_of(whole, "20%", 3)) != rows(subset_of(whole, "20%", 4))


@pytest.mark.parametrize(
    ("subset", "count"), [("10%", 20), (0.1, 20), ("12.5%", 25), (0.333, 67), (77, 77), ("77", 77)]
)
def test_the_part_is_exactly_as_large_as_asked_for(subset, count):
    part = subset_of(prepared(), subset)
    assert part.examples == count == len(rows(part))


def test_a_part_lies_inside_every_larger_part_of_its_seed():
    whole = prepared()
    parts = [rows(subset_of(whole, count)) for count in range(20, N)]
    assert all(small < large for small, large in itertools.pairwise(parts))


def largest_error(order, labels):
    """The most by which any beginning of an order misses its share of a class, in examples."""
    seen = nn.functional.one_hot(labels[order]).cumsum(0).double()
    share = torch.arange(1, len(order) + 1)[:, None] / len(order)
    return float((seen - share * torch.bincount(labels)).abs().max())


@pytest.mark.parametrize("sizes", [(100, 100), (300, 90, 10), (1,) * 40 + (160,), (7, 400)])
def test_every_beginning_has_the_same_share_of_every_class(sizes):
    """All beginnings, enumerated."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = nested_order(labels, len(labels), seed=1)
    assert sorted(order.tolist()) == list(range(len(labels)))
    assert largest_error(order, labels) < 2


def test_a_draw_that_ignores_the_classes_would_be_noticed():
    labels = torch.repeat_interleave(torch.arange(2), torch.tensor((200, 200)))
    assert largest_error(_random.permutation(400, 1, -2), labels) > 5


def test_without_classes_the_part_is_drawn_at_random():
    part = subset_of(
        prepared(train=(X, X[:, :3]), validation=None, test=None, loss=_squares, metric="mse"),
        "50%",
    )
    assert part.examples == 85
    assert len(rows(part) & set(range(100))) not in (0, 85)
    assert any("drawn at random" in sentence for sentence in part.assumptions)


def _squares(outputs, batch):
    return (outputs - batch[1]).square().mean(-1)


class Shaky(Dataset):
    """A random transform: the first feature says which example it is."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return torch.cat([X[index, :1], torch.rand(3)]), Y[index]


def test_a_streamed_example_of_a_part_is_the_one_of_the_whole():
    whole = prepared(train=Shaky())
    part = subset_of(whole, "20%", 5)
    index, passes = torch.arange(40), torch.full((40,), 2)
    mine = part.train.batch(index, passes, seed=9)
    which = (mine[0][:, 0] * N).round().long()
    theirs = whole.train.batch(which, passes, seed=9)
    assert torch.equal(mine[0], theirs[0])


# --- what stays ---


@pytest.mark.parametrize("subset", [None, "100%", 1.0, N, str(N)])
def test_all_of_the_data_is_no_subset(subset):
    whole = prepared()
    assert subset_of(whole, subset, 3) is whole


def test_validation_and_test_data_stay_whole():
    whole = prepared(validation=None)
    part = subset_of(whole, "20%")
    assert part.validation is whole.validation
    assert part.test is whole.test
    assert part.drawn.whole is whole


@pytest.mark.parametrize(("samples", "expected"), [("10ep", 400), ("2.5ep", 100), (1001, 201)])
def test_the_number_of_passes_is_kept_however_the_length_is_written(samples, expected):
    recipe = RunConfig(
        rule="sgd",
        batch_size=8,
        learning_rate=0.1,
        samples=samples,
        lr_schedule="cosine",
        warmup=0.1,
    )
    part = subset_of(prepared(baseline=recipe), "20%")
    assert part.baseline.samples == expected
    whole = recipe.resolved(N).replace(samples=expected)
    assert part.baseline == whole


def test_what_was_decided_is_said():
    said = subset_of(prepared(), "20%").assumptions
    assert "trained on 40 of 200 training examples, the same share of every class" in said[-2]
    assert "400 samples instead of 2,000" in said[-1]


def test_a_batch_schedule_in_epochs_is_kept_and_one_in_samples_refused():
    growing = RunConfig(rule="sgd", batch_size="0:8 4ep:16", learning_rate=0.1, samples="10ep")
    part = subset_of(prepared(baseline=growing), "20%")
    assert part.baseline.batch_size == "0:8 4ep:16"
    fixed = growing.replace(batch_size="0:8 800:16")
    with pytest.raises(InvalidValueError, match="`batch_size` must be a schedule in epochs"):
        subset_of(prepared(baseline=fixed), "20%")


# --- what is refused ---


@pytest.mark.parametrize(
    ("subset", "said"),
    [
        ("0%", "`subset` must be a share such as 10% or 0.1"),
        ("0", "`subset` must be a share such as 10% or 0.1"),
        (0.0, "`subset` must be a share such as 10% or 0.1"),
        ("-3", "`subset` must be a share such as 10% or 0.1"),
        ("150%", "up to 100%"),
        (1.5, "up to 100%"),
        ("abc", "or a number of examples such as 5000; got 'abc'"),
        ("", "`subset` must be a share"),
        ("nan", "`subset` must be a share"),
    ],
)
def test_what_is_no_part_is_one_sentence(subset, said):
    with pytest.raises(InvalidValueError, match=said) as caught:
        parse_subset(subset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("subset", "said"),
    [
        ("1%", "at least 20 training examples; got '1%'. 1% of 200 is 2"),
        (2, "at least 20 training examples; got 2"),
        (201, "`subset` must be at most the 200 training examples; got 201"),
    ],
)
def test_a_part_that_does_not_fit_the_data_is_one_sentence(subset, said):
    with pytest.raises(InvalidValueError, match=said):
        subset_of(prepared(), subset)


def test_a_batch_larger_than_the_part_is_refused():
    large = RunConfig(rule="sgd", batch_size=64, learning_rate=0.1, samples="10ep")
    with pytest.raises(TaskError, match="`batch_size` must be at most the 40 training examples"):
        subset_of(prepared(baseline=large), "20%")


@pytest.mark.parametrize(
    ("subset", "name"), [("10 %", "10%"), (0.1, "10%"), ("0.125", "12.5%"), (5000, "5000")]
)
def test_the_same_part_has_one_name(subset, name):
    assert named(subset) == name
    assert named(name) == name


# --- in a worker ---


def test_a_worker_trains_on_the_part_and_is_not_sent_the_whole():
    part = subset_of(prepared(), "20%", 5)
    payload = cloudpickle.loads(workers.packed(part))[-1]
    sent = cloudpickle.loads(payload)
    assert sent.drawn is None
    assert rows(sent) == rows(part)


def test_a_task_that_travels_by_name_is_cut_again(tmp_path):
    part = subset_of(prepare(load("digits"), device="cpu"), "10%", 5)
    lock = threading.Lock()
    task = replace(part.task, forward=lambda m, b: (lock, m(b[0]))[1])
    stuck = replace(part, task=found_at(task, "digits"))
    packed = workers.packed(stuck)
    assert cloudpickle.loads(packed)[-1] is None
    (tmp_path / "task").write_bytes(packed)
    before = list(sys.path)
    again = workers._read_task.__wrapped__(str(tmp_path / "task"))
    sys.path[:] = before
    index = torch.arange(part.examples)
    assert torch.equal(again.train.batch(index)[0], part.train.batch(index)[0])
