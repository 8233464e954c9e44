"""A table of numbers: the power a pump draws, from eight readings of sensors.

The readings are generated. Power follows flow × pressure / efficiency, and efficiency falls off
beside the best point; two of the eight readings have nothing to do with it; the meter has noise.

    batchlab advise examples/tabular_regression.py:task --budget 2m
"""

import torch
from torch import Tensor

from batchlab import RunConfig, Task
from batchlab.models.mlp import MLP


def readings(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Eight readings [N, 8] and the power [N, 1], both scaled to about unit size."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 8, generator=generator)
    flow, pressure, wear, density, temperature, inlet, _, _ = x.unbind(1)
    efficiency = 0.75 - 0.9 * (flow - 0.6 - 0.2 * (pressure - 0.5)) ** 2 - 0.2 * wear * flow
    hydraulic = (0.2 + flow) * (0.3 + pressure) * (0.8 + 0.4 * density)
    power = hydraulic / efficiency + 0.3 * torch.sin(6 * temperature) * inlet
    noise = 0.1 * torch.randn(count, generator=generator)
    return (x - 0.5) / 0.29, ((power + noise - 1.5) / 0.9).unsqueeze(1)


def model() -> MLP:
    """Your own nn.Module goes here."""
    return MLP(inputs=8, hidden=(64, 64), outputs=1)


def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Squared error, one number per row."""
    return (outputs - batch[1]).square().mean(1)


def task() -> Task:
    """4,000 rows to train on, 2,000 for every decision, 2,000 to look at once."""
    return Task(
        model,
        train=readings(4000, seed=0),
        validation=readings(2000, seed=1),
        test=readings(2000, seed=2),
        loss=loss,
        metric="r2",
        unit="rows",
        baseline=RunConfig(
            rule="shb",
            batch_size=16,
            learning_rate=0.002,
            momentum=0.9,
            lr_schedule="cosine",
            samples="15ep",
        ),
        name="tabular_regression",
    )
