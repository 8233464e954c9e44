"""``study`` end to end on a study that takes no time."""

import csv
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import batchlab
from batchlab import _platform
from batchlab._text import Text
from batchlab.app import study as app
from batchlab.app.cite import cited
from batchlab.citations import entries
from batchlab.errors import InvalidValueError, ResultError, TaskError
from batchlab.report import figures, studying
from batchlab.studies import catalogue
from batchlab.studies.verdict import Outcome
from tests.studies import made


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """The study is found under its name; pictures are drawn in the tests that look at them."""
    monkeypatch.setattr(catalogue, "load", lambda name: (made.STUDY, None))


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(figures, "write", lambda charts, folder: ())


def run(out, **given):
    return app.study("made", out=out, workers=0, **given)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One study with everything it writes."""
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "load", lambda name: (made.STUDY, None))
        return run(out), out


def test_every_claim_gets_a_verdict(finished):
    report, _ = finished
    assert [(v.id, str(v.verdict)) for v in report.verdicts] == [
        ("above-zero", "reproduced"),
        ("number", "reproduced"),
        ("mostly-positive", "reproduced"),
        ("found", "measured"),
    ]


def test_verdicts_are_written_for_other_programs(finished):
    report, out = finished
    first = json.loads((out / "verdicts.json").read_text())[0]
    assert first["verdict"] == "reproduced"
    assert (first["value"], first["n"]) == (report.verdicts[0].value, 16)


def test_a_finished_study_is_read_back_as_it_was(finished):
    report, out = finished
    assert app.load(out).verdicts == report.verdicts
    assert app.load(out).concluded[0].picture.series == report.concluded[0].picture.series


def test_a_notebook_shows_the_verdicts_as_a_table(finished):
    shown = finished[0]._repr_mimebundle_()
    assert "<table" in shown["text/html"]
    assert "The mean is above zero." in shown["text/html"]
    assert "reproduced" in shown["text/plain"]


def test_pictures_are_files_in_both_languages_with_their_numbers(finished):
    _, out = finished
    names = {path.name for path in (out / "charts").iterdir()}
    kinds = ("en.svg", "ja.svg", "en.pdf", "ja.pdf", "csv")
    assert {f"above-zero.{kind}" for kind in kinds} <= names
    assert "値" in (out / "charts" / "above-zero.ja.svg").read_text()
    assert (out / "charts" / "above-zero.en.pdf").read_bytes().startswith(b"%PDF")
    rows = list(csv.reader((out / "charts" / "above-zero.csv").read_text().splitlines()))
    assert rows[0] == ["mean", "value", "low", "high", "n", "series", "measured or theory"]
    assert float(rows[1][1]) == pytest.approx(
        finished[0].concluded[0].picture.points[0]["y"], rel=1e-5
    )


def test_the_data_behind_every_number_are_written(finished):
    _, out = finished
    assert len((out / "data" / "draws.csv").read_text().splitlines()) == 17


def test_the_page_says_each_claim_with_its_verdict_in_both_languages(finished):
    report, out = finished
    page = (out / "report.html").read_text()
    for one in report.concluded:
        assert one.sentence.en in page
        assert one.sentence.ja in page
    assert "✓ reproduced" in page
    assert "✓ 再現された" in page
    assert "@article{polyak1964" in page
    assert str(studying.headline(report).en) == (
        "3 of 3 claims reproduced; 1 findings beyond the source."
    )


def with_picture(one, **changes):
    return dataclasses.replace(one, picture=dataclasses.replace(one.picture, **changes))


def test_claims_with_the_same_picture_stand_below_it_once(finished):
    report, _ = finished
    first, other, again, last = report.concluded
    other = with_picture(other, caption=Text("Otherwise.", "別の図。"))
    report = dataclasses.replace(report, concluded=(first, other, again, last))
    page = studying.render(report, studying.pictures(report))
    ids = re.findall(r'<section id="claim-([^"]+)"', page)
    assert ids == [one.judged.id for one in (first, again, last, other)]
    assert re.findall(r'<figure id="figure-([^"]+)"', page) == [first.judged.id, other.judged.id]
    below = page.split(f'<section id="claim-{again.judged.id}"')[1].split("</section>")[0]
    assert f'href="#figure-{first.judged.id}"' in below
    assert first.meaning.en not in below
    assert studying.section(report, again, (first,)).charts == ()
    assert first.meaning.en in page.split(f'<section id="claim-{other.judged.id}"')[1]


def test_pictures_with_gaps_are_told_to_be_the_same(finished):
    one = with_picture(finished[0].concluded[0], points=({"x": math.nan, "y": 1.0},))
    other = with_picture(one, points=({"x": math.nan, "y": 1.0},))
    assert len(studying.grouped((one, other))) == 1
    assert len(studying.grouped((one, with_picture(one, points=())))) == 2


def test_every_link_of_the_page_leads_somewhere(finished):
    page = (finished[1] / "report.html").read_text()
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert links
    assert links <= set(re.findall(r'id="([^"]+)"', page))


def test_without_a_japanese_font_no_japanese_picture_is_drawn(monkeypatch, tmp_path, finished):
    monkeypatch.setattr(figures, "has_japanese_font", lambda: False)
    missing = figures.write(studying.pictures(finished[0])[:1], tmp_path)
    assert "no Japanese font" in missing[0].en
    assert not list(tmp_path.glob("*.ja.*"))
    assert list(tmp_path.glob("*.en.svg"))


def test_a_font_without_japanese_is_told_from_one_with_it(monkeypatch):
    figures.has_japanese_font.cache_clear()
    assert figures.has_japanese_font()
    # Two letters that no font has are drawn as the same empty box.
    assert figures._drawn("\U000f1234") == figures._drawn("\U000f1235")


def test_the_plan_is_written_before_the_first_run(tmp_path):
    with pytest.raises(TaskError, match="the measurement broke"):
        run(tmp_path, set=["mean=-200"])
    planned = json.loads((tmp_path / "plan.json").read_text())["stages"]["study"]
    first = planned["claims"][0]
    assert (first["id"], first["low"], first["high"], first["n"]) == ("above-zero", 0.0, "inf", 16)
    assert planned["level"] == 0.99


@pytest.mark.usefixtures("undrawn")
def test_a_parameter_set_by_hand_makes_a_variant(tmp_path):
    report = run(tmp_path, set=["mean=2"])
    assert report.variant == ("mean=2.0",)
    assert {v.variant for v in report.verdicts} == {("mean=2.0",)}
    assert "(variant)" in str(report)
    assert "was set by hand" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "claim", [c for c in made.claims(made.STUDY.parameters["quick"]) if c.twin]
)
def test_a_planted_fault_is_not_reproduced(tmp_path, claim):
    changes = [f"{name}={value}" for name, value in claim.twin.items()]
    found = {v.id: v.verdict for v in run(tmp_path, set=changes).verdicts}
    assert found[claim.id] is Outcome.NOT_REPRODUCED


@pytest.mark.usefixtures("undrawn")
def test_a_finished_study_is_made_again_without_measuring(tmp_path):
    first, again = run(tmp_path), run(tmp_path)
    assert first.verdicts == again.verdicts
    assert [p.read_text() for p in tmp_path.glob("cells/*/measured")] == ["x", "x"]


@pytest.mark.usefixtures("undrawn")
def test_an_unfinished_study_goes_on_only_when_asked(tmp_path, monkeypatch):
    real = app.measure
    with monkeypatch.context() as patch:
        patch.setattr(app, "measure", lambda *a, **k: [real(*a, **k), 1 / 0])
        with pytest.raises(ZeroDivisionError):
            run(tmp_path)
    with pytest.raises(ResultError, match="Add --resume"):
        run(tmp_path)
    assert run(tmp_path, resume=True).count(Outcome.REPRODUCED) == 3
    assert [p.read_text() for p in tmp_path.glob("cells/*/measured")] == ["x", "x"]


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_study_remembers_its_time(tmp_path):
    with pytest.raises(TaskError, match="the measurement broke"):
        run(tmp_path, set=["mean=-200"])
    assert json.loads((tmp_path / "plan.json").read_text())["spent"] > 0


@pytest.mark.usefixtures("undrawn")
def test_a_finished_study_is_not_measured_again_by_a_later_version(tmp_path, monkeypatch):
    first = run(tmp_path)
    monkeypatch.setattr(_platform, "version", lambda: "99.0")
    again = run(tmp_path)
    assert again.provenance == first.provenance
    assert [p.read_text() for p in tmp_path.glob("cells/*/measured")] == ["x", "x"]


@pytest.mark.usefixtures("undrawn")
def test_other_data_are_measured_anew(tmp_path):
    (tmp_path / "data").mkdir()
    for content in ("old", "newer"):
        (tmp_path / "data" / "task.parquet").write_text(content)
        run(tmp_path / content, data=tmp_path / "data")
    old, newer = ({p.name for p in (tmp_path / c / "cells").iterdir()} for c in ("old", "newer"))
    assert not old & newer


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("cells", "The cells of `made` with n=4 raised ZeroDivisionError"),
        ("claims", "The claims of `made` with n=4 raised ZeroDivisionError"),
        ("values", "Reading the values of `above-zero` raised ZeroDivisionError"),
        ("picture", "Drawing `above-zero` raised ZeroDivisionError"),
    ],
)
def test_a_fault_in_a_study_of_the_users_own_is_one_sentence(tmp_path, monkeypatch, part, words):
    def broken(given):
        return 1 / 0

    if part in ("cells", "claims"):
        study = made.study(**{part: broken})
    else:
        changes = {"n": 4, "values": lambda tables: tables["draws"]["value"].to_numpy()[:4]}
        study = made.study(claims=lambda p: (made.claim(**(changes | {part: broken})),))
    monkeypatch.setattr(catalogue, "load", lambda name: (study, None))
    with pytest.raises(TaskError, match=re.escape(words)):
        run(tmp_path, set=["n=4"])


def test_a_fault_of_the_users_code_is_named_with_its_line(tmp_path, monkeypatch):
    study = made.study(cells=lambda parameters: [][0])
    monkeypatch.setattr(catalogue, "load", lambda name: (study, None))
    with pytest.raises(TaskError, match=r"IndexError: .* \(test_study\.py, line \d+\)\."):
        run(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_repetitions_without_a_number_are_counted_in_the_table(tmp_path, monkeypatch):
    nothing = made.claim(values=lambda tables: np.full(8, math.nan))
    monkeypatch.setattr(
        catalogue, "load", lambda name: (made.study(claims=lambda p: (nothing,)), None)
    )
    assert "8 of 8 gave no number" in " ".join(str(run(tmp_path)).split())


def test_a_study_of_the_users_own_has_a_folder_by_its_file(monkeypatch):
    monkeypatch.setattr(catalogue, "load", lambda name: (made.STUDY, "somewhere/mine.py"))
    assert app.plan("mine.py").folder.name == "study-mine-quick"
    monkeypatch.setattr(catalogue, "load", lambda name: (made.STUDY, "package.mine"))
    assert app.plan("package.mine:STUDY").folder.name == "study-mine-quick"


@pytest.mark.usefixtures("undrawn")
def test_two_claims_of_one_name_are_refused(tmp_path, monkeypatch):
    study = made.study(claims=lambda parameters: (made.claim(), made.claim()))
    monkeypatch.setattr(catalogue, "load", lambda name: (study, None))
    with pytest.raises(InvalidValueError, match="`id` must be another for each claim"):
        run(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_another_seed_needs_another_directory(tmp_path):
    run(tmp_path)
    with pytest.raises(ResultError, match="another seed"):
        run(tmp_path, seed=1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"set": ["rate=1"]}, "`set` must be key=value with a key among mean, n; got 'rate=1'"),
        ({"set": ["mean"]}, "`set` must be key=value"),
        ({"set": ["n=many"]}, "`n` must be a whole number; got 'many'"),
        ({"seed": -1}, "`seed` must be a whole number"),
        pytest.param(
            {"mode": "long"},
            "`mode` must be one of quick, full, paper",
            marks=pytest.mark.wrong_type,
        ),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, given, words):
    with pytest.raises(InvalidValueError, match=re.escape(words)):
        run(tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_two_modes_at_once_are_refused():
    with pytest.raises(InvalidValueError, match="`mode` must be one of"):
        app.one_mode(["quick", "full"])


def test_what_is_missing_stops_a_study_before_it_begins(tmp_path, monkeypatch):
    lacking = made.study(lacks=lambda parameters, bench: "There is no GPU here.")
    monkeypatch.setattr(catalogue, "load", lambda name: (lacking, None))
    with pytest.raises(TaskError, match="no GPU"):
        run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_price_of_a_study_is_said_for_this_machine():
    asked = app.plan("made", mode="paper")
    told = app.price(asked, slower=3600.0)
    first, *rest = told.splitlines()
    assert "2 cells, 4 claims" in first
    assert first.endswith("on this machine.")
    assert rest[:2] == ["  mean = 1.0", "  n = 1000"]


def test_the_sources_of_a_result_can_be_cited(finished):
    made_of = cited([str(finished[1])])
    assert made_of.startswith("@software{batchlab,")
    assert "@article{polyak1964," in made_of
    assert made_of.count("\n@") == 1


@pytest.mark.parametrize(
    ("file", "record", "keys"),
    [
        ("noise.json", {"scale": 3.0}, {"mccandlish2018", "fieller1954"}),
        ("advice.json", {"noise": [], "today": {"rule": "shb"}}, {"polyak1964"}),
        (
            "compare.json",
            {"noise": [{"value": 1.0}], "seen": [{"sharpness": {"value": 2.0}}]},
            {"mccandlish2018", "fieller1954", "golub1977", "wu2000", "ghorbani2019"},
        ),
        ("compare.json", {"seen": [{"sharpness": None}]}, set()),
    ],
)
def test_what_was_measured_says_which_sources_it_rests_on(tmp_path, file, record, keys):
    (tmp_path / file).write_text(json.dumps(record))
    found = set(re.findall(r"^@\w+\{([^,]+),", cited([str(tmp_path)]), re.MULTILINE))
    assert found == {"batchlab"} | keys


def test_every_source_named_in_the_code_can_be_cited():
    root = batchlab.__path__[0]
    named = set()
    for path in Path(root).rglob("*.py"):
        named |= set(re.findall(r"\b[a-z]{2,}(?:19|20)\d\d\b", path.read_text("utf-8")))
    assert {"polyak1964", "mccandlish2018"} <= named
    assert named <= set(entries())


@pytest.mark.parametrize("what", ["nonsense", "polyak"])
def test_what_cannot_be_cited_is_one_sentence(what):
    with pytest.raises(InvalidValueError, match="`what` must be a result directory or a key"):
        cited([what])


def test_an_empty_directory_has_nothing_to_cite(tmp_path):
    with pytest.raises(ResultError, match="holds no finished result"):
        cited([str(tmp_path)])
