"""Whether a change pays: the line that the page recomputes when the reader edits its fields.

`page.js` repeats :func:`outcome` and :func:`fill`; a browser test holds both to the same words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from batchlab._text import EMPTY, Text, join, same, say
from batchlab.advisor.record import Advice
from batchlab.report import facts, formats
from batchlab.report.facts import Case

HOURS = "hours"
CLOCKS = (
    (0.1, 1.0, Text("× hours each", "× 1回の時間"), Text("", "時間")),
    (1 / 60, 1 / 60, Text("× minutes each", "× 1回の時間"), Text("", "分")),
    (0.0, 1 / 3600, Text("× seconds each", "× 1回の時間"), Text("", "秒")),
)
"""From so many hours on, a training's length is asked for in this unit: hours in it, its words."""


@dataclass(frozen=True)
class Worth:
    """What the line is computed from.

    Attributes:
        ratio: Time today / recommended; cost today / recommended where data costs something.
        low: Lower end of its range; NaN where there is none.
        high: Upper end.
        settled: Whether a change is advised.
        trainings: A year, the first field.
        hours: Of one training, the second field.
        per_hour: Price of an hour, the data that it uses included, the third field; 1 where the
            line counts hours.
        code: Currency, or ``hours`` without a price.
        demo_seconds: Seconds one training of the demonstration saves; 0 for a task of one's own.
    """

    ratio: float
    low: float
    high: float
    settled: bool
    trainings: float
    hours: float
    per_hour: float
    code: str
    demo_seconds: float

    @property
    def clock(self) -> tuple[float, Text, Text]:
        """Hours in the unit that one training's length is asked for in, and its words."""
        return next(clock[1:] for clock in CLOCKS if self.hours >= clock[0])

    @property
    def length(self) -> float:
        """Length of one training in that unit."""
        return float(f"{self.hours / self.clock[0]:.3g}")


def of(advice: Advice) -> Worth | None:
    """What the line is computed from; None where nothing was compared or no ratio is finite.

    Args:
        advice: The record.
    """
    compared = facts.comparison(advice, "cost" if facts.pays_for_data(advice) else "time")
    if (
        facts.taken_back(advice)
        or compared is None
        or facts.unreached(compared)
        or not 0 < compared.difference.value < math.inf
    ):
        return None
    per_hour = _per_hour(advice)
    saved = compared.today.value - compared.recommended.value
    if facts.pays_for_data(advice):
        saved *= 3600 / per_hour
    return Worth(
        ratio=compared.difference.value,
        # An open end (0 or ∞: too few repeats) is no end.
        low=compared.difference.low if compared.difference.low > 0 else math.nan,
        high=compared.difference.high if compared.difference.high < math.inf else math.nan,
        settled=facts.case(advice) is Case.CHANGE,
        trainings=facts.TRAININGS_A_YEAR,
        hours=facts.hours_of_one(advice),
        per_hour=per_hour,
        code=advice.price.currency if advice.price else HOURS,
        demo_seconds=saved if advice.builtin and math.isfinite(saved) else 0.0,
    )


def _per_hour(advice: Advice) -> float:
    """What an hour of training costs today, the data that it uses included; 1 without a price."""
    if advice.price is None:
        return 1.0
    if not facts.pays_for_data(advice):
        return advice.price.per_hour
    cost, time = (facts.comparison(advice, quantity) for quantity in ("cost", "time"))
    assert cost is not None
    assert time is not None
    return float(f"{3600 * cost.today.value / time.today.value:.4g}")


def outcome(amounts: tuple[float, float, float], settled: bool, small: float) -> str:
    """Which sentence an amount and its range call for.

    Args:
        amounts: Saved a year, lower and upper end.
        settled: Whether a change is advised.
        small: Below this an amount is too small to matter.

    Returns:
        A key of :data:`SENTENCES`.

    Example:
        >>> outcome((850, 600, 1020), True, 24), outcome((2, 1, 3), True, 24)
        ('saved', 'small')
        >>> outcome((30, -100, 200), False, 24), outcome((-50, -90, -10), False, 24)
        ('between', 'nothing')
    """
    saved, low, high = amounts
    if high <= 0 or (saved <= 0 and (math.isnan(low) or math.isnan(high))):
        return "nothing"
    if math.isnan(low) or math.isnan(high):
        return "plain" if saved >= small else "plain_small"
    if settled:
        return "saved" if saved >= small else "small"
    if high < small:
        return "most_small"
    return "between" if low < 0 else "most"


SENTENCES = {
    "saved": Text(
        "**about {v}{u} a year saved ({a}–{b})**", "**年間およそ{v}{u}の削減（{a}～{b}{u}）**"
    ),
    "small": Text(
        "about {v}{u} a year saved ({a}–{b}): **too small to matter**",
        "年間およそ{v}{u}の削減（{a}～{b}{u}）で、**変更の理由になるほどの額ではありません**",
    ),
    "plain": Text(
        "a change would save **{v}{u} a year**; the range is not known yet",
        "変更した場合の削減は**年間{v}{u}**（範囲は未定）",
    ),
    "plain_small": Text(
        "a change would save {v}{u} a year: **too small to matter**",
        "変更しても削減は年間{v}{u}で、**変更の理由になるほどの額ではありません**",
    ),
    "most": Text(
        "a change would save **{a}–{b}{u} a year**", "変更した場合の削減は**年間{a}～{b}{u}**"
    ),
    "most_small": Text(
        "a change would save **at most {b}{u} a year: too small to matter**",
        "変更しても削減は**年間最大{b}{u}で、変更の理由になるほどの額ではありません**",
    ),
    "between": Text(
        "a change could mean anything from **{c}{u} a year lost to {b}{u} a year saved**",
        "変更の効果は**年間{c}{u}の損失から{b}{u}の削減まで**あり得ます",
    ),
    "nothing": Text("**a change would save nothing**", "**変更しても削減はありません**"),
    "demo_small": Text(
        " The demo itself is tiny: {v}{u} a year, not worth a meeting.",
        "このデモ自体は小さく、年間{v}{u}ほどなので、これだけで変更する理由にはなりません。",
    ),
    "demo": Text(" The demo itself: {v}{u} a year.", "このデモ自体では年間{v}{u}です。"),
}


def unit(code: str) -> Text:
    """The unit behind an amount.

    Example:
        >>> unit("hours")
        Text(en=' hours of computing', ja='時間')
    """
    return Text(" hours of computing", "時間") if code == HOURS else formats.currency(code)


def line(worth: Worth, settled_by: Text = EMPTY) -> Text:
    """What stands behind the arrow, for the fields' present content.

    Args:
        worth: What to compute from, fields included.
        settled_by: The condition in front of it.

    Example:
        >>> demo = Worth(1.9, 1.5, 2.3, True, 500, 3.0, 180.0, "JPY", 0.0)
        >>> line(demo).ja
        '**年間およそ12万8千円の削減（9万～15万3千円）**。'
    """
    year = tuple(
        facts.saving(r, worth.trainings, worth.hours) * worth.per_hour
        for r in (worth.ratio, worth.low, worth.high)
    )
    small = facts.TOO_SMALL_HOURS * worth.per_hour
    key = outcome((year[0], year[1], year[2]), worth.settled, small)
    main = fill(key, (year[0], year[1], year[2]), worth.code)
    return join((say("{c}{m}.", "{c}{m}。", c=settled_by, m=main), _demo(worth, small)), "")


def _demo(worth: Worth, small: float) -> Text:
    if worth.demo_seconds <= 0:
        return EMPTY
    year = worth.trainings * worth.demo_seconds / 3600 * worth.per_hour
    return fill("demo_small" if year < small else "demo", (year, year, year), worth.code)


def fill(key: str, amounts: tuple[float, float, float], code: str) -> Text:
    """A sentence with its amounts, all rounded like the first.

    Args:
        key: Of :data:`SENTENCES`.
        amounts: Saved a year, lower and upper end.
        code: Currency or ``hours``.

    Example:
        >>> fill("saved", (853.0, 600.0, 1017.0), "USD").en
        '**about 850 USD a year saved (600–1,020)**'
    """
    ranged = "{v}" not in SENTENCES[key].en
    first = (amounts[2] if ranged and math.isfinite(amounts[2]) else amounts[0]) or 1.0
    if not all(map(math.isfinite, amounts)):
        written = (*formats.amounts((first,), code), EMPTY, EMPTY, EMPTY)
    else:
        written = formats.amounts((first, amounts[1], amounts[2], -amounts[1]), code)
    parts = dict(zip("vabc", written, strict=True))
    return say(*SENTENCES[key], u=unit(code), **parts)


def condition(advice: Advice) -> Text:
    """Under what condition the amount holds.

    Args:
        advice: The record.
    """
    if advice.part is not None:
        return Text(
            "if the gain on all your data is that of the part: ",
            "データ全体でも一部と同じ効果なら、",
        )
    if not advice.builtin:
        if facts.confirmed(advice):
            return EMPTY
        return Text("if the projection holds: ", "予測どおりなら、")
    if facts.confirmed(advice):
        return Text("if your job behaves like this one: ", "自社の学習でも同じ傾向なら、")
    return Text(
        "if the projection holds and your job behaves like this one: ",
        "予測どおりで、自社の学習でも同じ傾向なら、",
    )


def example(advice: Advice) -> Text:
    """That the fields hold somebody's numbers until the reader has put in their own.

    Args:
        advice: The record.
    """
    if advice.builtin:
        return Text("(an example: put in your own)", "（例です。自社の値に書き換えてください）")
    return Text("(put in your own)", "（自社の値に書き換えてください）")


def spent(advice: Advice) -> Text:
    """What finding out cost.

    Args:
        advice: The record.
    """
    if advice.measurement_cost is None or advice.price is None:
        return say(
            "Finding this out took {t} of computing.",
            "今回の測定にかかった計算時間は{t}です。",
            t=formats.duration(advice.wall_seconds),
        )
    return say(
        "Finding this out cost {m} of computing.",
        "今回の測定にかかった計算費用は約{m}です。",
        m=formats.money(advice.measurement_cost, advice.price.currency),
    )


def doubt(advice: Advice) -> Text:
    """What the next step is for, where the job measured is a demonstration.

    Args:
        advice: The record.
    """
    if advice.next_stage is None or advice.next_stage.stage != "own-task":
        return EMPTY
    return Text(
        "Whether your job behaves the same is the next step.",
        "同じ傾向かどうかは、次の一歩で確かめられます。",
    )


def unknown(advice: Advice) -> Text:
    """What stands in the line's place where there is no ratio to compute from.

    Args:
        advice: The record.
    """
    if facts.case(advice) is Case.SCREENED:
        return Text(
            "Not known before the candidates have been compared.",
            "候補を比べるまでは分かりません。",
        )
    if facts.comparison(advice, "time") is None:
        return Text(
            "Not known: no training times were compared.",
            "学習時間を比べていないため分かりません。",
        )
    if facts.taken_back(advice):
        return Text(
            "A saving is not known: part of the data and all of it gave different answers.",
            "データの一部と全データとで結論が異なるため、削減は分かりません。",
        )
    return Text(
        "A saving cannot be computed: the goal was not reached with both settings.",
        "両方の設定が目標に達してはいないため、削減は計算できません。",
    )


def for_page(advice: Advice) -> dict[str, Any] | None:
    """What the page needs to recompute the line.

    Args:
        advice: The record.

    Returns:
        Plain values for JSON, or None where there is no line.
    """
    worth = of(advice)
    if worth is None:
        return None
    numbers = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v
        for k, v in vars(worth).items()
    }
    return {
        **numbers,
        "clock_hours": worth.clock[0],
        "small_hours": facts.TOO_SMALL_HOURS,
        "whole": worth.code in (*formats.WHOLE,),
        "unit": unit(worth.code)._asdict(),
        "condition": condition(advice)._asdict(),
        "sentences": {key: text._asdict() for key, text in SENTENCES.items()},
    }


def per_hour_unit(advice: Advice) -> Text:
    """The unit behind the price field.

    Args:
        advice: The record.
    """
    return formats.currency(advice.price.currency) if advice.price else same("")
