"""Commands that several processes run together under torchrun."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from batchlab import _platform, _tree
from batchlab._processes import refuse_sharded
from batchlab._team import Team
from batchlab._text import plain
from batchlab.advisor.record import Setting
from batchlab.advisor.session import Listener
from batchlab.errors import TaskError
from batchlab.measure.together import Division, Gain, divisions, gains
from batchlab.report.gained import gained
from batchlab.schedules import sizes_of
from batchlab.tasks import Prepared
from batchlab.types import from_plain, to_plain

SECONDS, BLOCKS = 0.2, 3
"""Of each number of processes at the end of an advice."""
LOOKED_AT = 8
"""Training examples, spread over the data, by which processes see whether theirs are the same."""


class Beating:
    """A listener that lets the other processes hear, too, that work goes on.

    Args:
        inner: Hears all of it.
        team: Its first process is this one.
    """

    def __init__(self, inner: Listener, team: Team) -> None:
        self._inner, self._team = inner, team

    def say(self, sentence: str) -> None:
        """One sentence for the user."""
        self._inner.say(sentence)
        self._team.beat()

    def progress(self, what: str, share: float) -> None:
        """A step has come this far."""
        self._inner.progress(what, share)
        self._team.beat()


def together(
    team: Team, today: Setting, recommended: Setting, folder: Path, hears: Listener
) -> tuple[str, ...]:
    """What more processes gain at today's and at the recommended batch size; what was timed in
    this folder before is not timed again.

    Args:
        team: Inside :meth:`Team.lead`.
        today: Today's settings.
        recommended: Perhaps the same.
        folder: Result directory; ``processes.json`` is written into it.
        hears: Told of progress.

    Returns:
        Sentences.
    """
    prepared: Prepared = team.context
    path = folder / "processes.json"
    if path.is_file():
        found = from_plain(tuple[Gain, ...], json.loads(path.read_text("utf-8")))
    else:
        hears.progress("timing the processes together", 0.0)
        found = gains(
            team, prepared.baseline, _wanted(team, (today, recommended)), SECONDS, BLOCKS
        )
        _platform.write_whole(path, json.dumps(to_plain(found), ensure_ascii=False))
    told = tuple(plain(sentence.en) for sentence in gained(found))
    alone = (
        f"Of the {team.size} processes of this start one alone trained, since a run does not "
        "depend on their number beyond round-off; times in this advice are those of all "
        f"{team.size} together, of fewer where {team.size} do not divide a batch."
    )
    return (alone, *told)


def _wanted(team: Team, settings: Sequence[Setting]) -> tuple[Division, ...]:
    """Their batch sizes on 1, 2, … processes, in the micro-batches that were found to fit."""
    micro = {max(sizes_of(s.batch_size)): s.micro_batch_size for s in settings}
    return tuple(
        one for size, largest in micro.items() for one in divisions([size], team.size, largest)
    )


def check_same(team: Team, prepared: Prepared) -> None:
    """Processes that train together must mean the same by an example's number.

    Args:
        team: All of them call this.
        prepared: Each one's own task.

    Raises:
        TaskError: If tasks differ; DistributedDataParallel would not notice.
        InvalidTypeError: If the model is spread over the processes.
    """
    if team.size == 1:
        return
    team.own(lambda: refuse_sharded(prepared.objective(0).modules(), "model"))
    told = team.each(lambda: _facts(prepared))
    for rank, other in enumerate(told):
        for name, value in told[0].items():
            if other[name] != value:
                raise TaskError(
                    f"The task must be the same in every process; {name} differs: {value} in "
                    f"process 0, {other[name]} in process {rank}. Each process reads all the "
                    "data, and takes its own part of every batch."
                )


def _facts(prepared: Prepared) -> dict[str, Any]:
    """What must not differ, in words."""
    index = torch.linspace(0, prepared.examples - 1, LOOKED_AT).long()
    digest = hashlib.sha256()
    for leaf in _tree.leaves(prepared.train.batch(index)):
        digest.update(leaf.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return {
        "the name": prepared.task.name,
        "the number of training examples": prepared.examples,
        "the recipe": str(prepared.baseline),
        "the training data": digest.hexdigest()[:12],
    }
