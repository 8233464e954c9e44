"""Visual inspection: find scratches, pits and stains on a surface; 3 in 100 parts have one.

Accuracy is useless here: calling every part good is right 97 times in 100. What counts is
*escapes at 2 % false alarms*: set the alarm so that it stops 2 in 100 good parts; which share of
the defective ones slips through? The pictures are generated, grey, 32×32.

    batchlab advise examples/defects.py:task --budget 5m
    python examples/defects.py                              # train once, print the table
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from batchlab import Metric, RunConfig, Task

KINDS = ("good", "scratch", "pit", "stain")
DEFECTIVE = 0.03
FALSE_ALARMS = 0.02
SIZE = 32

Batch = tuple[Tensor, Tensor]


# --- the pictures: every function returns [N, 32, 32], about 0 = the plain surface ---


def surface(count: int, random: np.random.Generator) -> np.ndarray:
    """Brushed metal: noise that is long along the brushing, uneven light, noise of the camera."""
    along, across = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    filter_ = np.exp(-((along / 0.04) ** 2) - (across / 0.3) ** 2).astype(np.float32)
    noise = random.standard_normal((count, SIZE, SIZE), dtype=np.float32)
    brushed = np.fft.irfft2(np.fft.rfft2(noise) * filter_, s=(SIZE, SIZE))
    brushed *= 0.11 / brushed.std()
    y, x = grid()
    slope = random.normal(scale=0.08, size=(2, count, 1, 1))
    camera = random.standard_normal((count, SIZE, SIZE), dtype=np.float32)
    return brushed + slope[0] * x + slope[1] * y + 0.05 * camera


def grid() -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each pixel, −1 … 1."""
    axis = np.linspace(-1, 1, SIZE)
    return axis[:, None], axis[None]


def turned(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel in the axes of a defect: a random place, a random direction. In pixels."""
    y, x = grid()
    angle = random.uniform(0, np.pi, (count, 1, 1))
    dx, dy = ((g - random.uniform(-0.7, 0.7, (count, 1, 1))) * SIZE / 2 for g in (x, y))
    return dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)


def strength(count: int, low: float, high: float, random: np.random.Generator) -> np.ndarray:
    """How clearly a defect shows; some hardly do."""
    return random.uniform(low, high, (count, 1, 1))


def scratch(count: int, random: np.random.Generator) -> np.ndarray:
    """A thin line, slightly bent, brighter or darker than its surroundings."""
    u, v = turned(count, random)
    bent = v - random.normal(scale=0.02, size=(count, 1, 1)) * u**2
    length = random.uniform(5, 11, (count, 1, 1))
    shape = np.exp(-((bent / 0.8) ** 2)) * (np.abs(u) < length)
    return random.choice([-1, 1], (count, 1, 1)) * strength(count, 0.15, 0.5, random) * shape


def pit(count: int, random: np.random.Generator) -> np.ndarray:
    """A small dark hole with a bright rim on the side of the light."""
    u, v = turned(count, random)
    radius = random.uniform(1.2, 2.4, (count, 1, 1))
    hole = np.exp(-((u**2 + v**2) / radius**2))
    rim = np.exp(-(((u - 1.5 * radius) ** 2 + v**2) / radius**2))
    return strength(count, 0.25, 0.7, random) * (0.6 * rim - hole)


def stain(count: int, random: np.random.Generator) -> np.ndarray:
    """A large, faint, dark patch with a soft edge."""
    u, v = turned(count, random)
    width, height = random.uniform(4, 8, (2, count, 1, 1))
    shape = 1 / (1 + np.exp(6 * ((u / width) ** 2 + (v / height) ** 2 - 1)))
    return -strength(count, 0.12, 0.4, random) * shape


def parts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 1, 32, 32] and the kind [N] of each: 97 % good, 1 % of each defect."""
    random = np.random.default_rng(seed)
    each = round(count * DEFECTIVE / 3)
    kinds = np.zeros(count, dtype=np.int64)
    grey = surface(count, random)
    for kind, make in enumerate((scratch, pit, stain), start=1):
        place = slice((kind - 1) * each, kind * each)
        kinds[place] = kind
        grey[place] += make(each, random)
    pixels = np.clip(128 + 200 * grey, 0, 255).astype(np.uint8)
    order = random.permutation(count)
    return torch.from_numpy(pixels[order, None]), torch.from_numpy(kinds[order])


# --- the task ---


class Inspector(nn.Module):
    """Three convolutions, the strongest response anywhere, one number: how defective it looks."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
        )
        self.judge = nn.Linear(32, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 1, 32, 32], 0 … 255 → [B], a log odds."""
        grey = (pixels.to(self.judge.weight.dtype) - 128) / 50
        return self.judge(self.look(grey).amax((2, 3))).squeeze(1)


def loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Good against defective, of whatever kind; a defective part counts tenfold. Shape [B]."""
    defective = (batch[1] > 0).to(outputs.dtype)
    return binary_cross_entropy_with_logits(
        outputs, defective, reduction="none", pos_weight=outputs.new_tensor(10.0)
    )


def stopped(outputs: Tensor, batch: Batch) -> Tensor:
    """Which parts are stopped when the alarm is set to stop 2 % of the good ones. Shape [N]."""
    alarm = outputs[batch[1] == 0].double().quantile(1 - FALSE_ALARMS)
    return outputs > alarm


def escapes(outputs: Tensor, batch: Batch) -> float:
    """Share of the defective parts that slip through."""
    return float((~stopped(outputs, batch))[batch[1] > 0].double().mean())


def per_class_table(outputs: Tensor, batch: Batch) -> list[tuple[str, int, float]]:
    """(kind, parts, share stopped) for each kind; for `good`, the false alarms."""
    stop = stopped(outputs, batch).double()
    masks = [(kind, batch[1] == number) for number, kind in enumerate(KINDS)]
    return [(kind, int(mask.sum()), float(stop[mask].mean())) for kind, mask in masks]


def task() -> Task:
    """6,000 parts to train on; 8,000 (240 defective) for decisions, 8,000 to look at once."""
    return Task(
        Inspector,
        train=parts(6000, seed=0),
        validation=parts(8000, seed=1),
        test=parts(8000, seed=2),
        loss=loss,
        metric=Metric("escapes at 2 % false alarms", escapes, maximise=False, unit="%"),
        unit="parts",
        baseline=RunConfig(
            rule="shb",
            batch_size=32,
            learning_rate=0.01,
            momentum=0.9,
            lr_schedule="cosine",
            samples="12ep",
        ),
        name="defects",
    )


def main() -> None:
    """Train the recipe of today in the plainest loop, and print the table."""
    torch.manual_seed(0)
    model = Inspector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    steps = 12 * 6000 // 32
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    pixels, kinds = parts(6000, seed=0)
    order = torch.cat([torch.randperm(6000) for _ in range(12)])
    for index in order.view(steps, 32):
        batch = pixels[index], kinds[index]
        optimizer.zero_grad()
        loss(model(batch[0]), batch).mean().backward()
        optimizer.step()
        rate.step()
    held_out = parts(8000, seed=1)
    with torch.no_grad():
        outputs = model(held_out[0])
    print(f"{100 * escapes(outputs, held_out):.1f} % escape at 2 % false alarms")
    for kind, count, share in per_class_table(outputs, held_out):
        print(f"{kind:8} {count:5} parts, {100 * share:5.1f} % stopped")


if __name__ == "__main__":
    main()
