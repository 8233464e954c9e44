"""Which learning rates train at each γ: from above, then finer at the edge.

As in the source, rates come down from 10¹²; here by decades and for a few updates, to know below
which all is worth training. From there on the grid is trained in full, and the edge between what
learns and what does not is bisected.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab.studies.feature_strength import faults
from batchlab.studies.feature_strength.inspect import Inspector
from batchlab.studies.feature_strength.nets import (
    Moment,
    Setting,
    Watch,
    probe,
    start,
    stream,
    train,
)
from batchlab.theory.feature_strength import Loss

HIGHEST, LOWEST = 12, -14
"""Decades between which the edge is looked for."""
SHORT = 16
"""Updates of the first descent."""
AT_ONCE = 9
"""Decades of it that are tried together, from the lowest up: what lies above the edge of a γ need
not be."""
LAST = 0.1
"""Share of the updates whose mean loss is the final one."""
BOUNDED = 1e12
"""A run whose loss exceeds this many times that of predicting 0 is on its way to infinity."""
FELL = 0.9
"""A run has learned if its final loss is below this share of what predicting 0 loses."""
ENOUGH = 250
"""Examples that this takes. Over predicting 0, an output F that says nothing of y gains
mean(2Fy − F²), of mean −F² and, over n examples, of standard deviation 2|F|/√n. To count as
learned it would have to gain 1 − FELL, at z = (0.1 + F²)√n/(2|F|) ≥ √(0.1n): 5 at n = 250."""
PROBE = 2048
"""Fixed examples on which a run is judged that sees fewer in the end."""

TIED = 1.2
"""A run is as good as the best if its final loss is at most this many times the smallest."""


class State(StrEnum):
    """What became of a run."""

    LEARNED = "learned"
    DEAD = "did not learn"
    """Finite throughout, without its loss falling."""
    DIVERGED = "diverged"


@dataclass(frozen=True)
class Sweep:
    """A plane of γ and η.

    Attributes:
        setting: What all runs share.
        gammas: γ.
        per_decade: Rates a decade.
        span: Decades of rates below the first that survives the short descent, and one above.
        rounds: Bisections of the largest rate.
        calm: Below which peak the smallest rate has to stay: rates go down by decades until it
            does. None: as far as ``span``.
        fault: A name in ``faults.FAULTS``.
    """

    setting: Setting
    gammas: tuple[float, ...]
    per_decade: int = 4
    span: float = 3.0
    rounds: int = 0
    calm: float | None = None
    fault: str = "none"


@dataclass(frozen=True)
class Run:
    """One run of a plane.

    Attributes:
        gamma: γ.
        rate: log₁₀ η.
        state: What became of it.
        loss: Mean over the last tenth of the updates, over that of predicting 0 on the same
            examples; NaN if it diverged. On :data:`PROBE` others if these are fewer than
            :data:`ENOUGH`.
        peak: Largest loss of any batch over that of predicting 0.
    """

    gamma: float
    rate: float
    state: State
    loss: float
    peak: float


def run(sweep: Sweep, seed: int) -> list[Run]:
    """Train a plane.

    Args:
        sweep: Which.
        seed: Name of start and stream, the same for all its runs.

    Returns:
        A run for each γ and rate, ascending in both; those of the bisections too.
    """
    sweep = replace(sweep, setting=faults.altered(sweep.setting, sweep.fault))
    found = _trained(sweep, seed, grid(sweep, seed))
    while wanted := _below(sweep, found):
        found += _trained(sweep, seed, wanted)
    for _ in range(sweep.rounds):
        edges = [edge(found, gamma) for gamma in sweep.gammas]
        between = [
            (gamma, (low + high) / 2)
            for gamma, (low, high) in zip(sweep.gammas, edges, strict=True)
            if math.isfinite(low + high)
        ]
        found += _trained(sweep, seed, between)
    return sorted(found, key=lambda one: (one.gamma, one.rate))


def grid(sweep: Sweep, seed: int) -> list[tuple[float, float]]:
    """γ and log₁₀ η of a plane, rates descending."""
    tops, count = _tops(sweep, seed), round((sweep.span + 1) * sweep.per_decade)
    return [
        (gamma, top + 1 - k / sweep.per_decade)
        for gamma, top in zip(sweep.gammas, tops, strict=True)
        for k in range(count + 1)
    ]


def _below(sweep: Sweep, found: Sequence[Run]) -> list[tuple[float, float]]:
    """The next decade down at each γ whose smallest rate is not calm yet."""
    wanted: list[tuple[float, float]] = []
    if sweep.calm is None:
        return wanted
    for gamma in sweep.gammas:
        least = min(one.rate for one in found if one.gamma == gamma)
        if least > LOWEST and math.isnan(highest(found, gamma, sweep.calm)):
            steps = range(1, sweep.per_decade + 1)
            wanted += [(gamma, least - k / sweep.per_decade) for k in steps]
    return wanted


def best(runs: Sequence[Run], gamma: float) -> float:
    """log₁₀ of the best rate: of all that end within a fifth of the smallest loss, the middle.

    Where many rates do as well, noise would choose among them.

    Returns:
        NaN if none learned.
    """
    learned = [one for one in runs if one.gamma == gamma and one.state is State.LEARNED]
    least = min((one.loss for one in learned), default=math.nan)
    tied = [one.rate for one in learned if one.loss <= TIED * least]
    return (min(tied) + max(tied)) / 2 if tied else math.nan


def edge(runs: Sequence[Run], gamma: float) -> tuple[float, float]:
    """Going up from the best rate, log₁₀ of the last that learned and of the next, which did not.

    Returns:
        NaN where nothing learned, infinity where no rate was too large.
    """
    return _edge(runs, gamma, 1)


def lower_edge(runs: Sequence[Run], gamma: float) -> tuple[float, float]:
    """The same going down: the last that learned, and the next, which did not or −∞."""
    return _edge(runs, gamma, -1)


def onset(runs: Sequence[Run], gamma: float) -> float:
    """log₁₀ of the smallest rate that learns, between two runs by a straight line in log loss.

    Args:
        runs: A plane.
        gamma: γ.

    Returns:
        NaN where nothing learned.
    """
    last, below = lower_edge(runs, gamma)
    losses = {one.rate: one.loss for one in runs if one.gamma == gamma}
    if not math.isfinite(below) or not math.isfinite(losses[below]):
        return last
    ends = math.log(losses[last]), math.log(losses[below])
    return last + (below - last) * (math.log(FELL) - ends[0]) / (ends[1] - ends[0])


def highest(runs: Sequence[Run], gamma: float, peak: float) -> float:
    """Going up, log₁₀ of the last rate before the loss of a batch exceeds a peak; NaN if none."""
    here = sorted((one for one in runs if one.gamma == gamma), key=lambda one: one.rate)
    calm = itertools.takewhile(lambda one: one.peak < peak, here)
    return max((one.rate for one in calm), default=math.nan)


def _edge(runs: Sequence[Run], gamma: float, way: int) -> tuple[float, float]:
    here = sorted((one for one in runs if one.gamma == gamma), key=lambda one: way * one.rate)
    learned = [one for one in here if one.state is State.LEARNED]
    if not learned:
        return math.nan, math.nan
    last = min(learned, key=lambda one: (one.loss, one.rate)).rate
    for one in here:
        if way * one.rate <= way * last:
            continue
        if one.state is not State.LEARNED:
            return last, one.rate
        last = one.rate
    return last, way * math.inf


def _tops(sweep: Sweep, seed: int) -> list[float]:
    """For each γ, the highest decade of η that survives a few updates."""
    setting = replace(sweep.setting, updates=min(SHORT, sweep.setting.updates))
    tops, left = dict.fromkeys(sweep.gammas, LOWEST), list(sweep.gammas)
    for first in range(LOWEST, HIGHEST + 1, AT_ONCE):
        decades = range(first, min(first + AT_ONCE, HIGHEST + 1))
        losses = _losses(setting, sweep.fault, seed, list(itertools.product(left, decades)))
        alive = (losses < BOUNDED).all(1).view(len(left), -1)
        # Units may die before the loss is infinite: the lowest unbroken stretch counts.
        stretch = alive.long().cumprod(1).sum(1).tolist()
        tops |= {g: max(LOWEST, first + k - 1) for g, k in zip(left, stretch, strict=True)}
        left = [g for g, k in zip(left, stretch, strict=True) if k == len(decades)]
        if not left:
            break
    return [tops[gamma] for gamma in sweep.gammas]


def _losses(
    setting: Setting,
    fault: str,
    seed: int,
    asked: Sequence[tuple[float, float]],
    watch: Watch | None = None,
) -> Float[Tensor, "R T"]:
    gammas = [faults.divisor(gamma, fault) for gamma, _ in asked]
    rates = [10.0**rate for _, rate in asked]
    return train(setting, seed, gammas, rates, watch=watch, at=(setting.updates,))


def _trained(sweep: Sweep, seed: int, asked: Sequence[tuple[float, float]]) -> list[Run]:
    if not asked:
        return []
    losses, finals = _judged(sweep, seed, asked)
    peaks = losses.nan_to_num(0.0).amax(1) / losing(sweep.setting.loss)
    told = zip(asked, finals.tolist(), peaks.tolist(), strict=True)
    return [
        Run(gamma, rate, state(final, sweep.fault), final, peak)
        for (gamma, rate), final, peak in told
    ]


def _judged(
    sweep: Sweep, seed: int, asked: Sequence[tuple[float, float]]
) -> tuple[Float[Tensor, "R T"], Float[Tensor, " R"]]:
    """Losses, and those in the end over what predicting 0 loses on the same examples."""
    setting = sweep.setting
    count = max(1, round(LAST * setting.updates))
    if count * setting.batch_size >= ENOUGH:
        losses, labels = _losses(setting, sweep.fault, seed, asked), stream(setting, seed).labels
        return losses, losses[:, -count:].mean(1) / unlearned(labels[-count:], setting.loss)
    examples = probe(setting, PROBE)
    inspector = Inspector(setting, start(setting, seed), examples)
    gammas = torch.tensor([faults.divisor(gamma, sweep.fault) for gamma, _ in asked])
    finals = torch.full((len(asked),), math.nan, dtype=torch.float64)

    def watch(moment: Moment) -> None:
        finals[moment.runs] = inspector.losses(moment.net, gammas[moment.runs])

    losses = _losses(setting, sweep.fault, seed, asked, watch)
    return losses, finals / unlearned(examples[1], setting.loss)


def unlearned(labels: Tensor, loss: Loss) -> float:
    """What predicting 0 loses on some examples.

    Example:
        >>> unlearned(torch.tensor([1.0, -3.0]), "squared")
        5.0
    """
    return float(labels.square().mean()) if loss == "squared" else losing(loss)


def losing(loss: Loss) -> float:
    """The same on average over all examples."""
    return 1.0 if loss == "squared" else math.log(2)


def state(final: float, fault: str = "none") -> State:
    """What a run's final loss says.

    Args:
        final: Over what predicting 0 loses on the same examples; NaN if it diverged.
        fault: With ``any finite run``, whatever is finite has learned.

    Example:
        >>> [str(state(loss)) for loss in (0.2, 1.3, math.nan)]
        ['learned', 'did not learn', 'diverged']
    """
    if not math.isfinite(final):
        return State.DIVERGED
    return State.LEARNED if final < FELL or fault == "any finite run" else State.DEAD
