"""What all pictures share: their record, axes, colours and words.

Every spec has the parameter ``picked``, the id of the candidate highlighted on the whole page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import altair as alt

from batchlab._text import Language, Text, say
from batchlab.advisor.record import Advice
from batchlab.report import facts, names
from batchlab.types import Estimate

Row: TypeAlias = dict[str, Any]
Spec: TypeAlias = dict[str, Any]

POINTS_A_CURVE = 200
ROWS_A_CHART = 5000
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#8A8A8A"
LOOKS = {
    "today": (Text("today", "現在"), BLACK, "circle", [1, 0]),
    "recommended": (Text("recommended", "提案"), BLUE, "diamond", [1, 0]),
    "alternative": (Text("best alternative", "最も良い候補"), BLUE, "diamond", [1, 0]),
    "other": (Text("also tried", "ほかの候補"), GREY, "square", [4, 2]),
    "picked": (Text("picked by you", "選択中"), VERMILLION, "triangle-up", [1, 0]),
}
CROSS = "M-0.75,-0.75L0.75,0.75M0.75,-0.75L-0.75,0.75"
FONT = (
    '-apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", "Hiragino Sans", '
    '"Yu Gothic UI", Meiryo, "Noto Sans CJK JP", "Noto Sans JP", IPAexGothic, IPAGothic, '
    "sans-serif"
)
CONFIG: Spec = {
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": "#e4e4e4",
        "domainColor": "#777",
        "tickColor": "#777",
        "labelOverlap": True,
    },
    "legend": {
        "orient": "bottom",
        "direction": "horizontal",
        "columns": 2,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelLimit": 320,
        "titleLimit": 320,
        "symbolStrokeWidth": 2,
    },
}


@dataclass(frozen=True)
class Chart:
    """One picture with its numbers.

    Attributes:
        id: Its name in the page.
        rows: The numbers, tidy; also the table and the CSV under the picture.
        columns: Key and title of each column of the table.
        caption: What is shown, with n.
        description: The picture in words, for who cannot see it.
        specs: Variant → language → Vega-Lite spec; one variant ``""`` where there is no choice.
        choices: Name of a choice → its options, as key and words. The keys joined by ``-`` name
            the variant.
        height: Pixels.
    """

    id: str
    rows: tuple[Row, ...]
    columns: tuple[tuple[str, Text], ...]
    caption: Text
    description: Text
    specs: Mapping[str, Mapping[str, Spec]]
    choices: tuple[tuple[Text, tuple[tuple[str, Text], ...]], ...] = field(default=())
    height: int = 300


def plain_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows as JSON can hold them: what is not finite becomes None.

    Example:
        >>> plain_rows([{"a": float("nan"), "b": 1}])
        ({'a': None, 'b': 1},)
    """
    return tuple({key: finite(value) for key, value in row.items()} for row in rows)


def finite(value: Any) -> Any:
    """A value as JSON can hold it, floats to six digits.

    Args:
        value: Any scalar.
    """
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def identity_at(advice: Advice, batch_size: object, learning_rate: float | None = None) -> str:
    """The candidate at a batch size, and at a learning rate where several share it; empty if none.

    Args:
        advice: The record.
        batch_size: Examples.
        learning_rate: Peak step size, or None.
    """
    here = [c.setting for c in advice.candidates if c.setting.batch_size == batch_size]
    if learning_rate is not None:
        here = [s for s in here if math.isclose(s.learning_rate, learning_rate, rel_tol=1e-6)]
    return here[0].id if here else ""


def starting_pick(advice: Advice) -> str:
    """What is highlighted when the page opens.

    Args:
        advice: The record.
    """
    rival = facts.alternative(advice)
    return rival.id if rival is not None else advice.today.id


def picked(advice: Advice) -> list[alt.Parameter]:
    """The page's one value, and the batch size and rate that belong to it."""
    known = {c.setting.id: c.setting for c in advice.candidates}
    sizes = {k: s.batch_size for k, s in known.items() if isinstance(s.batch_size, int)}
    rates = {k: s.learning_rate for k, s in known.items()}
    return [
        alt.param(name="picked", value=starting_pick(advice)),
        alt.param(name="picked_batch", expr=f"({json.dumps(sizes)})[picked]"),
        alt.param(name="picked_rate", expr=f"({json.dumps(rates)})[picked]"),
    ]


def layered(
    layers: Sequence[alt.Chart],
    text: Text,
    language: Language,
    height: int,
    params: Sequence[alt.Parameter] = (),
) -> Spec:
    """The spec that the page embeds: its width is the page's, its data come by name.

    Put together here: Altair's own layering copies every layer several times, which took half of
    the time of a page.

    Args:
        layers: Altair charts, from the back to the front.
        text: The picture in words.
        language: Of these words.
        height: Pixels.
        params: Values that the page sets.
    """
    datasets: dict[str, Any] = {}
    spec: Spec = {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "description": text.of(language),
        "layer": [_layer(chart, datasets) for chart in layers],
    }
    if datasets:
        spec["datasets"] = datasets
    if params:
        spec["params"] = [cast(Any, one.param).to_dict(validate=False) for one in params]
    return spec


def _layer(chart: alt.Chart, datasets: dict[str, Any]) -> Spec:
    """One layer; rows that are written out in it move into ``datasets``, by the name it reads."""
    return chart.to_dict(validate=False, context={"top_level": False, "datasets": datasets})


def finish(
    layers: Sequence[alt.Chart], advice: Advice, text: Text, language: Language, height: int
) -> Spec:
    """The spec with the page's one value, ``picked``, as a parameter.

    Args:
        layers: Altair charts, from the back to the front.
        advice: The record.
        text: The picture in words.
        language: Of these words.
        height: Pixels.
    """
    return layered(layers, text, language, height, picked(advice))


def log_axis(values: Iterable[float | None], **options: Any) -> alt.Axis:
    """An axis for a quantity that spans decades: ticks at powers, at 1, 2, 5 if these are few.

    Args:
        values: What the axis must cover.
        options: Passed on to the axis.
    """
    positive = [v for v in values if v is not None and v > 0]
    ticks = log_ticks(min(positive), max(positive)) if positive else []
    return alt.Axis(values=ticks, labelExpr="format(datum.value, ',~g')", **options)


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten over a range; multiples of them too where the range is short.

    Example:
        >>> log_ticks(2.0, 60.0), log_ticks(1.0, 20000.0)
        ([2.0, 5.0, 10.0, 20.0, 50.0], [1.0, 10.0, 100.0, 1000.0, 10000.0])
        >>> log_ticks(2.0, 6.0)
        [2.0, 3.0, 4.0, 5.0, 6.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8)):
        every = [float(f"{step}e{power}") for power in powers for step in steps]
        ticks = [tick for tick in every if low / 1.01 <= tick <= high * 1.01]
        if len(ticks) >= 4:
            break
    return ticks


def haloed(base: alt.Chart, encodings: Row, **mark: Any) -> list[Any]:
    """Words on a white outline, so that lines do not cross them."""
    halo = base.mark_text(stroke="white", strokeWidth=4, strokeJoin="round", **mark)
    return [halo.encode(**encodings), base.mark_text(**mark).encode(**encodings)]


def data(name: str) -> alt.NamedData:
    """The page's rows of that name.

    Args:
        name: A chart's id.
    """
    return alt.NamedData(name=name)


def reach(
    rows: Iterable[Row], keys: Iterable[str], *more: object, log: bool = True
) -> list[float]:
    """From the smallest to the largest number that an axis must show, given to it outright.

    A layer can be empty, such as that of failed trials; asked for its extent it would complain.

    Args:
        rows: The chart's rows.
        keys: Columns on this axis.
        more: Further numbers on it.
        log: Whether the axis is logarithmic, which has no place for 0 and less.

    Example:
        >>> reach([{"a": 2.0, "b": None}, {"a": -1.0, "b": 8.0}], ["a", "b"])
        [2.0, 8.0]
        >>> reach([{"a": 4.0}], ["a"])
        [2.0, 8.0]
    """
    every = [*(row[key] for row in rows for key in keys), *more]
    numbers = [float(v) for v in every if isinstance(v, int | float) and math.isfinite(v)]
    numbers = [v for v in numbers if v > 0 or not log] or [1.0]
    low, high = min(numbers), max(numbers)
    if low < high:
        return [low, high]
    return [low / 2, high * 2] if log else [low - 0.5, high + 0.5]


def batch_axis(language: Language, sizes: list[float] | None = None) -> alt.X:
    """The axis of the batch size, the same on every picture.

    Args:
        language: Of its title.
        sizes: From where to where; taken from the data if None.
    """
    ends: dict[str, Any] = {"domain": sizes} if sizes else {}
    return alt.X(
        "batch:Q",
        title=Text("batch size (examples)", "バッチサイズ（件）").of(language),
        scale=alt.Scale(type="log", base=2, nice=False, padding=18, **ends),
        axis=alt.Axis(format=",d", tickCount=10, grid=False),
    )


def looks(advice: Advice) -> list[str]:
    """The looks that occur, in the order of the legend.

    Args:
        advice: The record.
    """
    used = {facts.role(advice, c.setting.id) for c in advice.candidates} | {"today"}
    return [look for look in LOOKS if look in used or look == "picked"]


def labels(words: dict[str, Text], language: Language) -> str:
    """The expression that puts a legend's words in place of its codes."""
    table = {code: text.of(language) for code, text in words.items()}
    return f"({json.dumps(table, ensure_ascii=False)})[datum.value]"


def look_words() -> dict[str, Text]:
    """What each look is called."""
    return {look: words for look, (words, *_rest) in LOOKS.items()}


def look(
    advice: Advice, language: Language, channel: Any, values: int, **legend_options: Any
) -> Any:
    """One channel of the look of a candidate: colour (1), shape (2) or dash (3)."""
    shown = looks(advice)
    drawn: list[Any] = [LOOKS[look][values] for look in shown]
    return channel(
        "look:N",
        title=None,
        scale=alt.Scale(domain=shown, range=drawn),
        legend=alt.Legend(
            labelExpr=labels(look_words(), language), symbolOpacity=1, **legend_options
        ),
    )


def role_looks(shown: Sequence[str], language: Language) -> tuple[alt.Color, alt.Shape]:
    """Colour and shape of today's and other settings, in rows that name them ``role``.

    Args:
        shown: Roles that occur, in the order of the legend.
        language: Of the legend.
    """
    words = {role: LOOKS[role][0] for role in shown}
    legend = alt.Legend(labelExpr=labels(words, language), symbolOpacity=1)

    def scale(values: int) -> alt.Scale:
        drawn: list[Any] = [LOOKS[role][values] for role in shown]
        return alt.Scale(domain=list(shown), range=drawn)

    colour = alt.Color("role:N", title=None, scale=scale(1), legend=legend)
    return colour, alt.Shape("role:N", title=None, scale=scale(2), legend=legend)


LOOK_EXPRESSION = "datum.id === picked && datum.role === 'other' ? 'picked' : datum.role"
IS_PICKED = "datum.id === picked"


def emphasis(strong: float, weak: float) -> Any:
    """One value for the candidate picked, another for the rest.

    Args:
        strong: Of the candidate picked.
        weak: Of the rest.
    """
    return alt.condition(IS_PICKED, alt.value(strong), alt.value(weak))


def ends(estimate: Estimate | None, prefix: str, scale: float = 1.0) -> Row:
    """A value and the ends of its range as columns."""
    if estimate is None:
        return {prefix: None, f"{prefix}_low": None, f"{prefix}_high": None}
    return {
        prefix: estimate.value * scale,
        f"{prefix}_low": estimate.low * scale,
        f"{prefix}_high": estimate.high * scale,
    }


def range_columns(key: str, title: Text) -> tuple[tuple[str, Text], ...]:
    """The table's columns for what :func:`ends` made.

    Args:
        key: The prefix.
        title: What it is.
    """
    return (
        (key, title),
        (f"{key}_low", say("{t}, low", "{t}・下限", t=title)),
        (f"{key}_high", say("{t}, high", "{t}・上限", t=title)),
    )


def tooltips(language: Language, shown: Iterable[tuple[str, Text]]) -> list[alt.Tooltip]:
    """What appears beside the pointer.

    Args:
        language: Of the words.
        shown: Column and name.
    """
    return [alt.Tooltip(f"{key}:N", title=words.of(language)) for key, words in shown]


def axis_title(advice: Advice, name: str) -> Text:
    """What the axis of the loss or the metric is called.

    Args:
        advice: The record.
        name: ``loss`` or ``metric``.
    """
    if name == "loss":
        return Text("loss (lower is better)", "損失（小さいほど良い）")
    unit = f" ({advice.metric.unit})" if advice.metric.unit else ""
    return say(
        "{m}{u}",
        "{m}{uj}",
        m=names.metric(advice.metric),
        u=unit,
        uj=f"（{advice.metric.unit}）" if unit else "",
    )
