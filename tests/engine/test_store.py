"""A finished cell is never computed twice; a damaged one always is."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batchlab import _platform, cli
from batchlab._platform import DirectoryLock
from batchlab.engine import Engine, loop, stacked, store, sweep
from batchlab.engine.naming import name_of
from batchlab.engine.store import collect, load_cell
from batchlab.errors import InvalidTypeError, ResultError
from batchlab.measure.overlaps import overlap_probe
from tests.engine import tiny
from tests.test_platform import holder

CONFIGS = [tiny.run(seed=seed, samples=32) for seed in range(3)]


@pytest.fixture(autouse=True)
def computed(monkeypatch):
    """The cells that were trained rather than read, by their first seed."""
    seen = []

    def counting(prepared, work, tick=None):
        seen.append(work.configs[0].seed)
        return run_cell(prepared, work, tick)

    run_cell = sweep.run_cell
    monkeypatch.setattr(sweep, "run_cell", counting)
    return seen


def train(folder, configs=CONFIGS, prepared=None, asked=None, **given):
    with Engine(prepared or tiny.ready(), folder, 0, "loop") as engine:
        trace, states = engine.train(configs, asked or tiny.job(32), **given)
    return trace, states, engine.reused


def cells(folder):
    return sorted(p for p in (folder / "cells").iterdir() if "." not in p.name)


def test_finished_cells_are_read_and_give_the_same(tmp_path, computed):
    first, states, reused = train(tmp_path)
    assert (sorted(computed), reused) == ([0, 1, 2], 0)
    computed.clear()
    second, others, reused = train(tmp_path)
    assert (computed, reused) == ([], 3)
    assert tiny.facts(first) == tiny.facts(second)
    assert [r.seconds for r in first.runs] == [r.seconds for r in second.runs]
    for a, b in zip(states, others, strict=True):
        assert (a.samples, a.updates) == (b.samples, b.updates)
        assert all(torch.equal(x, tiny.leaves(b)[name]) for name, x in tiny.leaves(a).items())


def test_a_larger_sweep_finds_the_cells_of_a_smaller_one(tmp_path, computed):
    train(tmp_path, CONFIGS[1:])
    computed.clear()
    train(tmp_path)
    assert computed == [0]


def test_states_of_several_rules_come_back_whole(tmp_path):
    configs = [tiny.run(rule=rule, samples=32) for rule in ("sgd", "adam", "shb")]
    _, states, _ = train(tmp_path, configs)
    _, others, reused = train(tmp_path, configs)
    assert reused == 3
    for a, b in zip(states, others, strict=True):
        assert type(a.progress.rule_state) is type(b.progress.rule_state)
    on, _, _ = train(None, configs, starts=states)
    assert tiny.facts(on) == tiny.facts(train(None, configs, starts=others)[0])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("runs.parquet", flip),
        ("metrics.parquet", truncate),
        ("end0.npz", flip),
        ("end0.npz", remove),
    ],
)
def test_a_damaged_file_sets_the_cell_aside_and_recomputes_it(tmp_path, computed, name, damage):
    first, _, _ = train(tmp_path)
    damage(cells(tmp_path)[1] / name)
    computed.clear()
    second, _, reused = train(tmp_path)
    assert (len(computed), reused) == (1, 2)
    assert tiny.facts(first) == tiny.facts(second)
    aside = [p for p in (tmp_path / "cells").iterdir() if ".damaged" in p.name]
    assert [p.name.split(".")[0] for p in aside] == [cells(tmp_path)[1].name]
    assert train(tmp_path)[2] == 3


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_the_joined_tables_leave_out_damaged_cells(tmp_path, damage):
    train(tmp_path)
    damage(cells(tmp_path)[1] / "runs.parquet")
    collect(tmp_path)
    assert rows(tmp_path) == 2
    train(tmp_path)
    for _ in range(2):
        collect(tmp_path)
        assert rows(tmp_path) == 3
    assert len(list((tmp_path / "cells").glob("*.damaged*"))) == 1


def rows(folder):
    """Runs in the joined table."""
    return pl.read_parquet(folder / "runs.parquet").n_unique("cell")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"format": 0}', '{"format": 1, "files": 2}']
)
def test_a_broken_seal_sets_the_cell_aside(tmp_path, computed, text):
    train(tmp_path, CONFIGS[:1])
    (cells(tmp_path)[0] / "done.json").write_text(text)
    computed.clear()
    train(tmp_path, CONFIGS[:1])
    assert computed == [0]


def test_a_cell_without_its_seal_is_recomputed(tmp_path, computed):
    first, _, _ = train(tmp_path)
    (cells(tmp_path)[0] / "done.json").unlink()
    (cells(tmp_path)[0] / "runs.parquet").write_bytes(b"half")
    computed.clear()
    second, _, reused = train(tmp_path)
    assert (len(computed), reused) == (1, 2)
    assert tiny.facts(first) == tiny.facts(second)


def test_a_cell_of_a_newer_version_is_neither_overlooked_nor_trained_again(
    tmp_path, computed, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(store, "FORMAT", 99)
        train(tmp_path, CONFIGS[:1])
    before = {path: path.read_bytes() for path in cells(tmp_path)[0].iterdir()}
    computed.clear()
    for read in (lambda: train(tmp_path), lambda: collect(tmp_path)):
        with pytest.raises(
            ResultError, match=r"by a newer batchlab \(format 99, this one reads 2"
        ):
            read()
    assert {path: path.read_bytes() for path in before} == before
    assert computed == []


def test_a_flipped_digit_is_not_taken_for_a_newer_version(tmp_path, computed):
    train(tmp_path, CONFIGS[:1])
    path = cells(tmp_path)[0] / "done.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    computed.clear()
    train(tmp_path, CONFIGS[:1])
    assert computed == [0]


def test_a_cell_sealed_before_seals_had_a_hash_is_read(tmp_path, computed):
    train(tmp_path, CONFIGS[:1])
    path = cells(tmp_path)[0] / "done.json"
    seal = json.loads(path.read_text())
    del seal["sha256"]
    path.write_text(json.dumps(seal))
    computed.clear()
    assert train(tmp_path, CONFIGS[:1])[2] == 1
    assert computed == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with Engine(tiny.ready(), folder, 0, "loop") as engine:
        engine.train(CONFIGS[:1], tiny.job(32))
    return cells(folder)[0]


@settings(max_examples=30)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), file=st.integers(0, 2))
def test_no_flipped_bit_is_overlooked(saved, place, bit, file):
    copy = saved.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    for old in saved.parent.glob("copy.damaged*"):
        shutil.rmtree(old)
    shutil.copytree(saved, copy)
    path = copy / ("runs.parquet", "metrics.parquet", "end0.npz")[file]
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    assert load_cell(copy, None) is None
    assert not copy.exists()


def test_the_seal_names_every_file_with_size_and_hash(saved):
    seal = json.loads((saved / "done.json").read_text())
    assert sorted(seal["files"]) == ["end0.npz", "metrics.parquet", "runs.parquet"]
    for name, facts in seal["files"].items():
        assert facts["size"] == (saved / name).stat().st_size


def other_probe(objective, samples):
    return {"seen": 2.0}


def probe(objective, samples):
    return {"seen": 1.0}


def different():
    base = tiny.job(32, probe=probe, probe_at=(0,))
    x, y = tiny.points()
    yield {"asked": tiny.job(32, probe=other_probe, probe_at=(0,))}
    yield {"asked": tiny.job(32, probe=probe, probe_at=(16,))}
    yield {"asked": tiny.job(32, until=16)}
    yield {"asked": base, "prepared": tiny.ready(tiny.batch_norm)}
    yield {"asked": base, "prepared": tiny.ready(train=(x + 1, y))}
    yield {"asked": base, "prepared": tiny.ready(loss=lambda o, b: 2 * tiny.cross(o, b))}
    yield {"asked": base, "prepared": tiny.ready(metric="accuracy")}
    yield {"asked": base, "configs": [CONFIGS[0].replace(learning_rate=0.04)]}


@pytest.mark.parametrize("change", list(different()), ids=lambda change: "-".join(change))
def test_whatever_the_results_depend_on_makes_another_cell(tmp_path, computed, change):
    train(tmp_path, CONFIGS[:1], asked=tiny.job(32, probe=probe, probe_at=(0,)))
    computed.clear()
    assert train(tmp_path, CONFIGS[:1], asked=tiny.job(32, probe=probe, probe_at=(0,)))[2] == 1
    assert train(tmp_path, **({"configs": CONFIGS[:1]} | change))[2] == 0


@dataclass(frozen=True, eq=False)
class Along:
    """A probe with a setting and no name, as those of users are."""

    direction: torch.Tensor

    def __call__(self, objective, samples):
        return {"seen": float(self.direction.sum())}


def scaled(objective, samples, scale):
    return {"seen": scale}


def closing(scale):
    return lambda objective, samples: {"seen": scale}


def settings_of(probe):
    return {
        "object": lambda: (Along(torch.ones(2)), Along(torch.zeros(2))),
        "partial": lambda: (partial(scaled, scale=1.0), partial(scaled, scale=2.0)),
        "closure": lambda: (closing(1.0), closing(2.0)),
        "code": lambda: ((lambda o, s: {"seen": 1.0}), (lambda o, s: {"seen": 2.0})),
        "tensor": lambda: (closing(torch.ones(2)), closing(torch.zeros(2))),
        "overlap": lambda: (overlap_probe(torch.eye(2)[:1]), overlap_probe(torch.eye(2)[1:])),
    }[probe]()


@pytest.mark.parametrize("kind", ["object", "partial", "closure", "code", "tensor", "overlap"])
def test_a_probe_is_told_by_what_it_holds(kind):
    (one, other), (again, _) = settings_of(kind), settings_of(kind)
    assert name_of(one) == name_of(again)
    assert name_of(one) != name_of(other)


def test_a_probe_with_another_setting_makes_another_cell(tmp_path, computed):
    for scale in (1.0, 2.0, 1.0):
        asked = tiny.job(32, probe=closing(scale), probe_at=(0,))
        trace, _, reused = train(tmp_path, CONFIGS[:1], asked=asked)
        assert trace.runs[0].series["seen"].values.tolist() == [scale]
    assert (len(computed), reused) == (2, 1)


@pytest.mark.slow
def test_a_probe_is_named_alike_in_another_process():
    program = (
        "import torch; from functools import partial; from batchlab.engine.naming import name_of\n"
        "class Along: pass\n"
        "probe = Along(); probe.direction = torch.ones(2)\n"
        "probe.of = lambda o, s: s in {'a', 'b', 'c', 'd'}\n"
        "probe.kinds, probe.scaled = {'a', 'b', 'c', 'd'}, partial(max, 1)\n"
        "print(name_of(probe))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_a_probe_that_holds_an_open_file_has_to_have_a_name(tmp_path):
    with open(tmp_path / "log", "w") as log, pytest.raises(InvalidTypeError, match="a `name`"):
        name_of(closing(log))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_what_the_system_does_not_read_is_neither_damaged_nor_trained_again(
    tmp_path, computed, monkeypatch, number
):
    train(tmp_path)
    computed.clear()

    def refuse(path):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(ResultError, match=os.strerror(number)):
            load_cell(cells(tmp_path)[0], None)
    assert train(tmp_path)[2] == 3
    assert computed == []


def test_every_damage_is_said_once(tmp_path, monkeypatch):
    train(tmp_path)
    _, lost, half = cells(tmp_path)
    flip(lost / "runs.parquet")
    (half / "done.json").unlink()
    (half / "checkpoint.npz").write_bytes(b"half")
    (tmp_path / "executors.json").write_text("{half")
    for found in ([tmp_path / "executors.json", lost, half / "checkpoint.npz"], []):
        with Engine(tiny.ready(), tmp_path, 0, "loop") as engine:
            engine.train(CONFIGS, tiny.job(32))
            said = engine.hear()
            assert engine.hear() == []
        assert [sentence.split("`")[1] for sentence in said] == [str(path) for path in found]
        for sentence in said:
            path, kept = (Path(quoted) for quoted in sentence.split("`")[1:4:2])
            assert f"`{path}` was damaged: it is kept as `{kept}`, and" in sentence
            assert path.with_name(kept.name).exists()


def test_a_checkpoint_that_outlived_its_cell_is_removed(tmp_path, computed):
    train(tmp_path)
    (cells(tmp_path)[0] / "checkpoint.npz").write_bytes(b"whole")
    assert train(tmp_path)[2] == 3
    assert not (cells(tmp_path)[0] / "checkpoint.npz").exists()


class Noted(nn.Module):
    """A model whose initial weights and evaluation say nothing of how it trains."""

    def __init__(self, dropout=0.1, momentum=0.1, frozen=False, noise=0.0):
        super().__init__()
        self.first, self.norm = nn.Linear(tiny.INPUTS, 6), nn.BatchNorm1d(6, momentum=momentum)
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(6, 2)
        self.first.requires_grad_(not frozen)
        self.noise = noise

    def forward(self, inputs):
        if self.training:
            inputs = inputs + self.noise
        return self.out(self.dropout(self.norm(self.first(inputs).tanh())))


@pytest.mark.parametrize(
    "change", [{"dropout": 0.5}, {"momentum": 0.2}, {"frozen": True}, {"noise": 1.0}]
)
def test_a_model_that_trains_otherwise_is_another_task(change):
    with Engine(tiny.ready(Noted), None, 0) as one, Engine(tiny.ready(Noted), None, 0) as same:
        assert one.task_hash == same.task_hash
    with Engine(tiny.ready(lambda: Noted(**change)), None, 0) as other:
        assert one.task_hash != other.task_hash


def test_a_directory_that_another_process_holds_is_refused_and_left_alone(tmp_path):
    half = tmp_path / "cells" / "abc" / ".batchlab-1.tmp"
    process = holder(tmp_path)
    try:
        half.parent.mkdir(parents=True)
        half.touch()
        with pytest.raises(ResultError, match="is in use by another run"):
            Engine(tiny.ready(), tmp_path, 0)
        assert half.exists()
    finally:
        process.kill()
        process.wait()
    with Engine(tiny.ready(), tmp_path, 0):
        assert not half.exists()
        with pytest.raises(ResultError, match="is in use"), DirectoryLock(tmp_path):
            pass
    with DirectoryLock(tmp_path):
        pass


def test_an_engine_works_under_the_lock_of_its_command_and_beside_another(tmp_path):
    with DirectoryLock(tmp_path):
        train(tmp_path, CONFIGS[:1])
        with pytest.raises(ResultError, match="is in use"), DirectoryLock(tmp_path):
            pass
    with Engine(tiny.ready(), tmp_path, 0):
        train(tmp_path, CONFIGS[:1])
        with pytest.raises(ResultError, match="is in use"), DirectoryLock(tmp_path):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="no process is known to be gone there")
def test_the_scratch_folder_of_a_killed_process_goes_with_the_next_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    left, own = (tmp_path / f"batchlab-scratch-{n}-x" for n in (gone.pid, os.getpid()))
    for folder in (left, own):
        folder.mkdir()
        (folder / "task").write_bytes(b"task")
    with Engine(tiny.ready(), tmp_path / "out", 0):
        assert not left.exists()
        assert (own / "task").exists()


class Stop:
    """Presses Ctrl-C when a share of the sweep is done."""

    def __init__(self, share):
        self.share = share

    def __call__(self, share):
        if share >= self.share:
            raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_stops_a_sweep_that_goes_on_to_the_same_trace(tmp_path):
    whole = train(None)[0]
    terminated = cli._Terminated()
    before = signal.signal(signal.SIGTERM, terminated)

    def terminate(share):
        if share >= 0.34:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, progress=terminate)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert terminated.came
    resumed, _, reused = train(tmp_path)
    assert reused == 2
    assert tiny.facts(resumed) == tiny.facts(whole)


@pytest.mark.parametrize("fitting", [0, 1, 5, 9])
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_full_disk_ends_a_sweep_in_a_sentence_and_loses_nothing(
    tmp_path, fitting, executor, monkeypatch
):
    """The n-th file and all after it find no room, a checkpoint or a result."""
    monkeypatch.setattr(sweep, "LEAST_CHUNK", 1)
    monkeypatch.setattr(loop, "TICK_UPDATES", 1)
    monkeypatch.setattr(stacked, "LONGEST_LEG", 1)
    whole, _ = tiny.trained(tiny.ready(), CONFIGS, executor)
    written, fsync = [], os.fsync

    def full(descriptor):
        written.append(descriptor)
        if len(written) > fitting:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    def sweep_on():
        with Engine(tiny.ready(), tmp_path, 0, executor, checkpoint_seconds=0.0) as engine:
            return engine.train(CONFIGS, tiny.job(32))[0], engine.reused

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        patch.setattr(_platform, "_sync_folder", lambda folder: None)
        with pytest.raises(ResultError, match=r"Cannot write .*: No space left .* --resume"):
            sweep_on()
    assert not list(tmp_path.rglob(f"{_platform.UNFINISHED}*"))
    sealed = len(list(tmp_path.glob("cells/*/done.json")))
    resumed, reused = sweep_on()
    assert reused == sealed
    assert not list(tmp_path.rglob("*.damaged*"))
    assert tiny.facts(resumed) == tiny.facts(whole)


@pytest.mark.parametrize("share", [0.0, 0.34, 0.9])
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_an_interrupted_sweep_goes_on_to_the_same_trace(tmp_path, share, executor, monkeypatch):
    monkeypatch.setattr(sweep, "LEAST_CHUNK", 1)
    monkeypatch.setattr(loop, "TICK_UPDATES", 1)
    monkeypatch.setattr(stacked, "LONGEST_LEG", 1)
    whole, _ = tiny.trained(tiny.ready(), CONFIGS, executor)
    with (
        pytest.raises(KeyboardInterrupt),
        Engine(tiny.ready(), tmp_path, 0, executor) as engine,
    ):
        engine.train(CONFIGS, tiny.job(32), progress=Stop(share))
    with Engine(tiny.ready(), tmp_path, 0, executor) as engine:
        resumed, _ = engine.train(CONFIGS, tiny.job(32))
    assert engine.reused == int(share * 3)
    assert tiny.facts(resumed) == tiny.facts(whole)
