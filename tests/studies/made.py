"""A study that takes no time: repetitions are normal draws around what a cell says."""

import math

import numpy as np

from batchlab import _random
from batchlab._text import Text, same
from batchlab.errors import InvalidValueError
from batchlab.progress import Quiet
from batchlab.studies import Axis, Cell, Claim, Picture, Statistic, Study, points

WORDS = Text("words", "言葉")


class Hears(Quiet):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, sentence):
        self.said.append(sentence)


def claim(**changes):
    """A claim that the mean is above 0."""
    plain = {
        "id": "above-zero",
        "sentence": Text("The mean is above zero.", "平均は0より大きい。"),
        "source": "polyak1964, equation 1",
        "measured": Text("mean", "平均"),
        "low": 0.0,
        "high": math.inf,
        "n": 8,
        "values": lambda tables: tables["draws"]["value"].to_numpy(),
        "picture": picture,
        "meaning": Text("It is above zero.", "0より大きいということです。"),
        "expected": 1.0,
        "spread": 0.5,
    }
    return Claim(**(plain | changes))


def picture(tables):
    shown = points(tables["draws"], x="mean", y="value")
    return Picture(
        title=Text("The draws.", "値。"),
        x=Axis(Text("mean", "平均")),
        y=Axis(Text("value", "値")),
        points=shown,
        series={"measured": Text("measured", "測定値")},
        caption=same(f"n = {shown[0]['n']}."),
        theory=({"x": 0.0, "y": 0.0, "series": "measured"},),
    )


def cells(parameters):
    return tuple(
        Cell("draws", {"mean": parameters["mean"], "part": part, "n": parameters["n"] // 2})
        for part in range(2)
    )


def measure(cell, bench):
    """Draws around the cell's mean; a mean above 100 is refused, one below −100 is a fault."""
    settings = cell.settings
    if settings["mean"] > 100:
        raise InvalidValueError("`mean` must be 100 at most.")
    if settings["mean"] < -100:
        raise RuntimeError("the measurement broke")
    if bench.out is not None:
        bench.out.mkdir(parents=True, exist_ok=True)
        with (bench.out / "measured").open("a") as file:
            file.write("x")
    key = _random.key(bench.seed, "made", settings["part"])
    draws = np.random.default_rng(key).normal(settings["mean"], 0.5, settings["n"])
    return [{"repetition": i, "value": float(draw)} for i, draw in enumerate(draws)]


def claims(parameters):
    return (
        claim(n=parameters["n"], twin={"mean": -1.0}),
        claim(id="number", low=0.5, high=1.5, n=parameters["n"], twin={"mean": 4.0}),
        claim(
            id="mostly-positive",
            statistic=Statistic.SHARE,
            low=0.5,
            high=1.0,
            expected=0.9,
            n=parameters["n"],
            values=lambda tables: (tables["draws"]["value"] > 0).cast(float).to_numpy(),
        ),
        claim(id="found", finding=True, n=parameters["n"]),
    )


def study(**changes):
    sizes = {"quick": 16, "full": 64, "paper": 1000}
    plain = {
        "name": "made",
        "title": Text("draws", "値"),
        "citations": ("polyak1964",),
        "parameters": {mode: {"mean": 1.0, "n": n} for mode, n in sizes.items()},
        "cells": cells,
        "measure": measure,
        "claims": claims,
        "minutes": {"quick": 1, "full": 1},
    }
    return Study(**(plain | changes))


STUDY = study()
