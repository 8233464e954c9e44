"""The task file that ``batchlab init`` writes."""

from __future__ import annotations

import json
from pathlib import Path

from batchlab.errors import InvalidValueError, must

TEMPLATE = '''"""A task for batchlab: your model, your data, your recipe. It runs as it stands.

Replace the four marked parts by your own, top to bottom, then ask:

    batchlab advise {name}:task
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from batchlab import RunConfig, Task


# 1. Your model. A function without arguments that builds it afresh: every repeat starts from
#    its own weights.
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 3))


# 2. Your data: tensors (or arrays) that start with the examples, or any torch Dataset with
#    __len__ and __getitem__. Here: three overlapping clouds of points, made up.
def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (3000,), generator=generator)
    centres = torch.randn(3, 20, generator=generator)
    inputs = centres[labels] + 1.5 * torch.randn(3000, 20, generator=generator)
    return inputs, labels


# 3. Your loss: ONE number per example, shape [B]. A batch looks like your data: here
#    (inputs, labels). `outputs` is what your model returned for batch[0].
def loss(outputs: torch.Tensor, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return cross_entropy(outputs, batch[1], reduction="none")


def task() -> Task:
    return Task(
        model,
        train=data(),
        # Data for every decision, and data looked at once, at the end. Without `validation`,
        # 15 % of `train` are split off, the same ones every time.
        # validation=(inputs, labels),
        # test=(inputs, labels),
        loss=loss,
        # What you judge by: "accuracy", "loss", "mse", "r2", or your own over ALL predictions:
        # batchlab.Metric("name", lambda outputs, batch: ..., maximise=True)
        metric="accuracy",
        # 4. Your recipe as it is today. What you leave out is assumed, and the report says so.
        baseline=RunConfig(
            rule="shb",  # SGD with momentum; also sgd, nshb, qhm, nesterov, adam, adamw, rmsprop
            batch_size=32,
            learning_rate=0.01,
            momentum=0.9,
            weight_decay=0.0,
            lr_schedule="constant",  # or "cosine", "linear(0.1)", "0:1 50%:0.1 75%:0.01"
            warmup=0.0,  # share of the training over which the rate rises from 0
            clip_norm=None,
            precision="float32",  # or "bfloat16"
            samples="10ep",  # how long you train: epochs, or examples such as "500k"
        ),
        # forward=lambda model, batch: model(batch["image"]),  # if it is not model(batch[0])
        # collate=...,            # list of examples -> batch, if they differ in shape
        # weight=lambda batch: batch["tokens_per_row"],  # if examples count differently
        unit="examples",  # what one example is called in the report
        name={stem},
    )
'''


def write_template(path: str | Path) -> Path:
    """Write a commented task file that runs as it stands.

    Args:
        path: A ``.py`` file that does not exist yet, in a folder that does.

    Returns:
        The file written.

    Raises:
        InvalidValueError: If the name does not end in ``.py``, the folder is not there, or the
            file is: nothing is overwritten.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     print(write_template(Path(folder) / "my_task.py").read_text()[:22])
        \"\"\"A task for batchlab
    """
    path = Path(path)
    return write_new(path, _filled(path))


def write_new(path: Path, text: str) -> Path:
    """Write a Python file that is not there yet.

    Args:
        path: A ``.py`` file that does not exist yet, in a folder that does.
        text: Its content.

    Returns:
        The file written.

    Raises:
        InvalidValueError: As for :func:`write_template`.
    """
    if path.suffix != ".py":
        raise InvalidValueError(must("file", "a file that ends in .py", str(path)))
    if not path.parent.is_dir():
        raise InvalidValueError(must("file", "in a folder that exists", str(path)))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        hint = "Nothing was overwritten."
        raise InvalidValueError(must("file", "a new file", str(path), hint)) from None
    return path


def _filled(path: Path) -> str:
    """The template with the file's own name in it."""
    quoted = json.dumps(path.stem, ensure_ascii=False)
    return TEMPLATE.replace("{name}", path.name).replace("{stem}", quoted)
