"""Studies by name and by file; the skeleton runs as it is."""

import re

import pytest

from batchlab.app import study as app
from batchlab.errors import InvalidValueError, TaskError
from batchlab.report import figures
from batchlab.studies import catalogue, template
from batchlab.studies.catalogue import overridden
from batchlab.studies.verdict import Outcome


def test_an_unknown_study_is_refused_with_the_known_names():
    with pytest.raises(TaskError, match="`study` must be a known name or a file; got 'nonsense'"):
        catalogue.load("nonsense")


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(TaskError, match=re.escape("There is no file `absent.py`.")):
        catalogue.load("absent.py")


def test_a_file_without_a_study_is_refused(tmp_path):
    (tmp_path / "without_study.py").write_text("STUDY = 3")
    with pytest.raises(TaskError, match="`STUDY` must be a Study in"):
        catalogue.load(str(tmp_path / "without_study.py"))


def test_modes_with_other_parameters_are_refused(tmp_path):
    text = 'from tests.studies.made import study\nSTUDY = study(parameters={"quick": {"n": 2}})'
    (tmp_path / "uneven_study.py").write_text(text)
    with pytest.raises(InvalidValueError, match="`parameters` must be for quick, full and paper"):
        catalogue.load(str(tmp_path / "uneven_study.py"))


@pytest.mark.parametrize("given", ["flag=true", "flag=TRUE"])
def test_a_switch_is_set_by_its_word(given):
    assert catalogue.overridden({"flag": False}, [given]) == ({"flag": True}, ("flag=True",))


def test_a_switch_takes_no_other_word():
    with pytest.raises(InvalidValueError, match="`flag` must be true or false; got 'yes'"):
        catalogue.overridden({"flag": False}, ["flag=yes"])


@pytest.fixture
def skeleton(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(figures, "write", lambda charts, folder: ())
    return template.write(tmp_path / "skeleton_study.py")


def run(path, out, **given):
    return app.study(str(path), out=out, workers=0, **given)


@pytest.mark.slow
def test_the_skeleton_reproduces_its_claim(skeleton, tmp_path):
    report = run(skeleton, tmp_path / "out")
    assert [v.verdict for v in report.verdicts] == [Outcome.REPRODUCED]
    assert not report.verdicts[0].needs_full


@pytest.mark.slow
def test_the_skeletons_planted_fault_is_not_reproduced(skeleton, tmp_path):
    found, _ = catalogue.load(str(skeleton))
    (claim,) = found.claims(found.parameters["quick"])
    changes = [f"{name}={value}" for name, value in claim.twin.items()]
    report = run(skeleton, tmp_path / "out", set=changes)
    assert [v.verdict for v in report.verdicts] == [Outcome.NOT_REPRODUCED]


def test_the_skeleton_overwrites_nothing(skeleton):
    with pytest.raises(InvalidValueError, match="Nothing was overwritten"):
        template.write(skeleton)


@pytest.mark.parametrize("text", ["seeds=0", "phase_seeds=-1"])
def test_no_seeds_are_refused_by_their_own_name(text):
    name = text.partition("=")[0]
    with pytest.raises(
        InvalidValueError, match=f"`{name}` must be a whole number, 1 or more; got"
    ):
        overridden({name: 3}, [text])
    assert overridden({name: 3}, [f"{name}=1"])[0] == {name: 1}
