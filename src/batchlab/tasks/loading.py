"""Find a task by name or path, and carry it to a worker process."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from batchlab.errors import (
    InvalidValueError,
    TaskError,
    UserError,
    located,
    missing,
    must,
)
from batchlab.tasks.task import Task

BUILTIN = ("digits", "mnist", "cifar10", "teacher")
"""Each is a module of this package with a function ``task``; it is imported when asked for."""
SELF_CONTAINED = {"digits": "Its pictures are built in.", "teacher": "Its data are drawn."}
"""Those that need no folder, and why."""

MARK = "__batchlab_task__"
"""Attribute of the modules made here, which may be replaced when the same name is loaded again."""


def load(name: str, data: str | Path | None = None) -> Task:
    """Load a task.

    Args:
        name: ``digits``, ``mnist``, ``cifar10``, ``teacher``, ``teacher@TARGET`` such as
            ``teacher@He3(z)``, ``file.py:function`` or ``package.module:function``. The function
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
    kind, _, rest = name.partition("@")
    if kind == "teacher" and rest and data is None:
        return found_at(_maker(kind)(rest), name)
    if kind in BUILTIN:
        return _builtin(kind, data if data is not None else rest or None)
    if data is not None:
        hint = "It belongs to mnist and cifar10; your own task reads its own data."
        raise InvalidValueError(must("data", f"left out for {name}", str(data), hint))
    module_name, _, function_name = name.rpartition(":")
    # A Windows drive letter is not a function.
    if not module_name or len(module_name) == 1:
        hint = f"Known tasks: {', '.join(BUILTIN)}. Your own: path/to/file.py:function."
        raise TaskError(
            must("task", "a built-in name, file.py:function or module:function", name, hint)
        )
    module, origin = module_of(module_name)
    return found_at(_call(module, function_name, name), f"{origin}:{function_name}")


def found_at(task: Task, origin: str) -> Task:
    """A copy that knows where it came from.

    Args:
        task: What was found.
        origin: See :attr:`Task.origin`.

    Example:
        >>> task = found_at(load("digits"), "digits@again")
        >>> task.origin, replace(task, name="mine").origin
        ('digits@again', None)
    """
    known = replace(task)
    object.__setattr__(known, "origin", origin)  # no argument, so that `replace` leaves it out
    return known


def _builtin(kind: str, data: str | Path | None) -> Task:
    """A task of this package; the folder of its data becomes part of its name for workers."""
    make = _maker(kind)
    if kind in SELF_CONTAINED:
        if data is not None:
            hint = SELF_CONTAINED[kind]
            raise InvalidValueError(must("data", f"left out for {kind}", str(data), hint))
        return found_at(make(), kind)
    folder = None if data is None else Path(data).expanduser()
    return found_at(make(folder), kind if folder is None else f"{kind}@{folder.resolve()}")


def _maker(kind: str) -> Callable[..., Task]:
    try:
        return importlib.import_module(f"batchlab.tasks.{kind}").task
    except ModuleNotFoundError as error:
        raise missing("advise", error.name or "scikit-learn") from None


def module_of(name: str) -> tuple[ModuleType, str]:
    """The module in a file or of a dotted name, and a name that works from anywhere.

    Args:
        name: ``path/to/file.py`` or ``package.module``.

    Raises:
        TaskError: With one sentence about what could not be found or run.
    """
    if not name.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            return importlib.import_module(name), name
        except ModuleNotFoundError as error:
            raise TaskError(f"The module `{name}` cannot be imported: {error}.") from None
        except (Exception, SystemExit) as error:  # the user's own code may raise anything
            raise TaskError(f"Importing `{name}` raised {located(error)}.") from error
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise TaskError(f"There is no file `{name}`.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    return _import_file(path, name), str(path)


def _import_file(path: Path, shown: str) -> ModuleType:
    there = sys.modules.get(path.stem)
    if there is not None and not hasattr(there, MARK) and _file_of(there) == path:
        return there  # the user has imported it
    _check_name(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"`{shown}` is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    setattr(module, MARK, True)
    # Registered, so that its classes can be pickled; under its own name, so that its neighbours
    # can import it.
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        del sys.modules[path.stem]
        raise TaskError(f"Importing `{shown}` raised {located(error)}.") from error
    return module


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()


def _check_name(path: Path) -> None:
    """The file does not take the name of a module that Python or a library needs."""
    there = sys.modules.get(path.stem)
    taken = there is not None and not hasattr(there, MARK)
    if path.stem in sys.stdlib_module_names or taken:
        hint = "Rename it: Python would import it in that module's place."
        raise TaskError(must("task", "a file with a name of its own", path.name, hint))


def _call(module: ModuleType, function_name: str, shown: str) -> Task:
    function: Any = getattr(module, function_name, None)
    if function is None:
        there = [
            n for n, f in vars(module).items() if inspect.isfunction(f) and not n.startswith("_")
        ]
        hint = f"It has: {', '.join(there[:8]) or 'no functions'}."
        raise TaskError(must("task", f"a function in `{module.__name__}`", function_name, hint))
    if isinstance(function, Task):
        return function
    if not callable(function):
        got = f"{function_name}, a {type(function).__name__}"
        raise TaskError(must("task", "a function that returns a Task", got))
    try:
        made = function()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise TaskError(f"`{shown}` raised {located(error)}.") from error
    if not isinstance(made, Task):
        got = f"{type(made).__name__} from {shown}"
        raise TaskError(must("task", "a function that returns a batchlab.Task", got))
    if made.name != "task":
        return made
    return replace(made, name=function_name if function_name != "task" else module.__name__)


def import_origin(origin: str | None) -> None:
    """Import the module a task came from, so that what was pickled by name is found in a worker.

    Args:
        origin: :attr:`Task.origin`, or None.
    """
    if origin is not None and ":" in origin and origin.partition("@")[0] not in BUILTIN:
        module_of(origin.rpartition(":")[0])
