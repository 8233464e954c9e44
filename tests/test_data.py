import itertools
import json
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from batchlab.data import GrowingBatchSampler
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError
from batchlab.samplers import Stream
from batchlab.schedules import batch_schedule
from tests import reference
from tests.together import together

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
    return lambda: GrowingBatchSampler(examples, text, seed, last)


def epochs(sampler, count):
    return [list(sampler) for _ in range(count)]


def joined(sampler, count):
    """The batches of so many epochs."""
    return [batch for batches in epochs(sampler, count) for batch in batches]


def flat(batches):
    return [index for batch in batches for index in batch]


def stream_of(sampler, length):
    stream = sampler.stream
    return [i for i, _ in reference.stream(stream.examples, stream.seed, length)]


# The one stream


@given(st.integers(1, 25), st.data())
def test_run_on_epochs_joined_are_the_stream(examples, data):
    size, seed = data.draw(st.integers(1, examples)), data.draw(st.integers(0, 3))
    sampler = GrowingBatchSampler(examples, size, seed)
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
    sampler = GrowingBatchSampler(10, 4, last=last)
    assert [len(batches) for batches in epochs(sampler, 3)] == lengths


def test_growing_batch_takes_hold_at_its_epoch():
    sampler = GrowingBatchSampler(12, "0:2 1ep:3 2ep:6")
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
    sampler = GrowingBatchSampler(10, 2)
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
    sampler = GrowingBatchSampler(10, 2)
    seen = [next(iter(sampler)) for _ in range(5)]
    assert flat(seen) == stream_of(sampler, 10)


def test_resume_with_another_batch_size_goes_on_at_the_same_example():
    sampler = GrowingBatchSampler(12, 4)
    first = next(iter(sampler))
    resumed = GrowingBatchSampler(12, 2)
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
    sampler = GrowingBatchSampler(10, 2)
    next(iter(sampler))
    with pytest.raises(InvalidValueError, match="`trained` must be a number of batches from 0 to"):
        sampler.state_dict(trained=2)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (GrowingBatchSampler(11, 2), "examples = 11"),
        (GrowingBatchSampler(10, 2, seed=1), "seed = 1"),
        (GrowingBatchSampler(10, 2, last="drop"), "last = 'drop'"),
    ],
)
def test_state_of_another_stream_is_refused(other, field):
    with pytest.raises(ResultError, match=f"`state_dict` must be from a sampler with {field}"):
        other.load_state_dict(GrowingBatchSampler(10, 2).state_dict())


def test_strange_state_is_refused():
    with pytest.raises(ResultError, match="`state_dict` must be a state with epoch, samples"):
        GrowingBatchSampler(10, 2).load_state_dict({"epoch": 1})


# Shared by processes


@st.composite
def shared(draw, last=LAST):
    """``make(world_size, rank)`` → a sampler, of 1,000 random schedules and 1 to 4 processes."""
    examples = draw(st.integers(4, 30))
    sizes = draw(st.lists(st.integers(4, examples), min_size=1, max_size=4))
    rises = draw(st.lists(st.integers(1, 40), min_size=len(sizes) - 1, max_size=len(sizes) - 1))
    text = " ".join(f"{sum(rises[:i])}:{size}" for i, size in enumerate(sizes))
    last, seed = draw(last), draw(st.integers(0, 3))

    def make(world_size=1, rank=0):
        numbers = {"rank": rank, "world_size": world_size}
        try:
            return GrowingBatchSampler(examples, text, seed, last, **numbers)
        except InvalidValueError as error:
            # A pass that ends with fewer examples than processes is refused at the start.
            assume("Use last='run-on'" not in str(error))
            raise

    return make


def thousand(test):
    """On 1,000 random schedules."""
    return pytest.mark.slow(settings(max_examples=1000)(test))


def handed_out(make, world_size, passes):
    """Batch by batch, the shares of all processes."""
    ranks = [make(world_size, rank) for rank in range(world_size)]
    found = [joined(rank, passes) for rank in ranks]
    assert len({len(batches) for batches in found}) == 1, "as many batches in every process"
    return [list(shares) for shares in zip(*found, strict=True)]


@pytest.mark.parametrize("last", ["run-on", "short", "drop"])
def test_three_processes_share_the_batches_of_one(last):
    case = 24, "0:4 9:7", 0, last
    alone = GrowingBatchSampler(*case)
    ranks = [GrowingBatchSampler(*case, rank=rank, world_size=3) for rank in range(3)]
    for _ in range(3):
        whole = list(alone)
        shares = [list(rank) for rank in ranks]
        assert [len(rank) for rank in ranks] == [len(whole)] * 3
        assert shares == [[batch[r::3] for batch in whole] for r in range(3)]


@thousand
@given(shared(), st.integers(1, 4))
def test_shares_are_disjoint_even_and_make_the_batch_of_one_process(make, world_size):
    alone = joined(make(), 3)
    for whole, shares in zip(alone, handed_out(make, world_size, 3), strict=True):
        assert sorted(flat(shares)) == sorted(whole)
        assert [whole[r::world_size] for r in range(world_size)] == shares
        sizes = [len(share) for share in shares]
        assert 1 <= min(sizes) <= max(sizes) <= min(sizes) + 1


@thousand
@given(shared(st.just("short")), st.integers(1, 4))
def test_each_example_comes_once_a_pass(make, world_size):
    for _ in range(3):
        once = flat(flat(shares) for shares in handed_out(make, world_size, 1))
        assert sorted(once) == list(range(make().stream.examples))


@thousand
@given(shared(st.just("run-on")), st.integers(1, 4))
def test_every_schedule_has_the_order_of_batch_size_one(make, world_size):
    ranks = [make(world_size, rank) for rank in range(world_size)]
    shares = [joined(rank, 3) for rank in ranks]
    found = []
    for batch in zip(*shares, strict=True):
        turns = itertools.zip_longest(*batch)
        found += [index for turn in turns for index in turn if index is not None]
    assert found == stream_of(ranks[0], len(found))


@thousand
@given(shared(), st.integers(1, 4), st.integers(1, 4), st.data())
def test_another_number_of_processes_resumes_the_same_stream(make, before, after, data):
    whole = joined(make(), 3)
    done = data.draw(st.integers(1, len(whole) - 1))
    stopped = make(before, before - 1)
    handed = 0
    while handed < done:
        for _ in itertools.islice(stopped, done - handed):
            handed += 1
    state = json.loads(json.dumps(stopped.state_dict()))
    ranks = [make(after, rank) for rank in range(after)]
    for rank in ranks:
        rank.load_state_dict(state)
    rest = [[] for _ in ranks]
    for rank, batches in zip(ranks, rest, strict=True):
        while len(batches) < len(whole) - done:
            batches += list(rank)
    for k, batch in enumerate(whole[done:]):
        assert [batches[k] for batches in rest] == [batch[r::after] for r in range(after)]


@thousand
@given(shared(), st.integers(1, 4))
def test_weights_make_the_mean_over_processes_that_of_the_batch(make, world_size):
    """Exactly: loss i has gradient i, each process its mean, their mean is taken."""
    ranks = [make(world_size, rank) for rank in range(world_size)]
    for _ in range(2):
        places = [list(rank.places()) for rank in ranks]
        for *shares, place in zip(*ranks, zip(*places, strict=True), strict=True):
            means = [
                Fraction(sum(s), len(s)) * Fraction(p.weight)
                for s, p in zip(shares, place, strict=True)
            ]
            planned = ranks[0].schedule.at(place[0].samples)
            wanted = Fraction(sum(flat(shares)), planned)
            assert abs(sum(means) / world_size - wanted) < 1e-12
            assert place[0].size == sum(map(len, shares))


def test_equal_weights_would_not_give_the_mean_of_the_batch():
    ranks = [GrowingBatchSampler(9, 3, rank=rank, world_size=2) for rank in range(2)]
    shares = [next(iter(rank)) for rank in ranks]
    means = [sum(share) / len(share) for share in shares]
    assert abs(sum(means) / 2 - sum(flat(shares)) / 3) > 0.1


@given(samplers())
def test_places_are_those_of_the_next_iteration_and_move_nothing(make):
    sampler = make()
    for _ in range(3):
        before = sampler.state_dict()
        places = list(sampler.places())
        assert sampler.state_dict() == before
        batches = list(sampler)
        assert [place.size for place in places] == [len(batch) for batch in batches]
        starts = [stream_of(sampler, p.samples + p.size)[p.samples :] for p in places]
        assert starts == batches


def test_weight_of_a_short_batch_is_its_share():
    sampler = GrowingBatchSampler(10, 4, last="short")
    assert [place.weight for place in sampler.places()] == [1.0, 1.0, 0.5]


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_process_that_is_not_there_is_refused(rank, world_size):
    with pytest.raises(InvalidValueError, match="`rank` must be from 0 to world_size − 1"):
        GrowingBatchSampler(10, 2, rank=rank, world_size=world_size)


def test_a_batch_that_does_not_reach_every_process_is_refused():
    with pytest.raises(InvalidValueError, match="reach each of 4 processes; got 'a batch of 3'"):
        GrowingBatchSampler(10, "0:4 1ep:3", rank=0, world_size=4)


@pytest.mark.parametrize(("examples", "rest"), [(13, 1), (21, 1)])
def test_a_pass_that_ends_with_too_few_examples_is_refused_at_the_start(examples, rest):
    with pytest.raises(InvalidValueError, match=f"a batch of {rest}'. Use last='run-on'"):
        GrowingBatchSampler(examples, "0:4 1ep:10", last="short", rank=0, world_size=2)
    GrowingBatchSampler(examples, "0:4 1ep:10", rank=0, world_size=2)


IN_TWO = """
from batchlab.data import GrowingBatchSampler

FACTS["alike"] = []
for case in CASES:
    sampler = GrowingBatchSampler(**case)  # rank and number of processes from torch.distributed
    own = []
    for epoch in range(3):
        own += [[batch, place.weight] for batch, place in zip(sampler, sampler.places())]
    gathered = [None, None]
    dist.all_gather_object(gathered, own)
    FACTS["alike"].append(gathered)
FACTS["rank"] = [sampler.rank, sampler.world_size]
"""


@pytest.mark.slow
def test_two_real_processes_share_twenty_schedules(tmp_path):
    draw = torch.Generator().manual_seed(0)

    def case(last):
        examples = int(torch.randint(12, 40, (), generator=draw))
        a, b = torch.randint(2, 12, (2,), generator=draw).tolist()
        start = int(torch.randint(1, 60, (), generator=draw))
        return {"data": examples, "schedule": f"0:{a} {start}:{b}", "seed": a, "last": last}

    cases = [case(("run-on", "drop")[i % 2]) for i in range(20)]
    facts = together(f"CASES = {cases!r}\n" + IN_TWO, tmp_path)
    assert [fact["rank"] for fact in facts] == [[0, 2], [1, 2]]
    assert facts[0]["alike"] == facts[1]["alike"]
    for numbers, shares in zip(cases, facts[0]["alike"], strict=True):
        whole = joined(GrowingBatchSampler(**numbers), 3)
        for batch, (first, second) in zip(whole, zip(*shares, strict=True), strict=True):
            assert [first[0], second[0]] == [batch[::2], batch[1::2]]
            assert first[1] + second[1] == pytest.approx(2)


WEIGHED = """
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from batchlab.data import GrowingBatchSampler

draw = torch.Generator().manual_seed(0)
x, y = (torch.randn(23, n, generator=draw, dtype=torch.float64) for n in (3, 1))

def trained(wrap, **numbers):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1).double()
    run = DistributedDataParallel(model) if wrap else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sampler = GrowingBatchSampler(23, "0:3 30:7", last="short", **numbers)
    for epoch in range(3):
        for batch, place in zip(sampler, sampler.places()):
            optimizer.zero_grad()
            (place.weight * F.mse_loss(run(x[batch]), y[batch])).backward()
            optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])

alone = trained(False, rank=0, world_size=1)
FACTS["apart"] = float((trained(True) - alone).abs().max())
"""


@pytest.mark.slow
def test_weighted_means_under_distributed_data_parallel_are_those_of_one_process(tmp_path):
    """Shares of 1 and 2, of 3 and 4, and short batches of 2 at the ends of passes."""
    assert max(fact["apart"] for fact in together(WEIGHED, tmp_path)) < 1e-12
    unweighted = WEIGHED.replace("place.weight * ", "")
    (tmp_path / "meeting").unlink(missing_ok=True)
    assert min(fact["apart"] for fact in together(unweighted, tmp_path)) > 1e-4


# In pieces


def test_pieces_of_a_share_are_equal_and_make_the_batch():
    whole, cut = GrowingBatchSampler(24, "0:4 1ep:12"), []
    sampler = GrowingBatchSampler(24, "0:4 1ep:12", max_micro=4)
    for epoch, count in enumerate((1, 3, 3)):
        pieces = list(sampler)
        assert (sampler.epoch, sampler.accumulation, len(sampler)) == (epoch, count, len(pieces))
        assert {len(piece) for piece in pieces} == {4}
        cut += [flat(pieces[i : i + count]) for i in range(0, len(pieces), count)]
    assert cut == joined(whole, 3)


def test_a_batch_of_which_a_piece_is_missing_is_begun_again():
    sampler = GrowingBatchSampler(24, 12, max_micro=4)
    pieces = list(itertools.islice(sampler, 4))
    assert sampler.state_dict() == sampler.state_dict(trained=4) == sampler.state_dict(trained=3)
    assert next(iter(sampler)) == pieces[3]


def test_growth_above_memory_inside_an_epoch_is_refused():
    words = "grows above what fits in memory only where an epoch starts; got '1.5ep:16'|'36:16'"
    sampler = GrowingBatchSampler(24, "0:8 1.5ep:16", max_micro=8)
    with pytest.raises(InvalidValueError, match=words):
        len(sampler)
    with pytest.raises(InvalidValueError, match=words):
        next(iter(sampler))


def test_growth_that_fits_the_processes_is_kept_however_late_they_are_known(monkeypatch):
    """16 examples are two pieces of 8 for one process, and one each for two."""
    sampler = GrowingBatchSampler(24, "0:8 1.5ep:16", max_micro=8)
    sampler.divide(1, 2)
    assert (sampler.accumulation, len(next(iter(sampler)))) == (1, 4)
    sampler = GrowingBatchSampler(24, "0:8 1.5ep:16", max_micro=8)
    monkeypatch.setattr("batchlab.data.growing.of_torch_distributed", lambda: (1, 2))
    alone = GrowingBatchSampler(24, "0:8 1.5ep:16", rank=0, world_size=1)
    assert next(iter(sampler)) == next(iter(alone))[1::2]
    assert (sampler.rank, sampler.world_size) == (1, 2)


def test_before_the_process_group_torchrun_says_which_process_this_is(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    sampler = GrowingBatchSampler(24, "0:8 1.5ep:16", max_micro=8)
    assert (sampler.rank, sampler.world_size, len(sampler)) == (1, 2, 3)


def test_growth_within_memory_may_come_anywhere():
    sampler = GrowingBatchSampler(24, "0:2 10:4 1ep:8 2ep:16", max_micro=8)
    assert [{len(piece) for piece in sampler} for _ in range(3)] == [{2, 4}, {8}, {8}]


@pytest.mark.parametrize(
    ("size", "processes", "would"), [(11, 1, 12), (9, 2, 10), (14, 2, 16), (13, 1, 15)]
)
def test_a_batch_that_cannot_be_cut_evenly_is_refused(size, processes, would):
    numbers = {"rank": 0, "world_size": processes, "max_micro": 5}
    with pytest.raises(InvalidValueError, match=f"cut evenly .*; got {size}. {would} would be"):
        GrowingBatchSampler(24, size, **numbers)
    sampler = GrowingBatchSampler(24, would, **numbers)
    pieces = next(iter(sampler))
    assert len(pieces) * sampler.accumulation * processes == would


def test_a_short_batch_has_no_equal_pieces():
    with pytest.raises(InvalidValueError, match="`last` must be run-on or drop with `max_micro`"):
        GrowingBatchSampler(24, 8, last="short", max_micro=4)


# In a DataLoader


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader_changes_the_batch_inside_an_epoch(workers):
    data = TensorDataset(torch.arange(12))
    sampler = GrowingBatchSampler(data, "0:2 6:3", seed=1)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)
    found, places = [], []
    for (batch,), place in zip(loader, sampler.places(), strict=True):
        found.append(batch.tolist())
        places.append((place.samples, place.size))
    assert places == [(0, 2), (2, 2), (4, 2), (6, 3), (9, 3)]
    assert [len(batch) for batch in found] == [2, 2, 2, 3, 3]
    assert flat(found) == stream_of(sampler, 12)


@pytest.mark.parametrize("workers", [0, 1])
def test_data_loader_follows_the_stream(workers):
    data = TensorDataset(torch.arange(10))
    sampler = GrowingBatchSampler(data, 4, seed=2)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=workers)
    assert len(loader) == 3
    seen = [[batch for (batch,) in loader] for _ in range(2)]
    assert [len(batches) for batches in seen] == [3, 2]
    assert torch.equal(torch.cat(seen[0] + seen[1]), Stream(10, 2).take(0, 20)[0])


def test_length_asked_between_iter_and_the_first_batch_is_that_of_the_new_epoch():
    sampler = GrowingBatchSampler(10, 4)
    lengths = [(iter(sampler), len(sampler), list(sampler))[1] for _ in range(3)]
    assert lengths == [3, 2, 3]


def test_a_schedule_may_be_given_as_an_object():
    made, text = batch_schedule("0:2 1ep:3"), GrowingBatchSampler(12, "0:2 1ep:3")
    assert GrowingBatchSampler(12, made).schedule == text.schedule


def test_data_loader_reads_size_and_drop_last():
    assert GrowingBatchSampler(10, 4).batch_size == 4
    assert [GrowingBatchSampler(10, 4, last=x).drop_last for x in ("drop", "short")] == [
        True,
        False,
    ]


# Refusals


@pytest.mark.parametrize("spec", [11, "0:2 1ep:11"])
def test_batch_size_above_n_is_refused(spec):
    with pytest.raises(InvalidValueError, match="at most the number of examples, 10; got"):
        GrowingBatchSampler(10, spec)


@pytest.mark.parametrize("last", ["short", "drop"])
def test_schedule_in_updates_needs_run_on(last):
    with pytest.raises(InvalidValueError, match="Use last='run-on'"):
        GrowingBatchSampler(10, "0:2 5upd:4", last=last)


@pytest.mark.wrong_type
def test_unknown_last_is_refused():
    with pytest.raises(InvalidValueError, match="`last` must be one of run-on, short, drop; got"):
        GrowingBatchSampler(10, 2, last="pad")


@pytest.mark.wrong_type
@pytest.mark.parametrize("epoch", [-1, 1.0, True])
def test_strange_epoch_is_refused(epoch):
    with pytest.raises(InvalidValueError, match="`epoch` must be a whole number, 0 or more"):
        GrowingBatchSampler(10, 2).set_epoch(epoch)


@pytest.mark.wrong_type
def test_data_without_length_is_refused():
    with pytest.raises(InvalidTypeError, match="`data` must be a data set with a length"):
        GrowingBatchSampler(iter([1]), 2)
