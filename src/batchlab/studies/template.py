"""``batchlab study new FILE``: a study with one claim that runs as it is."""

from __future__ import annotations

from pathlib import Path

from batchlab.tasks.template import write_new

TEXT = '''"""A study of your own: one claim, measured. Run it: batchlab study {file}"""

import math

import torch
from sklearn.datasets import load_digits

from batchlab.studies import Axis, Cell, Claim, Picture, Study, Text, points


def cells(parameters):
    """What is measured. Cells run beside one another, and a finished one is never run again."""
    return tuple(
        Cell(
            "ends",
            {"side": side, "batch_size": parameters[side], "seeds": parameters["seeds"]},
            seconds=3.0,
        )
        for side in ("small", "large")
    )


def measure(cell, bench):
    """One row a repetition. Nothing but the cell and `bench` may decide what comes out."""
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    rows = []
    for repetition in range(cell.settings["seeds"]):
        torch.manual_seed(1000 * bench.seed + repetition)
        model = torch.nn.Linear(64, 10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        size = cell.settings["batch_size"]
        for i in torch.randint(len(x), (2048 // size, size)):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[i]), y[i]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model(x), y)
        rows.append({"seed": repetition, "loss": float(loss)})
    return rows


def gaps(tables):
    """One number a repetition: by how much the large batch is worse, on equal examples."""
    ends = tables["ends"].pivot("side", index="seed", values="loss").sort("seed")
    return (ends["large"] - ends["small"]).to_numpy()


def picture(tables):
    """Points with their intervals."""
    return Picture(
        title=Text("The loss against the batch size.", "バッチサイズと損失。"),
        x=Axis(Text("batch size (examples)", "バッチサイズ（件）"), log=True, base=2),
        y=Axis(Text("loss", "損失")),
        points=points(tables["ends"], x="batch_size", y="loss"),
        series={"measured": Text("measured", "測定値")},
        caption=Text("Mean of the repetitions, 99 % range.", "繰り返しの平均と99%の範囲。"),
    )


def claims(parameters):
    """What is predicted, fixed before the first run."""
    return (
        Claim(
            id="small-is-ahead",
            sentence=Text(
                "On equal examples and at the same learning rate, the small batch is ahead.",
                "同じデータ量・同じ学習率では、小さいバッチのほうが先に進みます。",
            ),
            source="the claim of your source, with its equation or figure",
            measured=Text("loss, large batch − small batch", "損失の差（大−小）"),
            low=0.0,
            high=math.inf,
            n=parameters["seeds"],
            values=gaps,
            picture=picture,
            meaning=Text(
                "Before you enlarge the batch, raise the learning rate with it.",
                "バッチを大きくするときは、学習率も合わせて上げてください。",
            ),
            expected=0.5,
            spread=0.1,
            twin={"small": 256, "large": 16},  # turned round, it must fail
        ),
    )


STUDY = Study(
    name="{stem}",
    title=Text("small against large batches", "小さいバッチと大きいバッチの比較"),
    citations=(),
    parameters={
        "quick": {"small": 16, "large": 256, "seeds": 8},
        "full": {"small": 16, "large": 256, "seeds": 32},
        "paper": {"small": 16, "large": 256, "seeds": 100},
    },
    cells=cells,
    measure=measure,
    claims=claims,
    minutes={"quick": 1, "full": 1},
)
'''


def write(path: Path) -> Path:
    """Write the skeleton.

    Args:
        path: A ``.py`` file that does not exist yet, in a folder that does.

    Returns:
        The file written.

    Raises:
        InvalidValueError: If it cannot be; nothing is overwritten.
    """
    return write_new(path, TEXT.replace("{file}", path.name).replace("{stem}", path.stem))
