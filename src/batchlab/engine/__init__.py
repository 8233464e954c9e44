"""How runs are trained: cells, two executors, and the trace they leave.

A sweep goes through the files in this order:

* ``job``: what runs are asked for besides training; ``capability``: what the model can do.
* ``choice``: which way is fastest; ``memory``: how many runs fit; ``sweep``: cells, and all below.
* ``workers``: the processes; ``cell``: the work of one, by ``loop`` (run by run) or ``stacked``
  (many as one program, ``compiled`` where that pays back).
* ``step``: one update of one run, with ``dropout``; ``evaluate``: validation.
* ``trace``: what is left; ``checkpoint`` and ``store``: what is on disk, meanwhile and at the end.
"""

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
