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
    """The demonstration task.

    Its recipe: batch size 32, 20 passes, and the learning rate 0.01 and momentum 0.9 of the
    example in PyTorch's documentation of SGD.

    Returns:
        Training, validation and 360 test pictures, split once.
    """
    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    labels = torch.from_numpy(digits).long()
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
            rule="shb", batch_size=32, learning_rate=0.01, momentum=0.9, samples="20ep"
        ),
        name="digits",
    )
