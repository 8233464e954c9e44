"""Try one micro-batch size in a process of its own: ``python -m batchlab.measure._trial FD``.

The child is started anew, never forked, is the first to be ended when memory runs out, and cannot
map much more than it may use. Its answers come back over a connection; its death is one too.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection

import cloudpickle
import torch
from jaxtyping import Int
from torch import Tensor

from batchlab import _platform, _random
from batchlab._finder import Outcome
from batchlab._meter import Meter, memory_or_crash, tried
from batchlab.config import RunConfig
from batchlab.errors import UserError
from batchlab.measure import plain
from batchlab.tasks import Prepared, Task, load, prepare
from batchlab.tasks.task import total_weight

GUARD_SHARE = 0.1
LEAST_GUARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Assignment:
    """What a child is asked to try.

    Attributes:
        task: The task, or the name it is found by.
        config: A resolved run.
        device: Where it trains.
        memory_limit: What the user allows, or None.
        threads: Threads of torch.
        parent: The parent's process id.
    """

    task: Task | str
    config: RunConfig
    device: str
    memory_limit: int | str | None
    threads: int
    parent: int


def run_two_steps(prepared: Prepared, config: RunConfig, train: Tensor, held: Tensor) -> None:
    """What training at this size holds at its worst, on a model of its own.

    One update, so that the optimizer has its state; then a second micro-batch while the gradients
    of the first are still there, as in accumulation; then the optimizer again; then evaluation.

    Args:
        prepared: The task.
        config: A resolved run.
        train: Training examples of the micro-batch, shape ``[B]``.
        held: Validation examples of the evaluation batch, shape ``[B]`` or shorter.
    """
    with _random.seeded(config.seed, "fit", len(train)):
        dtype = plain.DTYPES[config.precision]
        model = prepared.objective(config.seed, dtype, config.gamma).train()
        optimizer = plain.make_optimizer(model, config)
        batch = prepared.train.batch(train)
        total = 2 * total_weight(prepared.task, batch)
        for _ in range(2):
            plain.accumulate(model, batch, total, config.precision)
            plain.step(model, optimizer, 1.0, config.clip_norm)
        del batch
        model.eval()
        with torch.no_grad(), plain.in_precision(model, config.precision):
            model(plain.move(prepared.validation.batch(held), model), predict=True)


def longest_first(elements: Int[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Indices of the examples, the longest first. Where only some were looked at, the longest of
    them stands for each of the others: one of those may be as long.

    Args:
        elements: Of each example; 0 for one that was not looked at.

    Example:
        >>> longest_first(torch.tensor([0, 3, 0, 7])).tolist()
        [3, 1, 3, 3]
    """
    order = elements.argsort(descending=True, stable=True)
    known = int((elements > 0).sum())
    return torch.where(torch.arange(len(order)) < max(1, known), order, order[0])


class Trials:
    """A prepared task and a meter, if there is one: tries sizes in this process."""

    def __init__(self, prepared: Prepared, config: RunConfig, meter: Meter | None = None) -> None:
        self.prepared, self.config = prepared, config
        self.train = longest_first(prepared.train.elements())
        self.held = longest_first(prepared.validation.elements())
        self.meter = meter

    def __call__(self, size: int) -> Outcome:
        """Run a size and say what it took, or what ended it."""
        train, held = self.train[:size], self.held[:size]
        return tried(
            lambda: run_two_steps(self.prepared, self.config, train, held),
            self.meter,
            memory_or_crash,
        )


def main(descriptor: int) -> None:
    """Serve one parent: receive an assignment, then sizes, until the connection closes."""
    connection = Connection(descriptor)
    assignment: Assignment = cloudpickle.loads(connection.recv_bytes())
    _platform.die_with_parent(assignment.parent)
    _platform.be_first_killed()
    torch.set_num_threads(assignment.threads)
    try:
        task = assignment.task
        prepared = prepare(load(task) if isinstance(task, str) else task, device=assignment.device)
    except UserError as error:
        connection.send(str(error))
        return
    meter = Meter(prepared.device)
    trials = Trials(prepared, assignment.config, meter)
    limit = meter.limit(assignment.memory_limit)
    if limit.bytes and not meter.cuda:
        _platform.limit_data(limit.bytes + max(int(GUARD_SHARE * limit.bytes), LEAST_GUARD_BYTES))
    connection.send(limit)
    while True:
        try:
            size = connection.recv()
        except EOFError:
            return
        connection.send(trials(size))


if __name__ == "__main__":
    # What the user's code prints is no answer of ours.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    main(int(sys.argv[1]))
