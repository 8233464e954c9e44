"""The commands on a Lightning training."""

import sys

import pytest

import batchlab
from batchlab.advisor.options import Options
from batchlab.app import measure
from batchlab.app.advise import dry_run
from batchlab.lightning import task
from tests.advisor import tiny
from tests.lightning import made

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def small(**changes):
    return task(made.kind(), made.loaders(256), made.trainer(max_epochs=2), **changes)


def by_example(outputs, batch):
    return tiny.loss(outputs, batch)


@linux
@pytest.mark.slow
def test_fit_finds_the_largest_batch_that_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "BLOCK_SECONDS", 0.01)
    report = batchlab.fit(small(), max_val=20, out=tmp_path, device="cpu")
    assert (report.fit.largest, report.fit.bound_by) == (20, "max_val")


@pytest.mark.parametrize(
    ("changes", "method"),
    [({}, "micro-batches"), ({"loss": by_example}, "per example")],
)
def test_noise_is_measured_by_the_method_that_is_said(tmp_path, changes, method):
    own = small(**changes)
    report = batchlab.noise(own, points=2, out=tmp_path, device="cpu")
    said = [note for note in own.notes if "from micro-batches" in note]
    assert {result.method for result in report.moments} == {method}
    assert bool(said) == (method == "micro-batches")


@linux
def test_a_dry_run_says_what_was_read():
    text = str(dry_run(small(), Options(), device="cpu"))
    assert "Net: one training of today takes" in text
    assert "assumed: training_step gives one loss for a whole batch" in text


@linux
@pytest.mark.slow
def test_advise_recommends_from_the_users_own_recipe(tmp_path):
    own = task(made.kind(), made.loaders(256), made.trainer(), metric="accuracy")
    advice = batchlab.advise(own, budget="30s", out=tmp_path, device="cpu")
    assert advice.today.batch_size == made.BATCH
    assert (tmp_path / "report.html").stat().st_size > 0
