import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from batchlab.data import StreamBatchSampler
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError
from batchlab.samplers import Stream
from tests import reference

LAST = st.sampled_from(["run-on", "short", "drop"])


@st.composite
def samplers(draw, last=LAST):
    """A way to make one sampler again and again."""
    examples = draw(st.integers(1, 25))
    sizes = draw(st.lists(st.integers(1, examples), min_size=1, max_size=3))
    rises = draw(st.lists(st.integers(1, 40), min_size=len(sizes) - 1, max_size=len(sizes) - 1))
    starts = [sum(rises[:i]) for i in range(len(sizes))]
    text = " ".join(f"{start}:{size}" for start, size in zip(starts, sizes, strict=True))
    last, seed = draw(last), draw(st.integers(0, 3))
    return lambda: StreamBatchSampler(examples, text, seed, last)


def epochs(sampler, count):
    return [list(sampler) for _ in range(count)]


def flat(batches):
    return [index for batch in batches for index in batch]


def stream_of(sampler, length):
    stream = sampler.stream
    return [i for i, _ in reference.stream(stream.examples, stream.seed, length)]


# The one stream


@given(st.integers(1, 25), st.data())
def test_run_on_epochs_joined_are_the_stream(examples, data):
    size, seed = data.draw(st.integers(1, examples)), data.draw(st.integers(0, 3))
    sampler = StreamBatchSampler(examples, size, seed)
    batches = [batch for epoch in epochs(sampler, 5) for batch in epoch]
    assert {len(batch) for batch in batches} == {size}
    assert flat(batches) == stream_of(sampler, len(flat(batches)))


@given(samplers(st.just("short")))
def test_short_epochs_are_the_passes(make):
    sampler = make()
    for epoch, batches in enumerate(epochs(sampler, 4)):
        n = sampler.stream.examples
        assert flat(batches) == stream_of(sampler, (epoch + 1) * n)[epoch * n :]


@given(samplers(st.just("drop")))
def test_dropping_leaves_out_the_end_of_a_pass_and_nothing_else(make):
    sampler = make()
    n = sampler.stream.examples
    for epoch in range(4):
        batches, whole = list(sampler), stream_of(sampler, (epoch + 1) * n)[epoch * n :]
        assert flat(batches) == whole[: len(flat(batches))]
        left = n - len(flat(batches))
        size = sampler.schedule.at((epoch + 1) * n - left)
        assert 0 <= left < size


@given(samplers())
def test_every_batch_has_the_size_in_force_at_its_first_example(make):
    sampler = make()
    place = 0
    for epoch in range(4):
        for batch in sampler:
            size = sampler.schedule.at(place)
            end = (epoch + 1) * sampler.stream.examples
            if sampler.last == "short":
                size = min(size, end - place)
            assert len(batch) == size
            place += size
        if sampler.last == "drop":
            place = (epoch + 1) * sampler.stream.examples


@given(samplers(st.sampled_from(["run-on", "short"])))
def test_epoch_is_the_batches_that_begin_in_its_pass(make):
    sampler, place = make(), 0
    n = sampler.stream.examples
    for epoch in range(5):
        for batch in sampler:
            assert epoch * n <= place < (epoch + 1) * n
            place += len(batch)


# Length


@given(samplers())
def test_length_is_the_number_of_batches_at_any_moment_of_an_epoch(make):
    sampler, twin = make(), make()
    for batches in epochs(twin, 4):
        iterator = iter(sampler)
        next(iterator)
        lengths = [len(sampler)]
        lengths += [len(sampler) for _ in iterator]
        assert lengths == [len(batches)] * len(lengths)


@pytest.mark.parametrize(
    ("last", "lengths"), [("run-on", [3, 2, 3]), ("short", [3, 3, 3]), ("drop", [2, 2, 2])]
)
def test_lengths_of_ten_examples_in_fours(last, lengths):
    sampler = StreamBatchSampler(10, 4, last=last)
    assert [len(batches) for batches in epochs(sampler, 3)] == lengths


def test_growing_batch_takes_hold_at_its_epoch():
    sampler = StreamBatchSampler(12, "0:2 1ep:3 2ep:6")
    assert [[len(b) for b in batches] for batches in epochs(sampler, 3)] == [
        [2] * 6,
        [3] * 4,
        [6] * 2,
    ]


# Epochs, stopping and resuming


@given(samplers(), st.integers(0, 4))
def test_set_epoch_goes_where_iterating_gets_to(make, epoch):
    expected = epochs(make(), epoch + 1)[-1]
    sampler = make()
    sampler.set_epoch(epoch)
    assert len(sampler) == len(expected)
    assert list(sampler) == expected
    sampler.set_epoch(epoch)
    assert list(sampler) == expected


@given(samplers(), st.integers(1, 30))
def test_resumed_sampler_hands_out_the_rest(make, done):
    whole = all_batches(make(), 40)
    done = min(done, len(whole) - 1)
    sampler = make()
    for epoch in range(whole[done - 1][0] + 1):
        sampler.set_epoch(epoch)
        count = sum(e == epoch for e, _ in whole[:done])
        iterator = iter(sampler)
        for _ in range(count):
            next(iterator)
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    assert all_batches(resumed, 40)[: len(whole) - done] == whole[done:]


def all_batches(sampler, until):
    """(epoch, batch) up to an epoch, setting the epoch before each as loops do."""
    found = []
    for epoch in range(sampler.epoch, until):
        if sampler.samples >= (epoch + 1) * sampler.stream.examples:
            continue
        sampler.set_epoch(epoch)
        found += [(epoch, batch) for batch in sampler]
    return found


def test_setting_a_begun_epoch_again_does_not_rewind():
    sampler = StreamBatchSampler(10, 2)
    first = next(iter(sampler))
    sampler.set_epoch(0)
    assert flat([first, *sampler]) == stream_of(sampler, 10)


@given(samplers())
def test_setting_every_epoch_in_turn_changes_nothing(make):
    sampler, twin = make(), make()
    for epoch in range(4):
        sampler.set_epoch(epoch)
        announced = len(sampler)
        batches = list(twin)
        assert (sampler.epoch, announced) == (epoch, len(batches))
        assert list(sampler) == batches


def test_iteration_broken_off_goes_on():
    sampler = StreamBatchSampler(10, 2)
    seen = [next(iter(sampler)) for _ in range(5)]
    assert flat(seen) == stream_of(sampler, 10)


def test_resume_with_another_batch_size_goes_on_at_the_same_example():
    sampler = StreamBatchSampler(12, 4)
    first = next(iter(sampler))
    resumed = StreamBatchSampler(12, 2)
    resumed.load_state_dict(sampler.state_dict())
    rest = list(resumed)
    assert flat([first, *rest]) == stream_of(sampler, 12)
    assert len(resumed) == 1 + 4


@given(samplers(), st.data())
def test_state_after_trained_batches_forgets_those_fetched_ahead(make, data):
    sampler, twin = make(), make()
    fetched = list(sampler)
    trained = data.draw(st.integers(0, len(fetched)))
    iterator = iter(twin)
    for _ in range(trained):
        next(iterator)
    assert sampler.state_dict(trained=trained) == twin.state_dict()


def test_more_trained_batches_than_handed_out_are_refused():
    sampler = StreamBatchSampler(10, 2)
    next(iter(sampler))
    with pytest.raises(InvalidValueError, match="`trained` must be a number of batches from 0 to"):
        sampler.state_dict(trained=2)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (StreamBatchSampler(11, 2), "examples = 11"),
        (StreamBatchSampler(10, 2, seed=1), "seed = 1"),
        (StreamBatchSampler(10, 2, last="drop"), "last = 'drop'"),
    ],
)
def test_state_of_another_stream_is_refused(other, field):
    with pytest.raises(ResultError, match=f"`state_dict` must be from a sampler with {field}"):
        other.load_state_dict(StreamBatchSampler(10, 2).state_dict())


def test_strange_state_is_refused():
    with pytest.raises(ResultError, match="`state_dict` must be a state with epoch, samples"):
        StreamBatchSampler(10, 2).load_state_dict({"epoch": 1})


# In a DataLoader


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader_follows_the_stream(workers):
    data = TensorDataset(torch.arange(10))
    sampler = StreamBatchSampler(data, 4, seed=2)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)
    assert len(loader) == 3
    seen = [[batch for (batch,) in loader] for _ in range(2)]
    assert [len(batches) for batches in seen] == [3, 2]
    assert torch.equal(torch.cat(seen[0] + seen[1]), Stream(10, 2).take(0, 20)[0])


def test_data_loader_reads_size_and_drop_last():
    assert StreamBatchSampler(10, 4).batch_size == 4
    assert [StreamBatchSampler(10, 4, last=x).drop_last for x in ("drop", "short")] == [
        True,
        False,
    ]


# Refusals


@pytest.mark.parametrize("spec", [11, "0:2 1ep:11"])
def test_batch_size_above_n_is_refused(spec):
    with pytest.raises(InvalidValueError, match="at most the number of examples, 10; got"):
        StreamBatchSampler(10, spec)


@pytest.mark.parametrize("last", ["short", "drop"])
def test_schedule_in_updates_needs_run_on(last):
    with pytest.raises(InvalidValueError, match="Use last='run-on'"):
        StreamBatchSampler(10, "0:2 5upd:4", last=last)


@pytest.mark.wrong_type
def test_unknown_last_is_refused():
    with pytest.raises(InvalidValueError, match="`last` must be one of run-on, short, drop; got"):
        StreamBatchSampler(10, 2, last="pad")


@pytest.mark.wrong_type
@pytest.mark.parametrize("epoch", [-1, 1.0, True])
def test_strange_epoch_is_refused(epoch):
    with pytest.raises(InvalidValueError, match="`epoch` must be a whole number, 0 or more"):
        StreamBatchSampler(10, 2).set_epoch(epoch)


@pytest.mark.wrong_type
def test_data_without_length_is_refused():
    with pytest.raises(InvalidTypeError, match="`data` must be a data set with a length"):
        StreamBatchSampler(iter([1]), 2)
