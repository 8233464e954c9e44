"""The same numbers in TensorBoard, with samples as the step."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchlab.errors import InvalidTypeError, missing, must
from batchlab.watch.noise import estimate
from batchlab.watch.record import Line, MetricPoint, Moment, NoiseBlock


class Board:
    """Where scalars go.

    Args:
        where: A ``SummaryWriter``, or anything with its ``add_scalar``; or a folder for a new one.

    Raises:
        MissingDependencyError: If TensorBoard is not installed.
        InvalidTypeError: If it is neither.
    """

    def __init__(self, where: Any) -> None:
        self._own = isinstance(where, str | Path)
        if not self._own and not hasattr(where, "add_scalar"):
            words = "True, a folder or a SummaryWriter"
            raise InvalidTypeError(must("tensorboard", words, type(where).__name__))
        self._writer: Any = _writer(Path(where)) if self._own else where
        self._before: Moment | None = None

    def add(self, line: Line) -> None:
        """Show a line."""
        for name, value in self._scalars(line):
            if not math.isnan(value):
                self._writer.add_scalar(name, value, global_step=line.samples)

    def close(self) -> None:
        """Close a writer of our own; the user's stays open."""
        if self._own:
            self._writer.close()

    def _scalars(self, line: Line) -> Iterator[tuple[str, float]]:
        match line:
            case Moment():
                yield from self._moment(line)
            case MetricPoint(name=name, value=value):
                yield f"metric/{name}", value
            case NoiseBlock():
                yield from _noise(line)

    def _moment(self, now: Moment) -> Iterator[tuple[str, float]]:
        yield "progress/updates", float(now.updates)
        yield "progress/seconds", now.seconds
        if now.money is not None:
            yield "progress/money", now.money
        if now.loss is not None:
            yield "loss", now.loss
        if now.memory is not None:
            yield "memory/GiB", now.memory / 2**30
        before, self._before = self._before, now
        if before is not None and now.seconds > before.seconds:
            yield (
                "samples per second",
                (now.samples - before.samples) / (now.seconds - before.seconds),
            )
            waiting, working = now.waiting - before.waiting, now.working - before.working
            yield "share of time waiting for data", waiting / max(waiting + working, 1e-12)


def _noise(block: NoiseBlock) -> Iterator[tuple[str, float]]:
    found = estimate([block])
    if found is None:
        return
    if found.scale is not None:
        yield "noise scale/value", found.scale.value
        yield "noise scale/low", found.scale.low
        yield "noise scale/high", found.scale.high
    elif found.at_least is not None:
        yield "noise scale/low", found.at_least


def _writer(folder: Path) -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
    except ImportError as error:
        raise missing("tensorboard", "tensorboard") from error
