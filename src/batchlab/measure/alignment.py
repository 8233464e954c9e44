"""How far training moved a model: angle and distance of its weights, likeness of what it says.

Between the start and the end of a training, or between two trainings. Nothing of either model is
changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from batchlab import _tree
from batchlab.config import RunConfig
from batchlab.engine.step import DTYPES
from batchlab.errors import InvalidValueError, must
from batchlab.measure._layers import (
    Forward,
    axis_of,
    check_module,
    guarded,
    listen,
    plain_forward,
    read,
    untouched,
)
from batchlab.models.feature_strength import bare
from batchlab.tasks import Objective, Prepared
from batchlab.types import Params, Tree

EXAMPLES = 256
LEAST_EXAMPLES = 4
"""The unbiased estimate divides by n − 3."""


def cosine(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> float:
    """θ₀·θ/(‖θ₀‖‖θ‖) over all names: 1 where the direction is kept; NaN where one of them is 0.

    Args:
        start: θ₀.
        end: θ, of the same names and shapes.

    Example:
        >>> cosine({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 2.0])})
        0.0
    """
    own, other = _wide(start), _wide(end)
    lengths = _length(own) * _length(other)
    product = float(sum((own[name] * other[name]).sum() for name in own))
    return max(-1.0, min(1.0, product / lengths)) if lengths else math.nan


def distance(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> float:
    """‖θ − θ₀‖ over all names, in the unit of the weights.

    Args:
        start: θ₀.
        end: θ, of the same names and shapes.

    Example:
        >>> distance({"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([4.0, 5.0])})
        5.0
    """
    return _length(_tree.axpy(-1.0, _wide(start), _wide(end)))


def _wide(params: Mapping[str, Tensor]) -> Params:
    return {name: value.detach().double() for name, value in params.items()}


def _length(params: Params) -> float:
    return float(_tree.norm(params)) if params else 0.0


def hsic(
    x: Float[Tensor, "n n"], y: Float[Tensor, "n n"], unbiased: bool = True
) -> Float[Tensor, ""]:
    """The Hilbert–Schmidt independence criterion of two kernels over the same examples.

    Unbiased: [tr(KL) + (1ᵀK1)(1ᵀL1)/((n−1)(n−2)) − 2·1ᵀKL1/(n−2)]/(n(n−3)), the diagonals of K
    and L set to 0. Plain: tr(KHLH)/(n−1)², H = I − 11ᵀ/n.

    Args:
        x: Kernel K.
        y: Kernel L.
        unbiased: Which of them.

    Source:
        song2012, equation 5; gretton2005.

    Example:
        >>> hsic(torch.eye(4), torch.eye(4)).item(), hsic(torch.eye(4), torch.eye(4), False).item()
        (0.0, 0.3333333432674408)
    """
    n = len(x)
    if not unbiased:
        centre = torch.eye(n, dtype=x.dtype) - 1 / n
        return ((centre @ x @ centre) * y).sum() / (n - 1) ** 2
    k, m = x - x.diag().diag(), y - y.diag().diag()
    cross = (k.sum(0) * m.sum(0)).sum()
    whole = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
    return whole / (n * (n - 3))


def kernel_alignment(
    x: Float[Tensor, "n H"], y: Float[Tensor, "n I"], unbiased: bool = True
) -> float:
    """Linear centred kernel alignment: HSIC(K, L)/√(HSIC(K, K)·HSIC(L, L)), K = XXᵀ, L = YYᵀ.

    1 where the two say the same up to rotation, scale and shift; 0 where they are unrelated. The
    plain version is above 0 there, the more so the more units there are for each example; the
    unbiased one, which is used here, is 0 on average and may be negative.

    Args:
        x: What H units say on n examples.
        y: What I units say on the same ones.
        unbiased: Whether HSIC is estimated without bias.

    Returns:
        The alignment; NaN where one of them never changes.

    Raises:
        InvalidValueError: If there are fewer than 4 examples, or not the same.

    Source:
        kornblith2019; nguyen2021 for the unbiased one.

    Example:
        >>> x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
        >>> round(kernel_alignment(x, 5 - 2 * x.flip(1)), 6)
        1.0
    """
    if len(x) != len(y) or len(x) < LEAST_EXAMPLES:
        got = f"{len(x)} and {len(y)}"
        raise InvalidValueError(must("x", f"{LEAST_EXAMPLES} or more examples, as y", got))
    # HSIC does not see a shift; taking the means off first keeps the digits.
    k, m = (_gram(said.double() - said.double().mean(0)) for said in (x, y))
    scale = float(hsic(k, k, unbiased)) * float(hsic(m, m, unbiased))
    return float(hsic(k, m, unbiased)) / math.sqrt(scale) if scale > 0 else math.nan


def _gram(x: Float[Tensor, "n H"]) -> Float[Tensor, "n n"]:
    return x @ x.T


@dataclass(frozen=True)
class LayerAlignment:
    """One layer.

    Attributes:
        name: Of the module that owns the parameters.
        cosine: Of its parameters with those at the start; NaN where one of them is 0.
        distance: How far they moved.
        relative: The same over their length at the start; infinite where that is 0.
        kernel: Centred kernel alignment of what its units say, places averaged; None without data,
            or where the module is not called or its units are not known.
    """

    name: str
    cosine: float
    distance: float
    relative: float
    kernel: float | None = None


@dataclass(frozen=True)
class Alignment:
    """Two states of a model.

    Attributes:
        layers: In the order of the model.
        cosine: Of all parameters together.
        distance: How far they moved.
        relative: The same over their length at the start.
        examples: Examples behind the kernel alignment, 0 without data.
    """

    layers: tuple[LayerAlignment, ...]
    cosine: float
    distance: float
    relative: float
    examples: int = 0

    @property
    def kernel(self) -> float:
        """Mean kernel alignment over the layers that have one; NaN if none has."""
        known = [one.kernel for one in self.layers if one.kernel is not None]
        known = [value for value in known if math.isfinite(value)]
        return sum(known) / len(known) if known else math.nan

    def values(self) -> dict[str, float]:
        """As named floats, for a Trace."""
        found = {
            "cosine": self.cosine,
            "distance": self.distance,
            "relative": self.relative,
            "kernel": self.kernel,
        }
        return {f"alignment.{name}": value for name, value in found.items()}

    def __str__(self) -> str:
        whole = LayerAlignment("all", self.cosine, self.distance, self.relative, self.kernel)
        head = f"{'layer':<24}{'cosine':>9}{'distance':>10}{'relative':>10}{'kernel':>9}"
        return "\n".join([head, *map(_line, self.layers), _line(whole)])


def _line(one: LayerAlignment) -> str:
    kernel = "–" if one.kernel is None or math.isnan(one.kernel) else f"{one.kernel:.3g}"
    numbers = f"{one.cosine:>9.3g}{one.distance:>10.3g}{one.relative:>10.3g}{kernel:>9}"
    return f"{one.name or 'model':<24}{numbers}"


def alignment(
    start: nn.Module | Mapping[str, Tensor],
    end: nn.Module,
    data: Any = None,
    *,
    forward: Forward | None = None,
    examples: int = EXAMPLES,
    collate: Callable[[list[Any]], Tree] | None = None,
) -> Alignment:
    """How far a model moved from another state of it, leaving no trace in either.

    Parameters layer by layer and as a whole; with data, also how alike the two represent it, as
    the centred kernel alignment of each layer's units (unbiased, linear, places averaged).

    Args:
        start: The model as it was, another model of the same shape, or a ``state_dict``.
        end: The model as it is.
        data: A tree of tensors whose leaves start with the examples, or a map-style Dataset; at
            least 4 examples. None for the parameters alone.
        forward: ``(model, batch) → outputs``; by default the first entry of a batch goes into the
            model.
        examples: At most so many are read, evenly spaced.
        collate: Joins examples of different shapes.

    Returns:
        A record whose ``str`` is a table.

    Raises:
        UserError: With one sentence about what is wrong.

    Example:
        >>> import copy
        >>> start = nn.Linear(2, 1)
        >>> end = copy.deepcopy(start)
        >>> _ = end.weight.data.mul_(3), end.bias.data.mul_(3)
        >>> found = alignment(start, end)
        >>> round(found.cosine, 6), round(found.relative, 6)
        (1.0, 2.0)
    """
    check_module(end)
    end = bare(end)
    start = bare(start) if isinstance(start, nn.Module) else start
    with untouched(end) as after:
        before = _start(start, after)
        pairs = _parameters(before), _parameters(after)
        kernels: dict[str, float] = {}
        count = 0
        if data is not None:
            batches = read(data, examples, after, collate)
            count = sum(map(_tree.size, batches))
            guarded(forward, after, batches[0])
            kernels = _kernels(before, after, batches, forward or plain_forward)
        return _aligned(*pairs, kernels, count)


def _start(start: nn.Module | Mapping[str, Tensor], like: nn.Module) -> nn.Module:
    """The start as a module of its own, in evaluation mode."""
    state = start.state_dict() if isinstance(start, nn.Module) else start
    with untouched(like) as own:
        mine = own.state_dict()
        if {n: v.shape for n, v in mine.items()} != {n: v.shape for n, v in state.items()}:
            wrong = sorted(set(mine) ^ set(state))[:3] or "other shapes"
            raise InvalidValueError(must("start", "a state of the same model", wrong))
        own.load_state_dict(state)
    check_module(own)
    return own


def _parameters(model: nn.Module) -> Params:
    return dict(model.named_parameters())


def _kernels(
    before: nn.Module, after: nn.Module, batches: Sequence[Tree], forward: Forward
) -> dict[str, float]:
    """Module's name → alignment of what its units say in the two models."""
    sides = [said_by_example(model, batches, forward) for model in (before, after)]
    return {
        name: kernel_alignment(sides[0][name], sides[1][name])
        for name in sides[0]
        if name in sides[1]
    }


def said_by_example(
    model: nn.Module, batches: Sequence[Tree], forward: Forward
) -> dict[str, Float[Tensor, "N H"]]:
    """What the units of each layer say on each example, averaged over places.

    Args:
        model: In evaluation mode; not changed.
        batches: All examples.
        forward: ``(model, batch) → outputs``.
    """
    names = [name for name, module in model.named_modules() if axis_of(module) is not None]
    parts: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in batches:
            for name, said in listen(model, forward, batch, names).items():
                parts.setdefault(name, []).append(said.double().mean(1).cpu())
    return {name: torch.cat(found) for name, found in parts.items() if len(found) == len(batches)}


def _aligned(start: Params, end: Params, kernels: Mapping[str, float], count: int) -> Alignment:
    names = dict.fromkeys(name.rpartition(".")[0] for name in end)
    rows = []
    for owner in names:
        mine = [name for name in end if name.rpartition(".")[0] == owner]
        sides = [{name: side[name] for name in mine} for side in (start, end)]
        rows.append(LayerAlignment(owner, *_moved(*sides), kernels.get(owner)))
    return Alignment(tuple(rows), *_moved(start, end), count)


def _moved(start: Params, end: Params) -> tuple[float, float, float]:
    """Cosine, distance and relative distance."""
    far, length = distance(start, end), _length(_wide(start))
    relative = far / length if length else math.inf if far else math.nan
    return cosine(start, end), far, relative


@dataclass(frozen=True)
class AlignmentProbe:
    """A probe for the engine, which asks it for that of each run; see :func:`alignment_probe`."""

    prepared: Prepared
    examples: int

    @property
    def name(self) -> str:
        """What this probe measures, in the plan."""
        return f"alignment on {self.examples} examples"

    def of(self, config: RunConfig) -> Callable[[Objective, int], dict[str, float]]:
        """Angle, distance and likeness to the run's own start as named floats."""

        def measure(objective: Objective, samples: int) -> dict[str, float]:
            dtype = DTYPES[config.precision]
            start = self.prepared.objective(config.seed, dtype, config.gamma).module
            found = alignment(
                start,
                objective.module,
                self.prepared.validation,
                forward=self.prepared.task.forward or (lambda model, batch: model(batch[0])),
                examples=self.examples,
            )
            return found.values()

        return measure


def alignment_probe(prepared: Prepared, *, examples: int = EXAMPLES) -> AlignmentProbe:
    """Alignment with the start as a probe that the engine takes during training.

    It records ``alignment.cosine``, ``alignment.distance``, ``alignment.relative`` and
    ``alignment.kernel``, the mean over layers, on validation data.

    Args:
        prepared: The task.
        examples: Examples a moment, at least 4.

    Returns:
        The probe; each run is compared with the start that its own seed names.
    """
    if examples < LEAST_EXAMPLES:
        raise InvalidValueError(must("examples", f"at least {LEAST_EXAMPLES}", examples))
    return AlignmentProbe(prepared, examples)
