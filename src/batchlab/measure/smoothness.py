"""Which schedule has the smallest bound on this task: L, σ² and Δ measured, schedules ranked.

:mod:`batchlab.theory.growing` needs three numbers of a loss. They are taken along the beginning of
the task's own recipe: L from the largest eigenvalue of the Hessian, σ² from the trace of the
covariance of the examples' gradients, Δ from the loss at the start. How far each is uncertain goes
into the ranking: it is made again for many draws from their intervals.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine import Engine, Job
from batchlab.errors import InvalidValueError, ValidityWarning, must
from batchlab.measure._moments import LEVEL, t_quantile
from batchlab.measure._own import Examples
from batchlab.measure.noise import NoiseProbe, NoiseResult, from_trace_values, noise_probe
from batchlab.measure.sharpness import Settings, SharpnessProbe, sharpness_probe
from batchlab.schedules import RateSchedule, amount, batch_schedule
from batchlab.stats import share_estimate
from batchlab.tasks import Objective, Prepared, Task, load, prepare
from batchlab.tasks.task import weighted_sum
from batchlab.theory.growing import Form, Plan, Problem, Step, Sums, evaluated, sums
from batchlab.types import Estimate, Status

EXAMPLES = 512
POINTS = 4
PASSES = 2
"""Of the recipe, along which is measured if nothing else is said."""
DRAWS = 1000
SOURCE = "along the beginning of the recipe"


@dataclass(frozen=True)
class Constants:
    """What a bound needs of a task, each with its 90 % interval.

    Attributes:
        smoothness: L as the largest eigenvalue of the Hessian met, loss/parameter². The theory
            means the largest anywhere, of which this is a lower end.
        noise: σ² as the largest trace of the covariance met, (loss/parameter)².
        gap: Δ, loss. Its value and high end take the least loss for f*; its low end the least met.
        start: ‖∇f(θ_0)‖², (loss/parameter)²: a bound above it says nothing.
        moments: Samples at which they were measured.
    """

    smoothness: Estimate
    noise: Estimate
    gap: Estimate
    start: Estimate
    moments: tuple[int, ...]

    @property
    def problem(self) -> Problem:
        """Their values, for :func:`batchlab.theory.growing.bound`."""
        return Problem(self.smoothness.value, self.noise.value, self.gap.value)

    def drawn(self, count: int, seed: int = 0) -> list[Problem]:
        """Problems that the intervals allow.

        L and σ² have logarithms that are normal on both sides of the value, Δ is anywhere within
        its interval.

        Args:
            count: How many.
            seed: Names the draw.
        """
        rng = np.random.default_rng(_random.key(seed, "constants"))
        L, noise = (_two_sided(one, rng, count) for one in (self.smoothness, self.noise))
        gap = rng.uniform(self.gap.low, self.gap.high, count)
        return [Problem(*map(float, one)) for one in zip(L, noise, gap, strict=True)]


def _two_sided(one: Estimate, rng: np.random.Generator, count: int) -> Float[np.ndarray, " draws"]:
    z = rng.standard_normal(count)
    if one.value == 0:
        return np.zeros(count)
    ends = np.where(z < 0, math.log(one.value / one.low), math.log(one.high / one.value))
    return one.value * np.exp(z * ends / t_quantile((1 + one.level) / 2, 1e9))


@dataclass(frozen=True)
class Place:
    """One schedule in a ranking.

    Attributes:
        name: As asked for.
        bound: Of min E‖∇f‖² at the constants' values, (loss/parameter)²; the interval holds 90 %
            of the draws.
        first: Share of the draws in which no other schedule had a smaller bound.
        updates: Of the whole training.
        proved: Share of the draws in which the step was within the range of the proof.
    """

    name: str
    bound: Estimate
    first: Estimate
    updates: int
    proved: float


@dataclass(frozen=True)
class Ranking:
    """Schedules before training, the smallest bound first.

    Attributes:
        places: One each.
        samples: Examples of every training.
        constants: What it rests on.
        form: ``lemma`` or ``sharp``.
    """

    places: tuple[Place, ...]
    samples: int
    constants: Constants
    form: Form

    def __str__(self) -> str:
        head = f"bounds of the squared gradient norm after {self.samples:,} examples ({self.form})"
        width = max(len(place.name) for place in self.places)
        lines = [
            f"{place.name:<{width}}  {place.bound.value:.3g} ({place.bound.low:.3g} to "
            f"{place.bound.high:.3g})  first in {place.first.value:.0%} of {place.first.n} draws, "
            f"{place.updates:,} updates"
            for place in self.places
        ]
        outside = [p.name for p in self.places if p.proved < 1]
        warned = ["Outside the proved range of rates: " + ", ".join(outside)] if outside else []
        empty = f"A bound above {self.constants.start.value:.3g}, the start's own, says nothing."
        return "\n".join([head, *lines, *warned, empty])


@dataclass(frozen=True)
class ConstantsProbe:
    """Curvature, noise and loss on the same examples at one moment."""

    sharpness: SharpnessProbe
    noise: NoiseProbe
    examples: Examples

    @property
    def name(self) -> str:
        """What this probe measures, in the plan."""
        return f"{self.sharpness.name}; {self.noise.name}; loss"

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """All three as named floats."""
        return {
            **self.sharpness(objective, samples),
            **self.noise(objective, samples),
            "loss.value": self._loss(objective),
        }

    def _loss(self, objective: Objective) -> float:
        """Σwℓ/Σw in evaluation mode."""
        like = next(objective.parameters())
        objective.eval()
        with torch.no_grad():
            parts = [
                weighted_sum(*objective(batch))
                for batch in self.examples.batches(slice(None), EXAMPLES, like)
            ]
        total, weight = (float(sum(part)) for part in zip(*parts, strict=True))
        return total / weight


def measure_constants(
    prepared: Prepared,
    *,
    samples: int | str | None = None,
    points: int = POINTS,
    examples: int = EXAMPLES,
    least_loss: float = 0.0,
    seed: int = 0,
) -> Constants:
    """L, σ² and Δ along the beginning of a task's recipe.

    Args:
        prepared: The task.
        samples: How far to train, such as ``"2ep"``; two passes, or the recipe if it is shorter.
        points: Moments at which to measure, the first before training.
        examples: Training examples on which each is measured, at least 32.
        least_loss: A number that the training loss cannot fall below; 0 for cross-entropy and
            squares.
        seed: Names the run and every draw.

    Returns:
        Each with the interval of the moment at which it was largest, widened to the ends of all.

    Raises:
        UserError: If the model cannot be differentiated twice, the run diverges, or the loss is
            below ``least_loss``.

    Assumes:
        Losses of training mode differ from those of evaluation mode in noise alone.

    Example:
        >>> from batchlab.tasks import load, prepare
        >>> ready = prepare(load("digits"), device="cpu")
        >>> found = measure_constants(ready, samples=640, points=2, examples=64)
        >>> found.moments, found.gap.low < found.gap.value == found.gap.high
        ((0, 640), True)
    """
    if points < 2:
        raise InvalidValueError(must("points", "a whole number, 2 or more", points))
    config = prepared.baseline.replace(seed=seed)
    assert isinstance(config.samples, int)
    asked = f"{PASSES}ep" if samples is None else samples
    end = amount(asked, examples=prepared.examples, name="samples")
    end = min(end, config.samples) if samples is None else end
    config = config.replace(samples=max(end, config.samples))
    end -= end % max(batch_schedule(config.batch_size or 1).sizes)  # the end of a batch
    if not end:
        raise InvalidValueError(must("samples", "at least one batch", samples))
    at = tuple(sorted({round(end * (i / (points - 1)) ** 2) for i in range(points)}))
    probe = ConstantsProbe(
        sharpness_probe(prepared, Settings(examples=examples, probes=0, seed=seed)),
        noise_probe(prepared, config, examples=examples),
        Examples.drawn(prepared.train, examples, seed),
    )
    with Engine(prepared, None, workers=0) as engine:
        run = engine.train([config], Job((0, end), probe, at, until=end))[0].runs[0]
    if run.status is Status.DIVERGED:
        hint = "Lower the learning rate."
        raise InvalidValueError(must("task", "a recipe that does not diverge", run.sentence, hint))
    seen = run.series["loss.value"].samples.tolist()
    named = {name: one.values.tolist() for name, one in run.series.items() if "." in name}
    rows = [{name: values[i] for name, values in named.items()} for i in range(len(seen))]
    return _constants(rows, tuple(seen), least_loss)


def _constants(
    rows: Sequence[Mapping[str, float]], at: tuple[int, ...], least_loss: float
) -> Constants:
    """The largest of each over the moments."""
    losses = [row["loss.value"] for row in rows]
    if min(losses) < least_loss:
        raise InvalidValueError(must("least_loss", f"at most {min(losses):.3g}", least_loss))
    gap = Estimate(
        losses[0] - least_loss,
        losses[0] - min(losses),
        losses[0] - least_loss,
        len(rows),
        "loss",
        SOURCE,
    )
    curved = [_curvature(row) for row in rows]
    met = [from_trace_values(dict(row), samples) for row, samples in zip(rows, at, strict=True)]
    return Constants(
        _largest(curved, "loss/parameter²"),
        _largest([_variance(one) for one in met], "(loss/parameter)²"),
        gap,
        _signal(met[0]),
        at,
    )


def _signal(found: NoiseResult) -> Estimate:
    """‖∇f‖² with its interval; negative where it is not resolved."""
    m, half = found.moments, math.nan
    if m is not None:
        spread = math.sqrt(m.floor + m.slope * max(m.signal, 0.0))
        half = t_quantile((1 + LEVEL) / 2, m.dof) * spread
    ends = found.signal - half, found.signal + half
    return Estimate(found.signal, *ends, found.examples, "(loss/parameter)²", found.method)


def _curvature(row: Mapping[str, float]) -> tuple[float, float, float]:
    """Value and ends: for all the data where a subset was measured."""
    kind = "sampled_1" if "sharpness.sampled_1" in row else "eigenvalue_1"
    value, low, high = (row[f"sharpness.{kind}{end}"] for end in ("", "_low", "_high"))
    return value, max(low, value / 10), high


def _variance(found: NoiseResult) -> tuple[float, float, float]:
    """σ² and its ends, by the interval of its logarithm."""
    if found.moments is None or found.noise <= 0:
        return found.noise, found.noise, found.noise
    share = math.sqrt(found.moments.noise_var) / found.noise
    wide = math.exp(t_quantile((1 + LEVEL) / 2, found.moments.dof) * share)
    return found.noise, found.noise / wide, found.noise * wide


def _largest(found: Sequence[tuple[float, float, float]], unit: str) -> Estimate:
    """The largest of all places; each interval is widened until all hold together."""
    values, lows, highs = zip(*found, strict=True)
    if not max(lows) > 0:
        raise InvalidValueError(must("examples", "enough to resolve L and σ²", found))
    half = (1 - LEVEL) / 2
    wider = t_quantile(1 - half / len(found), 1e9) / t_quantile(1 - half, 1e9)
    low = max(v * (low / v) ** wider for v, low in zip(values, lows, strict=True) if v > 0)
    high = max(v * (high / v) ** wider for v, high in zip(values, highs, strict=True) if v > 0)
    return Estimate(max(values), low, high, len(found), unit, SOURCE)


def rank_schedules(
    task: Task | str,
    schedules: Sequence[int | str | RunConfig],
    *,
    samples: int | str | None = None,
    constants: Constants | None = None,
    form: Form = "lemma",
    draws: int = DRAWS,
    seed: int = 0,
    device: str = "auto",
) -> Ranking:
    """Rank schedules of batch size and learning rate by theory, before training with them.

    A bound says what is guaranteed, not what happens: the order of two that lie close together
    says little, and a rate outside the proved range is said. What it can tell is which schedule
    leaves too much noise, and which makes too few updates, for this task's L, σ² and Δ.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        schedules: Batch sizes or schedules such as ``"0:8 20ep:16"``, in everything else like the
            task's recipe; or whole recipes.
        samples: Budget of every training; the recipe's if left out.
        constants: Of :func:`measure_constants`; measured if left out.
        form: ``lemma``, or ``sharp``; see :func:`batchlab.theory.growing.bound`.
        draws: Draws from the constants' intervals.
        seed: Names the pilot and the draws.
        device: Where to measure.

    Returns:
        A record whose ``str`` is a table.

    Raises:
        UserError: If a recipe is not of the SGD family, re-uses batches or clips gradients, or as
            :func:`measure_constants`.

    Warns:
        ValidityWarning: If a learning rate is larger than the proof allows.

    Assumes:
        No weight decay, or one that changes L and σ² little.

    Source:
        kamo2025, umeda2024, imaizumi2025.

    Example:
        >>> import warnings
        >>> one = Estimate(1.0, 0.5, 2.0, n=4)
        >>> known = Constants(one, one, one, one, moments=(0,))
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     found = rank_schedules("digits", [32, "0:32 10ep:64"], constants=known, draws=100)
        >>> sorted(place.name for place in found.places)
        ['0:32 10ep:64', '32']
    """
    prepared = prepare(load(task) if isinstance(task, str) else task, device=device)
    budget = prepared.baseline.samples if samples is None else samples
    assert budget is not None
    configs = [
        one if isinstance(one, RunConfig) else prepared.baseline.replace(batch_size=one)
        for one in schedules
    ]
    resolved = [one.replace(samples=budget).resolved(prepared.examples) for one in configs]
    end = resolved[0].samples if resolved else 0
    plans = {
        name: plan_of(full, prepared.examples)
        for name, full in zip(_names(configs), resolved, strict=True)
    }
    if not plans or not isinstance(end, int):
        raise InvalidValueError(must("schedules", "at least one", list(schedules)))
    found = constants or measure_constants(prepared, seed=seed)
    weighed = {name: sums(plan, end) for name, plan in plans.items()}
    places = _places(weighed, found, form, found.drawn(draws, seed))
    outside = [place.name for place in places if place.proved < 1]
    if outside:
        words = f"the rate is larger than the proof allows for {', '.join(outside)}"
        warnings.warn(f"Outside the proved range: {words}.", ValidityWarning, stacklevel=2)
    return Ranking(places, end, found, form)


def _names(configs: Sequence[RunConfig]) -> list[str]:
    """What tells the recipes apart: their batch sizes, and the rest where it is needed."""
    names = [_name(config) for config in configs]
    told = [
        name if names.count(name) == 1 else f"{name} ({_rest(config)})"
        for name, config in zip(names, configs, strict=True)
    ]
    twice = next((name for name in told if told.count(name) > 1), None)
    if twice is not None:
        raise InvalidValueError(must("schedules", "different recipes", f"{twice} twice"))
    return told


def _name(config: RunConfig) -> str:
    rate = "" if config.lr_schedule == "constant" else f", {config.lr_schedule}"
    warm = f", warmup {config.warmup:g}" if config.warmup else ""
    grows = f", rate × growth^{config.rate_growth:g}" if config.rate_growth else ""
    peak = "" if config.learning_rate is None else f" at {config.learning_rate:g}"
    return f"{config.batch_size}{peak if rate or warm or grows else ''}{rate}{warm}{grows}"


def _rest(config: RunConfig) -> str:
    """Rule and numbers, as far as they are given."""
    given = {
        "rate": config.learning_rate,
        "momentum": config.momentum,
        "nu": config.nu if config.rule == "qhm" else None,
    }
    numbers = [f"{name} {value:g}" for name, value in given.items() if value is not None]
    return ", ".join([*([config.rule] if config.rule else []), *numbers])


def plan_of(config: RunConfig, examples: int) -> Plan:
    """A recipe as the theory sees it.

    Args:
        config: A resolved run of the SGD family.
        examples: Training examples N.

    Returns:
        Its plan, with the learning rate's schedule, warm-up and growth.

    Raises:
        InvalidValueError: If it re-uses batches or clips, for which nothing is proved.

    Example:
        >>> run = RunConfig(rule="sgd", batch_size="0:8 1ep:32", rate_growth=1.0, samples="2ep")
        >>> plan_of(run.resolved(examples=100), 100).rates(0.75)
        4.0
    """
    if config.reuse != 1 or config.clip_norm is not None:
        words = "without re-use and clipping, for which nothing is proved"
        raise InvalidValueError(must("schedules", words, _name(config)))
    samples, rate = config.samples, config.learning_rate
    assert isinstance(samples, int)
    assert rate is not None
    assert config.batch_size is not None
    rule, momentum = config.rule, config.momentum or 0.0
    step = Step.of(rule, rate, momentum, config.nu)  # pyright: ignore[reportArgumentType]
    batches = batch_schedule(config.batch_size).resolve(examples)
    if config.lr_schedule == "constant" and not config.warmup and not config.rate_growth:
        return Plan(step, batches, None)
    share = config.multiplier(examples)
    return Plan(step, batches, cast(RateSchedule, lambda at: share(round(at * samples))))


def _places(
    weighed: Mapping[str, Sums], found: Constants, form: Form, problems: Sequence[Problem]
) -> tuple[Place, ...]:
    """The bounds at the values, and how they fare over the draws, the same for all."""
    drawn = {name: [evaluated(p, one, form) for p in problems] for name, one in weighed.items()}
    values = np.array([[b.value for b in bounds] for bounds in drawn.values()])
    firsts = (values <= values.min(0)).sum(1)
    places = []
    for row, first, (name, one) in zip(values, firsts.tolist(), weighed.items(), strict=True):
        own = evaluated(found.problem, one, form)
        low, high = np.quantile(row, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
        places.append(
            Place(
                name,
                Estimate(own.value, float(low), float(high), len(row), "(loss/parameter)²", form),
                share_estimate(first, len(row), "draws of L, σ² and Δ"),
                one.updates,
                float(np.mean([b.proved for b in drawn[name]])),
            )
        )
    return tuple(sorted(places, key=lambda place: place.bound.value))
