import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from batchlab.errors import InvalidTypeError, TaskError
from batchlab.tasks.source import LOOKED_AT, Listed, Stacked, Streamed, Subset, make_source


class Squares(Dataset):
    """Equal-shaped examples, read the same every time."""

    def __init__(self, count=30):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return torch.full((2,), float(index)), index**2


class Noisy(Squares):
    """A random transform that draws from Python, NumPy and torch."""

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + torch.rand(1)
        return index + noise, index


class SometimesNoisy(Squares):
    """Acts on one item in ten, as augmentation does."""

    def __getitem__(self, index):
        return torch.tensor([index + float(torch.rand(1) < 0.1)]), index


class Ragged(Squares):
    def __getitem__(self, index):
        return torch.ones(index % 5 + 1)


def pad(items):
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True)


def states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_tensors_are_gathered_by_index():
    x, y = torch.randn(10, 3), torch.arange(10)
    source = make_source({"x": x, "y": y.numpy()}, None, "train")
    index = torch.tensor([3, 3, 0])
    batch = source.batch(index)
    assert isinstance(source, Stacked)
    assert torch.equal(batch["x"], x[index])
    assert torch.equal(batch["y"], y[index])
    assert source.batch(index.view(3, 1))["x"].shape == (3, 1, 3)


def test_elements_count_numbers_of_an_example():
    source = make_source((torch.zeros(4, 2, 3), torch.zeros(4)), None, "train")
    assert source.elements().tolist() == [7] * 4
    assert make_source(Ragged(6), pad, "train").elements().tolist() == [1, 2, 3, 4, 5, 1]
    assert make_source(Noisy(3), None, "train").elements().tolist() == [2, 2, 2]
    some = make_source(Noisy(1000), None, "train").elements()
    assert some.unique().tolist() == [0, 2]
    assert int((some > 0).sum()) == LOOKED_AT


def test_a_quiet_dataset_is_kept_in_memory_as_one_block():
    source = make_source(Squares(), None, "train")
    assert isinstance(source, Stacked)
    assert source.batch(torch.tensor([5]))[1].tolist() == [25]


def test_a_dataset_with_a_collate_is_kept_item_by_item():
    source = make_source(Ragged(), pad, "train")
    assert isinstance(source, Listed)
    assert source.in_memory
    assert source.batch(torch.tensor([0, 2])).tolist() == [[1, 0, 0], [1, 1, 1]]


class RandomLength(Squares):
    """A list of numbers, cut at random."""

    def __getitem__(self, index):
        return [index] * random.randint(1, 9)


class RandomKeys(Squares):
    """A view that is there now and then."""

    def __getitem__(self, index):
        views = {"whole": torch.zeros(2)}
        return views | ({"cut": torch.zeros(1)} if random.random() < 0.5 else {})


class RandomKind(Squares):
    """A number or a tensor."""

    def __getitem__(self, index):
        return torch.zeros(1) if random.random() < 0.5 else 0.0


class RandomPrecision(Squares):
    """Equal numbers of another kind."""

    def __getitem__(self, index):
        return torch.zeros(1, dtype=random.choice([torch.float32, torch.float64]))


@pytest.mark.parametrize(
    "kind", [Noisy, SometimesNoisy, RandomLength, RandomKeys, RandomKind, RandomPrecision]
)
def test_a_random_transform_is_streamed(kind):
    source = make_source(kind(), None, "train")
    assert isinstance(source, Streamed)
    assert not source.in_memory


def test_a_transform_is_a_function_of_seed_pass_and_index():
    source = make_source(Noisy(), None, "train")
    index, passes = torch.tensor([4, 7, 4]), torch.tensor([0, 1, 2])
    whole = source.batch(index, passes, seed=3)[0]
    alone = [source.batch(index[i : i + 1], passes[i : i + 1], seed=3)[0] for i in range(3)]
    assert torch.equal(whole, torch.cat(alone))
    assert not torch.equal(whole[0], whole[2])
    assert not torch.equal(whole, source.batch(index, passes, seed=4)[0])


# The checker draws from Python's generator itself, to pick the item of a list to look at.
@pytest.mark.wrong_type
@pytest.mark.parametrize("kind", [Squares, Noisy, Ragged])
def test_reading_leaves_global_random_state_untouched(kind):
    source = make_source(kind(), pad if kind is Ragged else None, "train")
    before = states()
    source.batch(torch.arange(5), torch.ones(5, dtype=torch.long), seed=1)
    source.elements()
    assert states() == before


def test_a_subset_is_the_source_at_an_index():
    whole = make_source(Noisy(), None, "train")
    index = torch.tensor([9, 2, 5])
    part = Subset(whole, index)
    again = torch.tensor([2, 0])
    assert part.examples == 3
    assert not part.in_memory
    assert torch.equal(part.batch(again)[0], whole.batch(index[again])[0])
    assert torch.equal(part.elements(), whole.elements()[index])


def test_a_short_list_of_pairs_is_examples_and_not_a_batch():
    pairs = [(torch.ones(3), torch.tensor(i)) for i in range(4)]
    source = make_source(pairs, None, "train")
    assert source.examples == 4
    assert source.batch(torch.tensor([2]))[1].tolist() == [2]


def test_read_only_arrays_are_taken_without_a_warning(recwarn):
    array = np.arange(6.0)
    array.flags.writeable = False
    assert make_source((array,), None, "train").examples == 6
    assert not recwarn


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DataLoader(TensorDataset(torch.zeros(3))), "a DataLoader.*its `.dataset`"),
        (Endless(), "an IterableDataset"),
        (3, "a Dataset or a tree of tensors; got 'int'"),
        (None, "a Dataset or a tree of tensors; got 'NoneType'"),
    ],
)
def test_what_cannot_be_asked_by_number_is_refused(data, said):
    with pytest.raises(InvalidTypeError, match=f"`train` must be .*{said}"):
        make_source(data, None, "train")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((torch.zeros(3), torch.zeros(4)), r"tensors of one length; got 'lengths \[3, 4\]'"),
        ((torch.zeros(3), torch.tensor(1)), "hold several examples; got 'a single number'"),
        ([], "at least one example"),
        ({}, "at least one example"),
        ((np.array(["a", "b"]),), "`train` cannot be read as tensors"),
        (Ragged(), "cannot be stacked: RuntimeError.*Give `collate=`"),
        ([object()] * 30, "cannot be stacked: TypeError.*Give `collate=`"),
    ],
)
def test_unreadable_data_is_refused_in_one_line(data, said):
    with pytest.raises(TaskError, match=said) as caught:
        make_source(data, None, "train")
    assert "\n" not in str(caught.value)


class Lengthless(Dataset):
    def __getitem__(self, index):
        return torch.zeros(2)


class BrokenLength(Lengthless):
    def __len__(self):
        raise OSError("no such folder")


class OtherKeys(Squares):
    """The same at every read, but not the same in every example."""

    def __getitem__(self, index):
        return {"x": torch.zeros(2)} | ({"y": torch.zeros(1)} if index == 0 else {})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (Lengthless(), r"`len\(\)` of `train` raised TypeError.* Write `__len__`"),
        (BrokenLength(), r"`len\(\)` of `train` raised OSError: no such folder. Write `__len__`"),
        (OtherKeys(), "cannot be stacked: KeyError.*Give `collate=`"),
    ],
)
def test_a_dataset_that_raises_where_it_is_asked_is_refused_in_one_line(data, said):
    with pytest.raises(TaskError, match=said) as caught:
        make_source(data, None, "train")
    assert "\n" not in str(caught.value)


class Broken(Squares):
    def __getitem__(self, index):
        if index == 20:
            raise OSError("no such picture\nat all")
        return torch.zeros(2)


class BrokenNoisy(Broken):
    def __getitem__(self, index):
        return super().__getitem__(index) + torch.rand(2)


def test_an_example_that_raises_is_named():
    words = (
        r"^Reading example 20 raised OSError: no such picture \(.*, line \d+, in __getitem__\)\.$"
    )
    with pytest.raises(TaskError, match=words):
        make_source(Broken(), None, "train")
    source = make_source(BrokenNoisy(), None, "train")
    with pytest.raises(TaskError, match="Reading example 20 raised OSError"):
        source.batch(torch.tensor([19, 20]))
