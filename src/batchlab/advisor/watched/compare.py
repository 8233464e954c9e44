"""Watched trainings with different settings, compared: one advice, by the same statistics.

The settings of the first directory are today's. With one alternative nothing has to be chosen, and
every pair counts. With several, the first half of each one's pairs chooses the best alternative
and the other half judges it, as an advice proves on fresh seeds what others have chosen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from batchlab.advisor.assemble import NOT_TESTED
from batchlab.advisor.decision import pareto
from batchlab.advisor.record import (
    Advice,
    Candidate,
    MetricInfo,
    Price,
    Reason,
    Target,
    Verdict,
)
from batchlab.advisor.watched.curves import curve_points
from batchlab.advisor.watched.groups import (
    LEAST,
    Group,
    changes,
    common_metric,
    end_value,
    grouped,
    reached,
)
from batchlab.advisor.watched.judge import (
    Answer,
    Asked,
    Judged,
    answer_of,
    chosen,
    cost_of,
    judge,
    price_of,
)
from batchlab.advisor.watched.runs import LOSS, Run
from batchlab.errors import InvalidValueError, ResultError
from batchlab.stats import (
    default_target,
    median_estimate,
    share_estimate,
)
from batchlab.types import Estimate, Evidence, Status

CHANGED = {"momentum": "momentum", "lr_schedule": "schedule", "rule": "rules"}
"""Settings whose change means that something was tested after all."""


SO_FAR = "no training with today's settings has ended: the goal is what they have reached so far"


def compare(runs: Sequence[Run], asked: Asked) -> Advice:
    """Compare watched trainings.

    Args:
        runs: At least one; its settings are today's.
        asked: What is asked.

    Returns:
        An advice of which every number comes from these runs.

    Raises:
        ResultError: If they cannot be compared: other data, no metric in common, no goal.
    """
    _must_share_their_data(runs)
    metric = common_metric(runs, asked.metric)
    groups = grouped(runs)
    if len(groups) == 1:
        return _advice(asked, runs, groups, metric)
    target, said = _goal(groups[0], metric, asked.target)
    judged = [judge(groups[0], other, metric, target.value) for other in groups[1:]]
    best, fresh = chosen(judged)
    said = (*_judged_by(runs, metric, asked.metric), *said, *_said(groups, judged, best, fresh))
    asked = dataclasses.replace(asked, said=(*asked.said, *said))
    return _advice(asked, runs, groups, metric, target, answer_of(best, fresh, metric, asked))


def _judged_by(runs: Sequence[Run], metric: MetricInfo, wanted: str | None) -> tuple[str, ...]:
    """What nobody said about the metric."""
    if metric.name == LOSS:
        return () if wanted else ("no metric is recorded: the training loss is compared",)
    if any(run.directions.get(metric.name) is not None for run in runs):
        return ()
    way = "more" if metric.maximise else "less"
    return (f"{way} of {metric.name} is taken to be better, by its name",)


def _must_share_their_data(runs: Sequence[Run]) -> None:
    first = next((run for run in runs if run.population is not None), None)
    for run in runs:
        if first is not None and run.population not in (None, first.population):
            raise ResultError(
                f"`{first.name}` drew from {first.population:,} examples, `{run.name}` from "
                f"{run.population:,}: only trainings on the same data are compared."
            )


def _goal(
    today: Group, metric: MetricInfo, wanted: float | None
) -> tuple[Target, tuple[str, ...]]:
    """What counts as trained: as given, or what four in five of today's trainings reach."""
    if wanted is not None:
        return Target(wanted, "user"), ()
    ended = [run for run in today.runs if run.ended]
    used = ended or list(today.runs)
    ends = np.array([end_value(run, metric.name) for run in used])
    try:
        value = default_target(ends, metric.maximise)
    except InvalidValueError as error:
        raise ResultError(
            f"too few trainings with today's settings (`{today.runs[0].name}` …) tell where "
            f"{metric.name} ends: it takes {LEAST} values of a training that did not diverge, or "
            "a goal (--target)."
        ) from error
    arrived = sum(math.isfinite(reached(run, metric, value)[0]) for run in used)
    share = share_estimate(arrived, len(used)).value
    return Target(value, "baseline", len(used), share), () if ended else (SO_FAR,)


# -- the record -----------------------------------------------------------------------------------


def _advice(
    asked: Asked,
    runs: Sequence[Run],
    groups: Sequence[Group],
    metric: MetricInfo,
    target: Target | None = None,
    answer: Answer | None = None,
) -> Advice:
    today = groups[0].setting
    found = answer or Answer(today, Verdict.NOT_ENOUGH_EVIDENCE)
    new = found.other if found.verdict is Verdict.CHANGE else today
    wall = sum(run.wall for run in runs)
    return Advice(
        task=asked.task,
        command=asked.command,
        version=asked.version,
        created=asked.created,
        device=runs[0].device,
        cores=0,
        builtin=False,
        wall_seconds=wall,
        measurement_cost=price_of(wall, asked.price),
        budget_seconds=None,
        stage="A" if answer is None else "C",
        evidence=Evidence.SCREENED if answer is None else Evidence.CONFIRMED,
        partial=False,
        verdict=found.verdict,
        objective="time",
        worth=asked.worth,
        at_least={},
        metric=metric,
        target=target,
        today=today,
        recommended=new,
        changes=changes(today, new),
        comparisons=found.rows,
        batch_only=None,
        failures=found.failures,
        price=asked.price,
        smallest_detectable=found.detectable,
        decide_repeats=found.next_stage.repeats if found.next_stage else 0,
        next_stage=found.next_stage,
        useful_low=None,
        useful_high=None,
        memory=None,
        noise=asked.noise,
        noise_orders_only=not asked.sgd,
        plane=(),
        candidates=_candidates(groups, metric, target, asked.price),
        curves=curve_points(groups, metric.name),
        epochs_to_plateau=None,
        order_changed=None,
        run_seconds=_seconds_of_one(groups[0]),
        train_examples=next((r.population for r in runs if r.population), None) or 0,
        validation_examples=0,
        test_examples=0,
        assumptions=asked.said,
        not_tested=_not_tested(groups),
        provenance=asked.provenance,
        params=_params(new.__dict__),
        compared=found.other if found.rows else None,
        watched=len(runs),
    )


def _seconds_of_one(group: Group) -> float:
    ended = [run.seconds for run in group.runs if run.ended]
    return float(np.median(ended)) if ended else math.nan


def _not_tested(groups: Sequence[Group]) -> tuple[str, ...]:
    changed = {c.name for g in groups[1:] for c in changes(groups[0].setting, g.setting)}
    tested = {CHANGED[name] for name in changed & CHANGED.keys()}
    return tuple(code for code in NOT_TESTED if code not in tested)


def _params(fields: dict[str, object]) -> dict[str, object]:
    """What is known of a setting, flat."""
    plain = {k: v for k, v in fields.items() if k not in ("id", "other") and v not in ("", None)}
    other = fields["other"]
    return plain | (other if isinstance(other, dict) else {})


def _candidates(
    groups: Sequence[Group], metric: MetricInfo, target: Target | None, price: Price | None
) -> tuple[Candidate, ...]:
    made = [_candidate(group, metric, target, price) for group in groups]
    times = {c.setting.id: c.seconds_to_target.value for c in made if c.seconds_to_target}
    ends = {c.setting.id: c.metric.value for c in made if c.metric and c.seconds_to_target}
    shared = {name: times[name] for name in ends}
    best = pareto(shared, ends, metric.maximise) if shared else ()
    return tuple(dataclasses.replace(c, pareto=c.setting.id in best) for c in made)


def _candidate(
    group: Group, metric: MetricInfo, target: Target | None, price: Price | None
) -> Candidate:
    runs = group.runs
    each = np.array([run.seconds / max(run.updates, 1) for run in runs])
    ends = np.array([end_value(run, metric.name) for run in runs if run.ended])
    ends = ends[np.isfinite(ends)]
    first = group.setting.id == "today"
    made = Candidate(
        group.setting,
        Reason.BASELINE if first else Reason.WATCHED,
        Evidence.SCREENED if target is None else Evidence.CONFIRMED,
        seconds_per_update=median_estimate(each, "s"),
        metric=median_estimate(ends, metric.unit) if len(ends) else None,
        runs=len(runs),
        failed=sum(run.status is not Status.OK for run in runs),
    )
    if target is None:
        return made
    return dataclasses.replace(made, **_to_target(runs, metric, target.value, price))


def _to_target(
    runs: Sequence[Run], metric: MetricInfo, target: float, price: Price | None
) -> dict[str, Estimate]:
    """Columns of what it took to the goal, over the runs that reached it or no longer can."""
    times = [(run, *reached(run, metric, target)) for run in runs]
    known = [t for t in times if t[0].ended or math.isfinite(t[1])]
    if not known:
        return {}
    seconds, samples = (np.array([t[i] for t in known]) for i in (1, 2))
    sizes = np.array([run.samples / max(run.updates, 1) for run, _, _ in known])
    found = {
        "seconds_to_target": median_estimate(seconds, "s"),
        "samples_to_target": median_estimate(samples, "examples"),
        "updates_to_target": median_estimate(samples / sizes, "updates"),
    }
    if price is not None:
        cost = cost_of(seconds, samples, price)
        found["cost_to_target"] = median_estimate(cost, price.currency)
    return found


# -- what is said of it ---------------------------------------------------------------------------


def _said(
    groups: Sequence[Group], judged: Sequence[Judged], best: Judged, fresh: bool
) -> tuple[str, ...]:
    """Sentences about what the comparison rests on."""
    runs = [run for group in groups for run in group.runs]
    unshared = sum(not p.shared for one in judged for p in one.pairs)
    left = sum(one.open for one in judged)
    told = [
        "what the trainings differ in, other than the settings shown, is not known here",
        f"{unshared} pairs share no seed: they are paired in the order given" if unshared else "",
        f"{left} pairs are left out: a training of them has not ended and may yet reach the goal"
        if left
        else "",
        _lengths(groups),
        _choice(len(judged), len(best.pairs), fresh),
    ]
    if len({run.device for run in runs}) > 1:
        told.append("the trainings ran on different devices: times compare these, too")
    return tuple(sentence for sentence in told if sentence)


def _lengths(groups: Sequence[Group]) -> str:
    ended = [[run.samples for run in g.runs if run.ended] for g in groups]
    middle = [float(np.median(samples)) for samples in ended if samples]
    if not middle or max(middle) <= 1.05 * min(middle):
        return ""
    return (
        f"the trainings differ in length ({min(middle):,.0f} to {max(middle):,.0f} examples): one "
        "that ends before the goal counts as never reaching it"
    )


def _choice(alternatives: int, pairs: int, fresh: bool) -> str:
    """How the best of several alternatives was chosen and judged, with so many pairs shown."""
    if alternatives == 1 or not pairs:
        return ""
    if not fresh:
        return (
            f"{alternatives} alternatives and too few pairs: those shown ({pairs}) also chose the "
            "best of them, so nothing is decided"
        )
    return (
        f"{alternatives} alternatives: part of the pairs chose the best of them, "
        f"{pairs} others judged it"
    )
