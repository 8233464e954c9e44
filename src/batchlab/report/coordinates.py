"""What ``coordinates`` finds: its record, and what it says in both languages."""

from __future__ import annotations

from dataclasses import dataclass

from batchlab import _html
from batchlab._text import Text, join, plain, same, say, verbatim
from batchlab.advisor.record import Setting
from batchlab.measure.coordinates import MARGIN, Coordinates, LayerSizes, Trend
from batchlab.report import formats
from batchlab.report.findings import Origin, _assumed, table
from batchlab.types import Estimate

TRENDS = {
    Trend.GROWS: Text("grows with the width", "幅とともに増える"),
    Trend.SHRINKS: Text("shrinks with the width", "幅とともに減る"),
    Trend.INDEPENDENT: Text("independent of the width", "幅によらない"),
    Trend.OPEN: Text("not resolved", "定まらず"),
}


@dataclass(frozen=True)
class CoordinatesReport:
    """How far each layer moves in a few updates, against the width.

    Attributes:
        task: Name.
        today: The recipe, at the smallest width.
        train_examples: N.
        found: Sizes and slopes.
        origin: Where these numbers come from.
    """

    task: str
    today: Setting
    train_examples: int
    found: Coordinates
    origin: Origin

    def answer(self) -> Text:
        """Whether a learning rate carries over from narrow to wide."""
        if not self.found.judged:
            return Text(
                "The first update already makes a network diverge, so that nothing can be said: "
                "give a smaller learning rate.",
                "最初の更新で発散するネットワークがあり、判断できません。学習率を下げてください。",
            )
        if grown := self._of(Trend.GROWS):
            return say(
                "The wider the network, the further it moves: {t}. A learning rate tuned on a "
                "narrow network is too large for a wide one.",
                "幅が広いほど大きく動きます：{t}。狭いネットワークで決めた学習率は、広い"
                "ネットワークには大きすぎます。",
                t=grown,
            )
        if shrunk := self._of(Trend.SHRINKS):
            return say(
                "The wider the network, the less it moves: {t}. Wide networks do not learn these "
                "features.",
                "幅が広いほど動かなくなります：{t}。広いネットワークではこの特徴が学習されません。",
                t=shrunk,
            )
        if self._of(Trend.OPEN):
            return say(
                "Not resolved: {n} seeds do not tell whether every layer's change depends on the "
                "width. More seeds or widths further apart would.",
                "定まりません：シード{n}個では、変化が幅によるかどうか判断できない層があります。シードを"
                "増やすか、幅の範囲を広げてください。",
                n=len(self.found.seeds),
            )
        return Text(
            "No layer's change depends on the width: a learning rate tuned on a narrow network "
            "holds for a wide one.",
            "どの層の変化も幅によりません。狭いネットワークで決めた学習率が、広いネットワークにも"
            "使えます。",
        )

    def _of(self, wanted: Trend) -> Text | None:
        """The sentences of the layers with a trend."""
        told = [self.verdict(one) for one in self.found.layers if self.found.trend(one) is wanted]
        return join(told, "; ", "；") if told else None

    def verdict(self, layer: LayerSizes) -> Text:
        """What becomes of one layer's change, in a sentence."""
        slope, name = layer.slopes[self.found.judged], verbatim(layer.name)
        trend, parts = self.found.trend(layer), {"n": name, "s": slope_text(slope)}
        if trend in (Trend.GROWS, Trend.SHRINKS):
            verb = Text("grows", "増え") if trend is Trend.GROWS else Text("shrinks", "減り")
            return say(
                "the change of `{n}` {v} like the width to the power {s}",
                "`{n}`の変化は幅の{s}乗に比例して{v}ます",
                v=verb,
                **parts,
            )
        if trend is Trend.INDEPENDENT:
            return say(
                "the change of `{n}` is independent of the width (power {s})",
                "`{n}`の変化は幅によりません（{s}乗）",
                **parts,
            )
        return say(
            "whether the change of `{n}` depends on the width is not resolved (power {s})",
            "`{n}`の変化が幅によるかどうかは定まりません（{s}乗）",
            **parts,
        )

    def said(self) -> tuple[Text, ...]:
        """How it was measured, and what it does not say."""
        found = self.found
        told = [
            say(
                "Root mean square of each layer's outputs before the nonlinearity, and of their "
                "change after up to {u} updates with {r} at a learning rate of {l}, each on the "
                "same {b} examples; widths {w}, {n} seeds. The power is the slope of log size "
                "against log width, with its 90 % range over the seeds; independent of the width "
                "means within ±{m}, half of the smallest power that theory knows.",
                "各層の出力（非線形変換の前）の二乗平均平方根と、同じ{b}件で最大{u}回更新（{r}、"
                "学習率{l}）したときの変化の二乗平均平方根。幅{w}、シード{n}個。べき指数は対数の"
                "大きさを対数の幅に対して見た傾きで、90%の範囲はシードによるばらつきです。±{m}以内（"
                "理論上の最小のべき指数の半分）なら幅によらないと判断します。",
                u=found.updates,
                r=verbatim(found.rule),
                l=formats.rate(found.learning_rate),
                b=found.examples,
                w=join([same(width) for width in found.widths], ", ", "、"),
                n=len(found.seeds),
                m=str(MARGIN),
            )
        ]
        if 0 < found.judged < found.updates:
            told.append(
                say(
                    "A training diverged after update {j}, by which the layers are judged.",
                    "{j}回目の更新の後に発散した学習があるため、{j}回目の時点で判断しています。",
                    j=found.judged,
                )
            )
        return tuple(told)

    def head(self) -> tuple[Text, ...]:
        """Titles of the table's columns."""
        return (
            Text("layer", "層"),
            Text("power of its size at the start (90 %)", "開始時の大きさのべき指数（90%）"),
            say(
                "power of its change after {t} (90 %)", "{t}の変化のべき指数（90%）", t=self._t(1)
            ),
            say(
                "power of its change after {t} (90 %)",
                "{t}の変化のべき指数（90%）",
                t=self._t(max(1, self.found.judged)),
            ),
            Text("its change", "変化"),
        )

    def rows(self) -> tuple[tuple[Text, ...], ...]:
        """The cells of each layer."""
        last = max(1, self.found.judged)
        return tuple(
            (
                same(verbatim(one.name)),
                *(slope_text(one.slopes[t]) for t in (0, 1, last)),
                TRENDS[self.found.trend(one)],
            )
            for one in self.found.layers
        )

    def _t(self, updates: int) -> Text:
        plural = "update" if updates == 1 else "updates"
        return Text(f"{updates} {plural}", f"{updates}回の更新後")

    def __str__(self) -> str:
        cells = [[plain(text.en) for text in row] for row in self.rows()]
        lines = [
            f"{self.task}: how far each layer moves, against the width",
            table([plain(text.en) for text in self.head()], cells),
            "",
            *(plain(text.en) for text in (self.answer(), *self.said())),
        ]
        return "\n".join([*lines, *_assumed(self.origin)])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return _html.text(str(self))

    def _repr_mimebundle_(self, **asked: object) -> dict[str, str]:
        """For IPython, which would write the whole record beside it."""
        return _html.bundle(self._repr_html_(), str(self))


def slope_text(slope: Estimate) -> Text:
    """A power with its range; a dash where there is none.

    Example:
        >>> slope_text(Estimate(0.5, 0.4, 0.6, n=5)).en
        '0.50 (0.40 to 0.60)'
    """
    if slope.value != slope.value:
        return same("–")
    value, low, high = (f"{x:.2f}".replace("-", formats.MINUS) for x in _ends(slope))
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


def _ends(slope: Estimate) -> tuple[float, ...]:
    # Without + 0.0, what rounds to zero would be written −0.00.
    return tuple(round(x, 2) + 0.0 for x in (slope.value, slope.low, slope.high))
