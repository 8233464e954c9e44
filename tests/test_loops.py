"""Every loop in examples/loops/ runs and learns, and is as short as it says."""

import importlib.util
import re
import runpy
from pathlib import Path

import pytest

LOOPS = sorted((Path(__file__).parents[1] / "examples" / "loops").glob("*.py"))
NEEDS = {"growing_lightning": "lightning", "growing_huggingface": "transformers"}
READY = [p for p in LOOPS if importlib.util.find_spec(NEEDS.get(p.stem, "torch"))]
AT_MOST = {"growing_lightning": 5, "growing_huggingface": 3}
"""Lines that are new in an existing training."""


FIRST = {"plain": "256 = 64 × 4 × 1 (micro-batch × accumulation × processes)"}
"""What is said first."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_loop_runs_and_learns(path, capsys):
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", said)]
    assert said.startswith(FIRST.get(path.stem, ""))
    assert len(losses) >= 4
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", ["growing_plain", "reusing_plain"])
def test_a_plain_loop_has_eight_lines(name):
    text = LOOPS[0].with_stem(name).read_text("utf-8")
    lines = text.partition("# The eight lines.\n")[2].partition("        print(")[0].splitlines()
    assert len(lines) == 8


@pytest.mark.parametrize("name", AT_MOST)
def test_few_lines_are_new_in_an_existing_training(name):
    text = LOOPS[0].with_stem(name).read_text("utf-8")
    assert 0 < text.count("  # new\n") <= AT_MOST[name]
