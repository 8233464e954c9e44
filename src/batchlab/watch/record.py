"""What a watched training leaves behind: one record per line of ``watch.jsonl``, and all of them.

Every line carries the four axes: samples, updates, seconds, money. The kind of a line is the name
under which :data:`KINDS` has its record; its fields are the record's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from batchlab.types import from_plain

FORMAT = 1


class Ending(StrEnum):
    """How a watched training ended."""

    FINISHED = "finished"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Line:
    """Where in the training a line belongs.

    Attributes:
        samples: Examples drawn so far, by all devices together.
        updates: Optimizer steps so far.
        seconds: Wall time so far, evaluation and the like included; what ran before a resume too.
        money: Price of that time, in the currency of :class:`Start`; None without a price.
    """

    samples: int
    updates: int
    seconds: float
    money: float | None


@dataclass(frozen=True, kw_only=True)
class Start(Line):
    """The first line, and one more after every resume, with the counts from which it goes on.

    Attributes:
        format: Version of this format.
        at: When, in UTC, ISO 8601.
        device: Device of the first parameter.
        world_size: Processes that train together.
        optimizer: Name of the optimizer's class.
        sgd: Whether its steps are those of the SGD family, for which the formulas about batch
            sizes are proved.
        parameters: Numbers that are trained.
        price_per_hour: Of the machine.
        currency: Of all money.
        memory_limit: Bytes the training may use; None where unknown.
        memory_source: What says so, or why it is unknown.
        seed: Of this training, as told; None where nobody said.
        settings: What the optimizer holds (rule, learning rate, momentum …), and what was told.
    """

    format: int
    at: str
    device: str
    world_size: int
    optimizer: str
    sgd: bool
    parameters: int
    price_per_hour: float | None
    currency: str
    memory_limit: int | None
    memory_source: str
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Moment(Line):
    """What happened since the moment before it.

    Attributes:
        loss: Mean over the examples since then; None where no loss was told, NaN where one was not
            finite.
        diverged: First update since then whose loss was not finite.
        waiting: Seconds of waiting for data, in all; on a GPU those in which it had nothing to do.
        working: Seconds between getting a batch and being done with it, in all.
        memory: Largest use of memory so far, bytes; None where unknown.
        micro_batch_size: Examples of one batch of the loader on one device, the most frequent.
        accumulation: Such batches to one update, the most frequent.
        learning_rate: Largest of any parameter group so far; None where it was not read, or told.
        training: Seconds of waiting and working by the program's own clock, in all: wall time
            without evaluation, saving and the like. None in older files.
        population: Examples of the data set; None where unknown.
    """

    loss: float | None
    diverged: int | None
    waiting: float
    working: float
    memory: int | None
    micro_batch_size: int
    accumulation: int
    learning_rate: float | None = None
    training: float | None = None
    population: int | None = None


@dataclass(frozen=True, kw_only=True)
class MetricPoint(Line):
    """A metric that the training told.

    Attributes:
        name: Such as ``accuracy``.
        value: NaN where it was not a number.
        maximise: Whether more is better; None where nobody said.
        training: As in :class:`Moment`.
    """

    name: str
    value: float
    maximise: bool | None
    training: float | None = None


@dataclass(frozen=True, kw_only=True)
class NoiseBlock(Line):
    """Signal and noise of the gradient in some updates near each other.

    Each update gives one unbiased pair (S, N); these are means, variances and the covariance of
    the pairs. N/S, the noise scale, is to be formed from means over blocks, never a mean of
    ratios.

    Attributes:
        method: ``per example``, ``micro-batches`` or ``processes``.
        pairs: Updates n.
        signal: Mean S, estimate of ‖G‖², (loss/parameter)²; may be negative.
        noise: Mean N, estimate of tr Σ, (loss/parameter)².
        signal_var: Variance of one S.
        noise_var: Variance of one N.
        covariance: Of one S with one N.
        batch_size: Examples of one such update on this device.
        covered: Share of the trained numbers whose gradient this is.
        population: Examples of the data set, where they are drawn without replacement.
    """

    method: str
    pairs: int
    signal: float
    noise: float
    signal_var: float
    noise_var: float
    covariance: float
    batch_size: int
    covered: float
    population: int | None


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Line):
    """The training was saved here.

    Attributes:
        step: The training's own count of steps.
    """

    step: int


class About(StrEnum):
    """What a note is about."""

    NO_NOISE = "no noise scale"
    PART_OF_NOISE = "noise scale of a part"
    COUNTS = "counts"


@dataclass(frozen=True, kw_only=True)
class Note(Line):
    """What could not be measured, or was assumed.

    Attributes:
        about: What it is about.
        text: A clause: the reason, or the assumption.
    """

    about: About
    text: str


@dataclass(frozen=True, kw_only=True)
class End(Line):
    """The last line of a training that was not killed.

    Attributes:
        ending: Whether its block ended by itself.
    """

    ending: Ending


KINDS: dict[str, type[Line]] = {
    "start": Start,
    "moment": Moment,
    "metric": MetricPoint,
    "noise": NoiseBlock,
    "checkpoint": Checkpoint,
    "note": Note,
    "end": End,
}


@dataclass(frozen=True)
class BatchSize:
    """A global batch and what it is made of.

    Attributes:
        micro: Examples of one batch of the loader on one device.
        accumulation: Such batches to one update.
        world_size: Devices.

    Example:
        >>> print(BatchSize(micro=16, accumulation=4, world_size=1))
        64 = 16 × 4 × 1
    """

    micro: int
    accumulation: int
    world_size: int

    @property
    def whole(self) -> int:
        """The global batch size, examples to one update."""
        return self.micro * self.accumulation * self.world_size

    def __str__(self) -> str:
        return f"{self.whole:,} = {self.micro:,} × {self.accumulation} × {self.world_size}"


@dataclass(frozen=True)
class Watched:
    """A watched training, finished or not. What a resume trained again is left out.

    Attributes:
        starts: At least one; the last is what holds.
        moments: In order.
        metrics: In order.
        noise: In order.
        checkpoints: In order.
        notes: In order.
        end: None while it runs, and where it was killed.
    """

    starts: tuple[Start, ...]
    moments: tuple[Moment, ...] = ()
    metrics: tuple[MetricPoint, ...] = ()
    noise: tuple[NoiseBlock, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    notes: tuple[Note, ...] = ()
    end: End | None = None

    @property
    def last(self) -> Line:
        """The line that came furthest."""
        ends = [self.end] if self.end else []
        parts = (self.starts, self.moments, self.metrics, self.noise, self.checkpoints, ends)
        return max((part[-1] for part in parts if part), key=lambda line: line.seconds)

    @property
    def batch(self) -> BatchSize | None:
        """The batch of most moments in the second half of the training; None before the first."""
        late = [m for m in self.moments if 2 * m.samples > self.last.samples] or self.moments
        sizes = Counter((m.micro_batch_size, m.accumulation) for m in late)
        if not sizes:
            return None
        (micro, accumulation), _ = sizes.most_common(1)[0]
        return BatchSize(micro, accumulation, self.starts[-1].world_size)

    @property
    def diverged(self) -> int | None:
        """The first update whose loss was not finite."""
        return next((m.diverged for m in self.moments if m.diverged is not None), None)


def gathered(lines: Iterable[Line]) -> Watched:
    """The training that these lines tell of.

    A :class:`Start` with fewer updates than lines before it has takes those lines back: that part
    was trained again.

    Args:
        lines: In the order of the file, the first of them a start.

    Returns:
        The record.
    """
    found = Watched(())
    for line in lines:
        match line:
            case Start():
                found = replace(_until(found, line.updates), starts=(*found.starts, line))
            case End():
                found = replace(found, end=line)
            case _:
                name = _NAMES[type(line)]
                found = replace(found, **{name: (*getattr(found, name), line)})
    return found


_NAMES: dict[type[Line], str] = {
    Moment: "moments",
    MetricPoint: "metrics",
    NoiseBlock: "noise",
    Checkpoint: "checkpoints",
    Note: "notes",
}


def _until(found: Watched, updates: int) -> Watched:
    """The same without what lies after so many updates."""
    kept = {
        name: tuple(line for line in getattr(found, name) if line.updates <= updates)
        for name in _NAMES.values()
    }
    return replace(found, end=None, **kept)


def line_of(plain: dict[str, object]) -> Line:
    """A line from what JSON holds of it.

    Args:
        plain: Fields and ``kind``.

    Returns:
        The record.

    Raises:
        KeyError: If the kind is none of :data:`KINDS`.
        TypeError: If a field is absent.

    Example:
        >>> axes = {"samples": 8, "updates": 1, "seconds": 0.5, "money": None}
        >>> line_of(axes | {"kind": "checkpoint", "step": 1}).samples
        8
    """
    return from_plain(KINDS[str(plain["kind"])], plain)
