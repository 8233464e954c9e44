"""What more processes gain, in words."""

from __future__ import annotations

from collections.abc import Sequence

from batchlab._text import Text, say
from batchlab.measure.together import Gain, speedup
from batchlab.report import formats


def gained(gains: Sequence[Gain]) -> tuple[Text, ...]:
    """One sentence for each batch size: the most processes against one.

    Args:
        gains: Timings; of a batch size on one number of processes alone nothing is said.
    """
    by_size: dict[int, list[Gain]] = {}
    for one in gains:
        by_size.setdefault(one.batch_size, []).append(one)
    return tuple(_sentence(size, of) for size, of in by_size.items() if len(of) > 1)


def _sentence(size: int, of: Sequence[Gain]) -> Text:
    few, many = (pick(of, key=lambda one: one.world_size) for pick in (min, max))
    ratio = speedup(few, many)
    value, low, high = (formats.number(x, 3) for x in (ratio.value, ratio.low, ratio.high))
    return say(
        "With batches of {b}, {m} processes go through {r} times as many examples a second as {f} "
        "({l} to {h}, 90 %, n = {n} blocks each).",
        "バッチサイズ{b}では、{m}プロセスの速さは{f}プロセスの{r}倍です（90%の範囲：{l}～{h}、"
        "各{n}回計測）。",
        b=formats.count(size),
        m=many.world_size,
        f=few.world_size,
        r=value,
        l=low,
        h=high,
        n=ratio.n,
    )
