"""On a GPU: the same numbers as on the CPU, in either executor and as one captured graph."""

import pytest
import torch
from torch.utils import _pytree

from batchlab.engine import Engine, Job
from batchlab.engine.capability import probe_capability
from batchlab.engine.stacked import Stack
from batchlab.tasks import prepare
from tests.engine import tiny

pytestmark = pytest.mark.gpu
SMOOTH = 1e-10
MODELS = [tiny.mlp, tiny.batch_norm, tiny.with_dropout]


def several(count=3, **changes):
    return [tiny.run(seed=s, learning_rate=0.02 * (s + 1), **changes) for s in range(count)]


def on(device, model):
    return prepare(tiny.task(model), device=device)


def filled(prepared, configs, unit):
    capability = probe_capability(prepared, configs[0])
    nothing = [None] * len(configs)
    stack = Stack(prepared, configs, Job(()), capability, nothing, len(configs), unit)
    stack.fill()
    return stack


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_a_gpu_gives_the_trace_of_the_cpu(executor, model):
    here, there = (
        tiny.trained(on(device, model), several(), executor)[0] for device in ("cpu", "cuda")
    )
    assert tiny.apart(here, there) <= SMOOTH


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("unit", [1, 4])
def test_a_captured_graph_gives_what_the_eager_block_gives(model, unit):
    configs = several(reuse=2, lr_schedule="cosine")
    eager, fast = (filled(on("cuda", model), configs, u) for u in (0, unit))
    for _ in range(3):  # recorded, captured, replayed
        orders = eager._orders(8)
        expected, found = eager._train(orders), fast._train(orders)
        assert abs(expected[0] - found[0]).max() <= SMOOTH
        assert (expected[1] == found[1]).all()
    one, other = (_pytree.tree_leaves(stack.progress) for stack in (eager, fast))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=SMOOTH, atol=SMOOTH)


def test_what_a_graph_returned_is_not_written_over_by_its_next_call():
    stack = filled(on("cuda", tiny.mlp), several(), 4)
    orders = stack._orders(4)
    for _ in range(3):
        block = stack._block(orders)(stack.progress, stack.numbers, orders, stack.data)
    kept = [leaf.clone() for leaf in _pytree.tree_leaves(block)]
    stack._block(orders)(block.progress, stack.numbers, orders, stack.data)
    assert all(map(torch.equal, kept, _pytree.tree_leaves(block)))


def test_a_graph_is_replayed_without_waiting_for_the_gpu():
    stack = filled(on("cuda", tiny.mlp), several(), 4)
    orders = stack._orders(4)
    run = stack._block(orders)
    for _ in range(3):
        run(stack.progress, stack.numbers, orders, stack.data)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(stack.progress, stack.numbers, orders, stack.data)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("executor", ["loop", "stacked"])
def test_an_interrupted_sweep_on_a_gpu_goes_on_to_the_same_trace(executor, tmp_path, monkeypatch):
    monkeypatch.setattr("batchlab.engine.loop.TICK_UPDATES", 1)
    monkeypatch.setattr("batchlab.engine.stacked.LONGEST_LEG", 1)
    configs, job = several(samples=80), tiny.job(80)
    whole, _ = tiny.trained(on("cuda", tiny.with_dropout), configs, executor, job)

    def stop(share):
        if share > 0.25:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        Engine(on("cuda", tiny.with_dropout), tmp_path, None, executor, 0.0) as engine,
    ):
        engine.train(configs, job, progress=stop)
    assert list(tmp_path.glob("cells/*/checkpoint.npz"))
    with Engine(on("cuda", tiny.with_dropout), tmp_path, None, executor, 0.0) as engine:
        assert engine.workers == 0
        resumed, _ = engine.train(configs, job)
    assert tiny.facts(resumed) == tiny.facts(whole)
