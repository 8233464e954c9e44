"""The largest micro-batch that fits, for the user's own loop, with the batch size kept.

The sizes run on the live model: forward and backward passes and updates, as in training. Then
weights, buffers, gradients, optimizer, random state and training mode are put back bit for bit,
so that training starts as if nothing had happened.

Example:
    >>> from batchlab.accumulation import Accumulator
    >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).float()
    >>> model = nn.Linear(8, 1)
    >>> optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    >>> def loss(model, batch):
    ...     x, y = batch
    ...     outputs = model(x)[:, 0]
    ...     return nn.functional.binary_cross_entropy_with_logits(outputs, y, reduction="none")
    >>> data = torch.utils.data.TensorDataset(x, y)
    >>> found = find_batch_size(
    ...     model, optimizer, loss, data, global_batch_size=50, max_micro_batch_size=25, said=None
    ... )
    >>> found.micro_batch_size, found.accum_steps
    (25, 2)
    >>> accumulate = Accumulator(
    ...     model, loss, micro_batch_size=found.micro_batch_size, recover=True
    ... )
    >>> for batch in torch.utils.data.DataLoader(data, batch_size=50, shuffle=True):
    ...     optimizer.zero_grad()
    ...     mean = accumulate(batch)
    ...     optimizer.step()
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from batchlab import _platform, _random, _tree
from batchlab._finder import Failure, Found, Outcome, find_largest, judged
from batchlab._memory import give_back, is_out_of_memory
from batchlab._meter import Meter, margin_bytes, tried, unmeasured
from batchlab._platform import MemoryLimit, format_bytes
from batchlab._processes import Processes, refuse_sharded
from batchlab._snapshot import Snapshot
from batchlab.accumulation import (
    ELSEWHERE,
    Accumulator,
    Loss,
    Reduction,
    Weight,
    as_tree,
    examples,
    identity,
    same_kind,
)
from batchlab.errors import InvalidTypeError, InvalidValueError, TaskError, UserError, must

UPDATES = 2
"""Of a trial: in the second, gradients and the optimizer's state are there."""
FIRST_SIZE = 2
"""Not 1: batch norm cannot be trained on a single example."""
LOOKED_AT = 256
"""Examples of a data set that are read to find the longest."""
TOO_LARGE = (
    "invalid configuration argument",
    "canuse32bitindexmath",
    "32-bit index",
    "int_max",
    "integer out of range",
    "input tensor is too large",
)
"""Parts of messages, in lower case, by which a size is refused that no memory could help."""


@dataclass(frozen=True)
class FoundBatchSize:
    """What fits, and how the batch comes about from it.

    Attributes:
        micro_batch_size: Examples of one forward pass, at most; it has run.
        accum_steps: Micro-batches of an update in each process.
        world_size: Processes.
        global_batch_size: Examples of an update, as it was asked for.
        largest: Largest micro-batch that ran, at least ``micro_batch_size``.
        bound_by: ``global_batch_size``, ``max_micro_batch_size``, ``memory``, or ``crash`` for a
            limit other than memory.
        limit: Bytes that training may take on top of what was in use before; 0 where unknown.
        margin_bytes: Bytes kept free below the limit.
        trials: Size → what happened, in the order of trying.
        sentence: All of it in words.
    """

    micro_batch_size: int
    accum_steps: int
    world_size: int
    global_batch_size: int
    largest: int
    bound_by: str
    limit: MemoryLimit
    margin_bytes: int
    trials: dict[int, Outcome]
    sentence: str


def find_batch_size(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    data: Any,
    *,
    global_batch_size: int,
    max_micro_batch_size: int | Literal["auto"] = "auto",
    memory_limit: int | str | None = None,
    margin: int | str | None = None,
    weight: Weight | None = None,
    reduction: Reduction = "none",
    scaler: Any = None,
    said: Callable[[str], object] | None = print,
) -> FoundBatchSize:
    """Find the micro-batch that fits, and how often to accumulate so that the batch stays.

    Each size runs as in training: an update, and a second one while gradients and the optimizer's
    state are there. Memory is measured on NVIDIA GPUs and, on Linux, on the processor; there, a
    limit on the process's memory makes what does not fit fail instead of ending the process. On
    other accelerators only the error says what does not fit. On the processor the answer may come
    out smaller than it could be, where the C library keeps holes between blocks of memory.

    Under DistributedDataParallel all processes try the same sizes at the same time, and a size
    fits where it fits in each.

    Args:
        model: What is trained, where it is trained.
        optimizer: Its optimizer, in whatever state.
        loss: As for :class:`batchlab.accumulation.Accumulator`, like ``weight``, ``reduction`` and
            ``scaler``. Under DistributedDataParallel it is given the module inside the wrapper.
        data: One batch, of which rows are repeated to fill a size: give your longest examples. Or
            a ``Dataset``, of which 256 examples are looked at and the longest is repeated; or a
            ``DataLoader`` over one, which is not iterated over. Or a function from a size to a
            batch.
        global_batch_size: Examples of an update, all processes together: a multiple of their
            number.
        max_micro_batch_size: Largest size of interest; ``auto``: a process's part of the batch.
        memory_limit: Bytes or text such as ``"2GiB"`` on top of what is in use now; the machine's,
            if that is less or none is given.
        margin: Bytes or text to keep free; a twentieth of the limit if left out.
        weight: See ``loss``.
        reduction: See ``loss``.
        scaler: See ``loss``.
        said: Told the result in one sentence, in the first process; None for nobody.

    Returns:
        The sizes, with every trial.

    Raises:
        InvalidValueError: If a size, limit or margin is impossible.
        InvalidTypeError: If the model or optimizer is spread over the processes.
        TaskError: If nothing fits, or another process fails for another reason than memory.
        UserError: If the memory cannot be measured on this system.
        Exception: Whatever model or loss raise for another reason than memory.

    Assumes:
        Nothing else takes or gives back much memory meanwhile. Hooks and files of the user's own
        are not put back, nor the contents of lists that belong to the model.
    """
    processes = Processes(model)
    _check(processes, optimizer)
    part, cap = _cap(global_batch_size, max_micro_batch_size, processes.size)
    accumulate = Accumulator(
        processes.inner, loss, weight=weight, reduction=reduction, scaler=scaler
    )
    before = Snapshot(model, optimizer, *([] if scaler is None else [scaler]))
    batch_of, looked = _batches(data)
    update = _Update(accumulate, optimizer, batch_of, before)
    probe = _Probe(processes, update, memory_limit, margin)
    found = find_largest(
        probe.trial, max_size=cap, start=min(FIRST_SIZE, cap), limit=probe.allowed
    )
    if not found.largest:
        raise TaskError(_nothing(found))
    size = _settled(found, part, probe)
    give_back(processes.device)
    result = _result(found, size, part, probe, global_batch_size, looked)
    if said is not None and processes.rank == 0:
        said(result.sentence)
    return result


def even_size(part: int, largest: int) -> int:
    """The micro-batch size by which a process's part of the batch is done.

    The fewest micro-batches into which it divides evenly; where that would be more than twice as
    many as needed, the fewest there can be, the last ones one example shorter.

    Args:
        part: Examples of a process in an update.
        largest: Largest micro-batch that fits.

    Returns:
        A size of at most ``largest``.

    Example:
        >>> even_size(256, largest=100), even_size(256, largest=300), even_size(251, largest=100)
        (64, 256, 84)
    """
    fewest = -(-part // largest)
    even = (steps for steps in range(fewest, 2 * fewest + 1) if part % steps == 0)
    return -(-part // next(even, fewest))


class _Update:
    """Runs two updates at a size, and puts everything back."""

    def __init__(
        self,
        accumulate: Accumulator,
        optimizer: torch.optim.Optimizer,
        batch_of: Callable[[int], Any],
        before: Snapshot,
    ) -> None:
        self._accumulate, self._optimizer = accumulate, optimizer
        self._batch_of, self._before = batch_of, before
        self.ceiling: int | None = None

    def __call__(self, size: int) -> None:
        """The first update makes the optimizer's state. In the second, as in accumulation, the
        gradients of a micro-batch before are still there.
        """
        try:
            with _random.seeded(0, "find batch size"), _platform.data_limited(self.ceiling):
                self._run(size)
        finally:
            self._before.put_back()

    def _run(self, size: int) -> None:
        model = self._accumulate.model
        if not model.training:
            model.train()
        for p in model.parameters():
            p.grad = None
        batch = self._batch_of(size)
        for _ in range(UPDATES):
            self._accumulate(batch)
            self._optimizer.step()


class _Probe:
    """Tries sizes, in all processes at once."""

    def __init__(
        self,
        processes: Processes,
        update: _Update,
        memory_limit: int | str | None,
        margin: int | str | None,
    ) -> None:
        self._processes, self._update = processes, update
        self._ran_out = False
        device = str(processes.device)
        self.meter = _meter(device)
        self.limit = MemoryLimit(0, unmeasured(device))
        self.margin, self.allowed = 0, None
        if self.meter is None:
            _refuse_unmeasured(device, memory_limit, margin)
            return
        self.limit = _limit(self.meter, memory_limit, processes)
        self.margin = margin_bytes(margin, self.limit)
        if self.limit.bytes:
            self.allowed = int(processes.least(self.limit.bytes - self.margin)[0])
        if device == "cpu" and self.allowed is not None:
            # Threads first: where no memory is left, making them would end the process.
            torch.ones(2**20).add_(1)
            update.ceiling = _platform.data_size() + self.limit.bytes

    def trial(self, size: int) -> Outcome:
        """What happened at a size; all processes come to the same verdict."""
        error = outcome = None
        try:
            outcome = tried(
                lambda: self._update(size), self.meter, lambda e: self._failure_of(e, size)
            )
        except Exception as raised:  # the other processes are told first
            error = raised
        outcome = self._agreed(outcome, error)
        self._ran_out |= outcome.failure is Failure.MEMORY
        return outcome

    def _failure_of(self, error: Exception, size: int) -> Failure | None:
        """Lack of memory, or a size refused as such; anything else is the user's to see."""
        if is_out_of_memory(error):
            return Failure.MEMORY
        text = str(error).lower()
        # Some models, such as those with batch norm, cannot be trained on a single example.
        refused = any(part in text for part in TOO_LARGE) or (size == 1 and self._ran_out)
        return Failure.CRASH if refused else None

    def _agreed(self, outcome: Outcome | None, error: Exception | None) -> Outcome:
        own = len(KINDS) if outcome is None else KINDS.index(outcome.failure)
        taken = 0 if outcome is None else outcome.bytes or 0
        worst, most = map(int, self._processes.largest(own, taken))
        if worst == len(KINDS):
            raise error or TaskError(ELSEWHERE)
        assert outcome is not None
        if own != worst:
            return Outcome(False, None, "it failed in another process", KINDS[worst])
        return Outcome(True, most or None) if outcome.fits else outcome


KINDS = (Failure.NONE, Failure.MEMORY, Failure.CRASH)
"""From good to bad; what comes after them is raised."""


def _check(processes: Processes, optimizer: torch.optim.Optimizer) -> None:
    refuse_sharded([optimizer], "optimizer")
    processes.refuse_talking_layers()
    if any(is_lazy(p) for p in processes.model.parameters()):
        hint = "Run one batch through it first."
        raise InvalidValueError(must("model", "complete", "a lazy parameter", hint))


def _cap(global_batch_size: int, most: int | str, processes: int) -> tuple[int, int]:
    """A process's part of the batch, and the largest size to try."""
    if global_batch_size < 1 or global_batch_size % processes:
        constraint = f"a positive multiple of the {processes} processes"
        constraint = constraint if processes > 1 else "at least 1"
        raise InvalidValueError(must("global_batch_size", constraint, global_batch_size))
    part = global_batch_size // processes
    if most == "auto":
        return part, part
    if not isinstance(most, int) or most < 1:
        raise InvalidValueError(must("max_micro_batch_size", "'auto' or at least 1", most))
    return part, min(part, most)


def _batches(data: Any) -> tuple[Callable[[int], Any], str]:
    """A function from a size to a batch, and what of a data set stands for the rest."""
    inner = data.dataset if isinstance(data, DataLoader) else data
    whole = isinstance(data, DataLoader) and data.batch_sampler is None
    if isinstance(inner, IterableDataset) or whole:
        hint = "Give one batch of your longest examples."
        constraint = "one batch, or examples that can be asked for by number"
        raise InvalidTypeError(must("data", constraint, type(inner).__name__, hint))
    if isinstance(data, DataLoader):
        return _longest(inner, data.collate_fn)
    if isinstance(data, Dataset):
        return _longest(data, default_collate)
    if callable(data) and not isinstance(data, Tensor):
        return data, ""
    return _repeated(data), ""


def _repeated(batch: Any) -> Callable[[int], Any]:
    """Batches of any size from the rows of one."""
    rows, tree = examples(batch), as_tree(batch)
    if not rows:
        raise InvalidValueError(must("data", "a batch of at least one example", "an empty batch"))
    return lambda size: same_kind(_tree.take(tree, torch.arange(size) % rows), batch)


def _longest(data: Any, collate: Callable[[list[Any]], Any]) -> tuple[Callable[[int], Any], str]:
    """Batches of the longest example: the worst one, of those looked at, comes late otherwise."""
    count = len(data)
    if not count:
        raise InvalidValueError(must("data", "at least one example", "an empty data set"))
    index = torch.linspace(0, count - 1, min(count, LOOKED_AT)).long().tolist()
    with _random.seeded(0, "find batch size"):
        lengths = [_tree.elements(data[i]) for i in index]
        item = data[index[lengths.index(max(lengths))]]
    said = f" It ran with copies of the longest of {len(index)} examples looked at, of {count:,}."
    said = said if len(index) < count and len(set(lengths)) > 1 else ""
    return lambda size: collate([item] * size), said


def _meter(device: str) -> Meter | None:
    """None where the memory cannot be measured, or not from trial to trial."""
    if unmeasured(device):
        return None
    meter = Meter(device)
    return meter if meter.reset() else None


def _refuse_unmeasured(device: str, memory_limit: Any, margin: Any) -> None:
    """Without a meter, only an accelerator's own error says what does not fit."""
    if device == "cpu":
        why = unmeasured(device) or "the memory of this process cannot be measured"
        raise UserError(f"No batch size can be found: {why}.")
    if memory_limit is not None or margin is not None:
        name = "margin" if memory_limit is None else "memory_limit"
        raise InvalidValueError(must(name, f"left out on {device}", margin or memory_limit))


def _limit(meter: Meter, given: int | str | None, processes: Processes) -> MemoryLimit:
    """What this process may take; processes on one machine share its memory."""
    machine, count = meter.limit(None), 1 if meter.cuda else processes.on_this_machine()
    shared = f"{machine.source}, shared by {count} processes" if count > 1 else machine.source
    limits = [MemoryLimit(machine.bytes // count, shared)]
    if given is not None:
        limits.append(MemoryLimit(_platform.parse_bytes(given), "memory_limit"))
    return min(limits, key=lambda limit: limit.bytes or math.inf)


def _settled(found: Found, part: int, probe: _Probe) -> int:
    """An even size; like every size that is returned, it has run."""
    size = even_size(part, found.largest)
    if size not in found.trials:
        found.trials[size] = judged(probe.trial(size), probe.allowed)
    return size if found.trials[size].fits else found.largest


def _nothing(found: Found) -> str:
    """Why nothing fits, the smallest sizes first."""
    smallest = sorted(found.trials.items())[:2]
    why = "; ".join(f"a micro-batch of {size}: {outcome.reason}" for size, outcome in smallest)
    return f"Nothing fits. What was tried: {why}."


def _result(
    found: Found, size: int, part: int, probe: _Probe, global_batch_size: int, looked: str
) -> FoundBatchSize:
    processes = global_batch_size // part
    bound = found.bound_by
    if bound == "cap":
        bound = "global_batch_size" if found.largest == part else "max_micro_batch_size"
    return FoundBatchSize(
        micro_batch_size=size,
        accum_steps=-(-part // size),
        world_size=processes,
        global_batch_size=global_batch_size,
        largest=found.largest,
        bound_by=bound,
        limit=probe.limit,
        margin_bytes=probe.margin,
        trials=found.trials,
        sentence=_sentence(found, size, bound, probe, global_batch_size, processes) + looked,
    )


def _sentence(
    found: Found, size: int, bound: str, probe: _Probe, global_batch_size: int, processes: int
) -> str:
    """The identity, what was taken, and why it is not more."""
    taken = found.trials[size].bytes
    peak = "" if taken is None else f" and took {format_bytes(taken)}"
    said = f"{identity(global_batch_size, size, processes)}: a micro-batch of {size:,} ran{peak}."
    if probe.limit.bytes:
        said += f" Limit: {probe.limit}, of which {format_bytes(probe.margin)} are kept free."
    if bound == "max_micro_batch_size":
        return f"{said} Larger ones were not asked for."
    beyond = [(n, o) for n, o in found.trials.items() if not o.fits and n > found.largest]
    if bound == "global_batch_size" or not beyond:
        return said
    failed, outcome = min(beyond, key=lambda trial: trial[0])
    verb = "does not fit" if bound == "memory" else "fails for another reason"
    return f"{said} A micro-batch of {failed:,} {verb}: {outcome.reason}."
