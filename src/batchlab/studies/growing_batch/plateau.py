"""A constant batch size leaves a gradient that no length of training removes."""

from __future__ import annotations

import functools
import math

import numpy as np
import polars as pl

from batchlab import _random
from batchlab._text import Text
from batchlab.schedules import batch_schedule
from batchlab.studies.claim import (
    Axis,
    Bench,
    Cell,
    Claim,
    Parameters,
    Picture,
    Row,
    Sample,
    Statistic,
    Tables,
)
from batchlab.studies.drawing import points
from batchlab.studies.growing_batch import finite, numbers
from batchlab.studies.growing_batch.words import BATCH, EVERY, EXACT, MEASURED, NORM, RATE
from batchlab.theory import growing as theory

TABLE, IDENTITY = "plateau", "identity"
MOMENTUM = 0.9
PRINTED = theory.largest_step("nshb", 1.0, MOMENTUM, form="printed growing")
MOST = theory.largest_step("nshb", 1.0, MOMENTUM)
RATES = (PRINTED, math.sqrt(PRINTED * MOST), MOST)
"""η L: the source's largest, the largest that is derived, and one between."""
SIZES = (4, 16, 64)
LOOK = 8
"""Updates from one look at the gradient to the next: about as many are alike with β = 0.9."""
NEAR = 0.05
"""Start of the squares, so near that the noise is what counts."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """Three rates at the middle size, three sizes at the middle rate, and the identity."""
    shared = {name: parameters[name] for name in ("problems", "updates", "fault")}
    shared["runs"] = parameters["plateau_runs"]
    pairs = dict.fromkeys([(rate, SIZES[1]) for rate in RATES] + [(RATES[1], b) for b in SIZES])
    seconds = 1e-6 * int(shared["problems"]) * int(shared["runs"]) * int(shared["updates"])
    return (
        Cell(IDENTITY, {"problems": shared["problems"], "fault": shared["fault"]}, 2.0),
        *(
            Cell(TABLE, {"kind": kind, "rate": rate, "batch_size": b, **shared}, each * seconds)
            for kind, each in (("squares", 2.0), ("logistic", 6.0))
            for rate, b in pairs
        ),
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a problem: the plateau early and late, the mean over the training and its bounds."""
    asked = cell.settings
    fault, T, rate = str(asked["fault"]), int(asked["updates"]), float(asked["rate"])
    made = finite.family(
        str(asked["kind"]), int(asked["problems"]), bench.seed, NEAR_OF[str(asked["kind"])]
    )
    size = {"batch ignored": SIZES[0], "no noise": 0}.get(fault, int(asked["batch_size"]))
    used = RATES[-1] if fault == "rate ignored" else rate
    training = finite.Training("nshb", MOMENTUM, [size] * T, [used] * T)
    seed = _random.key(bench.seed, "growing plateau", int(asked["batch_size"]), round(1e9 * rate))
    found = finite.norms(made, training, int(asked["runs"]), seed, LOOK)
    at = np.arange(0, T, LOOK)
    return [
        {
            "repetition": i,
            "early": float(found[i, (T // 4 <= at) & (at < T // 2)].mean()),
            "late": float(found[i, at >= T // 2].mean()),
            "mean": float(found[i].mean()),
            **bounds(problem, rate, int(asked["batch_size"]), T, fault),
        }
        for i, problem in enumerate(made.problems)
    ]


NEAR_OF = {"squares": NEAR, "logistic": 0.0}


def bounds(
    problem: theory.Problem, rate: float, size: int, updates: int, fault: str
) -> dict[str, float]:
    """The right-hand sides at a rate over 1/L; the theorem's where it is proved, else NaN."""
    if fault == "batch counted twice":
        problem = divided(problem, size**2)
    step = theory.Step.of("nshb", rate / problem.smoothness * (1 - 1e-9), MOMENTUM)
    plan = theory.Plan(step, batch_schedule(size))
    told = {
        form: theory.bound(problem, plan, size * updates, form).value
        for form in ("lemma", "sharp")
    }
    within = rate <= PRINTED
    constant = theory.constant_bound(problem, step, size, updates).value if within else math.nan
    return {**told, "theorem": constant}


def divided(problem: theory.Problem, by: float) -> theory.Problem:
    """A problem whose bounds are smaller by a factor."""
    return theory.Problem(problem.smoothness, problem.noise / by, problem.gap / by)


def same(cell: Cell, bench: Bench) -> list[Row]:
    """The largest difference between NSHB(η) and SHB((1−β)η) on the same batches."""
    asked = cell.settings
    made = finite.family("logistic", int(asked["problems"]), bench.seed, 1.0)
    factor = 1.0 if asked["fault"] == "same rate" else 1 - MOMENTUM
    T, size = 300, 8
    trainings = [
        finite.Training(rule, MOMENTUM, [size] * T, [rate] * T)
        for rule, rate in (("nshb", MOST), ("shb", factor * MOST))
    ]
    both = [finite.steps(made, training, 4, bench.seed) for training in trainings]
    gaps = [(a - b).abs().amax((1, 2)) for a, b in zip(*both, strict=True)]
    largest = np.stack([gap.numpy() for gap in gaps]).max(0)
    return [{"repetition": i, "difference": float(x)} for i, x in enumerate(largest)]


# ------------------------------------------------------------------ numbers


def _of(tables: Tables, kind: str) -> pl.DataFrame:
    return tables[TABLE].filter(pl.col("kind") == kind).sort("repetition")


def exponent(tables: Tables, kind: str, of: str) -> Sample:
    """Slope of log plateau on log rate, or on log batch size; one a problem."""
    table = _of(tables, kind)
    other = ("batch_size", SIZES[1]) if of == "rate" else ("rate", RATES[1])
    return numbers.slope(table.filter(pl.col(other[0]) == other[1]), of, "late")


def growth_with_length(tables: Tables, kind: str) -> Sample:
    """By what power of 2 the plateau changes while the updates double; one a problem."""
    part = _of(tables, kind).filter(pl.col("rate") == RATES[-1])
    return np.log2((part["late"] / part["early"]).to_numpy())


def difference(tables: Tables) -> Sample:
    """Power of ten of the largest difference of a weight; exactly none counts as 10⁻³⁰."""
    return np.log10(np.maximum(tables[IDENTITY]["difference"].to_numpy(), 1e-30))


# ------------------------------------------------------------------ pictures


def picture(tables: Tables, kind: str, of: str) -> Picture:
    """The plateau against rate or batch size, and the bounds."""
    other = ("batch_size", SIZES[1]) if of == "rate" else ("rate", RATES[1])
    part = _of(tables, kind).filter(pl.col(other[0]) == other[1])
    shown = points(part, x=of, y="late")
    lines = part.group_by(of).agg(pl.col("lemma", "sharp").mean()).sort(of)
    drawn = [
        {"x": row[of], "y": row[form], "series": form}
        for form in ("sharp", "lemma")
        for row in lines.iter_rows(named=True)
    ]
    power = Text("∝ η", "ηに比例") if of == "rate" else Text("∝ 1/b", "1/bに比例")
    return Picture(
        title=Text(
            f"What a constant batch size leaves is {power.en}.",
            f"バッチサイズが一定なら残る勾配は{power.ja}する。",
        ),
        x=RATE if of == "rate" else BATCH,
        y=NORM,
        points=shown,
        series={
            "measured": MEASURED,
            "sharp": Text("bound (sharp)", "上界（最良）"),
            "lemma": Text("bound (lemma)", "上界（補題）"),
        },
        caption=Text(
            f"Second half of the training; {EVERY.en} (n = {shown[0]['n']}). {EXACT.en}",
            f"学習の後半。{EVERY.ja}（n＝{shown[0]['n']}）。{EXACT.ja}",
        ),
        theory=tuple(drawn),
    )


def identity_picture(tables: Tables) -> Picture:
    """The difference of each problem."""
    table = tables[IDENTITY].with_columns(pl.lit("SHB").alias("x"))
    return Picture(
        title=Text(
            "NSHB at η and SHB at (1−β)η differ by round-off.",
            "NSHB（η）とSHB（(1−β)η）の違いは丸め誤差だけ。",
        ),
        x=Axis(Text("rule", "更新則")),
        y=Axis(Text("largest difference of a weight", "重みの差の最大値"), log=True),
        points=points(table.with_columns(pl.col("difference").clip(1e-30)), x="x", y="difference"),
        series={"measured": MEASURED},
        caption=Text(
            f"300 updates on the same batches; {EVERY.en}.", f"同じバッチで300回更新。{EVERY.ja}。"
        ),
    )


# ------------------------------------------------------------------ claims

ON = {
    "squares": Text("On least squares", "最小二乗では"),
    "logistic": Text(
        "On logistic regression with a non-convex penalty", "非凸な罰則つきロジスティック回帰では"
    ),
}
THEOREM = "kamo2025, theorem for a constant batch size"
SPREAD = {"squares": 0.07, "logistic": 0.07}
"""Standard deviation of an exponent: √2 times that of a pilot with twice the runs."""


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """The plateau of both kinds, the bounds, and the identity."""
    n = int(parameters["problems"])
    each = [
        c for kind in ON for c in (_exponent(n, kind, "rate"), _exponent(n, kind, "batch_size"))
    ]
    return (*each, _length(n), *(_below(n, form) for form in ("theorem", "lemma")), _identity(n))


def _exponent(n: int, kind: str, of: str) -> Claim:
    rate = of == "rate"
    what = Text("the learning rate", "学習率") if rate else Text("1/b", "1/b")
    value = 1.0 if rate else -1.0
    axis = Text("η", "η") if rate else Text("b", "b")
    return Claim(
        id=f"plateau-{'rate' if rate else 'batch'}-{kind}",
        sentence=Text(
            f"{ON[kind].en}, the gradient that a constant batch size leaves is proportional to "
            f"{what.en}.",
            f"{ON[kind].ja}、バッチサイズが一定のとき残る勾配（‖∇f‖²）は{what.ja}に比例します。",
        ),
        source=f"{THEOREM}, second term",
        measured=Text(
            f"slope of log ‖∇f‖², second half of the training, on log {axis.en} (NSHB, β = 0.9)",
            f"学習後半のlog ‖∇f‖²の、log {axis.ja}に対する傾き（NSHB、β＝0.9）",
        ),
        low=value - 0.15,
        high=value + 0.15,
        expected=value,
        spread=SPREAD[kind],
        n=n,
        values=functools.partial(exponent, kind=kind, of=of),
        picture=functools.partial(picture, kind=kind, of=of),
        meaning=Text(
            "Halving the rate and doubling the batch calm the end of a training alike.",
            "学習率を半分にしてもバッチを倍にしても、学習の終わりは同じだけ落ち着きます。",
        ),
        twin={"fault": "rate ignored" if rate else "batch ignored"},
    )


def _length(n: int) -> Claim:
    return Claim(
        id="plateau-length",
        sentence=Text(
            "With a constant batch size and rate, twice as many updates do not make the gradient "
            "smaller.",
            "バッチサイズと学習率が一定なら、更新回数を倍にしても勾配は小さくなりません。",
        ),
        source=f"{THEOREM}: the second term does not depend on T",
        measured=Text(
            "log₂ of ‖∇f‖², second half of the training over its second quarter",
            "学習の後半と第2四半期の‖∇f‖²の比のlog₂",
        ),
        low=-0.2,
        high=0.2,
        expected=0.0,
        spread=0.07,
        n=n,
        values=functools.partial(growth_with_length, kind="squares"),
        picture=functools.partial(picture, kind="squares", of="rate"),
        meaning=Text(
            "If the loss no longer falls, enlarge the batch or lower the rate; training longer "
            "does nothing.",
            "損失が下がらなくなったら、長く続けるのではなく、バッチを大きくするか学習率を下げます。",
        ),
        twin={"fault": "no noise"},
    )


def _below(n: int, form: str) -> Claim:
    name = {
        "theorem": Text("theorem for a constant batch size", "バッチサイズ一定の定理"),
        "lemma": Text("lemma for any schedule", "任意のスケジュールの補題"),
    }[form]
    return Claim(
        id=f"below-{form}-constant",
        sentence=Text(
            f"Constant batch sizes stay below the {name.en}.",
            f"バッチサイズ一定の学習は、{name.ja}の上界を下回ります。",
        ),
        source=f"kamo2025, {form}, with the smaller of its two step sizes",
        measured=Text(
            "share of drawn problems in which the mean of ‖∇f‖² over the training is at most the "
            "bound, at every rate and size and in both kinds",
            "学習全体での‖∇f‖²の平均が、すべての学習率・サイズと両方の種類で上界以下だった問題の割合",
        ),
        low=numbers.LEAST_SHARE,
        high=1.0,
        expected=1.0,
        n=n,
        values=lambda tables: numbers.holds(tables[TABLE], form),
        statistic=Statistic.SHARE,
        picture=functools.partial(picture, kind="squares", of="batch_size"),
        meaning=Text(
            "A bound promises; it does not predict. Use it to compare schedules, not to foresee a "
            "loss.",
            "上界は保証であって予測ではありません。損失を見通すためではなく、スケジュールを比べるために"
            "使います。",
        ),
        popular=Text(
            "“The step size may be the larger of two limits” is a slip in the source: its proof "
            "needs the smaller.",
            "出典には「2つの上限の大きいほう」とありますが、証明に必要なのは小さいほうです。",
        ),
        twin={"fault": "batch counted twice"},
    )


def _identity(n: int) -> Claim:
    return Claim(
        id="nshb-is-shb",
        sentence=Text(
            "NSHB at the rate η is SHB at the rate (1−β)η.",
            "学習率ηのNSHBは、学習率(1−β)ηのSHBそのものです。",
        ),
        source="kamo2025, section on the rules; derived",
        measured=Text(
            "log₁₀ of the largest difference of a weight over 300 updates",
            "300回の更新での重みの差の最大値のlog₁₀",
        ),
        low=-math.inf,
        high=-9.0,
        expected=-15.0,
        spread=0.5,
        n=n,
        values=difference,
        picture=identity_picture,
        meaning=Text(
            "PyTorch's momentum is SHB: its rate 0.1 is NSHB's 1.0 at β = 0.9. Convert before you "
            "compare.",
            "PyTorchのモメンタムはSHBです。β＝0.9のとき、その0.1はNSHBの1.0にあたります。比べる前に"
            "換算してください。",
        ),
        popular=Text(
            "“SHB gains less from growing than NSHB” was measured at one rate for both, ten times "
            "apart in effect.",
            "「SHBはNSHBより拡大の効果が小さい」という結果は、同じ学習率（実質10倍の差）で測ったものです。",
        ),
        twin={"fault": "same rate"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """How far below its bound a training stays."""
    return (
        Claim(
            id="how-far-below",
            sentence=Text(
                "How far a training with a constant batch size stays below the smallest bound of "
                "the proof.",
                "バッチサイズ一定の学習が、証明から得られる最小の上界をどれだけ下回るか。",
            ),
            source="measured here",
            measured=Text(
                "log₁₀ of the mean of ‖∇f‖² over the training, divided by the bound; the largest",
                "学習全体での‖∇f‖²の平均÷上界のlog₁₀（最大の場合）",
            ),
            n=int(parameters["problems"]),
            values=lambda tables: numbers.below(tables[TABLE], "sharp"),
            picture=functools.partial(picture, kind="squares", of="batch_size"),
            meaning=Text(
                "The distance is what an analysis for every loss pays for one loss.",
                "この差は、あらゆる損失に通じる解析が個々の損失に対して払う代償です。",
            ),
            finding=True,
        ),
    )
