"""What the records say, seen as one case: today's settings, the candidates, the best of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from batchlab.advisor.judge import (
    Projected,
    Yardstick,
    grid_spacing,
    projected,
    ranked,
    to_target,
)
from batchlab.advisor.options import Options
from batchlab.advisor.record import MetricInfo, Setting, distinct, short_name
from batchlab.advisor.stages import (
    Choice,
    Confirmation,
    Grown,
    Machine,
    Pace,
    Projection,
    Records,
    Today,
    choice_of,
    gamma_of,
    micro_of,
    others_of,
    pace_of,
    reuse_of,
    today_of,
)
from batchlab.config import RunConfig
from batchlab.measure.together import widest
from batchlab.schedules import sizes_of
from batchlab.tasks import Prepared
from batchlab.types import Estimate

NAMES = {"momentum": "m", "weight_decay": "wd", "lr_schedule": "", "reuse": "k", "gamma": "γ"}
"""Fields in the short name of a setting."""


@dataclass(frozen=True)
class Facts:
    """What is known of the task besides the measurements.

    Attributes:
        task: Name.
        command: What was typed.
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
        created: When it was measured, ISO time; now if left out.
        framework: What the user's own script trains with.
        whole: All training examples and the length of a training on them, where the stages ran on
            a part.
        has_script: Whether a script can find the task by its name.
    """

    task: str
    command: str
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
    framework: str = "pytorch"
    whole: tuple[int, int] | None = None
    has_script: bool = True


def bare_facts(prepared: Prepared) -> Facts:
    """What a verdict needs to know of a task.

    Args:
        prepared: The task.
    """
    task, metric, whole = prepared.task, prepared.metric, None
    if prepared.drawn is not None:
        samples = prepared.drawn.whole.baseline.samples
        assert isinstance(samples, int)
        whole = prepared.drawn.whole.examples, samples
    return Facts(
        task=task.name,
        command="",
        version="",
        builtin=False,
        baseline=prepared.baseline,
        metric=MetricInfo(metric.name, metric.maximise, metric.unit),
        train_examples=prepared.examples,
        validation_examples=prepared.validation.examples,
        test_examples=0 if prepared.test is None else prepared.test.examples,
        assumptions=prepared.assumptions,
        prices={},
        provenance={},
        framework=task.framework,
        whole=whole,
        has_script=task.origin is not None,
    )


@dataclass(frozen=True)
class View:
    """Records, what was asked, and what is known of the task."""

    records: Records
    options: Options
    facts: Facts

    @cached_property
    def today(self) -> Today:
        """Today's setting."""
        return today_of(self.facts.baseline)

    @property
    def first(self) -> tuple[int, float]:
        """What the search compares with: today's setting; of a batch that grows, its first size
        throughout.
        """
        return sizes_of(self.today[0])[0], self.today[1]

    @property
    def samples(self) -> int:
        """The user's training length."""
        assert isinstance(self.facts.baseline.samples, int)
        return self.facts.baseline.samples

    @property
    def rule(self) -> str:
        """Update rule."""
        assert self.facts.baseline.rule is not None
        return self.facts.baseline.rule

    @property
    def maximise(self) -> bool:
        """Direction of the metric."""
        return self.facts.metric.maximise

    @property
    def projection(self) -> Projection | None:
        """Stage B."""
        return self.records.projection

    @property
    def confirmation(self) -> Confirmation | None:
        """Stage C."""
        return self.records.confirmation

    @property
    def stage(self) -> str:
        """The last finished stage."""
        searched = self.projection or self.records.tuning
        return "C" if self.confirmation else "B" if searched else "A"

    @cached_property
    def yardstick(self) -> Yardstick:
        """Turns samples into time and money, by all blocks that were timed."""
        machine = self.records.machine or Machine(None, {}, 1, "cpu", "", 1)
        reuse, examples = self.facts.baseline.reuse, self.facts.train_examples
        reading = self.options.seconds_per_sample
        return Yardstick(machine, self.options.price, reuse, examples, reading)

    @cached_property
    def fresh_yardstick(self) -> Yardstick:
        """The same without the blocks that helped to choose."""
        if self.confirmation is None:
            return self.yardstick
        record = self.confirmation
        machine = self.yardstick.machine.after(record.timed, record.timed_wrapped)
        return replace(self.yardstick, machine=machine)

    @cached_property
    def yardstick_on_all(self) -> Yardstick:
        """The same by the blocks that were timed on all data, if they were on this machine."""
        whole = self.records.on_all
        if whole is None:
            return self.fresh_yardstick
        machine = self.fresh_yardstick.machine
        if whole.blocks:
            known = {"blocks": whole.blocks, "wrapped": whole.wrapped}
            machine = replace(self.yardstick.machine, **known)
        return replace(self.yardstick, machine=machine, examples=whole.examples)

    @cached_property
    def fresh_samples(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Samples to the target on the fresh seeds: today's settings, the best alternative."""
        record = self.confirmation
        assert record is not None
        before, after = (
            to_target(c, record.target, self.maximise) for c in (record.today, record.recommended)
        )
        return before, after

    @cached_property
    def spacing(self) -> float:
        """Samples between two evaluations of a whole run."""
        return grid_spacing(self.facts.train_examples, self.samples)

    @property
    def currency(self) -> str:
        """Of the price, empty without one."""
        return self.options.price.currency if self.options.price else ""

    @cached_property
    def rows(self) -> list[Projected]:
        """What the search says of every batch size."""
        if self.projection is None:
            return []
        return projected(
            self.projection,
            self.yardstick,
            objective=self.options.objective,
            today=self.first,
            maximise=self.maximise,
        )

    @cached_property
    def chosen(self) -> Choice:
        """The best alternative: fixed in stage C, the front runner after stage B."""
        if self.confirmation is not None:
            return self.confirmation.choice
        best = self.front_runner
        return self.today if best is None else best.setting

    @property
    def front_runner(self) -> Projected | None:
        """What the search puts first besides today's settings."""
        return next(iter(ranked(self.rivals, self.options.objective, self.maximise)), None)

    @property
    def pace(self) -> Pace:
        """What decides how long a sample takes under the best alternative."""
        return pace_of(self.chosen)

    @cached_property
    def rivals(self) -> list[Projected]:
        """The rows besides today's settings of which anything can be said: none where today's
        batch grows, since the search has trained no such one.
        """
        if isinstance(self.today, Grown):
            return []
        return [
            row
            for row in self.rows
            if row.setting != self.today and math.isfinite(self.burden(row).value)
        ]

    def burden(self, row: Projected) -> Estimate:
        """How a row compares with today, less is better."""
        return row.burden(self.options.objective, self.maximise)

    def setting(self, choice: Choice) -> Setting:
        """The baseline with another batch size and learning rate, a batch that grows, or
        whatever else was searched.
        """
        config = self.facts.baseline
        size, rate = choice[:2]
        grown = choice if isinstance(choice, Grown) else None
        fit = self.records.machine.fit if self.records.machine else None
        largest = max(sizes_of(size))
        fits = micro_of(size, fit, max(sizes_of(self.today[0]))) or largest
        _, world, micro = widest(largest, self.options.world_size, fits)
        made = Setting(
            id=self.id(choice),
            rule=self.rule,
            batch_size=size,
            micro_batch_size=micro,
            accum_steps=largest // (micro * world),
            world_size=world,
            learning_rate=rate,
            momentum=float(config.momentum or 0.0),
            weight_decay=config.weight_decay,
            lr_schedule=config.lr_schedule if grown is None else grown.lr_schedule,
            warmup=config.warmup,
            clip_norm=config.clip_norm,
            precision=config.precision,
            samples=self.samples,
            nu=config.nu,
            beta2=config.beta2,
            eps=config.eps,
            rate_growth=config.rate_growth if grown is None else grown.rate_growth,
            reuse=config.reuse,
            gamma=config.gamma,
        )
        return replace(made, **dict(others_of(choice)))

    def id(self, choice: Choice) -> str:
        """Short name of a setting."""
        if choice == self.today:
            return "today"
        named = self._grown_names.get(choice) or short_name(*choice[:2])
        return named + "".join(f"-{NAMES.get(n, n)}{_short(v)}" for n, v in others_of(choice))

    @property
    def tuned(self) -> list[Choice]:
        """What stage C compares after a search over all settings, today's left out; before it the
        best of the search.
        """
        record, tuning = self.confirmation, self.records.tuning
        if tuning is None:
            return []
        found = tuning.best[:1] if record is None else record.finalists
        return [choice for choice in map(choice_of, found) if choice != self.today]

    @property
    def grown(self) -> list[Grown]:
        """The finalists whose batch grows."""
        return [choice for choice in self._finalists if isinstance(choice, Grown)]

    @property
    def reused(self) -> list[Choice]:
        """The finalists whose batch is used several times, of a pilot."""
        known = [] if self.records.tuning is not None else self._finalists
        return [choice for choice in known if reuse_of(choice)]

    @property
    def strengthened(self) -> list[Choice]:
        """The finalists with a γ of their own."""
        return [choice for choice in self._finalists if gamma_of(choice) is not None]

    @property
    def _finalists(self) -> list[Choice]:
        record = self.confirmation
        return [] if record is None else list(map(choice_of, record.finalists))

    @cached_property
    def _grown_names(self) -> dict[Choice, str]:
        """Batches that grow → one name each; those alike are numbered."""
        record, pilot, own = self.confirmation, self.records.pilot, self.facts.baseline.lr_schedule
        plain = [*(pilot.best if pilot else ()), *(record.finalists if record else ())]
        grown = [c for c in dict.fromkeys(map(choice_of, plain)) if isinstance(c, Grown)]
        held = {c: "" if c.lr_schedule == own else f"-{c.lr_schedule}" for c in grown}
        return distinct({c: short_name(*c[:3]) + held[c] for c in grown})

    def run_seconds(self) -> float:
        """One run of today's settings alone, on all data."""
        if not self.yardstick.machine.blocks:
            return math.nan
        examples, samples = self.facts.whole or (self.facts.train_examples, self.samples)
        yardstick = replace(self.yardstick, examples=examples)
        return float(yardstick.measure("time", np.array([float(samples)]), self.today[0])[0])


def _short(value: object) -> str:
    """A value in a name."""
    return f"{value:g}" if isinstance(value, float) else str(value)
