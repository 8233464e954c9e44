"""What the source left out: batch size, momentum, re-used data, noise, sparsity, and scale.

Depth 3, squared error. Nothing is predicted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from batchlab._text import Text
from batchlab.studies.claim import (
    Axis,
    Bench,
    Cell,
    Claim,
    Parameters,
    Picture,
    Row,
    Sample,
    Tables,
)
from batchlab.studies.drawing import points
from batchlab.studies.feature_strength import curves, faults, nets, sweep
from batchlab.studies.feature_strength.exponents import BEST_LOSS
from batchlab.studies.feature_strength.inspect import Inspector
from batchlab.studies.feature_strength.nets import Moment, Setting
from batchlab.studies.feature_strength.sweep import Sweep
from batchlab.studies.feature_strength.words import (
    GAMMA,
    RATE,
    captioned,
    finding,
    sample,
    seed,
)

EDGES, PASSES, SCALE = "edges", "passes", "scale"
MOMENTA = (0.0, 0.5, 0.9)
BOTH = (-3, 1)
"""A lazy and a rich decade of γ."""
UPDATES = {1: 400, 8: 100, 64: 100, 512: 100}
"""Batch size → T; of 100 single examples a rich net may learn nothing at any rate."""
NUMBERS_OF_PASSES = (1, 4, 16, 64)
SCALES = {"small": (32, 150), "large": (128, 600)}
"""Width and T."""
SCALE_DECADES = (-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0)


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """A repetition of one value of an axis each."""
    fault, width, n = parameters["fault"], parameters["width"], int(parameters["beyond_seeds"])
    changes = [
        *({"batch_size": B, "momentum": 0.0} for B in UPDATES),
        *({"batch_size": 64, "momentum": beta} for beta in MOMENTA if beta),
    ]
    shared = {"width": width, "fault": fault}
    return tuple(
        cell
        for i in range(n)
        for cell in (
            *(
                Cell(EDGES, {**c, "repetition": i, **shared}, 0.4 + c["batch_size"] / 120)
                for c in changes
            ),
            *(Cell(PASSES, {"passes": k, "repetition": i, **shared}) for k in NUMBERS_OF_PASSES),
            *(
                Cell(SCALE, {"scale": name, "repetition": i, "fault": fault}, w * T / 15000)
                for name, (w, T) in SCALES.items()
            ),
        )
    )


def edges(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ: best and largest rate at a batch size and a momentum."""
    given = cell.settings
    setting = Setting(
        depth=3,
        updates=UPDATES[int(given["batch_size"])],
        width=int(given["width"]),
        batch_size=int(given["batch_size"]),
        momentum=float(given["momentum"]),
    )
    return _rows(cell, bench, Sweep(setting, tuple(10.0**k for k in BOTH), rounds=2))


def scale(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ: loss at the best rate, for a small net and a large one."""
    width, updates = SCALES[str(cell.settings["scale"])]
    setting = Setting(depth=3, updates=updates, width=width)
    gammas = tuple(10.0**k for k in SCALE_DECADES)
    return _rows(cell, bench, Sweep(setting, gammas, per_decade=3, span=1.0))


def _rows(cell: Cell, bench: Bench, asked: Sweep) -> list[Row]:
    asked = replace(asked, fault=str(cell.settings["fault"]))
    runs = sweep.run(asked, seed(int(cell.settings["repetition"]), bench))
    found: list[Row] = []
    for gamma in asked.gammas:
        low, high = sweep.edge(runs, gamma)
        learned = [
            one.loss for one in runs if one.gamma == gamma and one.state is sweep.State.LEARNED
        ]
        found.append(
            {
                "gamma": round(math.log10(gamma), 3),
                "best": sweep.best(runs, gamma),
                "largest": (low + high) / 2,
                "loss": min(learned, default=math.nan),
            }
        )
    return found


def passes(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ: loss on fresh inputs after as many updates on a smaller set."""
    given, decades = cell.settings, list(curves.TUNED)
    plain = Setting(depth=3, updates=300, width=int(given["width"]))
    count = int(given["passes"])
    examples = plain.updates * plain.batch_size // count if count > 1 else 0
    setting = faults.altered(replace(plain, examples=examples), str(given["fault"]))
    name = seed(int(given["repetition"]), bench)
    gammas = torch.tensor(curves.divisors(cell, decades), dtype=torch.float64)
    inspector = Inspector(setting, nets.start(setting, name), nets.probe(setting, 2048))
    found = dict.fromkeys(range(len(decades)), math.nan)

    def watch(moment: Moment) -> None:
        losses = inspector.losses(moment.net, gammas[moment.runs]).tolist()
        found.update(zip(moment.runs.tolist(), losses, strict=True))

    rates = [10.0**rate for rate in curves.TUNED.values()]
    nets.train(setting, name, gammas.tolist(), rates, watch=watch, at=(setting.updates,))
    return [{"gamma": k, "loss": found[r]} for r, k in enumerate(decades)]


# ------------------------------------------------------------------ numbers


def shift(tables: Tables, gamma: int, column: str, small: float, large: float) -> Sample:
    """Decades by which the largest rate grows between two values of an axis."""
    at = {"momentum": 0.0} if column == "batch_size" else {"batch_size": 64}
    ends = [
        sample(tables[EDGES], "largest", gamma=gamma, **{column: value}, **at)
        for value in (small, large)
    ]
    return ends[1] - ends[0]


def gap(tables: Tables, gamma: int) -> Sample:
    """log₁₀ of the loss after 64 passes over that on fresh data, after as many updates."""
    ends = [sample(tables[PASSES], "loss", gamma=gamma, passes=k) for k in (1, 64)]
    return np.log10(ends[1] / ends[0])


def best_gamma(tables: Tables, name: str) -> Sample:
    """log₁₀ of the γ with the smallest loss at its own best rate."""
    part = tables[SCALE].filter((pl.col("scale") == name) & pl.col("loss").is_finite())
    least = part.sort("loss").group_by("repetition", maintain_order=True).first()
    return sample(least, "gamma")


def moves(tables: Tables) -> Sample:
    """Decades by which the best γ of the large net lies above that of the small one."""
    return best_gamma(tables, "large") - best_gamma(tables, "small")


def regret(tables: Tables) -> Sample:
    """Loss of the large net at the small one's best γ over its own least: 1 if it holds."""
    wide = tables[SCALE].filter(pl.col("scale") == "large")
    wide = wide.pivot("gamma", index="repetition", values="loss").sort("repetition")
    losses = wide.drop("repetition").to_numpy()
    gammas = np.array([float(name) for name in wide.columns[1:]])
    chosen = best_gamma(tables, "small")
    taken = [losses[i, int(np.argmin(abs(gammas - g)))] for i, g in enumerate(chosen)]
    return np.array(taken) / np.nanmin(losses, 1)


def change(tables: Tables, column: str) -> Sample:
    """A quantity at γ = 100 less that at γ = 10⁻³, after training."""
    rich, lazy = (sample(tables[curves.ENDS], column, gamma=k) for k in (2, -3))
    return rich - lazy


# ------------------------------------------------------------------ pictures


def edge_picture(tables: Tables, column: str) -> Picture:
    """The largest rate against batch size or momentum, by γ."""
    of_size = column == "batch_size"
    part = tables[EDGES].filter(pl.col("momentum") == 0 if of_size else pl.col("batch_size") == 64)
    shown = points(
        part.with_columns(pl.col("gamma").cast(pl.Int64).cast(pl.String).alias("name")),
        x=column,
        y="largest",
        series="name",
    )
    return Picture(
        title=Text("The largest rate that learns.", "学習できる最大の学習率。"),
        x=Axis(Text("batch size (examples)", "バッチサイズ（件）"), log=True, base=2)
        if of_size
        else Axis(Text("momentum β", "モーメンタムβ")),
        y=RATE,
        points=shown,
        series={"-3": Text("γ = 10⁻³", "γ＝10⁻³"), "1": Text("γ = 10", "γ＝10")},
        caption=captioned(
            shown,
            "Depth 3, T = 100; at batch size 1, T = 400.",
            "深さ3、T＝100（バッチサイズ1ではT＝400）。",
        ),
    )


def gamma_picture(
    tables: Tables, table: str, column: str, split: str, names: dict[str, Text], y: Axis
) -> Picture:
    """A quantity against γ, a series for each value of another column."""
    told = tables[table].with_columns(pl.col(split).cast(pl.String).alias("name"))
    shown = points(told, x="gamma", y=column, series="name")
    return Picture(
        title=say_against(y.title),
        x=GAMMA,
        y=y,
        points=shown,
        series=names,
        caption=captioned(shown, "Depth 3.", "深さ3。"),
    )


def say_against(title: Text) -> Text:
    """A title that names both axes."""
    return Text(f"Against γ: {title.en}.", f"γに対する{title.ja}。")


PASSES_PICTURE = functools.partial(
    gamma_picture,
    table=PASSES,
    column="loss",
    split="passes",
    names={str(k): Text(f"{k} passes", f"{k}周") for k in NUMBERS_OF_PASSES},
    y=Axis(
        Text("loss on fresh inputs after 300 updates", "300回の更新後の新しい入力での損失"), True
    ),
)
SCALE_PICTURE = functools.partial(
    gamma_picture,
    table=SCALE,
    column="loss",
    split="scale",
    names={name: Text(f"width {w}, T = {T}", f"幅{w}、T＝{T}") for name, (w, T) in SCALES.items()},
    y=BEST_LOSS,
)
END_NAMES = {
    "silent": (
        Axis(Text("share of hidden activations that are 0", "0である隠れ層の活性の割合")),
        {"silent": Text("after training", "学習後")},
    ),
    "signal": (
        Axis(Text("|G|²/tr Σ, one over the noise scale", "|G|²/tr Σ（ノイズスケールの逆数）")),
        {"signal before": Text("before training", "学習前"), "signal": Text("after", "学習後")},
    ),
}


def end_picture(tables: Tables, column: str) -> Picture:
    """Sparsity or signal-to-noise against γ."""
    y, names = END_NAMES[column]
    return curves.end_picture(tables, columns=names, title=say_against(y.title), y=y)


# ------------------------------------------------------------------ findings


class Asked(NamedTuple):
    """One finding: its name, what is measured, of what unit, what is drawn, what it means."""

    id: str
    sentence: Text
    measured: Text
    values: Callable[[Tables], Sample]
    picture: Callable[[Tables], Picture]
    unit: str = ""


DECADES = "decades"
MEANING = Text(
    "Measured here beyond the source, for small nets; check it on yours.",
    "論文にない測定です。小さなネットでの結果なので、ご自身のモデルでも確かめてください。",
)
LAZY_AND_RICH = ((-3, "lazy", Text("γ = 10⁻³", "γ＝10⁻³")), (1, "rich", Text("γ = 10", "γ＝10")))


def asked() -> tuple[Asked, ...]:
    """What is measured beyond the source."""
    made: list[Asked] = []
    for gamma, name, words in LAZY_AND_RICH:
        grows = functools.partial(shift, gamma=gamma)
        made += [
            Asked(
                f"batch-size-{name}",
                Text(
                    f"At {words.en}, from batch size 8 to 512 the largest rate moves by:",
                    f"{words.ja}で、バッチサイズを8から512にしたときの最大の学習率の変化：",
                ),
                Text("decades", "桁"),
                functools.partial(grows, column="batch_size", small=8, large=512),
                functools.partial(edge_picture, column="batch_size"),
                DECADES,
            ),
            Asked(
                f"momentum-{name}",
                Text(
                    f"At {words.en}, momentum of 0.9 moves the largest rate by:",
                    f"{words.ja}で、モーメンタム0.9による最大の学習率の変化：",
                ),
                Text("decades (1/(1−β) would be 1)", "桁（1/(1−β)なら1）"),
                functools.partial(grows, column="momentum", small=0.0, large=0.9),
                functools.partial(edge_picture, column="momentum"),
                DECADES,
            ),
            Asked(
                f"passes-{name}",
                Text(
                    f"At {words.en}, 64 passes over a 64th of the data instead of fresh ones "
                    "change the loss by:",
                    f"{words.ja}で、新しいデータの代わりに64分の1を64周したときの損失の変化：",
                ),
                Text("log₁₀ of the ratio on fresh inputs", "新しい入力での損失の比のlog₁₀"),
                functools.partial(gap, gamma=gamma),
                PASSES_PICTURE,
            ),
        ]
    return (
        *made,
        Asked(
            "best-gamma-moves",
            Text(
                "From width 32 and T = 150 to width 128 and T = 600, the best γ moves by:",
                "幅32・T＝150から幅128・T＝600にしたときの最良のγの変化：",
            ),
            Text("decades", "桁"),
            moves,
            SCALE_PICTURE,
            DECADES,
        ),
        Asked(
            "small-gamma-holds",
            Text(
                "The small net's best γ, taken for the large one, costs:",
                "小さいネットで最良のγを大きいネットに使ったときの損失：",
            ),
            Text("loss over the least one", "最小の損失に対する比"),
            regret,
            SCALE_PICTURE,
        ),
        Asked(
            "sparsity",
            Text(
                "From γ = 10⁻³ to γ = 100 the share of silent activations changes by:",
                "γを10⁻³から100にしたときの、0である活性の割合の変化：",
            ),
            Text("share of activations of the last hidden layer", "最後の隠れ層の活性の割合"),
            functools.partial(change, column="silent"),
            functools.partial(end_picture, column="silent"),
        ),
        Asked(
            "signal-to-noise",
            Text(
                "From γ = 10⁻³ to γ = 100 the gradient's signal over its noise, after training, "
                "changes by:",
                "γを10⁻³から100にしたときの、学習後の勾配の信号とノイズの比の変化：",
            ),
            Text("|G|²/tr Σ, per example", "|G|²/tr Σ（1件あたり）"),
            functools.partial(change, column="signal"),
            functools.partial(end_picture, column="signal"),
            "1/examples",
        ),
    )


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """None."""
    return ()


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """Everything here."""
    few, many = int(parameters["beyond_seeds"]), int(parameters["seeds"])
    return tuple(
        finding(
            many if one.id in ("sparsity", "signal-to-noise") else few,
            id=one.id,
            sentence=one.sentence,
            measured=one.measured,
            values=one.values,
            picture=one.picture,
            meaning=MEANING,
            unit=one.unit,
        )
        for one in asked()
    )
