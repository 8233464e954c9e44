"""The page: one HTML file with everything inside."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from types import SimpleNamespace
from typing import Any

import jinja2
import vl_convert
from markupsafe import Markup

from batchlab._text import LANGUAGES, Text, marked_up, plain, say
from batchlab.advisor.record import Advice
from batchlab.report import (
    apply,
    candidates,
    charts,
    comparing,
    evidence,
    facts,
    formats,
    method,
    names,
    said,
    wording,
    worth,
)
from batchlab.report.charts import shared
from batchlab.report.charts.shared import Chart
from batchlab.types import to_plain

LABELS = {
    "worth": Text("Is it worth it?", "採算は合うか"),
    "next": Text("Next step.", "次の一歩"),
    "untested": Text("Not tested:", "まだ確かめていないこと"),
    "engineer": Text("For the engineer.", "技術担当の方へ"),
    "meeting": Text("To say in the meeting", "会議でそのまま使える一文"),
    "copy": Text("copy", "コピー"),
    "copied": Text("copied", "コピーしました"),
    "evidence": Text("Evidence", "根拠"),
    "trainings": Text("Trainings a year", "年間の学習回数"),
    "trainings_unit": Text("", "回"),
    "price": Text("× price per hour", "× 1時間の費用"),
    "price_with_data": Text("× price per hour, data included", "× 1時間の費用（データ代を含む）"),
    "pick": Text("pick", "選択"),
    "pick_hint": Text(
        "Pick one here, or click it in a picture: it is highlighted in all of them.",
        "ここで選ぶか、図の点をクリックすると、すべての図で強調されます。",
    ),
    "numbers": Text("Numbers behind this picture", "この図の数値"),
    "csv": Text("Download as CSV", "CSVでダウンロード"),
    "apply": Text("Apply", "適用方法"),
    "all_settings": Text("All settings, for other tools", "設定一覧（ほかのツール用）"),
    "assumptions": Text("Assumptions", "前提"),
    "assumptions_title": Text(
        "What was assumed, or changed from your own loop", "置いた前提と、元の学習手順から変えた点"
    ),
    "none": Text("Nothing was assumed.", "置いた前提はありません。"),
    "method": Text("How this was measured", "測定の方法"),
    "provenance": Text("Where these numbers come from", "この数値の出どころ"),
    "noscript": Text(
        "The pictures need JavaScript; the sentences and tables above do not.",
        "図の表示にはJavaScriptが必要です（上の文章と表は不要です）。",
    ),
    "sources": Text("Sources", "出典"),
    "made_by": Text("made by batchlab", "作成：batchlab"),
}
_PRIVATE = (
    "command",
    "version",
    "created",
    "wall_seconds",
    "budget_seconds",
    "objective",
    "worth",
)


def render(advice: Advice) -> str:
    """The report as one self-contained HTML page, English and Japanese.

    Args:
        advice: The finished record.

    Returns:
        HTML; nothing in it is fetched from anywhere.
    """
    drawn = charts.charts(advice)
    return _template("page.html.j2").render(
        **_shared(wording.title(advice)),
        advice=advice,
        wording=wording,
        method=method.paragraphs(advice),
        candidates_title=candidates.title(advice),
        apply=apply,
        rows=wording.table(advice),
        head=wording.head(advice),
        worth=_worth_line(advice),
        sections=evidence.sections(advice, set(drawn)),
        charts=drawn,
        candidates=_candidates(advice),
        candidate_head=_candidate_head(advice),
        starting_pick=shared.starting_pick(advice),
        params=advice.params or _flat(advice),
        provenance=_provenance(advice),
        data=page_data(_data(advice, drawn)),
    )


def render_comparison(advices: Sequence[Advice]) -> str:
    """Several results side by side, as one self-contained HTML page.

    Args:
        advices: Two or more finished records.

    Returns:
        HTML.
    """
    drawn = {one.id: one for one in comparing.charts_of(advices)}
    return _template("compare.html.j2").render(
        **_shared(comparing.title(advices)),
        advices=advices,
        wording=wording,
        caution=comparing.caution(advices),
        columns=comparing.columns(advices),
        rows=comparing.rows(advices),
        charts=drawn,
        data=page_data(
            {"charts": _embedded(drawn), "config": shared.CONFIG, "picked": "", "worth": None}
        ),
    )


def page_data(content: Mapping[str, Any]) -> Markup:
    r"""Data for a script element: JSON in which nothing can end the element.

    Args:
        content: Plain values.

    Example:
        >>> str(page_data({"a": "</script>"}))
        '{"a":"\\u003c/script>"}'
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(safe)  # no "<" is left


def both(text: Text, tag: str = "span") -> Markup:
    """A text in both languages, of which the page shows one.

    Example:
        >>> str(both(Text("a", "あ")))
        '<span lang="en">a</span><span lang="ja">あ</span>'
    """
    if not text.en and not text.ja:
        return Markup("")
    return Markup("").join(
        Markup('<{0} lang="{1}">{2}</{0}>').format(tag, language, marked_up(text.of(language)))
        for language in LANGUAGES
    )


def _shared(title: Text) -> dict[str, Any]:
    """What both pages need."""
    return {
        "title": title,
        "plain": plain,
        "both": both,
        "say": say,
        "said": said,
        "labels": SimpleNamespace(**LABELS),
        "style": Markup(_file("style.css")),
        "script": Markup(_file("page.js")),
        "library": library(),
    }


@functools.lru_cache(maxsize=1)
def library() -> Markup:
    """Vega, Vega-Lite and Vega-Embed, to be put into the page."""
    bundle = vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]
    return Markup(bundle.replace("</script", "<\\/script"))


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(_file),
    )
    return environment.get_template(name)


def _file(name: str) -> str:
    return (resources.files("batchlab.report") / name).read_text(encoding="utf-8")


def _worth_line(advice: Advice) -> dict[str, Any]:
    """The money line: its fields and what stands in them when the page opens."""
    found = worth.of(advice)
    return {
        "fields": found,
        "priced": advice.price is not None,
        "price": LABELS["price_with_data" if facts.pays_for_data(advice) else "price"],
        "unit": worth.per_hour_unit(advice),
        "line": worth.line(found, worth.condition(advice)) if found else worth.unknown(advice),
        "example": worth.example(advice),
        "spent": worth.spent(advice),
        "doubt": worth.doubt(advice),
    }


def _data(advice: Advice, drawn: dict[str, Chart]) -> dict[str, Any]:
    sizes = {
        c.setting.id: c.setting.batch_size
        for c in advice.candidates
        if isinstance(c.setting.batch_size, int)
    }
    return {
        "charts": _embedded(drawn),
        "config": shared.CONFIG,
        "picked": shared.starting_pick(advice),
        "ids": [c.setting.id for c in advice.candidates],
        "sizes": sizes,
        "worth": worth.for_page(advice),
        "copied": LABELS["copied"]._asdict(),
        "file": f"batchlab-{_file_name(advice.task)}",
    }


def _file_name(task: str) -> str:
    kept = "".join(c if c.isalnum() and c.isascii() else "-" for c in task)
    return kept.strip("-")[:40] or "task"


def _embedded(drawn: dict[str, Chart]) -> dict[str, Any]:
    return {
        name: {
            "specs": chart.specs,
            "rows": chart.rows,
            "columns": [[key, title._asdict()] for key, title in chart.columns],
        }
        for name, chart in drawn.items()
    }


def _candidates(advice: Advice) -> list[tuple[str, str, tuple[Text, ...]]]:
    """Id, role and cells of each row; columns without any number are left out."""
    used = _used_columns(advice)
    return [
        (
            row.setting.id,
            facts.role(advice, row.setting.id),
            tuple(c for c, keep in zip(candidates.cells(advice, row), used, strict=True) if keep),
        )
        for row in advice.candidates
    ]


def _candidate_head(advice: Advice) -> tuple[Text, ...]:
    used = _used_columns(advice)
    return tuple(t for t, keep in zip(candidates.HEAD, used, strict=True) if keep)


def _used_columns(advice: Advice) -> list[bool]:
    cells = [candidates.cells(advice, row) for row in advice.candidates]
    width = len(candidates.HEAD)
    return [any(row[column].en != "–" for row in cells) for column in range(width)]


def _flat(advice: Advice) -> dict[str, Any]:
    return to_plain(advice.recommended)


def _provenance(advice: Advice) -> list[tuple[Text, str]]:
    """Names and values; the user's own words stay as they are."""
    told = {name: _shown(getattr(advice, name)) for name in _PRIVATE} | advice.provenance
    return [(names.provenance(k), str(v)) for k, v in told.items()]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return formats.number(value, 4)
    return "–" if value is None else str(value)
