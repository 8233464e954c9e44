"""Runs together are what each is alone: in either executor, in any company and order."""

import numpy as np
import pytest
import torch
from torch import nn

from batchlab.engine import Job, loop, stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.stacked import train_stacked
from batchlab.rules import RULES
from batchlab.types import Status
from tests.engine import tiny

SMOOTH = 1e-10
MODELS = [tiny.batch_norm, tiny.with_dropout]


def several(**changes):
    """Runs that differ in seed, rate and momentum."""
    return [
        tiny.run(seed=s, learning_rate=0.02 * (s + 1), momentum=0.1 * s, **changes)
        for s in range(4)
    ]


@pytest.mark.parametrize("model", MODELS)
def test_both_executors_give_the_same_trace_and_states(model):
    prepared = tiny.ready(model, metric="accuracy")
    (one, states), (other, others) = (
        tiny.trained(prepared, several(reuse=2, samples=200), executor)
        for executor in ("loop", "stacked")
    )
    assert tiny.apart(one, other) <= SMOOTH
    for a, b in zip(states, others, strict=True):
        assert (a.samples, a.updates) == (b.samples, b.updates) == (200, 50)
        for name, leaf in tiny.leaves(a).items():
            torch.testing.assert_close(leaf, tiny.leaves(b)[name], rtol=SMOOTH, atol=SMOOTH)


FAST_RULES = "qhm", "nesterov", "adam"
OTHERS = [pytest.param(rule, marks=pytest.mark.slow) for rule in RULES if rule not in FAST_RULES]


@pytest.mark.parametrize("rule", [*FAST_RULES, *OTHERS])
def test_both_executors_agree_under_every_rule(rule):
    configs = [
        tiny.run(rule=rule, learning_rate=rate, weight_decay=0.01, nu=0.4, clip_norm=0.5)
        for rate in (0.01, 0.02)
    ]
    one, other = (tiny.trained(tiny.ready(), configs, e)[0] for e in ("loop", "stacked"))
    assert tiny.apart(one, other) <= SMOOTH


@pytest.mark.parametrize("model", MODELS)
def test_a_stacked_run_is_the_same_alone_among_others_and_in_any_order(model):
    prepared, configs = tiny.ready(model), several()
    together, _ = tiny.trained(prepared, configs, "stacked")
    turned, _ = tiny.trained(prepared, configs[::-1], "stacked")
    assert tiny.apart(together, type(turned)(turned.runs[::-1])) <= SMOOTH
    for config, run in zip(configs, together.runs, strict=True):
        alone, _ = tiny.trained(prepared, [config], "stacked")
        assert alone.runs[0].config == run.config == config
        assert tiny.apart(alone, type(together)((run,))) <= SMOOTH


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_chunk_size_does_not_matter(size, monkeypatch):
    prepared, configs = tiny.ready(tiny.batch_norm), several(samples=160)
    whole, _ = tiny.trained(prepared, configs, "stacked")
    monkeypatch.setattr("batchlab.engine.sweep.LEAST_CHUNK", size)
    assert tiny.apart(whole, tiny.trained(prepared, configs, "stacked")[0]) <= SMOOTH


def test_bfloat16_runs_agree_within_its_precision():
    configs = several(precision="bfloat16", samples=160)
    one, other = (
        tiny.trained(tiny.ready(tiny.batch_norm), configs, e)[0] for e in ("loop", "stacked")
    )
    for a, b in zip(one.runs, other.runs, strict=True):
        losses = a.series["loss"].values
        assert losses[-1] < losses[0]
        assert np.abs(b.series["loss"].values / losses - 1).max() < 0.02


def test_a_training_step_task_gives_the_same_in_both_executors():
    def step(model, batch):
        return tiny.cross(model(batch[0]), batch).mean()

    one, other = (
        tiny.trained(tiny.ready(loss=None, training_step=step), several(samples=80), e)[0]
        for e in ("loop", "stacked")
    )
    by_loss = tiny.trained(tiny.ready(), several(samples=80), "loop")[0]
    assert tiny.apart(one, other) <= SMOOTH
    assert tiny.apart(one, by_loss) <= SMOOTH


# Divergence


class Cliff(nn.Module):
    """θ falls by the rate at every update; the loss is not finite once θ is below 0."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return (self.theta + 0.0 * self.theta.sqrt()).expand(len(inputs))


class Jump(nn.Module):
    """A gradient that is infinite as soon as θ is 0, at a loss that is finite."""

    def __init__(self):
        super().__init__()
        self.theta, self.still = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

    def forward(self, inputs):
        return (self.theta + 2 * self.theta.abs().sqrt()).expand(len(inputs)) * self.still.detach()


def falling(model, **changes):
    return tiny.ready(model, loss=lambda outputs, batch: outputs, **changes)


def rates(*values, **changes):
    return [tiny.run(rule="sgd", learning_rate=value, **changes) for value in values]


@pytest.mark.parametrize("reuse", [1, 3])
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_the_first_update_with_a_loss_that_is_not_finite_is_named(executor, reuse):
    # θ after t updates is 1 − t·rate: below 0 from t = 5 (0.24) and 3 (0.4) on, so updates 6 and 4
    # see a loss that is not finite. 0.001 never gets there.
    configs = rates(0.24, 0.001, 0.4, reuse=reuse, samples=160)
    trace, states = tiny.trained(falling(Cliff), configs, executor)
    assert [r.status for r in trace.runs] == [Status.DIVERGED, Status.OK, Status.DIVERGED]
    assert [r.updates for r in trace.runs] == [6, 20 * reuse, 4]
    samples = [8 * (update - 1) // reuse // 8 * 8 for update in (6, 4)]
    assert [r.samples for r in trace.runs] == [samples[0], 160, samples[1]]
    assert "diverged at update 6:" in trace.runs[0].sentence
    assert [state is None for state in states] == [True, False, True]
    assert np.isnan(trace.runs[0].final("loss"))


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_the_first_update_that_makes_a_parameter_not_finite_is_named(executor):
    # θ + 2√|θ| has the slope 2 at θ = 1: the first update by ½ lands on 0 exactly, the second on
    # infinity.
    trace, _ = tiny.trained(falling(Jump), rates(0.5, 0.001, samples=80), executor)
    assert [r.status for r in trace.runs] == [Status.DIVERGED, Status.OK]
    assert trace.runs[0].updates == 2


@pytest.mark.parametrize("model", [tiny.batch_norm, tiny.with_dropout])
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_neighbours_of_a_diverged_run_are_untouched(executor, model):
    prepared, calm = tiny.ready(model), several(samples=160)
    wild = tiny.run(learning_rate=1e300, weight_decay=1e300, samples=160)
    alone, _ = tiny.trained(prepared, calm, executor)
    mixed, _ = tiny.trained(prepared, [calm[0], wild, *calm[1:]], executor)
    assert mixed.runs[1].status is Status.DIVERGED
    rest = type(mixed)((mixed.runs[0], *mixed.runs[2:]))
    assert tiny.apart(alone, rest) <= (SMOOTH if executor == "stacked" else 0)


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_cell_whose_runs_all_diverge_ends(executor):
    trace, states = tiny.trained(tiny.ready(), rates(1e300, 1e301, weight_decay=1e300), executor)
    assert {r.status for r in trace.runs} == {Status.DIVERGED}
    assert states == [None, None]
    assert all(r.updates < 5 for r in trace.runs)


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_run_whose_loss_never_falls_did_not_learn(executor):
    def uphill(outputs, batch):
        return 10.0 + outputs.detach().sum(1) * 0 - outputs.sum(1) + 2 * outputs.sum(1).detach()

    trace, _ = tiny.trained(tiny.ready(loss=uphill), rates(0.001, samples=80), executor)
    assert trace.runs[0].status is Status.DID_NOT_LEARN
    assert "never below its start" in trace.runs[0].sentence


def test_a_stack_that_stops_early_says_how_far_it_came():
    shares = []
    job = Job(evaluate_at=(0, 80), keep_end=True, until=80)
    prepared = tiny.ready()
    configs = several()
    capability = probe_capability(prepared, configs[0])
    found = train_stacked(prepared, configs, job, capability, tick=shares.append)
    assert [(r.samples, r.updates) for r, _ in found] == [(80, 10)] * 4
    assert shares == [1.0]


# Slots


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_runs_that_wait_for_a_slot_train_as_they_would_have(slots):
    prepared, configs = tiny.ready(tiny.batch_norm), several(samples=160)
    capability, job = probe_capability(prepared, configs[0]), tiny.job(160)
    together = train_stacked(prepared, configs, job, capability)
    queued = train_stacked(prepared, configs, job, capability, slots=slots)
    for (a, one), (b, other) in zip(together, queued, strict=True):
        assert np.abs(tiny.numbers(a) - tiny.numbers(b)).max() <= SMOOTH
        assert (a.updates, a.samples) == (b.updates, b.samples) == (one.updates, one.samples)
        assert tiny.leaves(other).keys() == tiny.leaves(one).keys()


def test_the_slot_of_a_diverged_run_is_refilled_while_the_others_go_on(monkeypatch):
    """θ of run 0 falls off the cliff at its fourth update; run 2 takes its slot, and run 1 does
    not notice.
    """
    configs, prepared = rates(0.4, 0.001, 0.24, samples=160), falling(Cliff)
    alone = [tiny.trained(prepared, [c], "stacked")[0].runs[0] for c in configs]
    capability = probe_capability(prepared, configs[0])
    monkeypatch.setattr(stacked, "LONGEST_LEG", 2)
    kept = []
    whole = stacked.Stack._refill

    def refill(stack):
        whole(stack)
        kept.append(list(stack.slots))

    monkeypatch.setattr(stacked.Stack, "_refill", refill)
    found = train_stacked(prepared, configs, tiny.job(160), capability, slots=2)
    assert kept[0] == [2, 1]
    for (result, _), one in zip(found, alone, strict=True):
        assert (result.status, result.updates, result.samples) == (
            one.status,
            one.updates,
            one.samples,
        )
        assert tiny.series_facts(result) == tiny.series_facts(one)


def test_where_batches_grow_what_diverged_runs_leave_free_is_used_again(monkeypatch):
    """Of runs 0 to 3 only 0 is left: it waits until 4 to 7 are as far, of which one has diverged
    too; then the four go on together.
    """
    rates = [0.05, 1e308, 1e308, 1e308, 1e308, 0.05, 0.05, 0.05]
    configs = [
        tiny.run(seed=seed, batch_size="0:8 160:16 320:32", learning_rate=rate)
        for seed, rate in enumerate(rates)
    ]
    prepared = tiny.ready()
    capability, job = probe_capability(prepared, configs[0]), tiny.job(400)
    whole = train_stacked(prepared, configs, job, capability)
    together, leg = [], stacked.Stack.leg

    def seen(stack):
        together.append({stack.slots[row] for row in stack.active})
        leg(stack)

    monkeypatch.setattr(stacked.Stack, "leg", seen)
    found = train_stacked(prepared, configs, job, capability, slots=4)
    assert together[:2] == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    assert together[2:] == [{0, 5, 6, 7}] * (len(together) - 2)
    for (a, one), (b, other) in zip(whole, found, strict=True):
        assert (a.status, a.updates, a.samples) == (b.status, b.updates, b.samples)
        assert np.abs(tiny.numbers(a) - tiny.numbers(b)).max() <= SMOOTH
        assert (one is None) == (other is None)


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("executor", ["stacked", "loop"])
def test_a_cell_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, monkeypatch, stop, executor):
    class Killed(Exception):
        pass

    configs = several(samples=160)[: 4 if executor == "stacked" else 1]
    prepared = tiny.ready(tiny.with_dropout)
    capability, job = probe_capability(prepared, configs[0]), tiny.job(160)
    monkeypatch.setattr(stacked, "LONGEST_LEG", 3)
    monkeypatch.setattr(loop, "TICK_UPDATES", 3)

    def train(folder, tick=None):
        keeper = Checkpoint(folder, seconds=0.0)
        if executor == "loop":
            return [loop.train_alone(prepared, configs[0], job, capability, None, tick, keeper)]
        return train_stacked(
            prepared, configs, job, capability, None, tick, slots=2, checkpoint=keeper
        )

    calls = []

    def tick(share):
        calls.append(share)
        if len(calls) > stop:
            raise Killed

    whole = train(None)
    with pytest.raises(Killed):
        train(tmp_path, tick)
    assert (tmp_path / "checkpoint.npz").exists()
    calls.clear()
    resumed = train(tmp_path, calls.append)
    assert calls[0] > 0.0
    for (a, one), (b, other) in zip(whole, resumed, strict=True):
        assert tiny.series_facts(a) == tiny.series_facts(b)
        assert (a.status, a.updates, a.samples) == (b.status, b.updates, b.samples)
        same = zip(tiny.leaves(one).values(), tiny.leaves(other).values(), strict=True)
        assert all(torch.equal(x, y) for x, y in same)
