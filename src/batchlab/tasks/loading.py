"""Find a task by name or path, and carry it to a worker process."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from batchlab.errors import InvalidValueError, TaskError, UserError, missing, must
from batchlab.tasks.task import Task

BUILTIN = ("digits", "mnist", "cifar10")
"""Each is a module of this package with a function ``task``; it is imported when asked for."""


def load(name: str, data: str | Path | None = None) -> Task:
    """Load a task.

    Args:
        name: ``digits``, ``mnist``, ``cifar10``, ``file.py:function`` or ``package.module:function``. The function
            takes no required arguments and returns a Task.
        data: Folder with the data of ``mnist`` or ``cifar10``.

    Returns:
        The task, knowing where it came from.

    Raises:
        TaskError: With one sentence about what could not be found or run.

    Example:
        >>> load("digits").name
        'digits'
    """
    kind, _, folder = name.partition("@")
    if kind in BUILTIN:
        return _builtin(kind, data if data is not None else folder or None)
    if data is not None:
        hint = "It belongs to mnist and cifar10; your own task reads its own data."
        raise InvalidValueError(must("data", f"left out for {name}", str(data), hint))
    module_name, _, function_name = name.rpartition(":")
    # A Windows drive letter is not a function.
    if not module_name or len(module_name) == 1:
        hint = f"Known tasks: {', '.join(BUILTIN)}. Your own: path/to/file.py:function."
        raise TaskError(must("task", "a built-in name, file.py:function or module:function", name, hint))
    module, origin = _module(module_name)
    return replace(_call(module, function_name, name), origin=f"{origin}:{function_name}")


def _builtin(kind: str, data: str | Path | None) -> Task:
    """A task of this package; the folder of its data becomes part of its name for workers."""
    try:
        make = importlib.import_module(f"batchlab.tasks.{kind}").task
    except ModuleNotFoundError as error:
        raise missing("advise", error.name or "scikit-learn") from None
    if kind == "digits":
        if data is not None:
            raise InvalidValueError(must("data", "left out for digits", str(data), "Its pictures are built in."))
        return replace(make(), origin=kind)
    return replace(make(None if data is None else Path(data)), origin=kind if data is None else f"{kind}@{data}")


def _module(name: str) -> tuple[ModuleType, str]:
    """The module in a file or of a dotted name, and a name that works from anywhere."""
    if not name.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            return importlib.import_module(name), name
        except ModuleNotFoundError as error:
            raise TaskError(f"The module `{name}` cannot be imported: {error}.") from None
        except Exception as error:  # the user's own code may raise anything
            raise TaskError(f"`{name}` raised {type(error).__name__} on import: {error}") from error
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise TaskError(f"There is no file `{name}`.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    return _import_file(path, name), str(path)


def _import_file(path: Path, shown: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"`{shown}` is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Registered, so that its classes can be pickled; under its own name, so that its neighbours can import it.
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code may raise anything
        del sys.modules[path.stem]
        raise TaskError(f"`{shown}` raised {type(error).__name__} on import: {error}") from error
    return module


def _call(module: ModuleType, function_name: str, shown: str) -> Task:
    function: Any = getattr(module, function_name, None)
    if function is None:
        there = [n for n, f in vars(module).items() if inspect.isfunction(f) and not n.startswith("_")]
        hint = f"It has: {', '.join(there[:8]) or 'no functions'}."
        raise TaskError(must("task", f"a function in `{module.__name__}`", function_name, hint))
    if isinstance(function, Task):
        return function
    if not callable(function):
        raise TaskError(must("task", "a function that returns a Task", f"{function_name}, a {type(function).__name__}"))
    try:
        made = function()
    except UserError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise TaskError(f"`{shown}` raised {type(error).__name__}: {error}") from error
    if not isinstance(made, Task):
        raise TaskError(must("task", "a function that returns a batchlab.Task", f"{type(made).__name__} from {shown}"))
    return made if made.name != "task" else replace(made, name=function_name if function_name != "task" else module.__name__)


def import_origin(origin: str | None) -> None:
    """Import the module a task came from, so that what was pickled by name is found in a worker.

    Args:
        origin: :attr:`Task.origin`, or None.
    """
    if origin is not None and ":" in origin and origin.partition("@")[0] not in BUILTIN:
        _module(origin.rpartition(":")[0])
