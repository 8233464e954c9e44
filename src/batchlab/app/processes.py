"""Commands that several processes run together under torchrun."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from batchlab import _tree
from batchlab._team import Team
from batchlab.advisor.session import Listener
from batchlab.errors import TaskError
from batchlab.tasks import Prepared

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


def check_same(team: Team, prepared: Prepared) -> None:
    """Processes that train together must mean the same by an example's number.

    Args:
        team: All of them call this.
        prepared: Each one's own task.

    Raises:
        TaskError: If tasks differ; DistributedDataParallel would not notice.
    """
    if team.size == 1:
        return
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
