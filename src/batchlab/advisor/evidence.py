"""The evidence below the answer: memory, noise, the search, the candidates and their curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from batchlab.advisor.candidates import scaled_rate
from batchlab.advisor.decision import pareto, unbroken, useful_range, working_rates
from batchlab.advisor.judge import (
    Projected,
    Yardstick,
    failed,
    final_metric,
    of_setting,
    projected,
    ranked,
    to_target,
)
from batchlab.advisor.project import RUNGS
from batchlab.advisor.record import (
    Candidate,
    CurvePoint,
    Memory,
    MemoryPoint,
    NoisePoint,
    PlanePoint,
    Reason,
)
from batchlab.advisor.stages import Choice, Curve, Grown, Pace, Projection, goes_by_size, pace_of
from batchlab.advisor.view import View
from batchlab.measure.throughput import seconds_per_update
from batchlab.rules import is_sgd_family
from batchlab.schedules import sizes_of
from batchlab.stats import mean_estimate, median_estimate, quantile
from batchlab.types import Estimate, Evidence, Status

LAST_RUNG = len(RUNGS) - 1


def memory(view: View) -> Memory | None:
    """What fits and how fast it runs, trial by trial."""
    machine = view.records.machine
    if machine is None or machine.fit is None:
        return None
    fit, points = machine.fit, {}
    for trial in fit.points:
        points[trial.batch_size] = MemoryPoint(
            trial.batch_size, trial.fits, trial.bytes, reason=trial.reason
        )
    for text, blocks in machine.blocks.items():
        timing, size = seconds_per_update(blocks), int(text)
        known = points.get(size, MemoryPoint(size, True, 0))
        points[size] = replace(
            known,
            samples_per_second=timing.samples_per_second,
            seconds_per_update=timing.seconds_per_update,
        )
    blocks = machine.blocks.get(str(view.first[0]))
    share = seconds_per_update(blocks).loader_share if blocks else None
    return Memory(
        fit.largest,
        fit.bound_by,
        fit.limit_bytes,
        fit.limit_source,
        fit.margin_bytes,
        tuple(points[size] for size in sorted(points)),
        _knee(view),
        share,
        fit.sentence,
    )


def _throughput(view: View) -> dict[int, float]:
    machine = view.yardstick.machine
    return {int(b): int(b) / view.yardstick.rate(int(b)).value for b in machine.blocks}


def _knee(view: View) -> int | None:
    return useful_range(_throughput(view), {})[0]


def noise(view: View) -> tuple[NoisePoint, ...]:
    """The noise scale along the short run of today's settings."""
    screening = view.records.screening
    if screening is None:
        return ()
    return tuple(NoisePoint(r.samples, r.scale, r.at_least) for r in screening.noise)


def seed_sd(projection: Projection) -> float | None:
    """Standard deviation of the metric between seeds, pooled over the settings that were repeated
    to the end of the search: √(mean of variances).

    Args:
        projection: Stage B.

    Returns:
        In the metric's unit; None if nothing was repeated.
    """
    groups: dict[Choice, list[float]] = {}
    for curve in projection.curves:
        value = float(np.mean(curve.metric[-3:]))
        if curve.rung == LAST_RUNG and math.isfinite(value):
            groups.setdefault(curve.choice, []).append(value)
    spreads = [np.var(values, ddof=1) for values in groups.values() if len(values) > 1]
    return float(np.sqrt(np.mean(spreads))) if spreads else None


def plane(view: View) -> tuple[PlanePoint, ...]:
    """Every batch size and learning rate of the search."""
    if view.projection is None:
        return ()
    own = _searched(view.projection)
    points = []
    for size in sorted({c.batch_size for c in own if isinstance(c.batch_size, int)}):
        mine = [c for c in own if c.batch_size == size]
        working = _working(view, mine)
        for curve in sorted(mine, key=lambda c: c.learning_rate):
            points.append(
                PlanePoint(
                    size,
                    curve.learning_rate,
                    curve.loss[-1],
                    curve.metric[-1],
                    curve.samples[-1] - view.projection.start,
                    curve.rung,
                    curve.status,
                    curve.learning_rate in working,
                )
            )
    return tuple(points)


def _working(view: View, curves: Sequence[Curve]) -> set[float]:
    """Rates of one batch size that work, each judged against the others where its own search
    ended: its metric is within one standard deviation between seeds of the best, and its loss has
    come at least half as far down as the best's. Where the scatter is wide the first alone would
    let a rate pass that has hardly moved.
    """
    assert view.projection is not None
    works, sd = set(), seed_sd(view.projection) or 0.0
    for curve in curves:
        if curve.status is Status.DIVERGED:
            continue
        end = curve.samples[-1]
        level = {c.learning_rate: _metric_at(c, end) for c in curves if c.samples[-1] >= end}
        found = working_rates(level, sd, view.maximise)
        falls = [_fall_at(c, end) for c in curves if c.samples[-1] >= end]
        moved = _fall_at(curve, end) >= 0.5 * max(falls) > 0
        if found is not None and curve.learning_rate in found.works and moved:
            works.add(curve.learning_rate)
    return works


def _searched(projection: Projection) -> list[Curve]:
    """The curves of the seed that every learning rate was tried with."""
    seed = min(c.seed for c in projection.curves)
    return [c for c in projection.curves if c.seed == seed]


def candidates(view: View) -> tuple[Candidate, ...]:
    """The candidates, with all that is known of each."""
    screening = view.records.screening
    if screening is None:
        return ()
    reasons = {p.batch_size: p.reason for p in screening.proposals}
    today, first = view.today, view.first[0]
    grows = isinstance(today, Grown)
    if grows:
        made = [_whole(view, today, Reason.BASELINE)]
        reasons[first] = Reason.FIRST
    else:
        made = [_candidate(view, today, reasons.get(first, Reason.BASELINE), None)]
    for row in view.rows:
        pair = (row.batch_size, row.learning_rate)
        if pair != today:
            made.append(
                _candidate(view, pair, reasons.get(row.batch_size, Reason.NOISE_SCALE), row)
            )
    if view.tuned:
        made += [_whole(view, choice, Reason.TUNED) for choice in view.tuned]
    elif not view.rows:
        made += [
            _candidate(
                view, (p.batch_size, _linear(view, p.batch_size)), reasons[p.batch_size], None
            )
            for p in screening.proposals
            if grows or p.batch_size != first
        ]
    made += [_whole(view, choice, Reason.REUSED) for choice in view.reused]
    if not view.tuned:
        made += [_whole(view, choice, Reason.STRENGTHENED) for choice in view.strengthened]
    made += [_whole(view, choice, Reason.GROWING) for choice in view.grown]
    return _with_pareto(view, made)


def _whole(view: View, choice: Choice, reason: Reason) -> Candidate:
    """A batch that grows or is used again, or a setting of which more was searched, as far as it
    was confirmed; the trainings that found it are none of them.
    """
    whole = np.array([float(view.samples)])
    updates = float(view.yardstick.updates(whole, pace_of(choice))[0])
    alone = view.yardstick.computing.seconds(view.samples, pace_of(choice))
    each = alone.times(1 / updates, "s/update")
    made = Candidate(view.setting(choice), reason, Evidence.PROJECTED, seconds_per_update=each)
    return _with_confirmation(view, made, choice)


def _linear(view: View, size: int, power: float | None = None) -> float:
    if power is None:
        power = 1.0 if is_sgd_family(view.rule) else 0.5
    return scaled_rate(view.first[1], view.first[0], size, power)


def _candidate(
    view: View, pair: tuple[int, float], reason: Reason, row: Projected | None
) -> Candidate:
    size, _ = pair
    working = _rate_range(view, size)
    made = Candidate(
        view.setting(pair),
        reason,
        Evidence.SCREENED,
        rate_low=working[0],
        rate_high=working[1],
        rate_linear=_linear(view, size, 1.0),
        rate_sqrt=_linear(view, size, 0.5),
        seconds_per_update=_timing(view, size),
    )
    if view.projection is not None:
        made = _with_projection(view, made, pair, row)
    return _with_confirmation(view, made, pair)


def _timing(view: View, size: int) -> Estimate | None:
    blocks = view.yardstick.machine.blocks.get(str(size))
    return seconds_per_update(blocks).seconds_per_update if blocks else None


def _rate_range(view: View, size: int) -> tuple[float | None, float | None]:
    """The run of neighbouring learning rates that work around the tuned one of a batch size; not
    known where no setting was repeated.
    """
    projection = view.projection
    if projection is None or str(size) not in projection.best or seed_sd(projection) is None:
        return None, None
    mine = [c for c in _searched(projection) if c.batch_size == size]
    rates = sorted(c.learning_rate for c in mine)
    chosen = projection.best[str(size)]
    works = _working(view, mine)
    if chosen not in works:
        return None, None
    low, high = unbroken([rate in works for rate in rates], rates.index(chosen))
    return rates[low], rates[high]


def _with_projection(
    view: View, made: Candidate, pair: tuple[int, float], row: Projected | None
) -> Candidate:
    """Samples for an equal fall, scaled to a whole run of today's settings."""
    assert view.projection is not None
    if row is None:
        rates = {pair[0]: pair[1]}
        row = projected(
            view.projection,
            view.yardstick,
            objective="samples",
            today=view.first,
            maximise=view.maximise,
            rates=rates,
        )[0]
    if not len(row.fall) or not math.isfinite(np.median(row.today_fall)):
        return made
    samples = row.fall * (view.samples / np.median(row.today_fall))
    curves = list(of_setting(view.projection.curves, *pair).values())
    return replace(
        made,
        evidence=Evidence.PROJECTED,
        loss_samples=median_estimate(row.fall, "examples"),
        runs=len(row.fall),
        failed=int(np.sum(~np.isfinite(row.fall))),
        **_target_columns(view, samples, pair[0], view.yardstick),
        # Beside whole runs, the metric at the end of a short search would look bad.
        metric=None
        if view.confirmation
        else _metric_estimate(final_metric(curves), view.facts.metric.unit),
    )


def _with_confirmation(view: View, made: Candidate, pair: Choice) -> Candidate:
    """The runs to the target, fresh seeds if there are any."""
    record = view.confirmation
    if record is None:
        return made
    fresh = {view.today: record.today, view.chosen: record.recommended}.get(pair, ())
    curves = fresh or tuple(of_setting(record.choosing, *pair).values())
    if not curves:
        return made
    samples = to_target(curves, record.target, view.maximise)
    yardstick = view.fresh_yardstick if fresh else view.yardstick
    return replace(
        made,
        evidence=Evidence.CONFIRMED,
        runs=len(curves),
        failed=sum(failed(c, s) for c, s in zip(curves, samples, strict=True)),
        **_target_columns(view, samples, pace_of(pair), yardstick),
        metric=_metric_estimate(final_metric(curves), view.facts.metric.unit),
    )


def _target_columns(
    view: View, samples: np.ndarray, pace: Pace, yardstick: Yardstick
) -> dict[str, Any]:
    columns = {
        "samples_to_target": median_estimate(samples, "examples"),
        "updates_to_target": median_estimate(yardstick.updates(samples, pace), "updates"),
        "seconds_to_target": median_estimate(yardstick.measure("time", samples, pace), "s"),
    }
    if view.options.price is not None:
        cost = yardstick.measure("cost", samples, pace)
        columns["cost_to_target"] = median_estimate(cost, view.currency)
    return columns


def _with_pareto(view: View, made: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Marks those that no other beats in time and metric; only like is compared with like."""
    level = Evidence.CONFIRMED if view.confirmation else Evidence.PROJECTED
    known = {
        c.setting.id: c for c in made if c.evidence is level and c.seconds_to_target and c.metric
    }
    times = {i: c.seconds_to_target.value for i, c in known.items() if c.seconds_to_target}
    metrics = {i: c.metric.value for i, c in known.items() if c.metric}
    best = set(pareto(times, metrics, view.maximise)) if known else set()
    return tuple(replace(c, pareto=c.setting.id in best) for c in made)


def curves(view: View) -> tuple[CurvePoint, ...]:
    """Median and range over seeds of loss and metric, of the runs that count most."""
    record, projection = view.confirmation, view.projection
    points: list[CurvePoint] = []
    if record is not None:
        groups: dict[Choice, tuple[Curve, ...]] = {view.today: record.today}
        groups[view.chosen] = record.recommended
        others = {c.choice for c in record.choosing} - {*groups}
        for pair in sorted(others, key=lambda c: (max(sizes_of(c[0])), c[1], str(c))):
            groups[pair] = tuple(of_setting(record.choosing, *pair).values())
    elif projection is not None:
        pairs = [view.today, *((r.batch_size, r.learning_rate) for r in view.rows)]
        groups = {p: tuple(of_setting(projection.curves, *p).values()) for p in pairs}
    else:
        return ()
    for pair, curves in groups.items():
        points += _points(view, pair, [c for c in curves if c.status is not Status.DIVERGED])
    return tuple(points)


def curves_on_all(view: View) -> tuple[CurvePoint, ...]:
    """The same of the pair on all data, if one was repeated there."""
    whole = view.records.on_all
    if whole is None:
        return ()
    facts = replace(view.facts, train_examples=whole.examples)
    records = replace(view.records, machine=view.yardstick_on_all.machine)
    there = replace(view, facts=facts, records=records)
    groups = {view.today: whole.today, view.chosen: whole.recommended}
    ended = {
        pair: [c for c in curves if c.status is not Status.DIVERGED]
        for pair, curves in groups.items()
    }
    return tuple(point for pair in ended for point in _points(there, pair, ended[pair]))


def _points(view: View, pair: Choice, curves: Sequence[Curve]) -> list[CurvePoint]:
    if not curves:
        return []
    length = min(len(c.samples) for c in curves)
    seconds = _seconds_along(view, pair, curves[0])
    points = []
    for name in ("loss", "metric"):
        values = np.array([getattr(c, name)[:length] for c in curves])
        for t in np.flatnonzero(np.isfinite(values).all(axis=0)):
            samples, updates = curves[0].samples[t], curves[0].updates[t]
            points.append(
                CurvePoint(
                    view.id(pair),
                    name,
                    samples,
                    samples / view.facts.train_examples,
                    updates,
                    seconds[t],
                    float(np.median(values[:, t])),
                    float(quantile(values[:, t], 0.05)),
                    float(quantile(values[:, t], 0.95)),
                    len(curves),
                )
            )
    return points


def _seconds_along(view: View, choice: Choice, curve: Curve) -> list[float]:
    """Seconds at each evaluation of a run, NaN where nothing was timed."""
    if not goes_by_size(choice):
        reached = np.array(curve.samples, float)
        return view.yardstick.measure("time", reached, pace_of(choice)).tolist()
    rate = view.yardstick.machine.seconds(choice[0])
    reading = view.options.seconds_per_sample
    steps = zip(curve.samples, curve.updates, strict=True)
    return [s * reading + u * rate.value if rate else math.nan for s, u in steps]


def epochs_to_plateau(view: View) -> Estimate | None:
    """Epochs after which today's validation loss never falls by more than a hundredth of its whole
    fall.
    """
    record = view.confirmation
    if record is None:
        return None
    epochs = []
    for curve in record.today:
        loss = np.array(curve.loss)
        if curve.status is Status.OK and len(loss) > 1 and np.isfinite(loss).all():
            enough = loss.min() + 0.01 * (loss[0] - loss.min())
            first = int(np.argmax(loss <= enough))
            epochs.append(curve.samples[first] / view.facts.train_examples)
    return median_estimate(np.array(epochs), "epochs") if epochs else None


def order_changed(view: View) -> bool | None:
    """Whether the best batch size from half of the run is another one than from the start; None
    if that was not tried, or for ``accuracy``, of which a part of a run says little.
    """
    projection, objective = view.projection, view.options.objective
    if projection is None or not projection.late or objective == "accuracy":
        return None
    late = projected(
        replace(projection, curves=projection.late),
        view.yardstick,
        objective=objective,
        today=view.first,
        maximise=view.maximise,
        rates={row.batch_size: row.learning_rate for row in view.rows},
    )
    best = [_best_size(view, rows) for rows in (view.rows, late)]
    return None if None in best else best[0] != best[1]


def _best_size(view: View, rows: Sequence[Projected]) -> int | None:
    """The batch size that does best, if at least two can be compared."""
    order = ranked(rows, view.options.objective, view.maximise)
    return order[0].batch_size if len(order) > 1 else None


def useful(view: View) -> tuple[int | None, int | None]:
    """The batch sizes that waste neither the machine nor the data."""
    falls = {r.batch_size: float(np.median(r.fall)) for r in view.rows if len(r.fall)}
    return useful_range(_throughput(view), falls)


def _metric_estimate(values: np.ndarray, unit: str) -> Estimate | None:
    known = values[np.isfinite(values)]
    return mean_estimate(known, unit) if len(known) else None


def _fall_at(curve: Curve, samples: int) -> float:
    """Fall of the validation loss up to here, mean of the last three; −∞ for a diverged run."""
    there = [x for s, x in zip(curve.samples, curve.loss, strict=True) if s <= samples][-3:]
    fall = curve.loss[0] - float(np.mean(there)) if there else -math.inf
    return fall if curve.status is not Status.DIVERGED and math.isfinite(fall) else -math.inf


def _metric_at(curve: Curve, samples: int) -> float:
    """Mean of the last three metrics up to here; NaN for a diverged run."""
    if curve.status is Status.DIVERGED:
        return math.nan
    there = [m for s, m in zip(curve.samples, curve.metric, strict=True) if s <= samples][-3:]
    return float(np.mean(there)) if there else math.nan
