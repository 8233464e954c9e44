"""A Lightning training as it may lie on your disk, and the lines that make a task of it.

Scikit-learn's handwritten digits, 8×8 pixels. Everything above `task` is plain Lightning; batchlab
reads model, data, optimizer, schedule, clipping, batch size and epochs from it.

    batchlab advise examples/lightning_task.py:task --budget 2m
"""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset, random_split

from batchlab import Task, lightning


class Pictures(L.LightningDataModule):
    """1,497 pictures to train on, 300 for every decision."""

    def setup(self, stage: str) -> None:
        """Read and split."""
        pixels, labels = load_digits(return_X_y=True)
        inputs = torch.tensor(pixels / 16, dtype=torch.float32)
        split = torch.Generator().manual_seed(0)
        whole = TensorDataset(inputs, torch.tensor(labels))
        self.train, self.held = random_split(whole, [1497, 300], split)

    def train_dataloader(self) -> DataLoader:
        """In a new order every epoch."""
        return DataLoader(self.train, batch_size=16, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """All of them."""
        return DataLoader(self.held, batch_size=300)


class Digits(L.LightningModule):
    """A small net, trained with AdamW and a cosine by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixels: Tensor) -> Tensor:
        """Ten scores a picture."""
        return self.net(pixels)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean cross-entropy."""
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> tuple[list, list]:
        """Biases are not decayed."""
        biases = [p for p in self.parameters() if p.ndim == 1]
        weights = [p for p in self.parameters() if p.ndim > 1]
        groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.05)
        return [optimizer], [CosineAnnealingLR(optimizer, T_max=10)]


def task() -> Task:
    """`Digits` itself, not `Digits()`: every seed then draws its own weights."""
    trainer = L.Trainer(max_epochs=10, gradient_clip_val=1.0, logger=False)
    return lightning.task(Digits, Pictures(), trainer, metric="accuracy")
