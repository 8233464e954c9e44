"""``advise``, its dry run, ``fit`` and ``noise`` on Trainers, from Python."""

import sys

import pytest

from batchlab.app.advise import advise, dry_run, options_from
from batchlab.app.measure import fit, noise
from batchlab.huggingface import task
from tests.huggingface import tiny

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def made(tmp_path, make=tiny.classifier, **changes):
    return task(make(tmp_path / "trainer", **changes))


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny.classifier, tiny.writer])
def test_advise_goes_from_a_trainer_to_a_report(tmp_path, make):
    own = made(tmp_path, make, max_steps=-1, num_train_epochs=8, warmup_steps=0.1)
    advice = advise(own, budget="15s", out=tmp_path / "advice", device="cpu")
    assert advice.verdict
    assert set(own.notes) <= set(advice.assumptions)
    assert (tmp_path / "advice" / "report.html").stat().st_size > 0


def test_the_dry_run_says_what_was_read_and_assumed(tmp_path):
    said = str(dry_run(made(tmp_path), options_from(budget="1m"), device="cpu"))
    assert "global batch size 8 = 4 (micro-batch) × 2 (accumulation steps) × 1 (devices)" in said


@linux
@pytest.mark.slow
def test_fit_finds_what_fits_with_the_longest_examples(tmp_path):
    report = fit(made(tmp_path), max_val=16, out=tmp_path / "fit", device="cpu")
    assert report.fit.largest == 16


@pytest.mark.slow
def test_noise_measures_along_the_training(tmp_path):
    report = noise(made(tmp_path, tiny.writer), points=2, out=tmp_path / "noise", device="cpu")
    assert len(report.moments) == 2
    assert all(moment.noise > 0 for moment in report.moments)
