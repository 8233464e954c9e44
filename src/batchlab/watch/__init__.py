"""Measuring inside a training that your own code runs, with the core install.

.. code-block:: python

    with Watch("runs/today", model, optimizer, price_per_hour=2.5) as watching:
        for epoch in range(10):
            for batch in watching.data(loader):
                loss = loss_of(model, batch)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                watching.loss(loss)
            watching.metric("accuracy", evaluate(model), maximise=True)

:class:`Watch` writes a result directory while the training runs and says one sentence at the end;
:func:`read` reads the directory, of a killed training too. ``batchlab.lightning.Watch`` and
``batchlab.huggingface.Watch`` do the same as callbacks.

**Files.** ``provenance.json`` holds versions and machine. ``watch.jsonl`` has one JSON object per
line, written whole and only ever appended, so that a killed training leaves all but the last line.
Each has ``kind`` and the four axes ``samples``, ``updates``, ``seconds`` and ``money``; its other
fields are those of the record of that kind in :mod:`batchlab.watch.record`: ``start``, ``moment``,
``metric``, ``noise``, ``checkpoint``, ``note``, ``end``. Numbers that JSON lacks are the texts
``nan``, ``inf`` and ``-inf``. A field that an older file lacks is None, or empty. A ``start``
after others begins what a resume goes on with; lines of more updates before it were trained again
and are left out by :func:`read`.
"""

from batchlab.watch.journal import read
from batchlab.watch.loop import Watch
from batchlab.watch.record import (
    About,
    BatchSize,
    Checkpoint,
    End,
    Ending,
    MetricPoint,
    Moment,
    NoiseBlock,
    Note,
    Start,
    Watched,
)
from batchlab.watch.verdict import Change, Kind, Verdict, judge
from batchlab.watch.wording import sentence

__all__ = [
    "About",
    "BatchSize",
    "Change",
    "Checkpoint",
    "End",
    "Ending",
    "Kind",
    "MetricPoint",
    "Moment",
    "NoiseBlock",
    "Note",
    "Start",
    "Verdict",
    "Watch",
    "Watched",
    "judge",
    "read",
    "sentence",
]
