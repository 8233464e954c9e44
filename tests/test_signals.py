"""Real signals to a real command: it stops with its exit code, leaves nobody, and goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batchlab import _platform
from tests.benchmarks import load

KILL = load("kill")
SRC = Path(__file__).resolve().parents[1] / "src"
TASK = '''
"""Tells who trains it, and takes its time."""
import os, time
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from batchlab.config import RunConfig
from batchlab.tasks import Task


class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        open(os.path.join("trains", str(os.getpid())), "w").close()
        time.sleep(0.002)
        return self.linear(x) if float(x.detach().sum()) < 1e9 else x  # not to be stacked


def task():
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    baseline = RunConfig(rule="sgd", batch_size=16, learning_rate=0.05, samples="2ep")
    loss = lambda outputs, batch: cross_entropy(outputs, batch[1], reduction="none")
    return Task(Slow, (x, (x[:, 0] > 0).long()), loss=loss, metric="accuracy", baseline=baseline)
'''
ASKED = "--budget 60s --batch-sizes 16 64 --seeds 2 --confirm-seeds 3 --no-growing --device cpu"


def began(folder, *more):
    """``batchlab advise`` with a process group of its own."""
    words = [sys.executable, "-m", "batchlab", "advise", "task.py:task", "--out", "out"]
    places = {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(
        [*words, *ASKED.split(), *more],
        cwd=folder,
        env=os.environ | places,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.skipif(_platform.available_cores() < 2, reason="one core has no worker processes")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_an_advice_and_its_workers_and_it_goes_on(tmp_path, number, code):
    (tmp_path / "task.py").write_text(TASK)
    for name in ("tmp", "trains"):
        (tmp_path / name).mkdir()
    process = began(tmp_path)

    def training():
        workers = [one for one in KILL.family(process.pid) if KILL.is_worker(one)]
        return [one for one in workers if (tmp_path / "trains" / str(one)).exists()]

    def finished():
        return list(tmp_path.glob("out/cells/*/done.json"))

    def met(condition):
        return KILL.until(lambda: process.poll() is not None or condition(), 120.0)

    try:
        assert met(lambda: len(training()) >= 2)
        before = len(finished())
        for worker in training():
            os.kill(worker, signal.SIGINT)  # of a terminal; it is the parent's business
        assert met(lambda: len(finished()) >= before + 5)
        assert process.poll() is None
        family = KILL.family(process.pid)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60.0)
    finally:
        process.kill()
    assert process.returncode == code, said
    assert said.endswith("batchlab: interrupted. Add --resume to go on.\n")
    assert "Traceback" not in said
    assert KILL.until(lambda: not any(map(KILL.runs_still, family)), 10.0)
    assert list((tmp_path / "tmp").glob("batchlab-*")) == []
    assert json.loads((tmp_path / "out" / "advice.json").read_text())["partial"]
    cells = {path: path.stat().st_mtime_ns for path in finished()}
    assert len(cells) >= before + 5
    resumed = began(tmp_path, "--resume")
    _, said = resumed.communicate(timeout=300.0)
    assert resumed.returncode == 0, said
    assert not json.loads((tmp_path / "out" / "advice.json").read_text())["partial"]
    assert all(path.stat().st_mtime_ns == when for path, when in cells.items())
