"""What an advice is: the record that `advice.json` holds and the report reads.

Only numbers, names and codes live here; sentences are made by :mod:`batchlab.report.wording`, in
two languages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from batchlab import _platform
from batchlab.measure.units import Unit
from batchlab.schedules import batch_schedule
from batchlab.types import Estimate, Evidence, Status, from_plain, to_plain

Key = TypeVar("Key")


class Verdict(StrEnum):
    """The answer."""

    CHANGE = "change"
    KEEP = "keep"
    NOT_ENOUGH_EVIDENCE = "not enough evidence"


class Reason(StrEnum):
    """Why a candidate is on the list."""

    BASELINE = "baseline"
    FIRST = "first size"
    LARGEST = "largest that fits"
    QUARTER = "a quarter of the training data"
    NOISE_SCALE = "around the noise scale"
    WHOLE_RANGE = "whole range, noise scale not resolved"
    REQUESTED = "requested"
    WATCHED = "watched"
    GROWING = "growing"
    REUSED = "re-used"
    STRENGTHENED = "strengthened"
    TUNED = "tuned"


@dataclass(frozen=True)
class MetricInfo:
    """The metric and how to write it.

    Attributes:
        name: Such as ``accuracy``.
        maximise: Whether more is better.
        unit: ``%`` if values are shares in [0, 1] to be shown × 100; else a unit or empty.
    """

    name: str
    maximise: bool
    unit: str = ""


@dataclass(frozen=True)
class Setting:
    """One complete choice, as flat numbers.

    Attributes:
        id: Short name in this advice, such as ``B64-lr0.2``; the baseline's is ``today``.
        rule: Update rule.
        batch_size: Global batch size as an int, or a schedule's text.
        micro_batch_size: Examples per forward pass; ``batch_size = micro × accum × world``.
        accum_steps: Micro-batches per update.
        world_size: Processes.
        learning_rate: Peak step size.
        momentum: β.
        weight_decay: λ.
        lr_schedule: Schedule text.
        warmup: Share of the budget.
        clip_norm: Largest gradient norm or None.
        precision: Number format.
        samples: Budget in examples.
        nu: QHM's ν.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment.
        rate_growth: Power with which the learning rate follows a schedule of batch sizes.
        reuse: Updates on each fetched batch.
        gamma: Feature-learning strength γ, None for the model as it is.
        other: Settings that only the user's own training has, as the user named them.
    """

    id: str
    rule: str
    batch_size: int | str
    micro_batch_size: int
    accum_steps: int
    world_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    lr_schedule: str
    warmup: float
    clip_norm: float | None
    precision: str
    samples: int
    nu: float = 0.7
    beta2: float = 0.999
    eps: float = 1e-8
    rate_growth: float = 0.0
    reuse: int = 1
    gamma: float | None = None
    other: dict[str, Any] = field(default_factory=dict, hash=False)


def short_name(batch_size: int | str, learning_rate: float, rate_growth: float = 0.0) -> str:
    """What identifies a setting; of a schedule only its first and last size.

    Example:
        >>> short_name(64, 0.2), short_name("0:8 2ep:16 4ep:64", 0.1, rate_growth=0.5)
        ('B64-lr0.2', 'B8→64-lr0.1-p0.5')
    """
    schedule = batch_schedule(batch_size)
    grown = f"-p{rate_growth:g}" if rate_growth and not schedule.is_constant else ""
    return f"B{schedule.ends}-lr{learning_rate:.4g}{grown}"


def distinct(names: Mapping[Key, str]) -> dict[Key, str]:
    """The same names, with a number at the end of all but the first of those that are alike.

    Example:
        >>> distinct({1: "a", 2: "b", 3: "a"})
        {1: 'a', 2: 'b', 3: 'a-2'}
    """
    seen: dict[str, int] = {}
    found = {}
    for key, name in names.items():
        seen[name] = seen.get(name, 0) + 1
        found[key] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    return found


@dataclass(frozen=True)
class Change:
    """One field that differs between today and the recommendation."""

    name: str
    today: Any
    recommended: Any


@dataclass(frozen=True)
class Target:
    """What "trained" means here.

    Attributes:
        value: Metric value to reach on validation data.
        chosen_by: ``user`` or ``baseline`` (the value that four in five baseline runs reach at the
            end).
        runs: Baseline runs behind it.
        share: Share of baseline runs that reached it.
    """

    value: float
    chosen_by: str
    runs: int = 0
    share: float = float("nan")


@dataclass(frozen=True)
class Comparison:
    """Today against the recommendation for one quantity, paired by seed.

    Attributes:
        quantity: ``time``, ``cost``, ``samples``, ``metric`` (test data) or ``validation``.
        today: Median or mean over the confirmation seeds, in its unit.
        recommended: The same for the recommendation.
        difference: A ratio today / recommended (time, cost, samples) or recommended − today
            (metrics).
        wins: Pairs in which the recommendation was better.
        pairs: Pairs.
        chance: Probability that it is better, at most 1 − 2⁻ⁿ.
        examples: Examples the metric was computed on; 0 where it is none.
        method: ``paired-t``, ``sign`` (a run never reached the target) or ``projected``.
    """

    quantity: str
    today: Estimate
    recommended: Estimate
    difference: Estimate
    wins: int
    pairs: int
    chance: float
    examples: int = 0
    method: str = "paired-t"


@dataclass(frozen=True)
class Failures:
    """Runs that diverged, did not learn or never reached the target."""

    today: int
    today_runs: int
    recommended: int
    recommended_runs: int


@dataclass(frozen=True)
class Price:
    """What computing and data cost."""

    per_hour: float
    currency: str
    per_sample: float = 0.0


@dataclass(frozen=True)
class NextStage:
    """The next step and what it could change.

    Attributes:
        stage: ``A``, ``B``, ``C`` (the next stage of this task), ``own-task`` (after a built-in
            demonstration), ``more-repeats`` or ``all-data`` (after a part of it).
        seconds: Expected time.
        cost: Expected price in the currency, or None.
        command: What to type.
        repeats: More repeats it stands for, if any.
    """

    stage: str
    seconds: float
    cost: float | None
    command: str
    repeats: int = 0


@dataclass(frozen=True)
class MemoryPoint:
    """One batch size that was tried on this machine.

    Attributes:
        batch_size: Examples of one micro-batch.
        fits: Whether it ran within the limit.
        bytes: Peak bytes, 0 if unknown.
        samples_per_second: Throughput of the plain loop, or None.
        seconds_per_update: Of a run on ``world_size`` processes, data loading included, or None.
        reason: Why it did not fit.
    """

    batch_size: int
    fits: bool
    bytes: int
    samples_per_second: Estimate | None = None
    seconds_per_update: Estimate | None = None
    reason: str = ""


@dataclass(frozen=True)
class Memory:
    """The finder's answer.

    Attributes:
        largest: Largest micro-batch that ran, 0 if none did.
        bound_by: ``memory``, ``data set``, ``max_val``, ``crash``, ``time`` or ``nothing fits``.
        limit_bytes: Bytes allowed, 0 where unavailable.
        limit_source: Where the limit came from.
        margin_bytes: Bytes kept free.
        points: Every trial, ascending.
        knee: Smallest batch size with at least 1/1.2 of the best throughput, or None.
        loader_share: Share of an update spent waiting for data at the baseline, or None.
        sentence: What the finder says of it in English.
    """

    largest: int
    bound_by: str
    limit_bytes: int
    limit_source: str
    margin_bytes: int
    points: tuple[MemoryPoint, ...]
    knee: int | None = None
    loader_share: float | None = None
    sentence: str = ""


@dataclass(frozen=True)
class NoisePoint:
    """The gradient noise scale at one moment of the baseline run.

    Attributes:
        samples: Examples seen.
        scale: tr Σ/‖G‖² in examples, or None where the signal is not resolved.
        at_least: Lower 90 % bound where not resolved, else None.
    """

    samples: int
    scale: Estimate | None
    at_least: float | None = None


@dataclass(frozen=True)
class PlanePoint:
    """One batch size and learning rate in the search.

    Attributes:
        batch_size: Examples.
        learning_rate: Peak step size.
        loss: Validation loss at the end of the last rung it ran, NaN if it diverged.
        metric: Validation metric there.
        samples: Examples it trained on from the common checkpoint.
        rung: Last rung, from 0.
        status: How the run ended.
        works: Metric within one seed standard deviation of the best at this batch size.
    """

    batch_size: int
    learning_rate: float
    loss: float
    metric: float
    samples: int
    rung: int
    status: Status
    works: bool


@dataclass(frozen=True)
class Candidate:
    """One batch size with its tuned learning rate, and what it would take.

    Attributes:
        setting: The complete choice.
        reason: Why it was tried.
        evidence: How far it was tested.
        rate_low: Smallest learning rate that works, or None.
        rate_high: Largest.
        rate_linear: Linear scaling of the baseline's learning rate, for comparison.
        rate_sqrt: Square-root scaling.
        seconds_per_update: One run alone, data loading included.
        samples_to_target: Examples; infinite if never reached.
        updates_to_target: Updates.
        seconds_to_target: Updates × seconds per update.
        cost_to_target: In the currency, or None.
        metric: Validation metric at the end of the training length, or None; after a projection,
            at the end of the search.
        loss_samples: Samples for an equal fall of the loss in the search, or None.
        pareto: Whether no other candidate is better in both time and metric.
        runs: Runs behind the target columns.
        failed: Runs of these that failed.
    """

    setting: Setting
    reason: Reason
    evidence: Evidence
    rate_low: float | None = None
    rate_high: float | None = None
    rate_linear: float | None = None
    rate_sqrt: float | None = None
    seconds_per_update: Estimate | None = None
    samples_to_target: Estimate | None = None
    updates_to_target: Estimate | None = None
    seconds_to_target: Estimate | None = None
    cost_to_target: Estimate | None = None
    metric: Estimate | None = None
    loss_samples: Estimate | None = None
    pareto: bool = False
    runs: int = 0
    failed: int = 0


@dataclass(frozen=True)
class CurvePoint:
    """A learning curve's point: median over seeds, with the range that holds 90 % of them.

    Attributes:
        id: The setting's id.
        name: ``loss`` or ``metric`` (validation).
        samples: Examples seen.
        epochs: Passes over the training data.
        updates: Updates.
        seconds: Updates × seconds per update, NaN if not measured.
        value: Median over seeds.
        low: Smallest in the range.
        high: Largest.
        n: Runs.
        run: The one run this is of, by name; empty for the median.
        end: How that run ended, at its last point: ``diverged`` or ``unfinished``; else empty.
    """

    id: str
    name: str
    samples: int
    epochs: float
    updates: int
    seconds: float
    value: float
    low: float
    high: float
    n: int
    run: str = ""
    end: str = ""


@dataclass(frozen=True)
class Repeat:
    """The pair of today's settings and the best alternative, on all data.

    Attributes:
        held: Whether the one that was better on the part was better again.
        by: What told which is better: the objective's quantity, or ``validation`` where neither
            reached the target, or only the metric at the end spoke against it.
        comparisons: Time (and cost or samples, where that is the objective) to the target chosen
            on the part, and the metric at the end; the range is open with a single pair.
        curves: Learning curves of both.
        taken_back: Whether the verdict of the part was taken back.
    """

    held: bool
    by: str
    comparisons: tuple[Comparison, ...]
    curves: tuple[CurvePoint, ...]
    taken_back: bool = False


@dataclass(frozen=True)
class Part:
    """That the stages ran on a part of the training data, and what all data said of it.

    Attributes:
        share: Part / all, a share.
        examples: Training examples of the part.
        whole: All training examples.
        whole_samples: Length of a training on all of them.
        repeat: The pair on all data, or None where that has not been run.
        seconds: Expected time of one such pair, or None.
    """

    share: float
    examples: int
    whole: int
    whole_samples: int
    repeat: Repeat | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class RobustRow:
    """The metric on validation data under one disturbance, today's settings beside others.

    Attributes:
        kind: ``input noise``, ``weight noise``, ``brightness``, ``shift``, ``sensor drift``,
            ``wrong labels`` or ``less data``; the last two are trainings on changed data.
        size: How much.
        unit: ``sd`` of each input feature, ``pixels``, ``rms`` of each weight tensor, or ``share``
            of the training examples.
        draws: Draws or directions whose mean it is.
        today: The metric, mean over seeds.
        recommended: The same for the other settings.
        today_change: Disturbed − clean, paired by seed.
        recommended_change: The same for the other settings.
        difference: recommended − today under the disturbance, paired by seed.
    """

    kind: str
    size: float
    unit: str
    draws: int
    today: Estimate
    recommended: Estimate
    today_change: Estimate
    recommended_change: Estimate
    difference: Estimate


@dataclass(frozen=True)
class RepeatRow:
    """Share of the validation examples on which two trainings disagree, over all pairs of seeds.

    Attributes:
        today: Today's settings; its range is a jackknife over seeds, as is that of the others.
        recommended: The other settings.
        difference: recommended − today, paired by seed.
    """

    today: Estimate
    recommended: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Robustness:
    """What ``--robustness`` has measured.

    Attributes:
        rows: A disturbance each.
        repeats: On how many examples two trainings disagree, or None.
        classes: Whether predictions are classes; numbers disagree by half a standard deviation.
        left_out: Kind of disturbance, or ``repeats`` → why it does not apply, as a code.
        unpaid: What the budget did not pay for → seconds it would take.
    """

    rows: tuple[RobustRow, ...]
    repeats: RepeatRow | None
    classes: bool
    left_out: dict[str, str]
    unpaid: dict[str, float]


@dataclass(frozen=True)
class KeptPoint:
    """The metric with so many units as they are and the others at their means.

    Attributes:
        count: Units kept.
        metric: With the most important ones, mean over trainings.
        random: With units taken at random.
    """

    count: int
    metric: Estimate
    random: Estimate


@dataclass(frozen=True)
class FeatureSide:
    """The internal features of one setting's trained models.

    Attributes:
        needed: Units that keep 99 % of the metric's gain over none, mean over trainings; None
            where no training needs any.
        needed_random: The same for units taken at random.
        active: Participation ratio of what the units say of an example, a share of the units.
        weights: Participation ratio of all weights of the model, a share of them.
        curve: The metric against units kept.
        sheet: The most important units of the first training.
        sharpness: How sharp the loss is around the trained model, or None if not measured.
    """

    needed: Estimate | None
    needed_random: Estimate | None
    active: Estimate | None
    weights: Estimate | None
    curve: tuple[KeptPoint, ...] = ()
    sheet: tuple[Unit, ...] = ()
    sharpness: Estimate | None = None


@dataclass(frozen=True)
class FeatureUse:
    """On how many internal features the decisions rest, today's settings beside others.

    Attributes:
        why_not: Why it was not measured, as a code: ``no hidden layer``, ``too large``,
            ``budget``, ``diverged`` or ``failed``; empty where it was.
        seconds: What it would have taken, where the budget did not pay for it.
        layer: The module whose units are counted, or ``input of …``.
        units: How many there are.
        kind: What the sheets show: ``image``, ``signal``, ``table`` or ``none``.
        order: How importance was measured: ``ablation`` or ``gradient``.
        examples: Validation examples behind the metric.
        order_examples: Training examples behind the order.
        draws: Random orders.
        today: Today's settings, or None.
        recommended: The other settings, or None.
        difference: Units needed, recommended − today, paired by seed; None where either needs
            none.
        fewer: Pairs in which the others need fewer.
        more: Pairs in which they need more.
        pairs: Pairs.
    """

    why_not: str = ""
    seconds: float | None = None
    layer: str = ""
    units: int = 0
    kind: str = "none"
    order: str = "ablation"
    examples: int = 0
    order_examples: int = 0
    draws: int = 0
    today: FeatureSide | None = None
    recommended: FeatureSide | None = None
    difference: Estimate | None = None
    fewer: int = 0
    more: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Growing:
    """Whether it pays to let the batch grow.

    Attributes:
        why_not: Why it was not tried, as a code: ``off`` (not asked for), ``budget``, ``no room``
            (the small useful batch cannot grow), ``too short`` or ``failed`` (none learnt); empty
            where it was.
        seconds: What trying takes, where the budget did not pay for it.
        rules: Rules for growing that gave a schedule.
        tried: Settings in the pilot: rules, growth of the learning rate, its schedule.
        lemma: Growth of the learning rate, a power, with the smallest proved bound for the best
            schedule of the pilot; None where that was not measured or nothing is proved.
        setting: The best of them, or None.
        rival: The best setting of constant batch size, under today's learning-rate schedule.
        quantity: ``time``, ``cost``, ``samples`` or ``validation``.
        difference: What growing takes / what the rival takes; for ``validation`` growing − rival.
            Paired by seed.
        pays: Whether the whole range is on the better side.
        fresh: Whether these are fresh seeds; otherwise they are those that chose both.
    """

    why_not: str = ""
    seconds: float | None = None
    rules: tuple[str, ...] = ()
    tried: int = 0
    lemma: float | None = None
    setting: Setting | None = None
    rival: Setting | None = None
    quantity: str = "time"
    difference: Estimate | None = None
    pays: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Reusing:
    """Whether it pays to use each fetched batch for several updates.

    Attributes:
        why_not: Why it was not tried, as a code: ``cheap`` (a fresh sample costs too little for
            any gain worth a change), ``budget``, ``too short`` or ``failed`` (none learnt); empty
            where it was.
        seconds: What trying takes, where the budget did not pay for it.
        price: Of a fresh sample, in units of computing one example; ∞ where only samples count.
        tried: Settings in the pilot: uses of a batch and learning rates.
        setting: The best of them, or None.
        rival: The best setting that uses each batch as often as today.
        quantity: ``time``, ``cost``, ``samples`` or ``validation``.
        difference: What re-use takes / what the rival takes; for ``validation`` re-use − rival.
            Paired by choosing seed.
        pays: Whether the whole range is on the better side.
    """

    why_not: str = ""
    seconds: float | None = None
    price: float = 0.0
    tried: int = 0
    setting: Setting | None = None
    rival: Setting | None = None
    quantity: str = "time"
    difference: Estimate | None = None
    pays: bool = False


@dataclass(frozen=True)
class Strengthening:
    """Whether a feature-learning strength γ pays, and what else it changes.

    Attributes:
        why_not: Why that is not known, as a code: ``model`` (it cannot be trained with a γ),
            ``budget``, ``too short``, ``failed`` (none learnt), ``behind`` (none was among the
            best of the search) or ``unconfirmed``; empty where it is.
        seconds: What trying takes, where the budget did not pay for it.
        tried: Settings with a γ that were trained.
        setting: The best of them, or None.
        rival: The best setting of the model as it is today.
        quantity: ``time``, ``cost``, ``samples`` or ``validation``.
        difference: What γ takes / what the rival takes; for ``validation`` γ − rival. Paired by
            choosing seed.
        pays: Whether the whole range is on the better side.
        metric: Metric at the end of a training, γ − rival, or None.
        slower: Seconds of an update with γ / without, or None where not both were timed.
    """

    why_not: str = ""
    seconds: float | None = None
    tried: int = 0
    setting: Setting | None = None
    rival: Setting | None = None
    quantity: str = "time"
    difference: Estimate | None = None
    pays: bool = False
    metric: Estimate | None = None
    slower: Estimate | None = None


@dataclass(frozen=True)
class Searched:
    """The search over all settings at once.

    Attributes:
        names: What was tuned, as the user named it.
        tried: Settings, today's among them.
        ended: Settings that ran to the end of a whole training.
        diverged: Settings that diverged.
        importance: Name → share of the differences between settings that it explains, largest
            first; empty where too few were tried.
        best: The best in the search, or None where none did as well as today's.
        gain: What today's settings take / what the best takes in the search, on the one seed that
            chose it: flattering, and no proof; for ``accuracy`` the gain in the metric. NaN
            without a best.
        unfinished: Whether it was interrupted.
    """

    names: tuple[str, ...]
    tried: int
    ended: int
    diverged: int
    importance: dict[str, float]
    best: Setting | None
    gain: float
    unfinished: bool = False


@dataclass(frozen=True)
class Advice:
    """The recommendation: what, why, evidence, how sure, how to apply.

    Attributes:
        task: The task's name.
        command: The command that made it.
        version: batchlab's version.
        created: ISO time, UTC.
        device: Device in words, such as ``cpu``.
        cores: Processor cores in use.
        builtin: Whether the task is a built-in demonstration.
        wall_seconds: Time this measurement took.
        measurement_cost: In the currency, or None.
        budget_seconds: The budget, or None.
        stage: Last finished stage: ``A``, ``B`` or ``C``.
        evidence: Screened, projected or confirmed.
        partial: Whether it was interrupted.
        verdict: The answer.
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        worth: Smallest ratio worth a change.
        at_least: ``METRIC=VALUE`` demands and whether the recommendation meets them.
        metric: The metric.
        target: What "trained" means, or None before stage B.
        today: The baseline.
        recommended: The recommendation; equals ``today`` (id included) when nothing better is
            known.
        changes: Fields that differ.
        comparisons: By quantity; empty before stage B. ``time`` is first.
        batch_only: Ratio of time today / batch changed with the learning rate as it was, or None.
        failures: Failed runs in the confirmation, or None.
        price: Or None.
        smallest_detectable: Smallest ratio these repeats could have shown, for ``accuracy`` the
            smallest difference of the metric, or None.
        decide_repeats: More pairs that would decide, 0 if decided.
        next_stage: Or None when nothing is left.
        useful_low: Useful batch range, lower end, or None.
        useful_high: Upper end.
        memory: The finder's answer, or None.
        noise: Along the baseline run.
        noise_orders_only: True for rules outside the SGD family.
        plane: The search.
        candidates: The table.
        curves: Learning curves.
        epochs_to_plateau: Epochs after which validation stops improving, or None.
        order_changed: Whether the search repeated at half of the run gave another order; None if
            not repeated.
        run_seconds: Expected seconds of one baseline run.
        train_examples: N.
        validation_examples: Examples every decision read.
        test_examples: Examples looked at once, 0 if there are none.
        assumptions: Sentences, English: defaults and everything changed from the user's loop.
        not_tested: Codes: ``models``, ``data``, ``rules``, ``machines``, ``longer``, ``momentum``,
            ``schedule``.
        provenance: Versions, device, threads, dtype, commit, seeds.
        params: Flat, for other tools: the recommended setting.
        compared: The setting the comparisons set against today's. Needed where the advice is not
            to change, since ``recommended`` is then today's; None: it is ``recommended``.
        framework: What the user's own script trains with: ``pytorch``, ``lightning`` or
            ``huggingface``.
        part: Which part of the training data was used, or None for all of it.
        robustness: Of today's settings and those compared, or None if it was not asked for.
        features: On how many internal features the decisions rest, or why that was not measured;
            None where nothing was confirmed.
        growing: Whether it pays to let the batch grow; None where that did not come up.
        reusing: Whether it pays to use each batch several times; None likewise.
        searched: The search over all settings at once; None where it was not asked for.
        strengthening: Whether a γ pays, and what it changes; None likewise.
        today_chosen: Whether the choosing seeds preferred today's settings, so that no result on
            fresh ones makes it a change.
        elsewhere: Whether times and prices are of another computer than the one that trained.
        has_script: Whether ``apply.py`` is written: it needs a task that a script can name.
        watched: Trainings behind it that the user ran and batchlab only watched; 0 where batchlab
            ran them.
    """

    task: str
    command: str
    version: str
    created: str
    device: str
    cores: int
    builtin: bool
    wall_seconds: float
    measurement_cost: float | None
    budget_seconds: float | None
    stage: str
    evidence: Evidence
    partial: bool
    verdict: Verdict
    objective: str
    worth: float
    at_least: dict[str, bool]
    metric: MetricInfo
    target: Target | None
    today: Setting
    recommended: Setting
    changes: tuple[Change, ...]
    comparisons: tuple[Comparison, ...]
    batch_only: Estimate | None
    failures: Failures | None
    price: Price | None
    smallest_detectable: float | None
    decide_repeats: int
    next_stage: NextStage | None
    useful_low: int | None
    useful_high: int | None
    memory: Memory | None
    noise: tuple[NoisePoint, ...]
    noise_orders_only: bool
    plane: tuple[PlanePoint, ...]
    candidates: tuple[Candidate, ...]
    curves: tuple[CurvePoint, ...]
    epochs_to_plateau: Estimate | None
    order_changed: bool | None
    run_seconds: float
    train_examples: int
    validation_examples: int
    test_examples: int
    assumptions: tuple[str, ...]
    not_tested: tuple[str, ...]
    provenance: dict[str, str]
    params: dict[str, Any] = field(default_factory=dict)
    compared: Setting | None = None
    framework: str = "pytorch"
    part: Part | None = None
    robustness: Robustness | None = None
    features: FeatureUse | None = None
    watched: int = 0
    today_chosen: bool = False
    elsewhere: bool = False
    growing: Growing | None = None
    reusing: Reusing | None = None
    searched: Searched | None = None
    strengthening: Strengthening | None = None
    has_script: bool = True

    def save(self, path: Path) -> None:
        """Write the record as JSON, whole or not at all.

        Args:
            path: The file, usually ``advice.json``.
        """
        _platform.write_whole(path, json.dumps(to_plain(self), indent=1, ensure_ascii=False))

    @staticmethod
    def load(path: Path) -> Advice:
        """Read a record back.

        Args:
            path: A file :meth:`save` wrote.

        Returns:
            The advice.
        """
        return from_plain(Advice, json.loads(path.read_text(encoding="utf-8")))
