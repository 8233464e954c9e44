"""What ``critical`` finds: its price, its record, and what it says in both languages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from batchlab import _html
from batchlab._text import Text, join, plain, same, say, verbatim
from batchlab.advisor.record import Setting
from batchlab.measure.critical import Branch, Branching, CriticalPoint, growing
from batchlab.report import formats
from batchlab.report.findings import ORDERS_ONLY, Origin, _assumed, scale_text, table
from batchlab.rules import is_sgd_family
from batchlab.types import Estimate

HEAD = (
    Text("training done", "学習の進み"),
    Text("examples seen", "学習したデータ数"),
    Text("critical batch size (90 %)", "臨界バッチサイズ（90%）"),
    Text("noise scale (90 %)", "ノイズスケール（90%）"),
    Text("critical / noise scale (90 %)", "臨界／ノイズスケール（90%）"),
)
BRANCH_HEAD = (
    Text("training done", "学習の進み"),
    Text("batch size", "バッチサイズ"),
    Text("learning rate", "学習率"),
    Text("loss above today's (90 %)", "損失の増加（検証、90%）"),
    Text("training loss above today's (90 %)", "損失の増加（学習、90%）"),
    Text("shown", "判定"),
    Text("diverged", "発散"),
)
SHOWN = {
    "within": Text("within the margin", "許容内"),
    "above": Text("above it", "許容を超える"),
    "open": Text("not resolved", "定まらず"),
}


DIVERGED = "diverged"
"""Code of a measurement that ended because today's settings did not go on."""


@dataclass(frozen=True)
class CriticalPrice:
    """What a measurement trains and how long that takes.

    Attributes:
        task: Name.
        unit: What an example is called, in the plural.
        plan: What is trained.
        samples: Length of the training.
        seconds: Of each place: the trunk up to it, the noise scale and the branches.
        budget: Seconds, or None.
    """

    task: str
    unit: str
    plan: Branching
    samples: int
    seconds: tuple[float, ...]
    budget: float | None = None

    def __str__(self) -> str:
        plan = self.plan
        sizes = ", ".join(str(factor * plan.batch_size) for factor in (1, *plan.factors))
        places = "1 place" if len(plan.places) == 1 else f"{len(plan.places)} places"
        lines = [
            f"{self.task}: {places}, branches of {plan.window:,} {self.unit} "
            f"with batch sizes {sizes}, {len(plan.seeds)} seeds each"
        ]
        lines += [
            f"  {_share(place, self.samples)} of the training: about {seconds:.0f} s"
            for place, seconds in zip(plan.places, self.seconds, strict=True)
        ]
        lines.append(f"  in all: about {sum(self.seconds):.0f} s")
        if self.budget is not None:
            paid = sum(t <= self.budget for t in itertools.accumulate(self.seconds))
            whole = f"the first {paid} of {len(self.seconds)} places"
            lines.append(f"  the budget of {self.budget:.0f} s pays for {whole}")
        return "\n".join(lines)


@dataclass(frozen=True)
class CriticalReport:
    """The critical batch size along a training with today's settings.

    Attributes:
        task: Name.
        unit: What an example is called, in the plural.
        today: Today's settings.
        train_examples: N.
        validation_examples: Examples the loss was judged on.
        samples: Length of the training.
        batch_size: Today's.
        factors: k of the branches beside 1.
        window: Samples of a branch.
        power: p of the learning rate η·kᵖ.
        seeds: Trunks.
        margin: Share by which a loss may be higher and counts as equal.
        places: Where branches were to leave the trunk.
        points: What was found at each, as far as the budget paid and today's settings lived.
        schedule: The batch schedule that follows.
        origin: Where these numbers come from.
        ended: ``diverged`` where today's settings did before the places that are missing; empty
            where the budget ended.
    """

    task: str
    unit: str
    today: Setting
    train_examples: int
    validation_examples: int
    samples: int
    batch_size: int
    factors: tuple[int, ...]
    window: int
    power: float
    seeds: tuple[int, ...]
    margin: float
    places: tuple[int, ...]
    points: tuple[CriticalPoint, ...]
    schedule: str
    origin: Origin
    ended: str = ""

    @staticmethod
    def of(
        task: str,
        unit: str,
        today: Setting,
        train_examples: int,
        validation_examples: int,
        plan: Branching,
        margin: float,
        points: tuple[CriticalPoint, ...],
        origin: Origin,
        ended: str = "",
    ) -> CriticalReport:
        """Join what was planned and found."""
        assert isinstance(plan.baseline.samples, int)
        return CriticalReport(
            task,
            unit,
            today,
            train_examples,
            validation_examples,
            plan.baseline.samples,
            plan.batch_size,
            plan.factors,
            plan.window,
            plan.power,
            plan.seeds,
            margin,
            plan.places,
            points,
            growing(points, plan.batch_size),
            origin,
            ended,
        )

    @property
    def missing(self) -> tuple[int, ...]:
        """Places that were not measured; :attr:`ended` says why."""
        return self.places[len(self.points) :]

    def share(self, samples: int) -> Text:
        """How far the training is, in per cent."""
        written = _share(samples, self.samples)
        return Text(written, written.replace(" ", ""))

    def free(self) -> tuple[int, list[CriticalPoint]]:
        """The largest batch shown within the margin at the last place, else at any, all places
        taken together, and the last places in a row at which it is; today's batch size where
        there is none.
        """
        lows = [one.together for one in self.points]
        size = lows[-1] if lows[-1] > self.batch_size else max(lows)
        rows = itertools.groupby(self.points, lambda one: one.together >= size)
        return int(size), [list(row) for free, row in rows if free][-1]

    def answer(self) -> Text:
        """Up to which batch size as many examples teach as much, and from where on."""
        size, row = self.free()
        if size > self.batch_size:
            return say(
                "{w}, batches of up to {s} cost nothing: as many examples lead to the same loss "
                "within {m}.",
                "{w}、バッチサイズ{s}まで損失は増えません（同じデータ量で、差は{m}以内）。",
                w=self._where(row),
                s=formats.count(size),
                m=_percent(self.margin),
            )
        above = [one for one in self.points if math.isfinite(one.critical.high)]
        if above:
            first = above[0]
            return say(
                "No batch larger than today's {b} was shown to cost nothing; {h} costs too much "
                "at {p} of the training.",
                "現在の{b}より大きいバッチで損失が増えないと言えるものはなく、学習の{p}では{h}で"
                "すでに増えすぎます。",
                b=self.batch_size,
                h=formats.count(int(first.critical.high)),
                p=self.share(first.samples),
            )
        return say(
            "Not resolved: {n} seeds do not tell whether a larger batch costs more than {m} of "
            "the loss. More seeds or a wider margin would.",
            "定まりません：シード{n}個では、大きいバッチで損失が{m}より増えるかどうか判断できません。"
            "シードを増やすか許容幅を広げてください。",
            n=len(self.seeds),
            m=_percent(self.margin),
        )

    def _where(self, row: Sequence[CriticalPoint]) -> Text:
        """Places in a row, as the beginning of a sentence."""
        here = {"p": self.share(row[0].samples), "q": self.share(row[-1].samples)}
        if len(row) == 1:
            return say("At {p} of the training", "学習の{p}の時点では", **here)
        if row[-1] is self.points[-1]:
            return say("From {p} of the training on", "学習の{p}から先は", **here)
        return say("From {p} to {q} of the training", "学習の{p}から{q}までは", **here)

    def said(self) -> tuple[Text, ...]:
        """How it was measured, what follows, and what does not."""
        told = [self._method(), *self._against_noise(), self._follows()]
        if self.missing and self.ended == DIVERGED:
            told.append(
                say(
                    "From {p} of the training on there is nothing to compare with: today's "
                    "settings diverged with every seed, or all but one.",
                    "学習の{p}以降は比べる相手がありません。現在の設定が、すべてのシード（または1個を除く"
                    "すべて）で発散しました。",
                    p=self.share(self.missing[0]),
                )
            )
        elif self.missing:
            told.append(
                say(
                    "The budget ended before {p} of the training; `--resume` with a larger one "
                    "goes on.",
                    "予算の都合で学習の{p}以降は測っていません。`--resume`と大きい予算で続けられます。",
                    p=self.share(self.missing[0]),
                )
            )
        return tuple(told)

    def _method(self) -> Text:
        return say(
            "At each place branches of {w} further examples, the same for every batch size, with "
            "the learning rate {r}; judged by the mean validation loss over their second half "
            "against batch size {b}, paired by seed (n = {n}, 90 % ranges). The critical batch "
            "size is the largest whose loss is at most {m} higher. What is said of several places "
            "and the schedule rest on wider ranges, which hold for all places together.",
            "各時点から、どのバッチサイズでも同じデータ{w}件で学習を続け（学習率は{r}）、後半の"
            "検証損失の平均を、同じシードのバッチサイズ{b}と比べます（n＝{n}、90%の範囲）。損失の増加が"
            "{m}以内に収まる最大のバッチサイズが臨界バッチサイズです。複数の時点にわたる結論と"
            "スケジュールは、全時点で同時に成り立つ、より広い範囲に基づきます。",
            w=formats.count(self.window),
            r=POWERS.get(self.power, POWERS[0.0]),
            b=formats.count(self.batch_size),
            n=len(self.seeds),
            m=_percent(self.margin),
        )

    def _against_noise(self) -> tuple[Text, ...]:
        told = [
            say("{r} at {p}", "{p}で{r}", r=_ratio(one.ratio), p=self.share(one.samples))
            for one in self.points
            if one.ratio is not None and math.isfinite(one.ratio.value)
        ]
        if not told:
            return ()
        said = [
            say(
                "Critical batch size / noise scale at the same weights: {t}. They need not agree: "
                "with a batch as large as the noise scale a training needs, in theory, twice the "
                "examples; with the critical one as many examples end at most {m} higher.",
                "同じ重みでの臨界バッチサイズ／ノイズスケール：{t}。両者は一致するとは限りません。"
                "バッチがノイズスケールと同じ大きさなら理論上2倍のデータが必要になるのに対し、臨界"
                "バッチサイズは同じデータ量での損失の増加が{m}以内に収まる大きさです。",
                m=_percent(self.margin),
                t=join(told, ", ", "、"),
            )
        ]
        if not is_sgd_family(self.today.rule):
            said.append(say(*ORDERS_ONLY, r=verbatim(self.today.rule)))
        return tuple(said)

    def _follows(self) -> Text:
        if ":" not in self.schedule:
            return Text(
                "No growing schedule follows from this.",
                "この結果から導かれる、バッチを増やすスケジュールはありません。",
            )
        return say(
            "The batch schedule that follows: `{s}`, with `rate_growth={p}` for the learning "
            "rate. It is no proof yet that growing pays: `{c}` decides.",
            "ここから導かれるバッチのスケジュールは`{s}`です（学習率は`rate_growth={p}`）。バッチを"
            "増やすのが得だという証明ではありません。`{c}`で確かめてください。",
            s=self.schedule,
            p=formats.number(self.power),
            c=verbatim(self.decides()),
        )

    def decides(self) -> str:
        """The command that sets the schedule against today's settings."""
        task = self.origin.command.removeprefix("batchlab critical ")
        power = formats.number(self.power)
        return f'batchlab compare {task} --batch-sizes "{self.schedule}" --rate-growth {power}'

    def rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of each place."""
        return tuple(
            (
                self.share(one.samples),
                same(formats.count(one.samples)),
                critical_text(one),
                Text("–", "–") if one.noise is None else scale_text(one.noise),
                Text("–", "–") if one.ratio is None else _ratio(one.ratio),
            )
            for one in self.points
        )

    def branch_rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of each batch size at each place."""
        return tuple(
            (
                self.share(one.samples),
                same(formats.count(branch.batch_size)),
                same(formats.rate(branch.learning_rate)),
                _excess(branch.excess),
                _excess(branch.train_excess),
                SHOWN[shown(branch, self.margin)],
                say("{a} of {n}", "{n}回中{a}回", a=branch.failed, n=len(self.seeds)),
            )
            for one in self.points
            for branch in one.branches
        )

    def __str__(self) -> str:
        sizes = ", ".join(f"{k * self.batch_size:,}" for k in (1, *self.factors))
        lines = [f"{self.task}: critical batch size by branching, batch sizes {sizes}"]
        for head, rows in ((HEAD, self.rows()), (BRANCH_HEAD, self.branch_rows())):
            cells = [[plain(text.en) for text in row] for row in rows]
            lines += [table([plain(text.en) for text in head], cells), ""]
        lines += [plain(text.en) for text in (self.answer(), *self.said())]
        return "\n".join([*lines, *_assumed(self.origin)])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return _html.text(str(self))

    def _repr_mimebundle_(self, **asked: object) -> dict[str, str]:
        """For IPython, which would write the whole record beside it."""
        return _html.bundle(self._repr_html_(), str(self))


POWERS = {
    1.0: Text("in proportion to the batch size", "バッチサイズに比例"),
    0.5: Text("in proportion to its square root", "バッチサイズの平方根に比例"),
    0.0: Text("unchanged", "一定"),
}


def shown(branch: Branch, margin: float) -> str:
    """What the interval of a branch says beside the margin: a key of :data:`SHOWN`.

    Args:
        branch: The branch.
        margin: Largest excess that counts as equal.
    """
    if branch.excess.high <= margin:
        return "within"
    return "above" if branch.excess.low > margin else "open"


def critical_text(one: CriticalPoint) -> Text:
    """A critical batch size with its range, or what can be said instead.

    Args:
        one: What was found at a place.
    """
    if not one.resolved:
        return SHOWN["open"]
    found = one.critical
    value, low, high = (formats.number(x, 3) for x in (found.value, found.low, found.high))
    if math.isfinite(found.high):
        return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)
    if math.isfinite(found.value):
        return say("{v} (at least {a})", "{v}（{a}以上）", v=value, a=low)
    return say("at least {a}", "{a}以上", a=low)


def _excess(found: Estimate) -> Text:
    value, low, high = (_signed(x) for x in (found.value, found.low, found.high))
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _signed(share: float) -> str:
    if math.isnan(share):
        return "–"
    sign = "+" if share > 0 else ""
    unit = "" if math.isinf(share) else " %"
    return f"{sign}{formats.number(100 * share)}{unit}"


def _ratio(found: Estimate) -> Text:
    value, low, high = (formats.number(x) for x in (found.value, found.low, found.high))
    if math.isinf(found.high):
        return say("at least {a}×", "{a}倍以上", a=low)
    return say("{v}× ({a} to {b})", "{v}倍（{a}～{b}）", v=value, a=low, b=high)


def _percent(share: float) -> Text:
    number = formats.number(100 * share)
    return Text(f"{number} %", f"{number}%")


def _share(samples: int, whole: int) -> str:
    return f"{formats.number(100 * samples / whole)} %"
