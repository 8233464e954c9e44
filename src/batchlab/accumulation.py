"""Gradient accumulation that equals the whole batch, for the user's own loop.

The gradient of a batch is that of Σwℓ/Σw over *all* its examples: over every micro-batch, the last
short window of an epoch and every process of DistributedDataParallel. A mean of the micro-batches'
means is something else wherever they hold different numbers of examples or tokens.

Where the loader gives whole batches, they are cut:

    accumulate = Accumulator(model, loss, micro_batch_size=32)
    for batch in loader:
        optimizer.zero_grad()
        accumulate(batch)
        optimizer.step()

Where it gives micro-batches, :func:`windows` puts them together:

    for window in windows(loader, 8):
        optimizer.zero_grad()
        accumulate(*window)
        optimizer.step()

Example:
    >>> x = torch.arange(10.0).reshape(5, 2)
    >>> y = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0])
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    >>> def loss(model, batch):
    ...     return (model(batch[0])[:, 0] - batch[1]).square()
    >>> whole = loss(model, (x, y)).mean()
    >>> accumulate = Accumulator(model, loss)
    >>> loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=2)
    >>> for window in windows(loader, 3):  # micro-batches of 2, 2 and 1
    ...     optimizer.zero_grad()
    ...     mean = accumulate(*window)
    ...     optimizer.step()
    >>> bool(torch.isclose(mean, whole))
    True
"""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections import UserDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree

from batchlab import _tree
from batchlab._memory import give_back, is_out_of_memory
from batchlab._processes import Processes
from batchlab._random import Generators
from batchlab._snapshot import Copies, copies, put_values_back
from batchlab.errors import (
    InvalidTypeError,
    InvalidValueError,
    TaskError,
    ValidityWarning,
    must,
    reason,
)
from batchlab.schedules import accum_steps

Reduction = Literal["none", "mean", "sum"]
"""What a loss function returns: one loss per example, their mean, or their sum."""

Loss = Callable[[nn.Module, Any], Tensor]
"""``loss(model, micro_batch)``."""

Weight = Callable[[Any], Tensor | float]
"""``weight(micro_batch)``: w of every example, or their sum."""


def share(losses: Any, weights: Any, total_weight: Any) -> Any:
    """A micro-batch's share Σwℓ/Σw of the mean loss; the lower Σw runs over the whole batch. Of a
    batch in which nothing counts the mean is 0, and so is its gradient.
    """
    return (losses * weights).sum() / (total_weight + (total_weight == 0))


def windows(micro_batches: Iterable[Any], count: int) -> Iterator[tuple[Any, ...]]:
    """Put ``count`` micro-batches at a time together; the last window holds what is left.

    Args:
        micro_batches: Such as a ``DataLoader``.
        count: Micro-batches for each update, at least 1.

    Returns:
        Their windows, in order; none is empty.

    Raises:
        InvalidValueError: If ``count`` is below 1.

    Example:
        >>> list(windows("abcde", 2))
        [('a', 'b'), ('c', 'd'), ('e',)]
    """
    if count < 1:
        raise InvalidValueError(must("count", "at least 1", count))
    return _windows(iter(micro_batches), count)


def _windows(iterator: Iterator[Any], count: int) -> Iterator[tuple[Any, ...]]:
    while window := tuple(itertools.islice(iterator, count)):
        yield window


def identity(global_batch_size: int, micro_batch_size: int, world_size: int = 1) -> str:
    """How a batch comes about, as it is always written.

    Args:
        global_batch_size: Examples of an update, all processes together.
        micro_batch_size: Examples of one forward pass, at most.
        world_size: Processes.

    Returns:
        ``global_batch_size = micro_batch_size × accum_steps × world_size``; what the last
        micro-batches lack is taken off.

    Example:
        >>> identity(256, 64)
        '256 = 64 × 4 × 1 (micro-batch × accumulation × processes)'
        >>> identity(250, 64, 2)
        '250 = 64 × 2 × 2 − 6 (micro-batch × accumulation × processes)'
    """
    steps = accum_steps(global_batch_size, micro_batch_size, world_size)
    short = micro_batch_size * steps * world_size - global_batch_size
    less = f" − {short:,}" if short else ""
    product = f"{micro_batch_size:,} × {steps:,} × {world_size:,}{less}"
    return f"{global_batch_size:,} = {product} (micro-batch × accumulation × processes)"


def examples(batch: Any) -> int:
    """B: how many examples a batch holds.

    Args:
        batch: A tree of tensors that all start with the axis of examples.

    Raises:
        InvalidTypeError: If it is something else.

    Example:
        >>> examples({"x": torch.ones(3, 2), "y": torch.ones(3)})
        3
    """
    leaves = _pytree.tree_leaves(as_tree(batch))
    counts = {len(x) if isinstance(x, Tensor) and x.ndim else None for x in leaves}
    count = counts.pop() if len(counts) == 1 else None
    if count is None:
        hint = "Only then can it be counted and cut."
        found = ", ".join(_described(leaf) for leaf in leaves[:4]) or "nothing"
        constraint = "made of tensors that all start with the axis of examples"
        raise InvalidTypeError(must("batch", constraint, found, hint))
    return count


def cut(batch: Any, size: int) -> list[Any]:
    """Cut a batch into as few micro-batches of at most ``size`` as possible, as even as possible.

    Even, because a small rest costs as much time as a full micro-batch, and because batch norm
    cannot be trained on a single example.

    Args:
        batch: As for :func:`examples`.
        size: Largest micro-batch, at least 1.

    Returns:
        Micro-batches whose sizes differ by at most 1; none for an empty batch.

    Example:
        >>> [len(part) for part in cut(torch.arange(10), 4)]
        [4, 3, 3]
    """
    count, tree = examples(batch), as_tree(batch)
    parts = accum_steps(count, size)
    # Rounded up, so that the larger ones come first: what does not fit shows at once.
    edges = [-(-count * i // max(parts, 1)) for i in range(parts + 1)]
    made = [_tree.narrow(tree, a, b) for a, b in itertools.pairwise(edges)]
    return [same_kind(part, batch) for part in made]


def as_tree(batch: Any) -> Any:
    """What only looks like a dictionary, as tokenizers give it, as one."""
    return dict(batch) if isinstance(batch, UserDict) else batch


def same_kind(tree: Any, batch: Any) -> Any:
    """The contrary: a tree as what ``batch`` is, so that its attributes work."""
    return type(batch)(tree) if isinstance(batch, UserDict) else tree


@dataclass(frozen=True)
class Halving:
    """What was done when memory ran out.

    Attributes:
        window: Which call, from 1.
        before: Examples of the largest micro-batch that was tried.
        after: Largest micro-batch from then on.
        reason: What the error said.
    """

    window: int
    before: int
    after: int
    reason: str

    def __str__(self) -> str:
        return (
            f"Window {self.window}: memory ran out with micro-batches of {self.before:,} "
            f"({self.reason}). It was done again with at most {self.after:,}, which holds from "
            "here on; the weights had not changed, and the batch stays the same."
        )


class Part(NamedTuple):
    """A micro-batch, its weights (None: one each), their sum, and its examples (0: unknown)."""

    batch: Any
    weights: Tensor | None
    total: float
    examples: int


class Start(NamedTuple):
    """What a forward pass changes, as it is at the start of a window."""

    buffers: Copies
    generators: Generators

    @staticmethod
    def of(model: nn.Module) -> Start:
        """Of a model, and of the global generators."""
        return Start(copies(model.buffers()), Generators.now())

    def put_back(self) -> None:
        """As it was."""
        put_values_back(self.buffers)
        self.generators.put_back()


class Failure(NamedTuple):
    """Why a window could not be done: an error, or in words why memory ran out."""

    error: Exception | None
    reason: str = ""


class Accumulator:
    """Adds the gradient of Σwℓ/Σw over a window of micro-batches, whichever way it is cut.

    ``accumulate(*batches)`` is to a whole window what ``loss.backward()`` is to one batch: it adds
    to the gradients, and leaves the update to the optimizer. It returns the mean loss Σwℓ/Σw.

    Under DistributedDataParallel the sums run over all processes, so that shares of unequal size
    are exact too; a process that has no examples left calls it without any. Every process calls
    it equally often.

    With ``recover=True``, a lack of memory does not end the training: the window is done again
    with micro-batches of half the size, from the same weights, buffers and random state. Under
    DistributedDataParallel all processes halve together, because each of them hears whether all
    have come through before gradients are exchanged. The price is that this exchange begins only
    after the last backward pass. ``loss`` is then given the module inside the wrapper.

    Args:
        model: What is trained; its first parameter says to which device micro-batches go. A whole
            batch that stays on the processor takes no memory there.
        loss: ``loss(model, micro_batch)`` → as ``reduction`` says. Mixed precision belongs inside
            it, as ``torch.autocast``.
        micro_batch_size: Cut every batch into micro-batches of at most so many examples; left
            out, batches are taken as they come.
        weight: ``weight(micro_batch)`` → w of each example, shape of the losses, or (for a mean
            or a sum) their sum. Number of examples if left out. For text, the number of tokens
            that count.
        reduction: ``none`` for one loss per example, ``mean`` for Σwℓ/Σw of the micro-batch,
            ``sum`` for Σwℓ.
        scaler: A ``torch.amp.GradScaler``; its ``step`` and ``update`` stay with the loop.
        recover: Whether to go on after a lack of memory.
        said: Told in one sentence what was done after a lack of memory; a warning if left out.

    Attributes:
        micro_batch_size: As it is now.
        halvings: What was done after a lack of memory.
        window: Calls so far.

    Raises:
        InvalidValueError: If a size or the reduction is impossible, or a window has no weight.
        InvalidTypeError: If a loss has another shape than ``reduction`` says.
        TaskError: In the other processes, if one fails for another reason than memory.
        torch.OutOfMemoryError: If not even one example fits.

    Assumes:
        A loss that is a mean over examples: no example's loss depends on the rest of its
        micro-batch. Batch norm in training mode breaks that, and is warned about once.

    Example:
        >>> tokens = {"logits": torch.zeros(4, 3), "kept": torch.tensor([3, 0, 1, 2])}
        >>> def loss(model, batch):  # a mean over tokens
        ...     return (model(batch["logits"])[:, 0] * batch["kept"]).sum() / batch["kept"].sum()
        >>> model = nn.Linear(3, 1)
        >>> accumulate = Accumulator(
        ...     model, loss, micro_batch_size=2, reduction="mean", weight=lambda b: b["kept"].sum()
        ... )
        >>> mean = accumulate(tokens)
        >>> model.bias.grad
        tensor([1.])
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        micro_batch_size: int | None = None,
        weight: Weight | None = None,
        reduction: Reduction = "none",
        scaler: Any = None,
        recover: bool = False,
        said: Callable[[str], object] | None = None,
    ) -> None:
        if micro_batch_size is not None and micro_batch_size < 1:
            raise InvalidValueError(must("micro_batch_size", "at least 1", micro_batch_size))
        if reduction not in get_args(Reduction):
            names = ", ".join(get_args(Reduction))
            raise InvalidValueError(must("reduction", f"one of {names}", reduction))
        self.model, self.loss, self.weight, self.reduction = model, loss, weight, reduction
        self.micro_batch_size, self.scaler = micro_batch_size, scaler
        self.recover, self.said = recover, said or _warn
        self.halvings: tuple[Halving, ...] = ()
        self.window = 0
        self._processes = Processes(model)
        self._warned = False
        if recover:
            self._processes.refuse_talking_layers()

    def __call__(self, *batches: Any) -> Float[Tensor, ""]:
        """Add the gradient of one window.

        Args:
            batches: Its batches or micro-batches; under DistributedDataParallel those of this
                process.

        Returns:
            The mean loss Σwℓ/Σw of the window, over all processes. Shape ``[]``.
        """
        self.window += 1
        mean = self._recovering(batches) if self.recover else self._once(batches)
        return self._processes.add_up(mean)

    def _once(self, batches: Sequence[Any]) -> Tensor:
        """The window, without a second try."""
        parts = self._parts(batches)
        total, idle = self._processes.sum(_total(parts), float(not parts))
        _check_total(total)
        if not idle:
            return self._backward(parts, total, together=True)
        # A process without examples has no backward pass in which the others could meet it.
        self._processes.refuse_talking_layers()
        with _set_aside(self.model):
            mean = self._backward(parts, total)
            self._meet()
        return mean

    def _recovering(self, batches: Sequence[Any]) -> Tensor:
        """The window, again and again with smaller micro-batches until it fits."""
        start: Start | None = None
        with _set_aside(self.model):
            while True:
                start, parts, total = self._begun(batches, start)
                mean = self._attempt(parts, total)
                if mean is not None:
                    self._meet()
                    return mean
                start.put_back()

    def _begun(
        self, batches: Sequence[Any], start: Start | None
    ) -> tuple[Start, list[Part], float]:
        """What a try begins with: the state to come back to, the micro-batches, Σw over all."""
        ready, failed = _guarded(lambda: (start or Start.of(self.model), self._parts(batches)))
        own = math.nan if ready is None else _total(ready[1])
        total, failures = self._processes.sum(own, float(failed is not None))
        if ready is None or failures:
            raise failed.error if failed and failed.error else TaskError(ELSEWHERE)
        _check_total(total)
        return *ready, total

    def _attempt(self, parts: list[Part], total: float) -> Tensor | None:
        """One try, of which all processes come to the same verdict: None if memory ran out.

        Until the verdict no process waits for another in a forward or backward pass, so that one
        that fails there leaves nobody waiting.
        """
        mean, failed = _guarded(lambda: self._backward(parts, total), is_out_of_memory)
        if failed is not None:
            self._let_go()
        kind = 0 if failed is None else 1 if failed.error is None else 2
        worst, largest = self._processes.largest(kind, max((p.examples for p in parts), default=0))
        if worst == 2:
            raise failed.error if failed and failed.error else TaskError(ELSEWHERE)
        if worst == 1:
            self._let_go()
            self._halve(int(largest), failed.reason if failed else "in another process")
        return None if worst else mean

    def _halve(self, before: int, reason: str) -> None:
        if before <= 1:
            # The same kind of error as the one that was caught.
            raise torch.OutOfMemoryError(f"Not even a micro-batch of 1 fits: {reason}.")
        done = Halving(self.window, before, -(-before // 2), reason)
        self.micro_batch_size, self.halvings = done.after, (*self.halvings, done)
        if self._processes.rank == 0:
            self.said(str(done))

    def _let_go(self) -> None:
        """Give back the memory of a try that failed."""
        for p in self.model.parameters():
            p.grad = None
        give_back(self._processes.device)

    def _meet(self) -> None:
        """Exchange what the backward passes did not."""
        self._processes.add_gradients()
        self._processes.copy_buffers()

    def _parts(self, batches: Sequence[Any]) -> list[Part]:
        """The micro-batches that have a weight: of one without, even the mean is 0/0."""
        size = self.micro_batch_size
        cuts = [[b] if size is None else cut(b, size) for b in batches]
        parts = [self._weighed(batch) for batch in itertools.chain(*cuts)]
        return [part for part in parts if part.total]

    def _weighed(self, batch: Any) -> Part:
        count = examples(batch) if self.recover or self.weight is None else 0
        if self.weight is None:
            return Part(batch, None, float(count), count)
        weights = torch.as_tensor(self.weight(batch)).detach()
        return Part(batch, weights, float(weights.to("cpu", torch.float64).sum()), count)

    def _backward(self, parts: list[Part], total: float, together: bool = False) -> Tensor:
        """Add the gradients of the parts, and return Σwℓ of the parts over the whole Σw.

        ``together``, the processes exchange gradients in the last backward pass. What
        DistributedDataParallel makes of them there is a mean, where a sum is due.
        """
        if len(parts) > 1:
            self._warn_of_batch_norm()
        model = self.model if together else self._processes.inner
        factor = self._processes.size if together else 1
        mean = self._zero()
        for part in parts:
            talks = together and part is parts[-1]
            with contextlib.nullcontext() if talks else self._processes.silent():
                value = self._share(model, part, total)
                self._add_gradient(value * factor)
            mean = mean + value.detach()
        return mean

    def _share(self, model: nn.Module, part: Part, total: float) -> Tensor:
        losses = self.loss(model, _moved(part.batch, self._processes.device))
        self._check_loss(losses, part)
        # bfloat16 counts to 256 only.
        wide = torch.promote_types(losses.dtype, torch.float32)
        if self.reduction == "none":
            weights = torch.ones((), dtype=wide) if part.weights is None else part.weights
        else:
            weights = torch.tensor(part.total if self.reduction == "mean" else 1.0, dtype=wide)
        return share(losses.to(wide), weights.to(losses.device, wide), total)

    def _check_loss(self, losses: Any, part: Part) -> None:
        """A loss of another shape than was said would give a gradient of another size."""
        if self.reduction != "none":
            shape, constraint = (), f"a scalar tensor, the {self.reduction} over the micro-batch"
        elif part.weights is None:
            shape, constraint = (int(part.total),), "one for each example, as a tensor [B]"
        else:
            shape, constraint = tuple(part.weights.shape), "of the shape of the weights"
        if not isinstance(losses, Tensor) or tuple(losses.shape) != shape:
            hint = "Say `reduction='mean'` (or 'sum') if the loss is a single number."
            hint = hint if self.reduction == "none" else "Say `reduction='none'` for several."
            raise InvalidTypeError(must("loss", constraint, _described(losses), hint))

    def _add_gradient(self, value: Tensor) -> None:
        """The backward pass, outside of an autocast around the call, as torch advises."""
        device = value.device.type
        around = torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=False) if around else contextlib.nullcontext():
            (value if self.scaler is None else self.scaler.scale(value)).backward()

    def _zero(self) -> Tensor:
        like = next(self.model.parameters(), None)
        wide = torch.float32 if like is None else torch.promote_types(like.dtype, torch.float32)
        return torch.zeros((), dtype=wide, device=self._processes.device)

    def _warn_of_batch_norm(self) -> None:
        found = _batch_norms(self.model)
        if self._warned or not found:
            return
        self._warned = True
        names = f"`{found[0]}`" if len(found) == 1 else f"`{found[0]}` and {len(found) - 1} more"
        warnings.warn(
            f"The model has batch norm in training mode ({names}). Its means and variances are "
            "those of each micro-batch, not of the whole batch, so the gradient is not quite that "
            "of the whole batch, and the running statistics move once per micro-batch. Layer norm "
            "and group norm have no such effect.",
            ValidityWarning,
            stacklevel=2,
        )


ELSEWHERE = "Another process of this training failed; it says why."


def _warn(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=2)


def _guarded(
    run: Callable[[], Any], in_words: Callable[[Exception], bool] = lambda error: False
) -> tuple[Any, Failure | None]:
    """What came out, or why nothing did. Of an error that words are enough for, nothing is left on
    return: it would keep frames and their tensors alive.
    """
    try:
        return run(), None
    except Exception as error:
        if in_words(error):
            return None, Failure(None, reason(error))
        return None, Failure(error)


@contextlib.contextmanager
def _set_aside(model: nn.Module) -> Iterator[None]:
    """Gradients from before are set aside, then added to the new ones; after an error they are
    there again.
    """
    before = [(p, p.grad) for p in model.parameters()]
    for p, _ in before:
        p.grad = None
    try:
        yield
    except BaseException:
        for p, gradient in before:
            p.grad = gradient
        raise
    for p, gradient in before:
        if gradient is not None:
            p.grad = gradient if p.grad is None else gradient.add_(p.grad)


def _total(parts: Sequence[Part]) -> float:
    return math.fsum(part.total for part in parts)


def _check_total(total: float) -> None:
    if not 0 < total < math.inf:
        hint = "A window needs examples that count."
        raise InvalidValueError(must("weight", "above 0 in sum over a window", total, hint))


def _batch_norms(model: nn.Module) -> list[str]:
    """Names of the layers that look at the statistics of the batch in hand."""
    return [
        name or type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
    ]


def _moved(batch: Any, device: torch.device) -> Any:
    """The batch on a device; what cannot be moved stays."""
    return _pytree.tree_map(lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf, batch)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)}"
    return type(value).__name__
