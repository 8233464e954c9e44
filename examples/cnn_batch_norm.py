"""A convolutional net with batch norm, on the handwritten digits that scikit-learn brings.

Batch norm makes the examples of a batch depend on each other, so the batch size changes more than
the noise of the gradient. batchlab measures what that does instead of assuming it away.

    batchlab advise examples/cnn_batch_norm.py:task --budget 2m
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchlab import RunConfig, Task


def model() -> nn.Module:
    """Two convolutions with batch norm; the bias before a norm would be wasted."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy, one number per picture."""
    return cross_entropy(outputs, batch[1], reduction="none")


def task() -> Task:
    """1,437 pictures to train on, 360 to look at once, at the end."""
    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    labels = torch.from_numpy(digits).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:360], order[360:]
    return Task(
        model,
        train=(images[train], labels[train]),
        test=(images[test], labels[test]),
        loss=loss,
        metric="accuracy",
        unit="pictures",
        baseline=RunConfig(
            rule="shb",
            batch_size=16,
            learning_rate=0.003,
            momentum=0.9,
            weight_decay=1e-4,
            samples="8ep",
        ),
        name="cnn_batch_norm",
    )
