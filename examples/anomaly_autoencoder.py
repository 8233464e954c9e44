"""Anomaly detection: an autoencoder that has seen good parts only, judged by what escapes it.

Where defects are too rare or too varied to be collected, learn what a good part looks like, and
stop what cannot be reconstructed. The pictures and their defects are those of `defects.py`; the
training data hold no defect at all. A part's score is the largest error of reconstruction in any
5×5 window, because a scratch is small. Judged by the area under the ROC curve: how often a
defective part scores above a good one. The table adds escapes at 2 % false alarms.

    batchlab advise examples/anomaly_autoencoder.py:task --budget 5m
    python examples/anomaly_autoencoder.py                  # train once, print the table
"""

import torch
from defects import escapes, parts, per_class_table
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from batchlab import Metric, RunConfig, Task

UNITS = 64
WINDOW = 5
LEARNING_RATE, MOMENTUM, BATCH_SIZE, EPOCHS = 0.1, 0.9, 32, 12

Batch = tuple[Tensor, Tensor]


def good_parts(count: int, seed: int) -> Batch:
    """Pictures [N, 1, 32, 32] without any defect, and their kind, 0 [N]."""
    pictures, kinds = parts(count + count // 16, seed)
    good = kinds == 0
    return pictures[good][:count], kinds[good][:count]


def grey(pictures: Tensor, like: Tensor) -> Tensor:
    """0 … 255 → about 0 for the plain surface, in the format of the model."""
    return (pictures.to(like.dtype) - 128) / 50


class Autoencoder(nn.Module):
    """1,024 pixels through 64 units and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, UNITS), nn.ReLU())
        self.decode = nn.Linear(UNITS, 32 * 32)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 1, 32, 32], 0 … 255 → the error of each pixel [B, 1, 32, 32]."""
        wanted = grey(pictures, self.decode.weight)
        return self.decode(self.encode(wanted)).view_as(wanted) - wanted


def loss(errors: Tensor, batch: Batch) -> Tensor:
    """Mean squared error of reconstruction. Shape [B]."""
    return errors.square().mean((1, 2, 3))


def weight(batch: Batch) -> Tensor:
    """Only good parts count in a loss; the validation data hold defective ones too. Shape [B]."""
    return (batch[1] == 0).float()


def scores(errors: Tensor) -> Tensor:
    """How defective a part looks: its worst window. Shape [N]."""
    return avg_pool2d(errors.square(), WINDOW, stride=1).amax((1, 2, 3))


def auroc(errors: Tensor, batch: Batch) -> float:
    """P(a defective part scores above a good one), ties counted half: Mann and Whitney's U."""
    found = scores(errors).double()
    good, bad = found[batch[1] == 0].sort().values, found[batch[1] > 0]
    below = torch.searchsorted(good, bad, side="left")
    not_above = torch.searchsorted(good, bad, side="right")
    return float((below + not_above).double().mean()) / (2 * len(good))


def task() -> Task:
    """6,000 good parts to train on; 4,000 (120 defective) for decisions, 4,000 to look at once."""
    return Task(
        Autoencoder,
        train=good_parts(6000, seed=0),
        validation=parts(4000, seed=1),
        test=parts(4000, seed=2),
        loss=loss,
        weight=weight,
        metric=Metric("area under the ROC curve", auroc, maximise=True),
        unit="parts",
        baseline=RunConfig(
            rule="shb",
            batch_size=BATCH_SIZE,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            samples=f"{EPOCHS}ep",
        ),
        name="anomaly_autoencoder",
    )


def main() -> None:
    """Train the recipe of today in the plainest loop, and print the table."""
    torch.manual_seed(0)
    model = Autoencoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    pictures, kinds = good_parts(6000, seed=0)
    for _ in range(EPOCHS):
        for index in torch.randperm(len(pictures)).split(BATCH_SIZE):
            optimizer.zero_grad()
            loss(model(pictures[index]), (pictures[index], kinds[index])).mean().backward()
            optimizer.step()
    held_out = parts(4000, seed=1)
    with torch.no_grad():
        errors = model(held_out[0])
    found = scores(errors)
    print(f"area under the ROC curve: {auroc(errors, held_out):.3f}")
    print(f"{100 * escapes(found, held_out):.1f} % escape at 2 % false alarms")
    for kind, count, share in per_class_table(found, held_out):
        print(f"{kind:8} {count:5} parts, {100 * share:5.1f} % stopped")


if __name__ == "__main__":
    main()
