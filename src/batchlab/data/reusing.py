"""Batches that are used several times, for the user's own loop.

Where reading and decoding are slower than the training step, each fetched batch may serve for
several updates ("data echoing"). :class:`ReusingLoader` repeats what a ``DataLoader`` has fetched,
augmented afresh or not; :class:`ReusingBatchSampler` repeats the indices, so that the data set is
read again and its own random transforms are drawn afresh.

Source:
    choi2019.
"""

from __future__ import annotations

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast, final

from torch import Tensor
from torch.utils import _pytree
from torch.utils.data import DataLoader, Dataset

from batchlab._random import seeded
from batchlab.data.growing import GrowingBatchSampler, Place, of_torch_distributed
from batchlab.errors import InvalidTypeError, InvalidValueError, ResultError, must

Element = TypeVar("Element")


class _Reusing(ABC, Generic[Element]):
    """Hands out each batch of a source ``reuse`` times in a row, and knows where it stands.

    A batch is ``accumulation`` elements of the source, where its sampler cuts batches in pieces.
    """

    def __init__(self, source: Iterable[Any], sampler: object, reuse: int) -> None:
        must_be_reuse(reuse)
        self.reuse, self._source = reuse, source
        self._sampler = sampler if isinstance(sampler, GrowingBatchSampler) else None
        self._earlier, self._drawn = 0, 0
        if self._sampler is not None:
            self._drawn = self._sampler.state_dict()["drawn"] * reuse
        self._place = self._standing()

    @property
    def epoch(self) -> int:
        """The epoch that is gone through, where the sampler knows it."""
        return self._must_know_places().epoch

    def divide(self, rank: int, world_size: int) -> None:
        """Hand out the share of one process; see :meth:`GrowingBatchSampler.divide`."""
        self._must_know_places().divide(rank, world_size)

    @property
    def accumulation(self) -> int:
        """Elements that make one update in this epoch."""
        return 1 if self._sampler is None else self._sampler.accumulation

    @property
    def updates(self) -> int:
        """Updates for which batches were handed out, those of the run that was resumed included.

        Each use of a batch is one.
        """
        return self._earlier + self._drawn

    @property
    def samples(self) -> int:
        """Fresh examples up to here: each counts once, however often it is used. With
        ``last="drop"`` those that were passed over are among them, as in
        :attr:`GrowingBatchSampler.samples`; the rest of a pass from the last use of its last batch
        on.
        """
        sampler = self._must_know_places()
        before, size, _, use = self._place
        return sampler.after(before + size) if use + 1 == self.reuse else before + size

    @property
    def processed(self) -> int:
        """Examples × uses up to here: ``reuse`` times :attr:`samples`, less what was passed over
        and the uses that are left of the batch in hand. Right where ``reuse`` and the schedule
        have been the same all along and no epoch was jumped over.
        """
        sampler = self._must_know_places()
        before, size, _, use = self._place
        return (before - sampler.passed_over(before)) * self.reuse + size * (use + 1)

    def __len__(self) -> int:
        """Elements in this epoch's iteration, those already handed out included."""
        return len(cast(Any, self._source)) * self.reuse

    def __iter__(self) -> Iterator[Element]:
        """What is left of this epoch; the next one if nothing is."""
        # What was fetched ahead, and not handed out before a break, is fetched again.
        self.load_state_dict(self.state_dict())
        places = None if self._sampler is None else self.places()
        if self._sampler is None or self._is_finished():
            self._begin()
        # At once, not at the first element: a loop may ask for the length in between.
        return self._handed_out(iter(self._source), places)

    def places(self) -> Iterator[Place]:
        """Where the batches of the next iteration stand, one for each update.

        Returns:
            Their :attr:`Place.use` counts from 0 to ``reuse`` − 1.

        Raises:
            InvalidTypeError: If the sampler is not a :class:`GrowingBatchSampler`.
        """
        twin = copy.copy(self._must_know_places())
        twin.load_state_dict(self.state_dict()["sampler"])
        each = (place._replace(use=use) for place in twin.places() for use in range(self.reuse))
        return itertools.islice(each, self._drawn % self.reuse, None)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, as :meth:`GrowingBatchSampler.set_epoch` does; others are just told.

        Args:
            epoch: Its number, 0 or more.

        Raises:
            InvalidValueError: If it is not a whole number, 0 or more.
        """
        if self._sampler is None:
            _tell_epoch(self._source, epoch)
        elif epoch != self._sampler.epoch or self._is_finished():
            self.load_state_dict(self.state_dict())
            self._sampler.set_epoch(epoch)
            self._begin()

    def state_dict(self, *, trained: int | None = None) -> dict[str, Any]:
        """Where it stands, to be saved with the model; in the middle of the uses of a batch too.

        Args:
            trained: Elements of this epoch's iteration the loop has trained on, where not all that
                were handed out; see :meth:`GrowingBatchSampler.state_dict`.

        Returns:
            Plain numbers and text.

        Raises:
            InvalidValueError: If these are not elements handed out since this epoch was begun or
                resumed.
        """
        drawn = self._drawn if trained is None else trained // self.accumulation
        if not 0 <= drawn <= self._drawn:
            words = f"at most the {self._drawn * self.accumulation} handed out"
            raise InvalidValueError(must("trained", words, trained))
        state = {"reuse": self.reuse, "updates": self._earlier + drawn, "drawn": drawn}
        if self._sampler is None:
            return state
        fresh = drawn // self.reuse * self.accumulation
        own = self._sampler.state_dict(trained=fresh)
        return state | {"epoch": own["epoch"], "sampler": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken: with the uses that are left of its batch.

        The batch size, the processes and ``reuse`` may have changed where no uses are left.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            ResultError: If the state belongs to another stream, or has uses left of another
                ``reuse``.
        """
        own = self.state_dict()
        if not isinstance(state, Mapping):
            raise ResultError(must("state_dict", "what state_dict() returned", state))
        if set(own) - set(state):
            raise ResultError(must("state_dict", f"a state with {', '.join(own)}", sorted(state)))
        fresh, used = divmod(state["drawn"], state["reuse"])
        if used and state["reuse"] != self.reuse:
            words = f"from reuse = {self.reuse}, in the middle of the uses of a batch"
            raise ResultError(must("state_dict", words, state["reuse"]))
        if self._sampler is not None:
            self._sampler.load_state_dict(state["sampler"])
        self._drawn = fresh * self.reuse + used
        self._earlier = state["updates"] - self._drawn
        self._place = self._standing()

    @abstractmethod
    def _prepared(self, fetched: Any, piece: int) -> Element:
        """What is handed out, the ``piece``-th element of an update."""

    def _begin(self) -> None:
        """Stand at the beginning of an epoch."""
        self._earlier, self._drawn = self.updates, 0
        self._place = self._standing()

    def _standing(self) -> Place:
        """The use handed out last; of no examples where nothing is left of the batch before."""
        if self._sampler is None:
            return Place(0, 0, 1.0)
        used = self._drawn % self.reuse
        if used:
            return next(self._sampler.places())._replace(use=used - 1)
        return Place(self._sampler.samples, 0, 1.0)

    def _is_finished(self) -> bool:
        return self._drawn * self.accumulation >= len(self)

    def _handed_out(
        self, fetched: Iterator[Any], places: Iterator[Place] | None
    ) -> Iterator[Element]:
        """What is left, element by element."""
        for batch in itertools.islice(self._uses(fetched), self._drawn % self.reuse, None):
            if places is not None:
                self._place = next(places)
            for piece, element in enumerate(batch, 1):
                prepared = self._prepared(element, piece)
                self._drawn += piece == len(batch)
                yield prepared

    def _uses(self, fetched: Iterator[Any]) -> Iterator[list[Any]]:
        """Each batch, as the list of its pieces, as often as it is used."""
        pieces = self.accumulation
        for batch in iter(lambda: list(itertools.islice(fetched, pieces)), []):
            written = versions(batch)
            for _ in range(self.reuse):
                if versions(batch) != written:
                    words = "left as it is by the loop and by `augment` until its last use"
                    raise InvalidValueError(must("batch", words, "a tensor written to in place"))
                yield batch

    def _must_know_places(self) -> GrowingBatchSampler:
        if self._sampler is None:
            words = "a GrowingBatchSampler, which knows where its batches stand"
            raise InvalidTypeError(must("sampler", words, type(self._source).__name__))
        return self._sampler


@final
class ReusingBatchSampler(_Reusing[list[int]]):
    """The batches of a batch sampler, each ``reuse`` times in a row.

    The data set is read again at each use: reading is repeated, and random transforms in its
    ``__getitem__`` are drawn afresh. Where reading is what takes the time, use
    :class:`ReusingLoader`.

    Iterating, breaking off and resuming are those of :class:`GrowingBatchSampler`, if that is what
    is wrapped; an iteration that is broken off goes on with the uses that are left. A state is
    taken as there: with workers say ``trained``. Batches of several pieces are repeated as a
    whole. The shares of processes are as many and as disjoint as without re-use. Any other sampler
    begins its epoch again.

    Args:
        sampler: Any batch sampler. From then on move this one, not that.
        reuse: Updates on each batch k, at least 1.

    Raises:
        InvalidValueError: If ``reuse`` is not a whole number, at least 1.
        InvalidTypeError: If the sampler is none.

    Source:
        choi2019, "example echoing before augmentation".

    Example:
        >>> sampler = ReusingBatchSampler(GrowingBatchSampler(8, 4), 2)
        >>> batches = list(sampler)
        >>> batches[0] == batches[1], batches[2] == batches[3], len(sampler)
        (True, True, 4)
        >>> sampler.samples, sampler.processed, sampler.updates
        (8, 16, 4)
    """

    def __init__(self, sampler: Iterable[list[int]], reuse: int) -> None:
        if not isinstance(sampler, Iterable) or isinstance(sampler, DataLoader | Dataset):
            words = "a batch sampler"
            hint = "For a DataLoader there is ReusingLoader, for a data set GrowingBatchSampler."
            raise InvalidTypeError(must("sampler", words, type(sampler).__name__, hint))
        super().__init__(sampler, sampler, reuse)

    def _prepared(self, fetched: list[int], piece: int) -> list[int]:
        if (
            not isinstance(fetched, Iterable)
            or isinstance(fetched, Mapping)
            or _holds_data(fetched)
        ):
            words = "a batch sampler, whose elements are lists of indices"
            got = f"one of {type(fetched).__name__} with data"
            raise InvalidTypeError(must("sampler", words, got, "A data set is none."))
        return fetched


def _holds_data(batch: Iterable[Any]) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.ndim > 0 for leaf in batch)


@final
class ReusingLoader(_Reusing[Any]):
    """The batches of a ``DataLoader``, each fetched once and handed out ``reuse`` times in a row.

    Workers read and decode each batch once. Without ``augment`` the very same tensors are handed
    out; with it ``augment(batch)``, drawn afresh for each use by names of its own, so that a
    resumed run draws the same, and the random state of the loop is left as it was.

    A loader whose batch sampler is a :class:`GrowingBatchSampler` is stopped and resumed anywhere.
    What counts is what this handed out, whatever workers have fetched ahead. Any other loader
    begins its epoch again.

    Args:
        loader: A ``DataLoader`` or any other iterable of batches.
        reuse: Updates on each batch k, at least 1.
        augment: ``augment(batch)`` → what is handed out. It must leave ``batch`` as it is.
        seed: Names the random numbers of ``augment``, Python's, NumPy's and torch's.

    Raises:
        InvalidValueError: If ``reuse`` is not a whole number, at least 1; while iterating, if a
            tensor of a batch was written to before its last use.
        InvalidTypeError: If the loader is none, or ``augment`` no function.

    Source:
        choi2019.

    Example:
        >>> import torch
        >>> loader = ReusingLoader([torch.zeros(2), torch.ones(2)], reuse=2)
        >>> [batch.tolist() for batch in loader]
        [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
        >>> noisy = ReusingLoader([torch.zeros(2)], reuse=2, augment=lambda x: x + torch.rand(2))
        >>> first, second = noisy
        >>> bool((first == second).any())
        False
    """

    def __init__(
        self,
        loader: Iterable[Any],
        reuse: int,
        augment: Callable[[Any], Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(loader, Iterable):
            words = "a DataLoader, or another iterable of batches"
            raise InvalidTypeError(must("loader", words, type(loader).__name__))
        if augment is not None and not callable(augment):
            raise InvalidTypeError(must("augment", "a function of a batch", augment))
        super().__init__(loader, getattr(loader, "batch_sampler", None), reuse)
        self.loader, self.augment, self.seed = loader, augment, seed

    def _prepared(self, fetched: Any, piece: int) -> Any:
        if self.augment is None:
            return fetched
        rank = of_torch_distributed()[0] if self._sampler is None else self._sampler.rank
        with seeded(self.seed, "augment", self.updates, piece, rank):
            return self.augment(fetched)


def must_be_reuse(reuse: int) -> None:
    """Refuse what is no number of updates on a batch.

    Args:
        reuse: k.

    Raises:
        InvalidValueError: If it is not a whole number, at least 1.
    """
    if isinstance(reuse, bool) or not isinstance(reuse, int) or reuse < 1:
        raise InvalidValueError(must("reuse", "a whole number, at least 1", reuse))


def versions(batch: Any) -> list[int]:
    """How often each tensor was written to in place; torch does not count it in inference mode.

    Args:
        batch: Any tree of tensors.
    """
    tensors = (leaf for leaf in _pytree.tree_leaves(batch) if isinstance(leaf, Tensor))
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def _tell_epoch(source: Any, epoch: int) -> None:
    """As it is said to the sampler of a ``DataLoader``."""
    inner = (getattr(source, name, None) for name in ("batch_sampler", "sampler"))
    told = next((part for part in (source, *inner) if hasattr(part, "set_epoch")), None)
    if told is not None:
        told.set_epoch(epoch)
