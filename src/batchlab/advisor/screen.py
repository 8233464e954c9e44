"""Stage A: what fits, how fast, how noisy; from these the candidates."""

from __future__ import annotations

import math
import time

import torch

from batchlab.advisor.candidates import propose
from batchlab.advisor.session import Session
from batchlab.advisor.stages import Screening, all_sizes
from batchlab.advisor.tuning.space import ALL
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult, RunState
from batchlab.engine.cell import one_thread
from batchlab.engine.evaluate import Evaluator
from batchlab.errors import TaskError
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
SHORT_RUN_SHARE = 0.2
"""Share of the time left that the short run may take where 5 % of a whole run would take more."""
NOISE_PROBES = 4
FIT_SHARE, LEAST_FIT_SECONDS = 0.2, 5.0
"""Share of the time left that finding the largest batch may take, and the least it is given."""


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
    reused, probe = session.engine.reused, _probe(session)
    run, _ = short_run(session, end, probe)
    if session.engine.reused == reused:
        session.engine_factor = _engine_factor(session, run, probe.seconds)
    _check_metric(session, run)
    noise = noise_along(run.series)
    proposals = propose(
        session.batch_size,
        examples=session.prepared.examples,
        largest=max(session.batch_size, session.fit.largest),
        scale=resolved_scale(noise),
        requested=_fitting(session),
    )
    session.visit([p.batch_size for p in proposals])
    return Screening(proposals, noise, end, session.evaluation_seconds, session.engine_factor)


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
    """The largest batch that fits every model that is going to be trained."""
    session.listener.progress("finding the largest batch that fits", 0.0)
    left = session.left
    found = fit(
        session.prepared,
        _heaviest(session),
        memory_limit=session.options.memory_limit,
        max_size=session.prepared.examples,
        time_limit=max(LEAST_FIT_SECONDS, FIT_SHARE * left) if math.isfinite(left) else None,
    )
    if not found.largest and found.bound_by == "nothing fits":
        raise TaskError(f"Nothing can be measured: {found.sentence}")
    return found


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
    """How long reading the validation data once takes a worker: the best of three.

    Args:
        session: The advice in the making, which learns it.

    Raises:
        TaskError: If the task's metric raises.
    """
    prepared = session.prepared
    objective = prepared.objective(0, gamma=prepared.baseline.gamma).eval()
    evaluator = Evaluator(prepared.validation, prepared.metric, prepared.device, torch.float32)
    times = []
    with torch.no_grad(), one_thread(prepared.device):
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


def _probe(session: Session) -> _Timed:
    config = session.config(session.batch_size, session.learning_rate, session.options.seed)
    return _Timed(noise_probe(session.prepared, config))


def short_run(
    session: Session, end: int, probe: _Timed | None = None
) -> tuple[RunResult, RunState | None]:
    """The first part of the baseline's training, with the noise scale measured on the way.

    Asked for again it is the same cell, so that a resumed advice goes on from the same weights.

    Args:
        session: The advice in the making.
        end: Samples.
        probe: The noise probe, made here if left out.

    Returns:
        The run, and its end state: the common checkpoint of the first seed, None if it diverged.
    """
    config = session.config(session.batch_size, session.learning_rate, session.options.seed)
    job = Job(
        (0, end),
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
    evaluations = len(run.series["loss"].values) * session.evaluation_seconds
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
