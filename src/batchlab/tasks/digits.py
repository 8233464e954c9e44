"""Handwritten digits that come with scikit-learn: 1,797 pictures of 8×8, a small CNN."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

from batchlab import _random
from batchlab.config import RunConfig
from batchlab.models.cnn import SmallCNN
from batchlab.tasks.task import Task
from batchlab.types import Tree


def digit_loss(outputs: Tensor, batch: Tree) -> Tensor:
    """Cross-entropy, one number per picture."""
    return cross_entropy(outputs, batch[1], reduction="none")


def task() -> Task:
    """The demonstration task: batch size 32, learning rate 0.05, momentum 0.9, 20 passes.

    Returns:
        Training, validation and 360 test pictures, split once.
    """
    data = load_digits()
    images = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(data.target).long()
    order = _random.permutation(len(labels), 0, 0)
    test, rest = order[:360], order[360:]
    return Task(
        SmallCNN,
        train=(images[rest], labels[rest]),
        test=(images[test], labels[test]),
        loss=digit_loss,
        metric="accuracy",
        unit="pictures",
        baseline=RunConfig(
            rule="shb", batch_size=32, learning_rate=0.05, momentum=0.9, samples="20ep"
        ),
        name="digits",
    )
