"""For a ``transformers.Trainer`` you already have.

:func:`task` reads its whole recipe; ``Watch`` is a callback that measures while it trains, as
:class:`batchlab.watch.Watch` does.
"""

import importlib
from typing import Any

from batchlab.errors import missing
from batchlab.huggingface.reading import task

__all__ = ["task"]


def __getattr__(name: str) -> Any:
    if name != "Watch":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module("batchlab.watch._huggingface").Watch
    except ModuleNotFoundError as error:
        raise missing("transformers", error.name or "transformers") from error
