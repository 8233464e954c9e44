"""Feature strength as claims: what is read from sweeps and curves, and planted faults."""

import dataclasses
import functools
import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchlab._text import plain
from batchlab.app import study as app
from batchlab.errors import InvalidValueError
from batchlab.report.charts import claims as charts
from batchlab.studies.claim import MODES, Bench, Cell
from batchlab.studies.feature_strength import (
    MEASURES,
    STUDY,
    beyond,
    curves,
    exponents,
    faults,
    nets,
    plane,
    sweep,
)
from batchlab.studies.feature_strength.nets import Setting
from batchlab.studies.feature_strength.sweep import Run, State, Sweep
from batchlab.studies.running import measure
from batchlab.studies.verdict import Outcome, judge, suffices

QUICK = dict(STUDY.parameters["quick"])
IN_MODES = {mode: STUDY.claims(STUDY.parameters[mode]) for mode in MODES}
CLAIMS = {claim.id: claim for claim in IN_MODES["quick"] if not claim.finding}
TINY = {"seeds": 6, "plane_seeds": 2, "plane_updates": 50, "plane_span": 2, "beyond_seeds": 2}

# Sweeps


def runs_of(losses, gamma=1.0):
    """Runs a decade apart from 10⁰ on; NaN for one that diverged."""
    return [Run(gamma, float(i), sweep.state(x), x, 1.0) for i, x in enumerate(losses)]


def test_edges_go_from_the_best_rate_to_the_first_that_does_not_learn():
    runs = runs_of([0.95, 0.5, 0.1, 0.3, 1.2, 0.2, math.nan])
    assert sweep.edge(runs, 1.0) == (3.0, 4.0)
    assert sweep.lower_edge(runs, 1.0) == (1.0, 0.0)
    assert sweep.best(runs, 1.0) == 2.0


def test_rates_that_do_equally_well_share_the_best_place():
    assert sweep.best(runs_of([0.5, 0.11, 0.1, 0.115, 0.119]), 1.0) == 2.5
    assert sweep.best(runs_of([0.5, 0.11, 0.1, 0.2, 0.3]), 1.0) == 1.5


@pytest.mark.parametrize("gammas", [(1e-3, 1.0, 1e5), (10.0,)])
def test_the_short_descent_in_parts_ends_where_all_decades_at_once_do(gammas, monkeypatch):
    asked = Sweep(Setting(depth=3, updates=16, width=8, batch_size=8), gammas)
    in_parts = sweep._tops(asked, 1)
    monkeypatch.setattr(sweep, "AT_ONCE", 100)
    assert in_parts == sweep._tops(asked, 1)
    assert sweep.LOWEST < min(in_parts)  # the edge is not in the first decade


def test_where_nothing_learned_there_is_no_rate():
    runs = runs_of([0.95, 1.5, math.nan])
    found = (sweep.best(runs, 1.0), *sweep.edge(runs, 1.0), *sweep.lower_edge(runs, 1.0))
    assert all(math.isnan(number) for number in found)


def test_the_onset_lies_where_the_line_between_two_runs_crosses():
    runs = runs_of([0.9**3, 0.5]), runs_of([1.0, 0.81]), runs_of([math.nan, math.nan])
    assert sweep.onset(runs[0], 1.0) == 0.0
    assert sweep.onset(runs[1], 1.0) == pytest.approx(0.5)
    assert math.isnan(sweep.onset(runs[2], 1.0))


def test_an_edge_that_was_not_reached_is_infinite():
    assert sweep.edge(runs_of([0.5, 0.1]), 1.0) == (1.0, math.inf)
    assert sweep.lower_edge(runs_of([0.1, 0.5]), 1.0) == (0.0, -math.inf)


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0.01, 2.0)), min_size=1, max_size=12))
def test_the_best_rate_lies_between_the_edges(losses):
    runs = runs_of(losses)
    low, high = sweep.lower_edge(runs, 1.0)[0], sweep.edge(runs, 1.0)[0]
    learned = [run.rate for run in runs if run.state is State.LEARNED]
    assert math.isnan(low) == (not learned)
    if learned:
        least = min(
            (run for run in runs if run.rate in learned), key=lambda run: (run.loss, run.rate)
        )
        assert low <= least.rate <= high


def test_a_finite_run_counts_as_trained_only_with_the_fault():
    assert sweep.state(1.3) is State.DEAD
    assert sweep.state(1.3, "any finite run") is State.LEARNED
    assert sweep.state(math.nan, "any finite run") is State.DIVERGED


@pytest.mark.parametrize(("updates", "batch_size"), [(50, 64), (100, 8), (100, 1)])
def test_a_net_that_stands_still_has_not_learned_on_any_seed(updates, batch_size):
    setting = Setting(depth=2, updates=updates, width=4, batch_size=batch_size)
    runs = [
        one
        for seed in range(20)
        for one in sweep._trained(Sweep(setting, (1.0,)), seed, [(1.0, -30.0)])
    ]
    assert {one.state for one in runs} == {State.DEAD}
    assert [one.loss for one in runs] == pytest.approx([1.0] * 20)


def test_outputs_that_say_nothing_of_the_labels_hardly_ever_count_as_learned():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(4000, sweep.ENOUGH, 3, generator=rng)
    output = math.sqrt(0.1) * torch.randn(x.shape[:2], generator=rng).sign()
    y = nets.target(x)[..., 0]

    def learned(n):
        share = (output - y)[:, :n].square().mean(1) / y[:, :n].square().mean(1)
        return sum(sweep.state(float(one)) is State.LEARNED for one in share)

    assert learned(sweep.ENOUGH) == 0
    assert learned(10) > 100


@pytest.mark.parametrize("gamma", [1e-4, 1.0, 1e3])
def test_a_bisected_edge_is_that_of_a_fine_grid(gamma):
    setting = Setting(depth=2, updates=60, width=16)
    coarse = Sweep(setting, (gamma,), per_decade=2, span=1.0, rounds=3)
    found = sweep.run(coarse, seed=1)
    low, high = sweep.edge(found, gamma)
    assert high - low == pytest.approx(0.5 / 8)
    grid = [low, (low + high) / 2, high]
    losses = nets.train(setting, 1, [gamma] * 3, [10.0**rate for rate in grid])
    nothing = nets.stream(setting, 1).labels[-6:].square().mean()
    states = [sweep.state(float(one / nothing)) for one in losses[:, -6:].mean(1)]
    assert states[0] is State.LEARNED
    assert states[2] is not State.LEARNED


def test_the_descent_finds_the_decade_below_which_runs_survive():
    setting = Setting(depth=2, updates=60, width=16)
    found = sweep.run(Sweep(setting, (1e-3, 10.0), per_decade=1, span=2.0), seed=0)
    for gamma in (1e-3, 10.0):
        states = [run.state for run in found if run.gamma == gamma]
        assert states[-1] is State.DIVERGED
        assert State.LEARNED in states


def test_rates_go_down_until_the_smallest_is_calm():
    setting = Setting(depth=2, updates=60, width=16, loss="cross-entropy")
    gammas = (1e-4, 1e-2)
    narrow = Sweep(setting, gammas, per_decade=2, span=0.0, calm=exponents.CALM)
    wide = Sweep(setting, gammas, per_decade=2, span=8.0)
    found, expected = (sweep.run(one, seed=0) for one in (narrow, wide))
    for gamma in gammas:
        calm = sweep.highest(found, gamma, exponents.CALM)
        assert calm == sweep.highest(expected, gamma, exponents.CALM)
        low = [one for one in found if one.gamma == gamma and one.rate < calm - 1]
        assert not low  # no decade more than is needed
    cut = sweep.run(dataclasses.replace(narrow, calm=None), seed=0)
    assert math.isnan(sweep.highest(cut, gammas[0], exponents.CALM))  # the twin


def test_rates_do_not_go_down_for_ever():
    restless = [Run(1.0, float(sweep.LOWEST), State.DEAD, 1.0, 9.0)]
    asked = Sweep(Setting(depth=2, updates=10), (1.0,), per_decade=2, calm=2.0)
    assert sweep._below(asked, restless) == []
    above = [dataclasses.replace(restless[0], rate=sweep.LOWEST + 1.0)]
    assert sweep._below(asked, above) == [(1.0, sweep.LOWEST + 0.5), (1.0, sweep.LOWEST)]


# Numbers


def test_a_curve_is_read_between_records():
    times = np.array([0, 10, 20, 30])
    assert curves.falls_to(times, np.array([1.0, 0.95, 0.85, 0.1]), 0.9) == pytest.approx(15)
    assert curves.falls_to(times, np.array([1.0, 0.95, 0.92, 0.91]), 0.9) == 30
    assert curves.falls_to(times, np.array([1.0, np.nan, np.nan, np.nan]), 0.9) == 30


def test_a_steady_fall_has_no_stair_and_a_pause_has():
    assert curves.stair(np.exp(-np.arange(20.0) / 4)) == 0
    assert curves.stair(np.array([1, 0.7, 0.69, 0.4, 0.1])) > 0.9
    assert curves.stair(np.array([1.0, np.nan, np.nan, np.nan])) == 0


def test_agreement_is_that_of_functions_not_of_their_signs():
    f = torch.tensor([[1.0], [-2.0], [0.5]])
    assert curves.agreement(f, f) == 1
    assert curves.agreement(f, -f) == pytest.approx(-1)
    assert curves.agreement(f, torch.zeros_like(f)) == pytest.approx(0)


def test_a_slope_is_fitted_to_each_repetition():
    rows = [
        {"repetition": i, "depth": 4, "updates": 9, "gamma": float(k), "best": (1 + i) * k + 5.0}
        for i in (0, 1)
        for k in (0, 1, 2, 3)
    ]
    tables = {exponents.TABLE: pl.DataFrame(rows)}
    found = exponents.slope(tables, exponents.TABLE, "best", (0, 2), depth=4)
    assert found.tolist() == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_is_compared_with_at_its_own_budget(mode):
    T = STUDY.parameters[mode]["updates"]
    cells = [c.settings for c in STUDY.cells(STUDY.parameters[mode]) if c.table == exponents.TABLE]
    rows = [
        {**one, "gamma": float(k), "best": exponents.REFERENCE[one["depth"]][k + 3] + u - 300}
        for one in cells
        if (u := one["updates"]) and one["depth"] in exponents.REFERENCE
        for k in range(-3, 5)
    ]
    rows += [{**one, "gamma": 0.0, "best": 0.0} for one in cells if one["depth"] > 3]
    tables = {exponents.TABLE: pl.DataFrame(rows)}
    assert exponents.off_reference(tables) == pytest.approx(
        np.zeros(STUDY.parameters[mode]["seeds"])
    )
    assert set(exponents.tabled(tables)["updates"]) == {T}


def closings(losses, updates=50, gammas=(2.5, 1.0, 1.5, 2.0)):
    """Least losses, a repetition each, by γ in this order."""
    return pl.DataFrame(
        [
            {"repetition": i, "depth": 4, "updates": updates, "gamma": g, "least": loss}
            for i, row in enumerate(losses)
            for g, loss in zip(gammas, row, strict=True)
        ]
    )


def test_the_triangle_ends_where_the_least_loss_crosses():
    rows = closings([(1.0, 0.1, 0.9**2, 1.0), (0.99, 0.1, 0.3, 0.9)])
    found = exponents.last_open({exponents.CLOSING: rows}, 50)
    assert found.tolist() == pytest.approx([1.75, 2.0])


@pytest.mark.parametrize(
    "losses", [(0.1, 0.1, 0.1, 0.1), (1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 0.1, 0.1)]
)
def test_a_triangle_that_ends_elsewhere_gives_no_number(losses):
    rows = pl.concat([closings([losses], updates) for updates in (50, 200)])
    assert np.isnan(exponents.closes({exponents.CLOSING: rows})).all()
    judged = judge(CLAIMS["triangle-closes"], np.full(CLAIMS["triangle-closes"].n, math.nan))
    assert judged.verdict is Outcome.INCONCLUSIVE


def test_both_budgets_of_the_triangle_are_trained_at_the_same_gammas():
    assert exponents.CLOSINGS[4, 50] == exponents.CLOSINGS[4, 200]


def curves_of(losses):
    """A curve for each γ, a repetition; those not named stay at 1."""
    flat = np.ones(33)
    return {
        curves.CURVES: pl.DataFrame(
            [
                {"repetition": 0, "gamma": k, "t": int(t), "loss": float(x)}
                for k in curves.FLOW
                for t, x in zip(np.linspace(0, 600, 33).round(), losses.get(k, flat), strict=True)
            ]
        )
    }


def test_curves_that_do_not_halve_do_not_collapse():
    falling = np.linspace(1.0, 0.0, 33)
    assert curves.collapse(curves_of({1: falling, 3: falling})) == pytest.approx([0.0])
    for some in ({}, {1: falling}, {3: falling}):
        assert curves.collapse(curves_of(some)) == pytest.approx([math.log(600)])


def test_a_stair_counts_above_that_of_the_lazy_net():
    stepped = np.repeat([1.0, 0.5, 0.1], 11)
    assert curves.stairs(curves_of({2: stepped})) == pytest.approx([1.0])
    assert curves.stairs(curves_of({2: stepped, -2: stepped})) == pytest.approx([0.0])


# The plane


def plane_tables():
    """A plane of four runs, two of them looked at."""
    shared = {"repetition": 0, "depth": 3, "updates": 10}
    runs = [
        {**shared, "gamma": g, "rate": r, "state": str(State.LEARNED), "loss": 0.1}
        for g in (0.0, 0.5)
        for r in (0.0, 0.25)
    ]
    looked = [
        {**shared, "gamma": 0, "rate": 0, "t": t, "loss": x, "sharpness": 2 - x, "alignment": x}
        for t, x in ((0, 1.0), (10, 0.5))
    ]
    return {plane.TABLE: pl.DataFrame(runs), plane.RUNS: pl.DataFrame(looked)}


def test_a_run_picked_in_the_plane_is_the_one_that_is_shown():
    offered = charts.drawn("plane", plane.picture(plane_tables(), 3))
    followed = charts.drawn("runs", plane.runs_picture(plane_tables()))
    assert {row["id"] for row in offered.rows if row.get("id")} == {"γ = 10^0, η = 10^0"}
    assert {row["id"] for row in followed.rows} == {"γ = 10^0, η = 10^0"}
    assert charts.first_pick(offered.rows) == charts.first_pick(followed.rows)
    for chart in (offered, followed):
        spec = chart.specs[""]["en"]
        assert [param["name"] for param in spec["params"]] == ["picked"]
    filters = [str(layer.get("transform")) for layer in followed.specs[""]["en"]["layer"]]
    assert all("datum.id === picked" in one for one in filters)


def test_only_the_plane_of_the_runs_can_be_picked_from():
    tables = plane_tables()
    tables[plane.TABLE] = tables[plane.TABLE].with_columns(depth=pl.lit(2))
    chart = charts.drawn("plane", plane.picture(tables, 2))
    assert charts.first_pick(chart.rows) == ""
    assert "params" not in chart.specs[""]["en"]


def test_curves_are_multiples_of_their_start():
    rows = plane.runs_picture(plane_tables()).points
    found = {(row["series"], row["x"]): row["y"] for row in rows}
    assert found["loss", 10] == 0.5
    assert found["sharpness", 10] == 1.5


def test_the_rate_of_the_catapult_does_not_follow_a_fault(monkeypatch):
    monkeypatch.setattr(curves, "SHARPENING_UPDATES", 20)

    def thrown(fault):
        cell = Cell(curves.FULL_BATCH, {"repetition": 0, "width": 8, "fault": fault})
        return curves.full_batch(cell, Bench(seed=3))[1]

    assert thrown("none")["first"] == pytest.approx(3.0, rel=0.01)
    faulty = thrown("rate not times N")
    assert faulty["first"] == pytest.approx(3 / 8, rel=0.01)
    assert faulty["peak"] == 1.0


def test_only_runs_that_lasted_count_as_sharper():
    shared = {"repetition": 0, "depth": 3, "updates": 10, "gamma": 0, "alignment": 1.0}
    rows = [
        {**shared, "rate": rate, "t": t, "loss": 1.0 - t / 20, "sharpness": sharpness}
        for rate, told in enumerate(
            [((0, 1.0), (5, 2.0)), ((0, 1.0), (10, 2.0)), ((0, 1.0), (10, 0.5))]
        )
        for t, sharpness in told
    ]
    assert plane.sharpens({plane.RUNS: pl.DataFrame(rows)}).tolist() == [0.5]


# The study


@pytest.mark.parametrize("fault", [name for name in faults.FAULTS if name != "none"])
def test_a_fault_changes_something(fault):
    setting = Setting(depth=2, updates=10, loss="cross-entropy")
    other = Setting(depth=3, updates=10)
    changed = faults.altered(setting, fault) != setting or faults.altered(other, fault) != other
    elsewhere = fault in ("not divided", "any finite run", "one seed")
    assert changed != elsewhere
    assert (faults.divisor(10.0, fault) == 1.0) == (fault == "not divided")


def test_an_unknown_fault_is_refused():
    with pytest.raises(InvalidValueError, match="`fault` must be one of none"):
        STUDY.cells({**QUICK, "fault": "gremlins"})


@pytest.mark.parametrize("mode", MODES)
def test_modes_have_the_same_parameters_and_claims(mode):
    assert STUDY.parameters[mode].keys() == QUICK.keys()
    claims = [claim.id for claim in IN_MODES[mode]]
    assert len(set(claims)) == len(claims)
    assert set(CLAIMS) <= set(claims)
    assert [c.finding for c in IN_MODES[mode]] == sorted(c.finding for c in IN_MODES[mode])


@pytest.mark.parametrize("claim", IN_MODES["full"], ids=lambda claim: claim.id)
def test_every_claim_speaks_both_languages_and_has_a_twin(claim):
    for text in (claim.sentence, claim.measured, claim.meaning):
        assert plain(text.en).strip()
        assert plain(text.ja).strip()
    assert bool(claim.popular.en) == bool(claim.popular.ja)
    assert claim.finding or claim.twin["fault"] in set(faults.FAULTS) - {"none"}


def test_repetitions_suffice_for_every_claim_in_full_and_for_two_in_three_in_quick():
    # Noise makes stairs in lazy nets, too: this claim says how many more it would take.
    assert [claim.id for claim in IN_MODES["full"] if not suffices(claim)] == ["rich-stairs"]
    assert sum(suffices(claim) for claim in CLAIMS.values()) >= 2 / 3 * len(CLAIMS)


@pytest.mark.parametrize("mode", MODES)
def test_the_cells_of_every_mode_can_be_planned(mode):
    cells = STUDY.cells(STUDY.parameters[mode])
    assert {cell.table for cell in cells} == set(MEASURES)
    assert len({(cell.table, repr(cell.settings)) for cell in cells}) == len(cells)


HOMES = {
    "cross": (exponents.ENTROPY,),
    "triangle": (exponents.CLOSING,),
    "depth": (exponents.CLOSING,),
    "budget": (exponents.CLOSING,),
    "sharpness": (curves.ENDS,),
    "functions": (curves.ENDS,),
    "representations": (curves.ENDS,),
    "catapult": (curves.FULL_BATCH,),
    "progressive": (curves.FULL_BATCH,),
    "plane": (plane.TABLE, plane.RUNS),
    "batch": (beyond.EDGES,),
    "momentum": (beyond.EDGES,),
    "passes": (beyond.PASSES,),
    "small": (beyond.SCALE,),
    "sparsity": (curves.ENDS,),
    "signal": (curves.ENDS,),
}
"""First word of a claim → its tables."""
RATES = ("best-lazy", "best-rich", "largest", "smallest", "reference", "finite", "rich-is")


def tables_of(name):
    """Which tables a claim reads."""
    if name == "best-gamma-moves":
        return (beyond.SCALE,)
    if name.startswith(RATES):
        return (exponents.TABLE,)
    return HOMES.get(name.split("-")[0], (curves.CURVES,))


@functools.lru_cache(maxsize=4)
def measured(tables, fault):
    """Some tables of the tiny study, with a planted fault."""
    parameters = {**QUICK, **TINY, "fault": fault}
    cells = [cell for cell in STUDY.cells(parameters) if cell.table in tables]
    found = measure(STUDY, cells, Bench(seed=3), workers=0)
    return found, {claim.id: claim for claim in STUDY.claims(parameters)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(CLAIMS, key=lambda n: (tables_of(n), str(CLAIMS[n].twin["fault"])))
)
def test_a_planted_fault_is_not_reproduced(name):
    found, claims = measured(tables_of(name), CLAIMS[name].twin["fault"])
    judged = judge(claims[name], claims[name].values(found))
    assert judged.verdict is Outcome.NOT_REPRODUCED, judged


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fault"), [("triangle-closes", "shallow"), ("curves-collapse", "not divided")]
)
def test_a_further_fault_is_not_taken_for_a_reproduction(name, fault):
    found, claims = measured(tables_of(name), fault)
    assert judge(claims[name], claims[name].values(found)).verdict is not Outcome.REPRODUCED


@pytest.mark.slow
@pytest.mark.parametrize("name", [claim.id for claim in IN_MODES["quick"]])
def test_a_claim_is_a_number_a_repetition_and_a_picture(name):
    found, claims = measured(tables_of(name), "none")
    values = claims[name].values(found)
    assert len(values) == claims[name].n
    assert np.isfinite(values).all()
    picture = claims[name].picture(found)
    assert picture.points
    assert {row["series"] for row in (*picture.points, *picture.theory)} <= set(picture.series)
    assert charts.drawn(name, picture).specs


@pytest.mark.parametrize(("mode", "said"), [("paper", True), ("full", False)])
def test_a_paper_mode_that_is_the_full_one_is_said_to_add_nothing(mode, said):
    told = app.price(app.plan("feature-strength", mode=mode), slower=1.0)
    assert ("--paper adds nothing to --full" in told) == said
