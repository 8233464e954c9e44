"""From the stages' records to one advice; nothing is measured or trained here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from batchlab.advisor import answer, evidence, inner, seen, sturdy, surveyed
from batchlab.advisor.options import Options
from batchlab.advisor.order import order
from batchlab.advisor.record import Advice, FeatureUse, Part, Repeat, Robustness, Setting
from batchlab.advisor.stages import Records
from batchlab.advisor.view import Facts, View
from batchlab.advisor.whole import KEY
from batchlab.rules import is_sgd_family
from batchlab.types import Evidence

NOT_TESTED = ("models", "data", "rules", "machines", "longer", "momentum", "schedule")
EVIDENCE = {"A": Evidence.SCREENED, "B": Evidence.PROJECTED, "C": Evidence.CONFIRMED}


def assemble(records: Records, options: Options, facts: Facts) -> Advice:
    """Make the advice.

    Args:
        records: What the stages measured.
        options: What was asked.
        facts: What is known of the task.

    Returns:
        The advice, complete as far as the stages went.
    """
    view = View(records, options, facts)
    recommended = answer.recommended(view)
    low, high = evidence.useful(view)
    today = view.setting(view.today)
    new = view.setting(recommended)
    machine = view.yardstick.machine
    return Advice(
        task=facts.task,
        command=facts.command,
        version=facts.version,
        created=facts.created or datetime.now(UTC).isoformat(timespec="seconds"),
        device=machine.device,
        cores=machine.cores,
        builtin=facts.builtin,
        wall_seconds=records.wall_seconds,
        measurement_cost=None
        if records.elsewhere
        else answer.price_of(view, records.wall_seconds),
        budget_seconds=options.budget,
        stage=view.stage,
        evidence=EVIDENCE[view.stage],
        partial=records.partial,
        verdict=answer.verdict(view),
        objective=options.objective,
        worth=options.worth,
        at_least=answer.at_least(view),
        metric=facts.metric,
        target=answer.target(view),
        today=today,
        recommended=new,
        changes=answer.changes(view),
        comparisons=answer.comparisons(view),
        batch_only=answer.batch_only(view),
        failures=answer.failures(view),
        price=options.price,
        smallest_detectable=answer.smallest_detectable(view),
        decide_repeats=answer.decide_repeats(view),
        next_stage=answer.next_stage(view),
        useful_low=low,
        useful_high=high,
        memory=evidence.memory(view),
        noise=evidence.noise(view),
        noise_orders_only=not is_sgd_family(view.rule),
        plane=evidence.plane(view),
        candidates=evidence.candidates(view),
        curves=evidence.curves(view),
        epochs_to_plateau=evidence.epochs_to_plateau(view),
        order_changed=evidence.order_changed(view),
        run_seconds=view.run_seconds(),
        train_examples=facts.train_examples,
        validation_examples=facts.validation_examples,
        test_examples=facts.test_examples,
        assumptions=facts.assumptions + records.said + _reading(options),
        not_tested=_not_tested(records),
        provenance=facts.provenance | {"processor": machine.name, "threads": str(machine.threads)},
        compared=view.setting(view.chosen) if answer.comparisons(view) else None,
        framework=facts.framework,
        has_script=facts.has_script,
        elsewhere=records.elsewhere,
        today_chosen=records.confirmation is not None and records.confirmation.today_chosen,
        params=_params(new) | ({} if facts.whole is None else {"samples": facts.whole[1]}),
        part=_part(view),
        robustness=_robustness(view),
        features=_features(view),
        growing=answer.growing(view),
        reusing=answer.reusing(view),
        searched=answer.searched(view),
        strengthening=answer.strengthening(view),
    )


def _not_tested(records: Records) -> tuple[str, ...]:
    """What may turn out otherwise, without what was tuned."""
    tuned = () if records.tuning is None else records.tuning.names
    return tuple(code for code in NOT_TESTED if code not in tuned)


def _reading(options: Options) -> tuple[str, ...]:
    """That reading is a number that was given, and how it is counted."""
    if not options.seconds_per_sample:
        return ()
    return (
        f"every fresh sample takes {options.seconds_per_sample:g} s to read, as given and not "
        "measured; that is added to the time of computing, as where the two wait for one another",
    )


def _part(view: View) -> Part | None:
    """Which part of the data was used, and what the pair on all of it showed."""
    if view.facts.whole is None:
        return None
    (whole, samples), examples = view.facts.whole, view.facts.train_examples
    told, repeat = order(view), None
    if told is not None:
        rows, curves = answer.on_all_data(view), evidence.curves_on_all(view)
        repeat = Repeat(told.held, told.on_all.by, rows, curves, answer.contradicted(view))
    seconds = view.facts.prices.get(KEY)
    return Part(examples / whole, examples, whole, samples, repeat, seconds)


def _robustness(view: View) -> Robustness | None:
    """Today's settings beside the best alternative, under every disturbance."""
    survey, metric = view.records.survey, view.facts.metric
    if survey is None:
        return None
    return surveyed.robustness(
        survey, sturdy.TODAY, sturdy.CHOSEN, maximise=metric.maximise, unit=metric.unit
    )


def _features(view: View) -> FeatureUse | None:
    """Today's settings beside the best alternative, by what their models look at."""
    found, unit = view.records.insight, view.facts.metric.unit
    return None if found is None else seen.feature_use(found, inner.TODAY, inner.CHOSEN, unit)


def _params(setting: Setting) -> dict[str, Any]:
    """Flat, for other tools."""
    names = (
        "rule",
        "batch_size",
        "learning_rate",
        "momentum",
        "weight_decay",
        "lr_schedule",
        "rate_growth",
        "reuse",
        "gamma",
        "warmup",
        "clip_norm",
        "precision",
        "samples",
        "micro_batch_size",
        "accum_steps",
        "world_size",
    )
    return {name: getattr(setting, name) for name in names}
