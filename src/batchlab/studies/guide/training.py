"""Runs of one cell: seeds of their own, a learning rate tuned on others, one bar of progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeAlias

import numpy as np

from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, RunState
from batchlab.studies.claim import Bench, Parameters
from batchlab.tasks import Prepared
from batchlab.types import Status

Score: TypeAlias = Callable[[RunResult], float]
"""Of one run, less is better; infinite for one that failed."""

CENTRE = {"shb": (0.02, 0.5), "adam": (0.01, 0.5)}
"""Rule → learning rate at batch size 32 around which is searched, and the power with which it
follows the batch size."""
FACTOR = 2.0
WIDENED = 4
"""The grid is widened at most so many times while its best rate lies at its end."""
WINDOW = 0.1
"""A run is judged by its mean over the last tenth."""


def study_seeds(bench: Bench, count: int) -> list[int]:
    """The seeds that claims are judged on.

    Example:
        >>> study_seeds(Bench(seed=2), 3)
        [20000, 20001, 20002]
    """
    return [10_000 * bench.seed + i for i in range(count)]


def tuning_seeds(bench: Bench, count: int) -> list[int]:
    """Other seeds, on which learning rates are chosen.

    Example:
        >>> set(study_seeds(Bench(), 100)) & set(tuning_seeds(Bench(), 100))
        set()
    """
    return [10_000 * bench.seed + 5_000 + i for i in range(count)]


def first_rates(rule: str, batch_size: float, count: int) -> list[float]:
    """The learning rates tried first, ascending by the factor 2.

    Args:
        rule: ``shb`` or ``adam``.
        batch_size: Examples.
        count: How many.

    Example:
        >>> first_rates("shb", 32, 3)
        [0.01, 0.02, 0.04]
    """
    base, power = CENTRE[rule]
    middle = base * (batch_size / 32) ** power
    return [middle * FACTOR ** (i - (count - 1) // 2) for i in range(count)]


def sizes(parameters: Parameters) -> list[int]:
    """Batch sizes from small to large, evenly spaced in their logarithm, powers of two.

    Example:
        >>> sizes({"small": 16, "large": 256, "steps": 3})
        [16, 64, 256]
    """
    small, large = (math.log2(int(parameters[name])) for name in ("small", "large"))
    return [round(2**x) for x in np.linspace(small, large, int(parameters["steps"])).round()]


def samples(parameters: Parameters, passes: float) -> int:
    """Whole batches of the largest size that make so many passes: every size ends there.

    Example:
        >>> samples({"examples": 1000, "large": 256}, passes=2)
        2048
    """
    large = int(parameters["large"])
    return large * max(1, round(passes * int(parameters["examples"]) / large))


def end(run: RunResult) -> float:
    """Validation loss of a run: its mean over the last tenth; infinite if it diverged."""
    series = run.series["loss"]
    if run.status is Status.DIVERGED:
        return math.inf
    return float(series.values[series.samples >= (1 - WINDOW) * series.samples[-1]].mean())


class Trainer:
    """An engine that tunes and trains, and tells the share of a cell that is done.

    It has no workers of its own: cells run beside one another, which start once.

    Args:
        prepared: What is trained.
        bench: Where, and who hears.
        calls: How often runs will be trained, for progress.
    """

    def __init__(self, prepared: Prepared, bench: Bench, calls: int) -> None:
        self.prepared, self.bench = prepared, bench
        self._engine = Engine(prepared, bench.out, workers=0)
        self._done, self._calls = 0, calls

    def __enter__(self) -> Trainer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()

    def train(
        self, configs: Sequence[RunConfig], job: Job, starts: Sequence[RunState] | None = None
    ) -> tuple[tuple[RunResult, ...], list[RunState | None]]:
        """Train some runs.

        Args:
            configs: The runs.
            job: What they do besides training.
            starts: Where each begins.

        Returns:
            Results and, if asked for, the states at their ends.
        """
        resolved = [config.resolved(self.prepared.examples) for config in configs]
        trace, states = self._engine.train(resolved, job, starts=starts, progress=self._hear)
        for sentence in self._engine.hear():
            self.bench.hears.say(sentence)
        self._done += 1
        return trace.runs, states

    def _hear(self, share: float) -> None:
        self.bench.hears.progress("", min(1.0, (self._done + share) / self._calls))

    def tuned(
        self, config: RunConfig, rates: Sequence[float], seeds: Sequence[int], job: Job, of: Score
    ) -> float:
        """The learning rate with the best mean score.

        While the best one lies at an end of the grid, the grid is widened there.

        Args:
            config: The run, without rate and seed.
            rates: Tried first, ascending.
            seeds: On which they are tried; not those of the study.
            job: When to evaluate.
            of: The score.

        Returns:
            One of the rates; where every one failed, the smallest.
        """
        scores: dict[float, float] = {}
        left, best = list(rates), rates[0]
        for _ in range(WIDENED + 1):
            asked = [config.replace(learning_rate=r, seed=s) for r in left for s in seeds]
            runs, _ = self.train(asked, job)
            found = np.array([of(run) for run in runs]).reshape(len(left), len(seeds)).mean(1)
            scores |= dict(zip(left, found.tolist(), strict=True))
            best = min(sorted(scores), key=lambda rate: scores[rate])
            left = _beyond(best, sorted(scores))
            if not left:
                break
        return best


def _beyond(best: float, tried: Sequence[float]) -> list[float]:
    """The next rate outside a grid if the best one lies at its end.

    Example:
        >>> _beyond(0.4, [0.1, 0.2, 0.4]), _beyond(0.2, [0.1, 0.2, 0.4])
        ([0.8], [])
    """
    if best == tried[-1]:
        return [best * FACTOR]
    return [best / FACTOR] if best == tried[0] else []
