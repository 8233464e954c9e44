"""The largest eigenvalues of R symmetric matrices at once, each known by its products alone.

Block Lanczos with full re-orthogonalisation: the basis Q of a Krylov space stays orthonormal to
round-off, and the matrix is projected on it. A block is as wide as the number of eigenvalues asked
for, so that an eigenvalue that occurs several times is found as often.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random
from batchlab.errors import TaskError

BASIS = 64
"""Vectors kept; when there are more, those that matter are combined and the rest is dropped."""
MOST_PRODUCTS = 128
ROUND_OFF = 100.0
"""Machine epsilons, as a share of the largest magnitude, below which nothing is told apart."""
ASYMMETRY = 1e-3
"""Largest difference of uᵀAv and vᵀAu, as a share of the largest magnitude, that is round-off."""
WORTH_LEAVING = 0.75
"""Rows are dropped once no more than this share of them is still needed: a new graph costs half a
product."""


@runtime_checkable
class Products(Protocol):
    """R symmetric matrices of P rows, known by what they do to vectors."""

    @property
    def like(self) -> Float[Tensor, "R P"]:
        """A tensor whose shape, precision and device the vectors have."""
        ...

    def __call__(self, vectors: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        """A v, one vector each."""
        ...

    def only(self, rows: list[int]) -> Products:
        """Some of the matrices, by their place."""
        ...


@dataclass(frozen=True)
class Spectrum:
    """What Lanczos found of one matrix, in float64 where nothing else is said.

    Attributes:
        values: Largest eigenvalues, descending. Shape ``[K]``. No eigenvalue of that rank is
            smaller, round-off apart.
        bounds: ‖Av − θv‖: within this of each value, and round-off, lies an eigenvalue. Shape
            ``[K]``.
        vectors: Their unit vectors, in the matrix's precision. Shape ``[K, P]``.
        smallest: The smallest value seen: the smallest eigenvalue is at most this.
        smallest_bound: As ``bounds``.
        magnitude: Largest |θ|.
        round_off: What is not told apart.
        basis: Orthonormal vectors of the space searched. Shape ``[M, P]``.
        trace: Trace of the matrix on that space.
        products: Products used.
        converged: Whether everything asked for is as accurate as asked.
    """

    values: Float[Tensor, " K"]
    bounds: Float[Tensor, " K"]
    vectors: Float[Tensor, "K P"]
    smallest: float
    smallest_bound: float
    magnitude: float
    round_off: float
    basis: Float[Tensor, "M P"]
    trace: float
    products: int
    converged: bool


def lanczos(
    products: Products,
    count: int = 1,
    *,
    tolerance: float = 1e-3,
    smallest: bool = False,
    seed: int = 0,
    most: int | None = None,
    kept: int = BASIS,
) -> list[Spectrum]:
    """The ``count`` algebraically largest eigenvalues of each matrix, to a relative accuracy.

    Ritz values of A on the span of (V, AV, A²V, …). A Ritz pair (θ, v) has converged when
    ‖Av − θv‖ ≤ tolerance·|θ|. Matrices that are done are left out of further products. A space of
    ``kept`` vectors is replaced by its best Ritz vectors and goes on from there.

    Args:
        products: R matrices.
        count: K, from 1 to P.
        tolerance: Relative accuracy.
        smallest: Whether to go on until the smallest eigenvalue, too, is known, to the tolerance
            times the largest magnitude.
        seed: Names the first vectors, the same for every matrix.
        most: Products after which it stops in any case; 128·(1 + K) if left out.
        kept: Vectors in memory for each matrix, at least 3K.

    Returns:
        What was found, matrix by matrix. One with numbers that are not finite has NaN values.

    Raises:
        TaskError: If a matrix is not symmetric.

    Source:
        golub1977, block Lanczos; wu2000, the thick restart; parlett1998, section 13.2, the bounds.

    Example:
        >>> class Diagonal(NamedTuple):
        ...     like: Tensor
        ...     def __call__(self, vectors): return self.like * vectors
        ...     def only(self, rows): return Diagonal(self.like[rows])
        >>> found = lanczos(Diagonal(torch.tensor([[1.0, -5.0, 3.0]]).double()), 2, smallest=True)
        >>> [round(float(value), 6) for value in found[0].values], round(found[0].smallest, 6)
        ([3.0, 1.0], -5.0)
    """
    most = MOST_PRODUCTS * (1 + count) if most is None else most
    space = _Space(products, count, max(3 * count, kept), seed)
    found: dict[int, Spectrum] = {}
    while len(found) < len(products.like):
        space.expand()
        pairs = space.pairs()
        enough = _enough(pairs, count, tolerance, smallest)
        for place, run in enumerate(space.runs):
            if run not in found and (enough[place] or space.is_over(place, most)):
                found[run] = space.spectrum(place, pairs, count, enough[place])
        left = [place for place, run in enumerate(space.runs) if run not in found]
        if left and len(left) <= WORTH_LEAVING * len(space.runs):
            space.keep(left)
            pairs = pairs.of(left)
        if left and space.is_full():
            space.restart(pairs, _best(pairs, space.room(), count, smallest))
    return [found[run] for run in range(len(products.like))]


class Pairs(NamedTuple):
    """Ritz pairs of S matrices, ascending. Small, and therefore in NumPy: its calls cost less.

    Attributes:
        values: θ. Shape ``[S, M]``.
        mixes: Coordinates of the vectors in the basis, as columns. Shape ``[S, M, M]``.
        residuals: ‖Av − θv‖. Shape ``[S, M]``.
        floor: Round-off. Shape ``[S, 1]``.
    """

    values: Float[np.ndarray, "S M"]
    mixes: Float[np.ndarray, "S M M"]
    residuals: Float[np.ndarray, "S M"]
    floor: Float[np.ndarray, "S 1"]

    def of(self, places: list[int]) -> Pairs:
        """Those of some matrices."""
        return Pairs(*(part[places] for part in self))


def _enough(pairs: Pairs, count: int, tolerance: float, smallest: bool) -> list[bool]:
    """Whether the largest ``count`` values, and the smallest if asked for, have converged."""
    values, residuals = np.abs(pairs.values), pairs.residuals
    allowed = np.maximum(tolerance * values[:, -count:], pairs.floor)
    done = (residuals[:, -count:] <= allowed).all(1) & (values.shape[1] >= count)
    if smallest:
        done &= residuals[:, 0] <= np.maximum(tolerance * values.max(1), pairs.floor[:, 0])
    return done.tolist()


def _best(pairs: Pairs, room: int, count: int, smallest: bool) -> list[int]:
    """Places of the Ritz pairs with which to go on: the largest, or both ends."""
    size = pairs.values.shape[1]
    low = (room - count) // 2 if smallest else 0
    return [*range(low), *range(size - (room - low), size)]


class _Space:
    """An orthonormal basis Q for each of S matrices, A on it, and the block that comes next.

    Invariants: the rows of ``basis[:, :size]`` and ``next`` are orthonormal; ``projected`` is
    QAQᵀ; AQᵀ − Qᵀ·projected is nextᵀ·``coupling`` in the columns of the last block and 0 in the
    others.
    """

    def __init__(self, products: Products, width: int, capacity: int, seed: int) -> None:
        self.products, self.width, self.seed = products, width, seed
        self.like = products.like
        count, length = self.like.shape
        self.capacity = min(capacity, length)
        self.runs = list(range(count))
        self.size = self.used = self.last = self.near = 0
        self.basis = self.like.new_empty(count, min(8 * width, self.capacity), length)
        self.projected = np.zeros((count, self.capacity, self.capacity))
        self.magnitude = np.zeros(count)
        self.expected = np.zeros((count, 0, width))
        self.finite = np.ones(count, dtype=bool)
        self.next = self._orthonormal(self.like.new_zeros(count, width, length), width)[0]

    # ------------------------------------------------------------------ one step

    def expand(self) -> None:
        """Take in the next block: its products, A on the larger basis, and the block after it."""
        before, width = self.size, self.next.shape[1]
        self._append(self.next)
        images = _beside([self.products(v) for v in self.next.unbind(1)])
        self.used += width
        # Next to nothing is left along the older vectors, so what remains is taken out in one pass
        # over all of them.
        rest, near = self._without(images, self.size - self.near - width)
        rest, inner = self._without(rest, 0)
        inner[:, self.size - self.near - width :] += near
        small = _small(inner)
        self.finite &= np.isfinite(small).all((1, 2))
        small[~self.finite] = 0.0
        self._check_symmetry(small[:, :before])
        self._project(small, before)
        self.last = self.near = width
        self.next, self.coupling = self._orthonormal(rest, min(self.width, self._outside()))
        self.expected = np.zeros((len(self.runs), self.size, self.next.shape[1]))
        self.expected[:, before:] = self.coupling.transpose(0, 2, 1)

    def _append(self, block: Float[Tensor, "S B P"]) -> None:
        """Behind the basis, whose memory doubles when it is full."""
        size = self.size + block.shape[1]
        if size > self.basis.shape[1]:
            more = min(self.capacity, max(size, 2 * self.basis.shape[1]))
            grown = self.basis.new_empty(len(self.basis), more, self.basis.shape[2])
            grown[:, : self.size] = self.basis[:, : self.size]
            self.basis = grown
        self.basis[:, self.size : size] = block
        self.size = size

    def _without(self, vectors: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """V − QᵀQV and QV for the vectors of the basis from ``first`` on."""
        q_SMP = self.basis[:, first : self.size]
        inner_SMB = q_SMP @ vectors.transpose(1, 2)
        return torch.baddbmm(vectors, inner_SMB.transpose(1, 2), q_SMP, alpha=-1), inner_SMB

    def _project(self, inner: Float[np.ndarray, "S M B"], before: int) -> None:
        size = self.size
        corner = inner[:, before:]
        self.projected[:, :size, before:size] = inner
        self.projected[:, before:size, :size] = inner.transpose(0, 2, 1)
        self.projected[:, before:size, before:size] = (corner + corner.transpose(0, 2, 1)) / 2
        self.magnitude = np.maximum(self.magnitude, np.abs(inner).max((1, 2)))

    def _check_symmetry(self, inner: Float[np.ndarray, "S M B"]) -> None:
        """uᵀAv for the old vectors u and new ones v is known from Au."""
        if not inner.shape[1]:
            return
        apart = np.abs(inner - self.expected).max((1, 2))
        if (self.finite & (apart > ASYMMETRY * self.magnitude)).any():
            raise TaskError(
                "The second derivatives of this model are not symmetric: part of it is cut off "
                "from differentiation, as by gradient checkpointing or a backward pass of its "
                "own. Switch that off."
            )

    def _orthonormal(self, block: Tensor, width: int) -> tuple[Tensor, np.ndarray]:
        """Orthonormal rows outside the basis that span a block, and the block in them.

        A direction that round-off alone has left is replaced by a random one, with weight 0: the
        space so far is closed under A, and the search goes on outside it.
        """
        made: list[Tensor] = []
        if width < block.shape[1]:  # all there is outside the basis
            for place in range(width):
                made.append(self._cleaned(self._random(place), made))
            whole = _beside(made) if made else block[:, :0]
            return whole, _small(whole @ block.transpose(1, 2))
        coupling = np.zeros((len(block), width, width))
        epsilon = torch.finfo(block.dtype).eps
        for place in range(width):
            vector = block[:, place]
            for _ in range(2):
                for i, unit in enumerate(made):
                    inner = (unit * vector).sum(1, keepdim=True)
                    coupling[:, i, place] += _small(inner)[:, 0]
                    vector = vector - inner * unit
            length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
            known = _small(length)[:, 0]
            gone = ~(known > 10 * epsilon * self.magnitude)
            coupling[:, place, place] = np.where(gone, 0.0, known)
            if (gone | (known < math.sqrt(epsilon) * self.magnitude)).any():
                lost = torch.from_numpy(gone).to(vector.device)[:, None]
                vector = torch.where(lost, self._random(place), vector)
                made.append(self._cleaned(vector, made))
            else:
                made.append(vector / length)
        return _beside(made), coupling

    def _cleaned(self, vector: Tensor, made: list[Tensor]) -> Float[Tensor, "S P"]:
        """A unit vector, orthogonal to all there is though little of it may be outside."""
        for _ in range(3):
            vector = vector / vector.norm(dim=1, keepdim=True)
            vector = self._without(vector[:, None], 0)[0][:, 0] if self.size else vector
            for unit in made:
                vector = vector - (unit * vector).sum(1, keepdim=True) * unit
        return vector / vector.norm(dim=1, keepdim=True)

    def _random(self, place: int) -> Float[Tensor, "S P"]:
        """The same direction for every matrix, named by its place among the products."""
        draw = _random.generator(self.seed, "lanczos", self.used, place)
        vector = torch.randn(self.like.shape[1], generator=draw, dtype=torch.float64)
        return vector.to(self.like).expand(len(self.runs), -1)

    # ------------------------------------------------------------------ what is known

    def _outside(self) -> int:
        """Dimensions that the basis does not reach."""
        return self.like.shape[1] - self.size

    def is_over(self, place: int, most: int) -> bool:
        """Whether there is nothing more to find, or no more products may be used."""
        spent = self.used + self.next.shape[1] > most
        return spent or not self._outside() or not self.finite[place]

    def pairs(self) -> Pairs:
        """The Ritz pairs of the basis."""
        values, mixes = np.linalg.eigh(self.projected[:, : self.size, : self.size])
        residuals = np.sqrt(
            np.square(self.coupling @ mixes[:, self.size - self.last :]).sum(axis=1)
        )
        floor = ROUND_OFF * torch.finfo(self.like.dtype).eps
        return Pairs(values, mixes, residuals, floor * np.abs(values).max(1, keepdims=True))

    def spectrum(self, place: int, pairs: Pairs, count: int, converged: bool) -> Spectrum:
        """What is known of one matrix."""
        values, mixes, residuals, floor = (part[place] for part in pairs)
        found = min(count, self.size)
        mix = torch.from_numpy(mixes[:, : -found - 1 : -1].T.copy()).to(self.basis)
        sound = 1.0 if self.finite[place] else math.nan
        return Spectrum(
            torch.from_numpy(sound * values[: -found - 1 : -1]),
            torch.from_numpy(sound * residuals[: -found - 1 : -1]),
            sound * (mix @ self.basis[place, : self.size]),
            sound * float(values[0]),
            sound * float(residuals[0]),
            sound * float(np.abs(values).max()),
            sound * float(floor[0]),
            self.basis[place, : self.size].clone(),
            sound * float(values.sum()),
            self.used,
            bool(converged and self.finite[place]),
        )

    # ------------------------------------------------------------------ what is dropped

    def keep(self, places: list[int]) -> None:
        """These matrices only."""
        self.products = self.products.only(places)
        self.runs = [self.runs[place] for place in places]
        for name in ("projected", "magnitude", "expected", "finite", "next", "coupling"):
            setattr(self, name, getattr(self, name)[places])
        old, self.basis = self.basis, self.basis.new_empty(len(places), *self.basis.shape[1:])
        for place, kept in zip(places, self.basis, strict=True):
            kept[: self.size] = old[place, : self.size]

    def is_full(self) -> bool:
        """Whether the next block has no place."""
        return self.size + self.next.shape[1] > self.capacity < self.like.shape[1]

    def room(self) -> int:
        """Vectors to go on with: half of the space, and all that is wanted."""
        return max(self.capacity // 2, self.width)

    def restart(self, pairs: Pairs, best: list[int]) -> None:
        """Replace the basis by some of its Ritz vectors, on which A is diagonal."""
        mixes = pairs.mixes[:, :, best]
        turn = torch.from_numpy(mixes.transpose(0, 2, 1).copy()).to(self.basis)
        vectors = turn @ self.basis[:, : self.size]
        self.expected = (self.coupling @ mixes[:, self.size - self.last :]).transpose(0, 2, 1)
        self.size = self.near = len(best)
        self.basis[:, : self.size] = vectors
        self.projected[:] = 0.0
        for i, place in enumerate(best):
            self.projected[:, i, i] = pairs.values[:, place]


def _beside(vectors: list[Tensor]) -> Float[Tensor, "S B P"]:
    """B vectors of every matrix as one tensor; a single one is not copied."""
    return vectors[0].unsqueeze(1) if len(vectors) == 1 else torch.stack(vectors, 1)


def _small(tensor: Tensor) -> np.ndarray:
    """Where small things are calculated."""
    return tensor.detach().cpu().double().numpy()
