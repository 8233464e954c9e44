"""How the tests run: one torch thread per process, browsers, GPUs, and two tables at the end."""

import gc
import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

LEFT_OUT = pytest.StashKey[Counter]()
WHY = {
    "slow": "slow; `make test-slow` runs them",
    "gpu": "in need of a GPU; `make test-slow` runs them",
    "other": "not asked for",
}

# beartype checks every shape and type where numbers are made, by jaxtyping's import hook; an int
# may stand for a float. Elsewhere pyright's word is enough: checking all of it made the run half
# as long again. Processes that tests start (command line, workers, wheel) run without the hook.
CHECKED = (
    *("accumulation", "config", "data", "engine", "finding", "measure", "models", "optim"),
    *("rules", "samplers", "schedules", "stats", "theory", "types", "watch", "_random", "_tree"),
)
jaxtyping.install_import_hook(
    [f"batchlab.{name}" for name in CHECKED],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# Deterministic, and no deadline: a wall clock on a busy machine proves nothing.
hypothesis.settings.register_profile("batchlab", deadline=None, derandomize=True)
hypothesis.settings.load_profile("batchlab")


def pytest_configure(config):
    config.stash[LEFT_OUT] = Counter()
    torch.set_num_threads(1)


def pytest_collection_finish():
    """Thousands of collected tests are searched for garbage no more: what frees memory on purpose,
    as code does that met its limit, would take a second each time.
    """
    gc.collect()
    gc.freeze()


def pytest_deselected(items):
    for item in items:
        marker = next((name for name in ("slow", "gpu") if item.get_closest_marker(name)), "other")
        item.config.stash[LEFT_OUT][marker] += 1


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if item.get_closest_marker("browser") and find_chromium() is None:
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse(
            "no Chromium on this machine (Debian: apt-get install chromium fonts-ipafont-gothic)"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    jaxtyping.config.update("jaxtyping_disable", bool(item.get_closest_marker("wrong_type")))
    try:
        return (yield)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def find_chromium() -> str | None:
    """The browser that the browser tests drive."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium; for tests marked `browser`, which are skipped where there is none."""
    path = find_chromium()
    assert path is not None, "a test that asks for `chromium` must be marked `browser`"
    return path


# -- what the run says at its end -----------------------------------------------------------------


def pytest_sessionfinish(session):
    """In a parallel process: hand over how many tests were left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.stash[LEFT_OUT])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """In the process that prints: every parallel process leaves out the same tests."""
    left_out = getattr(node, "workeroutput", {}).get("left_out", {})
    node.config.stash[LEFT_OUT] |= Counter(left_out)


def pytest_terminal_summary(terminalreporter, config):
    write = terminalreporter.write_line
    terminalreporter.section("seconds per file, all processes together")
    for name, seconds, tests in seconds_per_file(terminalreporter.stats):
        write(f"{seconds:8.2f} s  {tests:4d} tests  {name}")
    left_out = config.stash[LEFT_OUT]
    if left_out:
        terminalreporter.section("left out")
        for marker, count in sorted(left_out.items()):
            write(f"{count:4d} tests left out: {WHY[marker]}")


def seconds_per_file(stats):
    """Rows of (file, seconds, tests), longest first; the doctests of `src` are one row."""
    seconds, tests = defaultdict(float), defaultdict(set)
    for report in (r for reports in stats.values() for r in reports if hasattr(r, "duration")):
        path = report.nodeid.split("::")[0]
        row = "src (doctests)" if Path(path).parts[:1] == ("src",) else path
        seconds[row] += report.duration
        tests[row].add(report.nodeid)
    return sorted(((n, s, len(tests[n])) for n, s in seconds.items()), key=lambda row: -row[1])
