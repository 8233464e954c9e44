"""What ``critical`` says: the sentence for every outcome, tables, pictures, the page."""

import json
import math
from dataclasses import replace

import pytest
import vl_convert

from batchlab._text import plain
from batchlab.config import RunConfig
from batchlab.measure.critical import Branch, Branching, CriticalPoint, critical_batch, ratio
from batchlab.measure.noise import Moments, result
from batchlab.report.charts import critical as pictures
from batchlab.report.critical import CriticalPrice, CriticalReport, critical_text, shown
from batchlab.report.findings import Origin, setting_of
from batchlab.report.measured import critical_page
from batchlab.types import Estimate, from_plain, to_plain

EVIL = "</script><img src=x onerror=alert(1)>"
FACTORS = (2, 4, 8)
WITHIN, OPEN, ABOVE = (-0.004, 0.0, 0.004), (-0.01, 0.006, 0.03), (0.02, 0.04, 0.06)
DIVERGED = (math.inf, math.inf, math.inf)
ORIGIN = Origin(
    "batchlab critical demo", "2026-11-28T09:30:00+00:00", 12.0, "cpu", 2, ("something assumed",),
    {"batchlab": "0.1.0", "seed": "0"}, "results",
)  # fmt: skip


def config(rule="sgd"):
    run = RunConfig(rule=rule, batch_size=32, learning_rate=0.1, samples=20_000)
    return run.resolved(1000)


def excess(ends):
    low, value, high = ends
    return Estimate(value, low, high, 5)


def noise(samples, scale=100.0):
    found = Moments(1.0, scale, 1 / 1280, 1e-4, 1e-3, 1.0, 0.0, 155.0)
    return result(found, samples=samples, examples=1280, method="per example")


def at(samples, *ends, scale=100.0):
    branches = tuple(
        Branch(k, 32 * k, 0.1 * k, excess(one), excess(one), 5 if one is DIVERGED else 0)
        for k, one in zip(FACTORS, ends, strict=True)
    )
    found = critical_batch(32, FACTORS, [b.excess for b in branches], 0.01)
    scales = None if scale is None else noise(samples, scale)
    loss = Estimate(0.5, 0.4, 0.6, 5)
    bare = CriticalPoint(samples, loss, found, found.low, branches, scales, None)
    return replace(bare, ratio=ratio(found, found, scales) if bare.resolved else None)


def report(*points, places=None, task="demo", rule="sgd", power=1.0):
    given = places or tuple(one.samples for one in points)
    plan = Branching(config(rule), given, FACTORS, 4096, power, tuple(range(5)))
    today = setting_of(plan.baseline, "today", 32, 0.1)
    return CriticalReport.of(task, "examples", today, 1000, 200, plan, 0.01, points, ORIGIN)


GROWS = report(
    at(192, ABOVE, ABOVE, DIVERGED),
    at(2016, WITHIN, ABOVE, ABOVE, scale=200.0),
    at(6016, WITHIN, WITHIN, OPEN, scale=None),
    at(15904, WITHIN, WITHIN, ABOVE, scale=400.0),
)
FREE = report(at(2016, WITHIN, WITHIN, WITHIN), at(6016, WITHIN, WITHIN, WITHIN))
ONCE = report(at(2016, WITHIN, ABOVE, ABOVE), at(6016, OPEN, OPEN, OPEN))
NONE = report(at(2016, ABOVE, ABOVE, ABOVE), at(6016, OPEN, OPEN, OPEN))
UNRESOLVED = report(at(2016, OPEN, OPEN, OPEN))
MEANWHILE = report(
    at(192, ABOVE, ABOVE, ABOVE), at(2016, WITHIN, OPEN, ABOVE), at(6016, WITHIN, OPEN, ABOVE),
    at(15904, OPEN, OPEN, ABOVE),
)  # fmt: skip
EVERY = {
    "grows": GROWS, "free": FREE, "once": ONCE, "meanwhile": MEANWHILE, "none": NONE,
    "unresolved": UNRESOLVED,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "english", "japanese"),
    [
        ("meanwhile", "From 10 % to 30 % of the training, batches of up to 64", "10%から30%まで"),
        ("grows", "From 30 % of the training on, batches of up to 128 cost nothing", "128まで"),
        ("free", "From 10 % of the training on, batches of up to 256 cost nothing", "256まで"),
        ("once", "At 10 % of the training, batches of up to 64 cost nothing", "10%の時点では"),
        ("none", "No batch larger than today's 32 was shown to cost nothing; 64 costs", "64で"),
        ("unresolved", "Not resolved: 5 seeds do not tell", "定まりません"),
    ],
)
def test_the_first_sentence_says_what_was_shown(name, english, japanese):
    answer = EVERY[name].answer()
    assert plain(answer.en).startswith(english)
    assert japanese in plain(answer.ja)


def test_a_size_that_is_shown_at_one_place_alone_is_no_answer():
    alone = [replace(one, together=32.0) for one in FREE.points]
    assert plain(report(*alone).answer().en).startswith("Not resolved")
    assert report(*alone).schedule == "32"


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("grows", "0:32 2016:64 6016:128"),
        ("free", "0:32 2016:256"),
        ("once", "0:32 2016:64"),
        ("meanwhile", "0:32 2016:64"),
        ("none", "32"),
        ("unresolved", "32"),
    ],
)
def test_the_schedule_that_follows_is_printed_with_its_caveat(name, schedule):
    found = EVERY[name]
    assert found.schedule == schedule
    told = [plain(text.en) for text in found.said()]
    if ":" in schedule:
        (line,) = [words for words in told if "schedule that follows" in words]
        assert f"{schedule}, with rate_growth=1" in line
        assert f'batchlab compare demo --batch-sizes "{schedule}" --rate-growth 1 decides' in line
    else:
        assert "No growing schedule follows from this." in told


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((WITHIN, ABOVE, ABOVE), "76.1 (64 to 128)"),
        ((ABOVE, ABOVE, ABOVE), "38.1 (32 to 64)"),
        ((WITHIN, WITHIN, WITHIN), "at least 256"),
        ((WITHIN, WITHIN, (-0.01, 0.02, 0.05)), "181 (at least 128)"),
        ((OPEN, OPEN, OPEN), "not resolved"),
        ((WITHIN, WITHIN, DIVERGED), "128 (128 to 256)"),
    ],
)
def test_a_critical_batch_size_is_written_with_what_is_known_of_it(ends, words):
    assert critical_text(at(2016, *ends)).en == words


def test_a_branch_is_within_above_or_open():
    branches = at(2016, WITHIN, OPEN, ABOVE).branches
    assert [shown(branch, 0.01) for branch in branches] == ["within", "open", "above"]
    assert shown(branches[2], 0.06) == "within"


def test_the_noise_scale_stands_beside_it_where_both_are_known():
    text = plain(GROWS.said()[1].en)
    assert "at 10 %" in text
    assert "at 30 %" not in text
    assert UNRESOLVED.said()[1].en == "No growing schedule follows from this."


@pytest.mark.parametrize(("rule", "said"), [("sgd", False), ("adam", True)])
def test_outside_the_sgd_family_the_noise_scale_only_orders(rule, said):
    found = report(at(2016, WITHIN, ABOVE, ABOVE), rule=rule, power=0.5)
    assert any("only orders batch sizes" in text.en for text in found.said()) is said
    assert "its square root" in found.said()[0].en


def test_places_that_the_budget_left_out_are_said():
    found = report(at(2016, WITHIN, ABOVE, ABOVE), places=(2016, 6016))
    assert found.missing == (6016,)
    assert "budget ended before 30 % of the training" in plain(found.said()[-1].en)


@pytest.mark.parametrize("name", EVERY)
def test_records_survive_json(name):
    found = EVERY[name]
    kept = json.loads(json.dumps(to_plain(found), allow_nan=False))
    assert str(from_plain(CriticalReport, kept)) == str(found)


def test_the_terminal_has_both_tables():
    text = str(GROWS)
    assert "76.1 (64 to 128)" in text
    assert "+∞ (+∞ to +∞)" in text
    assert "5 of 5" in text
    assert "assumed: something assumed" in text


def test_a_price_adds_up_and_tells_what_a_budget_pays():
    plan = Branching(config(), (192, 2016), FACTORS, 4096, 1.0, (0, 1))
    text = str(CriticalPrice("demo", "examples", plan, 20_000, (20.0, 30.0), 40.0))
    assert "batch sizes 32, 64, 128, 256, 2 seeds each" in text
    assert "in all: about 50 s" in text
    assert "pays for the first 1 of 2 places" in text


# ------------------------------------------------------------------ pictures and the page


@pytest.mark.parametrize("name", EVERY)
def test_every_picture_can_be_drawn(name):
    found = EVERY[name]
    for chart in (pictures.critical(found), pictures.excesses(found)):
        for variant, specs in chart.specs.items():
            assert set(specs) == {"en", "ja"}
            spec = specs["en"] | {"width": 500, "autosize": "pad"}
            spec["datasets"] = {chart.id: list(chart.rows), **spec.get("datasets", {})}
            svg = vl_convert.vegalite_to_svg(spec)
            assert "<path" in svg, variant
            assert "NaN" not in svg


def test_a_row_of_the_picture_tells_bounds_from_values():
    rows = pictures.critical(GROWS).rows
    assert [row["state"] for row in rows] == ["resolved", "resolved", "at least", "resolved"]
    assert rows[2]["shown"] == 128
    assert rows[2]["noise"] is None
    assert pictures.critical(UNRESOLVED).rows[0]["state"] == "not resolved"


def test_the_page_holds_answer_tables_and_both_pictures_in_both_languages():
    page = critical_page(GROWS)
    for words in (
        "batches of up to 128 cost nothing", "バッチサイズ128まで", "76.1 (64 to 128)",
        'id="critical-batch"', 'id="excesses-batch"', "臨界バッチサイズ",
    ):  # fmt: skip
        assert words in page
    assert EVIL not in critical_page(report(at(2016, WITHIN, ABOVE, ABOVE), task=EVIL))
