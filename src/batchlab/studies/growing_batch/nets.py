"""The nets of the study, the arms in which they are trained, and the norm of their gradient."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, must
from batchlab.models.mlp import MLP
from batchlab.models.resnet import resnet18
from batchlab.schedules import BatchSchedule, batch_schedule
from batchlab.studies.claim import Parameters
from batchlab.studies.guide.asked import Asked
from batchlab.studies.guide.data import KINDS
from batchlab.studies.guide.training import FACTOR, samples
from batchlab.tasks import Objective, Prepared, Task, prepare
from batchlab.tasks.images import Normalise, picture_loss
from batchlab.tasks.task import weighted_sum

HIDDEN = 32
FIRST, MIDDLE, LAST = 8, 128, 512
PAPER_RATES = {"sgd": 0.1, "shb": 0.1, "nshb": 0.1, "adam": 1e-3, "adamw": 1e-3, "rmsprop": 1e-2}
"""The source's, the same for every arm."""
CENTRES = PAPER_RATES | {"sgd": 0.2, "shb": 0.02, "nshb": 0.2, "qhm": 0.2, "rmsprop": 3e-3}
"""Around which rates are searched at batch size 32; they follow the root of the batch size."""
DECAYS = {"step": "0:1 50%:0.1 75%:0.01", "cosine": "cosine", "inverse": "inverse_sqrt"}
GROWING = ("double", "quadruple", "late")
ARMS = (
    *("first", "middle", "last", "equal", *GROWING, "shrink"),
    *DECAYS,
    *(f"{name} equal" for name in DECAYS),
    "double cosine",
)
"""Constant 8, 128, 512, and the size with which a constant batch makes as many updates of as many
examples as doubling does; ×2, ×4, 8 until three quarters and then 512; 512 halved down to 8; 8
with a rate that decays, the equal size with such a rate, and doubling with one."""


class Normed(nn.Module):
    """x → relu(norm(Wx)) → Wx + b.

    Args:
        inputs: Features of a picture.
        outputs: Classes C.

    Example:
        >>> Normed(64, 10)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, outputs),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits."""
        return self.body(pictures)


def build(net: str, kind: str) -> nn.Module:
    """A net for pictures of a kind.

    Args:
        net: ``plain``, ``normed``, with batch norm, or ``resnet18``.
        kind: A name in :data:`batchlab.studies.guide.data.KINDS`.

    Raises:
        InvalidValueError: If the net is not known.
    """
    of = KINDS[kind]
    features = of.channels * of.side**2
    front = [] if of.normal is None else [Normalise(*of.normal)]
    makers = {
        "plain": lambda: MLP(features, (HIDDEN,), 10),
        "normed": lambda: Normed(features, 10),
        "resnet18": lambda: resnet18(in_channels=of.channels),
    }
    if net not in makers:
        raise InvalidValueError(must("net", f"one of {', '.join(makers)}", net))
    return nn.Sequential(*front, makers[net]())


def prepared(net: str, asked: Parameters, data: Path | None, device: str) -> Prepared:
    """A net with its data, split once.

    Args:
        net: See :func:`build`.
        asked: With ``pictures`` and ``examples``, those for training.
        data: Folder of pictures that do not come with scikit-learn.
        device: Where training runs.
    """
    kind, examples = str(asked["pictures"]), int(asked["examples"])
    task = KINDS[kind].task(data)
    x, y = (torch.cat(parts) for parts in zip(task.train, task.test, strict=True))
    made = Task(
        functools.partial(build, net, kind),
        train=(x[:examples], y[:examples]),
        validation=(x[examples:], y[examples:]),
        loss=picture_loss,
        metric="accuracy",
        unit="pictures",
        name=f"growing-{net}-{kind}",
    )
    return prepare(made, device=device)


def budget(asked: Parameters) -> int:
    """Examples of every training: whole batches of the largest size."""
    return samples(Asked(large=LAST, examples=int(asked["examples"])), float(asked["passes"]))


def schedule(sizes: Sequence[int], end: int) -> str:
    """Every size gets the same share of the examples.

    Example:
        >>> schedule([8, 16], 1000)
        '0:8 500:16'
    """
    return " ".join(f"{round(i * end / len(sizes))}:{size}" for i, size in enumerate(sizes))


def powers(factor: int) -> list[int]:
    """From the first to the last size.

    Example:
        >>> powers(4)
        [8, 32, 128, 512]
    """
    return [FIRST * factor**i for i in range(round(math.log(LAST / FIRST, factor)) + 1)]


def equal_size(end: int) -> int:
    """The smallest constant batch size that makes no more updates than doubling.

    Both see the same examples, so that they also take the same time where seconds an update are a
    constant and a part in proportion to the batch.

    Example:
        >>> equal_size(14336)
        29
    """
    return math.ceil(end / batch_schedule(schedule(powers(2), end)).count(0, end))


def planned(arm: str, rule: str, asked: Parameters) -> RunConfig:
    """The run of an arm, without rate and seed.

    Args:
        arm: One of :data:`ARMS`.
        rule: Update rule.
        asked: With ``examples``, ``passes`` and ``fault``.

    Example:
        >>> planned("late", "shb", {"examples": 1024, "passes": 2, "fault": "none"}).batch_size
        '0:8 1536:512'
    """
    end = budget(asked)
    name, _, rest = arm.partition(" ")
    sizes = {
        "first": str(FIRST),
        "middle": str(MIDDLE),
        "last": str(LAST),
        "equal": str(equal_size(end)),
        "double": schedule(powers(2), end),
        "quadruple": schedule(powers(4), end),
        "late": f"0:{FIRST} {round(0.75 * end)}:{LAST}",
        "shrink": schedule(powers(2)[::-1], end),
    }
    batches = sizes["equal"] if rest == "equal" else sizes.get(name, str(FIRST))
    rates = DECAYS.get(rest) or DECAYS.get(name, "constant")
    if asked["fault"] == "batch ignored":
        batches, rates = str(MIDDLE), "constant"
    return RunConfig(
        rule=rule,
        batch_size=batches,
        samples=end,
        lr_schedule=rates,
        weight_decay=0.01 if rule == "adamw" else 0.0,
    )


def first_rates(rule: str, run: RunConfig, count: int) -> list[float]:
    """The learning rates tried first, ascending by the factor 2.

    Example:
        >>> first_rates("adam", RunConfig(batch_size=32), 3)
        [0.0005, 0.001, 0.002]
    """
    assert run.batch_size is not None
    sizes = batch_schedule(run.batch_size).sizes
    mean = math.exp(sum(map(math.log, sizes)) / len(sizes))
    middle = CENTRES[rule] * math.sqrt(mean / 32)
    return [middle * FACTOR ** (i - (count - 1) // 2) for i in range(count)]


@dataclass(frozen=True)
class Norms:
    """The norm of the gradient of the mean training loss, honestly and as the source took it.

    ``norm.evaluation``: in evaluation mode, on all training examples. ``norm.training``: the mean
    of gradients of batches of the current size, in training mode; ``norm.small`` and
    ``norm.large``: the same at the first and the last size, at the same weights.

    Attributes:
        prepared: The task.
        batches: The run's batch sizes.
        fault: What is planted.
    """

    prepared: Prepared
    batches: BatchSchedule
    fault: str = "none"

    @property
    def name(self) -> str:
        """What this probe measures, in the plan."""
        return f"gradient norms {self.batches} {self.fault}"

    def __call__(self, objective: Objective, at: int) -> dict[str, float]:
        """All of them, of a private copy of the model."""
        objective.eval()
        loss, found = self._mean(objective, self.prepared.examples)
        told = {"norm.loss": loss, "norm.evaluation": found}
        objective.train(self.fault != "evaluation mode")
        sizes = {"training": self.batches.at(at), "small": FIRST, "large": LAST}
        known = {size: self._mean(objective, size)[1] for size in set(sizes.values())}
        return told | {f"norm.{name}": known[size] for name, size in sizes.items()}

    def _mean(self, objective: Objective, size: int) -> tuple[float, float]:
        """Mean loss, and norm of the mean gradient, over whole batches of a size."""
        params = [p for p in objective.parameters() if p.requires_grad]
        count = self.prepared.examples // size
        total, mean = 0.0, [torch.zeros_like(p) for p in params]
        for i in range(count):
            batch = self.prepared.train.batch(torch.arange(i * size, (i + 1) * size))
            loss, weight = weighted_sum(*objective(batch))
            for kept, g in zip(mean, torch.autograd.grad(loss / weight, params), strict=True):
                kept += g / count
            total += float((loss / weight).detach()) / count
        return total, float(torch.stack([g.norm() for g in mean]).norm())
