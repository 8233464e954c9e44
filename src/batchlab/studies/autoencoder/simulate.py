"""Many runs of the closed form at once, in O(min(b, n − b)) an update.

All active coordinates outside the batch share the factor 1 − (η/b)S_B, all inside it the factor
1 − (η/b)S_B + (η/b)(2 − N). So one running scale carries the larger of the two groups and only the
smaller is touched. At b = n nothing would be but the scale, whatever the truth: the full batch is
left to the module (:mod:`~batchlab.studies.autoencoder.nets`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from batchlab import _random
from batchlab.errors import InvalidValueError, must
from batchlab.studies.autoencoder.batches import Batches, counts
from batchlab.theory import autoencoder as theory
from batchlab.theory.autoencoder import Activation

SPARSE = 1e-8
"""A run has ended when 1 − max w_i²/|w|² is below this."""

LEAST_FACTOR = 0.05
"""Of a common factor; where one is smaller, or negative, the block is repeated coordinate by
coordinate: dividing by it would cost digits, and a sign may change."""

GROWTH = 4.0
"""Largest logarithm of a scale before it is multiplied out."""

LOOKS = 200
"""How often in the predicted time a run is looked at: a time is known to 0.5 %."""

PATIENCE = 10
"""Predicted times after which a run is given up."""


@dataclass(frozen=True)
class Setting:
    """What the runs of one simulation share.

    Attributes:
        batches: n, b and how batches are drawn.
        activation: φ.
    """

    batches: Batches
    activation: Activation = "linear"


class Ends(NamedTuple):
    """Where runs ended.

    Attributes:
        weights: w. Shape ``[R, D]``.
        updates: Of each run, exact to its last look. Shape ``[R]``.
        settled: Whether it ended before patience did. Shape ``[R]``.
    """

    weights: Float[np.ndarray, "R D"]
    updates: Int[np.ndarray, " R"]
    settled: Bool[np.ndarray, " R"]


def starts(seeds: Sequence[int], dimensions: int) -> Float[np.ndarray, "R D"]:
    """w(0) ~ N(0, I/D), the very numbers a :class:`~batchlab.models.neuron.TiedAutoencoder` gets.

    Args:
        seeds: One for each run.
        dimensions: D.

    Returns:
        Shape ``[R, D]``.

    Example:
        >>> bool((starts([3], 5) == starts([2, 3], 5)[1:]).all())
        True
    """
    return np.stack([_start(seed, dimensions) for seed in seeds])


def _start(seed: int, dimensions: int) -> Float[np.ndarray, " D"]:
    drawn = torch.randn(dimensions, generator=_random.generator(seed, "init"))
    return (drawn / math.sqrt(dimensions)).double().numpy()


def settle(
    start: Float[np.ndarray, "R D"],
    seeds: Sequence[int],
    ratios: Float[np.ndarray, " R"],
    setting: Setting,
    longest: int | None = None,
) -> Ends:
    """Train every run until it has become sparse.

    Args:
        start: w(0). Shape ``[R, D]``.
        seeds: Name each run's batches. Length R.
        ratios: η/b of each run. Shape ``[R]``.
        setting: What they share.
        longest: Updates after which a run is given up; :data:`PATIENCE` times the predicted time
            if left out.

    Returns:
        Where they ended.

    Raises:
        InvalidValueError: If b is n, where nothing becomes sparse.

    Example:
        >>> setting = Setting(Batches(4, 3))
        >>> ends = settle(starts([0], 4), [0], np.array([0.25]), setting)
        >>> bool(ends.settled[0]), float(theory.missing(ends.weights, 4, "linear")[0]) < 1e-6
        (True, True)
    """
    batches = setting.batches
    predicted = _predicted(batches, ratios)
    most = PATIENCE * predicted if longest is None else np.full(len(seeds), longest)
    look = max(1, min(batches.updates, int(predicted.min()) // LOOKS))
    weights, updates = start.copy(), np.zeros(len(seeds), dtype=np.int64)
    settled = np.zeros(len(seeds), dtype=bool)
    left, pack, done, chunk = np.arange(len(seeds)), _Pack(start, setting, ratios), 0, 0
    while len(left):
        indices = _drawn(batches, [seeds[i] for i in left.tolist()], chunk)
        for first in range(0, batches.updates, look):
            block = indices[first : first + look]
            pack.advance(block)
            done += len(block)
            arrived = pack.tail() < SPARSE
            ended = arrived | (done >= most[left])
            if ended.any():
                out = left[ended]
                weights[out], updates[out] = pack.weights()[ended], done
                settled[out] = arrived[ended]
                left, pack = left[~ended], pack.part(~ended)
                indices = indices[:, ~ended] if indices.shape[1] > 1 else indices
            if not len(left):
                break
        chunk += 1
    return Ends(weights, updates, settled)


def train(
    start: Float[np.ndarray, "R D"],
    seeds: Sequence[int],
    ratios: Float[np.ndarray, " R"],
    setting: Setting,
    updates: int,
) -> Float[np.ndarray, "R D"]:
    """So many updates of every run, as :func:`settle` makes them.

    Args:
        start: w(0). Shape ``[R, D]``.
        seeds: Name each run's batches. Length R.
        ratios: η/b of each run. Shape ``[R]``.
        setting: What they share.
        updates: Updates.

    Returns:
        w. Shape ``[R, D]``.
    """
    pack = _Pack(start, setting, ratios)
    for indices in blocks(setting.batches, seeds, updates):
        pack.advance(indices)
    return pack.weights()


def blocks(
    batches: Batches, seeds: Sequence[int], updates: int
) -> Iterator[Int[np.ndarray, "T columns listed"]]:
    """The batches of so many updates, chunk by chunk, as :func:`follow` takes them.

    Args:
        batches: How they are drawn.
        seeds: One for each run.
        updates: Updates.
    """
    for chunk in range(-(-updates // batches.updates)):
        yield _drawn(batches, seeds, chunk)[: updates - chunk * batches.updates]


def _predicted(batches: Batches, ratios: np.ndarray) -> np.ndarray:
    """Updates to sparsity."""
    examples, batch_size = batches.examples, batches.batch_size
    if batch_size == examples:
        raise InvalidValueError(must("batch_size", f"below n = {examples}", batch_size))
    noise = theory.disagreement(examples, batch_size) * np.square(ratios)
    return np.ceil(theory.SPARSITY_CONSTANT / noise)


def _drawn(batches: Batches, seeds: Sequence[int], chunk: int) -> Int[np.ndarray, "T R listed"]:
    """The indices of all runs; one column where all have the same."""
    if batches.sampling == "cyclic":
        return batches.draw(0, chunk)[:, None]
    return np.stack([batches.draw(seed, chunk) for seed in seeds], axis=1)


class _Pack:
    """R runs under way: active coordinates as scale × values, the others as scale × idle values.

    Invariant: w = s v on coordinates that were active at the last look, h z elsewhere; v and z are
    0 where the other is meant.
    """

    def __init__(self, weights: np.ndarray, setting: Setting, ratios: np.ndarray) -> None:
        self.setting, self.ratios = setting, ratios
        self._take(weights)

    def _take(self, weights: np.ndarray) -> None:
        examples = self.setting.batches.examples
        on = theory.active(weights, examples, self.setting.activation)
        self.v = np.ascontiguousarray(np.where(on, weights, 0.0)[:, :examples])
        self.z = np.where(on, 0.0, weights)
        self.s, self.h = np.ones(len(weights)), np.ones(len(weights))
        self.idle = np.square(self.z).sum(-1)
        self.energy = np.square(self.v).sum(-1)

    def weights(self) -> np.ndarray:
        """The weights w. Shape ``[R, D]``."""
        found = self.h[:, None] * self.z
        found[:, : self.v.shape[1]] += self.s[:, None] * self.v
        return found

    def part(self, kept: np.ndarray) -> _Pack:
        """The runs that go on."""
        return _Pack(self.weights()[kept], self.setting, self.ratios[kept])

    def tail(self) -> np.ndarray:
        """1 − max w_i²/|w|²."""
        size = self.energy + np.square(self.h) * self.idle
        largest = np.square(np.abs(self.v).max(-1, initial=0.0) * self.s)
        return (size - largest) / size

    def advance(self, indices: Int[np.ndarray, "T R listed"]) -> None:
        """Some updates; then scales are 1 again.

        In pieces in which a scale changes by no more than about e⁴, the digits that are lost.
        """
        batches = self.setting.batches
        growth = float(self.ratios.max()) * max(1, batches.listed) / batches.examples
        piece = max(1, int(GROWTH / growth))
        for first in range(0, len(indices), piece):
            self._piece(indices[first : first + piece])

    def _piece(self, indices: np.ndarray) -> None:
        before = self.weights()
        if not self.setting.batches.distinct:
            self._take(follow(before, indices, self.ratios, self.setting))
            return
        lowest = self._fast(indices)
        after, low = self.weights(), lowest < LEAST_FACTOR
        if low.any():
            own = indices[:, low] if indices.shape[1] > 1 else indices
            after[low] = follow(before[low], own, self.ratios[low], self.setting)
        self._take(after)

    def _fast(self, indices: np.ndarray) -> np.ndarray:
        """All updates by scales; returns the smallest factor of each run."""
        runs, examples = self.v.shape
        flat, rows = self.v.reshape(-1), np.arange(runs) * examples
        places = indices + rows[:, None]
        u, idle, Q, s, h = self.ratios, self.idle, self.energy, self.s, self.h
        lowest, left_out = np.ones(runs), self.setting.batches.left_out
        some, single = places.shape[-1] > 0, places.shape[-1] == 1
        part, idles = np.zeros(runs), bool(idle.any())
        for at in places[..., 0] if single else places:
            values = flat[at]
            if single:
                part = values * values
            elif some:
                part = np.einsum("rm,rm->r", values, values)
            # Q = Σv² takes up changes of the few only: a recursion for s²Q would be unstable.
            area = s * s
            energy, own = area * Q, area * part
            outside = 1.0 - u * (energy - own if left_out else own)
            size = energy + h * h * idle if idles else energy
            inside = outside + u * (2.0 - size)
            common, special = (inside, outside) if left_out else (outside, inside)
            if some:
                share = special / common
                flat[at] = values * (share if single else share[:, None])
                Q = Q + part * (share * share - 1.0)
            s, h = s * common, h * outside
            lowest = np.minimum(lowest, np.minimum(inside, outside))
        self.s, self.h, self.energy = s, h, np.square(s) * Q
        return lowest


def follow(
    weights: Float[np.ndarray, "R D"],
    indices: Int[np.ndarray, "T columns listed"],
    ratios: Float[np.ndarray, " R"],
    setting: Setting,
) -> Float[np.ndarray, "R D"]:
    """The same updates coordinate by coordinate: slow, and right at any step size and batch.

    Args:
        weights: w. Shape ``[R, D]``.
        indices: What :meth:`Batches.draw` lists. Shape ``[T, R, listed]``, or ``[T, 1, listed]``
            for the same in all runs.
        ratios: η/b. Shape ``[R]``.
        setting: What the runs share.

    Returns:
        w after T updates. Shape ``[R, D]``.
    """
    batches = setting.batches
    for listed in indices:
        m = counts(np.broadcast_to(listed, (len(weights), batches.listed)), batches.examples)
        m = 1 - m if batches.left_out else m
        weights = theory.step(weights, m, ratios * batches.batch_size, setting.activation)
    return weights
