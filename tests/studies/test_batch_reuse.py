"""Re-using batches as claims: what is read from tables, and planted faults."""

import functools
import math

import numpy as np
import polars as pl
import pytest
import torch

from batchlab._text import plain
from batchlab.errors import InvalidValueError
from batchlab.report.charts import claims as charts
from batchlab.studies.batch_reuse import (
    MEASURES,
    STUDY,
    axes,
    complexity,
    early,
    faults,
    figure,
    one_example,
    words,
)
from batchlab.studies.claim import MODES, Bench
from batchlab.studies.running import measure
from batchlab.studies.verdict import Outcome, judge, suffices

QUICK = dict(STUDY.parameters["quick"])
IN_MODES = {mode: STUDY.claims(STUDY.parameters[mode]) for mode in MODES}
CLAIMS = {claim.id: claim for claim in IN_MODES["quick"] if not claim.finding}
TINY = {
    **{"seeds": 64, "dimensions": "250,1000", "theory_samples": 2**14},
    **{"figure_seeds": 128, "hidden_seeds": 2048, "figure_dimension": 1000},
    **{"dimensions_1": "64,256", "dimensions_2": "64,256", "dimensions_3": "16,48"},
}

# What the claims rest on


def test_the_mean_slope_of_tanh_is_its_integral():
    g = np.linspace(-12, 12, 200_001)
    density = np.exp(-(g**2) / 2) / math.sqrt(2 * math.pi)
    integral = np.sum((1 - np.tanh(g) ** 2) * density) * (g[1] - g[0])
    assert pytest.approx(integral, abs=1e-6) == early.SLOPE_OF_TANH


@pytest.mark.parametrize("degree", early.TARGETS)
def test_targets_have_variance_1(degree):
    x, weights = np.polynomial.hermite_e.hermegauss(20)
    values = np.polynomial.hermite_e.hermeval(x, [0] * degree + [1]) / math.sqrt(
        math.factorial(degree)
    )
    assert (weights * values**2).sum() / weights.sum() == pytest.approx(1)
    assert early.TARGETS[degree] == f"He{degree}(z)/sqrt({math.factorial(degree)})"


def test_a_specialised_student_is_seen_where_half_the_difference_is_blind():
    """The second neuron's sign is negative: one on z₂ and the other on −z₁."""
    panel = figure.PANELS["symmetric"]
    special = torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]], dtype=torch.float64)
    _, size = figure.split(special, panel)
    assert float(size) == pytest.approx(math.sqrt(0.5))
    _, half = figure.split(special, panel._replace(alike=False))
    assert float(half) == pytest.approx(0.0)
    together = torch.tensor([[[0.5, 0.5], [-0.5, -0.5]]], dtype=torch.float64)
    assert float(figure.split(together, panel)[1]) == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("first", "second", "inside"),
    [(0.5, 0.5, True), (0.0, 1.0, False), (1.0, 0.0, False), (0.0, 0.0, False)],
)
def test_steady_needs_both_halves(first, second, inside):
    """Of the −0.0695 of all examples."""
    rows = [
        {"repetition": 0, "share": share, "cosine": -0.0695 * done, "looks": True, "inputs": 256}
        for share, done in ((one_example.END // 2, first), (one_example.END, first + second))
    ]
    claim = CLAIMS["second-gradient-is-steady"]
    (found,) = claim.values({one_example.TABLE: pl.DataFrame(rows)})
    assert (claim.low <= float(found) <= claim.high) is inside


def test_the_theory_s_own_error_widens_a_comparison_with_it():
    values = np.random.default_rng(0).normal(size=50)
    wide = words.widened(values, 0.2)
    own = values.var(ddof=1) / 50
    assert wide.mean() == pytest.approx(values.mean())
    assert wide.var(ddof=1) / 50 == pytest.approx(own + 0.04)
    assert words.widened(values, 0.0) == pytest.approx(values)


def test_a_slope_of_logarithms_is_that_of_the_spread():
    rng = np.random.default_rng(0)
    rows = [
        {"repetition": i, "inputs": d, "x": rng.standard_t(3) * d**-0.5}
        for i in range(4000)
        for d in (100, 400, 1600)
    ]
    found = words.slope(pl.DataFrame(rows), "x", log=True)
    assert abs(found.mean() + 0.5) < 4 * found.std() / math.sqrt(4000) < 0.05


@pytest.mark.parametrize("degree", range(4))
def test_the_polynomials_are_those_of_numpy(degree):
    x = np.linspace(-3, 3, 7)
    exact = np.polynomial.hermite_e.hermeval(x, [0] * degree + [1])
    assert complexity.hermite(degree, x) == pytest.approx(
        exact / math.sqrt(math.factorial(degree)), abs=1e-12
    )


@pytest.mark.parametrize("exponent", complexity.RATES)
def test_an_update_of_the_overlap_is_that_of_all_weights(exponent):
    """Ten examples in 30 dimensions; at a wrong norm the overlaps part."""
    rng, rate = np.random.default_rng(exponent), 0.02
    target, w = np.eye(30)[0], np.full(30, 0.2)
    w[1:] *= np.sqrt((1 - 0.2**2) / (29 * 0.2**2))
    m = short = np.array([w @ target])
    for _ in range(10):
        x = rng.standard_normal(30)
        h, z = w @ x, target @ x
        beside = (target - float(m[0]) * w) / np.sqrt(1 - float(m[0]) ** 2) @ x
        rest = x @ x - h * h - beside * beside
        drawn = [np.array([each]) for each in (h, beside, rest)]
        m = complexity.stepped(m, *drawn, exponent, rate)
        short = complexity.stepped(short, *drawn[:2], 0 * drawn[2], exponent, rate)
        slope = math.sqrt(exponent) * complexity.hermite(exponent - 1, drawn[0])
        pull = rate * complexity.hermite(exponent, np.array([z])) * slope
        w = w + pull * (x - h * w)
        w /= np.linalg.norm(w)
        assert m[0] == pytest.approx(w @ target, abs=1e-12)
    assert abs(short[0] - w @ target) > 1e-6


@pytest.mark.parametrize("exponent", [1, 2])
def test_small_steps_take_the_time_of_the_mean_motion(exponent):
    """Sixteen walks in 48 dimensions at a fifth of the rate; 15 % for what noise is left."""
    c, power = complexity.RATES[exponent]
    expected = 5 * complexity.drift(exponent, 48)
    rngs = [np.random.default_rng(7)]
    found = complexity.walks(exponent, 48, c / 5 * 48**-power, round(3 * expected), rngs)
    assert np.median(found) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("way", "fault", "reuse"),
    [
        ("multi", "none", 6),
        ("single", "none", 1),
        ("multi", "fresh for re-used", 1),
        ("single", "re-used for fresh", 6),
        ("single", "fresh for re-used", 1),
        ("multi", "re-used for fresh", 6),
    ],
)
def test_a_fault_turns_one_way_round(way, fault, reuse):
    assert faults.reuse(way, 6, fault) == reuse


def test_an_unknown_fault_is_refused():
    with pytest.raises(InvalidValueError, match="`fault` must be one of none"):
        STUDY.cells({**QUICK, "fault": "gremlins"})


# The study


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
    assert bool(claim.depends.en) == bool(claim.depends.ja)
    assert claim.finding or claim.twin["fault"] in set(faults.FAULTS) - {"none"}


def test_every_fault_is_planted_somewhere():
    assert {c.twin["fault"] for c in CLAIMS.values()} == set(faults.FAULTS) - {"none"}


@pytest.mark.parametrize("mode", ["quick", "full"])
def test_repetitions_suffice_for_every_claim(mode):
    assert [claim.id for claim in IN_MODES[mode] if not suffices(claim)] == []


@pytest.mark.parametrize("mode", MODES)
def test_the_cells_of_every_mode_can_be_planned(mode):
    cells = STUDY.cells(STUDY.parameters[mode])
    assert {cell.table for cell in cells} == set(MEASURES)
    assert len({(cell.table, repr(cell.settings)) for cell in cells}) == len(cells)


@functools.lru_cache(maxsize=4)
def measured(tables, panel, fault):
    """Some tables of the tiny study, of the figure one panel, with a planted fault."""
    parameters = {**QUICK, **TINY, "fault": fault}
    cells = [
        cell
        for cell in STUDY.cells(parameters)
        if cell.table in tables and cell.settings.get("panel", panel) == panel
    ]
    found = measure(STUDY, cells, Bench(seed=3), workers=0)
    return found, {claim.id: claim for claim in STUDY.claims(parameters)}


HOMES = {
    early: (early.TABLE, early.THEORY),
    figure: (figure.TABLE, figure.THEORY),
    one_example: (one_example.TABLE,),
    complexity: (complexity.TABLE,),
    axes: (axes.USES, axes.SIZES, axes.KINDS),
}
"""Topic → its tables."""


def tables_of(name):
    """Which tables a claim reads."""
    for topic, tables in HOMES.items():
        made = (*topic.claims(QUICK), *topic.findings(QUICK))
        if name in {claim.id for claim in made}:
            return tables
    raise KeyError(name)


def panel_of(name):
    """Which panel of the figure a claim reads, if one."""
    panels = {"stairs": "stairs", "symmetry": "symmetric", "hidden": "hidden", "two": "hidden"}
    return panels.get(name.split("-")[0], "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(CLAIMS, key=lambda n: (tables_of(n), str(CLAIMS[n].twin["fault"])))
)
def test_a_planted_fault_is_not_reproduced(name):
    found, claims = measured(tables_of(name), panel_of(name), CLAIMS[name].twin["fault"])
    judged = judge(claims[name], claims[name].values(found))
    assert judged.verdict is Outcome.NOT_REPRODUCED, judged


@pytest.mark.slow
@pytest.mark.parametrize("name", [claim.id for claim in IN_MODES["quick"]])
def test_a_claim_is_a_number_a_repetition_and_a_picture(name):
    found, claims = measured(tables_of(name), panel_of(name), "none")
    values = claims[name].values(found)
    assert len(values) == claims[name].n
    assert np.isfinite(values).all()
    picture = claims[name].picture(found)
    assert picture.points
    assert {row["series"] for row in (*picture.points, *picture.theory)} <= set(picture.series)
    assert charts.drawn(name, picture).specs
