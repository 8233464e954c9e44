"""Watched trainings with made-up curves, of which every time to a goal is known."""

import math

from batchlab.advisor.watched import run_of
from batchlab.watch.journal import Journal, write_provenance
from batchlab.watch.record import End, Ending, MetricPoint, Moment, NoiseBlock, Start, gathered

STEPS = 12
LENGTH = 1200


def lines_of(
    *,
    batch=32,
    rate=0.1,
    seed=0,
    pace=1.0,
    metric="accuracy",
    maximise=True,
    ending=Ending.FINISHED,
    diverged=False,
    steps=STEPS,
    population=400,
    settings=None,
    price=None,
    training=True,
    values=None,
    waiting=0.1,
    accumulation=1,
):
    """A training whose accuracy rises by 0.05 a step, of ``pace`` seconds without evaluation."""

    def axes(step):
        samples, wall = step * LENGTH // STEPS, 2 * pace * step
        money = None if price is None else wall * price / 3600
        return {
            "samples": samples, "updates": samples // batch, "seconds": wall, "money": money
        }  # fmt: skip

    told = {"rule": "shb", "momentum": 0.9, "weight_decay": 0.0, "learning_rate": rate}
    yield Start(
        **axes(0), format=1, at="2026-11-21T09:30:00+00:00", device="cpu", world_size=1,
        optimizer="SGD", sgd=True, parameters=9, price_per_hour=price, currency="USD",
        memory_limit=2**33, memory_source="free", seed=seed, settings=told | (settings or {}),
    )  # fmt: skip
    for step in range(1, steps + 1):
        lost = diverged and step > steps // 2
        clock = pace * step if training else None
        yield Moment(
            **axes(step), loss=math.nan if lost else 2.0 - 0.1 * step,
            diverged=axes(step)["updates"] if lost else None, waiting=waiting * pace * step,
            working=(1 - waiting) * pace * step, memory=2**30,
            micro_batch_size=batch // accumulation, accumulation=accumulation,
            learning_rate=rate, training=clock, population=population,
        )  # fmt: skip
        if metric:
            value = math.nan if lost else (values or (lambda s: 0.3 + 0.05 * s))(step)
            yield MetricPoint(
                **axes(step), name=metric, value=value, maximise=maximise, training=clock
            )
        if step % 3 == 0:
            yield NoiseBlock(
                **axes(step), method="per example", pairs=16, signal=1.0, noise=100.0,
                signal_var=0.1, noise_var=100.0, covariance=0.0, batch_size=batch, covered=1.0,
                population=population,
            )  # fmt: skip
    if ending is not None:
        yield End(**axes(steps), ending=ending)


def run(name="a", **what):
    return run_of(name, gathered(lines_of(**what)), without_evaluation=what.get("training", True))


def write(folder, **what):
    """A directory as the watch leaves it."""
    journal = Journal(folder, False)
    write_provenance(folder, "cpu")
    for line in lines_of(**what):
        journal.append(line)
    journal.close()
    return folder
