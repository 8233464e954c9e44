"""What is said where a part of the training data was used: all of it, and nothing more."""

from __future__ import annotations

import dataclasses
import re

import pytest

from batchlab._text import LANGUAGES, plain
from batchlab.report import brief, charts, evidence, facts, page, wording, worth
from tests.report import sample
from tests.report.test_wording import texts

PARTS = sample.parts()
BACK = [name for name, advice in PARTS.items() if facts.taken_back(advice)]
every = pytest.mark.parametrize("name", list(PARTS))


@every
@pytest.mark.parametrize("price", [None, sample.USD])
def test_every_sentence_is_there_in_both_languages(name, price) -> None:
    for text in texts(sample.parts(price)[name]):
        assert bool(text.en.strip()) == bool(text.ja.strip()), text
        for language in LANGUAGES:
            assert not re.search(r"\bnan\b|\binf\b|None|[{}]|Estimate", text.of(language)), text
        words = re.sub(r"`[^`]*`", "", text.ja)
        assert not re.search(r"\d [^\d\s=−+(→–\-]", words), text.ja
        assert "精度" not in words
        if price is None:
            assert not re.search(r"USD|yen|\bcost\b(?! to)", text.en.replace("all it cost", ""))


@every
def test_rows_carry_the_same_numbers_in_both_languages(name) -> None:
    for row in wording.table(PARTS[name]):
        for cell in row[1:]:
            # A single pair is "one pair" in English and 1組 in Japanese.
            english, japanese = (sorted(re.findall(r"[\d.,]*\d", t)) for t in cell)
            assert english == japanese or cell.en.startswith("one pair"), cell


@every
def test_the_first_screen_names_the_part(name) -> None:
    advice = PARTS[name]
    told = [plain(text.en) for text in wording.circumstances(advice)]
    assert "on 10 % of the training data (1,221 of 12,210 examples)" in told
    assert "all your training data" in wording.not_tested(advice).en
    assert "学習データ全体" in wording.not_tested(advice).ja


@every
def test_summary_has_ten_lines(name) -> None:
    for language in LANGUAGES:
        assert len(brief.summary(PARTS[name], language).splitlines()) == 10


def test_a_change_not_repeated_on_all_data_is_only_probable() -> None:
    advice = PARTS["not repeated"]
    said = wording.headline(advice)
    assert said.en.startswith("Probably worth changing: ")
    assert said.en.endswith("Measured on 10 % of the training data, not yet on all of it.")
    assert said.ja.endswith("学習データの10%での測定で、全データではまだ確かめていません。")
    assert "on all data before we decide" in wording.meeting(advice).en
    assert "One pair of trainings on all your training data: 9 min" in wording.next_step(advice).en
    title = wording.part.title(advice)
    assert title.en == "Not repeated on all data: one pair takes 9 minutes more."


def test_one_pair_that_held_is_said_with_how_little_it_shows() -> None:
    said = wording.headline(PARTS["held, one pair"])
    assert said.en.startswith("Change two settings: ")
    assert said.en.endswith(
        "On all data the recommended settings were again faster: 1.7× (one pair; a single pair "
        "cannot show how sure)."
    )
    assert said.ja.endswith(
        "全データでも提案の設定の方が良く、速さは1.7倍でした"
        "（1組だけなので、確からしさは分かりません）。"
    )


@pytest.mark.parametrize("name", BACK)
def test_headline_table_and_meeting_agree_that_nothing_is_changed(name) -> None:
    advice = PARTS[name]
    assert wording.answer(advice).en == "Keep today's settings for now."
    assert wording.head(advice).recommended.en == "best alternative"
    assert "keep today's settings" in wording.meeting(advice).en
    assert "今の設定を続けたい" in wording.meeting(advice).ja
    assert worth.of(advice) is None
    assert not advice.changes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flipped", "The order did not hold: on all data the best alternative was 0.8× as fast"),
        ("neither reached it", "on all data the best alternative ended with accuracy 3.0 points"),
        ("ended far worse", "ended with accuracy 4.0 points lower (3 pairs)."),
        ("only today reached it", "on all data only today's settings reached 97.0 % accuracy"),
        ("no run ended", "The order did not hold: a training on all data failed"),
        ("a keep taken back", "From 1.2× on a change would be worth it."),
    ],
)
def test_why_it_was_taken_back_is_said(name, said) -> None:
    assert said in wording.headline(PARTS[name]).en


def test_one_that_failed_again_is_no_change_of_order() -> None:
    said = wording.headline(PARTS["open, only today reached it"]).en
    assert "On all data only today's settings reached 97.0 % accuracy (one pair;" in said
    assert "did not hold" not in said


def test_a_flip_is_told_from_an_order_that_holds() -> None:
    """The failing twin: the same pair, its record turned round."""
    advice = PARTS["flipped"]
    assert advice.part is not None
    turned = dataclasses.replace(advice.part, repeat=sample.repeat(1.25))
    held = dataclasses.replace(advice, part=turned)
    assert "did not hold" in wording.headline(advice).en
    assert "did not hold" not in wording.headline(held).en


def test_the_money_line_is_about_all_data_and_says_on_what_condition() -> None:
    advice = PARTS["held, one pair"]
    assert "all your data" in worth.condition(advice).en
    assert "データ全体" in worth.condition(advice).ja


def test_the_section_holds_the_pair_as_table_and_picture() -> None:
    advice = PARTS["held, three pairs"]
    chart = charts.on_all(advice)
    assert chart is not None
    assert {row["id"] for row in chart.rows} == {"today", sample.BEST.id}
    section = evidence.sections(advice, {"all-data"})[0]
    assert (section.id, section.charts) == ("all-data", ("all-data",))
    assert [row.recommended.en for row in section.rows] == ["18 s", "98.2 %"]


def test_without_a_part_there_is_no_word_of_it() -> None:
    advice = sample.change()
    assert charts.on_all(advice) is None
    assert all(section.id != "all-data" for section in evidence.sections(advice, {"curves"}))
    assert "all data" not in " ".join(text.en for text in texts(advice))


@pytest.mark.slow
def test_the_page_shows_the_pair() -> None:
    html = page.render(PARTS["held, one pair"])
    assert '<section id="all-data">' in html
    assert 'id="figure-all-data"' in html
