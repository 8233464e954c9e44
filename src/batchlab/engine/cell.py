"""The unit of execution: what one cell is asked to do, and doing it in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from batchlab import _platform, _random
from batchlab._memory import is_out_of_memory
from batchlab.config import RunConfig
from batchlab.engine.capability import Capability
from batchlab.engine.checkpoint import SECONDS, Checkpoint
from batchlab.engine.job import Job, RunState
from batchlab.engine.loop import train_alone
from batchlab.engine.stacked import train_stacked
from batchlab.engine.trace import RunResult
from batchlab.errors import TaskError, UserError
from batchlab.tasks import Prepared

Results: TypeAlias = list[tuple[RunResult, RunState | None]]
"""Per run of a cell, in its order: the result, and the state at its end if it is wanted."""


@dataclass(frozen=True)
class Work:
    """All that a cell's results depend on besides the task.

    Attributes:
        executor: ``stacked`` or ``loop``.
        configs: Resolved runs.
        job: When to evaluate and probe.
        capability: What the model needs.
        starts: Where each run goes on from.
        slots: Runs of a stack that train at a time; 0: all of them.
        unit: Batches in one compiled program; 0: nothing is compiled.
        folder: Where the state is kept meanwhile, or None.
        checkpoint_seconds: How often.
        memory: Bytes that a cluster keeps free for it.
        share: Bytes that its runs may take as long as there could be fewer of them at a time; 0:
            that is left to the system.
    """

    executor: str
    configs: tuple[RunConfig, ...]
    job: Job
    capability: Capability
    starts: tuple[RunState | None, ...]
    slots: int = 0
    unit: int = 0
    folder: Path | None = None
    checkpoint_seconds: float = SECONDS
    memory: int = 0
    share: int = 0


def run_cell(
    prepared: Prepared, work: Work, tick: Callable[[float], None] | None = None
) -> Results:
    """Train the runs of one cell in this process; global random state is as before.

    Args:
        prepared: The task.
        work: What to train.
        tick: Told the share that is done.

    Returns:
        The results in the order of ``work.configs``.

    Raises:
        TaskError: If the user's code raises.
    """
    with one_thread(prepared.device), _random.seeded(0, "cell"), told(prepared.task.name):
        return _run(prepared, work, tick)


@contextmanager
def told(task: str) -> Iterator[None]:
    """Make one sentence of whatever the user's code raises inside.

    Args:
        task: Its name.

    Raises:
        TaskError: If it raises.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        if is_out_of_memory(error):
            raise TaskError(
                f"Training the task `{task}` ran out of memory with one run at a time. "
                "`batchlab fit` says which batch size fits."
            ) from error
        text = (str(error).strip() or "no message").splitlines()[0]
        kind = type(error).__name__
        raise TaskError(f"Training the task `{task}` raised {kind}: {text}") from error


def _run(prepared: Prepared, work: Work, tick: Callable[[float], None] | None) -> Results:
    checkpoint = Checkpoint(work.folder, work.checkpoint_seconds)
    if work.executor == "stacked":
        return train_stacked(
            prepared,
            work.configs,
            work.job,
            work.capability,
            work.starts,
            tick,
            slots=work.slots or None,
            unit=work.unit,
            checkpoint=checkpoint,
            ceiling=_ceiling(work.share),
        )
    # The loop executor's cells hold one run each: one checkpoint is enough.
    return [
        train_alone(prepared, config, work.job, work.capability, start, tick, checkpoint)
        for config, start in zip(work.configs, work.starts, strict=True)
    ]


def _ceiling(share: int) -> int | None:
    """Bytes of private memory that this process may map in all; None where nothing limits it, or
    the system does not tell what it has.
    """
    with suppress(UserError):
        return _platform.data_size() + share if share else None
    return None


@contextmanager
def one_thread(device: str = "cpu") -> Iterator[None]:
    """One torch thread for a while: an eager loop of small operations never gains from more."""
    before = torch.get_num_threads()
    if device == "cpu" and before != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
