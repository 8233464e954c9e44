"""A finished study as one self-contained HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from batchlab._text import EMPTY, Text, join, say, verbatim
from batchlab.citations import bibtex
from batchlab.report import formats, names, page
from batchlab.report.charts import claims as drawing
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart
from batchlab.report.evidence import Section
from batchlab.report.measured import Table
from batchlab.studies.record import Concluded, StudyReport
from batchlab.studies.verdict import Judged, Outcome

MODES = {
    "quick": Text("quick", "短縮版（quick）"),
    "full": Text("full", "完全版（full）"),
    "paper": Text("the paper's own scale", "論文と同じ規模（paper）"),
}
WORDS = {
    Outcome.REPRODUCED: Text("✓ reproduced", "✓ 再現された"),
    Outcome.NOT_REPRODUCED: Text("✗ not reproduced", "✗ 再現されなかった"),
    Outcome.INCONCLUSIVE: Text("? inconclusive", "？ 判断できない"),
    Outcome.MEASURED: Text("measured", "測定値"),
}
LABELS = {
    "popular": Text("Often said otherwise.", "よくある誤解"),
    "meaning": Text("What it means for your training.", "学習での意味"),
    "depends": Text("It depends.", "条件による違い"),
}


def render(report: StudyReport, drawn: Sequence[Chart]) -> str:
    """Verdicts first, then every claim with what it means; those that have the same picture
    follow each other below it.

    Args:
        report: The finished study.
        drawn: From :func:`pictures`.

    Returns:
        HTML; nothing in it is fetched from anywhere.
    """
    title = say("{n}: {t}", "{n}：{t}", n=verbatim(report.study), t=report.title)
    groups = grouped(report.concluded)
    first = {group[0].judged.id for group in groups}
    charts = {chart.id: chart for chart in drawn if chart.id in first}
    rows = [chart.rows for chart in charts.values()]
    return page._template("measured.html.j2").render(
        **page._shared(title),
        circumstances=_circumstances(report),
        answer=headline(report),
        told=_told(report),
        tables=(_table(report),),
        sections=tuple(
            section(report, one, group[:i]) for group in groups for i, one in enumerate(group)
        ),
        charts=charts,
        assumptions=None,
        sentences=True,
        sources=bibtex(report.citations) if report.citations else "",
        provenance=_provenance(report),
        data=page.page_data(
            {
                "charts": page._embedded(charts),
                "config": shared.CONFIG,
                "picked": next(filter(None, map(drawing.first_pick, rows)), ""),
                "ids": sorted({row["id"] for part in rows for row in part if row.get("id")}),
                "sizes": {},
                "worth": None,
                "copied": page.LABELS["copied"]._asdict(),
                "file": f"batchlab-study-{page._file_name(report.study)}",
            }
        ),
    )


def grouped(concluded: Sequence[Concluded]) -> tuple[tuple[Concluded, ...], ...]:
    """Claims that have the same picture together, in the order of the first of each.

    Args:
        concluded: All claims.
    """
    groups: dict[str, list[Concluded]] = {}
    for one in concluded:
        groups.setdefault(repr(one.picture), []).append(one)  # NaN does not equal itself
    return tuple(map(tuple, groups.values()))


def pictures(report: StudyReport) -> tuple[Chart, ...]:
    """One chart a claim, named by it.

    Args:
        report: The finished study.
    """
    return tuple(drawing.drawn(one.judged.id, one.picture) for one in report.concluded)


def headline(report: StudyReport) -> Text:
    """How many claims were reproduced, not reproduced, or are open.

    Args:
        report: The finished study.
    """
    claims = [j for j in report.verdicts if j.verdict is not Outcome.MEASURED]
    counts = {outcome: report.count(outcome) for outcome in Outcome}
    parts = [
        say("{k} not reproduced", "{k}件は再現されず", k=counts[Outcome.NOT_REPRODUCED]),
        say("{k} not decided", "{k}件は判断できません", k=counts[Outcome.INCONCLUSIVE]),
        say(
            "{k} findings beyond the source",
            "ほかに論文にない測定が{k}件",
            k=counts[Outcome.MEASURED],
        ),
    ]
    numbers = (Outcome.NOT_REPRODUCED, Outcome.INCONCLUSIVE, Outcome.MEASURED)
    kept = [part for part, which in zip(parts, numbers, strict=True) if counts[which]]
    first = say(
        "{r} of {n} claims reproduced",
        "{n}件の主張のうち{r}件が再現されました",
        r=counts[Outcome.REPRODUCED],
        n=len(claims),
    )
    rest = join(kept, ", ", "、")
    if not kept:
        return say("{f}.", "{f}。", f=first)
    return say("{f}; {r}.", "{f}。{r}。", f=first, r=rest)


def _circumstances(report: StudyReport) -> tuple[Text, ...]:
    return (
        say(
            "{m}, seed {s}",
            "{m}、乱数の種{s}",
            m=MODES.get(report.mode, Text(report.mode, report.mode)),
            s=report.seed,
        ),
        say(
            "measured on this computer, {d}, in {t}",
            "測定：このパソコン、{d}、所要{t}",
            d=report.created[:10],
            t=formats.duration(report.seconds),
        ),
    )


def _told(report: StudyReport) -> tuple[Text, ...]:
    told = [
        Text(
            "Each claim was written down, with its predicted range and number of repetitions, "
            "before the first run. Inside the range with its 99 % interval: reproduced; wholly "
            "outside: not reproduced; across an end: inconclusive.",
            "各主張は、予測の範囲と繰り返しの回数を最初の実行の前に書き出してから測定しました。99%の"
            "範囲が予測に収まれば「再現された」、完全に外れれば「再現されなかった」、またがれば"
            "「判断できない」です。",
        )
    ]
    if report.variant:
        told.append(
            say(
                "**Variant:** {v} was set by hand; the verdicts are about that, not about the "
                "source.",
                "**変更あり：**{v}を手動で設定しています。結果は元の論文そのものの検証ではありません。",
                v=verbatim(", ".join(report.variant)),
            )
        )
    return tuple(told)


def _table(report: StudyReport) -> Table:
    head = (
        Text("claim", "主張"),
        Text("verdict", "結果"),
        Text("measured (99 % range)", "測定値（99%の範囲）"),
        Text("predicted", "予測"),
        Text("n", "n"),
    )
    rows = tuple(
        (
            say("[{s}](#{i})", "[{s}](#{i})", s=one.sentence, i=anchor(one)),
            verdict(one.judged),
            measured(one.judged),
            predicted(one.judged),
            Text(str(one.judged.n), str(one.judged.n)),
        )
        for one in report.concluded
    )
    return Text("Every claim", "主張の一覧"), head, rows


def anchor(one: Concluded) -> str:
    """A claim's place in the page.

    Args:
        one: The claim.
    """
    return f"claim-{one.judged.id}"


def section(report: StudyReport, one: Concluded, before: Sequence[Concluded] = ()) -> Section:
    """A claim with its evidence.

    Args:
        report: Whose it is.
        one: The claim.
        before: Claims above it that have the same picture; what they say is not said again.
    """
    found = one.judged
    numbers = say(
        "{v}: {m} = {x}, predicted {p}, n = {n}. Source: {s}.",
        "{v}：{m}＝{x}、予測{p}、n＝{n}。出典：{s}。",
        v=verdict(found),
        m=one.measured,
        x=measured(found),
        p=predicted(found),
        n=found.n,
        s=verbatim(found.source),
    )
    if found.verdict is Outcome.MEASURED:
        numbers = say(
            "A finding beyond the source: {m} = {x}, n = {n}.",
            "論文にない測定：{m}＝{x}、n＝{n}。",
            m=one.measured,
            x=measured(found),
            n=found.n,
        )
    labelled = (("depends", one.depends), ("popular", one.popular), ("meaning", one.meaning))
    more = tuple(
        say("**{a}** {b}", "**{a}** {b}", a=LABELS[name], b=text)
        for name, text in labelled
        if text != EMPTY and all(text != getattr(other, name) for other in before)
    )
    paragraphs = (numbers, *_notes(one, report.mode), *more, *map(_above, before[:1]))
    return Section(anchor(one), one.sentence, paragraphs, () if before else (found.id,))


def _above(first: Concluded) -> Text:
    name = f"figure-{first.judged.id}"
    return say("[The same picture](#{i}) as above.", "図は[上](#{i})と同じです。", i=name)


def _notes(one: Concluded, mode: str) -> tuple[Text, ...]:
    found, notes = one.judged, []
    if found.verdict is Outcome.INCONCLUSIVE and found.decides:
        notes.append(
            say(
                "About {n} repetitions in all would decide.",
                "全部で約{n}回の繰り返しがあれば判断できます。",
                n=formats.count(found.decides),
            )
        )
    if found.missing:
        notes.append(
            say(
                "{k} of {n} repetitions gave no number, so the claim stays open.",
                "{n}回のうち{k}回は値が得られなかったため、判断できません。",
                k=found.missing,
                n=found.n,
            )
        )
    if found.needed != 0:
        notes.append(
            Text(
                "So few repetitions were known beforehand to decide in less than 9 of 10 cases, "
                "if the source is right.",
                "主張が正しくても、この回数では10回中9回も判断できないことが事前に分かっていました。",
            )
        )
    if found.needs_full and mode == "quick":
        notes.append(Text("`--full` takes enough.", "`--full`なら十分な回数を繰り返します。"))
    elif found.needed:
        notes.append(say("{n} would do.", "{n}回あれば十分です。", n=formats.count(found.needed)))
    return tuple(notes)


def verdict(found: Judged) -> Text:
    """The verdict in words, and whether the parameters were the study's own.

    Args:
        found: A claim's verdict.
    """
    words = WORDS[found.verdict]
    return say("{w} (variant)", "{w}（変更あり）", w=words) if found.variant else words


def measured(found: Judged) -> Text:
    """The number with its range.

    Args:
        found: A claim's verdict.
    """
    if not math.isfinite(found.value):
        return Text("no number", "値なし")
    unit = f" {found.unit}" if found.unit else ""
    value, low, high = (formats.number(x, 4) for x in (found.value, found.low, found.high))
    return say("{v}{u} ({a} to {b})", "{v}{u}（{a}～{b}）", v=value, a=low, b=high, u=unit)


def predicted(found: Judged) -> Text:
    """The predicted range.

    Args:
        found: A claim's verdict.
    """
    low, high = found.predicted_low, found.predicted_high
    if found.verdict is Outcome.MEASURED:
        return Text("–", "–")
    a, b = formats.number(low, 4), formats.number(high, 4)
    u = f" {found.unit}" if found.unit else ""
    if math.isinf(high):
        return say("above {a}{u}", "{a}{u}より大", a=a, u=u)
    if math.isinf(low):
        return say("below {b}{u}", "{b}{u}より小", b=b, u=u)
    return say("{a} to {b}{u}", "{a}～{b}{u}", a=a, b=b, u=u)


def _provenance(report: StudyReport) -> list[tuple[Text, str]]:
    parameters = ", ".join(f"{k} = {v}" for k, v in report.parameters.items())
    told = {
        "command": report.command,
        "created": report.created,
        "parameters": parameters,
        **report.provenance,
    }
    return [(names.provenance(name), value) for name, value in told.items()]
