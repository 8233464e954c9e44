"""The report's pictures: tidy rows out of the record, and Vega-Lite specs that read them by name.

Every spec has the parameter ``picked``, the id of the candidate that is highlighted on the whole page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import altair as alt

from batchlab.advisor.record import Advice, Candidate, CurvePoint, Setting
from batchlab.report import facts, formats, names
from batchlab.report.text import LANGUAGES, Language, Text, say
from batchlab.types import Estimate, Status

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
FONT = (
    'system-ui, -apple-system, "Segoe UI", "Hiragino Sans", "Yu Gothic UI", Meiryo, '
    '"Noto Sans CJK JP", "Noto Sans JP", IPAexGothic, IPAGothic, sans-serif'
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
        choices: Name of a choice → its options, as key and words; the keys joined by ``-`` name the variant.
        height: Pixels.
    """

    id: str
    rows: tuple[Row, ...]
    columns: tuple[tuple[str, Text], ...]
    caption: Text
    description: Text
    specs: dict[str, dict[Language, Spec]]
    choices: tuple[tuple[Text, tuple[tuple[str, Text], ...]], ...] = field(default=())
    height: int = 300


def charts(advice: Advice) -> dict[str, Chart]:
    """Every picture the record has numbers for, by id.

    Args:
        advice: The record.
    """
    drawn = (
        speed(advice),
        memory(advice),
        noise(advice),
        plane(advice),
        curves(advice),
        pareto(advice),
    )
    return {one.id: one for one in drawn if one is not None}


# ------------------------------------------------------------------ shared


def plain_rows(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows as JSON can hold them: what is not finite becomes None.

    Example:
        >>> plain_rows([{"a": float("nan"), "b": 1}])
        ({'a': None, 'b': 1},)
    """
    return tuple({key: _finite(value) for key, value in row.items()} for row in rows)


def _finite(value: Any) -> Any:
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


def _picked(advice: Advice) -> list[alt.Parameter]:
    """The page's one value, and the batch size and rate that belong to it."""
    known = {c.setting.id: c.setting for c in advice.candidates}
    sizes = {k: s.batch_size for k, s in known.items() if isinstance(s.batch_size, int)}
    rates = {k: s.learning_rate for k, s in known.items()}
    return [
        alt.param(name="picked", value=starting_pick(advice)),
        alt.param(name="picked_batch", expr=f"({json.dumps(sizes)})[picked]"),
        alt.param(name="picked_rate", expr=f"({json.dumps(rates)})[picked]"),
    ]


def _finish(chart: Any, advice: Advice, text: Text, language: Language, height: int) -> Spec:
    """The spec that the page embeds: its width is the page's, its data come by name."""
    whole = chart.add_params(*_picked(advice)).properties(
        width="container",
        height=height,
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        description=text.of(language),
    )
    spec = whole.to_dict(validate=True)
    for unwanted in ("$schema", "config"):
        spec.pop(unwanted, None)
    return spec


def _data(name: str) -> alt.NamedData:
    return alt.NamedData(name=name)


def _batch_axis(language: Language, field_: str = "batch") -> alt.X:
    return alt.X(
        f"{field_}:Q",
        title=Text("batch size (examples)", "バッチサイズ（件）").of(language),
        scale=alt.Scale(type="log", base=2, nice=False, padding=18),
        axis=alt.Axis(format=",d", tickCount=10, grid=False),
    )


def _looks(advice: Advice) -> list[str]:
    used = {facts.role(advice, c.setting.id) for c in advice.candidates} | {"today"}
    return [look for look in LOOKS if look in used or look == "picked"]


def _labels(words: dict[str, Text], language: Language) -> str:
    """The expression that puts a legend's words in place of its codes."""
    table = {code: text.of(language) for code, text in words.items()}
    return f"({json.dumps(table, ensure_ascii=False)})[datum.value]"


def _look_words() -> dict[str, Text]:
    return {look: words for look, (words, *_rest) in LOOKS.items()}


def _look(advice: Advice, language: Language, channel: Any, values: int) -> Any:
    """One channel of the look of a candidate: colour (1), shape (2) or dash (3)."""
    shown = _looks(advice)
    return channel(
        "look:N",
        title=None,
        scale=alt.Scale(domain=shown, range=[LOOKS[look][values] for look in shown]),
        legend=alt.Legend(labelExpr=_labels(_look_words(), language)),
    )


_LOOK_EXPRESSION = "datum.id === picked && datum.role === 'other' ? 'picked' : datum.role"
_IS_PICKED = "datum.id === picked"


def _emphasis(strong: float, weak: float) -> Any:
    return alt.condition(_IS_PICKED, alt.value(strong), alt.value(weak))


def _candidate_words(advice: Advice, one: Setting) -> str:
    return f"{names.value('batch_size', one.batch_size)} · {formats.rate(one.learning_rate)}"


def _ends(estimate: Estimate | None, prefix: str, scale: float = 1.0) -> Row:
    """A value and the ends of its range as columns."""
    if estimate is None:
        return {prefix: None, f"{prefix}_low": None, f"{prefix}_high": None}
    return {
        prefix: estimate.value * scale,
        f"{prefix}_low": estimate.low * scale,
        f"{prefix}_high": estimate.high * scale,
    }


def _range_columns(key: str, title: Text) -> tuple[tuple[str, Text], ...]:
    return (
        (key, title),
        (f"{key}_low", say("{t}, low", "{t}・下限", t=title)),
        (f"{key}_high", say("{t}, high", "{t}・上限", t=title)),
    )


# ------------------------------------------------------------------ speed and memory


def _memory_rows(advice: Advice) -> tuple[Row, ...]:
    if advice.memory is None:
        return ()
    limit = advice.memory.limit_bytes - advice.memory.margin_bytes
    rows = []
    for point in advice.memory.points:
        used = point.bytes or (limit if not point.fits else 0)
        rows.append(
            {
                "batch": point.batch_size,
                "id": identity_at(advice, point.batch_size),
                "fits": "fits" if point.fits else "does not fit",
                "mib": used / 2**20 if used > 0 else None,
                **_ends(point.samples_per_second, "speed"),
                **_ends(point.seconds_per_update, "ms", 1000.0),
                "reason": point.reason,
            }
        )
    return plain_rows(rows)


def speed(advice: Advice) -> Chart | None:
    """Examples per second against the batch size, the knee marked.

    Args:
        advice: The record.
    """
    rows = tuple(row for row in _memory_rows(advice) if row["speed"] is not None)
    if not rows:
        return None
    repeats = max(p.samples_per_second.n for p in advice.memory.points if p.samples_per_second)  # type: ignore[union-attr]
    description = say(
        "Examples processed per second against the batch size, {n} sizes, each with its 90 % range.",
        "バッチサイズごとの、1秒間に処理できるデータ数（{n}通り、90%の範囲つき）。",
        n=len(rows),
    )
    caption = say(
        "Points: measured on one run alone, data loading included; lines: 90 % range, n = {n} blocks "
        "each. Larger point: the candidate picked.",
        "点：1つの学習だけを動かした実測値（データ読み込みを含む）。縦線：90%の範囲（各n＝{n}）。"
        "大きい点：選択中の候補。",
        n=repeats,
    )
    columns = (
        ("batch", Text("batch size", "バッチサイズ")),
        *_range_columns("speed", Text("examples per second", "データ数/秒")),
        *_range_columns("ms", Text("milliseconds per update", "1回の更新（ミリ秒）")),
    )
    specs = {"": {lang: _speed_spec(advice, rows, description, lang) for lang in LANGUAGES}}
    return Chart("speed", rows, columns, caption, description, specs, height=260)


def _speed_spec(
    advice: Advice, rows: tuple[Row, ...], text: Text, language: Language
) -> Spec:
    x = _batch_axis(language)
    y = alt.Y(
        "speed:Q",
        title=Text("examples per second", "1秒あたりのデータ数").of(language),
        scale=alt.Scale(type="log", padding=12, nice=False),
        axis=alt.Axis(tickCount=5, format="~s"),
    )
    base = alt.Chart(_data("speed"))
    layers: list[Any] = [
        base.mark_line(color=GREY, strokeWidth=1).encode(x=x, y=y),
        base.mark_rule(color=BLUE, strokeWidth=2).encode(x=x, y="speed_low:Q", y2="speed_high:Q"),
        base.mark_point(color=BLUE, filled=True, opacity=1).encode(
            x=x,
            y=y,
            size=alt.condition("datum.batch === picked_batch", alt.value(220), alt.value(50)),
            tooltip=_tooltips(
                language,
                (("batch", Text("batch size", "バッチサイズ")), ("speed", Text("per second", "毎秒"))),
            ),
        ),
    ]
    marks = _marked_sizes(advice)
    middle = math.sqrt(rows[0]["batch"] * rows[-1]["batch"])
    for order, (size, words) in enumerate(marks):
        layers += _marked(size, words.of(language), size > middle, order)
    return _finish(alt.layer(*layers), advice, text, language, 260)


def _marked_sizes(advice: Advice) -> list[tuple[int, Text]]:
    """The batch sizes worth a line of their own."""
    marks: list[tuple[int, Text]] = []
    if isinstance(advice.today.batch_size, int):
        marks.append((advice.today.batch_size, Text("today", "現在")))
    if advice.memory and advice.memory.knee:
        marks.append((advice.memory.knee, Text("nearly full speed from here", "ここでほぼ最高速")))
    return marks


def _marked(size: int, words: str, left: bool, order: int) -> list[Any]:
    """A vertical line at a batch size, with its words at the foot."""
    at = alt.Chart(alt.InlineData(values=[{"batch": size, "words": f"{words}: {size:,}"}]))
    return [
        at.mark_rule(color=BLACK, strokeDash=[5, 3]).encode(x="batch:Q"),
        at.mark_text(
            align="right" if left else "left",
            dx=-5 if left else 5,
            dy=-10 - 16 * order,
            baseline="bottom",
            fontSize=12,
        ).encode(x="batch:Q", y=alt.value(260), text="words:N"),
    ]


def memory(advice: Advice) -> Chart | None:
    """Peak memory against the batch size, with the limit.

    Args:
        advice: The record.
    """
    rows = tuple(row for row in _memory_rows(advice) if row["mib"] is not None)
    if advice.memory is None or not any(r["fits"] == "fits" for r in rows):
        return None
    description = say(
        "Peak memory against the batch size, {n} sizes tried, with the limit where there is one.",
        "バッチサイズごとの最大メモリ使用量（{n}通りを試行、上限がある場合は上限つき）。",
        n=len(rows),
    )
    caption = say(
        "Each point one size that was really run, two steps with the optimiser. A size that did not "
        "fit is a cross at the limit.",
        "点：実際に2回の更新まで動かしたサイズ。収まらなかったサイズは上限の位置に×で示します。",
    )
    columns = (
        ("batch", Text("batch size", "バッチサイズ")),
        ("mib", Text("peak memory, MiB", "最大メモリ（MiB）")),
        ("fits", Text("fits", "収まったか")),
        ("reason", Text("reason", "理由")),
    )
    specs = {"": {lang: _memory_spec(advice, description, lang) for lang in LANGUAGES}}
    return Chart("memory", rows, columns, caption, description, specs, height=240)


_FIT_WORDS = {"fits": Text("ran", "動作した"), "does not fit": Text("did not fit", "収まらなかった")}


def _memory_spec(advice: Advice, text: Text, language: Language) -> Spec:
    found = advice.memory
    legend = alt.Legend(labelExpr=_labels(_FIT_WORDS, language))
    domain = ["fits", "does not fit"]
    points = (
        alt.Chart(_data("memory"))
        .mark_point(strokeWidth=2, opacity=1)
        .encode(
            x=_batch_axis(language),
            y=alt.Y(
                "mib:Q",
                title=Text("peak memory (MiB)", "最大メモリ（MiB）").of(language),
                scale=alt.Scale(type="log", padding=12, nice=False),
                axis=alt.Axis(tickCount=5, format=",~r"),
            ),
            color=alt.Color(
                "fits:N", title=None, scale=alt.Scale(domain=domain, range=[BLUE, VERMILLION]),
                legend=legend,
            ),
            shape=alt.Shape(
                "fits:N", title=None, scale=alt.Scale(domain=domain, range=["circle", "cross"]),
                legend=legend,
            ),
            size=alt.condition("datum.batch === picked_batch", alt.value(220), alt.value(60)),
            tooltip=_tooltips(
                language,
                (("batch", Text("batch size", "バッチサイズ")), ("mib", Text("MiB", "MiB"))),
            ),
        )
    )
    layers: list[Any] = [points]
    limit = (found.limit_bytes - found.margin_bytes) / 2**20 if found else 0
    if limit > 0:
        words = Text("limit less margin", "上限（余裕分を除く）").of(language)
        at = alt.Chart(alt.InlineData(values=[{"mib": limit, "words": f"{words}: {limit:,.0f} MiB"}]))
        layers += [
            at.mark_rule(color=VERMILLION, strokeDash=[5, 3]).encode(y="mib:Q"),
            at.mark_text(align="left", baseline="bottom", dx=4, dy=-3, fontSize=12).encode(
                y="mib:Q", x=alt.value(0), text="words:N"
            ),
        ]
    return _finish(alt.layer(*layers), advice, text, language, 240)


def _tooltips(language: Language, shown: Iterable[tuple[str, Text]]) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{key}:N", title=words.of(language)) for key, words in shown]


# ------------------------------------------------------------------ noise scale


def noise(advice: Advice) -> Chart | None:
    """The noise scale along the baseline run, with the useful range.

    Args:
        advice: The record.
    """
    rows = []
    for point in advice.noise:
        known = point.scale
        rows.append(
            {
                "samples": point.samples,
                "epochs": point.samples / advice.train_examples if advice.train_examples else None,
                "state": "resolved" if known else "at least",
                "scale": known.value if known else point.at_least,
                "low": max(known.low, 0.1) if known else point.at_least,
                "high": known.high if known else None,
                "n": known.n if known else None,
            }
        )
    kept = tuple(r for r in plain_rows(rows) if r["scale"] is not None and r["scale"] > 0)
    if not kept:
        return None
    description = say(
        "The noise scale at {n} moments of a training with today's settings, each with its 90 % range.",
        "現在の設定での学習中、{n}時点で測ったノイズスケール（90%の範囲つき）。",
        n=len(kept),
    )
    most = max((p.scale.n for p in advice.noise if p.scale), default=0)
    caption = say(
        "Points: noise scale in examples; lines: 90 % range, n = {n} batches each. An upward triangle is "
        "a lower bound: the signal was too weak for a value. Thick line: batch size of the candidate "
        "picked.",
        "点：ノイズスケール（件）。縦線：90%の範囲（各n＝{n}バッチ）。上向き三角：下限のみ（信号が弱く値が"
        "定まらない）。太い線：選択中の候補のバッチサイズ。",
        n=most,
    )
    columns = (
        ("samples", Text("examples seen", "学習したデータ数")),
        ("epochs", Text("epochs", "エポック")),
        ("state", Text("state", "状態")),
        ("scale", Text("noise scale, examples", "ノイズスケール（件）")),
        ("low", Text("low", "下限")),
        ("high", Text("high", "上限")),
        ("n", Text("n", "n")),
    )
    specs = {"": {lang: _noise_spec(advice, kept, description, lang) for lang in LANGUAGES}}
    return Chart("noise", kept, columns, caption, description, specs)


_NOISE_WORDS = {
    "resolved": Text("noise scale, with range", "ノイズスケール（範囲つき）"),
    "at least": Text("at least this", "少なくともこの値"),
}


def _noise_spec(
    advice: Advice, rows: tuple[Row, ...], text: Text, language: Language
) -> Spec:
    y = alt.Y(
        "scale:Q",
        title=Text("examples in a batch", "バッチのデータ数（件）").of(language),
        scale=alt.Scale(type="log", base=2, padding=14, nice=False),
        axis=alt.Axis(format=",~r", tickCount=8),
    )
    x = alt.X(
        "samples:Q",
        title=Text("examples seen in training", "学習したデータ数（件）").of(language),
        axis=alt.Axis(format="~s", tickCount=6, grid=False),
        scale=alt.Scale(padding=16, nice=False),
    )
    domain = ["resolved", "at least"]
    legend = alt.Legend(labelExpr=_labels(_NOISE_WORDS, language))
    base = alt.Chart(_data("noise"))
    layers: list[Any] = []
    if advice.useful_low and advice.useful_high:
        words = Text("useful batch sizes", "有効なバッチサイズ").of(language)
        ends = {
            "low": advice.useful_low,
            "high": advice.useful_high,
            "words": f"{words}: {advice.useful_low:,}–{advice.useful_high:,}",
        }
        band = alt.Chart(alt.InlineData(values=[ends]))
        layers += [
            band.mark_rect(color=GREEN, opacity=0.14).encode(
                y="low:Q", y2="high:Q", x=alt.value(0), x2=alt.value("width")
            ),
            band.mark_text(align="left", baseline="top", dx=5, dy=4, fontSize=12).encode(
                y="high:Q", x=alt.value(0), text="words:N"
            ),
        ]
    layers += [
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(scale="picked_batch")
        .transform_filter("isValid(datum.scale)")
        .mark_rule(color=VERMILLION, strokeWidth=3, opacity=0.8)
        .encode(y=y),
        base.transform_filter("isValid(datum.high)")
        .mark_rule(color=PURPLE, strokeWidth=2)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1, color=PURPLE).encode(
            x=x,
            y=y,
            shape=alt.Shape(
                "state:N",
                title=None,
                scale=alt.Scale(domain=domain, range=["circle", "triangle-up"]),
                legend=legend,
            ),
            tooltip=_tooltips(
                language,
                (
                    ("samples", Text("examples seen", "学習したデータ数")),
                    ("scale", Text("noise scale", "ノイズスケール")),
                ),
            ),
        ),
    ]
    return _finish(alt.layer(*layers), advice, text, language, 300)


# ------------------------------------------------------------------ learning rate × batch size


def plane(advice: Advice) -> Chart | None:
    """Every batch size and learning rate of the search, with the two scaling rules from today's.

    Args:
        advice: The record.
    """
    if not advice.plane:
        return None
    times = 100.0 if advice.metric.unit == "%" else 1.0
    rows = plain_rows(
        {
            "batch": p.batch_size,
            "rate": p.learning_rate,
            "id": identity_at(advice, p.batch_size, p.learning_rate),
            "status": str(p.status),
            "metric": p.metric * times,
            "loss": p.loss,
            "works": p.works,
            "rung": p.rung,
            "samples": p.samples,
        }
        for p in advice.plane
        if p.learning_rate > 0
    )[:ROWS_A_CHART]
    description = say(
        "Map of {n} pairs of batch size and learning rate; darker is better, {k} pairs failed. Two lines "
        "show the linear and the square-root rule starting at today's settings.",
        "バッチサイズと学習率の組み合わせ{n}通りの地図。色が濃いほど良く、{k}通りは失敗。"
        "2本の線は、現在の設定からの比例則と平方根則。",
        n=len(rows),
        k=sum(r["status"] != Status.OK for r in rows),
    )
    caption = say(
        "Each square: one trial (n = 1), continued from a common starting point; poor trials were stopped "
        "early. Ringed: works (within one standard deviation of the best at that batch size). "
        "Framed column: the candidate picked.",
        "四角：共通の途中状態から続けた試行（各n＝1）。見込みの薄い試行は早めに打ち切り。黒枠：使える学習率"
        "（同じバッチサイズの最良値から1標準偏差以内）。縦の帯：選択中の候補。",
    )
    columns = (
        ("batch", Text("batch size", "バッチサイズ")),
        ("rate", Text("learning rate", "学習率")),
        ("status", Text("status", "結果")),
        ("metric", _axis_title(advice, "metric")),
        ("loss", Text("loss", "損失")),
        ("works", Text("works", "使えるか")),
        ("samples", Text("examples trained on", "学習したデータ数")),
        ("rung", Text("round of the trial", "試行の段")),
    )
    specs = {
        name: {lang: _plane_spec(advice, rows, name, description, lang) for lang in LANGUAGES}
        for name in _plane_values(advice)
    }
    options = tuple((name, _axis_title(advice, name)) for name in specs)
    choices = ((Text("colour shows", "色の意味"), options),) if len(options) > 1 else ()
    return Chart("plane", rows, columns, caption, description, specs, choices, height=360)


def _plane_values(advice: Advice) -> tuple[str, ...]:
    has = any(math.isfinite(p.metric) for p in advice.plane)
    return ("metric", "loss") if has and advice.metric.name != "loss" else ("loss",)


def _axis_title(advice: Advice, name: str) -> Text:
    if name == "loss":
        return Text("loss (lower is better)", "損失（小さいほど良い）")
    unit = f" ({advice.metric.unit})" if advice.metric.unit else ""
    return say("{m}{u}", "{m}{uj}", m=names.metric(advice.metric), u=unit,
               uj=f"（{advice.metric.unit}）" if unit else "")


_STATUS_SHAPES = {
    "ok": (names.STATUSES[Status.OK], "square"),
    "diverged": (names.STATUSES[Status.DIVERGED], "cross"),
    "did not learn": (names.STATUSES[Status.DID_NOT_LEARN], "stroke"),
}


def _shade_domain(rows: tuple[Row, ...], name: str, maximise: bool) -> list[float]:
    """From the best value to the middle of the rest: what is worse is all one colour."""
    values = sorted(
        (r[name] for r in rows if r["status"] == "ok" and r[name] is not None),
        reverse=maximise,
    )
    if not values:
        return [0.0, 1.0]
    worst = values[min(len(values) - 1, (4 * len(values)) // 5)]
    return [worst, values[0]] if worst != values[0] else [values[0] - 1.0, values[0] + 1.0]


def _plane_spec(
    advice: Advice, rows: tuple[Row, ...], name: str, text: Text, language: Language
) -> Spec:
    maximise = name == "metric" and advice.metric.maximise
    x = _batch_axis(language)
    y = alt.Y(
        "rate:Q",
        title=Text("learning rate", "学習率").of(language),
        scale=alt.Scale(type="log", nice=False, padding=18),
        axis=alt.Axis(format="~g", tickCount=6, grid=False),
    )
    shape = alt.Shape(
        "status:N",
        title=None,
        scale=alt.Scale(
            domain=list(_STATUS_SHAPES), range=[s for _w, s in _STATUS_SHAPES.values()]
        ),
        legend=alt.Legend(
            labelExpr=_labels({k: w for k, (w, _s) in _STATUS_SHAPES.items()}, language),
            columns=1,
            symbolFillColor="#888",
            symbolStrokeColor="#444",
        ),
    )
    colour = alt.Color(
        f"{name}:Q",
        title=_axis_title(advice, name).of(language),
        scale=alt.Scale(
            scheme="viridis",
            reverse=True,
            domain=_shade_domain(rows, name, maximise),
            clamp=True,
        ),
        legend=alt.Legend(gradientLength=180, format="~g", tickCount=4),
    )
    base = alt.Chart(_data("plane"))
    tips = _tooltips(
        language,
        (
            ("batch", Text("batch size", "バッチサイズ")),
            ("rate", Text("learning rate", "学習率")),
            (name, _axis_title(advice, name)),
            ("status", Text("status", "結果")),
        ),
    )
    layers: list[Any] = [
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(batch="picked_batch")
        .transform_filter("isValid(datum.batch)")
        .mark_rule(color=VERMILLION, strokeWidth=26, opacity=0.22)
        .encode(x=x),
        *_scaling_lines(advice, rows, language),
        base.transform_filter("datum.status === 'ok'")
        .mark_point(filled=True, size=190, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=shape,
            stroke=alt.condition("datum.works", alt.value("#000"), alt.value("transparent")),
            strokeWidth=alt.value(2),
            tooltip=tips,
        ),
        base.transform_filter("datum.status !== 'ok'")
        .mark_point(size=110, opacity=1, color="#444", strokeWidth=2.5, filled=False)
        .encode(x=x, y=y, shape=shape, tooltip=tips),
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(batch="picked_batch", rate="picked_rate")
        .transform_filter("isValid(datum.batch) && isValid(datum.rate)")
        .mark_point(size=520, filled=False, stroke=VERMILLION, strokeWidth=3, opacity=1)
        .encode(x=x, y=y),
    ]
    return _finish(alt.layer(*layers), advice, text, language, 360)


_SCALING = {
    "linear": (Text("linear rule from today", "現在からの比例則"), [1, 0]),
    "square root": (Text("square-root rule from today", "現在からの平方根則"), [6, 4]),
}


def _scaling_lines(advice: Advice, rows: tuple[Row, ...], language: Language) -> list[Any]:
    """What the two popular rules would have set, clipped to the learning rates tried."""
    start = advice.today.batch_size
    if not isinstance(start, int) or not rows:
        return []
    tried = [r["rate"] for r in rows]
    sizes = sorted({r["batch"] for r in rows})
    values = [
        {"batch": b, "rate": advice.today.learning_rate * (b / start) ** power, "rule": rule}
        for rule, power in (("linear", 1.0), ("square root", 0.5))
        for b in sizes
    ]
    kept = [v for v in values if min(tried) / 2 <= v["rate"] <= 2 * max(tried)]
    dash = alt.StrokeDash(
        "rule:N",
        title=None,
        scale=alt.Scale(domain=list(_SCALING), range=[d for _w, d in _SCALING.values()]),
        legend=alt.Legend(
            labelExpr=_labels({k: w for k, (w, _d) in _SCALING.items()}, language), columns=1
        ),
    )
    lines = alt.Chart(alt.InlineData(values=kept))
    return [
        lines.mark_line(color=BLACK, strokeWidth=1.5).encode(x="batch:Q", y="rate:Q", strokeDash=dash)
    ]


# ------------------------------------------------------------------ curves

_AXES = {
    "samples": (Text("examples seen", "学習したデータ数（件）"), "linear"),
    "epochs": (Text("epochs (passes over the data)", "エポック（データを何周したか）"), "linear"),
    "updates": (Text("updates of the weights", "重みの更新回数"), "log"),
    "seconds": (Text("time (seconds)", "時間（秒）"), "log"),
    "money": (Text("money", "費用"), "log"),
}


def curves(advice: Advice) -> Chart | None:
    """Loss and metric along training, against samples, epochs, updates, time or money.

    Args:
        advice: The record.
    """
    rows = _curve_rows(advice)
    if not rows:
        return None
    axes = [a for a in _AXES if any(r[a] is not None and r[a] > 0 for r in rows)]
    values = [v for v in ("metric", "loss") if any(r["name"] == v for r in rows)]
    seeds = max(p.n for p in advice.curves)
    description = say(
        "Learning curves of {k} settings on validation data: {m} and loss along training.",
        "{k}通りの設定の学習曲線（検証データ）。学習に伴う{m}と損失の変化。",
        k=len({r["id"] for r in rows}),
        m=names.metric(advice.metric),
    )
    caption = say(
        "Lines: median over repeats on validation data; bands: the range that holds 90 % of the repeats "
        "(up to n = {n}; n is in the table). Strong: today's and the candidate picked.",
        "線：繰り返しの中央値（検証データ）。帯：繰り返しの90%が入る範囲（最大n＝{n}、nは表に記載）。"
        "濃い線：現在の設定と選択中の候補。",
        n=seeds,
    )
    columns = (
        ("id", Text("setting", "設定")),
        ("name", Text("quantity", "量")),
        *((axis, _curve_axis_title(advice, axis)) for axis in axes),
        ("value", Text("value", "値")),
        ("low", Text("low", "下限")),
        ("high", Text("high", "上限")),
        ("n", Text("n", "n")),
    )
    specs = {
        f"{value}-{axis}": {
            lang: _curve_spec(advice, rows, value, axis, description, lang) for lang in LANGUAGES
        }
        for value in values
        for axis in axes
    }
    choices = (
        (Text("show", "表示"), tuple((v, _axis_title(advice, v)) for v in values)),
        (Text("against", "横軸"), tuple((a, _curve_axis_title(advice, a)) for a in axes)),
    )
    return Chart("curves", rows, columns, caption, description, specs, choices, height=340)


def _curve_axis_title(advice: Advice, axis: str) -> Text:
    if axis == "money" and advice.price is not None:
        unit = formats.currency(advice.price.currency)
        return say("money ({u})", "費用（{uj}）", u=unit.en.strip(), uj=unit.ja)
    return _AXES[axis][0]


def _curve_rows(advice: Advice) -> tuple[Row, ...]:
    by_line: dict[tuple[str, str], list[CurvePoint]] = {}
    for point in advice.curves:
        by_line.setdefault((point.id, point.name), []).append(point)
    kept = [_curve_row(advice, p) for line in by_line.values() for p in thinned(line)]
    return plain_rows(kept[:ROWS_A_CHART])


def thinned(points: list[CurvePoint]) -> list[CurvePoint]:
    """At most 200 points of a curve, evenly spread, the last one kept.

    Args:
        points: In order.
    """
    stride = math.ceil(len(points) / POINTS_A_CURVE)
    return points[::-1][::stride][::-1]


def _curve_row(advice: Advice, point: CurvePoint) -> Row:
    shown = 100.0 if point.name == "metric" and advice.metric.unit == "%" else 1.0
    price = advice.price
    return {
        "id": point.id,
        "role": facts.role(advice, point.id),
        "name": point.name,
        "samples": point.samples,
        "epochs": point.epochs,
        "updates": point.updates,
        "seconds": point.seconds,
        "money": point.seconds * price.per_hour / 3600 + point.samples * price.per_sample
        if price
        else math.nan,
        "value": point.value * shown,
        "low": point.low * shown,
        "high": point.high * shown,
        "n": point.n,
    }


def _curve_spec(
    advice: Advice,
    rows: tuple[Row, ...],
    value: str,
    axis: str,
    text: Text,
    language: Language,
) -> Spec:
    kind = _AXES[axis][1]
    x = alt.X(
        f"{axis}:Q",
        title=_curve_axis_title(advice, axis).of(language),
        scale=alt.Scale(type=kind, nice=False, zero=False),
        axis=alt.Axis(format="~s" if axis != "money" else "~g", tickCount=6, grid=False),
    )
    ordinary = [r["value"] for r in rows if r["name"] == value and r["value"] is not None]
    wide = value == "loss" and min(ordinary) > 0 and max(ordinary) > 10 * min(ordinary)
    y = alt.Y(
        "value:Q",
        title=_axis_title(advice, value).of(language),
        scale=alt.Scale(type="log" if wide else "linear", zero=False, nice=False, padding=6),
        axis=alt.Axis(tickCount=6, format="~g"),
    )
    positive = f" && datum.{axis} > 0" if kind == "log" else ""
    base = (
        alt.Chart(_data("curves"))
        .transform_filter(f"datum.name === '{value}' && isValid(datum.{axis}){positive}")
        .transform_calculate(look=_LOOK_EXPRESSION)
    )
    strong = f"{_IS_PICKED} || datum.role === 'today'"
    colour = _look(advice, language, alt.Color, 1)
    layers: list[Any] = [
        base.transform_filter(f"({strong}) && isValid(datum.low)" + (" && datum.low > 0" if wide else ""))
        .mark_area(opacity=0.18)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour, detail="id:N"),
        base.mark_line().encode(
            x=x,
            y=y,
            color=colour,
            strokeDash=_look(advice, language, alt.StrokeDash, 3),
            detail="id:N",
            strokeWidth=alt.condition(strong, alt.value(2.8), alt.value(1.2)),
            opacity=alt.condition(strong, alt.value(1.0), alt.value(0.6)),
        ),
        base.mark_point(size=120, opacity=0.01, filled=True).encode(
            x=x,
            y=y,
            tooltip=_tooltips(
                language,
                (
                    ("id", Text("setting", "設定")),
                    (axis, _curve_axis_title(advice, axis)),
                    ("value", _axis_title(advice, value)),
                ),
            ),
        ),
    ]
    if value == "metric" and advice.target is not None:
        layers += _target_line(advice, language)
    return _finish(alt.layer(*layers), advice, text, language, 340)


def _target_line(advice: Advice, language: Language) -> list[Any]:
    target = advice.target
    if target is None:
        return []
    shown = target.value * (100.0 if advice.metric.unit == "%" else 1.0)
    words = Text("goal", "目標").of(language)
    written = formats.metric_value(target.value, advice.metric).of(language)
    at = alt.Chart(alt.InlineData(values=[{"value": shown, "words": f"{words} {written}"}]))
    return [
        at.mark_rule(color=GREEN, strokeDash=[5, 3], strokeWidth=2).encode(y="value:Q"),
        at.mark_text(align="left", baseline="bottom", dx=4, dy=-3, fontSize=12).encode(
            y="value:Q", x=alt.value(0), text="words:N"
        ),
    ]


# ------------------------------------------------------------------ Pareto


def pareto(advice: Advice) -> Chart | None:
    """Time to the target against the metric at the end: nothing is better in both than the front.

    Args:
        advice: The record.
    """
    rows = _pareto_rows(advice)
    if not rows:
        return None
    description = say(
        "{n} settings: time to reach the goal against {m} at the end of training. Up to the {side} is "
        "better.",
        "{n}通りの設定について、目標に達するまでの時間と学習終了時の{m}。{side_ja}ほど良い。",
        n=len(rows),
        m=names.metric(advice.metric),
        side="left" if advice.metric.maximise else "left, and down",
        side_ja="左上" if advice.metric.maximise else "左下",
    )
    caption = say(
        "Points: settings with their 90 % ranges (n in the table); a line joins those that no other "
        "setting beats in both. A cross at the right edge never reached the goal.",
        "点：設定ごとの値と90%の範囲（nは表に記載）。線：時間と成績の両方で負けない設定。"
        "右端の×は目標に達しなかった設定。",
    )
    specs = {"": {lang: _pareto_spec(advice, rows, description, lang) for lang in LANGUAGES}}
    columns = (
        ("id", Text("setting", "設定")),
        *_range_columns("seconds", Text("seconds to the goal", "目標までの秒数")),
        *_range_columns("metric", _axis_title(advice, "metric")),
        ("best", Text("not beaten in both", "両方で負けない")),
        ("n", Text("n", "n")),
    )
    return Chart("pareto", rows, columns, caption, description, specs, height=320)


def _pareto_rows(advice: Advice) -> tuple[Row, ...]:
    known = [c for c in advice.candidates if c.metric is not None and c.seconds_to_target]
    finite = [
        c.seconds_to_target.value
        for c in known
        if c.seconds_to_target and math.isfinite(c.seconds_to_target.value)
    ]
    if not finite:
        return ()
    edge = 1.6 * max(finite)
    times = 100.0 if advice.metric.unit == "%" else 1.0
    return plain_rows(_pareto_row(advice, c, edge, times) for c in known)


def _pareto_row(advice: Advice, one: Candidate, edge: float, times: float) -> Row:
    seconds = one.seconds_to_target
    reached = seconds is not None and math.isfinite(seconds.value)
    ends = _ends(seconds, "seconds")
    return {
        "id": one.setting.id,
        "words": _candidate_words(advice, one.setting),
        "role": facts.role(advice, one.setting.id),
        "reached": "reached" if reached else "not reached",
        **ends,
        "x": ends["seconds"] if reached else edge,
        **_ends(one.metric, "metric", times),
        "best": one.pareto,
        "n": one.runs,
    }


def _pareto_spec(
    advice: Advice, rows: tuple[Row, ...], text: Text, language: Language
) -> Spec:
    x = alt.X(
        "x:Q",
        title=Text("time to reach the goal (seconds)", "目標に達するまでの時間（秒）").of(language),
        scale=alt.Scale(type="log", nice=False, padding=24),
        axis=alt.Axis(format="~g", tickCount=6, grid=False),
    )
    y = alt.Y(
        "metric:Q",
        title=say(
            "{m} at the end", "学習終了時の{m}", m=_axis_title(advice, "metric")
        ).of(language),
        scale=alt.Scale(zero=False, nice=False, padding=18),
        axis=alt.Axis(tickCount=6, format="~g"),
    )
    base = alt.Chart(_data("pareto")).transform_calculate(look=_LOOK_EXPRESSION)
    reached = base.transform_filter("datum.reached === 'reached'")
    colour = _look(advice, language, alt.Color, 1)
    size = _emphasis(260, 90)
    tips = _tooltips(
        language,
        (
            ("id", Text("setting", "設定")),
            ("seconds", Text("seconds", "秒")),
            ("metric", _axis_title(advice, "metric")),
        ),
    )
    layers: list[Any] = [
        reached.transform_filter("datum.best")
        .mark_line(color=GREEN, strokeWidth=2, interpolate="linear")
        .encode(x=x, y=y, order="x:Q"),
        reached.transform_filter("isValid(datum.seconds_low)")
        .mark_rule()
        .encode(x=alt.X("seconds_low:Q"), x2="seconds_high:Q", y=y, color=colour,
                opacity=_emphasis(1.0, 0.45)),
        base.transform_filter("isValid(datum.metric_low)")
        .mark_rule()
        .encode(x=x, y=alt.Y("metric_low:Q"), y2="metric_high:Q", color=colour,
                opacity=_emphasis(1.0, 0.45)),
        reached.mark_point(filled=True, opacity=1).encode(
            x=x,
            y=y,
            color=colour,
            shape=_look(advice, language, alt.Shape, 2),
            size=size,
            tooltip=tips,
        ),
        base.transform_filter("datum.reached !== 'reached'")
        .mark_point(shape="cross", size=120, strokeWidth=2.5, color=VERMILLION, opacity=1)
        .encode(x=x, y=y, tooltip=tips),
        base.mark_text(align="left", dx=9, dy=-9, fontSize=11).encode(
            x=x, y=y, text="words:N", opacity=_emphasis(1.0, 0.75)
        ),
    ]
    return _finish(alt.layer(*layers), advice, text, language, 320)
