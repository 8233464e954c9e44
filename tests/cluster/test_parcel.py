"""What an attempt leaves behind reaches the next one, on a shared path or without."""

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab import _platform
from batchlab.cluster import attempt
from batchlab.cluster.attempt import Post
from batchlab.cluster.dispatch import Call, Trial
from batchlab.cluster.hub import Hub
from batchlab.cluster.node import workplace
from batchlab.cluster.parcel import Parcel
from batchlab.cluster.place import lit
from batchlab.errors import TaskError
from batchlab.studies.claim import Bench, Cell
from batchlab.studies.running import _measured_there

NAMES = st.text("abc", min_size=1, max_size=4)


class _Remote:
    """The hub without Ray: what is sent arrives at once."""

    def __init__(self):
        self.hub = Hub()

    def __getattr__(self, name):
        method = getattr(self.hub, name)
        return type("_Method", (), {"remote": staticmethod(method)})


@pytest.fixture
def remote():
    return _Remote()


def post(remote, number=1):
    return Post(remote, "a", number, seconds=0.0)


@given(st.dictionaries(st.tuples(NAMES, NAMES), st.binary(max_size=20)))
def test_a_folder_arrives_as_it_was_sent(tmp_path_factory, contents):
    here, there = (Parcel(tmp_path_factory.mktemp("parcel"), whole=True) for _ in range(2))
    for (folder, name), data in contents.items():
        _platform.write_whole(here.path / f"{folder}-" / name, data)
    there.unpack(here.packed())
    files = {
        tuple(path.relative_to(there.path).parts): path.read_bytes()
        for path in there.path.rglob("*")
        if path.is_file()
    }
    assert files == {(f"{folder}-", name): data for (folder, name), data in contents.items()}


def test_nothing_is_sent_of_a_file_that_is_not_there(tmp_path):
    assert Parcel(tmp_path / "no").packed() is None
    assert Parcel(tmp_path / "no").written() == 0


@pytest.mark.parametrize("whole", [False, True])
def test_what_lies_on_a_shared_path_is_told_and_not_sent(tmp_path, remote, whole):
    told = post(remote)
    with lit(tmp_path) as beacon, workplace(tmp_path / "a", beacon, None, told, whole) as folder:
        assert folder == tmp_path / "a"
        told.tick(0.1)
        assert remote.hub.news().kept == {}
        _platform.write_whole(folder / "checkpoint.npz", b"state")
        told.tick(0.2)
        told.tick(0.3)
    assert remote.hub.news().kept == {"a": (0.2, None)}


def test_a_whole_folder_is_sent_once_a_minute(tmp_path, remote, monkeypatch):
    told = post(remote)
    with workplace(tmp_path, None, None, told, whole=True) as folder:
        assert folder != tmp_path
        (folder / "first").write_bytes(b"1")
        told.tick(0.1)
        assert remote.hub.news().kept == {}
        monkeypatch.setattr(attempt, "FOLDER_SECONDS", 0.0)
        told.tick(0.2)
    ((share, state),) = remote.hub.news().kept.values()
    assert share == 0.2
    trial = Trial("a", Call(print, None, kept=Parcel(tmp_path, whole=True)))
    trial.keep(share, state)
    assert (tmp_path / "first").read_bytes() == b"1"
    assert trial.checkpoint() == state


def test_where_nothing_here_keeps_it_the_last_state_is_kept_in_memory():
    trial = Trial("a", Call(print, None))
    trial.keep(0.5, b"half")
    trial.keep(0.6, None)
    assert (trial.kept, trial.checkpoint()) == (0.6, b"half")


def _in_halves(cell, bench):
    """Breaks after its first half, unless that was measured before."""
    half = bench.out / "cells" / "half"
    if half.exists():
        return [{"repetition": 0, "went_on": True}]
    _platform.write_whole(half, b"measured")
    bench.hears.progress("", 0.5)
    raise RuntimeError("as if its node was lost")


def test_a_study_cell_goes_on_from_what_the_attempt_before_had_measured(
    tmp_path, remote, monkeypatch
):
    monkeypatch.setattr(attempt, "FOLDER_SECONDS", 0.0)
    code = np.frombuffer(cloudpickle.dumps(([], None)), np.uint8)
    bench = Bench(out=tmp_path / "not shared")
    asked = cloudpickle.dumps((_in_halves, Cell("draws", {"n": 1}), bench, None))
    with pytest.raises(TaskError, match="as if its node was lost"):
        _measured_there(code, asked, None, post(remote))
    ((share, state),) = remote.hub.news().kept.values()
    assert share == 0.5
    rows = _measured_there(code, asked, state, post(remote, 2))
    assert rows == [{"repetition": 0, "went_on": True}]
    # Without it, the second attempt would begin anew.
    with pytest.raises(TaskError, match="as if its node was lost"):
        _measured_there(code, asked, None, post(remote, 3))
