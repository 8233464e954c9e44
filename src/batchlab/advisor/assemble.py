"""From the stages' records to one advice; nothing is measured or trained here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from batchlab.advisor.candidates import scaled_rate
from batchlab.advisor.decision import decide, decide_accuracy, pareto, useful_range, working_rates
from batchlab.advisor.judge import (
    Projected,
    Yardstick,
    failed,
    final_metric,
    grid_spacing,
    of_setting,
    projected,
    to_target,
)
from batchlab.advisor.options import Options
from batchlab.advisor.record import (
    Advice,
    Candidate,
    Change,
    Comparison,
    CurvePoint,
    Failures,
    Memory,
    MemoryPoint,
    MetricInfo,
    NextStage,
    NoisePoint,
    PlanePoint,
    Reason,
    Setting,
    Target,
    Verdict,
)
from batchlab.advisor.stages import Confirmation, Curve, Machine, Projection, Records
from batchlab.config import RunConfig
from batchlab.measure.throughput import seconds_per_update
from batchlab.rules import is_sgd_family
from batchlab.stats import (
    TYPICAL_LOG_SD,
    Paired,
    mean_estimate,
    median_estimate,
    paired_difference,
    quantile,
    repeats_to_decide,
    share_estimate,
    sign_repeats_to_decide,
    smallest_detectable_ratio,
)
from batchlab.types import Estimate, Evidence, Status

NOT_TESTED = ("models", "data", "rules", "machines", "longer", "momentum", "schedule")
SIGN_TEST_REPEATS = 12
CURVE_POINTS = 200


@dataclass(frozen=True)
class Facts:
    """What is known of the task besides the measurements.

    Attributes:
        task: Name.
        command: What was typed.
        argument: How the task was named, for the next command.
        version: batchlab's.
        builtin: Whether it is a demonstration.
        baseline: Today's recipe.
        metric: The metric.
        train_examples: N.
        validation_examples: Examples.
        test_examples: Examples, 0 without test data.
        assumptions: Sentences.
        prices: Expected seconds of the stages not run.
        provenance: Versions, seeds, device.
        created: ISO time; now if left out.
    """

    task: str
    command: str
    argument: str
    version: str
    builtin: bool
    baseline: RunConfig
    metric: MetricInfo
    train_examples: int
    validation_examples: int
    test_examples: int
    assumptions: tuple[str, ...]
    prices: dict[str, float]
    provenance: dict[str, str]
    created: str = ""


def assemble(records: Records, options: Options, facts: Facts) -> Advice:
    """Make the advice.

    Args:
        records: What the stages measured.
        options: What was asked.
        facts: What is known of the task.

    Returns:
        The advice, complete as far as the stages went.
    """
    return _Assembly(records, options, facts).advice()


class _Assembly:
    """The parts of one advice; each method makes one."""

    def __init__(self, records: Records, options: Options, facts: Facts) -> None:
        self.records, self.options, self.facts = records, options, facts
        baseline = facts.baseline
        assert isinstance(baseline.batch_size, int)
        assert isinstance(baseline.samples, int)
        assert baseline.learning_rate is not None
        assert baseline.rule is not None
        self.today = (baseline.batch_size, baseline.learning_rate)
        self.samples, self.rule = baseline.samples, baseline.rule
        machine = records.machine or Machine(None, {}, 1, "cpu", "", 1)
        self.yardstick = Yardstick(machine, options.price, baseline.reuse)
        self.maximise = facts.metric.maximise
        self.rows = self._rows()
        self.chosen = self._chosen()
        self.comparisons = self._comparisons()
        self.verdict = self._verdict()

    @property
    def projection(self) -> Projection | None:
        return self.records.projection

    @property
    def confirmation(self) -> Confirmation | None:
        return self.records.confirmation

    @property
    def stage(self) -> str:
        return "C" if self.confirmation else "B" if self.projection else "A"

    @property
    def evidence(self) -> Evidence:
        return {"A": Evidence.SCREENED, "B": Evidence.PROJECTED, "C": Evidence.CONFIRMED}[self.stage]

    # -- what is compared ----------------------------------------------------------------------

    def _rows(self) -> list[Projected]:
        if self.projection is None:
            return []
        return projected(
            self.projection,
            self.yardstick,
            objective=self.options.objective,
            today=self.today,
            maximise=self.maximise,
        )

    def _chosen(self) -> tuple[int, float]:
        """The best alternative: fixed in stage C, the front runner after stage B."""
        if self.confirmation is not None:
            return int(self.confirmation.chosen[0]), self.confirmation.chosen[1]
        others = [r for r in self.rows if (r.batch_size, r.learning_rate) != self.today]
        others = [r for r in others if math.isfinite(r.ratio.estimate.value) and r.ratio.estimate.value > 0]
        if not others:
            return self.today
        sign = -1.0 if self.options.objective == "accuracy" and not self.maximise else 1.0
        best = max(others, key=lambda r: sign * r.ratio.estimate.value)
        return best.batch_size, best.learning_rate

    def _comparisons(self) -> tuple[Comparison, ...]:
        if self.confirmation is not None:
            return self._confirmed(self.confirmation)
        return self._projected_rows()

    def _quantities(self) -> list[str]:
        return ["time", "cost", "samples"] if self.options.price else ["time", "samples"]

    def _confirmed(self, record: Confirmation) -> tuple[Comparison, ...]:
        fresh = replace(self.yardstick, machine=self.yardstick.machine.after(record.timed))
        before, after = (to_target(c, record.target, self.maximise) for c in (record.today, record.recommended))
        spacing = grid_spacing(self.facts.train_examples, self.samples)
        rows = [
            self._ratio_row(fresh, quantity, before, after, spacing) for quantity in self._quantities()
        ]
        rows.append(self._metric_row("validation", final_metric(record.today), final_metric(record.recommended)))
        if self.facts.test_examples:
            tests = [np.array([_number(c.test) for c in side]) for side in (record.today, record.recommended)]
            rows.append(self._metric_row("metric", *tests, self.facts.test_examples))
        return tuple(row for row in rows if row is not None)

    def _ratio_row(
        self, yardstick: Yardstick, quantity: str, before: np.ndarray, after: np.ndarray, spacing: float
    ) -> Comparison:
        (b0, _), (b1, _) = self.today, self.chosen
        paired = yardstick.compare(quantity, (before, b0), (after, b1), spacing)
        unit = {"time": "s", "cost": self._currency, "samples": "examples"}[quantity]
        sides = [
            median_estimate(yardstick.measure(quantity, side, size), unit)
            for side, size in ((before, b0), (after, b1))
        ]
        return _comparison(quantity, sides[0], sides[1], paired)

    @property
    def _currency(self) -> str:
        return self.options.price.currency if self.options.price else ""

    def _metric_row(
        self, quantity: str, before: np.ndarray, after: np.ndarray, examples: int = 0
    ) -> Comparison | None:
        """The metric of both, over the pairs in which both runs ended."""
        both = np.isfinite(before) & np.isfinite(after)
        if both.sum() < 2:
            return None
        before, after = before[both], after[both]
        paired = paired_difference(before, after, maximise=self.maximise)
        sides = [mean_estimate(side, self.facts.metric.unit) for side in (before, after)]
        return _comparison(
            quantity, sides[0], sides[1], paired, examples or self.facts.validation_examples
        )

    def _projected_rows(self) -> tuple[Comparison, ...]:
        """Time, cost and samples for an equally good training, scaled to a whole run of today's settings."""
        row = next((r for r in self.rows if (r.batch_size, r.learning_rate) == self.chosen), None)
        if row is None or self.chosen == self.today or not len(row.today_fall):
            return ()
        scale = self.samples / np.median(row.today_fall)
        before, after = row.today_fall * scale, row.fall * scale
        found = [self._ratio_row(self.yardstick, q, before, after, 0.0) for q in self._quantities()]
        return tuple(replace(c, method="projected") for c in found)

    # -- the answer ----------------------------------------------------------------------------

    def _deciding(self) -> Comparison | None:
        wanted = "validation" if self.options.objective == "accuracy" else self.options.objective
        return next((c for c in self.comparisons if c.quantity == wanted), None)

    def _verdict(self) -> Verdict:
        row = self._deciding()
        if row is None:
            nothing_better = self.projection is not None and self.chosen == self.today
            return Verdict.KEEP if nothing_better else Verdict.NOT_ENOUGH_EVIDENCE
        met = all(self._at_least().values())
        chosen = self.confirmation is not None and self.confirmation.today_chosen
        if self.options.objective == "accuracy":
            return decide_accuracy(row.difference, self.maximise, met, chosen)
        verdict = decide(row.difference, self.options.worth, met, chosen)
        # A projection is no proof: it may say that nothing is worth while, never that a change is.
        if verdict is Verdict.CHANGE and self.confirmation is None:
            return Verdict.NOT_ENOUGH_EVIDENCE
        return verdict

    def _at_least(self) -> dict[str, bool]:
        """Every demand, and whether the recommendation meets it on validation data."""
        if not self.options.at_least or self.confirmation is None:
            return {}
        values = {"loss": [c.loss[-1] for c in self.confirmation.recommended]}
        values[self.facts.metric.name] = list(final_metric(self.confirmation.recommended))
        met = {}
        for name, least in self.options.at_least.items():
            mean = float(np.mean(values[name]))
            down = name == "loss" or not self.maximise
            met[f"{name}={least:g}"] = mean <= least if down else mean >= least
        return met

    def _recommended(self) -> tuple[int, float]:
        """What stands in the column *recommended*: the best alternative, unless today's settings are kept."""
        return self.today if self.verdict is Verdict.KEEP and not self.comparisons else self.chosen

    def _setting(self, pair: tuple[int, float], id_: str) -> Setting:
        config = self.facts.baseline
        size, rate = pair
        return Setting(
            id=id_,
            rule=self.rule,
            batch_size=size,
            micro_batch_size=size,
            accum_steps=1,
            world_size=1,
            learning_rate=rate,
            momentum=float(config.momentum or 0.0),
            weight_decay=config.weight_decay,
            lr_schedule=config.lr_schedule,
            warmup=config.warmup,
            clip_norm=config.clip_norm,
            precision=config.precision,
            samples=self.samples,
            nu=config.nu,
            beta2=config.beta2,
            eps=config.eps,
        )

    def _id(self, pair: tuple[int, float]) -> str:
        return "today" if pair == self.today else f"B{pair[0]}-lr{pair[1]:.4g}"

    def _changes(self) -> tuple[Change, ...]:
        found = []
        (b0, r0), (b1, r1) = self.today, self._recommended()
        if b0 != b1:
            found.append(Change("batch_size", b0, b1))
        if r0 != r1:
            found.append(Change("learning_rate", r0, r1))
        return tuple(found)

    # -- how sure, and what next ---------------------------------------------------------------

    def _paired(self) -> Paired | None:
        """The deciding comparison again, with its spread."""
        record, objective = self.confirmation, self.options.objective
        if record is None or objective == "accuracy":
            return None
        fresh = replace(self.yardstick, machine=self.yardstick.machine.after(record.timed))
        sides = [to_target(c, record.target, self.maximise) for c in (record.today, record.recommended)]
        spacing = grid_spacing(self.facts.train_examples, self.samples)
        return fresh.compare(objective, (sides[0], self.today[0]), (sides[1], self.chosen[0]), spacing)

    def _smallest_detectable(self) -> float | None:
        paired = self._paired()
        n = self.options.confirm_seeds if self.confirmation is None else len(self.confirmation.today)
        sd = TYPICAL_LOG_SD if paired is None or not math.isfinite(paired.sd) else paired.sd
        return smallest_detectable_ratio(float(sd), n)

    def _decide_repeats(self) -> int:
        """Further pairs that would decide; 0 if it is decided or none would."""
        paired, record = self._paired(), self.confirmation
        if self.verdict is not Verdict.NOT_ENOUGH_EVIDENCE or paired is None or record is None:
            return 0
        if paired.method == "sign":
            sides = [to_target(c, record.target, self.maximise) for c in (record.today, record.recommended)]
            if not all(np.isfinite(side).any() for side in sides):
                return 0
            values = [
                self.yardstick.measure(self.options.objective, side, size)
                for side, size in zip(sides, (self.today[0], self.chosen[0]), strict=True)
            ]
            return sign_repeats_to_decide(values[0], values[1], self.options.worth) or 0
        if not 0 < paired.estimate.value < math.inf or not math.isfinite(paired.sd):
            return 0
        return repeats_to_decide(paired.estimate.value, paired.sd, paired.pairs, self.options.worth) or 0

    def _next_stage(self) -> NextStage | None:
        argument = self.facts.argument
        if self.stage in "AB":
            letter = "B" if self.stage == "A" else "C"
            seconds = self.facts.prices.get(letter, math.nan)
            if not math.isfinite(seconds):
                return None
            total = self.records.wall_seconds + 1.15 * seconds + 5
            more = "" if self.stage == "A" and self.options.budget is None else " --resume"
            command = f"batchlab advise {argument} --budget {_budget(total)}{more}"
            return NextStage(letter, seconds, self._price(seconds), command)
        repeats = self._decide_repeats()
        if repeats:
            seconds = repeats * self._pair_seconds()
            total = self.records.wall_seconds + 1.3 * seconds + 5
            command = f"batchlab advise {argument} --resume --budget {_budget(total)}"
            return NextStage("more-repeats", seconds, self._price(seconds), command, repeats)
        if self.facts.builtin:
            command = "batchlab advise your_task.py:task --budget 10m"
            return NextStage("own-task", 600.0, self._price(600.0), command)
        return None

    def _pair_seconds(self) -> float:
        sizes = (self.today[0], self.chosen[0])
        screening = self.records.screening
        factor = screening.engine_factor if screening else 1.5
        each = [self.samples / b * self.yardstick.rate(b).value * factor for b in sizes]
        return sum(each) / max(1, self.yardstick.machine.cores)

    def _price(self, seconds: float) -> float | None:
        price = self.options.price
        return None if price is None else seconds * price.per_hour / 3600

    # -- evidence ------------------------------------------------------------------------------

    def _memory(self) -> Memory | None:
        machine = self.records.machine
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
        blocks = machine.blocks.get(str(self.today[0]))
        share = seconds_per_update(blocks).loader_share if blocks else None
        return Memory(
            fit.largest,
            fit.bound_by,
            fit.limit_bytes,
            fit.limit_source,
            fit.margin_bytes,
            tuple(points[size] for size in sorted(points)),
            self._knee(),
            share,
            fit.sentence,
        )

    def _throughput(self) -> dict[int, float]:
        machine = self.yardstick.machine
        return {int(b): int(b) / self.yardstick.rate(int(b)).value for b in machine.blocks}

    def _knee(self) -> int | None:
        return useful_range(self._throughput(), {})[0]

    def _noise(self) -> tuple[NoisePoint, ...]:
        screening = self.records.screening
        if screening is None:
            return ()
        return tuple(NoisePoint(r.samples, r.scale, r.at_least) for r in screening.noise)

    def _seed_sd(self) -> float:
        """Standard deviation of the metric between seeds, pooled over the settings that were repeated."""
        if self.projection is None:
            return 0.0
        groups: dict[tuple[int, float], list[float]] = {}
        for curve in self.projection.curves:
            if curve.rung == 2 and curve.status is not Status.DIVERGED:
                groups.setdefault((curve.batch_size, curve.learning_rate), []).append(
                    float(np.mean(curve.metric[-3:]))
                )
        spreads = [np.var(values, ddof=1) for values in groups.values() if len(values) > 1]
        return float(np.sqrt(np.mean(spreads))) if spreads else 0.0

    def _plane(self) -> tuple[PlanePoint, ...]:
        if self.projection is None:
            return ()
        seed = min(c.seed for c in self.projection.curves)
        own = [c for c in self.projection.curves if c.seed == seed]
        points = []
        for size in sorted({c.batch_size for c in own}):
            mine = [c for c in own if c.batch_size == size]
            working = self._working(mine)
            for curve in sorted(mine, key=lambda c: c.learning_rate):
                points.append(
                    PlanePoint(
                        size,
                        curve.learning_rate,
                        curve.loss[-1],
                        curve.metric[-1],
                        curve.samples[-1] - self.projection.start,
                        curve.rung,
                        curve.status,
                        curve.learning_rate in working,
                    )
                )
        return tuple(points)

    def _working(self, curves: Sequence[Curve]) -> set[float]:
        """Rates of one batch size that work, each judged against the others where its own search ended."""
        works, sd = set(), self._seed_sd()
        for curve in curves:
            if curve.status is Status.DIVERGED:
                continue
            end = curve.samples[-1]
            level = {c.learning_rate: _metric_at(c, end) for c in curves if c.samples[-1] >= end}
            found = working_rates(level, sd, self.maximise)
            if found is not None and curve.learning_rate in found.works:
                works.add(curve.learning_rate)
        return works

    def _unbroken(self, curves: Sequence[Curve], chosen: float) -> tuple[float, float]:
        """The run of neighbouring rates that work around the tuned one."""
        works = self._working(curves) | {chosen}
        rates = sorted(c.learning_rate for c in curves)
        low = high = rates.index(chosen)
        while low > 0 and rates[low - 1] in works:
            low -= 1
        while high + 1 < len(rates) and rates[high + 1] in works:
            high += 1
        return rates[low], rates[high]

    def _candidates(self) -> tuple[Candidate, ...]:
        screening = self.records.screening
        if screening is None:
            return ()
        reasons = {p.batch_size: p.reason for p in screening.proposals}
        made = [self._candidate(self.today, reasons.get(self.today[0], Reason.BASELINE), None)]
        for row in self.rows:
            pair = (row.batch_size, row.learning_rate)
            if pair != self.today:
                made.append(self._candidate(pair, reasons.get(row.batch_size, Reason.NOISE_SCALE), row))
        if not self.rows:
            made += [
                self._candidate((p.batch_size, self._linear(p.batch_size)), p.reason, None)
                for p in screening.proposals
                if p.batch_size != self.today[0]
            ]
        return self._with_pareto(made)

    def _linear(self, size: int, power: float | None = None) -> float:
        if power is None:
            power = 1.0 if is_sgd_family(self.rule) else 0.5
        return scaled_rate(self.today[1], self.today[0], size, power)

    def _candidate(self, pair: tuple[int, float], reason: Reason, row: Projected | None) -> Candidate:
        size, _ = pair
        working = self._rate_range(size)
        made = Candidate(
            self._setting(pair, self._id(pair)),
            reason,
            Evidence.SCREENED,
            rate_low=working[0],
            rate_high=working[1],
            rate_linear=self._linear(size, 1.0),
            rate_sqrt=self._linear(size, 0.5),
            seconds_per_update=self._timing(size),
        )
        if self.projection is not None:
            made = self._with_projection(made, pair, row)
        return self._with_confirmation(made, pair)

    def _timing(self, size: int) -> Estimate | None:
        blocks = self.yardstick.machine.blocks.get(str(size))
        return seconds_per_update(blocks).seconds_per_update if blocks else None

    def _rate_range(self, size: int) -> tuple[float | None, float | None]:
        """Learning rates that work at a batch size, around its tuned one."""
        if self.projection is None or str(size) not in self.projection.best:
            return None, None
        seed = min(c.seed for c in self.projection.curves)
        mine = [c for c in self.projection.curves if c.batch_size == size and c.seed == seed]
        return self._unbroken(mine, self.projection.best[str(size)])

    def _with_projection(
        self, made: Candidate, pair: tuple[int, float], row: Projected | None
    ) -> Candidate:
        """Samples for an equal fall, scaled to a whole run of today's settings."""
        assert self.projection is not None
        if row is None:
            rates = {pair[0]: pair[1]}
            row = projected(
                self.projection,
                self.yardstick,
                objective="samples",
                today=self.today,
                maximise=self.maximise,
                rates=rates,
            )[0]
        if not len(row.fall):
            return made
        samples = row.fall * (self.samples / np.median(row.today_fall))
        curves = list(of_setting(self.projection.curves, *pair).values())
        return replace(
            made,
            evidence=Evidence.PROJECTED,
            loss_samples=median_estimate(row.fall, "examples"),
            runs=len(row.fall),
            failed=int(np.sum(~np.isfinite(row.fall))),
            **self._target_columns(samples, pair[0], self.yardstick),
            metric=_metric_estimate(final_metric(curves), self.facts.metric.unit),
        )

    def _with_confirmation(self, made: Candidate, pair: tuple[int, float]) -> Candidate:
        """The runs to the target, fresh seeds if there are any."""
        record = self.confirmation
        if record is None:
            return made
        fresh = {self.today: record.today, self.chosen: record.recommended}.get(pair, ())
        curves = fresh or tuple(of_setting(record.choosing, *pair).values())
        if not curves:
            return made
        samples = to_target(curves, record.target, self.maximise)
        yardstick = self.yardstick
        if fresh:
            yardstick = replace(yardstick, machine=yardstick.machine.after(record.timed))
        return replace(
            made,
            evidence=Evidence.CONFIRMED,
            runs=len(curves),
            failed=sum(failed(c, s) for c, s in zip(curves, samples, strict=True)),
            **self._target_columns(samples, pair[0], yardstick),
            metric=_metric_estimate(final_metric(curves), self.facts.metric.unit),
        )

    def _target_columns(self, samples: np.ndarray, size: int, yardstick: Yardstick) -> dict[str, Any]:
        columns = {
            "samples_to_target": median_estimate(samples, "examples"),
            "updates_to_target": median_estimate(samples / size * self.facts.baseline.reuse, "updates"),
            "seconds_to_target": median_estimate(yardstick.measure("time", samples, size), "s"),
        }
        if self.options.price is not None:
            cost = yardstick.measure("cost", samples, size)
            columns["cost_to_target"] = median_estimate(cost, self._currency)
        return columns

    def _with_pareto(self, made: Sequence[Candidate]) -> tuple[Candidate, ...]:
        known = {c.setting.id: c for c in made if c.seconds_to_target and c.metric}
        times = {i: c.seconds_to_target.value for i, c in known.items() if c.seconds_to_target}
        metrics = {i: c.metric.value for i, c in known.items() if c.metric}
        best = set(pareto(times, metrics, self.maximise)) if known else set()
        return tuple(replace(c, pareto=c.setting.id in best) for c in made)

    def _curves(self) -> tuple[CurvePoint, ...]:
        """Median and range over seeds of loss and metric, of the runs that count most."""
        record, projection = self.confirmation, self.projection
        points: list[CurvePoint] = []
        if record is not None:
            groups = {self.today: record.today, self.chosen: record.recommended}
            for pair in {(c.batch_size, c.learning_rate) for c in record.choosing} - set(groups):
                groups[pair] = tuple(of_setting(record.choosing, *pair).values())
        elif projection is not None:
            pairs = [self.today, *((r.batch_size, r.learning_rate) for r in self.rows)]
            groups = {p: tuple(of_setting(projection.curves, *p).values()) for p in pairs}
        else:
            return ()
        for pair, curves in groups.items():
            points += self._points(pair, [c for c in curves if c.status is not Status.DIVERGED])
        return tuple(points)

    def _points(self, pair: tuple[int, float], curves: Sequence[Curve]) -> list[CurvePoint]:
        if not curves:
            return []
        length = min(len(c.samples) for c in curves)
        rate = self.yardstick.machine.seconds(pair[0])
        points = []
        for name in ("loss", "metric"):
            values = np.array([getattr(c, name)[:length] for c in curves])
            for t in range(length):
                samples, updates = curves[0].samples[t], curves[0].updates[t]
                points.append(
                    CurvePoint(
                        self._id(pair),
                        name,
                        samples,
                        samples / self.facts.train_examples,
                        updates,
                        updates * rate.value if rate else math.nan,
                        float(np.median(values[:, t])),
                        float(quantile(values[:, t], 0.05)),
                        float(quantile(values[:, t], 0.95)),
                        len(curves),
                    )
                )
        return points

    def _batch_only(self) -> Estimate | None:
        """Time today / batch changed with the learning rate as it was."""
        record, size = self.confirmation, self.chosen[0]
        if size == self.today[0]:
            return None
        if record is not None and record.batch_only:
            before = tuple(of_setting(record.choosing, *self.today).values())
            pairs = {c.seed: c for c in record.batch_only}
            before = [c for c in before if c.seed in pairs]
            sides = [
                to_target(c, record.target, self.maximise)
                for c in (before, [pairs[c.seed] for c in before])
            ]
            spacing = grid_spacing(self.facts.train_examples, self.samples)
            return self.yardstick.compare("time", (sides[0], self.today[0]), (sides[1], size), spacing).estimate
        if self.projection is None or not of_setting(self.projection.curves, size, self.today[1]):
            return None
        row = projected(
            self.projection,
            self.yardstick,
            objective="time",
            today=self.today,
            maximise=self.maximise,
            rates={size: self.today[1]},
        )[0]
        return row.ratio.estimate if len(row.fall) else None

    def _failures(self) -> Failures | None:
        record = self.confirmation
        if record is None:
            return None
        counts = []
        for side in (record.today, record.recommended):
            reached = to_target(side, record.target, self.maximise)
            counts.append(sum(failed(c, s) for c, s in zip(side, reached, strict=True)))
        return Failures(counts[0], len(record.today), counts[1], len(record.recommended))

    def _target(self) -> Target | None:
        record = self.confirmation
        if record is None:
            value = self.options.target
            return None if value is None else Target(value, "user")
        baseline = tuple(of_setting(record.choosing, *self.today).values())
        reached = np.isfinite(to_target(baseline, record.target, self.maximise))
        share = share_estimate(int(reached.sum()), len(reached)).value
        return Target(record.target, record.chosen_by, len(baseline), share)

    def _epochs_to_plateau(self) -> Estimate | None:
        """Epochs after which today's validation loss never falls by more than a hundredth of its whole fall."""
        record = self.confirmation
        if record is None:
            return None
        epochs = []
        for curve in record.today:
            loss = np.array(curve.loss)
            if curve.status is Status.OK and len(loss) > 1:
                enough = loss.min() + 0.01 * (loss[0] - loss.min())
                first = int(np.argmax(loss <= enough))
                epochs.append(curve.samples[first] / self.facts.train_examples)
        return median_estimate(np.array(epochs), "epochs") if epochs else None

    def _order_changed(self) -> bool | None:
        """Whether the best batch size from half of the run is another one than from the start."""
        projection = self.projection
        if projection is None or not projection.late or not self.rows:
            return None
        seed = projection.late[0].seed
        early = {r.batch_size: r for r in self.rows}
        late = replace(projection, curves=tuple(c for c in projection.late if c.seed == seed))
        rows = projected(
            late,
            self.yardstick,
            objective="samples" if self.options.objective == "accuracy" else self.options.objective,
            today=self.today,
            maximise=self.maximise,
            rates={r.batch_size: r.learning_rate for r in self.rows},
        )
        known = [r for r in rows if len(r.fall) and math.isfinite(r.ratio.estimate.value)]
        if len(known) < 2 or self.options.objective == "accuracy":
            return None
        best_late = max(known, key=lambda r: r.ratio.estimate.value).batch_size
        best_early = max(
            (r for r in early.values() if math.isfinite(r.ratio.estimate.value)),
            key=lambda r: r.ratio.estimate.value,
        ).batch_size
        return best_late != best_early

    def _useful(self) -> tuple[int | None, int | None]:
        falls = {r.batch_size: float(np.median(r.fall)) for r in self.rows if len(r.fall)}
        return useful_range(self._throughput(), falls)

    # -- all of it -----------------------------------------------------------------------------

    def advice(self) -> Advice:
        """The record."""
        facts, options, records = self.facts, self.options, self.records
        recommended = self._recommended()
        low, high = self._useful()
        today = self._setting(self.today, "today")
        new = self._setting(recommended, self._id(recommended))
        machine = self.yardstick.machine
        return Advice(
            task=facts.task,
            command=facts.command,
            version=facts.version,
            created=facts.created or datetime.now(UTC).isoformat(timespec="seconds"),
            device=machine.device,
            cores=machine.cores,
            builtin=facts.builtin,
            wall_seconds=records.wall_seconds,
            measurement_cost=self._price(records.wall_seconds),
            budget_seconds=options.budget,
            stage=self.stage,
            evidence=self.evidence,
            partial=records.partial,
            verdict=self.verdict,
            objective=options.objective,
            worth=options.worth,
            at_least=self._at_least(),
            metric=facts.metric,
            target=self._target(),
            today=today,
            recommended=new,
            changes=self._changes(),
            comparisons=self.comparisons,
            batch_only=self._batch_only(),
            failures=self._failures(),
            price=options.price,
            smallest_detectable=self._smallest_detectable(),
            decide_repeats=self._decide_repeats(),
            next_stage=self._next_stage(),
            useful_low=low,
            useful_high=high,
            memory=self._memory(),
            noise=self._noise(),
            noise_orders_only=not is_sgd_family(self.rule),
            plane=self._plane(),
            candidates=self._candidates(),
            curves=self._curves(),
            epochs_to_plateau=self._epochs_to_plateau(),
            order_changed=self._order_changed(),
            run_seconds=self._run_seconds(),
            train_examples=facts.train_examples,
            validation_examples=facts.validation_examples,
            test_examples=facts.test_examples,
            assumptions=facts.assumptions + records.said,
            not_tested=NOT_TESTED,
            provenance=facts.provenance | {"processor": machine.name, "threads": str(machine.threads)},
            params=_params(new if self.verdict is Verdict.CHANGE else today),
        )

    def _run_seconds(self) -> float:
        rate = self.yardstick.machine.seconds(self.today[0])
        if rate is None:
            return math.nan
        return self.samples / self.today[0] * self.facts.baseline.reuse * rate.value


def _comparison(
    quantity: str, today: Estimate, recommended: Estimate, paired: Paired, examples: int = 0
) -> Comparison:
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


def _metric_estimate(values: np.ndarray, unit: str) -> Estimate | None:
    known = values[np.isfinite(values)]
    return mean_estimate(known, unit) if len(known) else None


def _metric_at(curve: Curve, samples: int) -> float:
    """Mean of the last three metrics up to here; NaN for a diverged run."""
    if curve.status is Status.DIVERGED:
        return math.nan
    there = [m for s, m in zip(curve.samples, curve.metric, strict=True) if s <= samples][-3:]
    return float(np.mean(there)) if there else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _params(setting: Setting) -> dict[str, Any]:
    """Flat, for other tools."""
    names = (
        "rule", "batch_size", "learning_rate", "momentum", "weight_decay", "lr_schedule", "warmup",
        "clip_norm", "precision", "samples", "micro_batch_size", "accum_steps", "world_size",
    )
    return {name: getattr(setting, name) for name in names}


def _budget(seconds: float) -> str:
    """Seconds as one would type them, rounded up.

    Example:
        >>> _budget(130.0), _budget(40.0)
        ('3m', '40s')
    """
    return f"{math.ceil(seconds)}s" if seconds < 90 else f"{math.ceil(seconds / 60)}m"
