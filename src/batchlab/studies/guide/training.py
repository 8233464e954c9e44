"""Runs of one cell: repetitions that each choose their own learning rate, one bar of progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeAlias

import numpy as np

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunResult, RunState
from batchlab.studies.claim import Bench
from batchlab.studies.guide.asked import Asked
from batchlab.tasks import Prepared
from batchlab.types import Status

Score: TypeAlias = Callable[[Sequence[RunConfig], Sequence[int]], Sequence[float]]
"""Runs, and the repetition that each belongs to → a score each: less is better, infinite has
failed, and only the best one of a repetition need be right."""

CENTRE = {"shb": (0.1, 0.5), "adam": (0.02, 0.33)}
"""Rule → learning rate at batch size 32 around which is searched, and the power with which it
follows the batch size."""
FACTOR = 2.0
TUNING = 2
"""Seeds on which the end of a training is judged in the search; one alone often misses that a rate
is at the edge of what can be trained."""
WIDENED = 4
"""The grid is widened at most so many times while its best rate lies at its end."""
KEPT = 120.0
"""Cells that take more seconds go on, after an interruption, from the runs that are finished."""
WINDOW = 0.1
"""A run is judged by its mean over the last tenth."""
SPOILT = 1e-3
"""By a planted fault, some runs are given this part of their learning rate: they do not learn."""


def study_seed(bench: Bench, run: int) -> int:
    """The seed of a run that claims are judged on."""
    return _random.key(bench.seed, "guide study", run)


def tuning_seed(bench: Bench, repetition: int) -> int:
    """Another seed, on which a repetition chooses its learning rate; no other one uses it."""
    return _random.key(bench.seed, "guide tuning", repetition)


def shift(bench: Bench, repetition: int) -> float:
    """By how much of a step a repetition's grid of rates is moved, within ±½.

    A fixed grid would favour the batch size whose best rate happens to lie on it.
    """
    return _random.key(bench.seed, "guide grid", repetition) / 2**63 - 0.5


def first_rates(rule: str, batch_size: float, count: int) -> list[float]:
    """The learning rates tried first, ascending by the factor 2.

    Args:
        rule: ``shb`` or ``adam``.
        batch_size: Examples.
        count: How many.

    Example:
        >>> first_rates("shb", 32, 3)
        [0.05, 0.1, 0.2]
    """
    base, power = CENTRE[rule]
    middle = base * (batch_size / 32) ** power
    return [middle * FACTOR ** (i - (count - 1) // 2) for i in range(count)]


def tried(asked: Asked) -> int:
    """Rates that a choice takes: the first grid, and one beyond it."""
    return asked.rates + 1


def sizes(asked: Asked, steps: int) -> list[int]:
    """Batch sizes from small to large, evenly spaced in their logarithm, powers of two.

    Args:
        asked: With the smallest and the largest.
        steps: How many.

    Example:
        >>> sizes(Asked(small=16, large=256), steps=3)
        [16, 64, 256]
    """
    ends = math.log2(asked.small), math.log2(asked.large)
    return [round(2**x) for x in np.linspace(*ends, steps).round()]


def samples(asked: Asked, passes: float) -> int:
    """Whole batches of the largest size that make so many passes: every size ends there.

    Example:
        >>> samples(Asked(examples=1000, large=256), passes=2)
        2048
    """
    return asked.large * max(1, round(passes * asked.examples / asked.large))


def along(budget: int, moments: int) -> tuple[int, ...]:
    """Sample counts of evaluations along a run, its start and its end among them.

    Example:
        >>> along(100, moments=4)
        (0, 25, 50, 75, 100)
    """
    return tuple(round(i * budget / moments) for i in range(moments + 1))


def at_end(budget: int) -> Job:
    """Evaluations in the last tenth only: enough to choose a rate.

    Example:
        >>> at_end(100).evaluate_at
        (90, 95, 100)
    """
    return Job(along(budget, 20)[-3:])


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
        seconds: What the cell takes; the runs of a short one are not kept on disk.
    """

    def __init__(
        self, prepared: Prepared, bench: Bench, calls: int, seconds: float = math.inf
    ) -> None:
        self.prepared, self.bench = prepared, bench
        self._engine = Engine(prepared, bench.out if seconds > KEPT else None, workers=0)
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
        self,
        configs: Sequence[RunConfig],
        job: Job,
        starts: Sequence[RunState | None] | None = None,
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
        self, config: RunConfig, grid: Sequence[float], repetitions: int, score: Score
    ) -> list[float]:
        """The learning rate of each repetition, see :meth:`searched`."""
        return [rate for rate, _ in self.searched(config, grid, repetitions, score)]

    def searched(
        self, config: RunConfig, grid: Sequence[float], repetitions: int, score: Score
    ) -> list[tuple[float, float]]:
        """The learning rate of each repetition: that with the best score on a seed of its own.

        What is said of repetitions that shared one rate would hold at that rate only: a rate that
        is wrong at one batch size shifts all of them alike. While a repetition's best rate lies at
        an end of its grid, the grid is widened there.

        Args:
            config: The run, without rate and seed.
            grid: Tried first, ascending; each repetition moves it by its :func:`shift`.
            repetitions: How many.
            score: What is best.

        Returns:
            Per repetition one of the rates, where every one failed the smallest, and its score.
        """
        left = [_moved(grid, shift(self.bench, i)) for i in range(repetitions)]
        scores: list[dict[float, float]] = [{} for _ in left]
        for _ in range(WIDENED + 1):
            due = [(i, rate) for i, rates in enumerate(left) for rate in rates]
            if not due:
                break
            seeds = [tuning_seed(self.bench, i) for i, _ in due]
            configs = [
                config.replace(learning_rate=rate, seed=seed)
                for (_, rate), seed in zip(due, seeds, strict=True)
            ]
            found = score(configs, [i for i, _ in due])
            for (i, rate), value in zip(due, found, strict=True):
                scores[i][rate] = value
            left = [_beyond(_best(known), sorted(known)) for known in scores]
        return [(rate, known[rate]) for known in scores for rate in [_best(known)]]

    def endings(self, configs: Sequence[RunConfig], repetitions: Sequence[int]) -> list[float]:
        """A :data:`Score`: the validation loss at the end of every run, the mean of some seeds."""
        each = [
            config.replace(seed=_random.key(config.seed, "guide tuning", i))
            for config in configs
            for i in range(TUNING)
        ]
        runs, _ = self.train(each, at_end(int(configs[0].samples or 0)))
        return np.array([end(run) for run in runs]).reshape(-1, TUNING).mean(1).tolist()

    def named(self, config: RunConfig, rates: Sequence[float]) -> list[RunConfig]:
        """The run of each repetition, at its rate and on its study seed."""
        return [
            config.replace(learning_rate=rate, seed=study_seed(self.bench, i))
            for i, rate in enumerate(rates)
        ]


def _moved(grid: Sequence[float], steps: float) -> list[float]:
    return [rate * FACTOR**steps for rate in grid]


def _best(scores: dict[float, float]) -> float:
    """The smallest of the rates with the best score."""
    return min(sorted(scores), key=lambda rate: scores[rate])


def _beyond(best: float, tried: Sequence[float]) -> list[float]:
    """The next rate outside a grid if the best one lies at its end.

    Example:
        >>> _beyond(0.4, [0.1, 0.2, 0.4]), _beyond(0.2, [0.1, 0.2, 0.4])
        ([0.8], [])
    """
    if best == tried[-1]:
        return [best * FACTOR]
    return [best / FACTOR] if best == tried[0] else []
