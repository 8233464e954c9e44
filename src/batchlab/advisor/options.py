"""What the user asks of an advice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from batchlab import _platform
from batchlab.advisor.record import Price
from batchlab.advisor.tuning.space import ALL, names_of
from batchlab.errors import InvalidValueError, must
from batchlab.models.feature_strength import checked_gamma
from batchlab.tasks.subset import parse_subset

OBJECTIVES = ("time", "cost", "samples", "accuracy")
PREFERENCES = ("repeatable", "sparse", "flat")
MOST_SEEDS = 900
"""Choosing seeds end where the fresh ones begin."""


@dataclass(frozen=True)
class Options:
    """What to optimise, how much to spend, and how sure to be.

    Attributes:
        objective: ``time``, ``cost``, ``samples`` or ``accuracy``.
        at_least: Metric → least acceptable value on validation data (largest, if the metric is
            minimised).
        target: Metric value that counts as trained, or None for what four in five baseline runs
            reach.
        worth: Smallest gain worth a change, a ratio above 1.
        budget: Seconds, or None.
        price: What an hour and a sample cost, or None.
        seeds: Repeats used for choosing.
        confirm_seeds: Fresh repeats used for the reported comparison.
        batch_sizes: Candidates, or None to choose them from the measured noise scale.
        from_checkpoint: File with a ``state_dict`` from which the projection starts, or None.
        seed: Names every random draw.
        memory_limit: Bytes a run may take, or None for what the machine has.
        subset: Part of the training data, such as ``10%`` or ``5000``; None for all of it.
        robustness: Whether robustness and repeatability are measured after stage C.
        prefer: Decides among finalists that cannot be told apart: ``repeatable`` takes the one
            whose trainings agree best, ``sparse`` the one whose decisions rest on the fewest
            internal features, ``flat`` the one with the smallest largest eigenvalue of the
            Hessian, where that is surely less than the best one's; or None.
        growing: Whether batches that grow are tried where the budget pays for it.
        tune: Settings that are searched together, names of
            :data:`batchlab.advisor.tuning.space.TABLE` or ``all``; empty for batch size and
            learning rate alone, each size for itself.
        gammas: Feature-learning strengths γ that are tried beside the best batch size; empty for
            none.
        seconds_per_sample: Seconds to read one fresh sample in the user's own training, beside
            what is timed here; added to computing.
        world_size: Processes that train together, each with an equal part of every batch.

    Example:
        >>> Options(objective="time", worth=1.2).confirm_seeds
        8
    """

    objective: str = "time"
    at_least: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    worth: float = 1.2
    budget: float | None = None
    price: Price | None = None
    seeds: int = 5
    confirm_seeds: int = 8
    batch_sizes: tuple[int, ...] | None = None
    from_checkpoint: str | None = None
    seed: int = 0
    memory_limit: str | int | None = None
    subset: str | None = None
    robustness: bool = False
    prefer: str | None = None
    growing: bool = True
    tune: tuple[str, ...] = ()
    gammas: tuple[float, ...] = ()
    seconds_per_sample: float = 0.0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InvalidValueError(
                must("objective", f"one of {', '.join(OBJECTIVES)}", self.objective)
            )
        if self.objective == "cost" and self.price is None:
            hint = "Add --price-per-hour (and --currency), or use --objective time."
            raise InvalidValueError(
                must(
                    "objective", "time, samples or accuracy where no price is given", "cost", hint
                )
            )
        if self.prefer not in (None, *PREFERENCES):
            raise InvalidValueError(
                must("prefer", f"left out, or one of {', '.join(PREFERENCES)}", self.prefer)
            )
        if self.tune:
            _check_tuned(self)
        for gamma in self.gammas:
            checked_gamma(gamma)
        if not 1 < self.worth < math.inf:
            raise InvalidValueError(must("worth", "a ratio above 1, such as 1.2", self.worth))
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise InvalidValueError(
                must("budget", "above 0 seconds", self.budget, "Write 90s, 2m or 1h.")
            )
        for name, least in (("seeds", 2), ("confirm_seeds", 3), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise InvalidValueError(must(name, f"a whole number, {least} or more", value))
        if self.seeds > MOST_SEEDS:
            raise InvalidValueError(must("seeds", f"at most {MOST_SEEDS}", self.seeds))
        if not 0 <= self.seconds_per_sample < math.inf:
            raise InvalidValueError(
                must("seconds_per_sample", "0 seconds or more", self.seconds_per_sample)
            )
        for size in self.batch_sizes or ():
            if size < 1:
                raise InvalidValueError(must("batch_sizes", "whole numbers, 1 or more", size))
        if self.memory_limit is not None:
            _platform.parse_bytes(self.memory_limit)
        if self.subset is not None:
            parse_subset(self.subset)
        demands = dict(self.at_least) | ({} if self.target is None else {"target": self.target})
        for name, value in demands.items():
            if not math.isfinite(value):
                raise InvalidValueError(must(name, "a finite metric value", value))


def _check_tuned(options: Options) -> None:
    """What a search over all settings cannot be asked for."""
    names = names_of(options.tune)
    if options.batch_sizes and not {"batch_size", ALL} & set(names):
        hint = "Add batch_size to --tune."
        raise InvalidValueError(
            must("batch_sizes", "left out where they are not tuned", options.batch_sizes, hint)
        )
    if options.gammas:
        hint = "Add gamma to --tune."
        raise InvalidValueError(must("gammas", "left out with tune", options.gammas, hint))
    if options.from_checkpoint is not None:
        hint = "Momentum and schedule act from the beginning of a training."
        raise InvalidValueError(
            must("from_checkpoint", "left out with tune", options.from_checkpoint, hint)
        )
