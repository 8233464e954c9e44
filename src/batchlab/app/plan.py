"""The calculator: updates, samples, the last short batch, time and cost. Nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias, get_args

from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.schedules import BatchSchedule, batch_schedule

Last: TypeAlias = Literal["run-on", "short", "drop"]
"""What becomes of the last batch of a pass: it runs on into the next, is short, or is dropped."""

TOLD = {
    "run-on": "batches run on across passes; what is left at the very end is not trained",
    "short": "the last batch of a pass is short",
    "drop": "the rest of a pass is dropped",
}


@dataclass(frozen=True)
class Phase:
    """The part of a training that runs at one batch size.

    Attributes:
        batch_size: Examples per update.
        start: First sample.
        updates: Updates.
        updates_per_epoch: Updates of a whole pass at this size; with ``run-on`` their mean, which
            need not be whole.
        last_batch: Examples of the last batch of such a pass where it is short; 0 where none is.
        dropped: Examples of such a pass that are not trained.
    """

    batch_size: int
    start: int
    updates: int
    updates_per_epoch: float
    last_batch: int
    dropped: int


@dataclass(frozen=True)
class Conversion:
    """One learning rate under both conventions of momentum; the steps are the same.

    Attributes:
        momentum: β.
        shb: α of v ← βv + g, Δ = −αv: PyTorch's momentum.
        nshb: η of v ← βv + (1−β)g, Δ = −ηv. η = α/(1−β).
    """

    momentum: float
    shb: float
    nshb: float


NOTHING = "none: not one whole batch fits into the samples"


@dataclass(frozen=True)
class PlanReport:
    """What a training consists of.

    Attributes:
        examples: Examples in the training set N.
        batch_size: Number or schedule, as text.
        epochs: Passes.
        last: What becomes of the last batch of a pass.
        samples: Examples trained on.
        left_out: Examples of epochs · N that are not trained.
        updates: Updates in all.
        short_batches: Updates on fewer examples than the batch size.
        otherwise: Updates in all under the two other conventions, where they apply.
        phases: One for each step of the schedule.
        seconds: Time, or None.
        cost: In ``currency``, or None.
        currency: Of the cost.
        conversion: Learning rate under SHB and NSHB, or None.
    """

    examples: int
    batch_size: str
    epochs: float
    last: str
    samples: int
    left_out: int
    updates: int
    short_batches: int
    otherwise: dict[str, int]
    phases: tuple[Phase, ...]
    seconds: float | None = None
    cost: float | None = None
    currency: str = "USD"
    conversion: Conversion | None = None

    def __str__(self) -> str:
        rows = [
            ("training set", f"{self.examples:,} examples, {self.epochs:g} epochs"),
            *_phase_rows(self.phases, self.last),
            ("updates", f"{self.updates:,} in all" if self.updates else NOTHING),
            ("short batches", f"{self.short_batches:,} in all")
            if self.short_batches
            else ("", ""),
            ("samples", f"{self.samples:,} trained, {self.left_out:,} left out"),
            ("last batch", f"{self.last}: {TOLD[self.last]}"),
            ("otherwise", "; ".join(f"{k}: {n:,} updates" for k, n in self.otherwise.items())),
            ("time", "" if self.seconds is None else _time(self.seconds)),
            ("cost", "" if self.cost is None else f"{_number(self.cost)} {self.currency}"),
            *_conversion_rows(self.conversion),
        ]
        return "\n".join(f"{name:<15}{text}" for name, text in rows if text)


def plan(
    *,
    examples: int | Sized,
    batch_size: int | str = 32,
    epochs: float = 1.0,
    last: str = "run-on",
    seconds_per_update: float | None = None,
    price_per_hour: float | None = None,
    currency: str = "USD",
    rule: str | None = None,
    learning_rate: float | None = None,
    momentum: float = 0.9,
) -> PlanReport:
    """Calculate updates, samples, time and cost of a training, exactly.

    ``run-on``: ⌊epochs·N/B⌋ updates. ``short``: ⌈N/B⌉ a pass. ``drop``: ⌊N/B⌋ a pass. A schedule
    is read at the first sample of each batch. Where the last epoch is not whole, it ends early and
    its last batch is treated as at the end of a pass.

    Args:
        examples: Training examples N, at least 1; or the data set, of which none is read.
        batch_size: Examples per update, or a schedule such as ``"0:8 20ep:16"``.
        epochs: Passes, above 0; need not be whole.
        last: ``run-on``, ``short`` or ``drop``.
        seconds_per_update: Seconds, above 0, taken for every batch size of a schedule.
        price_per_hour: What an hour costs, 0 or more; needs ``seconds_per_update``.
        currency: Its currency.
        rule: Rule of the learning rate to convert, ``shb`` or ``nshb``.
        learning_rate: The rate to convert.
        momentum: β in [0, 1).

    Returns:
        A record whose ``str`` is a table.

    Raises:
        InvalidValueError: If a number is impossible, or one is given without the other it needs.

    Example:
        >>> found = plan(examples=10_000, batch_size=100)
        >>> found.updates, found.phases[0].updates_per_epoch
        (100, 100.0)
        >>> plan(examples=100, batch_size=32, last="short").phases[0].last_batch
        4
    """
    examples = len(examples) if isinstance(examples, Sized) else examples
    _check(examples, epochs, last, seconds_per_update, price_per_hour)
    schedule = _resolved(batch_size, examples, last)
    budget = math.ceil(Fraction(repr(epochs)) * examples)
    counted = _count(schedule, examples, budget, last)
    seconds = None if seconds_per_update is None else counted.updates * seconds_per_update
    paid = None if seconds is None or price_per_hour is None else seconds / 3600 * price_per_hour
    return PlanReport(
        examples,
        str(batch_size),
        float(epochs),
        last,
        counted.samples,
        budget - counted.samples,
        counted.updates,
        counted.short,
        _otherwise(batch_size, examples, budget, last),
        _phases(schedule, examples, budget, last),
        seconds,
        paid,
        currency,
        _conversion(rule, learning_rate, momentum),
    )


@dataclass(frozen=True)
class _Counts:
    """Updates, examples trained on, and updates on a short batch."""

    updates: int = 0
    samples: int = 0
    short: int = 0

    def plus(self, other: _Counts, times: int = 1) -> _Counts:
        return _Counts(
            self.updates + times * other.updates,
            self.samples + times * other.samples,
            self.short + times * other.short,
        )


def _count(schedule: BatchSchedule, examples: int, budget: int, last: str) -> _Counts:
    """Everything up to the budget."""
    if last == "run-on":
        return _stretch(schedule, 0, budget, "drop")
    total = _Counts()
    for start, end, times in _passes(schedule, examples, budget):
        total = total.plus(_stretch(schedule, start, end, last), times)
    return total


def _stretch(schedule: BatchSchedule, start: int, end: int, last: str) -> _Counts:
    """From one sample to another, where a batch that does not fit is cut short or dropped."""
    begun = schedule.progress(start, end)
    over = begun.samples - end
    if not over:
        return _Counts(begun.updates, end - start)
    if last == "short":
        return _Counts(begun.updates, end - start, 1)
    size = schedule.at(_last_start(schedule, start, end))
    return _Counts(begun.updates - 1, end - start - (size - over))


def _last_start(schedule: BatchSchedule, start: int, end: int) -> int:
    """First sample of the last batch that begins before ``end``: the largest there is."""
    low, high = start, end - 1
    while low < high:
        middle = (low + high + 1) // 2
        begun = schedule.progress(start, middle).samples
        low, high = (begun, high) if begun < end else (low, middle - 1)
    return low


def _passes(schedule: BatchSchedule, examples: int, budget: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, how many times) of the passes; those at one batch size are all alike."""
    changes = [int(step.start.value) for step in schedule.steps]
    start = 0
    while start < budget:
        end = min(start + examples, budget)
        following = next((change for change in changes if change > start), budget)
        alike = max(1, min(following, budget) // examples - start // examples)
        times = alike if end - start == examples and following >= end else 1
        yield start, end, times
        start += times * (end - start)


def _phases(schedule: BatchSchedule, examples: int, budget: int, last: str) -> tuple[Phase, ...]:
    """One for each step that begins within the budget."""
    begins = [int(step.start.value) for step in schedule.steps]
    used = [(s, size) for s, size in zip(begins, schedule.sizes, strict=True) if s < budget]
    done = [_begun(schedule, examples, start, budget, last) for start, _ in used[1:]]
    total = _count(schedule, examples, budget, last).updates
    counts = [b - a for a, b in zip([0, *done], [*done, total], strict=True)]
    return tuple(
        Phase(size, start, updates, *_whole_pass(size, examples, last))
        for (start, size), updates in zip(used, counts, strict=True)
    )


def _begun(schedule: BatchSchedule, examples: int, place: int, budget: int, last: str) -> int:
    """Updates whose first sample lies before a place."""
    if last == "run-on":
        counted = schedule.progress(0, place).updates
        return min(counted, _count(schedule, examples, budget, last).updates)
    start = place // examples * examples
    before = _count(schedule, examples, start, last).updates
    inside = schedule.progress(start, place)
    end = min(start + examples, budget)
    dropped = last == "drop" and inside.samples > end
    return before + inside.updates - dropped


def _whole_pass(size: int, examples: int, last: str) -> tuple[float, int, int]:
    """Updates of a whole pass at one size, its short batch, and what it drops."""
    whole, rest = divmod(examples, size)
    if last == "run-on":
        return examples / size, 0, 0
    if last == "short":
        return float(whole + (rest > 0)), rest, 0
    return float(whole), 0, rest


def _otherwise(batch_size: int | str, examples: int, budget: int, last: str) -> dict[str, int]:
    """Updates under the other conventions that this batch size allows."""
    found = {}
    for other in get_args(Last):
        if other != last and _objection(batch_schedule(batch_size), examples, other) is None:
            schedule = batch_schedule(batch_size).resolve(examples)
            found[other] = _count(schedule, examples, budget, other).updates
    return found


def _resolved(batch_size: int | str, examples: int, last: str) -> BatchSchedule:
    """The schedule in samples; refuses what the convention cannot keep to."""
    schedule = batch_schedule(batch_size)
    objection = _objection(schedule, examples, last)
    if objection is not None:
        raise InvalidValueError(must("batch_size", objection, batch_size, "Or use last='run-on'."))
    return schedule.resolve(examples)


def _objection(schedule: BatchSchedule, examples: int, last: str) -> str | None:
    """What is asked of a schedule under a convention, if it does not meet it."""
    if last == "run-on":
        return None
    if max(schedule.sizes) > examples:
        return f"at most the number of examples, {examples}, where a batch ends with the pass"
    if any(step.start.unit == "upd" for step in schedule.steps):
        return "a schedule in samples or epochs where a batch ends with the pass"
    return None


def _check(
    examples: int, epochs: float, last: str, seconds: float | None, price: float | None
) -> None:
    if isinstance(examples, bool) or not isinstance(examples, int):
        raise InvalidTypeError(must("examples", "a whole number", examples))
    if examples < 1:
        raise InvalidValueError(must("examples", "a whole number, 1 or more", examples))
    if not 0 < epochs < math.inf:
        raise InvalidValueError(must("epochs", "above 0", epochs))
    if last not in TOLD:
        raise InvalidValueError(must("last", f"one of {', '.join(TOLD)}", last))
    if seconds is not None and not 0 < seconds < math.inf:
        raise InvalidValueError(must("seconds_per_update", "above 0", seconds))
    if price is not None and not 0 <= price < math.inf:
        raise InvalidValueError(must("price_per_hour", "0 or more", price))
    if price is not None and seconds is None:
        hint = "Add --seconds-per-update; `batchlab fit` measures it."
        raise InvalidValueError(must("price_per_hour", "given with a time", price, hint))


def _conversion(rule: str | None, rate: float | None, momentum: float) -> Conversion | None:
    """α ↔ η = α/(1−β)."""
    if rule is None and rate is None:
        return None
    if rule not in ("shb", "nshb"):
        raise InvalidValueError(must("rule", "shb or nshb where a learning rate is given", rule))
    if rate is None or not 0 <= rate < math.inf:
        raise InvalidValueError(must("learning_rate", "a finite number, 0 or more", rate))
    if not 0 <= momentum < 1:
        raise InvalidValueError(must("momentum", "in [0, 1)", momentum))
    # In decimal, as the user wrote them: 0.05 / (1 − 0.9) is 0.5, not 0.50000000000000011.
    share = 1 - Fraction(repr(float(momentum)))
    exact = Fraction(repr(float(rate)))
    if rule == "shb":
        return Conversion(momentum, rate, float(exact / share))
    return Conversion(momentum, float(exact * share), rate)


def _phase_rows(phases: tuple[Phase, ...], last: str) -> list[tuple[str, str]]:
    rows = []
    for phase in phases:
        ends = f", the last one of {phase.last_batch:,}" if phase.last_batch else ""
        ends += f", {phase.dropped:,} examples dropped" if phase.dropped else ""
        text = f"{_number(phase.updates_per_epoch)} updates an epoch{ends}"
        if len(phases) > 1:
            text = f"from sample {phase.start:,}: {phase.updates:,} updates, {text}"
        rows.append((f"batch {phase.batch_size:,}", text))
    return rows


def _conversion_rows(found: Conversion | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    text = f"SHB {found.shb:g} = NSHB {found.nshb:g} at momentum {found.momentum:g}"
    return [("learning rate", f"{text} (NSHB = SHB/(1 − momentum))")]


def _number(value: float) -> str:
    """Two decimals where it is not whole, thousands separated; small numbers to two digits.

    Example:
        >>> _number(1234.0), _number(31.25), _number(1.5), _number(0.00731)
        ('1,234', '31.25', '1.5', '0.0073')
    """
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.2f}".rstrip("0") if abs(value) >= 1 else f"{value:.2g}"


def _time(seconds: float) -> str:
    """Seconds and the unit a person would use.

    Example:
        >>> _time(5400)
        '1.5 h (5,400 s)'
    """
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{_number(round(seconds / size, 2))} {unit} ({_number(seconds)} s)"
    return f"{_number(seconds)} s"
