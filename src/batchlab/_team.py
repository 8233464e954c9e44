"""The processes that torchrun started: the first one decides and writes, the others do what it
asks.

Whatever may fail runs inside :meth:`Team.each`, after which every process knows whether all have
come through; so nobody waits for one that failed. One that dies closes its connections, which
ends the waiting of the others.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from batchlab.errors import InvalidValueError, TaskError, UserError, must

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

LONGEST_SILENCE = datetime.timedelta(hours=1)
"""After which a process that hears nothing gives up."""
BEAT_SECONDS = 30.0
"""Between two signs of life of the first process while it works alone."""
LOST = (
    "The connection to another process of this start is lost: it ended, or said nothing for "
    f"{LONGEST_SILENCE.total_seconds() / 3600:.0f} h."
)
ELSEWHERE = "The first process failed; it says why."


HEARD = "_batchlab_heard"
"""Mark of an error of which every process knows."""


class LostError(TaskError):
    """Another process is gone."""


class Started(NamedTuple):
    """Which of the processes that were started together this one is.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        local_rank: Its number on this machine.
        local_size: How many there are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


ALONE = Started()


def started() -> Started:
    """As torchrun says it, or torch.distributed where it has begun; else alone.

    Raises:
        InvalidValueError: If the environment says that there are others, but not which this is.

    Example:
        >>> started().size
        1
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    said = {name: os.environ[name] for name in names if os.environ.get(name)}
    if dist.is_available() and dist.is_initialized():
        said |= {"RANK": str(dist.get_rank()), "WORLD_SIZE": str(dist.get_world_size())}
    if int(said.get("WORLD_SIZE", 1)) == 1:
        return ALONE
    if "RANK" not in said:
        hint = "torchrun sets it beside WORLD_SIZE."
        raise InvalidValueError(must("RANK", "set in the environment", None, hint))
    rank, size = int(said["RANK"]), int(said["WORLD_SIZE"])
    return Started(
        rank, size, int(said.get("LOCAL_RANK", rank)), int(said.get("LOCAL_WORLD_SIZE", size))
    )


def device_here(device: str, here: Started, gpus: int) -> str:
    """The device of one process: of several GPUs, each takes its own.

    Args:
        device: What was asked for.
        here: Which process.
        gpus: GPUs of this machine.

    Raises:
        InvalidValueError: If processes would have to share a GPU.

    Example:
        >>> device_here("auto", Started(3, 4, 1, 2), gpus=2), device_here("cpu", Started(), gpus=2)
        ('cuda:1', 'cpu')
    """
    if here.size == 1 or device not in ("auto", "cuda") or not gpus:
        return device
    if here.local_size > gpus:
        hint = "Processes that share a GPU would measure each other."
        raise InvalidValueError(must("nproc-per-node", f"at most {gpus}", here.local_size, hint))
    return f"cuda:{here.local_rank}"


@dataclass(frozen=True)
class _Ask:
    """Do this, all together."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Beat:
    """The first process is alive."""


@dataclass(frozen=True)
class _End:
    """It is over: the result, or nothing."""

    failed: bool
    result: Any = None


class _Told(NamedTuple):
    """What a process has to say of its part."""

    value: Any
    failed: str | None


class Team:
    """Processes that were started together; one alone works without talk.

    ``each`` and ``own`` are collectives: all processes call them in the same order. ``lead`` is
    called once by all; inside it the first process alone runs its work, and ``ask`` makes the
    others join in.

    Args:
        here: Which process this is.
        group: Of gloo, over all of them.

    Attributes:
        context: What :meth:`lead` was given; each process has its own.

    Example:
        >>> alone = Team()
        >>> alone.lead(3, lambda: alone.ask(lambda team, x: team.context * x, 2))
        [6]
    """

    def __init__(self, here: Started = ALONE, group: Any = None) -> None:
        self.here, self.group = here, group
        self.context: Any = None
        self._groups: dict[int, Any] = {}
        self._beat_at = time.monotonic()

    @property
    def rank(self) -> int:
        """Number of this process; 0 decides and writes."""
        return self.here.rank

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.here.size

    def device(self, asked: str) -> str:
        """The device of this process; see :func:`device_here`."""
        return device_here(asked, self.here, torch.cuda.device_count())

    def each(self, work: Callable[[], T]) -> list[T]:
        """Run in every process, and hear of all.

        Args:
            work: Whatever may fail here.

        Returns:
            What it gave in each process, in the order of their numbers, in every process.

        Raises:
            UserError: In every process, if it failed in one; where it failed, what it raised.
            LostError: If a process is gone.
        """
        if self.size == 1:
            return [work()]
        value, error = None, None
        try:
            value = work()
        except Exception as raised:  # a user's task may raise anything; the others must hear of it
            if hasattr(raised, HEARD):
                raise
            error = raised
        told = self._gathered(_Told(value, None if error is None else _sentence(error)))
        if error is None:
            error = _first_failure(told)
        if error is not None:
            # One inside another: whoever waits further in has heard of it, so it is told once.
            raise _heard(error)
        return [one.value for one in told]

    def own(self, work: Callable[[], T]) -> T:
        """What it gives here, once it has come through in every process; nothing travels.

        Args:
            work: As for :meth:`each`.
        """
        found: list[T] = []
        self.each(lambda: found.append(work()))
        return found[0]

    def ask(self, work: Callable[..., T], *arguments: Any) -> list[T]:
        """Let every process do something, this one included; the first process alone asks.

        Args:
            work: ``work(team, *arguments)``, a function of a module.
            arguments: What can travel.

        Returns:
            As :meth:`each`.
        """
        if self.size > 1:
            self._told(_Ask(work, arguments))
        return self.each(lambda: work(self, *arguments))

    def lead(self, context: Any, work: Callable[[], T]) -> T:
        """Run in the first process alone, while the others serve it.

        Args:
            context: What each process brings, such as its task.
            work: What the first does.

        Returns:
            What it gave, in every process.

        Raises:
            TaskError: In the others, if it failed.
        """
        self.context = context
        if self.size == 1:
            return work()
        if self.rank:
            return self._serve()
        try:
            result = work()
        except BaseException:
            with contextlib.suppress(LostError):
                self._told(_End(failed=True))
            raise
        self._told(_End(failed=False, result=result))
        return result

    def beat(self) -> None:
        """A sign of life to those who wait, now and then."""
        if self.size > 1 and time.monotonic() - self._beat_at > BEAT_SECONDS:
            self._told(_Beat())

    def group_of(self, count: int) -> Any:
        """The group of the first ``count`` processes; all of them call this in the same order."""
        if count not in self._groups:
            self._groups[count] = dist.new_group(list(range(count)))
        return self._groups[count]

    def _serve(self) -> Any:
        """Do what the first process asks, until it ends."""
        while not isinstance(message := self._told(None), _End):
            if isinstance(message, _Ask):
                self._join(message)
        if message.failed:
            raise _heard(TaskError(ELSEWHERE))
        return message.result

    def _join(self, asked: _Ask) -> None:
        """Whether a failure ends it all is for the first process to say, if it has heard of it."""
        try:
            self.each(lambda: asked.work(self, *asked.arguments))
        except Exception as error:  # a user's task may raise anything
            if isinstance(error, LostError) or not hasattr(error, HEARD):
                raise

    def _told(self, message: Any) -> Any:
        """What the first process tells all."""
        self._beat_at = time.monotonic()
        box = [message]
        with _heard_of_loss():
            dist.broadcast_object_list(box, 0, group=self.group)
        return box[0]

    def _gathered(self, told: _Told) -> list[_Told]:
        every: list[Any] = [None] * self.size
        with _heard_of_loss():
            dist.all_gather_object(every, told, group=self.group)
        return every


@contextlib.contextmanager
def _heard_of_loss() -> Iterator[None]:
    """Losing a connection, torch raises a RuntimeError of many lines."""
    try:
        yield
    except RuntimeError as error:
        raise _heard(LostError(LOST)) from error


def said_by_first(error: BaseException) -> bool:
    """Whether the first process says it, and this is another."""
    known = hasattr(error, HEARD) and not isinstance(error, LostError)
    return known and started().rank > 0


def _heard(error: E) -> E:
    setattr(error, HEARD, True)
    return error


def _first_failure(told: Sequence[_Told]) -> TaskError | None:
    for rank, one in enumerate(told):
        if one.failed is not None:
            return TaskError(f"Process {rank} of {len(told)}: {one.failed}")
    return None


def _sentence(error: Exception) -> str:
    text = str(error)
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def gathered() -> Iterator[Team]:
    """The processes of this start, with torch.distributed begun for as long as it lasts.

    Example:
        >>> with gathered() as team:
        ...     team.size
        1
    """
    here = started()
    if here.size == 1:
        yield Team()
        return
    begins = not dist.is_initialized()
    if begins:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend)
    try:
        yield Team(here, dist.new_group(backend="gloo", timeout=LONGEST_SILENCE))
    finally:
        if begins:
            dist.destroy_process_group()
