import json
import math
from dataclasses import dataclass

import pytest

from batchlab import _platform
from batchlab.advisor.advise import _fields
from batchlab.advisor.journal import Journal, parse_seconds
from batchlab.advisor.options import Options
from batchlab.errors import InvalidValueError, ResultError


@dataclass(frozen=True)
class Note:
    value: float


def test_a_plan_is_made_once_and_read_ever_after(tmp_path):
    first = Journal(tmp_path, {"task": "a"}, resume=False)
    assert first.plan("B", {"sizes": (1, 2)}) == {"sizes": [1, 2]}
    again = Journal(tmp_path, {"task": "a"}, resume=True)
    assert again.plan("B", {"sizes": (3,)}) == {"sizes": [1, 2]}


def test_an_unfinished_result_needs_resume(tmp_path):
    Journal(tmp_path, {"task": "a"}, resume=False).plan("A", {})
    with pytest.raises(ResultError, match=r"holds an unfinished result\. Add --resume"):
        Journal(tmp_path, {"task": "a"}, resume=False)


def test_a_finished_result_of_the_same_configuration_is_opened(tmp_path):
    Journal(tmp_path, {"task": "a", "budget": 9.0}, resume=False).finish()
    assert Journal(tmp_path, {"task": "a", "budget": 9.0}, resume=False).finished


def test_another_configuration_is_refused_by_name(tmp_path):
    Journal(tmp_path, {"task": "a", "seed": 0}, resume=False).finish()
    with pytest.raises(ResultError, match="holds a result with another seed"):
        Journal(tmp_path, {"task": "a", "seed": 1}, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_what_was_asked_for_then_and_is_not_now_is_refused_by_name(tmp_path, resume):
    Journal(tmp_path, {"task": "a", "gammas": [0.1, 1.0], "growing": False}, False).finish()
    with pytest.raises(ResultError, match="holds a result with another gammas, growing"):
        Journal(tmp_path, {"task": "a"}, resume)


def test_a_result_from_before_an_option_is_of_its_usual_value(tmp_path):
    Journal(tmp_path, {"task": "a", "retired": None}, resume=False).finish()
    assert Journal(tmp_path, {"task": "a", "new": None}, resume=False).finished


@pytest.mark.parametrize(
    "asked", [{"gammas": (0.1, 1.0)}, {"tune": ("batch_size", "momentum")}, {"growing": False}]
)
def test_an_advice_with_other_options_is_not_taken_for_a_plain_one(tmp_path, asked):
    made, plain = (_fields(Options(budget=60.0, **more)) for more in (asked, {}))
    Journal(tmp_path, made, resume=False).finish()
    assert Journal(tmp_path, made, resume=False).finished
    with pytest.raises(ResultError, match=f"a result with another {next(iter(asked))}"):
        Journal(tmp_path, plain, resume=False)


def test_another_price_is_judged_anew(tmp_path):
    Journal(tmp_path, {"price": 1.0}, resume=False).finish()
    assert Journal(tmp_path, {"price": 2.0}, resume=False).finished


def test_more_budget_goes_on_only_when_asked_to(tmp_path):
    Journal(tmp_path, {"budget": 10.0}, resume=False).finish()
    with pytest.raises(ResultError, match=r"another budget\. Add --resume"):
        Journal(tmp_path, {"budget": 20.0}, resume=False)
    assert not Journal(tmp_path, {"budget": 20.0}, resume=True).finished


def test_robustness_is_added_to_a_finished_result_only_when_resuming(tmp_path):
    """A result made before it could be asked for has no word of it."""
    Journal(tmp_path, {"budget": 10.0}, resume=False).finish()
    asked = {"budget": 10.0, "robustness": True}
    with pytest.raises(ResultError, match=r"another robustness\. Add --resume"):
        Journal(tmp_path, asked, resume=False)
    assert not Journal(tmp_path, asked, resume=True).finished


def test_a_newer_format_is_refused(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"format": 99, "config": {}, "stages": {}}))
    with pytest.raises(ResultError, match="format 99; this version reads 1"):
        Journal(tmp_path, {}, resume=True)


def test_records_come_back_with_numbers_json_lacks(tmp_path):
    journal = Journal(tmp_path, {}, resume=False)
    journal.plan("A", {})
    journal.save("note", Note(math.inf))
    assert journal.load("note", Note) == Note(math.inf)


RECORDS = ("machine", "note", "screening")
OTHERS = {"advice.json": '{"value": 1.0}', "executors.json": '{"sha256": "0", "choices": {}}'}
"""What others write into the directory."""


def finished(folder):
    """A result with three records, and what others write beside them."""
    journal = Journal(folder, {"seed": 0}, resume=False)
    journal.plan("A", {"size": 512})
    journal.note(7.0, {"B": 3.0}, ["one", "two"])
    for name in RECORDS:
        journal.save(name, Note(512.0))
    journal.finish()
    for name, text in OTHERS.items():
        (folder / name).write_text(text)


def opened(folder, resume=True):
    """The result, and what is said of it."""
    said = []
    return Journal(folder, {"seed": 0}, resume, said.append), said


def flipped(path):
    """5 → 4 in 512."""
    text = path.read_text()
    assert text.count('": 512') == 1
    path.write_text(text.replace('": 512', '": 412'))


def unstamped(path):
    """As it was before there were hashes."""
    whole = json.loads(path.read_text())
    del whole["sha256"]
    path.write_text(json.dumps(whole))


def holds(text):
    def write(path):
        path.write_text(text)

    return pytest.param(write, id=text or "nothing")


BROKEN = [flipped, *map(holds, ("", "{", "[1]", "3", "null", "{}", '{"fiu": 1}'))]
BROKEN_PLANS = [
    *BROKEN,
    *map(
        holds,
        (
            '{"format": 1, "confih": {}}',
            '{"format": 1, "config": {}, "finished": false, "stages": []}',
            '{"format": 1, "config": {}, "finished": false, "stages": {"A": 3}}',
            '{"format": 1, "config": {"seed": 0}, "finished": true, "stages": {}, "sha256": "0"}',
        ),
    ),
]


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_record_is_set_aside_and_said_and_the_result_goes_on(tmp_path, damage):
    finished(tmp_path)
    damage(tmp_path / "note.json")
    before = (tmp_path / "note.json").read_bytes()
    for resume, told in ((False, 1), (True, 0)):
        journal, said = opened(tmp_path, resume)
        assert journal.finished == bool(told)
        assert journal.load("machine", Note) == Note(512.0)
        assert journal.load("note", Note) is None
        assert not journal.finished
        assert len(said) == told
        assert all("note.json` was damaged: it is kept as `note.damaged1`" in one for one in said)
    assert (tmp_path / "note.damaged1").read_bytes() == before
    assert journal.plan("A") == {"size": 512}
    assert journal.spent == 7.0


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("name", ["machine", "screening"])
def test_what_rests_on_a_damaged_record_is_set_aside_too(tmp_path, name, damage):
    finished(tmp_path)
    damage(tmp_path / f"{name}.json")
    journal, said = opened(tmp_path, resume=False)
    assert journal.load(name, Note) is None
    assert [journal.load(other, Note) for other in RECORDS] == [None] * 3
    assert len(said) == 1
    assert journal.plan("A") == {"size": 512}
    assert journal.spent == 0.0  # all is made again, and the budget pays for it
    assert {path.name for path in tmp_path.iterdir()} == {
        *OTHERS,
        *(f"{other}.damaged1" for other in RECORDS),
        "plan.json",
    }
    journal.save(name, Note(1.0))
    assert opened(tmp_path)[0].load(name, Note) == Note(1.0)


@pytest.mark.parametrize("damage", BROKEN_PLANS)
def test_a_damaged_plan_is_refused_or_begun_again_without_its_records(tmp_path, damage):
    finished(tmp_path)
    damage(tmp_path / "plan.json")
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(
        ResultError, match=r"whose plan\.json is damaged\. Add --resume to make it"
    ):
        opened(tmp_path, resume=False)
    journal, said = opened(tmp_path)
    assert len(said) == 1
    assert "plan.json` was damaged: it is kept as `plan.damaged1`" in said[0]
    assert (tmp_path / "plan.damaged1").read_bytes() == before
    assert journal.plan("A") is None
    assert not journal.finished
    assert [journal.load(name, Note) for name in RECORDS] == [None] * 3
    assert all((tmp_path / name).read_text() == text for name, text in OTHERS.items())


@pytest.mark.parametrize("renames", range(3))
@pytest.mark.parametrize("name", ["machine", "plan"])
def test_killed_while_it_sets_aside_nothing_is_believed_later(
    tmp_path, monkeypatch, name, renames
):
    finished(tmp_path)
    flipped(tmp_path / f"{name}.json")
    done = []

    def killed(path):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(path)
        return set_aside(path)

    set_aside = _platform.set_aside
    with monkeypatch.context() as patch:
        patch.setattr(_platform, "set_aside", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)[0].load("machine", Note)
    journal, said = opened(tmp_path)
    assert [journal.load(other, Note) for other in RECORDS] == [None] * 3
    assert len(said) == 1
    assert not journal.finished


def test_a_result_from_before_there_were_hashes_is_read(tmp_path):
    finished(tmp_path)
    for name in ("plan", *RECORDS):
        unstamped(tmp_path / f"{name}.json")
    journal, said = opened(tmp_path, resume=False)
    assert journal.finished
    assert [journal.load(name, Note) for name in RECORDS] == [Note(512.0)] * 3
    assert said == []


def test_nor_are_records_without_a_hash_believed_where_what_they_rest_on_is_gone(tmp_path):
    finished(tmp_path)
    unstamped(tmp_path / "note.json")
    flipped(tmp_path / "machine.json")
    journal, _ = opened(tmp_path)
    assert [journal.load(name, Note) for name in RECORDS] == [None] * 3


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("2m", 120.0), ("1.5h", 5400.0), (7, 7.0)]
)
def test_budgets_are_read_in_seconds_minutes_and_hours(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "5 parsecs", "-3m", "0s", "nan", "inf"])
def test_a_budget_that_is_no_time_is_refused_as_it_was_typed(text):
    with pytest.raises(InvalidValueError, match=r"`budget` must be a time such as 90s.*got"):
        parse_seconds(text)


def test_a_result_from_before_there_was_a_gamma_is_continued(tmp_path):
    Journal(tmp_path, {"baseline": {"seed": 0}}, resume=False).finish()
    assert Journal(tmp_path, {"baseline": {"seed": 0, "gamma": None}}, resume=False).finished
    with pytest.raises(ResultError, match="another baseline"):
        Journal(tmp_path, {"baseline": {"seed": 0, "gamma": 1.0}}, resume=False)
