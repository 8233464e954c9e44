"""Numbers as people read them, in both languages. `page.js` repeats those it recomputes."""

from __future__ import annotations

import math
import re

from batchlab._text import Text, same, say
from batchlab.advisor.record import MetricInfo, Price
from batchlab.types import Estimate

MINUS = "−"
CURRENCIES = {
    "JPY": Text(" yen", "円"),
    "USD": Text(" USD", "ドル"),
    "EUR": Text(" EUR", "ユーロ"),
    "GBP": Text(" GBP", "ポンド"),
    "CNY": Text(" CNY", "元"),
    "KRW": Text(" KRW", "ウォン"),
}
WHOLE = ("JPY", "KRW")
_FRACTIONS = (
    (0.22, 0.28, Text("about a quarter of", "約4分の1")),
    (0.30, 0.37, Text("about a third of", "約3分の1")),
    (0.45, 0.55, Text("about half", "約半分")),
    (0.63, 0.70, Text("about two thirds of", "約3分の2")),
    (0.72, 0.78, Text("about three quarters of", "約4分の3")),
)


def number(value: float, digits: int = 2, *, zeros: bool = False) -> str:
    """A number to so many significant digits, written out, thousands separated.

    Args:
        value: The number.
        digits: Significant digits for what is not a whole number of that size.
        zeros: Whether zeros at the end stay.

    Example:
        >>> number(1234.5), number(0.05), number(-0.2), number(1.95), number(12.34)
        ('1,234', '0.05', '−0.2', '1.9', '12')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    if places > 7:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("-", MINUS)
    written = f"{value:,.{places}f}"
    if "." in written and not zeros:
        written = written.rstrip("0").rstrip(".")
    return written.replace("-", MINUS)


def rate(value: float) -> str:
    """A learning rate, to three significant digits.

    Example:
        >>> rate(0.05), rate(0.00125)
        ('0.05', '0.00125')
    """
    return number(value, 3)


def ratio(value: float) -> str:
    """A ratio, to two digits; below 1.5 the second decimal stays where it says something.

    Example:
        >>> ratio(1.93), ratio(1.15), ratio(0.9), ratio(14.2)
        ('1.9', '1.15', '0.9', '14')
    """
    return number(value, 3 if 1 <= value < 1.5 else 2)


def span(low: str, high: str) -> Text:
    """From … to …, the numbers already written.

    Example:
        >>> span("1.5", "2.3")
        Text(en='1.5–2.3', ja='1.5～2.3')
    """
    if low.startswith((MINUS, "+")) or high.startswith((MINUS, "+")):
        return say("{a} to {b}", "{a}～{b}", a=low, b=high)
    return say("{a}–{b}", "{a}～{b}", a=low, b=high)


def ratio_range(estimate: Estimate) -> Text:
    """The range of a ratio, or that there is none.

    Example:
        >>> ratio_range(Estimate(1.9, 1.5, 2.3, n=8)).ja
        '1.5～2.3倍'
    """
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return Text("no range yet: too few repeats", "回数が少なく範囲は未定")
    if math.isinf(estimate.high):
        return say("at least {a}×", "{a}倍以上", a=ratio(estimate.low))
    return say("{a}–{b}×", "{a}～{b}倍", a=ratio(estimate.low), b=ratio(estimate.high))


def fraction(value: float, noun: str) -> Text:
    """A share of what it was, in words.

    Args:
        value: The share.
        noun: What it is a share of, in English; the Japanese sentence names it itself.

    Example:
        >>> fraction(0.5, "time").en, fraction(0.6, "time")
        ('about half the time', Text(en='about 60 % of the time', ja='約60%'))
    """
    for low, high, words in _FRACTIONS:
        if low <= value <= high:
            return say("{w} the {noun}", "{w}", w=words, noun=noun)
    return say("about {p} % of the {noun}", "約{p}%", p=number(100 * value), noun=noun)


def duration(seconds: float) -> Text:
    """A time, in the unit one would use.

    Example:
        >>> duration(4.13), duration(160).en, duration(0.0014).ja, duration(11520).en
        (Text(en='4.1 s', ja='4.1秒'), '2 min 40 s', '1.4ミリ秒', '3.2 h')
    """
    if not math.isfinite(seconds):
        return Text("not reached", "未到達") if seconds > 0 else same("–")
    if seconds < 0.1:
        return say("{n} ms", "{n}ミリ秒", n=number(1000 * seconds, zeros=True))
    if round(seconds, 1) < 60:
        return say("{n} s", "{n}秒", n=number(seconds, zeros=True))
    if seconds < 600:
        return _minutes_and_seconds(round(seconds))
    if seconds < 5400:
        return say("{n} min", "{n}分", n=number(round(seconds / 60)))
    if seconds < 48 * 3600:
        return say("{n} h", "{n}時間", n=number(seconds / 3600))
    return say("{n} days", "{n}日", n=number(seconds / 86400))


def spoken(seconds: float) -> Text:
    """A time as one says it.

    Example:
        >>> spoken(600).en, spoken(160).en, spoken(600).ja
        ('10 minutes', '2 minutes 40 seconds', '10分')
    """
    written = duration(seconds)
    english = written.en
    for unit, word in (("min", "minutes"), ("s", "seconds"), ("h", "hours")):
        english = re.sub(rf"\b{unit}\b", word, english)
    return Text(re.sub(r"\b1 (minute|second|hour)s", r"1 \1", english), written.ja)


def _minutes_and_seconds(seconds: int) -> Text:
    minutes, rest = divmod(seconds, 60)
    if not rest:
        return say("{m} min", "{m}分", m=minutes)
    return say("{m} min {s} s", "{m}分{s}秒", m=minutes, s=rest)


def size(count: int) -> Text:
    """Bytes, in the unit one would use.

    Example:
        >>> size(3 * 2**30)
        Text(en='3 GiB', ja='3GiB')
    """
    power = min(3, max(0, int(math.log2(max(count, 1)) // 10)))
    unit = ("B", "KiB", "MiB", "GiB")[power]
    return say("{n} {u}", "{n}{u}", n=number(count / 1024**power, 3), u=unit)


def step_of(value: float) -> float:
    """The rounding step for an amount: two significant digits, three where the first is a 1.

    Example:
        >>> step_of(853.0), step_of(127895.0)
        (10.0, 1000.0)
    """
    return 10.0 ** (math.floor(math.log10(abs(value) / 2)) - 1) if value else 1.0


def rounded(value: float, step: float) -> float:
    """To the nearest multiple of a step, halves upwards.

    Example:
        >>> rounded(1017.4, 10.0)
        1020.0
    """
    return math.floor(value / step + 0.5) * step


def amount(value: float, code: str, step: float | None = None) -> str:
    """An amount of money without its unit.

    Args:
        value: The amount.
        code: Currency; some are not written with decimals.
        step: The rounding step, shared by a value and its range; the value's own if None.

    Example:
        >>> [amount(x, "USD") for x in (853, 0.3195, 0.00137, 12.4)], amount(8.2, "JPY")
        (['850', '0.32', '0.0014', '12.40'], '8')
    """
    step = step_of(value) if step is None else step
    if step >= 1 or (step >= 0.1 and code in WHOLE):
        return f"{rounded(value, max(step, 1.0)):,.0f}".replace("-", MINUS)
    if step >= 0.001:
        return f"{value:.2f}".replace("-", MINUS)
    return number(value)


def yen_ja(value: float, step: float | None = None) -> str:
    """Yen without the unit as Japanese readers write them, large amounts in 万 and 億.

    Example:
        >>> yen_ja(127895), yen_ja(90000, 1000.0), yen_ja(0.21), yen_ja(48.3), yen_ja(2.5e8)
        ('12万8千', '9万', '0.21', '48', '2億5,000万')
    """
    step = step_of(value) if step is None else step
    if abs(value) < 10000:
        return amount(value, "JPY", step)
    sign, whole = (MINUS if value < 0 else ""), int(rounded(abs(value), max(step, 1.0)))
    oku, rest = divmod(whole, 10**8)
    man, ones = divmod(rest, 10**4)
    last = "" if not ones else f"{ones // 1000}千" if ones % 1000 == 0 else f"{ones:,}"
    return sign + (f"{oku}億" if oku else "") + (f"{man:,}万" if man else "") + last


def amounts(values: tuple[float, ...], code: str) -> tuple[Text, ...]:
    """Amounts of money without their unit, all rounded like the first.

    Example:
        >>> [text.en for text in amounts((853.0, 600.0, 1017.4), "USD")]
        ['850', '600', '1,020']
    """
    step = step_of(values[0])
    return tuple(
        Text(amount(v, code, step), yen_ja(v, step) if code == "JPY" else amount(v, code, step))
        for v in values
    )


def currency(code: str) -> Text:
    """The unit behind an amount of money.

    Example:
        >>> currency("JPY").ja, currency("CHF").en
        ('円', ' CHF')
    """
    return CURRENCIES.get(code, Text(f" {code}", code))


def money(value: float, code: str) -> Text:
    """An amount of money; infinite where the goal that it would pay for was not reached.

    Example:
        >>> money(127895, "JPY"), money(0.05, "USD").ja
        (Text(en='128,000 yen', ja='12万8千円'), '0.05ドル')
    """
    if not math.isfinite(value):
        return Text("not reached", "未到達")
    unit = currency(code)
    (written,) = amounts((value,), code)
    return say("{v}{u}", "{v}{u}", v=written, u=unit)


def priced(seconds: float, cost: float | None, price: Price | None) -> Text:
    """A time, with its price where there is one.

    Example:
        >>> priced(600, 0.2, Price(1.2, "USD")).en
        '10 min, 0.20 USD'
    """
    if cost is None or price is None:
        return duration(seconds)
    paid = money(cost, price.currency)
    return say("{t}, {m}", "{t}、約{m}", t=duration(seconds), m=paid)


def metric_value(value: float, info: MetricInfo) -> Text:
    """A value of the metric.

    Example:
        >>> metric_value(0.97, MetricInfo("accuracy", True, "%"))
        Text(en='97.0 %', ja='97.0%')
    """
    if not math.isfinite(value):
        return same("–")
    if info.unit == "%":
        return say("{v} %", "{v}%", v=f"{100 * value:.1f}")
    if info.unit:
        return say("{v} {u}", "{v}{u}", v=number(value, 3), u=info.unit)
    return same(number(value, 3))


def metric_size(value: float, info: MetricInfo) -> Text:
    """The size of a difference of the metric, without a sign.

    Example:
        >>> metric_size(-0.009, MetricInfo("accuracy", True, "%"))
        Text(en='0.9 points', ja='0.9ポイント')
    """
    if info.unit == "%":
        return say("{v} points", "{v}ポイント", v=_points(abs(value)))
    return metric_value(abs(value), info)


def metric_signed(value: float, info: MetricInfo) -> str:
    """A difference of the metric with its sign, without a unit.

    Example:
        >>> metric_signed(-0.002, MetricInfo("accuracy", True, "%"))
        '−0.2'
    """
    size_ = _points(abs(value)) if info.unit == "%" else number(abs(value), 2)
    if float(size_.replace(",", "")) == 0:
        return "0"
    return (MINUS if value < 0 else "+") + size_


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def count(value: float) -> str:
    """How many, whole.

    Example:
        >>> count(1221)
        '1,221'
    """
    return f"{value:,.0f}" if math.isfinite(value) else "∞"


def count_range(estimate: Estimate) -> Text:
    """The range of a number of examples.

    Example:
        >>> count_range(Estimate(120.0, 80.0, 210.0, n=8)).en
        '80–210'
    """
    if math.isnan(estimate.low):
        return Text("no range yet", "範囲は未定")
    high = "∞" if math.isinf(estimate.high) else number(estimate.high)
    return span(number(max(estimate.low, 0.0)), high)
