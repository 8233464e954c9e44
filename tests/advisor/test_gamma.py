"""γ in an advice: its law, its price, its search and pilot, and what is said of it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from batchlab import _platform
from batchlab.advisor import answer, evidence, screen, strengthening
from batchlab.advisor.advise import run_stages
from batchlab.advisor.assemble import assemble
from batchlab.advisor.confirm import CHOOSING, plan_confirmation
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.options import Options
from batchlab.advisor.pilot import BUDGET
from batchlab.advisor.prefer import disagreement, features_needed, flatness
from batchlab.advisor.record import MetricInfo, Reason, Strengthening, Verdict
from batchlab.advisor.reusing import SEEDS as REUSE_SEEDS
from batchlab.advisor.reusing import TUNING as REUSE_TUNING
from batchlab.advisor.session import Session, Silent
from batchlab.advisor.stages import (
    Confirmation,
    Strengths,
    Tuned,
    choice_of,
    gamma_of,
    reused,
    strengthened,
)
from batchlab.advisor.strength import depth, factor, why_not
from batchlab.advisor.tuning import propose, search, space
from batchlab.app.advise import APPLIED, _check_wrapped, advise, dry_run, options_from
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, Series
from batchlab.engine.trace import Trace
from batchlab.errors import InvalidValueError, ResultError
from batchlab.measure import plain
from batchlab.measure.fit import FitResult
from batchlab.measure.insight import insight, reader_of
from batchlab.patching.snippets import snippet
from batchlab.report import strengthening as words
from batchlab.report import summary
from batchlab.report.page import render
from batchlab.tasks import prepare
from batchlab.types import Estimate, Status, from_plain, to_plain
from tests.advisor import made, tiny

RICH = strengthened(32, 0.1, 10.0)
SLOWER = 1.5
WRAPPED = {32: SLOWER * made.RATES[32], 128: SLOWER * made.RATES[128]}
METRIC = MetricInfo("accuracy", True, "%")


def timed(**given):
    """A machine that was timed with γ and without."""
    return replace(made.machine(made.RATES), wrapped=made.machine(WRAPPED).blocks, **given)


# ------------------------------------------------------------------ the law


def given(rule="sgd", layers=3, gamma=None):
    baseline = RunConfig(
        rule=rule, batch_size=32, learning_rate=0.1, samples="2ep", gamma=gamma
    ).resolved(1000)
    return space.Given(baseline, (32, 64), layers)


@pytest.mark.parametrize(
    ("rule", "gamma", "rate"),
    [
        ("sgd", 10.0, 0.1 * 10 ** (2 / 3)),
        ("sgd", 0.1, 0.001),
        ("adam", 10.0, 0.1 * 10 ** (1 / 3)),
        ("sgd", 1.0, 0.1),
        ("sgd", None, 0.1),
    ],
)
def test_the_rate_of_the_search_is_that_of_the_model_as_it_is_and_follows_the_law(
    rule, gamma, rate
):
    known = given(rule)
    axes = space.space(("learning_rate", "gamma"), known)
    found = space.choice(axes, {"learning_rate": 0.1, "gamma": gamma}, known)
    assert found[1] == pytest.approx(rate, rel=1e-3)
    assert gamma_of(found) == gamma


def test_around_a_gamma_of_today_the_law_goes_from_it():
    known = given(gamma=10.0)
    axes = space.space(("gamma",), known)
    assert space.choice(axes, {"gamma": 10.0}, known) == (32, 0.1)
    assert space.choice(axes, {"gamma": 1.0}, known)[1] == pytest.approx(0.1 / 10 ** (2 / 3), 1e-3)
    assert None not in axes[0].values


def test_gammas_are_in_order_and_the_model_as_it_is_lies_beside_one():
    (axis,) = space.space(("gamma",), given())
    assert axis.values == (0.1, 0.3, None, 1.0, 3.0, 10.0, 30.0)
    assert [axis.value(axis.coordinate(v)) for v in axis.values] == list(axis.values)


def test_layers_are_counted_of_the_task():
    assert depth(prepare(tiny.task(), device="cpu")) == 2
    assert factor(100.0, 2, "sgd") == pytest.approx(100.0)


def test_beside_a_lead_with_gamma_every_sibling_has_one():
    axes = space.space(("learning_rate", "gamma"), given())
    for seed in range(4):
        asked = propose.propose(axes, [], leads=2, siblings=3, seed=seed)
        assert len(asked) == 6
        for stack in (asked[:3], asked[3:]):
            assert len({one["gamma"] is None for one in stack}) == 1


# ------------------------------------------------------------------ models that cannot have one


class Labelled(nn.Module):
    """Its state holds a name that the wrapper needs."""

    def __init__(self):
        super().__init__()
        self.start = nn.Linear(8, 2)

    def forward(self, x):
        return self.start(x)


def refused():
    return replace(tiny.task(), model=Labelled)


def test_a_model_that_cannot_have_a_gamma_is_told_from_one_that_can():
    assert why_not(prepare(tiny.task(), device="cpu")) == ""
    assert "without gamma or start" in why_not(prepare(refused(), device="cpu"))


def test_all_leaves_gamma_out_of_a_model_that_cannot_and_naming_it_is_refused():
    def cannot():
        return why_not(prepare(refused(), device="cpu"))

    names, why = space.names_in(("all",), "sgd", cannot)
    assert "gamma" not in names
    assert why
    with pytest.raises(InvalidValueError, match="`tune` must be without gamma for this task"):
        space.names_in(("gamma",), "sgd", cannot)
    able = space.names_in(("all",), "sgd", lambda: why_not(prepare(tiny.task(), device="cpu")))
    assert able[0][-1] == "gamma"


def test_whether_a_model_can_have_a_gamma_is_tried_once_in_an_advice(monkeypatch):
    asked = []

    def why(prepared):
        asked.append(prepared)
        return "it cannot"

    monkeypatch.setattr("batchlab.advisor.strength.why_not", why)
    piloted = made.session(options=Options(gammas=(2.0,)))
    assert strengthening.plan(piloted, [], math.inf).why_not == strengthening.MODEL
    strengthening.price(piloted)
    assert len(asked) == 1
    tuned = made.session(options=Options(tune=("all",)))
    assert search.price(tuned) == search.price(tuned) > 0
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"gammas": [0.0]}, "`gamma` must be a finite number above 0"),
        ({"gammas": [1.0], "tune": "gamma"}, "Add gamma to --tune"),
    ],
)
def test_gammas_that_cannot_be_asked_for_are_refused(options, match):
    with pytest.raises(InvalidValueError, match=match):
        options_from(**options)


def test_gammas_are_refused_where_the_model_cannot_have_one(tmp_path):
    with pytest.raises(InvalidValueError, match="`gammas` must be left out for this task"):
        advise(refused(), gammas=[10.0], out=tmp_path, device="cpu")


# ------------------------------------------------------------------ the price


def test_an_update_with_gamma_has_a_price_of_its_own():
    yardstick, samples = Yardstick(timed(), None), np.array([3200.0])
    assert yardstick.measure("time", samples, 32)[0] == pytest.approx(0.1)
    assert yardstick.measure("time", samples, RICH)[0] == pytest.approx(SLOWER * 0.1)
    assert yardstick.measure("time", samples, reused(32, 0.1, 2))[0] == pytest.approx(0.19)
    assert yardstick.slower(32).value == pytest.approx(SLOWER)
    # Where today's model has a γ, its own blocks are with one.
    assert Yardstick(made.machine(made.RATES), None).measure("time", samples, RICH)[0] == (
        pytest.approx(0.1)
    )


def test_timing_of_both_counts_in_the_range_of_a_ratio_and_cancels_only_where_it_is_shared():
    scattered = made.machine({32: [0.001, 0.002, 0.001, 0.002]})
    yardstick = Yardstick(replace(scattered, wrapped=made.machine({32: 0.0015}).blocks), None)
    samples = np.array([3200.0, 3300.0, 3400.0])

    def wide(pace):
        found = yardstick.compare("time", (samples, 32), (samples, pace)).estimate
        return math.log(found.high / found.low)

    assert wide(RICH) > 0.3
    assert wide(Tuned(32, 0.1, (("momentum", 0.9),))) < 0.01


def test_a_run_with_gamma_is_priced_by_blocks_with_gamma():
    session = made.session()
    plain = session.run_seconds(32, 3200)
    assert session.run_seconds(RICH, 3200) == plain
    session.stopwatch.wrapped.update(made.machine(WRAPPED).blocks)
    assert session.run_seconds(RICH, 3200) == pytest.approx(SLOWER * plain)
    assert session.run_seconds(32, 3200) == plain


def test_what_is_timed_is_the_model_with_gamma():
    prepared = prepare(tiny.task(), device="cpu")
    with Engine(prepared, None, workers=0) as engine:
        session = Session(prepared, Options(), engine, Silent(), made.Stopwatch(prepared, 1))
        session.visit_all([(32, 0.1), strengthened(16, 0.1, 3.0)])
    assert set(session.stopwatch.blocks) == {"16", "32"}
    assert set(session.machine().wrapped) == {"16"}


# ------------------------------------------------------------------ what is said


TODAY_AT, RICH_AT = (6000, 6500, 7000, 6250, 6750, 6500), (2000, 2250, 2250, 2000, 2000, 2250)


def confirmed(rich_at=RICH_AT):
    curves = made.confirmation(TODAY_AT, rich_at, chosen=RICH[:2])
    last = [replace(c, others=RICH.others) for c in curves.choosing[2:]]
    return replace(
        curves,
        choosing=(*curves.choosing[:2], *last),
        recommended=tuple(replace(c, others=RICH.others) for c in curves.recommended),
        finalists=(RICH,),
        chosen=RICH,
    )


def view(rich_at=RICH_AT):
    record = confirmed(rich_at)
    pilot = Strengths(samples=100, curves=record.choosing, best=(tuple(RICH),))
    return made.view(machine=timed(), confirmation=record, strengths=pilot)


def test_a_gamma_that_reaches_the_goal_in_a_third_of_the_samples_is_advised_at_its_price():
    seen = view()
    row = answer.comparisons(seen)[0]
    before, after = (np.array(at) + 500.0 for at in (TODAY_AT, RICH_AT))
    assert row.difference.value == pytest.approx(
        math.exp(np.log(before / after).mean()) / SLOWER, rel=1e-9
    )
    assert answer.verdict(seen) is Verdict.CHANGE
    assert [(c.name, c.today, c.recommended) for c in answer.changes(seen)] == [
        ("gamma", None, 10.0)
    ]
    assert answer.batch_only(seen) is None


def test_a_gamma_that_saves_less_than_it_costs_is_not_advised():
    """A fifth fewer samples at one and a half times the price; at no price it would be advised."""
    fewer = tuple(round(0.8 * at / 250) * 250 for at in TODAY_AT)
    seen = view(fewer)
    assert answer.verdict(seen) is not Verdict.CHANGE
    free = replace(seen.records, machine=made.machine(made.RATES))
    assert answer.comparisons(replace(seen, records=free))[0].difference.value > 1
    assert answer.comparisons(seen)[0].difference.value < 1


def test_the_candidate_is_named_and_its_update_has_its_own_price():
    one = next(c for c in evidence.candidates(view()) if c.reason is Reason.STRENGTHENED)
    assert one.setting.id == "B32-lr0.1-γ10"
    assert one.seconds_per_update.value == pytest.approx(WRAPPED[32])
    last = [p for p in evidence.curves(view()) if p.id != "today"][-1]
    assert last.seconds == pytest.approx(made.SAMPLES / 32 * WRAPPED[32])


def test_a_machine_without_times_of_gamma_is_refused_with_the_command_that_measures_them():
    seen = view()
    _check_wrapped(seen.records, "gpu")
    untimed = replace(seen.records, machine=made.machine(made.RATES))
    with pytest.raises(ResultError, match="batchlab fit TASK --with-gamma --out gpu"):
        _check_wrapped(untimed, "gpu")
    plain = replace(untimed, confirmation=made.confirmation(TODAY_AT, TODAY_AT))
    _check_wrapped(plain, "gpu")


def test_what_is_told_is_whether_gamma_pays():
    found = answer.strengthening(view())
    assert (found.setting.gamma, found.rival.id, found.tried) == (10.0, "today", 1)
    assert found.slower.value == pytest.approx(SLOWER)
    told = words.title(found, METRIC)
    assert "γ pays here: with batch size 32, learning rate 0.1, γ = 10" in told.en
    assert "効果があります" in told.ja


@pytest.mark.parametrize(
    ("low", "high", "pays", "en", "ja"),
    [
        (0.7, 1.2, False, "changes nothing that these repeats would show", "違いはありません"),
        (1.2, 1.5, False, "γ harms here", "逆効果"),
        (0.5, 0.7, True, "γ pays here", "効果があります"),
    ],
)
def test_the_range_decides_what_is_said(low, high, pays, en, ja):
    known = answer.strengthening(view())
    gap = Estimate(math.sqrt(low * high), low, high, 5)
    told = words.title(replace(known, difference=gap, pays=pays), METRIC)
    assert en in told.en
    assert ja in told.ja


@pytest.mark.parametrize("code", ["model", "budget", "too short", "failed", "behind"])
def test_why_it_is_not_known_is_said_in_both_languages(code):
    told = words.title(Strengthening(code, seconds=90.0), METRIC)
    assert "γ" in told.en
    assert "γ" in told.ja


def test_the_first_screen_names_the_change_and_what_a_whole_training_takes():
    seen = view()
    advice = assemble(seen.records, seen.options, seen.facts)
    told = summary(advice)
    assert "Change one setting: feature-learning strength γ none → 10." in told
    assert "trained to the end it is 0.67× as fast" in told
    page = render(advice)
    assert "特徴学習の強さγをなしから10へ" in page
    assert "An update with γ takes 1.5× as long" in page
    assert "γ changes nothing in accuracy that these repeats would show" in page


def test_the_lines_to_write_wrap_the_model():
    one = view().setting(RICH)
    for kind in ("pytorch", "lightning", "huggingface"):
        first = snippet(kind, one, None)[0]
        assert "model = batchlab.FeatureStrength(" in first
        assert "model, gamma=10)" in first
    assert "FeatureStrength" not in "".join(snippet("pytorch", view().setting(made.TODAY), None))


def test_a_record_with_gamma_survives_the_file():
    read = from_plain(Confirmation, json.loads(json.dumps(to_plain(confirmed()))))
    assert read.choice == RICH
    known = answer.strengthening(view())
    assert from_plain(Strengthening, json.loads(json.dumps(to_plain(known)))) == known


@pytest.mark.parametrize(
    ("options", "today", "tried"),
    [
        (Options(), None, None),
        (Options(gammas=(8.0,)), None, 1.0),
        (Options(gammas=(8.0,)), 2.0, 2.0),
        (Options(tune=("gamma",)), None, 1.0),
        (Options(tune=("all",)), None, 1.0),
        (Options(tune=("momentum",)), None, None),
    ],
)
def test_what_fits_fits_with_the_frozen_copy_where_a_gamma_is_tried(
    monkeypatch, options, today, tried
):
    asked_for = []
    found = FitResult(32, "data set", 0, "", 0, ())
    monkeypatch.setattr(screen, "fit", lambda _, config, **__: asked_for.append(config) or found)
    session = made.session(options=options)
    baseline = session.baseline.replace(gamma=today)
    session.prepared = replace(session.prepared, baseline=baseline)
    assert screen.measure_fit(session) is found
    assert asked_for == [baseline.replace(gamma=tried)]


# ------------------------------------------------------------------ the pilot


def asked(gammas=(0.1, 10.0), samples=made.SAMPLES):
    session = made.session(options=Options(gammas=gammas), samples=samples)
    session.stopwatch.wrapped.update(made.machine(WRAPPED).blocks)
    return session


def planned(seconds=math.inf, **given):
    return strengthening.plan(asked(**given), [], seconds)


def test_a_pilot_tries_every_gamma_around_its_law():
    plan = planned()
    assert [(gamma_of(c), c[1]) for c in plan.tried()] == [
        (0.1, pytest.approx(0.1 * 0.01 * times)) for times in strengthening.RATES
    ] + [(10.0, pytest.approx(0.1 * 10.0 * times)) for times in strengthening.RATES]


def test_a_pilot_that_is_not_paid_for_is_named_with_its_price_and_a_shorter_one_is_taken():
    cost = strengthening.seconds_of(asked(), planned())
    # Three runs of today's, six with γ and two more of the best.
    assert cost == pytest.approx((3 + 8 * SLOWER) * made.SAMPLES / 32 * made.RATES[32])
    assert planned(0.6 * cost).samples == made.SAMPLES // 2
    left = planned(0.1 * cost)
    assert (left.why_not, left.seconds) == (BUDGET, pytest.approx(cost / 4))
    assert planned(samples=200).why_not == "too short"


def test_tuning_seeds_are_nobody_elses():
    seeds = planned().seeds
    assert min(seeds) >= REUSE_TUNING + REUSE_SEEDS
    assert max(seeds) < CHOOSING


def simulated(config, moments):
    """The larger γ learns faster at the law's rate, and not at other rates."""
    at = np.array(moments)
    speed = 1.0 if config.gamma is None else 0.5 + (config.gamma == 10.0)
    usual = config.gamma is None or config.learning_rate == pytest.approx(
        0.1 * factor(config.gamma, 2, "sgd")
    )
    losses = np.exp(-speed * at / 4000) * (1 if usual else 1.05)
    series = {"loss": Series(at, at, losses), "metric": Series(at, at, 1 - losses)}
    last = int(at[-1])
    return RunResult(config, Status.OK, "", last, last, last, 0.0, "loop", 1, series)


def test_the_pilot_hands_on_the_best_gamma_at_its_best_rate(monkeypatch):
    trained = []

    def train(_self, what, configs, job, starts=None):
        trained.append(configs)
        return Trace(tuple(simulated(c, job.evaluate_at) for c in configs)), [None] * len(configs)

    monkeypatch.setattr(Session, "train", train)
    monkeypatch.setattr(Session, "visit", lambda *_, **__: None)
    session, plan = asked(), planned()
    found = strengthening.run(session, plan, lambda: Yardstick(timed(), None))
    assert [choice_of(one) for one in found.best] == [strengthened(32, 1.0, 10.0)]
    assert {c.seed for c in trained[1]} == {70}
    assert {(c.gamma, c.seed) for c in trained[2]} == {(10.0, 71), (10.0, 72)}
    read = from_plain(Strengths, json.loads(json.dumps(to_plain(found))))
    assert list(map(choice_of, read.best)) == list(map(choice_of, found.best))
    best, echo = tuple(map(choice_of, found.best)), (reused(32, 0.1, 4),)
    order = plan_confirmation(session, [], math.inf, (), echo, best)
    assert order.pairs() == (*best, *echo)


def test_a_stacked_search_with_gamma_is_the_loop_run_by_run():
    prepared = prepare(tiny.task(), device="cpu")
    baseline = prepared.baseline.replace(samples=640)
    configs = [
        baseline.replace(gamma=gamma, learning_rate=0.05 * factor(gamma, 2, "sgd"))
        for gamma in (0.1, 1.0, 10.0)
    ]
    job, ends = Job((0, 320, 640)), {}
    for executor in ("stacked", "loop"):
        with Engine(prepared, None, workers=0, executor=executor) as engine:
            assert len(engine.plan(configs, job)) == (1 if executor == "stacked" else 3)
            runs = engine.train(configs, job)[0].runs
        ends[executor] = [run.series["loss"].values for run in runs]
    np.testing.assert_allclose(ends["stacked"], ends["loop"], rtol=1e-4)
    # The twin: another γ is another run.
    assert abs(ends["loop"][0][-1] - ends["loop"][2][-1]) > 1e-3


@pytest.mark.slow
def test_trained_models_with_gamma_are_read_with_it():
    prepared = prepare(tiny.task(), device="cpu")
    configs = [prepared.baseline.replace(samples=640, gamma=gamma) for gamma in (None, 10.0)]
    with Engine(prepared, None, workers=0) as engine:
        states = engine.train(configs, Job((0, 640), keep_end=True))[1]
        session = Session(prepared, Options(), engine, Silent(), made.Stopwatch(prepared, 1))
    plain_reader, own = (reader_of(prepared, config) for config in configs)
    ends = {"today": {1: states[0]}, "recommended": {1: states[1]}}
    found = insight(plain_reader, ends, others={"recommended": own})
    assert set(found.settings) == {"today", "recommended"}
    for measured in (features_needed, flatness, disagreement):
        assert set(measured(session, {"0": [states[1]] * 3}, {"0": 10.0})) == {"0"}
    # The twin: read as the model as it is, nothing fits.
    with pytest.raises(KeyError):
        insight(plain_reader, ends)


# ------------------------------------------------------------------ whole


@pytest.fixture
def _alone(monkeypatch):
    monkeypatch.setattr(_platform, "available_cores", lambda: 1)
    monkeypatch.setattr(search, "MOST_GENERATIONS", 2)


def test_the_price_list_names_the_pilot():
    text = str(dry_run(tiny.task(), options_from(gammas=[0.1, 10.0], budget="60s")))
    assert "stage S, feature-learning strengths: about" in text


@pytest.mark.slow
@pytest.mark.usefixtures("_alone")
def test_an_advice_tries_gammas_only_where_asked_resumes_and_reports_them(tmp_path):
    given = {
        "budget": 900, "seeds": 2, "confirm_seeds": 3, "batch_sizes": [32], "growing": False,
        "device": "cpu", "listener": Silent(),
    }  # fmt: skip
    found = advise(tiny.task(), gammas=[10.0, 0.1], out=tmp_path / "asked", **given)
    assert found.strengthening.tried == 6
    stages = json.loads((tmp_path / "asked" / "plan.json").read_text())["stages"]
    assert [name for name in stages if name in "ABSC"] == ["A", "B", "S", "C"]
    assert "--gammas 0.1 10" in found.command
    page = (tmp_path / "asked" / "report.html").read_text()
    title = words.title(found.strengthening, found.metric)
    assert title.en in page
    assert title.ja in page
    again = advise(tiny.task(), gammas=[10.0, 0.1], out=tmp_path / "asked", resume=True, **given)
    assert again.strengthening == found.strengthening


@pytest.mark.slow
@pytest.mark.usefixtures("_alone")
def test_a_search_with_gamma_is_priced_resumed_and_confirmed(tmp_path):
    prepared = prepare(tiny.task(), device="cpu")
    options = Options(budget=900.0, seeds=2, confirm_seeds=3, tune=("learning_rate", "gamma"))
    outcome = run_stages(prepared, options, tmp_path, workers=0, listener=Silent())
    plan = json.loads((tmp_path / "plan.json").read_text())["stages"]["T"]
    assert plan["depth"] == 2
    assert plan["wrapped_rates"]["32"] > plan["rates"]["32"]
    tuning = outcome.records.tuning
    assert any(trial.values["gamma"] is not None for trial in tuning.trials)
    assert outcome.records.machine.wrapped
    again = run_stages(prepared, options, tmp_path, workers=0, listener=Silent(), resume=True)
    assert again.records.tuning.trials == tuning.trials
    best = [list(map(choice_of, one.records.tuning.best)) for one in (outcome, again)]
    assert best[0] == best[1]


def test_apply_trains_with_the_gamma_of_the_advice():
    seen = view()
    params = assemble(seen.records, seen.options, seen.facts).params
    config = seen.facts.baseline.replace(**{name: params[name] for name in APPLIED})
    assert config.gamma == 10.0
    text = plain.apply_script(config, "task.py:task", examples=made.EXAMPLES)
    assert "GAMMA = 10.0" in text
    assert "GAMMA)" in text
