"""``compare --reuse``: what is planned, what chooses, what judges, and what it says."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from batchlab import cli
from batchlab._text import same
from batchlab.advisor.session import Silent
from batchlab.advisor.stages import Machine
from batchlab.app.advise import render
from batchlab.app.reuse import Way, clock_of, compare_reuse, final
from batchlab.config import RunConfig
from batchlab.engine import RunResult, Series
from batchlab.errors import InvalidValueError, ResultError, UserError
from batchlab.measure.reuse import Spent
from batchlab.measure.throughput import Block
from batchlab.report.measured import reuse_page
from batchlab.report.reuse import Saved, _saved
from batchlab.tasks import prepare
from batchlab.types import Estimate, Status
from tests.engine import tiny

module = sys.modules["batchlab.app.reuse"]
BASELINE = RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="2ep")
SIZES = (8, 16, 32)


def task(**changes):
    return tiny.task(name="tiny", baseline=BASELINE.replace(**changes))


def asked(reuse=(2, 4), *, reading=0.0, labels=(), seeds=5, samples=None, **changes):
    module.check_reuse(reuse, labels, reading, seeds, 0)
    prepared = prepare(task(**changes), device="cpu")
    return module._asked(prepared, reuse, labels, None, reading, seeds, 0, samples)


def clock(given=0.0, loading=0.0, seconds=0.001):
    """Every batch size takes the same time per example: 1 ms for 8."""
    blocks = {
        str(size): (
            Block(size, 10, 10 * (seconds + loading) * size / 8, 10 * loading * size / 8, 0),
        )
        * 3
        for size in SIZES
    }
    return clock_of(Machine(None, blocks, 1, "cpu", "", 1), 8, given)


def lengths(plan, kind):
    return {
        (way.batch_size, way.reuse): way.samples for way, kinds in plan.items() if kind in kinds
    }


# ------------------------------------------------------------------ what is planned


def test_reading_and_computing_are_timed_apart():
    """A re-used batch is read once: what loading took must not be multiplied by the re-use."""
    found = clock(loading=0.003, given=0.5)
    assert found.each(8) == pytest.approx(0.001 / 8)
    assert found.loading == pytest.approx(0.003 / 8)
    assert found.reading == pytest.approx(0.5 + 0.003 / 8)
    yard = found.yardstick(Way(8, 4, 80), None, 64)
    assert yard.measure("time", np.array([80.0]), 8)[0] == pytest.approx(
        80 * (4 * 0.001 / 8 + found.reading)
    )


def test_the_rivals_are_trained_at_equal_samples_and_equal_updates():
    plan = module._plan(asked(), clock())
    fresh, updates = lengths(plan, "fresh"), lengths(plan, "updates")
    # The longest of today's batch is the k epochs of the largest k.
    assert fresh == {(8, 1): 512, (8, 2): 128, (8, 4): 128, (16, 1): 128, (32, 1): 128}
    assert Way(8, 1, 256) in plan
    done = {samples * reuse // size for (size, reuse), samples in updates.items()}
    assert done == {16}


@pytest.mark.parametrize(("reading", "share"), [(0.0, 0.5), (0.001 / 8, 2 / 3), (1e9, 1.0)])
def test_an_equal_time_draws_fewer_samples_by_what_reading_costs(reading, share):
    """(c + s)·n = (2c + s)·m: half without reading, all where only reading counts."""
    time = lengths(module._plan(asked((2,)), clock(reading)), "time")
    assert time[8, 1] == 128
    assert time[8, 2] == pytest.approx(128 * share, abs=1)
    assert time[16, 1] == pytest.approx(128, abs=1)


def test_epochs_are_no_rival_in_a_training_of_less_than_one_pass():
    plan = module._plan(asked((2,), samples=48), clock())
    assert {way.samples for way in plan if way[:2] == (8, 1)} == {48}


def test_what_takes_ten_times_the_samples_is_left_out():
    plan = module._plan(asked((8, 12), batch_size=2), clock())
    assert max(way.samples for way in plan) <= module.LONGEST * 128
    assert Way(16, 1, 8 * 128) in plan
    assert not any(way.batch_size == 24 and "updates" in kinds for way, kinds in plan.items())


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"reuse": ()}, "`reuse` must be whole numbers, 2 or more"),
        ({"reuse": (1,)}, "`reuse` must be whole numbers, 2 or more"),
        ({"reuse": (9,)}, "`reuse` must be whole numbers from 2 to 5.* 3 of them.* up to k = 5"),
        ({"labels": (19, 64)}, "`labels` must be numbers of examples from 20 to 64"),
        ({"labels": (32, 65)}, "`labels` must be numbers of examples from 20 to 64"),
        ({"labels": (32,)}, "`labels` must be two numbers or more"),
        ({"reading": -1.0}, "`seconds_per_sample` must be 0 seconds or more"),
        ({"reading": math.nan}, "`seconds_per_sample` must be 0 seconds or more"),
        ({"seeds": 2}, "`seeds` must be a whole number, 3 or more"),
    ],
)
def test_an_impossible_wish_is_one_sentence(given, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        asked(**given)


def test_a_recipe_that_re_uses_already_is_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="`reuse` must be 1 in today's recipe"):
        compare_reuse(task(reuse=2), reuse=[2], out=tmp_path, device="cpu")


def test_a_recipe_with_a_schedule_of_sizes_is_refused(tmp_path):
    with pytest.raises(UserError, match="multiples of one batch size"):
        compare_reuse(task(batch_size="0:8 1ep:16"), reuse=[2], out=tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--reuse", "2", "--batch-sizes", "8", "16"],
            "`batch_sizes` must be left out with --reuse; got '8 16'",
        ),
        (["--reuse", "1"], "`reuse` must be whole numbers, 2 or more"),
        (["--batch-sizes", "8", "--dry-run"], "`dry_run` must be given with --reuse only"),
        (["--reuse", "2", "--features"], "`features` must be left out with --reuse"),
        (["--batch-sizes", "8", "--labels", "9"], "`labels` must be given with --reuse only"),
        (["--batch-sizes", "8", "--currency", "JPY"], "`currency` must be given with --reuse"),
        ([], "`--batch-sizes` must be given"),
    ],
)
def test_options_of_the_other_comparison_are_refused_not_ignored(
    words, sentence, capsys, tmp_path
):
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", "digits", *words, "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


# ------------------------------------------------------------------ what chooses


def run(ends, *, status=Status.OK, samples=(0, 32, 64, 96, 128)):
    at = np.array(samples)
    series = {"metric": Series(at, at // 8, np.array(ends, float))}
    return RunResult(BASELINE, status, "", 16, 128, 128, 1.0, "loop", 1, series)


def falling(end):
    """The metric is a loss: less is better."""
    return run([1.0, *[end] * 4])


def test_the_rate_is_the_best_on_the_choosing_seeds_and_today_wins_a_tie():
    made, way = asked(), Way(8, 2, 128)
    chose = {
        (way, rate): tuple(map(falling, ends))
        for rate, ends in {0.05: [0.5, 0.4], 0.1: [0.2, 0.3], 0.2: [0.3, 0.2]}.items()
    }
    assert module._best_rate(made, chose, way) == 0.1
    better = chose | {(way, 0.2): (falling(0.1), falling(0.1))}
    assert module._best_rate(made, better, way) == 0.2
    failed = better | {
        (way, 0.2): (falling(0.1), run([1.0, math.nan], status=Status.DIVERGED, samples=(0, 32)))
    }
    assert module._best_rate(made, failed, way) == 0.1


def test_a_rate_at_the_edge_asks_for_the_next_beyond():
    way = Way(8, 2, 128)
    chose = {(way, rate): () for rate in (0.05, 0.1, 0.2)}
    assert module._beyond(chose, way, 0.2) == [0.4]
    assert module._beyond(chose, way, 0.05) == [0.025]
    assert module._beyond(chose, way, 0.1) == []


def test_a_diverged_run_has_no_end():
    runs = [falling(0.5), run([0.0, 0.9], status=Status.DIVERGED, samples=(0, 32))]
    assert final(runs).tolist() == [0.5, pytest.approx(math.nan, nan_ok=True)]


def test_the_quickest_draws_fewest_samples_whatever_its_end():
    made, early, late = asked(), Way(8, 2, 128), Way(8, 2, 64)
    chose = {
        (early, 0.1): (run([1, 0, 0, 0, 0.1]),) * 2,
        (late, 0.1): (run([1, 1, 0.1, 0.1, 0.0]),) * 2,
    }
    found = module._quickest(made, chose, 0.2)
    assert found == {(8, 2): (early, 0.1)}


# ------------------------------------------------------------------ what follows


def test_re_use_has_a_line_against_today_and_against_the_larger_batch():
    spent = {
        (8, 1): Spent((100.0,) * 5, (100.0,) * 5),
        (8, 2): Spent((60.0,) * 5, (120.0,) * 5),
        (16, 1): Spent((110.0,) * 5, (55.0,) * 5),
    }
    today, larger = module._lines(asked((2,)), clock(3 * 0.001 / 8), spent)
    assert (today.reuse, today.rival, larger.rival) == (2, 1, 2)
    assert today.boundary.value == pytest.approx(20 / 40)
    assert larger.boundary.value == pytest.approx((120 - 55) / (110 - 60))
    assert today.here.value == pytest.approx((300 + 100) / (180 + 120))
    assert (today.fresh.value, today.computing.value) == pytest.approx((10 / 6, 10 / 12))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One comparison of everything, on 64 examples."""
    folder = tmp_path_factory.mktemp("reuse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_SECONDS", 0.002)
        given = {"reuse": [2], "labels": [24, 40, 64], "seeds": 3, "device": "cpu"}
        found = compare_reuse(task(), out=folder, seconds_per_sample=0.001, **given)
    return found, folder, given


@pytest.mark.slow
def test_every_reading_keeps_what_it_promises(whole):
    found, *_ = whole
    by = {kind: [row for row in found.rows if kind in row.kinds] for kind in ("fresh", "updates")}
    assert {row.updates for row in by["updates"]} == {16}
    assert {row.samples for row in by["fresh"] if row.epochs == 1} == {128}
    assert all(row.processed == row.samples * row.reuse for row in found.rows)
    assert found.rows[0].difference is None
    assert [row.difference is None for row in found.rows[1:]] == [False] * (len(found.rows) - 1)


@pytest.mark.slow
def test_what_is_judged_never_chose(whole):
    found, folder, _ = whole
    assert not set(found.seeds) & set(found.choosing)
    assert len(found.seeds) != len(found.choosing)
    assert {row.runs for row in found.rows} == {len(found.seeds)}
    assert {row.runs for row in found.reached} == {len(found.seeds)}
    runs = pl.read_parquet(folder / "runs.parquet")
    seeds = (
        {json.loads(text)["seed"] for text in runs["config"]}
        if "config" in runs
        else set(runs["seed"])
    )
    assert seeds == set(found.seeds) | set(found.choosing)


@pytest.mark.slow
def test_the_gap_is_the_metric_on_training_data_less_that_on_validation_data(whole):
    """The naive twin: one run trained and evaluated by hand on both."""
    found, *_ = whole
    made = asked((2,), seeds=3)
    way, rate = made.today, found.today.learning_rate
    with module.Engine(made.prepared, None, workers=0) as engine:
        configs = [made.config(way, rate, seed) for seed in made.fresh]
        job = module.Job((0, 128), keep_end=True)
        _, states = engine.train(configs, job)
    gaps = []
    for state in states:
        model = task().model()
        held = {**state.progress.params, **state.progress.buffers}
        model.load_state_dict({name.removeprefix("module."): v for name, v in held.items()})
        gaps.append(
            _measured(model, made.prepared.train) - _measured(model, made.prepared.validation)
        )
    assert found.rows[0].gap.value == pytest.approx(np.mean(gaps), abs=1e-6)
    # A planted sign would be seen.
    assert abs(np.mean(gaps)) > 1e-4


def _measured(model, source):
    batch = source.batch(torch.arange(source.examples))
    with torch.no_grad():
        return float(task().loss(model.double().eval()(batch[0].double()), batch).mean())


@pytest.mark.slow
def test_the_same_again_trains_nothing_and_another_price_judges_anew(whole):
    found, folder, given = whole
    cells = {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*.parquet")
        if "cells" in path.parts
    }
    again = compare_reuse(
        task(), out=folder, seconds_per_sample=0.001, price_per_sample=1.0, **given
    )
    assert cells == {path: path.stat().st_mtime_ns for path in cells}
    assert math.isinf(again.price)
    assert math.isfinite(found.price)
    assert again.rows == found.rows
    assert [line.boundary for line in again.lines] == [line.boundary for line in found.lines]
    with pytest.raises(ResultError, match="another reading"):
        compare_reuse(task(), out=folder, seconds_per_sample=0.002, **given)


@pytest.mark.slow
def test_it_is_told_in_both_languages_and_on_a_page(whole):
    found, folder, _ = whole
    assert "2 updates a batch" in str(found)
    page = (folder / "reuse.html").read_text(encoding="utf-8")
    for words in ("1バッチ2回更新", "pays from this price on", "--labels", "ラベル付きデータ数"):
        assert words in page
    assert json.loads((folder / "reuse.json").read_text())["factors"] == [2]


@pytest.mark.parametrize(
    ("ratio", "told"),
    [
        ((1.6, 1.3, 2.0), "need 1.6"),
        ((0.6, 0.5, 0.7), "none are saved"),
        ((1.0, 0.8, 1.2), "none are shown to be saved"),
    ],
)
def test_labels_saved_are_told_only_where_the_whole_range_says_so(ratio, told):
    some = Estimate(100.0, 90.0, 110.0, 5)
    found = _saved(Saved(2, 1, some, some, Estimate(*ratio, 5)), same("90 %"))
    assert told in found.en
    assert "ラベル" in found.ja


def _at(report, *, here, boundary):
    """The same record with other lines."""
    ratio, edge = (Estimate(value, low, high, 3) for value, low, high in (here, boundary))
    lines = tuple(replace(line, here=ratio, boundary=edge) for line in report.lines)
    return replace(report, lines=lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("here", "boundary", "answer", "told"),
    [
        ((1.5, 1.2, 1.9), (2.0, 1.0, 3.0), "Re-use pays", "every rival once a fresh sample costs"),
        ((0.5, 0.4, 0.6), (9.0, 7.0, 12.0), "Re-use does not pay", "once a fresh sample costs"),
        ((1.1, 0.9, 1.3), (2.0, 1.0, math.inf), "not shown that re-use pays", "no price of a"),
        ((1.5, 1.2, 1.9), (0.0, 0.0, 0.0), "Re-use pays", "at any price"),
        ((0.5, 0.4, 0.6), (math.inf, 3.0, math.inf), "does not pay", "no price of a fresh"),
    ],
)
def test_the_answer_says_plainly_whether_re_use_pays(whole, here, boundary, answer, told):
    report = _at(whole[0], here=here, boundary=boundary)
    assert answer in report.answer().en
    assert told in " ".join(text.en for text in report.said())
    assert "採算" in report.answer().ja
    assert reuse_page(report)


# ------------------------------------------------------------------ what makes an answer doubtful


def test_the_range_of_the_ratio_here_holds_the_error_of_timing_what_the_sides_do_not_share():
    """At equal reading and computing today's cost is half computing, that of 4 updates four
    fifths: the error of timing one example counts by their difference, and not at all where
    reading costs nothing.
    """
    seeds = ((100.0, 110.0, 105.0, 95.0, 102.0), (70.0, 75.0, 72.0, 68.0, 71.0))
    spent = {
        (8, 1): Spent(seeds[0], seeds[0]),
        (8, 4): Spent(seeds[1], tuple(4 * x for x in seeds[1])),
    }

    def width(timed, reading):
        (line, *_) = module._lines(asked((4,)), timed(reading), spent)
        return math.log(line.here.high / line.here.low)

    def scattered(reading):
        blocks = {
            str(size): tuple(
                Block(size, 10, 10 * s * size / 8, 0.0, 0) for s in (5e-4, 1e-3, 2e-3)
            )
            for size in (8, 32)
        }
        return clock_of(Machine(None, blocks, 1, "cpu", "", 1), 8, reading)

    assert width(scattered, 0.0) == pytest.approx(width(clock, 0.0))
    assert width(scattered, 0.001 / 8) > 1.2 * width(clock, 0.001 / 8)


def test_timing_again_joins_blocks_and_a_finished_result_is_not_timed(tmp_path, monkeypatch):
    made = asked((2,))
    monkeypatch.setattr(module, "BLOCK_SECONDS", 0.001)
    journal = module.Journal(tmp_path, {}, False)
    first = module._timed(made, journal, Silent())
    assert module._timed(made, journal, Silent()) == first
    both = module._timed_again(made, journal, first, Silent())
    assert [len(b) for b in both.blocks.values()] == [2 * module.BLOCKS] * 2
    resumed = module._timed_again(made, journal, first, Silent())
    assert [len(b) for b in resumed.blocks.values()] == [3 * module.BLOCKS] * 2
    journal.finish()
    assert module._timed_again(made, journal, first, Silent()) == resumed
    assert module._timed(made, journal, Silent()) == first


def test_what_a_computer_did_meanwhile_shows_as_a_range_and_is_said():
    """The planted load: 44 times as slow before the training as after it."""
    blocks = {"8": tuple(Block(8, 10, s, 0.0, 0) for s in (0.44, 0.44, 0.44, 0.01, 0.01, 0.01))}
    found = clock_of(Machine(None, blocks, 1, "cpu", "", 1), 8, 0.0)
    assert found.busy(8) == pytest.approx(44)
    known = found.range_of(8)
    assert known.low < 0.001 / 8 * 2
    assert known.high > 0.001 / 8 * 20


def test_a_target_that_untrained_models_meet_is_chance():
    made = asked()
    key = (made.today, 0.1)
    trained = module.Trained({key: (falling(0.9),)}, {}, {made.today: 0.1}, {}, 1.0)
    assert module._untrained(made, trained)
    assert not module._untrained(made, replace(trained, target=0.95))


def test_what_would_be_trained_is_counted(monkeypatch):
    made = asked((2,), labels=(24, 64))
    plan = module._plan(made, clock())
    runs = module._runs(made, plan)
    each = len(module.RATES) * len(made.choosing) + len(made.fresh)
    assert len(runs) == each * (len(plan) + 2 * 3)
    monkeypatch.setattr(module, "BLOCK_SECONDS", 0.001)
    told = module.price(task(), reuse=[2], device="cpu")
    count, rest = int(told.split()[1]), told.split(maxsplit=2)[2]
    assert count % each == 0
    assert rest.startswith("trainings, about")


@pytest.mark.slow
def test_its_page_is_made_again_from_its_record_and_not_for_another_price(whole, tmp_path):
    _, folder, _ = whole
    page = render([folder], out=tmp_path / "again.html")
    assert page.read_bytes() == (folder / "reuse.html").read_bytes()
    with pytest.raises(InvalidValueError, match=r"left out for compare --reuse; got '2\.0'"):
        render([folder], price_per_hour=2.0)


@pytest.mark.slow
def test_what_makes_an_answer_doubtful_is_said_and_nothing_where_there_is_nothing(whole):
    calm = replace(whole[0], busy=1.2, untrained=False, left_out=(), rows=whole[0].rows[:1])
    assert calm._cautions() == []
    each = Estimate(2e-4, 1e-4, 4e-4, 10)
    doubtful = replace(
        calm, busy=44.0, untrained=True, left_out=(12,), computing=each, price=3.0,
        seconds_per_example=2e-4,
    )  # fmt: skip
    told = " ".join(text.en for text in doubtful.said())
    for words in (
        "busy while it was timed",
        "44 times",
        "no more than chance",
        "for k = 12: k epochs",
    ):
        assert words in told
    assert doubtful.told_price().en.endswith("computing 3 (1.5 to 6) examples")
    assert all(text.ja for text in doubtful.said())


@pytest.mark.slow
def test_a_gain_at_equal_fresh_samples_is_joined_to_an_answer_that_shows_none(whole):
    row = next(r for r in whole[0].rows if r.reuse == 2 and "fresh" in r.kinds)
    better = -1.0 if not whole[0].metric.maximise else 1.0
    gap = Estimate(0.26 * better, *sorted((0.2 * better, 0.3 * better)), 3)
    ahead = _at(
        replace(whole[0], rows=(replace(row, difference=gap),)),
        here=(1.1, 0.9, 1.3),
        boundary=(2.0, 1.0, math.inf),
    )
    assert "2 updates on each batch do end better than today" in ahead.said()[0].en
    paying = _at(ahead, here=(1.5, 1.2, 1.9), boundary=(0.0, 0.0, 0.0))
    assert "do end better" not in " ".join(text.en for text in paying.said())
    worse = Estimate(-0.26 * better, *sorted((-0.2 * better, -0.3 * better)), 3)
    behind = replace(ahead, rows=(replace(row, difference=worse),))
    assert "do end better" not in " ".join(text.en for text in behind.said())
