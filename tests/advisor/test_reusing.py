"""Batches used several times: when they are tried, what is said of them, planted prices."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from batchlab.advisor import answer, evidence, reusing
from batchlab.advisor.advise import run_stages
from batchlab.advisor.confirm import CHOOSING, plan_confirmation
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.options import Options
from batchlab.advisor.pilot import BUDGET, SEEDS, TUNING
from batchlab.advisor.record import MetricInfo, Price, Reason, Reusing, Verdict
from batchlab.advisor.session import Session, Silent
from batchlab.advisor.stages import Confirmation, Echoes, Machine, choice_of, reuse_of, reused
from batchlab.engine import RunResult, Series
from batchlab.engine.trace import Trace
from batchlab.measure.throughput import Block
from batchlab.patching.snippets import snippet
from batchlab.report import echoing
from batchlab.tasks import prepare
from batchlab.types import Status, from_plain, to_plain
from tests.advisor import made, tiny

AGAIN = reused(32, 0.1, 4)
LOADING = 0.0001
"""Seconds of an update of 32 in which the records of ``made`` read their batch."""
TODAY_AT, AGAIN_AT = (6000, 6500, 7000, 6250, 6750, 6500), (2000, 2250, 2250, 2000, 2000, 2250)
"""Samples to the target: a third of today's, with 4/3 as many computed examples."""


def confirmed(**given):
    curves = made.confirmation(TODAY_AT, AGAIN_AT, chosen=AGAIN[:2])
    mark = {"others": AGAIN.others}
    last = [c if i < 2 else replace(c, **mark) for i, c in enumerate(curves.choosing)]
    return replace(
        curves,
        choosing=tuple(last),
        recommended=tuple(replace(c, **mark) for c in curves.recommended),
        finalists=(AGAIN,),
        chosen=AGAIN,
        **given,
    )


def view(reading=0.0, price=None, objective="time", **records):
    options = Options(objective=objective, seconds_per_sample=reading, price=price)
    return made.view(options=options, confirmation=confirmed(), **records)


def by_hand(samples, reuse, reading):
    """Seconds: reading, loading once a batch, computing as often as it is used."""
    computing = (made.RATES[32] - LOADING) * reuse / 32
    return samples * (reading + LOADING / 32 + computing)


# ------------------------------------------------------------------ what it takes


@pytest.mark.parametrize("reading", [0.0, 0.001, 0.1])
def test_a_batch_that_is_used_again_is_read_once_and_computed_as_often(reading):
    yardstick = Yardstick(made.machine(made.RATES), None, 1, made.EXAMPLES, reading)
    found = yardstick.measure("time", np.array([3200.0]), AGAIN)
    assert found[0] == pytest.approx(by_hand(3200.0, 4, reading), rel=1e-12)
    assert yardstick.updates(np.array([3200.0]), AGAIN)[0] == 400


def test_money_counts_a_sample_once_and_every_computed_second():
    price = Price(3600.0, "USD", 0.5)
    yardstick = Yardstick(made.machine(made.RATES), price, 1, made.EXAMPLES)
    found = yardstick.measure("cost", np.array([320.0]), AGAIN)
    assert found[0] == pytest.approx(by_hand(320.0, 4, 0.0) + 160.0)


@pytest.mark.parametrize("reading", [0.0, 0.001, 0.1])
def test_the_comparison_of_a_simulated_record_is_the_formula(reading):
    row = answer.comparisons(view(reading))[0]
    before, after = (np.array(at) for at in (TODAY_AT, AGAIN_AT))
    # The mean of three meets the target two evaluations later.
    ratios = by_hand(before + 500.0, 1, reading) / by_hand(after + 500.0, 4, reading)
    assert row.difference.value == pytest.approx(math.exp(np.log(ratios).mean()), rel=1e-9)
    # Its twin, the same sides at one re-use, is several times larger.
    twin = by_hand(before + 500.0, 1, reading) / by_hand(after + 500.0, 1, reading)
    if not reading:
        assert math.exp(np.log(twin).mean()) > 1.5 * row.difference.value


def test_the_timing_error_that_both_share_cancels_where_computing_is_all():
    """At one batch size and no reading, seconds per update cancel in the ratio but for loading."""
    scattered = made.machine({32: [0.001, 0.002, 0.001, 0.002]})
    seen = replace(view(), records=replace(view().records, machine=scattered))
    calm = answer.comparisons(view())[0].difference
    assert answer.comparisons(seen)[0].difference.high == pytest.approx(calm.high, rel=1e-9)


# ------------------------------------------------------------------ verdict, at planted prices


def test_with_cheap_data_reuse_is_not_advised_and_with_expensive_data_it_is():
    cheap, dear = view(0.0), view(0.1)
    assert answer.verdict(cheap) is Verdict.KEEP
    assert answer.recommended(cheap) == made.TODAY
    assert not answer.reusing(replace(cheap, records=with_pilot(cheap))).pays
    assert answer.verdict(dear) is Verdict.CHANGE
    assert answer.recommended(dear) == AGAIN
    assert answer.reusing(replace(dear, records=with_pilot(dear))).pays
    assert [(c.name, c.today, c.recommended) for c in answer.changes(dear)] == [("reuse", 1, 4)]


def with_pilot(seen):
    curves = tuple(seen.confirmation.choosing)
    return replace(seen.records, echoes=Echoes(price=3.0, samples=100, curves=curves))


def test_by_money_it_is_advised_where_samples_have_a_price_and_not_where_hours_have():
    samples = view(price=Price(0.001, "USD", 1.0), objective="cost")
    hours = view(price=Price(10.0, "USD", 0.0), objective="cost")
    assert answer.verdict(samples) is Verdict.CHANGE
    assert answer.verdict(hours) is Verdict.KEEP


def test_what_is_told_names_the_setting_its_rival_and_the_ratio():
    seen = view(0.1)
    found = answer.reusing(replace(seen, records=with_pilot(seen)))
    assert (found.setting.reuse, found.rival.id, found.quantity) == (4, "today", "time")
    assert found.tried == 1
    told = echoing.sentence(found, made.facts().metric)
    assert "pays here: with batch size 32, learning rate 0.1, 4 updates on each batch" in told.en
    assert "効果があります" in told.ja
    assert found.difference.value < 1


def test_the_candidate_has_its_own_name_reason_and_price_of_an_update():
    seen = view(0.1)
    one = next(c for c in evidence.candidates(seen) if c.reason is Reason.REUSED)
    assert one.setting.id == "B32-lr0.1-k4"
    # Three of four updates read nothing.
    assert one.seconds_per_update.value == pytest.approx(made.RATES[32] - 0.75 * LOADING)
    ids = {point.id for point in evidence.curves(seen)}
    assert ids == {"today", "B32-lr0.1-k4"}
    last = [p for p in evidence.curves(seen) if p.id != "today"][-1]
    assert last.seconds == pytest.approx(by_hand(made.SAMPLES, 4, 0.1))


def test_the_lines_to_write_repeat_what_the_loader_fetched():
    one = view(0.1).setting(AGAIN)
    assert "ReusingLoader(DataLoader(train_set, batch_size=32" in snippet("pytorch", one, None)[0]
    assert "reuse=4)" in snippet("lightning", one, None)[0]
    assert "ReusingLoader" not in snippet("pytorch", view().setting(made.TODAY), None)[0]


def test_a_record_with_reuse_survives_the_file():
    read = from_plain(Confirmation, json.loads(json.dumps(to_plain(confirmed()))))
    assert read.choice == AGAIN
    assert read.recommended[0].choice == AGAIN
    assert choice_of([32.0, 0.1]) == made.TODAY


# ------------------------------------------------------------------ whether it is tried


def yard(session, **given):
    options = session.options
    machine = Machine(None, session.stopwatch.blocks, 1, "cpu", "test", 2)
    return Yardstick(machine, options.price, 1, made.EXAMPLES, options.seconds_per_sample)


def planned(seconds=math.inf, samples=made.SAMPLES, **asked):
    session = made.session(options=Options(**asked), samples=samples)
    return reusing.plan(session, yard(session), [], seconds)


def test_cheap_samples_are_not_tried_and_the_price_is_said():
    found = planned()
    assert found.why_not == "cheap"
    assert found.price == pytest.approx(LOADING / (made.RATES[32] - LOADING))
    told = echoing.sentence(Reusing("cheap", price=found.price), MetricInfo("loss", False))
    assert "costs 0.11 times computing one" in told.en
    assert "save at most 1.08×" in told.en


@pytest.mark.parametrize(
    ("reading", "factors"),
    [(0.0, ()), (4e-6, ()), (6e-6, (4,)), (0.0001, (2, 4))],
)
def test_only_uses_that_could_be_worth_a_change_are_tried(reading, factors):
    """By hand, (p + 1)/(p/k + 1) ≥ 1.2: p ≥ 0.286 for 4 and 0.5 for 2; computing takes 28.1 µs."""
    found = planned(seconds_per_sample=reading)
    assert getattr(found, "factors", ()) == factors


def test_where_only_samples_count_reuse_is_always_tried():
    assert planned(objective="samples").factors == (2, 4)
    assert planned(objective="cost", price=Price(1.0, "USD", 1.0)).price > 1000


def test_a_pilot_that_is_not_paid_for_is_named_with_its_price_and_a_shorter_one_is_taken():
    dear = {"seconds_per_sample": 0.01}
    whole = planned(**dear)
    session = made.session(options=Options(**dear))
    cost = reusing.seconds_of(session, whole)
    # (2 + 4)·(3 + 2) runs and 3 of today's.
    assert cost == pytest.approx(33 * made.SAMPLES / 32 * made.RATES[32])
    assert planned(0.6 * cost, **dear).samples == made.SAMPLES // 2
    left = planned(0.1 * cost, **dear)
    assert (left.why_not, left.seconds) == (BUDGET, pytest.approx(cost / 4))
    assert planned(samples=200, **dear).why_not == "too short"


def test_tuning_seeds_are_nobody_elses():
    seeds = planned(seconds_per_sample=0.01).seeds
    assert not {TUNING + i for i in range(SEEDS)} & set(seeds)
    assert max(seeds) < CHOOSING


def simulated(config, moments):
    """e ← (1 − η)^k e a batch: every use of it is worth ``WORTH`` of a fresh one."""
    at = np.array(moments)
    uses = 1 + WORTH * (config.reuse - 1)
    losses = np.exp(-uses * at / 4000) * (1 + 0.01 * (config.learning_rate != 0.1))
    series = {"loss": Series(at, at, losses), "metric": Series(at, at, 1 - losses)}
    last = int(at[-1])
    return RunResult(config, Status.OK, "", last, last, last, 0.0, "loop", 1, series)


WORTH = 0.8


def test_the_pilot_keeps_the_best_rate_of_each_number_of_uses(monkeypatch):
    trained = []

    def train(_self, what, configs, job, starts=None):
        trained.append((what, configs))
        return Trace(tuple(simulated(c, job.evaluate_at) for c in configs)), [None] * len(configs)

    monkeypatch.setattr(Session, "train", train)
    monkeypatch.setattr(Session, "visit", lambda *_: None)
    session = made.session(options=Options(seconds_per_sample=0.01))
    plan = reusing.plan(session, yard(session), [], math.inf)
    found = reusing.run(session, plan, lambda: yard(session))
    assert [choice_of(one) for one in found.best] == [reused(32, 0.1, 4), reused(32, 0.1, 2)]
    assert {c.reuse for c in trained[1][1]} == {2, 4}
    assert len(trained[1][1]) == 2 * len(reusing.RATES)
    assert {(c.reuse, c.seed) for c in trained[2][1]} == {(k, s) for k in (2, 4) for s in (61, 62)}
    read = from_plain(Echoes, json.loads(json.dumps(to_plain(found))))
    assert list(map(choice_of, read.best)) == list(map(choice_of, found.best))
    assert replace(read, best=()) == replace(found, best=())
    order = plan_confirmation(session, [], math.inf, (), tuple(map(choice_of, found.best)))
    assert order.pairs() == (reused(32, 0.1, 4), reused(32, 0.1, 2))
    # Each takes as long as so many of today's: 2·(4 + 2) choosing and 3 fresh of 4 beside today's.
    assert session.run_seconds(reused(32, 0.1, 4), 100) == session.run_seconds(32, 400)


# ------------------------------------------------------------------ whole


@pytest.mark.slow
@pytest.mark.parametrize(("reading", "tried"), [(0.0, False), (0.05, True)])
def test_an_advice_tries_reuse_where_reading_is_slow_and_resumes_what_it_found(
    tmp_path, reading, tried, monkeypatch
):
    monkeypatch.setattr(reusing, "seconds_of", lambda *_: 0.0)  # paid on any computer
    prepared = prepare(tiny.task(), device="cpu")
    options = Options(
        budget=90.0,
        seconds_per_sample=reading,
        growing=False,
        batch_sizes=(32,),
        seeds=2,
        confirm_seeds=3,
    )
    outcome = run_stages(prepared, options, tmp_path, workers=0, listener=Silent())
    echoes = outcome.records.echoes
    assert (echoes.why_not == "") is tried
    assert (echoes.why_not == "cheap") is not tried
    if tried:
        kept = [choice_of(one) for one in outcome.records.confirmation.finalists]
        assert any(map(reuse_of, kept))
        assert echoes.price > 100
    again = run_stages(prepared, options, tmp_path, workers=0, listener=Silent(), resume=True)
    assert again.records.echoes == echoes


def test_a_block_without_loading_spares_nothing():
    blocks = {"32": (Block(32, 10, 1.0, 0.0, 320),)}
    yardstick = Yardstick(Machine(None, blocks, 1, "cpu", "", 1), None)
    assert yardstick.measure("time", np.array([32.0]), AGAIN)[0] == pytest.approx(0.4)
