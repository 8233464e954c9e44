"""The pages of watched trainings as a reader uses them, in Chromium."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from batchlab import report
from batchlab.advisor.record import Price
from batchlab.advisor.watched import Asked, compare
from batchlab.report.watching import WatchReport, page
from batchlab.watch import judge
from batchlab.watch.record import gathered
from tests.advisor.watched.made import lines_of, run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
PRICE = Price(2.5, "USD")

pytestmark = pytest.mark.browser


def alone(**what):
    watched = gathered(lines_of(**what))
    return page(WatchReport("runs/real", watched, judge(watched), PRICE, {}, "batchlab report"))


def compared():
    runs = [run(f"t{i}", seed=i, pace=1 + 0.1 * i) for i in range(3)]
    runs += [run(f"o{i}", seed=i, pace=0.5, batch=64, rate=0.2) for i in range(3)]
    runs += [
        run("lost", batch=64, rate=0.2, diverged=True),
        run("going", batch=64, rate=0.2, ending=None, steps=6),
    ]
    return report.render(compare(runs, Asked("gears", price=PRICE, command="batchlab report t o")))


PAGES = {
    "one": lambda: alone(),
    "diverged": lambda: alone(diverged=True),
    "barely begun": lambda: alone(steps=1, ending=None),
    "compared": compared,
}


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, make in PAGES.items():
        (folder / f"{name}.html").write_text(make(), "utf-8")
    return folder


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("language", "width"), [("en", 1280), ("ja", 360)])
def test_every_picture_is_drawn_over_every_axis_and_nothing_is_fetched(
    chromium, files, name, language, width
):
    opened = chromium.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto((files / f"{name}.html").as_uri() + f"?lang={language}")
    opened.evaluate("async () => { await batchlab.ready(); }")
    for select in opened.locator(f'select.choice[lang="{language}"]').all():
        for option in select.locator("option").all():
            select.select_option(option.get_attribute("value"))
            opened.evaluate("async () => { await batchlab.ready(); }")
    assert said == []
    assert len(asked) == 1
    assert opened.locator(".chart svg").count() == opened.locator(".chart").count() > 0
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    opened.close()


def test_a_run_of_the_candidate_picked_is_strong(chromium, files):
    opened = chromium.new_page()
    opened.goto((files / "compared.html").as_uri())
    opened.evaluate("async () => { await batchlab.ready(); }")
    opened.locator("#pick-1").check()
    assert opened.evaluate("batchlab.views.get('curves').view.signal('picked')") == "today"
    opened.close()
