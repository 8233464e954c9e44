"""Worker processes: one thread each, started when first needed, ended with their parent."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cloudpickle
import loky
import torch

from batchlab import _platform
from batchlab.engine.cell import Results, Work, run_cell, told
from batchlab.errors import TaskError, UserError
from batchlab.tasks import Prepared, load, prepare
from batchlab.tasks.loading import import_origin
from batchlab.tasks.subset import subset_of

POLL_SECONDS = 0.25
AHEAD = 2
"""Cells handed over for each process: one that trains, and the next, so that none waits while
results are written."""
SCRATCH = "batchlab-scratch-"


class MemoryKill(TaskError):
    """The system has ended a worker process for lack of memory.

    Attributes:
        cells: Names of those that were being trained.
    """

    cells: tuple[str, ...] = ()


@runtime_checkable
class Crew(Protocol):
    """Trains cells of one task: the processes of this machine, or the nodes of a cluster."""

    def run(
        self, works: Mapping[str, Work], partly: Callable[[str, float], None], at_once: int = 0
    ) -> Iterator[tuple[str, Results]]:
        """Train cells and hand them back as they finish."""
        ...

    def everywhere(self, function: Callable[..., Any], *given: Any) -> list[Any]:
        """Call a function of the task wherever cells are trained, at the same time."""
        ...

    def hear(self) -> list[str]:
        """What had to be done otherwise than planned since this was asked last."""
        ...

    def close(self) -> None:
        """Hold nothing any longer."""
        ...


@runtime_checkable
class Place(Protocol):
    """Machines beside this one, on which cells can be trained."""

    def slots(self, device: str) -> int:
        """Cells that train at the same time."""
        ...

    def memory(self, device: str) -> int:
        """Bytes for one cell where there are fewest; 0 where that is not known."""
        ...

    def crew(self, prepared: Prepared) -> Crew:
        """Those that train one task."""
        ...


class Workers:
    """Processes that train cells of one task, which each of them reads once.

    Never forked: a forked child hangs after a threaded backward pass.

    Args:
        prepared: The task; closures and lambdas travel, a task named by path is imported again.
        count: Processes, at least 1.
    """

    def __init__(self, prepared: Prepared, count: int) -> None:
        self._prepared, self._count = prepared, count
        self._pool: loky.ProcessPoolExecutor | None = None
        self._scratch: Path | None = None

    def hear(self) -> list[str]:
        """Nothing: processes that die end the sweep."""
        return []

    def close(self) -> None:
        """End the processes; the next :meth:`run` starts new ones."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, kill_workers=True)
            self._pool = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def run(
        self, works: Mapping[str, Work], partly: Callable[[str, float], None], at_once: int = 0
    ) -> Iterator[tuple[str, Results]]:
        """Train cells and hand them back as they finish.

        Args:
            works: What to train, by the cell's name.
            partly: Told a cell's name and the share of it that is done.
            at_once: Cells that train at a time; 0: one a process.

        Returns:
            (name, results) of each. A work is made when it is handed over: what the results before
            have taught may be in it.

        Raises:
            MemoryKill: If the system ends a process for lack of memory.
            TaskError: If the user's code raises or ends its process.
        """
        kills = _platform.memory_kills()
        with self._started() as (pool, scratch):
            shares = {name: scratch / f"share-{name}" for name in works}
            left = iter(works)

            def submit(count: int) -> dict[Future[Results], str]:
                task = str(scratch / "task")
                return {
                    pool.submit(_work, task, str(shares[name]), works[name]): name
                    for name in itertools.islice(left, count)
                }

            try:
                yield from _collect(submit, at_once or AHEAD * self._count, shares, partly)
            except BrokenProcessPool as error:
                if _platform.memory_kills() <= kills or "SIGKILL" not in str(error):
                    raise
                killed = MemoryKill(_killed(self._prepared.task.name))
                killed.cells = tuple(name for name, path in shares.items() if path.exists())
                raise killed from error

    def everywhere(self, function: Callable[..., Any], *given: Any) -> list[Any]:
        """Call a function of the task in every process at the same time.

        Args:
            function: ``(prepared, *given) → result``.
            given: Its other arguments.

        Returns:
            One result a process.

        Raises:
            TaskError: If the user's code raises or ends its process.
        """
        with self._started() as (pool, scratch):
            called = [
                pool.submit(_call, str(scratch / "task"), function, given)
                for _ in range(self._count)
            ]
            return [future.result() for future in called]

    @contextlib.contextmanager
    def _started(self) -> Iterator[tuple[loky.ProcessPoolExecutor, Path]]:
        """The processes, ended by whatever goes wrong while they are used."""
        try:
            yield self._start()
        except BrokenProcessPool as error:
            self.close()
            raise TaskError(_died(self._prepared.task.name)) from error
        except BaseException:
            self.close()
            raise

    def _start(self) -> tuple[loky.ProcessPoolExecutor, Path]:
        """The processes, and the folder where they find the task."""
        if self._pool is None or self._scratch is None:
            remove_orphans()
            self._scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))
            (self._scratch / "task").write_bytes(packed(self._prepared))
            self._pool = loky.ProcessPoolExecutor(
                max_workers=self._count,
                initializer=begin,
                initargs=(os.getpid(),),
                # Workers keep what they free, which is no leak to restart them for.
                env={"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"},
            )
        return self._pool, self._scratch


def remove_orphans() -> None:
    """Delete the scratch folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*-*"):
        owner = folder.name.removeprefix(SCRATCH).split("-")[0]
        if owner.isdigit() and not _platform.is_running(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def can_travel(prepared: Prepared) -> bool:
    """Whether a task can be sent to a worker as it stands, rather than as the path it came from.

    Args:
        prepared: The task.
    """
    try:
        cloudpickle.dumps(replace(prepared, drawn=None))
    except Exception:  # an open file, a lock: whatever the user's data set holds
        return False
    return True


def packed(prepared: Prepared) -> bytes:
    """The task as bytes; one that cannot be pickled travels as the path it was loaded from.

    Args:
        prepared: The task.

    Raises:
        TaskError: If it has no such path.
    """
    origin, device, drawn = prepared.task.origin, prepared.device, prepared.drawn
    part = None if drawn is None else (drawn.subset, drawn.seed)
    try:
        payload = cloudpickle.dumps(replace(prepared, drawn=None))  # the whole data stay here
    except Exception as error:  # an open file, a lock: whatever the user's data set holds
        if origin is None:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TaskError(
                f"The task `{prepared.task.name}` cannot be sent to worker processes ({reason}). "
                "Name it as `file.py:function`, or train it with `workers=0` in Python."
            ) from error
        payload = None
    return cloudpickle.dumps((sys.path, origin, device, part, payload))


def _collect(
    submit: Callable[[int], dict[Future[Results], str]],
    at_once: int,
    shares: Mapping[str, Path],
    partly: Callable[[str, float], None],
) -> Iterator[tuple[str, Results]]:
    """Results as they come; for each that has, one more cell is handed over."""
    waiting = submit(at_once)
    while waiting:
        done, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            results = future.result()
            name = waiting.pop(future)
            shares[name].unlink(missing_ok=True)
            yield name, results
            waiting |= submit(1)
        for name in waiting.values():
            partly(name, _read_share(shares[name]))


def _died(name: str) -> str:
    return (
        f"A worker process died while training the task `{name}`: its code ended the process, or "
        "the system did, for lack of memory. In Python, "
        "`batchlab.engine.train(…, workers=0)` trains in one process and shows more."
    )


def _killed(name: str) -> str:
    return (
        f"A worker process died while training the task `{name}`: the system ended it, for lack "
        "of memory."
    )


def begin(parent: int) -> None:
    """One thread; Ctrl-C is the parent's business; gone when the parent is.

    Args:
        parent: Its process.
    """
    torch.set_num_threads(1)
    _platform.keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _platform.die_with_parent(parent)


@lru_cache(maxsize=1)
def _read_task(path: str) -> Prepared:
    """The task. The file was written by the parent, in its own scratch folder."""
    return unpacked(Path(path).read_bytes())


def unpacked(data: bytes | memoryview) -> Prepared:
    """The task from what :func:`packed` has made of it, in another process.

    Args:
        data: From a process that is trusted.

    Raises:
        TaskError: If its modules cannot be imported here.
    """
    search_path, origin, device, part, payload = cloudpickle.loads(data)
    sys.path[:] = search_path + [p for p in sys.path if p not in search_path]
    try:
        if payload is None:
            whole = prepare(load(origin), device=device)
            return whole if part is None else subset_of(whole, *part)
        import_origin(origin)
        return cloudpickle.loads(payload)
    except UserError:
        raise
    except Exception as error:  # the user's own modules may raise anything on import
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TaskError(f"The task cannot be read in a worker process ({reason}).") from error


def _work(task: str, share: str, work: Work) -> Results:
    """Run a cell in a worker; the share that is done goes through a small file, which is there
    from the beginning.
    """
    last = time.monotonic()

    def tell(done: float) -> None:
        with contextlib.suppress(OSError):  # a full disk: only the share is not told
            Path(share).write_text(f"{done:.4f}")

    def tick(done: float) -> None:
        nonlocal last
        if time.monotonic() - last > POLL_SECONDS:
            last = time.monotonic()
            tell(done)

    prepared = _read_task(task)
    tell(0.0)
    return run_cell(prepared, work, tick)


def _call(task: str, function: Callable[..., Any], given: tuple[Any, ...]) -> Any:
    prepared = _read_task(task)
    with told(prepared.task.name):  # here: what the user's code raises may not travel
        return function(prepared, *given)


def _read_share(path: Path) -> float:
    try:
        return float(path.read_text() or 0)
    except (OSError, ValueError):
        return 0.0
