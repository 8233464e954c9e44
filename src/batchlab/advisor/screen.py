"""Stage A: what fits, how fast, how noisy; from these the candidates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from batchlab._memory import is_out_of_memory
from batchlab.advisor.candidates import Proposal, propose
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Screening, all_sizes
from batchlab.advisor.tuning.space import ALL
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult, RunState
from batchlab.engine.cell import one_thread
from batchlab.engine.evaluate import EVALUATION_BATCH, Evaluator
from batchlab.errors import TaskError
from batchlab.measure.fit import PATIENCE, FitResult, fit, unavailable
from batchlab.measure.noise import (
    COST,
    EXAMPLES,
    METHODS,
    NoiseProbe,
    NoiseResult,
    from_trace_values,
    noise_probe,
    pool,
)
from batchlab.tasks import Objective
from batchlab.tasks.source import part_of

CHECKPOINT_SHARE = 0.05
"""The short baseline run from which every candidate goes on, as a share of a whole one."""
SHORT_RUN_SHARE = 0.2
"""Share of the time left that the short run may take where 5 % of a whole run would take more."""
NOISE_PROBES = 4
FIT_SHARE, LEAST_FIT_SECONDS = 0.2, 5.0
"""Share of the time left that finding the largest batch may take, and the least it is given."""
LEAST_PATIENCE = 10.0
"""Seconds that the first size is given at least: without it nothing is known, and on a busy
machine one update can take longer than a short budget."""
NOISE_SHARE = 0.2
"""Share of the time left that measuring the noise scale may take."""
EVALUATION_SHARE, LEAST_EVALUATION_SECONDS, MOST_EVALUATION_SECONDS = 0.05, 0.2, 10.0
"""Share of the time left that timing an evaluation may take, and its ends."""


def screen(session: Session, end: int) -> Screening:
    """Run stage A.

    Args:
        session: The advice in the making; its ``fit``, evaluation time, engine factor and
            stopwatch are filled in.
        end: Samples of the short run of today's settings.

    Returns:
        The record.
    """
    session.fit = measure_fit(session)
    time_evaluation(session)
    session.visit(all_sizes([session.today]))
    reused, probe, evaluate = session.engine.reused, _probe(session), _can_evaluate(session)
    run, _ = short_run(session, end, probe, evaluate)
    if session.engine.reused == reused:
        session.engine_factor = _engine_factor(session, run, probe.seconds)
    _check_metric(session, run)
    probed = noise_along(run.series)
    noise = tuple(one for one in probed if not _left_out(one))
    if len(noise) < len(probed):
        session.listener.say(
            f"the noise scale is measured {len(noise)} times instead of {len(probed)}: the budget "
            "does not pay for more"
        )
    proposals = proposed(session, resolved_scale(noise))
    return Screening(
        proposals, noise, end, session.evaluation_seconds, session.engine_factor, evaluate
    )


def _can_evaluate(session: Session) -> bool:
    """Whether the budget pays for evaluating the short run, at its beginning and its end."""
    affordable = 2 * session.evaluation_seconds <= SHORT_RUN_SHARE * session.left
    if not affordable:
        session.listener.say(
            "the short run of today's settings is not evaluated: the budget does not pay for it"
        )
    return affordable


def proposed(session: Session, scale: float | None) -> tuple[Proposal, ...]:
    """The candidates, each timed once.

    Where memory cannot be measured, what fits is not known: then all sizes up to N/4, or those
    that were asked for, are tried, and those remain that ran.

    Args:
        session: The advice in the making, its ``fit`` filled in.
        scale: Noise scale, or None if not resolved.
    """
    assert session.fit is not None
    why, examples = unavailable(session.prepared.device), session.prepared.examples
    proposals = propose(
        session.batch_size,
        examples=examples,
        largest=examples if why else max(session.batch_size, session.fit.largest),
        scale=scale,
        requested=session.options.batch_sizes if why else _fitting(session),
    )
    if why:
        return _that_run(session, proposals, why)
    session.visit([p.batch_size for p in proposals])
    return proposals


def _that_run(session: Session, proposals: Sequence[Proposal], why: str) -> tuple[Proposal, ...]:
    """Those whose whole batch can be timed without running out of memory, smallest first."""
    session.listener.say(
        f"{why}: that batch sizes up to {proposals[-1].batch_size:,} fit is an assumption; those "
        "that run out of memory are left out"
    )
    for place, proposal in enumerate(proposals):
        size, known = proposal.batch_size, session.fit
        assert known is not None
        session.fit = _whole(known, size, why)
        try:
            session.visit([size])
        except Exception as error:
            session.fit = replace(known, bound_by="memory")
            if not is_out_of_memory(error):
                raise
            session.listener.say(f"batch sizes from {size:,} are left out: memory ran out")
            return tuple(p for p in proposals[:place] if p.batch_size <= known.largest)
        if str(size) not in session.stopwatch.blocks:  # too slow to be timed: it did not run
            session.fit = known
    return tuple(proposals)


def _whole(known: FitResult, size: int, why: str) -> FitResult:
    """What is known to fit once a batch has run in one piece."""
    if size <= known.largest:
        return known
    said = f"A batch of {size:,} runs in one piece; what it takes is not known: {why}."
    return replace(known, largest=size, sentence=said)


def _fitting(session: Session) -> tuple[int, ...] | None:
    """The sizes that were asked for, without those that do not fit."""
    asked, fit = session.options.batch_sizes, session.fit
    if asked is None or fit is None or not fit.largest:
        return asked
    for size in asked:
        if size > fit.largest:
            session.listener.say(
                f"batch size {size} is left out: the largest that ran is {fit.largest}"
            )
    return tuple(size for size in asked if size <= fit.largest)


def measure_fit(session: Session) -> FitResult:
    """The largest batch that fits every model that is going to be trained; its first size may
    take what is left of the budget.

    Raises:
        TaskError: If not even one size ran.
    """
    session.listener.progress("finding the largest batch that fits", 0.0)
    left = session.left
    found = fit(
        session.prepared,
        _heaviest(session),
        memory_limit=session.options.memory_limit,
        max_size=session.prepared.examples,
        time_limit=max(LEAST_FIT_SECONDS, FIT_SHARE * left) if math.isfinite(left) else None,
        patience=max(LEAST_PATIENCE, min(PATIENCE, left)),
    )
    if found.largest:
        return found
    hint = " Give a larger budget, a smaller batch size or a faster machine."
    late = found.bound_by == "time"
    raise TaskError(f"Nothing can be measured: {found.sentence}{hint if late else ''}")


def _heaviest(session: Session) -> RunConfig:
    """Today's recipe; with a γ where one is going to be tried: its copy takes memory too."""
    options, baseline = session.options, session.baseline
    tried = options.gammas or {"gamma", ALL} & set(options.tune)
    if baseline.gamma is not None or not tried or session.no_gamma:
        return baseline
    return baseline.replace(gamma=1.0)


def _check_metric(session: Session, run: RunResult) -> None:
    """A metric that is never a number decides nothing."""
    values = run.series["metric"].values if "metric" in run.series else ()
    if len(values) and not any(map(math.isfinite, values)):
        name = session.prepared.metric.name
        raise TaskError(
            f"The metric `{name}` was NaN or infinite at every evaluation of a short run of "
            "today's settings. Return a finite number from it."
        )


def checkpoint_samples(session: Session) -> int:
    """Where the short baseline run ends: a share of the training length, or what a small part of
    the budget pays for; whole batches, at least one.
    """
    size = session.batch_size
    wanted = CHECKPOINT_SHARE * session.samples
    seconds = session.run_seconds(size, size) * session.engine_factor
    affordable = SHORT_RUN_SHARE * max(0.0, session.left) / seconds * size
    return max(1, int(min(wanted, affordable)) // size) * size


def time_evaluation(session: Session) -> None:
    """How long reading the validation data once takes a worker: the best of three, or of as many
    as a small part of the budget pays for. Where that is not even one, a part of the data stands
    for the rest, and the metric, which needs all, is left out.

    Args:
        session: The advice in the making, which learns it.

    Raises:
        TaskError: If the task's metric raises.
    """
    source, limit = session.prepared.validation, _evaluation_limit(session)
    began, size = time.perf_counter(), EVALUATION_BATCH
    while size < source.examples:
        seconds = _evaluated(session, size)()
        whole, spent = seconds * source.examples / size, time.perf_counter() - began
        if spent + whole <= limit:
            break
        if spent + GROWTH * seconds > limit:
            session.evaluation_seconds = whole
            session.listener.say(
                f"reading the validation data once is expected to take {whole:.2g} seconds: timed "
                f"on {size:,} of {source.examples:,} {session.prepared.task.unit}"
            )
            return
        size *= GROWTH
    again, times = _evaluated(session, source.examples), []
    while len(times) < 3 and (not times or time.perf_counter() - began + times[-1] <= limit):
        times.append(again())
    session.evaluation_seconds = min(times)


GROWTH = 4
"""From one part of the validation data to the next that is timed."""


def _evaluation_limit(session: Session) -> float:
    """Seconds that timing an evaluation may take."""
    affordable = EVALUATION_SHARE * session.left
    return max(LEAST_EVALUATION_SECONDS, min(MOST_EVALUATION_SECONDS, affordable))


def _evaluated(session: Session, examples: int) -> Callable[[], float]:
    """Evaluates a new model on the first validation examples and says how long that took."""
    prepared, metric = session.prepared, session.prepared.metric
    source = prepared.validation
    if examples < source.examples:
        source = part_of(source, torch.arange(examples))
        if metric.function is not None:
            metric = replace(metric, function=lambda outputs, batch: 0.0)
    objective = prepared.objective(0, gamma=prepared.baseline.gamma).eval()
    evaluator = Evaluator(source, metric, prepared.device, torch.float32, session.evaluation_batch)

    def once() -> float:
        began = time.perf_counter()
        with torch.no_grad(), one_thread(prepared.device):
            evaluator(lambda batch: _sums(objective(batch, predict=True)))
        return time.perf_counter() - began

    return once


def _sums(found: tuple) -> tuple:  # pyright: ignore[reportMissingTypeArgument]
    """(outputs, losses, weights) → (outputs, Σwℓ, Σw)."""
    outputs, losses, weights = found
    return outputs, (losses * weights).sum(), weights.sum()


def _unpaid(samples: int) -> NoiseResult:
    """Stands where the noise scale is not measured, for the sake of the budget."""
    return NoiseResult(samples, math.nan, math.nan, None, None, METHODS[0], 0)


def _left_out(found: NoiseResult) -> bool:
    """Whether this is :func:`_unpaid`."""
    return (found.method, found.examples) == (METHODS[0], 0)


class _Timed:
    """A probe that knows how long it has taken, so that it does not count as training, and that
    measures nothing more where that would take longer than it may.

    Args:
        probe: Measures the noise scale.
        most: Seconds that all measurements may take.
        expected: Seconds of the first.
    """

    def __init__(self, probe: NoiseProbe, most: float, expected: float) -> None:
        self._probe, self.name, self.seconds = probe, probe.name, 0.0
        self._most, self._expected = most, expected

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        if self.seconds + self._expected > self._most:
            return _unpaid(samples).values()
        began = time.perf_counter()
        found = self._probe(objective, samples)
        self._expected = time.perf_counter() - began
        self.seconds += self._expected
        return found


def _probe(session: Session) -> _Timed:
    config = session.config(session.batch_size, session.learning_rate, session.options.seed)
    examples = max(round(EXAMPLES * COST), session.batch_size)
    expected = session.run_seconds(session.batch_size, examples)
    return _Timed(noise_probe(session.prepared, config), NOISE_SHARE * session.left, expected)


def short_run(
    session: Session, end: int, probe: _Timed | None = None, evaluate: bool = True
) -> tuple[RunResult, RunState | None]:
    """The first part of the baseline's training, with the noise scale measured on the way.

    Asked for again it is the same cell, so that a resumed advice goes on from the same weights.

    Args:
        session: The advice in the making.
        end: Samples.
        probe: The noise probe, made here if left out.
        evaluate: Whether it is evaluated at its beginning and its end.

    Returns:
        The run, and its end state: the common checkpoint of the first seed, None if it diverged.
    """
    config = session.config(session.batch_size, session.learning_rate, session.options.seed)
    job = Job(
        (0, end) if evaluate else (),
        probe=probe or _probe(session),
        probe_at=probe_moments(end),
        keep_end=True,
        until=end,
    )
    trace, states = session.train("a short run of today's settings", [config], job)
    return trace.runs[0], states[0]


def probe_moments(end: int) -> tuple[int, ...]:
    """Samples at which the noise scale is measured.

    Example:
        >>> probe_moments(1000)
        (250, 500, 750, 1000)
    """
    return tuple(round(end * (i + 1) / NOISE_PROBES) for i in range(NOISE_PROBES))


def _engine_factor(session: Session, run: RunResult, probe_seconds: float) -> float:
    """Seconds of an update in the engine / seconds of one in the plain loop."""
    plain = max(1, run.updates) * session.stopwatch.own_rate(session.batch_size)
    count = len(run.series["loss"].values) if "loss" in run.series else 0
    evaluations = count * session.evaluation_seconds
    return min(4.0, max(0.5, (run.seconds - probe_seconds - evaluations) / plain))


def noise_along(series: dict) -> tuple[NoiseResult, ...]:  # pyright: ignore[reportMissingTypeArgument]
    """The noise scale at each probe of a run."""
    probes = {name: s for name, s in series.items() if name.startswith("noise.")}
    if not probes:
        return ()
    moments = next(iter(probes.values())).samples.tolist()
    return tuple(
        from_trace_values({name: float(s.values[i]) for name, s in probes.items()}, samples)
        for i, samples in enumerate(moments)
    )


def resolved_scale(noise: tuple[NoiseResult, ...]) -> float | None:
    """The noise scale over all probes together, or None if it is not resolved."""
    usable = [r for r in noise if r.moments is not None]
    if not usable or len({r.method for r in usable}) > 1:
        return None
    together = pool(usable)
    if together.scale is None or not math.isfinite(together.scale.value):
        return None
    return max(1.0, together.scale.value)
