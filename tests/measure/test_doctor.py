"""The doctor: what it says of this machine, and what a poorer one would hear."""

import dataclasses

import pytest
import torch

from batchlab import _platform
from batchlab.errors import InvalidValueError
from batchlab.measure import doctor as module
from batchlab.measure.doctor import doctor
from batchlab.types import to_plain


def test_it_knows_this_machine():
    found = doctor()
    assert 1 <= found.cores
    assert found.threads == torch.get_num_threads()
    assert found.versions["torch"] == torch.__version__
    assert found.memory.source == _platform.memory_limit().source


def test_every_fact_can_be_read():
    text = str(doctor("3MiB"))
    for part in ("3.0 MiB (--memory-limit)", "torch ", "compiler", "usable"):
        assert part in text


def test_it_can_be_stored():
    assert to_plain(doctor("3MiB"))["memory"] == {"bytes": 3 * 2**20, "source": "--memory-limit"}


def test_a_machine_that_cannot_measure_memory_says_so():
    said = module._unavailable("/usr/bin/c++", _platform.memory_unavailable("darwin"))
    assert said[0] == (
        "The memory of a CPU run cannot be measured on macOS: "
        "`fit` only checks that the baseline runs."
    )


def test_a_machine_without_compiler_says_so():
    assert "C++ compiler" in module._unavailable(None, "")[0]
    assert "none" in str(dataclasses.replace(doctor(), compiler=None))


def test_an_absent_package_is_named(monkeypatch):
    monkeypatch.setattr(module, "PACKAGES", ("torch", "surely-not-installed"))
    found = doctor()
    assert found.missing == ("surely-not-installed",)
    assert "surely-not-installed" in str(found)


def test_an_impossible_limit_is_refused():
    with pytest.raises(InvalidValueError, match="`memory_limit` must be an amount of memory"):
        doctor("much")
