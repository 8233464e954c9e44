"""Every loop in examples/loops/ runs and learns."""

import re
import runpy
from pathlib import Path

import pytest

LOOPS = sorted((Path(__file__).parents[1] / "examples" / "loops").glob("*.py"))


@pytest.mark.parametrize("path", LOOPS, ids=lambda path: path.stem)
def test_a_loop_runs_says_its_batch_and_learns(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", said)]
    assert said.startswith("256 = 64 × 4 × 1 (micro-batch × accumulation × processes)")
    assert losses[-1] < losses[0] / 2
