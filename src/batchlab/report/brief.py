"""The advice in short: ten lines of Markdown, and what the terminal shows."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text as RichText

from batchlab._text import Language, Text, join, markdown, plain
from batchlab.advisor.record import Advice
from batchlab.report import (
    echoing,
    evidence,
    facts,
    growing,
    searching,
    strengthening,
    wording,
    worth,
)


def summary(advice: Advice, language: Language = "en") -> str:
    """The advice in ten lines of Markdown.

    Args:
        advice: The finished record.
        language: ``en`` or ``ja``.

    Returns:
        Ten lines.
    """
    lines = (
        _heading(advice),
        wording.headline(advice),
        *_key_rows(advice),
        _worth(advice),
        _labelled("Next step:", "次の一歩：", wording.next_step(advice)),
        _labelled("Not tested:", "まだ確かめていないこと：", wording.not_tested(advice)),
        _labelled(
            "For the engineer:",
            "技術担当の方へ：",
            join(wording.engineer(advice)[:-2], " · ", "・"),
        ),
        _labelled("In the meeting:", "会議でそのまま使える一文：", wording.meeting(advice)),
        Text("Evidence in `report.html`.", "根拠は`report.html`にあります。"),
    )
    marks = ("# ", "**", "- ", "- ", "- ", "- ", "- ", "- ", "- ", "")
    written = [
        _line(mark, markdown(text.of(language))) for mark, text in zip(marks, lines, strict=True)
    ]
    return "\n".join(written) + "\n"


def _line(mark: str, words: str) -> str:
    return f"**{words}**" if mark == "**" else mark + words


def _heading(advice: Advice) -> Text:
    parts = (wording.title(advice), *wording.circumstances(advice))
    joined = join(parts, " · ", "・")
    return Text(joined.en.replace("**", ""), joined.ja.replace("**", ""))


def _labelled(en: str, ja: str, text: Text) -> Text:
    return Text(f"{en} {text.en}", f"{ja}{text.ja}")


def _key_rows(advice: Advice) -> tuple[Text, Text]:
    """The two rows that matter most: the first with a difference, and the metric's."""
    rows = [r for r in wording.table(advice) if r.difference.en or r.sure.en]
    nothing = Text("Nothing else has been compared.", "ほかに比較したものはありません。")
    chosen = [_row(r) for r in (rows[:1] + rows[-1:] if len(rows) > 1 else rows)]
    first, second = (*chosen, nothing, nothing)[:2]
    metric = [r for r in rows if r.difference.en and "point" in r.difference.en]
    return (first, _row(metric[0]) if metric else second)


def _row(row: wording.Row) -> Text:
    tail = [t for t in (row.difference, row.sure) if t.en]
    rest = join(tail, "; ", "、")
    return Text(
        f"{row.label.en}: {row.today.en or '–'} → {row.recommended.en}; {rest.en}",
        f"{row.label.ja}：{row.today.ja or '–'} → {row.recommended.ja}、{rest.ja}",
    )


def _with_data(advice: Advice) -> Text:
    paid = facts.pays_for_data(advice)
    return Text(", data included" if paid else "", "（データ代を含む）" if paid else "")


def _worth(advice: Advice) -> Text:
    found = worth.of(advice)
    if found is None:
        return join((worth.unknown(advice), worth.spent(advice)))
    unit = worth.per_hour_unit(advice)
    price = (
        Text(
            f" × {found.per_hour:g}{unit.en} per hour{_with_data(advice).en}",
            f"×1時間{found.per_hour:g}{unit.ja}{_with_data(advice).ja}",
        )
        if advice.price
        else Text("", "")
    )
    start = Text(
        f"{found.trainings:,} trainings a year × {found.hours:g} h{price.en}:",
        f"年間{found.trainings:,}回×{found.hours:g}時間{price.ja}：",
    )
    return join((start, worth.line(found, worth.condition(advice)), worth.spent(advice)))


def terminal(advice: Advice) -> Group:
    """What the command line shows: the answer, the table and the reasons, in English.

    Args:
        advice: The finished record.

    Returns:
        To be printed with rich.
    """
    parts: list[RenderableType] = [
        RichText(plain(_heading(advice).en), style="dim"),
        RichText(""),
        RichText(plain(wording.headline(advice).en), style="bold"),
        RichText(""),
    ]
    rows = wording.table(advice)
    if rows:
        parts += [_rich_table(advice, rows), RichText("")]
    parts += [_reason(text) for text in _reasons(advice)]
    return Group(*parts)


def _rich_table(advice: Advice, rows: tuple[wording.Row, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for order, title in enumerate(wording.head(advice)):
        table.add_column(
            escape(plain(title.en)), justify="left", ratio=2 if order in (0, 4) else 1
        )
    for row in rows:
        table.add_row(*(RichText(plain(cell.en)) for cell in row))
    return table


def _reasons(advice: Advice) -> tuple[Text, ...]:
    """Why, in the order of the argument, then what comes next."""
    why = [
        evidence.speed_title(advice) if advice.memory else Text("", ""),
        evidence.noise_title(advice) if advice.noise else Text("", ""),
        evidence.plane_title(advice) if advice.plane else Text("", ""),
        echoing.sentence(advice.reusing, advice.metric) if advice.reusing else Text("", ""),
        searching.title(advice),
        _strength(advice),
        growing.sentence(advice.growing, advice.metric) if advice.growing else Text("", ""),
        evidence.target_source(advice),
        _labelled("Is it worth it?", "", _worth(advice)),
        _labelled("Next step:", "", wording.next_step(advice)),
        _labelled("Not tested:", "", wording.not_tested(advice)),
    ]
    return tuple(text for text in why if text.en)


def _strength(advice: Advice) -> Text:
    found = advice.strengthening
    return Text("", "") if found is None else strengthening.title(found, advice.metric)


def _reason(text: Text) -> Padding:
    return Padding(RichText("• " + plain(text.en)), (0, 0, 0, 0))
