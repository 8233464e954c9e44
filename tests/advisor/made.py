"""Records as the stages would leave them, made of numbers that can be followed by hand."""

import functools
import json
import math
from dataclasses import replace

from batchlab.advisor.candidates import Proposal
from batchlab.advisor.options import Options
from batchlab.advisor.record import MetricInfo, Reason
from batchlab.advisor.session import Session, Silent, Stopwatch
from batchlab.advisor.stages import (
    Confirmation,
    Curve,
    Machine,
    Projection,
    Records,
    Screening,
)
from batchlab.advisor.view import Facts, View
from batchlab.config import RunConfig
from batchlab.engine import Engine
from batchlab.measure.throughput import Block
from batchlab.tasks import prepare
from batchlab.types import Status
from tests.advisor import tiny

TODAY = (32, 0.1)
OTHER = (128, 0.4)
EXAMPLES, SAMPLES = 1000, 10_000
GRID = tuple(range(0, SAMPLES + 1, 250))
BASELINE = RunConfig(rule="sgd", batch_size=32, learning_rate=0.1, samples=SAMPLES, momentum=0.0)


def curve(
    losses,
    *,
    size=32,
    rate=0.1,
    seed=0,
    samples=None,
    status=Status.OK,
    metric=None,
    rung=2,
    test=None,
):
    """A run with these validation losses; the metric is 1 − loss unless given."""
    losses = tuple(float(x) for x in losses)
    at = tuple(range(0, 100 * len(losses), 100)) if samples is None else tuple(samples)
    values = tuple(1 - x for x in losses) if metric is None else tuple(map(float, metric))
    updates = tuple(s // size for s in at)
    return Curve(size, rate, seed, status, at, updates, losses, values, rung, test)


def diverged(**given):
    return curve((1.0, 0.9, math.nan), status=Status.DIVERGED, **given)


def run_to(target_at, *, pair=TODAY, seed=0, maximise=True, end=1.0, test=None):
    """A whole run whose metric is 0 before and ``end`` from ``target_at`` on (∞: never), so that
    the mean of three meets 0.9 two evaluations later.
    """
    good = [end if s >= target_at else 0.0 for s in GRID]
    metric = good if maximise else [1.0 - g for g in good]
    losses = [1.0 - 0.5 * g for g in good]
    size, rate = pair
    return curve(losses, size=size, rate=rate, seed=seed, samples=GRID, metric=metric, test=test)


def blocks(seconds, size, count=4):
    """Timed blocks of one update each."""
    each = seconds if isinstance(seconds, list | tuple) else [seconds] * count
    return tuple(Block(size, 1, s, 0.1 * s, size) for s in each)


def machine(rates, **given):
    timed = {str(size): blocks(seconds, size) for size, seconds in rates.items()}
    facts = {"threads": 1, "device": "cpu", "name": "test", "cores": 2} | given
    return Machine(None, timed, **facts)


RATES = {32: 0.001, 128: 0.002}
"""Seconds per update: 128 is twice as fast per sample."""


def screening(sizes=(32, 128), noise=(), start=500):
    proposals = tuple(
        Proposal(s, Reason.BASELINE if s == 32 else Reason.NOISE_SCALE) for s in sizes
    )
    return Screening(proposals, noise, start, 0.001, 1.0)


def projection(curves, best, late=(), start=0, end=1000):
    return Projection(start, end, tuple(curves), {str(k): v for k, v in best.items()}, late)


def confirmation(today_at, other_at, *, target=0.9, maximise=True, chosen=OTHER, **given):
    """Fresh runs that arrive at these samples; choosing runs likewise, on two seeds."""
    sides = [
        tuple(
            run_to(at, pair=pair, seed=1000 + i, maximise=maximise)
            for i, at in enumerate(arrivals)
        )
        for pair, arrivals in ((TODAY, today_at), (chosen, other_at))
    ]
    choosing = tuple(
        run_to(at[0], pair=pair, seed=100 + i, maximise=maximise)
        for pair, at in ((TODAY, today_at), (chosen, other_at))
        for i in range(2)
    )
    facts = {
        "target": target if maximise else 1 - target,
        "chosen_by": "baseline",
        "choosing": choosing,
        "finalists": (chosen,),
        "chosen": chosen,
        "today_chosen": False,
        "timed": {},
        "today": sides[0],
        "recommended": sides[1],
    }
    return Confirmation(**facts | given)


def facts(*, maximise=True, baseline=BASELINE, command="batchlab advise t.py:task", **given):
    known = {
        "task": "made",
        "command": command,
        "version": "0",
        "builtin": False,
        "baseline": baseline,
        "metric": MetricInfo("accuracy" if maximise else "error", maximise, "%"),
        "train_examples": EXAMPLES,
        "validation_examples": 200,
        "test_examples": 0,
        "assumptions": (),
        "prices": {},
        "provenance": {},
    }
    return Facts(**known | given)


def view(*, rates=RATES, maximise=True, options=None, known=None, **records):
    held = {"machine": machine(rates), "screening": screening(), "wall_seconds": 100.0}
    return View(
        Records(**held | records),
        options or Options(),
        known or facts(maximise=maximise),
    )


class Talk(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.sentences = []

    def say(self, sentence):
        self.sentences.append(sentence)


@functools.cache
def _whole():
    return prepare(tiny.task(), device="cpu")


def session(
    *,
    options=None,
    rates=None,
    samples=SAMPLES,
    rule="sgd",
    workers=0,
    spent=0.0,
):
    """A session that can be asked for prices; nothing in it trains."""
    prepared = replace(_whole(), baseline=BASELINE.replace(samples=samples, rule=rule))
    return Session(
        prepared,
        options or Options(),
        Engine(prepared, None, workers),
        Talk(),
        Stopwatch(prepared, 1, machine(rates or RATES).blocks),
        began=math.inf,
        earlier_seconds=spent,
        engine_factor=1.0,
        evaluation_seconds=0.0,
    )


def unfinished(folder, *without):
    """Let a result count as not finished, and some of its stages as not planned."""
    path = folder / "plan.json"
    plan = json.loads(path.read_text()) | {"finished": False}
    plan["stages"] = {name: of for name, of in plan["stages"].items() if name not in without}
    del plan["sha256"]
    path.write_text(json.dumps(plan))
