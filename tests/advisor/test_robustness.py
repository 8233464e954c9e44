"""``--robustness`` and ``--prefer`` from end to end on a tiny task, in this process."""

import dataclasses
import json
import shutil

import pytest

from batchlab import _platform
from batchlab.advisor.advise import run_stages
from batchlab.advisor.options import Options
from batchlab.app.advise import advise, again, dry_run, typed_command
from batchlab.app.compare import compare
from batchlab.errors import InvalidValueError
from batchlab.measure.sturdiness import trained, untrained
from batchlab.report.findings import CompareReport
from batchlab.tasks import prepare
from batchlab.types import from_plain
from tests.advisor import tiny
from tests.advisor.made import unfinished

OPTIONS = Options(
    budget=600.0,
    seeds=3,
    confirm_seeds=4,
    batch_sizes=(16, 64),
    prefer="repeatable",
    growing=False,
)
ASKED = dataclasses.replace(OPTIONS, robustness=True)


@pytest.fixture(scope="module", autouse=True)
def _no_workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_platform, "available_cores", lambda: 1)
        yield


@pytest.fixture(scope="module")
def prepared():
    return prepare(tiny.task(), device="cpu")


@pytest.fixture(scope="module")
def plain(prepared, tmp_path_factory):
    """Without robustness, with the preference."""
    out = tmp_path_factory.mktemp("plain")
    return out, run_stages(prepared, OPTIONS, out, workers=0).records


@pytest.fixture(scope="module")
def resumed(prepared, plain, tmp_path_factory):
    """The same, and then robustness asked for."""
    out = tmp_path_factory.mktemp("asked")
    shutil.copytree(plain[0], out, dirs_exist_ok=True)
    return out, run_stages(prepared, ASKED, out, resume=True, workers=0).records


@pytest.mark.slow
def test_the_preference_is_in_the_plan_and_in_the_reasons(plain):
    out, records = plain
    chosen = json.loads((out / "plan.json").read_text())["stages"]["C chosen"]
    assert chosen["prefer"] == "repeatable"
    assert len(chosen["disagreement"]) == len(records.confirmation.finalists)
    assert any("disagree on" in sentence for sentence in records.said)


@pytest.mark.slow
def test_robustness_can_be_asked_for_later_and_changes_nothing_before_it(plain, resumed, prepared):
    (_, before), (out, after) = plain, resumed
    assert after.confirmation == before.confirmation
    assert after.projection == before.projection
    largest = max(32, int(after.confirmation.chosen[0]))
    wanted = untrained(prepared) + trained(prepared, largest)
    for setting in ("today", "recommended"):
        assert [s.what for s in after.survey.scores if s.setting == setting] == wanted
    assert {one.setting for one in after.survey.repeats} == {"today", "recommended"}
    assert (out / "robustness.json").is_file()


@pytest.mark.slow
def test_clean_values_are_those_of_the_fresh_runs(resumed):
    records = resumed[1]
    fresh = {c.seed: c.metric[-1] for c in records.confirmation.today}
    for one in records.survey.scores:
        if one.setting == "today" and not one.what.in_training:
            assert one.clean == pytest.approx([fresh[s] for s in one.seeds])
        if one.what.in_training:
            assert one.seeds == tuple(c.seed for c in records.confirmation.today)[: ASKED.seeds]


@pytest.mark.slow
def test_killed_in_the_middle_it_ends_with_the_same_numbers(resumed, prepared, tmp_path):
    out, first = resumed
    shutil.copytree(out, tmp_path, dirs_exist_ok=True)
    (tmp_path / "robustness.json").unlink()
    shutil.rmtree(next((tmp_path / "robustness").iterdir()))
    unfinished(tmp_path)
    second = run_stages(prepared, ASKED, tmp_path, resume=True, workers=0).records
    assert second.survey.repeats == first.survey.repeats
    for a, b in zip(second.survey.scores, first.survey.scores, strict=True):
        assert (a.what, a.setting, a.seeds, a.clean) == (b.what, b.setting, b.seeds, b.clean)
        assert a.values == pytest.approx(b.values, abs=1e-9)


@pytest.mark.slow
def test_the_page_and_the_file_hold_the_rows_and_are_made_again_from_the_records(tmp_path):
    given = dataclasses.asdict(ASKED)
    wanted = ("seeds", "confirm_seeds", "batch_sizes", "prefer", "robustness", "budget")
    advice = advise(tiny.task(), out=tmp_path, device="cpu", **{k: given[k] for k in wanted})
    assert advice.robustness.rows
    assert advice.robustness.repeats.today.n == 4
    assert again(tmp_path, None, (None, None, None)).robustness == advice.robustness
    page = (tmp_path / "report.html").read_text("utf-8")
    assert 'id="robustness"' in page
    assert "two trainings disagree" in page


def test_robustness_has_a_price_before_anything_is_trained():
    asked = dry_run(tiny.task(), dataclasses.replace(ASKED, prefer=None), device="cpu")
    assert set(asked.stages) == {"A", "B", "C", "F", "R"}
    assert asked.stages["R"] > 0
    assert "stage R, robustness: about" in str(asked)


def test_a_preference_that_cannot_be_judged_is_refused_before_anything_is_trained(tmp_path):
    task = dataclasses.replace(
        tiny.task(),
        forward=lambda model, batch: {"hidden": model(batch[0])},
        loss=lambda outputs, batch: tiny.loss(outputs["hidden"], batch),
        metric="loss",
    )
    with pytest.raises(InvalidValueError, match="`prefer` must be left out for this task"):
        advise(task, prefer="repeatable", out=tmp_path, device="cpu")
    assert not (tmp_path / "plan.json").exists()


def test_both_flags_are_in_the_command_that_goes_on(tmp_path):
    typed = typed_command("digits", ASKED, tmp_path, "cpu", None)
    assert " --robustness --prefer repeatable " in typed


@pytest.mark.slow
def test_compare_has_the_same_rows_for_every_setting(tmp_path):
    given = {"batch_sizes": [16], "learning_rates": [0.05, 0.1], "seeds": 3, "device": "cpu"}
    found = compare(tiny.task(), **given, robustness=True, out=tmp_path)
    assert list(found.robustness) == [one.setting.id for one in found.settings[1:]]
    kinds = {row.kind for row in found.robustness["B16-lr0.05"].rows}
    assert kinds == {"input noise", "sensor drift", "weight noise", "wrong labels", "less data"}
    assert "With noise or worse data" in str(found)
    assert "誤ラベル" in (tmp_path / "compare.html").read_text("utf-8")
    kept = from_plain(CompareReport, json.loads((tmp_path / "compare.json").read_text()))
    assert kept.robustness == found.robustness
    again_ = compare(tiny.task(), **given, robustness=True, out=tmp_path, resume=True)
    assert again_.robustness == found.robustness


@pytest.mark.slow
def test_compare_without_it_is_as_before(tmp_path):
    given = {"batch_sizes": [16], "seeds": 2, "device": "cpu", "samples": 512}
    found = compare(tiny.task(), **given, out=tmp_path)
    assert found.robustness == {}
    config = json.loads((tmp_path / "plan.json").read_text())["config"]
    assert "robustness" not in config
