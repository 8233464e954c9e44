"""What ``fit``, ``noise`` and ``compare`` find: records, and their tables for a terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from batchlab import _html
from batchlab._platform import format_bytes
from batchlab._text import Language, Text, plain, say, usual_language, verbatim
from batchlab.advisor.judge import Yardstick
from batchlab.advisor.record import (
    CurvePoint,
    FeatureSide,
    FeatureUse,
    MetricInfo,
    Robustness,
    RobustRow,
    Setting,
)
from batchlab.advisor.stages import Machine
from batchlab.config import RunConfig
from batchlab.measure.fit import FitResult
from batchlab.measure.noise import NoiseResult
from batchlab.measure.together import Gain
from batchlab.report import formats, names
from batchlab.report.features import ranged, share, signed, span
from batchlab.report.gained import gained
from batchlab.report.sturdiness import disturbance, meaning
from batchlab.rules import is_sgd_family
from batchlab.schedules import batch_schedule, sizes_of
from batchlab.types import Estimate, Status

FAR = 4.0
"""Today's batch is *far* below or above a range from this factor on."""


@dataclass(frozen=True)
class Origin:
    """Where numbers come from.

    Attributes:
        command: Which command made them.
        created: ISO time, UTC.
        seconds: Time the measurement took.
        device: ``cpu``, ``cuda`` …
        cores: Processor cores.
        assumptions: Sentences about what was filled in.
        provenance: Versions and seeds.
        folder: Result directory.
    """

    command: str
    created: str
    seconds: float
    device: str
    cores: int
    assumptions: tuple[str, ...]
    provenance: dict[str, str]
    folder: str


@dataclass(frozen=True)
class FitReport:
    """What fits in memory, and how fast each batch size is.

    Attributes:
        task: Name.
        unit: What an example is called, in the plural.
        today: Today's settings.
        train_examples: N.
        machine: Trials, limits, and timed blocks of one run alone.
        origin: Where these numbers come from.
        gains: Seconds per update of several processes that train together, where there are any.
    """

    task: str
    unit: str
    today: Setting
    train_examples: int
    machine: Machine
    origin: Origin
    gains: tuple[Gain, ...] = ()

    @property
    def fit(self) -> FitResult:
        """The finder's answer, speeds included."""
        assert self.machine.fit is not None
        return self.machine.fit

    def __str__(self) -> str:
        found = self.fit
        head = ("batch size", "memory", "samples per second (90 %)", "ms per update (90 %)", "")
        rows = [
            (
                f"{p.batch_size:,}",
                format_bytes(p.bytes) if p.bytes else "–",
                _estimate(p.samples_per_second),
                _estimate(p.seconds_per_update, 1000.0),
                self._remark(p.batch_size) if p.fits else f"does not fit: {p.reason}",
            )
            for p in found.points
        ]
        return "\n".join([f"{self.task}: {found.sentence}", table(head, rows), *self._notes()])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return _html.text(str(self))

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython, which would write the whole record beside it."""
        return _html.bundle(self._repr_html_(), str(self))

    def _remark(self, size: int) -> str:
        found = self.fit
        told = {
            "today": size == self.today.batch_size,
            "nearly full speed from here": size == found.knee,
            "largest": size == found.largest,
        }
        return ", ".join(words for words, true in told.items() if true)

    def _notes(self) -> list[str]:
        found = self.fit
        timed = [p.seconds_per_update.n for p in found.points if p.seconds_per_update]
        notes = [f"largest: {found.largest:,}, bound by: {found.bound_by}"]
        if timed:
            notes.append(
                f"speed: one run alone, data loading included, n = {min(timed)} blocks each; "
                f"nearly full speed from {found.knee:,} on (1/1.2 of the best)"
            )
        if found.loader_share is not None:
            notes.append(f"reading the data takes {100 * found.loader_share:.0f} % of an update")
        notes += [str(sentence.en) for sentence in self.strong()]
        return notes + self._together() + _assumed(self.origin)

    def strong(self) -> tuple[Text, ...]:
        """How much longer an update with a γ takes, where that was timed."""
        known = sorted(map(int, self.machine.wrapped))
        if not known:
            return ()
        today = self.today.batch_size
        slower = Yardstick(self.machine, None).slower(today if today in known else known[-1])
        assert slower is not None
        return (
            say(
                "With a feature-learning strength γ an update takes {v}× as long ({r}, n = {n}); "
                "what fits, fits with the frozen copy of the model that it needs.",
                "特徴学習の強さγを使うと1回の更新時間は{v}倍（{r}、n＝{n}）になります。"
                "動作の確認は、γに必要な固定した複製も含めて行いました。",
                v=formats.ratio(slower.value),
                r=formats.ratio_range(slower),
                n=slower.n,
            ),
        )

    def _together(self) -> list[str]:
        """What more processes gain."""
        if not self.gains:
            return []
        head = ("processes together", "samples per second (90 %)", "ms per update (90 %)")
        rows = [
            (
                str(one),
                _estimate(one.timing.samples_per_second),
                _estimate(one.timing.seconds_per_update, 1000.0),
            )
            for one in self.gains
        ]
        told = [plain(one.en) for one in gained(self.gains)]
        return [table(head, rows), *told]


class Place(StrEnum):
    """Where today's batch size lies beside the noise scale."""

    FAR_BELOW = "far below"
    BELOW = "below"
    AROUND = "around"
    ABOVE = "above"
    FAR_ABOVE = "far above"
    OPEN = "not resolved"


def place(batch_size: float, low: float, high: float) -> Place:
    """Where a batch size lies beside a range of the noise scale.

    Args:
        batch_size: Examples.
        low: Lower end of the range; 0 where nothing is known.
        high: Upper end; infinite where only a bound below is known.

    Returns:
        The place; *far* is a factor of four beyond the range. A bound tells only what lies below.

    Example:
        >>> [str(place(size, 80.0, 120.0)) for size in (16, 100, 130)]
        ['far below', 'around', 'above']
        >>> str(place(100, 80.0, math.inf))
        'not resolved'
    """
    if batch_size < low:
        return Place.FAR_BELOW if batch_size * FAR <= low else Place.BELOW
    if math.isinf(high):
        return Place.OPEN
    if batch_size > high:
        return Place.FAR_ABOVE if batch_size >= FAR * high else Place.ABOVE
    return Place.AROUND


READINGS = {
    Place.FAR_BELOW: Text(
        "Today's batch size {b} is far below the noise scale: doubling it should nearly halve the "
        "updates and cost hardly any more data, as far as the computer stays fast.",
        "現在のバッチサイズ{b}はノイズスケールよりずっと小さく、2倍にするとデータをほとんど増やさずに"
        "更新回数がほぼ半分になる見込みです（計算機の速さが許す範囲で）。",
    ),
    Place.BELOW: Text(
        "Today's batch size {b} is below the noise scale: a larger one should need fewer updates "
        "for a little more data.",
        "現在のバッチサイズ{b}はノイズスケールより小さく、大きくするとデータを少し増やすだけで"
        "更新回数が減る見込みです。",
    ),
    Place.AROUND: Text(
        "Today's batch size {b} is around the noise scale: updates and data are in balance.",
        "現在のバッチサイズ{b}はノイズスケールと同程度で、更新回数とデータ量の釣り合いがとれています。",
    ),
    Place.ABOVE: Text(
        "Today's batch size {b} is above the noise scale: a smaller one should need less data for "
        "a few more updates.",
        "現在のバッチサイズ{b}はノイズスケールより大きく、小さくすると更新回数が少し増えるだけで"
        "必要なデータが減る見込みです。",
    ),
    Place.FAR_ABOVE: Text(
        "Today's batch size {b} is far above the noise scale: most of each batch is wasted; half "
        "of it should reach the goal with nearly half the data.",
        "現在のバッチサイズ{b}はノイズスケールよりずっと大きく、バッチの大半が無駄になっています。"
        "半分にすると、ほぼ半分のデータで済む見込みです。",
    ),
    Place.OPEN: Text(
        "What today's batch size {b} means beside the noise scale cannot be said: the signal was "
        "not resolved.",
        "信号が弱くノイズスケールが定まらないため、現在のバッチサイズ{b}との比較はできません。",
    ),
}
ORDERS_ONLY = Text(
    "For {r} this only orders batch sizes: the theory behind it is that of SGD.",
    "{r}では、大小の目安にとどまります（もとの理論はSGDのものです）。",
)


@dataclass(frozen=True)
class NoiseReport:
    """The gradient noise scale along a run of today's settings.

    Attributes:
        task: Name.
        unit: What an example is called, in the plural.
        today: Today's settings.
        batch_sizes: Today's batch size, or those of its schedule.
        train_examples: N.
        samples: Examples trained on.
        moments: The noise scale at each, in order.
        together: Over all moments, or None where none was measured.
        status: How the run ended.
        origin: Where these numbers come from.
    """

    task: str
    unit: str
    today: Setting
    batch_sizes: tuple[int, ...]
    train_examples: int
    samples: int
    moments: tuple[NoiseResult, ...]
    together: NoiseResult | None
    status: Status
    origin: Origin

    @property
    def span(self) -> tuple[float, float]:
        """From where to where the noise scale lies during the run; (0, ∞) is not known.

        The range over all moments together, widened by the values at each: where it grows, a
        batch size may be above it at first and below it at last.
        """
        if self.together is None:
            return 0.0, math.inf
        if self.together.scale is None:
            return self.together.at_least or 0.0, math.inf
        scale = self.together.scale
        each = [m.scale.value for m in self.moments if m.scale is not None]
        return min(scale.low, *each, scale.value), max(scale.high, *each, scale.value)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where each batch size of today lies beside the noise scale."""
        return tuple(place(size, *self.span) for size in self.batch_sizes)

    def reading(self) -> tuple[Text, ...]:
        """What it means for today's settings, in plain words."""
        told = [
            say(*READINGS[where], b=formats.count(size))
            for size, where in zip(self.batch_sizes, self.places, strict=True)
        ]
        if not is_sgd_family(self.today.rule) and self.together is not None:
            told.append(say(*ORDERS_ONLY, r=verbatim(self.today.rule)))
        return tuple(told)

    def __str__(self) -> str:
        head = (f"{self.unit} seen", "epochs", f"noise scale, {self.unit} (90 %)")
        rows = [
            (f"{m.samples:,}", f"{m.samples / self.train_examples:.2g}", scale_text(m).en)
            for m in self.moments
        ]
        if self.together is not None:
            rows.append(("together", "", scale_text(self.together).en))
        lines = [f"{self.task}: gradient noise scale along {self.samples:,} {self.unit}"]
        lines.append(table(head, rows) if rows else "not measured: the run ended before")
        if self.status is not Status.OK:
            lines.append(f"the run {self.status}")
        lines += [plain(text.en) for text in self.reading()]
        return "\n".join([*lines, *self._method(), *_assumed(self.origin)])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return _html.text(str(self))

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython, which would write the whole record beside it."""
        return _html.bundle(self._repr_html_(), str(self))

    def _method(self) -> list[str]:
        if self.together is None:
            return []
        most = max(m.examples for m in self.moments)
        return [f"measured {self.together.method}, {most:,} examples a moment, weights frozen"]


def scale_text(found: NoiseResult) -> Text:
    """A noise scale with its range, or what can be said instead.

    Args:
        found: The measurement.

    Example:
        >>> scale_text(NoiseResult(0, -1.0, 8.0, None, 70.0, "per example", 64)).en
        'not resolved (at least 70)'
    """
    if found.scale is not None:
        scale = found.scale
        low, high = formats.number(scale.low, 3), formats.number(scale.high, 3)
        if low == high:
            # Every training example was measured: nothing is left to chance.
            return say("{v} (exact)", "{v}（厳密値）", v=formats.number(scale.value, 3))
        value = formats.number(scale.value, 3)
        return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)
    if found.at_least is not None:
        return say(
            "not resolved (at least {v})",
            "定まらず（{v}以上）",
            v=formats.number(found.at_least, 3),
        )
    return Text("not resolved", "定まらず")


@dataclass(frozen=True)
class Reading:
    """One setting at one common length: equal samples, or equal updates.

    Attributes:
        samples: Examples trained on.
        updates: Updates done.
        metric: Mean over seeds of the metric over the last tenth; the median where a run failed,
            and then perhaps infinite.
        difference: This − today, paired by seed; None for today's own settings.
        wins: Pairs in which this was better.
        pairs: Pairs.
        chance: Probability that it is better, at most 1 − 2⁻ⁿ.
        runs: Runs.
        failed: Runs that diverged before, or never learnt.
        seconds: Updates × seconds per update of one run alone.
    """

    samples: int
    updates: int
    metric: Estimate
    difference: Estimate | None
    wins: int
    pairs: int
    chance: float
    runs: int
    failed: int
    seconds: Estimate


@dataclass(frozen=True)
class Compared:
    """One setting of the grid.

    Attributes:
        setting: Its batch size and learning rate; the id of today's is ``today``.
        at_samples: At as many samples as today's.
        at_updates: At as many updates as today's, or None where that would take too long.
        seconds_per_update: One run alone, data loading included; of a schedule the mean over the
            updates at equal samples.
    """

    setting: Setting
    at_samples: Reading
    at_updates: Reading | None
    seconds_per_update: Estimate

    def reading(self, kind: str) -> Reading | None:
        """``samples`` or ``updates``."""
        return self.at_samples if kind == "samples" else self.at_updates


COMPARED = (
    Text("setting", "設定"),
    Text("metric (90 %)", "指標（90%の範囲）"),
    Text("against today (90 %)", "現在との差（90%の範囲）"),
    Text("failed", "失敗"),
    Text("time (90 %)", "時間（90%の範囲）"),
)
"""Column titles of a comparison."""

KINDS = {
    "samples": Text("At equal samples", "同じデータ量で"),
    "updates": Text("At equal updates", "同じ更新回数で"),
}


@dataclass(frozen=True)
class CompareReport:
    """A grid of settings, each against today's.

    Attributes:
        task: Name.
        unit: What an example is called, in the plural.
        metric: The metric, on validation data.
        samples: Samples of the first comparison.
        updates: Updates of the second: those of today's settings in ``samples``.
        seeds: Seeds of the repeats.
        train_examples: N.
        validation_examples: Examples the metric was computed on.
        settings: Today's first, then the grid.
        curves: Median and range of loss and metric along training.
        origin: Where these numbers come from.
        robustness: Setting's id → what was measured of it beside today's, if that was asked for.
        features: Setting's id → the internal features its models need beside today's, if that was
            asked for.
    """

    task: str
    unit: str
    metric: MetricInfo
    samples: int
    updates: int
    seeds: tuple[int, ...]
    train_examples: int
    validation_examples: int
    settings: tuple[Compared, ...]
    curves: tuple[CurvePoint, ...]
    origin: Origin
    robustness: dict[str, Robustness] = dataclasses.field(default_factory=dict)
    features: dict[str, FeatureUse] = dataclasses.field(default_factory=dict)

    @property
    def today(self) -> Setting:
        """Today's settings."""
        return self.settings[0].setting

    def said(self) -> tuple[Text, ...]:
        """What is left out of the comparison at equal updates."""
        left_out = {o.setting.batch_size for o in self.settings if o.at_updates is None}
        needed = {size: self.equal_updates(size) for size in left_out}
        return tuple(
            say(
                "Batch size {b} is not compared at equal updates: {u} updates of it take {x} "
                "times today's samples.",
                "バッチサイズ{b}は同じ更新回数での比較から外しました：{u}回の更新には現在の{x}倍の"
                "データが必要です。",
                b=names.value("batch_size", size),
                u=formats.count(self.updates),
                x=formats.number(samples / self.samples),
            )
            for size, samples in sorted(needed.items(), key=lambda pair: pair[1])
        )

    def equal_updates(self, batch_size: int | str) -> int:
        """Samples for as many updates as today's."""
        return batch_schedule(batch_size).resolve(self.train_examples).drawn(self.updates)

    def better(self, kind: str) -> tuple[Compared, ...]:
        """Settings whose whole range is on the better side of today's, best first."""
        sign = 1 if self.metric.maximise else -1
        found = []
        for one in self.settings[1:]:
            reading = one.reading(kind)
            gap = None if reading is None else reading.difference
            if gap is not None and (gap.low > 0 if sign > 0 else gap.high < 0):
                found.append((sign * gap.value, one))
        return tuple(one for _, one in sorted(found, key=lambda pair: -pair[0]))

    def answer(self, kind: str) -> Text:
        """What beats today's settings at equal samples or updates, or that nothing does."""
        found = self.better(kind)
        if not found:
            return say(
                "{k}, no setting is clearly better than today's.",
                "{k}比べると、現在の設定よりはっきり良いものはありませんでした。",
                k=KINDS[kind],
            )
        reading = found[0].reading(kind)
        assert reading is not None
        assert reading.difference is not None
        return say(
            "{k}, {s} did best: {m} {v}, {d} against today's.",
            "{k}比べると、{s}が最も良く、{m}は{v}でした（現在との差{d}）。",
            k=KINDS[kind],
            s=names.setting(found[0].setting),
            m=names.metric(self.metric),
            v=formats.metric_value(reading.metric.value, self.metric),
            d=difference(reading.difference, self.metric),
        )

    def __str__(self) -> str:
        lines = [
            f"{self.task}: {len(self.settings)} settings, {len(self.seeds)} seeds each, "
            f"{plain(names.metric(self.metric).en)} on {self.validation_examples:,} validation "
            f"{self.unit}"
        ]
        for kind, count in (("samples", self.samples), ("updates", self.updates)):
            lines += ["", f"{KINDS[kind].en} ({count:,}):", self._table(kind)]
        if self.robustness:
            cells = [[plain(text.en) for text in row] for row in self.robust_rows()]
            head = [plain(text.en) for text in robust_head(self.metric)]
            lines += ["", "With noise or worse data, at equal samples:", table(head, cells)]
            lines += [plain(t.en) for t in meaning(next(iter(self.robustness.values())))]
        if self.features:
            cells = [[plain(text.en) for text in row] for row in self.feature_rows()]
            head = [plain(text.en) for text in FEATURE_HEAD]
            title = plain(self.features_title().en)
            lines += ["", f"{title}:", table(head, cells), plain(FEWER.en)]
        told = [*map(self.answer, KINDS), *self.said(), chance_note(len(self.settings) - 1)]
        lines += ["", *(plain(text.en) for text in told)]
        return "\n".join([*lines, *_assumed(self.origin)])

    def html(self, language: Language | None = None) -> str:
        """The answers and both tables, for a notebook.

        Args:
            language: ``en`` or ``ja``; what the locale says if left out.
        """
        chosen = language or usual_language()
        parts = []
        for kind in KINDS:
            parts.append(_html.paragraph(plain(self.answer(kind).of(chosen)), strong=True))
            parts.append(_html.table(*self._cells(kind, chosen)))
        told = [*self.said(), chance_note(len(self.settings) - 1)]
        parts += [_html.paragraph(plain(text.of(chosen))) for text in told]
        return f'<div lang="{chosen}">{"".join(parts)}</div>'

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.html()

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython, which would write the whole record beside it."""
        return _html.bundle(self._repr_html_(), str(self))

    def robust_rows(self) -> list[tuple[Text, ...]]:
        """The cells of each test and setting: both, metric, its change, and against today's."""
        found: list[tuple[Text, ...]] = []
        known = {one.setting.id: one.setting for one in self.settings}
        shares = MetricInfo("disagreement", False, "%")
        first = next(iter(self.robustness.values()))
        for i, row in enumerate(first.rows):
            test = disturbance(row.kind, row.size, row.unit)
            mine = _metric(row.today, self.metric), difference(row.today_change, self.metric)
            found.append((test, Text("today", "現在"), *mine, Text("–", "–")))
            for name, other in self.robustness.items():
                if i < len(other.rows):
                    found.append(_robust_cells(test, known[name], other.rows[i], self.metric))
        for name, other in self.robustness.items():
            if other.repeats is not None:
                test, none = DISAGREE, Text("–", "–")
                if not found or found[-1][0] is not DISAGREE:
                    mine = _metric(other.repeats.today, shares)
                    found.append((test, Text("today", "現在"), mine, none, none))
                gap = difference(other.repeats.difference, shares)
                value = _metric(other.repeats.recommended, shares)
                found.append((test, names.setting(known[name]), value, none, gap))
        return found

    def features_title(self) -> Text:
        """Which features are counted."""
        first = next(iter(self.features.values()))
        return say(
            "Internal features that decisions rest on, of the {n} of `{l}`, at equal samples",
            "判断の根拠になっている特徴の数（`{l}`の{n}個のうち、同じデータ量で）",
            n=first.units,
            l=verbatim(first.layer),
        )

    def feature_rows(self) -> list[tuple[Text, ...]]:
        """The cells of each setting: features needed, at random, against today, who takes part."""
        known = {one.setting.id: one.setting for one in self.settings}
        first = next(iter(self.features.values()))
        today = say("{n} (today)", "{n}（現在）", n=names.setting(known["today"]))
        rows = [(today, *_feature_cells(first.today), Text("–", "–"))]
        for name, one in self.features.items():
            gap = Text("–", "–") if one.difference is None else signed(one.difference)
            rows.append((names.setting(known[name]), *_feature_cells(one.recommended), gap))
        return rows

    def _table(self, kind: str) -> str:
        return table(*self._cells(kind, "en"))

    def _cells(self, kind: str, language: Language) -> tuple[list[str], list[list[str]]]:
        """Column titles and rows of one comparison."""
        readings = [(one.setting, one.reading(kind)) for one in self.settings]
        rows = [row(setting, reading, self.metric) for setting, reading in readings if reading]
        head = [plain(text.of(language)) for text in COMPARED]
        return head, [[plain(text.of(language)) for text in cells] for cells in rows]


def row(setting: Setting, reading: Reading, metric: MetricInfo) -> tuple[Text, ...]:
    """The cells of one setting: itself, metric, difference, failed runs, time.

    Args:
        setting: The setting.
        reading: What was read.
        metric: The metric.
    """
    name = names.setting(setting)
    gap = reading.difference
    return (
        say("{n} (today)", "{n}（現在）", n=name) if setting.id == "today" else name,
        _metric(reading.metric, metric),
        Text("–", "–") if gap is None else difference(gap, metric),
        say("{a} of {b}", "{b}回中{a}回", a=reading.failed, b=reading.runs),
        _range(reading.seconds, formats.duration),
    )


def difference(gap: Estimate, metric: MetricInfo) -> Text:
    """A difference of the metric with its range.

    Args:
        gap: Setting − today.
        metric: The metric.

    Example:
        >>> difference(Estimate(0.02, 0.01, 0.03, n=3), MetricInfo("accuracy", True, "%")).en
        '+2.0 points (+1.0 to +3.0)'
    """
    unit = Text(" points", "ポイント") if metric.unit == "%" else Text("", "")
    value, low, high = (_signed(x, metric) for x in (gap.value, gap.low, gap.high))
    if math.isnan(gap.low):
        return say("{v}{u} (too few pairs for a range)", "{v}{u}（範囲は未定）", v=value, u=unit)
    return say("{v}{u} ({a} to {b})", "{v}{u}（{a}～{b}）", v=value, u=unit, a=low, b=high)


DISAGREE = Text(
    "examples on which two trainings disagree", "2回の学習で判断が食い違うデータの割合"
)


def robust_head(metric: MetricInfo) -> tuple[Text, ...]:
    """Column titles for :meth:`CompareReport.robust_rows`.

    Args:
        metric: The metric.
    """
    return (
        Text("test", "試験"),
        Text("setting", "設定"),
        say("{m} (90 %)", "{m}（90%）", m=names.metric(metric)),
        Text("change by the test (90 %)", "試験による変化（90%）"),
        Text("against today (90 %)", "現在との差（90%）"),
    )


def _robust_cells(
    test: Text, setting: Setting, row: RobustRow, metric: MetricInfo
) -> tuple[Text, ...]:
    return (
        test,
        names.setting(setting),
        _metric(row.recommended, metric),
        difference(row.recommended_change, metric),
        difference(row.difference, metric),
    )


FEATURE_HEAD = (
    Text("setting", "設定"),
    Text("features needed (90 %)", "必要な特徴の数（90%）"),
    Text("at random (90 %)", "無作為に選ぶと（90%）"),
    Text("units that take part (90 %)", "働くユニット（90%）"),
    Text("weights that take part (90 %)", "働く重み（90%）"),
    Text("sharpness (90 %)", "鋭さ（90%）"),
    Text("needed, against today (90 %)", "必要な数の現在との差（90%）"),
)
FEWER = Text(
    "Fewer is not better: it is fewer to look at.",
    "少ないほど良いという意味ではなく、目で確認する数が減るというだけです。",
)


def _feature_cells(side: FeatureSide | None) -> tuple[Text, ...]:
    none = Text("–", "–")
    if side is None:
        return (none,) * 5
    active, weights = (none if e is None else share(e) for e in (side.active, side.weights))
    sharp = none if side.sharpness is None else ranged(side.sharpness)
    return span(side.needed), span(side.needed_random), active, weights, sharp


def chance_note(count: int) -> Text:
    """That each range stands for itself.

    Args:
        count: Settings compared with today's.
    """
    return say(
        "Each 90 % range stands for itself: of {n} settings equal to today's, about {k} would "
        "look better by chance, and as many worse. To choose, use `batchlab advise`, which proves "
        "its choice on fresh seeds.",
        "90%の範囲は一つずつのものです。現在と同等の設定が{n}通りあれば、偶然だけで約{k}通りが"
        "良く（同じだけ悪く）見えます。選ぶには、新しいシードで確かめる`batchlab advise`を"
        "使ってください。",
        n=count,
        k=formats.number(0.05 * count),
    )


def setting_of(config: RunConfig, id_: str, batch_size: int | str, rate: float) -> Setting:
    """A resolved recipe with another batch size and learning rate, as a flat record.

    Args:
        config: The recipe.
        id_: Its short name.
        batch_size: Examples, or a schedule; the micro-batch is that of its largest size.
        rate: Peak learning rate; of a schedule, at its first size.

    Example:
        >>> config = RunConfig(rule="sgd", samples=100).resolved(examples=100)
        >>> setting_of(config, "today", 32, 0.1).samples
        100
    """
    known: dict[str, Any] = {
        f.name: getattr(config, f.name)
        for f in dataclasses.fields(Setting)
        if hasattr(config, f.name)
    }
    micro = max(sizes_of(batch_size))
    known.update(id=id_, batch_size=batch_size, learning_rate=rate, micro_batch_size=micro)
    return Setting(**known, accum_steps=1, world_size=1)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell.

    Args:
        head: Column titles.
        rows: Cells.

    Example:
        >>> print(table(("a", "b"), [("1", "22")]))
          a  b
          1  22
    """
    every = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in every) for i in range(len(head))]
    padded = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in every]
    return "\n".join(f"  {line}".rstrip() for line in padded)


def _estimate(found: Estimate | None, times: float = 1.0) -> str:
    if found is None:
        return "–"
    value, low, high = (formats.number(times * x, 3) for x in (found.value, found.low, found.high))
    return value if math.isnan(found.low) else f"{value} ({low} to {high})"


def _metric(found: Estimate, metric: MetricInfo) -> Text:
    if math.isinf(found.value):
        return Text("failed", "失敗")
    value, low, high = (
        formats.metric_value(x, metric) for x in (found.value, found.low, found.high)
    )
    if math.isnan(found.low):
        return value
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _range(found: Estimate, write: Callable[[float], Text]) -> Text:
    value, low, high = (write(x) for x in (found.value, found.low, found.high))
    if math.isnan(found.low):
        return value
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _signed(value: float, metric: MetricInfo) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else f"{formats.MINUS}∞"
    return "–" if math.isnan(value) else formats.metric_signed(value, metric)


def _assumed(origin: Origin) -> list[str]:
    return [f"assumed: {sentence}" for sentence in origin.assumptions]
