"""Features after stage C: when they are measured, what it may cost, and the rows side by side."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from batchlab import _platform
from batchlab.advisor import advise as stages
from batchlab.advisor import inner
from batchlab.advisor.advise import run_stages
from batchlab.advisor.confirm import ConfirmationPlan
from batchlab.advisor.inner import Inside
from batchlab.advisor.journal import Journal
from batchlab.advisor.options import Options
from batchlab.advisor.seen import feature_use
from batchlab.app.advise import advise, again
from batchlab.app.compare import compare
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidValueError
from batchlab.measure import insight as inside
from batchlab.measure._own import Examples
from batchlab.measure.features import Features, Kept
from batchlab.measure.insight import (
    CURVED_EXAMPLES,
    Insight,
    curvature_of,
    insight,
    reader_of,
    why_not,
)
from batchlab.report.findings import CompareReport
from batchlab.stats import paired_difference
from batchlab.tasks import prepare
from batchlab.types import Estimate, from_plain, to_plain
from tests.advisor import made, tiny

PLAN = ConfirmationPlan((made.OTHER,), (100, 101), (1000, 1001, 1002), True)
RECORD = made.confirmation((4000, 4000, 4000), (3000, 3000, 3000))
OPTIONS = Options(budget=100.0, confirm_seeds=3)


@pytest.fixture(scope="module")
def prepared():
    return prepare(tiny.task(), device="cpu")


def linear():
    return nn.Linear(8, 2)


# When it is measured.


def test_a_model_with_hidden_units_can_be_looked_into(prepared):
    found = inner.look(prepared, OPTIONS)
    assert found.why_not == ""
    assert found.reader.site.units == 16
    assert 0 < found.seconds < 60


def test_a_model_without_them_says_so():
    bare = prepare(dataclasses.replace(tiny.task(), model=linear), device="cpu")
    assert inner.look(bare, OPTIONS) == Inside(None, "no hidden layer")


def test_models_too_large_to_be_kept_say_so(prepared, monkeypatch):
    reader = reader_of(prepared, prepared.baseline)
    size = 2 * 4 * sum(p.numel() for p in reader.objective.parameters())
    monkeypatch.setattr("batchlab.measure.insight.KEPT_BYTES", 6 * size)
    assert why_not(prepared, prepared.baseline, reader, 6) == ""
    assert why_not(prepared, prepared.baseline, reader, 7) == "too large"


class Stubborn(nn.Module):
    """Runs, but not while somebody listens."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(8, 4), nn.Linear(4, 2)

    def forward(self, x):
        if self.head._forward_hooks or self.head._forward_pre_hooks:
            raise RuntimeError("no hooks here")
        return self.head(self.body(x))


def test_a_model_that_cannot_be_taken_apart_does_not_end_the_advice(tmp_path):
    stubborn = prepare(dataclasses.replace(tiny.task(), model=Stubborn), device="cpu")
    found = inner.look(stubborn, OPTIONS)
    assert (found.why_not, found.said) == ("failed", "RuntimeError: no hooks here")
    session = made.session(options=OPTIONS)
    journal = Journal(tmp_path, {}, resume=False)
    told = inner.measure(session, journal, PLAN, RECORD, found, 1e9, lambda _: 0.0)
    assert told == Insight(why_not="failed")
    assert "no hooks here" in session.listener.sentences[0]


@pytest.mark.parametrize(
    ("options", "seconds", "kept"),
    [
        (OPTIONS, 1.5, 9.0),  # 6 runs, of 10 s that are allowed
        (OPTIONS, 1.7, 0.0),
        (dataclasses.replace(OPTIONS, prefer="sparse"), 1.7, pytest.approx(10.2)),
        (dataclasses.replace(OPTIONS, budget=None), 1e6, 6e6),
    ],
)
def test_a_tenth_of_the_budget_is_left_for_it_or_nothing(options, seconds, kept):
    assert inner.reserved(Inside(None, "", seconds), options) == kept
    assert inner.reserved(Inside(None, "no hidden layer", seconds), options) == 0


@pytest.mark.parametrize(
    ("prefer", "models"), [(None, 6), ("repeatable", 6), ("sparse", 21), ("flat", 21)]
)
def test_the_price_counts_both_settings_and_the_finalists_that_are_chosen_by_it(prefer, models):
    options = dataclasses.replace(OPTIONS, prefer=prefer, seeds=5)
    assert inner.price(Inside(None, "", 1.5), options, finalists=3) == 1.5 * models


@pytest.mark.parametrize(("seconds", "named"), [(1.5, True), (1.7, False)])
def test_what_is_left_out_has_no_price_in_the_plan(seconds, named):
    """The twin takes more than a tenth of the budget."""
    found = stages._price_of_features(made.session(options=OPTIONS), Inside(None, "", seconds))
    assert ("F" in found) == named


@pytest.fixture
def staged(monkeypatch, tmp_path):
    """Nothing trains, nothing is measured."""
    done = []
    monkeypatch.setattr(inner, "end_states", lambda *_: ({1000: "a"}, {1000: "b"}))
    monkeypatch.setattr(
        inner.inside, "insight", lambda reader, ends, **given: done.append(ends) or Insight()
    )
    return made.session(options=OPTIONS), Journal(tmp_path, {}, resume=False), done


def _measure(staged, seconds, spendable=1e9, again=0.0):
    session, journal, _ = staged
    found = Inside("reader", "", seconds)
    return inner.measure(session, journal, PLAN, RECORD, found, spendable, lambda _: again)


def test_it_is_measured_on_the_fresh_runs_of_both_settings(staged):
    assert _measure(staged, 1.0) == Insight()
    assert staged[2] == [{"today": {1000: "a"}, "recommended": {1000: "b"}}]


@pytest.mark.parametrize(
    ("seconds", "spendable", "again"), [(1.7, 1e9, 0.0), (1.0, 5.0, 0.0), (1.0, 1e9, 4.5)]
)
def test_what_is_not_paid_for_is_named_with_its_price(staged, seconds, spendable, again):
    found = _measure(staged, seconds, spendable, again)
    assert (found.why_not, found.settings) == ("budget", {})
    assert found.seconds == pytest.approx(6 * seconds + again)
    assert staged[2] == []


def test_what_was_begun_is_finished_whatever_it_takes(staged):
    _measure(staged, 1.0)
    assert _measure(staged, 1e6, spendable=0.0) == Insight()
    assert len(staged[2]) == 2


def test_a_failure_at_the_end_leaves_what_was_confirmed(staged, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(inner.inside, "insight", fails)
    assert _measure(staged, 1.0) == Insight(why_not="failed")
    assert "out of luck" in staged[0].listener.sentences[0]


# Side by side.


def features(needed, seeds=(1, 2, 3), **changes):
    runs = tuple(
        Kept(seed, (0, 1, 2), (0.5, 0.7, 0.9), (0.5, 0.6, 0.9), n, n, active=0.4, weights=0.2)
        for seed, n in zip(seeds, needed, strict=True)
    )
    known = [n for n in needed if n is not None]
    mean = Estimate(float(np.mean(known)), 0, 9, len(known), "units") if known else None
    return dataclasses.replace(
        Features("body.4", 9, "ablation", runs, mean, mean, "table", (), 90, 60, 3), **changes
    )


def use(one, two):
    return feature_use(Insight({"today": one, "recommended": two}), "today", "recommended", "%")


def test_units_needed_are_paired_by_seed_whatever_the_order():
    found = use(features((5, 6, 8)), features((4, 7, 5), seeds=(2, 3, 1)))
    gap = paired_difference(np.array([5, 6, 8.0]), np.array([5, 4, 7.0]), maximise=False)
    assert found.difference == dataclasses.replace(gap.estimate, unit="units")
    assert (found.fewer, found.more, found.pairs) == (2, 0, 3)
    assert (found.layer, found.units, found.today.needed.value) == (
        "body.4",
        9,
        pytest.approx(19 / 3),
    )


def test_pairs_in_which_a_training_needs_nothing_are_left_out():
    found = use(features((5, None, 8)), features((4, 3, None)))
    assert (found.pairs, found.fewer) == (1, 1)
    assert use(features((None,) * 3), features((4, 3, 2))).difference is None


def test_curves_are_means_over_trainings_with_their_range():
    one = features((5, 6, 7))
    runs = tuple(
        dataclasses.replace(run, metric=(0.5, value, 0.9))
        for run, value in zip(one.runs, (0.6, 0.7, 0.8), strict=True)
    )
    point = use(dataclasses.replace(one, runs=runs), one).today.curve[1]
    assert (point.count, point.metric.n) == (1, 3)
    assert point.metric.value == pytest.approx(0.7)
    assert point.metric.low < 0.6 < 0.8 < point.metric.high


def test_a_training_whose_predictions_are_no_numbers_leaves_a_gap():
    one = features((5, 6, 7))
    lost = dataclasses.replace(one.runs[0], metric=(0.5, math.nan, 0.9))
    found = use(dataclasses.replace(one, runs=(lost, *one.runs[1:])), one)
    assert math.isnan(found.today.curve[1].metric.value)
    assert found.today.curve[2].metric.value == pytest.approx(0.9)


def test_why_it_was_not_measured_is_kept():
    found = feature_use(Insight(why_not="budget", seconds=12.0), "today", "recommended")
    assert (found.why_not, found.seconds, found.today) == ("budget", 12.0, None)


def test_sharpness_is_measured_by_the_function_that_is_given(prepared):
    reader = reader_of(prepared, prepared.baseline)
    states = trained(prepared)
    found = insight(reader, {"today": states}, sharpness=lambda objective: 7.0)
    assert [run.sharpness for run in found.settings["today"].runs] == [7.0, 7.0]
    assert use(found.settings["today"], found.settings["today"]).today.sharpness.value == 7.0
    without = insight(reader, {"today": states}).settings["today"]
    assert use(without, without).today.sharpness is None
    # As plain values: no NaN equals another.
    assert to_plain(from_plain(Insight, to_plain(found))) == to_plain(found)


def trained(prepared):
    configs = [prepared.baseline.replace(seed=seed, samples=64) for seed in (1, 2)]
    with Engine(prepared, None, workers=0) as engine:
        _, states = engine.train(configs, Job((0, 64), keep_end=True))
    return dict(zip((1, 2), states, strict=True))


def test_the_sharpness_of_a_trained_model_is_that_of_its_dense_hessian(prepared):
    objective = prepared.objective(3).eval()
    examples = Examples.drawn(prepared.train, CURVED_EXAMPLES, 0)
    like = next(objective.parameters())
    (batch,) = examples.batches(slice(None), CURVED_EXAMPLES, like)
    names = [name for name, _ in objective.named_parameters()]

    def loss(*values):
        losses, weights = functional_call(
            objective, dict(zip(names, values, strict=True)), (batch,)
        )
        return (losses * weights).sum() / weights.sum()

    values = tuple(p.detach() for p in objective.parameters())
    blocks = torch.autograd.functional.hessian(loss, values)
    sizes = [v.numel() for v in values]
    dense = torch.cat(
        [
            torch.cat([b.reshape(n, m) for b, m in zip(row, sizes, strict=True)], 1)
            for row, n in zip(blocks, sizes, strict=True)
        ]
    )
    found = curvature_of(prepared)(objective)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-2)


def test_a_search_that_did_not_converge_gives_no_sharpness(prepared, monkeypatch):
    found = {"sharpness.eigenvalue_1": 5.0, "sharpness.converged": 1.0}
    monkeypatch.setattr(inside, "sharpness_probe", lambda *given: lambda *asked: found)
    assert curvature_of(prepared)(prepared.objective(0)) == 5.0
    found["sharpness.converged"] = 0.0
    assert math.isnan(curvature_of(prepared)(prepared.objective(0)))


def test_sharpness_is_left_out_where_it_costs_more_than_a_tenth(prepared, monkeypatch):
    assert inside.curvature_seconds(prepared) > 0
    free = dataclasses.replace(OPTIONS, budget=None)
    assert inner.look(prepared, free).curvature is not None
    monkeypatch.setattr(inside, "curvature_seconds", lambda prepared: 1e6)
    found = inner.look(prepared, OPTIONS)
    assert found.curvature is None
    assert found.reader is not None


def test_a_model_without_second_derivatives_has_features_and_no_sharpness():
    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(Cut.apply(torch.tanh(self.body(x))))

    task = dataclasses.replace(tiny.task(), model=Net)
    found = inner.look(prepare(task, device="cpu"), OPTIONS)
    assert found.reader is not None
    assert found.curvature is None


def test_the_metric_with_all_units_is_that_of_the_run(prepared):
    config = prepared.baseline.replace(seed=1, samples=640)
    with Engine(prepared, None, workers=0) as engine:
        trace, states = engine.train([config], Job((0, 640), keep_end=True))
    found = insight(reader_of(prepared, config), {"today": {1: states[0]}})
    whole = found.settings["today"].runs[0].metric[-1]
    assert whole == pytest.approx(trace.runs[0].series["metric"].values[-1])


def test_settings_all_of_whose_runs_diverged_are_said_to_be(prepared):
    found = insight(reader_of(prepared, prepared.baseline), {"today": {}, "recommended": {}})
    assert found == Insight(why_not="diverged")


def test_a_preference_for_few_features_needs_some(tmp_path):
    task = dataclasses.replace(tiny.task(), model=linear)
    with pytest.raises(InvalidValueError, match="`prefer` must be repeatable or left out"):
        advise(task, prefer="sparse", out=tmp_path, device="cpu")
    assert not (tmp_path / "plan.json").exists()


def test_names_of_columns_are_checked_before_anything_is_trained(tmp_path):
    task = dataclasses.replace(tiny.task(), columns=("temperature",))
    with pytest.raises(InvalidValueError, match="`columns` must be 8 names"):
        advise(task, out=tmp_path, device="cpu")
    assert not (tmp_path / "plan.json").exists()


# From end to end.


@pytest.fixture(scope="module")
def _no_workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_platform, "available_cores", lambda: 1)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_no_workers")
def test_an_advice_measures_it_unasked_and_the_page_is_made_again_from_the_records(tmp_path):
    advice = advise(
        tiny.task(),
        out=tmp_path,
        device="cpu",
        budget=600.0,
        seeds=3,
        confirm_seeds=4,
        batch_sizes=[16, 64],
        prefer="sparse",
    )
    found = advice.features
    assert (found.why_not, found.units, found.pairs) == ("", 16, 4)
    assert found.today.needed.n == found.recommended.needed.n == 4
    assert again(tmp_path, None, (None, None, None)).features == found
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "internal features the decision rests on" in page
    chosen = json.loads((tmp_path / "plan.json").read_text())["stages"]["C chosen"]
    assert chosen["prefer"] == "sparse"
    assert set(chosen["features needed"]) <= {"0", "1", "2", "3"}


@pytest.mark.slow
@pytest.mark.usefixtures("_no_workers")
def test_killed_in_the_middle_it_ends_with_the_same_numbers(prepared, tmp_path):
    options = Options(budget=600.0, seeds=3, confirm_seeds=4, batch_sizes=(16, 64), growing=False)
    first = run_stages(prepared, options, tmp_path, workers=0).records
    (tmp_path / "features.json").unlink()
    made.unfinished(tmp_path)
    second = run_stages(prepared, options, tmp_path, resume=True, workers=0).records
    assert second.insight == first.insight
    assert torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.usefixtures("_no_workers")
def test_compare_has_columns_for_it_if_asked(tmp_path):
    given = {"batch_sizes": [16], "learning_rates": [0.05, 0.1], "seeds": 2, "device": "cpu"}
    given |= {"samples": 1024, "out": tmp_path}
    found = compare(tiny.task(), **given, features=True)
    assert list(found.features) == [one.setting.id for one in found.settings[1:]]
    assert [len(row) for row in found.feature_rows()] == [6, 6, 6]
    assert "Internal features that decisions rest on, of the 16 of 1" in str(found)
    page = (tmp_path / "compare.html").read_text("utf-8")
    assert 'id="features"' in page
    assert "必要な特徴の数" in page
    kept = from_plain(CompareReport, json.loads((tmp_path / "compare.json").read_text()))
    assert kept.features == found.features
    assert compare(tiny.task(), **given, features=True, resume=True).features == found.features


def test_compare_refuses_it_where_there_is_nothing_to_count(tmp_path):
    task = dataclasses.replace(tiny.task(), model=linear)
    with pytest.raises(InvalidValueError, match="`features` must be left out for this task"):
        compare(task, batch_sizes=[16], features=True, device="cpu", out=tmp_path)
