"""The first table where nothing has been compared yet: what was measured, and what it means."""

from __future__ import annotations

from batchlab._text import EMPTY, Text, same, say
from batchlab.advisor.record import Advice
from batchlab.report import facts, formats, names
from batchlab.report.wording.row import Row


def table(advice: Advice) -> tuple[Row, ...]:
    """What a first look has measured, those rows left out that have no number.

    Args:
        advice: The record.
    """
    rows = (_speed_row(advice), _largest_row(advice), _noise_row(advice))
    return tuple(row for row in rows if row is not None)


def _speed_row(advice: Advice) -> Row | None:
    points = facts.speeds(advice)
    now = next((p for p in points if p.batch_size == advice.today.micro_batch_size), None)
    if now is None or now.samples_per_second is None:
        return None
    best = max(points, key=lambda p: p.samples_per_second.value if p.samples_per_second else 0)
    if best.samples_per_second is None:
        return None
    gain = best.samples_per_second.value / now.samples_per_second.value
    return Row(
        Text("examples processed per second", "1秒間に処理できるデータ数"),
        same(_roughly(now.samples_per_second.value)),
        say(
            "{v} (batch size {b})",
            "{v}（バッチサイズ{b}）",
            v=_roughly(best.samples_per_second.value),
            b=formats.count(best.batch_size),
        ),
        say("{r}×", "{r}倍", r=formats.ratio(gain)),
        Text(
            "the most a larger batch could gain here; part of it may be lost, since larger "
            "batches "
            "can need more data",
            "バッチを大きくして得られる上限です。大きいほど必要なデータが増え、一部は相殺されます",
        ),
    )


def _roughly(value: float) -> str:
    return formats.number(float(f"{value:.2g}"))


def _largest_row(advice: Advice) -> Row | None:
    if advice.memory is None or not advice.memory.largest:
        return None
    return Row(
        Text("batch size", "バッチサイズ"),
        same(names.value("batch_size", advice.today.batch_size)),
        say("up to {b} runs", "{b}まで動作", b=formats.count(advice.memory.largest)),
        EMPTY,
        names.bound(advice),
    )


def _noise_row(advice: Advice) -> Row | None:
    resolved = [p.scale for p in advice.noise if p.scale is not None]
    if not resolved:
        return None
    last = resolved[-1]
    return Row(
        Text(
            "noise scale (batch size beyond which extra examples add little)",
            "ノイズスケール（これ以上バッチを増やしても効果が薄くなる目安）",
        ),
        EMPTY,
        say("{v} ({s})", "{v}（{s}）", v=formats.number(last.value), s=formats.count_range(last)),
        EMPTY,
        Text("candidates are chosen around it", "候補はこの値の前後から選びます"),
    )
