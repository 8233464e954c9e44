"""Where branches leave a trunk, their batch sizes and learning rates, and how long they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from batchlab import schedules
from batchlab.config import RunConfig
from batchlab.engine import Job, RunResult
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.rules import is_sgd_family
from batchlab.types import Status

SCALINGS = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
"""Power p of the learning rate η·kᵖ."""
PLACES, EARLIEST = 5, 0.01
"""Checkpoints, and the share of the training at which the first lies."""
WINDOW, LAST = 0.2, 0.5
"""Length of a branch as a share of the training, and the share of it by which it is judged."""
EVALUATIONS = 16
LEAST_UPDATES = 8
"""Updates of the largest batch in a branch: fewer would tell of the change, not of the size."""
LARGEST_FACTOR = 64


T = TypeVar("T")


@dataclass(frozen=True)
class Branching:
    """What is trained.

    Attributes:
        baseline: The recipe; its batch size is one number.
        places: Samples of the trunk at which branches leave it, whole batches, ascending.
        factors: Batch sizes of the branches beside k = 1, in multiples of the recipe's, ascending.
        window: Samples of every branch, a whole number of batches of each size.
        power: p of the learning rate η·kᵖ.
        seeds: One trunk each.

    Example:
        >>> run = RunConfig(rule="sgd", batch_size=4, learning_rate=0.1, samples=400)
        >>> plan = Branching(run.resolved(100), (40, 80), (2, 4), 128, 1.0, (0, 1))
        >>> plan.config(4, seed=1).learning_rate, plan.moments(40)[:3]
        (0.4, (40, 56, 72))
    """

    baseline: RunConfig
    places: tuple[int, ...]
    factors: tuple[int, ...]
    window: int
    power: float
    seeds: tuple[int, ...]

    @property
    def batch_size(self) -> int:
        """Today's batch size, examples."""
        assert isinstance(self.baseline.batch_size, int)
        return self.baseline.batch_size

    def config(self, factor: int, seed: int) -> RunConfig:
        """A branch, or with factor 1 the trunk: k times the batch, kᵖ times the learning rate."""
        assert self.baseline.learning_rate is not None
        return self.baseline.replace(
            batch_size=factor * self.batch_size,
            learning_rate=self.baseline.learning_rate * factor**self.power,
            seed=seed,
        )

    def moments(self, place: int) -> tuple[int, ...]:
        """Sample counts of evaluations: those that branches of every size pass exactly."""
        unit = _unit(self.batch_size, self.factors)
        units = self.window // unit
        steps = min(EVALUATIONS, units)
        return tuple(place + unit * round(i * units / steps) for i in range(steps + 1))

    def job(self, place: int) -> Job:
        """What every branch from a place does."""
        return Job(self.moments(place), until=place + self.window)

    def judged(self, run: RunResult, place: int, name: str) -> float:
        """Mean of a loss over the second half of a branch; NaN if it diverged."""
        series = run.series.get(name)
        if run.status is Status.DIVERGED or series is None:
            return math.nan
        late = series.samples > place + (1 - LAST) * self.window
        return float(series.values[late].mean())


def plan_branching(
    baseline: RunConfig,
    examples: int,
    *,
    at: Sequence[str | int] | None = None,
    factors: Sequence[int] | None = None,
    window: str | int | None = None,
    scaling: str | None = None,
    seeds: int = 5,
    seed: int = 0,
) -> Branching:
    """Where branches leave the trunk, how large their batches are, and how long they are.

    Args:
        baseline: A resolved run whose batch size is one number.
        examples: Training examples N.
        at: Places, such as ``"10%"`` of the training, ``"2ep"`` or samples; five on a logarithmic
            scale from 1 % on if left out. Each is moved to the next whole batch.
        factors: Multiples of the batch size, 2 or more; powers of two up to 64 if left out, as far
            as a batch has at most N examples and a branch 8 updates.
        window: Length of a branch; a fifth of the training if left out, at least 8 updates of the
            largest batch. Made longer until every size divides it.
        scaling: A name in :data:`SCALINGS`; by the rule if left out, see :func:`scaling_of`.
        seeds: Trunks, at least 2.
        seed: The first seed.

    Returns:
        The plan; no branch goes beyond the end of the training.

    Raises:
        InvalidValueError: If something is impossible; the message names it.

    Example:
        >>> run = RunConfig(rule="sgd", batch_size=32, learning_rate=0.1, samples="20ep")
        >>> plan = plan_branching(run.resolved(1000), 1000)
        >>> plan.places, plan.factors, plan.window
        ((192, 608, 1792, 5312, 15904), (2, 4, 8), 4096)
    """
    for name, value, least in (("seeds", seeds, 2), ("seed", seed, 0)):
        if not (isinstance(value, int) and value >= least):
            raise InvalidValueError(must(name, f"a whole number, {least} or more", value))
    power = SCALINGS[scaling_of(baseline.rule or "", scaling)]
    assert isinstance(baseline.samples, int)
    assert isinstance(baseline.batch_size, int)
    batch, length = baseline.batch_size, _Length(baseline.samples, examples)
    wanted = length.of(window, "window") if window is not None else round(WINDOW * length.samples)
    sizes = _factors(factors, batch, examples, wanted)
    if window is None:
        wanted = max(wanted, LEAST_UPDATES * sizes[-1] * batch)
    whole = _whole_window(wanted, batch, sizes, length.samples)
    places = _places(at, length, batch, length.samples - whole)
    return Branching(baseline, places, sizes, whole, power, tuple(range(seed, seed + seeds)))


def scaling_of(rule: str, scaling: str | None = None) -> str:
    """How the learning rate follows the batch size: as asked for, else by the rule.

    *linear* for the SGD family: k times the batch at k times the rate moves the weights as far an
    example, and with as much noise an example. *sqrt* for rules that divide by the root of a
    second moment, such as Adam: their step hardly changes with the size of the gradient, so its
    noise grows with η²/B. Momentum, β₂ and ε stay as they are.

    Args:
        rule: A name in :data:`batchlab.rules.RULES`.
        scaling: A name in :data:`SCALINGS`, or None.

    Raises:
        InvalidValueError: If there is no such scaling.

    Source:
        goyal2017 (linear), malladi2022 (square root), merrill2025 (branches use both so).

    Example:
        >>> scaling_of("shb"), scaling_of("adamw"), scaling_of("adamw", "none")
        ('linear', 'sqrt', 'none')
    """
    chosen = scaling or ("linear" if is_sgd_family(rule) else "sqrt")
    if chosen not in SCALINGS:
        raise InvalidValueError(must("scaling", f"one of {', '.join(SCALINGS)}", chosen))
    return chosen


@dataclass(frozen=True)
class _Length:
    """Reads lengths as shares of a training or as samples."""

    samples: int
    examples: int

    def of(self, text: str | int, name: str) -> int:
        """Samples."""
        words = str(text).strip()
        if words.endswith("%"):
            try:
                share = float(words[:-1]) / 100
            except ValueError:
                share = math.nan
            if not 0 < share <= 1:
                raise InvalidValueError(must(name, "a share of the training such as 10%", text))
            return max(1, round(share * self.samples))
        count = int(words) if words.isdecimal() else words
        return schedules.amount(count, examples=self.examples, name=name)


def _factors(
    asked: Sequence[int] | None, batch: int, examples: int, window: int
) -> tuple[int, ...]:
    """The multiples of the batch size, checked."""
    if asked is None:
        most = min(examples, max(window // LEAST_UPDATES, 2 * batch)) // batch
        powers = [2**i for i in range(1, LARGEST_FACTOR.bit_length()) if 2**i <= most]
        if not powers:
            raise InvalidValueError(
                must("batch_size", f"at most half of the {examples} training examples", batch)
            )
        return tuple(powers)
    most = examples // batch
    for factor in _listed(asked, "factors") or [0]:
        if not (isinstance(factor, int) and 2 <= factor <= most):
            hint = f"A batch has {factor * batch} of {examples} training examples then."
            raise InvalidValueError(
                must("factors", f"whole numbers from 2 to {most}", factor, hint if factor else "")
            )
    return tuple(sorted(set(asked)))


def _listed(asked: Sequence[T], name: str) -> Sequence[T]:
    """A list, not one value, nor a text, which is a list of letters."""
    if isinstance(asked, str) or not isinstance(asked, Sequence):
        raise InvalidTypeError(must(name, "a list", asked, f"Write {name}=[{asked!r}]."))
    return asked


def _unit(batch: int, factors: Sequence[int]) -> int:
    """Samples that are whole batches of every size."""
    return batch * math.lcm(*factors)


def _whole_window(wanted: int, batch: int, factors: Sequence[int], samples: int) -> int:
    """The next length that is whole batches of every size, inside the training."""
    unit, least = _unit(batch, factors), LEAST_UPDATES * factors[-1] * batch
    whole = unit * math.ceil(wanted / unit)
    if wanted < least:
        hint = f"These are {LEAST_UPDATES} updates of the largest batch, {factors[-1] * batch}."
        raise InvalidValueError(must("window", f"at least {least} samples", wanted, hint))
    if whole > samples - batch:
        hint = f"Batches of up to {factors[-1] * batch} need {whole}."
        raise InvalidValueError(
            must(
                "window",
                f"at most the {samples - batch} samples after the first batch",
                wanted,
                hint,
            )
        )
    return whole


def _places(
    asked: Sequence[str | int] | None, length: _Length, batch: int, last: int
) -> tuple[int, ...]:
    """Whole batches, ascending; from the last on a branch would outlast the training."""
    if asked is None:
        first = max(batch, EARLIEST * length.samples)
        ratio = max(1.0, last / first) ** (1 / (PLACES - 1))
        whole = {max(1, round(first * ratio**i / batch)) for i in range(PLACES)}
        return tuple(sorted(batch * min(batches, last // batch) for batches in whole))
    asked = _listed(asked, "at")
    found = sorted({math.ceil(length.of(text, "at") / batch) * batch for text in asked})
    if not found or found[-1] > last:
        words = f"places up to {last // batch * batch} samples"
        hint = "The window after it must end with the training."
        raise InvalidValueError(must("at", words, list(asked), hint))
    return tuple(found)
