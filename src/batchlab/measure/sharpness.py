"""Sharpness: the largest eigenvalues and the trace of the Hessian of the loss.

On a fixed subset of the training data, in evaluation mode (batch norm by its running statistics,
no dropout), of one model or of R stacked runs at once. Frozen parameters are left out, and nothing
is left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from batchlab import _random
from batchlab._snapshot import attributes_kept
from batchlab.measure._layers import check_module
from batchlab.measure._own import Examples, examples_of, objective_of, placed
from batchlab.measure._sharpness import Settings, Sharpness
from batchlab.measure._spectra import (
    SIZED_EXAMPLES,
    check_differentiable,
    check_kind,
    measure,
    tensors_of,
)
from batchlab.measure.noise import kept_buffers
from batchlab.tasks import Objective, Prepared
from batchlab.tasks.prepare import first_batch
from batchlab.types import Params, Tree

__all__ = ["Settings", "Sharpness", "SharpnessProbe", "measure", "sharpness", "sharpness_probe"]

# ------------------------------------------------------------------ during training


@dataclass(frozen=True)
class SharpnessProbe:
    """A probe for the engine; see :func:`sharpness_probe`."""

    prepared: Prepared
    settings: Settings

    @property
    def name(self) -> str:
        """What this probe measures, in the plan."""
        asked = [str(getattr(self.settings, f.name)) for f in fields(self.settings)]
        return f"sharpness {' '.join(asked)}"

    def __call__(self, objective: Objective, samples: int) -> dict[str, float]:
        """The sharpness as named floats."""
        return self.together(objective, *tensors_of(objective), [samples])[0]

    def together(
        self, objective: Objective, params: Params, buffers: Params, samples: Sequence[int]
    ) -> list[dict[str, float]]:
        """The same of R stacked runs; see :class:`batchlab.engine.BatchedProbe`."""
        examples = Examples.drawn(self.prepared.train, self.settings.examples, self.settings.seed)
        found = measure(objective, params, buffers, examples, self.settings)
        return [one.values() for one in found]


def sharpness_probe(prepared: Prepared, settings: Settings | None = None) -> SharpnessProbe:
    """The sharpness as a probe that the engine takes during training, of stacked runs at once.

    It records, for each k up to K, ``sharpness.eigenvalue_k`` with ``_low`` and ``_high``, and the
    same for ``smallest`` and ``trace``; ``sharpness.converged`` (1 or 0) and
    ``sharpness.products``. It is measured in the parameters' precision, without autocast. The
    subset is the same at every moment and for every run.

    Args:
        prepared: The task.
        settings: What to measure; left out, the largest eigenvalue and the trace on 1024
            examples.

    Returns:
        ``(objective, samples) → values``, with a form for R runs.

    Raises:
        InvalidValueError: If the Gauss–Newton matrix is asked of a task with a ``training_step``.

    Example:
        >>> from batchlab.engine import Engine, Job
        >>> from batchlab.tasks import load, prepare
        >>> ready = prepare(load("digits"), device="cpu")
        >>> job = Job((0,), sharpness_probe(ready, Settings(examples=64)), (0,), until=64)
        >>> with Engine(ready, None, workers=0) as engine:
        ...     trace, _ = engine.train([ready.baseline], job)
        >>> bool(trace.runs[0].series["sharpness.eigenvalue_1"].values[0] > 0)
        True
    """
    asked = settings or Settings(parts=0)
    check_kind(prepared.task, asked)
    check_differentiable(prepared.objective(asked.seed), first_batch(prepared))
    return SharpnessProbe(prepared, asked)


# ------------------------------------------------------------------ a user's own model


def sharpness(
    model: nn.Module,
    loss: Callable[..., Tensor],
    data: Any,
    *,
    eigenvalues: int = 1,
    probes: int = 16,
    examples: int = 1024,
    kind: str = "hessian",
    tolerance: float = 1e-3,
    smallest: bool = False,
    seed: int = 0,
    micro_batch_size: int | None = None,
    device: str | torch.device | None = None,
    forward: Callable[[nn.Module, Tree], Tree] | None = None,
    weight: Callable[[Tree], Tensor] | None = None,
    collate: Callable[[list[Any]], Tree] | None = None,
) -> Sharpness:
    """How sharp a model's loss is where the model stands, leaving no trace.

    The largest eigenvalues of the Hessian of Σwℓ/Σw, by Lanczos, and its trace, by random probes,
    in evaluation mode on a fixed subset. Parameters that do not require gradients are left out.
    Weights, buffers, gradients, training flags and random state are as before afterwards.

    Args:
        model: Any module. One in less than float32 is copied to it.
        loss: ``(outputs, batch) → losses`` of shape ``[B]``, as in :class:`batchlab.Task`, or
            ``(outputs, target) → losses`` such as ``nn.CrossEntropyLoss(reduction="none")``.
        data: Tensors that start with the examples, such as ``(inputs, target)``, a map-style
            Dataset, or a DataLoader, whose data set is read and whose order is left alone.
        eigenvalues: How many, K.
        probes: Probe vectors of the trace, 0 or at least 8.
        examples: Examples of the subset; all of them where there are fewer.
        kind: ``hessian`` or ``gauss-newton``.
        tolerance: Relative accuracy of each eigenvalue.
        smallest: Whether the smallest eigenvalue is found, too; else it is bounded from above.
        seed: Names the subset and the random vectors.
        micro_batch_size: Examples in memory at a time; as many as 1 GiB holds if left out.
        device: Where to measure; where the model is if left out.
        forward: ``(model, batch) → outputs``; ``model(batch[0])`` if left out.
        weight: ``batch → weights`` of shape ``[B]``; ones if left out.
        collate: List of examples → batch; the DataLoader's if left out.

    Returns:
        Eigenvalues and trace with their ranges; its ``str`` is a table.

    Raises:
        UserError: With one sentence about what is wrong.

    Source:
        ghorbani2019, Lanczos on the Hessian of a network; cohen2021, 2/λ.

    Example:
        >>> x = torch.arange(100.0).sin()[:, None]
        >>> found = sharpness(nn.Linear(1, 1, bias=False), nn.MSELoss(reduction="none"), (x, x))
        Traceback (most recent call last):
        batchlab.errors.TaskError: `loss` must be one number per example, shape [8]; got 'shape [8, 1]'. Average over every axis but the first.
        >>> def squares(outputs, target):
        ...     return (outputs - target).square().mean(1)
        >>> found = sharpness(nn.Linear(1, 1, bias=False), squares, (x, x))
        >>> abs(found.largest.value - 2 * float(x.square().mean())) < 1e-5
        True
    """  # noqa: E501
    settings = Settings(
        eigenvalues=eigenvalues,
        probes=probes,
        examples=examples,
        kind=kind,
        tolerance=tolerance,
        smallest=smallest,
        seed=seed,
        micro_batch_size=micro_batch_size,
    )
    own = placed(model, device)
    check_module(own)
    with attributes_kept(own), _random.seeded(seed, "sharpness"):
        own.eval()
        drawn = examples_of(data, collate, examples, seed)
        like = next(p for p in own.parameters() if p.requires_grad)
        few = drawn.batches(slice(0, SIZED_EXAMPLES), SIZED_EXAMPLES, like)[0]
        with kept_buffers(own):
            objective = objective_of(own, loss, few, forward, weight)
        check_differentiable(objective, few)
        return measure(objective, *tensors_of(objective), drawn, settings)[0]
