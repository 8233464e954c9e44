"""How the best and the largest learning rate move with γ, and where no rate is left."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from batchlab._text import Text
from batchlab.stats import slopes
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
from batchlab.studies.feature_strength import sweep
from batchlab.studies.feature_strength.nets import Setting
from batchlab.studies.feature_strength.sweep import Run, State, Sweep
from batchlab.studies.feature_strength.words import (
    GAMMA,
    RATE,
    captioned,
    finding,
    sample,
    seed,
)
from batchlab.theory.feature_strength import exponents

TABLE, CLOSING, ENTROPY = "rates", "closing", "cross-entropy"
DEPTHS = (2, 3, 4, 5)
DECADES = (-5, -3, -2, -1, 0, 1, 2, 3, 4)
DEEP = 4
"""From this depth on there is no reference: only the decades of the exponents are trained."""
DEEP_DECADES = (-5, -3, 0, 1, 2)
REFERENCE = {
    2: (-5.5, -3.5, -1.5, -0.25, 1.0, 2.0, 3.0, 4.0),
    3: (-5.5, -3.5, -1.75, -0.5, 0.17, 0.83, 1.75, 2.67),
}
"""L → log₁₀ of the best rate at γ = 10⁻³ … 10⁴, by the source of the numbers."""
FIRST = -3
REFERENCE_UPDATES = 300
"""T of these numbers; compared with in every mode, whatever T the exponents are fitted at."""
HALF_STEP = 0.125
"""Half of the quarter decade of both grids, ours and theirs."""
LAZY, RICH = (-5, -3), (0, 2)
"""Decades of γ between which the exponents are fitted."""
BUDGET = (2.0, 3.0)
"""Decades of γ between which a short budget decides at depth 3."""
CLOSINGS = {
    (2, 100): (1.0, 4.0, 7.0),
    (3, 100): (2.0, 2.25, 2.5, 2.75, 3.0),
    (4, 50): tuple(k / 2 for k in range(11)),
    (4, 200): tuple(k / 2 for k in range(11)),
}
"""Depth and T → decades of γ that short budgets are trained at; at depth 4 the same for both,
wide enough that neither end decides where the band closes."""
ENTROPY_DECADES = (-5, -4, -3)
LONG = 1000
"""T from which on the best rate at depth 5 and γ = 100 is not decided by the budget."""
CALM = 2.0
"""Curvature is stable as long as no batch loses more than this many times the start."""
CALM_REACH = 5.0


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """A repetition of a depth and budget each."""
    shared = {"width": parameters["width"], "fault": parameters["fault"]}
    asked = [
        *((TABLE, L, T) for L, T in _tabled(int(parameters["updates"]))),
        *((CLOSING, L, T) for L, T in CLOSINGS),
        (ENTROPY, 3, 200),
    ]
    return tuple(
        Cell(table, {"depth": L, "updates": T, "repetition": i, **shared}, L**1.6 * T / 400)
        for table, L, T in asked
        for i in range(_repetitions(parameters, table, L))
    )


def _repetitions(parameters: Parameters, table: str, depth: int) -> int:
    """Fewer of the triangle, which costs much, with ``--quick``."""
    triangle = table == CLOSING and depth == DEEP
    return int(parameters["triangle_seeds" if triangle else "seeds"])


def _tabled(updates: int) -> list[tuple[int, int]]:
    """Depth and T of the table; depths of the reference at its T, too."""
    own = [(L, updates) for L in DEPTHS]
    return own + [(L, REFERENCE_UPDATES) for L in REFERENCE if updates != REFERENCE_UPDATES]


def tabled(tables: Tables) -> pl.DataFrame:
    """The table at the study's own T: that of the depths that have no reference."""
    table = tables[TABLE]
    own = table.filter(~pl.col("depth").is_in(list(REFERENCE)))["updates"].unique()
    return table.filter(pl.col("updates").is_in(own.to_list()))


def asked(cell: Cell) -> Sweep:
    """The plane of a cell."""
    given, table = cell.settings, cell.table
    L, T = int(given["depth"]), int(given["updates"])
    tabled_at = DECADES if L < DEEP else DEEP_DECADES
    decades = {TABLE: tabled_at, ENTROPY: ENTROPY_DECADES}.get(table) or CLOSINGS[L, T]
    return Sweep(
        Setting(
            depth=L,
            updates=T,
            width=int(given["width"]),
            loss="cross-entropy" if table == ENTROPY else "squared",
        ),
        tuple(10.0**k for k in decades),
        per_decade=3 if table == ENTROPY else 4,
        span=CALM_REACH if table == ENTROPY else 2.25,
        rounds=2 if table == TABLE else 0,
        calm=CALM if table == ENTROPY else None,
        fault=str(given["fault"]),
    )


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a γ."""
    plane = asked(cell)
    runs = sweep.run(plane, seed(int(cell.settings["repetition"]), bench))
    return [_row(runs, gamma) for gamma in plane.gammas]


def _row(runs: Sequence[Run], gamma: float) -> Row:
    """What a plane says of a γ; of cross-entropy, up to which rate the loss does not grow."""
    here = [one for one in runs if one.gamma == gamma]
    learned = [one.loss for one in here if one.state is State.LEARNED]
    low, high = sweep.edge(here, gamma)
    return {
        "gamma": round(math.log10(gamma), 3),
        "best": sweep.best(here, gamma),
        "largest": (low + high) / 2,
        "smallest": sweep.onset(here, gamma),
        "loss": min(learned, default=math.nan),
        "least": min((one.loss for one in here if math.isfinite(one.loss)), default=math.nan),
        "dead": sum(one.state is State.DEAD and one.rate > low for one in here),
        "calm": sweep.highest(here, gamma, CALM),
        "bounded": sweep.highest(here, gamma, sweep.BOUNDED),
    }


# ------------------------------------------------------------------ numbers


def slope(
    tables: Tables, table: str, column: str, reach: tuple[float, float], **at: object
) -> Sample:
    """Power of γ with which a rate moves between two decades; one a repetition."""
    part = tabled(tables) if table == TABLE else tables[table]
    part = part.filter(pl.col("gamma").is_between(*reach))
    part = part.filter(*(pl.col(name) == value for name, value in at.items()))
    decades = np.sort(part["gamma"].unique().to_numpy())
    found = np.stack([sample(part, column, gamma=k) for k in decades], 1)
    return slopes(decades, found)


def off_reference(tables: Tables) -> Sample:
    """|log₁₀ of the best rate − the reference's|, mean of both depths and all γ."""
    at_its_length = tables[TABLE].filter(pl.col("updates") == REFERENCE_UPDATES)
    apart = [
        np.abs(sample(at_its_length, "best", depth=L, gamma=FIRST + i) - expected)
        for L, row in REFERENCE.items()
        for i, expected in enumerate(row)
    ]
    return np.mean(apart, axis=0)


def last_open(tables: Tables, updates: int) -> Sample:
    """log₁₀ of the γ at which the band closes at depth 4; one a repetition.

    Where the least loss of any rate, going up in γ, first is no longer that of a net that has
    learned, between two γ by a straight line in log loss.

    Returns:
        NaN where the first γ does not learn or the last one does: the band then closes elsewhere.
    """
    part = tables[CLOSING].filter((pl.col("depth") == 4) & (pl.col("updates") == updates))
    wide = part.pivot("gamma", index="repetition", values="least").sort("repetition")
    gammas = np.array([float(name) for name in wide.columns[1:]])
    order = np.argsort(gammas)
    losses = wide.drop("repetition").to_numpy()[:, order].astype(float)
    return np.array([_crossing(gammas[order], one) for one in losses])


def _crossing(gammas: Sample, losses: Sample) -> float:
    learned = losses < sweep.FELL
    if not learned[0] or learned[-1]:
        return math.nan
    after = int(np.argmin(learned))
    ends = np.log(losses[after - 1 : after + 1])
    part = (math.log(sweep.FELL) - ends[0]) / (ends[1] - ends[0])
    return float(gammas[after - 1] + part * (gammas[after] - gammas[after - 1]))


def closes(tables: Tables) -> Sample:
    """By how many decades of γ four times the budget opens the triangle further."""
    return last_open(tables, 200) - last_open(tables, 50)


def width(tables: Tables) -> Sample:
    """Decades between the smallest and the largest rate at depth 2 and γ = 10⁷; 0 if none."""
    part = tables[CLOSING]
    ends = [sample(part, name, depth=2, gamma=7.0) for name in ("largest", "smallest")]
    return np.nan_to_num(ends[0] - ends[1])


def dead_above(tables: Tables) -> Sample:
    """Runs at depth 3 to 5 above the largest rate that stay finite and do not learn, per γ."""
    part = tabled(tables).filter(pl.col("depth") >= 3)
    return (
        part.group_by("repetition")
        .agg(pl.col("dead").mean())
        .sort("repetition")["dead"]
        .to_numpy()
    )


def gain(tables: Tables, low: float = -3, high: float = 0) -> Sample:
    """log₁₀ of the best loss at γ = 10⁻³ over that at γ = 1, depth 3."""
    ends = [sample(tabled(tables), "loss", depth=3, gamma=k) for k in (low, high)]
    return np.log10(ends[0] / ends[1])


# ------------------------------------------------------------------ pictures

BEST_LOSS = Axis(
    Text(
        "final loss at the best rate, 1 without learning",
        "最良の学習率での最終損失（学習なしで1）",
    ),
    log=True,
)
COLUMNS = {"best": Text("best rate", "最良の学習率"), "largest": Text("largest", "最大の学習率")}


def picture(tables: Tables, column: str) -> Picture:
    """Best or largest rate against γ, by depth, with the powers that theory says."""
    told = tabled(tables).with_columns(pl.format("L = {}", pl.col("depth")).alias("name"))
    shown = points(told, x="gamma", y=column, series="name")
    names = {f"L = {L}": Text(f"L = {L}", f"L＝{L}") for L in DEPTHS}
    lines = {f"line {L}": Text(f"γ² and γ^(2/{L})", f"γ²とγ^(2/{L})") for L in DEPTHS}
    return Picture(
        title=Text(
            f"The {COLUMNS[column].en} moves with γ² when lazy and with γ^(2/L) when rich.",
            f"{COLUMNS[column].ja}はlazyではγ²、richではγ^(2/L)に比例する。",
        ),
        x=GAMMA,
        y=RATE,
        points=shown,
        series=names | lines,
        caption=captioned(
            shown,
            "Lines have the powers of theory and go through the first point of each regime.",
            "線は理論の傾きで、各領域の最初の点を通ります。",
        ),
        theory=_lines(shown),
    )


def _lines(shown: Sequence[Row]) -> tuple[Row, ...]:
    """A line of the slope that theory says in each regime, through its first point."""
    at = {(str(row["series"]), float(row["x"])): float(row["y"]) for row in shown}
    found = []
    for L in DEPTHS:
        powers = exponents(L)
        for (first, last), power in ((LAZY, powers.lazy), (RICH, powers.rich)):
            begin = at.get((f"L = {L}", first), math.nan)
            for x in (first, last):
                y = begin + power * (x - first)
                found.append({"x": x, "y": y, "series": f"line {L}"})
    return tuple(found)


def closing_picture(tables: Tables) -> Picture:
    """Best final loss against γ for short budgets: where there is no point, nothing learned."""
    told = tables[CLOSING].with_columns(
        pl.format("{} {}", pl.col("depth"), pl.col("updates")).alias("name")
    )
    shown = points(told, x="gamma", y="loss", series="name")
    return Picture(
        title=Text(
            "Beyond some γ nothing learns within the budget, except at depth 2.",
            "あるγを超えると、深さ2を除き、更新回数内ではどの学習率でも学習しない。",
        ),
        x=GAMMA,
        y=Axis(
            Text("best final loss, 1 without learning", "最良の最終損失（学習なしで1）"), log=True
        ),
        points=shown,
        series={f"{L} {T}": Text(f"L = {L}, T = {T}", f"L＝{L}、T＝{T}") for L, T in CLOSINGS},
        caption=captioned(
            shown,
            "Where a depth and T have fewer points or repetitions at a γ than at others, the rest "
            "did not learn at any rate.",
            "同じ深さとTでほかのγより点やnが少ない所では、残りはどの学習率でも学習しませんでした。",
        ),
    )


def entropy_picture(tables: Tables) -> Picture:
    """Two edges of cross-entropy against γ."""
    told = tables[ENTROPY].unpivot(
        ["calm", "bounded"], index=["repetition", "gamma"], variable_name="name"
    )
    shown = points(told, x="gamma", y="value", series="name")
    return Picture(
        title=Text(
            "Cross-entropy is unstable from η ∝ γ² on and diverges from η ∝ γ on.",
            "交差エントロピーはη∝γ²から不安定になり、η∝γから発散する。",
        ),
        x=GAMMA,
        y=RATE,
        points=shown,
        series={
            "calm": Text("the loss never doubles up to here", "損失が2倍にならない上限"),
            "bounded": Text("finite up to here", "発散しない上限"),
        },
        caption=captioned(shown, "Depth 3, T = 200.", "深さ3、T＝200。"),
    )


# ------------------------------------------------------------------ claims


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """Exponents by depth and regime, the reference table, the triangle, cross-entropy."""
    n, few = int(parameters["seeds"]), int(parameters["triangle_seeds"])
    powers = [
        _power(n, L, column, regime)
        for column in COLUMNS
        for L in DEPTHS
        for regime in ("lazy", "rich")
        if not _bound(parameters, column, L, regime)
    ]
    closing = (*_budget(n), *_triangle(few, n))
    return (*powers, _reference(n), *closing, *_entropy(n), _dead(n), _gain(n))


def _bound(parameters: Parameters, column: str, depth: int, regime: str) -> bool:
    """Whether the budget binds below γ = 100, as it does at depths 4 and 5 with T = 300."""
    few = int(parameters["updates"]) < LONG
    return few and column == "best" and depth > 3 and regime == "rich"


SPREADS = {
    ("best", "lazy"): 0.05,
    ("best", "rich"): 0.12,
    ("largest", "lazy"): 0.03,
    ("largest", "rich"): 0.05,
}
"""Of one repetition, from pilots with other seeds."""


def _power(n: int, depth: int, column: str, regime: str) -> Claim:
    lazy = regime == "lazy"
    expected = exponents(depth).lazy if lazy else exponents(depth).rich
    margin = 0.1 if lazy else 0.15
    where = Text("γ ≪ 1", "γ≪1") if lazy else Text("1 ≤ γ ≤ 100", "1≤γ≤100")
    says = Text("γ²", "γ²") if lazy else Text(f"γ^(2/{depth})", f"γ^(2/{depth})")
    reach = LAZY if lazy else RICH
    name = COLUMNS[column]
    return Claim(
        id=f"{column}-{regime}-{depth}",
        sentence=Text(
            f"At depth {depth} and {where.en}, the {name.en} grows with {says.en}.",
            f"深さ{depth}、{where.ja}では、{name.ja}は{says.ja}に比例します。",
        ),
        source="atanasov2025, best learning rate; margins of the derived table",
        measured=Text(
            f"slope of log₁₀ η on log₁₀ γ from 10^{reach[0]} to 10^{reach[1]}",
            f"10^{reach[0]}から10^{reach[1]}までのlog₁₀ηのlog₁₀γに対する傾き",
        ),
        low=expected - margin,
        high=expected + margin,
        expected=expected,
        spread=SPREADS[column, regime],
        n=n,
        values=functools.partial(slope, table=TABLE, column=column, reach=reach, depth=depth),
        picture=functools.partial(picture, column=column),
        meaning=Text(
            "When you change γ, change the learning rate with it; how depends on the regime.",
            "γを変えたら学習率も変えてください。変え方は領域で異なります。",
        ),
        popular=Text(
            "γ alone is said to be a cheap gain; without a new learning rate it is none.",
            "γを変えるだけで良くなると言われますが、学習率も選び直さなければ良くなりません。",
        )
        if lazy
        else Text("", ""),
        twin={"fault": "not divided"},
    )


def _reference(n: int) -> Claim:
    return Claim(
        id="reference-table",
        sentence=Text(
            "Best rates at depths 2 and 3 are those of the derived table.",
            "深さ2と3の最良の学習率は、導出された表と一致します。",
        ),
        source="derived: table of best rates, T = 300, quarter decades, one seed; margin: half a "
        "step for either grid, and half a step for one seed, whose least falls as often beside "
        "the best rate as on it",
        measured=Text(
            "distance in decades, mean of 2 depths and 8 γ", "差の大きさ（桁、16か所の平均）"
        ),
        low=0.0,
        high=3 * HALF_STEP,
        expected=0.22,
        spread=0.05,
        unit="decades",
        n=n,
        values=off_reference,
        picture=functools.partial(picture, column="best"),
        meaning=Text(
            "The table can be used as a start for nets of this size.",
            "この大きさのネットでは、この表を出発点にできます。",
        ),
        twin={"fault": "rate not times N"},
    )


def _budget(n: int) -> tuple[Claim, ...]:
    shared = {
        "source": "atanasov2025; time to learn ∼ γ/η, derived",
        "expected": 1.0,
        "n": n,
        "meaning": Text(
            "At very large γ the rate has to grow with γ, or the training gets longer.",
            "γが非常に大きいときは、学習率をγに比例させるか、学習を長くする必要があります。",
        ),
        "twin": {"fault": "not divided"},
    }
    return (
        Claim(
            id="smallest-rich",
            sentence=Text(
                "At depth 3 the smallest rate that learns within the budget grows with γ.",
                "深さ3では、更新回数内に学習できる最小の学習率はγに比例します。",
            ),
            measured=Text("slope of log₁₀ η on log₁₀ γ, 10 to 1000", "10から1000までの傾き"),
            low=0.9,
            high=1.1,
            spread=0.06,
            values=functools.partial(slope, table=TABLE, column="smallest", reach=(1, 3), depth=3),
            picture=functools.partial(picture, column="best"),
            **shared,
        ),
        Claim(
            id="budget-best",
            sentence=Text(
                "Where the budget binds, the best rate grows faster than with γ^(2/L), too.",
                "更新回数が足りない領域では、最良の学習率もγ^(2/L)より速く大きくなります。",
            ),
            measured=Text(
                "slope of log₁₀ η on log₁₀ γ, 10² to 10³, depth 3, T = 100",
                "10²から10³までの傾き、深さ3、T＝100",
            ),
            low=2 / 3,
            high=math.inf,
            spread=0.1,
            values=functools.partial(slope, table=CLOSING, column="best", reach=BUDGET, depth=3),
            picture=closing_picture,
            **shared,
        ),
    )


def _triangle(few: int, n: int) -> tuple[Claim, ...]:
    return (
        Claim(
            id="triangle-closes",
            sentence=Text(
                "At depth 4 no rate learns beyond a γ that grows with T².",
                "深さ4では、T²に比例するγを超えるとどの学習率でも学習しません。",
            ),
            source="derived: the band closes at γ ∼ T^(L/(L−2)); half-way to T and T³",
            measured=Text(
                "decades of γ between the last that learn with T = 200 and with T = 50",
                "T＝200とT＝50で学習できる最大のγの差（桁）",
            ),
            low=1.5 * math.log10(4),
            high=2.5 * math.log10(4),
            expected=2 * math.log10(4),
            spread=0.2,
            unit="decades",
            n=few,
            values=closes,
            picture=closing_picture,
            meaning=Text(
                "With a fixed budget there is a largest γ. Train longer, or stay below it.",
                "更新回数が決まっていれば使えるγに上限があります。",
            ),
            popular=Text(
                "A larger γ is said to widen the range of usable rates. It narrows it.",
                "γを大きくすると使える学習率の幅が広がると言われますが、狭まります。",
            ),
            twin={"fault": "same budget"},
        ),
        Claim(
            id="depth-2-stays-open",
            sentence=Text(
                "At depth 2 rates that learn are left at γ = 10⁷ with a budget of 100 updates.",
                "深さ2では、γ＝10⁷でも100回の更新で学習できる学習率が残ります。",
            ),
            source="derived: for L = 2 the band stays open",
            measured=Text(
                "decades from the smallest to the largest rate that learns",
                "学習できる最小と最大の学習率の間（桁）",
            ),
            low=0.0,
            expected=0.8,
            spread=0.15,
            unit="decades",
            n=n,
            values=width,
            picture=closing_picture,
            meaning=Text(
                "The loss of usable rates is a matter of depth.",
                "使える学習率が減るかどうかは深さによります。",
            ),
            twin={"fault": "deeper"},
        ),
    )


def _entropy(n: int) -> tuple[Claim, ...]:
    made = []
    for column, power, fault in (
        ("calm", 2.0, "not divided"),
        ("bounded", 1.0, "squared for cross-entropy"),
    ):
        calm = column == "calm"
        made.append(
            Claim(
                id=f"cross-entropy-{column}",
                sentence=Text(
                    "With cross-entropy and γ ≪ 1, the loss grows at first from η ∝ γ² on.",
                    "交差エントロピーでγ≪1のとき、損失が一時的に増え始めるのはη∝γ²からです。",
                )
                if calm
                else Text(
                    "With cross-entropy and γ ≪ 1, training diverges only from η ∝ γ on.",
                    "交差エントロピーでγ≪1のとき、発散するのはη∝γからです。",
                ),
                source="atanasov2025; derived: cross-entropy, lazy",
                measured=Text(
                    "slope of log₁₀ η on log₁₀ γ, 10⁻⁵ to 10⁻³", "10⁻⁵から10⁻³までの傾き"
                ),
                low=power - 0.1,
                high=power + 0.1,
                expected=power,
                spread=0.05,
                n=n,
                values=functools.partial(slope, table=ENTROPY, column=column, reach=(-5, -3)),
                picture=entropy_picture,
                meaning=Text(
                    "With cross-entropy a rate may be far too large although nothing diverges.",
                    "交差エントロピーでは、発散しなくても学習率が大きすぎることがあります。",
                ),
                twin={"fault": fault},
            )
        )
    return tuple(made)


def _dead(n: int) -> Claim:
    return Claim(
        id="finite-is-not-trained",
        sentence=Text(
            "Above the largest rate, relu nets of three layers or more may stay finite without "
            "learning.",
            "3層以上のreluネットでは、学習率が大きすぎても発散せず、学習もしないことがあります。",
        ),
        source="derived: units die and the loss stays finite",
        measured=Text(
            "such runs per γ, depths 3 to 5", "γごとの、そのような学習の数（深さ3から5）"
        ),
        low=0.0,
        expected=1.8,
        spread=0.3,
        unit="runs",
        n=n,
        values=dead_above,
        picture=functools.partial(picture, column="largest"),
        meaning=Text(
            "A finite loss does not say that training works: look whether it fell.",
            "損失が有限でも学習できているとは限りません。下がったかを確認してください。",
        ),
        twin={"fault": "any finite run"},
    )


def _gain(n: int) -> Claim:
    return Claim(
        id="rich-is-better",
        sentence=Text(
            "At its own best rate, γ = 1 ends with a smaller loss than γ = 10⁻³.",
            "それぞれ最良の学習率なら、γ＝1のほうがγ＝10⁻³より損失が小さくなります。",
        ),
        source="atanasov2025, performance; derived: .10 against .04",
        measured=Text("log₁₀ of the ratio of the final losses", "最終損失の比のlog₁₀"),
        low=0.0,
        expected=0.5,
        spread=0.1,
        n=n,
        values=gain,
        picture=losses_picture,
        meaning=Text(
            "On a task with features to learn, do not train in the lazy regime.",
            "特徴を学ぶ必要のある課題では、lazyな領域を避けてください。",
        ),
        twin={"fault": "not divided"},
    )


def losses_picture(tables: Tables) -> Picture:
    """Best final loss against γ, by depth."""
    told = tabled(tables).with_columns(pl.format("L = {}", pl.col("depth")).alias("name"))
    shown = points(told, x="gamma", y="loss", series="name")
    return Picture(
        title=Text(
            "At its own best rate, a net of γ near 1 or above ends lower than a lazy one.",
            "それぞれ最良の学習率なら、γが1前後以上のネットのほうが損失が小さい。",
        ),
        x=GAMMA,
        y=BEST_LOSS,
        points=shown,
        series={f"L = {L}": Text(f"L = {L}", f"L＝{L}") for L in DEPTHS},
        caption=captioned(
            shown,
            "Mean over the last tenth of the updates, over that of predicting 0.",
            "更新の最後の1割の平均。0と予測したときの損失に対する比。",
        ),
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """The exponents of the best rate where the budget binds."""
    n = int(parameters["seeds"])
    return tuple(
        finding(
            n,
            id=f"best-rich-{L}",
            sentence=Text(
                f"At depth {L} and 1 ≤ γ ≤ 100, the best rate grows with this power of γ.",
                f"深さ{L}、1≤γ≤100で、最良の学習率が比例するγのべき。",
            ),
            measured=Text("slope of log₁₀ η on log₁₀ γ", "log₁₀ηのlog₁₀γに対する傾き"),
            values=functools.partial(slope, table=TABLE, column="best", reach=RICH, depth=L),
            picture=functools.partial(picture, column="best"),
            meaning=Text(
                f"With so few updates the budget decides at γ = 100: between 2/{L} and 1. "
                "`--full` trains longer and makes a claim of it.",
                f"更新回数が少ないためγ＝100では回数で決まり、2/{L}と1の間になります。"
                "`--full`では長く学習して主張として検証します。",
            ),
        )
        for L in DEPTHS
        if _bound(parameters, "best", L, "rich")
    )
