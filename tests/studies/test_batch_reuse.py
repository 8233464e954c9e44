"""Re-using batches as claims: what is read from tables, and planted faults."""

import functools
import math

import numpy as np
import polars as pl
import pytest

from batchlab._text import plain
from batchlab.errors import InvalidValueError
from batchlab.report.charts import claims as charts
from batchlab.studies.batch_reuse import (
    MEASURES,
    STUDY,
    axes,
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


def test_a_slope_of_logarithms_is_that_of_the_spread():
    rng = np.random.default_rng(0)
    rows = [
        {"repetition": i, "inputs": d, "x": rng.standard_t(3) * d**-0.5}
        for i in range(4000)
        for d in (100, 400, 1600)
    ]
    found = words.slope(pl.DataFrame(rows), "x", log=True)
    assert abs(found.mean() + 0.5) < 4 * found.std() / math.sqrt(4000) < 0.05


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
