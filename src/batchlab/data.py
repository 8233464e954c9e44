"""Batches in batchlab's one order, for the ``DataLoader`` of the user's own loop."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sized
from typing import Any, Literal, get_args

from torch.utils.data import Sampler

from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError, must
from batchlab.samplers import Stream
from batchlab.schedules import BatchSchedule, batch_schedule

Last = Literal["run-on", "short", "drop"]
"""What happens where a batch would run across the end of a pass over the data."""


class StreamBatchSampler(Sampler[list[int]]):
    """Batches of one infinite stream of examples, the same for every batch size.

    The stream is pass 0's permutation of the examples, then pass 1's, and so on, each a pure
    function of the seed and the pass. Two runs with different batch sizes or schedules see the
    same examples in the same order, and a resumed run goes on where it was. Use it as
    ``DataLoader(dataset, batch_sampler=StreamBatchSampler(dataset, 32))``.

    Epoch e is every batch whose *first* example lies in pass e, so that nothing is left out or
    seen twice:

    - ``last="run-on"``: a batch that reaches the end of the pass is filled up from the next pass
    and belongs to the
      epoch in which it began; the following epoch starts after it. Every batch is whole, and the
      number of batches differs by at most one between epochs of one batch size.
    - ``last="short"``: that batch ends with the pass. Its mean loss stands for fewer examples:
    multiply it by
      ``len(batch) / batch_size`` to give every example the same weight.
    - ``last="drop"``: that batch is left out; its examples count as passed over.

    Iterating goes through one epoch, and iterating again through the next. An iteration that is
    broken off goes on at the batch after the last one handed out.

    Args:
        data: The data set, or its number of examples N.
        batch_size: Examples, from 1 to N, or a schedule such as ``"0:8 20ep:16"``. It is read at
            the first example of a batch, counted in examples from the beginning of the stream.
        seed: Names the order, 0 or more.
        last: What happens at the end of a pass. Schedules in updates need ``run-on``.

    Raises:
        InvalidValueError: If a batch size, the seed or ``last`` is impossible.
        InvalidTypeError: If the data set has no length.

    Example:
        >>> sampler = StreamBatchSampler(10, batch_size=4)
        >>> [len(batch) for batch in sampler], [len(batch) for batch in sampler]
        ([4, 4, 4], [4, 4])
        >>> small = StreamBatchSampler(10, batch_size=2)
        >>> sampler.set_epoch(0)
        >>> sum(sampler, [])[:10] == sum(small, [])
        True
    """

    def __init__(
        self, data: Sized | int, batch_size: int | str, seed: int = 0, last: Last = "run-on"
    ) -> None:
        if last not in get_args(Last):
            raise InvalidValueError(must("last", f"one of {', '.join(get_args(Last))}", last))
        self.stream = Stream(_examples(data), seed)
        self.last = last
        self.schedule = _resolved(batch_size, self.stream.examples, last)
        self._begin(epoch=0, samples=0, drawn=0)

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

    def __len__(self) -> int:
        """Batches in this epoch, those already handed out included."""
        left = self.schedule.progress(self._next, self._end)
        dropped = self.drop_last and left.samples > self._end
        return self._drawn + left.updates - dropped

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this epoch that are left; of the next one if none is."""
        if self._next >= self._end:
            self._begin(self.epoch + 1, self._next)
        for first, size in self._batches(self._next):
            self._next, self._drawn = self._after(first + size), self._drawn + 1
            yield self.stream.take(first, size)[0].tolist()

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
            trained: Batches of this epoch the loop has trained on. A ``DataLoader`` with workers
                fetches ahead, so there this has to be said; left out, every batch handed out
                counts.

        Returns:
            Plain numbers and text.

        Raises:
            InvalidValueError: If these are not batches handed out since this epoch was begun or
                resumed.
        """
        samples, drawn = self._next, self._drawn
        if trained is not None:
            samples, drawn = self._place_after(trained), trained
        return {
            "epoch": self.epoch,
            "samples": samples,
            "drawn": drawn,
            "examples": self.stream.examples,
            "seed": self.stream.seed,
            "last": self.last,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken. The batch size may have changed since.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            ResultError: If the state belongs to another stream.
        """
        own = self.state_dict()
        if set(own) - set(state):
            raise ResultError(must("state_dict", f"a state with {', '.join(own)}", sorted(state)))
        for name in ("examples", "seed", "last"):
            if state[name] != own[name]:
                words = f"from a sampler with {name} = {own[name]!r}"
                raise ResultError(must("state_dict", words, state[name]))
        self._begin(state["epoch"], state["samples"], state["drawn"])

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

    def _batches(self, start: int) -> Iterator[tuple[int, int]]:
        """(first place, size) of the batches of this epoch from a place on."""
        end = self._end
        for first, size in self.schedule.updates(start, end + self.stream.examples):
            if first >= end:
                return
            if self.last == "run-on" or first + size <= end:
                yield first, size
            elif self.last == "short":
                yield first, end - first

    def _after(self, place: int) -> int:
        """Where the next batch starts: a rest that is dropped is passed over at once."""
        dropped = self.drop_last and place + self.schedule.at(place) > self._end
        return self._end if dropped else place

    def _place_after(self, trained: int) -> int:
        """Where the batch after the ``trained``-th of this epoch starts."""
        place, before = self._origin
        if not before <= trained <= self._drawn:
            words = f"a number of batches from {before} to the {self._drawn} handed out"
            raise InvalidValueError(must("trained", words, trained))
        for first, size in itertools.islice(self._batches(place), trained - before):
            place = self._after(first + size)
        return place


def _examples(data: Sized | int) -> int:
    if isinstance(data, int):
        return data
    if not hasattr(data, "__len__"):
        words = "a data set with a length, or its number of examples"
        raise InvalidTypeError(must("data", words, type(data).__name__))
    return len(data)


def _resolved(batch_size: int | str, examples: int, last: Last) -> BatchSchedule:
    """The schedule in samples; refuses what cannot be kept to."""
    schedule = batch_schedule(batch_size)
    if max(schedule.sizes) > examples:
        words = f"at most the number of examples, {examples}"
        raise InvalidValueError(must("batch_size", words, batch_size))
    if last != "run-on" and any(step.start.unit == "upd" for step in schedule.steps):
        words = "a schedule in samples or epochs where passes end with a short or dropped batch"
        raise InvalidValueError(must("batch_size", words, batch_size, "Use last='run-on'."))
    return schedule.resolve(examples)
