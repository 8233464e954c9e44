"""A finished cell is never computed twice; a damaged one always is."""

import errno
import json
import os
import shutil
import signal
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab import _platform, cli
from batchlab.engine import Engine, loop, stacked, sweep
from batchlab.engine.store import load_cell
from batchlab.errors import ResultError
from tests.engine import tiny

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
    before = signal.signal(signal.SIGTERM, cli._terminated)

    def terminate(share):
        if share >= 0.34:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(cli.Terminated):
            train(tmp_path, progress=terminate)
    finally:
        signal.signal(signal.SIGTERM, before)
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
