"""A GRU that listens to a machine: healthy, or one of three faults, from generated vibration.

Each signal is 256 samples of an accelerometer. A damaged bearing rings at every passage of the
damage: at the outer race 3.6 times a turn, at the inner race 5.4 times, where the load makes it
louder once a turn; an imbalance is a strong hum at the speed of the shaft. Speed, loudness and
phase differ from signal to signal, so that no single sample gives the answer.

    batchlab advise examples/vibration_gru.py:task --budget 5m
"""

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from batchlab import RunConfig, Task
from batchlab.models.rnn import GRUClassifier

CLASSES = ("healthy", "imbalance", "outer race", "inner race")
SAMPLES = 256
FRAME = 8  # samples that the GRU reads in one step


def ringing(turn: np.ndarray, speed: np.ndarray, passages: float, pitch: float) -> np.ndarray:
    """A resonance, struck at every passage of the damage and dying away. Shape [N, samples]."""
    since = np.mod(turn * passages, 1.0) / (speed * passages)  # samples since the last passage
    return 2 * np.exp(-since / 5) * np.sin(2 * np.pi * pitch * since)


def signals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Signals [N, frames, samples in a frame] and their classes [N]."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(CLASSES), size=count)
    one = (count, 1)  # one number per signal
    speed = random.uniform(0.012, 0.02, one)  # turns of the shaft per sample
    turn = np.arange(SAMPLES) * speed + random.uniform(size=one)
    loud = random.uniform(0.5, 1.5, one)
    hum = 0.4 * np.sin(2 * np.pi * turn)
    load = 1 + 0.9 * np.cos(2 * np.pi * turn)
    fault = (
        np.zeros_like(turn),
        loud * np.sin(2 * np.pi * turn),
        loud * ringing(turn, speed, passages=3.6, pitch=0.14),
        loud * ringing(turn, speed, passages=5.4, pitch=0.2) * load,
    )
    vibration = hum + np.stack(fault)[labels, np.arange(count)]
    vibration += random.normal(scale=0.4, size=vibration.shape)
    return vibration.astype(np.float32).reshape(count, -1, FRAME), labels


def model() -> GRUClassifier:
    """Your own nn.Module goes here."""
    return GRUClassifier(inputs=FRAME, hidden=32, classes=len(CLASSES))


def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy, one number per signal."""
    return cross_entropy(outputs, batch[1], reduction="none")


def task() -> Task:
    """2,000 signals to train on, 1,000 for every decision, 1,000 to look at once."""
    return Task(
        model,
        train=signals(2000, seed=0),
        validation=signals(1000, seed=1),
        test=signals(1000, seed=2),
        loss=loss,
        metric="accuracy",
        unit="signals",
        baseline=RunConfig(
            rule="adam",
            batch_size=32,
            learning_rate=0.001,
            clip_norm=1.0,
            lr_schedule="cosine",
            samples="12ep",
        ),
        name="vibration_gru",
    )
