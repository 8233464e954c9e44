"""CIFAR-10: 50,000 photographs of 32×32 for training, 10,000 for testing."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from batchlab.config import RunConfig
from batchlab.models.resnet import cifar_resnet
from batchlab.tasks.images import (
    Normalise,
    PictureSet,
    picture_loss,
    read,
    read_cifar_batches,
)
from batchlab.tasks.task import Task

CIFAR10 = PictureSet(
    name="cifar10",
    shape=(3, 32, 32),
    folders=("cifar10", ".", "plain_text", "cifar10/plain_text", "cifar-10-batches-py"),
    raw=read_cifar_batches,
    fetch="hf download uoft-cs/cifar10 --repo-type dataset --local-dir cifar10",
)


def model() -> nn.Module:
    """A residual network of eight layers with batch norm, on normalised pixels."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return nn.Sequential(Normalise(mean, std), cifar_resnet(depth=8))


def task(data: Path | None = None) -> Task:
    """Batch size 128, learning rate 0.1 falling on a cosine, momentum 0.9, 15 passes.

    Args:
        data: Folder with the pictures, in any layout :mod:`batchlab.tasks.images` reads.

    Returns:
        Training and test pictures; 15 % of the former become validation data.

    Raises:
        TaskError: If the pictures are not there, with the line that fetches them.
    """
    return Task(
        model,
        train=read(CIFAR10, data, "train"),
        test=read(CIFAR10, data, "test"),
        loss=picture_loss,
        metric="accuracy",
        unit="pictures",
        baseline=RunConfig(
            rule="shb",
            batch_size=128,
            learning_rate=0.1,
            momentum=0.9,
            weight_decay=5e-4,
            lr_schedule="cosine",
            warmup=0.05,
            samples="15ep",
        ),
        name="cifar10",
    )
