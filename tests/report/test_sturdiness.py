"""What ``--robustness`` adds to the page: two rows, one section, one picture; nothing without."""

from __future__ import annotations

import dataclasses
import io
import math
import re

import pytest
from rich.console import Console

from batchlab import report
from batchlab._text import plain
from batchlab.report import charts, evidence, sturdiness, wording
from batchlab.types import Estimate
from tests.report import sample

FOUND = sample.robustness()


def _with(**changes):
    return sample.robust(robustness=dataclasses.replace(FOUND, **changes))


def _section(advice):
    drawn = {"robustness"} if charts.robustness(advice) is not None else set()
    return next(s for s in evidence.sections(advice, drawn) if s.id == "robustness")


def test_without_it_the_page_is_the_one_there_was():
    assert all(s.id != "robustness" for s in evidence.sections(sample.change(), {"robustness"}))
    assert len(wording.table(sample.change())) == len(wording.table(sample.robust())) - 2
    assert charts.robustness(sample.change()) is None


def test_the_first_screen_has_two_rows_more_with_numbers_in_both_languages():
    rows = wording.table(sample.robust())
    noisy = next(r for r in rows if "noisy" in r.label.en)
    agree = next(r for r in rows if "disagree" in r.label.en)
    assert (noisy.today.en, noisy.recommended.ja) == ("96.4 %", "96.4%")
    assert (agree.today.en, agree.recommended.en) == ("3.4 %", "2.6 %")
    assert agree.difference.en == "−0.8 points (−1.6 to 0)"
    assert agree.sure.en.startswith("better")
    assert agree.sure.ja.startswith("改善")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.02, -0.01, "better"), (-0.01, 0.01, "no "), (0.01, 0.02, "worse")],
)
def test_fewer_disagreements_are_better(low, high, said):
    gap = Estimate((low + high) / 2, low, high, 8, "%")
    repeats = dataclasses.replace(FOUND.repeats, difference=gap)
    row = next(r for r in wording.table(_with(repeats=repeats)) if "disagree" in r.label.en)
    assert row.sure.en.startswith(said)


@pytest.mark.parametrize("maximise", [True, False])
def test_better_and_worse_follow_the_direction_of_the_metric(maximise):
    metric = dataclasses.replace(sample.ACCURACY, maximise=maximise)
    better, worse = sturdiness.counts(FOUND.rows, metric)
    above = sum(row.difference.low > 0 for row in FOUND.rows)
    assert above > 0
    assert (better, worse) == ((above, 0) if maximise else (0, above))


def test_the_title_says_it_where_nothing_differs():
    same = Estimate(0.0, -0.01, 0.01, 8, "%")
    rows = tuple(dataclasses.replace(row, difference=same) for row in FOUND.rows)
    assert _section(_with(rows=rows)).title.en.startswith("In none of 9 tests")


def test_what_was_not_run_stands_there_with_its_price():
    told = " ".join(t.en for t in _section(sample.robust()).paragraphs)
    assert "wrong labels in training, 20 % (1 min 24 s, 0.03 USD)" in told
    assert "less training data, 10 %" in told
    assert "sensor drift (the inputs have no time axis)" in told


def test_where_nothing_was_paid_for_the_section_says_so_and_has_no_picture():
    found = dataclasses.replace(FOUND, rows=(), repeats=None, unpaid={"noise": 30.0})
    section = _section(sample.robust(robustness=found))
    assert section.title.en.startswith("Robustness was not measured")
    assert section.charts == ()
    assert "noise on inputs and weights (30 s, 0.01 USD)" in section.paragraphs[0].en


def test_every_sentence_is_there_in_both_languages():
    section = _section(sample.robust())
    texts = [section.title, *section.paragraphs, *(sturdiness.KINDS.values())]
    texts += [*sturdiness.WHY_NOT.values(), *sturdiness.UNITS.values()]
    for text in texts:
        assert text.en
        assert re.search(r"[぀-ヿ一-鿿]|\{p\}", text.ja), text


def test_the_picture_has_both_settings_at_every_test_in_points():
    chart = charts.robustness(sample.robust())
    assert len(chart.rows) == 2 * len(FOUND.rows)
    first = FOUND.rows[0]
    assert chart.rows[0]["change"] == pytest.approx(100 * first.today_change.value)
    assert chart.rows[1]["metric"] == pytest.approx(100 * first.recommended.value)
    assert [row["role"] for row in chart.rows[:2]] == ["today", "recommended"]
    assert {row["n"] for row in chart.rows} == {5, 8}


def test_a_range_that_is_open_is_drawn_without_a_line():
    never = Estimate(-math.inf, -math.inf, math.inf, 8, "%")
    rows = (dataclasses.replace(FOUND.rows[0], today=never, today_change=never), *FOUND.rows[1:])
    chart = charts.robustness(_with(rows=rows))
    assert chart.rows[0]["change"] is None


def test_the_terminal_shows_both_rows():
    out = io.StringIO()
    Console(file=out, width=160).print(report.terminal(sample.robust()))
    told = plain(out.getvalue())
    assert "noisy inputs" in told
    assert "two trainings disagree" in told


def test_an_advice_with_it_comes_back_from_its_file(tmp_path):
    advice = sample.robust()
    advice.save(tmp_path / "advice.json")
    assert type(advice).load(tmp_path / "advice.json").robustness == advice.robustness
