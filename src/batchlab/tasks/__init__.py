"""Tasks: the user's model, data and recipe, checked before any training."""

from batchlab.tasks.loading import load
from batchlab.tasks.prepare import Prepared, prepare
from batchlab.tasks.task import METRICS, Metric, Objective, Task

__all__ = ["METRICS", "Metric", "Objective", "Prepared", "Task", "load", "prepare"]
