"""What ``compare --gammas`` finds: its record, and what it says in both languages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from batchlab import _html
from batchlab._text import Text, plain, same, say
from batchlab.advisor.record import MetricInfo, Setting
from batchlab.report import formats, names
from batchlab.report.findings import Origin, _assumed, _metric, _range, difference, table
from batchlab.rules import is_sgd_family
from batchlab.types import Estimate

HEAD = (
    Text("γ", "γ"),
    Text("learning rate", "学習率"),
    Text("by the law", "法則による学習率"),
    Text("metric (90 %)", "指標（90%）"),
    Text("against the model as it is", "元のモデルとの差"),
    Text("time to the target (90 %)", "目標までの時間（90%）"),
    Text("times faster", "速さの比"),
    Text("arrived", "到達"),
    Text("failed", "失敗"),
)
LOOK_HEAD = (
    Text("γ", "γ"),
    Text("sharpness (90 %)", "シャープネス（90%）"),
    Text("weights that take part (90 %)", "働いている重み（90%）"),
    Text("weights moved by (90 %)", "重みの移動（90%）"),
)
NONE = Text("–", "–")
NEAR = 2.0
"""The law is told to hold where the best rate is within this factor of it."""
ROUND_OFF = 0.01
"""Below this γ, float32 leaves too few digits of the difference."""


@dataclass(frozen=True)
class Point:
    """One γ and learning rate of the search.

    Attributes:
        gamma: γ, or None for the model as it is.
        learning_rate: Peak.
        metric: At the end, mean over the runs that did not diverge; NaN if all did.
        failed: Runs that diverged.
        runs: Runs.
    """

    gamma: float | None
    learning_rate: float
    metric: float
    failed: int
    runs: int


@dataclass(frozen=True)
class StrengthRow:
    """One γ at the learning rate that was best for it, on fresh seeds.

    Attributes:
        gamma: γ, or None for the model as it is.
        learning_rate: The best of those tried, on the seeds that choose.
        law: What the law makes of the best rate of the model as it is.
        edge: Whether the best was the smallest or the largest tried.
        metric: On validation data, mean of the last three evaluations.
        difference: This − the model as it is, paired by seed; the ranges of all γ, of differences
            and speeds, hold together.
        seconds: Of one run alone to the target, infinite if never.
        faster: Time of the model as it is / of this one, likewise.
        sharpness: Largest eigenvalue of the Hessian at the end, loss/parameter².
        sparsity: Participation ratio of the weights at the end, as a share of them.
        moved: ‖θ − θ₀‖/‖θ₀‖ at the end.
        arrived: Runs that reached the target.
        runs: Fresh repeats.
        failed: Runs that diverged.
    """

    gamma: float | None
    learning_rate: float
    law: float
    edge: bool
    metric: Estimate
    difference: Estimate | None
    seconds: Estimate
    faster: Estimate | None
    sharpness: Estimate | None
    sparsity: Estimate | None
    moved: Estimate | None
    arrived: int
    runs: int
    failed: int


@dataclass(frozen=True)
class StrengthReport:
    """What the feature-learning strength changes.

    Attributes:
        task: Name.
        unit: What an example is called, in the plural.
        metric: The metric, on validation data.
        today: Today's settings, at the learning rate that was best.
        train_examples: N.
        validation_examples: Examples the metric was computed on.
        seeds: Fresh ones, which judge.
        choosing: Those that choose learning rates and the target.
        depth: L of the law.
        samples: Of every training.
        target: Metric that counts as trained.
        rows: The model as it is, then every γ, ascending.
        points: Every γ and learning rate tried.
        slower: Seconds of an update of a wrapped model / of the model as it is.
        origin: Where these numbers come from.
    """

    task: str
    unit: str
    metric: MetricInfo
    today: Setting
    train_examples: int
    validation_examples: int
    seeds: tuple[int, ...]
    choosing: tuple[int, ...]
    depth: int
    samples: int
    target: float
    rows: tuple[StrengthRow, ...]
    points: tuple[Point, ...]
    slower: float
    origin: Origin

    @property
    def strengths(self) -> tuple[StrengthRow, ...]:
        """The rows with a γ."""
        return self.rows[1:]

    def better(self) -> tuple[StrengthRow, ...]:
        """γ that were shown to improve the metric, the best first."""
        sign = 1 if self.metric.maximise else -1
        shown = [
            (sign * gap.value, row)
            for row in self.strengths
            if (gap := row.difference) is not None and min(sign * gap.low, sign * gap.high) > 0
        ]
        return tuple(row for _, row in sorted(shown, key=lambda pair: -pair[0]))

    def worse(self) -> tuple[StrengthRow, ...]:
        """γ that were shown to make the metric worse."""
        sign = 1 if self.metric.maximise else -1
        return tuple(
            row
            for row in self.strengths
            if (gap := row.difference) is not None and max(sign * gap.low, sign * gap.high) < 0
        )

    def faster(self) -> tuple[StrengthRow, ...]:
        """γ that were shown to come to the target sooner, the fastest first."""
        shown = [
            (found.value, row)
            for row in self.strengths
            if (found := row.faster) is not None and found.low > 1
        ]
        return tuple(row for _, row in sorted(shown, key=lambda pair: -pair[0]))

    def answer(self) -> Text:
        """What γ changes, or that nothing was shown."""
        if self.better():
            best = self.better()[0]
            assert best.difference is not None
            return say(
                "γ = {g} improves {m} by {d}.",
                "γ＝{g}で{m}が改善します（{d}）。",
                g=formats.number(best.gamma or 0.0),
                m=names.metric(self.metric),
                d=difference(best.difference, self.metric),
            )
        if self.faster():
            best = self.faster()[0]
            assert best.faster is not None
            return say(
                "γ = {g} comes to the same {m} {r}× sooner; none is better at the end.",
                "γ＝{g}は同じ{m}に{r}倍速く達します。学習終了時の値が良いと言えるγはありません。",
                g=formats.number(best.gamma or 0.0),
                m=names.metric(self.metric),
                r=_times(best.faster),
            )
        if len(self.worse()) == len(self.strengths):
            return Text(
                "Every γ tried is worse than the model as it is.",
                "試したどのγも、元のモデルより悪くなりました。",
            )
        return say(
            "No γ was shown to be better or faster than the model as it is{w}.",
            "元のモデルより良い、または速いと言えるγはありません{w}。",
            w=self._worse(),
        )

    def _worse(self) -> Text:
        worse = self.worse()
        if not worse:
            return Text("", "")
        told = ", ".join(formats.number(row.gamma or 0.0) for row in worse)
        return say("; worse: γ = {g}", "（悪化：γ＝{g}）", g=told)

    def said(self) -> tuple[Text, ...]:
        """How it was measured, what else γ changes, and what the law was worth."""
        told = [self._law(), self._method(), self._cost()]
        edges = [row for row in self.rows if row.edge]
        if edges:
            told.append(
                say(
                    "For {n} of {m} settings the best learning rate was the smallest or the "
                    "largest tried: a better one may lie beyond.",
                    "{m}通りの設定のうち{n}通りでは、試した学習率のうち端のものが最良でした。さらに良い"
                    "値が外側にあるかもしれません。",
                    n=len(edges),
                    m=len(self.rows),
                )
            )
        small = [row for row in self.strengths if (row.gamma or 1.0) < ROUND_OFF]
        if small and self.today.precision != "float64":
            told.append(
                say(
                    "Below γ = {g} round-off is divided by γ too: train these in float64.",
                    "γ＝{g}未満では丸め誤差もγで割られます。float64で学習してください。",
                    g=formats.number(ROUND_OFF),
                )
            )
        return tuple(told)

    def near(self) -> tuple[StrengthRow, ...]:
        """γ whose best learning rate lies within a factor of two of the law's."""
        return tuple(
            row
            for row in self.strengths
            if abs(math.log(row.learning_rate / row.law)) <= math.log(NEAR) + 1e-9
        )

    def _law(self) -> Text:
        lazy, rich = ("γ²", "γ^(2/L)") if is_sgd_family(self.today.rule) else ("γ", "γ^(1/L)")
        return say(
            "For {n} of {m} γ the best learning rate lies within a factor of 2 of the law η·{a} "
            "(γ ≤ 1), η·{b} (γ > 1), η being the best rate of the model as it is and L = {l} "
            "its layers with weights.",
            "{m}通りのγのうち{n}通りで、最良の学習率が法則η·{a}（γ≤1）・η·{b}（γ>1）の2倍以内"
            "でした（η：元のモデルの最良の学習率、L＝{l}：重みのある層の数）。",
            a=lazy,
            b=rich,
            n=len(self.near()),
            m=len(self.strengths),
            l=self.depth,
        )

    def _method(self) -> Text:
        return say(
            "Every setting has the best learning rate of those tried on {c} seeds; shown are {n} "
            "fresh ones at {s} samples, differences and speeds paired by seed, in ranges that "
            "hold for all γ and both columns together with 90 %. The target: {m} {t}, which at "
            "least four in five runs of the model as it is reach.",
            "学習率は設定ごとに{c}個のシードで最良のものを選び、表示は別の{n}個のシード（データ{s}件）に"
            "よるものです。差と速さの比はシードごとの対で、範囲は全部のγと両方の列について同時に90%で"
            "成り立ちます。目標：{m}{t}"
            "（元のモデルの5回中4回以上が達する値）。",
            c=len(self.choosing),
            n=len(self.seeds),
            s=formats.count(self.samples),
            m=names.metric(self.metric),
            t=formats.metric_value(self.target, self.metric),
        )

    def _cost(self) -> Text:
        return say(
            "An update of the centred model takes {r} times as long, since its frozen start is "
            "evaluated too; predicting needs that copy as well.",
            "中心化したモデルの1回の更新は{r}倍かかります（固定した初期モデルも評価するため）。予測にも"
            "この複製が必要です。",
            r=formats.number(self.slower),
        )

    def table_rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of what γ changes."""
        return tuple(
            (
                name(row.gamma),
                same(formats.rate(row.learning_rate)),
                same(formats.rate(row.law)),
                _metric(row.metric, self.metric),
                NONE if row.difference is None else difference(row.difference, self.metric),
                _range(row.seconds, _seconds),
                NONE if row.faster is None else _times(row.faster),
                say("{a} of {b}", "{b}回中{a}回", a=row.arrived, b=row.runs),
                say("{a} of {b}", "{b}回中{a}回", a=row.failed, b=row.runs),
            )
            for row in self.rows
        )

    def look_rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of what the trained models look like."""
        return tuple(
            (
                name(row.gamma),
                _known(row.sharpness),
                _known(row.sparsity, 100.0, " %"),
                _known(row.moved, 100.0, " %"),
            )
            for row in self.rows
        )

    def tables(self) -> list[tuple[Text, tuple[Text, ...], tuple[tuple[Text, ...], ...]]]:
        """Caption, column titles and rows of everything, in order."""
        return [
            (Text("At equal samples", "データの量をそろえて"), HEAD, self.table_rows()),
            (
                Text("The trained models", "学習したモデル"),
                LOOK_HEAD,
                self.look_rows(),
            ),
        ]

    def __str__(self) -> str:
        lines = [
            f"{self.task}: feature-learning strength γ, {len(self.seeds)} fresh seeds, "
            f"{plain(names.metric(self.metric).en)} on "
            f"{self.validation_examples:,} validation {self.unit}"
        ]
        for caption, head, rows in self.tables():
            cells = [[plain(text.en) for text in row] for row in rows]
            lines += ["", f"{caption.en}:", table([plain(text.en) for text in head], cells)]
        lines += ["", *(plain(text.en) for text in (self.answer(), *self.said()))]
        return "\n".join([*lines, *_assumed(self.origin)])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return _html.text(str(self))

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython, which would write the whole record beside it."""
        return _html.bundle(self._repr_html_(), str(self))


def name(gamma: float | None) -> Text:
    """What a setting is called.

    Args:
        gamma: γ, or None for the model as it is.

    Example:
        >>> name(None).en, name(0.1).en
        ('the model as it is', '0.1')
    """
    if gamma is None:
        return Text("the model as it is", "元のモデル")
    return same(formats.number(gamma))


def _times(ratio: Estimate) -> Text:
    value, low, high = (
        formats.number(x, 3) if math.isfinite(x) else "∞"
        for x in (ratio.value, ratio.low, ratio.high)
    )
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _known(found: Estimate | None, times: float = 1.0, unit: str = "") -> Text:
    if found is None:
        return NONE
    return _range(found, lambda value: same(f"{formats.number(value * times, 3)}{unit}"))


def _seconds(value: float) -> Text:
    return NONE if math.isinf(value) else formats.duration(value)
