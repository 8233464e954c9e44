"""The tiny task, whose losses take their time, with the same numbers; some end their process."""

import os
import signal
import time
from pathlib import Path

from tests.engine import tiny

SECONDS = 0.004
"""Of a loss."""


def losses(flag, deadly=None, mistake=None):
    """A loss that waits.

    Args:
        flag: File; the first process to come so far writes it and kills itself. None: never.
        deadly: A batch size whose process ends whenever it is seen.
        mistake: A batch size with which the user's own code raises.
    """
    calls = 0

    def loss(outputs, batch):
        nonlocal calls
        calls += 1
        size = len(batch[1])
        time.sleep(SECONDS)
        if size == deadly:
            os._exit(1)
        if size == mistake:
            raise ZeroDivisionError("my own mistake")
        if flag is not None and calls > 150 and not Path(flag).exists():
            Path(flag).write_text("killed", "utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
        return tiny.cross(outputs, batch)

    return loss


def ready(flag=None, **given):
    return tiny.ready(loss=losses(flag, **given))


def runs(samples=2000, count=3, **changes):
    """Of 250 updates each, one a cell in the loop executor."""
    return [tiny.run(seed=seed, samples=samples, **changes) for seed in range(count)]


def in_halves(cell, bench):
    """A study's cell whose process is killed half-way, unless it finds the first half."""
    half = bench.out / "half"
    if half.exists():
        return [{"repetition": 0, "went_on": True}]
    bench.out.mkdir(parents=True, exist_ok=True)
    half.write_text("measured", "utf-8")
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        time.sleep(SECONDS)
        bench.hears.progress("", 0.5)
    os.kill(os.getpid(), signal.SIGKILL)
    return []
