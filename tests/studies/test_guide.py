"""The guide as claims: what is read from tables, planted faults, and a whole study in small."""

import functools
import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from batchlab import _platform
from batchlab.app import study as app
from batchlab.models.rnn import GRUClassifier
from batchlab.report import figures
from batchlab.studies.claim import Bench
from batchlab.studies.guide import (
    STUDY,
    TOPICS,
    data,
    ends,
    growth,
    memory,
    passes,
    reach,
    speed,
    training,
)
from batchlab.studies.running import measure
from batchlab.studies.verdict import Outcome, judge

QUICK = dict(STUDY.parameters["quick"])
TINY = {
    **{"examples": 64, "few": 32, "small": 4, "large": 32, "stages": 2, "passes": 1.0},
    **{"short": 1.0, "long": 2.0, "reach_small": 3.0, "reach_large": 3.0, "target": 3.0},
    **{"rates": 1, "tuning": 1, "seeds": 4, "pairs": 2, "rounds": 8, "trials": 2},
}
CLAIMS = {claim.id: claim for claim in STUDY.claims(QUICK) if not claim.finding}


# Tables of a world in which every sentence of the guide holds, and of one turned round.


def rows_of_speed(right):
    """Twice as fast with every doubling up to 64, then not any more; turned round, slower."""
    sizes = speed.doublings(QUICK["examples"])
    return [
        {"round": r, "batch_size": b, "speed": (min(b, 64) if right else 1 + b**-1.0 + b / 1e2)}
        for r in range(QUICK["rounds"])
        for b in sizes
    ]


def rows_of_memory(right):
    power = 1 if right else 2
    return [
        {"trial": t, "batch_size": b, **dict.fromkeys(("tensors", "resident"), 1e6 + b**power)}
        for t in range(QUICK["trials"])
        for b in (64, 256, 1024)
    ]


def rows_of_reach(right):
    """Examples ∝ 1 + B/B*, with a smaller B* for the recurrent net."""
    found = []
    for net, critical in (("cnn", 100), ("gru", 20)):
        for kind in ("digits", "signals"):
            for r in range(QUICK["seeds"]):
                for b in (32, 256):
                    size = b if right else 32 * 256 / b
                    examples = 1000 * (1 + size / critical) * (1 + 0.01 * r)
                    updates = examples / b if right else examples * b
                    told = {"net": net, "data": kind, "repetition": r, "batch_size": b}
                    found.append({**told, "samples": examples, "updates": updates})
    return found


def rows_of_growth(right):
    better = "grow" if right else "shrink"
    return [
        {
            "rate": rate,
            "order": o,
            "repetition": r,
            "share": s,
            "loss": 0.1 if o == better else 0.2,
        }
        for rate in growth.RATES
        for o in growth.ORDERS
        for r in range(QUICK["seeds"])
        for s in (0.0, 0.9, 1.0)
    ]


def rows_of_passes(right):
    steps = (("", 0, 2.0), ("short", 2560, 0.4), ("long", 20480, 0.6 if right else 0.3))
    return [
        {
            **{"labels": labels, "few": 256, "repetition": r, "samples": s, "window": w},
            **{"validation": v, "accuracy": 1 - v / 3, "training": v / 2},
        }
        for labels in passes.LABELS
        for r in range(QUICK["seeds"])
        for w, s, v in steps
    ]


def rows_of_ends(right):
    small, large = (0.1, 0.2) if right else (0.2, 0.1)
    return [
        {
            **setting._asdict(),
            **{"pair": p, "side": side, "batch_size": b, "disagreement": d, "learning_rate": 0.1},
            **{"units": u, "units.0": u, "units.1": u, "weights": u},
        }
        for setting in ends.SETTINGS
        for b, u, d in ((32, small, large), (256, large, small))
        for p in range(QUICK["pairs"])
        for side in (0, 1)
    ]


def tables(right=True):
    makers = {
        speed.TABLE: rows_of_speed,
        memory.TABLE: rows_of_memory,
        reach.TABLE: rows_of_reach,
        growth.TABLE: rows_of_growth,
        passes.TABLE: rows_of_passes,
        ends.TABLE: rows_of_ends,
    }
    return {name: pl.DataFrame(make(right)) for name, make in makers.items()}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_reproduced_where_the_guide_is_right(name):
    values = CLAIMS[name].values(tables())
    assert len(values) == CLAIMS[name].n
    assert judge(CLAIMS[name], values).verdict is Outcome.REPRODUCED


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_not_reproduced_where_the_guide_is_turned_round(name):
    values = CLAIMS[name].values(tables(right=False))
    assert judge(CLAIMS[name], values).verdict is Outcome.NOT_REPRODUCED


@pytest.mark.parametrize("claim", STUDY.claims(QUICK), ids=lambda claim: claim.id)
def test_a_picture_shows_only_series_that_have_a_name(claim):
    picture = claim.picture(tables())
    shown = {row["series"] for row in (*picture.points, *picture.theory)}
    assert shown == set(picture.series)


@pytest.mark.parametrize("mode", STUDY.parameters)
def test_ids_are_unique_and_findings_come_last(mode):
    claims = STUDY.claims(STUDY.parameters[mode])
    assert len({claim.id for claim in claims}) == len(claims)
    found = [claim.finding for claim in claims]
    assert found == sorted(found)


def test_every_claim_speaks_both_languages_and_has_a_twin():
    for claim in STUDY.claims(QUICK):
        for text in (claim.sentence, claim.measured, claim.meaning):
            assert text.en
            assert text.ja
        assert bool(claim.popular.en) == bool(claim.popular.ja)
        assert bool(claim.depends.en) == bool(claim.depends.ja)
        assert claim.finding or claim.twin.keys() <= QUICK.keys()
        assert claim.finding or claim.twin


# What is read from tables.


def test_the_knee_is_the_smallest_batch_near_the_best_speed():
    assert set(speed.knees(tables())) == {64.0}


def test_memory_that_grows_as_a_square_has_exponent_two():
    found = memory.exponent({memory.TABLE: pl.DataFrame(rows_of_memory(False))}, "tensors")
    assert found == pytest.approx(np.full(QUICK["trials"], 2.0))


def test_a_target_that_is_not_reached_leaves_the_claim_open():
    rows = rows_of_reach(True)
    rows[0] |= {"samples": math.nan, "updates": math.nan}
    claim = CLAIMS["small-needs-more-updates"]
    judged = judge(claim, claim.values({reach.TABLE: pl.DataFrame(rows)}))
    assert (judged.verdict, judged.missing) == (Outcome.INCONCLUSIVE, 1)


def test_growth_is_judged_by_the_last_tenth_only():
    rows = [row | {"loss": row["loss"] if row["share"] else 99.0} for row in rows_of_growth(True)]
    found = growth.shrink_loses({growth.TABLE: pl.DataFrame(rows)}, "constant")
    assert found == pytest.approx(np.ones(QUICK["seeds"]))


def test_a_stale_evaluation_changes_nothing():
    told = passes.stale(rows_of_passes(True))
    found = passes.change({passes.TABLE: pl.DataFrame(told)}, "wrong")
    assert set(found) == {0.0}


# Nets, data and trainings.


def test_a_recurrent_net_reads_a_picture_row_by_row():
    torch.manual_seed(0)
    net, x = data.RowGRU(1, 8, 16, 10), torch.rand(3, 1, 8, 8)
    assert isinstance(net.body, GRUClassifier)
    assert torch.equal(net(x), net.body(x[:, 0]))


def test_channels_of_a_row_are_read_together():
    net, x = data.RowGRU(3, 4, 16, 10), torch.rand(2, 3, 4, 4)
    rows = torch.stack([torch.cat([x[:, c, s] for c in range(3)], 1) for s in range(4)], 1)
    assert torch.equal(net(x), net.body(rows))


def test_both_nets_see_the_same_data():
    one, other = (data.prepared(net, "signals", 40) for net in reach.NETS)
    index = torch.arange(40)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.train.batch(index), other.train.batch(index), strict=True)
    )


def test_wrong_labels_are_in_the_training_data_only():
    clean, spoilt = (data.prepared("mlp", "digits", 100, wrong=w) for w in (0.0, 0.2))
    index = torch.arange(100)
    assert int((clean.train.batch(index)[1] != spoilt.train.batch(index)[1]).sum()) == 20
    assert torch.equal(clean.validation.batch(index)[1], spoilt.validation.batch(index)[1])


def test_learning_rates_are_chosen_on_other_seeds():
    bench = Bench(seed=3)
    study, tuning = (f(bench, 1000) for f in (training.study_seeds, training.tuning_seeds))
    assert not set(study) & set(tuning)
    assert not set(study) & set(training.study_seeds(Bench(seed=4), 1000))


class Known(training.Trainer):
    """Trains nothing: a run is its learning rate."""

    def __init__(self):
        self.asked = []

    def train(self, configs, job, starts=None):
        self.asked += [(config.learning_rate, config.seed) for config in configs]
        return tuple(configs), []


@pytest.mark.parametrize("best", [0.05, 0.2, 0.4, 3.2])
def test_a_rate_at_the_end_of_the_grid_widens_it(best):
    trainer = Known()
    run = training.RunConfig()
    found = trainer.tuned(
        run, [0.1, 0.2, 0.4], [8, 9], training.Job(()), lambda one: abs(one.learning_rate - best)
    )
    assert found == pytest.approx(best)
    assert {seed for _, seed in trainer.asked} == {8, 9}
    assert len(trainer.asked) == len(set(trainer.asked))


def test_a_shared_start_is_one_model_for_two_seeds():
    ready = data.prepared("mlp", "digits", 100)
    config = training.RunConfig(rule="shb", seed=5).resolved(100)
    state, own = ends.begin(ready, config), ready.objective(5)
    assert (state.samples, state.updates) == (0, 0)
    params = dict(own.named_parameters())
    assert all(torch.equal(params[name], value) for name, value in state.progress.params.items())


def shares(values):
    """(Σv²)²/(n Σv⁴) over the last axis, written from the formula."""
    squares = values.double() ** 2
    return (squares.sum(-1) ** 2 / (squares**2).sum(-1) / values.shape[-1]).mean().item()


def test_the_probe_hears_hidden_units_after_their_relu():
    ready = data.prepared("mlp", "digits", 1500)
    objective = ready.objective(0)
    x = ready.validation.batch(torch.arange(ready.validation.examples))[0]
    layers = objective.module[0].body
    first = torch.relu(layers[1](x.flatten(1)))
    second = torch.relu(layers[3](first))
    assert ends.Units(ready)(objective, 0) == pytest.approx(
        {
            "units.0": shares(first.detach()),
            "units.1": shares(second.detach()),
            "weights": shares(layers[1].weight.detach()),
        },
        rel=1e-5,
    )


def test_the_channels_of_a_convolutional_net_are_its_units():
    ready = data.prepared("cnn", "digits", 1500)
    objective = ready.objective(0)
    x = ready.validation.batch(torch.arange(ready.validation.examples))[0]
    first = torch.relu(objective.module[0].body[0](x)).movedim(1, -1)
    found = ends.Units(ready)(objective, 0)
    assert set(found) == {"units.0", "units.1", "weights"}
    assert found["units.0"] == pytest.approx(per_place(first.detach()), rel=1e-5)


def per_place(said):
    """The share of the channels at every pixel; none where all are silent."""
    found = said.flatten(0, -2)
    heard = found[(found != 0).any(-1)]
    return shares(heard) * len(heard) / len(found)


def test_missing_pictures_are_named():
    asked = STUDY.parameters["paper"]
    assert "The task `mnist` needs its pictures." in STUDY.lacks(asked, Bench())
    assert STUDY.lacks(QUICK, Bench()) == ""


# The whole, in small.


@pytest.fixture
def one_core(monkeypatch):
    """No worker processes: everything is too short for them."""
    monkeypatch.setattr(_platform, "available_cores", lambda **given: 1)


@functools.lru_cache(maxsize=1)
def measured(table, fault):
    """One table of the tiny study with a planted fault."""
    # Of 64 pictures the process' own memory says nothing.
    sizes = {"examples": 1024, "trials": 8} if table == memory.TABLE else {}
    parameters = {**QUICK, **TINY, **sizes, "fault": fault}
    cells = [cell for cell in STUDY.cells(parameters) if cell.table == table]
    found = measure(STUDY, cells, Bench(seed=3), workers=0)
    return found, {claim.id: claim for claim in STUDY.claims(parameters)}


def table_of(name):
    """Which table a claim reads: that of the module its function lives in."""
    values = CLAIMS[name].values
    home = getattr(values, "func", values).__module__
    return next(table for table, topic in TOPICS.items() if topic.__name__ == home)


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("name", sorted(CLAIMS, key=lambda n: (table_of(n), str(CLAIMS[n].twin))))
def test_a_planted_fault_is_not_reproduced(name):
    found, claims = measured(table_of(name), CLAIMS[name].twin["fault"])
    judged = judge(claims[name], claims[name].values(found))
    assert judged.verdict is Outcome.NOT_REPRODUCED, judged


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_the_whole_study_runs_in_small(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "write", lambda charts, folder: ())
    changes = [f"{name}={value}" for name, value in TINY.items()]
    report = app.study("guide", set=changes, out=tmp_path, workers=0)
    plan = json.loads((tmp_path / "plan.json").read_text())["stages"]["study"]
    assert [one["id"] for one in plan["claims"]] == [one.id for one in report.verdicts]
    assert len(plan["cells"]) == len(STUDY.cells(QUICK))
    for claim, one in zip(STUDY.claims({**QUICK, **TINY}), report.concluded, strict=True):
        found = one.judged
        assert found.n == claim.n
        # So few pictures may leave the process' own memory without a number.
        assert found.missing or found.low <= found.value <= found.high
        assert one.picture.points
    page = (tmp_path / "report.html").read_text()
    assert all(claim.sentence.ja in page for claim in STUDY.claims({**QUICK, **TINY}))
    again = app.study("guide", set=changes, out=tmp_path, workers=0, resume=True)
    assert again.verdicts == report.verdicts
