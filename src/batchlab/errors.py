"""What batchlab says when it cannot go on: one sentence, who, what was expected, what to do."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path


class UserError(Exception):
    """A mistake the user can mend. The command line prints its sentence and nothing else."""


class InvalidValueError(UserError, ValueError):
    """A value outside what is possible."""


class InvalidTypeError(UserError, TypeError):
    """A value of the wrong kind."""


class TaskError(UserError):
    """The user's task cannot be loaded, read or trained."""


class MissingDependencyError(UserError, ImportError):
    """An optional part is not installed; the message names the line that installs it."""


class ResultError(UserError):
    """A result directory cannot be used: locked, damaged, unfinished or made by something else."""


class ClusterError(UserError):
    """A cluster does not answer, lacks what is needed, or lost the same cell too often."""


class SpendError(UserError):
    """A sweep stopped because more money would have been spent than was allowed."""


class ValidityWarning(UserWarning):
    """A formula is used outside the range for which it is proved."""


def must(name: str, constraint: str, value: object, hint: str = "") -> str:
    """The one error sentence of this package.

    Args:
        name: The argument as the user typed it.
        constraint: What it has to be, in words.
        value: What came instead.
        hint: What to do, a whole sentence.

    Returns:
        The sentence.

    Example:
        >>> must("batch_size", "at least 1", 0, "Leave it out for 32.")
        '`batch_size` must be at least 1; got 0. Leave it out for 32.'
    """
    return f"`{name}` must be {constraint}; got {value!r}.{' ' + hint if hint else ''}"


def missing(extra: str, module: str) -> MissingDependencyError:
    """The error for an absent optional dependency.

    Args:
        extra: The extra that brings it, such as ``advise``.
        module: The module that was not found.

    Returns:
        An error to raise.

    Example:
        >>> str(missing("advise", "polars"))
        '`polars` is not installed: install batchlab[advise].'
    """
    return MissingDependencyError(f"`{module}` is not installed: install batchlab[{extra}].")


def cannot_read(path: Path, reason: str) -> ResultError:
    """The error for a file that is there and cannot be used.

    Args:
        path: The file.
        reason: Why, in words.

    Returns:
        An error to raise.

    Example:
        >>> str(cannot_read(Path("plan.json"), "it is empty"))
        '`plan.json` cannot be read: it is empty.'
    """
    return ResultError(f"`{path}` cannot be read: {reason}.")


def reason(error: BaseException) -> str:
    r"""What an error is and says, on one line.

    Example:
        >>> reason(ValueError("a\nb")), reason(KeyError())
        ('ValueError: a', 'KeyError')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def located(error: BaseException) -> str:
    r"""What an error is and says, and the last line of the user's own files on the way to it.

    Example:
        >>> located(KeyError("image"))
        "KeyError: 'image'"
    """
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_users(Path(frame.filename))]
    if not own:
        return reason(error)
    return f"{reason(error)} ({own[-1].filename}, line {own[-1].lineno}, in {own[-1].name})"


def _is_users(file: Path) -> bool:
    """Whether a file is neither batchlab's, nor Python's, nor of an installed package."""
    installed = {
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    }
    others = [Path(__file__).parent, *map(Path, installed)]
    return file.is_absolute() and not any(file.is_relative_to(folder) for folder in others)
