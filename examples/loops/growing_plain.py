"""A plain PyTorch loop whose batch grows, in eight lines.

    python examples/loops/growing_plain.py

Small batches first, larger ones later, as the gradient noise asks for; no more than 64 examples
have to fit into memory. The examples and their order are the same for every schedule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab.accumulation import Accumulator
from batchlab.data import GrowingBatchSampler
from batchlab.optim import NSHB


def circles(count: int) -> TensorDataset:
    """Points inside and outside of a circle."""
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.square().sum(1) < 1.4).long())


def loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss of each example."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def main() -> None:
    """Train six epochs."""
    torch.manual_seed(0)
    data = circles(1000)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = NSHB(model.parameters(), lr=0.5, momentum=0.9)
    # The eight lines.
    sampler = GrowingBatchSampler(data, "0:8 2ep:32 4ep:256", seed=0)
    loader = DataLoader(data, batch_sampler=sampler)
    accumulate = Accumulator(model, loss, micro_batch_size=64)
    for epoch in range(6):
        for batch in loader:
            optimizer.zero_grad()
            mean = accumulate(batch)
            optimizer.step()
        print(f"epoch {epoch + 1}: {len(loader)} updates, loss {mean:.3f}")


if __name__ == "__main__":
    main()
