"""Which settings are tried next, asked of Optuna's tree-structured Parzen estimator.

Nothing is kept between two questions: what was found so far is told anew each time, so that the
answer depends on it and on a seed alone, and a resumed search asks the same.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from batchlab.advisor.tuning.space import Axis
from batchlab.errors import missing
from batchlab.types import Status

STARTUP = 10
"""Settings tried at random before the estimator is trusted."""
STATIC = ("batch_size", "schedule", "reuse")
"""Runs that share these train together in one stack."""
AGAIN = 5
"""How often a setting that was tried already is asked anew."""
LOST, DIVERGED = 5.0, 6.0
"""What a setting counts that did not learn half as much as today's, and one that diverged: e⁵
times as slow, worse than any that learnt, and never dropped."""
FLAT = 1.5
"""For the importance everything 4.5 times as slow or worse is alike: what matters is asked of
settings that train."""
TREES = 16
LEAST_EACH = 4
"""Settings per axis from which on an importance is told."""


@dataclass(frozen=True)
class Told:
    """What is known of one setting.

    Attributes:
        values: Name → value.
        value: Less is better; infinite where it did not learn.
        status: How it ended.
    """

    values: Mapping[str, Any]
    value: float
    status: Status = Status.OK

    @property
    def finite(self) -> float:
        """The value, with one for settings that did not learn.

        Example:
            >>> Told({}, math.inf).finite, Told({}, math.inf, Status.DIVERGED).finite
            (5.0, 6.0)
        """
        if self.status is Status.DIVERGED:
            return DIVERGED
        return min(self.value, LOST) if math.isfinite(self.value) else LOST


def library() -> Any:
    """Optuna.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        raise missing("optuna", "optuna") from error


def propose(
    axes: Sequence[Axis], told: Sequence[Told], *, leads: int, siblings: int, seed: int
) -> list[dict[str, Any]]:
    """The next settings, none of which was tried before.

    Each lead is proposed freely; its siblings share with it what a stack has to share (batch size,
    schedule, updates per batch, a γ or none) and differ in the rest.

    Args:
        axes: The space.
        told: What is known so far, in the order in which it was proposed.
        leads: Settings proposed freely.
        siblings: Settings with each lead, itself among them, 1 or more.
        seed: Names every draw.

    Returns:
        Name → value, at most ``leads`` × ``siblings`` of them; fewer where the space has no more.

    Source:
        bergstra2011.
    """
    with _quiet() as optuna:
        free = _sampler(optuna, seed)
        study = _study(optuna, axes, told, free)
        tried = [dict(one.values) for one in told]
        found: list[dict[str, Any]] = []
        for _ in range(leads):
            study.sampler = free
            lead = _new(optuna, study, axes, tried)
            if lead is None:
                continue
            found.append(lead)
            static = STATIC if _wrapped(lead) else (*STATIC, "gamma")
            fixed = {a.name: a.coordinate(lead[a.name]) for a in axes if a.name in static}
            study.sampler = optuna.samplers.PartialFixedSampler(fixed, free)
            more = (_new(optuna, study, axes, tried, lead) for _ in range(siblings - 1))
            found += [one for one in more if one is not None]
    return found


def importance(axes: Sequence[Axis], told: Sequence[Told], seed: int) -> dict[str, float]:
    """How much of the differences between settings each axis explains.

    Args:
        axes: The space.
        told: What is known.
        seed: Names the trees of the estimate.

    Returns:
        Name → share in [0, 1], largest first; empty where too few were tried or all are alike.

    Source:
        hutter2014 (functional analysis of variance).
    """
    values = {min(one.finite, FLAT) for one in told}
    if len(axes) < 2 or len(told) < LEAST_EACH * len(axes) or len(values) < 2:
        return {}
    flat = [Told(one.values, min(one.finite, FLAT)) for one in told]
    with _quiet() as optuna:
        study = _study(optuna, axes, flat, _sampler(optuna, seed))
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


@contextmanager
def _quiet() -> Iterator[Any]:
    """Optuna without its log and without its warnings of options that may change."""
    optuna = library()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _sampler(optuna: Any, seed: int) -> Any:
    """Axis by axis: all together, some of them held, fall behind random draws."""
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=False, constant_liar=True, n_startup_trials=STARTUP
    )


def _study(optuna: Any, axes: Sequence[Axis], told: Sequence[Told], sampler: Any) -> Any:
    """A study that knows what was told."""
    study = optuna.create_study(direction="minimize", sampler=sampler)
    spaces = distributions(optuna, axes)
    for one in told:
        params = {axis.name: axis.coordinate(one.values[axis.name]) for axis in axes}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=spaces, value=one.finite)
        )
    return study


def distributions(optuna: Any, axes: Sequence[Axis]) -> dict[str, Any]:
    """Name → distribution of its coordinate."""
    kinds = optuna.distributions
    found = {}
    for axis in axes:
        if axis.scale == "names":
            found[axis.name] = kinds.CategoricalDistribution(axis.values)
        elif axis.scale == "ordered":
            found[axis.name] = kinds.IntDistribution(0, len(axis.values) - 1)
        else:
            found[axis.name] = kinds.FloatDistribution(axis.low, axis.high, log=True)
    return found


def _new(
    optuna: Any,
    study: Any,
    axes: Sequence[Axis],
    tried: list[dict[str, Any]],
    lead: dict[str, Any] | None = None,
) -> dict[str, Any] | None:
    """A setting that was not tried before, which counts as tried from now on; or None. Beside a
    lead, one with a γ where that has one.
    """
    for _ in range(AGAIN):
        trial = study.ask(distributions(optuna, axes))
        values = {axis.name: axis.value(trial.params[axis.name]) for axis in axes}
        if values not in tried and (lead is None or _wrapped(values) == _wrapped(lead)):
            tried.append(values)
            return values
    return None


def _wrapped(values: Mapping[str, Any]) -> bool:
    """Whether a setting has a γ."""
    return values.get("gamma") is not None
