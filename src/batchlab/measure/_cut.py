"""Units of one layer taken out of a trained model: set to their mean, all others as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from batchlab import _random, _tree
from batchlab.engine.evaluate import EVALUATION_BATCH, Evaluator
from batchlab.engine.step import weighted_sum
from batchlab.errors import InvalidValueError, must
from batchlab.measure._layers import CONVOLUTIONS, RECURRENT, axis_of, spaced
from batchlab.tasks import Metric, Objective
from batchlab.tasks.source import Source
from batchlab.types import Tree

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """Where the units are.

    Attributes:
        module: The module whose input, or output, holds them.
        side: ``input`` or ``output``.
        axis: Along which they lie there.
        units: H.
        places: Consecutive entries along that axis that are one unit: the pixels of a channel that
            was flattened; else 1.
        name: The module that says them, or ``input of …``, for the reader.
    """

    module: str
    side: str
    axis: int
    units: int
    places: int
    name: str


class _Call(NamedTuple):
    name: str
    module: nn.Module
    given: Tensor | None
    made: Tensor | None


class _Flattened(TorchFunctionMode):
    """Remembers what was flattened: the result beside what it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run it, and keep a flattening."""
        made = func(*args, **(kwargs or {}))
        named = getattr(func, "__name__", "") in ("flatten", "view", "reshape")
        if named and args and isinstance(args[0], Tensor) and isinstance(made, Tensor):
            self.pairs.append((made, args[0]))
        return made


def site_of(objective: Objective, batch: Tree, layer: str | None = None) -> Site | None:
    """The units that feed the output, or those of a layer.

    By default the input of the last linear layer or convolution that is called. Where that is a
    flattened stack of channels, a unit is a channel with all its places.

    Args:
        objective: In evaluation mode.
        batch: A few examples.
        layer: Name of the module whose output they are.

    Returns:
        The place; None where no layer with weights stands before the last one.

    Raises:
        InvalidValueError: If there is no such layer, or its output has no units.

    Example:
        >>> from batchlab.tasks import Task
        >>> def made():
        ...     return nn.Sequential(nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(6, 2))
        >>> task = Task(made, torch.zeros(4, 1, 3), loss=lambda out, batch: out.mean(1))
        >>> site_of(Objective(task, made()), (torch.zeros(4, 1, 3),))
        Site(module='2', side='input', axis=-1, units=3, places=2, name='0')
    """
    calls, flattened = _calls(objective, batch)
    if layer is not None:
        return _named_site(objective.module, calls, layer)
    ends = [
        i for i, call in enumerate(calls) if isinstance(call.module, (nn.Linear, *CONVOLUTIONS))
    ]
    if not ends or not any(_has_weights(call.module) for call in calls[: ends[-1]]):
        return None
    last = calls[ends[-1]]
    if last.given is None:
        return None
    axis = -1 if isinstance(last.module, nn.Linear) else 1
    units, places, source = last.given.shape[axis], 1, last.given
    if isinstance(last.module, nn.Linear) and last.given.ndim == 2:
        units, places, source = _channels(last.given, flattened)
    name = next((c.name for c in reversed(calls[: ends[-1]]) if _is(c.made, source)), None)
    return Site(last.name, "input", axis, units, places, name or f"input of {last.name}")


def _has_weights(module: nn.Module) -> bool:
    return any(p.ndim > 1 for p in module.parameters(recurse=False))


def _is(one: Tensor | None, other: Tensor) -> bool:
    """Whether two are the same memory, in the same shape."""
    if one is None or one.shape != other.shape:
        return False
    return one is other or one.data_ptr() == other.data_ptr()


def _channels(
    given: Float[Tensor, "B F"], flattened: Sequence[tuple[Tensor, Tensor]]
) -> tuple[int, int, Tensor]:
    """Units, places of each, and what was flattened into the input of a linear layer."""
    for made, source in reversed(flattened):
        if not _is(made, given) or source.ndim < 3 or len(source) != len(given):
            continue
        return source.shape[1], source[0, 0].numel(), source
    return given.shape[1], 1, given


def _calls(objective: Objective, batch: Tree) -> tuple[list[_Call], list[tuple[Tensor, Tensor]]]:
    """Every call of a module without modules in it, in order, and what was flattened."""
    calls: list[_Call] = []

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            given = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
            calls.append(_Call(name, module, given, first_tensor(output)))

        return hook

    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, module in objective.module.named_modules():
            if not any(True for _ in module.children()) or _has_weights(module):
                handle = module.register_forward_hook(keep(name))
                stack.callback(handle.remove)
        mode = stack.enter_context(_Flattened())
        objective(batch)
    return calls, mode.pairs


def first_tensor(output: Any) -> Tensor | None:
    """The tensor that a module makes, or the first of several."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _named_site(model: nn.Module, calls: Sequence[_Call], layer: str) -> Site:
    known = list(dict.fromkeys(call.name for call in calls if call.made is not None))
    call = next((call for call in reversed(calls) if call.name == layer), None)
    if call is None or call.made is None or call.made.ndim < 2:
        hint = "Containers have no units of their own."
        raise InvalidValueError(must("layer", f"one of {', '.join(known)}", layer, hint))
    axis = axis_of(call.module)
    if axis is None:
        axis = 1 if call.made.ndim >= 4 or _by_channel(call.module) else -1
    return Site(layer, "output", axis, call.made.shape[axis], 1, layer)


def _by_channel(module: nn.Module) -> bool:
    """Whether a module without weights hands out channels first."""
    kinds = ("BatchNorm1d", "MaxPool1d", "AvgPool1d", "AdaptiveMaxPool1d", "AdaptiveAvgPool1d")
    return type(module).__name__ in kinds


def by_unit(x: Tensor, site: Site, module: nn.Module) -> Float[Tensor, "B S H"]:
    """What each unit says at each place.

    Args:
        x: The tensor at the site.
        site: The site.
        module: Its module.
    """
    if site.side == "output" and isinstance(module, RECURRENT) and not module.batch_first:
        x = x.transpose(0, 1)
    moved = x.movedim(site.axis, -1).unflatten(-1, (site.units, site.places))
    return moved.movedim(-2, -1).reshape(len(x), -1, site.units)


def with_means(
    x: Tensor, site: Site, kept: Bool[Tensor, " H"], means: Float[Tensor, " H"]
) -> Tensor:
    """The tensor at the site with every unit that is not kept set to its mean.

    Args:
        x: The tensor.
        site: The site.
        kept: Which units stay as they are.
        means: Of each unit.

    Example:
        >>> site = Site("0", "output", -1, 2, 1, "0")
        >>> kept = torch.tensor([True, False])
        >>> with_means(torch.tensor([[5.0, 7.0]]), site, kept, torch.ones(2))
        tensor([[5., 1.]])
    """
    shape = [1] * x.ndim
    shape[site.axis] = -1
    mask = kept.repeat_interleave(site.places).view(shape)
    return x.where(mask, means.to(x.dtype).repeat_interleave(site.places).view(shape))


@contextlib.contextmanager
def changed(model: nn.Module, site: Site, change: Change) -> Iterator[None]:
    """While this lasts, the tensor at the site is what ``change`` makes of it.

    Args:
        model: The model.
        site: The site.
        change: Tensor → tensor of the same shape.
    """
    module = model.get_submodule(site.module)

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (change(inputs[0]), *inputs[1:])

    def after(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    if site.side == "input":
        handle = module.register_forward_pre_hook(before)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class Batches:
    """Some examples of a source, read once and kept as the batches that evaluation asks for.

    Attributes:
        batches: Of :data:`EVALUATION_BATCH` examples each but the last, on the device.
        index: Which examples of the source they are.
        in_memory: Always.
        blocks: None.
    """

    batches: tuple[Tree, ...]
    index: Tensor
    in_memory: bool = True
    blocks: None = None

    @staticmethod
    def of(source: Source, most: int, device: str, dtype: torch.dtype) -> Batches:
        """At most so many examples, evenly spaced."""
        index = spaced(source.examples, most)
        batches = []
        for part in index.split(EVALUATION_BATCH):
            with _random.seeded(0, "evaluation", int(part[0])):
                batches.append(_tree.to(source.batch(part), device, dtype))
        return Batches(tuple(batches), index)

    @property
    def examples(self) -> int:
        """How many were read."""
        return len(self.index)

    def batch(self, index: Tensor, passes: Tensor | None = None, seed: int = 0) -> Tree:
        """See :class:`batchlab.tasks.source.Source`; only what evaluation asks for."""
        return self.batches[int(index[0]) // EVALUATION_BATCH]

    def elements(self) -> Tensor:
        """See :class:`batchlab.tasks.source.Source`; nobody asks."""
        raise NotImplementedError


class Cut:
    """A trained model some of whose units can be held at their means.

    Where the model's outputs are those of the layer that the units feed, everything before it is
    computed once; else the whole model runs each time.

    Args:
        objective: Model and loss, in evaluation mode; a copy of its own.
        site: Where the units are.
        data: Examples.
        metric: The metric.
        autocast: Whether the model runs in bfloat16.
        by_tail: False to run the whole model each time.

    Attributes:
        module: The module at the site.
        short: Whether only the last layer is run.
        said: What each unit says of each example, mean over its places. Shape ``[N, H]``.
        means: Of each unit, over examples and places. Shape ``[H]``.
    """

    def __init__(
        self,
        objective: Objective,
        site: Site,
        data: Batches,
        metric: Metric,
        *,
        autocast: bool = False,
        by_tail: bool = True,
    ) -> None:
        self.objective, self.site, self.data = objective, site, data
        self._autocast = autocast
        self.module = objective.module.get_submodule(site.module)
        like = next(objective.parameters())
        self._device = like.device.type
        self._evaluate = Evaluator(data, metric, str(like.device), like.dtype)
        self._held: dict[int, Tensor] = {}
        said, sums, counts = [], torch.zeros((), dtype=torch.float64), 0
        sums = sums.to(like.device)
        alike = by_tail and site.side == "input" and objective.task.loss is not None
        for batch in self._evaluate.batches():
            x, same = self._pass(batch)
            shaped = by_unit(x, site, self.module).double()
            said.append(shaped.mean(1))
            sums, counts = sums + shaped.sum((0, 1)), counts + shaped.shape[0] * shaped.shape[1]
            alike = alike and same
            if alike:
                self._held[id(batch)] = x
        self.short = alike
        self.said: Tensor = torch.cat(said)
        self.means: Tensor = sums / counts

    def _pass(self, batch: Tree) -> tuple[Tensor, bool]:
        """The tensor at the site, and whether the layer after it makes the model's outputs."""
        held: list[Tensor] = []
        made: list[Any] = []

        def keep(x: Tensor) -> Tensor:
            held.append(x.detach())
            return x

        handle = self.module.register_forward_hook(lambda m, i, output: made.append(output))
        with changed(self.objective.module, self.site, keep), torch.no_grad(), self.precision():
            if self.objective.task.training_step is None:
                outputs = self.objective.outputs(batch)
            else:
                outputs = self.objective(batch)
        handle.remove()
        same = len(held) == 1 and isinstance(outputs, Tensor) and outputs is made[0]
        return held[-1], same

    @property
    def held_bytes(self) -> int:
        """What is kept of the examples."""
        return sum(x.numel() * x.element_size() for x in self._held.values())

    def precision(self) -> Any:
        """The number format of the forward pass."""
        if not self._autocast:
            return contextlib.nullcontext()
        return torch.autocast(self._device, dtype=torch.bfloat16)

    def answer(
        self, kept: Bool[Tensor, " H"], means: Float[Tensor, " H"] | None = None
    ) -> tuple[float, float]:
        """Loss and metric with only these units as they are.

        Args:
            kept: Which units stay.
            means: What the others are set to; their own means if left out.

        Returns:
            ``(loss, metric)``; NaN where predictions are.
        """
        fixed = self.means if means is None else means

        def change(x: Tensor) -> Tensor:
            return with_means(x, self.site, kept, fixed)

        predict = self._by_tail if self.short else self._by_model
        with torch.no_grad(), self.precision():
            found = self._evaluate(lambda batch: predict(batch, change))
        return found[0]["loss"], found[0]["metric"]

    def _by_tail(self, batch: Tree, change: Change) -> tuple[Tree, Tensor, Tensor]:
        task = self.objective.task
        assert task.loss is not None
        outputs = self.module(change(self._held[id(batch)]))
        losses = task.loss(outputs, batch)
        weights = torch.ones_like(losses) if task.weight is None else task.weight(batch)
        return outputs, *weighted_sum(losses, weights)

    def _by_model(self, batch: Tree, change: Change) -> tuple[Tree, Tensor, Tensor]:
        with changed(self.objective.module, self.site, change):
            outputs, losses, weights = self.objective(batch, predict=True)
        return outputs, *weighted_sum(losses, weights)

    def slopes(self) -> Float[Tensor, " H"]:
        """Σ ∂L/∂a·(ā − a) of each unit: the first-order change of the mean loss L when it is set
        to its mean ā.
        """
        total, weight = torch.zeros_like(self.means), 0.0
        for batch in self.data.batches:
            leaves: list[Tensor] = []

            def watch(x: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
                leaves.append(x.detach().requires_grad_())
                return leaves[-1]

            with changed(self.objective.module, self.site, watch), self.precision():
                losses, weights = self.objective(batch)
            loss, count = weighted_sum(losses, weights)
            grads = torch.autograd.grad(loss, leaves, allow_unused=True)
            for x, grad in zip(leaves, grads, strict=True):
                if grad is not None:
                    a, g = (
                        by_unit(t.detach(), self.site, self.module).double() for t in (x, grad)
                    )
                    total += (g * (self.means - a)).sum((0, 1))
            weight += float(count)
        return total / weight
