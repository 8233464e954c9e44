"""What a long measurement shows on the terminal: one line with the time left, and sentences above
it.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft


class Quiet:
    """Says nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to end."""

    def say(self, sentence: str) -> None:
        """Nothing."""

    def progress(self, what: str, share: float) -> None:
        """Nothing."""


class Shown(Quiet):
    """A progress line on stderr; where stderr is no terminal, one plain line per step.

    Args:
        budget: Seconds that all of it may take, where there is such a limit.
    """

    def __init__(self, budget: float | None = None) -> None:
        self._budget = budget
        self._console = Console(stderr=True)
        self._line = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("left in this step:"),
            TimeLeft(),
            TextColumn("{task.fields[whole]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._what = ""
        self._began = time.monotonic()

    def __enter__(self) -> Shown:
        self._line.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the line away."""
        self._line.stop()

    def say(self, sentence: str) -> None:
        """A sentence above the line."""
        self._console.print(sentence, highlight=False)

    def progress(self, what: str, share: float) -> None:
        """The step the line shows, and how far it has come."""
        if what != self._what:
            self._next(what)
        if self._task is not None:
            self._line.update(self._task, completed=share, whole=self._whole())

    def _next(self, what: str) -> None:
        self._what = what
        if not self._console.is_terminal:
            self._console.print(f"{self._whole():>18}  {what}", highlight=False)
        if self._task is not None:
            self._line.remove_task(self._task)
        self._task = self._line.add_task(what, total=1.0, whole=self._whole())

    def _whole(self) -> str:
        """Time since the beginning, and the most that all of it may take."""
        gone = f"{time.monotonic() - self._began:.0f} s"
        return gone if self._budget is None else f"{gone} of about {self._budget:.0f} s"
