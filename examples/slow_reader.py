"""Re-use of batches: handwritten digits from a reader that is slow and shifts every picture.

Each picture is shifted by a random pixel, so it is read again for every batch, and reading waits
half a millisecond, as a disk or a network would. Does it pay to make several updates on each
batch that has been fetched?

    batchlab compare examples/slow_reader.py:task --reuse 2 4
    batchlab advise examples/slow_reader.py:task --budget 2m

The same without waiting, with the reading time of your own training as a number, and with few
labelled examples:

    batchlab compare digits --reuse 4 --seconds-per-sample 0.002 --labels 150 300 600 --samples 4ep
"""

import dataclasses
import time

import torch
from torch import Tensor
from torch.utils.data import Dataset

from batchlab import Task, load

SECONDS = 0.0005
"""To read one picture."""


class Slow(Dataset[tuple[Tensor, Tensor]]):
    """Pictures [1, 8, 8] with their digits, each read slowly and shifted by up to a pixel."""

    def __init__(self, images: Tensor, digits: Tensor) -> None:
        self.images, self.digits = images, digits

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(SECONDS)
        down, right = torch.randint(-1, 2, (2,)).tolist()
        return self.images[index].roll((down, right), (1, 2)), self.digits[index]


def task() -> Task:
    """A part of the digits, with three passes of their recipe; validation data is not shifted."""
    digits = load("digits")
    images, labels = digits.train
    return dataclasses.replace(
        digits,
        train=Slow(images[:800], labels[:800]),
        validation=(images[800:], labels[800:]),
        test=None,
        baseline=digits.baseline.replace(samples="3ep"),
        name="slow_reader",
    )
