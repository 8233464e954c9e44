"""What a long measurement shows: one line with the time left, on the terminal or below the cell of
a notebook, and sentences beside it.
"""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

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

    def beside(self, words: str) -> None:
        """Nothing."""


class Shown(Quiet):
    """A progress line on stderr; where stderr is no terminal, a plain line per step and one every
    half a minute with the time left.

    Args:
        budget: Seconds that all of it may take, where there is such a limit.
    """

    LINE_SECONDS = 30.0

    def __init__(self, budget: float | None = None) -> None:
        self._budget = budget
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._line = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("left in this step:"),
            TimeLeft(),
            TextColumn("{task.fields[whole]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._what = self._beside = ""
        self._began = self._step_began = self._told = time.monotonic()

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
        self._console.print(sentence)

    def progress(self, what: str, share: float) -> None:
        """The step the line shows, and how far it has come."""
        if what != self._what:
            self._next(what)
        elif not self._console.is_terminal:
            self._tell(share)
        if self._task is not None:
            self._line.update(self._task, completed=share, whole=self._whole())

    def beside(self, words: str) -> None:
        """What else the line shows, beside the time."""
        self._beside = words

    def _tell(self, share: float) -> None:
        """A plain line, if the last was long enough ago."""
        now = time.monotonic()
        left = seconds_left(now - self._step_began, share)
        if left is None or now - self._told < self.LINE_SECONDS:
            return
        self._told = now
        told = f"{100 * share:.0f} %, about {left:.0f} s left in this step"
        self._console.print(f"{self._whole():>18}  {self._what}: {told}")

    def _next(self, what: str) -> None:
        self._what, self._step_began = what, time.monotonic()
        self._told = self._step_began
        if not self._console.is_terminal:
            self._console.print(f"{self._whole():>18}  {what}")
        if self._task is not None:
            self._line.remove_task(self._task)
        self._task = self._line.add_task(what, total=1.0, whole=self._whole())

    def _whole(self) -> str:
        """Time since the beginning, and the most that all of it may take."""
        gone = f"{time.monotonic() - self._began:.0f} s"
        whole = gone if self._budget is None else f"{gone} of about {self._budget:.0f} s"
        return f"{whole} · {self._beside}" if self._beside else whole


class InNotebook(Quiet):
    """One line below the cell, kept up to date; when it ends, what was said can be opened.

    Args:
        budget: Seconds that all of it may take, where there is such a limit.
    """

    REFRESH_SECONDS = 0.5

    def __init__(self, budget: float | None = None) -> None:
        self._budget = budget
        self._began = self._step_began = time.monotonic()
        self._shown_at = -self.REFRESH_SECONDS
        self._what = self._beside = ""
        self._said: list[str] = []
        self._handle: Any = None

    def __enter__(self) -> InNotebook:
        display = importlib.import_module("IPython.display").display
        self._handle = display(self._bundle("starting"), raw=True, display_id=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave how long it took, and what was said."""
        how = "done" if kind is None else "stopped"
        said = "".join(f"<br>{html.escape(sentence)}" for sentence in self._said)
        notes = f"<details><summary>remarks: {len(self._said)}</summary>{said}</details>"
        self._update(f"{how} after {self._gone()}", notes if said else "")

    def say(self, sentence: str) -> None:
        """A sentence to be read afterwards."""
        self._said.append(sentence)

    def progress(self, what: str, share: float) -> None:
        """The step the line shows, and how far it has come."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._step_began = what, now
        elif now - self._shown_at < self.REFRESH_SECONDS:
            return
        self._shown_at = now
        left = seconds_left(now - self._step_began, share)
        told = "" if left is None else f" · {left:.0f} s left in this step"
        whole = "" if self._budget is None else f" of about {self._budget:.0f} s"
        bar = f'<br><progress value="{min(share, 1.0):.2f}"></progress>'
        self._update(f"{what}{told} · {self._gone()}{whole}{self._beside}", bar)

    def beside(self, words: str) -> None:
        """What else the line shows, beside the time."""
        self._beside = f" · {words}"

    def _gone(self) -> str:
        return f"{time.monotonic() - self._began:.0f} s"

    def _update(self, line: str, below: str) -> None:
        self._handle.update(self._bundle(line, below), raw=True)

    def _bundle(self, line: str, below: str = "") -> dict[str, str]:
        text = f"batchlab: {line}"
        return {"text/plain": text, "text/html": f"{html.escape(text)}{below}"}


def seconds_left(elapsed: float, share: float) -> float | None:
    """How long a step still takes at its pace so far; None at its beginning.

    Args:
        elapsed: Seconds so far.
        share: Share of it that is done.

    Example:
        >>> seconds_left(3.0, 0.25)
        9.0
    """
    return elapsed * (1 - share) / share if 0 < share <= 1 else None


Hears = TypeVar("Hears")


@contextmanager
def listening(listener: Hears | None, budget: float | None = None) -> Iterator[Hears | Quiet]:
    """The listener that was given; without one, a line where somebody watches.

    That is in a notebook and on a terminal. A script whose output goes into a file, and a test,
    stay silent; ``listener=Quiet()`` always does.

    Args:
        listener: What was given.
        budget: Seconds that all of it may take, where there is such a limit.
    """
    if listener is not None:
        yield listener
        return
    with usual(budget) as shown:
        yield shown


def usual(budget: float | None = None) -> Quiet:
    """The line that fits where this runs.

    Args:
        budget: Seconds that all of it may take, where there is such a limit.
    """
    if in_notebook():
        return InNotebook(budget)
    return Shown(budget) if sys.stderr.isatty() else Quiet()


def in_notebook() -> bool:
    """Whether this is a cell of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
