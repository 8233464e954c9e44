"""What the topics of the study have in common: words, axes, and reading tables by repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from batchlab import _random
from batchlab._text import Text
from batchlab.studies.claim import Axis, Bench, Claim, Sample

GAMMA = Axis(Text("log₁₀ γ", "log₁₀ γ"))
RATE = Axis(Text("log₁₀ learning rate η (SGD's is Nη)", "log₁₀ 学習率η（SGDの学習率はNη）"))
MEAN = Text("Mean with its 99 % interval", "平均と99%の範囲")


def seed(repetition: int, bench: Bench) -> int:
    """Name of a repetition's draws."""
    return _random.key(bench.seed, "feature strength repetition", repetition)


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


def captioned(shown: Sequence[dict[str, Any]], en: str, ja: str) -> Text:
    """What is shown, with n.

    Args:
        shown: Points.
        en: What else there is to say.
        ja: The same.
    """
    n = max(row["n"] for row in shown)
    return Text(f"{MEAN.en} (n = {n}). {en}", f"{MEAN.ja}（n＝{n}）。{ja}")


def finding(n: int, **given: Any) -> Claim:
    """A claim without a prediction.

    Args:
        n: Repetitions.
        given: The other fields.
    """
    return Claim(n=n, finding=True, source="measured here", **given)
