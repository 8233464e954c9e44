"""One neuron and one direction: what two steps on the same batch find that fresh ones do not.

p = 1, a = 1, tanh, α = 4, η = 0.3 of the sum, y = He_j(z)/√j!, T = 6 updates.
"""

from __future__ import annotations

import functools
import math

import polars as pl

from batchlab._text import Text
from batchlab.studies.batch_reuse import faults
from batchlab.studies.batch_reuse.simulate import Setting, simulate
from batchlab.studies.batch_reuse.words import (
    CHECK,
    COSINE,
    INPUTS,
    SOLVED,
    STEPS,
    THEORIES,
    WAYS,
    captioned,
    numbers,
    sample,
    seeds,
    slope,
    solver_error,
    theory_seconds,
    widened,
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
from batchlab.theory import dmft

TABLE, THEORY = "early", "early theory"
ALPHA, RATE, UPDATES = 4, 0.3, 6
TARGETS = {j: f"He{j}(z)/sqrt({math.factorial(j)})" for j in (2, 3, 4)}
"""Degree → a target of variance 1."""
HARD = (2, 4)
SLOPE_OF_TANH = 0.605706
"""E[1 − tanh²(g)], g ~ N(0, 1)."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """He₃ both ways, He₂ and He₄ on the same batch, at every dimension; then the theory."""
    shared = {"seeds": parameters["seeds"], "fault": parameters["fault"]}
    asked = [(3, "multi"), (3, "single"), *((degree, "multi") for degree in HARD)]
    found = [
        Cell(
            TABLE,
            {"degree": degree, "way": way, "inputs": d, **shared},
            3e-6 * d * int(parameters["seeds"]),
        )
        for degree, way in asked
        for d in numbers(parameters["dimensions"])
    ]
    exact = {"samples": parameters["theory_samples"], "fault": parameters["fault"]}
    return (
        *found,
        *(Cell(THEORY, {"way": way, **exact}, theory_seconds(parameters)) for way in WAYS),
    )


def setting(inputs: int, reuse: int, degree: int = 3, **changes: object) -> Setting:
    """The experiment at a dimension.

    Args:
        inputs: d.
        reuse: Updates on a batch.
        degree: Of the target.
        changes: Other fields of the setting.
    """
    plain = {
        "target": TARGETS[degree],
        "inputs": inputs,
        "batch_size": ALPHA * inputs,
        "learning_rate": RATE,
        "updates": UPDATES,
        "reuse": reuse,
    }
    return Setting(**(plain | changes))  # pyright: ignore[reportArgumentType]


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a repetition and t."""
    given, fault = cell.settings, str(cell.settings["fault"])
    d, degree = int(given["inputs"]), int(given["degree"])
    if fault == "easy target" and degree in HARD:
        degree = 3
    rate = RATE * math.sqrt(250 / d) if fault == "rate falls" else RATE
    asked = setting(d, faults.reuse(str(given["way"]), UPDATES, fault), degree, learning_rate=rate)
    paths = simulate(asked, seeds(int(given["seeds"]), bench))
    columns = {
        "cosine": paths.cosines[..., 0, 0],
        "overlap": paths.overlaps[..., 0, 0],
        "seen": paths.seen[..., 0],
    }
    return [
        {"repetition": i, "t": t, **{name: float(x[i, t]) for name, x in columns.items()}}
        for i in range(int(given["seeds"]))
        for t in range(UPDATES + 1)
    ]


def predicted(cell: Cell, bench: Bench) -> list[Row]:
    """Overlap and cosine of the theory at every t."""
    way = "single" if cell.settings["fault"] == "theory of fresh" else str(cell.settings["way"])
    found = dmft(
        TARGETS[3],
        alpha=ALPHA,
        learning_rate=RATE,
        steps=UPDATES,
        width=1,
        activation="tanh",
        passes=way,  # pyright: ignore[reportArgumentType]
        samples=int(cell.settings["samples"]),
        seed=bench.seed,
    )
    m, q = found.overlaps.value[:, 0, 0], found.selves.value[:, 0, 0]
    errors = solver_error(found.overlaps.of(lambda each: each[..., 0, 0]))
    columns = zip(m.tolist(), (m / q.sqrt()).tolist(), errors.tolist(), strict=True)
    return [{"t": t, "overlap": a, "cosine": c, "error": e} for t, (a, c, e) in enumerate(columns)]


# ------------------------------------------------------------------ numbers


def largest(tables: Tables) -> int:
    """The largest dimension."""
    return int(tables[TABLE]["inputs"].max())  # pyright: ignore[reportArgumentType]


def at_largest(tables: Tables, column: str, way: str, t: int) -> Sample:
    """Of He₃ at the largest dimension; one a repetition."""
    return sample(tables[TABLE], column, degree=3, way=way, t=t, inputs=largest(tables))


def per_doubling(tables: Tables) -> Sample:
    """Change of the cosine after two steps when d doubles; one a repetition."""
    found = slope(tables[TABLE], "cosine", log=False, degree=3, way="multi", t=2)
    return found * math.log(2)


def power(tables: Tables, degree: int, way: str) -> Sample:
    """Power of d with which the size of the cosine after two steps moves; one a repetition."""
    return slope(tables[TABLE], "cosine", log=True, degree=degree, way=way, t=2)


def off_theory(tables: Tables) -> Sample:
    """Overlap at the end of multi-pass training, less that of the theory, its error included."""
    exact = tables[THEORY].filter((pl.col("way") == "multi") & (pl.col("t") == UPDATES))
    found = at_largest(tables, "overlap", "multi", UPDATES) - exact["overlap"].item()
    return widened(found, exact["error"].item())


# ------------------------------------------------------------------ pictures


def curves(tables: Tables, column: str = "cosine") -> Picture:
    """He₃ at the largest dimension, both ways, with the theory."""
    d = largest(tables)
    part = tables[TABLE].filter((pl.col("degree") == 3) & (pl.col("inputs") == d))
    shown = points(part, x="t", y=column, series="way")
    lines = tables[THEORY].sort("way", "t")
    return Picture(
        title=Text(
            "From the second step on, the same batch shows a direction that fresh ones hide.",
            "同じバッチなら2回目の更新から方向が見つかり、新しいバッチでは見つからない。",
        ),
        x=STEPS,
        y=COSINE,
        points=shown,
        series={**WAYS, **THEORIES},
        caption=captioned(
            shown,
            f"d = {d}, He₃, one tanh neuron, α = 4, η = 0.3; lines: mean-field theory.",
            f"d＝{d}、He₃、tanhニューロン1個、α＝4、η＝0.3。線は平均場理論です。",
        ),
        theory=tuple(
            {"x": row["t"], "y": row["cosine"], "series": f"theory {row['way']}"}
            for row in lines.iter_rows(named=True)
        ),
    )


def against_d(tables: Tables) -> Picture:
    """Cosine after two steps against the dimension, both ways."""
    part = tables[TABLE].filter((pl.col("degree") == 3) & (pl.col("t") == 2))
    shown = points(part, x="inputs", y="cosine", series="way")
    exact = tables[THEORY].filter(pl.col("t") == 2)
    return Picture(
        title=Text(
            "What two steps on the same batch find does not depend on the dimension.",
            "同じバッチで2回更新して見つかる量は、次元によらない。",
        ),
        x=INPUTS,
        y=COSINE,
        points=shown,
        series={**WAYS, **THEORIES},
        caption=captioned(
            shown,
            "He₃ after two updates; n = 4d; lines: mean-field theory.",
            "He₃、2回の更新後、n＝4d。線は平均場理論です。",
        ),
        theory=tuple(
            {"x": d, "y": row["cosine"], "series": f"theory {row['way']}"}
            for row in exact.iter_rows(named=True)
            for d in sorted(part["inputs"].unique().to_list())
        ),
    )


SIZES = {
    "He3 single": Text("He₃, fresh batches", "He₃・新しいバッチ"),
    "He2 multi": Text("He₂, same batch", "He₂・同じバッチ"),
    "He4 multi": Text("He₄, same batch", "He₄・同じバッチ"),
    "He3 multi": Text("He₃, same batch", "He₃・同じバッチ"),
    "root": Text("1/√d", "1/√d"),
}


def sizes(tables: Tables) -> Picture:
    """Size of the cosine after two steps against the dimension."""
    name = pl.format("He{} {}", pl.col("degree"), pl.col("way"))
    part = tables[TABLE].filter(pl.col("t") == 2)
    part = part.with_columns(name.alias("name"), pl.col("cosine").abs().alias("size"))
    shown = points(part, x="inputs", y="size", series="name")
    dimensions = sorted(part["inputs"].unique().to_list())
    return Picture(
        title=Text(
            "Even targets, and He₃ on fresh batches, leave no more than chance does.",
            "偶関数の目標や、新しいバッチでのHe₃では、偶然以上には近づかない。",
        ),
        x=INPUTS,
        y=Axis(
            Text("size of the cosine after two updates", "2回の更新後の余弦の絶対値"), log=True
        ),
        points=shown,
        series=SIZES,
        caption=captioned(shown, "n = 4d.", "n＝4d。"),
        theory=tuple({"x": d, "y": d**-0.5, "series": "root"} for d in dimensions),
    )


# ------------------------------------------------------------------ claims


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Two steps, whatever the dimension; none on fresh batches; none for even targets."""
    n = int(parameters["seeds"])
    return (
        _two_steps(n),
        _any_dimension(n),
        _single_none(n),
        _single_falls(n),
        *(_even(n, degree) for degree in HARD),
        _hidden_progress(n),
        _as_theory(n),
    )


FOUND = Text(
    "cosine with the target's direction after two updates, at the largest d",
    "2回の更新後の、正解の方向との余弦（最大のd）",
)


def _two_steps(n: int) -> Claim:
    return Claim(
        id="two-steps-suffice",
        sentence=Text(
            "Two updates on the same batch find a direction that no linear statistic of the "
            "labels shows (He₃).",
            "ラベルとの線形な相関がまったくない方向（He₃）も、同じバッチで2回更新すれば見つかります。",
        ),
        source=f"dandi2024; number {CHECK}: −.113 to −.123",
        measured=FOUND,
        low=-0.14,
        high=-0.09,
        expected=-0.116,
        spread=0.026,
        n=n,
        values=functools.partial(at_largest, column="cosine", way="multi", t=2),
        picture=curves,
        meaning=Text(
            "Using a batch again is not only cheaper than fetching a new one: it can teach what "
            "one pass over any fixed number of batches of that size does not.",
            "バッチの再利用は、データの取得を節約するだけではありません。同じ大きさのバッチを決まった"
            "個数だけ一度ずつ使っても学べないことを、学べる場合があります。",
        ),
        popular=Text(
            "“Repeating data only memorises it”: here the second look finds the structure.",
            "「同じデータの繰り返しは暗記にすぎない」とは限りません。ここでは2回目に構造が見つかります。",
        ),
        depends=Text(
            "On using the batch again: gradient flow of the population does not do it.",
            "バッチを再び使うことが条件です（母集団の勾配流では起きません）。",
        ),
        twin={"fault": "fresh for re-used"},
    )


def _any_dimension(n: int) -> Claim:
    return Claim(
        id="same-at-any-dimension",
        sentence=Text(
            "How much two updates find does not depend on the dimension, with examples in "
            "proportion to it.",
            "データ数を次元に比例させれば、2回の更新で見つかる量は次元によりません。",
        ),
        source=f"dandi2024; {CHECK}",
        measured=Text(
            "change of the cosine after two updates when d doubles, over all d",
            "dが2倍になったときの、2回の更新後の余弦の変化（すべてのdから）",
        ),
        low=-0.012,
        high=0.012,
        expected=0.0,
        spread=0.023,
        n=n,
        values=per_doubling,
        picture=against_d,
        meaning=Text(
            "Two looks at 4 d examples suffice at any size of the input.",
            "入力がどれほど大きくても、4d件のデータを2回見れば足ります。",
        ),
        twin={"fault": "rate falls"},
    )


def _single_none(n: int) -> Claim:
    return Claim(
        id="one-pass-finds-none",
        sentence=Text(
            "On fresh batches the same two updates find nothing on average.",
            "新しいバッチでは、同じ2回の更新をしても平均して何も見つかりません。",
        ),
        source=f"dandi2024; {CHECK}",
        measured=FOUND,
        low=-0.01,
        high=0.01,
        expected=0.0,
        spread=0.028,
        n=n,
        values=functools.partial(at_largest, column="cosine", way="single", t=2),
        picture=curves,
        meaning=Text(
            "Fresh examples cost more and here teach less, update for update.",
            "新しいデータは費用がかかるうえ、ここでは更新1回あたりに学べることも少なくなります。",
        ),
        twin={"fault": "re-used for fresh"},
    )


def _falls(n: int, degree: int, way: str, **given: object) -> Claim:
    """The size of the cosine falls as d^(−1/2)."""
    return Claim(
        measured=Text(
            "power of d with which the size of the cosine after two updates falls",
            "2回の更新後の余弦の絶対値が、dの何乗で小さくなるか",
        ),
        low=-0.65,
        high=-0.35,
        expected=-0.5,
        spread=0.51,
        n=n,
        values=functools.partial(power, degree=degree, way=way),
        picture=sizes,
        **given,  # pyright: ignore[reportArgumentType]
    )


def _single_falls(n: int) -> Claim:
    return _falls(
        n,
        3,
        "single",
        id="one-pass-is-chance",
        sentence=Text(
            "What single runs on fresh batches find is chance: it falls as 1/√d.",
            "新しいバッチで個々の学習が見つける量は偶然によるもので、1/√dで小さくなります。",
        ),
        source=f"dandi2024; {CHECK}: .103 at d = 250, .023 at 4000",
        meaning=Text(
            "A single run may look as if it had found something; repeat it before you believe it.",
            "1回だけの学習では何かを見つけたように見えることがあります。繰り返して確かめてください。",
        ),
        twin={"fault": "re-used for fresh"},
    )


def _even(n: int, degree: int) -> Claim:
    index = "₂" if degree == 2 else "₄"
    return _falls(
        n,
        degree,
        "multi",
        id=f"even-he{degree}-stays-hard",
        sentence=Text(
            f"An even target, He{index}, stays hard on the same batch, too: only chance is found.",
            f"偶関数の目標He{index}は、同じバッチを使っても難しいままで、偶然の分しか見つかりません。",
        ),
        source=f"dandi2024; {CHECK}",
        meaning=Text(
            "Re-use does not break symmetries; a start that is not symmetric, or more steps, has "
            "to.",
            "再利用では対称性は破れません。対称でない初期値や、より多くの更新が必要です。",
        ),
        twin={"fault": "easy target"},
    )


def _hidden_progress(n: int) -> Claim:
    expected = RATE * SLOPE_OF_TANH
    return Claim(
        id="progress-is-hidden",
        sentence=Text(
            "After the first update the weights point nowhere, and yet the batch's own "
            "pre-activations already know its labels.",
            "1回目の更新の後、重みはまだどの方向も向いていませんが、そのバッチの活性化前の値はすでに"
            "ラベルを含んでいます。",
        ),
        source="derived: h(1) holds −η l'(h(0), y), so that E[h(1) y] = η E[s'(h)]",
        measured=Text(
            "mean of h·y over the batch after the first update, at the largest d",
            "1回目の更新後の、バッチ全体でのh・yの平均（最大のd）",
        ),
        low=expected - 0.01,
        high=expected + 0.01,
        expected=expected,
        spread=0.015,
        n=n,
        values=functools.partial(at_largest, column="seen", way="multi", t=1),
        picture=seen,
        meaning=Text(
            "No measure of the weights, nor the loss on other data, shows that anything was "
            "learned; the second step turns it into a direction.",
            "この段階では重みの指標にも別データでの損失にも進歩は現れません。2回目の更新がそれを方向に変えます。",
        ),
        twin={"fault": "fresh for re-used"},
    )


def seen(tables: Tables) -> Picture:
    """What the batch of the next update shows before it."""
    d = largest(tables)
    part = tables[TABLE].filter((pl.col("degree") == 3) & (pl.col("inputs") == d))
    part = part.filter(pl.col("t") < UPDATES)
    shown = points(part, x="t", y="seen", series="way")
    return Picture(
        title=Text(
            "One update leaves the labels in the batch's own pre-activations.",
            "1回の更新で、ラベルがそのバッチの活性化前の値に残る。",
        ),
        x=STEPS,
        y=Axis(Text("mean of h y over the batch", "バッチでのh・yの平均")),
        points=shown,
        series={**WAYS, "predicted": Text("predicted at t = 1", "t＝1での予測")},
        caption=captioned(shown, f"d = {d}, He₃.", f"d＝{d}、He₃。"),
        theory=tuple(
            {"x": t, "y": RATE * SLOPE_OF_TANH, "series": "predicted"} for t in (0.5, 1, 1.5)
        ),
    )


def _as_theory(n: int) -> Claim:
    return Claim(
        id="one-direction-as-theory",
        sentence=Text(
            "After six updates on the same batch the overlap is that of mean-field theory (He₃).",
            "同じバッチで6回更新した後の重なりは、平均場理論の値と一致します（He₃）。",
        ),
        source=SOLVED,
        measured=Text(
            "overlap with the target's direction, less that of the theory, at the largest d",
            "正解の方向との重なりと理論値との差（最大のd）",
        ),
        low=-0.015,
        high=0.015,
        expected=0.0,
        spread=0.026,
        n=n,
        values=off_theory,
        picture=curves,
        meaning=Text(
            "What re-use will find can be computed before training, for such targets.",
            "このような目標については、再利用で何が見つかるかを学習前に計算できます。",
        ),
        twin={"fault": "theory of fresh"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """None."""
    return ()
