"""The advice from end to end on a tiny task, in this process."""

import dataclasses
import json
import re
import shutil

import pytest
import torch

from batchlab import _platform
from batchlab.advisor import answer, confirm, screen
from batchlab.advisor.advise import run_stages
from batchlab.advisor.confirm import CHOOSING, FRESH
from batchlab.advisor.options import Options
from batchlab.advisor.record import Advice, Price, Verdict
from batchlab.advisor.session import Silent
from batchlab.advisor.stages import choice_of
from batchlab.app.advise import advise, again, dry_run
from batchlab.config import RunConfig
from batchlab.errors import InvalidValueError, ResultError, TaskError
from batchlab.measure.fit import fit
from batchlab.tasks import Metric, prepare
from tests.advisor import tiny
from tests.advisor.made import unfinished

OPTIONS = Options(budget=600.0, seeds=2, confirm_seeds=4, batch_sizes=(16, 128), growing=False)
"""What comes of batches that grow is in test_pilot.py."""


@pytest.fixture(scope="module", autouse=True)
def _no_workers():
    """Everything in this process, what fits found once, and single runs timed for milliseconds."""
    found = {}

    def fit_once(prepared, config, *, memory_limit, **given):
        asked = prepared.task.name, memory_limit
        if asked not in found:
            found[asked] = fit(prepared, config, memory_limit=memory_limit, **given)
        return found[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_platform, "available_cores", lambda: 1)
        patch.setattr(screen, "fit", fit_once)
        patch.setattr("batchlab.advisor.session.BLOCK_SECONDS", 0.02)
        yield


@pytest.fixture(scope="module")
def prepared():
    return prepare(tiny.task(), device="cpu")


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, run_stages(prepared, OPTIONS, out, workers=0)


def test_all_three_stages_run_where_the_budget_pays(whole):
    records = whole[1].records
    assert records.screening is not None
    assert records.projection is not None
    assert records.confirmation is not None


def test_the_search_starts_every_candidate_from_one_checkpoint(whole):
    projection = whole[1].records.projection
    starts = {}
    for curve in projection.curves:
        starts.setdefault(curve.seed, set()).add((curve.samples[0], curve.loss[0]))
    assert all(len(found) == 1 for found in starts.values())


def test_every_batch_size_has_its_own_learning_rates(whole):
    projection = whole[1].records.projection
    tried = {}
    for curve in projection.curves:
        tried.setdefault(curve.batch_size, set()).add(curve.learning_rate)
    assert len(tried) >= 2
    assert all(len(rates) >= 3 for rates in tried.values())


def test_fresh_seeds_are_used_by_nothing_before(whole):
    records = whole[1].records
    fresh = {c.seed for c in records.confirmation.today}
    assert fresh == {c.seed for c in records.confirmation.recommended}
    earlier = {c.seed for c in records.projection.curves + records.confirmation.choosing}
    assert not fresh & earlier
    assert min(fresh) == FRESH
    assert min(c.seed for c in records.confirmation.choosing) == CHOOSING


def test_finalists_run_to_the_end_of_the_users_length(whole, prepared):
    for curve in whole[1].records.confirmation.recommended:
        assert curve.samples[-1] > prepared.baseline.samples - curve.batch_size


@pytest.mark.slow
def test_the_same_plan_and_seed_give_the_same_curves(whole, prepared, tmp_path):
    out, first = whole
    tmp_path.rmdir()
    shutil.copytree(out, tmp_path)
    shutil.rmtree(tmp_path / "cells")
    for name in ("projection", "confirmation"):
        (tmp_path / f"{name}.json").unlink()
    unfinished(tmp_path)
    second = run_stages(prepared, OPTIONS, tmp_path, resume=True, workers=0)
    assert second.records.projection.curves == first.records.projection.curves
    assert second.records.confirmation.today == first.records.confirmation.today


@pytest.mark.parametrize("verdict", [Verdict.CHANGE, Verdict.KEEP])
def test_a_verdict_is_never_looked_at_again(whole, prepared, tmp_path, monkeypatch, verdict):
    out, first = whole
    tmp_path.rmdir()
    shutil.copytree(out, tmp_path)
    monkeypatch.setattr(answer, "verdict", lambda view: verdict)
    more = dataclasses.replace(OPTIONS, budget=700.0)
    found = run_stages(prepared, more, tmp_path, resume=True, workers=0).records
    before, after = first.records.confirmation, found.confirmation
    assert list(map(choice_of, after.finalists)) == list(map(choice_of, before.finalists))
    assert dataclasses.replace(after, finalists=()) == dataclasses.replace(before, finalists=())


class _Interrupter(Silent):
    """Presses Ctrl-C when a step begins."""

    def __init__(self, at: str) -> None:
        self.at = at

    def progress(self, what: str, share: float) -> None:
        if self.at in what:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "at", [pytest.param("search, part 2", marks=pytest.mark.slow), "fresh repeats"]
)
def test_an_interrupted_advice_resumes_with_the_same_result(whole, prepared, tmp_path, at):
    out, first = whole
    tmp_path.rmdir()
    shutil.copytree(out, tmp_path)
    shutil.rmtree(tmp_path / "cells")
    for name in ("projection", "confirmation"):
        (tmp_path / f"{name}.json").unlink()
    unfinished(tmp_path)
    stopped = run_stages(
        prepared, OPTIONS, tmp_path, resume=True, workers=0, listener=_Interrupter(at)
    )
    assert stopped.records.partial
    resumed = run_stages(prepared, OPTIONS, tmp_path, resume=True, workers=0)
    assert resumed.records.projection.curves == first.records.projection.curves
    # The choice is read from the plan, whatever the clock says this time.
    assert resumed.records.confirmation.chosen == first.records.confirmation.chosen
    assert resumed.records.confirmation.recommended == first.records.confirmation.recommended


def test_more_budget_after_a_confirmation_is_more_fresh_repeats(
    whole, prepared, tmp_path, monkeypatch
):
    out, first = whole
    tmp_path.rmdir()
    shutil.copytree(out, tmp_path)
    monkeypatch.setattr(confirm, "MOST_REPEATS", 2)
    monkeypatch.setattr(answer, "verdict", lambda view: Verdict.NOT_ENOUGH_EVIDENCE)
    more = dataclasses.replace(OPTIONS, budget=700.0)
    found = run_stages(prepared, more, tmp_path, resume=True, workers=0).records
    before, after = first.records.confirmation, found.confirmation
    assert after.today[: len(before.today)] == before.today
    assert after.chosen == before.chosen
    seeds = [c.seed for c in after.recommended]
    assert seeds == list(range(FRESH, FRESH + 6))
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["stages"]["C after 4 repeats"] == {"seeds": [FRESH + 4, FRESH + 5]}


def test_plans_stand_in_the_file_with_candidates_and_reasons(whole):
    stages = json.loads((whole[0] / "plan.json").read_text())["stages"]
    assert stages["A"]["executor"] in ("stacked", "loop")
    assert [c["reason"] for c in stages["B"]["candidates"]] == [
        "requested",
        "baseline",
        "requested",
    ]
    assert {"finalists", "seeds", "fresh"} <= set(stages["C"])
    assert set(stages["C chosen"]) == {"batch_size", "learning_rate", "target", "today_chosen"}


@pytest.mark.parametrize("at", ["timing", "finding"])
def test_an_advice_interrupted_before_anything_was_measured_is_still_written(tmp_path, at):
    found = advise(
        tiny.task(), budget=60.0, out=tmp_path / "out", device="cpu", listener=_Interrupter(at)
    )
    assert found.partial
    assert found.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_dry_run_prices_every_stage_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = dry_run(tiny.task(), Options(budget=600.0, price=Price(3600.0, "USD")), device="cpu")
    assert set(found.stages) == set("ABCFG")
    assert all(seconds > 0 for seconds in found.stages.values())
    assert "stage F, what decisions rest on: about" in str(found)
    assert "enough for all stages" in str(found)
    assert "USD" in str(found)
    assert re.search(r"repeats would show: 1\.\d\d×$", str(found), re.MULTILINE)
    accurate = dry_run(tiny.task(), Options(objective="accuracy"), device="cpu")
    assert "repeats would show: 0.98 standard deviations between pairs" in str(accurate)
    assert list(tmp_path.iterdir()) == []


def test_a_baseline_that_diverges_at_once_is_refused(tmp_path):
    wild = dataclasses.replace(tiny.task().baseline, learning_rate=3e38)
    task = dataclasses.replace(tiny.task(), baseline=wild)
    with pytest.raises(TaskError, match=r"settings diverge at the beginning .* smaller learning"):
        advise(task, budget=30.0, out=tmp_path / "out", device="cpu")


def test_a_learning_rate_of_zero_is_refused(tmp_path):
    still = dataclasses.replace(tiny.task().baseline, learning_rate=0.0)
    task = dataclasses.replace(tiny.task(), baseline=still)
    with pytest.raises(TaskError, match="`learning_rate` must be above 0 in the baseline"):
        advise(task, out=tmp_path / "out", device="cpu")


def test_a_checkpoint_that_fits_no_model_is_refused_before_anything_is_measured(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(TaskError, match="does not hold the state_dict of this model"):
        advise(tiny.task(), out=tmp_path / "out", device="cpu", from_checkpoint=str(path))


def test_a_search_starts_from_the_weights_that_were_given(prepared, tmp_path):
    """Every setting and seed, at weights that no initialisation gives."""
    model = prepared.task.model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    options = dataclasses.replace(OPTIONS, from_checkpoint=str(tmp_path / "weights.pt"))
    projection = run_stages(prepared, options, tmp_path / "out", workers=0).records.projection
    batch = prepared.validation.batch(torch.arange(prepared.validation.examples))
    with torch.no_grad():
        loss = float(prepared.task.loss(model(batch[0]), batch).mean())
    assert len({curve.seed for curve in projection.curves}) > 1
    assert {curve.samples[0] for curve in projection.curves} == {0}
    assert [c.loss[0] for c in projection.curves] == pytest.approx([loss] * len(projection.curves))


def test_an_interrupted_screening_leaves_a_usable_advice(tmp_path):
    found = advise(
        tiny.task(),
        budget=60.0,
        out=tmp_path / "out",
        device="cpu",
        listener=_Interrupter("search"),
    )
    assert found.partial
    assert found.stage == "A"
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("advice") / "フォルダ 1"
    return out, advise(
        tiny.task(),
        budget=90.0,
        out=out,
        device="cpu",
        price_per_hour=1.2,
        seeds=2,
        confirm_seeds=3,
        batch_sizes=(16, 128),
    )


def test_every_output_is_written(written):
    out, made = written
    # A task made in Python has no name by which a script could find it.
    assert not made.has_script
    assert not (out / "apply.py").exists()
    names = (
        "advice.json",
        "report.html",
        "summary.md",
        "plan.json",
        "machine.json",
        "provenance.json",
    )
    assert all((out / name).is_file() for name in names)
    assert (out / "runs.parquet").is_file()
    for name in ("speed.en.svg", "speed.ja.svg", "curves.en.svg", "speed.csv"):
        assert (out / "charts" / name).stat().st_size > 0


def test_the_advice_comes_back_from_its_file(written):
    out, made = written
    assert Advice.load(out / "advice.json").params == made.params
    assert Advice.load(out / "advice.json").verdict is made.verdict


def test_a_finished_result_is_only_rendered_again(written):
    out, made = written
    began = (out / "machine.json").read_bytes()
    same = advise(
        tiny.task(),
        budget=90.0,
        out=out,
        device="cpu",
        price_per_hour=1.2,
        seeds=2,
        confirm_seeds=3,
        batch_sizes=(16, 128),
    )
    assert (out / "machine.json").read_bytes() == began
    assert same.verdict is made.verdict
    assert same.comparisons == made.comparisons


def test_another_task_is_refused(written):
    out, _ = written
    other = dataclasses.replace(tiny.task(), name="other")
    with pytest.raises(ResultError, match="another task"):
        advise(
            other,
            budget=90.0,
            out=out,
            device="cpu",
            seeds=2,
            confirm_seeds=3,
            batch_sizes=(16, 128),
        )


def test_other_data_or_another_model_under_the_same_name_are_refused(written):
    out, _ = written
    given = {"budget": 90.0, "out": out, "device": "cpu", "seeds": 2, "confirm_seeds": 3}
    x, y = tiny.data()
    x[5, 2] += 1.0
    for changed in (
        {"train": (x, y)},
        {"model": lambda: torch.nn.Sequential(torch.nn.Linear(8, 2))},
        {"metric": Metric("accuracy", lambda outputs, batch: 0.5, maximise=True, unit="%")},
    ):
        other = dataclasses.replace(tiny.task(), **changed)
        with pytest.raises(ResultError, match="another task"):
            advise(other, resume=True, batch_sizes=(16, 128), **given)


def test_a_metric_that_is_never_a_number_is_refused(tmp_path):
    nan = Metric("mine", lambda outputs, batch: float("nan"), maximise=True)
    with pytest.raises(TaskError, match="`mine` was NaN or infinite at every evaluation"):
        advise(dataclasses.replace(tiny.task(), metric=nan), out=tmp_path / "out", device="cpu")


@pytest.mark.slow
def test_where_nothing_fits_nothing_is_advised(tmp_path):
    with pytest.raises(TaskError, match="Nothing can be measured"):
        advise(tiny.task(), out=tmp_path / "out", device="cpu", memory_limit="1KiB")


@pytest.mark.parametrize("text", ["{bro", "[1]", '{"facts": 1}', "a digit"])
def test_damaged_facts_are_one_sentence(written, tmp_path, text):
    out, _ = written
    shutil.copytree(out, tmp_path / "copy")
    path = tmp_path / "copy" / "facts.json"
    whole = path.read_text(encoding="utf-8")
    flipped = whole.replace('"train_examples": 5', '"train_examples": 6')
    assert flipped != whole
    path.write_text(flipped if text == "a digit" else text, encoding="utf-8")
    with pytest.raises(ResultError, match=r"`.*facts\.json` cannot be read: "):
        again(tmp_path / "copy", None, (None, None, None))


@pytest.mark.parametrize("text", ["{bro", "[1]", '{"fiu": 1}', None], ids=str)
@pytest.mark.parametrize("name", ["machine", "projection", "growing"])
def test_a_damaged_stage_is_one_sentence(written, tmp_path, name, text):
    out, _ = written
    shutil.copytree(out, tmp_path / "copy")
    path = tmp_path / "copy" / f"{name}.json"
    path.write_text(path.read_text().replace("0", "1", 1) if text is None else text)
    with pytest.raises(ResultError, match=rf"{name}\.json` cannot be read: it is damaged; the"):
        again(tmp_path / "copy", None, (None, None, None))


class _Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.mark.parametrize(
    ("name", "remade"),
    [
        ("machine", ("machine", "screening", "projection", "confirmation")),
        ("screening", ("machine", "screening", "projection", "confirmation")),
        ("projection", ("projection",)),
        ("confirmation", ("confirmation",)),
    ],
)
def test_a_stage_whose_record_is_damaged_is_made_anew_from_its_cells(
    whole, prepared, tmp_path, name, remade
):
    """In a finished result, without --resume, though its budget is spent."""
    out, first = whole
    tmp_path.rmdir()
    shutil.copytree(out, tmp_path)
    path = tmp_path / f"{name}.json"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("cells/*/done.json")}
    hears = _Heard()
    second = run_stages(prepared, OPTIONS, tmp_path, workers=0, listener=hears)
    assert sum(f"{name}.json` was damaged" in sentence for sentence in hears.said) == 1
    assert any(f"{name}.json` was damaged" in sentence for sentence in second.records.said)
    assert {p.stem for p in tmp_path.glob("*.damaged1")} >= set(remade)
    assert all(p.stat().st_mtime_ns == when for p, when in done.items())
    assert second.records.projection.curves == first.records.projection.curves
    for part in ("choosing", "chosen", "today", "recommended"):
        a, b = (getattr(of.records.confirmation, part) for of in (second, first))
        assert a == b
    hears = _Heard()
    run_stages(prepared, OPTIONS, tmp_path, workers=0, listener=hears)
    assert hears.said == []


def test_more_repeats_come_back_with_a_confirmation_that_was_damaged(
    whole, prepared, tmp_path, monkeypatch
):
    out, _ = whole
    tmp_path.rmdir()
    shutil.copytree(out, tmp_path)
    monkeypatch.setattr(confirm, "MOST_REPEATS", 2)
    monkeypatch.setattr(answer, "verdict", lambda view: Verdict.NOT_ENOUGH_EVIDENCE)
    more = dataclasses.replace(OPTIONS, budget=700.0)
    first = run_stages(prepared, more, tmp_path, resume=True, workers=0).records.confirmation
    assert len(first.today) == 6
    (tmp_path / "confirmation.json").write_text("{half")
    second = run_stages(prepared, more, tmp_path, workers=0).records.confirmation
    assert (second.today, second.recommended) == (first.today, first.recommended)


def test_another_price_changes_money_and_nothing_else(written):
    out, made = written
    dear = again(out, None, (12.0, None, None))
    time = next(c for c in made.comparisons if c.quantity == "time")
    assert next(c for c in dear.comparisons if c.quantity == "time") == time
    cost, ten = (
        next(c for c in a.comparisons if c.quantity == "cost").today.value for a in (made, dear)
    )
    assert ten == pytest.approx(10 * cost)


def test_another_machine_changes_times_and_not_samples(written, tmp_path):
    out, _ = written
    machine = json.loads((out / "machine.json").read_text())
    del machine["sha256"]
    for blocks in machine["blocks"].values():
        for block in blocks:
            block["seconds"] *= 2
    (tmp_path / "machine.json").write_text(json.dumps(machine))
    slow = again(out, tmp_path, (None, None, None))
    for quantity, factor in (("time", 2.0), ("samples", 1.0)):
        old, new = (
            next(c for c in a.comparisons if c.quantity == quantity).today.value
            for a in (again(out, out, (None, None, None)), slow)
        )
        assert new == pytest.approx(factor * old)


def test_a_machine_timed_with_another_task_is_refused(written, tmp_path):
    out, _ = written
    machine = json.loads((out / "machine.json").read_text())
    assert machine.pop("sha256")
    assert machine["task"] == "tiny"
    (tmp_path / "machine.json").write_text(json.dumps(machine | {"task": "huge"}))
    with pytest.raises(ResultError, match="with the task huge, this result is of tiny"):
        again(out, tmp_path, (None, None, None))


def test_a_dry_run_meets_a_metric_that_raises():
    def broken(outputs, batch):
        raise RuntimeError("no scores today")

    task = dataclasses.replace(tiny.task(), metric=Metric("mine", broken, maximise=True))
    with pytest.raises(TaskError, match="The metric `mine` raised RuntimeError: no scores today"):
        dry_run(task, Options(), device="cpu")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match=r"cannot be written to .*choose another --out"):
        advise(tiny.task(), out=tmp_path / "file", device="cpu")


def test_a_screened_advice_never_says_change_and_keeps_its_next_step(tmp_path):
    out = tmp_path / "out"
    found = advise(tiny.task(), out=out, device="cpu", seeds=3)
    assert found.stage == "A"
    assert found.verdict is Verdict.NOT_ENOUGH_EVIDENCE
    assert found.next_stage is not None
    for flag in ("--budget", "--resume", "--seeds 3", f"--out {out}"):
        assert flag in found.next_stage.command
    assert any("without --budget" in a for a in found.assumptions)
    # Asked for again, it is the same advice, date included.
    same = advise(tiny.task(), out=out, device="cpu", seeds=3)
    assert (same.created, same.next_stage, same.assumptions) == (
        found.created,
        found.next_stage,
        found.assumptions,
    )


def test_a_schedule_in_the_baseline_is_refused_by_name_where_all_settings_are_searched(tmp_path):
    task = dataclasses.replace(
        tiny.task(), baseline=RunConfig(batch_size="0:8 2ep:16", learning_rate=0.1, samples="4ep")
    )
    with pytest.raises(TaskError, match="`batch_size` must be one number in the baseline"):
        advise(task, out=tmp_path / "out", device="cpu", tune="learning_rate")


def test_a_start_that_does_not_say_which_process_this_is_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidValueError, match="`RANK` must be set in the environment"):
        advise(tiny.task(), out=tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"objective": "cost"}, "`objective` must be time, samples or accuracy where no price"),
        ({"budget": "soon"}, "`budget` must be a time such as 90s, 2m or 1h; got 'soon'"),
        ({"target": 2.0}, "`target` must be a share between 0 and 1"),
        ({"at_least": {"accuracy": 97.0}}, "`at_least` must be a share between 0 and 1"),
        ({"worth": 0.9}, "`worth` must be a ratio above 1"),
        ({"confirm_seeds": 1}, "`confirm_seeds` must be a whole number, 3 or more"),
        ({"batch_sizes": (4096,)}, "`batch_sizes` must be at most the 510 training examples"),
        ({"at_least": {"recall": 0.5}}, "`at_least` must be about accuracy or loss"),
        ({"from_checkpoint": "nowhere.pt"}, "`from_checkpoint` must be a file with a state_dict"),
        ({"price_per_hour": -1.0}, "`price_per_hour` must be 0 or more"),
    ],
)
def test_impossible_wishes_are_refused_before_any_training(given, sentence, tmp_path):
    with pytest.raises(InvalidValueError, match=sentence):
        advise(tiny.task(), out=tmp_path / "out", device="cpu", **given)
    assert not (tmp_path / "out" / "plan.json").exists()
