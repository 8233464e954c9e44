"""A plain PyTorch loop that makes four updates on each fetched batch, in eight lines.

    python examples/loops/reusing_plain.py

Where reading takes longer than an update, each batch serves for several. It is read once, and
augmented afresh each time; no more than 16 examples have to fit into memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab.accumulation import Accumulator
from batchlab.data import GrowingBatchSampler, ReusingLoader
from batchlab.optim import NSHB


def circles(count: int) -> TensorDataset:
    """Points inside and outside of a circle."""
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.square().sum(1) < 1.4).long())


def turned(batch: Any) -> Any:
    """Turned by a random angle, which leaves a circle as it is."""
    angle = 6.28 * torch.rand(())
    c, s = angle.cos(), angle.sin()
    return batch[0] @ torch.stack([c, -s, s, c]).view(2, 2), batch[1]


def loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss of each example."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def main() -> None:
    """Train six epochs."""
    torch.manual_seed(0)
    data = circles(1000)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = NSHB(model.parameters(), lr=0.2, momentum=0.9)
    # The eight lines.
    sampler = GrowingBatchSampler(data, 32, seed=0)
    batches = ReusingLoader(DataLoader(data, batch_sampler=sampler), reuse=4, augment=turned)
    accumulate = Accumulator(model, loss, micro_batch_size=16)
    for _ in range(6):
        for batch in batches:
            optimizer.zero_grad()
            mean = accumulate(batch)
            optimizer.step()
        print(f"{batches.updates} updates on {batches.samples} examples: loss {mean:.3f}")


if __name__ == "__main__":
    main()
