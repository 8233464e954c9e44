"""What the stages of an advice say about a residual network with batch norm on CIFAR-10.

A part of the pictures and fewer passes than the built-in task has, so that stage C ends within a
quarter of an hour on two cores. Printed are what stages A, B and C said, what each took, and how
far the saving that B projected for the setting that C examined was from what C found on fresh
seeds.

    python benchmarks/cifar10.py --data DIR --examples 2000 --epochs 5 --budget 15m --json FILE
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchlab.advisor.judge import Yardstick, projected
from batchlab.advisor.record import Advice
from batchlab.advisor.session import Silent
from batchlab.advisor.stages import Confirmation, Machine, Projection
from batchlab.app.advise import advise, again
from batchlab.tasks import Task, load
from batchlab.types import from_plain

STAGES = {"A": (), "B": ("projection",), "C": ("projection", "confirmation")}
"""Records beyond the screening that a stage's answer rests on."""


class Clock(Silent):
    """Notes when each stage was first heard of."""

    def __init__(self) -> None:
        self.began = {"A": time.perf_counter()}

    def progress(self, what: str, share: float) -> None:
        """A step of ``stage n of 3``."""
        letter = "ABC"[int(what.split()[1]) - 1]
        self.began.setdefault(letter, time.perf_counter())

    def seconds(self) -> dict[str, float]:
        """Stage → what it took."""
        ends = [*list(self.began.values())[1:], time.perf_counter()]
        return {k: end - self.began[k] for k, end in zip(self.began, ends, strict=True)}


def part_of_cifar10(data: str, examples: int, epochs: int) -> Task:
    """The built-in task on its first pictures, which lie in random order; a sixth is for
    validation.
    """
    task = load("cifar10", data)
    assert task.test is not None
    training = examples - examples // 6
    train = tuple(leaf[:training] for leaf in task.train)
    validation = tuple(leaf[training:examples] for leaf in task.train)
    test = tuple(leaf[: examples // 6] for leaf in task.test)
    baseline = task.baseline.replace(samples=f"{epochs}ep")
    return replace(task, train=train, validation=validation, test=test, baseline=baseline)


def said_at(folder: Path, stage: str) -> Advice:
    """The advice as it stood when a stage had ended."""
    with tempfile.TemporaryDirectory() as there:
        copy = Path(there) / "copy"
        shutil.copytree(folder, copy)
        for name in {"projection", "confirmation"} - set(STAGES[stage]):
            (copy / f"{name}.json").unlink(missing_ok=True)
        return again(copy, None, (None, None, None))


def sentence_of(advice: Advice) -> dict[str, Any]:
    """What an advice said, in short."""
    first = advice.comparisons[0] if advice.comparisons else None
    return {
        "verdict": str(advice.verdict),
        "evidence": str(advice.evidence),
        "recommended": [advice.recommended.batch_size, advice.recommended.learning_rate],
        "ratio": None if first is None else first.difference.__dict__,
    }


def projected_for(folder: Path, advice: Advice) -> dict[str, Any] | None:
    """The ratio that stage B had projected for the setting that stage C examined."""
    if not (folder / "confirmation.json").is_file():
        return None
    projection, machine, confirmation = (
        from_plain(kind, json.loads((folder / f"{name}.json").read_text()))
        for name, kind in (
            ("projection", Projection),
            ("machine", Machine),
            ("confirmation", Confirmation),
        )
    )
    rows = projected(
        projection,
        Yardstick(machine, None),
        objective="time",
        today=(int(advice.today.batch_size), advice.today.learning_rate),
        maximise=advice.metric.maximise,
    )
    chosen = (int(confirmation.chosen[0]), confirmation.chosen[1])
    row = next(r for r in rows if (r.batch_size, r.learning_rate) == chosen)
    return {"setting": list(chosen), "ratio": row.ratio.estimate.__dict__}


def main() -> int:
    """Print what was said, and write JSON; without the data there is nothing to say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help="folder with CIFAR-10")
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--budget", default="15m")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="keep the result directory here")
    parser.add_argument("--resume", action="store_true", help="go on with --out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        print("left out: it needs --data DIR, the folder with CIFAR-10")
        return 0
    task = part_of_cifar10(options.data, options.examples, options.epochs)
    clock = Clock()
    with tempfile.TemporaryDirectory() as there:
        folder = options.out or Path(there) / "out"
        final = advise(
            task,
            budget=options.budget,
            seed=options.seed,
            device=options.device,
            out=folder,
            resume=options.resume,
            listener=clock,
        )
        reached = "ABC"[: "ABC".index(final.stage) + 1]
        found = {
            "examples": final.train_examples,
            "epochs": options.epochs,
            "run_seconds": final.run_seconds,
            "said": {stage: sentence_of(said_at(folder, stage)) for stage in reached},
            "seconds": clock.seconds(),
            "projected_for_what_C_examined": projected_for(folder, final),
            "device": final.device,
        }
    print(json.dumps(found, indent=1, default=str))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=str))
    if final.stage != "C":
        print("stage C was not paid for: give a larger --budget", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
