"""The records, tables and pages of ``fit``, ``noise`` and ``compare``."""

import dataclasses
import html.parser
import json
import math
import re

import pytest
import vl_convert
from playwright.sync_api import sync_playwright

from batchlab.advisor.record import CurvePoint, MetricInfo
from batchlab.advisor.stages import Machine
from batchlab.config import RunConfig
from batchlab.measure.fit import FitResult, Trial
from batchlab.measure.noise import NoiseResult
from batchlab.report.findings import (
    READINGS,
    Compared,
    CompareReport,
    FitReport,
    NoiseReport,
    Origin,
    Place,
    Reading,
    difference,
    place,
    scale_text,
    setting_of,
    table,
)
from batchlab.report.measured import compare_page, fit_page, noise_page, readings
from batchlab.types import Estimate, Status, from_plain, to_plain

EVIL = "</script><img src=x onerror=alert(1)>"
CONFIG = RunConfig(rule="sgd", batch_size=32, learning_rate=0.1, samples=3200).resolved(1000)
ACCURACY = MetricInfo("accuracy", True, "%")
TODAY = setting_of(CONFIG, "today", 32, 0.1)
ORIGIN = Origin(
    "batchlab fit demo", "2026-11-21T09:30:00+00:00", 12.0, "cpu", 2, ("something assumed",),
    {"batchlab": "0.1.0", "seed": "0"}, "results",
)  # fmt: skip


def estimate(value, half=0.1, n=3, unit="s"):
    return Estimate(value, value * (1 - half), value * (1 + half), n, unit)


def fitted(task="demo", **changes):
    points = tuple(
        Trial(b, True, 2**20 * b, estimate(1000.0 * b**0.5), estimate(b**0.5 / 1000))
        for b in (1, 8, 32, 64)
    )
    failed = Trial(128, False, 0, reason="MemoryError: too much")
    given = {
        "largest": 64, "bound_by": "memory", "limit_bytes": 2**27, "limit_source": "asked for",
        "margin_bytes": 2**20, "points": (*points, failed), "knee": 32, "loader_share": 0.4,
        "sentence": "A micro-batch of 64 examples fits (64.0 MiB).",
    }  # fmt: skip
    found = FitResult(**(given | changes))
    machine = Machine(found, {}, 1, "cpu", "a processor", 2)
    return FitReport(task, "examples", TODAY, 1000, machine, ORIGIN)


def moment(samples, scale=None, at_least=None):
    return NoiseResult(samples, 1.0, 8.0, scale, at_least, "per example", 256)


def noisy(*moments, together=None, **changes):
    given = {
        "task": "demo", "unit": "examples", "today": TODAY, "batch_sizes": (32,),
        "train_examples": 1000, "samples": 3200, "moments": moments, "together": together,
        "status": Status.OK, "origin": ORIGIN,
    }  # fmt: skip
    return NoiseReport(**(given | changes))


def growing():
    scales = [Estimate(x, 0.8 * x, 1.3 * x, 256, "examples") for x in (100.0, 200.0, 400.0)]
    moments = [moment(800 * (i + 1), scale) for i, scale in enumerate(scales)]
    return noisy(*moments, moment(3200, None, 500.0), together=moment(1600, scales[1]))


def reading(value, gap=None, failed=0, updates=100):
    pairs = 0 if gap is None else 3
    metric = Estimate(value, value - 0.01, value + 0.01, 3, "%")
    seconds = estimate(0.01 * updates)
    return Reading(32 * updates, updates, metric, gap, 0, pairs, math.nan, 3, failed, seconds)


def gap(value, low, high):
    return Estimate(value, low, high, 3, "%")


def compared(task="demo", metric=ACCURACY):
    """Better, worse, undecided, and one that failed and is left out at equal updates."""
    per = estimate(0.01)
    rows = [
        Compared(TODAY, reading(0.9), reading(0.9), per),
        Compared(setting_of(CONFIG, "B8-lr0.1", 8, 0.1), reading(0.95, gap(0.05, 0.02, 0.08)),
                 reading(0.88, gap(-0.02, -0.04, 0.01)), per),
        Compared(setting_of(CONFIG, "B16-lr0.1", 16, 0.1), reading(0.94, gap(0.04, 0.01, 0.07)),
                 reading(0.85, gap(-0.05, -0.08, -0.02)), per),
        Compared(setting_of(CONFIG, "B512-lr9", 512, 9.0),
                 reading(-math.inf, gap(-math.inf, -math.inf, -math.inf), failed=3), None, per),
    ]  # fmt: skip
    curves = tuple(
        CurvePoint(one.setting.id, name, 320 * t, 0.32 * t, 10 * t, 0.1 * t, 0.1 + 0.08 * t,
                   0.08 * t, 0.12 + 0.08 * t, 3)
        for one in rows[:3] for name in ("loss", "metric") for t in range(11)
    )  # fmt: skip
    return CompareReport(
        task, "examples", metric, 3200, 100, (0, 1, 2), 1000, 100, tuple(rows), curves, ORIGIN
    )


PAGES = {
    "fit": lambda: fit_page(fitted()),
    "nothing fits": lambda: fit_page(fitted(largest=0, bound_by="nothing fits", points=(
        Trial(1, False, 0, reason="MemoryError: no"),), knee=None, loader_share=None)),
    "noise": lambda: noise_page(growing()),
    "no noise": lambda: noise_page(noisy(status=Status.DIVERGED)),
    "compare": lambda: compare_page(compared()),
}  # fmt: skip


# ------------------------------------------------------------------ records


@pytest.mark.parametrize(
    "found", [fitted(), growing(), compared()], ids=["fit", "noise", "compare"]
)
def test_records_survive_json(found):
    kept = json.loads(json.dumps(to_plain(found), allow_nan=False))
    assert str(from_plain(type(found), kept)) == str(found)


def test_a_setting_is_the_recipe_with_two_fields_changed():
    made = setting_of(CONFIG, "x", 8, 0.5)
    assert (made.id, made.batch_size, made.learning_rate, made.micro_batch_size) == (
        "x",
        8,
        0.5,
        8,
    )
    same = set(to_plain(made)) - {"id", "batch_size", "learning_rate", "micro_batch_size"}
    for name in same - {"accum_steps", "world_size", "other"}:
        assert getattr(made, name) == getattr(CONFIG, name), name


@pytest.mark.parametrize(
    ("size", "low", "high", "expected"),
    [
        (20, 80, 120, Place.FAR_BELOW),
        (21, 80, 120, Place.BELOW),
        (80, 80, 120, Place.AROUND),
        (120, 80, 120, Place.AROUND),
        (479, 80, 120, Place.ABOVE),
        (480, 80, 120, Place.FAR_ABOVE),
        (20, 80, math.inf, Place.FAR_BELOW),
        (80, 80, math.inf, Place.OPEN),
        (1, 0, math.inf, Place.OPEN),
    ],
)
def test_places_beside_the_noise_scale(size, low, high, expected):
    assert place(size, low, high) is expected


def test_every_place_has_a_reading():
    assert set(READINGS) == set(Place)


def test_the_span_covers_the_range_and_every_moment():
    assert growing().span == (100.0, 400.0)
    assert growing().places == (Place.BELOW,)


def test_an_unresolved_noise_scale_is_a_bound_or_nothing():
    assert noisy(together=moment(0, None, 200.0)).places == (Place.FAR_BELOW,)
    assert noisy(together=moment(0, None, 20.0)).places == (Place.OPEN,)
    assert noisy(together=moment(0)).places == noisy().places == (Place.OPEN,)
    assert scale_text(moment(0)).en == "not resolved"


def test_outside_the_sgd_family_the_reading_says_that_it_only_orders():
    adam = dataclasses.replace(TODAY, rule="adam")
    told = dataclasses.replace(growing(), today=adam).reading()
    assert "only orders batch sizes" in told[-1].en
    assert len(growing().reading()) == 1


def test_better_is_decided_by_the_whole_range_best_first():
    found = compared()
    assert [one.setting.id for one in found.better("samples")] == ["B8-lr0.1", "B16-lr0.1"]
    assert found.better("updates") == ()
    assert "batch size 8, learning rate 0.1 did best" in found.answer("samples").en
    assert (
        found.answer("updates").en
        == "At equal updates, no setting is clearly better than today's."
    )


def test_better_turns_round_for_a_minimised_metric():
    """The twin would name the settings that are worse."""
    found = compared(metric=MetricInfo("loss", False))
    assert "B8-lr0.1" not in [one.setting.id for one in found.better("samples")]
    assert [one.setting.id for one in found.better("updates")] == ["B16-lr0.1"]


def test_what_is_left_out_is_said_in_both_languages():
    (said,) = compared().said()
    assert "Batch size 512 is not compared at equal updates: 100 updates of it take 16" in said.en
    assert "512" in said.ja


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (gap(0.021, 0.01, 0.03), "+2.1 points (+1.0 to +3.0)"),
        (gap(0.02, math.nan, math.nan), "+2.0 points (too few pairs for a range)"),
        (gap(-math.inf, -math.inf, 0.0), "−∞ points (−∞ to 0)"),
    ],
)
def test_differences_are_written_with_their_range(found, written):
    assert difference(found, MetricInfo("accuracy", True, "%")).en == written


def test_columns_line_up():
    lines = table(("a", "bb"), [("xxx", "1"), ("y", "22")]).splitlines()
    assert lines == ["  a    bb", "  xxx  1", "  y    22"]


def test_the_terminal_names_the_knee_the_limit_and_the_loader():
    text = str(fitted())
    assert "does not fit: MemoryError: too much" in text
    assert "today, nearly full speed from here" in text
    assert "bound by: memory" in text
    assert "reading the data takes 40 % of an update" in text
    assert "assumed: something assumed" in text


# ------------------------------------------------------------------ pages


class Elements(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", PAGES)
def test_nothing_comes_from_outside(name):
    tags = Elements(PAGES[name]()).tags
    places = [attrs.get(key) for _, attrs in tags for key in ("src", "href")]
    assert all(p is None or p.startswith(("#", "data:")) for p in places)


@pytest.mark.parametrize("name", PAGES)
def test_every_text_is_there_in_both_languages(name):
    tags = Elements(PAGES[name]()).tags
    count = {lang: sum(attrs.get("lang") == lang for _, attrs in tags) for lang in ("en", "ja")}
    assert count["en"] - 1 == count["ja"] > 10  # the page itself is English when it opens


@pytest.mark.parametrize(
    "page",
    [
        fit_page(fitted(task=EVIL)),
        noise_page(dataclasses.replace(growing(), task=EVIL)),
        compare_page(compared(task=EVIL)),
    ],
    ids=["fit", "noise", "compare"],
)
def test_a_users_words_are_never_code(page):
    assert not [tag for tag, attrs in Elements(page).tags if tag == "img" or "onerror" in attrs]


def test_the_fit_page_concludes_with_the_knee_and_what_bound_it():
    page = PAGES["fit"]()
    assert "From batch size 32 on, this computer works at nearly full speed." in page
    assert "Loading the data is a bottleneck" in page


def test_the_noise_page_reads_the_scale_for_todays_batch():
    page = PAGES["noise"]()
    assert "grows from about 100 to" in page
    assert READINGS[Place.BELOW].ja.format(b=32) in page


def test_the_compare_page_has_a_table_for_each_length():
    page = PAGES["compare"]()
    assert page.count("<caption>") == 2
    assert "did best" in page
    assert "at equal updates" in page


def test_failed_settings_have_a_look_of_their_own():
    chart = readings(compared())
    assert [row["state"] for row in chart.rows if row["kind"] == "samples"] == [
        "ok", "ok", "ok", "failed",
    ]  # fmt: skip
    crosses = [
        layer for layer in chart.specs["samples-seconds"]["en"]["layer"]
        if "failed" in json.dumps(layer.get("transform", []))
    ]  # fmt: skip
    assert len(crosses) == 1
    assert not any("failed" in json.dumps(layer.get("transform", []))
                   for layer in chart.specs["updates-seconds"]["en"]["layer"])  # fmt: skip


@pytest.mark.parametrize("axis", ["seconds", "samples", "updates", "batch"])
@pytest.mark.parametrize("kind", ["samples", "updates"])
def test_every_variant_of_the_picture_draws_its_points(kind, axis):
    chart = readings(compared())
    spec = chart.specs[f"{kind}-{axis}"]["ja"]
    spec = spec | {"datasets": {"readings": list(chart.rows)}, "width": 500}
    svg = vl_convert.vegalite_to_svg(spec)
    shown = sum(r["kind"] == kind and r["state"] == "ok" for r in chart.rows)
    points = re.findall(r'aria-roledescription="(?:point|circle)"', svg)
    crosses = sum(r["kind"] == kind and r["state"] == "failed" for r in chart.rows)
    assert len(points) == shown + crosses


@pytest.mark.browser
def test_pages_draw_without_a_word_on_the_console(tmp_path, chromium):
    said = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, make in PAGES.items():
            file = tmp_path / f"{name}.html"
            file.write_text(make(), "utf-8")
            page = browser.new_page(viewport={"width": 360, "height": 800})
            page.on("console", lambda message, n=name: said.append((n, message.text)))
            page.on("pageerror", lambda error, n=name: said.append((n, str(error))))
            page.goto(f"{file.as_uri()}?lang=ja")
            for chart in page.query_selector_all("div.chart"):
                chart.wait_for_selector("svg")
            assert page.evaluate("document.documentElement.lang") == "ja"
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            page.close()
        browser.close()
    assert said == []
