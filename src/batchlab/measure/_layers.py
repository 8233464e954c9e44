"""A model's layers with weights: the weights that lead into each unit, and what each unit says.

A *unit* is an output feature of a linear layer, a channel of a convolution, a hidden unit of a
recurrent layer, a dimension of an embedding. What it says is taken after the nonlinearity,
normalisation and dropout that follow the layer, whether these are modules or functions.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from batchlab import _random, _tree
from batchlab.errors import InvalidTypeError, InvalidValueError, must, reason
from batchlab.tasks.source import Source, make_source
from batchlab.types import Tree

Forward = Callable[[nn.Module, Tree], Any]
"""``(model, batch) → outputs``."""

CONVOLUTIONS = (nn.modules.conv._ConvNd,)
RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
READ_AT_ONCE = 256
FOLLOWED = frozenset(
    name + ending
    for name in (
        *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "tanh"),
        *("sigmoid", "hardtanh", "hardswish", "hardsigmoid", "softplus", "prelu", "rrelu"),
        *("threshold", "softsign", "logsigmoid", "hardshrink", "softshrink", "tanhshrink"),
        *("batch_norm", "dropout", "dropout1d", "dropout2d", "dropout3d"),
        *("alpha_dropout", "feature_alpha_dropout"),
    )
    for ending in ("", "_")
)
"""Functions from a layer's outputs to what its units say, by name."""


class Layer(NamedTuple):
    """One layer with weights.

    Attributes:
        name: In the model; a recurrent layer's is followed by ``l0``, ``l1`` …
        rows: Weights that lead into each unit. Shape ``[H, I]``.
        owner: Name of the module that it is, or is a part of.
        part: Which units of the module's output are its own; None where they are not handed out.
    """

    name: str
    rows: Float[Tensor, "H I"]
    owner: str
    part: slice | None


def layers(model: nn.Module) -> tuple[Layer, ...]:
    """Every layer that owns a weight of two axes or more, in the order of the model.

    Args:
        model: Any module.

    Example:
        >>> model = nn.Sequential(nn.Conv1d(2, 3, 5), nn.ReLU(), nn.GRU(3, 4))
        >>> [(one.name, tuple(one.rows.shape)) for one in layers(model)]
        [('0', (3, 10)), ('2.l0', (4, 21))]
    """
    return tuple(one for name, module in model.named_modules() for one in _layers(name, module))


def _layers(name: str, module: nn.Module) -> Iterator[Layer]:
    if isinstance(module, RECURRENT):
        yield from _recurrent(name, module)
        return
    for key, weight in module.named_parameters(recurse=False):
        if weight.ndim < 2:
            continue
        known = key == "weight" and axis_of(module) is not None
        label = name if key == "weight" else ".".join(filter(None, (name, key)))
        yield Layer(label, _rows(module, weight), name, slice(None) if known else None)


def _rows(module: nn.Module, weight: Tensor) -> Float[Tensor, "H I"]:
    """One row a unit."""
    weight = weight.detach()
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return weight.T
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        # [inputs, outputs/groups, …]: the inputs of a group lead to its outputs only.
        groups = weight.unflatten(0, (module.groups, -1)).transpose(1, 2)
        return groups.reshape(module.out_channels, -1)
    return weight.flatten(1)


def _recurrent(name: str, module: nn.RNN | nn.LSTM | nn.GRU) -> Iterator[Layer]:
    """A unit's weights are those of all its gates, from the inputs and from the hidden units."""
    directions = ("", "_reverse") if module.bidirectional else ("",)
    size = module.proj_size or module.hidden_size
    for depth in range(module.num_layers):
        for place, direction in enumerate(directions):
            keys = [f"weight_{kind}_l{depth}{direction}" for kind in ("ih", "hh")]
            gates = [getattr(module, key).detach() for key in keys]
            rows = [
                g.unflatten(0, (-1, module.hidden_size)).transpose(0, 1).flatten(1) for g in gates
            ]
            last = depth == module.num_layers - 1 and size == module.hidden_size
            part = slice(place * size, (place + 1) * size) if last else None
            label = ".".join(filter(None, (name, f"l{depth}{direction}")))
            yield Layer(label, torch.cat(rows, 1), name, part)


def axis_of(module: nn.Module) -> int | None:
    """The axis of a module's output along which its units lie; None where this file cannot tell.

    Example:
        >>> axis_of(nn.Linear(1, 1)), axis_of(nn.Conv2d(1, 1, 1)), axis_of(nn.ReLU())
        (-1, 1, None)
    """
    if isinstance(module, CONVOLUTIONS):
        return 1
    known = (nn.Linear, nn.Bilinear, nn.Embedding, *RECURRENT)
    return -1 if isinstance(module, known) else None


class Followed(TorchFunctionMode):
    """Follows each layer's output through nonlinearities, normalisation and dropout.

    Attributes:
        said: Module's name → what it said, call by call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, list[Tensor]] = {}
        self._places: dict[int, tuple[str, int]] = {}

    def add(self, name: str, output: Tensor) -> None:
        """A call of a layer has ended."""
        calls = self.said.setdefault(name, [])
        self._places[id(output)] = (name, len(calls))
        calls.append(output)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run it; what it makes of a layer's output takes that output's place."""
        made = func(*args, **(kwargs or {}))
        given = args[0] if args else (kwargs or {}).get("input")
        place = self._places.get(id(given))
        if place is not None and getattr(func, "__name__", "") in FOLLOWED:
            name, call = place
            # The tensor it was stays alive in the caller, or its id is free for another.
            del self._places[id(given)]
            self._places[id(made)] = place
            self.said[name][call] = made
        return made


def listen(
    model: nn.Module, forward: Forward, batch: Tree, names: Iterable[str]
) -> dict[str, Float[Tensor, "B S H"]]:
    """What the units of some modules say on a batch.

    Args:
        model: In evaluation mode; not changed.
        forward: ``(model, batch) → outputs``.
        batch: B examples.
        names: Modules.

    Returns:
        Module's name → ``[B, S, H]``: S places (pixels, steps, calls) of H units; without modules
        that are not called, or whose output has no axis of examples.
    """
    modules = {name: model.get_submodule(name) for name in names}
    size = _tree.size(batch)
    with contextlib.ExitStack() as stack:
        mode = stack.enter_context(Followed())
        for name, module in modules.items():
            stack.enter_context(_removed(module.register_forward_hook(_teller(mode, name))))
        forward(model, batch)
    found = {}
    for name, calls in mode.said.items():
        shaped = [by_place(modules[name], call.detach()) for call in calls]
        if all(len(one) == size for one in shaped):
            found[name] = torch.cat(shaped, 1)
    return found


def _teller(mode: Followed, name: str) -> Callable[..., None]:
    def tell(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            mode.add(name, first)

    return tell


@contextlib.contextmanager
def _removed(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def by_place(module: nn.Module, output: Tensor) -> Float[Tensor, "B S H"]:
    """A module's output with its units last and everything between examples and units as places.

    Args:
        module: A layer with a known axis of units.
        output: Its output.

    Example:
        >>> by_place(nn.Conv2d(1, 3, 1), torch.zeros(2, 3, 4, 5)).shape
        torch.Size([2, 20, 3])
    """
    axis = axis_of(module)
    assert axis is not None
    if isinstance(module, RECURRENT) and not module.batch_first:
        output = output.transpose(0, 1)
    moved = output.movedim(axis, -1)
    return moved.reshape(len(moved), -1, moved.shape[-1])


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """A copy of a model in evaluation mode, while the random state is put aside.

    Args:
        model: Any module; nothing of it is changed.
    """
    own = copy.deepcopy(model).eval()
    with _random.seeded(0, "measure"):
        yield own


def read(
    data: Any, examples: int, model: nn.Module, collate: Callable[[list[Any]], Tree] | None = None
) -> list[Tree]:
    """Up to so many examples, evenly spaced, as batches on the model's device.

    Args:
        data: A tree of tensors whose leaves start with the examples, a map-style Dataset, or a
            source.
        examples: At most so many.
        model: Whose device and precision floating-point data get.
        collate: Joins examples of different shapes.

    Raises:
        InvalidTypeError: If nothing can be read from it.
    """
    if examples < 1:
        raise InvalidValueError(must("examples", "a whole number, 1 or more", examples))
    source = data if isinstance(data, Source) else make_source(data, collate, "data")
    if source.examples < 1:
        raise InvalidValueError(must("data", "at least one example", "none"))
    like = next(iter([*model.parameters(), *model.buffers()]), torch.zeros(()))
    batches = []
    for index in spaced(source.examples, examples).split(READ_AT_ONCE):
        with _random.seeded(0, "evaluation", int(index[0])):
            batch = source.batch(index)
        batches.append(_tree.to(batch, like.device, like.dtype))
    return batches


def spaced(examples: int, most: int) -> Tensor:
    """Indices of at most so many examples, evenly spaced.

    Example:
        >>> spaced(10, 4).tolist(), spaced(3, 4).tolist()
        ([0, 2, 5, 7], [0, 1, 2])
    """
    count = min(examples, most)
    return torch.arange(count) * examples // count


def plain_forward(model: nn.Module, batch: Tree) -> Any:
    """The first entry of a batch that is a tuple or list, else all of it, into the model."""
    return model(batch[0] if isinstance(batch, tuple | list) else batch)


def guarded(forward: Forward | None, model: nn.Module, batch: Tree) -> None:
    """One sentence where the model cannot read the data.

    Args:
        forward: The user's, or None.
        model: The model.
        batch: Some examples.

    Raises:
        InvalidTypeError: With what the model raised.
    """
    try:
        with torch.no_grad():
            (forward or plain_forward)(model, batch)
    except Exception as error:  # the user's own code may raise anything
        hint = "Give `forward=`, a function (model, batch) → outputs."
        said = f"what the model can read; it raised {reason(error)}"
        raise InvalidTypeError(must("data", said, type(batch).__name__, hint)) from error


def check_module(model: object) -> None:
    """A model is a module, and every number in it is finite.

    Raises:
        UserError: If it is not.
    """
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(must("model", "a torch.nn.Module", type(model).__name__))
    for name, tensor in model.named_parameters():
        if not bool(tensor.isfinite().all()):
            hint = "The training has diverged; take an earlier state."
            got = f"NaN or infinity in `{name}`"
            raise InvalidValueError(must("model", "made of finite weights", got, hint))


def owners(found: Iterable[Layer]) -> Mapping[str, None]:
    """Names of the modules whose units are handed out, each once, in order."""
    return dict.fromkeys(one.owner for one in found if one.part is not None)
