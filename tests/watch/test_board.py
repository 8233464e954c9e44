"""Scalars for TensorBoard, to a writer made by hand and to a real one."""

import sys

import pytest
import torch
from torch import nn

from batchlab.errors import InvalidTypeError, MissingDependencyError
from batchlab.watch import Watch
from batchlab.watch.board import Board
from tests.watch.test_journal import EVERY, moment, start
from tests.watch.test_noise import Pair, block


class Writer:
    """Remembers what it is told."""

    def __init__(self):
        self.told, self.closed = [], False

    def add_scalar(self, name, value, global_step):
        self.told.append((name, value, global_step))

    def close(self):
        self.closed = True


def told(*lines):
    writer = Writer()
    board = Board(writer)
    for line in lines:
        board.add(line)
    board.close()
    return writer


def test_samples_are_the_step():
    writer = told(start(), moment(2), moment(4))
    assert {step for _, _, step in writer.told} == {8, 16}


def test_a_moment_shows_loss_speed_waiting_and_progress():
    writer = told(moment(2, waiting=1.0, working=3.0), moment(4, waiting=2.0, working=4.0))
    last = {name: value for name, value, step in writer.told if step == 16}
    assert last["loss"] == 1.0
    assert last["samples per second"] == pytest.approx(4.0)
    assert last["share of time waiting for data"] == pytest.approx(0.5)
    assert (last["progress/updates"], last["progress/seconds"]) == (4.0, 4.0)


def test_the_noise_scale_has_its_interval():
    writer = told(block([Pair(1.0 + 0.01 * (-1) ** i, 8.0) for i in range(16)]))
    names = {name: value for name, value, _ in writer.told}
    assert names["noise scale/low"] < names["noise scale/value"] < names["noise scale/high"]
    assert names["noise scale/value"] == pytest.approx(8.0)


def test_a_number_that_is_none_is_not_shown():
    writer = told(moment(2, loss=float("nan")))
    assert "loss" not in {name for name, _, _ in writer.told}


def test_every_line_can_be_shown():
    assert told(*EVERY).told


def test_the_user_s_writer_stays_open():
    assert not told(start()).closed


def test_something_that_is_no_writer_is_refused():
    with pytest.raises(InvalidTypeError, match="must be True, a folder or a SummaryWriter; got"):
        Board(3)


def test_without_tensorboard_the_line_that_installs_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"install batchlab\[tensorboard\]"):
        Board(tmp_path)


def test_a_directory_is_not_touched_where_tensorboard_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watching = Watch(tmp_path / "new", model, optimizer, tensorboard=True, quiet=True)
    with pytest.raises(MissingDependencyError, match="tensorboard"):
        watching.open()
    assert not (tmp_path / "new" / "watch.jsonl").exists()


def test_a_real_writer_leaves_its_files(tmp_path):
    pytest.importorskip("tensorboard")
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watch(tmp_path, model, optimizer, tensorboard=True, quiet=True) as watching:
        for batch in watching.data(torch.ones(4, 2, 3).unbind()):
            model(batch).sum().backward()
            optimizer.step()
    assert list((tmp_path / "tensorboard").glob("events.*"))
