"""What the topics of the study have in common: words, axes, and reading tables by repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from batchlab import _random
from batchlab._text import Text
from batchlab.errors import InvalidValueError, must
from batchlab.stats import slopes
from batchlab.studies.claim import Axis, Bench, Claim, Parameters, Sample
from batchlab.theory.mean_field import Curve

STEPS = Axis(Text("updates t", "更新回数t"))
COSINE = Axis(Text("cosine with the target's direction", "正解の方向との余弦"))
INPUTS = Axis(Text("features d", "入力の次元d"), log=True)
WAYS = {
    "multi": Text("same batch at every step", "毎回同じバッチ"),
    "single": Text("fresh batch at every step", "毎回新しいバッチ"),
}
THEORIES = {
    "theory multi": Text("theory, same batch", "理論（同じバッチ）"),
    "theory single": Text("theory, fresh batches", "理論（新しいバッチ）"),
}
MEAN = Text("Mean with its 99 % interval", "平均と99%の範囲")
CHECK = "derived, checked against simulation: batch re-use, cheapest decisive test"


def seeds(count: int, bench: Bench) -> list[int]:
    """Names of the repetitions' draws.

    Args:
        count: Repetitions.
        bench: Whose seed they rest on.
    """
    return [_random.key(bench.seed, "batch re-use repetition", i) for i in range(count)]


CHECK_ONE = "derived, checked against simulation: Repetita Iuvant"


def numbers(text: object) -> list[int]:
    """The dimensions of a parameter, ascending; two at least, since they are compared.

    Raises:
        InvalidValueError: If there are fewer, or one is no whole number above 2.

    Example:
        >>> numbers("500,250,500")
        [250, 500]
    """
    parts = {part.strip() for part in str(text).split(",")}
    found = sorted({int(part) for part in parts if part.isdecimal()})
    if len(found) < len(parts) or len(found) < 2 or found[0] < 3:
        words = "two whole numbers or more, above 2, such as 250,500"
        raise InvalidValueError(must("dimensions", words, text))
    return found


def theory_seconds(parameters: Parameters) -> float:
    """What a curve of the theory takes, by its samples.

    Args:
        parameters: With ``theory_samples``.
    """
    return 1e-5 * int(parameters["theory_samples"])


def sample(table: pl.DataFrame, column: str, **at: object) -> Sample:
    """One number a repetition, in their order.

    Args:
        table: Rows with a column ``repetition``.
        column: What is taken.
        at: Column → the value that it has.

    Example:
        >>> rows = pl.DataFrame({"repetition": [1, 0, 0], "t": [2, 2, 1], "x": [5.0, 3.0, 4.0]})
        >>> sample(rows, "x", t=2).tolist()
        [3.0, 5.0]
    """
    kept = table.filter(*(pl.col(name) == value for name, value in at.items()))
    return kept.sort("repetition")[column].to_numpy()


def widened(values: Sample, error: float) -> Sample:
    """The same mean, with deviations so much larger that its standard error holds another one too:
    that of a number, the same for all, which was subtracted and is itself uncertain.

    Args:
        values: One number a repetition.
        error: Standard error of what was subtracted.

    Returns:
        With s²/n + error² for s²/n.

    Example:
        >>> values = np.array([1.0, 2.0, 3.0])
        >>> wide = widened(values, error=1.0)
        >>> wider = (wide.var(ddof=1) - values.var(ddof=1)) / 3
        >>> round(float(wide.mean()), 6), round(float(wider), 6)
        (2.0, 1.0)
    """
    own = values.var(ddof=1) / len(values)
    if own == 0:
        return values
    return values.mean() + (values - values.mean()) * np.sqrt(1 + error**2 / own)


def solver_error(curve: Curve) -> Float[np.ndarray, " T"]:
    """Standard error of a curve of the theory, from its independent solutions.

    Args:
        curve: Of one number at each t.
    """
    return (curve.each.std(0) / math.sqrt(len(curve.each))).numpy()


def slope(table: pl.DataFrame, column: str, log: bool, **at: object) -> Sample:
    """Slope on log d, a number a repetition: of the column, or of the log of its size.

    E log|x| of a variable x moves with log σ whatever its shape, so that the mean of such slopes
    is the slope of log σ.

    Args:
        table: Rows with columns ``repetition`` and ``inputs``.
        column: What falls or not.
        log: Whether of the log of its size.
        at: Column → the value that it has.

    Example:
        >>> rows = {"repetition": [0, 0], "inputs": [100, 400], "x": [-0.2, 0.1]}
        >>> slope(pl.DataFrame(rows), "x", log=True).round(3).tolist()
        [-0.5]
    """
    sizes = np.sort(table.filter(*(pl.col(k) == v for k, v in at.items()))["inputs"].unique())
    found = np.stack([sample(table, column, inputs=d, **at) for d in sizes], 1)
    return slopes(np.log(sizes), np.log(np.abs(found)) if log else found)


def captioned(shown: Sequence[dict[str, Any]], en: str, ja: str) -> Text:
    """What is shown, with n.

    Args:
        shown: Points.
        en: What else there is to say.
        ja: The same.
    """
    n = shown[0]["n"]
    return Text(f"{MEAN.en} (n = {n}). {en}", f"{MEAN.ja}（n＝{n}）。{ja}")


SOLVED = "dandi2024, dynamical mean-field theory; batchlab.theory.dmft"


def finding(n: int, **given: Any) -> Claim:
    """A claim without a prediction.

    Args:
        n: Repetitions.
        given: The other fields.
    """
    return Claim(n=n, finding=True, source="measured here", **given)
