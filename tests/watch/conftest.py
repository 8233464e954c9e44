import time

import pytest

from batchlab.watch import sampling


class Clock:
    """Time that passes only when told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """In place of the machine's clock."""
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made)
    return made


@pytest.fixture
def at_once(monkeypatch):
    """Updates are measured from the second on."""
    monkeypatch.setattr(sampling, "FIRST", 1)
