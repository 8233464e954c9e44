"""Batches that grow: the pilot on simulated runs, who joins the finalists, what is told of it."""

import json
import math
import runpy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from batchlab import _platform
from batchlab.advisor import answer, confirm, evidence, pilot
from batchlab.advisor.advise import Notes, _Stages, run_stages
from batchlab.advisor.confirm import CHOOSING, FRESH, ConfirmationPlan, plan_confirmation
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Projected, Yardstick
from batchlab.advisor.options import Options
from batchlab.advisor.pilot import KEPT, SEEDS, TUNING, PilotPlan, burden, plan_pilot, run_pilot
from batchlab.advisor.record import Growing, MetricInfo, Reason, Verdict
from batchlab.advisor.session import Session, Silent
from batchlab.advisor.stages import Confirmation, Grown, Machine, Pilot, choice_of
from batchlab.advisor.view import View, bare_facts
from batchlab.app.advice import Advice
from batchlab.app.advise import advise
from batchlab.engine import RunResult, Series
from batchlab.engine.trace import Trace
from batchlab.measure import plain
from batchlab.measure.fit import FitResult
from batchlab.measure.insight import Insight
from batchlab.patching.snippets import snippet
from batchlab.report import growing as words
from batchlab.schedules import batch_schedule
from batchlab.stats import paired_log_ratio
from batchlab.tasks import prepare
from batchlab.tasks.loading import found_at
from batchlab.types import Status, from_plain, to_plain
from tests.advisor import made, tiny

EXAMPLES = 510
"""Of the tiny task; a quarter of them are 127."""
NOISE = 4.0
PER_SAMPLE = {size: size / 1000 for size in (4, 8, 16, 32, 64)}
"""Seconds per update where the computer works at full speed from the smallest batch on."""
PER_UPDATE = dict.fromkeys(PER_SAMPLE, 0.001)
"""Seconds per update where an update takes as long whatever its batch."""


def fits(largest):
    """A finder's answer."""
    return FitResult(largest, "memory", 0, "", 0, ())


def descended(config, moments):
    """Expected loss of a noisy quadratic, e ← (1−η)²e + η²σ²/B: exact, nothing is drawn."""
    schedule = batch_schedule(config.batch_size).resolve(EXAMPLES)
    share, loss, values, due = config.multiplier(EXAMPLES), 1.0, [1.0], list(moments[1:])
    for first, size in schedule.updates(0, config.samples):
        rate = config.learning_rate * share(first)
        loss = (1 - rate) ** 2 * loss + rate**2 * NOISE / size
        while due and first + size >= due[0]:
            values.append(loss)
            due.pop(0)
    return values + [loss] * len(due)


def simulated(config, moments):
    """A run that descends as the equation says."""
    losses = np.array(descended(config, moments))
    at = np.array(moments)
    series = {
        "loss": Series(at, at, losses),
        "metric": Series(at, at, 1 - np.minimum(losses, 1.0)),
    }
    last = int(at[-1])
    return RunResult(config, Status.OK, "", last, last, last, 0.0, "loop", 1, series)


@pytest.fixture
def session(monkeypatch):
    """``(seconds per update, schedule) → session`` that trains by the equation."""
    trained = []

    def train(_self, what, configs, job, starts=None):
        trained.append((what, list(configs)))
        runs = tuple(simulated(config, job.evaluate_at) for config in configs)
        return Trace(runs), [None] * len(runs)

    monkeypatch.setattr(Session, "train", train)
    monkeypatch.setattr(Session, "visit", lambda *_: None)
    monkeypatch.setattr(pilot, "noise_probe", lambda *_: None)

    def make(rates=PER_SAMPLE, schedule="constant", **given):
        found = made.session(rates=rates, samples=20 * EXAMPLES, **given)
        recipe = found.baseline.replace(batch_size=8, learning_rate=0.1, lr_schedule=schedule)
        found.prepared = replace(found.prepared, baseline=recipe)
        found.fit = fits(64)
        return SimpleNamespace(session=found, trained=trained)

    return make


def yard(session):
    machine = Machine(None, session.stopwatch.blocks, 1, "cpu", "test", 2)
    return Yardstick(machine, session.options.price, 1, EXAMPLES)


PLAN = PilotPlan(8, 0.1, 64, 20 * EXAMPLES, (50, 51, 52), (0.0, 0.5, 1.0), ("constant",))


# ------------------------------------------------------------------ what is tried


def test_every_rule_is_tried_with_every_growth_of_the_rate_and_both_schedules(session):
    made_ = session(schedule="linear")
    plan = replace(PLAN, schedules=("linear", "constant"))
    found = run_pilot(made_.session, plan, lambda: yard(made_.session))
    (what, first) = made_.trained[1]
    assert what == "batches that grow"
    settings = {(c.batch_size, c.rate_growth, c.lr_schedule) for c in first}
    assert len(settings) == len(first) == len(found.policies) * 3 * 2
    assert {name for names in found.policies.values() for name in names} >= {
        "fixed ×2",
        "fixed ×4",
    }
    assert {c.seed for c in first} == {50}


def test_only_the_best_are_repeated_and_on_tuning_seeds_alone(session):
    made_ = session()
    found = run_pilot(made_.session, PLAN, lambda: yard(made_.session))
    again = next(configs for what, configs in made_.trained if "again" in what)
    assert len(again) == KEPT * (SEEDS - 1)
    assert {c.seed for c in found.curves} == {50, 51, 52}
    assert TUNING + SEEDS <= CHOOSING < FRESH
    assert len(found.best) == pilot.MOST
    assert not found.why_not


def test_a_shorter_pilot_has_the_same_shares_and_its_best_are_of_whole_trainings(session):
    made_ = session()
    short = replace(PLAN, samples=5 * EXAMPLES)
    found = run_pilot(made_.session, short, lambda: yard(made_.session))
    tried = {c.choice.batch_size for c in found.curves if isinstance(c.choice, Grown)}
    assert "0:8 1.25ep:16 2.5ep:32 3.75ep:64" in tried
    assert "0:8 5ep:16 10ep:32 15ep:64" in found.policies
    assert {choice_of(best).batch_size for best in found.best} <= set(found.policies)


def test_a_record_with_a_batch_that_grows_survives_the_file():
    grown = Grown("0:8 2ep:16", 0.1, 0.5, "constant")
    record = replace(
        made.confirmation((4000,) * 3, (2000,) * 3), finalists=(grown, (64, 0.2)), chosen=grown
    )
    read = from_plain(Confirmation, json.loads(json.dumps(to_plain(record))))
    assert read.choice == grown
    assert [choice_of(one) for one in read.finalists] == [grown, (64, 0.2)]
    plan = ConfirmationPlan((grown, (64, 0.2)), (100,), (1000,), True)
    assert from_plain(ConfirmationPlan, json.loads(json.dumps(to_plain(plan)))).pairs() == (
        grown,
        (64, 0.2),
    )


# ------------------------------------------------------------------ who wins, by construction


def ratio(found, session):
    """Time of the best that grows / time of today's settings, to the loss that both reach."""
    today = next(c for c in found.curves if c.batch_size == 8 and c.seed == 50)
    each = [
        burden(curve, today, yard(session), "time", True)
        for curve in found.curves
        if isinstance(curve.choice, Grown) and curve.seed == 50
    ]
    return math.exp(min(each))


def test_growing_wins_where_time_goes_with_examples_and_noise_is_what_is_left(session):
    """By the equation noise is a plateau of η·σ²/2B: with the rate falling to 0 today's settings
    get below it at the very end, a growing batch earlier.
    """
    made_ = session(PER_SAMPLE, "linear")
    found = run_pilot(
        made_.session, replace(PLAN, schedules=("linear",)), lambda: yard(made_.session)
    )
    assert ratio(found, made_.session) < 0.8


def test_growing_gains_nothing_where_the_loss_is_all_bias(session, monkeypatch):
    """Without noise every update counts alike, and a growing batch has fewer of them."""
    monkeypatch.setattr("tests.advisor.test_pilot.NOISE", 0.0)
    made_ = session(PER_SAMPLE)
    plan = replace(PLAN, learning_rate=0.001, powers=(0.0,))
    made_.session.prepared = replace(
        made_.session.prepared, baseline=made_.session.baseline.replace(learning_rate=0.001)
    )
    found = run_pilot(made_.session, plan, lambda: yard(made_.session))
    assert ratio(found, made_.session) > 1.0


def test_a_burden_is_the_log_ratio_of_times_at_the_loss_that_both_reach():
    slow = made.curve((1.0, 0.8, 0.6, 0.4, 0.2), size=32)
    fast = replace(
        made.curve((1.0, 0.6, 0.2, 0.2, 0.2)),
        batch_size="0:32 200:64",
        lr_schedule="constant",
    )
    by_hand = Yardstick(made.machine({32: 0.32, 64: 0.32}), None)
    found = burden(fast, slow, by_hand, "time", True)
    # Means of three: 0.4 is reached at 300 by the slow one, by the fast one between 100 and 200.
    level_at = pilot.samples_to(fast, 0.4)
    assert found == pytest.approx(math.log(level_at * 0.01 / 3.0))
    assert burden(slow, slow, by_hand, "time", True) == pytest.approx(0.0)


def test_a_run_that_diverged_or_barely_learnt_is_never_the_best():
    yardstick = Yardstick(made.machine(made.RATES), None)
    today = made.curve((1.0, 0.8, 0.6, 0.4, 0.2))
    assert burden(made.diverged(), today, yardstick, "time", True) == math.inf
    lazy = made.curve((1.0, 0.99, 0.98, 0.97, 0.96))
    assert burden(lazy, today, yardstick, "time", True) == math.inf


@pytest.mark.parametrize("maximise", [True, False])
def test_for_accuracy_the_end_decides_in_its_direction(maximise):
    yardstick = Yardstick(made.machine(made.RATES), None)
    today, other = (made.curve([1.0] * 5, metric=[m] * 5) for m in (0.8, 0.9))
    found = burden(other, today, yardstick, "accuracy", maximise)
    assert found == pytest.approx(-0.1 if maximise else 0.1)


# ------------------------------------------------------------------ what the budget pays for


def _row(size, fall):
    falls, today = np.array([fall] * 3), np.array([100.0] * 3)
    return Projected(size, 0.1, falls, today, paired_log_ratio(today, falls), 1.0)


ROWS = [_row(8, 100.0), _row(64, 400.0)]
SEARCHED = made.projection([], {8: 0.1, 64: 0.4})


def test_the_pilot_gets_shorter_before_it_is_left_out(session):
    found = session().session
    whole = plan_pilot(found, SEARCHED, ROWS, math.inf)
    assert (whole.first, whole.cap, whole.samples) == (8, EXAMPLES // 4, 20 * EXAMPLES)
    price = pilot.seconds_of(found, whole)
    shorter = plan_pilot(found, SEARCHED, ROWS, 0.6 * price)
    assert shorter.samples == 10 * EXAMPLES
    none = plan_pilot(found, SEARCHED, ROWS, 0.01 * price)
    assert none.why_not == "budget"
    assert 0.01 * price < none.seconds < price


def test_growing_goes_on_above_what_fits_by_accumulation(session):
    found = session().session
    found.fit = fits(20)
    assert pilot.largest(found) == EXAMPLES // 4
    plan = plan_pilot(found, SEARCHED, ROWS, math.inf)
    assert plan.cap == EXAMPLES // 4
    grown = found.of(Grown("0:8 5ep:16 10ep:64", 0.1, 0.5, "constant"), 50)
    assert (grown.batch_size, grown.micro_batch_size) == ("0:8 5ep:16 10ep:64", 16)
    assert found.of(Grown("0:8 5ep:16", 0.1, 0.5, "constant"), 50).micro_batch_size is None
    assert found.of((8, 0.1), 50).micro_batch_size is None


def test_every_batch_of_the_pilot_runs_in_passes_that_fit(session):
    made_ = session()
    made_.session.fit = fits(20)
    run_pilot(made_.session, PLAN, lambda: yard(made_.session))
    configs = [config for _, configs in made_.trained for config in configs]
    assert max(config.largest_batch for config in configs) == 64
    assert max(config.largest_pass for config in configs) <= 20


def test_an_accumulated_batch_is_timed_in_micro_batches(monkeypatch):
    """The price of the pilot comes from these blocks."""
    found, passes = made.session(), []
    found.prepared = replace(found.prepared, baseline=found.baseline.replace(batch_size=8))
    found.fit = fits(20)
    monkeypatch.setattr(plain, "accumulate", _noting(passes, plain.accumulate))
    found.visit([16, 80])
    assert {size for size in passes if size > 16} == {20}
    assert [block.batch_size for block in found.stopwatch.blocks["80"]] == [80]


def _noting(passes, accumulate):
    def noted(model, batch, *others, **named):
        passes.append(len(batch[0]))
        return accumulate(model, batch, *others, **named)

    return noted


def test_an_accumulated_batch_is_told_by_its_identity():
    fit = fits(20)
    known = made.facts(baseline=made.BASELINE.replace(batch_size=8))
    view = made.view(machine=replace(made.machine(made.RATES), fit=fit), known=known)
    found = view.setting(Grown("0:8 5ep:16 10ep:64", 0.1, 0.5, "constant"))
    assert (found.micro_batch_size, found.accum_steps, found.world_size) == (16, 4, 1)
    told = words.notes(Growing("", tried=3, setting=found))[-1]
    assert "64 = 16 × 4 × 1" in told.en
    assert "64＝マイクロバッチ16×勾配累積4×プロセス1" in told.ja
    code = "\n".join(snippet("pytorch", found, None))
    assert "micro_batch_size=16): 64 = 16 × 4 × 1" in code


def test_without_room_to_grow_nothing_is_tried_and_why_is_kept(session):
    found = session().session
    large = made.projection([], {64: 0.1})
    assert plan_pilot(found, large, [_row(64, 100.0)], math.inf).why_not == "no room"
    nothing = [_row(8, math.inf)]
    assert plan_pilot(found, SEARCHED, nothing, math.inf).why_not == "failed"
    found.fit = fits(64)
    found.prepared = replace(found.prepared, baseline=found.baseline.replace(samples=511))
    assert plan_pilot(found, SEARCHED, ROWS, math.inf).why_not == "too short"


# ------------------------------------------------------------------ the finalists and the choice

GROWN = Grown("0:32 4ep:64", 0.1, 0.5, "constant")
SECOND = Grown("0:32 2ep:64", 0.1, 0.0, "constant")


def test_the_best_that_grows_stands_behind_the_best_constant_batch():
    today, fall = np.full(3, 100.0), np.array([50.0, 60.0, 55.0])
    rows = [
        Projected(size, 0.1, k * fall, today, paired_log_ratio(today, k * fall), 1.0)
        for size, k in ((64, 1.0), (128, 1.01))
    ]
    session = made.session(rates=made.RATES)
    full = plan_confirmation(session, rows, math.inf, (GROWN, SECOND))
    assert full.pairs() == ((64, 0.1), GROWN, (128, 0.1), SECOND)
    price = confirm.seconds_of(session, replace(full, finalists=full.finalists[:2]))
    assert plan_confirmation(session, rows, price, (GROWN, SECOND)).pairs() == ((64, 0.1), GROWN)


def _chosen(constant, grown, objective="time", today=8000):
    """Arrivals of each choosing seed, in samples: the finalist, the batch that grows."""
    plan = ConfirmationPlan(((32, 0.2), GROWN), tuple(range(100, 105)), (1000,), False)
    runs = [
        *(made.run_to(today, seed=s) for s in plan.seeds),
        *(
            made.run_to(at, pair=(32, 0.2), seed=s)
            for at, s in zip(constant, plan.seeds, strict=True)
        ),
        *(
            replace(
                made.run_to(at, seed=s),
                batch_size=GROWN.batch_size,
                rate_growth=0.5,
                lr_schedule="constant",
            )
            for at, s in zip(grown, plan.seeds, strict=True)
        ),
    ]
    session = made.session(rates={32: 0.001, 64: 0.002}, options=Options(objective=objective))
    yardstick = Yardstick(made.machine({32: 0.001, 64: 0.002}), None, 1, 1000)
    return confirm._choose(session, plan, runs, 0.9, yardstick)


def test_a_batch_that_grows_is_chosen_where_it_beats_the_best_constant_one_beyond_its_range():
    assert _chosen([6000] * 5, [3000, 3250, 3000, 3250, 3000]) == (GROWN, False)
    assert _chosen([6000] * 5, [3000, 3250, 3000, 3250, 3000], "samples") == (GROWN, False)


def test_a_draw_goes_to_the_constant_batch():
    """On the mean it is faster by a tenth; by its range it might as well be slower."""
    assert _chosen([6000] * 5, [3000, 9000, 3000, 8000, 4000])[0] == (32, 0.2)


def test_today_is_a_rival_too():
    assert _chosen([6000] * 5, [5000] * 5, today=2000) == ((32, 0.2), True)


# ------------------------------------------------------------------ what is told


def _view(grown_at, constant_at=(6000,) * 5, **records):
    """Choosing runs on five seeds; the constant finalist was proved."""
    runs = [made.run_to(8000, seed=100 + i) for i in range(5)]
    runs += [made.run_to(at, pair=made.OTHER, seed=100 + i) for i, at in enumerate(constant_at)]
    runs += [
        replace(
            made.run_to(at, seed=100 + i), batch_size=GROWN.batch_size, rate_growth=0.5,
            lr_schedule="constant",
        )
        for i, at in enumerate(grown_at)
    ]  # fmt: skip
    record = replace(
        made.confirmation((8000,) * 3, (6000,) * 3),
        choosing=tuple(runs),
        finalists=(made.OTHER, GROWN),
    )
    tried = Pilot(
        policies={GROWN.batch_size: ("fixed ×2", "plateau")},
        curves=tuple(runs[-5:]),
        best=(GROWN,),
    )
    given = {"confirmation": record, "pilot": tried} | records
    return made.view(rates={32: 0.001, 64: 0.002, 128: 0.004}, **given)


def test_the_report_says_plainly_when_growing_does_not_pay():
    view = _view([7000, 6500, 7000, 6000, 7000])
    found = answer.growing(view)
    assert not found.pays
    assert found.setting.batch_size == GROWN.batch_size
    assert found.rival.id == view.id(made.OTHER)
    assert found.rules == ("fixed ×2", "plateau")
    assert found.difference.value == pytest.approx(1.09, abs=0.05)
    told = words.sentence(found, view.facts.metric)
    assert told.en.startswith("Growing the batch does not pay here: with batch size 0:32 4ep:64")
    assert "the time of batch size 128, learning rate 0.4 under your own" in told.en
    assert "(on the 5 seeds that chose both" in told.en
    assert told.ja.startswith("バッチを途中で増やしても得にはなりません")
    assert "選択に使ったシード5個" in told.ja


def test_the_report_says_plainly_when_growing_pays():
    found = answer.growing(_view([3000, 3250, 3000, 3250, 3000]))
    assert found.pays
    assert found.difference.high < 1
    told = words.sentence(found, MetricInfo("accuracy", True, "%"))
    assert told.en.startswith("Growing the batch pays here")
    assert told.ja.startswith("バッチを途中で増やす効果があります")


def _afresh(at):
    """The batch that grows on the fresh seeds of today's settings."""
    return tuple(
        replace(
            made.run_to(one, seed=1000 + i),
            batch_size=GROWN.batch_size,
            rate_growth=0.5,
            lr_schedule="constant",
        )
        for i, one in enumerate(at)
    )


def test_whether_growing_pays_is_judged_on_fresh_seeds_where_there_are_any():
    """On the seeds that chose it is twice as fast; on fresh ones it is slower."""
    chosen = _view([3000, 3250, 3000, 3250, 3000])
    afresh = replace(chosen.confirmation, growers=_afresh((8000, 7750, 8000)))
    view = replace(chosen, records=replace(chosen.records, confirmation=afresh))
    found = answer.growing(view)
    assert (found.fresh, found.pays, found.difference.n) == (True, False, 3)
    assert found.difference.value > 1.2
    told = words.sentence(found, view.facts.metric)
    assert "(on 3 fresh seeds)" in told.en
    assert "新しいシード3個" in told.ja
    flattered = answer.growing(chosen)  # the same records without them
    assert (flattered.fresh, flattered.pays) == (False, True)
    told = words.sentence(flattered, view.facts.metric)
    assert "the budget did not pay for fresh ones" in told.en


def test_one_fresh_seed_of_both_judges_nothing():
    chosen = _view([3000, 3250, 3000, 3250, 3000])
    afresh = replace(chosen.confirmation, growers=_afresh((8000,)))
    view = replace(chosen, records=replace(chosen.records, confirmation=afresh))
    assert not answer.growing(view).fresh


def test_fresh_runs_of_growing_are_those_of_the_baselines_seeds(session):
    made_ = session()
    record = made.confirmation((8000,) * 3, (6000,) * 3)
    found = confirm.grown_afresh(made_.session, record, [GROWN], (1000, 1001, 1002))
    assert [(c.choice, c.seed) for c in found.growers] == [(GROWN, 1000 + i) for i in range(3)]
    assert (found.today, found.recommended) == (record.today, record.recommended)


@pytest.fixture
def stages(session, tmp_path):
    """``resume → stages`` of an advice whose constant finalist was proved on three fresh seeds,
    and whose batch that grows was ahead on the seeds that chose.
    """
    made_ = session(rates={32: 0.001, 64: 0.002, 128: 0.004})
    recipe = made_.session.baseline.replace(batch_size=32)
    made_.session.prepared = replace(made_.session.prepared, baseline=recipe)
    made_.session.listener = Notes(Silent())
    records = _view([3000, 3250, 3000, 3250, 3000]).records

    def make(resume=False):
        found = _Stages(made_.session, Journal(tmp_path, {}, resume))
        found.confirmation = found.confirmation or records.confirmation
        found.pilot, found.insight = records.pilot, Insight(why_not="off")
        made_.trained.clear()
        return SimpleNamespace(stages=found, trained=made_.trained)

    return make


def bought(found):
    """Who was trained on which fresh seeds so that growing can be judged."""
    found.stages._judge_growing()
    growers = [(curve.choice, curve.seed) for curve in found.stages.confirmation.growers]
    assert sum(len(configs) for _, configs in found.trained) in (0, len(growers))
    return growers


FRESH_OF_GROWN = [(GROWN, seed) for seed in (1000, 1001, 1002)]


def test_fresh_seeds_are_bought_for_the_one_that_has_none_and_only_once(stages):
    """The recommendation of constant size has fresh runs; the batch that grows has none."""
    found = stages()
    assert bought(found) == FRESH_OF_GROWN
    assert [what for what, _ in found.trained] == ["growing against constant, on fresh seeds"]
    again = stages(resume=True)
    assert bought(again) == FRESH_OF_GROWN
    assert again.trained == []


def test_a_leader_that_is_the_recommendation_would_buy_nothing(stages, monkeypatch):
    """The planted bug that the test before must notice."""
    monkeypatch.setattr(answer, "growers", lambda view: (view.chosen, view.today))
    assert bought(stages()) == []


def test_fresh_seeds_that_the_budget_does_not_pay_for_are_bought_when_it_does(stages):
    found = stages()
    options = found.stages.session.options
    found.stages.session.options = replace(options, budget=1e-3)
    assert bought(found) == []
    found.stages.session.options = replace(options, budget=1e9)
    assert bought(found) == FRESH_OF_GROWN


def test_whether_growing_pays_is_then_judged_on_the_seeds_that_were_bought(stages):
    found = stages()
    bought(found)
    view = View(found.stages._records(), Options(), bare_facts(found.stages.session.prepared))
    told = answer.growing(view)
    assert (told.fresh, told.difference.n) == (True, 3)


@pytest.mark.parametrize("why", ["budget", "no room", "too short", "failed"])
def test_what_was_not_tried_is_said_with_its_reason(why):
    record = made.confirmation((8000,) * 3, (6000,) * 3)
    view = made.view(confirmation=record, pilot=Pilot(why, 30.0 if why == "budget" else None))
    found = answer.growing(view)
    assert (found.why_not, found.setting) == (why, None)
    told = words.sentence(found, MetricInfo("accuracy", True, "%"))
    assert "grow" in told.en
    assert "増やす" in told.ja
    assert ("30 s" in told.en) is (why == "budget")


def test_what_was_switched_off_or_never_came_up_is_told_apart():
    searched = made.projection([], {})
    assert answer.growing(made.view(projection=searched)) is None
    off = made.view(projection=searched, options=Options(growing=False))
    assert answer.growing(off) == Growing("off")


def test_a_pilot_without_a_confirmation_says_that_nothing_is_confirmed():
    assert answer.growing(_view([3000] * 5, confirmation=None)).why_not == "unconfirmed"


# ------------------------------------------------------------------ from end to end

OPTIONS = Options(budget=3000.0, seeds=2, confirm_seeds=3, batch_sizes=(8, 128))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole advice on the tiny task, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_platform, "available_cores", lambda: 1)
        out = tmp_path_factory.mktemp("whole")
        prepared = prepare(tiny.task(), device="cpu")
        yield prepared, out, run_stages(prepared, OPTIONS, out, workers=0).records


@pytest.mark.slow
def test_batches_that_grow_are_piloted_and_judged_beside_the_constant_ones(whole):
    _, out, records = whole
    finalists = [choice_of(one) for one in records.confirmation.finalists]
    assert any(isinstance(one, Grown) for one in finalists)
    seeds = {c.seed for c in records.pilot.curves}
    assert seeds == {TUNING, TUNING + 1, TUNING + 2}
    judged = {c.choice for c in records.confirmation.choosing}
    assert set(finalists) <= judged
    stages = json.loads((out / "plan.json").read_text())["stages"]
    assert list(stages)[:3] == ["A", "B", "G"]
    assert {"first", "cap", "samples", "seeds", "lemma"} <= set(stages["G"])
    assert records.pilot.noise
    assert records.pilot.lemma in (0.0, 0.5, 1.0)


class _Interrupter(Silent):
    def __init__(self, at):
        self.at = at

    def progress(self, what, share):
        if self.at in what:
            raise KeyboardInterrupt


@pytest.fixture
def trained(monkeypatch):
    """What each sweep was called → its runs, of the last advice."""
    found, original = {}, Session.train

    def noting(self, what, configs, *others, **named):
        found[what] = list(configs)
        return original(self, what, configs, *others, **named)

    monkeypatch.setattr(Session, "train", noting)
    return found


@pytest.mark.slow
def test_an_interrupted_pilot_goes_on_with_the_same_schedules(
    whole, tmp_path, trained, monkeypatch
):
    """Resumed on a machine that reads time otherwise, it would plan another pilot."""
    prepared = whole[0]
    stopped = run_stages(
        prepared, OPTIONS, tmp_path, workers=0, listener=_Interrupter("that grow, again")
    )
    assert stopped.records.partial
    assert stopped.records.pilot is None
    before = dict(trained)
    trained.clear()
    other = replace(PLAN, first=16, cap=32, learning_rate=0.01, seeds=(60, 61, 62))
    monkeypatch.setattr("batchlab.advisor.advise.plan_pilot", lambda *_: other)
    resumed = run_stages(prepared, OPTIONS, tmp_path, resume=True, workers=0).records
    for what in ("today's settings, to plan how a batch grows", "batches that grow"):
        assert trained[what] == before[what]
    tried = {config.batch_size for config in before["batches that grow"]}
    assert {c.batch_size for c in resumed.pilot.curves if isinstance(c.choice, Grown)} == tried


@pytest.mark.slow
def test_the_candidates_show_batches_that_grow_and_whether_they_pay_is_told(whole):
    prepared, _, records = whole
    view = View(records, OPTIONS, bare_facts(prepared))
    grown = [c for c in evidence.candidates(view) if c.reason is Reason.GROWING]
    assert [c.setting.batch_size for c in grown] == [one.batch_size for one in view.grown]
    assert all(c.runs >= OPTIONS.seeds and c.seconds_per_update.value > 0 for c in grown)
    assert {c.setting.id for c in grown} <= {point.id for point in evidence.curves(view)}
    found = answer.growing(view)
    assert found.setting.id in {c.setting.id for c in grown}
    assert (found.fresh, found.difference.n) == (True, OPTIONS.confirm_seeds)
    fresh = {curve.seed for curve in records.confirmation.today}
    assert {curve.seed for curve in records.confirmation.growers} <= fresh


@pytest.mark.slow
def test_an_advice_to_grow_is_written_whole_and_its_script_trains_so(tmp_path, monkeypatch):
    """Whoever wins, here the batch that grows is chosen, and the verdict is to change."""

    def grown_only(session, groups, names, *_):
        return [n for n in names if isinstance(groups[n][0].choice, Grown)]

    monkeypatch.setattr(_platform, "available_cores", lambda: 1)
    monkeypatch.setattr(confirm, "_without_idle_growth", grown_only)
    monkeypatch.setattr(answer, "verdict", lambda _view: Verdict.CHANGE)
    task = found_at(tiny.task(), "digits")
    given = {"budget": 3000.0, "seeds": 2, "confirm_seeds": 3, "batch_sizes": (8, 128)}
    found = advise(task, **given, out=tmp_path, device="cpu")
    grown = found.recommended
    assert isinstance(grown.batch_size, str)
    assert {change.name for change in found.changes} >= {"batch_size"}
    assert found.params["batch_size"] == grown.batch_size
    assert found.batch_only is None
    again = Advice.load(tmp_path / "advice.json")
    assert again.recommended == grown
    assert again.growing.setting is not None
    script = runpy.run_path(str(tmp_path / "apply.py"))
    starts = batch_schedule(grown.batch_size).resolve(EXAMPLES).starts
    assert script["BATCH_SIZES"] == starts
    assert script["RATE_GROWTH"] == grown.rate_growth
    assert 'id="growing"' in (tmp_path / "report.html").read_text(encoding="utf-8")
    plan = json.loads((tmp_path / "plan.json").read_text())["stages"]["C chosen"]
    assert choice_of([plan[name] for name in Grown._fields]).batch_size == grown.batch_size
