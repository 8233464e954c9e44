"""Wrong labels and fewer examples, counted."""

import itertools

import pytest
import torch

from batchlab.errors import InvalidValueError
from batchlab.tasks.altered import (
    Relabelled,
    has_classes,
    targets_of,
    with_fewer,
    with_wrong_labels,
    wrong_targets,
)
from batchlab.tasks.source import Listed, Stacked
from batchlab.tasks.split import subset_indices

LABELS = torch.arange(200) % 7


@pytest.mark.parametrize(
    ("share", "seed"), list(itertools.product([0, 0.005, 0.05, 0.1, 0.2, 1], range(3)))
)
def test_exactly_the_share_is_wrong_and_never_right(share, seed):
    wrong = wrong_targets(LABELS, share, seed)
    assert int((wrong != LABELS).sum()) == round(200 * share)
    assert set(wrong.tolist()) <= set(LABELS.tolist())


def test_every_other_class_is_as_likely():
    """n = 7,000 wrong labels, 6 wrong classes each; |z| ≤ 4."""
    labels = torch.arange(7000) % 7
    steps = (wrong_targets(labels, 1.0, seed=0) - labels) % 7
    counts = torch.bincount(steps, minlength=7).double()
    assert counts[0] == 0
    error = (7000 * (1 / 6) * (5 / 6)) ** 0.5
    assert ((counts[1:] - 7000 / 6).abs() / error).max() <= 4


def test_the_wrong_labels_of_a_smaller_share_are_among_those_of_a_larger():
    few, many = (wrong_targets(LABELS, share, seed=1) for share in (0.05, 0.2))
    moved = few != LABELS
    assert torch.equal(many[moved], few[moved])


def test_numbers_are_exchanged_among_the_chosen_and_none_keeps_its_own():
    numbers = torch.linspace(0, 1, 100)
    wrong = wrong_targets(numbers, 0.1, seed=0)
    moved = wrong != numbers
    assert int(moved.sum()) == 10
    assert sorted(wrong.tolist()) == sorted(numbers.tolist())


def test_two_numbers_are_classes():
    targets = (torch.arange(20) % 2).float()[:, None]
    wrong = wrong_targets(targets, 0.5, seed=0)
    assert int((wrong != targets).sum()) == 10
    assert has_classes(targets)


@pytest.mark.parametrize("targets", [torch.ones(5, 4).long(), torch.ones(5).long()])
def test_targets_that_cannot_be_wrong_are_refused(targets):
    with pytest.raises(InvalidValueError, match="`targets` must be one class or number"):
        wrong_targets(targets, 0.1, seed=0)


def test_the_users_labels_are_not_written_to():
    data = torch.zeros(200, 2), LABELS.clone()
    with_wrong_labels(Stacked(data), 0.2, seed=0)
    assert torch.equal(data[1], LABELS)


def _rows():
    items = [(torch.full((2,), float(i)), int(label)) for i, label in enumerate(LABELS)]
    return Listed(items, torch.utils.data.default_collate)


def test_a_source_of_single_examples_gets_the_same_wrong_labels_as_a_block():
    block = Stacked((torch.arange(200.0).repeat(2, 1).T.contiguous(), LABELS))
    one, other = (with_wrong_labels(source, 0.1, seed=0) for source in (block, _rows()))
    assert isinstance(one, Stacked)
    assert isinstance(other, Relabelled)
    index = torch.tensor([199, 3, 77])
    for a, b in zip(one.batch(index), other.batch(index), strict=True):
        assert torch.equal(a, b)
    assert other.examples == 200
    assert other.in_memory
    assert torch.equal(other.elements(), _rows().elements())


def test_a_source_without_a_target_is_refused():
    source = Stacked(torch.zeros(30, 2))
    assert targets_of(source) is None
    with pytest.raises(InvalidValueError, match="`train` must be examples with one target each"):
        with_wrong_labels(source, 0.1, seed=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_tenth_has_its_share_of_every_class_to_within_one(seed):
    labels = torch.cat([torch.zeros(120), torch.ones(60), torch.full((20,), 2)]).long()
    part = with_fewer(Stacked((torch.zeros(200, 1), labels)), 20, seed)
    counts = torch.bincount(targets_of(part), minlength=3)
    assert part.examples == 20
    assert (counts - torch.tensor([12, 6, 2])).abs().max() <= 1


def test_a_part_names_every_example_once_and_in_order():
    for count in (1, 7, 40):
        part = subset_indices(None, 40, count, seed=3).tolist()
        assert part == sorted(set(part))
        assert len(part) == count


@pytest.mark.parametrize("count", [0, 41])
def test_more_than_there_are_is_refused(count):
    with pytest.raises(InvalidValueError, match="`count` must be from 1 to 40 examples"):
        subset_indices(None, 40, count)
