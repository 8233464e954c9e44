"""``compare --gammas``: what is tried, what chooses, what judges, and what it says."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch

from batchlab import cli
from batchlab.advisor.stages import Machine
from batchlab.app.reuse import final
from batchlab.app.strength import Key, compare_gammas
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, Series
from batchlab.errors import InvalidValueError, UserError
from batchlab.measure.throughput import Block
from batchlab.progress import Quiet
from batchlab.report.measured import strength_page
from batchlab.report.strength import StrengthReport
from batchlab.tasks import prepare
from batchlab.types import Estimate, Status
from tests.engine import tiny

module = sys.modules["batchlab.app.strength"]
BASELINE = RunConfig(rule="sgd", batch_size=8, learning_rate=0.1, samples="2ep")


def task(**changes):
    return tiny.task(name="tiny", baseline=BASELINE.replace(**changes))


def asked(gammas=(0.5, 4.0), *, depth=None, seeds=3, **changes):
    prepared = prepare(task(**changes), device="cpu")
    return module._asked(prepared, gammas, depth, seeds, 0, None)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gammas")
    return compare_gammas(task(), gammas=[4.0, 0.5], seeds=3, out=folder, device="cpu"), folder


# ------------------------------------------------------------------ what is tried


def test_depth_is_counted_from_the_model():
    assert asked().depth == 2
    assert asked(depth=5).depth == 5


@pytest.mark.parametrize(
    ("rule", "gamma", "factor"),
    [
        ("sgd", None, 1.0),
        ("sgd", 0.5, 0.25),
        ("sgd", 4.0, 4.0),
        ("adam", 0.5, 0.5),
        ("adam", 4.0, 2),
    ],
)
def test_the_law_starts_from_the_rate_of_the_model_as_it_is(rule, gamma, factor):
    assert asked(rule=rule).law(gamma, 0.1) == pytest.approx(0.1 * factor)


def test_all_gammas_and_rates_share_a_stack():
    found = asked()
    keys = [Key(gamma, rate) for gamma in found.gammas for rate in (0.1, 0.2)]
    configs = [found.config(key, seed) for key in keys for seed in found.choosing]
    with Engine(found.prepared, None, 0, "stacked") as engine:
        cells = engine.plan(configs, Job(found.grid))
        assert len({cell.group for cell in cells}) == 1
        groups = engine.plan([*configs, found.config(Key(None, 0.1), 0)], Job(found.grid))
        assert len(groups) == len(cells) + 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"gammas": ()}, "`gammas` must be one number above 0 or more"),
        ({"gammas": (0.0,)}, "`gamma` must be a finite number above 0"),
        ({"seeds": 2}, "`seeds` must be a whole number, 3 or more"),
        ({"depth": 0}, "`depth` must be a whole number, 1 or more"),
        ({"gamma": 2.0}, "`gamma` must be left out of today's recipe"),
    ],
)
def test_an_impossible_wish_is_one_sentence(given, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        asked(**given)


def test_a_recipe_with_a_schedule_of_sizes_is_refused(tmp_path):
    with pytest.raises(UserError, match="times one batch size"):
        compare_gammas(task(batch_size="0:8 1ep:16"), gammas=[1.0], out=tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--gammas", "1", "--batch-sizes", "8"], "`batch_sizes` must be left out with --gammas"),
        (["--gammas", "1", "--labels", "9"], "`labels` must be given with --reuse only"),
        (["--gammas", "1", "--reuse", "2"], "`gammas` must be left out with --reuse"),
        (["--batch-sizes", "8", "--depth", "3"], "`depth` must be given with --gammas only"),
    ],
)
def test_options_of_another_comparison_are_refused_not_ignored(words, sentence, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", "digits", *words, "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


# ------------------------------------------------------------------ what chooses


def falling(end):
    """A run whose metric, a loss, ends there."""
    at = np.arange(5) * 32
    series = {"metric": Series(at, at // 8, np.array([1.0, *[end] * 4]))}
    return RunResult(BASELINE, Status.OK, "", 16, 128, 128, 1.0, "loop", 1, series)


def test_each_gamma_has_the_rate_that_was_best_for_it():
    found, rates = asked(), (0.1, 0.2, 0.4)
    chose = {
        Key(gamma, rate): tuple(falling(abs(math.log(rate / best)) + 0.1) for _ in range(2))
        for gamma, best in ((4.0, 0.4), (None, 0.2))
        for rate in rates
    }
    assert module._best(found, chose, Key(4.0, 0.1)) == Key(4.0, 0.4)
    assert module._best(found, chose, Key(None, 0.1)) == Key(None, 0.2)
    assert module._beyond(chose, Key(4.0, 0.4)) == [Key(4.0, 0.8)]
    assert module._beyond(chose, Key(4.0, 0.1)) == [Key(4.0, 0.05)]
    assert module._beyond(chose, Key(None, 0.2)) == []


def test_of_equal_rates_the_law_wins_and_the_search_goes_on_beyond_its_ends(monkeypatch):
    """The best of the model as it is lies 16 times above today's; the others follow from it."""
    tried = []

    def train(asked, engine, keys, seeds, hears, what):
        tried.extend(keys)
        best = {None: 1.6, 0.5: 0.4, 4.0: 6.4}
        ends = {key: abs(math.log(key.rate / best[key.gamma])) for key in keys}
        return {key: (falling(end),) * 2 for key, end in ends.items()}, {}

    monkeypatch.setattr(module, "_train", train)
    made = asked()
    with Engine(made.prepared, None, 0) as engine:
        found = module._trained(made, engine, Quiet())
    best = {gamma: round(key.rate, 9) for gamma, key in found.best.items()}
    assert best == {None: 1.6, 0.5: 0.4, 4.0: 6.4}
    rates = {round(key.rate, 9) for key in tried if key.gamma == 0.5}
    assert rates == {0.1, 0.2, 0.4, 0.8, 1.6}
    flat = {Key(4.0, rate): (falling(0.5),) * 2 for rate in (0.1, 0.2)}
    assert module._best(asked(), flat, Key(4.0, 0.2)) == Key(4.0, 0.2)


def test_a_gamma_whose_runs_all_diverged_is_a_row_without_measures():
    found, today, lost = asked(), Key(None, 0.1), Key(4.0, 0.4)
    broken = dataclasses.replace(falling(math.nan), status=Status.DIVERGED)
    fresh = {today: (falling(0.5),) * 3, lost: (broken,) * 3}
    trained = module.Trained(fresh, fresh, {None: today, 4.0: lost}, {}, 0.6)
    blocks = {"8": (Block(8, 10, 0.01, 0.0, 0),) * 3}
    machine = Machine(None, blocks, 1, "cpu", "", 1)
    row = module._row(found, trained, {False: machine, True: machine}, lost, [])
    assert (row.failed, row.arrived, row.runs) == (3, 0, 3)
    assert row.sharpness is row.sparsity is row.moved is None
    assert math.isinf(row.seconds.value)
    assert row.faster.value == 0
    assert row.difference.value == math.inf


# ------------------------------------------------------------------ what is measured


def test_a_trained_model_is_looked_at_without_its_wrapper():
    found = asked()
    for gamma in (None, 4.0):
        key = Key(gamma, 0.1)
        _, (state,) = tiny.trained(found.prepared, [found.config(key, 3)], "loop", tiny.job(128))
        looked = module._looked(found, key, 3, state, lambda objective: 7.0)
        place = "module." if gamma is None else "module.model."
        own = found.prepared.objective(3).module
        start, end = (
            torch.cat(
                [values[place + name].flatten().double() for name, _ in own.named_parameters()]
            )
            for values in (
                {place + name: p.detach() for name, p in own.named_parameters()},
                tiny.leaves(state),
            )
        )
        assert looked.moved == pytest.approx(float((end - start).norm() / start.norm()))
        assert looked.moved > 1e-3
        assert looked.sharpness == 7.0
        assert 0 < looked.sparsity <= 1


def test_the_report_holds_what_the_runs_say(report):
    found, folder = report
    assert [row.gamma for row in found.rows] == [None, 0.5, 4.0]
    assert found.rows[0].difference is None
    assert len({(p.gamma, p.learning_rate) for p in found.points}) == len(found.points)
    assert all(row.sharpness is not None and row.sharpness.n == 3 for row in found.rows)
    chosen = {(row.gamma, row.learning_rate) for row in found.rows}
    assert chosen <= {(p.gamma, p.learning_rate) for p in found.points}
    own = asked((0.5, 4.0))
    configs = [own.config(Key(r.gamma, r.learning_rate), s) for r in found.rows for s in own.fresh]
    with Engine(own.prepared, None, 0) as engine:
        trace, _ = engine.train(configs, Job(own.grid, keep_end=True))
    ends = final(trace.runs).reshape(3, 3)
    for row, own_ends in zip(found.rows, ends, strict=True):
        assert row.metric.value == pytest.approx(own_ends.mean(), rel=1e-6)
        if row.difference is not None:
            assert row.difference.value == pytest.approx((own_ends - ends[0]).mean(), abs=1e-7)
            assert row.difference.level == row.faster.level == pytest.approx(1 - 0.1 / 4)
    told = json.loads((folder / "gammas.json").read_text("utf-8"))
    assert [row["gamma"] for row in told["rows"]] == [None, 0.5, 4.0]


def test_going_on_trains_nothing_again(report, monkeypatch):
    found, folder = report
    monkeypatch.setattr("batchlab.engine.sweep.run_cell", None)
    again = compare_gammas(
        task(), gammas=[0.5, 4.0], seeds=3, out=folder, device="cpu", resume=True
    )
    same = dataclasses.replace(again, origin=found.origin)
    assert same.rows == found.rows
    assert same.slower == found.slower


# ------------------------------------------------------------------ what it says


def with_gaps(found: StrengthReport, *gaps, faster=(0.9, 1.1)):
    """The same report with other differences and speeds."""
    speed = Estimate(math.sqrt(faster[0] * faster[1]), *faster, n=3)
    rows = [
        dataclasses.replace(
            row, difference=Estimate(sum(gap) / 2, *gap, n=3), faster=speed, learning_rate=row.law
        )
        for row, gap in zip(found.strengths, gaps, strict=True)
    ]
    return dataclasses.replace(found, rows=(found.rows[0], *rows))


@pytest.mark.parametrize(
    ("gaps", "faster", "words"),
    [
        (((-0.2, -0.1), (-0.4, -0.3)), (0.9, 1.1), "γ = 4 improves"),
        (((-0.2, 0.1), (-0.4, 0.3)), (0.9, 1.1), "No γ was shown to be better or faster"),
        (((-0.2, 0.1), (0.1, 0.3)), (0.9, 1.1), "as it is; worse: γ = 4"),
        (((-0.2, 0.1), (-0.4, 0.3)), (1.5, 2.0), "sooner"),
        (((0.1, 0.2), (0.1, 0.3)), (0.9, 1.1), "Every γ tried is worse"),
    ],
)
def test_the_answer_follows_the_ranges(report, gaps, faster, words):
    """The metric is a loss: below zero is better."""
    found = with_gaps(report[0], *gaps, faster=faster)
    assert words in found.answer().en


def test_the_direction_of_the_metric_turns_the_answer(report):
    found = with_gaps(report[0], (-0.2, -0.1), (-0.4, -0.3))
    turned = dataclasses.replace(found, metric=dataclasses.replace(found.metric, maximise=True))
    assert [row.gamma for row in found.better()] == [4.0, 0.5]
    assert found.worse() == turned.better() == ()
    assert "Every γ tried is worse" in turned.answer().en


def test_the_law_counts_best_rates_within_a_factor_of_two(report):
    found = with_gaps(report[0], (0.0, 0.1), (0.0, 0.1))
    first, second = found.strengths
    rows = (found.rows[0], first, dataclasses.replace(second, learning_rate=4 * second.law))
    assert dataclasses.replace(found, rows=rows).near() == (first,)


@pytest.mark.parametrize(
    ("rule", "lazy", "rich", "power"),
    [("sgd", "γ²", "γ^(2/L)", 2), ("adam", "γ", "γ^(1/L)", 1)],
)
def test_the_law_that_is_told_is_the_one_that_was_used(report, rule, lazy, rich, power):
    today = dataclasses.replace(report[0].today, rule=rule)
    said = dataclasses.replace(report[0], today=today).said()[0]
    assert f"η·{lazy} (γ ≤ 1), η·{rich} (γ > 1)" in said.en
    assert f"η·{lazy}（γ≤1）・η·{rich}（γ>1）" in said.ja
    used = asked(rule=rule, depth=2)
    assert used.law(0.5, 1.0) == pytest.approx(0.5**power)
    assert used.law(4.0, 1.0) == pytest.approx(4.0 ** (power / 2))


def test_the_ranges_of_both_columns_are_promised_together(report):
    method = report[0].said()[1]
    assert "for all γ and both columns together with 90 %" in method.en
    assert "全部のγと両方の列について同時に90%" in method.ja


def test_both_languages_are_on_the_page_and_small_gammas_are_warned_about(report):
    found, folder = report
    page = (folder / "gammas.html").read_text("utf-8")
    assert "特徴学習の強さ" in page
    assert "feature-learning strength" in page
    assert '"strength"' in page
    tiny_gamma = dataclasses.replace(found.strengths[0], gamma=1e-3)
    small = dataclasses.replace(found, rows=(found.rows[0], tiny_gamma, *found.rows[2:]))
    assert any("float64" in text.en for text in small.said())
    assert not any("float64" in text.en for text in found.said())
    assert all(text.ja for text in (small.answer(), *small.said()))
    assert strength_page(small)
