import itertools
import json
import operator
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    SequentialSampler,
    TensorDataset,
)

from batchlab._random import global_state
from batchlab.accumulation import Accumulator
from batchlab.data import GrowingBatchSampler, ReusingBatchSampler, ReusingLoader
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError
from batchlab.optim import SHB
from batchlab.schedules import batch_schedule
from batchlab.testing import check_batch_sampler
from tests.engine import tiny
from tests.together import together

PASSES = 3
REUSE = st.integers(1, 4)
PROCESSES = st.integers(1, 4)
LAST = ["run-on", "short", "drop"]
WHOLE = st.sampled_from(["run-on", "drop"])


@st.composite
def cases(draw, last=WHOLE):
    """``make(rank, world_size)`` → the same growing sampler, again and again."""
    examples = draw(st.integers(4, 20))
    first, second = draw(st.tuples(*[st.integers(4, examples)] * 2))
    start, seed, last = draw(st.integers(1, 40)), draw(st.integers(0, 3)), draw(last)
    text = f"0:{first} {start}:{second}"

    def make(rank=0, world_size=1):
        return GrowingBatchSampler(examples, text, seed, last, rank=rank, world_size=world_size)

    return make


def thousand(test):
    """On 1,000 random schedules."""
    return pytest.mark.slow(settings(max_examples=1000)(test))


def joined(iterable, passes=PASSES):
    return [element for _ in range(passes) for element in iterable]


def flat(batches):
    return [index for batch in batches for index in batch]


def repeated(batches, reuse):
    """What re-use is: each batch, ``reuse`` times in a row."""
    return [batch for batch in batches for _ in range(reuse)]


def go(iterable, done):
    """So many elements, broken off in the middle of an epoch; what was handed out."""
    found = []
    while len(found) < done:
        found += itertools.islice(iterable, done - len(found))
    return found


def through_json(state):
    return json.loads(json.dumps(state))


def loader_of(sampler, workers=0):
    indices = torch.arange(sampler.stream.examples)
    return DataLoader(indices, batch_sampler=sampler, num_workers=workers)


def lists(batches):
    return [batch.tolist() for batch in batches]


# Each batch so often in a row, in the same order


@thousand
@given(cases(), REUSE, PROCESSES)
def test_every_batch_comes_so_often_in_a_row_in_the_order_without_reuse(make, reuse, processes):
    for rank in range(processes):
        fresh = joined(make(rank, processes))
        found = joined(ReusingBatchSampler(make(rank, processes), reuse))
        assert found == repeated(fresh, reuse)


@thousand
@given(cases(), REUSE, PROCESSES)
def test_shares_stay_disjoint_and_as_many_in_every_process(make, reuse, processes):
    ranks = [ReusingBatchSampler(make(rank, processes), reuse) for rank in range(processes)]
    shares = [joined(rank) for rank in ranks]
    alone = repeated(joined(make()), reuse)
    for whole, batch in zip(alone, zip(*shares, strict=True), strict=True):
        assert sorted(flat(batch)) == sorted(whole)


@thousand
@given(cases(st.just("short")), REUSE)
def test_each_example_is_used_so_often_in_a_pass(make, reuse):
    sampler = ReusingBatchSampler(make(), reuse)
    once = list(range(make().stream.examples))
    for _ in range(PASSES):
        assert sorted(flat(sampler)) == repeated(once, reuse)


@thousand
@given(cases(), REUSE, st.data())
def test_loader_hands_out_what_a_twice_read_sampler_would(make, reuse, data):
    loader = ReusingLoader(loader_of(make()), reuse)
    assert lists(joined(loader)) == repeated(joined(make()), reuse)


def test_the_very_same_batch_is_handed_out_and_fetched_once():
    batches = [torch.zeros(2), torch.ones(2), torch.ones(1)]
    found = list(ReusingLoader(iter(batches), 3))  # an iterator gives each only once
    assert all(a is b for a, b in zip(found, repeated(batches, 3), strict=True))


class Counting(Dataset):
    """Counts how often each example was read, in any process."""

    def __init__(self, examples):
        self.reads = torch.zeros(examples, dtype=torch.long).share_memory_()

    def __len__(self):
        return len(self.reads)

    def __getitem__(self, index):
        self.reads[index] += 1
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_reads_each_example_once_a_pass_and_batch_sampler_each_time(workers):
    read = []
    for wrap in ("loader", "sampler"):
        data = Counting(12)
        sampler = GrowingBatchSampler(data, "0:2 6:3")
        if wrap == "sampler":
            sampler = ReusingBatchSampler(sampler, 3)
        loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)
        batches = ReusingLoader(loader, 3) if wrap == "loader" else loader
        assert lists(batches) == repeated(list(GrowingBatchSampler(12, "0:2 6:3")), 3)
        read.append(data.reads.tolist())
    assert read == [[1] * 12, [3] * 12]


# Length, epochs, pieces


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("reuse", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 10, "0:2 1ep:3 2ep:5"])
def test_batch_sampler_keeps_the_contract(last, reuse, batch_size):
    def make():
        return ReusingBatchSampler(GrowingBatchSampler(10, batch_size, 0, last), reuse)

    check_batch_sampler(make)


@given(cases(st.sampled_from(LAST)), REUSE)
def test_length_is_the_number_of_elements_at_any_moment_of_an_epoch(make, reuse):
    sampler = ReusingBatchSampler(make(), reuse)
    for _ in range(PASSES):
        iterator = iter(sampler)
        lengths = [len(sampler)] + [len(sampler) for _ in iterator]
        assert lengths == [len(lengths) - 1] * len(lengths)


@given(cases(st.sampled_from(LAST)), REUSE, st.integers(0, 4), st.integers(0, 20))
def test_set_epoch_forgets_what_another_epoch_left_over(make, reuse, epoch, done):
    loader, wanted = ReusingLoader(loader_of(make()), reuse), make()
    go(loader, done)
    wanted.set_epoch(epoch)
    expected = repeated(list(wanted), reuse)
    loader.set_epoch(epoch)
    rest = lists(loader)
    assert rest == expected[len(expected) - len(rest) :]
    assert rest == expected or done > 0


def test_setting_a_begun_epoch_again_does_not_rewind():
    sampler = ReusingBatchSampler(GrowingBatchSampler(10, 5), 2)
    first = go(sampler, 3)
    sampler.set_epoch(0)
    assert first + list(sampler) == repeated(list(GrowingBatchSampler(10, 5)), 2)


def test_a_batch_in_pieces_is_repeated_as_a_whole():
    def make():
        return GrowingBatchSampler(24, "0:4 1ep:12", max_micro=4)

    sampler, fresh, found = ReusingBatchSampler(make(), 2), make(), []
    for _ in range(PASSES):
        pieces = list(fresh)
        windows = [pieces[i : i + fresh.accumulation] for i in range(0, len(pieces), 3)]
        windows = windows if fresh.accumulation == 3 else [[piece] for piece in pieces]
        found.append(list(sampler))
        assert found[-1] == [piece for window in windows for _ in "12" for piece in window]
    assert [len(epoch) for epoch in found] == [12, 12, 12]


def test_a_use_of_which_a_piece_is_missing_is_begun_again():
    whole = list(ReusingBatchSampler(GrowingBatchSampler(24, 12, max_micro=4), 2))
    sampler = ReusingBatchSampler(GrowingBatchSampler(24, 12, max_micro=4), 2)
    assert go(sampler, 5) == whole[:5]
    assert sampler.state_dict() == sampler.state_dict(trained=3) == sampler.state_dict(trained=5)
    assert list(sampler) == whole[3:]


# Stopping and resuming


@thousand
@given(cases(), REUSE, PROCESSES, PROCESSES, st.data())
def test_a_resume_anywhere_goes_on_with_the_uses_that_are_left(make, reuse, before, after, data):
    done = data.draw(st.integers(0, len(joined(make())) * reuse - 1))
    stopped = ReusingBatchSampler(make(before - 1, before), reuse)
    go(stopped, done)
    for rank in range(after):
        resumed = ReusingBatchSampler(make(rank, after), reuse)
        resumed.load_state_dict(through_json(stopped.state_dict()))
        whole = repeated(joined(make(rank, after)), reuse)
        assert go(resumed, len(whole) - done) == whole[done:]


@thousand
@given(cases(), REUSE, st.data())
def test_a_loader_stopped_and_resumed_hands_out_the_same_augmented_stream(make, reuse, data):
    def noisy():
        return ReusingLoader(loader_of(make()), reuse, lambda x: x + torch.rand(len(x)), seed=1)

    whole = lists(joined(noisy()))
    done = data.draw(st.integers(0, len(whole) - 1))
    stopped, resumed = noisy(), noisy()
    before = lists(go(stopped, done))
    torch.rand(3)  # the random state of the loop has no part in it
    resumed.load_state_dict(through_json(stopped.state_dict()))
    assert before + lists(go(resumed, len(whole) - done)) == whole


@thousand
@given(cases(st.sampled_from(LAST)), REUSE, st.data())
def test_an_iteration_broken_off_goes_on(make, reuse, data):
    whole = repeated(joined(make()), reuse)
    sampler, found = ReusingBatchSampler(make(), reuse), []
    while len(found) < len(whole):
        found += itertools.islice(sampler, data.draw(st.integers(1, 9)))
    assert found[: len(whole)] == whole


@pytest.mark.parametrize("done", [0, 1, 4, 8, 11, 12, 13, 17])
def test_what_workers_fetched_ahead_is_not_lost(done):
    def make():
        loader = loader_of(GrowingBatchSampler(12, "0:2 6:3", seed=2), workers=2)
        return ReusingLoader(loader, 3)

    whole = repeated(joined(GrowingBatchSampler(12, "0:2 6:3", seed=2), 2), 3)
    stopped, resumed = make(), make()
    assert lists(go(stopped, done)) == whole[:done]
    resumed.load_state_dict(through_json(stopped.state_dict()))
    assert [lists(go(r, len(whole) - done)) for r in (stopped, resumed)] == [whole[done:]] * 2


@given(cases(st.sampled_from(LAST)), REUSE, st.data())
def test_state_after_trained_elements_forgets_those_fetched_ahead(make, reuse, data):
    fetched, twin = ReusingBatchSampler(make(), reuse), ReusingBatchSampler(make(), reuse)
    trained = data.draw(st.integers(0, len(list(fetched))))
    go(twin, trained)
    assert fetched.state_dict(trained=trained) == twin.state_dict()


@given(cases(), REUSE, REUSE, st.integers(0, 5))
def test_between_batches_reuse_may_change(make, before, after, done):
    stopped, resumed = (ReusingBatchSampler(make(), reuse) for reuse in (before, after))
    go(stopped, done * before)
    resumed.load_state_dict(stopped.state_dict())
    whole = joined(make())
    rest = repeated(whole[done:], after)
    assert resumed.updates == stopped.updates == done * before
    assert go(resumed, len(rest)) == rest


def test_the_uses_left_of_another_reuse_are_refused():
    stopped, resumed = (ReusingBatchSampler(GrowingBatchSampler(10, 2), k) for k in (3, 2))
    go(stopped, 4)
    with pytest.raises(ResultError, match=r"from reuse = 2, in the middle of the uses .* got 3"):
        resumed.load_state_dict(stopped.state_dict())


def test_state_of_another_stream_or_kind_is_refused():
    state = ReusingBatchSampler(GrowingBatchSampler(10, 2), 2).state_dict()
    with pytest.raises(ResultError, match="from a sampler with seed = 1"):
        ReusingBatchSampler(GrowingBatchSampler(10, 2, seed=1), 2).load_state_dict(state)
    with pytest.raises(ResultError, match="a state with reuse, updates, drawn, epoch, sampler"):
        ReusingBatchSampler(GrowingBatchSampler(10, 2), 2).load_state_dict(state["sampler"])


@pytest.mark.parametrize("trained", [-1, 5])
def test_more_trained_than_handed_out_is_refused(trained):
    sampler = ReusingBatchSampler(GrowingBatchSampler(10, 2), 3)
    go(sampler, 4)
    with pytest.raises(InvalidValueError, match="`trained` must be at most the 4 handed out"):
        sampler.state_dict(trained=trained)


# Counts and weights


def starts(sampler, count):
    """Where the first batches start, walking through the stream batch by batch."""
    examples, at, place, found = sampler.stream.examples, sampler.schedule.at, 0, []
    while len(found) < count:
        left = examples - place % examples
        if sampler.last == "drop" and at(place) > left:
            place += left
            continue
        found.append(place)
        place += min(at(place), left) if sampler.last == "short" else at(place)
    return found


@given(cases(st.sampled_from(LAST)), REUSE, st.integers(0, 60))
def test_samples_processed_and_updates_are_those_counted_by_hand(make, reuse, done):
    first, second = (ReusingBatchSampler(make(), reuse) for _ in range(2))
    go(first, done)
    second.load_state_dict(first.state_dict())
    sizes = [len(batch) for batch in go(ReusingBatchSampler(make(), reuse), done)]
    whole, left = divmod(done, reuse)
    places = starts(make(), whole + 1)
    samples = places[-1] + (sizes[-1] if left else 0)
    for sampler in (first, second):
        counted = sampler.samples, sampler.processed, sampler.updates
        assert counted == (samples, sum(sizes), len(sizes))


def test_what_was_passed_over_is_not_processed():
    sampler = ReusingBatchSampler(GrowingBatchSampler(10, "0:4 10:3", last="drop"), 3)
    assert [len(batch) for batch in sampler] == [4] * 6
    assert (sampler.samples, sampler.processed) == (10, 24)
    assert [len(batch) for batch in sampler] == [3] * 9
    assert (sampler.samples, sampler.processed) == (20, 51)
    assert sampler.processed != sampler.samples * 3  # the fault: what nobody saw counted


@pytest.mark.parametrize("schedule", ["0:4", "0:4 10:3", "0:2 15:7", "0:5 3:4 23:6 40:3"])
def test_passed_over_is_counted_as_walking_does(schedule):
    sampler = GrowingBatchSampler(10, schedule, last="drop")
    places = starts(sampler, 60)
    handed = 0
    for place in places:
        assert sampler.passed_over(place) == place - handed
        handed += sampler.schedule.at(place)


def test_loader_counts_what_it_handed_out_not_what_workers_fetched():
    loader = ReusingLoader(loader_of(GrowingBatchSampler(40, 4), workers=2), 3)
    go(loader, 4)
    assert (loader.samples, loader.processed, loader.updates) == (8, 16, 4)


@given(cases(st.sampled_from(LAST)), REUSE, st.integers(0, 20))
def test_places_are_those_of_the_next_iteration_and_move_nothing(make, reuse, done):
    sampler = ReusingBatchSampler(make(), reuse)
    go(sampler, done)
    before = sampler.state_dict()
    places = list(sampler.places())
    assert sampler.state_dict() == before
    for batch, place in zip(sampler, places, strict=True):
        stream = make().stream.take(place.samples, place.size)[0]
        assert batch == stream.tolist()
        assert sampler.updates % reuse == (place.use + 1) % reuse


@thousand
@given(cases(), REUSE, PROCESSES)
def test_weights_make_each_use_the_mean_of_the_batch(make, reuse, processes):
    """Exactly: loss i has gradient i, each process its mean, their mean is taken."""
    ranks = [ReusingBatchSampler(make(rank, processes), reuse) for rank in range(processes)]
    weights = [[place.weight for place in rank.places()] for rank in ranks]
    alone = repeated(list(make()), reuse)
    shares, weights = (zip(*x, strict=True) for x in (map(list, ranks), weights))
    for whole, batch, weight in zip(alone, shares, weights, strict=True):
        means = [
            Fraction(sum(share), len(share)) * Fraction(w)
            for share, w in zip(batch, weight, strict=True)
        ]
        assert abs(sum(means) / processes - Fraction(sum(whole), len(whole))) < 1e-12


IN_TWO = """
from torch.utils.data import DataLoader
from batchlab.data import GrowingBatchSampler, ReusingLoader

FACTS["found"] = []
for case in CASES:
    sampler = GrowingBatchSampler(**case)  # rank and number of processes from torch.distributed
    loader = DataLoader(torch.arange(case["data"]), batch_sampler=sampler, num_workers=1)
    batches = ReusingLoader(loader, 3, lambda x: (x, torch.rand(())))
    gathered = [None, None]
    own = [[x.tolist(), float(noise)] for _ in range(2) for x, noise in batches]
    dist.all_gather_object(gathered, own)
    FACTS["found"].append(gathered)
"""


@pytest.mark.slow
def test_two_real_processes_use_their_shares_again_and_augment_them_apart(tmp_path):
    cases = [{"data": 17, "schedule": f"0:{b} 20:5", "last": "drop"} for b in range(2, 6)]
    facts = together(f"CASES = {cases!r}\n" + IN_TWO, tmp_path)
    assert facts[0] == facts[1]
    for numbers, shares in zip(cases, facts[0]["found"], strict=True):
        whole = repeated(joined(GrowingBatchSampler(**numbers), 2), 3)
        noises = [noise for share in shares for _, noise in share]
        assert len(set(noises)) == len(noises) == 2 * len(whole)
        for batch, (first, second) in zip(whole, zip(*shares, strict=True), strict=True):
            assert [first[0], second[0]] == [batch[::2], batch[1::2]]


# Augmentation


def noise(seed=0):
    loader = ReusingLoader([torch.zeros(1)] * 2, 3, lambda x: x + torch.rand(1), seed)
    return flat(lists(joined(loader, 2)))


def test_each_use_is_augmented_afresh_and_named_by_the_seed():
    assert len(set(noise())) == 12
    assert noise() == noise()
    assert set(noise()) & set(noise(seed=1)) == set()


def test_augmenting_leaves_the_random_state_of_the_loop():
    before = global_state()[1:]  # the checks of types draw from Python's
    noise()
    assert global_state()[1:] == before


@pytest.mark.parametrize("where", ["loop", "augment"])
def test_writing_to_a_batch_before_its_last_use_is_refused(where):
    def augment(batch):
        return batch["x"].mul_(2)

    loader = ReusingLoader([{"x": torch.ones(2)}], 2, augment if where == "augment" else None)
    iterator = iter(loader)
    batch = next(iterator)
    if where == "loop":
        batch["x"].mul_(2)
    with pytest.raises(InvalidValueError, match="`batch` must be left as it is by the loop and"):
        next(iterator)


def test_writing_to_a_batch_at_its_last_use_is_allowed():
    for k, batch in enumerate(ReusingLoader([torch.ones(2), torch.ones(2)], 2)):
        assert batch.tolist() == [1, 1]
        if k % 2:
            batch.mul_(2)


# Other loaders and samplers


def test_any_batch_sampler_is_repeated_and_begins_its_epoch_again():
    sampler = ReusingBatchSampler(BatchSampler(SequentialSampler(range(3)), 2, False), 2)
    assert len(sampler) == 4
    assert go(sampler, 3) == [[0, 1], [0, 1], [2]]
    assert list(sampler) == [[0, 1], [0, 1], [2], [2]]
    assert sampler.updates == 7


def test_a_run_of_any_loader_goes_on_with_new_random_numbers():
    def make():
        return ReusingLoader([torch.zeros(1)] * 2, 2, lambda x: x + torch.rand(1))

    stopped, resumed = make(), make()
    list(stopped)
    resumed.load_state_dict(stopped.state_dict())
    assert lists(resumed) == lists(stopped)
    assert resumed.updates == 8


@pytest.mark.parametrize("wrap", ["loader", "sampler"])
def test_epoch_is_told_to_the_sampler_of_the_loader(wrap):
    shares = DistributedSampler(range(8), num_replicas=2, rank=0)
    if wrap == "loader":
        reusing = ReusingLoader(DataLoader(range(8), sampler=shares), 2)
    else:
        reusing = ReusingBatchSampler(BatchSampler(shares, 2, False), 2)
    reusing.set_epoch(5)
    assert shares.epoch == 5


def test_a_loader_without_epochs_is_not_told():
    loader = ReusingLoader([torch.ones(1)], 2)
    loader.set_epoch(1)
    assert len(list(loader)) == 2


@pytest.mark.parametrize("name", ["samples", "processed", "places"])
def test_what_any_loader_does_not_know_is_refused(name):
    loader = ReusingLoader([torch.ones(1)], 2)
    with pytest.raises(
        InvalidTypeError, match=r"a GrowingBatchSampler, which knows .* got 'list'"
    ):
        operator.methodcaller(name)(loader)


@pytest.mark.wrong_type
@pytest.mark.parametrize("reuse", [0, -1, 1.5, True])
def test_strange_reuse_is_refused(reuse):
    with pytest.raises(InvalidValueError, match="`reuse` must be a whole number, at least 1"):
        ReusingLoader([], reuse)


# Training


def test_updates_on_a_batch_in_micro_batches_are_those_on_the_whole():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = TensorDataset(x, x.sum(1, keepdim=True))

    def loss(model, batch):
        return (model(batch[0]) - batch[1]).square()[:, 0]

    def trained(update):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        update(model, optimizer)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    def by_hand(model, optimizer):
        for indices in GrowingBatchSampler(20, 7, last="short"):
            for _ in range(3):
                optimizer.zero_grad()
                loss(model, data[indices]).mean().backward()
                optimizer.step()

    def reusing(model, optimizer):
        sampler = GrowingBatchSampler(20, 7, last="short")
        accumulate = Accumulator(model, loss, micro_batch_size=2)
        for batch in ReusingLoader(DataLoader(data, batch_sampler=sampler), 3):
            optimizer.zero_grad()
            accumulate(batch)
            optimizer.step()

    assert torch.allclose(trained(reusing), trained(by_hand), rtol=1e-12, atol=1e-12)


class Rows(Dataset):
    """A data set that can be gone through, as many can."""

    def __len__(self):
        return 3

    def __iter__(self):
        return iter([torch.zeros(2)] * 3)


@pytest.mark.wrong_type
@pytest.mark.parametrize("make", [lambda: GrowingBatchSampler(8, 4), lambda: sampler_of(8, 4, 2)])
def test_no_state_is_one_sentence(make):
    with pytest.raises(ResultError, match=r"`state_dict` must be what state_dict\(\) returned"):
        make().load_state_dict(None)


def sampler_of(examples, size, reuse):
    return ReusingBatchSampler(GrowingBatchSampler(examples, size), reuse)


@pytest.mark.wrong_type
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ReusingLoader(5, 2), "`loader` must be a DataLoader"),
        (lambda: ReusingLoader([], 2, "x"), "`augment` must be a function of a batch; got 'x'"),
        (lambda: ReusingBatchSampler(7, 2), "`sampler` must be a batch sampler; got 'int'"),
        (lambda: ReusingBatchSampler(DataLoader([1]), 2), "there is ReusingLoader"),
        (lambda: ReusingBatchSampler(Rows(), 2), "for a data set GrowingBatchSampler"),
        (
            lambda: list(ReusingBatchSampler([(torch.zeros(3), 1)], 2)),
            "whose elements are lists of indices; got 'one of tuple with data'",
        ),
        (lambda: list(ReusingBatchSampler([{"x": 1}], 2)), "got 'one of dict with data'"),
    ],
)
def test_what_is_no_source_of_batches_is_refused(make, said):
    with pytest.raises(InvalidTypeError, match=said):
        make()


# ------------------------------------------------------------------ the engine


@pytest.mark.parametrize("part", ["sampler", "loader"])
def test_a_loop_that_uses_each_batch_again_trains_as_the_engine_does(part):
    """The same weights in the end, up to round-off."""
    schedule, reuse = "0:8 160:16", 3
    prepared = tiny.ready()
    config = tiny.run(batch_size=schedule, momentum=0.9, reuse=reuse, seed=4)
    trace, (state,) = tiny.trained(prepared, [config])
    model = prepared.objective(4).module.double()
    sampler = GrowingBatchSampler(tiny.EXAMPLES, schedule, seed=4)
    data = TensorDataset(*tiny.points())
    if part == "sampler":
        batches = DataLoader(data, batch_sampler=ReusingBatchSampler(sampler, reuse))
    else:
        batches = ReusingLoader(DataLoader(data, batch_sampler=sampler), reuse)
    optimizer = SHB(model.parameters(), lr=0.05, momentum=0.9)
    endless = itertools.chain.from_iterable(itertools.repeat(batches))
    for inputs, labels in itertools.islice(endless, trace.runs[0].updates):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    ends = {f"module.{name}": value for name, value in model.state_dict().items()}
    apart = [(state.progress.params[name] - value).abs().max() for name, value in ends.items()]
    assert float(max(apart)) < 1e-12
    assert trace.runs[0].updates == reuse * batch_schedule(schedule).count(0, config.samples)
