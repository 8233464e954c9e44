import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchlab.errors import InvalidValueError
from batchlab.samplers import Stream
from tests import reference


def pairs(stream, start, count):
    indices, passes = stream.take(start, count)
    return list(zip(indices.tolist(), passes.tolist(), strict=True))


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 100), st.integers(0, 100))
def test_take_equals_the_naive_twin(examples, seed, start, count):
    expected = reference.stream(examples, seed, start + count)[start:]
    assert pairs(Stream(examples, seed), start, count) == expected


def test_naive_twin_tells_a_stream_that_starts_one_late():
    assert pairs(Stream(10, 0), 1, 5) != reference.stream(10, 0, 5)


@given(st.integers(1, 30), st.lists(st.integers(0, 40), max_size=8))
def test_batches_of_any_size_see_the_same_stream(examples, sizes):
    stream = Stream(examples, seed=1)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    joined = [pair for s, n in zip(starts, sizes, strict=True) for pair in pairs(stream, s, n)]
    assert joined == pairs(Stream(examples, seed=1), 0, sum(sizes))


@given(st.integers(1, 50), st.integers(0, 3), st.integers(0, 3))
def test_every_pass_holds_every_example_once(examples, seed, pass_):
    indices, passes = Stream(examples, seed).take(pass_ * examples, examples)
    assert sorted(indices.tolist()) == list(range(examples))
    assert passes.unique().tolist() == [pass_]


def test_passes_and_seeds_differ_in_order():
    first, second = (Stream(100, 0).take(start, 100)[0] for start in (0, 100))
    other = Stream(100, 1).take(0, 100)[0]
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


def test_take_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Stream(10, 0).take(0, 25)
    assert torch.equal(torch.get_rng_state(), before)


def test_writing_into_what_was_taken_does_not_change_the_stream():
    stream = Stream(10, 0)
    expected = stream.take(0, 10)[0].clone()
    stream.take(0, 10)[0].zero_()
    stream.take(5, 10)[0].zero_()
    assert torch.equal(stream.take(0, 10)[0], expected)


def test_stream_survives_pickling_without_its_memory():
    stream = Stream(1000, 3)
    expected = stream.take(0, 10)[0]
    packed = pickle.dumps(stream)
    assert len(packed) < 500
    assert torch.equal(pickle.loads(packed).take(0, 10)[0], expected)


def test_streams_are_values():
    used = Stream(5, 1)
    used.take(0, 5)
    assert used == Stream(5, 1)
    assert hash(used) == hash(Stream(5, 1))


def test_take_reads_each_permutation_once(monkeypatch):
    drawn = []

    def permutation(examples, seed, pass_):
        drawn.append(pass_)
        return torch.arange(examples)

    monkeypatch.setattr("batchlab._random.permutation", permutation)
    stream = Stream(100, 0)
    for start in range(0, 1050, 70):
        stream.take(start, 70)
    stream.take(1050, 150)
    assert drawn == list(range(12))


@pytest.mark.wrong_type
@pytest.mark.parametrize(("examples", "seed"), [(0, 0), (-1, 0), (2.0, 0), (5, -1), (5, 0.5)])
def test_stream_of_nothing_or_of_a_strange_seed_is_refused(examples, seed):
    with pytest.raises(InvalidValueError, match="must be a whole number"):
        Stream(examples, seed)


@pytest.mark.parametrize(("start", "count"), [(-1, 5), (0, -5)])
def test_negative_place_or_count_is_refused(start, count):
    with pytest.raises(InvalidValueError, match="must be 0 or more"):
        Stream(5).take(start, count)
