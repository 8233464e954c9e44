"""The page and the summary of one watched training, and the comparison's first screen."""

import functools
import html.parser
import json
import re

import pytest

from batchlab.advisor.record import Price
from batchlab.advisor.watched import Asked, compare
from batchlab.report import render, terminal
from batchlab.report.apply import code
from batchlab.report.said import both
from batchlab.report.watching import WatchReport, page, state, summary
from batchlab.watch import judge
from batchlab.watch.record import Ending, gathered
from tests.advisor.watched.made import lines_of, run

EVIL = "</script><img src=x onerror=alert(1)>"


def found(name="runs/real", price=None, **what):
    watched = gathered(lines_of(**what))
    return WatchReport(name, watched, judge(watched), price, {"torch": "2"}, "batchlab report x")


@functools.cache
def page_of(name):
    """The page of a state; without a price where there is no metric either."""
    return page(found(price=None if name == "no metric" else Price(2.5, "USD"), **STATES[name]))


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


STATES = {
    "ended": {},
    "running": {"ending": None},
    "stopped": {"ending": Ending.STOPPED},
    "diverged": {"diverged": True},
    "no update": {"steps": 0},
    "no metric": {"metric": None},
}


class Tags(html.parser.HTMLParser):
    """Names of elements, and the text in each language."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def tags(text):
    parser = Tags()
    parser.feed(text)
    return parser.tags


RARE = ("running", "stopped")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in RARE else n for n in STATES]
)
def test_every_state_has_a_page_that_begins_with_the_sentence(name):
    report, text = found(**STATES[name]), page_of(name)
    heading = re.search(r"<h1.*?</h1>", text, re.DOTALL)[0]
    assert 'lang="en"' in heading
    assert 'lang="ja"' in heading
    first = summary(report).splitlines()[0]
    assert first.split(",")[0].split(":")[0] in re.sub(r"<[^>]+>", "", heading)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ended", "**ended**"),
        ("running", "**not ended: it runs, or was killed**"),
        ("stopped", "**stopped before its end**"),
        ("diverged", "**diverged**"),
    ],
)
def test_the_state_is_said(name, words):
    assert state(found(**STATES[name]).watched).en == words


def test_three_numbers_stand_in_the_summary_with_the_identity_of_the_batch():
    text = summary(found(price=Price(3600.0, "USD")))
    assert "time and money so far: 24 s, 24 USD" in text
    assert "waiting for data: 10 %" in text
    assert "batch 32 = 32 × 1 × 1" in text
    assert "Now: loss 0.8, accuracy 90.0 %" in text


def test_a_number_of_the_sentence_is_written_alike_below_it():
    """The noise scale's range ends at 111 and a loader that keeps up is worth 1.25 times."""
    sentence, *rows = summary(found(waiting=0.2)).splitlines()
    low, high = re.search(r"examples \(90 % range (\S+) to (\S+)\)", sentence).groups()
    assert any(f"examples (90 % range {low}–{high})" in row for row in rows)
    (times,) = re.search(r"up to (\S+) times the speed", sentence).groups()
    assert any(f"at most {times}× as fast" in row for row in rows)


def test_money_of_one_training_is_time_and_data_at_their_prices():
    """24 s at 1 and 1,200 examples at 0.01 each."""
    one = found(price=Price(3600.0, "USD", 0.01))
    assert "24 s, 36 USD" in summary(one)
    progress = data_of(page(one))["charts"]["progress"]
    last = [r for r in progress["rows"] if r["name"] == "loss"][-1]
    assert last["money"] == pytest.approx(36.0)


def test_without_a_price_there_is_no_money():
    assert "money so far" not in page_of("no metric")
    specs = data_of(page_of("no metric"))["charts"]["progress"]["specs"]
    assert set(specs) == {f"loss-{axis}" for axis in ("samples", "updates", "seconds")}


def test_the_summary_is_there_in_japanese():
    text = summary(found(), "ja")
    assert "これまでの時間" in text
    assert "バッチ32 = 32 × 1 × 1" in text


@pytest.mark.parametrize("name", ["ended", "diverged"])
def test_pictures_are_chosen_over_the_axes_that_have_numbers(name):
    data = data_of(page_of(name))
    assert set(data["charts"]) == {"progress", "noise", "waiting", "memory"}
    axes = ("samples", "updates", "seconds", "money")
    wanted = {f"{value}-{axis}" for value in ("loss", "accuracy") for axis in axes}
    assert set(data["charts"]["progress"]["specs"]) == wanted


def test_a_diverged_training_breaks_off_at_its_last_number():
    progress = data_of(page_of("diverged"))["charts"]["progress"]
    rows = [r for r in progress["rows"] if r["name"] == "loss"]
    assert [r["end"] for r in rows] == [""] * (len(rows) - 1) + ["diverged"]


def test_a_name_cannot_break_out_of_the_page():
    ordinary, evil = page_of("ended"), page(found(name=EVIL, settings={EVIL: EVIL}))
    assert [t for t, _ in tags(evil)].count("script") == [t for t, _ in tags(ordinary)].count(
        "script"
    )
    assert "img" not in {t for t, _ in tags(evil)}


# -- the comparison's first screen ----------------------------------------------------------------


PACES = (1.0, 1.1, 0.9, 1.05)


def advice(count=4, **what):
    runs = [run(f"t{i}", seed=i, pace=PACES[i]) for i in range(count)]
    given = {"batch": 64, "rate": 0.2} | what
    runs += [run(f"o{i}", seed=i, pace=0.5 * PACES[i], **given) for i in range(count)]
    return compare(runs, Asked("gears", command="batchlab report t o"))


@functools.cache
def rendered(count=4, dropout=None):
    return render(advice(count, settings={"dropout": dropout} if dropout else None))


def words(text, language):
    text = re.sub(rf'<(\w+) lang="{"ja" if language == "en" else "en"}">.*?</\1>', "", text)
    return re.sub(r"<[^>]+>", " ", text.split('id="evidence"')[0])


def test_the_first_screen_says_what_to_change_and_that_trainings_were_watched():
    en, ja = words(rendered(), "en"), words(rendered(), "ja")
    assert "Change two settings: batch size 32 → 64 and learning rate 0.1 → 0.2." in en
    assert "8 trainings of yours" in en
    assert "faster in 4 of 4 pairs of trainings" in en
    assert "never used for choosing" not in en
    assert "学習4組中4組で速かった" in ja


def test_one_run_a_setting_cannot_tell_and_says_how_many_more_would():
    one = advice(1)
    en, ja = words(rendered(1), "en"), words(rendered(1), "ja")
    assert "In a single repeat the best alternative came out 2× as fast" in en
    assert f"{one.decide_repeats} more trainings of each setting" in en
    assert f"あと{one.decide_repeats}回ずつ学習させる" in ja


@pytest.mark.parametrize(("told", "size"), [({}, 16), ({"batch_size": 96}, 96)])
def test_the_code_cuts_the_batch_as_it_was_watched(told, size):
    """64 = 16 × 4; a batch that was told, and is no product of what was measured, is not cut."""
    lines = {c.title.en: c.lines for c in code(advice(accumulation=4, settings=told))}
    assert f"batch_size={size}," in lines["Plain PyTorch"][0]
    steps = 4 if size == 16 else 1
    assert f"trainer = Trainer(accumulate_grad_batches={steps})" in lines["Lightning"]
    assert f"    gradient_accumulation_steps={steps}," in lines["Hugging Face Trainer"]
    assert ("# 64 = 16 × 4 × 1" in " ".join(lines["Plain PyTorch"])) == (size == 16)


def test_the_page_names_no_command_that_needs_an_advice():
    assert "batchlab apply" not in rendered()


def test_settings_of_the_users_own_are_shown():
    assert "dropout none → 0.1" in words(rendered(dropout=0.1), "en")


def test_every_run_is_a_thin_line():
    rows = data_of(rendered())["charts"]["curves"]["rows"]
    assert len({r["run"] for r in rows if r["run"]}) == 8


@pytest.mark.parametrize("what", [{}, {"metric": None}, {"population": None}, {"diverged": True}])
def test_assumptions_are_said_in_japanese_too(what):
    runs = [run(f"t{i}", pace=PACES[i], **{**what, "diverged": False}) for i in range(4)]
    runs += [run(f"o{i}", batch=64, ending=None, steps=6, **what) for i in range(3)]
    runs += [run(f"p{i}", batch=16, seed=i) for i in range(3) if what.get("metric", "") == ""]
    for sentence in compare(runs, Asked("x")).assumptions:
        assert re.search("[ぁ-ん]", both(sentence).ja), sentence


def test_that_the_pairs_shown_also_chose_is_said_in_japanese_too():
    runs = [run(), run(batch=64), run(batch=16)]
    told = [both(sentence).ja for sentence in compare(runs, Asked("x")).assumptions]
    assert any("示した1組は最良のものを選ぶのにも使った" in sentence for sentence in told)


def test_the_terminal_shows_the_answer():
    parts = [str(part) for part in terminal(advice()).renderables]
    assert any(part.startswith("Change two settings") for part in parts)
