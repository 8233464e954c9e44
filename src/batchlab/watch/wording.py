"""The sentence at the end of a watched training, in English and Japanese."""

from __future__ import annotations

import math
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


def _nothing(v: Verdict) -> Said:
    return Said(
        "Nothing can be said: no step of the optimizer was seen.",
        "最適化の更新が一度も観測されなかったため、何も言えません。",
    )


def _diverged(v: Verdict) -> Said:
    return Said(
        f"The training diverged: its loss was not finite at update {v.diverged:,} of "
        f"{v.updates:,}; a lower learning rate or clipped gradients come before any question of "
        "batch size (screened).",
        f"学習が発散しました。{v.updates:,}回の更新のうち{v.diverged:,}回目で損失が有限の値でなくなり"
        "ました。バッチサイズを考える前に、学習率を下げるか勾配をクリップしてください（下調べのみ）。",
    )


def _loader(v: Verdict) -> Said:
    assert v.waiting is not None
    assert v.speed is not None
    told = v.saved is not None and v.saved >= LEAST_MONEY
    money = f", {v.saved:,.2f} {v.currency} of this run" if told else ""
    money_ja = f"、この学習で{v.saved:,.2f} {v.currency}の節約" if told else ""
    return Said(
        f"The data loader is the limit: {_percent(v.waiting.value)} of the training time"
        f"{_range(v.waiting, _percent)} went into waiting for data, so a loader that keeps up is "
        f"worth up to {_number(v.speed.value)} times the speed{_range(v.speed, _number)}{money} "
        f"(screened){_and_noise(v).en}.",
        f"データの読み込みが足かせになっています。学習時間の{_percent(v.waiting.value)}"
        f"{_range_ja(v.waiting, _percent)}がデータ待ちで、これがなくなれば最大"
        f"{_number(v.speed.value)}倍{_range_ja(v.speed, _number)}の速さになります{money_ja}"
        f"（下調べのみ）{_and_noise(v).ja}。",
    )


def _far(v: Verdict) -> Said:
    assert v.change is not None
    below = v.kind is Kind.BELOW
    less, more = (v.change.updates, v.change.samples)
    words, words_ja = ("updates", "examples"), ("更新回数", "データ量")
    if not below:
        less, more = more, less
        words, words_ja = words[::-1], words_ja[::-1]
    noise, family = _noise(v), _family(v)
    return Said(
        f"The batch, {v.batch}, lies far {v.kind.split()[2]} {noise.en}: a batch of "
        f"{v.change.batch_size:,} should need {_fewer(less)} fewer {words[0]} for "
        f"{_more(more)} more {words[1]}, with a learning rate of its own and as far as the "
        f"machine keeps its speed (screened{family.en}).",
        f"バッチ{v.batch}は{noise.ja}よりずっと{'小さい' if below else '大きい'}ため、"
        f"{v.change.batch_size:,}にすると、{words_ja[1]}が{_more(more)}増える代わりに"
        f"{words_ja[0]}が{_fewer(less)}減る見込みです。学習率の選び直しと、計算機の速さが保たれる"
        f"ことが条件です（下調べのみ{family.ja}）。",
    )


def _memory(v: Verdict) -> Said:
    assert v.batch is not None
    assert v.memory is not None
    assert v.micro_batch is not None
    if v.batch.accumulation > 1:
        passes = math.ceil(v.batch.micro * v.batch.accumulation / v.micro_batch)
        worth = f"the same batch, {v.batch}, in {passes} instead of {v.batch.accumulation} parts"
        worth_ja = f"同じバッチ{v.batch}を{v.batch.accumulation}分割ではなく{passes}分割で"
    else:
        worth = f"more than the batch of today, {v.batch}"
        worth_ja = f"現在のバッチ{v.batch}より大きく"
    return Said(
        f"Memory is idle: at most {_percent(v.memory)} of it was used, and micro-batches of "
        f"{v.micro_batch:,} should fit, {worth}; what that is worth in time, "
        f"`batchlab fit` measures (screened){_and_noise(v).en}.",
        f"メモリが余っています。使用は最大でも{_percent(v.memory)}で、マイクロバッチ"
        f"{v.micro_batch:,}も収まる見込みです（{worth_ja}学習できます）。どれだけ速くなるかは"
        f"`batchlab fit`で測定できます（下調べのみ）{_and_noise(v).ja}。",
    )


def _fine(v: Verdict) -> Said:
    waited, waited_ja = "", ""
    if v.waiting is not None:
        share = _percent(v.waiting.value)
        waited, waited_ja = (
            f"; {share} of the time went into waiting for data",
            f"データ待ちは{share}。",
        )
    if v.noise is not None and v.noise.scale is not None:
        return Said(
            f"Fine: the batch, {v.batch}, is not far from {_noise(v).en}{waited}, and no change "
            "that could be seen from here is worth much (screened).",
            f"問題は見当たりません。バッチ{v.batch}は{_noise(v).ja}からかけ離れていません。{waited_ja}"
            "ここから見える範囲で、効果の大きい変更はありません（下調べのみ）。",
        )
    return Said(
        f"Nothing stands out, but the batch, {v.batch}, cannot be judged, for "
        f"{_unknown(v).en}{waited} (screened).",
        f"目立った問題はありませんが、{_unknown(v).ja}、バッチ{v.batch}の良し悪しは判断できません。"
        f"{waited_ja}（下調べのみ）",
    )


_SENTENCES: dict[Kind, Callable[[Verdict], Said]] = {
    Kind.NOTHING: _nothing,
    Kind.DIVERGED: _diverged,
    Kind.LOADER: _loader,
    Kind.BELOW: _far,
    Kind.ABOVE: _far,
    Kind.MEMORY: _memory,
    Kind.FINE: _fine,
}


def _noise(v: Verdict) -> Said:
    """The noise scale with its interval, and what it is of."""
    assert v.noise is not None
    of, of_ja = "", ""
    if v.covered < 0.99:
        of, of_ja = f" of {_percent(v.covered)} of the model", f"（モデルの{_percent(v.covered)}）"
    scale = v.noise.scale
    if scale is None:
        assert v.noise.at_least is not None
        bound = _number(v.noise.at_least)
        return Said(
            f"the noise scale{of}, which is at least {bound} examples",
            f"ノイズスケール{of_ja}（{bound}件以上）",
        )
    return Said(
        f"the noise scale{of}, {_number(scale.value)} examples{_range(scale, _number)}",
        f"ノイズスケール{of_ja}{_number(scale.value)}件{_range_ja(scale, _number)}",
    )


def _and_noise(v: Verdict) -> Said:
    """A clause about the noise scale behind another conclusion."""
    if v.noise is None or (v.noise.scale is None and v.noise.at_least is None):
        return Said("", "")
    return Said(
        f"; the batch is {v.batch}, {_noise(v).en}", f"。バッチは{v.batch}、{_noise(v).ja}"
    )


def _unknown(v: Verdict) -> Said:
    """Why there is no noise scale."""
    if v.noise is not None:
        bound, bound_ja = "", ""
        if v.noise.at_least is not None:
            number = _number(v.noise.at_least)
            bound, bound_ja = f", it is at least {number} examples", f"（少なくとも{number}件）"
        return Said(
            f"the noise scale is not resolved{bound}", f"ノイズスケールが定まらず{bound_ja}"
        )
    if v.why_no_noise:
        return Said(
            f"the noise scale was not measured ({v.why_no_noise})",
            f"ノイズスケールを測定できず（{v.why_no_noise}）",
        )
    return Said(
        "too few updates were measured for the noise scale",
        "ノイズスケールを測るには更新回数が足りず",
    )


def _family(v: Verdict) -> Said:
    if v.proved:
        return Said("", "")
    return Said(
        f"; for {v.optimizer} the formula gives the direction only",
        f"。{v.optimizer}では式は方向の目安にとどまります",
    )


def _fewer(ratio: Estimate) -> str:
    return _percents(1 - ratio.high, 1 - ratio.value, 1 - ratio.low)


def _more(ratio: Estimate) -> str:
    return _percents(ratio.low - 1, ratio.value - 1, ratio.high - 1)


def _percents(low: float, value: float, high: float) -> str:
    """``40 % (30–45 %)``, or one number where they are the same."""
    a, b, c = (f"{100 * x:.0f}" for x in (low, value, high))
    return f"{b} %" if a == b == c else f"{b} % ({a}–{c} %)"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def _number(value: float) -> str:
    """To two digits, thousands separated."""
    if not math.isfinite(value) or value == 0:
        return "∞" if value else "0"
    places = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{float(f'{value:.2g}'):,.{places}f}"


def _range(x: Estimate, write: Callable[[float], str]) -> str:
    if math.isnan(x.low):
        return ""
    return f" (90 % range {write(x.low)} to {write(x.high)})"


def _range_ja(x: Estimate, write: Callable[[float], str]) -> str:
    return "" if math.isnan(x.low) else f"（90%の範囲{write(x.low)}～{write(x.high)}）"
