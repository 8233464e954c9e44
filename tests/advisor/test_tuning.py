"""The search over all settings: its space, proposals and halving, and the advice it leads to."""

import dataclasses
import importlib
import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from batchlab import _platform
from batchlab.advisor.advise import run_stages
from batchlab.advisor.assemble import assemble
from batchlab.advisor.confirm import FRESH
from batchlab.advisor.journal import Journal
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.options import Options
from batchlab.advisor.record import Verdict
from batchlab.advisor.session import Session, Silent, Stopwatch
from batchlab.advisor.stages import Machine, Tuned, choice_of
from batchlab.advisor.tuning import halving, propose, search, space
from batchlab.advisor.tuning.propose import Told
from batchlab.advisor.view import bare_facts
from batchlab.app.advise import advise, dry_run, options_from
from batchlab.config import RunConfig
from batchlab.engine import Engine
from batchlab.errors import InvalidValueError, MissingDependencyError
from batchlab.measure.throughput import Block
from batchlab.report import searching, summary
from batchlab.report.page import render
from batchlab.tasks import prepare
from batchlab.types import Status, from_plain, to_plain
from tests.advisor import tiny
from tests.advisor.made import unfinished

GIVEN = space.Given(
    RunConfig(batch_size=32, learning_rate=0.1, samples="2ep").resolved(1000), (8, 16, 32, 64, 128)
)
AXES = space.space(space.names_for(("all",), "shb"), GIVEN)
OPTIONS = Options(budget=900.0, seeds=2, confirm_seeds=4, tune=("all",), batch_sizes=(16, 64))


# The space


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.name)
@given(share=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_value_lies_where_it_came_from(axis, share):
    if axis.scale in ("ordered", "names"):
        value = axis.values[round(share * (len(axis.values) - 1))]
        assert axis.value(axis.coordinate(value)) == value
        return
    value = axis.value(axis.low * (axis.high / axis.low) ** share)
    assert axis.low <= axis.coordinate(value) <= axis.high
    assert axis.value(axis.coordinate(value)) == pytest.approx(value, rel=0.01, abs=1e-12)


def test_every_value_of_the_space_makes_a_run():
    for axis in AXES:
        ends = axis.values or (axis.value(axis.low), axis.value(axis.high))
        for value in ends:
            GIVEN.baseline.replace(**{axis.field: value})


def test_the_search_begins_with_today_and_the_rates_of_the_ordinary_advice():
    found = space.first(AXES, GIVEN)
    assert space.choice(AXES, found[0], GIVEN) == (32, 0.1)
    pairs = {(one["batch_size"], one["learning_rate"]) for one in found}
    assert {(32, 0.05), (32, 0.1), (32, 0.2), (8, 0.025), (64, 0.2), (128, 0.4)} <= pairs


def test_todays_value_lies_in_the_space_however_odd():
    odd = GIVEN.baseline.replace(
        momentum=0.999, weight_decay=0.5, lr_schedule="geometric(0.1)", reuse=3
    )
    axes = space.space(tuple(space.TABLE), space.Given(odd, (32, 64)))
    now = space.today(axes, space.Given(odd, (32, 64)))
    for axis in axes:
        assert axis.value(axis.coordinate(now[axis.name])) == pytest.approx(now[axis.name])


def test_a_setting_keeps_only_what_differs_from_today():
    now = space.today(AXES, GIVEN)
    assert space.choice(AXES, now, GIVEN) == (32, 0.1)
    found = space.choice(AXES, now | {"reuse": 2, "batch_size": 64}, GIVEN)
    assert found == Tuned(64, 0.1, (("reuse", 2),))
    assert choice_of(json.loads(json.dumps(found))) == found


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ("batch_size,warmup", "`tune` must be names among batch_size.*got 'warmup'"),
        ((), "`tune` must be names among"),
        ("batch_size,", "`tune` must be names among"),
    ],
)
def test_a_name_that_is_not_in_the_table_is_refused_with_what_is_allowed(asked, match):
    with pytest.raises(InvalidValueError, match=match):
        space.names_of(asked)


def test_momentum_is_refused_for_a_rule_without_it():
    with pytest.raises(InvalidValueError, match="`tune` must be without momentum"):
        space.names_for(("momentum",), "sgd")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tune": "momentum", "batch_sizes": (16,)}, "batch_sizes.*Add batch_size to --tune"),
        ({"tune": "all", "from_checkpoint": "x.pt"}, "from_checkpoint.*left out with tune"),
    ],
)
def test_what_does_not_go_with_tuning_is_refused(options, match):
    with pytest.raises(InvalidValueError, match=match):
        options_from(**options)


def test_without_optuna_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    def absent(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"install batchlab\[optuna\]"):
        advise(tiny.task(), tune="all", out=tmp_path, device="cpu")


# Re-use has its price


def test_a_sample_costs_as_many_updates_as_it_is_used_for():
    machine = Machine(None, {"64": (Block(64, 10, 0.1, 0.0, 0),)}, 1, "cpu", "", 1)
    yardstick, samples = Yardstick(machine, None), np.array([640.0])
    twice = Tuned(64, 0.1, (("reuse", 2),))
    assert yardstick.measure("time", samples, 64) == pytest.approx(0.1)
    assert yardstick.measure("time", samples, twice) == pytest.approx(0.2)
    assert yardstick.updates(samples, twice) == pytest.approx(20)
    assert yardstick.compare("time", (samples, 64), (samples, twice)).estimate.value == (
        pytest.approx(0.5)
    )


# Successive halving


def naive_promoted(here, earlier):
    """One by one: a setting goes on if fewer than a third of all are better."""
    everything = [*here.values(), *earlier]
    most = max(1, len(everything) // 3)
    return {
        n
        for n, value in here.items()
        if math.isfinite(value) and sum(other < value for other in everything) < most
    }


@given(
    here=st.lists(st.sampled_from([-0.5, 0.1, 0.2, 0.7, math.inf]), min_size=1, max_size=9),
    earlier=st.lists(st.sampled_from([-0.7, -0.5, 0.15, math.inf]), max_size=9),
)
@settings(deadline=None)
def test_what_goes_on_is_among_the_best_third_of_all(here, earlier):
    numbered = dict(enumerate(here))
    assert set(halving.promoted(numbered, earlier)) == naive_promoted(numbered, earlier)


def test_a_rung_begins_where_the_last_one_ended():
    grid = halving.moments((90, 270, 810))
    assert len(grid) == 3 * halving.EVALUATIONS + 1
    assert {0, 90, 270, 810} <= set(grid)


# Proposals


def told_of(values, generation=0):
    """A made objective: how far, on the search's own scales, from a known optimum."""
    best = {"learning_rate": 0.4, "momentum": 0.8, "weight_decay": 1e-4, "batch_size": 64}
    far = 0.0
    for axis in AXES:
        if axis.name in best:
            here, there = (axis.coordinate(v[axis.name]) for v in (values, best))
            wide = axis.scale == "ordered"
            step = (here - there) / 4 if wide else math.log(here / there) / 3
            far += step**2
    return far + 0.5 * (values["schedule"] != "cosine") + 0.5 * (values["reuse"] != 1)


def searched(seed, count=72, told=told_of, shuffled=False):
    """Values in the order of a search of six generations, its first as in an advice."""
    rng = np.random.default_rng(seed)
    known = [Told(one, told(one)) for one in space.first(AXES, GIVEN)]
    number = 0
    while len(known) < count:
        number += 1
        shown = known
        if shuffled:
            values = rng.permutation([one.value for one in known])
            shown = [dataclasses.replace(k, value=v) for k, v in zip(known, values, strict=True)]
        asked = propose.propose(AXES, shown, leads=3, siblings=4, seed=1000 * seed + number)
        known += [Told(one, told(one)) for one in asked]
    return [one.value for one in known[:count]]


def at_random(seed, count=72):
    """As many settings of the same space, beginning alike, the rest drawn uniformly."""
    rng = np.random.default_rng(10_000 + seed)
    known = list(space.first(AXES, GIVEN))
    while len(known) < count:
        one = {}
        for axis in AXES:
            if axis.values:
                one[axis.name] = axis.values[rng.integers(len(axis.values))]
            else:
                one[axis.name] = axis.value(axis.low * (axis.high / axis.low) ** rng.random())
        known.append(one)
    return [told_of(one) for one in known]


def wins(first, second):
    """p of a one-sided sign test that the first ends lower."""
    better = sum(min(a) < min(b) for a, b in zip(first, second, strict=True))
    return stats.binomtest(better, len(first), alternative="greater").pvalue


@pytest.mark.slow
def test_the_search_comes_nearer_to_a_known_optimum_than_random_settings_do():
    seeds = range(12)
    random = [at_random(seed) for seed in seeds]
    assert wins([searched(seed) for seed in seeds], random) < 0.01
    # The planted bug: values told to the wrong settings teach nothing.
    assert wins([searched(seed, shuffled=True) for seed in seeds], random) > 0.01


def test_a_proposal_depends_on_the_seed_and_on_what_was_told_alone():
    told = [Told(one, told_of(one)) for one in space.first(AXES, GIVEN)]
    asked = [propose.propose(AXES, told, leads=2, siblings=2, seed=s) for s in (5, 5, 6)]
    assert asked[0] == asked[1] != asked[2]


def test_siblings_share_what_a_stack_has_to_share_and_nothing_is_asked_twice():
    asked = propose.propose(AXES, [], leads=2, siblings=3, seed=0)
    for lead in (asked[:3], asked[3:]):
        assert len({tuple(one[name] for name in propose.STATIC) for one in lead}) == 1
    assert len({json.dumps(one) for one in asked}) == 6


def test_a_small_space_comes_to_an_end():
    axes = space.space(("reuse",), GIVEN)
    told = [Told({"reuse": k}, float(k)) for k in (1, 2, 4)]
    assert propose.propose(axes, told, leads=2, siblings=2, seed=0) == []


def test_a_setting_that_diverged_counts_as_worst_and_is_never_dropped():
    values = [
        Told({}, math.inf, Status.DIVERGED).finite,
        Told({}, math.inf).finite,
        Told({}, 2.0).finite,
    ]
    assert values == sorted(values, reverse=True)
    assert all(map(math.isfinite, values))


def test_the_importance_names_the_setting_that_matters():
    axes = [axis for axis in AXES if axis.name in ("learning_rate", "momentum")]
    rng = np.random.default_rng(0)
    told = []
    for _ in range(40):
        one = {a.name: a.value(a.low * (a.high / a.low) ** rng.random()) for a in axes}
        told.append(Told(one, abs(math.log(one["learning_rate"] / 0.1)) / 3))
    found = propose.importance(axes, told, seed=0)
    assert next(iter(found)) == "learning_rate"
    assert found["learning_rate"] > 0.8
    assert propose.importance(axes, told[:7], seed=0) == {}


# The advice


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Everything in this process, and two generations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_platform, "available_cores", lambda: 1)
        patch.setattr(search, "MOST_GENERATIONS", 2)
        yield


@pytest.fixture(scope="module")
def prepared():
    return prepare(tiny.task(), device="cpu")


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned")
    return out, run_stages(prepared, OPTIONS, out, workers=0)


def test_the_plan_is_written_before_the_search_and_each_generation_before_it_trains(whole):
    stages = list(json.loads((whole[0] / "plan.json").read_text())["stages"])
    assert stages[:6] == ["A", "T", "T0", "T1", "C", "C chosen"]


def test_the_first_setting_is_todays_and_runs_to_the_end(whole, prepared):
    trials = whole[1].records.tuning.trials
    assert trials[0].values["learning_rate"] == prepared.baseline.learning_rate
    assert trials[0].value == 0.0
    assert len(trials[0].scores) == len(whole[1].records.tuning.rungs)


def test_of_a_generation_only_the_best_third_so_far_go_on(whole):
    trials = whole[1].records.tuning.trials
    for number in (0, 1):
        here = [t for t in trials if t.generation == number]
        so_far = [t.scores[0] for t in trials if t.generation <= number]
        limit = sorted(so_far)[max(1, len(so_far) // halving.KEPT) - 1]
        on = [t for t in here if len(t.scores) > 1 and t is not trials[0]]
        assert on or number
        assert all(t.scores[0] <= limit for t in on)
        assert all(t.scores[0] > limit for t in here if len(t.scores) == 1)


def seeds_shared(records, searched_with):
    """Seeds of the fresh repeats that something before them has seen."""
    fresh = {c.seed for c in records.confirmation.today + records.confirmation.recommended}
    return fresh & {searched_with, *(c.seed for c in records.confirmation.choosing)}


def test_no_fresh_seed_is_seen_by_the_search(whole, monkeypatch):
    out, outcome = whole
    plan = from_plain(
        search.TuningPlan, json.loads((out / "plan.json").read_text())["stages"]["T"]
    )
    assert {outcome.records.tuning.today.seed} == {plan.seed}
    assert seeds_shared(outcome.records, plan.seed) == set()
    # The planted bug.
    assert seeds_shared(outcome.records, plan.seed + FRESH) != set()


def test_what_is_confirmed_was_found_by_the_search(whole):
    records = whole[1].records
    assert records.confirmation.choice in map(choice_of, records.tuning.best)
    assert {c.choice for c in records.confirmation.recommended} == {records.confirmation.choice}


class _Interrupter(Silent):
    """Presses Ctrl-C when a step begins."""

    def __init__(self, at):
        self.at = at

    def progress(self, what, share):
        if self.at in what:
            raise KeyboardInterrupt


def test_a_search_that_was_interrupted_goes_on_as_if_it_had_not_been(whole, prepared, tmp_path):
    out, first = whole
    again = tmp_path / "again"
    shutil.copytree(out, again)
    shutil.rmtree(again / "cells")
    for name in ("tuning", "confirmation"):
        (again / f"{name}.json").unlink()
    unfinished(again, "T0", "T1", "C", "C chosen")
    stopped = run_stages(
        prepared, OPTIONS, again, resume=True, workers=0, listener=_Interrupter("generation 2")
    )
    assert stopped.records.partial
    assert not stopped.records.tuning.ended
    second = run_stages(prepared, OPTIONS, again, resume=True, workers=0)
    assert second.records.tuning == first.records.tuning


def test_a_search_that_was_interrupted_has_a_report_that_advises_no_change(whole, prepared):
    records = whole[1].records
    tuning = dataclasses.replace(records.tuning, ended=False, importance={})
    stopped = dataclasses.replace(records, confirmation=None, tuning=tuning, partial=True)
    facts = dataclasses.replace(bare_facts(prepared), command="batchlab advise tiny --tune all")
    found = assemble(dataclasses.replace(stopped, insight=None), OPTIONS, facts)
    assert (found.stage, found.verdict) == ("B", Verdict.NOT_ENOUGH_EVIDENCE)
    assert found.recommended.id == "today"
    assert found.searched.unfinished
    assert found.searched.best is not None
    page = render(found)
    assert "The search was interrupted" in page
    assert "探索は途中で中断されました" in page
    assert summary(found)


def test_a_generation_that_is_not_paid_for_is_not_asked(whole, prepared, tmp_path):
    out, outcome = whole
    plan = from_plain(
        search.TuningPlan, json.loads((out / "plan.json").read_text())["stages"]["T"]
    )
    stopwatch = Stopwatch(prepared, 1, outcome.records.machine.blocks)
    with Engine(prepared, None, workers=0) as engine:
        session = Session(prepared, OPTIONS, engine, Silent(), stopwatch)
        race = search._Race(session, plan, outcome.records.tuning)
        journal, wanted = Journal(tmp_path, {}, False), plan.proposed(2, race.told)
        price = search.seconds_of(session, plan, wanted)
        assert search._asked(session, journal, plan, race, 2, 0.99 * price) == ()
        assert not (tmp_path / "plan.json").exists()
        assert search._asked(session, journal, plan, race, 2, price) == wanted
        assert (tmp_path / "plan.json").exists()


def test_the_report_says_what_was_tuned_and_apply_trains_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "MOST_GENERATIONS", 1)
    found = advise(
        tiny.task(), tune=("learning_rate", "reuse"), budget=900, seeds=2, confirm_seeds=3,
        out=tmp_path, device="cpu", listener=Silent(),
    )  # fmt: skip
    assert found.stage == "C"
    assert found.searched.names == ("learning_rate", "reuse")
    assert from_plain(type(found.searched), to_plain(found.searched)) == found.searched
    assert "momentum" in found.not_tested
    title = searching.title(found)
    assert "learning rate and updates on each fetched batch" in title.en
    assert "学習率" in title.ja
    page = (tmp_path / "report.html").read_text()
    assert title.en in page
    assert title.ja in page
    assert "--tune learning_rate,reuse" in found.command
    assert summary(found)


def test_the_price_list_names_the_search():
    text = str(dry_run(tiny.task(), options_from(tune="learning_rate,reuse", budget="60s")))
    assert "stage B, search over learning_rate, reuse: about" in text


@pytest.mark.slow
def test_digits_are_tuned_from_end_to_end(tmp_path):
    found = advise(
        "digits", tune="all", budget=60, seeds=2, confirm_seeds=3, out=tmp_path, device="cpu",
        listener=Silent(),
    )  # fmt: skip
    assert found.searched.tried >= 8
    assert {change.name for change in found.changes} <= set(space.FIELDS)
