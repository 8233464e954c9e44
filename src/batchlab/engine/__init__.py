"""How runs are trained: cells, two executors, and the trace they leave."""

from batchlab.engine.job import BatchedProbe, Job, Probe, RunState, evaluation_grid
from batchlab.engine.sweep import Engine, train
from batchlab.engine.trace import RunResult, Series, Trace

__all__ = [
    "BatchedProbe",
    "Engine",
    "Job",
    "Probe",
    "RunResult",
    "RunState",
    "Series",
    "Trace",
    "evaluation_grid",
    "train",
]
