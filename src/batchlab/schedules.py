"""Schedules: samples seen → batch size, share of the budget → multiplier of a rate.

A batch schedule is text such as ``"0:8 20ep:16 40ep:32"``: from the first sample on 8, from epoch
20 on 16. Positions are plain samples, thousands (``50k``), millions (``1.5M``), epochs
(``2.5ep``) or updates (``100upd``). A position that falls between two samples, such as half an
epoch of 101 examples, means the next whole sample: a schedule is read at the first sample of a
batch, so nothing lies between.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from batchlab.errors import InvalidTypeError, InvalidValueError, must

UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
"""Multiples of one sample; ``ep`` and ``upd`` need the data set and the schedule."""

_NUMBER = r"\d{1,18}(?:\.\d{1,18})?"
_POSITION = re.compile(rf"(?P<value>{_NUMBER})(?P<unit>ep|upd|k|M)?", re.ASCII)
_FLOAT = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_CALL = re.compile(r"(?P<name>[a-z_]+)(?:\((?P<argument>[^()]*)\))?", re.ASCII)
_POSITION_WORDS = "a position such as 0, 5000, 50k, 1.5M, 20ep or 100upd"
_BATCH_WORDS = "a whole number, 1 or more, or text such as '0:8 20ep:16 40ep:32'"


# Positions


@dataclass(frozen=True)
class Position:
    """A point in the stream of samples, as it was written.

    Attributes:
        value: The number before the unit, 0 or more.
        unit: ``""`` (samples), ``k``, ``M``, ``ep`` or ``upd``.

    Example:
        >>> str(Position(Fraction(5, 2), "ep"))
        '2.5ep'
    """

    value: Fraction
    unit: str = ""

    def __str__(self) -> str:
        return f"{_decimal(self.value)}{self.unit}"


def parse_position(text: str, name: str = "position") -> Position:
    """Read a position.

    Args:
        text: Digits, perhaps a decimal point, perhaps ``ep``, ``upd``, ``k`` or ``M``.
        name: What the user calls it, for the error.

    Returns:
        The position. Zero loses its unit: ``0ep`` is ``0``.

    Raises:
        InvalidValueError: If the text is something else, or updates or samples are not whole.

    Example:
        >>> parse_position("1.5M").value, parse_position("1.5M").unit
        (Fraction(3, 2), 'M')
    """
    match = _POSITION.fullmatch(text)
    if match is None:
        raise InvalidValueError(must(name, _POSITION_WORDS, text))
    value, unit = Fraction(match["value"]), match["unit"] or ""
    if unit != "ep" and (value * UNITS.get(unit, 1)).denominator != 1:
        raise InvalidValueError(must(name, "a whole number of samples or updates", text))
    return Position(value, unit if value else "")


def amount(value: int | str, *, examples: int, name: str) -> int:
    """A number of samples, written as such or in epochs.

    Args:
        value: Samples, at least 1, or text: ``1000``, ``50k``, ``1.5M``, ``20ep``.
        examples: Examples in the data set N, at least 1: the length of an epoch.
        name: The argument as the user typed it, for the error.

    Returns:
        Samples, at least 1. Part of an epoch that is not a whole number of samples is rounded up.

    Raises:
        InvalidValueError: If the text is not an amount, is zero, or counts updates.
        InvalidTypeError: If it is neither a whole number nor text.

    Example:
        >>> [amount(text, examples=1000, name="samples") for text in ("20ep", "50k")]
        [20000, 50000]
    """
    _must_have_examples(examples)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidTypeError(must(name, "a whole number or text such as '20ep'", value))
    match = _POSITION.fullmatch(value.strip()) if isinstance(value, str) else None
    if isinstance(value, str) and (match is None or match["unit"] == "upd"):
        words = "a number of samples such as 1000, 50k, 1.5M or 20ep"
        raise InvalidValueError(must(name, words, value))
    position = parse_position(str(value).strip(), name) if match else Position(Fraction(value))
    samples = math.ceil(position.value * _samples_per(position.unit, examples))
    if samples < 1:
        raise InvalidValueError(must(name, "at least 1 sample", value))
    return samples


# Batch schedules


class Step(NamedTuple):
    """From this position on, this batch size."""

    start: Position
    size: int


class Progress(NamedTuple):
    """Batches begun, the sample at which the next one starts, the size of the last (0: none)."""

    updates: int
    samples: int
    last: int


class Micro(NamedTuple):
    """How the batches of a step come about.

    Attributes:
        start: Where the step begins.
        size: The batch, all processes together.
        micro_batch_size: Examples of one forward pass, at most.
        accum_steps: Forward passes of an update.
    """

    start: Position
    size: int
    micro_batch_size: int
    accum_steps: int


@dataclass(frozen=True)
class BatchSchedule:
    """The batch size as a function of the samples drawn. Made by :func:`batch_schedule`.

    Attributes:
        steps: Where each size begins; the first at 0, positions rising, sizes at least 1.

    Example:
        >>> schedule = batch_schedule("0:8 20ep:16").resolve(examples=100)
        >>> str(schedule), schedule.at(1999), schedule.at(2000)
        ('0:8 2000:16', 8, 16)
    """

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        if len(self.steps) == 1:
            return str(self.steps[0].size)
        return " ".join(f"{step.start}:{step.size}" for step in self.steps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Batch sizes in the order of use, examples."""
        return tuple(step.size for step in self.steps)

    @property
    def is_constant(self) -> bool:
        """Whether there is only one size."""
        return len(set(self.sizes)) == 1

    @property
    def ends(self) -> str:
        """The first and the last size, or the one there is: ``8→64``."""
        first, last = self.sizes[0], self.sizes[-1]
        return str(first) if len(self.steps) == 1 else f"{first}→{last}"

    def resolve(self, examples: int) -> BatchSchedule:
        """The same schedule with every position in samples.

        A position in updates becomes the first sample of that update, counted from 0 at the sizes
        in force until then, batches running across the ends of passes.

        Args:
            examples: Examples in the data set N, at least 1.

        Returns:
            A schedule that can be read by :meth:`at`, :meth:`updates` and :meth:`count`.

        Raises:
            InvalidValueError: If the positions do not rise once they are in samples.

        Example:
            >>> str(batch_schedule("0:8 100upd:16 20ep:32").resolve(examples=100))
            '0:8 800:16 2000:32'
        """
        _must_have_examples(examples)
        steps: tuple[Step, ...] = ()
        for step in self.steps:
            start = _in_samples(step, BatchSchedule(steps), examples)
            if steps and start <= steps[-1].start.value:
                raise InvalidValueError(_must_rise(step, f"sample {start} of {examples} a pass"))
            steps += (Step(Position(Fraction(start)), step.size),)
        return BatchSchedule(steps)

    def at(self, samples: int) -> int:
        """Size of the batch whose first sample has this place in the stream.

        Args:
            samples: Samples drawn before the batch, 0 or more.

        Returns:
            Batch size, examples.

        Raises:
            InvalidValueError: If ``samples`` is negative or a position is in epochs or updates.

        Example:
            >>> batch_schedule("0:8 1k:16").at(1000)
            16
        """
        _must_not_be_negative("samples", samples)
        return next(size for start, size in reversed(self.starts) if start <= samples)

    def updates(self, start: int, budget: int) -> Iterator[tuple[int, int]]:
        """The batches between two places in the stream.

        What is left before the end and is smaller than the next batch is not trained.

        Args:
            start: Samples drawn before the first of these batches, 0 or more.
            budget: Samples at which training ends, counted from the beginning of the stream, not
                from ``start``.

        Returns:
            Iterator over (first sample, batch size).

        Raises:
            InvalidValueError: If ``start`` is negative or a position is in epochs or updates.

        Example:
            >>> list(batch_schedule("0:2 4:3").updates(0, 8))
            [(0, 2), (2, 2), (4, 3)]
        """
        _must_not_be_negative("start", start)
        return self._walk(self.starts, start, budget)

    def count(self, start: int, budget: int) -> int:
        """Number of :meth:`updates`, without listing them.

        Example:
            >>> batch_schedule("0:2 4:3").count(0, 8)
            3
        """
        begun = self.progress(start, budget)
        return max(0, begun.updates - (begun.samples > budget))

    def progress(self, start: int, end: int) -> Progress:
        """Count the batches whose first sample lies in [start, end).

        Takes time proportional to the number of steps, not of batches.

        Args:
            start: Samples drawn before the first of these batches, 0 or more.
            end: Samples before which they begin.

        Returns:
            Their number, the first sample after them, which is at least ``end``, and the size of
            the last.

        Example:
            >>> batch_schedule("0:2 4:3").progress(0, 8)
            Progress(updates=4, samples=10, last=3)
        """
        _must_not_be_negative("start", start)
        updates, samples, last, starts = 0, start, 0, self.starts
        ends = [following for following, _ in starts[1:]] + [end]
        for (_, size), phase_end in zip(starts, ends, strict=True):
            begun = max(0, math.ceil(Fraction(min(phase_end, end) - samples, size)))
            updates, samples = updates + begun, samples + begun * size
            last = size if begun else last
        return Progress(updates, samples, last)

    def micro(self, max_micro: int, world_size: int = 1) -> tuple[Micro, ...]:
        """How to keep every batch of the schedule where no more than ``max_micro`` examples fit.

        :class:`batchlab.accumulation.Accumulator` with ``micro_batch_size=max_micro`` cuts batches
        in this way.

        Args:
            max_micro: Examples that fit into one forward pass, at least 1.
            world_size: Processes that share a batch, at least 1.

        Returns:
            For each step as few micro-batches as possible, as even as possible: they differ by
            one example at most.

        Raises:
            InvalidValueError: If a number is below 1.

        Example:
            >>> small, large = batch_schedule("0:8 20ep:100").micro(32)
            >>> small.accum_steps, large.micro_batch_size, large.accum_steps
            (1, 25, 4)
        """
        for name, value in (("max_micro", max_micro), ("world_size", world_size)):
            if value < 1:
                raise InvalidValueError(must(name, "at least 1", value))
        counts = [accum_steps(size, max_micro, world_size) for size in self.sizes]
        return tuple(
            Micro(start, size, -(-size // (count * world_size)), count)
            for (start, size), count in zip(self.steps, counts, strict=True)
        )

    def drawn(self, updates: int) -> int:
        """Samples that the first so many updates draw: the inverse of :meth:`count`.

        Args:
            updates: Updates from the beginning of training, 0 or more.

        Example:
            >>> batch_schedule("0:2 4:3").drawn(3)
            7
        """
        _must_not_be_negative("updates", updates)
        samples, left = 0, updates
        for (_, size), (following, _) in itertools.pairwise(self.starts):
            here = min(left, max(0, math.ceil(Fraction(following - samples, size))))
            samples, left = samples + here * size, left - here
        return samples + left * self.sizes[-1]

    @functools.cached_property
    def starts(self) -> list[tuple[int, int]]:
        """(first sample, size) of every step; refuses positions that are not in samples."""
        for step in self.steps:
            if step.start.unit in ("ep", "upd"):
                words = "in samples before it is read"
                raise InvalidValueError(
                    must("batch_size", words, str(self), "Call .resolve(examples).")
                )
        return [(int(start.value * UNITS[start.unit]), size) for start, size in self.steps]

    @staticmethod
    def _walk(starts: list[tuple[int, int]], start: int, budget: int) -> Iterator[tuple[int, int]]:
        phase = 0
        while True:
            while phase + 1 < len(starts) and starts[phase + 1][0] <= start:
                phase += 1
            size = starts[phase][1]
            if start + size > budget:
                return
            yield start, size
            start += size


def accum_steps(size: int, max_micro: int, world_size: int = 1) -> int:
    """The fewest micro-batches of at most ``max_micro`` examples that make a process's share.

    Args:
        size: Examples of the batch, all processes together.
        max_micro: At least 1.
        world_size: Processes, at least 1.

    Returns:
        Their number, of the process with the largest share.

    Example:
        >>> accum_steps(250, 64), accum_steps(250, 64, 2)
        (4, 2)
    """
    return -(-size // (max_micro * world_size))


def batch_schedule(spec: int | str) -> BatchSchedule:
    """Read a batch size or a schedule of batch sizes.

    Args:
        spec: Examples, at least 1, or text: pairs ``position:size`` divided by spaces, the first
            position 0. Positions are samples, ``k``, ``M``, ``ep`` or ``upd``, all counted from
            the start of training.

    Returns:
        The schedule; ``str`` gives the text back.

    Raises:
        InvalidValueError: If a part of the text is not such a pair; the message names it.
        InvalidTypeError: If it is neither a whole number nor text.

    Example:
        >>> batch_schedule("0:8 20ep:16 40ep:32").sizes
        (8, 16, 32)
        >>> str(batch_schedule(64))
        '64'
    """
    if isinstance(spec, bool) or not isinstance(spec, int | str):
        raise InvalidTypeError(must("batch_size", _BATCH_WORDS, spec))
    tokens = str(spec).split() if isinstance(spec, str) else [f"0:{_batch_size(str(spec), spec)}"]
    if not tokens:
        raise InvalidValueError(must("batch_size", _BATCH_WORDS, spec))
    if len(tokens) == 1 and ":" not in tokens[0]:
        tokens = [f"0:{_batch_size(tokens[0], spec)}"]
    steps = tuple(_batch_step(token) for token in tokens)
    if steps[0].start.value != 0:
        hint = "The first size holds from 0 on."
        raise InvalidValueError(must("batch_size", "a schedule that starts at 0", tokens[0], hint))
    for before, after in itertools.pairwise(steps):
        _must_rise_where_comparable(before, after)
    return BatchSchedule(steps)


def sizes_of(batch_size: int | str) -> tuple[int, ...]:
    """The sizes of a batch size or schedule, in the order of use.

    Example:
        >>> sizes_of(32), sizes_of("0:8 2ep:16")
        ((32,), (8, 16))
    """
    return batch_schedule(batch_size).sizes


def _batch_step(token: str) -> Step:
    position, colon, size = token.partition(":")
    if not colon:
        raise InvalidValueError(must("batch_size", "pairs such as 20ep:16", token))
    return Step(parse_position(position, "batch_size"), _batch_size(size, token))


def _batch_size(text: str, shown: object) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or int(text) < 1:
        raise InvalidValueError(must("batch_size", _BATCH_WORDS, shown))
    return int(text)


def _in_samples(step: Step, before: BatchSchedule, examples: int) -> int:
    """Where a step begins, given the resolved steps before it."""
    start = step.start
    if start.unit != "upd":
        return math.ceil(start.value * _samples_per(start.unit, examples))
    last = int(before.steps[-1].start.value)
    begun = before.progress(0, last)
    rest = int(start.value) - begun.updates
    if rest < 0:
        raise InvalidValueError(_must_rise(step, f"{begun.updates} updates before it"))
    return begun.samples + rest * before.sizes[-1]


def _must_rise_where_comparable(before: Step, after: Step) -> None:
    """Refuse positions out of order as far as that can be told without the data set."""
    starts = (before.start, after.start)
    kinds = [p.unit if p.unit in ("ep", "upd") else "" for p in starts]
    here, there = (p.value * UNITS.get(p.unit, 1) for p in starts)
    if there == 0 or (kinds[0] == kinds[1] and there <= here):
        raise InvalidValueError(_must_rise(after, f"{before.start} before it"))


def _must_rise(step: Step, found: str) -> str:
    return must("batch_size", f"a schedule whose positions rise ({found})", f"{step[0]}:{step[1]}")


# Rate schedules


class Shape(NamedTuple):
    """What a named schedule does between the end of the warm-up (0) and the end of the budget (1).

    ``curve(progress, argument)`` is the multiplier; ``argument`` is what stands in brackets.
    """

    curve: Callable[[float, float], float]
    default: float | None
    words: str


def _constant(progress: float, argument: float) -> float:
    return 1.0


def _linear(progress: float, floor: float) -> float:
    return 1.0 - (1.0 - floor) * progress


def _cosine(progress: float, floor: float) -> float:
    return floor + (1.0 - floor) * (1.0 + math.cos(math.pi * progress)) / 2.0


def _geometric(progress: float, final: float) -> float:
    return final**progress


def _inverse_sqrt(elapsed: float, timescale: float) -> float:
    return math.sqrt(timescale / (timescale + elapsed))


SHAPES: dict[str, Shape] = {
    "constant": Shape(_constant, None, "constant"),
    "linear": Shape(_linear, 0.0, "linear(x) with the final multiplier x in [0, 1]"),
    "cosine": Shape(_cosine, 0.0, "cosine(x) with the final multiplier x in [0, 1]"),
    "geometric": Shape(_geometric, 0.01, "geometric(x) with the final multiplier x in (0, 1]"),
    "inverse_sqrt": Shape(
        _inverse_sqrt,
        0.1,
        "inverse_sqrt(x) with the time scale x in (0, 1], a share of the budget",
    ),
}
"""Named rate schedules."""


@dataclass(frozen=True)
class Curve:
    """A named shape, from the end of the warm-up to the end of the budget.

    Attributes:
        name: A name in :data:`SHAPES`.
        argument: The number in brackets; None is the shape's default.
    """

    name: str
    argument: float | None = None

    def __str__(self) -> str:
        return self.name if self.argument is None else f"{self.name}({self.argument!r})"

    def value(self, fraction: float, warmup: float) -> float:
        """Multiplier at a share of the budget."""
        shape = SHAPES[self.name]
        after = max(0.0, fraction - warmup)
        if self.name == "inverse_sqrt":
            # The time scale is the warm-up, as in vaswani2017; it is a share of the budget, so is
            # the time.
            timescale = self.argument or warmup or shape.default or 1.0
            return shape.curve(after, timescale)
        argument = self.argument if self.argument is not None else shape.default or 0.0
        return shape.curve(after / (1.0 - warmup), argument)


class Point(NamedTuple):
    """A multiplier at a share of the budget; reached in a straight line, or by a step."""

    share: Fraction
    value: float
    line: bool = False

    def __str__(self) -> str:
        share = f"{_decimal(self.share * 100)}%" if self.share else "0"
        return f"{'~' * self.line}{share}:{self.value!r}"


def _between(points: list[tuple[float, float, bool]], fraction: float) -> float:
    """The multiplier of the last point passed, or on the straight line to the next."""
    passed = [i for i, (share, _, _) in enumerate(points) if share <= fraction][-1]
    (share, value, _), following = points[passed], points[passed + 1 : passed + 2]
    if not following or not following[0][2]:
        return value
    end, reached, _ = following[0]
    return value + (reached - value) * (fraction - share) / (end - share)


@dataclass(frozen=True)
class Stairs:
    """Multipliers at shares of the budget, each held until the next or led to it by a line.

    Attributes:
        points: Their shares rise from 0.
    """

    points: tuple[Point, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.points))

    def value(self, fraction: float, warmup: float) -> float:
        """Multiplier at a share of the budget."""
        return _between(self.numbers, fraction)

    @functools.cached_property
    def numbers(self) -> list[tuple[float, float, bool]]:
        """The points with their shares as floats."""
        return [(float(share), value, line) for share, value, line in self.points]


@dataclass(frozen=True)
class RateSchedule:
    """The multiplier of a rate as a function of the share of the budget. Made by
    :func:`rate_schedule`.

    Called with a share in [0, 1], it returns min(1, share/warmup) · body: a linear rise over the
    warm-up from 0, then the body.

    Attributes:
        body: A named curve over what remains after the warm-up, or stairs over the whole budget.
        warmup: Share of the budget, in [0, 1).

    Example:
        >>> rate = rate_schedule("cosine", warmup=0.2)
        >>> [round(rate(share), 3) for share in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    body: Curve | Stairs
    warmup: float = 0.0

    def __call__(self, fraction: float) -> float:
        """Multiplier at a share of the budget.

        Args:
            fraction: Share of the budget that is behind, in [0, 1].

        Returns:
            Factor on the peak rate, 0 or more.

        Raises:
            InvalidValueError: If the share lies outside [0, 1].
        """
        if not 0.0 <= fraction <= 1.0:
            raise InvalidValueError(must("fraction", "a share of the budget in [0, 1]", fraction))
        rise = fraction / self.warmup if fraction < self.warmup else 1.0
        return rise * self.body.value(fraction, self.warmup)

    def __str__(self) -> str:
        return f"warmup({self.warmup!r}) {self.body}" if self.warmup else str(self.body)


def rate_schedule(spec: str, *, warmup: float = 0.0) -> RateSchedule:
    """Read a schedule of a learning rate or a momentum.

    With p running from 0 at the end of the warm-up to 1 at the end of the budget, it is

    - ``constant``: 1;
    - ``linear(x)``: 1 − (1 − x)p, x = 0 if left out;
    - ``cosine(x)``: x + (1 − x)(1 + cos πp)/2, x = 0 if left out;
    - ``geometric(x)``: xᵖ, x = 0.01 if left out;
    - ``inverse_sqrt(x)``: √(x/(x + s)), s being the share of the budget since the warm-up and x,
      if left out, the warm-up, or 0.1 without one;
    - ``0:1 50%:0.1 75%:0.01``: stairs over shares of the whole budget; to a share marked ``~`` a
      straight line leads: ``0:0 ~10%:1 80%:1 ~100%:0`` rises, stays and falls.

    Args:
        spec: The text. It may begin with ``warmup(share)``.
        warmup: Share of the budget over which the multiplier rises linearly from 0, in [0, 1).

    Returns:
        The schedule; ``str`` gives a text that reads back as the same schedule.

    Raises:
        InvalidValueError: If the text is none of these; the message names the part.
        InvalidTypeError: If it is not text.

    Source:
        vaswani2017 (inverse square root), loshchilov2017 (cosine).

    Example:
        >>> rate_schedule("0:1 50%:0.1")(0.5), rate_schedule("geometric(0.01)")(0.5)
        (0.1, 0.1)
        >>> str(rate_schedule("cosine", warmup=0.05))
        'warmup(0.05) cosine'
    """
    if not isinstance(spec, str):
        raise InvalidTypeError(must("lr_schedule", "text such as 'cosine'", spec))
    first, _, rest = spec.strip().partition(" ")
    call = _CALL.fullmatch(first)
    if call and call["name"] == "warmup":
        if warmup:
            raise InvalidValueError(must("lr_schedule", "without a second warm-up", first))
        return rate_schedule(rest, warmup=_warmup_share(call["argument"], first))
    _must_be_warmup(warmup, warmup)
    body = _stairs(spec.split()) if ":" in spec else _curve(spec.strip())
    return RateSchedule(body, float(warmup))


def _curve(text: str) -> Curve:
    call = _CALL.fullmatch(text)
    if call is None or call["name"] not in SHAPES:
        words = f"one of {', '.join(SHAPES)}, or stairs such as '0:1 50%:0.1'"
        raise InvalidValueError(must("lr_schedule", words, text))
    name, argument = call["name"], call["argument"]
    if argument is None:
        return Curve(name)
    value = _number(argument)
    least_is_open = name in ("geometric", "inverse_sqrt")
    if name == "constant" or value is None or value > 1.0 or (least_is_open and value == 0.0):
        raise InvalidValueError(must("lr_schedule", SHAPES[name].words, text))
    return Curve(name, value)


def _stairs(tokens: list[str]) -> Stairs:
    points = tuple(_point(token) for token in tokens)
    if points[0].share != 0 or points[0].line:
        raise InvalidValueError(must("lr_schedule", "stairs that start at 0", tokens[0]))
    for token, before, after in zip(tokens[1:], points, points[1:], strict=False):
        if after.share <= before.share:
            raise InvalidValueError(must("lr_schedule", "stairs whose shares rise", token))
    return Stairs(points)


def _point(token: str) -> Point:
    share, colon, multiplier = token.removeprefix("~").partition(":")
    value = _number(multiplier)
    number = "0" if share == "0" else share.removesuffix("%") if share.endswith("%") else ""
    if not colon or value is None or not re.fullmatch(_NUMBER, number, re.ASCII):
        raise InvalidValueError(must("lr_schedule", "pairs such as 50%:0.1", token))
    if Fraction(number) > 100:
        raise InvalidValueError(must("lr_schedule", "stairs at shares of at most 100%", token))
    return Point(Fraction(number) / 100, value, token.startswith("~"))


def _warmup_share(text: str | None, shown: str) -> float:
    value = _number(text or "")
    _must_be_warmup(math.nan if value is None else value, shown)
    return value or 0.0


def _must_be_warmup(value: float, shown: object) -> None:
    if not 0.0 <= value < 1.0:
        raise InvalidValueError(must("warmup", "a share of the budget in [0, 1)", shown))


# Numbers


def _number(text: str) -> float | None:
    """A finite number, 0 or more, or None."""
    value = float(text) if _FLOAT.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None


def _decimal(value: Fraction) -> str:
    """Exact decimal text of a fraction that has one."""
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    whole = str(int(value * 10**digits))
    if not digits:
        return whole
    whole = whole.rjust(digits + 1, "0")
    return f"{whole[:-digits]}.{whole[-digits:]}"


def _samples_per(unit: str, examples: int) -> int:
    return examples if unit == "ep" else UNITS[unit]


def _must_have_examples(examples: int) -> None:
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 1:
        raise InvalidValueError(must("examples", "a whole number, 1 or more", examples))


def _must_not_be_negative(name: str, value: int) -> None:
    if value < 0:
        raise InvalidValueError(must(name, "0 or more", value))
