"""A model that cannot be trained in a stack: how often its layer runs depends on the data.

batchlab trains many runs at once as one program where it can. This model asks a tensor for a
number (`.item()`) to decide whether to go on, which no such program can answer for all runs
together. batchlab notices, says so in the plan, and trains one run after the other. Nothing has
to be declared.

    batchlab advise examples/not_stackable.py:task --budget 2m
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from batchlab import RunConfig, Task


class SettlingLayer(nn.Module):
    """State z = tanh(Wz + Ux + b), found by repeating it until z stops moving."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.inject = nn.Linear(inputs, hidden)
        self.repeat = nn.Linear(hidden, hidden, bias=False)
        nn.init.normal_(self.repeat.weight, std=0.4 / math.sqrt(hidden))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] → [B, hidden]."""
        injected = self.inject(x)
        state = torch.tanh(injected)
        for _ in range(12):
            before, state = state, torch.tanh(self.repeat(state) + injected)
            if (state - before).abs().max().item() < 1e-3:
                break
        return state


def model() -> nn.Module:
    """A layer that settles, then a linear one."""
    return nn.Sequential(SettlingLayer(2, 48), nn.Linear(48, 3))


def spirals(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points [N, 2] on three spirals and the spiral [N] of each."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    radius = torch.rand(count, generator=generator).sqrt()
    angle = 2 * math.pi * (labels / 3 + 0.6 * radius)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return 2 * points + 0.15 * torch.randn(count, 2, generator=generator), labels


def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy, one number per point."""
    return cross_entropy(outputs, batch[1], reduction="none")


def task() -> Task:
    """1,500 points to train on, 1,000 for every decision."""
    return Task(
        model,
        train=spirals(1500, seed=0),
        validation=spirals(1000, seed=1),
        loss=loss,
        metric="accuracy",
        unit="points",
        baseline=RunConfig(
            rule="shb", batch_size=16, learning_rate=0.01, momentum=0.9, samples="12ep"
        ),
        name="not_stackable",
    )
