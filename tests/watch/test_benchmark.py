"""The benchmark of watching: what its exit status says."""

import json
import sys

import pytest

from batchlab._platform import processor_name
from batchlab.types import Estimate
from tests.benchmarks import load

watch = load("watch")


def row(ratio):
    estimate = Estimate(ratio, ratio, ratio, n=2)
    return {"wall": estimate, "cpu": estimate, "seconds": 1.0, "noise blocks": 1}


def status(monkeypatch, path, *outcomes):
    """Of a run whose loops come out so; None is one that is interrupted."""
    left = iter(outcomes)

    def paired(name, pairs, updates):
        if (ratio := next(left)) is None:
            raise KeyboardInterrupt
        return row(ratio)

    monkeypatch.setattr(watch, "paired", paired)
    monkeypatch.setattr(watch.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(sys, "argv", ["watch.py", "--json", str(path)])
    return watch.main()


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [((1.01, 1.02), 0), ((1.01, 1.2), 1), ((1.01, None), 1), ((None,), 1)],
)
def test_only_a_whole_benchmark_within_the_aim_succeeds(monkeypatch, tmp_path, outcomes, wanted):
    assert status(monkeypatch, tmp_path / "found.json", *outcomes) == wanted


def test_what_was_measured_before_an_interrupt_is_written_with_the_machine(monkeypatch, tmp_path):
    status(monkeypatch, tmp_path / "found.json", 1.01, None)
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert set(found) == {"mlp", "where"}
    assert found["where"]["machine"] == processor_name()
