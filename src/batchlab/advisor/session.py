"""What the stages share: the task, the engine, the clock, and what is left of the budget."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from batchlab import _platform, schedules
from batchlab._team import Team
from batchlab.advisor import strength
from batchlab.advisor.options import Options
from batchlab.advisor.stages import (
    Blocks,
    Choice,
    Grown,
    Machine,
    Pace,
    Today,
    Tuned,
    all_sizes,
    gamma_of,
    micro_of,
    others_of,
    parts_of,
    seconds_at,
    size_and_reuse,
    today_of,
)
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job, RunState, Trace
from batchlab.engine.cell import one_thread
from batchlab.engine.evaluate import EVALUATION_BATCH, Evaluator
from batchlab.engine.job import to_device
from batchlab.engine.loop import program_of
from batchlab.engine.step import DTYPES, rule_of, start_of
from batchlab.errors import TaskError, cannot_read, must
from batchlab.measure.fit import FitResult
from batchlab.measure.throughput import Block, time_block
from batchlab.measure.together import time_together, widest
from batchlab.tasks import Prepared
from batchlab.tasks.source import Source

BLOCK_SECONDS = 0.2
TIMED_SHARE = 0.015
"""Share of the budget that timing may take in one visit to all candidates."""
UPDATES_OF_A_BLOCK = 3
"""Two to warm up and one that is timed: what a block takes at least."""
VISIT_SHARE = 0.1
"""Share of the time left that the blocks of one visit may take where single updates are slow."""
WORKER_START_SECONDS = 4.0
PACE_SECONDS = 1.0
"""Sweeps expected to be shorter than this say nothing about the pace."""
PARALLEL_SHARE = 0.85  # of a core that a worker gets: the rest is collecting results


@runtime_checkable
class Listener(Protocol):
    """Hears what a long measurement does."""

    def say(self, sentence: str) -> None:
        """One sentence for the user."""
        ...

    def progress(self, what: str, share: float) -> None:
        """A step has come this far, a share in [0, 1]."""
        ...


class Silent:
    """A listener that does nothing."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def progress(self, what: str, share: float) -> None:
        """Nothing."""


class Stopwatch:
    """Timed blocks of a run as the user trains it, spread over the whole measurement: alone, or
    together on the processes of a team, one of which then also times what it takes by itself.
    """

    def __init__(
        self,
        prepared: Prepared,
        threads: int,
        blocks: Blocks | None = None,
        apart: bool = False,
        wrapped: Blocks | None = None,
        team: Team | None = None,
    ) -> None:
        self._prepared, self.threads, self._apart = prepared, threads, apart
        self.blocks: Blocks = dict(blocks or {})
        self.wrapped: Blocks = dict(wrapped or {})
        self.team = team or Team()
        self._alone: Blocks = {}

    def visit(
        self,
        sizes: Iterable[int],
        seconds: float = BLOCK_SECONDS,
        micro: int | None = None,
        wrapped: bool = False,
    ) -> None:
        """Time one more block of each batch size, in micro-batches where one is given, of the
        model as it is or with a γ (which one does not change its time).
        """
        blocks, baseline = self.timed(wrapped), self._prepared.baseline
        config = baseline.replace(gamma=1.0) if wrapped else baseline
        for size in sizes:
            earlier = blocks.get(str(size), ())
            start = earlier[-1].end if earlier else 0
            if self.team.size == 1:
                block = self._by_itself(config, size, seconds, micro, start)
            else:
                block = self._together(config, size, seconds, micro, start)
                if str(size) not in self._alone:
                    self._alone[str(size)] = (self._by_itself(config, size, seconds, micro, 0),)
            blocks[str(size)] = (*earlier, block)

    def _by_itself(
        self, config: RunConfig, size: int, seconds: float, micro: int | None, start: int
    ) -> Block:
        return time_block(
            self._prepared,
            config,
            seconds,
            batch_size=size,
            micro_batch_size=micro,
            threads=self.threads,
            start=start,
            apart=self._apart,
        )

    def _together(
        self, config: RunConfig, size: int, seconds: float, micro: int | None, start: int
    ) -> Block:
        division = widest(size, self.team.size, micro or size)
        # The other processes hold the task of the team, of which this may be all the data.
        whole = self._prepared is not self.team.context
        asked = config, division, seconds, start, self.threads, whole
        return self.team.ask(time_together, *asked)[0]

    def timed(self, wrapped: bool) -> Blocks:
        """The blocks of the model with a γ, or as it is."""
        return self.wrapped if wrapped else self.blocks

    def rate(self, batch_size: int, wrapped: bool = False) -> float:
        """Seconds per update, as the user trains; with a γ by the model as it is as long as none
        was timed.
        """
        found = seconds_at(self.timed(wrapped and bool(self.wrapped)), batch_size)
        assert found is not None
        return found.value

    def own_rate(self, batch_size: int, wrapped: bool = False) -> float:
        """Seconds per update of one process, by which to expect what training here takes."""
        found = seconds_at(self._alone, batch_size)
        return self.rate(batch_size, wrapped) if found is None else found.value


@dataclass
class Session:
    """One advice in the making.

    Attributes:
        prepared: The task.
        options: What is asked.
        engine: Trains.
        listener: Hears progress.
        stopwatch: Times single runs.
        fit: What fits, once measured.
        began: When the advice started, by the monotonic clock.
        earlier_seconds: Time spent before this process resumed it.
        engine_factor: Seconds of an engine update / seconds of a plain one.
        evaluation_seconds: One evaluation.
        started: Whether the workers run.
        keeps_ends: Whether the ends of the fresh runs are kept, so that what their models look at
            can be measured.
        pace: What sweeps have taken / what was expected of them.
    """

    prepared: Prepared
    options: Options
    engine: Engine
    listener: Listener
    stopwatch: Stopwatch
    fit: FitResult | None = None
    began: float = 0.0
    earlier_seconds: float = 0.0
    engine_factor: float = 1.5
    evaluation_seconds: float = 0.01
    started: bool = False
    keeps_ends: bool = False
    pace: float = 1.0

    @property
    def baseline(self) -> RunConfig:
        """Today's recipe."""
        return self.prepared.baseline

    @property
    def samples(self) -> int:
        """The user's training length."""
        assert isinstance(self.baseline.samples, int)
        return self.baseline.samples

    @property
    def today(self) -> Today:
        """Today's setting."""
        return today_of(self.baseline)

    @property
    def batch_size(self) -> int:
        """Today's batch size; of a schedule the one it starts with, which the search compares
        with.
        """
        return schedules.batch_schedule(self.today[0]).sizes[0]

    @property
    def learning_rate(self) -> float:
        """Today's learning rate."""
        assert self.baseline.learning_rate is not None
        return self.baseline.learning_rate

    @cached_property
    def no_gamma(self) -> str:
        """Why the model cannot be trained with a γ; empty if it can. Tried once."""
        return strength.why_not(self.prepared)

    @property
    def elapsed(self) -> float:
        """Seconds since the advice began, earlier processes included."""
        return self.earlier_seconds + max(0.0, time.perf_counter() - self.began)

    @property
    def left(self) -> float:
        """Seconds left of the budget; infinite without one."""
        return math.inf if self.options.budget is None else self.options.budget - self.elapsed

    def machine(self) -> Machine:
        """What was measured of this machine so far."""
        return machine_of(self.prepared, self.stopwatch, self.fit)

    def of(self, choice: Choice, seed: int, samples: int | None = None) -> RunConfig:
        """The baseline with another setting, seed and length."""
        config = self.config(choice[0], choice[1], seed, samples).replace(
            **dict(others_of(choice))
        )
        if not isinstance(choice, Grown):
            return config
        return config.replace(rate_growth=choice.rate_growth, lr_schedule=choice.lr_schedule)

    def config(
        self, batch_size: int | str, learning_rate: float, seed: int, samples: int | None = None
    ) -> RunConfig:
        """The baseline with another batch size, learning rate, seed and length."""
        config = self.baseline.replace(
            learning_rate=learning_rate, seed=seed, samples=samples or self.samples
        )
        if batch_size == self.today[0]:
            return config
        micro = self.micro(batch_size)
        config = config.replace(batch_size=batch_size)
        return config if micro is None else config.replace(micro_batch_size=micro)

    def micro(self, batch_size: int | str) -> int | None:
        """Examples of a forward pass where the batch is larger than what fits; None: as today."""
        return micro_of(batch_size, self.fit, max(schedules.sizes_of(self.today[0])))

    def run_seconds(self, pace: Pace, samples: int) -> float:
        """One run in this process: updates × seconds per update, evaluation left out."""
        (batch_size, reuse), wrapped = size_and_reuse(pace, self.baseline.reuse), gamma_of(pace)
        parts = parts_of(batch_size, np.array([float(samples)]), self.prepared.examples)
        return sum(
            float(part[0]) / size * reuse * self.stopwatch.own_rate(size, wrapped is not None)
            for size, part in parts
        )

    def visit_all(self, choices: Sequence[Choice]) -> None:
        """Time one more block at every batch size of these settings, and of those with a γ beside
        a model without one also with it.
        """
        self.visit(all_sizes(choices))
        wrapped = [choice for choice in choices if gamma_of(choice) is not None]
        if wrapped and self.baseline.gamma is None:
            self.visit(all_sizes(wrapped), wrapped=True)

    def visit(self, sizes: Sequence[int], wrapped: bool = False) -> None:
        """Time one more block of a run at each batch size, in a small part of the budget. A size
        whose updates are too slow for that keeps the blocks it has.
        """
        budget = 100.0 if self.options.budget is None else self.options.budget
        seconds = min(BLOCK_SECONDS, max(0.02, TIMED_SHARE * budget / len(sizes)))
        most = max(BLOCK_SECONDS, VISIT_SHARE * self.left / len(sizes))
        what = "one run alone" if self.stopwatch.team.size == 1 else "the processes together"
        for i, size in enumerate(sizes):
            self.listener.progress(f"timing {what}", i / len(sizes))
            expected = seconds_at(self.stopwatch.timed(wrapped) or self.stopwatch.blocks, size)
            if expected is None or UPDATES_OF_A_BLOCK * expected.value <= most:
                self.stopwatch.visit([size], seconds, self.micro(size), wrapped)

    @property
    def evaluation_batch(self) -> int:
        """Examples that are evaluated at a time: no more than are known to fit."""
        return min(EVALUATION_BATCH, self.fit.largest) if self.fit else EVALUATION_BATCH

    def wall_seconds(self, runs: Sequence[tuple[Pace, int, int]]) -> float:
        """What a sweep takes on this machine.

        Args:
            runs: (pace, samples, evaluations) of each.

        Returns:
            Seconds: the work over the workers, at least the longest run, and the start of the
                workers.
        """
        each = [
            self.run_seconds(size, samples) * self.engine_factor
            + evaluations * self.evaluation_seconds
            for size, samples, evaluations in runs
        ]
        cold = not self.started and self.engine.workers >= 2 and len(runs) >= 2
        start = WORKER_START_SECONDS if cold else 0.0
        return self.pace * over_workers(each, self.engine.workers) + start

    def train(
        self,
        what: str,
        configs: Sequence[RunConfig],
        job: Job,
        starts: Sequence[RunState | None] | None = None,
    ) -> tuple[Trace, list[RunState | None]]:
        """Train a sweep and tell the listener; what it took corrects later expectations."""
        expected, began = self._expected(configs, job, starts), time.perf_counter()
        reused = self.engine.reused
        self.started = self.started or len(configs) > 1
        found = self.engine.train(
            configs, job, starts=starts, progress=lambda share: self.listener.progress(what, share)
        )
        for sentence in self.engine.hear():
            self.listener.say(sentence)
        if self.engine.reused == reused and expected > PACE_SECONDS:
            share = (time.perf_counter() - began) / expected
            self.pace = min(5.0, max(0.3, self.pace * math.sqrt(share)))
        return found

    def _expected(
        self, configs: Sequence[RunConfig], job: Job, starts: Sequence[RunState | None] | None
    ) -> float:
        """Seconds this sweep should take."""
        work = []
        for i, config in enumerate(configs):
            state = None if starts is None else starts[i]
            begin = 0 if state is None else state.samples
            assert isinstance(config.samples, int)
            end = config.samples if job.until is None else job.until
            assert config.batch_size is not None
            size = config.batch_size
            if begin:
                schedule = schedules.batch_schedule(size).resolve(self.prepared.examples)
                size = schedule.at(begin)
            evaluations = sum(begin <= moment <= end for moment in job.evaluate_at)
            # As many samples as take as long under today's updates per batch.
            samples = max(0, end - begin) * config.reuse // self.baseline.reuse
            pace: Pace = size
            if isinstance(size, int) and config.gamma != self.baseline.gamma:
                pace = Tuned(size, config.learning_rate or 0.0, (("gamma", config.gamma),))
            work.append((pace, samples, evaluations))
        return self.wall_seconds(work)

    def score(self, config: RunConfig, state: RunState, source: Source) -> float:
        """The metric of a trained run on other data, such as the test set."""
        dtype, device = DTYPES[config.precision], self.prepared.device
        objective = self.prepared.objective(config.seed, dtype, config.gamma).eval()
        program = program_of(config, objective, self.engine.capability(config))
        metric = self.prepared.metric
        evaluator = Evaluator(source, metric, device, dtype, self.evaluation_batch)
        params, buffers, _ = to_device(state.progress, device)
        with torch.no_grad(), one_thread(device):
            return evaluator(lambda batch: program.evaluate(params, buffers, batch))[0]["metric"]


def one_batch_size(config: RunConfig, hint: str) -> int:
    """Today's batch size, where a schedule of sizes will not do.

    Args:
        config: A baseline.
        hint: What to do instead.

    Raises:
        TaskError: If it is a schedule.
    """
    size = config.batch_size or 1
    schedule = schedules.batch_schedule(size)
    if not schedule.is_constant:
        raise TaskError(must("batch_size", "one number in the baseline", size, hint))
    return schedule.sizes[0]


def machine_of(prepared: Prepared, stopwatch: Stopwatch, fit: FitResult | None) -> Machine:
    """What depends on the machine, with the blocks timed so far.

    Args:
        prepared: The task.
        stopwatch: Holds the blocks.
        fit: What fits, if measured.
    """
    device = prepared.device
    cuda = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if cuda else _platform.processor_name()
    cores = _platform.available_cores()
    return Machine(
        fit,
        stopwatch.blocks,
        stopwatch.threads,
        device,
        name,
        cores,
        prepared.task.name,
        stopwatch.wrapped,
    )


def over_workers(each: Sequence[float], workers: int) -> float:
    """Seconds that pieces of work take together on so many workers: at least the longest.

    Example:
        >>> over_workers([1.0, 1.0, 8.0], workers=4), over_workers([1.0, 2.0], workers=0)
        (8.0, 3.0)
    """
    return max(sum(each) / max(1.0, PARALLEL_SHARE * workers), max(each, default=0.0))


def checkpoint_state(prepared: Prepared, path: str, config: RunConfig) -> RunState:
    """The state that a file with a ``state_dict`` stands for, at the beginning of the stream.

    Args:
        prepared: The task.
        path: The file.
        config: Names the rule and the precision.

    Returns:
        The state, on the CPU.

    Raises:
        ResultError: If the file cannot be read.
        TaskError: If its tensors do not fit the model.
    """
    objective = prepared.objective(config.seed, DTYPES[config.precision], config.gamma)
    try:
        found = torch.load(path, map_location=prepared.device, weights_only=True)
    except Exception as error:  # torch.load raises whatever the bytes lead it to
        raise cannot_read(
            Path(path), (str(error) or "empty").splitlines()[0].rstrip(".")
        ) from None
    try:
        objective.module.load_state_dict(found)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TaskError(f"`{path}` does not hold the state_dict of this model: {reason}") from None
    return RunState(to_device(start_of(objective, rule_of(config, prepared.task)), "cpu"), 0, 0)
