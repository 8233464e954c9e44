import itertools
import pickle
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab.errors import InvalidValueError
from batchlab.samplers import Blocks, Drawn, Stream
from batchlab.testing import check_sampler
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


LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any)


def in_blocks(lengths, window, seed=0):
    ends = tuple(itertools.accumulate(lengths))
    return Stream(ends[-1], seed, Blocks(ends, window))


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, 7), st.integers(0, 3))
def test_shuffled_blocks_are_one_stream(lengths, window, seed):
    check_sampler(in_blocks(lengths, window, seed))


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, 7), st.integers(0, 3), st.integers(0, 60), st.integers(0, 30))
def test_shuffled_blocks_equal_the_naive_twin(lengths, window, seed, start, count):
    expected = reference.blocks(lengths, window, seed, start + count)[start:]
    assert pairs(in_blocks(lengths, window, seed), start, count) == expected


def test_naive_twin_tells_windows_that_are_one_block_longer():
    assert pairs(in_blocks([2] * 6, 2), 0, 12) != reference.blocks([2] * 6, 3, 0, 12)


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, 7), st.integers(0, 3))
def test_each_window_holds_the_examples_of_its_blocks(lengths, window, pass_):
    stream = in_blocks(lengths, window)
    order, place = stream.blocks.order(0, pass_), pass_ * stream.examples
    block = torch.bucketize(
        stream.take(place, stream.examples)[0], torch.tensor(stream.blocks.ends), right=True
    )
    for start in range(0, len(order), window):
        own = order[start : start + window]
        size = sum(lengths[b] for b in own)
        place = sum(lengths[b] for b in order[:start])
        assert set(block[place : place + size].tolist()) <= set(own)


def test_blocks_and_windows_differ_between_passes_and_seeds():
    first, second = (in_blocks([5] * 8, 2).take(start, 40)[0] for start in (0, 40))
    assert not torch.equal(first, second)
    assert not torch.equal(first, in_blocks([5] * 8, 2, seed=1).take(0, 40)[0])


def test_blocks_of_a_part_come_in_the_order_of_the_whole():
    whole = Blocks((4, 8, 12), 1)
    part = whole.of(torch.tensor([0, 5, 6, 11]))
    assert part.lengths == (1, 2, 1)
    assert part.order(3, 2) == whole.order(3, 2)


def test_a_stream_of_blocks_survives_pickling_without_its_memory():
    stream = in_blocks([1000] * 4, 2)
    expected = stream.take(990, 20)[0]
    packed = pickle.dumps(stream)
    assert len(packed) < 500
    assert torch.equal(pickle.loads(packed).take(990, 20)[0], expected)


def test_drawn_indices_travel_with_how_they_were_drawn():
    found = pickle.loads(pickle.dumps(Drawn([3, 1], [0, 1], 7)))
    assert (found, found.passes, found.seed) == ([3, 1], [0, 1], 7)


def enumerated(window, size):
    """P(m, B): over all places of two examples and all first places of a batch, exactly."""
    couples = list(itertools.permutations(range(window), 2))
    held = sum(
        (i + start) // size == (j + start) // size for i, j in couples for start in range(size)
    )
    return Fraction(held, len(couples) * size)


def share_of(lengths, window, size):
    """The share of neighbours in one batch, from the windows of pass 0 and the enumeration."""
    order = in_blocks(lengths, window).blocks.order(0, 0)
    found, count = Fraction(0), 0
    for start in range(0, len(order), window):
        own = [lengths[b] for b in order[start : start + window]]
        near = sum(max(n - 1, 0) for n in own)
        found += near * (enumerated(sum(own), size) if near else 0)
        count += near
    return float(found / count)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 30])
@pytest.mark.parametrize(("lengths", "window"), [([3, 1, 4, 2], 2), ([2] * 5, 2), ([4, 4], 5)])
def test_neighbours_in_one_batch_equal_their_enumeration(lengths, window, size):
    found = in_blocks(lengths, window).neighbours(size)
    assert found == pytest.approx(share_of(lengths, window, size), rel=1e-12)


def test_the_enumeration_tells_a_formula_with_distances_counted_from_zero():
    def wrong(m, size):  # mean of max(0, 1 − d/B) with d one too small
        weights = [2 * (m - d) / (m * (m - 1)) for d in range(1, m)]
        return sum(w * max(0, 1 - (d - 1) / size) for d, w in enumerate(weights, 1))

    assert wrong(8, 3) != pytest.approx(float(enumerated(8, 3)), rel=0.05)


def test_one_window_of_everything_mixes_as_a_full_shuffle_does():
    assert in_blocks([10] * 5, 5).neighbours(8) == pytest.approx(Stream(50).neighbours(8))


def test_neighbours_of_blocks_of_one_are_not_defined():
    assert in_blocks([1, 1], 1).neighbours(2) != in_blocks([1, 1], 1).neighbours(2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Blocks((), 1), "`ends` must be numbers that never fall"),
        (lambda: Blocks((3, 2), 1), "`ends` must be numbers that never fall"),
        (lambda: Blocks((3,), 0), "`window` must be a whole number, 1 or more; got 0"),
        (lambda: Stream(4, 0, Blocks((3,), 1)), "`blocks` must be blocks of 4 examples; got 3"),
        (lambda: Stream(4).neighbours(0), "`batch_size` must be at least 1; got 0"),
    ],
)
def test_impossible_blocks_are_refused(call, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        call()
