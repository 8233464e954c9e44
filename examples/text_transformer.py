"""A small causal transformer with dropout, on the help texts that come with Python.

Shows what text needs: rows of different length, padded by `collate`; a batch that is a dictionary;
and a loss that counts tokens, not rows. A row's loss is the mean over its own tokens and `weight`
is how many they are, so short rows, short last batches and accumulated batches stay exact.

    batchlab advise examples/text_transformer.py:task --budget 5m
"""

import re
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from batchlab import Metric, RunConfig, Task
from batchlab.models.transformer import CausalTransformer

LONGEST = 64  # characters of a row
ALPHABET = " \n'\"`()[]{}<>=+-*/.,:;!?_#%@&|^~\\$0123456789abcdefghijklmnopqrstuvwxyz"
NUMBER = {letter: i for i, letter in enumerate(ALPHABET)}

Batch = dict[str, Tensor]


def rows() -> list[Batch]:
    """Sentences of the help texts, as numbers of their letters; at most 3,000."""
    text = re.sub(r"\s+", " ", " ".join(topics[name] for name in sorted(topics)).lower())
    sentences = [s[:LONGEST] for s in re.split(r"(?<=[.:;]) ", text) if len(s) >= 12]
    numbers = [[NUMBER[letter] for letter in s if letter in NUMBER] for s in sentences[:3000]]
    return [{"tokens": torch.tensor(row)} for row in numbers]


def collate(examples: list[Batch]) -> Batch:
    """Rows of different length → one block [B, longest], padded at the end, with a mask."""
    tokens = [example["tokens"] for example in examples]
    return {
        "tokens": pad_sequence(tokens, batch_first=True),
        "real": pad_sequence([torch.ones(len(row)) for row in tokens], batch_first=True),
    }


def model() -> nn.Module:
    """Your own nn.Module goes here."""
    return CausalTransformer(len(ALPHABET), LONGEST, width=32, heads=2, layers=2, dropout=0.1)


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """The batch is a dictionary: say which entry the model reads. Logits [B, steps, letters]."""
    return model(batch["tokens"][:, :-1])


def predicted(batch: Batch) -> Tensor:
    """How many tokens each row asks the model to predict: all but its first. Shape [B]."""
    return batch["real"][:, 1:].sum(1)


def loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy per token, averaged over each row's own tokens: one number per row."""
    each = cross_entropy(outputs.transpose(1, 2), batch["tokens"][:, 1:], reduction="none")
    return (each * batch["real"][:, 1:]).sum(1) / predicted(batch)


def task() -> Task:
    """Up to 3,000 rows; 15 % of them are split off for validation."""
    return Task(
        model,
        train=rows(),
        collate=collate,
        forward=forward,
        loss=loss,
        weight=predicted,
        metric=Metric("loss", None, maximise=False, unit="nats per token"),
        unit="rows",
        baseline=RunConfig(
            rule="adamw",
            batch_size=16,
            learning_rate=0.002,
            weight_decay=0.01,
            warmup=0.05,
            lr_schedule="cosine",
            clip_norm=1.0,
            samples="3ep",
        ),
        name="text_transformer",
    )
