"""How many internal features a trained model's decisions rest on, and what each of them looks at.

The units of the layer that feeds the output, in order of importance; the metric with only the k
most important of them, the others held at their means; and the smallest k that keeps 99 % of what
all of them are good for. Fewer is not better: it is fewer to look at.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.engine.cell import one_thread
from batchlab.engine.loop import loaded
from batchlab.engine.step import DTYPES, Progress
from batchlab.errors import InvalidValueError, ValidityWarning, must
from batchlab.measure._cut import Batches, Cut, site_of
from batchlab.measure._layers import check_module
from batchlab.measure._units import column_names, described
from batchlab.measure.sparsity import participation_ratio, weights_share
from batchlab.measure.units import Unit
from batchlab.stats import mean_estimate
from batchlab.tasks import Objective, Prepared, Task, load, prepare
from batchlab.types import Estimate

SHARE = 0.99
"""Of the metric's gain over no unit at all, so much is kept."""
EXAMPLES = 2000
"""Validation examples that the metric is computed on, at most."""
LEAST_EXAMPLES = 16
ORDER_EXAMPLES = 512
"""Training examples that the order of importance and the means come from, at most."""
DRAWS = 3
SHOWN = 12
MOST_ABLATED = 256
"""More units than these are ordered by the first-order change of the loss."""
GRID = 24
HELD_BYTES = 256 * 2**20

Metrics = Callable[[int], float]
"""Give k → the metric with the first k units of an order."""


@dataclass(frozen=True)
class Kept:
    """What one trained model needs.

    Attributes:
        seed: Of the run.
        counts: Numbers of units kept, ascending, from 0 to all.
        metric: With that many of the most important units.
        random: The same with units in random order, mean over the draws.
        needed: Smallest number of the most important units that keeps 99 % of the metric's gain;
            None where the units together are no better than none.
        needed_random: The same for random orders, mean over the draws.
        active: Participation ratio of what these units say of an example (mean over its places),
            as a share of the units; mean over the examples.
        weights: Participation ratio of all weights of the model, as a share of them.
        sharpness: What the function given for it says of this model, or None.
    """

    seed: int
    counts: tuple[int, ...]
    metric: tuple[float, ...]
    random: tuple[float, ...]
    needed: int | None
    needed_random: float | None
    active: float = math.nan
    weights: float = math.nan
    sharpness: float | None = None


@dataclass(frozen=True)
class Features:
    """The units of one setting's trained models.

    Attributes:
        layer: The module that says them, or ``input of …``.
        units: How many there are.
        order: ``ablation`` or ``gradient``: how importance was measured.
        runs: A trained model each.
        needed: Units needed, mean over the models; None where no model needs any.
        needed_random: The same for random orders.
        kind: What the sheet shows: ``image``, ``signal``, ``table`` or ``none``.
        sheet: The most important units of the first model, at most 12.
        examples: Validation examples behind the metric.
        order_examples: Training examples behind the order.
        draws: Random orders.
    """

    layer: str
    units: int
    order: str
    runs: tuple[Kept, ...]
    needed: Estimate | None
    needed_random: Estimate | None
    kind: str
    sheet: tuple[Unit, ...]
    examples: int
    order_examples: int
    draws: int

    def __str__(self) -> str:
        needed = "no number of units" if self.needed is None else str(self.needed)
        head = (
            f"{needed} of the {self.units} of `{self.layer}` keep {100 * SHARE:g} % of the "
            f"metric's gain (in random order: {self.needed_random or '–'})"
        )
        return "\n".join([head, *map(str, self.sheet)])


def gains(
    values: Float[np.ndarray, " n"], none: float, whole: float, maximise: bool
) -> Float[np.ndarray, " n"]:
    """(M − M₀)/(M_H − M₀): which share of what all units add to none a metric keeps.

    The same for metrics to be maximised and minimised.

    Args:
        values: M, with some of the units.
        none: M₀, with every unit at its mean.
        whole: M_H, with all units.
        maximise: Direction of the metric.

    Returns:
        Shares; NaN throughout where all units are no better than none.

    Example:
        >>> gains(np.array([0.25, 0.5, 1.0]), none=0.0, whole=1.0, maximise=True).tolist()
        [0.25, 0.5, 1.0]
        >>> gains(np.array([1.5, 0.5]), none=2.0, whole=1.0, maximise=False).tolist()
        [0.5, 1.5]
    """
    total = whole - none
    if not (total > 0 if maximise else total < 0):
        return np.full(len(values), math.nan)
    return (values - none) / total


def grid(units: int) -> tuple[int, ...]:
    """Numbers of units to keep, from none to all: each the next, or a quarter larger.

    Args:
        units: H.

    Example:
        >>> grid(20)
        (0, 1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 20)
    """
    found = [0]
    while found[-1] < units:
        found.append(min(units, max(found[-1] + 1, math.ceil(1.25 * found[-1]))))
    return tuple(found)


def smallest(counts: Sequence[int], metric: Metrics, enough: Callable[[float], bool]) -> int:
    """The smallest k whose metric is enough: on the grid, then by halving below it.

    Exact where the grid holds every number; else it takes for granted that between two neighbours
    of the grid the metric passes the threshold once.

    Args:
        counts: Ascending; the metric at the last one is enough.
        metric: k → metric.
        enough: Whether a metric is.

    Example:
        >>> smallest((0, 1, 5, 20), lambda k: k / 20, lambda value: value >= 0.35)
        7
    """
    place = next(i for i, k in enumerate(counts) if enough(metric(k)))
    if place == 0:
        return counts[0]
    low, high = counts[place - 1], counts[place]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(metric(middle)) else (middle, high)
    return high


def importance(cut: Cut) -> tuple[Float[Tensor, " H"], str]:
    """What setting one unit to its mean adds to the mean loss: L(a_j ← ā_j) − L.

    Above 256 units, its first-order term Σ ∂L/∂a·(ā − a) instead, from one backward pass.

    Args:
        cut: The trained model on the examples that order the units.

    Returns:
        The importance of each unit, and ``ablation`` or ``gradient``.
    """
    units = cut.site.units
    if units > MOST_ABLATED:
        return cut.slopes(), "gradient"
    everything = torch.ones(units, dtype=torch.bool, device=cut.means.device)
    whole, _ = cut.answer(everything)
    found = []
    for j in range(units):
        kept = everything.clone()
        kept[j] = False
        found.append(cut.answer(kept)[0] - whole)
    return torch.tensor(found, dtype=torch.float64), "ablation"


def by_importance(values: Float[Tensor, " H"]) -> list[int]:
    """Units, the most important first; equal ones by number. What is no number comes last."""
    return torch.argsort(values.nan_to_num(-math.inf), descending=True, stable=True).tolist()


def kept_metric(cut: Cut, order: Sequence[int], means: Float[Tensor, " H"]) -> Metrics:
    """Give k → the metric with the first k units of an order, the others at their means.

    Args:
        cut: The trained model on the examples that the metric is computed on.
        order: All units.
        means: Of each unit.
    """
    known: dict[int, float] = {}

    def metric(k: int) -> float:
        if k not in known:
            kept = torch.zeros(len(order), dtype=torch.bool, device=means.device)
            kept[list(order[:k])] = True
            known[k] = cut.answer(kept, means)[1]
        return known[k]

    return metric


def curve(
    cut: Cut,
    order: Sequence[int],
    means: Float[Tensor, " H"],
    maximise: bool,
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> Kept:
    """The metric against units kept, in an order and in random ones.

    Args:
        cut: The trained model on the examples that the metric is computed on.
        order: Units, the most important first.
        means: Of each unit.
        maximise: Direction of the metric.
        seed: Of the run.
        draws: Random orders: the same for every run with as many units.
    """
    units = len(order)
    orders = [order, *(_random.permutation(units, 0, draw).tolist() for draw in range(draws))]
    counts = grid(units)
    metrics = [kept_metric(cut, one, means) for one in orders]
    none, whole = metrics[0](0), metrics[0](units)

    def enough(value: float) -> bool:
        return bool(gains(np.array([value]), none, whole, maximise)[0] >= SHARE)

    best, *others = [tuple(metric(k) for k in counts) for metric in metrics]
    found = [smallest(counts, m, enough) for m in metrics] if enough(whole) else []
    return Kept(
        seed,
        counts,
        best,
        tuple(float(np.mean(column)) for column in zip(*others, strict=True)),
        found[0] if found else None,
        float(np.mean(found[1:])) if found[1:] else None,
    )


@dataclass(frozen=True)
class _Measured:
    """One trained model."""

    kept: Kept
    order: list[int]
    importance: Tensor
    how: str


class Reader:
    """Reads trained models of one task at one site.

    Args:
        prepared: The task.
        layer: Name of the module whose output the units are; those that feed the output if None.
        precision: Of the recipe.
        examples: Validation examples, at most.
        draws: Random orders.
        by_tail: False to run the whole model each time.
        gamma: Feature-learning strength of the runs, if they have one.

    Attributes:
        site: Where the units are; None where there are none.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        layer: str | None = None,
        precision: str = "float32",
        examples: int = EXAMPLES,
        draws: int = DRAWS,
        by_tail: bool = True,
        gamma: float | None = None,
    ) -> None:
        self.prepared, self.draws, self._by_tail = prepared, draws, by_tail
        self._autocast = precision == "bfloat16"
        self._dtype = DTYPES[precision]
        self.objective = prepared.objective(0, self._dtype, gamma).eval()
        first = Batches.of(prepared.validation, 8, prepared.device, self._dtype).batches[0]
        column_names(prepared.task, first)  # refused before anything is measured
        with _random.seeded(0, "features"), one_thread(prepared.device):
            self.site = site_of(self.objective, first, layer)
        if self.site is None:
            return
        self._examples, self._most = examples, self._affordable(first)

    @cached_property
    def validation(self) -> Batches:
        """The examples that the metric is computed on; read when they are first needed."""
        return self._read(self.prepared.validation, min(self._examples, self._most))

    @cached_property
    def train(self) -> Batches:
        """The examples that order the units."""
        return self._read(self.prepared.train, min(ORDER_EXAMPLES, self._most))

    def _read(self, source: Any, most: int) -> Batches:
        return Batches.of(source, most, self.prepared.device, self._dtype)

    def _affordable(self, batch: Any) -> int:
        """Examples whose units fit into the memory they may take."""
        one = self._cut(self.objective, Batches((batch,), torch.arange(8)))
        each = one.held_bytes / 8
        return max(LEAST_EXAMPLES, int(HELD_BYTES / max(each, 1)))

    def _cut(self, objective: Objective, data: Batches) -> Cut:
        assert self.site is not None
        return Cut(
            objective,
            self.site,
            data,
            self.prepared.metric,
            autocast=self._autocast,
            by_tail=self._by_tail,
        )

    def cuts(self, objective: Objective) -> tuple[Cut, Cut]:
        """A trained model on the examples that order its units, and on those of the metric."""
        return self._cut(objective, self.train), self._cut(objective, self.validation)

    def measure(self, objective: Objective, seed: int) -> tuple[_Measured, Cut]:
        """One trained model.

        Args:
            objective: Model and loss, in evaluation mode; a copy of its own.
            seed: Of the run.
        """
        with _random.seeded(0, "features"), one_thread(self.prepared.device):
            ordering, judged = self.cuts(objective)
            values, how = importance(ordering)
            order = by_importance(values)
            maximise = self.prepared.metric.maximise
            kept = curve(judged, order, ordering.means, maximise, seed=seed, draws=self.draws)
            active = participation_ratio(judged.said).mean() / judged.site.units
            weights = weights_share(objective.module)
            kept = replace(kept, active=float(active), weights=weights)
            return _Measured(kept, order, values, how), judged

    def seconds(self) -> float:
        """What one trained model takes, from one pass and one answer of an untrained one."""
        assert self.site is not None
        with _random.seeded(0, "features"), one_thread(self.prepared.device):
            began = time.perf_counter()
            cuts = self.cuts(self.objective)
            passes = time.perf_counter() - began
            kept = torch.zeros(self.site.units, dtype=torch.bool, device=cuts[0].means.device)
            each = []
            for cut in cuts:
                began = time.perf_counter()
                cut.answer(kept)
                each.append(time.perf_counter() - began)
        counts = len(grid(self.site.units))
        halvings = math.ceil(math.log2(max(2.0, 0.25 * self.site.units)))
        ordering = self.site.units if self.site.units <= MOST_ABLATED else 3
        return passes + ordering * each[0] + (1 + self.draws) * (counts + halvings) * each[1]

    def of_state(self, progress: Progress) -> Objective:
        """The model with the parameters and buffers of a run in it."""
        return loaded(self.objective, progress).eval()


def measure_features(
    reader: Reader,
    models: Sequence[tuple[int, Callable[[], Objective]]],
    *,
    shown: int = SHOWN,
    columns: Sequence[str] | None = None,
    sharpness: Callable[[Objective], float] | None = None,
    tick: Callable[[float], None] | None = None,
) -> Features:
    """The features of trained models that differ in their seed.

    Args:
        reader: Of their task.
        models: Seed and what makes the trained model, each.
        shown: Units on the sheet.
        columns: Names of the input's columns, for tables.
        sharpness: Measures how sharp the loss is around a trained model; not measured if left out.
        tick: Told the share that is done.

    Returns:
        The record.
    """
    site = reader.site
    assert site is not None
    runs, kind, sheet, how = [], "none", (), "ablation"
    for done, (seed, make) in enumerate(models):
        if tick is not None:
            tick(done / len(models))
        model = make()
        found, judged = reader.measure(model, seed)
        sharp = None if sharpness is None else sharpness(model)
        runs.append(replace(found.kept, sharpness=sharp))
        if done == 0:
            how = found.how
            with _random.seeded(0, "features"), one_thread(reader.prepared.device):
                kind, sheet = described(
                    judged,
                    reader.prepared.task,
                    found.order[:shown],
                    found.importance.tolist(),
                    columns,
                )
    return Features(
        site.name,
        site.units,
        how,
        tuple(runs),
        units_needed([run.needed for run in runs], site.units),
        units_needed([run.needed_random for run in runs], site.units),
        kind,
        sheet,
        reader.validation.examples,
        reader.train.examples,
        reader.draws,
    )


def units_needed(found: Sequence[float | None], units: int) -> Estimate | None:
    """Mean over models of the units needed, its interval within what is possible.

    Args:
        found: Of each model; None where it needs none.
        units: H.

    Example:
        >>> print(units_needed([3, 5, None], 8))
        4 units (1 to 8, n = 2)
    """
    known = [float(value) for value in found if value is not None]
    if not known:
        return None
    made = mean_estimate(np.array(known), "units", "trained models")
    if len(known) == 1:
        return made
    return replace(made, low=max(1.0, made.low), high=min(float(units), made.high))


def features(
    task: Task | str,
    models: nn.Module | Sequence[nn.Module],
    *,
    layer: str | None = None,
    columns: Sequence[str] | None = None,
    examples: int = EXAMPLES,
    draws: int = DRAWS,
    shown: int = SHOWN,
    device: str = "auto",
) -> Features:
    """On how many internal features the decisions of a trained model rest, and what they look at.

    Units are ordered by what the loss on training examples rises when one is set to its mean. The
    metric, on validation examples, is then computed with the k most important units as they are
    and the others at their means. Nothing of the models is changed.

    Args:
        task: A :class:`Task`, a built-in name, ``file.py:function`` or ``module:function``.
        models: A trained model of it; or several, one a seed, for an interval. Of equal ones only
            the first counts.
        layer: Name of the module whose output the units are; left out, those that feed the last
            linear layer or convolution.
        columns: Names of the input's columns, for tables; left out, those of the task.
        examples: Validation examples that the metric is computed on, at most.
        draws: Random orders to compare with.
        shown: Units on the sheet.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        A record whose ``str`` names the units.

    Raises:
        UserError: With one sentence about what is wrong.

    Example:
        >>> x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
        >>> def made():
        ...     return nn.Sequential(nn.Linear(2, 3, False), nn.Linear(3, 1, False))
        >>> model = made()
        >>> _ = model[0].weight.data.zero_()[0].fill_(1.0), model[1].weight.data.fill_(1.0)
        >>> task = Task(made, (x, x.sum(1, True)), metric="r2",
        ...             loss=lambda out, batch: (out - batch[1]).square()[:, 0])
        >>> found = features(task, model, columns=["height", "width"])
        >>> found.runs[0].needed, found.units, [name for name, _ in found.sheet[0].columns]
        (1, 3, ['height', 'width'])
    """
    several = [models] if isinstance(models, nn.Module) else list(models)
    for name, value, least in (
        ("examples", examples, LEAST_EXAMPLES),
        ("draws", draws, 1),
        ("shown", shown, 0),
    ):
        if value < least:
            raise InvalidValueError(must(name, f"a whole number, {least} or more", value))
    if not several:
        raise InvalidValueError(must("models", "one trained model or more", "none"))
    for model in several:
        check_module(model)
    several = _distinct(several)
    prepared = prepare(load(task) if isinstance(task, str) else task, device=device)
    reader = Reader(prepared, layer=layer, examples=examples, draws=draws)
    if reader.site is None:
        hint = "Name a module whose output holds the units with `layer=`."
        got = "one without a layer before its last one"
        raise InvalidValueError(must("models", "networks with hidden units", got, hint))
    makers = [(i, lambda model=model: _own(reader, model)) for i, model in enumerate(several)]
    return measure_features(reader, makers, shown=shown, columns=columns)


def _distinct(models: Sequence[nn.Module]) -> list[nn.Module]:
    """Each state once: the same model again would narrow the interval and tell nothing."""
    kept: list[nn.Module] = []
    for model in models:
        if not any(_equal(model.state_dict(), other.state_dict()) for other in kept):
            kept.append(model)
    if len(kept) < len(models):
        warnings.warn(
            f"{len(models) - len(kept)} of {len(models)} models are equal to an earlier one and "
            "are left out.",
            ValidityWarning,
            stacklevel=3,
        )
    return kept


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name].to(value.device)) for name, value in one.items()
    )


def _own(reader: Reader, model: nn.Module) -> Objective:
    """A copy of the task's model with the state of the user's in it."""
    mine, theirs = (
        {name: tuple(value.shape) for name, value in module.state_dict().items()}
        for module in (reader.objective.module, model)
    )
    if mine != theirs:
        wrong = sorted(set(mine) ^ set(theirs))[:3] or "other shapes"
        raise InvalidValueError(must("models", "trained models of the task", wrong))
    objective = loaded(
        reader.objective,
        Progress(
            {f"module.{n}": p.detach() for n, p in model.named_parameters()},
            {f"module.{n}": b.detach() for n, b in model.named_buffers()},
            None,
        ),
    )
    return objective.eval()


@dataclass(frozen=True)
class FeaturesProbe:
    """A probe for the engine; see :func:`features_probe`."""

    prepared: Prepared
    precision: str
    examples: int
    gamma: float | None = None

    @property
    def name(self) -> str:
        """What this probe measures, in the plan."""
        return f"features on {self.examples} examples"

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """Units needed as named floats."""
        given = {"precision": self.precision, "examples": self.examples, "gamma": self.gamma}
        reader = Reader(self.prepared, draws=1, **given)
        if reader.site is None:
            return {}
        own = copy.deepcopy(objective, {id(objective.task): objective.task}).eval()
        kept = reader.measure(own, 0)[0].kept
        needed = math.nan if kept.needed is None else float(kept.needed)
        return {"features.needed": needed, "features.units": float(reader.site.units)}


def features_probe(
    prepared: Prepared, config: RunConfig, *, examples: int = ORDER_EXAMPLES
) -> FeaturesProbe:
    """Features needed as a probe that the engine takes during training.

    It records ``features.needed``, NaN where all units are no better than none, and
    ``features.units``; nothing where the model has no hidden units.

    Args:
        prepared: The task.
        config: The resolved run; its precision is that of the evaluation.
        examples: Validation examples a moment, at least 16.

    Returns:
        ``(objective, samples) → values``.
    """
    if examples < LEAST_EXAMPLES:
        raise InvalidValueError(must("examples", f"at least {LEAST_EXAMPLES}", examples))
    return FeaturesProbe(prepared, config.precision or "float32", examples, config.gamma)
