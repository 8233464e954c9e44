"""Small models with the traps of real ones, and their losses."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab.models.cnn import SmallCNN
from batchlab.models.mlp import MLP
from batchlab.models.rnn import GRUClassifier


class Twice(nn.Module):
    """One layer, used two times."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.inner(self.inner(x).tanh()))


class Tied(nn.Module):
    """A language model whose table is also its last layer's weight."""

    def __init__(self, padding=None):
        super().__init__()
        self.table = nn.Embedding(9, 4, padding_idx=padding)
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.table(tokens).tanh()).mean(1)


class Positions(nn.Module):
    """Tokens and places, the places without a batch axis."""

    def __init__(self):
        super().__init__()
        self.table, self.places = nn.Embedding(9, 32), nn.Embedding(5, 2)
        self.out = nn.Linear(32, 9)

    def forward(self, tokens):
        places = self.places(torch.arange(tokens.shape[1])).repeat(1, 16)
        return self.out(self.table(tokens) + places).mean(1)


class Normed(nn.Module):
    """Layer norm, group norm and in-place activations."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, groups=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True),
            nn.Flatten(), nn.Linear(36, 6), nn.LayerNorm(6), nn.ReLU(inplace=True),
            nn.Linear(6, 3),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


def features(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=generator), torch.arange(count) % 3


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 3


def words(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 9, (count, 5), generator=generator), torch.arange(count) % 9


def signals(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, 3, generator=generator), torch.arange(count) % 2


def loss_of(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


MODELS = {
    "mlp": (lambda: MLP(6, (5,), 3), features),
    "convolutions": (lambda: SmallCNN((3, 4), 3), pictures),
    "norms": (Normed, pictures),
    "twice": (Twice, features),
    "tied": (Tied, words),
    "padding": (lambda: Tied(padding=0), words),
}
"""Layers that have formulas, with data for them."""


def made(make, dtype=torch.float64):
    torch.manual_seed(0)
    return make().to(dtype)


def gru():
    return GRUClassifier(3, hidden=4)


def moved(batch, dtype=torch.float64):
    """The batch in the model's format."""
    x, y = batch
    return (x.to(dtype) if x.is_floating_point() else x), y
