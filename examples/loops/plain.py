"""A plain PyTorch loop that keeps its batch size on a machine of any size.

    python examples/loops/plain.py

The micro-batch that fits is found on the model itself and said in one sentence; the batch stays
256 by accumulation, and so does the mean over tokens. If memory runs out after all, the window in
hand is done again with half the micro-batch, and training goes on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from batchlab.accumulation import Accumulator
from batchlab.finding import find_batch_size

BATCH_SIZE, LENGTH, WORDS, PADDING = 256, 24, 12, 0


def sentences(count: int, seed: int = 0) -> Tensor:
    """Sequences that count upwards from a random word and stop at a random length."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(1, WORDS, (count, 1), generator=generator)
    length = torch.randint(2, LENGTH + 1, (count, 1), generator=generator)
    place = torch.arange(LENGTH)
    return ((first + place - 1) % (WORDS - 1) + 1).where(place < length, PADDING)


class NextWord(nn.Module):
    """A recurrent network that predicts each next word."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 32)
        self.gru = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        """Scores of every word at every place, shape ``[B, T, WORDS]``."""
        return self.head(self.gru(self.embed(words))[0])


def loss(model: nn.Module, batch: Any) -> Tensor:
    """The loss of each word."""
    (words,) = batch
    scores = model(words[:, :-1]).transpose(1, 2)
    return nn.functional.cross_entropy(scores, words[:, 1:], reduction="none")


def weight(batch: Any) -> Tensor:
    """1 for a word, 0 for padding: micro-batches of different numbers of words count as such."""
    return (batch[0][:, 1:] != PADDING).float()


def main() -> None:
    """Find what fits, then train."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = NextWord().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    data = TensorDataset(sentences(1000))  # the last batch of an epoch has 232 examples

    found = find_batch_size(
        model,
        optimizer,
        loss,
        data,
        weight=weight,
        global_batch_size=BATCH_SIZE,
        max_micro_batch_size=64,
    )
    accumulate = Accumulator(
        model, loss, weight=weight, micro_batch_size=found.micro_batch_size, recover=True
    )
    for epoch in range(6):
        for batch in DataLoader(data, batch_size=BATCH_SIZE, shuffle=True):
            optimizer.zero_grad()
            mean = accumulate(batch)
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {mean:.3f}")


if __name__ == "__main__":
    main()
