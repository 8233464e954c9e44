"""The guide as claims: what is read from tables, planted faults, and a whole study in small."""

import dataclasses
import functools
import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from batchlab import _platform
from batchlab.app import study as app
from batchlab.engine import Job
from batchlab.errors import InvalidValueError
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
from batchlab.studies.guide.asked import Asked
from batchlab.studies.running import measure
from batchlab.studies.verdict import Outcome, judge, suffices

QUICK = dict(STUDY.parameters["quick"])
TINY = {
    **{"examples": 128, "few": 64, "small": 8, "large": 32, "stages": 2, "passes": 4.0},
    **{"short": 2.0, "long": 6.0, "reach_small": 3.0, "reach_large": 3.0, "target": 3.0},
    **{"rates": 1, "seeds": 6, "arrivals": 4, "pairs": 4, "longer": 4},
    **{"rounds": 8, "trials": 2},
}
TOO_FEW: set[str] = set()
"""Claims for which even the repetitions of ``--full`` were known to be too few."""
CLAIMS = {claim.id: claim for claim in STUDY.claims(QUICK) if not claim.finding}


# Tables of a world in which every sentence of the guide holds, and of one turned round. What all
# runs of a repetition have in common is not what is claimed.


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
    """Examples ∝ 1 + B/B*, with a smaller B* for the recurrent net; turned round, falling in B."""
    return [
        {
            **{"net": net, "data": kind, "repetition": r, "batch_size": b},
            "samples": 1000 * (1 + (b if right else 32 * 256 / b) / critical) * (1 + 0.1 * r),
        }
        for net, critical in (("thin", 100), ("gru", 20))
        for kind in ("digits", "signals")
        for r in range(QUICK["arrivals" if (net, kind) == ("thin", "digits") else "compared"])
        for b in (32, 256)
    ]


def rows_of_growth(right):
    better = "grow" if right else "shrink"
    return [
        {
            **{"rate": rate, "order": o, "repetition": r, "share": s},
            "loss": (0.1 if o == better else 0.2) * (1 + 0.1 * r),
        }
        for rate in growth.RATES
        for o in growth.ORDERS
        for r in range(QUICK["seeds"])
        for s in (0.0, 0.9, 1.0)
    ]


def rows_of_passes(right):
    """The rate for the long training ends it a little better."""
    steps = (("", 0, 2.0), ("short", 2560, 0.4), ("long", 10240, 0.6 if right else 0.3))
    return [
        {
            **{"labels": labels, "rate": rate, "few": 256, "repetition": r},
            **{"samples": s, "window": w, "training": v / 2},
            "validation": v + 0.1 * r + (0.05 if rate == "short" and w == "long" else 0.0),
            "accuracy": 1 - v / 3,
        }
        for labels in passes.LABELS
        for rate in passes.HORIZONS
        for r in range(QUICK["seeds"])
        for w, s, v in steps
    ]


def rows_of_ends(right):
    small, large = (0.1, 0.2) if right else (0.2, 0.1)
    return [
        {
            **setting._asdict(),
            **{"pair": p, "side": side, "batch_size": b, "disagreement": d + 0.1 * p},
            **dict.fromkeys(("units", "units.0", "units.1", "weights"), u * (1 + 0.1 * p)),
        }
        for setting in ends.SETTINGS
        for b, u, d in ((32, small, large), (256, large, small))
        for p in range(QUICK["pairs" if setting.length == "samples" else "longer"])
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


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_repetition_has_in_common_cancels_in_any_order_of_the_rows(name):
    mixed = {
        table: rows.sample(fraction=1.0, shuffle=True, seed=1) for table, rows in tables().items()
    }
    values = CLAIMS[name].values(mixed)
    assert values == pytest.approx(np.full(len(values), values[0]))


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


@pytest.mark.parametrize("name", CLAIMS)
def test_full_has_repetitions_enough_or_is_known_not_to(name):
    full = {claim.id: claim for claim in STUDY.claims(STUDY.parameters["full"])}
    assert suffices(full[name]) == (name not in TOO_FEW)


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


@pytest.mark.parametrize(
    ("growth_of_examples", "outcome"),
    [(0.5, Outcome.REPRODUCED), (-0.5, Outcome.NOT_REPRODUCED), (1.5, Outcome.NOT_REPRODUCED)],
)
def test_both_counts_of_a_target_are_one_range(growth_of_examples, outcome):
    rows = [
        row | {"samples": 1000 * row["batch_size"] ** growth_of_examples}
        for row in rows_of_reach(True)
    ]
    claim = CLAIMS["small-more-updates-fewer-samples"]
    found = claim.values({reach.TABLE: pl.DataFrame(rows)})
    assert found == pytest.approx(np.full(QUICK["arrivals"], 3 * growth_of_examples))
    assert judge(claim, found).verdict is outcome


def test_a_target_that_is_not_reached_leaves_the_claim_open():
    rows = rows_of_reach(True)
    rows[0] |= {"samples": math.nan}
    claim = CLAIMS["small-more-updates-fewer-samples"]
    judged = judge(claim, claim.values({reach.TABLE: pl.DataFrame(rows)}))
    assert (judged.verdict, judged.missing) == (Outcome.INCONCLUSIVE, 1)


def test_growth_is_judged_by_the_last_tenth_only():
    rows = [row | {"loss": row["loss"] if row["share"] else 99.0} for row in rows_of_growth(True)]
    found = growth.shrink_loses({growth.TABLE: pl.DataFrame(rows)}, "constant")
    assert found == pytest.approx(np.ones(QUICK["seeds"]))


def test_an_early_evaluation_turns_the_change_round():
    told = pl.DataFrame(passes.early(rows_of_passes(True)))
    found = passes.change({passes.TABLE: told}, "wrong", "long")
    assert found == pytest.approx(np.full(QUICK["seeds"], 0.6 - 2.0))


def test_the_long_training_may_have_a_rate_of_its_own():
    told = {passes.TABLE: pl.DataFrame(rows_of_passes(True))}
    kept, own = (passes.change(told, "right", rate).mean() for rate in passes.HORIZONS)
    assert (kept, own) == pytest.approx((0.25, 0.2))


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
    one, other = (data.prepared(net, "signals", 40, Bench(), held=40) for net in reach.NETS)
    index = torch.arange(40)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.train.batch(index), other.train.batch(index), strict=True)
    )


def test_wrong_labels_are_in_the_training_data_only():
    clean, spoilt = (
        data.prepared("mlp", "digits", 100, Bench(), held=100, wrong=w) for w in (0.0, 0.2)
    )
    index = torch.arange(100)
    assert int((clean.train.batch(index)[1] != spoilt.train.batch(index)[1]).sum()) == 20
    assert torch.equal(clean.validation.batch(index)[1], spoilt.validation.batch(index)[1])


def test_no_two_runs_share_a_seed_by_accident():
    named = [
        seed
        for bench in (Bench(seed=3), Bench(seed=4))
        for i in (*range(1000), *range(4000, 6000))
        for seed in (training.study_seed(bench, i), training.tuning_seed(bench, i))
    ]
    assert len(set(named)) == len(named)


def test_the_grids_of_repetitions_lie_evenly_between_the_steps():
    moved = [training.shift(Bench(), i) for i in range(1000)]
    assert -0.5 <= min(moved) < -0.49
    assert 0.49 < max(moved) < 0.5
    # The standard error of the mean of 1000 uniform draws is 0.009.
    assert abs(np.mean(moved)) < 0.036


class Known(training.Trainer):
    """Trains nothing: a run is its configuration."""

    def __init__(self, bench=None):
        self.asked, self.bench = [], bench or Bench()

    def choices(self, repetitions, of):
        def score(configs, of_repetition):
            self.asked += [(config.learning_rate, config.seed) for config in configs]
            assert len(of_repetition) == len(configs)
            return [of(config) for config in configs]

        return self.tuned(training.RunConfig(), [0.1, 0.2, 0.4], repetitions, score)


def test_a_rate_is_judged_by_its_mean_over_the_same_two_seeds(monkeypatch):
    trainer, seen = Known(), []
    trainer.train = lambda configs, job: (seen.extend(configs) or configs, [])
    monkeypatch.setattr(training, "end", lambda run: run.learning_rate + run.seed % 1000)
    run = training.RunConfig(samples=100, seed=5)
    found = trainer.endings([run.replace(learning_rate=rate) for rate in (0.1, 0.2)], [0, 0])
    seeds = {run.seed for run in seen}
    assert len(seeds) == training.TUNING
    assert found == pytest.approx(
        [rate + np.mean([s % 1000 for s in seeds]) for rate in (0.1, 0.2)]
    )


def steps(run, best):
    """How many steps of the grid a run's rate is away from the best."""
    return math.log2(run.learning_rate / best)


@pytest.mark.parametrize("best", [0.05, 0.2, 0.4, 3.2])
def test_a_rate_at_the_end_of_a_grid_widens_it(best):
    trainer = Known()
    found = trainer.choices(5, lambda run: abs(steps(run, best)))
    assert all(abs(math.log2(rate / best)) <= 0.5 for rate in found)
    assert len(set(found)) == 5
    assert len(trainer.asked) == len(set(trainer.asked))


def test_a_repetition_chooses_by_its_own_seeds_only():
    odd = training.tuning_seed(Bench(), 1)
    found = Known().choices(3, lambda run: abs(steps(run, 0.4 if run.seed == odd else 0.1)))
    assert [round(math.log2(rate / 0.1)) for rate in found] == [0, 2, 0]


def test_the_run_of_a_repetition_has_its_rate_and_a_seed_of_its_own():
    runs = Known().named(training.RunConfig(), [0.1, 0.2])
    assert [run.learning_rate for run in runs] == [0.1, 0.2]
    assert [run.seed for run in runs] == [training.study_seed(Bench(), i) for i in range(2)]


def false_verdicts(shared, worlds=40, n=8):
    """How often two equal batch sizes are told apart, where the score is 0.5 · steps² + noise.

    Args:
        shared: Whether all repetitions take the rate of the first.
        worlds: Studies.
        n: Repetitions.
    """
    claim, wrong = dataclasses.replace(CLAIMS["grow-beats-shrink-constant"], n=n), 0
    for world in range(worlds):
        sides = []
        for side, best in enumerate((0.2, 0.28)):
            draws = np.random.default_rng((world, side))
            noise = {}

            def score(run, best=best, draws=draws, noise=noise):
                drawn = noise.setdefault((run.learning_rate, run.seed), draws.normal())
                return 0.5 * steps(run, best) ** 2 + drawn

            rates = Known(Bench(seed=world)).choices(n, score)
            rates = [rates[0]] * n if shared else rates
            sides.append([0.5 * math.log2(r / best) ** 2 + 0.1 * draws.normal() for r in rates])
        judged = judge(claim, np.subtract(*sides))
        wrong += judged.verdict is not Outcome.INCONCLUSIVE
    return wrong / worlds


def test_the_doubt_about_the_rate_is_in_the_interval():
    # 99 % intervals of a skewed difference; 40 worlds: a standard error of 1.6 points at 1 %.
    assert false_verdicts(shared=False) <= 0.05


def test_a_rate_that_all_repetitions_share_gives_false_verdicts():
    assert false_verdicts(shared=True) > 0.3


@pytest.fixture(scope="module")
def race():
    """Arrivals of three learning rates on the digits, of which the last one is hopeless."""
    ready = data.prepared("mlp", "digits", 256, Bench(), held=64)
    run = training.RunConfig(rule="adam", batch_size=16, samples=12 * 64, seed=5)
    configs = [run.replace(learning_rate=rate) for rate in (0.01, 0.003, 1e-6)]
    with training.Trainer(ready, Bench(), 1) as trainer:

        def arrivals(heats, record=math.inf):
            return reach.raced(trainer, Asked(large=64, target=1.5), {0: record}, configs, heats)

        arrivals.whole, _ = trainer.train(configs, Job(tuple(range(0, 769, 64))))
        arrivals.alone = arrivals((0, 1, 2))
        yield arrivals


def test_a_race_in_legs_arrives_where_whole_runs_arrive(race):
    assert race.alone == [reach.arrived([one.series["loss"]], 1.5) for one in race.whole]
    assert race.alone[0] < race.alone[1] < math.inf == race.alone[2]


def test_a_heat_ends_with_the_leg_of_its_first_arrival(race):
    together = race((0, 0, 0))
    assert together[0] == race.alone[0]
    # Twelve looks in eight legs.
    ends = [64 * round(leg * 12 / reach.LEGS) for leg in range(1, reach.LEGS + 1)]
    over = min(end for end in ends if end >= race.alone[0])
    assert together[1] == (race.alone[1] if race.alone[1] <= over else math.inf)


def test_a_run_that_cannot_break_the_record_is_given_up(race):
    assert race.alone[0] > 128
    assert race((0, 0, 0), record=64.0) == [math.inf] * 3


def test_an_unknown_fault_is_refused():
    with pytest.raises(InvalidValueError, match="`fault` must be one of none, reciprocal"):
        STUDY.claims(QUICK | {"fault": "batch ignored"})


def test_a_size_that_does_not_run_has_no_memory(monkeypatch):
    def fails(ready, size, seed):
        raise MemoryError

    monkeypatch.setattr(memory, "_train", fails)
    ready = data.prepared("wide", "digits", 100, Bench(), held=99)
    assert math.isnan(memory.tensors(ready, 50, seed=0))
    assert math.isnan(memory.resident(ready, 50, seed=0))


def test_large_batches_are_neither_timed_nor_weighed_at_once():
    paper = Asked.of(STUDY.parameters["paper"])
    assert speed._sizes(paper)[-1] == memory._largest(paper) == data.MOST_TOGETHER


def test_the_price_of_a_cell_follows_the_net_and_the_pictures():
    times = [data.flop(*what) for what in (("mlp", "digits"), ("cnn", "digits"), ("cnn", "mnist"))]
    assert times == sorted(times)
    assert times[2] > 5 * times[1]


def test_each_pictures_wide_net_is_wider_than_the_plain_one():
    for kind in data.KINDS:
        wide, plain = (data.build(net, kind)[-1].body[0].out_channels for net in ("wide", "cnn"))
        assert wide > plain


def test_a_shared_start_is_one_model_for_two_seeds():
    ready = data.prepared("mlp", "digits", 100, Bench(), held=99)
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
    ready = data.prepared("mlp", "digits", 1500, Bench(), held=512)
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
    ready = data.prepared("cnn", "digits", 1500, Bench(), held=512)
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
    # Of 128 pictures the process' own memory says nothing, and a net hardly changes.
    sizes = {
        memory.TABLE: {"examples": 1024, "trials": 8},
        ends.TABLE: {"examples": 256, "passes": 6.0, "pairs": 16, "large": 128},
        passes.TABLE: {"few": 128, "short": 6.0, "long": 9.0},
    }.get(table, {})
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
        assert not found.missing or claim.id == "memory-linear-resident"
        assert one.picture.points
    page = (tmp_path / "report.html").read_text()
    assert all(claim.sentence.ja in page for claim in STUDY.claims({**QUICK, **TINY}))
    again = app.study("guide", set=changes, out=tmp_path, workers=0, resume=True)
    assert again.verdicts == report.verdicts
