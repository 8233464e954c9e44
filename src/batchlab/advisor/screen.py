"""Stage A: what fits, how fast, how noisy; from these the candidates."""

from __future__ import annotations

import math
import time

import torch

from batchlab.advisor.candidates import propose
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Screening
from batchlab.engine import Job, RunState, evaluation_grid
from batchlab.engine.cell import one_thread
from batchlab.engine.evaluate import Evaluator
from batchlab.measure.fit import FitResult, fit
from batchlab.measure.noise import (
    NoiseProbe,
    NoiseResult,
    from_trace_values,
    noise_probe,
    pool,
)
from batchlab.tasks import Objective

CHECKPOINT_SHARE = 0.05
"""The short baseline run from which every candidate goes on, as a share of a whole one."""
NOISE_PROBES = 4


def screen(session: Session, state_wanted: bool = True) -> tuple[Screening, RunState | None]:
    """Run stage A.

    Args:
        session: The advice in the making; its ``fit`` and stopwatch are filled in.
        state_wanted: Whether the end of the short run is handed on to stage B.

    Returns:
        The record, and the common checkpoint of the first seed.
    """
    session.fit = measure_fit(session)
    _time_evaluation(session)
    first = [session.batch_size]
    session.visit(first)
    end = checkpoint_samples(session)
    noise, factor, state = _short_run(session, end)
    proposals = propose(
        session.batch_size,
        examples=session.prepared.examples,
        largest=max(session.batch_size, session.fit.largest),
        scale=resolved_scale(noise),
        requested=session.options.batch_sizes,
    )
    sizes = [p.batch_size for p in proposals]
    session.visit(sizes)
    return Screening(proposals, noise, end, session.evaluation_seconds, factor), state


def measure_fit(session: Session) -> FitResult:
    """The largest batch that fits."""
    session.listener.progress("finding the largest batch that fits", 0.0)
    return fit(
        session.prepared,
        session.baseline,
        memory_limit=session.options.memory_limit,
        max_size=session.prepared.examples,
    )


def checkpoint_samples(session: Session) -> int:
    """Where the short baseline run ends: a share of the training length, whole batches, at least
    one.
    """
    wanted = max(session.batch_size, round(CHECKPOINT_SHARE * session.samples))
    return max(1, wanted // session.batch_size) * session.batch_size


def _time_evaluation(session: Session) -> None:
    """How long reading the validation data once takes a worker: the best of three."""
    prepared = session.prepared
    objective = prepared.objective(0).eval()
    evaluator = Evaluator(prepared.validation, prepared.metric, prepared.device, torch.float32)
    times = []
    with torch.no_grad(), one_thread():
        for _ in range(3):
            began = time.perf_counter()
            evaluator(lambda batch: _sums(objective(batch, predict=True)))
            times.append(time.perf_counter() - began)
    session.evaluation_seconds = min(times)


def _sums(found: tuple) -> tuple:  # pyright: ignore[reportMissingTypeArgument]
    """(outputs, losses, weights) → (outputs, Σwℓ, Σw)."""
    outputs, losses, weights = found
    return outputs, (losses * weights).sum(), weights.sum()


class _Timed:
    """A probe that knows how long it has taken, so that it does not count as training."""

    def __init__(self, probe: NoiseProbe) -> None:
        self._probe, self.name, self.seconds = probe, probe.name, 0.0

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        began = time.perf_counter()
        found = self._probe(objective, samples)
        self.seconds += time.perf_counter() - began
        return found


def _short_run(
    session: Session, end: int
) -> tuple[tuple[NoiseResult, ...], float, RunState | None]:
    """The first part of the baseline's training, with the noise scale measured on the way."""
    config = session.config(session.batch_size, session.learning_rate, session.options.seed)
    marks = tuple(round(end * (i + 1) / NOISE_PROBES) for i in range(NOISE_PROBES))
    probe = _Timed(noise_probe(session.prepared, config))
    job = Job(
        evaluation_grid(session.prepared.examples, end),
        probe=probe,
        probe_at=marks,
        keep_end=True,
        until=end,
    )
    trace, states = session.train("a short run of today's settings", [config], job)
    run = trace.runs[0]
    plain = max(1, run.updates) * session.stopwatch.rate(session.batch_size)
    evaluations = len(job.evaluate_at) * session.evaluation_seconds
    factor = min(4.0, max(0.5, (run.seconds - probe.seconds - evaluations) / plain))
    session.engine_factor = factor
    return noise_along(run.series), factor, states[0]


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
    if not noise:
        return None
    together = pool(noise)
    if together.scale is None or not math.isfinite(together.scale.value):
        return None
    return max(1.0, together.scale.value)
