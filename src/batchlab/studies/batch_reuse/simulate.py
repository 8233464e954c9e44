r"""A two-layer student that sees batches once or again, many seeds together.

h = Wx/√d, f = Σ_j a_j s(h_j), y = f*(z), z = W*x/√d; rows of W* orthogonal with |w*|² = d, rows
of W too at the start, and orthogonal to W*. With l'_j = a_j s'(h_j)(f − y) an update is

    W ← W − η G(W),   G(W) = Σ_{μ in the batch} l'_μ x_μᵀ/√d,

or, looking ahead on the same batch, W ← W − η G(W − ρ G(W)): extra-gradient.

Gaussian batches of many examples are never drawn whole. An update asks a batch X for products X v
and Xᵀu only, and given all products asked for so far X is Gaussian still in what is orthogonal to
them, so that each answer is drawn when it is asked for: (n + d) numbers instead of n d, exactly in
distribution. Of batches of one Gaussian example, (h, z, |x|²) is all that an update uses of it,
and M = WW*ᵀ/d with Q = WWᵀ/d all that the next needs of W.

Source: dandi2024 for the set-up, arnaboldi2024 for looking ahead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from batchlab import _random
from batchlab.errors import InvalidValueError, must
from batchlab.models.student import alternating, orthogonal
from batchlab.tasks import inputs
from batchlab.theory.activations import Activation, activation
from batchlab.theory.targets import Target, target

CHUNK_BYTES = 2**28
"""Of the data of seeds that run together."""
PURPOSE = "batch re-use"
BLOCK = 256
"""Single examples that a seed draws at once."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the seeds share.

    Attributes:
        target: f*, as :func:`batchlab.theory.targets.target` reads it.
        inputs: d, features.
        batch_size: b, examples of an update.
        learning_rate: η of the sum of ½(f − y)² over the batch.
        updates: T.
        reuse: k, updates on a batch before the next one; multi-pass over one batch is ``updates``.
        examples: n of a data set of which batches are drawn pass by pass, shuffled; 0 for fresh
            examples always.
        look_ahead: ρ, of the sum like η; 0 is plain gradient descent.
        width: p, neurons.
        activation: s, as :func:`batchlab.theory.activations.activation` reads it.
        second: a_j over alternating signs; left out, 1/√p.
        kind: Of the inputs, a name in :data:`batchlab.tasks.inputs.INPUTS`.
        every: Updates between two records, a divisor of T; of fresh single Gaussian examples also
            a multiple of k.
    """

    target: str | Target
    inputs: int
    batch_size: int
    learning_rate: float
    updates: int
    reuse: int = 1
    examples: int = 0
    look_ahead: float = 0.0
    width: int = 1
    activation: str | Activation = "tanh"
    second: float | None = None
    kind: str = "gaussian"
    every: int = 1

    def __post_init__(self) -> None:
        for name in ("inputs", "batch_size", "updates", "reuse", "width", "every"):
            if getattr(self, name) < 1:
                raise InvalidValueError(must(name, "1 or more", getattr(self, name)))
        if self.updates % self.every:
            words = f"a divisor of the {self.updates} updates"
            raise InvalidValueError(must("every", words, self.every))
        if self.one_example and self.every % self.reuse:
            words = f"a multiple of the {self.reuse} updates on each example"
            raise InvalidValueError(must("every", words, self.every))
        if 0 < self.examples < self.batch_size:
            words = f"0, or at least the batch size {self.batch_size}"
            raise InvalidValueError(must("examples", words, self.examples))

    @property
    def second_layer(self) -> Float[Tensor, " p"]:
        """a, float64."""
        plain = alternating(self.width)
        return plain if self.second is None else self.second * plain.sign()

    @property
    def explicit(self) -> bool:
        """Whether whole inputs have to be drawn."""
        return bool(self.examples) or self.kind != "gaussian"

    @property
    def one_example(self) -> bool:
        """Whether M and Q are all that has to be followed."""
        return self.batch_size == 1 and not self.explicit


class Paths(NamedTuple):
    """What happened, at t = 0, every, … T. Seeds S, recorded times T+1.

    Attributes:
        overlaps: M = WW*ᵀ/d. Shape ``[S, T+1, p, k]``.
        selves: Q = WWᵀ/d. Shape ``[S, T+1, p, p]``.
        seen: Mean of h_j y over the batch of the update that follows, h being that of the weights
            before it. NaN at the end, and where batches are single examples. Shape
            ``[S, T+1, p]``.
    """

    overlaps: Float[Tensor, "S T p k"]
    selves: Float[Tensor, "S T p p"]
    seen: Float[Tensor, "S T p"]

    @property
    def cosines(self) -> Float[Tensor, "S T p k"]:
        """M_jr/√Q_jj, between −1 and 1."""
        return self.overlaps / self.selves.diagonal(dim1=-2, dim2=-1).sqrt().unsqueeze(-1)


def along(overlaps: Float[Tensor, "*T p k"], direction: Sequence[float]) -> Tensor:
    """Overlap with a unit vector among the teacher's directions.

    Args:
        overlaps: M.
        direction: Shape ``[k]``.

    Returns:
        Shape ``[… p]``.
    """
    return overlaps @ overlaps.new_tensor(direction)


def residual(overlaps: Float[Tensor, "*T p k"], direction: Sequence[float]) -> Tensor:
    """Overlap with the teacher beyond one direction; of two, with its right-angled neighbour.

    Args:
        overlaps: M.
        direction: Unit vector. Shape ``[k]``. Of two, (v₁, v₂), the sign is that along (−v₂, v₁);
            of more, it is the length.

    Returns:
        Shape ``[… p]``.
    """
    if len(direction) == 2:
        return along(overlaps, (-direction[1], direction[0]))
    beside = along(overlaps, direction).unsqueeze(-1) * overlaps.new_tensor(direction)
    return (overlaps - beside).norm(dim=-1)


# ------------------------------------------------------------------ batches


class Batch(Protocol):
    """Inputs X, shape ``[S, n, d]``, of which products only are asked for."""

    def times(self, v: Float[Tensor, "S d c"]) -> Float[Tensor, "S n c"]:
        """X v."""
        ...

    def back(self, u: Float[Tensor, "S n c"]) -> Float[Tensor, "S d c"]:
        """Xᵀ u."""
        ...


class Whole:
    """Inputs that are there.

    Args:
        examples: X.
    """

    def __init__(self, examples: Float[Tensor, "S n d"]) -> None:
        self.examples = examples

    def times(self, v: Float[Tensor, "S d c"]) -> Float[Tensor, "S n c"]:
        """X v."""
        return self.examples @ v

    def back(self, u: Float[Tensor, "S n c"]) -> Float[Tensor, "S d c"]:
        """Xᵀ u."""
        return self.examples.mT @ u


class Unread:
    """Gaussian inputs drawn as far as they are asked for.

    Invariant: with U and V orthonormal, XᵀU and XV are known and X = U(XᵀU)ᵀ + (XV)Vᵀ − U(UᵀXV)Vᵀ
    + (what is orthogonal to U and V, not drawn yet, independent standard normals).

    Args:
        n: Examples.
        d: Features.
        rngs: One a seed.
    """

    def __init__(self, n: int, d: int, rngs: Sequence[Generator]) -> None:
        self.rngs = rngs
        none = [torch.zeros(len(rngs), size, 0, dtype=torch.float64) for size in (d, n)]
        self._v, self._xv = none[0], none[1]
        self._u, self._xu = none[1], none[0]

    def times(self, v: Float[Tensor, "S d c"]) -> Float[Tensor, "S n c"]:
        """X v."""
        self._v, self._xv = self._asked(v, self._v, self._xv, self._u, self._xu)
        return self._xv @ (self._v.mT @ v)

    def back(self, u: Float[Tensor, "S n c"]) -> Float[Tensor, "S d c"]:
        """Xᵀ u."""
        self._u, self._xu = self._asked(u, self._u, self._xu, self._v, self._xv)
        return self._xu @ (self._u.mT @ u)

    def _asked(
        self, new: Tensor, basis: Tensor, answers: Tensor, other: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Basis and answers of one side, with the directions of ``new`` that are new."""
        have = basis.shape[-1]
        if have + new.shape[-1] > new.shape[-2]:
            words = "more than the directions that are asked for"
            raise InvalidValueError(must("batch_size and inputs", words, new.shape[-2]))
        added = new
        for _ in range(2):  # once leaves round-off where little of a direction is new
            added = torch.linalg.qr(added - basis @ (basis.mT @ added))[0]
        size = (other.shape[-2], added.shape[-1])
        fresh = _normals(self.rngs, *size)
        fresh = fresh - other @ (other.mT @ fresh) + other @ (known.mT @ added)
        return torch.cat((basis, added), -1), torch.cat((answers, fresh), -1)


def _normals(rngs: Sequence[Generator], *size: int) -> Tensor:
    """Standard normals, each seed's from its own generator. Shape ``[S, *size]``."""
    return torch.stack([torch.randn(*size, generator=rng, dtype=torch.float64) for rng in rngs])


def _batches(setting: Setting, rngs: Sequence[Generator]) -> Iterator[Batch]:
    """The batches in order, each once; without end."""
    b, d = setting.batch_size, setting.inputs
    if not setting.examples:
        while True:
            if setting.explicit:
                yield Whole(_drawn(setting, b, rngs))
            else:
                yield Unread(b, d, rngs)
    data = _drawn(setting, setting.examples, rngs)
    rows = torch.arange(len(rngs))[:, None]
    order = torch.zeros(len(rngs), 0, dtype=torch.int64)
    while True:
        while order.shape[1] < b:
            new = [torch.randperm(setting.examples, generator=rng) for rng in rngs]
            order = torch.cat((order, torch.stack(new)), 1)
        yield Whole(data if b == setting.examples else data[rows, order[:, :b]])
        order = order[:, b:]


def _drawn(setting: Setting, examples: int, rngs: Sequence[Generator]) -> Float[Tensor, "S n d"]:
    return torch.stack([inputs.draw(setting.kind, examples, setting.inputs, rng) for rng in rngs])


# ------------------------------------------------------------------ updates


class Forward(NamedTuple):
    """A batch under the weights: pre-activations and minus their forces."""

    h: Float[Tensor, "S n p"]
    pull: Float[Tensor, "S n p"]


def force(
    h: Float[Tensor, "*B p"], y: Float[Tensor, "*B"], second: Float[Tensor, " p"], s: Activation
) -> Float[Tensor, "*B p"]:
    """l'_j = a_j s'(h_j)(f − y).

    Example:
        >>> h, y = torch.tensor([[1.0, -1.0]]), torch.tensor([3.0])
        >>> force(h, y, torch.tensor([2.0, 1.0]), activation("relu"))
        tensor([[-2., -0.]])
    """
    error = s.value(h) @ second - y
    return second * s.slope(h) * error.unsqueeze(-1)


def descend(
    weights: Float[Tensor, "S p d"],
    teacher: Float[Tensor, "S k d"],
    batches: Iterator[Batch],
    setting: Setting,
) -> Iterator[tuple[Float[Tensor, "S p d"], Float[Tensor, "S p"]]]:
    """The weights before each of T updates, with the batch's mean of h y; then those at the end.

    Args:
        weights: W(0).
        teacher: W*.
        batches: One for every k updates.
        setting: What the seeds share.
    """
    labels, s = target(setting.target), activation(setting.activation)
    root, second = math.sqrt(setting.inputs), setting.second_layer

    def forward(W: Tensor) -> Forward:
        h = batch.times(W.mT) / root
        return Forward(h, force(h, y, second, s))

    for t in range(setting.updates):
        if t % setting.reuse == 0:
            batch = next(batches)
            y = labels(batch.times(teacher.mT) / root)
        here = forward(weights)
        yield weights, (here.h * y.unsqueeze(-1)).mean(1)
        pull = here.pull
        if setting.look_ahead:
            ahead = weights - setting.look_ahead * batch.back(pull).mT / root
            pull = forward(ahead).pull
        weights = weights - setting.learning_rate * batch.back(pull).mT / root
    yield weights, torch.full(weights.shape[:2], math.nan, dtype=weights.dtype)


class Summary(NamedTuple):
    """What an update needs to know of the weights: M and Q."""

    overlaps: Float[Tensor, "S p k"]
    selves: Float[Tensor, "S p p"]


def single(
    known: Summary,
    z: Float[Tensor, "S k"],
    h: Float[Tensor, "S p"],
    size: Float[Tensor, " S"],
    setting: Setting,
) -> Summary:
    """Updates k times on one example, exactly, without the weights.

    h moves by −η l' |x|²/d, M by −(η/d) l' zᵀ, Q by −(η/d)(l'hᵀ + h l'ᵀ) + (η²/d)(|x|²/d) l'l'ᵀ.

    Args:
        known: M and Q.
        z: W*x/√d.
        h: Wx/√d.
        size: |x|²/d.
        setting: What the seeds share.
    """
    y, s = target(setting.target)(z), activation(setting.activation)
    (M, Q), a, eta = known, setting.second_layer, setting.learning_rate
    for _ in range(setting.reuse):
        pull = force(h, y, a, s)
        if setting.look_ahead:
            pull = force(h - setting.look_ahead * size[:, None] * pull, y, a, s)
        own, step = pull.unsqueeze(-1), eta / setting.inputs
        cross = own * h.unsqueeze(-2)
        M = M - step * own * z.unsqueeze(-2)
        Q = Q - step * (cross + cross.mT) + step * eta * size[:, None, None] * own * own.mT
        h = h - eta * size[:, None] * pull
    return Summary(M, Q)


def singles(
    setting: Setting, rngs: Sequence[np.random.Generator]
) -> Iterator[tuple[Float[Tensor, "S k"], Float[Tensor, "S p"], Float[Tensor, " S"]]]:
    """Standard normals of z and of what h adds to it, and |x|²/d, of fresh Gaussian examples.

    Args:
        setting: With k + p directions of d.
        rngs: One a seed.
    """
    k, p, d = target(setting.target).dimensions, setting.width, setting.inputs
    while True:
        drawn = np.stack([rng.standard_normal((BLOCK, k + p)) for rng in rngs])
        rest = np.stack([rng.chisquare(d - k - p, BLOCK) for rng in rngs])
        normals = torch.from_numpy(drawn)
        sizes = (normals.square().sum(-1) + torch.from_numpy(rest)) / d
        for t in range(BLOCK):
            yield normals[:, t, :k], normals[:, t, k:], sizes[:, t]


def _one_by_one(setting: Setting, seeds: Sequence[int]) -> Iterator[Summary]:
    """M and Q before every new example, and at the end."""
    p, k = setting.width, target(setting.target).dimensions
    M = torch.zeros(len(seeds), p, k, dtype=torch.float64)
    known = Summary(M, torch.eye(p, dtype=torch.float64).expand(len(seeds), p, p))
    rngs = [np.random.default_rng(_random.key(seed, PURPOSE)) for seed in seeds]
    draws = singles(setting, rngs)
    for _ in range(0, setting.updates, setting.reuse):
        yield known
        z, other, size = next(draws)
        M, Q = known
        root = torch.linalg.cholesky(Q - M @ M.mT)
        h = (M @ z.unsqueeze(-1) + root @ other.unsqueeze(-1)).squeeze(-1)
        known = single(known, z, h, size, setting)
    yield known


# ------------------------------------------------------------------ all together


def start(
    setting: Setting, rngs: Sequence[Generator]
) -> tuple[Float[Tensor, "S p d"], Float[Tensor, "S k d"]]:
    """W(0) and W*, random, orthogonal, with rows of length √d."""
    k = target(setting.target).dimensions
    rows = orthogonal(_normals(rngs, k + setting.width, setting.inputs))
    return rows[:, k:], rows[:, :k]


def simulate(setting: Setting, seeds: Sequence[int]) -> Paths:
    """Train a student for each seed on its own data.

    Args:
        setting: What the seeds share.
        seeds: Names of all draws; a seed's path does not depend on its neighbours.

    Returns:
        Overlaps at t = 0, every, … T.

    Raises:
        InvalidValueError: If a fresh Gaussian batch is asked for more directions than there are
            examples or features.

    Example:
        >>> setting = Setting(
        ...     target="z", inputs=100, batch_size=400, learning_rate=0.2, updates=2, reuse=2
        ... )
        >>> simulate(setting, range(8)).overlaps.shape
        torch.Size([8, 3, 1, 1])
    """
    read = {"target": target(setting.target), "activation": activation(setting.activation)}
    setting = replace(setting, **read)
    step = max(1, CHUNK_BYTES // _bytes(setting))
    parts = [_part(setting, seeds[i : i + step]) for i in range(0, len(seeds), step)]
    return Paths(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _bytes(setting: Setting) -> int:
    """Of one seed's data, and the copies that an update makes of them."""
    k = target(setting.target).dimensions
    if setting.one_example:
        return 8 * BLOCK * (k + setting.width + 2)
    if setting.explicit:
        return 16 * max(setting.examples, setting.batch_size) * setting.inputs
    asked = k + setting.width * (2 * min(setting.reuse, setting.updates) + 2)
    return 32 * (setting.batch_size + setting.inputs) * asked


def _part(setting: Setting, seeds: Sequence[int]) -> Paths:
    if setting.one_example:
        path = _one_by_one(setting, seeds)
        kept = list(_thinned(path, setting.every // setting.reuse))
        M, Q = (torch.stack(part, 1) for part in zip(*kept, strict=True))
        return Paths(M, Q, torch.full((*M.shape[:2], setting.width), math.nan))
    rngs = [_random.generator(seed, PURPOSE) for seed in seeds]
    weights, teacher = start(setting, rngs)
    path = descend(weights, teacher, _batches(setting, rngs), setting)
    rows = [
        (W @ teacher.mT / setting.inputs, W @ W.mT / setting.inputs, seen)
        for W, seen in _thinned(path, setting.every)
    ]
    M, Q, seen = (torch.stack(part, 1) for part in zip(*rows, strict=True))
    return Paths(M, Q, seen)


def _thinned(path: Iterator[Any], every: int) -> Iterator[Any]:
    return (found for t, found in enumerate(path) if t % every == 0)
