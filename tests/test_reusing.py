import itertools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from batchlab.data import GrowingBatchSampler, ReusingBatchSampler, ReusingLoader
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError

PASSES = 3
REUSE = st.integers(1, 4)


@st.composite
def cases(draw):
    """``make(rank, world_size)`` → the same growing sampler again and again."""
    processes = draw(st.integers(1, 4))
    examples = draw(st.integers(4, 20))
    first, second = draw(st.tuples(*[st.integers(4, examples)] * 2))
    start, seed = draw(st.integers(1, 40)), draw(st.integers(0, 3))
    last = draw(st.sampled_from(["run-on", "drop"]))
    text = f"0:{first} {start}:{second}"

    def make(rank=0, world_size=processes):
        return GrowingBatchSampler(examples, text, seed, last, rank=rank, world_size=world_size)

    return make


def thousand(test):
    """On 1,000 random schedules."""
    return pytest.mark.slow(settings(max_examples=1000)(test))


def joined(iterable, passes=PASSES):
    return [element for _ in range(passes) for element in iterable]


def repeated(batches, reuse):
    """What re-use is: each batch, ``reuse`` times in a row."""
    return [batch for batch in batches for _ in range(reuse)]


def stopped_after(make, done):
    """Stopped in the middle of the epoch in which that many elements are reached."""
    stopped = make()
    while done:
        handed = sum(1 for _ in itertools.islice(stopped, done))
        done -= handed
    return stopped


@thousand
@given(cases(), REUSE)
def test_every_batch_comes_so_often_in_a_row_in_the_order_without_reuse(make, reuse):
    for rank in range(make().world_size):
        fresh = joined(make(rank))
        assert joined(ReusingBatchSampler(make(rank), reuse)) == repeated(fresh, reuse)


@thousand
@given(cases(), REUSE, st.data())
def test_a_resume_anywhere_goes_on_with_the_uses_that_are_left(make, reuse, data):
    whole = repeated(joined(make()), reuse)
    done = data.draw(st.integers(0, len(whole) - 1))
    stopped = stopped_after(lambda: ReusingBatchSampler(make(), reuse), done)
    resumed = ReusingBatchSampler(make(), reuse)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert joined(resumed)[: len(whole) - done] == whole[done:]
