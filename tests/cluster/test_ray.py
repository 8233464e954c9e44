"""Sweeps on a Ray cluster of this machine: the same results, whatever is lost on the way."""

import contextlib
import dataclasses
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray

from batchlab.cluster import place
from batchlab.cluster.connection import connect
from batchlab.cluster.fleet import Fleet
from batchlab.cluster.place import Cluster
from batchlab.cluster.purse import Purse
from batchlab.engine import Engine
from batchlab.errors import (
    ClusterError,
    InvalidValueError,
    MissingDependencyError,
    SpendError,
    TaskError,
)
from batchlab.studies.claim import Bench
from batchlab.studies.running import measure
from tests.cluster import slow
from tests.engine import tiny
from tests.studies import made

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two_slots():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def cluster(two_slots):
    with Cluster(Fleet("ray")) as found:
        yield found


@pytest.fixture(params=["shared path", "no shared path", "no folder"])
def folder(request, tmp_path, monkeypatch):
    """A result directory that nodes see, or that they do not see, or none."""
    if request.param == "no shared path":
        monkeypatch.setattr(place, "lit", lambda folder: contextlib.nullcontext())
    return None if request.param == "no folder" else tmp_path / "out"


def trained(prepared, runs, on, folder=None, **given):
    """(trace, what was said)"""
    with Engine(prepared, folder, 0, "loop", checkpoint_seconds=0.0, on=on) as engine:
        trace, _ = engine.train(runs, tiny.job(runs[0].samples), **given)
        return trace, engine.hear()


def free(seconds=20.0):
    """Whether no cell holds a slot any longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and ray.available_resources().get("CPU") != 2.0:
        ray.wait([ray.put(0)], timeout=0.1)
    return ray.available_resources().get("CPU") == 2.0


def test_a_cluster_gives_the_results_of_this_machine_bit_for_bit(cluster, tmp_path):
    runs, job = [tiny.run(seed=seed) for seed in range(20)], tiny.job()
    with (
        Engine(tiny.ready(), None, 0) as here,
        Engine(tiny.ready(), tmp_path, on=cluster) as there,
    ):
        expected, _ = here.train(runs, job)
        found, _ = there.train(runs, job)
        again, _ = there.train(runs, job)
        assert there.reused == len(there.plan(runs, job))
    assert tiny.facts(found) == tiny.facts(expected) == tiny.facts(again)
    assert cluster.fleet.provenance()["equal"] == "bit for bit as on this machine"


@pytest.mark.slow
def test_a_killed_process_costs_a_retry_from_the_checkpoint(cluster, folder, tmp_path):
    runs = slow.runs()
    expected, _ = trained(tiny.ready(), runs, None)
    found, said = trained(slow.ready(tmp_path / "flag"), runs, cluster, folder)
    assert (tmp_path / "flag").exists()
    assert tiny.facts(found) == tiny.facts(expected)
    assert len(said) == 1
    assert "its process was killed, went on elsewhere from" in said[0]
    assert not said[0].endswith("from 0%")


@pytest.mark.slow
def test_a_killed_cell_of_a_study_goes_on_from_what_it_has_written(cluster, tmp_path):
    study = dataclasses.replace(made.STUDY, measure=slow.in_halves)
    cells = made.cells(made.STUDY.parameters["quick"])
    tables = measure(study, cells, Bench(out=tmp_path, hears=(hears := made.Hears())), on=cluster)
    assert tables["draws"]["went_on"].to_list() == [True] * len(cells)
    assert len(hears.said) == len(cells)
    assert all("its process was killed, went on elsewhere from 50%" in one for one in hears.said)


def test_a_mistake_of_the_user_is_one_sentence_and_not_tried_again(cluster, tmp_path):
    runs = [*slow.runs(80, 1), tiny.run(samples=80, batch_size=16)]
    with pytest.raises(TaskError, match="raised ZeroDivisionError: my own mistake") as caught:
        trained(slow.ready(mistake=16), runs, cluster, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_cell_that_fails_three_times_is_reported_and_the_others_finish(cluster, tmp_path):
    runs = [tiny.run(samples=80, batch_size=16), *slow.runs(80, 4)]
    with pytest.raises(ClusterError, match=r"A cell failed on 3 .* 4 of 5 cells are finished"):
        trained(slow.ready(deadly=16), runs, cluster, tmp_path)
    assert len(list(tmp_path.glob("cells/*/done.json"))) == 4
    with Engine(slow.ready(), tmp_path, 0, "loop") as mended:
        trace, _ = mended.train(runs, tiny.job(80))
        assert mended.reused == 4
    expected, _ = trained(tiny.ready(), runs, None)
    assert tiny.facts(trace) == tiny.facts(expected)


@pytest.mark.slow
def test_a_sweep_stops_before_it_costs_more(two_slots, tmp_path):
    runs = slow.runs(count=12)
    # 0.01 a second: what one node may cost in eight seconds, where all runs take longer.
    with Cluster(Fleet("ray", Purse(36.0, limit=0.08))) as cluster:
        with pytest.raises(SpendError, match=r"before it would cost more than 0\.08 USD"):
            trained(slow.ready(), runs, cluster, tmp_path)
        spent = cluster.fleet.purse.spent(time.monotonic())
    assert 0 < spent <= 0.08
    with Cluster(Fleet("ray")) as cluster:
        found, _ = trained(slow.ready(), runs, cluster, tmp_path)
    expected, _ = trained(tiny.ready(), runs, None)
    assert tiny.facts(found) == tiny.facts(expected)


@pytest.mark.slow
def test_an_interrupted_sweep_leaves_nothing_running_and_goes_on(cluster, tmp_path):
    runs = slow.runs()

    def interrupt(share):
        if share > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(slow.ready(), runs, cluster, tmp_path, progress=interrupt)
    assert free()
    assert list(tmp_path.glob("cells/*/checkpoint.npz"))
    found, _ = trained(slow.ready(), runs, cluster, tmp_path)
    expected, _ = trained(tiny.ready(), runs, None)
    assert tiny.facts(found) == tiny.facts(expected)


def test_progress_and_money_come_in_one_line(two_slots):
    lines, shares = [], []
    with Cluster(Fleet("ray", Purse(3.6, currency="EUR"), lines.append)) as cluster:
        trained(slow.ready(), slow.runs(), cluster, progress=shares.append)
    assert all(re.match(r"[012] running, ", line) for line in lines), lines
    assert any(line.startswith(("1 ", "2 ")) for line in lines), lines
    assert all(line.endswith(" EUR so far") for line in lines)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_cluster_without_a_gpu_is_refused_by_name(cluster):
    with pytest.raises(ClusterError, match="offers a GPU; they offer 2 CPUs, 0 GPUs"):
        next(cluster.run(b"", {}, lambda name, share: None, device="cuda"))


def test_an_address_that_does_not_answer_is_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        address = f"ray://127.0.0.1:{taken.getsockname()[1]}"
        ray.shutdown()
        with pytest.raises(ClusterError, match=r"does not answer .* Is `ray start` running there"):
            connect(address, seconds=1.0)


@pytest.mark.parametrize("on", ["", "Ray", "local", "http://host:80", "host"])
def test_what_is_no_address_is_refused(on):
    with pytest.raises(InvalidValueError, match="`on` must be ray, ray://HOST:PORT or HOST:PORT"):
        connect(on)


def test_without_ray_the_line_that_installs_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"install batchlab\[ray\]"):
        connect("ray")


def test_training_here_does_not_import_ray():
    script = "import sys, batchlab.app.advise, batchlab.app.study; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.slow
def test_nodes_killed_at_random_change_nothing():
    """Two sweeps; `benchmarks/ray_sweep.py killed` does twenty."""
    script = str(ROOT / "benchmarks" / "ray_sweep.py")
    done = subprocess.run(
        [sys.executable, script, "killed", "--sweeps", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 sweeps equal" in done.stdout
