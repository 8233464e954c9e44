"""``fit`` and ``noise`` from the task to the files."""

import json
import sys

import pytest
import torch

from batchlab.advisor.stages import Machine
from batchlab.app.measure import fit, moments, noise, sizes_to_time, together
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidValueError, ResultError
from batchlab.measure.noise import NoiseResult
from batchlab.report.findings import Place
from batchlab.tasks import prepare
from batchlab.types import Status, from_plain
from tests.engine import tiny

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
module = sys.modules["batchlab.app.measure"]
BASELINE = RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="2ep")


def task(**changes):
    return tiny.task(name="tiny", baseline=BASELINE.replace(**changes))


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self):
        self.steps = []

    def say(self, sentence):
        self.steps.append(sentence)

    def progress(self, what, share):
        assert 0 <= share <= 1
        self.steps.append(what)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """(the report, its folder, what was heard)."""
    folder, heard = tmp_path_factory.mktemp("fit"), Heard()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_SECONDS", 0.01)
        return fit(task(), max_val=20, out=folder, device="cpu", listener=heard), folder, heard


@linux
def test_fit_times_powers_of_two_todays_size_and_the_largest(fitted):
    report, _, _ = fitted
    timed = [p.batch_size for p in report.fit.points if p.seconds_per_update is not None]
    assert timed == [1, 2, 4, 8, 16, 20]
    assert all(p.seconds_per_update.n == 3 for p in report.fit.points if p.seconds_per_update)
    assert (report.fit.largest, report.fit.bound_by) == (20, "max_val")
    assert report.fit.knee in timed
    assert 0 <= report.fit.loader_share <= 1


@linux
def test_fit_writes_the_machine_that_report_reads(fitted):
    report, folder, _ = fitted
    kept = json.loads((folder / "machine.json").read_text("utf-8"))
    assert from_plain(Machine, kept) == report.machine
    assert report.machine.seconds(8) is not None
    assert json.loads((folder / "fit.json").read_text("utf-8"))["task"] == "tiny"
    assert "Memory and speed" in (folder / "fit.html").read_text("utf-8")


@linux
def test_fit_prints_a_table_with_units_and_repeats(fitted):
    text = str(fitted[0])
    assert "samples per second (90 %)" in text
    assert "n = 3 blocks each" in text
    assert "bound by: max_val" in text
    today = next(line for line in text.splitlines() if line.strip().startswith("8 "))
    assert "today" in today


@linux
def test_fit_tells_how_far_it_has_come(fitted):
    assert list(dict.fromkeys(fitted[2].steps)) == [
        "finding the largest batch that fits",
        "timing one run alone",
    ]


@linux
def test_fit_with_gamma_tries_and_times_the_wrapped_model_too(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_SECONDS", 0.01)
    ran, search = [], module.finder.fit
    monkeypatch.setattr(
        module.finder,
        "fit",
        lambda *a, **given: ran.append(given["config"]) or search(*a, **given),
    )
    report = fit(task(), max_val=4, with_gamma=True, out=tmp_path, device="cpu")
    assert [config.gamma for config in ran] == [1.0]
    assert set(report.machine.wrapped) == set(report.machine.blocks) == {"1", "2", "4"}
    assert all(len(blocks) == 3 for blocks in report.machine.wrapped.values())
    assert "With a feature-learning strength γ an update takes" in str(report)
    assert from_plain(Machine, json.loads((tmp_path / "machine.json").read_text("utf-8"))).wrapped
    assert "γを使うと1回の更新時間は" in (tmp_path / "fit.html").read_text("utf-8")


def test_a_recipe_with_gamma_is_timed_once(monkeypatch):
    monkeypatch.setattr(module, "_fit", lambda team, search, *_: search)
    assert "config" not in fit(task(gamma=2.0), with_gamma=True, device="cpu")
    assert "config" not in fit(task(), device="cpu")


def test_a_model_that_cannot_have_a_gamma_is_not_timed_with_one(monkeypatch):
    monkeypatch.setattr(module, "why_not", lambda prepared: "its output is no tensor")
    with pytest.raises(InvalidValueError, match="`with_gamma` must be left out for this task"):
        fit(task(), with_gamma=True, device="cpu")


def test_no_size_above_what_fits_is_timed():
    assert sizes_to_time(11, [64]) == (1, 2, 4, 8, 11)
    assert sizes_to_time(0, [8]) == ()


@pytest.mark.parametrize("name", ["max_val", "init_val"])
def test_a_size_below_one_is_refused(name):
    with pytest.raises(InvalidValueError, match=f"`{name}` must be a whole number, 1 or more"):
        fit(task(), **{name: 0})


def test_a_folder_of_another_command_is_not_written_over(tmp_path):
    (tmp_path / "plan.json").write_text("{}", "utf-8")
    with pytest.raises(ResultError, match="holds the result of another command"):
        noise(task(), out=tmp_path)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """(the report, its folder)."""
    folder = tmp_path_factory.mktemp("noise")
    return noise(task(precision="float64"), points=3, out=folder, device="cpu"), folder


def test_noise_is_measured_as_often_as_asked_the_last_time_at_the_end(noisy):
    report, _ = noisy
    assert [m.samples for m in report.moments] == [16, 64, 128]
    assert report.samples == 128
    assert report.status is Status.OK


def test_the_noise_scale_of_the_whole_training_set_equals_its_definition(noisy):
    """tr Σ/‖G‖² from one gradient an example, at weights trained apart."""
    report, _ = noisy
    prepared = prepare(task(precision="float64"), device="cpu")
    with Engine(prepared, None, 0) as engine:
        _, (state,) = engine.train([prepared.baseline], Job((0,), keep_end=True, until=64))
    objective = prepared.objective(0, torch.float64)
    with torch.no_grad():
        for name, value in objective.named_parameters():
            value.copy_(state.progress.params[name])
    losses, _ = objective(prepared.train.batch(torch.arange(prepared.examples)))
    params = list(objective.parameters())
    gradients = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(x, params, retain_graph=True)])
            for x in losses
        ]
    )
    expected = gradients.var(0, correction=0).sum() / gradients.mean(0).square().sum()
    assert report.moments[1].scale.value == pytest.approx(float(expected), rel=1e-6)
    # The twin takes the whole training set for a sample of something larger.
    wrong = expected * 64 / 63
    assert report.moments[1].scale.value != pytest.approx(float(wrong), rel=1e-3)


def test_noise_writes_a_record_and_a_page(noisy):
    report, folder = noisy
    kept = json.loads((folder / "noise.json").read_text("utf-8"))
    assert kept["moments"][0]["samples"] == 16
    assert "gradient noise scale" in (folder / "noise.html").read_text("utf-8")
    assert report.origin.folder == str(folder)


def test_noise_says_what_it_means_for_todays_batch(noisy):
    text = str(noisy[0])
    assert "noise scale, examples (90 %)" in text
    assert "Today's batch size 8 is" in text


def test_a_shorter_noise_run_is_the_beginning_of_the_recipe(tmp_path):
    """Under a falling learning rate a compressed run would measure elsewhere."""
    long, short = (
        noise(task(lr_schedule="linear"), samples=s, points=p, out=tmp_path / str(s), device="cpu")
        for s, p in ((128, 2), (32, 1))
    )
    assert long.moments[0].samples == short.moments[0].samples == 32
    assert long.moments[0].scale.value == short.moments[0].scale.value


def test_a_longer_noise_run_is_possible(tmp_path):
    assert noise(task(), samples="3ep", points=1, out=tmp_path, device="cpu").samples == 192


def test_a_batch_schedule_is_measured_and_each_of_its_sizes_read(tmp_path):
    report = noise(task(batch_size="0:4 64:16"), points=2, out=tmp_path, device="cpu")
    assert report.batch_sizes == (4, 16)
    assert len(report.reading()) == 2


def test_a_run_that_diverges_is_an_answer(tmp_path):
    outputs = {"train": (torch.ones(40, 1) * 1e3, torch.ones(40, 1))}
    task_ = tiny.task(
        lambda: torch.nn.Linear(1, 1),
        **outputs,
        validation=outputs["train"],
        loss=lambda out, batch: (out - batch[1]).square().mean(-1),
        baseline=BASELINE.replace(learning_rate=1e3),
        name="wild",
    )
    report = noise(task_, points=2, out=tmp_path, device="cpu")
    assert report.status is Status.DIVERGED
    assert "diverged" in str(report)
    assert report.together is None or report.places


@pytest.mark.parametrize(
    ("given", "name"),
    [({"points": 0}, "points"), ({"samples": "0"}, "samples"), ({"samples": "7"}, "samples"),
     ({"samples": "5upd"}, "samples")],
)  # fmt: skip
def test_an_impossible_noise_run_is_refused_by_name(given, name, tmp_path):
    with pytest.raises(InvalidValueError, match=f"`{name}` must be"):
        noise(task(), out=tmp_path, **given)


def test_moments_lie_at_squares_and_end_with_the_run():
    assert moments(1000, 4) == (62, 250, 562, 1000)
    assert moments(2, 4) == (1, 2)


def test_nothing_measured_together_is_none():
    assert together(()) is None
    assert together((NoiseResult(0, 0.0, 0.0, None, None, "per example", 8),)) is None


def test_places_are_words():
    assert {str(p) for p in Place} >= {"far below", "around", "far above", "not resolved"}
