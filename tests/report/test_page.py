"""The page as text: everything inside, nothing from outside, a user's words never code."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import json
import re
from importlib import resources
from pathlib import Path

import pytest
from rich.console import Console

from batchlab import report
from batchlab._text import Text
from batchlab.advisor.record import Advice, MetricInfo
from batchlab.errors import InvalidValueError
from batchlab.report import apply, evidence
from batchlab.report.page import both, page_data
from tests.report import sample

DRAWN_OTHERWISE = (
    "nothing but a baseline",
    "nothing fits",
    "batch schedule",
    "no range",
    "another optimiser",
    "out of memory",
    "speed not measured",
    "noise not resolved",
    "one point of noise",
    "a curve of one point",
    "curves without seconds",
    "all diverged",
    "none reached",
    "free of charge",
)
EVIL = "</script><img src=x onerror=alert(1)>"


class Elements(html.parser.HTMLParser):
    """What the browser would see: tags, their attributes, and the content of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.data.append(data)


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


def embedded(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


@pytest.fixture(scope="module")
def page() -> str:
    return report.render(sample.change())


def test_the_page_is_at_most_three_megabytes(page: str) -> None:
    assert len(page.encode()) <= 3 * 2**20


def test_nothing_is_fetched_from_outside(page: str) -> None:
    for tag, attributes in parsed(page).tags:
        for name in ("src", "href", "action", "srcset", "data"):
            target = attributes.get(name) or ""
            assert not target or target.startswith(("#", "data:")), (tag, target)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("name", list(sample.ALL))
def test_every_variant_renders(name: str) -> None:
    text = report.render(sample.ALL[name](None if name == "keep" else sample.YEN))
    assert text.count("<h1") == 1
    assert embedded(text)["charts"]


@pytest.mark.parametrize("name", DRAWN_OTHERWISE)
def test_odd_records_render(name: str) -> None:
    assert embedded(report.render(sample.odd()[name]))


def test_every_place_that_is_linked_exists(page: str) -> None:
    tags = parsed(page).tags
    places = {attributes.get("id") for _tag, attributes in tags}
    links = {a["href"] for _tag, a in tags if (a.get("href") or "").startswith("#")}
    assert {"#apply", "#evidence"} <= links
    assert {str(link)[1:] for link in links} <= places


def test_ids_are_unique(page: str) -> None:
    ids = [a["id"] for _tag, a in parsed(page).tags if a.get("id")]
    assert len(ids) == len(set(ids))


def test_both_languages_are_complete(page: str) -> None:
    tags = parsed(page).tags
    english = sum(a.get("lang") == "en" for tag, a in tags if tag == "span")
    japanese = sum(a.get("lang") == "ja" for tag, a in tags if tag == "span")
    assert english == japanese > 100


def evil(advice: Advice) -> Advice:
    """Every word that a user can choose, chosen badly."""
    memory = advice.memory
    assert memory is not None
    points = (*memory.points[:-1], dataclasses.replace(memory.points[-1], reason=EVIL, fits=False))
    return dataclasses.replace(
        advice,
        task=EVIL,
        command=EVIL,
        device=EVIL,
        metric=MetricInfo(EVIL, True, ""),
        memory=dataclasses.replace(memory, points=points, limit_source=EVIL, bound_by=EVIL),
        assumptions=(EVIL,),
        provenance={EVIL: EVIL},
        params={EVIL: EVIL},
        at_least={EVIL: False},
        next_stage=dataclasses.replace(sample.change().next_stage, command=EVIL),  # type: ignore[type-var]
    )


@pytest.mark.parametrize("name", ["change", "screened", "projected"])
def test_a_users_words_never_become_elements(name: str) -> None:
    text = report.render(evil(sample.ALL[name]()))
    tags = parsed(text).tags
    assert not [tag for tag, _a in tags if tag == "img"]
    assert not [a for _tag, a in tags if "onerror" in a]
    assert sum(tag == "script" for tag, _a in tags) == 3
    assert embedded(text)


def test_unescaped_words_would_be_noticed() -> None:
    assert [tag for tag, _a in parsed(f"<p>{EVIL}</p>").tags if tag == "img"]


def test_data_cannot_end_their_element() -> None:
    assert "<" not in page_data({"a": EVIL, "b": "<!--"})
    assert json.loads(page_data({"a": EVIL})) == {"a": EVIL}


def test_a_text_is_escaped_in_both_languages() -> None:
    assert "<img" not in both(Text(EVIL, EVIL))


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "結果 と space" / "report.html"
    path.parent.mkdir()
    report.write(sample.screened(), path)
    assert path.read_text(encoding="utf-8").endswith("</html>")


@pytest.mark.parametrize("name", list(sample.ALL))
@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_summary_has_ten_lines(name: str, language: str) -> None:
    text = report.summary(sample.ALL[name](), language)  # type: ignore[arg-type]
    lines = text.splitlines()
    assert len(lines) == 10
    assert all(line.strip("-#* ") for line in lines)


@pytest.mark.parametrize("name", list(sample.ALL))
def test_the_terminal_shows_the_answer_and_the_table(name: str) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(report.terminal(sample.ALL[name]()))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Next step:" in shown
    assert "today" in shown
    assert "**" not in shown


def test_rich_markup_in_a_users_words_stays_words() -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(report.terminal(sample.change(task="[red]x[/red]")))
    assert "[red]x[/red]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_results_stand_side_by_side() -> None:
    text = report.compare_page([sample.change(), sample.keep()])
    assert "A: digits" in text
    assert "B: pumps" in text
    assert set(embedded(text)["charts"]) == {"speed", "seconds"}  # type: ignore[call-overload]


def test_results_of_different_tasks_carry_a_caution() -> None:
    assert "results of different tasks" in report.compare_page([sample.change(), sample.keep()])
    assert "different tasks" not in report.compare_page([sample.change(), sample.change()])


def test_one_result_cannot_stand_side_by_side() -> None:
    with pytest.raises(InvalidValueError, match="two to six"):
        report.compare_page([sample.change()])


def test_the_patch_holds_the_two_lines() -> None:
    text = report.render(sample.change())
    assert "-batch_size = 32" in text
    assert "+batch_size = 64" in text
    assert "torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9" in text


def test_templates_are_found_as_package_data() -> None:

    for name in ("page.html.j2", "compare.html.j2", "figure.html.j2", "style.css", "page.js"):
        assert (resources.files("batchlab.report") / name).is_file()


@pytest.mark.parametrize(("there", "said"), [(True, "lies beside"), (False, "name the task as")])
def test_the_page_names_the_script_only_where_there_is_one(there, said):
    text = apply.note(sample.change(has_script=there))
    assert said in text.en
    assert ("同じフォルダー" in text.ja) is there


@pytest.mark.parametrize("best", [True, False])
def test_why_a_setting_that_looks_better_is_not_advised_is_said_where_there_is_one(best):
    made = sample.change()
    rows = tuple(
        dataclasses.replace(row, pareto=best) if row.setting.id == made.recommended.id else row
        for row in made.candidates
    )
    notes = evidence.pareto_notes(sample.change(candidates=rows))
    assert any("is not exchanged" in note.en for note in notes) is not best
    assert any("取り替えません" in note.ja for note in notes) is not best
