"""The trace of R symmetric matrices, each known by its products alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from batchlab import _random
from batchlab.measure._lanczos import Products


def trace_values(
    products: Products,
    signs: Iterable[Float[Tensor, " P"]],
    bases: Sequence[Float[Tensor, "_ P"]],
    known: Sequence[float],
) -> Float[Tensor, "R K"]:
    r"""One unbiased value of the trace per probe vector.

    tr A = tr QAQᵀ + E zᵀΠAΠz, z of independent signs and Π = 1 − QᵀQ. What Lanczos has found on
    its space is exact, and only the rest is left to chance, its largest directions taken out.

    Args:
        products: R matrices.
        signs: K vectors of signs, the same for every matrix.
        bases: Orthonormal rows Q for each matrix, chosen without looking at the signs; none makes
            it Hutchinson's estimator.
        known: tr QAQᵀ of each matrix.

    Returns:
        The values in float64. Over all 2ᴾ sign vectors their mean is the trace.

    Source:
        hutchinson1989; meyer2021, with the Krylov space as the sketch.

    Example:
        >>> class Diagonal:
        ...     like = torch.tensor([[1.0, -5.0, 3.0]])
        ...     def __call__(self, vectors): return self.like * vectors
        ...     def only(self, rows): return self
        >>> trace_values(Diagonal(), [torch.tensor([1.0, -1.0, 1.0])], [torch.zeros(0, 3)], [0.0])
        tensor([[-1.]], dtype=torch.float64)
    """
    q_RMP = _padded(bases)
    start = torch.tensor(known, dtype=torch.float64)
    values = []
    for z in signs:
        z_R1P = z.to(products.like).expand(len(q_RMP), 1, -1)
        outside = (z_R1P - (z_R1P @ q_RMP.transpose(1, 2)) @ q_RMP)[:, 0]
        rest = (outside.double() * products(outside).double()).sum(1)
        values.append(start + rest.cpu())
    return torch.stack(values, 1)


def rademacher(size: int, seed: int, count: int) -> Iterable[Float[Tensor, " P"]]:
    """``count`` vectors of independent, fair signs.

    Args:
        size: P.
        seed: Names them.
        count: K.

    Example:
        >>> [sorted(set(z.tolist())) for z in rademacher(100, seed=0, count=2)]
        [[-1.0, 1.0], [-1.0, 1.0]]
    """
    for place in range(count):
        draw = _random.generator(seed, "rademacher", place)
        yield 2.0 * torch.randint(2, (size,), generator=draw) - 1.0


def _padded(bases: Sequence[Tensor]) -> Float[Tensor, "R M P"]:
    """As one tensor: rows of zeros take nothing out."""
    if len(bases) == 1:
        return bases[0].unsqueeze(0)
    longest = max(len(basis) for basis in bases)
    whole = bases[0].new_zeros(len(bases), longest, bases[0].shape[1])
    for run, basis in enumerate(bases):
        whole[run, : len(basis)] = basis
    return whole
