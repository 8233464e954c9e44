"""Watching a training that the user's own code runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypedDict, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from torch.utils.hooks import RemovableHandle

from batchlab import optim
from batchlab.errors import InvalidTypeError, InvalidValueError, must
from batchlab.progress import Shown
from batchlab.watch import memory
from batchlab.watch.clock import Waiting
from batchlab.watch.journal import read
from batchlab.watch.losses import Losses
from batchlab.watch.record import (
    FORMAT,
    About,
    Checkpoint,
    End,
    Ending,
    MetricPoint,
    Moment,
    NoiseBlock,
    Note,
    Start,
)
from batchlab.watch.recorder import Recorder
from batchlab.watch.sampling import Method, Sampling
from batchlab.watch.settings import largest_rate, told
from batchlab.watch.verdict import Verdict, judge
from batchlab.watch.wording import sentence

Batch = TypeVar("Batch")


class Options(TypedDict, total=False):
    """Arguments of :class:`Watch` that the callbacks share, with the same meaning."""

    batch_size: int | Callable[[Any], int] | None
    price_per_hour: float | None
    currency: str
    noise: Method
    share: float
    tensorboard: Any
    resume: bool
    quiet: bool
    seed: int | None
    settings: Mapping[str, Any] | None


EVERY, LONGEST = 0.01, 60.0
"""A line is written after this share of the time so far, at the latest after so many seconds: ten
hours of training leave about 1,500 lines."""
SHORTEST = {"cpu": 0.1}
SHORTEST_ELSEWHERE = 0.5
"""Seconds between lines at least; to write one, a GPU's queue is waited for."""
STATE = {"samples", "updates", "seconds", "training"}
"""What :meth:`Watch.state_dict` tells; before batchlab recorded it, there was no ``training``."""
SGD_FAMILY = (torch.optim.SGD, optim.SHB, optim.NSHB, optim.QHM)


class Watch:
    """Measures what the user's own training does, without changing it.

    It writes a result directory (:mod:`batchlab.watch`): samples, updates, seconds and money, with
    loss, metrics, memory, time waiting for data, and the gradient noise scale with an interval. At
    the end it says one sentence. Weights, random state and the order of the data are bit for bit
    what they would be without it.

    An update is a step of the optimizer, noticed by a hook; a micro-batch is what the loader
    gives. So accumulation needs no telling, and the batch is written as ``global = micro-batch ×
    accumulation × devices``. With torchrun every process watches, and the first one writes.

    Args:
        directory: Result directory; made if missing.
        model: What is trained, wrapped or not.
        optimizer: The optimizer that steps, wrapped or not.
        batch_size: Examples of a batch of the loader: a number, or a function of the batch. Left
            out, the length of its first tensor, so that a short last batch counts as what it is.
        price_per_hour: Of the machine, for the axis of money.
        currency: Of that price.
        scaler: The ``GradScaler``, if one is used. Without it the noise scale is the same, but
            signal and noise carry the square of its factor.
        noise: How to measure the noise scale: ``per example`` (hooks on layers), ``micro-batches``
            (of accumulated gradients), ``processes`` (of those that DistributedDataParallel
            exchanges), ``auto`` for the best that can be had, or ``off``. Choose
            ``micro-batches`` where examples meet in the loss, as in contrastive learning.
        share: Largest share of training time that measuring the noise scale may take.
        tensorboard: Also write there: True for a folder in ``directory``, a folder, or a
            ``SummaryWriter``.
        resume: Go on with what the directory holds.
        quiet: Do not print the sentence at the end.
        seed: Of this training. ``batchlab report`` pairs trainings of the same seed.
        settings: What tells this training from those it will be compared with, beside what is read
            from the optimizer and measured: name → number or text, such as ``{"dropout": 0.1}``. A
            name that is read already, such as ``learning_rate``, takes this value.

    Raises:
        InvalidValueError: If a number is impossible.
        InvalidTypeError: If something is of the wrong kind.
        ResultError: On entering, if the directory is in use or holds something else.
        MissingDependencyError: On entering, if TensorBoard is asked for and not installed.

    Attributes:
        samples: Examples drawn so far, by all devices together.
        updates: Steps of the optimizer so far.
        verdict: The conclusion, after the end, in the process that writes.

    Example:
        >>> import tempfile
        >>> model = nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> loader = torch.ones(6, 8, 4).unbind()
        >>> with Watch(tempfile.mkdtemp(), model, optimizer, quiet=True) as watching:
        ...     for batch in watching.data(loader):
        ...         loss = model(batch).square().mean()
        ...         loss.backward()
        ...         optimizer.step()
        ...         optimizer.zero_grad()
        ...         watching.loss(loss)
        >>> watching.samples, watching.updates
        (48, 6)
    """

    def __init__(
        self,
        directory: str | Path,
        model: nn.Module,
        optimizer: Any,
        *,
        batch_size: int | Callable[[Any], int] | None = None,
        price_per_hour: float | None = None,
        currency: str = "USD",
        scaler: Any = None,
        noise: Method = "auto",
        share: float = 0.03,
        tensorboard: Any = None,
        resume: bool = False,
        quiet: bool = False,
        seed: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        _check(batch_size, price_per_hour, noise, share)
        self._optimizer = bare(optimizer)
        self._seed, self._settings = seed, told(settings or {}, self._optimizer)
        rate_is_told = "learning_rate" in (settings or {})
        self._peak = None if rate_is_told else largest_rate(self._optimizer, 0.0)
        self._sampling = Sampling(model, self._optimizer, noise, share, scaler)
        self._recorder = Recorder(Path(directory), price_per_hour, tensorboard)
        self._batch_size, self._price, self._currency = batch_size, price_per_hour, currency
        self._resume, self._quiet = resume, quiet
        self._rank, self._world = _place()
        self._device = self._sampling.device
        self._waiting, self._losses = Waiting(self._device), Losses()
        self.samples, self.updates = 0, 0
        self.verdict: Verdict | None = None
        self._handle: RemovableHandle | None = None
        self._state: Mapping[str, float] | None = None
        self._waited_before = self._worked_before = self._working = self._trained_before = 0.0
        self._window, self._stepped, self._size = list[int](), 0, 0
        self._began: float | None = None
        self._windows, self._usual = Counter[tuple[int, int]](), (0, 0)
        self._written, self._due = 0, 0.0

    # -- what a loop calls --------------------------------------------------------------------

    def data(self, loader: Iterable[Batch]) -> Data[Batch]:
        """The batches of a loader, each a micro-batch of the training; call it for every epoch.

        Args:
            loader: A ``DataLoader`` or any other iterable of batches.

        Returns:
            The same batches, with the loader's length.
        """
        self.draws_from(loader)
        return Data(self, loader, self._batch_size)

    def loss(self, value: Tensor | float) -> None:
        """Tell the mean loss of the micro-batch at hand, not divided by the accumulation.

        A tensor is read later, so that a GPU is not waited for.

        Args:
            value: One number.

        Raises:
            InvalidValueError: If it is more than one.
        """
        if self._recorder.is_open:
            open_ = self._began is not None or bool(self._window)
            self._losses.tell(self.updates + (open_ and not self._stepped), self._size, value)

    def metric(self, name: str, value: Tensor | float, *, maximise: bool | None = None) -> None:
        """Tell a metric, measured on data of your choice.

        Args:
            name: Such as ``accuracy``.
            value: One number.
            maximise: Whether more is better.
        """
        known = {"value": float(value), "maximise": maximise, "training": self._training()}
        self._recorder.write(MetricPoint(**self._axes(), name=name, **known))

    # -- what data() and the callbacks call ---------------------------------------------------

    def draws_from(self, loader: Any) -> None:
        """Learn how many examples there are to draw from. :meth:`data` calls this."""
        self._sampling.population = population(loader)

    def waits(self) -> None:
        """From now on the training waits for data, until :meth:`begin`. :meth:`data` calls it."""
        self.end()
        self._waiting.enter()

    def begin(self, examples: int | None = None) -> None:
        """A micro-batch is there and its work begins. :meth:`data` calls this.

        Args:
            examples: In it; None where :meth:`tell` says so before the first layer is called.
        """
        self._waiting.leave()
        self.end()
        self._size = examples or 0
        if self._recorder.is_open:
            self._sampling.begin(examples, self._working)
        self._began = time.perf_counter()

    def tell(self, examples: int) -> None:
        """The number of examples of the micro-batch at hand."""
        self._size = examples
        self._sampling.tell(examples)

    def end(self) -> None:
        """The work on a micro-batch is done. :meth:`data` calls this."""
        if self._began is None:
            return
        now = time.perf_counter()
        self._working, self._began = self._working + now - self._began, None
        self.samples += self._size * self._world
        self._window.append(self._size)
        if self._stepped:
            self._close_window()
            if now >= self._due:
                self.record()

    def record(self) -> None:
        """Write what happened since the last line. Done by itself, in growing intervals."""
        if not self._recorder.is_open:
            return
        if self.samples > self._written or self._losses.pending:
            self._write_noise(last=False)
            self._recorder.write(self._moment())
            self._written = self.samples
            shortest = SHORTEST.get(self._device.type, SHORTEST_ELSEWHERE)
            wait = min(LONGEST, max(shortest, EVERY * self._recorder.seconds()))
            self._due = time.perf_counter() + wait

    def checkpoint(self, step: int) -> None:
        """The training is saved, under its own count of steps.

        Args:
            step: That count.
        """
        self.record()
        self._recorder.write(Checkpoint(**self._axes(), step=step))

    def note(self, about: About, text: str) -> None:
        """Write down what was assumed or could not be measured.

        Args:
            about: What it is about.
            text: A clause.
        """
        self._recorder.write(Note(**self._axes(), about=about, text=text))

    # -- from beginning to end ----------------------------------------------------------------

    def open(self) -> Watch:
        """Lock the directory and begin. ``with`` calls this."""
        if self._rank == 0:
            before = self._recorder.open(self._resume or bool(self._state), str(self._device))
            if before is not None:
                last = before.last
                self._count_from(last.samples, last.updates, last.seconds)
                if before.moments:
                    self._waited_before = before.moments[-1].waiting
                    self._worked_before = before.moments[-1].working
                    self._trained_before = before.moments[-1].training or 0.0
        if self._state is not None:
            self._count_from(**self._state)
        self._recorder.write(self._start())
        self._handle = self._optimizer.register_step_post_hook(self._step)
        return self

    def close(self, ending: Ending = Ending.FINISHED) -> None:
        """Write the end, give the directory free, say the sentence. ``with`` calls this.

        Args:
            ending: Whether the training ended by itself.
        """
        if self._handle is None:
            return
        self.end()
        self._handle.remove()
        self._handle = None
        self._sampling.close()
        if self._recorder.is_open:
            try:
                self._conclude(ending)
            finally:
                self._recorder.close()

    def __enter__(self) -> Watch:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(Ending.FINISHED if error is None else Ending.STOPPED)

    def state_dict(self) -> dict[str, float]:
        """Where the counts stand, to be saved with the model.

        Returns:
            Plain numbers.
        """
        clocks = {"seconds": self._recorder.seconds(), "training": self._training()}
        return {"samples": self.samples, "updates": self.updates} | clocks

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on counting where :meth:`state_dict` was taken; before or after the block is entered.

        What the directory holds beyond that point is trained again and no longer counts. The time
        it took was spent, and does.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            InvalidValueError: If it is something else.
        """
        if not {"samples", "updates", "seconds"} <= set(state) <= STATE:
            raise InvalidValueError(must("state", "what `state_dict` returned", sorted(state)))
        self._state = dict(state)
        if self._handle is not None:
            self._count_from(**self._state)
            self._recorder.write(self._start())

    @property
    def is_open(self) -> bool:
        """Whether it watches."""
        return self._handle is not None

    # -- inside -------------------------------------------------------------------------------

    def _step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """The optimizer has stepped."""
        self.updates += 1
        self._stepped += 1
        self._peak = largest_rate(optimizer, self._peak)
        self._sampling.stepped()

    def _close_window(self) -> None:
        """An update is complete, with all its micro-batches."""
        if self._recorder.is_open:
            self._sampling.end(self._window)
        self._windows[self._window[0], len(self._window)] += 1
        self._window, self._stepped = [], 0

    def _count_from(
        self, samples: float, updates: float, seconds: float, training: float = 0.0
    ) -> None:
        self.samples, self.updates = int(samples), int(updates)
        self._written = self.samples
        here = self._training() - self._trained_before
        self._trained_before = max(self._trained_before, training - here)
        self._recorder.spent_before(seconds)

    def _training(self) -> float:
        """Seconds of waiting and working so far."""
        return self._trained_before + self._waiting.asked + self._working

    def _axes(self) -> dict[str, Any]:
        return self._recorder.axes(self.samples, self.updates)

    def _start(self) -> Start:
        allowed = memory.limit(self._device)
        return Start(
            **self._axes(),
            format=FORMAT,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            device=str(self._device),
            world_size=self._world,
            optimizer=type(self._optimizer).__name__,
            sgd=isinstance(self._optimizer, SGD_FAMILY),
            parameters=sum(p.numel() for p in self._sampling.trained),
            price_per_hour=self._price,
            currency=self._currency,
            memory_limit=allowed.bytes,
            memory_source=allowed.source,
            seed=self._seed,
            settings=self._settings,
        )

    def _moment(self) -> Moment:
        if self._windows:
            self._usual = self._windows.most_common(1)[0][0]
            self._windows.clear()
        loss = self._losses.take()
        return Moment(
            **self._axes(),
            loss=loss.value,
            diverged=loss.diverged,
            waiting=self._waited_before + self._waiting.seconds(),
            working=self._worked_before + self._working,
            memory=memory.peak(self._device),
            micro_batch_size=self._usual[0],
            accumulation=self._usual[1],
            learning_rate=self._peak,
            training=self._training(),
            population=self._sampling.population,
        )

    def _write_noise(self, last: bool) -> None:
        values = self._sampling.resolve(last=last)
        if values is not None:
            self._recorder.write(NoiseBlock(**self._axes(), **values))
        for about, text in self._sampling.told():
            self.note(about, text)

    def _conclude(self, ending: Ending) -> None:
        self.record()
        self._write_noise(last=True)
        self._recorder.write(End(**self._axes(), ending=ending))
        self.verdict = judge(read(self._recorder.directory))
        if not self._quiet:
            Shown().say(sentence(self.verdict))


class Data(Generic[Batch]):
    """The batches of a loader, watched."""

    def __init__(
        self,
        watch: Watch,
        loader: Iterable[Batch],
        batch_size: int | Callable[[Any], int] | None,
    ) -> None:
        self._watch, self._loader, self._batch_size = watch, loader, batch_size

    def __len__(self) -> int:
        assert isinstance(self._loader, Sized)
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        self._watch.waits()
        for batch in self._loader:
            self._watch.begin(examples_in(batch, self._batch_size))
            try:
                yield batch
            finally:
                self._watch.waits()


def examples_in(batch: Any, batch_size: int | Callable[[Any], int] | None = None) -> int:
    """Examples of a batch.

    Args:
        batch: What a loader gives.
        batch_size: A number, a function of the batch, or None for the length of its first tensor.

    Returns:
        A count.

    Raises:
        InvalidTypeError: If there is no tensor in it and nothing else says how many.

    Example:
        >>> examples_in({"name": "a", "x": torch.zeros(3, 2)}), examples_in("abc", batch_size=len)
        (3, 3)
    """
    if batch_size is not None:
        return batch_size if isinstance(batch_size, int) else int(batch_size(batch))
    first = batch[0] if type(batch) in (list, tuple) and batch else None
    if type(first) is not Tensor or not first.ndim:  # not the usual batch: look for it
        first = _first_tensor(batch)
    if first is None:
        hint = "Give it as a number, or as a function of the batch."
        raise InvalidTypeError(
            must("batch_size", "given where batches hold no tensor", type(batch).__name__, hint)
        )
    return first.shape[0]


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch if batch.ndim else None
    if isinstance(batch, Mapping):
        batch = batch.values()
    elif not isinstance(batch, Sequence) or isinstance(batch, str):
        return None
    return next((found for part in batch if (found := _first_tensor(part)) is not None), None)


def population(loader: Any) -> int | None:
    """Examples that a loader draws from without replacement; None where it draws otherwise.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> population(DataLoader(torch.ones(10, 1))), population([torch.ones(2, 1)])
        (10, None)
    """
    dataset = getattr(loader, "dataset", None)
    samplers = [getattr(loader, "sampler", None)]
    samplers.append(getattr(getattr(loader, "batch_sampler", None), "sampler", None))
    if any(getattr(sampler, "replacement", False) for sampler in samplers):
        return None
    if not isinstance(dataset, Sized) or isinstance(dataset, IterableDataset):
        return None
    return len(dataset)


def bare(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside the wrappers that training frameworks put around it.

    Raises:
        InvalidTypeError: If there is none.
    """
    found = optimizer
    while getattr(found, "optimizer", None) is not None:
        found = found.optimizer
    if not isinstance(found, torch.optim.Optimizer):
        words = "a torch.optim optimizer"
        raise InvalidTypeError(must("optimizer", words, type(optimizer).__name__))
    return found


def _place() -> tuple[int, int]:
    """This process's number among those that train together, and how many they are."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _check(batch_size: Any, price_per_hour: float | None, noise: str, share: float) -> None:
    if isinstance(batch_size, int) and batch_size < 1:
        raise InvalidValueError(must("batch_size", "at least 1", batch_size))
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise InvalidValueError(must("price_per_hour", "0 or more", price_per_hour))
    if noise not in get_args(Method):
        raise InvalidValueError(must("noise", f"one of {', '.join(get_args(Method))}", noise))
    if not share >= 0:
        raise InvalidValueError(must("share", "0 or more", share))
