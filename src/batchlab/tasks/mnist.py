"""MNIST: 60,000 handwritten digits of 28×28 for training, 10,000 for testing."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from batchlab.config import RunConfig
from batchlab.models.cnn import ThreeConvCNN
from batchlab.tasks.images import Normalise, PictureSet, picture_loss, read, read_idx_pair
from batchlab.tasks.task import Task

MNIST = PictureSet(
    name="mnist",
    shape=(1, 28, 28),
    folders=("mnist", ".", "MNIST/raw", "raw"),
    raw=read_idx_pair,
    fetch="hf download ylecun/mnist --repo-type dataset --local-dir mnist",
)


def model() -> nn.Module:
    """Three convolutions on normalised pixels."""
    return nn.Sequential(Normalise((0.1307,), (0.3081,)), ThreeConvCNN())


def task(data: Path | None = None) -> Task:
    """Batch size 64, learning rate 0.05 falling on a cosine, momentum 0.9, 5 passes.

    Args:
        data: Folder with the pictures, in any layout :mod:`batchlab.tasks.images` reads.

    Returns:
        Training and test pictures; 15 % of the former become validation data.

    Raises:
        TaskError: If the pictures are not there, with the line that fetches them.
    """
    return Task(
        model,
        train=read(MNIST, data, "train"),
        test=read(MNIST, data, "test"),
        loss=picture_loss,
        metric="accuracy",
        unit="pictures",
        baseline=RunConfig(
            rule="shb",
            batch_size=64,
            learning_rate=0.05,
            momentum=0.9,
            lr_schedule="cosine",
            samples="5ep",
        ),
        name="mnist",
    )
