"""Growing the batch as claims: exact constants, what is read from tables, planted faults."""

import functools
import itertools
import math

import numpy as np
import polars as pl
import pytest
import torch

from batchlab._text import plain
from batchlab.errors import InvalidValueError
from batchlab.report.charts import claims as charts
from batchlab.schedules import batch_schedule
from batchlab.studies.claim import MODES, Bench
from batchlab.studies.growing_batch import (
    STUDY,
    arms,
    finite,
    nets,
    plateau,
    table,
    vanish,
)
from batchlab.studies.growing_batch.faults import FAULTS
from batchlab.studies.guide import training
from batchlab.studies.running import measure
from batchlab.studies.verdict import Outcome, judge, needs_full, suffices

QUICK = dict(STUDY.parameters["quick"])
FULL = dict(STUDY.parameters["full"])
TINY = {
    **{"problems": 6, "runs": 8, "updates": 1500, "examples": 600, "passes": 2.0},
    **{"table_seeds": 4, "seeds": 3, "rates": 1, "rounds": 8, "nets": "plain,normed"},
    **{"arms": "equal,double,shrink,cosine equal", "rules": "shb"},
}
IN_MODES = {mode: STUDY.claims(STUDY.parameters[mode]) for mode in MODES}
CLAIMS = {claim.id: claim for claim in IN_MODES["quick"] if not claim.finding}

# Problems with exact constants


def test_the_squares_are_a_finite_sum_with_the_constants_they_say():
    made = finite.family("squares", 2, 3, 0.4)
    signs = torch.tensor(
        list(itertools.product([-1.0, 1.0], repeat=finite.DIMENSIONS)), dtype=torch.float64
    )
    for h, a, start, problem in zip(made.h, made.a, made.start, made.problems, strict=True):
        gradients = h * (start - signs * a)
        mean = gradients.mean(0)
        assert torch.allclose(mean, h[0] * start[0])
        assert float((gradients - mean).square().sum(1).mean()) == pytest.approx(problem.noise)
        losses = [(h * (theta - signs * a) ** 2 / 2).sum(1).mean() for theta in (start, 0 * start)]
        assert float(losses[0] - losses[1]) == pytest.approx(problem.gap)
        assert float(h.max()) == problem.smoothness == 1.0


@pytest.mark.parametrize("kind", finite.KINDS)
@pytest.mark.parametrize(
    ("size", "planted", "fits"), [(2, 1.0, True), (7, 1.0, True), (7, 1.3, False)]
)
def test_batches_are_independent_draws(kind, size, planted, fits):
    made = finite.family(kind, 1, 5, 1.0)
    theta = made.start.repeat(1, 20_000, 1)
    found = planted * made.batch(theta, size, np.random.default_rng(0))
    whole = made.whole(theta)
    each = (found - whole).square().sum(-1)[0]
    if kind == "squares":
        exact = made.problems[0].noise
    else:
        single = -torch.sigmoid(-(made.signed[0] @ made.start[0, 0]))[:, None] * made.signed[0]
        exact = float((single - single.mean(0)).square().sum(1).mean())
    off = (each.mean() - exact / size) / (each.std() / math.sqrt(len(each)))
    shift = (found - whole).mean((0, 1)) / (found.std((0, 1)) / math.sqrt(20_000))
    assert (abs(off) < 4 and bool((shift.abs() < 4.5).all())) == fits


def logistic_loss(theta, signed):
    fit = torch.nn.functional.softplus(-(signed @ theta)).mean()
    return fit + finite.PENALTY * (theta**2 / (1 + theta**2)).sum()


def test_the_logistic_problem_keeps_within_its_constants():
    made = finite.family("logistic", 1, 2, 1.0)
    signed, problem = made.signed[0], made.problems[0]
    curvatures = []
    for scale in (0.5, 2.0):
        theta = scale * torch.randn(finite.DIMENSIONS, dtype=torch.float64, generator=seeded())
        gradient = torch.func.grad(logistic_loss)(theta, signed)
        assert torch.allclose(made.whole(theta[None, None])[0, 0], gradient)
        eigenvalues = torch.linalg.eigvalsh(torch.func.hessian(logistic_loss)(theta, signed))
        assert float(eigenvalues.abs().max()) <= problem.smoothness * (1 + 1e-12)
        curvatures.append(float(eigenvalues.min()))
        single = -torch.sigmoid(-(signed @ theta))[:, None] * signed
        assert float((single - single.mean(0)).square().sum(1).mean()) <= problem.noise
    assert min(curvatures) < 0  # it is not convex
    assert problem.gap == pytest.approx(float(logistic_loss(torch.zeros_like(theta), signed)))


def seeded():
    return torch.Generator().manual_seed(1)


def test_a_logistic_problem_can_start_where_its_gradient_vanishes():
    made = finite.family("logistic", 2, 2, 0.0)
    assert float(made.whole(made.start).norm()) < 1e-6


def test_the_largest_curvature_is_met_at_zero():
    """Of an orthogonal design the bound of L is exact, so that a smaller one would fail above."""
    theta = torch.zeros(2, dtype=torch.float64)
    signed = math.sqrt(2) * torch.eye(2, dtype=torch.float64)
    found = torch.func.hessian(logistic_loss)(theta, signed)
    assert float(found.max()) == pytest.approx(1 / 4 + 2 * finite.PENALTY)


def test_a_problem_is_the_same_for_the_same_seed_only():
    one, again, other = (finite.family("squares", 2, seed, 1.0).a for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_training_without_noise_is_momentum_on_a_parabola():
    made = finite.family("squares", 1, 1, 1.0)
    made.a = 0 * made.a
    h, theta, m, found = made.h[0, 0], made.start[0, 0], 0.0, []
    for _ in range(20):
        found.append(float((h * theta).square().sum()))
        m = 0.9 * m + 0.1 * h * theta
        theta = theta - 0.5 * m
    run = finite.Training("nshb", 0.9, [4] * 20, [0.5] * 20)
    assert finite.norms(made, run, 3, 0)[0] == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("kind", finite.KINDS)
def test_a_look_now_and_then_sees_what_every_look_sees(kind):
    made = finite.family(kind, 2, 1, 1.0)
    run = finite.Training("nshb", 0.9, [4] * 22, [0.5] * 11 + [0.1] * 11)
    every = finite.norms(made, run, 3, 0)
    assert every.shape == (2, 22)
    np.testing.assert_array_equal(finite.norms(made, run, 3, 0, 4), every[:, ::4])
    # The twin: the rate of an update counts.
    slower = finite.Training("nshb", 0.9, [4] * 22, [0.1] * 22)
    assert not np.array_equal(finite.norms(made, slower, 3, 0), every)


# Arms


@pytest.mark.parametrize("mode", ["quick", "full"])
@pytest.mark.parametrize("arm", nets.ARMS)
def test_every_arm_sees_the_same_examples_and_ends_in_a_whole_batch(arm, mode):
    asked = STUDY.parameters[mode]
    run, end = nets.planned(arm, "shb", asked), nets.budget(asked)
    last, size = list(batch_schedule(run.batch_size).updates(0, end))[-1]
    assert run.samples == end
    assert end - nets.LAST <= last + size <= end  # the gradient is measured at the end - LAST


@pytest.mark.parametrize("passes", [2.0, 10.0, 20.0, 33.0])
def test_the_equal_size_makes_as_many_updates_as_doubling_and_no_more(passes):
    asked = {"examples": 1024, "passes": passes, "fault": "none"}
    end = nets.budget(asked)
    doubling, equal = (
        batch_schedule(nets.planned(arm, "sgd", asked).batch_size).count(0, end)
        for arm in ("double", "equal")
    )
    assert 0.95 * doubling < equal <= doubling


def test_the_fault_makes_all_arms_one():
    asked = QUICK | {"fault": "batch ignored"}
    assert len({nets.planned(arm, "shb", asked) for arm in nets.ARMS}) == 1


def test_an_arm_that_is_not_known_is_refused():
    with pytest.raises(InvalidValueError, match="`arms` must be all, or some of"):
        STUDY.cells(QUICK | {"arms": "double,treble"})


def test_a_fault_that_is_not_known_is_refused():
    with pytest.raises(InvalidValueError, match="`fault` must be one of none"):
        STUDY.cells(QUICK | {"fault": "some"})


@functools.cache
def ready(net):
    return nets.prepared(net, {"pictures": "digits", "examples": 1024}, None, "cpu")


def norms(net, fault="none", at=0):
    probe = nets.Norms(ready(net), batch_schedule("0:8 100:128"), fault)
    return probe(ready(net).objective(0), at)


def test_the_norm_is_that_of_the_gradient_of_the_mean_loss():
    objective = ready("plain").objective(0)
    batch = ready("plain").train.batch(torch.arange(1024))
    loss = objective(batch)[0].mean()
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in objective.parameters()]).norm()
    found = norms("plain")
    assert found["norm.evaluation"] == pytest.approx(float(expected), rel=1e-5)
    assert found["norm.loss"] == pytest.approx(loss.item(), rel=1e-6)


def test_without_batch_norm_all_ways_of_measuring_agree():
    found = norms("plain")
    for way in ("training", "small", "large"):
        assert found[f"norm.{way}"] == pytest.approx(found["norm.evaluation"], rel=1e-5)


def test_with_batch_norm_they_do_not_unless_the_mode_is_planted():
    found, planted = norms("normed"), norms("normed", "evaluation mode")
    assert abs(math.log2(found["norm.small"] / found["norm.large"])) > 0.05
    assert planted["norm.small"] == pytest.approx(planted["norm.large"], rel=1e-4)


def test_the_current_size_is_that_of_the_schedule():
    early, late = norms("normed", at=0), norms("normed", at=100)
    assert early["norm.training"] == early["norm.small"]
    assert late["norm.training"] not in (early["norm.training"], late["norm.large"])


# Tables of a world in which every sentence holds, and of one turned round.


def rows_of_plateau(right):
    """η/b at the rates and sizes of the cells; turned round, the noise never matters."""
    pairs = [(rate, 16) for rate in plateau.RATES] + [(plateau.RATES[1], b) for b in (4, 64)]
    return [
        {
            **{"kind": kind, "rate": rate, "batch_size": b, "repetition": i},
            **{"early": 1.0, "late": rate / b * (1 + 0.01 * i) if right else 3.0},
            **{"mean": 1.0, "lemma": 9.0 if right else 0.5, "sharp": 4.0},
            "theorem": (5.0 if right else 0.5) if rate == plateau.PRINTED else math.nan,
        }
        | ({"early": rate / b * (1 + 0.01 * i)} if right else {})
        for kind in ("squares", "logistic")
        for rate, b in pairs
        for i in range(QUICK["problems"])
    ]


def rows_of_vanish(right):
    powers = {"double": -2, "with updates": -1, "rate 1.5": -2, "rate 3": -0.7, "quadruple": -2}
    powers |= {"rate warm": -2, "rate kept": -1}
    return [
        {
            **{"kind": kind, "schedule": s, "repetition": i, "updates": t, "mean": 1.0},
            "least": t ** (powers[s] if right else 0.0) * (1 + 0.01 * i),
            "lemma": 9.0 if right else 0.5,
            "theorem": (9.0 if right else 0.5) if s == "quadruple" else math.nan,
        }
        for kind, s in [("squares", s) for s in vanish.SCHEDULES] + [("logistic", "double")]
        for t in range(500, 3001, 500)
        for i in range(QUICK["problems"])
    ]


def rows_of_table(right):
    rows = []
    for net, rule in [("plain", r) for r in table.PAPER_RATES] + [("normed", "sgd")]:
        for arm, i in itertools.product(table.ARMS, range(QUICK["table_seeds"])):
            grows = (arm == "double") == right
            norm = 0.1 if grows != (rule == "rmsprop") else 0.4
            metric = 0.9 if grows != (rule == "shb") else 0.8
            told = {"net": net, "rule": rule, "arm": arm, "repetition": i, "metric": metric}
            small = 0.4 if right else 0.2
            ways = {"evaluation": norm, "training": norm, "small": small, "large": 0.2}
            rows.append(told | {f"norm.{way}": x * (1 + 0.01 * i) for way, x in ways.items()})
    return rows


def rows_of_arms(right):
    loss = {"double": 0.1, "quadruple": 0.12, "late": 0.2, "shrink": 0.4, "equal": 0.3}
    found = []
    for arm, i in itertools.product(nets.ARMS, range(QUICK["seeds"])):
        value = loss.get(arm, 0.2) if right else 1 / loss.get(arm, 0.2)
        told = {"net": "plain", "rule": "shb", "arm": arm, "repetition": i, "score": value}
        found.append(told | {"validation": value * (1 + 0.01 * i), "norm.evaluation": value})
    return found


def rows_of_seconds():
    shared = {"net": "plain", "examples": 1024, "passes": 10.0, "fault": "none"}
    sizes = [*nets.powers(2), nets.equal_size(nets.budget(shared))]
    return [
        {**shared, "round": r, "batch_size": b, "seconds": (1 + b / 100) * (1 + 0.01 * r)}
        for r in range(QUICK["rounds"])
        for b in sizes
    ]


def tables(right=True):
    return {
        plateau.TABLE: pl.DataFrame(rows_of_plateau(right)),
        plateau.IDENTITY: pl.DataFrame(
            {"repetition": range(16), "difference": [1e-15 if right else 0.1] * 16}
        ),
        vanish.TABLE: pl.DataFrame(rows_of_vanish(right)),
        table.TABLE: pl.DataFrame(rows_of_table(right)),
        arms.TABLE: pl.DataFrame(rows_of_arms(right)),
        arms.SECONDS: pl.DataFrame(rows_of_seconds()),
    }


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_reproduced_where_its_sentence_is_right(name):
    values = CLAIMS[name].values(tables())
    assert len(values) == CLAIMS[name].n
    assert judge(CLAIMS[name], values).verdict is Outcome.REPRODUCED


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_not_reproduced_where_its_sentence_is_turned_round(name):
    values = CLAIMS[name].values(tables(right=False))
    assert judge(CLAIMS[name], values).verdict is Outcome.NOT_REPRODUCED


@pytest.mark.parametrize("claim", IN_MODES["full"], ids=lambda claim: claim.id)
def test_a_picture_shows_only_series_that_have_a_name(claim):
    picture = claim.picture(tables())
    shown = {row["series"] for row in (*picture.points, *picture.theory)}
    assert picture.points
    assert shown <= set(picture.series)
    assert charts.drawn(claim.id, picture).specs


def test_the_best_arm_is_that_of_the_seeds_that_chose_the_rates():
    part = pl.DataFrame({"arm": ["step", "cosine"], "score": [0.2, 0.1], "validation": [0.1, 0.9]})
    assert arms.best(part, ("step", "cosine")) == "cosine"


def test_growth_is_set_against_the_best_decaying_arm():
    found = arms.against_decay(tables(), "samples")
    assert found == pytest.approx([math.log2(0.2 / 0.1)] * QUICK["seeds"])


def test_at_equal_examples_a_decaying_arm_of_any_size_is_a_rival():
    made = tables()
    named = pl.col("arm") == f"{next(iter(nets.DECAYS))} equal"
    better = [
        pl.when(named).then(0.01).otherwise(pl.col(name)).alias(name)
        for name in ("score", "validation")
    ]
    changed = made | {arms.TABLE: made[arms.TABLE].with_columns(better)}
    assert (arms.against_decay(changed, "samples") < 0).all()


def test_the_time_of_each_net_is_its_own():
    made = tables()
    slow = made[arms.SECONDS].with_columns(
        pl.lit("slow").alias("net"), pl.lit(9.0).alias("seconds")
    )
    both = made | {arms.SECONDS: pl.concat([made[arms.SECONDS], slow])}
    plain_time = arms.time_of(made, "double", "plain")
    assert (arms.time_of(both, "double", "plain") == plain_time).all()
    assert (arms.time_of(both, "double", "slow") > plain_time).all()


def test_where_no_decaying_arm_fits_the_time_nothing_is_said():
    made = tables()
    slow = pl.when(pl.col("batch_size") == made[arms.SECONDS]["batch_size"].to_list()[-1])
    seconds = made[arms.SECONDS].with_columns(
        slow.then(9.0).otherwise(pl.col("seconds")).alias("seconds")
    )
    found = arms.against_decay(made | {arms.SECONDS: seconds}, "time")
    assert np.isnan(found).all()
    assert len(found) == QUICK["seeds"]


def test_arms_of_as_many_updates_take_as_long_where_time_is_affine_in_the_batch():
    found = arms.time_ratio(tables())
    assert np.abs(found).max() < 0.05
    assert arms.in_time(tables(), tables()[arms.TABLE]) == tuple(
        f"{name} equal" for name in nets.DECAYS
    )


def test_warming_up_is_set_against_the_final_rate_from_the_start():
    assert vanish.warming(tables()) == pytest.approx([math.log2(3000)] * QUICK["problems"])
    warm, kept = (vanish.planned(f"rate {name}", 10, "none") for name in ("warm", "kept"))
    assert warm.sizes == kept.sizes
    assert warm.rates[-1] == kept.rates[0] == kept.rates[-1]
    assert warm.rates[0] < warm.rates[2] < warm.rates[4] == warm.rates[9]


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
    assert claim.finding or claim.twin["fault"] in set(FAULTS) - {"none"}


def test_every_fault_is_planted_somewhere():
    assert {claim.twin["fault"] for claim in CLAIMS.values()} == set(FAULTS) - {"none"}


MARKED = {"norm-rmsprop", "accuracy-shb", "accuracy-rmsprop"}
"""Claims that a quick study cannot decide, known beforehand."""


def test_claims_that_need_the_full_study_are_decided_by_it():
    full = {claim.id: claim for claim in IN_MODES["full"]}
    few = {name for name, claim in CLAIMS.items() if not suffices(claim)}
    assert few <= MARKED
    assert all(needs_full(CLAIMS[name], full[name]) for name in few)


@pytest.mark.parametrize("mode", MODES)
def test_the_cells_of_every_mode_can_be_planned(mode):
    cells = STUDY.cells(STUDY.parameters[mode])
    assert {cell.table for cell in cells} == set(STUDY_TABLES)
    assert len({(cell.table, repr(cell.settings)) for cell in cells}) == len(cells)


STUDY_TABLES = (
    *(plateau.TABLE, plateau.IDENTITY, vanish.TABLE),
    *(table.TABLE, arms.TABLE, arms.SECONDS),
)


def test_missing_pictures_are_named():
    words = "The task `cifar10` needs its pictures."
    assert words in STUDY.lacks(STUDY.parameters["paper"], Bench())
    assert STUDY.lacks(QUICK, Bench()) == ""


def test_rates_are_chosen_on_other_seeds():
    judged, tuned = (
        {seed(Bench(), i) for i in range(50)}
        for seed in (training.study_seed, training.tuning_seed)
    )
    assert len(judged | tuned) == 100


@functools.lru_cache(maxsize=2)
def measured(name, fault):
    """One table of the tiny study with a planted fault."""
    parameters = {**QUICK, **TINY, "fault": fault}
    cells = [cell for cell in STUDY.cells(parameters) if cell.table == name]
    found = measure(STUDY, cells, Bench(seed=3), workers=0)
    return found, {claim.id: claim for claim in STUDY.claims(parameters)}


def table_of(name):
    """Which table a claim reads."""
    if name == "nshb-is-shb":
        return plateau.IDENTITY
    values = CLAIMS[name].values
    home = getattr(values, "func", values).__module__.rpartition(".")[2]
    return {"plateau": "plateau", "vanish": "vanish", "table": "table", "arms": "arms"}[home]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CLAIMS, key=lambda n: (table_of(n), str(CLAIMS[n].twin))))
def test_a_planted_fault_is_not_reproduced(name):
    found, claims = measured(table_of(name), CLAIMS[name].twin["fault"])
    judged = judge(claims[name], claims[name].values(found))
    assert judged.verdict is Outcome.NOT_REPRODUCED, judged


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDY_TABLES)
def test_every_table_gives_each_claim_a_number_a_repetition(name):
    found, claims = measured(name, "none")
    for claim in claims.values():
        if not claim.finding and table_of(claim.id) == name:
            values = claim.values(found)
            assert len(values) == claim.n
            assert np.isfinite(values).all()
