"""What the pictures of the study have in common."""

from __future__ import annotations

from collections.abc import Sequence

from batchlab._text import Text, say, verbatim
from batchlab.studies.claim import Axis, Row

BATCH = Axis(Text("batch size (examples)", "バッチサイズ（件）"), log=True, base=2)
LOSS = Axis(Text("validation loss", "検証データでの損失"))
TUNED = Text(
    "every repetition chose its own rates, on other seeds",
    "学習率は繰り返しのたびに、別の乱数シードで選択",
)


def averaged(shown: Sequence[Row]) -> Text:
    """What a point and its line are, with n, for a caption.

    Example:
        >>> averaged([{"n": 8}, {"n": 7}]).en
        'mean of n = 7 to 8 with its 99 % range'
    """
    return _of(shown, Text("mean", "平均"))


def middle(shown: Sequence[Row]) -> Text:
    """The same of a median.

    Example:
        >>> middle([{"n": 8}]).en
        'median of n = 8 with its 99 % range'
    """
    return _of(shown, Text("median", "中央値"))


def _of(shown: Sequence[Row], what: Text) -> Text:
    counts = [int(row["n"]) for row in shown] or [0]
    least, most = min(counts), max(counts)
    n = verbatim(str(most)) if least == most else Text(f"{least} to {most}", f"{least}～{most}")
    return say(
        "{w} of n = {n} with its 99 % range", "点は{w}（n＝{n}）、線は99%の範囲", w=what, n=n
    )
