"""Streams that never repeat: drawn inputs with given labels, and pictures by their place."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, TaskError
from batchlab.models.mlp import MLP, mean_field_mlp
from batchlab.tasks import Task, prepare
from batchlab.tasks.augment import Augmentation
from batchlab.tasks.online import Pictures, augmented_task, drawn_task
from tests.engine import tiny

SIDE, COUNT = 4, 40
EXACT = Augmentation(0, 0, 0, 0, 0, 0, 0, 0.0)


def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def squared_error(outputs, batch):
    return (outputs - batch[1]).square().mean(1)


def pictures(count=COUNT, **changes):
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(count, 1, SIDE, SIDE, generator=draw)
    labels = torch.randint(3, (count,), generator=draw)
    given = {"train": (images, labels), "loss": loss, "metric": "accuracy", "name": "pictures"}
    return Task(**{"model": lambda: MLP(SIDE**2, (5,), 3)} | given | changes)


# -- drawn inputs ---------------------------------------------------------------------------------


def of_drawn(**changes):
    given = {"features": 4, "examples": 640}
    return drawn_task("(z1 + z2*z3)/sqrt(2)", lambda: mean_field_mlp(4, 8, 2), **given | changes)


def test_labels_are_the_target_of_the_first_features():
    for inputs, labels in (of_drawn().train, of_drawn().validation):
        expected = (inputs[:, 0] + inputs[:, 1] * inputs[:, 2]) / math.sqrt(2)
        torch.testing.assert_close(labels[:, 0], expected)


def test_a_run_is_one_pass_in_which_no_example_comes_twice():
    ready = prepare(of_drawn(), device="cpu")
    assert ready.baseline.samples == ready.examples == 640
    everything = torch.cat([ready.train.tree[0], ready.validation.tree[0]])
    assert len(everything.unique(dim=0)) == len(everything)


def test_a_seed_names_the_data():
    assert torch.equal(of_drawn().train[0], of_drawn().train[0])
    assert not torch.equal(of_drawn().train[0], of_drawn(seed=1).train[0])


def test_inputs_have_unit_variance():
    inputs = of_drawn(examples=20_000).train[0].double()
    assert float((inputs.square().mean(0) - 1).abs().max()) < 4 * math.sqrt(2 / 20_000)


def test_a_target_of_more_directions_than_features_is_refused():
    with pytest.raises(InvalidValueError, match="`features` must be at least 3"):
        of_drawn(features=2)


def test_no_examples_are_refused():
    with pytest.raises(InvalidValueError, match="`examples` must be 1 or more"):
        of_drawn(examples=0)


# -- pictures -------------------------------------------------------------------------------------


def test_negative_places_are_the_pictures_as_they_are():
    ready = prepare(pictures(), device="cpu")
    task = augmented_task(pictures(), passes=3)
    for source, (places, labels) in (
        (ready.validation, task.validation),
        (ready.train, (-1 - torch.arange(ready.examples), task.train[1][: ready.examples])),
    ):
        assert torch.equal(task.forward.at(places), source.tree[0])
        assert torch.equal(labels, source.tree[1])


def test_strength_zero_renders_each_picture_with_its_label_in_every_pass():
    ready = prepare(pictures(), device="cpu")
    task = augmented_task(pictures(), passes=3, how=EXACT)
    rendered = task.forward.at(task.train[0])
    assert torch.equal(rendered, ready.train.tree[0].repeat(3, 1, 1, 1))
    assert torch.equal(task.train[1], ready.train.tree[1].repeat(3))


def test_labels_of_two_axes_come_in_every_pass_with_their_picture():
    images, labels = pictures().train
    whole = one_hot(labels, 3).float()
    given = pictures(train=(images, whole), loss=squared_error, metric="loss")
    task = augmented_task(given, passes=3, how=EXACT)
    rendered = task.forward.at(task.train[0]).flatten(1)
    source = torch.cdist(rendered, images.flatten(1)).argmin(1)
    assert len(source) == 3 * len(source.unique())
    assert torch.equal(task.train[1], whole[source])


def test_no_picture_comes_twice():
    task = augmented_task(pictures(), passes=20)
    rendered = task.forward.at(task.train[0]).flatten(1)
    assert len(rendered.unique(dim=0)) == len(rendered) == 20 * 34


def test_a_seed_names_the_distortions():
    tasks = [augmented_task(pictures(), 2, seed=seed) for seed in (0, 0, 1)]
    made = [task.forward.at(torch.arange(9)) for task in tasks]
    assert torch.equal(made[0], made[1])
    assert not torch.allclose(made[0], made[2], atol=1e-2)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_a_place_has_one_picture_at_every_batch_size(size):
    task = augmented_task(pictures(), passes=2)
    places = task.train[0]
    parts = torch.cat([task.forward.at(part) for part in places.split(size)])
    torch.testing.assert_close(parts, task.forward.at(places), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def trained():
    """Three runs of one pass in both executors."""
    recipe = RunConfig(rule="sgd", learning_rate=0.1, batch_size=8)
    ready = prepare(augmented_task(pictures(baseline=recipe), passes=2), device="cpu")
    configs = [ready.baseline.replace(seed=s, precision="float64") for s in range(3)]
    job = tiny.Job((16, 64), keep_end=True)
    return ready, configs, {e: tiny.trained(ready, configs, e, job) for e in ("loop", "stacked")}


def test_both_executors_see_the_same_pictures(trained):
    _, _, found = trained
    assert tiny.apart(found["loop"][0], found["stacked"][0]) < 1e-5


def test_going_on_sees_the_pictures_that_a_whole_run_sees(trained):
    ready, configs, found = trained
    half = tiny.Job((16,), until=32, keep_end=True)
    _, states = tiny.trained(ready, configs, "loop", half)
    _, ends = tiny.trained(ready, configs, "loop", tiny.Job((64,), keep_end=True), starts=states)
    for one, other in zip(found["loop"][1], ends, strict=True):
        for name, value in tiny.leaves(one).items():
            torch.testing.assert_close(value, tiny.leaves(other)[name])


def oblong():
    images, labels = torch.rand(40, 1, 4, 3), torch.zeros(40, dtype=torch.long)
    return pictures(train=(images, labels), model=lambda: MLP(12, (5,), 3))


def table():
    return pictures(train=(torch.rand(40, 16), torch.zeros(40, dtype=torch.long)))


def with_forward():
    return pictures(forward=lambda model, batch: model(batch[0]))


@pytest.mark.parametrize(
    ("make", "said"),
    [(oblong, "square"), (table, "square"), (with_forward, "without a forward or step")],
)
def test_what_holds_no_square_pictures_is_refused(make, said):
    with pytest.raises(TaskError, match=said):
        augmented_task(make(), passes=2)


def test_no_pass_is_refused():
    with pytest.raises(InvalidValueError, match="`passes` must be 1 or more"):
        augmented_task(pictures(), passes=0)


def test_places_reach_far_beyond_a_long_training():
    far = Pictures(torch.rand(2, 1, 4, 4), 2, Augmentation(), seed=0)
    places = torch.tensor([0, 10**12, 2**60])
    made = far.at(places).flatten(1)
    assert float((torch.cdist(made, made) + torch.eye(3)).min()) > 1e-3
