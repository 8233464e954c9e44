"""The state of an unfinished cell: written from time to time, read back, distrusted if damaged."""

import numpy as np
import pytest

from batchlab.engine import checkpoint
from batchlab.engine.checkpoint import NAME, Checkpoint

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


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.98])
def test_a_flipped_bit_sets_it_aside(tmp_path, place):
    Checkpoint(tmp_path).save(FACTS, ARRAYS)
    data = bytearray((tmp_path / NAME).read_bytes())
    data[int(place * len(data))] ^= 1
    (tmp_path / NAME).write_bytes(data)
    found = Checkpoint(tmp_path).load()
    same = found is not None and all(np.array_equal(found[1][n], ARRAYS[n]) for n in ARRAYS)
    assert same or not (tmp_path / NAME).exists()


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 half"])
def test_a_truncated_file_is_set_aside(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    assert Checkpoint(tmp_path).load() is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.damaged"]


def test_a_newer_format_is_set_aside(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 99)
        Checkpoint(tmp_path).save(FACTS, ARRAYS)
    assert Checkpoint(tmp_path).load() is None


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
