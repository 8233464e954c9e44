"""What something takes, what it may take, and which errors end a trial."""

import sys

import pytest
import torch

from batchlab import _platform
from batchlab._finder import Failure
from batchlab._meter import Meter, margin_bytes, memory_or_crash, tried
from batchlab.errors import InvalidValueError

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MIB = 2**20


@pytest.mark.parametrize("margin", ["1GiB", 2**30])
def test_a_margin_as_large_as_the_limit_is_refused(margin):
    limit = _platform.MemoryLimit(2**30, "--memory-limit")
    with pytest.raises(InvalidValueError, match=r"`margin` must be below the limit of 1\.0 GiB"):
        margin_bytes(margin, limit)


def test_the_margin_is_in_bytes():
    limit = _platform.MemoryLimit(2**30, "--memory-limit")
    found = [margin_bytes(margin, limit) for margin in (0, 12345, "1MiB", None)]
    assert found == [0, 12345, MIB, 2**30 // 20]


def fail(error):
    def run():
        raise error

    return run


@linux
def test_a_trial_tells_what_it_took():
    outcome = tried(lambda: torch.ones(2**24).add_(1).sum(), Meter("cpu"), memory_or_crash)
    assert outcome.fits
    assert outcome.bytes is not None
    assert 60 * MIB < outcome.bytes < 80 * MIB


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError("no"), Failure.MEMORY), (ValueError("not so"), Failure.CRASH)],
)
def test_a_trial_tells_what_ended_it(error, kind):
    outcome = tried(fail(error), None, memory_or_crash)
    assert (outcome.fits, outcome.failure) == (False, kind)
    assert outcome.reason == f"{type(error).__name__}: {error}"


def test_an_error_that_is_no_failure_to_fit_is_raised():
    with pytest.raises(KeyError, match="mine"):
        tried(fail(KeyError("mine")), None, lambda error: None)


def test_nothing_of_a_failed_trial_stays_alive():
    alive = []

    def run():
        big = torch.zeros(10)
        alive.append(torch.utils.weak.WeakTensorKeyDictionary({big: 1}))
        raise MemoryError("no")

    tried(run, None, memory_or_crash)
    assert len(alive[0]) == 0
