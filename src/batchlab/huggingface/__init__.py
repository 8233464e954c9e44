"""Read a whole recipe from a ``transformers.Trainer``: :func:`task`."""

from batchlab.huggingface.reading import task

__all__ = ["task"]
