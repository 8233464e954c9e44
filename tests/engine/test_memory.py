"""What training holds is predicted; where memory runs out, fewer runs go on, nothing is lost."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from batchlab import _platform
from batchlab.engine import Engine, Job, stacked, sweep
from batchlab.engine.capability import probe_capability
from batchlab.engine.checkpoint import Checkpoint
from batchlab.engine.choice import Choice, Choices, Effort, within_memory
from batchlab.engine.memory import LiveBytes, Need, predict, small
from batchlab.engine.stacked import Stack, train_stacked
from batchlab.errors import TaskError
from tests.engine import tiny

SMOOTH = 1e-10
CELLS = 4  # bytes of a float32


def runs(count=6, **changes):
    return [tiny.run(seed=s, learning_rate=0.02 * (s + 1), **changes) for s in range(count)]


def out_of_memory():
    return RuntimeError(
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
    )


@pytest.fixture
def limited(monkeypatch):
    """Training more rows at a time than this raises, after the first so many calls."""

    def limit(rows, calls=0):
        block, seen = Stack._block, []

        def limited_block(self, orders):
            run = block(self, orders)

            def limited_run(*given):
                seen.append(len(self.slots))
                trained = run(*given)  # memory runs out late: nothing of it may remain
                if len(self.slots) > rows and len(seen) > calls:
                    raise out_of_memory()
                return trained

            return limited_run

        monkeypatch.setattr(Stack, "_block", limited_block)
        return seen

    return limit


# ------------------------------------------------------------------ counting bytes


def test_live_bytes_count_what_is_held_and_the_most_there_was():
    with LiveBytes() as live:
        held = [torch.ones(100) for _ in range(3)]
        del held[0]
        view = held[0][10:]
    assert (live.now, live.peak) == (2 * 100 * CELLS, 3 * 100 * CELLS)
    assert view.untyped_storage().nbytes() == 100 * CELLS


def test_live_bytes_see_what_autograd_keeps_for_the_backward_pass():
    w = torch.ones(1000, requires_grad=True)
    with LiveBytes() as live:
        loss = (w.exp() * w.sin()).sum()
    assert live.now >= 2 * 1000 * CELLS
    assert loss.requires_grad


@pytest.mark.parametrize("batch_size", [2, 16, 64])
@pytest.mark.parametrize("model", [tiny.mlp, tiny.batch_norm, tiny.with_dropout])
def test_a_straight_line_through_two_small_stacks_predicts_a_large_one(model, batch_size):
    prepared, configs = tiny.ready(model), runs(40, batch_size=batch_size, samples=64 * 4)
    capability = probe_capability(prepared, configs[0])
    need = predict(prepared, configs, capability, "stacked")
    with LiveBytes() as live:
        stack = Stack(prepared, configs, Job((0,)), capability, [None] * 40, 40, 0)
        stack.fill()
        stack.some(2)
    assert need.of(40) / need.scattered == pytest.approx(live.peak, rel=0.2)


def test_predicting_leaves_no_trace():
    prepared, configs = tiny.ready(tiny.with_dropout), runs(2)
    before = torch.get_rng_state()
    predict(prepared, configs, probe_capability(prepared, configs[0]), "loop")
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_alone_needs_what_grows_with_its_batch():
    prepared = tiny.ready()
    capability = probe_capability(prepared, tiny.run())
    one, other = (
        predict(prepared, [tiny.run(batch_size=b, samples=256)], capability, "loop").of(1)
        for b in (8, 64)
    )
    assert other > 2 * one


def test_only_what_may_matter_is_tried():
    prepared = tiny.ready()
    assert small(prepared, runs=16, batch_size=8, limit=2**30)
    assert not small(prepared, runs=16, batch_size=8, limit=2**10)


def wide():
    return nn.Sequential(nn.Embedding(10, 256), nn.Tanh(), nn.Flatten(), nn.Linear(16 * 256, 2))


def tokens():
    """Examples of a few bytes that fill much memory on their way."""
    inputs = torch.randint(10, (64, 16), generator=torch.Generator().manual_seed(0))
    data = inputs, inputs[:, 0] % 2
    return tiny.ready(wide, train=data, validation=data)


@pytest.mark.parametrize("make", [tiny.ready, tokens])
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_what_would_fill_the_memory_is_not_taken_for_small(make, executor):
    prepared, config = make(), tiny.run(batch_size=64, samples=256, precision="float32")
    need = predict(prepared, [config] * 4, probe_capability(prepared, config), executor)
    assert not small(prepared, 1, 64, need.of(1))


def test_states_at_the_end_are_held_too():
    prepared, config = tiny.ready(), tiny.run()
    capability = probe_capability(prepared, config)
    _, (state,) = tiny.trained(prepared, [config])
    one = 2 * sum(leaf.nbytes for leaf in tiny.leaves(state).values())  # with the velocity
    for executor in ("loop", "stacked"):
        without, with_ends = (
            predict(prepared, [config], capability, executor, ends) for ends in (0, 40)
        )
        assert with_ends.fixed - without.fixed == 2 * 40 * one


# ------------------------------------------------------------------ choosing


def planned(out=None, **given):
    with Engine(tiny.ready(), out, 0, **given) as engine:
        (cell,) = engine.plan(runs(4), tiny.job())
        return cell.choice, engine.hear()


def test_where_trying_runs_out_of_memory_one_run_at_a_time_is_planned(monkeypatch):
    def full(*given):
        raise out_of_memory()

    monkeypatch.setattr(sweep, "small", lambda *given: False)
    monkeypatch.setattr(sweep, "predict", full)
    choice, _ = planned()
    assert (choice.executor, choice.together(4)) == ("stacked", 1)


def test_with_less_memory_than_was_planned_with_fewer_go_on_and_that_is_said(tmp_path):
    prepared, configs = tiny.ready(), runs(4)
    need = predict(prepared, configs, probe_capability(prepared, configs[0]), "stacked", ends=4)
    first, said = planned(tmp_path)
    assert (first.most, said) == (0, [])
    assert planned(tmp_path) == (first, [])
    less, said = planned(tmp_path, memory_limit=need.of(2))
    assert less.most == 2
    assert said[0].startswith("less memory is free than was planned with: 2 at a time")
    assert planned(tmp_path) == (less, [])


def test_a_stack_for_which_there_is_no_memory_is_no_way(monkeypatch):
    monkeypatch.setattr(sweep, "effort_of", lambda *given: Effort.TIMED)
    some = Stack.some

    def limited_some(self, batches):
        if len(self.slots) > 1:
            raise out_of_memory()
        return some(self, batches)

    monkeypatch.setattr(Stack, "some", limited_some)
    with Engine(tiny.ready(), None, 0) as engine:
        cells = engine.plan(runs(4), tiny.job())
    assert {cell.choice.executor for cell in cells} == {"loop"}


@pytest.mark.parametrize(("holds", "tried"), [(8, [4]), (7, [3]), (4, [2]), (2, [])])
def test_only_stacks_that_memory_holds_are_timed(monkeypatch, holds, tried):
    monkeypatch.setattr(sweep, "effort_of", lambda *given: Effort.TIMED)
    asked = []

    def timed(prepared, configs, capability, slots, effort):
        asked.extend(slots)
        return {"loop": 1.0}, ""

    monkeypatch.setattr(sweep, "timings", timed)
    prepared, configs = tiny.ready(), runs(4)
    need = predict(prepared, configs, probe_capability(prepared, configs[0]), "stacked")
    with Engine(prepared, None, 0, memory_limit=need.of(holds)) as engine:
        engine.plan(configs, tiny.job())
    assert asked == tried


@pytest.mark.parametrize(
    ("limit", "most", "workers"),
    [(32_000, 0, 0), (31_999, 15, 0), (2_000, 1, 0), (1_999, 1, 1), (10, 1, 1)],
)
def test_fewer_runs_and_then_fewer_workers_stay_within_the_memory(limit, most, workers):
    kept = within_memory(Choice("stacked", 16, 0, "fast", {}), Need(0, 1_000), limit, 2)
    assert (kept.most, kept.workers) == (most, workers)
    assert kept.reason.startswith("fast")
    assert (kept.reason == "fast") == (most == 0)


def test_of_workers_that_train_one_run_each_only_as_many_start_as_fit():
    kept = within_memory(Choice("loop", 0, 0, "fast", {}), Need(0, 1_000), 3_500, 8)
    assert kept.workers == 3
    assert kept.together(1) == 1


def test_a_sweep_under_a_limit_plans_fewer_at_a_time_and_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("batchlab.engine.sweep.WORKER_BYTES", 0)
    prepared, configs = tiny.ready(), runs(8)
    need = predict(prepared, configs, probe_capability(prepared, configs[0]), "stacked", ends=8)
    data = sum(leaf.nbytes for s in (prepared.train, prepared.validation) for leaf in s.tree)
    with Engine(prepared, tmp_path, 0, memory_limit=need.of(3) + data) as engine:
        cells = engine.plan(configs, tiny.job())
        limited, _ = engine.train(configs, tiny.job())
    assert [cell.choice.most for cell in cells] == [3]
    assert "3 at a time" in Choices(tmp_path / "executors.json").all()[0].reason
    assert [run.together for run in limited.runs] == [3] * 8
    assert tiny.apart(limited, tiny.trained(prepared, configs, "stacked")[0]) <= SMOOTH


# ------------------------------------------------------------------ running out


GROWS = "0:8 160:16 320:32"
FAST = [(8, 0, 1), (8, 3, 3), (GROWS, 0, 5), (GROWS, 3, 2)]
ALL = itertools.product([8, GROWS], [0, 3], [1, 2, 3, 5])
REST = [pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in FAST]


@pytest.mark.parametrize(("schedule", "calls", "rows"), FAST + REST)
def test_where_memory_runs_out_half_of_the_runs_wait_and_all_end_the_same(
    limited, rows, calls, schedule
):
    prepared, configs = tiny.ready(tiny.batch_norm), runs(6, batch_size=schedule)
    whole, states = tiny.trained(prepared, configs, "stacked")
    seen = limited(rows, calls)
    halved, others = tiny.trained(prepared, configs, "stacked")
    assert max(seen) == 6
    assert seen[-1] <= rows
    assert tiny.apart(whole, halved) <= SMOOTH
    assert [r.updates for r in halved.runs] == [r.updates for r in whole.runs]
    for one, other in zip(states, others, strict=True):
        for name, leaf in tiny.leaves(one).items():
            torch.testing.assert_close(leaf, tiny.leaves(other)[name], rtol=SMOOTH, atol=SMOOTH)


def test_a_diverged_run_beside_parked_ones_keeps_its_status(limited):
    configs = runs(5)
    configs[1] = configs[1].replace(learning_rate=1e300)
    whole, _ = tiny.trained(tiny.ready(), configs, "stacked")
    limited(2, 1)
    halved, _ = tiny.trained(tiny.ready(), configs, "stacked")
    assert [r.status for r in whole.runs] == [r.status for r in halved.runs]
    assert halved.runs[1].updates == whole.runs[1].updates


def test_what_happened_is_said_and_recorded_and_met_only_once(tmp_path, limited):
    limited(2)
    prepared, configs = tiny.ready(), runs(6)
    with Engine(prepared, tmp_path, 0, "stacked") as engine:
        trace, _ = engine.train(configs, tiny.job())
        assert engine.hear() == [
            "memory ran out with 6 runs at a time: 1 at a time went on, and "
            "their results are equal to the plan's within round-off"
        ]
        engine.train([c.replace(seed=c.seed + 100) for c in configs], tiny.job())
        assert engine.hear() == []
    assert {run.together for run in trace.runs} == {1}
    assert "memory ran out: 1 at a time" in Choices(tmp_path / "executors.json").all()[0].reason


def test_a_cell_that_begins_later_in_the_same_sweep_does_not_meet_it(limited):
    seen = limited(4)
    with Engine(tiny.ready(), None, 0, "stacked") as engine:
        configs = runs(16)
        assert [len(cell.runs) for cell in engine.plan(configs, tiny.job())] == [8, 8]
        trace, _ = engine.train(configs, tiny.job())
        said = engine.hear()
    assert seen.count(8) == 1
    assert [run.together for run in trace.runs] == [4] * 16
    assert [text.split(":")[0] for text in said] == ["memory ran out with 8 runs at a time"]


def test_finished_cells_are_found_again_after_memory_ran_out(tmp_path, limited):
    limited(2)
    for expected in (0, 1):
        with Engine(tiny.ready(), tmp_path, 0, "stacked") as engine:
            trace, _ = engine.train(runs(6), tiny.job())
            assert engine.reused == expected
    assert [run.together for run in trace.runs] == [1] * 6


def test_parked_runs_survive_a_checkpoint(tmp_path, limited, monkeypatch):
    prepared, configs = tiny.ready(tiny.batch_norm), runs(6)
    capability = probe_capability(prepared, configs[0])
    whole = train_stacked(prepared, configs, tiny.job(), capability)
    limited(3, 1)
    due = iter([False, False, True])
    monkeypatch.setattr(Checkpoint, "due", lambda self: next(due, False))
    saves = []
    save = Checkpoint.save

    def save_and_stop(self, *given):
        save(self, *given)
        saves.append(given[0]["parked"])
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train_stacked(prepared, configs, tiny.job(), capability, checkpoint=Checkpoint(tmp_path))
    assert len(saves[0]) == 3
    resumed = train_stacked(
        prepared, configs, tiny.job(), capability, checkpoint=Checkpoint(tmp_path)
    )
    for (one, _), (other, _) in zip(whole, resumed, strict=True):
        assert np.abs(tiny.numbers(one) - tiny.numbers(other)).max() <= SMOOTH


@pytest.mark.parametrize("schedule", [8, GROWS])
def test_a_checkpoint_of_more_runs_than_may_train_at_a_time_goes_on_with_fewer(
    tmp_path, monkeypatch, schedule
):
    prepared, configs = tiny.ready(tiny.batch_norm), runs(6, batch_size=schedule)
    capability, job = probe_capability(prepared, configs[0]), tiny.job()
    whole = train_stacked(prepared, configs, job, capability)
    due = iter([False, True])
    monkeypatch.setattr(Checkpoint, "due", lambda self: next(due, False))
    save = Checkpoint.save

    def save_and_stop(self, *given):
        save(self, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train_stacked(prepared, configs, job, capability, checkpoint=Checkpoint(tmp_path))
    fewer = train_stacked(
        prepared, configs, job, capability, slots=2, checkpoint=Checkpoint(tmp_path)
    )
    assert [result.together for result, _ in fewer] == [2] * 6
    for (one, _), (other, _) in zip(whole, fewer, strict=True):
        assert np.abs(tiny.numbers(one) - tiny.numbers(other)).max() <= SMOOTH


def test_an_evaluation_that_is_too_large_is_done_in_parts(monkeypatch):
    prepared, configs = tiny.ready(), runs(5)
    whole, _ = tiny.trained(prepared, configs, "stacked")
    predicted, sizes = Stack._predicted, []

    def limited(self, rows):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise out_of_memory()
        return predicted(self, rows)

    monkeypatch.setattr(Stack, "_predicted", limited)
    assert tiny.apart(whole, tiny.trained(prepared, configs, "stacked")[0]) <= SMOOTH
    assert {5, 2, 3, 1} <= set(sizes)


@pytest.mark.parametrize("schedule", [8, GROWS])
def test_where_memory_does_not_hold_so_many_starts_fewer_begin(monkeypatch, schedule):
    configs = runs(6, batch_size=schedule)
    whole, _ = tiny.trained(tiny.ready(), configs, "stacked")
    stack, sizes = stacked.stack, []

    def limited_stack(starts):
        sizes.append(len(starts))
        if len(starts) > 2:
            raise out_of_memory()
        return stack(starts)

    monkeypatch.setattr(stacked, "stack", limited_stack)
    halved, _ = tiny.trained(tiny.ready(), configs, "stacked")
    assert sizes[:2] == [6, 3]
    assert tiny.apart(whole, halved) <= SMOOTH


def test_where_memory_does_not_hold_one_more_the_others_go_on(monkeypatch):
    prepared, configs = tiny.ready(), runs(6)
    configs[1] = configs[1].replace(learning_rate=1e308)
    capability = probe_capability(prepared, configs[0])
    whole = train_stacked(prepared, configs, tiny.job(), capability, slots=4)
    stack, sizes = stacked.stack, []

    def limited_stack(starts):
        sizes.append(len(starts))
        if len(starts) == 1:
            raise out_of_memory()
        return stack(starts)

    monkeypatch.setattr(stacked, "stack", limited_stack)
    found = train_stacked(prepared, configs, tiny.job(), capability, slots=4)
    assert sizes == [4, 1, 2]
    for (one, _), (other, _) in zip(whole, found, strict=True):
        assert (one.status, one.updates) == (other.status, other.updates)
        assert np.abs(tiny.numbers(one) - tiny.numbers(other)).max() <= SMOOTH


def test_memory_that_holds_not_even_one_run_ends_in_a_sentence(limited):
    limited(0)
    with pytest.raises(TaskError, match=r"ran out of memory with one run at a time"):
        tiny.trained(tiny.ready(), runs(3), "stacked")


def test_another_error_is_not_taken_for_lack_of_memory(monkeypatch):
    calls = []

    def broken(self, orders):
        calls.append(1)
        raise RuntimeError("CUDA error: invalid configuration argument")

    monkeypatch.setattr(stacked.Stack, "_train", broken)
    with pytest.raises(TaskError, match="invalid configuration"):
        tiny.trained(tiny.ready(), runs(4), "stacked")
    assert len(calls) == 1


# ------------------------------------------------------------------ the system's limit

MEBI = 2**20
LATE = 20
"""The batch that takes more than any before it."""
needs_linux = pytest.mark.skipif(
    bool(_platform.memory_unavailable()), reason=_platform.memory_unavailable()
)


class Late(nn.Module):
    """Takes so many MiB in one of its batches; what was tried before it knows nothing of it."""

    def __init__(self, mebibytes):
        super().__init__()
        self.layer, self.numbers, self.calls = tiny.mlp(), mebibytes * MEBI // CELLS, 0

    def forward(self, inputs):
        self.calls += self.training
        outputs = self.layer(inputs)
        if self.calls == LATE:
            outputs = outputs + 0 * (outputs.float().sum() * torch.ones(self.numbers)).mean()
        return outputs


@needs_linux
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stack_that_outgrows_its_share_is_halved_before_the_system_ends_its_process(workers):
    limit = workers * sweep.WORKER_BYTES + 64 * MEBI
    configs = [*runs(8), *runs(8, batch_size=16)][: 16 if workers else 8]
    with Engine(
        tiny.ready(lambda: Late(64)), None, workers, "stacked", memory_limit=limit
    ) as engine:
        assert {cell.choice.most for cell in engine.plan(configs, tiny.job())} == {0}
        trace, _ = engine.train(configs, tiny.job())
        said = engine.hear()
    assert [run.together for run in trace.runs] == [4] * len(configs)
    expected = "memory ran out with 8 runs at a time: 4 at a time went on"
    assert [text.split(",")[0] for text in said] == [expected] * (len(configs) // 8)


@needs_linux
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_run_alone_may_take_more_than_its_share(monkeypatch, executor):
    monkeypatch.setattr(sweep, "LOADED_BYTES", 64 * MEBI)
    prepared = tiny.ready(lambda: Late(256))
    with Engine(prepared, None, 0, executor, memory_limit=MEBI) as engine:
        trace, _ = engine.train(runs(1), tiny.job())
    assert [run.updates for run in trace.runs] == [50]


@needs_linux
def test_the_limit_is_lifted_again_after_a_cell():
    limits = _platform.resource.getrlimit(_platform.resource.RLIMIT_DATA)
    with Engine(tiny.ready(lambda: Late(64)), None, 0, "stacked", memory_limit=64 * MEBI) as e:
        e.train(runs(8), tiny.job())
    assert _platform.resource.getrlimit(_platform.resource.RLIMIT_DATA) == limits


@pytest.mark.parametrize(
    ("cells", "at_once", "workers", "share"),
    [(1, 0, 4, 960), (2, 0, 4, 480), (9, 0, 4, 240), (9, 2, 4, 480), (9, 0, 0, 960)],
)
def test_cells_that_train_at_the_same_time_share_the_memory(
    monkeypatch, cells, at_once, workers, share
):
    monkeypatch.setattr(sweep, "WORKER_BYTES", 0)
    prepared = tiny.ready()
    data = sum(leaf.nbytes for s in (prepared.train, prepared.validation) for leaf in s.tree)
    engine = Engine(prepared, None, workers, memory_limit=960 + workers * data)
    assert engine._share(cells, at_once) == share + sweep.LOADED_BYTES


def test_the_kernel_s_count_of_what_it_ended_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(_platform, "PROC", tmp_path)
    assert _platform.memory_kills() == 0
    (tmp_path / "vmstat").write_text("pgfault 9\noom_kill 12\n")
    assert _platform.memory_kills() == 12
