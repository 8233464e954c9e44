"""What the measured features add to the page: a row, a section, a picture and sheets of units."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from batchlab import report
from batchlab._text import LANGUAGES, plain
from batchlab.advisor.record import Advice, FeatureUse
from batchlab.report import charts, evidence, features, wording
from batchlab.types import Estimate
from tests.report import sample


def _section(advice):
    drawn = {"features"} if charts.features(advice) is not None else set()
    return next(s for s in evidence.sections(advice, drawn) if s.id == "features")


def _row(advice):
    return next((r for r in wording.table(advice) if "features" in r.label.en), None)


def test_the_row_is_the_model_text():
    row = _row(sample.seen())
    assert row.label == (
        "internal features the decision rests on",
        "判断の根拠になっている特徴の数",
    )
    assert row.today == ("14 of 64", "64個中14個")
    assert row.recommended == ("9 of 64", "64個中9個")
    assert row.difference.en == "fewer to check by eye, [see them](#features)"
    assert row.difference.ja == "目で確認する数が減る（[特徴を見る](#features)）"
    assert row.sure == ("same in 7 of 8", "8回中7回で同じ傾向")


def test_more_features_are_said_to_be_more_and_chance_to_be_chance():
    more, chance = (sample.odd()[n] for n in ("more features", "features that differ by chance"))
    assert _row(more).difference.en.startswith("more to check by eye")
    assert _row(more).sure.en == "same in 7 of 8"
    assert _row(chance).difference.en.startswith("no clear difference")
    assert _row(chance).sure.en == "fewer in 7, more in 1 of 8"


def test_without_the_measurement_the_row_is_absent_and_the_page_says_why():
    for name, why in (("no features", "no internal layer"), ("features not paid for", "budget")):
        advice = sample.odd()[name]
        assert _row(advice) is None
        section = _section(advice)
        assert "was not measured" in section.title.en
        assert why in section.title.en
        assert section.charts == section.sheets == ()
    told = _section(sample.odd()["features not paid for"]).paragraphs
    assert "5 min 40 s, 0.11 USD" in told[0].en
    assert "--resume" in told[0].ja


def test_a_result_without_it_has_no_section():
    assert all(s.id != "features" for s in evidence.sections(sample.change(), {"features"}))
    assert charts.features(sample.change()) is None
    assert _row(sample.change()) is None


@pytest.mark.parametrize("code", features.WHY_NOT)
def test_every_reason_is_a_clause_in_both_languages(code):
    title = features.title(sample.change(features=FeatureUse(code)))
    assert features.WHY_NOT[code].en in title.en
    assert features.WHY_NOT[code].ja in title.ja


def test_fewer_is_never_called_better():
    for advice in (sample.seen(), sample.odd()["more features"]):
        section, row = _section(advice), _row(advice)
        told = " ".join(t.en for t in (section.title, *section.paragraphs, *row))
        assert not re.search(r"\bbetter\b", told.replace("Fewer is not better", ""))
        assert "worse" not in told
        assert "Fewer is not better" in told


def test_the_section_says_both_numbers_with_their_ranges_and_what_chance_needs():
    section = _section(sample.seen())
    assert "by 14 of 64 with today's settings" in section.title.en
    assert "by 9 of 64 with the recommended settings" in section.title.en
    numbers = section.paragraphs[0].en
    assert "14 (12 to 16) with today's settings, 9 (7 to 11)" in numbers
    assert "it would need 58 (55 to 61)" in numbers
    assert "−5.0 (−7.2 to −2.8)" in numbers
    assert "7 of 8 pairs need fewer, 1 need more" in numbers


def test_the_order_is_told_as_it_was_measured():
    exact = " ".join(t.en for t in _section(sample.seen()).paragraphs)
    first = " ".join(t.en for t in _section(sample.odd()["features in signals"]).paragraphs)
    assert "when it alone is set to its mean" in exact
    assert "to first order" in first
    assert "to first order" not in exact


def test_sharpness_stands_beside_sparsity_where_it_is_known():
    assert "Sharpness" not in " ".join(t.en for t in _section(sample.seen()).paragraphs)
    sharp = dataclasses.replace(sample.side(9.0), sharpness=Estimate(21.0, 18.0, 24.0, 8))
    use = sample.feature_use(today=sharp, recommended=sharp)
    told = " ".join(t.en for t in _section(sample.change(features=use)).paragraphs)
    assert "Sharpness of the loss around the trained model" in told
    assert "21 (18 to 24) with today's settings" in told
    assert "a smaller number is not better" in told


@pytest.mark.parametrize("kind", ["image", "signal"])
def test_a_page_that_holds_the_readers_data_says_so(kind):
    told = _section(sample.seen(kind=kind)).paragraphs[-1]
    assert "mind whom you send it to" in told.en
    assert "ご注意ください" in told.ja.replace("ご注意ください", "ご注意ください")


def test_both_settings_have_a_sheet_of_at_most_twelve_units():
    sheets = _section(sample.seen()).sheets
    assert [len(sheet.cards) for sheet in sheets] == [12, 12]
    assert sheets[0].title.en.startswith("Today's settings")
    assert sheets[1].title.en.startswith("The recommended settings")
    first = sheets[0].cards[0]
    assert first.title.en == "Unit 0: without it, loss +0.3"
    assert len(first.pictures) == 4
    assert first.lines[0].en == "most excited by examples #0, #20, #40"


def test_a_signal_is_drawn_with_its_segment_shaded():
    card = _section(sample.seen(kind="signal")).sheets[0].cards[3]
    assert card.lines[0].en == "steps 31 to 50 of 200"
    assert 'x="27.0"' in card.drawing  # 30 of 200 steps on 180 pixels
    assert 'width="18.0"' in card.drawing
    assert card.drawing.count(",") == 100


def test_columns_stand_with_their_weights():
    card = _section(sample.seen(kind="table")).sheets[0].cards[0]
    assert [line.en for line in card.lines[:3]] == [
        "temperature: +0.5",
        "pressure: +0.2",
        "vibration: −0.1",
    ]


def test_names_of_columns_are_not_read_as_markup():
    unit = sample.units("table")[0]
    evil = unit.columns[0]._replace(name="**<b>_x_")
    card = features.card(dataclasses.replace(unit, columns=(evil,)))
    assert plain(card.lines[0].en) == "**<b>_x_: +0.5"


def test_the_picture_has_both_settings_in_both_orders():
    chart = charts.features(sample.seen())
    assert {(r["role"], r["order"]) for r in chart.rows} == {
        (role, order) for role in ("today", "recommended") for order in ("important", "random")
    }
    last = [r for r in chart.rows if r["kept"] == 64]
    assert len(last) == 4
    point = sample.side(14.0).curve[3]
    row = next(r for r in chart.rows if (r["role"], r["kept"]) == ("today", 3))
    assert row["metric"] == pytest.approx(100 * point.metric.value, rel=1e-5)
    assert row["metric_low"] == pytest.approx(100 * point.metric.low, rel=1e-5)
    assert row["n"] == 8


def test_predictions_that_are_no_numbers_leave_a_gap():
    side = sample.side(9.0)
    lost = dataclasses.replace(side.curve[1], metric=Estimate(math.nan, math.nan, math.nan, 8))
    side = dataclasses.replace(side, curve=(side.curve[0], lost, *side.curve[2:]))
    chart = charts.features(sample.change(features=sample.feature_use(recommended=side)))
    gap = [r for r in chart.rows if (r["role"], r["kept"]) == ("recommended", 1)]
    assert gap[0]["metric"] is None
    assert gap[1]["metric"] is not None


@pytest.mark.parametrize("name", [n for n in sample.odd() if "features" in n])
def test_every_sentence_is_there_in_both_languages(name):
    section = _section(sample.odd()[name])
    texts = [section.title, *section.paragraphs]
    for sheet in section.sheets:
        texts += [sheet.title, *(c.title for c in sheet.cards)]
        texts += [line for c in sheet.cards for line in c.lines]
    for text in texts:
        assert bool(text.en.strip()) == bool(text.ja.strip())
        for language in LANGUAGES:
            assert not re.search(r"\bnan\b|\binf\b|None|[{}]|Estimate", text.of(language)), text
        words = re.sub(r"`[^`]*`", "", text.ja)
        assert not re.search(r"\d [^\d\s=−+(→–\-#]", words), text.ja


def test_the_page_holds_pictures_inside_itself_and_they_are_named():
    page = report.render(sample.seen())
    assert 'id="features"' in page
    images = re.findall(r'<img src="(data:image/png;base64,[^"]+)" alt="([^"]+)"', page)
    assert len(images) == 2 * 12 * 4
    assert all(alt for _, alt in images)
    assert len("".join(address for address, _ in images)) < 200_000


def test_an_advice_with_it_comes_back_from_its_file(tmp_path):
    for kind in ("image", "signal", "table", "none"):
        advice = sample.seen(kind=kind)
        advice.save(tmp_path / "advice.json")
        assert Advice.load(tmp_path / "advice.json").features == advice.features
