import json
import math
from dataclasses import dataclass

import pytest

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


def test_a_truncated_plan_is_one_sentence(tmp_path):
    (tmp_path / "plan.json").write_text('{"format": 1, "conf')
    with pytest.raises(ResultError, match="cannot be read"):
        Journal(tmp_path, {}, resume=True)


def test_records_come_back_with_numbers_json_lacks(tmp_path):
    journal = Journal(tmp_path, {}, resume=False)
    journal.plan("A", {})
    journal.save("note", Note(math.inf))
    assert journal.load("note", Note) == Note(math.inf)


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
