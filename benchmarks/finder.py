"""The search for the largest size that fits, against simulated memories with a known answer.

    python benchmarks/finder.py --json finder.json

For every model: no over-estimate, at most 3 % under the true limit at margin 0, at most 10 trials
where bytes are the limit and 13 at a cliff. Exit code 1 if a criterion is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batchlab import _random
from batchlab._finder import Failure, Found, Outcome, find_largest

MB, GB = 10**6, 10**9
MOST_UNDER = 0.03
MOST_TRIALS = {"bytes": 10, "cliff": 13}


@dataclass(frozen=True)
class Simulated:
    """A memory whose answer is known.

    Attributes:
        name: What it imitates.
        run: Size → what happens.
        kind: ``bytes`` or ``cliff``, which allow different numbers of trials.
        limit: Bytes allowed, or None.
        cap: Largest size that makes sense.
        start: First size tried.
        margin: Bytes kept free.
    """

    name: str
    run: Callable[[int], Outcome]
    kind: str
    limit: int | None = None
    cap: int = 1_000_000
    start: int = 1
    margin: int = 0

    def fits(self, size: int) -> bool:
        """Whether a size truly fits."""
        outcome = self.run(size)
        allowed = math.inf if self.limit is None else self.limit - self.margin
        return outcome.fits and (outcome.bytes is None or outcome.bytes <= allowed)

    def truth(self) -> int:
        """The largest size below which everything fits, by bisection over whole sizes."""
        low, high = 0, self.cap + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(middle) else (low, middle)
        return low


@dataclass(frozen=True)
class Row:
    """How the search did on one memory."""

    name: str
    kind: str
    truth: int
    found: int
    trials: int
    under_percent: float
    failed_trials: int
    bound_by: str
    missed: str


Search = Callable[[Simulated], Found]


def search(memory: Simulated) -> Found:
    """The package's finder."""
    return find_largest(
        memory.run,
        max_size=memory.cap,
        start=memory.start,
        limit=memory.limit,
        margin=memory.margin,
    )


def measured(size_to_bytes: Callable[[int], float]) -> Callable[[int], Outcome]:
    """A memory that is measured and never refuses."""
    return lambda size: Outcome(True, int(size_to_bytes(size)))


def refusing(size_to_bytes: Callable[[int], float], limit: int) -> Callable[[int], Outcome]:
    """A memory that is measured while it suffices; beyond it the process dies unmeasured."""

    def run(size: int) -> Outcome:
        taken = int(size_to_bytes(size))
        if taken > limit:
            return Outcome(False, None, "out of memory", Failure.MEMORY)
        return Outcome(True, taken)

    return run


def cliff(
    last: int, slope: float | None = None, failure: Failure = Failure.CRASH
) -> Callable[[int], Outcome]:
    """Something other than bytes ends at ``last``; bytes are known if ``slope`` is."""

    def run(size: int) -> Outcome:
        if size > last:
            return Outcome(False, None, "CUDA error: invalid configuration argument", failure)
        return Outcome(True, None if slope is None else int(50 * MB + slope * size))

    return run


def noise(seed: int, size: int) -> float:
    """A fixed uniform number in [0, 1) for each size."""
    return (_random.key(seed, "noise", size) % 2**32) / 2**32


def two_steps(size: int, steps: int = 2) -> float:
    """Gradients stay while the second micro-batch runs: its peak is higher by the parameters."""
    first = 200 * MB + 1.0 * MB * size
    return first if steps == 1 else first + 400 * MB


def doubling(size: int) -> float:
    """The next power of two is allocated: bytes are known and yet the end is a cliff."""
    return 300 * MB + 2 * MB * 2 ** math.ceil(math.log2(size))


def byte_models() -> list[tuple[str, Callable[[int], float], int]]:
    """(name, size → bytes, limit)."""
    return [
        ("linear", lambda b: 300 * MB + 2 * MB * b, 8 * GB),
        ("linear, no constant", lambda b: 3.7 * MB * b, 8 * GB),
        ("linear, large constant", lambda b: 7 * GB + 90_000 * b, 8 * GB),
        ("linear, tiny examples", lambda b: 5 * MB + 17_000 * b, 4 * GB),
        ("linear, huge examples", lambda b: 100 * MB + 700 * MB * b, 16 * GB),
        ("only one fits", lambda b: 100 * MB + 900 * MB * b, int(1.5 * GB)),
        ("two fit", lambda b: 100 * MB + 600 * MB * b, int(1.5 * GB)),
        ("quadratic (similarity matrix)", lambda b: 100 * MB + 320 * b * b, 8 * GB),
        ("linear and quadratic", lambda b: 100 * MB + MB * b + 3_000 * b * b, 8 * GB),
        ("above linear, b^1.5", lambda b: 50 * MB + 20_000 * b**1.5, 8 * GB),
        ("below linear, b^0.8", lambda b: 50 * MB + 4 * MB * b**0.8, 8 * GB),
        ("square root", lambda b: 50 * MB + 20 * MB * math.sqrt(b), 4 * GB),
        ("steps of 2 MB (allocator)", lambda b: 300 * MB + 2 * MB * math.ceil(0.37 * b), 8 * GB),
        ("steps of 20 MB", lambda b: 300 * MB + 20 * MB * math.ceil(0.05 * b), 8 * GB),
        ("steps of 512 MB", lambda b: 300 * MB + 512 * MB * math.ceil(b / 400), 8 * GB),
        ("workspace from 64 on", lambda b: 300 * MB + 2 * MB * b + 1500 * MB * (b >= 64), 8 * GB),
        ("workspace up to 64", lambda b: 300 * MB + 2 * MB * b + 1500 * MB * (b < 64), 8 * GB),
        ("slope doubles at 500", lambda b: 300 * MB + MB * (b + max(0, b - 500)), 8 * GB),
        ("slope halves at 500", lambda b: 300 * MB + 2 * MB * (b + min(b, 500)), 8 * GB),
        ("flat to 2000, then linear", lambda b: 300 * MB + 2 * MB * max(0, b - 2000), 8 * GB),
        ("noise up to 1 %", lambda b: (300 * MB + 2 * MB * b) * (1 + 0.01 * noise(0, b)), 8 * GB),
        ("noise up to 30 MB", lambda b: 100 * MB + 50_000 * b + 30 * MB * noise(1, b), 2 * GB),
        ("second micro-step", two_steps, 8 * GB),
    ]  # fmt: skip


def memories() -> list[Simulated]:
    """Everything the finder is tried on."""
    found: list[Simulated] = []
    for name, model, limit in byte_models():
        found.append(Simulated(f"{name}, measured", measured(model), "bytes", limit))
        found.append(Simulated(f"{name}, refused", refusing(model, limit), "bytes", limit))
    plain = byte_models()[0][1]
    for start in (8, 32, 256, 6000, 100_000):
        found.append(
            Simulated(
                f"linear, from {start}", refusing(plain, 8 * GB), "bytes", 8 * GB, start=start
            )
        )
    found += [
        Simulated("limit at 5000, nothing known", cliff(5000), "cliff"),
        Simulated("limit at 5000, from 32", cliff(5000), "cliff", start=32),
        Simulated("limit at 5000, bytes far away", cliff(5000, 1_000), "cliff", 16 * GB),
        Simulated("limit at 5000, bytes at 9000", cliff(5000, 1.8 * MB), "cliff", 16 * GB),
        Simulated("kernel launch limit 65535", cliff(65_535, 2_000), "cliff", 80 * GB),
        Simulated("rounds up to powers of two, measured", measured(doubling), "cliff", 8 * GB),
        Simulated(
            "rounds up to powers of two, refused", refusing(doubling, 8 * GB), "cliff", 8 * GB
        ),
        Simulated("killed at 777", cliff(777, None, Failure.MEMORY), "cliff"),
        Simulated("an error at every size", cliff(0), "cliff"),
        Simulated("an error at every size, from 32", cliff(0), "cliff", start=32),
        Simulated("an error above 1", cliff(1), "cliff"),
        Simulated("whole data set fits", measured(plain), "bytes", 8 * GB, cap=1221),
        Simulated("cap is a power of two", measured(plain), "bytes", 8 * GB, cap=1024),
        Simulated("cap does not fit, one less does", cliff(1023), "cliff", cap=1024),
        Simulated("cap of 1", measured(plain), "bytes", 8 * GB, cap=1),
        Simulated("margin of 1 GB", measured(plain), "bytes", 8 * GB, margin=GB),
        Simulated("nothing fits in memory", measured(lambda b: 9 * GB + b), "bytes", 8 * GB),
    ]
    return found


def score(memory: Simulated, search: Search = search) -> Row:
    """Run the search on one memory and name the criterion it misses, if any."""
    found, truth = search(memory), memory.truth()
    under = (truth - found.largest) / truth if truth else 0.0
    over = found.largest > 0 and not memory.fits(found.largest)
    missed = [
        *(
            ["over-estimate"]
            if over or (found.largest > truth and "noise" not in memory.name)
            else []
        ),
        *(
            ["returned without running"]
            if found.largest and found.largest not in found.trials
            else []
        ),
        *([f"{under:.1%} under"] if under > MOST_UNDER else []),
        *([f"{len(found.trials)} trials"] if len(found.trials) > MOST_TRIALS[memory.kind] else []),
    ]
    failed = sum(not outcome.fits for outcome in found.trials.values())
    return Row(
        memory.name, memory.kind, truth, found.largest, len(found.trials), round(100 * under, 2),
        failed, found.bound_by, ", ".join(missed),
    )  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [
        f"{'memory':<46}{'true':>9}{'found':>9}{'under %':>9}{'trials':>8}{'failed':>8}  bound by"
    ]
    lines += [
        f"{r.name:<46}{r.truth:>9}{r.found:>9}{r.under_percent:>9}{r.trials:>8}{r.failed_trials:>8}"
        f"  {r.bound_by}{'   MISSED: ' + r.missed if r.missed else ''}"
        for r in rows
    ]
    return "\n".join(lines)


def summary(rows: list[Row]) -> str:
    """One line."""
    most = {kind: max(r.trials for r in rows if r.kind == kind) for kind in MOST_TRIALS}
    over = sum("over-estimate" in r.missed for r in rows)
    worst = max(r.under_percent for r in rows)
    return (
        f"{len(rows)} memories: {over} over-estimates, at most {worst} % under, at most "
        f"{most['bytes']} trials where bytes are the limit and {most['cliff']} at a cliff; "
        f"{sum(bool(r.missed) for r in rows)} missed."
    )


def main() -> int:
    """Print the table; 1 if a criterion is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [score(memory) for memory in memories()]
    print(table(rows), summary(rows), sep="\n\n")
    if given.json:
        given.json.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    return int(any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
