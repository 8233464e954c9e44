"""A Lightning training whose batch grows; the lines that are new are marked.

    python examples/loops/growing_lightning.py

Within an epoch the batch changes in the loader; above 64 examples, which are all that has to fit
into memory here, by accumulation, from the start of an epoch on. A training that is resumed from a
checkpoint goes on where it was.
"""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab.data import GrowingBatchSampler  # new
from batchlab.lightning import GrowingBatch  # new


def circles(count: int) -> TensorDataset:
    """Points inside and outside of a circle."""
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.square().sum(1) < 1.4).long())


class Net(L.LightningModule):
    """A small classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean cross-entropy."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        """Say how it goes."""
        loss = self.trainer.callback_metrics["loss"]
        print(
            f"epoch {self.current_epoch + 1}: {self.global_step} updates so far, loss {loss:.3f}"
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main() -> None:
    """Train six epochs."""
    L.seed_everything(0, verbose=False)
    data = circles(1000)
    sampler = GrowingBatchSampler(data, "0:8 1500:32 2ep:64 4ep:256", max_micro=64)  # new
    loader = DataLoader(data, batch_sampler=sampler)  # new
    trainer = L.Trainer(
        max_epochs=6,
        callbacks=[GrowingBatch(sampler)],  # new
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), loader)


if __name__ == "__main__":
    main()
