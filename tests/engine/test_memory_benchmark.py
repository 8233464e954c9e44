"""What training holds: as much as predicted, and no more the longer it goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import _pytree

from batchlab.engine import Engine, Job, stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.choice import Choice
from batchlab.engine.memory import CONVOLVED, LiveBytes, predict
from tests.benchmarks import load
from tests.engine import tiny

BENCHMARK = load("engine")
MEMORY = Path(__file__).resolve().parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("which", [1, 14], ids=["eager", "compiled, with convolutions"])
def test_a_predicted_peak_is_within_a_fifth_of_what_a_process_takes(which):
    """Two sweeps of the table; the script measures all of them three times."""
    command = [sys.executable, str(MEMORY), "--one", str(which)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    predicted, measured = json.loads(said.stdout.splitlines()[-1])
    assert predicted == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(("model", "copied"), [("mlp", 1.0), ("cnn8", CONVOLVED)])
def test_a_compiled_stack_needs_room_for_copies_of_what_it_convolves(model, copied):
    row = BENCHMARK.Row("few", model, 8, 8)
    prepared = BENCHMARK.prepared_of(row)
    configs = BENCHMARK.configs_of(row, prepared, 8)
    capability = probe_capability(prepared, configs[0])
    needs = [predict(prepared, configs, capability, "stacked", 0, made) for made in (False, True)]
    assert [need.fixed for need in needs] == [needs[0].fixed] * 2
    assert needs[1].each == round(copied * needs[0].each)
    data = sum(leaf.nbytes for s in (prepared.train, prepared.validation) for leaf in s.tree)
    with Engine(prepared, None, 0, memory_limit=needs[0].of(8) + data) as engine:
        most = [
            engine._within_memory(Choice("stacked", 8, unit, "", {}), configs, capability, Job(()))
            for unit in (0, 1)
        ]
    assert [choice.most == 0 for choice in most] == [True, copied == 1.0]


@pytest.mark.parametrize("unit", [1, 2])
def test_a_leg_of_many_compiled_pieces_holds_no_more_than_one_of_few(monkeypatch, unit):
    """Not compiled, so that its bytes can be counted: held is what is held between the pieces."""
    monkeypatch.setattr(stacked, "compile_block", lambda block, *shapes: block)
    prepared, configs = tiny.ready(), [tiny.run(seed=s, samples=1024) for s in range(4)]
    capability = probe_capability(prepared, configs[0])
    peaks = []
    for pieces in (4, 16):
        stack = stacked.Stack(prepared, configs, tiny.job(), capability, [None] * 4, 4, unit)
        stack.fill()
        orders = stack._orders(pieces * unit)
        with LiveBytes() as live:
            stack._train(orders)
        peaks.append(live.peak - sum(part.nbytes for part in orders))
    runs = sum(leaf.nbytes for leaf in _pytree.tree_leaves(stack.progress))
    assert peaks[1] - peaks[0] < runs / 2  # losses only
