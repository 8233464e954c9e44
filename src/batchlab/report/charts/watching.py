"""Along one watched training: loss and metrics, the share of waiting, memory."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import altair as alt

from batchlab._text import LANGUAGES, Language, Text, say
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart, Row, Spec

AXES = {
    "samples": Text("examples seen", "学習したデータ数（件）"),
    "updates": Text("updates of the weights", "重みの更新回数"),
    "seconds": Text("time (seconds)", "時間（秒）"),
    "money": Text("money", "費用"),
}


@dataclass(frozen=True)
class Line:
    """A quantity along a training.

    Attributes:
        key: Short name, unique in its picture.
        title: With its unit.
        rows: The axes and ``value``, in order; ``end`` is ``diverged`` where it broke off.
        limit: A value that it must not exceed, or None.
        from_zero: Whether its axis begins at 0.
    """

    key: str
    title: Text
    rows: tuple[Row, ...]
    limit: float | None = None
    from_zero: bool = False


def lines(name: str, found: Sequence[Line], money: Text, caption: Text) -> Chart | None:
    """Quantities along a training, over an axis of the reader's choice.

    Args:
        name: The picture's id.
        found: At least one with values, or there is no picture.
        money: What the axis of money is called.
        caption: What is shown.
    """
    kept = [line for line in found if any(r["value"] is not None for r in line.rows)]
    if not kept:
        return None
    rows: tuple[Row, ...] = tuple(r | {"name": line.key} for line in kept for r in line.rows)
    axes = [a for a in AXES if any(r[a] is not None and r[a] > 0 for r in rows)]
    titles = AXES | {"money": money}
    description = say(
        "{c} {n} values.", "{c}値は{n}個。", c=caption, n=sum(r["value"] is not None for r in rows)
    )
    columns = (
        ("name", Text("quantity", "量")),
        *((axis, titles[axis]) for axis in axes),
        ("value", Text("value", "値")),
    )
    specs: dict[str, dict[str, Spec]] = {
        f"{line.key}-{axis}": {} for line in kept for axis in axes
    }
    for line in kept:
        for language in LANGUAGES:
            base = _spec(name, line, description, language)
            for axis in axes:
                x = _x(line, axis, titles[axis].of(language))
                specs[f"{line.key}-{axis}"][language] = _against(base, axis, x)
    choices = (
        (Text("show", "表示"), tuple((line.key, line.title) for line in kept)),
        (Text("against", "横軸"), tuple((axis, titles[axis]) for axis in axes)),
    )
    return Chart(name, rows, columns, caption, description, specs, choices, height=280)


def _x(line: Line, axis: str, title: str) -> Spec:
    x = alt.X(
        f"{axis}:Q",
        title=title,
        scale=alt.Scale(nice=False, padding=8, domain=shared.reach(line.rows, [axis], log=False)),
        axis=alt.Axis(
            tickCount=6,
            grid=False,
            labelExpr="datum.value === 0 ? '0' : format(datum.value, '~s')",
        ),
    )
    return cast(Spec, x.to_dict(validate=False)) | {"field": axis, "type": "quantitative"}


def _against(base: Spec, axis: str, x: Spec) -> Spec:
    """The picture over an axis; Altair takes long over each spec, a copy does not."""
    spec = copy.deepcopy(base)
    for layer in spec["layer"]:
        encoding = layer["encoding"]
        if encoding.get("x", {}).get("field") == _ALONG:
            encoding["x"] = x
        for shown in encoding.get("tooltip", ()):
            if shown["field"] == _ALONG:
                shown |= {"field": axis, "title": x["title"]}
    return spec


_ALONG = "along"
"""Stands for the axis that the reader chooses."""


def _spec(name: str, line: Line, text: Text, language: Language) -> Spec:
    values = [r["value"] for r in line.rows if r["value"] is not None]
    bounded = line.from_zero or line.limit is not None
    wide = not bounded and min(values) > 0 and max(values) > 10 * min(values)
    zero = 0.0 if line.from_zero else None
    shown = shared.reach(line.rows, ["value"], line.limit, zero, log=wide)
    x = alt.X(field=_ALONG, type="quantitative")
    y = alt.Y(
        "value:Q",
        title=line.title.of(language),
        scale=alt.Scale(type="log", nice=False, padding=8, domain=shown)
        if wide
        else alt.Scale(zero=False, nice=False, padding=12, domain=shown),
        axis=shared.log_axis(values) if wide else alt.Axis(tickCount=6, format="~f"),
    )
    chosen = f"datum.name === {json.dumps(line.key)} && isValid(datum.value)"
    base = alt.Chart(shared.data(name)).transform_filter(chosen)
    tips = shared.tooltips(language, ((_ALONG, line.title), ("value", line.title)))
    layers: list[Any] = [
        base.mark_line(color=shared.BLUE, strokeWidth=1.5).encode(x=x, y=y),
        base.mark_point(color=shared.BLUE, filled=True, size=24, opacity=1).encode(
            x=x, y=y, tooltip=tips
        ),
    ]
    if any(r.get("end") for r in line.rows):
        layers += _broken_off(base, x, y, language)
    if line.limit is not None:
        layers += _limit(line.limit, language)
    return shared.layered(layers, text, language, 280)


def _broken_off(base: alt.Chart, x: alt.X, y: alt.Y, language: Language) -> list[Any]:
    words = Text("diverged", "発散").of(language)
    at = base.transform_filter("datum.end === 'diverged'").transform_calculate(
        words=json.dumps(words, ensure_ascii=False)
    )
    cross = at.mark_point(
        shape=shared.CROSS, size=120, strokeWidth=2.5, color=shared.VERMILLION, opacity=1
    )
    place = {"x": x, "y": y, "text": alt.Text("words:N")}
    return [cross.encode(x=x, y=y), *shared.haloed(at, place, align="right", dx=-10, fontSize=12)]


def _limit(value: float, language: Language) -> list[Any]:
    words = Text("limit", "上限").of(language)
    at = alt.Chart(alt.InlineData(values=[{"value": value, "words": f"{words}: {value:.3g}"}]))
    return [
        at.mark_rule(color=shared.VERMILLION, strokeDash=[5, 3]).encode(y="value:Q"),
        at.mark_text(align="left", baseline="top", dx=4, dy=4, fontSize=12).encode(
            y="value:Q", x=alt.value(0), text="words:N"
        ),
    ]
