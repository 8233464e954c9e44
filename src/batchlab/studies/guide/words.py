"""What the pictures of the study have in common."""

from __future__ import annotations

from collections.abc import Sequence

from batchlab._text import Text
from batchlab.studies.claim import Axis, Row

BATCH = Axis(Text("batch size (examples)", "バッチサイズ（件）"), log=True)
LOSS = Axis(Text("validation loss", "検証データでの損失"))
TUNED = Text(
    "rate chosen for each batch size on other seeds",
    "学習率はバッチサイズごとに別の乱数シードで選択",
)


def averaged(shown: Sequence[Row]) -> Text:
    """What a point and its line are, with n, for a caption.

    Example:
        >>> averaged([{"n": 8}, {"n": 7}]).en
        'mean of n = 8 with its 99 % range'
    """
    n = max((int(row["n"]) for row in shown), default=0)
    return Text(f"mean of n = {n} with its 99 % range", f"点は平均（n＝{n}）、線は99%の範囲")
