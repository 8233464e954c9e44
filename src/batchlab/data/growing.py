"""Batches in batchlab's one order, for the ``DataLoader`` of the user's own loop."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sized
from typing import Any, Literal, NamedTuple, get_args

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import BatchSampler

from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError, must
from batchlab.samplers import Drawn, Stream
from batchlab.schedules import BatchSchedule, accum_steps, batch_schedule

Last = Literal["run-on", "short", "drop"]
"""What happens where a batch would run across the end of a pass over the data."""


ONLY_AT_EPOCHS = "one that grows above what fits in memory only where an epoch starts"
WHY_AT_EPOCHS = "Windows of micro-batches are counted by a factor that is fixed within an epoch."


def of_torch_distributed() -> tuple[int, int]:
    """This process and their number: of torch.distributed, before it is begun as torchrun says;
    (0, 1) without either.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    said = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return (int(said[0]), int(said[1])) if all(map(str.isdecimal, said)) else (0, 1)


class Place(NamedTuple):
    """Where a batch stands in the stream.

    Attributes:
        samples: Examples drawn or passed over before it.
        size: Examples of it, all processes together.
        weight: What the mean loss over this process's share counts for: share × processes / batch
            size of the schedule. The mean over the processes, as DistributedDataParallel takes it,
            then gives every example the same weight, in a short batch as well.
        use: How often the same batch was handed out before, where batches are used again.
    """

    samples: int
    size: int
    weight: float
    use: int = 0


class GrowingBatchSampler(BatchSampler):
    """Batches of one infinite stream of examples, the same for every batch size and schedule.

    The stream is pass 0's permutation of the examples, then pass 1's, and so on, each a pure
    function of the seed and the pass. Two runs with different batch sizes or schedules see the
    same examples in the same order, and a resumed run goes on where it was. Use it as
    ``DataLoader(dataset, batch_sampler=GrowingBatchSampler(dataset, "0:8 20ep:16"))``.

    Epoch e is every batch whose *first* example lies in pass e, so that nothing is left out or
    seen twice:

    - ``last="run-on"``: a batch that reaches the end of the pass is filled up from the next pass
      and belongs to the epoch in which it began; the following epoch starts after it. Every batch
      is whole, and the number of batches differs by at most one between epochs of one batch size.
    - ``last="short"``: that batch ends with the pass. Its mean loss stands for fewer examples:
      multiply it by :attr:`Place.weight` to give every example the same weight.
    - ``last="drop"``: that batch is left out; its examples count as passed over.

    Iterating goes through one epoch, and iterating again through the next. An iteration that is
    broken off goes on at the batch after the last one handed out.

    Several processes share every batch: process r is handed its examples r, r + processes, … All
    have the same number of batches, and shares differ by one example at most;
    :class:`batchlab.accumulation.Accumulator` and :attr:`Place.weight` take account of that.
    The batches and their order are those of one process, so that a state may be loaded by another
    number of processes.

    With ``max_micro``, each share is handed out in :attr:`accumulation` equal pieces, for loops
    that count windows of micro-batches by a factor that is fixed within an epoch, and take the
    mean of their means. In a plain loop leave it out: an Accumulator cuts any batch.

    Args:
        data: The data set, or its number of examples N. One that is shuffled in blocks, as
            :class:`batchlab.data.Shards`, has to be given itself.
        schedule: The batch size of all processes together, from 1 to N, or a schedule such as
            ``"0:8 20ep:16"``. It is read at the first example of a batch, counted in examples from
            the beginning of the stream.
        seed: Names the order, 0 or more.
        last: What happens at the end of a pass. Schedules in updates need ``run-on``.
        rank: This process, from 0; left out, torch.distributed's or torchrun's at the first use of
            the sampler, 0 without either.
        world_size: Processes; left out, theirs likewise, 1 without either.
        max_micro: Examples that fit into one forward pass of one process.

    Raises:
        InvalidValueError: If a batch size, the seed, ``last`` or the processes are impossible; at
            the first use, if the schedule cannot be kept with ``max_micro``.
        InvalidTypeError: If the data set has no length.

    Example:
        >>> sampler = GrowingBatchSampler(10, 4)
        >>> [len(batch) for batch in sampler], [len(batch) for batch in sampler]
        ([4, 4, 4], [4, 4])
        >>> growing = GrowingBatchSampler(10, "0:2 6:4")
        >>> sampler.set_epoch(0)
        >>> sum(sampler, [])[:10] == sum(growing, [])
        True
    """

    def __init__(
        self,
        data: Sized | int,
        schedule: int | str | BatchSchedule,
        seed: int = 0,
        last: Last = "run-on",
        *,
        rank: int | None = None,
        world_size: int | None = None,
        max_micro: int | None = None,
    ) -> None:
        if last not in get_args(Last):
            raise InvalidValueError(must("last", f"one of {', '.join(get_args(Last))}", last))
        self.stream = Stream(_examples(data), seed, getattr(data, "blocks", None))
        self._data = getattr(data, "fingerprint", None)
        self.last, self.max_micro = last, max_micro
        self.schedule = _resolved(schedule, self.stream.examples, last)
        if last == "short" and max_micro is not None:
            words = "run-on or drop with `max_micro`: a short batch has unequal micro-batches"
            raise InvalidValueError(must("last", words, last))
        own, together = of_torch_distributed()
        self.rank, self.world_size = 0, 1
        self._open = rank is None and world_size is None and together == 1
        if not self._open:
            self.divide(
                own if rank is None else rank, together if world_size is None else world_size
            )
        self._begin(epoch=0, samples=0, drawn=0)

    def divide(self, rank: int, world_size: int) -> None:
        """Hand out the share of one of several processes.

        Args:
            rank: This process, from 0.
            world_size: Processes, at least 1.

        Raises:
            InvalidValueError: If there is no such process, or the schedule cannot be kept with
                so many.
        """
        if not 0 <= rank < world_size:
            raise InvalidValueError(
                must("rank", f"from 0 to world_size − 1, {world_size - 1}", rank)
            )
        self.rank, self.world_size = rank, world_size
        self._must_reach_every_process()
        if self.max_micro is not None:
            self._must_be_whole_windows(self.max_micro)
        self._open = False

    @property
    def batch_size(self) -> int:
        """Size of the next batch, examples."""
        return self.schedule.at(self._next)

    @property
    def drop_last(self) -> bool:
        """Whether the rest of a pass is left out."""
        return self.last == "drop"

    @property
    def samples(self) -> int:
        """Place in the stream at which the next batch starts: examples drawn or passed over."""
        return self._next

    @property
    def accumulation(self) -> int:
        """Pieces in which each batch of this epoch is handed out, one by one."""
        self._settle()
        if self.max_micro is None:
            return 1
        size = self.schedule.at(self.epoch * self.stream.examples)
        return accum_steps(size, self.max_micro, self.world_size)

    def __len__(self) -> int:
        """Elements in this epoch's iteration, those already handed out included."""
        left = self.schedule.progress(self._next, self._end)
        dropped = self.drop_last and left.samples > self._end
        return (self._drawn + left.updates - dropped) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this epoch that are left; of the next one if none is."""
        self._settle()
        # At once, not at the first element: a loop may ask for the length in between.
        if self._next >= self._end:
            self._begin(self.epoch + 1, self._next)
        return self._handed_out()

    def places(self) -> Iterator[Place]:
        """Where the batches stand that the next iteration goes through.

        They are known beforehand, so this does not move the sampler, and workers of a
        ``DataLoader`` that fetch ahead do no harm.

        Returns:
            One for each batch, whether or not it is handed out in pieces.

        Example:
            >>> sampler = GrowingBatchSampler(10, "0:2 4:3")
            >>> for batch, place in zip(sampler, sampler.places()):
            ...     print(place.samples, place.size, len(batch))
            0 2 2
            2 2 2
            4 3 3
            7 3 3
        """
        self._settle()
        epoch = self.epoch + (self._next >= self._end)
        return (self._place(first, size) for first, size in self._batches(self._next, epoch))

    def passed_over(self, place: int) -> int:
        """Examples before a place that are in no batch: rests of passes, with ``last="drop"``.

        Args:
            place: In the stream, examples.

        Example:
            >>> GrowingBatchSampler(10, 4, last="drop").passed_over(20)
            4
        """
        if not self.drop_last:
            return 0
        examples = self.stream.examples
        passes = place // examples
        # From the pass after the last step on, all are alike.
        known = min(passes, int(self.schedule.steps[-1].start.value) // examples + 2)
        rests = [self._rest(p) for p in range(known)]
        return sum(rests) + (passes - known) * (rests[-1] if rests else 0)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch.

        An epoch that has begun is not begun again, so that a loop may call this after a resume. A
        finished one is.

        Args:
            epoch: Its number, 0 or more.

        Raises:
            InvalidValueError: If it is not a whole number, 0 or more.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise InvalidValueError(must("epoch", "a whole number, 0 or more", epoch))
        first = epoch * self.stream.examples
        if not first <= self._next < first + self.stream.examples:
            self._begin(epoch, self._first_of(epoch))
        elif epoch != self.epoch:
            self._begin(epoch, self._next)

    def state_dict(self, *, trained: int | None = None) -> dict[str, Any]:
        """Where the stream stands, to be saved with the model.

        Args:
            trained: Elements of this epoch's iteration the loop has trained on. A ``DataLoader``
                with workers fetches ahead, so there this has to be said; left out, everything
                handed out counts. A batch of which pieces are missing is not counted.

        Returns:
            Plain numbers and text.

        Raises:
            InvalidValueError: If these are not batches handed out since this epoch was begun or
                resumed.
        """
        samples, drawn = self._next, self._drawn
        if trained is not None:
            drawn = trained // self.accumulation
            samples = self._place_after(drawn)
        state = {
            "epoch": self.epoch,
            "samples": samples,
            "drawn": drawn,
            "examples": self.stream.examples,
            "seed": self.stream.seed,
            "last": self.last,
        }
        return state if self._data is None else state | {"data": self._data}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.

        The batch size and the number of processes may have changed since.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            ResultError: If the state belongs to another stream.
        """
        own = self.state_dict()
        if not isinstance(state, Mapping):
            raise ResultError(must("state_dict", "what state_dict() returned", state))
        if set(own) - set(state):
            raise ResultError(must("state_dict", f"a state with {', '.join(own)}", sorted(state)))
        for name in ("examples", "seed", "last"):
            if state[name] != own[name]:
                words = f"from a sampler with {name} = {own[name]!r}"
                raise ResultError(must("state_dict", words, state[name]))
        if self._data is not None and state["data"] != self._data:
            hint = "Files, block or window are no longer those of the run that is resumed."
            raise ResultError(must("data", "what the state was taken on", self._data, hint))
        self._begin(state["epoch"], state["samples"], state["drawn"])

    def _settle(self) -> None:
        """Without a word about processes, they are those that train together by the first use."""
        if self._open:
            self.divide(*of_torch_distributed())

    def _begin(self, epoch: int, samples: int, drawn: int = 0) -> None:
        """Stand before the batch at place ``samples``, the ``drawn``-th of this epoch."""
        self.epoch, self._next, self._drawn = epoch, samples, drawn
        self._origin = samples, drawn

    @property
    def _end(self) -> int:
        """The place at which the pass of this epoch ends."""
        return (self.epoch + 1) * self.stream.examples

    def _first_of(self, epoch: int) -> int:
        """Where an epoch begins when every one before it was gone through."""
        start = epoch * self.stream.examples
        return self.schedule.progress(0, start).samples if self.last == "run-on" else start

    def _handed_out(self) -> Iterator[list[int]]:
        """This process's shares of the batches that are left, in pieces."""
        for first, size in self._batches(self._next, self.epoch):
            index, passes = (
                a[self.rank :: self.world_size] for a in self.stream.take(first, size)
            )
            length = len(index) // self.accumulation
            pieces = map(self._listed, index.split(length), passes.split(length))
            yield from itertools.islice(pieces, self.accumulation - 1)
            self._next, self._drawn = self.after(first + size), self._drawn + 1
            yield next(pieces)

    def _listed(self, index: Tensor, passes: Tensor) -> list[int]:
        """As a loader takes them; data in blocks are told what comes next."""
        if self.stream.blocks is None:
            return index.tolist()
        return Drawn(index.tolist(), passes.tolist(), self.stream.seed)

    def _place(self, first: int, size: int) -> Place:
        share = len(range(self.rank, size, self.world_size))
        return Place(first, size, share * self.world_size / self.schedule.at(first))

    def _batches(self, start: int, epoch: int) -> Iterator[tuple[int, int]]:
        """(first place, size) of the batches of an epoch from a place on."""
        end = (epoch + 1) * self.stream.examples
        for first, size in self.schedule.updates(start, end + self.stream.examples):
            if first >= end:
                return
            if self.last == "run-on" or first + size <= end:
                yield first, size
            elif self.last == "short":
                yield first, end - first

    def _rest(self, epoch: int) -> int:
        """Examples of a pass that are left after its last whole batch."""
        end = (epoch + 1) * self.stream.examples
        begun = self.schedule.progress(epoch * self.stream.examples, end)
        return begun.last - (begun.samples - end) if begun.samples > end else 0

    def after(self, place: int) -> int:
        """Where the batch after one of this epoch starts that ends at a place: a rest that is
        dropped is passed over at once.
        """
        dropped = self.drop_last and place + self.schedule.at(place) > self._end
        return self._end if dropped else place

    def _place_after(self, trained: int) -> int:
        """Where the batch after the ``trained``-th of this epoch starts."""
        place, before = self._origin
        if not before <= trained <= self._drawn:
            words = f"a number of batches from {before} to the {self._drawn} handed out"
            raise InvalidValueError(must("trained", words, trained))
        batches = self._batches(place, self.epoch)
        for first, size in itertools.islice(batches, trained - before):
            place = self.after(first + size)
        return place

    def _must_reach_every_process(self) -> None:
        """A process without a share has no batch, and would leave the others waiting."""
        least = min(self.schedule.sizes + self._short_ones())
        if least < self.world_size:
            words = f"one whose batches reach each of {self.world_size} processes"
            hint = "Use last='run-on'." if least < min(self.schedule.sizes) else ""
            raise InvalidValueError(must("schedule", words, f"a batch of {least}", hint))

    def _short_ones(self) -> tuple[int, ...]:
        """The sizes of batches that end with their pass."""
        if self.last != "short" or self.world_size == 1:
            return ()
        examples = self.stream.examples
        # From the pass after the last step on, all are alike.
        passes = range(int(self.schedule.steps[-1].start.value) // examples + 2)
        begun = [self.schedule.progress(p * examples, (p + 1) * examples) for p in passes]
        ends = [(p + 1) * examples for p in passes]
        return tuple(b.last - (b.samples - end) for b, end in zip(begun, ends, strict=True))

    def _must_be_whole_windows(self, max_micro: int) -> None:
        """Refuse what a loop with a fixed factor and a mean of means cannot keep."""
        parts = self.schedule.micro(max_micro, self.world_size)
        for part in parts:
            if part.size % (part.accum_steps * self.world_size):
                equal = part.micro_batch_size * part.accum_steps * self.world_size
                words = f"one whose sizes are cut evenly (micro-batches of {max_micro} at most)"
                hint = f"{equal} would be."
                raise InvalidValueError(must("schedule", words, part.size, hint))
        for before, after in itertools.pairwise(parts):
            inside = int(after.start.value) % self.stream.examples
            if inside and before.accum_steps != after.accum_steps:
                raise InvalidValueError(
                    must("schedule", ONLY_AT_EPOCHS, f"{after.start}:{after.size}", WHY_AT_EPOCHS)
                )


def _examples(data: Sized | int) -> int:
    if isinstance(data, int):
        return data
    if not hasattr(data, "__len__"):
        words = "a data set with a length, or its number of examples"
        raise InvalidTypeError(must("data", words, type(data).__name__))
    return len(data)


def _resolved(batch_size: int | str | BatchSchedule, examples: int, last: Last) -> BatchSchedule:
    """The schedule in samples; refuses what cannot be kept to."""
    given = isinstance(batch_size, BatchSchedule)
    schedule = batch_size if given else batch_schedule(batch_size)
    batch_size = str(batch_size) if given else batch_size
    if max(schedule.sizes) > examples:
        words = f"at most the number of examples, {examples}"
        raise InvalidValueError(must("batch_size", words, batch_size))
    if last != "run-on" and any(step.start.unit == "upd" for step in schedule.steps):
        words = "a schedule in samples or epochs where passes end with a short or dropped batch"
        raise InvalidValueError(must("batch_size", words, batch_size, "Use last='run-on'."))
    return schedule.resolve(examples)
