"""From a cell to the rows of its table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import nn

from batchlab import _random
from batchlab.models.neuron import ThreeLayerAutoencoder, TiedAutoencoder
from batchlab.studies.autoencoder import general, nets
from batchlab.studies.autoencoder.batches import Batches, whole_passes
from batchlab.studies.autoencoder.faults import Runs, decayed, planted
from batchlab.studies.autoencoder.simulate import (
    SPARSE,
    Ends,
    Setting,
    blocks,
    follow,
    settle,
    starts,
    train,
)
from batchlab.studies.claim import Bench, Cell, Row, Value
from batchlab.tasks import Prepared
from batchlab.theory import autoencoder as theory

Settings = Mapping[str, Value]
Columns = dict[str, np.ndarray]
"""Name → one number per repetition."""

LEAST_RATIO, MOST_RATIO, HALVINGS = 0.25, 1.0, 9
"""Between which η/b a stability limit is looked for, and how often the range is halved."""

LIMIT_TIMES = 2.0
"""Predicted times to sparsity, at the smallest step size, in which a run must arrive."""

ARRIVED = 1e-6
"""A run has reached a global minimum when less than this is left of what can be learned."""


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """The rows of a cell: a function of its settings and the bench's seed.

    Args:
        cell: What is measured.
        bench: Where.
    """
    seeds = [_random.key(bench.seed, "autoencoder", i) for i in range(int(cell.settings["seeds"]))]
    columns = MEASURES[cell.settings["what"]](cell.settings, seeds)
    plain = {name: column.tolist() for name, column in columns.items()}
    return [
        {"repetition": i, **{name: column[i] for name, column in plain.items()}}
        for i in range(len(seeds))
    ]


def _runs(settings: Any) -> Runs:
    asked = Runs(
        settings["batch_size"], settings["ratio"], settings["activation"], settings["sampling"]
    )
    return planted(settings["fault"], settings["examples"], asked)


def _settled(settings: Any, seeds: list[int]) -> tuple[np.ndarray, Ends, Runs]:
    """w(0) and where the runs of a cell end: the full batch by the module, others by scales."""
    runs, examples = _runs(settings), settings["examples"]
    start = starts(seeds, settings["dimensions"])
    if runs.batch_size == examples:
        return start, nets.arrive(start, examples, runs.activation, runs.ratio), runs
    sampling: Any = runs.sampling
    setting = Setting(Batches(examples, runs.batch_size, sampling), runs.activation)
    ratios = np.full(len(seeds), runs.ratio)
    return start, settle(start, seeds, ratios, setting, settings["longest"] or None), runs


def ends(settings: Any, seeds: list[int]) -> Columns:
    """Where each run ends; what only an ended run has is NaN for one that was given up."""
    start, found, runs = _settled(settings, seeds)
    w, n, fault = found.weights, settings["examples"], settings["fault"]
    noise = theory.disagreement(n, settings["batch_size"]) * settings["ratio"] ** 2
    updates = found.updates.astype(float)
    if fault == "passes-for-updates":
        updates = updates * runs.batch_size / n
    cosine = theory.cosine(w, start)
    with np.errstate(invalid="ignore"):  # of ReLU with no active coordinate there is no limit
        limit = theory.cosine(w, theory.full_batch_limit(start, n, runs.activation))
    of_ended = {
        "updates": updates,
        "clock": updates * noise,
        "cosine": cosine,
        "overlap": 1 / np.abs(cosine) if fault == "inverted-cosine" else np.abs(cosine),
        "limit": limit,
        **_winners(start, w, n, runs, fault),
    }
    return {
        "missing": theory.missing(w, n, runs.activation),
        "breadth": nets.effective(w),
        "start_breadth": nets.effective(start[:, :n]),
        **_ended(found, of_ended),
    }


def _ended(found: Ends, columns: Columns) -> Columns:
    """The columns with NaN where a run was given up: its end is not known, and no number."""
    return {name: np.where(found.settled, column, np.nan) for name, column in columns.items()}


def _winners(start: np.ndarray, w: np.ndarray, n: int, runs: Runs, fault: str) -> Columns:
    """The winner's share of w(0)², and its rank, among the coordinates that could win."""
    able = theory.active(start, n, runs.activation)
    squares = np.where(able, np.square(start), 0.0)
    if fault == "inverted-start":
        squares = np.where(able, 1.0 / np.where(able, squares, 1.0), 0.0)
    won = np.square(w).argmax(-1)[:, None]
    own = np.take_along_axis(squares, won, -1)
    below = ((squares < own) & able).sum(-1)
    rivals = np.maximum(able.sum(-1) - 1, 1)
    share = own[:, 0] / squares.sum(-1)
    return {"win_rank": below / rivals, "win_share": share}


def curvature(settings: Any, seeds: list[int]) -> Columns:
    """Trace and top eigenvalue of the Hessian by automatic differentiation."""
    _, found, runs = _settled(settings, seeds)
    w, n, fault = found.weights, settings["examples"], settings["fault"]
    squares = np.square(w)
    small = squares <= decayed(fault) * squares.sum(-1, keepdims=True)
    w = np.where(small, 0.0, w)
    hessians = nets.neuron_hessians(w, n, runs.activation)
    hessians = hessians * (n * (n if fault == "sum-for-mean" else 1))
    columns = {
        "trace": np.trace(hessians, axis1=1, axis2=2),
        "top": np.linalg.eigvalsh(hessians)[:, -1],
        "active": theory.active(w, n, runs.activation).sum(-1),
    }
    return _ended(found, columns)


def stability(settings: Any, seeds: list[int]) -> Columns:
    """The largest η/b at which a run still arrives, by bisection, over the predicted ½."""
    n, b = settings["examples"], settings["batch_size"]
    setting = Setting(Batches(n, b), settings["activation"])
    start = starts(seeds, n)
    noise = theory.disagreement(n, b) * LEAST_RATIO**2
    updates = int(LIMIT_TIMES * theory.SPARSITY_CONSTANT / noise) if noise else 500
    factor = planted(settings["fault"], n, Runs(b, 1.0, "linear", "uniform")).ratio
    low, high = np.full(len(seeds), LEAST_RATIO / factor), np.full(len(seeds), MOST_RATIO)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        good = _arrives(start, seeds, factor * middle, setting, updates)
        low, high = np.where(good, middle, low), np.where(good, high, middle)
    return {"limit": (low + high) / 2 / (theory.largest_step(b) / b)}


def _arrives(
    start: np.ndarray, seeds: list[int], ratios: np.ndarray, setting: Setting, updates: int
) -> Bool[np.ndarray, " R"]:
    """Whether each run is at a global minimum after so many updates, one by one."""
    w, batches = start, setting.batches
    with np.errstate(over="ignore", invalid="ignore"):
        for indices in blocks(batches, seeds, updates):
            w = follow(w, indices, ratios, setting)
        return np.abs(theory.missing(w, batches.examples, setting.activation)) < ARRIVED


def two(settings: Any, seeds: list[int]) -> Columns:
    """Of two coordinates, the predicted chance of the first and whether it won."""
    start, found, _ = _settled(settings, seeds)
    chance = theory.chance_of_two(start[:, 0], start[:, 1])
    wrong = {
        "inverted-start": 1.0 - chance,
        "squares-for-angle": np.square(start[:, 0]) / np.square(start).sum(-1),
    }
    w = np.square(found.weights)
    won = _ended(found, {"won": w[:, 0] > w[:, 1]})
    return {"chance": wrong.get(settings["fault"], chance), **won}


def partition(settings: Any, seeds: list[int]) -> Columns:
    """A fixed partition: what is left of each run, against w(0) in the batch that won, if one."""
    start, found, _ = _settled(settings, seeds)
    n, b = settings["examples"], settings["batch_size"]
    blocks = np.square(found.weights).reshape(len(seeds), n // b, b).sum(-1)
    won = blocks.argmax(-1)[:, None, None]
    first = np.take_along_axis(start.reshape(len(seeds), n // b, b), won, 1)[:, 0]
    alone = blocks.max(-1) > (1 - SPARSE) * blocks.sum(-1)
    here, there = nets.effective(found.weights), nets.effective(first)
    return {"breadth": here, "first": there, "kept": np.where(alone, here / there, np.nan)}


def engine(settings: Any, seeds: list[int]) -> Columns:
    """The largest difference between the engine's weights and the fast simulation's."""
    n, b, activation = settings["examples"], settings["batch_size"], settings["activation"]
    model = functools.partial(TiedAutoencoder, n, 1, activation)
    prepared = nets.task(model, np.eye(n), "one neuron")
    updates, ratio = settings["updates"], settings["ratio"]
    states = nets.train(prepared, nets.configs(seeds, b, ratio * b, updates), settings["executor"])
    weights = np.stack([_weight(state) for state in states])
    setting = Setting(Batches(n, b, "stream"), activation)
    factor = planted(settings["fault"], n, Runs(b, ratio, activation, "stream")).ratio
    ratios = np.full(len(seeds), factor)
    expected = train(starts(seeds, n), seeds, ratios, setting, updates)
    difference = np.abs(weights - expected).max(-1)
    return {"difference": difference, "breadth": nets.effective(weights)}


def _weight(state: Any) -> np.ndarray:
    return state.progress.params["module.weight"][0].numpy()


def data(settings: Any, seeds: list[int]) -> Columns:
    """One neuron on other data, or with momentum: after half of all updates, and after all."""
    n, b, amount = settings["examples"], settings["batch_size"], settings["amount"]
    kinds: dict[str, Callable[[], np.ndarray]] = {
        "correlated": lambda: general.correlated(n, amount),
        "unequal": lambda: general.unequal(n, amount),
        "digits": lambda: general.digits(n, centred=bool(amount)),
        "momentum": lambda: np.eye(n),
    }
    examples, momentum = kinds[settings["kind"]](), 0.0
    if settings["kind"] == "momentum":
        momentum = amount
    largest = float(np.linalg.eigvalsh(examples @ examples.T)[-1])
    rate = settings["ratio"] * b * (1 - momentum) / largest
    recipe = general.Recipe(Batches(n, b), settings["activation"], rate, momentum)
    start = starts(seeds, examples.shape[1])
    moments = (settings["updates"] // 2, settings["updates"])
    half, end = general.train(start, examples, seeds, recipe, moments)
    return {
        "breadth": nets.effective(end @ examples.T),
        "half_breadth": nets.effective(half @ examples.T),
        "start_breadth": nets.effective(start @ examples.T),
    }


def switch(settings: Any, seeds: list[int]) -> Columns:
    """One neuron trained with b < n until sparse, then its module on all data."""
    start, found, runs = _settled(settings, seeds)
    n, updates = settings["examples"], settings["updates"]
    after = nets.descend(found.weights, n, runs.activation, runs.ratio * n, updates)
    throughout = nets.arrive(start, n, runs.activation, runs.ratio)
    whole = {"throughout": nets.effective(throughout.weights)}
    kept = {"before": nets.effective(found.weights), "after": nets.effective(after)}
    return {**whole, **_ended(found, kept)}


def neurons(settings: Any, seeds: list[int]) -> Columns:
    """Several neurons with ReLU on orthonormal data; η/b is the same for both batch sizes."""
    n, ratio = settings["examples"], settings["ratio"]
    model = functools.partial(TiedAutoencoder, n, settings["neurons"], "relu")
    return _switched(model, np.eye(n), settings, seeds, lambda size: ratio * size)


def digit_nets(settings: Any, seeds: list[int]) -> Columns:
    """A net on real digits; η is the same for both batch sizes."""
    models = {
        "tied": functools.partial(TiedAutoencoder, 64, 16, "relu"),
        "three-layer": functools.partial(ThreeLayerAutoencoder, 64, 16),
    }
    pictures, rate = general.digits(settings["examples"]), settings["learning_rate"]
    return _switched(models[settings["net"]], pictures, settings, seeds, lambda size: rate)


def _switched(
    model: Callable[[], nn.Module],
    examples: np.ndarray,
    settings: Any,
    seeds: list[int],
    rate: Callable[[int], float],
) -> Columns:
    """Effective examples a neuron responds to, by how a net was trained."""
    prepared = nets.task(model, examples, settings["what"])
    states = switched(prepared, settings, seeds, rate)
    return {
        name: len(examples) * nets.breadth(nets.responses(prepared, found, examples))
        for name, found in states.items()
    }


def switched(
    prepared: Prepared, settings: Any, seeds: list[int], rate: Callable[[int], float]
) -> dict[str, Any]:
    """Nets trained with a small batch, on all data, and switched from one to the other.

    All three take as many updates; the switched net half of them with each batch. Batches are
    windows of the stream, so that its half must be whole passes: later windows of n examples would
    lie across two orders, lack examples and hold others twice.

    Args:
        prepared: The task.
        settings: Of the cell.
        seeds: Of the runs.
        rate: Batch size → η.

    Returns:
        Phase → states at its end.
    """
    n, b, updates = settings["examples"], settings["batch_size"], settings["updates"]
    whole_passes(updates, b, n, "updates")

    def trained(size: int, count: int, begin: Any = None) -> Any:
        taken = begin[0].samples if begin else 0
        asked = nets.configs(seeds, size, rate(size), count, "float32")
        asked = [config.replace(samples=taken + count * size) for config in asked]
        return nets.train(prepared, asked, "stacked", begin)

    half = trained(b, updates // 2)
    return {
        "before": half,
        "small": trained(b, updates // 2, half),
        "switched": trained(n, updates // 2, half),
        "full": trained(n, updates),
    }


MEASURES: dict[Any, Callable[[Any, list[int]], Columns]] = {
    "ends": ends,
    "curvature": curvature,
    "stability": stability,
    "two": two,
    "partition": partition,
    "engine": engine,
    "data": data,
    "switch": switch,
    "neurons": neurons,
    "digit_nets": digit_nets,
}
"""What a cell's setting ``what`` measures."""
