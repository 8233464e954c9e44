"""The benchmark of tuning, on a task that trains in milliseconds."""

import json
from pathlib import Path

import pytest

from batchlab import _platform
from batchlab.advisor.tuning import search
from tests import benchmarks

tune = benchmarks.load("tune")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """In this process, with one generation, on the tiny task."""
    monkeypatch.setattr(_platform, "available_cores", lambda: 1)
    monkeypatch.setattr(search, "MOST_GENERATIONS", 1)
    path = Path(__file__).parent / "tiny.py"
    monkeypatch.setitem(tune.TASKS, "digits", (f"{path}:task", None))


@pytest.mark.slow
def test_the_benchmark_runs_from_end_to_end(tmp_path):
    words = "--tasks digits --repeats 1 --budget 10s --tune learning_rate,reuse --truth-seeds 3"
    more = f"--target-runs 5 --visits 1 --workers 1 --json {tmp_path}/t.json"
    found = tune.main([*words.split(), *more.split(), "--picture", f"{tmp_path}/t.svg"])
    row = found[0]["rows"][0]
    assert json.loads((tmp_path / "t.json").read_text())[0]["rows"][0]["seed"] == row["seed"]
    assert all(row[kind]["tried"] >= 1 for kind in tune.RIVALS)
    assert (tmp_path / "t.svg").stat().st_size > 1000


def test_the_seeds_of_the_truth_are_used_by_no_search():
    last = tune.SEARCH * 11 + 9_999  # of ten repeats, with all that an advice adds to its seed
    assert last < tune.TRUTH < tune.TRUTH + 10_000 < tune.TARGET


def test_the_ratio_is_paired_and_counts_what_never_arrives():
    rows = [
        {"tune": {"seconds": 1.0}, "random": {"seconds": 2.0}},
        {"tune": {"seconds": 2.0}, "random": {"seconds": 4.0}},
        {"tune": {"seconds": 1.0}, "random": {"seconds": float("inf")}},
    ]
    found = tune.ratio(rows, "random")
    assert found["ratio"]["value"] == pytest.approx(2.0)
    assert found["ratio"]["n"] == 2
    assert (found["wins"], found["repeats"]) == (3, 3)
