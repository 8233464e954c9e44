"""The page and the summary of one watched training: conclusion, three numbers, evidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from batchlab._text import EMPTY, Language, Text, join, plain, same, say, verbatim
from batchlab.advisor.record import Advice, MetricInfo, NoisePoint, Price
from batchlab.advisor.watched.judge import cost_of
from batchlab.advisor.watched.runs import LOSS, Run, Series, metric_of, run_of, setting_of
from batchlab.report import charts, evidence, formats, measured, names, said
from batchlab.report.charts import shared, watching
from batchlab.report.charts.shared import Chart, Row
from batchlab.report.charts.watching import Line
from batchlab.report.evidence import Section
from batchlab.report.findings import Origin, place
from batchlab.types import Estimate, Status
from batchlab.watch import wording
from batchlab.watch.noise import along
from batchlab.watch.record import About, BatchSize, Ending, Moment, Watched
from batchlab.watch.verdict import Verdict

PARTS = 100
"""Stretches of a training in the pictures of waiting and memory."""


@dataclass(frozen=True)
class WatchReport:
    """One watched training, and what it comes to.

    Attributes:
        name: Its directory.
        watched: What was recorded.
        verdict: The conclusion.
        price: What an hour and an example cost, or None.
        provenance: Versions and machine.
        command: What was typed.
    """

    name: str
    watched: Watched
    verdict: Verdict
    price: Price | None
    provenance: dict[str, str]
    command: str = ""

    @property
    def run(self) -> Run | None:
        """Its curves over wall time; None before the first update."""
        if self.watched.batch is None:
            return None
        return run_of(self.name, self.watched, without_evaluation=False)

    @property
    def noise(self) -> tuple[NoisePoint, ...]:
        """The noise scale along it."""
        return tuple(NoisePoint(r.samples, r.scale, r.at_least) for r in along(self.watched.noise))


def conclusion(found: WatchReport) -> Text:
    """What the training comes to, in one sentence.

    Args:
        found: The record.
    """
    return Text(wording.sentence(found.verdict, "en"), wording.sentence(found.verdict, "ja"))


def summary(found: WatchReport, language: Language = "en") -> str:
    """The conclusion and the numbers behind it, for a terminal.

    Args:
        found: The record.
        language: ``en`` or ``ja``.

    Returns:
        A few lines of plain text.
    """
    told = [say("{a}: {b}; {c}", "{a}：{b}、{c}", a=a, b=b, c=c) for a, b, c in _numbers(found)]
    told += [_where_it_stands(found)]
    lines = [plain(text.of(language)) for text in told if text.en]
    return "\n".join([plain(conclusion(found).of(language)), *(f"• {line}" for line in lines)])


def page(found: WatchReport) -> str:
    """The page of one watched training.

    Args:
        found: The record.

    Returns:
        HTML; nothing in it is fetched from anywhere.
    """
    origin, advice = _origin(found), _advice(found)
    drawn = {one.id: one for one in _charts(found, advice) if one is not None}
    title = say("{t}: a training watched", "{t}：学習の記録", t=verbatim(found.name))
    table = (
        Text("Where it stands", "現在の状況"),
        (EMPTY, Text("measured", "測定値"), Text("what it means", "意味")),
        _numbers(found),
    )
    told = tuple(text for text in (_where_it_stands(found),) if text.en)
    sections = _sections(found, advice, drawn)
    answer = conclusion(found)
    return measured._page(advice, origin, title, answer, told, (table,), sections, drawn)


# -- the numbers ----------------------------------------------------------------------------------


def _numbers(found: WatchReport) -> tuple[tuple[Text, Text, Text], ...]:
    """Time and money, waiting, and the batch beside the noise scale: what, how much, meaning."""
    return (
        (_spent_so_far(found), _spent(found), _progress(found)),
        (Text("waiting for data", "データ待ち"), *_waiting(found.verdict)),
        (Text("noise scale and batch size", "ノイズスケールとバッチサイズ"), *_batch(found)),
    )


def _spent_so_far(found: WatchReport) -> Text:
    if found.price is None:
        return Text("time so far", "これまでの時間")
    return Text("time and money so far", "これまでの時間と費用")


def _spent(found: WatchReport) -> Text:
    last = found.watched.last
    return formats.priced(last.seconds, _money(found, last.samples, last.seconds), found.price)


def _money(found: WatchReport, samples: float, seconds: float) -> float | None:
    """What so many examples and seconds cost; None without a price."""
    if found.price is None:
        return None
    return float(cost_of(np.array([seconds]), np.array([samples]), found.price)[0])


def _progress(found: WatchReport) -> Text:
    last = found.watched.last
    return say(
        "{u} updates, {s} examples; {state}",
        "更新{u}回、データ{s}件。{state}",
        u=formats.count(last.updates),
        s=formats.count(last.samples),
        state=state(found.watched),
    )


def state(watched: Watched) -> Text:
    """How the training stands.

    Args:
        watched: What was recorded.
    """
    if watched.diverged is not None:
        return Text("**diverged**", "**発散**")
    if watched.end is None:
        return Text(
            "**not ended: it runs, or was killed**", "**終了の記録なし（実行中か強制終了）**"
        )
    if watched.end.ending is Ending.STOPPED:
        return Text("**stopped before its end**", "**途中で停止**")
    return Text("**ended**", "**終了**")


def _waiting(verdict: Verdict) -> tuple[Text, Text]:
    share, speed = verdict.waiting, verdict.speed
    if share is None or speed is None:
        return same("–"), Text("nothing measured yet", "まだ測定されていません")
    return (
        _ranged(share, lambda v: formats.number(100 * v), Text(" %", "%")),
        say(
            "of the time of training; a loader that keeps up makes it at most {r}× as fast",
            "学習時間に占める割合。読み込みが追いつけば、速さは最大{r}倍になります",
            r=wording.number(speed.value),
        ),
    )


def _ranged(found: Estimate, write: Callable[[float], str], unit: Text) -> Text:
    value = write(found.value)
    if math.isnan(found.low):
        return say("{v}{u}", "{v}{u}", v=value, u=unit)
    ends = formats.span(write(found.low), write(found.high))
    return say("{v}{u} (90 % range {r})", "{v}{u}（90%の範囲：{r}）", v=value, u=unit, r=ends)


def _batch(found: WatchReport) -> tuple[Text, Text]:
    verdict = found.verdict
    batch = verdict.batch
    if batch is None:
        return same("–"), Text("no update yet", "まだ更新がありません")
    identity = say(
        "batch {b} (micro-batch × accumulation × devices)",
        "バッチ{b}（マイクロバッチ×勾配累積×装置）",
        b=str(batch),
    )
    return _scale(verdict), join((identity, _placed(verdict, batch)), "; ", "、")


def _scale(verdict: Verdict) -> Text:
    """Written as in the sentence above it."""
    noise = verdict.noise
    if noise is not None and noise.scale is not None:
        return _ranged(noise.scale, wording.number, Text(" examples", "件"))
    if noise is not None and noise.at_least is not None:
        least = wording.number(noise.at_least)
        return say("at least {n} examples", "{n}件以上", n=least)
    return Text("not measured", "未測定")


def _placed(verdict: Verdict, batch: BatchSize) -> Text:
    noise = verdict.noise
    if noise is None:
        return EMPTY
    low, high = noise.at_least or 0.0, math.inf
    if noise.scale is not None:
        low, high = noise.scale.low, noise.scale.high
    return _PLACES[place(batch.whole, low, high).value]


_PLACES = {
    "far below": Text("**far below it**", "**それよりずっと小さい**"),
    "below": Text("below it", "それより小さい"),
    "around": Text("within its range", "その範囲内"),
    "above": Text("above it", "それより大きい"),
    "far above": Text("**far above it**", "**それよりずっと大きい**"),
    "not resolved": EMPTY,
}


def _where_it_stands(found: WatchReport) -> Text:
    """The loss and every metric where they stand now."""
    run = found.run
    if run is None:
        return EMPTY
    told = [
        say("{n} {v}", "{n} {v}", n=names.metric(info), v=formats.metric_value(last, info))
        for name, series in run.series.items()
        if math.isfinite(last := _last(series))
        for info in (_info(run, name),)
    ]
    return say("Now: {l}.", "現在の値：{l}。", l=join(told, ", ", "、")) if told else EMPTY


def _last(series: Series) -> float:
    finite = series.values[np.isfinite(series.values)]
    return float(finite[-1]) if len(finite) else math.nan


def _info(run: Run, name: str) -> MetricInfo:
    found = metric_of(name, run.directions.get(name), run.series[name].values.tolist())
    return found or MetricInfo(name, maximise=True)


# -- the evidence ---------------------------------------------------------------------------------


def _sections(found: WatchReport, advice: Advice, drawn: dict[str, Chart]) -> tuple[Section, ...]:
    progress = Text("Loss and metrics along the training", "学習に伴う損失と評価指標の変化")
    waiting = Text("Waiting for data along the training", "学習に伴うデータ待ちの変化")
    memory = Text("Memory along the training", "学習に伴うメモリ使用量の変化")
    wanted = (
        Section("progress", progress, (), ("progress",)),
        Section(
            "noise-scale", evidence.noise_title(advice), _noise_notes(found, advice), ("noise",)
        ),
        Section("waiting", waiting, (_WAITING,), ("waiting",)),
        Section("memory", memory, (_memory_note(found),), ("memory",)),
    )
    kept = tuple(s for s in wanted if s.charts[0] in drawn)
    return (*kept, Section("method", Text("How this was measured", "測定の方法"), _METHOD))


_WAITING = Text(
    "Between asking for a batch and getting it; on a GPU only while it has nothing else to do.",
    "バッチを要求してから受け取るまでの時間です（GPUでは、ほかに処理がない間だけを数えます）。",
)
_METHOD = (
    Text(
        "One training, watched while it ran, compared with nothing: what it suggests is "
        "**screened**, not confirmed. To confirm it, watch a training with the change and the "
        "same seed, and give both directories to `batchlab report`.",
        "1回の学習を実行中に記録したもので、ほかの学習とは比べていません。示した内容は**下調べのみ**"
        "です。確かめるには、変更した設定で同じ乱数シードの学習を記録し、両方のフォルダーを"
        "`batchlab report`に指定してください。",
    ),
    Text(
        "An update is a step of the optimizer, a batch what its gradient was made of. Time is "
        "wall time, evaluation included; the share of waiting leaves evaluation out. The "
        "conclusion reads the second half of the training. 90 % range: it would miss the true "
        "value in one case out of ten.",
        "更新は最適化手法の1回の更新、バッチはその勾配に使われたデータです。時間は評価を含む経過時間"
        "で、データ待ちの割合には評価を含みません。結論は学習の後半に基づきます。90%の範囲とは、"
        "真の値を外すのが10回に1回程度の範囲です。",
    ),
)


def _noise_notes(found: WatchReport, advice: Advice) -> tuple[Text, ...]:
    notes = evidence.noise_notes(advice)
    if found.verdict.covered >= 0.99 or not found.verdict.covered:
        return notes
    share = formats.number(100 * found.verdict.covered)
    part = say(
        "It is that of {p} % of the model's parameters.",
        "モデルのパラメーターの{p}%の値です。",
        p=share,
    )
    return (*notes, part)


def _memory_note(found: WatchReport) -> Text:
    start = found.watched.starts[-1]
    if start.memory_limit is None:
        return Text("No limit is known.", "上限は分かりません。")
    return say(
        "The largest use so far; the limit, {l}, is from: {s}.",
        "それまでの最大使用量です。上限は{l}（出典：{s}）。",
        l=formats.size(start.memory_limit),
        s=said.both(start.memory_source),
    )


def _charts(found: WatchReport, advice: Advice) -> tuple[Chart | None, ...]:
    run, money = found.run, _money_axis(found)
    if run is None:
        return ()
    shown = [_line_of(found, run, name) for name in run.series]
    return (
        watching.lines("progress", shown, money, _PROGRESS),
        charts.noise(advice),
        watching.lines("waiting", [_waiting_line(found)], money, _SHARE),
        watching.lines("memory", [_memory_line(found)], money, _MEMORY),
    )


_PROGRESS = Text(
    "Points: the training loss as means over equal stretches, metrics as they were told.",
    "点：学習中の損失（等しい区間ごとの平均）と、記録された評価指標。",
)
_SHARE = Text(
    "Points: share of the training time spent waiting, stretch by stretch.",
    "点：学習時間に占めるデータ待ちの割合（区間ごと）。",
)
_MEMORY = Text(
    "Points: largest use of memory so far; dashed: what the training may use.",
    "点：それまでの最大メモリ使用量。破線：使える上限。",
)


def _money_axis(found: WatchReport) -> Text:
    unit = formats.currency(found.price.currency) if found.price else EMPTY
    return say("money ({u})", "費用（{j}）", u=unit.en.strip(), j=unit.ja)


def _axes(found: WatchReport, samples: float, updates: float, seconds: float) -> Row:
    money = _money(found, samples, seconds)
    return {"samples": samples, "updates": updates, "seconds": seconds, "money": money}


def _line_of(found: WatchReport, run: Run, name: str) -> Line:
    series, info = run.series[name], _info(run, name)
    times = 100.0 if info.unit == "%" else 1.0
    kept = np.flatnonzero(np.isfinite(series.values))
    stride = math.ceil(len(kept) / shared.POINTS_A_CURVE) or 1
    rows = [
        _axes(found, *(float(x[t]) for x in (series.samples, series.updates, series.seconds)))
        | {"value": float(series.values[t]) * times, "end": ""}
        for t in kept[::-1][::stride][::-1]
    ]
    if rows and run.status is Status.DIVERGED:
        rows[-1]["end"] = "diverged"
    unit = f" ({info.unit})" if info.unit else ""
    words = Text("training loss", "学習中の損失") if name == LOSS else names.metric(info)
    return Line(name, say("{n}{u}", "{n}{u}", n=words, u=unit), shared.plain_rows(rows))


def _thinned(found: WatchReport) -> list[Moment]:
    moments = found.watched.moments
    return list(moments[::-1][:: math.ceil(len(moments) / PARTS) or 1][::-1])


def _waiting_line(found: WatchReport) -> Line:
    kept = _thinned(found)
    waited, worked = ([0.0, *(getattr(m, f) for m in kept)] for f in ("waiting", "working"))
    steps = zip(np.diff(waited).tolist(), np.diff(worked).tolist(), strict=True)
    rows = [
        _axes(found, m.samples, m.updates, m.seconds) | {"value": 100 * a / (a + b), "end": ""}
        for m, (a, b) in zip(kept, steps, strict=True)
        if a + b > 0
    ]
    title = Text("share of the time waiting (%)", "データ待ちの割合（%）")
    return Line("share", title, shared.plain_rows(rows), from_zero=True)


def _memory_line(found: WatchReport) -> Line:
    limit = found.watched.starts[-1].memory_limit
    rows = [
        _axes(found, m.samples, m.updates, m.seconds) | {"value": m.memory / 2**30, "end": ""}
        for m in _thinned(found)
        if m.memory is not None
    ]
    title = Text("memory (GiB)", "メモリ（GiB）")
    return Line("memory", title, shared.plain_rows(rows), limit / 2**30 if limit else None)


# -- what the report's own pictures and sentences read --------------------------------------------


def _origin(found: WatchReport) -> Origin:
    start = found.watched.starts[0]
    # The sentence itself says why there is no noise scale, and of what part it is.
    told = [note.text for note in found.watched.notes if note.about is About.COUNTS]
    return Origin(
        command=found.command,
        created=start.at,
        seconds=found.watched.last.seconds,
        device=start.device,
        cores=0,
        assumptions=tuple(dict.fromkeys(told)),
        provenance=found.provenance | _settings(found),
        folder=found.name,
    )


def _settings(found: WatchReport) -> dict[str, str]:
    start = found.watched.starts[-1]
    seed = {} if start.seed is None else {"seed": str(start.seed)}
    return seed | {name: str(value) for name, value in start.settings.items()}


def _advice(found: WatchReport) -> Advice:
    run, batch = found.run, found.watched.batch or BatchSize(1, 1, 1)
    today = dataclasses.replace(setting_of(found.watched, batch), id="today")
    bare = measured._advice(
        found.name,
        _origin(found),
        today,
        (run.population if run else None) or 0,
        noise=found.noise,
    )
    return dataclasses.replace(
        bare, watched=1, noise_orders_only=not found.verdict.proved, price=found.price
    )
