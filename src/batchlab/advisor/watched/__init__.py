"""Trainings that the user ran and batchlab watched, compared as an advice compares its own."""

from batchlab.advisor.watched.compare import compare
from batchlab.advisor.watched.judge import Asked
from batchlab.advisor.watched.runs import Run, metric_of, run_of

__all__ = ["Asked", "Run", "compare", "metric_of", "run_of"]
