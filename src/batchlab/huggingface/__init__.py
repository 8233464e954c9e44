"""For a ``transformers.Trainer`` you already have.

:func:`task` reads its whole recipe; ``Watch`` is a callback that measures while it trains, as
:class:`batchlab.watch.Watch` does; ``GrowingTrainer`` is a Trainer whose batch size follows a
schedule, or whose batches are used several times.
"""

import importlib
from typing import Any

from batchlab.errors import missing
from batchlab.huggingface.reading import task

__all__ = ["task"]


LATER = {"Watch": "batchlab.watch._huggingface", "GrowingTrainer": "batchlab.huggingface.growing"}
"""Their home, which imports transformers."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(LATER[name]), name)
    except ModuleNotFoundError as error:
        raise missing("transformers", error.name or "transformers") from error
