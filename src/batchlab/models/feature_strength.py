"""A model whose output is centred at its start and divided by γ: how much it learns features.

One number leads from the lazy end (γ ≪ 1: the weights hardly move, the model is linear in them)
to the rich end (γ ≫ 1: the weights must move far, features are learned).

Centring has to keep what the model can learn at first, so a frozen copy of the start is
subtracted, as in the paper. A readout that starts at zero needs no copy and merges exactly into
the user's own class, but no gradient reaches the body until the readout has grown: the tangent
kernel of the body's weights is 0 at the start. Features that are shown twice to a readout of
opposite signs share their body, so its kernel is 0 as well; two whole networks of opposite signs
would keep it, at twice the size and as another class. So the copy is what is done, and the zero
readout what can be asked for.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from batchlab.errors import InvalidTypeError, InvalidValueError, must

START = "start"
"""Where the frozen copy stands among the wrapper's modules, and in its state."""
_DROPOUTS = {
    *(functional.dropout, torch.dropout, torch.dropout_),
    *(functional.dropout1d, functional.dropout2d, functional.dropout3d),
}
_VIEWS = (
    *("TBackward", "Transpose", "Permute", "View", "UnsafeView", "Expand", "ToCopy", "Clone"),
    *("Slice", "Select", "Squeeze", "Unsqueeze", "Repeat"),
)
_ELEMENTWISE = (
    *("AddBackward", "SubBackward", "RsubBackward", "MulBackward", "DivBackward", "CatBackward"),
    "NativeLayerNorm",
)


class _Bound:
    """A wrapper's ``forward``, with the wrapped model's signature: by that a Trainer knows which
    columns of a data set to keep.
    """

    def __init__(self, wrapper: FeatureStrength) -> None:
        self.wrapper = wrapper

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.wrapper.centred(*inputs, **named)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.wrapper.model.forward)


class _Forward:
    """Gives a wrapper's ``forward``; of the class, the method that it calls."""

    def __get__(self, wrapper: FeatureStrength | None, kind: type) -> Any:
        return kind.centred if wrapper is None else _Bound(wrapper)  # pyright: ignore[reportAttributeAccessIssue]


class FeatureStrength(nn.Module):
    r"""F(x) = (f_θ(x) − f_θ₀(x))/γ, where θ₀ is what the model is given as.

    The copy is in the same mode as the model: its batch norm normalises by the same batch and
    keeps statistics of its own, and its dropout draws the same masks. So F is exactly 0 at the
    start in training too. The copy costs a second forward pass and no backward pass.

    What is no method of the model, such as ``config``, can be read here as well. Where ``labels``
    are given, the model computes its loss itself, of centred logits: they are put where it
    computes its own, after its last part or from what that gives.

    Where γ is small, F is a small difference divided by a small number: its round-off is that of
    f, divided by γ. Use float64 below γ = 0.01 and no bfloat16 below 1.

    Args:
        model: Any module whose output is a tensor, or a record with ``logits``. It is wrapped, not
            copied.
        gamma: γ, above 0 and finite.
        readout: Name of the linear layer or convolution whose output is the model's, as it is or
            as a view. It is set to zero in place of a copy being subtracted; see the text above
            for what this changes.

    Attributes:
        model: The model that is trained.
        gamma: γ, a buffer of shape ``[]``: runs that are stacked may differ in it.
        start: The frozen copy, or None with a ``readout``.

    Raises:
        InvalidValueError: If γ is not a finite number above 0, ``readout`` names no linear layer
            with weights of its own, or the model's names clash with the wrapper's; in a call, if
            the readout's output is not the model's.
        InvalidTypeError: If ``model`` is no module; in a call, if there is no tensor to centre, or
            if ``labels`` are given and the model's loss is made of more than its logits.

    Source:
        atanasov2025, section 2.

    Example:
        >>> model = FeatureStrength(nn.Linear(3, 2), gamma=10.0)
        >>> model(torch.randn(5, 3)).abs().max().item()
        0.0
        >>> sorted(model.state_dict())
        ['bias', 'gamma', 'start.bias', 'start.weight', 'weight']
    """

    gamma: Tensor

    def __init__(self, model: nn.Module, gamma: float, readout: str | None = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(must("model", "a torch.nn.Module", type(model).__name__))
        taken = [name for name in model.state_dict() if name.split(".")[0] in ("gamma", START)]
        if taken:
            raise InvalidValueError(
                must("model", f"without gamma or {START} at its top", taken[0])
            )
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        value = torch.tensor(checked_gamma(gamma), dtype=like.dtype, device=like.device)
        self.model, self.readout, self._checked = model, readout, False
        self.register_buffer("gamma", value)
        self.start = _frozen(model) if readout is None else _silenced(model, readout)
        self.register_state_dict_post_hook(_bare_names)
        self.register_load_state_dict_pre_hook(_own_names)
        self.training = model.training  # parts of the model may be in a mode of their own

    forward: Any = _Forward()

    def centred(self, *inputs: Any, labels: Any = None, **named: Any) -> Any:
        """The model's output, centred and divided by γ; what a call of the module gives."""
        if labels is not None:
            return self._with_loss(inputs, named, labels)
        if self.start is None:
            return _with_logits(self._whole(inputs, named), None, self.gamma)
        with _same_masks(self.training) as again:
            before = self.start(*inputs, **named)
            again()
            now = self.model(*inputs, **named)
        return _with_logits(now, before, self.gamma)

    def _with_loss(self, inputs: tuple[Any, ...], named: dict[str, Any], labels: Any) -> Any:
        """The model's output with the loss that it makes of centred logits."""
        labelled = named | {"labels": labels}
        if self.readout is not None:
            with _replaced(self.model.get_submodule(self.readout), self.gamma):
                return self._whole(inputs, labelled)
        assert self.start is not None
        with _same_masks(self.training) as again:
            with _followed(self.start) as tail:
                whole = self.start(*inputs, **named)
            place = tail.place_of(whole)
            before = tail.said[place.after].output
            again()
            known = self._checked or _unseen()
            graph = nullcontext() if known else torch.enable_grad()  # a check reads it, once
            with graph, _followed(self.model, place, before, self.gamma) as tail:
                whole = self.model(*inputs, **labelled)
        self._check_loss(tail, whole)
        return whole if known or torch.is_grad_enabled() else tree_map(_detached, whole)

    def _check_loss(self, tail: _Tail, whole: Any) -> None:
        """The logits are the centred ones, and the loss is made of them alone."""
        if not tail.put or not _shows(whole, tail.put[-1]):
            raise InvalidTypeError(
                _no_labels("a model whose logits cannot be centred in its loss")
            )
        loss = whole["loss"] if isinstance(whole, Mapping) and "loss" in whole else None
        if self._checked or not isinstance(loss, Tensor) or loss.grad_fn is None:
            return
        self._checked = _is_made_of(loss, tail.put[-1].output, tail.part)
        if not self._checked:
            raise InvalidTypeError(_no_labels("a model whose loss is not made of its logits"))

    def _whole(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """The model's output; at first it is looked whether its readout makes it."""
        if self._checked or _unseen():
            return self.model(*inputs, **named)
        assert self.readout is not None
        with _heard([(self.readout, self.model.get_submodule(self.readout))]) as said:
            whole = self.model(*inputs, **named)
        self._checked = len(said) == 1 and _shows(whole, said[0])
        if not self._checked and _logits(whole) is not None:
            words = "the layer whose output is the model's, with nothing after it"
            hint = "Leave it out to subtract a frozen copy."
            raise InvalidValueError(must("readout", words, self.readout, hint))
        return whole

    def __getattr__(self, name: str) -> Any:
        """What the wrapper lacks, from the model; no methods, which would not be centred."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model" or name.startswith("__"):
                raise
        found = getattr(self.model, name)
        if callable(found):
            said = f"`{name}` of the wrapped model is not centred: call the wrapper, or `.model`."
            raise AttributeError(said)
        return found

    @property
    def keeps_copy(self) -> bool:
        """Whether predicting needs the frozen copy."""
        return self.start is not None

    def merged(self) -> nn.Module:
        """The model to predict with.

        Returns:
            With a ``readout``, a plain model of the user's class: W/γ and b/γ are its last
            layer's. Else a copy of this wrapper: the start is part of the function, so its frozen
            copy stays.

        Example:
            >>> wrapped = FeatureStrength(nn.Sequential(nn.Linear(3, 2)), 4.0, readout="0")
            >>> type(wrapped.merged()).__name__
            'Sequential'
        """
        if self.readout is None:
            return copy.deepcopy(self)
        plain = copy.deepcopy(self.model)
        with torch.no_grad():
            for parameter in plain.get_submodule(self.readout).parameters(recurse=False):
                parameter.div_(self.gamma)
        return plain


def bare(model: nn.Module) -> nn.Module:
    """The model that is trained: what is wrapped, or the model itself where nothing is.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> bare(FeatureStrength(layer, 2.0)) is bare(layer) is layer
        True
    """
    return model.model if isinstance(model, FeatureStrength) else model


def checked_gamma(gamma: float) -> float:
    """γ, if it can be one.

    Raises:
        InvalidValueError: If it is not a finite number above 0.

    Example:
        >>> checked_gamma(2)
        2.0
    """
    is_number = isinstance(gamma, int | float) and not isinstance(gamma, bool)
    if not (is_number and 0 < gamma < math.inf):
        raise InvalidValueError(must("gamma", "a finite number above 0", gamma))
    return float(gamma)


def transferred_rate(rate: float, gamma: float, depth: int) -> float:
    """The learning rate that belongs to γ: η(γ) = η(1)·γ² up to γ = 1, η(1)·γ^(2/L) above.

    Args:
        rate: η(1), the best one at γ = 1, of gradient descent.
        gamma: γ, above 0.
        depth: L, layers with weights on the longest path; :func:`depth_of` counts them.

    Returns:
        η(γ), in units of ``rate``.

    Raises:
        InvalidValueError: If ``gamma`` is not above 0 or ``depth`` is below 1.

    Assumes:
        Gradient descent, with or without momentum. Adam divides by the gradient's size.

    Source:
        atanasov2025, section 3.

    Example:
        >>> [transferred_rate(0.5, gamma, depth=2) for gamma in (0.5, 1.0, 100.0)]
        [0.125, 0.5, 50.0]
    """
    return rate * rate_factor(gamma, depth)


def rate_factor(gamma: float, depth: int) -> float:
    """η(γ)/η(1), see :func:`transferred_rate`.

    Example:
        >>> round(rate_factor(1000.0, depth=3), 9)
        100.0
    """
    if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
        raise InvalidValueError(must("depth", "a whole number, 1 or more", depth))
    return checked_gamma(gamma) ** (2.0 if gamma <= 1 else 2.0 / depth)


def depth_of(output: Tensor) -> int:
    """L: layers with weights on the longest path from the input to an output.

    A weight is a parameter of two or more axes. One that is added to what a layer gives, such as
    positions or a class token, or multiplies its elements, makes no layer. A layer that is used in
    every step of a sequence counts each time.

    Args:
        output: Of a model whose parameters require gradients.

    Returns:
        At least 1.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> depth_of(net(torch.zeros(1, 3)))
        2
    """
    known: dict[Node | None, _Place] = {None: _Place(0, 0)}
    waiting = [output.grad_fn]
    while waiting:
        node = waiting[-1]
        inputs = [] if node is None else [n for n, _ in node.next_functions if n is not None]
        missing = [n for n in inputs if n not in known]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if node is not None and node not in known:
            known[node] = _place(node, [known[n] for n in inputs])
    return max(1, known[output.grad_fn].depth)


class _Place(NamedTuple):
    """Where a node is.

    Attributes:
        depth: Layers up to there.
        axes: Of the parameter that it is, or is made of element by element; else 0.
    """

    depth: int
    axes: int


def _place(node: Node, inputs: list[_Place]) -> _Place:
    """Where a node is whose inputs are there."""
    variable = getattr(node, "variable", None)
    if variable is not None:
        return _Place(0, max(1, variable.ndim))
    axes, depth = [one.axes for one in inputs], max((one.depth for one in inputs), default=0)
    elementwise = node.name().startswith(_VIEWS + _ELEMENTWISE)
    if elementwise:
        return _Place(depth, max(axes) if axes and all(axes) else 0)
    return _Place(depth + any(n >= 2 for n in axes), 0)


def _frozen(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False)


def _silenced(model: nn.Module, readout: str) -> None:
    """Set the layer that makes the output to zero."""
    layer = dict(model.named_modules()).get(readout)
    linear = isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
    own = dict(layer.named_parameters(recurse=False)) if linear else {}
    hint = "Leave it out to subtract a frozen copy."
    if not set(own) <= {"weight", "bias"} or "weight" not in own:
        raise InvalidValueError(must("readout", "the name of a linear layer", readout, hint))
    uses = sum(p is own["weight"] for _, p in model.named_parameters(remove_duplicate=False))
    if uses > 1:
        said = "a layer whose weights no other layer shares"
        raise InvalidValueError(must("readout", said, readout, hint))
    with torch.no_grad():
        for parameter in own.values():
            parameter.zero_()


def _with_logits(now: Any, before: Any, gamma: Tensor) -> Any:
    """An output with its tensor, or its ``logits``, centred and divided."""
    if isinstance(now, Tensor):
        return (now if before is None else now - before) / gamma
    logits = _logits(now)
    if logits is None:
        hint = "Wrap a model that returns one of them."
        got = type(now).__name__
        raise InvalidTypeError(must("model", "one that returns a tensor or `logits`", got, hint))
    if now.get("loss") is not None:
        hint = "Compute the loss from the centred logits."
        raise InvalidTypeError(must("labels", "left to the caller", "a loss in the output", hint))
    centred = _with_logits(logits, None if before is None else before["logits"], gamma)
    whole = copy.copy(now)
    whole["logits"] = centred  # pyright: ignore[reportIndexIssue]
    return whole


def _logits(whole: Any) -> Tensor | None:
    """The tensor of an output, if there is one."""
    found = whole.get("logits") if isinstance(whole, Mapping) else whole
    return found if isinstance(found, Tensor) else None


class _Said(NamedTuple):
    """What a part of a model gave.

    Attributes:
        name: Of the part.
        output: Its output.
        writes: How often that had been written to.
    """

    name: str
    output: Any
    writes: int


@contextmanager
def _heard(parts: Iterable[tuple[str, nn.Module]]) -> Iterator[list[_Said]]:
    """What some parts of a model give for a while, in order."""
    said: list[_Said] = []
    with ExitStack() as hooks:
        for name, part in parts:
            hook = part.register_forward_hook(
                lambda _, __, out, name=name: said.append(_Said(name, out, _writes(out)))
            )
            hooks.callback(hook.remove)
        yield said


def _writes(output: Any) -> int:
    """How often a tensor was written to; 0 where that is not counted."""
    if torch.compiler.is_compiling() or not isinstance(output, Tensor) or output.is_inference():
        return 0
    return output._version


def _shows(whole: Any, said: _Said) -> bool:
    """Whether the tensor of an output is what a part gave, untouched, or a view of it."""
    logits, given = _logits(whole), said.output
    if logits is None or not isinstance(given, Tensor):
        return False
    roots = [one if one._base is None else one._base for one in (logits, given)]
    return roots[0] is roots[1] and _writes(given) == said.writes


@contextmanager
def _replaced(part: nn.Module, gamma: Tensor) -> Iterator[None]:
    """A part of the model gives its output divided for a while."""
    hook = part.register_forward_hook(lambda _, __, output: _with_logits(output, None, gamma))
    try:
        yield
    finally:
        hook.remove()


class _Spot(NamedTuple):
    """Where a tensor is computed in a forward pass.

    Attributes:
        part: How many parts of the model have been called until then.
        after: How many results came since the last of them, its own output included.
    """

    part: int
    after: int


class _Tail(TorchFunctionMode):
    """Follows what a model computes between its parts, and centres one result.

    Args:
        place: Of the result that is centred, or None.
        before: What is subtracted from it.
        gamma: What it is divided by.

    Attributes:
        said: What the latest part gave, and the results since then.
        part: What the part before ``place`` gave.
        put: The centred result.
    """

    def __init__(
        self, place: _Spot | None = None, before: Any = None, gamma: Tensor | None = None
    ) -> None:
        super().__init__()
        self._place, self._before, self._gamma = place, before, gamma
        self._parts = self._inside = 0
        self.said: list[_Said] = []
        self.put: list[_Said] = []
        self.part: Any = None

    def enter(self, *_: Any) -> None:
        """A part is called."""
        self._inside += 1

    def leave(self, _: Any, __: Any, output: Any) -> Any:
        """A part has been called."""
        if self._inside == 1:
            self._parts, self.said = self._parts + 1, []
            if self._place is not None and self._parts == self._place.part:
                self.part = output
            output = self._result(output)
        self._inside -= 1  # only now: what is computed above is none of the model's
        return output

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Number what is computed outside the parts."""
        result = func(*args, **(kwargs or {}))
        return result if self._inside else self._result(result)

    def _result(self, result: Any) -> Any:
        here = _Spot(self._parts, len(self.said))
        if here == self._place and isinstance(result, Tensor) and self._fits(result):
            assert self._gamma is not None
            result = (result - self._before) / self._gamma
            self.put.append(_Said("", result, _writes(result)))
        self.said.append(_Said("", result, _writes(result)))
        return result

    def _fits(self, result: Tensor) -> bool:
        return isinstance(self._before, Tensor) and result.shape == self._before.shape

    def place_of(self, whole: Any) -> _Spot:
        """Where the logits of an output were computed; what is made of them comes later."""
        for i, one in enumerate(self.said):
            if self._parts and _shows(whole, one):
                return _Spot(self._parts, i)
        raise InvalidTypeError(_no_labels("a model whose logits are not computed in its forward"))


@contextmanager
def _followed(model: nn.Module, *centring: Any) -> Iterator[_Tail]:
    """Follow the next pass of a model."""
    tail = _Tail(*centring)
    with ExitStack() as stack:
        for part in model.children():
            stack.callback(part.register_forward_pre_hook(tail.enter).remove)
            stack.callback(part.register_forward_hook(tail.leave).remove)
        stack.enter_context(tail)
        yield tail


def _no_labels(got: str) -> str:
    """That a loss cannot be made by the model, and what can be done."""
    hint = (
        "Call it without labels and compute the loss from the centred logits; in a Trainer, "
        "with compute_loss_func."
    )
    return must("labels", "left to the caller", got, hint)


def _is_made_of(loss: Tensor, logits: Tensor, part: Any) -> bool:
    """Whether a loss depends on logits, and on the part that they come from only through them."""
    behind = {one.grad_fn for one in tree_leaves(part) if isinstance(one, Tensor)} - {None}
    seen: set[Node | None] = {logits.grad_fn}
    waiting, reached = [loss.grad_fn], False
    while waiting:
        node = waiting.pop()
        reached = reached or node is logits.grad_fn
        if node in behind and node is not logits.grad_fn:
            return False
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [inputs for inputs, _ in node.next_functions]
    return reached


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _unseen() -> bool:
    """Whether a pass leaves nothing that could be looked at."""
    return torch.is_inference_mode_enabled() or torch.compiler.is_compiling()


class _Masks(TorchFunctionMode):
    """Dropout draws its masks in a first pass and finds them again in a second."""

    def __init__(self) -> None:
        super().__init__()
        self._masks: list[Tensor] = []
        self._next: Iterator[Tensor] | None = None

    def again(self) -> None:
        """What follows is the second pass."""
        self._next = iter(self._masks)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Multiply by a mask where dropout is called; everything else runs as it is."""
        if func not in _DROPOUTS:
            return func(*args, **(kwargs or {}))
        named = dict(kwargs or {})
        inputs = named.pop("input") if "input" in named else args[0]
        # Drawn in the second pass too: what draws from a global generator in between stays equal.
        drawn = func(torch.ones_like(inputs), *args[1:], **named)
        if self._next is None:
            self._masks.append(drawn)
            return inputs * drawn
        return inputs * next(self._next, drawn)


@contextmanager
def _same_masks(training: bool) -> Iterator[Callable[[], None]]:
    """Two passes that draw the same: gives what to call between them."""
    if not training:
        yield lambda: None
        return
    generators = _generators()
    states = [generator.get_state() for generator in generators]
    with _Masks() as masks:

        def again() -> None:
            masks.again()
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

        yield again


def _generators() -> list[torch.Generator]:
    """Torch's global generators that a forward pass may draw from."""
    if torch.compiler.is_compiling():
        return []
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return [torch.default_generator, *(torch.cuda.default_generators if cuda else ())]


def _bare_names(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """``model.x`` → ``x``: the state of the model alone, beside the copy's and γ."""
    own = f"{prefix}model."
    for name in [name for name in state if name.startswith(own)]:
        state[prefix + name.removeprefix(own)] = state.pop(name)


def _own_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The reverse; the state of a bare model leaves the copy and γ as they are."""
    kept, start = {f"{prefix}gamma": module.gamma}, module.start
    if isinstance(start, nn.Module):
        kept |= {f"{prefix}{START}.{name}": value for name, value in start.state_dict().items()}
    for name in [name for name in state if name.startswith(prefix) and name not in kept]:
        state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)
    for name, value in kept.items():
        state.setdefault(name, value)
