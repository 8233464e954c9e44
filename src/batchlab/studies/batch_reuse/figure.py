"""Two neurons and two directions: a staircase, a hidden direction, a symmetry (dandi2024).

p = k = 2, relu, a = ±1/√2 fixed, α = 3, η = 0.2 of the sum, T = 6. Of each target, *along* is the
overlap with the direction that a linear statistic of the labels shows, *residual* that with the
one at right angles to it.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from batchlab._text import Text
from batchlab.studies.batch_reuse import faults
from batchlab.studies.batch_reuse.simulate import Setting, along, residual, simulate
from batchlab.studies.batch_reuse.words import (
    INPUTS,
    SOLVED,
    STEPS,
    THEORIES,
    WAYS,
    captioned,
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

TABLE, THEORY = "figure", "figure theory"
ALPHA, RATE, UPDATES = 3, 0.2, 6
SPECIAL, SIGNS = 0.05, torch.tensor([-1.0, 1.0])
"""A fault: both neurons leave the symmetric direction by so much, the same way."""
SHRINKS = (16, 4, 1)
"""The symmetric target is also trained at the dimension over these."""


class Panel(NamedTuple):
    """A target of the figure.

    Attributes:
        target: f*.
        first: Unit vector that E[y z] points along.
        alike: Whether the residual overlaps of both neurons have the same sign; None where that is
            not known, and only their size counts.
        title: What is learned of it.
    """

    target: str
    first: tuple[float, float]
    alike: bool | None
    title: Text


ROOT = math.sqrt(0.5)
PANELS = {
    "stairs": Panel(
        "z1 + z1*z2",
        (1.0, 0.0),
        True,
        Text("z₁ + z₁z₂: both ways learn the second step.", "z₁＋z₁z₂：どちらでも2段目を学ぶ。"),
    ),
    "hidden": Panel(
        "tanh(He1(z1) + He3(z2))",
        (0.767832, -0.640651),
        False,
        Text(
            "tanh(z₁ + He₃(z₂)): only the same batch shows the hidden direction.",
            "tanh(z₁＋He₃(z₂))：隠れた方向は同じバッチでしか見つからない。",
        ),
    ),
    "symmetric": Panel(
        "tanh(z1) + tanh(z2)",
        (ROOT, ROOT),
        None,
        Text(
            "tanh z₁ + tanh z₂: neither way tells the two apart.",
            "tanh z₁＋tanh z₂：どちらの学習でも二つは区別されない。",
        ),
    ),
}
"""Name → target; the vector of ``hidden`` is the source's."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """Three targets both ways; the symmetric one at smaller dimensions, too; the theory."""
    d, fault = parameters["figure_dimension"], parameters["fault"]
    asked = [(panel, way, int(d)) for panel in PANELS for way in WAYS]
    asked += [("symmetric", "multi", int(d) // shrink) for shrink in SHRINKS if shrink > 1]
    found = [
        Cell(
            TABLE,
            {"panel": panel, "way": way, "inputs": size, "seeds": n, "fault": fault},
            1e-5 * size * n,
        )
        for panel, way, size in asked
        for n in [repetitions(parameters, panel)]
    ]
    exact = {"samples": parameters["theory_samples"], "fault": fault}
    return (
        *found,
        *(
            Cell(THEORY, {"panel": panel, "way": way, **exact}, theory_seconds(parameters))
            for panel in PANELS
            for way in WAYS
        ),
    )


def repetitions(parameters: Parameters, panel: str) -> int:
    """Many for the hidden direction, whose overlap is small."""
    return int(parameters["hidden_seeds" if panel == "hidden" else "figure_seeds"])


def split(
    overlaps: Float[Tensor, "*S T p k"], panel: Panel
) -> tuple[Float[Tensor, "*S T"], Float[Tensor, "*S T"]]:
    """Overlap along the first direction and at right angles to it, of both neurons together.

    The neurons' second layers have opposite signs. What they learn of an odd part of the target
    has, too, and half their difference is taken; of the second step, half their sum. Where
    neurons may specialise in any way it is √(r₁² + r₂²)/√2: one on z₁ and the other, of opposite
    sign, on z₂ have equal residuals r, of which half the difference would show nothing.

    Args:
        overlaps: M.
        panel: Whose directions.
    """
    first, other = along(overlaps, panel.first), residual(overlaps, panel.first)
    both = (first[..., 0] - first[..., 1]) / 2
    if panel.alike is None:
        return both, other.square().mean(-1).sqrt()
    return both, (other[..., 0] + (1.0 if panel.alike else -1.0) * other[..., 1]) / 2


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a repetition and t."""
    given, fault = cell.settings, str(cell.settings["fault"])
    name = str(given["panel"])
    panel, target = PANELS[name], PANELS[name].target
    if fault == "no stairs" and name == "stairs":
        target = "z1 + 0*z2"
    if fault == "easy target" and name == "symmetric":
        target = "tanh(z1) + 2*tanh(z2)"
    asked = Setting(
        target=target,
        inputs=int(given["inputs"]),
        batch_size=ALPHA * int(given["inputs"]),
        learning_rate=RATE,
        updates=UPDATES,
        reuse=faults.reuse(str(given["way"]), UPDATES, fault),
        width=2,
        activation="relu",
    )
    overlaps = simulate(asked, seeds(int(given["seeds"]), bench)).overlaps
    if fault == "specialised" and name == "symmetric":
        overlaps = overlaps + SPECIAL * overlaps.new_tensor(panel.first).flip(0) * SIGNS
    first, other = split(overlaps, panel)
    return [
        {
            "repetition": i,
            "t": t,
            "along": float(first[i, t]),
            "residual": float(other[i, t]),
        }
        for i in range(int(given["seeds"]))
        for t in range(UPDATES + 1)
    ]


def predicted(cell: Cell, bench: Bench) -> list[Row]:
    """The theory's overlaps at every t."""
    panel = PANELS[str(cell.settings["panel"])]
    way = "single" if cell.settings["fault"] == "theory of fresh" else str(cell.settings["way"])
    found = dmft(
        panel.target,
        alpha=ALPHA,
        learning_rate=RATE,
        steps=UPDATES,
        width=2,
        passes=way,  # pyright: ignore[reportArgumentType]
        samples=int(cell.settings["samples"]),
        seed=bench.seed,
    )
    first, other = split(found.overlaps.value, panel)
    errors = solver_error(found.overlaps.of(lambda each: split(each, panel)[0]))
    return [
        {
            "t": t,
            "along": float(first[t]),
            "residual": float(other[t]),
            "error": float(errors[t]),
        }
        for t in range(UPDATES + 1)
    ]


# ------------------------------------------------------------------ numbers


def dimension(tables: Tables) -> int:
    """The dimension of the figure."""
    return int(tables[TABLE]["inputs"].max())  # pyright: ignore[reportArgumentType]


def end(tables: Tables, panel: str, way: str, column: str = "residual") -> Sample:
    """Overlap after six updates; one a repetition."""
    d = dimension(tables)
    return sample(tables[TABLE], column, panel=panel, way=way, inputs=d, t=UPDATES)


def off_theory(tables: Tables) -> Sample:
    """Overlap along the first direction of the hidden panel, less the theory's, its error
    included.
    """
    exact = exact_rows(tables, "hidden", "multi").filter(pl.col("t") == UPDATES)
    found = end(tables, "hidden", "multi", "along") - exact["along"].item()
    return widened(found, exact["error"].item())


def fresh_less_same(tables: Tables) -> Sample:
    """What fresh batches learn more of the staircase's second step; one a repetition."""
    return end(tables, "stairs", "single") - end(tables, "stairs", "multi")


def exact_rows(tables: Tables, panel: str, way: str) -> pl.DataFrame:
    """The theory's rows, by t."""
    table = tables[THEORY].filter((pl.col("panel") == panel) & (pl.col("way") == way))
    return table.sort("t")


def power(tables: Tables) -> Sample:
    """Power of d with which the size of the symmetric target's residual moves."""
    return slope(tables[TABLE], "residual", log=True, panel="symmetric", way="multi", t=UPDATES)


# ------------------------------------------------------------------ pictures


COLUMNS = {
    "along": Text("overlap with the direction that shows", "見えている方向との重なり"),
    "residual": Text("overlap at right angles to it", "それに直交する方向との重なり"),
}


def picture(tables: Tables, panel: str, column: str = "residual") -> Picture:
    """A panel of the figure: overlap or residual overlap, both ways, with the theory."""
    d = dimension(tables)
    part = tables[TABLE].filter((pl.col("panel") == panel) & (pl.col("inputs") == d))
    shown = points(part, x="t", y=column, series="way")
    return Picture(
        title=PANELS[panel].title,
        x=STEPS,
        y=Axis(COLUMNS[column]),
        points=shown,
        series={**WAYS, **THEORIES},
        caption=captioned(
            shown,
            f"d = {d}, α = 3, η = 0.2, two relu neurons; lines: mean-field theory.",
            f"d＝{d}、α＝3、η＝0.2、reluニューロン2個。線は平均場理論です。",
        ),
        theory=tuple(
            {"x": row["t"], "y": row[column], "series": f"theory {way}"}
            for way in WAYS
            for row in exact_rows(tables, panel, way).iter_rows(named=True)
        ),
    )


def shrinking(tables: Tables) -> Picture:
    """Size of the symmetric target's residual against the dimension."""
    part = tables[TABLE].filter(
        (pl.col("panel") == "symmetric") & (pl.col("way") == "multi") & (pl.col("t") == UPDATES)
    )
    part = part.with_columns(pl.col("residual").abs().alias("size"))
    shown = points(part, x="inputs", y="size", series="way")
    first = min(shown, key=lambda row: row["x"])
    return Picture(
        title=PANELS["symmetric"].title,
        x=INPUTS,
        y=Axis(Text("size of the residual overlap", "直交する方向との重なりの大きさ"), log=True),
        points=shown,
        series={"multi": WAYS["multi"], "root": Text("∝ 1/√d", "1/√dに比例")},
        caption=captioned(shown, "After six updates.", "6回の更新後。"),
        theory=tuple(
            {
                "x": row["x"],
                "y": float(first["y"]) * math.sqrt(float(first["x"]) / float(row["x"])),
                "series": "root",
            }
            for row in shown
        ),
    )


# ------------------------------------------------------------------ claims


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """The three panels, and the theory."""
    n, many = (repetitions(parameters, panel) for panel in ("stairs", "hidden"))
    return (_hidden(many), _hidden_single(many), _stairs(n), _symmetric(n), _as_theory(many))


HIDDEN = Text(
    "overlap at right angles to the first direction after six updates, half the difference "
    "between the neurons",
    "6回の更新後の、第一の方向に直交する重なり（ニューロン間の差の半分）",
)


def _hidden(n: int) -> Claim:
    return Claim(
        id="hidden-direction-found",
        sentence=Text(
            "Of tanh(z₁ + He₃(z₂)), the same batch shows the hidden direction, the two neurons "
            "with opposite signs.",
            "tanh(z₁＋He₃(z₂))では、同じバッチを使うと隠れた方向が見つかります（二つのニューロンで逆符号）。",
        ),
        source="dandi2024, released simulation: .0053 ± .001 at t = 6",
        measured=HIDDEN,
        low=0.0033,
        high=0.0073,
        expected=0.0043,
        spread=0.0061,
        n=n,
        values=functools.partial(end, panel="hidden", way="multi"),
        picture=functools.partial(picture, panel="hidden"),
        meaning=Text(
            "The second direction needs no staircase of first and second if the batch is seen "
            "again. It is found slowly: watch more than the loss.",
            "バッチをもう一度見れば、段階的な手がかりがなくても第二の方向が見つかります。ただし"
            "ゆっくりなので、損失だけでは気づけません。",
        ),
        twin={"fault": "fresh for re-used"},
    )


def _hidden_single(n: int) -> Claim:
    return Claim(
        id="hidden-direction-missed",
        sentence=Text(
            "Fresh batches do not show it.",
            "新しいバッチでは、隠れた方向は見つかりません。",
        ),
        source="dandi2024, figure: 0",
        measured=HIDDEN,
        low=-0.002,
        high=0.002,
        expected=0.0,
        spread=0.004,
        n=n,
        values=functools.partial(end, panel="hidden", way="single"),
        picture=functools.partial(picture, panel="hidden"),
        meaning=Text(
            "More data, seen once, do not make up for the second look of this student.",
            "この生徒では、データを増やしても、一度しか見ないのでは2回目の代わりになりません。",
        ),
        depends=Text(
            "On the student: relu without bias is blind to the staircase that a tanh student "
            "climbs on fresh batches too (`batchlab exponents` names it).",
            "生徒によります。バイアスのないreluには見えない階段を、tanhの生徒は新しいバッチでも登ります"
            "（`batchlab exponents`で確認できます）。",
        ),
        twin={"fault": "re-used for fresh"},
    )


def _stairs(n: int) -> Claim:
    return Claim(
        id="stairs-need-no-reuse",
        sentence=Text(
            "Of z₁ + z₁z₂, fresh batches learn the second direction, too: the first leads to it.",
            "z₁＋z₁z₂では、第一の方向が手がかりになるため、新しいバッチでも第二の方向を学べます。",
        ),
        source="dandi2024, figure, panel a; range around batchlab.theory.dmft",
        measured=Text(
            "overlap with z₂ after six updates on fresh batches, mean of the neurons",
            "新しいバッチで6回更新した後の、z₂との重なり（ニューロンの平均）",
        ),
        low=0.35,
        high=0.42,
        expected=0.3845,
        spread=0.01,
        n=n,
        values=functools.partial(end, panel="stairs", way="single"),
        picture=functools.partial(picture, panel="stairs"),
        meaning=Text(
            "Where one feature leads to the next, one pass learns them all, and re-use only "
            "saves data.",
            "ある特徴が次の特徴の手がかりになる場合は、一度見るだけですべて学べます。再利用はデータの"
            "節約になるだけです。",
        ),
        twin={"fault": "no stairs"},
    )


def _symmetric(n: int) -> Claim:
    return Claim(
        id="symmetry-stays",
        sentence=Text(
            "Of tanh z₁ + tanh z₂, the same batch does not tell z₁ from z₂: what difference there "
            "is falls as 1/√d.",
            "tanh z₁＋tanh z₂では、同じバッチを使ってもz₁とz₂は区別されません。差は偶然による"
            "もので、1/√dで小さくなります。",
        ),
        source="dandi2024, figure, panel c; its rate derived",
        measured=Text(
            "power of d with which the residual overlap of a neuron after six updates falls, root "
            "mean square of both",
            "6回の更新後の、ニューロンごとの直交する重なり（2個の二乗平均平方根）が、dの何乗で小さく"
            "なるか",
        ),
        low=-0.65,
        high=-0.35,
        expected=-0.5,
        spread=0.37,
        n=n,
        values=power,
        picture=shrinking,
        meaning=Text(
            "Neurons that share the work of a symmetric target do not specialise by re-use alone.",
            "対称な目標では、再利用だけではニューロンの役割は分かれません。",
        ),
        twin={"fault": "specialised"},
    )


def _as_theory(n: int) -> Claim:
    return Claim(
        id="two-neurons-as-theory",
        sentence=Text(
            "After six updates on the same batch the overlap with the first direction is that "
            "of mean-field theory.",
            "同じバッチで6回更新した後の第一の方向との重なりは、平均場理論の値と一致します。",
        ),
        source=SOLVED,
        measured=Text(
            "overlap along the first direction, less that of the theory",
            "第一の方向との重なりと理論値との差",
        ),
        low=-0.01,
        high=0.01,
        expected=0.0,
        spread=0.0065,
        n=n,
        values=off_theory,
        picture=functools.partial(picture, panel="hidden", column="along"),
        meaning=Text(
            "`batchlab.theory.dmft` computes such curves in seconds, with the solver's own error.",
            "`batchlab.theory.dmft`は、このような曲線を計算誤差つきで数秒で求めます。",
        ),
        twin={"fault": "theory of fresh"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """How much of the staircase each way learns."""
    n = int(parameters["figure_seeds"])
    return (
        Claim(
            id="stairs-reused-less",
            sentence=Text(
                "How much more of the staircase's second step fresh batches learn in as many "
                "updates.",
                "同じ更新回数で、新しいバッチは階段の2段目をどれだけ多く学ぶか。",
            ),
            source="measured here",
            measured=Text(
                "overlap with z₂ after six updates, fresh less same batch",
                "6回の更新後のz₂との重なり（新しいバッチ−同じバッチ）",
            ),
            n=n,
            values=fresh_less_same,
            picture=functools.partial(picture, panel="stairs"),
            meaning=Text(
                "Fresh data are worth more where there is a staircase; the price is six times "
                "the data.",
                "階段がある場合は新しいデータのほうが多くを学べますが、データは6倍必要です。",
            ),
            finding=True,
        ),
    )
