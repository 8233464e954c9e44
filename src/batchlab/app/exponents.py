"""``exponents``: how hard a target is to learn, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len

from batchlab._text import EMPTY, Language, Text, join, same, say
from batchlab.theory.directions import Exponents
from batchlab.theory.hermite import Coefficient, Index
from batchlab.theory.leaps import Order, Step, Vector
from batchlab.types import to_plain

SHOWN = 8
BAR = 16
"""Length of the largest coefficient's bar, characters."""
NUMBERS = ("information", "leap", "generative", "generative_leap")
SPANS = ("at_once", "at_once_by_reuse", "only_by_reuse")


def plain(found: Exponents) -> dict[str, Any]:
    """The record and what follows from it, as JSON can hold it.

    Example:
        >>> from batchlab.theory import exponents
        >>> plain(exponents("z", 2))["information"]
        1
    """
    return to_plain(found) | {name: to_plain(getattr(found, name)) for name in (*NUMBERS, *SPANS)}


def told(found: Exponents, language: Language) -> str:
    """The numbers with their bounds, and what they mean.

    Args:
        found: What was calculated.
        language: Of the words.

    Returns:
        Lines, to be wrapped where the terminal ends.
    """
    rows = [*_numbers(found), *_steps(found), *_largest(found)]
    width = max(cell_len(name.of(language)) for name, _ in rows) + 2
    lines = [
        name.of(language) + " " * (width - cell_len(name.of(language))) + text.of(language)
        for name, text in rows
    ]
    return "\n".join([*lines, "", *(text.of(language) for text in reading(found))])


def combination(vector: Vector) -> str:
    """A direction as a sum of variables.

    Example:
        >>> combination((0.767832, -0.640651)), combination((0.0, 1.0)), combination((1.0,))
        ('0.768 z1 − 0.641 z2', 'z2', 'z')
    """
    if len(vector) == 1:
        return "z"
    parts = [(x, f"z{i}") for i, x in enumerate(vector, 1) if abs(x) >= 5e-4]
    if len(parts) == 1 and parts[0][0] > 0:
        return parts[0][1]
    signs = ["−" if x < 0 else "+" for x, _ in parts]
    said = [f"{abs(x):.3f} {name}" for x, name in parts]
    first = ("−" if signs[0] == "−" else "") + said[0]
    return " ".join([first, *(f"{a} {b}" for a, b in zip(signs[1:], said[1:], strict=True))])


# ------------------------------------------------------------------ rows


def _numbers(found: Exponents) -> list[tuple[Text, Text]]:
    size = say(
        "mean {m}, standard deviation {s}",
        "平均 {m}、標準偏差 {s}",
        m=f"{found.mean if abs(found.mean) > 1e-9 * found.deviation else 0:.4g}".replace("-", "−"),
        s=f"{found.deviation:.4g}",
    )
    above = same(f"> {found.degree}")
    left = say("not reached up to degree {d}", "{d}次まででは届かない方向がある", d=found.degree)
    return [
        (Text("target", "教師関数"), same(found.target)),
        (Text("label", "ラベル"), size),
        (Text("information exponent", "情報指数"), _or(found.information, above)),
        (Text("leap exponent", "跳躍指数"), _or(found.leap, left)),
        (Text("generative exponent", "生成指数"), _or(found.generative, above)),
        (Text("its leap", "同・跳躍"), _or(found.generative_leap, left)),
    ]


def _or(number: int | None, otherwise: Text) -> Text:
    return otherwise if number is None else same(number)


def _steps(found: Exponents) -> list[tuple[Text, Text]]:
    names = Text("one pass", "1回だけ使う場合"), Text("re-use", "再利用する場合")
    orders = (found.one_pass, found.one_pass_misses), (found.reuse, found.reuse_misses)
    return [
        (name if i == 0 else EMPTY, line)
        for name, (order, misses) in zip(names, orders, strict=True)
        for i, line in enumerate(_of_order(order, misses))
    ]


def _of_order(order: Order, misses: bool) -> Iterable[Text]:
    for step in order.steps:
        for vector, strength in zip(step.directions, step.strengths, strict=True):
            size = f"({strength:.3f} ± {_at_most(step.bound)})"
            said = {"j": step.degree, "v": combination(vector), "size": size}
            yield say("degree {j}: {v}  {size}", "{j}次:{v}  {size}", **said)
        if step.degree > 1:
            x = _at_most(step.resolution)
            yield say("  (in lower degrees < {x})", "  (それより低い次数では< {x})", x=x)
    if misses:
        yield say(
            "not found up to degree {d}, < {x}: {v}",
            "{d}次までに見つからない方向(< {x}):{v}",
            d=order.degree,
            x=_at_most(order.resolution),
            v=_listed(order.left),
        )


def _largest(found: Exponents) -> list[tuple[Text, Text]]:
    """Coefficients that are told from 0, the largest first."""
    seen = [c for c in found.coefficients if any(c.index) and abs(c.value) > 2 * c.bound]
    seen = sorted(seen, key=lambda c: -abs(c.value))[:SHOWN]
    name = Text("largest coefficients", "大きな係数")
    return [(EMPTY if i else name, same(_line(c, seen[0]))) for i, c in enumerate(seen)]


def _line(c: Coefficient, largest: Coefficient) -> str:
    bar = "█" * max(1, round(BAR * abs(c.value / largest.value)))
    value = f"{c.value:+.5g}".replace("-", "−")
    return f"{_product(c.index):<14} {value:>10} ± {_at_most(c.bound)}  {bar}"


def _at_most(bound: float) -> str:
    """A bound with one digit, rounded up.

    Example:
        >>> _at_most(1.01e-3), _at_most(9.5e-12), _at_most(0.0)
        ('2e-03', '1e-11', '0e+00')
    """
    if not bound:
        return f"{bound:.0e}"
    unit = 10.0 ** math.floor(math.log10(bound))
    return f"{math.ceil(bound / unit * (1 - 1e-9)) * unit:.0e}"


def _product(index: Index) -> str:
    """h_α as a product.

    Example:
        >>> _product((2, 0, 1)), _product((3,))
        ('h2(z1) h1(z3)', 'h3(z)')
    """
    if len(index) == 1:
        return f"h{index[0]}(z)"
    return " ".join(f"h{j}(z{i})" for i, j in enumerate(index, 1) if j)


# ------------------------------------------------------------------ what it means


def reading(found: Exponents) -> list[Text]:
    """What the numbers say about training, one sentence each."""
    said = [_one_pass(found), *_later(found), _reuse(found), _symmetry(found)]
    said += [_unmoved(found), _scale(found)]
    return [text for text in said if text.en]


def _one_pass(found: Exponents) -> Text:
    if found.at_once:
        return say(
            "One pass learns {v} in O(1) steps.",
            "1回だけ使うデータ(ワンパス)でも、{v}はO(1)ステップで学習されます。",
            v=_listed(found.at_once),
        )
    if found.information is None:
        return say(
            "One pass learns nothing up to degree {d}.",
            "ワンパスでは、{d}次まで何も学習されません。",
            d=found.degree,
        )
    return say(
        "One pass learns nothing in O(1) steps: from a random start in d dimensions SGD needs of "
        "order {n} examples.",
        "ワンパスではO(1)ステップで何も学習されません。d次元のランダムな初期値からのSGDには、"
        "{n}程度の例が要ります。",
        n="d log d" if found.information == 2 else f"d^{found.information - 1}",
    )


def _later(found: Exponents) -> list[Text]:
    first = len(found.one_pass.steps[:1])
    return [_staircase(step) for step in found.one_pass.steps[first:]]


def _staircase(step: Step) -> Text:
    return say(
        "Once that is known, one pass learns {v} with a leap of {j}{way}.",
        "それを学習したあと、ワンパスは{v}を跳躍{j}で学習します{way}。",
        v=_listed(step.directions),
        j=step.degree,
        way=_way(step.through),
    )


def _way(through: int) -> Text:
    """The least degree of what is known that is used."""
    if through == 0:
        return EMPTY
    return say(
        ", through degree {q} of what is known: a student whose slope has no such degree does not "
        "see it there",
        "(既知の方向の{q}次を通じて。傾きにその次数のない生徒は、そこからは学べません)",
        q=through,
    )


def _reuse(found: Exponents) -> Text:
    if found.only_by_reuse:
        return say(
            "In O(1) steps and without a staircase, only re-use of the batch learns {v}.",
            "段階を踏まずにO(1)ステップで{v}を学習できるのは、バッチを再利用した場合だけです。",
            v=_listed(found.only_by_reuse),
        )
    if found.at_once_by_reuse:
        return Text(
            "Re-use of the batch learns no further direction in O(1) steps.",
            "バッチを再利用しても、O(1)ステップで学習できる方向は増えません。",
        )
    why = Text("the target is even", "教師関数は偶関数で、") if found.even else EMPTY
    return say(
        "Re-use of the batch does not help in O(1) steps: {why}E[z | y] {zero}.",
        "バッチを再利用しても、O(1)ステップでは役に立ちません。{why}E[z | y]{zero}。",
        why=join([why, Text(", so that ", "")], "") if found.even else EMPTY,
        zero=Text("= 0", "は0です")
        if found.even
        else say(
            "is not told from 0 (< {x})",
            "は0と区別できません(< {x})",
            x=_at_most(_hidden(found.reuse)),
        ),
    )


def _hidden(order: Order) -> float:
    return order.steps[0].resolution if order.steps else order.resolution


def _symmetry(found: Exponents) -> Text:
    if not found.mirrors or found.dimensions == 1:
        return EMPTY
    return say(
        "The label is even in {v}, which no number of passes finds in O(1) steps.",
        "ラベルは{v}について偶なので、何回使ってもO(1)ステップでは見つかりません。",
        v=_listed(found.mirrors),
    )


def _unmoved(found: Exponents) -> Text:
    if found.one_pass_misses or not found.one_pass.left:
        return EMPTY
    return say(
        "The label does not depend on {v}.",
        "ラベルは{v}に依存しません。",
        v=_listed(found.one_pass.left),
    )


def _scale(found: Exponents) -> Text:
    return say(
        "Degrees up to {d}; strengths are in standard deviations of the label (one pass) or of "
        "functions of it (re-use, at least); what is below 0.001 counts as 0.",
        "{d}次まで計算。強さの単位は、ラベルの標準偏差(ワンパス)またはラベルの関数の標準偏差"
        "(再利用、下限)で、0.001未満は0とみなします。",
        d=found.degree,
    )


def _listed(vectors: Iterable[Vector]) -> Text:
    return join([same(combination(v)) for v in vectors], ", ", "、", last=" and ")
