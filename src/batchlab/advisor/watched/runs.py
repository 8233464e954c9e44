"""One watched training as a comparison needs it: its setting, its curves over its own clock."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from batchlab.advisor.record import MetricInfo, Setting
from batchlab.errors import ResultError
from batchlab.types import Status
from batchlab.watch.record import BatchSize, Ending, MetricPoint, Moment, Start, Watched
from batchlab.watch.settings import counts

LOSS = "loss"
STRETCHES = 50
"""Into so many equal parts, in examples, a loss that was told update by update is averaged."""

UPWARD = ("acc", "f1", "auc", "r2", "precision", "recall", "iou", "dice", "bleu", "rouge", "map")
DOWNWARD = (
    "loss",
    "err",
    "mse",
    "mae",
    "mape",
    "perplexity",
    "ppl",
    "wer",
    "cer",
    "nll",
    "escapes",
)
"""Parts of names of metrics of which more is better, and less."""
SHARES = ("acc", "precision", "recall", "error rate")

CONFIGURED = {f.name for f in dataclasses.fields(Setting)} - {"id", "samples", "other"}


@dataclass(frozen=True)
class Series:
    """A quantity along one training, at T moments.

    Attributes:
        samples: Examples so far. Shape ``[T]``.
        updates: Steps of the optimizer so far. Shape ``[T]``.
        seconds: The training's own clock. Shape ``[T]``.
        values: NaN where it was not a number. Shape ``[T]``.
    """

    samples: Float[np.ndarray, " T"]
    updates: Float[np.ndarray, " T"]
    seconds: Float[np.ndarray, " T"]
    values: Float[np.ndarray, " T"]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Run:
    """One watched training.

    Attributes:
        name: Its directory, as it was given.
        seed: None where nobody said.
        setting: What it was trained with; ``id`` is empty.
        series: Name → curve: ``loss``, and every metric that was told.
        directions: Metric → whether more is better; None where nobody said.
        status: Diverged if a loss was not finite; did not learn if none fell below the first.
        ended: Whether it came to its own end. A run that is still going, or was stopped, may yet
            reach a goal.
        samples: Examples trained on.
        updates: Steps of the optimizer.
        seconds: Of the clock that its curves have.
        wall: Seconds in all, evaluation included.
        population: Examples of the data set; None where unknown.
        device: Where it ran.
    """

    name: str
    seed: int | None
    setting: Setting
    series: Mapping[str, Series]
    directions: Mapping[str, bool | None]
    status: Status
    ended: bool
    samples: int
    updates: int
    seconds: float
    wall: float
    population: int | None
    device: str


def knows_evaluation(watched: Watched) -> bool:
    """Whether the file tells the time of training apart from evaluation, saving and the like."""
    lines = (*watched.moments, *watched.metrics)
    return bool(lines) and all(line.training is not None for line in lines)


def run_of(name: str, watched: Watched, *, without_evaluation: bool) -> Run:
    """What a comparison needs of a watched training.

    Args:
        name: Its directory.
        watched: What was recorded.
        without_evaluation: Whether the clock is the time of training alone, or wall time.

    Returns:
        The run.

    Raises:
        ResultError: If no update was recorded.
    """
    batch = watched.batch
    if batch is None:
        raise ResultError(f"`{name}` has not recorded an update yet: there is nothing to compare.")
    last = watched.moments[-1]
    status = _status(watched)
    clock = _clock(without_evaluation)
    return Run(
        name=name,
        seed=watched.starts[-1].seed,
        setting=setting_of(watched, batch),
        series=_series(watched, clock, status),
        directions=_directions(watched.metrics),
        status=status,
        ended=_ended(watched),
        samples=last.samples,
        updates=last.updates,
        seconds=clock(last),
        wall=watched.last.seconds,
        population=last.population or _population(watched),
        device=watched.starts[-1].device,
    )


def _ended(watched: Watched) -> bool:
    finished = watched.end is not None and watched.end.ending is Ending.FINISHED
    return finished or watched.diverged is not None


def _clock(without_evaluation: bool) -> Any:
    def read(line: Moment | MetricPoint) -> float:
        known = without_evaluation and line.training is not None
        return float(line.training if known and line.training is not None else line.seconds)

    return read


def _population(watched: Watched) -> int | None:
    known = [block.population for block in watched.noise if block.population is not None]
    return known[-1] if known else None


def _status(watched: Watched) -> Status:
    if watched.diverged is not None:
        return Status.DIVERGED
    told = [m.loss for m in watched.moments if m.loss is not None]
    return Status.DID_NOT_LEARN if len(told) > 1 and min(told[1:]) >= told[0] else Status.OK


# -- settings -------------------------------------------------------------------------------------


def setting_of(watched: Watched, batch: BatchSize) -> Setting:
    """What a training was trained with: read from its optimizer, measured, or told.

    Args:
        watched: What was recorded.
        batch: Its batch.

    Returns:
        A setting without an id. Its learning rate is the largest that was used; what nobody knows
        has an empty text. What nobody can count with stands among the user's own.
    """
    start = watched.starts[-1]
    told = {"rule": start.optimizer} | start.settings
    known = {name: told[name] for name in told if name in CONFIGURED and counts(name, told[name])}
    # Measured, unless the user says otherwise: a schedule of batch sizes can only be told.
    sizes = {"batch_size": batch.whole, "micro_batch_size": batch.micro}
    sizes |= {"accum_steps": batch.accumulation, "world_size": batch.world_size}
    fields: dict[str, Any] = _UNKNOWN | sizes | known | {"learning_rate": _rate(watched, start)}
    other = {name: value for name, value in told.items() if name not in known}
    return Setting(id="", samples=0, other=other, **fields)


_UNKNOWN: dict[str, Any] = {
    "momentum": 0.0,
    "weight_decay": 0.0,
    "lr_schedule": "",
    "warmup": 0.0,
    "clip_norm": None,
    "precision": "",
}


def _rate(watched: Watched, start: Start) -> float:
    """The largest learning rate used, to six digits: schedules leave the rest to chance."""
    used = [m.learning_rate for m in watched.moments if m.learning_rate is not None]
    told = start.settings.get("learning_rate", math.nan)
    rate = max(used) if used else told if counts("learning_rate", told) else math.nan
    return float(f"{rate:.6g}")


# -- curves ---------------------------------------------------------------------------------------


def _series(watched: Watched, clock: Any, status: Status) -> dict[str, Series]:
    found = {LOSS: averaged(_points(_told_losses(watched), clock, "loss"), STRETCHES)}
    for name in dict.fromkeys(point.name for point in watched.metrics):
        points = [p for p in watched.metrics if p.name == name]
        # A metric that is called as the training's own loss was measured on other data.
        found[f"{name} (told)" if name == LOSS else name] = _points(points, clock, "value")
    if status is Status.DIVERGED:
        found = {name: _lost(series, watched.moments[-1], clock) for name, series in found.items()}
    return {name: series for name, series in found.items() if len(series)}


def _told_losses(watched: Watched) -> list[Moment]:
    return [m for m in watched.moments if m.loss is not None]


def _points(lines: Sequence[Any], clock: Any, field: str) -> Series:
    return Series(
        np.array([float(line.samples) for line in lines]),
        np.array([float(line.updates) for line in lines]),
        np.array([clock(line) for line in lines]),
        np.array([float(getattr(line, field)) for line in lines]),
    )


def _lost(series: Series, last: Moment, clock: Any) -> Series:
    """The curve of a diverged training ends in NaN."""
    return Series(
        np.append(series.samples, float(last.samples)),
        np.append(series.updates, float(last.updates)),
        np.append(series.seconds, clock(last)),
        np.append(series.values, math.nan),
    )


def averaged(series: Series, parts: int) -> Series:
    """A curve of means over equal parts, in examples; each stands where its part ends.

    Args:
        series: Each value the mean over the examples since the one before it.
        parts: At most so many.

    Returns:
        The same mean over all examples, at fewer moments.

    Example:
        >>> at = np.array([1.0, 2.0, 4.0])
        >>> averaged(Series(at, at, at, np.array([4.0, 2.0, 1.0])), parts=2).values
        array([3., 1.])
    """
    if len(series) <= parts:
        return series
    width = series.samples[-1] / parts
    part = np.ceil(series.samples / width - 1e-9).astype(int)
    ends = np.flatnonzero(np.diff(part, append=part[-1] + 1))
    weights = np.diff(series.samples, prepend=0.0)
    sums, counts = (np.cumsum(x)[ends] for x in (weights * series.values, weights))
    means = np.diff(sums, prepend=0.0) / np.diff(counts, prepend=0.0)
    return Series(series.samples[ends], series.updates[ends], series.seconds[ends], means)


# -- metrics --------------------------------------------------------------------------------------


def _directions(metrics: Iterable[MetricPoint]) -> dict[str, bool | None]:
    found: dict[str, bool | None] = {}
    for point in metrics:
        found[point.name] = found.get(point.name) if point.maximise is None else point.maximise
    return found


def direction(name: str, said: bool | None) -> bool | None:
    """Whether more of a metric is better: as said, else as its name tells.

    Example:
        >>> direction("val_acc", None), direction("val_loss", None), direction("length", None)
        (True, False, None)
    """
    if said is not None:
        return said
    lower = name.lower()
    if any(part in lower for part in DOWNWARD):
        return False
    return True if any(part in lower for part in UPWARD) else None


def metric_of(name: str, said: bool | None, values: Sequence[float]) -> MetricInfo | None:
    """A metric and how to write it; None where nobody knows whether more is better.

    Args:
        name: As it was told.
        said: Whether more is better, or None.
        values: All that were told: an accuracy within [0, 1] is written in percent.

    Example:
        >>> metric_of("accuracy", None, [0.5, 0.9])
        MetricInfo(name='accuracy', maximise=True, unit='%')
    """
    maximise = direction(name, said)
    if maximise is None:
        return None
    finite = [v for v in values if math.isfinite(v)]
    share = any(part in name.lower() for part in SHARES)
    unit = "%" if share and finite and all(0 <= v <= 1 for v in finite) else ""
    return MetricInfo(name, maximise, unit)
