"""The sentence at the end of a watched training, in English and Japanese."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

from batchlab.types import Estimate
from batchlab.watch.verdict import Kind, Verdict

Language: TypeAlias = Literal["en", "ja"]
LEAST_MONEY = 0.01
"""Less is not worth a word."""


class Said(NamedTuple):
    """The same in both languages."""

    en: str
    ja: str


NOTHING = Said("", "")


def sentence(verdict: Verdict, language: Language = "en") -> str:
    """The conclusion in one sentence, with numbers, ranges, what a change is worth, and how far it
    has been tested.

    Args:
        verdict: The record.
        language: ``en`` or ``ja``.

    Returns:
        Plain text.
    """
    said = _SENTENCES[verdict.kind](verdict)
    return said.ja if language == "ja" else said.en


def _no_update(v: Verdict) -> Said:
    if v.updates:
        return Said(
            f"Nothing can be said: no batch of {v.updates:,} updates was seen; loop over "
            "`watching.data(loader)` instead of the loader.",
            f"{v.updates:,}回の更新のバッチが観測されなかったため、何も言えません（データローダーの代わりに"
            "`watching.data(loader)`でループを回してください）。",
        )
    return Said(
        "Nothing can be said: no step of the optimizer was seen.",
        "最適化の更新が一度も観測されなかったため、何も言えません。",
    )


def _diverged(v: Verdict) -> Said:
    return Said(
        f"The training diverged: its loss was not finite at update {v.diverged:,} of "
        f"{v.updates:,}; a lower learning rate or clipped gradients come before any question of "
        "batch size (screened).",
        f"学習が発散しました。{v.updates:,}回の更新のうち{v.diverged:,}回目で損失が有限の値でなくなりました。"
        "バッチサイズを考える前に、学習率を下げるか勾配をクリップしてください（下調べのみ）。",
    )


def _loader(v: Verdict) -> Said:
    assert v.waiting is not None
    assert v.speed is not None
    share, range_ = _percent(v.waiting.value), _range(v.waiting, _percent)
    times, range_of_times = _number(v.speed.value).en, _range(v.speed, _number)
    money, noise = _saved(v), _beside(v)
    return Said(
        f"The data loader is the limit: {share.en} of the training time{range_.en} went into "
        f"waiting for data, so a loader that keeps up is worth up to {times} times the speed"
        f"{range_of_times.en}{money.en} (screened){noise.en}.",
        f"データの読み込みが足かせになっています。学習時間の{share.ja}{range_.ja}がデータ待ちで、"
        f"これがなくなれば速さは最大{times}倍{range_of_times.ja}になります{money.ja}（下調べのみ）"
        f"{noise.ja}。",
    )


def _saved(v: Verdict) -> Said:
    if v.saved is None or v.saved < LEAST_MONEY:
        return NOTHING
    amount = f"{v.saved:,.2f} {v.currency}"
    return Said(f" and {amount} of this run's cost", f"。この学習の費用のうち{amount}にあたります")


def _far(v: Verdict) -> Said:
    assert v.change is not None
    below = v.change.batch_size > (v.batch.whole if v.batch else 0)
    updates = Said("updates", "更新回数"), v.change.updates
    samples = Said("examples", "データ量"), v.change.samples
    (less, fewer), (more, further) = (updates, samples) if below else (samples, updates)
    saved = _percents(1 - fewer.high, 1 - fewer.value, 1 - fewer.low)
    paid = _percents(further.low - 1, further.value - 1, further.high - 1)
    noise, family = _noise(v), _family(v)
    return Said(
        f"The batch, {v.batch}, lies far {'below' if below else 'above'} {noise.en}: a batch of "
        f"{v.change.batch_size:,} should need {saved.en} fewer {less.en} for {paid.en} more "
        f"{more.en}, with a learning rate of its own and as far as the machine keeps its speed "
        f"(screened{family.en}).",
        f"バッチ{v.batch}は{noise.ja}よりずっと{'小さい' if below else '大きい'}ため、"
        f"{v.change.batch_size:,}にすると、{more.ja}が{paid.ja}増える代わりに{less.ja}が{saved.ja}"
        f"減る見込みです。学習率を選び直すことと、計算機の速さが保たれることが条件です"
        f"（下調べのみ{family.ja}）。",
    )


def _family(v: Verdict) -> Said:
    if v.proved:
        return NOTHING
    return Said(
        f"; for {v.optimizer} the formula gives the direction only",
        f"。{v.optimizer}では式は方向の目安にとどまります",
    )


def _memory(v: Verdict) -> Said:
    assert v.memory is not None
    assert v.micro_batch is not None
    used, use, noise = _percent(v.memory), _use(v), _beside(v)
    return Said(
        f"Memory is idle: at most {used.en} of it was used, and micro-batches of "
        f"{v.micro_batch:,} should fit, {use.en}; what that is worth in time, `batchlab fit` "
        f"measures (screened){noise.en}.",
        f"メモリが余っています。使用は最大でも{used.ja}で、マイクロバッチ{v.micro_batch:,}も収まる見込み"
        f"です（{use.ja}）。どれだけ速くなるかは`batchlab fit`で測定できます（下調べのみ）"
        f"{noise.ja}。",
    )


def _use(v: Verdict) -> Said:
    """What a larger micro-batch is good for."""
    assert v.batch is not None
    assert v.micro_batch is not None
    parts = v.batch.accumulation
    if parts == 1:
        return Said(f"more than today's {v.batch}", f"現在は{v.batch}")
    fewer = math.ceil(v.batch.micro * parts / v.micro_batch)
    return Said(
        f"so that the same batch, {v.batch}, takes {fewer} instead of {parts} passes",
        f"同じバッチ{v.batch}の累積が{parts}回から{fewer}回に減ります",
    )


def _fine(v: Verdict) -> Said:
    waited = NOTHING
    if v.waiting is not None:
        share = _percent(v.waiting.value)
        waited = Said(
            f"; {share.en} of the time went into waiting for data", f"データ待ちは{share.ja}です。"
        )
    if v.noise is None or v.noise.scale is None:
        unknown = _unknown(v)
        return Said(
            f"Nothing stands out, but the batch, {v.batch}, cannot be judged: {unknown.en}"
            f"{waited.en} (screened).",
            f"目立った問題はありませんが、{unknown.ja}、バッチ{v.batch}の良し悪しは判断できません"
            f"（下調べのみ）。{waited.ja}",
        )
    noise = _noise(v)
    return Said(
        f"Fine: the batch, {v.batch}, is not far from {noise.en}{waited.en}, and no change that "
        "could be seen from here is worth much (screened).",
        f"問題は見当たりません。バッチ{v.batch}は{noise.ja}からかけ離れていません。{waited.ja}"
        "ここから見える範囲で、効果の大きい変更はありません（下調べのみ）。",
    )


_SENTENCES: dict[Kind, Callable[[Verdict], Said]] = {
    Kind.NOTHING: _no_update,
    Kind.DIVERGED: _diverged,
    Kind.LOADER: _loader,
    Kind.BELOW: _far,
    Kind.ABOVE: _far,
    Kind.MEMORY: _memory,
    Kind.FINE: _fine,
}


# -- the noise scale ------------------------------------------------------------------------------


def _noise(v: Verdict) -> Said:
    """The noise scale with its interval, and what it is of."""
    assert v.noise is not None
    part, scale = NOTHING, v.noise.scale
    if v.covered < 0.99:
        share = _percent(v.covered)
        part = Said(f" of {share.en} of the model", f"（モデルの{share.ja}）")
    if scale is None:
        assert v.noise.at_least is not None
        bound = _number(v.noise.at_least).en
        return Said(
            f"the noise scale{part.en}, which is not resolved but at least {bound} examples",
            f"ノイズスケール{part.ja}（定まらないが{bound}件以上）",
        )
    value, range_ = _number(scale.value).en, _range(scale, _number)
    return Said(
        f"the noise scale{part.en}, {value} examples{range_.en}",
        f"ノイズスケール{part.ja}{value}件{range_.ja}",
    )


def _beside(v: Verdict) -> Said:
    """A clause about the batch behind another conclusion."""
    if v.noise is None or (v.noise.scale is None and v.noise.at_least is None):
        return NOTHING
    noise = _noise(v)
    return Said(f"; the batch is {v.batch} beside {noise.en}", f"。バッチは{v.batch}、{noise.ja}")


def _unknown(v: Verdict) -> Said:
    """Why there is no value of the noise scale."""
    if v.why_no_noise:
        return Said(
            f"the noise scale was not measured ({v.why_no_noise})",
            f"ノイズスケールを測定できず（{_reason_ja(v.why_no_noise)}）",
        )
    if v.noise is None:
        return Said(
            "too few updates were measured for the noise scale",
            "ノイズスケールを測るには更新回数が足りず",
        )
    if v.noise.at_least is None:
        return Said("the noise scale is not resolved", "ノイズスケールが定まらず")
    bound = _number(v.noise.at_least).en
    return Said(
        f"the noise scale is not resolved, only that it is at least {bound} examples",
        f"ノイズスケールは{bound}件以上としか分からず",
    )


_REASONS = {
    r"no formula for (.+)": r"\1には計算式がない",
    r"gradients are not accumulated over micro-batches": "勾配を累積していない",
    r"gradients are not set to zero before each update": "更新の前に勾配がゼロに戻されていない",
    r"batch normalisation makes .+": "バッチ正規化によりデータ同士が影響し合う",
    r"the model is compiled, .+": "モデルがコンパイルされている",
    r"a part of the training is compiled, .+": "学習の一部がコンパイルされている",
    r"activations are checkpointed .+": "活性値が保持されていない（チェックポイント）",
    r"its updates cannot be split .+": "更新をデータごとに分けられない",
}
"""Reasons as they stand in the file, which is in English, and the same in Japanese."""


def _reason_ja(reason: str) -> str:
    return "、".join(_clause_ja(clause) for clause in reason.split("; "))


def _clause_ja(clause: str) -> str:
    for pattern, words in _REASONS.items():
        if found := re.fullmatch(pattern, clause):
            return found.expand(words)
    return clause


# -- numbers --------------------------------------------------------------------------------------


def _percent(share: float) -> Said:
    number = f"{100 * share:.0f}" if share >= 0.1 or share == 0 else f"{100 * share:.2g}"
    return Said(f"{number} %", f"{number}%")


def _percents(low: float, value: float, high: float) -> Said:
    """A share with its range; the range alone where the value is one of its ends."""
    a, b, c = (f"{100 * x:.0f}" for x in (low, value, high))
    if a == c:
        return Said(f"{b} %", f"{b}%")
    if b in (a, c):
        return Said(f"{a}–{c} %", f"{a}～{c}%")
    return Said(f"{b} % ({a}–{c} %)", f"{b}%（{a}～{c}%）")


def number(value: float) -> str:
    """A noise scale or a ratio as the sentence writes it: two digits, thousands separated.

    Example:
        >>> number(111.4), number(2.0), number(1234.5)
        ('110', '2.0', '1,200')
    """
    if not math.isfinite(value) or value == 0:
        return "∞" if value else "0"
    rounded = float(f"{value:.2g}")
    places = max(0, 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{places}f}"


def _number(value: float) -> Said:
    written = number(value)
    return Said(written, written)


def _range(x: Estimate, write: Callable[[float], Said]) -> Said:
    if math.isnan(x.low):
        return NOTHING
    low, high = write(x.low), write(x.high)
    return Said(f" (90 % range {low.en} to {high.en})", f"（90%の範囲：{low.ja}～{high.ja}）")
