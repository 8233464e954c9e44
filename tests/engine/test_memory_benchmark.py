"""What training holds: as much as predicted, and no more the longer it goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import _pytree

from batchlab.engine import stacked
from batchlab.engine.capability import probe_capability
from batchlab.engine.memory import LiveBytes
from tests.engine import tiny

MEMORY = Path(__file__).resolve().parents[2] / "benchmarks" / "memory.py"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_predicted_peak_is_within_a_fifth_of_what_a_process_takes():
    """One sweep of the table, an eager stack; the script measures all of them three times."""
    command = [sys.executable, str(MEMORY), "--one", "1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    predicted, measured = json.loads(said.stdout.splitlines()[-1])
    assert predicted == pytest.approx(measured, rel=0.2)


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
