"""Pages of ``fit``, ``noise``, ``critical`` and their like: one self-contained HTML file each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from batchlab._platform import format_bytes
from batchlab._text import LANGUAGES, Language, Text, same, say, verbatim
from batchlab.advisor.record import (
    Advice,
    Candidate,
    CurvePoint,
    FeatureUse,
    Memory,
    MemoryPoint,
    MetricInfo,
    NoisePoint,
    Reason,
    Robustness,
    Setting,
    Verdict,
)
from batchlab.report import charts, evidence, features, findings, formats, names, page, wording
from batchlab.report import critical as branching
from batchlab.report.charts import coordinates, critical, reuse, shared, strength
from batchlab.report.charts.shared import Chart, Row, Spec
from batchlab.report.coordinates import CoordinatesReport
from batchlab.report.critical import CriticalReport
from batchlab.report.evidence import Section
from batchlab.report.findings import (
    KINDS,
    Compared,
    CompareReport,
    FitReport,
    NoiseReport,
    Origin,
    Reading,
    chance_note,
    row,
    scale_text,
)
from batchlab.report.gained import gained
from batchlab.report.reuse import ReuseReport
from batchlab.report.strength import StrengthReport
from batchlab.report.sturdiness import meaning
from batchlab.types import Estimate, Evidence

Table = tuple[Text, tuple[Text, ...], tuple[tuple[Text, ...], ...]]
"""Caption, column titles, rows."""


def fit_page(found: FitReport) -> str:
    """Memory and speed per batch size.

    Args:
        found: The record.

    Returns:
        HTML; nothing in it is fetched from anywhere.
    """
    advice = _advice(
        found.task, found.origin, found.today, found.train_examples, memory=_memory(found)
    )
    title = say("{t}: memory and speed", "{t}：メモリと速さ", t=verbatim(found.task))
    heading = Text("Memory and speed against the batch size", "バッチサイズとメモリ・速さ")
    drawn = _drawn(charts.speed(advice), charts.memory(advice))
    notes = evidence.speed_notes(advice)
    section = Section("memory-and-speed", heading, notes, tuple(drawn))
    answer = evidence.speed_title(advice)
    tables = (_fit_table(found), *((_gains_table(found),) if found.gains else ()))
    told = (*found.strong(), *gained(found.gains))
    return _page(advice, found.origin, title, answer, told, tables, (section,), drawn)


def noise_page(found: NoiseReport) -> str:
    """The noise scale along training.

    Args:
        found: The record.

    Returns:
        HTML.
    """
    points = tuple(NoisePoint(m.samples, m.scale, m.at_least) for m in found.moments)
    advice = _advice(found.task, found.origin, found.today, found.train_examples, noise=points)
    title = say("{t}: gradient noise scale", "{t}：勾配ノイズスケール", t=verbatim(found.task))
    heading = Text("The noise scale along training", "学習中のノイズスケール")
    drawn = _drawn(charts.noise(advice))
    notes = evidence.noise_notes(advice)
    section = Section("noise-scale", heading, notes, tuple(drawn))
    answer, tables = evidence.noise_title(advice), (_noise_table(found),)
    return _page(advice, found.origin, title, answer, found.reading(), tables, (section,), drawn)


def critical_page(found: CriticalReport) -> str:
    """The critical batch size along training.

    Args:
        found: The record.

    Returns:
        HTML.
    """
    advice = _advice(found.task, found.origin, found.today, found.train_examples)
    title = say("{t}: critical batch size", "{t}：臨界バッチサイズ", t=verbatim(found.task))
    drawn = _drawn(critical.critical(found), critical.excesses(found))
    heads = (
        ("critical", Text("The critical batch size along training", "学習中の臨界バッチサイズ")),
        ("excesses", Text("The losses behind it", "もとになった損失")),
    )
    sections = [Section(f"{name}-batch", words, (), (name,)) for name, words in heads]
    caption = Text("Place by place", "時点ごとの値")
    tables = ((caption, branching.HEAD, found.rows()),)
    answer, told = found.answer(), found.said()
    return _page(advice, found.origin, title, answer, told, tables, sections, drawn)


def coordinates_page(found: CoordinatesReport) -> str:
    """How far each layer moves, against the width.

    Args:
        found: The record.

    Returns:
        HTML.
    """
    advice = _advice(found.task, found.origin, found.today, found.train_examples)
    title = say("{t}: coordinate check", "{t}：座標チェック", t=verbatim(found.task))
    drawn = _drawn(coordinates.coordinates(found))
    heading = Text("How far each layer moves, against the width", "各層の動きとネットワークの幅")
    section = Section("coordinate-check", heading, (), tuple(drawn))
    caption = Text("90 % ranges", "かっこ内は90%の範囲")
    tables, told = ((caption, found.head(), found.rows()),), found.said()
    return _page(advice, found.origin, title, found.answer(), told, tables, (section,), drawn)


def reuse_page(found: ReuseReport) -> str:
    """Re-use of batches against its rivals.

    Args:
        found: The record.

    Returns:
        HTML.
    """
    advice = _advice(found.task, found.origin, found.today, found.train_examples)
    title = say("{t}: re-use of batches", "{t}：バッチの再利用", t=verbatim(found.task))
    drawn = _drawn(reuse.plane(found), reuse.labels(found))
    heads = {
        "reuse-plane": Text(
            "Where re-use pays: cost of a fresh sample against cost of computing",
            "再利用の採算が合う領域：新しいデータの費用と計算の費用",
        ),
        "labels": Text("How far so many labelled examples go", "ラベル付きデータの数と到達点"),
    }
    sections = [Section(f"{name}-part", heads[name], (), (name,)) for name in drawn]
    answer, told, tables = found.answer(), found.said(), found.tables()
    return _page(advice, found.origin, title, answer, told, tables, sections, drawn)


def strength_page(found: StrengthReport) -> str:
    """What the feature-learning strength changes.

    Args:
        found: The record.

    Returns:
        HTML.
    """
    advice = _advice(found.task, found.origin, found.today, found.train_examples)
    title = say("{t}: feature-learning strength", "{t}：特徴学習の強さ", t=verbatim(found.task))
    drawn = _drawn(strength.strength(found))
    heading = Text("Learning rate against γ, and the law", "γと学習率、および法則")
    sections = [Section("strength-part", heading, (), tuple(drawn))]
    answer, told, tables = found.answer(), found.said(), found.tables()
    return _page(advice, found.origin, title, answer, told, tables, sections, drawn)


def compare_page(found: CompareReport) -> str:
    """A grid of settings against today's.

    Args:
        found: The record.

    Returns:
        HTML.
    """
    best = (*found.better("samples"), *found.better("updates"))
    compared = best[0].setting if best else None
    if compared is None and (found.robustness or found.features):
        compared = found.settings[1].setting
    shown = found.robustness.get(compared.id) if compared is not None else None
    used = found.features.get(compared.id) if compared is not None else None
    advice = _advice(
        found.task,
        found.origin,
        found.today,
        found.train_examples,
        metric=found.metric,
        settings=tuple(one.setting for one in found.settings),
        curves=found.curves,
        compared=compared,
        robustness=shown,
        features=used,
    )
    title = say("{t}: settings compared", "{t}：設定の比較", t=verbatim(found.task))
    told = (found.answer("updates"), *found.said())
    drawn = _drawn(
        readings(found),
        charts.robustness(advice),
        charts.features(advice),
        charts.curves(advice),
    )
    sections = tuple(
        section
        for section in (
            Section("readings", _readings_title(found), (_judged(),), ("readings",)),
            Section("robustness", _robust_title(compared), _robust_notes(shown), ("robustness",)),
            _features(advice, compared),
            Section("learning-curves", evidence.curves_title(advice), (), ("curves",)),
        )
        if section.charts[0] in drawn
    )
    tables = tuple(_compare_table(found, kind) for kind in KINDS)
    if found.robustness:
        caption = Text(
            "With noise or worse data, at equal samples",
            "ノイズや悪いデータを加えたとき（同じデータ量で）",
        )
        tables += ((caption, findings.robust_head(found.metric), tuple(found.robust_rows())),)
    if found.features:
        tables += ((found.features_title(), findings.FEATURE_HEAD, tuple(found.feature_rows())),)
        told += (findings.FEWER,)
    told += (chance_note(len(found.settings) - 1),)
    answer = found.answer("samples")
    return _page(advice, found.origin, title, answer, told, tables, sections, drawn)


def _page(
    advice: Advice,
    origin: Origin,
    title: Text,
    answer: Text,
    told: Sequence[Text],
    tables: Sequence[Table],
    sections: Sequence[Section],
    drawn: Mapping[str, Chart],
) -> str:
    return page._template("measured.html.j2").render(
        **page._shared(title),
        circumstances=wording.circumstances(advice)[:2],
        answer=answer,
        told=told,
        tables=tables,
        sections=sections,
        charts=drawn,
        assumptions=origin.assumptions,
        sentences=False,
        sources="",
        provenance=[(names.provenance(name), value) for name, value in _origins(origin).items()],
        data=page.page_data(_data(advice, drawn)),
    )


def _origins(origin: Origin) -> dict[str, str]:
    return {"command": origin.command, "created": origin.created} | origin.provenance


def _data(advice: Advice, drawn: Mapping[str, Chart]) -> dict[str, Any]:
    sizes = {c.setting.id: c.setting.batch_size for c in advice.candidates}
    return {
        "charts": page._embedded(dict(drawn)),
        "config": shared.CONFIG,
        "picked": shared.starting_pick(advice),
        "ids": list(sizes),
        "sizes": sizes,
        "worth": None,
        "file": f"batchlab-{page._file_name(advice.task)}",
    }


def _drawn(*found: Chart | None) -> dict[str, Chart]:
    return {one.id: one for one in found if one is not None}


def _advice(
    task: str,
    origin: Origin,
    today: Setting,
    examples: int,
    *,
    metric: MetricInfo | None = None,
    settings: tuple[Setting, ...] = (),
    memory: Memory | None = None,
    noise: tuple[NoisePoint, ...] = (),
    curves: tuple[CurvePoint, ...] = (),
    compared: Setting | None = None,
    robustness: Robustness | None = None,
    features: FeatureUse | None = None,
) -> Advice:
    """An advice that has only just begun: what the report's pictures and sentences read."""
    candidates = tuple(
        Candidate(one, Reason.REQUESTED, Evidence.SCREENED) for one in settings or (today,)
    )
    return Advice(
        task=task,
        command=origin.command,
        version=origin.provenance.get("batchlab", ""),
        created=origin.created,
        device=origin.device,
        cores=origin.cores,
        builtin=False,
        wall_seconds=origin.seconds,
        measurement_cost=None,
        budget_seconds=None,
        stage="A",
        evidence=Evidence.SCREENED,
        partial=False,
        verdict=Verdict.NOT_ENOUGH_EVIDENCE,
        objective="time",
        worth=1.2,
        at_least={},
        metric=metric or MetricInfo("loss", False),
        target=None,
        today=today,
        recommended=today,
        changes=(),
        comparisons=(),
        batch_only=None,
        failures=None,
        price=None,
        smallest_detectable=None,
        decide_repeats=0,
        next_stage=None,
        useful_low=None,
        useful_high=None,
        memory=memory,
        noise=noise,
        noise_orders_only=False,
        plane=(),
        candidates=candidates,
        curves=curves,
        epochs_to_plateau=None,
        order_changed=None,
        run_seconds=math.nan,
        train_examples=examples,
        validation_examples=0,
        test_examples=0,
        assumptions=origin.assumptions,
        not_tested=(),
        provenance=origin.provenance,
        compared=compared,
        robustness=robustness,
        features=features,
    )


def _memory(found: FitReport) -> Memory:
    fit = found.fit
    points = tuple(
        MemoryPoint(
            p.batch_size, p.fits, p.bytes, p.samples_per_second, p.seconds_per_update, p.reason
        )
        for p in fit.points
    )
    return Memory(
        fit.largest,
        fit.bound_by,
        fit.limit_bytes,
        fit.limit_source,
        fit.margin_bytes,
        points,
        fit.knee,
        fit.loader_share,
        fit.sentence,
    )


# Tables


def _fit_table(found: FitReport) -> Table:
    head = (
        Text("batch size", "バッチサイズ"),
        Text("memory", "メモリ"),
        Text("examples per second (90 %)", "データ数/秒（90%）"),
        Text("time per update (90 %)", "1回の更新（90%）"),
        Text("ran", "動作"),
    )
    rows = tuple(
        (
            same(formats.count(p.batch_size)),
            same(format_bytes(p.bytes) if p.bytes else "–"),
            _ranged(p.samples_per_second, lambda x: same(formats.number(x, 3))),
            _ranged(p.seconds_per_update, formats.duration),
            Text("yes", "はい") if p.fits else same(verbatim(p.reason)),
        )
        for p in found.fit.points
    )
    caption = Text(
        "Every size that was tried or timed, with 90 % ranges",
        "試行または計測したサイズ（かっこ内は90%の範囲）",
    )
    return caption, head, rows


def _gains_table(found: FitReport) -> Table:
    head = (
        Text("processes together", "複数のプロセスでの学習"),
        Text("examples per second (90 %)", "データ数/秒（90%）"),
        Text("time per update (90 %)", "1回の更新（90%）"),
    )
    rows = tuple(
        (
            same(str(one)),
            _ranged(one.timing.samples_per_second, lambda x: same(formats.number(x, 3))),
            _ranged(one.timing.seconds_per_update, formats.duration),
        )
        for one in found.gains
    )
    caption = Text(
        "One training on 1, 2, … processes of this start, with 90 % ranges",
        "一つの学習を1、2、…個のプロセスで行ったときの速さ（かっこ内は90%の範囲）",
    )
    return caption, head, rows


def _noise_table(found: NoiseReport) -> Table:
    head = (
        Text("examples seen", "学習したデータ数"),
        Text("epochs", "エポック"),
        Text("noise scale, examples (90 %)", "ノイズスケール（件、90%）"),
    )
    told = [
        (
            same(formats.count(m.samples)),
            same(formats.number(m.samples / found.train_examples)),
            scale_text(m),
        )
        for m in found.moments
    ]
    if found.together is not None:
        told.append((Text("together", "全体"), same("–"), scale_text(found.together)))
    return Text("90 % ranges", "かっこ内は90%の範囲"), head, tuple(told)


def _compare_table(found: CompareReport, kind: str) -> Table:
    head = (
        Text("setting", "設定"),
        say("{m} (90 %)", "{m}（90%）", m=names.metric(found.metric)),
        Text("against today (90 %)", "現在との差（90%）"),
        Text("failed runs", "失敗"),
        Text("time of one run (90 %)", "1回の時間（90%）"),
    )
    rows = tuple(
        row(one.setting, reading, found.metric)
        for one in found.settings
        if (reading := one.reading(kind)) is not None
    )
    count = found.samples if kind == "samples" else found.updates
    caption = say(
        "{k}: {c}, {n} repeats each",
        "{k}：{c}、各{n}回の繰り返し",
        k=KINDS[kind],
        c=formats.count(count),
        n=len(found.seeds),
    )
    return caption, head, rows


def _ranged(found: Estimate | None, write: Any) -> Text:
    if found is None:
        return same("–")
    value, low, high = (write(x) for x in (found.value, found.low, found.high))
    if math.isnan(found.low):
        return value
    return say("{v} ({a} to {b})", "{v}（{a}～{b}）", v=value, a=low, b=high)


# The picture of compare


AXES = {
    "seconds": Text("time of one run (seconds)", "1回の時間（秒）"),
    "samples": Text("examples trained on", "学習したデータ数（件）"),
    "updates": Text("updates", "更新回数"),
    "batch": Text("batch size (examples)", "バッチサイズ（件）"),
}


def _readings_title(found: CompareReport) -> Text:
    metric = names.metric(found.metric)
    return say(
        "What each setting reaches, and what it takes: {m} at equal samples and at equal updates.",
        "各設定の到達点とかかる量：同じデータ量・同じ更新回数での{m}。",
        m=metric,
    )


def _features(advice: Advice, setting: Setting | None) -> Section:
    """What the models of one setting look at, beside today's."""
    if setting is None or advice.features is None:
        return Section("features", Text("", ""), (), ("features",))
    title = say(
        "What decisions rest on: {s} beside today's settings.",
        "判断の根拠になっている特徴：{s}と現在の設定。",
        s=names.setting(setting),
    )
    notes, sheets = features.notes(advice), features.sheets(advice)
    return Section("features", title, notes, ("features",), sheets=sheets)


def _robust_title(setting: Setting | None) -> Text:
    """What the picture of the tests shows."""
    if setting is None:
        return Text("", "")
    return say(
        "What noise and worse data do: {s} beside today's settings.",
        "ノイズや悪いデータの影響：{s}と現在の設定。",
        s=names.setting(setting),
    )


def _robust_notes(found: Robustness | None) -> tuple[Text, ...]:
    return () if found is None else meaning(found)


def _judged() -> Text:
    return Text(
        "Judged by the mean over the last tenth of a run, on validation data. Time: updates × "
        "seconds per update of one run alone, data loading included, evaluation left out.",
        "学習の最後の1割の平均を検証データで評価しています。時間＝更新回数×1回の更新の秒数"
        "（1つの学習だけを動かした場合。データ読み込みを含み、評価は含みません）。",
    )


def readings(found: CompareReport) -> Chart | None:
    """The metric with its range against what a run takes, at equal samples and at equal updates.

    Args:
        found: The record.
    """
    rows = _reading_rows(found)
    if not any(r["metric"] is not None for r in rows):
        return None
    kinds = tuple(kind for kind in KINDS if any(r["kind"] == kind for r in rows))
    metric = _metric_title(found.metric)
    description = say(
        "{n} settings: {m} against the time, samples and updates of a run and the batch size.",
        "{n}通りの設定の{m}を、時間・データ量・更新回数・バッチサイズに対して示します。",
        n=len(found.settings),
        m=names.metric(found.metric),
    )
    caption = say(
        "Points: mean over n = {n} repeats (median where a run failed), labelled with batch size "
        "and learning rate; lines: 90 % range. Black: today. A cross: so many runs failed that "
        "there is no value.",
        "点：n＝{n}回の平均（失敗があれば中央値）、数字はバッチサイズと学習率。縦線：90%の範囲。"
        "黒：現在の設定。×：失敗が多く値がない設定。",
        n=len(found.seeds),
    )
    columns = (
        ("id", Text("setting", "設定")),
        ("kind", Text("at equal", "そろえた量")),
        *((axis, AXES[axis]) for axis in AXES),
        *shared.range_columns("metric", metric),
        *shared.range_columns("gap", Text("against today", "現在との差")),
        ("runs", Text("runs", "回数")),
        ("failed", Text("failed", "失敗")),
    )
    specs = {
        f"{kind}-{axis}": {
            language: _reading_spec(found, rows, (kind, axis), description, language)
            for language in LANGUAGES
        }
        for kind in kinds
        for axis in AXES
    }
    choices = (
        (Text("judged", "比べ方"), tuple((kind, KINDS[kind]) for kind in kinds)),
        (Text("against", "横軸"), tuple(AXES.items())),
    )
    return Chart("readings", rows, columns, caption, description, specs, choices, height=320)


def _metric_title(metric: MetricInfo) -> Text:
    unit = f" ({metric.unit})" if metric.unit else ""
    return say("{m}{u}", "{m}{u}", m=names.metric(metric), u=unit)


def _reading_rows(found: CompareReport) -> tuple[Row, ...]:
    return shared.plain_rows(
        _reading_row(found, one, kind, reading)
        for kind in KINDS
        for one in found.settings
        if (reading := one.reading(kind)) is not None
    )


def _reading_row(found: CompareReport, one: Compared, kind: str, reading: Reading) -> Row:
    times = 100.0 if found.metric.unit == "%" else 1.0
    setting = one.setting
    grown = isinstance(setting.batch_size, str)
    return {
        "id": setting.id,
        "words": _label(setting),
        "kind": kind,
        "role": "today" if setting.id == "today" else "other",
        "state": "ok" if math.isfinite(reading.metric.value) else "failed",
        "batch": reading.samples / max(1, reading.updates) if grown else setting.batch_size,
        "samples": reading.samples,
        "updates": reading.updates,
        "seconds": reading.seconds.value,
        **shared.ends(reading.metric, "metric", times),
        **shared.ends(reading.difference, "gap", times),
        "runs": reading.runs,
        "failed": reading.failed,
    }


def _label(one: Setting) -> str:
    """Batch size and learning rate; of a schedule its first and last size."""
    follows = one.rate_growth and isinstance(one.batch_size, str)
    grown = f" · B^{one.rate_growth:g}" if follows else ""
    return f"{names.size(one.batch_size)} · {formats.rate(one.learning_rate)}{grown}"


def _reading_spec(
    found: CompareReport,
    rows: tuple[Row, ...],
    variant: tuple[str, str],
    text: Text,
    language: Language,
) -> Spec:
    kind, axis = variant
    here = [r for r in rows if r["kind"] == kind]
    x = alt.X(
        f"{axis}:Q",
        title=AXES[axis].of(language),
        scale=alt.Scale(type="log", nice=False, padding=28, domain=shared.reach(here, [axis])),
        axis=shared.log_axis((r[axis] for r in here), grid=False),
    )
    if axis == "batch":
        x = shared.batch_axis(language, shared.reach(here, [axis]))
    y = alt.Y(
        "metric:Q",
        title=_metric_title(found.metric).of(language),
        scale=alt.Scale(zero=False, nice=False, padding=18),
        axis=alt.Axis(tickCount=6, format="~f"),
    )
    base = alt.Chart(shared.data("readings")).transform_filter(f"datum.kind === '{kind}'")
    trained = base.transform_filter("datum.state === 'ok'")
    colour = alt.condition(
        "datum.role === 'today'", alt.value(shared.BLACK), alt.value(shared.BLUE)
    )
    shape = alt.condition("datum.role === 'today'", alt.value("circle"), alt.value("diamond"))
    tips = shared.tooltips(
        language, (("id", Text("setting", "設定")), ("metric", _metric_title(found.metric)))
    )
    layers: list[Any] = [
        trained.transform_filter("isValid(datum.metric_low)")
        .mark_rule(strokeWidth=2)
        .encode(x=x, y=alt.Y("metric_low:Q"), y2="metric_high:Q", color=colour),
        trained.mark_point(filled=True, opacity=1, size=90).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=tips
        ),
        *shared.haloed(
            trained,
            {"x": x, "y": y, "text": alt.Text("words:N")},
            align="left",
            dx=9,
            dy=-9,
            fontSize=11,
        ),
    ]
    if any(r["state"] == "failed" for r in here):
        layers.append(
            base.transform_filter("datum.state === 'failed'")
            .mark_point(shape=shared.CROSS, size=110, strokeWidth=2.5, color=shared.VERMILLION)
            .encode(x=x, y=alt.value(305), tooltip=tips)
        )
    return shared.layered(layers, text, language, 320)
