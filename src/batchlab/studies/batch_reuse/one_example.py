"""Batches of one example: a second gradient on the same example (arnaboldi2024).

y = He₃(z), one relu neuron, a = 1; w of length 1 moves by 0.01/d an example. Extra-gradient first
looks 0.1/d down the slope, on the same example.
"""

from __future__ import annotations

import functools

import numpy as np
import polars as pl

from batchlab._text import Text
from batchlab.studies.batch_reuse.simulate import Setting, simulate
from batchlab.studies.batch_reuse.words import (
    CHECK_ONE,
    COSINE,
    captioned,
    numbers,
    sample,
    seeds,
)
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

TABLE = "one example"
RATE, LOOK = 0.01, 0.1
"""η and ρ of W, whose rows have length √d: over d, those of w."""
END, EVERY = 50, 5
"""Examples over d, at the end and between two records."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """Extra-gradient at every dimension, plain steps at the first."""
    n, fault = parameters["single_seeds"], parameters["fault"]
    dimensions = numbers(parameters["single_dimensions"])
    asked = [(d, True) for d in dimensions] + [(dimensions[0], False)]
    return tuple(
        Cell(
            TABLE,
            {"inputs": d, "looks": looks, "seeds": n, "fault": fault},
            (0.02 if looks else 0.013) * d * max(1.0, int(parameters["single_seeds"]) / 256),
        )
        for d, looks in asked
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a repetition and five times as many examples as features."""
    d, fault = int(cell.settings["inputs"]), cell.settings["fault"]
    looks = bool(cell.settings["looks"]) and fault != "no look-ahead"
    rate = RATE * 256 / d if fault == "rate falls" else RATE
    asked = Setting(
        target="He3(z)",
        inputs=d,
        batch_size=1,
        learning_rate=rate,
        updates=END * d,
        look_ahead=LOOK if looks or fault == "looks ahead" else 0.0,
        activation="relu",
        every=EVERY * d,
    )
    cosines = simulate(asked, seeds(int(cell.settings["seeds"]), bench)).cosines[..., 0, 0]
    return [
        {"repetition": i, "share": EVERY * t, "cosine": float(cosines[i, t])}
        for i in range(len(cosines))
        for t in range(END // EVERY + 1)
    ]


# ------------------------------------------------------------------ numbers


def dimensions(tables: Tables) -> list[int]:
    """Those of extra-gradient, ascending."""
    return sorted(tables[TABLE].filter(pl.col("looks"))["inputs"].unique().to_list())


def after(tables: Tables, share: int, looks: bool = True) -> Sample:
    """Cosine after so many examples over d, mean of the dimensions; one a repetition."""
    sizes = dimensions(tables) if looks else dimensions(tables)[:1]
    found = [sample(tables[TABLE], "cosine", looks=looks, share=share, inputs=d) for d in sizes]
    return np.mean(found, axis=0)


def halves(tables: Tables) -> Sample:
    """Cosine gained in the second half of the examples, less half of that in the first.

    With equal halves it is half of either; nothing learned gives 0, all of it in the second half
    four times as much, all in the first twice as much of the other sign. One a repetition.
    """
    first = after(tables, END // 2)
    return after(tables, END) - 1.5 * first


def between(tables: Tables) -> Sample:
    """Cosine at the end, at the largest dimension less that at the smallest."""
    last, first = (
        sample(tables[TABLE], "cosine", looks=True, share=END, inputs=d)
        for d in (dimensions(tables)[-1], dimensions(tables)[0])
    )
    return last - first


# ------------------------------------------------------------------ picture


def picture(tables: Tables) -> Picture:
    """Cosine against examples over d, extra-gradient at every dimension, and plain."""
    name = pl.format("{} {}", pl.col("looks"), pl.col("inputs"))
    shown = points(
        tables[TABLE].with_columns(name.alias("name")), x="share", y="cosine", series="name"
    )
    series = {
        f"true {d}": Text(f"extra-gradient, d = {d}", f"外挿勾配、d＝{d}")
        for d in dimensions(tables)
    }
    first = dimensions(tables)[0]
    return Picture(
        title=Text(
            "A second gradient on the same example finds what plain steps do not.",
            "同じデータでもう一度勾配を取れば、普通の更新では見つからない方向が見つかる。",
        ),
        x=Axis(Text("examples / d", "データ数÷d")),
        y=COSINE,
        points=shown,
        series={
            **series,
            f"false {first}": Text(f"plain, d = {first}", f"普通の更新、d＝{first}"),
        },
        caption=captioned(
            shown,
            "He₃, one relu neuron, batch size 1, fresh examples.",
            "He₃、reluニューロン1個、バッチサイズ1、毎回新しいデータ。",
        ),
    )


# ------------------------------------------------------------------ claims


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Extra-gradient learns, steadily and in T ∝ d; plain steps do not."""
    n = int(parameters["single_seeds"])
    return (_finds(n), _steady(n), _linear(n), _plain(n))


def _finds(n: int) -> Claim:
    return Claim(
        id="second-gradient-finds",
        sentence=Text(
            "With batches of one, a second gradient on the same example finds the direction "
            "of He₃ in a number of examples in proportion to d.",
            "バッチサイズ1でも、同じデータで勾配を2回取れば、dに比例するデータ数でHe₃の方向が"
            "見つかります。",
        ),
        source=f"arnaboldi2024; number {CHECK_ONE}: −.069 and −.070",
        measured=Text(
            "cosine with the target's direction after 50 d examples, mean of the dimensions",
            "50d件の後の、正解の方向との余弦（次元についての平均）",
        ),
        low=-0.08,
        high=-0.06,
        expected=-0.07,
        spread=0.013,
        n=n,
        values=functools.partial(after, share=END),
        picture=picture,
        meaning=Text(
            "Re-use helps without any stored data set: two updates on what has just been read "
            "suffice.",
            "データを保存しておかなくても再利用は効きます。読んだばかりのデータで2回更新すれば十分です。",
        ),
        twin={"fault": "no look-ahead"},
    )


def _steady(n: int) -> Claim:
    return Claim(
        id="second-gradient-is-steady",
        sentence=Text(
            "It finds as much of it in the second half of the examples as in the first.",
            "データの後半でも、前半と同じだけ近づきます。",
        ),
        source=f"arnaboldi2024: growth linear in T/d; a quarter of the number {CHECK_ONE}",
        measured=Text(
            "change of the cosine between 25 d and 50 d examples, less half of that up to 25 d, "
            "mean of the dimensions",
            "25d件から50d件までの余弦の変化から、25d件までの変化の半分を引いた値"
            "（次元についての平均）",
        ),
        low=-0.026,
        high=-0.009,
        expected=-0.0174,
        spread=0.014,
        n=n,
        values=halves,
        picture=picture,
        meaning=Text(
            "There is no plateau to sit out: twice the examples, twice the overlap, as long as it "
            "is small.",
            "停滞期はありません。重なりが小さいうちは、データを2倍にすれば重なりも2倍になります。",
        ),
        twin={"fault": "no look-ahead"},
    )


def _linear(n: int) -> Claim:
    return Claim(
        id="second-gradient-any-dimension",
        sentence=Text(
            "Examples in proportion to d give the same overlap at any d.",
            "データ数をdに比例させれば、重なりはdによりません。",
        ),
        source=f"arnaboldi2024; {CHECK_ONE}",
        measured=Text(
            "cosine after 50 d examples at the largest d, less that at the smallest",
            "50d件の後の余弦の差（最大のd−最小のd）",
        ),
        low=-0.01,
        high=0.01,
        expected=0.0,
        spread=0.018,
        n=n,
        values=between,
        picture=picture,
        meaning=Text(
            "One pass needs far more than d examples for such a target; looking twice, d is "
            "enough in order of magnitude.",
            "このような目標を一度見るだけで学ぶにはdよりはるかに多くのデータが要りますが、"
            "2回見ればd程度で足ります。",
        ),
        twin={"fault": "rate falls"},
    )


def _plain(n: int) -> Claim:
    return Claim(
        id="one-gradient-finds-none",
        sentence=Text(
            "Plain updates on the same examples find nothing.",
            "同じデータでの普通の更新では、何も見つかりません。",
        ),
        source=f"arnaboldi2024; number {CHECK_ONE}: −.003",
        measured=Text(
            "cosine with the target's direction after 50 d examples, at the smallest d",
            "50d件の後の、正解の方向との余弦（最小のd）",
        ),
        low=-0.01,
        high=0.01,
        expected=0.0,
        spread=0.024,
        n=n,
        values=functools.partial(after, share=END, looks=False),
        picture=picture,
        meaning=Text(
            "It is the second look that teaches, not the number of updates.",
            "学びを生むのは更新の回数ではなく、2回目に見ることです。",
        ),
        twin={"fault": "looks ahead"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """None."""
    return ()
