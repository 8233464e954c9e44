"""Complete advices with made-up values, in every variant the report knows."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from typing import Any

import torch

from batchlab.advisor.record import (
    Advice,
    Candidate,
    Change,
    Comparison,
    CurvePoint,
    Failures,
    FeatureSide,
    FeatureUse,
    Growing,
    KeptPoint,
    Memory,
    MemoryPoint,
    MetricInfo,
    NextStage,
    NoisePoint,
    Part,
    PlanePoint,
    Price,
    Reason,
    Repeat,
    RepeatRow,
    Robustness,
    RobustRow,
    Setting,
    Target,
    Verdict,
)
from batchlab.measure import _png
from batchlab.measure.units import Column, Unit
from batchlab.types import Estimate, Evidence, Status

ACCURACY = MetricInfo("accuracy", True, "%")
ESCAPES = MetricInfo("escapes at 2 % false alarms", False, "%")
USD = Price(1.2, "USD")
YEN = Price(180.0, "JPY")
SIZES = (8, 16, 32, 64, 128, 256, 1221)
BEST_RATE = {8: 0.025, 16: 0.05, 32: 0.1, 64: 0.2, 128: 0.2, 256: 0.4, 1221: 0.8}
NOT_TESTED = ("models", "data", "rules", "machines")


def setting(identity: str, batch: int, rate: float) -> Setting:
    return Setting(
        id=identity,
        rule="shb",
        batch_size=batch,
        micro_batch_size=batch,
        accum_steps=1,
        world_size=1,
        learning_rate=rate,
        momentum=0.9,
        weight_decay=0.0001,
        lr_schedule="cosine",
        warmup=0.05,
        clip_norm=None,
        precision="float32",
        samples=122100,
    )


TODAY = setting("today", 32, 0.05)
BEST = setting("B64-lr0.2", 64, 0.2)


def seconds_per_update(batch: int) -> float:
    return 0.0009 + 0.000022 * batch


def memory() -> Memory:
    points = []
    for batch in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1221):
        each = seconds_per_update(batch)
        points.append(
            MemoryPoint(
                batch_size=batch,
                fits=True,
                bytes=int(40e6 + 90e3 * batch),
                samples_per_second=Estimate(
                    batch / each, 0.93 * batch / each, 1.06 * batch / each, 6, "examples/s"
                ),
                seconds_per_update=Estimate(each, 0.94 * each, 1.07 * each, 6, "s"),
            )
        )
    return Memory(
        largest=1221,
        bound_by="data set",
        limit_bytes=2 * 2**30,
        limit_source="cgroup",
        margin_bytes=200 * 2**20,
        points=tuple(points),
        knee=256,
        loader_share=0.06,
        sentence="Every size up to the whole training set ran.",
    )


def memory_out() -> Memory:
    whole = memory()
    fitting = tuple(p for p in whole.points if p.batch_size <= 256)
    broken = MemoryPoint(512, fits=False, bytes=0, reason="peak 2.3 GiB is above the limit")
    return dataclasses.replace(
        whole,
        largest=256,
        bound_by="memory",
        points=(*fitting, broken),
        limit_bytes=80 * 2**20,
        margin_bytes=8 * 2**20,
        knee=128,
    )


def noise() -> tuple[NoisePoint, ...]:
    values = [(6000, 9.0), (18000, 18.0), (36000, 33.0), (60000, 52.0), (90000, 71.0)]
    points = [NoisePoint(s, Estimate(v, 0.7 * v, 1.5 * v, 16, "examples")) for s, v in values]
    return (*points, NoisePoint(120000, None, at_least=60.0))


def plane() -> tuple[PlanePoint, ...]:
    points = []
    for batch in SIZES:
        best = BEST_RATE[batch]
        for power in range(-3, 4):
            rate = best * 2.0**power
            off = abs(power) + (0.4 if power > 0 else 0)
            diverged = power == 3
            lost = power == -3 and batch == 1221
            loss = math.nan if diverged else 0.12 + 0.09 * off**1.5 + 0.01 * math.log2(batch)
            points.append(
                PlanePoint(
                    batch_size=batch,
                    learning_rate=rate,
                    loss=2.31 if lost else loss,
                    metric=math.nan if diverged else (0.1 if lost else 0.974 - 0.02 * off**1.7),
                    samples=(2400, 4800, 9600)[max(0, 2 - abs(power))],
                    rung=max(0, 2 - abs(power)),
                    status=Status.DIVERGED
                    if diverged
                    else (Status.DID_NOT_LEARN if lost else Status.OK),
                    works=abs(power) <= 1,
                )
            )
    return tuple(points)


def times() -> dict[int, float]:
    """Seconds to the target per batch size."""
    return {8: 5.6, 16: 3.9, 32: 2.9, 64: 2.2, 128: 2.35, 256: 3.4, 1221: math.inf}


def candidates(price: Price | None, evidence: Evidence) -> tuple[Candidate, ...]:
    rows = [_row(TODAY, Reason.BASELINE, 4.1, price, evidence, pareto=True)]
    for batch in SIZES:
        if batch == 32:
            continue
        one = (
            BEST
            if batch == 64
            else setting(f"B{batch}-lr{BEST_RATE[batch]:g}", batch, BEST_RATE[batch])
        )
        reason = Reason.LARGEST if batch == 1221 else Reason.NOISE_SCALE
        tested = evidence if batch in (64,) else Evidence.PROJECTED
        rows.append(_row(one, reason, times()[batch], price, tested, pareto=batch == 64))
    return tuple(rows)


def _row(
    one: Setting,
    reason: Reason,
    seconds: float,
    price: Price | None,
    evidence: Evidence,
    *,
    pareto: bool,
) -> Candidate:
    batch = int(one.batch_size)
    each = seconds_per_update(batch)
    updates = seconds / each
    reached = math.isfinite(seconds)
    rate = 0.05 * batch / 32
    best = BEST_RATE[batch]

    def estimate(value: float, unit: str) -> Estimate:
        if not math.isfinite(value):
            return Estimate(math.inf, math.nan, math.nan, 5, unit)
        return Estimate(value, 0.85 * value, 1.18 * value, 8, unit)

    quality = (
        0.974 - (0.001 if batch == 64 else 0.0) - (0.03 if not reached else 0.0004 * batch / 64)
    )
    return Candidate(
        setting=one,
        reason=reason,
        evidence=evidence,
        rate_low=best / 2,
        rate_high=best * 1.75,
        rate_linear=rate,
        rate_sqrt=0.05 * math.sqrt(batch / 32),
        seconds_per_update=estimate(each, "s"),
        samples_to_target=estimate(updates * batch, "examples"),
        updates_to_target=estimate(updates, "updates"),
        seconds_to_target=estimate(seconds, "s"),
        cost_to_target=estimate(seconds * price.per_hour / 3600, price.currency)
        if price
        else None,
        metric=Estimate(quality, quality - 0.004, quality + 0.003, 8, "%"),
        loss_samples=estimate(updates * batch * 0.3, "examples"),
        pareto=pareto,
        runs=8 if evidence is Evidence.CONFIRMED else 1,
        failed=0 if reached else 1,
    )


def curves(metric: MetricInfo = ACCURACY) -> tuple[CurvePoint, ...]:
    draw = random.Random(0)
    points = []
    for one in [TODAY, *(c.setting for c in candidates(None, Evidence.CONFIRMED)[1:])]:
        batch = int(one.batch_size)
        needed = times()[batch] if one.id != "today" else 4.1
        scale = (needed if math.isfinite(needed) else 60.0) / seconds_per_update(batch) * batch
        for step in range(1, 41):
            samples = 122100 * step // 40
            progress = samples / scale
            error = 0.03 / max(progress, 0.02) ** 0.8 * (1 + 0.04 * draw.gauss(0, 1))
            share = min(0.9, error)
            value = 1 - share if metric.maximise else share
            for name, middle, wide in (
                ("metric", value, 0.25 * share),
                ("loss", 3.2 * share, 0.8 * share),
            ):
                points.append(
                    CurvePoint(
                        id=one.id,
                        name=name,
                        samples=samples,
                        epochs=samples / 1221,
                        updates=samples // batch,
                        seconds=samples // batch * seconds_per_update(batch),
                        value=middle,
                        low=middle - wide / 2,
                        high=middle + wide / 2,
                        n=8 if one.id in ("today", BEST.id) else 1,
                    )
                )
    return tuple(points)


def comparisons(
    low: float, middle: float, high: float, price: Price | None, wins: int = 8
) -> tuple[Comparison, ...]:
    today, other = 4.1, 4.1 / middle
    ratio = Estimate(middle, low, high, 8)
    rows = [
        Comparison(
            "time",
            Estimate(today, 3.5, 4.9, 8, "s"),
            Estimate(other, 0.85 * other, 1.2 * other, 8, "s"),
            ratio,
            wins=wins,
            pairs=8,
            chance=0.996 if wins == 8 else 0.8,
        )
    ]
    if price:
        unit = price.per_hour / 3600
        rows.append(
            dataclasses.replace(
                rows[0],
                quantity="cost",
                today=Estimate(today * unit, 3.5 * unit, 4.9 * unit, 8, price.currency),
                recommended=Estimate(
                    other * unit, 0.85 * other * unit, 1.2 * other * unit, 8, price.currency
                ),
            )
        )
    rows.append(
        Comparison(
            "metric",
            Estimate(0.974, 0.969, 0.979, 8, "%"),
            Estimate(0.972, 0.967, 0.977, 8, "%"),
            Estimate(-0.002, -0.009, 0.005, 8, "%"),
            wins=3,
            pairs=8,
            chance=0.3,
            examples=360,
        )
    )
    return tuple(rows)


def change(price: Price | None = USD, **others: Any) -> Advice:
    """Stage C, a confirmed change on the built-in digits."""
    fields: dict[str, Any] = {
        "task": "digits",
        "command": "batchlab advise digits",
        "version": "0.1.0",
        "created": "2026-11-21T09:30:00+00:00",
        "device": "cpu",
        "cores": 2,
        "builtin": True,
        "wall_seconds": 160.0,
        "measurement_cost": 160 * price.per_hour / 3600 if price else None,
        "budget_seconds": None,
        "stage": "C",
        "evidence": Evidence.CONFIRMED,
        "partial": False,
        "verdict": Verdict.CHANGE,
        "objective": "time",
        "worth": 1.2,
        "at_least": {},
        "metric": ACCURACY,
        "target": Target(0.97, "baseline", 5, 0.8),
        "today": TODAY,
        "recommended": BEST,
        "changes": (Change("batch_size", 32, 64), Change("learning_rate", 0.05, 0.2)),
        "comparisons": comparisons(1.5, 1.9, 2.3, price),
        "batch_only": Estimate(1.1, 0.9, 1.3, 5),
        "failures": Failures(0, 8, 0, 8),
        "price": price,
        "smallest_detectable": 1.22,
        "decide_repeats": 0,
        "next_stage": NextStage(
            "own-task",
            600.0,
            600 * price.per_hour / 3600 if price else None,
            "batchlab advise your_task.py:task --budget 10m",
        ),
        "useful_low": 16,
        "useful_high": 180,
        "memory": memory(),
        "noise": noise(),
        "noise_orders_only": False,
        "plane": plane(),
        "candidates": candidates(price, Evidence.CONFIRMED),
        "curves": curves(),
        "epochs_to_plateau": Estimate(75.0, 66.0, 84.0, 8, "epochs"),
        "order_changed": False,
        "run_seconds": 6.3,
        "train_examples": 1221,
        "validation_examples": 216,
        "test_examples": 360,
        "assumptions": (
            "no validation data was given: 15 % of the training data were split off, stratified "
            "by class",
        ),
        "not_tested": NOT_TESTED,
        "provenance": {
            "python": "3.12.3",
            "torch": "2.13.0+cpu",
            "device": "cpu",
            "threads": "1",
            "dtype": "float32",
            "seed": "0",
        },
        "params": {"batch_size": 64, "learning_rate": 0.2, "momentum": 0.9},
        "compared": BEST,
    }
    return Advice(**{**fields, **others})


def keep(price: Price | None = USD, **others: Any) -> Advice:
    """Stage C, nothing worth a change."""
    fields: dict[str, Any] = {
        "verdict": Verdict.KEEP,
        "recommended": TODAY,
        "changes": (),
        "batch_only": None,
        "comparisons": comparisons(0.9, 1.02, 1.15, price, wins=5),
        "next_stage": None,
        "builtin": False,
        "task": "pumps",
        "run_seconds": 11000.0,
        "wall_seconds": 43000.0,
        "measurement_cost": 43000 * price.per_hour / 3600 if price else None,
    }
    return change(price, **{**fields, **others})


def open_(price: Price | None = USD, **others: Any) -> Advice:
    """Stage C, the repeats cannot tell."""
    fields: dict[str, Any] = {
        "verdict": Verdict.NOT_ENOUGH_EVIDENCE,
        "recommended": TODAY,
        "changes": (),
        "batch_only": None,
        "comparisons": comparisons(0.9, 1.2, 1.6, price, wins=6),
        "decide_repeats": 14,
        "next_stage": NextStage(
            "more-repeats",
            720.0,
            0.24 * (price.per_hour / 1.2) if price else None,
            "batchlab advise digits --resume --budget 12m",
            repeats=14,
        ),
    }
    return change(price, **{**fields, **others})


def screened(price: Price | None = USD, **others: Any) -> Advice:
    """Stage A only: nothing compared yet."""
    bare = tuple(
        Candidate(
            setting=c.setting,
            reason=c.reason,
            evidence=Evidence.SCREENED,
            seconds_per_update=c.seconds_per_update,
        )
        for c in candidates(price, Evidence.SCREENED)
    )
    fields: dict[str, Any] = {
        "task": "defects.py:task",
        "builtin": False,
        "stage": "A",
        "evidence": Evidence.SCREENED,
        "verdict": Verdict.NOT_ENOUGH_EVIDENCE,
        "recommended": TODAY,
        "compared": None,
        "changes": (),
        "comparisons": (),
        "batch_only": None,
        "failures": None,
        "target": None,
        "smallest_detectable": None,
        "useful_low": 16,
        "useful_high": None,
        "plane": (),
        "curves": (),
        "candidates": bare,
        "epochs_to_plateau": None,
        "order_changed": None,
        "wall_seconds": 9.0,
        "measurement_cost": 9 * price.per_hour / 3600 if price else None,
        "next_stage": NextStage(
            "B",
            600.0,
            600 * price.per_hour / 3600 if price else None,
            "batchlab advise defects.py:task --resume --budget 10m",
        ),
    }
    return change(price, **{**fields, **others})


def projected(price: Price | None = USD, **others: Any) -> Advice:
    """Stage B: a short trial, nothing confirmed."""
    told = tuple(
        dataclasses.replace(c, method="projected", wins=0, pairs=0, chance=math.nan)
        for c in comparisons(1.3, 1.8, 2.5, price)
        if c.quantity != "metric"
    )
    fields: dict[str, Any] = {
        "task": "defects.py:task",
        "builtin": False,
        "stage": "B",
        "evidence": Evidence.PROJECTED,
        "comparisons": told,
        "failures": None,
        "candidates": candidates(price, Evidence.PROJECTED),
        "wall_seconds": 540.0,
        "measurement_cost": 540 * price.per_hour / 3600 if price else None,
        "run_seconds": 5200.0,
        "next_stage": NextStage(
            "C",
            2400.0,
            2400 * price.per_hour / 3600 if price else None,
            "batchlab advise defects.py:task --resume --budget 40m",
        ),
    }
    return change(price, **{**fields, **others})


def minimised(price: Price | None = USD, **others: Any) -> Advice:
    """A metric to be made small, on the user's own task."""
    base = comparisons(1.5, 1.9, 2.3, price)
    metric = dataclasses.replace(
        base[-1],
        today=Estimate(0.031, 0.025, 0.037, 8, "%"),
        recommended=Estimate(0.029, 0.023, 0.035, 8, "%"),
        difference=Estimate(-0.002, -0.008, 0.004, 8, "%"),
    )
    fields: dict[str, Any] = {
        "task": "defects",
        "builtin": False,
        "metric": ESCAPES,
        "target": Target(0.04, "baseline", 5, 0.8),
        "comparisons": (*base[:-1], metric),
        "curves": curves(ESCAPES),
        "candidates": tuple(
            dataclasses.replace(c, metric=_turned(c.metric))
            for c in candidates(price, Evidence.CONFIRMED)
        ),
        "plane": tuple(dataclasses.replace(p, metric=1 - p.metric) for p in plane()),
        "next_stage": None,
    }
    return change(price, **{**fields, **others})


def _turned(share: Estimate | None) -> Estimate | None:
    if share is None:
        return None
    return dataclasses.replace(
        share, value=1 - share.value, low=1 - share.high, high=1 - share.low
    )


def no_test(price: Price | None = USD, **others: Any) -> Advice:
    """No test data: the metric is that of the validation data."""
    told = tuple(
        dataclasses.replace(c, quantity="validation", examples=216)
        if c.quantity == "metric"
        else c
        for c in comparisons(1.5, 1.9, 2.3, price)
    )
    return change(price, **{"comparisons": told, "test_examples": 0, **others})


ALL = {
    "change": change,
    "keep": keep,
    "open": open_,
    "screened": screened,
    "projected": projected,
    "minimised": minimised,
    "no_test": no_test,
}


def repeat(ratio: float, *, pairs: int = 1, worse: float = 0.003, **others: Any) -> Repeat:
    """The pair on all data, with this ratio of time."""
    low, high = (ratio / 1.3, ratio * 1.3) if pairs > 1 else (0.0, math.inf)
    edge = 0.002 if pairs > 1 else math.inf
    time = Comparison(
        "time",
        Estimate(30.0, math.nan, math.nan, pairs, "s"),
        Estimate(30.0 / ratio if ratio else math.inf, math.nan, math.nan, pairs, "s"),
        Estimate(ratio, low, high, pairs),
        pairs if ratio > 1 else 0,
        pairs,
        0.5,
    )
    metric = Comparison(
        "validation",
        Estimate(0.985, math.nan, math.nan, pairs, "%"),
        Estimate(0.985 - worse, math.nan, math.nan, pairs, "%"),
        Estimate(-worse, -worse - edge, -worse + edge, pairs, "%"),
        0,
        pairs,
        0.5,
        examples=216,
    )
    pair = tuple(p for p in curves() if p.id in ("today", BEST.id))
    fields: dict[str, Any] = {
        "held": ratio > 1,
        "by": "time",
        "comparisons": (time, metric),
        "curves": pair,
        "taken_back": ratio <= 1,
    }
    return Repeat(**fields | others)


def on_part(advice: Advice, found: Repeat | None = None, seconds: float | None = 540.0) -> Advice:
    """The same advice, of a tenth of the training data."""
    told = Part(0.1, 1221, 12210, 1221000, found, None if found else seconds)
    return dataclasses.replace(advice, part=told)


@functools.cache
def parts(price: Price | None = USD) -> dict[str, Advice]:
    """Advices of a part of the data, in every variant."""
    alone = NextStage(
        "all-data",
        540.0,
        540 * price.per_hour / 3600 if price else None,
        "batchlab advise bolts.py:task --subset 10% --resume --budget 30m",
    )
    own: dict[str, Any] = {"builtin": False, "task": "bolts", "run_seconds": 5200.0}
    back: dict[str, Any] = {
        **own,
        "verdict": Verdict.NOT_ENOUGH_EVIDENCE,
        "recommended": TODAY,
        "changes": (),
        "batch_only": None,
        "next_stage": None,
    }
    done = {**own, "next_stage": None}
    neither = repeat(1.0, held=False, by="validation", worse=0.03, taken_back=True)
    neither = dataclasses.replace(neither, comparisons=neither.comparisons[1:])
    return {
        "not repeated": on_part(change(price, **own, next_stage=alone)),
        "held, one pair": on_part(change(price, **done), repeat(1.7)),
        "held, three pairs": on_part(change(price, **done), repeat(1.7, pairs=3)),
        "flipped": on_part(change(price, **back), repeat(0.8)),
        "flipped, three pairs": on_part(change(price, **back), repeat(0.8, pairs=3)),
        "neither reached it": on_part(change(price, **back), neither),
        "ended far worse": on_part(
            change(price, **back),
            repeat(1.7, pairs=3, worse=0.04, held=False, by="validation", taken_back=True),
        ),
        "only the recommended reached it": on_part(change(price, **done), repeat(math.inf)),
        "only today reached it": on_part(change(price, **back), repeat(0.0)),
        "kept": on_part(keep(price), repeat(0.95, held=True, taken_back=False)),
        "kept, not repeated": on_part(keep(price, next_stage=alone)),
        "a keep taken back": on_part(
            keep(price, **{k: v for k, v in back.items() if k != "task"}),
            repeat(1.5, held=True, taken_back=True),
        ),
        "open, only today reached it": on_part(
            open_(price, **own), repeat(0.0, held=True, taken_back=False)
        ),
        "open": on_part(open_(price, **own), repeat(1.2, taken_back=False)),
        "projected": on_part(projected(price)),
        "screened": on_part(screened(price), seconds=None),
        "no run ended": on_part(
            change(price, **back),
            repeat(0.5, comparisons=(), curves=(), by="validation", held=False, taken_back=True),
        ),
    }


NEVER = Estimate(math.inf, math.nan, math.nan, 8, "s")
UNKNOWN = Estimate(1.3, math.nan, math.nan, 1)


def robustness() -> Robustness:
    """Every disturbance of a table of pictures, with one trainings the budget did not pay for."""
    rows = []
    for i, (kind, size, unit, draws) in enumerate(
        (
            ("input noise", 0.1, "sd", 3),
            ("input noise", 0.3, "sd", 3),
            ("brightness", 0.3, "sd", 2),
            ("shift", 1, "pixels", 4),
            ("shift", 2, "pixels", 4),
            ("weight noise", 0.01, "rms", 5),
            ("weight noise", 0.05, "rms", 5),
            ("wrong labels", 0.05, "share", 1),
            ("wrong labels", 0.1, "share", 1),
        )
    ):
        n, lost = (5 if unit == "share" else 8), -0.002 - 0.008 * i

        def about(value: float, half: float = 0.006, n: int = n) -> Estimate:
            return Estimate(value, value - half, value + half, n, "%")

        rows.append(
            RobustRow(
                kind,
                size,
                unit,
                draws,
                about(0.974 + lost),
                about(0.972 + 0.8 * lost),
                about(lost),
                about(0.8 * lost),
                about(-0.002 - 0.2 * lost),
            )
        )
    return Robustness(
        tuple(rows),
        RepeatRow(
            Estimate(0.034, 0.027, 0.041, 8, "%"),
            Estimate(0.026, 0.020, 0.032, 8, "%"),
            Estimate(-0.008, -0.016, -0.0003, 8, "%"),
        ),
        classes=True,
        left_out={"sensor drift": "no time"},
        unpaid={"wrong labels 0.2": 84.0, "less data 0.1": 84.0},
    )


def robust(price: Price | None = USD, **others: Any) -> Advice:
    """A change with all that ``--robustness`` adds."""
    return change(price, **({"robustness": robustness()} | others))


def units(kind: str = "image") -> tuple[Unit, ...]:
    """A sheet of made-up units: pictures of 8×8, signals, columns or nothing."""
    found = []
    for i in range(12):
        own: dict[str, Any] = {}
        draw = torch.Generator().manual_seed(i)
        if kind == "image":
            images = torch.rand(3, 1, 8, 8, generator=draw)
            heat = _png.heat(torch.randn(8, 8, generator=draw))
            own = {"pictures": tuple(map(_png.photograph, images)), "saliency": heat}
        elif kind == "signal":
            signal = torch.randn(100, generator=draw).cumsum(0)
            own = {
                "signal": tuple(signal.tolist()),
                "steps": 200,
                "segment": (10 * i, 10 * i + 20),
            }
        elif kind == "table":
            names = ("temperature", "pressure", "vibration")
            own = {"columns": tuple(Column(n, 0.5 - 0.3 * j) for j, n in enumerate(names))}
        found.append(Unit(5 * i, 0.3 / (i + 1), (i, 20 + i, 40 + i), (3.0, 2.5, 2.0), **own))
    return tuple(found)


def side(needed: float, kind: str = "image", shift: float = 0.0) -> FeatureSide:
    """One setting: the metric rises with units kept, faster with the important ones."""
    points = []
    for count in (0, 1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 60, 64):
        best = 0.1 + 0.87 * (1 - math.exp(-4.6 * count / needed))
        slow = 0.1 + 0.87 * count / 64
        points.append(
            KeptPoint(
                count,
                Estimate(best, best - 0.02, min(1.0, best + 0.02), 8, "%"),
                Estimate(slow, max(0.0, slow - 0.05), slow + 0.02, 8, "%"),
            )
        )
    return FeatureSide(
        Estimate(needed, needed - 1.6, needed + 1.8, 8, "units"),
        Estimate(58.2, 55.1, 61.3, 8, "units"),
        Estimate(0.31 + shift, 0.29 + shift, 0.33 + shift, 8, "%"),
        Estimate(0.12, 0.11, 0.13, 8, "%"),
        tuple(points),
        units(kind),
    )


def feature_use(kind: str = "image", **others: Any) -> FeatureUse:
    """Fewer units needed in seven of eight pairs."""
    made: dict[str, Any] = {
        "layer": "body.4",
        "units": 64,
        "kind": kind,
        "examples": 216,
        "order_examples": 512,
        "draws": 3,
        "today": side(14.0, kind),
        "recommended": side(9.0, kind, 0.04),
        "difference": Estimate(-5.0, -7.2, -2.8, 8, "units"),
        "fewer": 7,
        "more": 1,
        "pairs": 8,
    }
    return FeatureUse(**(made | others))


def seen(price: Price | None = USD, kind: str = "image", **others: Any) -> Advice:
    """A change whose features were measured."""
    return change(price, **({"features": feature_use(kind)} | others))


def _time_is(advice: Advice, **fields: Any) -> Advice:
    told = tuple(
        dataclasses.replace(c, **fields) if c.quantity in ("time", "cost") else c
        for c in advice.comparisons
    )
    return dataclasses.replace(advice, comparisons=told)


GROWS = dataclasses.replace(
    BEST,
    id="B8→64-lr0.1-p0.5-constant",
    batch_size="0:8 2ep:16 4ep:64",
    learning_rate=0.1,
    rate_growth=0.5,
    lr_schedule="constant",
)


def growing(pays: bool) -> Growing:
    """The best that grows beside the best constant batch."""
    ratio = Estimate(0.8, 0.7, 0.9, 5) if pays else Estimate(1.1, 0.9, 1.3, 5)
    return Growing("", None, ("fixed ×2", "plateau"), 24, 1.0, GROWS, BEST, "time", ratio, pays)


def grows() -> Advice:
    """The advice is to let the batch grow."""
    full = change()
    row = dataclasses.replace(
        full.candidates[-1], setting=GROWS, reason=Reason.GROWING, rate_low=None, rate_high=None
    )
    names = ("batch_size", "learning_rate", "rate_growth", "lr_schedule")
    told = tuple(Change(n, getattr(TODAY, n), getattr(GROWS, n)) for n in names)
    return dataclasses.replace(
        full,
        recommended=GROWS,
        changes=told,
        candidates=(*full.candidates, row),
        curves=tuple(
            dataclasses.replace(p, id=GROWS.id if p.id == BEST.id else p.id) for p in full.curves
        ),
        growing=growing(True),
    )


@functools.cache
def odd() -> dict[str, Advice]:
    """Records at the edge of what can be."""
    full, schedule = change(), dataclasses.replace(TODAY, batch_size="0:8 20ep:16")
    stopped = Memory(0, "nothing fits", 0, "", 0, (MemoryPoint(1, False, 0, reason="too large"),))
    return {
        "nothing but a baseline": screened(
            None, memory=None, noise=(), candidates=(), next_stage=None, not_tested=()
        ),
        "nothing fits": screened(memory=stopped, useful_low=None),
        "one candidate": screened(candidates=screened().candidates[:2]),
        "batch schedule": change(
            today=schedule, changes=(Change("batch_size", "0:8 20ep:16", 64),)
        ),
        "a batch that grows": grows(),
        "growing does not pay": keep(growing=growing(False)),
        "growing not paid for": keep(growing=Growing("budget", 30.0)),
        "accumulation": change(
            recommended=dataclasses.replace(BEST, micro_batch_size=16, accum_steps=4)
        ),
        "today never": _time_is(
            full, today=NEVER, difference=Estimate(math.inf, 1.4, math.inf, 8), method="sign"
        ),
        "neither": _time_is(
            open_(), today=NEVER, recommended=NEVER, difference=Estimate(math.nan, 0, math.inf, 8)
        ),
        "recommended never": _time_is(
            keep(), recommended=NEVER, difference=Estimate(0.0, 0.0, 0.8, 8), method="sign"
        ),
        "endless range": _time_is(open_(), difference=Estimate(1.4, 0.0, math.inf, 8)),
        "no range": _time_is(projected(), difference=UNKNOWN),
        "no range, open": _time_is(
            projected(verdict=Verdict.NOT_ENOUGH_EVIDENCE, recommended=TODAY, changes=()),
            difference=UNKNOWN,
        ),
        "keep after a trial": _time_is(
            projected(verdict=Verdict.KEEP, recommended=TODAY, changes=()), difference=UNKNOWN
        ),
        "keep, nothing compared": keep(comparisons=(), compared=None, failures=None),
        "open, nothing compared": open_(comparisons=(), compared=None, target=None),
        "keep for accuracy": keep(objective="accuracy"),
        "open for accuracy": open_(objective="accuracy", decide_repeats=0, next_stage=None),
        "change for cost": change(objective="cost"),
        "no target": projected(target=None),
        "target of the user": change(target=Target(0.97, "user")),
        "loss as metric": change(metric=MetricInfo("loss", False), curves=curves(ESCAPES)),
        "unit of its own": change(metric=MetricInfo("wear", False, "mm")),
        "failures": change(failures=Failures(3, 8, 0, 8)),
        "another optimiser": change(
            recommended=dataclasses.replace(BEST, rule="adamw"), noise_orders_only=True
        ),
        "everything changed": change(
            changes=tuple(Change(n, 1, 2.5) for n in ("rule", "momentum", "weight_decay", "nu"))
        ),
        "a clip norm more": change(changes=(Change("clip_norm", None, 1.0),)),
        "loader is the limit": change(memory=dataclasses.replace(memory(), loader_share=0.6)),
        "out of memory": change(memory=memory_out()),
        "speed not measured": change(
            memory=dataclasses.replace(
                memory(), knee=None, points=(MemoryPoint(1, True, 10), MemoryPoint(2, True, 20))
            )
        ),
        "noise not resolved": change(noise=(NoisePoint(10, None), NoisePoint(20, None, 7.0))),
        "one point of noise": change(noise=noise()[:1], train_examples=0),
        "order changed": change(order_changed=True, at_least={"accuracy=0.9": True}),
        "a curve of one point": change(curves=curves()[:1]),
        "curves without seconds": change(
            None, curves=tuple(dataclasses.replace(p, seconds=math.nan) for p in curves())
        ),
        "all diverged": change(
            plane=tuple(
                dataclasses.replace(p, loss=math.nan, metric=math.nan, status=Status.DIVERGED)
                for p in plane()
            )
        ),
        "none reached": change(
            candidates=tuple(
                dataclasses.replace(c, seconds_to_target=NEVER) for c in full.candidates
            )
        ),
        "a graphics card": change(device="NVIDIA H200", cores=16),
        "interrupted": change(partial=True, created="unknown"),
        "a long run": keep(run_seconds=4e6, wall_seconds=3e5),
        "the smallest amounts": change(Price(1e-6, "CHF")),
        "free of charge": change(Price(0.0, "USD")),
        "priced data": change(Price(1.0, "EUR", per_sample=0.01)),
        "features in pictures": seen(),
        "features in signals": seen(
            kind="signal", features=feature_use("signal", order="gradient")
        ),
        "features in columns": seen(kind="table"),
        "features that differ by chance": keep(
            features=feature_use("none", difference=Estimate(-0.04, -1.0, 0.9, 8, "units"))
        ),
        "more features": change(
            features=feature_use(difference=Estimate(5.0, 2.0, 8.0, 8, "units"), fewer=1, more=7)
        ),
        "features that nothing needs": change(
            features=feature_use(
                recommended=dataclasses.replace(side(9.0), needed=None, needed_random=None),
                difference=None,
            )
        ),
        "features of a single training": change(
            features=feature_use(difference=Estimate(-5.0, math.nan, math.nan, 1), pairs=1)
        ),
        "no features": change(features=FeatureUse("no hidden layer")),
        "features not paid for": change(features=FeatureUse("budget", 340.0)),
        "a worse metric": dataclasses.replace(
            full,
            comparisons=tuple(
                dataclasses.replace(c, difference=Estimate(-0.02, -0.03, -0.01, 8))
                if c.quantity == "metric"
                else c
                for c in full.comparisons
            ),
        ),
    }
