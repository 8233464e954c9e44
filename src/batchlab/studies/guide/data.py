"""The data of the study and the nets that learn from them, as tasks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from batchlab.errors import InvalidValueError, TaskError, must
from batchlab.models.cnn import SmallCNN, ThreeConvCNN
from batchlab.models.mlp import MLP
from batchlab.models.rnn import GRUClassifier
from batchlab.studies.claim import Bench
from batchlab.tasks import Prepared, Task, cifar10, digits, mnist, prepare
from batchlab.tasks.altered import wrong_targets
from batchlab.tasks.images import Normalise, picture_loss

Examples: TypeAlias = tuple[Tensor, Tensor]
"""Pictures ``[N, channels, S, S]`` and classes ``[N]``."""

SIDE = 8
"""Of the digits, and of the signals folded into as many rows."""
HIDDEN = 64
CHANNELS = {"cnn": (8, 16), "thin": (4, 8), "wide": (128, 4)}
"""Of the convolutional nets for 8×8."""
LARGE_CHANNELS = {"cnn": (16, 32, 64), "thin": (8, 16, 32), "wide": (32, 4, 4)}
"""Of those for larger pictures."""
MOST_TOGETHER = 1024
"""Largest batch that is timed or weighed: of MNIST, 50,000 at once would hold gigabytes."""
UPDATE_SECONDS = {"mlp": 2e-4, "cnn": 1e-3, "thin": 1e-3, "wide": 1e-3, "gru": 1.5e-3}
"""What an update of one run takes besides its examples: dense nets train many at a time."""
FLOP_PER_SECOND = 5e9
"""One core in training, evaluation included; of small convolutions a half, of products twice."""
SIGNAL_SEED = 8
SIGNALS = 4
"""Kinds of signals."""


@dataclass(frozen=True)
class Pictures:
    """A picture set that can be asked for by name.

    Attributes:
        task: Folder → the built-in task, whose pictures are taken.
        channels: 1 for grey, 3 for colour.
        side: Height and width.
        normal: Mean and standard deviation of each channel of bytes, or nothing for floats.
    """

    task: Callable[[Path | None], Task]
    channels: int
    side: int
    normal: tuple[tuple[float, ...], tuple[float, ...]] | None = None


KINDS = {
    "digits": Pictures(lambda data: digits.task(), 1, SIDE),
    "mnist": Pictures(mnist.task, 1, 28, ((0.1307,), (0.3081,))),
    "cifar10": Pictures(cifar10.task, 3, 32, ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))),
}


class RowGRU(nn.Module):
    """A GRU that reads a picture row by row, or a signal piece by piece.

    Args:
        channels: Of the picture.
        side: Rows, and columns.
        hidden: Hidden units.
        classes: Outputs C.

    Example:
        >>> RowGRU(1, 8, 16, 10)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """

    def __init__(self, channels: int, side: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.body = GRUClassifier(channels * side, hidden, classes)

    def forward(self, pictures: Float[Tensor, "B channels S S"]) -> Float[Tensor, "B C"]:
        """Logits; one step is one row of all channels."""
        return self.body(pictures.transpose(1, 2).flatten(2))


def build(net: str, kind: str, classes: int = 10) -> nn.Module:
    """A net for pictures of a kind; floating-point data of 8×8 are taken as they are.

    Args:
        net: ``mlp``, ``gru``, or convolutional: ``cnn``, ``thin`` with fewer channels, ``wide``
            with much to hold in memory for what it computes.
        kind: A name in :data:`KINDS`, or ``signals``, which are as large as digits.
        classes: Outputs C.

    Raises:
        InvalidValueError: If the net is not known.

    Example:
        >>> build("mlp", "digits")(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
    """
    of = _kind(kind)
    front = [] if of.normal is None else [Normalise(*of.normal)]
    if net == "gru":
        body: nn.Module = RowGRU(of.channels, of.side, HIDDEN // 2, classes)
    elif net == "mlp":
        body = MLP(of.channels * of.side**2, (HIDDEN, HIDDEN), classes)
    elif net not in CHANNELS:
        raise InvalidValueError(must("net", "mlp, gru, cnn, thin or wide", net))
    elif of.side == SIDE:
        body = SmallCNN(CHANNELS[net], classes)
    else:
        body = ThreeConvCNN(of.channels, of.side, LARGE_CHANNELS[net], classes)
    return nn.Sequential(*front, body)


def _kind(kind: str) -> Pictures:
    """What the input looks like; signals are as large as digits."""
    return KINDS["digits" if kind == "signals" else kind]


@functools.lru_cache
def flop(net: str, kind: str) -> float:
    """Operations of training on one example: three times those of a forward pass.

    Args:
        net: See :func:`build`.
        kind: See :func:`build`.

    Example:
        >>> flop("mlp", "digits") == 3 * 2 * (64 * 64 + 64 * 64 + 64 * 10)
        True
    """
    of = _kind(kind)
    dtype = torch.float32 if of.normal is None else torch.uint8
    example = torch.zeros(1, of.channels, of.side, of.side, dtype=dtype)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        build(net, kind)(example)
    return 3.0 * counted.get_total_flops()


def seconds(net: str, kind: str, updates: float, examples: float) -> float:
    """Of one training on one core, roughly.

    Args:
        net: See :func:`build`.
        kind: See :func:`build`.
        updates: How many.
        examples: In all of them together.
    """
    return UPDATE_SECONDS[net] * updates + flop(net, kind) * examples / FLOP_PER_SECOND


def prepared(
    net: str,
    kind: str,
    examples: int,
    bench: Bench,
    *,
    held: int,
    wrong: float = 0.0,
) -> Prepared:
    """A net with its data, split once: the repetitions of the study differ in their seed only.

    Args:
        net: See :func:`build`.
        kind: See :func:`build`.
        examples: Training examples; of the others some are held back for validation.
        bench: Where training runs, and the folder of pictures that do not come with scikit-learn.
        held: Examples that are held back, at most.
        wrong: Share of the training labels that is wrong.
    """
    if kind not in (*KINDS, "signals"):
        raise InvalidValueError(must("pictures", f"one of {', '.join(KINDS)}", kind))
    x, y = signals(2 * examples) if kind == "signals" else _pictures(kind, bench.data)
    if not 0 < examples < len(x):
        raise InvalidValueError(must("examples", f"from 1 to {len(x) - 1}", examples))
    labels = wrong_targets(y[:examples], wrong, seed=0)
    kept = slice(examples, examples + held)
    task = Task(
        functools.partial(build, net, kind, int(y.max()) + 1),
        train=(x[:examples], labels),
        validation=(x[kept], y[kept]),
        loss=picture_loss,
        metric="accuracy",
        unit="signals" if kind == "signals" else "pictures",
        name=f"guide-{net}-{kind}",
    )
    return prepare(task, device=bench.device)


def lacking(kind: str, data: Path | None) -> str:
    """What is missing before a kind of pictures can be used, as a sentence; empty if nothing is.

    Example:
        >>> lacking("digits", None)
        ''
    """
    try:
        if kind in KINDS:
            KINDS[kind].task(data)
    except TaskError as error:
        return str(error)
    return ""


@functools.lru_cache(maxsize=1)
def _pictures(kind: str, data: Path | None) -> Examples:
    """All pictures, those for training first."""
    task = KINDS[kind].task(data)
    x, y = (torch.cat(parts) for parts in zip(task.train, task.test, strict=True))
    return x, y


@functools.lru_cache(maxsize=1)
def signals(count: int) -> Examples:
    """Vibration of a machine: healthy, out of balance, or struck slowly or fast; generated.

    Each is 64 samples, folded into 8 pieces of 8. Speed, loudness and phase differ from signal to
    signal, so that no single sample gives the answer.

    Args:
        count: How many.

    Returns:
        ``[N, 1, 8, 8]`` and classes ``[N]``.

    Example:
        >>> x, y = signals(10)
        >>> x.shape, len(y)
        (torch.Size([10, 1, 8, 8]), 10)
    """
    random = np.random.default_rng(SIGNAL_SEED)
    labels, one = random.integers(SIGNALS, size=count), (count, 1)
    speed = random.uniform(0.03, 0.05, one)  # turns per sample
    turn = np.arange(SIDE**2) * speed + random.uniform(size=one)
    hum = 0.4 * np.sin(2 * np.pi * turn)
    faults = (
        np.zeros_like(turn),
        np.sin(2 * np.pi * turn),
        _struck(turn, 1.7),
        _struck(turn, 3.1),
    )
    loud = random.uniform(0.7, 1.5, one)
    x = hum + loud * np.stack(faults)[labels, np.arange(count)]
    x += random.normal(scale=0.3, size=x.shape)
    return torch.from_numpy(x).float().view(-1, 1, SIDE, SIDE), torch.from_numpy(labels)


def _struck(turn: np.ndarray, strokes: float) -> np.ndarray:
    """A ringing that is struck so many times a turn and dies away. Shape [N, samples]."""
    since = np.mod(turn * strokes, 1.0)
    return 2 * np.exp(-4 * since) * np.sin(12 * since)
