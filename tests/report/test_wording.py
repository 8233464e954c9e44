"""The sentences: complete in both languages, the same numbers in both, no more than was found."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

import pytest

from batchlab._text import LANGUAGES, Text, plain, say, verbatim
from batchlab.advisor.record import Advice, Change, Comparison, Failures, MetricInfo, Price
from batchlab.report import (
    brief,
    candidates,
    evidence,
    facts,
    formats,
    method,
    names,
    wording,
    worth,
)
from batchlab.types import Estimate, Evidence
from tests.report import sample

VARIANTS = [(name, price) for name in sample.ALL for price in (None, sample.USD, sample.YEN)]
every = pytest.mark.parametrize(("name", "price"), VARIANTS)


def texts(advice: Advice) -> Iterator[Text]:
    """Every sentence that the page shows."""
    yield wording.title(advice)
    yield from wording.circumstances(advice)
    yield wording.headline(advice)
    yield from wording.head(advice)
    for row in wording.table(advice):
        yield from row
    yield from (wording.next_step(advice), wording.not_tested(advice), wording.meeting(advice))
    yield from wording.engineer(advice)
    found = worth.of(advice)
    yield worth.line(found, worth.condition(advice)) if found else worth.unknown(advice)
    yield from (worth.spent(advice), worth.doubt(advice))
    drawn = {"speed", "memory", "noise", "plane", "curves", "pareto", "all-data"}
    for section in evidence.sections(advice, drawn):
        yield section.title
        yield from section.paragraphs
        for row in section.rows:
            yield from row
    for row in advice.candidates:
        yield from candidates.cells(advice, row)
    yield from method.paragraphs(advice)


@functools.cache
def shown(name: str, price: Price | None) -> tuple[Text, ...]:
    """Every sentence of one of the sample pages."""
    return tuple(texts(sample.ALL[name](price)))


def replaced(advice: Advice, quantity: str, **fields: object) -> Advice:
    """The advice with one comparison changed."""
    told = tuple(
        dataclasses.replace(c, **fields) if c.quantity == quantity else c  # type: ignore[arg-type]
        for c in advice.comparisons
    )
    return dataclasses.replace(advice, comparisons=told)


# ------------------------------------------------------------------ the model text


def test_headline_of_a_change_is_the_model_text() -> None:
    said = wording.headline(sample.change())
    assert said.en == (
        "Change two settings: batch size 32 → 64 and learning rate 0.05 → 0.2. Training reaches "
        "the same accuracy in about half the time; we saw no loss of accuracy."
    )
    assert said.ja == (
        "変えるのは2か所だけです。バッチサイズを32から64へ、学習率を0.05から0.2へ。"
        "同じ正解率に達するまでの時間が約半分になり、正解率の低下は見られませんでした。"
    )


@pytest.mark.parametrize(
    ("name", "before", "after", "en", "ja"),
    [
        ("batch_size", 32, "0:8 2ep:64", "batch size 32 → growing from 8 to 64", "（8→64）"),
        ("batch_size", "0:64 2ep:8", 32, "batch size changing from 64 to 8 → 32", "（64→8）"),
        ("rate_growth", 0.0, 0.5, "growth of the learning rate none → with the root", "平方根"),
    ],
)
def test_a_schedule_is_told_by_its_ends(
    name: str, before: object, after: object, en: str, ja: str
) -> None:
    said = names.change(Change(name, before, after))
    assert said.en.startswith(en)
    assert ja in said.ja


def test_headline_of_keep_is_the_model_text() -> None:
    said = wording.headline(sample.keep())
    assert said.en == (
        "Change nothing. Today's settings are as good as anything we tried: the best alternative "
        "is at most 1.15× faster (90 % range 0.9–1.15), less than the 1.2× that would be worth a "
        "change."
    )
    assert said.ja == (
        "今の設定のままで問題ありません。試した中で最も良い設定でも、速さは0.9～1.15倍"
        "（90%の範囲）で、変更に値する1.2倍に届きません。"
    )


def test_headline_of_not_enough_evidence_is_the_model_text() -> None:
    said = wording.headline(sample.open_(sample.YEN))
    assert said.en == (
        "Keep today's settings for now. The best alternative is somewhere between 0.9× and 1.6× "
        "as fast; 8 repeats cannot tell. Another 12 minutes (36 yen) of measuring would decide."
    )
    assert said.ja == (
        "当面は今の設定のままにしてください。最も良い候補の速さは0.9～1.6倍と幅があり、"
        "8回の測定では判断できません。あと12分（約36円）測れば判断できます。"
    )


def test_first_row_is_the_model_text() -> None:
    row = wording.table(sample.change())[0]
    assert [plain(cell.en) for cell in row] == [
        "time to reach 97.0 % accuracy",
        "4.1 s",
        "2.2 s",
        "1.9× faster (1.5–2.3×)",
        "faster in 8 of 8 new repeats",
    ]
    assert [plain(cell.ja) for cell in row] == [
        "正解率97.0%に達するまでの時間",
        "4.1秒",
        "2.2秒",
        "1.9倍速い（1.5～2.3倍）",
        "新たに行った8回中8回で速かった",
    ]


def test_money_line_is_the_model_text() -> None:
    advice = sample.change(sample.YEN)
    found = worth.of(advice)
    assert found is not None
    said = worth.line(found, worth.condition(advice))
    assert said.ja.startswith(
        "自社の学習でも同じ傾向なら、**年間およそ12万8千円の削減（9万～15万3千円）**。"
    )
    assert "about 128,000 yen a year saved (90,000–153,000)" in said.en


def test_meeting_sentence_is_the_model_text() -> None:
    assert wording.meeting(sample.change()).en == (
        "On the test job the new settings reach the same accuracy in about half the time, "
        "confirmed in 8 of 8 repeats. I propose 10 minutes on our own data before we decide."
    )


# ------------------------------------------------------------------ what holds for every sentence


@pytest.mark.parametrize("name", list(sample.odd()))
def test_odd_records_are_put_into_words_too(name: str) -> None:
    advice = sample.odd()[name]
    for text in texts(advice):
        assert bool(text.en.strip()) == bool(text.ja.strip()), text
        for language in LANGUAGES:
            assert not re.search(r"\bnan\b|\binf\b|\bNone\b(?! of)|[{}]", text.of(language)), text
    for language in LANGUAGES:
        assert len(brief.summary(advice, language).splitlines()) == 10


@every
def test_no_sentence_shows_what_a_program_writes(name: str, price: Price | None) -> None:
    for text in shown(name, price):
        for language in LANGUAGES:
            assert not re.search(r"\bnan\b|\binf\b|None|[{}]|Estimate", text.of(language)), text


@every
def test_every_sentence_is_there_in_both_languages(name: str, price: Price | None) -> None:
    for text in shown(name, price):
        assert bool(text.en.strip()) == bool(text.ja.strip()), text


@every
def test_japanese_writes_numbers_and_units_without_a_space(name: str, price: Price | None) -> None:
    for text in shown(name, price):
        words = re.sub(r"`[^`]*`", "", text.ja)
        assert not re.search(r"\d [^\d\s=−+(→–\-]", words), text.ja


@every
def test_japanese_uses_the_house_words(name: str, price: Price | None) -> None:
    words = "".join(text.ja for text in shown(name, price))
    assert "御社" not in words
    assert "精度" not in words


@every
def test_without_a_price_no_money_is_named(name: str, price: Price | None) -> None:
    if price is not None:
        pytest.skip("has a price")
    for text in shown(name, None):
        assert not re.search(r"USD|yen|\bcost\b(?! to)", text.en.replace("all it cost", ""))
        assert not re.search(r"\d円|ドル", text.ja)


@pytest.mark.parametrize("name", list(sample.ALL))
def test_rows_carry_the_same_numbers_in_both_languages(name: str) -> None:
    for row in wording.table(sample.ALL[name](sample.USD)):
        for cell in row[1:]:
            english, japanese = (sorted(re.findall(r"[\d.,]*\d", t)) for t in cell)
            assert english == japanese, cell


def test_a_flipped_number_is_noticed_by_the_comparison_of_languages() -> None:
    planted = say("{a} of {b}", "{a}回中{b}回", a=7, b=8)
    english, japanese = (re.findall(r"\d", t) for t in planted)
    assert sorted(english) == sorted(japanese)
    assert sorted(re.findall(r"\d", "8 of 9")) != sorted(japanese)


# ------------------------------------------------------------------ variants


@pytest.mark.parametrize("name", ["keep", "open", "screened"])
def test_only_a_change_asks_for_a_change(name: str) -> None:
    said = wording.answer(sample.ALL[name]())
    assert said.en in ("Change nothing.", "Keep today's settings for now.")


def test_screening_says_that_nothing_was_compared_and_what_comparing_costs() -> None:
    said = wording.headline(sample.screened())
    assert "Nothing has been compared yet." in said.en
    assert "Comparing them would take 10 minutes (0.20 USD)." in said.en
    assert "比較には10分（約0.20ドル）かかります。" in said.ja


def test_a_projection_is_never_called_confirmed() -> None:
    advice = sample.projected()
    told = " ".join(text.en for text in texts(advice) if "Three stages" not in text.en)
    assert "Not yet confirmed by full trainings." in told
    assert "new repeats" not in told
    assert "Probably" in wording.answer(advice).en


def test_a_keep_without_confirmation_is_only_for_now() -> None:
    advice = sample.keep(evidence=Evidence.PROJECTED, stage="B")
    assert wording.answer(advice).en == "Keep today's settings for now."


def test_the_best_alternative_is_found_where_the_record_does_not_name_it() -> None:
    assert facts.alternative(sample.keep(compared=None)) == sample.BEST
    assert facts.alternative(sample.screened()) is None


def test_an_unmet_demand_is_named() -> None:
    advice = sample.open_(at_least={"accuracy=0.99": False})
    assert "accuracy=0.99" in wording.reason(advice).en
    assert "accuracy=0.99" in wording.reason(advice).ja


def test_an_interrupted_measurement_says_so() -> None:
    assert any("interrupted" in t.en for t in wording.circumstances(sample.change(partial=True)))


@pytest.mark.parametrize(
    ("objective", "en", "ja"),
    [
        ("cost", "takes about half the money", "費用が約半分"),
        ("samples", "takes about half the data", "データが約半分"),
        ("accuracy", "accuracy at the end of training is 1.2 points higher", "1.2ポイント上がり"),
    ],
)
def test_the_headline_speaks_of_the_objective(objective: str, en: str, ja: str) -> None:
    advice = sample.change(objective=objective)
    samples = dataclasses.replace(advice.comparisons[0], quantity="samples")
    better = dataclasses.replace(
        advice.comparisons[-1], quantity="validation", difference=Estimate(0.012, 0.004, 0.02, 8)
    )
    advice = dataclasses.replace(advice, comparisons=(*advice.comparisons, samples, better))
    assert en in wording.headline(advice).en.replace("Accuracy", "accuracy")
    assert ja in wording.headline(advice).ja


def test_a_setting_that_never_reached_the_goal_is_not_divided_by() -> None:
    never = Estimate(math.inf, math.nan, math.nan, 8, "s")
    endless = Estimate(math.inf, 1.4, math.inf, 8)
    advice = replaced(sample.change(), "time", today=never, difference=endless, method="sign")
    assert "which today's settings did not reach" in wording.headline(advice).en
    assert "今の設定では届かなかった" in wording.headline(advice).ja
    row = wording.table(advice)[0]
    assert row.today == Text("not reached", "未到達")
    assert worth.of(advice) is None


# ------------------------------------------------------------------ direction of the metric


def test_a_minimised_metric_is_worse_when_it_rises() -> None:
    advice = sample.minimised()
    compared = facts.metric_comparison(advice)
    assert compared is not None
    said = wording.rows.sure_of_metric(advice, compared)
    assert said.en == "no difference visible; a rise of more than 0.4 points is unlikely"
    assert "0.4ポイントを超える上昇" in said.ja


def test_the_direction_turned_round_would_be_noticed() -> None:
    advice = sample.minimised()
    turned = dataclasses.replace(advice.metric, maximise=True)
    wrong = dataclasses.replace(advice, metric=turned)
    compared = facts.metric_comparison(advice)
    assert compared is not None
    assert wording.rows.sure_of_metric(wrong, compared) != wording.rows.sure_of_metric(
        advice, compared
    )


@pytest.mark.parametrize(
    ("low", "high", "maximise", "expected"),
    [
        (0.001, 0.02, True, "better"),
        (0.001, 0.02, False, "worse"),
        (-0.02, -0.001, True, "worse"),
        (-0.02, -0.001, False, "better"),
        (-0.02, 0.01, True, "no difference visible"),
    ],
)
def test_the_range_decides_better_or_worse(
    low: float, high: float, maximise: bool, expected: str
) -> None:
    metric = MetricInfo("accuracy" if maximise else "escapes", maximise, "%")
    advice = replaced(
        sample.change(metric=metric), "metric", difference=Estimate((low + high) / 2, low, high, 8)
    )
    compared = facts.metric_comparison(advice)
    assert isinstance(compared, Comparison)
    assert wording.rows.sure_of_metric(advice, compared).en.startswith(expected)


@pytest.mark.parametrize(
    ("name", "ja"),
    [
        ("accuracy", "正解率"),
        ("loss", "損失"),
        ("error", "誤り率"),
        ("escapes at 2 % false alarms", "見逃し率"),
        ("my own", "my own"),
    ],
)
def test_metrics_have_their_japanese_names(name: str, ja: str) -> None:
    assert names.metric(MetricInfo(name, False)).ja == ja


# ------------------------------------------------------------------ never more than was found


def test_the_chance_is_never_stated_above_its_cap() -> None:
    said = " ".join(text.en for text in method.paragraphs(sample.change()))
    assert "99.6 % (with 8 pairs it is never stated above 99.6 %)" in said


def test_a_range_across_one_is_called_unclear() -> None:
    row = wording.table(sample.keep())[1]
    assert row.sure.en == "faster in 5 of 8 new repeats: no clear difference"


def test_a_small_amount_is_said_to_be_too_small() -> None:
    found = worth.of(sample.change())
    assert found is not None
    tiny = dataclasses.replace(found, hours=0.01, demo_seconds=0.0)
    assert "too small to matter" in worth.line(tiny).en
    assert "変更の理由になるほどの額ではありません" in worth.line(tiny).ja
    assert "too small" not in worth.line(dataclasses.replace(found, demo_seconds=0.0)).en


@pytest.mark.parametrize(
    ("hours", "length", "unit"),
    [(3.0, 3.0, "hours"), (0.1, 0.1, "hours"), (0.05, 3.0, "minutes"), (0.0019, 6.84, "seconds")],
)
def test_the_length_of_a_training_is_asked_for_in_a_handy_unit(
    hours: float, length: float, unit: str
) -> None:
    found = worth.of(sample.change())
    assert found is not None
    short = dataclasses.replace(found, hours=hours)
    assert short.length == pytest.approx(length)
    assert short.length * short.clock[0] == pytest.approx(hours, rel=0.01)
    assert unit in short.clock[1].en


def fallen(price: Price | None = None) -> Advice:
    """A change after which the accuracy at the end is lower beyond doubt."""
    worse = Estimate(-0.02, -0.03, -0.01, 8)
    return replaced(sample.change(price), "metric", difference=worse)


def test_a_fall_of_the_metric_is_never_called_the_same() -> None:
    found = fallen()
    for said in (wording.headline(found), wording.meeting(found)):
        assert "same accuracy" not in said.en
        assert "同じ正解率" not in said.ja
        assert "97.0 % accuracy in about half the time" in said.en
        assert "accuracy at the end of training fell by 2.0 points" in said.en
        assert "学習終了時の正解率は2.0ポイント下がりました" in said.ja


def test_more_failures_are_never_left_out() -> None:
    failing = dataclasses.replace(sample.change(), failures=Failures(1, 8, 3, 8))
    for said in (wording.headline(failing), wording.meeting(failing)):
        assert "3 of 8 trainings failed (today 1 of 8)" in said.en
        assert "8回中3回の学習が失敗しました（現在は8回中1回）" in said.ja
    assert "failed" not in wording.headline(sample.change()).en


def test_the_engineer_learns_where_to_stop() -> None:
    said = " ".join(text.en for text in wording.engineer(sample.change()))
    assert "stop once the goal is reached: after about" in said
    assert "stop once" not in " ".join(t.en for t in wording.engineer(sample.keep()))


@pytest.mark.parametrize("value", [3e-9, 0.00012, 0.021, 0.32, 8.2, 12.4, 853.0, 127895.0, 4.2e9])
def test_an_amount_keeps_two_digits(value: float) -> None:
    written = float(formats.amount(value, "USD").replace(",", "").replace("−", "-"))
    assert written == pytest.approx(value, rel=0.06)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(9999, "10,000"), (12340, "1万2,300"), (350000, "35万"), (1.28e6, "128万"), (3e8, "3億")],
)
def test_large_yen_are_written_in_man(value: float, expected: str) -> None:
    assert formats.yen_ja(value) == expected


def test_markup_in_a_users_words_stays_words() -> None:
    advice = sample.change(task="a`b**c[d](#e)")
    assert "a`b**c[d](#e)" in plain(wording.title(advice).en)
    assert plain(verbatim("x*y")) == "x*y"
