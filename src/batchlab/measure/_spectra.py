"""Eigenvalues and trace of the curvature of R runs on fixed examples, with their ranges."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree

from batchlab import _random, _tree
from batchlab._snapshot import attributes_kept
from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.measure._curvature import (
    Curvature,
    Form,
    Losses,
    gauss_newton,
    hessian,
    kernels_with_second_derivatives,
)
from batchlab.measure._differences import check_second_derivatives
from batchlab.measure._hutchinson import rademacher, trace_values
from batchlab.measure._lanczos import BASIS, ROUND_OFF, Spectrum, lanczos
from batchlab.measure._moments import LEVEL, t_quantile
from batchlab.measure._own import Examples
from batchlab.measure._sharpness import UNIT, Settings, Sharpness
from batchlab.measure.noise import coupled
from batchlab.tasks import Objective, Task
from batchlab.tasks.task import total_weight, weighted_sum
from batchlab.types import Estimate, Params, Tree

GRAPH_BYTES = 2**30
"""What the graph of a gradient may hold; a larger subset is taken in micro-batches."""
TENSOR_BYTES = 2**24
"""The largest tensor of runs taken together on a CPU. From 32 MiB on, the C library asks the
system for memory every time, and smaller groups are faster."""
SIZED_EXAMPLES = 8


def measure(
    objective: Objective, params: Params, fixed: Params, examples: Examples, settings: Settings
) -> list[Sharpness]:
    """The sharpness of R models of one form at once, leaving no trace.

    Runs are taken together as far as their graphs fit into memory, and a run that has converged
    costs nothing more. Runs alone give what they give together, up to round-off.

    Args:
        objective: Model and loss of one of them, with weights of its own.
        params: Parameters that are trained, each with a leading R.
        fixed: Buffers and frozen parameters, likewise.
        examples: The subset.
        settings: What to measure.

    Returns:
        One record per run.

    Raises:
        InvalidValueError: If more eigenvalues than parameters are asked for, or a tolerance below
            round-off.
        TaskError: If the model or loss cannot be differentiated twice.
    """
    _check(objective, params, settings)
    with (
        attributes_kept(objective),
        _random.seeded(settings.seed, "sharpness"),
        kernels_with_second_derivatives(objective),
    ):
        objective.eval()
        plan = _Plan.of(objective, params, examples, settings)
        one = next(iter(params.values()))
        work = _Work(objective, examples, plan, settings)
        found: list[Sharpness] = []
        for rows in torch.arange(len(one), device=one.device).split(plan.together):
            found += work.of(_tree.pick(params, rows), _tree.pick(fixed, rows))
    return found


def tensors_of(objective: nn.Module) -> tuple[Params, Params]:
    """Parameters that are trained, and all other tensors, with a leading axis of one.

    Args:
        objective: Any module. Its parameters are not copied, its buffers are.
    """
    named = [(name, p.detach()[None], p.requires_grad) for name, p in objective.named_parameters()]
    params = {name: value for name, value, trained in named if trained}
    frozen = {name: value for name, value, trained in named if not trained}
    return params, frozen | {n: b.detach().clone()[None] for n, b in objective.named_buffers()}


def _check(objective: Objective, params: Params, settings: Settings) -> None:
    if not params:
        raise TaskError(must("model", "a module with parameters that require gradients", "none"))
    leaves = list(params.values())
    size = sum(leaf[0].numel() for leaf in leaves)
    if settings.eigenvalues > size:
        raise InvalidValueError(
            must("eigenvalues", f"at most the {size} parameters", settings.eigenvalues)
        )
    floor = ROUND_OFF * torch.finfo(leaves[0].dtype).eps
    if settings.tolerance < floor:
        words = f"at least {floor:.1g}, the round-off of {str(leaves[0].dtype)[6:]}"
        raise InvalidValueError(must("tolerance", words, settings.tolerance))
    check_kind(objective.task, settings)


def check_kind(task: Task, settings: Settings) -> None:
    """Refuse the Gauss–Newton matrix where nothing shows the outputs.

    Args:
        task: What is trained.
        settings: What is to be measured.

    Raises:
        InvalidValueError: If it is.
    """
    if settings.kind == "gauss-newton" and task.loss is None:
        hint = "A training_step does not show the outputs; give `loss=`, one number per example."
        raise InvalidValueError(must("kind", "hessian", settings.kind, hint))


@dataclass(frozen=True)
class _Plan:
    """How the work is cut.

    Attributes:
        micro_batch: Examples whose graph is in memory.
        together: Runs whose graphs are.
        kept: Vectors that Lanczos keeps for each run.
        parts: Disjoint parts of the subset that are looked at, 0 where they say nothing.
    """

    micro_batch: int
    together: int
    kept: int
    parts: int

    @staticmethod
    def of(objective: Objective, params: Params, examples: Examples, settings: Settings) -> _Plan:
        """From what a few examples hold."""
        one = next(iter(params.values()))
        few = examples.batches(slice(0, SIZED_EXAMPLES), SIZED_EXAMPLES, one)[0]
        held = _held(objective, few, settings)
        each = sum(held) // _tree.size(few) + 1
        size = len(examples.index)
        micro_batch = min(size, settings.micro_batch_size or max(1, GRAPH_BYTES // each))
        parts = settings.parts if examples.population > size >= 2 * settings.parts else 0
        if (parts or micro_batch < size) and size >= 6 and coupled(objective, few):
            parts, micro_batch = 0, _whole(size, settings)
        vector = one.element_size() * sum(p[0].numel() for p in params.values())
        kept = max(8 + 3 * settings.eigenvalues, min(BASIS, GRAPH_BYTES // vector))
        together = 2 * GRAPH_BYTES // (each * micro_batch + kept * vector)
        if one.device.type == "cpu":
            largest = max(held, default=1) * micro_batch // _tree.size(few)
            together = min(together, TENSOR_BYTES // max(1, largest))
        return _Plan(micro_batch, max(1, together), kept, parts)


def _whole(size: int, settings: Settings) -> int:
    """The subset as one micro-batch, where examples affect each other."""
    if settings.micro_batch_size is not None and settings.micro_batch_size < size:
        hint = "Examples of this model affect each other in evaluation mode, too."
        raise InvalidValueError(
            must("micro_batch_size", f"left out or {size}", settings.micro_batch_size, hint)
        )
    return size


def _held(objective: Objective, batch: Tree, settings: Settings) -> list[int]:
    """Bytes of each tensor in the graph of a product on a few examples, the model's own apart."""
    params, fixed = tensors_of(objective)
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {t.untyped_storage().data_ptr() for t in [*params.values(), *fixed.values()]}
    curvature = Curvature([_form(objective, batch, 1.0, settings.kind)], params, fixed)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        curvature.prepare()
    return [size for place, size in held.items() if place not in own]


@dataclass(frozen=True)
class _Work:
    """What is the same for every run."""

    objective: Objective
    examples: Examples
    plan: _Plan
    settings: Settings

    def of(self, params: Params, fixed: Params) -> list[Sharpness]:
        """Runs that fit into memory together; one by one where the model cannot be stacked."""
        try:
            return self.together(params, fixed)
        except TaskError:
            runs = len(next(iter(params.values())))
            if runs == 1:
                raise
        rows = [slice(run, run + 1) for run in range(runs)]
        return [self.together(_rows(params, row), _rows(fixed, row))[0] for row in rows]

    def together(self, params: Params, fixed: Params) -> list[Sharpness]:
        """Eigenvalues first; the space they were found in then leaves less of the trace open."""
        began, asked = time.perf_counter(), self.settings
        size = len(self.examples.index)
        whole, _ = self.curvature(slice(0, size), params, fixed)
        spectra = lanczos(
            whole,
            asked.eigenvalues,
            tolerance=asked.tolerance,
            smallest=asked.smallest,
            seed=asked.seed,
            kept=self.plan.kept,
        )
        traces = None
        if asked.probes:
            signs = rademacher(whole.like.shape[1], asked.seed, asked.probes)
            traces = trace_values(
                whole, signs, [s.basis for s in spectra], [s.trace for s in spectra]
            )
        del whole
        parts = self.parts(params, fixed, torch.stack([s.vectors for s in spectra]))
        seconds = (time.perf_counter() - began) / len(spectra)
        return [
            _record(
                spectrum,
                None if traces is None else traces[run],
                [(values[run], weight) for values, weight in parts],
                self.examples,
                asked,
                seconds,
            )
            for run, spectrum in enumerate(spectra)
        ]

    def curvature(self, part: slice, params: Params, fixed: Params) -> tuple[Curvature, float]:
        """The matrix on some of the examples, and their weight."""
        like = next(iter(params.values()))
        batches = self.examples.batches(part, self.plan.micro_batch, like)
        total = sum(float(total_weight(self.objective.task, batch)) for batch in batches)
        forms = [_form(self.objective, batch, total, self.settings.kind) for batch in batches]
        return Curvature(forms, params, fixed), total

    def parts(
        self, params: Params, fixed: Params, vectors: Float[Tensor, "R K P"]
    ) -> list[tuple[Float[Tensor, "R K"], float]]:
        """uᵀH_j u of the unit vectors on disjoint parts, and the parts' weights."""
        size, count = len(self.examples.index), self.plan.parts
        found = []
        for i in range(count):
            part = slice(i * size // count, (i + 1) * size // count)
            curvature, weight = self.curvature(part, params, fixed)
            values = [
                (u.double() * curvature(u.contiguous()).double()).sum(1).cpu()
                for u in vectors.unbind(1)
            ]
            found.append((torch.stack(values, 1), weight))
        return found


def _rows(params: Params, rows: slice) -> Params:
    return {name: value[rows] for name, value in params.items()}


def check_differentiable(objective: Objective, batch: Tree) -> None:
    """Refuse a model or loss whose second derivatives torch gets wrong without an error.

    Args:
        objective: Model and loss; left as it is.
        batch: A few examples, where the model is.

    Raises:
        TaskError: With one sentence.
    """
    wide = _tree.to(batch, _tree.leaves(batch)[0].device, torch.float64)
    with attributes_kept(objective), kernels_with_second_derivatives(objective):
        objective.eval()
        check_second_derivatives(_losses(objective, wide, 1.0), *tensors_of(objective))


def _losses(objective: Objective, batch: Tree, total: float) -> Losses:
    """Σwℓ of a batch over the weight of the whole subset."""

    def loss(tensors: Params) -> Tensor:
        return weighted_sum(*functional_call(objective, tensors, (batch,)))[0] / total

    return _over_runs(loss)


def _form(objective: Objective, batch: Tree, total: float, kind: str) -> Form:
    """The same as a graph of second order."""

    def outputs(tensors: Params) -> Tree:
        return functional_call(objective, tensors, (batch,), {"predict": True})[0]

    def loss_of(made: Tree) -> Tensor:
        return weighted_sum(*objective.losses(made, batch))[0] / total

    if kind == "hessian":
        return hessian(_losses(objective, batch, total))
    return gauss_newton(_over_runs(outputs), _over_runs(loss_of))


def _over_runs(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of one run for tensors with a leading R."""
    mapped = torch.vmap(one)

    def of(given: Any) -> Any:
        leaves = [leaf for leaf in _pytree.tree_leaves(given) if isinstance(leaf, Tensor)]
        if len(leaves[0]) > 1:
            return mapped(given)
        return _on_tensors(lambda leaf: leaf[None], one(_on_tensors(lambda leaf: leaf[0], given)))

    return of


def _on_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Leaves that are no tensors stay."""
    return _pytree.tree_map(
        lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree
    )


def _record(
    spectrum: Spectrum,
    traces: Float[Tensor, " probes"] | None,
    parts: Sequence[tuple[Float[Tensor, " K"], float]],
    examples: Examples,
    settings: Settings,
    seconds: float,
) -> Sharpness:
    """The numbers of one run with their ranges."""
    size = len(examples.index)
    return Sharpness(
        _eigenvalues(spectrum, size),
        sampled(spectrum.values, parts, size / examples.population) if parts else (),
        _smallest(spectrum, size, settings.tolerance),
        None if traces is None else _trace(traces),
        settings.kind,
        size,
        examples.population,
        spectrum.vectors.shape[1],
        spectrum.products + settings.probes + settings.eigenvalues * bool(parts),
        seconds,
        settings.tolerance,
        spectrum.converged,
    )


def _eigenvalues(spectrum: Spectrum, size: int) -> tuple[Estimate, ...]:
    """θₖ ≤ λₖ ≤ θₖ + ‖Av − θv‖, round-off apart."""
    source, slack = "block Lanczos on a fixed subset", spectrum.round_off
    return tuple(
        Estimate(value, value - slack, value + bound + slack, size, UNIT, source, level=1.0)
        for value, bound in zip(spectrum.values.tolist(), spectrum.bounds.tolist(), strict=True)
    )


def _smallest(spectrum: Spectrum, size: int, tolerance: float) -> Estimate:
    """At most the smallest Ritz value; known from below once its residual is small."""
    value, bound, slack = spectrum.smallest, spectrum.smallest_bound, spectrum.round_off
    known = bound <= max(tolerance * spectrum.magnitude, slack)
    low = value - bound - slack if known else -math.inf
    source = "block Lanczos on a fixed subset"
    return Estimate(value, low, value + slack, size, UNIT, source, level=1.0)


def _trace(values: Float[Tensor, " probes"]) -> Estimate:
    """Mean over the probes, with Student's t."""
    count = len(values)
    mean = float(values.mean())
    half = t_quantile((1 + LEVEL) / 2, count - 1) * float(values.std()) / math.sqrt(count)
    source = "Hutchinson's probes outside the Lanczos space"
    return Estimate(mean, mean - half, mean + half, count, UNIT, source, LEVEL)


def sampled(
    values: Float[Tensor, " K"],
    parts: Sequence[tuple[Float[Tensor, " K"], float]],
    share: float,
) -> tuple[Estimate, ...]:
    """Eigenvalues with ranges for all the data, from disjoint parts of a subset.

    dλ = uᵀ dH u: to first order an eigenvalue moves as the mean of uᵀH_j u over the parts does,
    u held fixed, each part with its weight. Half width t·s/√J·√(1 − share).

    Args:
        values: θ of the whole subset. Shape ``[K]``.
        parts: (uᵀH_j u of each eigenvector, weight) of J parts.
        share: The subset as a share of the data.

    Returns:
        One estimate per eigenvalue.

    Assumes:
        A subset drawn at random without replacement, large enough for first order: of few
        examples the largest eigenvalue is too large on average, since it is a maximum.

    Source:
        cochran1977, section 6.4, the ratio of weighted parts.

    Example:
        >>> parts = [(torch.tensor([float(2 + i % 2)]), 1.0) for i in range(8)]
        >>> print(sampled(torch.tensor([2.5]), parts, share=0.5)[0])
        2.5 loss/parameter² (2.25 to 2.75, n = 8)
    """
    q_JK = torch.stack([part for part, _ in parts]).double()
    weights = torch.tensor([weight for _, weight in parts], dtype=torch.float64)
    count = len(parts)
    apart = (weights / weights.mean())[:, None] * (q_JK - values)
    error = (apart.square().sum(0) / (count * (count - 1)) * (1 - share)).sqrt()
    half = t_quantile((1 + LEVEL) / 2, count - 1) * error
    source = "first order, disjoint parts of the subset"
    return tuple(
        Estimate(value, value - h, value + h, count, UNIT, source, LEVEL)
        for value, h in zip(values.tolist(), half.tolist(), strict=True)
    )
