"""The answer: what is compared, the verdict, how sure it is, and what comes next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np

from batchlab.advisor.decision import decide, decide_accuracy, fails_more, stands_out
from batchlab.advisor.judge import (
    Yardstick,
    against,
    better,
    changed,
    failed,
    final_metric,
    front,
    grid_spacing,
    inverted,
    meets,
    of_setting,
    projected,
    to_target,
)
from batchlab.advisor.order import tempered
from batchlab.advisor.record import (
    Change,
    Comparison,
    Failures,
    Growing,
    MetricInfo,
    NextStage,
    Reusing,
    Searched,
    Strengthening,
    Target,
    Verdict,
)
from batchlab.advisor.session import over_workers
from batchlab.advisor.stages import (
    Choice,
    Confirmation,
    Curve,
    Grown,
    choice_of,
    gamma_of,
    goes_by_size,
    others_of,
    reuse_of,
)
from batchlab.advisor.view import View
from batchlab.advisor.whole import KEY
from batchlab.engine import evaluation_grid
from batchlab.stats import (
    TYPICAL_LOG_SD,
    Paired,
    clamped,
    mean_estimate,
    median_estimate,
    paired_difference,
    repeats_to_decide,
    share_estimate,
    sign_repeats_to_decide,
    smallest_detectable_ratio,
)
from batchlab.types import Estimate, Status


def _confirmed(view: View, record: Confirmation) -> tuple[Comparison, ...]:
    rows: list[Comparison | None] = [
        _ratio_row(view, view.fresh_yardstick, quantity, *view.fresh_samples, view.spacing)
        for quantity in _quantities(view)
    ]
    rows.append(
        _metric_row(
            view, "validation", final_metric(record.today), final_metric(record.recommended)
        )
    )
    if view.facts.test_examples:
        old, new = (
            np.array([_number(c.test) for c in side])
            for side in (record.today, record.recommended)
        )
        rows.append(_metric_row(view, "metric", old, new, view.facts.test_examples))
    return tuple(row for row in rows if row is not None)


def _ratio_row(
    view: View,
    yardstick: Yardstick,
    quantity: str,
    before: np.ndarray,
    after: np.ndarray,
    spacing: float,
) -> Comparison:
    b0, b1 = view.today[0], view.pace
    paired = yardstick.compare(quantity, (before, b0), (after, b1), spacing)
    unit = {"time": "s", "cost": view.currency, "samples": "examples"}[quantity]
    sides = [
        median_estimate(yardstick.measure(quantity, side, pace), unit)
        for side, pace in ((before, b0), (after, b1))
    ]
    row = comparison(quantity, sides[0], sides[1], paired)
    if np.isfinite([*before, *after]).any():
        return row
    unknown = replace(row.difference, value=math.nan, low=0.0, high=math.inf)
    return replace(row, difference=unknown)


def _metric_row(
    view: View,
    quantity: str,
    before: np.ndarray,
    after: np.ndarray,
    examples: int = 0,
    least: int = 2,
) -> Comparison | None:
    examples = examples or view.facts.validation_examples
    return metric_row(view.facts.metric, quantity, before, after, examples, least)


def metric_row(
    metric: MetricInfo,
    quantity: str,
    before: np.ndarray,
    after: np.ndarray,
    examples: int = 0,
    least: int = 2,
) -> Comparison | None:
    """The metric of both: means of the runs that ended, paired over all; one that diverged counts
    as worst.

    Args:
        metric: The metric.
        quantity: ``validation`` or ``metric``.
        before: At the end of each run with today's settings, NaN if it diverged.
        after: The same for the alternative, same pairs.
        examples: That it was computed on; 0 if not known.
        least: Runs of each side that must have ended.

    Returns:
        The comparison; None where fewer runs of a side ended.
    """
    ended = [side[np.isfinite(side)] for side in (before, after)]
    if min(len(side) for side in ended) < least:
        return None
    before, after = (np.where(np.isfinite(side), side, np.nan) for side in (before, after))
    paired = paired_difference(before, after, maximise=metric.maximise)
    sides = [mean_estimate(side, metric.unit) for side in ended]
    if metric.unit == "%":
        paired = replace(paired, estimate=clamped(paired.estimate, -1.0, 1.0))
        sides = [clamped(side, 0.0, 1.0) for side in sides]
    return comparison(quantity, sides[0], sides[1], paired, examples)


def on_all_data(view: View) -> tuple[Comparison, ...]:
    """Today against the best alternative on all data, where a pair was repeated there."""
    record, whole = view.confirmation, view.records.on_all
    if record is None or whole is None:
        return ()
    before, after = (
        to_target(side, record.target, view.maximise) for side in (whole.today, whole.recommended)
    )
    spacing = grid_spacing(whole.examples, whole.samples)
    reached = np.isfinite([before, after]).any()
    rows: list[Comparison | None] = [
        _ratio_row(view, view.yardstick_on_all, quantity, before, after, spacing)
        for quantity in (_quantities(view) if reached else ())
    ]
    old, new = (final_metric(side) for side in (whole.today, whole.recommended))
    rows.append(_metric_row(view, "validation", old, new, least=1))
    return tuple(row for row in rows if row is not None)


def _projected_rows(view: View) -> tuple[Comparison, ...]:
    """Time, cost and samples for an equally good training, scaled to a whole run of today's
    settings.
    """
    row = view.front_runner
    if row is None or not math.isfinite(np.median(row.today_fall)):
        return ()
    scale = view.samples / np.median(row.today_fall)
    before, after = row.today_fall * scale, row.fall * scale
    found = [_ratio_row(view, view.yardstick, q, before, after, 0.0) for q in _quantities(view)]
    metric = _projected_metric(view)
    return tuple(replace(c, method="projected") for c in (*found, *metric))


def _projected_metric(view: View) -> tuple[Comparison, ...]:
    """The metric where the search ended, of the seeds that both settings were searched with."""
    assert view.projection is not None
    old, new = (of_setting(view.projection.curves, *pair) for pair in (view.today, view.chosen))
    seeds = sorted(old.keys() & new.keys())
    if not seeds or any(old[s].rung != new[s].rung for s in seeds):
        return ()
    before, after = (final_metric([side[s] for s in seeds]) for side in (old, new))
    row = _metric_row(view, "validation", before, after)
    return () if row is None else (row,)


def comparisons(view: View) -> tuple[Comparison, ...]:
    """Today against the best alternative, quantity by quantity; ``time`` first."""
    if view.confirmation is not None:
        return _confirmed(view, view.confirmation)
    return _projected_rows(view)


def _quantities(view: View) -> list[str]:
    return ["time", "cost", "samples"] if view.options.price else ["time", "samples"]


def _deciding(view: View) -> Comparison | None:
    wanted = "validation" if view.options.objective == "accuracy" else view.options.objective
    return next((c for c in comparisons(view) if c.quantity == wanted), None)


def verdict(view: View) -> Verdict:
    """Change, keep, or not enough evidence; ``evidence`` says how far that was tested."""
    if view.confirmation is None:
        return _projected_verdict(view)
    row, record = _deciding(view), view.confirmation
    if row is None:
        return Verdict.NOT_ENOUGH_EVIDENCE
    met = all(at_least(view).values())
    if view.options.objective == "accuracy":
        found = decide_accuracy(row.difference, view.maximise, met, record.today_chosen)
        return tempered(view, found)
    met = met and not _fails_more(view)
    found = decide(row.difference, view.options.worth, met, record.today_chosen)
    # A pair of runs of which neither arrived says nothing: it counts against *keep*.
    sure = found is not Verdict.KEEP or _largest_ratio(view) < view.options.worth
    return tempered(view, found if sure else Verdict.NOT_ENOUGH_EVIDENCE)


def contradicted(view: View) -> bool:
    """Whether all data took back what a part of them said: more repeats on the part do not help.

    Args:
        view: The case.
    """
    if view.records.on_all is None or verdict(view) is not Verdict.NOT_ENOUGH_EVIDENCE:
        return False
    part = replace(view, records=replace(view.records, on_all=None))
    return verdict(part) is not Verdict.NOT_ENOUGH_EVIDENCE


def _fails_more(view: View) -> bool:
    found = failures(view)
    if found is None:
        return False
    return fails_more((found.today, found.today_runs), (found.recommended, found.recommended_runs))


def _projected_verdict(view: View) -> Verdict:
    """After the search: *keep* if no rival can be worth it, *change* if the best stands out.

    Demands (``--at-least``) are about whole trainings, so that with any of them the search alone
    never says *change*. *Keep* needs rivals, and none that the budget did not pay for.
    """
    projection, objective = view.projection, view.options.objective
    if projection is None or not view.rivals:
        return Verdict.NOT_ENOUGH_EVIDENCE
    limit = 0.0 if objective == "accuracy" else 1 / view.options.worth
    if not projection.unpaid and all(view.burden(row).low > limit for row in view.rivals):
        return Verdict.KEEP
    if objective == "accuracy" or view.options.at_least or not _stands_out(view):
        return Verdict.NOT_ENOUGH_EVIDENCE
    return Verdict.CHANGE


def _stands_out(view: View) -> bool:
    """The front runner on the seeds that had no part in choosing its learning rate: all but the
    first. Never one that would need a longer training.
    """
    row = view.front_runner
    if row is None or row.late:
        return False
    objective, yardstick, today = view.options.objective, view.yardstick, view.today[0]
    before = yardstick.measure(objective, row.today_fall[1:], today)
    after = yardstick.measure(objective, row.fall[1:], row.batch_size)
    sizes = {today, row.batch_size}
    timing = sum(yardstick.spread(objective, b)[0] for b in sizes) if len(sizes) > 1 else 0.0
    ratios = np.where(np.isfinite(after), before / after, 0.0)
    return stands_out(ratios, len(view.rivals), view.options.worth, timing)


def _largest_ratio(view: View) -> float:
    """Upper end of the ratio, with every pair of which neither run arrived counted as a gain."""
    before, after = view.fresh_samples
    return _ratio(view, before, counted_as_gain(before, after)).estimate.high


def counted_as_gain(today: np.ndarray, recommended: np.ndarray) -> np.ndarray:
    """What the alternative took, with every pair of which neither run arrived counted for it.

    Example:
        >>> counted_as_gain(np.array([math.inf, 2.0]), np.array([math.inf, 3.0]))
        array([1., 3.])
    """
    return np.where(np.isinf(today) & np.isinf(recommended), 1.0, recommended)


def _ratio(view: View, before: np.ndarray, after: np.ndarray) -> Paired:
    """The objective's comparison of samples to the target."""
    return view.fresh_yardstick.compare(
        view.options.objective, (before, view.today[0]), (after, view.pace), view.spacing
    )


def at_least(view: View) -> dict[str, bool]:
    """Every demand, and whether the best alternative meets it on validation data, fresh seeds."""
    if view.confirmation is None:
        return {}
    runs, demands = view.confirmation.recommended, view.options.at_least
    return meets(runs, view.facts.metric.name, view.maximise, demands)


def recommended(view: View) -> Choice:
    """What to use from now on: the best alternative if a change is advised, else today's."""
    return view.chosen if verdict(view) is Verdict.CHANGE else view.today


def changes(view: View) -> tuple[Change, ...]:
    """The fields in which the best alternative differs from today."""
    before, after = view.setting(view.today), view.setting(recommended(view))
    names = dict.fromkeys((*Grown._fields, *(name for name, _ in others_of(recommended(view)))))
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return tuple(Change(name, old, new) for name, (old, new) in pairs.items() if old != new)


def _paired(view: View) -> Paired | None:
    """The deciding comparison again, with its spread."""
    record = view.confirmation
    if record is None:
        return None
    if view.options.objective == "accuracy":
        before, after = final_metric(record.today), final_metric(record.recommended)
        return paired_difference(before, after, maximise=view.maximise)
    return _ratio(view, *view.fresh_samples)


def smallest_detectable(view: View) -> float | None:
    """The smallest ratio that so many fresh repeats would have shown; for ``accuracy`` the
    smallest difference of the metric, None as long as its spread is not known.
    """
    accuracy, paired = view.options.objective == "accuracy", _paired(view)
    n = view.options.confirm_seeds if view.confirmation is None else len(view.confirmation.today)
    if paired is None or not math.isfinite(paired.sd):
        return None if accuracy else smallest_detectable_ratio(TYPICAL_LOG_SD, n)
    found = smallest_detectable_ratio(float(paired.sd), n, rest=paired.rest)
    # The same test on differences: their spread in the place of the log ratios'.
    return math.log(found) if accuracy else found


def decide_repeats(view: View) -> int:
    """Further pairs that would decide; 0 if it is decided or none would."""
    paired, record = _paired(view), view.confirmation
    if verdict(view) is not Verdict.NOT_ENOUGH_EVIDENCE or paired is None or record is None:
        return 0
    if contradicted(view):
        return 0
    if view.options.objective == "accuracy":
        return _repeats_for_accuracy(view, paired)
    worth, ratio = view.options.worth, paired.estimate.value
    # Where a change is ruled out already, more repeats decide only if they can say *keep*.
    ruled_out = record.today_chosen or not all(at_least(view).values()) or _fails_more(view)
    if ratio >= worth and ruled_out:
        return 0
    before, after = view.fresh_samples
    yardstick, objective = view.fresh_yardstick, view.options.objective
    today = yardstick.measure(objective, before, view.today[0])
    return further_pairs(paired, today, yardstick.measure(objective, after, view.pace), worth)


def further_pairs(paired: Paired, today: np.ndarray, recommended: np.ndarray, worth: float) -> int:
    """Further pairs that would decide about a ratio; 0 if none would, or nobody can tell.

    Args:
        paired: The comparison.
        today: Quantity per pair with today's settings, infinite if the goal was never reached.
        recommended: The same for the alternative.
        worth: Smallest ratio worth a change.
    """
    if paired.method == "sign":
        if np.isinf(today).all() or np.isinf(recommended).all():
            return 0
        return sign_repeats_to_decide(today, recommended, worth) or 0
    if not math.isfinite(paired.sd):
        return 0
    ratio = paired.estimate.value
    return repeats_to_decide(ratio, paired.sd, paired.pairs, worth, rest=paired.rest) or 0


def _repeats_for_accuracy(view: View, paired: Paired) -> int:
    """The same for a difference: in units of its own spread it is a log ratio whose worth is 1."""
    record, sd = view.confirmation, paired.sd
    assert record is not None
    gain = paired.estimate.value if view.maximise else -paired.estimate.value
    ruled_out = record.today_chosen or not all(at_least(view).values())
    if not (math.isfinite(gain) and sd > 0) or (gain >= 0 and ruled_out):
        return 0
    steps = math.exp(min(50.0, max(-50.0, gain / sd)))
    return repeats_to_decide(steps, 1.0, paired.pairs, worth=1.0) or 0


def next_stage(view: View) -> NextStage | None:
    """The next step, its price, and what to type."""
    if view.stage in "AB":
        letter = "B" if view.stage == "A" else "C"
        seconds = view.facts.prices.get(letter, math.nan)
        if not math.isfinite(seconds):
            return None
        command = _continued(view, 1.15 * seconds)
        return NextStage(letter, seconds, price_of(view, seconds), command)
    repeats = decide_repeats(view)
    if repeats:
        seconds = repeats * _pair_seconds(view)
        command = _continued(view, 1.3 * seconds)
        return NextStage("more-repeats", seconds, price_of(view, seconds), command, repeats)
    seconds = view.facts.prices.get(KEY)
    if view.facts.whole and view.records.on_all is None and seconds is not None:
        command = _continued(view, 1.15 * seconds)
        return NextStage(KEY, seconds, price_of(view, seconds), command)
    if view.facts.builtin:
        command = "batchlab advise your_task.py:task --budget 10m"
        return NextStage("own-task", 600.0, price_of(view, 600.0), command)
    return None


def _continued(view: View, seconds: float) -> str:
    """The command that was typed, with so many seconds more and ``--resume``."""
    typed = shlex.split(view.facts.command)
    kept = [
        word
        for i, word in enumerate(typed)
        if word not in ("--budget", "--resume")
        and not word.startswith("--budget=")
        and typed[max(0, i - 1)] != "--budget"
    ]
    total = view.records.wall_seconds + seconds + 5.0
    if view.records.partial:
        total = max(total, view.options.budget or 0.0)
    elif _budget(total) == _budget(view.options.budget or 0.0):
        total += 60.0  # the same budget again would only write the report again
    return " ".join([*map(shlex.quote, kept), "--budget", _budget(total), "--resume"])


def _pair_seconds(view: View) -> float:
    """What one more pair of fresh runs takes."""
    screening, machine = view.records.screening, view.yardstick.machine
    factor, evaluation = (
        (screening.engine_factor, screening.evaluation_seconds) if screening else (1.5, 0.0)
    )
    evaluations = len(evaluation_grid(view.facts.train_examples, view.samples))
    whole = np.array([float(view.samples)])
    each = [
        float(view.yardstick.computing.measure("time", whole, b)[0]) * factor
        + evaluations * evaluation
        for b in (view.today[0], view.pace)
    ]
    # Many pairs share the workers evenly: one pair's part of them.
    return over_workers(each * 100, machine.cores if machine.device == "cpu" else 1) / 100


def price_of(view: View, seconds: float) -> float | None:
    """What so many seconds cost, or None without a price."""
    price = view.options.price
    return None if price is None else seconds * price.per_hour / 3600


def batch_only(view: View) -> Estimate | None:
    """Time today / batch changed with the learning rate as it was."""
    record, chosen = view.confirmation, view.chosen
    if not goes_by_size(chosen) or view.today[0] == chosen[0]:
        return None
    if chosen[1] == view.today[1]:
        return None
    size = chosen[0]
    if record is not None and record.batch_only:
        before = tuple(of_setting(record.choosing, *view.today).values())
        pairs = {c.seed: c for c in record.batch_only}
        before = [c for c in before if c.seed in pairs]
        sides = [
            to_target(c, record.target, view.maximise)
            for c in (before, [pairs[c.seed] for c in before])
        ]
        return view.yardstick.compare(
            "time", (sides[0], view.today[0]), (sides[1], size), view.spacing
        ).estimate
    if view.projection is None or not of_setting(view.projection.curves, size, view.today[1]):
        return None
    if isinstance(view.today, Grown):
        return None
    row = projected(
        view.projection,
        view.yardstick,
        objective="time",
        today=view.first,
        maximise=view.maximise,
        rates={size: view.today[1]},
    )[0]
    return row.ratio.estimate if len(row.fall) else None


def failures(view: View) -> Failures | None:
    """Runs on fresh seeds that diverged, did not learn or never reached the target."""
    record = view.confirmation
    if record is None:
        return None
    counts = [
        sum(failed(c, s) for c, s in zip(side, reached, strict=True))
        for side, reached in zip(
            (record.today, record.recommended), view.fresh_samples, strict=True
        )
    ]
    return Failures(counts[0], len(record.today), counts[1], len(record.recommended))


def growing(view: View) -> Growing | None:
    """Whether it pays to let the batch grow: the best that does against the best constant batch,
    today's among them, as the choosing seeds have it; judged on fresh seeds where both have any.
    None before anything was searched.
    """
    pilot, record = view.records.pilot, view.confirmation
    if pilot is None:
        off = view.projection is not None and not view.options.growing
        return Growing("off") if off else None
    rules = tuple(dict.fromkeys(rule for found in pilot.policies.values() for rule in found))
    tried = len({c.choice for c in pilot.curves if isinstance(c.choice, Grown)})
    known = Growing(pilot.why_not, pilot.seconds, rules, tried, pilot.lemma)
    if pilot.why_not:
        return known
    if record is None or not that_grow(view):
        return replace(known, why_not="unconfirmed")
    return _growing(view, record, known)


def _growing(view: View, record: Confirmation, known: Growing) -> Growing:
    leader, rival = growers(view)
    sides = _on_fresh_seeds(record, leader, rival)
    if len(sides[0]) >= 2:
        return replace(_compared(view, view.fresh_yardstick, sides, known), fresh=True)
    return _beside(view, record, that_grow(view), known)


def that_grow(view: View) -> list[Choice]:
    """The settings of stage C whose batch grows, today's among them where it does."""
    return [choice for choice in (view.today, *view.grown) if isinstance(choice, Grown)]


def growers(view: View) -> tuple[Choice, Choice]:
    """The best batch that grows and the best of constant size, on the choosing seeds.

    Args:
        view: The case; a batch that grows is among its finalists, or today's does.
    """
    assert view.confirmation is not None
    mine, theirs = _leaders(view, view.confirmation, that_grow(view))
    return mine[0].choice, theirs[0].choice


def reusing(view: View) -> Reusing | None:
    """Whether it pays to use each batch several times: the best that does against the best that
    does not, on the choosing seeds; None before anything was searched.
    """
    echoes, record = view.records.echoes, view.confirmation
    if echoes is None:
        return None
    tried = len({c.choice for c in echoes.curves if reuse_of(c.choice)})
    known = Reusing(echoes.why_not, echoes.seconds, echoes.price, tried)
    if echoes.why_not:
        return known
    if record is None or not view.reused:
        return replace(known, why_not="unconfirmed")
    return _beside(view, record, view.reused, known)


def strengthening(view: View) -> Strengthening | None:
    """Whether a γ pays, and what else it changes: the best setting with one against the best
    without, on the choosing seeds; None where none was asked for.
    """
    tuning, record, pilot = view.records.tuning, view.confirmation, view.records.strengths
    if pilot is not None:
        tried = len({c.choice for c in pilot.curves if gamma_of(c.choice) is not None})
        known = Strengthening(pilot.why_not, pilot.seconds, tried)
        best = [choice_of(one) for one in pilot.best]
        return known if pilot.why_not else _strengthened(view, record, known, best)
    if tuning is None or "gamma" not in tuning.names:
        return None
    own = view.facts.baseline.gamma
    known = Strengthening(tried=sum(t.values["gamma"] != own for t in tuning.trials))
    return _strengthened(view, record, known, [choice_of(one) for one in tuning.best])


def _strengthened(
    view: View, record: Confirmation | None, known: Strengthening, best: Sequence[Choice]
) -> Strengthening:
    """What stage C says of the best settings of a search, among which some may have a γ."""
    if not any(gamma_of(choice) is not None for choice in best):
        return replace(known, why_not="behind")
    if record is None or not view.strengthened:
        return replace(known, why_not="unconfirmed")
    mine, theirs = _leaders(view, record, view.strengthened)
    before, after = final_metric(theirs), final_metric(mine)
    gap = paired_difference(before, after, maximise=view.maximise).estimate
    return replace(
        _compared(view, view.yardstick, (mine, theirs), known),
        metric=clamped(gap, -1.0, 1.0) if view.facts.metric.unit == "%" else gap,
        slower=view.yardstick.slower(int(mine[0].batch_size)),
    )


Tried = TypeVar("Tried", Growing, Reusing, Strengthening)
Sides: TypeAlias = Sequence[Sequence[Curve]]


def _beside(view: View, record: Confirmation, mine: Sequence[Choice], known: Tried) -> Tried:
    """The best of these finalists against the best of one size that is used as today's is."""
    return _compared(view, view.yardstick, _leaders(view, record, mine), known)


def _compared(view: View, yardstick: Yardstick, sides: Sides, known: Tried) -> Tried:
    """Runs of a setting and of its rival."""
    objective, maximise = view.options.objective, view.maximise
    mine, theirs = sides
    target = view.confirmation.target if view.confirmation else math.nan
    gain = against(mine, theirs, yardstick, objective, target, maximise, view.spacing).estimate
    if objective == "accuracy" and view.facts.metric.unit == "%":
        gain = clamped(gain, -1.0, 1.0)
    return replace(
        known,
        setting=view.setting(mine[0].choice),
        rival=view.setting(theirs[0].choice),
        quantity="validation" if objective == "accuracy" else objective,
        difference=gain if objective == "accuracy" else inverted(gain),
        pays=better(gain, objective, maximise),
    )


def _leaders(view: View, record: Confirmation, mine: Sequence[Choice]) -> list[list[Curve]]:
    """The choosing runs of the best of these and of the best plain finalist."""
    groups: dict[str, list[Curve]] = {}
    for curve in record.choosing:
        groups.setdefault(view.id(curve.choice), []).append(curve)
    asked = view.yardstick, view.options.objective, record.target, view.maximise
    ours = {view.id(choice) for choice in mine} & groups.keys()
    plain = (
        groups.keys()
        - ours
        - {view.id(choice) for choice in (*view.grown, *view.reused, *view.strengthened)}
    )
    fewest = {name: changed(runs[0].choice, view.today) for name, runs in groups.items()}
    return [
        groups[front({n: groups[n] for n in groups if n in side}, *asked, fewest)]
        for side in (ours, plain)
    ]


def _on_fresh_seeds(record: Confirmation, *choices: Choice) -> list[list[Curve]]:
    """Their runs on the fresh seeds that all of them have, in the same order."""
    known = (*record.today, *record.recommended, *record.growers)
    found = [{c.seed: c for c in known if c.choice == choice} for choice in choices]
    seeds = sorted(set.intersection(*map(set, found)))
    return [[side[seed] for seed in seeds] for side in found]


def searched(view: View) -> Searched | None:
    """What the search over all settings has come to."""
    tuning = view.records.tuning
    if tuning is None:
        return None
    last = len(tuning.rungs) - 1
    ended = [trial for trial in tuning.trials if trial.rung == last]
    least = min((t.value for t in ended[1:]), default=math.nan) if tuning.best else math.nan
    accuracy = view.options.objective == "accuracy"
    return Searched(
        tuning.names,
        len(tuning.trials),
        sum(trial.status is not Status.DIVERGED for trial in ended),
        sum(trial.status is Status.DIVERGED for trial in tuning.trials),
        tuning.importance,
        view.setting(choice_of(tuning.best[0])) if tuning.best else None,
        -least if accuracy else math.exp(-least),
        not tuning.ended,
    )


def target(view: View) -> Target | None:
    """What counts as trained."""
    record = view.confirmation
    if record is None:
        value = view.options.target
        return None if value is None else Target(value, "user")
    baseline = tuple(of_setting(record.choosing, *view.today).values())
    reached = np.isfinite(to_target(baseline, record.target, view.maximise))
    share = share_estimate(int(reached.sum()), len(reached)).value
    return Target(record.target, record.chosen_by, len(baseline), share)


def comparison(
    quantity: str, today: Estimate, recommended: Estimate, paired: Paired, examples: int = 0
) -> Comparison:
    """A row of the first table.

    Args:
        quantity: As :class:`Comparison` has it.
        today: Median or mean with today's settings.
        recommended: The same for the alternative.
        paired: Both, pair by pair.
        examples: That a metric was computed on; 0 where it is none, or not known.
    """
    return Comparison(
        quantity,
        today,
        recommended,
        paired.estimate,
        paired.wins,
        paired.pairs,
        paired.chance,
        examples,
        paired.method,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _budget(seconds: float) -> str:
    """Seconds as one would type them, rounded up.

    Example:
        >>> _budget(130.0), _budget(40.0)
        ('3m', '40s')
    """
    return f"{math.ceil(seconds)}s" if seconds < 90 else f"{math.ceil(seconds / 60)}m"
