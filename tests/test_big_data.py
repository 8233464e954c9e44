"""The benchmark of data on disk: its readers hand out what they are said to."""

import pytest
import torch

from tests.benchmarks import load

pytest.importorskip("polars")
benchmark = load("big_data")


def test_every_reader_hands_out_the_same_examples(tmp_path):
    x, _ = benchmark.pictures(64)
    sums = sorted(x.flatten(1).sum(1).tolist())
    for name, reader in benchmark.readers(tmp_path, 64, 16, 8).items():
        found = torch.cat([x for x, _ in reader()]).flatten(1).sum(1).tolist()
        assert sorted(found) == sums, name


def test_the_comparison_is_a_record_of_every_reader():
    found = benchmark.compared(examples=64, rows=16, batch_size=8, repeats=1)
    assert found["memory"]["of_memory"] == found["plain"]["of_plain"] == 1.0
    assert all(0 < row["waiting"] < 1 for row in found.values())
    assert all(row["lowest"] == row["highest"] > 0 for row in found.values())
