"""A batch that grows leaves no gradient: how fast it falls on problems with known constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import polars as pl

from batchlab import _random
from batchlab._text import Text
from batchlab.errors import InvalidValueError, must
from batchlab.studies.claim import (
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
from batchlab.studies.growing_batch.plateau import MOMENTUM, MOST, NEAR, PRINTED, divided
from batchlab.studies.growing_batch.words import EVERY, EXACT, GROWING_THEOREM, NORM, UPDATES
from batchlab.theory import growing as theory

TABLE = "vanish"
FIRST, PHASES = 8, 6
WARM = 2
"""Phases after which a rate that warms up stays."""
FACTORS: dict[str, Callable[[int], float]] = {
    "rate 1.5": lambda phase: 1.5**phase,
    "rate 3": lambda phase: 3.0**phase,
    "rate warm": lambda phase: 1.5 ** min(phase, WARM),
    "rate kept": lambda phase: 1.5**WARM,
}
"""Schedules that change the rate → its factor in a phase; the batch grows by 4."""
SCHEDULES = ("double", "quadruple", "with updates", *FACTORS)
"""×2 and ×4 after equally many updates; in proportion to the updates; ×4 with a rate that grows by
1.5, below the root of 4, or by 3, above it; that grows by 1.5 twice and then stays, or stands
there from the start."""
CLAIMED = ("double", "quadruple", "with updates", "rate 1.5")
"""Those that a claim is on; the others are findings."""
GROWING_RATE = 0.004
"""η L of the first phase where the rate grows, so that the last is still stable."""
RATES = {"double": MOST, "with updates": MOST, "quadruple": PRINTED}
"""η L: the largest that is derived for the lemma, and the source's, for the theorem."""
STARTS = {"squares": NEAR, "logistic": 1.0}
"""The squares start where the noise is what counts, the others at θ = 0."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One a schedule, and doubling on logistic regression, too."""
    shared = {name: parameters[name] for name in ("problems", "runs", "updates", "fault")}
    seconds = 1e-6 * int(parameters["problems"]) * int(parameters["runs"]) * int(shared["updates"])
    asked = [("squares", one) for one in chosen(parameters)] + [("logistic", "double")]
    return tuple(
        Cell(
            TABLE,
            {"kind": kind, "schedule": schedule, **shared},
            seconds * (8.0 if kind == "logistic" else 3.0),
        )
        for kind, schedule in asked
    )


def chosen(parameters: Parameters) -> tuple[str, ...]:
    """The schedules of a mode.

    Raises:
        InvalidValueError: If it is neither ``all`` nor ``claimed``.

    Example:
        >>> len(chosen({"schedules": "all"})), chosen({"schedules": "claimed"})
        (7, ('double', 'quadruple', 'with updates', 'rate 1.5'))
    """
    sets = {"all": SCHEDULES, "claimed": CLAIMED}
    if parameters["schedules"] not in sets:
        words = f"one of {', '.join(sets)}"
        raise InvalidValueError(must("schedules", words, parameters["schedules"]))
    return sets[str(parameters["schedules"])]


def planned(schedule: str, updates: int, fault: str) -> finite.Training:
    """Batch size and rate of every update.

    Example:
        >>> planned("double", 12, "none").sizes
        [8, 8, 16, 16, 32, 32, 64, 64, 128, 128, 256, 256]
        >>> planned("rate 1.5", 10, "none").sizes
        [8, 8, 32, 32, 128, 128, 512, 512, 2048, 2048]
    """
    rate = FACTORS.get(schedule)
    phases = PHASES - 1 if rate else PHASES
    phase = [t * phases // updates for t in range(updates)]
    factor = {"double": 2}.get(schedule, 4)
    sizes = [FIRST * factor**m for m in phase]
    if schedule == "with updates":
        sizes = [FIRST * max(1, 8 * PHASES * t // updates) for t in range(updates)]
    if fault == "batch ignored":
        sizes = [FIRST] * updates
    if rate:
        return finite.Training("sgd", 0.0, sizes, [GROWING_RATE * rate(m) for m in phase])
    return finite.Training("nshb", MOMENTUM, sizes, [RATES[schedule] * (1 - 1e-9)] * updates)


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a problem and end of a phase: least and mean ‖∇f‖² so far, and the bounds."""
    asked = cell.settings
    T, schedule, fault = int(asked["updates"]), str(asked["schedule"]), str(asked["fault"])
    made = finite.family(
        str(asked["kind"]), int(asked["problems"]), bench.seed, STARTS[str(asked["kind"])]
    )
    training = planned(schedule, T, fault)
    seed = _random.key(bench.seed, f"growing {schedule} {asked['kind']}")
    found = finite.norms(made, training, int(asked["runs"]), seed)
    count = PHASES - 1 if schedule in FACTORS else PHASES
    rows: list[Row] = []
    for end in (T * (m + 1) // count for m in range(count)):
        least, mean = found[:, :end].min(1), found[:, :end].mean(1)
        rows += [
            {
                "repetition": i,
                "updates": end,
                "least": float(least[i]),
                "mean": float(mean[i]),
                **bounds(problem, schedule, end, T, fault),
            }
            for i, problem in enumerate(made.problems)
        ]
    return rows


def bounds(
    problem: theory.Problem, schedule: str, end: int, updates: int, fault: str
) -> dict[str, float]:
    """Lemma and theorem after so many updates of a schedule that multiplies the batch."""
    if schedule not in ("double", "quadruple"):
        return {"lemma": math.nan, "theorem": math.nan}
    if fault == "batch counted twice":
        problem = divided(problem, FIRST**2)
    rate = RATES[schedule] / problem.smoothness * (1 - 1e-9)
    step = theory.Step.of("nshb", rate, MOMENTUM)
    sizes = planned(schedule, updates, "none").sizes[:end]
    used, counts = np.unique(sizes, return_counts=True)
    phases = [theory.Phase(int(k), int(b)) for k, b in zip(counts, used, strict=True)]
    lemma = theory.evaluated(problem, theory.sums_of(step, phases))
    if schedule == "double":  # its rate is beyond the theorem
        return {"lemma": lemma.value, "theorem": math.nan}
    whole = (updates // PHASES + 1, end)
    return {
        "lemma": lemma.value,
        "theorem": theory.growing_bound(problem, step, FIRST, 4.0, whole).value,
    }


# ------------------------------------------------------------------ numbers


def warming(tables: Tables) -> Sample:
    """log₂ of the least ‖∇f‖² in the end, the final rate from the start over warming up to it; one
    a problem.
    """
    table = tables[TABLE].filter(pl.col("updates") == pl.col("updates").max())
    last = {
        name: table.filter(pl.col("schedule") == name).sort("repetition")["least"].to_numpy()
        for name in ("rate warm", "rate kept")
    }
    return np.log2(last["rate kept"] / last["rate warm"])


def slope(tables: Tables, schedule: str, kind: str = "squares") -> Sample:
    """Slope of log least ‖∇f‖² on log updates, from the first phase's end on; one a problem."""
    table = tables[TABLE].filter((pl.col("schedule") == schedule) & (pl.col("kind") == kind))
    if schedule == "with updates":  # at first nothing has grown
        table = table.filter(pl.col("updates") > table["updates"].min())
    return numbers.slope(table, "updates", "least")


# ------------------------------------------------------------------ pictures

NAMES = {
    "double": Text("×2 after equal updates", "同じ更新回数ごとに2倍"),
    "quadruple": Text("×4 after equal updates", "同じ更新回数ごとに4倍"),
    "with updates": Text("in proportion to the updates", "更新回数に比例"),
    "rate 1.5": Text("batch ×4, rate ×1.5", "バッチ4倍・学習率1.5倍"),
    "rate 3": Text("batch ×4, rate ×3", "バッチ4倍・学習率3倍"),
    "rate warm": Text("batch ×4, rate ×1.5 twice", "バッチ4倍・学習率1.5倍を2回"),
    "rate kept": Text("batch ×4, the higher rate from the start", "バッチ4倍・最初から高い学習率"),
}


def picture(tables: Tables, schedules: tuple[str, ...], bounded: bool = False) -> Picture:
    """The least ‖∇f‖² so far against the updates; 1/T, or the bounds, as lines."""
    table = tables[TABLE].filter(
        (pl.col("kind") == "squares") & pl.col("schedule").is_in(schedules)
    )
    y = "mean" if bounded else "least"
    shown = points(table, x="updates", y=y, series="schedule")
    here = set(table["schedule"])
    series = {name: NAMES[name] for name in SCHEDULES if name in here}
    first = table.filter(pl.col("updates") == table["updates"].min())
    start = first[y].mean()
    if bounded:
        lines = table.group_by("updates").agg(pl.col("lemma", "theorem").mean()).sort("updates")
        drawn = [
            {"x": row["updates"], "y": row[form], "series": form}
            for form in ("lemma", "theorem")
            for row in lines.iter_rows(named=True)
        ]
        series |= {"lemma": Text("lemma", "補題"), "theorem": Text("theorem", "定理")}
    else:
        counts = sorted(table["updates"].unique().to_list())
        assert isinstance(start, float)
        drawn = [{"x": t, "y": start * counts[0] / t, "series": "inverse"} for t in counts]
        series |= {"inverse": Text("1/T", "1/T")}
    what = (
        Text("Mean so far", "それまでの平均")
        if bounded
        else Text("Least so far", "それまでの最小値")
    )
    return Picture(
        title=Text(
            "A growing batch lets the gradient vanish.",
            "バッチを大きくしていくと勾配は消えていく。",
        ),
        x=UPDATES,
        y=NORM,
        points=shown,
        series=series,
        caption=Text(
            f"{what.en}; {EVERY.en} (n = {shown[0]['n']}). {EXACT.en}",
            f"{what.ja}。{EVERY.ja}（n＝{shown[0]['n']}）。{EXACT.ja}",
        ),
        theory=tuple(drawn),
    )


# ------------------------------------------------------------------ claims


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Faster than 1/T; as 1/T where the batch grows with the updates; below the bounds."""
    n = int(parameters["problems"])
    return (_faster(n), _inverse(n), *(_below(n, form) for form in ("theorem", "lemma")), _rate(n))


def _faster(n: int) -> Claim:
    return Claim(
        id="growing-vanishes",
        sentence=Text(
            "Doubling the batch again and again lets the gradient fall at least as fast as 1/T.",
            "バッチを2倍にし続けると、勾配（‖∇f‖²）は1/T以上の速さで小さくなります。",
        ),
        source=f"{GROWING_THEOREM}: O(1/T)",
        measured=Text(
            "slope of log least ‖∇f‖² so far on log updates (NSHB, six equal phases)",
            "それまでの‖∇f‖²の最小値のlogの、log 更新回数に対する傾き（NSHB、6段階）",
        ),
        low=-math.inf,
        high=-1.0,
        expected=-1.9,
        spread=0.1,
        n=n,
        values=functools.partial(slope, schedule="double"),
        picture=functools.partial(picture, schedules=("double", "quadruple")),
        meaning=Text(
            "Growing the batch does what lowering the rate does: it takes the noise away.",
            "バッチの拡大には、学習率を下げるのと同じくノイズを取り除く働きがあります。",
        ),
        popular=Text(
            "“Growing gives the rate 1/T” reads a guarantee as a prediction: what is left follows "
            "η/b, however fast b grows.",
            "「拡大すれば1/Tで減る」は保証を予測と取り違えています。残る勾配はη/bに従い、bの増え方で"
            "速さが決まります。",
        ),
        twin={"fault": "batch ignored"},
    )


def _inverse(n: int) -> Claim:
    return Claim(
        id="growing-slope",
        sentence=Text(
            "With a batch in proportion to the updates, the gradient falls as 1/T: what is left "
            "follows η/b.",
            "バッチを更新回数に比例して大きくすると、勾配（‖∇f‖²）は1/Tで小さくなります。残る勾配はη/bに"
            "従うからです。",
        ),
        source="derived from kamo2025, theorem for a constant batch size, second term",
        measured=Text(
            "slope of log least ‖∇f‖² so far on log updates (NSHB, b_t ∝ t)",
            "それまでの‖∇f‖²の最小値のlogの、log 更新回数に対する傾き（NSHB、b_t∝t）",
        ),
        low=-1.2,
        high=-0.8,
        expected=-1.1,
        spread=0.08,
        n=n,
        values=functools.partial(slope, schedule="with updates"),
        picture=functools.partial(picture, schedules=("with updates",)),
        meaning=Text(
            "Choose how fast to grow by how small the gradient has to get, not by a rule of two.",
            "拡大の速さは「2倍ずつ」という決まりではなく、勾配をどこまで小さくしたいかで決めます。",
        ),
        twin={"fault": "batch ignored"},
    )


def _below(n: int, form: str) -> Claim:
    name = {
        "theorem": Text("theorem for a growing batch size", "バッチ拡大の定理"),
        "lemma": Text("lemma for any schedule", "任意のスケジュールの補題"),
    }[form]
    return Claim(
        id=f"below-{form}-growing",
        sentence=Text(
            f"Growing batch sizes stay below the {name.en}.",
            f"バッチを拡大する学習は、{name.ja}の上界を下回ります。",
        ),
        source=f"kamo2025, {form}, with the smaller of its two step sizes",
        measured=Text(
            "share of drawn problems in which the mean of ‖∇f‖² so far is at most the bound, "
            "after every phase, for every factor and in both kinds",
            "それまでの‖∇f‖²の平均が、すべての段階・倍率と両方の種類で上界以下だった問題の割合",
        ),
        low=numbers.LEAST_SHARE,
        high=1.0,
        expected=1.0,
        n=n,
        values=lambda tables: numbers.holds(tables[TABLE], form),
        statistic=Statistic.SHARE,
        picture=functools.partial(picture, schedules=("quadruple",), bounded=True),
        meaning=Text(
            "The lemma holds for every schedule: `batchlab.rank_schedules` ranks yours by it "
            "before training.",
            "補題はどんなスケジュールにも使えます。`batchlab.rank_schedules`は学習の前にこれで順位を"
            "つけます。",
        ),
        twin={"fault": "batch counted twice"},
    )


def _rate(n: int) -> Claim:
    return Claim(
        id="growing-rate-vanishes",
        sentence=Text(
            "With a rate that grows by less than the root of the batch's factor, the gradient "
            "still falls at least as fast as 1/T.",
            "学習率の倍率がバッチの倍率の平方根より小さければ、学習率を上げていっても勾配（‖∇f‖²）は1/T以上の"
            "速さで小さくなります。",
        ),
        source="umeda2024, growing batch size and learning rate",
        measured=Text(
            "slope of log least ‖∇f‖² so far on log updates (SGD, batch ×4, rate ×1.5)",
            "それまでの‖∇f‖²の最小値のlogの、log 更新回数に対する傾き（SGD、バッチ4倍・"
            "学習率1.5倍）",
        ),
        low=-math.inf,
        high=-1.0,
        expected=-2.5,
        spread=0.15,
        n=n,
        values=functools.partial(slope, schedule="rate 1.5"),
        picture=functools.partial(picture, schedules=("rate 1.5", "rate 3")),
        meaning=Text(
            "A rate may grow with the batch as long as the batch grows faster; the rate itself "
            "ends at 2/L.",
            "バッチのほうが速く大きくなるなら、学習率も一緒に上げられます。ただし学習率は2/Lまでです。",
        ),
        twin={"fault": "batch ignored"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """What happens beyond the root of the batch's factor, and what warming up is worth; where all
    schedules are trained.
    """
    if chosen(parameters) != SCHEDULES:
        return ()
    return (
        Claim(
            id="growing-warm-up",
            sentence=Text(
                "Warming the rate up while the batch grows against the final rate from the start, "
                "on smooth problems where both are stable.",
                "バッチの拡大に合わせて学習率を上げていく場合と、最初から最終の学習率で始める場合の比較"
                "（どちらも安定な、滑らかな問題）。",
            ),
            source="umeda2024, warm-up; measured here",
            measured=Text(
                "log₂ of the least ‖∇f‖² in the end, final rate from the start over warm-up; "
                "above 0, warm-up is better (SGD, batch ×4 in five phases, rate ×1.5 in the first "
                "two)",
                "終わりまでの‖∇f‖²の最小値の比（最初から最終の学習率÷徐々に上げる）のlog₂。正なら徐々に"
                "上げるほうが有利（SGD、バッチ4倍・5段階、学習率は最初の2回だけ1.5倍）",
            ),
            n=int(parameters["problems"]),
            values=warming,
            picture=functools.partial(picture, schedules=("rate warm", "rate kept")),
            meaning=Text(
                "A warm-up is for trainings whose start is steeper than the rest. Where the final "
                "rate is stable from the start, as here, this is what it gains or costs.",
                "ウォームアップは、学習の始めがその後より急な場合のためのものです。ここのように最終の学習率が"
                "最初から安定な場合の損得が、この値です。",
            ),
            finding=True,
        ),
        Claim(
            id="growing-rate-beyond",
            sentence=Text(
                "How fast the gradient falls where the rate grows faster than the theorem allows: "
                "by 3, the batch by 4.",
                "学習率の伸びが定理の範囲を超える場合（学習率3倍、バッチ4倍）に、勾配が小さくなる速さ。",
            ),
            source="measured here; umeda2024 needs a factor below 2",
            measured=Text(
                "slope of log least ‖∇f‖² so far on log updates",
                "それまでの‖∇f‖²の最小値のlogの、log 更新回数に対する傾き",
            ),
            n=int(parameters["problems"]),
            values=functools.partial(slope, schedule="rate 3"),
            picture=functools.partial(picture, schedules=("rate 1.5", "rate 3")),
            meaning=Text(
                "The condition suffices and is not necessary: what is left follows η/b, which "
                "falls as long as the batch grows faster than the rate.",
                "この条件は十分条件であって必要条件ではありません。残る勾配はη/bに従い、バッチが学習率より"
                "速く大きくなる限り減っていきます。",
            ),
            finding=True,
        ),
    )
