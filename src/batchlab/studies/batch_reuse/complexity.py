r"""How many fresh examples one pass needs, by the information exponent of its target.

y = h_ℓ(z), a student h_ℓ of one unit vector w, batches of one fresh Gaussian example, the
correlation loss −y h_ℓ(h) on the sphere:

    w ← (w + η y h_ℓ'(h) (x − h w)) / |…|,   h = w·x, z = w*·x, h_ℓ = He_ℓ/√(ℓ!).

The start has the overlap m = w·w* = 1/√d of a random direction. With ζ the part of x beside w
towards w*, and r² = |x|² − h² − ζ² of d − 2 degrees of freedom, an update needs (h, ζ, r²) and m
alone. By the theory T ∝ d for ℓ = 1, d log d for ℓ = 2 and d^(ℓ−1) from ℓ = 3 on, with the step
sizes of :data:`RATES`.

Source: benarous2021, theorem 1.3.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Float

from batchlab._text import Text
from batchlab.studies.batch_reuse.words import INPUTS, captioned, numbers, seeds, slope
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

TABLE = "complexity"
RATES = {1: (0.1, 1.0), 2: (0.1, 1.0), 3: (0.05, 1.5)}
"""ℓ → (c, p) of η = c/dᵖ: the largest power for which the walk's noise does not win."""
LAWS = {1: "d", 2: "d log d", 3: "d²"}
"""ℓ → how many examples are needed, up to a factor."""
REACHED = 0.5
"""Overlap that counts as found."""
CHAINS = 15
"""Walks of a repetition, whose middle one counts: some walk away from the target for good."""
PATIENCE = 30
"""Times the drift's own time after which a walk is given up."""
BLOCK = 512
PREDICTED = {1: (0.85, 1.15), 2: (0.95, 1.4), 3: (1.7, 2.3)}
"""ℓ → range of the power of d; d log d has 1.2 between 64 and 512."""
EXPECTED = {1: 1.09, 2: 1.27, 3: 2.16}
"""Of the mean motion alone, see :func:`drift`, at the dimensions of ``quick``."""
SPREAD = {1: 0.03, 2: 0.06, 3: 0.2}
"""Between repetitions; from a pilot of 8."""


def cells(parameters: Parameters) -> tuple[Cell, ...]:
    """One an exponent and dimension."""
    shared = {"seeds": parameters["axis_seeds"], "fault": parameters["fault"]}
    return tuple(
        Cell(TABLE, {"exponent": exponent, "inputs": d, **shared}, 1e-4 * drift(exponent, d))
        for exponent in RATES
        for d in numbers(parameters[f"dimensions_{exponent}"])
    )


def drift(exponent: int, inputs: int) -> float:
    """Updates that the mean motion dm/dt = η ℓ m^(ℓ−1) alone takes from 1/√d to ½.

    Example:
        >>> round(drift(1, 100)), round(drift(3, 100))
        (400, 53333)
    """
    c, power = RATES[exponent]
    start, each = inputs**-0.5, exponent * c * inputs**-power
    if exponent == 2:
        return math.log(REACHED / start) / each
    away = 2 - exponent
    return (REACHED**away - start**away) / (away * each)


def measure(cell: Cell, bench: Bench) -> list[Row]:
    """A row a repetition: examples until the middle walk has found the target."""
    asked = cell.settings
    exponent, d = int(asked["exponent"]), int(asked["inputs"])
    c, power = RATES[exponent]
    rate = c * d**-power * (32 / d if asked["fault"] == "rate falls" else 1.0)
    longest = round(PATIENCE * drift(exponent, d))
    rngs = [np.random.default_rng(key) for key in seeds(int(asked["seeds"]), bench)]
    found = np.sort(walks(exponent, d, rate, longest, rngs), axis=1)[:, CHAINS // 2]
    return [{"repetition": i, "examples": float(count)} for i, count in enumerate(found)]


def walks(
    exponent: int, inputs: int, rate: float, longest: int, rngs: list[np.random.Generator]
) -> Float[np.ndarray, "n chains"]:
    """Updates until each walk reaches the overlap ½; infinite where it does not, or where half of
    the walks of every repetition did before it.

    Args:
        exponent: ℓ.
        inputs: d, at least 3.
        rate: η.
        longest: After so many updates a walk is given up.
        rngs: One a repetition.
    """
    m = np.full((len(rngs), CHAINS), inputs**-0.5)
    found = np.full(m.shape, math.inf)
    for t in range(longest):
        if t % BLOCK == 0:
            if (np.isfinite(found).sum(1) > CHAINS // 2).all():
                break
            draws = [_drawn(rng, inputs) for rng in rngs]
            h, beside, rest = (np.stack(each, 1) for each in zip(*draws, strict=True))
        now = t % BLOCK
        m = stepped(m, h[now], beside[now], rest[now], exponent, rate)
        found[(np.abs(m) >= REACHED) & np.isinf(found)] = t + 1
    return found


def _drawn(rng: np.random.Generator, inputs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(h, ζ, r²) of a block of examples."""
    shape = BLOCK, CHAINS
    return (
        rng.standard_normal(shape),
        rng.standard_normal(shape),
        rng.chisquare(inputs - 2, shape),
    )


def stepped(
    m: np.ndarray, h: np.ndarray, beside: np.ndarray, rest: np.ndarray, exponent: int, rate: float
) -> np.ndarray:
    """The overlap after one update.

    Args:
        m: Overlaps before it.
        h: w·x.
        beside: ζ.
        rest: r².
        exponent: ℓ.
        rate: η.
    """
    across = np.sqrt(1 - m * m)
    z = m * h + across * beside
    pull = rate * hermite(exponent, z) * math.sqrt(exponent) * hermite(exponent - 1, h)
    length = np.sqrt(1 + pull * pull * (beside * beside + rest))
    return np.clip((m + pull * across * beside) / length, -1, 1)


def hermite(degree: int, x: np.ndarray) -> np.ndarray:
    """h_ℓ = He_ℓ/√(ℓ!).

    Example:
        >>> hermite(2, np.array([1.0, 3.0])).round(3).tolist()
        [0.0, 5.657]
    """
    before, now = np.zeros_like(x), np.ones_like(x)
    for j in range(degree):
        before, now = now, x * now - j * before
    return now / math.sqrt(math.factorial(degree))


# ------------------------------------------------------------------ numbers, picture, claims


def power_of(tables: Tables, exponent: int) -> Sample:
    """Slope of log examples on log d; one a repetition."""
    return slope(tables[TABLE], "examples", log=True, exponent=exponent)


def picture(tables: Tables) -> Picture:
    """Examples against d, and the laws through the first point."""
    shown = points(tables[TABLE], x="inputs", y="examples", series="exponent")
    first = {str(row["series"]): row for row in reversed(shown)}
    drawn = [
        {
            "x": row["x"],
            "y": float(at["y"]) * _law(k, float(row["x"])) / _law(k, float(at["x"])),
            "series": f"law {k}",
        }
        for row in shown
        for k, at in [(int(row["series"]), first[str(row["series"])])]
    ]
    return Picture(
        title=Text(
            "One pass needs the more examples the higher the information exponent.",
            "情報指数が高いほど、一度しか見ない学習には多くのデータが要る。",
        ),
        x=INPUTS,
        y=Axis(Text("fresh examples until found", "見つかるまでの新しいデータ数"), log=True),
        points=shown,
        series={
            **{str(k): Text(f"exponent {k}", f"指数{k}") for k in RATES},
            **{f"law {k}": Text(f"∝ {law}", f"{law}に比例") for k, law in LAWS.items()},
        },
        caption=captioned(
            shown,
            f"Middle of {CHAINS} walks from an overlap of 1/√d to ½; one neuron on the sphere.",
            f"重なり1/√dから½までの{CHAINS}回の学習の中央。球面上のニューロン1個。",
        ),
        theory=tuple(drawn),
    )


def _law(exponent: int, d: float) -> float:
    return {1: d, 2: d * math.log(d), 3: d * d}[exponent]


def claims(parameters: Parameters) -> tuple[Claim, ...]:
    """T ∝ d, d log d, d²."""
    return tuple(_power(int(parameters["axis_seeds"]), exponent) for exponent in RATES)


def _power(n: int, exponent: int) -> Claim:
    law = LAWS[exponent]
    low, high = PREDICTED[exponent]
    return Claim(
        id=f"examples-of-exponent-{exponent}",
        sentence=Text(
            f"One pass over fresh examples finds a target of information exponent {exponent} "
            f"after a number in proportion to {law}.",
            f"新しいデータを一度ずつ見る学習が情報指数{exponent}の目標を見つけるまでのデータ数は、"
            f"{law}に比例します。",
        ),
        source="benarous2021, theorem 1.3",
        measured=Text(
            "slope of log examples, until the overlap is ½, on log d",
            "重なりが½になるまでのデータ数のlogの、log dに対する傾き",
        ),
        low=low,
        high=high,
        expected=EXPECTED[exponent],
        spread=SPREAD[exponent],
        n=n,
        values=functools.partial(power_of, exponent=exponent),
        picture=picture,
        meaning=Text(
            "`batchlab exponents` gives the exponent of a target: the higher, the more re-use of "
            "batches may save.",
            "目標の指数は`batchlab exponents`で分かります。高いほど、再利用でデータを節約できる"
            "余地があります。",
        ),
        twin={"fault": "rate falls"},
    )


def findings(parameters: Parameters) -> tuple[Claim, ...]:
    """None."""
    return ()
