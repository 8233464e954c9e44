"""Watched trainings by their settings, and pairs of them that share a seed."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from batchlab.advisor.record import Change, MetricInfo, Setting
from batchlab.advisor.watched.runs import LOSS, Run, metric_of
from batchlab.errors import ResultError
from batchlab.stats import end_values, time_to_target
from batchlab.types import Status

LEAST = 3
"""Evaluations that a run must have: a goal is reached by the mean of three in a row."""


@dataclass(frozen=True)
class Group:
    """The trainings with one setting.

    Attributes:
        setting: With its id: ``today`` for the setting of the first directory.
        runs: In the order given.
    """

    setting: Setting
    runs: tuple[Run, ...]


class Pair(NamedTuple):
    """A training with today's settings and one with others.

    Attributes:
        today: With today's settings.
        other: With the others.
        shared: Whether both have the same seed.
    """

    today: Run
    other: Run
    shared: bool


def grouped(runs: Iterable[Run]) -> tuple[Group, ...]:
    """Trainings by their settings, those of the first run first.

    Args:
        runs: In the order given.

    Returns:
        At least one group for at least one run.
    """
    found: dict[Any, list[Run]] = defaultdict(list)
    for run in runs:
        found[_key(run.setting)].append(run)
    taken: set[str] = set()
    return tuple(_group(members, taken) for members in found.values())


def _key(setting: Setting) -> tuple[Any, ...]:
    plain = dataclasses.asdict(replace(setting, samples=0))
    return tuple((name, str(value)) for name, value in sorted(plain.items()))


def _group(members: Sequence[Run], taken: set[str]) -> Group:
    setting = members[0].setting
    name = f"B{setting.batch_size}-lr{setting.learning_rate:.4g}" if taken else "today"
    while name in taken:
        name += "'"
    taken.add(name)
    samples = sorted(run.samples for run in members)[len(members) // 2]
    return Group(replace(setting, id=name, samples=samples), tuple(members))


def changes(today: Setting, other: Setting) -> tuple[Change, ...]:
    """The settings in which two differ, batch size and learning rate first.

    Args:
        today: Today's.
        other: The others.

    Returns:
        One change a setting; what a batch is made of only where it is accumulated or shared out.
    """
    names = ["batch_size", "learning_rate"]
    names += [f.name for f in dataclasses.fields(Setting) if f.name not in (*names, *_NO_SETTING)]
    if all(s.accum_steps * s.world_size == 1 for s in (today, other)):
        names.remove("micro_batch_size")
    pairs = [(name, getattr(today, name), getattr(other, name)) for name in names]
    own = dict.fromkeys((*today.other, *other.other))
    pairs += [(name, today.other.get(name), other.other.get(name)) for name in own]
    return tuple(Change(*pair) for pair in pairs if str(pair[1]) != str(pair[2]))


_NO_SETTING = ("id", "samples", "other")


def paired(today: Sequence[Run], other: Sequence[Run]) -> tuple[Pair, ...]:
    """Pairs of the same seed; what is left, in the order given.

    Trainings that share nothing are independent: any pairing of them that does not look at their
    results is as good as another.

    Args:
        today: Runs with today's settings.
        other: Runs with others.

    Returns:
        Pairs, those that share a seed first.
    """
    rest, found = list(other), []
    alone = []
    for run in today:
        twin = next((r for r in rest if r.seed is not None and r.seed == run.seed), None)
        if twin is None:
            alone.append(run)
        else:
            rest.remove(twin)
            found.append(Pair(run, twin, True))
    return (*found, *(Pair(a, b, False) for a, b in zip(alone, rest, strict=False)))


# -- what they are judged by ----------------------------------------------------------------------


def common_metric(runs: Sequence[Run], wanted: str | None) -> MetricInfo:
    """What all runs are judged by: a metric that every one of them told, else the training loss.

    A run that diverged before it told any has none to tell: it takes part, as one that never
    reaches the goal.

    Args:
        runs: All of them.
        wanted: A name, or None: one whose direction was said comes before one whose name tells it,
            and a loss comes last.

    Returns:
        The metric.

    Raises:
        ResultError: If there is none in common, or it was told too seldom.
    """
    able = [run for run in runs if run.status is not Status.DIVERGED or _metrics(run)] or runs
    shared = [name for name in _metrics(able[0]) if all(name in run.series for run in able)]
    if wanted is not None:
        shared = [name for name in (*shared, LOSS) if name == wanted]
    elif not shared and any(map(_metrics, able)):
        raise ResultError(_differ(able))
    known = [info for name in shared or [LOSS] if (info := _info(able, name)) is not None]
    if wanted is not None and not shared:
        raise ResultError(f"no metric `{wanted}` is recorded in all of these trainings.")
    if not known:
        raise ResultError(
            f"whether more of {', '.join(shared)} is better was not told: pass "
            "`maximise=` to `metric`, or choose the training loss with --metric loss."
        )
    best = min(known, key=lambda info: _rank(runs, info))
    _must_be_told_often(runs, best.name)
    return best


def _metrics(run: Run) -> list[str]:
    return [name for name in run.series if name != LOSS]


def _info(runs: Sequence[Run], name: str) -> MetricInfo | None:
    if name == LOSS:
        return MetricInfo(LOSS, maximise=False)
    said = [d for run in runs if (d := run.directions.get(name)) is not None]
    values = [float(v) for run in runs for v in run.series[name].values]
    return metric_of(name, said[0] if said else None, values)


def _rank(runs: Sequence[Run], info: MetricInfo) -> tuple[bool, bool]:
    said = any(run.directions.get(info.name) is not None for run in runs)
    return LOSS in info.name.lower(), not said


def _differ(runs: Sequence[Run]) -> str:
    with_metric = next(run for run in runs if _metrics(run))
    name = _metrics(with_metric)[0]
    without = next(run for run in runs if name not in run.series)
    others = _metrics(without)
    has = f"has {', '.join(others)}" if others else "has no metric"
    return (
        f"`{with_metric.name}` is judged by {name}, `{without.name}` {has}: trainings are "
        "compared by a metric that all of them tell, or by the training loss (--metric loss)."
    )


def _must_be_told_often(runs: Sequence[Run], name: str) -> None:
    """A run that came to its end needs three values; one that did not may have fewer yet."""
    for run in runs:
        count = len(run.series[name]) if name in run.series else 0
        if count < LEAST and run.ended and run.status is not Status.DIVERGED:
            raise ResultError(
                f"`{run.name}` tells {name} {count} times: at least {LEAST} values in every "
                "training are needed to say when it reached a goal."
            )


def end_value(run: Run, metric: str) -> float:
    """The metric where a run stands now: the mean of its last three values; NaN if it diverged."""
    series = run.series.get(metric)
    if series is None or len(series) < LEAST:
        return math.nan
    return float(end_values(series.values[None])[0])


def reached(run: Run, metric: MetricInfo, target: float) -> tuple[float, float]:
    """Seconds and examples at which a run reached the goal; infinite if it has not."""
    series = run.series.get(metric.name)
    if series is None or len(series) < LEAST:
        return math.inf, math.inf
    seconds, samples = (
        time_to_target(at, series.values, target, metric.maximise)
        for at in (series.seconds, series.samples)
    )
    return seconds, samples


def spacing(runs: Iterable[Run], metric: str) -> float:
    """Seconds between two evaluations, the median over runs of their medians; 0 if unknown."""
    gaps = [np.median(np.diff(run.series[metric].seconds)) for run in runs if metric in run.series]
    return float(np.median(gaps)) if gaps else 0.0


def decided_times(
    pairs: Sequence[Pair], metric: MetricInfo, target: float
) -> tuple[tuple[Pair, ...], Float[np.ndarray, "2 2 n"]]:
    """The pairs of which both runs have reached the goal or can no longer do so, and when.

    A run that still trains, or was stopped, before the goal has told nothing about when it would.

    Args:
        pairs: Of today's settings and others.
        metric: What the goal is a value of.
        target: The goal.

    Returns:
        Pairs, and [today, other] × [seconds, examples] × pairs, infinite for never.
    """
    times = [tuple(reached(run, metric, target) for run in (p.today, p.other)) for p in pairs]
    open_ = [
        any(
            not run.ended and math.isinf(t[0])
            for run, t in zip((p.today, p.other), at, strict=True)
        )
        for p, at in zip(pairs, times, strict=True)
    ]
    kept = tuple(p for p, left in zip(pairs, open_, strict=True) if not left)
    known = [at for at, left in zip(times, open_, strict=True) if not left]
    return kept, np.array(known, float).reshape(len(kept), 2, 2).transpose(1, 2, 0)
