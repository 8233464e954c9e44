"""The page as a reader uses it, in Chromium: nothing fetched, nothing said to the console."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from batchlab import report
from batchlab._platform import write_whole
from batchlab._text import plain
from batchlab.advisor.record import Advice
from batchlab.report import worth
from tests.report import sample

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ODD = ("batch schedule", "all diverged", "noise not resolved", "none reached", "loss as metric")
A4_WIDTH, A4_HEIGHT = 703, 1032
"""CSS pixels of an A4 page less 12 mm on each side: 186 mm × 273 mm at 96 per inch."""

pytestmark = pytest.mark.browser


@dataclass
class Opened:
    """A page, and what it said and asked for."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Pages(Mapping[str, Path]):
    """Pages by name, each written when it is first opened, by whichever process opens it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._build = folder, _builders()

    def __getitem__(self, name: str) -> Path:
        path = self._folder / f"{name}.html"
        if not path.exists():
            self._build[name](path)
        return path

    def __iter__(self) -> Iterator[str]:
        return iter(self._build)

    def __len__(self) -> int:
        return len(self._build)


def _builders() -> dict[str, Callable[[Path], None]]:
    evil = "</script><img src=x onerror=alert(1)>"
    advices = {
        **{name: functools.partial(build, sample.YEN) for name, build in sample.ALL.items()},
        "evil": lambda: sample.change(task=evil, assumptions=(evil,), provenance={evil: evil}),
        **{name: functools.partial(_odd, name) for name in ODD},
        "robust": sample.robust,
        **{kind: functools.partial(sample.seen, kind=kind) for kind in ("image", "signal")},
        "free": lambda: sample.change(None),
    }
    written = {name: functools.partial(_write, build) for name, build in advices.items()}
    return written | {"compare": _write_compare}


def _odd(name: str) -> Advice:
    return sample.odd()[name]


def _write(build: Callable[[], Advice], path: Path) -> None:
    report.write(build(), path)


def _write_compare(path: Path) -> None:
    write_whole(path, report.compare_page([sample.change(), sample.keep()]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """One folder for all parallel processes of a test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "報告 with space"
    folder.mkdir(exist_ok=True)
    return Pages(folder)


@pytest.fixture
def visit(chromium: Browser, files: Pages) -> Iterator[Any]:
    contexts = []

    def go(
        name: str,
        query: str = "",
        width: int = 1280,
        locale: str = "en-US",
        drawn: bool = True,
    ) -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, locale=locale, accept_downloads=True
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.on("console", lambda message: opened.console.append(message.text))
        opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(files[name].as_uri() + query)
        if drawn:
            ready(opened.page)
        return opened

    yield go
    for context in contexts:
        context.close()


def ready(page: Page) -> None:
    """Until every picture is drawn and has answered."""
    page.evaluate("async () => { await batchlab.ready(); }")
    page.evaluate(
        "async () => { for (const v of batchlab.views.values()) await v.view.runAsync(); }"
    )


def picked_in_charts(page: Page) -> set[str]:
    return set(
        page.evaluate(
            "() => Array.from(batchlab.views.values()).map((v) => v.view.signal('picked'))"
        )
    )


# ------------------------------------------------------------------ quiet and closed


PAGES = [*sample.ALL, "robust", "image", "signal", "evil", "free", "compare"]
QUIET = ("change", "screened", "robust", "image", "evil", "compare")


def some(*fast: Any, rest: Iterable[Any] = ()) -> list[Any]:
    """Cases for every run of the tests, and like ones for the slow run."""
    return [*fast, *(pytest.param(*_tuple(case), marks=pytest.mark.slow) for case in rest)]


def _tuple(case: Any) -> tuple[Any, ...]:
    return case if isinstance(case, tuple) else (case,)


@pytest.mark.parametrize(
    ("name", "query"),
    some(
        *((name, "?lang=en") for name in QUIET),
        (PAGES[0], "?lang=ja"),
        rest=[
            *((name, "?lang=en") for name in PAGES if name not in QUIET),
            *((name, "?lang=ja") for name in PAGES[1:]),
        ],
    ),
)
def test_nothing_is_said_to_the_console_and_nothing_is_fetched(
    visit: Any, name: str, query: str
) -> None:
    opened = visit(name, query)
    assert opened.console == []
    assert len(opened.requests) == 1
    assert opened.page.locator(".chart svg").count() == opened.page.locator(".chart").count() > 0


@pytest.mark.parametrize("name", some(*ODD[:2], rest=ODD[2:]))
def test_odd_records_are_drawn_quietly_whatever_is_picked(visit: Any, name: str) -> None:
    opened = visit(name)
    page = opened.page
    for radio in page.locator("input[name=candidate]").all():
        radio.check()
        ready(page)
    assert opened.console == []
    assert page.locator(".chart svg").count() == page.locator(".chart").count() > 0


def test_the_charts_menu_has_no_links(visit: Any) -> None:
    page = visit("change").page
    assert page.locator(".vega-actions, .vega-embed details").count() == 0
    assert page.locator("a[href^='http']").count() == 0


# ------------------------------------------------------------------ language


@pytest.mark.parametrize(
    ("locale", "query", "expected"),
    [
        ("en-US", "", "en"),
        ("de-DE", "", "en"),
        ("ja-JP", "", "ja"),
        ("ja-JP", "?lang=en", "en"),
        ("en-US", "#ja", "ja"),
    ],
)
def test_the_page_opens_in_the_browsers_language(
    visit: Any, locale: str, query: str, expected: str
) -> None:
    page = visit("change", query, locale=locale, drawn=False).page
    assert page.evaluate("document.documentElement.lang") == expected
    other = "ja" if expected == "en" else "en"
    assert page.locator(f"h1 [lang={expected}]").first.is_visible()
    assert page.locator(f"h1 [lang={other}]").first.is_hidden()


def test_the_language_changes_without_a_reload(visit: Any) -> None:
    opened = visit("change")
    page = opened.page
    page.evaluate("window.stayed = true")
    page.get_by_role("button", name="日本語").click()
    ready(page)
    assert "変えるのは2か所だけです" in page.locator("h1").inner_text()
    assert "Change two settings" not in page.locator("h1").inner_text()
    assert "バッチサイズ" in page.locator("#chart-speed").inner_text()
    assert "学習設定の見直し提案" in page.title()
    page.get_by_role("button", name="English").click()
    ready(page)
    assert "Change two settings" in page.locator("h1").inner_text()
    assert "batch size" in page.locator("#chart-speed").inner_text()
    assert page.evaluate("window.stayed") is True
    assert opened.console == []


def test_nothing_english_is_left_on_the_japanese_first_screen(visit: Any) -> None:
    page = visit("change", "?lang=ja", drawn=False).page
    text = page.locator("#first").inner_text()
    for code in page.locator("#first code:visible").all():
        text = text.replace(code.inner_text(), "")
    left = set(re.findall(r"[A-Za-z]{3,}", text))
    assert left <= {"digits", "English", "CPU"}


def test_two_japanese_characters_draw_different_pixels(visit: Any) -> None:
    page = visit("change", "?lang=ja", drawn=False).page
    drawn = page.evaluate(
        """() => ["日", "本"].map((letter) => {
            const canvas = document.createElement("canvas");
            canvas.width = canvas.height = 64;
            const pen = canvas.getContext("2d");
            pen.font = "48px " + getComputedStyle(document.body).fontFamily;
            pen.fillText(letter, 4, 52);
            return Array.from(pen.getImageData(0, 0, 64, 64).data).join();
        })"""
    )
    assert drawn[0] != drawn[1]
    assert all("255" in pixels for pixels in drawn)


# ------------------------------------------------------------------ one value for the whole page


def test_the_page_opens_with_the_recommendation_picked(visit: Any) -> None:
    page = visit("change").page
    assert page.locator("input[name=candidate]:checked").get_attribute("value") == "B64-lr0.2"
    assert picked_in_charts(page) == {"B64-lr0.2"}


def test_a_choice_in_the_table_is_highlighted_in_every_picture(visit: Any) -> None:
    page = visit("change").page
    before = page.locator("#chart-pareto svg").inner_html()
    page.locator("input[name=candidate][value='B16-lr0.05']").check()
    ready(page)
    assert picked_in_charts(page) == {"B16-lr0.05"}
    assert page.locator("#chart-pareto svg").inner_html() != before


def test_the_table_is_a_keyboard_route(visit: Any) -> None:
    page = visit("change").page
    page.locator("input[name=candidate]:checked").focus()
    page.keyboard.press("ArrowDown")
    ready(page)
    chosen = page.locator("input[name=candidate]:checked").get_attribute("value")
    assert chosen != "B64-lr0.2"
    assert picked_in_charts(page) == {chosen}


def click_symbol(page: Page, chart: str, words: str) -> None:
    """Click the symbol whose description holds the words."""
    symbol = page.locator(f"#chart-{chart} svg path[aria-label*='{words}']").last
    symbol.scroll_into_view_if_needed()
    symbol.click(force=True)
    ready(page)


@pytest.mark.parametrize(
    ("chart", "words", "expected"),
    [
        ("pareto", "setting: B128-lr0.2", "B128-lr0.2"),
        ("plane", "batch size (examples): 16; learning rate: 0.05;", "B16-lr0.05"),
        ("speed", "batch size: 8;", "B8-lr0.025"),
        ("memory", "batch size: 256;", "B256-lr0.4"),
    ],
)
def test_a_click_in_a_picture_is_chosen_in_the_table(
    visit: Any, chart: str, words: str, expected: str
) -> None:
    page = visit("change").page
    click_symbol(page, chart, words)
    assert page.locator("input[name=candidate]:checked").get_attribute("value") == expected
    assert picked_in_charts(page) == {expected}


def test_the_choice_survives_the_language_and_another_axis(visit: Any) -> None:
    page = visit("change").page
    page.locator("input[name=candidate][value='B8-lr0.025']").check()
    page.get_by_role("button", name="日本語").click()
    page.locator("select[data-chart=curves][data-choice='1']:visible").select_option("money")
    page.locator("select[data-chart=curves][data-choice='0']:visible").select_option("loss")
    ready(page)
    assert picked_in_charts(page) == {"B8-lr0.025"}
    assert "費用（円）" in page.locator("#chart-curves").inner_text()
    assert "損失" in page.locator("#chart-curves").inner_text()


@pytest.mark.parametrize("value", ["metric", "loss"])
def test_every_axis_of_the_curves_draws_lines(visit: Any, value: str) -> None:
    opened = visit("change")
    page = opened.page
    page.locator("select[data-chart=curves][data-choice='0']:visible").select_option(value)
    for axis in ("samples", "epochs", "updates", "seconds", "money"):
        page.locator("select[data-chart=curves][data-choice='1']:visible").select_option(axis)
        ready(page)
        assert page.locator("#chart-curves svg .mark-line path").count() >= 7, axis
    assert opened.console == []


# ------------------------------------------------------------------ numbers


def test_the_money_line_follows_its_fields(visit: Any) -> None:
    page = visit("change", "?lang=ja", drawn=False).page
    line = page.locator("#worth-line")
    assert "12万8千円" in line.inner_text()
    page.locator("#trainings").fill("5000")
    assert "128万円" in line.inner_text()
    page.locator("#hours").fill("0.001")
    page.locator("#trainings").fill("10")
    assert "変更の理由になるほどの額ではありません" in line.inner_text()
    page.locator("#price").fill("")
    assert "NaN" not in line.inner_text()


@pytest.mark.parametrize(
    "name", some("change", "free", rest=("keep", "open", "projected", "minimised"))
)
def test_page_and_record_compute_the_same_money(visit: Any, name: str) -> None:
    advice = sample.change(None) if name == "free" else sample.ALL[name](sample.YEN)
    found = worth.of(advice)
    assert found is not None
    page = visit(name, drawn=False).page
    for trainings, hours, price in [(500, 3.0, 180.0), (1, 0.2, 1.0), (40000, 12.5, 950.0)]:
        per_hour = 1.0 if name == "free" else price
        values = {"trainings": trainings, "hours": hours, "per_hour": per_hour}
        changed = worth.Worth(**{**vars(found), **values})
        expected = worth.line(changed, worth.condition(advice))
        for language in ("en", "ja"):
            said = page.evaluate(
                "([t, h, p, l]) => batchlab.worthLine(t, h, p, l)",
                [trainings, hours, per_hour, language],
            )
            assert said == expected.of(language)  # type: ignore[arg-type]


def test_the_line_written_by_the_record_is_the_line_the_page_computes(visit: Any) -> None:
    advice = sample.change(sample.YEN)
    found = worth.of(advice)
    assert found is not None
    page = visit("change", drawn=False).page
    shown = page.locator("#worth-line [lang=en]").inner_text()
    assert shown.strip() == plain(worth.line(found, worth.condition(advice)).en).strip()


def test_without_a_price_there_is_no_money_field(visit: Any) -> None:
    page = visit("free", drawn=False).page
    assert page.locator("#price").count() == 0
    assert page.locator("#hours").count() == 1
    assert "hours of computing a year saved" in page.locator("#worth-line").inner_text()
    assert "USD" not in page.locator("#first").inner_text()


def test_every_picture_has_its_numbers_and_its_csv(visit: Any) -> None:
    page = visit("change").page
    for figure in page.locator("figure").all():
        figure.locator("summary").click()
        figure.locator("table").wait_for()
        assert figure.locator("table tr").count() > 1
        assert figure.locator("table th").first.inner_text()
        with page.expect_download() as download:
            figure.locator("button.csv").click()
        text = Path(download.value.path()).read_text(encoding="utf-8-sig")
        assert len(text.splitlines()) == figure.locator("table tr").count()
        assert download.value.suggested_filename.startswith("batchlab-digits-")


def test_every_picture_is_described(visit: Any) -> None:
    page = visit("change", "?lang=ja").page
    for chart in page.locator(".chart").all():
        assert chart.get_attribute("role") == "graphics-document"
        assert re.search("[ぁ-ん]", chart.get_attribute("aria-label") or "")


def test_the_meeting_sentence_is_copied(chromium: Browser, files: dict[str, Path]) -> None:
    context = chromium.new_context(locale="ja-JP")
    page = context.new_page()
    page.goto(files["change"].as_uri())
    page.evaluate(
        """() => {
            navigator.clipboard.writeText = async (text) => { window.kept = text; };
        }"""
    )
    page.locator("#copy").click()
    page.wait_for_function("window.kept !== undefined")
    assert page.evaluate("window.kept").startswith("試験用の学習では")
    assert "コピーしました" in page.locator("#copied").inner_text()
    context.close()


def test_pictures_of_units_are_shown_and_lead_from_the_first_screen(visit: Any) -> None:
    page = visit("image", drawn=False).page
    page.locator("#first a[href='#features'] >> visible=true").click()
    assert page.evaluate("location.hash") == "#features"
    sizes = page.evaluate(
        "() => Array.from(document.querySelectorAll('.unit img')).map((i) => i.naturalWidth)"
    )
    assert sizes == [8] * 96
    assert visit("signal", drawn=False).page.locator(".unit svg rect").count() == 24


# ------------------------------------------------------------------ phone and paper

PHONE = ("change", "screened", "compare", "evil", "image", "signal")
PAPER = ("change", "open", "screened", "minimised", "image")


@pytest.mark.parametrize(
    ("name", "query"),
    some(
        *((name, "?lang=en") for name in PHONE[:3]),
        ("change", "?lang=ja"),
        ("screened", "?lang=ja"),
        ("compare", "?lang=ja"),
        rest=[(name, lang) for name in PHONE[3:] for lang in ("?lang=en", "?lang=ja")],
    ),
)
def test_a_phone_shows_the_page_without_scrolling_sideways(
    visit: Any, name: str, query: str
) -> None:
    page = visit(name, query, width=360).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = page.evaluate(
        """() => Array.from(document.querySelectorAll(".chart svg"))
            .filter((svg) => svg.getBoundingClientRect().right > 361).length"""
    )
    assert wide == 0


@pytest.mark.parametrize(
    ("name", "query"),
    some(
        *((name, "?lang=en") for name in PAPER[:2]),
        ("change", "?lang=ja"),
        ("open", "?lang=ja"),
        rest=[(name, lang) for name in PAPER[2:] for lang in ("?lang=en", "?lang=ja")],
    ),
)
def test_the_first_screen_prints_on_one_page(visit: Any, name: str, query: str) -> None:
    page = visit(name, query, drawn=False).page
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4_WIDTH, "height": A4_HEIGHT})
    assert page.evaluate("document.getElementById('first').offsetHeight") < A4_HEIGHT
    page.evaluate("document.getElementById('evidence').remove()")
    printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == 1


def test_the_evidence_starts_on_a_page_of_its_own(visit: Any) -> None:
    page = visit("change", drawn=False).page
    page.evaluate(
        """() => {
            const evidence = document.getElementById("evidence");
            evidence.replaceChildren(document.createTextNode("one line"));
        }"""
    )
    printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) == 2
