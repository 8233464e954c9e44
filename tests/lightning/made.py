"""Small modules, data and trainers of both Lightning packages."""

import lightning.pytorch
import pytorch_lightning
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

PACKAGES = {"lightning": lightning.pytorch, "pytorch_lightning": pytorch_lightning}
EXAMPLES, INPUTS, BATCH = 64, 5, 16


def points(examples=EXAMPLES, seed=0):
    """Two classes of points, not quite separable."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, INPUTS, generator=draw)
    noise = torch.randn(examples, generator=draw)
    return TensorDataset(inputs, (inputs.sum(1) + noise > 0).long())


def loaders(examples=EXAMPLES, **changes):
    """A training and a validation loader."""
    given = {"batch_size": BATCH, "shuffle": True} | changes
    return DataLoader(points(examples), **given), DataLoader(points(32, seed=1), batch_size=32)


def sgd(module):
    return torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)


def net():
    return nn.Sequential(nn.Linear(INPUTS, 6), nn.Tanh(), nn.Linear(6, 2))


def kind(package="lightning", configure=sgd, layers=net, **methods):
    """A LightningModule with these optimizers, layers and further methods."""
    base = PACKAGES[package].LightningModule

    class Net(base):
        def __init__(self):
            super().__init__()
            self.layers = layers()

        def forward(self, inputs):
            return self.layers(inputs)

        def training_step(self, batch, batch_idx):
            inputs, labels = batch
            loss = cross_entropy(self(inputs), labels)
            self.log("loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self):
            return configure(self)

    for name, method in methods.items():
        setattr(Net, name, method)
    return Net


def module(package="lightning", seed=0, **changes):
    """One of these, always with the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(package, **changes)()


def trainer(package="lightning", **changes):
    """A quiet trainer on the CPU."""
    quiet = {
        **{"logger": False, "enable_checkpointing": False, "enable_progress_bar": False},
        **{"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "max_epochs": 3},
    }
    return PACKAGES[package].Trainer(**(quiet | changes))
