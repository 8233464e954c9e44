"""What ``compare --reuse`` finds: its record, and what it says in both languages."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from batchlab import _html
from batchlab._text import Text, plain, same, say
from batchlab.advisor.judge import inverted
from batchlab.advisor.record import MetricInfo, Setting
from batchlab.report import formats, names
from batchlab.report.findings import Origin, _assumed, _metric, _range, difference, table
from batchlab.types import Estimate

KINDS = {
    "fresh": Text(
        "At equal fresh samples (k× epochs: the same labelled examples, drawn k times as often)",
        "新しいデータの量をそろえて（エポックk倍：同じラベル付きデータをk倍読み込む）",
    ),
    "updates": Text("At equal updates", "更新回数をそろえて"),
    "time": Text("At equal time", "時間をそろえて"),
}
HEAD = (
    Text("setting", "設定"),
    Text("learning rate", "学習率"),
    Text("samples drawn", "読み込んだデータ数"),
    Text("computed", "計算したデータ数"),
    Text("updates", "更新回数"),
    Text("metric (90 %)", "指標（90%）"),
    Text("against today (90 %)", "現在との差（90%）"),
    Text("training − validation (90 %)", "学習−検証の差（90%）"),
    Text("failed", "失敗"),
    Text("time (90 %)", "時間（90%）"),
)
REACHED_HEAD = (
    Text("setting", "設定"),
    Text("learning rate", "学習率"),
    Text("samples drawn (90 %)", "読み込んだデータ数（90%）"),
    Text("computed (90 %)", "計算したデータ数（90%）"),
    Text("updates (90 %)", "更新回数（90%）"),
    Text("time (90 %)", "時間（90%）"),
    Text("cost (90 %)", "費用（90%）"),
    Text("arrived", "到達"),
)
LINE_HEAD = (
    Text("re-use", "再利用"),
    Text("against", "比較相手"),
    Text("fresh samples saved (90 %)", "新しいデータの節約（90%）"),
    Text("computing saved (90 %)", "計算の節約（90%）"),
    Text("rival's cost / its own, at your price (90 %)", "指定の価格での負担の比（相手／再利用）"),
    Text("pays from this price on (90 %)", "採算が合う価格（90%）"),
    Text("the same in reading time", "読み込み時間に直すと"),
)
BUSY = 2.0
"""From this ratio of the slowest timed block to the fastest on, the computer is called busy."""
LABEL_HEAD = (
    Text("labelled examples", "ラベル付きデータ数"),
    Text("setting", "設定"),
    Text("learning rate", "学習率"),
    Text("metric (90 %)", "指標（90%）"),
    Text("training − validation (90 %)", "学習−検証の差（90%）"),
)


@dataclass(frozen=True)
class ReuseRow:
    """One way to train, at the end of a training of its own.

    Attributes:
        kinds: In which readings it stands: ``fresh``, ``updates``, ``time``.
        batch_size: Examples.
        reuse: Updates on each batch.
        times: Batch size / today's.
        epochs: Length / today's, for today's batch used once; else 1.
        learning_rate: The best of those tried, on the seeds that choose.
        edge: Whether that was the smallest or the largest tried.
        samples: Drawn.
        processed: Examples computed: samples × re-use.
        updates: Done.
        seconds: Computing and reading of one run alone.
        metric: On validation data, mean of the last three evaluations.
        difference: This − today, paired by seed; None for today's own.
        gap: Metric on training data − on validation data at the end; None if every run diverged.
        runs: Fresh repeats.
        failed: Runs that diverged.
    """

    kinds: tuple[str, ...]
    batch_size: int
    reuse: int
    times: int
    epochs: int
    learning_rate: float
    edge: bool
    samples: int
    processed: int
    updates: int
    seconds: Estimate
    metric: Estimate
    difference: Estimate | None
    gap: Estimate | None
    runs: int
    failed: int


@dataclass(frozen=True)
class Reached:
    """What one way to train takes to the target.

    Attributes:
        batch_size: Examples.
        reuse: Updates on each batch.
        times: Batch size / today's.
        learning_rate: Quickest to the target on the seeds that choose.
        length: Samples of these trainings, likewise chosen.
        samples: Drawn to the target; infinite if never.
        processed: Computed.
        updates: Done.
        seconds: Computing and reading.
        cost: In the currency, or None.
        arrived: Runs that reached it.
        runs: Fresh repeats.
        edge: Whether the learning rate was the smallest or the largest tried.
    """

    batch_size: int
    reuse: int
    times: int
    learning_rate: float
    length: int
    samples: Estimate
    processed: Estimate
    updates: Estimate
    seconds: Estimate
    cost: Estimate | None
    arrived: int
    runs: int
    edge: bool = False


@dataclass(frozen=True)
class Line:
    """A boundary in the plane of costs.

    Attributes:
        reuse: k.
        rival: Batch size of the rival / today's; 1 is today's training, with one update a batch.
        boundary: Price of a fresh sample / price of computing an example from which on k pays.
        fresh: Fresh samples of the rival / of k.
        computing: Computing of the rival / of k.
        here: Cost of the rival / of k at the user's price.
    """

    reuse: int
    rival: int
    boundary: Estimate
    fresh: Estimate
    computing: Estimate
    here: Estimate


@dataclass(frozen=True)
class Labelled:
    """One way to train on so many labelled examples.

    Attributes:
        labels: Examples; each seed draws its own.
        reuse: Updates on each batch.
        epochs: Passes / today's.
        learning_rate: Best on the seeds that choose.
        metric: On validation data at the end.
        gap: Metric on the labelled examples − on validation data.
        edge: Whether the learning rate was the smallest or the largest tried.
    """

    labels: int
    reuse: int
    epochs: int
    learning_rate: float
    metric: Estimate
    gap: Estimate | None
    edge: bool = False


@dataclass(frozen=True)
class Saved:
    """Labels that re-use saves.

    Attributes:
        reuse: k.
        epochs: Passes of the rival / today's: 1 is today's training, k has as many updates as k.
        rival: Labels the rival needs for the level.
        mine: Labels that k needs.
        ratio: Rival / this, paired by seed; above 1 where labels are saved.
    """

    reuse: int
    epochs: int
    rival: Estimate
    mine: Estimate
    ratio: Estimate


@dataclass(frozen=True)
class Labels:
    """The metric over the number of labelled examples.

    Attributes:
        level: Metric at which labels are compared: what today's training reaches with the most of
            them, on the seeds that choose.
        counts: Numbers of labelled examples, ascending.
        rows: What was measured at each.
        saved: Every re-use against its rivals.
    """

    level: float
    counts: tuple[int, ...]
    rows: tuple[Labelled, ...]
    saved: tuple[Saved, ...]


@dataclass(frozen=True)
class ReuseReport:
    """Re-use of batches against k epochs and larger batches.

    Attributes:
        task: Name.
        unit: What an example is called, in the plural.
        metric: The metric, on validation data.
        today: Today's settings, at the learning rate that was best.
        train_examples: N.
        validation_examples: Examples the metric was computed on.
        seeds: Fresh ones, which judge.
        choosing: Those that choose learning rates and the target.
        factors: k.
        rows: Every training that was compared; today's first.
        epochs: For every k, its metric − that of k epochs: equal updates over the same labelled
            examples; None where the training is shorter than one pass.
        target: Metric that counts as trained.
        reached: What each takes to it.
        lines: The boundaries.
        seconds_per_example: Of computing one example at today's batch size.
        loading: Seconds that reading a sample took on this computer.
        given: Seconds that reading takes beside, as given.
        currency: Of the prices, or None without.
        per_hour: Price of an hour.
        per_sample: Price of a fresh sample.
        price: The user's price of a fresh sample / of computing an example.
        labels: The curve over labelled examples, or None.
        origin: Where these numbers come from.
        computing: Seconds of computing one example, with the range of timing it; None in older
            results.
        busy: The slowest timed block / the fastest, at today's batch size.
        untrained: Whether models were at the target before they were trained.
        left_out: k of which equal updates take too many samples to be trained.
    """

    task: str
    unit: str
    metric: MetricInfo
    today: Setting
    train_examples: int
    validation_examples: int
    seeds: tuple[int, ...]
    choosing: tuple[int, ...]
    factors: tuple[int, ...]
    rows: tuple[ReuseRow, ...]
    epochs: tuple[Estimate | None, ...]
    target: float
    reached: tuple[Reached, ...]
    lines: tuple[Line, ...]
    seconds_per_example: float
    loading: float
    given: float
    currency: str | None
    per_hour: float
    per_sample: float
    price: float
    labels: Labels | None
    origin: Origin
    computing: Estimate | None = None
    busy: float = 1.0
    untrained: bool = False
    left_out: tuple[int, ...] = ()

    def pays(self, k: int) -> bool:
        """Whether k was shown to be cheaper than every rival at the user's price."""
        here = [line.here.low > 1 for line in self.lines if line.reuse == k]
        return bool(here) and all(here)

    def lost(self, k: int) -> bool:
        """Whether k was shown to be dearer than a rival at the user's price."""
        return any(line.here.high < 1 for line in self.lines if line.reuse == k)

    def answer(self) -> Text:
        """Whether re-use pays at the user's price, or that nothing was shown."""
        paying = [k for k in self.factors if self.pays(k)]
        here = self.told_price()
        if paying:
            best = max(paying, key=lambda k: self._against_today(k).here.value)
            ratio = self._against_today(best).here
            return say(
                "Re-use pays: with {k} updates on each batch the target costs {r} less than "
                "today's training ({p}).",
                "再利用は採算が合います：1バッチ{k}回の更新で、目標までの負担が現在の学習より{r}"
                "少なくなります（{p}）。",
                k=best,
                r=_less(ratio),
                p=here,
            )
        if all(self.lost(k) for k in self.factors):
            return say(
                "Re-use does not pay ({p}).",
                "再利用は採算が合いません（{p}）。",
                p=here,
            )
        came, runs = (
            sum(each) for each in zip(*((r.arrived, r.runs) for r in self.reached), strict=True)
        )
        if came < runs:
            return say(
                "It was not shown that re-use pays ({p}): only {a} of {b} trainings came to {m} "
                "{t}. Longer ones (`--samples`), more `--seeds` or validation data would tell.",
                "再利用の採算が合うとは言えません（{p}）：{b}回の学習のうち{m}{t}に達したのは{a}回だけ"
                "でした。学習を長くする（`--samples`）、`--seeds`または検証データを増やすと判断できます。",
                p=here,
                a=came,
                b=runs,
                m=names.metric(self.metric),
                t=formats.metric_value(self.target, self.metric),
            )
        return say(
            "It was not shown that re-use pays ({p}).",
            "再利用の採算が合うとは言えません（{p}）。",
            p=here,
        )

    def _against_today(self, k: int) -> Line:
        return next(line for line in self.lines if (line.reuse, line.rival) == (k, 1))

    def told_price(self) -> Text:
        """The price of a fresh sample at which the answer holds."""
        if math.isinf(self.price):
            return Text("only fresh samples cost", "費用は新しいデータだけ")
        return say(
            "a fresh sample costs as much as computing {x} examples",
            "新しいデータ1件の負担は計算{x}件分",
            x=self._price_range(),
        )

    def _price_range(self) -> Text:
        """The price, with the range that timing one example leaves."""
        value, each = same(formats.number(self.price)), self.computing
        if each is None or not self.price or not math.isfinite(each.low + each.high):
            return value
        low, high = (self.price * each.value / end for end in (each.high, each.low))
        ends = formats.number(low), formats.number(high)
        return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=ends[0], b=ends[1])

    def said(self) -> tuple[Text, ...]:
        """How it was measured, what follows, and what does not."""
        told = [*self._cautions(), *(self._boundary(k) for k in self.factors)]
        told += [
            self._epochs(k, found)
            for k, found in zip(self.factors, self.epochs, strict=True)
            if found is not None
        ]
        told += self._labels()
        told += [self._method(), self._counted()]
        all_rows = [*self.rows, *self.reached, *(self.labels.rows if self.labels else ())]
        edges = [row for row in all_rows if row.edge]
        if edges:
            told.append(
                say(
                    "In {n} of {m} rows the best learning rate was the smallest or the "
                    "largest tried: a better one may lie beyond.",
                    "{m}行のうち{n}行では、試した学習率のうち端のものが最良でした。さらに良い値が外側に"
                    "あるかもしれません。",
                    n=len(edges),
                    m=len(all_rows),
                )
            )
        return tuple(told)

    def _cautions(self) -> list[Text]:
        """What stands between the answer and the tables, and what makes either doubtful."""
        told = [self._ahead()] if not any(map(self.pays, self.factors)) else []
        if self.untrained:
            told.append(
                say(
                    "**The target, {m} {t}, is no more than chance:** untrained models are there. "
                    "Train longer (`--samples`), or with a recipe that learns.",
                    "**目標の{m}{t}は偶然の水準です：**学習前のモデルでも達しています。学習を長くする"
                    "（`--samples`）か、学習の進む設定で試してください。",
                    m=names.metric(self.metric),
                    t=formats.metric_value(self.target, self.metric),
                )
            )
        if self.busy > BUSY:
            told.append(
                say(
                    "The computer was busy while it was timed: one example took up to {x} times "
                    "as long in one block as in another. Prices and times are known to their "
                    "ranges only; repeat it on an idle computer.",
                    "時間の計測中、計算機は別の処理もしていました：1件の計算時間に最大{x}倍の差があり"
                    "ます。価格と時間は範囲の精度でしかわかりません。空いている計算機で測り直してください。",
                    x=formats.ratio(self.busy),
                )
            )
        if self.left_out:
            told.append(
                say(
                    "Not trained, for k = {k}: k epochs, and a batch k times the size at as many "
                    "updates as today; they draw k times the samples.",
                    "学習していないもの（k＝{k}）：エポックk倍と、更新回数をそろえたバッチk倍の学習"
                    "（読み込むデータがk倍になるため）。",
                    k=", ".join(map(str, self.left_out)),
                )
            )
        return [text for text in told if text.en]

    def _ahead(self) -> Text:
        """That re-use learns more from as many fresh samples, where it does and yet does not
        pay.
        """
        better = 1 if self.metric.maximise else -1
        ahead = [
            (row, row.difference)
            for row in self.rows
            if row.reuse > 1 and "fresh" in row.kinds and row.difference is not None
            if min(better * row.difference.low, better * row.difference.high) > 0
        ]
        if not ahead:
            return Text("", "")
        row, gap = max(ahead, key=lambda one: better * one[1].value)
        return say(
            "That is about the price of reaching the target. After as many fresh samples {k} "
            "updates on each batch do end better than today, by {d}, for {k} times the computing.",
            "これは目標に達するまでの負担についての結論です。新しいデータの量をそろえた学習の最後では、"
            "1バッチ{k}回の更新のほうが現在より良くなります（差{d}、計算は{k}倍）。",
            k=row.reuse,
            d=difference(gap, self.metric),
        )

    def _boundary(self, k: int) -> Text:
        """From which price on k pays, against the hardest of its rivals."""
        lines = [line for line in self.lines if line.reuse == k]
        hardest = max(lines, key=lambda line: (line.boundary.high, line.boundary.value))
        value, low, high = (
            max(ends) for ends in zip(*(_ends(line.boundary) for line in lines), strict=True)
        )
        every = replace(hardest.boundary, value=value, low=low, high=high)
        if math.isinf(hardest.boundary.high):
            return say(
                "{k} updates on each batch: no price of a fresh sample at which that pays was "
                "shown against {a}; fresh samples drawn / those of that rival: {f}.",
                "1バッチ{k}回の更新：{a}に対し、採算が合うと言える新しいデータの価格はありません"
                "でした（新しいデータの量の比（再利用／相手）：{f}）。",
                k=k,
                a=rival(hardest),
                f=_times(inverted(hardest.fresh)),
            )
        if hardest.boundary.high == 0:
            return say(
                "{k} updates on each batch pay at any price of a fresh sample.",
                "1バッチ{k}回の更新は、新しいデータの価格によらず採算が合います。",
                k=k,
            )
        return say(
            "{k} updates on each batch pay against every rival once a fresh sample costs as "
            "much as computing {b} examples; on this computer, {s} of reading.",
            "1バッチ{k}回の更新は、新しいデータ1件の負担が計算{b}件分以上になると、どの相手に対しても採算が合います"
            "（このパソコンでは読み込み時間{s}）。",
            k=k,
            b=price_text(every),
            s=formats.duration(every.value * self.seconds_per_example),
        )

    def _epochs(self, k: int, found: Estimate) -> Text:
        return say(
            "{k} updates on each batch against {k} epochs, with as many updates over the same "
            "labelled examples: {d}.",
            "1バッチ{k}回の更新と{k}倍のエポック（更新回数とラベル付きデータは同じ）との差：{d}。",
            k=k,
            d=difference(found, self.metric),
        )

    def _labels(self) -> list[Text]:
        if self.labels is None:
            return []
        level = formats.metric_value(self.labels.level, self.metric)
        return [_saved(one, level) for one in self.labels.saved]

    def _method(self) -> Text:
        return say(
            "Learning rates and the target were chosen on {c} seeds; everything shown is of {n} "
            "fresh ones, with 90 % ranges paired by seed, what it takes to the target for all "
            "numbers of uses together. The target: {m} {t}, which at least four in five of "
            "today's choosing runs reach, in trainings of today's length.",
            "学習率と目標は{c}個のシードで選び、表示はすべて別の{n}個のシードによるものです（90%の範囲、"
            "シードごとの対。目標までの負担は、すべての再利用回数で同時に成り立つ範囲）。目標：{m}{t}"
            "（選定時の現在の学習の5回中4回以上が達する値。学習の長さは現在と同じ）。",
            c=len(self.choosing),
            n=len(self.seeds),
            m=names.metric(self.metric),
            t=formats.metric_value(self.target, self.metric),
        )

    def _counted(self) -> Text:
        return say(
            "A sample is fresh each time it is drawn, in later passes too; drawing it takes {r} "
            "({g} of that given, not measured), computing it once {c}. Reading and computing are "
            "added: where your reader works while the model computes, re-use gains less. Where "
            "labels and not reading cost, the number of labelled examples counts (`--labels`).",
            "データは2周目以降も読み込むたびに「新しい」と数えます。1件の読み込みは{r}（うち{g}は"
            "指定値で、実測ではありません）、計算は{c}です。読み込みと計算の時間は足し合わせています："
            "並行して読み込む場合、再利用の利点は小さくなります。費用が読み込みでなくラベル付けに"
            "かかる場合は、ラベル付きデータ数で判断してください（`--labels`）。",
            r=formats.duration(self.loading + self.given),
            g=formats.duration(self.given),
            c=formats.duration(self.seconds_per_example),
        )

    def table_rows(self, kind: str) -> tuple[tuple[Text, ...], ...]:
        """The cells of one reading: ``fresh``, ``updates`` or ``time``."""
        none = Text("–", "–")
        return tuple(
            (
                way(row.reuse, row.times, row.epochs),
                same(formats.rate(row.learning_rate)),
                same(formats.count(row.samples)),
                same(formats.count(row.processed)),
                same(formats.count(row.updates)),
                _metric(row.metric, self.metric),
                none if row.difference is None else difference(row.difference, self.metric),
                none if row.gap is None else difference(row.gap, self.metric),
                say("{a} of {b}", "{b}回中{a}回", a=row.failed, b=row.runs),
                _range(row.seconds, formats.duration),
            )
            for row in self.rows
            if kind in row.kinds
        )

    def reached_rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of what each takes to the target."""
        return tuple(
            (
                way(row.reuse, row.times, 1),
                same(formats.rate(row.learning_rate)),
                *(_range(one, _count) for one in (row.samples, row.processed, row.updates)),
                _range(row.seconds, formats.duration),
                Text("–", "–")
                if row.cost is None
                else _range(row.cost, lambda x: formats.money(x, self.currency or "")),
                say("{a} of {b}", "{b}回中{a}回", a=row.arrived, b=row.runs),
            )
            for row in self.reached
        )

    def line_rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of the boundaries."""
        return tuple(
            (
                way(line.reuse, 1, 1),
                rival(line),
                _times(line.fresh),
                _times(line.computing),
                _times(line.here),
                price_text(line.boundary),
                _seconds(line.boundary.value * self.seconds_per_example),
            )
            for line in self.lines
        )

    def label_rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of the curve over labelled examples."""
        return tuple(
            (
                same(formats.count(row.labels)),
                way(row.reuse, 1, row.epochs),
                same(formats.rate(row.learning_rate)),
                _metric(row.metric, self.metric),
                Text("–", "–") if row.gap is None else difference(row.gap, self.metric),
            )
            for row in (self.labels.rows if self.labels else ())
        )

    def tables(self) -> list[tuple[Text, tuple[Text, ...], tuple[tuple[Text, ...], ...]]]:
        """Caption, column titles and rows of everything, in order."""
        found = [
            (
                Text(
                    "From which price of a fresh sample on re-use pays, in computed examples",
                    "再利用の採算が合う新しいデータの価格（計算件数に換算）",
                ),
                LINE_HEAD,
                self.line_rows(),
            ),
            (Text("To the target", "目標まで"), REACHED_HEAD, self.reached_rows()),
            *((words, HEAD, self.table_rows(kind)) for kind, words in KINDS.items()),
        ]
        if self.labels is not None:
            caption = Text("With few labelled examples", "ラベル付きデータが少ないとき")
            found.append((caption, LABEL_HEAD, self.label_rows()))
        return found

    def __str__(self) -> str:
        lines = [
            f"{self.task}: {', '.join(map(str, self.factors))} updates on each batch, "
            f"{len(self.seeds)} fresh seeds, {plain(names.metric(self.metric).en)} on "
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


def way(reuse: int, times: int, epochs: int) -> Text:
    """What one way to train is called.

    Args:
        reuse: Updates on each batch.
        times: Batch size / today's.
        epochs: Length / today's.

    Example:
        >>> way(2, 1, 1).en, way(1, 4, 1).en, way(1, 1, 2).en, way(1, 1, 1).en
        ('2 updates a batch', 'batch 4×', '2× epochs', 'today')
    """
    if reuse > 1:
        return say("{k} updates a batch", "1バッチ{k}回更新", k=reuse)
    if times > 1:
        return say("batch {k}×", "バッチ{k}倍", k=times)
    if epochs > 1:
        return say("{k}× epochs", "エポック{k}倍", k=epochs)
    return Text("today", "現在")


def rival(line: Line) -> Text:
    """Against what a boundary is drawn.

    Args:
        line: The boundary.
    """
    return way(1, line.rival, 1)


def price_text(found: Estimate) -> Text:
    """A boundary with its range.

    Args:
        found: In computed examples.

    Example:
        >>> price_text(Estimate(2.0, 1.5, float("inf"), n=5)).en
        '2 (at least 1.5)'
    """
    if math.isinf(found.value):
        return (
            Text("at none", "なし")
            if math.isinf(found.low)
            else say("not shown (at least {a})", "未確認（{a}以上）", a=formats.number(found.low))
        )
    value, low, high = (formats.number(x) for x in (found.value, found.low, found.high))
    if math.isinf(found.high):
        return say("{v} (at least {a})", "{v}（{a}以上）", v=value, a=low)
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _saved(one: Saved, level: Text) -> Text:
    """How many labels fewer, or that none are saved."""
    against = way(1, 1, one.epochs)
    if one.ratio.low > 1:
        return say(
            "Labels: {k} updates on each batch need {r} times fewer labelled examples than {a} "
            "for {l}.",
            "ラベル：{l}に達するのに必要なラベル付きデータは、1バッチ{k}回の更新では{a}の{r}分の1です。",
            k=one.reuse,
            r=_plain(one.ratio),
            a=against,
            l=level,
        )
    if one.ratio.high < 1:
        return say(
            "Labels: none are saved by {k} updates on each batch against {a} for {l}: labels "
            "needed by {a} / by re-use {r}.",
            "ラベル：{l}に達するのに、1バッチ{k}回の更新で{a}よりラベルは節約できません"
            "（必要数の比（{a}／再利用）：{r}）。",
            k=one.reuse,
            a=against,
            l=level,
            r=_times(one.ratio),
        )
    return say(
        "Labels: none are shown to be saved by {k} updates on each batch against {a} for {l} "
        "(labels needed by {a} / by re-use: {r}).",
        "ラベル：{l}に達するのに、1バッチ{k}回の更新で{a}よりラベルを節約できるとは言えません"
        "（必要数の比（{a}／再利用）：{r}）。",
        k=one.reuse,
        a=against,
        l=level,
        r=_times(one.ratio),
    )


def _less(ratio: Estimate) -> Text:
    """By how many per cent a cost is lower."""
    value, low, high = (formats.number(100 * (1 - 1 / x)) for x in _ends(ratio))
    return say("{v} % ({a} to {b} %)", "{v}%（{a}～{b}%）", v=value, a=low, b=high)


def _times(ratio: Estimate) -> Text:
    value, low, high = (formats.number(x, 3) for x in _ends(ratio))
    return say("{v}× ({a} to {b})", "{v}倍（{a}～{b}）", v=value, a=low, b=high)


def _plain(ratio: Estimate) -> Text:
    value, low, high = (formats.number(x, 3) for x in _ends(ratio))
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _ends(found: Estimate) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _count(value: float) -> Text:
    if not math.isfinite(value):
        return same("∞" if value > 0 else "–")
    return same(formats.count(round(value)))


def _seconds(value: float) -> Text:
    return Text("–", "–") if math.isinf(value) else formats.duration(value)
