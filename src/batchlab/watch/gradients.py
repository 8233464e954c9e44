"""Squared norms of one update's gradient at two batch sizes, from the user's own backward passes.

No pass is added. Hooks stand on layers and parameters during a measured update and are gone after
it; they read what autograd computes and change none of it. Three ways:

- *per example*: what went into a layer and the gradient of what came out give the squared norm of
  each example's contribution (:mod:`batchlab.measure._per_example`), exactly, for the layers that
  have a formula;
- *micro-batches*: where gradients are accumulated, the gradient of each micro-batch passes by on
  its way into the sum, for every layer;
- *processes*: under DistributedDataParallel, this process's gradient against the mean of all.

All see gradients before clipping, and the first two, on several devices, those of this one before
they are averaged. A factor on the loss, such as that of a GradScaler, multiplies signal and noise
alike.
"""

from __future__ import annotations

import abc
import functools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from batchlab import _random
from batchlab.measure import _per_example

EXAMPLES = 8
"""Examples of a micro-batch whose own norms are formed: they are known far better than the norm of
the mean."""
ELEMENTS = 2**24
"""Numbers that forming them may hold at once, one example's at least."""
TOLERANCE = {torch.float32: 5e-3, torch.float64: 1e-6}
"""Share by which contributions may miss the gradient: matrix products may round as TF32 does."""
COARSE = 0.05
"""The same where a layer worked in 16 bits."""


class Found(NamedTuple):
    """Norms of one update, on the device.

    Attributes:
        small_sq: Mean ‖g‖² of the small batches. Shape ``[]``.
        big_sq: ‖g‖² of the whole. Shape ``[]``.
        small: Examples of a small batch.
        big: Examples of the whole.
        missed: Parameter → by how much the contributions missed its gradient, over what rounding
            allows, shape ``[]``; empty where not checked.
    """

    small_sq: Tensor
    big_sq: Tensor
    small: int
    big: int
    missed: dict[Parameter, Tensor]


class Collector(abc.ABC):
    """Hooks that stand for one update.

    Args:
        parameters: Whose gradient is measured.

    Attributes:
        spent: Seconds spent on the present update, in hooks and on placing them.
        failure: Why nothing more can be measured, or empty.
        refused: Parameters found not to be covered, with the reason.
        size: Examples of the micro-batch at hand.
    """

    method: ClassVar[str]

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = list(parameters)
        self.spent, self.failure, self.size = 0.0, "", 0
        self.refused: dict[Parameter, str] = {}
        self._handles: list[RemovableHandle] = []
        self._check = False
        self._clear()

    def start(self, *, check: bool) -> None:
        """Place the hooks, before the update's first forward pass.

        Args:
            check: Compare contributions with the gradient too.
        """
        began = time.perf_counter()
        self._clear()
        self._check = check
        self._handles = self._hooks()
        self.spent = time.perf_counter() - began

    def stop(self, sizes: Sequence[int]) -> Found | None:
        """Take the hooks away.

        Args:
            sizes: Examples of each micro-batch of the update.

        Returns:
            The norms; None where the update cannot be split: micro-batches of several sizes, one
            example, or other backward passes than one for each micro-batch.
        """
        began = time.perf_counter()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        regular = len(set(sizes)) == 1 and set(self._arrived.values()) == {len(sizes)}
        sound = not self.failure and not self.refused
        usable = regular and sound and self._usable(sizes)
        found = self._found(sizes) if usable else None
        self._clear()
        self.spent += time.perf_counter() - began
        return found

    def _clear(self) -> None:
        self._big: dict[Parameter, Tensor] = {}
        self._missed: dict[Parameter, Tensor] = {}
        self._arrived: Counter[Parameter] = Counter()

    def _guarded(self, hook: Callable[..., None]) -> Callable[..., None]:
        """A hook whose failure ends the measurement, never the training, and whose time counts."""

        def call(*args: Any) -> None:
            if self.failure or not self._handles:
                return
            began = time.perf_counter()
            try:
                hook(*args)
            except Exception as error:  # whatever a user's model does to tensors, it must go on
                self.failure = f"{type(error).__name__}: {error}".splitlines()[0]
            self.spent += time.perf_counter() - began

        return call

    def _arrive(self, parameter: Parameter) -> Tensor:
        """The gradient accumulated so far, counted as arrived."""
        assert parameter.grad is not None
        self._arrived[parameter] += 1
        self._big[parameter] = _norm(parameter.grad)
        return parameter.grad

    def _compare(
        self, parameter: Parameter, contributions: Tensor, gradient: Tensor, coarse: bool = False
    ) -> None:
        """In an update's first backward pass the contributions must make up the whole gradient."""
        if self._check and self._arrived[parameter] == 1:
            allowed = COARSE if coarse else TOLERANCE.get(gradient.dtype, COARSE)
            error = _norm(contributions.reshape(gradient.shape) - gradient)
            self._missed[parameter] = error / (allowed * _norm(gradient)).clamp_min(1e-38)

    @abc.abstractmethod
    def _hooks(self) -> list[RemovableHandle]:
        """Place them all."""

    @abc.abstractmethod
    def _usable(self, sizes: Sequence[int]) -> bool:
        """Whether there are two batch sizes to compare."""

    @abc.abstractmethod
    def _found(self, sizes: Sequence[int]) -> Found:
        """The norms of a regular update."""


class MicroBatches(Collector):
    """‖g‖² of micro-batches against that of their sum. The A of them add up to the gradient G, and
    γⱼ = A·gⱼ is one micro-batch's own: mean ‖γⱼ‖² = A Σ‖gⱼ‖².
    """

    method = "micro-batches"

    def _hooks(self) -> list[RemovableHandle]:
        passing, arrived = self._guarded(self._pass), self._guarded(self._arrived_with)
        self._passing: dict[Parameter, Tensor] = {}
        handles = []
        for p in self.parameters:
            handles.append(p.register_hook(functools.partial(passing, p)))
            handles.append(p.register_post_accumulate_grad_hook(arrived))
        return handles

    def _clear(self) -> None:
        super()._clear()
        self._norms: list[Tensor] = []

    @torch.no_grad()
    def _pass(self, parameter: Parameter, gradient: Tensor) -> None:
        self._norms.append(_norm(gradient))
        if self._check:
            self._passing[parameter] = gradient

    @torch.no_grad()
    def _arrived_with(self, parameter: Parameter) -> None:
        gradient = self._arrive(parameter)
        if self._check:
            self._compare(parameter, self._passing.pop(parameter), gradient)

    def _usable(self, sizes: Sequence[int]) -> bool:
        return len(sizes) > 1

    def _found(self, sizes: Sequence[int]) -> Found:
        small_sq = len(sizes) * _joined(self._norms).square().sum()
        big_sq = _joined(self._big.values()).square().sum()
        return Found(small_sq, big_sq, sizes[0], sum(sizes), self._missed)


class Processes(MicroBatches):
    """‖g‖² of this process's gradient against that of the mean over all W, which
    DistributedDataParallel forms anyway: E‖g‖² = ‖G‖² + tr Σ/n and E‖ḡ‖² = ‖G‖² + tr Σ/(Wn), for n
    examples in each.

    Nothing is sent for it, and no process waits for another: one process's norm is an unbiased
    small one.

    Args:
        wrapper: The model as wrapped.
        parameters: Whose gradient is measured.

    Assumes:
        Processes with equally many examples, and the usual exchange of gradients: their mean.
    """

    method = "processes"

    def __init__(self, wrapper: DistributedDataParallel, parameters: Sequence[Parameter]) -> None:
        self._wrapper, self._world = wrapper, dist.get_world_size(wrapper.process_group)
        super().__init__(parameters)

    def _clear(self) -> None:
        super()._clear()
        self._whole: list[Tensor] = []
        self._queued = False

    @torch.no_grad()
    def _arrived_with(self, parameter: Parameter) -> None:
        super()._arrived_with(parameter)
        if self._wrapper.require_backward_grad_sync and not self._queued:
            self._queued = True
            _after_backward(functools.partial(_after_backward, self._guarded(self._exchanged)))

    @torch.no_grad()
    def _exchanged(self) -> None:
        """Gradients are the means over all processes."""
        self._whole = [_norm(p.grad) for p in self.parameters if p.grad is not None]

    def _usable(self, sizes: Sequence[int]) -> bool:
        return self._world > 1 and sum(sizes) > 0 and bool(self._whole)

    def _found(self, sizes: Sequence[int]) -> Found:
        own, whole = (_joined(part).square().sum() for part in (self._big.values(), self._whole))
        return Found(own, whole, sum(sizes), self._world * sum(sizes), self._missed)


class PerExample(Collector):
    """‖gᵢ‖² of single examples against that of their mean. The contributions cᵢ add up to the
    gradient G, and γᵢ = n·cᵢ is one example's own: mean ‖γᵢ‖² = n Σ‖cᵢ‖².

    Args:
        layers: Layer → names of those of its parameters that are measured.

    Assumes:
        The loss is a mean (or sum) over examples, layers see the batch along their first axis, and
        no example changes another's loss.
    """

    method = "per example"

    def __init__(self, layers: dict[nn.Module, tuple[str, ...]]) -> None:
        self.layers = layers
        owned = (getattr(layer, name) for layer, names in layers.items() for name in names)
        super().__init__(list(dict.fromkeys(owned)))

    def _clear(self) -> None:
        super()._clear()
        self._squares: list[Tensor] = []
        self._factors: list[float] = []
        self._uses: dict[Parameter, list[_per_example.Piece]] = defaultdict(list)
        self._sums: dict[Parameter, Tensor] = {}
        self._coarse: set[Parameter] = set()

    def _hooks(self) -> list[RemovableHandle]:
        seen, arrived = self._guarded(self._forward), self._guarded(self._arrived_with)
        # A wrapper gives back None, as a hook that changes nothing must.
        handles = [layer.register_forward_hook(seen) for layer in self.layers]
        return handles + [p.register_post_accumulate_grad_hook(arrived) for p in self.parameters]

    def _forward(self, layer: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not torch.is_grad_enabled() or not output.requires_grad:
            return
        if _packs_away():
            self.failure = (
                "activations are checkpointed or moved away, and measuring would hold them"
            )
            return
        if reason := self._unfit(layer, args, output):
            names = self.layers[layer]
            self.refused |= {getattr(layer, name): reason for name in names}
            return
        a = args[0].detach()
        backward = functools.partial(self._backward, layer, a, a._version)
        output.register_hook(self._guarded(backward))

    def _unfit(self, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> str:
        """Why this call cannot be split into examples; empty if it can."""
        name = type(layer).__name__
        if not args or len(args[0]) != self.size or len(output) != self.size:
            return f"{name} whose first axis is not the batch"
        if isinstance(layer, nn.Embedding) and self._check and _are_positions(args[0]):
            return f"{name} of positions"
        return ""

    def _backward(self, layer: nn.Module, a: Tensor, version: int, b: Tensor) -> None:
        if a._version != version:
            words = f"{type(layer).__name__} whose input was changed in place"
            names = self.layers[layer]
            self.refused |= {getattr(layer, name): words for name in names}
        else:
            _plainly(b.device, self._keep, layer, a, b)

    def _keep(self, layer: nn.Module, a: Tensor, b: Tensor) -> None:
        """Keep what the contributions of some examples to a layer's gradient are made of."""
        if b.dtype.itemsize < 4:
            self._coarse |= {getattr(layer, name) for name in self.layers[layer]}
            b = b.float()
        some = _some(len(a), _at_once(layer, b), a.device)
        for parameter, piece in self._pieces(layer, a[some], b[some]):
            self._uses[parameter].append(piece)
        if not self._check:
            return
        for part in zip(a.split(len(some)), b.split(len(some)), strict=True):
            for parameter, piece in self._pieces(layer, *part):
                added, before = _per_example.total(piece)[0], self._sums.get(parameter)
                self._sums[parameter] = added if before is None else before.add_(added)

    def _pieces(
        self, layer: nn.Module, a: Tensor, b: Tensor
    ) -> Iterator[tuple[Parameter, _per_example.Piece]]:
        for name, piece in _per_example.pieces(layer, a, b):
            if name in self.layers[layer]:
                yield getattr(layer, name), piece

    def _arrived_with(self, parameter: Parameter) -> None:
        _plainly(parameter.device, self._add, parameter)

    def _add(self, parameter: Parameter) -> None:
        """All uses of a parameter in this pass are known: add its squares."""
        gradient = self._arrive(parameter)
        uses, whole = self._uses.pop(parameter, []), self._sums.pop(parameter, None)
        if uses:
            count = min(map(_examples, uses))
            if len(uses) > 1:
                uses = [_first(use, count) for use in uses]
            self._squares.append(_per_example.squares(uses).sum())
            self._factors.append(self.size / count)
        whole = torch.zeros_like(gradient) if whole is None else whole
        self._compare(parameter, whole, gradient, parameter in self._coarse)

    def _usable(self, sizes: Sequence[int]) -> bool:
        return sum(sizes) > 1 and bool(self._squares)

    def _found(self, sizes: Sequence[int]) -> Found:
        n, squares = sum(sizes), _joined(self._squares)
        small_sq = n * (squares @ squares.new_tensor(self._factors))
        return Found(small_sq, _joined(self._big.values()).square().sum(), 1, n, self._missed)


def processes(model: nn.Module, trained: Sequence[Parameter]) -> Processes | None:
    """The collector of the processes' gradients, where the model is wrapped for several.

    Args:
        model: As it is called in the training loop.
        trained: Parameters that the optimizer changes.
    """
    whole = getattr(model, "_orig_mod", model)
    if not isinstance(whole, DistributedDataParallel) or dist.get_world_size() == 1:
        return None
    return Processes(whole, trained)


def per_example(
    model: nn.Module, trained: Sequence[Parameter], left_out: Mapping[Parameter, str]
) -> tuple[PerExample, str]:
    """The collector of single examples for a model, and what it cannot cover.

    Args:
        model: Wrapped for several devices or not.
        trained: Parameters that the optimizer changes.
        left_out: Those found not to be covered, with the reason.

    Returns:
        The collector (of no layers where the model has none) and, in words, what is in the way of
        more: names of layers, or why it must not be used at all.
    """
    every, layers, others = set(trained), {}, Counter[str]()
    unfit = {p for module in model.modules() for p in _own(module).values() if _reason(module, p)}
    wanted = every - left_out.keys()
    for module in model.modules():
        own = {name: p for name, p in _own(module).items() if p in every}
        names = tuple(name for name, p in own.items() if p in wanted - unfit)
        if names:
            layers[module] = names
        for name in set(own) - set(names):
            p = own[name]
            reason = left_out.get(p) or _reason(module, p) or f"shared {type(module).__name__}"
            others[reason] += p.numel()
    return PerExample(layers), ", ".join(name for name, _ in others.most_common(3))


def forbidden(model: nn.Module, compiled_before: int = 0) -> str:
    """Why examples cannot be told apart in this model at all, in its present mode; or empty.

    Args:
        model: Wrapped or not.
        compiled_before: What :func:`compilations` told when the training began.

    Returns:
        A clause.

    Example:
        >>> few = compilations()
        >>> forbidden(nn.BatchNorm1d(2)), forbidden(nn.BatchNorm1d(2).eval(), few)
        ('batch normalisation makes examples depend on each other', '')
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.training:
            return "batch normalisation makes examples depend on each other"
        if getattr(module, "_compiled_call_impl", None) is not None:
            return "the model is compiled, and a compiled model runs no hooks"
        if type(module).__name__ == "OptimizedModule":
            return "the model is compiled, and a compiled model runs no hooks"
    if compilations() > compiled_before:
        return "a part of the training is compiled, and hooks could be in its way"
    return ""


def compilations() -> int:
    """Pieces of code that torch.compile has compiled in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo.counters["frames"]["total"] if dynamo is not None else 0


def covered(parameters: Sequence[Parameter], trained: Sequence[Parameter]) -> float:
    """Share of the trained numbers that these parameters hold."""
    whole = sum(p.numel() for p in trained)
    return sum(p.numel() for p in parameters) / whole if whole else 0.0


def numbers(tensors: Sequence[Tensor]) -> list[float]:
    """Scalars read from the device together."""
    return _joined(tensors).tolist() if tensors else []


def _own(module: nn.Module) -> dict[str, Parameter]:
    return dict(module.named_parameters(recurse=False))


def _reason(module: nn.Module, parameter: Parameter) -> str:
    """Why a module's own parameter has no formula; empty if it has."""
    # Sharded parameters are tensors of another kind, whose layers see other shapes.
    if type(parameter.data) is not Tensor:
        return f"sharded {type(module).__name__}"
    return _per_example.unsupported(module)


def _are_positions(index: Tensor) -> bool:
    """Whether a table is asked for consecutive rows, as for the places in a sequence."""
    return index.ndim == 1 and len(index) > 2 and bool((index.diff() == 1).all())


def _packs_away() -> bool:
    """Whether what a forward pass saves is not kept as it is."""
    # torch has no public name for it; a test holds that it still answers.
    hooks = torch._C._autograd._top_saved_tensors_default_hooks  # pyright: ignore[reportAttributeAccessIssue]
    return hooks(False) is not None


def _at_once(layer: nn.Module, b: Tensor) -> int:
    """Examples whose gradients of a layer may be formed at once."""
    channels_first = isinstance(layer, nn.Conv1d | nn.Conv2d)
    outputs = b.shape[1 if channels_first else -1]
    steps = b[0].numel() // outputs
    if not isinstance(layer, nn.Linear) and not channels_first:
        return max(1, min(EXAMPLES, ELEMENTS // (steps * (outputs + steps))))
    inputs = layer.weight.numel() // outputs
    each = _per_example.cheaper_materialised(steps, inputs, outputs)
    need = steps * (inputs + outputs) + (inputs * outputs if each else 2 * steps**2)
    return max(1, min(EXAMPLES, ELEMENTS // need))


@functools.lru_cache(maxsize=64)
def _some(size: int, count: int, device: torch.device) -> Tensor:
    """Which examples' own norms are formed: the first of one fixed shuffled order."""
    return _random.permutation(size, seed=0, pass_=0)[:count].to(device)


def _examples(piece: _per_example.Piece) -> int:
    return len(piece) if isinstance(piece, Tensor) else len(piece[0])


def _first(piece: _per_example.Piece, count: int) -> _per_example.Piece:
    if isinstance(piece, _per_example.Factors):
        return _per_example.Factors(piece.a[:count], piece.b[:count])
    if isinstance(piece, _per_example.Rows):
        return piece._replace(index=piece.index[:count], b=piece.b[:count])
    return piece[:count]


def _after_backward(work: Callable[[], None]) -> None:
    """Run at the end of the backward pass at hand. What DistributedDataParallel does there was put
    down during the pass; so work that is put down at its end comes later still.
    """
    # The way torch's own FSDP takes; a test holds that it still leads there.
    torch.autograd.Variable._execution_engine.queue_callback(work)  # pyright: ignore[reportAttributeAccessIssue]


def _norm(x: Tensor) -> Tensor:
    """‖x‖ in at least float32."""
    return torch.linalg.vector_norm(x, dtype=torch.float32 if x.dtype.itemsize < 4 else None)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Scalars as one tensor, on the device of the first."""
    values = list(parts)
    return torch.stack([value.to(values[0]) for value in values])


def _plainly(device: torch.device, work: Callable[..., None], *args: Any) -> None:
    """Run without gradients and without autocast; a backward pass mostly has both off already."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled(device.type):
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            work(*args)
    else:
        work(*args)
