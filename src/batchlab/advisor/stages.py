"""What each stage leaves behind: plain records, written when a stage ends, read when it is
resumed.

What depends on the machine (:class:`Machine`) is apart from what does not, so that a result can be
judged again for another machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
from jaxtyping import Float

from batchlab.advisor.candidates import Proposal
from batchlab.config import RunConfig
from batchlab.engine import RunResult
from batchlab.measure.fit import FitResult
from batchlab.measure.insight import Insight
from batchlab.measure.noise import NoiseResult
from batchlab.measure.sturdiness import Survey
from batchlab.measure.throughput import Block
from batchlab.schedules import batch_schedule, sizes_of
from batchlab.stats import LogMean, log_mean
from batchlab.types import Status

Blocks: TypeAlias = dict[str, tuple[Block, ...]]
"""Batch size (as text, for JSON) → timed blocks of a run, alone or on processes together."""


@dataclass(frozen=True)
class Machine:
    """What depends on the machine.

    Attributes:
        fit: What fits in memory, or None if not measured.
        blocks: Of a run as the user trains it: alone, or on several processes together.
        threads: Torch threads of the plain loop.
        device: ``cpu``, ``cuda`` …
        name: The processor or accelerator in words.
        cores: Processor cores.
        task: The task that was timed; empty if not known.
        wrapped: The same blocks of the model with a γ; none where no γ was tried, and where
            today's model has one.
    """

    fit: FitResult | None
    blocks: Blocks
    threads: int
    device: str
    name: str
    cores: int
    task: str = ""
    wrapped: Blocks = field(default_factory=dict)

    def after(self, timed: Mapping[str, int], wrapped: Mapping[str, int]) -> Machine:
        """The same machine with the first so many blocks of each batch size left out. A size that
        was not timed again keeps its last block, whose spread then counts as not known.
        """
        kept = _later(self.blocks, timed), _later(self.wrapped, wrapped)
        return replace(self, blocks=kept[0], wrapped=kept[1])

    def seconds(self, batch_size: int, wrapped: bool = False) -> LogMean | None:
        """Seconds per update over blocks, of a model with γ or without; None if nothing was
        timed.
        """
        return seconds_at(self._blocks(wrapped), batch_size)

    def loading(self, batch_size: int, wrapped: bool = False) -> float:
        """Share of an update in which its batch was read, by the nearest size that was timed."""
        known = self._blocks(wrapped)
        nearest = min(known, key=lambda size: abs(int(size) - batch_size))
        blocks = known[nearest]
        return sum(b.loader_seconds for b in blocks) / sum(b.seconds for b in blocks)

    def _blocks(self, wrapped: bool) -> Blocks:
        return self.wrapped if wrapped and self.wrapped else self.blocks


def _later(blocks: Blocks, timed: Mapping[str, int]) -> Blocks:
    return {size: known[timed.get(size, 0) :] or known[-1:] for size, known in blocks.items()}


def seconds_at(blocks: Mapping[str, Sequence[Block]], batch_size: int) -> LogMean | None:
    """Seconds per update at a batch size; one that was not timed lies on the line through its
    neighbours.

    Args:
        blocks: Batch size (as text) → timed blocks.
        batch_size: Examples.

    Returns:
        The geometric mean with its spread, that of the less certain neighbour where there are two;
        None if nothing was timed.
    """
    known = {
        int(size): log_mean(np.array([b.seconds / b.updates for b in timed]))
        for size, timed in blocks.items()
    }
    if batch_size in known or not known:
        return known.get(batch_size)
    below = max((size for size in known if size < batch_size), default=None)
    above = min((size for size in known if size > batch_size), default=None)
    if below is None or above is None:
        nearest = max(known) if above is None else min(known)
        return known[nearest]._replace(value=known[nearest].value * max(1.0, batch_size / nearest))
    share = (batch_size - below) / (above - below)
    value = known[below].value + share * (known[above].value - known[below].value)
    return max(known[below], known[above], key=lambda mean: mean.log_var)._replace(value=value)


def parts_of(
    batch_size: int | str, samples: Float[np.ndarray, " n"], examples: int | None
) -> list[tuple[int, Float[np.ndarray, " n"]]]:
    """How many of the first samples are drawn at each size.

    Args:
        batch_size: Examples per update, or a schedule.
        samples: Examples drawn in all, each 0 or more; may be infinite.
        examples: Training examples, to which positions in epochs refer; None where there are none.

    Returns:
        (size, samples drawn at it) of every step, in order.

    Example:
        >>> parts_of("0:8 2ep:16", np.array([250.0]), examples=100)
        [(8, array([200.])), (16, array([50.]))]
    """
    schedule = batch_schedule(batch_size)
    if examples is not None:
        schedule = schedule.resolve(examples)
    ends = [*(start for start, _ in schedule.starts[1:]), math.inf]
    return [
        (size, np.clip(samples - start, 0, end - start))
        for (start, size), end in zip(schedule.starts, ends, strict=True)
    ]


def micro_of(batch_size: int | str, fit: FitResult | None, ran: int) -> int | None:
    """The micro-batch of a batch above what fits: the largest that cuts every size above it
    evenly.

    Args:
        batch_size: Examples per update, or a schedule.
        fit: What fits in memory, or None if not measured.
        ran: A batch size that is trained whole whatever was measured: today's largest.

    Returns:
        Examples of a forward pass; None for whole batches.

    Example:
        >>> fit = FitResult(100, "memory", 0, "", 0, ())
        >>> micro_of("0:8 1ep:32 2ep:128", fit, ran=8), micro_of(32, fit, ran=8)
        (64, None)
    """
    sizes, most = sizes_of(batch_size), 0 if fit is None else max(fit.largest, ran)
    if fit is None or max(sizes) <= most:
        return None
    above = [size for size in sizes if size > most]
    return next(m for m in range(most, 0, -1) if not any(size % m for size in above))


class Grown(NamedTuple):
    """A batch that grows, with its learning rate: what a candidate of constant size needs no word
    for stands here.

    Attributes:
        batch_size: Schedule.
        learning_rate: Peak rate at its first size.
        rate_growth: Power with which the rate follows the batch.
        lr_schedule: Today's, or ``constant``.
    """

    batch_size: str
    learning_rate: float
    rate_growth: float
    lr_schedule: str


Others: TypeAlias = tuple[tuple[str, Any], ...]
"""Fields of a run besides batch size and learning rate, with their values."""


class Tuned(NamedTuple):
    """A constant batch size of which more than the learning rate was searched.

    Attributes:
        batch_size: Examples.
        learning_rate: Peak rate.
        others: The fields that differ from today's, at least one.
    """

    batch_size: int
    learning_rate: float
    others: Others


Choice: TypeAlias = tuple[int, float] | Grown | Tuned
"""A setting that may be advised: (batch size, learning rate), a batch that grows, or a setting of
which more was searched."""
Today: TypeAlias = tuple[int, float] | Grown
"""The setting of a baseline: one batch size, or a batch that grows."""
Pace: TypeAlias = int | str | Tuned
"""What decides how long a sample takes: a batch size, a schedule of them, or a setting that has
updates per batch or a γ of its own."""


def today_of(baseline: RunConfig) -> Today:
    """The setting of a recipe.

    Args:
        baseline: Names its batch size and learning rate.

    Example:
        >>> today_of(RunConfig(batch_size=64, learning_rate=0.2))
        (64, 0.2)
        >>> today_of(RunConfig(batch_size="0:16 1ep:64", learning_rate=0.2))[:3]
        ('0:16 1ep:64', 0.2, 0.0)
    """
    size, rate = baseline.batch_size, baseline.learning_rate
    assert size is not None
    assert rate is not None
    schedule = batch_schedule(size)
    if schedule.is_constant:
        return schedule.sizes[0], rate
    return Grown(str(size), rate, baseline.rate_growth, baseline.lr_schedule)


def others_of(choice: Choice) -> Others:
    """What a setting has besides batch size and learning rate.

    Example:
        >>> others_of((64, 0.2)), others_of(Tuned(64, 0.2, (("momentum", 0.95),)))
        ((), (('momentum', 0.95),))
    """
    return choice.others if isinstance(choice, Tuned) else ()


def pace_of(choice: Choice) -> Pace:
    """What decides how long a sample takes under a setting.

    Example:
        >>> pace_of((64, 0.2)), pace_of(Tuned(64, 0.2, (("reuse", 2),))).others
        (64, (('reuse', 2),))
    """
    return choice if isinstance(choice, Tuned) else choice[0]


def reused(batch_size: int, learning_rate: float, reuse: int) -> Tuned:
    """A setting whose batches serve for other numbers of updates than today's.

    Example:
        >>> reused(64, 0.2, 4).others
        (('reuse', 4),)
    """
    return Tuned(batch_size, learning_rate, (("reuse", reuse),))


def reuse_of(choice: Choice) -> int:
    """Updates on each batch where a setting has a number of its own, 0 where it is today's.

    Example:
        >>> reuse_of(reused(64, 0.2, 4)), reuse_of((64, 0.2))
        (4, 0)
    """
    return int(dict(others_of(choice)).get("reuse", 0))


def gamma_of(setting: Choice | Pace) -> float | None:
    """γ where a setting has one of its own, None where the model is as today.

    Example:
        >>> gamma_of(Tuned(64, 0.2, (("gamma", 10.0),))), gamma_of((64, 0.2)), gamma_of(64)
        (10.0, None, None)
    """
    return dict(setting.others).get("gamma") if isinstance(setting, Tuned) else None


def strengthened(batch_size: int, learning_rate: float, gamma: float) -> Tuned:
    """A setting whose model is centred at its start and divided by γ.

    Example:
        >>> strengthened(64, 0.2, 10.0).others
        (('gamma', 10.0),)
    """
    return Tuned(batch_size, learning_rate, (("gamma", gamma),))


def goes_by_size(choice: Choice) -> TypeGuard[tuple[int, float] | Tuned]:
    """Whether time and learning rate of a setting follow from its batch size alone: it neither
    grows its batch nor uses it again, and has no γ of its own.

    Example:
        >>> goes_by_size((64, 0.2)), goes_by_size(Tuned(64, 0.2, (("gamma", 10.0),)))
        (True, False)
    """
    return not (isinstance(choice, Grown) or reuse_of(choice) or gamma_of(choice) is not None)


def size_and_reuse(pace: Pace, usual: int) -> tuple[int | str, int]:
    """Batch size, and updates on each batch.

    Args:
        pace: What decides how long a sample takes.
        usual: Updates on each batch today.

    Example:
        >>> size_and_reuse(64, 1), size_and_reuse(Tuned(64, 0.2, (("reuse", 2),)), 1)
        ((64, 1), (64, 2))
    """
    if not isinstance(pace, Tuned):
        return pace, usual
    return pace.batch_size, dict(pace.others).get("reuse", usual)


def choice_of(plain: Sequence[Any]) -> Choice:
    """A setting as it stands in a plan or record.

    Example:
        >>> choice_of([64.0, 0.2]), choice_of(["0:8 2ep:16", 0.1, 0.5, "cosine"]).rate_growth
        ((64, 0.2), 0.5)
        >>> choice_of([64, 0.2, [["momentum", 0.95]]]).others
        (('momentum', 0.95),)
    """
    if isinstance(plain[0], str):
        return Grown(*plain)
    if len(plain) > 2:
        return Tuned(int(plain[0]), float(plain[1]), tuple((n, v) for n, v in plain[2]))
    return int(plain[0]), float(plain[1])


def all_sizes(choices: Iterable[Choice]) -> list[int]:
    """Every batch size that settings train with, ascending.

    Example:
        >>> all_sizes([(64, 0.2), Grown("0:8 2ep:16", 0.1, 0.0, "constant")])
        [8, 16, 64]
    """
    return sorted({size for choice in choices for size in sizes_of(choice[0])})


@dataclass(frozen=True)
class Screening:
    """Stage A.

    Attributes:
        proposals: Candidate batch sizes and reasons.
        noise: Noise scale along the short baseline run.
        checkpoint_samples: Where that run ended: the common checkpoint of stage B.
        evaluation_seconds: One evaluation on validation data.
        engine_factor: Seconds of an update in the engine / seconds of one in the plain loop.
        evaluated: Whether that run was evaluated, which the budget may not pay for.
    """

    proposals: tuple[Proposal, ...]
    noise: tuple[NoiseResult, ...]
    checkpoint_samples: int
    evaluation_seconds: float
    engine_factor: float
    evaluated: bool = True


@dataclass(frozen=True)
class Curve:
    """One run, as far as decisions need it.

    Attributes:
        batch_size: Examples, or a schedule.
        learning_rate: Peak rate.
        seed: Seed.
        status: How it ended.
        samples: Evaluations: examples seen, shape ``[T]``.
        updates: Updates done.
        loss: Validation loss.
        metric: Validation metric.
        rung: Last rung of the search, from 0.
        test: Metric on test data at the end, or None.
        rate_growth: Power with which the rate follows a batch that grows.
        lr_schedule: Of a batch that grows; empty for a constant one, which has today's.
        others: What else differs from today's, of a constant batch.
    """

    batch_size: int | str
    learning_rate: float
    seed: int
    status: Status
    samples: tuple[int, ...]
    updates: tuple[int, ...]
    loss: tuple[float, ...]
    metric: tuple[float, ...]
    rung: int = 0
    test: float | None = None
    rate_growth: float = 0.0
    lr_schedule: str = ""
    others: Others = ()

    @property
    def choice(self) -> Choice:
        """The setting it is a run of."""
        if isinstance(self.batch_size, int):
            pair = self.batch_size, self.learning_rate
            return Tuned(*pair, self.others) if self.others else pair
        return Grown(self.batch_size, self.learning_rate, self.rate_growth, self.lr_schedule)

    @property
    def pace(self) -> Pace:
        """What decides how long its samples take."""
        return pace_of(self.choice)

    @staticmethod
    def of(
        run: RunResult,
        batch_size: int | str,
        rung: int = 0,
        test: float | None = None,
        others: Others = (),
    ) -> Curve:
        """The decisive part of a finished run; a diverged run's curve ends in NaN."""
        loss, metric = run.series["loss"], run.series["metric"]
        assert run.config.learning_rate is not None
        lost = (math.nan,) if run.status is Status.DIVERGED else ()
        grows = isinstance(batch_size, str)
        return Curve(
            batch_size,
            run.config.learning_rate,
            run.config.seed,
            run.status,
            tuple(loss.samples.tolist()) + ((run.samples,) if lost else ()),
            tuple(loss.updates.tolist()) + ((run.updates,) if lost else ()),
            tuple(loss.values.tolist()) + lost,
            tuple(metric.values.tolist()) + lost,
            rung,
            test,
            run.config.rate_growth if grows else 0.0,
            run.config.lr_schedule if grows else "",
            others,
        )

    def joined(self, later: Curve) -> Curve:
        """This curve and the one that went on from its end."""
        return Curve(
            self.batch_size,
            self.learning_rate,
            self.seed,
            later.status,
            self.samples + later.samples[1:],
            self.updates + later.updates[1:],
            self.loss + later.loss[1:],
            self.metric + later.metric[1:],
            later.rung,
            later.test,
            self.rate_growth,
            self.lr_schedule,
            self.others,
        )


@dataclass(frozen=True)
class Projection:
    """Stage B.

    Attributes:
        start: Samples of the common checkpoint.
        end: Samples at which every last rung ends.
        curves: Every batch size, learning rate and seed that was tried.
        best: Batch size (as text) → its tuned learning rate.
        late: The best of each batch size again from half of the run, empty if not repeated.
        late_start: Where that began.
        unpaid: Proposed batch sizes that the budget did not pay for.
    """

    start: int
    end: int
    curves: tuple[Curve, ...]
    best: dict[str, float]
    late: tuple[Curve, ...] = ()
    late_start: int = 0
    unpaid: tuple[int, ...] = ()


@dataclass(frozen=True)
class Confirmation:
    """Stage C.

    Attributes:
        target: Value that counts as trained.
        chosen_by: ``user`` or ``baseline``.
        choosing: Runs on the choosing seeds: the baseline, the finalists, and the batch changed
            alone.
        finalists: Settings that could win, each a :data:`Choice`.
        chosen: The best alternative to today's settings, fixed before the fresh seeds.
        today_chosen: Whether today's settings did better still on the choosing seeds: then nothing
            is changed.
        timed: Batch size (as text) → timed blocks that helped to choose and are left out of the
            comparison.
        timed_wrapped: The same of blocks with γ.
        today: Baseline runs on fresh seeds.
        recommended: The recommendation's runs on the same seeds.
        batch_only: The recommended batch size with today's learning rate, choosing seeds.
        growers: On fresh seeds, the best batch that grows and its best rival of constant size, as
            far as they are neither today's settings nor the recommendation; empty where the budget
            did not pay for them.
    """

    target: float
    chosen_by: str
    choosing: tuple[Curve, ...]
    finalists: tuple[tuple[Any, ...], ...]
    chosen: tuple[Any, ...]
    today_chosen: bool
    timed: dict[str, int]
    today: tuple[Curve, ...]
    recommended: tuple[Curve, ...]
    batch_only: tuple[Curve, ...] = ()
    growers: tuple[Curve, ...] = ()
    timed_wrapped: dict[str, int] = field(default_factory=dict)

    @property
    def choice(self) -> Choice:
        """The best alternative."""
        return choice_of(self.chosen)


@dataclass(frozen=True)
class Pilot:
    """What was tried of batches that grow, before stage C.

    Attributes:
        why_not: Why nothing was: a code of :class:`batchlab.advisor.record.Growing`; empty where
            it was.
        seconds: What it would take, where the budget did not pay for it.
        samples: Length of its trainings.
        policies: Schedule over a whole training → the rules that gave it.
        noise: Noise scale along today's settings.
        curves: Every run; the schedules in them are those of the pilot's own length.
        best: The best over a whole training, best first, each a :data:`Choice`.
        lemma: Growth of the learning rate with the smallest bound for the best schedule, or None.
    """

    why_not: str = ""
    seconds: float | None = None
    samples: int = 0
    policies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    noise: tuple[NoiseResult, ...] = ()
    curves: tuple[Curve, ...] = ()
    best: tuple[tuple[Any, ...], ...] = ()
    lemma: float | None = None


@dataclass(frozen=True)
class Echoes:
    """What was tried of batches that are used several times, before stage C.

    Attributes:
        why_not: Why nothing was: a code of :class:`batchlab.advisor.record.Reusing`; empty where
            it was.
        seconds: What it would take, where the budget did not pay for it.
        price: Of a fresh sample, in units of computing one example.
        samples: Length of its trainings.
        curves: Every run.
        best: The best of each number of uses, best first, each a :data:`Choice`.
    """

    why_not: str = ""
    seconds: float | None = None
    price: float = 0.0
    samples: int = 0
    curves: tuple[Curve, ...] = ()
    best: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True)
class Strengths:
    """What was tried of feature-learning strengths, before stage C.

    Attributes:
        why_not: Why nothing was: a code of :class:`batchlab.advisor.record.Strengthening`; empty
            where it was.
        seconds: What it would take, where the budget did not pay for it.
        samples: Length of its trainings.
        curves: Every run.
        best: The best γ with its learning rate, a :data:`Choice`, or nothing.
    """

    why_not: str = ""
    seconds: float | None = None
    samples: int = 0
    curves: tuple[Curve, ...] = ()
    best: tuple[tuple[Any, ...], ...] = ()


@dataclass(frozen=True)
class Trial:
    """One setting of the search over all settings.

    Attributes:
        values: Name of what is tuned → value.
        generation: With which others it was proposed, from 0.
        scores: At the end of each rung it ran log(what it takes / what today's settings take), for
            ``accuracy`` what it loses in the metric; infinite where it did not learn half as much.
        status: How it ended.
    """

    values: dict[str, Any]
    generation: int
    scores: tuple[float, ...]
    status: Status

    @property
    def rung(self) -> int:
        """Last rung it ran, from 0."""
        return len(self.scores) - 1

    @property
    def value(self) -> float:
        """How it did there."""
        return self.scores[-1]


@dataclass(frozen=True)
class Tuning:
    """The search over all settings, which takes the place of stage B.

    Attributes:
        names: What was tuned.
        rungs: Samples at which each rung ends.
        trials: Every setting, in the order in which they were proposed; the first is today's.
        today: Today's settings over the whole training.
        best: The best that ran to the end, best first, each a :data:`Choice`.
        importance: Name → share of the differences between settings that it explains; empty where
            too few were tried.
        ended: Whether it went as far as the budget paid; else it was interrupted.
    """

    names: tuple[str, ...]
    rungs: tuple[int, ...]
    trials: tuple[Trial, ...]
    today: Curve
    best: tuple[tuple[Any, ...], ...] = ()
    importance: dict[str, float] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class OnAll:
    """The finalist pair on all data, after the stages on a part of it.

    Attributes:
        examples: Training examples, all of them.
        samples: Length of a training on them.
        blocks: Batch size (as text) → timed blocks of a run on all data.
        today: Runs of today's settings on fresh seeds.
        recommended: Runs of the best alternative on the same seeds.
        wrapped: Blocks with γ on all data.
    """

    examples: int
    samples: int
    blocks: Blocks
    today: tuple[Curve, ...]
    recommended: tuple[Curve, ...]
    wrapped: Blocks = field(default_factory=dict)


@dataclass(frozen=True)
class Records:
    """Everything measured so far; ``elsewhere``: the machine is not the one that trained."""

    machine: Machine | None = None
    screening: Screening | None = None
    projection: Projection | None = None
    confirmation: Confirmation | None = None
    wall_seconds: float = 0.0
    partial: bool = False
    said: tuple[str, ...] = field(default_factory=tuple)
    on_all: OnAll | None = None
    survey: Survey | None = None
    insight: Insight | None = None
    pilot: Pilot | None = None
    echoes: Echoes | None = None
    tuning: Tuning | None = None
    strengths: Strengths | None = None
    elsewhere: bool = False
