"""A task that trains in milliseconds, with a recipe that can be improved."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab.config import RunConfig
from batchlab.tasks import Task


def data(count: int = 600, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    noise = 0.3 * torch.randn(count, generator=generator)
    return x, (x[:, 0] + 0.5 * x[:, 1] - x[:, 2] + noise > 0).long()


def loss(outputs, batch):
    return cross_entropy(outputs, batch[1], reduction="none")


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))


def task() -> Task:
    return Task(
        net,
        data(),
        test=data(200, seed=1),
        loss=loss,
        metric="accuracy",
        baseline=RunConfig(rule="sgd", batch_size=32, learning_rate=0.05, samples="3ep"),
        name="tiny",
    )
