"""How far a layer's rows point along given directions, such as a teacher's, during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from batchlab.errors import InvalidValueError, must
from batchlab.tasks import Objective
from batchlab.types import Params

__all__ = ["OverlapProbe", "overlap_probe"]


@dataclass(frozen=True, eq=False)
class OverlapProbe:
    """A probe for the engine; see :func:`overlap_probe`."""

    directions: Float[Tensor, "k d"]
    weight: str

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """Overlaps of one run."""
        known = dict(objective.named_parameters()) | dict(objective.named_buffers())
        return self._values(self._found(known).detach()[None])[0]

    def together(
        self, objective: Objective, params: Params, buffers: Params, samples: Sequence[int]
    ) -> list[dict[str, float]]:
        """Overlaps of each of R runs."""
        return self._values(self._found({**buffers, **params}).detach())

    def _found(self, known: Mapping[str, Tensor]) -> Tensor:
        if self.weight not in known:
            raise InvalidValueError(must("weight", f"one of {', '.join(known)}", self.weight))
        return known[self.weight]

    def _values(self, weights: Float[Tensor, "R p d"]) -> list[dict[str, float]]:
        W = weights.double().cpu()
        found = (W @ self.directions.mT / math.sqrt(W.shape[-1])).tolist()
        selves = W.square().mean(-1).tolist()
        return [
            {f"overlap.{j}.{r}": m for j, row in enumerate(M) for r, m in enumerate(row)}
            | {f"overlap.{j}.self": q for j, q in enumerate(Q)}
            for M, Q in zip(found, selves, strict=True)
        ]


def overlap_probe(directions: Float[Tensor, "k d"], weight: str = "module.weight") -> OverlapProbe:
    """Overlaps as a probe that the engine takes during training.

    It records M_jr = w_j·u_r/√d as ``overlap.j.r`` and Q_jj = |w_j|²/d as ``overlap.j.self``,
    counted from 0, with u the directions made unit vectors. A residual overlap is that with a
    direction at right angles to the ones already known.

    Args:
        directions: Of any lengths, such as :func:`batchlab.tasks.teacher.directions`.
        weight: Name of the parameter, of shape ``[p d]``, in the task's objective.

    Returns:
        ``(objective, samples) → values``.

    Raises:
        InvalidValueError: If a direction has no length; when it is taken, if the objective has no
            such parameter.

    Example:
        >>> import torch
        >>> overlap_probe(torch.tensor([[3.0, 4.0]])).directions
        tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    lengths = directions.double().norm(dim=-1, keepdim=True)
    if not (lengths > 0).all():
        raise InvalidValueError(must("directions", "longer than 0", lengths.flatten().tolist()))
    return OverlapProbe(directions.double() / lengths, weight)
