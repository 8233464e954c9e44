"""Data sets on disk: the same examples in the same order as in memory, within their bounds."""

import itertools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from batchlab.data import GrowingBatchSampler, MappedArrays, Shards, write_shards
from batchlab.data._ahead import Ahead
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError, TaskError
from batchlab.samplers import Stream
from batchlab.testing import check_batch_sampler

X = torch.arange(90.0).reshape(30, 3)
Y = torch.arange(30)
NAMES = ("x", "y")
KINDS = ("npz", "parquet")


def examples(count, width=3):
    return torch.arange(float(count * width)).reshape(count, width), torch.arange(count)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def shards(tmp_path):
    """Opens a folder of shards of these lengths."""

    def make(lengths=(7, 7, 7, 7, 2), kind="npz", name="shards", **options):
        x, y = examples(sum(lengths))
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            for number, (a, b) in enumerate(
                zip(x.split(list(lengths)), y.split(list(lengths)), strict=True)
            ):
                write_shards((a, b), tmp_path / "one", max(len(a), 1), kind=kind, leaves=NAMES)
                (tmp_path / "one" / f"00000.{kind}").rename(folder / f"{number}.{kind}")
        return Shards(folder, NAMES, **options)

    return make


@pytest.fixture
def mapped(tmp_path):
    write_shards((X, Y), tmp_path / "arrays", kind="npy", leaves=NAMES)
    return MappedArrays(tmp_path / "arrays", NAMES)


def every(mapped, shards):
    return [mapped, shards(), shards(kind="parquet", name="parquet"), shards(block=3, window=2)]


# What is read


def test_batches_equal_those_of_data_in_memory(mapped, shards):
    index = torch.tensor([29, 0, 7, 7, 13, 28])
    for data in every(mapped, shards):
        assert same(data.batch(index), (X[index], Y[index]))
        assert same(data[index.tolist()], (X[index], Y[index]))
        assert same(data[-1], (X[29], Y[29]))
        assert [y.item() for _, y in data.__getitems__([3, 1])] == [3, 1]
        assert len(data) == data.examples == 30
        assert data.elements().tolist() == [4] * 30
        with pytest.raises(IndexError, match="example 30 of 30"):
            data[30]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_order_of_any_batch_is_read_right(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any") / "shards"
    write_shards((X, Y), folder, data.draw(st.integers(1, 12)), leaves=NAMES)
    window, row = data.draw(st.integers(1, 3)), 20
    block = data.draw(st.integers(1, 5))
    memory = window * block * row + data.draw(st.integers(0, 100))
    opened = Shards(folder, NAMES, block=block, window=window, memory=memory)
    for index in data.draw(st.lists(st.lists(st.integers(0, 29), min_size=1), max_size=4)):
        passes = torch.full((len(index),), data.draw(st.integers(0, 2)))
        found = opened.batch(torch.tensor(index), passes, seed=1)
        assert same(found, (X[index], Y[index]))


def test_leaves_without_names_make_a_dictionary(mapped, shards):
    shards()
    arrays, files = mapped._paths[0].parent, shards()._stamps[0].path.parent
    for data in (MappedArrays(arrays), Shards(files), MappedArrays({"x": arrays / "x.npy"})):
        assert torch.equal(data[4]["x"], X[4])


DTYPES = (torch.bool, torch.uint8, torch.int32, torch.float64)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        *itertools.product(DTYPES, (*KINDS, "npy")),
        # Not in Parquet: the oldest polars that is supported has no half precision.
        *((torch.float16, kind) for kind in ("npz", "npy")),
    ],
)
def test_dtypes_and_shapes_survive_writing(tmp_path, dtype, kind):
    values = (torch.arange(48).reshape(4, 3, 2, 2) % 2).to(dtype)
    rows = None if kind == "npy" else 3
    write_shards({"x": values}, tmp_path / "it", rows, kind=kind)
    opened = (MappedArrays if kind == "npy" else Shards)(tmp_path / "it")
    found = opened.batch(torch.arange(4))["x"]
    assert found.dtype == dtype
    assert torch.equal(found, values)


def test_lists_of_one_length_are_read_as_arrays(tmp_path):
    pl = pytest.importorskip("polars")
    rows = [[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]]
    pl.DataFrame({"x": rows}).write_parquet(tmp_path / "0.parquet")
    assert Shards(tmp_path, ("x",)).batch(torch.arange(2))[0].tolist() == rows


# The one stream


def test_a_mapped_set_has_the_order_of_data_in_memory(mapped):
    small = GrowingBatchSampler(mapped, 4, seed=5)
    assert list(small) == list(GrowingBatchSampler(30, 4, seed=5))


@pytest.mark.parametrize("size", [1, 4, 11, 30])
def test_every_batch_size_sees_the_same_order(shards, size):
    data = shards(window=2)
    whole = Stream(30, 3, data.blocks).take(0, 90)[0].tolist()
    sampler = GrowingBatchSampler(data, size, seed=3)
    seen = [i for batch in itertools.chain(sampler, sampler) for i in batch]
    assert seen == whole[: len(seen)]


def test_the_order_does_not_depend_on_memory(shards):
    order = [list(GrowingBatchSampler(shards(memory=m), 4)) for m in ("1KiB", "1GiB")]
    assert order[0] == order[1]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("size", [4, 6, 7])
def test_ranks_share_each_batch_and_see_each_example_once(shards, ranks, size):
    data = shards(window=2)
    alone = list(GrowingBatchSampler(data, size, seed=1, last="drop"))
    shares = [
        list(GrowingBatchSampler(data, size, seed=1, last="drop", rank=r, world_size=ranks))
        for r in range(ranks)
    ]
    for number, batch in enumerate(alone):
        assert [share[number] for share in shares] == [batch[r::ranks] for r in range(ranks)]
    read = [y for share in shares for own in share for y in data[own][1].tolist()]
    assert sorted(read) == sorted(itertools.chain(*alone))
    assert len(set(read)) == len(read)


def test_a_stopped_run_goes_on_in_the_middle_of_a_pass(shards):
    check_batch_sampler(lambda: GrowingBatchSampler(shards(window=2), 4))


def test_resume_needs_the_number_of_samples_only(shards):
    data = shards(window=2)
    straight = GrowingBatchSampler(data, 4, seed=2)
    batches = list(straight) + list(straight)
    other = GrowingBatchSampler(data, 4, seed=2)
    drawn = iter(other)
    for _ in range(3):
        next(drawn)
    late = GrowingBatchSampler(shards(window=2), 4, seed=2)
    late.load_state_dict(other.state_dict())
    assert list(late) + list(late) == batches[3:]


def in_workers(data, **options):
    sampler = GrowingBatchSampler(data, 4, seed=1, last="short")
    loader = DataLoader(data, batch_sampler=sampler, **options)
    return [y for _, batch in loader for y in batch.tolist()]


def test_both_ways_to_load_give_the_same_batches(mapped, shards):
    for data in every(mapped, shards):
        sampler = GrowingBatchSampler(data, 4, seed=1, last="short")
        whole = [
            y for _, batch in DataLoader(data, sampler=sampler, batch_size=None) for y in batch
        ]
        assert in_workers(data) == list(map(int, whole))
        assert sorted(map(int, whole)) == list(range(30))


def test_forked_workers_read_their_own_way(mapped, shards):
    for data in (mapped, shards()):
        expected = in_workers(data)  # starts the thread that a forked process lacks
        assert in_workers(data, num_workers=2, multiprocessing_context="fork") == expected
        assert sorted(expected) == list(range(30))


def test_forked_workers_are_refused_for_parquet(shards):
    with pytest.raises(InvalidValueError, match="must be spawn for Parquet shards"):
        in_workers(shards(kind="parquet"), num_workers=1, multiprocessing_context="fork")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_spawned_workers_see_the_order_of_one_process(mapped, shards, kind):
    data = shards(kind=kind, window=2)
    alone = in_workers(data)
    assert in_workers(data, num_workers=2, multiprocessing_context="spawn") == alone
    assert sorted(alone) == list(range(30))


@pytest.mark.parametrize("touched", [False, True])
def test_what_travels_to_workers_is_small_and_reads_the_same(mapped, shards, touched):
    for data in every(mapped, shards):
        if touched:
            data[0]
        packed = pickle.dumps(data)
        assert len(packed) < 4000
        assert same(pickle.loads(packed)[7], (X[7], Y[7]))


# Bounds


class Counted:
    """Blocks of ten bytes; counts which are read."""

    def __init__(self, memory, sizes=(10,) * 8):
        self.read, self.ahead = [], Ahead(self.block, sizes, memory)

    def block(self, number):
        self.read.append(number)
        return {"x": torch.tensor(number)}

    def settle(self):
        self.ahead._thread.submit(int).result()


def test_each_block_is_read_once_while_it_is_used():
    counted = Counted(20)
    assert [int(counted.ahead.get(n)["x"]) for n in (0, 1, 0, 1, 1)] == [0, 1, 0, 1, 1]
    assert counted.read == [0, 1]


def test_the_block_that_was_used_longest_ago_is_given_up():
    counted = Counted(20)
    for number in (0, 1, 0, 2, 0, 1):
        counted.ahead.get(number)
    assert counted.read == [0, 1, 2, 1]


@pytest.mark.parametrize("memory", [10, 25, 79, 1000])
def test_no_more_is_read_ahead_than_fits(memory):
    counted = Counted(memory)
    counted.ahead.expect("all", range(8))
    counted.settle()
    assert counted.read == list(range(8))[: memory // 10]
    assert counted.ahead._bytes <= memory


def test_what_is_expected_is_kept_and_the_rest_given_up():
    counted = Counted(30)
    counted.ahead.expect(1, [0, 1, 2])
    counted.ahead.expect(2, [2, 3])
    counted.settle()
    counted.ahead.get(2)
    assert set(counted.ahead._held) == {2, 3}
    assert counted.read.count(2) == 1


def test_a_block_that_could_not_be_read_is_tried_again():
    counted = Counted(20)
    counted.ahead._read = lambda number: [][number]
    with pytest.raises(IndexError, match="out of range"):
        counted.ahead.get(0)
    counted.ahead._read = counted.block
    assert int(counted.ahead.get(0)["x"]) == 0


def watched(data, monkeypatch):
    """The names of the files of which blocks are read from now on."""
    read, plain = [], data._format.read
    monkeypatch.setattr(data._format, "read", lambda *a: read.append(a[0].name) or plain(*a))
    return read


def reads_of_a_pass(data, monkeypatch, size=3):
    read = watched(data, monkeypatch)
    for batch in GrowingBatchSampler(data, size, last="short"):
        data[batch]
    data._ahead._thread.submit(int).result()
    return [int(name[0]) for name in read]


def test_a_pass_reads_each_block_once_and_begins_the_next(shards, monkeypatch):
    data = shards((4,) * 10, window=2, memory=20 * 4 * 4)
    read = reads_of_a_pass(data, monkeypatch)
    order = [*data.blocks.order(0, 0), *data.blocks.order(0, 1)]
    assert read == order[: len(read)]
    assert 10 <= len(read) <= 14


def test_examples_asked_for_at_random_read_no_other_blocks(shards, monkeypatch):
    data = shards((4,) * 10, window=2, memory=20 * 4 * 4)
    read = watched(data, monkeypatch)
    for index in (37, 1, 20, 38, 2):
        data[index]
    data._ahead._thread.submit(int).result()
    assert read == ["9.npz", "0.npz", "5.npz"]


def test_a_set_read_from_front_to_back_is_read_ahead(shards, monkeypatch):
    data = shards((4,) * 10, window=2, memory=20 * 4 * 4)
    read = watched(data, monkeypatch)
    for index in range(6):
        data[index]
    data._ahead._thread.submit(int).result()
    assert read == [f"{n}.npz" for n in range(4)]


def test_a_pass_within_one_window_of_memory_reads_each_block_once(shards, monkeypatch):
    data = shards((4,) * 10, window=2, memory=20 * 4 * 2)
    read = reads_of_a_pass(data, monkeypatch, size=8)
    assert read[:10] == data.blocks.order(0, 0)


CHILD = """
import gc, json, sys, torch
from batchlab import _platform
from batchlab.data import GrowingBatchSampler, Shards
folder, memory = sys.argv[1], int(sys.argv[2])
if sys.argv[3] == "parquet":
    import polars
data = Shards(folder, ("x",), window=2, memory=memory)
data.batch(torch.arange(4))
data._reading = None
gc.collect()
_platform.reset_peak_rss()
before = _platform.current_rss()
total = 0.0
sampler = GrowingBatchSampler(data, 64)
for index in sampler:
    total += float(data[index][0].sum(dtype=torch.float64))
print(json.dumps([_platform.peak_rss() - before, total]))
"""


def peak(folder, memory, kind):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(memory), kind],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_below_the_bound_on_a_set_ten_times_as_large(tmp_path, kind):
    memory, rows, width = 32 * 2**20, 1024, 1024
    block = rows * width * 4
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(rows, width, generator=generator)
    write_shards((x,), tmp_path / "one", rows, kind=kind, leaves=("x",))
    (tmp_path / "many").mkdir()
    for number in range(10 * memory // block):
        os.link(tmp_path / "one" / f"00000.{kind}", tmp_path / "many" / f"{number:03}.{kind}")
    used, total = peak(tmp_path / "many", memory, kind)
    assert total == pytest.approx(
        10 * memory / block * float(x.sum(dtype=torch.float64)), rel=1e-6
    )
    # One block being decoded, and its decoder's; a batch; what the interpreter takes meanwhile,
    # which is more on a busy machine. All blocks are ten times the bound.
    assert used < 2 * memory
    assert peak(tmp_path / "many", 20 * memory, kind)[0] > 4 * memory


# What cannot be


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_an_empty_folder_is_refused(folder):
    with pytest.raises(TaskError, match=r"`folder` must be a folder of .npz or of .parquet files"):
        Shards(folder)
    with pytest.raises(TaskError, match=r"`files` must be a folder of .npy files"):
        MappedArrays(folder)


def test_two_kinds_in_one_folder_are_refused(folder):
    np.savez(folder / "a.npz", x=np.ones(2))
    (folder / "b.parquet").touch()
    with pytest.raises(TaskError, match="got 'both in"):
        Shards(folder)


def test_a_missing_leaf_is_named(mapped, shards):
    with pytest.raises(TaskError, match="has no `z`: it holds x, y"):
        MappedArrays(mapped._paths[0].parent, ("x", "z"))
    for kind in KINDS:
        where = shards(kind=kind, name=kind)._stamps[0].path.parent
        with pytest.raises(TaskError, match=f"0.{kind}` has no `z`: it holds x, y"):
            Shards(where, ("x", "z"))
    with pytest.raises(TaskError, match="cannot be read: No such file"):
        MappedArrays((mapped._paths[0].parent / "z.npy",))


def test_the_same_files_read_otherwise_are_other_data(shards):
    """Cells of one would else be taken for those of the other."""
    folder = shards()._stamps[0].path.parent
    read = [None, ("x", "y"), ("y", "x"), ("x",)]
    assert len({Shards(folder, leaves).fingerprint for leaves in read}) == len(read)
    assert Shards(folder, NAMES).fingerprint == Shards(folder, NAMES).fingerprint


def test_leaves_of_different_length_are_refused(folder):
    np.savez(folder / "a.npz", x=np.ones(2), y=np.ones(3))
    with pytest.raises(TaskError, match=r"a.npz` differ in length: x 2, y 3"):
        Shards(folder)
    for name, length in (("x", 2), ("y", 3)):
        np.save(folder / f"{name}.npy", np.ones(length))
    with pytest.raises(TaskError, match=r"differ in length: x.npy 2, y.npy 3"):
        MappedArrays(folder)


@pytest.mark.parametrize(
    "other", [{"x": np.ones(2, np.float32)}, {"x": np.ones((2, 1))}, {"z": np.ones(2)}]
)
def test_shards_that_differ_are_refused(folder, other):
    np.savez(folder / "a.npz", x=np.ones(2))
    np.savez(folder / "b.npz", **other)
    with pytest.raises(
        TaskError, match=r"must be alike: a.npz has x float64\[\]; got .* in b.npz"
    ):
        Shards(folder)


def test_parquet_that_differs_is_refused(folder):
    pl = pytest.importorskip("polars")
    pl.DataFrame({"x": [1.0]}).write_parquet(folder / "a.parquet")
    pl.DataFrame({"x": [1]}).write_parquet(folder / "b.parquet")
    with pytest.raises(TaskError, match=r"a.parquet has x Float64; got 'x Int64 in b.parquet'"):
        Shards(folder)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ([1.0, None], "`x` must be without nulls"),
        ([[1, 2], [3]], "`x` must be lists of one length, not empty"),
        (["a", "b"], "`x` must be a column of numbers in .*; got 'String'"),
    ],
)
def test_columns_that_are_no_arrays_are_refused(folder, column, sentence):
    pl = pytest.importorskip("polars")
    pl.DataFrame({"x": column}).write_parquet(folder / "a.parquet")
    with pytest.raises(TaskError, match=sentence):
        Shards(folder).batch(torch.arange(2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_cut_short_is_named(shards, kind):
    path = shards(kind=kind)._stamps[1].path
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TaskError, match=f"1.{kind}` cannot be read"):
        shards(kind=kind)


def test_a_flipped_bit_in_a_shard_is_found(shards):
    path = shards()._stamps[1].path
    content = bytearray(path.read_bytes())
    place = content.index(X[10].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(TaskError, match=r"1.npz` cannot be read: BadZipFile: Bad CRC"):
        shards().batch(torch.arange(30))


def test_objects_in_arrays_are_refused(folder):
    np.save(folder / "x.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(TaskError, match=r"x.npy` cannot be read"):
        MappedArrays(folder)
    np.savez(folder / "a.npz", x=np.array(["a", "b"]))
    with pytest.raises(TaskError, match="`x` must be numbers that torch reads"):
        Shards(folder)


def test_a_file_that_changed_since_the_start_is_named(mapped, shards):
    data = shards()
    os.utime(data._stamps[2].path, ns=(1, 1))
    data[0]
    with pytest.raises(TaskError, match=r"2.npz` has changed since it was opened"):
        data[15]
    os.utime(mapped._paths[0], ns=(1, 1))
    with pytest.raises(TaskError, match=r"x.npy` has changed since it was opened"):
        mapped[0]


@pytest.mark.parametrize("change", ["file", "window", "block"])
def test_resuming_on_other_data_is_refused(shards, change):
    state = GrowingBatchSampler(shards(window=2), 4).state_dict()
    GrowingBatchSampler(shards(window=2), 4).load_state_dict(state)
    if change == "file":
        os.utime(shards()._stamps[0].path, ns=(1, 1))
    options = {"window": {"window": 3}, "block": {"window": 2, "block": 2}}
    other = GrowingBatchSampler(shards(**options.get(change, {"window": 2})), 4)
    with pytest.raises(ResultError, match="`data` must be what the state was taken on"):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"block": 0}, "`block` must be at least 1 row; got 0"),
        ({"window": 0}, "`window` must be a whole number, 1 or more; got 0"),
        ({"window": 2, "memory": 279}, "`memory` must be at least .*Or give `block=6`"),
        ({"window": 2, "memory": 20}, "Or mix fewer blocks"),
    ],
)
def test_impossible_numbers_are_refused(shards, options, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        shards(**options)


def test_parquet_without_polars_says_what_to_install(shards, monkeypatch):
    shards(kind="parquet")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(
        ImportError, match=r"`polars` is not installed: install batchlab\[advise\]"
    ):
        shards(kind="parquet")


# Writing


def test_a_data_set_is_converted_as_it_is(tmp_path):
    files = write_shards(TensorDataset(X, Y), tmp_path / "out", 8, leaves=NAMES)
    assert [path.name for path in files] == [f"{n:05}.npz" for n in range(4)]
    assert same(Shards(tmp_path / "out", NAMES).batch(torch.arange(30)), (X, Y))
    write_shards(Shards(tmp_path / "out", NAMES), tmp_path / "again", kind="npy", leaves=NAMES)
    assert same(MappedArrays(tmp_path / "again", NAMES).batch(torch.arange(30)), (X, Y))


def test_writing_can_mix_once(tmp_path):
    write_shards((X, Y), tmp_path / "out", 8, leaves=NAMES, shuffle=3)
    x, y = Shards(tmp_path / "out", NAMES).batch(torch.arange(30))
    assert torch.equal(x, X[y])
    assert y.tolist() != list(range(30))
    assert sorted(y.tolist()) == list(range(30))


class Broken(TensorDataset):
    def __getitem__(self, index):
        if index == 20:
            raise RuntimeError("the disk is gone")
        return super().__getitem__(index)


@pytest.mark.parametrize("kind", [*KINDS, "npy"])
def test_a_broken_conversion_leaves_nothing(tmp_path, kind):
    rows = None if kind == "npy" else 8
    with pytest.raises(RuntimeError, match="the disk is gone"):
        write_shards(Broken(X, Y), tmp_path / "out", rows, kind=kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda f: write_shards((X,), f, 0), InvalidValueError, "`rows` must be at least 1"),
        (lambda f: write_shards((X,), f), InvalidValueError, "`rows` must be at least 1"),
        (lambda f: write_shards((X,), f, 4, kind="npy"), InvalidValueError, "left out for npy"),
        (lambda f: write_shards((X,), f, 4, leaves=NAMES), InvalidValueError, "1 names"),
        (lambda f: write_shards((X, Y[:3]), f, 4), TaskError, "differ in length: 0 30, 1 3"),
        (lambda f: write_shards((X[:0],), f, 4), TaskError, "at least one example"),
        (lambda f: write_shards(iter([1]), f, 4), InvalidTypeError, "data set with a length"),
        (lambda f: write_shards((X,), f.parent, 4), TaskError, "a new or an empty folder"),
    ],
)
def test_impossible_writing_is_refused(folder, call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(folder)
