"""``compare``: what is trained, where it is judged, what is paired, and how it goes on."""

import json
import math
import re
import sys

import numpy as np
import polars as pl
import pytest
import torch

from batchlab.app.compare import At, Grid, Pair, at, compare
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, Series
from batchlab.errors import InvalidValueError, ResultError
from batchlab.report.measured import readings
from batchlab.stats import paired_difference
from batchlab.tasks import prepare
from batchlab.types import Status
from tests.engine import tiny

module = sys.modules["batchlab.app.compare"]
BASELINE = RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="2ep")


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_SECONDS", 0.002)


def task(**changes):
    return tiny.task(name="tiny", baseline=BASELINE.replace(**changes))


def wild(rate=0.01):
    """A task that diverges under a large learning rate."""
    data = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)) * 10
    return tiny.task(
        lambda: torch.nn.Linear(2, 1),
        train=(data, data.sum(1, keepdim=True)),
        validation=(data[:16], data[:16].sum(1, keepdim=True)),
        loss=lambda out, batch: (out - batch[1]).square().mean(-1),
        baseline=BASELINE.replace(learning_rate=rate / 10),
        name="wild",
    )


def grid(pairs, samples=128, **changes):
    return Grid(BASELINE.replace(**changes).resolved(64), tuple(pairs), (0, 1), samples)


TODAY, SMALL, LARGE, HUGE = Pair(8, 0.1), Pair(2, 0.1), Pair(32, 0.1), Pair(128, 0.1)


# ------------------------------------------------------------------ what is trained


def test_equal_updates_take_samples_in_proportion_to_the_batch():
    made = grid([TODAY, SMALL, LARGE])
    assert made.updates == 16
    assert [made.equal_updates(p.batch_size) for p in made.pairs] == [128, 32, 512]


def test_a_setting_beyond_ten_times_the_samples_is_left_out_at_equal_updates():
    assert grid([TODAY]).equal_updates(80) == 1280
    assert grid([TODAY]).equal_updates(81) is None


def test_today_is_judged_once_even_where_its_last_batch_is_not_full():
    assert grid([TODAY], samples=130).equal_updates(8) == 130


def test_a_constant_rate_needs_one_training_a_batch_size():
    legs = grid([TODAY, SMALL, LARGE, HUGE]).legs()
    assert [(leg.batch_size, leg.length, leg.moments) for leg in legs] == [
        (2, 128, (32, 128)),
        (8, 128, (128,)),
        (32, 512, (128, 512)),
        (128, 128, (128,)),
    ]


@pytest.mark.parametrize("changes", [{"lr_schedule": "cosine"}, {"warmup": 0.1}])
def test_a_schedule_spans_each_training_so_two_lengths_are_two_trainings(changes):
    legs = grid([TODAY, LARGE], **changes).legs()
    assert [(leg.batch_size, leg.length) for leg in legs] == [(8, 128), (32, 128), (32, 512)]


def test_every_judged_stretch_is_evaluated_in_twentieths():
    (leg,) = grid([LARGE._replace(batch_size=32), LARGE], samples=100).legs()
    assert len(leg.job().evaluate_at) == 21
    assert leg.job().evaluate_at[-1] == 100


@pytest.mark.parametrize(("rule", "rate"), [("sgd", 0.4), ("adam", 0.2)])
def test_todays_rate_is_scaled_by_the_rules_law(rule, rate):
    prepared = prepare(task(rule=rule), device="cpu")
    made = module._grid(prepared, (32,), None, 2, 0, None)
    assert made.pairs == (TODAY, Pair(32, pytest.approx(rate)))


def test_todays_settings_are_first_and_nothing_is_trained_twice():
    prepared = prepare(task(), device="cpu")
    made = module._grid(prepared, (8, 16, 16), (0.1, 0.2), 2, 0, None)
    assert made.pairs == (TODAY, Pair(8, 0.2), Pair(16, 0.1), Pair(16, 0.2))


# ------------------------------------------------------------------ where a run is judged


def run(samples, values, status=Status.OK):
    samples = np.array(samples)
    series = {"metric": Series(samples // 10, samples, np.array(values, dtype=float))}
    last = int(samples[-1])
    return RunResult(BASELINE, status, "", last // 10, last, last, 1.0, "loop", 1, series)


def test_a_run_is_judged_by_its_last_tenth_before_the_moment():
    done = run([0, 50, 90, 100, 150, 180, 200], [1, 2, 3, 5, 7, 8, 10])
    assert at(done, 100) == At(4.0, 100, 10)
    assert at(done, 200) == At(9.0, 200, 20)


def test_the_batch_that_crosses_the_moment_counts():
    assert at(run([0, 80, 130, 200], [1, 2, 3, 4]), 100) == At(3.0, 130, 13)


def test_a_run_that_ends_less_than_a_batch_before_the_moment_has_reached_it():
    assert at(run([0, 48, 96], [1, 2, 3]), 100) == At(3.0, 96, 9)


def test_a_diverged_run_counts_until_it_diverged():
    wild_run = run([0, 50, 90, 100], [1, 2, 3, 5], Status.DIVERGED)
    assert at(wild_run, 100).value == 4.0
    assert math.isnan(at(wild_run, 200).value)


# ------------------------------------------------------------------ from end to end


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(the report, its folder): sizes 2, 8, 32 and one that is left out."""
    folder = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_SECONDS", 0.002)
        asked = {"batch_sizes": (2, 32), "seeds": 3, "out": folder, "device": "cpu"}
        return compare(task(), **asked), folder


def test_samples_and_updates_are_equal_where_they_are_said_to_be(compared):
    report, _ = compared
    assert [one.setting.id for one in report.settings] == ["today", "B2-lr0.025", "B32-lr0.4"]
    assert {one.at_samples.samples for one in report.settings} == {128}
    assert {one.at_updates.updates for one in report.settings} == {16}
    assert [one.at_updates.samples for one in report.settings] == [128, 32, 512]


def test_a_reading_equals_training_that_setting_alone(compared):
    """At equal samples out of the longer run, and at equal updates; the twin swaps the two."""
    report, _ = compared
    one = report.settings[2]
    prepared = prepare(task(), device="cpu")
    for samples, reading in ((128, one.at_samples), (512, one.at_updates)):
        config = prepared.baseline.replace(batch_size=32, learning_rate=0.4, samples=samples)
        grid_ = tuple(round(samples * i / 20) for i in range(21))
        with Engine(prepared, None, 0) as engine:
            configs = [config.replace(seed=seed) for seed in range(3)]
            trace, _ = engine.train(configs, Job(grid_))
        last = [at(r, samples).value for r in trace.runs]
        assert reading.metric.value == pytest.approx(np.mean(last), rel=1e-5)
    assert one.at_samples.metric.value != pytest.approx(one.at_updates.metric.value, rel=1e-3)


def test_differences_are_paired_by_seed_and_set_against_todays_whole_run(compared):
    report, folder = compared
    runs = pl.read_parquet(folder / "runs.parquet")
    metrics = pl.read_parquet(folder / "metrics.parquet").filter(pl.col("name") == "metric")
    values = {}
    for row in runs.iter_rows(named=True):
        config = json.loads(row["config"])
        mine = metrics.filter((pl.col("cell") == row["cell"]) & (pl.col("run") == row["run"]))
        done = run(mine["samples"].to_list(), mine["value"].to_list())
        values[config["batch_size"], config["seed"]] = at(done, 128).value
    today, other = (np.array([values[size, seed] for seed in range(3)]) for size in (8, 32))
    gap = report.settings[2].at_samples.difference
    expected = paired_difference(today, other, maximise=False).estimate
    assert (gap.value, gap.low, gap.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-6
    )
    # The twin pairs different seeds: the same mean, another range.
    shuffled = paired_difference(today, np.roll(other, 1), maximise=False).estimate
    assert gap.low != pytest.approx(shuffled.low, rel=1e-3)


def test_time_is_updates_times_one_run_alone(compared):
    for one in compared[0].settings:
        seconds = one.at_samples.seconds
        per = one.seconds_per_update
        assert seconds.value == pytest.approx(one.at_samples.updates * per.value)
        assert per.n == seconds.n >= 3


def test_todays_settings_have_no_difference_to_themselves(compared):
    assert compared[0].settings[0].at_samples.difference is None


def test_curves_run_along_the_longest_training(compared):
    last = {(p.id, p.name): p.samples for p in compared[0].curves}
    assert last["B32-lr0.4", "metric"] == 512
    assert last["B2-lr0.025", "loss"] == last["today", "loss"] == 128
    assert all(p.n == 3 for p in compared[0].curves)


def test_everything_is_written(compared):
    _, folder = compared
    assert {path.name for path in folder.iterdir()} >= {
        "plan.json", "machine.json", "compare.json", "compare.html", "runs.parquet",
        "metrics.parquet",
    }  # fmt: skip


def test_the_table_names_every_setting_at_both_lengths(compared):
    text = str(compared[0])
    assert "At equal samples (128)" in text
    assert "At equal updates (16)" in text
    assert text.count("batch size 32, learning rate 0.4") >= 2


def test_what_is_left_out_is_said(tmp_path):
    report = compare(
        task(batch_size=2), batch_sizes=(64,), seeds=2, out=tmp_path, device="cpu", samples=64
    )
    assert report.settings[1].at_updates is None
    assert "Batch size 64 is not compared at equal updates" in str(report)


def test_runs_that_fail_are_counted_and_never_look_good(tmp_path):
    report = compare(
        wild(), batch_sizes=(8,), learning_rates=(1e6,), seeds=2, out=tmp_path, device="cpu"
    )
    reading = report.settings[1].at_samples
    assert (reading.failed, reading.wins) == (2, 0)
    assert math.isinf(reading.metric.value)
    assert reading.metric.value > 0
    assert report.better("samples") == ()
    assert "2 of 2" in str(report)
    assert "failed" in str(report)


def test_a_setting_that_is_better_is_found_and_named(tmp_path):
    """Today's rate is a thousandth of a good one; a smaller one still is not called better."""
    report = compare(
        wild(rate=1e-5), batch_sizes=(8,), learning_rates=(1e-3, 1e-8), seeds=8, out=tmp_path,
        device="cpu",
    )  # fmt: skip
    assert [one.setting.learning_rate for one in report.better("samples")] == [1e-3]
    assert "batch size 8, learning rate 0.001 did best" in str(report)


# ------------------------------------------------------------------ going on


class Stopper:
    """Interrupts when a step begins."""

    def __init__(self, step):
        self.step = step

    def say(self, sentence):
        pass

    def progress(self, what, share):
        if what == self.step:
            raise KeyboardInterrupt


def numbers(report):
    """All but the times."""
    return [
        (one.setting.id, one.at_samples.metric, one.at_samples.difference, one.at_updates.metric)
        for one in report.settings
    ]


def test_an_interrupted_comparison_goes_on_with_the_same_result(tmp_path, compared):
    asked = {"batch_sizes": (2, 32), "seeds": 3, "device": "cpu", "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        compare(task(), **asked, listener=Stopper("training batch size 32"))
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cells/*/done.json")}
    assert len(done) == 2
    with pytest.raises(ResultError, match="holds an unfinished result"):
        compare(task(), **asked)
    report = compare(task(), **asked, resume=True)
    assert numbers(report) == numbers(compared[0])
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len(list(tmp_path.glob("cells/*/done.json"))) == 3


def test_a_finished_comparison_is_rendered_again_without_training(compared, monkeypatch):
    report, folder = compared

    def refuse(*_given):
        raise AssertionError("trained again")

    monkeypatch.setattr("batchlab.engine.sweep.run_cell", refuse)
    again = compare(task(), batch_sizes=(2, 32), seeds=3, out=folder, device="cpu")
    assert again.settings == report.settings


def test_a_folder_with_another_comparison_is_refused(compared):
    with pytest.raises(ResultError, match="holds a result with another pairs"):
        compare(task(), batch_sizes=(2, 16), seeds=3, out=compared[1], device="cpu")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"batch_sizes": (65,)}, "batch_sizes"),
        ({"batch_sizes": (32,), "samples": 16}, "batch_sizes"),
        ({"learning_rates": (0.0,)}, "learning_rates"),
        ({"learning_rates": (math.inf,)}, "learning_rates"),
        ({"seeds": 1}, "seeds"),
        ({"seed": -1}, "seed"),
        ({"samples": "4"}, "samples"),
    ],
)
def test_an_impossible_grid_is_refused_by_name(given, name, tmp_path):
    with pytest.raises(InvalidValueError, match=f"`{name}` must be"):
        compare(task(), **({"batch_sizes": (4,), "out": tmp_path} | given))


# ------------------------------------------------------------------ growing batches


GROWING = Pair("0:4 1ep:16", 0.1)


def test_a_schedule_that_never_changes_is_its_size(tmp_path):
    """Two steps of 8 are trained as such and give today's runs bit for bit; its twin grows."""
    report = compare(
        task(), batch_sizes=("0:8 64:8", "0:8 64:16"), learning_rates=(0.1,), seeds=2,
        out=tmp_path, device="cpu",
    )  # fmt: skip
    today, same, other = report.settings
    assert same.setting.batch_size == "0:8 64:8"
    assert same.at_samples.metric == today.at_samples.metric
    assert same.at_samples.difference.value == same.at_samples.difference.high == 0.0
    assert other.at_samples.difference.value != 0.0


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Today 8, and 4 that becomes 16 after a pass, kept and with the rate growing."""
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_SECONDS", 0.002)
        asked = {"batch_sizes": ("0:4 1ep:16",), "rate_growth": (0.0, 1.0), "seeds": 2}
        return compare(task(), **asked, out=folder, device="cpu"), folder


def test_a_schedule_is_named_by_its_ends_and_the_growth_of_its_rate(grown):
    ids = [one.setting.id for one in grown[0].settings]
    assert ids == ["today", "B4→16-lr0.05", "B4→16-lr0.05-p1"]
    assert "batch size 0:4 1ep:16, learning rate 0.05, growing as B^1" in str(grown[0])


def test_schedules_of_the_same_ends_have_names_of_their_own():
    made = grid([TODAY, GROWING, Pair("0:4 32:16", 0.1)])
    names = [made.id(pair) for pair in made.pairs]
    assert names == ["today", "B4→16-lr0.1", "B4→16-lr0.1-2"]


def test_equal_samples_and_equal_updates_of_a_schedule_are_counted_step_by_step(grown):
    """64 samples by 4 are 16 updates, 64 by 16 are 4; today's 16 updates are 64 samples."""
    for one in grown[0].settings[1:]:
        assert (one.at_samples.samples, one.at_samples.updates) == (128, 20)
        assert (one.at_updates.samples, one.at_updates.updates) == (64, 16)


def test_the_seconds_of_a_schedule_are_the_sum_over_its_phases(grown):
    report, folder = grown
    blocks = json.loads((folder / "machine.json").read_text())["blocks"]
    each = {
        int(size): np.exp(np.mean(np.log([b["seconds"] / b["updates"] for b in timed])))
        for size, timed in blocks.items()
    }
    assert set(each) == {4, 8, 16}
    for one in report.settings[1:]:
        assert one.at_samples.seconds.value == pytest.approx(16 * each[4] + 4 * each[16])
        assert one.at_updates.seconds.value == pytest.approx(16 * each[4])
        assert one.seconds_per_update.value == pytest.approx(one.at_samples.seconds.value / 20)


def test_memory_is_that_of_the_largest_phase(grown):
    assert [one.setting.micro_batch_size for one in grown[0].settings] == [8, 16, 16]


def test_the_growth_of_the_rate_changes_the_training_after_the_batch_has_grown(grown):
    report, _ = grown
    points = {(p.id, p.samples): p.value for p in report.curves if p.name == "metric"}
    kept, followed = (one.setting.id for one in report.settings[1:])
    assert points[kept, 64] == points[followed, 64]
    assert points[kept, 128] != points[followed, 128]


def test_a_curves_seconds_end_where_the_reading_says(grown):
    report, _ = grown
    last = {p.id: p.seconds for p in report.curves if p.samples == 128 and p.name == "metric"}
    for one in report.settings:
        assert last[one.setting.id] == pytest.approx(one.at_samples.seconds.value)


def test_the_picture_places_a_schedule_at_its_mean_batch(grown):
    rows = {(r["id"], r["kind"]): r for r in readings(grown[0]).rows}
    assert rows["B4→16-lr0.05", "samples"]["batch"] == pytest.approx(128 / 20)
    assert rows["today", "samples"]["batch"] == 8


def test_a_schedule_may_be_todays_setting(tmp_path):
    report = compare(
        task(batch_size="0:4 1ep:16"), batch_sizes=(8,), seeds=2, out=tmp_path, device="cpu"
    )
    assert report.today.batch_size == "0:4 1ep:16"
    assert report.updates == 20
    assert report.settings[1].setting.learning_rate == pytest.approx(0.2)
    assert report.settings[1].at_updates.samples == 160


def test_updates_of_a_schedule_that_take_too_many_samples_are_left_out_and_said(tmp_path):
    report = compare(
        task(batch_size=1), batch_sizes=("0:1 8:64",), seeds=2, out=tmp_path, device="cpu",
        samples=64,
    )  # fmt: skip
    assert report.settings[1].at_updates is None
    assert "Batch size 0:1 8:64 is not compared at equal updates" in str(report)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch_sizes": ("0:8 8",)}, "`batch_sizes` must be pairs such as 20ep:16"),
        ({"batch_sizes": ("4:8",)}, "`batch_sizes` must be a schedule that starts at 0"),
        ({"batch_sizes": ("0:8 1ep:65",)}, "`batch_sizes` must be whole numbers from 1 to 64"),
        ({"batch_sizes": ("0:8 2ep:16",)}, "begins within the 128 samples of a training"),
        ({"batch_sizes": ("0:4 1ep:8",), "rate_growth": (-1.0,)}, "`rate_growth` must be"),
    ],
)
def test_an_impossible_schedule_is_refused_by_name(given, words, tmp_path):
    with pytest.raises(InvalidValueError, match=re.escape(words)):
        compare(task(), **given, out=tmp_path)
