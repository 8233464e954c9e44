"""The state of an unfinished cell: written from time to time, read back, distrusted if damaged."""

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchlab.engine import checkpoint
from batchlab.engine.capability import probe_capability
from batchlab.engine.checkpoint import NAME, Checkpoint
from batchlab.engine.loop import Alone, train_alone
from batchlab.errors import ResultError
from tests.engine import tiny

FACTS = {"done": [3, 4], "rows": [{"loss": [[1, 8, 0.1], [2, 16, float("nan")]]}]}
ARRAYS = {"now0": np.arange(6.0).reshape(2, 3), "loss_count": np.array([1, 2])}


def test_what_is_saved_comes_back(tmp_path):
    Checkpoint(tmp_path).save(FACTS, ARRAYS)
    facts, arrays = Checkpoint(tmp_path).load()
    assert facts["done"] == FACTS["done"]
    assert np.isnan(facts["rows"][0]["loss"][1][2])
    assert arrays.keys() == ARRAYS.keys()
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_there_is_nothing_before_the_first(tmp_path):
    assert Checkpoint(tmp_path).load() is None
    assert Checkpoint(None).load() is None
    Checkpoint(None).save(FACTS, ARRAYS)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_sets_it_aside(tmp_path, place, bit):
    Checkpoint(tmp_path).save(FACTS, ARRAYS)
    flip(tmp_path / NAME, lambda size: int(place * size), bit)
    assert Checkpoint(tmp_path).load() is None
    assert not (tmp_path / NAME).exists()


def flip(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place(len(data))] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("mark", "offset", "bit"),
    [(b"PK\x01\x02", 8, 0), (b"'shape': (", 9, 0)],
    ids=["it says it is encrypted", "a header without an end"],
)
def test_what_would_make_its_readers_fail_sets_it_aside(tmp_path, mark, offset, bit):
    Checkpoint(tmp_path).save(FACTS, ARRAYS)
    flip(tmp_path / NAME, lambda size: (tmp_path / NAME).read_bytes().index(mark) + offset, bit)
    assert Checkpoint(tmp_path).load() is None


def test_what_the_system_does_not_read_is_not_taken_for_damage(tmp_path, monkeypatch):
    Checkpoint(tmp_path).save(FACTS, ARRAYS)

    def refuse(path):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(ResultError, match="Too many open files"):
            Checkpoint(tmp_path).load()
    assert Checkpoint(tmp_path).load() is not None


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 half"])
def test_a_truncated_file_is_set_aside(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    assert Checkpoint(tmp_path).load() is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.damaged1"]


def saved_as(folder, number, monkeypatch):
    """A checkpoint in another format."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", number)
        Checkpoint(folder).save(FACTS, ARRAYS)


def test_an_older_format_is_set_aside(tmp_path, monkeypatch):
    saved_as(tmp_path, 1, monkeypatch)
    assert Checkpoint(tmp_path).load() is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.damaged1"]


def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    saved_as(tmp_path, 99, monkeypatch)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(ResultError, match=r"by a newer batchlab \(format 99, this one reads 3\)"):
        Checkpoint(tmp_path).load()
    assert (tmp_path / NAME).read_bytes() == before


def test_it_is_due_by_time_and_never_takes_more_than_a_fiftieth(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    keeper = Checkpoint(tmp_path, seconds=60.0)
    clock[0] = 59.0
    assert not keeper.due()
    clock[0] = 60.0
    assert keeper.due()

    def slow(path, data):
        clock[0] += 3.0

    monkeypatch.setattr(checkpoint._platform, "write_whole", slow)
    keeper.save(FACTS, ARRAYS)
    clock[0] += 149.0
    assert not keeper.due()
    clock[0] += 1.0
    assert keeper.due()


def test_a_run_of_slow_updates_is_kept_as_often_as_one_of_quick_ones(tmp_path, monkeypatch):
    clock, kept, update = [0.0], [], Alone.update

    def slow(self, first, size):
        update(self, first, size)
        clock[0] += 10.0

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Alone, "update", slow)
    monkeypatch.setattr(Checkpoint, "save", lambda self, facts, arrays: kept.append(facts["done"]))
    prepared, config = tiny.ready(), tiny.run(samples=64)
    capability = probe_capability(prepared, config)
    keeper = Checkpoint(tmp_path, seconds=60.0)
    train_alone(prepared, config, tiny.job(64), capability, None, None, keeper)
    assert kept[0] == 6  # of 8 batches
