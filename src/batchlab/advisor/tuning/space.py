"""What may be tuned: one table, from a name to the values that are tried.

Adding a setting is one line in :data:`TABLE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchlab.advisor.candidates import rates_for, scaled_rate
from batchlab.advisor.stages import Choice, Tuned
from batchlab.advisor.strength import factor
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.rules import RULES, is_sgd_family

ALL = "all"
SCHEDULES = ("constant", "cosine", "linear")
REUSE = (1, 2, 4)
GAMMAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
LEAST_REST, LEAST_DECAY, MOST_DECAY = 0.005, 1e-6, 1e-2
"""Smallest 1 − momentum; weight decay, below whose smallest there is none."""


@dataclass(frozen=True)
class Axis:
    """One setting of the search and its scale.

    Attributes:
        name: As the user names it.
        field: Of a :class:`RunConfig`.
        scale: ``log``; ``rest``, where 1 − x is on a logarithmic scale; ``log or 0``, where the
            lowest decade stands for 0; ``ordered`` or ``names``, of listed values.
        low: Smallest coordinate, above 0; of listed values not used.
        high: Largest coordinate.
        values: Listed values.
    """

    name: str
    field: str
    scale: str
    low: float = 0.0
    high: float = 0.0
    values: tuple[Any, ...] = ()

    def value(self, coordinate: Any) -> Any:
        """What a run gets, with three digits.

        Example:
            >>> Axis("momentum", "momentum", "rest", 0.005, 1.0).value(0.0512)
            0.9488
            >>> Axis("weight_decay", "weight_decay", "log or 0", 1e-7, 1e-2).value(5e-7)
            0.0
        """
        if self.scale == "ordered":
            return self.values[int(coordinate)]
        if self.scale == "names":
            return coordinate
        short = float(f"{coordinate:.3g}")
        if self.scale == "rest":
            return float(f"{1 - short:.6g}")
        return 0.0 if self.scale == "log or 0" and short < 10 * self.low else short

    def coordinate(self, value: Any) -> Any:
        """Where a value lies: undoes :meth:`value`, up to its rounding.

        Example:
            >>> Axis("batch_size", "batch_size", "ordered", values=(16, 32, 64)).coordinate(64)
            2
        """
        if self.scale == "ordered":
            return self.values.index(value)
        if self.scale == "names":
            return value
        there = 1 - value if self.scale == "rest" else value
        return min(max(there, self.low), self.high)


@dataclass(frozen=True)
class Given:
    """What the ranges depend on.

    Attributes:
        baseline: Today's recipe, resolved.
        sizes: Batch sizes worth trying, ascending, today's among them.
        depth: L of the law that the learning rate follows with γ.
    """

    baseline: RunConfig
    sizes: tuple[int, ...]
    depth: int = 1

    @property
    def size(self) -> int:
        """Today's batch size."""
        assert isinstance(self.baseline.batch_size, int)
        return self.baseline.batch_size

    @property
    def rate(self) -> float:
        """Today's learning rate."""
        assert self.baseline.learning_rate is not None
        return self.baseline.learning_rate

    @property
    def family(self) -> bool:
        """Whether the rule is of the SGD family."""
        assert self.baseline.rule is not None
        return is_sgd_family(self.baseline.rule)

    def transferred(self, rate: float, gamma: float | None) -> float:
        """The learning rate with a γ where today's model would have this one."""
        if gamma == self.baseline.gamma:
            return rate
        assert self.baseline.rule is not None
        new, old = (
            factor(g, self.depth, self.baseline.rule) for g in (gamma, self.baseline.gamma)
        )
        return float(f"{rate * new / old:.4g}")


def _rates(given: Given) -> Axis:
    """From half the smallest to twice the largest learning rate that the ordinary advice starts
    with.
    """
    usual = [
        rate
        for size in given.sizes
        for rate in rates_for(given.rate, given.size, size, given.family)
    ]
    return Axis("learning_rate", "learning_rate", "log", min(usual) / 2, 2 * max(usual))


def _around(field: str, scale: str, low: float, high: float, given: Given) -> Axis:
    """A range, widened to hold today's value."""
    today = float(getattr(given.baseline, field) or 0.0)
    there = 1 - today if scale == "rest" else today
    held = there if there > 0 else low
    return Axis(field, field, scale, min(low, held), max(high, held))


def _names(given: Given) -> Axis:
    values = tuple(dict.fromkeys((given.baseline.lr_schedule, *SCHEDULES)))
    return Axis("schedule", "lr_schedule", "names", values=values)


def _reuse(given: Given) -> Axis:
    values = tuple(sorted({given.baseline.reuse, *REUSE}))
    return Axis("reuse", "reuse", "ordered", values=values)


def _gammas(given: Given) -> Axis:
    """γ in ascending order; the model as it is lies beside γ = 1, whose learning rate it has."""
    values = {given.baseline.gamma, *GAMMAS}
    order = sorted(values, key=lambda gamma: (gamma or 1.0, gamma is not None))
    return Axis("gamma", "gamma", "ordered", values=tuple(order))


TABLE: Mapping[str, Callable[[Given], Axis]] = {
    "batch_size": lambda given: Axis("batch_size", "batch_size", "ordered", values=given.sizes),
    "learning_rate": _rates,
    "schedule": _names,
    "reuse": _reuse,
    "momentum": lambda given: _around("momentum", "rest", LEAST_REST, 1.0, given),
    "weight_decay": lambda given: _around(
        "weight_decay", "log or 0", LEAST_DECAY / 10, MOST_DECAY, given
    ),
    "gamma": _gammas,
}
"""Name → its axis."""
FIELDS = (
    *("batch_size", "learning_rate", "lr_schedule", "reuse", "momentum", "weight_decay"),
    "gamma",
)
"""Fields of a run that the table can set."""
OF_THE_RULE = ("momentum", "weight_decay")
"""Settings that some update rules do not read."""


def names_of(asked: str | Iterable[str] | None) -> tuple[str, ...]:
    """What is to be tuned, as it was typed.

    Args:
        asked: Names, or one text with commas; ``all`` stands for all.

    Returns:
        Names, each once; empty for None.

    Raises:
        InvalidValueError: If a name is not in the table.

    Example:
        >>> names_of("batch_size, learning_rate"), names_of(None)
        (('batch_size', 'learning_rate'), ())
    """
    if asked is None:
        return ()
    words = asked.split(",") if isinstance(asked, str) else list(asked)
    names = tuple(dict.fromkeys(word.strip() for text in words for word in text.split(",")))
    known = (*TABLE, ALL)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        got = ", ".join(wrong)
        raise InvalidValueError(must("tune", f"names among {', '.join(known)}", got))
    return names


def names_in(
    asked: Sequence[str], rule: str | None, no_gamma: Callable[[], str]
) -> tuple[tuple[str, ...], str]:
    """What is tuned of a task, and why γ is left out of ``all``, if it is.

    Args:
        asked: As :func:`names_of` gives them.
        rule: Of the baseline.
        no_gamma: Tries why the model cannot be trained with a γ; not asked where none is tuned.

    Raises:
        InvalidValueError: As :func:`names_for`.
    """
    refused = no_gamma() if {"gamma", ALL} & set(asked) else ""
    assert rule is not None
    return names_for(asked, rule, refused), refused


def names_for(asked: Sequence[str], rule: str, no_gamma: str = "") -> tuple[str, ...]:
    """What is tuned under an update rule.

    Args:
        asked: As :func:`names_of` gives them.
        rule: Of the baseline.
        no_gamma: Why the model cannot be trained with a γ; empty if it can.

    Returns:
        The names; ``all`` becomes everything that the rule reads and the model allows.

    Raises:
        InvalidValueError: If a setting was named that the rule does not read, or γ where the model
            cannot have one.

    Example:
        >>> names_for(("all",), "sgd")
        ('batch_size', 'learning_rate', 'schedule', 'reuse', 'weight_decay', 'gamma')
        >>> names_for(("all",), "sgd", no_gamma="its output is no tensor")[-1]
        'weight_decay'
    """
    if no_gamma and "gamma" in asked:
        hint = f"The model cannot be trained as (f − its start)/γ: {no_gamma}."
        raise InvalidValueError(must("tune", "without gamma for this task", "gamma", hint))
    absent = [name for name in OF_THE_RULE if name not in RULES[rule].uses]
    wrong = [name for name in asked if name in absent]
    if wrong:
        hint = f"PyTorch's SGD with momentum is rule='shb'; the rule {rule} reads none."
        raise InvalidValueError(must("tune", f"without {', '.join(absent)}", wrong[0], hint))
    if ALL in asked:
        left_out = (*absent, *(("gamma",) if no_gamma else ()))
        return tuple(name for name in TABLE if name not in left_out)
    return tuple(asked)


def space(names: Sequence[str], given: Given) -> tuple[Axis, ...]:
    """The axes of a search.

    Args:
        names: Of the table.
        given: What their ranges depend on.
    """
    return tuple(TABLE[name](given) for name in names)


def today(axes: Sequence[Axis], given: Given) -> dict[str, Any]:
    """Today's settings in the space.

    Args:
        axes: The space.
        given: Holds the baseline.
    """
    return {axis.name: getattr(given.baseline, axis.field) for axis in axes}


def first(axes: Sequence[Axis], given: Given) -> tuple[dict[str, Any], ...]:
    """What the search begins with: today's settings, today's batch size at the rates of the
    ordinary advice, and each other batch size at its scaled rate, all else as today.

    Args:
        axes: The space.
        given: What the ordinary advice starts from.
    """
    now, known = today(axes, given), {axis.name for axis in axes}
    made = [now]
    if "learning_rate" in known:
        rates = rates_for(given.rate, given.size, given.size, given.family)
        made += [now | {"learning_rate": rate} for rate in rates]
    if "batch_size" in known:
        power = 1.0 if given.family else 0.5
        for size in given.sizes:
            scaled = {"learning_rate": scaled_rate(given.rate, given.size, size, power)}
            made.append(now | {"batch_size": size} | (scaled if "learning_rate" in known else {}))
    return tuple(one for i, one in enumerate(made) if one not in made[:i])


def choice(axes: Sequence[Axis], values: Mapping[str, Any], given: Given) -> Choice:
    """The setting that values of the search stand for.

    Args:
        axes: The space.
        values: Name → value; with γ the learning rate is that of the model as it is, and follows
            the law of γ.
        given: Holds the baseline, from which the rest is taken.

    Example:
        >>> given = Given(RunConfig(batch_size=32, learning_rate=0.1).resolved(100), (32, 64))
        >>> axes = space(("batch_size", "momentum"), given)
        >>> choice(axes, {"batch_size": 64, "momentum": 0.95}, given).others
        (('momentum', 0.95),)
        >>> choice(axes, {"batch_size": 64, "momentum": 0.9}, given)
        (64, 0.1)
        >>> given = Given(given.baseline, given.sizes, depth=3)
        >>> choice(space(("gamma",), given), {"gamma": 10.0}, given)[:2]
        (32, 0.4642)
    """
    fields = {axis.field: values[axis.name] for axis in axes}
    size, rate = fields.pop("batch_size", given.size), fields.pop("learning_rate", given.rate)
    rate = given.transferred(rate, fields.get("gamma", given.baseline.gamma))
    others = tuple((n, v) for n, v in fields.items() if v != getattr(given.baseline, n))
    return Tuned(size, rate, others) if others else (size, rate)
